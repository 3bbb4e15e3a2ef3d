//! Parameters and constants of launches: `kernels/params.h` by way of bindgen. Not to be edited;
//! `make params` makes it.

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
