//! Calls the attention kernel on memory and a stream that the program already has: nothing is copied and nothing waits.
//!
//! `cargo run --release --example attention --features cuda`, with `emulated` as an argument if there is no GPU.

use cudarc::driver::CudaContext;
use half::bf16;
use ironwarp::cuda::Cuda;
use ironwarp::cuda::runtime::driver;
use ironwarp::ops::{AttentionForward, Backend, Heads, Qkv};
use ironwarp::tensor::{View, ViewMut};

/// Batch size, heads, sequence length and head size.
const SHAPE: [usize; 4] = [2, 4, 96, 64];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if std::env::args().nth(1).as_deref() == Some("emulated") {
        driver::emulate(&driver::find_emulator()?)?;
    }
    driver::require()?;

    // What a program has: a context, a stream, and slices that its own kernels fill.
    let context = CudaContext::new(0)?;
    let stream = context.new_stream()?;
    let [b, nh, t, hs] = SHAPE;
    let numbers = |seed: usize| -> Vec<bf16> {
        (0..b * nh * t * hs).map(|i| bf16::from_f32((1.3 * (i + seed) as f32).sin())).collect()
    };
    let (q, k, v) = (stream.clone_htod(&numbers(1))?, stream.clone_htod(&numbers(2))?, stream.clone_htod(&numbers(3))?);
    let mut out = stream.alloc_zeros::<bf16>(b * t * nh * hs)?;
    let mut lse = stream.alloc_zeros::<f32>(b * nh * t)?;

    // The kernels run in that stream, between the program's own work.
    let gpu = Cuda::with_stream(&stream)?;
    gpu.attention_forward(AttentionForward {
        qkv: Qkv::Separate {
            q: Heads::head_major(View::from_slice(&gpu, &q, SHAPE)?),
            k: Heads::head_major(View::from_slice(&gpu, &k, SHAPE)?),
            v: Heads::head_major(View::from_slice(&gpu, &v, SHAPE)?),
        },
        causal: true,
        out: ViewMut::from_slice(&gpu, &mut out, [b, t, nh * hs])?,
        lse: ViewMut::from_slice(&gpu, &mut lse, [b, nh, t])?,
    })?;

    let (out, v) = (stream.clone_dtoh(&out)?, stream.clone_dtoh(&v)?);
    stream.synchronize()?;
    // The first token sees only itself, so its output is its value.
    println!("first output {} = first value {}", out[0], v[0]);
    println!("last output  {}", out[out.len() - 1]);
    Ok(())
}
