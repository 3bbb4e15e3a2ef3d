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
