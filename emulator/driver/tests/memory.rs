//! Memory: allocation, fills, copies in every direction, and refused arguments.

#[macro_use]
mod support;

use std::ffi::c_void;
use std::ptr::{null, null_mut};

use support::sys::{CUmemPool_attribute, CUmemorytype, CUpointer_attribute};
use support::*;

#[test]
fn allocations_are_counted_and_described() {
    let _lock = exclusive();
    let context = Context::new();
    let (mut before, mut after, mut total) = (0, 0, 0);
    cu!(cuMemGetInfo_v2(&mut before, &mut total)).unwrap();
    let address = allocate(1000);
    assert!(address > 1 << 32, "an address must not be valid after truncation to 32 bits");
    let large = allocate(1 << 30);
    cu!(cuMemGetInfo_v2(&mut after, &mut total)).unwrap();
    // Other tests allocate at the same time, but much less.
    assert!(after + (1 << 29) < before && total == 80 << 30);
    cu!(cuMemFree_v2(large)).unwrap();
    let (mut base, mut size) = (0, 0);
    cu!(cuMemGetAddressRange_v2(&mut base, &mut size, address + 999)).unwrap();
    assert_eq!((base, size), (address, 1000));
    assert_eq!(cu!(cuMemGetAddressRange_v2(&mut base, &mut size, address + 1000)), Err(CUDA_ERROR_NOT_FOUND));
    let mut owner: sys::CUcontext = null_mut();
    let (mut kind, mut start) = (0_u32, 0_u64);
    for (name, out) in [
        (CUpointer_attribute::CU_POINTER_ATTRIBUTE_CONTEXT, param(&mut owner)),
        (CUpointer_attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE, param(&mut kind)),
        (CUpointer_attribute::CU_POINTER_ATTRIBUTE_RANGE_START_ADDR, param(&mut start)),
    ] {
        cu!(cuPointerGetAttribute(out, name, address + 8)).unwrap();
    }
    assert_eq!((owner, kind, start), (context.0, CUmemorytype::CU_MEMORYTYPE_DEVICE as u32, address));
    cu!(cuMemFree_v2(address)).unwrap();
    assert_eq!(cu!(cuMemFree_v2(address)), Err(CUDA_ERROR_INVALID_VALUE), "freed twice");
    assert!(last_error().contains("which was freed"), "{}", last_error());
}

#[test]
fn attributes_of_unknown_pointers() {
    let _context = Context::new();
    let mut word = 5_u32;
    let host = std::ptr::from_mut(&mut word) as u64;
    let mut kind = 9_u32;
    let name = CUpointer_attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE;
    assert_eq!(cu!(cuPointerGetAttribute(param(&mut kind), name, host)), Err(CUDA_ERROR_INVALID_VALUE));
    let (mut names, mut outs) = ([name], [param(&mut kind)]);
    cu!(cuPointerGetAttributes(1, names.as_mut_ptr(), outs.as_mut_ptr(), host)).unwrap();
    assert_eq!(kind, 0);
}

#[test]
fn invalid_arguments_are_refused() {
    let _lock = exclusive();
    let _context = Context::new();
    let (mut address, mut word) = (0, 7_u32);
    let host = std::ptr::from_mut(&mut word);
    assert_eq!(cu!(cuMemAlloc_v2(&mut address, 0)), Err(CUDA_ERROR_INVALID_VALUE));
    assert_eq!(cu!(cuMemAlloc_v2(&mut address, 81 << 30)), Err(CUDA_ERROR_OUT_OF_MEMORY));
    assert!(last_error().contains("86973087744 bytes requested"), "{}", last_error());
    let device = allocate(8);
    for (what, outcome) in [
        ("free of a host pointer", cu!(cuMemFree_v2(host as u64))),
        ("free of null", cu!(cuMemFree_v2(0))),
        ("free in the middle", cu!(cuMemFree_v2(device + 4))),
        ("host pointer as device", cu!(cuMemcpyHtoD_v2(host as u64, host.cast(), 4))),
        ("device pointer as host", cu!(cuMemcpyHtoD_v2(device, device as *const c_void, 4))),
        ("null host pointer", cu!(cuMemcpyHtoD_v2(device, null(), 4))),
        ("too many bytes in", cu!(cuMemcpyHtoD_v2(device + 4, host.cast(), 8))),
        ("too many bytes out", cu!(cuMemcpyDtoH_v2(host.cast(), device, 12))),
        ("more bytes than any memory has", cu!(cuMemcpyDtoH_v2(host.cast(), device, usize::MAX))),
        ("fill past the end", cu!(cuMemsetD32_v2(device, 0, 3))),
        ("fill unaligned", cu!(cuMemsetD32_v2(device + 2, 0, 1))),
        ("fill of more bytes than any memory has", cu!(cuMemsetD32_v2(device, 0, usize::MAX / 2))),
        ("async free of an ordinary allocation", cu!(cuMemFreeAsync(device, null_mut()))),
    ] {
        assert_eq!(outcome, Err(CUDA_ERROR_INVALID_VALUE), "{what}");
    }
    assert_eq!(word, 7);
    cu!(cuMemcpyHtoD_v2(device + 8, host.cast(), 0)).unwrap();
}

#[test]
fn fills_and_copies_of_all_widths() {
    let _context = Context::new();
    let (a, b) = (allocate(64), allocate(64));
    cu!(cuMemsetD32_v2(a, 0x0403_0201, 16)).unwrap();
    cu!(cuMemsetD16_v2(a + 4, 0xBEEF, 2)).unwrap();
    cu!(cuMemsetD8_v2(a + 8, 0xAA, 3)).unwrap();
    cu!(cuMemcpyDtoD_v2(b + 16, a, 16)).unwrap();
    assert_eq!(read(b + 16, 4), [0x0403_0201, 0xBEEF_BEEF, 0x04AA_AAAA, 0x0403_0201]);
    assert_eq!(read(b, 1), [0xCBCB_CBCB], "uninitialised memory must read as 0xCB bytes");
}

#[test]
fn unified_copies_find_out_the_kind_of_each_address() {
    let _context = Context::new();
    let (from, mut to) = ([1_u32, 2, 3], [0_u32; 3]);
    let device = allocate(12);
    cu!(cuMemcpy(device, from.as_ptr() as u64, 12)).unwrap();
    cu!(cuMemcpy(to.as_mut_ptr() as u64, device, 12)).unwrap();
    assert_eq!(to, from);
    let mut other = [0_u32; 3];
    cu!(cuMemcpy(other.as_mut_ptr() as u64, to.as_ptr() as u64, 12)).unwrap();
    assert_eq!(other, from);
}

#[test]
fn two_dimensional_copies() {
    let _context = Context::new();
    let (mut pitched, mut pitch) = (0, 0);
    cu!(cuMemAllocPitch_v2(&mut pitched, &mut pitch, 12, 4, 4)).unwrap();
    assert_eq!(pitch, 512);
    assert_eq!(cu!(cuMemAllocPitch_v2(&mut pitched, &mut pitch, 12, 4, 3)), Err(CUDA_ERROR_INVALID_VALUE));
    cu!(cuMemsetD2D32_v2(pitched, pitch, 9, 3, 4)).unwrap();
    let host: Vec<u32> = (0..12).collect();
    // Copies two words of each of two rows, from column 1 of row 1 to column 0 of row 2.
    let into = sys::CUDA_MEMCPY2D_st {
        srcXInBytes: 4,
        srcY: 1,
        srcMemoryType: CUmemorytype::CU_MEMORYTYPE_HOST,
        srcHost: host.as_ptr().cast(),
        srcDevice: 0,
        srcArray: null_mut(),
        srcPitch: 12,
        dstXInBytes: 0,
        dstY: 2,
        dstMemoryType: CUmemorytype::CU_MEMORYTYPE_DEVICE,
        dstHost: null_mut(),
        dstDevice: pitched,
        dstArray: null_mut(),
        dstPitch: pitch,
        WidthInBytes: 8,
        Height: 2,
    };
    cu!(cuMemcpy2D_v2(&into)).unwrap();
    let rows: Vec<Vec<u32>> = (0..4).map(|row| read(pitched + row * 512, 3)).collect();
    assert_eq!(rows, [[9, 9, 9], [9, 9, 9], [4, 5, 9], [7, 8, 9]]);
    let narrow = sys::CUDA_MEMCPY2D_st { dstPitch: 4, ..into };
    assert_eq!(cu!(cuMemcpy2D_v2(&narrow)), Err(CUDA_ERROR_INVALID_VALUE));
    let array = sys::CUDA_MEMCPY2D_st { dstMemoryType: CUmemorytype::CU_MEMORYTYPE_ARRAY, ..into };
    assert_eq!(cu!(cuMemcpy2D_v2(&array)), Err(CUDA_ERROR_NOT_SUPPORTED));
}

#[test]
fn three_dimensional_copies() {
    let _context = Context::new();
    let device = allocate(4 * 4 * 3 * 4);
    let host: Vec<u32> = (0..24).collect();
    // SAFETY: zero is valid for a C struct of integers and pointers; the two enumerations are set here.
    #[allow(unsafe_code)]
    let mut area: sys::CUDA_MEMCPY3D_st = unsafe {
        let mut area = std::mem::MaybeUninit::<sys::CUDA_MEMCPY3D_st>::zeroed();
        (*area.as_mut_ptr()).srcMemoryType = CUmemorytype::CU_MEMORYTYPE_HOST;
        (*area.as_mut_ptr()).dstMemoryType = CUmemorytype::CU_MEMORYTYPE_UNIFIED;
        area.assume_init()
    };
    (area.srcHost, area.srcPitch, area.srcHeight) = (host.as_ptr().cast(), 16, 3);
    (area.dstDevice, area.dstPitch, area.dstHeight) = (device, 16, 4);
    (area.srcXInBytes, area.srcY, area.srcZ) = (4, 1, 1);
    (area.WidthInBytes, area.Height, area.Depth) = (8, 2, 1);
    (area.dstXInBytes, area.dstY, area.dstZ) = (0, 1, 2);
    cu!(cuMemcpy3D_v2(&area)).unwrap();
    assert_eq!(read(device + 16 * (2 * 4 + 1), 2), [17, 18]);
    assert_eq!(read(device + 16 * (2 * 4 + 2), 2), [21, 22]);
    area.Depth = usize::MAX;
    assert_eq!(cu!(cuMemcpy3D_v2(&area)), Err(CUDA_ERROR_INVALID_VALUE));
}

#[test]
fn pools_count_the_memory_in_use() {
    let _lock = exclusive();
    let _context = Context::new();
    let (mut default, mut current) = (null_mut(), null_mut());
    cu!(cuDeviceGetDefaultMemPool(&mut default, 0)).unwrap();
    cu!(cuDeviceGetMemPool(&mut current, 0)).unwrap();
    assert_eq!(default, current);
    let props = sys::CUmemPoolProps {
        allocType: sys::CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED,
        handleTypes: sys::CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_NONE,
        location: sys::CUmemLocation { type_: sys::CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE, id: 0 },
        win32SecurityAttributes: null_mut(),
        maxSize: 0,
        usage: 0,
        reserved: [0; 54],
    };
    let mut pool = null_mut();
    cu!(cuMemPoolCreate(&mut pool, &props)).unwrap();
    let stream = stream(0);
    let mut address = 0;
    cu!(cuMemAllocFromPoolAsync(&mut address, 4096, pool, stream)).unwrap();
    let used = || {
        let mut used = 0_u64;
        let name = CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT;
        cu!(cuMemPoolGetAttribute(pool, name, param(&mut used))).unwrap();
        used
    };
    assert_eq!(used(), 4096);
    let mut threshold = u64::MAX;
    let name = CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    cu!(cuMemPoolSetAttribute(pool, name, param(&mut threshold))).unwrap();
    threshold = 0;
    cu!(cuMemPoolGetAttribute(pool, name, param(&mut threshold))).unwrap();
    assert_eq!(threshold, u64::MAX);
    cu!(cuMemFreeAsync(address, stream)).unwrap();
    assert_eq!(cu!(cuMemFreeAsync(address, stream)), Err(CUDA_ERROR_INVALID_VALUE), "freed twice");
    assert_eq!(used(), 4096, "the stream has not executed the free yet");
    cu!(cuStreamSynchronize(stream)).unwrap();
    assert_eq!(used(), 0);
    cu!(cuMemPoolTrimTo(pool, 0)).unwrap();
    cu!(cuMemPoolDestroy(pool)).unwrap();
    assert_eq!(cu!(cuMemPoolDestroy(default)), Err(CUDA_ERROR_INVALID_VALUE));
}

#[test]
fn page_locked_memory() {
    let _lock = exclusive();
    let _context = Context::new();
    let mut words = vec![0_u32; 4096];
    let pointer: *mut c_void = words.as_mut_ptr().cast();
    cu!(cuMemHostRegister_v2(pointer, 16384, 0)).unwrap();
    let inside = words.as_mut_ptr().wrapping_add(8).cast();
    let twice = cu!(cuMemHostRegister_v2(inside, 16, 0));
    assert_eq!(twice, Err(CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED));
    let mut kind = 0_u32;
    let name = CUpointer_attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE;
    cu!(cuPointerGetAttribute(param(&mut kind), name, inside as u64)).unwrap();
    assert_eq!(kind, CUmemorytype::CU_MEMORYTYPE_HOST as u32);
    assert_eq!(cu!(cuMemFreeHost(pointer)), Err(CUDA_ERROR_INVALID_VALUE), "the library did not allocate it");
    cu!(cuMemHostUnregister(pointer)).unwrap();
    assert_eq!(cu!(cuMemHostUnregister(pointer)), Err(CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED));
    let (mut own, mut flags) = (null_mut(), 0);
    cu!(cuMemHostAlloc(&mut own, 100, 4)).unwrap();
    cu!(cuMemHostGetFlags(&mut flags, own)).unwrap();
    assert_eq!((flags, own as usize % 4096), (4, 0));
    assert_eq!(cu!(cuMemHostAlloc(&mut null_mut(), 100, 2)), Err(CUDA_ERROR_NOT_SUPPORTED), "mapped");
    assert_eq!(cu!(cuMemHostAlloc(&mut null_mut(), 100, 64)), Err(CUDA_ERROR_INVALID_VALUE));
    cu!(cuMemFreeHost(own)).unwrap();
    assert_eq!(cu!(cuMemFreeHost(own)), Err(CUDA_ERROR_INVALID_VALUE));
}

#[test]
fn destroying_a_context_frees_its_memory() {
    let _lock = exclusive();
    let (mut before, mut after, mut total) = (0, 0, 0);
    let first = Context::new();
    cu!(cuMemGetInfo_v2(&mut before, &mut total)).unwrap();
    let context = Context::new();
    let address = allocate(1 << 30);
    drop(context);
    let mut base = 0;
    assert_eq!(cu!(cuMemGetAddressRange_v2(&mut base, null_mut(), address)), Err(CUDA_ERROR_NOT_FOUND));
    cu!(cuMemGetInfo_v2(&mut after, &mut total)).unwrap();
    assert!(before.abs_diff(after) < 1 << 29);
    drop(first);
}
