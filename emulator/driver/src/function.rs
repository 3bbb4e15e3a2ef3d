//! Functions: kernels of a module, with what was set for them.

use std::ffi::CString;
use std::sync::Arc;

use cudarc::driver::sys::CUfunction_attribute as Attribute;
use cudarc::driver::sys::CUfunctionLoadingState::CU_FUNCTION_LOADING_STATE_LOADED;
use cudarc::driver::sys::CUresult::{CUDA_ERROR_INVALID_CLUSTER_SIZE, CUDA_ERROR_INVALID_VALUE};
use ptx_emulator::{Kernel, Limits};

use crate::boundary::{Handle, Out, Text};
use crate::driver::{self, Driver, find, find_mut};
use crate::error::{Because, Result, ensure};
use crate::export::exports;

/// A function.
#[derive(Debug)]
pub struct Function {
    pub module: Handle,
    pub kernel: Arc<Kernel>,
    pub attributes: Attributes,
    /// Set for this function and not for the library's kernel.
    own_attributes: bool,
    name: CString,
}

/// What can be set for a function.
#[derive(Debug, Clone, Copy)]
pub struct Attributes {
    static_shared: u32,
    /// Dynamic shared memory of a block at most.
    pub dynamic_shared: u32,
    carveout: i32,
    cluster: [i32; 3],
    pub large_clusters: bool,
    scheduling: i32,
}

impl Attributes {
    /// Without opting in, a block has 48 KiB for static and dynamic shared memory together.
    pub fn new(kernel: &Kernel, limits: &Limits) -> Self {
        let dynamic_shared = limits.shared_per_block.saturating_sub(kernel.static_shared);
        let (carveout, cluster, large_clusters, scheduling) = (-1, [0; 3], false, 0);
        Self { static_shared: kernel.static_shared, dynamic_shared, carveout, cluster, large_clusters, scheduling }
    }

    /// Static and dynamic shared memory together.
    pub fn shared_limit(&self) -> u32 {
        self.static_shared + self.dynamic_shared
    }

    /// Sets one of those that can be set.
    pub fn set(&mut self, limits: &Limits, name: u32, value: i32) -> Result<()> {
        let is = |attribute: Attribute| attribute as u32 == name;
        let cluster = Attribute::CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_WIDTH as u32;
        match name {
            _ if is(Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) => {
                let most = limits.shared_per_block_optin().saturating_sub(self.static_shared);
                let fits = u32::try_from(value).is_ok_and(|bytes| bytes <= most);
                ensure!(
                    fits,
                    CUDA_ERROR_INVALID_VALUE,
                    "{value} bytes of dynamic shared memory: with {} static ones at most {most}",
                    self.static_shared
                );
                self.dynamic_shared = value as u32;
            }
            _ if is(Attribute::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT) => {
                ensure!((-1..=100).contains(&value), CUDA_ERROR_INVALID_VALUE, "a carveout of {value} percent");
                self.carveout = value;
            }
            _ if (cluster..cluster + 3).contains(&name) => {
                ensure!((0..=16).contains(&value), CUDA_ERROR_INVALID_CLUSTER_SIZE, "a cluster of {value} blocks");
                self.cluster[(name - cluster) as usize] = value;
            }
            _ if is(Attribute::CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED) => self.large_clusters = value != 0,
            _ if is(Attribute::CU_FUNC_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE) => self.scheduling = value,
            _ => return Err(CUDA_ERROR_INVALID_VALUE.because(format!("function attribute {name} cannot be set"))),
        }
        Ok(())
    }

    /// The cluster that a launch has without saying so.
    pub fn cluster(&self) -> Option<[u32; 3]> {
        self.cluster.iter().all(|&n| n > 0).then(|| self.cluster.map(|n| n as u32))
    }
}

impl Function {
    pub fn new(module: Handle, kernel: Arc<Kernel>, limits: &Limits) -> Self {
        let name = CString::new(kernel.name.as_str()).unwrap_or_default();
        let attributes = Attributes::new(&kernel, limits);
        Self { module, kernel, attributes, own_attributes: false, name }
    }

    /// Takes over what was set for a library's kernel, unless something was set for the function itself.
    pub fn adopt(&mut self, attributes: Attributes) {
        if !self.own_attributes {
            self.attributes = attributes;
        }
    }

    /// Threads of a block at most.
    pub fn max_threads(&self, limits: &Limits) -> u32 {
        self.kernel.max_threads.unwrap_or(limits.threads_per_block).min(limits.threads_per_block)
    }

    /// Registers of a thread: an estimate from the PTX, not more than let a full block run.
    pub fn registers(&self, limits: &Limits) -> u32 {
        let share = limits.registers_per_multiprocessor / self.max_threads(limits).next_multiple_of(32);
        self.kernel.registers.clamp(16, limits.registers_per_thread).min(share / 8 * 8)
    }
}

impl Driver {
    pub fn function_attribute(&self, handle: Handle, name: u32) -> Result<i32> {
        let function = find(&self.functions, "function", handle)?;
        let Function { kernel, attributes, .. } = function;
        let module = find(&self.modules, "module", function.module)?;
        let is = |attribute: Attribute| attribute as u32 == name;
        let cluster = Attribute::CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_WIDTH as u32;
        Ok(match name {
            _ if is(Attribute::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK) => function.max_threads(&self.limits) as i32,
            _ if is(Attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES) => kernel.static_shared as i32,
            _ if is(Attribute::CU_FUNC_ATTRIBUTE_CONST_SIZE_BYTES) => self.constant_bytes(function.module) as i32,
            _ if is(Attribute::CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES) => kernel.local_bytes as i32,
            _ if is(Attribute::CU_FUNC_ATTRIBUTE_NUM_REGS) => function.registers(&self.limits) as i32,
            _ if is(Attribute::CU_FUNC_ATTRIBUTE_PTX_VERSION) => module.ptx_version,
            _ if is(Attribute::CU_FUNC_ATTRIBUTE_BINARY_VERSION) => {
                (10 * self.settings.arch.major + self.settings.arch.minor) as i32
            }
            _ if is(Attribute::CU_FUNC_ATTRIBUTE_CACHE_MODE_CA) => 0,
            _ if is(Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) => attributes.dynamic_shared as i32,
            _ if is(Attribute::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT) => attributes.carveout,
            _ if is(Attribute::CU_FUNC_ATTRIBUTE_CLUSTER_SIZE_MUST_BE_SET) => 0,
            _ if (cluster..cluster + 3).contains(&name) => attributes.cluster[(name - cluster) as usize],
            _ if is(Attribute::CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED) => attributes.large_clusters.into(),
            _ if is(Attribute::CU_FUNC_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE) => attributes.scheduling,
            _ => return Err(CUDA_ERROR_INVALID_VALUE.because(format!("function attribute {name} is unknown"))),
        })
    }

    fn constant_bytes(&self, module: Handle) -> u64 {
        let globals = self.modules.get(&module).map(|module| module.code.globals.as_slice()).unwrap_or_default();
        let constants = globals.iter().filter(|g| self.memory.find(g.address).is_some_and(|a| a.read_only));
        constants.map(|global| global.size).sum()
    }

    /// A function of a context that is well.
    pub fn healthy_function(&self, handle: Handle) -> Result<(&Function, Handle)> {
        let function = find(&self.functions, "function", handle)?;
        let context = find(&self.modules, "module", function.module)?.context;
        Ok((function, self.healthy(context)?))
    }
}

/// Where a parameter lies in the parameter block.
pub fn param_info(driver: &Driver, function: Handle, index: usize, offset: Out<usize>, size: Out<usize>) -> Result<()> {
    let (function, _) = driver.healthy_function(function)?;
    let params = &function.kernel.params;
    let Some(param) = params.get(index) else {
        return Err(CUDA_ERROR_INVALID_VALUE.because(format!("parameter {index} of {}", params.len())));
    };
    offset.set(param.offset as usize)?;
    size.set_if_wanted(param.size as usize);
    Ok(())
}

exports! {
    fn cuFuncGetAttribute(out: Out<i32>, name: u32, function: Handle) {
        let mut driver = driver::lock()?;
        let function = driver.function_or_kernel(function)?;
        driver.healthy_function(function)?;
        out.set(driver.function_attribute(function, name)?)?;
    }

    fn cuFuncSetAttribute(function: Handle, name: u32, value: i32) {
        let mut driver = driver::lock()?;
        let function = driver.function_or_kernel(function)?;
        driver.healthy_function(function)?;
        let limits = driver.limits;
        let function = find_mut(&mut driver.functions, "function", function)?;
        function.attributes.set(&limits, name, value)?;
        function.own_attributes = true;
    }

    fn cuFuncSetCacheConfig(function: Handle, config: u32) {
        let mut driver = driver::lock()?;
        let function = driver.function_or_kernel(function)?;
        driver.healthy_function(function)?;
        ensure!(config <= 3, CUDA_ERROR_INVALID_VALUE, "cache configuration {config} is unknown");
    }

    fn cuFuncSetSharedMemConfig(function: Handle, config: u32) {
        let mut driver = driver::lock()?;
        let function = driver.function_or_kernel(function)?;
        driver.healthy_function(function)?;
        ensure!(config <= 2, CUDA_ERROR_INVALID_VALUE, "shared memory configuration {config} is unknown");
    }

    fn cuFuncGetModule(out: Out<Handle>, function: Handle) {
        let mut driver = driver::lock()?;
        let function = driver.function_or_kernel(function)?;
        out.set(driver.healthy_function(function)?.0.module)?;
    }

    fn cuFuncGetName(out: Out<Text>, function: Handle) {
        let mut driver = driver::lock()?;
        let function = driver.function_or_kernel(function)?;
        out.set(Text::from(driver.healthy_function(function)?.0.name.as_c_str()))?;
    }

    fn cuFuncGetParamInfo(function: Handle, index: usize, offset: Out<usize>, size: Out<usize>) {
        let mut driver = driver::lock()?;
        let function = driver.function_or_kernel(function)?;
        param_info(&driver, function, index, offset, size)?;
    }

    fn cuFuncIsLoaded(out: Out<u32>, function: Handle) {
        let mut driver = driver::lock()?;
        let function = driver.function_or_kernel(function)?;
        driver.healthy_function(function)?;
        out.set(CU_FUNCTION_LOADING_STATE_LOADED as u32)?;
    }

    fn cuFuncLoad(function: Handle) {
        let mut driver = driver::lock()?;
        let function = driver.function_or_kernel(function)?;
        driver.healthy_function(function)?;
    }
}
