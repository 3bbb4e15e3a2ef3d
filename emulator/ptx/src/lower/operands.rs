//! Lowers operands: registers, literals and addresses.

use super::state::{Lowering, Result, Symbol, Virtual};
use crate::address_space::{SHARED_BASE, align};
use crate::alu::Kind;
use crate::ast::Operand;
use crate::ir::{Address, ClockPart, Op, Relation, Space, Special};
use crate::registers::{Class, Src};

/// What a name that is not a register refers to.
pub(super) enum Resolved {
    /// An address in a state space.
    Address(Space, u64),
    Special(Special),
    Constant(u64),
}

impl Lowering<'_> {
    /// The register of a name.
    pub(super) fn register(&mut self, name: &str) -> Result<Virtual> {
        match self.find_register(name) {
            Some(register) => {
                self.names.entry(register).or_insert_with(|| name.to_owned());
                Ok(register)
            }
            None => Err(self.invalid(format!("{name} is not a register"))),
        }
    }

    fn find_register(&self, name: &str) -> Option<Virtual> {
        self.find_declared(name).map(|(register, _)| register)
    }

    /// Whether a register has at most 16 bits.
    pub(super) fn is_narrow(&self, name: &str) -> bool {
        self.find_declared(name).is_some_and(|(_, narrow)| narrow)
    }

    fn find_declared(&self, name: &str) -> Option<(Virtual, bool)> {
        if let Some(&Symbol::Registers { class, narrow, first, count: None }) = self.lookup(name) {
            return Some((Virtual { class, index: first }, narrow));
        }
        let prefix = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let digits = &name[prefix.len()..];
        // `%r01` and `%r1` are different names.
        if digits.is_empty() || digits.len() > 1 && digits.starts_with('0') {
            return None;
        }
        // A declared prefix may itself end in digits: `%p1_<5>`, `%x2<3>`. The shortest split is tried first.
        let mut split = prefix.len();
        while split < name.len() {
            if let Some(&Symbol::Registers { class, narrow, first, count: Some(count) }) =
                self.lookup(&format!("{}<>", &name[..split]))
            {
                let index: u32 = name[split..].parse().ok()?;
                return (index < count).then_some((Virtual { class, index: first + index }, narrow));
            }
            split += 1;
        }
        None
    }

    /// What the name of a variable or of a special register refers to.
    pub(super) fn resolve(&mut self, name: &str) -> Option<Resolved> {
        match self.lookup(name) {
            Some(&Symbol::KernelParam(offset)) => return Some(Resolved::Address(Space::Param, offset.into())),
            Some(&Symbol::LocalParam(offset, _) | &Symbol::Local(offset)) => {
                return Some(Resolved::Address(Space::Local, offset.into()));
            }
            Some(&Symbol::Shared(offset)) => {
                return Some(Resolved::Address(Space::Shared, u64::from(SHARED_BASE + offset)));
            }
            Some(_) => return None,
            None => {}
        }
        if let Some(&address) = self.globals.addresses.get(name) {
            return Some(Resolved::Address(Space::Global, address));
        }
        if let Some(&(size, alignment)) = self.globals.shared.get(name) {
            let offset = match self.module_shared.get(name) {
                Some(&offset) => offset,
                None => {
                    let offset = align(self.shared_bytes, alignment);
                    self.shared_bytes = offset.saturating_add(size);
                    self.module_shared.insert(name.to_owned(), offset);
                    offset
                }
            };
            return Some(Resolved::Address(Space::Shared, u64::from(SHARED_BASE + offset)));
        }
        if self.globals.dynamic_shared.contains(name) {
            return Some(Resolved::Special(Special::DynamicShared));
        }
        if name == "WARP_SZ" {
            return Some(Resolved::Constant(32));
        }
        special(name).map(Resolved::Special)
    }

    /// The slot that holds a special register.
    pub(super) fn special_slot(&mut self, special: Special) -> u32 {
        if let Some(register) = self.specials.get(&special) {
            return register.index;
        }
        let index = self.new_virtual(Class::B32);
        self.specials.insert(special, Virtual { class: Class::B32, index });
        self.program.specials.push((special, index));
        index
    }

    /// A source operand of an ALU instruction.
    pub(super) fn source_of(&mut self, kind: Kind, operand: &Operand) -> Result<Src> {
        match operand {
            Operand::Name(_) if kind == Kind::Carry => Ok(Src::Slot(self.carry_slot())),
            Operand::Name(name) => self.named_source(kind, name, 0),
            Operand::NameOffset(name, offset) => self.named_source(kind, name, *offset),
            _ => literal(kind, operand).ok_or_else(|| self.invalid("an operand has the wrong form")),
        }
    }

    fn named_source(&mut self, kind: Kind, name: &str, offset: i64) -> Result<Src> {
        if offset == 0 && self.find_register(name).is_some() {
            let register = self.register(name)?;
            return match (register.class, kind.class()) {
                (have, want) if have == want => Ok(Src::Slot(register.index)),
                // Of a register that is wider than the type, the low bits are read.
                (Class::B64, Class::B32) => {
                    let low = self.temporary(Class::B32);
                    self.synthesise("cvt.u32.u64", &[Operand::Name(low.clone()), Operand::Name(name.to_owned())])?;
                    Ok(Src::Slot(self.register(&low)?.index))
                }
                (class, expected) => Err(self.invalid(format!("{name} is {class:?}, where {expected:?} is needed"))),
            };
        }
        if let Some(part) = clock_part(name) {
            let class = if part == ClockPart::Whole { Class::B64 } else { Class::B32 };
            if class != kind.class() {
                return Err(self.invalid(format!("{name} is {class:?}, where {:?} is needed", kind.class())));
            }
            let to = self.new_virtual(class);
            self.emit(Op::Clock { to, part });
            return Ok(Src::Slot(to));
        }
        match self.resolve(name) {
            Some(Resolved::Address(_, address)) => Ok(Src::Bits(address.wrapping_add_signed(offset))),
            Some(Resolved::Constant(value)) => Ok(Src::Bits(value.wrapping_add_signed(offset))),
            Some(Resolved::Special(special)) if offset == 0 || special == Special::DynamicShared => {
                let mut slot = self.special_slot(special);
                if offset != 0 {
                    let (sum, base) = (self.temporary(Class::B32), self.alias(Class::B32, slot));
                    let operands = [Operand::Name(sum.clone()), Operand::Name(base), Operand::Integer(offset as u64)];
                    self.synthesise("add.u32", &operands)?;
                    slot = self.register(&sum)?.index;
                }
                if kind.class() == Class::B64 {
                    let wide = self.new_virtual(Class::B64);
                    return self.widened(slot, wide);
                }
                Ok(Src::Slot(slot))
            }
            _ if name.starts_with('%') && name[1..].contains(char::is_alphabetic) && !name.contains('<') => {
                let known = self.lookup(&format!("{}<>", name.trim_end_matches(|c: char| c.is_ascii_digit())));
                match known {
                    Some(_) => Err(self.invalid(format!("{name} is past the declared registers"))),
                    None => {
                        Err(self.unsupported(format!("the register or special register {name}, which is not declared")))
                    }
                }
            }
            _ if self.module.functions.iter().any(|function| function.name == name) => {
                Err(self.unsupported(format!("the address of the function {name}")))
            }
            _ => Err(self.invalid(format!("{name} is not declared"))),
        }
    }

    fn widened(&mut self, slot: u32, wide: u32) -> Result<Src> {
        let (low, high) = (self.alias(Class::B32, slot), self.alias(Class::B64, wide));
        self.synthesise("cvt.u64.u32", &[Operand::Name(high), Operand::Name(low)])?;
        Ok(Src::Slot(wide))
    }

    /// A result operand of an ALU instruction.
    pub(super) fn result_of(&mut self, kind: Kind, operand: &Operand) -> Result<u32> {
        match operand {
            Operand::Name(_) if kind == Kind::Carry => Ok(self.carry_slot()),
            Operand::Name(name) => {
                let register = self.register(name)?;
                if register.class != kind.class() {
                    return Err(self.invalid(format!(
                        "{name} is {:?}, where {:?} is needed",
                        register.class,
                        kind.class()
                    )));
                }
                Ok(register.index)
            }
            Operand::Sink => Ok(self.new_virtual(kind.class())),
            _ => Err(self.invalid("a result is not a register")),
        }
    }

    fn carry_slot(&mut self) -> u32 {
        match self.carry {
            Some(slot) => slot,
            None => {
                let slot = self.new_virtual(Class::Pred);
                self.names.insert(Virtual { class: Class::Pred, index: slot }, "the carry flag".into());
                self.carry = Some(slot);
                slot
            }
        }
    }

    /// A new register; returns its name, which cannot occur in a text.
    pub(super) fn temporary(&mut self, class: Class) -> String {
        let index = self.new_virtual(class);
        self.alias(class, index)
    }

    fn alias(&mut self, class: Class, index: u32) -> String {
        let name = format!("temporary {class:?} {index}");
        let symbol = Symbol::Registers { class, narrow: false, first: index, count: None };
        if let Some(scope) = self.scopes.last_mut() {
            scope.insert(name.clone(), symbol);
        }
        name
    }

    /// A register or literal of a class.
    pub(super) fn source(&mut self, class: Class, operand: &Operand) -> Result<Src> {
        let kind = match class {
            Class::B32 => Kind::Int(32),
            Class::B64 => Kind::Int(64),
            Class::Pred => Kind::Pred,
        };
        self.source_of(kind, operand)
    }

    /// A predicate, possibly negated.
    pub(super) fn predicate(&mut self, operand: &Operand) -> Result<(Src, bool)> {
        match operand {
            Operand::Not(name) => Ok((self.source(Class::Pred, &Operand::Name(name.clone()))?, true)),
            _ => Ok((self.source(Class::Pred, operand)?, false)),
        }
    }

    /// A register that is written.
    pub(super) fn result(&mut self, class: Class, operand: &Operand) -> Result<u32> {
        let kind = match class {
            Class::B32 => Kind::Int(32),
            Class::B64 => Kind::Int(64),
            Class::Pred => Kind::Pred,
        };
        self.result_of(kind, operand)
    }

    /// An operand in brackets, with the state space that a variable's name implies.
    pub(super) fn address(&mut self, operand: &Operand) -> Result<(Address, Option<Space>)> {
        let Operand::Address { base, offset } = operand else {
            return Err(self.invalid("an operand must be an address in brackets"));
        };
        let Some(name) = base else {
            return Ok((Address { base: Src::Bits(0), wide: true, offset: *offset }, None));
        };
        if self.find_register(name).is_some() {
            let register = self.register(name)?;
            if register.class == Class::Pred {
                return Err(self.invalid(format!("{name} is a predicate, not an address")));
            }
            let wide = register.class == Class::B64;
            return Ok((Address { base: Src::Slot(register.index), wide, offset: *offset }, None));
        }
        match self.resolve(name) {
            Some(Resolved::Address(space, address)) => {
                Ok((Address { base: Src::Bits(address), wide: true, offset: *offset }, Some(space)))
            }
            Some(Resolved::Special(Special::DynamicShared)) => {
                let base = Src::Slot(self.special_slot(Special::DynamicShared));
                Ok((Address { base, wide: false, offset: *offset }, Some(Space::Shared)))
            }
            _ => Err(self.invalid(format!("{name} is not declared"))),
        }
    }

    /// The registers of `{a, b, c, d}`, or of one operand.
    pub(super) fn parts(operand: &Operand) -> Vec<Operand> {
        match operand {
            Operand::Vector(parts) => parts.clone(),
            other => vec![other.clone()],
        }
    }
}

/// The bits of a literal.
fn literal(kind: Kind, operand: &Operand) -> Option<Src> {
    let bits = match (kind, operand) {
        (Kind::Int(64), Operand::Integer(bits)) | (Kind::F64, Operand::F64(bits)) => *bits,
        (Kind::Int(width), Operand::Integer(bits)) => bits & (u64::MAX >> (64 - width)),
        (Kind::F16 | Kind::BF16, Operand::Integer(bits)) => bits & 0xFFFF,
        (Kind::Pred, Operand::Integer(bits)) => u64::from(*bits != 0),
        (Kind::F32 | Kind::Int(32), Operand::F32(bits)) => u64::from(*bits),
        (Kind::F32, Operand::F64(bits)) => u64::from((f64::from_bits(*bits) as f32).to_bits()),
        (Kind::F32, Operand::Integer(bits)) => u64::from((*bits as i64 as f32).to_bits()),
        (Kind::F64, Operand::F32(bits)) => f64::from(f32::from_bits(*bits)).to_bits(),
        (Kind::F64, Operand::Integer(bits)) => (*bits as i64 as f64).to_bits(),
        (Kind::Int(64), Operand::F64(bits)) => *bits,
        _ => return None,
    };
    Some(Src::Bits(bits))
}

fn clock_part(name: &str) -> Option<ClockPart> {
    match name {
        "%clock64" | "%globaltimer" => Some(ClockPart::Whole),
        "%clock" | "%globaltimer_lo" => Some(ClockPart::Low),
        "%clock_hi" | "%globaltimer_hi" => Some(ClockPart::High),
        _ => None,
    }
}

fn special(name: &str) -> Option<Special> {
    let axis = |name: &str| match name {
        "x" => Some(0),
        "y" => Some(1),
        "z" => Some(2),
        _ => None,
    };
    let name = name.strip_prefix('%')?;
    if let Some((base, part)) = name.split_once('.') {
        let axis = axis(part)?;
        return match base {
            "tid" => Some(Special::Tid(axis)),
            "ntid" => Some(Special::Ntid(axis)),
            "ctaid" => Some(Special::Ctaid(axis)),
            "nctaid" => Some(Special::Nctaid(axis)),
            _ => None,
        };
    }
    Some(match name {
        "laneid" => Special::LaneId,
        "warpid" => Special::WarpId,
        "nwarpid" => Special::NWarpId,
        "lanemask_eq" => Special::LaneMask(Relation::Eq),
        "lanemask_le" => Special::LaneMask(Relation::Le),
        "lanemask_lt" => Special::LaneMask(Relation::Lt),
        "lanemask_ge" => Special::LaneMask(Relation::Ge),
        "lanemask_gt" => Special::LaneMask(Relation::Gt),
        "smid" => Special::SmId,
        "nsmid" => Special::NSmId,
        "gridid" => Special::GridId,
        "dynamic_smem_size" => Special::DynamicSharedBytes,
        "total_smem_size" => Special::TotalSharedBytes,
        _ => return None,
    })
}
