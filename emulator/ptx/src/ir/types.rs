//! What instructions operate on: special registers, state spaces, addresses, memory orders, types and modes.

use crate::registers::Src;

/// A special register whose value is fixed when a warp starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Special {
    Tid(u8),
    Ntid(u8),
    Ctaid(u8),
    Nctaid(u8),
    LaneId,
    WarpId,
    NWarpId,
    /// `%lanemask_eq`, `_le`, `_lt`, `_ge`, `_gt`
    LaneMask(Relation),
    SmId,
    NSmId,
    GridId,
    DynamicSharedBytes,
    TotalSharedBytes,
    /// Address of dynamic shared memory.
    DynamicShared,
}

/// The relation of `%lanemask_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Relation {
    Eq,
    Le,
    Lt,
    Ge,
    Gt,
}

/// The bits of a clock that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockPart {
    /// 64 bits.
    Whole,
    Low,
    High,
}

/// A state space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    Generic,
    Global,
    Shared,
    Local,
    Param,
}

/// The operand of `isspacep`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    Space(Space),
    /// Constant variables, which the emulator keeps in device memory.
    Const,
}

/// `[base + offset]`
#[derive(Debug, Clone, Copy)]
pub struct Address {
    pub base: Src,
    /// Whether the base is a 64-bit register.
    pub wide: bool,
    pub offset: i64,
}

/// The scope of a strong access or a fence: which threads it synchronises with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    Block,
    Device,
}

/// Memory order of an access or a fence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Weak,
    Relaxed,
    Acquire,
    Release,
    AcquireRelease,
}

impl Order {
    pub fn acquires(self) -> bool {
        matches!(self, Order::Acquire | Order::AcquireRelease)
    }

    pub fn releases(self) -> bool {
        matches!(self, Order::Release | Order::AcquireRelease)
    }
}

/// The memory operand of a load, a store, an atomic or an asynchronous copy.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    pub space: Space,
    pub address: Address,
    pub site: u32,
    pub order: Order,
    pub scope: Scope,
}

/// Elements of a vector access.
#[derive(Debug, Clone, Copy)]
pub struct Elements {
    /// Bytes of one element: 1, 2, 4 or 8.
    pub bytes: u32,
    /// Number of elements: 1, 2 or 4.
    pub count: u32,
    /// Loads sign-extend.
    pub signed: bool,
    /// The registers have 64 bits.
    pub wide: bool,
    /// The registers have 16 bits, so a sign is extended to 16 bits only.
    pub narrow: bool,
}

/// Atomic operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtomicOp {
    Add,
    Min,
    Max,
    And,
    Or,
    Xor,
    Exchange,
    CompareAndSwap,
    Increment,
    Decrement,
}

/// Types of atomics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtomicType {
    B16,
    U32,
    S32,
    U64,
    S64,
    F32,
    F64,
    F16,
    F16x2,
    BF16,
    BF16x2,
}

impl AtomicType {
    pub fn bytes(self) -> u32 {
        match self {
            AtomicType::B16 | AtomicType::F16 | AtomicType::BF16 => 2,
            AtomicType::U64 | AtomicType::S64 | AtomicType::F64 => 8,
            _ => 4,
        }
    }
}

/// `shfl` modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShuffleMode {
    Up,
    Down,
    Butterfly,
    Index,
}

/// `vote` modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VoteMode {
    All,
    Any,
    Uniform,
    Ballot,
}

/// `redux` operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReduxOp {
    Add,
    MinU,
    MaxU,
    MinS,
    MaxS,
    And,
    Or,
    Xor,
}

/// The forms of `barrier`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BarrierKind {
    Sync,
    Arrive,
    /// Reduces a predicate.
    Count,
    And,
    Or,
}

/// Input types of `mma`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MmaInput {
    F16,
    BF16,
    TF32,
}
