//! f32 and f64 arithmetic.

use rustc_apfloat::ieee::{Double, Single};
use rustc_apfloat::{Float, Round};

use crate::harness::{Instruction, Random, against, check, hex};
use crate::reference::{ROUNDINGS, Reference, flush, is_root, read, saturate, write};
use ptx_emulator::alu::Kind;

fn fma<F: Reference>(v: &[F], round: Round) -> F {
    v[0].mul_add_r(v[1], v[2], round).value
}

type Operation<F> = (&'static str, &'static str, fn(&[F], Round) -> F);

fn operations<F: Reference>() -> [Operation<F>; 5] {
    [
        ("add", "r, a, b", |v, round| v[0].add_r(v[1], round).value),
        ("sub", "r, a, b", |v, round| v[0].sub_r(v[1], round).value),
        ("mul", "r, a, b", |v, round| v[0].mul_r(v[1], round).value),
        ("fma", "r, a, b, c", fma),
        ("div", "r, a, b", |v, round| v[0].div_r(v[1], round).value),
    ]
}

#[test]
fn single_precision_in_every_rounding_mode() {
    for (name, operands, f) in operations::<Single>() {
        for (mode, round) in ROUNDINGS {
            for (flags, ftz, sat) in
                [("", false, false), (".ftz", true, false), (".sat", false, true), (".ftz.sat", true, true)]
            {
                if sat && name == "div" {
                    continue;
                }
                against(&format!("{name}.{mode}{flags}.f32 {operands}"), |row| {
                    let values: Vec<Single> =
                        row.iter().map(|&bits| if ftz { flush(read(bits)) } else { read(bits) }).collect();
                    let result = f(&values, round);
                    let result = if ftz { flush(result) } else { result };
                    write(if sat { saturate(result) } else { result })
                });
            }
        }
    }
    for (mode, round) in ROUNDINGS {
        against(&format!("rcp.{mode}.f32 r, a"), |row| {
            write(Single::from_u128(1).value.div_r(read(row[0]), round).value)
        });
        against(&format!("mad.{mode}.f32 r, a, b, c"), |row| {
            write(read::<Single>(row[0]).mul_add_r(read(row[1]), read(row[2]), round).value)
        });
    }
}

#[test]
fn double_precision_in_every_rounding_mode() {
    for (name, operands, f) in operations::<Double>() {
        for (mode, round) in ROUNDINGS {
            against(&format!("{name}.{mode}.f64 {operands}"), |row| {
                write(f(&row.iter().map(|&bits| read(bits)).collect::<Vec<Double>>(), round))
            });
        }
    }
    for (mode, round) in ROUNDINGS {
        against(&format!("rcp.{mode}.f64 r, a"), |row| {
            write(Double::from_u128(1).value.div_r(read(row[0]), round).value)
        });
    }
}

/// Operands with few set bits, whose sums and products lie at or next to the middle between two numbers.
#[test]
fn fused_sums_near_ties() {
    for (kind, ty) in [(Kind::F32, "f32"), (Kind::F64, "f64")] {
        let (fraction, bias) = if kind == Kind::F32 { (23, 127) } else { (52, 1023) };
        for (mode, round) in ROUNDINGS {
            let instruction = Instruction::new(&format!("fma.{mode}.{ty} r, a, b, c"));
            let mut random = Random(7);
            let mut number = |spread: u64| {
                let ulps = random.next() % 4;
                let exponent = bias - spread / 2 + random.next() % spread;
                let few = 1 << (random.next() % fraction) | ulps;
                (random.next() % 2) << (if kind == Kind::F32 { 31 } else { 63 }) | exponent << fraction | few
            };
            let rows: Vec<Vec<u64>> = (0..4000).map(|_| vec![number(8), number(8), number(4 * fraction)]).collect();
            for (row, got) in rows.iter().zip(instruction.run(&rows)) {
                let expected = if kind == Kind::F32 {
                    write(fma::<Single>(&row.iter().map(|&bits| read(bits)).collect::<Vec<_>>(), round))
                } else {
                    write(fma::<Double>(&row.iter().map(|&bits| read(bits)).collect::<Vec<_>>(), round))
                };
                assert_eq!(hex(&got), hex(&[expected]), "fma.{mode}.{ty} of {}", hex(row));
            }
        }
    }
}

#[test]
fn square_roots() {
    fn roots<F: Reference>(ty: &str, kind: Kind) {
        let mut random = Random(3);
        for (mode, round) in ROUNDINGS {
            let instruction = Instruction::new(&format!("sqrt.{mode}.{ty} r, a"));
            let rows: Vec<Vec<u64>> = (0..4000).map(|_| vec![random.value(kind)]).collect();
            for (row, got) in rows.iter().zip(instruction.run(&rows)) {
                let (square, root) = (read::<F>(row[0]), read::<F>(got[0]));
                if square.is_zero() || square.is_pos_infinity() {
                    assert_eq!(got[0], row[0], "sqrt.{mode}.{ty}: zeros and infinity stay");
                } else if square.is_nan() || square.is_negative() {
                    assert_eq!(got[0], F::NAN_BITS, "sqrt.{mode}.{ty} of {:#x}", row[0]);
                } else {
                    assert!(is_root(square, root, round), "sqrt.{mode}.{ty} of {:#x}: {:#x}", row[0], got[0]);
                }
            }
        }
    }
    roots::<Single>("f32", Kind::F32);
    roots::<Double>("f64", Kind::F64);
    check("sqrt.rn.ftz.f32 r, a", &[&[0x0000_0001, 0], &[0x8000_0001, 0x8000_0000], &[0x4080_0000, 0x4000_0000]]);
}

#[test]
fn zeros_and_canonical_nans() {
    let (nan, infinity, minus) = (0x7fff_ffff, 0x7f80_0000, 0x8000_0000);
    check(
        "add.f32 r, a, b",
        &[
            &[infinity, infinity | minus, nan],
            &[0xffc0_1234, 0x3f80_0000, nan],
            &[minus, minus, minus],
            &[minus, 0, 0],
            &[0x3f80_0000, 0xbf80_0000, 0],
            &[0x7f7f_ffff, 0x7f7f_ffff, infinity],
        ],
    );
    check("add.rm.f32 r, a, b", &[&[0x3f80_0000, 0xbf80_0000, minus], &[0, 0, 0], &[minus, 0, minus]]);
    check("add.rz.f32 r, a, b", &[&[0x7f7f_ffff, 0x7f7f_ffff, 0x7f7f_ffff], &[0x3f80_0000, 0x3300_0000, 0x3f80_0000]]);
    check("add.rp.f32 r, a, b", &[&[0x3f80_0000, 1, 0x3f80_0001], &[0xff7f_ffff, 0xff7f_ffff, 0xff7f_ffff]]);
    check("mul.f32 r, a, b", &[&[0, infinity, nan], &[1, 0x3f00_0000, 0], &[3, 0x3f00_0000, 2]]);
    check(
        "mul.ftz.f32 r, a, b",
        &[&[3, 0x4b80_0000, 0], &[0x8000_0003, 0x4b80_0000, minus], &[0x0080_0000, 0x3f00_0000, 0]],
    );
    check(
        "add.sat.f32 r, a, b",
        &[&[nan, 0, 0], &[0x4000_0000, 0, 0x3f80_0000], &[0xbf80_0000, 0, 0], &[minus, minus, 0]],
    );
    check(
        "fma.rn.f32 r, a, b, c",
        &[
            &[infinity, 0, 0x3f80_0000, nan],
            &[0x3f80_0001, 0x3f80_0001, 0xbf80_0002, 0x2880_0000],
            &[0x7f7f_ffff, 0x4000_0000, 0xff7f_ffff, 0x7f7f_ffff],
        ],
    );
    check("sub.f64 r, a, b", &[&[0x7ff0 << 48, 0x7ff0 << 48, 0xfff8 << 48], &[1 << 63, 0, 1 << 63]]);
    check("div.rn.f32 r, a, b", &[&[0, 0, nan], &[0x3f80_0000, minus, infinity | minus], &[1, 0x4000_0000, 0]]);
    check("rcp.rn.f32 r, a", &[&[0, infinity], &[infinity, 0], &[minus, infinity | minus], &[0xffff_ffff, nan]]);
}

#[test]
fn minimum_and_maximum() {
    let (nan, one, two, minus) = (0x7fff_ffff, 0x3f80_0000, 0x4000_0000, 0x8000_0000);
    check(
        "min.f32 r, a, b",
        &[
            &[0x7f80_0001, one, one],
            &[one, 0xffc0_0000, one],
            &[0x7fc0_0000, 0x7fc0_0001, nan],
            &[0, minus, minus],
            &[minus, 0, minus],
            &[two, one, one],
            &[one | minus, two | minus, two | minus],
            &[1, 2, 1],
        ],
    );
    check(
        "max.f32 r, a, b",
        &[
            &[nan, one, one],
            &[0, minus, 0],
            &[minus, 0, 0],
            &[minus, minus, minus],
            &[two, one, two],
            &[0xff80_0000, 0xff7f_ffff, 0xff7f_ffff],
        ],
    );
    check("max.ftz.f32 r, a, b", &[&[1, 2, 0], &[0x8000_0001, 0x8000_0002, minus], &[1, one, one]]);
    check("min.NaN.f32 r, a, b", &[&[nan, one, nan], &[one, 0x7f80_0001, nan], &[two, one, one]]);
    check(
        "max.xorsign.abs.f32 r, a, b",
        &[&[one, two | minus, two | minus], &[one | minus, two | minus, two], &[one | minus, 0x7fc0_0000, one | minus]],
    );
    check("min.NaN.xorsign.abs.f32 r, a, b", &[&[one | minus, two, one | minus], &[nan, two, nan]]);
    check("min.f32 r, a, b, c", &[&[two, one, two | minus, two | minus], &[nan, nan, one, one], &[nan, nan, nan, nan]]);
    check("max.NaN.abs.f32 r, a, b, c", &[&[one, one, two | minus, two], &[one, one, nan, nan]]);
    check("max.f64 r, a, b", &[&[0, 1 << 63, 0], &[0x7ff8 << 48, 5, 5], &[0x7ff8 << 48, 0x7ff9 << 48, 0xfff8 << 48]]);
    check("min.f64 r, a, b", &[&[0, 1 << 63, 1 << 63], &[0x3ff0 << 48, 0xbff0 << 48, 0xbff0 << 48]]);
}

#[test]
fn signs() {
    check("abs.f32 r, a", &[&[0x8000_0000, 0], &[0xffc1_2345, 0x7fc1_2345], &[0x8000_0001, 1]]);
    check("abs.ftz.f32 r, a", &[&[0x8000_0001, 0], &[0xbf80_0000, 0x3f80_0000]]);
    check("neg.f32 r, a", &[&[0, 0x8000_0000], &[0x3f80_0000, 0xbf80_0000], &[1, 0x8000_0001]]);
    check("neg.ftz.f32 r, a", &[&[1, 0x8000_0000], &[0x8000_0001, 0]]);
    check("abs.f64 r, a", &[&[0xbff0 << 48, 0x3ff0 << 48]]);
    check("neg.f64 r, a", &[&[0x3ff0 << 48, 0xbff0 << 48]]);
    // The sign is that of the first source.
    check(
        "copysign.f32 r, a, b",
        &[&[0x8000_0000, 0x3f80_0000, 0xbf80_0000], &[0x3f80_0000, 0xc000_0000, 0x4000_0000]],
    );
    check("copysign.f64 r, a, b", &[&[1 << 63, 0x3ff0 << 48, 0xbff0 << 48]]);
}

#[test]
fn properties() {
    // zero, subnormal, normal, infinity, NaN
    let singles = [0x8000_0000, 1, 0x3f80_0000, 0xff80_0000, 0x7fc0_0000];
    let doubles = [1 << 63, 1, 0x3ff0 << 48, 0xfff0 << 48, 0x7ff8 << 48];
    for (property, answers) in [
        ("finite", [1, 1, 1, 0, 0]),
        ("infinite", [0, 0, 0, 1, 0]),
        ("number", [1, 1, 1, 1, 0]),
        ("notanumber", [0, 0, 0, 0, 1]),
        ("normal", [1, 0, 1, 0, 0]),
        ("subnormal", [0, 1, 0, 0, 0]),
    ] {
        for i in 0..5 {
            check(&format!("testp.{property}.f32 p, a"), &[&[singles[i], answers[i]]]);
            check(&format!("testp.{property}.f64 p, a"), &[&[doubles[i], answers[i]]]);
        }
    }
}
