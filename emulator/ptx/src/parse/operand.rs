//! Operands of instructions.

use super::constant::Constant;
use super::cursor::Parser;
use super::lexer::{Kind, Token};
use super::{Result, SyntaxError};
use crate::ast::Operand;

impl<'a> Parser<'a> {
    /// One operand of the instruction `mnemonic`.
    pub fn operand(&mut self, mnemonic: &str) -> Result<Operand> {
        if self.at("[") {
            return self.brackets();
        }
        if self.at("(") && mnemonic == "call" {
            return Ok(Operand::List(self.parenthesised(Self::scalar)?));
        }
        if self.at("{") {
            return self.vector();
        }
        if self.eat("!")? {
            return Ok(Operand::Not(self.dotted_name()?.1));
        }
        let first = self.token;
        let operand = self.scalar()?;
        match operand {
            Operand::Name(_) | Operand::Sink if self.at("|") => self.pair(operand),
            Operand::Name(name) if self.at("[") => self.indexed(first, name, mnemonic),
            other => Ok(other),
        }
    }

    /// A constant, a name, or a name and an offset.
    fn scalar(&mut self) -> Result<Operand> {
        if self.at_constant() {
            return Ok(match self.constant()? {
                Constant::Integer { bits, .. } => Operand::Integer(bits),
                Constant::F32(bits) => Operand::F32(bits),
                Constant::F64(bits) => Operand::F64(bits),
                Constant::Decimal(value) => Operand::F64(value.to_bits()),
            });
        }
        if self.token.kind != Kind::Word {
            return Err(self.unexpected("an operand"));
        }
        let (token, name) = self.dotted_name()?;
        if token.text == "_" {
            return Ok(Operand::Sink);
        }
        if self.at("+") || self.at("-") {
            return Ok(Operand::NameOffset(name, self.offset()?));
        }
        Ok(Operand::Name(name))
    }

    /// `%r1`, or one component of a vector or special register: `%tid.x`
    fn dotted_name(&mut self) -> Result<(Token<'a>, String)> {
        let token = self.name()?;
        let mut name = token.text.to_owned();
        if self.token.kind == Kind::Dotted && matches!(self.token.text, "x" | "y" | "z" | "w" | "r" | "g" | "b" | "a") {
            name.push('.');
            name.push_str(self.bump()?.text);
        }
        Ok((token, name))
    }

    /// `|q` after `p`
    fn pair(&mut self, first: Operand) -> Result<Operand> {
        self.expect("|")?;
        let second = self.name()?.text;
        let second = if second == "_" { Operand::Sink } else { Operand::Name(second.to_owned()) };
        Ok(Operand::Pair(Box::new(first), Box::new(second)))
    }

    /// `{a, b}`; vectors do not nest.
    fn vector(&mut self) -> Result<Operand> {
        self.expect("{")?;
        let elements = self.separated(Self::scalar)?;
        self.expect("}")?;
        Ok(Operand::Vector(elements))
    }

    /// `[base+offset]`, `[16]`, `[map, {x, y}]`
    fn brackets(&mut self) -> Result<Operand> {
        self.expect("[")?;
        let position = self.token.position;
        let mut parts = self.separated(|parser| if parser.at("{") { parser.vector() } else { parser.scalar() })?;
        self.expect("]")?;
        if parts.len() > 1 {
            return Ok(Operand::Tensor(parts));
        }
        match parts.pop() {
            Some(Operand::Name(name)) => Ok(Operand::Address { base: Some(name), offset: 0 }),
            Some(Operand::NameOffset(name, offset)) => Ok(Operand::Address { base: Some(name), offset }),
            Some(Operand::Integer(bits)) => Ok(Operand::Address { base: None, offset: bits.cast_signed() }),
            _ => Err(SyntaxError::new(position, "not an address")),
        }
    }

    /// `[4]` after an array's name: the address of element 4. `mov` and `cvta` take the address as a value; any other
    /// instruction accesses that element.
    fn indexed(&mut self, array: Token<'a>, name: String, mnemonic: &str) -> Result<Operand> {
        self.expect("[")?;
        let index = self.integer()?.cast_signed();
        self.expect("]")?;
        let stride = self.strides.iter().rev().find_map(|scope| scope.get(array.text)).copied().flatten();
        let Some(stride) = stride else {
            let message = format!("{array} is not an array of one dimension declared above");
            return Err(SyntaxError::new(array.position, message));
        };
        let offset = index.checked_mul(stride.cast_signed());
        let offset = offset.ok_or_else(|| SyntaxError::new(array.position, "an index past 64 bits"))?;
        Ok(match mnemonic {
            "mov" | "cvta" => Operand::NameOffset(name, offset),
            _ => Operand::Address { base: Some(name), offset },
        })
    }
}
