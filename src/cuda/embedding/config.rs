//! The choice of embedding's configuration: grids, sorting passes and the layout of the workspace.

use crate::cuda::launch::params::{
    EMBEDDING_SORT_RADIX_BITS, EMBEDDING_SORT_TILE, EMBEDDING_SUM_BLOCK_PAIRS, EMBEDDING_SUM_THREADS,
};

/// Threads that occupy any GPU. With more sequences a thread of the forward processes several, and reads wpe once for them.
const TARGET_THREADS: usize = 1 << 17;
/// Sequences that a thread of the forward has in flight at once.
const ROWS_IN_FLIGHT: usize = 4;
/// Largest grid size along y.
const MAX_GRID_Y: usize = 65_535;
/// Fewest sequences per warp for which it is faster that several warps share a position.
const MIN_SEQUENCES_PER_WARP: usize = 16;

/// CTAs of the forward along y, over which the B sequences are distributed; `vectors` is T·C/8.
pub(super) fn forward_rows(b: usize, vectors: usize) -> usize {
    (TARGET_THREADS / vectors).clamp(1, b.div_ceil(ROWS_IN_FLIGHT).min(MAX_GRID_Y))
}

/// log2 of the warps of a CTA that share the B sequences of a position in the sums of dwpe.
pub(super) fn warps_per_position_log2(b: usize) -> u32 {
    (b / MIN_SEQUENCES_PER_WARP).max(1).ilog2().min((EMBEDDING_SUM_THREADS / 32).ilog2())
}

/// CTAs of the sums of dwpe for a number of positions.
pub(super) fn position_ctas(positions: usize, warps_per_position_log2: u32) -> usize {
    positions.div_ceil(((EMBEDDING_SUM_THREADS / 32) >> warps_per_position_log2) as usize)
}

/// How the backward sorts the N ids, and the layout of its workspace, in bytes from its start. The (id, position) pairs are
/// at offset 0, in two halves that the passes of the radix sort read and write alternately.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sort {
    /// Passes of the radix sort.
    pub passes: u32,
    /// Tiles of pairs, each sorted by a CTA.
    pub tiles: usize,
    /// CTAs that sum rows of sorted pairs.
    pub pair_ctas: usize,
    /// Offset of the half that the last pass writes.
    pub sorted: usize,
    /// Offset of the histograms of all passes and tiles.
    pub histograms: usize,
    /// Offset of each CTA's sums for the run of equal ids that began in an earlier CTA.
    pub carries: usize,
    /// Size of the workspace.
    pub bytes: usize,
}

impl Sort {
    pub fn new(n: usize, c: usize, vp: u32) -> Self {
        // Keys are the ids 0..Vp, and Vp for an invalid id.
        let passes = (u32::BITS - vp.leading_zeros()).div_ceil(EMBEDDING_SORT_RADIX_BITS).max(1);
        let tiles = n.div_ceil(EMBEDDING_SORT_TILE as usize);
        let pair_ctas = n.div_ceil(EMBEDDING_SUM_BLOCK_PAIRS as usize);
        let mut bytes = 0;
        let mut reserve = |size: usize| {
            let offset = bytes;
            bytes += size.next_multiple_of(16);
            offset
        };
        let half = n * size_of::<[u32; 2]>();
        reserve(2 * half);
        // A single tile is sorted by one CTA, which needs no histogram in memory.
        let histogram_bytes =
            if tiles > 1 { (passes as usize * tiles * size_of::<u32>()) << EMBEDDING_SORT_RADIX_BITS } else { 0 };
        let (histograms, carries) = (reserve(histogram_bytes), reserve(pair_ctas * c * size_of::<f32>()));
        let sorted = if passes.is_multiple_of(2) { half } else { 0 };
        Sort { passes, tiles, pair_ctas, sorted, histograms, carries, bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_decide_the_grids() {
        for (b, vectors, rows, why) in [
            (64, 1024 * 96, 1, "one sequence occupies the GPU"),
            (64, 8 * 96, 16, "four sequences in flight per thread"),
            (64, 128 * 96, 10, "as many threads as occupy the GPU"),
            (1, 96, 1, "decoding"),
        ] {
            assert_eq!(forward_rows(b, vectors), rows, "{why}");
        }
        for (b, log2, ctas) in [(1, 0, 128), (31, 0, 128), (32, 1, 256), (64, 2, 512), (128, 3, 1024), (4096, 3, 1024)]
        {
            assert_eq!((warps_per_position_log2(b), position_ctas(1024, log2)), (log2, ctas), "B = {b}");
        }
    }

    #[test]
    fn the_vocabulary_decides_the_passes() {
        for (vp, passes) in [(1, 1), (255, 1), (256, 2), (50_304, 2), (65_536, 3), (1 << 31, 4)] {
            assert_eq!(Sort::new(64, 8, vp).passes, passes, "Vp = {vp}");
        }
        let gpt2 = Sort {
            passes: 2,
            tiles: 16,
            pair_ctas: 512,
            sorted: 524_288,
            histograms: 1_048_576,
            carries: 1_081_344,
            bytes: 2_654_208,
        };
        assert_eq!(Sort::new(65_536, 768, 50_304), gpt2);
        let one_tile = Sort::new(64, 8, 50_304);
        assert_eq!((one_tile.tiles, one_tile.pair_ctas, one_tile.carries - one_tile.histograms), (1, 1, 0));
    }
}
