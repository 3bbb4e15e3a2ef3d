//! Finding functions by name: `cuGetProcAddress`.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use cudarc::driver::sys::CUdriverProcAddressQueryResult::{
    self as Status, CU_GET_PROC_ADDRESS_SUCCESS, CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND,
    CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT,
};
use cudarc::driver::sys::CUresult::{CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_NOT_FOUND};

use super::{capture, context, copy, device, error, event, function, graph, launch, library, memory, memset, module};
use super::{occupancy, pinned, pointer_info, pool, stream, unsupported};
use crate::boundary::{Out, Text};
use crate::driver;
use crate::error::{Result, ensure};
use crate::export::{Address, Export, exports};
use crate::function_names;

const PER_THREAD: u64 = 2;
/// The flags: 0 (default), 1 (legacy stream) or 2 (per-thread default stream).
const FLAGS: std::ops::RangeInclusive<u64> = 0..=PER_THREAD;

static ADDRESSES: LazyLock<BTreeMap<&'static str, Address>> =
    LazyLock::new(|| all().map(|export| (export.name, export.address)).collect());

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

/// The newest function of a base name that is not newer than `version`.
fn find(base: &str, version: i32, flags: u64) -> Result<Address, Status> {
    let functions = function_names::of_base(base);
    if functions.is_empty() {
        return Err(CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND);
    }
    let per_thread = flags & PER_THREAD != 0 && functions.iter().any(|function| function.per_thread);
    let eligible = functions.iter().filter(|f| f.per_thread == per_thread && f.version <= version);
    let newest = eligible.max_by_key(|function| function.version).ok_or(CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT)?;
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
        ensure!(found.is_ok(), CUDA_ERROR_NOT_FOUND, "no function '{}' of version {version}", symbol.get()?);
    }

    fn cuGetProcAddress_v2(symbol: Text, out: Out<Address>, version: i32, flags: u64, status: Out<u32>) {
        ensure!(!out.is_null(), CUDA_ERROR_INVALID_VALUE, "a null pointer for the address");
        let found = look_up(symbol, version, flags)?;
        status.set_optional(found.err().unwrap_or(CU_GET_PROC_ADDRESS_SUCCESS) as u32);
        out.set(found.unwrap_or(Address::NULL))?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_exports_are_the_functions_that_the_header_declares() {
        let ours: BTreeSet<&str> = all().map(|export| export.name).collect();
        let theirs: BTreeSet<&str> = function_names::all_functions().map(|function| function.name).collect();
        assert_eq!(ours.difference(&theirs).collect::<Vec<_>>(), [] as [&&str; 0], "not in the header");
        assert_eq!(theirs.difference(&ours).collect::<Vec<_>>(), [] as [&&str; 0], "not exported");
        assert_eq!(all().count(), ours.len(), "a name is exported twice");
    }

    #[test]
    fn the_readme_states_the_number_of_functions() {
        let (entries, missing) = (all().count(), unsupported::EXPORTS.len());
        let sentence = format!("{} of the {entries} functions are emulated; the other {missing}", entries - missing);
        assert!(include_str!("../../README.md").contains(&sentence), "{sentence}");
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
}
