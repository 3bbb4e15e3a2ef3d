//! Loaded kernels. A file is loaded once, when the first of its kernels is launched.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::sys::{self, CUjit_option_enum::*};
use cudarc::driver::{CudaContext, CudaFunction, CudaModule};
use cudarc::nvrtc::Ptx;

use super::capture::RelaxedCaptureMode;
use super::faults::Fault;
use crate::cuda::launch::images::{self, Code};
use crate::cuda::launch::spec::Spec;
use crate::{Error, Result};

/// The kernels that are loaded on a device.
#[derive(Debug)]
pub(super) struct Modules {
    context: Arc<CudaContext>,
    capability: (u32, u32),
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    files: HashMap<&'static str, Arc<CudaModule>>,
    kernels: HashMap<&'static str, CudaFunction>,
    replaced: HashMap<String, String>,
}

/// Why a kernel could not be loaded: the attempts, and the result code of the last one.
pub(super) struct Failure {
    pub message: String,
    pub fault: Fault,
}

impl Modules {
    pub fn new(context: Arc<CudaContext>, capability: (u32, u32)) -> Self {
        Modules { context, capability, state: Mutex::default() }
    }

    /// Loads `ptx` instead of the embedded code of the file from now on.
    pub fn replace(&self, stem: &str, ptx: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.replaced.insert(stem.to_owned(), ptx.to_owned());
        state.files.remove(stem);
        state.kernels.clear();
    }

    /// Returns the kernel, and loads it first if necessary.
    pub fn get(&self, spec: &Spec) -> Result<CudaFunction, Failure> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernel) = state.kernels.get(spec.name) {
            return Ok(kernel.clone());
        }
        let _mode = RelaxedCaptureMode::enter(&self.context);
        let file = match state.files.get(spec.stem) {
            Some(file) => file.clone(),
            None => {
                let file = self.load(spec.stem, state.replaced.get(spec.stem))?;
                state.files.insert(spec.stem, file.clone());
                file
            }
        };
        let failed = |error| {
            let fault = Fault::from(error);
            Failure { message: format!("cannot find kernel {} in {}.cu: {fault}", spec.name, spec.stem), fault }
        };
        let kernel = file.load_function(spec.name).map_err(failed)?;
        // A kernel with more than 48 KiB of static and dynamic shared memory must set this attribute; with less it may.
        if spec.dynamic_shared > 0 {
            let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            kernel.set_attribute(attribute, spec.dynamic_shared as i32).map_err(|error| {
                let (fault, bytes) = (Fault::from(error), spec.dynamic_shared);
                let message =
                    format!("{} cannot have {bytes} bytes of dynamic shared memory per block: {fault}", spec.name);
                Failure { message, fault }
            })?;
        }
        state.kernels.insert(spec.name, kernel.clone());
        Ok(kernel)
    }

    /// Loads the first candidate that the driver accepts, in the order of [`images::candidates`].
    fn load(&self, stem: &str, replaced: Option<&String>) -> Result<Arc<CudaModule>, Failure> {
        let codes = match replaced {
            Some(ptx) => vec![Code::Ptx(ptx)],
            None => images::candidates(stem, self.capability),
        };
        let mut tried = Vec::new();
        let mut last = Fault(sys::CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU as u32);
        for code in codes {
            let loaded = self.context.load_module(match code {
                Code::Cubin(bytes) => Ptx::from_binary(bytes.to_vec()),
                Code::Ptx(text) => Ptx::from_src(text),
            });
            last = match loaded {
                Ok(module) => return Ok(module),
                Err(error) => error.into(),
            };
            tried.push(match code {
                Code::Cubin(_) => format!("cubin: {last}"),
                Code::Ptx(text) => match self.jit_log(text) {
                    Some(log) => format!("PTX: {last}; JIT compiler: {log}"),
                    None => format!("PTX: {last}"),
                },
            });
            if !last.is_recoverable() {
                break;
            }
        }
        let (major, minor) = self.capability;
        if tried.is_empty() {
            tried.push(images::why_none().into());
        }
        let message =
            format!("{stem}.cu cannot be loaded for compute capability {major}.{minor}: {}", tried.join("; "));
        Err(Failure { message, fault: last })
    }

    /// The error log of the driver's JIT compiler for PTX that it has rejected. cudarc loads modules without a log.
    fn jit_log(&self, ptx: &str) -> Option<String> {
        const SIZE: usize = 4096;
        let text = CString::new(ptx).ok()?;
        let mut log = vec![0u8; SIZE];
        let mut options = [CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
        let mut values = [log.as_mut_ptr().cast::<c_void>(), SIZE as *mut c_void];
        let mut module = std::ptr::null_mut();
        // SAFETY: the previous attempt made the context current. The buffer has the size passed with it, and everything
        // outlives the call. If the module loads this time, it is unloaded at once.
        #[allow(unsafe_code)]
        unsafe {
            let (options, values) = (options.as_mut_ptr(), values.as_mut_ptr());
            let loaded = sys::cuModuleLoadDataEx(&mut module, text.as_ptr().cast(), 2, options, values);
            if loaded.result().is_ok() {
                let _ = sys::cuModuleUnload(module).result();
            }
        }
        log.truncate(log.iter().position(|&byte| byte == 0).unwrap_or(SIZE));
        let log = String::from_utf8_lossy(&log).trim().replace('\n', " | ");
        (!log.is_empty()).then_some(log)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Error::Unavailable(failure.message)
    }
}
