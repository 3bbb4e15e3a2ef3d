//! Page-locked host memory. Asynchronous copies access it when they are executed, not during the call.

use cudarc::driver::sys::CUresult::{
    CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED, CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED, CUDA_ERROR_INVALID_VALUE,
    CUDA_ERROR_NOT_SUPPORTED, CUDA_ERROR_OUT_OF_MEMORY,
};

use crate::boundary::{HostPointer, Line, Out};
use crate::driver::{self, Driver, Guard};
use crate::error::{Because, Result, ensure};
use crate::executor;
use crate::export::exports;
use crate::object::pinned::Range;

/// The known flags of allocation: portable, mapped, write-combined.
const ALLOC_FLAGS: u32 = 7;
/// The known flags of registration: portable, mapped, I/O memory, read-only.
const REGISTER_FLAGS: u32 = 15;
/// The flag to map the memory into the device's address space, which is not emulated.
const DEVICE_MAP: u32 = 2;

impl Driver {
    fn allocate_pinned(&mut self, bytes: usize, flags: u32) -> Result<HostPointer> {
        let context = self.current()?;
        self.refuse_unsafe()?;
        ensure!(bytes > 0, CUDA_ERROR_INVALID_VALUE, "an allocation must have more than 0 bytes");
        ensure!(flags & !ALLOC_FLAGS == 0, CUDA_ERROR_INVALID_VALUE, "flags {flags:#x} are unknown");
        ensure!(flags & DEVICE_MAP == 0, CUDA_ERROR_NOT_SUPPORTED, "mapped host memory is not emulated");
        let mut block = Vec::new();
        let lines = bytes.div_ceil(size_of::<Line>());
        let reserved = block.try_reserve_exact(lines);
        ensure!(reserved.is_ok(), CUDA_ERROR_OUT_OF_MEMORY, "cannot allocate {bytes} bytes of host memory");
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
        ensure!(
            given,
            CUDA_ERROR_INVALID_VALUE,
            "cannot register {bytes} bytes at {:#x} with flags {flags:#x}",
            pointer.address()
        );
        ensure!(flags & DEVICE_MAP == 0, CUDA_ERROR_NOT_SUPPORTED, "mapped host memory is not emulated");
        let taken = self.pinned.overlaps(pointer.address(), bytes as u64);
        ensure!(!taken, CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED, "part of the range is already registered");
        let range = Range { context, size: bytes as u64, flags, block: None };
        self.pinned.0.insert(pointer.address(), range);
        Ok(())
    }
}

/// Frees or unregisters a range, after all operations that may still use it.
fn release(mut driver: Guard, pointer: HostPointer, registered: bool) -> Result<()> {
    let context = driver.current()?;
    driver.refuse_unsafe()?;
    let known = driver.pinned.0.get(&pointer.address()).is_some_and(|range| range.block.is_none() == registered);
    let code = if registered { CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED } else { CUDA_ERROR_INVALID_VALUE };
    ensure!(
        known,
        code,
        "{:#x} is not the start of page-locked memory that can be released in this way",
        pointer.address()
    );
    let pending = driver.queue.all();
    let mut driver = executor::finish(driver, &pending);
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
