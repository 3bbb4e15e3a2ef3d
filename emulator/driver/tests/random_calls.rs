//! Random calls with valid, destroyed and invalid arguments: none may panic or hang.

#[macro_use]
mod support;

use std::collections::BTreeMap;
use std::ffi::{CString, c_void};
use std::ptr::null_mut;

use support::sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
use support::*;

const BYTES: usize = 4096;

/// A random number generator (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// Handles and addresses that the driver has returned, including destroyed ones, and some invalid ones.
struct Client {
    random: Random,
    host: Vec<u32>,
    lists: BTreeMap<&'static str, Vec<u64>>,
}

impl Client {
    fn new(seed: u64) -> Self {
        let invalid = || vec![0, 3, 0xEC02_0000_0000_0010, u64::MAX];
        let kinds = ["context", "stream", "event", "module", "function", "graph", "executable", "memory", "pinned"];
        let lists = kinds.into_iter().map(|kind| (kind, invalid())).collect();
        Self { random: Random(seed * 0x9E37_79B9 + 1), host: vec![0; BYTES / 4], lists }
    }

    fn any(&mut self, kind: &'static str) -> u64 {
        let list = &self.lists[kind];
        // Mostly one of the newest, which are most likely still alive.
        let back = if self.random.0 & 7 == 0 { list.len() } else { list.len().min(6) };
        let at = list.len() - 1 - self.random.below(back);
        self.lists[kind][at]
    }

    fn keep<T>(&mut self, kind: &'static str, made: Result<(), CUresult>, handle: *mut T) -> Result<(), CUresult> {
        if made.is_ok() {
            self.lists.get_mut(kind).unwrap().push(handle as u64);
        }
        made
    }

    fn stream(&mut self) -> sys::CUstream {
        // Sometimes one of the special handles 0, 1 and 2, or the invalid 3.
        if self.random.below(4) == 0 {
            self.random.below(4) as sys::CUstream
        } else {
            self.any("stream") as sys::CUstream
        }
    }

    fn call(&mut self) -> Result<(), CUresult> {
        let (size, small) = (self.random.below(BYTES + 1), self.random.below(40));
        let (host, memory, stream) = (self.host.as_mut_ptr(), self.any("memory"), self.stream());
        let event = self.any("event") as sys::CUevent;
        let (mut address, mut handle) = (0, null_mut::<c_void>());
        match self.random.below(36) {
            0 => {
                let made = cu!(cuCtxCreate_v4((&raw mut handle).cast(), null_mut(), 0, 0));
                self.keep("context", made, handle)
            }
            1 if self.random.below(4) == 0 => cu!(cuCtxDestroy_v2(self.any("context") as sys::CUcontext)),
            1 | 2 => cu!(cuCtxSetCurrent(self.any("context") as sys::CUcontext)),
            3 => cu!(cuCtxPopCurrent_v2((&raw mut handle).cast())),
            4 => cu!(cuCtxSynchronize()),
            5 | 6 => {
                let made = cu!(cuStreamCreate((&raw mut handle).cast(), self.random.below(3) as u32));
                self.keep("stream", made, handle)
            }
            7 => cu!(cuStreamDestroy_v2(stream)),
            8 => cu!(cuStreamSynchronize(stream)),
            9 => cu!(cuStreamQuery(stream)),
            10 | 11 => {
                let made = cu!(cuEventCreate((&raw mut handle).cast(), self.random.below(4) as u32));
                self.keep("event", made, handle)
            }
            12 => cu!(cuEventDestroy_v2(event)),
            13 | 14 => cu!(cuEventRecordWithFlags(event, stream, self.random.below(3) as u32)),
            15 | 16 => cu!(cuStreamWaitEvent(stream, event, self.random.below(3) as u32)),
            17 => cu!(cuEventQuery(event)),
            18 => cu!(cuEventSynchronize(event)),
            19 | 20 => {
                let made = cu!(cuMemAlloc_v2(&mut address, size));
                self.keep("memory", made, address as *mut c_void)
            }
            21 => {
                let made = cu!(cuMemAllocAsync(&mut address, size, stream));
                self.keep("memory", made, address as *mut c_void)
            }
            22 if self.random.below(2) == 0 => cu!(cuMemFree_v2(memory)),
            22 => cu!(cuMemFreeAsync(memory, stream)),
            23 => cu!(cuMemsetD8Async(memory.wrapping_add(small as u64), 1, size, stream)),
            24 => cu!(cuMemcpyHtoDAsync_v2(memory, host.cast(), size, stream)),
            25 => cu!(cuMemcpyDtoHAsync_v2(host.cast(), memory, size, stream)),
            26 => cu!(cuMemcpyDtoDAsync_v2(memory, self.any("memory"), small, stream)),
            27 => cu!(cuMemcpyHtoD_v2(memory, host.cast(), small)),
            28 => {
                let text = CString::new(PTX).unwrap();
                let made = cu!(cuModuleLoadData((&raw mut handle).cast(), text.as_ptr().cast()));
                self.keep("module", made, handle)
            }
            29 => {
                let module = self.any("module") as sys::CUmodule;
                let made = cu!(cuModuleGetFunction((&raw mut handle).cast(), module, c"scale".as_ptr()));
                self.keep("function", made, handle)
            }
            30 if self.random.below(8) == 0 => cu!(cuModuleUnload(self.any("module") as sys::CUmodule)),
            30 | 31 => {
                let function = self.any("function") as sys::CUfunction;
                let (mut out, mut input, mut n) = (memory, self.any("memory"), small as u32);
                let (mut a, mut b) = (1_u32, 2_u32);
                let mut params = [param(&mut out), param(&mut input), param(&mut a), param(&mut b), param(&mut n)];
                launch(function, (2, 20, small as u32), stream, &mut params)
            }
            32 => cu!(cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)),
            33 => {
                let made = cu!(cuStreamEndCapture(stream, (&raw mut handle).cast()));
                self.keep("graph", made, handle)
            }
            34 => {
                let graph = self.any("graph") as sys::CUgraph;
                let made = cu!(cuGraphInstantiateWithFlags((&raw mut handle).cast(), graph, 0));
                self.keep("executable", made, handle)
            }
            _ => cu!(cuGraphLaunch(self.any("executable") as sys::CUgraphExec, stream)),
        }
    }
}

#[test]
#[ignore = "run in a new process by the test below, which hides its findings"]
fn child_calls_at_random() {
    cu!(cuInit(0)).unwrap();
    let mut codes = BTreeMap::<CUresult, u32>::new();
    for seed in 1..=50 {
        set_seed(seed);
        let mut client = Client::new(seed);
        for step in 0..2000 {
            let code = client.call().err().unwrap_or(CUDA_SUCCESS);
            assert_ne!(code, CUDA_ERROR_UNKNOWN, "seed {seed}, step {step}: {}", last_error());
            *codes.entry(code).or_default() += 1;
        }
        for context in client.lists.remove("context").unwrap() {
            // The call refuses contexts that are already destroyed.
            let _ = cu!(cuCtxDestroy_v2(context as sys::CUcontext));
        }
        while cu!(cuCtxPopCurrent_v2(&mut null_mut())).is_ok() {}
    }
    println!("{codes:?}");
    assert!(codes[&CUDA_SUCCESS] > 20_000 && codes.len() > 12, "{codes:?}");
}

#[test]
fn a_hundred_thousand_random_calls() {
    check_in_process("child_calls_at_random", &[]);
}
