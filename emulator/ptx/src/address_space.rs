//! The generic address space: where the windows of shared, local and parameter memory lie in it.

use crate::ir::Space;

/// First address of shared memory within its window: the system reserves the first KiB, so 0 is never a valid address.
pub const SHARED_BASE: u32 = 1024;
/// First generic addresses of the windows: far from any allocation.
pub const SHARED_WINDOW: u64 = 0x0A00_0000_0000_0000;
pub const LOCAL_WINDOW: u64 = 0x0B00_0000_0000_0000;
pub const PARAM_WINDOW: u64 = 0x0C00_0000_0000_0000;
/// Bytes of a window.
pub const WINDOW_BYTES: u64 = 1 << 32;

/// The space whose window holds a generic address.
pub fn space_of_address(address: u64) -> Space {
    let inside = |base: u64| address.wrapping_sub(base) < WINDOW_BYTES;
    match () {
        _ if inside(SHARED_WINDOW) => Space::Shared,
        _ if inside(LOCAL_WINDOW) => Space::Local,
        _ if inside(PARAM_WINDOW) => Space::Param,
        _ => Space::Global,
    }
}

/// First generic address of a space's window; `None` for the generic space itself.
pub fn window_of_space(space: Space) -> Option<u64> {
    match space {
        Space::Global => Some(0),
        Space::Shared => Some(SHARED_WINDOW),
        Space::Local => Some(LOCAL_WINDOW),
        Space::Param => Some(PARAM_WINDOW),
        Space::Generic => None,
    }
}

/// Rounds up to a multiple of an alignment, which the parser has checked to be a power of two.
pub fn align(offset: u32, alignment: u32) -> u32 {
    // An offset too large to be aligned exceeds every limit, and so does u32::MAX.
    offset.checked_next_multiple_of(alignment.max(1)).unwrap_or(u32::MAX)
}
