//! Arguments that are lists of pointers: kernel parameters and JIT options.

use std::ffi::c_void;

use cudarc::driver::sys::CUresult::CUDA_ERROR_INVALID_VALUE;
use ptx_emulator::Param;

use super::pointer::{Buffer, In};
use crate::error::{Because, Result, ensure};

const EXTRA_END: usize = 0;
const EXTRA_BUFFER: usize = 1;
const EXTRA_SIZE: usize = 2;

/// `kernelParams`: one pointer to each parameter.
#[repr(transparent)]
#[derive(Debug, Clone, Copy)]
pub struct KernelParams(*const *const u8);

impl KernelParams {
    pub fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// The parameter block, with the layout that the kernel declares.
    ///
    /// # Errors
    /// One of the pointers is null.
    pub fn gather(self, params: &[Param], bytes: u32) -> Result<Vec<u8>> {
        let mut block = vec![0; bytes as usize];
        for (i, param) in params.iter().enumerate() {
            // SAFETY: by the API's contract the list has as many pointers as the kernel has parameters.
            let from = unsafe { self.0.add(i).read_unaligned() };
            ensure!(!from.is_null(), CUDA_ERROR_INVALID_VALUE, "parameter {i} ({}) is a null pointer", param.name);
            let to = &mut block[param.offset as usize..][..param.size as usize];
            // SAFETY: by the API's contract each pointer is readable for its parameter's size.
            unsafe { from.copy_to_nonoverlapping(to.as_mut_ptr(), to.len()) };
        }
        Ok(block)
    }
}

/// `extra`: the parameter block as one buffer.
#[repr(transparent)]
#[derive(Debug, Clone, Copy)]
pub struct Extra(*const usize);

impl Extra {
    pub const NULL: Self = Self(std::ptr::null());

    pub fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// The buffer's bytes.
    ///
    /// # Errors
    /// The list does not have the form that the API requires.
    pub fn block(self) -> Result<Vec<u8>> {
        let (mut buffer, mut size) = (None, None);
        for at in (0..).step_by(2) {
            // SAFETY: the list continues until its end marker, and an unknown key ends the loop too.
            let key = unsafe { self.0.add(at).read_unaligned() };
            if key == EXTRA_END {
                break;
            }
            ensure!(key <= EXTRA_SIZE, CUDA_ERROR_INVALID_VALUE, "extra: the key {key} is unknown");
            // SAFETY: every key except the end marker is followed by its value.
            let value = unsafe { self.0.add(at + 1).read_unaligned() };
            *if key == EXTRA_BUFFER { &mut buffer } else { &mut size } = Some(value);
        }
        let (Some(buffer), Some(size)) = (buffer, size) else {
            return Err(CUDA_ERROR_INVALID_VALUE.because("extra: a buffer and a size are required"));
        };
        ensure!(
            buffer != 0 && size != 0,
            CUDA_ERROR_INVALID_VALUE,
            "extra: the buffer and the size must not be null pointers"
        );
        let (buffer, size): (*const u8, *const usize) =
            (std::ptr::with_exposed_provenance(buffer), std::ptr::with_exposed_provenance(size));
        // SAFETY: not null, so by the API's contract it points to the buffer's size.
        let size = unsafe { size.read_unaligned() };
        let mut block = vec![0; size];
        // SAFETY: not null, so readable for that size.
        unsafe { buffer.copy_to_nonoverlapping(block.as_mut_ptr(), size) };
        Ok(block)
    }
}

/// Two parallel lists: the names of options and their values, some of which are outputs.
#[derive(Debug, Clone, Copy)]
pub struct JitOptions {
    count: usize,
    names: In<u32>,
    values: *mut *mut c_void,
}

/// The values of a list of options, as C passes them.
#[repr(transparent)]
#[derive(Debug, Clone, Copy)]
pub struct JitValues(*mut *mut c_void);

impl JitOptions {
    /// # Errors
    /// A list is null although the count is not zero.
    pub fn new(count: u32, names: In<u32>, values: JitValues) -> Result<Self> {
        let missing = count > 0 && (names.is_null() || values.0.is_null());
        ensure!(!missing, CUDA_ERROR_INVALID_VALUE, "{count} options, but a list is a null pointer");
        Ok(Self { count: count as usize, names, values: values.0 })
    }

    /// Names and values, in order.
    pub fn list(self) -> Result<Vec<(u32, u64)>> {
        let names = self.names.list(self.count)?;
        // SAFETY: by the API's contract there are as many values as names.
        let value = |i| unsafe { self.values.add(i).read_unaligned() }.expose_provenance() as u64;
        Ok(names.into_iter().enumerate().map(|(i, name)| (name, value(i))).collect())
    }

    /// The buffer that the value at `index` points to.
    pub fn buffer(self, index: usize) -> Buffer {
        // SAFETY: the index is within the list.
        Buffer(unsafe { self.values.add(index).read_unaligned() }.cast())
    }

    /// Writes an output.
    pub fn set(self, index: usize, value: u64) {
        // SAFETY: the index is within the list, whose values the API documents to be written.
        unsafe { self.values.add(index).write_unaligned(std::ptr::without_provenance_mut(value as usize)) };
    }
}
