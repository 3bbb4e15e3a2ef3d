//! What an address belongs to.

use cudarc::driver::sys::CUpointer_attribute as Attribute;
use cudarc::driver::sys::CUresult::{CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_NOT_SUPPORTED};

use crate::boundary::{DevicePointer, Handle, In, Out};
use crate::driver::{self, Driver};
use crate::error::{Because, Result};
use crate::export::exports;

const HOST: u32 = 1;
const DEVICE: u32 = 2;
const READ_WRITE: u32 = 3;

/// An attribute's value, in the width that the API gives it.
#[derive(Debug, Clone, Copy)]
enum Value {
    Byte(u8),
    Word(u32),
    Long(u64),
}

impl Value {
    fn put(self, out: Out<u64>) -> Result<()> {
        match self {
            Value::Byte(value) => out.cast().set(value),
            Value::Word(value) => out.cast().set(value),
            Value::Long(value) => out.set(value),
        }
    }
}

/// The memory that an address lies in.
struct Place {
    device: bool,
    context: Handle,
    base: u64,
    size: u64,
    pool: Handle,
    number: u64,
}

impl Driver {
    fn place_of(&self, address: DevicePointer) -> Option<Place> {
        if let Some(allocation) = self.memory.find(address) {
            let owned = self.allocations.get(&allocation.base);
            // Variables of modules have no owner in the table.
            let of_module =
                || self.modules.values().find(|m| m.code.globals.iter().any(|g| g.address == allocation.base));
            let context = owned.map_or_else(|| of_module().map_or(0, |module| module.context), |owned| owned.context);
            return Some(Place {
                device: true,
                context,
                base: allocation.base,
                size: allocation.size,
                pool: owned.and_then(|owned| owned.pool).unwrap_or(0),
                number: allocation.base >> 9,
            });
        }
        let (context, base, size) = self.pinned.range(address)?;
        Some(Place { device: false, context, base, size, pool: 0, number: base >> 9 })
    }
}

fn attribute(name: u32, place: &Place, address: u64) -> Result<Value> {
    let known = |attribute: Attribute| attribute as u32 == name;
    Ok(match name {
        _ if known(Attribute::CU_POINTER_ATTRIBUTE_CONTEXT) => Value::Long(place.context),
        _ if known(Attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE) => {
            Value::Word(if place.device { DEVICE } else { HOST })
        }
        _ if known(Attribute::CU_POINTER_ATTRIBUTE_DEVICE_POINTER) && place.device => Value::Long(address),
        _ if known(Attribute::CU_POINTER_ATTRIBUTE_HOST_POINTER) && !place.device => Value::Long(address),
        _ if known(Attribute::CU_POINTER_ATTRIBUTE_DEVICE_POINTER)
            || known(Attribute::CU_POINTER_ATTRIBUTE_HOST_POINTER) =>
        {
            return Err(CUDA_ERROR_INVALID_VALUE.because("host and device do not share this memory"));
        }
        _ if known(Attribute::CU_POINTER_ATTRIBUTE_SYNC_MEMOPS) => Value::Byte(0),
        _ if known(Attribute::CU_POINTER_ATTRIBUTE_BUFFER_ID) => Value::Long(place.number),
        _ if known(Attribute::CU_POINTER_ATTRIBUTE_IS_MANAGED) => Value::Byte(0),
        _ if known(Attribute::CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL) => Value::Word(0),
        _ if known(Attribute::CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE) => Value::Byte(0),
        _ if known(Attribute::CU_POINTER_ATTRIBUTE_RANGE_START_ADDR) => Value::Long(place.base),
        _ if known(Attribute::CU_POINTER_ATTRIBUTE_RANGE_SIZE) => Value::Long(place.size),
        _ if known(Attribute::CU_POINTER_ATTRIBUTE_MAPPED) => Value::Byte(1),
        _ if known(Attribute::CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES) => Value::Long(0),
        _ if known(Attribute::CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE) => Value::Byte(0),
        _ if known(Attribute::CU_POINTER_ATTRIBUTE_ACCESS_FLAGS) => Value::Word(READ_WRITE),
        _ if known(Attribute::CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE) => Value::Long(place.pool),
        _ => return Err(CUDA_ERROR_NOT_SUPPORTED.because(format!("pointer attribute {name} is not emulated"))),
    })
}

/// What is answered of memory the driver does not know, where that is no error.
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
        let Some(place) = driver.place_of(address) else {
            return Err(CUDA_ERROR_INVALID_VALUE.because(format!("{address:#x} is not memory the driver knows")));
        };
        attribute(name, &place, address)?.put(out)?;
    }

    fn cuPointerGetAttributes(count: u32, names: In<u32>, outs: In<Out<u64>>, address: DevicePointer) {
        let driver = driver::lock()?;
        driver.current()?;
        let place = driver.place_of(address);
        for (name, out) in names.list(count as usize)?.into_iter().zip(outs.list(count as usize)?) {
            let value = place.as_ref().and_then(|place| attribute(name, place, address).ok());
            value.unwrap_or_else(|| unknown(name)).put(out)?;
        }
    }
}
