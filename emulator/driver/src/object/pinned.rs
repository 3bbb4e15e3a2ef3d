//! Page-locked host memory.

use std::collections::BTreeMap;

use crate::boundary::{Handle, Line};

/// All page-locked ranges, by their first address.
#[derive(Debug, Default)]
pub struct Pinned(pub BTreeMap<u64, Range>);

/// A page-locked range.
#[derive(Debug)]
pub struct Range {
    pub context: Handle,
    pub size: u64,
    pub flags: u32,
    /// Memory that this library allocated; `None` for memory that the program registered.
    pub block: Option<Vec<Line>>,
}

impl Pinned {
    /// Whether the whole range is page-locked.
    pub fn contains(&self, address: u64, bytes: u64) -> bool {
        self.find(address).is_some_and(|(base, range)| bytes <= range.size - (address - base))
    }

    /// The range that holds an address: its context, start and size.
    pub fn range(&self, address: u64) -> Option<(Handle, u64, u64)> {
        self.find(address).map(|(base, range)| (range.context, base, range.size))
    }

    /// Removes the ranges of a context that ends.
    pub fn leave(&mut self, context: Handle) {
        self.0.retain(|_, range| range.context != context);
    }

    pub fn find(&self, address: u64) -> Option<(u64, &Range)> {
        let (&base, range) = self.0.range(..=address).next_back()?;
        (address - base < range.size).then_some((base, range))
    }

    pub fn overlaps(&self, address: u64, bytes: u64) -> bool {
        let below = self.0.range(..address.saturating_add(bytes)).next_back();
        below.is_some_and(|(&base, range)| base + range.size > address)
    }
}
