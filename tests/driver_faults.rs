//! Faults between the backend and the driver: every driver call with every error code, exhausted memory, kernels that hang,
//! and unusable drivers and devices. By default a sample of the calls and codes: [`emulator_trials::tier`].

// The emulator's own entry points are called by name; each use states why it is sound.
#![allow(unsafe_code)]

#[path = "common/environment.rs"]
mod environment;

use std::collections::BTreeMap;
use std::ffi::CString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use cudarc::driver::CudaContext;
use emulator_trials::tier;
use half::bf16;
use ironwarp::cuda::Cuda;
use ironwarp::cuda::runtime::driver;
use ironwarp::memory::Category;
use ironwarp::model::activations::Recompute;
use ironwarp::model::config::Config;
use ironwarp::model::init;
use ironwarp::ops::{Backend, GeluForward, GradNorm};
use ironwarp::tensor::{Storage, Tensor};
use ironwarp::train::data::MicroBatch;
use ironwarp::train::optimizer::OptimizerConfig;
use ironwarp::train::trainer::Trainer;
use ironwarp::{Error, Result};
use libloading::Library;

/// The emulator, locked: its settings belong to the process, so only one test at a time may change them.
struct Emulator {
    _lock: MutexGuard<'static, ()>,
    /// Keeps the primary context alive, so that leaked memory in it can be detected.
    context: std::sync::Arc<CudaContext>,
}

fn emulator() -> Emulator {
    static LOCK: Mutex<()> = Mutex::new(());
    let lock = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    driver::emulate(&driver::find_emulator().unwrap()).unwrap();
    Emulator { _lock: lock, context: CudaContext::new(0).unwrap() }
}

fn entry<F: Copy>(name: &str) -> F {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    // SAFETY: the library is already loaded, so no initialiser runs.
    let library = LIBRARY.get_or_init(|| unsafe { Library::new(driver::find_emulator().unwrap()) }.unwrap());
    // SAFETY: each caller states the type of the function that it names.
    *unsafe { library.get::<F>(name.as_bytes()) }.unwrap_or_else(|error| panic!("{name}: {error}"))
}

impl Emulator {
    fn set_faults(&self, rules: &str) {
        let rules = CString::new(rules).unwrap();
        assert_eq!(entry::<extern "C" fn(*const i8) -> u32>("ironwarp_emulator_set_faults")(rules.as_ptr().cast()), 0);
    }

    /// The number of calls of each driver function in `run`.
    fn calls(&self, run: impl FnOnce()) -> BTreeMap<String, u64> {
        entry::<extern "C" fn()>("ironwarp_emulator_clear_counts")();
        run();
        let text: extern "C" fn(*mut u8, usize) -> usize = entry("ironwarp_emulator_calls");
        let mut buffer = vec![0; text(std::ptr::null_mut(), 0) + 1];
        text(buffer.as_mut_ptr(), buffer.len());
        buffer.pop();
        serde_json::from_slice(&buffer).unwrap()
    }

    fn free_memory(&self) -> usize {
        self.context.synchronize().unwrap();
        self.context.mem_get_info().unwrap().0
    }
}

/// All error codes of the driver API, and two that it does not define.
fn codes() -> Vec<u32> {
    let name: extern "C" fn(u32, *mut *const i8) -> u32 = entry("cuGetErrorName");
    let known = (1..1000).filter(|&code| name(code, &mut std::ptr::null()) == 0);
    known.chain([12_345, u32::MAX]).collect()
}

/// Opens a device, allocates memory of two categories, copies in both directions, launches a kernel and an operation of two
/// kernels with scratch memory, and closes the device.
fn scenario() -> Result<Vec<f32>> {
    let cuda = Cuda::new(0)?;
    cuda.account_to(Category::Activations);
    let x: Tensor<Cuda, bf16> = Tensor::from_vec(&cuda, [3, 8], (0..24).map(|i| bf16::from_f32(i as f32)).collect())?;
    let mut out: Tensor<Cuda, bf16> = Tensor::zeros(&cuda, [3, 8])?;
    cuda.gelu_forward(GeluForward { x: x.view(), out: out.view_mut() })?;
    cuda.account_to(Category::Gradients);
    let mut grad: Tensor<Cuda, f32> = Tensor::zeros(&cuda, [64])?;
    cuda.upload(&[3.0; 64], grad.view_mut())?;
    let mut norm: Tensor<Cuda, f32> = Tensor::zeros(&cuda, [1])?;
    cuda.grad_norm(GradNorm { grad: grad.view(), norm: norm.view_mut() })?;
    let mut results: Vec<f32> = out.to_vec(&cuda)?.into_iter().map(bf16::to_f32).collect();
    results.extend(norm.to_vec(&cuda)?);
    cuda.device().synchronize()?;
    Ok(results)
}

/// The result of a run with a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// The results are correct: the failing call releases something, or is repeated.
    Correct,
    Unavailable,
    OutOfMemory,
    DeviceLost,
}

#[test]
fn every_call_with_every_code() {
    let emulator = emulator();
    let codes = codes();
    // A sampled run tries every eighth code, beginning with another one for each call.
    let step = tier::choose(8, 1);
    inject(&emulator, scenario, |name, k| {
        let first = (name.len() + k as usize) % step;
        codes.iter().copied().skip(first).step_by(step).collect()
    });
}

/// A trainer of a very small model.
fn trainer() -> Result<Trainer<Cuda>> {
    let config = Config { context: 8, vocab: 20, layers: 1, heads: 1, channels: 16 };
    Trainer::new(Cuda::new(0)?, init::random(config, 1)?, (1, 8), Recompute::None, OptimizerConfig::default(), 1)
}

fn batch(n: i32) -> MicroBatch {
    let ids = |first| (first..first + 8).map(|t| (3 * n + 7 * t) % 20).collect();
    MicroBatch { tokens: ids(0), targets: ids(1) }
}

/// Trains until a micro-step was captured as a graph and replayed, with prefetched micro-batches. The losses, norms and weights.
fn training() -> Result<Vec<f32>> {
    let mut trainer = trainer()?;
    let len = trainer.grads().layout().len;
    let mut results = Vec::new();
    for step in 0..3 {
        let batches = [batch(2 * step), batch(2 * step + 1)];
        let pending = trainer.enqueue(&batches, 1e-2)?;
        trainer.prefetch(&batch(2 * step + 2))?;
        let report = trainer.finish(pending, &batches)?;
        results.extend([report.loss, report.grad_norm]);
    }
    results.push(trainer.evaluate(&batch(9))? as f32);
    results.extend(trainer.weights_f32(0..len)?);
    Ok(results)
}

/// The host enqueues a step of any number of micro-batches without waiting for the device: a graph and a few calls each.
#[test]
fn a_step_is_enqueued_without_waiting() {
    let emulator = emulator();
    let mut trainer = trainer().unwrap();
    let batches: Vec<MicroBatch> = (0..6).map(batch).collect();
    for _ in 0..2 {
        trainer.step(&batches, 1e-2).unwrap();
    }
    let mut pending = None;
    let calls = emulator.calls(|| pending = Some(trainer.enqueue(&batches, 1e-2).unwrap()));
    println!("{calls:?}");
    trainer.finish(pending.unwrap(), &batches).unwrap();
    for waits in ["cuStreamSynchronize", "cuEventSynchronize", "cuCtxSynchronize", "cuMemcpyDtoHAsync_v2"] {
        assert!(!calls.contains_key(waits), "{waits}: {calls:?}");
    }
    // In addition to the graphs, two launches for the norm and two for AdamW.
    assert_eq!((calls["cuGraphLaunch"], calls["cuLaunchKernel"]), (6, 4), "{calls:?}");
    assert!(!calls.contains_key("cuMemAllocAsync"), "{calls:?}");
}

#[test]
fn every_call_of_a_training() {
    let emulator = emulator();
    let others = emulator.calls(|| drop(scenario().unwrap()));
    let used = emulator.calls(|| drop(training().unwrap()));
    for (acquire, release) in [
        ("cuMemHostAlloc", "cuMemFreeHost"),
        ("cuGraphInstantiateWithFlags", "cuGraphExecDestroy"),
        ("cuEventCreate", "cuEventDestroy_v2"),
        ("cuStreamCreate", "cuStreamDestroy_v2"),
    ] {
        assert!(used[acquire] > 0 && used[acquire] == used[release], "{acquire}: {used:?}");
    }
    // Both micro-steps were captured, and replayed afterwards.
    assert_eq!((used["cuStreamBeginCapture_v2"], used["cuGraphLaunch"]), (2, 4), "{used:?}");
    // Every allocation fails, and with two codes every call of a function that only the training needs. The other functions,
    // which `every_call_with_every_code` covers, fail three times each, or in every call if `tier::every_fault`. A sampled run
    // tries every fourth allocation, one code of the second group, and none of the third.
    let (all, every) = (tier::thorough() || tier::every_fault(), tier::every_fault());
    inject(&emulator, training, |name, k| match name {
        "cuMemAllocAsync" if all || k % 4 == 0 => vec![2],
        "cuMemAllocAsync" => vec![],
        _ if !others.contains_key(name) && used[name] <= 6 => {
            let codes = [[719, 2, 214][k as usize % 3], 901];
            if all { codes.to_vec() } else { vec![codes[k as usize % 2]] }
        }
        _ if every || all && k % used[name].div_ceil(3) == 0 => {
            vec![[719, 2, 12_345, 214, 901, 801, 600][k as usize % 7]]
        }
        _ => vec![],
    });
}

/// Runs a scenario once for each call and each of its `codes`, with this call failing with this code.
fn inject(emulator: &Emulator, scenario: fn() -> Result<Vec<f32>>, codes: impl Fn(&str, u64) -> Vec<u32>) {
    let want = scenario().unwrap();
    let calls = emulator.calls(|| assert_eq!(scenario().unwrap(), want));
    let before = emulator.free_memory();
    let mut table: BTreeMap<&str, BTreeMap<Outcome, u64>> = BTreeMap::new();
    let (mut runs, mut lost) = (0, 0);
    for (name, &count) in &calls {
        for (k, code) in (1..=count).flat_map(|k| codes(name, k).into_iter().map(move |code| (k, code))) {
            let outcome = outcome(emulator, scenario, &format!("{name}:{k}={code}"), &want);
            if name == "cuMemAllocAsync" && code == 2 {
                assert_eq!(outcome, Outcome::OutOfMemory, "{name}:{k}");
            }
            *table.entry(name).or_default().entry(outcome).or_default() += 1;
            runs += 1;
            // Memory that the driver refuses to free stays allocated; nothing else may.
            let now = emulator.free_memory();
            if !name.starts_with("cuMemFree") {
                assert_eq!(before - lost, now, "{name}:{k}={code} leaked");
            }
            lost = before - now;
        }
    }
    println!("{} functions, {} calls: {runs} runs", calls.len(), calls.values().sum::<u64>());
    for (name, outcomes) in table {
        println!("{name:<40} {:>3} calls  {outcomes:?}", calls[name]);
    }
}

/// Runs a scenario with a fault, `NAME:K=CODE`.
fn outcome(emulator: &Emulator, scenario: fn() -> Result<Vec<f32>>, fault: &str, want: &[f32]) -> Outcome {
    emulator.set_faults(fault);
    let start = Instant::now();
    let result = catch_unwind(AssertUnwindSafe(scenario)).unwrap_or_else(|_| panic!("{fault} panicked"));
    assert!(start.elapsed() < Duration::from_secs(20), "{fault} hung");
    emulator.set_faults("");
    match result {
        Ok(results) => {
            assert!(results == want, "{fault}: other results");
            Outcome::Correct
        }
        Err(Error::Unavailable(_)) => Outcome::Unavailable,
        Err(Error::OutOfDeviceMemory(error)) => {
            let text = error.to_string();
            assert!(
                [" requested for ", " free; held: ", "; "].iter().all(|part| text.contains(part)),
                "{fault}: {text}"
            );
            Outcome::OutOfMemory
        }
        Err(Error::DeviceLost(text)) => {
            let code = fault.split('=').next_back().unwrap();
            assert!(!text.contains('\n') && text.contains(code), "{fault}: {text}");
            Outcome::DeviceLost
        }
        Err(other) => panic!("{fault}: {other:?}"),
    }
}

#[test]
fn a_lost_device_stays_lost_and_names_the_kernel() {
    let emulator = emulator();
    let cuda = Cuda::new(0).unwrap();
    let x: Tensor<Cuda, bf16> = Tensor::zeros(&cuda, [3, 8]).unwrap();
    let mut out: Tensor<Cuda, bf16> = Tensor::zeros(&cuda, [3, 8]).unwrap();
    let mut gelu = || cuda.gelu_forward(GeluForward { x: x.view(), out: out.view_mut() });
    gelu().unwrap();
    emulator.set_faults("cuEventQuery:1=CUDA_ERROR_ECC_UNCORRECTABLE");
    let first = cuda.device().synchronize().unwrap_err().to_string();
    assert!(
        first.contains("CUDA_ERROR_ECC_UNCORRECTABLE (214)") && first.contains("gelu_forward (N·C = 24)"),
        "{first}"
    );
    emulator.set_faults("");
    let calls = emulator.calls(|| {
        assert_eq!(gelu().unwrap_err().to_string(), first);
        assert_eq!(x.to_vec(&cuda).unwrap_err().to_string(), first);
        assert_eq!(cuda.zeros::<f32>(8).unwrap_err().to_string(), first);
    });
    assert!(calls.is_empty(), "the driver was called: {calls:?}");
}

#[test]
fn exhausted_memory_is_reported_with_its_categories() {
    let emulator = emulator();
    let before = emulator.free_memory();
    let cuda = Cuda::new(0).unwrap();
    cuda.account_to(Category::Weights);
    let _weights: Tensor<Cuda, f32> = Tensor::zeros(&cuda, [1 << 18]).unwrap();
    cuda.account_to(Category::Activations);
    for elements in [1usize << 43, usize::MAX] {
        let text = cuda.zeros::<i32>(elements).map(drop).unwrap_err().to_string();
        assert!(text.starts_with("out of device memory: "), "{text}");
        assert!(text.contains("requested for activations, ") && text.contains("GiB of 80.0 GiB free"), "{text}");
        assert!(text.ends_with("held: weights 1.0 MiB; lower --batch or --context, or use --recompute"), "{text}");
    }
    // A smaller allocation still succeeds.
    let _small: Tensor<Cuda, f32> = Tensor::zeros(&cuda, [8]).unwrap();
    assert_eq!(cuda.device().held(), [(Category::Weights, 1 << 20), (Category::Activations, 32)]);
    drop((_weights, _small));
    assert_eq!(cuda.device().held(), []);
    drop(cuda);
    assert_eq!(emulator.free_memory(), before);
}

/// Exit code and output of the `ironwarp` command with arguments and environment variables.
fn ironwarp(args: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = Command::new(environment::command());
    command.args(args).env("IRONWARP_EMULATOR", driver::find_emulator().unwrap());
    command.envs(environment.iter().copied());
    let output = command.output().unwrap();
    (
        output.status.code(),
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)),
    )
}

#[test]
fn unusable_drivers_and_devices_are_one_line() {
    let info = ["info", "--device", "emulated"];
    let (code, text) = ironwarp(&info, &[]);
    assert!(code == Some(0) && text.contains("Emulated sm_80 GPU (cuda:0, compute capability 8.0, 108 SMs"), "{text}");
    for (variable, value, says) in [
        (
            "IRONWARP_EMULATOR_FAULTS",
            "cuInit:*=CUDA_ERROR_STUB_LIBRARY",
            "no CUDA driver: the libcuda.so found is the toolkit's stub, ",
        ),
        (
            "IRONWARP_EMULATOR_FAULTS",
            "cuInit:*=CUDA_ERROR_NO_DEVICE",
            "no GPU: the CUDA driver found no device; the CPU",
        ),
        (
            "IRONWARP_EMULATOR_FAULTS",
            "cuInit:*=803",
            "the CUDA driver failed to initialise: CUDA_ERROR_SYSTEM_DRIVER_MISMATCH (803): ",
        ),
        (
            "IRONWARP_EMULATOR_FAULTS",
            "cuInit:*=12345",
            "the CUDA driver failed to initialise: CUDA error 12345 (unknown to this driver)",
        ),
        (
            "IRONWARP_EMULATOR_DRIVER_VERSION",
            "12040",
            "the CUDA driver is too old: it supports CUDA 12.4, but 13.0 or newer is required (NVIDIA's driver 580); ",
        ),
        ("IRONWARP_CUDA_TIMEOUT", "soon", "IRONWARP_CUDA_TIMEOUT='soon': expected seconds, such as 600 or 0.5"),
        (
            "IRONWARP_EMULATOR_ARCH",
            "75",
            "the GPU is too old: Emulated sm_75 GPU has compute capability 7.5, but 8.0 or newer is required; ",
        ),
        (
            "IRONWARP_EMULATOR",
            "/no/such/libcuda_emulator.so",
            "no emulated CUDA driver at /no/such/libcuda_emulator.so",
        ),
    ] {
        let (code, text) = ironwarp(&info, &[(variable, value)]);
        println!("{}", text.lines().last().unwrap_or_default());
        let errors: Vec<&str> = text.lines().filter(|line| line.starts_with("error: ")).collect();
        assert!(code == Some(1) && errors.len() == 1 && errors[0].contains(says), "{variable}={value}: {text}");
        let way_out = ["CPU", "make emulator", "expected"];
        assert!(way_out.iter().any(|way| errors[0].contains(way)), "{text}");
    }
    let (code, text) = ironwarp(&["info", "--device", "auto"], &[]);
    println!("{text}");
    assert_eq!(code, Some(0), "{text}");
}

/// Simulates a kernel that hangs: the event at the end of the stream is never reached.
#[test]
fn a_kernel_that_hangs_is_named() {
    let emulator = emulator();
    let cuda = Cuda::new(0).unwrap();
    let x: Tensor<Cuda, bf16> = Tensor::zeros(&cuda, [3, 8]).unwrap();
    let mut out: Tensor<Cuda, bf16> = Tensor::zeros(&cuda, [3, 8]).unwrap();
    cuda.gelu_forward(GeluForward { x: x.view(), out: out.view_mut() }).unwrap();
    cuda.device().set_timeout(Duration::from_millis(200));
    emulator.set_faults("cuEventQuery:*=CUDA_ERROR_NOT_READY");
    let text = out.to_vec(&cuda).unwrap_err().to_string();
    emulator.set_faults("");
    assert_eq!(text, "device lost: gelu_forward (N·C = 24) did not complete within 0.2 s (IRONWARP_CUDA_TIMEOUT)");
}

/// Any of several kernels may have failed, unless each launch was waited for.
#[test]
fn the_kernels_that_may_have_failed_are_named() {
    let emulator = emulator();
    for (wait, says) in [
        (
            false,
            "in one of 2 kernels: gelu_forward (N·C = 24), gelu_forward (N·C = 8); IRONWARP_CUDA_SYNC=1 identifies",
        ),
        (true, "in gelu_forward (N·C = 24)"),
    ] {
        let cuda = Cuda::new(0).unwrap();
        cuda.device().set_launch_blocking(wait);
        let x: Tensor<Cuda, bf16> = Tensor::zeros(&cuda, [3, 8]).unwrap();
        let mut out: Tensor<Cuda, bf16> = Tensor::zeros(&cuda, [3, 8]).unwrap();
        emulator.set_faults("cuEventQuery:1=CUDA_ERROR_ILLEGAL_ADDRESS");
        let mut run = || {
            cuda.gelu_forward(GeluForward { x: x.view(), out: out.view_mut() })?;
            cuda.gelu_forward(GeluForward { x: x.at(0), out: out.at_mut(0) })?;
            cuda.device().synchronize()
        };
        let text = run().unwrap_err().to_string();
        emulator.set_faults("");
        assert!(text.contains("CUDA_ERROR_ILLEGAL_ADDRESS (700)") && text.contains(says), "{text}");
    }
}

/// An endless loop in a kernel: the emulator's step budget ends it, as the watchdog of a display driver would.
#[test]
fn an_endless_loop_is_named() {
    let emulator = emulator();
    let context = CudaContext::new_non_primary(0, 0).unwrap();
    let cuda = Cuda::with_context(&context).unwrap();
    let endless = ".version 8.0\n.target sm_80\n.address_size 64\n\
        .visible .entry gelu_forward(.param .align 8 .b8 params[24]) .maxntid 256 { again: bra again; }\n";
    cuda.device().replace_kernels("gelu", endless);
    let budget: extern "C" fn(u64) = entry("ironwarp_emulator_set_step_budget");
    budget(10_000);
    let x: Tensor<Cuda, bf16> = Tensor::zeros(&cuda, [3, 8]).unwrap();
    let mut out: Tensor<Cuda, bf16> = Tensor::zeros(&cuda, [3, 8]).unwrap();
    cuda.gelu_forward(GeluForward { x: x.view(), out: out.view_mut() }).unwrap();
    let text = cuda.device().synchronize().unwrap_err().to_string();
    budget(1 << 31);
    assert!(text.contains("CUDA_ERROR_LAUNCH_TIMEOUT (702)") && text.contains("gelu_forward (N·C = 24)"), "{text}");
    drop(emulator);
}

/// The error for PTX that the driver rejects quotes its compiler.
#[test]
fn a_kernel_that_does_not_load_shows_the_jit_log() {
    let _emulator = emulator();
    let cuda = Cuda::new(0).unwrap();
    cuda.device().replace_kernels(
        "gelu",
        ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry gelu_forward() { frobnicate; }\n",
    );
    let x: Tensor<Cuda, bf16> = Tensor::zeros(&cuda, [3, 8]).unwrap();
    let mut out: Tensor<Cuda, bf16> = Tensor::zeros(&cuda, [3, 8]).unwrap();
    let gelu = cuda.gelu_forward(GeluForward { x: x.view(), out: out.view_mut() });
    let text = gelu.unwrap_err().to_string();
    assert!(text.starts_with("gelu.cu cannot be loaded for compute capability 8.0: PTX: CUDA_ERROR_"), "{text}");
    assert!(text.contains("; JIT compiler: ") && text.contains("frobnicate"), "{text}");
    // The device still works.
    cuda.device().synchronize().unwrap();
}
