//! Marks and stamps: how an access is remembered in four bytes.

use super::crowd::Crowds;
use super::table::Table;
use crate::registers::LANES;

/// A stamp and a code: `stamp << 6 | code`. 0 is nobody. Code 0–31 is a lane, [`ALL`] all lanes that used the stamp; with
/// [`SET`] and [`CROWD`] the upper bits are the id of several readers instead. The highest bit is free for the cells.
pub type Mark = u32;
const CODE_BITS: u32 = 6;
const CODE: u32 = (1 << CODE_BITS) - 1;
pub const ALL: u32 = LANES as u32;
/// A set of marks: readers of shared memory.
pub const SET: u32 = ALL + 1;
/// A crowd: readers of device memory, warps of many blocks.
pub const CROWD: u32 = ALL + 2;

/// The mark of one lane.
#[inline]
pub fn mark(stamp: u32, lane: u32) -> Mark {
    stamp << CODE_BITS | lane
}

/// The stamp's id, or the set's.
#[inline]
pub fn id(mark: Mark) -> u32 {
    mark >> CODE_BITS
}

#[inline]
pub fn code(mark: Mark) -> u32 {
    mark & CODE
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
    /// `ld.global.nc`: what it read must not change in the whole launch.
    ReadOnly = 4,
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
    /// The lanes that used it.
    pub lanes: u32,
}

impl Stamp {
    /// Low word: kind (3 bits), narrow (1), warp (5), pc (23); lanes above.
    fn pack(self) -> [u64; 2] {
        let place = self.pc << 9 | self.warp << 4 | u32::from(self.narrow) << 3 | self.kind as u32;
        let high = u64::from(self.block) << 32 | u64::from(self.time);
        [high, u64::from(self.lanes) << 32 | u64::from(place)]
    }

    #[inline]
    fn unpack([high, low]: [u64; 2]) -> Self {
        let place = low as u32;
        let kind = match place & 7 {
            0 => Kind::Plain,
            1 => Kind::Atomic,
            2 => Kind::Pending,
            3 => Kind::StrongRead,
            _ => Kind::ReadOnly,
        };
        Self {
            block: (high >> 32) as u32,
            time: high as u32,
            pc: place >> 9,
            warp: place >> 4 & 31,
            kind,
            narrow: place >> 3 & 1 != 0,
            lanes: (low >> 32) as u32,
        }
    }

    /// The lanes that a mark of this stamp stands for.
    #[inline]
    pub fn lanes_of(&self, mark: Mark) -> u32 {
        match code(mark) {
            ALL => self.lanes,
            lane => 1 << lane,
        }
    }
}

/// Stamps and reader sets of one memory: a launch's device memory, or a block's shared memory.
#[derive(Debug)]
pub struct Stamps {
    stamps: Table<2>,
    /// Words: parent set and mark; what it [`Holds`].
    sets: Table<2>,
    pub crowds: Crowds,
}

/// What is among some readers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Holds {
    pub atomic: bool,
    pub narrow: bool,
    /// Something that is not strong.
    pub weak: bool,
}

impl Holds {
    pub fn pack(self) -> u64 {
        u64::from(self.atomic) | u64::from(self.narrow) << 1 | u64::from(self.weak) << 2
    }

    pub fn unpack(bits: u64) -> Self {
        Self { atomic: bits & 1 != 0, narrow: bits & 2 != 0, weak: bits & 4 != 0 }
    }

    pub fn and(self, other: Holds) -> Self {
        Self { atomic: self.atomic || other.atomic, narrow: self.narrow || other.narrow, weak: self.weak || other.weak }
    }
}

impl From<Stamp> for Holds {
    fn from(stamp: Stamp) -> Self {
        let strong = matches!(stamp.kind, Kind::Atomic | Kind::StrongRead);
        Self { atomic: stamp.kind == Kind::Atomic, narrow: stamp.narrow, weak: !strong }
    }
}

impl Stamps {
    pub fn new() -> Self {
        Self { stamps: Table::new(), sets: Table::new(), crowds: Crowds::default() }
    }

    /// The id of a new stamp; `None` if the launch is too long for the race check.
    pub fn stamp(&self, stamp: Stamp) -> Option<u32> {
        self.stamps.push(stamp.pack())
    }

    /// More lanes use a stamp.
    #[inline]
    pub fn add_lanes(&self, stamp: u32, lanes: u32) {
        if (self.stamps.get(stamp)[1] >> 32) as u32 & lanes != lanes {
            self.stamps.set_bits(stamp, 1, u64::from(lanes) << 32);
        }
    }

    /// The copy that a pending stamp stands for has been waited for: it becomes a plain access at `time`.
    pub fn finish(&self, stamp: u32, time: u32) {
        let pending = Stamp::unpack(self.stamps.get(stamp));
        self.stamps.replace(stamp, Stamp { time, kind: Kind::Plain, ..pending }.pack());
    }

    /// The stamp of a mark that is no set.
    #[inline]
    pub fn of(&self, mark: Mark) -> Stamp {
        Stamp::unpack(self.stamps.get(id(mark)))
    }

    /// No more readers can be told apart: the launch is too long for the race check.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.sets.is_full() || self.crowds.is_full()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.stamps.clear();
        self.sets.clear();
        self.crowds.clear();
    }

    /// The set without its newest member, that member, and what the set holds.
    pub fn set(&self, set: Mark) -> (Mark, Mark, Holds) {
        let [link, holds] = self.sets.get(id(set));
        ((link >> 32) as u32, link as u32, Holds::unpack(holds))
    }

    /// A new set; `None` if there is no room for more.
    pub fn new_set(&self, parent: Mark, member: Mark, holds: Holds) -> Option<Mark> {
        let link = u64::from(parent) << 32 | u64::from(member);
        self.sets.push([link, holds.pack()]).map(|id| mark(id, SET))
    }

    /// What is among readers: nobody, one mark, a set or a crowd.
    pub fn holds(&self, readers: Mark) -> Holds {
        match code(readers) {
            _ if readers == 0 => Holds::default(),
            SET => self.set(readers).2,
            CROWD => self.crowds.get(id(readers)).holds,
            _ => self.of(readers).into(),
        }
    }

    /// The marks of one mark or a set, newest first.
    pub fn members(&self, readers: Mark) -> impl Iterator<Item = Mark> {
        let mut rest = readers;
        std::iter::from_fn(move || {
            let member;
            (rest, member) = match code(rest) {
                _ if rest == 0 => return None,
                SET => {
                    let (parent, member, _) = self.set(rest);
                    (parent, member)
                }
                _ => (0, rest),
            };
            Some(member)
        })
    }
}
