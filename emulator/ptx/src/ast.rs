//! The abstract syntax tree of PTX text, in which names are not resolved.

use std::fmt;

/// A position in the PTX text. Lines and columns count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    pub line: u32,
    pub column: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// A PTX module.
#[derive(Debug, Clone, Default)]
pub struct Module {
    /// `.version major.minor`
    pub version: (u32, u32),
    /// `.target`'s first name: `sm_80`, `sm_90a`.
    pub target: String,
    /// `.file index "path"`
    pub files: Vec<(u32, String)>,
    /// Module-scope variables, in order.
    pub variables: Vec<Variable>,
    /// `.entry` and `.func`, including declarations without a body, in order.
    pub functions: Vec<Function>,
    /// `.alias name, function;`
    pub aliases: Vec<(String, String)>,
}

/// State spaces in which a variable can be declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Space {
    Reg,
    Const,
    Global,
    Local,
    Param,
    Shared,
}

/// `.visible`, `.extern`, `.weak`, `.common`; `Internal` without any of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Linkage {
    #[default]
    Internal,
    Visible,
    Extern,
    Weak,
    Common,
}

/// Fundamental types. Packed and alternate floating-point formats occur only in opcodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Type {
    B8,
    B16,
    B32,
    B64,
    B128,
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    F16,
    F16x2,
    BF16,
    BF16x2,
    F32,
    F64,
    Pred,
}

impl Type {
    /// Size in bytes; a predicate counts as 1.
    pub fn size(self) -> u32 {
        use Type::*;
        match self {
            B8 | U8 | S8 | Pred => 1,
            B16 | U16 | S16 | F16 | BF16 => 2,
            B32 | U32 | S32 | F32 | F16x2 | BF16x2 => 4,
            B64 | U64 | S64 | F64 => 8,
            B128 => 16,
        }
    }
}

/// A declaration: `.shared .align 16 .b8 tile[1024];`, `.reg .b32 %r<10>;`, `.param .u64 p`.
#[derive(Debug, Clone)]
pub struct Variable {
    pub position: Position,
    pub linkage: Linkage,
    pub space: Space,
    /// `.attribute(.managed)`: the host also accesses the variable through its address.
    pub managed: bool,
    /// `.align`; without it, the type's natural alignment times the vector width.
    pub align: u32,
    pub ty: Type,
    /// 1, or 2 and 4 for `.v2` and `.v4`.
    pub vector: u32,
    pub name: String,
    /// `%r<10>` declares 10 registers `%r0` … `%r9`; `None` for one plain name.
    pub count: Option<u32>,
    /// Array extents. An unsized extent (`[]`) is 0, or the number of elements of the initialiser.
    pub extents: Vec<u64>,
    /// Initialisers in row-major order. Missing elements at the end are zero.
    pub init: Vec<Init>,
}

impl Variable {
    /// Size in bytes; `None` if it does not fit 64 bits.
    pub fn size(&self) -> Option<u64> {
        let element = u64::from(self.ty.size()) * u64::from(self.vector);
        self.extents.iter().try_fold(element, |size, &extent| size.checked_mul(extent))
    }
}

/// One element of an initialiser.
#[derive(Debug, Clone, PartialEq)]
pub enum Init {
    /// An integer, or the bits of a floating-point literal in the variable's type.
    Bits(u64),
    /// The address of a variable or function plus a byte offset; `generic` for `generic(name)`.
    Address { name: String, offset: i64, generic: bool },
}

/// `.entry` or `.func`.
#[derive(Debug, Clone)]
pub struct Function {
    pub position: Position,
    pub linkage: Linkage,
    pub is_entry: bool,
    pub name: String,
    /// Return values of a `.func`.
    pub returns: Vec<Variable>,
    pub params: Vec<Variable>,
    /// `.maxntid x, y, z`; missing extents are 1.
    pub max_threads: Option<[u32; 3]>,
    /// `.reqntid x, y, z`
    pub required_threads: Option<[u32; 3]>,
    /// `.blocksareclusters`: a launch's grid counts clusters, not blocks.
    pub blocks_are_clusters: bool,
    /// `.reqnctapercluster x, y, z` (`.explicitcluster` alone leaves it `None`)
    pub required_cluster: Option<[u32; 3]>,
    /// `.maxclusterrank n`
    pub max_cluster_rank: Option<u32>,
    /// `.minnctapersm n`
    pub min_blocks_per_sm: Option<u32>,
    /// `.maxnreg n`
    pub max_registers: Option<u32>,
    /// `None` for a declaration.
    pub body: Option<Vec<Statement>>,
}

/// A statement of a function's body.
#[derive(Debug, Clone)]
pub enum Statement {
    /// `.reg`, `.local`, `.shared`, `.param` declarations.
    Variable(Variable),
    /// `name:`
    Label(Position, String),
    /// `.loc file line column`, and the location that the code is inlined at.
    Location {
        file: u32,
        line: u32,
        column: u32,
        inlined_at: Option<(u32, u32, u32)>,
    },
    /// `{ … }`: names declared inside are not visible outside.
    Block(Vec<Statement>),
    /// `name: .branchtargets a, b, c;`
    BranchTargets {
        position: Position,
        name: String,
        targets: Vec<String>,
    },
    /// `name: .callprototype …;` or `.calltargets`, kept so that indirect calls can be recognised and refused.
    CallTargets {
        position: Position,
        name: String,
    },
    Instruction(Instruction),
}

/// `@!%p1 ld.global.v4.b32 {%r1, %r2, %r3, %r4}, [%rd1+16];`
#[derive(Debug, Clone)]
pub struct Instruction {
    pub position: Position,
    /// (register, negated): `@%p1` or `@!%p1`.
    pub guard: Option<(String, bool)>,
    /// The opcode split at its dots: `ld`, `global`, `v4`, `b32`; `::` stays inside a part (`shared::cta`).
    pub opcode: Vec<String>,
    pub operands: Vec<Operand>,
}

impl Instruction {
    /// The opcode as written.
    pub fn name(&self) -> String {
        self.opcode.join(".")
    }
}

/// An operand.
#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    /// A register, label, variable, function or special register (`%tid.x`), as written.
    Name(String),
    /// `name+4`, `name-4` outside of brackets: the address of a variable plus bytes.
    NameOffset(String, i64),
    /// `!%p`
    Not(String),
    /// An integer; negative integers in two's complement.
    Integer(u64),
    /// `0f3F800000`: the bits of an f32.
    F32(u32),
    /// `0d3FF0000000000000` or a decimal literal such as `1.5`: the bits of an f64.
    F64(u64),
    /// `{a, b, c, d}`
    Vector(Vec<Operand>),
    /// `[base+offset]`; the base is a register, a variable, or none for an absolute address.
    Address { base: Option<String>, offset: i64 },
    /// `[map, {x, y}]` and other brackets with several operands.
    Tensor(Vec<Operand>),
    /// `p|q`, either of which may be `_`.
    Pair(Box<Operand>, Box<Operand>),
    /// `(a, b)`: arguments or results of a call.
    List(Vec<Operand>),
    /// `_`
    Sink,
}
