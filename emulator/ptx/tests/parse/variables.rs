//! Declarations and initialisers.

use crate::{body, module};
use ptx_emulator::ast::{Init, Space, Statement, Type, Variable};

fn variables(text: &str) -> Vec<Variable> {
    module(text).variables
}

fn variable(text: &str) -> Variable {
    variables(text).pop().expect("a variable")
}

fn bits(text: &str) -> Vec<u64> {
    let bits = |init: Init| match init {
        Init::Bits(bits) => bits,
        other => panic!("{other:?}"),
    };
    variable(text).init.into_iter().map(bits).collect()
}

fn locals(text: &str) -> Vec<Variable> {
    let inner = |statement| match statement {
        Statement::Variable(variable) => variable,
        other => panic!("{other:?}"),
    };
    body(text).into_iter().map(inner).collect()
}

#[test]
fn registers() {
    let found =
        locals(".reg .b32 %r<4000000000>, x, %s<2>; .reg .pred p; .reg .v4 .f32 v; .reg .b128 w; .reg .f16x2 h;");
    let found: Vec<_> = found.iter().map(|v| (v.name.as_str(), v.ty, v.vector, v.count)).collect();
    let expected = [
        ("%r", Type::B32, 1, Some(4_000_000_000)),
        ("x", Type::B32, 1, None),
        ("%s", Type::B32, 1, Some(2)),
        ("p", Type::Pred, 1, None),
        ("v", Type::F32, 4, None),
        ("w", Type::B128, 1, None),
        ("h", Type::F16x2, 1, None),
    ];
    assert_eq!(found, expected);
}

#[test]
fn local_variables() {
    let found = locals(".local .align 8 .b8 depot[24]; .shared .v2 .f64 t[2][3], u; .param .align 4 .b8 p[12];");
    let found: Vec<_> = found.iter().map(|v| (v.space, v.align, v.ty, v.vector, v.extents.clone(), v.size())).collect();
    let expected = [
        (Space::Local, 8, Type::B8, 1, vec![24], Some(24)),
        (Space::Shared, 16, Type::F64, 2, vec![2, 3], Some(96)),
        (Space::Shared, 16, Type::F64, 2, vec![], Some(16)),
        (Space::Param, 4, Type::B8, 1, vec![12], Some(12)),
    ];
    assert_eq!(found, expected);
}

#[test]
fn every_type() {
    let types = "b8 b16 b32 b64 b128 u8 u16 u32 u64 s8 s16 s32 s64 f16 f16x2 f32 f64";
    for ty in types.split(' ') {
        let variable = variable(&format!(".global .{ty} x;"));
        assert_eq!(format!("{:?}", variable.ty).to_lowercase(), ty);
        assert_eq!(variable.align, variable.ty.size());
    }
}

#[test]
fn attributes_and_alignment() {
    let variable = variable(".global .attribute(.managed, .unified(0xAB, 1)) .align 128 .b8 x[(1 + 2) * 4];");
    assert!(variable.managed);
    assert_eq!((variable.align, variable.extents), (128, vec![12]));
    assert!(!self::variable(".global .attribute(.unified(1, 2)) .b8 x;").managed);
    assert_eq!(self::variable(".extern .shared .align 1 .f32 x[];").align, 1);
}

#[test]
fn several_in_one_declaration() {
    let found = variables(".global .b32 a = 1, b[2] = {2, 3}, c;");
    let found: Vec<_> = found.iter().map(|v| (v.name.as_str(), v.init.len(), v.position.column)).collect();
    assert_eq!(found, [("a", 1, 14), ("b", 2, 21), ("c", 0, 36)]);
}

/// (type and name, initialiser, bits), where the bits are those that ptxas 13.0 gives for the same text.
#[test]
fn values() {
    let all = u64::MAX;
    let table: &[(&str, &str, &[u64])] = &[
        (".u32 x", "7", &[7]),
        (".b8 x", "-1", &[0xFF]),
        (".b8 x", "256", &[0]),
        (".s16 x", "-200", &[0xFF38]),
        (".b32 x", "0xffffffffffffffff", &[0xFFFF_FFFF]),
        (".u64 x", "18446744073709551615", &[all]),
        (".b32 x", "7 / -2", &[0xFFFF_FFFD]),
        (".b32 x", "7U / -2", &[0]),
        (".b64 x", "-8 >> 1", &[-4_i64 as u64]),
        (".b64 x", "~0U >> 60", &[15]),
        (".b64 x", "1 << 4 | 3 ^ 2 & 6", &[17]),
        (".b64 x", "7 % 4 - -7 % 4", &[6]),
        (".b64 x", "10 - 3 - 2", &[5]),
        (".b64 x", "- - + ~(2)", &[-3_i64 as u64]),
        (".b64 x", "WARP_SZ * 2", &[64]),
        (".f32 x", "1.5", &[0x3FC0_0000]),
        (".f32 x", "-1.5", &[0xBFC0_0000]),
        (".f32 x", "0d3FF8000000000000", &[0x3FC0_0000]),
        (".f32 x", "0F3f800000", &[0x3F80_0000]),
        (".f32 x", "1e99", &[0x7F80_0000]),
        // Rounded to f64 first and then to f32, which gives the f32 above the one from rounding once.
        (".f32 x", "1.00000017881393432617187499", &[0x3F80_0002]),
        (".f64 x", "1.", &[0x3FF0_0000_0000_0000]),
        (".f64 x", "2.5e-3", &[0x3F64_7AE1_47AE_147B]),
        (".b32 x", "1.5", &[0x3FC0_0000]),
        (".b32 x", "0f3F800000", &[0x3F80_0000]),
        (".b64 x", "1.5", &[0x3FF8_0000_0000_0000]),
        (".b8 x[3]", "{0x1F, 017, 0b101}", &[31, 15, 5]),
        (".b8 x[4]", "{1, 2}", &[1, 2]),
        (".b8 x[2]", "{}", &[]),
        (".b8 x[2][2]", "{{1}, {2, 3}}", &[1, 0, 2, 3]),
        (".b8 x[2][2][2]", "{{}, {{1}, {2}}}", &[0, 0, 0, 0, 1, 0, 2]),
        (".v2 .b8 x", "{3, 4}", &[3, 4]),
    ];
    for (declaration, init, expected) in table {
        let text = format!(".global {declaration} = {init};");
        assert_eq!(&bits(&text), expected, "{text}");
    }
    assert_eq!(bits(".global .v2 .f32 x[2] = {{1.0, 2.0}, {0.0, -0.0}};"), [0x3F80_0000, 0x4000_0000, 0, 0x8000_0000]);
}

#[test]
fn unsized_arrays_take_their_initialiser_s_size() {
    assert_eq!(variable(".global .b8 x[] = {1, 2, 3};").extents, [3]);
    let rows = variable(".global .b32 x[][2] = {{1}, {2, 3}, {4}};");
    assert_eq!((rows.extents.as_slice(), rows.init.len()), (&[3, 2][..], 5));
}

#[test]
fn addresses() {
    let variable = variable(".global .u64 x[6] = {f, y+4, y - 4, generic(y), generic(y)+12, 3};");
    let address = |name: &str, offset, generic| Init::Address { name: name.to_owned(), offset, generic };
    let expected = [
        address("f", 0, false),
        address("y", 4, false),
        address("y", -4, false),
        address("y", 0, true),
        address("y", 12, true),
        Init::Bits(3),
    ];
    assert_eq!(variable.init, expected);
}

/// The size of a huge array in the text takes no memory.
#[test]
fn huge_arrays_are_only_numbers() {
    let huge = variable(".global .b8 x[1000000000000][1000000000000];");
    assert_eq!((huge.extents.len(), huge.size()), (2, None));
    assert_eq!(bits(".global .b8 x[9000000000000000000] = {1};"), [1]);
    assert_eq!(bits(".global .b8 x[9000000000000000000][9000000000000000000] = {{1, 2}};"), [1, 2]);
}
