//! Graphs by stream capture.

#[macro_use]
mod support;

use std::ptr::null_mut;

use support::sys::{CUgraphNodeType, CUstreamCaptureMode, CUstreamCaptureStatus};
use support::*;

const THREAD_LOCAL: CUstreamCaptureMode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
const RELAXED: CUstreamCaptureMode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;

fn begin(stream: sys::CUstream) {
    cu!(cuStreamBeginCapture_v2(stream, THREAD_LOCAL)).unwrap();
}

fn end(stream: sys::CUstream) -> Result<sys::CUgraph, CUresult> {
    let mut graph = null_mut();
    cu!(cuStreamEndCapture(stream, &mut graph)).map(|()| graph)
}

fn status(stream: sys::CUstream) -> CUstreamCaptureStatus {
    let mut status = CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
    cu!(cuStreamIsCapturing(stream, &mut status)).unwrap();
    status
}

fn instantiate(graph: sys::CUgraph) -> sys::CUgraphExec {
    let mut executable = null_mut();
    cu!(cuGraphInstantiateWithFlags(&mut executable, graph, 0)).unwrap();
    executable
}

fn fill(address: u64, value: u32, stream: sys::CUstream) {
    cu!(cuMemsetD32Async(address, value, 1, stream)).unwrap();
}

fn nodes(graph: sys::CUgraph) -> Vec<sys::CUgraphNode> {
    let mut count = 0;
    cu!(cuGraphGetNodes(graph, null_mut(), &mut count)).unwrap();
    let mut nodes = vec![null_mut(); count];
    cu!(cuGraphGetNodes(graph, nodes.as_mut_ptr(), &mut count)).unwrap();
    nodes
}

#[test]
fn captured_work_runs_when_the_graph_is_launched() {
    let _context = Context::new();
    let (stream, a, out) = (stream(NON_BLOCKING), allocate(4), pinned(1));
    let input = pinned(1);
    begin(stream);
    assert_eq!(status(stream), CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_ACTIVE);
    cu!(cuMemcpyHtoDAsync_v2(a, input.as_ptr().cast(), 4, stream)).unwrap();
    cu!(cuMemcpyDtoHAsync_v2(out.as_mut_ptr().cast(), a, 4, stream)).unwrap();
    let graph = end(stream).unwrap();
    assert_eq!(status(stream), CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE);
    cu!(cuStreamSynchronize(stream)).unwrap();
    assert_eq!(peek(out, 0), 0xCBCB_CBCB, "captured work was executed");
    let executable = instantiate(graph);
    cu!(cuGraphDestroy(graph)).unwrap();
    cu!(cuGraphUpload(executable, stream)).unwrap();
    for value in 1..4 {
        input[0] = value;
        cu!(cuGraphLaunch(executable, stream)).unwrap();
        cu!(cuStreamSynchronize(stream)).unwrap();
        assert_eq!(peek(out, 0), value, "each launch must read the current contents of memory");
    }
    cu!(cuGraphExecDestroy(executable)).unwrap();
    assert_eq!(cu!(cuGraphLaunch(executable, stream)), Err(CUDA_ERROR_INVALID_HANDLE));
}

#[test]
fn streams_fork_and_join_by_events() {
    let _context = Context::new();
    let (main, side) = (stream(NON_BLOCKING), stream(NON_BLOCKING));
    let (a, b) = (allocate(4), allocate(4));
    let (forked, joined) = (event(), event());
    begin(main);
    fill(a, 1, main);
    cu!(cuEventRecord(forked, main)).unwrap();
    cu!(cuStreamWaitEvent(side, forked, 0)).unwrap();
    assert_eq!(status(side), CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_ACTIVE);
    cu!(cuMemcpyDtoDAsync_v2(b, a, 4, side)).unwrap();
    cu!(cuEventRecord(joined, side)).unwrap();
    cu!(cuStreamWaitEvent(main, joined, 0)).unwrap();
    fill(a, 2, main);
    let graph = end(main).unwrap();
    let all = nodes(graph);
    assert_eq!(all.len(), 3);
    let mut edges = 0;
    cu!(cuGraphGetEdges_v2(graph, null_mut(), null_mut(), null_mut(), &mut edges)).unwrap();
    assert_eq!(edges, 3, "the last node depends on both others");
    let (mut from, mut to) = ([null_mut(); 3], [null_mut(); 3]);
    cu!(cuGraphGetEdges_v2(graph, from.as_mut_ptr(), to.as_mut_ptr(), null_mut(), &mut edges)).unwrap();
    assert!(from.contains(&all[0]) && to.iter().filter(|&&node| node == all[2]).count() == 2);
    let mut roots = 0;
    cu!(cuGraphGetRootNodes(graph, null_mut(), &mut roots)).unwrap();
    assert_eq!(roots, 1);
    let mut kind = CUgraphNodeType::CU_GRAPH_NODE_TYPE_EMPTY;
    cu!(cuGraphNodeGetType(all[1], &mut kind)).unwrap();
    assert_eq!(kind, CUgraphNodeType::CU_GRAPH_NODE_TYPE_MEMCPY);
    let mut copy = null_mut();
    cu!(cuGraphClone(&mut copy, graph)).unwrap();
    assert!(nodes(copy).len() == 3 && nodes(copy)[0] != all[0]);
    cu!(cuGraphLaunch(instantiate(copy), main)).unwrap();
    cu!(cuStreamSynchronize(main)).unwrap();
    cu!(cuCtxSynchronize()).unwrap();
    assert_eq!((read(a, 1)[0], read(b, 1)[0]), (2, 1));
}

#[test]
fn launches_of_a_graph_are_ordered_with_their_stream_and_each_other() {
    let _context = Context::new();
    let (one, two, address, out) = (stream(NON_BLOCKING), stream(NON_BLOCKING), allocate(4), pinned(1));
    begin(one);
    cu!(cuMemcpyDtoHAsync_v2(out.as_mut_ptr().cast(), address, 4, one)).unwrap();
    let executable = instantiate(end(one).unwrap());
    fill(address, 1, one);
    cu!(cuGraphLaunch(executable, one)).unwrap();
    fill(address, 2, one);
    cu!(cuGraphLaunch(executable, two)).unwrap();
    cu!(cuStreamSynchronize(two)).unwrap();
    assert_eq!(peek(out, 0), 1, "the second launch waits for the first, not for the stream's later work");
}

#[test]
fn events_recorded_externally_become_nodes() {
    let _context = Context::new();
    let (main, other, recorded) = (stream(NON_BLOCKING), stream(NON_BLOCKING), event());
    let (address, out) = (allocate(4), pinned(1));
    begin(main);
    fill(address, 7, main);
    cu!(cuEventRecordWithFlags(recorded, main, 1)).unwrap();
    let executable = instantiate(end(main).unwrap());
    cu!(cuGraphLaunch(executable, main)).unwrap();
    cu!(cuStreamWaitEvent(other, recorded, 0)).unwrap();
    cu!(cuMemcpyDtoHAsync_v2(out.as_mut_ptr().cast(), address, 4, other)).unwrap();
    cu!(cuStreamSynchronize(other)).unwrap();
    assert_eq!(peek(out, 0), 7);
}

#[test]
fn waiting_for_a_captured_stream_ends_the_capture() {
    let _context = Context::new();
    let (stream, address) = (stream(NON_BLOCKING), allocate(4));
    begin(stream);
    fill(address, 1, stream);
    assert_eq!(cu!(cuStreamSynchronize(stream)), Err(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED));
    assert_eq!(status(stream), CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_INVALIDATED);
    assert_eq!(cu!(cuMemsetD32Async(address, 1, 1, stream)), Err(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED));
    assert_eq!(end(stream), Err(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED));
    fill(address, 1, stream);
    cu!(cuStreamSynchronize(stream)).unwrap();
}

#[test]
fn forbidden_calls_invalidate_a_capture() {
    let _context = Context::new();
    let (stream_a, stream_b, address) = (stream(NON_BLOCKING), stream(NON_BLOCKING), allocate(4));
    let (recorded, mut other) = (event(), 0);
    type Call<'a> = (&'a str, CUresult, Box<dyn FnMut() -> Result<(), CUresult> + 'a>);
    let calls: Vec<Call<'_>> = vec![
        ("context synchronisation", CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, Box::new(|| cu!(cuCtxSynchronize()))),
        ("allocation", CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, Box::new(|| cu!(cuMemAlloc_v2(&mut other, 4)))),
        ("query", CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, Box::new(|| cu!(cuStreamQuery(stream_a)))),
        (
            "outside event",
            CUDA_ERROR_STREAM_CAPTURE_ISOLATION,
            Box::new(|| {
                cu!(cuEventRecord(recorded, stream_b))?;
                cu!(cuStreamWaitEvent(stream_a, recorded, 0))
            }),
        ),
        (
            "freeing in the stream",
            CUDA_ERROR_NOT_SUPPORTED,
            Box::new(|| {
                let mut pooled = 0;
                cu!(cuMemAllocAsync(&mut pooled, 4, stream_b))?;
                cu!(cuMemFreeAsync(pooled, stream_a))
            }),
        ),
    ];
    for (what, code, mut call) in calls {
        begin(stream_a);
        fill(address, 1, stream_a);
        assert_eq!(call(), Err(code), "{what}");
        assert_eq!(end(stream_a), Err(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED), "{what}");
    }
    assert_eq!(cu!(cuStreamBeginCapture_v2(null_mut(), THREAD_LOCAL)), Err(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED));
    assert_eq!(end(stream_a), Err(CUDA_ERROR_ILLEGAL_STATE));
}

#[test]
fn the_host_cannot_wait_for_captured_events() {
    let _context = Context::new();
    let (stream, address, recorded) = (stream(NON_BLOCKING), allocate(4), event());
    begin(stream);
    fill(address, 1, stream);
    cu!(cuEventRecord(recorded, stream)).unwrap();
    assert_eq!(cu!(cuEventQuery(recorded)), Err(CUDA_ERROR_CAPTURED_EVENT));
    assert_eq!(cu!(cuEventSynchronize(recorded)), Err(CUDA_ERROR_CAPTURED_EVENT));
    end(stream).unwrap();
}

#[test]
fn the_default_stream_must_not_depend_on_a_captured_blocking_stream() {
    let _context = Context::new();
    let (blocking, address) = (stream(0), allocate(4));
    begin(blocking);
    fill(address, 1, blocking);
    assert_eq!(cu!(cuMemsetD32Async(address, 2, 1, null_mut())), Err(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT));
    assert_eq!(end(blocking), Err(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED));
}

#[test]
fn captures_must_end_in_the_stream_and_thread_that_began_them() {
    let _context = Context::new();
    let (main, side, address) = (stream(NON_BLOCKING), stream(NON_BLOCKING), allocate(4));
    let forked = event();
    begin(main);
    fill(address, 1, main);
    cu!(cuEventRecord(forked, main)).unwrap();
    cu!(cuStreamWaitEvent(side, forked, 0)).unwrap();
    fill(address, 2, side);
    assert_eq!(end(side), Err(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED));
    let number = main as usize;
    let elsewhere = std::thread::spawn(move || end(number as sys::CUstream).map(|_| ()));
    assert_eq!(elsewhere.join().unwrap(), Err(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD));
    assert_eq!(end(main), Err(CUDA_ERROR_STREAM_CAPTURE_UNJOINED));
    assert_eq!(status(side), CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE);
}

#[test]
fn two_captures_do_not_merge() {
    let _context = Context::new();
    let (one, two, address) = (stream(NON_BLOCKING), stream(NON_BLOCKING), allocate(4));
    let recorded = event();
    begin(one);
    begin(two);
    fill(address, 1, one);
    cu!(cuEventRecord(recorded, one)).unwrap();
    assert_eq!(cu!(cuStreamWaitEvent(two, recorded, 0)), Err(CUDA_ERROR_STREAM_CAPTURE_MERGE));
    assert_eq!(end(one), Err(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED));
    assert_eq!(end(two), Err(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED));
}

#[test]
fn a_relaxed_capture_or_thread_may_allocate() {
    let _context = Context::new();
    let (stream, mut address) = (stream(NON_BLOCKING), 0);
    cu!(cuStreamBeginCapture_v2(stream, RELAXED)).unwrap();
    cu!(cuMemAlloc_v2(&mut address, 4)).unwrap();
    fill(address, 1, stream);
    end(stream).unwrap();
    begin(stream);
    let mut mode = RELAXED;
    cu!(cuThreadExchangeStreamCaptureMode(&mut mode)).unwrap();
    assert_eq!(mode, CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL);
    cu!(cuMemAlloc_v2(&mut address, 4)).unwrap();
    cu!(cuThreadExchangeStreamCaptureMode(&mut mode)).unwrap();
    end(stream).unwrap();
}

#[test]
fn the_graph_of_an_active_capture_can_be_queried() {
    let _context = Context::new();
    let (stream, address) = (stream(NON_BLOCKING), allocate(4));
    begin(stream);
    fill(address, 1, stream);
    let mut status = CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
    let (mut id, mut graph, mut heads, mut count) = (0, null_mut(), std::ptr::null(), 0);
    let edges = null_mut();
    cu!(cuStreamGetCaptureInfo_v3(stream, &mut status, &mut id, &mut graph, &mut heads, edges, &mut count)).unwrap();
    assert_eq!((status, count), (CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_ACTIVE, 1));
    #[allow(unsafe_code)]
    // SAFETY: the library returned a count of one node.
    let head = unsafe { *heads };
    assert_eq!(nodes(graph), [head]);
    assert_eq!(cu!(cuGraphDestroy(graph)), Err(CUDA_ERROR_ILLEGAL_STATE));
    assert_eq!(end(stream).unwrap(), graph);
}
