//! Occupancy. Registers are estimated from the PTX, so figures that registers limit are estimates.

use cudarc::driver::sys::CUresult::{CUDA_ERROR_INVALID_CLUSTER_SIZE, CUDA_ERROR_INVALID_VALUE};
use ptx_emulator::{Arch, Limits};

use crate::boundary::{Handle, In, LaunchConfig, Out, SharedSize};
use crate::driver::{self, Guard};
use crate::error::{Result, ensure};
use crate::export::exports;
use crate::launch_shape::Shape;
use crate::object::function::Function;

const WARP: u32 = 32;
/// Units in which registers and shared memory are allocated.
const REGISTER_UNIT: u32 = 256;
const SHARED_UNIT: u32 = 128;
/// The flag to disable the caching override, which has no effect.
const FLAGS: u32 = 1;

/// Number of blocks of a function that are resident on an SM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocks {
    pub per_multiprocessor: u32,
}

impl Blocks {
    pub fn of(function: &Function, limits: &Limits, threads: u32, dynamic_shared: u32) -> Self {
        let warps = threads.div_ceil(WARP).max(1);
        let by_threads = limits.threads_per_multiprocessor / (warps * WARP);
        let warp_registers = (function.registers(limits) * WARP).next_multiple_of(REGISTER_UNIT);
        let by_registers = limits.registers_per_multiprocessor / (warp_registers * warps);
        let shared = function.kernel.static_shared.saturating_add(dynamic_shared);
        let by_shared = match shared.checked_add(limits.shared_reserved) {
            Some(bytes) if shared <= limits.shared_per_block_optin() => {
                limits.shared_per_multiprocessor / bytes.next_multiple_of(SHARED_UNIT)
            }
            _ => 0,
        };
        let by_blocks = limits.blocks_per_multiprocessor;
        Self { per_multiprocessor: by_threads.min(by_registers).min(by_shared).min(by_blocks) }
    }
}

/// The blocks per SM of a function with blocks of `threads` threads.
fn blocks(handle: Handle, threads: i32, dynamic_shared: usize, flags: u32) -> Result<i32> {
    let (driver, function) = locked(handle)?;
    let (function, _) = driver.healthy_function(function)?;
    let limit = function.max_threads(&driver.limits);
    let fits = u32::try_from(threads).is_ok_and(|threads| (1..=limit).contains(&threads));
    ensure!(fits, CUDA_ERROR_INVALID_VALUE, "a block of {threads} threads: the range is from 1 to {limit}");
    ensure!(flags & !FLAGS == 0, CUDA_ERROR_INVALID_VALUE, "flags {flags:#x} are unknown");
    let shared = u32::try_from(dynamic_shared).unwrap_or(u32::MAX);
    Ok(Blocks::of(function, &driver.limits, threads as u32, shared).per_multiprocessor as i32)
}

fn locked(handle: Handle) -> Result<(Guard, Handle)> {
    let mut driver = driver::lock()?;
    let function = driver.function_or_kernel(handle)?;
    Ok((driver, function))
}

/// The block size with which the most threads are resident (the largest of several), and the grid that fills the device.
fn best_block(handle: Handle, size: SharedSize, dynamic_shared: usize, limit: i32, flags: u32) -> Result<(i32, i32)> {
    let (driver, function) = locked(handle)?;
    let (function, _) = driver.healthy_function(function)?;
    let (limit_of_function, multiprocessors) = (function.max_threads(&driver.limits), driver.limits.multiprocessors);
    drop(driver);
    let limit = if limit > 0 { limit_of_function.min(limit as u32) } else { limit_of_function };
    let (mut best, mut best_threads) = ((0, 0), 0);
    for threads in (1..=limit.div_ceil(WARP)).rev().map(|warps| (warps * WARP).min(limit)) {
        // The size function belongs to the caller, so it must not be called while the lock is held.
        let shared = size.of(threads, dynamic_shared);
        let resident = blocks(handle, threads as i32, shared, flags)?;
        if resident as u32 * threads > best_threads {
            best_threads = resident as u32 * threads;
            best = (resident * multiprocessors as i32, threads as i32);
        }
    }
    Ok(best)
}

/// Bytes of dynamic shared memory per block with which `resident` blocks fit an SM.
fn available_shared(handle: Handle, resident: i32, threads: i32) -> Result<usize> {
    let without = blocks(handle, threads, 0, 0)?;
    let (driver, function) = locked(handle)?;
    let (function, _) = driver.healthy_function(function)?;
    let fits = (1..=without).contains(&resident);
    ensure!(fits, CUDA_ERROR_INVALID_VALUE, "{resident} blocks of {threads} threads: at most {without} are possible");
    let limits = &driver.limits;
    let share = limits.shared_per_multiprocessor / resident as u32 / SHARED_UNIT * SHARED_UNIT;
    let most = share.saturating_sub(limits.shared_reserved).min(limits.shared_per_block_optin());
    Ok(most.saturating_sub(function.kernel.static_shared) as usize)
}

/// Number of resident clusters, assuming that a cluster may consist of blocks on any SMs.
fn clusters(handle: Handle, config: In<LaunchConfig>) -> Result<i32> {
    let shape = Shape::from_config(&config.get()?)?;
    let (driver, function) = locked(handle)?;
    let (function, _) = driver.healthy_function(function)?;
    let size: u32 = driver.cluster(function, &shape)?.iter().product();
    let blocks = Blocks::of(function, &driver.limits, shape.threads(), shape.dynamic_shared);
    Ok((blocks.per_multiprocessor * driver.limits.multiprocessors / size) as i32)
}

/// The most blocks of a cluster of a function.
fn largest_cluster(handle: Handle, config: In<LaunchConfig>) -> Result<i32> {
    let shape = Shape::from_config(&config.get()?)?;
    let (driver, function) = locked(handle)?;
    let (function, _) = driver.healthy_function(function)?;
    let clusters = driver.settings.arch >= Arch::SM_90;
    ensure!(clusters, CUDA_ERROR_INVALID_CLUSTER_SIZE, "only compute capability 9.0 has clusters");
    let blocks = Blocks::of(function, &driver.limits, shape.threads(), shape.dynamic_shared);
    ensure!(blocks.per_multiprocessor > 0, CUDA_ERROR_INVALID_VALUE, "a block of this shape does not fit an SM");
    Ok(if function.attributes.large_clusters { 16 } else { 8 })
}

exports! {
    fn cuOccupancyMaxActiveBlocksPerMultiprocessor(out: Out<i32>, function: Handle, threads: i32, shared: usize) {
        out.set(blocks(function, threads, shared, 0)?)?;
    }

    fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        out: Out<i32>, function: Handle, threads: i32, shared: usize, flags: u32
    ) {
        out.set(blocks(function, threads, shared, flags)?)?;
    }

    fn cuOccupancyMaxPotentialBlockSize(
        grid: Out<i32>, block: Out<i32>, function: Handle, size: SharedSize, shared: usize, limit: i32
    ) {
        let (blocks, threads) = best_block(function, size, shared, limit, 0)?;
        grid.set(blocks)?;
        block.set(threads)?;
    }

    fn cuOccupancyMaxPotentialBlockSizeWithFlags(
        grid: Out<i32>, block: Out<i32>, function: Handle, size: SharedSize, shared: usize, limit: i32, flags: u32
    ) {
        let (blocks, threads) = best_block(function, size, shared, limit, flags)?;
        grid.set(blocks)?;
        block.set(threads)?;
    }

    fn cuOccupancyAvailableDynamicSMemPerBlock(out: Out<usize>, function: Handle, blocks: i32, threads: i32) {
        out.set(available_shared(function, blocks, threads)?)?;
    }

    fn cuOccupancyMaxActiveClusters(out: Out<i32>, function: Handle, config: In<LaunchConfig>) {
        out.set(clusters(function, config)?)?;
    }

    fn cuOccupancyMaxPotentialClusterSize(out: Out<i32>, function: Handle, config: In<LaunchConfig>) {
        out.set(largest_cluster(function, config)?)?;
    }
}
