//! Kernels: every way to launch them, their counts and their findings.

#[macro_use]
mod support;

use std::ffi::c_void;
use std::ptr::null_mut;

use support::*;

/// Launches `scale` on `n` words in blocks of 64 threads.
fn scale(module: sys::CUmodule, (mut out, mut input): (u64, u64), mut n: u32, stream: sys::CUstream) {
    let (mut a, mut b) = (3_u32, 1_u32);
    let mut params = [param(&mut out), param(&mut input), param(&mut a), param(&mut b), param(&mut n)];
    launch(function(module, c"scale"), (n.div_ceil(64), 64, 0), stream, &mut params).unwrap();
    // The parameters were copied at the launch, so changing them has no effect.
    (a, b, n) = (0, 0, 0);
    assert_eq!(a + b + n, 0);
}

#[test]
fn a_kernel_computes() {
    let _context = Context::new();
    let module = load(PTX).unwrap();
    let (input, out) = (allocate(4000), allocate(4000));
    let words: Vec<u32> = (0..1000).collect();
    write(input, &words);
    scale(module, (out, input), 1000, null_mut());
    let expected: Vec<u32> = words.iter().map(|i| 3 * i + 1).collect();
    assert_eq!(read(out, 1000), expected);
}

#[test]
fn parameters_in_one_buffer() {
    #[repr(C)]
    struct Params {
        out: u64,
        input: u64,
        a: u32,
        b: u32,
        n: u32,
    }
    let _context = Context::new();
    let function = function(load(PTX).unwrap(), c"scale");
    let (input, out) = (allocate(16), allocate(16));
    write(input, &[1, 2, 3, 4]);
    let mut params = Params { out, input, a: 10, b: 5, n: 4 };
    let launch = |mut size: usize, params: &mut Params| {
        // The keys of CU_LAUNCH_PARAM: end, buffer pointer, buffer size.
        let [end, buffer, bytes] = [0, 1, 2].map(|key: usize| key as *mut c_void);
        let mut extra = [buffer, param(params), bytes, param(&mut size), end];
        cu!(cuLaunchKernel(function, 1, 1, 1, 4, 1, 1, 0, null_mut(), null_mut(), extra.as_mut_ptr()))
    };
    launch(28, &mut params).unwrap();
    assert_eq!(read(out, 4), [15, 25, 35, 45]);
    params.b = 6;
    launch(32, &mut params).unwrap();
    assert_eq!(read(out, 4), [16, 26, 36, 46], "padding at the end is allowed");
    assert_eq!(launch(24, &mut params), Err(CUDA_ERROR_INVALID_VALUE));
    assert!(last_error().contains("28") && last_error().contains("24"), "{}", last_error());
}

#[test]
fn dynamic_shared_memory_beyond_48_kib_needs_opting_in() {
    let _context = Context::new();
    let reverse = function(load(PTX).unwrap(), c"reverse");
    let mut out = allocate(256);
    let mut params = [param(&mut out)];
    let refused = launch(reverse, (1, 64, 100_000), null_mut(), &mut params);
    assert_eq!(refused, Err(CUDA_ERROR_INVALID_VALUE));
    let name = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    cu!(cuFuncSetAttribute(reverse, name, 100_000)).unwrap();
    launch(reverse, (1, 64, 100_000), null_mut(), &mut params).unwrap();
    assert_eq!(read(out, 64), (0..64).rev().collect::<Vec<u32>>());
}

#[test]
fn variables_keep_their_values_between_launches() {
    let _context = Context::new();
    let module = load(PTX).unwrap();
    let count = function(module, c"count");
    let mut out = allocate(4);
    for expected in 7..10 {
        launch(count, (1, 1, 0), null_mut(), &mut [param(&mut out)]).unwrap();
        assert_eq!(read(out, 1), [expected]);
    }
}

#[test]
fn a_missing_wait_between_kernel_and_copy_gives_old_data() {
    let _context = Context::new();
    let module = load(PTX).unwrap();
    let (compute, copy) = (stream(NON_BLOCKING), stream(NON_BLOCKING));
    let (input, out, host) = (allocate(16), allocate(16), pinned(4));
    write(input, &[0, 1, 2, 3]);
    cu!(cuCtxSynchronize()).unwrap();
    let run = |wait: bool| {
        scale(module, (out, input), 4, compute);
        if wait {
            let done = event();
            cu!(cuEventRecord(done, compute)).unwrap();
            cu!(cuStreamWaitEvent(copy, done, 0)).unwrap();
        }
        cu!(cuMemcpyDtoHAsync_v2(host.as_ptr() as *mut c_void, out, 16, copy)).unwrap();
        cu!(cuStreamSynchronize(copy)).unwrap();
        (0..4).map(|i| peek(host, i)).collect::<Vec<u32>>()
    };
    assert_eq!(run(false), [0xCBCB_CBCB; 4]);
    assert_eq!(run(true), [1, 4, 7, 10]);
}

#[test]
fn kernels_in_graphs() {
    let _context = Context::new();
    let module = load(PTX).unwrap();
    let (stream, input, out) = (stream(NON_BLOCKING), allocate(16), allocate(16));
    let (mut graph, mut executable) = (null_mut(), null_mut());
    cu!(cuStreamBeginCapture_v2(stream, sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)).unwrap();
    scale(module, (out, input), 4, stream);
    scale(module, (input, out), 4, stream);
    cu!(cuStreamEndCapture(stream, &mut graph)).unwrap();
    cu!(cuGraphInstantiateWithFlags(&mut executable, graph, 0)).unwrap();
    write(input, &[0, 1, 2, 3]);
    cu!(cuCtxSynchronize()).unwrap();
    cu!(cuGraphLaunch(executable, stream)).unwrap();
    cu!(cuGraphLaunch(executable, stream)).unwrap();
    cu!(cuStreamSynchronize(stream)).unwrap();
    // Four times x -> 3x + 1.
    assert_eq!(read(input, 4), [40, 121, 202, 283]);
}

/// Launches a kernel that must fail and returns its error code and finding. Every later call must return the same code.
fn failing(name: &std::ffi::CStr, params: &mut [*mut c_void]) -> (CUresult, String) {
    let module = load(PTX).unwrap();
    let mut address = 0;
    launch(function(module, name), (1, 1, 0), null_mut(), params).unwrap();
    let code = cu!(cuCtxSynchronize()).unwrap_err();
    assert_eq!(cu!(cuMemAlloc_v2(&mut address, 4)), Err(code));
    assert_eq!(cu!(cuStreamSynchronize(null_mut())), Err(code));
    assert_eq!(cu!(cuModuleUnload(module)), Err(code));
    assert_eq!(load(PTX), Err(code));
    (code, text("ironwarp_emulator_last_finding"))
}

#[test]
fn a_finding_fails_its_launch_and_all_later_calls_in_the_context() {
    let _lock = exclusive();
    // The first cuInit reads the environment and overwrites settings that were changed before it.
    cu!(cuInit(0)).unwrap();
    symbol::<extern "C" fn(u64)>("ironwarp_emulator_set_step_budget")(1 << 20);
    for (name, code, texts) in [
        (c"overrun", CUDA_ERROR_ILLEGAL_ADDRESS, vec!["overrun", "just past the end of", "64 bytes at"]),
        (c"misaligned", CUDA_ERROR_MISALIGNED_ADDRESS, vec!["misaligned", "align"]),
        (c"endless", CUDA_ERROR_LAUNCH_TIMEOUT, vec!["endless"]),
        (c"trapped", CUDA_ERROR_LAUNCH_FAILED, vec!["trapped", "trap"]),
    ] {
        let context = Context::new();
        let (mut out, mut n) = (allocate(64), 16_u32);
        let (returned, finding) = failing(name, &mut [param(&mut out), param(&mut n)]);
        println!("{returned:?}: {finding}");
        assert_eq!(returned, code, "{name:?}: {finding}");
        for text in texts {
            assert!(finding.contains(text), "{name:?}: '{text}' is not in: {finding}");
        }
        drop(context);
        let _fresh = Context::new();
        allocate(64);
    }
}

#[test]
fn an_error_ends_with_the_primary_context() {
    let _lock = exclusive();
    cu!(cuInit(0)).unwrap();
    let mut context = null_mut();
    cu!(cuDevicePrimaryCtxRetain(&mut context, 0)).unwrap();
    cu!(cuCtxSetCurrent(context)).unwrap();
    let (mut out, mut n) = (allocate(64), 16_u32);
    let (code, _) = failing(c"overrun", &mut [param(&mut out), param(&mut n)]);
    assert_eq!(cu!(cuMemFree_v2(out)), Err(code));
    cu!(cuDevicePrimaryCtxReset_v2(0)).unwrap();
    assert_eq!(cu!(cuCtxSynchronize()), Err(CUDA_ERROR_CONTEXT_IS_DESTROYED));
    cu!(cuDevicePrimaryCtxRetain(&mut context, 0)).unwrap();
    cu!(cuCtxSetCurrent(context)).unwrap();
    let address = allocate(64);
    cu!(cuMemFree_v2(address)).unwrap();
    cu!(cuDevicePrimaryCtxRelease_v2(0)).unwrap();
}

#[test]
#[ignore = "run in a new process by other tests"]
fn child_launches_twice() {
    let _context = Context::new();
    let module = load(PTX).unwrap();
    let (input, out) = (allocate(4000), allocate(4000));
    write(input, &[1; 1000]);
    scale(module, (out, input), 1000, null_mut());
    scale(module, (out, input), 10, null_mut());
    cu!(cuCtxSynchronize()).unwrap();
    println!("{}", text("ironwarp_emulator_all_counts"));
    let last = text("ironwarp_emulator_last_counts");
    assert!(last.contains(r#""launch":2,"kernel":"scale","grid":[1,1,1],"block":[64,1,1]"#), "{last}");
    symbol::<extern "C" fn()>("ironwarp_emulator_clear_counts")();
    assert_eq!(text("ironwarp_emulator_all_counts"), "[]");
}

#[test]
fn counts_are_kept_and_written() {
    let file = std::env::temp_dir().join(format!("ironwarp-counts-{}.jsonl", std::process::id()));
    let said = check_in_process("child_launches_twice", &[("COUNTS", file.to_str().unwrap())]);
    let lines = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    assert_eq!(lines.lines().count(), 2, "{lines}");
    for line in lines.lines() {
        assert!(line.starts_with('{') && line.ends_with('}') && said.contains(line), "{line}");
    }
}

#[test]
#[ignore = "run in a new process by other tests"]
fn child_reads_uninitialised_memory() {
    let _context = Context::new();
    let module = load(PTX).unwrap();
    let (input, out) = (allocate(16), allocate(16));
    scale(module, (out, input), 4, null_mut());
    println!("outcome {:?}", cu!(cuCtxSynchronize()));
}

#[test]
fn checks_can_be_switched_off() {
    let child = "child_reads_uninitialised_memory";
    let said = check_in_process(child, &[("THREADS", "1"), ("SEED", "5")]);
    assert!(said.contains("outcome Err(CUDA_ERROR_LAUNCH_FAILED)") && said.contains("Initialised in scale"), "{said}");
    assert!(check_in_process(child, &[("CHECKS", "off")]).contains("outcome Ok(())"));
}

#[test]
fn cooperative_and_extended_launches_run() {
    let _context = Context::new();
    let reverse = function(load(PTX).unwrap(), c"reverse");
    let mut out = allocate(128);
    let mut params = [param(&mut out)];
    let list = params.as_mut_ptr();
    cu!(cuLaunchCooperativeKernel(reverse, 1, 1, 1, 32, 1, 1, 128, null_mut(), list)).unwrap();
    assert_eq!(read(out, 32)[0], 31);
    // SAFETY: zero is valid for a C struct of integers and pointers.
    #[allow(unsafe_code)]
    let mut config: sys::CUlaunchConfig = unsafe { std::mem::zeroed() };
    (config.gridDimX, config.gridDimY, config.gridDimZ) = (1, 1, 1);
    (config.blockDimX, config.blockDimY, config.blockDimZ) = (16, 1, 1);
    config.sharedMemBytes = 64;
    cu!(cuLaunchKernelEx(&config, reverse, list, null_mut())).unwrap();
    assert_eq!(read(out, 32)[0], 15);
}

#[test]
fn kernels_of_libraries_are_launched_as_functions() {
    let _context = Context::new();
    let text = std::ffi::CString::new(PTX).unwrap();
    let (mut library, mut kernel) = (null_mut(), null_mut());
    let (names, values) = (null_mut(), null_mut());
    let no = null_mut;
    cu!(cuLibraryLoadData(&mut library, text.as_ptr().cast(), names, values, 0, null_mut(), no(), 0)).unwrap();
    cu!(cuLibraryGetKernel(&mut kernel, library, c"count".as_ptr())).unwrap();
    let mut out = allocate(4);
    launch(kernel.cast(), (1, 1, 0), null_mut(), &mut [param(&mut out)]).unwrap();
    assert_eq!(read(out, 1), [7]);
}

#[test]
fn threads_use_contexts_concurrently() {
    let threads: Vec<_> = (0..6_u32)
        .map(|thread| {
            std::thread::spawn(move || {
                let _context = Context::new();
                let module = load(PTX).unwrap();
                let (input, out) = (allocate(400), allocate(400));
                let (one, two, done) = (stream(NON_BLOCKING), stream(0), event());
                for round in 0..40 {
                    write(input, &[thread * 1000 + round; 100]);
                    cu!(cuCtxSynchronize()).unwrap();
                    scale(module, (out, input), 100, one);
                    cu!(cuEventRecord(done, one)).unwrap();
                    cu!(cuStreamWaitEvent(two, done, 0)).unwrap();
                    scale(module, (out, out), 100, two);
                    assert_eq!(read(out, 100), [9 * (thread * 1000 + round) + 4; 100]);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}
