//! mov, with packing and unpacking of vectors, selp and slct.

use super::float::flush_if;
use super::lanes::Frame;
use super::parts::Modifiers;
use super::{Decoded, Kind, Op};
use crate::ast::Operand;
use crate::registers::Class;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    Copy(Class),
    /// `mov.pred p, !q`
    CopyNot,
    Pack(Parts),
    Unpack(Parts),
    /// Whether the predicate is negated.
    Selp(Class, bool),
    /// By the sign of an s32.
    Slct(Class),
    /// By the sign of an f32; whether subnormals are flushed.
    SlctFloat(Class, bool),
}

/// How a value is divided into parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parts {
    /// 16 bits into 2 · 8.
    Two8,
    /// 32 bits into 4 · 8.
    Four8,
    /// 32 bits into 2 · 16.
    Two16,
    /// 64 bits into 4 · 16.
    Four16,
    /// 64 bits into 2 · 32.
    Two32,
}

impl Parts {
    fn of(bits: u32, count: usize) -> Option<Self> {
        Some(match (bits, count) {
            (16, 2) => Parts::Two8,
            (32, 4) => Parts::Four8,
            (32, 2) => Parts::Two16,
            (64, 4) => Parts::Four16,
            (64, 2) => Parts::Two32,
            _ => return None,
        })
    }

    /// Bits of one part.
    fn bits(self) -> u32 {
        match self {
            Parts::Two8 | Parts::Four8 => 8,
            Parts::Two16 | Parts::Four16 => 16,
            Parts::Two32 => 32,
        }
    }
}

/// The types of `mov`, `selp` and `slct`, which do not depend on signs.
fn any_type(text: &str) -> Option<Kind> {
    Some(match text {
        "b16" | "u16" | "s16" => Kind::Int(16),
        "b32" | "u32" | "s32" => Kind::Int(32),
        "b64" | "u64" | "s64" => Kind::Int(64),
        "f32" => Kind::F32,
        "f64" => Kind::F64,
        _ => return None,
    })
}

pub(super) fn decode(modifiers: &mut Modifiers, operands: &[Operand]) -> Result<Decoded, String> {
    match modifiers.name() {
        "mov" => mov(modifiers, operands),
        "selp" => selp(modifiers, operands),
        _ => slct(modifiers, operands),
    }
}

fn mov(modifiers: &mut Modifiers, operands: &[Operand]) -> Result<Decoded, String> {
    let kind = modifiers.ty(|text| if text == "pred" { Some(Kind::Pred) } else { any_type(text) })?;
    modifiers.finish()?;
    modifiers.count(operands, 2)?;
    match (&operands[0], &operands[1]) {
        (Operand::Vector(parts), source) => {
            let (form, part) = vector(modifiers, kind, parts.len())?;
            let results = parts.iter().map(|operand| modifiers.result_or_sink(part, operand));
            let sources = vec![modifiers.source(kind, source)?];
            let results = results.collect::<Result<_, _>>()?;
            Ok(Decoded { op: Op::Move(Move::Unpack(form)), results, sources })
        }
        (result, Operand::Vector(parts)) => {
            let (form, part) = vector(modifiers, kind, parts.len())?;
            let results = vec![modifiers.result(kind, result)?];
            let sources = parts.iter().map(|operand| modifiers.source(part, operand)).collect::<Result<_, _>>()?;
            Ok(Decoded { op: Op::Move(Move::Pack(form)), results, sources })
        }
        (result, Operand::Not(name)) if kind == Kind::Pred => {
            let sources = vec![(kind, Operand::Name(name.clone()))];
            Ok(Decoded { op: Op::Move(Move::CopyNot), results: vec![modifiers.result(kind, result)?], sources })
        }
        (result, source) => {
            let sources = match source {
                // The address of a variable.
                Operand::NameOffset(..) => vec![(kind, source.clone())],
                _ => vec![modifiers.source(kind, source)?],
            };
            let op = Op::Move(Move::Copy(kind.class()));
            Ok(Decoded { op, results: vec![modifiers.result(kind, result)?], sources })
        }
    }
}

fn vector(modifiers: &Modifiers, kind: Kind, count: usize) -> Result<(Parts, Kind), String> {
    let form = match kind {
        Kind::Int(bits) => Parts::of(bits, count),
        _ => None,
    };
    let form = form.ok_or_else(|| modifiers.error(&format!("a vector of {count} does not fit the type")))?;
    Ok((form, Kind::Int(form.bits())))
}

fn selp(modifiers: &mut Modifiers, operands: &[Operand]) -> Result<Decoded, String> {
    let kind = modifiers.ty(any_type)?;
    modifiers.finish()?;
    modifiers.count(operands, 4)?;
    let results = vec![modifiers.result(kind, &operands[0])?];
    let (predicate, negated) = modifiers.predicate(&operands[3])?;
    let sources = vec![modifiers.source(kind, &operands[1])?, modifiers.source(kind, &operands[2])?, predicate];
    Ok(Decoded { op: Op::Move(Move::Selp(kind.class(), negated)), results, sources })
}

fn slct(modifiers: &mut Modifiers, operands: &[Operand]) -> Result<Decoded, String> {
    let ftz = modifiers.take("ftz");
    let kind = modifiers.ty(any_type)?;
    let selector = modifiers.ty(|text| match text {
        "s32" => Some(Kind::Int(32)),
        "f32" => Some(Kind::F32),
        _ => None,
    })?;
    let op = match selector {
        Kind::F32 => Move::SlctFloat(kind.class(), ftz),
        _ if ftz => return Err(modifiers.error(".ftz needs f32")),
        _ => Move::Slct(kind.class()),
    };
    modifiers.plain(Op::Move(op), kind, &[kind, kind, selector], operands)
}

pub(super) fn execute(op: Move, frame: &mut Frame) {
    match op {
        Move::Copy(Class::B32) => frame.map1(|a: u32| a),
        Move::Copy(Class::B64) => frame.map1(|a: u64| a),
        Move::Copy(Class::Pred) => {
            let source = frame.predicate(0);
            frame.set_predicate(0, source);
        }
        Move::CopyNot => {
            let source = !frame.predicate(0);
            frame.set_predicate(0, source);
        }
        Move::Pack(parts) => pack(parts, frame),
        Move::Unpack(parts) => unpack(parts, frame),
        Move::Selp(Class::B64, negated) => frame.select(|a: u64, b: u64, p| if p != negated { a } else { b }),
        Move::Selp(_, negated) => frame.select(|a: u32, b: u32, p| if p != negated { a } else { b }),
        Move::Slct(Class::B64) => frame.map3(|a: u64, b: u64, c: i32| if c >= 0 { a } else { b }),
        Move::Slct(_) => frame.map3(|a: u32, b: u32, c: i32| if c >= 0 { a } else { b }),
        // A subnormal is flushed to a zero of its sign, and both zeros are ≥ 0.
        Move::SlctFloat(Class::B64, ftz) => {
            frame.map3(|a: u64, b: u64, c: f32| if flush_if(ftz, c) >= 0.0 { a } else { b });
        }
        Move::SlctFloat(_, ftz) => {
            frame.map3(|a: u32, b: u32, c: f32| if flush_if(ftz, c) >= 0.0 { a } else { b });
        }
    }
}

fn pack(parts: Parts, frame: &mut Frame) {
    match parts {
        Parts::Two8 => frame.map2(|a: u8, b: u8| u16::from(b) << 8 | u16::from(a)),
        Parts::Two16 => frame.map2(|a: u16, b: u16| u32::from(b) << 16 | u32::from(a)),
        Parts::Two32 => frame.map2(|a: u32, b: u32| u64::from(b) << 32 | u64::from(a)),
        Parts::Four8 => frame.map4(|a: u8, b: u8, c: u8, d: u8| u32::from_le_bytes([a, b, c, d])),
        Parts::Four16 => frame.map4(|a: u16, b: u16, c: u16, d: u16| {
            u64::from(d) << 48 | u64::from(c) << 32 | u64::from(b) << 16 | u64::from(a)
        }),
    }
}

fn unpack(parts: Parts, frame: &mut Frame) {
    match parts {
        Parts::Two8 => frame.split(2, |a: u32, i| a.wrapping_shr(8 * i) & 0xff),
        Parts::Four8 => frame.split(4, |a: u32, i| a.wrapping_shr(8 * i) & 0xff),
        Parts::Two16 => frame.split(2, |a: u32, i| a.wrapping_shr(16 * i) & 0xffff),
        Parts::Four16 => frame.split(4, |a: u64, i| a.wrapping_shr(16 * i) as u32 & 0xffff),
        Parts::Two32 => frame.split(2, |a: u64, i| a.wrapping_shr(32 * i) as u32),
    }
}
