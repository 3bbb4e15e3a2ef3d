//! The devices behind the streams of the C caller.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use cudarc::driver::sys::{self, CUcontext, CUstream};
use cudarc::driver::{CudaContext, DriverError};
use ironwarp::cuda::Cuda;
use ironwarp::cuda::runtime::driver;
use ironwarp::{Error, Result};

/// A device that is used by one call at a time, as a call lends it a workspace.
type Shared = Arc<Mutex<Cuda>>;

/// The devices by context and stream. They live as long as the process: their contexts belong to the caller, so they must
/// not be destroyed here. The driver gives no id twice, whereas a new stream may have the handle of a destroyed one.
#[derive(Default)]
struct Devices {
    /// The first device of each context, which has loaded its kernels.
    contexts: HashMap<u64, Cuda>,
    streams: HashMap<(u64, u64), Shared>,
}

/// Runs `run` on the device that enqueues in `stream`, with the stream's context current.
pub fn with<T>(stream: CUstream, run: impl FnOnce(&Cuda) -> Result<T>) -> Result<T> {
    static DRIVER: OnceLock<()> = OnceLock::new();
    if DRIVER.get().is_none() {
        driver::require()?;
        DRIVER.get_or_init(|| ());
    }
    let current = current_context()?;
    let context = context_of(stream, current)?;
    let _restored = (context != current).then_some(Restored(current));
    let device = device_of(context, stream)?;
    let cuda = lock(&device);
    run(&cuda)
}

fn device_of(context: CUcontext, stream: CUstream) -> Result<Shared> {
    static DEVICES: OnceLock<Mutex<Devices>> = OnceLock::new();
    let mut devices = lock(DEVICES.get_or_init(Mutex::default));
    let (mut context_id, mut stream_id) = (0, 0);
    // SAFETY: writes one number.
    check(unsafe { sys::cuCtxGetId(context, &mut context_id) }, "cannot find the id of the context")?;
    // SAFETY: as above.
    check(unsafe { sys::cuStreamGetId(stream, &mut stream_id) }, "cannot find the id of the stream")?;
    let key = (context_id, stream_id);
    if let Some(device) = devices.streams.get(&key) {
        return Ok(device.clone());
    }
    let cuda = match devices.contexts.get(&context_id) {
        Some(cuda) => {
            // SAFETY: the caller's stream belongs to this context. It is used during calls that pass it only.
            let stream = unsafe { cuda.device().stream().context().wrap_borrowed_stream(stream) };
            cuda.on_stream(&stream)?
        }
        None => {
            let context = borrow_context(context)?;
            // SAFETY: as above.
            let stream = unsafe { context.wrap_borrowed_stream(stream) };
            let cuda = Cuda::with_stream(&stream)?;
            devices.contexts.insert(context_id, cuda.clone());
            cuda
        }
    };
    Ok(devices.streams.entry(key).or_insert(Arc::new(Mutex::new(cuda))).clone())
}

/// cudarc's handle of the caller's context, which is current.
fn borrow_context(context: CUcontext) -> Result<Arc<CudaContext>> {
    let mut device = 0;
    // SAFETY: writes one int.
    check(unsafe { sys::cuCtxGetDevice(&mut device) }, "cannot find the device of the stream")?;
    // SAFETY: the context is valid. cudarc would destroy it with the last handle, but the first handle lives forever, in
    // `Devices` or here.
    let handle = unsafe { CudaContext::from_raw_context(device as usize, device, context) };
    let handle = handle.map_err(|error| unavailable("cannot use the context of the stream", error))?;
    std::mem::forget(handle.clone());
    // SAFETY: each device enqueues in one stream, so that cudarc's events are not needed.
    unsafe { handle.disable_event_tracking() };
    Ok(handle)
}

fn current_context() -> Result<CUcontext> {
    let mut context = std::ptr::null_mut();
    // SAFETY: writes one pointer.
    check(unsafe { sys::cuCtxGetCurrent(&mut context) }, "cannot query the current context")?;
    Ok(context)
}

/// The context of a stream, made current.
fn context_of(stream: CUstream, current: CUcontext) -> Result<CUcontext> {
    if stream.is_null() || stream as usize <= 2 {
        if current.is_null() {
            return Err(Error::Unavailable(
                "the default stream needs a current context: call cuCtxSetCurrent or cudaSetDevice before".into(),
            ));
        }
        return Ok(current);
    }
    let mut context = std::ptr::null_mut();
    // SAFETY: writes one pointer. The caller passes a stream.
    check(unsafe { sys::cuStreamGetCtx(stream, &mut context) }, "cannot find the context of the stream")?;
    if context != current {
        // SAFETY: the driver has returned this context.
        check(unsafe { sys::cuCtxSetCurrent(context) }, "cannot make the context of the stream current")?;
    }
    Ok(context)
}

/// Makes the caller's context current again when it is dropped.
struct Restored(CUcontext);

impl Drop for Restored {
    fn drop(&mut self) {
        // SAFETY: it was current before the call. If it was destroyed meanwhile, the driver refuses it.
        let _ = unsafe { sys::cuCtxSetCurrent(self.0) };
    }
}

fn check(outcome: sys::CUresult, what: &str) -> Result<()> {
    use sys::CUresult::*;
    outcome.result().map_err(|error| match outcome {
        CUDA_ERROR_INVALID_VALUE
        | CUDA_ERROR_INVALID_CONTEXT
        | CUDA_ERROR_INVALID_HANDLE
        | CUDA_ERROR_CONTEXT_IS_DESTROYED
        | CUDA_ERROR_NOT_INITIALIZED
        | CUDA_ERROR_DEINITIALIZED => unavailable(what, error),
        // An earlier failure, which the driver reports in every call.
        _ => Error::DeviceLost(format!("{what}: {error}")),
    })
}

fn unavailable(what: &str, error: DriverError) -> Error {
    Error::Unavailable(format!("{what}: {error}"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
