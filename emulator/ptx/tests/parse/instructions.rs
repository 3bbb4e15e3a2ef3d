//! Instructions and their operands.

use crate::{body, instruction, module, name, operands};
use ptx_emulator::ast::{Operand, Position, Statement};

fn address(base: &str, offset: i64) -> Operand {
    Operand::Address { base: Some(base.to_owned()), offset }
}

#[test]
fn opcodes_split_at_their_dots() {
    let table = [
        ("ret;", "ret"),
        ("bra.uni $L;", "bra uni"),
        ("ld .global\t.u32 a, [b];", "ld global u32"),
        (
            "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {a}, {b}, {c}, {d};",
            "mma sync aligned m16n8k16 row col f32 bf16 bf16 f32",
        ),
        ("cp.async.cg.shared::cta.global.L2::128B [a], [b], 16;", "cp async cg shared::cta global L2::128B"),
        (
            "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [a], [b, {c, d}], [e];",
            "cp async bulk tensor 2d shared::cluster global mbarrier::complete_tx::bytes",
        ),
        ("tcgen05.ld.sync.aligned.16x64b.x1.b32 {a}, [b];", "tcgen05 ld sync aligned 16x64b x1 b32"),
        (
            "tcgen05.alloc.cta_group::1.sync.aligned.shared::cta.b32 [a], 512;",
            "tcgen05 alloc cta_group::1 sync aligned shared::cta b32",
        ),
    ];
    for (text, expected) in table {
        let found = instruction(text);
        assert_eq!(found.opcode.join(" "), expected, "{text}");
        assert_eq!(found.name(), expected.replace(' ', "."));
    }
}

#[test]
fn guards_and_positions() {
    let statements = body("ret; @%p1 bra L; @!%p2 bra L; @ ! q exit;");
    let found: Vec<_> = statements
        .iter()
        .map(|statement| match statement {
            Statement::Instruction(found) => (found.guard.clone(), found.position),
            other => panic!("{other:?}"),
        })
        .collect();
    let guard = |name: &str, negated| Some((name.to_owned(), negated));
    let at = |column| Position { line: 4, column };
    let expected =
        [(None, at(14)), (guard("%p1", false), at(19)), (guard("%p2", true), at(31)), (guard("q", true), at(44))];
    assert_eq!(found, expected);
}

#[test]
fn names_and_sinks() {
    assert_eq!(operands("mov.u32 %r1, %tid.x;"), [name("%r1"), name("%tid.x")]);
    assert_eq!(operands("mov.f32 v.x, $L;"), [name("v.x"), name("$L")]);
    assert_eq!(operands("mov.u32 _, %SP;"), [Operand::Sink, name("%SP")]);
    assert_eq!(operands("selp.b32 a, b, c, !%p1;")[3], Operand::Not("%p1".to_owned()));
}

#[test]
fn pairs() {
    let pair = |a, b| Operand::Pair(Box::new(a), Box::new(b));
    assert_eq!(operands("shfl.sync.bfly.b32 %r1|%p1, a, b, c, d;")[0], pair(name("%r1"), name("%p1")));
    assert_eq!(operands("elect.sync _|%p1, -1;")[0], pair(Operand::Sink, name("%p1")));
    assert_eq!(operands("setp.lt.s32 p|_, a, b;")[0], pair(name("p"), Operand::Sink));
}

#[test]
fn constants() {
    let table = [
        ("12", Operand::Integer(12)),
        ("0", Operand::Integer(0)),
        ("-1", Operand::Integer(u64::MAX)),
        ("0xFFFFFFFFU", Operand::Integer(0xFFFF_FFFF)),
        ("0X1f", Operand::Integer(31)),
        ("0b101U", Operand::Integer(5)),
        ("017", Operand::Integer(15)),
        ("18446744073709551615", Operand::Integer(u64::MAX)),
        ("(1+2)*4", Operand::Integer(12)),
        ("1|2", Operand::Integer(3)),
        ("WARP_SZ", Operand::Integer(32)),
        ("0f3F800000", Operand::F32(0x3F80_0000)),
        ("0Fff800000", Operand::F32(0xFF80_0000)),
        ("0d3FF0000000000000", Operand::F64(0x3FF0_0000_0000_0000)),
        ("1.5", Operand::F64(1.5_f64.to_bits())),
        ("-1.5e3", Operand::F64((-1500.0_f64).to_bits())),
        ("1E3", Operand::F64(1000.0_f64.to_bits())),
    ];
    for (text, expected) in table {
        assert_eq!(operands(&format!("mov.b32 %r1, {text};")), [name("%r1"), expected], "{text}");
    }
}

#[test]
fn brackets() {
    let table = [
        ("[%rd1]", address("%rd1", 0)),
        ("[%rd1+16]", address("%rd1", 16)),
        ("[%rd1-16]", address("%rd1", -16)),
        ("[%rd1+-16]", address("%rd1", -16)),
        ("[ symbol + 8 ]", address("symbol", 8)),
        ("[s+0x10]", address("s", 16)),
        ("[s+(1+1)*2-4]", address("s", 0)),
        ("[s+4*2]", address("s", 8)),
        ("[16]", Operand::Address { base: None, offset: 16 }),
        ("[-16]", Operand::Address { base: None, offset: -16 }),
    ];
    for (text, expected) in table {
        assert_eq!(operands(&format!("ld.u32 a, {text};"))[1], expected, "{text}");
    }
}

#[test]
fn tensors() {
    let found = operands(
        "cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes.multicast::cluster
        [%r8], [%rd4, {%r2, %r3, 0, 1}], [%r4+8], {%rs1, 2}, %rs2;",
    );
    let coordinates = Operand::Vector(vec![name("%r2"), name("%r3"), Operand::Integer(0), Operand::Integer(1)]);
    let expected = [
        address("%r8", 0),
        Operand::Tensor(vec![name("%rd4"), coordinates]),
        address("%r4", 8),
        Operand::Vector(vec![name("%rs1"), Operand::Integer(2)]),
        name("%rs2"),
    ];
    assert_eq!(found, expected);
}

#[test]
fn vectors() {
    let found = operands("ld.global.v4.f32 {%f1, _, %f2, _}, [%rd1];");
    assert_eq!(found[0], Operand::Vector(vec![name("%f1"), Operand::Sink, name("%f2"), Operand::Sink]));
}

#[test]
fn offsets_outside_brackets() {
    let offset = |offset| Operand::NameOffset("table".to_owned(), offset);
    assert_eq!(operands("mov.u64 a, table+8;")[1], offset(8));
    assert_eq!(operands("mov.u64 a, table-8;")[1], offset(-8));
}

/// The index in `array[i]` counts elements, in whatever scope the array was declared.
#[test]
fn indexed_arrays() {
    let last = |text: &str| {
        let module = module(&format!(".global .v2 .f32 g[4]; .entry k(.param .b32 p[3]) {{ {text} }}"));
        match module.functions[0].body.as_ref().and_then(|body| body.last()) {
            Some(Statement::Instruction(found)) => found.operands[1].clone(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(last("ld.global.u32 a, g[3];"), address("g", 24));
    assert_eq!(last("mov.u64 a, g[3];"), Operand::NameOffset("g".to_owned(), 24));
    assert_eq!(last("ld.param.u32 a, p[2];"), address("p", 8));
    assert_eq!(last(".shared .b64 g[4]; ld.shared.u32 a, g[1];"), address("g", 8));
    assert_eq!(last("{ .shared .b16 g[4]; } ld.global.u32 a, g[1];"), address("g", 8));
}

#[test]
fn calls() {
    let list = |names: &[&str]| Operand::List(names.iter().map(|text| name(text)).collect());
    assert_eq!(operands("call.uni (r), f, (a, b);"), [list(&["r"]), name("f"), list(&["a", "b"])]);
    assert_eq!(operands("call.uni f, (a);"), [name("f"), list(&["a"])]);
    assert_eq!(operands("call f;"), [name("f")]);
    assert_eq!(operands("call f, ();"), [name("f"), list(&[])]);
    let indirect = operands("call (retval0), \n%rd7, \n(\nparam0, \nparam1\n)\n, prototype_1;");
    assert_eq!(indirect, [list(&["retval0"]), name("%rd7"), list(&["param0", "param1"]), name("prototype_1")]);
    assert_eq!(
        operands("call f, (-1, 0f00000000);")[1],
        Operand::List(vec![Operand::Integer(u64::MAX), Operand::F32(0)])
    );
}

#[test]
fn blocks() {
    let statements = body("{ .reg .pred p; { ret; } L: } {}");
    let [Statement::Block(outer), Statement::Block(empty)] = statements.as_slice() else { panic!("{statements:?}") };
    assert!(empty.is_empty());
    assert!(matches!(outer.as_slice(), [Statement::Variable(_), Statement::Block(_), Statement::Label(..)]));
}
