//! cvt to and from packed formats, tf32 and 8-bit floating point, and cvt.pack.

use std::marker::PhantomData;

use super::execute::narrow_half;
use super::types::{Clamp, Rounding};
use crate::alu::formats::{BF16, E4M3, E5M2, F16, Format, LARGEST_TF32, decode as widen, encode, encode_tf32};
use crate::alu::half::relu;
use crate::alu::lanes::{Binary, Frame, Unary};
use crate::alu::parts::Modifiers;
use crate::alu::rounding::{Direction, Nearest, Round, Zero};
use crate::alu::{Decoded, Kind, Op};
use crate::ast::Operand;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConvertPacked {
    /// Two f32 to f16x2 or bf16x2, the first to the upper half.
    Halves { bf16: bool, round: Round, clamp: Clamp },
    /// f32 to tf32; `None` rounds ties away from zero.
    Tf32 { round: Option<Round>, clamp: Clamp },
    /// Two f32, or an f16x2, to 8-bit formats, clamped to the largest finite number.
    ToFp8 { format: Fp8, from: Fp8Source, relu: bool },
    /// To f16x2.
    FromFp8 { format: Fp8, relu: bool },
    /// Two s32, clamped, in the low bits; the third source, shifted left, fills the upper bits.
    Pack { bits: u8, signed: bool },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fp8 {
    E4M3,
    E5M2,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fp8Source {
    F32,
    F16x2,
}

/// A type of these conversions, f32 among them.
#[derive(Clone, Copy, PartialEq)]
enum Packed {
    F32,
    Tf32,
    F16x2,
    BF16x2,
    Fp8(Fp8),
}

impl Packed {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "f32" => Packed::F32,
            "tf32" => Packed::Tf32,
            "f16x2" => Packed::F16x2,
            "bf16x2" => Packed::BF16x2,
            "e4m3x2" => Packed::Fp8(Fp8::E4M3),
            "e5m2x2" => Packed::Fp8(Fp8::E5M2),
            _ => return None,
        })
    }
}

/// Whether conversions of the type are decoded here.
pub(super) fn is_packed(ty: &str) -> bool {
    ty == "tf32" || ty.contains('x')
}

const WORD: Kind = Kind::Int(32);

pub fn decode(
    modifiers: &mut Modifiers,
    round: Rounding,
    clamp: Clamp,
    operands: &[Operand],
) -> Result<Decoded, String> {
    let near_or_zero = match round {
        Rounding::To(round @ (Round::Nearest | Round::Zero)) => Some(round),
        _ => None,
    };
    let to = modifiers.ty(Packed::parse)?;
    let from = modifiers.ty(Packed::parse)?;
    let (op, result, source, count) = match (to, from) {
        (Packed::Tf32, Packed::F32) => {
            let round = match round {
                Rounding::Away if !clamp.relu => None,
                _ if near_or_zero.is_some() => near_or_zero,
                _ => return Err(modifiers.error("needs .rna without .relu, or .rn or .rz")),
            };
            (ConvertPacked::Tf32 { round, clamp }, WORD, Kind::F32, 1)
        }
        (Packed::F16x2 | Packed::BF16x2, Packed::F32) => {
            let round = near_or_zero.ok_or_else(|| modifiers.error("needs .rn or .rz"))?;
            (ConvertPacked::Halves { bf16: to == Packed::BF16x2, round, clamp }, WORD, Kind::F32, 2)
        }
        (Packed::Fp8(format), Packed::F32 | Packed::F16x2) => {
            if near_or_zero != Some(Round::Nearest) || !clamp.satfinite {
                return Err(modifiers.error("needs .rn and .satfinite"));
            }
            let (source, kind, count) = match from {
                Packed::F32 => (Fp8Source::F32, Kind::F32, 2),
                _ => (Fp8Source::F16x2, WORD, 1),
            };
            (ConvertPacked::ToFp8 { format, from: source, relu: clamp.relu }, Kind::Int(16), kind, count)
        }
        (Packed::F16x2, Packed::Fp8(format)) => {
            if near_or_zero != Some(Round::Nearest) || clamp.satfinite {
                return Err(modifiers.error("needs .rn, without .satfinite"));
            }
            (ConvertPacked::FromFp8 { format, relu: clamp.relu }, WORD, Kind::Int(16), 1)
        }
        _ => return Err(modifiers.error("this pair of types is not supported")),
    };
    modifiers.plain(Op::ConvertPacked(op), result, &[source; 2][..count], operands)
}

/// `cvt.pack.sat.u8.s32.b32`, after `pack`.
pub(super) fn decode_pack(modifiers: &mut Modifiers, operands: &[Operand]) -> Result<Decoded, String> {
    modifiers.need("modifier", |text| (text == "sat").then_some(()))?;
    let (signed, bits) = modifiers.ty(|text| {
        let bits = match text.strip_prefix(['u', 's'])? {
            "2" => 2,
            "4" => 4,
            "8" => 8,
            "16" => 16,
            _ => return None,
        };
        Some((text.starts_with('s'), bits))
    })?;
    modifiers.ty(|text| (text == "s32").then_some(()))?;
    if bits < 16 {
        modifiers.ty(|text| (text == "b32").then_some(()))?;
    }
    let sources = [WORD; 3];
    let sources = &sources[..if bits < 16 { 3 } else { 2 }];
    modifiers.plain(Op::ConvertPacked(ConvertPacked::Pack { bits, signed }), WORD, sources, operands)
}

pub fn execute(op: ConvertPacked, frame: &mut Frame) {
    match op {
        ConvertPacked::Halves { bf16: false, round: Round::Nearest, clamp: Clamp::NONE } => {
            frame.map2(|a, b| encode::<F16>(a) << 16 | encode::<F16>(b));
        }
        ConvertPacked::Halves { bf16: true, round: Round::Nearest, clamp: Clamp::NONE } => {
            frame.map2(|a, b| encode::<BF16>(a) << 16 | encode::<BF16>(b));
        }
        ConvertPacked::Halves { bf16, round, clamp } => match (bf16, round) {
            (false, Round::Zero) => halves::<F16, Zero>(clamp, frame),
            (false, _) => halves::<F16, Nearest>(clamp, frame),
            (true, Round::Zero) => halves::<BF16, Zero>(clamp, frame),
            (true, _) => halves::<BF16, Nearest>(clamp, frame),
        },
        ConvertPacked::Tf32 { round, clamp: Clamp { relu: positive, satfinite, .. } } => {
            let (away, to_zero) = (round.is_none(), round == Some(Round::Zero));
            frame.map1(|a: f32| {
                let bits = encode_tf32(if positive { relu(a) } else { a }, away, to_zero);
                let infinite = bits << 1 == 0xff00_0000;
                if satfinite && infinite { bits & 0x8000_0000 | LARGEST_TF32 } else { bits }
            });
        }
        ConvertPacked::ToFp8 { format: Fp8::E4M3, from, relu } => to_fp8::<E4M3>(from, relu, frame),
        ConvertPacked::ToFp8 { format: Fp8::E5M2, from, relu } => to_fp8::<E5M2>(from, relu, frame),
        ConvertPacked::FromFp8 { format: Fp8::E4M3, relu } => from_fp8::<E4M3>(relu, frame),
        ConvertPacked::FromFp8 { format: Fp8::E5M2, relu } => from_fp8::<E5M2>(relu, frame),
        ConvertPacked::Pack { bits: 16, signed } => frame.map2(|a: i32, b: i32| pack(a, b, 16, signed)),
        ConvertPacked::Pack { bits, signed } => {
            let bits = u32::from(bits);
            frame.map3(|a: i32, b: i32, c: u32| c.wrapping_shl(2 * bits) | pack(a, b, bits, signed));
        }
    }
}

fn halves<F: Format, D: Direction>(clamp: Clamp, frame: &mut Frame) {
    frame.words2(Halves::<F, D> { clamp, types: PhantomData });
}

struct Halves<F, D> {
    clamp: Clamp,
    types: PhantomData<(F, D)>,
}

impl<F: Format, D: Direction> Binary for Halves<F, D> {
    #[inline(always)]
    fn apply(&self, a: u32, b: u32) -> u32 {
        let one = |bits| narrow_half::<F, D>(f32::from_bits(bits), self.clamp);
        one(a) << 16 | one(b)
    }
}

/// To an 8-bit format, clamped to the largest finite number.
#[inline(always)]
fn fp8<F: Format>(value: f32, positive: bool) -> u32 {
    let value = if positive { relu(value) } else { value };
    let bits = encode::<F>(value);
    // A number that rounds above the largest becomes infinity, or NaN in a format without infinity.
    let overflows = bits & F::MAGNITUDE == F::INFINITY && !value.is_nan();
    if overflows { bits & (F::MAGNITUDE + 1) | F::LARGEST } else { bits }
}

/// To two 8-bit numbers, from two f32 or an f16x2.
struct ToFp8<F> {
    positive: bool,
    format: PhantomData<F>,
}

impl<F: Format> Binary for ToFp8<F> {
    #[inline(always)]
    fn apply(&self, a: u32, b: u32) -> u32 {
        fp8::<F>(f32::from_bits(a), self.positive) << 8 | fp8::<F>(f32::from_bits(b), self.positive)
    }
}

impl<F: Format> Unary for ToFp8<F> {
    #[inline(always)]
    fn apply(&self, a: u32) -> u32 {
        fp8::<F>(widen::<F16>(a >> 16), self.positive) << 8 | fp8::<F>(widen::<F16>(a), self.positive)
    }
}

fn to_fp8<F: Format>(from: Fp8Source, positive: bool, frame: &mut Frame) {
    let f = ToFp8::<F> { positive, format: PhantomData };
    match from {
        Fp8Source::F32 => frame.words2(f),
        Fp8Source::F16x2 => frame.words1(f),
    }
}

struct FromFp8<F> {
    positive: bool,
    format: PhantomData<F>,
}

impl<F: Format> Unary for FromFp8<F> {
    #[inline(always)]
    fn apply(&self, a: u32) -> u32 {
        let one = |bits| {
            let value = widen::<F>(bits);
            encode::<F16>(if self.positive { relu(value) } else { value })
        };
        one(a >> 8) << 16 | one(a)
    }
}

fn from_fp8<F: Format>(positive: bool, frame: &mut Frame) {
    frame.words1(FromFp8::<F> { positive, format: PhantomData });
}

/// `a` in the bits above `b`, each clamped.
#[inline(always)]
fn pack(a: i32, b: i32, bits: u32, signed: bool) -> u32 {
    let half = 1i32.wrapping_shl(bits.wrapping_sub(1));
    let least = if signed { half.wrapping_neg() } else { 0 };
    let greatest = if signed { half } else { half.wrapping_mul(2) }.wrapping_sub(1);
    let mask = u32::MAX.wrapping_shr(32u32.wrapping_sub(bits));
    let one = |value: i32| value.min(greatest).max(least) as u32 & mask;
    one(a).wrapping_shl(bits) | one(b)
}
