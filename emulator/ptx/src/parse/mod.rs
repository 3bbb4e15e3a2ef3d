//! PTX text → [`crate::ast`].
//!
//! ```text
//! lexer        text → tokens, each a slice of it
//! cursor       the place in the text; expect, separated, nested
//! constant     numbers and arithmetic on them
//! module       .version .target .file .section … at module scope
//! declaration  variables and parameters;  initialiser  their values
//! function     .entry and .func up to the body
//! body         statements;  operand  what instructions work on
//! ```
//!
//! Recursive descent over one token, in one pass. What it does not know, it refuses by name: nothing is skipped but
//! comments, debugging sections, and the directives that only advise ptxas. Names stay unresolved, so
//! an unknown opcode or register is the lowering's to refuse.

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

/// Parses one module. Takes time and memory in proportion to the text, whatever the text.
pub fn parse(text: &str) -> Result<Module> {
    cursor::Parser::new(text)?.module()
}
