//! Instructions.

use std::ops::Range;

use super::types::{
    AtomicOp, AtomicType, BarrierKind, ClockPart, Elements, MmaInput, ReduxOp, Scope, ShuffleMode, Target, VoteMode,
    Window,
};
use crate::alu::Alu;
use crate::registers::Src;

/// The tracked registers of an instruction: those that may be read before they are written.
#[derive(Debug, Default)]
pub struct Track {
    pub guard: Option<u32>,
    pub reads: Vec<u32>,
    pub writes: Vec<u32>,
    /// The instruction moves bits: a result is initialised if its sources are, and reading uninitialised sources is not a
    /// finding.
    pub copies: bool,
}

/// An instruction.
#[derive(Debug)]
pub struct Instr {
    pub guard: Option<Guard>,
    /// Index into [`Program::tracks`](super::Program::tracks); `u32::MAX` for none.
    pub track: u32,
    pub op: Op,
}

/// `@p` or `@!p`
#[derive(Debug, Clone, Copy)]
pub struct Guard {
    pub slot: u32,
    pub negated: bool,
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
    /// Program counter of the function; its index during lowering.
    pub target: u32,
    /// Tracked registers of the function, which are unwritten at each call.
    pub tracked: Range<usize>,
    /// (from, to, bytes) in local memory: `arguments` are copied before the call, `results` after it.
    pub arguments: Vec<(u32, u32, u32)>,
    pub results: Vec<(u32, u32, u32)>,
}

/// The operation of an instruction.
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
    /// `%clock64`, `%globaltimer`: the number of instructions executed so far, or one half of that number.
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
    /// Waits for all groups except the `pending` newest; `None` waits for all copies.
    CopyWait {
        pending: Option<u32>,
    },
}
