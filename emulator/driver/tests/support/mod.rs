//! A client of the built library, which loads it and calls it through cudarc's bindings or by name.

// No test program uses all of it.
#![allow(dead_code, unused_imports, unsafe_code)]

use std::ffi::{CStr, CString, c_void};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

pub use cudarc::driver::sys::{self, CUresult, CUresult::*};
use libloading::Library;

/// The library that was built with these tests.
pub fn path() -> PathBuf {
    let exe = std::env::current_exe().expect("the test knows its own path");
    let deps = exe.parent().expect("the test is in a folder");
    let built = [deps.to_owned(), deps.parent().expect("deps is in the folder of a profile").to_owned()];
    let found = built.iter().map(|folder| folder.join("libcuda_emulator.so")).find(|path| path.exists());
    found.expect("cargo builds the library for its tests")
}

/// Loads the library; after that, cudarc finds it as libcuda.so.
pub fn library() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    // SAFETY: the library's initialisers do nothing.
    LIBRARY.get_or_init(|| unsafe { Library::new(path()) }.expect("the library loads"))
}

/// Set if the tests use the system's driver; it must be set before the first call.
static SYSTEM: OnceLock<()> = OnceLock::new();

/// Lets cudarc find the system's driver instead of the built library, for tests that also run on a real GPU.
pub fn use_system_driver() {
    SYSTEM.get_or_init(|| ());
}

/// Makes sure that cudarc finds the driver that the test uses.
pub fn bind() {
    if SYSTEM.get().is_none() {
        library();
    }
}

/// A function of the library, by name.
pub fn symbol<F: Copy>(name: &str) -> F {
    // SAFETY: each test names a function with its type.
    *unsafe { library().get::<F>(name.as_bytes()) }.unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Calls the driver as cudarc binds it: `cu!(cuInit(0))` is a result.
#[macro_export]
macro_rules! cu {
    ($name:ident($($argument:expr),* $(,)?)) => {{
        $crate::support::bind();
        // SAFETY: tests pass valid arguments, or ones that the driver must refuse without dereferencing them.
        #[allow(unsafe_code, clippy::macro_metavars_in_unsafe)]
        match unsafe { $crate::support::sys::$name($($argument),*) } {
            $crate::support::CUresult::CUDA_SUCCESS => Ok(()),
            error => Err(error),
        }
    }};
}

/// The reason why the last call failed.
pub fn last_error() -> String {
    text("ironwarp_emulator_last_error")
}

/// The text that one of the `ironwarp_emulator_` functions returns.
pub fn text(name: &str) -> String {
    let entry: extern "C" fn(*mut u8, usize) -> usize = symbol(name);
    let size = entry(std::ptr::null_mut(), 0);
    let mut buffer = vec![0; size + 1];
    assert_eq!(entry(buffer.as_mut_ptr(), buffer.len()), size);
    buffer.pop();
    String::from_utf8(buffer).expect("texts are UTF-8")
}

pub fn set_seed(seed: u64) {
    symbol::<extern "C" fn(u64)>("ironwarp_emulator_set_seed")(seed);
}

pub fn set_faults(rules: &str) -> u32 {
    let rules = CString::new(rules).expect("the rules have no NUL byte");
    symbol::<extern "C" fn(*const i8) -> u32>("ironwarp_emulator_set_faults")(rules.as_ptr().cast())
}

/// A lock for tests that change global state or depend on other contexts: only one of them runs at a time.
pub fn exclusive() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A new context, current to the calling thread.
pub struct Context(pub sys::CUcontext);

impl Context {
    pub fn new() -> Self {
        cu!(cuInit(0)).unwrap();
        let mut context = std::ptr::null_mut();
        cu!(cuCtxCreate_v4(&mut context, std::ptr::null_mut(), 0, 0)).unwrap();
        Self(context)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        cu!(cuCtxDestroy_v2(self.0)).unwrap();
    }
}

pub const NON_BLOCKING: u32 = 1;

pub fn stream(flags: u32) -> sys::CUstream {
    let mut stream = std::ptr::null_mut();
    cu!(cuStreamCreate(&mut stream, flags)).unwrap();
    stream
}

pub fn event() -> sys::CUevent {
    let mut event = std::ptr::null_mut();
    cu!(cuEventCreate(&mut event, 0)).unwrap();
    event
}

pub fn allocate(bytes: usize) -> u64 {
    let mut address = 0;
    cu!(cuMemAlloc_v2(&mut address, bytes)).unwrap();
    address
}

/// Page-locked memory that the library allocates.
pub fn pinned(words: usize) -> &'static mut [u32] {
    let mut pointer: *mut c_void = std::ptr::null_mut();
    cu!(cuMemHostAlloc(&mut pointer, words * 4, 0)).unwrap();
    // SAFETY: these bytes were just allocated, and no other reference to them exists.
    unsafe { std::slice::from_raw_parts_mut(pointer.cast(), words) }
}

/// Reads a word that the driver may write without the compiler's knowledge.
pub fn peek(words: &[u32], index: usize) -> u32 {
    // SAFETY: a word of the slice.
    unsafe { std::ptr::read_volatile(&words[index]) }
}

pub fn write(address: u64, words: &[u32]) {
    cu!(cuMemcpyHtoD_v2(address, words.as_ptr().cast(), size_of_val(words))).unwrap();
}

pub fn read(address: u64, words: usize) -> Vec<u32> {
    let mut out = vec![0; words];
    cu!(cuMemcpyDtoH_v2(out.as_mut_ptr().cast(), address, words * 4)).unwrap();
    out
}

pub fn load(ptx: &str) -> Result<sys::CUmodule, CUresult> {
    let text = CString::new(ptx).expect("the PTX has no NUL byte");
    let mut module = std::ptr::null_mut();
    cu!(cuModuleLoadData(&mut module, text.as_ptr().cast())).map(|()| module)
}

pub fn function(module: sys::CUmodule, name: &CStr) -> sys::CUfunction {
    let mut function = std::ptr::null_mut();
    cu!(cuModuleGetFunction(&mut function, module, name.as_ptr())).unwrap();
    function
}

/// Launches `grid` blocks of `block` threads.
pub fn launch(
    function: sys::CUfunction,
    (grid, block, shared): (u32, u32, u32),
    stream: sys::CUstream,
    params: &mut [*mut c_void],
) -> Result<(), CUresult> {
    let params = params.as_mut_ptr();
    cu!(cuLaunchKernel(function, grid, 1, 1, block, 1, 1, shared, stream, params, std::ptr::null_mut()))
}

/// A pointer to a kernel's parameter.
pub fn param<T>(value: &mut T) -> *mut c_void {
    std::ptr::from_mut(value).cast()
}

/// Runs one test of the calling program in a new process with these environment variables; returns its output.
pub fn in_process(test: &str, environment: &[(&str, &str)]) -> std::process::Output {
    let exe = std::env::current_exe().expect("the test knows its own path");
    let mut command = std::process::Command::new(exe);
    command.args([test, "--exact", "--ignored", "--nocapture", "--test-threads", "1"]);
    for (name, value) in environment {
        command.env(format!("IRONWARP_EMULATOR_{name}"), value);
    }
    command.output().expect("the test program starts")
}

/// [`in_process`], with the check that the test passed; returns its standard output and error.
pub fn check_in_process(test: &str, environment: &[(&str, &str)]) -> String {
    let output = in_process(test, environment);
    let all = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && all.contains("1 passed"), "{test} with {environment:?}:\n{all}");
    all
}

/// `scale`, which computes `out[i] = a * in[i] + b`, and kernels that fail.
pub const PTX: &str = include_str!("kernels.ptx");
