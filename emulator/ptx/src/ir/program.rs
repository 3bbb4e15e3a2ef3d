//! A program: the code of a kernel, and where each instruction comes from.

use super::instr::{Instr, Track};
use super::types::Special;

/// A kernel and the functions that it calls, in one sequence of instructions.
#[derive(Debug, Default)]
pub struct Program {
    pub code: Vec<Instr>,
    /// By program counter: where the instruction comes from.
    pub sources: Vec<Source>,
    /// Paths of `.file`, by the index in [`Source`].
    pub files: Vec<String>,
    /// Number of 32-bit, 64-bit and predicate register slots.
    pub slots: [usize; 3],
    /// Slots of special registers, which are initialised when a warp starts.
    pub specials: Vec<(Special, u32)>,
    /// Names of the registers that some path reads before it writes them. Which lanes have written them is tracked.
    pub tracked: Vec<String>,
    /// By [`Instr::track`]: the tracked registers of an instruction.
    pub tracks: Vec<Track>,
    /// Number of accesses to memory in the code; each has a site number of its own.
    pub sites: u32,
    /// Bytes of local memory per thread, including the parameters of calls.
    pub local_bytes: u32,
}

/// Where an instruction comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Source {
    /// Index into [`Program::files`]; `u32::MAX` without a `.loc`.
    pub file: u32,
    /// Line in that file.
    pub line: u32,
    /// (file, line) of the outermost location that the code is inlined at; (`file`, `line`) if it is not inlined.
    pub outermost: (u32, u32),
    /// Line of the PTX text.
    pub ptx_line: u32,
    pub mix: Mix,
    /// The PTX instruction is executed in several steps, and this one, not being the last, is not counted.
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
    /// [`Program::source`], with the caller of inlined code:
    /// `kernels/common/reduce.cuh:9, called from kernels/x.cu:12`.
    pub fn source_and_caller(&self, pc: u32) -> String {
        let source = self.source(pc);
        match self.caller(pc) {
            Some(caller) => format!("{source}, called from {caller}"),
            None => source,
        }
    }

    /// The kernel's line that an instruction was inlined into; `None` for the kernel's own code.
    pub fn caller(&self, pc: u32) -> Option<String> {
        let source = self.sources.get(pc as usize)?;
        let file = self.files.get(source.outermost.0 as usize)?;
        (source.outermost != (source.file, source.line)).then(|| format!("{file}:{}", source.outermost.1))
    }

    /// The source line of an instruction: `kernels/x.cu:12`, or the line of the PTX.
    pub fn source(&self, pc: u32) -> String {
        let Some(source) = self.sources.get(pc as usize) else { return "the end of the code".into() };
        match self.files.get(source.file as usize) {
            Some(file) => format!("{file}:{}", source.line),
            None => format!("PTX line {}", source.ptx_line),
        }
    }
}

impl Mix {
    /// All classes with their names in the counts.
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

    /// The class of an opcode.
    pub fn of(opcode: &[String]) -> Self {
        let has =
            |part: &str| opcode.iter().any(|p| p == part || p.starts_with(part) && p[part.len()..].starts_with("::"));
        let float = if has("f64") {
            Mix::Float64
        } else if has("f32") {
            Mix::Float32
        } else if ["f16", "f16x2", "bf16", "bf16x2"].iter().any(|half| has(half)) {
            Mix::Half
        } else {
            Mix::Integer
        };
        match opcode[0].as_str() {
            "ld" | "ldu" if has("shared") => Mix::LoadShared,
            "st" if has("shared") => Mix::StoreShared,
            "ld" | "st" if has("local") => Mix::Local,
            "ld" | "st" if has("param") => Mix::Param,
            "ld" | "ldu" => Mix::LoadGlobal,
            "st" => Mix::StoreGlobal,
            "atom" | "red" => Mix::Atomic,
            "mma" | "wgmma" | "wmma" => Mix::Tensor,
            "ldmatrix" | "stmatrix" | "movmatrix" => Mix::Matrix,
            "cp" => Mix::AsyncCopy,
            "shfl" | "vote" | "match" | "redux" | "elect" | "activemask" => Mix::Exchange,
            "bar" | "barrier" | "mbarrier" => Mix::Barrier,
            "fence" | "membar" => Mix::Fence,
            "bra" | "brx" | "call" | "ret" | "exit" | "trap" | "brkpt" | "nanosleep" => Mix::Control,
            "mov" | "cvta" => Mix::Move,
            "cvt" => Mix::Convert,
            "setp" | "selp" | "isspacep" | "set" | "slct" => Mix::Predicate,
            _ => float,
        }
    }
}
