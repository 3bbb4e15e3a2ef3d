//! Who accessed a page's bytes last in the running launch.

use rustc_hash::FxHashMap;

use super::clock::{ALL_LANES, Views};
use super::table::Table;
use crate::memory::page::PAGE;

/// A stamp and a lane: `stamp << 6 | code`. 0 is nobody. Code 0–31 is a lane, 32 all lanes of the warp; 33 says that
/// the upper bits are the id of a reader set instead.
type Mark = u32;
const CODE_BITS: u32 = 6;
const CODE: u32 = (1 << CODE_BITS) - 1;
const SET: u32 = ALL_LANES + 1;
/// In a cell's reader field: the cell was read in this launch, whoever is remembered.
const WAS_READ: u32 = 1 << 31;
/// Reader sets are rebuilt without what has become pointless, up to this many members.
const REBUILD: usize = 64;

/// The mark of one lane.
#[inline]
pub fn mark(stamp: u32, lane: u32) -> Mark {
    stamp << CODE_BITS | lane
}

/// What kind of access a stamp stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Plain = 0,
    /// An atomic, or a strong store: races with another or with a strong load only where one of both is narrow.
    Atomic = 1,
    /// The target or the source of an asynchronous copy that nobody has waited for.
    Pending = 2,
    /// A volatile, relaxed or acquiring load.
    StrongRead = 3,
}

/// Who, when and where: an access but for its lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    pub block: u32,
    pub warp: u32,
    pub time: u32,
    pub pc: u32,
    pub kind: Kind,
    /// Strong, and for its own block alone.
    pub narrow: bool,
}

/// In the byte of a packed kind.
const NARROW: u64 = 0x80;

impl Stamp {
    fn pack(self) -> [u64; 2] {
        let high = u64::from(self.block) << 32 | u64::from(self.time);
        let kind = self.kind as u64 | if self.narrow { NARROW } else { 0 };
        [high, u64::from(self.pc) << 32 | u64::from(self.warp) << 8 | kind]
    }

    #[inline]
    fn unpack([high, low]: [u64; 2]) -> Self {
        let kind = match low & 0xFF & !NARROW {
            0 => Kind::Plain,
            1 => Kind::Atomic,
            2 => Kind::Pending,
            _ => Kind::StrongRead,
        };
        Self {
            block: (high >> 32) as u32,
            time: high as u32,
            pc: (low >> 32) as u32,
            warp: low as u32 >> 8 & 0xFF,
            kind,
            narrow: low & NARROW != 0,
        }
    }
}

/// Stamps and reader sets of one memory: a launch's device memory, or a block's shared memory.
#[derive(Debug)]
pub struct Stamps {
    stamps: Table,
    /// Words: parent set and mark; what it [`Holds`].
    sets: Table,
}

/// What is among some readers.
#[derive(Debug, Clone, Copy, Default)]
struct Holds {
    atomic: bool,
    narrow: bool,
}

impl Stamps {
    pub fn new() -> Self {
        Self { stamps: Table::new(), sets: Table::new() }
    }

    /// The id of a new stamp; `None` if the launch is too long for the race check.
    pub fn stamp(&self, stamp: Stamp) -> Option<u32> {
        self.stamps.push(stamp.pack())
    }

    /// The copy that a pending stamp stands for has been waited for: it becomes a plain access at `time`.
    pub fn finish(&self, stamp: u32, time: u32) {
        let pending = Stamp::unpack(self.stamps.get(stamp));
        self.stamps.replace(stamp, Stamp { time, kind: Kind::Plain, ..pending }.pack());
    }

    /// The stamp of a mark that is no set.
    #[inline]
    pub fn of(&self, mark: Mark) -> Stamp {
        Stamp::unpack(self.stamps.get((mark & !WAS_READ) >> CODE_BITS))
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.stamps.clear();
        self.sets.clear();
    }

    fn set(&self, set: Mark) -> (Mark, Mark, Holds) {
        let [link, holds] = self.sets.get(set >> CODE_BITS);
        ((link >> 32) as u32, link as u32, Holds { atomic: holds & 1 != 0, narrow: holds & 2 != 0 })
    }

    fn holds(&self, readers: Mark) -> Holds {
        match readers & CODE {
            _ if readers == 0 => Holds::default(),
            SET => self.set(readers).2,
            _ => {
                let Stamp { kind, narrow, .. } = self.of(readers);
                Holds { atomic: kind == Kind::Atomic, narrow }
            }
        }
    }
}

/// Sets that were made, so that equal ones are one.
pub type KnownSets = FxHashMap<(Mark, Mark), Mark>;

/// The two sides of a race, or of a touch of unfinished data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conflict {
    /// The earlier access.
    pub other: Stamp,
    /// Its lane, if one is known.
    pub lane: Option<u32>,
    /// Whether the earlier access was a read.
    pub was_read: bool,
}

/// How bytes are accessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
    /// A volatile, relaxed or acquiring load.
    StrongRead,
    /// An atomic, or a strong store.
    Atomic,
}

/// The thread that accesses, and what it is ordered behind.
pub struct Accessor<'a> {
    pub block: u32,
    pub warp: u32,
    pub lane: u32,
    /// The stamp of this access, plain or atomic.
    pub stamp: u32,
    pub views: &'a Views,
    pub stamps: &'a Stamps,
    pub sets: &'a mut KnownSets,
    /// Keep the lanes of readers apart where there are several warps: exact, and affordable for shared memory only.
    pub keep_lanes: bool,
}

impl Accessor<'_> {
    /// Whether the access of `mark` is ordered before this one.
    #[inline]
    fn follows(&self, mark: Mark) -> bool {
        let stamp = self.stamps.of(mark);
        if stamp.kind == Kind::Pending {
            return false;
        }
        let lane = mark & CODE;
        if stamp.block != self.block {
            return self.views.of(self.lane).covers_other(stamp.block, stamp.warp, lane, stamp.time);
        }
        stamp.warp == self.warp && lane == self.lane
            || self.views.of(self.lane).own.covers(stamp.warp, lane, stamp.time)
    }

    /// The first of `readers` that this access races with.
    fn unordered(&self, readers: Mark, skip: impl Fn(Stamp) -> bool) -> Option<Mark> {
        let mut rest = readers;
        while rest != 0 {
            let member;
            (rest, member) = match rest & CODE {
                SET => {
                    let (parent, member, _) = self.stamps.set(rest);
                    (parent, member)
                }
                _ => (0, rest),
            };
            if !skip(self.stamps.of(member)) && !self.follows(member) {
                return Some(member);
            }
        }
        None
    }

    /// The readers with this one among them.
    fn with_me(&mut self, readers: Mark, me: Mark) -> Mark {
        if readers & CODE != SET {
            return match () {
                _ if readers >> CODE_BITS == self.stamp => mark(self.stamp, ALL_LANES),
                _ if self.supersedes(readers) => me,
                _ => {
                    let first = if self.keep_lanes { readers } else { self.all_lanes(readers) };
                    self.insert(first, me)
                }
            };
        }
        let (_, newest, _) = self.stamps.set(readers);
        if newest == me || newest == mark(self.stamp, ALL_LANES) {
            return readers;
        }
        let mut members = Vec::new();
        let mut rest = readers;
        while rest != 0 && members.len() < REBUILD {
            let (parent, member) = match rest & CODE {
                SET => {
                    let (parent, member, _) = self.stamps.set(rest);
                    (parent, member)
                }
                _ => (0, rest),
            };
            members.push(member);
            rest = parent;
        }
        if rest != 0 {
            return self.insert(readers, me);
        }
        members.retain(|&member| !self.supersedes(member));
        let same = members.iter().position(|&member| member >> CODE_BITS == self.stamp);
        let me = same.map_or(me, |same| mark(members.swap_remove(same) >> CODE_BITS, ALL_LANES));
        // Oldest first, so that warps which read alike share their sets.
        match members.pop() {
            None => me,
            Some(first) => {
                let set = members.iter().rev().fold(first, |set, &member| self.insert(set, member));
                self.insert(set, me)
            }
        }
    }

    /// Whether whoever is ordered behind this access is behind `member` too, so that it may be forgotten.
    fn supersedes(&self, member: Mark) -> bool {
        let (theirs, ours) = (self.stamps.of(member), self.stamps.of(mark(self.stamp, 0)));
        let covered = theirs.kind == ours.kind
            || theirs.kind == Kind::StrongRead
            || (theirs.kind, ours.kind) == (Kind::Plain, Kind::Pending);
        covered && (ours.narrow || !theirs.narrow) && self.follows(member)
    }

    /// What a strong access must not skip: strong accesses of other blocks, where one of both is narrow.
    fn apart(&self, other: Stamp, narrow: bool) -> bool {
        other.block != self.block && (narrow || other.narrow)
    }

    /// Whether this access is for its own block alone.
    fn is_narrow(&self) -> bool {
        self.stamps.of(mark(self.stamp, 0)).narrow
    }

    fn all_lanes(&self, mark: Mark) -> Mark {
        mark & !CODE | ALL_LANES
    }

    /// The set of `parent` (a set or a mark) and `member`.
    fn insert(&mut self, parent: Mark, member: Mark) -> Mark {
        let member = if self.keep_lanes { member } else { self.all_lanes(member) };
        if let Some(&set) = self.sets.get(&(parent, member)) {
            return set;
        }
        let (before, member_holds) = (self.stamps.holds(parent), self.stamps.holds(member));
        let atomic = before.atomic || member_holds.atomic;
        let narrow = before.narrow || member_holds.narrow;
        let words = [u64::from(parent) << 32 | u64::from(member), u64::from(atomic) | u64::from(narrow) << 1];
        // Without room for another set, the newest reader alone is kept: a race may be missed, none is invented.
        let set = self.stamps.sets.push(words).map_or(member, |id| mark(id, SET));
        self.sets.insert((parent, member), set);
        set
    }

    fn conflict(&self, mark: Mark, was_read: bool) -> Conflict {
        let lane = Some(mark & CODE).filter(|&code| code < ALL_LANES);
        Conflict { other: self.stamps.of(mark), lane, was_read }
    }
}

/// The last accesses to a few bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Cell {
    writer: Mark,
    readers: Mark,
}

impl Cell {
    #[inline]
    fn access(&mut self, accessor: &mut Accessor, access: Access) -> Result<(), Conflict> {
        let me = mark(accessor.stamp, accessor.lane);
        if self.writer != 0 && self.writer != me && !accessor.follows(self.writer) {
            return Err(accessor.conflict(self.writer, false));
        }
        let readers = self.readers & !WAS_READ;
        match access {
            Access::Write => {
                if readers != 0
                    && let Some(reader) = accessor.unordered(readers, |_| false)
                {
                    let atomic = accessor.stamps.of(reader).kind == Kind::Atomic;
                    return Err(accessor.conflict(reader, !atomic));
                }
                self.writer = me;
                self.readers &= WAS_READ;
                return Ok(());
            }
            Access::Read => {
                if readers == me {
                    return Ok(());
                }
                if accessor.stamps.holds(readers).atomic
                    && let Some(atomic) = accessor.unordered(readers, |other| other.kind != Kind::Atomic)
                {
                    return Err(accessor.conflict(atomic, false));
                }
            }
            Access::Atomic => {
                let narrow = accessor.is_narrow();
                let strong = |kind| matches!(kind, Kind::Atomic | Kind::StrongRead);
                let skip = |other: Stamp| strong(other.kind) && !accessor.apart(other, narrow);
                if let Some(reader) = accessor.unordered(readers, skip) {
                    return Err(accessor.conflict(reader, true));
                }
            }
            Access::StrongRead => {
                let (narrow, holds) = (accessor.is_narrow(), accessor.stamps.holds(readers));
                let skip = |other: Stamp| other.kind != Kind::Atomic || !accessor.apart(other, narrow);
                if holds.atomic
                    && (narrow || holds.narrow)
                    && let Some(atomic) = accessor.unordered(readers, skip)
                {
                    return Err(accessor.conflict(atomic, false));
                }
            }
        }
        self.readers = WAS_READ | if readers == 0 { me } else { accessor.with_me(readers, me) };
        Ok(())
    }
}

/// The marks of a page: one cell for 16, 8, 4, 2 or 1 bytes, as fine as the accesses so far ask for.
#[derive(Debug, Default)]
pub struct Shadow {
    launch: u64,
    grain: u32,
    cells: Vec<Cell>,
}

impl Shadow {
    /// Records an access of `size` bytes, a power of two that divides `offset`.
    ///
    /// # Errors
    /// The access that it races with.
    #[inline]
    pub fn access(
        &mut self,
        launch: u64,
        offset: usize,
        size: usize,
        accessor: &mut Accessor,
        access: Access,
    ) -> Result<(), Conflict> {
        self.prepare(launch, size);
        for cell in &mut self.cells[offset >> self.grain..(offset + size) >> self.grain] {
            cell.access(accessor, access)?;
        }
        Ok(())
    }

    /// Whether the byte was written in the launch that the last access belongs to.
    pub fn was_written(&self, offset: usize) -> bool {
        self.cells.get(offset >> self.grain).is_some_and(|cell| cell.writer != 0)
    }

    /// Makes `mark` the last writer, whatever was there: an asynchronous copy that begins, or has been waited for.
    pub fn settle(&mut self, launch: u64, offset: usize, size: usize, mark: Mark) {
        self.prepare(launch, size);
        for cell in &mut self.cells[offset >> self.grain..(offset + size) >> self.grain] {
            *cell = Cell { writer: mark, readers: cell.readers & WAS_READ };
        }
    }

    /// (bytes read, bytes written, bytes either read or written) in `launch`.
    pub fn touched(&self, launch: u64) -> (u64, u64, u64) {
        let (mut read, mut written, mut either) = (0, 0, 0);
        if self.launch == launch {
            for cell in &self.cells {
                let (r, w) = (cell.readers & WAS_READ != 0, cell.writer != 0);
                read += u64::from(r);
                written += u64::from(w);
                either += u64::from(r || w);
            }
        }
        (read << self.grain, written << self.grain, either << self.grain)
    }

    /// Gives the memory back.
    pub fn clear(&mut self) {
        *self = Shadow::default();
    }

    #[inline]
    fn prepare(&mut self, launch: u64, size: usize) {
        let grain = size.trailing_zeros().min(4);
        if self.launch != launch || self.cells.is_empty() {
            self.launch = launch;
            self.grain = grain;
            self.cells.clear();
            self.cells.resize(PAGE >> grain, Cell::default());
        } else if grain < self.grain {
            let parts = 1 << (self.grain - grain);
            self.cells = self.cells.iter().flat_map(|&cell| std::iter::repeat_n(cell, parts)).collect();
            self.grain = grain;
        }
    }
}
