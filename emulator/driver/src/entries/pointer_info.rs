//! Attributes of pointers.

use cudarc::driver::sys::CUpointer_attribute as Attribute;
use cudarc::driver::sys::CUresult::{CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_NOT_SUPPORTED};

use crate::boundary::{DevicePointer, Handle, In, Out};
use crate::driver::{self, Driver};
use crate::error::{Because, Result};
use crate::export::exports;

const HOST: u32 = 1;
const DEVICE: u32 = 2;
const READ_WRITE: u32 = 3;

/// The value of an attribute, in the width that the API defines for it.
#[derive(Debug, Clone, Copy)]
enum Value {
    Byte(u8),
    Word(u32),
    Long(u64),
}

impl Value {
    fn write(self, out: Out<u64>) -> Result<()> {
        match self {
            Value::Byte(value) => out.cast().set(value),
            Value::Word(value) => out.cast().set(value),
            Value::Long(value) => out.set(value),
        }
    }
}

/// The allocation that an address belongs to.
struct Memory {
    device: bool,
    context: Handle,
    base: u64,
    size: u64,
    pool: Handle,
    number: u64,
}

impl Driver {
    fn memory_of(&self, address: DevicePointer) -> Option<Memory> {
        if let Some(allocation) = self.memory.find(address) {
            let owned = self.allocations.get(&allocation.base);
            // The variables of modules are not in the table of allocations.
            let of_module =
                || self.modules.values().find(|m| m.code.globals.iter().any(|g| g.address == allocation.base));
            let context = owned.map_or_else(|| of_module().map_or(0, |module| module.context), |owned| owned.context);
            return Some(Memory {
                device: true,
                context,
                base: allocation.base,
                size: allocation.size,
                pool: owned.and_then(|owned| owned.pool).unwrap_or(0),
                number: allocation.base >> 9,
            });
        }
        let (context, base, size) = self.pinned.range(address)?;
        Some(Memory { device: false, context, base, size, pool: 0, number: base >> 9 })
    }
}

fn attribute(name: u32, memory: &Memory, address: u64) -> Result<Value> {
    let known = |attribute: Attribute| attribute as u32 == name;
    Ok(match name {
        _ if known(Attribute::CU_POINTER_ATTRIBUTE_CONTEXT) => Value::Long(memory.context),
        _ if known(Attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE) => {
            Value::Word(if memory.device { DEVICE } else { HOST })
        }
        _ if known(Attribute::CU_POINTER_ATTRIBUTE_DEVICE_POINTER) && memory.device => Value::Long(address),
        _ if known(Attribute::CU_POINTER_ATTRIBUTE_HOST_POINTER) && !memory.device => Value::Long(address),
        _ if known(Attribute::CU_POINTER_ATTRIBUTE_DEVICE_POINTER)
            || known(Attribute::CU_POINTER_ATTRIBUTE_HOST_POINTER) =>
        {
            return Err(CUDA_ERROR_INVALID_VALUE.because("the host and the device do not share this memory"));
        }
        _ if known(Attribute::CU_POINTER_ATTRIBUTE_SYNC_MEMOPS) => Value::Byte(0),
        _ if known(Attribute::CU_POINTER_ATTRIBUTE_BUFFER_ID) => Value::Long(memory.number),
        _ if known(Attribute::CU_POINTER_ATTRIBUTE_IS_MANAGED) => Value::Byte(0),
        _ if known(Attribute::CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL) => Value::Word(0),
        _ if known(Attribute::CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE) => Value::Byte(0),
        _ if known(Attribute::CU_POINTER_ATTRIBUTE_RANGE_START_ADDR) => Value::Long(memory.base),
        _ if known(Attribute::CU_POINTER_ATTRIBUTE_RANGE_SIZE) => Value::Long(memory.size),
        _ if known(Attribute::CU_POINTER_ATTRIBUTE_MAPPED) => Value::Byte(1),
        _ if known(Attribute::CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES) => Value::Long(0),
        _ if known(Attribute::CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE) => Value::Byte(0),
        _ if known(Attribute::CU_POINTER_ATTRIBUTE_ACCESS_FLAGS) => Value::Word(READ_WRITE),
        _ if known(Attribute::CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE) => Value::Long(memory.pool),
        _ => return Err(CUDA_ERROR_NOT_SUPPORTED.because(format!("pointer attribute {name} is not emulated"))),
    })
}

/// The value of an attribute of memory that the driver does not know, for the function that accepts such memory.
fn unknown(name: u32) -> Value {
    let byte = [
        Attribute::CU_POINTER_ATTRIBUTE_SYNC_MEMOPS,
        Attribute::CU_POINTER_ATTRIBUTE_IS_MANAGED,
        Attribute::CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE,
        Attribute::CU_POINTER_ATTRIBUTE_MAPPED,
        Attribute::CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE,
    ];
    match name {
        _ if name == Attribute::CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL as u32 => Value::Word((-2_i32) as u32),
        _ if name == Attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE as u32 => Value::Word(0),
        _ if name == Attribute::CU_POINTER_ATTRIBUTE_ACCESS_FLAGS as u32 => Value::Word(0),
        _ if byte.iter().any(|&attribute| attribute as u32 == name) => Value::Byte(0),
        _ => Value::Long(0),
    }
}

exports! {
    fn cuPointerGetAttribute(out: Out<u64>, name: u32, address: DevicePointer) {
        let driver = driver::lock()?;
        driver.current()?;
        let Some(memory) = driver.memory_of(address) else {
            return Err(CUDA_ERROR_INVALID_VALUE.because(format!("the driver does not know memory at {address:#x}")));
        };
        attribute(name, &memory, address)?.write(out)?;
    }

    fn cuPointerGetAttributes(count: u32, names: In<u32>, outs: In<Out<u64>>, address: DevicePointer) {
        let driver = driver::lock()?;
        driver.current()?;
        let memory = driver.memory_of(address);
        for (name, out) in names.list(count as usize)?.into_iter().zip(outs.list(count as usize)?) {
            let value = memory.as_ref().and_then(|memory| attribute(name, memory, address).ok());
            value.unwrap_or_else(|| unknown(name)).write(out)?;
        }
    }
}
