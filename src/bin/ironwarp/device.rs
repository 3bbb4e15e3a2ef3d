//! Choosing a device and a model on it.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result, anyhow, bail};
use ironwarp::cpu::Cpu;
#[cfg(feature = "cuda")]
use ironwarp::cuda::Cuda;
use ironwarp::model::arena::Arena;
use ironwarp::model::config::Config;
use ironwarp::model::plan::MemoryPlan;
use ironwarp::model::{Gpt2, params::HostWeights};
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

impl Device {
    /// The backend that runs a model. As the CUDA backend lacks operations of it, that is the CPU's.
    pub fn backend(self) -> Result<Cpu<f32>> {
        match self {
            Device::Cpu | Device::Auto => {}
            Device::Cuda(_) | Device::Emulated => {
                match self.gpu().map_err(|why| anyhow!("{why}; --device cpu works"))? {
                    Some(gpu) => bail!("{gpu} is there, but {}; --device cpu works", lacking()),
                    None => bail!(
                        "this build has no CUDA backend, so neither a GPU nor the emulated one can be used; --device cpu works"
                    ),
                }
            }
        }
        Ok(Cpu::new())
    }

    /// What `auto` has come to, and why, in words; nothing where there was no choice.
    pub fn choice(self) -> Option<String> {
        if self != Device::Auto {
            return None;
        }
        match self.gpu() {
            Ok(gpu) => gpu.map(|gpu| format!("device cpu: {gpu} is there, but {}", lacking())),
            Err(why) => Some(format!("device cpu: {why}")),
        }
    }

    /// The GPU that this means; none in a build without CUDA, or for the CPU.
    #[cfg(feature = "cuda")]
    pub fn gpu(self) -> Result<Option<Gpu>> {
        let cuda = match self {
            Device::Cpu => return Ok(None),
            Device::Auto => Cuda::new(0)?,
            Device::Cuda(ordinal) => Cuda::new(ordinal)?,
            Device::Emulated => Cuda::emulated()?,
        };
        let gpu = cuda.device().properties();
        let (major, minor) = gpu.capability;
        Ok(Some(Gpu {
            name: gpu.name.clone(),
            ordinal: gpu.ordinal,
            compute_capability: format!("{major}.{minor}"),
            multiprocessors: gpu.multiprocessors,
            memory_bytes: gpu.memory,
            driver: gpu.driver.clone(),
        }))
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

/// Why a model does not run on the CUDA backend.
fn lacking() -> String {
    #[cfg(feature = "cuda")]
    let missing = ironwarp::cuda::MISSING.join(", ");
    #[cfg(not(feature = "cuda"))]
    let missing = "any operation";
    format!("the CUDA backend cannot run a model yet: it has no kernels for {missing}")
}

/// Refuses a training that this machine has not the memory for, before anything is allocated: an operating system may
/// promise the memory, and then stand still when it is used.
///
/// `held` bytes of the plan are in memory already.
pub fn check_memory(plan: &MemoryPlan, held: u64) -> Result<()> {
    let Some(available) = available_memory() else { return Ok(()) };
    let total = plan.total();
    if total.saturating_sub(held) <= available {
        return Ok(());
    }
    let size = output::bytes;
    bail!(
        "out of memory: the run needs {}, and {} are available (weights {}, gradients {}, moments {}, activations {}); \
         lower --batch or --context, or use --recompute",
        size(total),
        size(available),
        size(plan.weights.saturating_add(plan.master)),
        size(plan.gradients),
        size(plan.moments),
        size(plan.activations.saturating_add(plan.activation_gradients)),
    );
}

/// Bytes that can be had without swapping, where the system tells.
fn available_memory() -> Option<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

/// A model of a folder, ready to run.
pub struct Model {
    backend: Cpu<f32>,
    pub config: Config,
    pub tokenizer: Tokenizer,
    params: Arena<Cpu<f32>, f32>,
}

impl Model {
    /// Loads a run, a checkpoint or a Hugging Face folder onto a device.
    pub fn load(dir: &Path, tokenizer: Option<&str>, device: Device) -> Result<Self> {
        let backend = device.backend()?;
        let (HostWeights { config, layout, data }, named) = load_model_folder(dir)?;
        let tokenizer = choose_tokenizer(tokenizer.or(named.as_deref()), &config)
            .with_context(|| format!("model {}", dir.display()))?;
        let params = Arena::from_f32(&backend, &layout, data)?;
        Ok(Model { backend, config, tokenizer, params })
    }

    pub fn gpt2(&self) -> Gpt2<'_, Cpu<f32>> {
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
