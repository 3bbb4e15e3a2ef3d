//! The state of lowering: what the names in scope mean, and the program as far as it has been emitted.

use std::collections::{HashMap, HashSet};

use crate::ast::{self, Position};
use crate::error::LoadError;
use crate::ir::{Guard, Instr, Op, Program, Source, Special};
use crate::registers::Class;
use crate::source_map::SourceMap;

/// The module-scope variables.
#[derive(Default)]
pub struct Globals {
    /// Addresses of `.global` and `.const` variables.
    pub addresses: HashMap<String, u64>,
    /// Sizes and alignments of `.shared` variables. A kernel allocates those that it names.
    pub shared: HashMap<String, (u32, u32)>,
    /// Names of `.extern .shared` arrays, all of which begin where static shared memory ends.
    pub dynamic_shared: HashSet<String>,
}

/// A virtual register, as it is before register allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Virtual {
    pub class: Class,
    pub index: u32,
}

/// What a name of a function's body refers to.
pub enum Symbol {
    /// Registers from `first` on; `count` is `None` for a single register. Narrow registers have 8 or 16 bits.
    Registers {
        class: Class,
        narrow: bool,
        first: u32,
        count: Option<u32>,
    },
    /// Number of a label of the function.
    Label(u32),
    /// Offset of a kernel's parameter in the parameter block.
    KernelParam(u32),
    /// Offset and bytes, in local memory, of a parameter of a function or of a call.
    LocalParam(u32, u32),
    /// Offset in local memory.
    Local(u32),
    /// Offset in shared memory.
    Shared(u32),
    BranchTargets(Vec<String>),
    CallTargets,
}

/// A kernel being lowered with the functions that it calls.
pub struct Lowering<'a> {
    pub module: &'a ast::Module,
    pub globals: &'a Globals,
    pub program: Program,
    /// By program counter: the register classes of an ALU instruction's results and sources.
    pub alu_classes: Vec<(Vec<Class>, Vec<Class>)>,
    pub scopes: Vec<HashMap<String, Symbol>>,
    /// Program counters of labels; `None` for labels whose position has not been reached.
    pub labels: Vec<Option<u32>>,
    /// The kernel and the functions that it calls, in order of discovery: indices into `module.functions`.
    pub functions: Vec<usize>,
    /// By function: where its parameters lie in local memory.
    pub signatures: Vec<Signature>,
    /// Number of virtual registers by class.
    pub virtuals: [u32; 3],
    pub names: HashMap<Virtual, String>,
    pub specials: HashMap<Special, Virtual>,
    /// The carry flag of the function being lowered.
    pub carry: Option<u32>,
    /// Program counters of `selp`.
    pub selects: HashSet<usize>,
    /// Offsets of the module-scope `.shared` variables named so far.
    pub module_shared: HashMap<String, u32>,
    pub shared_bytes: u32,
    pub local_bytes: u32,
    pub source: Source,
    pub source_map: SourceMap<'a>,
    pub position: Position,
    pub guard: Option<Guard>,
    pub is_entry: bool,
}

/// The parameters of a function in local memory, as (offset, bytes).
#[derive(Clone, Default)]
pub struct Signature {
    pub arguments: Vec<(u32, u32)>,
    pub results: Vec<(u32, u32)>,
}

pub type Result<T, E = LoadError> = std::result::Result<T, E>;

impl<'a> Lowering<'a> {
    /// The state before the first function, the kernel `entry`, is lowered.
    pub fn new(module: &'a ast::Module, entry: usize, globals: &'a Globals) -> Self {
        let files = module.files.iter().map(|(_, path)| path.clone()).collect();
        Lowering {
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
            source_map: SourceMap::new(&module.files),
            position: Position::default(),
            guard: None,
            is_entry: true,
        }
    }

    pub fn declare(&mut self, name: String, symbol: Symbol) -> Result<()> {
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

    pub fn lookup(&self, name: &str) -> Option<&Symbol> {
        self.scopes.iter().rev().find_map(|scope| scope.get(name))
    }

    pub fn emit(&mut self, op: Op) {
        self.program.code.push(Instr { guard: self.guard, track: u32::MAX, op });
        self.program.sources.push(self.source);
    }

    pub fn new_virtual(&mut self, class: Class) -> u32 {
        let index = self.virtuals[class as usize];
        self.virtuals[class as usize] += 1;
        index
    }

    pub fn new_site(&mut self) -> u32 {
        self.program.sites += 1;
        self.program.sites - 1
    }

    pub fn invalid(&self, message: impl Into<String>) -> LoadError {
        LoadError::Invalid { position: self.position, message: message.into() }
    }

    pub fn unsupported(&self, what: impl Into<String>) -> LoadError {
        LoadError::Unsupported { position: self.position, what: what.into() }
    }
}
