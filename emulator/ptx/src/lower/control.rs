//! Branches, calls, barriers and fences.

use super::state::{Lowering, Result, Signature, Symbol};
use crate::address_space::align;
use crate::ast::{Operand, Space, Variable};
use crate::ir::{BarrierKind, Call, Op, Scope};
use crate::registers::{Class, Src};

impl Lowering<'_> {
    pub(super) fn control(&mut self, opcode: &[&str], operands: &[Operand]) -> Result<bool> {
        match opcode {
            ["bra", ..] => self.branch(operands)?,
            ["brx", "idx", ..] => self.branch_table(operands)?,
            ["call", ..] => self.call(operands)?,
            ["ret", ..] => self.emit(if self.is_entry { Op::Exit } else { Op::Return }),
            ["exit"] => self.emit(Op::Exit),
            ["trap" | "brkpt"] => self.emit(Op::Trap { assertion: false }),
            // Hints to wait and hints to caches have no effect in the emulator.
            ["nanosleep", ..] | ["prefetch" | "prefetchu", ..] | ["pragma", ..] => self.emit(Op::Nothing),
            ["bar" | "barrier", rest @ ..] => return self.barrier(opcode[0], rest, operands),
            ["membar", "cta"] => self.emit(Op::Fence { scope: Scope::Block }),
            ["membar", "gl" | "sys"] => self.emit(Op::Fence { scope: Scope::Device }),
            ["fence", "acq_rel" | "sc", scope] | ["fence", scope] => match scope_of(scope) {
                Some(scope) => self.emit(Op::Fence { scope }),
                None => return Ok(false),
            },
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn branch(&mut self, operands: &[Operand]) -> Result<()> {
        let [Operand::Name(label)] = operands else {
            return Err(self.invalid("bra needs one label"));
        };
        let target = self.label(label)?;
        self.emit(Op::Branch { target });
        Ok(())
    }

    fn label(&self, name: &str) -> Result<u32> {
        match self.lookup(name) {
            Some(Symbol::Label(label)) => Ok(*label),
            _ => Err(self.invalid(format!("{name} is not a label"))),
        }
    }

    fn branch_table(&mut self, operands: &[Operand]) -> Result<()> {
        let [index, Operand::Name(table)] = operands else {
            return Err(self.invalid("brx.idx needs an index and a list of targets"));
        };
        let names = match self.lookup(table) {
            Some(Symbol::BranchTargets(names)) => names.clone(),
            _ => return Err(self.invalid(format!("{table} is not a list of branch targets"))),
        };
        let targets = names.iter().map(|name| self.label(name)).collect::<Result<Box<[u32]>>>()?;
        let index = self.source(Class::B32, index)?;
        self.emit(Op::BranchTable { index, targets });
        Ok(())
    }

    /// Replaces the numbers of labels by program counters.
    pub(super) fn resolve_labels(&mut self, start: usize) {
        let labels = &self.labels;
        let resolve = |label: &mut u32| *label = labels[*label as usize].unwrap_or_default();
        for instr in &mut self.program.code[start..] {
            match &mut instr.op {
                Op::Branch { target } => resolve(target),
                Op::BranchTable { targets, .. } => targets.iter_mut().for_each(resolve),
                _ => {}
            }
        }
    }

    fn call(&mut self, operands: &[Operand]) -> Result<()> {
        let (results, name, arguments) = match operands {
            [Operand::Name(name)] => (&[][..], name, &[][..]),
            [Operand::Name(name), Operand::List(arguments)] => (&[][..], name, &arguments[..]),
            [Operand::List(results), Operand::Name(name)] => (&results[..], name, &[][..]),
            [Operand::List(results), Operand::Name(name), Operand::List(arguments)] => {
                (&results[..], name, &arguments[..])
            }
            [.., Operand::Name(_)] => return Err(self.unsupported("an indirect call")),
            _ => return Err(self.invalid("the operands of the call have an unknown form")),
        };
        if self.lookup(name).is_some() {
            return Err(self.unsupported("an indirect call"));
        }
        if name == "__assertfail" {
            self.emit(Op::Trap { assertion: true });
            return Ok(());
        }
        let function = self.called_function(name)?;
        let Signature { arguments: to, results: from } = self.signatures[function as usize].clone();
        if to.len() != arguments.len() || from.len() != results.len() {
            return Err(self.invalid(format!(
                "{name} takes {} arguments and returns {} results; the call has {} and {}",
                to.len(),
                from.len(),
                arguments.len(),
                results.len()
            )));
        }
        let mut call = Call { target: function, tracked: 0..0, arguments: Vec::new(), results: Vec::new() };
        for (operand, (offset, size)) in arguments.iter().zip(to) {
            call.arguments.push((self.call_param(operand, size)?, offset, size));
        }
        for (operand, (offset, size)) in results.iter().zip(from) {
            call.results.push((offset, self.call_param(operand, size)?, size));
        }
        self.emit(Op::Call(Box::new(call)));
        Ok(())
    }

    fn call_param(&self, operand: &Operand, size: u32) -> Result<u32> {
        match operand {
            Operand::Name(name) => match self.lookup(name) {
                Some(&Symbol::LocalParam(offset, have)) if have == size => Ok(offset),
                Some(&Symbol::LocalParam(_, have)) => {
                    Err(self.invalid(format!("{name} has {have} bytes, the function's parameter {size}")))
                }
                _ => Err(self.unsupported(format!("the register {name} as a parameter of a call"))),
            },
            _ => Err(self.unsupported("a literal as a parameter of a call")),
        }
    }

    /// The number of a called function, which is added to the functions to lower if it is new.
    fn called_function(&mut self, name: &str) -> Result<u32> {
        let module = self.module;
        let of_name = || module.functions.iter().enumerate().filter(|(_, function)| function.name == *name);
        let index = of_name().find(|(_, function)| function.body.is_some()).or_else(|| of_name().next());
        let Some((index, function)) = index else {
            return Err(self.invalid(format!("the function {name} is not declared")));
        };
        if let Some(known) = self.functions.iter().position(|&known| known == index) {
            return Ok(known as u32);
        }
        let mut allocate = |variables: &[Variable]| -> Result<Vec<(u32, u32)>> {
            let mut ranges = Vec::new();
            for variable in variables {
                if variable.space == Space::Reg {
                    return Err(self.unsupported(format!("{name}, whose parameters are registers")));
                }
                let size = self.variable_size(variable)?;
                let offset = align(self.local_bytes, variable.align);
                self.local_bytes = self.grown(offset, size)?;
                ranges.push((offset, size));
            }
            Ok(ranges)
        };
        let signature = Signature { arguments: allocate(&function.params)?, results: allocate(&function.returns)? };
        self.functions.push(index);
        self.signatures.push(signature);
        Ok(self.functions.len() as u32 - 1)
    }

    /// Refuses recursion: the registers and parameters of a function exist only once.
    pub(super) fn refuse_recursion(&self, starts: &[u32]) -> Result<()> {
        let of_pc = |pc: usize| starts.partition_point(|&start| start as usize <= pc) - 1;
        let mut calls = vec![Vec::new(); starts.len()];
        for (pc, instr) in self.program.code.iter().enumerate() {
            if let Op::Call(call) = &instr.op {
                calls[of_pc(pc)].push(call.target as usize);
            }
        }
        // Functions without remaining callees are removed from the call graph until none is left; what cannot be removed
        // is part of a cycle or calls one.
        let mut left: Vec<usize> = (0..starts.len()).collect();
        loop {
            let leaves = |&f: &usize| calls[f].iter().all(|callee| !left.contains(callee));
            let rest: Vec<usize> = left.iter().copied().filter(|f| !leaves(f)).collect();
            match rest.first() {
                None => return Ok(()),
                Some(&f) if rest.len() == left.len() => {
                    let name = &self.module.functions[self.functions[f]].name;
                    return Err(self.unsupported(format!("recursion ({name})")));
                }
                Some(_) => left = rest,
            }
        }
    }

    fn barrier(&mut self, name: &str, parts: &[&str], operands: &[Operand]) -> Result<bool> {
        let mut parts: Vec<&str> = parts.iter().copied().filter(|&part| part != "cta").collect();
        if parts.first() == Some(&"warp") {
            if parts != ["warp", "sync"] || operands.len() != 1 {
                return Ok(false);
            }
            let members = self.source(Class::B32, &operands[0])?;
            self.emit(Op::WarpBarrier { members });
            return Ok(true);
        }
        // `bar` is `barrier.aligned`.
        let aligned = name == "bar" || parts.contains(&"aligned");
        parts.retain(|&part| part != "aligned");
        let (kind, reduces) = match parts[..] {
            ["sync"] => (BarrierKind::Sync, false),
            ["arrive"] => (BarrierKind::Arrive, false),
            ["red", "popc", "u32"] => (BarrierKind::Count, true),
            ["red", "and", "pred"] => (BarrierKind::And, true),
            ["red", "or", "pred"] => (BarrierKind::Or, true),
            _ => return Ok(false),
        };
        let (mut to, mut predicate, mut rest) = (None, None, operands);
        if reduces {
            let [result, middle @ .., last] = operands else {
                return Err(self.invalid("bar.red needs a result, a barrier and a predicate"));
            };
            let class = if kind == BarrierKind::Count { Class::B32 } else { Class::Pred };
            to = Some(self.result(class, result)?);
            predicate = Some(self.predicate(last)?);
            rest = middle;
        }
        let (id, threads) = match rest {
            [id] if kind != BarrierKind::Arrive => (self.source(Class::B32, id)?, None),
            [id, threads] => (self.source(Class::B32, id)?, Some(self.source(Class::B32, threads)?)),
            [] if kind == BarrierKind::Sync => (Src::Bits(0), None),
            _ => return Err(self.invalid(format!("{name} with {} operands", operands.len()))),
        };
        self.emit(Op::Barrier { kind, aligned, id, threads, predicate, to });
        Ok(true)
    }
}

/// `cta`, `gpu` and `sys`. Clusters are not emulated, so `cluster` is refused.
pub(super) fn scope_of(name: &str) -> Option<Scope> {
    match name {
        "cta" => Some(Scope::Block),
        "gpu" | "sys" => Some(Scope::Device),
        _ => None,
    }
}
