//! Approximate functions: rcp, sqrt, rsqrt, sin, cos, lg2, ex2, tanh, div.approx, div.full.
//!
//! They are computed in f64 with operations that round alike on every machine, and rounded to f32 once at the end, so
//! the bits are the same everywhere. They differ from the hardware's, which come from tables. The results are within
//! 0.51 ulp of the exact ones (sin and cos: up to 2²⁰ radians, and beyond that as in `libm`). PTX allows hardware these
//! errors: rcp 1 ulp, sqrt and rsqrt 2⁻²³ relative, ex2 2 ulp, lg2 2⁻²² absolute (relative outside of [0.5, 2]), sin and
//! cos 2⁻²⁰·⁵ absolute up to 2π, tanh 2⁻¹¹ relative, div.approx and div.full 2 ulp. Special values are those of PTX's
//! tables.

use std::marker::PhantomData;

use super::float::{flush, flush_if};
use super::formats::{BF16, F16, Format, decode as widen, encode};
use super::half::{HalfType, Twice};
use super::integer::INTEGER_BITS;
use super::lanes::{Frame, Unary};
use super::parts::Modifiers;
use super::{Decoded, Kind, Op};
use crate::ast::Operand;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Approx {
    /// Of f32; whether subnormals are flushed.
    F32(Function, bool),
    /// `ex2` or `tanh` of f16 or bf16.
    Half(Function, HalfType, bool),
    /// `rsqrt.approx.f64`
    Rsqrt64,
    /// `rcp.approx.ftz.f64`, `rsqrt.approx.ftz.f64`: they read the upper 32 bits only.
    Gross64(Function),
    Div {
        ftz: bool,
        full: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Function {
    Rcp,
    Sqrt,
    Rsqrt,
    Sin,
    Cos,
    Lg2,
    Ex2,
    Tanh,
}

/// Whether an opcode that also has an exact form is an approximate one.
pub(super) fn is_approximate(modifiers: &Modifiers) -> bool {
    matches!(modifiers.name(), "rsqrt" | "sin" | "cos" | "lg2" | "ex2" | "tanh")
        || modifiers.has("approx")
        || modifiers.has("full")
}

pub(super) fn decode(modifiers: &mut Modifiers, operands: &[Operand]) -> Result<Decoded, String> {
    let name = modifiers.name();
    let full = name == "div" && modifiers.take("full");
    if !full && !modifiers.take("approx") {
        return Err(modifiers.error(".approx is missing"));
    }
    let ftz = name != "tanh" && modifiers.take("ftz");
    let function = match name {
        "div" => {
            modifiers.ty(|text| (text == "f32").then_some(()))?;
            return modifiers.plain(Op::Approx(Approx::Div { ftz, full }), Kind::F32, &[Kind::F32; 2], operands);
        }
        "rcp" => Function::Rcp,
        "sqrt" => Function::Sqrt,
        "rsqrt" => Function::Rsqrt,
        "sin" => Function::Sin,
        "cos" => Function::Cos,
        "lg2" => Function::Lg2,
        "ex2" => Function::Ex2,
        _ => Function::Tanh,
    };
    let op = modifiers.ty(|text| match (text, function) {
        ("f32", _) => Some((Approx::F32(function, ftz), Kind::F32)),
        ("f64", Function::Rsqrt) if !ftz => Some((Approx::Rsqrt64, Kind::F64)),
        ("f64", Function::Rsqrt | Function::Rcp) if ftz => Some((Approx::Gross64(function), Kind::F64)),
        (_, Function::Ex2 | Function::Tanh) => {
            let ty = HalfType::parse(text)?;
            // ex2 of bf16 always flushes, and must have `.ftz`; the others do not flush.
            let flushes = function == Function::Ex2 && ty.is_bf16();
            (ftz == flushes).then_some((Approx::Half(function, ty, ftz), ty.kind()))
        }
        _ => None,
    })?;
    modifiers.plain(Op::Approx(op.0), op.1, &[op.1], operands)
}

pub(super) fn execute(op: Approx, frame: &mut Frame) {
    match op {
        Approx::F32(function, ftz) => {
            let before = |x| flush_if(ftz, x);
            match function {
                Function::Rcp => frame.map1(|a| flush_if(ftz, 1.0 / before(a))),
                Function::Sqrt => frame.map1(|a| flush_if(ftz, before(a).sqrt())),
                Function::Rsqrt => frame.map1(|a| rsqrt(before(a))),
                Function::Sin => circular(frame, false),
                Function::Cos => circular(frame, true),
                Function::Lg2 => frame.map1(|a| lg2(before(a))),
                Function::Ex2 => frame.map1(|a| flush_if(ftz, ex2(before(a)))),
                Function::Tanh => frame.map1(tanh),
            }
        }
        Approx::Half(function, ty, ftz) if ty.is_bf16() => half::<BF16>(function, ty.is_packed(), ftz, frame),
        Approx::Half(function, ty, ftz) => half::<F16>(function, ty.is_packed(), ftz, frame),
        Approx::Rsqrt64 => frame.map1(|a: f64| 1.0 / a.sqrt()),
        Approx::Gross64(Function::Rcp) => frame.map1(|a| gross(a, |a| 1.0 / a)),
        Approx::Gross64(_) => frame.map1(|a| gross(a, |a| 1.0 / a.sqrt())),
        Approx::Div { ftz, full: true } => frame.map2(|a, b| flush_if(ftz, flush_if(ftz, a) / flush_if(ftz, b))),
        Approx::Div { ftz, full: false } => frame.map2(|a, b| {
            let (a, b) = (flush_if(ftz, a), flush_if(ftz, b));
            // Above 2^126 hardware flushes the reciprocal that it multiplies with to zero.
            let reciprocal_is_zero = b.abs() > f32::from_bits(0x7e80_0000);
            let zero = f32::from_bits(b.to_bits() & 0x8000_0000);
            flush_if(ftz, if reciprocal_is_zero { a * zero } else { a / b })
        }),
    }
}

fn half<F: Format>(function: Function, packed: bool, ftz: bool, frame: &mut Frame) {
    let (ex2, tanh) = (Ex2::<F> { ftz, format: PhantomData }, Tanh::<F> { format: PhantomData });
    match (function, packed) {
        (Function::Ex2, false) => frame.words1(ex2),
        (Function::Ex2, true) => frame.words1(Twice(ex2)),
        (_, false) => frame.words1(tanh),
        (_, true) => frame.words1(Twice(tanh)),
    }
}

struct Ex2<F> {
    ftz: bool,
    format: PhantomData<F>,
}

impl<F: Format> Unary for Ex2<F> {
    #[inline(always)]
    fn apply(&self, a: u32) -> u32 {
        encode::<F>(flush_if(self.ftz, ex2(flush_if(self.ftz, widen::<F>(a)))))
    }
}

struct Tanh<F> {
    format: PhantomData<F>,
}

impl<F: Format> Unary for Tanh<F> {
    #[inline(always)]
    fn apply(&self, a: u32) -> u32 {
        encode::<F>(tanh(widen::<F>(a)))
    }
}

/// `f` of the upper 32 bits; the lower 32 bits of the result are zero. Subnormal operands and results are flushed.
#[inline(always)]
fn gross(a: f64, f: impl Fn(f64) -> f64) -> f64 {
    const UPPER: u64 = 0xffff_ffff_0000_0000;
    let flush = |x: f64| if x.abs() < f64::MIN_POSITIVE { 0f64.copysign(x) } else { x };
    let a = flush(f64::from_bits(a.to_bits() & UPPER));
    let result = flush(f(a));
    // The upper half of a NaN alone may not be a NaN; the canonical one is written for it.
    if result.is_nan() { result } else { f64::from_bits(result.to_bits() & UPPER) }
}

#[inline(always)]
fn rsqrt(a: f32) -> f32 {
    (1.0 / f64::from(a).sqrt()) as f32
}

/// c₀ + c₁·x + …, by Horner's scheme.
#[inline(always)]
fn polynomial<const N: usize>(x: f64, coefficients: [f64; N]) -> f64 {
    let mut sum = coefficients[N - 1];
    for i in (0..N - 1).rev() {
        sum = sum * x + coefficients[i];
    }
    sum
}

#[inline(always)]
fn ex2(a: f32) -> f32 {
    ex2_f64(f64::from(a)) as f32
}

/// 2^a with a relative error of 2⁻⁴²; beyond ±200 the value at ±200, which is outside of f32's range as well.
#[inline(always)]
fn ex2_f64(a: f64) -> f64 {
    // (ln 2)^k / k!
    const SERIES: [f64; 11] = [
        1.0,
        std::f64::consts::LN_2,
        0.24022650695910072,
        0.05550410866482158,
        0.009618129107628477,
        0.0013333558146428443,
        0.0001540353039338161,
        1.5252733804059841e-05,
        1.321548679014431e-06,
        1.01780860092397e-07,
        7.054911620801123e-09,
    ];
    // Comparisons that keep a NaN.
    let a = if a > 200.0 { 200.0 } else { a };
    let a = if a < -200.0 { -200.0 } else { a };
    let shifted = a + INTEGER_BITS;
    let rest = a - (shifted - INTEGER_BITS);
    let scale = f64::from_bits((shifted.to_bits() << 52).wrapping_add(1.0f64.to_bits()));
    polynomial(rest, SERIES) * scale
}

#[inline(always)]
fn lg2(a: f32) -> f32 {
    // 2 / ((2k + 1) ln 2): log2 m = Σ cₖ s^(2k + 1) with s = (m - 1) / (m + 1).
    const SERIES: [f64; 10] = [
        2.8853900817779268,
        0.9617966939259756,
        0.5770780163555853,
        0.4121985831111324,
        0.3205988979753252,
        0.2623081892525388,
        0.22195308321368667,
        0.19235933878519512,
        0.16972882833987804,
        0.15186263588304877,
    ];
    // a = m · 2^exponent with m from √½ to √2; every f32 but zero is normal in f64.
    let bits = f64::from(a).to_bits();
    let biased = bits.wrapping_sub(std::f64::consts::FRAC_1_SQRT_2.to_bits()).wrapping_add(1.0f64.to_bits()) >> 52;
    let m = f64::from_bits(bits.wrapping_sub(biased << 52).wrapping_add(1.0f64.to_bits()));
    let exponent = f64::from_bits(biased.wrapping_add(INTEGER_BITS.to_bits())) - (INTEGER_BITS + 1023.0);
    let s = (m - 1.0) / (m + 1.0);
    let result = (exponent + s * polynomial(s * s, SERIES)) as f32;
    let result = if a == f32::INFINITY { a } else { result };
    let result = if a == 0.0 { f32::NEG_INFINITY } else { result };
    if a >= 0.0 { result } else { f32::NAN }
}

#[inline(always)]
fn tanh(a: f32) -> f32 {
    let x = f64::from(a.abs());
    // e^2x; from 20 on the result is 1.
    let e = ex2_f64(if x > 20.0 { 20.0 } else { x } * (2.0 * std::f64::consts::LOG2_E));
    let square = x * x;
    let series = x * (1.0 - square * (1.0 / 3.0 - square * (2.0 / 15.0)));
    // Below 2⁻⁷ the difference from 1 loses bits; there the series is accurate enough.
    let result = if x < 0.0078125 { series } else { (e - 1.0) / (e + 1.0) };
    let result = if a.is_nan() { f64::NAN } else { result };
    (result as f32).copysign(a)
}

/// The largest argument for the vectorised range reduction.
const REDUCIBLE: f32 = 1048576.0;

/// Subnormal arguments are flushed, with `.ftz` or without.
fn circular(frame: &mut Frame, cosine: bool) {
    let huge = frame.test1(|a: f32| a.abs() > REDUCIBLE && a.is_finite());
    if huge & frame.mask != 0 {
        let exact = |a: f32| if cosine { libm::cos(f64::from(a)) } else { libm::sin(f64::from(a)) } as f32;
        return frame.map1(|a: f32| if a.abs() > REDUCIBLE { exact(a) } else { sine(flush(a), cosine) });
    }
    frame.map1(|a| sine(flush(a), cosine));
}

/// The sine, or the cosine, which is the sine of the angle plus π/2.
#[inline(always)]
fn sine(a: f32, cosine: bool) -> f32 {
    // π/2 in three parts; the first two have 33 bits, so that their products with a quadrant below 2²⁰ are exact.
    const QUARTER: [f64; 3] = [1.5707963267341256, 6.077100506303966e-11, 2.0222662487959506e-21];
    const SINE: [f64; 7] = [
        1.0,
        -0.16666666666666666,
        0.008333333333333333,
        -0.0001984126984126984,
        2.7557319223985893e-06,
        -2.505210838544172e-08,
        1.6059043836821613e-10,
    ];
    const COSINE: [f64; 8] = [
        1.0,
        -0.5,
        0.041666666666666664,
        -0.001388888888888889,
        2.48015873015873e-05,
        -2.755731922398589e-07,
        2.08767569878681e-09,
        -1.1470745597729725e-11,
    ];
    let x = f64::from(a);
    let shifted = x * std::f64::consts::FRAC_2_PI + INTEGER_BITS;
    let turns = shifted - INTEGER_BITS;
    let r = x - turns * QUARTER[0] - turns * QUARTER[1] - turns * QUARTER[2];
    let quadrant = shifted.to_bits().wrapping_add(cosine as u64);
    let square = r * r;
    let value = if quadrant & 1 == 0 { r * polynomial(square, SINE) } else { polynomial(square, COSINE) };
    let value = if quadrant & 2 == 0 { value } else { -value };
    value as f32
}
