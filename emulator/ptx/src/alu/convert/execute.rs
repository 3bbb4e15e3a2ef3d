//! Executes `cvt`: integers directly, floating-point numbers through f64, which holds them all, with faster paths for the
//! most common pairs of types.

use super::types::{Clamp, Convert, FloatRound, FloatType, IntType};
use crate::alu::float::{flush_if, saturate};
use crate::alu::formats::{BF16, F16, Format, decode as widen, encode, encode_directed};
use crate::alu::half::relu;
use crate::alu::integer::INTEGER_BITS;
use crate::alu::lanes::Frame;
use crate::alu::rounding::{Direction, Down, Nearest, Round, Up, Zero, narrow, narrow_odd};
use crate::registers::LANES;

pub fn execute(op: Convert, frame: &mut Frame) {
    match op {
        Convert::IntToInt { from, to, sat: false, register } => int_to_int(from, to, register, frame),
        Convert::IntToInt { from, to, sat: true, register } => int_to_int_sat(from, to, register, frame),
        Convert::FloatToInt { from, to, round, ftz, register } => float_to_int(from, to, round, ftz, register, frame),
        Convert::IntToFloat { from, to, round, sat } => int_to_float(from, to, round, sat, frame),
        Convert::FloatToFloat { from, to, round, ftz, clamp } => float_to_float(from, to, round, ftz, clamp, frame),
    }
}

/// The low bits of a word, extended to the whole word.
#[inline(always)]
fn extend(word: u32, ty: IntType) -> u32 {
    let unused = 32u32.saturating_sub(u32::from(ty.bits));
    let top = word.wrapping_shl(unused);
    if ty.signed { (top as i32).wrapping_shr(unused) as u32 } else { top.wrapping_shr(unused) }
}

/// A mask of the low `bits` bits.
fn register_mask(bits: u8) -> u32 {
    u32::MAX >> 32u8.saturating_sub(bits)
}

fn int_to_int(from: IntType, to: IntType, register: u8, frame: &mut Frame) {
    let mask = register_mask(register);
    match (from.bits, to.bits) {
        (64, 64) => frame.map1(|a: u64| a),
        (64, _) => frame.map1(|a: u64| extend(a as u32, to) & mask),
        (32, 64) if from.signed => frame.map1(|a: i32| i64::from(a)),
        (32, 64) => frame.map1(|a: u32| u64::from(a)),
        (_, 64) if from.signed => frame.map1(|a: u32| i64::from(extend(a, from) as i32)),
        (_, 64) => frame.map1(|a: u32| u64::from(extend(a, from))),
        _ => frame.map1(|a: u32| extend(extend(a, from), to) & mask),
    }
}

fn int_to_int_sat(from: IntType, to: IntType, register: u8, frame: &mut Frame) {
    let (least, greatest) = (to.least(), to.greatest());
    let signed_greatest = greatest.min(i64::MAX as u64) as i64;
    let clamped = match (from.bits, from.signed) {
        (64, false) => frame.gather(|a: u64| a.min(greatest)),
        (64, true) => frame.gather(|a: i64| a.clamp(least, signed_greatest) as u64),
        (_, true) => frame.gather(|a: u32| i64::from(extend(a, from) as i32).clamp(least, signed_greatest) as u64),
        (_, false) => frame.gather(|a: u32| u64::from(extend(a, from)).min(greatest)),
    };
    scatter_int(&clamped, to, register, frame);
}

fn scatter_int(values: &[u64; LANES], to: IntType, register: u8, frame: &mut Frame) {
    if to.bits == 64 {
        return frame.scatter(values, |value: u64| value);
    }
    let mask = register_mask(register);
    frame.scatter(values, |value: u64| value as u32 & mask);
}

/// Rounds to an integral number.
#[inline(always)]
fn integral<D: Direction>(value: f64) -> f64 {
    match D::ROUND {
        Round::Nearest => value.round_ties_even(),
        Round::Zero => value.trunc(),
        Round::Down => value.floor(),
        Round::Up => value.ceil(),
    }
}

/// An integral number, clamped; NaN becomes 0. The same as Rust's cast, which is not vectorised.
#[inline(always)]
fn to_i32(integral: f32) -> i32 {
    const LIMIT: f32 = 2_147_483_648.0;
    let clamped = if integral > LIMIT { LIMIT } else { integral };
    let clamped = if clamped < -LIMIT { -LIMIT } else { clamped };
    let bits = (f64::from(clamped) + INTEGER_BITS).to_bits() as i32;
    let bits = if integral >= LIMIT { i32::MAX } else { bits };
    if integral.is_nan() { 0 } else { bits }
}

#[inline(always)]
fn to_u32(integral: f32) -> u32 {
    const LIMIT: f32 = 4_294_967_296.0;
    let clamped = if integral > LIMIT { LIMIT } else { integral };
    let clamped = if clamped < 0.0 { 0.0 } else { clamped };
    let bits = (f64::from(clamped) + INTEGER_BITS).to_bits() as u32;
    let bits = if integral >= LIMIT { u32::MAX } else { bits };
    if integral.is_nan() { 0 } else { bits }
}

fn float_to_int(from: FloatType, to: IntType, round: Round, ftz: bool, register: u8, frame: &mut Frame) {
    if from == FloatType::F32 && to.bits == 32 && !ftz {
        return match (to.signed, round) {
            (true, Round::Nearest) => frame.map1(|a: f32| to_i32(a.round_ties_even())),
            (true, Round::Zero) => frame.map1(|a: f32| to_i32(a.trunc())),
            (true, Round::Down) => frame.map1(|a: f32| to_i32(a.floor())),
            (true, Round::Up) => frame.map1(|a: f32| to_i32(a.ceil())),
            (false, Round::Nearest) => frame.map1(|a: f32| to_u32(a.round_ties_even())),
            (false, Round::Zero) => frame.map1(|a: f32| to_u32(a.trunc())),
            (false, Round::Down) => frame.map1(|a: f32| to_u32(a.floor())),
            (false, Round::Up) => frame.map1(|a: f32| to_u32(a.ceil())),
        };
    }
    let values = to_f64s(from, ftz, frame);
    match round {
        Round::Nearest => scatter_integral::<Nearest>(&values, from, to, register, frame),
        Round::Zero => scatter_integral::<Zero>(&values, from, to, register, frame),
        Round::Down => scatter_integral::<Down>(&values, from, to, register, frame),
        Round::Up => scatter_integral::<Up>(&values, from, to, register, frame),
    }
}

fn scatter_integral<D: Direction>(
    values: &[f64; LANES],
    from: FloatType,
    to: IntType,
    register: u8,
    frame: &mut Frame,
) {
    let (nan, least, greatest) = (to.of_nan(from), to.least(), to.greatest());
    let signed = |value: f64| (integral::<D>(value) as i64).max(least).min(greatest as i64) as u64;
    let unsigned = |value: f64| (integral::<D>(value) as u64).min(greatest);
    let mask = register_mask(register);
    match (to.bits, to.signed) {
        (64, true) => frame.scatter(values, |value: f64| if value.is_nan() { nan } else { signed(value) }),
        (64, false) => frame.scatter(values, |value: f64| if value.is_nan() { nan } else { unsigned(value) }),
        (_, true) => {
            frame.scatter(values, |value: f64| if value.is_nan() { nan } else { signed(value) } as u32 & mask);
        }
        (_, false) => {
            frame.scatter(values, |value: f64| if value.is_nan() { nan } else { unsigned(value) } as u32 & mask);
        }
    }
}

/// The source in f64, which is exact.
fn to_f64s(from: FloatType, ftz: bool, frame: &mut Frame) -> [f64; LANES] {
    match from {
        FloatType::F16 => frame.gather(|a: u32| f64::from(widen::<F16>(a))),
        FloatType::BF16 => frame.gather(|a: u32| f64::from(widen::<BF16>(a))),
        FloatType::F32 => frame.gather(|a: f32| f64::from(flush_if(ftz, a))),
        FloatType::F64 => frame.gather(|a: f64| a),
    }
}

/// An integer as f64 in the rounding mode; `None` rounds to odd.
fn int_to_f64(magnitude: u64, negative: bool, round: Option<Round>) -> f64 {
    let nearest = magnitude as f64;
    let back = nearest as u128;
    let exact = u128::from(magnitude);
    let bits = nearest.to_bits();
    let toward_zero = if back > exact { bits - 1 } else { bits };
    let inexact = back != exact;
    let away = toward_zero + inexact as u64;
    let bits = match round {
        Some(Round::Nearest) => bits,
        Some(Round::Zero) => toward_zero,
        Some(Round::Down) => {
            if negative {
                away
            } else {
                toward_zero
            }
        }
        Some(Round::Up) => {
            if negative {
                toward_zero
            } else {
                away
            }
        }
        None => toward_zero | inexact as u64,
    };
    f64::from_bits(bits | u64::from(negative) << 63)
}

fn int_to_float(from: IntType, to: FloatType, round: Round, sat: bool, frame: &mut Frame) {
    if round == Round::Nearest && !sat {
        match (to, from.bits, from.signed) {
            (FloatType::F32, 32, true) => return frame.map1(|a: i32| a as f32),
            (FloatType::F32, 32, false) => return frame.map1(|a: u32| a as f32),
            (FloatType::F64, 32, true) => return frame.map1(|a: i32| f64::from(a)),
            (FloatType::F64, 32, false) => return frame.map1(|a: u32| f64::from(a)),
            _ => {}
        }
    }
    let mode = (to == FloatType::F64).then_some(round);
    let signed = |value: i64| int_to_f64(value.unsigned_abs(), value < 0, mode);
    let values = match (from.bits, from.signed) {
        (64, true) => frame.gather(signed),
        (64, false) => frame.gather(|a: u64| int_to_f64(a, false, mode)),
        (_, true) => frame.gather(|a: u32| signed(i64::from(extend(a, from) as i32))),
        (_, false) => frame.gather(|a: u32| signed(i64::from(extend(a, from)))),
    };
    scatter_float(&values, to, round, false, Clamp { sat, ..Clamp::NONE }, frame);
}

fn float_to_float(from: FloatType, to: FloatType, round: FloatRound, ftz: bool, clamp: Clamp, frame: &mut Frame) {
    let nearest = round == FloatRound::To(Round::Nearest);
    if nearest && !ftz && clamp == Clamp::NONE {
        match (from, to) {
            (FloatType::F16, FloatType::F32) => return frame.map1(widen::<F16>),
            (FloatType::BF16, FloatType::F32) => return frame.map1(widen::<BF16>),
            (FloatType::F32, FloatType::F16) => return frame.map1(encode::<F16>),
            (FloatType::F32, FloatType::BF16) => return frame.map1(encode::<BF16>),
            (FloatType::F32, FloatType::F64) => return frame.map1(|a: f32| f64::from(a)),
            (FloatType::F64, FloatType::F32) => return frame.map1(|a: f64| a as f32),
            _ => {}
        }
    }
    let mut values = to_f64s(from, ftz, frame);
    let round = match round {
        FloatRound::To(round) => round,
        FloatRound::Integer(round) => {
            values = match round {
                Round::Nearest => values.map(integral::<Nearest>),
                Round::Zero => values.map(integral::<Zero>),
                Round::Down => values.map(integral::<Down>),
                Round::Up => values.map(integral::<Up>),
            };
            Round::Nearest
        }
    };
    scatter_float(&values, to, round, ftz, clamp, frame);
}

/// Writes values that are exact, or rounded to odd if the result is narrower than f64.
fn scatter_float(values: &[f64; LANES], to: FloatType, round: Round, ftz: bool, clamp: Clamp, frame: &mut Frame) {
    match round {
        Round::Nearest => scatter_directed::<Nearest>(values, to, ftz, clamp, frame),
        Round::Zero => scatter_directed::<Zero>(values, to, ftz, clamp, frame),
        Round::Down => scatter_directed::<Down>(values, to, ftz, clamp, frame),
        Round::Up => scatter_directed::<Up>(values, to, ftz, clamp, frame),
    }
}

fn scatter_directed<D: Direction>(values: &[f64; LANES], to: FloatType, ftz: bool, clamp: Clamp, frame: &mut Frame) {
    match to {
        FloatType::F16 => frame.scatter(values, |value| narrow_half::<F16, D>(narrow_odd(value), clamp)),
        FloatType::BF16 => frame.scatter(values, |value| narrow_half::<BF16, D>(narrow_odd(value), clamp)),
        FloatType::F32 if clamp.sat => frame.scatter(values, |value| saturate(flush_if(ftz, narrow::<D>(value)))),
        FloatType::F32 => frame.scatter(values, |value| flush_if(ftz, narrow::<D>(value))),
        FloatType::F64 if clamp.sat => {
            frame.scatter(values, |value: f64| if value > 0.0 { value.min(1.0) } else { 0.0 });
        }
        FloatType::F64 => frame.scatter(values, |value: f64| value),
    }
}

/// To f16 or bf16, from a value that is exact or rounded to odd.
#[inline(always)]
pub(super) fn narrow_half<F: Format, D: Direction>(value: f32, clamp: Clamp) -> u32 {
    let value = if clamp.relu { relu(value) } else { value };
    let value = if clamp.sat { saturate(value) } else { value };
    let bits = encode_directed::<F, D>(value);
    let infinite = bits & F::MAGNITUDE == F::INFINITY;
    if clamp.satfinite && infinite { bits.wrapping_sub(1) } else { bits }
}
