//! Directives at module scope, and of a function before its body.

use crate::{body, function, module};
use ptx_emulator::ast::{Linkage, Position, Space, Statement};
use ptx_emulator::parse::parse;

#[test]
fn header() {
    let module = parse(".version 8.7\n.target sm_80, debug\n.address_size 64").unwrap();
    assert_eq!((module.version, module.target.as_str()), ((8, 7), "sm_80"));
    assert_eq!(parse(".version 9.0 .target sm_120f").unwrap().target, "sm_120f");
}

#[test]
fn files() {
    let module = module(
        r#".file 1 "kernels/a.cu"
        .file 2 "C:\\a \"b\".cu", 1700000000, 4096
        .file 3 "\303\274\x2Ecu""#,
    );
    let paths = ["kernels/a.cu", r#"C:\a "b".cu"#, "ü.cu"];
    let expected: Vec<_> = (1..).zip(paths.map(String::from)).collect();
    assert_eq!(module.files, expected);
}

#[test]
fn sections_pragmas_and_comments_leave_nothing() {
    let module = module(
        r#".pragma "nounroll", "used_bytes_mask 0xfff";
        // .global .b32 x;
        /* .global .b32 y; // */
        .section .debug_str { $L__info_string0: .b8 95,90, 0
        .b8 1 }
        .section .debug_info {
        .b32 .debug_abbrev
        .b32 -1
        .b64 $L__tmp0+4, $L__end-$L__begin
        .b16 0x7f
        empty: }
        .section .debug_macinfo {}"#,
    );
    assert!(module.variables.is_empty() && module.functions.is_empty());
}

#[test]
fn aliases() {
    let module = module(".func f() { ret; } .func g(); .alias g, f;");
    assert_eq!(module.aliases, [("g".to_owned(), "f".to_owned())]);
}

#[test]
fn linkage_of_variables() {
    let module = module(
        ".global .b32 a; .visible .global .b32 b; .extern .shared .b8 c[]; .weak .const .b32 d; .common .global .b32 e;",
    );
    let found: Vec<_> = module.variables.iter().map(|v| (v.name.as_str(), v.linkage, v.space)).collect();
    let expected = [
        ("a", Linkage::Internal, Space::Global),
        ("b", Linkage::Visible, Space::Global),
        ("c", Linkage::Extern, Space::Shared),
        ("d", Linkage::Weak, Space::Const),
        ("e", Linkage::Common, Space::Global),
    ];
    assert_eq!(found, expected);
}

#[test]
fn functions() {
    let module = module(
        ".extern .func (.param .b32 r) vprintf (.param .b64 a, .param .b64 b);
        .func nothing;
        .func empty() { }
        .weak .func .attribute(.unified(1, 2)) (.reg .b32 x, .reg .b32 y) two (.reg .b32 z) .noreturn { ret; }
        .visible .entry plain { ret; }
        .entry declared(.param .u64 p);",
    );
    let shape = |index: usize| {
        let function = &module.functions[index];
        let counts = (function.returns.len(), function.params.len(), function.body.as_ref().map(Vec::len));
        (function.name.as_str(), function.is_entry, function.linkage, counts)
    };
    assert_eq!(shape(0), ("vprintf", false, Linkage::Extern, (1, 2, None)));
    assert_eq!(shape(1), ("nothing", false, Linkage::Internal, (0, 0, None)));
    assert_eq!(shape(2), ("empty", false, Linkage::Internal, (0, 0, Some(0))));
    assert_eq!(shape(3), ("two", false, Linkage::Weak, (2, 1, Some(1))));
    assert_eq!(shape(4), ("plain", true, Linkage::Visible, (0, 0, Some(1))));
    assert_eq!(shape(5), ("declared", true, Linkage::Internal, (0, 1, None)));
    assert_eq!(module.functions[5].position, Position { line: 9, column: 16 });
}

#[test]
fn parameters() {
    let function = function(
        ".entry k(.param .u64 p, .param .u64 .ptr q, .param .u64 .ptr .global .align 16 r, .param .u64 .ptr .align 4 s,
        .param .align 8 .b8 t[40], .param .b8 u[], .param .f32 v) {}",
    );
    let found: Vec<_> =
        function.params.iter().map(|p| (p.name.as_str(), p.space, p.align, p.extents.clone(), p.size())).collect();
    let expected = [
        ("p", Space::Param, 8, vec![], Some(8)),
        ("q", Space::Param, 8, vec![], Some(8)),
        ("r", Space::Param, 8, vec![], Some(8)),
        ("s", Space::Param, 8, vec![], Some(8)),
        ("t", Space::Param, 8, vec![40], Some(40)),
        ("u", Space::Param, 1, vec![0], Some(0)),
        ("v", Space::Param, 4, vec![], Some(4)),
    ];
    assert_eq!(found, expected);
}

#[test]
fn performance_directives() {
    let none = function(".entry k() .explicitcluster .pragma \"nounroll\"; {}");
    assert_eq!((none.max_threads, none.required_threads, none.required_cluster), (None, None, None));
    assert_eq!((none.max_cluster_rank, none.min_blocks_per_sm, none.max_registers), (None, None, None));
    assert!(!none.blocks_are_clusters);

    let all = function(
        ".entry k()
        .maxntid 384
        .reqntid 32, 2, 3
        .minnctapersm 2
        .maxnreg 168
        .reqnctapercluster 2, 1
        .maxclusterrank 8
        .blocksareclusters
        {}",
    );
    assert_eq!((all.max_threads, all.required_threads), (Some([384, 1, 1]), Some([32, 2, 3])));
    assert_eq!((all.required_cluster, all.max_cluster_rank), (Some([2, 1, 1]), Some(8)));
    assert_eq!((all.min_blocks_per_sm, all.max_registers, all.blocks_are_clusters), (Some(2), Some(168), true));

    function(".func f() .noreturn .abi_preserve 8 .abi_preserve_control 2 .pragma \"x\"; {}");
}

#[test]
fn locations() {
    let statements = body(
        ".loc\t1 24 3
        .loc 2 449 9, function_name $L__info_string0, inlined_at 1 28 3
        .loc 3 0 0, function_name $L__info+4, inlined_at 2 1 1
        ret;",
    );
    let found: Vec<_> = statements
        .iter()
        .filter_map(|statement| match *statement {
            Statement::Location { file, line, column, inlined_at } => Some((file, line, column, inlined_at)),
            _ => None,
        })
        .collect();
    assert_eq!(found, [(1, 24, 3, None), (2, 449, 9, Some((1, 28, 3))), (3, 0, 0, Some((2, 1, 1)))]);
}

#[test]
fn labels_and_targets() {
    let statements = body(
        "$L__BB0_1: a: .reg .b32 r;
        t: .branchtargets $L__BB0_1, a;
        c: .calltargets f, g;
        p: .callprototype (.param .b32 _) _ (.param .b64 _, .param .align 4 .b8 _[8]) .noreturn;
        q: .callprototype _;
        { .pragma \"nounroll\"; }
        end:",
    );
    let describe = |statement: &Statement| match statement {
        Statement::Label(position, name) => format!("{name} at {position}"),
        Statement::BranchTargets { name, targets, .. } => format!("{name}: {}", targets.join(" ")),
        Statement::CallTargets { name, .. } => format!("{name}: calls"),
        Statement::Variable(variable) => variable.name.clone(),
        Statement::Block(inner) => format!("block of {}", inner.len()),
        other => panic!("{other:?}"),
    };
    let found: Vec<_> = statements.iter().map(describe).collect();
    let expected = [
        "$L__BB0_1 at line 4, column 14",
        "a at line 4, column 25",
        "r",
        "t: $L__BB0_1 a",
        "c: calls",
        "p: calls",
        "q: calls",
        "block of 0",
        "end at line 10, column 9",
    ];
    assert_eq!(found, expected);
}
