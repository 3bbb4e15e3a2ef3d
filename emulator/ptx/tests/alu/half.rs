//! f16 and bf16 arithmetic: every result is the exact result, rounded once.

use rustc_apfloat::Round;
use rustc_apfloat::ieee::{BFloat, Half};

use crate::harness::{against, check};
use crate::reference::{Reference, flush, read, saturate, write};

const NEAREST: Round = Round::NearestTiesToEven;

fn operation<F: Reference>(name: &str, v: &[F]) -> F {
    match name {
        "add" => v[0].add_r(v[1], NEAREST).value,
        "sub" => v[0].sub_r(v[1], NEAREST).value,
        "mul" => v[0].mul_r(v[1], NEAREST).value,
        _ => v[0].mul_add_r(v[1], v[2], NEAREST).value,
    }
}

/// Negative numbers become +0.
fn relu<F: Reference>(value: F) -> F {
    if !value.is_nan() && (value.is_negative() || value.is_zero()) { F::ZERO } else { value }
}

fn with_flags<F: Reference>(name: &str, flags: &str, row: &[u64]) -> u64 {
    let ftz = flags.contains("ftz");
    let values: Vec<F> = row.iter().map(|&bits| if ftz { flush(read(bits)) } else { read(bits) }).collect();
    let result = operation(name, &values);
    let result = if flags.contains("sat") { saturate(result) } else { result };
    let result = if flags.contains("relu") { relu(result) } else { result };
    write(if ftz { flush(result) } else { result })
}

/// Single and packed forms, the packed ones with different values in their halves.
fn both_forms<F: Reference>(ty: &str, name: &str, flags: &str) {
    let operands = if name == "fma" { "r, a, b, c" } else { "r, a, b" };
    against(&format!("{name}{flags}.{ty} {operands}"), |row| with_flags::<F>(name, flags, row));
    against(&format!("{name}{flags}.{ty}x2 {operands}"), |row| {
        let half = |shift: u32| {
            let values: Vec<u64> = row.iter().map(|&bits| bits >> shift & 0xffff).collect();
            with_flags::<F>(name, flags, &values)
        };
        half(16) << 16 | half(0)
    });
}

#[test]
fn arithmetic() {
    for name in ["add", "sub", "mul"] {
        for flags in ["", ".rn", ".ftz", ".sat", ".rn.ftz.sat"] {
            both_forms::<Half>("f16", name, flags);
        }
        for flags in ["", ".rn"] {
            both_forms::<BFloat>("bf16", name, flags);
        }
    }
    for flags in [".rn", ".rn.ftz", ".rn.sat", ".rn.ftz.sat", ".rn.relu", ".rn.ftz.relu"] {
        both_forms::<Half>("f16", "fma", flags);
    }
    for flags in [".rn", ".rn.relu"] {
        both_forms::<BFloat>("bf16", "fma", flags);
    }
}

#[test]
fn every_f16_sum_and_product_with_awkward_partners() {
    for partner in [0x0001, 0x03ff, 0x0400, 0x3c00, 0x3c01, 0x8001, 0x7bff, 0xfbff, 0x5640, 0x1401] {
        for name in ["add", "mul"] {
            let instruction = crate::harness::Instruction::new(&format!("{name}.f16 r, a, b"));
            let rows: Vec<Vec<u64>> = (0..=0xffff).map(|bits| vec![bits, partner]).collect();
            for (row, got) in rows.iter().zip(instruction.run(&rows)) {
                let expected = with_flags::<Half>(name, "", row);
                assert_eq!(got[0], expected, "{name}.f16 of {:#x} {partner:#x}", row[0]);
            }
        }
    }
}

#[test]
fn fused_results_are_rounded_once() {
    // 1 + 2⁻¹⁰ squared is 1 + 2⁻⁹ + 2⁻²⁰: a tie broken by the last bit, and by the addend alone.
    check(
        "fma.rn.f16 r, a, b, c",
        &[
            &[0x3c01, 0x3c01, 0, 0x3c02],
            &[0x3c00, 0x3c00, 0x1000, 0x3c00],
            &[0x3c01, 0x3c00, 0x1000, 0x3c02],
            &[0x3c01, 0x3c00, 0x0fff, 0x3c01],
            &[0x3c00, 0x3c00, 0x1001, 0x3c01],
            &[0x7bff, 0x4000, 0xfbff, 0x7bff],
            &[0x0001, 0x0001, 0x3c00, 0x3c00],
            &[0x3800, 0x0003, 0x0000, 0x0002],
        ],
    );
    // bf16: the product of the largest numbers overflows f32, and the addend brings it back only in exact arithmetic.
    check(
        "fma.rn.bf16 r, a, b, c",
        &[
            &[0x7f7f, 0x4000, 0xff7f, 0x7f7f],
            &[0x3f81, 0x3f81, 0xbf82, 0x3880],
            &[0x0001, 0x3f00, 0x0000, 0x0000],
            &[0x0003, 0x3f00, 0x0000, 0x0002],
            &[0x0001, 0x0001, 0x3f80, 0x3f80],
            // Adding half of the smallest subnormal gives a tie.
            &[0x0080, 0x3b80, 0x0001, 0x0002],
            &[0x0001, 0x3f80, 0x8001, 0x0000],
        ],
    );
}

#[test]
fn minimum_and_maximum() {
    check(
        "min.f16 r, a, b",
        &[
            &[0x7e00, 0x3c00, 0x3c00],
            &[0x3c00, 0xfe01, 0x3c00],
            &[0x7e00, 0xfe00, 0x7fff],
            &[0x0000, 0x8000, 0x8000],
            &[0xbc00, 0x3c00, 0xbc00],
            &[0x0001, 0x0002, 0x0001],
        ],
    );
    check("max.NaN.f16 r, a, b", &[&[0x7e00, 0x3c00, 0x7fff], &[0x3c00, 0x4000, 0x4000]]);
    check("max.ftz.f16 r, a, b", &[&[0x0001, 0x8002, 0x0000], &[0x8001, 0x8002, 0x8000]]);
    check("max.xorsign.abs.f16 r, a, b", &[&[0x3c00, 0xc000, 0xc000], &[0xbc00, 0xc000, 0x4000]]);
    check("max.bf16 r, a, b", &[&[0x8000, 0x0000, 0x0000], &[0x7fc0, 0xbf80, 0xbf80], &[0x0001, 0x0002, 0x0002]]);
    check("min.NaN.xorsign.abs.bf16 r, a, b", &[&[0x3f80, 0xc000, 0xbf80], &[0x7fc0, 0xc000, 0x7fff]]);
    check("min.f16x2 r, a, b", &[&[0x7e00_3c00, 0x3c00_4000, 0x3c00_3c00], &[0x0000_8000, 0x8000_0000, 0x8000_8000]]);
    check("max.bf16x2 r, a, b", &[&[0x3f80_bf80, 0x4000_7fc0, 0x4000_bf80]]);
    check("max.NaN.bf16x2 r, a, b", &[&[0x3f80_bf80, 0x4000_7fc0, 0x4000_7fff]]);
}

#[test]
fn signs() {
    check("abs.f16 r, a", &[&[0x8001, 0x0001], &[0xfe01, 0x7e01], &[0xbc00, 0x3c00]]);
    check("neg.f16 r, a", &[&[0x0000, 0x8000], &[0x3c00, 0xbc00]]);
    check("neg.ftz.f16 r, a", &[&[0x0001, 0x8000]]);
    check("abs.ftz.f16x2 r, a", &[&[0x8001_bc00, 0x0000_3c00]]);
    check("neg.f16x2 r, a", &[&[0x3c00_8000, 0xbc00_0000]]);
    check("abs.bf16 r, a", &[&[0xbf80, 0x3f80]]);
    check("neg.bf16x2 r, a", &[&[0x0001_bf80, 0x8001_3f80]]);
    check("abs.bf16x2 r, a", &[&[0x8001_bf80, 0x0001_3f80]]);
}
