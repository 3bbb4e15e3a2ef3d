//! Everything that the parser refuses, with position and message.

use crate::{HEADER, error};
use ptx_emulator::parse::parse;

/// A text with `body` on its fourth line.
fn kernel(body: &str) -> String {
    format!(".version 9.0\n.target sm_90a\n.entry k() {{\n{body} }}\n")
}

/// (text, message), the whole text.
#[test]
fn texts() {
    let table = [
        ("", "line 1, column 1: expected `.version`, found the end of the text"),
        ("// x\n", "line 2, column 1: expected `.version`, found the end of the text"),
        (".target sm_80", "line 1, column 1: expected `.version`, found `.target`"),
        (".version 9", "line 1, column 10: expected a version such as `9.0`, found `9`"),
        (".version 9.0e1", "line 1, column 10: expected a version such as `9.0`, found `9.0e1`"),
        (".version x", "line 1, column 10: expected a version such as `9.0`, found `x`"),
        (".version 9.0\n.global", "line 2, column 1: expected `.target`, found `.global`"),
        (".version 9.0 .target gfx90a", "line 1, column 22: expected an architecture such as `sm_90a`, found `gfx90a`"),
        (
            ".version 9.0 .target \"sm_80\"",
            "line 1, column 22: expected an architecture such as `sm_90a`, found `\"sm_80\"`",
        ),
        (".version 9.0 .target sm_80, map_f64_to_f32", "line 1, column 29: unsupported target option `map_f64_to_f32`"),
        (
            ".version 9.0 .target sm_80 .version 9.0",
            "line 1, column 28: unsupported directive `.version` at module scope",
        ),
        (".version 9.0 .target sm_80 .address_size 32", "line 1, column 42: `.address_size 32`: only 64 is supported"),
        ("ab\0", "line 1, column 3: a NUL byte"),
        ("\n\n// Grüße", "line 3, column 6: a character outside of ASCII: `ü`"),
        ("// a\n/* b\n", "line 2, column 1: a comment without its `*/`"),
        ("/*/", "line 1, column 1: a comment without its `*/`"),
        ("\t\x01", "line 1, column 2: a stray control character: 0x01"),
        ("\x7f", "line 1, column 1: a stray control character: 0x7f"),
    ];
    for (text, expected) in table {
        assert_eq!(error(text), expected, "{text}");
    }
}

/// (text, message); the text begins on line 4.
#[test]
fn module_scope() {
    let table = [
        (".tex .u32 t;", "line 4, column 1: unsupported directive `.tex` at module scope"),
        (".global .texref t;", "line 4, column 9: expected a type, found `.texref`"),
        (".visible .sampler s;", "line 4, column 10: unsupported directive `.sampler` at module scope"),
        (".reg .b32 r;", "line 4, column 1: unsupported directive `.reg` at module scope"),
        (".local .b32 l;", "line 4, column 1: unsupported directive `.local` at module scope"),
        (".common .func f();", "line 4, column 9: unsupported directive `.func` at module scope"),
        ("@@DWARF .byte 1", "line 4, column 1: expected a directive, found `@`"),
        ("global .b32 x;", "line 4, column 1: expected a directive, found `global`"),
        (";", "line 4, column 1: expected a directive, found `;`"),
        (".visible", "line 4, column 9: expected a directive, found the end of the text"),
        (".file 1 a", "line 4, column 9: expected a string, found `a`"),
        (".file 1 \"a", "line 4, column 9: a string without its closing quote"),
        (".file 1 \"a\n\"", "line 4, column 9: a string without its closing quote"),
        (".file 1 \"a\\\"", "line 4, column 9: a string without its closing quote"),
        (".file 1 \"ab\\q\"", "line 4, column 12: an unknown escape in a string"),
        (".file 1 \"\\777\"", "line 4, column 10: an unknown escape in a string"),
        (".file 5000000000 \"a\"", "line 4, column 7: `5000000000` does not fit 32 bits"),
        (".pragma \"a\"", "line 4, column 12: expected `;`, found the end of the text"),
        (".alias a b;", "line 4, column 10: expected `,`, found `b`"),
        (".section x {}", "line 4, column 10: expected a section's name, found `x`"),
        (
            ".section .x { .b8 1; }",
            "line 4, column 20: expected `.b8`, `.b16`, `.b32`, `.b64`, a label or `}`, found `;`",
        ),
        (".section .x { .b8 1.5 }", "line 4, column 19: expected an integer, found a floating-point number"),
        (".section .x { .b8 1, .loc }", "line 4, column 22: expected a value, found `.loc`"),
        (".section .x { .b8 }", "line 4, column 19: expected a value, found `}`"),
        (
            ".section .x { .f32 1 }",
            "line 4, column 15: expected `.b8`, `.b16`, `.b32`, `.b64`, a label or `}`, found `.f32`",
        ),
        (".section .x { a .b8 1 }", "line 4, column 17: expected `:`, found `.b8`"),
        (
            ".section .x {",
            "line 4, column 14: expected `.b8`, `.b16`, `.b32`, `.b64`, a label or `}`, found the end of the text",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(error(&format!("{HEADER}{text}")), expected, "{text}");
    }
}

#[test]
fn declarations() {
    let table = [
        (".global .b32;", "line 4, column 13: expected a name, found `;`"),
        (".global x;", "line 4, column 9: expected a type, found `x`"),
        (".global .b32 x", "line 4, column 15: expected `;`, found the end of the text"),
        (".global .bf16 x;", "line 4, column 9: expected a type, found `.bf16`"),
        (".global .e4m3 x;", "line 4, column 9: expected a type, found `.e4m3`"),
        (".global .pred x;", "line 4, column 9: a predicate must be a scalar register"),
        (".global .v4 .f64 x;", "line 4, column 13: a vector may have at most 128 bits"),
        (".global .v8 .b8 x;", "line 4, column 9: expected a type, found `.v8`"),
        (".global .v2 .align 4 .f32 x;", "line 4, column 13: expected a type, found `.align`"),
        (".global .align 3 .b8 x;", "line 4, column 16: an alignment must be a power of two, not 3"),
        (".global .align 0 .b8 x;", "line 4, column 16: an alignment must be a power of two, not 0"),
        (".global .attribute(.fast) .b8 x;", "line 4, column 20: unsupported attribute `.fast`"),
        (".const[2] .b32 x;", "line 4, column 7: expected a type, found `[`"),
        (".global .b32 x<3>;", "line 4, column 15: expected `;`, found `<`"),
        (".global .b8 x[];", "line 4, column 13: the array `x` has no size"),
        (".global .b8 x[0];", "line 4, column 15: an array's extent must be positive"),
        (".global .b8 x[-1];", "line 4, column 15: an array's extent must be positive"),
        (".global .b8 x[2][];", "line 4, column 18: expected a constant, found `]`"),
        (".global .b8 x[1.5];", "line 4, column 15: expected an integer, found a floating-point number"),
        (".shared .b32 x = 3;", "line 4, column 16: only `.global` and `.const` variables may have an initialiser"),
        (".global .f32 x = 1;", "line 4, column 18: an integer cannot initialise a `.f32`"),
        (".global .u32 x = 1.5;", "line 4, column 18: a floating-point number cannot initialise a `.u32`"),
        (".global .f64 x = 0f3F800000;", "line 4, column 18: a floating-point number cannot initialise a `.f64`"),
        (".global .f16 x = 1.5;", "line 4, column 18: a floating-point number cannot initialise a `.f16`"),
        (".global .f16x2 x = 1;", "line 4, column 20: an integer cannot initialise a `.f16x2`"),
        (".global .b128 x = 1;", "line 4, column 19: an integer cannot initialise a `.b128`"),
        (".global .u32 x = y;", "line 4, column 18: an address can initialise only a 64-bit integer"),
        (".global .u64 x = mask(255, y);", "line 4, column 18: `mask`(…) in an initialiser is not supported"),
        (".global .u64 x = generic(y+4);", "line 4, column 27: expected `)`, found `+`"),
        (".global .u64 x = 4+y;", "line 4, column 20: expected a constant, found `y`"),
        (".global .u64 x = ;", "line 4, column 18: expected an initial value, found `;`"),
        (".global .b8 x[2] = 3;", "line 4, column 20: expected `{`, found `3`"),
        (".global .b8 x = {3};", "line 4, column 17: expected an initial value, found `{`"),
        (".global .b8 x[2] = {1,2,3};", "line 4, column 25: more than 2 elements in an initialiser"),
        (".global .b8 x[2] = {1,};", "line 4, column 23: expected an initial value, found `}`"),
        (".global .b8 x[2][2] = {1, 2, 3, 4};", "line 4, column 24: expected `{`, found `1`"),
        (".global .v4 .b8 x = {1, 2, 3};", "line 4, column 29: expected 4 values for a vector, found `}`"),
        (".global .b8 x[];.b8 y;", "line 4, column 13: the array `x` has no size"),
        (".global .b8 x[] = {};", "line 4, column 13: the array `x` has no size"),
        (
            ".global .b8 x[9][99999] = {{1},{2}};",
            "line 4, column 32: an initialiser with more than 65536 zeros left out between its rows",
        ),
        (
            ".global .b8 x[9][9999999999][9999999999] = {{{1}},{{2}}};",
            "line 4, column 51: an initialiser with more than 65536 zeros left out between its rows",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(error(&format!("{HEADER}{text}")), expected, "{text}");
    }
}

#[test]
fn functions() {
    let table = [
        (".entry () {}", "line 4, column 8: expected a name, found `(`"),
        (".entry k(.u64 p) {}", "line 4, column 10: expected `.param` or `.reg`, found `.u64`"),
        (".entry k(.global .u64 p) {}", "line 4, column 10: expected `.param` or `.reg`, found `.global`"),
        (".entry k(.param .u64 p,) {}", "line 4, column 24: expected `.param` or `.reg`, found `)`"),
        (
            ".entry k(.param .u64 p = 3) {}",
            "line 4, column 24: only `.global` and `.const` variables may have an initialiser",
        ),
        (".entry k() ret;", "line 4, column 12: expected `{` or `;`, found `ret`"),
        (".entry k()", "line 4, column 11: expected `{` or `;`, found the end of the text"),
        (".entry k() .maxntid 1, 2, 3, 4 {}", "line 4, column 28: expected `{` or `;`, found `,`"),
        (".entry k() .maxntid (3) {}", "line 4, column 21: expected a number, found `(`"),
        (".entry k() .maxntid 3 .maxntid 4 {}", "line 4, column 23: `.maxntid` is given twice"),
        (".entry k() .maxnreg 1.5 {}", "line 4, column 21: expected an integer, found a floating-point number"),
        (".entry k() .noreturn {}", "line 4, column 12: unsupported directive `.noreturn`"),
        (".entry k() .fastmath {}", "line 4, column 12: unsupported directive `.fastmath`"),
    ];
    for (text, expected) in table {
        assert_eq!(error(&format!("{HEADER}{text}")), expected, "{text}");
    }
}

/// (body, message); the body begins on line 4, column 1.
#[test]
fn bodies() {
    let table = [
        ("ret", "line 4, column 5: expected `;`, found `}`"),
        ("{ ret; ", "line 5, column 1: expected a statement or `}`, found the end of the text"),
        (";", "line 4, column 1: expected a statement or `}`, found `;`"),
        ("5;", "line 4, column 1: expected a statement or `}`, found `5`"),
        ("%r1 = 5;", "line 4, column 1: expected an instruction, found `%r1`"),
        ("@p L: ret;", "line 4, column 5: expected an operand, found `:`"),
        ("@p { ret; }", "line 4, column 4: expected an instruction, found `{`"),
        ("@!5 ret;", "line 4, column 3: expected a name, found `5`"),
        (".tex .u32 t;", "line 4, column 1: unsupported directive `.tex` in a function"),
        (".global .b32 x;", "line 4, column 1: unsupported directive `.global` in a function"),
        (".loc 1 2", "line 4, column 10: expected a number, found `}`"),
        (".loc 1 2 3;", "line 4, column 11: expected a statement or `}`, found `;`"),
        (
            ".loc 1 2 3, discriminator 4",
            "line 4, column 13: expected `function_name` or `inlined_at`, found `discriminator`",
        ),
        ("t: .branchtargets;", "line 4, column 18: expected a name, found `;`"),
        ("t: .branchtargets a, 5;", "line 4, column 22: expected a name, found `5`"),
        ("t: .callprototype (.param .b32 _);", "line 4, column 34: expected a name, found `;`"),
        (".reg .b32 r = 5;", "line 4, column 13: only `.global` and `.const` variables may have an initialiser"),
        (".reg .b32 r[5];", "line 4, column 12: expected `;`, found `[`"),
        (".reg .b32 %r<4294967296>;", "line 4, column 14: `4294967296` does not fit 32 bits"),
        (".reg .v2 .pred p;", "line 4, column 10: a predicate must be a scalar register"),
        (".shared .b32 x[];", "line 4, column 14: the array `x` has no size"),
    ];
    for (text, expected) in table {
        assert_eq!(error(&kernel(text)), expected, "{text}");
    }
}

/// (operands, message) of an instruction that begins on line 4, column 1 and its operands in column 5.
#[test]
fn operands() {
    let table = [
        ("a,", "line 4, column 7: expected an operand, found `;`"),
        ("a b", "line 4, column 7: expected `;`, found `b`"),
        ("a .v4, b", "line 4, column 7: expected `;`, found `.v4`"),
        (", a", "line 4, column 5: expected an operand, found `,`"),
        ("a, .5", "line 4, column 8: expected an operand, found `.5`"),
        ("{}", "line 4, column 6: expected an operand, found `}`"),
        ("{a, {b}}", "line 4, column 9: expected an operand, found `{`"),
        ("[]", "line 4, column 6: expected an operand, found `]`"),
        ("[a", "line 4, column 7: expected `]`, found `;`"),
        ("[a+b]", "line 4, column 8: expected a constant, found `b`"),
        ("[a[1]]", "line 4, column 7: expected `]`, found `[`"),
        ("[_]", "line 4, column 6: not an address"),
        ("[{a}]", "line 4, column 6: not an address"),
        ("[1.5]", "line 4, column 6: not an address"),
        ("[a+1.5]", "line 4, column 7: `+` on floating-point numbers is not supported"),
        ("a[1]", "line 4, column 5: `a` is not an array of one dimension declared above"),
        ("!5", "line 4, column 6: expected a name, found `5`"),
        ("p|q|r", "line 4, column 8: expected `;`, found `|`"),
        ("p|5", "line 4, column 7: expected a name, found `5`"),
        ("(a, b)", "line 4, column 6: expected a constant, found `a`"),
        ("(1", "line 4, column 7: expected `)`, found `;`"),
        ("1 ? 2 : 3", "line 4, column 7: expected `;`, found `?`"),
        ("(.s64)3", "line 4, column 6: expected a constant, found `.s64`"),
        ("1/0", "line 4, column 6: division by zero"),
        ("5 % (2-2)", "line 4, column 7: division by zero"),
        ("1<<64", "line 4, column 6: a shift by 64 bits or more"),
        ("1.5+1", "line 4, column 8: `+` on floating-point numbers is not supported"),
        ("~1.5", "line 4, column 5: `~` before a floating-point number"),
        ("-0f3F800000", "line 4, column 5: `-` before a hexadecimal floating-point number"),
        ("0f3F8", "line 4, column 5: `0f3F8` is not a number"),
        ("0f3F8000000", "line 4, column 5: `0f3F8000000` is not a number"),
        ("0d3F800000", "line 4, column 5: `0d3F800000` is not a number"),
        ("0f+3F80000", "line 4, column 5: `0f` is not a number"),
        ("08", "line 4, column 5: `08` is not a number"),
        ("0x", "line 4, column 5: `0x` is not a number"),
        ("0xG", "line 4, column 5: `0xG` is not a number"),
        ("0b2", "line 4, column 5: `0b2` is not a number"),
        ("3u", "line 4, column 5: `3u` is not a number"),
        ("1.5.5", "line 4, column 8: expected `;`, found `.5`"),
        ("1e", "line 4, column 5: `1e` is not a number"),
        ("1_000", "line 4, column 5: `1_000` is not a number"),
        ("1e999", "line 4, column 5: `1e999` is larger than an f64 can hold"),
        ("18446744073709551616", "line 4, column 5: `18446744073709551616` does not fit 64 bits"),
        ("#", "line 4, column 5: expected an operand, found `#`"),
        ("\"a\"", "line 4, column 5: expected an operand, found `\"a\"`"),
    ];
    for (text, expected) in table {
        assert_eq!(error(&kernel(&format!("mov {text};"))), expected, "{text}");
    }
}

/// Long tokens are cut in messages.
#[test]
fn long_tokens() {
    let message = error(&"x".repeat(100_000));
    assert_eq!(message, format!("line 1, column 1: expected `.version`, found `{}…`", "x".repeat(60)));
}

/// Deep nesting is an error, long before the stack overflows.
#[test]
fn nesting() {
    let deep = 100_000;
    let texts = [
        format!(".entry k() {}", "{".repeat(deep)),
        format!(".entry k() {{ mov a, {}", "(".repeat(deep)),
        format!(".entry k() {{ mov a, {}1;", "-".repeat(deep)),
        format!(".global .b8 x{} = {}", "[1]".repeat(deep), "{".repeat(deep)),
    ];
    for text in texts {
        let message = error(&format!("{HEADER}{text}"));
        assert!(message.ends_with("nested more than 256 levels deep"), "{message}");
    }
    let blocks = |count: usize| format!("{HEADER}.entry k() {}{}", "{".repeat(count), "}".repeat(count));
    assert!(parse(&blocks(256)).is_ok() && parse(&blocks(257)).is_err());
}
