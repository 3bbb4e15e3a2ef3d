//! Result codes of the driver: their names, and which of them leave everything as it was.

use std::ffi::{CStr, c_char};
use std::fmt;

use cudarc::driver::sys::CUresult::{self, *};
use cudarc::driver::{DriverError, sys};

/// A result code of the driver, including codes that cudarc's enum does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault(pub u32);

impl From<DriverError> for Fault {
    fn from(DriverError(code): DriverError) -> Self {
        // cudarc's enum has no member for codes of a newer driver, so only the number is read, never the name.
        Fault(code as u32)
    }
}

/// Codes that leave the device as it was, provided that the failed call enqueues no work. After any other code the context
/// may be corrupted, or work may be missing from the stream.
const RECOVERABLE: [CUresult; 11] = [
    CUDA_ERROR_OUT_OF_MEMORY,
    CUDA_ERROR_INVALID_IMAGE,
    CUDA_ERROR_NO_BINARY_FOR_GPU,
    CUDA_ERROR_INVALID_PTX,
    CUDA_ERROR_UNSUPPORTED_PTX_VERSION,
    CUDA_ERROR_JIT_COMPILER_NOT_FOUND,
    CUDA_ERROR_JIT_COMPILATION_DISABLED,
    CUDA_ERROR_INVALID_SOURCE,
    CUDA_ERROR_SHARED_OBJECT_SYMBOL_NOT_FOUND,
    CUDA_ERROR_NOT_FOUND,
    CUDA_ERROR_NOT_SUPPORTED,
];

impl Fault {
    pub fn is(self, code: CUresult) -> bool {
        self.0 == code as u32
    }

    /// Whether the call was refused because of a stream capture, which leaves the content of memory as it was.
    pub fn is_of_capture(self) -> bool {
        // CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED to CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD.
        (900..=908).contains(&self.0)
    }

    /// Whether a call that enqueues no work has left everything as it was.
    pub fn is_recoverable(self) -> bool {
        RECOVERABLE.iter().any(|&code| self.is(code))
    }
}

/// `CUDA_ERROR_ILLEGAL_ADDRESS (700): an illegal memory access was encountered`
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: the driver returns a string with static lifetime or fails. The code is passed as a number.
        #[allow(unsafe_code)]
        let text = |function: ErrorText| unsafe {
            let mut text = std::ptr::null();
            (function(self.0, &mut text) == 0 && !text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy())
        };
        match error_texts().and_then(|(name, description)| Some((text(name)?, text(description)?))) {
            Some((name, description)) => write!(f, "{name} ({}): {description}", self.0),
            None => write!(f, "CUDA error {} (unknown to this driver)", self.0),
        }
    }
}

type ErrorText = unsafe extern "C" fn(u32, *mut *const c_char) -> u32;

/// `cuGetErrorName` and `cuGetErrorString`, which take a number here: cudarc's bindings take an enum that lacks some codes.
fn error_texts() -> Option<(ErrorText, ErrorText)> {
    // SAFETY: both functions have this signature, as the C enum is an int.
    #[allow(unsafe_code)]
    let find = |name: &str| unsafe { sys::culib().get::<ErrorText>(name.as_bytes()).ok().map(|symbol| *symbol) };
    Some((find("cuGetErrorName")?, find("cuGetErrorString")?))
}
