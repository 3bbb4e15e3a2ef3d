//! The header of a PTX text: what to launch the kernel with, and what its buffers must hold afterwards. Nothing here
//! executes PTX, so that tests of any device can include this module. `README.md` describes the header.

#[path = "reference.rs"]
mod reference;
#[path = "value.rs"]
pub mod value;

use value::{Form, Random, Type, Value};

/// One form with its header.
#[derive(Debug)]
pub struct Case {
    /// `integer/add.u32`
    pub name: String,
    pub text: String,
    /// Of `.target sm_80`: 80.
    pub target: u32,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared: u32,
    /// The entry's parameters, in order.
    pub arguments: Vec<Argument>,
    pub outcome: Outcome,
}

/// A parameter of the entry `test`.
#[derive(Debug, Clone)]
pub enum Argument {
    /// The parameter's bytes.
    Scalar { name: String, bytes: Vec<u8> },
    /// The parameter is the address of a buffer.
    Buffer(Buffer),
}

#[derive(Debug, Clone)]
pub struct Buffer {
    pub name: String,
    pub ty: Type,
    pub elements: usize,
    /// The contents before the launch; `None` for a buffer that nothing has written.
    pub before: Option<Vec<u64>>,
    pub after: Option<Expected>,
}

/// The contents that a buffer must have after the launch.
#[derive(Debug, Clone)]
pub struct Expected {
    pub values: Vec<Value>,
    pub tolerance: Tolerance,
    /// The order of the elements is not compared.
    pub any_order: bool,
}

/// A result is right if it is within any of the three. All zero: the bits must be equal.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Tolerance {
    pub ulps: u64,
    pub relative: f64,
    pub absolute: f64,
}

/// How a launch ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Completes,
    /// The launch ends with a finding of that check, with these words in its message.
    Finding {
        check: String,
        words: String,
    },
    /// Loading fails with a message that has these words.
    Refused {
        words: String,
    },
}

impl Case {
    /// Reads the header of a text.
    ///
    /// # Errors
    /// Names the form and the directive, and says what is wrong with it.
    pub fn parse(name: &str, text: &str) -> Result<Self, String> {
        let target = text.lines().find_map(|line| line.strip_prefix(".target sm_"));
        let digits = target.map(|rest| rest.trim_end_matches(|c: char| !c.is_ascii_digit()));
        let target = digits.and_then(|digits| digits.parse().ok()).ok_or(format!("{name}: no line `.target sm_NN`"))?;
        let mut case = Case {
            name: name.to_owned(),
            text: text.to_owned(),
            target,
            grid: [1; 3],
            block: [32, 1, 1],
            shared: 0,
            arguments: Vec::new(),
            outcome: Outcome::Completes,
        };
        for directive in directives(text) {
            case.directive(&directive).map_err(|what| format!("{name}: `{}`: {what}", shortened(&directive)))?;
        }
        Ok(case)
    }

    fn directive(&mut self, directive: &str) -> Result<(), String> {
        let (word, rest) = directive.split_once(' ').unwrap_or((directive, ""));
        match word {
            "launch" => self.launch(rest),
            "arg" => self.argument(rest),
            "in" | "out" | "inout" => self.buffer(word, rest),
            "finding" => {
                let (check, words) = rest.split_once(": ").unwrap_or((rest, ""));
                self.outcome = Outcome::Finding { check: check.to_owned(), words: words.to_owned() };
                Ok(())
            }
            "refuse" if !rest.is_empty() => {
                self.outcome = Outcome::Refused { words: rest.to_owned() };
                Ok(())
            }
            _ => Err("no such directive".into()),
        }
    }

    fn launch(&mut self, rest: &str) -> Result<(), String> {
        let words: Vec<&str> = rest.split_whitespace().collect();
        for pair in words.chunks(2) {
            let &[what, number] = pair else { return Err("a number is missing".into()) };
            let wrong = |_| format!("`{number}` is not a number");
            match what {
                "grid" => self.grid = extents(number)?,
                "block" => self.block = extents(number)?,
                "shared" => self.shared = number.parse().map_err(wrong)?,
                _ => return Err(format!("`{what}` is not one of grid, block, shared")),
            }
        }
        Ok(())
    }

    fn argument(&mut self, rest: &str) -> Result<(), String> {
        let (name, rest) = rest.split_once(": ").ok_or("needs `name: type = value`")?;
        let (ty, values) = rest.split_once(" = ").ok_or("needs `name: type = value`")?;
        let ty = Type::parse(ty).ok_or(format!("`{ty}` is not a type"))?;
        let list = if values.starts_with('[') { values.to_owned() } else { format!("[{values}]") };
        let bytes = bytes_of(ty, &self.inputs(ty, &list)?);
        self.arguments.push(Argument::Scalar { name: name.to_owned(), bytes });
        Ok(())
    }

    fn buffer(&mut self, word: &str, rest: &str) -> Result<(), String> {
        let (name, rest) = rest.split_once(": ").ok_or("needs `name: type = values`")?;
        let (head, values) = rest.split_once(" = ").ok_or("needs `name: type = values`")?;
        let (ty, comparison) = head.split_once(' ').unwrap_or((head, ""));
        let ty = Type::parse(ty).ok_or(format!("`{ty}` is not a type"))?;
        let (before, after) = match word {
            "in" => (Some(values), None),
            "out" => (None, Some(values)),
            _ => values
                .split_once(" becomes ")
                .map(|(before, after)| (Some(before), Some(after)))
                .ok_or("needs `becomes`")?,
        };
        let (tolerance, any_order) = comparison_of(comparison)?;
        let before = before.map(|text| self.inputs(ty, text)).transpose()?;
        let after = after.map(|text| self.expected(ty, text)).transpose()?;
        let lengths = (before.as_ref().map(Vec::len), after.as_ref().map(Vec::len));
        if let (Some(before), Some(after)) = lengths
            && before != after
        {
            return Err(format!("{before} elements before, {after} after"));
        }
        let elements = lengths.0.or(lengths.1).unwrap_or(0);
        let after = after.map(|values| Expected { values, tolerance, any_order });
        self.arguments.push(Argument::Buffer(Buffer { name: name.to_owned(), ty, elements, before, after }));
        Ok(())
    }

    fn inputs(&self, ty: Type, text: &str) -> Result<Vec<u64>, String> {
        match call(text) {
            Some((name, arguments)) => generate(ty, name, &arguments)?.ok_or(format!("`{name}` is not a generator")),
            None => list(text)?.into_iter().map(|literal| ty.literal(literal)).collect(),
        }
    }

    fn expected(&self, ty: Type, text: &str) -> Result<Vec<Value>, String> {
        let Some((name, arguments)) = call(text) else {
            return list(text)?.into_iter().map(|literal| ty.expected(literal)).collect();
        };
        let bits = match generate(ty, name, &arguments)? {
            Some(bits) => bits,
            None => reference::compute(name, &arguments, ty, &|name| self.input(name))?,
        };
        let value = |bits| if ty.is_nan(bits) { Value::Nan } else { Value::Bits(bits) };
        Ok(bits.into_iter().map(value).collect())
    }

    /// The type and contents of the input buffer of that name.
    fn input(&self, name: &str) -> Option<(Type, &[u64])> {
        self.buffers()
            .find(|buffer| buffer.name == name)
            .and_then(|buffer| Some((buffer.ty, &buffer.before.as_ref()?[..])))
    }

    /// The arguments that are buffers.
    pub fn buffers(&self) -> impl Iterator<Item = &Buffer> {
        self.arguments.iter().filter_map(|argument| match argument {
            Argument::Buffer(buffer) => Some(buffer),
            Argument::Scalar { .. } => None,
        })
    }
}

impl Buffer {
    pub fn bytes(&self) -> usize {
        self.elements * self.ty.bytes()
    }

    /// The bytes to write before the launch.
    pub fn initial(&self) -> Option<Vec<u8>> {
        self.before.as_ref().map(|values| bytes_of(self.ty, values))
    }

    /// Compares the contents after the launch with those expected. An input must be unchanged.
    ///
    /// # Errors
    /// Lists the first few elements that differ.
    pub fn check(&self, bytes: &[u8]) -> Result<(), String> {
        let mut got: Vec<u64> = bytes.chunks(self.ty.bytes()).map(element).collect();
        let unchanged = || Expected {
            values: self.before.iter().flatten().map(|&bits| Value::Bits(bits)).collect(),
            tolerance: Tolerance::default(),
            any_order: false,
        };
        let Expected { mut values, tolerance, any_order } = self.after.clone().unwrap_or_else(unchanged);
        if any_order {
            got.sort_unstable();
            values.sort_unstable_by_key(|value| match value {
                Value::Bits(bits) => *bits,
                Value::Nan | Value::Any => u64::MAX,
            });
        }
        let differs = |&(_, (&got, &value)): &(usize, (&u64, &Value))| !tolerance.accepts(self.ty, got, value);
        let wrong: Vec<_> = got.iter().zip(&values).enumerate().filter(differs).collect();
        if wrong.is_empty() {
            return Ok(());
        }
        let line = |&(index, (&got, &value)): &(usize, (&u64, &Value))| {
            let expected = match value {
                Value::Bits(bits) => self.ty.show(bits),
                Value::Nan => "a NaN".into(),
                Value::Any => "anything".into(),
            };
            let sorted = if any_order { " (sorted)" } else { "" };
            format!("{}[{index}]{sorted} is {}, expected {expected}", self.name, self.ty.show(got))
        };
        let mut lines: Vec<String> = wrong.iter().take(4).map(line).collect();
        lines.push(format!("{} of {} elements of {} differ", wrong.len(), got.len(), self.name));
        Err(lines.join("\n  "))
    }
}

impl Tolerance {
    fn accepts(self, ty: Type, got: u64, expected: Value) -> bool {
        let bits = match expected {
            Value::Any => return true,
            Value::Nan => return ty.is_nan(got),
            Value::Bits(bits) => bits,
        };
        if got == bits {
            return true;
        }
        if ty.is_nan(got) || ty.is_nan(bits) {
            return false;
        }
        let (have, want) = (ty.number(got), ty.number(bits));
        let error = (have - want).abs();
        ty.distance(got, bits) <= self.ulps && self.ulps > 0
            || error <= self.relative * want.abs() && self.relative > 0.0
            || error <= self.absolute && self.absolute > 0.0
    }
}

/// The lines that begin with `//@`. One with an open bracket, or with `becomes` at its end, continues on the next line.
fn directives(text: &str) -> Vec<String> {
    let mut directives: Vec<String> = Vec::new();
    let mut open = false;
    for line in text.lines().filter_map(|line| line.strip_prefix("//@")) {
        match directives.last_mut() {
            Some(last) if open => {
                last.push(' ');
                last.push_str(line.trim());
            }
            _ => directives.push(line.trim().to_owned()),
        }
        let count = |c: char| directives.last().map_or(0, |last| last.matches(c).count());
        open = count('[') > count(']') || directives.last().is_some_and(|last| last.ends_with("becomes"));
    }
    directives
}

fn shortened(directive: &str) -> String {
    let mut short: String = directive.chars().take(60).collect();
    if short.len() < directive.len() {
        short.push('…');
    }
    short
}

/// `64x2` is (64, 2, 1).
fn extents(text: &str) -> Result<[u32; 3], String> {
    let mut extents = [1; 3];
    let mut given = text.split('x');
    for (extent, number) in extents.iter_mut().zip(given.by_ref()) {
        *extent = number.parse().map_err(|_| format!("`{number}` is not a number"))?;
    }
    if given.next().is_some() { Err("more than three extents".into()) } else { Ok(extents) }
}

/// `within 2 ulps`, `within rel 2^-22 abs 1e-9`, `in any order`
fn comparison_of(text: &str) -> Result<(Tolerance, bool), String> {
    let mut tolerance = Tolerance::default();
    let words: Vec<&str> = text.split_whitespace().collect();
    let rest = match words[..] {
        [] => return Ok((tolerance, false)),
        ["in", "any", "order"] => return Ok((tolerance, true)),
        ["within", ref rest @ ..] => rest,
        _ => return Err(format!("`{text}` is not a comparison")),
    };
    for pair in rest.chunks(2) {
        match *pair {
            [number, "ulp" | "ulps"] => {
                tolerance.ulps = number.parse().map_err(|_| format!("`{number}` is not a number"))?
            }
            ["rel", number] => tolerance.relative = magnitude(number)?,
            ["abs", number] => tolerance.absolute = magnitude(number)?,
            _ => return Err(format!("`{}` is not a tolerance", pair.join(" "))),
        }
    }
    Ok((tolerance, false))
}

/// `1e-9` or `2^-22.5`
fn magnitude(text: &str) -> Result<f64, String> {
    let number = |text: &str| text.parse::<f64>().map_err(|_| format!("`{text}` is not a number"));
    match text.strip_prefix("2^") {
        Some(exponent) => number(exponent).map(f64::exp2),
        None => number(text),
    }
}

/// `name(a, b)`
fn call(text: &str) -> Option<(&str, Vec<&str>)> {
    let (name, rest) = text.split_once('(').filter(|_| !text.starts_with('['))?;
    let arguments = rest.strip_suffix(')')?;
    Some((name, arguments.split(',').map(str::trim).collect()))
}

/// `[a, b]`, or `[a, b; 32]`: repeated until there are 32.
fn list(text: &str) -> Result<Vec<&str>, String> {
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).ok_or("a list in brackets is needed")?;
    let (inner, count) = match inner.split_once(';') {
        Some((inner, count)) => (inner, Some(count.trim().parse().map_err(|_| format!("`{count}` is not a number"))?)),
        None => (inner, None),
    };
    let elements: Vec<&str> = inner.split(',').map(str::trim).filter(|element| !element.is_empty()).collect();
    if elements.is_empty() {
        return Err("an empty list".into());
    }
    let count = count.unwrap_or(elements.len());
    Ok(elements.into_iter().cycle().take(count).collect())
}

/// The elements that a generator makes; `None` if there is no generator of that name.
fn generate(ty: Type, name: &str, arguments: &[&str]) -> Result<Option<Vec<u64>>, String> {
    let numbers = || {
        let number = |text: &&str| text.parse::<f64>().map_err(|_| format!("`{text}` is not a number"));
        arguments.iter().map(number).collect::<Result<Vec<f64>, _>>()
    };
    let bits: Vec<u64> = match name {
        "iota" => {
            let numbers = numbers()?;
            let &[count, ref rest @ ..] = &numbers[..] else { return Err("iota needs a count".into()) };
            let (start, step) = (rest.first().unwrap_or(&0.0), rest.get(1).unwrap_or(&1.0));
            (0..count as usize).map(|i| ty.round(start + step * i as f64)).collect()
        }
        "random" => {
            let numbers = numbers()?;
            let &[count, seed] = &numbers[..] else { return Err("random needs a count and a seed".into()) };
            let mut random = Random(seed as u64);
            let mut one = || match ty.form {
                Form::Float { .. } => ty.round(2.0 * random.unit() - 1.0),
                _ => random.next() & ty.mask(),
            };
            (0..count as usize).map(|_| one()).collect()
        }
        "integers" => {
            let numbers = numbers()?;
            let &[count, seed, low, high] = &numbers[..] else {
                return Err("integers needs a count, a seed, the lowest and the highest".into());
            };
            let mut random = Random(seed as u64);
            let mut one = || ty.round(low + (random.unit() * (high - low + 1.0)).floor());
            (0..count as usize).map(|_| one()).collect()
        }
        _ => return Ok(None),
    };
    Ok(Some(bits))
}

fn bytes_of(ty: Type, values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes().into_iter().take(ty.bytes())).collect()
}

fn element(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte))
}
