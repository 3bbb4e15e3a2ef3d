//! Contexts: the primary context, other contexts, and each thread's stack of current contexts.

use std::collections::HashMap;

use cudarc::driver::sys::CUlimit;
use cudarc::driver::sys::CUresult::{
    CUDA_ERROR_INVALID_CONTEXT, CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_NOT_SUPPORTED, CUDA_ERROR_UNSUPPORTED_LIMIT,
};

use super::stream;
use crate::boundary::{CtxCreateParams, Device, Handle, In, Out};
use crate::driver::{self, Driver, Guard, check_device};
use crate::error::{Because, Result, ensure};
use crate::executor;
use crate::export::exports;
use crate::handle::{Kind, new_handle};
use crate::object::context::{Context, DEFAULT_LIMITS, LIMITS, pop, push, top};
use crate::object::stream::Stream;

/// The answer of `cuCtxGetApiVersion` for contexts of the interface since CUDA 3.2.
const API_VERSION: u32 = 3020;
/// The known flags: scheduling, mapped host memory, local memory, synchronous memory operations.
const FLAGS: u32 = 0xFF;
impl Driver {
    fn create_context(&mut self, flags: u32) -> Result<Handle> {
        ensure!(flags & !FLAGS == 0, CUDA_ERROR_INVALID_VALUE, "context flags {flags:#x} are unknown");
        ensure!(
            flags & 7 <= 4 && flags & 7 != 3,
            CUDA_ERROR_INVALID_VALUE,
            "context flags {flags:#x}: at most one scheduling flag is permitted"
        );
        let handle = new_handle(Kind::Context);
        let legacy = new_handle(Kind::Stream);
        self.streams.insert(legacy, Stream::legacy(handle));
        let context = Context {
            id: self.destroyed.len() as u64 + self.contexts.len() as u64 + 1,
            flags,
            failed: None,
            legacy,
            per_thread: HashMap::new(),
            orphans: Vec::new(),
            limits: DEFAULT_LIMITS,
            cache_config: 0,
            shared_config: 0,
        };
        self.contexts.insert(handle, context);
        Ok(handle)
    }

    /// Removes a context and everything that belongs to it.
    fn remove_context(&mut self, handle: Handle) {
        self.report_leaks(handle);
        self.queue.abandon(handle);
        self.captures.retain(|_, capture| capture.context != handle);
        self.modules.iter().filter(|(_, m)| m.context == handle).for_each(|(_, m)| m.code.unload(&self.memory));
        self.modules.retain(|_, module| module.context != handle);
        let modules = &self.modules;
        self.functions.retain(|_, function| modules.contains_key(&function.module));
        self.libraries.values_mut().for_each(|library| library.leave(handle));
        self.streams.retain(|_, stream| stream.context != handle);
        self.events.retain(|_, event| event.context != handle);
        let memory = &self.memory;
        self.allocations.retain(|&address, owned| {
            let stays = owned.context != handle;
            if !stays {
                // An address that was already freed needs no report here.
                let _ = memory.free(address);
            }
            stays
        });
        self.pinned.leave(handle);
        self.contexts.remove(&handle);
        self.destroyed.insert(handle);
    }
}

/// Executes the pending operations of a context, then removes the context.
fn destroy(driver: Guard, handle: Handle) {
    let pending = driver.queue.of_context(handle);
    executor::finish(driver, &pending).remove_context(handle);
}

fn create(out: Out<Handle>, flags: u32, device: Device) -> Result<()> {
    let mut driver = driver::lock()?;
    check_device(device)?;
    ensure!(!out.is_null(), CUDA_ERROR_INVALID_VALUE, "a null pointer for the context");
    let context = driver.create_context(flags)?;
    push(context);
    out.set(context)
}

fn retain_primary() -> Result<Handle> {
    let mut driver = driver::lock()?;
    let flags = driver.primary.flags;
    let context = match driver.primary.context {
        Some(context) => context,
        None => driver.create_context(flags)?,
    };
    driver.primary.context = Some(context);
    driver.primary.retained += 1;
    Ok(context)
}

fn release_primary(all: bool) -> Result<()> {
    let mut driver = driver::lock()?;
    let Some(context) = driver.primary.context else {
        ensure!(all, CUDA_ERROR_INVALID_CONTEXT, "the primary context is not retained");
        return Ok(());
    };
    driver.primary.retained -= if all { driver.primary.retained } else { 1 };
    if driver.primary.retained == 0 {
        driver.primary.context = None;
        destroy(driver, context);
    }
    Ok(())
}

/// Waits for all operations of a context.
fn synchronize(driver: Guard, context: Handle) -> Result<()> {
    let mut driver = driver;
    driver.refuse_all_captures(context)?;
    let pending = driver.queue.of_context(context);
    executor::finish(driver, &pending).healthy(context).map(drop)
}

fn limit(name: u32) -> Result<usize> {
    let known = (name as usize) < LIMITS;
    ensure!(known, CUDA_ERROR_UNSUPPORTED_LIMIT, "limit {name} is unknown");
    // Device-side launches are not emulated.
    let unsupported = [CUlimit::CU_LIMIT_DEV_RUNTIME_SYNC_DEPTH, CUlimit::CU_LIMIT_DEV_RUNTIME_PENDING_LAUNCH_COUNT];
    ensure!(
        unsupported.iter().all(|&l| l as u32 != name),
        CUDA_ERROR_UNSUPPORTED_LIMIT,
        "limit {name} is not supported"
    );
    Ok(name as usize)
}

exports! {
    fn cuDevicePrimaryCtxRetain(out: Out<Handle>, device: Device) {
        driver::ready()?;
        check_device(device)?;
        ensure!(!out.is_null(), CUDA_ERROR_INVALID_VALUE, "a null pointer for the context");
        out.set(retain_primary()?)?;
    }

    fn cuDevicePrimaryCtxRelease = cuDevicePrimaryCtxRelease_v2(device: Device) {
        driver::ready()?;
        check_device(device)?;
        release_primary(false)?;
    }

    fn cuDevicePrimaryCtxReset = cuDevicePrimaryCtxReset_v2(device: Device) {
        driver::ready()?;
        check_device(device)?;
        release_primary(true)?;
    }

    fn cuDevicePrimaryCtxSetFlags = cuDevicePrimaryCtxSetFlags_v2(device: Device, flags: u32) {
        let mut driver = driver::lock()?;
        check_device(device)?;
        ensure!(flags & !FLAGS == 0, CUDA_ERROR_INVALID_VALUE, "context flags {flags:#x} are unknown");
        driver.primary.flags = flags;
        if let Some(context) = driver.primary.context {
            driver.context_mut(context)?.flags = flags;
        }
    }

    fn cuDevicePrimaryCtxGetState(device: Device, flags: Out<u32>, active: Out<i32>) {
        let driver = driver::lock()?;
        check_device(device)?;
        flags.set(driver.primary.flags)?;
        active.set(i32::from(driver.primary.context.is_some()))?;
    }

    fn cuCtxCreate_v2(out: Out<Handle>, flags: u32, device: Device) {
        create(out, flags, device)?;
    }

    fn cuCtxCreate_v3(out: Out<Handle>, affinity: usize, affinities: i32, flags: u32, device: Device) {
        let plain = affinity == 0 || affinities == 0;
        ensure!(plain, CUDA_ERROR_NOT_SUPPORTED, "execution affinity is not emulated");
        create(out, flags, device)?;
    }

    fn cuCtxCreate_v4(out: Out<Handle>, params: In<CtxCreateParams>, flags: u32, device: Device) {
        let plain = params.is_null() || params.get().is_ok_and(|p| p.affinity_count == 0 && p.graphics == 0);
        ensure!(plain, CUDA_ERROR_NOT_SUPPORTED, "execution affinity and CUDA in graphics are not emulated");
        create(out, flags, device)?;
    }

    fn cuCtxDestroy = cuCtxDestroy_v2(context: Handle) {
        let driver = driver::lock()?;
        driver.context(context)?;
        ensure!(driver.primary.context != Some(context), CUDA_ERROR_INVALID_CONTEXT, "the primary context must be released instead");
        destroy(driver, context);
        if top() == Some(context) {
            pop();
        }
    }

    fn cuCtxPushCurrent = cuCtxPushCurrent_v2(context: Handle) {
        driver::lock()?.context(context)?;
        push(context);
    }

    fn cuCtxPopCurrent = cuCtxPopCurrent_v2(out: Out<Handle>) {
        driver::ready()?;
        let Some(context) = pop() else {
            return Err(CUDA_ERROR_INVALID_CONTEXT.because("no context is current to this thread"));
        };
        out.set_optional(context);
    }

    fn cuCtxSetCurrent(context: Handle) {
        let driver = driver::lock()?;
        if context != 0 {
            driver.context(context)?;
        }
        pop();
        if context != 0 {
            push(context);
        }
    }

    fn cuCtxGetCurrent(out: Out<Handle>) {
        let driver = driver::lock()?;
        let current = top().filter(|top| driver.contexts.contains_key(top) || driver.destroyed.contains(top));
        out.set(current.unwrap_or(0))?;
    }

    fn cuCtxGetDevice(out: Out<Device>) {
        driver::lock()?.current()?;
        out.set(0)?;
    }

    fn cuCtxGetDevice_v2(out: Out<Device>, context: Handle) {
        let driver = driver::lock()?;
        if context == 0 { driver.current()? } else { driver.healthy(context)? };
        out.set(0)?;
    }

    fn cuCtxGetFlags(out: Out<u32>) {
        let driver = driver::lock()?;
        out.set(driver.context(driver.current()?)?.flags)?;
    }

    fn cuCtxSetFlags(flags: u32) {
        let mut driver = driver::lock()?;
        let current = driver.current()?;
        ensure!(flags & !FLAGS == 0, CUDA_ERROR_INVALID_VALUE, "context flags {flags:#x} are unknown");
        driver.context_mut(current)?.flags = flags;
    }

    fn cuCtxGetId(context: Handle, out: Out<u64>) {
        let driver = driver::lock()?;
        let context = if context == 0 { driver.current()? } else { context };
        out.set(driver.context(context)?.id)?;
    }

    fn cuCtxGetApiVersion(context: Handle, out: Out<u32>) {
        let driver = driver::lock()?;
        let context = if context == 0 { driver.current()? } else { context };
        driver.context(context)?;
        out.set(API_VERSION)?;
    }

    fn cuCtxSynchronize() {
        let driver = driver::lock()?;
        let current = driver.current()?;
        synchronize(driver, current)?;
    }

    fn cuCtxSynchronize_v2(context: Handle) {
        let driver = driver::lock()?;
        let context = if context == 0 { driver.current()? } else { driver.healthy(context)? };
        synchronize(driver, context)?;
    }

    fn cuCtxGetLimit(out: Out<usize>, name: u32) {
        let driver = driver::lock()?;
        out.set(driver.context(driver.current()?)?.limits[limit(name)?])?;
    }

    fn cuCtxSetLimit(name: u32, value: usize) {
        let mut driver = driver::lock()?;
        let current = driver.current()?;
        driver.context_mut(current)?.limits[limit(name)?] = value;
    }

    fn cuCtxGetCacheConfig(out: Out<u32>) {
        let driver = driver::lock()?;
        out.set(driver.context(driver.current()?)?.cache_config)?;
    }

    fn cuCtxSetCacheConfig(config: u32) {
        let mut driver = driver::lock()?;
        let current = driver.current()?;
        ensure!(config <= 3, CUDA_ERROR_INVALID_VALUE, "cache configuration {config} is unknown");
        driver.context_mut(current)?.cache_config = config;
    }

    fn cuCtxGetSharedMemConfig(out: Out<u32>) {
        let driver = driver::lock()?;
        out.set(driver.context(driver.current()?)?.shared_config)?;
    }

    fn cuCtxSetSharedMemConfig(config: u32) {
        let mut driver = driver::lock()?;
        let current = driver.current()?;
        ensure!(config <= 2, CUDA_ERROR_INVALID_VALUE, "shared memory configuration {config} is unknown");
        driver.context_mut(current)?.shared_config = config;
    }

    fn cuCtxGetStreamPriorityRange(least: Out<i32>, greatest: Out<i32>) {
        driver::lock()?.current()?;
        least.set_optional(stream::PRIORITIES.0);
        greatest.set_optional(stream::PRIORITIES.1);
    }

    fn cuCtxResetPersistingL2Cache() {
        driver::lock()?.current()?;
    }
}
