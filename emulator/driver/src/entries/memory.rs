//! Device memory: allocation, freeing and queries.

use cudarc::driver::sys::CUresult::{
    CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_NOT_FOUND, CUDA_ERROR_NOT_SUPPORTED, CUDA_ERROR_OUT_OF_MEMORY,
};
use ptx_emulator::memory::MemoryError;

use super::stream::enqueue;
use crate::boundary::{DevicePointer, Handle, NullStream, Out};
use crate::driver::{self, Driver, Guard, find};
use crate::error::{Because, Error, Result, ensure};
use crate::executor;
use crate::export::exports;
use crate::object::allocation::Owned;
use crate::report;
use crate::work::Work;

/// The pitch of `cuMemAllocPitch` is a multiple of this.
const PITCH: usize = 512;

impl Driver {
    /// Checks that a range lies in one allocation.
    pub fn check_range(&self, address: DevicePointer, bytes: u64) -> Result<()> {
        let found = self.memory.find(address);
        let inside = found.is_some_and(|a| bytes <= a.base + a.size - address);
        ensure!(
            inside || bytes == 0,
            CUDA_ERROR_INVALID_VALUE,
            "{bytes} bytes at {address:#x} are not in one allocation: {}",
            self.memory.describe(address)
        );
        Ok(())
    }

    /// Lists the allocations that a context has not freed, if the setting `leaks` is on.
    pub fn report_leaks(&self, context: Handle) {
        if self.settings.leaks {
            for (&address, _) in self.allocations.iter().filter(|(_, owned)| owned.context == context) {
                let size = self.memory.find(address).map_or(0, |allocation| allocation.size);
                report::print(&format!("{size} bytes at {address:#x} were not freed before their context ended"));
            }
        }
    }

    fn try_allocate(&mut self, context: Handle, bytes: u64, pool: Option<Handle>) -> Result<u64, MemoryError> {
        let address = self.memory.allocate(bytes)?;
        self.allocations.insert(address, Owned { context, pool, freeing: false });
        Ok(address)
    }
}

/// Allocates memory. If there is not enough, pending operations, which may free memory, are executed first.
fn allocate(mut driver: Guard, context: Handle, bytes: usize, pool: Option<Handle>) -> Result<u64> {
    match driver.try_allocate(context, bytes as u64, pool) {
        Ok(address) => Ok(address),
        Err(_) => {
            let pending = driver.queue.all();
            let mut driver = executor::finish(driver, &pending);
            driver.healthy(context)?;
            let again = driver.try_allocate(context, bytes as u64, pool);
            again.map_err(|error| CUDA_ERROR_OUT_OF_MEMORY.because(error.to_string()))
        }
    }
}

/// `cuMemAlloc`
fn allocate_now(bytes: usize) -> Result<u64> {
    let mut driver = driver::lock()?;
    let context = driver.current()?;
    driver.refuse_unsafe()?;
    ensure!(bytes > 0, CUDA_ERROR_INVALID_VALUE, "an allocation must have more than 0 bytes");
    allocate(driver, context, bytes, None)
}

/// `cuMemFree`: waits for all operations that may still use the memory.
fn free_now(address: DevicePointer) -> Result<()> {
    let mut driver = driver::lock()?;
    let context = driver.current()?;
    driver.refuse_unsafe()?;
    let owner = driver.freeable(address)?.context;
    let pending = driver.queue.of_context(owner);
    let mut driver = executor::finish(driver, &pending);
    driver.healthy(context)?;
    driver.allocations.remove(&address);
    driver.memory.free(address).map_err(|error| CUDA_ERROR_INVALID_VALUE.because(error.to_string()))
}

impl Driver {
    fn freeable(&self, address: DevicePointer) -> Result<&Owned> {
        let owned = self.allocations.get(&address).filter(|owned| !owned.freeing);
        owned.ok_or_else(|| self.not_freeable(address))
    }

    fn not_freeable(&self, address: DevicePointer) -> Error {
        let location = self.memory.describe(address);
        CUDA_ERROR_INVALID_VALUE.because(format!("{address:#x} cannot be freed: {location}"))
    }
}

/// `cuMemAllocAsync`. The memory is allocated at once, so a use of it before its allocation in the stream's order is not
/// detected.
fn allocate_async(bytes: usize, pool: Option<Handle>, stream: Handle, null: NullStream) -> Result<u64> {
    let mut driver = driver::lock()?;
    let stream = driver.stream(stream, null)?;
    let pool = pool.unwrap_or(driver.current_pool);
    find(&driver.pools, "memory pool", pool)?;
    let owner = find(&driver.streams, "stream", stream)?;
    let captured = owner.branch.is_some();
    ensure!(!captured, CUDA_ERROR_NOT_SUPPORTED, "graphs that allocate memory are not emulated");
    if bytes == 0 {
        return Ok(0);
    }
    let context = owner.context;
    allocate(driver, context, bytes, Some(pool))
}

fn free_async(address: DevicePointer, stream: Handle, null: NullStream) -> Result<()> {
    let mut driver = driver::lock()?;
    let stream = driver.stream(stream, null)?;
    if address == 0 {
        return Ok(());
    }
    let pooled = driver.freeable(address)?.pool.is_some();
    ensure!(pooled, CUDA_ERROR_INVALID_VALUE, "{address:#x} is not a stream-ordered allocation");
    let (mut driver, _) = enqueue(driver, stream, Work::Free(address))?;
    if let Some(owned) = driver.allocations.get_mut(&address) {
        owned.freeing = true;
    }
    Ok(())
}

exports! {
    fn cuMemGetInfo_v2(free: Out<usize>, total: Out<usize>) {
        let driver = driver::lock()?;
        driver.current()?;
        let limit = driver.memory.limit();
        free.set_optional((limit - driver.memory.used()) as usize);
        total.set_optional(limit as usize);
    }

    fn cuMemAlloc_v2(out: Out<DevicePointer>, bytes: usize) {
        driver::ready()?;
        ensure!(!out.is_null(), CUDA_ERROR_INVALID_VALUE, "a null pointer for the address");
        out.set(allocate_now(bytes)?)?;
    }

    fn cuMemAllocPitch_v2(
        out: Out<DevicePointer>, pitch: Out<usize>, width: usize, height: usize, element: u32
    ) {
        driver::ready()?;
        ensure!(!out.is_null() && !pitch.is_null(), CUDA_ERROR_INVALID_VALUE, "a null pointer for a result");
        ensure!([4, 8, 16].contains(&element), CUDA_ERROR_INVALID_VALUE, "the element size is {element} but must be 4, 8 or 16");
        let row = width.checked_next_multiple_of(PITCH);
        let Some((row, bytes)) = row.and_then(|row| Some((row, row.checked_mul(height)?))) else {
            return Err(CUDA_ERROR_INVALID_VALUE.because(format!("{height} rows of {width} bytes are larger than the address space")));
        };
        out.set(allocate_now(bytes)?)?;
        pitch.set(row)?;
    }

    fn cuMemFree_v2(address: DevicePointer) {
        free_now(address)?;
    }

    fn cuMemGetAddressRange_v2(base: Out<DevicePointer>, size: Out<usize>, address: DevicePointer) {
        let driver = driver::lock()?;
        driver.current()?;
        let Some(allocation) = driver.memory.find(address) else {
            return Err(CUDA_ERROR_NOT_FOUND.because(format!("{address:#x}: {}", driver.memory.describe(address))));
        };
        base.set_optional(allocation.base);
        size.set_optional(allocation.size as usize);
    }

    fn cuMemAllocAsync / cuMemAllocAsync_ptsz(null; out: Out<DevicePointer>, bytes: usize, stream: Handle) {
        driver::ready()?;
        ensure!(!out.is_null(), CUDA_ERROR_INVALID_VALUE, "a null pointer for the address");
        out.set(allocate_async(bytes, None, stream, null)?)?;
    }

    fn cuMemAllocFromPoolAsync / cuMemAllocFromPoolAsync_ptsz(
        null; out: Out<DevicePointer>, bytes: usize, pool: Handle, stream: Handle
    ) {
        driver::ready()?;
        ensure!(!out.is_null(), CUDA_ERROR_INVALID_VALUE, "a null pointer for the address");
        out.set(allocate_async(bytes, Some(pool), stream, null)?)?;
    }

    fn cuMemFreeAsync / cuMemFreeAsync_ptsz(null; address: DevicePointer, stream: Handle) {
        free_async(address, stream, null)?;
    }
}
