//! Declarations inside a function: labels, registers and variables.

use super::state::{Lowering, Result, Symbol};
use crate::address_space::align;
use crate::ast::{self, Statement, Type, Variable};
use crate::registers::Class;

/// Registers that one function may declare, so that a malformed text cannot exhaust memory.
const MAX_REGISTERS: u32 = 1 << 20;
/// Bytes of variables that one function may declare.
const MAX_VARIABLE_BYTES: u32 = 1 << 30;

impl Lowering<'_> {
    /// Declares the labels of a block. They are visible in the whole block, so this comes before its statements.
    pub(super) fn declare_labels(&mut self, body: &[Statement]) -> Result<()> {
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

    pub(super) fn variable(&mut self, variable: &Variable) -> Result<()> {
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

    pub(super) fn local_variable(&mut self, variable: &Variable) -> Result<u32> {
        let offset = align(self.local_bytes, variable.align);
        let size = self.variable_size(variable)?;
        self.local_bytes = self.grown(offset, size)?;
        Ok(offset)
    }

    pub(super) fn variable_size(&self, variable: &Variable) -> Result<u32> {
        let size = variable.size().and_then(|size| u32::try_from(size).ok());
        size.ok_or_else(|| self.invalid(format!("{} is larger than 4 GiB", variable.name)))
    }

    /// The end of a variable of `size` bytes at `offset`.
    pub(super) fn grown(&self, offset: u32, size: u32) -> Result<u32> {
        let end = offset.checked_add(size).filter(|&end| end <= MAX_VARIABLE_BYTES);
        end.ok_or_else(|| self.invalid("the variables are larger than 1 GiB"))
    }
}

fn class_of(ty: Type) -> Class {
    match ty {
        Type::Pred => Class::Pred,
        _ if ty.size() == 8 => Class::B64,
        _ => Class::B32,
    }
}
