//! Selection of the device, and models on it.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result, anyhow, bail};
use ironwarp::cpu::Cpu;
#[cfg(feature = "cuda")]
use ironwarp::cuda::Cuda;
use ironwarp::memory::Category;
use ironwarp::message::escaped_path;
use ironwarp::model::arena::Arena;
use ironwarp::model::config::Config;
use ironwarp::model::plan::MemoryPlan;
use ironwarp::model::{Gpt2, params::HostWeights};
use ironwarp::ops::Backend;
use ironwarp::text::tokenizer::Tokenizer;
use ironwarp::train::checkpoint::load_model_folder;

use crate::{host_memory, output};

/// The value of `--device`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// A GPU if one is available, otherwise the CPU.
    Auto,
    /// The CPU backend in f32.
    Cpu,
    /// The GPU with this index.
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
                _ => Err("expected one of auto, cpu, cuda, cuda:0, cuda:1, …, emulated".into()),
            },
        }
    }
}

/// A backend that the command runs models on.
pub trait Runs: Backend {
    /// Name of the device in `--device` and in JSON.
    const NAME: &'static str;
    /// Device and precision, for the heading of a table.
    const DESCRIPTION: &'static str;

    /// Bytes of memory that are available to a run, if known. `in_host` of these bytes are already allocated in host
    /// memory.
    fn available_memory(&self, in_host: u64) -> Option<u64>;

    /// Whether the device is the emulated GPU.
    fn is_emulated(&self) -> bool {
        false
    }

    /// Peak bytes of memory in use, if known.
    fn peak_memory(&self) -> Option<u64> {
        None
    }
}

impl Runs for Cpu<f32> {
    const NAME: &'static str = "cpu";
    const DESCRIPTION: &'static str = "the CPU in f32";

    fn available_memory(&self, in_host: u64) -> Option<u64> {
        host_memory::available().map(|available| available.saturating_add(in_host))
    }
}

#[cfg(feature = "cuda")]
impl Runs for Cuda {
    const NAME: &'static str = "cuda";
    const DESCRIPTION: &'static str = "a GPU in bf16 and f32";

    fn available_memory(&self, _in_host: u64) -> Option<u64> {
        self.device().free_memory()
    }

    fn is_emulated(&self) -> bool {
        self.device().properties().is_emulated()
    }

    fn peak_memory(&self) -> Option<u64> {
        Some(self.device().peak_memory())
    }
}

/// The backend of a [`Device`].
pub enum Opened {
    Cpu(Cpu<f32>),
    #[cfg(feature = "cuda")]
    Cuda(Cuda),
}

/// Evaluates `$work` with `$backend` bound to the backend. The expression is compiled once per backend type.
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
    /// Opens the backend. For `auto`, also returns a message that says which device was chosen.
    pub fn open(self) -> Result<(Opened, Option<String>)> {
        if self == Device::Cpu {
            return Ok((Opened::Cpu(Cpu::new()), None));
        }
        #[cfg(feature = "cuda")]
        {
            let cpu = |why: String| Ok((Opened::Cpu(Cpu::new()), Some(format!("device cpu: {why}"))));
            match self.cuda() {
                Ok(cuda) if self != Device::Auto => Ok((Opened::Cuda(cuda), None)),
                Err(error) if self != Device::Auto => Err(anyhow!("{error}; use --device cpu instead")),
                Err(error) => cpu(error.to_string()),
                Ok(cuda) => match Gpu::of(&cuda) {
                    gpu if cuda.device().properties().is_emulated() => {
                        cpu(format!("{gpu} would be slower; use --device emulated to select it"))
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
                "this build has no CUDA backend, so it supports neither GPUs nor the emulated GPU; use --device cpu \
                 instead, or build with `make toolkit` and `cargo build --release --features cuda`"
            )
        }
    }

    /// Opens the CUDA backend; `auto` selects the first GPU. Must not be called for the CPU.
    #[cfg(feature = "cuda")]
    fn cuda(self) -> ironwarp::Result<Cuda> {
        match self {
            Device::Cpu | Device::Auto => Cuda::new(0),
            Device::Cuda(ordinal) => Cuda::new(ordinal),
            Device::Emulated => Cuda::emulated(),
        }
    }

    /// The GPU that is selected; `None` for the CPU, and in a build without CUDA.
    #[cfg(feature = "cuda")]
    pub fn gpu(self) -> Result<Option<Gpu>> {
        Ok(if self == Device::Cpu { None } else { Some(Gpu::of(&self.cuda()?)) })
    }

    #[cfg(not(feature = "cuda"))]
    pub fn gpu(self) -> Result<Option<Gpu>> {
        Ok(None)
    }
}

/// Description of a GPU.
#[derive(Debug, serde::Serialize)]
pub struct Gpu {
    name: String,
    ordinal: usize,
    compute_capability: String,
    #[serde(rename = "multiprocessors")]
    sm_count: usize,
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
            sm_count: gpu.sm_count,
            memory_bytes: gpu.memory,
            driver: gpu.driver.clone(),
        }
    }
}

impl fmt::Display for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Gpu { name, ordinal, compute_capability, sm_count, memory_bytes, driver } = self;
        let memory = output::bytes(*memory_bytes);
        write!(
            f,
            "{name} (cuda:{ordinal}, compute capability {compute_capability}, {sm_count} SMs, {memory}, driver \
             {driver})"
        )
    }
}

/// Fails if a training run does not fit the memory of the device. Called before anything is allocated, because an operating
/// system may overcommit host memory and then thrash when it is used.
pub fn check_memory<B: Runs>(backend: &B, plan: &MemoryPlan, in_host: u64) -> Result<()> {
    let Some(available) = backend.available_memory(in_host) else { return Ok(()) };
    if plan.total() <= available {
        return Ok(());
    }
    // The memory that does not depend on the batch size.
    let model = plan.weights.saturating_add(plan.master).saturating_add(plan.gradients).saturating_add(plan.moments);
    let limiting = if model > available { Category::Weights } else { Category::Activations };
    bail!(
        "out of memory: the run needs {} ({}), but {} are available; {}",
        output::bytes(plan.total()),
        breakdown(plan),
        output::bytes(available),
        limiting.advice(),
    );
}

/// A plan's memory by category: `weights 1.5 GiB, gradients 480 MiB, …`.
pub fn breakdown(plan: &MemoryPlan) -> String {
    let categories = plan.by_category().into_iter().filter(|(_, bytes)| *bytes > 0);
    categories.map(|(category, bytes)| format!("{category} {}", output::bytes(bytes))).collect::<Vec<_>>().join(", ")
}

/// A model that is loaded on a device.
pub struct Model<B: Backend> {
    backend: B,
    pub config: Config,
    tokenizer: Result<Tokenizer>,
    params: Arena<B, B::Compute>,
}

impl<B: Backend> Model<B> {
    /// Loads a run, checkpoint or Hugging Face folder to a device.
    pub fn load(dir: &Path, tokenizer: Option<&str>, backend: B) -> Result<Self> {
        let (HostWeights { config, layout, data }, named) = load_model_folder(dir)?;
        let model = || format!("model {}", escaped_path(dir));
        let tokenizer = find_tokenizer(tokenizer, named, &config).with_context(model)?.with_context(model);
        backend.account_to(Category::Weights);
        let params = Arena::from_f32(&backend, &layout, data)?;
        backend.account_to(Category::Other);
        Ok(Model { backend, config, tokenizer, params })
    }

    /// The model's tokenizer, or why it has none.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        self.tokenizer.as_ref().map_err(|why| anyhow!("{why:#}"))
    }

    pub fn gpt2(&self) -> Gpt2<'_, B> {
        Gpt2 { backend: &self.backend, config: &self.config, params: &self.params }
    }
}

/// The tokenizer that `--tokenizer` names; without it, the tokenizer of the model's folder.
pub fn choose_tokenizer(
    given: Option<&str>,
    folder: ironwarp::Result<Tokenizer>,
    config: &Config,
) -> Result<Tokenizer> {
    let tokenizer = match given {
        Some(given) => Tokenizer::open(given)?,
        None => folder.map_err(|error| {
            anyhow!("{error}; choose one with --tokenizer ({}, FILE or DIR)", Tokenizer::NAMES.join(", "))
        })?,
    };
    if tokenizer.vocab() > config.vocab {
        let (name, tokens, vocab) = (given.unwrap_or(tokenizer.name()), tokenizer.vocab(), config.vocab);
        bail!("the tokenizer '{name}' has {tokens} tokens, more than the model's vocabulary of {vocab}");
    }
    Ok(tokenizer)
}

/// As [`choose_tokenizer`], for a command that may not need a tokenizer: only what is wrong with `given` is an error, and
/// the inner result says why the folder has none.
pub fn find_tokenizer(
    given: Option<&str>,
    folder: ironwarp::Result<Tokenizer>,
    config: &Config,
) -> Result<Result<Tokenizer>> {
    let chosen = choose_tokenizer(given, folder, config);
    match given {
        Some(_) => chosen.map(Ok),
        None => Ok(chosen),
    }
}

/// The tokenizer whose vocabulary size is the model's, for a model that is trained from scratch.
pub fn tokenizer_of_size(vocab: usize) -> ironwarp::Result<Tokenizer> {
    let mut tokenizers = Tokenizer::NAMES.iter().filter_map(|name| Tokenizer::by_name(name).ok());
    tokenizers
        .find(|tokenizer| tokenizer.vocab() == vocab)
        .ok_or_else(|| ironwarp::Error::Invalid(format!("no tokenizer has the model's vocabulary size of {vocab}")))
}
