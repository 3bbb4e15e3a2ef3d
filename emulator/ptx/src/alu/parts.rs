//! Helpers of the decoders: taking the modifiers of an opcode from the left, and checks of the operands' form.

use super::{Decoded, Kind, Op};
use crate::ast::Operand;

/// An opcode's modifiers, each of which is taken once. They may come in any order, as in ptxas; of two types the first
/// is the result's.
pub(super) struct Modifiers<'a> {
    parts: &'a [String],
    taken: Vec<bool>,
}

impl<'a> Modifiers<'a> {
    pub fn new(opcode: &'a [String]) -> Self {
        let mut taken = vec![false; opcode.len()];
        if let Some(name) = taken.first_mut() {
            *name = true;
        }
        Self { parts: opcode, taken }
    }

    /// The opcode's first part.
    pub fn name(&self) -> &'a str {
        self.parts.first().map_or("", String::as_str)
    }

    /// The modifiers that have not been taken yet.
    pub fn rest(&self) -> impl Iterator<Item = &'a str> {
        self.parts.iter().zip(&self.taken).filter(|&(_, taken)| !taken).map(|(part, _)| part.as_str())
    }

    pub fn has(&self, modifier: &str) -> bool {
        self.rest().any(|part| part == modifier)
    }

    /// Takes `modifier` if the opcode has it.
    pub fn take(&mut self, modifier: &str) -> bool {
        self.pick(|part| (part == modifier).then_some(())).is_some()
    }

    /// Takes the first modifier that `parse` accepts.
    pub fn pick<T>(&mut self, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        for (part, taken) in self.parts.iter().zip(&mut self.taken).filter(|(_, taken)| !**taken) {
            if let Some(found) = parse(part) {
                *taken = true;
                return Some(found);
            }
        }
        None
    }

    /// Takes the first modifier that `parse` accepts; it is an error if there is none.
    pub fn need<T>(&mut self, what: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T, String> {
        match (self.pick(parse), self.rest().find(|part| !is_type(part))) {
            (Some(found), _) => Ok(found),
            (None, None) => Err(self.error(&format!("{what} is missing"))),
            (None, Some(part)) => Err(self.error(&format!(".{part} is not a supported {what}"))),
        }
    }

    /// Takes the first type, which `parse` must accept.
    pub fn ty<T>(&mut self, parse: impl Fn(&str) -> Option<T>) -> Result<T, String> {
        let Some(first) = self.rest().find(|part| is_type(part)) else {
            return Err(self.error("type is missing"));
        };
        match self.pick(|part| if part == first { parse(part) } else { None }) {
            Some(found) => Ok(found),
            None => Err(self.error(&format!(".{first} is not a supported type"))),
        }
    }

    /// An error if a modifier has not been taken.
    pub fn finish(&self) -> Result<(), String> {
        match self.rest().next() {
            None => Ok(()),
            Some(part) => Err(self.error(&format!(".{part} is not supported here"))),
        }
    }

    pub fn error(&self, text: &str) -> String {
        format!("{}: {text}", self.parts.join("."))
    }

    /// An error unless there are `count` operands.
    pub fn count(&self, operands: &[Operand], count: usize) -> Result<(), String> {
        if operands.len() == count {
            return Ok(());
        }
        Err(self.error(&format!("{} operands, needs {count}", operands.len())))
    }

    /// A register that is written.
    pub fn result(&self, kind: Kind, operand: &Operand) -> Result<(Kind, Operand), String> {
        match operand {
            Operand::Name(_) => Ok((kind, operand.clone())),
            _ => Err(self.error("the result must be a register")),
        }
    }

    /// A register or `_`.
    pub fn result_or_sink(&self, kind: Kind, operand: &Operand) -> Result<(Kind, Operand), String> {
        match operand {
            Operand::Sink => Ok((kind, operand.clone())),
            _ => self.result(kind, operand),
        }
    }

    /// A register or literal that is read.
    pub fn source(&self, kind: Kind, operand: &Operand) -> Result<(Kind, Operand), String> {
        let fits = match operand {
            Operand::Name(_) => true,
            Operand::Integer(_) => true,
            Operand::F32(_) | Operand::F64(_) => kind.class() != crate::registers::Class::Pred,
            _ => false,
        };
        if fits { Ok((kind, operand.clone())) } else { Err(self.error("an operand must be a register or a literal")) }
    }

    /// A predicate that is read, and whether `!` negates it.
    pub fn predicate(&self, operand: &Operand) -> Result<((Kind, Operand), bool), String> {
        match operand {
            Operand::Not(name) => Ok(((Kind::Pred, Operand::Name(name.clone())), true)),
            _ => Ok((self.source(Kind::Pred, operand)?, false)),
        }
    }

    /// An instruction of the usual form: one result, then sources of these kinds, and no further modifier.
    pub fn plain(&self, op: Op, result: Kind, sources: &[Kind], operands: &[Operand]) -> Result<Decoded, String> {
        self.finish()?;
        self.count(operands, 1 + sources.len())?;
        let results = vec![self.result(result, &operands[0])?];
        let sources = sources.iter().zip(&operands[1..]).map(|(&kind, operand)| self.source(kind, operand));
        Ok(Decoded { op, results, sources: sources.collect::<Result<_, _>>()? })
    }
}

/// Whether a modifier names a type: `pred`, or letters and digits such as `s32`, `bf16x2`, `e4m3x2`.
fn is_type(text: &str) -> bool {
    let digits = text.trim_start_matches(|c: char| c.is_ascii_alphabetic());
    let letters = &text[..text.len() - digits.len()];
    let known = ["b", "u", "s", "f", "bf", "tf", "e", "ue"].contains(&letters);
    text == "pred" || known && digits.ends_with(|c: char| c.is_ascii_digit())
}

/// The flag CC.CF as an operand.
pub(super) fn carry() -> (Kind, Operand) {
    (Kind::Carry, Operand::Name("%cc".into()))
}
