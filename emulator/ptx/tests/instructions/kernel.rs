//! The PTX text of a form: header, entry and what the harness adds to the code of a template.

use std::fmt::Write;

use super::Scope;
use super::list::{listed, one_line};

/// How much of the kernel the harness adds. Each mode includes the one before.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Mode {
    /// `kernel`: the addresses of the buffers are loaded.
    Kernel,
    /// `thread`: they are advanced to the elements of this thread.
    Thread,
    /// `compute`: the elements of `in` parameters are loaded, and those of `out` parameters stored.
    Compute,
}

const MODES: [(&str, Mode); 3] = [("kernel", Mode::Kernel), ("thread", Mode::Thread), ("compute", Mode::Compute)];

/// The complete text of a form.
pub fn text(scope: &Scope) -> Result<String, String> {
    let (mode, code) = code(scope)?;
    let launch = scope.key("launch")?;
    let (blocks, threads) = threads(launch.as_deref().unwrap_or_default())?;
    let mut params = Vec::new();
    for text in split_params(&one_line(&scope.needed("params")?)) {
        params.push(Param::parse(text, scope)?);
    }

    let mut lines = vec![format!("// {}: {}", scope.name(), one_line(&scope.needed("about")?))];
    for (word, value) in [("launch", launch), ("finding", scope.key("finding")?), ("refuse", scope.key("refuse")?)] {
        lines.extend(value.map(|value| format!("//@ {word} {value}")));
    }
    for param in &params {
        // A list repeats until every thread has its elements.
        let enough = if mode == Mode::Kernel { 0 } else { blocks * threads * param.element.count };
        lines.push(param.directive(enough)?);
    }
    lines.push(".version 9.0".into());
    lines.push(format!(".target {}", scope.key("target")?.unwrap_or("sm_80".into())));
    lines.push(".address_size 64".into());
    lines.extend(scope.key("module")?.map(|module| module.trim().to_owned()).filter(|module| !module.is_empty()));
    let declared: Vec<String> = params.iter().map(Param::declaration).collect();
    lines.push(format!(".visible .entry test({})\n{{", declared.join(", ")));

    let untyped = match scope.key("registers")?.as_deref() {
        None => false,
        Some("untyped") => true,
        Some(other) => return Err(format!("`{other}` is not a kind of registers")),
    };
    let mut text = lines.join("\n") + "\n";
    for line in body(mode, &code, &params, blocks > 1, untyped) {
        let indent = if line.ends_with(':') { "" } else { "\t" };
        let _ = writeln!(text, "{indent}{line}");
    }
    Ok(text + "}\n")
}

/// The code of the kernel: the form's own, or else the template's.
fn code(scope: &Scope) -> Result<(Mode, String), String> {
    for table in scope.own_tables() {
        let present: Vec<_> = MODES.iter().filter(|(key, _)| table.contains_key(*key)).collect();
        match present[..] {
            [] => {}
            [&(key, mode)] => return Ok((mode, scope.needed(key)?)),
            _ => break,
        }
    }
    Err("it needs one of `kernel`, `thread` and `compute`".into())
}

/// The number of blocks, and of threads in each, of a launch such as `grid 2 block 64x2`.
fn threads(launch: &str) -> Result<(usize, usize), String> {
    let words: Vec<&str> = launch.split_whitespace().collect();
    let of = |what: &str, usual: usize| {
        let Some(at) = words.iter().position(|word| *word == what) else { return Ok(usual) };
        let extents = words.get(at + 1).copied().unwrap_or_default().split('x').map(str::parse::<usize>);
        extents.product::<Result<usize, _>>().map_err(|_| format!("`{launch}`: wrong extents"))
    };
    Ok((of("grid", 1)?, of("block", 32)?))
}

/// The lines of the kernel.
fn body(mode: Mode, code: &str, params: &[Param], many_blocks: bool, untyped: bool) -> Vec<String> {
    let buffers = || params.iter().filter(|param| param.kind != "arg");
    let loaded = || params.iter().filter(|param| mode == Mode::Compute && param.kind == "in");
    let stored = || params.iter().filter(|param| mode == Mode::Compute && param.kind == "out");
    let mut lines = Vec::new();
    if mode >= Mode::Thread {
        lines.push(format!(".reg .u32 %i{};", if many_blocks { ", %block, %threads" } else { "" }));
    }
    lines.extend(buffers().map(|Param { name, .. }| format!(".reg .u64 %p{name};")));
    for Param { name, element, .. } in loaded().chain(stored()) {
        lines.push(format!(".reg .{} %{name};", element.register(untyped)));
    }
    lines.extend(buffers().map(|Param { name, .. }| format!("ld.param.u64 %p{name}, [{name}];")));
    if mode >= Mode::Thread {
        lines.push("mov.u32 %i, %tid.x;".into());
        if many_blocks {
            lines.push("mov.u32 %block, %ctaid.x;".into());
            lines.push("mov.u32 %threads, %ntid.x;".into());
            lines.push("mad.lo.u32 %i, %block, %threads, %i;".into());
        }
        for Param { name, element, .. } in buffers() {
            lines.push(format!("mad.wide.u32 %p{name}, %i, {}, %p{name};", element.bytes()));
        }
    }
    for Param { name, element, .. } in loaded() {
        lines.push(format!("ld.global.{} %{name}, [%p{name}];", element.memory()));
    }
    lines.extend(code.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()));
    for Param { name, element, .. } in stored() {
        lines.push(format!("st.global.{} [%p{name}], %{name};", element.memory()));
    }
    if mode >= Mode::Thread {
        lines.push("ret;".into());
    }
    lines
}

const KINDS: [&str; 4] = ["in", "out", "inout", "arg"];

/// Splits at the commas after which a parameter begins.
fn split_params(text: &str) -> Vec<&str> {
    let begins =
        |rest: &str| KINDS.iter().any(|kind| rest.strip_prefix(kind).is_some_and(|rest| rest.starts_with(' ')));
    let mut params = Vec::new();
    let mut start = 0;
    for (at, comma) in text.match_indices(", ") {
        let next = at + comma.len();
        if begins(&text[next..]) {
            params.push(&text[start..at]);
            start = next;
        }
    }
    params.push(&text[start..]);
    params
}

/// A parameter of the entry.
struct Param {
    kind: &'static str,
    name: String,
    element: Element,
    /// How the result is compared, in the words of the header; empty for equal bits.
    comparison: String,
    values: String,
}

impl Param {
    /// Reads `out d: f32 within 2 ulps = 1.0, 2.0`. Without ` = ` the values are those of the key `d`.
    fn parse(text: &str, scope: &Scope) -> Result<Self, String> {
        let wrong = || format!("parameter `{text}`: expected `in`, `out`, `inout` or `arg`, then `name: type`");
        let (declared, values) = match text.split_once(" = ") {
            Some((declared, values)) => (declared, Some(values.to_owned())),
            None => (text, None),
        };
        let (kind, rest) = declared.split_once(' ').ok_or_else(wrong)?;
        let kind = KINDS.into_iter().find(|known| *known == kind).ok_or_else(wrong)?;
        let (name, rest) = rest.split_once(": ").ok_or_else(wrong)?;
        let (element, comparison) = rest.split_once(' ').unwrap_or((rest, ""));
        let element = Element::parse(element)?;
        let values = match values {
            Some(values) => values,
            None => scope.key(name)?.ok_or(format!("there are no values for the parameter `{name}`"))?,
        };
        Ok(Param { kind, name: name.to_owned(), element, comparison: comparison.to_owned(), values })
    }

    /// The line of the header.
    fn directive(&self, enough: usize) -> Result<String, String> {
        let Param { kind, name, element, comparison, values } = self;
        let enough = if *kind == "arg" { 0 } else { enough };
        let lists = values.split(" becomes ").map(|values| listed(values, enough));
        let lists: Vec<String> =
            lists.collect::<Result<_, _>>().map_err(|what| format!("values of `{name}`: {what}"))?;
        let space = if comparison.is_empty() { "" } else { " " };
        Ok(format!("//@ {kind} {name}: {}{space}{comparison} = {}", element.ty, lists.join(" becomes ")))
    }

    fn declaration(&self) -> String {
        let Param { kind, name, element, .. } = self;
        match (*kind, element.count) {
            ("arg", 1) => format!(".param .{} {name}", element.ty),
            ("arg", _) => format!(".param .align {} .b8 {name}[{}]", element.bits / 8, element.bytes()),
            _ => format!(".param .u64 {name}"),
        }
    }
}

/// What one thread has of a buffer: `f16x2` is two elements of type `f16`.
pub struct Element {
    ty: String,
    bits: usize,
    count: usize,
}

impl Element {
    /// # Errors
    /// It is not a type.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a type");
        let (ty, count) = text.split_once('x').unwrap_or((text, "1"));
        let bits = ty.trim_start_matches(|c: char| c.is_ascii_lowercase()).parse().map_err(|_| wrong())?;
        if ![8, 16, 32, 64].contains(&bits) {
            return Err(wrong());
        }
        Ok(Element { ty: ty.to_owned(), bits, count: count.parse().map_err(|_| wrong())? })
    }

    pub fn bytes(&self) -> usize {
        self.bits / 8 * self.count
    }

    /// The type of the instructions that load and store it. PTX has none for packed elements, `f16` and `bf16`.
    fn memory(&self) -> String {
        let bits = self.bits * self.count;
        if self.count > 1 || self.ty.ends_with("f16") { format!("b{bits}") } else { self.ty.clone() }
    }

    /// The type of its register, which has at least 16 bits.
    fn register(&self, untyped: bool) -> String {
        let bits = self.bits * self.count;
        match self.memory() {
            float if float.starts_with('f') => float,
            typed if bits > 8 && !untyped => typed,
            _ => format!("b{}", bits.max(16)),
        }
    }
}
