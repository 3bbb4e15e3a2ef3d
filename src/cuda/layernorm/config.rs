//! The choice of layernorm's configuration: shared memory by C, and the number of CTAs.

use half::bf16;

use crate::cuda::launch::params::{
    LAYERNORM_BACKWARD_MAX_BLOCKS, LAYERNORM_BACKWARD_MIN_ROWS_PER_BLOCK, LAYERNORM_FORWARD_MIN_ROWS_PER_BLOCK,
};

/// Largest C for which a CTA of the backward processes several rows at once.
const MAX_MULTI_ROW_C: usize = 2048;

/// Dynamic shared memory of the forward in bytes: weight and bias.
pub(super) const fn forward_shared_bytes(c: usize) -> usize {
    2 * c * size_of::<bf16>()
}

/// Dynamic shared memory of the backward in bytes: the weight, and two sums per column if a CTA processes several rows at
/// once.
pub(super) const fn backward_shared_bytes(c: usize) -> usize {
    let sums = if c <= MAX_MULTI_ROW_C { 2 * c * size_of::<f32>() } else { 0 };
    sums + c * size_of::<bf16>()
}

/// CTAs of the forward for N rows, on a device with `sm_count` SMs that each hold at least `min_blocks` CTAs.
///
/// At most as many as the device holds at once; each processes further rows in a loop. Rows are independent, so that the
/// number of CTAs changes no bit.
pub(super) fn forward_ctas(n: usize, sm_count: usize, min_blocks: u32) -> usize {
    n.div_ceil(LAYERNORM_FORWARD_MIN_ROWS_PER_BLOCK as usize).min(sm_count * min_blocks as usize)
}

/// CTAs of the backward for N rows, each with partial sums of dweight and dbias. N alone decides, as the number decides the
/// order of the sums.
pub(super) fn backward_ctas(n: usize) -> usize {
    n.div_ceil(LAYERNORM_BACKWARD_MIN_ROWS_PER_BLOCK as usize).min(LAYERNORM_BACKWARD_MAX_BLOCKS as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_decide_shared_memory_and_ctas() {
        for (c, forward, backward) in [(768, 3072, 7680), (2048, 8192, 20_480), (2056, 8224, 4112)] {
            assert_eq!((forward_shared_bytes(c), backward_shared_bytes(c)), (forward, backward), "C = {c}");
        }
        for (n, forward, backward) in [(1, 1, 1), (32, 1, 1), (33, 2, 1), (1000, 32, 16), (65_536, 432, 256)] {
            assert_eq!((forward_ctas(n, 108, 4), backward_ctas(n)), (forward, backward), "N = {n}");
        }
    }
}
