//! The instructions that are decoded, and the messages of those that are refused.

use ptx_emulator::alu::{Decoded, Kind, Op, decode};
use ptx_emulator::ast::Operand;

use crate::harness::parse;

fn attempt(text: &str) -> Option<Result<Decoded, String>> {
    let (opcode, operands) = parse(text);
    decode(&opcode, &operands)
}

fn refused(text: &str, message: &str) {
    match attempt(text) {
        Some(Err(error)) => assert_eq!(error, message, "{text}"),
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn kinds_of_operands() {
    let kinds = |text: &str| {
        let decoded = attempt(text).expect("known").expect("supported");
        let of = |list: &[(Kind, Operand)]| list.iter().map(|&(kind, _)| kind).collect::<Vec<_>>();
        (of(&decoded.results), of(&decoded.sources))
    };
    let int = Kind::Int;
    assert_eq!(kinds("mul.wide.s16 r, a, b"), (vec![int(32)], vec![int(16), int(16)]));
    assert_eq!(kinds("mad.wide.u32 r, a, b, c"), (vec![int(64)], vec![int(32), int(32), int(64)]));
    assert_eq!(kinds("shl.b64 r, a, b"), (vec![int(64)], vec![int(64), int(32)]));
    assert_eq!(kinds("bfi.b64 r, a, b, c, d"), (vec![int(64)], vec![int(64), int(64), int(32), int(32)]));
    assert_eq!(kinds("popc.b64 r, a"), (vec![int(32)], vec![int(64)]));
    assert_eq!(kinds("cvt.u8.u32 r, a"), (vec![int(8)], vec![int(32)]));
    assert_eq!(kinds("cvt.rn.f16x2.f32 r, a, b"), (vec![int(32)], vec![Kind::F32, Kind::F32]));
    assert_eq!(kinds("cvt.rn.f16x2.e4m3x2 r, a"), (vec![int(32)], vec![int(16)]));
    assert_eq!(kinds("add.f16 r, a, b"), (vec![Kind::F16], vec![Kind::F16; 2]));
    assert_eq!(kinds("add.f16x2 r, a, b"), (vec![int(32)], vec![int(32); 2]));
    assert_eq!(kinds("set.gt.f32.u32 r, a, b"), (vec![Kind::F32], vec![int(32); 2]));
    assert_eq!(kinds("setp.gt.and.f64 p|q, a, b, c"), (vec![Kind::Pred; 2], vec![Kind::F64, Kind::F64, Kind::Pred]));
    assert_eq!(kinds("addc.cc.u32 r, a, b"), (vec![int(32), Kind::Carry], vec![int(32), int(32), Kind::Carry]));
    assert_eq!(kinds("slct.f64.f32 r, a, b, c"), (vec![Kind::F64], vec![Kind::F64, Kind::F64, Kind::F32]));
    assert_eq!(kinds("mov.b64 {r, _}, a"), (vec![int(32); 2], vec![int(64)]));
    assert_eq!(kinds("mov.b16 {r, s}, a"), (vec![int(8); 2], vec![int(16)]));
}

#[test]
fn operands_pass_through() {
    let decoded = |text: &str| attempt(text).expect("known").expect("supported");
    let name = |name: &str| Operand::Name(name.into());
    let add = decoded("add.cc.u32 %r1, %r2, 7");
    assert_eq!(add.results[1], (Kind::Carry, name("%cc")));
    assert_eq!(add.sources, [(Kind::Int(32), name("%r2")), (Kind::Int(32), Operand::Integer(7))]);
    assert_eq!(decoded("mov.u32 %r1, %tid.x").sources, [(Kind::Int(32), name("%tid.x"))]);
    let opcode = ["mov".to_string(), "u64".to_string()];
    let address = [name("%rd1"), Operand::NameOffset("table".into(), 16)];
    let mov = decode(&opcode, &address).expect("known").expect("supported");
    assert_eq!(mov.sources, [(Kind::Int(64), Operand::NameOffset("table".into(), 16))]);
    // The negation is part of the operation; the operand is the plain predicate.
    assert_eq!(decoded("selp.b32 r, a, b, !p").sources[2], (Kind::Pred, name("p")));
    assert_ne!(decoded("selp.b32 r, a, b, !p").op, decoded("selp.b32 r, a, b, p").op);
    // The table is part of the operation.
    assert_eq!(decoded("lop3.b32 r, a, b, c, 0xe8").sources.len(), 3);
    assert_eq!(decoded("setp.lt.s32 _|q, a, b").results[0], (Kind::Pred, Operand::Sink));
}

#[test]
fn modifiers_come_in_any_order() {
    for (one, other) in [
        ("max.relu.s32 r, a, b", "max.s32.relu r, a, b"),
        ("max.relu.s16x2 r, a, b", "max.s16x2.relu r, a, b"),
        ("add.rz.ftz.sat.f32 r, a, b", "add.f32.sat.ftz.rz r, a, b"),
        ("cvt.rz.bf16.f16 r, a", "cvt.bf16.f16.rz r, a"),
        ("setp.lt.and.ftz.f32 p, a, b, c", "setp.ftz.f32.lt.and p, a, b, c"),
        ("add.cc.u32 r, a, b", "add.u32.cc r, a, b"),
        ("cvt.rn.relu.satfinite.e4m3x2.f32 r, a, b", "cvt.satfinite.relu.rn.e4m3x2.f32 r, a, b"),
    ] {
        assert_eq!(
            attempt(one).expect("known").expect("supported"),
            attempt(other).expect("known").expect("supported")
        );
    }
    // But the first of two types is the result's.
    assert_ne!(attempt("cvt.u32.u16 r, a"), attempt("cvt.u16.u32 r, a"));
    refused("add.ftz.ftz.f32 r, a, b", "add.ftz.ftz.f32: .ftz is not supported here");
}

#[test]
fn operations_are_small() {
    assert!(size_of::<Op>() <= 16, "{} bytes", size_of::<Op>());
}

#[test]
fn opcodes_of_other_modules_are_not_decoded() {
    for name in [
        "ld",
        "st",
        "atom",
        "red",
        "cvta",
        "isspacep",
        "bar",
        "fence",
        "shfl",
        "vote",
        "mma",
        "bra",
        "ret",
        "frobnicate",
    ] {
        assert_eq!(attempt(&format!("{name}.global.u32 r, a")), None, "{name}");
    }
    assert_eq!(decode(&[], &[]), None);
}

#[test]
fn refusals_name_what_is_not_supported() {
    refused("add.sat.u64 r, a, b", "add.sat.u64: .sat needs s32");
    refused("add.b32 r, a, b", "add.b32: .b32 is not a supported type");
    refused("add.s8 r, a, b", "add.s8: .s8 is not a supported type");
    refused("add.s32 r, a", "add.s32: 2 operands, needs 3");
    refused("add.s32 5, a, b", "add.s32: the result must be a register");
    refused("add.s32 r, {a, b}, c", "add.s32: an operand must be a register or a literal");
    refused("add r, a, b", "add: type is missing");
    refused("add.s32.s32 r, a, b", "add.s32.s32: .s32 is not supported here");
    refused("abs.u32 r, a", "abs.u32: needs a signed type");
    refused("mul.u32 r, a, b", "mul.u32: half is missing");
    refused("mul.wide.u64 r, a, b", "mul.wide.u64: .wide needs a type of 16 or 32 bits");
    refused("min.relu.u32 r, a, b", "min.relu.u32: .relu needs s32");
    refused("min.relu.u16x2 r, a, b", "min.relu.u16x2: .relu needs s32 or s16x2");
    refused("sub.u16x2 r, a, b", "sub.u16x2: .u16x2 is not a supported type");
    refused("neg.s16x2 r, a", "neg.s16x2: .s16x2 is not a supported type");
    refused("div.f16 r, a, b", "div.f16: .f16 is not a supported type");
    refused("mad.rn.f16 r, a, b, c", "mad.rn.f16: .rn is not a supported half");
    refused("fma.rn.s32 r, a, b, c", "fma.rn.s32: .s32 is not a supported type");
    refused("fma.f32 r, a, b, c", "fma.f32: a rounding mode is missing");
    refused("fma.rn.f16.f32 r, a, b, c", "fma.rn.f16.f32: .f16 is not a supported type");
    refused("add.rn.f32.bf16 r, a, b", "add.rn.f32.bf16: .f32 is not a supported type");
    refused("add.f32x2 r, a, b", "add.f32x2: .f32x2 is not a supported type");
    refused("fma.rn.oob.f16 r, a, b, c", "fma.rn.oob.f16: .oob is not supported here");
    refused("add.rz.f16 r, a, b", "add.rz.f16: .rz is not supported here");
    refused("add.ftz.bf16 r, a, b", "add.ftz.bf16: .ftz and .sat need f16");
    refused("add.sat.f64 r, a, b", "add.sat.f64: .sat is not supported here");
    refused("sin.f32 r, a", "sin.f32: .approx is missing");
    refused("ex2.approx.f64 r, a", "ex2.approx.f64: .f64 is not a supported type");
    refused("setp.lo.s32 p, a, b", "setp.lo.s32: the type has no such comparison");
    refused("setp.lt.b32 p, a, b", "setp.lt.b32: the type has no such comparison");
    refused("setp.equ.u32 p, a, b", "setp.equ.u32: the type has no such comparison");
    refused("setp.lt.ftz.f64 p, a, b", "setp.lt.ftz.f64: .ftz needs f32, f16 or f16x2");
    refused("setp.lt.f16 p|q, a, b", "setp.lt.f16: needs one result");
    refused("set.lt.u64.u32 r, a, b", "set.lt.u64.u32: .u64 is not a supported type");
    refused("set.lt.f32.f16 r, a, b", "set.lt.f32.f16: .f32 cannot be the result of this comparison");
    refused("mov.b128 r, {a, b}", "mov.b128: .b128 is not a supported type");
    refused("mov.b32 r, {a, b, c}", "mov.b32: a vector of 3 does not fit the type");
    refused("mov.f32 r, {a, b}", "mov.f32: a vector of 2 does not fit the type");
    refused("lop3.b32 r, a, b, c, d", "lop3.b32: the look-up table must be a constant from 0 to 255");
    refused("lop3.b32 r, a, b, c, 256", "lop3.b32: the look-up table must be a constant from 0 to 255");
    refused("shf.l.b32 r, a, b, c", "shf.l.b32: mode is missing");
    refused("cvt.s32.f32 r, a", "cvt.s32.f32: needs a rounding to integer: .rni, .rzi, .rmi or .rpi");
    refused("cvt.f32.s32 r, a", "cvt.f32.s32: needs .rn, .rz, .rm or .rp");
    refused("cvt.f16.f32 r, a", "cvt.f16.f32: needs .rn, .rz, .rm or .rp");
    refused("cvt.rn.f64.f32 r, a", "cvt.rn.f64.f32: this rounding is not supported here");
    refused("cvt.rn.s32.u32 r, a", "cvt.rn.s32.u32: integers are not rounded or flushed");
    refused("cvt.rs.f16x2.f32 r, a, b, c", "cvt.rs.f16x2.f32: needs .rn or .rz");
    refused("cvt.rn.e4m3x2.f32 r, a, b", "cvt.rn.e4m3x2.f32: needs .rn and .satfinite");
    refused("cvt.rn.satfinite.e2m1x2.f32 r, a, b", "cvt.rn.satfinite.e2m1x2.f32: .e2m1x2 is not a supported type");
    refused("cvt.rn.bf16x2.ue8m0x2 r, a", "cvt.rn.bf16x2.ue8m0x2: .ue8m0x2 is not a supported type");
    refused("vadd4.u32.u32.u32 r, a, b, c", "vadd4.u32.u32.u32: video instructions are not supported");
}

/// Decoding any mixture of known modifiers must not panic.
#[test]
fn mixtures_of_modifiers_do_not_panic() {
    let names = [
        "add", "sub", "mul", "mad", "fma", "div", "rem", "min", "max", "abs", "neg", "set", "setp", "selp", "slct",
        "mov", "cvt", "lop3", "prmt", "shf", "addc", "madc", "testp", "ex2", "rcp", "dp4a", "bfind", "szext",
    ];
    let modifiers = [
        "rn",
        "rz",
        "rni",
        "ftz",
        "sat",
        "relu",
        "satfinite",
        "lo",
        "hi",
        "wide",
        "cc",
        "eq",
        "lt",
        "and",
        "pack",
        "NaN",
        "xorsign",
        "abs",
        "approx",
        "full",
        "f32",
        "f64",
        "f16",
        "bf16",
        "f16x2",
        "bf16x2",
        "s32",
        "u64",
        "s8",
        "b32",
        "pred",
        "tf32",
        "e4m3x2",
        "u16x2",
        "clamp",
        "wrap",
        "l",
        "rna",
    ];
    let operands = [
        "a, b",
        "a, b, c",
        "a, b, c, d",
        "a|b, c, d",
        "a, b, c, !d",
        "{a, b}, c",
        "a, {b, c}",
        "a, 1, 2, 3, 4",
        "_, a",
    ];
    let mut random = crate::harness::Random(5);
    let mut supported = 0;
    for _ in 0..600_000 {
        let mut opcode = vec![names[random.next() as usize % names.len()].to_string()];
        for _ in 0..random.next() % 4 {
            opcode.push(modifiers[random.next() as usize % modifiers.len()].to_string());
        }
        let (_, list) = parse(&format!("x {}", operands[random.next() as usize % operands.len()]));
        if let Some(Ok(decoded)) = decode(&opcode, &list) {
            supported += 1;
            assert!(decoded.results.len() <= 4 && decoded.sources.len() <= 4, "{opcode:?}");
        }
    }
    assert!(supported > 1000, "{supported} were supported");
}
