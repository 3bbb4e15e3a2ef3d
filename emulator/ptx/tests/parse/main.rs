//! The PTX parser: each construct, compiler output, every error with its position, and thousands of broken texts.

mod errors;
mod fixtures;
mod fuzz;
mod instructions;
mod modules;
mod variables;

use ptx_emulator::ast::{Function, Instruction, Module, Operand, Statement};
use ptx_emulator::parse::parse;

const HEADER: &str = ".version 9.0\n.target sm_90a\n.address_size 64\n";

/// Parses `text` after the three directives that every module begins with.
fn module(text: &str) -> Module {
    let text = format!("{HEADER}{text}");
    parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn function(text: &str) -> Function {
    module(text).functions.pop().expect("a function")
}

/// The statements of a function's body.
fn body(text: &str) -> Vec<Statement> {
    function(&format!(".entry k() {{ {text} }}")).body.expect("a body")
}

fn instruction(text: &str) -> Instruction {
    match body(text).pop() {
        Some(Statement::Instruction(instruction)) => instruction,
        other => panic!("{other:?}"),
    }
}

fn operands(text: &str) -> Vec<Operand> {
    instruction(text).operands
}

fn name(name: &str) -> Operand {
    Operand::Name(name.to_owned())
}

/// The error message, with its position, of a text that must not parse.
fn error(text: &str) -> String {
    parse(text).expect_err(text).to_string()
}
