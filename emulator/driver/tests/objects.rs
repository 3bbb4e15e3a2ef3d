//! The device, contexts, streams and events: their properties, and refused calls.

#[macro_use]
mod support;

use std::ffi::{CStr, c_char};
use std::ptr::{null, null_mut};

use support::sys::{CUdevice_attribute, CUlimit};
use support::*;

fn attribute(name: CUdevice_attribute) -> i32 {
    let mut value = -99;
    cu!(cuDeviceGetAttribute(&mut value, name, 0)).unwrap();
    value
}

#[test]
fn the_device_has_a_name_and_identifiers() {
    cu!(cuInit(0)).unwrap();
    let (mut count, mut version, mut device) = (0, 0, -1);
    cu!(cuDeviceGetCount(&mut count)).unwrap();
    cu!(cuDriverGetVersion(&mut version)).unwrap();
    cu!(cuDeviceGet(&mut device, 0)).unwrap();
    assert_eq!((count, version, device), (1, 13000, 0));
    assert_eq!(cu!(cuDeviceGet(&mut device, 1)), Err(CUDA_ERROR_INVALID_DEVICE));
    let mut name = [1 as c_char; 64];
    cu!(cuDeviceGetName(name.as_mut_ptr(), 64, 0)).unwrap();
    assert_eq!(string(&name), "Emulated sm_80 GPU");
    cu!(cuDeviceGetName(name.as_mut_ptr(), 9, 0)).unwrap();
    assert_eq!(string(&name), "Emulated", "the name must be cut to its buffer");
    cu!(cuDeviceGetPCIBusId(name.as_mut_ptr(), 64, 0)).unwrap();
    let mut found = -1;
    cu!(cuDeviceGetByPCIBusId(&mut found, name.as_ptr())).unwrap();
    assert_eq!(found, 0);
    let mut uuid = sys::CUuuid { bytes: [0; 16] };
    cu!(cuDeviceGetUuid_v2(&mut uuid, 0)).unwrap();
    assert!(uuid.bytes.iter().all(|&byte| byte != 0));
    let mut total = 0;
    cu!(cuDeviceTotalMem_v2(&mut total, 0)).unwrap();
    assert_eq!(total, 80 << 30);
}

fn string(bytes: &[c_char]) -> String {
    let bytes: Vec<u8> = bytes.iter().map(|&byte| byte as u8).collect();
    CStr::from_bytes_until_nul(&bytes).unwrap().to_str().unwrap().to_owned()
}

#[test]
fn device_attributes_are_those_of_the_chip() {
    use CUdevice_attribute::*;
    cu!(cuInit(0)).unwrap();
    for (name, value) in [
        (CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 108),
        (CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 8),
        (CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, 0),
        (CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK, 1024),
        (CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK, 49152),
        (CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, 166912),
        (CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR, 167936),
        (CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE, 41943040),
        (CU_DEVICE_ATTRIBUTE_WARP_SIZE, 32),
        (CU_DEVICE_ATTRIBUTE_CLUSTER_LAUNCH, 0),
        (CU_DEVICE_ATTRIBUTE_MANAGED_MEMORY, 0),
    ] {
        assert_eq!(attribute(name), value, "{name:?}");
    }
    let mut value = 0;
    let raw: extern "C" fn(*mut i32, i32, i32) -> u32 = symbol("cuDeviceGetAttribute");
    assert_eq!(raw(&mut value, 100_000, 0), CUDA_ERROR_INVALID_VALUE as u32);
    assert!(last_error().contains("100000"), "{}", last_error());
}

#[test]
fn each_thread_has_a_stack_of_contexts() {
    let outer = Context::new();
    let inner = Context::new();
    let current = || {
        let mut context = null_mut();
        cu!(cuCtxGetCurrent(&mut context)).unwrap();
        context
    };
    assert_eq!(current(), inner.0);
    let mut popped = null_mut();
    cu!(cuCtxPopCurrent_v2(&mut popped)).unwrap();
    assert_eq!((popped, current()), (inner.0, outer.0));
    cu!(cuCtxPushCurrent_v2(inner.0)).unwrap();
    cu!(cuCtxSetCurrent(outer.0)).unwrap();
    assert_eq!(current(), outer.0);
    let other = std::thread::scope(|scope| scope.spawn(|| current().is_null()).join().unwrap());
    assert!(other, "a new thread has no context");
    let (mut flags, mut id, mut other_id, mut version) = (9, 0, 0, 0);
    cu!(cuCtxGetFlags(&mut flags)).unwrap();
    cu!(cuCtxGetId(outer.0, &mut id)).unwrap();
    cu!(cuCtxGetId(inner.0, &mut other_id)).unwrap();
    cu!(cuCtxGetApiVersion(outer.0, &mut version)).unwrap();
    assert_eq!((flags, version), (0, 3020));
    assert_ne!(id, other_id);
}

#[test]
fn calls_without_a_context_are_refused() {
    cu!(cuInit(0)).unwrap();
    let (mut address, mut stream) = (0, null_mut());
    assert_eq!(cu!(cuMemAlloc_v2(&mut address, 4)), Err(CUDA_ERROR_INVALID_CONTEXT));
    assert_eq!(cu!(cuStreamCreate(&mut stream, 0)), Err(CUDA_ERROR_INVALID_CONTEXT));
    assert_eq!(cu!(cuCtxSynchronize()), Err(CUDA_ERROR_INVALID_CONTEXT));
    assert_eq!(cu!(cuCtxPopCurrent_v2(&mut null_mut())), Err(CUDA_ERROR_INVALID_CONTEXT));
    assert_eq!(cu!(cuCtxSetCurrent(0x1234 as sys::CUcontext)), Err(CUDA_ERROR_INVALID_CONTEXT));
    assert_eq!(cu!(cuCtxCreate_v4(&mut null_mut(), null_mut(), 0x100, 0)), Err(CUDA_ERROR_INVALID_VALUE));
}

#[test]
fn a_destroyed_context_has_its_own_error_code() {
    let context = Context::new();
    let raw = context.0;
    let stream = stream(0);
    let number = raw as usize;
    std::thread::spawn(move || cu!(cuCtxDestroy_v2(number as sys::CUcontext)).unwrap()).join().unwrap();
    std::mem::forget(context);
    assert_eq!(cu!(cuCtxSynchronize()), Err(CUDA_ERROR_CONTEXT_IS_DESTROYED));
    assert_eq!(cu!(cuStreamSynchronize(stream)), Err(CUDA_ERROR_INVALID_HANDLE));
    assert_eq!(cu!(cuCtxDestroy_v2(raw)), Err(CUDA_ERROR_CONTEXT_IS_DESTROYED));
    cu!(cuCtxSetCurrent(null_mut())).unwrap();
}

#[test]
fn limits_and_configurations_are_kept() {
    let _context = Context::new();
    let (mut value, mut config) = (0, sys::CUfunc_cache::CU_FUNC_CACHE_PREFER_L1);
    cu!(cuCtxSetLimit(CUlimit::CU_LIMIT_STACK_SIZE, 4096)).unwrap();
    cu!(cuCtxGetLimit(&mut value, CUlimit::CU_LIMIT_STACK_SIZE)).unwrap();
    assert_eq!(value, 4096);
    let depth = CUlimit::CU_LIMIT_DEV_RUNTIME_SYNC_DEPTH;
    assert_eq!(cu!(cuCtxGetLimit(&mut value, depth)), Err(CUDA_ERROR_UNSUPPORTED_LIMIT));
    cu!(cuCtxSetCacheConfig(sys::CUfunc_cache::CU_FUNC_CACHE_PREFER_SHARED)).unwrap();
    cu!(cuCtxGetCacheConfig(&mut config)).unwrap();
    assert_eq!(config, sys::CUfunc_cache::CU_FUNC_CACHE_PREFER_SHARED);
    let (mut least, mut greatest) = (1, 1);
    cu!(cuCtxGetStreamPriorityRange(&mut least, &mut greatest)).unwrap();
    assert!(greatest < least);
}

#[test]
fn streams_have_properties() {
    let context = Context::new();
    let mut high = null_mut();
    cu!(cuStreamCreateWithPriority(&mut high, NON_BLOCKING, -100)).unwrap();
    let (mut priority, mut flags, mut owner, mut id) = (0, 0, null_mut(), 0);
    cu!(cuStreamGetPriority(high, &mut priority)).unwrap();
    cu!(cuStreamGetFlags(high, &mut flags)).unwrap();
    cu!(cuStreamGetCtx(high, &mut owner)).unwrap();
    cu!(cuStreamGetId(high, &mut id)).unwrap();
    assert_eq!((priority, flags, owner), (-5, NON_BLOCKING, context.0));
    assert_ne!(id, 0);
    cu!(cuStreamQuery(high)).unwrap();
    cu!(cuStreamDestroy_v2(high)).unwrap();
    assert_eq!(cu!(cuStreamQuery(high)), Err(CUDA_ERROR_INVALID_HANDLE));
    assert!(last_error().contains("is not a live stream"), "{}", last_error());
    assert_eq!(cu!(cuStreamDestroy_v2(null_mut())), Err(CUDA_ERROR_INVALID_HANDLE));
    assert_eq!(cu!(cuStreamCreate(&mut high, 8)), Err(CUDA_ERROR_INVALID_VALUE));
    // The special handles of the default streams: 1 is the legacy one, 2 that of the calling thread.
    let id_of = |handle: usize| {
        let mut id = 0;
        cu!(cuStreamGetId(handle as sys::CUstream, &mut id)).unwrap();
        id
    };
    assert_eq!(id_of(0), id_of(1));
    assert_ne!(id_of(1), id_of(2));
    let raw = context.0 as usize;
    let other = std::thread::spawn(move || {
        cu!(cuCtxSetCurrent(raw as sys::CUcontext)).unwrap();
        let mut id = 0;
        cu!(cuStreamGetId(2 as sys::CUstream, &mut id)).unwrap();
        id
    });
    assert_ne!(other.join().unwrap(), id_of(2));
}

#[test]
fn event_times_increase() {
    let _context = Context::new();
    let stream = stream(0);
    let (start, end, address) = (event(), event(), allocate(64));
    let mut time = -1.0;
    assert_eq!(cu!(cuEventElapsedTime_v2(&mut time, start, end)), Err(CUDA_ERROR_INVALID_HANDLE));
    cu!(cuEventQuery(start)).unwrap();
    cu!(cuEventRecord(start, stream)).unwrap();
    cu!(cuMemsetD32Async(address, 1, 16, stream)).unwrap();
    cu!(cuEventRecord(end, stream)).unwrap();
    assert_eq!(cu!(cuEventElapsedTime_v2(&mut time, start, end)), Err(CUDA_ERROR_NOT_READY));
    cu!(cuEventSynchronize(end)).unwrap();
    cu!(cuEventElapsedTime_v2(&mut time, start, end)).unwrap();
    assert!(time > 0.0);
    let mut back = 0.0;
    cu!(cuEventElapsedTime_v2(&mut back, end, start)).unwrap();
    assert_eq!(back, -time);
    let mut untimed = null_mut();
    cu!(cuEventCreate(&mut untimed, 2)).unwrap();
    cu!(cuEventRecord(untimed, stream)).unwrap();
    assert_eq!(cu!(cuEventElapsedTime_v2(&mut time, start, untimed)), Err(CUDA_ERROR_INVALID_HANDLE));
    cu!(cuEventDestroy_v2(start)).unwrap();
    assert_eq!(cu!(cuEventQuery(start)), Err(CUDA_ERROR_INVALID_HANDLE));
    assert_eq!(cu!(cuEventCreate(&mut untimed, 4)), Err(CUDA_ERROR_NOT_SUPPORTED));
}

#[test]
fn error_codes_have_names_and_descriptions() {
    for (code, name, description) in [
        (CUDA_SUCCESS, "CUDA_SUCCESS", "no error"),
        (CUDA_ERROR_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"),
        (CUDA_ERROR_ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"),
        (CUDA_ERROR_UNKNOWN, "CUDA_ERROR_UNKNOWN", "unknown error"),
    ] {
        let (mut said, mut explained) = (null(), null());
        cu!(cuGetErrorName(code, &mut said)).unwrap();
        cu!(cuGetErrorString(code, &mut explained)).unwrap();
        #[allow(unsafe_code)]
        // SAFETY: both point to static strings of the library.
        let texts = unsafe { (CStr::from_ptr(said), CStr::from_ptr(explained)) };
        assert_eq!((texts.0.to_str().unwrap(), texts.1.to_str().unwrap()), (name, description));
    }
    let raw: extern "C" fn(u32, *mut *const c_char) -> u32 = symbol("cuGetErrorName");
    let mut said = c"x".as_ptr();
    assert_eq!(raw(123_456, &mut said), CUDA_ERROR_INVALID_VALUE as u32);
    assert!(said.is_null());
}

#[test]
fn unsupported_functions_return_not_supported_and_their_name() {
    let entry: extern "C" fn() -> u32 = symbol("cuArrayCreate_v2");
    assert_eq!(entry(), CUDA_ERROR_NOT_SUPPORTED as u32);
    assert_eq!(last_error(), "cuArrayCreate_v2: not emulated");
}
