//! Sampling: see [`crate::ops::Sample`] and `kernels/sampling.cu`.

use super::launch::device_ptr::DevPtr;
use super::launch::params::{SAMPLE_MIN_BLOCKS, SAMPLE_SHARED_COLUMNS, SAMPLE_THREADS, SampleParams};
use super::launch::spec::{Grid, Kernel, Spec};
use super::runtime::{Cuda, Operand};
use crate::error::{Error, Result};
use crate::ops::{Operation, Sample, SampleDims};

/// Bytes of a sort key; every column has one.
const KEY_BYTES: usize = 2;
/// Columns per vector access.
const VECTOR: usize = 8;
/// Maximum number of columns: the sum of more weights might overflow 64 bits.
const MAX_COLUMNS: usize = 1 << 23;

const SAMPLE: Kernel<SampleParams> = Kernel::new("sampling", "sample", SAMPLE_THREADS)
    .min_blocks(SAMPLE_MIN_BLOCKS)
    .dynamic_shared(KEY_BYTES as u32 * SAMPLE_SHARED_COLUMNS);

pub(super) const KERNELS: &[Spec] = &[SAMPLE.spec];

/// The factor that turns half a difference of logits into an exponent of 2: 2·log2(e) / temperature, at most the largest
/// f32. Near temperature 0 only logits equal to the largest keep a weight, as they should: 0 times the largest f32 is 0.
fn logit_scale(temperature: f32) -> f32 {
    if temperature == 0.0 {
        return 0.0;
    }
    (2.0 * std::f64::consts::LOG2_E / f64::from(temperature)).min(f32::MAX.into()) as f32
}

pub(super) fn sample(cuda: &Cuda, op: Sample<'_, Cuda>) -> Result<()> {
    const NAME: &str = Sample::<Cuda>::NAME;
    let SampleDims { b, v, vp } = op.check()?;
    if v > MAX_COLUMNS {
        return Err(Error::Precondition { operation: NAME, rule: "V <= 8388608".into(), found: format!("V = {v}") });
    }
    let fits_shared = v <= SAMPLE_SHARED_COLUMNS as usize;
    let row_bytes = KEY_BYTES * v.next_multiple_of(VECTOR);
    let workspace = if fits_shared { None } else { Some(cuda.device().workspace(b * row_bytes)?) };
    let params = SampleParams {
        logits: op.logits.aligned(NAME, "logits")?,
        tokens: op.tokens.ptr(),
        keys: workspace.as_ref().map_or(DevPtr::NULL, |workspace| workspace.ptr()),
        vp: vp as u64,
        seed: op.seed,
        draw: op.draw,
        v: v as u32,
        top_k: op.top_k.min(v) as u32,
        top_p: op.top_p,
        logit_scale: logit_scale(op.temperature),
    };
    let grid = Grid::of(b).shared(if fits_shared { row_bytes } else { 0 });
    cuda.device().launch(&SAMPLE, grid, [("B", b), ("V", v), ("Vp", vp)], &params)
}
