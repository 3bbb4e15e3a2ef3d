//! A page of memory: its bytes, which of them were written, and their shadow.

use crate::race::shadow::{SHADOWED_BYTES, Shadow};

/// Bytes of a page. Aligned accesses of up to 16 bytes never cross a page boundary.
pub const PAGE_BYTES: usize = SHADOWED_BYTES;
/// Value of bytes that were never written.
pub const POISON: u8 = 0xCB;

/// One page.
#[derive(Debug)]
pub struct Page {
    data: [u8; PAGE_BYTES],
    /// Bit `i % 64` of word `i / 64`: whether byte `i` was written.
    written: [u64; PAGE_BYTES / 64],
    pub shadow: Shadow,
}

impl Page {
    /// An uninitialised page.
    pub fn boxed() -> Box<Self> {
        Box::new(Self { data: [POISON; PAGE_BYTES], written: [0; PAGE_BYTES / 64], shadow: Shadow::default() })
    }

    /// A page of zeros.
    pub fn zeroed() -> Box<Self> {
        Box::new(Self { data: [0; PAGE_BYTES], written: [u64::MAX; PAGE_BYTES / 64], shadow: Shadow::default() })
    }

    #[inline]
    pub fn bytes(&self, offset: usize, size: usize) -> &[u8] {
        &self.data[offset..offset + size]
    }

    #[inline]
    pub fn bytes_mut(&mut self, offset: usize, size: usize) -> &mut [u8] {
        &mut self.data[offset..offset + size]
    }

    /// Marks bytes inside one 64-byte line as written.
    #[inline(always)]
    pub fn mark_written(&mut self, offset: usize, size: usize) {
        self.written[offset / 64] |= line_bits(offset, size);
    }

    /// Writes bytes and marks them as written.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        self.data[offset..offset + bytes.len()].copy_from_slice(bytes);
        self.each_word(offset, bytes.len(), |word, bits| *word |= bits);
    }

    /// [`Page::write`] for an access inside one 64-byte line.
    #[inline(always)]
    pub fn store(&mut self, offset: usize, bytes: &[u8]) {
        self.data[offset..offset + bytes.len()].copy_from_slice(bytes);
        self.written[offset / 64] |= line_bits(offset, bytes.len());
    }

    /// Whether every byte of an access inside one 64-byte line was written.
    #[inline(always)]
    pub fn is_written(&self, offset: usize, size: usize) -> bool {
        let bits = line_bits(offset, size);
        self.written[offset / 64] & bits == bits
    }

    /// [`Page::is_written`] for a range that may cross lines.
    pub fn initialised(&self, offset: usize, size: usize) -> bool {
        (offset..offset + size).all(|i| self.written[i / 64] >> (i % 64) & 1 == 1)
    }

    /// Marks bytes as uninitialised.
    pub fn forget(&mut self, offset: usize, size: usize) {
        self.each_word(offset, size, |word, bits| *word &= !bits);
    }

    fn each_word(&mut self, offset: usize, size: usize, mut change: impl FnMut(&mut u64, u64)) {
        let mut at = offset;
        while at < offset + size {
            let take = (64 - at % 64).min(offset + size - at);
            change(&mut self.written[at / 64], line_bits(at, take));
            at += take;
        }
    }
}

/// Bits of `size` bytes from `offset` in their 64-byte line.
#[inline(always)]
fn line_bits(offset: usize, size: usize) -> u64 {
    (u64::MAX >> (64 - size)) << (offset % 64)
}
