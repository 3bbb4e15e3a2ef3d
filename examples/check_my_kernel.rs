//! Runs a kernel of your own on the emulated GPU, which checks every access and finds races, without a GPU.
//!
//! `cargo run --release --example check_my_kernel --features cuda`. In a project of your own, this is a test: it needs
//! `ironwarp-nvcc` and `ironwarp` (feature `cuda`) as dev-dependencies, and the emulated driver that `make emulator` builds.

use std::path::Path;

use cudarc::driver::{LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;
use ironwarp::cuda::Cuda;
use ironwarp_nvcc::{Arch, Search};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let nvcc = Search::from_env(project).find()?;
    let ptx = nvcc.ptx(&project.join("examples/check_my_kernel.cu"), Arch { number: 80, specific: false })?;
    for kernel in ["row_sums", "row_sums_without_barrier"] {
        match row_sums(&ptx, kernel) {
            Ok(sums) => println!("{kernel}: {sums:?}"),
            Err(error) => println!("{kernel}: {error}"),
        }
    }
    Ok(())
}

/// Launches one of the kernels on 2 rows of 64 numbers and returns the sums of the rows.
fn row_sums(ptx: &str, kernel: &str) -> Result<Vec<f32>, Box<dyn std::error::Error>> {
    // A finding ends the work of a device, as a fault does on a GPU, so each kernel gets its own.
    let gpu = Cuda::emulated()?;
    let stream = gpu.device().stream();
    let function = stream.context().load_module(Ptx::from_src(ptx))?.load_function(kernel)?;
    let x = stream.clone_htod(&(0..128).map(|i| (i % 64) as f32).collect::<Vec<_>>())?;
    let mut sums = stream.alloc_zeros::<f32>(2)?;
    let config = LaunchConfig { grid_dim: (2, 1, 1), block_dim: (64, 1, 1), shared_mem_bytes: 0 };
    let mut launch = stream.launch_builder(&function);
    launch.arg(&x).arg(&mut sums);
    // SAFETY: the kernel reads 128 numbers and writes 2. The emulated GPU would report anything else.
    #[allow(unsafe_code)]
    unsafe { launch.launch(config) }?;
    // Waits, and fails with the emulator's report.
    gpu.device().synchronize()?;
    Ok(stream.clone_dtoh(&sums)?)
}
