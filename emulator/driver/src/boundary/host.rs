//! The caller's memory.

use std::ffi::CStr;

use super::pointer::DevicePointer;

/// An address of the caller's memory, for copies. The caller guarantees that the range is valid.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostPointer(*mut u8);

// SAFETY: the pointer is only an address, and the driver API requires that the caller keeps the memory allocated while a
// copy is pending.
unsafe impl Send for HostPointer {}
// SAFETY: as above.
unsafe impl Sync for HostPointer {}

impl HostPointer {
    pub fn is_null(self) -> bool {
        self.0.is_null()
    }

    pub fn address(self) -> u64 {
        self.0.addr() as u64
    }

    /// The host memory at a unified address that is not an address of device memory.
    pub fn from_unified(address: Unified) -> Self {
        Self(std::ptr::with_exposed_provenance_mut(address.0 as usize))
    }

    /// A block of this library that the caller may use.
    pub fn from_block(block: &mut [Line]) -> Self {
        Self(block.as_mut_ptr().cast())
    }

    /// Reads `out.len()` bytes from `offset` on.
    pub fn read(self, offset: u64, out: &mut [u8]) {
        // SAFETY: the caller named this range as the source of a copy.
        unsafe { self.0.add(offset as usize).copy_to_nonoverlapping(out.as_mut_ptr(), out.len()) };
    }

    /// Writes `bytes` from `offset` on.
    pub fn write(self, offset: u64, bytes: &[u8]) {
        // SAFETY: the caller named this range as the target of a copy.
        unsafe { self.0.add(offset as usize).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }
}

/// An address of device memory or of host memory.
#[repr(transparent)]
#[derive(Debug, Clone, Copy)]
pub struct Unified(DevicePointer);

impl Unified {
    pub fn address(self) -> DevicePointer {
        self.0
    }
}

/// Unit of allocation of page-locked memory, with the size and alignment of a page.
#[repr(C, align(4096))]
#[derive(Debug, Clone, Copy)]
pub struct Line([u8; 4096]);

impl Line {
    /// The contents of memory that was never written.
    pub const FRESH: Line = Line([0xCB; 4096]);
}

/// Code to load: PTX text, or one of the binary formats, which their first bytes identify.
#[repr(transparent)]
#[derive(Debug, Clone, Copy)]
pub struct Image(*const u8);

impl Image {
    /// The first four bytes, where those after a zero are zero; `None` for a null pointer.
    pub fn magic(self) -> Option<[u8; 4]> {
        let mut magic = [0; 4];
        if self.0.is_null() {
            return None;
        }
        for (i, byte) in magic.iter_mut().enumerate() {
            // SAFETY: an image has at least four bytes, or is a text, whose terminating zero ends this loop.
            *byte = unsafe { self.0.add(i).read() };
            if *byte == 0 {
                break;
            }
        }
        Some(magic)
    }

    /// The bytes of a text image, before its terminating zero.
    pub fn text(self) -> Vec<u8> {
        if self.0.is_null() {
            return Vec::new();
        }
        // SAFETY: not null; a text image is zero-terminated by the API's contract.
        unsafe { CStr::from_ptr(self.0.cast()) }.to_bytes().to_vec()
    }
}
