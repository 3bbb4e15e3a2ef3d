//! Lowering: AST to [`Program`]. Resolves names, decodes instructions and allocates registers.

mod allocate;
mod control;
mod exchange;
mod memory;
mod operands;
mod state;
mod tensor;
mod variables;

use std::collections::HashMap;

use crate::address_space::align;
use crate::alu;
use crate::ast::{self, Operand, Statement};
use crate::ir::{Guard, Mix, Op, Program, Source};
use crate::registers::{Class, Src};
use crate::source_map::Location;
pub use state::Globals;
use state::{Lowering, Result, Signature, Symbol};

/// Bytes of local memory per thread, as on every device.
const MAX_LOCAL: u32 = 512 << 10;
/// Bytes of shared memory that a kernel may declare: no device has more, static or dynamic.
const MAX_SHARED: u32 = 228 << 10;

/// A lowered kernel.
pub struct Lowered {
    pub program: Program,
    /// Bytes of shared memory that the kernel declares.
    pub static_shared: u32,
    /// Registers per thread in 32-bit units, after allocation.
    pub registers: u32,
}

/// Lowers the kernel `entry` and every function that it calls.
///
/// # Errors
/// [`LoadError::Invalid`](crate::LoadError::Invalid) and [`LoadError::Unsupported`](crate::LoadError::Unsupported).
pub fn lower(module: &ast::Module, entry: usize, globals: &Globals) -> Result<Lowered> {
    let mut lowering = Lowering::new(module, entry, globals);
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
    let registers = lowering.allocate_registers(&starts)?;
    let static_shared = lowering.shared_bytes;
    for (what, bytes, limit) in
        [("shared memory", static_shared, MAX_SHARED), ("local memory per thread", lowering.local_bytes, MAX_LOCAL)]
    {
        if bytes > limit {
            lowering.position = module.functions[entry].position;
            return Err(lowering.invalid(format!("{bytes} bytes of {what}, at most {limit} are possible")));
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
        // The end of a body is an implicit return.
        self.guard = None;
        self.source.mix = Mix::Control;
        let end = if self.is_entry { Op::Exit } else { Op::Return };
        self.emit(end);
        if let Some(label) = self.labels[first_label..].iter().position(Option::is_none) {
            return Err(self.invalid(format!("label {label} is declared but never defined")));
        }
        self.resolve_labels(start);
        self.scopes.pop();
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
                        _ => return Err(self.invalid(format!("{name} is not a label"))),
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

    /// Sets the source location of the instructions that follow, which findings name.
    fn locate(&mut self, location: Location, inlined_at: Option<Location>) {
        let (shown, outermost) = self.source_map.locate(location, inlined_at);
        let file = |location: Location| self.source_map.file_index(location.0).map_or(u32::MAX, |index| index as u32);
        (self.source.file, self.source.line) = (file(shown), shown.1);
        self.source.outermost = (file(outermost), outermost.1);
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
        self.source.mix = Mix::of(&instruction.opcode);
        self.guard = None;
        if let Some((name, negated)) = &instruction.guard {
            let register = self.register(name)?;
            if register.class != Class::Pred {
                return Err(self.invalid(format!("the guard {name} is not a predicate")));
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
        let mut alu = alu::Alu { op: decoded.op, results: [0; 4], sources: [Src::Bits(0); 4] };
        let mut sources = Vec::with_capacity(decoded.sources.len());
        if decoded.sources.len() > 4 || decoded.results.len() > 4 {
            return Err(self.invalid("too many operands"));
        }
        for (i, (kind, operand)) in decoded.sources.iter().enumerate() {
            alu.sources[i] = self.source_of(*kind, operand)?;
            sources.push(kind.class());
        }
        let mut results = Vec::with_capacity(decoded.results.len());
        for (i, (kind, operand)) in decoded.results.iter().enumerate() {
            alu.results[i] = self.result_of(*kind, operand)?;
            results.push(kind.class());
        }
        self.alu_classes.resize(self.program.code.len(), Default::default());
        self.alu_classes.push((results, sources));
        self.emit(Op::Alu(Box::new(alu)));
        Ok(())
    }

    /// `cvt` may write a register that is wider than its result type: the result is extended to the register's width.
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
        // The result's type is the second to last part of the opcode: `cvt.rzi.s16.f32`.
        let signed = instruction.opcode.iter().rev().nth(1).is_some_and(|ty| ty.starts_with('s'));
        let extend = if signed { "cvt.s64.s32" } else { "cvt.u64.u32" };
        self.synthesise(extend, &[Operand::Name(name), Operand::Name(low)])
    }

    /// Decodes and emits an ALU instruction that is a step of another instruction.
    fn synthesise(&mut self, opcode: &str, operands: &[Operand]) -> Result<()> {
        let opcode: Vec<String> = opcode.split('.').map(str::to_owned).collect();
        match alu::decode(&opcode, operands) {
            Some(Ok(decoded)) => self.alu(decoded),
            _ => Err(self.unsupported(format!("{} as a step of another instruction", opcode.join(".")))),
        }
    }
}
