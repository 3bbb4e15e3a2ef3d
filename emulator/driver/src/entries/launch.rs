//! Kernel launches.

use std::sync::Arc;

use cudarc::driver::sys::CUresult::{
    CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE, CUDA_ERROR_INVALID_CLUSTER_SIZE, CUDA_ERROR_INVALID_HANDLE,
    CUDA_ERROR_INVALID_VALUE,
};
use ptx_emulator::{Arch, Kernel};

use super::occupancy::Blocks;
use super::stream::enqueue;
use crate::boundary::{Extra, Handle, In, KernelParams, LaunchConfig, NullStream};
use crate::driver::{self, Driver, Guard, find};
use crate::error::{Because, Result, ensure};
use crate::export::exports;
use crate::launch_shape::Shape;
use crate::object::function::Function;
use crate::work::{Grid, Work};

/// The most blocks of a cluster that is portable.
const PORTABLE_CLUSTER: u32 = 8;
/// The most blocks of a cluster of a function that permits non-portable sizes.
const LARGEST_CLUSTER: u32 = 16;

impl Driver {
    /// The extents of a launch's cluster.
    ///
    /// # Errors
    /// The device does not support the cluster, or the grid is not a multiple of it.
    pub fn cluster(&self, function: &Function, shape: &Shape) -> Result<[u32; 3]> {
        let cluster = shape.cluster.or(function.attributes.cluster()).unwrap_or([1; 3]);
        let size = cluster.iter().fold(1_u32, |size, &n| size.saturating_mul(n));
        let limit = match (self.settings.arch < Arch::SM_90, function.attributes.large_clusters) {
            (true, _) => 1,
            (false, true) => LARGEST_CLUSTER,
            (false, false) => PORTABLE_CLUSTER,
        };
        let fits = size > 0 && size <= limit;
        ensure!(fits, CUDA_ERROR_INVALID_CLUSTER_SIZE, "a cluster of {cluster:?} blocks: at most {limit} are possible");
        let divides = shape.grid.iter().zip(cluster).all(|(blocks, n)| blocks.is_multiple_of(n));
        let grid = shape.grid;
        ensure!(
            divides,
            CUDA_ERROR_INVALID_CLUSTER_SIZE,
            "a grid of {grid:?} blocks is not a multiple of the cluster {cluster:?}"
        );
        Ok(cluster)
    }

    fn grid(&self, function: &Function, shape: &Shape, params: Vec<u8>) -> Result<Grid> {
        let grid = Grid {
            kernel: function.kernel.clone(),
            grid: shape.grid,
            block: shape.block,
            cluster: self.cluster(function, shape)?,
            dynamic_shared: shape.dynamic_shared,
            shared_limit: function.attributes.shared_limit(),
            params,
        };
        grid.launch().check(&self.limits).map_err(|e| CUDA_ERROR_INVALID_VALUE.because(e.to_string()))?;
        if shape.cooperative {
            let blocks = Blocks::of(function, &self.limits, shape.threads(), shape.dynamic_shared);
            let resident = u64::from(blocks.per_multiprocessor) * u64::from(self.limits.multiprocessors);
            let blocks: u64 = shape.grid.iter().map(|&n| u64::from(n)).product();
            ensure!(
                blocks <= resident,
                CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE,
                "a cooperative grid of {blocks} blocks: at most {resident} can be resident"
            );
        }
        Ok(grid)
    }
}

/// The parameter block, from either of the two forms. It is a copy, as the caller may change the parameters after the call.
fn params(kernel: &Kernel, list: KernelParams, extra: Extra) -> Result<Vec<u8>> {
    if kernel.params.is_empty() {
        return Ok(Vec::new());
    }
    ensure!(list.is_null() || extra.is_null(), CUDA_ERROR_INVALID_VALUE, "both kernelParams and extra are given");
    if !list.is_null() {
        return list.gather(&kernel.params, kernel.param_bytes);
    }
    let (name, bytes) = (&kernel.name, kernel.param_bytes as usize);
    ensure!(
        !extra.is_null(),
        CUDA_ERROR_INVALID_VALUE,
        "{name} has {} parameters, but none are given",
        kernel.params.len()
    );
    let mut block = extra.block()?;
    let padded = bytes.next_multiple_of(16);
    let fits = (bytes..=padded).contains(&block.len());
    ensure!(fits, CUDA_ERROR_INVALID_VALUE, "{name} has {bytes} bytes of parameters, but {} are given", block.len());
    block.truncate(bytes);
    Ok(block)
}

fn launch(mut driver: Guard, handle: Handle, shape: Shape, stream: Handle, args: (KernelParams, Extra)) -> Result<()> {
    let handle = driver.function_or_kernel(handle)?;
    let (function, context) = driver.healthy_function(handle)?;
    let same = find(&driver.streams, "stream", stream)?.context == context;
    ensure!(same, CUDA_ERROR_INVALID_HANDLE, "function and stream belong to different contexts");
    let params = params(&function.kernel, args.0, args.1)?;
    let grid = driver.grid(function, &shape, params)?;
    enqueue(driver, stream, Work::Launch(Arc::new(grid))).map(drop)
}

/// `cuLaunchKernel` and its cooperative form.
fn launch_on(
    function: Handle,
    shape: Shape,
    (stream, null): (Handle, NullStream),
    args: (KernelParams, Extra),
) -> Result<()> {
    let mut driver = driver::lock()?;
    let stream = driver.stream(stream, null)?;
    launch(driver, function, shape, stream, args)
}

exports! {
    fn cuLaunchKernel / cuLaunchKernel_ptsz(
        null; function: Handle, grid_x: u32, grid_y: u32, grid_z: u32, block_x: u32, block_y: u32, block_z: u32,
        dynamic_shared: u32, stream: Handle, list: KernelParams, extra: Extra
    ) {
        let shape = Shape::new([grid_x, grid_y, grid_z], [block_x, block_y, block_z], dynamic_shared);
        launch_on(function, shape, (stream, null), (list, extra))?;
    }

    fn cuLaunchKernelEx / cuLaunchKernelEx_ptsz(
        null; config: In<LaunchConfig>, function: Handle, list: KernelParams, extra: Extra
    ) {
        driver::ready()?;
        let config = config.get()?;
        launch_on(function, Shape::from_config(&config)?, (config.stream, null), (list, extra))?;
    }

    fn cuLaunchCooperativeKernel / cuLaunchCooperativeKernel_ptsz(
        null; function: Handle, grid_x: u32, grid_y: u32, grid_z: u32, block_x: u32, block_y: u32, block_z: u32,
        dynamic_shared: u32, stream: Handle, list: KernelParams
    ) {
        let mut shape = Shape::new([grid_x, grid_y, grid_z], [block_x, block_y, block_z], dynamic_shared);
        shape.cooperative = true;
        launch_on(function, shape, (stream, null), (list, Extra::NULL))?;
    }
}
