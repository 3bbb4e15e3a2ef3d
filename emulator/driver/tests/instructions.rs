//! Runs the forms of `emulator/ptx/tests/instructions` through the driver API: on the emulated driver or, with
//! `IRONWARP_TEST_DEVICE=cuda`, on a real GPU, which shows whether the emulator or an expectation is wrong.
//!
//! `INSTRUCTIONS=shfl cargo test -p cuda-emulator --test instructions -- --nocapture` runs the forms whose name contains
//! that.

#[expect(dead_code, reason = "headers for the emulator alone are not checked here")]
#[path = "../../ptx/tests/instructions/case.rs"]
mod case;
#[path = "../../ptx/tests/instructions/corpus.rs"]
mod corpus;
#[path = "../../../tests/common/environment.rs"]
mod environment;
mod support;

use std::ffi::{CString, c_void};
use std::path::PathBuf;
use std::process::Command;
use std::ptr::null_mut;
use std::time::{Duration, Instant};

use case::{Argument, Buffer, Case, Outcome};
use support::sys::CUdevice_attribute::*;
use support::sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
use support::sys::CUjit_option::*;
use support::{CUresult, CUresult::*, param, sys};

/// Time limit of a kernel. A kernel takes microseconds, but the emulator may be slow on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);
/// Bytes of dynamic shared memory that a launch may request without setting an attribute of the function.
const DEFAULT_MAX_SHARED: u32 = 48 << 10;
/// Initial value of every byte of a buffer. The bytes of an earlier form could be right by chance.
const POISON: u8 = 0xcb;

/// Why a form did not pass.
enum Stopped {
    /// The device does not support it.
    Skipped(String),
    /// It failed, and the state of the context is unknown.
    Failed(String),
    /// Its kernel may still be running.
    Hangs,
}

impl From<String> for Stopped {
    fn from(what: String) -> Self {
        Stopped::Failed(what)
    }
}

/// Adds the name of the call to its error, and on the emulated driver the error's text.
fn done(what: &str, result: Result<(), CUresult>) -> Result<(), String> {
    result.map_err(|error| match environment::real_gpu() {
        Some(_) => format!("{what}: {error:?}"),
        None => format!("{what}: {error:?}: {}", support::last_error()),
    })
}

/// A device, with a context current to this thread.
struct Gpu {
    device: sys::CUdevice,
    context: sys::CUcontext,
    /// 90 for compute capability 9.0.
    capability: u32,
    /// Maximum bytes of shared memory of a block.
    max_shared: u32,
}

impl Gpu {
    fn new() -> Self {
        if environment::real_gpu().is_some() {
            support::use_system_driver();
        }
        cu!(cuInit(0)).unwrap();
        let mut device = 0;
        cu!(cuDeviceGet(&mut device, environment::real_gpu().unwrap_or(0) as i32)).unwrap();
        let attribute = |name| {
            let mut value = 0;
            cu!(cuDeviceGetAttribute(&mut value, name, device)).unwrap();
            value as u32
        };
        let major = attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
        let capability = 10 * major + attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
        let max_shared = attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
        let mut gpu = Gpu { device, context: null_mut(), capability, max_shared };
        gpu.open();
        gpu
    }

    fn open(&mut self) {
        cu!(cuCtxCreate_v4(&mut self.context, null_mut(), 0, self.device)).unwrap();
    }

    /// Replaces the context, which an error may have made unusable.
    fn renew(&mut self) {
        // In that case the call returns the error.
        let _ = cu!(cuCtxDestroy_v2(self.context));
        self.open();
    }

    fn run(&self, case: &Case) -> Result<(), Stopped> {
        let skip = |why: String| Err(Stopped::Skipped(why));
        if case.outcome != Outcome::Completes {
            return skip("for the emulator alone".into());
        }
        // Instructions that are specific to an architecture, as those of sm_90a, do not exist on the next one.
        let specific = case.text.contains(&format!("\n.target sm_{}a", case.target));
        if case.target > self.capability || specific && case.target != self.capability {
            return skip(format!("for sm_{}{}", case.target, if specific { "a" } else { "" }));
        }
        if case.shared > self.max_shared {
            return skip(format!("{} bytes of shared memory", case.shared));
        }
        let module = load(&case.text)?;
        // After a failure the context is replaced, which frees the module and the buffers.
        self.run_loaded(module, case)?;
        Ok(done("cuModuleUnload", cu!(cuModuleUnload(module)))?)
    }

    fn run_loaded(&self, module: sys::CUmodule, case: &Case) -> Result<(), Stopped> {
        let mut function = null_mut();
        done("cuModuleGetFunction", cu!(cuModuleGetFunction(&mut function, module, c"test".as_ptr())))?;
        check_parameters(function, case)?;
        if case.shared > DEFAULT_MAX_SHARED {
            let attribute = CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            done("cuFuncSetAttribute", cu!(cuFuncSetAttribute(function, attribute, case.shared as i32)))?;
        }
        let mut buffers: Vec<(&Buffer, u64)> = Vec::new();
        // Words of 8 bytes, because a parameter may be aligned to 8 bytes.
        let mut values: Vec<Vec<u64>> = Vec::new();
        for argument in &case.arguments {
            values.push(match argument {
                Argument::Scalar { bytes, .. } => words(bytes),
                Argument::Buffer(buffer) => {
                    let address = upload(buffer)?;
                    buffers.push((buffer, address));
                    vec![address]
                }
            });
        }
        let mut params: Vec<*mut c_void> = values.iter_mut().map(|words| param(&mut words[0])).collect();
        let ([gx, gy, gz], [bx, by, bz], stream) = (case.grid, case.block, null_mut());
        let (params, shared, extra) = (params.as_mut_ptr(), case.shared, null_mut());
        let launched = cu!(cuLaunchKernel(function, gx, gy, gz, bx, by, bz, shared, stream, params, extra));
        done("cuLaunchKernel", launched)?;
        wait()?;
        for (buffer, address) in buffers {
            let mut bytes = vec![0; buffer.bytes()];
            done("cuMemcpyDtoH", cu!(cuMemcpyDtoH_v2(bytes.as_mut_ptr().cast(), address, bytes.len())))?;
            buffer.check(&bytes)?;
            done("cuMemFree", cu!(cuMemFree_v2(address)))?;
        }
        Ok(())
    }
}

fn words(bytes: &[u8]) -> Vec<u64> {
    let word = |chunk: &[u8]| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    };
    bytes.chunks(8).map(word).collect()
}

/// Loads PTX. The error has the log of the driver's compiler.
fn load(ptx: &str) -> Result<sys::CUmodule, String> {
    let text = CString::new(ptx).map_err(|_| "a zero in the text")?;
    let (mut module, mut log) = (null_mut(), vec![0u8; 4096]);
    let mut names = [CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
    let mut values = [log.as_mut_ptr().cast(), log.len() as *mut c_void];
    let (names, values) = (names.as_mut_ptr(), values.as_mut_ptr());
    let loaded = cu!(cuModuleLoadDataEx(&mut module, text.as_ptr().cast(), 2, names, values));
    let end = log.iter().position(|&byte| byte == 0).unwrap_or(log.len());
    done("cuModuleLoadDataEx", loaded)
        .map_err(|error| format!("{error}\n  {}", String::from_utf8_lossy(&log[..end])))?;
    Ok(module)
}

/// Checks that the parameters of the header are those of the entry, since the driver reads as many bytes as the entry declares.
fn check_parameters(function: sys::CUfunction, case: &Case) -> Result<(), String> {
    let size_of = |index| {
        let (mut offset, mut size) = (0, 0);
        cu!(cuFuncGetParamInfo(function, index, &mut offset, &mut size)).map(|()| size)
    };
    let want = |argument: &Argument| match argument {
        Argument::Scalar { bytes, .. } => bytes.len(),
        Argument::Buffer(_) => 8,
    };
    for (index, argument) in case.arguments.iter().enumerate() {
        if size_of(index) != Ok(want(argument)) {
            return Err(format!("parameter {index} has {:?} bytes, in the header {}", size_of(index), want(argument)));
        }
    }
    match size_of(case.arguments.len()) {
        Ok(_) => Err(format!("the entry has more than the header's {} parameters", case.arguments.len())),
        Err(_) => Ok(()),
    }
}

fn upload(buffer: &Buffer) -> Result<u64, String> {
    let mut address = 0;
    done("cuMemAlloc", cu!(cuMemAlloc_v2(&mut address, buffer.bytes())))?;
    done("cuMemsetD8", cu!(cuMemsetD8_v2(address, POISON, buffer.bytes())))?;
    if let Some(bytes) = buffer.initial() {
        done("cuMemcpyHtoD", cu!(cuMemcpyHtoD_v2(address, bytes.as_ptr().cast(), bytes.len())))?;
    }
    Ok(address)
}

fn wait() -> Result<(), Stopped> {
    let start = Instant::now();
    loop {
        match cu!(cuStreamQuery(null_mut())) {
            Err(CUDA_ERROR_NOT_READY) if start.elapsed() < LIMIT => std::thread::yield_now(),
            Err(CUDA_ERROR_NOT_READY) => return Err(Stopped::Hangs),
            result => return Ok(done("the kernel", result)?),
        }
    }
}

fn root() -> PathBuf {
    environment::project().join("../ptx/tests/instructions")
}

#[test]
fn every_form_has_its_result() {
    let _lock = support::exclusive();
    let filter = std::env::var("INSTRUCTIONS").unwrap_or_default();
    let mut gpu = Gpu::new();
    let (mut passed, mut skipped, mut failures) = (0, 0, Vec::new());
    let folders = corpus::folders(&root()).expect("the folder of the corpus");
    let forms =
        folders.iter().flat_map(|folder| corpus::folder(&root(), folder).unwrap_or_else(|error| panic!("{error}")));
    for corpus::Form { name, text } in forms.filter(|form| form.name.contains(&filter)) {
        let mut fail = |what: &str| {
            println!("{name} ... FAILED");
            failures.push(format!("{name}:\n  {what}"));
        };
        match Case::parse(&name, &text).map_err(Stopped::Failed).and_then(|case| gpu.run(&case)) {
            Ok(()) => passed += 1,
            Err(Stopped::Skipped(why)) => {
                println!("{name} ... skipped: {why}");
                skipped += 1;
            }
            Err(Stopped::Failed(what)) => {
                fail(&what);
                gpu.renew();
            }
            Err(Stopped::Hangs) => {
                fail(&format!("did not end within {} s", LIMIT.as_secs()));
                // The context cannot be destroyed while the kernel runs.
                gpu.open();
            }
        }
    }
    let failed = failures.len();
    println!("compute capability {}: {passed} forms passed, {failed} failed, {skipped} skipped", gpu.capability);
    assert!(passed > 0 || !filter.is_empty(), "no forms in {}", root().display());
    assert!(failures.is_empty(), "{failed} of {} forms failed\n\n{}\n", passed + failed, failures.join("\n\n"));
}

/// Runs the forms for sm_90 too, in another process: the emulator reads its architecture once per process.
#[test]
fn every_form_has_its_result_on_an_emulated_sm_90() {
    if environment::real_gpu().is_some() {
        return environment::skip("the emulated GPU");
    }
    let mut command = Command::new(std::env::current_exe().expect("the path of the running program"));
    command.args(["every_form_has_its_result", "--exact", "--nocapture"]).env("IRONWARP_EMULATOR_ARCH", "90");
    let output = command.output().expect("the test program starts");
    let all = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && all.contains("compute capability 90: "), "{all}");
}

const ADD: &str = "\
//@ arg n: u32 = 10
//@ inout d: u32 = [1, 2, 3, 4; 32] becomes [11, 12, 13, 14; 32]
.version 9.0
.target sm_80
.address_size 64
.visible .entry test(.param .u32 n, .param .u64 d)
{
	.reg .u32 %i, %n, %a;
	.reg .u64 %d;
	ld.param.u32 %n, [n];
	ld.param.u64 %d, [d];
	mov.u32 %i, %tid.x;
	mad.wide.u32 %d, %i, 4, %d;
	ld.global.u32 %a, [%d];
	add.u32 %a, %a, %n;
	st.global.u32 [%d], %a;
	ret;
}
";

#[test]
fn wrong_results_fail_and_unsupported_forms_are_skipped() {
    let _lock = support::exclusive();
    let mut gpu = Gpu::new();
    let mut changed = |from: &str, to: &str| {
        let text = ADD.replace(from, to);
        let result = Case::parse("add", &text).map_err(Stopped::Failed).and_then(|case| gpu.run(&case));
        gpu.renew();
        match result {
            Ok(()) => "right".to_owned(),
            Err(Stopped::Skipped(why)) => format!("skipped: {why}"),
            Err(Stopped::Failed(what)) => what,
            Err(Stopped::Hangs) => "hangs".into(),
        }
    };
    assert_eq!(changed("no such text", ""), "right");
    for (from, to, says) in [
        ("becomes [11,", "becomes [12,", "d[0] is 0x0000000b (11), expected 0x0000000c (12)"),
        ("//@ inout d: u32 = [1, 2, 3, 4; 32] becomes [1", "//@ out d: u32 = [1", "d[0] is 0xcbcbcbd5"),
        ("add.u32", "addd.u32", "cuModuleLoadDataEx: "),
        ("//@ arg n: u32", "//@ arg n: u64", "parameter 0 has Ok(4) bytes, in the header 8"),
        (", .param .u64 d)", ", .param .u64 d, .param .u32 e)", "more than the header's 2 parameters"),
        ("sm_80", "sm_75a", "skipped: for sm_75a"),
        ("sm_80", "sm_999", "skipped: for sm_999"),
        ("//@ arg", "//@ refuse something\n//@ arg", "skipped: for the emulator alone"),
        ("//@ arg", "//@ launch shared 9000000\n//@ arg", "skipped: 9000000 bytes of shared memory"),
    ] {
        let what = changed(from, to);
        assert!(what.contains(says), "{to}: {what}");
    }
}
