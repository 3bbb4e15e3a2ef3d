//! Extended-precision arithmetic: add.cc, addc, sub.cc, subc, mad.cc, madc.

use super::integer::{Half, IntType};
use super::lanes::{CarryUse, Frame};
use super::parts::{Modifiers, carry};
use super::{Decoded, Op};
use crate::ast::Operand;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extended {
    Add,
    Sub,
    MadLo,
    MadHi,
}

pub(super) fn decode(modifiers: &mut Modifiers, operands: &[Operand]) -> Result<Decoded, String> {
    let (base, reads) = match modifiers.name() {
        "addc" => ("add", true),
        "subc" => ("sub", true),
        "madc" => ("mad", true),
        name => (name, false),
    };
    let op = match base {
        "add" => Extended::Add,
        "sub" => Extended::Sub,
        _ => match modifiers.need("half", Half::parse)? {
            Half::Lo => Extended::MadLo,
            Half::Hi => Extended::MadHi,
            Half::Wide => return Err(modifiers.error(".wide has no carry")),
        },
    };
    let uses = CarryUse { reads, writes: modifiers.take("cc") };
    let ty = modifiers.ty(|text| IntType::parse(text).filter(|ty| ty.bits() > 16))?;
    let sources = if base == "mad" { 3 } else { 2 };
    let op = Op::Extended(op, ty, uses);
    let mut decoded = modifiers.plain(op, ty.kind(), &[ty.kind(); 3][..sources], operands)?;
    decoded.sources.extend(uses.reads.then(carry));
    decoded.results.extend(uses.writes.then(carry));
    Ok(decoded)
}

pub(super) fn execute(op: Extended, ty: IntType, uses: CarryUse, frame: &mut Frame) {
    match (op, ty) {
        (Extended::Add, IntType::U64 | IntType::S64) => frame.carry2(uses, |a: u64, b: u64, cf| a.carrying(b, cf)),
        (Extended::Add, _) => frame.carry2(uses, |a: u32, b: u32, cf| a.carrying(b, cf)),
        (Extended::Sub, IntType::U64 | IntType::S64) => frame.carry2(uses, |a: u64, b: u64, cf| a.borrowing(b, cf)),
        (Extended::Sub, _) => frame.carry2(uses, |a: u32, b: u32, cf| a.borrowing(b, cf)),
        (Extended::MadLo, IntType::U64 | IntType::S64) => {
            frame.carry3(uses, |a: u64, b: u64, c: u64, cf| a.wrapping_mul(b).carrying(c, cf));
        }
        (Extended::MadLo, _) => frame.carry3(uses, |a: u32, b: u32, c: u32, cf| a.wrapping_mul(b).carrying(c, cf)),
        (Extended::MadHi, IntType::U64) => frame.carry3(uses, |a: u64, b: u64, c: u64, cf| {
            ((u128::from(a).wrapping_mul(u128::from(b)) >> 64) as u64).carrying(c, cf)
        }),
        (Extended::MadHi, IntType::S64) => frame.carry3(uses, |a: u64, b: u64, c: u64, cf| {
            ((i128::from(a as i64).wrapping_mul(i128::from(b as i64)) >> 64) as u64).carrying(c, cf)
        }),
        (Extended::MadHi, IntType::S32) => frame.carry3(uses, |a: u32, b: u32, c: u32, cf| {
            ((i64::from(a as i32).wrapping_mul(i64::from(b as i32)) >> 32) as u32).carrying(c, cf)
        }),
        (Extended::MadHi, _) => frame.carry3(uses, |a: u32, b: u32, c: u32, cf| {
            ((u64::from(a).wrapping_mul(u64::from(b)) >> 32) as u32).carrying(c, cf)
        }),
    }
}

trait Chained: Sized {
    fn carrying(self, other: Self, carry: bool) -> (Self, bool);
    fn borrowing(self, other: Self, borrow: bool) -> (Self, bool);
}

macro_rules! chained {
    ($($type:ty),*) => {$(
        impl Chained for $type {
            #[inline(always)]
            fn carrying(self, other: Self, carry: bool) -> (Self, bool) {
                let (sum, first) = self.overflowing_add(other);
                let (sum, second) = sum.overflowing_add(carry as $type);
                (sum, first | second)
            }

            #[inline(always)]
            fn borrowing(self, other: Self, borrow: bool) -> (Self, bool) {
                let (difference, first) = self.overflowing_sub(other);
                let (difference, second) = difference.overflowing_sub(borrow as $type);
                (difference, first | second)
            }
        }
    )*};
}

chained!(u32, u64);
