//! What the decoders share: the modifiers of an opcode taken from the left, and checks of the operands' form.

use super::{Decoded, Kind, Op};
use crate::ast::Operand;

/// An opcode's modifiers. PTX fixes their order, so each is taken or known to be absent in turn.
pub(super) struct Modifiers<'a> {
    parts: &'a [String],
    next: usize,
}

impl<'a> Modifiers<'a> {
    pub fn new(opcode: &'a [String]) -> Self {
        Self { parts: opcode, next: 1 }
    }

    /// The opcode's first part.
    pub fn name(&self) -> &'a str {
        self.parts.first().map_or("", String::as_str)
    }

    /// The opcode's last part, most often the type.
    pub fn last(&self) -> &'a str {
        self.parts.last().map_or("", String::as_str)
    }

    pub fn peek(&self) -> &'a str {
        self.parts.get(self.next).map_or("", String::as_str)
    }

    /// Takes the next modifier if it is this one.
    pub fn take(&mut self, modifier: &str) -> bool {
        let found = self.parts.get(self.next).is_some_and(|part| part == modifier);
        self.next += found as usize;
        found
    }

    /// Takes the next modifier if the function knows it.
    pub fn pick<T>(&mut self, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let found = self.parts.get(self.next).and_then(|part| parse(part));
        self.next += found.is_some() as usize;
        found
    }

    /// Takes the next modifier, which must be known to the function.
    pub fn need<T>(&mut self, what: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T, String> {
        match self.pick(parse) {
            Some(found) => Ok(found),
            None if self.next >= self.parts.len() => Err(self.error(&format!("{what} is missing"))),
            None => Err(self.error(&format!(".{} is not a supported {what}", self.peek()))),
        }
    }

    /// All modifiers must have been taken.
    pub fn finish(&self) -> Result<(), String> {
        match self.parts.get(self.next) {
            None => Ok(()),
            Some(part) => Err(self.error(&format!(".{part} is not supported here"))),
        }
    }

    pub fn error(&self, text: &str) -> String {
        format!("{}: {text}", self.parts.join("."))
    }

    /// Exactly so many operands.
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

    /// A predicate that is read, perhaps negated with `!`.
    pub fn predicate(&self, operand: &Operand) -> Result<((Kind, Operand), bool), String> {
        match operand {
            Operand::Not(name) => Ok(((Kind::Pred, Operand::Name(name.clone())), true)),
            _ => Ok((self.source(Kind::Pred, operand)?, false)),
        }
    }

    /// The usual instruction: one result, then sources of these kinds; every modifier taken.
    pub fn plain(&self, op: Op, result: Kind, sources: &[Kind], operands: &[Operand]) -> Result<Decoded, String> {
        self.finish()?;
        self.count(operands, 1 + sources.len())?;
        let results = vec![self.result(result, &operands[0])?];
        let sources = sources.iter().zip(&operands[1..]).map(|(&kind, operand)| self.source(kind, operand));
        Ok(Decoded { op, results, sources: sources.collect::<Result<_, _>>()? })
    }
}

/// The flag CC.CF as an operand.
pub(super) fn carry() -> (Kind, Operand) {
    (Kind::Carry, Operand::Name("%cc".into()))
}
