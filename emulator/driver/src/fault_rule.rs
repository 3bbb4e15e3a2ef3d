//! The rules of injected faults: which call of which function returns which code.

use crate::codes;
use crate::function_names;

/// An injected fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// An exported name, or a name without version and variant, which stands for all of them.
    name: String,
    /// The number of the call, from 1; `None` for every call.
    at: Option<u64>,
    code: u32,
    /// Number of calls so far.
    calls: u64,
}

impl Rule {
    /// Counts a call of a function; returns the code that it must return, if the fault is due.
    pub fn count(&mut self, name: &str) -> Option<u32> {
        if self.name != name && self.name != function_names::base(name) {
            return None;
        }
        self.calls += 1;
        self.at.is_none_or(|at| at == self.calls).then_some(self.code)
    }
}

/// Parses `NAME:K=CODE[,…]`.
///
/// # Errors
/// The text, and what was expected.
pub fn parse(text: &str) -> Result<Vec<Rule>, String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(parse_rule).collect()
}

fn parse_rule(part: &str) -> Result<Rule, String> {
    let wrong = |what: &str| format!("'{part}': {what}; expected NAME:K=CODE with K from 1 or *");
    let (call, code) = part.split_once('=').ok_or_else(|| wrong("there is no '='"))?;
    let (name, at) = call.split_once(':').ok_or_else(|| wrong("there is no ':'"))?;
    let code = code.parse().ok().or_else(|| codes::code_of(code)).ok_or_else(|| wrong("the code is unknown"))?;
    let at = match at {
        "*" => None,
        number => Some(number.parse().ok().filter(|&k| k > 0).ok_or_else(|| wrong("the call number is invalid"))?),
    };
    if !function_names::exists(name) {
        return Err(wrong("the driver has no such function"));
    }
    Ok(Rule { name: name.to_owned(), at, code, calls: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_parsed() {
        let rules = parse("cuMemAlloc:2=CUDA_ERROR_OUT_OF_MEMORY, cuLaunchKernel:*=719,cuInit:1=123456").unwrap();
        assert_eq!(
            rules.iter().map(|r| (r.at, r.code)).collect::<Vec<_>>(),
            [(Some(2), 2), (None, 719), (Some(1), 123456)]
        );
        assert_eq!(parse("").unwrap(), []);
    }

    #[test]
    fn errors_name_the_mistake() {
        for (text, what) in [
            ("cuInit", "no '='"),
            ("cuInit=3", "no ':'"),
            ("cuInit:0=3", "call number is invalid"),
            ("cuInit:x=3", "call number is invalid"),
            ("cuInit:1=CUDA_ERROR_NONE", "code is unknown"),
            ("cuInti:1=3", "no such function"),
        ] {
            let message = parse(text).unwrap_err();
            assert!(message.contains(what) && message.contains(text), "{text}: {message}");
        }
    }
}
