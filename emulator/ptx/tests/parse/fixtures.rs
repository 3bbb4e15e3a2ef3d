//! Whole modules: output of nvcc 13.0 for the sources in the same folder, and one module with every other construct.

use ptx_emulator::ast::{Function, Instruction, Module, Operand, Statement};
use ptx_emulator::parse::parse;
use std::time::{Duration, Instant};

pub const CALLS: &str = include_str!("fixtures/calls.ptx");
pub const HOPPER: &str = include_str!("fixtures/hopper.ptx");
pub const DEBUG: &str = include_str!("fixtures/debug.ptx");
pub const FORMS: &str = include_str!("fixtures/forms.ptx");

fn module(text: &str) -> Module {
    parse(text).unwrap_or_else(|error| panic!("{error}"))
}

fn function<'m>(module: &'m Module, name: &str) -> &'m Function {
    let mut defined = module.functions.iter().filter(|function| function.body.is_some());
    defined.find(|function| function.name == name).expect(name)
}

/// All instructions, including those in blocks.
fn instructions(statements: &[Statement]) -> Vec<&Instruction> {
    let mut found = Vec::new();
    for statement in statements {
        match statement {
            Statement::Instruction(instruction) => found.push(instruction),
            Statement::Block(block) => found.extend(instructions(block)),
            _ => {}
        }
    }
    found
}

fn body<'m>(module: &'m Module, name: &str) -> Vec<&'m Instruction> {
    instructions(function(module, name).body.as_ref().expect("a body"))
}

#[test]
fn calls() {
    let module = module(CALLS);
    assert_eq!((module.version, module.target.as_str()), ((9, 0), "sm_80"));
    assert_eq!(module.files[0], (1, "calls.cu".to_owned()));
    let kernel = function(&module, "calls");
    assert_eq!((kernel.max_threads, kernel.min_blocks_per_sm), (Some([256, 1, 1]), Some(2)));
    assert_eq!(kernel.params.iter().map(|param| param.size()).collect::<Vec<_>>(), [Some(16), Some(4)]);
    let body = body(&module, "calls");
    let calls: Vec<_> = body.iter().filter(|found| found.opcode[0] == "call").collect();
    assert_eq!(calls.len(), 2);
    // The indirect one: returns, register, arguments, prototype.
    assert_eq!(calls[0].operands.len(), 4);
    assert!(matches!(&calls[0].operands[2], Operand::List(arguments) if arguments.len() == 2));
}

#[test]
fn hopper() {
    let module = module(HOPPER);
    let kernel = function(&module, "hopper");
    assert_eq!((kernel.required_cluster, kernel.max_threads), (Some([2, 1, 1]), Some([384, 1, 1])));
    let body = body(&module, "hopper");
    let tma = body.iter().find(|found| found.name().starts_with("cp.async.bulk.tensor")).expect("TMA");
    assert!(matches!(&tma.operands[1], Operand::Tensor(parts) if parts.len() == 2));
    let wgmma = body.iter().find(|found| found.name().starts_with("wgmma.mma_async")).expect("wgmma");
    assert_eq!(wgmma.operands.len(), 8);
    let wait = body.iter().find(|found| found.name().starts_with("mbarrier.try_wait")).expect("a wait");
    assert_eq!(wait.position.line, line_of(HOPPER, "mbarrier.try_wait"));
}

fn line_of(text: &str, needle: &str) -> u32 {
    1 + text.lines().position(|line| line.contains(needle)).expect(needle) as u32
}

#[test]
fn debug() {
    let module = module(DEBUG);
    assert_eq!(body(&module, "debug_info").last().expect("an instruction").name(), "ret");
}

#[test]
fn forms() {
    let module = module(FORMS);
    let names: Vec<_> = module.functions.iter().map(|function| function.name.as_str()).collect();
    assert_eq!(names, ["leaf", "other", "never", "forms"]);
    assert_eq!(module.aliases, [("other".to_owned(), "leaf".to_owned())]);
    let kernel = function(&module, "forms");
    assert_eq!((kernel.required_threads, kernel.blocks_are_clusters), (Some([64, 2, 1]), true));
    assert_eq!(body(&module, "forms").len(), 36);
}

/// Four times the text takes about four times as long, and a megabyte far less than a tenth of a second (the limit is
/// for a busy machine).
#[test]
fn time_is_linear_in_the_text() {
    let (header, rest) = FORMS.split_at(FORMS.find(".visible .entry").expect("a kernel"));
    let time = |copies: usize| {
        let text = header.to_owned() + &rest.repeat(copies);
        let best = (0..3).map(|_| {
            let start = Instant::now();
            module(&text);
            start.elapsed()
        });
        (text.len(), best.min().expect("three runs"))
    };
    let (bytes, elapsed) = time(1_000_000 / rest.len());
    println!("{bytes} bytes in {elapsed:?}");
    assert!(elapsed < Duration::from_millis(500), "{bytes} bytes took {elapsed:?}");
    let (_, fourfold) = time(4_000_000 / rest.len());
    assert!(fourfold < 16 * elapsed, "a quarter took {elapsed:?}, the whole {fourfold:?}");
}
