//! The caller's memory.

use std::ffi::CStr;

use super::DevicePointer;

/// An address of the caller's memory, for copies. Its range is the caller's word.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostPointer(*mut u8);

// SAFETY: only an address; the driver API asks the caller to keep the memory for as long as a copy is pending.
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

    /// The same memory, named by a number: a unified address that is none of the device's.
    pub fn from_unified(address: Unified) -> Self {
        Self(std::ptr::with_exposed_provenance_mut(address.0 as usize))
    }

    /// A block of this library's own that the caller may use.
    pub fn from_block(block: &mut [Line]) -> Self {
        Self(block.as_mut_ptr().cast())
    }

    /// Reads from `offset` on.
    pub fn read(self, offset: u64, out: &mut [u8]) {
        // SAFETY: the caller named this range as the source of a copy.
        unsafe { self.0.add(offset as usize).copy_to_nonoverlapping(out.as_mut_ptr(), out.len()) };
    }

    /// Writes from `offset` on.
    pub fn write(self, offset: u64, bytes: &[u8]) {
        // SAFETY: the caller named this range as the target of a copy.
        unsafe { self.0.add(offset as usize).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }
}

/// An address that may be the device's or the host's.
#[repr(transparent)]
#[derive(Debug, Clone, Copy)]
pub struct Unified(DevicePointer);

impl Unified {
    pub fn address(self) -> DevicePointer {
        self.0
    }
}

/// Unit of pinned memory: its alignment is that of a page.
#[repr(C, align(4096))]
#[derive(Debug, Clone, Copy)]
pub struct Line([u8; 4096]);

impl Line {
    /// What memory holds that nobody has written.
    pub const FRESH: Line = Line([0xCB; 4096]);
}

/// Code to load: PTX text, or one of the binary formats that are told by their first bytes.
#[repr(transparent)]
#[derive(Debug, Clone, Copy)]
pub struct Image(*const u8);

impl Image {
    /// The first four bytes, fewer if a zero comes before; `None` for a null pointer.
    pub fn magic(self) -> Option<[u8; 4]> {
        let mut magic = [0; 4];
        if self.0.is_null() {
            return None;
        }
        for (i, byte) in magic.iter_mut().enumerate() {
            // SAFETY: every image begins with four bytes, or is a text that ends with the zero seen here.
            *byte = unsafe { self.0.add(i).read() };
            if *byte == 0 {
                break;
            }
        }
        Some(magic)
    }

    /// The bytes before the first zero, for an image that is text.
    pub fn text(self) -> Vec<u8> {
        if self.0.is_null() {
            return Vec::new();
        }
        // SAFETY: not null; a text image is zero-terminated by the API's contract.
        unsafe { CStr::from_ptr(self.0.cast()) }.to_bytes().to_vec()
    }
}
