//! Tensors of more than 2³¹ elements. The emulated GPU has memory where something was written, so that their rest costs
//! nothing; only what a kernel can be made to skip is tested so. A real GPU needs all of the memory.

use half::bf16;
use ironwarp::Error;
use ironwarp::cuda::Cuda;
use ironwarp::ops::{Backend, CrossEntropyForward, EmbeddingBackward, EmbeddingForward, Write};
use ironwarp::tensor::{Element, Storage, Tensor};

use crate::emulator::shared;
use crate::place::{real_gpu, skip};

/// GPT-2's.
const VP: usize = 50304;

/// Rows of a table of which C = 12,288 columns make more than 2³² bytes, and more than 2³¹ elements.
const ROWS: usize = 180_000;
const C: usize = 12_288;

fn numbers(from: usize, len: usize) -> Vec<bf16> {
    (from..from + len).map(|i| bf16::from_f32((i % 61) as f32 - 30.0)).collect()
}

/// Uninitialised; none where a real GPU has not the room, and the test's log says so.
fn huge<E: Element>(cuda: &Cuda, shape: [usize; 2]) -> Option<Tensor<Cuda, E>> {
    match cuda.uninitialised(shape) {
        Err(Error::OutOfDeviceMemory(why)) if real_gpu().is_some() => {
            skip(&format!("more memory: {why}"));
            None
        }
        tensor => Some(tensor.unwrap()),
    }
}

#[test]
fn the_last_rows_of_a_table_are_embedded() {
    let cuda = shared();
    let Some(mut wte) = huge::<bf16>(&cuda, [ROWS, C]) else { return };
    let last = ROWS - 1;
    assert!(last * C > 1 << 31);
    cuda.upload(&numbers(7, C), wte.at_mut(last)).unwrap();
    let wpe = Tensor::from_vec(&*cuda, [1, C], numbers(0, C)).unwrap();
    let tokens = Tensor::from_vec(&*cuda, [1, 1], vec![last as i32]).unwrap();
    let mut out: Tensor<Cuda, bf16> = cuda.uninitialised([1, C]).unwrap();
    let op =
        EmbeddingForward { tokens: tokens.view(), wte: wte.view(), wpe: wpe.view(), position: 0, out: out.view_mut() };
    cuda.embedding_forward(op).unwrap();
    let want: Vec<bf16> = numbers(7, C).iter().zip(numbers(0, C)).map(|(a, b)| *a + b).collect();
    assert_eq!(out.to_vec(&cuda).unwrap(), want);
}

#[test]
fn the_last_rows_of_a_table_get_their_gradient() {
    let cuda = shared();
    let Some(mut dwte) = huge::<f32>(&cuda, [ROWS, C]) else { return };
    let last = ROWS - 1;
    cuda.upload(&[0.5; C], dwte.at_mut(last)).unwrap();
    let dout = Tensor::from_vec(&*cuda, [1, 1, C], numbers(3, C)).unwrap();
    let tokens = Tensor::from_vec(&*cuda, [1, 1], vec![last as i32]).unwrap();
    let mut dwpe: Tensor<Cuda, f32> = cuda.uninitialised([1, C]).unwrap();
    let (tokens, write) = (tokens.view(), Write::Overwrite);
    let op = EmbeddingBackward { tokens, dout: dout.view(), dwte: dwte.view_mut(), dwpe: dwpe.view_mut(), write };
    cuda.embedding_backward(op).unwrap();
    let mut got = vec![0.0; C];
    cuda.download(dwte.at(last), &mut got).unwrap();
    let want: Vec<f32> = numbers(3, C).iter().map(|x| x.to_f32() + 0.5).collect();
    assert_eq!(got, want);
}

/// All rows but the last are ignored, and so not read.
#[test]
fn the_last_row_of_huge_logits_has_its_loss() {
    let cuda = shared();
    let n = (1 << 31) / VP + 2;
    let Some(mut logits) = huge::<bf16>(&cuda, [n, VP]) else { return };
    cuda.upload(&[bf16::ZERO; VP], logits.at_mut(n - 1)).unwrap();
    let mut targets = vec![-1; n];
    targets[n - 1] = 5;
    let targets = Tensor::from_vec(&*cuda, [n], targets).unwrap();
    let mut losses: Tensor<Cuda, f32> = cuda.uninitialised([n]).unwrap();
    let op =
        CrossEntropyForward { logits: logits.view(), targets: targets.view(), vocab: 50257, losses: losses.view_mut() };
    cuda.cross_entropy_forward(op).unwrap();
    let losses = losses.to_vec(&cuda).unwrap();
    assert!(losses[..n - 1].iter().all(|&loss| loss == 0.0));
    assert!((f64::from(losses[n - 1]) - 50257f64.ln()).abs() < 1e-5, "{}", losses[n - 1]);
}
