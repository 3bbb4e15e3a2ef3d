//! Choosing a device and a model on it.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result, anyhow, bail};
use ironwarp::cpu::Cpu;
#[cfg(feature = "cuda")]
use ironwarp::cuda::Cuda;
use ironwarp::memory::Category;
use ironwarp::model::arena::Arena;
use ironwarp::model::config::Config;
use ironwarp::model::plan::MemoryPlan;
use ironwarp::model::{Gpt2, params::HostWeights};
use ironwarp::ops::Backend;
use ironwarp::text::tokenizer::Tokenizer;
use ironwarp::train::checkpoint::load_model_folder;

use crate::output;

/// `--device`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// A GPU if there is one, else the CPU.
    Auto,
    /// The CPU backend in f32.
    Cpu,
    /// A GPU by index.
    Cuda(usize),
    /// The emulated GPU.
    Emulated,
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Device::Auto),
            "cpu" => Ok(Device::Cpu),
            "cuda" => Ok(Device::Cuda(0)),
            "emulated" => Ok(Device::Emulated),
            _ => match text.strip_prefix("cuda:").map(str::parse) {
                Some(Ok(index)) => Ok(Device::Cuda(index)),
                _ => Err("one of auto, cpu, cuda, cuda:0, cuda:1, …, emulated".into()),
            },
        }
    }
}

/// A backend that models run on.
pub trait Runs: Backend {
    /// As `--device` has it.
    const NAME: &'static str;
    /// Where and in which precision, for a table's heading.
    const WHERE: &'static str;

    /// Bytes that a run can have, where that is known. `in_host` bytes of it are in host memory already.
    fn room(&self, in_host: u64) -> Option<u64>;

    /// The most bytes that were held at a time, where that is known.
    fn peak(&self) -> Option<u64> {
        None
    }
}

impl Runs for Cpu<f32> {
    const NAME: &'static str = "cpu";
    const WHERE: &'static str = "the CPU in f32";

    fn room(&self, in_host: u64) -> Option<u64> {
        available_memory().map(|available| available.saturating_add(in_host))
    }
}

#[cfg(feature = "cuda")]
impl Runs for Cuda {
    const NAME: &'static str = "cuda";
    const WHERE: &'static str = "a GPU in bf16 and f32";

    fn room(&self, _in_host: u64) -> Option<u64> {
        self.device().free_memory()
    }

    fn peak(&self) -> Option<u64> {
        Some(self.device().peak_memory())
    }
}

/// The backend that a [`Device`] has come to.
pub enum Opened {
    Cpu(Cpu<f32>),
    #[cfg(feature = "cuda")]
    Cuda(Cuda),
}

/// Does `$work` with `$backend` being the backend, of whichever type it is: an expression that is compiled once a type.
macro_rules! on_backend {
    ($opened:expr, $backend:ident => $work:expr) => {
        match $opened {
            $crate::device::Opened::Cpu($backend) => $work,
            #[cfg(feature = "cuda")]
            $crate::device::Opened::Cuda($backend) => $work,
        }
    };
}
pub(crate) use on_backend;

impl Device {
    /// The backend that runs a model; and for `auto` what that has come to, in words.
    pub fn open(self) -> Result<(Opened, Option<String>)> {
        if self == Device::Cpu {
            return Ok((Opened::Cpu(Cpu::new()), None));
        }
        #[cfg(feature = "cuda")]
        {
            let cpu = |why: String| Ok((Opened::Cpu(Cpu::new()), Some(format!("device cpu: {why}"))));
            match self.cuda() {
                Ok(cuda) if self != Device::Auto => Ok((Opened::Cuda(cuda), None)),
                Err(error) if self != Device::Auto => Err(anyhow!("{error}; --device cpu works")),
                Err(error) => cpu(error.to_string()),
                Ok(cuda) => match Gpu::of(&cuda) {
                    gpu if cuda.device().properties().is_emulated() => {
                        cpu(format!("{gpu} would be slower; --device emulated takes it"))
                    }
                    gpu => Ok((Opened::Cuda(cuda), Some(format!("device gpu: {gpu}")))),
                },
            }
        }
        #[cfg(not(feature = "cuda"))]
        {
            if self == Device::Auto {
                return Ok((Opened::Cpu(Cpu::new()), None));
            }
            bail!(
                "this build has no CUDA backend, so neither a GPU nor the emulated one can be used; --device cpu works"
            )
        }
    }

    /// The CUDA backend on the GPU that this means: for `auto` the first. Not to be asked of the CPU.
    #[cfg(feature = "cuda")]
    fn cuda(self) -> ironwarp::Result<Cuda> {
        match self {
            Device::Cpu | Device::Auto => Cuda::new(0),
            Device::Cuda(ordinal) => Cuda::new(ordinal),
            Device::Emulated => Cuda::emulated(),
        }
    }

    /// The GPU that this means; none in a build without CUDA, or for the CPU.
    #[cfg(feature = "cuda")]
    pub fn gpu(self) -> Result<Option<Gpu>> {
        Ok(if self == Device::Cpu { None } else { Some(Gpu::of(&self.cuda()?)) })
    }

    #[cfg(not(feature = "cuda"))]
    pub fn gpu(self) -> Result<Option<Gpu>> {
        Ok(None)
    }
}

/// A GPU, to be told of.
#[derive(Debug, serde::Serialize)]
pub struct Gpu {
    name: String,
    ordinal: usize,
    compute_capability: String,
    multiprocessors: usize,
    memory_bytes: u64,
    driver: String,
}

#[cfg(feature = "cuda")]
impl Gpu {
    fn of(cuda: &Cuda) -> Self {
        let gpu = cuda.device().properties();
        let (major, minor) = gpu.capability;
        Gpu {
            name: gpu.name.clone(),
            ordinal: gpu.ordinal,
            compute_capability: format!("{major}.{minor}"),
            multiprocessors: gpu.sm_count,
            memory_bytes: gpu.memory,
            driver: gpu.driver.clone(),
        }
    }
}

impl fmt::Display for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Gpu { name, ordinal, compute_capability, multiprocessors, memory_bytes, driver } = self;
        let memory = output::bytes(*memory_bytes);
        write!(
            f,
            "{name} (cuda:{ordinal}, compute capability {compute_capability}, {multiprocessors} multiprocessors, {memory}, \
             driver {driver})"
        )
    }
}

/// Refuses a training that the device has not the memory for, before anything is allocated: an operating system may
/// promise the memory, and then stand still when it is used.
pub fn check_memory<B: Runs>(backend: &B, plan: &MemoryPlan, in_host: u64) -> Result<()> {
    let Some(room) = backend.room(in_host) else { return Ok(()) };
    if plan.total() <= room {
        return Ok(());
    }
    // What a smaller batch would not change.
    let model = plan.weights.saturating_add(plan.master).saturating_add(plan.gradients).saturating_add(plan.moments);
    let lower = if model > room { Category::Weights } else { Category::Activations };
    bail!(
        "out of memory: the run needs {} ({}), and {} are available; {}",
        output::bytes(plan.total()),
        parts(plan),
        output::bytes(room),
        lower.advice(),
    );
}

/// What a plan's memory is for: `weights 1.5 GiB, gradients 480 MiB, …`.
pub fn parts(plan: &MemoryPlan) -> String {
    let parts = plan.parts().into_iter().filter(|(_, bytes)| *bytes > 0);
    parts.map(|(category, bytes)| format!("{category} {}", output::bytes(bytes))).collect::<Vec<_>>().join(", ")
}

/// Bytes that can be had without swapping, where the system tells.
fn available_memory() -> Option<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

/// A model of a folder, ready to run.
pub struct Model<B: Backend> {
    backend: B,
    pub config: Config,
    pub tokenizer: Tokenizer,
    params: Arena<B, B::Compute>,
}

impl<B: Backend> Model<B> {
    /// Loads a run, a checkpoint or a Hugging Face folder onto a device.
    pub fn load(dir: &Path, tokenizer: Option<&str>, backend: B) -> Result<Self> {
        let (HostWeights { config, layout, data }, named) = load_model_folder(dir)?;
        let tokenizer = choose_tokenizer(tokenizer.or(named.as_deref()), &config)
            .with_context(|| format!("model {}", dir.display()))?;
        backend.account_to(Category::Weights);
        let params = Arena::from_f32(&backend, &layout, data)?;
        backend.account_to(Category::Other);
        Ok(Model { backend, config, tokenizer, params })
    }

    pub fn gpt2(&self) -> Gpt2<'_, B> {
        Gpt2 { backend: &self.backend, config: &self.config, params: &self.params }
    }
}

/// The tokenizer of that name, or the one whose vocabulary the model has.
pub fn choose_tokenizer(name: Option<&str>, config: &Config) -> Result<Tokenizer> {
    if let Some(name) = name {
        let tokenizer = Tokenizer::by_name(name)?;
        if tokenizer.vocab() > config.vocab {
            let (has, room) = (tokenizer.vocab(), config.vocab);
            bail!("the tokenizer '{name}' has {has} tokens, more than the model's vocabulary of {room}");
        }
        return Ok(tokenizer);
    }
    let tokenizers = Tokenizer::NAMES.iter().filter_map(|name| Tokenizer::by_name(name).ok());
    match tokenizers.into_iter().find(|tokenizer| tokenizer.vocab() == config.vocab) {
        Some(tokenizer) => Ok(tokenizer),
        None => Err(anyhow!(
            "no tokenizer has its vocabulary of {}; choose one with --tokenizer ({})",
            config.vocab,
            Tokenizer::NAMES.join(", ")
        )),
    }
}
