//! The body of a function: instructions, labels, nested blocks and directives.

use super::cursor::Parser;
use super::lexer::{Kind, Token};
use super::{Result, SyntaxError};
use crate::ast::{Instruction, Linkage, Space, Statement};

impl<'a> Parser<'a> {
    /// `{ … }`, which opens a scope of names.
    pub fn block(&mut self) -> Result<Vec<Statement>> {
        self.expect("{")?;
        let mut statements = Vec::new();
        self.nested(|parser| {
            parser.scoped(|parser| {
                while !parser.at("}") {
                    parser.statement(&mut statements)?;
                }
                Ok(())
            })
        })?;
        self.expect("}")?;
        Ok(statements)
    }

    fn statement(&mut self, into: &mut Vec<Statement>) -> Result<()> {
        match self.token.kind {
            Kind::Word => {
                let word = self.bump()?;
                if self.eat(":")? {
                    let label = self.label(word)?;
                    into.push(label);
                } else {
                    into.push(Statement::Instruction(self.instruction(word, None)?));
                }
            }
            Kind::Punct if self.at("@") => {
                let position = self.bump()?.position;
                let negated = self.eat("!")?;
                let guard = (self.name()?.text.to_owned(), negated);
                let opcode = self.take(Kind::Word, "an instruction")?;
                let instruction = self.instruction(opcode, Some(guard))?;
                into.push(Statement::Instruction(Instruction { position, ..instruction }));
            }
            Kind::Punct if self.at("{") => into.push(Statement::Block(self.block()?)),
            Kind::Dotted => self.directive(into)?,
            _ => return Err(self.unexpected("a statement or `}`")),
        }
        Ok(())
    }

    fn directive(&mut self, into: &mut Vec<Statement>) -> Result<()> {
        let token = self.bump()?;
        let space = match token.text {
            "reg" => Space::Reg,
            "local" => Space::Local,
            "shared" => Space::Shared,
            "param" => Space::Param,
            "loc" => {
                let location = self.location()?;
                into.push(location);
                return Ok(());
            }
            "pragma" => return self.pragma(),
            _ => return Err(SyntaxError::new(token.position, format!("unsupported directive {token} in a function"))),
        };
        let variables = self.declarations(Linkage::Internal, space)?;
        into.extend(variables.into_iter().map(Statement::Variable));
        Ok(())
    }

    /// `1 24 3, function_name $L__info_string0, inlined_at 1 12 3`; no `;` ends it.
    fn location(&mut self) -> Result<Statement> {
        let (file, line, column) = (self.number()?, self.number()?, self.number()?);
        let mut inlined_at = None;
        while self.eat(",")? {
            if self.token.is(Kind::Word, "function_name") {
                self.bump()?;
                self.name()?;
                self.offset()?;
            } else if self.token.is(Kind::Word, "inlined_at") {
                self.bump()?;
                inlined_at = Some((self.number()?, self.number()?, self.number()?));
            } else {
                return Err(self.unexpected("`function_name` or `inlined_at`"));
            }
        }
        Ok(Statement::Location { file, line, column, inlined_at })
    }

    /// The statement that begins with `name:`, once both have been taken.
    fn label(&mut self, name: Token<'a>) -> Result<Statement> {
        let position = name.position;
        let name = name.text.to_owned();
        if self.token.kind != Kind::Dotted {
            return Ok(Statement::Label(position, name));
        }
        let statement = match self.token.text {
            "branchtargets" => {
                self.bump()?;
                Statement::BranchTargets { position, name, targets: self.names()? }
            }
            "calltargets" => {
                self.bump()?;
                self.names()?;
                Statement::CallTargets { position, name }
            }
            "callprototype" => {
                self.bump()?;
                self.scoped(Self::prototype)?;
                Statement::CallTargets { position, name }
            }
            _ => return Ok(Statement::Label(position, name)),
        };
        self.expect(";")?;
        Ok(statement)
    }

    /// `(.param .b32 _) _ (.param .b64 _)`
    fn prototype(&mut self) -> Result<()> {
        self.parameters()?;
        self.name()?;
        self.parameters()?;
        while self.calling_convention()? {}
        Ok(())
    }

    /// The rest of an instruction whose first word has been taken.
    fn instruction(&mut self, first: Token<'a>, guard: Option<(String, bool)>) -> Result<Instruction> {
        if !first.text.starts_with(|character: char| character.is_ascii_alphabetic()) {
            return Err(SyntaxError::new(first.position, format!("expected an instruction, found {first}")));
        }
        let mut opcode = vec![first.text.to_owned()];
        while self.token.kind == Kind::Dotted {
            opcode.push(self.bump()?.text.to_owned());
        }
        let ends = self.at(";") || self.at("}") || self.token.kind == Kind::End;
        let operands = if ends { Vec::new() } else { self.separated(|parser| parser.operand(first.text))? };
        self.expect(";")?;
        Ok(Instruction { position: first.position, guard, opcode, operands })
    }
}
