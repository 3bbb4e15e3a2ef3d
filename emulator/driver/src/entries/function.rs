//! Functions: kernels of a module with their attributes.

use cudarc::driver::sys::CUfunction_attribute as Attribute;
use cudarc::driver::sys::CUfunctionLoadingState::CU_FUNCTION_LOADING_STATE_LOADED;
use cudarc::driver::sys::CUresult::CUDA_ERROR_INVALID_VALUE;

use crate::boundary::{Handle, Out, Text};
use crate::driver::{self, Driver, find, find_mut};
use crate::error::{Because, Result, ensure};
use crate::export::exports;
use crate::object::function::Function;

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

    /// A function and its context, which must have no error.
    pub fn healthy_function(&self, handle: Handle) -> Result<(&Function, Handle)> {
        let function = find(&self.functions, "function", handle)?;
        let context = find(&self.modules, "module", function.module)?.context;
        Ok((function, self.healthy(context)?))
    }
}

/// Writes the offset and the size of a parameter in the parameter block.
pub fn param_info(driver: &Driver, function: Handle, index: usize, offset: Out<usize>, size: Out<usize>) -> Result<()> {
    let (function, _) = driver.healthy_function(function)?;
    let params = &function.kernel.params;
    let Some(param) = params.get(index) else {
        return Err(CUDA_ERROR_INVALID_VALUE
            .because(format!("parameter {index} does not exist: the function has {}", params.len())));
    };
    offset.set(param.offset as usize)?;
    size.set_optional(param.size as usize);
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
