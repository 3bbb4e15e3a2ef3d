//! Injected faults: the k-th call of a function answers a given code instead of doing anything.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::error;
use crate::proc_address;
use crate::settings;

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// An exported name, or a name without version and variant for all of them.
    name: String,
    /// Which call, from 1; every call without it.
    at: Option<u64>,
    code: u32,
    calls: u64,
}

static RULES: Mutex<Option<Vec<Rule>>> = Mutex::new(None);
static CALLS: Mutex<BTreeMap<&str, u64>> = Mutex::new(BTreeMap::new());

/// Reads `NAME:K=CODE[,…]`.
///
/// # Errors
/// The text, and what was expected.
pub fn parse(text: &str) -> Result<Vec<Rule>, String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(parse_rule).collect()
}

fn parse_rule(part: &str) -> Result<Rule, String> {
    let wrong = |what: &str| format!("'{part}': {what}; expected NAME:K=CODE with K from 1 or *");
    let (call, code) = part.split_once('=').ok_or_else(|| wrong("no '='"))?;
    let (name, at) = call.split_once(':').ok_or_else(|| wrong("no ':'"))?;
    let code = code.parse().ok().or_else(|| error::code_of(code)).ok_or_else(|| wrong("unknown code"))?;
    let at = match at {
        "*" => None,
        number => Some(number.parse().ok().filter(|&k| k > 0).ok_or_else(|| wrong("no call number"))?),
    };
    if !proc_address::exists(name) {
        return Err(wrong("the driver has no such function"));
    }
    Ok(Rule { name: name.to_owned(), at, code, calls: 0 })
}

/// Replaces all faults; calls are counted from here on.
pub fn set(rules: Vec<Rule>) {
    *RULES.lock().unwrap_or_else(PoisonError::into_inner) = Some(rules);
}

/// How often each function was called since the counts were cleared, as a JSON object.
pub fn calls() -> String {
    let calls = CALLS.lock().unwrap_or_else(PoisonError::into_inner);
    // Names are C identifiers, so nothing in them needs escaping.
    let entries: Vec<String> = calls.iter().map(|(name, count)| format!("\"{name}\":{count}")).collect();
    format!("{{{}}}", entries.join(","))
}

/// Forgets how often functions were called.
pub fn clear_calls() {
    CALLS.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

/// Counts a call; the code it must answer, if one of the faults is due.
pub fn before(name: &'static str) -> Option<u32> {
    *CALLS.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default() += 1;
    let mut rules = RULES.lock().unwrap_or_else(PoisonError::into_inner);
    let rules =
        rules.get_or_insert_with(|| settings::from_process().map(|settings| settings.faults).unwrap_or_default());
    let mut due = None;
    for rule in rules.iter_mut().filter(|rule| rule.name == name || rule.name == proc_address::base(name)) {
        rule.calls += 1;
        if rule.at.is_none_or(|at| at == rule.calls) {
            due = due.or(Some(rule.code));
        }
    }
    due
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read() {
        let rules = parse("cuMemAlloc:2=CUDA_ERROR_OUT_OF_MEMORY, cuLaunchKernel:*=719,cuInit:1=123456").unwrap();
        assert_eq!(
            rules.iter().map(|r| (r.at, r.code)).collect::<Vec<_>>(),
            [(Some(2), 2), (None, 719), (Some(1), 123456)]
        );
        assert_eq!(parse("").unwrap(), []);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, what) in [
            ("cuInit", "no '='"),
            ("cuInit=3", "no ':'"),
            ("cuInit:0=3", "no call number"),
            ("cuInit:x=3", "no call number"),
            ("cuInit:1=CUDA_ERROR_NONE", "unknown code"),
            ("cuInti:1=3", "no such function"),
        ] {
            let message = parse(text).unwrap_err();
            assert!(message.contains(what) && message.contains(text), "{text}: {message}");
        }
    }
}
