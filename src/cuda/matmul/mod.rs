//! Matrix products: see [`crate::ops::MatmulForward`] and `kernels/matmul_sm80.cu`.
//!
//! The backend cuts a product as its shape says. Whoever tunes or tests may say how: a [`TileConfig`].

use super::Cuda;
use super::launch::params::{
    MATMUL_BLOCK_K, MATMUL_LARGE_BLOCK_M, MATMUL_LARGE_BLOCK_N, MATMUL_LARGE_THREADS, MATMUL_SMALL_BLOCK_M,
    MATMUL_SMALL_BLOCK_N, MATMUL_SMALL_MIN_BLOCKS, MATMUL_SMALL_THREADS, MATMUL_SPLITK_REDUCE_THREADS, MATMUL_STAGES,
    MatmulDgradParams, MatmulForwardParams, MatmulSplitKReduceParams, MatmulWgradParams,
};
use super::launch::spec::{Grid, Kernel, Spec};
use super::runtime::Operand;
use crate::error::{Error, Result};
use crate::ops::{DgradEpilogue, Epilogue, MatmulDgrad, MatmulDims, MatmulForward, MatmulWgrad, Operation, Write};

/// How a product is cut, where the caller says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TileConfig {
    /// What a block has of the product.
    pub tile: TileSize,
    /// Parts of the sum, at least 1; of the weight gradient alone, and no more than it has stages.
    pub split_k: usize,
}

/// What a block has of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TileSize {
    /// 128 rows of 256 columns.
    Large,
    /// 64 rows of 64 columns.
    Small,
}

/// A tile of a product, and the kernels with a block for each.
struct Tile {
    rows: usize,
    columns: usize,
    forward: Kernel<MatmulForwardParams>,
    dgrad: Kernel<MatmulDgradParams>,
    wgrad: Kernel<MatmulWgradParams>,
    /// Blocks that run at once on 132 multiprocessors, as H100 and H200 have. A number, and not the device's: it decides
    /// the parts of a sum, and so bits.
    wave: usize,
    /// What a stage costs where a wave runs, in units of a 20th of the large tile's. The small one reads twice as much
    /// for its products: 13 where 10 would be in proportion, a guess until a GPU was asked.
    stage_cost: usize,
}

const LARGE_SHARED: u32 = shared(MATMUL_LARGE_BLOCK_M, MATMUL_LARGE_BLOCK_N);
const SMALL_SHARED: u32 = shared(MATMUL_SMALL_BLOCK_M, MATMUL_SMALL_BLOCK_N);

/// Tiles by what they are for: large ones where there is enough to do for all multiprocessors, as shared memory and L2 are
/// read least for what is multiplied; small ones for few rows, or few of everything.
const TILES: [Tile; 2] = [
    Tile {
        rows: MATMUL_LARGE_BLOCK_M as usize,
        columns: MATMUL_LARGE_BLOCK_N as usize,
        forward: large("matmul_forward_128x256x32"),
        dgrad: large("matmul_dgrad_128x256x32"),
        wgrad: large("matmul_wgrad_128x256x32"),
        wave: 132,
        stage_cost: 20,
    },
    Tile {
        rows: MATMUL_SMALL_BLOCK_M as usize,
        columns: MATMUL_SMALL_BLOCK_N as usize,
        forward: small("matmul_forward_64x64x32"),
        dgrad: small("matmul_dgrad_64x64x32"),
        wgrad: small("matmul_wgrad_64x64x32"),
        wave: 132 * MATMUL_SMALL_MIN_BLOCKS as usize,
        stage_cost: 13,
    },
];
const JOIN: Kernel<MatmulSplitKReduceParams> =
    Kernel::new(STEM, "matmul_wgrad_splitk_reduce", MATMUL_SPLITK_REDUCE_THREADS);

pub(super) const KERNELS: &[Spec] = &[
    TILES[0].forward.spec,
    TILES[0].dgrad.spec,
    TILES[0].wgrad.spec,
    TILES[1].forward.spec,
    TILES[1].dgrad.spec,
    TILES[1].wgrad.spec,
    JOIN.spec,
];

const STEM: &str = "matmul_sm80";

const fn shared(rows: u32, columns: u32) -> u32 {
    MATMUL_STAGES * (rows + columns) * MATMUL_BLOCK_K * 2
}

const fn large<P: bytemuck::Pod>(name: &'static str) -> Kernel<P> {
    Kernel::new(STEM, name, MATMUL_LARGE_THREADS).dynamic_shared(LARGE_SHARED)
}

const fn small<P: bytemuck::Pod>(name: &'static str) -> Kernel<P> {
    let kernel = Kernel::new(STEM, name, MATMUL_SMALL_THREADS).dynamic_shared(SMALL_SHARED);
    kernel.min_blocks(MATMUL_SMALL_MIN_BLOCKS)
}

/// The kernels that all products use. This is the one place to choose by architecture, once one has siblings with a table like
/// this: those of sm_80 run on every newer one.
fn tiles() -> &'static [Tile; 2] {
    &TILES
}

/// How a product is cut.
struct Plan {
    tile: &'static Tile,
    tiles_m: usize,
    column_tiles: usize,
    /// Parts of the sum, and terms of each but the last.
    parts: usize,
    part_terms: usize,
}

impl Plan {
    /// As asked, or else the cheapest by what waves of blocks cost: by the shape alone, so that every GPU sums in the same
    /// order.
    fn new(tiles: &'static [Tile; 2], sizes: [usize; 3], most_parts: usize, config: Option<TileConfig>) -> Self {
        let [large, small] = tiles;
        if let Some(TileConfig { tile, split_k: parts }) = config {
            let tile = if tile == TileSize::Large { large } else { small };
            return Plan::of(tile, sizes, parts.clamp(1, most_parts));
        }
        let cost = |plan: &Plan| plan.cost(sizes[0] * sizes[1]);
        let mut best = Plan::of(large, sizes, 1);
        for plan in tiles.iter().flat_map(|tile| (1..=most_parts).map(move |parts| Plan::of(tile, sizes, parts))) {
            if cost(&plan) < cost(&best) {
                best = plan;
            }
        }
        best
    }

    fn of(tile: &'static Tile, [rows, columns, terms]: [usize; 3], parts: usize) -> Self {
        let stages = terms.div_ceil(MATMUL_BLOCK_K as usize);
        let part_stages = stages.div_ceil(parts);
        Plan {
            tile,
            tiles_m: rows.div_ceil(tile.rows),
            column_tiles: columns.div_ceil(tile.columns),
            parts: stages.div_ceil(part_stages),
            part_terms: part_stages * MATMUL_BLOCK_K as usize,
        }
    }

    fn cost(&self, elements: usize) -> usize {
        // Stages that a block's start and end take as long as.
        const AROUND: usize = 8;
        // Bytes to write and read again while the large tile has a stage: 0.45 µs at 620 TFLOP/s, of 4 TB/s.
        const JOINED: usize = 1_800_000;
        const JOIN_COST: usize = 80;
        let waves = (self.tiles_m * self.column_tiles * self.parts).div_ceil(self.tile.wave);
        let stages = self.part_terms / MATMUL_BLOCK_K as usize + AROUND;
        // A second launch, and what it reads.
        let join =
            if self.parts > 1 { JOIN_COST + TILES[0].stage_cost * (8 * self.parts * elements) / JOINED } else { 0 };
        waves * stages * self.tile.stage_cost + join
    }

    fn grid(&self, spec: &Spec) -> Grid {
        Grid::of(self.tiles_m * self.column_tiles).rows(self.parts).shared(spec.dynamic_shared as usize)
    }
}

/// Sizes as kernels take them: 32 bits, with room for a tile more.
fn sizes(operation: &'static str, MatmulDims { n, c, oc }: MatmulDims) -> Result<[u32; 3]> {
    let size = |name: &str, size: usize| match u32::try_from(size) {
        Ok(fits) if fits < 1 << 31 => Ok(fits),
        _ => Err(Error::Precondition { operation, rule: format!("{name} < 2^31"), found: format!("{name} = {size}") }),
    };
    Ok([size("N", n)?, size("C", c)?, size("OC", oc)?])
}

/// [`MatmulForward`], cut as the caller says or as the shape does.
///
/// # Errors
/// A failed check, operands that are not 16-byte aligned, sizes of 2³¹ or more, and the device's own.
pub fn forward(cuda: &Cuda, op: MatmulForward<'_, Cuda>, config: Option<TileConfig>) -> Result<()> {
    const NAME: &str = MatmulForward::<Cuda>::NAME;
    let dims @ MatmulDims { n, c, oc } = op.check()?;
    let [n32, c32, oc32] = sizes(NAME, dims)?;
    let (mut bias, mut residual, mut pre) = (None, None, None);
    match op.epilogue {
        Epilogue::None => {}
        Epilogue::Bias { bias: b } => bias = Some(b),
        Epilogue::BiasGelu { bias: b, pre: p } => (bias, pre) = (Some(b), Some(p)),
        Epilogue::BiasResidual { bias: b, residual: r } => (bias, residual) = (Some(b), Some(r)),
    }
    let plan = Plan::new(tiles(), [n, oc, c], 1, config);
    let params = MatmulForwardParams {
        x: op.x.aligned(NAME, "x")?,
        weight: op.weight.aligned(NAME, "weight")?,
        bias: bias.map_or(Ok(0), |bias| bias.aligned(NAME, "bias"))?,
        residual: residual.map_or(Ok(0), |residual| residual.aligned(NAME, "residual"))?,
        pre: pre.map_or(Ok(0), |pre| pre.aligned(NAME, "pre"))?,
        out: op.out.aligned(NAME, "out")?,
        n: n32,
        c: c32,
        oc: oc32,
        tiles_m: plan.tiles_m as u32,
    };
    let kernel = &plan.tile.forward;
    cuda.device().launch(kernel, plan.grid(&kernel.spec), [("N", n), ("C", c), ("OC", oc)], &params)
}

/// [`MatmulDgrad`], as [`forward`].
///
/// # Errors
/// A failed check, operands that are not 16-byte aligned, sizes of 2³¹ or more, and the device's own.
pub fn dgrad(cuda: &Cuda, op: MatmulDgrad<'_, Cuda>, config: Option<TileConfig>) -> Result<()> {
    const NAME: &str = MatmulDgrad::<Cuda>::NAME;
    let dims @ MatmulDims { n, c, oc } = op.check()?;
    let [n32, c32, oc32] = sizes(NAME, dims)?;
    let plan = Plan::new(tiles(), [n, c, oc], 1, config);
    let params = MatmulDgradParams {
        dout: op.dout.aligned(NAME, "dout")?,
        weight: op.weight.aligned(NAME, "weight")?,
        pre: match op.epilogue {
            DgradEpilogue::None => 0,
            DgradEpilogue::DGelu { pre } => pre.aligned(NAME, "pre")?,
        },
        dx: op.dx.aligned(NAME, "dx")?,
        n: n32,
        c: c32,
        oc: oc32,
        tiles_m: plan.tiles_m as u32,
    };
    let kernel = &plan.tile.dgrad;
    cuda.device().launch(kernel, plan.grid(&kernel.spec), [("N", n), ("C", c), ("OC", oc)], &params)
}

/// Parts of a sum: with more, the partial sums' own traffic outweighs what it gains.
const MOST_PARTS: usize = 16;

fn wgrad_plan(MatmulDims { n, c, oc }: MatmulDims, config: Option<TileConfig>) -> Plan {
    Plan::new(tiles(), [oc, c, n], MOST_PARTS, config)
}

/// Bytes of the partial sums of a plan; 0 for a sum that is in one part.
fn partials_bytes(plan: &Plan, MatmulDims { c, oc, .. }: MatmulDims) -> usize {
    if plan.parts == 1 { 0 } else { plan.parts * (oc * c + oc) * size_of::<f32>() }
}

/// Bytes that [`wgrad`] needs beside its operands.
pub(super) fn wgrad_workspace_bytes(dims: MatmulDims) -> usize {
    partials_bytes(&wgrad_plan(dims, None), dims)
}

/// [`MatmulWgrad`], as [`forward`].
///
/// # Errors
/// A failed check, operands that are not 16-byte aligned, sizes of 2³¹ or more, and the device's own.
pub fn wgrad(cuda: &Cuda, op: MatmulWgrad<'_, Cuda>, config: Option<TileConfig>) -> Result<()> {
    const NAME: &str = MatmulWgrad::<Cuda>::NAME;
    let dims @ MatmulDims { n, c, oc } = op.check()?;
    let [n32, c32, oc32] = sizes(NAME, dims)?;
    let plan = wgrad_plan(dims, config);
    let (weights, accumulate) = (oc * c, u32::from(op.write == Write::Accumulate));
    let dweight = op.dweight.aligned(NAME, "dweight")?;
    let dbias = op.dbias.map_or(Ok(0), |dbias| dbias.aligned(NAME, "dbias"))?;
    let split_stride = weights + oc;
    let whole = plan.parts == 1;
    let workspace = if whole { None } else { Some(cuda.device().workspace(partials_bytes(&plan, dims))?) };
    let partials = workspace.as_ref().map_or(0, |workspace| workspace.address());
    let of_partials = |element: usize| partials + (element * size_of::<f32>()) as u64;
    let params = MatmulWgradParams {
        dout: op.dout.aligned(NAME, "dout")?,
        x: op.x.aligned(NAME, "x")?,
        dweight: if whole { dweight } else { partials },
        dbias: if whole || dbias == 0 { dbias } else { of_partials(weights) },
        split_stride: split_stride as u64,
        n: n32,
        c: c32,
        oc: oc32,
        tiles_m: plan.tiles_m as u32,
        k_per_split: plan.part_terms as u32,
        accumulate: if whole { accumulate } else { 0 },
    };
    let sizes = [("N", n), ("C", c), ("OC", oc)];
    let kernel = &plan.tile.wgrad;
    cuda.device().launch(kernel, plan.grid(&kernel.spec), sizes, &params)?;
    if whole {
        return Ok(());
    }
    let len = if dbias == 0 { weights } else { split_stride };
    let join = MatmulSplitKReduceParams {
        partials,
        dweight,
        dbias,
        dweight_len: weights as u64,
        len: len as u64,
        split_stride: split_stride as u64,
        split_k: plan.parts as u32,
        accumulate,
    };
    cuda.device().launch(&JOIN, Grid::of((len / 4).div_ceil(MATMUL_SPLITK_REDUCE_THREADS as usize)), sizes, &join)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the tile is the large one, and the parts of the sum, for rows and columns of a product and its terms.
    fn cut(sizes: [usize; 3], most_parts: usize) -> (bool, usize) {
        let plan = Plan::new(&TILES, sizes, most_parts, None);
        (plan.tile.rows == TILES[0].rows, plan.parts)
    }

    #[test]
    fn a_products_shape_decides_its_cut() {
        for (sizes, large, why) in [
            ([65536, 2304, 768], true, "GPT-2's QKV"),
            ([65536, 50304, 768], true, "its head"),
            ([1, 2304, 768], false, "decoding"),
            ([1024, 768, 3072], false, "24 large tiles would leave most multiprocessors without"),
            ([4096, 1600, 1600], true, "GPT-2 XL's projection, of few rows"),
        ] {
            assert_eq!(cut(sizes, 1), (large, 1), "{why}");
        }
        for (sizes, parts, why) in [
            ([768, 768, 65536], 7, "18 tiles: 126 blocks"),
            ([2304, 768, 65536], 7, "54 tiles: 378 blocks, 3 waves but 18"),
            ([50304, 768, 65536], 1, "enough without"),
            ([768, 768, 64], 1, "little to sum: a second launch would cost more"),
        ] {
            assert_eq!(cut(sizes, MOST_PARTS).1, parts, "{why}");
        }
    }

    #[test]
    fn parts_cover_all_terms_and_none_is_empty() {
        for (terms, parts) in (1..200).flat_map(|terms| (1..=MOST_PARTS).map(move |parts| (terms, parts))) {
            for tile in &TILES {
                let plan = Plan::of(tile, [64, 64, terms], parts);
                let last = (plan.parts - 1) * plan.part_terms;
                assert!(last < terms && terms <= last + plan.part_terms, "{terms} terms in {parts} parts");
            }
        }
    }
}
