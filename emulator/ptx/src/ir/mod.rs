//! What is executed: instructions with registers placed, targets resolved and addresses of variables known.

mod operands;

use std::ops::Range;

use crate::alu::Alu;
use crate::registers::Src;
pub use operands::Role;

/// A program: a kernel and the functions it calls, in one piece of code.
#[derive(Debug, Default)]
pub struct Program {
    pub code: Vec<Instr>,
    /// By program counter: where the instruction comes from.
    pub sources: Vec<Source>,
    /// Paths of `.file`, by the index in [`Source`].
    pub files: Vec<String>,
    /// Slots of 32-bit, 64-bit and predicate registers.
    pub slots: [usize; 3],
    /// Slots that hold special registers, filled when a warp starts.
    pub specials: Vec<(Special, u32)>,
    /// Names of the registers that some path reads before writing; their lanes are tracked.
    pub tracked: Vec<String>,
    /// By [`Instr::track`].
    pub tracks: Vec<Track>,
    /// Number of instructions that access memory, each with a site of its own.
    pub sites: u32,
    /// Bytes of local memory a thread, parameters of calls included.
    pub local_bytes: u32,
}

/// Where an instruction comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Source {
    /// Index into [`Program::files`]; `u32::MAX` without a `.loc`.
    pub file: u32,
    /// Line in that file.
    pub line: u32,
    /// (file, line) of the outermost place that it is inlined in; the same as the above if it is not.
    pub outermost: (u32, u32),
    /// Line of the PTX text.
    pub ptx_line: u32,
    pub mix: Mix,
    /// A step of an instruction that takes several here; its last step is the one that is counted.
    pub is_step: bool,
}

/// Classes of the instruction mix.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mix {
    #[default]
    Integer,
    Float32,
    Float64,
    Half,
    Convert,
    Move,
    Predicate,
    LoadGlobal,
    StoreGlobal,
    LoadShared,
    StoreShared,
    Local,
    Param,
    Atomic,
    Tensor,
    Matrix,
    AsyncCopy,
    Exchange,
    Barrier,
    Fence,
    Control,
}

impl Program {
    /// [`Program::place`], and from where inlined code was called:
    /// `kernels/common/reduce.cuh:9, called from kernels/x.cu:12`.
    pub fn place_and_caller(&self, pc: u32) -> String {
        let place = self.place(pc);
        match self.caller(pc) {
            Some(caller) => format!("{place}, called from {caller}"),
            None => place,
        }
    }

    /// The kernel's line that an instruction was inlined into; none for its own.
    pub fn caller(&self, pc: u32) -> Option<String> {
        let source = self.sources.get(pc as usize)?;
        let file = self.files.get(source.outermost.0 as usize)?;
        (source.outermost != (source.file, source.line)).then(|| format!("{file}:{}", source.outermost.1))
    }

    /// Where an instruction comes from: `kernels/x.cu:12`, or the line of the PTX.
    pub fn place(&self, pc: u32) -> String {
        let Some(source) = self.sources.get(pc as usize) else { return "the code's end".into() };
        match self.files.get(source.file as usize) {
            Some(file) => format!("{file}:{}", source.line),
            None => format!("PTX line {}", source.ptx_line),
        }
    }
}

impl Mix {
    pub const ALL: [(Mix, &'static str); 21] = [
        (Mix::Integer, "integer"),
        (Mix::Float32, "float32"),
        (Mix::Float64, "float64"),
        (Mix::Half, "half"),
        (Mix::Convert, "convert"),
        (Mix::Move, "move"),
        (Mix::Predicate, "predicate"),
        (Mix::LoadGlobal, "load_global"),
        (Mix::StoreGlobal, "store_global"),
        (Mix::LoadShared, "load_shared"),
        (Mix::StoreShared, "store_shared"),
        (Mix::Local, "local"),
        (Mix::Param, "param"),
        (Mix::Atomic, "atomic"),
        (Mix::Tensor, "tensor"),
        (Mix::Matrix, "matrix_move"),
        (Mix::AsyncCopy, "async_copy"),
        (Mix::Exchange, "exchange"),
        (Mix::Barrier, "barrier"),
        (Mix::Fence, "fence"),
        (Mix::Control, "control"),
    ];
}

/// Registers of an instruction that may be read before they were written.
#[derive(Debug, Default)]
pub struct Track {
    pub guard: Option<u32>,
    pub reads: Vec<u32>,
    pub writes: Vec<u32>,
    /// A move: the result is as initialised as its sources, and reading them is no finding.
    pub copies: bool,
}

/// One instruction.
#[derive(Debug)]
pub struct Instr {
    pub guard: Option<Guard>,
    /// Index into [`Program::tracks`]; `u32::MAX` for none.
    pub track: u32,
    pub op: Op,
}

/// `@p` or `@!p`
#[derive(Debug, Clone, Copy)]
pub struct Guard {
    pub slot: u32,
    pub negated: bool,
}

/// A register whose value is known when a warp starts.
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

/// For `%lanemask_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Relation {
    Eq,
    Le,
    Lt,
    Ge,
    Gt,
}

/// How much of a clock is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockPart {
    /// 64 bits.
    Whole,
    Low,
    High,
}

/// Where an access goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    Generic,
    Global,
    Shared,
    Local,
    Param,
}

/// What `isspacep` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    Space(Space),
    /// Constant variables, which lie in device memory here.
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

/// Who synchronises with whom.
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

/// A load, store or asynchronous access: where and how.
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
    /// Bytes of one: 1, 2, 4 or 8.
    pub bytes: u32,
    /// 1, 2 or 4.
    pub count: u32,
    /// Loads extend the sign.
    pub signed: bool,
    /// The registers are 64-bit.
    pub wide: bool,
    /// The registers have 16 bits, so that an extended sign ends there.
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

/// What threads do at a barrier of the block.
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

/// `mma.sync.aligned.m16n8kK.row.col`
#[derive(Debug)]
pub struct Mma {
    pub k: u32,
    pub input: MmaInput,
    /// f32 accumulators, else f16.
    pub wide: bool,
    pub d: Vec<u32>,
    pub a: Vec<Src>,
    pub b: Vec<Src>,
    pub c: Vec<Src>,
}

/// A call that is not inlined.
#[derive(Debug)]
pub struct Call {
    /// Program counter of the function; while lowering, its index.
    pub target: u32,
    /// Tracked registers of the function: each call finds them unwritten.
    pub tracked: Range<usize>,
    /// (from, to, bytes) in local memory: arguments before, results after.
    pub arguments: Vec<(u32, u32, u32)>,
    pub results: Vec<(u32, u32, u32)>,
}

/// Operations.
#[derive(Debug)]
pub enum Op {
    Alu(Box<Alu>),
    Load {
        target: Target,
        elements: Elements,
        to: [u32; 4],
        read_only: bool,
    },
    Store {
        target: Target,
        elements: Elements,
        from: Box<[Src; 4]>,
    },
    Atomic {
        target: Target,
        op: AtomicOp,
        ty: AtomicType,
        to: Option<u32>,
        operands: Box<[Src; 2]>,
    },
    /// Whether a generic address lies in a space.
    IsSpace {
        to: u32,
        address: Src,
        window: Window,
    },
    /// `%clock64`, `%globaltimer`: instructions executed so far; or one half of that.
    Clock {
        to: u32,
        part: ClockPart,
    },
    Branch {
        target: u32,
    },
    BranchTable {
        index: Src,
        targets: Box<[u32]>,
    },
    Call(Box<Call>),
    Return,
    Exit,
    Trap {
        assertion: bool,
    },
    Nothing,
    Barrier {
        kind: BarrierKind,
        aligned: bool,
        id: Src,
        threads: Option<Src>,
        predicate: Option<(Src, bool)>,
        to: Option<u32>,
    },
    WarpBarrier {
        members: Src,
    },
    Fence {
        scope: Scope,
    },
    Shuffle {
        mode: ShuffleMode,
        to: u32,
        in_range: Option<u32>,
        value: Src,
        lane: Src,
        clamp: Src,
        members: Src,
    },
    Vote {
        mode: VoteMode,
        to: u32,
        predicate: Src,
        negated: bool,
        members: Src,
    },
    Match {
        all: bool,
        wide: bool,
        to: u32,
        matched: Option<u32>,
        value: Src,
        members: Src,
    },
    Redux {
        op: ReduxOp,
        to: u32,
        value: Src,
        members: Src,
    },
    ActiveMask {
        to: u32,
    },
    Elect {
        to: Option<u32>,
        elected: u32,
        members: Src,
    },
    LoadMatrix {
        target: Target,
        count: u32,
        transposed: bool,
        to: [u32; 4],
    },
    StoreMatrix {
        target: Target,
        count: u32,
        transposed: bool,
        from: Box<[Src; 4]>,
    },
    MoveMatrix {
        to: u32,
        value: Src,
    },
    Mma(Box<Mma>),
    CopyAsync {
        to: Target,
        from: Box<Target>,
        bytes: u32,
        source_bytes: Option<Src>,
        ignore: Option<(Src, bool)>,
    },
    CopyCommit,
    /// All but the newest so many groups; `None` for everything.
    CopyWait {
        pending: Option<u32>,
    },
}
