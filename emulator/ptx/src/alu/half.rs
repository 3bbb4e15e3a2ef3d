//! f16 and bf16 arithmetic, single and packed: add, sub, mul, fma, abs, neg, min, max.
//!
//! Every result is rounded once. Sums and products are computed in f32 and then rounded to the narrow format, which gives
//! the same result: f32 has more than twice the bits of the narrow formats plus two (Figueroa, "When is double rounding
//! innocuous?", 1995), and a subnormal result is exact in f32 or lies below half of the smallest bf16. The fused
//! operation is rounded to odd in f32 first.

use std::marker::PhantomData;

use super::float::{MinMax, saturate};
use super::formats::{BF16, F16, Format, decode as widen, encode};
use super::lanes::{Binary, Frame, Ternary, Unary};
use super::parts::Modifiers;
use super::rounding::{narrow_odd, odd_sum, odd_sum32};
use super::{Decoded, Kind, Op};
use crate::ast::Operand;

/// An operation on f16 or bf16, single or packed in pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Half {
    pub op: HalfOp,
    pub ty: HalfType,
    pub ftz: bool,
    pub after: After,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HalfOp {
    Add,
    Sub,
    Mul,
    Fma,
    Abs,
    Neg,
    MinMax(MinMax),
}

/// How the result is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    Nothing,
    /// Clamped to [0, 1], NaN becomes 0.
    Saturate,
    /// Negative numbers become 0.
    Relu,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HalfType {
    F16,
    F16x2,
    BF16,
    BF16x2,
}

impl Half {
    fn is_plain(self) -> bool {
        !self.ftz && self.after == After::Nothing
    }
}

impl HalfType {
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "f16" => HalfType::F16,
            "f16x2" => HalfType::F16x2,
            "bf16" => HalfType::BF16,
            "bf16x2" => HalfType::BF16x2,
            _ => return None,
        })
    }

    pub fn kind(self) -> Kind {
        match self {
            HalfType::F16 => Kind::F16,
            HalfType::BF16 => Kind::BF16,
            HalfType::F16x2 | HalfType::BF16x2 => Kind::Int(32),
        }
    }

    pub fn is_packed(self) -> bool {
        matches!(self, HalfType::F16x2 | HalfType::BF16x2)
    }

    pub fn is_bf16(self) -> bool {
        matches!(self, HalfType::BF16 | HalfType::BF16x2)
    }
}

pub(super) fn decode(modifiers: &mut Modifiers, operands: &[Operand]) -> Result<Decoded, String> {
    let name = modifiers.name();
    let rounds = matches!(name, "add" | "sub" | "mul" | "fma");
    let rounded = rounds && modifiers.take("rn");
    if name == "fma" && !rounded {
        return Err(modifiers.error("fma needs .rn"));
    }
    let ftz = modifiers.take("ftz");
    let (op, sources) = match name {
        "add" => (HalfOp::Add, 2),
        "sub" => (HalfOp::Sub, 2),
        "mul" => (HalfOp::Mul, 2),
        "fma" => (HalfOp::Fma, 3),
        "abs" => (HalfOp::Abs, 1),
        "neg" => (HalfOp::Neg, 1),
        _ => (HalfOp::MinMax(MinMax::parse(modifiers, 2)?), 2),
    };
    let after = match () {
        () if rounds && modifiers.take("sat") => After::Saturate,
        () if name == "fma" && modifiers.take("relu") => After::Relu,
        () => After::Nothing,
    };
    let ty = modifiers.ty(HalfType::parse)?;
    if ty.is_bf16() && (ftz || after == After::Saturate) {
        return Err(modifiers.error(".ftz and .sat need f16"));
    }
    let kinds = [ty.kind(); 3];
    modifiers.plain(Op::Half(Half { op, ty, ftz, after }), ty.kind(), &kinds[..sources], operands)
}

pub(super) fn execute(half: Half, frame: &mut Frame) {
    if half.ty.is_bf16() { run::<BF16>(half, frame) } else { run::<F16>(half, frame) }
}

/// A function of the value in the low bits, applied to both halves of a word.
pub(super) struct Twice<F>(pub F);

impl<F: Unary> Unary for Twice<F> {
    #[inline(always)]
    fn apply(&self, a: u32) -> u32 {
        self.0.apply(a >> 16) << 16 | self.0.apply(a & 0xffff)
    }
}

impl<F: Binary> Binary for Twice<F> {
    #[inline(always)]
    fn apply(&self, a: u32, b: u32) -> u32 {
        self.0.apply(a >> 16, b >> 16) << 16 | self.0.apply(a & 0xffff, b & 0xffff)
    }
}

impl<F: Ternary> Ternary for Twice<F> {
    #[inline(always)]
    fn apply(&self, a: u32, b: u32, c: u32) -> u32 {
        self.0.apply(a >> 16, b >> 16, c >> 16) << 16 | self.0.apply(a & 0xffff, b & 0xffff, c & 0xffff)
    }
}

/// Subnormals of the format become zeros of the same sign.
#[inline(always)]
fn flush<F: Format>(ftz: bool, bits: u32) -> u32 {
    let subnormal = bits & F::MAGNITUDE < 1 << F::FRACTION;
    if ftz && subnormal { bits & (F::MAGNITUDE + 1) } else { bits }
}

/// An operation `O` in format `F`, with flushing and limits unless it is `PLAIN`. `PLAIN` is part of the type so that
/// the loop does not test it in every lane.
struct Rounded<F, O, const PLAIN: bool> {
    operation: O,
    ftz: bool,
    saturates: bool,
    relu: bool,
    format: PhantomData<F>,
}

impl<F: Fused, O, const PLAIN: bool> Rounded<F, O, PLAIN> {
    fn new(half: Half, operation: O) -> Self {
        let (saturates, relu) = (half.after == After::Saturate, half.after == After::Relu);
        Self { operation, ftz: half.ftz, saturates, relu, format: PhantomData }
    }

    #[inline(always)]
    fn load(&self, bits: u32) -> f32 {
        widen::<F>(flush::<F>(!PLAIN && self.ftz, bits))
    }

    #[inline(always)]
    fn store(&self, value: f32) -> u32 {
        let value = if !PLAIN && self.saturates { saturate(value) } else { value };
        let value = if !PLAIN && self.relu { relu(value) } else { value };
        flush::<F>(!PLAIN && self.ftz, encode::<F>(value))
    }
}

macro_rules! operations {
    ($($name:ident: |$a:ident, $b:ident| $result:expr;)*) => {$(
        #[derive(Clone, Copy)]
        struct $name;

        impl<F: Fused, const PLAIN: bool> Binary for Rounded<F, $name, PLAIN> {
            #[inline(always)]
            fn apply(&self, a: u32, b: u32) -> u32 {
                let ($a, $b) = (self.load(a), self.load(b));
                self.store($result)
            }
        }
    )*};
}

operations! {
    Sum: |a, b| a + b;
    Difference: |a, b| a - b;
    Product: |a, b| a * b;
}

impl<F: Fused, const PLAIN: bool> Binary for Rounded<F, MinMax, PLAIN> {
    #[inline(always)]
    fn apply(&self, a: u32, b: u32) -> u32 {
        self.store(self.operation.of(self.load(a), self.load(b)))
    }
}

#[derive(Clone, Copy)]
struct ProductSum;

impl<F: Fused, const PLAIN: bool> Ternary for Rounded<F, ProductSum, PLAIN> {
    #[inline(always)]
    fn apply(&self, a: u32, b: u32, c: u32) -> u32 {
        self.store(F::fma_odd(self.load(a), self.load(b), self.load(c)))
    }
}

/// abs and neg.
struct Signed<F> {
    negates: bool,
    ftz: bool,
    format: PhantomData<F>,
}

impl<F: Format> Unary for Signed<F> {
    #[inline(always)]
    fn apply(&self, a: u32) -> u32 {
        flush::<F>(self.ftz, if self.negates { a ^ (F::MAGNITUDE + 1) } else { a & F::MAGNITUDE })
    }
}

fn run<F: Fused>(half: Half, frame: &mut Frame) {
    let Half { op, ty, ftz, .. } = half;
    match op {
        HalfOp::Add => binary::<F, _>(half, Sum, frame),
        HalfOp::Sub => binary::<F, _>(half, Difference, frame),
        HalfOp::Mul => binary::<F, _>(half, Product, frame),
        HalfOp::MinMax(variant) => binary::<F, _>(half, variant, frame),
        HalfOp::Fma => match (half.is_plain(), ty.is_packed()) {
            (true, true) => frame.words3(Twice(Rounded::<F, _, true>::new(half, ProductSum))),
            (true, false) => frame.words3(Rounded::<F, _, true>::new(half, ProductSum)),
            (false, true) => frame.words3(Twice(Rounded::<F, _, false>::new(half, ProductSum))),
            (false, false) => frame.words3(Rounded::<F, _, false>::new(half, ProductSum)),
        },
        HalfOp::Abs | HalfOp::Neg => {
            let f = Signed::<F> { negates: op == HalfOp::Neg, ftz, format: PhantomData };
            if ty.is_packed() { frame.words1(Twice(f)) } else { frame.words1(f) }
        }
    }
}

fn binary<F: Fused, O>(half: Half, operation: O, frame: &mut Frame)
where
    Rounded<F, O, true>: Binary,
    Rounded<F, O, false>: Binary,
{
    match (half.is_plain(), half.ty.is_packed()) {
        (true, true) => frame.words2(Twice(Rounded::<F, O, true>::new(half, operation))),
        (true, false) => frame.words2(Rounded::<F, O, true>::new(half, operation)),
        (false, true) => frame.words2(Twice(Rounded::<F, O, false>::new(half, operation))),
        (false, false) => frame.words2(Rounded::<F, O, false>::new(half, operation)),
    }
}

/// Negative numbers become +0; NaN stays.
#[inline(always)]
pub(super) fn relu(value: f32) -> f32 {
    if value <= 0.0 { 0.0 } else { value }
}

/// a · b + c rounded to odd in f32.
trait Fused: Format {
    fn fma_odd(a: f32, b: f32, c: f32) -> f32;
}

impl Fused for F16 {
    /// The product has 22 bits and is exact in f32.
    #[inline(always)]
    fn fma_odd(a: f32, b: f32, c: f32) -> f32 {
        odd_sum32(a * b, c)
    }
}

impl Fused for BF16 {
    /// The product has 16 bits, but may exceed the range of f32.
    #[inline(always)]
    fn fma_odd(a: f32, b: f32, c: f32) -> f32 {
        narrow_odd(odd_sum(f64::from(a) * f64::from(b), f64::from(c)))
    }
}
