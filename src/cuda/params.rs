//! Parameters and constants of launches: `kernels/params.h` by way of bindgen. Not to be edited;
//! `make params` makes it.

/// Threads of a block of every layernorm kernel.
pub const LAYERNORM_THREADS: u32 = 256;
/// Blocks of the forward that a multiprocessor holds at least: 64 registers a thread.
pub const LAYERNORM_FORWARD_MIN_BLOCKS: u32 = 4;
/// As `LAYERNORM_FORWARD_MIN_BLOCKS`, where a thread has 8 vectors of a row: 128 registers.
pub const LAYERNORM_FORWARD_C2048_MIN_BLOCKS: u32 = 2;
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
/// ε under the root.
pub const LAYERNORM_EPS: f32 = 0.000009999999747378752;
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
