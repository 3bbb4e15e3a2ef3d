//! Append-only tables that every worker reads without a lock.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

const CHUNK_BITS: u32 = 13;
const CHUNK: usize = 1 << CHUNK_BITS;
/// Ids are below this, so that they fit an epoch reference.
pub const MAX_IDS: u32 = 1 << 25;

type Chunk<const N: usize> = Box<[[AtomicU64; N]]>;

/// Entries of `N` words each, with ids from 1.
#[derive(Debug)]
pub struct Table<const N: usize> {
    chunks: Box<[OnceLock<Chunk<N>>]>,
    next: AtomicU32,
}

impl<const N: usize> Table<N> {
    pub fn new() -> Self {
        let chunks = (0..MAX_IDS >> CHUNK_BITS).map(|_| OnceLock::new()).collect();
        Self { chunks, next: AtomicU32::new(1) }
    }

    /// Adds an entry and returns its id; `None` if all ids are in use.
    pub fn push(&self, words: [u64; N]) -> Option<u32> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        if id >= MAX_IDS {
            self.next.store(MAX_IDS, Ordering::Relaxed);
            return None;
        }
        let chunk = self.chunks[(id >> CHUNK_BITS) as usize].get_or_init(new_chunk);
        let entry = &chunk[id as usize % CHUNK];
        store(entry, words);
        Some(id)
    }

    /// Replaces the words of an id that [`Table::push`] returned.
    pub fn replace(&self, id: u32, words: [u64; N]) {
        if let Some(chunk) = self.chunks[(id >> CHUNK_BITS) as usize].get() {
            store(&chunk[id as usize % CHUNK], words);
        }
    }

    /// Sets bits of a word of an id.
    pub fn set_bits(&self, id: u32, word: usize, bits: u64) {
        if let Some(chunk) = self.chunks[(id >> CHUNK_BITS) as usize].get() {
            chunk[id as usize % CHUNK][word].fetch_or(bits, Ordering::Relaxed);
        }
    }

    /// The words of an id that [`Table::push`] returned. Relaxed loads suffice, because ids are passed between threads only
    /// under the locks of the pages that hold them.
    #[inline]
    pub fn get(&self, id: u32) -> [u64; N] {
        match self.chunks[(id >> CHUNK_BITS) as usize].get() {
            Some(chunk) => chunk[id as usize % CHUNK].each_ref().map(|word| word.load(Ordering::Relaxed)),
            None => [0; N],
        }
    }

    /// Whether all ids are in use.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.next.load(Ordering::Relaxed) >= MAX_IDS
    }

    /// Removes all entries; their memory is kept for new ones.
    pub fn clear(&mut self) {
        *self.next.get_mut() = 1;
    }
}

fn store<const N: usize>(entry: &[AtomicU64; N], words: [u64; N]) {
    for (to, word) in entry.iter().zip(words) {
        to.store(word, Ordering::Relaxed);
    }
}

fn new_chunk<const N: usize>() -> Chunk<N> {
    (0..CHUNK).map(|_| [const { AtomicU64::new(0) }; N]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_table_refuses_entries() {
        let table = Table::<2>::new();
        assert_eq!(table.push([1, 2]), Some(1));
        table.next.store(MAX_IDS - 1, Ordering::Relaxed);
        assert_eq!(table.push([3, 4]), Some(MAX_IDS - 1));
        assert_eq!((table.push([5, 6]), table.push([5, 6])), (None, None));
        assert!(table.is_full());
        assert_eq!((table.get(1), table.get(MAX_IDS - 1)), ([1, 2], [3, 4]));
    }
}
