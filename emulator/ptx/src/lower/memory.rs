//! Lowers loads, stores, atomics, address conversions and asynchronous copies.

use super::control::scope_of;
use super::state::{Lowering, Result};
use crate::address_space::window_of_space;
use crate::ast::Operand;
use crate::ir::{Address, AtomicOp, AtomicType, Elements, Op, Order, Scope, Space, Target, Window};
use crate::registers::{Class, Src};

/// The parts of the opcode of a load or store.
struct Access {
    space: Option<Space>,
    order: Order,
    scope: Scope,
    read_only: bool,
    count: u32,
    bytes: u32,
    signed: bool,
}

impl Lowering<'_> {
    pub(super) fn memory(&mut self, opcode: &[&str], operands: &[Operand]) -> Result<bool> {
        match (opcode, operands) {
            (["ld" | "ldu", parts @ ..], [to, from, ..]) => self.load(parts, to, from),
            (["st", parts @ ..], [to, from, ..]) => self.store(parts, to, from),
            (["atom", parts @ ..], [to, address, values @ ..]) => self.atomic(parts, Some(to), address, values),
            (["red", parts @ ..], [address, values @ ..]) => self.atomic(parts, None, address, values),
            (["cvta", parts @ ..], [to, from]) => self.convert_address(parts, to, from),
            (["isspacep", space], [to, from]) => {
                let space = match *space {
                    "const" => Window::Const,
                    space => match space_of(space) {
                        Some(space) => Window::Space(space),
                        None => return Ok(false),
                    },
                };
                let to = self.result(Class::Pred, to)?;
                let address = self.source(Class::B64, from)?;
                self.emit(Op::IsSpace { to, address, window: space });
                Ok(true)
            }
            (["cp", "async", parts @ ..], operands) => self.copy_async(parts, operands),
            // A cache policy is an opaque number that only cache hints use.
            (["createpolicy", ..], [to, ..]) => {
                self.synthesise("mov.b64", &[to.clone(), Operand::Integer(0)])?;
                Ok(true)
            }
            (["discard" | "applypriority", ..], _) => {
                self.emit(Op::Nothing);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// A weak access with a new site.
    pub(super) fn target(&mut self, space: Space, address: Address) -> Target {
        Target { space, address, site: self.new_site(), order: Order::Weak, scope: Scope::Device }
    }

    fn access_target(&mut self, access: &Access, operand: &Operand) -> Result<Target> {
        let (address, implied) = self.address(operand)?;
        let space = match (access.space, implied) {
            // Parameters of calls and of called functions lie in local memory.
            (Some(Space::Param), Some(Space::Local)) => Space::Local,
            (Some(space), _) => space,
            (None, Some(space)) => space,
            (None, None) => Space::Generic,
        };
        let target = self.target(space, address);
        Ok(Target { order: access.order, scope: access.scope, ..target })
    }

    fn load(&mut self, parts: &[&str], to: &Operand, from: &Operand) -> Result<bool> {
        let Some(access) = access_of(parts) else { return Ok(false) };
        let registers = Self::parts(to);
        let elements = self.elements(&access, &registers)?;
        let mut slots = [0; 4];
        let class = if elements.wide { Class::B64 } else { Class::B32 };
        for (slot, register) in slots.iter_mut().zip(&registers) {
            *slot = self.result(class, register)?;
        }
        let target = self.access_target(&access, from)?;
        self.emit(Op::Load { target, elements, to: slots, read_only: access.read_only });
        Ok(true)
    }

    fn store(&mut self, parts: &[&str], to: &Operand, from: &Operand) -> Result<bool> {
        let Some(access) = access_of(parts) else { return Ok(false) };
        let values = Self::parts(from);
        let elements = self.elements(&access, &values)?;
        let mut sources = [Src::Bits(0); 4];
        let kind = match (access.bytes, elements.wide) {
            (8, _) | (_, true) => crate::alu::Kind::Int(64),
            (bytes, false) => crate::alu::Kind::Int(bytes * 8),
        };
        for (source, value) in sources.iter_mut().zip(&values) {
            *source = match value {
                Operand::F64(_) if access.bytes == 4 => self.source_of(crate::alu::Kind::F32, value)?,
                _ => self.source_of(kind, value)?,
            };
        }
        let target = self.access_target(&access, to)?;
        self.emit(Op::Store { target, elements, from: Box::new(sources) });
        Ok(true)
    }

    /// The elements of an access. The registers determine the width to which loaded values are extended.
    fn elements(&mut self, access: &Access, registers: &[Operand]) -> Result<Elements> {
        if registers.len() != access.count as usize {
            let (count, expected) = (registers.len(), access.count);
            return Err(self.invalid(format!("{count} registers for a vector of {expected}")));
        }
        let (mut wide, mut narrow) = (access.bytes == 8, false);
        for register in registers {
            if let Operand::Name(name) = register
                && let Ok(register) = self.register(name)
            {
                let small =
                    access.bytes == 8 && register.class == Class::B32 || access.bytes == 4 && self.is_narrow(name);
                if register.class == Class::Pred || small {
                    return Err(self.invalid(format!("{name} cannot hold {} bytes", access.bytes)));
                }
                wide = register.class == Class::B64;
                narrow |= self.is_narrow(name);
            }
        }
        Ok(Elements { bytes: access.bytes, count: access.count, signed: access.signed, wide, narrow })
    }

    fn atomic(&mut self, parts: &[&str], to: Option<&Operand>, address: &Operand, values: &[Operand]) -> Result<bool> {
        let Some((op, ty, access)) = atomic_of(parts) else { return Ok(false) };
        let class = if ty.bytes() == 8 { Class::B64 } else { Class::B32 };
        // A trailing cache policy is a hint.
        let needed = if op == AtomicOp::CompareAndSwap { 2 } else { 1 };
        if values.len() < needed || values.len() > needed + 1 {
            return Err(self.invalid(format!("an atomic with {} values", values.len())));
        }
        let mut operands = [Src::Bits(0); 2];
        for (operand, value) in operands.iter_mut().zip(&values[..needed]) {
            *operand = match (ty, value) {
                (AtomicType::F32, Operand::F64(_)) => self.source_of(crate::alu::Kind::F32, value)?,
                _ => self.source(class, value)?,
            };
        }
        let to = match to {
            None | Some(Operand::Sink) => None,
            Some(to) => Some(self.result(class, to)?),
        };
        let target = self.access_target(&access, address)?;
        self.emit(Op::Atomic { target, op, ty, to, operands: Box::new(operands) });
        Ok(true)
    }

    fn convert_address(&mut self, parts: &[&str], to: &Operand, from: &Operand) -> Result<bool> {
        let (opcode, space, width) = match parts {
            ["to", space, width] => ("sub", space, width),
            [space, width] => ("add", space, width),
            _ => return Ok(false),
        };
        let Some(base) = space_of(space).and_then(window_of_space) else { return Ok(false) };
        if *width != "u64" {
            return Ok(false);
        }
        // The address of a variable is a constant, and only `mov` accepts one with an offset.
        self.synthesise("mov.u64", &[to.clone(), from.clone()])?;
        if base != 0 {
            self.synthesise(&format!("{opcode}.u64"), &[to.clone(), to.clone(), Operand::Integer(base)])?;
        }
        Ok(true)
    }

    fn copy_async(&mut self, parts: &[&str], operands: &[Operand]) -> Result<bool> {
        let number = |operand: &Operand| match operand {
            Operand::Integer(value) => u32::try_from(*value).ok(),
            _ => None,
        };
        match (parts, operands) {
            (["commit_group"], []) => self.emit(Op::CopyCommit),
            (["wait_all"], []) => self.emit(Op::CopyWait { pending: None }),
            (["wait_group"], [pending]) => match number(pending) {
                Some(pending) => self.emit(Op::CopyWait { pending: Some(pending) }),
                None => return Err(self.invalid("cp.async.wait_group needs a constant")),
            },
            (["ca" | "cg", "shared" | "shared::cta", "global", hints @ ..], [to, from, bytes, rest @ ..])
                if hints.iter().all(|hint| hint.starts_with("L2::")) =>
            {
                let bytes = match (number(bytes), parts[0]) {
                    (Some(16), _) => 16,
                    (Some(bytes @ (4 | 8)), "ca") => bytes,
                    _ => return Err(self.invalid("cp.async copies 4, 8 or 16 bytes; .cg only 16")),
                };
                let hinted = hints.contains(&"L2::cache_hint");
                let rest = if hinted { &rest[..rest.len().saturating_sub(1)] } else { rest };
                let (mut source_bytes, mut ignore) = (None, None);
                match rest {
                    [] => {}
                    [operand] => match operand {
                        Operand::Name(name) if self.register(name).is_ok_and(|r| r.class == Class::Pred) => {
                            ignore = Some(self.predicate(operand)?);
                        }
                        Operand::Not(_) => ignore = Some(self.predicate(operand)?),
                        _ => source_bytes = Some(self.source(Class::B32, operand)?),
                    },
                    _ => return Err(self.invalid("cp.async with too many operands")),
                }
                let (to, _) = self.address(to)?;
                let (from, _) = self.address(from)?;
                let (to, from) = (self.target(Space::Shared, to), self.target(Space::Global, from));
                self.emit(Op::CopyAsync { to, from: Box::new(from), bytes, source_bytes, ignore });
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn space_of(name: &str) -> Option<Space> {
    match name {
        "global" | "const" => Some(Space::Global),
        "shared" | "shared::cta" => Some(Space::Shared),
        "local" => Some(Space::Local),
        "param" | "param::entry" | "param::func" => Some(Space::Param),
        _ => None,
    }
}

fn order_of(name: &str) -> Option<Order> {
    match name {
        "weak" => Some(Order::Weak),
        // Volatile accesses are relaxed accesses of the widest scope.
        "relaxed" | "volatile" => Some(Order::Relaxed),
        "acquire" => Some(Order::Acquire),
        "release" => Some(Order::Release),
        "acq_rel" => Some(Order::AcquireRelease),
        _ => None,
    }
}

fn access_of(parts: &[&str]) -> Option<Access> {
    let mut access = Access {
        space: None,
        order: Order::Weak,
        scope: Scope::Device,
        read_only: false,
        count: 1,
        bytes: 0,
        signed: false,
    };
    let (ty, modifiers) = parts.split_last()?;
    for modifier in modifiers {
        if let Some(space) = space_of(modifier) {
            access.space = Some(space);
        } else if let Some(order) = order_of(modifier) {
            access.order = order;
        } else if let Some(scope) = scope_of(modifier) {
            access.scope = scope;
        } else {
            match *modifier {
                "nc" => access.read_only = true,
                "v2" => access.count = 2,
                "v4" => access.count = 4,
                // Cache hints.
                "ca" | "cg" | "cs" | "lu" | "cv" | "wb" | "wt" => {}
                hint if hint.starts_with("L1::") || hint.starts_with("L2::") => {}
                _ => return None,
            }
        }
    }
    (access.bytes, access.signed) = match *ty {
        "b8" | "u8" => (1, false),
        "s8" => (1, true),
        "b16" | "u16" | "f16" | "bf16" => (2, false),
        "s16" => (2, true),
        "b32" | "u32" | "f32" => (4, false),
        "s32" => (4, true),
        "b64" | "u64" | "f64" | "s64" => (8, false),
        _ => return None,
    };
    (access.bytes * access.count <= 16).then_some(access)
}

fn atomic_of(parts: &[&str]) -> Option<(AtomicOp, AtomicType, Access)> {
    let (ty, rest) = parts.split_last()?;
    let mut access = access_of(&["b32"])?;
    // Atomics are relaxed by default.
    access.order = Order::Relaxed;
    let mut found = None;
    let mut flushes_nothing = false;
    for part in rest {
        if let Some(space) = space_of(part) {
            access.space = Some(space);
        } else if let Some(order) = order_of(part) {
            access.order = order;
        } else if let Some(scope) = scope_of(part) {
            access.scope = scope;
        } else {
            found = Some(match *part {
                "add" => AtomicOp::Add,
                "min" => AtomicOp::Min,
                "max" => AtomicOp::Max,
                "and" => AtomicOp::And,
                "or" => AtomicOp::Or,
                "xor" => AtomicOp::Xor,
                "exch" => AtomicOp::Exchange,
                "cas" => AtomicOp::CompareAndSwap,
                "inc" => AtomicOp::Increment,
                "dec" => AtomicOp::Decrement,
                "noftz" => {
                    flushes_nothing = true;
                    continue;
                }
                hint if hint.starts_with("L2::") => continue,
                _ => return None,
            });
        }
    }
    let op = found?;
    let ty = match *ty {
        "b16" if op == AtomicOp::CompareAndSwap => AtomicType::B16,
        "u32" | "b32" => AtomicType::U32,
        "s32" => AtomicType::S32,
        "u64" | "b64" => AtomicType::U64,
        "s64" => AtomicType::S64,
        "f32" => AtomicType::F32,
        "f64" => AtomicType::F64,
        "f16" if flushes_nothing => AtomicType::F16,
        "f16x2" if flushes_nothing => AtomicType::F16x2,
        "bf16" if flushes_nothing => AtomicType::BF16,
        "bf16x2" if flushes_nothing => AtomicType::BF16x2,
        _ => return None,
    };
    let floating = matches!(
        ty,
        AtomicType::F32 | AtomicType::F64 | AtomicType::F16 | AtomicType::F16x2 | AtomicType::BF16 | AtomicType::BF16x2
    );
    let counted = matches!(op, AtomicOp::Increment | AtomicOp::Decrement);
    let exists = (!floating || op == AtomicOp::Add) && (!counted || ty == AtomicType::U32);
    exists.then_some((op, ty, access))
}
