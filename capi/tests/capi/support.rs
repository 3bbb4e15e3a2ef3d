//! A program that calls the C functions: its context, stream and memory, and a device for the same operations in Rust.

use std::ffi::{CStr, c_void};
use std::sync::{Arc, OnceLock};

use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DevicePtr};
use half::bf16;
use ironwarp::cuda::Cuda;
use ironwarp::cuda::runtime::driver;
use ironwarp::tensor::{Shape, Tensor};
use ironwarp_capi::{Status, Workspace, ironwarp_last_error};

/// Opens the emulated GPU, once in this process.
fn driver() {
    static DRIVER: OnceLock<()> = OnceLock::new();
    DRIVER.get_or_init(|| driver::emulate(&driver::find_emulator().unwrap()).unwrap());
}

/// A caller of the C functions.
pub struct Program {
    /// The same stream for operations in Rust, which tests compare with.
    pub cuda: Cuda,
    pub stream: Arc<CudaStream>,
}

impl Program {
    pub fn new() -> Self {
        driver();
        let context = CudaContext::new_non_primary(0, 0).unwrap();
        // SAFETY: everything runs in one stream.
        unsafe { context.disable_event_tracking() };
        let stream = context.new_stream().unwrap();
        Program { cuda: Cuda::with_stream(&stream).unwrap(), stream }
    }

    /// A bf16 tensor of numbers between -1 and 1.
    pub fn bf16(&self, seed: u64, shape: impl Into<Shape>) -> Tensor<Cuda, bf16> {
        let shape = shape.into();
        Tensor::from_vec(&self.cuda, shape, numbers(seed, shape.len()).map(bf16::from_f32).collect()).unwrap()
    }

    /// An f32 tensor of numbers between -1 and 1.
    pub fn f32(&self, seed: u64, shape: impl Into<Shape>) -> Tensor<Cuda, f32> {
        let shape = shape.into();
        Tensor::from_vec(&self.cuda, shape, numbers(seed, shape.len()).collect()).unwrap()
    }

    /// Ids below `end`.
    pub fn ids(&self, end: i32, shape: impl Into<Shape>) -> Tensor<Cuda, i32> {
        let shape = shape.into();
        Tensor::from_vec(&self.cuda, shape, (0..shape.len() as i32).map(|i| i * 7 % end).collect()).unwrap()
    }

    /// Memory for a workspace. It must outlive the calls.
    pub fn workspace(&self, bytes: usize) -> (CudaSlice<u8>, Workspace) {
        let memory = self.stream.alloc_zeros::<u8>(bytes.max(1)).unwrap();
        let ptr = memory.device_ptr(&self.stream).0 as *mut c_void;
        (memory, Workspace { ptr, bytes })
    }
}

fn numbers(seed: u64, len: usize) -> impl Iterator<Item = f32> {
    (0..len as u64).map(move |i| {
        let mixed = (i + seed * 1_000_003).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    })
}

/// The pointer that C passes for a tensor.
pub fn ptr<E: ironwarp::tensor::Element, T>(tensor: &Tensor<Cuda, E>) -> *mut T {
    tensor.as_dev_ptr().address() as *mut T
}

/// The last error of this thread.
pub fn last_error() -> String {
    // SAFETY: the library returns a C string that lives until the next call.
    unsafe { CStr::from_ptr(ironwarp_last_error()) }.to_str().unwrap().to_owned()
}

/// Panics with the last error unless a call succeeded.
#[track_caller]
pub fn ok(status: Status) {
    assert_eq!(status, Status::Ok, "{}", last_error());
}
