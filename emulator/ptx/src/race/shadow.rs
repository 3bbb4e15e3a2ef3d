//! Who accessed a page's bytes last in the running launch.

use super::clock::Views;
use super::stamp::{ALL, Holds, Kind, KnownSets, Mark, SET, Stamp, Stamps, all_lanes, code, id, mark};
use crate::memory::page::PAGE;

/// In a cell's writer: the cell was written in this launch; in its readers: it was read, whoever is remembered.
const TOUCHED: Mark = 1 << 31;
/// Reader sets are rebuilt without what has become pointless, up to this many members.
const REBUILD: usize = 64;

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
    StrongWrite,
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
        if matches!(stamp.kind, Kind::Pending | Kind::ReadOnly) {
            return false;
        }
        let (view, lanes) = (self.views.of(self.lane), stamp.lanes_of(mark));
        if stamp.block != self.block {
            return view.covers_other(stamp.block, stamp.warp, lanes, stamp.time);
        }
        let others = if stamp.warp == self.warp { lanes & !(1 << self.lane) } else { lanes };
        others == 0 || view.own.covers(stamp.warp, others, stamp.time)
    }

    /// The first of `readers` that this access races with.
    fn unordered(&self, readers: Mark, skip: impl Fn(Stamp) -> bool) -> Option<Mark> {
        self.stamps.members(readers).find(|&member| !skip(self.stamps.of(member)) && !self.follows(member))
    }

    /// The readers with this one among them.
    fn with_me(&mut self, readers: Mark, me: Mark) -> Mark {
        if code(readers) != SET {
            return match () {
                _ if id(readers) == self.stamp => mark(self.stamp, ALL),
                _ if self.supersedes(readers) => me,
                _ if self.is_superseded(readers) => readers,
                _ => {
                    let first = if self.keep_lanes { readers } else { all_lanes(readers) };
                    self.insert(first, me)
                }
            };
        }
        let (_, newest, _) = self.stamps.set(readers);
        if newest == me || newest == mark(self.stamp, ALL) || self.is_superseded(newest) {
            return readers;
        }
        let mut members: Vec<Mark> = self.stamps.members(readers).take(REBUILD + 1).collect();
        if members.len() > REBUILD {
            return self.insert(readers, me);
        }
        members.retain(|&member| !self.supersedes(member));
        let same = members.iter().position(|&member| id(member) == self.stamp);
        let me = same.map_or(me, |same| all_lanes(members.swap_remove(same)));
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
        if ours.kind == Kind::ReadOnly {
            // No write may come after it at all.
            return theirs.kind != Kind::Atomic;
        }
        let covered = theirs.kind == ours.kind
            || theirs.kind == Kind::StrongRead
            || (theirs.kind, ours.kind) == (Kind::Plain, Kind::Pending);
        covered && (ours.narrow || !theirs.narrow) && self.follows(member)
    }

    /// Whether `member` makes this access, a read, not worth remembering.
    fn is_superseded(&self, member: Mark) -> bool {
        self.stamps.of(member).kind == Kind::ReadOnly
    }

    /// What a strong access must not skip: strong accesses of other blocks, where one of both is narrow.
    fn apart(&self, other: Stamp, narrow: bool) -> bool {
        other.block != self.block && (narrow || other.narrow)
    }

    /// Whether this access is for its own block alone.
    fn is_narrow(&self) -> bool {
        self.stamps.of(mark(self.stamp, 0)).narrow
    }

    /// The set of `parent` (a set or a mark) and `member`.
    fn insert(&mut self, parent: Mark, member: Mark) -> Mark {
        let member = if self.keep_lanes { member } else { all_lanes(member) };
        if let Some(&set) = self.sets.get(&(parent, member)) {
            return set;
        }
        let (before, added) = (self.stamps.holds(parent), self.stamps.holds(member));
        let holds = Holds { atomic: before.atomic || added.atomic, narrow: before.narrow || added.narrow };
        // Without room for another set, the newest reader alone is kept: a race may be missed, none is invented.
        let set = self.stamps.new_set(parent, member, holds).unwrap_or(member);
        self.sets.insert((parent, member), set);
        set
    }

    fn conflict(&self, mark: Mark, was_read: bool) -> Conflict {
        let lane = Some(code(mark)).filter(|&code| code < ALL);
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
        let (writer, readers) = (self.writer & !TOUCHED, self.readers & !TOUCHED);
        if writer != 0 && writer != me && !accessor.follows(writer) {
            return Err(accessor.conflict(writer, false));
        }
        match access {
            Access::Write => {
                if readers != 0
                    && let Some(reader) = accessor.unordered(readers, |_| false)
                {
                    let atomic = accessor.stamps.of(reader).kind == Kind::Atomic;
                    return Err(accessor.conflict(reader, !atomic));
                }
                self.writer = TOUCHED | me;
                self.readers &= TOUCHED;
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
            Access::StrongWrite | Access::Atomic => {
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
        let (read, written) = match access {
            Access::StrongWrite => (self.readers & TOUCHED, TOUCHED),
            Access::Atomic => (TOUCHED, TOUCHED),
            _ => (TOUCHED, 0),
        };
        self.writer |= written;
        self.readers = read | if readers == 0 { me } else { accessor.with_me(readers, me) };
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
        self.cells.get(offset >> self.grain).is_some_and(|cell| cell.writer & TOUCHED != 0)
    }

    /// Makes `mark` the last writer, whatever was there: an asynchronous copy that begins, or has been waited for.
    pub fn settle(&mut self, launch: u64, offset: usize, size: usize, mark: Mark) {
        self.prepare(launch, size);
        for cell in &mut self.cells[offset >> self.grain..(offset + size) >> self.grain] {
            *cell = Cell { writer: TOUCHED | mark, readers: cell.readers & TOUCHED };
        }
    }

    /// (bytes read, bytes written, bytes either read or written) in `launch`.
    pub fn touched(&self, launch: u64) -> (u64, u64, u64) {
        let (mut read, mut written, mut either) = (0, 0, 0);
        if self.launch == launch {
            for cell in &self.cells {
                let (r, w) = (cell.readers & TOUCHED != 0, cell.writer & TOUCHED != 0);
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
