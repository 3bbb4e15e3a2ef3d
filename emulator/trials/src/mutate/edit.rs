//! The edits of an instruction that make mutants.

use super::mutant::Kind;
use super::statement::InstructionText;
use ptx_emulator::ast::{Instruction, Operand};

/// The edits of an instruction, each with the text that replaces it; an empty text removes the instruction.
/// `forward`: the instruction is a branch to a later instruction.
pub fn edits(instruction: &Instruction, text: &InstructionText, forward: bool) -> Vec<(Kind, String)> {
    let opcode: Vec<&str> = instruction.opcode.iter().map(String::as_str).collect();
    let mut edits = Vec::new();
    match opcode[0] {
        "bar" | "barrier" => barrier(&opcode, text, &mut edits),
        "cp" => copy(&opcode, instruction, text, &mut edits),
        "fence" | "membar" => fence(&opcode, text, &mut edits),
        "ld" | "st" | "atom" | "red" => order(&opcode, text, &mut edits),
        "setp" => comparison(&opcode, text, &mut edits),
        "selp" => selection(&opcode, text, &mut edits),
        _ => {}
    }
    if instruction.guard.is_some() {
        match opcode[0] {
            "bra" if !forward => {}
            "bra" | "ret" | "exit" => edits.push((Kind::NeverLeave, String::new())),
            _ => edits.push((Kind::RemoveGuard, text.without_guard())),
        }
    }
    edits
}

type Edits = Vec<(Kind, String)>;

/// Reductions (`bar.red`) are not removed, as they have a result.
fn barrier(opcode: &[&str], text: &InstructionText, edits: &mut Edits) {
    let has = |part| opcode.contains(&part);
    if has("warp") {
        edits.push((Kind::RemoveWarpBarrier, String::new()));
    } else if has("sync") || has("arrive") || has("wait") {
        edits.push((Kind::RemoveBarrier, String::new()));
        if has("sync") {
            edits.push((Kind::NarrowBarrier, text.with_operands(&["bar", "warp", "sync"], &["0xffffffff"])));
        }
    }
}

fn copy(opcode: &[&str], instruction: &Instruction, text: &InstructionText, edits: &mut Edits) {
    if opcode.contains(&"wait_all") {
        edits.push((Kind::RemoveWait, String::new()));
    } else if opcode.contains(&"wait_group") {
        edits.push((Kind::RemoveWait, String::new()));
        if let [Operand::Integer(groups)] = instruction.operands[..] {
            edits.push((Kind::RaiseWait, text.with_operands(opcode, &[&(groups + 1).to_string()])));
        }
    } else if opcode.contains(&"commit_group") {
        edits.push((Kind::RemoveCommit, String::new()));
    } else if let ["cp", "async", "ca" | "cg", ..] = opcode {
        // A cache policy is the last operand.
        let policy = usize::from(opcode.contains(&"L2::cache_hint"));
        if let [to, from, bytes, _, rest @ ..] = text.operands()
            && rest.len() == policy
        {
            let operands = [&[*to, *from, *bytes], rest].concat();
            edits.push((Kind::FullSource, text.with_operands(opcode, &operands)));
        }
    }
}

fn fence(opcode: &[&str], text: &InstructionText, edits: &mut Edits) {
    edits.push((Kind::RemoveFence, String::new()));
    let ordinary = matches!(opcode, ["membar", _] | ["fence", "sc" | "acq_rel", _] | ["fence", _]);
    if let Some((scope, rest)) = opcode.split_last()
        && ordinary
        && *scope != "cta"
    {
        edits.push((Kind::NarrowFence, text.with_opcode(&[rest, &["cta"]].concat())));
    }
}

fn order(opcode: &[&str], text: &InstructionText, edits: &mut Edits) {
    let scope = |part: &str| matches!(part, "gpu" | "sys" | "cluster");
    let orders = |part: &str| matches!(part, "acquire" | "release" | "acq_rel");
    let replaced = |wanted: &dyn Fn(&str) -> bool, with: &'static str| -> Vec<String> {
        opcode.iter().map(|&part| if wanted(part) { with } else { part }.to_owned()).collect()
    };
    if opcode.iter().any(|part| orders(part)) {
        edits.push((Kind::Relax, text.with_opcode(&replaced(&orders, "relaxed"))));
    }
    let strong = opcode.contains(&"relaxed") || opcode.contains(&"volatile");
    if strong && matches!(opcode[0], "ld" | "st") {
        let keeps = |part: &&str| !matches!(*part, "relaxed" | "volatile" | "cta") && !scope(part);
        let parts: Vec<&str> = opcode.iter().copied().filter(keeps).collect();
        edits.push((Kind::Weaken, text.with_opcode(&parts)));
    }
    if opcode.iter().any(|part| scope(part)) {
        edits.push((Kind::NarrowScope, text.with_opcode(&replaced(&scope, "cta"))));
    } else if matches!(opcode[0], "atom" | "red") && opcode.contains(&"global") && !opcode.contains(&"cta") {
        // The default scope is the device. A memory order, if present, precedes the scope.
        let after = 1 + usize::from(opcode.get(1).is_some_and(|part| orders(part) || *part == "relaxed"));
        edits.push((Kind::NarrowScope, text.with_opcode(&[&opcode[..after], &["cta"], &opcode[after..]].concat())));
    }
}

fn comparison(opcode: &[&str], text: &InstructionText, edits: &mut Edits) {
    let integer = |part: &&str| matches!(*part, "u16" | "u32" | "u64" | "s16" | "s32" | "s64");
    let shifted = match opcode.get(1) {
        Some(&"lt") => "le",
        Some(&"le") => "lt",
        Some(&"gt") => "ge",
        Some(&"ge") => "gt",
        // Unsigned comparisons also have these names.
        Some(&"lo") => "ls",
        Some(&"ls") => "lo",
        Some(&"hi") => "hs",
        Some(&"hs") => "hi",
        _ => return,
    };
    if opcode.last().is_some_and(integer) {
        edits.push((Kind::ShiftComparison, text.with_opcode(&[&[opcode[0], shifted], &opcode[2..]].concat())));
    }
}

/// Selects between two equal values, so that types and literals remain valid.
fn selection(opcode: &[&str], text: &InstructionText, edits: &mut Edits) {
    if let [to, first, second, predicate] = text.operands()[..] {
        edits.push((Kind::SelectFirst, text.with_operands(opcode, &[to, first, first, predicate])));
        edits.push((Kind::SelectSecond, text.with_operands(opcode, &[to, second, second, predicate])));
    }
}
