//! Modules, functions and libraries: loading, refusals and their JIT logs, attributes, launch limits and occupancy.

#[macro_use]
mod support;

use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr::null_mut;

use support::sys::{CUfunction_attribute, CUjit_option};
use support::*;

/// Loads `ptx` with log buffers of `size` bytes; returns the result, the error log and its length according to the
/// driver.
fn load_with_log(ptx: &str, size: usize) -> (Result<(), CUresult>, String, usize) {
    let text = CString::new(ptx).unwrap();
    let (mut info, mut log) = (vec![1_u8; size], vec![1_u8; size]);
    let mut names = [
        CUjit_option::CU_JIT_INFO_LOG_BUFFER,
        CUjit_option::CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES,
        CUjit_option::CU_JIT_ERROR_LOG_BUFFER,
        CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
        CUjit_option::CU_JIT_TARGET_FROM_CUCONTEXT,
    ];
    let mut values: [*mut c_void; 5] =
        [info.as_mut_ptr().cast(), size as *mut c_void, log.as_mut_ptr().cast(), size as *mut c_void, null_mut()];
    let mut module = null_mut();
    let image = text.as_ptr().cast();
    let outcome = cu!(cuModuleLoadDataEx(&mut module, image, 5, names.as_mut_ptr(), values.as_mut_ptr()));
    let log = CStr::from_bytes_until_nul(&log).unwrap().to_str().unwrap().to_owned();
    (outcome, log, values[3] as usize)
}

#[test]
fn malformed_text_is_refused_with_its_position() {
    let _context = Context::new();
    let broken = ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry f() {\n  mov.u32 %r1 5;\n}\n";
    let (outcome, log, filled) = load_with_log(broken, 1024);
    assert_eq!(outcome, Err(CUDA_ERROR_INVALID_PTX));
    assert!(log.contains("5:") && log.len() == filled, "{log}");
    let (outcome, short, filled) = load_with_log(broken, 12);
    assert_eq!(
        (outcome, short.len(), filled),
        (Err(CUDA_ERROR_INVALID_PTX), 11, 11),
        "the log must be cut to its buffer"
    );
    assert!(log.starts_with(&short));
    let (outcome, log, filled) = load_with_log(PTX, 1024);
    assert_eq!((outcome, log.as_str(), filled), (Ok(()), "", 0));
}

#[test]
fn an_unknown_instruction_is_named() {
    let _context = Context::new();
    let unknown = PTX.replace("trap;", "frobnicate.u32 \t%r1;");
    let (outcome, log, _) = load_with_log(&unknown, 1024);
    assert!(matches!(outcome, Err(CUDA_ERROR_NOT_SUPPORTED | CUDA_ERROR_INVALID_PTX)), "{outcome:?}");
    assert!(log.contains("frobnicate"), "{log}");
}

#[test]
fn images_that_the_device_cannot_run_are_refused() {
    let _context = Context::new();
    let (outcome, log, _) = load_with_log(&PTX.replace("sm_80", "sm_90"), 1024);
    assert_eq!(outcome, Err(CUDA_ERROR_INVALID_PTX));
    assert!(log.contains("sm_90"), "{log}");
    let (outcome, log, _) = load_with_log(&PTX.replace(".version 8.0", ".version 9.9"), 1024);
    assert_eq!(outcome, Err(CUDA_ERROR_UNSUPPORTED_PTX_VERSION));
    assert!(log.contains("9.9") && log.contains("9.0"), "{log}");
    let load_bytes = |bytes: &[u8]| cu!(cuModuleLoadData(&mut null_mut(), bytes.as_ptr().cast()));
    assert_eq!(load_bytes(b"\x7FELF\x02\x01\x01\0"), Err(CUDA_ERROR_NO_BINARY_FOR_GPU));
    assert_eq!(load_bytes(&[0x50, 0xED, 0x55, 0xBA, 1, 0]), Err(CUDA_ERROR_NO_BINARY_FOR_GPU));
    assert_eq!(load_bytes(b"\0"), Err(CUDA_ERROR_INVALID_IMAGE));
    assert_eq!(load_bytes(b"\xFF\xFE\0"), Err(CUDA_ERROR_INVALID_IMAGE));
    assert_eq!(cu!(cuModuleLoadData(&mut null_mut(), std::ptr::null())), Err(CUDA_ERROR_INVALID_VALUE));
    let path = c"/nowhere/kernels.ptx".as_ptr();
    assert_eq!(cu!(cuModuleLoad(&mut null_mut(), path)), Err(CUDA_ERROR_FILE_NOT_FOUND));
    // Only a regular file is read; a device may be endless, and a named pipe may never begin.
    assert_eq!(cu!(cuModuleLoad(&mut null_mut(), c"/dev/null".as_ptr())), Err(CUDA_ERROR_FILE_NOT_FOUND));
}

#[test]
fn modules_list_their_functions_and_variables() {
    let _context = Context::new();
    let module = load(PTX).unwrap();
    let mut count = 0;
    cu!(cuModuleGetFunctionCount(&mut count, module)).unwrap();
    assert_eq!(count as usize, PTX.matches(".entry").count());
    let mut all = vec![null_mut(); count as usize];
    cu!(cuModuleEnumerateFunctions(all.as_mut_ptr(), count, module)).unwrap();
    let scale = function(module, c"scale");
    assert!(all.contains(&scale), "a function has one handle");
    let (mut name, mut owner) = (std::ptr::null::<c_char>(), null_mut());
    cu!(cuFuncGetName(&mut name, scale)).unwrap();
    cu!(cuFuncGetModule(&mut owner, scale)).unwrap();
    #[allow(unsafe_code)]
    // SAFETY: the library returns a string that lives as long as the module.
    let name = unsafe { CStr::from_ptr(name) };
    assert_eq!((name, owner), (c"scale", module));
    let (mut offset, mut size) = (0, 0);
    cu!(cuFuncGetParamInfo(scale, 3, &mut offset, &mut size)).unwrap();
    assert_eq!((offset, size), (20, 4));
    assert_eq!(cu!(cuFuncGetParamInfo(scale, 5, &mut offset, &mut size)), Err(CUDA_ERROR_INVALID_VALUE));
    assert_eq!(cu!(cuModuleGetFunction(&mut null_mut(), module, c"none".as_ptr())), Err(CUDA_ERROR_NOT_FOUND));
    assert!(last_error().contains("'none'") && last_error().contains("scale"), "{}", last_error());
    let mut address = 0;
    cu!(cuModuleGetGlobal_v2(&mut address, &mut size, module, c"counter".as_ptr())).unwrap();
    assert_eq!((read(address, 1)[0], size), (7, 4));
    cu!(cuModuleGetGlobal_v2(&mut address, &mut size, module, c"constants".as_ptr())).unwrap();
    assert_eq!((read(address, 4), size), (vec![1, 2, 3, 4], 16));
    cu!(cuModuleUnload(module)).unwrap();
    assert_eq!(cu!(cuModuleUnload(module)), Err(CUDA_ERROR_INVALID_HANDLE));
    assert_eq!(cu!(cuFuncGetModule(&mut owner, scale)), Err(CUDA_ERROR_INVALID_HANDLE));
    assert_eq!(cu!(cuMemGetAddressRange_v2(null_mut(), null_mut(), address)), Err(CUDA_ERROR_NOT_FOUND));
}

fn attribute(function: sys::CUfunction, name: CUfunction_attribute) -> i32 {
    let mut value = -9;
    cu!(cuFuncGetAttribute(&mut value, name, function)).unwrap();
    value
}

#[test]
fn functions_have_attributes() {
    use CUfunction_attribute::*;
    let _context = Context::new();
    let module = load(PTX).unwrap();
    let (reverse, bounded) = (function(module, c"reverse"), function(module, c"bounded"));
    assert_eq!(attribute(bounded, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK), 128);
    assert_eq!(attribute(reverse, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK), 1024);
    assert_eq!(attribute(reverse, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES), 0);
    assert_eq!(attribute(reverse, CU_FUNC_ATTRIBUTE_PTX_VERSION), 80);
    assert_eq!(attribute(reverse, CU_FUNC_ATTRIBUTE_BINARY_VERSION), 80);
    assert_eq!(attribute(reverse, CU_FUNC_ATTRIBUTE_CONST_SIZE_BYTES), 16);
    assert!((1..=64).contains(&attribute(reverse, CU_FUNC_ATTRIBUTE_NUM_REGS)));
    let dynamic = CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    assert_eq!(attribute(reverse, dynamic), 48 << 10);
    assert_eq!(cu!(cuFuncSetAttribute(reverse, dynamic, 166_913)), Err(CUDA_ERROR_INVALID_VALUE));
    assert!(last_error().contains("166913") && last_error().contains("166912"), "{}", last_error());
    cu!(cuFuncSetAttribute(reverse, dynamic, 166_912)).unwrap();
    assert_eq!(attribute(reverse, dynamic), 166_912);
    let carveout = CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT;
    cu!(cuFuncSetAttribute(reverse, carveout, 100)).unwrap();
    assert_eq!(cu!(cuFuncSetAttribute(reverse, carveout, 101)), Err(CUDA_ERROR_INVALID_VALUE));
    let fixed = CU_FUNC_ATTRIBUTE_NUM_REGS;
    assert_eq!(cu!(cuFuncSetAttribute(reverse, fixed, 1)), Err(CUDA_ERROR_INVALID_VALUE));
    let mut value = 0;
    let raw: extern "C" fn(*mut i32, u32, usize) -> u32 = symbol("cuFuncGetAttribute");
    assert_eq!(raw(&mut value, 99, reverse as usize), CUDA_ERROR_INVALID_VALUE as u32);
}

#[test]
fn occupancy_is_limited_by_threads_and_shared_memory() {
    let _context = Context::new();
    let reverse = function(load(PTX).unwrap(), c"reverse");
    let blocks = |threads, shared| {
        let mut blocks = -1;
        cu!(cuOccupancyMaxActiveBlocksPerMultiprocessor(&mut blocks, reverse, threads, shared)).map(|()| blocks)
    };
    assert_eq!(blocks(1024, 0), Ok(2));
    assert_eq!(blocks(64, 0), Ok(32), "limited by the blocks per SM");
    assert_eq!(blocks(256, 40 << 10), Ok(4), "limited by shared memory: 164 KiB in blocks of 41");
    assert_eq!(blocks(256, 170_000), Ok(0));
    assert_eq!(blocks(1025, 0), Err(CUDA_ERROR_INVALID_VALUE));
    let (mut grid, mut block, mut shared) = (0, 0, 0);
    cu!(cuOccupancyMaxPotentialBlockSize(&mut grid, &mut block, reverse, None, 0, 0)).unwrap();
    assert_eq!((grid, block), (216, 1024));
    extern "C" fn size(block: i32) -> usize {
        if block > 512 { 200_000 } else { 0 }
    }
    cu!(cuOccupancyMaxPotentialBlockSize(&mut grid, &mut block, reverse, Some(size), 0, 0)).unwrap();
    assert_eq!((grid, block), (432, 512));
    cu!(cuOccupancyAvailableDynamicSMemPerBlock(&mut shared, reverse, 4, 256)).unwrap();
    assert_eq!(shared, 40 << 10);
    let mut clusters = 0;
    // SAFETY: zero is valid for a C struct of integers and pointers.
    #[allow(unsafe_code)]
    let mut config: sys::CUlaunchConfig = unsafe { std::mem::zeroed() };
    (config.gridDimX, config.gridDimY, config.gridDimZ) = (8, 1, 1);
    (config.blockDimX, config.blockDimY, config.blockDimZ) = (1024, 1, 1);
    cu!(cuOccupancyMaxActiveClusters(&mut clusters, reverse, &config)).unwrap();
    assert_eq!(clusters, 216);
    let none = cu!(cuOccupancyMaxPotentialClusterSize(&mut clusters, reverse, &config));
    assert_eq!(none, Err(CUDA_ERROR_INVALID_CLUSTER_SIZE));
}

#[test]
fn a_library_becomes_a_module_in_each_context_that_uses_it() {
    cu!(cuInit(0)).unwrap();
    let text = CString::new(PTX).unwrap();
    let (mut library, mut kernel, mut count) = (null_mut(), null_mut(), 0);
    let no = null_mut;
    let (names, values) = (null_mut(), null_mut());
    cu!(cuLibraryLoadData(&mut library, text.as_ptr().cast(), names, values, 0, null_mut(), no(), 0)).unwrap();
    cu!(cuLibraryGetKernelCount(&mut count, library)).unwrap();
    assert_eq!(count as usize, PTX.matches(".entry").count());
    cu!(cuLibraryGetKernel(&mut kernel, library, c"count".as_ptr())).unwrap();
    assert_eq!(cu!(cuLibraryGetKernel(&mut null_mut(), library, c"none".as_ptr())), Err(CUDA_ERROR_NOT_FOUND));
    assert_eq!(cu!(cuKernelGetFunction(&mut null_mut(), kernel)), Err(CUDA_ERROR_INVALID_CONTEXT));
    let first = Context::new();
    let (mut function, mut address, mut size) = (null_mut(), 0, 0);
    cu!(cuKernelGetFunction(&mut function, kernel)).unwrap();
    cu!(cuLibraryGetGlobal(&mut address, &mut size, library, c"counter".as_ptr())).unwrap();
    write(address, &[50]);
    let second = Context::new();
    let mut other = 0;
    cu!(cuLibraryGetGlobal(&mut other, &mut size, library, c"counter".as_ptr())).unwrap();
    assert!(other != address && read(other, 1) == [7], "each context must have its own variables");
    let dynamic = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    cu!(cuKernelSetAttribute(dynamic, 100_000, kernel, 0)).unwrap();
    let mut value = 0;
    cu!(cuKernelGetAttribute(&mut value, dynamic, kernel, 0)).unwrap();
    assert_eq!(value, 100_000);
    drop(second);
    cu!(cuLibraryUnload(library)).unwrap();
    assert_eq!(cu!(cuKernelGetFunction(&mut function, kernel)), Err(CUDA_ERROR_INVALID_HANDLE));
    drop(first);
}

#[test]
fn launches_that_exceed_a_limit_are_refused_with_both_numbers() {
    let _context = Context::new();
    let module = load(PTX).unwrap();
    let (scale, reverse, bounded) =
        (function(module, c"scale"), function(module, c"reverse"), function(module, c"bounded"));
    let mut address = allocate(64);
    for (what, function, shape, numbers) in [
        ("no block", bounded, (0, 1, 0), ["0", ""]),
        ("too many threads", reverse, (1, 1025, 0), ["1025", "1024"]),
        ("more than the kernel allows", bounded, (1, 129, 0), ["129", "128"]),
        ("shared memory without opting in", reverse, (1, 32, 49_153), ["49153", "49152"]),
    ] {
        let outcome = launch(function, shape, null_mut(), &mut [param(&mut address)]);
        assert_eq!(outcome, Err(CUDA_ERROR_INVALID_VALUE), "{what}");
        assert!(numbers.iter().all(|number| last_error().contains(number)), "{what}: {}", last_error());
    }
    assert_eq!(launch(scale, (1, 32, 0), null_mut(), &mut [null_mut(); 5]), Err(CUDA_ERROR_INVALID_VALUE));
    assert!(last_error().contains("parameter 0 (out)"), "{}", last_error());
    let no = null_mut;
    let outcome = cu!(cuLaunchKernel(scale, 1, 1, 1, 1, 1, 1, 0, null_mut(), null_mut(), no()));
    assert_eq!(outcome, Err(CUDA_ERROR_INVALID_VALUE));
    assert!(last_error().contains("5 parameters"), "{}", last_error());
    let outcome = cu!(cuLaunchCooperativeKernel(bounded, 108 * 16 + 1, 1, 1, 128, 1, 1, 0, null_mut(), null_mut()));
    assert_eq!(outcome, Err(CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE));
    assert!(last_error().contains("1729") && last_error().contains("1728"), "{}", last_error());
    let foreign = launch(0x1230 as sys::CUfunction, (1, 1, 0), null_mut(), &mut []);
    assert_eq!(foreign, Err(CUDA_ERROR_INVALID_HANDLE));
}

#[test]
fn launch_attributes_are_applied_or_refused() {
    let _context = Context::new();
    let bounded = function(load(PTX).unwrap(), c"bounded");
    let with = |name: u32, words: [u32; 3]| {
        let mut attribute = [0_u32; 18];
        attribute[0] = name;
        attribute[2..5].copy_from_slice(&words);
        // SAFETY: zero is valid for a C struct of integers and pointers.
        #[allow(unsafe_code)]
        let mut config: sys::CUlaunchConfig = unsafe { std::mem::zeroed() };
        (config.gridDimX, config.gridDimY, config.gridDimZ) = (2, 1, 1);
        (config.blockDimX, config.blockDimY, config.blockDimZ) = (32, 1, 1);
        (config.attrs, config.numAttrs) = (attribute.as_mut_ptr().cast(), 1);
        cu!(cuLaunchKernelEx(&config, bounded, null_mut(), null_mut()))
    };
    for (name, words) in
        [(0, [0; 3]), (1, [0; 3]), (2, [1, 0, 0]), (4, [1; 3]), (6, [1, 0, 0]), (8, [3, 0, 0]), (10, [1, 0, 0])]
    {
        assert_eq!(with(name, words), Ok(()), "attribute {name}");
    }
    assert_eq!(with(4, [2, 1, 1]), Err(CUDA_ERROR_INVALID_CLUSTER_SIZE));
    assert_eq!(with(7, [0; 3]), Err(CUDA_ERROR_NOT_SUPPORTED), "programmatic event");
    assert_eq!(with(77, [0; 3]), Err(CUDA_ERROR_NOT_SUPPORTED));
    assert!(last_error().contains("77"), "{}", last_error());
}
