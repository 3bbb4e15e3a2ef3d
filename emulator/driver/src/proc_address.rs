//! Finding entries by name: `cuGetProcAddress`.
//!
//! `exports.txt` says under which name and from which version of CUDA on each entry is found.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use cudarc::driver::sys::CUdriverProcAddressQueryResult::{
    self as Status, CU_GET_PROC_ADDRESS_SUCCESS, CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND,
    CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT,
};
use cudarc::driver::sys::CUresult::{CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_NOT_FOUND};

use crate::boundary::{Out, Text};
use crate::error::{Result, ensure};
use crate::export::{Address, Export, exports};
use crate::{capture, context, copy, device, driver, error, event, function, graph, launch, library, memory, memset};
use crate::{module, occupancy, pinned, pointer_info, pool, stream, unsupported};

/// What cuda.h declares, made by `scripts/driver-exports.py`.
const LIST: &str = include_str!("../exports.txt");
const PER_THREAD: u64 = 2;
/// By default, without and with the per-thread variants: one of them.
const FLAGS: std::ops::RangeInclusive<u64> = 0..=PER_THREAD;

/// An entry as `cuGetProcAddress` knows it.
struct Entry {
    name: &'static str,
    version: i32,
    per_thread: bool,
}

static BY_BASE: LazyLock<BTreeMap<&'static str, Vec<Entry>>> = LazyLock::new(|| {
    let mut all: BTreeMap<&str, Vec<Entry>> = BTreeMap::new();
    for (name, base, version, per_thread) in lines() {
        all.entry(base).or_default().push(Entry { name, version, per_thread });
    }
    all
});

static BASES: LazyLock<BTreeMap<&'static str, &'static str>> =
    LazyLock::new(|| lines().map(|(name, base, ..)| (name, base)).collect());

static ADDRESSES: LazyLock<BTreeMap<&'static str, Address>> =
    LazyLock::new(|| all().map(|export| (export.name, export.address)).collect());

fn lines() -> impl Iterator<Item = (&'static str, &'static str, i32, bool)> {
    LIST.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (name, base, version) = (words.next()?, words.next()?, words.next()?);
        Some((name, base, version.parse().ok()?, words.next()? == "ptds"))
    })
}

/// Every exported function of the driver API.
fn all() -> impl Iterator<Item = &'static Export> {
    [
        capture::EXPORTS,
        context::EXPORTS,
        copy::EXPORTS,
        device::EXPORTS,
        error::EXPORTS,
        event::EXPORTS,
        function::EXPORTS,
        graph::EXPORTS,
        launch::EXPORTS,
        library::EXPORTS,
        memory::EXPORTS,
        memset::EXPORTS,
        module::EXPORTS,
        occupancy::EXPORTS,
        pinned::EXPORTS,
        pointer_info::EXPORTS,
        pool::EXPORTS,
        stream::EXPORTS,
        EXPORTS,
        unsupported::EXPORTS,
    ]
    .into_iter()
    .flatten()
}

/// A function's name without version and variant.
pub fn base(name: &str) -> &str {
    BASES.get(name).copied().unwrap_or(name)
}

/// Whether an exported function has this name, or this base name.
pub fn exists(name: &str) -> bool {
    BASES.contains_key(name) || BY_BASE.contains_key(name)
}

/// The newest entry that is not newer than `version`.
fn find(base: &str, version: i32, flags: u64) -> Result<Address, Status> {
    let entries = BY_BASE.get(base).ok_or(CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND)?;
    let per_thread = flags & PER_THREAD != 0 && entries.iter().any(|entry| entry.per_thread);
    let of_kind = entries.iter().filter(|entry| entry.per_thread == per_thread && entry.version <= version);
    let newest = of_kind.max_by_key(|entry| entry.version).ok_or(CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT)?;
    ADDRESSES.get(newest.name).copied().ok_or(CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND)
}

fn look_up(symbol: Text, version: i32, flags: u64) -> Result<Result<Address, Status>> {
    let driver = driver::driver_version();
    ensure!(version <= driver, CUDA_ERROR_INVALID_VALUE, "version {version} is newer than the driver's, {driver}");
    ensure!(FLAGS.contains(&flags), CUDA_ERROR_INVALID_VALUE, "flags {flags:#x} are unknown");
    Ok(find(&symbol.get()?, version, flags))
}

exports! {
    fn cuGetProcAddress(symbol: Text, out: Out<Address>, version: i32, flags: u64) {
        let found = look_up(symbol, version, flags)?;
        out.set(found.unwrap_or(Address::NULL))?;
        ensure!(found.is_ok(), CUDA_ERROR_NOT_FOUND, "'{}' of version {version}", symbol.get()?);
    }

    fn cuGetProcAddress_v2(symbol: Text, out: Out<Address>, version: i32, flags: u64, status: Out<u32>) {
        ensure!(!out.is_null(), CUDA_ERROR_INVALID_VALUE, "a null pointer for the address");
        let found = look_up(symbol, version, flags)?;
        status.set_if_wanted(found.err().unwrap_or(CU_GET_PROC_ADDRESS_SUCCESS) as u32);
        out.set(found.unwrap_or(Address::NULL))?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn what_is_exported_is_what_the_header_declares() {
        let ours: BTreeSet<&str> = all().map(|export| export.name).collect();
        let theirs: BTreeSet<&str> = lines().map(|(name, ..)| name).collect();
        assert_eq!(ours.difference(&theirs).collect::<Vec<_>>(), [] as [&&str; 0], "not in the header");
        assert_eq!(theirs.difference(&ours).collect::<Vec<_>>(), [] as [&&str; 0], "not exported");
        assert_eq!(all().count(), ours.len(), "a name twice");
    }

    #[test]
    fn the_readme_counts_right() {
        let (entries, missing) = (all().count(), unsupported::EXPORTS.len());
        let sentence = format!("{} of the {entries} functions are emulated; the other {missing}", entries - missing);
        assert!(include_str!("../README.md").contains(&sentence), "{sentence}");
    }

    #[test]
    fn versions_and_variants_are_chosen() {
        let address = |name: &str| Ok::<_, Status>(ADDRESSES[name].0);
        let found = |base, version, flags| find(base, version, flags).map(|address| address.0);
        assert_eq!(found("cuCtxCreate", 3020, 0), address("cuCtxCreate_v2"));
        assert_eq!(found("cuCtxCreate", 11040, 0), address("cuCtxCreate_v3"));
        assert_eq!(found("cuCtxCreate", 13000, 1), address("cuCtxCreate_v4"));
        assert_eq!(found("cuLaunchKernel", 13000, 2), address("cuLaunchKernel_ptsz"));
        assert_eq!(found("cuMemAlloc", 13000, 2), address("cuMemAlloc_v2"));
        assert_eq!(found("cuGraphInstantiate", 13000, 0), address("cuGraphInstantiateWithFlags"));
        assert_eq!(found("cuLaunchKernelEx", 11000, 0), Err(CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT));
        assert_eq!(found("cuMemAlloc_v2", 13000, 0), Err(CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND));
    }

    #[test]
    fn base_names() {
        assert_eq!(base("cuMemcpyHtoD_v2_ptds"), "cuMemcpyHtoD");
        assert_eq!(base("cuInit"), "cuInit");
        assert!(exists("cuMemAlloc") && exists("cuMemAlloc_v2") && !exists("cuMemAlloc_v9"));
    }
}
