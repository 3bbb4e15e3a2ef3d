//! The functions of the driver API that `cuda.h` declares: their names, versions and variants.

use std::collections::BTreeMap;
use std::sync::LazyLock;

/// One function per line, written by `scripts/driver-exports.py`.
const LIST: &str = include_str!("../exports.txt");

/// An exported function.
pub struct FunctionName {
    /// The exported name, such as `cuMemcpyHtoD_v2_ptds`.
    pub name: &'static str,
    /// The name without version and variant, such as `cuMemcpyHtoD`.
    pub base: &'static str,
    /// The version of CUDA since which `cuGetProcAddress` finds the function.
    pub version: i32,
    /// Whether the function uses the per-thread default stream.
    pub per_thread: bool,
}

static BY_BASE: LazyLock<BTreeMap<&'static str, Vec<FunctionName>>> = LazyLock::new(|| {
    let mut all: BTreeMap<&str, Vec<FunctionName>> = BTreeMap::new();
    for function in all_functions() {
        all.entry(function.base).or_default().push(function);
    }
    all
});

static BASES: LazyLock<BTreeMap<&'static str, &'static str>> =
    LazyLock::new(|| all_functions().map(|function| (function.name, function.base)).collect());

/// Every function of the list.
pub fn all_functions() -> impl Iterator<Item = FunctionName> {
    LIST.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (name, base, version) = (words.next()?, words.next()?, words.next()?);
        Some(FunctionName { name, base, version: version.parse().ok()?, per_thread: words.next()? == "ptds" })
    })
}

/// The versions and variants of a base name; empty if there are none.
pub fn of_base(base: &str) -> &'static [FunctionName] {
    BY_BASE.get(base).map(Vec::as_slice).unwrap_or_default()
}

/// A function's name without version and variant.
pub fn base(name: &str) -> &str {
    BASES.get(name).copied().unwrap_or(name)
}

/// Whether an exported function has this name or this base name.
pub fn exists(name: &str) -> bool {
    BASES.contains_key(name) || BY_BASE.contains_key(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_names() {
        assert_eq!(base("cuMemcpyHtoD_v2_ptds"), "cuMemcpyHtoD");
        assert_eq!(base("cuInit"), "cuInit");
        assert!(exists("cuMemAlloc") && exists("cuMemAlloc_v2") && !exists("cuMemAlloc_v9"));
    }
}
