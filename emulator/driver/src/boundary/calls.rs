//! Functions of the caller that the driver calls.

use std::ffi::c_void;

use super::pointer::Handle;

/// The caller's pointer that a callback receives. The driver never dereferences it.
#[repr(transparent)]
#[derive(Debug, Clone, Copy)]
pub struct UserData(*mut c_void);

// SAFETY: the pointer is only passed on, and the API documents that callbacks run on another thread.
unsafe impl Send for UserData {}
// SAFETY: as above.
unsafe impl Sync for UserData {}

/// `CUhostFn`
#[repr(transparent)]
#[derive(Debug, Clone, Copy)]
pub struct HostFunction(Option<unsafe extern "C" fn(UserData)>);

impl HostFunction {
    pub fn is_null(self) -> bool {
        self.0.is_none()
    }

    pub fn call(self, data: UserData) {
        if let Some(function) = self.0 {
            // SAFETY: the caller passed the function to be called once with this data.
            unsafe { function(data) };
        }
    }
}

/// `CUstreamCallback`
#[repr(transparent)]
#[derive(Debug, Clone, Copy)]
pub struct StreamCallback(Option<unsafe extern "C" fn(Handle, u32, UserData)>);

impl StreamCallback {
    pub fn is_null(self) -> bool {
        self.0.is_none()
    }

    pub fn call(self, stream: Handle, status: u32, data: UserData) {
        if let Some(function) = self.0 {
            // SAFETY: the caller passed the function to be called once with this data.
            unsafe { function(stream, status, data) };
        }
    }
}

/// `CUoccupancyB2DSize`: dynamic shared memory as a function of the block size.
#[repr(transparent)]
#[derive(Debug, Clone, Copy)]
pub struct SharedSize(Option<unsafe extern "C" fn(i32) -> usize>);

impl SharedSize {
    /// The function's value for a block size; `fixed` if there is no function.
    pub fn of(self, block: u32, fixed: usize) -> usize {
        match self.0 {
            // SAFETY: the caller passed the function to be called with block sizes.
            Some(function) => unsafe { function(block as i32) },
            None => fixed,
        }
    }
}
