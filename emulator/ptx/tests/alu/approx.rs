//! Approximate functions: PTX's tables of special values, and the distance from exact results.

use ptx_emulator::alu::Kind;

use crate::harness::{Instruction, Random, check};

/// The distance of `got` from the exact result, in units in the last place of an f32.
fn ulps(got: f32, exact: f64) -> f64 {
    if f64::from(got) == exact || got.is_infinite() && exact.abs() > f64::from(f32::MAX) {
        return 0.0;
    }
    let ulp = 2f64.powi((exact.abs().log2().floor() as i32).max(-126) - 23);
    (f64::from(got) - exact).abs() / ulp
}

/// Compares random arguments from a range, uniform or of all magnitudes, with an exact function.
fn accuracy(text: &str, range: (f64, f64), bound: f64, exact: fn(f64) -> f64) {
    let instruction = Instruction::new(text);
    let mut random = Random(11);
    let rows: Vec<Vec<u64>> = (0..50_000)
        .map(|_| {
            let unit = random.next() as f64 / 2f64.powi(64);
            let value = range.0 + (range.1 - range.0) * unit;
            let value = if random.value(Kind::Pred) == 0 { value } else { value * unit.powi(12) };
            vec![u64::from((value as f32).to_bits())]
        })
        .collect();
    for (row, got) in rows.iter().zip(instruction.run(&rows)) {
        let argument = f32::from_bits(row[0] as u32);
        let got = f32::from_bits(got[0] as u32);
        let error = ulps(got, exact(f64::from(argument)));
        assert!(error <= bound, "{text} of {argument:e}: {got:e} is {error} ulp off");
    }
}

/// The sine, with subnormal arguments flushed, which the instruction also does without `.ftz`.
fn flushed_sin(x: f64) -> f64 {
    if x.abs() < f64::from(f32::MIN_POSITIVE) { 0.0 } else { x.sin() }
}

#[test]
fn distances_from_exact_results() {
    accuracy("ex2.approx.f32 r, a", (-150.0, 127.9), 0.51, f64::exp2);
    accuracy("lg2.approx.f32 r, a", (0.0, 1e6), 0.51, f64::log2);
    accuracy("lg2.approx.f32 r, a", (0.9, 1.1), 0.51, f64::log2);
    accuracy("sin.approx.f32 r, a", (-1e6, 1e6), 0.51, flushed_sin);
    accuracy("cos.approx.f32 r, a", (-1e6, 1e6), 0.51, f64::cos);
    accuracy("sin.approx.f32 r, a", (-1e30, 1e30), 0.51, flushed_sin);
    accuracy("cos.approx.f32 r, a", (-7.0, 7.0), 0.51, f64::cos);
    accuracy("tanh.approx.f32 r, a", (-12.0, 12.0), 0.51, f64::tanh);
    accuracy("tanh.approx.f32 r, a", (-0.02, 0.02), 0.51, f64::tanh);
    accuracy("rcp.approx.f32 r, a", (-1e10, 1e10), 0.5, |x| 1.0 / x);
    accuracy("rsqrt.approx.f32 r, a", (0.0, 1e10), 0.51, |x| 1.0 / x.sqrt());
    accuracy("sqrt.approx.f32 r, a", (0.0, 1e10), 0.5, f64::sqrt);
}

const NAN: u64 = 0x7fff_ffff;
const INFINITY: u64 = 0x7f80_0000;
const MINUS: u64 = 0x8000_0000;
const ONE: u64 = 0x3f80_0000;

/// -infinity, -subnormal, -0, +0, +subnormal, +infinity, NaN, with and without flushing.
fn specials(function: &str, plain: [u64; 7], flushed: [u64; 7]) {
    let arguments = [INFINITY | MINUS, MINUS | 0x0020_0000, MINUS, 0, 0x0020_0000, INFINITY, 0xff80_0001];
    for (flag, results) in [("", plain), (".ftz", flushed)] {
        for (argument, result) in arguments.into_iter().zip(results) {
            check(&format!("{function}.approx{flag}.f32 r, a"), &[&[argument, result]]);
        }
    }
}

#[test]
fn special_values() {
    let minus_infinity = INFINITY | MINUS;
    // 2⁻¹²⁸ is 0x00200000.
    specials(
        "rcp",
        [MINUS, minus_infinity, minus_infinity, INFINITY, INFINITY, 0, NAN],
        [MINUS, minus_infinity, minus_infinity, INFINITY, INFINITY, 0, NAN],
    );
    specials("sqrt", [NAN, NAN, MINUS, 0, 0x1f80_0000, INFINITY, NAN], [NAN, MINUS, MINUS, 0, 0, INFINITY, NAN]);
    specials(
        "rsqrt",
        [NAN, NAN, minus_infinity, INFINITY, 0x5f80_0000, 0, NAN],
        [NAN, minus_infinity, minus_infinity, INFINITY, INFINITY, 0, NAN],
    );
    specials(
        "lg2",
        [NAN, NAN, minus_infinity, minus_infinity, 0xc300_0000, INFINITY, NAN],
        [NAN, minus_infinity, minus_infinity, minus_infinity, minus_infinity, INFINITY, NAN],
    );
    specials("ex2", [0, ONE, ONE, ONE, ONE, INFINITY, NAN], [0, ONE, ONE, ONE, ONE, INFINITY, NAN]);
    specials("cos", [NAN, ONE, ONE, ONE, ONE, NAN, NAN], [NAN, ONE, ONE, ONE, ONE, NAN, NAN]);
    specials("sin", [NAN, MINUS, MINUS, 0, 0, NAN, NAN], [NAN, MINUS, MINUS, 0, 0, NAN, NAN]);
    check(
        "tanh.approx.f32 r, a",
        &[
            &[minus_infinity, ONE | MINUS],
            &[INFINITY, ONE],
            &[MINUS, MINUS],
            &[0, 0],
            &[1, 1],
            &[0x8000_0001, 0x8000_0001],
            &[0xff80_0001, NAN],
            &[0x4200_0000, ONE],
        ],
    );
    check(
        "ex2.approx.f32 r, a",
        &[
            &[0x4300_0000, INFINITY],
            &[0xc315_0000, 1],
            &[0xc300_0000, 0x0020_0000],
            &[0xc317_0000, 0],
            &[0x3f80_0000, 0x4000_0000],
            &[0xbf80_0000, 0x3f00_0000],
            &[0x7f7f_ffff, INFINITY],
            &[0xff7f_ffff, 0],
        ],
    );
    check("ex2.approx.ftz.f32 r, a", &[&[0xc300_0000, 0], &[0xc2fc_0000, 0x0080_0000]]);
    check("lg2.approx.f32 r, a", &[&[ONE, 0], &[0x4000_0000, ONE], &[1, 0xc315_0000], &[0x7f7f_ffff, 0x4300_0000]]);
    check("rcp.approx.ftz.f32 r, a", &[&[0x7f00_0000, 0], &[0x4000_0000, 0x3f00_0000]]);
    check("rcp.approx.f32 r, a", &[&[0x7f00_0000, 0x0040_0000]]);
}

#[test]
fn division() {
    check(
        "div.approx.f32 r, a, b",
        &[
            &[ONE, 0x4040_0000, 0x3eaa_aaab],
            // For a divisor above 2¹²⁶ the result is zero, or NaN if the dividend is infinite.
            &[ONE, 0x7e80_0000, 0x0080_0000],
            &[ONE, 0x7e80_0001, 0],
            &[ONE | MINUS, 0x7f00_0000, MINUS],
            &[INFINITY, 0x7f00_0000, NAN],
            &[INFINITY, 0x7e80_0000, INFINITY],
            &[ONE, 0, INFINITY],
            &[0, 0, NAN],
            &[ONE, INFINITY, 0],
            &[INFINITY, INFINITY, NAN],
        ],
    );
    check("div.approx.ftz.f32 r, a, b", &[&[ONE, 1, INFINITY], &[1, ONE, 0]]);
    check("div.full.f32 r, a, b", &[&[ONE, 0x7f00_0000, 0x0040_0000], &[0x7f00_0000, 0x7f00_0000, ONE]]);
    check("div.full.ftz.f32 r, a, b", &[&[ONE, 0x7f00_0000, 0]]);
}

#[test]
fn of_doubles() {
    let half = |bits: u64| bits << 48;
    check("rsqrt.approx.f64 r, a", &[&[half(0x4010), half(0x3fe0)], &[0, half(0x7ff0)], &[half(0xbff0), half(0xfff8)]]);
    // The lower half of the argument is ignored, and that of the result is zero.
    check(
        "rcp.approx.ftz.f64 r, a",
        &[
            &[half(0x4008), 0x3fd5_5555 << 32],
            &[half(0x4008) | 0xffff_ffff, 0x3fd5_5555 << 32],
            &[1, half(0x7ff0)],
            &[1 << 63 | 1 << 40, half(0xfff0)],
            &[half(0x7fe0), 0],
            &[half(0x7ff0), 0],
            &[half(0x7ff8) | 1, half(0xfff8)],
        ],
    );
    check(
        "rsqrt.approx.ftz.f64 r, a",
        &[&[half(0x4010), half(0x3fe0)], &[1 << 63, half(0xfff0)], &[half(0xbff0), half(0xfff8)], &[half(0x7ff0), 0]],
    );
}

#[test]
fn of_halves() {
    check(
        "ex2.approx.f16 r, a",
        &[&[0x3c00, 0x4000], &[0xbc00, 0x3800], &[0x4c00, 0x7c00], &[0xfc00, 0], &[0x7e00, 0x7fff], &[0xce00, 0x0001]],
    );
    check("ex2.approx.f16x2 r, a", &[&[0x3c00_bc00, 0x4000_3800]]);
    check("ex2.approx.ftz.bf16 r, a", &[&[0x3f80, 0x4000], &[0xc300, 0], &[0x0001, 0x3f80]]);
    check("ex2.approx.ftz.bf16x2 r, a", &[&[0x3f80_bf80, 0x4000_3f00]]);
    check(
        "tanh.approx.f16 r, a",
        &[&[0x7c00, 0x3c00], &[0xfc00, 0xbc00], &[0x3c00, 0x3a18], &[0x8001, 0x8001], &[0x7e00, 0x7fff]],
    );
    check("tanh.approx.bf16 r, a", &[&[0x3f80, 0x3f43], &[0x8000, 0x8000]]);
    check("tanh.approx.f16x2 r, a", &[&[0x3c00_fc00, 0x3a18_bc00]]);
    check("tanh.approx.bf16x2 r, a", &[&[0x3f80_bf80, 0x3f43_bf43]]);
}
