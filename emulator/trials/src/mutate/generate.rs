//! Finds the mutants of a text.

use std::collections::{BTreeSet, HashMap};

use ptx_emulator::ast::{Function, Instruction, Module, Operand, Position, Statement};
use ptx_emulator::parse::{self, SyntaxError};
use ptx_emulator::source_map::SourceMap;

use super::edit::edits;
use super::mutant::Mutant;
use super::statement::InstructionText;

/// All mutants of a text, in the order of the text. `kernel` restricts them to one kernel and the functions that it calls.
///
/// # Errors
/// The text is not PTX.
pub fn mutants(ptx: &str, kernel: Option<&str>) -> Result<Vec<Mutant>, SyntaxError> {
    let module = parse::parse(ptx)?;
    let selected = kernel.map(|kernel| kernel_and_callees(&module, kernel));
    let mut source_map = SourceMap::new(&module.files);
    let mut generator = Generator { ptx, lines: line_starts(ptx), labels: HashMap::new(), mutants: Vec::new() };
    for function in &module.functions {
        let is_selected = selected.as_ref().is_none_or(|names| names.contains(function.name.as_str()));
        let Some(body) = function.body.as_ref().filter(|_| is_selected) else { continue };
        generator.labels.clear();
        generator.collect_labels(body);
        let mut context = Context { function, source: None, called_from: None };
        generator.statements(body, &mut source_map, &mut context);
    }
    Ok(generator.mutants)
}

/// A function and the current source line in it.
struct Context<'a> {
    function: &'a Function,
    source: Option<String>,
    called_from: Option<String>,
}

struct Generator<'a> {
    ptx: &'a str,
    /// Offsets of the lines of the text.
    lines: Vec<usize>,
    /// Positions of the function's labels, by name.
    labels: HashMap<&'a str, Position>,
    mutants: Vec<Mutant>,
}

impl<'a> Generator<'a> {
    fn collect_labels<'m: 'a>(&mut self, body: &'m [Statement]) {
        for statement in body {
            match statement {
                Statement::Label(position, name) => drop(self.labels.insert(name, *position)),
                Statement::Block(inner) => self.collect_labels(inner),
                _ => {}
            }
        }
    }

    fn statements(&mut self, body: &[Statement], source_map: &mut SourceMap, context: &mut Context) {
        for statement in body {
            match statement {
                &Statement::Location { file, line, column, inlined_at } => {
                    let (shown, outermost) = source_map.locate((file, line, column), inlined_at);
                    context.source = source_map.name(shown);
                    context.called_from = source_map.name(outermost).filter(|_| outermost != shown);
                }
                Statement::Block(inner) => self.statements(inner, source_map, context),
                Statement::Instruction(instruction) => self.instruction(instruction, context),
                _ => {}
            }
        }
    }

    fn instruction(&mut self, instruction: &Instruction, context: &Context) {
        let start = self.offset(instruction.position);
        let Some(statement) = InstructionText::new(&self.ptx[start..]) else { return };
        let forward = self.branches_forward(instruction);
        for (kind, new) in edits(instruction, &statement, forward) {
            let ptx_line = instruction.position.line;
            // The line breaks of removed text are kept, so that line numbers do not change.
            let kept = statement.text.matches('\n').count().saturating_sub(new.matches('\n').count());
            self.mutants.push(Mutant {
                kind,
                function: context.function.name.clone(),
                source: context.source.clone().unwrap_or_else(|| format!("PTX line {ptx_line}")),
                called_from: context.called_from.clone(),
                ptx_line,
                before: one_line(statement.text),
                after: one_line(&new),
                range: start..start + statement.text.len(),
                replacement: new + &"\n".repeat(kept),
            });
        }
    }

    /// Whether an instruction is a branch to a label that comes later in the text.
    fn branches_forward(&self, instruction: &Instruction) -> bool {
        let key = |position: Position| (position.line, position.column);
        match &instruction.operands[..] {
            [Operand::Name(label)] => {
                self.labels.get(label.as_str()).is_some_and(|&label| key(label) > key(instruction.position))
            }
            _ => false,
        }
    }

    fn offset(&self, position: Position) -> usize {
        self.lines[position.line as usize - 1] + position.column as usize - 1
    }
}

fn line_starts(text: &str) -> Vec<usize> {
    std::iter::once(0).chain(text.bytes().enumerate().filter(|&(_, b)| b == b'\n').map(|(i, _)| i + 1)).collect()
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The names of a kernel and of all functions that it calls.
fn kernel_and_callees<'m>(module: &'m Module, kernel: &str) -> BTreeSet<&'m str> {
    let body_of = |name: &str| {
        let function = module.functions.iter().find(|f| f.name == name && f.body.is_some())?;
        Some((function.name.as_str(), function.body.as_deref().unwrap_or_default()))
    };
    let mut names = BTreeSet::new();
    let mut waiting: Vec<_> = body_of(kernel).into_iter().collect();
    while let Some((name, body)) = waiting.pop() {
        if names.insert(name) {
            let mut called = Vec::new();
            calls(body, &mut called);
            waiting.extend(called.into_iter().filter_map(body_of));
        }
    }
    names
}

/// The names in calls. Names that are not those of functions have no effect.
fn calls<'m>(body: &'m [Statement], into: &mut Vec<&'m str>) {
    for statement in body {
        match statement {
            Statement::Block(inner) => calls(inner, into),
            Statement::Instruction(call) if call.opcode[0] == "call" => {
                into.extend(call.operands.iter().filter_map(|operand| match operand {
                    Operand::Name(name) => Some(name.as_str()),
                    _ => None,
                }));
            }
            _ => {}
        }
    }
}
