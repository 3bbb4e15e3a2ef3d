//! One launch: its shape, its arguments, and what it must write.

use std::fmt;

use half::bf16;
use ptx_emulator::memory::Memory;
use ptx_emulator::observe::Counts;
use ptx_emulator::{Arch, Launch, LaunchError, Limits, LoadError, Module, Settings};

/// A launch of a kernel.
#[derive(Debug, Clone)]
pub struct Case {
    /// `rows 3, columns 100`
    pub shape: String,
    /// What the shape is there for.
    pub why: &'static str,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub dynamic_shared: u32,
    pub args: Vec<Arg>,
}

/// An argument. Buffers are freshly allocated, and named so in findings.
#[derive(Debug, Clone)]
pub enum Arg {
    U32(u32),
    U64(u64),
    /// What the kernel reads.
    In(&'static str, Vec<u8>),
    /// What the kernel writes all of: nothing is there before.
    Out(&'static str, Want),
    /// What the kernel changes.
    InOut(&'static str, Vec<u8>, Want),
    /// A buffer of so many bytes, the first of which are written.
    Partial(&'static str, u64, Vec<u8>),
    /// A buffer that was freed.
    Freed(&'static str, u64),
    /// The address of a variable of the module.
    Variable(&'static str),
}

/// What a buffer must hold afterwards.
#[derive(Debug, Clone)]
pub enum Want {
    Bytes(Vec<u8>),
    /// f32, each within its tolerance.
    Floats {
        values: Vec<f64>,
        tolerances: Vec<f64>,
    },
    /// So many bytes, of which only their being the same every time is asked.
    Anything(u64),
}

/// The bytes of numbers, as they lie in memory.
pub fn bytes_of<T: Number>(numbers: &[T]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.bytes()).collect()
}

/// Numbers that kernels work on.
pub trait Number {
    fn bytes(&self) -> Vec<u8>;
}

macro_rules! number {
    ($($ty:ty),*) => {
        $(impl Number for $ty {
            fn bytes(&self) -> Vec<u8> {
                self.to_le_bytes().to_vec()
            }
        })*
    };
}

number!(u8, u32, u64, i32, f32, bf16);

impl Want {
    /// The very bits of some numbers.
    pub fn exactly<T: Number>(numbers: &[T]) -> Want {
        Want::Bytes(bytes_of(numbers))
    }

    fn size(&self) -> u64 {
        match self {
            Want::Bytes(bytes) => bytes.len() as u64,
            Want::Floats { values, .. } => 4 * values.len() as u64,
            Want::Anything(size) => *size,
        }
    }

    /// The first difference, in words.
    fn compare(&self, have: &[u8]) -> Option<String> {
        match self {
            Want::Anything(_) => None,
            Want::Bytes(want) => {
                let at = want.iter().zip(have).position(|(want, have)| want != have)?;
                Some(format!("byte {at} is {:#04x}, not {:#04x}", have[at], want[at]))
            }
            Want::Floats { values, tolerances } => {
                let have = have.chunks_exact(4).map(|c| f64::from(f32::from_le_bytes([c[0], c[1], c[2], c[3]])));
                let mut all = have.zip(values).zip(tolerances).enumerate();
                let (i, ((have, want), tolerance)) = all.find(|(_, ((have, want), tolerance))| {
                    let error = (have - **want).abs();
                    error.is_nan() || error > **tolerance
                })?;
                Some(format!("element {i} is {have}, not {want} ± {tolerance:e}"))
            }
        }
    }
}

/// What a launch left behind.
#[derive(Debug, Clone)]
pub struct Done {
    /// The buffers that it wrote, by their place among the arguments.
    pub outputs: Vec<(usize, Vec<u8>)>,
    pub counts: Counts,
}

impl Done {
    /// All that it wrote.
    pub fn bits(&self) -> Vec<u8> {
        self.outputs.iter().flat_map(|(_, bytes)| bytes.iter().copied()).collect()
    }
}

/// Why a case did not run to the end.
#[derive(Debug)]
pub enum Failure {
    Load(LoadError),
    Launch(LaunchError),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Load(error) => error.fmt(f),
            Failure::Launch(error) => error.fmt(f),
        }
    }
}

/// A device with a module loaded.
#[derive(Debug)]
pub struct Device {
    memory: Memory,
    limits: Limits,
    module: Module,
}

impl Device {
    /// Loads PTX into a new device of compute capability 8.0.
    ///
    /// # Errors
    /// [`Failure::Load`].
    pub fn load(ptx: &str) -> Result<Self, Failure> {
        let memory = Memory::new(1 << 30);
        let limits = Arch::SM_80.limits().expect("8.0 is emulated");
        let module = Module::load(ptx, Arch::SM_80, &memory).map_err(Failure::Load)?;
        Ok(Self { memory, limits, module })
    }

    /// Runs a case of a kernel, from its inputs to its outputs.
    ///
    /// # Errors
    /// [`Failure::Launch`].
    ///
    /// # Panics
    /// If there is no such kernel, variable, or room.
    pub fn run(&self, kernel: &str, case: &Case, settings: &Settings) -> Result<Done, Failure> {
        let kernel = self.module.kernel(kernel).unwrap_or_else(|| panic!("no kernel {kernel}"));
        let mut params = Vec::new();
        let mut buffers = Vec::new();
        for (index, arg) in case.args.iter().enumerate() {
            let bytes = match arg {
                Arg::U32(value) => value.to_le_bytes().to_vec(),
                Arg::U64(value) => value.to_le_bytes().to_vec(),
                _ => {
                    let address = self.place(arg);
                    buffers.push((index, address));
                    address.to_le_bytes().to_vec()
                }
            };
            params.resize(params.len().next_multiple_of(bytes.len()), 0);
            params.extend(bytes);
        }
        let launch = Launch {
            kernel,
            grid: case.grid,
            block: case.block,
            cluster: [1; 3],
            dynamic_shared: case.dynamic_shared,
            shared_limit: self.limits.shared_per_block_optin(),
            params: &params,
        };
        let counts = launch.run(&self.memory, &self.limits, settings);
        let mut outputs = Vec::new();
        for (index, address) in buffers {
            if let Arg::Out(_, want) | Arg::InOut(_, _, want) = &case.args[index] {
                let mut bytes = vec![0; want.size() as usize];
                self.memory.read(address, &mut bytes).expect("the whole of a buffer");
                outputs.push((index, bytes));
            }
            if !matches!(case.args[index], Arg::Freed(..) | Arg::Variable(_)) {
                self.memory.free(address).expect("a buffer of this call");
            }
        }
        Ok(Done { outputs, counts: counts.map_err(Failure::Launch)? })
    }

    fn place(&self, arg: &Arg) -> u64 {
        let buffer = |name: &str, size: u64, bytes: &[u8]| {
            let label = Some(format!("`{name}`"));
            let address = self.memory.allocate_as(size, label, false).expect("room").base;
            self.memory.write(address, bytes).expect("fits");
            address
        };
        match arg {
            Arg::U32(_) | Arg::U64(_) => unreachable!("numbers take no memory"),
            Arg::In(name, bytes) => buffer(name, bytes.len() as u64, bytes),
            Arg::Out(name, want) => buffer(name, want.size(), &[]),
            Arg::InOut(name, before, _) => buffer(name, before.len() as u64, before),
            Arg::Partial(name, size, bytes) => buffer(name, *size, bytes),
            Arg::Freed(name, size) => {
                let address = buffer(name, *size, &[]);
                self.memory.free(address).expect("just allocated");
                address
            }
            Arg::Variable(name) => self.module.global(name).unwrap_or_else(|| panic!("no variable {name}")).address,
        }
    }
}

impl Case {
    /// The first difference from what the case must write.
    ///
    /// # Errors
    /// Buffer, place and both values.
    pub fn compare(&self, done: &Done) -> Result<(), String> {
        for (index, bytes) in &done.outputs {
            if let Arg::Out(name, want) | Arg::InOut(name, _, want) = &self.args[*index]
                && let Some(difference) = want.compare(bytes)
            {
                return Err(format!("`{name}`: {difference}"));
            }
        }
        Ok(())
    }
}
