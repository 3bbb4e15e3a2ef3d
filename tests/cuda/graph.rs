//! CUDA graphs: what a graph keeps alive, what cannot be captured, and that other threads are not affected.

use std::sync::mpsc;
use std::thread;

use half::bf16;
use ironwarp::cuda::{Cuda, Graph};
use ironwarp::ops::{Backend, GeluForward, GradNorm};
use ironwarp::tensor::{Storage, Tensor};

use crate::emulator::{own, shared};

type Numbers = Tensor<Cuda, bf16>;

fn numbers(cuda: &Cuda, value: f32) -> Numbers {
    Tensor::from_vec(cuda, [4, 64], vec![bf16::from_f32(value); 256]).unwrap()
}

fn gelu(cuda: &Cuda, x: &Numbers, out: &mut Numbers) -> ironwarp::Result<()> {
    cuda.gelu_forward(GeluForward { x: x.view(), out: out.view_mut() })
}

fn first(cuda: &Cuda, x: &Numbers) -> f32 {
    x.to_vec(cuda).unwrap()[0].to_f32()
}

/// A graph of `out = gelu(x)`.
fn captured(cuda: &Cuda, x: &Numbers, out: &mut Numbers) -> Graph {
    cuda.capture(&mut || gelu(cuda, x, out)).unwrap().expect("the driver supports capture")
}

#[test]
fn a_replay_repeats_the_work() {
    let cuda = shared();
    let (mut x, mut out) = (numbers(&cuda, 1.0), numbers(&cuda, 0.0));
    let graph = captured(&cuda, &x, &mut out);
    let of_one = first(&cuda, &out);
    assert!(of_one > 0.8, "captured work is executed, too");
    cuda.upload(&[bf16::from_f32(3.0); 256], x.view_mut()).unwrap();
    assert_eq!(first(&cuda, &out), of_one);
    cuda.replay(&graph).unwrap();
    assert!(first(&cuda, &out) > 2.9);
}

#[test]
fn a_graph_keeps_its_memory() {
    let cuda = shared();
    let (x, mut out) = (numbers(&cuda, 1.0), numbers(&cuda, 0.0));
    let graph = captured(&cuda, &x, &mut out);
    drop((x, out));
    // These would get the memory of the dropped tensors if it was free.
    let others = [numbers(&cuda, 7.0), numbers(&cuda, 7.0)];
    cuda.replay(&graph).unwrap();
    for other in &others {
        assert!(other.to_vec(&cuda).unwrap().iter().all(|x| x.to_f32() == 7.0));
    }
}

/// Scratch memory that grows after the capture is allocated anew.
#[test]
fn a_graph_keeps_its_scratch_memory() {
    let (_shared, cuda) = (shared(), own());
    let norm_of = |grad: &Tensor<Cuda, f32>, norm: &mut Tensor<Cuda, f32>| {
        cuda.grad_norm(GradNorm { grad: grad.view(), norm: norm.view_mut() })
    };
    let ones = |len| Tensor::<Cuda, f32>::from_vec(&cuda, [len], vec![1.0; len]).unwrap();
    let (few, many, mut norm, mut other) = (ones(64), ones(1 << 20), ones(1), ones(1));
    let graph = cuda.capture(&mut || norm_of(&few, &mut norm)).unwrap().expect("the driver supports capture");
    norm_of(&many, &mut other).unwrap();
    let bystander = ones(64);
    cuda.replay(&graph).unwrap();
    assert_eq!((norm.to_vec(&cuda).unwrap(), other.to_vec(&cuda).unwrap()), (vec![8.0], vec![1024.0]));
    assert!(bystander.to_vec(&cuda).unwrap().iter().all(|&x| x == 1.0));
}

#[test]
fn launches_of_other_threads_are_not_captured() {
    let cuda = shared();
    let (x, mut out) = (numbers(&cuda, 1.0), numbers(&cuda, 0.0));
    let (y, mut out_of_y) = (numbers(&cuda, 2.0), numbers(&cuda, 0.0));
    let (begun, wait) = mpsc::channel();
    let (done, ended) = mpsc::channel();
    let device: Cuda = cuda.clone();
    let (y, out_of_y) = (&y, &mut out_of_y);
    thread::scope(|scope| {
        let out_of_y = &mut *out_of_y;
        scope.spawn(move || {
            wait.recv().unwrap();
            gelu(&device, y, out_of_y).unwrap();
            done.send(first(&device, out_of_y)).unwrap();
            device.upload(&[bf16::ZERO; 256], out_of_y.view_mut()).unwrap();
        });
        let graph = cuda.capture(&mut || {
            begun.send(()).unwrap();
            assert!(ended.recv().unwrap() > 1.9, "the launch ran during the capture");
            gelu(&cuda, &x, &mut out)
        });
        cuda.replay(&graph.unwrap().unwrap()).unwrap();
    });
    assert_eq!(first(&cuda, out_of_y), 0.0, "the launch was not captured");
    assert!(first(&cuda, &out) > 0.8);
}

#[test]
fn only_operations_can_be_captured() {
    let cuda = shared();
    let (mut x, mut out) = (numbers(&cuda, 1.0), numbers(&cuda, 0.0));
    let message = "only operations can be captured: copies, allocations, waits and nested captures are not allowed";
    let rejected = |work: &mut dyn FnMut() -> ironwarp::Result<()>| {
        assert_eq!(cuda.capture(work).map(drop).unwrap_err().to_string(), message);
    };
    rejected(&mut || cuda.upload(&[bf16::ONE; 256], x.view_mut()));
    rejected(&mut || x.to_vec(&*cuda).map(drop));
    rejected(&mut || cuda.zeros::<f32>(8).map(drop));
    rejected(&mut || cuda.device().synchronize());
    rejected(&mut || cuda.capture(&mut || Ok(())).map(drop));
    let graph = captured(&cuda, &x, &mut out);
    rejected(&mut || cuda.replay(&graph));
    // The device still works.
    gelu(&cuda, &x, &mut out).unwrap();
    assert!(first(&cuda, &out) > 0.8);
    let other = Cuda::with_context(cuda.device().stream().context()).unwrap();
    let message = "a graph can only be replayed on the device that captured it";
    assert_eq!(other.replay(&graph).unwrap_err().to_string(), message);
    let event = cuda.record_event().unwrap();
    let message = "an event can only be used with the device that recorded it";
    assert_eq!(other.wait_event(&event).unwrap_err().to_string(), message);
    other.device().synchronize().unwrap();
}

/// Synchronizing the context invalidates a capture in it: the work is then executed without a graph.
#[test]
fn an_invalidated_capture_executes_the_work() {
    let (_shared, cuda) = (shared(), own());
    let (x, mut out) = (numbers(&cuda, 1.0), numbers(&cuda, 0.0));
    let mut times = 0;
    let graph = cuda.capture(&mut || {
        times += 1;
        if times == 1 {
            let error = cuda.device().stream().context().synchronize().unwrap_err();
            println!("{error}");
        }
        gelu(&cuda, &x, &mut out)
    });
    assert!(graph.unwrap().is_none());
    assert_eq!(times, 2);
    assert!(first(&cuda, &out) > 0.8);
}

#[test]
fn a_panic_ends_the_capture() {
    let cuda = shared();
    let (x, mut out) = (numbers(&cuda, 1.0), numbers(&cuda, 0.0));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = cuda.capture(&mut || panic!("planted"));
    }));
    assert!(panicked.is_err());
    captured(&cuda, &x, &mut out);
    assert!(first(&cuda, &out) > 0.8);
}
