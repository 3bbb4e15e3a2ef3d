//! The choice of a matmul's configuration: tile and split-K by a cost model.

use crate::cuda::launch::params::{
    MATMUL_BLOCK_K, MATMUL_LARGE_BLOCK_M, MATMUL_LARGE_BLOCK_N, MATMUL_SMALL_BLOCK_M, MATMUL_SMALL_BLOCK_N,
    MATMUL_SMALL_MIN_BLOCKS,
};

/// A configuration that a caller requests instead of the one that the cost model chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TileConfig {
    /// Output tile of a CTA.
    pub tile: TileSize,
    /// Number of splits of K, at least 1. Only the weight gradient splits K, into at most as many splits as K has stages of
    /// BLOCK_K.
    pub split_k: usize,
}

/// BLOCK_M × BLOCK_N × BLOCK_K of a CTA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TileSize {
    /// 128 × 256 × 32.
    Large,
    /// 64 × 64 × 32.
    Small,
}

/// The sizes of a matrix product: (M, K) · (K, N).
#[derive(Debug, Clone, Copy)]
pub(super) struct Gemm {
    pub m: usize,
    pub n: usize,
    pub k: usize,
}

/// K of a pipeline stage.
const BLOCK_K: usize = MATMUL_BLOCK_K as usize;
/// Largest number of splits of K that is considered: with more, the traffic of the partial sums outweighs the gain.
pub(super) const MAX_SPLIT_K: usize = 16;

/// SMs that the cost model assumes, those of an H100 or H200. It is a constant rather than the device's SM count because the
/// choice decides split_k, and with it the order of a sum and its low bits: every GPU must make the same choice.
const SM_COUNT: usize = 132;

// The unit of all costs below is a twentieth of the time that a CTA of the large tile takes for one stage of BLOCK_K.

/// What the prologue and the epilogue of a CTA cost, in stages.
const PROLOGUE_EPILOGUE_STAGES: usize = 8;
/// What launching the reduction of the splits costs, in units.
const REDUCE_LAUNCH_COST: usize = 80;
/// Bytes that each partial sum moves: an f32 is written by the matmul and read by the reduction.
const BYTES_PER_PARTIAL: usize = 8;
/// Bytes that device memory moves during a stage of the large tile: 4 TB/s for 0.45 µs, the time of a stage at 620 TFLOP/s.
const BYTES_PER_LARGE_STAGE: usize = 1_800_000;

/// An output tile and what it costs.
#[derive(Debug)]
struct Tile {
    size: TileSize,
    block_m: usize,
    block_n: usize,
    /// CTAs that [`SM_COUNT`] SMs execute at once: a wave.
    ctas_per_wave: usize,
    /// Cost of a stage of BLOCK_K while a whole wave runs, in units.
    stage_cost: usize,
}

/// The large tile reads the least shared memory and L2 per FLOP; it is for products with enough tiles for all SMs.
const LARGE: Tile = Tile {
    size: TileSize::Large,
    block_m: MATMUL_LARGE_BLOCK_M as usize,
    block_n: MATMUL_LARGE_BLOCK_N as usize,
    ctas_per_wave: SM_COUNT,
    stage_cost: 20,
};

/// The small tile is for few rows, or small products. In proportion to its FLOPs a wave's stage would cost 10; it is assumed
/// to cost 13 because it reads twice as many bytes per FLOP. That is an estimate, not a measurement.
const SMALL: Tile = Tile {
    size: TileSize::Small,
    block_m: MATMUL_SMALL_BLOCK_M as usize,
    block_n: MATMUL_SMALL_BLOCK_N as usize,
    ctas_per_wave: SM_COUNT * MATMUL_SMALL_MIN_BLOCKS as usize,
    stage_cost: 13,
};

/// How a matrix product is launched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Config {
    pub tile: TileSize,
    pub tiles_m: usize,
    pub tiles_n: usize,
    pub split_k: usize,
    /// K of each split, a multiple of BLOCK_K; the last split may have less.
    pub k_per_split: usize,
}

impl Config {
    /// The requested configuration, or else the one with the lowest cost. The shape alone decides, so that every GPU sums
    /// in the same order.
    pub fn new(gemm: Gemm, max_split_k: usize, requested: Option<TileConfig>) -> Self {
        if let Some(TileConfig { tile, split_k }) = requested {
            let tile = if tile == TileSize::Large { &LARGE } else { &SMALL };
            return Config::of(tile, gemm, split_k.clamp(1, max_split_k));
        }
        let (mut best, mut best_cost) = (Config::of(&LARGE, gemm, 1), usize::MAX);
        for (tile, split_k) in [&LARGE, &SMALL].into_iter().flat_map(|tile| (1..=max_split_k).map(move |s| (tile, s))) {
            let config = Config::of(tile, gemm, split_k);
            let cost = config.cost(tile, gemm);
            if cost < best_cost {
                (best, best_cost) = (config, cost);
            }
        }
        best
    }

    /// A product with at most `split_k` splits, all but the last of equal size and none empty.
    fn of(tile: &Tile, Gemm { m, n, k }: Gemm, split_k: usize) -> Self {
        let stages = k.div_ceil(BLOCK_K);
        let stages_per_split = stages.div_ceil(split_k);
        Config {
            tile: tile.size,
            tiles_m: m.div_ceil(tile.block_m),
            tiles_n: n.div_ceil(tile.block_n),
            split_k: stages.div_ceil(stages_per_split),
            k_per_split: stages_per_split * BLOCK_K,
        }
    }

    /// Estimated execution time in units: waves of CTAs, and the reduction of the splits.
    fn cost(&self, tile: &Tile, Gemm { m, n, .. }: Gemm) -> usize {
        let waves = (self.tiles_m * self.tiles_n * self.split_k).div_ceil(tile.ctas_per_wave);
        let stages = self.k_per_split / BLOCK_K + PROLOGUE_EPILOGUE_STAGES;
        let reduce = if self.split_k == 1 {
            0
        } else {
            let bytes = BYTES_PER_PARTIAL * self.split_k * m * n;
            REDUCE_LAUNCH_COST + LARGE.stage_cost * bytes / BYTES_PER_LARGE_STAGE
        };
        waves * stages * tile.stage_cost + reduce
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config([m, n, k]: [usize; 3], max_split_k: usize) -> (TileSize, usize) {
        let config = Config::new(Gemm { m, n, k }, max_split_k, None);
        (config.tile, config.split_k)
    }

    #[test]
    fn the_shape_decides_tile_and_split_k() {
        for (sizes, tile, why) in [
            ([65536, 2304, 768], TileSize::Large, "GPT-2's QKV projection"),
            ([65536, 50304, 768], TileSize::Large, "GPT-2's head"),
            ([1, 2304, 768], TileSize::Small, "decoding"),
            ([1024, 768, 3072], TileSize::Small, "24 large tiles would leave most SMs idle"),
            ([4096, 1600, 1600], TileSize::Large, "GPT-2 XL's projection with few rows"),
        ] {
            assert_eq!(config(sizes, 1), (tile, 1), "{why}");
        }
        for (sizes, split_k, why) in [
            ([768, 768, 65536], 7, "18 tiles: 126 CTAs"),
            ([2304, 768, 65536], 7, "54 tiles: 378 CTAs in 3 waves, which take the time of 18 stages less"),
            ([50304, 768, 65536], 1, "enough tiles without a split"),
            ([768, 768, 64], 1, "K is small: a second launch would cost more than it saves"),
        ] {
            assert_eq!(config(sizes, MAX_SPLIT_K).1, split_k, "{why}");
        }
    }

    #[test]
    fn splits_cover_k_and_none_is_empty() {
        for (k, split_k) in (1..200).flat_map(|k| (1..=MAX_SPLIT_K).map(move |split_k| (k, split_k))) {
            for tile in [&LARGE, &SMALL] {
                let config = Config::of(tile, Gemm { m: 64, n: 64, k }, split_k);
                let last = (config.split_k - 1) * config.k_per_split;
                assert!(last < k && k <= last + config.k_per_split, "K = {k} in {split_k} splits");
            }
        }
    }
}
