//! AST → [`Program`]: names resolved, instructions decoded, registers placed.

mod allocate;
mod control;
mod exchange;
mod memory;
mod operands;
mod tensor;

use std::collections::{HashMap, HashSet};

use crate::alu;
use crate::ast::{self, Operand, Position, Statement, Type, Variable};
use crate::ir::{Guard, Instr, Mix, Op, Program, Source, Space, Special};
use crate::module::LoadError;
use crate::place::{Place, Places};
use crate::registers::{Class, Src};

/// Where shared memory begins in its window: the system keeps the first KiB, so 0 is never a valid address.
pub const SHARED_BASE: u32 = 1024;
/// Where the windows lie in the generic address space: far from any allocation.
pub const SHARED_WINDOW: u64 = 0x0A00_0000_0000_0000;
pub const LOCAL_WINDOW: u64 = 0x0B00_0000_0000_0000;
pub const PARAM_WINDOW: u64 = 0x0C00_0000_0000_0000;
/// Bytes of a window.
pub const WINDOW: u64 = 1 << 32;
/// Registers one function may declare: a malformed text must not take all memory.
const MAX_REGISTERS: u32 = 1 << 20;
/// Bytes of local memory a thread, as on every device.
const MAX_LOCAL: u32 = 512 << 10;
/// Bytes of shared memory that a kernel may declare; no device has more, dynamic or not.
const MAX_SHARED: u32 = 228 << 10;

/// What a module's names mean.
#[derive(Default)]
pub struct Globals {
    /// Addresses of `.global` and `.const` variables.
    pub addresses: HashMap<String, u64>,
    /// Sizes and alignments of module-scope `.shared` variables: a kernel holds those that it names.
    pub shared: HashMap<String, (u32, u32)>,
    /// Names of `.extern .shared` arrays: all begin where static shared memory ends.
    pub dynamic_shared: HashSet<String>,
}

/// A kernel's code and the shared memory that it declares.
pub struct Lowered {
    pub program: Program,
    pub static_shared: u32,
    /// Registers a thread in 32-bit units, as placed.
    pub registers: u32,
}

/// A virtual register, before registers are placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Virtual {
    class: Class,
    index: u32,
}

enum Symbol {
    /// First register, number declared (`None` for a plain name); narrow ones have 8 or 16 bits.
    Registers {
        class: Class,
        narrow: bool,
        first: u32,
        count: Option<u32>,
    },
    /// A label of this function, by number.
    Label(u32),
    /// Parameter of the kernel: offset in the parameter block.
    KernelParam(u32),
    /// Parameters of functions and calls: offset in local memory.
    LocalParam(u32, u32),
    Local(u32),
    Shared(u32),
    BranchTargets(Vec<String>),
    CallTargets,
}

struct Lowering<'a> {
    module: &'a ast::Module,
    globals: &'a Globals,
    program: Program,
    /// Classes of ALU instructions' operands, by program counter.
    alu_classes: Vec<(Vec<Class>, Vec<Class>)>,
    scopes: Vec<HashMap<String, Symbol>>,
    /// Program counters of labels, `None` until they are met.
    labels: Vec<Option<u32>>,
    /// Functions that the kernel reaches, in order of discovery: index into `module.functions`.
    functions: Vec<usize>,
    /// Parameters of reached functions in local memory: (arguments, results) as (offset, bytes).
    signatures: Vec<Signature>,
    virtuals: [u32; 3],
    names: HashMap<Virtual, String>,
    specials: HashMap<Special, Virtual>,
    /// The carry flag of the function being lowered.
    carry: Option<u32>,
    /// Program counters of `selp`.
    selects: HashSet<usize>,
    /// Offsets of the module-scope `.shared` variables named so far.
    module_shared: HashMap<String, u32>,
    shared_bytes: u32,
    local_bytes: u32,
    source: Source,
    places: Places<'a>,
    position: Position,
    guard: Option<Guard>,
    is_entry: bool,
}

#[derive(Clone, Default)]
struct Signature {
    arguments: Vec<(u32, u32)>,
    results: Vec<(u32, u32)>,
}

type Result<T, E = LoadError> = std::result::Result<T, E>;

/// Lowers the kernel `entry` with every function that it calls.
pub fn lower(module: &ast::Module, entry: usize, globals: &Globals) -> Result<Lowered> {
    let files = module.files.iter().map(|(_, path)| path.clone()).collect();
    let mut lowering = Lowering {
        module,
        globals,
        program: Program { files, ..Program::default() },
        alu_classes: Vec::new(),
        scopes: Vec::new(),
        labels: Vec::new(),
        functions: vec![entry],
        signatures: vec![Signature::default()],
        virtuals: [0; 3],
        names: HashMap::new(),
        specials: HashMap::new(),
        carry: None,
        selects: HashSet::new(),
        module_shared: HashMap::new(),
        shared_bytes: 0,
        local_bytes: 0,
        source: Source::default(),
        places: Places::new(&module.files),
        position: Position::default(),
        guard: None,
        is_entry: true,
    };
    let mut starts: Vec<u32> = Vec::new();
    let mut next = 0;
    while next < lowering.functions.len() {
        starts.push(lowering.program.code.len() as u32);
        lowering.function(next)?;
        next += 1;
    }
    lowering.refuse_recursion(&starts)?;
    for instr in &mut lowering.program.code {
        if let Op::Call(call) = &mut instr.op {
            call.target = starts[call.target as usize];
        }
    }
    let registers = lowering.place_registers(&starts)?;
    // Dynamic shared memory begins behind the static, aligned for any vector.
    let static_shared = lowering.shared_bytes;
    for (what, bytes, most) in
        [("shared memory", static_shared, MAX_SHARED), ("local memory a thread", lowering.local_bytes, MAX_LOCAL)]
    {
        if bytes > most {
            lowering.position = module.functions[entry].position;
            return Err(lowering.invalid(format!("{bytes} bytes of {what}, where {most} are possible")));
        }
    }
    lowering.program.local_bytes = lowering.local_bytes;
    Ok(Lowered { program: lowering.program, static_shared, registers })
}

impl<'a> Lowering<'a> {
    fn function(&mut self, number: usize) -> Result<()> {
        let module = self.module;
        let function = &module.functions[self.functions[number]];
        self.position = function.position;
        self.is_entry = number == 0;
        self.carry = None;
        self.source = Source { file: u32::MAX, outermost: (u32::MAX, 0), ..Source::default() };
        let Some(body) = &function.body else {
            return Err(self.unsupported(format!("a call of the external function {}", function.name)));
        };
        self.scopes.push(HashMap::new());
        let (start, first_label) = (self.program.code.len(), self.labels.len());
        if self.is_entry {
            let mut offset = 0u32;
            for param in &function.params {
                let size = self.variable_size(param)?;
                offset = align(offset, param.align);
                self.declare(param.name.clone(), Symbol::KernelParam(offset))?;
                offset = self.grown(offset, size)?;
            }
        } else {
            let Signature { arguments, results } = self.signatures[number].clone();
            let variables = function.params.iter().chain(&function.returns);
            for (variable, (offset, size)) in variables.zip(arguments.into_iter().chain(results)) {
                self.declare(variable.name.clone(), Symbol::LocalParam(offset, size))?;
            }
        }
        self.declare_labels(body)?;
        self.statements(body)?;
        // A body that runs off its end returns.
        self.guard = None;
        self.source.mix = Mix::Control;
        let end = if self.is_entry { Op::Exit } else { Op::Return };
        self.emit(end);
        if let Some(label) = self.labels[first_label..].iter().position(Option::is_none) {
            return Err(self.invalid(format!("label {label} is never placed")));
        }
        self.resolve_labels(start);
        self.scopes.pop();
        Ok(())
    }

    /// Labels are seen in the whole block that declares them, so they are declared before its statements are lowered.
    fn declare_labels(&mut self, body: &[Statement]) -> Result<()> {
        for statement in body {
            match statement {
                Statement::Label(position, name) => {
                    self.position = *position;
                    let label = self.labels.len() as u32;
                    self.labels.push(None);
                    self.declare(name.clone(), Symbol::Label(label))?;
                }
                Statement::BranchTargets { position, name, targets } => {
                    self.position = *position;
                    self.declare(name.clone(), Symbol::BranchTargets(targets.clone()))?;
                }
                Statement::CallTargets { position, name } => {
                    self.position = *position;
                    self.declare(name.clone(), Symbol::CallTargets)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn statements(&mut self, body: &[Statement]) -> Result<()> {
        for statement in body {
            match statement {
                Statement::Variable(variable) => {
                    self.position = variable.position;
                    self.variable(variable)?;
                }
                Statement::Label(position, name) => {
                    self.position = *position;
                    let here = self.program.code.len() as u32;
                    let label = match self.lookup(name) {
                        Some(Symbol::Label(label)) => *label,
                        _ => return Err(self.invalid(format!("{name} is no label"))),
                    };
                    self.labels[label as usize] = Some(here);
                }
                &Statement::Location { file, line, column, inlined_at } => {
                    self.locate((file, line, column), inlined_at);
                }
                Statement::Block(inner) => {
                    self.scopes.push(HashMap::new());
                    self.declare_labels(inner)?;
                    self.statements(inner)?;
                    self.scopes.pop();
                }
                Statement::BranchTargets { .. } | Statement::CallTargets { .. } => {}
                Statement::Instruction(instruction) => self.instruction(instruction)?,
            }
        }
        Ok(())
    }

    /// The place that findings name.
    fn locate(&mut self, place: Place, inlined_at: Option<Place>) {
        let (shown, outermost) = self.places.locate(place, inlined_at);
        let file = |place: Place| self.places.index(place.0).map_or(u32::MAX, |index| index as u32);
        (self.source.file, self.source.line) = (file(shown), shown.1);
        self.source.outermost = (file(outermost), outermost.1);
    }

    fn variable(&mut self, variable: &Variable) -> Result<()> {
        let symbol = match variable.space {
            ast::Space::Reg => {
                let class = class_of(variable.ty);
                if variable.vector != 1 {
                    return Err(self.unsupported(format!("the vector register {}", variable.name)));
                }
                if variable.ty == Type::B128 {
                    return Err(self.unsupported(format!("the 128-bit register {}", variable.name)));
                }
                let count = variable.count.unwrap_or(1);
                let first = self.virtuals[class as usize];
                if count > MAX_REGISTERS || first > MAX_REGISTERS - count {
                    return Err(self.invalid(format!("more than {MAX_REGISTERS} registers ({})", variable.name)));
                }
                self.virtuals[class as usize] += count;
                Symbol::Registers { class, narrow: variable.ty.size() <= 2, first, count: variable.count }
            }
            ast::Space::Shared => {
                let offset = align(self.shared_bytes, variable.align);
                let size = self.variable_size(variable)?;
                self.shared_bytes = self.grown(offset, size)?;
                Symbol::Shared(offset)
            }
            ast::Space::Local => Symbol::Local(self.local_variable(variable)?),
            ast::Space::Param => {
                let offset = self.local_variable(variable)?;
                Symbol::LocalParam(offset, self.variable_size(variable)?)
            }
            ast::Space::Const | ast::Space::Global => {
                return Err(self.unsupported(format!("{} declared inside a function", variable.name)));
            }
        };
        self.declare(variable.name.clone(), symbol)
    }

    fn local_variable(&mut self, variable: &Variable) -> Result<u32> {
        let offset = align(self.local_bytes, variable.align);
        let size = self.variable_size(variable)?;
        self.local_bytes = self.grown(offset, size)?;
        Ok(offset)
    }

    fn variable_size(&self, variable: &Variable) -> Result<u32> {
        let size = variable.size().and_then(|size| u32::try_from(size).ok());
        size.ok_or_else(|| self.invalid(format!("{} is larger than 4 GiB", variable.name)))
    }

    fn grown(&self, offset: u32, size: u32) -> Result<u32> {
        let end = offset.checked_add(size).filter(|&end| end <= 1 << 30);
        end.ok_or_else(|| self.invalid("variables of more than 1 GiB"))
    }

    fn declare(&mut self, name: String, symbol: Symbol) -> Result<()> {
        let error = self.invalid(format!("{name} is declared twice"));
        // `%r<10>` and a plain `%r` are different names.
        let key = match &symbol {
            Symbol::Registers { count: Some(_), .. } => format!("{name}<>"),
            _ => name,
        };
        match self.scopes.last_mut() {
            Some(scope) => match scope.insert(key, symbol) {
                None => Ok(()),
                Some(_) => Err(error),
            },
            None => Err(error),
        }
    }

    fn lookup(&self, name: &str) -> Option<&Symbol> {
        self.scopes.iter().rev().find_map(|scope| scope.get(name))
    }

    fn instruction(&mut self, instruction: &ast::Instruction) -> Result<()> {
        let first = self.program.code.len();
        self.decode(instruction)?;
        let last = self.program.code.len().saturating_sub(1);
        for source in self.program.sources.get_mut(first..last).into_iter().flatten() {
            source.is_step = true;
        }
        Ok(())
    }

    fn decode(&mut self, instruction: &ast::Instruction) -> Result<()> {
        self.position = instruction.position;
        self.source.ptx_line = instruction.position.line;
        self.source.mix = mix_of(&instruction.opcode);
        self.guard = None;
        if let Some((name, negated)) = &instruction.guard {
            let register = self.register(name)?;
            if register.class != Class::Pred {
                return Err(self.invalid(format!("the guard {name} is no predicate")));
            }
            self.guard = Some(Guard { slot: register.index, negated: *negated });
        }
        if let Some(decoded) = alu::decode(&instruction.opcode, &instruction.operands) {
            let decoded = decoded.map_err(|what| self.unsupported(what))?;
            if instruction.opcode[0] == "cvt" {
                return self.convert(instruction, decoded);
            }
            self.alu(decoded)?;
            if instruction.opcode[0] == "selp" {
                self.selects.insert(self.program.code.len() - 1);
            }
            return Ok(());
        }
        let opcode: Vec<&str> = instruction.opcode.iter().map(String::as_str).collect();
        let operands = &instruction.operands[..];
        let handled = self.memory(&opcode, operands)?
            || self.exchange(&opcode, operands)?
            || self.control(&opcode, operands)?
            || self.tensor(&opcode, operands)?;
        if handled { Ok(()) } else { Err(self.unsupported(format!("the instruction {}", instruction.name()))) }
    }

    fn alu(&mut self, decoded: alu::Decoded) -> Result<()> {
        let mut placed = alu::Alu { op: decoded.op, results: [0; 4], sources: [Src::Bits(0); 4] };
        let mut sources = Vec::with_capacity(decoded.sources.len());
        if decoded.sources.len() > 4 || decoded.results.len() > 4 {
            return Err(self.invalid("too many operands"));
        }
        for (place, (kind, operand)) in decoded.sources.iter().enumerate() {
            placed.sources[place] = self.source_of(*kind, operand)?;
            sources.push(kind.class());
        }
        let mut results = Vec::with_capacity(decoded.results.len());
        for (place, (kind, operand)) in decoded.results.iter().enumerate() {
            placed.results[place] = self.result_of(*kind, operand)?;
            results.push(kind.class());
        }
        self.alu_classes.resize(self.program.code.len(), Default::default());
        self.alu_classes.push((results, sources));
        self.emit(Op::Alu(Box::new(placed)));
        Ok(())
    }

    /// `cvt` may write a register that is wider than its type: the result is extended to all of it.
    fn convert(&mut self, instruction: &ast::Instruction, mut decoded: alu::Decoded) -> Result<()> {
        let Some((kind, Operand::Name(name))) = decoded.results.first().cloned() else { return self.alu(decoded) };
        if kind.class() != Class::B32 {
            return self.alu(decoded);
        }
        if !self.is_narrow(&name) {
            decoded.op = decoded.op.with_result_width(32);
        }
        if self.register(&name)?.class != Class::B64 {
            return self.alu(decoded);
        }
        let low = self.temporary(Class::B32);
        decoded.results[0].1 = Operand::Name(low.clone());
        self.alu(decoded)?;
        // The result's type is the last but one part: `cvt.rzi.s16.f32`.
        let signed = instruction.opcode.iter().rev().nth(1).is_some_and(|ty| ty.starts_with('s'));
        let extend = if signed { "cvt.s64.s32" } else { "cvt.u64.u32" };
        self.synthesise(extend, &[Operand::Name(name), Operand::Name(low)])
    }

    /// Decodes and emits an ALU instruction of our own making.
    fn synthesise(&mut self, opcode: &str, operands: &[Operand]) -> Result<()> {
        let opcode: Vec<String> = opcode.split('.').map(str::to_owned).collect();
        match alu::decode(&opcode, operands) {
            Some(Ok(decoded)) => self.alu(decoded),
            _ => Err(self.unsupported(format!("{} as part of another instruction", opcode.join(".")))),
        }
    }

    fn emit(&mut self, op: Op) {
        self.program.code.push(Instr { guard: self.guard, track: u32::MAX, op });
        self.program.sources.push(self.source);
    }

    fn new_virtual(&mut self, class: Class) -> u32 {
        let index = self.virtuals[class as usize];
        self.virtuals[class as usize] += 1;
        index
    }

    fn new_site(&mut self) -> u32 {
        self.program.sites += 1;
        self.program.sites - 1
    }

    fn invalid(&self, message: impl Into<String>) -> LoadError {
        LoadError::Invalid { position: self.position, message: message.into() }
    }

    fn unsupported(&self, what: impl Into<String>) -> LoadError {
        LoadError::Unsupported { position: self.position, what: what.into() }
    }
}

/// The space whose window holds a generic address.
pub fn space_of_address(address: u64) -> Space {
    let inside = |base: u64| address.wrapping_sub(base) < WINDOW;
    match () {
        _ if inside(SHARED_WINDOW) => Space::Shared,
        _ if inside(LOCAL_WINDOW) => Space::Local,
        _ if inside(PARAM_WINDOW) => Space::Param,
        _ => Space::Global,
    }
}

/// Rounds up to a multiple of an alignment, which the parser has seen to be a power of two.
pub fn align(offset: u32, alignment: u32) -> u32 {
    // What is too large to be aligned is too large for every limit.
    offset.checked_next_multiple_of(alignment.max(1)).unwrap_or(u32::MAX)
}

fn class_of(ty: Type) -> Class {
    match ty {
        Type::Pred => Class::Pred,
        _ if ty.size() == 8 => Class::B64,
        _ => Class::B32,
    }
}

fn mix_of(opcode: &[String]) -> Mix {
    let has = |part: &str| opcode.iter().any(|p| p == part || p.starts_with(part) && p[part.len()..].starts_with("::"));
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
