//! f32 and f64 arithmetic: add, sub, mul, fma, mad, div, rcp, sqrt, abs, neg, min, max, copysign, testp.

use super::lanes::{Frame, fused};
use super::parts::Modifiers;
use super::rounding::{self, Direction, Down, Nearest, Round, Up, Zero};
use super::{Decoded, Kind, Op, soft};
use crate::ast::Operand;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Float {
    F32(Arithmetic, Round, Flags),
    F64(Arithmetic, Round),
    MinMax32(MinMax, bool),
    MinMax64 {
        max: bool,
    },
    /// Whether subnormals are flushed.
    Abs32(bool),
    Neg32(bool),
    Abs64,
    Neg64,
    Copysign32,
    Copysign64,
    Test32(Property),
    Test64(Property),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arithmetic {
    Add,
    Sub,
    Mul,
    Fma,
    Div,
    Rcp,
    Sqrt,
}

/// `.ftz` and `.sat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags {
    pub ftz: bool,
    pub sat: bool,
}

/// Variants of `min` and `max` of floating-point numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MinMax {
    pub max: bool,
    /// `.NaN`: the result is NaN if a source is.
    pub nan: bool,
    pub signs: Signs,
    /// Three sources.
    pub three: bool,
}

/// How `min` and `max` treat signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signs {
    Compared,
    /// `.xorsign.abs`: magnitudes are compared, the signs multiplied.
    Multiplied,
    /// `.abs`
    Dropped,
}

/// The property that `testp` tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Property {
    Finite,
    Infinite,
    Number,
    NotANumber,
    Normal,
    Subnormal,
}

impl MinMax {
    /// `{.NaN}{.xorsign.abs}` or `{.NaN}{.abs}`.
    pub(super) fn parse(modifiers: &mut Modifiers, sources: usize) -> Result<Self, String> {
        let max = modifiers.name() == "max";
        let nan = modifiers.take("NaN");
        let multiplied = modifiers.take("xorsign");
        let signs = match (multiplied, modifiers.take("abs")) {
            (false, false) => Signs::Compared,
            (false, true) => Signs::Dropped,
            (true, true) => Signs::Multiplied,
            (true, false) => return Err(modifiers.error(".xorsign needs .abs")),
        };
        let three = sources == 3;
        match signs {
            Signs::Dropped if !three => Err(modifiers.error(".abs alone needs three sources")),
            Signs::Multiplied if three => Err(modifiers.error(".xorsign needs two sources")),
            _ => Ok(Self { max, nan, signs, three }),
        }
    }

    /// The result for two numbers of a type that f32 holds exactly.
    #[inline(always)]
    pub fn of(self, a: f32, b: f32) -> f32 {
        let (x, y) = if self.signs == Signs::Compared { (a, b) } else { (a.abs(), b.abs()) };
        let number = if self.max { larger::<true>(x, y) } else { larger::<false>(x, y) };
        let number = if self.nan && (x.is_nan() || y.is_nan()) { f32::NAN } else { number };
        if self.signs != Signs::Multiplied {
            return number;
        }
        f32::from_bits(number.to_bits() | (a.to_bits() ^ b.to_bits()) & 0x8000_0000)
    }
}

/// The larger or smaller of two; of a number and a NaN the number, and -0 is below +0.
#[inline(always)]
fn larger<const MAX: bool>(a: f32, b: f32) -> f32 {
    let first = if MAX { a > b } else { a < b };
    let zeros = if MAX { a.to_bits() & b.to_bits() } else { a.to_bits() | b.to_bits() };
    let picked = if first { a } else { b };
    let picked = if a == b { f32::from_bits(zeros) } else { picked };
    if b.is_nan() { a } else { picked }
}

#[inline(always)]
fn larger64<const MAX: bool>(a: f64, b: f64) -> f64 {
    let first = if MAX { a > b } else { a < b };
    let zeros = if MAX { a.to_bits() & b.to_bits() } else { a.to_bits() | b.to_bits() };
    let picked = if first { a } else { b };
    let picked = if a == b { f64::from_bits(zeros) } else { picked };
    if b.is_nan() { a } else { picked }
}

/// Subnormals become zeros of the same sign.
#[inline(always)]
pub(super) fn flush(value: f32) -> f32 {
    if value.abs() < f32::MIN_POSITIVE { f32::from_bits(value.to_bits() & 0x8000_0000) } else { value }
}

#[inline(always)]
pub(super) fn flush_if(ftz: bool, value: f32) -> f32 {
    if ftz { flush(value) } else { value }
}

/// Clamps to [0, 1]; NaN becomes 0.
#[inline(always)]
pub(super) fn saturate(value: f32) -> f32 {
    if value > 0.0 { if value < 1.0 { value } else { 1.0 } } else { 0.0 }
}

pub(super) fn decode(modifiers: &mut Modifiers, operands: &[Operand]) -> Result<Decoded, String> {
    let double = modifiers.has("f64");
    match modifiers.name() {
        "min" | "max" => min_max(modifiers, double, operands),
        "abs" | "neg" | "copysign" => sign(modifiers, double, operands),
        "testp" => testp(modifiers, double, operands),
        _ => arithmetic(modifiers, double, operands),
    }
}

/// Takes the type, which is f64 if `double` and otherwise must be f32.
fn finish_type(modifiers: &mut Modifiers, double: bool) -> Result<Kind, String> {
    let (name, kind) = if double { ("f64", Kind::F64) } else { ("f32", Kind::F32) };
    modifiers.ty(|text| (text == name).then_some(kind))
}

fn arithmetic(modifiers: &mut Modifiers, double: bool, operands: &[Operand]) -> Result<Decoded, String> {
    let (op, sources, optional) = match modifiers.name() {
        "add" => (Arithmetic::Add, 2, true),
        "sub" => (Arithmetic::Sub, 2, true),
        "mul" => (Arithmetic::Mul, 2, true),
        "fma" | "mad" => (Arithmetic::Fma, 3, false),
        "div" => (Arithmetic::Div, 2, false),
        "rcp" => (Arithmetic::Rcp, 1, false),
        _ => (Arithmetic::Sqrt, 1, false),
    };
    let round = match modifiers.pick(Round::parse) {
        Some(round) => round,
        None if optional => Round::Nearest,
        None => return Err(modifiers.error("a rounding mode is missing")),
    };
    let may_saturate = !double && matches!(modifiers.name(), "add" | "sub" | "mul" | "fma" | "mad");
    let flags = Flags { ftz: !double && modifiers.take("ftz"), sat: may_saturate && modifiers.take("sat") };
    let kind = finish_type(modifiers, double)?;
    let op = if double { Float::F64(op, round) } else { Float::F32(op, round, flags) };
    modifiers.plain(Op::Float(op), kind, &[kind; 3][..sources], operands)
}

fn min_max(modifiers: &mut Modifiers, double: bool, operands: &[Operand]) -> Result<Decoded, String> {
    if double {
        finish_type(modifiers, true)?;
        let op = Float::MinMax64 { max: modifiers.name() == "max" };
        return modifiers.plain(Op::Float(op), Kind::F64, &[Kind::F64; 2], operands);
    }
    let ftz = modifiers.take("ftz");
    let sources = if operands.len() == 4 { 3 } else { 2 };
    let variant = MinMax::parse(modifiers, sources)?;
    finish_type(modifiers, false)?;
    modifiers.plain(Op::Float(Float::MinMax32(variant, ftz)), Kind::F32, &[Kind::F32; 3][..sources], operands)
}

fn sign(modifiers: &mut Modifiers, double: bool, operands: &[Operand]) -> Result<Decoded, String> {
    let name = modifiers.name();
    let ftz = !double && name != "copysign" && modifiers.take("ftz");
    let kind = finish_type(modifiers, double)?;
    let (op, sources) = match (name, double) {
        ("abs", false) => (Float::Abs32(ftz), 1),
        ("abs", true) => (Float::Abs64, 1),
        ("neg", false) => (Float::Neg32(ftz), 1),
        ("neg", true) => (Float::Neg64, 1),
        (_, false) => (Float::Copysign32, 2),
        (_, true) => (Float::Copysign64, 2),
    };
    modifiers.plain(Op::Float(op), kind, &[kind; 2][..sources], operands)
}

fn testp(modifiers: &mut Modifiers, double: bool, operands: &[Operand]) -> Result<Decoded, String> {
    let property = modifiers.need("property", |text| {
        Some(match text {
            "finite" => Property::Finite,
            "infinite" => Property::Infinite,
            "number" => Property::Number,
            "notanumber" => Property::NotANumber,
            "normal" => Property::Normal,
            "subnormal" => Property::Subnormal,
            _ => return None,
        })
    })?;
    let kind = finish_type(modifiers, double)?;
    let op = if double { Float::Test64(property) } else { Float::Test32(property) };
    modifiers.plain(Op::Float(op), Kind::Pred, &[kind], operands)
}

pub(super) fn execute(op: Float, frame: &mut Frame) {
    match op {
        Float::F32(op, round, flags) => match (flags.ftz, flags.sat) {
            (false, false) => arithmetic32(op, round, frame, |x| x, |x| x),
            (false, true) => arithmetic32(op, round, frame, |x| x, saturate),
            (true, false) => arithmetic32(op, round, frame, flush, flush),
            (true, true) => arithmetic32(op, round, frame, flush, |x| saturate(flush(x))),
        },
        Float::F64(op, Round::Nearest) => nearest64(op, frame),
        Float::F64(op, round) => directed64(op, round, frame),
        Float::MinMax32(MinMax { max, nan: false, signs: Signs::Compared, three: false }, false) => match max {
            true => frame.map2(larger::<true>),
            false => frame.map2(larger::<false>),
        },
        Float::MinMax32(variant @ MinMax { three: false, .. }, ftz) => {
            frame.map2(|a, b| variant.of(flush_if(ftz, a), flush_if(ftz, b)));
        }
        Float::MinMax32(variant, ftz) => {
            frame.map3(|a, b, c| variant.of(variant.of(flush_if(ftz, a), flush_if(ftz, b)), flush_if(ftz, c)))
        }
        Float::MinMax64 { max: true } => frame.map2(larger64::<true>),
        Float::MinMax64 { max: false } => frame.map2(larger64::<false>),
        Float::Abs32(ftz) => frame.map1(|a: u32| flush_if(ftz, f32::from_bits(a & 0x7fff_ffff)).to_bits()),
        Float::Neg32(ftz) => frame.map1(|a: u32| flush_if(ftz, f32::from_bits(a ^ 0x8000_0000)).to_bits()),
        Float::Abs64 => frame.map1(|a: u64| a & (u64::MAX >> 1)),
        Float::Neg64 => frame.map1(|a: u64| a ^ 1 << 63),
        Float::Copysign32 => frame.map2(|a: u32, b: u32| a & 1 << 31 | b & (u32::MAX >> 1)),
        Float::Copysign64 => frame.map2(|a: u64, b: u64| a & 1 << 63 | b & (u64::MAX >> 1)),
        Float::Test32(property) => {
            let mask = test32(property, frame);
            frame.set_predicate(0, mask);
        }
        Float::Test64(property) => {
            let mask = test64(property, frame);
            frame.set_predicate(0, mask);
        }
    }
}

fn arithmetic32(
    op: Arithmetic,
    round: Round,
    frame: &mut Frame,
    before: impl Fn(f32) -> f32,
    after: impl Fn(f32) -> f32,
) {
    match round {
        Round::Nearest => nearest32(op, frame, before, after),
        Round::Zero => directed32::<Zero>(op, frame, before, after),
        Round::Down => directed32::<Down>(op, frame, before, after),
        Round::Up => directed32::<Up>(op, frame, before, after),
    }
}

fn nearest32(op: Arithmetic, frame: &mut Frame, before: impl Fn(f32) -> f32, after: impl Fn(f32) -> f32) {
    match op {
        Arithmetic::Add => frame.map2(|a: f32, b: f32| after(before(a) + before(b))),
        Arithmetic::Sub => frame.map2(|a: f32, b: f32| after(before(a) - before(b))),
        Arithmetic::Mul => frame.map2(|a: f32, b: f32| after(before(a) * before(b))),
        Arithmetic::Fma if fused() => {
            frame.map3(|a: f32, b: f32, c: f32| after(before(a).mul_add(before(b), before(c))));
        }
        // `mul_add` would be a call for every lane.
        Arithmetic::Fma => frame.map3(|a, b, c| after(rounding::fma::<Nearest>(before(a), before(b), before(c)))),
        Arithmetic::Div => frame.map2(|a: f32, b: f32| after(before(a) / before(b))),
        Arithmetic::Rcp => frame.map1(|a: f32| after(1.0 / before(a))),
        Arithmetic::Sqrt => frame.map1(|a: f32| after(before(a).sqrt())),
    }
}

fn directed32<D: Direction>(
    op: Arithmetic,
    frame: &mut Frame,
    before: impl Fn(f32) -> f32,
    after: impl Fn(f32) -> f32,
) {
    match op {
        Arithmetic::Add => frame.map2(|a, b| after(rounding::add::<D>(before(a), before(b)))),
        Arithmetic::Sub => frame.map2(|a, b: f32| after(rounding::add::<D>(before(a), before(-b)))),
        Arithmetic::Mul => frame.map2(|a, b| after(rounding::mul::<D>(before(a), before(b)))),
        Arithmetic::Fma => frame.map3(|a, b, c| after(rounding::fma::<D>(before(a), before(b), before(c)))),
        Arithmetic::Div => frame.map2(|a, b| after(rounding::div::<D>(before(a), before(b)))),
        Arithmetic::Rcp => frame.map1(|a| after(rounding::div::<D>(1.0, before(a)))),
        Arithmetic::Sqrt => frame.map1(|a| after(rounding::sqrt::<D>(before(a)))),
    }
}

fn nearest64(op: Arithmetic, frame: &mut Frame) {
    match op {
        Arithmetic::Add => frame.map2(|a: f64, b: f64| a + b),
        Arithmetic::Sub => frame.map2(|a: f64, b: f64| a - b),
        Arithmetic::Mul => frame.map2(|a: f64, b: f64| a * b),
        Arithmetic::Fma => frame.map3(|a: f64, b: f64, c: f64| a.mul_add(b, c)),
        Arithmetic::Div => frame.map2(|a: f64, b: f64| a / b),
        Arithmetic::Rcp => frame.map1(|a: f64| 1.0 / a),
        Arithmetic::Sqrt => frame.map1(|a: f64| a.sqrt()),
    }
}

fn directed64(op: Arithmetic, round: Round, frame: &mut Frame) {
    match op {
        Arithmetic::Add => frame.map2(|a, b| soft::add(a, b, round)),
        Arithmetic::Sub => frame.map2(|a, b: f64| soft::add(a, -b, round)),
        Arithmetic::Mul => frame.map2(|a, b| soft::mul(a, b, round)),
        Arithmetic::Fma => frame.map3(|a, b, c| soft::fma(a, b, c, round)),
        Arithmetic::Div => frame.map2(|a, b| soft::div(a, b, round)),
        Arithmetic::Rcp => frame.map1(|a| soft::div(1.0, a, round)),
        Arithmetic::Sqrt => frame.map1(|a| soft::sqrt(a, round)),
    }
}

/// Zeros count as normal.
fn test32(property: Property, frame: &mut Frame) -> u32 {
    match property {
        Property::Finite => frame.test1(|a: f32| a.is_finite()),
        Property::Infinite => frame.test1(|a: f32| a.is_infinite()),
        Property::Number => frame.test1(|a: f32| !a.is_nan()),
        Property::NotANumber => frame.test1(|a: f32| a.is_nan()),
        Property::Normal => frame.test1(|a: f32| a.is_normal() || a == 0.0),
        Property::Subnormal => frame.test1(|a: f32| a.is_subnormal()),
    }
}

fn test64(property: Property, frame: &mut Frame) -> u32 {
    match property {
        Property::Finite => frame.test1(|a: f64| a.is_finite()),
        Property::Infinite => frame.test1(|a: f64| a.is_infinite()),
        Property::Number => frame.test1(|a: f64| !a.is_nan()),
        Property::NotANumber => frame.test1(|a: f64| a.is_nan()),
        Property::Normal => frame.test1(|a: f64| a.is_normal() || a == 0.0),
        Property::Subnormal => frame.test1(|a: f64| a.is_subnormal()),
    }
}
