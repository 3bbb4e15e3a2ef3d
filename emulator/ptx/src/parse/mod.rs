//! PTX text → [`crate::ast`].
//!
//! ```text
//! lexer        text → tokens, each a slice of it
//! cursor       the position in the text; expect, separated, nested
//! constant     numbers and constant expressions
//! module       .version .target .file .section … at module scope
//! declaration  variables and parameters;  initialiser  their values
//! function     .entry and .func up to the body
//! body         statements;  operand  operands of instructions
//! ```
//!
//! A recursive-descent parser with one token of look-ahead and one pass. It refuses anything that it does not know, with
//! an error that names it; it skips only comments, debugging sections and directives that advise ptxas. Names stay
//! unresolved, so unknown opcodes and registers are refused by lowering.

mod body;
mod constant;
mod cursor;
mod declaration;
mod function;
mod initialiser;
mod lexer;
mod module;
mod operand;

use crate::ast::{Module, Position};

/// Text that is not PTX, or PTX that is not supported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{position}: {message}")]
pub struct SyntaxError {
    pub position: Position,
    pub message: String,
}

impl SyntaxError {
    fn new(position: Position, message: impl Into<String>) -> Self {
        Self { position, message: message.into() }
    }
}

type Result<T> = std::result::Result<T, SyntaxError>;

/// Parses one module, in time and memory proportional to the length of any text.
pub fn parse(text: &str) -> Result<Module> {
    cursor::Parser::new(text)?.module()
}
