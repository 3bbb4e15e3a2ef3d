//! One launch of a trial kernel: its shape, its arguments and its expected outputs.

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
    /// The special case that this shape tests.
    pub purpose: &'static str,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub dynamic_shared: u32,
    pub args: Vec<Arg>,
}

/// An argument. Every run allocates its buffers anew; findings call them by these names.
#[derive(Debug, Clone)]
pub enum Arg {
    U32(u32),
    U64(u64),
    /// A buffer that the kernel reads.
    In(&'static str, Vec<u8>),
    /// A buffer that is uninitialised before the launch and that the kernel writes completely.
    Out(&'static str, Expected),
    /// A buffer that the kernel reads and writes.
    InOut(&'static str, Vec<u8>, Expected),
    /// A buffer of the given size, of which only the first bytes are initialised.
    Partial(&'static str, u64, Vec<u8>),
    /// A buffer of the given size that has been freed.
    Freed(&'static str, u64),
    /// The address of a variable of the module.
    Variable(&'static str),
}

/// The expected contents of a buffer after the launch.
#[derive(Debug, Clone)]
pub enum Expected {
    Bytes(Vec<u8>),
    /// f32 values, each within its tolerance.
    Floats {
        values: Vec<f64>,
        tolerances: Vec<f64>,
    },
    /// A buffer of the given size with any contents; they only must be the same in every run.
    Anything(u64),
}

/// The bytes of numbers, as they are in memory.
pub fn bytes_of<T: Number>(numbers: &[T]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.bytes()).collect()
}

/// A type of the elements of buffers.
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

impl Expected {
    /// Exactly the bits of `numbers`.
    pub fn exactly<T: Number>(numbers: &[T]) -> Expected {
        Expected::Bytes(bytes_of(numbers))
    }

    fn size(&self) -> u64 {
        match self {
            Expected::Bytes(bytes) => bytes.len() as u64,
            Expected::Floats { values, .. } => 4 * values.len() as u64,
            Expected::Anything(size) => *size,
        }
    }

    /// Describes the first difference between `actual` and the expected contents.
    fn compare(&self, actual: &[u8]) -> Option<String> {
        match self {
            Expected::Anything(_) => None,
            Expected::Bytes(expected) => {
                let at = expected.iter().zip(actual).position(|(expected, actual)| expected != actual)?;
                Some(format!("byte {at} is {:#04x}, not {:#04x}", actual[at], expected[at]))
            }
            Expected::Floats { values, tolerances } => {
                let actual = actual.chunks_exact(4).map(|c| f64::from(f32::from_le_bytes([c[0], c[1], c[2], c[3]])));
                let mut all = actual.zip(values).zip(tolerances).enumerate();
                let (i, ((actual, expected), tolerance)) = all.find(|(_, ((actual, expected), tolerance))| {
                    let error = (actual - **expected).abs();
                    error.is_nan() || error > **tolerance
                })?;
                Some(format!("element {i} is {actual}, not {expected} ± {tolerance:e}"))
            }
        }
    }
}

/// The outputs of a launch that ran to its end.
#[derive(Debug, Clone)]
pub struct Done {
    /// The buffers that it wrote, with their indices among the arguments.
    pub outputs: Vec<(usize, Vec<u8>)>,
    pub counts: Counts,
}

impl Done {
    /// The bytes of all outputs.
    pub fn bits(&self) -> Vec<u8> {
        self.outputs.iter().flat_map(|(_, bytes)| bytes.iter().copied()).collect()
    }
}

/// The reason why a case did not run to its end.
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

    /// Allocates the buffers of a case, launches the kernel and reads the outputs.
    ///
    /// # Errors
    /// [`Failure::Launch`].
    ///
    /// # Panics
    /// If the module has no such kernel or variable, or if the device is out of memory.
    pub fn run(&self, kernel: &str, case: &Case, settings: &Settings) -> Result<Done, Failure> {
        let kernel = self.module.kernel(kernel).unwrap_or_else(|| panic!("no kernel {kernel}"));
        let mut params = Vec::new();
        let mut buffers = Vec::new();
        for (index, arg) in case.args.iter().enumerate() {
            let bytes = match arg {
                Arg::U32(value) => value.to_le_bytes().to_vec(),
                Arg::U64(value) => value.to_le_bytes().to_vec(),
                _ => {
                    let address = self.allocate(arg);
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
            if let Arg::Out(_, expected) | Arg::InOut(_, _, expected) = &case.args[index] {
                let mut bytes = vec![0; expected.size() as usize];
                self.memory.read(address, &mut bytes).expect("the whole of a buffer");
                outputs.push((index, bytes));
            }
            if !matches!(case.args[index], Arg::Freed(..) | Arg::Variable(_)) {
                self.memory.free(address).expect("a buffer of this call");
            }
        }
        Ok(Done { outputs, counts: counts.map_err(Failure::Launch)? })
    }

    /// The address of a buffer or variable; buffers are allocated and filled.
    fn allocate(&self, arg: &Arg) -> u64 {
        let buffer = |name: &str, size: u64, bytes: &[u8]| {
            let label = Some(format!("`{name}`"));
            let address = self.memory.allocate_as(size, label, false).expect("enough device memory").base;
            self.memory.write(address, bytes).expect("the bytes fit the buffer");
            address
        };
        match arg {
            Arg::U32(_) | Arg::U64(_) => unreachable!("numbers take no memory"),
            Arg::In(name, bytes) => buffer(name, bytes.len() as u64, bytes),
            Arg::Out(name, expected) => buffer(name, expected.size(), &[]),
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
    /// Compares the outputs with the expected ones.
    ///
    /// # Errors
    /// The first difference: buffer, position, actual and expected value.
    pub fn compare(&self, done: &Done) -> Result<(), String> {
        for (index, bytes) in &done.outputs {
            if let Arg::Out(name, expected) | Arg::InOut(name, _, expected) = &self.args[*index]
                && let Some(difference) = expected.compare(bytes)
            {
                return Err(format!("`{name}`: {difference}"));
            }
        }
        Ok(())
    }
}
