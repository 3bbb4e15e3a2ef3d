//! Shared read sets: the readers of device memory, of which there may be thousands, as every block reads the weights.
//!
//! A read set is a chain of members, newest first. A member stands for the warps of one block that read at one time.
//! Cells with the same readers share a set, in whatever order the blocks read: sets of the same members have the same
//! hash, and [`ReadSetBuilder`] reuses an existing set of that hash instead of adding a second one. A member that a
//! newer one supersedes stays in the chain, where it has no effect.

use rustc_hash::FxHashMap;

use super::epoch::{Epoch, EpochKind, EpochRef, READ_SET, ReaderKinds, code, id, lane_ref};
use super::table::Table;

/// How far along the chain a block searches for its own member. Blocks that are running have theirs near the head.
const SEARCH_DEPTH: usize = 64;
/// Read sets that a worker finds by their hashes.
const MAX_KNOWN_SETS: usize = 1 << 20;
/// Insertions whose results a worker remembers.
const MEMO_SIZE: usize = 256;

/// A read set: its newest member and the rest.
#[derive(Debug, Clone, Copy)]
pub struct ReadSet {
    /// Id of the set without the newest member; 0 if there are no other members.
    pub rest: u32,
    /// Id of an epoch of the newest member: its block, time and kind, and one of its instructions.
    pub epoch: u32,
    /// Warps of the newest member.
    pub warps: u32,
    /// Kinds of all members.
    pub kinds: ReaderKinds,
    /// Whether the newest member was pending when it was added.
    pending: bool,
    hash: u64,
}

/// All read sets of a launch.
#[derive(Debug)]
pub struct ReadSets(Table<3>);

impl Default for ReadSets {
    fn default() -> Self {
        Self(Table::new())
    }
}

const PENDING: u64 = 1 << 31;

impl ReadSets {
    pub fn get(&self, id: u32) -> ReadSet {
        let [link, member, hash] = self.0.get(id);
        ReadSet {
            rest: (link >> 32) as u32,
            epoch: link as u32,
            warps: (member >> 32) as u32,
            kinds: ReaderKinds::unpack(member),
            pending: member & PENDING != 0,
            hash,
        }
    }

    /// The sets of a chain, each for its newest member.
    pub fn chain(&self, id: u32) -> impl Iterator<Item = ReadSet> {
        let mut rest = id;
        std::iter::from_fn(move || {
            let set = (rest != 0).then(|| self.get(rest))?;
            rest = set.rest;
            Some(set)
        })
    }

    pub fn is_full(&self) -> bool {
        self.0.is_full()
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    fn push(&self, set: ReadSet) -> Option<u32> {
        let link = u64::from(set.rest) << 32 | u64::from(set.epoch);
        let pending = if set.pending { PENDING } else { 0 };
        self.0.push([link, u64::from(set.warps) << 32 | set.kinds.pack() | pending, set.hash])
    }
}

/// A worker's cache of read sets that it has built.
#[derive(Debug)]
pub struct ReadSetCache {
    by_hash: FxHashMap<u64, u32>,
    /// (readers, epoch id, result), at an index computed from the first two.
    memo: Box<[(EpochRef, u32, EpochRef)]>,
}

impl Default for ReadSetCache {
    fn default() -> Self {
        Self { by_hash: FxHashMap::default(), memo: vec![(0, 0, 0); MEMO_SIZE].into() }
    }
}

/// Builds read sets for one reader.
pub struct ReadSetBuilder<'a> {
    pub sets: &'a ReadSets,
    pub cache: &'a mut ReadSetCache,
    /// Id of the reader's epoch.
    pub epoch: u32,
    /// The reader's warp.
    pub warp: u32,
}

impl ReadSetBuilder<'_> {
    /// The set of `readers` (one reference or a read set) and this reader. `epoch_of` returns the epoch of an id;
    /// `supersedes` says of a member's (epoch, warps) whether the new reader makes it superfluous.
    pub fn insert(
        &mut self,
        readers: EpochRef,
        epoch_of: impl Fn(u32) -> Epoch,
        supersedes: impl Fn(Epoch, u32) -> bool,
    ) -> EpochRef {
        let slot = (readers.wrapping_mul(0x9E37_79B1) ^ self.epoch.wrapping_mul(0x85EB_CA77)) as usize % MEMO_SIZE;
        let (memo_readers, memo_epoch, result) = self.cache.memo[slot];
        if (memo_readers, memo_epoch) == (readers, self.epoch) {
            return result;
        }
        let result = self.insert_uncached(readers, epoch_of, supersedes);
        self.cache.memo[slot] = (readers, self.epoch, result);
        result
    }

    fn insert_uncached(
        &mut self,
        readers: EpochRef,
        epoch_of: impl Fn(u32) -> Epoch,
        supersedes: impl Fn(Epoch, u32) -> bool,
    ) -> EpochRef {
        let (ours, our_warp) = (epoch_of(self.epoch), 1 << self.warp);
        let set = match code(readers) {
            READ_SET => id(readers),
            _ => {
                let first = id(readers);
                let epoch = epoch_of(first);
                match self.find_or_add(0, first, epoch, 1 << epoch.warp, 0) {
                    Some(set) => set,
                    None => return readers,
                }
            }
        };
        let mut hash = self.sets.get(set).hash;
        let (mut epoch, mut warps) = (self.epoch, our_warp);
        for member in self.sets.chain(set).take(SEARCH_DEPTH) {
            let theirs = epoch_of(member.epoch);
            if theirs.block != ours.block {
                continue;
            }
            let same = (theirs.time, theirs.kind, theirs.block_scope) == (ours.time, ours.kind, ours.block_scope);
            if same && ours.kind != EpochKind::Pending {
                if member.warps & our_warp != 0 {
                    return lane_ref(set, READ_SET);
                }
                (epoch, warps) = (member.epoch, member.warps | our_warp);
            } else if !supersedes(theirs, member.warps) {
                continue;
            }
            hash = hash.wrapping_sub(member_hash(theirs, member.epoch, member.warps, member.pending));
            break;
        }
        // If the table is full, the launch is stopped ([`ReadSets::is_full`]).
        let new = self.find_or_add(set, epoch, ours, warps, hash).unwrap_or(set);
        lane_ref(new, READ_SET)
    }

    /// The id of the set of `rest` and a member, whose hash is added to `hash`. `None` if the table is full.
    fn find_or_add(&mut self, rest: u32, epoch: u32, member: Epoch, warps: u32, hash: u64) -> Option<u32> {
        let pending = member.kind == EpochKind::Pending;
        let hash = hash.wrapping_add(member_hash(member, epoch, warps, pending));
        if let Some(&known) = self.cache.by_hash.get(&hash) {
            return Some(known);
        }
        let rest_kinds = if rest == 0 { ReaderKinds::default() } else { self.sets.get(rest).kinds };
        let kinds = rest_kinds.union(member.into());
        let id = self.sets.push(ReadSet { rest, epoch, warps, kinds, pending, hash })?;
        // The cache only saves table entries. It is cleared now and then, because most of the old sets never recur.
        if self.cache.by_hash.len() >= MAX_KNOWN_SETS {
            self.cache.by_hash.clear();
        }
        self.cache.by_hash.insert(hash, id);
        Some(id)
    }
}

/// What a member contributes to its set's hash. Each pending member is unique, because each completes on its own.
fn member_hash(epoch: Epoch, id: u32, warps: u32, pending: bool) -> u64 {
    let who = match pending {
        true => u64::from(id) << 32 | 0xFFFF_FFFF,
        false => u64::from(epoch.block) << 32 | u64::from(epoch.time),
    };
    let how = u64::from(warps) << 8 | (epoch.kind as u64) << 1 | u64::from(epoch.block_scope);
    let how = if pending { u64::from(warps) << 8 } else { how };
    let mut z = who.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ how.wrapping_mul(0xD6E8_FEB8_6659_FD93);
    z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ z >> 31
}
