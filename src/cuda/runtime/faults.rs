//! Errors of the driver: their words, and what they leave behind.

use std::ffi::CStr;
use std::fmt;

use cudarc::driver::DriverError;
use cudarc::driver::sys::CUresult::{self, *};

/// A result code of the driver's, known to these bindings or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cuda) struct Fault(pub u32);

impl From<DriverError> for Fault {
    fn from(DriverError(code): DriverError) -> Self {
        // cudarc's enum has no member for the codes of a newer driver. Only its number is looked at, never its name.
        Fault(code as u32)
    }
}

/// Codes that say what could not be done and leave everything as it was, if the call was to queue no work. After any
/// other the context may be broken, or work may be missing from the stream.
const HARMLESS: [CUresult; 11] = [
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

    /// Whether everything is as it was before a call that queues no work.
    pub fn is_harmless(self) -> bool {
        HARMLESS.iter().any(|&code| self.is(code))
    }
}

/// `CUDA_ERROR_ILLEGAL_ADDRESS (700): an illegal memory access was encountered`
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: the driver answers with a text of its own that stays, or not at all. It is asked by number.
        #[allow(unsafe_code)]
        let text = |ask: unsafe extern "C" fn(u32, *mut *const std::ffi::c_char) -> u32| unsafe {
            let mut text = std::ptr::null();
            (ask(self.0, &mut text) == 0 && !text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy())
        };
        let ask = super::driver::error_texts();
        match ask.and_then(|(name, words)| Some((text(name)?, text(words)?))) {
            Some((name, words)) => write!(f, "{name} ({}): {words}", self.0),
            None => write!(f, "CUDA error {}, which this driver has no name for", self.0),
        }
    }
}
