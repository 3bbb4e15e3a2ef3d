//! Sampling: see [`crate::ops::Sample`] and `kernels/sampling.cu`.

use super::Cuda;
use super::launch::params::{SAMPLE_MIN_BLOCKS, SAMPLE_SHARED_COLUMNS, SAMPLE_THREADS, SampleParams};
use super::launch::spec::{Grid, Kernel, Spec};
use super::runtime::Operand;
use crate::error::{Error, Result};
use crate::ops::{Operation, Sample, SampleDims};

/// Bytes of a column's key.
const KEY_BYTES: usize = 2;
/// Columns of a vector.
const VECTOR: usize = 8;
/// The most columns: the weights of more might not fit into 64 bits.
const MOST_COLUMNS: usize = 1 << 23;

const SAMPLE: Kernel<SampleParams> = Kernel::new("sampling", "sample", SAMPLE_THREADS)
    .min_blocks(SAMPLE_MIN_BLOCKS)
    .dynamic_shared(KEY_BYTES as u32 * SAMPLE_SHARED_COLUMNS);

pub(super) const KERNELS: &[Spec] = &[SAMPLE.spec];

/// What a half of a difference of logits is multiplied by to be an exponent of 2. A temperature that is next to 0 leaves
/// what equals the largest, as it should: 0 times the largest f32 is 0.
fn rate(temperature: f32) -> f32 {
    if temperature == 0.0 {
        return 0.0;
    }
    (2.0 * std::f64::consts::LOG2_E / f64::from(temperature)).min(f32::MAX.into()) as f32
}

pub(super) fn sample(cuda: &Cuda, op: Sample<'_, Cuda>) -> Result<()> {
    const NAME: &str = Sample::<Cuda>::NAME;
    let SampleDims { b, v, vp } = op.check()?;
    if v > MOST_COLUMNS {
        return Err(Error::Precondition { operation: NAME, rule: "V <= 8388608".into(), found: format!("V = {v}") });
    }
    let held = v <= SAMPLE_SHARED_COLUMNS as usize;
    let bytes = KEY_BYTES * v.next_multiple_of(VECTOR);
    let workspace = if held { None } else { Some(cuda.device().workspace(b * bytes)?) };
    let params = SampleParams {
        logits: op.logits.aligned(NAME, "logits")?,
        tokens: op.tokens.address(),
        keys: workspace.as_ref().map_or(0, |workspace| workspace.address()),
        vp: vp as u64,
        seed: op.seed,
        draw: op.draw,
        v: v as u32,
        top_k: op.top_k.min(v) as u32,
        top_p: op.top_p,
        logit_scale: rate(op.temperature),
    };
    let grid = Grid::of(b).shared(if held { bytes } else { 0 });
    cuda.device().launch(&SAMPLE, grid, [("B", b), ("V", v), ("Vp", vp)], &params)
}
