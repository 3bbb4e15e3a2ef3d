//! The C boundary: what an entry's arguments are made of.
//!
//! Every pointer that crosses the boundary has a type of this module, so that dereferencing happens here and nowhere
//! else. None of them can be made by safe code of this crate: they exist because a C caller passed them, and what the
//! driver API demands of such a caller (null, or valid for the access its documentation names) is the safety argument
//! of every block below. Enumerations arrive as integers, structures as [`Plain`] ones, handles as numbers.

#![allow(unsafe_code)]

mod calls;
mod host;
mod params;
mod structs;

use std::ffi::{CStr, c_char};

use cudarc::driver::sys::CUresult::CUDA_ERROR_INVALID_VALUE;

use crate::error::{Because, Result};

pub use calls::{HostFunction, SharedSize, StreamCallback, UserData};
pub use host::{HostPointer, Image, Line, Unified};
pub use params::{Extra, JitOptions, JitValues, KernelParams};
pub use structs::{CopyArea2D, CopyArea3D, CtxCreateParams, DeviceProperties, EdgeData, InstantiateParams};
pub use structs::{LaunchAttribute, LaunchConfig, MemAccess, MemLocation, PoolProps, Side2D, Side3D, Uuid};

#[cfg(not(target_pointer_width = "64"))]
compile_error!("handles and device addresses are 64 bits wide");

/// A driver object's handle: a made-up number, never the address of anything.
pub type Handle = u64;
/// A device address.
pub type DevicePointer = u64;
/// An ordinal; there is one device, 0.
pub type Device = i32;

/// Which stream a null handle means to an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NullStream {
    /// The context's default stream.
    Legacy,
    /// The calling thread's (`_ptds` and `_ptsz` entries).
    PerThread,
}

/// Types of which every bit pattern is a value.
///
/// # Safety
/// No padding is read, no bit pattern is invalid.
pub unsafe trait Plain: Copy {}

macro_rules! plain {
    ($($type:ty),*) => {
        // SAFETY: integers, and C structures of integers and pointers.
        $(unsafe impl Plain for $type {})*
    };
}
plain!(u8, u32, i32, u64, usize, LaunchConfig, LaunchAttribute, CopyArea2D, CopyArea3D, CtxCreateParams, PoolProps);
plain!(InstantiateParams, MemLocation, MemAccess, EdgeData, Out<u64>, Text);

/// A place for a result: null, or writable.
#[repr(transparent)]
#[derive(Debug, Clone, Copy)]
pub struct Out<T>(*mut T);

impl<T> Out<T> {
    /// A result that is not wanted.
    pub const NULL: Self = Self(std::ptr::null_mut());

    /// Writes a result that the caller must have asked for.
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

    /// The same place for a result of another type, where an argument says which it is.
    pub fn cast<U>(self) -> Out<U> {
        Out(self.0.cast())
    }

    /// Writes a result unless the caller passed null.
    pub fn set_if_wanted(self, value: T) {
        // A null pointer says that the result is not wanted.
        let _ = self.set(value);
    }

    pub fn is_null(&self) -> bool {
        self.0.is_null()
    }
}

/// An argument read through a pointer: null, or readable; also the first of several.
#[repr(transparent)]
#[derive(Debug, Clone, Copy)]
pub struct In<T>(*const T);

impl<T: Plain> In<T> {
    /// The value pointed to.
    ///
    /// # Errors
    /// The pointer is null.
    pub fn get(self) -> Result<T> {
        self.list(1).map(|list| list[0])
    }

    /// The `count` values from there.
    ///
    /// # Errors
    /// The pointer is null and `count` is not zero.
    pub fn list(self, count: usize) -> Result<Vec<T>> {
        if self.0.is_null() && count > 0 {
            return Err(CUDA_ERROR_INVALID_VALUE.because("a null pointer for an argument"));
        }
        // SAFETY: not null, so readable for the count the caller gives with it; any bit pattern is a value.
        Ok((0..count).map(|i| unsafe { self.0.add(i).read_unaligned() }).collect())
    }

    pub fn is_null(&self) -> bool {
        self.0.is_null()
    }
}

/// A place for several results: null, or writable for the count that comes with it.
#[repr(transparent)]
#[derive(Debug, Clone, Copy)]
pub struct OutList<T>(*mut T);

impl<T: Copy> OutList<T> {
    pub fn is_null(&self) -> bool {
        self.0.is_null()
    }

    /// Writes `values`, of which the caller promised room for.
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

/// A count that the caller fills in and gets corrected.
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
    /// An argument whose type another argument says.
    pub fn input<U>(self) -> In<U> {
        In(self.0.cast())
    }
}

/// A list of handles that this library owns, for the caller to read.
#[repr(transparent)]
#[derive(Debug, Clone, Copy)]
pub struct HandleList(*const Handle);

impl HandleList {
    pub const NULL: Self = Self(std::ptr::null());
}

impl From<&[Handle]> for HandleList {
    /// The caller sees to it that the list lives as long as the C program may read it.
    fn from(list: &[Handle]) -> Self {
        HandleList(list.as_ptr())
    }
}

/// A zero-terminated string, as an argument or as a result.
#[repr(transparent)]
#[derive(Debug, Clone, Copy)]
pub struct Text(*const c_char);

impl Text {
    pub const NULL: Text = Text(std::ptr::null());

    /// The string, which must be UTF-8.
    ///
    /// # Errors
    /// Null, or not UTF-8.
    pub fn get(self) -> Result<String> {
        if self.0.is_null() {
            return Err(CUDA_ERROR_INVALID_VALUE.because("a null pointer for a string"));
        }
        // SAFETY: not null, so zero-terminated by the module's contract.
        let text = unsafe { CStr::from_ptr(self.0) };
        text.to_str().map(str::to_owned).map_err(|_| CUDA_ERROR_INVALID_VALUE.because("a string that is not UTF-8"))
    }
}

impl From<&CStr> for Text {
    /// The caller sees to it that the string lives as long as the C program may read it.
    fn from(text: &CStr) -> Self {
        Text(text.as_ptr())
    }
}

/// A buffer of characters: null, or writable for the size that comes with it.
#[repr(transparent)]
#[derive(Debug, Clone, Copy)]
pub struct Buffer(*mut c_char);

impl Buffer {
    /// Writes as much of `text` as fits `size` with the ending zero; returns the bytes of text written.
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
