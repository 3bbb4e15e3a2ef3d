//! Injected faults: the k-th call of a function returns a given code and has no other effect. Also counts the calls.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::fault_rule::Rule;
use crate::settings;

static RULES: Mutex<Option<Vec<Rule>>> = Mutex::new(None);
static CALLS: Mutex<BTreeMap<&str, u64>> = Mutex::new(BTreeMap::new());

/// Replaces all faults. Calls are counted from now on.
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

/// Clears the counts of calls.
pub fn clear_calls() {
    CALLS.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

/// Counts a call; the code that it must answer, if a fault is due.
pub fn before(name: &'static str) -> Option<u32> {
    *CALLS.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default() += 1;
    let mut rules = RULES.lock().unwrap_or_else(PoisonError::into_inner);
    let rules =
        rules.get_or_insert_with(|| settings::from_process().map(|settings| settings.faults).unwrap_or_default());
    let mut due = None;
    for rule in rules {
        // Every rule counts the call; the first one that is due decides.
        let code = rule.count(name);
        due = due.or(code);
    }
    due
}
