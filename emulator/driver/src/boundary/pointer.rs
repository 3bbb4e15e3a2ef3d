//! Handles, and typed pointers to arguments and results.

use std::ffi::{CStr, c_char};

use cudarc::driver::sys::CUresult::CUDA_ERROR_INVALID_VALUE;

use crate::error::{Because, Result};

/// A driver object's handle: a number that is never an address.
pub type Handle = u64;
/// A device address.
pub type DevicePointer = u64;
/// A device ordinal. There is one device, 0.
pub type Device = i32;

/// The stream that a null handle stands for in an exported function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NullStream {
    /// The context's default stream.
    Legacy,
    /// The calling thread's default stream (functions with the suffixes `_ptds` and `_ptsz`).
    PerThread,
}

/// Types for which every bit pattern is a valid value.
///
/// # Safety
/// The type has no invalid bit pattern, and its padding is never read.
pub unsafe trait Plain: Copy {}

/// Implements [`Plain`] for types.
macro_rules! plain {
    ($($type:ty),* $(,)?) => {
        // SAFETY: integers, and C structures of integers and pointers.
        $(unsafe impl $crate::boundary::pointer::Plain for $type {})*
    };
}
pub(super) use plain;

plain!(u8, u32, i32, u64, usize, Out<u64>, Text);

/// A pointer to an output: null, or writable.
#[repr(transparent)]
#[derive(Debug, Clone, Copy)]
pub struct Out<T>(*mut T);

impl<T> Out<T> {
    /// An output that is not requested.
    pub const NULL: Self = Self(std::ptr::null_mut());

    /// Writes a required output.
    ///
    /// # Errors
    /// The pointer is null.
    pub fn set(self, value: T) -> Result<()> {
        if self.0.is_null() {
            return Err(CUDA_ERROR_INVALID_VALUE.because("a null pointer for a result"));
        }
        // SAFETY: not null, so writable by the module's contract; unaligned writes take any address.
        unsafe { self.0.write_unaligned(value) };
        Ok(())
    }

    /// The same pointer for an output of another type, where another argument determines the type.
    pub fn cast<U>(self) -> Out<U> {
        Out(self.0.cast())
    }

    /// Writes an optional output: nothing, if the pointer is null.
    pub fn set_optional(self, value: T) {
        // A null pointer means that the output is not requested.
        let _ = self.set(value);
    }

    pub fn is_null(&self) -> bool {
        self.0.is_null()
    }
}

/// A pointer to an input, or to the first of several: null, or readable.
#[repr(transparent)]
#[derive(Debug, Clone, Copy)]
pub struct In<T>(*const T);

impl<T: Plain> In<T> {
    /// Reads the value.
    ///
    /// # Errors
    /// The pointer is null.
    pub fn get(self) -> Result<T> {
        self.list(1).map(|list| list[0])
    }

    /// Reads `count` values.
    ///
    /// # Errors
    /// The pointer is null and `count` is not zero.
    pub fn list(self, count: usize) -> Result<Vec<T>> {
        if self.0.is_null() && count > 0 {
            return Err(CUDA_ERROR_INVALID_VALUE.because("a null pointer for an argument"));
        }
        // SAFETY: not null, so readable for the count that the caller passes with it; every bit pattern is valid.
        Ok((0..count).map(|i| unsafe { self.0.add(i).read_unaligned() }).collect())
    }

    pub fn is_null(&self) -> bool {
        self.0.is_null()
    }
}

/// A pointer to several outputs: null, or writable for the count that is passed with it.
#[repr(transparent)]
#[derive(Debug, Clone, Copy)]
pub struct OutList<T>(*mut T);

impl<T: Copy> OutList<T> {
    pub fn is_null(&self) -> bool {
        self.0.is_null()
    }

    /// Writes `values`; the caller of the API provides space for as many.
    ///
    /// # Errors
    /// The pointer is null and there are values.
    pub fn set(self, values: &[T]) -> Result<()> {
        for (i, &value) in values.iter().enumerate() {
            Out(if self.0.is_null() { self.0 } else { self.0.wrapping_add(i) }).set(value)?;
        }
        Ok(())
    }
}

/// A pointer to a value that is both input and output.
#[repr(transparent)]
#[derive(Debug, Clone, Copy)]
pub struct InOut<T>(*mut T);

impl<T: Plain> InOut<T> {
    /// # Errors
    /// The pointer is null.
    pub fn get(self) -> Result<T> {
        In(self.0.cast_const()).get()
    }

    /// # Errors
    /// The pointer is null.
    pub fn set(self, value: T) -> Result<()> {
        Out(self.0).set(value)
    }
}

impl<T> InOut<T> {
    /// The same pointer for an input of another type, where another argument determines the type.
    pub fn input<U>(self) -> In<U> {
        In(self.0.cast())
    }
}

/// A list of handles that belongs to this library and that the caller reads.
#[repr(transparent)]
#[derive(Debug, Clone, Copy)]
pub struct HandleList(*const Handle);

impl HandleList {
    pub const NULL: Self = Self(std::ptr::null());
}

impl From<&[Handle]> for HandleList {
    /// The list must live for as long as the C program may read it.
    fn from(list: &[Handle]) -> Self {
        HandleList(list.as_ptr())
    }
}

/// A zero-terminated string, as an input or an output.
#[repr(transparent)]
#[derive(Debug, Clone, Copy)]
pub struct Text(*const c_char);

impl Text {
    pub const NULL: Text = Text(std::ptr::null());

    /// Reads the string.
    ///
    /// # Errors
    /// The pointer is null, or the string is not UTF-8.
    pub fn get(self) -> Result<String> {
        if self.0.is_null() {
            return Err(CUDA_ERROR_INVALID_VALUE.because("a null pointer for a string"));
        }
        // SAFETY: not null, so by the API's contract zero-terminated.
        let text = unsafe { CStr::from_ptr(self.0) };
        text.to_str().map(str::to_owned).map_err(|_| CUDA_ERROR_INVALID_VALUE.because("a string that is not UTF-8"))
    }
}

impl From<&CStr> for Text {
    /// The string must live for as long as the C program may read it.
    fn from(text: &CStr) -> Self {
        Text(text.as_ptr())
    }
}

/// A buffer for characters: null, or writable for the size that is passed with it.
#[repr(transparent)]
#[derive(Debug, Clone, Copy)]
pub struct Buffer(pub(super) *mut c_char);

impl Buffer {
    /// Writes as much of `text` as fits `size` bytes together with the terminating zero; returns the number of bytes of text
    /// written.
    pub fn set(self, text: &str, size: usize) -> usize {
        if self.0.is_null() || size == 0 {
            return 0;
        }
        let mut length = text.len().min(size - 1);
        while !text.is_char_boundary(length) {
            length -= 1;
        }
        // SAFETY: not null, so writable for `size` bytes, and `length` < `size`.
        unsafe {
            self.0.copy_from_nonoverlapping(text.as_ptr().cast(), length);
            self.0.add(length).write(0);
        }
        length
    }

    pub fn is_null(&self) -> bool {
        self.0.is_null()
    }
}
