//! `.entry` and `.func`: everything before the body.

use super::cursor::Parser;
use super::lexer::{Kind, Token};
use super::{Result, SyntaxError};
use crate::ast::{Function, Linkage, Variable};

impl Parser<'_> {
    /// The rest of an `.entry` or `.func` whose directive has been taken.
    pub fn function(&mut self, linkage: Linkage, is_entry: bool) -> Result<Function> {
        self.scoped(|parser| {
            if parser.token.is(Kind::Dotted, "attribute") {
                parser.bump()?;
                parser.attribute()?;
            }
            let returns = if is_entry { Vec::new() } else { parser.parameters()? };
            let name = parser.name()?;
            let params = parser.parameters()?;
            let mut function = Function {
                position: name.position,
                linkage,
                is_entry,
                name: name.text.to_owned(),
                returns,
                params,
                max_threads: None,
                required_threads: None,
                blocks_are_clusters: false,
                required_cluster: None,
                max_cluster_rank: None,
                min_blocks_per_sm: None,
                max_registers: None,
                body: None,
            };
            while parser.token.kind == Kind::Dotted {
                parser.performance_directive(&mut function)?;
            }
            if parser.at("{") {
                function.body = Some(parser.block()?);
            } else if !parser.eat(";")? {
                return Err(parser.unexpected("`{` or `;`"));
            }
            Ok(function)
        })
    }

    /// `(…)`, or nothing.
    pub fn parameters(&mut self) -> Result<Vec<Variable>> {
        if self.at("(") { self.parenthesised(Self::parameter) } else { Ok(Vec::new()) }
    }

    fn performance_directive(&mut self, function: &mut Function) -> Result<()> {
        if !function.is_entry && self.calling_convention()? {
            return Ok(());
        }
        let token = self.take(Kind::Dotted, "a directive")?;
        match token.text {
            "pragma" => self.pragma(),
            "maxntid" => once(&mut function.max_threads, self.dimensions()?, token),
            "reqntid" => once(&mut function.required_threads, self.dimensions()?, token),
            "reqnctapercluster" => once(&mut function.required_cluster, self.dimensions()?, token),
            "maxclusterrank" => once(&mut function.max_cluster_rank, self.number()?, token),
            "minnctapersm" => once(&mut function.min_blocks_per_sm, self.number()?, token),
            "maxnreg" => once(&mut function.max_registers, self.number()?, token),
            "blocksareclusters" => {
                function.blocks_are_clusters = true;
                Ok(())
            }
            // It says only that the launch or `.reqnctapercluster` gives the cluster's size.
            "explicitcluster" => Ok(()),
            _ => Err(SyntaxError::new(token.position, format!("unsupported directive {token}"))),
        }
    }

    /// Takes a directive of a `.func` about registers or returning in machine code, which has no effect here; false if
    /// none comes next.
    pub fn calling_convention(&mut self) -> Result<bool> {
        if self.token.kind != Kind::Dotted {
            return Ok(false);
        }
        match self.token.text {
            "noreturn" => drop(self.bump()?),
            "abi_preserve" | "abi_preserve_control" => {
                self.bump()?;
                self.number()?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// `x, y, z`; `y` and `z` are optional.
    fn dimensions(&mut self) -> Result<[u32; 3]> {
        let mut dimensions = [self.number()?, 1, 1];
        for dimension in &mut dimensions[1..] {
            if self.eat(",")? {
                *dimension = self.number()?;
            }
        }
        Ok(dimensions)
    }
}

fn once<T>(slot: &mut Option<T>, value: T, directive: Token<'_>) -> Result<()> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(SyntaxError::new(directive.position, format!("{directive} is given twice"))),
    }
}
