//! A program's own stream, slices, pointers and graphs: operations work on them like on tensors.

use std::ops::Deref;
use std::sync::Arc;
use std::thread;

use cudarc::driver::sys::CUgraphInstantiate_flags;
use cudarc::driver::sys::CUstreamCaptureMode::{CU_STREAM_CAPTURE_MODE_GLOBAL, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL};
use cudarc::driver::{CudaContext, CudaFunction, CudaSlice, CudaStream, DevicePtr, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;
use half::bf16;
use ironwarp::cuda::{Cuda, DevPtr, workspace};
use ironwarp::memory::Category;
use ironwarp::ops::{Backend, GeluForward, GradNorm};
use ironwarp::tensor::{Storage, Tensor, View, ViewMut};
use ironwarp::{Error, Result};

use crate::emulator::{Shared, alone, shared};

/// A program with a context and a stream of its own, and a device in them.
struct Program<L> {
    cuda: Cuda,
    stream: Arc<CudaStream>,
    add_one: CudaFunction,
    _lock: L,
}

fn program() -> Program<Shared> {
    Program::new(shared())
}

impl<L: Deref<Target = Cuda>> Program<L> {
    fn new(lock: L) -> Self {
        let context = CudaContext::new_non_primary(lock.device().properties().ordinal, 0).unwrap();
        // cudarc's events for other streams cannot be recorded in a capture.
        // SAFETY: the tests order the work of different streams themselves.
        #[allow(unsafe_code)]
        unsafe {
            context.disable_event_tracking();
        }
        let stream = context.new_stream().unwrap();
        let add_one = context.load_module(Ptx::from_src(ADD_ONE)).unwrap().load_function("add_one").unwrap();
        Program { cuda: Cuda::with_stream(&stream).unwrap(), stream, add_one, _lock: lock }
    }

    fn slice(&self, value: f32) -> CudaSlice<bf16> {
        self.stream.clone_htod(&[bf16::from_f32(value); 256]).unwrap()
    }

    fn gelu(&self, x: &CudaSlice<bf16>, out: &mut CudaSlice<bf16>) -> Result<()> {
        self.cuda.gelu_forward(GeluForward {
            x: View::from_slice(&self.cuda, x, [4, 64])?,
            out: ViewMut::from_slice(&self.cuda, out, [4, 64])?,
        })
    }

    /// The first element. The copy waits for the stream.
    fn first(&self, slice: &CudaSlice<bf16>) -> f32 {
        let values = self.stream.clone_dtoh(slice).unwrap();
        self.stream.synchronize().unwrap();
        assert!(values.iter().all(|value| value == &values[0]), "one value everywhere: {values:?}");
        values[0].to_f32()
    }
}

/// Adds one to `len` bf16 values, as a program's own kernel would.
const ADD_ONE: &str = r"
.version 8.0
.target sm_80
.address_size 64
.visible .entry add_one(.param .u64 values, .param .u32 len) {
    .reg .pred %p;
    .reg .b16 %h<3>;
    .reg .b32 %r<3>;
    .reg .b64 %d<4>;
    mov.u32 %r1, %tid.x;
    ld.param.u32 %r2, [len];
    setp.ge.u32 %p, %r1, %r2;
    @%p bra done;
    ld.param.u64 %d1, [values];
    mul.wide.u32 %d2, %r1, 2;
    add.s64 %d3, %d1, %d2;
    ld.global.b16 %h1, [%d3];
    mov.b16 %h2, 0x3f80;
    fma.rn.bf16 %h1, %h2, %h2, %h1;
    st.global.b16 [%d3], %h1;
done:
    ret;
}";

impl<L> Program<L> {
    /// Enqueues the program's own kernel on 256 elements at an address.
    fn add_one(&self, values: DevPtr<bf16>) {
        let config = LaunchConfig { grid_dim: (1, 1, 1), block_dim: (256, 1, 1), shared_mem_bytes: 0 };
        // SAFETY: every slice and tensor of these tests has 256 elements.
        #[allow(unsafe_code)]
        unsafe { self.stream.launch_builder(&self.add_one).arg(&values).arg(&256u32).launch(config) }.unwrap();
    }
}

fn address(slice: &CudaSlice<bf16>) -> DevPtr<bf16> {
    DevPtr::from_address(slice.device_ptr(slice.stream()).0)
}

#[test]
fn operations_run_in_the_order_of_the_programs_stream() {
    let program = program();
    let (x, mut out) = (program.slice(1.0), program.slice(-1.0));
    // Nothing waits in between.
    program.add_one(address(&x));
    program.gelu(&x, &mut out).unwrap();
    program.add_one(address(&out));
    // gelu(2) = 1.9546 is 1.953125 in bf16.
    assert_eq!((program.first(&x), program.first(&out)), (2.0, 2.953125));
}

#[test]
fn tensors_are_operands_of_the_programs_code() {
    let program = program();
    let mut x = Tensor::from_vec(&program.cuda, [4, 64], vec![bf16::ONE; 256]).unwrap();
    program.add_one(x.as_dev_ptr());
    assert_eq!(x.at(1).as_dev_ptr().address(), x.as_dev_ptr().address() + 128);
    let mut copy = program.slice(0.0);
    // SAFETY: the copy is in the tensor's stream.
    #[allow(unsafe_code)]
    let view = unsafe { x.as_cuda_view() };
    program.stream.memcpy_dtod(&view, &mut copy).unwrap();
    assert_eq!(program.first(&copy), 2.0);
    program.add_one(address(&copy));
    program.stream.memcpy_dtod(&copy, &mut x).unwrap();
    assert!(x.to_vec(&program.cuda).unwrap().iter().all(|value| value.to_f32() == 3.0));
    // A copy in another stream comes after the work of the tensor's own, and has ended when the call returns.
    program.add_one(x.as_dev_ptr());
    let other = program.stream.context().new_stream().unwrap();
    let values = other.clone_dtoh(&x).unwrap();
    assert!(values.iter().all(|value| value.to_f32() == 4.0));
}

#[test]
fn raw_pointers_are_operands() {
    let program = program();
    let (x, out) = (program.slice(2.0), program.slice(0.0));
    // SAFETY: both slices have 256 elements and live until `first` has waited.
    #[allow(unsafe_code)]
    let op = unsafe {
        GeluForward { x: View::from_raw(address(&x), [4, 64]), out: ViewMut::from_raw(address(&out), [4, 64]) }
    };
    program.cuda.gelu_forward(op).unwrap();
    assert_eq!(program.first(&out), 1.953125);
}

#[test]
fn parts_of_slices_are_operands() {
    let program = program();
    let (x, mut out) = (program.slice(2.0), program.slice(0.0));
    let mut gelu = |first: usize| {
        program.cuda.gelu_forward(GeluForward {
            x: View::from_slice(&program.cuda, &x.slice(first..first + 8), [8])?,
            out: ViewMut::from_slice(&program.cuda, &mut out.slice_mut(8..16), [8])?,
        })
    };
    gelu(16).unwrap();
    assert_eq!(
        gelu(1).unwrap_err().to_string(),
        "gelu_forward: x 16-byte aligned failed (x begins 2 bytes past a multiple of 16)"
    );
    let out = program.stream.clone_dtoh(&out).unwrap();
    program.stream.synchronize().unwrap();
    let written: Vec<usize> = (0..256).filter(|&i| out[i] != bf16::ZERO).collect();
    assert_eq!(written, (8..16).collect::<Vec<_>>());
}

#[test]
fn slices_of_other_sizes_and_streams_are_refused() {
    let program = program();
    let mut x = program.slice(1.0);
    let message = "a slice of 256 elements cannot have the shape (4, 63)";
    assert_eq!(View::from_slice(&program.cuda, &x, [4, 63]).err().unwrap().to_string(), message);
    assert_eq!(ViewMut::from_slice(&program.cuda, &mut x, [4, 63]).err().unwrap().to_string(), message);
    let other = program.stream.context().new_stream().unwrap();
    let mut y = other.clone_htod(&[bf16::ONE; 256]).unwrap();
    let message = "the slice belongs to another stream than the device, so that nothing orders its use: open the device \
                   with Cuda::with_stream(slice.stream())";
    assert_eq!(View::from_slice(&program.cuda, &y, [4, 64]).err().unwrap().to_string(), message);
    assert_eq!(ViewMut::from_slice(&program.cuda, &mut y, [4, 64]).err().unwrap().to_string(), message);
}

#[test]
fn operations_become_part_of_the_programs_graph() {
    let program = program();
    let (x, mut out) = (program.slice(1.0), program.slice(0.0));
    program.stream.begin_capture(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).unwrap();
    program.gelu(&x, &mut out).unwrap();
    program.add_one(address(&out));
    let graph = program.stream.end_capture(CUgraphInstantiate_flags(0)).unwrap().unwrap();
    assert_eq!(program.first(&out), 0.0, "captured work is not executed");
    program.add_one(address(&x));
    graph.launch().unwrap();
    assert_eq!(program.first(&out), 2.953125);
}

/// In its global mode, a capture forbids other threads the calls of the driver that might synchronize with it.
#[test]
fn a_capture_of_the_program_does_not_disturb_other_threads() {
    let Some(alone) = alone() else { return };
    let program = Program::new(alone);
    program.stream.begin_capture(CU_STREAM_CAPTURE_MODE_GLOBAL).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            let cuda = Cuda::with_context(program.stream.context()).unwrap();
            let x = Tensor::from_vec(&cuda, [4, 64], vec![bf16::ONE; 256]).unwrap();
            let mut out = Tensor::zeros(&cuda, [4, 64]).unwrap();
            let start = cuda.record_event().unwrap();
            let uploaded = cuda.upload_async(&start, &[bf16::ZERO; 256], out.view_mut()).unwrap();
            cuda.wait_event(&uploaded).unwrap();
            cuda.gelu_forward(GeluForward { x: x.view(), out: out.view_mut() }).unwrap();
            assert!(out.to_vec(&cuda).unwrap().iter().all(|value| value.to_f32() == 0.83984375));
        });
    });
    assert!(program.stream.end_capture(CUgraphInstantiate_flags(0)).unwrap().is_some());
}

/// A graph cannot contain copies from the host, waits or allocations that outlive it.
#[test]
fn what_the_programs_graph_cannot_contain_is_refused() {
    let program = program();
    let cuda = &program.cuda;
    let grad = Tensor::<Cuda, f32>::from_vec(cuda, [256], vec![2.0; 256]).unwrap();
    let mut norm = Tensor::<Cuda, f32>::zeros(cuda, [1]).unwrap();
    let mut norm_of_grad = || cuda.grad_norm(GradNorm { grad: grad.view(), norm: norm.view_mut() });
    program.stream.begin_capture(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).unwrap();
    let message = "only operations can be captured: copies, allocations, waits and nested captures are not allowed";
    let refused = [
        grad.to_vec(cuda).map(drop),
        cuda.device().synchronize(),
        cuda.record_event().map(drop),
        cuda.capture(&mut || Ok(())).map(drop),
    ];
    for outcome in refused {
        assert_eq!(outcome.unwrap_err().to_string(), message);
    }
    let no_memory = norm_of_grad().unwrap_err().to_string();
    assert!(no_memory.ends_with(
        "bytes cannot be allocated while the program captures the stream: run the operation once before the capture, or call \
         Device::reserve_workspace"
    ));
    let no_memory = cuda.zeros::<f32>(8).unwrap_err().to_string();
    assert_eq!(
        no_memory,
        "32 bytes for other cannot be allocated while the program captures the stream: allocate them before the capture"
    );
    program.stream.end_capture(CUgraphInstantiate_flags(0)).unwrap().unwrap();
    cuda.device().reserve_workspace(1 << 16).unwrap();
    program.stream.begin_capture(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).unwrap();
    norm_of_grad().unwrap();
    let graph = program.stream.end_capture(CUgraphInstantiate_flags(0)).unwrap().unwrap();
    graph.launch().unwrap();
    assert_eq!(norm.to_vec(cuda).unwrap(), [32.0]);
}

#[test]
fn the_workspace_can_be_memory_of_the_program() {
    let program = program();
    let cuda = program.cuda.on_stream(&program.stream).unwrap();
    let grad = Tensor::<Cuda, f32>::from_vec(&cuda, [1 << 16], vec![2.0; 1 << 16]).unwrap();
    let mut norm = Tensor::<Cuda, f32>::zeros(&cuda, [1]).unwrap();
    let bytes = workspace::grad_norm(1 << 16);
    let memory = program.stream.alloc_zeros::<u8>(bytes).unwrap();
    let ptr = DevPtr::from_address(memory.device_ptr(&program.stream).0);
    let mut norm_with = |lent: usize| {
        // SAFETY: `memory` lives longer than `cuda`'s work.
        #[allow(unsafe_code)]
        unsafe { cuda.device().lend_workspace(ptr, lent) }.unwrap();
        cuda.grad_norm(GradNorm { grad: grad.view(), norm: norm.view_mut() })
    };
    let message = format!("the lent workspace has {} bytes, but the operation needs {bytes}", bytes - 1);
    assert_eq!(norm_with(bytes - 1).unwrap_err().to_string(), message);
    norm_with(bytes).unwrap();
    assert_eq!(norm.to_vec(&cuda).unwrap(), [512.0]);
    let used = program.stream.clone_dtoh(&memory).unwrap();
    program.stream.synchronize().unwrap();
    assert!(used.iter().any(|&byte| byte != 0), "the partial sums are in the program's memory");
    let own = || cuda.device().held().iter().any(|(category, _)| *category == Category::Workspace);
    assert!(!own());
    cuda.device().reclaim_workspace();
    cuda.grad_norm(GradNorm { grad: grad.view(), norm: norm.view_mut() }).unwrap();
    assert!(own());
    // SAFETY: nothing is done with it.
    #[allow(unsafe_code)]
    let misaligned = unsafe { cuda.device().lend_workspace(DevPtr::from_address(0x1010), 16) };
    assert_eq!(misaligned.unwrap_err().to_string(), "a workspace at 0x1010 is not aligned to 256 bytes");
}

/// A graph of the program contains the workspace's address: the workspace may neither be freed when a larger one is needed
/// during the capture, nor after it.
#[test]
fn a_workspace_lives_as_long_as_the_graphs_that_use_it() {
    let program = program();
    let cuda = &program.cuda;
    let ones = |len: usize| Tensor::<Cuda, f32>::from_vec(cuda, [len], vec![1.0; len]).unwrap();
    let (few, many, mut norm, mut other) = (ones(64), ones(1 << 20), ones(1), ones(1));
    let norm_of = |grad: &Tensor<Cuda, f32>, norm: &mut Tensor<Cuda, f32>| {
        cuda.grad_norm(GradNorm { grad: grad.view(), norm: norm.view_mut() })
    };
    norm_of(&few, &mut norm).unwrap();
    program.stream.begin_capture(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).unwrap();
    norm_of(&few, &mut norm).unwrap();
    norm_of(&many, &mut other).unwrap_err();
    norm_of(&few, &mut norm).unwrap();
    let graph = program.stream.end_capture(CUgraphInstantiate_flags(0)).unwrap().unwrap();
    norm_of(&many, &mut other).unwrap();
    // It would get the old workspace if that was freed.
    let bystander = ones(64);
    graph.launch().unwrap();
    assert_eq!((norm.to_vec(cuda).unwrap(), other.to_vec(cuda).unwrap()), (vec![8.0], vec![1024.0]));
    assert!(bystander.to_vec(cuda).unwrap().iter().all(|&x| x == 1.0));
}

/// Memory that is dropped during a capture is freed after it, because a graph can free only what it has allocated.
#[test]
fn tensors_can_be_dropped_while_the_program_captures() {
    let program = program();
    let cuda = &program.cuda;
    let (x, mut out) = (program.slice(2.0), program.slice(0.0));
    let tensor = Tensor::<Cuda, f32>::zeros(cuda, [1 << 16]).unwrap();
    program.stream.begin_capture(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).unwrap();
    program.gelu(&x, &mut out).unwrap();
    drop(tensor);
    let graph = program.stream.end_capture(CUgraphInstantiate_flags(0)).unwrap().unwrap();
    graph.launch().unwrap();
    assert_eq!(program.first(&out), 1.953125);
    assert!(cuda.device().held().is_empty());
    cuda.zeros::<f32>(1).unwrap();
}

/// The program's mistakes in a capture are errors of the call, and the device stays usable.
#[test]
fn an_invalidated_capture_of_the_program_poisons_nothing() {
    let program = program();
    let (x, mut out) = (program.slice(2.0), program.slice(0.0));
    program.gelu(&x, &mut out).unwrap();
    program.stream.begin_capture(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).unwrap();
    program.stream.context().synchronize().unwrap_err();
    let error = program.gelu(&x, &mut out).unwrap_err();
    assert!(matches!(error, Error::Invalid(_)), "{error:?}");
    assert!(error.to_string().contains("CUDA_ERROR_STREAM_CAPTURE_INVALIDATED (901)"), "{error}");
    program.stream.end_capture(CUgraphInstantiate_flags(0)).map(drop).unwrap_err();
    program.gelu(&x, &mut out).unwrap();
    assert_eq!(program.first(&out), 1.953125);
}

#[test]
fn a_captured_stream_cannot_wait_for_cudarcs_events() {
    let program = program();
    // SAFETY: more events than needed do no harm.
    #[allow(unsafe_code)]
    unsafe {
        program.stream.context().enable_event_tracking();
    }
    let (x, mut out) = (program.slice(2.0), program.slice(0.0));
    program.gelu(&x, &mut out).unwrap();
    program.stream.begin_capture(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).unwrap();
    assert_eq!(
        program.gelu(&x, &mut out).unwrap_err().to_string(),
        "cudarc tracks slices by events, which a captured stream cannot wait for: call \
         CudaContext::disable_event_tracking, or make the views before the capture"
    );
    program.stream.end_capture(CUgraphInstantiate_flags(0)).unwrap();
    program.gelu(&x, &mut out).unwrap();
    assert_eq!(program.first(&out), 1.953125);
}

#[test]
fn the_per_thread_default_stream_is_refused() {
    let program = program();
    let error = Cuda::with_stream(&program.stream.context().per_thread_stream()).err().unwrap();
    assert!(error.to_string().starts_with("the per-thread default stream is another stream in each thread"), "{error}");
}

#[test]
fn another_stream_of_another_context_is_refused() {
    let (program, other) = (program(), self::program());
    let message = "the stream belongs to another context than the device";
    assert_eq!(program.cuda.on_stream(&other.stream).err().unwrap().to_string(), message);
}

/// A graph of [`Backend::capture`] keeps its operands alive, and a copy of [`Storage::upload_async`] its destination. Neither
/// is possible for memory that the program frees.
#[test]
fn memory_of_the_program_is_not_kept_alive() {
    let program = program();
    let (x, mut out) = (program.slice(2.0), program.slice(0.0));
    assert_eq!(
        program.cuda.capture(&mut || program.gelu(&x, &mut out)).map(drop).unwrap_err().to_string(),
        "a graph keeps its operands alive, which is not possible for memory of another owner: capture operations on \
         tensors, or capture the stream yourself"
    );
    let event = program.cuda.record_event().unwrap();
    let dst = ViewMut::from_slice(&program.cuda, &mut out, [256]).unwrap();
    assert_eq!(
        program.cuda.upload_async(&event, &[bf16::ONE; 256], dst).unwrap_err().to_string(),
        "an asynchronous upload keeps its destination alive, which is not possible for memory of another owner"
    );
    // The device still works.
    program.gelu(&x, &mut out).unwrap();
    assert_eq!(program.first(&out), 1.953125);
}

/// The default stream, which a program has that creates none.
#[test]
fn the_default_stream_is_a_stream() {
    let program = program();
    let stream = program.stream.context().default_stream();
    let cuda = Cuda::with_stream(&stream).unwrap();
    let x = stream.clone_htod(&[bf16::from_f32(2.0); 8]).unwrap();
    let mut out = Tensor::zeros(&cuda, [8]).unwrap();
    cuda.gelu_forward(GeluForward { x: View::from_slice(&cuda, &x, [8]).unwrap(), out: out.view_mut() }).unwrap();
    assert!(out.to_vec(&cuda).unwrap().iter().all(|value| value.to_f32() == 1.953125));
}
