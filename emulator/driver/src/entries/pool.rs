//! Memory pools. They keep no freed memory, so that accesses to freed memory are detected.

use cudarc::driver::sys::CUmemPool_attribute as Attribute;
use cudarc::driver::sys::CUresult::{CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_NOT_SUPPORTED};

use crate::boundary::{Device, Handle, In, InOut, MemAccess, MemLocation, Out, PoolProps};
use crate::driver::{self, Driver, check_device, find, find_mut};
use crate::error::{Because, Result, ensure};
use crate::export::exports;
use crate::handle::{Kind, new_handle};
use crate::object::pool::Pool;

const ON_DEVICE: u32 = 1;
const PINNED: u32 = 1;
const READ_WRITE: u32 = 3;

/// The value of an attribute: switches have 32 bits, sizes 64.
enum Value {
    Switch(u32),
    Size(u64),
}

impl Driver {
    fn pool_in_use(&self, pool: Handle) -> u64 {
        let of_pool = self.allocations.iter().filter(|(_, owned)| owned.pool == Some(pool));
        of_pool.filter_map(|(&address, _)| self.memory.find(address)).map(|allocation| allocation.size).sum()
    }

    fn pool_attribute(&mut self, handle: Handle, name: u32) -> Result<Value> {
        let in_use = self.pool_in_use(handle);
        let pool = find_mut(&mut self.pools, "memory pool", handle)?;
        pool.highest = pool.highest.max(in_use);
        let known = |attribute: Attribute| attribute as u32 == name;
        Ok(match name {
            1..=3 => Value::Switch(pool.reuse[name as usize - 1]),
            _ if known(Attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD) => Value::Size(pool.threshold),
            _ if known(Attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT) => Value::Size(in_use),
            _ if known(Attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT) => Value::Size(in_use),
            _ if known(Attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH) => Value::Size(pool.highest),
            _ if known(Attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH) => Value::Size(pool.highest),
            _ => return Err(CUDA_ERROR_INVALID_VALUE.because(format!("pool attribute {name} is unknown"))),
        })
    }
}

fn set_attribute(handle: Handle, name: u32, switch: In<u32>, size: In<u64>) -> Result<()> {
    let mut driver = driver::lock()?;
    let pool = find_mut(&mut driver.pools, "memory pool", handle)?;
    match name {
        1..=3 => pool.reuse[name as usize - 1] = switch.get()?,
        _ if name == Attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD as u32 => pool.threshold = size.get()?,
        _ if name == Attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH as u32
            || name == Attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH as u32 =>
        {
            ensure!(size.get()? == 0, CUDA_ERROR_INVALID_VALUE, "a high-water mark can only be reset to 0");
            pool.highest = 0;
        }
        _ => return Err(CUDA_ERROR_INVALID_VALUE.because(format!("pool attribute {name} cannot be set"))),
    }
    Ok(())
}

exports! {
    fn cuDeviceGetDefaultMemPool(out: Out<Handle>, device: Device) {
        let driver = driver::lock()?;
        check_device(device)?;
        out.set(driver.default_pool)?;
    }

    fn cuDeviceGetMemPool(out: Out<Handle>, device: Device) {
        let driver = driver::lock()?;
        check_device(device)?;
        out.set(driver.current_pool)?;
    }

    fn cuDeviceSetMemPool(device: Device, pool: Handle) {
        let mut driver = driver::lock()?;
        check_device(device)?;
        find(&driver.pools, "memory pool", pool)?;
        driver.current_pool = pool;
    }

    fn cuMemPoolCreate(out: Out<Handle>, props: In<PoolProps>) {
        let mut driver = driver::lock()?;
        let props = props.get()?;
        let plain = props.allocation == PINNED && props.location.kind == ON_DEVICE;
        ensure!(plain, CUDA_ERROR_NOT_SUPPORTED, "only pools of device memory are emulated");
        check_device(props.location.id)?;
        ensure!(props.handles == 0, CUDA_ERROR_NOT_SUPPORTED, "pools shared between processes are not emulated");
        let handle = new_handle(Kind::Pool);
        out.set(handle)?;
        driver.pools.insert(handle, Pool::default());
    }

    fn cuMemPoolDestroy(pool: Handle) {
        let mut driver = driver::lock()?;
        find(&driver.pools, "memory pool", pool)?;
        ensure!(pool != driver.default_pool, CUDA_ERROR_INVALID_VALUE, "the default pool cannot be destroyed");
        driver.pools.remove(&pool);
        if driver.current_pool == pool {
            driver.current_pool = driver.default_pool;
        }
    }

    fn cuMemPoolTrimTo(pool: Handle, keep: usize) {
        // Pools keep no freed memory, so there is nothing to trim.
        let _ = keep;
        find(&driver::lock()?.pools, "memory pool", pool)?;
    }

    fn cuMemPoolGetAttribute(pool: Handle, name: u32, out: Out<u32>) {
        match driver::lock()?.pool_attribute(pool, name)? {
            Value::Switch(value) => out.set(value)?,
            Value::Size(value) => out.cast().set(value)?,
        }
    }

    fn cuMemPoolSetAttribute(pool: Handle, name: u32, value: InOut<u32>) {
        set_attribute(pool, name, value.input(), value.input())?;
    }

    fn cuMemPoolSetAccess(pool: Handle, access: In<MemAccess>, count: usize) {
        let driver = driver::lock()?;
        find(&driver.pools, "memory pool", pool)?;
        for access in access.list(count)? {
            ensure!(access.location.kind == ON_DEVICE, CUDA_ERROR_INVALID_VALUE, "only devices can have access");
            check_device(access.location.id)?;
            let own = access.flags == READ_WRITE;
            ensure!(own, CUDA_ERROR_INVALID_VALUE, "a device's access to its own pool cannot be revoked");
        }
    }

    fn cuMemPoolGetAccess(out: Out<u32>, pool: Handle, location: In<MemLocation>) {
        let driver = driver::lock()?;
        find(&driver.pools, "memory pool", pool)?;
        let location = location.get()?;
        ensure!(location.kind == ON_DEVICE, CUDA_ERROR_INVALID_VALUE, "only devices can have access");
        check_device(location.id)?;
        out.set(READ_WRITE)?;
    }
}
