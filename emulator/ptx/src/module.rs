//! A loaded module: kernels that can be launched, and variables in device memory.

use std::sync::Arc;

use crate::address_space::align;
use crate::ast::{self, Init, Linkage, Space, Variable};
use crate::device::Arch;
use crate::error::LoadError;
use crate::ir::Program;
use crate::lower::{self, Globals};
use crate::memory::Memory;
use crate::parse;

/// A parameter of a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Param {
    pub name: String,
    /// Byte offset in the parameter block.
    pub offset: u32,
    pub size: u32,
}

/// A kernel that can be launched.
#[derive(Debug)]
pub struct Kernel {
    pub name: String,
    pub params: Vec<Param>,
    /// Bytes of the parameter block.
    pub param_bytes: u32,
    /// Bytes of `.shared` variables.
    pub static_shared: u32,
    /// Alignment of dynamic shared memory, which follows the static shared memory.
    pub dynamic_shared_align: u32,
    /// Bytes of `.local` memory per thread.
    pub local_bytes: u32,
    /// `.maxntid`, otherwise `.reqntid`: the most threads that a block may have.
    pub max_threads: Option<u32>,
    /// `.reqntid`
    pub required_threads: Option<[u32; 3]>,
    /// Registers per thread in 32-bit units that are live in the PTX at the same time. ptxas may need fewer or more.
    pub registers: u32,
    pub(crate) program: Program,
}

/// A variable of a module.
#[derive(Debug, Clone)]
pub struct Global {
    pub name: String,
    pub address: u64,
    pub size: u64,
}

/// A module that is loaded into a device's memory.
#[derive(Debug)]
pub struct Module {
    pub kernels: Vec<Arc<Kernel>>,
    pub globals: Vec<Global>,
}

impl Module {
    /// Parses and lowers PTX text for a device of architecture `arch`, and allocates and initialises its variables.
    ///
    /// # Errors
    /// [`LoadError`], with line and column. Nothing remains allocated then.
    pub fn load(text: &str, arch: Arch, memory: &Memory) -> Result<Self, LoadError> {
        let ast = parse::parse(text)
            .map_err(|error| LoadError::Syntax { position: error.position, message: error.message })?;
        check_target(&ast.target, arch)?;
        let mut module = Module { kernels: Vec::new(), globals: Vec::new() };
        match module.fill(&ast, memory) {
            Ok(()) => Ok(module),
            Err(error) => {
                module.unload(memory);
                Err(error)
            }
        }
    }

    fn fill(&mut self, ast: &ast::Module, memory: &Memory) -> Result<(), LoadError> {
        let mut globals = Globals::default();
        let mut dynamic_shared_align = 16;
        for variable in &ast.variables {
            match variable.space {
                Space::Shared if variable.linkage == Linkage::Extern => {
                    dynamic_shared_align = dynamic_shared_align.max(variable.align);
                    globals.dynamic_shared.insert(variable.name.clone());
                }
                Space::Shared => {
                    let size = size_of(variable)?;
                    let size = u32::try_from(size).map_err(|_| invalid(variable, "is larger than 4 GiB"))?;
                    globals.shared.insert(variable.name.clone(), (size, variable.align));
                }
                Space::Global | Space::Const if variable.linkage == Linkage::Extern => {
                    return Err(invalid(variable, "is external, and the emulator does not link"));
                }
                Space::Global | Space::Const => {
                    let size = size_of(variable)?;
                    let read_only = variable.space == Space::Const;
                    let label = format!("variable `{}`", variable.name);
                    let address = memory.allocate_variable(size, label, read_only)?.base;
                    self.globals.push(Global { name: variable.name.clone(), address, size });
                    if globals.addresses.insert(variable.name.clone(), address).is_some() {
                        return Err(invalid(variable, "is declared twice"));
                    }
                }
                _ => return Err(invalid(variable, "has a state space that a module cannot hold")),
            }
        }
        self.initialise(ast, &globals, memory)?;
        for (entry, function) in ast.functions.iter().enumerate() {
            if !function.is_entry || function.body.is_none() {
                continue;
            }
            let lowered = lower::lower(ast, entry, &globals)?;
            let mut params = Vec::new();
            let mut offset = 0;
            for param in &function.params {
                offset = align(offset, param.align);
                let size = size_of(param)? as u32;
                params.push(Param { name: param.name.clone(), offset, size });
                offset += size;
            }
            let product = |extents: [u32; 3]| extents.iter().fold(1u32, |all, &extent| all.saturating_mul(extent));
            self.kernels.push(Arc::new(Kernel {
                name: function.name.clone(),
                params,
                param_bytes: offset,
                static_shared: lowered.static_shared,
                dynamic_shared_align,
                local_bytes: lowered.program.local_bytes,
                max_threads: function.max_threads.or(function.required_threads).map(product),
                required_threads: function.required_threads,
                registers: lowered.registers,
                program: lowered.program,
            }));
        }
        Ok(())
    }

    /// Writes the variables' initialisers. Variables without one are zero.
    fn initialise(&self, ast: &ast::Module, globals: &Globals, memory: &Memory) -> Result<(), LoadError> {
        let in_memory = ast.variables.iter().filter(|variable| matches!(variable.space, Space::Global | Space::Const));
        for (variable, global) in in_memory.zip(&self.globals) {
            let element = variable.ty.size() as usize;
            if variable.init.len() as u64 * element as u64 > global.size {
                return Err(invalid(variable, "has more initialisers than elements"));
            }
            let mut bytes = Vec::with_capacity(variable.init.len() * element);
            for init in &variable.init {
                let bits = match init {
                    Init::Bits(bits) => *bits,
                    Init::Address { name, offset, .. } => match globals.addresses.get(name) {
                        Some(address) => address.wrapping_add_signed(*offset),
                        None => {
                            return Err(invalid(
                                variable,
                                &format!("holds the address of {name}, which is not declared"),
                            ));
                        }
                    },
                };
                bytes.extend_from_slice(&bits.to_le_bytes()[..element.min(8)]);
            }
            memory.write(global.address, &bytes)?;
        }
        Ok(())
    }

    /// Frees the module's variables.
    pub fn unload(&self, memory: &Memory) {
        for global in &self.globals {
            // A variable that was already freed needs no report here.
            let _ = memory.free(global.address);
        }
    }

    pub fn kernel(&self, name: &str) -> Option<&Arc<Kernel>> {
        self.kernels.iter().find(|kernel| kernel.name == name)
    }

    pub fn global(&self, name: &str) -> Option<&Global> {
        self.globals.iter().find(|global| global.name == name)
    }
}

fn size_of(variable: &Variable) -> Result<u64, LoadError> {
    variable.size().ok_or_else(|| invalid(variable, "is larger than 2^64 bytes"))
}

fn invalid(variable: &Variable, what: &str) -> LoadError {
    LoadError::Invalid { position: variable.position, message: format!("{} {what}", variable.name) }
}

/// Checks `.target`: `sm_80` runs on 8.0 and later, `sm_90a` only on 9.0.
fn check_target(target: &str, arch: Arch) -> Result<(), LoadError> {
    let refuse = || LoadError::Target { target: target.to_owned(), major: arch.major, minor: arch.minor };
    let number = target.strip_prefix("sm_").ok_or_else(refuse)?;
    let digits = number.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let target: u32 = digits.parse().map_err(|_| refuse())?;
    let device = arch.major * 10 + arch.minor;
    let runs = match &number[digits.len()..] {
        "" => target <= device,
        "f" => target <= device && target / 10 == arch.major,
        _ => target == device,
    };
    if runs { Ok(()) } else { Err(refuse()) }
}
