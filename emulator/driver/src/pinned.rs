//! Page-locked host memory. Asynchronous copies read and write it when their turn comes, not when they are called.

use std::collections::BTreeMap;

use cudarc::driver::sys::CUresult::{
    CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED, CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED, CUDA_ERROR_INVALID_VALUE,
    CUDA_ERROR_NOT_SUPPORTED, CUDA_ERROR_OUT_OF_MEMORY,
};

use crate::boundary::{Handle, HostPointer, Line, Out};
use crate::driver::{self, Driver, Guard};
use crate::error::{Because, Result, ensure};
use crate::export::exports;
use crate::queue;

/// Portable, mapped, write-combined; for registering also I/O memory and read-only.
const ALLOC_FLAGS: u32 = 7;
const REGISTER_FLAGS: u32 = 15;
/// Mapped into the device's addresses, which the emulator does not do.
const DEVICE_MAP: u32 = 2;

/// All page-locked ranges, by their first address.
#[derive(Debug, Default)]
pub struct Pinned(BTreeMap<u64, Range>);

#[derive(Debug)]
struct Range {
    context: Handle,
    size: u64,
    flags: u32,
    /// Memory of this library's; none for memory of the program's that it registered.
    block: Option<Vec<Line>>,
}

impl Pinned {
    /// Whether the whole range is page-locked.
    pub fn contains(&self, address: u64, bytes: u64) -> bool {
        self.find(address).is_some_and(|(base, range)| bytes <= range.size - (address - base))
    }

    /// The range that holds an address: its context, start and size.
    pub fn range(&self, address: u64) -> Option<(Handle, u64, u64)> {
        self.find(address).map(|(base, range)| (range.context, base, range.size))
    }

    /// A context ends.
    pub fn leave(&mut self, context: Handle) {
        self.0.retain(|_, range| range.context != context);
    }

    fn find(&self, address: u64) -> Option<(u64, &Range)> {
        let (&base, range) = self.0.range(..=address).next_back()?;
        (address - base < range.size).then_some((base, range))
    }

    fn overlaps(&self, address: u64, bytes: u64) -> bool {
        let below = self.0.range(..address.saturating_add(bytes)).next_back();
        below.is_some_and(|(&base, range)| base + range.size > address)
    }
}

impl Driver {
    fn allocate_pinned(&mut self, bytes: usize, flags: u32) -> Result<HostPointer> {
        let context = self.current()?;
        self.refuse_unsafe()?;
        ensure!(bytes > 0, CUDA_ERROR_INVALID_VALUE, "an allocation of 0 bytes");
        ensure!(flags & !ALLOC_FLAGS == 0, CUDA_ERROR_INVALID_VALUE, "flags {flags:#x} are unknown");
        ensure!(flags & DEVICE_MAP == 0, CUDA_ERROR_NOT_SUPPORTED, "mapped host memory is not emulated");
        let mut block = Vec::new();
        let lines = bytes.div_ceil(size_of::<Line>());
        let room = block.try_reserve_exact(lines);
        ensure!(room.is_ok(), CUDA_ERROR_OUT_OF_MEMORY, "{bytes} bytes of host memory cannot be had");
        block.resize(lines, Line::FRESH);
        let pointer = HostPointer::from_block(&mut block);
        let range = Range { context, size: bytes as u64, flags, block: Some(block) };
        self.pinned.0.insert(pointer.address(), range);
        Ok(pointer)
    }

    fn register(&mut self, pointer: HostPointer, bytes: usize, flags: u32) -> Result<()> {
        let context = self.current()?;
        self.refuse_unsafe()?;
        let given = bytes > 0 && !pointer.is_null() && flags & !REGISTER_FLAGS == 0;
        ensure!(given, CUDA_ERROR_INVALID_VALUE, "{bytes} bytes at {:#x}, flags {flags:#x}", pointer.address());
        ensure!(flags & DEVICE_MAP == 0, CUDA_ERROR_NOT_SUPPORTED, "mapped host memory is not emulated");
        let taken = self.pinned.overlaps(pointer.address(), bytes as u64);
        ensure!(!taken, CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED, "part of the range is registered already");
        let range = Range { context, size: bytes as u64, flags, block: None };
        self.pinned.0.insert(pointer.address(), range);
        Ok(())
    }
}

/// Ends a range, after everything that may still use it.
fn release(mut driver: Guard, pointer: HostPointer, registered: bool) -> Result<()> {
    let context = driver.current()?;
    driver.refuse_unsafe()?;
    let known = driver.pinned.0.get(&pointer.address()).is_some_and(|range| range.block.is_none() == registered);
    let code = if registered { CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED } else { CUDA_ERROR_INVALID_VALUE };
    ensure!(known, code, "{:#x} is not the start of such memory", pointer.address());
    let pending = driver.queue.all();
    let mut driver = queue::finish(driver, &pending);
    driver.healthy(context)?;
    driver.pinned.0.remove(&pointer.address());
    Ok(())
}

exports! {
    fn cuMemHostAlloc(out: Out<HostPointer>, bytes: usize, flags: u32) {
        driver::ready()?;
        ensure!(!out.is_null(), CUDA_ERROR_INVALID_VALUE, "a null pointer for the address");
        out.set(driver::lock()?.allocate_pinned(bytes, flags)?)?;
    }

    fn cuMemAllocHost_v2(out: Out<HostPointer>, bytes: usize) {
        driver::ready()?;
        ensure!(!out.is_null(), CUDA_ERROR_INVALID_VALUE, "a null pointer for the address");
        out.set(driver::lock()?.allocate_pinned(bytes, 0)?)?;
    }

    fn cuMemFreeHost(pointer: HostPointer) {
        release(driver::lock()?, pointer, false)?;
    }

    fn cuMemHostRegister = cuMemHostRegister_v2(pointer: HostPointer, bytes: usize, flags: u32) {
        driver::lock()?.register(pointer, bytes, flags)?;
    }

    fn cuMemHostUnregister(pointer: HostPointer) {
        release(driver::lock()?, pointer, true)?;
    }

    fn cuMemHostGetFlags(out: Out<u32>, pointer: HostPointer) {
        let driver = driver::lock()?;
        driver.current()?;
        let Some((_, range)) = driver.pinned.find(pointer.address()) else {
            return Err(CUDA_ERROR_INVALID_VALUE.because("the pointer is not page-locked memory"));
        };
        out.set(range.flags)?;
    }
}
