//! What every function has in common: status codes, the last error, and the boundary that no panic crosses.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use cudarc::driver::sys::CUstream;
use ironwarp::cuda::{Cuda, DevPtr};
use ironwarp::{Error, Result};

use crate::arguments::Arguments;
use crate::device;

/// A stream: CUstream of the driver API, cudaStream_t of the runtime API. NULL is the legacy default stream.
pub type Stream = CUstream;

/// The outcome of a function. `ironwarp_last_error` has the message of every outcome but OK.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The kernels have been enqueued.
    Ok = 0,
    /// An argument is not valid. Nothing was enqueued.
    InvalidArgument = 1,
    /// There is no usable driver, device or context, or the kernels do not run on this device. Nothing was enqueued.
    Unavailable = 2,
    /// The device has too little free memory to load the kernels. Nothing was enqueued.
    OutOfMemory = 3,
    /// The device failed, now or in work enqueued earlier. Its memory is in doubt, and every later call on this stream fails.
    DeviceLost = 4,
    /// A bug of this library. Please report the message.
    Internal = 5,
}

/// Memory that an operation needs while it runs.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Workspace {
    /// Device memory, aligned to 256 bytes. May be NULL if `bytes` is 0.
    pub ptr: *mut std::ffi::c_void,
    /// Number of bytes at `ptr`.
    pub bytes: usize,
}

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::default();
}

/// The message of the last call of this thread that did not return OK, or an empty string. It names the function, the
/// argument and the numbers. It stays valid until the next call of this thread that fails.
#[unsafe(no_mangle)]
pub extern "C" fn ironwarp_last_error() -> *const c_char {
    LAST_ERROR.with_borrow(|error| error.as_ptr())
}

/// The version of the library, such as "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn ironwarp_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Runs `run` on the device of a stream. Errors and panics become a status, and their message the last error.
///
/// # Safety
/// `args` is null or points to a `T`.
pub(crate) unsafe fn call<T>(
    function: &'static str,
    args: *const T,
    stream: Stream,
    workspace: Option<Workspace>,
    run: impl FnOnce(&T, &Arguments, &Cuda) -> Result<()>,
) -> Status {
    boundary(function, || {
        // SAFETY: passed on to the caller.
        let args = unsafe { args.as_ref() };
        let args = args.ok_or_else(|| Arguments { function, device: 0 }.failed("args is not NULL", "args = NULL"))?;
        device::with(stream, |cuda| {
            let arguments = Arguments { function, device: cuda.device().properties().ordinal as i32 };
            if let Some(Workspace { ptr, bytes }) = workspace {
                let ptr =
                    if bytes == 0 { DevPtr::NULL } else { arguments.memory("workspace", ptr.cast(), 256, bytes)? };
                // SAFETY: the C caller provides memory that outlives the work of this call, and it is lent for this call only.
                unsafe { cuda.device().lend_workspace(ptr, bytes) }?;
            }
            let outcome = run(args, &arguments, cuda);
            cuda.device().reclaim_workspace();
            outcome
        })
    })
}

/// Writes the size of a workspace to `bytes`.
///
/// # Safety
/// `args` is null or points to a `T`, and `bytes` is null or can be written.
pub(crate) unsafe fn workspace_size<T>(
    function: &'static str,
    args: *const T,
    bytes: *mut usize,
    size: impl FnOnce(&T, &Arguments) -> Result<usize>,
) -> Status {
    boundary(function, || {
        let arguments = Arguments { function, device: 0 };
        // SAFETY: passed on to the caller.
        let (args, bytes) = unsafe { (args.as_ref(), bytes.as_mut()) };
        let args = args.ok_or_else(|| arguments.failed("args is not NULL", "args = NULL"))?;
        let bytes = bytes.ok_or_else(|| arguments.failed("bytes is not NULL", "bytes = NULL"))?;
        *bytes = size(args, &arguments)?;
        Ok(())
    })
}

fn boundary(function: &str, run: impl FnOnce() -> Result<()>) -> Status {
    let (status, message) = match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(())) => return Status::Ok,
        Ok(Err(error)) => (status_of(&error), error.to_string()),
        Err(panic) => (Status::Internal, format!("panic: {}", panic_message(&*panic))),
    };
    let message = if message.starts_with(function) { message } else { format!("{function}: {message}") };
    LAST_ERROR.set(CString::new(message.replace('\0', " ")).unwrap_or_default());
    status
}

fn status_of(error: &Error) -> Status {
    match error {
        Error::Precondition { .. } | Error::Invalid(_) => Status::InvalidArgument,
        Error::Unavailable(_) => Status::Unavailable,
        Error::OutOfDeviceMemory(_) => Status::OutOfMemory,
        Error::DeviceLost(_) => Status::DeviceLost,
        _ => Status::Internal,
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    #[test]
    fn no_panic_crosses_the_boundary() {
        let last = || {
            // SAFETY: the pointer is that of a C string of this thread.
            unsafe { CStr::from_ptr(ironwarp_last_error()) }.to_str().unwrap().to_owned()
        };
        assert_eq!(boundary("f", || panic!("planted {}", 1)), Status::Internal);
        assert_eq!(last(), "f: panic: planted 1");
        assert_eq!(boundary("f", || Err(Error::invalid("a\0b"))), Status::InvalidArgument);
        assert_eq!(last(), "f: a\\u{0}b");
        assert_eq!(boundary("f", || Ok(())), Status::Ok);
        assert_eq!(last(), "f: a\\u{0}b", "a call that succeeds keeps the message");
    }
}
