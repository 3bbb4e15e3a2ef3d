//! Recordings: what is kept, what is refused, and who is left alone.

use std::sync::mpsc;
use std::thread;

use half::bf16;
use ironwarp::cuda::{Cuda, Recording};
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

/// A recording of `out = gelu(x)`.
fn recorded(cuda: &Cuda, x: &Numbers, out: &mut Numbers) -> Recording {
    cuda.record(&mut || gelu(cuda, x, out)).unwrap().expect("the driver records")
}

#[test]
fn a_replay_does_it_again() {
    let cuda = shared();
    let (mut x, mut out) = (numbers(&cuda, 1.0), numbers(&cuda, 0.0));
    let recording = recorded(&cuda, &x, &mut out);
    let of_one = first(&cuda, &out);
    assert!(of_one > 0.8, "what is recorded is done, too");
    cuda.upload(&[bf16::from_f32(3.0); 256], x.view_mut()).unwrap();
    assert_eq!(first(&cuda, &out), of_one);
    cuda.replay(&recording).unwrap();
    assert!(first(&cuda, &out) > 2.9);
}

#[test]
fn a_recording_keeps_its_memory() {
    let cuda = shared();
    let (x, mut out) = (numbers(&cuda, 1.0), numbers(&cuda, 0.0));
    let recording = recorded(&cuda, &x, &mut out);
    drop((x, out));
    // Would have the places of those that were dropped.
    let others = [numbers(&cuda, 7.0), numbers(&cuda, 7.0)];
    cuda.replay(&recording).unwrap();
    for other in &others {
        assert!(other.to_vec(&cuda).unwrap().iter().all(|x| x.to_f32() == 7.0));
    }
}

/// Scratch memory that has grown since is another.
#[test]
fn a_recording_keeps_its_scratch_memory() {
    let (_turn, cuda) = (shared(), own());
    let norm_of = |grad: &Tensor<Cuda, f32>, norm: &mut Tensor<Cuda, f32>| {
        cuda.grad_norm(GradNorm { grad: grad.view(), norm: norm.view_mut() })
    };
    let ones = |len| Tensor::<Cuda, f32>::from_vec(&cuda, [len], vec![1.0; len]).unwrap();
    let (few, many, mut norm, mut other) = (ones(64), ones(1 << 20), ones(1), ones(1));
    let recording = cuda.record(&mut || norm_of(&few, &mut norm)).unwrap().expect("the driver records");
    norm_of(&many, &mut other).unwrap();
    let bystander = ones(64);
    cuda.replay(&recording).unwrap();
    assert_eq!((norm.to_vec(&cuda).unwrap(), other.to_vec(&cuda).unwrap()), (vec![8.0], vec![1024.0]));
    assert!(bystander.to_vec(&cuda).unwrap().iter().all(|&x| x == 1.0));
}

#[test]
fn launches_of_other_threads_go_on() {
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
        let recording = cuda.record(&mut || {
            begun.send(()).unwrap();
            assert!(ended.recv().unwrap() > 1.9, "it ran at once");
            gelu(&cuda, &x, &mut out)
        });
        cuda.replay(&recording.unwrap().unwrap()).unwrap();
    });
    assert_eq!(first(&cuda, out_of_y), 0.0, "it was not recorded");
    assert!(first(&cuda, &out) > 0.8);
}

#[test]
fn what_cannot_be_recorded_is_refused() {
    let cuda = shared();
    let (mut x, mut out) = (numbers(&cuda, 1.0), numbers(&cuda, 0.0));
    let message = "only operations can be recorded: no copies, no waiting, no other recordings";
    let refused = |work: &mut dyn FnMut() -> ironwarp::Result<()>| {
        assert_eq!(cuda.record(work).map(drop).unwrap_err().to_string(), message);
    };
    refused(&mut || cuda.upload(&[bf16::ONE; 256], x.view_mut()));
    refused(&mut || x.to_vec(&*cuda).map(drop));
    refused(&mut || cuda.zeros::<f32>(8).map(drop));
    refused(&mut || cuda.device().synchronize());
    refused(&mut || cuda.record(&mut || Ok(())).map(drop));
    let recording = recorded(&cuda, &x, &mut out);
    refused(&mut || cuda.replay(&recording));
    // The device is as it was.
    gelu(&cuda, &x, &mut out).unwrap();
    assert!(first(&cuda, &out) > 0.8);
    let other = Cuda::with_context(cuda.device().stream().context()).unwrap();
    let message = "a recording can only be replayed on the device that made it";
    assert_eq!(other.replay(&recording).unwrap_err().to_string(), message);
    let mark = cuda.mark().unwrap();
    let message = "a mark orders the work of the device that made it, and no other's";
    assert_eq!(other.wait_for(&mark).unwrap_err().to_string(), message);
    other.device().synchronize().unwrap();
}

/// What waits for all of a context ends a capture in it: then the work is done as if nothing was to be recorded.
#[test]
fn a_capture_that_is_given_up_is_done_without() {
    let (_turn, cuda) = (shared(), own());
    let (x, mut out) = (numbers(&cuda, 1.0), numbers(&cuda, 0.0));
    let mut times = 0;
    let recording = cuda.record(&mut || {
        times += 1;
        if times == 1 {
            let error = cuda.device().stream().context().synchronize().unwrap_err();
            println!("{error}");
        }
        gelu(&cuda, &x, &mut out)
    });
    assert!(recording.unwrap().is_none());
    assert_eq!(times, 2);
    assert!(first(&cuda, &out) > 0.8);
}

#[test]
fn a_panic_ends_the_recording() {
    let cuda = shared();
    let (x, mut out) = (numbers(&cuda, 1.0), numbers(&cuda, 0.0));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = cuda.record(&mut || panic!("planted"));
    }));
    assert!(panicked.is_err());
    recorded(&cuda, &x, &mut out);
    assert!(first(&cuda, &out) > 0.8);
}
