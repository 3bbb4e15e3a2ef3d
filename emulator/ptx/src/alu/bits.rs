//! Bitwise logic, shifts and bit fields.

use super::integer::IntType;
use super::lanes::{Frame, ones};
use super::parts::Modifiers;
use super::permute::{self, Permute};
use super::{Decoded, Kind, Op};
use crate::ast::Operand;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bits {
    Logic(Logic, Width),
    /// Whether the first and the second source are negated.
    LogicPred(Logic, bool, bool),
    Cnot(Width),
    /// The look-up table, and how the predicate result is computed.
    Lop3(u8, Lop3Predicate),
    Shl(IntType),
    /// An arithmetic shift for a signed type.
    Shr(IntType),
    Funnel {
        left: bool,
        wrap: bool,
    },
    Permute(Permute),
    Popc(Width),
    Clz(Width),
    Brev(Width),
    /// Whether it has `.shiftamt`.
    Bfind(IntType, bool),
    Bfe(IntType),
    Bfi(Width),
    Fns,
    /// Whether the type is signed, and whether the mode is `.clamp`.
    Szext(bool, bool),
    /// Whether the mode is `.clamp`.
    Bmsk(bool),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    W16,
    W32,
    W64,
}

impl Width {
    fn kind(self) -> Kind {
        match self {
            Width::W16 => Kind::Int(16),
            Width::W32 => Kind::Int(32),
            Width::W64 => Kind::Int(64),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logic {
    And,
    Or,
    Xor,
    Not,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lop3Predicate {
    None,
    And { negated: bool },
    Or { negated: bool },
}

const WORD: Kind = Kind::Int(32);

/// `b16`, `b32` or `b64`.
fn any_width(modifiers: &mut Modifiers) -> Result<Width, String> {
    modifiers.ty(|text| match text {
        "b16" => Some(Width::W16),
        "b32" => Some(Width::W32),
        "b64" => Some(Width::W64),
        _ => None,
    })
}

/// `b32` or `b64`.
fn wide_or_word(modifiers: &mut Modifiers) -> Result<Width, String> {
    modifiers.ty(|text| match text {
        "b32" => Some(Width::W32),
        "b64" => Some(Width::W64),
        _ => None,
    })
}

fn b32(modifiers: &mut Modifiers) -> Result<(), String> {
    modifiers.ty(|text| (text == "b32").then_some(()))
}

/// An integer type; a `b` type counts as unsigned.
fn shift_type(text: &str) -> Option<IntType> {
    match text {
        "b16" => Some(IntType::U16),
        "b32" => Some(IntType::U32),
        "b64" => Some(IntType::U64),
        _ => IntType::parse(text),
    }
}

fn at_least_32(text: &str) -> Option<IntType> {
    IntType::parse(text).filter(|ty| ty.bits() > 16)
}

pub(super) fn decode(modifiers: &mut Modifiers, operands: &[Operand]) -> Result<Decoded, String> {
    let (op, result, sources): (Bits, Kind, Vec<Kind>) = match modifiers.name() {
        "and" | "or" | "xor" | "not" => return logic(modifiers, operands),
        "lop3" => return lop3(modifiers, operands),
        "cnot" => {
            let width = any_width(modifiers)?;
            (Bits::Cnot(width), width.kind(), vec![width.kind()])
        }
        "shl" => {
            let ty = modifiers.ty(|text| shift_type(text).filter(|_| text.starts_with('b')))?;
            (Bits::Shl(ty), ty.kind(), vec![ty.kind(), WORD])
        }
        "shr" => {
            let ty = modifiers.ty(shift_type)?;
            (Bits::Shr(ty), ty.kind(), vec![ty.kind(), WORD])
        }
        "shf" => {
            let left = modifiers.need("direction", |text| ["r", "l"].iter().position(|&d| d == text))? == 1;
            let wrap = !clamps(modifiers)?;
            b32(modifiers)?;
            (Bits::Funnel { left, wrap }, WORD, vec![WORD; 3])
        }
        "prmt" => {
            b32(modifiers)?;
            let mode = modifiers.pick(Permute::parse).unwrap_or(Permute::General);
            (Bits::Permute(mode), WORD, vec![WORD; 3])
        }
        "popc" | "clz" => {
            let width = wide_or_word(modifiers)?;
            let op = if modifiers.name() == "popc" { Bits::Popc(width) } else { Bits::Clz(width) };
            (op, WORD, vec![width.kind()])
        }
        "brev" => {
            let width = wide_or_word(modifiers)?;
            (Bits::Brev(width), width.kind(), vec![width.kind()])
        }
        "bfind" => {
            let shift_amount = modifiers.take("shiftamt");
            let ty = modifiers.ty(at_least_32)?;
            (Bits::Bfind(ty, shift_amount), WORD, vec![ty.kind()])
        }
        "bfe" => {
            let ty = modifiers.ty(at_least_32)?;
            (Bits::Bfe(ty), ty.kind(), vec![ty.kind(), WORD, WORD])
        }
        "bfi" => {
            let width = wide_or_word(modifiers)?;
            (Bits::Bfi(width), width.kind(), vec![width.kind(), width.kind(), WORD, WORD])
        }
        "fns" => {
            b32(modifiers)?;
            (Bits::Fns, WORD, vec![WORD; 3])
        }
        "szext" => {
            let clamp = clamps(modifiers)?;
            let ty = modifiers.ty(|text| at_least_32(text).filter(|ty| ty.bits() == 32))?;
            (Bits::Szext(ty.signed(), clamp), WORD, vec![WORD; 2])
        }
        _ => {
            let clamp = clamps(modifiers)?;
            b32(modifiers)?;
            (Bits::Bmsk(clamp), WORD, vec![WORD; 2])
        }
    };
    modifiers.plain(Op::Bits(op), result, &sources, operands)
}

fn clamps(modifiers: &mut Modifiers) -> Result<bool, String> {
    Ok(modifiers.need("mode", |text| ["wrap", "clamp"].iter().position(|&mode| mode == text))? == 1)
}

fn logic(modifiers: &mut Modifiers, operands: &[Operand]) -> Result<Decoded, String> {
    let (op, count) = match modifiers.name() {
        "and" => (Logic::And, 2),
        "or" => (Logic::Or, 2),
        "xor" => (Logic::Xor, 2),
        _ => (Logic::Not, 1),
    };
    if !modifiers.take("pred") {
        let width = any_width(modifiers)?;
        return modifiers.plain(Op::Bits(Bits::Logic(op, width)), width.kind(), &[width.kind(); 2][..count], operands);
    }
    modifiers.finish()?;
    modifiers.count(operands, 1 + count)?;
    let (a, not_a) = modifiers.predicate(&operands[1])?;
    let mut sources = vec![a];
    let mut not_b = false;
    if count == 2 {
        let (b, negated) = modifiers.predicate(&operands[2])?;
        sources.push(b);
        not_b = negated;
    }
    let results = vec![modifiers.result(Kind::Pred, &operands[0])?];
    Ok(Decoded { op: Op::Bits(Bits::LogicPred(op, not_a, not_b)), results, sources })
}

fn lop3(modifiers: &mut Modifiers, operands: &[Operand]) -> Result<Decoded, String> {
    let combines = modifiers.pick(|text| match text {
        "and" => Some(true),
        "or" => Some(false),
        _ => None,
    });
    b32(modifiers)?;
    modifiers.finish()?;
    modifiers.count(operands, if combines.is_some() { 6 } else { 5 })?;
    let Operand::Integer(table @ 0..=255) = operands[4] else {
        return Err(modifiers.error("the look-up table must be a constant from 0 to 255"));
    };
    let mut sources = Vec::with_capacity(4);
    for operand in &operands[1..4] {
        sources.push(modifiers.source(WORD, operand)?);
    }
    let Some(and) = combines else {
        let results = vec![modifiers.result(WORD, &operands[0])?];
        return Ok(Decoded { op: Op::Bits(Bits::Lop3(table as u8, Lop3Predicate::None)), results, sources });
    };
    let Operand::Pair(d, p) = &operands[0] else {
        return Err(modifiers.error("the result must be a pair d|p"));
    };
    let results = vec![modifiers.result_or_sink(WORD, d)?, modifiers.result(Kind::Pred, p)?];
    let (q, negated) = modifiers.predicate(&operands[5])?;
    sources.push(q);
    let predicate = if and { Lop3Predicate::And { negated } } else { Lop3Predicate::Or { negated } };
    Ok(Decoded { op: Op::Bits(Bits::Lop3(table as u8, predicate)), results, sources })
}

pub(super) fn execute(op: Bits, frame: &mut Frame) {
    match op {
        Bits::Logic(op, Width::W64) => match op {
            Logic::And => frame.map2(|a: u64, b: u64| a & b),
            Logic::Or => frame.map2(|a: u64, b: u64| a | b),
            Logic::Xor => frame.map2(|a: u64, b: u64| a ^ b),
            Logic::Not => frame.map1(|a: u64| !a),
        },
        Bits::Logic(op, narrow) => match op {
            Logic::And => frame.map2(|a: u32, b: u32| a & b),
            Logic::Or => frame.map2(|a: u32, b: u32| a | b),
            Logic::Xor => frame.map2(|a: u32, b: u32| a ^ b),
            Logic::Not if narrow == Width::W16 => frame.map1(|a: u16| !a),
            Logic::Not => frame.map1(|a: u32| !a),
        },
        Bits::LogicPred(op, not_a, not_b) => logic_pred(op, not_a, not_b, frame),
        Bits::Cnot(Width::W16 | Width::W32) => frame.map1(|a: u32| (a == 0) as u32),
        Bits::Cnot(Width::W64) => frame.map1(|a: u64| (a == 0) as u64),
        Bits::Lop3(table, predicate) => lop3_lanes(table, predicate, frame),
        Bits::Shl(ty) => match ty.bits() {
            16 => frame.map2(|a: u16, n: u32| u32::from(a).wrapping_shl(n.min(16)) as u16),
            32 => frame.map2(|a: u32, n: u32| if n < 32 { a.wrapping_shl(n) } else { 0 }),
            _ => frame.map2(|a: u64, n: u32| if n < 64 { a.wrapping_shl(n) } else { 0 }),
        },
        Bits::Shr(ty) => match ty {
            IntType::S16 => frame.map2(|a: i16, n: u32| a.wrapping_shr(n.min(15))),
            IntType::S32 => frame.map2(|a: i32, n: u32| a.wrapping_shr(n.min(31))),
            IntType::S64 => frame.map2(|a: i64, n: u32| a.wrapping_shr(n.min(63))),
            // 16 bits are zero-extended.
            IntType::U16 | IntType::U32 => frame.map2(|a: u32, n: u32| if n < 32 { a.wrapping_shr(n) } else { 0 }),
            IntType::U64 => frame.map2(|a: u64, n: u32| if n < 64 { a.wrapping_shr(n) } else { 0 }),
        },
        Bits::Funnel { left, wrap } => frame.map3(|a: u32, b: u32, c: u32| {
            let n = if wrap { c & 31 } else { c.min(32) };
            let both = u64::from(b) << 32 | u64::from(a);
            let right = if left { 32u32.wrapping_sub(n) } else { n };
            both.wrapping_shr(right) as u32
        }),
        Bits::Permute(mode) => permute::execute(mode, frame),
        Bits::Popc(Width::W16 | Width::W32) => frame.map1(|a: u32| a.count_ones()),
        Bits::Popc(Width::W64) => frame.map1(|a: u64| a.count_ones()),
        Bits::Clz(Width::W16 | Width::W32) => frame.map1(|a: u32| a.leading_zeros()),
        Bits::Clz(Width::W64) => frame.map1(|a: u64| a.leading_zeros()),
        Bits::Brev(Width::W16 | Width::W32) => frame.map1(|a: u32| a.reverse_bits()),
        Bits::Brev(Width::W64) => frame.map1(|a: u64| a.reverse_bits()),
        Bits::Bfind(ty, shift_amount) => match ty {
            IntType::S32 => frame.map1(|a: i32| bfind(((a ^ a >> 31) as u32).leading_zeros(), 32, shift_amount)),
            IntType::S64 => frame.map1(|a: i64| bfind(((a ^ a >> 63) as u64).leading_zeros(), 64, shift_amount)),
            IntType::U64 => frame.map1(|a: u64| bfind(a.leading_zeros(), 64, shift_amount)),
            _ => frame.map1(|a: u32| bfind(a.leading_zeros(), 32, shift_amount)),
        },
        Bits::Bfe(ty) => match ty {
            IntType::S32 => frame.map3(|a: i32, position: u32, length: u32| bfe(i64::from(a), position, length) as i32),
            IntType::S64 => frame.map3(bfe),
            IntType::U64 => frame.map3(|a: u64, position: u32, length: u32| {
                let (position, length) = (position & 255, length & 255);
                if position < 64 { a.wrapping_shr(position) & low_mask(length) } else { 0 }
            }),
            _ => frame.map3(|a: u32, position: u32, length: u32| {
                let (position, length) = (position & 255, length & 255);
                let mask = low_mask(length) as u32;
                if position < 32 { a.wrapping_shr(position) & mask } else { 0 }
            }),
        },
        Bits::Bfi(Width::W64) => frame.map4(|a: u64, b: u64, position: u32, length: u32| {
            let position = position & 255;
            let mask = if position < 64 { low_mask(length & 255).wrapping_shl(position) } else { 0 };
            b & !mask | a.wrapping_shl(position) & mask
        }),
        Bits::Bfi(_) => frame.map4(|a: u32, b: u32, position: u32, length: u32| {
            let position = (position & 255).min(32);
            let mask = low_mask(length & 255).wrapping_shl(position) as u32;
            b & !mask | u64::from(a).wrapping_shl(position) as u32 & mask
        }),
        Bits::Fns => frame.map3(fns),
        Bits::Szext(signed, clamp) => frame.map2(|a: u32, b: u32| szext(a, b, signed, clamp)),
        Bits::Bmsk(clamp) => frame.map2(|a: u32, b: u32| bmsk(a, b, clamp)),
    }
}

fn logic_pred(op: Logic, not_a: bool, not_b: bool, frame: &mut Frame) {
    let a = frame.predicate(0) ^ ones(not_a);
    let b = frame.predicate(1) ^ ones(not_b);
    let result = match op {
        Logic::And => a & b,
        Logic::Or => a | b,
        Logic::Xor => a ^ b,
        Logic::Not => !a,
    };
    frame.set_predicate(0, result);
}

fn lop3_lanes(table: u8, predicate: Lop3Predicate, frame: &mut Frame) {
    let entry = |i: u32| ones(table >> i & 1 != 0);
    // A tree of multiplexers: x ^ (s & (x ^ y)) is y where s is set.
    let leaf = |i: u32| (entry(2 * i), entry(2 * i) ^ entry(2 * i + 1));
    let leaves = [leaf(0), leaf(1), leaf(2), leaf(3)];
    let lookup = |a: u32, b: u32, c: u32| {
        let [x0, x1, x2, x3] = leaves.map(|(x, difference)| x ^ c & difference);
        let (y0, y1) = (x0 ^ b & (x0 ^ x1), x2 ^ b & (x2 ^ x3));
        y0 ^ a & (y0 ^ y1)
    };
    // Computed before the result is written, which may be the register of a source.
    let nonzero = match predicate {
        Lop3Predicate::None => return frame.map3(lookup),
        Lop3Predicate::And { negated } => {
            (frame.predicate(3) ^ ones(negated)) & frame.test3(|a, b, c| lookup(a, b, c) != 0)
        }
        Lop3Predicate::Or { negated } => {
            (frame.predicate(3) ^ ones(negated)) | frame.test3(|a, b, c| lookup(a, b, c) != 0)
        }
    };
    frame.map3(lookup);
    frame.set_predicate(1, nonzero);
}

#[inline(always)]
fn bfind(leading: u32, bits: u32, shift_amount: bool) -> u32 {
    match leading {
        none if none == bits => u32::MAX,
        _ if shift_amount => leading,
        _ => bits.wrapping_sub(1).wrapping_sub(leading),
    }
}

/// A mask of the low `length` bits; all bits from 64 on.
#[inline(always)]
fn low_mask(length: u32) -> u64 {
    if length < 64 { 1u64.wrapping_shl(length).wrapping_sub(1) } else { u64::MAX }
}

/// Also right for a sign-extended 32-bit value: PTX fills bits beyond the value with its sign.
#[inline(always)]
fn bfe(a: i64, position: u32, length: u32) -> i64 {
    let (position, length) = (position & 255, length & 255);
    let unused = 64u32.wrapping_sub(length.min(64));
    let field = a.wrapping_shr(position.min(63)).wrapping_shl(unused).wrapping_shr(unused);
    if length == 0 { 0 } else { field }
}

/// The position of the n-th set bit from `base`; not vectorised, because kernels rarely use it.
fn fns(mask: u32, base: u32, offset: i32) -> u32 {
    let base = base & 31;
    let nth = match offset {
        0 => return if mask >> base & 1 != 0 { base } else { u32::MAX },
        n => n.unsigned_abs() - 1,
    };
    let set = |&position: &u32| mask >> position & 1 != 0;
    let found = if offset > 0 {
        (base..32).filter(set).nth(nth as usize)
    } else {
        (0..=base).rev().filter(set).nth(nth as usize)
    };
    found.unwrap_or(u32::MAX)
}

#[inline(always)]
fn szext(a: u32, b: u32, signed: bool, clamp: bool) -> u32 {
    let bits = b & 31;
    let unused = 32u32.wrapping_sub(bits);
    let top = a.wrapping_shl(unused);
    let value = if signed { (top as i32).wrapping_shr(unused) as u32 } else { top.wrapping_shr(unused) };
    match bits {
        _ if clamp && b >= 32 => a,
        0 => 0,
        _ => value,
    }
}

#[inline(always)]
fn bmsk(a: u32, b: u32, clamp: bool) -> u32 {
    let (start, width) = if clamp { (a.min(32), b.min(32)) } else { (a & 31, b & 31) };
    low_mask(width).wrapping_shl(start) as u32
}
