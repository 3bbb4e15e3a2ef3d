//! Integers packed into 32 bits: add, min and max of u16x2 and s16x2, dp4a, dp2a.

use super::integer::Half;
use super::lanes::Frame;
use super::parts::Modifiers;
use super::{Decoded, Kind, Op};
use crate::ast::Operand;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packed {
    Add16x2,
    Min16x2(Clamp),
    Max16x2(Clamp),
    Dp4a(Signs),
    /// With bytes 0 and 1 of `b`, or 2 and 3 if the flag is set.
    Dp2a(Signs, bool),
}

/// How 16-bit halves compare, and whether a negative result becomes 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clamp {
    Unsigned,
    Signed,
    SignedRelu,
}

/// Which factors of a dot product are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signs {
    a: bool,
    b: bool,
}

const WORD: Kind = Kind::Int(32);

pub(super) fn decode(modifiers: &mut Modifiers, operands: &[Operand]) -> Result<Decoded, String> {
    let op = match modifiers.name() {
        "dp4a" => Packed::Dp4a(signs(modifiers)?),
        "dp2a" => {
            let half = modifiers.need("half", |text| Half::parse(text).filter(|&half| half != Half::Wide))?;
            Packed::Dp2a(signs(modifiers)?, half == Half::Hi)
        }
        name => {
            let relu = modifiers.take("relu");
            let signed = modifiers.ty(|text| ["u16x2", "s16x2"].iter().position(|&ty| ty == text))? == 1;
            let clamp = match (signed, relu) {
                (true, true) => Clamp::SignedRelu,
                (true, false) => Clamp::Signed,
                (false, false) => Clamp::Unsigned,
                (false, true) => return Err(modifiers.error(".relu needs s32 or s16x2")),
            };
            match name {
                "min" => Packed::Min16x2(clamp),
                "max" => Packed::Max16x2(clamp),
                _ if relu => return Err(modifiers.error(".relu is not supported here")),
                _ => Packed::Add16x2,
            }
        }
    };
    let sources = if matches!(op, Packed::Dp4a(_) | Packed::Dp2a(..)) { 3 } else { 2 };
    modifiers.plain(Op::Packed(op), WORD, &[WORD; 3][..sources], operands)
}

fn signs(modifiers: &mut Modifiers) -> Result<Signs, String> {
    let sign = |text: &str| match text {
        "s32" => Some(true),
        "u32" => Some(false),
        _ => None,
    };
    Ok(Signs { a: modifiers.ty(sign)?, b: modifiers.ty(sign)? })
}

pub(super) fn execute(op: Packed, frame: &mut Frame) {
    match op {
        Packed::Add16x2 => frame.map2(|a: u32, b: u32| halves(a, b, |a, b| a.wrapping_add(b))),
        Packed::Min16x2(Clamp::Unsigned) => frame.map2(|a: u32, b: u32| halves(a, b, |a, b| a.min(b))),
        Packed::Max16x2(Clamp::Unsigned) => frame.map2(|a: u32, b: u32| halves(a, b, |a, b| a.max(b))),
        Packed::Min16x2(Clamp::Signed) => frame.map2(|a: u32, b: u32| signed_halves(a, b, |a, b| a.min(b))),
        Packed::Max16x2(Clamp::Signed) => frame.map2(|a: u32, b: u32| signed_halves(a, b, |a, b| a.max(b))),
        Packed::Min16x2(Clamp::SignedRelu) => {
            frame.map2(|a: u32, b: u32| signed_halves(a, b, |a, b| a.min(b).max(0)));
        }
        Packed::Max16x2(Clamp::SignedRelu) => {
            frame.map2(|a: u32, b: u32| signed_halves(a, b, |a, b| a.max(b).max(0)));
        }
        Packed::Dp4a(signs) => frame.map3(|a: u32, b: u32, c: u32| {
            (0..4).fold(c, |sum, i| {
                sum.wrapping_add(field(a, 8 * i, 8, signs.a).wrapping_mul(field(b, 8 * i, 8, signs.b)))
            })
        }),
        Packed::Dp2a(signs, high) => frame.map3(|a: u32, b: u32, c: u32| {
            let b = if high { b >> 16 } else { b };
            (0..2).fold(c, |sum, i| {
                sum.wrapping_add(field(a, 16 * i, 16, signs.a).wrapping_mul(field(b, 8 * i, 8, signs.b)))
            })
        }),
    }
}

#[inline(always)]
fn halves(a: u32, b: u32, f: impl Fn(u16, u16) -> u16) -> u32 {
    let high = f((a >> 16) as u16, (b >> 16) as u16);
    u32::from(high) << 16 | u32::from(f(a as u16, b as u16))
}

#[inline(always)]
fn signed_halves(a: u32, b: u32, f: impl Fn(i16, i16) -> i16) -> u32 {
    halves(a, b, |a, b| f(a as i16, b as i16) as u16)
}

/// A field of `bits` bits of a word, extended with zeros or the sign.
#[inline(always)]
fn field(word: u32, start: u32, bits: u32, signed: bool) -> u32 {
    let top = word << (32 - bits - start);
    if signed { (top as i32 >> (32 - bits)) as u32 } else { top >> (32 - bits) }
}
