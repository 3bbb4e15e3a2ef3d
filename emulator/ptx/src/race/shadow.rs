//! Who accessed a page's bytes last in the running launch.

use rustc_hash::FxHashMap;

use super::clock::Views;
use super::crowd::{Joiner, KnownCrowds};
use super::stamp::{ALL, CROWD, Kind, Mark, SET, Stamp, Stamps, code, id, mark};
use crate::memory::page::PAGE;
use crate::registers::each_lane;

/// In a cell's writer: the cell was written in this launch; in its readers: it was read, whoever is remembered.
const TOUCHED: Mark = 1 << 31;
/// Reader sets are rebuilt without what has become pointless, up to this many members.
const REBUILD: usize = 64;

/// What was made of several readers, so that the same ones are one: a block's for its shared memory, a worker's for the
/// device's.
#[derive(Debug, Default)]
pub struct KnownReaders {
    sets: FxHashMap<(Mark, Mark), Mark>,
    crowds: KnownCrowds,
}

impl KnownReaders {
    pub fn clear(&mut self) {
        self.sets.clear();
    }
}

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
    pub known: &'a mut KnownReaders,
    /// Shared memory: several readers are a set of marks, lanes and all. Else they are a crowd.
    pub shared: bool,
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

    /// [`Accessor::follows`] for warps of a block.
    fn follows_warps(&self, stamp: Stamp, warps: u32) -> Result<(), u32> {
        let view = self.views.of(self.lane);
        let follows = |warp: u32| match () {
            _ if matches!(stamp.kind, Kind::Pending | Kind::ReadOnly) => false,
            _ if stamp.block != self.block => view.covers_other(stamp.block, warp, u32::MAX, stamp.time),
            _ if warp == self.warp => view.own.covers(warp, !(1 << self.lane), stamp.time),
            _ => view.own.covers(warp, u32::MAX, stamp.time),
        };
        each_lane(warps).find(|&warp| !follows(warp)).map_or(Ok(()), Err)
    }

    /// The first of `readers` that this access races with: a stamp, and a lane if one is known.
    fn unordered(&self, readers: Mark, skip: impl Fn(Stamp) -> bool) -> Option<(Stamp, Option<u32>)> {
        if code(readers) == CROWD {
            return self.stamps.crowds.chain(id(readers)).find_map(|member| {
                let stamp = self.stamps.of(mark(member.stamp, ALL));
                if skip(stamp) {
                    return None;
                }
                let warp = self.follows_warps(stamp, member.warps).err()?;
                Some((Stamp { warp, ..stamp }, None))
            });
        }
        let raced = |&member: &Mark| !skip(self.stamps.of(member)) && !self.follows(member);
        self.stamps.members(readers).find(raced).map(|member| (self.stamps.of(member), lane_of(member)))
    }

    /// The readers with this one among them.
    fn with_me(&mut self, readers: Mark, me: Mark) -> Mark {
        match code(readers) {
            SET => return self.set_with_me(readers, me),
            CROWD => {
                let newest = self.stamps.crowds.get(id(readers)).stamp;
                if self.is_superseded(mark(newest, ALL)) {
                    return readers;
                }
            }
            _ if id(readers) == self.stamp => return mark(self.stamp, ALL),
            _ if self.supersedes(readers) => return me,
            _ if self.is_superseded(readers) => return readers,
            _ if self.shared => return self.insert(readers, me),
            _ => {}
        }
        let Accessor { stamps, known, stamp, warp, .. } = self;
        let mut crowds = std::mem::take(&mut known.crowds);
        let mut joiner = Joiner { crowds: &stamps.crowds, known: &mut crowds, stamp: *stamp, warp: *warp };
        let of = |stamp| stamps.of(mark(stamp, ALL));
        let joined = joiner
            .join(readers, of, |theirs, warps| self.covers_kind(theirs) && self.follows_warps(theirs, warps).is_ok());
        self.known.crowds = crowds;
        joined
    }

    fn set_with_me(&mut self, readers: Mark, me: Mark) -> Mark {
        let (_, newest, _) = self.stamps.set(readers);
        if newest == me || newest == mark(self.stamp, ALL) {
            return readers;
        }
        let mut members = [0; REBUILD];
        let mut count = 0;
        let mut mine = me;
        for (place, member) in self.stamps.members(readers).enumerate() {
            match () {
                _ if id(member) == self.stamp && code(member) == ALL => return readers,
                _ if id(member) == self.stamp => mine = mark(self.stamp, ALL),
                _ if self.supersedes(member) => {}
                _ if place >= REBUILD => return self.insert(readers, mine),
                _ => {
                    members[count] = member;
                    count += 1;
                }
            }
        }
        // Oldest first, so that warps which read alike share their sets.
        match members[..count].split_last() {
            None => mine,
            Some((&first, rest)) => {
                let set = rest.iter().rev().fold(first, |set, &member| self.insert(set, member));
                self.insert(set, mine)
            }
        }
    }

    /// Whether whoever is ordered behind this access is behind `member` too, so that it may be forgotten.
    fn supersedes(&self, member: Mark) -> bool {
        self.covers_kind(self.stamps.of(member)) && (self.is_read_only() || self.follows(member))
    }

    /// Whether this access races with all that one of `theirs` kind would race with.
    fn covers_kind(&self, theirs: Stamp) -> bool {
        let ours = self.stamps.of(mark(self.stamp, 0));
        match (theirs.kind, ours.kind) {
            // No write may come after it at all.
            (_, Kind::ReadOnly) => theirs.kind != Kind::Atomic,
            (Kind::StrongRead, _) | (Kind::Plain, Kind::Pending) => ours.narrow || !theirs.narrow,
            (theirs_kind, ours_kind) => theirs_kind == ours_kind && (ours.narrow || !theirs.narrow),
        }
    }

    fn is_read_only(&self) -> bool {
        self.stamps.of(mark(self.stamp, 0)).kind == Kind::ReadOnly
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
        if let Some(&set) = self.known.sets.get(&(parent, member)) {
            return set;
        }
        let holds = self.stamps.holds(parent).and(self.stamps.holds(member));
        // Without room for another set the launch ends ([`Stamps::is_full`]).
        let set = self.stamps.new_set(parent, member, holds).unwrap_or(member);
        self.known.sets.insert((parent, member), set);
        set
    }
}

/// The lane of a mark that stands for one.
fn lane_of(mark: Mark) -> Option<u32> {
    Some(code(mark)).filter(|&code| code < ALL)
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
            return Err(Conflict { other: accessor.stamps.of(writer), lane: lane_of(writer), was_read: false });
        }
        match access {
            Access::Write => {
                if readers != 0
                    && let Some((other, lane)) = accessor.unordered(readers, |_| false)
                {
                    return Err(Conflict { other, lane, was_read: other.kind != Kind::Atomic });
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
                    && let Some((other, lane)) = accessor.unordered(readers, |other| other.kind != Kind::Atomic)
                {
                    return Err(Conflict { other, lane, was_read: false });
                }
            }
            Access::StrongWrite | Access::Atomic => {
                let (narrow, holds) = (accessor.is_narrow(), accessor.stamps.holds(readers));
                let strong = |kind| matches!(kind, Kind::Atomic | Kind::StrongRead);
                let skip = |other: Stamp| strong(other.kind) && !accessor.apart(other, narrow);
                if (holds.weak || narrow || holds.narrow)
                    && let Some((other, lane)) = accessor.unordered(readers, skip)
                {
                    return Err(Conflict { other, lane, was_read: true });
                }
            }
            Access::StrongRead => {
                let (narrow, holds) = (accessor.is_narrow(), accessor.stamps.holds(readers));
                let skip = |other: Stamp| other.kind != Kind::Atomic || !accessor.apart(other, narrow);
                if holds.atomic
                    && (narrow || holds.narrow)
                    && let Some((other, lane)) = accessor.unordered(readers, skip)
                {
                    return Err(Conflict { other, lane, was_read: false });
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
