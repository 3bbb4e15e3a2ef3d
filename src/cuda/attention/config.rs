//! The choice of attention's configuration: tiles by head size, and the order of the CTAs.

use crate::cuda::launch::params::{
    ATTENTION_BACKWARD_DQ_MAX_SMALL_HS, ATTENTION_BACKWARD_DQ_SMALL_MIN_BLOCKS, ATTENTION_BACKWARD_MAX_SMALL_HS,
    ATTENTION_BACKWARD_MIN_BLOCKS, ATTENTION_BACKWARD_RESIDENT_ROWS, ATTENTION_BACKWARD_STREAMED_MAX_SMALL_HS,
    ATTENTION_BACKWARD_STREAMED_ROWS, ATTENTION_FORWARD_BLOCK_M, ATTENTION_FORWARD_BLOCK_N,
};
use crate::ops::AttentionDims;

/// Bytes of a bf16.
const BF16: u32 = 2;

/// Dynamic shared memory of the forward in bytes: a tile of Q, and two stages of tiles of K and V.
pub(super) const fn forward_shared_bytes(hs: u32) -> u32 {
    (ATTENTION_FORWARD_BLOCK_M + 4 * ATTENTION_FORWARD_BLOCK_N) * hs * BF16
}

/// A kernel of the backward.
#[derive(Debug, Clone, Copy)]
pub(super) enum Backward {
    /// Computes dQ: Q and dO are resident, K and V are streamed.
    Dq,
    /// Computes dK and dV: K and V are resident, Q and dO are streamed.
    DkDv,
}

impl Backward {
    /// Rows of the resident tile of a CTA.
    pub const fn resident_rows(self, hs: u32) -> u32 {
        match self {
            // Beyond, the accumulators of dK and dV for 32 rows per warp do not fit into registers.
            Backward::DkDv if hs > ATTENTION_BACKWARD_MAX_SMALL_HS => ATTENTION_BACKWARD_RESIDENT_ROWS / 2,
            _ => ATTENTION_BACKWARD_RESIDENT_ROWS,
        }
    }

    /// minBlocks of the kernel.
    pub const fn min_blocks(self, hs: u32) -> u32 {
        match self {
            Backward::Dq if hs <= ATTENTION_BACKWARD_DQ_MAX_SMALL_HS => ATTENTION_BACKWARD_DQ_SMALL_MIN_BLOCKS,
            _ => ATTENTION_BACKWARD_MIN_BLOCKS,
        }
    }

    /// Dynamic shared memory in bytes: two resident tiles, and two stages of two streamed tiles. The dK/dV kernel also
    /// streams two f32 per query.
    pub const fn shared_bytes(self, hs: u32) -> u32 {
        let streamed = if hs > ATTENTION_BACKWARD_STREAMED_MAX_SMALL_HS {
            ATTENTION_BACKWARD_STREAMED_ROWS / 2
        } else {
            ATTENTION_BACKWARD_STREAMED_ROWS
        };
        let stats = match self {
            Backward::Dq => 0,
            Backward::DkDv => 2 * streamed * 2 * size_of::<f32>() as u32,
        };
        (2 * self.resident_rows(hs) + 4 * streamed) * hs * BF16 + stats
    }
}

/// Number of heads whose CTAs run next to each other: the requested one, or as many as fit into L2 together. At least one.
///
/// This is an order of CTAs and changes no result. Two (T, HS) matrices of these heads, such as K and V, take 16 MiB, which
/// is less than half of the L2 of an A100 or newer GPU, so that a CTA finds in L2 what another CTA has read.
pub(super) fn heads_per_group(AttentionDims { b, t, nh, hs }: AttentionDims, requested: Option<usize>) -> usize {
    const BYTES: usize = 16 << 20;
    requested.unwrap_or(BYTES / (t * hs * 2 * BF16 as usize)).clamp(1, b * nh)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_size_decides_tiles_and_shared_memory() {
        for (hs, forward, dq, dkdv) in [
            (16, 12_288, (128, 16_384), (128, 17_408)),
            (48, 36_864, (128, 49_152), (128, 50_176)),
            (64, 49_152, (128, 49_152), (128, 49_664)),
            (80, 61_440, (128, 61_440), (64, 41_472)),
            (128, 98_304, (128, 98_304), (64, 66_048)),
        ] {
            let of = |kernel: Backward| (kernel.resident_rows(hs), kernel.shared_bytes(hs));
            assert_eq!(
                (forward_shared_bytes(hs), of(Backward::Dq), of(Backward::DkDv)),
                (forward, dq, dkdv),
                "HS = {hs}"
            );
        }
    }

    #[test]
    fn grouped_heads_fit_into_l2() {
        let dims = |b, t| AttentionDims { b, t, nh: 12, hs: 64 };
        for (dims, requested, heads, why) in [
            (dims(64, 1024), None, 64, "64 heads of 256 KiB are 16 MiB"),
            (dims(1, 1024), None, 12, "all heads"),
            (dims(1, 1 << 20), None, 1, "one head is larger than 16 MiB"),
            (dims(2, 1024), Some(5), 5, "as requested"),
            (dims(2, 1024), Some(0), 1, "at least one"),
            (dims(2, 1024), Some(100), 24, "there are no more"),
        ] {
            assert_eq!(heads_per_group(dims, requested), heads, "{why}");
        }
    }
}
