//! Parameters and constants of launches: `kernels/params.h` by way of bindgen. Not to be edited;
//! `make params` makes it.

/// Threads of a block of `embedding_forward`: a 16-byte vector of one position each.
pub const EMBEDDING_FORWARD_THREADS: u32 = 256;
/// Parameters of `embedding_forward`. Sequences are dealt to the grid's y in turn.
#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub struct EmbeddingForwardParams {
    /// (B, T) ids.
    pub tokens: u64,
    /// (Vp, C) bf16.
    pub wte: u64,
    /// (T, C) bf16: from the row of the first token's position on.
    pub wpe: u64,
    /// (B, T, C) bf16 `=`.
    pub out: u64,
    /// Sequences.
    pub b: u32,
    /// Tokens a sequence; T·C/8 < 2^32.
    pub t: u32,
    /// Channels, a multiple of 8.
    pub c: u32,
    /// Rows of `wte`, at most 2^31.
    pub vp: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    [
        "Size of EmbeddingForwardParams",
    ][::std::mem::size_of::<EmbeddingForwardParams>() - 48usize];
    [
        "Alignment of EmbeddingForwardParams",
    ][::std::mem::align_of::<EmbeddingForwardParams>() - 8usize];
    [
        "Offset of field: EmbeddingForwardParams::tokens",
    ][::std::mem::offset_of!(EmbeddingForwardParams, tokens) - 0usize];
    [
        "Offset of field: EmbeddingForwardParams::wte",
    ][::std::mem::offset_of!(EmbeddingForwardParams, wte) - 8usize];
    [
        "Offset of field: EmbeddingForwardParams::wpe",
    ][::std::mem::offset_of!(EmbeddingForwardParams, wpe) - 16usize];
    [
        "Offset of field: EmbeddingForwardParams::out",
    ][::std::mem::offset_of!(EmbeddingForwardParams, out) - 24usize];
    [
        "Offset of field: EmbeddingForwardParams::b",
    ][::std::mem::offset_of!(EmbeddingForwardParams, b) - 32usize];
    [
        "Offset of field: EmbeddingForwardParams::t",
    ][::std::mem::offset_of!(EmbeddingForwardParams, t) - 36usize];
    [
        "Offset of field: EmbeddingForwardParams::c",
    ][::std::mem::offset_of!(EmbeddingForwardParams, c) - 40usize];
    [
        "Offset of field: EmbeddingForwardParams::vp",
    ][::std::mem::offset_of!(EmbeddingForwardParams, vp) - 44usize];
};
/// Threads of a block of `embedding_backward_count` and `embedding_backward_sort`.
pub const EMBEDDING_SORT_THREADS: u32 = 512;
/// Keys that such a block sorts.
pub const EMBEDDING_SORT_TILE: u32 = 4096;
/// Bits of a key that a pass sorts by.
pub const EMBEDDING_SORT_BITS: u32 = 8;
/// Parameters of `embedding_backward_count` and `embedding_backward_sort`; the grid is a block a tile.
#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub struct EmbeddingSortParams {
    /// (N) ids.
    pub tokens: u64,
    /// (2, N) (key, position): a pass writes the half of its parity and reads the other.
    pub pairs: u64,
    /// (passes, tiles, 256) keys of each digit in each tile. Not used where there is one tile.
    pub counts: u64,
    /// N = B·T.
    pub n: u32,
    /// Key of the ids that are not in 0..Vp; at most 2^31.
    pub vp: u32,
    /// Bytes that Vp takes.
    pub passes: u32,
    /// The pass of this launch. One tile goes through this and all later passes.
    pub pass: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    [
        "Size of EmbeddingSortParams",
    ][::std::mem::size_of::<EmbeddingSortParams>() - 40usize];
    [
        "Alignment of EmbeddingSortParams",
    ][::std::mem::align_of::<EmbeddingSortParams>() - 8usize];
    [
        "Offset of field: EmbeddingSortParams::tokens",
    ][::std::mem::offset_of!(EmbeddingSortParams, tokens) - 0usize];
    [
        "Offset of field: EmbeddingSortParams::pairs",
    ][::std::mem::offset_of!(EmbeddingSortParams, pairs) - 8usize];
    [
        "Offset of field: EmbeddingSortParams::counts",
    ][::std::mem::offset_of!(EmbeddingSortParams, counts) - 16usize];
    [
        "Offset of field: EmbeddingSortParams::n",
    ][::std::mem::offset_of!(EmbeddingSortParams, n) - 24usize];
    [
        "Offset of field: EmbeddingSortParams::vp",
    ][::std::mem::offset_of!(EmbeddingSortParams, vp) - 28usize];
    [
        "Offset of field: EmbeddingSortParams::passes",
    ][::std::mem::offset_of!(EmbeddingSortParams, passes) - 32usize];
    [
        "Offset of field: EmbeddingSortParams::pass",
    ][::std::mem::offset_of!(EmbeddingSortParams, pass) - 36usize];
};
/// Threads of a block of `embedding_backward_sum` and `embedding_backward_join`.
pub const EMBEDDING_SUM_THREADS: u32 = 256;
/// Blocks of `embedding_backward_sum` that a multiprocessor must have room for.
pub const EMBEDDING_SUM_MIN_BLOCKS: u32 = 4;
/// Columns of a block of either: the grid's y has ceil(C / this) slices.
pub const EMBEDDING_SUM_COLUMNS: u32 = 128;
/// Sorted places of a block of `embedding_backward_sum`.
pub const EMBEDDING_SUM_PLACES: u32 = 128;
/// Parameters of `embedding_backward_sum` and `embedding_backward_join`.
#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub struct EmbeddingSumParams {
    /// (N) (key, position), sorted.
    pub pairs: u64,
    /// (N, C) bf16.
    pub dout: u64,
    /// (Vp, C) f32 `+=`.
    pub dwte: u64,
    /// (T_max, C) f32.
    pub dwpe: u64,
    /// (ceil(N / 128), C) f32: of each block the sum of what belongs to a run that began before it.
    pub heads: u64,
    /// Sequences.
    pub b: u32,
    /// Tokens a sequence.
    pub t: u32,
    /// Channels, a multiple of 8.
    pub c: u32,
    /// Rows of `dwte`; keys from here on are no ids.
    pub vp: u32,
    /// Rows of `dwpe` to write: T, or T_max when overwriting.
    pub positions: u32,
    /// 2^this warps of a block share each position's sequences; at most 3.
    pub split_log2: u32,
    /// Whether `dwpe` is added to rather than replaced.
    pub accumulate: u32,
    /// Blocks in a slice that sum positions; those that sum places come behind.
    pub position_blocks: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    [
        "Size of EmbeddingSumParams",
    ][::std::mem::size_of::<EmbeddingSumParams>() - 72usize];
    [
        "Alignment of EmbeddingSumParams",
    ][::std::mem::align_of::<EmbeddingSumParams>() - 8usize];
    [
        "Offset of field: EmbeddingSumParams::pairs",
    ][::std::mem::offset_of!(EmbeddingSumParams, pairs) - 0usize];
    [
        "Offset of field: EmbeddingSumParams::dout",
    ][::std::mem::offset_of!(EmbeddingSumParams, dout) - 8usize];
    [
        "Offset of field: EmbeddingSumParams::dwte",
    ][::std::mem::offset_of!(EmbeddingSumParams, dwte) - 16usize];
    [
        "Offset of field: EmbeddingSumParams::dwpe",
    ][::std::mem::offset_of!(EmbeddingSumParams, dwpe) - 24usize];
    [
        "Offset of field: EmbeddingSumParams::heads",
    ][::std::mem::offset_of!(EmbeddingSumParams, heads) - 32usize];
    [
        "Offset of field: EmbeddingSumParams::b",
    ][::std::mem::offset_of!(EmbeddingSumParams, b) - 40usize];
    [
        "Offset of field: EmbeddingSumParams::t",
    ][::std::mem::offset_of!(EmbeddingSumParams, t) - 44usize];
    [
        "Offset of field: EmbeddingSumParams::c",
    ][::std::mem::offset_of!(EmbeddingSumParams, c) - 48usize];
    [
        "Offset of field: EmbeddingSumParams::vp",
    ][::std::mem::offset_of!(EmbeddingSumParams, vp) - 52usize];
    [
        "Offset of field: EmbeddingSumParams::positions",
    ][::std::mem::offset_of!(EmbeddingSumParams, positions) - 56usize];
    [
        "Offset of field: EmbeddingSumParams::split_log2",
    ][::std::mem::offset_of!(EmbeddingSumParams, split_log2) - 60usize];
    [
        "Offset of field: EmbeddingSumParams::accumulate",
    ][::std::mem::offset_of!(EmbeddingSumParams, accumulate) - 64usize];
    [
        "Offset of field: EmbeddingSumParams::position_blocks",
    ][::std::mem::offset_of!(EmbeddingSumParams, position_blocks) - 68usize];
};
/// Threads of a block of every layernorm kernel.
pub const LAYERNORM_THREADS: u32 = 256;
/// Blocks of the forward that a multiprocessor holds at least: 64 registers a thread.
pub const LAYERNORM_FORWARD_MIN_BLOCKS: u32 = 4;
/// As `LAYERNORM_FORWARD_MIN_BLOCKS`, where a thread has 8 vectors of a row: 128 registers.
pub const LAYERNORM_FORWARD_C2048_MIN_BLOCKS: u32 = 2;
/// As `LAYERNORM_FORWARD_MIN_BLOCKS`, where a thread has 6 vectors of x and of the residual: 80 registers.
pub const LAYERNORM_RESIDUAL_C12288_MIN_BLOCKS: u32 = 3;
/** Rows that a block of a layernorm kernel takes before there are more blocks: fewer would read the weights, or write
 partial sums, too often.*/
pub const LAYERNORM_FORWARD_BLOCK_ROWS: u32 = 32;
/// As `LAYERNORM_FORWARD_BLOCK_ROWS`, for the backward.
pub const LAYERNORM_BACKWARD_BLOCK_ROWS: u32 = 64;
/// The most blocks of the backward, on every GPU: the number decides the order of sums.
pub const LAYERNORM_BACKWARD_MOST_BLOCKS: u32 = 256;
/// Columns of 4 that a block of `layernorm_backward_join` adds up.
pub const LAYERNORM_JOIN_COLUMNS: u32 = 32;
/// The largest C.
pub const LAYERNORM_MOST_CHANNELS: u32 = 12288;
/// Parameters of `layernorm_forward` and `residual_layernorm_forward`.
#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub struct LayernormForwardParams {
    /// (N, C) bf16.
    pub x: u64,
    /// (N, C) bf16, or null.
    pub residual: u64,
    /// (C) bf16.
    pub weight: u64,
    /// (C) bf16.
    pub bias: u64,
    /// (N, C) bf16 `=`, or null.
    pub sum: u64,
    /// (N, C) bf16 `=`.
    pub out: u64,
    /// (N) f32 `=`.
    pub mean: u64,
    /// (N) f32 `=`.
    pub rstd: u64,
    /// N.
    pub n: u64,
    /// C.
    pub c: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    [
        "Size of LayernormForwardParams",
    ][::std::mem::size_of::<LayernormForwardParams>() - 80usize];
    [
        "Alignment of LayernormForwardParams",
    ][::std::mem::align_of::<LayernormForwardParams>() - 8usize];
    [
        "Offset of field: LayernormForwardParams::x",
    ][::std::mem::offset_of!(LayernormForwardParams, x) - 0usize];
    [
        "Offset of field: LayernormForwardParams::residual",
    ][::std::mem::offset_of!(LayernormForwardParams, residual) - 8usize];
    [
        "Offset of field: LayernormForwardParams::weight",
    ][::std::mem::offset_of!(LayernormForwardParams, weight) - 16usize];
    [
        "Offset of field: LayernormForwardParams::bias",
    ][::std::mem::offset_of!(LayernormForwardParams, bias) - 24usize];
    [
        "Offset of field: LayernormForwardParams::sum",
    ][::std::mem::offset_of!(LayernormForwardParams, sum) - 32usize];
    [
        "Offset of field: LayernormForwardParams::out",
    ][::std::mem::offset_of!(LayernormForwardParams, out) - 40usize];
    [
        "Offset of field: LayernormForwardParams::mean",
    ][::std::mem::offset_of!(LayernormForwardParams, mean) - 48usize];
    [
        "Offset of field: LayernormForwardParams::rstd",
    ][::std::mem::offset_of!(LayernormForwardParams, rstd) - 56usize];
    [
        "Offset of field: LayernormForwardParams::n",
    ][::std::mem::offset_of!(LayernormForwardParams, n) - 64usize];
    [
        "Offset of field: LayernormForwardParams::c",
    ][::std::mem::offset_of!(LayernormForwardParams, c) - 72usize];
};
/// Parameters of `layernorm_backward` and `layernorm_backward_join`.
#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub struct LayernormBackwardParams {
    /// (N, C) bf16.
    pub dout: u64,
    /// (N, C) bf16.
    pub x: u64,
    /// (C) bf16.
    pub weight: u64,
    /// (N) f32.
    pub mean: u64,
    /// (N) f32.
    pub rstd: u64,
    /// (N, C) bf16.
    pub dx: u64,
    /// (C) f32.
    pub dweight: u64,
    /// (C) f32.
    pub dbias: u64,
    /// (blocks, 4, C/8) of 4 f32: the halves of dweight's vectors, then of dbias's.
    pub partials: u64,
    /// N.
    pub n: u64,
    /// C.
    pub c: u32,
    /// Blocks of `layernorm_backward`.
    pub blocks: u32,
    /// Whether dx is added to.
    pub accumulate_dx: u32,
    /// Whether dweight and dbias are added to.
    pub accumulate: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    [
        "Size of LayernormBackwardParams",
    ][::std::mem::size_of::<LayernormBackwardParams>() - 96usize];
    [
        "Alignment of LayernormBackwardParams",
    ][::std::mem::align_of::<LayernormBackwardParams>() - 8usize];
    [
        "Offset of field: LayernormBackwardParams::dout",
    ][::std::mem::offset_of!(LayernormBackwardParams, dout) - 0usize];
    [
        "Offset of field: LayernormBackwardParams::x",
    ][::std::mem::offset_of!(LayernormBackwardParams, x) - 8usize];
    [
        "Offset of field: LayernormBackwardParams::weight",
    ][::std::mem::offset_of!(LayernormBackwardParams, weight) - 16usize];
    [
        "Offset of field: LayernormBackwardParams::mean",
    ][::std::mem::offset_of!(LayernormBackwardParams, mean) - 24usize];
    [
        "Offset of field: LayernormBackwardParams::rstd",
    ][::std::mem::offset_of!(LayernormBackwardParams, rstd) - 32usize];
    [
        "Offset of field: LayernormBackwardParams::dx",
    ][::std::mem::offset_of!(LayernormBackwardParams, dx) - 40usize];
    [
        "Offset of field: LayernormBackwardParams::dweight",
    ][::std::mem::offset_of!(LayernormBackwardParams, dweight) - 48usize];
    [
        "Offset of field: LayernormBackwardParams::dbias",
    ][::std::mem::offset_of!(LayernormBackwardParams, dbias) - 56usize];
    [
        "Offset of field: LayernormBackwardParams::partials",
    ][::std::mem::offset_of!(LayernormBackwardParams, partials) - 64usize];
    [
        "Offset of field: LayernormBackwardParams::n",
    ][::std::mem::offset_of!(LayernormBackwardParams, n) - 72usize];
    [
        "Offset of field: LayernormBackwardParams::c",
    ][::std::mem::offset_of!(LayernormBackwardParams, c) - 80usize];
    [
        "Offset of field: LayernormBackwardParams::blocks",
    ][::std::mem::offset_of!(LayernormBackwardParams, blocks) - 84usize];
    [
        "Offset of field: LayernormBackwardParams::accumulate_dx",
    ][::std::mem::offset_of!(LayernormBackwardParams, accumulate_dx) - 88usize];
    [
        "Offset of field: LayernormBackwardParams::accumulate",
    ][::std::mem::offset_of!(LayernormBackwardParams, accumulate) - 92usize];
};
/// Rows of the product that a block of `matmul_*_128x256` has.
pub const MATMUL_LARGE_ROWS: u32 = 128;
/// Columns of the product that a block of `matmul_*_128x256` has.
pub const MATMUL_LARGE_COLUMNS: u32 = 256;
/// Threads of a block of `matmul_*_128x256`: 8 warps, (64, 64) of the product each.
pub const MATMUL_LARGE_THREADS: u32 = 256;
/// Rows of the product that a block of `matmul_*_64x64` has.
pub const MATMUL_SMALL_ROWS: u32 = 64;
/// Columns of the product that a block of `matmul_*_64x64` has.
pub const MATMUL_SMALL_COLUMNS: u32 = 64;
/// Threads of a block of `matmul_*_64x64`: 4 warps, (32, 32) of the product each.
pub const MATMUL_SMALL_THREADS: u32 = 128;
/// Blocks of `matmul_*_64x64` that a multiprocessor must have room for: 128 registers a thread.
pub const MATMUL_SMALL_MIN_BLOCKS: u32 = 4;
/// Terms of the sums that a stage holds.
pub const MATMUL_STAGE_TERMS: u32 = 32;
/// Stages in shared memory: one multiplied, the others on their way.
pub const MATMUL_STAGES: u32 = 4;
/// Parameters of `matmul_forward_*`. The grid is a block a tile.
#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub struct MatmulForwardParams {
    /// (N, C) bf16.
    pub x: u64,
    /// (OC, C) bf16.
    pub weight: u64,
    /// (OC) bf16, or null.
    pub bias: u64,
    /// (N, OC) bf16, or null.
    pub residual: u64,
    /// (N, OC) bf16 `=`, or null where no GELU follows.
    pub pre: u64,
    /// (N, OC) bf16 `=`.
    pub out: u64,
    /// N.
    pub n: u32,
    /// C, a multiple of 8.
    pub c: u32,
    /// OC, a multiple of 8.
    pub oc: u32,
    /// Tiles along N.
    pub row_tiles: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    [
        "Size of MatmulForwardParams",
    ][::std::mem::size_of::<MatmulForwardParams>() - 64usize];
    [
        "Alignment of MatmulForwardParams",
    ][::std::mem::align_of::<MatmulForwardParams>() - 8usize];
    [
        "Offset of field: MatmulForwardParams::x",
    ][::std::mem::offset_of!(MatmulForwardParams, x) - 0usize];
    [
        "Offset of field: MatmulForwardParams::weight",
    ][::std::mem::offset_of!(MatmulForwardParams, weight) - 8usize];
    [
        "Offset of field: MatmulForwardParams::bias",
    ][::std::mem::offset_of!(MatmulForwardParams, bias) - 16usize];
    [
        "Offset of field: MatmulForwardParams::residual",
    ][::std::mem::offset_of!(MatmulForwardParams, residual) - 24usize];
    [
        "Offset of field: MatmulForwardParams::pre",
    ][::std::mem::offset_of!(MatmulForwardParams, pre) - 32usize];
    [
        "Offset of field: MatmulForwardParams::out",
    ][::std::mem::offset_of!(MatmulForwardParams, out) - 40usize];
    [
        "Offset of field: MatmulForwardParams::n",
    ][::std::mem::offset_of!(MatmulForwardParams, n) - 48usize];
    [
        "Offset of field: MatmulForwardParams::c",
    ][::std::mem::offset_of!(MatmulForwardParams, c) - 52usize];
    [
        "Offset of field: MatmulForwardParams::oc",
    ][::std::mem::offset_of!(MatmulForwardParams, oc) - 56usize];
    [
        "Offset of field: MatmulForwardParams::row_tiles",
    ][::std::mem::offset_of!(MatmulForwardParams, row_tiles) - 60usize];
};
/// Parameters of `matmul_dgrad_*`. The grid is a block a tile.
#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub struct MatmulDgradParams {
    /// (N, OC) bf16.
    pub dout: u64,
    /// (OC, C) bf16.
    pub weight: u64,
    /// (N, C) bf16, or null where the input was no GELU's.
    pub pre: u64,
    /// (N, C) bf16 `=`.
    pub dx: u64,
    /// N.
    pub n: u32,
    /// C, a multiple of 8.
    pub c: u32,
    /// OC, a multiple of 8.
    pub oc: u32,
    /// Tiles along N.
    pub row_tiles: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of MatmulDgradParams"][::std::mem::size_of::<MatmulDgradParams>() - 48usize];
    [
        "Alignment of MatmulDgradParams",
    ][::std::mem::align_of::<MatmulDgradParams>() - 8usize];
    [
        "Offset of field: MatmulDgradParams::dout",
    ][::std::mem::offset_of!(MatmulDgradParams, dout) - 0usize];
    [
        "Offset of field: MatmulDgradParams::weight",
    ][::std::mem::offset_of!(MatmulDgradParams, weight) - 8usize];
    [
        "Offset of field: MatmulDgradParams::pre",
    ][::std::mem::offset_of!(MatmulDgradParams, pre) - 16usize];
    [
        "Offset of field: MatmulDgradParams::dx",
    ][::std::mem::offset_of!(MatmulDgradParams, dx) - 24usize];
    [
        "Offset of field: MatmulDgradParams::n",
    ][::std::mem::offset_of!(MatmulDgradParams, n) - 32usize];
    [
        "Offset of field: MatmulDgradParams::c",
    ][::std::mem::offset_of!(MatmulDgradParams, c) - 36usize];
    [
        "Offset of field: MatmulDgradParams::oc",
    ][::std::mem::offset_of!(MatmulDgradParams, oc) - 40usize];
    [
        "Offset of field: MatmulDgradParams::row_tiles",
    ][::std::mem::offset_of!(MatmulDgradParams, row_tiles) - 44usize];
};
/// Parameters of `matmul_wgrad_*`. The grid's x is a block a tile, its y a part of the N rows.
#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub struct MatmulWgradParams {
    /// (N, OC) bf16.
    pub dout: u64,
    /// (N, C) bf16.
    pub x: u64,
    /// (OC, C) f32; of part p at p · `part_stride`.
    pub dweight: u64,
    /// (OC) f32, or null; of part p at p · `part_stride`.
    pub dbias: u64,
    /// Elements between the sums of two parts.
    pub part_stride: u64,
    /// N.
    pub n: u32,
    /// C, a multiple of 8.
    pub c: u32,
    /// OC, a multiple of 8.
    pub oc: u32,
    /// Tiles along OC.
    pub row_tiles: u32,
    /// Rows of a part, a multiple of a stage's terms; the last may have fewer.
    pub part_rows: u32,
    /// Whether dweight and dbias are added to.
    pub accumulate: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of MatmulWgradParams"][::std::mem::size_of::<MatmulWgradParams>() - 64usize];
    [
        "Alignment of MatmulWgradParams",
    ][::std::mem::align_of::<MatmulWgradParams>() - 8usize];
    [
        "Offset of field: MatmulWgradParams::dout",
    ][::std::mem::offset_of!(MatmulWgradParams, dout) - 0usize];
    [
        "Offset of field: MatmulWgradParams::x",
    ][::std::mem::offset_of!(MatmulWgradParams, x) - 8usize];
    [
        "Offset of field: MatmulWgradParams::dweight",
    ][::std::mem::offset_of!(MatmulWgradParams, dweight) - 16usize];
    [
        "Offset of field: MatmulWgradParams::dbias",
    ][::std::mem::offset_of!(MatmulWgradParams, dbias) - 24usize];
    [
        "Offset of field: MatmulWgradParams::part_stride",
    ][::std::mem::offset_of!(MatmulWgradParams, part_stride) - 32usize];
    [
        "Offset of field: MatmulWgradParams::n",
    ][::std::mem::offset_of!(MatmulWgradParams, n) - 40usize];
    [
        "Offset of field: MatmulWgradParams::c",
    ][::std::mem::offset_of!(MatmulWgradParams, c) - 44usize];
    [
        "Offset of field: MatmulWgradParams::oc",
    ][::std::mem::offset_of!(MatmulWgradParams, oc) - 48usize];
    [
        "Offset of field: MatmulWgradParams::row_tiles",
    ][::std::mem::offset_of!(MatmulWgradParams, row_tiles) - 52usize];
    [
        "Offset of field: MatmulWgradParams::part_rows",
    ][::std::mem::offset_of!(MatmulWgradParams, part_rows) - 56usize];
    [
        "Offset of field: MatmulWgradParams::accumulate",
    ][::std::mem::offset_of!(MatmulWgradParams, accumulate) - 60usize];
};
/// Threads of a block of `matmul_wgrad_join`.
pub const MATMUL_JOIN_THREADS: u32 = 256;
/// Parameters of `matmul_wgrad_join`; a thread is 4 elements.
#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub struct MatmulJoinParams {
    /// (parts, OC·C + OC) f32: sums of dweight, then of dbias.
    pub partials: u64,
    /// (OC·C) f32.
    pub dweight: u64,
    /// (OC) f32, or null.
    pub dbias: u64,
    /// OC·C.
    pub weights: u64,
    /// OC·C, and OC with it where there is a dbias.
    pub len: u64,
    /// Elements between two parts.
    pub part_stride: u64,
    /// Parts.
    pub parts: u32,
    /// Whether dweight and dbias are added to.
    pub accumulate: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of MatmulJoinParams"][::std::mem::size_of::<MatmulJoinParams>() - 56usize];
    [
        "Alignment of MatmulJoinParams",
    ][::std::mem::align_of::<MatmulJoinParams>() - 8usize];
    [
        "Offset of field: MatmulJoinParams::partials",
    ][::std::mem::offset_of!(MatmulJoinParams, partials) - 0usize];
    [
        "Offset of field: MatmulJoinParams::dweight",
    ][::std::mem::offset_of!(MatmulJoinParams, dweight) - 8usize];
    [
        "Offset of field: MatmulJoinParams::dbias",
    ][::std::mem::offset_of!(MatmulJoinParams, dbias) - 16usize];
    [
        "Offset of field: MatmulJoinParams::weights",
    ][::std::mem::offset_of!(MatmulJoinParams, weights) - 24usize];
    [
        "Offset of field: MatmulJoinParams::len",
    ][::std::mem::offset_of!(MatmulJoinParams, len) - 32usize];
    [
        "Offset of field: MatmulJoinParams::part_stride",
    ][::std::mem::offset_of!(MatmulJoinParams, part_stride) - 40usize];
    [
        "Offset of field: MatmulJoinParams::parts",
    ][::std::mem::offset_of!(MatmulJoinParams, parts) - 48usize];
    [
        "Offset of field: MatmulJoinParams::accumulate",
    ][::std::mem::offset_of!(MatmulJoinParams, accumulate) - 52usize];
};
/// Threads of a block of `gelu_forward`.
pub const GELU_FORWARD_THREADS: u32 = 256;
/// Elements that a block of `gelu_forward` covers: a 16-byte vector a thread.
pub const GELU_FORWARD_BLOCK: u32 = 2048;
/// Parameters of `gelu_forward`.
#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub struct GeluForwardParams {
    /// (N, C) bf16.
    pub x: u64,
    /// (N, C) bf16 `=`.
    pub out: u64,
    /// N·C, a multiple of 8.
    pub len: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of GeluForwardParams"][::std::mem::size_of::<GeluForwardParams>() - 24usize];
    [
        "Alignment of GeluForwardParams",
    ][::std::mem::align_of::<GeluForwardParams>() - 8usize];
    [
        "Offset of field: GeluForwardParams::x",
    ][::std::mem::offset_of!(GeluForwardParams, x) - 0usize];
    [
        "Offset of field: GeluForwardParams::out",
    ][::std::mem::offset_of!(GeluForwardParams, out) - 8usize];
    [
        "Offset of field: GeluForwardParams::len",
    ][::std::mem::offset_of!(GeluForwardParams, len) - 16usize];
};
/// Threads of a block of the cross-entropy kernels.
pub const CROSS_ENTROPY_THREADS: u32 = 256;
/// Vectors of 8 columns that a thread loads together.
pub const CROSS_ENTROPY_GROUP: u32 = 5;
/// Rows of a block of `cross_entropy_forward_warp` and `cross_entropy_backward_warp`.
pub const CROSS_ENTROPY_WARP_ROWS: u32 = 8;
/// Most vectors of a row, of those wholly inside of V, for a warp.
pub const CROSS_ENTROPY_WARP_VECTORS: u32 = 320;
/// The same for `cross_entropy_backward_20k`.
pub const CROSS_ENTROPY_20K_VECTORS: u32 = 2560;
/// The same for `cross_entropy_backward_51k`.
pub const CROSS_ENTROPY_51K_VECTORS: u32 = 6400;
/// Blocks of `cross_entropy_backward_51k` that a multiprocessor has room for: half of its registers each.
pub const CROSS_ENTROPY_51K_BLOCKS: u32 = 2;
/// The same for the other cross-entropy kernels.
pub const CROSS_ENTROPY_SHARED_BLOCKS: u32 = 4;
/// Parameters of `cross_entropy_forward_*`.
#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub struct CrossEntropyForwardParams {
    /// (N, Vp) bf16.
    pub logits: u64,
    /// (N).
    pub targets: u64,
    /// (N) `=`.
    pub losses: u64,
    /// N.
    pub n: u64,
    /// V, from 1 to Vp.
    pub v: u32,
    /// Vp, a multiple of 8 below 2^31.
    pub vp: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    [
        "Size of CrossEntropyForwardParams",
    ][::std::mem::size_of::<CrossEntropyForwardParams>() - 40usize];
    [
        "Alignment of CrossEntropyForwardParams",
    ][::std::mem::align_of::<CrossEntropyForwardParams>() - 8usize];
    [
        "Offset of field: CrossEntropyForwardParams::logits",
    ][::std::mem::offset_of!(CrossEntropyForwardParams, logits) - 0usize];
    [
        "Offset of field: CrossEntropyForwardParams::targets",
    ][::std::mem::offset_of!(CrossEntropyForwardParams, targets) - 8usize];
    [
        "Offset of field: CrossEntropyForwardParams::losses",
    ][::std::mem::offset_of!(CrossEntropyForwardParams, losses) - 16usize];
    [
        "Offset of field: CrossEntropyForwardParams::n",
    ][::std::mem::offset_of!(CrossEntropyForwardParams, n) - 24usize];
    [
        "Offset of field: CrossEntropyForwardParams::v",
    ][::std::mem::offset_of!(CrossEntropyForwardParams, v) - 32usize];
    [
        "Offset of field: CrossEntropyForwardParams::vp",
    ][::std::mem::offset_of!(CrossEntropyForwardParams, vp) - 36usize];
};
/// Parameters of `cross_entropy_backward_*`.
#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub struct CrossEntropyBackwardParams {
    /// (N, Vp) bf16, logits in and gradient out.
    pub logits: u64,
    /// (N).
    pub targets: u64,
    /// (N) `=`.
    pub losses: u64,
    /// N.
    pub n: u64,
    /// Vp, a multiple of 8 below 2^31.
    pub vp: u64,
    /// V, from 1 to Vp.
    pub v: u32,
    /// What the gradient is multiplied by.
    pub scale: f32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    [
        "Size of CrossEntropyBackwardParams",
    ][::std::mem::size_of::<CrossEntropyBackwardParams>() - 48usize];
    [
        "Alignment of CrossEntropyBackwardParams",
    ][::std::mem::align_of::<CrossEntropyBackwardParams>() - 8usize];
    [
        "Offset of field: CrossEntropyBackwardParams::logits",
    ][::std::mem::offset_of!(CrossEntropyBackwardParams, logits) - 0usize];
    [
        "Offset of field: CrossEntropyBackwardParams::targets",
    ][::std::mem::offset_of!(CrossEntropyBackwardParams, targets) - 8usize];
    [
        "Offset of field: CrossEntropyBackwardParams::losses",
    ][::std::mem::offset_of!(CrossEntropyBackwardParams, losses) - 16usize];
    [
        "Offset of field: CrossEntropyBackwardParams::n",
    ][::std::mem::offset_of!(CrossEntropyBackwardParams, n) - 24usize];
    [
        "Offset of field: CrossEntropyBackwardParams::vp",
    ][::std::mem::offset_of!(CrossEntropyBackwardParams, vp) - 32usize];
    [
        "Offset of field: CrossEntropyBackwardParams::v",
    ][::std::mem::offset_of!(CrossEntropyBackwardParams, v) - 40usize];
    [
        "Offset of field: CrossEntropyBackwardParams::scale",
    ][::std::mem::offset_of!(CrossEntropyBackwardParams, scale) - 44usize];
};
/// Threads of the one block of `loss_sum`.
pub const LOSS_SUM_THREADS: u32 = 1024;
/// Parameters of `loss_sum`.
#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub struct LossSumParams {
    /// (N), aligned to 4 bytes.
    pub losses: u64,
    /// (1) as `accumulate` says.
    pub total: u64,
    /// N.
    pub n: u64,
    /// What the sum is multiplied by.
    pub scale: f32,
    /// 1 to add to what is there, 0 to overwrite it.
    pub accumulate: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of LossSumParams"][::std::mem::size_of::<LossSumParams>() - 32usize];
    ["Alignment of LossSumParams"][::std::mem::align_of::<LossSumParams>() - 8usize];
    [
        "Offset of field: LossSumParams::losses",
    ][::std::mem::offset_of!(LossSumParams, losses) - 0usize];
    [
        "Offset of field: LossSumParams::total",
    ][::std::mem::offset_of!(LossSumParams, total) - 8usize];
    [
        "Offset of field: LossSumParams::n",
    ][::std::mem::offset_of!(LossSumParams, n) - 16usize];
    [
        "Offset of field: LossSumParams::scale",
    ][::std::mem::offset_of!(LossSumParams, scale) - 24usize];
    [
        "Offset of field: LossSumParams::accumulate",
    ][::std::mem::offset_of!(LossSumParams, accumulate) - 28usize];
};
/// Threads of a block of `grad_norm_partials` and of `grad_norm_total`.
pub const GRAD_NORM_THREADS: u32 = 256;
/// Elements that a block of `grad_norm_partials` takes at a time: four 16-byte vectors a thread.
pub const GRAD_NORM_TILE: u32 = 4096;
/** Most blocks of `grad_norm_partials`. Constant, as the order of the sum depends on it: two waves of 132
 multiprocessors with eight blocks each.*/
pub const GRAD_NORM_MAX_BLOCKS: u32 = 2048;
/// Parameters of `grad_norm_partials`.
#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub struct GradNormPartialsParams {
    /// (P) f32.
    pub grad: u64,
    /// (blocks of the grid) f32 `=`.
    pub partials: u64,
    /// P, a multiple of 4.
    pub len: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    [
        "Size of GradNormPartialsParams",
    ][::std::mem::size_of::<GradNormPartialsParams>() - 24usize];
    [
        "Alignment of GradNormPartialsParams",
    ][::std::mem::align_of::<GradNormPartialsParams>() - 8usize];
    [
        "Offset of field: GradNormPartialsParams::grad",
    ][::std::mem::offset_of!(GradNormPartialsParams, grad) - 0usize];
    [
        "Offset of field: GradNormPartialsParams::partials",
    ][::std::mem::offset_of!(GradNormPartialsParams, partials) - 8usize];
    [
        "Offset of field: GradNormPartialsParams::len",
    ][::std::mem::offset_of!(GradNormPartialsParams, len) - 16usize];
};
/// Parameters of `grad_norm_total`.
#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub struct GradNormTotalParams {
    /// (num_partials) f32.
    pub partials: u64,
    /// (1) f32 `=`.
    pub norm: u64,
    /// Blocks of `grad_norm_partials`, at most `GRAD_NORM_MAX_BLOCKS`.
    pub num_partials: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    [
        "Size of GradNormTotalParams",
    ][::std::mem::size_of::<GradNormTotalParams>() - 24usize];
    [
        "Alignment of GradNormTotalParams",
    ][::std::mem::align_of::<GradNormTotalParams>() - 8usize];
    [
        "Offset of field: GradNormTotalParams::partials",
    ][::std::mem::offset_of!(GradNormTotalParams, partials) - 0usize];
    [
        "Offset of field: GradNormTotalParams::norm",
    ][::std::mem::offset_of!(GradNormTotalParams, norm) - 8usize];
    [
        "Offset of field: GradNormTotalParams::num_partials",
    ][::std::mem::offset_of!(GradNormTotalParams, num_partials) - 16usize];
};
/// Threads of a block of `adamw`.
pub const ADAMW_THREADS: u32 = 256;
/// Parameters that a block of `adamw` updates: four a thread.
pub const ADAMW_BLOCK: u32 = 1024;
/// Parameters of `adamw`.
#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub struct AdamWParams {
    /// (P) bf16 `=`.
    pub weight: u64,
    /// (P) f32, in place.
    pub master: u64,
    /// (P) f32.
    pub grad: u64,
    /// (P) f32, in place.
    pub m: u64,
    /// (P) f32, in place.
    pub v: u64,
    /// (1) f32.
    pub norm: u64,
    /// (1) f32.
    pub loss: u64,
    /// P, a multiple of 4.
    pub len: u64,
    /// Key of the draws.
    pub seed: u64,
    /// Counter of the draws.
    pub step: u64,
    /// Index of the first draw, a multiple of 4.
    pub first_index: u64,
    /// Of this step.
    pub learning_rate: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Multiplied by the learning rate.
    pub weight_decay: f32,
    /// `1 - beta1^step`, which cancels unless it is computed in f64.
    pub correction1: f32,
    /// `1 - beta2^step`.
    pub correction2: f32,
    /// Gradients are scaled down to this norm.
    pub max_norm: f32,
    /// No update when the norm is above it.
    pub norm_limit: f32,
    /// No update when the loss is above it.
    pub loss_limit: f32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of AdamWParams"][::std::mem::size_of::<AdamWParams>() - 128usize];
    ["Alignment of AdamWParams"][::std::mem::align_of::<AdamWParams>() - 8usize];
    [
        "Offset of field: AdamWParams::weight",
    ][::std::mem::offset_of!(AdamWParams, weight) - 0usize];
    [
        "Offset of field: AdamWParams::master",
    ][::std::mem::offset_of!(AdamWParams, master) - 8usize];
    [
        "Offset of field: AdamWParams::grad",
    ][::std::mem::offset_of!(AdamWParams, grad) - 16usize];
    [
        "Offset of field: AdamWParams::m",
    ][::std::mem::offset_of!(AdamWParams, m) - 24usize];
    [
        "Offset of field: AdamWParams::v",
    ][::std::mem::offset_of!(AdamWParams, v) - 32usize];
    [
        "Offset of field: AdamWParams::norm",
    ][::std::mem::offset_of!(AdamWParams, norm) - 40usize];
    [
        "Offset of field: AdamWParams::loss",
    ][::std::mem::offset_of!(AdamWParams, loss) - 48usize];
    [
        "Offset of field: AdamWParams::len",
    ][::std::mem::offset_of!(AdamWParams, len) - 56usize];
    [
        "Offset of field: AdamWParams::seed",
    ][::std::mem::offset_of!(AdamWParams, seed) - 64usize];
    [
        "Offset of field: AdamWParams::step",
    ][::std::mem::offset_of!(AdamWParams, step) - 72usize];
    [
        "Offset of field: AdamWParams::first_index",
    ][::std::mem::offset_of!(AdamWParams, first_index) - 80usize];
    [
        "Offset of field: AdamWParams::learning_rate",
    ][::std::mem::offset_of!(AdamWParams, learning_rate) - 88usize];
    [
        "Offset of field: AdamWParams::beta1",
    ][::std::mem::offset_of!(AdamWParams, beta1) - 92usize];
    [
        "Offset of field: AdamWParams::beta2",
    ][::std::mem::offset_of!(AdamWParams, beta2) - 96usize];
    [
        "Offset of field: AdamWParams::eps",
    ][::std::mem::offset_of!(AdamWParams, eps) - 100usize];
    [
        "Offset of field: AdamWParams::weight_decay",
    ][::std::mem::offset_of!(AdamWParams, weight_decay) - 104usize];
    [
        "Offset of field: AdamWParams::correction1",
    ][::std::mem::offset_of!(AdamWParams, correction1) - 108usize];
    [
        "Offset of field: AdamWParams::correction2",
    ][::std::mem::offset_of!(AdamWParams, correction2) - 112usize];
    [
        "Offset of field: AdamWParams::max_norm",
    ][::std::mem::offset_of!(AdamWParams, max_norm) - 116usize];
    [
        "Offset of field: AdamWParams::norm_limit",
    ][::std::mem::offset_of!(AdamWParams, norm_limit) - 120usize];
    [
        "Offset of field: AdamWParams::loss_limit",
    ][::std::mem::offset_of!(AdamWParams, loss_limit) - 124usize];
};
/// Threads of a block of `attention_forward`.
pub const ATTENTION_FORWARD_THREADS: u32 = 128;
/// Queries of a block of `attention_forward`, 32 a warp.
pub const ATTENTION_FORWARD_QUERIES: u32 = 128;
/// Keys that `attention_forward` has in each of two stages of shared memory.
pub const ATTENTION_FORWARD_KEYS: u32 = 64;
/// Blocks of `attention_forward` that a multiprocessor has registers for.
pub const ATTENTION_FORWARD_MIN_BLOCKS: u32 = 2;
/// Parameters of `attention_forward`.
#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub struct AttentionForwardParams {
    /// (B, T, 3C) bf16.
    pub qkv: u64,
    /// (B, T, C) bf16 `=`.
    pub out: u64,
    /// (B, NH, T) f32 `=`.
    pub lse: u64,
    /// T, less than 2^31.
    pub t: u32,
    /// NH.
    pub nh: u32,
    /// B·NH.
    pub heads: u32,
    /// Blocks that a head's queries take.
    pub tiles: u32,
    /// Heads whose blocks run together.
    pub group: u32,
    /// log2(e) / sqrt(HS).
    pub scale: f32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    [
        "Size of AttentionForwardParams",
    ][::std::mem::size_of::<AttentionForwardParams>() - 48usize];
    [
        "Alignment of AttentionForwardParams",
    ][::std::mem::align_of::<AttentionForwardParams>() - 8usize];
    [
        "Offset of field: AttentionForwardParams::qkv",
    ][::std::mem::offset_of!(AttentionForwardParams, qkv) - 0usize];
    [
        "Offset of field: AttentionForwardParams::out",
    ][::std::mem::offset_of!(AttentionForwardParams, out) - 8usize];
    [
        "Offset of field: AttentionForwardParams::lse",
    ][::std::mem::offset_of!(AttentionForwardParams, lse) - 16usize];
    [
        "Offset of field: AttentionForwardParams::t",
    ][::std::mem::offset_of!(AttentionForwardParams, t) - 24usize];
    [
        "Offset of field: AttentionForwardParams::nh",
    ][::std::mem::offset_of!(AttentionForwardParams, nh) - 28usize];
    [
        "Offset of field: AttentionForwardParams::heads",
    ][::std::mem::offset_of!(AttentionForwardParams, heads) - 32usize];
    [
        "Offset of field: AttentionForwardParams::tiles",
    ][::std::mem::offset_of!(AttentionForwardParams, tiles) - 36usize];
    [
        "Offset of field: AttentionForwardParams::group",
    ][::std::mem::offset_of!(AttentionForwardParams, group) - 40usize];
    [
        "Offset of field: AttentionForwardParams::scale",
    ][::std::mem::offset_of!(AttentionForwardParams, scale) - 44usize];
};
/// Threads of a block of `attention_backward_*`.
pub const ATTENTION_BACKWARD_THREADS: u32 = 128;
/// Blocks of `attention_backward_*` that a multiprocessor has registers for.
pub const ATTENTION_BACKWARD_MIN_BLOCKS: u32 = 2;
/** The largest head size at which a warp of `attention_backward_keys_*` has 32 keys and all kernels take 64 rows at a time;
 beyond, it has 16 and they take 32.*/
pub const ATTENTION_BACKWARD_NARROW: u32 = 64;
/** Queries of a block of `attention_backward_queries_*`, 32 a warp, and keys of one of `attention_backward_keys_*` where it
 is narrow; beyond, it has half as many.*/
pub const ATTENTION_BACKWARD_ROWS: u32 = 128;
/// Rows of the other side in each of two stages of shared memory; beyond the narrow ones half as many.
pub const ATTENTION_BACKWARD_TILE: u32 = 64;
/// Parameters of `attention_backward_*`.
#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub struct AttentionBackwardParams {
    /// (B, T, C) bf16.
    pub dout: u64,
    /// (B, T, 3C) bf16.
    pub qkv: u64,
    /// (B, T, C) bf16.
    pub out: u64,
    /// (B, NH, T) f32.
    pub lse: u64,
    /// (B, T, 3C) bf16 `=`: dq by the queries' kernel, dk and dv by the keys'.
    pub dqkv: u64,
    /// (2, B, NH, T) f32: -lse·log2(e), then -delta, which the queries' kernel writes and the keys' reads.
    pub statistics: u64,
    /// T, less than 2^31.
    pub t: u32,
    /// NH.
    pub nh: u32,
    /// B·NH.
    pub heads: u32,
    /// Blocks that a head's queries take.
    pub query_tiles: u32,
    /// Blocks that a head's keys take.
    pub key_tiles: u32,
    /// Heads whose blocks run together.
    pub group: u32,
    /// 1 / sqrt(HS).
    pub scale: f32,
    /// log2(e) / sqrt(HS).
    pub log2_scale: f32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    [
        "Size of AttentionBackwardParams",
    ][::std::mem::size_of::<AttentionBackwardParams>() - 80usize];
    [
        "Alignment of AttentionBackwardParams",
    ][::std::mem::align_of::<AttentionBackwardParams>() - 8usize];
    [
        "Offset of field: AttentionBackwardParams::dout",
    ][::std::mem::offset_of!(AttentionBackwardParams, dout) - 0usize];
    [
        "Offset of field: AttentionBackwardParams::qkv",
    ][::std::mem::offset_of!(AttentionBackwardParams, qkv) - 8usize];
    [
        "Offset of field: AttentionBackwardParams::out",
    ][::std::mem::offset_of!(AttentionBackwardParams, out) - 16usize];
    [
        "Offset of field: AttentionBackwardParams::lse",
    ][::std::mem::offset_of!(AttentionBackwardParams, lse) - 24usize];
    [
        "Offset of field: AttentionBackwardParams::dqkv",
    ][::std::mem::offset_of!(AttentionBackwardParams, dqkv) - 32usize];
    [
        "Offset of field: AttentionBackwardParams::statistics",
    ][::std::mem::offset_of!(AttentionBackwardParams, statistics) - 40usize];
    [
        "Offset of field: AttentionBackwardParams::t",
    ][::std::mem::offset_of!(AttentionBackwardParams, t) - 48usize];
    [
        "Offset of field: AttentionBackwardParams::nh",
    ][::std::mem::offset_of!(AttentionBackwardParams, nh) - 52usize];
    [
        "Offset of field: AttentionBackwardParams::heads",
    ][::std::mem::offset_of!(AttentionBackwardParams, heads) - 56usize];
    [
        "Offset of field: AttentionBackwardParams::query_tiles",
    ][::std::mem::offset_of!(AttentionBackwardParams, query_tiles) - 60usize];
    [
        "Offset of field: AttentionBackwardParams::key_tiles",
    ][::std::mem::offset_of!(AttentionBackwardParams, key_tiles) - 64usize];
    [
        "Offset of field: AttentionBackwardParams::group",
    ][::std::mem::offset_of!(AttentionBackwardParams, group) - 68usize];
    [
        "Offset of field: AttentionBackwardParams::scale",
    ][::std::mem::offset_of!(AttentionBackwardParams, scale) - 72usize];
    [
        "Offset of field: AttentionBackwardParams::log2_scale",
    ][::std::mem::offset_of!(AttentionBackwardParams, log2_scale) - 76usize];
};
/// Threads of a block of `kv_cache_store`: a 16-byte vector of k and one of v each.
pub const KV_CACHE_STORE_THREADS: u32 = 256;
/// Parameters of `kv_cache_store`.
#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub struct KvCacheStoreParams {
    /// (B, T, 3C) bf16.
    pub qkv: u64,
    /// (B, T_max, C) bf16, rows `position..position+T` `=`.
    pub k_cache: u64,
    /// (B, T_max, C) bf16, rows `position..position+T` `=`.
    pub v_cache: u64,
    /// Positions that a sequence's cache has room for.
    pub max_t: u64,
    /// Of the first token.
    pub position: u64,
    /// Vectors of k: B·T·C/8, below 2^32.
    pub len: u64,
    /// Tokens a sequence.
    pub t: u32,
    /// Channels, a multiple of 8.
    pub c: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    [
        "Size of KvCacheStoreParams",
    ][::std::mem::size_of::<KvCacheStoreParams>() - 56usize];
    [
        "Alignment of KvCacheStoreParams",
    ][::std::mem::align_of::<KvCacheStoreParams>() - 8usize];
    [
        "Offset of field: KvCacheStoreParams::qkv",
    ][::std::mem::offset_of!(KvCacheStoreParams, qkv) - 0usize];
    [
        "Offset of field: KvCacheStoreParams::k_cache",
    ][::std::mem::offset_of!(KvCacheStoreParams, k_cache) - 8usize];
    [
        "Offset of field: KvCacheStoreParams::v_cache",
    ][::std::mem::offset_of!(KvCacheStoreParams, v_cache) - 16usize];
    [
        "Offset of field: KvCacheStoreParams::max_t",
    ][::std::mem::offset_of!(KvCacheStoreParams, max_t) - 24usize];
    [
        "Offset of field: KvCacheStoreParams::position",
    ][::std::mem::offset_of!(KvCacheStoreParams, position) - 32usize];
    [
        "Offset of field: KvCacheStoreParams::len",
    ][::std::mem::offset_of!(KvCacheStoreParams, len) - 40usize];
    [
        "Offset of field: KvCacheStoreParams::t",
    ][::std::mem::offset_of!(KvCacheStoreParams, t) - 48usize];
    [
        "Offset of field: KvCacheStoreParams::c",
    ][::std::mem::offset_of!(KvCacheStoreParams, c) - 52usize];
};
/// Threads of a block of `attention_decode_*`.
pub const ATTENTION_DECODE_THREADS: u32 = 128;
/// Blocks of `attention_decode_hs*` that a multiprocessor must have room for: 128 registers a thread.
pub const ATTENTION_DECODE_MIN_BLOCKS: u32 = 4;
/// The largest head size.
pub const ATTENTION_DECODE_MOST_HEAD_SIZE: u32 = 256;
/// Parameters of `attention_decode_*`.
#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub struct AttentionDecodeParams {
    /// (B, 1, 3C) bf16.
    pub qkv: u64,
    /// (B, T_max, C) bf16, row `position` `=`.
    pub k_cache: u64,
    /// (B, T_max, C) bf16, row `position` `=`.
    pub v_cache: u64,
    /// (B, 1, C) bf16 `=`.
    pub out: u64,
    /// (B, NH, splits, 2, HS/8) of 4 f32: the halves of each vector's sum. Not used where there is one split.
    pub partials: u64,
    /// (B, NH, splits) f32: the largest score, the sum of exponentials. Not used where there is one split.
    pub stats: u64,
    /// Positions that a sequence's cache has room for.
    pub max_t: u64,
    /// Of the token; below 2^31.
    pub position: u32,
    /// Parts that the positions are cut into.
    pub splits: u32,
    /// Positions of each part but the last, which may have fewer.
    pub split_positions: u32,
    /// Channels, a multiple of 8.
    pub c: u32,
    /// Heads.
    pub nh: u32,
    /// Head size, a multiple of 8.
    pub hs: u32,
    /// Vectors of `out`: B·C/8.
    pub len: u32,
    /// log2(e) / √HS.
    pub scale: f32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    [
        "Size of AttentionDecodeParams",
    ][::std::mem::size_of::<AttentionDecodeParams>() - 88usize];
    [
        "Alignment of AttentionDecodeParams",
    ][::std::mem::align_of::<AttentionDecodeParams>() - 8usize];
    [
        "Offset of field: AttentionDecodeParams::qkv",
    ][::std::mem::offset_of!(AttentionDecodeParams, qkv) - 0usize];
    [
        "Offset of field: AttentionDecodeParams::k_cache",
    ][::std::mem::offset_of!(AttentionDecodeParams, k_cache) - 8usize];
    [
        "Offset of field: AttentionDecodeParams::v_cache",
    ][::std::mem::offset_of!(AttentionDecodeParams, v_cache) - 16usize];
    [
        "Offset of field: AttentionDecodeParams::out",
    ][::std::mem::offset_of!(AttentionDecodeParams, out) - 24usize];
    [
        "Offset of field: AttentionDecodeParams::partials",
    ][::std::mem::offset_of!(AttentionDecodeParams, partials) - 32usize];
    [
        "Offset of field: AttentionDecodeParams::stats",
    ][::std::mem::offset_of!(AttentionDecodeParams, stats) - 40usize];
    [
        "Offset of field: AttentionDecodeParams::max_t",
    ][::std::mem::offset_of!(AttentionDecodeParams, max_t) - 48usize];
    [
        "Offset of field: AttentionDecodeParams::position",
    ][::std::mem::offset_of!(AttentionDecodeParams, position) - 56usize];
    [
        "Offset of field: AttentionDecodeParams::splits",
    ][::std::mem::offset_of!(AttentionDecodeParams, splits) - 60usize];
    [
        "Offset of field: AttentionDecodeParams::split_positions",
    ][::std::mem::offset_of!(AttentionDecodeParams, split_positions) - 64usize];
    [
        "Offset of field: AttentionDecodeParams::c",
    ][::std::mem::offset_of!(AttentionDecodeParams, c) - 68usize];
    [
        "Offset of field: AttentionDecodeParams::nh",
    ][::std::mem::offset_of!(AttentionDecodeParams, nh) - 72usize];
    [
        "Offset of field: AttentionDecodeParams::hs",
    ][::std::mem::offset_of!(AttentionDecodeParams, hs) - 76usize];
    [
        "Offset of field: AttentionDecodeParams::len",
    ][::std::mem::offset_of!(AttentionDecodeParams, len) - 80usize];
    [
        "Offset of field: AttentionDecodeParams::scale",
    ][::std::mem::offset_of!(AttentionDecodeParams, scale) - 84usize];
};
/// Threads of a block of `sample`.
pub const SAMPLE_THREADS: u32 = 512;
/// Blocks of `sample` that a multiprocessor must have room for, as far as registers decide.
pub const SAMPLE_MIN_BLOCKS: u32 = 2;
/// Columns of a row that shared memory holds: with the sums, 99 KB, the least that a multiprocessor from sm_80 on has.
pub const SAMPLE_HELD_COLUMNS: u32 = 50304;
/// Parameters of `sample`.
#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub struct SampleParams {
    /// (B, Vp) bf16.
    pub logits: u64,
    /// (B) i32 `=`.
    pub tokens: u64,
    /// (B, V/8) of 8 keys, or null: in shared memory.
    pub keys: u64,
    /// Columns of `logits`, a multiple of 8.
    pub vp: u64,
    /// Key of the draws.
    pub seed: u64,
    /// Counter of the draws.
    pub draw: u64,
    /// Columns that count, at most 2^23.
    pub v: u32,
    /// At most this many tokens.
    pub top_k: u32,
    /// In (0, 1].
    pub top_p: f32,
    /// 2·log2(e) / temperature, finite; 0 for temperature 0.
    pub rate: f32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of SampleParams"][::std::mem::size_of::<SampleParams>() - 64usize];
    ["Alignment of SampleParams"][::std::mem::align_of::<SampleParams>() - 8usize];
    [
        "Offset of field: SampleParams::logits",
    ][::std::mem::offset_of!(SampleParams, logits) - 0usize];
    [
        "Offset of field: SampleParams::tokens",
    ][::std::mem::offset_of!(SampleParams, tokens) - 8usize];
    [
        "Offset of field: SampleParams::keys",
    ][::std::mem::offset_of!(SampleParams, keys) - 16usize];
    [
        "Offset of field: SampleParams::vp",
    ][::std::mem::offset_of!(SampleParams, vp) - 24usize];
    [
        "Offset of field: SampleParams::seed",
    ][::std::mem::offset_of!(SampleParams, seed) - 32usize];
    [
        "Offset of field: SampleParams::draw",
    ][::std::mem::offset_of!(SampleParams, draw) - 40usize];
    [
        "Offset of field: SampleParams::v",
    ][::std::mem::offset_of!(SampleParams, v) - 48usize];
    [
        "Offset of field: SampleParams::top_k",
    ][::std::mem::offset_of!(SampleParams, top_k) - 52usize];
    [
        "Offset of field: SampleParams::top_p",
    ][::std::mem::offset_of!(SampleParams, top_p) - 56usize];
    [
        "Offset of field: SampleParams::rate",
    ][::std::mem::offset_of!(SampleParams, rate) - 60usize];
};
/// Threads of a block of `ceiling_copy`.
pub const CEILING_COPY_THREADS: u32 = 256;
/// Vectors of 16 bytes that a block of `ceiling_copy` copies: four a thread.
pub const CEILING_COPY_TILE: u32 = 1024;
/// Parameters of `ceiling_copy`.
#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub struct CeilingCopyParams {
    /// (len) vectors of 16 bytes.
    pub src: u64,
    /// (len) vectors of 16 bytes `=`.
    pub dst: u64,
    /// Vectors.
    pub len: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of CeilingCopyParams"][::std::mem::size_of::<CeilingCopyParams>() - 24usize];
    [
        "Alignment of CeilingCopyParams",
    ][::std::mem::align_of::<CeilingCopyParams>() - 8usize];
    [
        "Offset of field: CeilingCopyParams::src",
    ][::std::mem::offset_of!(CeilingCopyParams, src) - 0usize];
    [
        "Offset of field: CeilingCopyParams::dst",
    ][::std::mem::offset_of!(CeilingCopyParams, dst) - 8usize];
    [
        "Offset of field: CeilingCopyParams::len",
    ][::std::mem::offset_of!(CeilingCopyParams, len) - 16usize];
};
/// Threads of a block of `ceiling_mma`.
pub const CEILING_MMA_THREADS: u32 = 256;
/// Blocks of `ceiling_mma` that a multiprocessor has room for: 64 registers a thread.
pub const CEILING_MMA_MIN_BLOCKS: u32 = 4;
/// Tiles of 16 rows that a warp's product has.
pub const CEILING_MMA_ROWS: u32 = 2;
/// Tiles of 8 columns that a warp's product has.
pub const CEILING_MMA_COLUMNS: u32 = 4;
/// Products of a warp that do not wait for each other, and its products an iteration.
pub const CEILING_MMA_CHAINS: u32 = 8;
/// Parameters of `ceiling_mma`.
#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub struct CeilingMmaParams {
    /// (256 · blocks) f32 `=`.
    pub out: u64,
    /// Products in each chain, one after the other.
    pub iterations: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of CeilingMmaParams"][::std::mem::size_of::<CeilingMmaParams>() - 16usize];
    [
        "Alignment of CeilingMmaParams",
    ][::std::mem::align_of::<CeilingMmaParams>() - 8usize];
    [
        "Offset of field: CeilingMmaParams::out",
    ][::std::mem::offset_of!(CeilingMmaParams, out) - 0usize];
    [
        "Offset of field: CeilingMmaParams::iterations",
    ][::std::mem::offset_of!(CeilingMmaParams, iterations) - 8usize];
};
