//! Streams and contexts: the caller's stream orders the work, the NULL stream is that of the current context, the caller's
//! context stays current, and a stream can be captured.

use std::ptr::{null, null_mut};
use std::thread;

use cudarc::driver::sys::{self, CUgraphInstantiate_flags, CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL};
use half::bf16;
use ironwarp::cuda::Cuda;
use ironwarp::tensor::Tensor;
use ironwarp_capi::*;

use crate::support::{Program, last_error, ok, ptr};

/// A linear layer of ones: every output is 32.
struct Layer {
    x: Tensor<Cuda, bf16>,
    weight: Tensor<Cuda, bf16>,
    out: Tensor<Cuda, bf16>,
}

impl Layer {
    fn new(cuda: &Cuda) -> Self {
        let ones = |shape: [usize; 2]| Tensor::from_vec(cuda, shape, vec![bf16::ONE; shape[0] * shape[1]]).unwrap();
        Layer { x: ones([16, 32]), weight: ones([8, 32]), out: ones([16, 8]) }
    }

    fn args(&self) -> MatmulForward {
        MatmulForward {
            x: ptr(&self.x),
            weight: ptr(&self.weight),
            bias: null(),
            residual: null(),
            pre: null_mut(),
            out: ptr(&self.out),
            n: 16,
            c: 32,
            oc: 8,
            epilogue: Epilogue::None as i32,
        }
    }

    fn run(&self, stream: Stream) -> Status {
        // SAFETY: the tensors have these sizes.
        unsafe { ironwarp_matmul_forward(&self.args(), stream) }
    }

    fn outputs_are(&self, cuda: &Cuda, value: f32) -> bool {
        self.out.to_vec(cuda).unwrap().iter().all(|out| out.to_f32() == value)
    }
}

fn current() -> sys::CUcontext {
    let mut context = null_mut();
    // SAFETY: writes one pointer.
    assert!(unsafe { sys::cuCtxGetCurrent(&mut context) } == sys::CUresult::CUDA_SUCCESS);
    context
}

#[test]
fn the_context_of_the_stream_is_used_and_the_callers_restored() {
    let (program, other) = (Program::new(), Program::new());
    let layer = Layer::new(&program.cuda);
    other.stream.context().bind_to_thread().unwrap();
    ok(layer.run(program.stream.cu_stream()));
    assert_eq!(current(), other.stream.context().cu_ctx(), "the caller's context is current again");
    assert!(layer.outputs_are(&program.cuda, 32.0));
    // Another stream of the context shares its kernels; a thread without a context can use it, too.
    let second = program.stream.context().new_stream().unwrap();
    thread::scope(|scope| {
        let stream = second.cu_stream() as usize;
        let layer = &layer;
        scope.spawn(move || {
            ok(layer.run(stream as Stream));
            assert!(current().is_null());
        });
    });
    second.synchronize().unwrap();
    assert!(layer.outputs_are(&program.cuda, 32.0));
}

#[test]
fn the_null_stream_is_that_of_the_current_context() {
    let program = Program::new();
    let layer = Layer::new(&program.cuda);
    program.stream.synchronize().unwrap();
    ok(layer.run(null_mut()));
    program.stream.context().default_stream().synchronize().unwrap();
    assert!(layer.outputs_are(&program.cuda, 32.0));
    let args = layer.args();
    let (x, weight, out) = (args.x as usize, args.weight as usize, args.out as usize);
    thread::spawn(move || {
        let args = MatmulForward {
            x: x as _,
            weight: weight as _,
            bias: null(),
            residual: null(),
            pre: null_mut(),
            out: out as _,
            n: 16,
            c: 32,
            oc: 8,
            epilogue: Epilogue::None as i32,
        };
        // SAFETY: as in `Layer::run`.
        assert_eq!(unsafe { ironwarp_matmul_forward(&args, null_mut()) }, Status::Unavailable);
        assert_eq!(
            last_error(),
            "matmul_forward: the default stream needs a current context: call cuCtxSetCurrent or cudaSetDevice before"
        );
    })
    .join()
    .unwrap();
}

/// The first call of the process may be one that is captured.
#[test]
fn a_stream_can_be_captured() {
    let program = Program::new();
    let layer = Layer::new(&program.cuda);
    program.stream.begin_capture(CU_STREAM_CAPTURE_MODE_GLOBAL).unwrap();
    ok(layer.run(program.stream.cu_stream()));
    let graph = program.stream.end_capture(CUgraphInstantiate_flags(0)).unwrap().unwrap();
    assert!(layer.outputs_are(&program.cuda, 1.0), "captured work is not executed");
    graph.launch().unwrap();
    assert!(layer.outputs_are(&program.cuda, 32.0));
}

#[test]
fn threads_can_share_a_stream() {
    let program = Program::new();
    let layers: Vec<Layer> = (0..4).map(|_| Layer::new(&program.cuda)).collect();
    thread::scope(|scope| {
        for layer in &layers {
            let stream = program.stream.cu_stream() as usize;
            scope.spawn(move || (0..8).for_each(|_| ok(layer.run(stream as Stream))));
        }
    });
    assert!(layers.iter().all(|layer| layer.outputs_are(&program.cuda, 32.0)));
}

/// The legacy default stream also has a handle of its own. The per-thread default stream orders nothing between threads.
#[test]
fn the_handles_of_the_default_streams() {
    let program = Program::new();
    let layer = Layer::new(&program.cuda);
    program.stream.synchronize().unwrap();
    ok(layer.run(1 as Stream));
    program.stream.context().default_stream().synchronize().unwrap();
    assert!(layer.outputs_are(&program.cuda, 32.0));
    assert_eq!(layer.run(2 as Stream), Status::InvalidArgument);
    assert!(last_error().contains("per-thread default stream"), "{}", last_error());
}
