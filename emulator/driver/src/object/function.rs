//! Functions: kernels of a module with their attributes.

use std::ffi::CString;
use std::sync::Arc;

use cudarc::driver::sys::CUfunction_attribute as Attribute;
use cudarc::driver::sys::CUresult::{CUDA_ERROR_INVALID_CLUSTER_SIZE, CUDA_ERROR_INVALID_VALUE};
use ptx_emulator::{Kernel, Limits};

use crate::boundary::Handle;
use crate::error::{Because, Result, ensure};

/// A function.
#[derive(Debug)]
pub struct Function {
    pub module: Handle,
    pub kernel: Arc<Kernel>,
    pub attributes: Attributes,
    /// Whether an attribute was set for this function itself, not only for the library's kernel.
    pub own_attributes: bool,
    pub name: CString,
}

/// The attributes of a function that can be set.
#[derive(Debug, Clone, Copy)]
pub struct Attributes {
    pub static_shared: u32,
    /// The most bytes of dynamic shared memory of a block.
    pub dynamic_shared: u32,
    pub carveout: i32,
    pub cluster: [i32; 3],
    pub large_clusters: bool,
    pub scheduling: i32,
}

impl Attributes {
    /// The defaults: a block has 48 KiB for static and dynamic shared memory together.
    pub fn new(kernel: &Kernel, limits: &Limits) -> Self {
        let dynamic_shared = limits.shared_per_block.saturating_sub(kernel.static_shared);
        let (carveout, cluster, large_clusters, scheduling) = (-1, [0; 3], false, 0);
        Self { static_shared: kernel.static_shared, dynamic_shared, carveout, cluster, large_clusters, scheduling }
    }

    /// The most bytes of static and dynamic shared memory together.
    pub fn shared_limit(&self) -> u32 {
        self.static_shared + self.dynamic_shared
    }

    /// Sets an attribute.
    ///
    /// # Errors
    /// The attribute is unknown or cannot be set, or the value is out of range.
    pub fn set(&mut self, limits: &Limits, name: u32, value: i32) -> Result<()> {
        let is = |attribute: Attribute| attribute as u32 == name;
        let cluster = Attribute::CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_WIDTH as u32;
        match name {
            _ if is(Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) => {
                let limit = limits.shared_per_block_optin().saturating_sub(self.static_shared);
                let fits = u32::try_from(value).is_ok_and(|bytes| bytes <= limit);
                ensure!(
                    fits,
                    CUDA_ERROR_INVALID_VALUE,
                    "{value} bytes of dynamic shared memory: with {} bytes of static shared memory at most {limit}",
                    self.static_shared
                );
                self.dynamic_shared = value as u32;
            }
            _ if is(Attribute::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT) => {
                ensure!(
                    (-1..=100).contains(&value),
                    CUDA_ERROR_INVALID_VALUE,
                    "a carveout of {value} percent is not valid"
                );
                self.carveout = value;
            }
            _ if (cluster..cluster + 3).contains(&name) => {
                ensure!(
                    (0..=16).contains(&value),
                    CUDA_ERROR_INVALID_CLUSTER_SIZE,
                    "a cluster extent of {value} blocks is not valid"
                );
                self.cluster[(name - cluster) as usize] = value;
            }
            _ if is(Attribute::CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED) => self.large_clusters = value != 0,
            _ if is(Attribute::CU_FUNC_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE) => self.scheduling = value,
            _ => return Err(CUDA_ERROR_INVALID_VALUE.because(format!("function attribute {name} cannot be set"))),
        }
        Ok(())
    }

    /// The cluster of a launch that does not specify one.
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

    /// Takes over the attributes of a library's kernel, unless one was set for the function itself.
    pub fn adopt(&mut self, attributes: Attributes) {
        if !self.own_attributes {
            self.attributes = attributes;
        }
    }

    /// The most threads of a block.
    pub fn max_threads(&self, limits: &Limits) -> u32 {
        self.kernel.max_threads.unwrap_or(limits.threads_per_block).min(limits.threads_per_block)
    }

    /// Registers of a thread: an estimate from the PTX, limited so that a block of the largest size can run.
    pub fn registers(&self, limits: &Limits) -> u32 {
        let share = limits.registers_per_multiprocessor / self.max_threads(limits).next_multiple_of(32);
        self.kernel.registers.clamp(16, limits.registers_per_thread).min(share / 8 * 8)
    }
}
