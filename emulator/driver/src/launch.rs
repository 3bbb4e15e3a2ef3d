//! Launching kernels.

use std::sync::Arc;

use cudarc::driver::sys::CUlaunchAttributeID as Name;
use cudarc::driver::sys::CUresult::{
    CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE, CUDA_ERROR_INVALID_CLUSTER_SIZE, CUDA_ERROR_INVALID_HANDLE,
    CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_NOT_SUPPORTED,
};
use ptx_emulator::{Arch, Kernel};

use crate::boundary::{Extra, Handle, In, KernelParams, LaunchAttribute, LaunchConfig, NullStream};
use crate::driver::{self, Driver, Guard, find};
use crate::error::{Because, Result, ensure};
use crate::export::exports;
use crate::function::Function;
use crate::occupancy::Blocks;
use crate::stream::enqueue;
use crate::work::{Grid, Work};

/// Blocks of a cluster that any device can hold, and that a function may be allowed to ask for.
const PORTABLE_CLUSTER: u32 = 8;
const LARGEST_CLUSTER: u32 = 16;

/// What a launch asks for.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub dynamic_shared: u32,
    cluster: Option<[u32; 3]>,
    cooperative: bool,
}

impl Shape {
    fn new(grid: [u32; 3], block: [u32; 3], dynamic_shared: u32) -> Self {
        Self { grid, block, dynamic_shared, cluster: None, cooperative: false }
    }

    /// Reads a configuration. No attribute is passed over: it is obeyed, changes nothing here, or is refused.
    pub fn from_config(config: &LaunchConfig) -> Result<Self> {
        let mut shape = Self::new(config.grid, config.block, config.dynamic_shared);
        for attribute in config.attributes.list(config.attribute_count as usize)? {
            shape.apply(&attribute)?;
        }
        Ok(shape)
    }

    fn apply(&mut self, attribute: &LaunchAttribute) -> Result<()> {
        let name = attribute.name;
        let is = |known: Name| known as u32 == name;
        // Order in the stream is kept, every block sees all memory, and where data is cached is nothing to results.
        let without_effect = [
            Name::CU_LAUNCH_ATTRIBUTE_IGNORE,
            Name::CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW,
            Name::CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY,
            Name::CU_LAUNCH_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE,
            Name::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
            Name::CU_LAUNCH_ATTRIBUTE_PRIORITY,
            Name::CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN_MAP,
            Name::CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN,
            Name::CU_LAUNCH_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT,
        ];
        match name {
            _ if is(Name::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION) => {
                self.cluster = Some([0, 1, 2].map(|axis| attribute.word(axis)));
            }
            _ if is(Name::CU_LAUNCH_ATTRIBUTE_COOPERATIVE) => self.cooperative = attribute.word(0) != 0,
            _ if without_effect.iter().any(|&known| is(known)) => {}
            _ => return Err(CUDA_ERROR_NOT_SUPPORTED.because(format!("launch attribute {name} is not emulated"))),
        }
        Ok(())
    }

    pub fn threads(&self) -> u32 {
        self.block.iter().product()
    }
}

impl Driver {
    /// The blocks of a cluster, which the device must be able to hold and the grid to be made of.
    pub fn cluster(&self, function: &Function, shape: &Shape) -> Result<[u32; 3]> {
        let cluster = shape.cluster.or(function.attributes.cluster()).unwrap_or([1; 3]);
        let size = cluster.iter().fold(1_u32, |size, &n| size.saturating_mul(n));
        let most = match (self.settings.arch < Arch::SM_90, function.attributes.large_clusters) {
            (true, _) => 1,
            (false, true) => LARGEST_CLUSTER,
            (false, false) => PORTABLE_CLUSTER,
        };
        let fits = size > 0 && size <= most;
        ensure!(fits, CUDA_ERROR_INVALID_CLUSTER_SIZE, "a cluster of {cluster:?} blocks: at most {most} in all");
        let divides = shape.grid.iter().zip(cluster).all(|(blocks, n)| blocks.is_multiple_of(n));
        let grid = shape.grid;
        ensure!(divides, CUDA_ERROR_INVALID_CLUSTER_SIZE, "a grid of {grid:?} blocks is not made of {cluster:?}");
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
            let asked: u64 = shape.grid.iter().map(|&n| u64::from(n)).product();
            ensure!(
                asked <= resident,
                CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE,
                "a cooperative grid of {asked} blocks: {resident} can run at once"
            );
        }
        Ok(grid)
    }
}

/// The parameter block from whichever of the two forms is used. It is copied: the caller may change it after the call.
fn params(kernel: &Kernel, list: KernelParams, extra: Extra) -> Result<Vec<u8>> {
    if kernel.params.is_empty() {
        return Ok(Vec::new());
    }
    ensure!(list.is_null() || extra.is_null(), CUDA_ERROR_INVALID_VALUE, "both kernelParams and extra are given");
    if !list.is_null() {
        return list.gather(&kernel.params, kernel.param_bytes);
    }
    let (name, bytes) = (&kernel.name, kernel.param_bytes as usize);
    ensure!(!extra.is_null(), CUDA_ERROR_INVALID_VALUE, "{name} has {} parameters, none given", kernel.params.len());
    let mut block = extra.block()?;
    let most = bytes.next_multiple_of(16);
    let fits = (bytes..=most).contains(&block.len());
    ensure!(fits, CUDA_ERROR_INVALID_VALUE, "{name} has {bytes} bytes of parameters, {} were given", block.len());
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
