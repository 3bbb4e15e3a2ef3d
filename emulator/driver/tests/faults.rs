//! Injected faults and environment variables, each configuration in a new process. Every function must return every
//! injected code, without any other effect.

#[macro_use]
mod support;

use std::ptr::null_mut;

use support::*;

const LIST: &str = include_str!("../exports.txt");

#[test]
#[ignore = "run in a new process by other tests"]
fn child_reports_the_device() {
    let (mut version, mut total, mut major) = (0, 0, 0);
    cu!(cuDriverGetVersion(&mut version)).unwrap();
    println!("init {:?}", cu!(cuInit(0)));
    println!("count {:?}", cu!(cuDeviceGetCount(&mut 0)));
    let _ = cu!(cuDeviceTotalMem_v2(&mut total, 0));
    let name = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR;
    let _ = cu!(cuDeviceGetAttribute(&mut major, name, 0));
    println!("version {version}, memory {total}, major {major}, error '{}'", last_error());
}

#[test]
fn the_environment_sets_the_device() {
    let said = |environment: &[(&str, &str)]| check_in_process("child_reports_the_device", environment);
    assert!(said(&[]).contains("version 13000, memory 85899345920, major 8"));
    assert!(said(&[("MEMORY", "16GiB"), ("ARCH", "90")]).contains("memory 17179869184, major 9"));
    assert!(said(&[("DRIVER_VERSION", "12020")]).contains("version 12020"));
    assert!(said(&[("FAULTS", "cuInit:1=CUDA_ERROR_NO_DEVICE")]).contains("init Err(CUDA_ERROR_NO_DEVICE)"));
}

#[test]
fn a_malformed_variable_fails_cu_init_and_is_named() {
    for (name, value) in [("ARCH", "70"), ("MEMORY", "lots"), ("FAULTS", "cuInit:1"), ("CHECKS", "perhaps")] {
        let said = check_in_process("child_reports_the_device", &[(name, value)]);
        assert!(said.contains("init Err(CUDA_ERROR_INVALID_VALUE)"), "{said}");
        assert!(
            said.contains(&format!("cuda-emulator: IRONWARP_EMULATOR_{name}")) && said.contains("expected"),
            "{said}"
        );
        assert!(said.contains("count Err(CUDA_ERROR_NOT_INITIALIZED)"), "{said}");
    }
}

#[test]
#[ignore = "run in a new process by other tests"]
fn child_allocates_a_gigabyte_at_a_time() {
    let _context = Context::new();
    let mut address = 0;
    let outcomes: Vec<_> = (0..4).map(|_| cu!(cuMemAlloc_v2(&mut address, 1 << 30))).collect();
    println!("{outcomes:?} {}", last_error());
}

#[test]
fn allocations_fail_beyond_the_configured_memory() {
    let said = check_in_process("child_allocates_a_gigabyte_at_a_time", &[("MEMORY", "3GiB")]);
    assert!(said.contains("[Ok(()), Ok(()), Ok(()), Err(CUDA_ERROR_OUT_OF_MEMORY)]"), "{said}");
    assert!(said.contains("1073741824 bytes requested, 0 of 3221225472 bytes free"), "{said}");
    let said = check_in_process("child_allocates_a_gigabyte_at_a_time", &[("FAULTS", "cuMemAlloc:2=2")]);
    assert!(said.contains("[Ok(()), Err(CUDA_ERROR_OUT_OF_MEMORY), Ok(()), Ok(())]"), "{said}");
    let said = check_in_process("child_allocates_a_gigabyte_at_a_time", &[("LEAKS", "on")]);
    assert_eq!(said.matches("were not freed before their context ended").count(), 4, "{said}");
}

#[test]
#[ignore = "run in a new process by other tests"]
fn child_injects_every_code_into_every_function() {
    cu!(cuInit(0)).unwrap();
    // 1234 is a code that only a future driver may have.
    let codes = [1, 2, 100, 201, 214, 400, 600, 700, 719, 801, 999, 1234, u32::MAX];
    let mut calls = 0;
    for name in LIST.lines().map(|line| line.split(' ').next().unwrap()) {
        // The fault is injected before any argument is read, so the arguments may have any value.
        let entry: extern "C" fn(usize, usize, usize, usize, usize, usize) -> u32 = symbol(name);
        for code in codes {
            assert_eq!(set_faults(&format!("{name}:1={code}")), 0);
            assert_eq!(entry(0, 0, 0, 0, 0, 0), code, "{name}");
            calls += 1;
        }
    }
    println!("{calls} calls returned the injected code");
}

#[test]
fn every_function_returns_every_injected_code() {
    let said = check_in_process("child_injects_every_code_into_every_function", &[]);
    let calls = LIST.lines().count() * 13;
    assert!(said.contains(&format!("{calls} calls returned the injected code")), "{said}");
}

#[test]
#[ignore = "run in a new process by other tests"]
fn child_calls_every_function_with_null() {
    // Null for every argument, before and after cuInit, with and without a context: every call must return.
    type Entry = extern "C" fn(usize, usize, usize, usize, usize, usize, usize, usize, usize, usize, usize) -> u32;
    let mut codes = std::collections::BTreeMap::<u32, u32>::new();
    for stage in 0..3 {
        match stage {
            1 => cu!(cuInit(0)).unwrap(),
            2 => cu!(cuCtxCreate_v4(&mut null_mut(), null_mut(), 0, 0)).unwrap(),
            _ => {}
        }
        for name in LIST.lines().map(|line| line.split(' ').next().unwrap()) {
            let code = symbol::<Entry>(name)(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
            assert_ne!(code, CUDA_ERROR_UNKNOWN as u32, "{name} panicked: {}", last_error());
            *codes.entry(code).or_default() += 1;
        }
    }
    println!("codes {codes:?}");
}

#[test]
fn every_function_survives_null_arguments() {
    let said = check_in_process("child_calls_every_function_with_null", &[]);
    println!("{said}");
    assert!(said.contains("codes {"), "{said}");
}

#[test]
fn faults_of_unknown_functions_are_refused() {
    assert_eq!(set_faults("cuNothing:1=2"), CUDA_ERROR_INVALID_VALUE as u32);
    assert!(last_error().contains("no such function"), "{}", last_error());
    assert_eq!(set_faults(""), 0);
}

#[test]
#[ignore = "run in a new process by other tests"]
fn child_resets_the_driver() {
    let context = Context::new();
    let address = allocate(64);
    assert_eq!(set_faults("cuMemAlloc:*=2"), 0);
    let reset: extern "C" fn() -> u32 = symbol("ironwarp_emulator_reset");
    assert_eq!(reset(), 0);
    assert_eq!(cu!(cuMemFree_v2(address)), Err(CUDA_ERROR_NOT_INITIALIZED));
    cu!(cuInit(0)).unwrap();
    assert_eq!(cu!(cuCtxSynchronize()), Err(CUDA_ERROR_INVALID_CONTEXT), "the reset must also forget the old context");
    std::mem::forget(context);
    let _context = Context::new();
    assert_eq!(cu!(cuMemFree_v2(address)), Err(CUDA_ERROR_INVALID_VALUE));
    allocate(64);
}

#[test]
fn a_reset_restores_the_initial_state() {
    check_in_process("child_resets_the_driver", &[]);
}
