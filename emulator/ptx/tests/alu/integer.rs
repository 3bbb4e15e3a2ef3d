//! Integer arithmetic against i128.

use crate::harness::{against, against_all, check};

/// A value's low bits as a signed or unsigned integer.
fn read(bits: u64, width: u32, signed: bool) -> i128 {
    let value = i128::from(bits) & ((1 << width) - 1);
    if signed && value >> (width - 1) != 0 { value - (1 << width) } else { value }
}

fn write(value: i128, width: u32) -> u64 {
    (value & ((1 << width) - 1)) as u64
}

/// Checks an opcode with each type against `f`, whose sources are read by their sign and whose result is truncated to
/// the width of the type.
fn each_type(opcode: &str, types: &[&str], operands: &str, f: impl Fn(&[i128], u32) -> i128) {
    for ty in types {
        let signed = ty.starts_with('s');
        let width: u32 = ty[1..].parse().expect("a width");
        against(&format!("{opcode}.{ty} {operands}"), |row| {
            let values: Vec<i128> = row.iter().map(|&bits| read(bits, width, signed)).collect();
            write(f(&values, width), width)
        });
    }
}

const ALL: &[&str] = &["u16", "s16", "u32", "s32", "u64", "s64"];
const SIGNED: &[&str] = &["s16", "s32", "s64"];

#[test]
fn sums_products_and_differences() {
    each_type("add", ALL, "r, a, b", |v, _| v[0] + v[1]);
    each_type("sub", ALL, "r, a, b", |v, _| v[0] - v[1]);
    each_type("mul.lo", ALL, "r, a, b", |v, _| v[0].wrapping_mul(v[1]));
    each_type("mad.lo", ALL, "r, a, b, c", |v, _| v[0].wrapping_mul(v[1]).wrapping_add(v[2]));
    each_type("sad", ALL, "r, a, b, c", |v, _| (v[0] - v[1]).abs() + v[2]);
    each_type("min", ALL, "r, a, b", |v, _| v[0].min(v[1]));
    each_type("max", ALL, "r, a, b", |v, _| v[0].max(v[1]));
    each_type("abs", SIGNED, "r, a", |v, _| v[0].abs());
    each_type("neg", SIGNED, "r, a", |v, _| -v[0]);
}

#[test]
fn high_halves_of_products() {
    // A signed product of 64-bit integers fits i128; an unsigned one wraps to the same bits.
    let high = |a: i128, b: i128, width: u32| {
        let product = a.wrapping_mul(b);
        if width == 64 && a >= 0 && b >= 0 { (product as u128 >> 64) as i128 } else { product >> width }
    };
    each_type("mul.hi", ALL, "r, a, b", |v, width| high(v[0], v[1], width));
    each_type("mad.hi", ALL, "r, a, b, c", |v, width| high(v[0], v[1], width) + v[2]);
}

#[test]
fn wide_products() {
    for (ty, width) in [("u16", 16), ("s16", 16), ("u32", 32), ("s32", 32)] {
        let signed = ty.starts_with('s');
        let product = |row: &[u64]| read(row[0], width, signed) * read(row[1], width, signed);
        against(&format!("mul.wide.{ty} r, a, b"), |row| write(product(row), 2 * width));
        against(&format!("mad.wide.{ty} r, a, b, c"), |row| write(product(row) + i128::from(row[2]), 2 * width));
    }
}

#[test]
fn quotients_and_remainders() {
    let ones = -1;
    each_type("div", ALL, "r, a, b", |v, _| if v[1] == 0 { ones } else { v[0] / v[1] });
    each_type("rem", ALL, "r, a, b", |v, _| if v[1] == 0 { ones } else { v[0] % v[1] });
    check(
        "div.s32 r, a, b",
        &[
            &[0x8000_0000, 0xffff_ffff, 0x8000_0000],
            &[0x8000_0000, 1, 0x8000_0000],
            &[7, 0xffff_fffe, 0xffff_fffd],
            &[0xffff_fff9, 2, 0xffff_fffd],
            &[5, 0, 0xffff_ffff],
        ],
    );
    check("rem.s32 r, a, b", &[&[0x8000_0000, 0xffff_ffff, 0], &[0xffff_fff9, 2, 0xffff_ffff], &[5, 0, 0xffff_ffff]]);
    check("div.s16 r, a, b", &[&[0x8000, 0xffff, 0x8000], &[9, 0, 0xffff]]);
    check("div.s64 r, a, b", &[&[1 << 63, u64::MAX, 1 << 63], &[9, 0, u64::MAX]]);
    check("rem.s64 r, a, b", &[&[1 << 63, u64::MAX, 0], &[9, 0, u64::MAX]]);
    check("div.u32 r, a, b", &[&[u64::from(u32::MAX), 1, u64::from(u32::MAX)], &[4_294_967_295, 65537, 65535]]);
}

/// Quotients just below and at an integer, where a division through f64 would show an error.
#[test]
fn quotients_next_to_integers() {
    against("div.u32 r, a, b", |row| row[0].checked_div(row[1]).unwrap_or(0xffff_ffff));
    for divisor in [3u64, 7, 65535, 65537, 0x7fff_ffff, 0xffff_fffe] {
        for quotient in [1, 2, 3, 0xffff, u64::from(u32::MAX) / divisor] {
            let product = (divisor * quotient).min(u64::from(u32::MAX));
            let below = product - 1;
            check("div.u32 r, a, b", &[&[product, divisor, product / divisor], &[below, divisor, below / divisor]]);
            check("rem.u32 r, a, b", &[&[product, divisor, product % divisor], &[below, divisor, below % divisor]]);
        }
    }
}

#[test]
fn saturation() {
    let clamp = |value: i128| write(value.clamp(i128::from(i32::MIN), i128::from(i32::MAX)), 32);
    let s32 = |bits: u64| read(bits, 32, true);
    against("add.sat.s32 r, a, b", |row| clamp(s32(row[0]) + s32(row[1])));
    against("sub.sat.s32 r, a, b", |row| clamp(s32(row[0]) - s32(row[1])));
    against("mad.hi.sat.s32 r, a, b, c", |row| clamp(((s32(row[0]) * s32(row[1])) >> 32) + s32(row[2])));
    check("add.sat.s32 r, a, b", &[&[0x7fff_ffff, 1, 0x7fff_ffff], &[0x8000_0000, 0xffff_ffff, 0x8000_0000]]);
    against("min.relu.s32 r, a, b", |row| write(s32(row[0]).min(s32(row[1])).max(0), 32));
    against("max.relu.s32 r, a, b", |row| write(s32(row[0]).max(s32(row[1])).max(0), 32));
}

#[test]
fn products_of_24_bits() {
    for ty in ["u32", "s32"] {
        let signed = ty == "s32";
        let product = |row: &[u64]| read(row[0], 24, signed) * read(row[1], 24, signed);
        against(&format!("mul24.lo.{ty} r, a, b"), |row| write(product(row), 32));
        against(&format!("mul24.hi.{ty} r, a, b"), |row| write(product(row) >> 16, 32));
        let c = |row: &[u64]| read(row[2], 32, signed);
        against(&format!("mad24.lo.{ty} r, a, b, c"), |row| write(product(row) + c(row), 32));
        against(&format!("mad24.hi.{ty} r, a, b, c"), |row| write((product(row) >> 16) + c(row), 32));
    }
    check("mad24.hi.sat.s32 r, a, b, c", &[&[0x7f_ffff, 0x7f_ffff, 0x7fff_ffff, 0x7fff_ffff], &[2, 0x8000, 3, 4]]);
}

#[test]
fn carries() {
    for (width, types) in [(32, ["u32", "s32"]), (64, ["u64", "s64"])] {
        for ty in types {
            let all = (1i128 << width) - 1;
            let split = |sum: i128| vec![(sum & all) as u64, (sum >> width) as u64 & 1];
            let u = |bits: u64| i128::from(bits);
            against_all(&format!("add.cc.{ty} r, a, b"), |row| split(u(row[0]) + u(row[1])));
            against_all(&format!("addc.cc.{ty} r, a, b"), |row| split(u(row[0]) + u(row[1]) + u(row[2])));
            against(&format!("addc.{ty} r, a, b"), |row| split(u(row[0]) + u(row[1]) + u(row[2]))[0]);
            against_all(&format!("sub.cc.{ty} r, a, b"), |row| split(u(row[0]) - u(row[1])));
            against_all(&format!("subc.cc.{ty} r, a, b"), |row| split(u(row[0]) - u(row[1]) - u(row[2])));
            against(&format!("subc.{ty} r, a, b"), |row| split(u(row[0]) - u(row[1]) - u(row[2]))[0]);
            let signed = ty.starts_with('s');
            let low = |row: &[u64]| read(row[0], width, signed).wrapping_mul(read(row[1], width, signed)) & all;
            let high = |row: &[u64]| {
                let (a, b) = (read(row[0], width, signed), read(row[1], width, signed));
                let product = a.wrapping_mul(b);
                (if signed { product >> width } else { (product as u128 >> width) as i128 }) & all
            };
            against_all(&format!("mad.lo.cc.{ty} r, a, b, c"), |row| split(low(row) + u(row[2])));
            against_all(&format!("mad.hi.cc.{ty} r, a, b, c"), |row| split(high(row) + u(row[2])));
            against_all(&format!("madc.lo.cc.{ty} r, a, b, c"), |row| split(low(row) + u(row[2]) + u(row[3])));
            against(&format!("madc.hi.{ty} r, a, b, c"), |row| split(high(row) + u(row[2]) + u(row[3]))[0]);
        }
    }
    // A 64-bit sum in two halves; the carry is a source of the second.
    check("addc.u32 r, a, b", &[&[0xffff_ffff, 0, 1, 0], &[0xffff_ffff, 0, 0, 0xffff_ffff]]);
}

#[test]
fn packed_halves() {
    for ty in ["u16x2", "s16x2"] {
        let signed = ty == "s16x2";
        let both = |row: &[u64], f: &dyn Fn(i128, i128) -> i128| {
            let half = |bits: u64, shift: u32| read(bits >> shift, 16, signed);
            let one = |shift| write(f(half(row[0], shift), half(row[1], shift)), 16) << shift;
            one(0) | one(16)
        };
        against(&format!("add.{ty} r, a, b"), |row| both(row, &|a, b| a + b));
        against(&format!("min.{ty} r, a, b"), |row| both(row, &|a, b| a.min(b)));
        against(&format!("max.{ty} r, a, b"), |row| both(row, &|a, b| a.max(b)));
        if signed {
            against("min.relu.s16x2 r, a, b", |row| both(row, &|a, b| a.min(b).max(0)));
            against("max.relu.s16x2 r, a, b", |row| both(row, &|a, b| a.max(b).max(0)));
        }
    }
}

#[test]
fn dot_products() {
    for (a_type, b_type) in [("u32", "u32"), ("s32", "u32"), ("u32", "s32"), ("s32", "s32")] {
        let (a_signed, b_signed) = (a_type == "s32", b_type == "s32");
        let byte = |bits: u64, i: u32, signed| read(bits >> (8 * i), 8, signed);
        against(&format!("dp4a.{a_type}.{b_type} r, a, b, c"), |row| {
            let sum: i128 = (0..4).map(|i| byte(row[0], i, a_signed) * byte(row[1], i, b_signed)).sum();
            write(sum + i128::from(row[2]), 32)
        });
        for (mode, first) in [("lo", 0), ("hi", 2)] {
            against(&format!("dp2a.{mode}.{a_type}.{b_type} r, a, b, c"), |row| {
                let half = |i: u32| read(row[0] >> (16 * i), 16, a_signed);
                let sum: i128 = (0..2).map(|i| half(i) * byte(row[1], first + i, b_signed)).sum();
                write(sum + i128::from(row[2]), 32)
            });
        }
    }
}
