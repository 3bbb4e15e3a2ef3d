//! Checks of what a C caller passes: sizes, pointers, and the memory behind them.

use std::ffi::c_void;
use std::fmt::Display;

use cudarc::driver::DriverError;
use cudarc::driver::sys::{self, CUpointer_attribute};
use half::bf16;
use ironwarp::cuda::{Cuda, DevPtr};
use ironwarp::ops::Write;
use ironwarp::tensor::{Element, Shape, View, ViewMut};
use ironwarp::{Error, Result};

/// The arguments of a call of `function`.
pub struct Arguments {
    pub function: &'static str,
    /// Ordinal of the stream's device.
    pub device: i32,
}

impl Arguments {
    /// The error for an argument that breaks `rule`.
    pub fn failed(&self, rule: impl Display, found: impl Display) -> Error {
        Error::Precondition { operation: self.function, rule: rule.to_string(), found: found.to_string() }
    }

    /// A size of at least 1.
    pub fn size(&self, name: &str, value: i64) -> Result<usize> {
        usize::try_from(value)
            .ok()
            .filter(|&size| size > 0)
            .ok_or_else(|| self.failed(format_args!("{name} >= 1"), format_args!("{name} = {value}")))
    }

    /// Several sizes of at least 1.
    pub fn sizes<const N: usize>(&self, sizes: [(&str, i64); N]) -> Result<[usize; N]> {
        let mut found = [0; N];
        for (size, (name, value)) in found.iter_mut().zip(sizes) {
            *size = self.size(name, value)?;
        }
        Ok(found)
    }

    /// Fails if a tensor of these sizes cannot exist, so that what is computed from them does not overflow.
    pub fn tensor_exists(&self, axes: &str, sizes: &[usize]) -> Result<()> {
        const MOST: usize = 1 << 48;
        let len = sizes.iter().fold(1usize, |len, &size| len.saturating_mul(size));
        if len > MOST {
            let found = format_args!("{axes} = {}", Shape::from(sizes));
            return Err(self.failed(format_args!("{axes} has at most 2^48 elements"), found));
        }
        Ok(())
    }

    /// A flag: 0 or 1.
    pub fn flag(&self, name: &str, value: i32) -> Result<bool> {
        match value {
            0 | 1 => Ok(value == 1),
            _ => Err(self.failed(format_args!("{name} is 0 or 1"), format_args!("{name} = {value}"))),
        }
    }

    /// How an output is written: 0 overwrites, 1 accumulates.
    pub fn write(&self, name: &str, value: i32) -> Result<Write> {
        Ok(if self.flag(name, value)? { Write::Accumulate } else { Write::Overwrite })
    }

    /// A finite number or infinity.
    pub fn number(&self, name: &str, value: f32) -> Result<f32> {
        if value.is_nan() {
            return Err(self.failed(format_args!("{name} is a number"), format_args!("{name} = {value}")));
        }
        Ok(value)
    }

    /// A bf16 input.
    pub fn bf16(&self, name: &str, ptr: *const c_void, shape: impl Into<Shape>) -> Result<View<'static, Cuda, bf16>> {
        self.input(name, ptr.cast(), shape.into())
    }

    /// A bf16 output.
    pub fn bf16_mut(
        &self,
        name: &str,
        ptr: *mut c_void,
        shape: impl Into<Shape>,
    ) -> Result<ViewMut<'static, Cuda, bf16>> {
        self.output(name, ptr.cast(), shape.into())
    }

    /// An f32 input.
    pub fn f32(&self, name: &str, ptr: *const f32, shape: impl Into<Shape>) -> Result<View<'static, Cuda, f32>> {
        self.input(name, ptr, shape.into())
    }

    /// An f32 output.
    pub fn f32_mut(&self, name: &str, ptr: *mut f32, shape: impl Into<Shape>) -> Result<ViewMut<'static, Cuda, f32>> {
        self.output(name, ptr, shape.into())
    }

    /// Token ids.
    pub fn ids(&self, name: &str, ptr: *const i32, shape: impl Into<Shape>) -> Result<View<'static, Cuda, i32>> {
        self.input(name, ptr, shape.into())
    }

    fn input<E: Element>(&self, name: &str, ptr: *const E, shape: Shape) -> Result<View<'static, Cuda, E>> {
        let ptr = self.tensor(name, ptr, shape)?;
        // SAFETY: the memory lies within one allocation. The caller keeps it until the work has completed.
        Ok(unsafe { View::from_raw(ptr, shape) })
    }

    fn output<E: Element>(&self, name: &str, ptr: *mut E, shape: Shape) -> Result<ViewMut<'static, Cuda, E>> {
        let ptr = self.tensor(name, ptr, shape)?;
        // SAFETY: as for an input.
        Ok(unsafe { ViewMut::from_raw(ptr, shape) })
    }

    fn tensor<E: Element>(&self, name: &str, ptr: *const E, shape: Shape) -> Result<DevPtr<E>> {
        let bytes = shape.len().checked_mul(E::BYTES).filter(|&bytes| bytes <= isize::MAX as usize);
        let bytes = bytes.ok_or_else(|| {
            self.failed(format_args!("{name} {shape} fits the address space"), format_args!("{} elements", shape.len()))
        })?;
        Ok(self.memory(&format!("{name} {shape}"), ptr.cast(), E::BYTES, bytes)?.cast())
    }

    /// `bytes` bytes of device memory within one allocation, at a multiple of `align`.
    pub fn memory(&self, name: &str, ptr: *const u8, align: usize, bytes: usize) -> Result<DevPtr<u8>> {
        let address = ptr as u64;
        if address == 0 {
            return Err(self.failed(format_args!("{name} is not NULL"), "it is NULL"));
        }
        let past = address % align as u64;
        if past != 0 {
            let found = format!("it begins {past} bytes past a multiple of {align}");
            return Err(self.failed(format_args!("{name} is aligned to {align} bytes"), found));
        }
        // Memory that was mapped piece by piece, as growing allocators do, is one range for a kernel.
        let mut end = address;
        while end - address < bytes as u64 {
            match range_of(self.device, end)? {
                Some(range_end) => end = range_end,
                None if end == address => {
                    let found = format_args!("{address:#x} is not memory of the stream's device");
                    return Err(self.failed(format_args!("{name} is device memory"), found));
                }
                None => {
                    let found = format!("it needs {bytes} bytes, and its allocation ends after {}", end - address);
                    return Err(self.failed(format_args!("{name} lies within its allocation"), found));
                }
            }
        }
        Ok(DevPtr::from_address(address))
    }
}

/// The end of the range of device memory that contains an address. `None` if it is no memory of this device.
///
/// # Errors
/// [`Error::DeviceLost`] if the driver reports an earlier failure.
fn range_of(device: i32, address: u64) -> Result<Option<u64>> {
    const MEMORYTYPE_DEVICE: u32 = 2;
    let (mut kind, mut ordinal, mut managed, mut start, mut size) = (0u32, 0i32, 0u8, 0u64, 0usize);
    let mut names = [
        CUpointer_attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
        CUpointer_attribute::CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL,
        CUpointer_attribute::CU_POINTER_ATTRIBUTE_IS_MANAGED,
        CUpointer_attribute::CU_POINTER_ATTRIBUTE_RANGE_START_ADDR,
        CUpointer_attribute::CU_POINTER_ATTRIBUTE_RANGE_SIZE,
    ];
    let mut values: [*mut c_void; 5] = [
        (&raw mut kind).cast(),
        (&raw mut ordinal).cast(),
        (&raw mut managed).cast(),
        (&raw mut start).cast(),
        (&raw mut size).cast(),
    ];
    // SAFETY: each attribute has the type of its variable. The driver answers with zeros for addresses that it does not
    // know.
    let outcome =
        unsafe { sys::cuPointerGetAttributes(names.len() as u32, names.as_mut_ptr(), values.as_mut_ptr(), address) };
    match outcome {
        sys::CUresult::CUDA_SUCCESS => {}
        sys::CUresult::CUDA_ERROR_INVALID_VALUE => return Ok(None),
        _ => {
            let error = DriverError(outcome);
            return Err(Error::DeviceLost(format!("{error} while querying the memory at {address:#x}")));
        }
    }
    // Managed memory moves between the host and the devices.
    let reachable = managed != 0 || (kind == MEMORYTYPE_DEVICE && ordinal == device);
    let end = start.saturating_add(size as u64);
    Ok((reachable && end > address).then_some(end))
}
