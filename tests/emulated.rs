//! Kernels through cudarc on the emulated driver, against the CPU reference in f64.

// Launching a kernel cannot be checked by the compiler; each use says why it is sound.
#![allow(unsafe_code)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytemuck::Pod;
use cudarc::driver::{
    CudaContext, CudaFunction, CudaSlice, CudaStream, DevicePtr, DevicePtrMut, DeviceRepr, LaunchConfig, PushKernelArg,
};
use cudarc::nvrtc::Ptx;
use half::bf16;
use ironwarp::cpu::Cpu;
use ironwarp::cuda::driver;
use ironwarp::cuda::images::IMAGES;
use ironwarp::cuda::params::{GELU_FORWARD_BLOCK, GELU_FORWARD_THREADS, GeluForwardParams};
use ironwarp::ops::{Backend, GeluForward};
use ironwarp::tensor::Tensor;

/// The emulator's file: `make emulator` builds it, IRONWARP_EMULATOR names another.
fn emulator() -> PathBuf {
    let built = || Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("release/libcuda_emulator.so");
    std::env::var_os("IRONWARP_EMULATOR").map_or_else(built, PathBuf::from)
}

fn device() -> Arc<CudaContext> {
    driver::emulate(&emulator()).unwrap();
    driver::require().unwrap();
    CudaContext::new(0).unwrap()
}

/// A kernel of the build, from the PTX of the oldest architecture.
fn kernel(device: &Arc<CudaContext>, stem: &str, name: &str) -> CudaFunction {
    let image = IMAGES.iter().find(|image| image.stem == stem).unwrap_or_else(|| panic!("{stem} was not built"));
    device.load_module(Ptx::from_src(image.ptx)).unwrap().load_function(name).unwrap()
}

/// A kernel's parameters.
struct Passed<P>(P);

// SAFETY: plain bytes, of the layout that the kernel was compiled with.
unsafe impl<P: Pod> DeviceRepr for Passed<P> {}

/// Elements before and after an output that must stay as they are.
const MARGIN: usize = 64;
const CANARY: bf16 = bf16::from_f32_const(-12352.0);

/// An output of `len` NaNs, between canaries.
fn output(stream: &Arc<CudaStream>, len: usize) -> CudaSlice<bf16> {
    let mut data = vec![CANARY; len + 2 * MARGIN];
    data[MARGIN..MARGIN + len].fill(bf16::NAN);
    stream.clone_htod(&data).unwrap()
}

/// The content of an output whose canaries are intact.
fn read(stream: &Arc<CudaStream>, output: &CudaSlice<bf16>) -> Vec<bf16> {
    let data = stream.clone_dtoh(output).unwrap();
    let (before, rest) = data.split_at(MARGIN);
    let (content, after) = rest.split_at(rest.len() - MARGIN);
    assert_eq!((before, after), (&[CANARY; MARGIN][..], &[CANARY; MARGIN][..]), "canaries");
    content.to_vec()
}

fn gelu_on_the_device(x: &[bf16]) -> Vec<bf16> {
    let device = device();
    let stream = device.default_stream();
    let kernel = kernel(&device, "gelu", "gelu_forward");
    let input = stream.clone_htod(x).unwrap();
    let mut out = output(&stream, x.len());
    {
        let ((x_address, _x), (out_address, _out)) = (input.device_ptr(&stream), out.device_ptr_mut(&stream));
        let out_address = out_address + (MARGIN * size_of::<bf16>()) as u64;
        let params = Passed(GeluForwardParams { x: x_address, out: out_address, len: x.len() as u64 });
        let config = LaunchConfig {
            grid_dim: ((x.len() as u32).div_ceil(GELU_FORWARD_BLOCK), 1, 1),
            block_dim: (GELU_FORWARD_THREADS, 1, 1),
            shared_mem_bytes: 0,
        };
        // SAFETY: the kernel's one parameter, with both buffers as long as it says.
        unsafe { stream.launch_builder(&kernel).arg(&params).launch(config) }.unwrap();
    }
    read(&stream, &out)
}

fn gelu_reference(x: &[bf16]) -> Vec<f64> {
    let backend = Cpu::<f64>::new();
    let x = Tensor::from_vec(&backend, [1, x.len()], x.iter().map(|x| x.to_f64()).collect()).unwrap();
    let mut out = Tensor::zeros(&backend, x.view().shape()).unwrap();
    backend.gelu_forward(GeluForward { x: x.view(), out: out.view_mut() }).unwrap();
    out.to_vec(&backend).unwrap()
}

/// Every finite bf16, in an order that mixes large and small; over again from 65,280 on.
fn finite_numbers(len: usize) -> Vec<bf16> {
    // An odd factor visits every 16-bit number.
    let numbers = (0..).map(|i: u32| bf16::from_bits((i * 40503) as u16));
    numbers.filter(|x| x.is_finite()).take(len).collect()
}

#[test]
fn gelu_forward_matches_the_reference() {
    for (len, why) in [
        (8, "one vector"),
        (16, "two"),
        (2040, "a thread without work"),
        (2048, "one block"),
        (2056, "one vector in the second block"),
        (3 * 2048 + 1024, "half a block"),
        (768 * 85, "rows of GPT-2's width, and every finite number"),
    ] {
        let x = finite_numbers(len);
        let (got, want) = (gelu_on_the_device(&x), gelu_reference(&x));
        for (i, (got, want)) in got.iter().zip(want).enumerate() {
            // Half a step of bf16, and 2 % of that for f32's errors; below 1e-37 a quotient in f32 may become 0.
            let allowed = 1.02 / 256.0 * want.abs() + 1e-37;
            let error = (got.to_f64() - want).abs();
            assert!(
                error <= allowed,
                "gelu_forward, {len} ({why}): out[{i}] is {got:e}, not {want:e}; x is {:e}",
                x[i]
            );
        }
    }
}
