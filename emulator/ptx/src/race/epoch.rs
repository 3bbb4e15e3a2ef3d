//! Epochs and epoch references: how the shadow remembers an access in four bytes.

use crate::registers::LANES;

/// A reference to one or more accesses: `id << 6 | code`. 0 refers to none.
///
/// A code below 32 is a lane of the epoch `id`; [`ALL_LANES`] means all lanes of that epoch. With [`LANE_SET`] and
/// [`READ_SET`] the id is that of a set of readers. The highest bit is 0, so that the shadow can use it as a flag.
pub type EpochRef = u32;
const CODE_BITS: u32 = 6;
const CODE: u32 = (1 << CODE_BITS) - 1;
pub const ALL_LANES: u32 = LANES as u32;
/// The reference is to a set of epoch references: readers of shared memory.
pub const LANE_SET: u32 = ALL_LANES + 1;
/// The reference is to a shared read set: readers of device memory, which are warps of many blocks.
pub const READ_SET: u32 = ALL_LANES + 2;

/// The reference to one lane of an epoch, or with another code to what the code says.
#[inline]
pub fn lane_ref(id: u32, lane_or_code: u32) -> EpochRef {
    id << CODE_BITS | lane_or_code
}

/// The id of the epoch or of the set.
#[inline]
pub fn id(reference: EpochRef) -> u32 {
    reference >> CODE_BITS
}

/// The lane, or the code for several.
#[inline]
pub fn code(reference: EpochRef) -> u32 {
    reference & CODE
}

/// The lane, if the reference is to one lane.
pub fn lane_of(reference: EpochRef) -> Option<u32> {
    Some(code(reference)).filter(|&code| code < ALL_LANES)
}

/// The kind of access that an epoch stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EpochKind {
    Plain = 0,
    /// An atomic or a strong store. It races with another one, or with a strong load, only if one of the two has block
    /// scope and they are in different blocks.
    Atomic = 1,
    /// The target or the source of an asynchronous copy that has not been waited for.
    Pending = 2,
    /// A volatile, relaxed or acquire load.
    StrongRead = 3,
    /// `ld.global.nc`: the memory that it read must not change during the launch.
    ReadOnly = 4,
}

/// Who accessed memory, when, and by which instruction. An epoch reference adds the lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch {
    pub block: u32,
    pub warp: u32,
    pub time: u32,
    pub pc: u32,
    pub kind: EpochKind,
    /// The access is strong and has block scope (`.cta`).
    pub block_scope: bool,
    /// The lanes that accessed memory in this epoch.
    pub lanes: u32,
}

impl Epoch {
    /// Two words: block and time; lanes, pc (23 bits), warp (5), block scope (1) and kind (3).
    pub fn pack(self) -> [u64; 2] {
        let fields = self.pc << 9 | self.warp << 4 | u32::from(self.block_scope) << 3 | self.kind as u32;
        let high = u64::from(self.block) << 32 | u64::from(self.time);
        [high, u64::from(self.lanes) << 32 | u64::from(fields)]
    }

    #[inline]
    pub fn unpack([high, low]: [u64; 2]) -> Self {
        let fields = low as u32;
        let kind = match fields & 7 {
            0 => EpochKind::Plain,
            1 => EpochKind::Atomic,
            2 => EpochKind::Pending,
            3 => EpochKind::StrongRead,
            _ => EpochKind::ReadOnly,
        };
        Self {
            block: (high >> 32) as u32,
            time: high as u32,
            pc: fields >> 9,
            warp: fields >> 4 & 31,
            kind,
            block_scope: fields >> 3 & 1 != 0,
            lanes: (low >> 32) as u32,
        }
    }

    /// The lanes that a reference to this epoch stands for.
    #[inline]
    pub fn lanes_of(&self, reference: EpochRef) -> u32 {
        match code(reference) {
            ALL_LANES => self.lanes,
            lane => 1 << lane,
        }
    }
}

/// Which kinds of access occur among some readers.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReaderKinds {
    pub atomic: bool,
    pub block_scope: bool,
    /// An access that is not strong.
    pub weak: bool,
}

impl ReaderKinds {
    pub fn pack(self) -> u64 {
        u64::from(self.atomic) | u64::from(self.block_scope) << 1 | u64::from(self.weak) << 2
    }

    pub fn unpack(bits: u64) -> Self {
        Self { atomic: bits & 1 != 0, block_scope: bits & 2 != 0, weak: bits & 4 != 0 }
    }

    pub fn union(self, other: ReaderKinds) -> Self {
        Self {
            atomic: self.atomic || other.atomic,
            block_scope: self.block_scope || other.block_scope,
            weak: self.weak || other.weak,
        }
    }
}

impl From<Epoch> for ReaderKinds {
    fn from(epoch: Epoch) -> Self {
        let strong = matches!(epoch.kind, EpochKind::Atomic | EpochKind::StrongRead);
        Self { atomic: epoch.kind == EpochKind::Atomic, block_scope: epoch.block_scope, weak: !strong }
    }
}
