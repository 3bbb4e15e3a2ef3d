//! Lowers matrix instructions.

use super::state::{Lowering, Result};
use crate::ast::Operand;
use crate::ir::{Mma, MmaInput, Op, Space};
use crate::registers::{Class, Src};

impl Lowering<'_> {
    pub(super) fn tensor(&mut self, opcode: &[&str], operands: &[Operand]) -> Result<bool> {
        match (opcode, operands) {
            (["mma", "sync", "aligned", shape, "row", "col", d, a, b, c], [to, left, right, plus]) => {
                let input = match (*a, *b) {
                    ("bf16", "bf16") => MmaInput::BF16,
                    ("f16", "f16") => MmaInput::F16,
                    ("tf32", "tf32") => MmaInput::TF32,
                    _ => return Ok(false),
                };
                let k = match (*shape, input) {
                    ("m16n8k16", MmaInput::BF16 | MmaInput::F16) => 16,
                    ("m16n8k8", _) => 8,
                    ("m16n8k4", MmaInput::TF32) => 4,
                    _ => return Ok(false),
                };
                let wide = match (*d, *c) {
                    ("f32", "f32") => true,
                    ("f16", "f16") if input == MmaInput::F16 => false,
                    _ => return Ok(false),
                };
                let per_register = if input == MmaInput::TF32 { 1 } else { 2 };
                let accumulators = if wide { 4 } else { 2 };
                let a = self.fragment(left, 16 * k / 32 / per_register)?;
                let b = self.fragment(right, 8 * k / 32 / per_register)?;
                let c = self.fragment(plus, accumulators)?;
                let d = self.fragment_results(to, accumulators as usize)?;
                self.emit(Op::Mma(Box::new(Mma { k, input, wide, d, a, b, c })));
            }
            (["ldmatrix", "sync", "aligned", "m8n8", rest @ ..], [to, from]) => {
                let Some((count, transposed)) = matrix_form(rest) else { return Ok(false) };
                let slots = self.fragment_results(to, count as usize)?;
                let mut registers = [0; 4];
                registers[..slots.len()].copy_from_slice(&slots);
                let target = self.matrix_target(from)?;
                self.emit(Op::LoadMatrix { target, count, transposed, to: registers });
            }
            (["stmatrix", "sync", "aligned", "m8n8", rest @ ..], [to, from]) => {
                let Some((count, transposed)) = matrix_form(rest) else { return Ok(false) };
                let values = self.fragment(from, count)?;
                let mut sources = [Src::Bits(0); 4];
                sources[..values.len()].copy_from_slice(&values);
                let target = self.matrix_target(to)?;
                self.emit(Op::StoreMatrix { target, count, transposed, from: Box::new(sources) });
            }
            (["movmatrix", "sync", "aligned", "m8n8", "trans", "b16"], [to, value]) => {
                let to = self.result(Class::B32, to)?;
                let value = self.source(Class::B32, value)?;
                self.emit(Op::MoveMatrix { to, value });
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn matrix_target(&mut self, operand: &Operand) -> Result<crate::ir::Target> {
        let (address, _) = self.address(operand)?;
        Ok(self.target(Space::Shared, address))
    }

    fn fragment(&mut self, operand: &Operand, registers: u32) -> Result<Vec<Src>> {
        let parts = Self::parts(operand);
        if parts.len() != registers as usize {
            return Err(self.invalid(format!("a fragment of {} registers, where {registers} are needed", parts.len())));
        }
        parts.iter().map(|part| self.source(Class::B32, part)).collect()
    }

    fn fragment_results(&mut self, operand: &Operand, registers: usize) -> Result<Vec<u32>> {
        let parts = Self::parts(operand);
        if parts.len() != registers {
            return Err(self.invalid(format!("a fragment of {} registers, where {registers} are needed", parts.len())));
        }
        parts.iter().map(|part| self.result(Class::B32, part)).collect()
    }
}

/// `x1`, `x2` or `x4`, transposed or not, of 16-bit elements in shared memory.
fn matrix_form(parts: &[&str]) -> Option<(u32, bool)> {
    let (count, rest) = parts.split_first()?;
    let count = match *count {
        "x1" => 1,
        "x2" => 2,
        "x4" => 4,
        _ => return None,
    };
    match rest {
        ["shared" | "shared::cta", "b16"] => Some((count, false)),
        ["trans", "shared" | "shared::cta", "b16"] => Some((count, true)),
        _ => None,
    }
}
