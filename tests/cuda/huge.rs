//! Tensors of more than 2³¹ elements. The emulated GPU allocates host memory only where something is written, so tensors may be
//! huge if kernels skip most of them, or if all blocks but one exit at once. A real GPU needs all of the memory.

use cudarc::driver::CudaContext;
use half::bf16;
use ironwarp::Error;
use ironwarp::cuda::Cuda;
use ironwarp::cuda::launch::images::IMAGES;
use ironwarp::ops::{
    AttentionBackward, AttentionDims, AttentionForward, Backend, CrossEntropyForward, EmbeddingBackward,
    EmbeddingForward, HeadStrides, Heads, HeadsLayout, HeadsMut, Qkv, QkvMut, Write,
};
use ironwarp::tensor::{Element, Shape, Storage, Tensor};

use crate::common::assert_rejected;
use crate::emulator::{alone, shared};
use crate::environment::{real_gpu, skip};

/// GPT-2's padded vocabulary.
const VP: usize = 50304;

/// Rows of a table that, with C = 12,288 columns, has more than 2³² bytes and more than 2³¹ elements.
const ROWS: usize = 180_000;
const C: usize = 12_288;

fn numbers(from: usize, len: usize) -> Vec<bf16> {
    (from..from + len).map(|i| bf16::from_f32((i % 61) as f32 - 30.0)).collect()
}

/// An uninitialised tensor; none if a real GPU has too little memory, which the test's log states.
fn huge<E: Element>(cuda: &Cuda, shape: impl Into<Shape>) -> Option<Tensor<Cuda, E>> {
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

/// All rows but the last are ignored and therefore not read.
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

/// The PTX of a file whose kernels exit at once in all blocks but one.
fn only_block(stem: &str, block: usize) -> String {
    let image = IMAGES.iter().find(|image| image.stem == stem).unwrap();
    let exit = format!(
        "\n{{\n.reg .pred %other;\n.reg .b32 %block;\nmov.u32 %block, %ctaid.x;\nsetp.ne.u32 %other, %block, {block};\n\
         @%other exit;\n"
    );
    let entries: Vec<String> =
        image.ptx.split(".visible .entry").map(|entry| entry.replacen("\n{\n", &exit, 1)).collect();
    assert!(entries.len() > 1 && entries[1..].iter().all(|entry| entry.contains(&exit)));
    entries.join(".visible .entry")
}

/// The last of so many sequences that the tensors have more than 2³¹ elements gives the same bits as that sequence alone.
#[test]
fn attention_reaches_the_last_of_many_sequences() {
    const B: usize = (1 << 31) / (T * HS) + 2;
    const T: usize = 128;
    const HS: usize = 64;
    let Some(_alone) = alone() else { return };
    let context = CudaContext::new_non_primary(0, 0).unwrap();
    let cuda = Cuda::with_context(&context).unwrap();
    let (qkv, dout) = (numbers(0, T * 3 * HS), numbers(5, T * HS));
    let [qkv, dout] = [qkv, dout].map(|values| values.iter().map(|x| *x * bf16::from_f32(0.0625)).collect::<Vec<_>>());
    let attend = |b: usize| {
        let mut all_qkv = huge::<bf16>(&cuda, [b, T, 3 * HS]).unwrap();
        let [mut all_dout, mut out] = [(); 2].map(|()| huge::<bf16>(&cuda, [b, T, HS]).unwrap());
        let (mut lse, mut dqkv) =
            (huge::<f32>(&cuda, [b, 1, T]).unwrap(), huge::<bf16>(&cuda, [b, T, 3 * HS]).unwrap());
        cuda.upload(&qkv, all_qkv.at_mut(b - 1)).unwrap();
        cuda.upload(&dout, all_dout.at_mut(b - 1)).unwrap();
        let qkv = || Qkv::Packed { qkv: all_qkv.view(), num_heads: 1 };
        let op = AttentionForward { qkv: qkv(), causal: true, out: out.view_mut(), lse: lse.view_mut() };
        cuda.attention_forward(op).unwrap();
        let (dout, out_view, lse_view) = (all_dout.view(), out.view(), lse.view());
        let dqkv_view = QkvMut::Packed(dqkv.view_mut());
        let op = AttentionBackward { dout, qkv: qkv(), causal: true, out: out_view, lse: lse_view, dqkv: dqkv_view };
        cuda.attention_backward(op).unwrap();
        let (mut last_out, mut last_dqkv) = (vec![bf16::ZERO; T * HS], vec![bf16::ZERO; T * 3 * HS]);
        cuda.download(out.at(b - 1), &mut last_out).unwrap();
        cuda.download(dqkv.at(b - 1), &mut last_dqkv).unwrap();
        (last_out, last_dqkv)
    };
    let alone = attend(1);
    assert!(alone.0.iter().chain(&alone.1).any(|x| *x != bf16::ZERO));
    // One block per head and kernel.
    for stem in ["attention_forward_sm80", "attention_backward_sm80"] {
        cuda.device().replace_kernels(stem, &only_block(stem, B - 1));
    }
    assert!(attend(B) == alone, "the last of {B} sequences, and the same alone");
}

/// Keys with the largest strides, and their gradient, give the same bits as keys without gaps. A head stride of 2³² is
/// rejected.
#[test]
fn attention_reaches_rows_at_the_largest_strides() {
    const DIMS: AttentionDims = AttentionDims { b: 2, t: 127, nh: 2, hs: 16 };
    const STRIDES: HeadStrides = HeadStrides { batch: 1 << 33, token: (1 << 25) - 8, head: (1 << 32) - 8 };
    let AttentionDims { b, t, nh, hs } = DIMS;
    let rows = || (0..b * t * nh).map(|row| (row, [row / nh / t, row / nh % t, row % nh]));
    let start = |[b, i, head]: [usize; 3]| b * STRIDES.batch + i * STRIDES.token + head * STRIDES.head;
    let cuda = shared();
    let tensor = |from| {
        let values = numbers(from, b * t * nh * hs).iter().map(|x| *x * bf16::from_f32(0.0625)).collect();
        Tensor::from_vec(&*cuda, [b, t, nh, hs], values).unwrap()
    };
    let [q, k, v, dout] = [0, 7, 13, 29].map(tensor);
    // Eight more elements, for the head stride of 2^32.
    let memory = start([b - 1, t - 1, nh - 1]) + hs + 8;
    let (Some(mut far_k), Some(mut far_dk)) = (huge::<bf16>(&cuda, [memory]), huge::<bf16>(&cuda, [memory])) else {
        return;
    };
    for ((_, row), values) in rows().zip(k.to_vec(&cuda).unwrap().chunks(hs)) {
        cuda.upload(values, far_k.view_mut().into_part(start(row), [hs])).unwrap();
    }
    let zeros = || Tensor::<Cuda, bf16>::zeros(&*cuda, [b, t, nh, hs]).unwrap();
    let [mut dk, mut dq, mut dv, mut far_dq, mut far_dv] = [(); 5].map(|()| zeros());
    type Bf16 = Tensor<Cuda, bf16>;
    let attend = |layout: HeadsLayout, k: &Bf16, [dq, dk, dv]: [&mut Bf16; 3]| {
        let k = Heads { data: k.view(), layout };
        let qkv = || Qkv::Separate { q: Heads::token_major(q.view()), k, v: Heads::token_major(v.view()) };
        let mut out = Tensor::<Cuda, bf16>::zeros(&*cuda, [b, t, nh * hs]).unwrap();
        let mut lse = Tensor::<Cuda, f32>::zeros(&*cuda, [b, nh, t]).unwrap();
        let op = AttentionForward { qkv: qkv(), causal: false, out: out.view_mut(), lse: lse.view_mut() };
        cuda.attention_forward(op)?;
        let [dq, dv] = [dq, dv].map(|tensor| HeadsMut::token_major(tensor.view_mut()));
        cuda.attention_backward(AttentionBackward {
            dout: dout.view().part(0, [b, t, nh * hs]),
            qkv: qkv(),
            causal: false,
            out: out.view(),
            lse: lse.view(),
            dqkv: QkvMut::Separate { dq, dk: HeadsMut { data: dk.view_mut(), layout }, dv },
        })?;
        out.to_vec(&cuda)
    };
    let want = attend(HeadsLayout::TokenMajor, &k, [&mut dq, &mut dk, &mut dv]).unwrap();
    let layout = HeadsLayout::Strided { dims: DIMS, strides: STRIDES };
    assert!(attend(layout, &far_k, [&mut far_dq, &mut far_dk, &mut far_dv]).unwrap() == want, "out");
    let to_vec = |tensor: &Bf16| tensor.to_vec(&cuda).unwrap();
    assert!(to_vec(&dq) == to_vec(&far_dq) && to_vec(&dv) == to_vec(&far_dv), "dq and dv");
    for ((index, row), want) in rows().zip(to_vec(&dk).chunks(hs)) {
        let mut values = vec![bf16::ZERO; hs];
        cuda.download(far_dk.view().part(start(row), [hs]), &mut values).unwrap();
        assert!(values == want && values.iter().any(|x| *x != bf16::ZERO), "row {index} of dk");
    }

    let layout = HeadsLayout::Strided { dims: DIMS, strides: HeadStrides { head: 1 << 32, ..STRIDES } };
    let message = "attention_forward: head stride of k < 2^32 failed (head stride of k = 4294967296)";
    assert_rejected(attend(layout, &far_k, [&mut far_dq, &mut far_dk, &mut far_dv]), message);
}
