//! The configuration of a launch.

use cudarc::driver::sys::CUlaunchAttributeID as Name;
use cudarc::driver::sys::CUresult::CUDA_ERROR_NOT_SUPPORTED;

use crate::boundary::{LaunchAttribute, LaunchConfig};
use crate::error::{Because, Result};

/// The grid, the blocks and the attributes of a launch.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub dynamic_shared: u32,
    pub cluster: Option<[u32; 3]>,
    pub cooperative: bool,
}

impl Shape {
    pub fn new(grid: [u32; 3], block: [u32; 3], dynamic_shared: u32) -> Self {
        Self { grid, block, dynamic_shared, cluster: None, cooperative: false }
    }

    /// Reads a configuration. Every attribute is obeyed, is known to have no effect in the emulator, or is refused.
    pub fn from_config(config: &LaunchConfig) -> Result<Self> {
        let mut shape = Self::new(config.grid, config.block, config.dynamic_shared);
        for attribute in config.attributes.list(config.attribute_count as usize)? {
            shape.apply(&attribute)?;
        }
        Ok(shape)
    }

    pub fn apply(&mut self, attribute: &LaunchAttribute) -> Result<()> {
        let name = attribute.name;
        let is = |known: Name| known as u32 == name;
        // Caching does not affect results, every block sees all memory, and the order within a stream is always kept.
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
