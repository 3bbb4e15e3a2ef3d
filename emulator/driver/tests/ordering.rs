//! The order of execution: work executes as late as CUDA allows, so that missing synchronisation always gives old data.
//!
//! Most tests contain a mistake and its correction. One test runs at a time, because they set the seed.

#[macro_use]
mod support;

use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::MutexGuard;
use std::sync::atomic::{AtomicU32, Ordering};

use support::*;

const POISON: u32 = 0xCBCB_CBCB;

/// A context, and the lock that lets only one test run.
struct Exclusive {
    _context: Context,
    _lock: MutexGuard<'static, ()>,
}

fn exclusive_context() -> Exclusive {
    let lock = exclusive();
    let context = Context::new();
    set_seed(0);
    Exclusive { _context: context, _lock: lock }
}

fn fill(address: u64, value: u32, stream: sys::CUstream) {
    cu!(cuMemsetD32Async(address, value, 1, stream)).unwrap();
}

fn copy_out(to: &mut [u32], from: u64, stream: sys::CUstream) {
    cu!(cuMemcpyDtoHAsync_v2(to.as_mut_ptr().cast(), from, size_of_val(to), stream)).unwrap();
}

#[test]
fn reading_before_synchronising_gives_old_data() {
    let _lock = exclusive_context();
    let (stream, address, out) = (stream(NON_BLOCKING), allocate(4), pinned(1));
    fill(address, 5, stream);
    copy_out(out, address, stream);
    assert_eq!(peek(out, 0), POISON, "nothing must execute before it is waited for");
    cu!(cuStreamSynchronize(stream)).unwrap();
    assert_eq!(peek(out, 0), 5);
}

#[test]
fn page_locked_memory_is_read_when_the_copy_executes() {
    let _lock = exclusive_context();
    let (stream, address, input) = (stream(NON_BLOCKING), allocate(4), pinned(1));
    input[0] = 1;
    cu!(cuMemcpyHtoDAsync_v2(address, input.as_ptr().cast(), 4, stream)).unwrap();
    input[0] = 2;
    cu!(cuStreamSynchronize(stream)).unwrap();
    assert_eq!(read(address, 1), [2], "the copy must read the changed value");
    let mut pageable = [3_u32];
    cu!(cuMemcpyHtoDAsync_v2(address, pageable.as_ptr().cast(), 4, stream)).unwrap();
    pageable[0] = 4;
    cu!(cuStreamSynchronize(stream)).unwrap();
    assert_eq!(read(address, 1), [3], "pageable memory must be read at the call");
    assert_eq!(pageable, [4]);
}

#[test]
fn a_copy_to_pageable_memory_completes_before_it_returns() {
    let _lock = exclusive_context();
    let (stream, address, mut out) = (stream(NON_BLOCKING), allocate(4), [0_u32]);
    fill(address, 6, stream);
    copy_out(&mut out, address, stream);
    assert_eq!(out, [6]);
}

#[test]
fn two_streams_without_an_event_are_not_ordered() {
    let _lock = exclusive_context();
    let (first, second) = (stream(NON_BLOCKING), stream(NON_BLOCKING));
    let (address, out) = (allocate(4), pinned(1));
    fill(address, 7, first);
    copy_out(out, address, second);
    cu!(cuStreamSynchronize(second)).unwrap();
    assert_eq!(peek(out, 0), POISON, "the copy must not wait for the other stream");
    fill(address, 8, first);
    let ready = event();
    cu!(cuEventRecord(ready, first)).unwrap();
    cu!(cuStreamWaitEvent(second, ready, 0)).unwrap();
    copy_out(out, address, second);
    cu!(cuStreamSynchronize(second)).unwrap();
    assert_eq!(peek(out, 0), 8);
}

#[test]
fn a_wait_is_for_the_last_recording_before_it() {
    let _lock = exclusive_context();
    let (first, second, recorded) = (stream(NON_BLOCKING), stream(NON_BLOCKING), event());
    let (address, out) = (allocate(4), pinned(1));
    cu!(cuStreamWaitEvent(second, recorded, 0)).unwrap();
    fill(address, 1, first);
    cu!(cuEventRecord(recorded, first)).unwrap();
    copy_out(out, address, second);
    cu!(cuStreamSynchronize(second)).unwrap();
    assert_eq!(peek(out, 0), POISON, "the wait came before the record");
    fill(address, 2, first);
    cu!(cuEventSynchronize(recorded)).unwrap();
    assert_eq!(read_only(address), 1, "later work than the event must not be waited for");
}

/// Reads a word through a new stream, which waits for no other stream.
fn read_only(address: u64) -> u32 {
    let (stream, mut out) = (stream(NON_BLOCKING), [0]);
    copy_out(&mut out, address, stream);
    out[0]
}

#[test]
fn the_default_stream_synchronises_with_blocking_streams_only() {
    let _lock = exclusive_context();
    let (blocking, free) = (stream(0), stream(NON_BLOCKING));
    let (a, b) = (allocate(4), allocate(4));
    fill(a, 1, blocking);
    fill(b, 2, free);
    assert_eq!((read(a, 1)[0], read(b, 1)[0]), (1, POISON), "read on the default stream");
    fill(a, 3, null_mut());
    let (seen_by_blocking, seen_by_free) = (pinned(1), pinned(1));
    copy_out(seen_by_free, a, free);
    cu!(cuStreamSynchronize(free)).unwrap();
    assert_eq!(peek(seen_by_free, 0), 1, "a non-blocking stream must not wait for the default stream");
    copy_out(seen_by_blocking, a, blocking);
    cu!(cuStreamSynchronize(blocking)).unwrap();
    assert_eq!(peek(seen_by_blocking, 0), 3);
}

#[test]
fn the_per_thread_default_stream_is_a_blocking_stream() {
    let _lock = exclusive_context();
    let (address, out) = (allocate(4), pinned(1));
    let per_thread = 2 as sys::CUstream;
    fill(address, 4, null_mut());
    copy_out(out, address, per_thread);
    cu!(cuStreamSynchronize(per_thread)).unwrap();
    assert_eq!(peek(out, 0), 4);
    // For the `_ptsz` functions, a null handle is that stream.
    let fill_per_thread: extern "C" fn(u64, u32, usize, usize) -> u32 = symbol("cuMemsetD32Async_ptsz");
    assert_eq!(fill_per_thread(address, 5, 1, 0), 0);
    assert_eq!(cu!(cuStreamQuery(per_thread)), Err(CUDA_ERROR_NOT_READY));
    cu!(cuStreamSynchronize(per_thread)).unwrap();
    assert_eq!(read_only(address), 5);
}

#[test]
fn synchronous_fills_and_copies_within_the_device_do_not_wait() {
    let _lock = exclusive_context();
    let (a, b) = (allocate(4), allocate(4));
    cu!(cuMemsetD32_v2(a, 9, 1)).unwrap();
    cu!(cuMemcpyDtoD_v2(b, a, 4)).unwrap();
    assert_eq!(read_only(b), POISON);
    cu!(cuCtxSynchronize()).unwrap();
    assert_eq!(read_only(b), 9);
    write(a, &[10]);
    assert_eq!(read_only(a), 9, "even a synchronous copy from pageable memory may complete after its call");
    assert_eq!(read(a, 1), [10]);
}

#[test]
fn polling_makes_progress() {
    let _lock = exclusive_context();
    let (stream, address, recorded) = (stream(NON_BLOCKING), allocate(4), event());
    for value in 0..99 {
        fill(address, value, stream);
    }
    cu!(cuEventRecord(recorded, stream)).unwrap();
    let mut polls = 0;
    while let Err(code) = cu!(cuEventQuery(recorded)) {
        assert_eq!(code, CUDA_ERROR_NOT_READY);
        polls += 1;
    }
    assert_eq!(polls, 7, "each query must execute twice as many operations as the one before");
    cu!(cuStreamQuery(stream)).unwrap();
}

#[test]
fn destroyed_streams_finish_their_work() {
    let _lock = exclusive_context();
    let (destroyed, address) = (stream(0), allocate(4));
    fill(address, 11, destroyed);
    cu!(cuStreamDestroy_v2(destroyed)).unwrap();
    assert_eq!(read_only(address), POISON);
    assert_eq!(read(address, 1), [11], "the default stream must still wait for it");
}

#[test]
fn freeing_waits_for_pending_work() {
    let _lock = exclusive_context();
    let (stream, address, out) = (stream(NON_BLOCKING), allocate(4), pinned(1));
    fill(address, 12, stream);
    copy_out(out, address, stream);
    cu!(cuMemFree_v2(address)).unwrap();
    assert_eq!(peek(out, 0), 12);
}

#[test]
fn using_memory_after_its_stream_freed_it_is_an_error() {
    let lock = exclusive_context();
    let (owner, other) = (stream(NON_BLOCKING), stream(NON_BLOCKING));
    let mut address = 0;
    cu!(cuMemAllocAsync(&mut address, 4, owner)).unwrap();
    fill(address, 1, owner);
    cu!(cuMemFreeAsync(address, owner)).unwrap();
    fill(address, 2, other);
    cu!(cuStreamSynchronize(owner)).unwrap();
    assert_eq!(cu!(cuStreamSynchronize(other)), Err(CUDA_ERROR_ILLEGAL_ADDRESS));
    let finding = text("ironwarp_emulator_last_finding");
    assert!(finding.contains("which was freed"), "{finding}");
    // Every later call returns the same error.
    assert_eq!(cu!(cuMemAlloc_v2(&mut address, 4)), Err(CUDA_ERROR_ILLEGAL_ADDRESS));
    assert_eq!(cu!(cuCtxSynchronize()), Err(CUDA_ERROR_ILLEGAL_ADDRESS));
    drop(lock);
}

static CALLS: AtomicU32 = AtomicU32::new(0);

extern "C" fn host_function(data: *mut c_void) {
    let mut address = 0;
    let refused = cu!(cuMemAlloc_v2(&mut address, 4)) == Err(CUDA_ERROR_NOT_PERMITTED);
    CALLS.fetch_add(data as u32 * u32::from(refused), Ordering::SeqCst);
}

extern "C" fn stream_callback(_: sys::CUstream, status: CUresult, data: *mut c_void) {
    CALLS.fetch_add(data as u32 * u32::from(status == CUDA_SUCCESS), Ordering::SeqCst);
}

#[test]
fn host_functions_run_in_stream_order_and_may_not_call_the_driver() {
    let _lock = exclusive_context();
    let stream = stream(NON_BLOCKING);
    CALLS.store(0, Ordering::SeqCst);
    cu!(cuLaunchHostFunc(stream, Some(host_function), 10 as *mut c_void)).unwrap();
    cu!(cuStreamAddCallback(stream, Some(stream_callback), 3 as *mut c_void, 0)).unwrap();
    assert_eq!(CALLS.load(Ordering::SeqCst), 0);
    cu!(cuStreamSynchronize(stream)).unwrap();
    assert_eq!(CALLS.load(Ordering::SeqCst), 13);
    assert_eq!(cu!(cuLaunchHostFunc(stream, None, null_mut())), Err(CUDA_ERROR_INVALID_VALUE));
}

#[test]
fn polling_does_not_wait_for_a_host_function() {
    let _lock = exclusive_context();
    static RELEASED: AtomicU32 = AtomicU32::new(0);
    extern "C" fn wait_for_release(_: *mut c_void) {
        while RELEASED.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
    }
    let (stream, other, address, recorded) = (stream(NON_BLOCKING), stream(NON_BLOCKING), allocate(4), event());
    cu!(cuLaunchHostFunc(stream, Some(wait_for_release), null_mut())).unwrap();
    cu!(cuEventRecord(recorded, stream)).unwrap();
    for _ in 0..3 {
        assert_eq!(cu!(cuEventQuery(recorded)), Err(CUDA_ERROR_NOT_READY));
    }
    fill(address, 1, other);
    cu!(cuStreamSynchronize(other)).unwrap();
    RELEASED.store(1, Ordering::SeqCst);
    cu!(cuEventSynchronize(recorded)).unwrap();
}

/// Two unordered streams write the same word; returns the value of the one that wrote last.
fn race(seed: u64) -> u32 {
    set_seed(seed);
    let (first, second, address) = (stream(NON_BLOCKING), stream(NON_BLOCKING), allocate(4));
    fill(address, 1, first);
    fill(address, 2, second);
    cu!(cuCtxSynchronize()).unwrap();
    read(address, 1)[0]
}

#[test]
fn the_seed_determines_the_order_of_unordered_work() {
    let _lock = exclusive_context();
    let outcomes: Vec<u32> = (0..32).map(race).collect();
    assert!(outcomes.contains(&1) && outcomes.contains(&2), "{outcomes:?}");
    assert_eq!(outcomes, (0..32).map(race).collect::<Vec<_>>(), "the same seed must give the same order");
}

#[test]
fn with_a_seed_other_ready_work_sometimes_executes_too() {
    let _lock = exclusive_context();
    let early = (1..64).filter(|&seed| {
        set_seed(seed);
        let (first, second, address) = (stream(NON_BLOCKING), stream(NON_BLOCKING), allocate(64));
        fill(address, 1, first);
        for _ in 0..4 {
            fill(address + 32, 1, second);
        }
        cu!(cuStreamSynchronize(second)).unwrap();
        cu!(cuStreamQuery(first)).is_ok()
    });
    let early = early.count();
    assert!((10..60).contains(&early), "the other stream's work executed with {early} of 63 seeds");
}

#[test]
fn the_oldest_operations_of_a_long_queue_execute() {
    let _lock = exclusive_context();
    let (stream, address) = (stream(NON_BLOCKING), allocate(4));
    for value in 0..40_000 {
        fill(address, value, stream);
    }
    assert!(read_only(address) > 10_000, "the oldest operations must have been executed");
    cu!(cuStreamSynchronize(stream)).unwrap();
    assert_eq!(read_only(address), 39_999);
}

#[test]
fn threads_may_call_while_an_operation_executes() {
    let lock = exclusive_context();
    static GATE: AtomicU32 = AtomicU32::new(0);
    extern "C" fn wait_for_gate(_: *mut c_void) {
        GATE.store(1, Ordering::SeqCst);
        while GATE.load(Ordering::SeqCst) != 2 {
            std::thread::yield_now();
        }
    }
    let (stream, address) = (stream(NON_BLOCKING), allocate(4));
    cu!(cuLaunchHostFunc(stream, Some(wait_for_gate), null_mut())).unwrap();
    let (context, number) = (lock._context.0 as usize, stream as usize);
    let waiter = std::thread::spawn(move || {
        cu!(cuCtxSetCurrent(context as sys::CUcontext)).unwrap();
        cu!(cuStreamSynchronize(number as sys::CUstream)).unwrap();
    });
    while GATE.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    fill(address, 1, stream);
    assert_eq!(cu!(cuMemFree_v2(address + 1)), Err(CUDA_ERROR_INVALID_VALUE));
    GATE.store(2, Ordering::SeqCst);
    cu!(cuStreamSynchronize(stream)).unwrap();
    waiter.join().unwrap();
    assert_eq!(read_only(address), 1);
}
