//! set and setp: every operator on every type.

use std::cmp::Ordering;

use rustc_apfloat::ieee::{BFloat, Double, Half, Single};

use crate::harness::{against, against_all, check};
use crate::reference::{Reference, flush, read};

/// Whether an operator is true for an order of its operands; `None` means that one of them is NaN.
fn holds(operator: &str, order: Option<Ordering>) -> bool {
    let unordered = order.is_none();
    let is = |wanted: &[Ordering]| order.is_some_and(|order| wanted.contains(&order));
    let (less, equal, greater) = (Ordering::Less, Ordering::Equal, Ordering::Greater);
    match operator {
        "eq" => is(&[equal]),
        "ne" => is(&[less, greater]),
        "lt" | "lo" => is(&[less]),
        "le" | "ls" => is(&[less, equal]),
        "gt" | "hi" => is(&[greater]),
        "ge" | "hs" => is(&[greater, equal]),
        "equ" => unordered || is(&[equal]),
        "neu" => unordered || is(&[less, greater]),
        "ltu" => unordered || is(&[less]),
        "leu" => unordered || is(&[less, equal]),
        "gtu" => unordered || is(&[greater]),
        "geu" => unordered || is(&[greater, equal]),
        "num" => !unordered,
        _ => unordered,
    }
}

const EQUALITY: &[&str] = &["eq", "ne"];
const ORDER: &[&str] = &["eq", "ne", "lt", "le", "gt", "ge"];
const UNSIGNED: &[&str] = &["eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs"];
const FLOAT: &[&str] = &["eq", "ne", "lt", "le", "gt", "ge", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan"];

fn signed_order(a: u64, b: u64, width: u32) -> Option<Ordering> {
    let extend = |bits: u64| (bits << (64 - width)) as i64;
    Some(extend(a).cmp(&extend(b)))
}

fn float_order<F: Reference>(a: u64, b: u64, ftz: bool) -> Option<Ordering> {
    let load = |bits| if ftz { flush(read::<F>(bits)) } else { read::<F>(bits) };
    load(a).partial_cmp(&load(b))
}

fn order(ty: &str, a: u64, b: u64, ftz: bool) -> Option<Ordering> {
    match ty {
        "s16" => signed_order(a, b, 16),
        "s32" => signed_order(a, b, 32),
        "s64" => signed_order(a, b, 64),
        "f16" => float_order::<Half>(a, b, ftz),
        "bf16" => float_order::<BFloat>(a, b, ftz),
        "f32" => float_order::<Single>(a, b, ftz),
        "f64" => float_order::<Double>(a, b, ftz),
        _ => Some(a.cmp(&b)),
    }
}

fn operators(ty: &str) -> &'static [&'static str] {
    match ty.as_bytes()[0] {
        b'u' => UNSIGNED,
        b's' => ORDER,
        b'f' => FLOAT,
        _ if ty == "bf16" => FLOAT,
        _ => EQUALITY,
    }
}

const TYPES: [&str; 13] = ["b16", "b32", "b64", "u16", "u32", "u64", "s16", "s32", "s64", "f16", "bf16", "f32", "f64"];

#[test]
fn setp_of_every_operator_and_type() {
    for ty in TYPES {
        for operator in operators(ty) {
            for ftz in [false, true] {
                if ftz && !["f16", "f32"].contains(&ty) {
                    continue;
                }
                let flag = if ftz { ".ftz" } else { "" };
                let outcome = |row: &[u64]| holds(operator, order(ty, row[0], row[1], ftz));
                against(&format!("setp.{operator}{flag}.{ty} p, a, b"), |row| u64::from(outcome(row)));
                if ty != "f16" && ty != "bf16" {
                    against_all(&format!("setp.{operator}{flag}.{ty} p|q, a, b"), |row| {
                        vec![u64::from(outcome(row)), u64::from(!outcome(row))]
                    });
                }
            }
        }
    }
}

#[test]
fn setp_combined_with_a_predicate() {
    for name in ["and", "or", "xor"] {
        for negation in ["", "!"] {
            let of = |outcome: bool, c: u64| {
                let c = (c != 0) != (negation == "!");
                u64::from(match name {
                    "and" => outcome & c,
                    "or" => outcome | c,
                    _ => outcome ^ c,
                })
            };
            for ty in ["s32", "u64", "f32"] {
                for operator in ["lt", "ge", "ne"] {
                    against_all(&format!("setp.{operator}.{name}.{ty} p|q, a, b, {negation}c"), |row| {
                        let outcome = holds(operator, order(ty, row[0], row[1], false));
                        vec![of(outcome, row[2]), of(!outcome, row[2])]
                    });
                }
            }
        }
    }
    // The predicate that it is combined with may be the first result.
    check("setp.eq.xor.s32 c|q, a, b, c", &[&[1, 1, 0, 1, 0], &[1, 1, 1, 0, 1], &[1, 2, 1, 1, 0]]);
    check("setp.lt.s32 _|q, a, b", &[&[1, 2, 0], &[2, 1, 1]]);
    check("setp.lt.s32 p|_, a, b", &[&[1, 2, 1], &[2, 1, 0]]);
    check("setp.lt.ftz.f32 p, a, b", &[&[0x8000_0001, 1, 0], &[1, 0x3f80_0000, 1]]);
    check("setp.gt.s32 p, a, 5", &[&[6, 1], &[5, 0], &[0xffff_ffff, 0]]);
}

#[test]
fn setp_of_packed_halves() {
    for (packed, ty) in [("f16x2", "f16"), ("bf16x2", "bf16")] {
        for operator in FLOAT {
            let half = |row: &[u64], shift: u32| {
                let (a, b) = (row[0] >> shift & 0xffff, row[1] >> shift & 0xffff);
                holds(operator, order(ty, a, b, false))
            };
            against_all(&format!("setp.{operator}.{packed} p|q, a, b"), |row| {
                vec![u64::from(half(row, 0)), u64::from(half(row, 16))]
            });
            against_all(&format!("setp.{operator}.and.{packed} p|q, a, b, !c"), |row| {
                vec![u64::from(half(row, 0)) & (row[2] ^ 1), u64::from(half(row, 16)) & (row[2] ^ 1)]
            });
        }
    }
    check("setp.gt.f16x2 p, a, b", &[&[0x3c00_4000, 0x4000_3c00, 1]]);
    check("setp.gt.f16x2 p|q, a, b", &[&[0x3c00_4000, 0x4000_3c00, 1, 0], &[0x7e00_4000, 0x0000_3c00, 1, 0]]);
}

#[test]
fn set() {
    let results: [(&str, u64); 5] =
        [("u32", 0xffff_ffff), ("s32", 0xffff_ffff), ("f32", 0x3f80_0000), ("f16", 0x3c00), ("bf16", 0x3f80)];
    for ty in TYPES {
        for (result, bits) in results {
            if result == "f32" && (ty == "f16" || ty == "bf16") || result == "f16" && ty == "bf16" {
                continue;
            }
            let operator = operators(ty).last().expect("some operators");
            let outcome = |row: &[u64]| holds(operator, order(ty, row[0], row[1], false));
            against(&format!("set.{operator}.{result}.{ty} r, a, b"), |row| if outcome(row) { bits } else { 0 });
            against(&format!("set.{operator}.or.{result}.{ty} r, a, b, !c"), |row| {
                if outcome(row) | (row[2] == 0) { bits } else { 0 }
            });
        }
    }
    check("set.lt.ftz.f32.f32 r, a, b", &[&[0x8000_0001, 1, 0], &[0, 0x3f80_0000, 0x3f80_0000]]);
    check("set.lt.u16.f16 r, a, b", &[&[0, 0x3c00, 0xffff], &[0x7e00, 0x3c00, 0]]);
    check("set.geu.s16.bf16 r, a, b", &[&[0x7fc0, 0, 0xffff], &[0, 0x3f80, 0]]);
    check(
        "set.eq.f16x2.f16x2 r, a, b",
        &[&[0x3c00_4000, 0x3c00_3c00, 0x3c00_0000], &[0x0000_0001, 0x8000_0001, 0x3c00_3c00]],
    );
    check("set.ne.u32.f16x2 r, a, b", &[&[0x3c00_4000, 0x3c00_3c00, 0x0000_ffff]]);
    check("set.ltu.bf16x2.bf16x2 r, a, b", &[&[0x3f80_7fc0, 0x3f80_0000, 0x0000_3f80]]);
    check(
        "set.le.and.u32.bf16x2 r, a, b, c",
        &[&[0x3f80_7fc0, 0x3f80_0000, 1, 0xffff_0000], &[0x3f80_0000, 0x3f80_0000, 0, 0]],
    );
}
