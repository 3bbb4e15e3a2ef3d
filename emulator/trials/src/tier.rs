//! How much the tests run: by default a fixed sample of schedules, mutants and driver faults; all of them with
//! `IRONWARP_THOROUGH=1`, which `make test-thorough` sets. Only this file reads the variables.

use std::collections::BTreeMap;
use std::env;

/// Whether `IRONWARP_THOROUGH` is set, not empty and not 0.
pub fn thorough() -> bool {
    env::var_os("IRONWARP_THOROUGH").is_some_and(|value| !value.is_empty() && value != "0")
}

/// Whether a driver fault is injected into every single call of a training, which takes 8 minutes more: only if
/// `IRONWARP_ALL_FAULTS` is set, so that `make test-thorough` stays within the time of a CI run.
pub fn every_fault() -> bool {
    env::var_os("IRONWARP_ALL_FAULTS").is_some()
}

/// `all` in a thorough run, `sampled` otherwise.
pub fn choose<T>(sampled: T, all: T) -> T {
    if thorough() { all } else { sampled }
}

/// All items in a thorough run; otherwise every `step`-th item of each group of items with equal keys, and at least one of
/// each group. A sample with another `offset` begins with another item, so that samples of similar lists complement each
/// other.
pub fn sample<T, K: Ord>(items: Vec<T>, key: impl Fn(&T) -> K, step: usize, offset: usize) -> Vec<T> {
    if thorough() {
        return items;
    }
    let mut sizes = BTreeMap::new();
    items.iter().for_each(|item| *sizes.entry(key(item)).or_insert(0usize) += 1);
    let mut indices = BTreeMap::new();
    let chosen = |item: &T| {
        let index = indices.entry(key(item)).or_insert(0usize);
        *index += 1;
        (*index - 1) % step == offset % step.min(sizes[&key(item)])
    };
    items.into_iter().filter(chosen).collect()
}
