//! The shadow of a page: who last accessed its bytes in the running launch.

use rustc_hash::FxHashMap;

use super::clock::Views;
use super::epoch::{ALL_LANES, Epoch, EpochKind, EpochRef, LANE_SET, READ_SET, code, id, lane_of, lane_ref};
use super::epoch_table::EpochTable;
use super::read_set::{ReadSetBuilder, ReadSetCache};
use crate::registers::each_lane;

/// Bytes that a shadow covers: a page of memory.
pub const SHADOWED_BYTES: usize = 4096;
/// Flag of a cell's `writer`: the cell was written in this launch. Flag of its `readers`: the cell was read in this
/// launch, whether or not the reader is remembered.
const TOUCHED: EpochRef = 1 << 31;
/// Lane sets of up to this many members are rebuilt without superseded members.
const MAX_REBUILT: usize = 64;

/// Caches of the reader sets that were built, so that equal sets get the same id. A block has one for its shared memory,
/// a worker has one for device memory.
#[derive(Debug, Default)]
pub struct ReaderCache {
    lane_sets: FxHashMap<(EpochRef, EpochRef), EpochRef>,
    read_sets: ReadSetCache,
}

impl ReaderCache {
    /// Removes all lane sets.
    pub fn clear(&mut self) {
        self.lane_sets.clear();
    }
}

/// The earlier of two conflicting accesses, or of an access to memory that a pending copy uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conflict {
    /// The earlier access.
    pub other: Epoch,
    /// Its lane, if it is known.
    pub lane: Option<u32>,
    /// Whether the earlier access was a read.
    pub was_read: bool,
}

/// How bytes are accessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
    /// A volatile, relaxed or acquire load.
    StrongRead,
    StrongWrite,
    Atomic,
}

/// The thread that accesses memory.
pub struct Accessor<'a> {
    pub block: u32,
    pub warp: u32,
    pub lane: u32,
    /// Id of the epoch of this access.
    pub epoch: u32,
    /// What the thread's warp knows of other threads.
    pub views: &'a Views,
    pub epochs: &'a EpochTable,
    pub cache: &'a mut ReaderCache,
    /// Whether the memory is shared memory, whose readers form lane sets. Readers of device memory form read sets.
    pub shared: bool,
}

impl Accessor<'_> {
    /// The epoch of this access.
    fn own_epoch(&self) -> Epoch {
        self.epochs.epoch(self.epoch)
    }

    /// Whether the access of a reference happened before this one.
    #[inline]
    fn follows(&self, reference: EpochRef) -> bool {
        let epoch = self.epochs.epoch_of(reference);
        if matches!(epoch.kind, EpochKind::Pending | EpochKind::ReadOnly) {
            return false;
        }
        let (view, lanes) = (self.views.of(self.lane), epoch.lanes_of(reference));
        if epoch.block != self.block {
            return view.covers_other(epoch.block, epoch.warp, lanes, epoch.time);
        }
        let others = if epoch.warp == self.warp { lanes & !(1 << self.lane) } else { lanes };
        others == 0 || view.own.covers(epoch.warp, others, epoch.time)
    }

    /// The first of some warps of an epoch's block whose access did not happen before this one.
    fn first_unordered(&self, epoch: Epoch, warps: u32) -> Option<u32> {
        let view = self.views.of(self.lane);
        let follows = |warp: u32| match () {
            _ if matches!(epoch.kind, EpochKind::Pending | EpochKind::ReadOnly) => false,
            _ if epoch.block != self.block => view.covers_other(epoch.block, warp, u32::MAX, epoch.time),
            _ if warp == self.warp => view.own.covers(warp, !(1 << self.lane), epoch.time),
            _ => view.own.covers(warp, u32::MAX, epoch.time),
        };
        each_lane(warps).find(|&warp| !follows(warp))
    }

    /// The first of `readers` that this access races with, and its lane if it is known. Epochs that `skip` accepts are
    /// left out.
    fn first_race(&self, readers: EpochRef, skip: impl Fn(Epoch) -> bool) -> Option<(Epoch, Option<u32>)> {
        if code(readers) == READ_SET {
            return self.epochs.read_sets.chain(id(readers)).find_map(|member| {
                let epoch = self.epochs.epoch(member.epoch);
                if skip(epoch) {
                    return None;
                }
                let warp = self.first_unordered(epoch, member.warps)?;
                Some((Epoch { warp, ..epoch }, None))
            });
        }
        let raced = |&member: &EpochRef| !skip(self.epochs.epoch_of(member)) && !self.follows(member);
        self.epochs.members(readers).find(raced).map(|member| (self.epochs.epoch_of(member), lane_of(member)))
    }

    /// The readers of a cell after this read; `own` is the reference to it.
    fn insert_into(&mut self, readers: EpochRef, own: EpochRef) -> EpochRef {
        match code(readers) {
            LANE_SET => return self.insert_into_lane_set(readers, own),
            READ_SET => {
                let newest = self.epochs.read_sets.get(id(readers)).epoch;
                if self.is_read_only(newest) {
                    return readers;
                }
            }
            _ if id(readers) == self.epoch => return lane_ref(self.epoch, ALL_LANES),
            _ if self.supersedes(readers) => return own,
            _ if self.is_read_only(id(readers)) => return readers,
            _ if self.shared => return self.lane_set(readers, own),
            _ => {}
        }
        let (epochs, epoch, warp) = (self.epochs, self.epoch, self.warp);
        let mut sets = std::mem::take(&mut self.cache.read_sets);
        let mut builder = ReadSetBuilder { sets: &epochs.read_sets, cache: &mut sets, epoch, warp };
        let supersedes = |theirs, warps| self.covers_kind(theirs) && self.first_unordered(theirs, warps).is_none();
        let set = builder.insert(readers, |id| epochs.epoch(id), supersedes);
        self.cache.read_sets = sets;
        set
    }

    fn insert_into_lane_set(&mut self, readers: EpochRef, own: EpochRef) -> EpochRef {
        let (_, newest, _) = self.epochs.lane_set(readers);
        if newest == own || newest == lane_ref(self.epoch, ALL_LANES) {
            return readers;
        }
        let mut members = [0; MAX_REBUILT];
        let mut count = 0;
        let mut own = own;
        for (position, member) in self.epochs.members(readers).enumerate() {
            match () {
                _ if id(member) == self.epoch && code(member) == ALL_LANES => return readers,
                _ if id(member) == self.epoch => own = lane_ref(self.epoch, ALL_LANES),
                _ if self.supersedes(member) => {}
                _ if position >= MAX_REBUILT => return self.lane_set(readers, own),
                _ => {
                    members[count] = member;
                    count += 1;
                }
            }
        }
        // Oldest first, so that cells with the same readers get the same set.
        match members[..count].split_last() {
            None => own,
            Some((&first, rest)) => {
                let set = rest.iter().rev().fold(first, |set, &member| self.lane_set(set, member));
                self.lane_set(set, own)
            }
        }
    }

    /// Whether `member` need not be remembered in addition to this access: every access that follows this one also
    /// follows `member`.
    fn supersedes(&self, member: EpochRef) -> bool {
        self.covers_kind(self.epochs.epoch_of(member))
            && (self.own_epoch().kind == EpochKind::ReadOnly || self.follows(member))
    }

    /// Whether this access races with every access that one like `theirs` would race with.
    fn covers_kind(&self, theirs: Epoch) -> bool {
        let ours = self.own_epoch();
        match (theirs.kind, ours.kind) {
            // No write of the launch may follow a read-only read at all.
            (_, EpochKind::ReadOnly) => theirs.kind != EpochKind::Atomic,
            (EpochKind::StrongRead, _) | (EpochKind::Plain, EpochKind::Pending) => {
                ours.block_scope || !theirs.block_scope
            }
            (theirs_kind, ours_kind) => theirs_kind == ours_kind && (ours.block_scope || !theirs.block_scope),
        }
    }

    /// Whether an epoch is a read-only read, which makes remembering any other read superfluous.
    fn is_read_only(&self, epoch: u32) -> bool {
        self.epochs.epoch(epoch).kind == EpochKind::ReadOnly
    }

    /// Whether two strong accesses are not morally strong: they are in different blocks, and one has block scope.
    fn scopes_exclude(&self, other: Epoch, block_scope: bool) -> bool {
        other.block != self.block && (block_scope || other.block_scope)
    }

    /// The lane set of `parent` (a lane set or one reference) and `member`.
    fn lane_set(&mut self, parent: EpochRef, member: EpochRef) -> EpochRef {
        if let Some(&set) = self.cache.lane_sets.get(&(parent, member)) {
            return set;
        }
        let kinds = self.epochs.kinds_of(parent).union(self.epochs.kinds_of(member));
        // If the table is full, the launch is stopped ([`EpochTable::is_full`]).
        let set = self.epochs.new_lane_set(parent, member, kinds).unwrap_or(member);
        self.cache.lane_sets.insert((parent, member), set);
        set
    }
}

/// The last accesses to a few bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Cell {
    writer: EpochRef,
    readers: EpochRef,
}

impl Cell {
    #[inline]
    fn access(&mut self, accessor: &mut Accessor, access: Access) -> Result<(), Conflict> {
        let own = lane_ref(accessor.epoch, accessor.lane);
        let (writer, readers) = (self.writer & !TOUCHED, self.readers & !TOUCHED);
        if writer != 0 && writer != own && !accessor.follows(writer) {
            return Err(Conflict { other: accessor.epochs.epoch_of(writer), lane: lane_of(writer), was_read: false });
        }
        match access {
            Access::Write => {
                if readers != 0
                    && let Some((other, lane)) = accessor.first_race(readers, |_| false)
                {
                    return Err(Conflict { other, lane, was_read: other.kind != EpochKind::Atomic });
                }
                self.writer = TOUCHED | own;
                self.readers &= TOUCHED;
                return Ok(());
            }
            Access::Read => {
                if readers == own {
                    return Ok(());
                }
                if accessor.epochs.kinds_of(readers).atomic
                    && let Some((other, lane)) = accessor.first_race(readers, |other| other.kind != EpochKind::Atomic)
                {
                    return Err(Conflict { other, lane, was_read: false });
                }
            }
            Access::StrongWrite | Access::Atomic => {
                let (block_scope, kinds) = (accessor.own_epoch().block_scope, accessor.epochs.kinds_of(readers));
                let strong = |kind| matches!(kind, EpochKind::Atomic | EpochKind::StrongRead);
                let skip = |other: Epoch| strong(other.kind) && !accessor.scopes_exclude(other, block_scope);
                if (kinds.weak || block_scope || kinds.block_scope)
                    && let Some((other, lane)) = accessor.first_race(readers, skip)
                {
                    return Err(Conflict { other, lane, was_read: true });
                }
            }
            Access::StrongRead => {
                let (block_scope, kinds) = (accessor.own_epoch().block_scope, accessor.epochs.kinds_of(readers));
                let skip =
                    |other: Epoch| other.kind != EpochKind::Atomic || !accessor.scopes_exclude(other, block_scope);
                if kinds.atomic
                    && (block_scope || kinds.block_scope)
                    && let Some((other, lane)) = accessor.first_race(readers, skip)
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
        self.readers = read | if readers == 0 { own } else { accessor.insert_into(readers, own) };
        Ok(())
    }
}

/// The shadow of a page. A cell stands for 16, 8, 4, 2 or 1 bytes, as fine as the accesses so far require.
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
    /// The earlier access that this one races with.
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

    /// Whether the byte was written in the launch of the last access.
    pub fn was_written(&self, offset: usize) -> bool {
        self.cells.get(offset >> self.grain).is_some_and(|cell| cell.writer & TOUCHED != 0)
    }

    /// Makes `writer` the last writer without any check: an asynchronous copy is issued or has completed.
    pub fn set_writer(&mut self, launch: u64, offset: usize, size: usize, writer: EpochRef) {
        self.prepare(launch, size);
        for cell in &mut self.cells[offset >> self.grain..(offset + size) >> self.grain] {
            *cell = Cell { writer: TOUCHED | writer, readers: cell.readers & TOUCHED };
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

    /// Frees the shadow's memory.
    pub fn clear(&mut self) {
        *self = Shadow::default();
    }

    /// Makes the shadow one of `launch` whose cells are at most `size` bytes.
    #[inline]
    fn prepare(&mut self, launch: u64, size: usize) {
        let grain = size.trailing_zeros().min(4);
        if self.launch != launch || self.cells.is_empty() {
            self.launch = launch;
            self.grain = grain;
            self.cells.clear();
            self.cells.resize(SHADOWED_BYTES >> grain, Cell::default());
        } else if grain < self.grain {
            let parts = 1 << (self.grain - grain);
            self.cells = self.cells.iter().flat_map(|&cell| std::iter::repeat_n(cell, parts)).collect();
            self.grain = grain;
        }
    }
}
