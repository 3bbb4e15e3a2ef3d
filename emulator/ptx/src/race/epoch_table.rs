//! The epochs and reader sets of one memory.

use super::epoch::{Epoch, EpochKind, EpochRef, LANE_SET, READ_SET, ReaderKinds, code, id, lane_ref};
use super::read_set::ReadSets;
use super::table::Table;

/// Epochs and reader sets of a launch's device memory, or of a block's shared memory.
#[derive(Debug)]
pub struct EpochTable {
    epochs: Table<2>,
    /// Lane sets. Words: parent set and newest member; the [`ReaderKinds`] of the set.
    lane_sets: Table<2>,
    pub read_sets: ReadSets,
}

impl EpochTable {
    pub fn new() -> Self {
        Self { epochs: Table::new(), lane_sets: Table::new(), read_sets: ReadSets::default() }
    }

    /// Adds an epoch and returns its id; `None` if the launch is too long for the race check.
    pub fn push(&self, epoch: Epoch) -> Option<u32> {
        self.epochs.push(epoch.pack())
    }

    /// Adds lanes to an epoch.
    #[inline]
    pub fn add_lanes(&self, id: u32, lanes: u32) {
        if (self.epochs.get(id)[1] >> 32) as u32 & lanes != lanes {
            self.epochs.set_bits(id, 1, u64::from(lanes) << 32);
        }
    }

    /// The copy of a pending epoch has been waited for: the epoch becomes a plain access at `time`.
    pub fn complete(&self, id: u32, time: u32) {
        let pending = Epoch::unpack(self.epochs.get(id));
        self.epochs.replace(id, Epoch { time, kind: EpochKind::Plain, ..pending }.pack());
    }

    /// The epoch of an id.
    #[inline]
    pub fn epoch(&self, id: u32) -> Epoch {
        Epoch::unpack(self.epochs.get(id))
    }

    /// The epoch of a reference that is not a set.
    #[inline]
    pub fn epoch_of(&self, reference: EpochRef) -> Epoch {
        self.epoch(id(reference))
    }

    /// No further reader sets can be added: the launch is too long for the race check.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.lane_sets.is_full() || self.read_sets.is_full()
    }

    /// Removes everything.
    pub fn clear(&mut self) {
        self.epochs.clear();
        self.lane_sets.clear();
        self.read_sets.clear();
    }

    /// A lane set: the set without its newest member, the newest member, and the kinds of all members.
    pub fn lane_set(&self, set: EpochRef) -> (EpochRef, EpochRef, ReaderKinds) {
        let [link, kinds] = self.lane_sets.get(id(set));
        ((link >> 32) as u32, link as u32, ReaderKinds::unpack(kinds))
    }

    /// A new lane set; `None` if the table is full.
    pub fn new_lane_set(&self, parent: EpochRef, member: EpochRef, kinds: ReaderKinds) -> Option<EpochRef> {
        let link = u64::from(parent) << 32 | u64::from(member);
        self.lane_sets.push([link, kinds.pack()]).map(|id| lane_ref(id, LANE_SET))
    }

    /// The kinds of some readers: none, one reference, a lane set or a read set.
    pub fn kinds_of(&self, readers: EpochRef) -> ReaderKinds {
        match code(readers) {
            _ if readers == 0 => ReaderKinds::default(),
            LANE_SET => self.lane_set(readers).2,
            READ_SET => self.read_sets.get(id(readers)).kinds,
            _ => self.epoch_of(readers).into(),
        }
    }

    /// The references of a lane set, newest first, or the one reference itself.
    pub fn members(&self, readers: EpochRef) -> impl Iterator<Item = EpochRef> {
        let mut rest = readers;
        std::iter::from_fn(move || {
            let member;
            (rest, member) = match code(rest) {
                _ if rest == 0 => return None,
                LANE_SET => {
                    let (parent, member, _) = self.lane_set(rest);
                    (parent, member)
                }
                _ => (0, rest),
            };
            Some(member)
        })
    }
}
