//! cvt: every pair of types, against i128 and software floating point.

use rustc_apfloat::ieee::{BFloat, Double, Float8E4M3FN, Float8E5M2, Half, Quad, Single};
use rustc_apfloat::{Float, FloatConvert, Round};

use crate::harness::{Instruction, against, check, check_instruction};
use crate::reference::{ROUNDINGS, Reference, flush, quad, read, saturate, write};

const INTEGERS: [&str; 8] = ["u8", "s8", "u16", "s16", "u32", "s32", "u64", "s64"];
const FLOATS: [&str; 4] = ["f16", "bf16", "f32", "f64"];
const TO_INTEGER: [(&str, Round); 4] = [
    ("rni", Round::NearestTiesToEven),
    ("rzi", Round::TowardZero),
    ("rmi", Round::TowardNegative),
    ("rpi", Round::TowardPositive),
];

fn width(ty: &str) -> u32 {
    ty[1..].parse().expect("a width")
}

fn read_int(bits: u64, ty: &str) -> i128 {
    let width = width(ty);
    let value = i128::from(bits) & ((1 << width) - 1);
    if ty.starts_with('s') && value >> (width - 1) != 0 { value - (1 << width) } else { value }
}

/// The bits of an integer in a register of 16 bits or more: signed 8-bit values are extended to 16 bits.
fn write_int(value: i128, ty: &str) -> u64 {
    (value & ((1 << width(ty).max(16)) - 1)) as u64
}

fn bounds(ty: &str) -> (i128, i128) {
    let width = width(ty);
    if ty.starts_with('s') { (-(1 << (width - 1)), (1 << (width - 1)) - 1) } else { (0, (1 << width) - 1) }
}

/// A number of any type as a quad, which is exact.
fn read_float(bits: u64, ty: &str, ftz: bool) -> Quad {
    match ty {
        "f16" => quad(read::<Half>(bits)),
        "bf16" => quad(read::<BFloat>(bits)),
        "f32" if ftz => quad(flush(read::<Single>(bits))),
        "f32" => quad(read::<Single>(bits)),
        _ => quad(read::<Double>(bits)),
    }
}

fn write_float(value: Quad, ty: &str, round: Round, ftz: bool, sat: bool) -> u64 {
    fn narrow<F: Reference>(value: Quad, round: Round, ftz: bool, sat: bool) -> u64
    where
        Quad: FloatConvert<F>,
    {
        let result: F = value.convert_r(round, &mut false).value;
        let result = if ftz { flush(result) } else { result };
        write(if sat { saturate(result) } else { result })
    }
    match ty {
        "f16" => narrow::<Half>(value, round, false, sat),
        "bf16" => narrow::<BFloat>(value, round, false, sat),
        "f32" => narrow::<Single>(value, round, ftz, sat),
        _ => narrow::<Double>(value, round, false, sat),
    }
}

#[test]
fn between_integers() {
    for from in INTEGERS {
        for to in INTEGERS {
            against(&format!("cvt.{to}.{from} r, a"), |row| {
                let cut = read_int(read_int(row[0], from) as u64, to);
                write_int(cut, to)
            });
            let (least, greatest) = bounds(to);
            against(&format!("cvt.sat.{to}.{from} r, a"), |row| {
                write_int(read_int(row[0], from).clamp(least, greatest), to)
            });
        }
    }
}

#[test]
fn to_integers() {
    for from in FLOATS {
        for to in INTEGERS {
            if from == "bf16" && width(to) == 8 {
                continue;
            }
            for (mode, round) in TO_INTEGER {
                for ftz in [false, true] {
                    if ftz && from != "f32" {
                        continue;
                    }
                    let flag = if ftz { ".ftz" } else { "" };
                    against(&format!("cvt.{mode}{flag}.{to}.{from} r, a"), |row| {
                        let value = read_float(row[0], from, ftz);
                        let (least, greatest) = bounds(to);
                        if value.is_nan() {
                            let zero = from != "f64" && width(to) != 64;
                            return if zero { 0 } else { write_int(read_int(1 << (width(to) - 1), to), to) };
                        }
                        let integer = value.to_i128_r(128, round, &mut false).value;
                        write_int(integer.clamp(least, greatest), to)
                    });
                }
            }
        }
    }
    check(
        "cvt.rni.s32.f32 r, a",
        &[
            &[0x3f00_0000, 0],
            &[0x3fc0_0000, 2],
            &[0x4020_0000, 2],
            &[0xbfc0_0000, 0xffff_fffe],
            &[0x4f00_0000, 0x7fff_ffff],
            &[0x4eff_ffff, 0x7fff_ff80],
            &[0xcf00_0000, 0x8000_0000],
            &[0xff80_0000, 0x8000_0000],
            &[0x7fc0_0000, 0],
        ],
    );
    check(
        "cvt.rzi.u32.f32 r, a",
        &[
            &[0xbf80_0000, 0],
            &[0x4f7f_ffff, 0xffff_ff00],
            &[0x4f80_0000, 0xffff_ffff],
            &[0x7f80_0000, 0xffff_ffff],
            &[0xffc0_0000, 0],
        ],
    );
    check("cvt.rzi.s64.f32 r, a", &[&[0x7fc0_0000, 1 << 63], &[0x5f00_0000, u64::MAX >> 1]]);
    check("cvt.rzi.s32.f64 r, a", &[&[0x7ff8 << 48, 0x8000_0000], &[0x41df_ffff_ffff_ffff, 0x7fff_ffff]]);
    check("cvt.rpi.s32.f32 r, a", &[&[1, 1], &[0x8000_0001, 0]]);
    check("cvt.rpi.ftz.s32.f32 r, a", &[&[1, 0]]);
    check("cvt.rni.sat.s8.f32 r, a", &[&[0x4348_0000, 0x7f], &[0xc348_0000, 0xff80]]);
}

#[test]
fn from_integers() {
    for from in INTEGERS {
        for to in FLOATS {
            if to == "bf16" && width(from) == 8 {
                continue;
            }
            for (mode, round) in ROUNDINGS {
                let exact = |row: &[u64]| Quad::from_i128(read_int(row[0], from)).value;
                against(&format!("cvt.{mode}.{to}.{from} r, a"), |row| {
                    write_float(exact(row), to, round, false, false)
                });
                if to != "bf16" {
                    against(&format!("cvt.{mode}.sat.{to}.{from} r, a"), |row| {
                        write_float(exact(row), to, round, false, true)
                    });
                }
            }
        }
    }
    check("cvt.rn.f32.u64 r, a", &[&[0xffff_ff7f_ffff_ffff, 0x5f7f_ffff], &[0xffff_ff80_0000_0000, 0x5f80_0000]]);
    check("cvt.rz.f32.s64 r, a", &[&[0x8000_0000_0000_0001, 0xdeff_ffff], &[u64::MAX >> 1, 0x5eff_ffff]]);
    check("cvt.rn.f16.s32 r, a", &[&[65519, 0x7bff], &[65520, 0x7c00], &[2049, 0x6800], &[2051, 0x6802]]);
}

#[test]
fn between_floats() {
    let bits = |ty: &str| match ty {
        "f16" => 11,
        "bf16" => 8,
        "f32" => 24,
        _ => 53,
    };
    for from in FLOATS {
        for to in FLOATS {
            let widens = from == to || bits(from) < bits(to) && !(from == "bf16" && to == "f16");
            for ftz in [false, true] {
                for sat in [false, true] {
                    if ftz && from != "f32" && to != "f32" || sat && (from == "bf16" || to == "bf16") {
                        continue;
                    }
                    let flags = format!("{}{}", if ftz { ".ftz" } else { "" }, if sat { ".sat" } else { "" });
                    let of = |row: &[u64], round| write_float(read_float(row[0], from, ftz), to, round, ftz, sat);
                    if widens {
                        against(&format!("cvt{flags}.{to}.{from} r, a"), |row| of(row, Round::NearestTiesToEven));
                    }
                    for (mode, round) in ROUNDINGS {
                        if !widens {
                            against(&format!("cvt.{mode}{flags}.{to}.{from} r, a"), |row| of(row, round));
                        }
                    }
                    for (mode, round) in TO_INTEGER {
                        if from == to {
                            against(&format!("cvt.{mode}{flags}.{to}.{from} r, a"), |row| {
                                let value = read_float(row[0], from, ftz).round_to_integral(round).value;
                                write_float(value, to, Round::TowardZero, ftz, sat)
                            });
                        }
                    }
                }
            }
        }
    }
    against("cvt.bf16.f16 r, a", |row| {
        write_float(read_float(row[0], "f16", false), "bf16", Round::NearestTiesToEven, false, false)
    });
    against("cvt.rz.f32.bf16 r, a", |row| {
        write_float(read_float(row[0], "bf16", false), "f32", Round::TowardZero, false, false)
    });
    check("cvt.rzi.f32.f32 r, a", &[&[0xbf00_0000, 0x8000_0000], &[0x3fff_ffff, 0x3f80_0000]]);
    check("cvt.f32.f32 r, a", &[&[0xff80_1234, 0x7fff_ffff], &[1, 1]]);
    check(
        "cvt.rn.bf16.f32 r, a",
        &[
            &[0x3f80_8000, 0x3f80],
            &[0x3f81_8000, 0x3f82],
            &[0x3f80_8001, 0x3f81],
            &[0x7f7f_8000, 0x7f80],
            &[0x7f80_0001, 0x7fff],
            &[0x0000_8001, 0x0001],
            &[0xffff_ffff, 0x7fff],
        ],
    );
}

#[test]
fn every_f16_and_bf16_number_survives() {
    for ty in ["f16", "bf16"] {
        let widen = Instruction::new(&format!("cvt.f32.{ty} r, a"));
        let narrow = Instruction::new(&format!("cvt.rn.{ty}.f32 r, a"));
        let rows: Vec<Vec<u64>> = (0..=0xffff).map(|bits| vec![bits]).collect();
        let singles = widen.run(&rows);
        let exponent = if ty == "f16" { 0x7c00 } else { 0x7f80 };
        for (row, (single, back)) in rows.iter().zip(singles.iter().zip(narrow.run(&singles))) {
            let nan = row[0] & 0x7fff > exponent;
            assert_eq!(back[0], if nan { 0x7fff } else { row[0] }, "{ty} {:#x} by way of {:#x}", row[0], single[0]);
        }
    }
}

/// Negative numbers become +0.
fn relu(value: Quad) -> Quad {
    if !value.is_nan() && value.is_negative() { Quad::ZERO } else { value }
}

/// The f32 `bits` as a narrower type, with `.relu` and `.satfinite` if `flags` has them.
fn clamped(bits: u64, ty: &str, round: Round, flags: &str, largest: u64) -> u64 {
    let value = read_float(bits, "f32", false);
    let value = if flags.contains("relu") { relu(value) } else { value };
    let result = write_float(value, ty, round, false, false);
    let infinite = result & 0x7fff == largest + 1;
    if flags.contains("satfinite") && infinite { result & 0x8000 | largest } else { result }
}

#[test]
fn packed_halves_and_clamping() {
    for (ty, largest) in [("f16", 0x7bff), ("bf16", 0x7f7f)] {
        for (mode, round) in &ROUNDINGS[..2] {
            for flags in ["", ".relu", ".satfinite", ".relu.satfinite", ".satfinite.relu"] {
                let one = |bits: u64| clamped(bits, ty, *round, flags, largest);
                against(&format!("cvt.{mode}{flags}.{ty}.f32 r, a"), |row| one(row[0]));
                against(&format!("cvt.{mode}{flags}.{ty}x2.f32 r, a, b"), |row| one(row[0]) << 16 | one(row[1]));
            }
        }
    }
    // The first source becomes the upper half.
    check("cvt.rn.bf16x2.f32 r, a, b", &[&[0x3f80_0000, 0x4000_0000, 0x3f80_4000]]);
    check("cvt.rn.relu.f16x2.f32 r, a, b", &[&[0xbf80_0000, 0x7fc0_0000, 0x0000_7fff], &[0x8000_0000, 0, 0]]);
    check("cvt.rz.satfinite.f16.f32 r, a", &[&[0x7f80_0000, 0x7bff], &[0xff80_0000, 0xfbff], &[0x7fc0_0000, 0x7fff]]);
}

#[test]
fn tf32() {
    check(
        "cvt.rna.tf32.f32 r, a",
        &[
            &[0x3f80_0fff, 0x3f80_0000],
            &[0x3f80_1000, 0x3f80_2000],
            &[0x3f80_1fff, 0x3f80_2000],
            &[0xbf80_1000, 0xbf80_2000],
            &[0x7f7f_ffff, 0x7f80_0000],
            &[0xff80_0000, 0xff80_0000],
            &[0xffff_ffff, 0x7fff_ffff],
            &[0x0000_1000, 0x0000_2000],
        ],
    );
    check(
        "cvt.rn.tf32.f32 r, a",
        &[
            &[0x3f80_1000, 0x3f80_0000],
            &[0x3f80_3000, 0x3f80_4000],
            &[0x3f80_1001, 0x3f80_2000],
            &[0x7f7f_f000, 0x7f80_0000],
        ],
    );
    check(
        "cvt.rz.tf32.f32 r, a",
        &[&[0x3f80_1fff, 0x3f80_0000], &[0x7f7f_ffff, 0x7f7f_e000], &[0x7f80_0000, 0x7f80_0000]],
    );
    check("cvt.rn.relu.tf32.f32 r, a", &[&[0xbf80_0000, 0], &[0x8000_0000, 0], &[0x7fc0_0000, 0x7fff_ffff]]);
    check("cvt.rna.satfinite.tf32.f32 r, a", &[&[0x7f7f_ffff, 0x7f7f_e000], &[0xff80_0000, 0xff7f_e000]]);
}

/// To an 8-bit format: a number that overflows becomes the largest number, a NaN 0x7f.
fn to_fp8(value: Quad, ty: &str, positive: bool) -> u64 {
    let value = if positive { relu(value) } else { value };
    let round = Round::NearestTiesToEven;
    let (bits, largest) = match ty {
        "e4m3" => {
            let narrow: Float8E4M3FN = value.convert_r(round, &mut false).value;
            (narrow.to_bits() as u64, 0x7e)
        }
        _ => {
            let narrow: Float8E5M2 = value.convert_r(round, &mut false).value;
            (narrow.to_bits() as u64, 0x7b)
        }
    };
    match () {
        () if value.is_nan() => 0x7f,
        () if bits & 0x7f > largest => bits & 0x80 | largest,
        () => bits,
    }
}

#[test]
fn eight_bit_floats() {
    for ty in ["e4m3", "e5m2"] {
        for flags in [".satfinite", ".satfinite.relu", ".relu.satfinite"] {
            let positive = flags.contains("relu");
            against(&format!("cvt.rn{flags}.{ty}x2.f32 r, a, b"), |row| {
                let one = |bits| to_fp8(read_float(bits, "f32", false), ty, positive);
                one(row[0]) << 8 | one(row[1])
            });
            against(&format!("cvt.rn{flags}.{ty}x2.f16x2 r, a"), |row| {
                let one = |bits| to_fp8(read_float(bits, "f16", false), ty, positive);
                one(row[0] >> 16) << 8 | one(row[0] & 0xffff)
            });
        }
        for flags in ["", ".relu"] {
            let widen = Instruction::new(&format!("cvt.rn{flags}.f16x2.{ty}x2 r, a"));
            let rows: Vec<Vec<u64>> = (0..=0xffff).map(|bits| vec![bits]).collect();
            for (row, got) in rows.iter().zip(widen.run(&rows)) {
                let one = |bits: u64| {
                    let value: Quad = if ty == "e4m3" {
                        Float8E4M3FN::from_bits(u128::from(bits & 0xff)).convert(&mut false).value
                    } else {
                        Float8E5M2::from_bits(u128::from(bits & 0xff)).convert(&mut false).value
                    };
                    let value = if flags == ".relu" { relu(value) } else { value };
                    write_float(value, "f16", Round::NearestTiesToEven, false, false)
                };
                assert_eq!(got[0], one(row[0] >> 8) << 16 | one(row[0]), "{ty} {:#x}", row[0]);
            }
        }
    }
    check(
        "cvt.rn.satfinite.e4m3x2.f32 r, a, b",
        &[
            &[0x43e0_0000, 0x43e8_0001, 0x7e7e],
            &[0x7f80_0000, 0x7fc0_0000, 0x7e7f],
            &[0xff80_0000, 0x3f80_0000, 0xfe38],
            &[0x3b00_0000, 0x3a80_0000, 0x0100],
        ],
    );
}

#[test]
fn packing_with_saturation() {
    for (ty, bits) in [("u16", 16), ("s16", 16), ("u8", 8), ("s8", 8), ("u4", 4), ("s4", 4), ("u2", 2), ("s2", 2)] {
        let (least, greatest) = bounds(ty);
        let one = |word: u64| (read_int(word, "s32").clamp(least, greatest) & ((1 << bits) - 1)) as u64;
        if bits == 16 {
            against(&format!("cvt.pack.sat.{ty}.s32 r, a, b"), |row| one(row[0]) << bits | one(row[1]));
        } else {
            against(&format!("cvt.pack.sat.{ty}.s32.b32 r, a, b, c"), |row| {
                (row[2] << (2 * bits) | one(row[0]) << bits | one(row[1])) & 0xffff_ffff
            });
        }
    }
}

/// PTX extends a signed result to the whole register if that is wider than the type.
#[test]
fn results_narrower_than_their_register() {
    let wide = |text| Instruction::new(text).with_result_width(32);
    check_instruction(&wide("cvt.s8.s32 r, a"), &[&[0x1ff, 0xffff_ffff], &[0x17f, 0x7f]]);
    check_instruction(&wide("cvt.s16.s32 r, a"), &[&[0x1_8000, 0xffff_8000]]);
    check_instruction(&wide("cvt.u8.s32 r, a"), &[&[0x1ff, 0xff]]);
    check_instruction(&wide("cvt.rni.sat.s8.f32 r, a"), &[&[0xc348_0000, 0xffff_ff80], &[0x4348_0000, 0x7f]]);
    check_instruction(&wide("cvt.sat.s8.s32 r, a"), &[&[0xffff_0000, 0xffff_ff80]]);
    check("cvt.s8.s32 r, a", &[&[0x1ff, 0xffff]]);
}
