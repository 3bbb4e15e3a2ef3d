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
