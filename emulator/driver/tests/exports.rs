//! The exported symbols: exactly the functions of the driver's headers and the `ironwarp_emulator_` functions.

#[macro_use]
mod support;

use std::collections::BTreeSet;
use std::ffi::{CString, c_void};
use std::process::Command;
use std::ptr::null_mut;

use support::*;

const LIST: &str = include_str!("../exports.txt");
const PER_THREAD: u64 = 2;

fn listed() -> BTreeSet<&'static str> {
    LIST.lines().map(|line| line.split(' ').next().unwrap()).collect()
}

#[test]
fn the_symbol_table_has_exactly_the_listed_functions() {
    let output =
        Command::new("nm").args(["-D", "--defined-only"]).arg(path()).output().expect("nm is part of binutils");
    let table = String::from_utf8(output.stdout).unwrap();
    let exported: BTreeSet<&str> = table.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    let (own, driver): (BTreeSet<&str>, BTreeSet<&str>) =
        exported.iter().partition(|name| name.starts_with("ironwarp_emulator_"));
    assert_eq!(driver, listed());
    assert_eq!(own.len(), 13, "{own:?}");
}

#[test]
fn the_soname_is_libcuda() {
    let output = Command::new("readelf").arg("-d").arg(path()).output().expect("readelf is part of binutils");
    assert!(String::from_utf8_lossy(&output.stdout).contains("Library soname: [libcuda.so]"));
}

#[test]
fn every_entry_is_found_by_its_base_name() {
    cu!(cuInit(0)).unwrap();
    for line in LIST.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [name, base, version, kind] = words[..] else { panic!("{line}") };
        let flags = if kind == "ptds" { PER_THREAD } else { 0 };
        let base = CString::new(base).unwrap();
        let (mut address, mut status) =
            (null_mut(), sys::CUdriverProcAddressQueryResult::CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND);
        let version = version.parse().unwrap();
        cu!(cuGetProcAddress_v2(base.as_ptr(), &mut address, version, flags, &mut status)).unwrap();
        assert_eq!(status, sys::CUdriverProcAddressQueryResult::CU_GET_PROC_ADDRESS_SUCCESS, "{line}");
        let direct: *const c_void = symbol(name);
        assert_eq!(address.cast_const(), direct, "{line}");
    }
}

#[test]
fn unknown_names_and_newer_versions_are_not_found() {
    use sys::CUdriverProcAddressQueryResult::*;
    let look = |name: &std::ffi::CStr, version: i32, flags: u64| {
        let (mut address, mut status) = (std::ptr::dangling_mut::<c_void>(), CU_GET_PROC_ADDRESS_SUCCESS);
        cu!(cuGetProcAddress_v2(name.as_ptr(), &mut address, version, flags, &mut status))
            .map(|()| (address.is_null(), status))
    };
    assert_eq!(look(c"cuNothing", 13000, 0), Ok((true, CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND)));
    assert_eq!(look(c"cuLaunchKernelEx", 11000, 0), Ok((true, CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT)));
    assert_eq!(look(c"cuInit", 14000, 0), Err(CUDA_ERROR_INVALID_VALUE));
    assert_eq!(look(c"cuInit", 13000, 3), Err(CUDA_ERROR_INVALID_VALUE));
    let old: extern "C" fn(*const i8, *mut *mut c_void, i32, u64) -> u32 = symbol("cuGetProcAddress");
    assert_eq!(old(c"cuNothing".as_ptr().cast(), &mut null_mut(), 13000, 0), CUDA_ERROR_NOT_FOUND as u32);
}

#[test]
fn the_library_returns_its_version() {
    let version: extern "C" fn() -> *const std::ffi::c_char = symbol("ironwarp_emulator_version");
    #[allow(unsafe_code)]
    // SAFETY: the library returns a static string.
    let version = unsafe { std::ffi::CStr::from_ptr(version()) };
    assert_eq!(version.to_str().unwrap(), concat!("cuda-emulator ", env!("CARGO_PKG_VERSION")));
}
