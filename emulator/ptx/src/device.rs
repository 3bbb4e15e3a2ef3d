//! The limits of devices by architecture.

/// A compute capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Arch {
    pub major: u32,
    pub minor: u32,
}

impl Arch {
    /// Turing: T4. The project's kernels do not run on it; tests use it to check that programs refuse such a device.
    pub const SM_75: Arch = Arch { major: 7, minor: 5 };
    /// Ampere: A100.
    pub const SM_80: Arch = Arch { major: 8, minor: 0 };
    /// Hopper: H100, H200.
    pub const SM_90: Arch = Arch { major: 9, minor: 0 };

    /// The limits of the architecture's data-centre GPU; `None` for an architecture that is not emulated.
    pub fn limits(self) -> Option<Limits> {
        match self {
            Arch::SM_75 => Some(Limits {
                multiprocessors: 40,
                shared_per_multiprocessor: 64 << 10,
                shared_reserved: 0,
                threads_per_multiprocessor: 1024,
                blocks_per_multiprocessor: 16,
                ..Limits::COMMON
            }),
            Arch::SM_80 => {
                Some(Limits { multiprocessors: 108, shared_per_multiprocessor: 164 << 10, ..Limits::COMMON })
            }
            Arch::SM_90 => {
                Some(Limits { multiprocessors: 132, shared_per_multiprocessor: 228 << 10, ..Limits::COMMON })
            }
            _ => None,
        }
    }
}

/// Limits of a device. Sizes are in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub multiprocessors: u32,
    pub threads_per_block: u32,
    pub block: [u32; 3],
    pub grid: [u32; 3],
    /// Shared memory of a block that does not opt in to more.
    pub shared_per_block: u32,
    pub shared_per_multiprocessor: u32,
    /// Shared memory that the system reserves per block.
    pub shared_reserved: u32,
    pub registers_per_multiprocessor: u32,
    pub registers_per_thread: u32,
    pub threads_per_multiprocessor: u32,
    pub blocks_per_multiprocessor: u32,
    pub parameter_bytes: u32,
}

impl Limits {
    const COMMON: Limits = Limits {
        multiprocessors: 0,
        threads_per_block: 1024,
        block: [1024, 1024, 64],
        grid: [i32::MAX as u32, 65535, 65535],
        shared_per_block: 48 << 10,
        shared_per_multiprocessor: 0,
        shared_reserved: 1024,
        registers_per_multiprocessor: 65536,
        registers_per_thread: 255,
        threads_per_multiprocessor: 2048,
        blocks_per_multiprocessor: 32,
        parameter_bytes: 4096,
    };

    /// Shared memory of a block that opts in to the maximum.
    pub fn shared_per_block_optin(&self) -> u32 {
        self.shared_per_multiprocessor - self.shared_reserved
    }
}
