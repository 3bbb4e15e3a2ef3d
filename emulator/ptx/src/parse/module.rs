//! Directives at module scope.

use super::cursor::Parser;
use super::lexer::{Kind, Token};
use super::{Result, SyntaxError};
use crate::ast::{Linkage, Module, Space};

impl<'a> Parser<'a> {
    pub fn module(&mut self) -> Result<Module> {
        let mut module = Module::default();
        self.expect_directive("version")?;
        module.version = self.version()?;
        self.expect_directive("target")?;
        module.target = self.target()?;
        while self.token.kind != Kind::End {
            let token = self.take(Kind::Dotted, "a directive")?;
            self.module_directive(token, &mut module)?;
        }
        Ok(module)
    }

    fn expect_directive(&mut self, name: &str) -> Result<()> {
        if !self.token.is(Kind::Dotted, name) {
            return Err(self.unexpected(&format!("`.{name}`")));
        }
        self.bump()?;
        Ok(())
    }

    fn module_directive(&mut self, token: Token<'a>, module: &mut Module) -> Result<()> {
        match token.text {
            "address_size" => return self.address_size(),
            "file" => {
                let file = self.file()?;
                module.files.push(file);
                return Ok(());
            }
            "section" => return self.section(),
            "pragma" => return self.pragma(),
            "alias" => {
                let alias = self.name()?.text.to_owned();
                self.expect(",")?;
                let function = self.name()?.text.to_owned();
                module.aliases.push((alias, function));
                return self.expect(";");
            }
            _ => {}
        }
        let linkage = match token.text {
            "visible" => Linkage::Visible,
            "extern" => Linkage::Extern,
            "weak" => Linkage::Weak,
            "common" => Linkage::Common,
            _ => return self.definition(token, Linkage::Internal, module),
        };
        let token = self.take(Kind::Dotted, "a directive")?;
        self.definition(token, linkage, module)
    }

    /// A function or variables; `directive` is `.entry`, `.func` or a state space.
    fn definition(&mut self, directive: Token<'a>, linkage: Linkage, module: &mut Module) -> Result<()> {
        let space = match directive.text {
            "entry" | "func" if linkage != Linkage::Common => {
                let function = self.function(linkage, directive.text == "entry")?;
                module.functions.push(function);
                return Ok(());
            }
            "global" => Space::Global,
            "const" => Space::Const,
            "shared" => Space::Shared,
            _ => {
                let message = format!("unsupported directive {directive} at module scope");
                return Err(SyntaxError::new(directive.position, message));
            }
        };
        module.variables.extend(self.declarations(linkage, space)?);
        Ok(())
    }

    /// `9.0`
    fn version(&mut self) -> Result<(u32, u32)> {
        let token = self.take(Kind::Number, "a version such as `9.0`")?;
        let parts = token.text.split_once('.');
        let numbers = parts.and_then(|(major, minor)| Some((decimal(major)?, decimal(minor)?)));
        let message = || format!("expected a version such as `9.0`, found {token}");
        numbers.ok_or_else(|| SyntaxError::new(token.position, message()))
    }

    /// `sm_90a, debug`; returns the architecture.
    fn target(&mut self) -> Result<String> {
        let first = self.token;
        if first.kind != Kind::Word || !first.text.starts_with("sm_") {
            return Err(self.unexpected("an architecture such as `sm_90a`"));
        }
        self.bump()?;
        while self.eat(",")? {
            let token = self.name()?;
            // A texturing mode has an effect on textures only, which are refused where they are used.
            if !matches!(token.text, "debug" | "texmode_unified" | "texmode_independent") {
                return Err(SyntaxError::new(token.position, format!("unsupported target option {token}")));
            }
        }
        Ok(first.text.to_owned())
    }

    fn address_size(&mut self) -> Result<()> {
        let token = self.token;
        match self.number()? {
            64 => Ok(()),
            size => Err(SyntaxError::new(token.position, format!("`.address_size {size}`: only 64 is supported"))),
        }
    }

    /// `1 "path"`, optionally followed by a timestamp and a size.
    fn file(&mut self) -> Result<(u32, String)> {
        let index = self.number()?;
        let path = self.string()?;
        if self.eat(",")? {
            self.integer()?;
            self.expect(",")?;
            self.integer()?;
        }
        Ok((index, path))
    }

    /// `"nounroll";` Pragmas advise ptxas and change no result.
    pub fn pragma(&mut self) -> Result<()> {
        self.separated(Self::string)?;
        self.expect(";")
    }

    /// `.debug_str { … }`: debugging data, read only to find its end.
    fn section(&mut self) -> Result<()> {
        self.take(Kind::Dotted, "a section's name")?;
        self.expect("{")?;
        while !self.eat("}")? {
            match self.token.kind {
                Kind::Word => {
                    self.bump()?;
                    self.expect(":")?;
                }
                Kind::Dotted if matches!(self.token.text, "b8" | "b16" | "b32" | "b64") => {
                    self.bump()?;
                    self.separated(Self::section_value)?;
                }
                _ => return Err(self.unexpected("`.b8`, `.b16`, `.b32`, `.b64`, a label or `}`")),
            }
        }
        Ok(())
    }

    /// `12`, `-1`, `label`, `.debug_abbrev`, `label+4`, `end-begin`
    fn section_value(&mut self) -> Result<()> {
        self.eat("-")?;
        loop {
            match self.token.kind {
                Kind::Number => drop(self.plain_integer()?),
                Kind::Word => drop(self.bump()?),
                Kind::Dotted if self.token.text.starts_with("debug") => drop(self.bump()?),
                _ => return Err(self.unexpected("a value")),
            }
            if !self.eat("+")? && !self.eat("-")? {
                return Ok(());
            }
        }
    }
}

/// Digits only: `str::parse` would also accept a sign.
fn decimal(digits: &str) -> Option<u32> {
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    if plain { digits.parse().ok() } else { None }
}
