//! A wrong expectation, header or template fails, and the message says where it is and what is wrong.

use crate::case::Case;
use crate::corpus::{self, Form};
use crate::{root, run_everywhere};

const ADD: &str = "\
// Adds.
//@ in a: u32 = [1, 2, 3, 4; 32]
//@ out d: u32 = [11, 12, 13, 14; 32]
.version 9.0
.target sm_80
.address_size 64
.visible .entry test(.param .u64 a, .param .u64 d)
{
	.reg .u32 %i, %a;
	.reg .u64 %pa, %pd;
	ld.param.u64 %pa, [a];
	ld.param.u64 %pd, [d];
	mov.u32 %i, %tid.x;
	mad.wide.u32 %pa, %i, 4, %pa;
	mad.wide.u32 %pd, %i, 4, %pd;
	ld.global.u32 %a, [%pa];
	add.u32 %a, %a, 10;
	st.global.u32 [%pd], %a;
	ret;
}
";

/// The error of the text above with one line replaced.
fn changed(from: &str, to: &str) -> String {
    let text = ADD.replace(from, to);
    assert_ne!(text, ADD, "{from}");
    Case::parse("add", &text).and_then(|case| run_everywhere(&case)).expect_err(to)
}

#[test]
fn a_wrong_expectation_fails() {
    Case::parse("add", ADD).and_then(|case| run_everywhere(&case)).expect("the right one");
    assert_eq!(
        changed("[11, 12, 13, 14; 32]", "[11, 12, 14, 14; 32]"),
        "add (sm_80, seed 0):\n  d[2] is 0x0000000d (13), expected 0x0000000e (14)\n  \
         d[6] is 0x0000000d (13), expected 0x0000000e (14)\n  \
         d[10] is 0x0000000d (13), expected 0x0000000e (14)\n  \
         d[14] is 0x0000000d (13), expected 0x0000000e (14)\n  8 of 32 elements of d differ"
    );
    let unwritten = changed("[11, 12, 13, 14; 32]", "[11, 12, 13, 14; 33]");
    assert!(unwritten.contains("d[32] is 0xcbcbcbcb"), "{unwritten}");
    let clobbered = changed("st.global.u32 [%pd]", "st.global.u32 [%pa]");
    assert!(clobbered.contains("a[0] is 0x0000000b (11), expected 0x00000001 (1)"), "{clobbered}");
    let finding = changed("//@ out", "//@ finding Bounds: outside\n//@ out");
    assert!(finding.contains("expected a finding Bounds"), "{finding}");
    let refused = changed("//@ out", "//@ refuse an unknown instruction\n//@ out");
    assert!(refused.contains("it was loaded"), "{refused}");
    let other = changed("add.u32", "addd.u32");
    assert!(other.contains("addd"), "{other}");
}

#[test]
fn a_wrong_header_is_named() {
    let cases = [
        ("//@ in a", "//@ inn a", "add: `inn a: u32 = [1, 2, 3, 4; 32]`: no such directive"),
        ("3, 4; 32]", "3, x; 32]", "add: `in a: u32 = [1, 2, 3, x; 32]`: `x` is not an integer of 32 bits"),
        ("d: u32 =", "d: u33 =", "`u33` is not a type"),
        ("d: u32 =", "d: u32 near =", "`near` is not a comparison"),
        ("[11, 12, 13, 14; 32]", "mma(m16n8k16, a, b)", "there is no reference `mma` of 3 arguments"),
        ("//@ in a", "//@ launch block 32x1x1x1\n//@ in a", "more than three extents"),
        ("//@ out d", "//@ arg n: u32 = 1\n//@ out d", "the entry has 2 parameters, the header 3"),
        ("//@ out d: u32", "//@ arg d: u32", "the parameter d has 8 bytes"),
    ];
    for (from, to, message) in cases {
        let error = changed(from, to);
        assert!(error.contains(message), "{error}\n{message}");
    }
}

const TEMPLATE: &str = r#"
[values.one]
b = "1"

[[template]]
about = "a + b"
names = "add.{type}"
like = "one"
params = "in a: {type}, in b: {type}, out d: {type}"
compute = "{name} %d, %a, %b;"
[template.form]
"add.u32" = { a = "1, 2", d = "2, 3" }
"#;

fn expanded(text: &str) -> Result<Vec<Form>, String> {
    corpus::expand("sum", &[("sum/add.toml".to_owned(), text.to_owned())])
}

#[test]
fn a_wrong_template_is_named() {
    assert_eq!(expanded(TEMPLATE).map(|forms| forms[0].name.clone()), Ok("sum/add.u32".to_owned()));
    let cases = [
        ("a = \"1, 2\"", "a = 1", "sum/add.toml: TOML parse error"),
        ("names = \"add", "names = \"sub", "sum/add.toml: the form `add.u32` does not match the names `sub.{type}`"),
        ("a = \"1, 2\", ", "", "sum/add.toml: form `add.u32`: there are no values for the parameter `a`"),
        ("{name} %d", "{instruction} %d", "there is no value for `{instruction}`"),
        ("d = \"2, 3\"", "d = \"2, 3\", c = \"4\"", "nothing uses its key `c`"),
        ("about", "abuot", "it has no `about`"),
        ("like = \"one\"", "like = \"two\"", "there is neither a form `two` nor a table [values.two]"),
        ("b = \"1\"", "b = \"1\"\nc = \"1\"", "no form uses the key `c`"),
        ("b = \"1\"", "b = \"{b}\"", "the value of `b` contains itself"),
        ("compute =", "compile =", "it needs one of `kernel`, `thread` and `compute`"),
        ("in b: {type}", "inn b: {type}", "`u32,` is not a type"),
        ("\"add.u32\" =", "\"add.u3\" =", "`u3` is not a type"),
        ("1, 2", "1*x", "values of `a`: `1*x`: `x` is not a number"),
        ("1, 2", "pairs(1", "a bracket is open"),
    ];
    for (from, to, message) in cases {
        let text = TEMPLATE.replace(from, to);
        assert_ne!(text, TEMPLATE, "{from}");
        let result = expanded(&text).and_then(|forms| Case::parse("add", &forms[0].text).map(drop));
        let error = result.expect_err(to);
        assert!(error.contains(message), "{error}\n{message}");
    }
}

/// The first block of the readme in a language.
fn block<'a>(readme: &'a str, language: &str) -> &'a str {
    let start = readme.split_once(&format!("```{language}\n")).unwrap_or_else(|| panic!("a block of {language}")).1;
    start.split_once("```").expect("the end of the block").0
}

#[test]
fn the_example_in_the_readme_expands_as_it_says() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("the readme");
    let forms = expanded(block(&readme, "toml")).expect("the example");
    let form = forms.iter().find(|form| form.name == "sum/add.u16").expect("the form");
    assert_eq!(form.text, block(&readme, "ptx"));
    for form in &forms {
        Case::parse(&form.name, &form.text).and_then(|case| run_everywhere(&case)).expect("the example runs");
    }
}
