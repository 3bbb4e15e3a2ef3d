//! A GELU-MLP in two launches, `out = gelu(x·Wᵀ + b)·Vᵀ + c`, and the gradient of its input in two more: GELU and its
//! derivative are epilogues of the matmuls.
//!
//! `cargo run --release --example fused_mlp --features cuda`, with `emulated` as an argument if there is no GPU.

use half::bf16;
use ironwarp::cuda::Cuda;
use ironwarp::ops::{Backend, DgradEpilogue, Epilogue, MatmulDgrad, MatmulForward};
use ironwarp::tensor::{Shape, Tensor};

/// Rows, channels, and hidden channels.
const N: usize = 64;
const C: usize = 128;
const H: usize = 4 * C;

fn main() -> ironwarp::Result<()> {
    let gpu = match std::env::args().nth(1).as_deref() {
        Some("emulated") => Cuda::emulated()?,
        _ => Cuda::new(0)?,
    };
    let (x, w, v) = (numbers(&gpu, [N, C], 1.0)?, numbers(&gpu, [H, C], 0.1)?, numbers(&gpu, [C, H], 0.1)?);
    let (b, c) = (numbers(&gpu, [H], 0.1)?, numbers(&gpu, [C], 0.1)?);

    // Forward. The pre-activation is kept for the backward; the activation is its GELU, in the same launch.
    let (mut pre, mut hidden, mut out) = (zeros(&gpu, [N, H])?, zeros(&gpu, [N, H])?, zeros(&gpu, [N, C])?);
    gpu.matmul_forward(MatmulForward {
        x: x.view(),
        weight: w.view(),
        epilogue: Epilogue::BiasGelu { bias: b.view(), pre: pre.view_mut() },
        out: hidden.view_mut(),
    })?;
    gpu.matmul_forward(MatmulForward {
        x: hidden.view(),
        weight: v.view(),
        epilogue: Epilogue::Bias { bias: c.view() },
        out: out.view_mut(),
    })?;

    // Backward of the sum of all outputs, whose gradient is one everywhere.
    let dout = Tensor::from_vec(&gpu, [N, C], vec![bf16::ONE; N * C])?;
    let (mut dpre, mut dx) = (zeros(&gpu, [N, H])?, zeros(&gpu, [N, C])?);
    gpu.matmul_dgrad(MatmulDgrad {
        dout: dout.view(),
        weight: v.view(),
        epilogue: DgradEpilogue::DGelu { pre: pre.view() },
        dx: dpre.view_mut(),
    })?;
    gpu.matmul_dgrad(MatmulDgrad {
        dout: dpre.view(),
        weight: w.view(),
        epilogue: DgradEpilogue::None,
        dx: dx.view_mut(),
    })?;

    // Nothing has waited so far; this does.
    let (out, dx) = (out.to_vec(&gpu)?, dx.to_vec(&gpu)?);
    println!("sum of outputs    {:.2}", out.iter().map(|y| y.to_f32()).sum::<f32>());
    println!("norm of gradient  {:.3}", dx.iter().map(|y| y.to_f32().powi(2)).sum::<f32>().sqrt());
    Ok(())
}

/// Some numbers between -scale and scale.
fn numbers(gpu: &Cuda, shape: impl Into<Shape>, scale: f32) -> ironwarp::Result<Tensor<Cuda, bf16>> {
    let shape = shape.into();
    let data = (0..shape.len()).map(|i| bf16::from_f32(scale * (1.7 * i as f32).sin())).collect();
    Tensor::from_vec(gpu, shape, data)
}

fn zeros(gpu: &Cuda, shape: [usize; 2]) -> ironwarp::Result<Tensor<Cuda, bf16>> {
    Tensor::zeros(gpu, shape)
}
