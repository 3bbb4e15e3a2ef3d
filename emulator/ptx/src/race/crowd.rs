//! Readers of device memory, of which there may be thousands: every block reads the weights.
//!
//! A crowd is a chain of members, newest first. A member is the warps of one block that read at one time. Cells that were
//! read alike share a crowd, in whatever order the blocks came: crowds of the same members have the same hash, and
//! whoever would make a second one takes the first. Members that a newer one supersedes stay in the chain and do no harm.

use rustc_hash::FxHashMap;

use super::stamp::{CROWD, Holds, Kind, Mark, Stamp, mark};
use super::table::Table;

/// How far back a block looks for its own member. Blocks that run at present are near the head.
const LOOK: usize = 64;
/// Crowds that a worker knows by their hashes.
const KNOWN: usize = 1 << 20;
/// Transitions that a worker remembers.
const MEMO: usize = 256;

/// A crowd, as its newest member and the rest.
#[derive(Debug, Clone, Copy)]
pub struct Crowd {
    /// The crowd without the newest member; 0 if that is all.
    pub rest: u32,
    /// A stamp of the newest member: its block, time and kind, and one of its instructions.
    pub stamp: u32,
    /// Warps of the newest member.
    pub warps: u32,
    pub holds: Holds,
    /// The newest member was pending when it came.
    pending: bool,
    hash: u64,
}

/// All crowds of a launch.
#[derive(Debug)]
pub struct Crowds(Table<3>);

impl Default for Crowds {
    fn default() -> Self {
        Self(Table::new())
    }
}

const PENDING: u64 = 1 << 31;

impl Crowds {
    pub fn get(&self, id: u32) -> Crowd {
        let [link, member, hash] = self.0.get(id);
        Crowd {
            rest: (link >> 32) as u32,
            stamp: link as u32,
            warps: (member >> 32) as u32,
            holds: Holds::unpack(member),
            pending: member & PENDING != 0,
            hash,
        }
    }

    /// The crowds of a chain, each with its newest member.
    pub fn chain(&self, id: u32) -> impl Iterator<Item = Crowd> {
        let mut rest = id;
        std::iter::from_fn(move || {
            let crowd = (rest != 0).then(|| self.get(rest))?;
            rest = crowd.rest;
            Some(crowd)
        })
    }

    pub fn is_full(&self) -> bool {
        self.0.is_full()
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    fn push(&self, crowd: Crowd) -> Option<u32> {
        let link = u64::from(crowd.rest) << 32 | u64::from(crowd.stamp);
        let pending = if crowd.pending { PENDING } else { 0 };
        self.0.push([link, u64::from(crowd.warps) << 32 | crowd.holds.pack() | pending, crowd.hash])
    }
}

/// What a worker knows of the crowds that it made.
#[derive(Debug)]
pub struct KnownCrowds {
    by_hash: FxHashMap<u64, u32>,
    /// (readers, stamp, result), where a hash of the first two says.
    memo: Box<[(Mark, u32, Mark)]>,
}

impl Default for KnownCrowds {
    fn default() -> Self {
        Self { by_hash: FxHashMap::default(), memo: vec![(0, 0, 0); MEMO].into() }
    }
}

/// Somebody who joins a crowd.
pub struct Joiner<'a> {
    pub crowds: &'a Crowds,
    pub known: &'a mut KnownCrowds,
    pub stamp: u32,
    pub warp: u32,
}

impl Joiner<'_> {
    /// The readers (a mark or a crowd) with the joiner among them. `of` gives stamps, `supersedes` says of a member's
    /// (stamp, warps) whether it may be forgotten for the joiner.
    pub fn join(&mut self, readers: Mark, of: impl Fn(u32) -> Stamp, supersedes: impl Fn(Stamp, u32) -> bool) -> Mark {
        let place = (readers.wrapping_mul(0x9E37_79B1) ^ self.stamp.wrapping_mul(0x85EB_CA77)) as usize % MEMO;
        let (of_readers, of_stamp, result) = self.known.memo[place];
        if (of_readers, of_stamp) == (readers, self.stamp) {
            return result;
        }
        let result = self.look(readers, of, supersedes);
        self.known.memo[place] = (readers, self.stamp, result);
        result
    }

    fn look(&mut self, readers: Mark, of: impl Fn(u32) -> Stamp, supersedes: impl Fn(Stamp, u32) -> bool) -> Mark {
        let (ours, mine) = (of(self.stamp), 1 << self.warp);
        let crowd = match super::stamp::code(readers) {
            CROWD => super::stamp::id(readers),
            _ => {
                let first = super::stamp::id(readers);
                let stamp = of(first);
                match self.make(0, first, stamp, 1 << stamp.warp, 0) {
                    Some(crowd) => crowd,
                    None => return readers,
                }
            }
        };
        let base = self.crowds.get(crowd).hash;
        let (mut hash, mut stamp, mut warps) = (base, self.stamp, mine);
        for member in self.crowds.chain(crowd).take(LOOK) {
            let theirs = of(member.stamp);
            if theirs.block != ours.block {
                continue;
            }
            let alike = (theirs.time, theirs.kind, theirs.narrow) == (ours.time, ours.kind, ours.narrow);
            if alike && ours.kind != Kind::Pending {
                if member.warps & mine != 0 {
                    return mark(crowd, CROWD);
                }
                (stamp, warps) = (member.stamp, member.warps | mine);
            } else if !supersedes(theirs, member.warps) {
                continue;
            }
            hash = hash.wrapping_sub(hash_of(theirs, member.stamp, member.warps, member.pending));
            break;
        }
        // Without room for another crowd the launch ends ([`Crowds::is_full`]).
        self.make(crowd, stamp, ours, warps, hash).map_or(mark(crowd, CROWD), |crowd| mark(crowd, CROWD))
    }

    /// The crowd of `rest` and a member, whose hash is added to `hash`.
    fn make(&mut self, rest: u32, stamp: u32, as_of: Stamp, warps: u32, hash: u64) -> Option<u32> {
        let pending = as_of.kind == Kind::Pending;
        let hash = hash.wrapping_add(hash_of(as_of, stamp, warps, pending));
        if let Some(&known) = self.known.by_hash.get(&hash) {
            return Some(known);
        }
        let before = if rest == 0 { Holds::default() } else { self.crowds.get(rest).holds };
        let holds = before.and(as_of.into());
        let id = self.crowds.push(Crowd { rest, stamp, warps, holds, pending, hash })?;
        // They only save room: now and then the old ones are forgotten, most of which nobody meets again.
        if self.known.by_hash.len() >= KNOWN {
            self.known.by_hash.clear();
        }
        self.known.by_hash.insert(hash, id);
        Some(id)
    }
}

/// What a member adds to its crowd's hash. A pending one is like no other, as each is finished on its own.
fn hash_of(stamp: Stamp, id: u32, warps: u32, pending: bool) -> u64 {
    let who = match pending {
        true => u64::from(id) << 32 | 0xFFFF_FFFF,
        false => u64::from(stamp.block) << 32 | u64::from(stamp.time),
    };
    let how = u64::from(warps) << 8 | (stamp.kind as u64) << 1 | u64::from(stamp.narrow);
    let how = if pending { u64::from(warps) << 8 } else { how };
    let mut z = who.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ how.wrapping_mul(0xD6E8_FEB8_6659_FD93);
    z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ z >> 31
}
