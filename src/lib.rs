//! Ironwarp is a library of hand-written CUDA kernels for GPT-2 with Rust bindings, and a GPT-2 trainer built on it.
//!
//! Every operation that GPT-2 needs, forward and backward, is defined once in [`ops`], with its formula, its shapes and
//! the least work that it can take. Two backends implement the list: [`cpu`] is the readable reference in f32 or f64, and
//! `cuda` launches the kernels on an NVIDIA GPU, or on an emulated one that checks every access, barrier and race. The
//! [`model`] is written once, over any backend. The same inputs give the same bits on every run.
//!
//! # Features
//!
//! Without features the crate is a small library. The default is everything that the command `ironwarp` needs, so a
//! program that uses the library says `default-features = false`.
//!
//! | Feature | Adds | Needs |
//! |---|---|---|
//! | none | [`tensor`], [`ops`], [`cpu`], [`model`] with safetensors and Hugging Face files | – |
//! | `cuda` | the module `cuda` | nvcc for the build, NVIDIA's driver to run |
//! | `train` | [`text`]: tokenizers, corpora, evaluation; [`train`]: optimizer steps, checkpoints, runs | – |
//! | `bench` | [`mod@bench`]: times against floors and peers; with `cuda` also `profile`: counts without a GPU | `train` |
//! | `plots` | drawings of loss curves and benchmarks as SVG | – |
//! | `cli`, the default | the command `ironwarp` | `bench`, `plots` |
//!
//! ```toml
//! [dependencies]
//! ironwarp = { version = "0.1", default-features = false, features = ["cuda"] }
//! ```
//!
//! If the environment variable `DOCS_RS` is set for the build, as on docs.rs, feature `cuda` embeds no kernels: everything
//! type-checks without nvcc, and a launch returns an error that says so.
//!
//! # Tour
//!
//! An operation is a struct of operands, and a backend has one method for each. A [`tensor::Tensor`] owns memory of a
//! backend; operations take views of it.
//!
//! ```
//! use ironwarp::cpu::Cpu;
//! use ironwarp::ops::{Backend, Epilogue, MatmulForward};
//! use ironwarp::tensor::Tensor;
//!
//! let cpu = Cpu::<f32>::new();
//! let x = Tensor::from_vec(&cpu, [1, 2], vec![1.0, 2.0])?; // (N, C)
//! let weight = Tensor::from_vec(&cpu, [3, 2], vec![1.0, 0.0, 0.0, 1.0, 1.0, 1.0])?; // (OC, C)
//! let bias = Tensor::from_vec(&cpu, [3], vec![0.5; 3])?;
//! let mut out = Tensor::zeros(&cpu, [1, 3])?;
//! cpu.matmul_forward(MatmulForward {
//!     x: x.view(),
//!     weight: weight.view(),
//!     epilogue: Epilogue::Bias { bias: bias.view() },
//!     out: out.view_mut(),
//! })?;
//! assert_eq!(out.to_vec(&cpu)?, [1.5, 2.5, 3.5]);
//! # Ok::<(), ironwarp::Error>(())
//! ```
//!
//! Invalid operands are refused before anything is launched, with an [`Error`] that names the operation, the rule and
//! the numbers:
//!
//! ```
//! use ironwarp::cpu::Cpu;
//! use ironwarp::ops::{Backend, GeluForward};
//! use ironwarp::tensor::Tensor;
//!
//! let cpu = Cpu::<f32>::new();
//! let x = Tensor::from_vec(&cpu, [2, 8], vec![1.0; 16])?;
//! let mut out = Tensor::zeros(&cpu, [2, 4])?;
//! let error = cpu.gelu_forward(GeluForward { x: x.view(), out: out.view_mut() }).unwrap_err();
//! assert!(error.to_string().starts_with("gelu_forward: "), "{error}");
//! # Ok::<(), ironwarp::Error>(())
//! ```
//!
//! On a GPU the same code runs with another handle; activations and weights are then bf16. `Cuda::new(0)` opens the first
//! GPU, and `Cuda::emulated()` the emulated one, a drop-in driver that `make emulator` builds:
//!
//! ```
//! # #[cfg(feature = "cuda")] {
//! use half::bf16;
//! use ironwarp::cuda::Cuda;
//! use ironwarp::ops::{Backend, GeluForward};
//! use ironwarp::tensor::Tensor;
//!
//! let gpu = Cuda::emulated()?;
//! let x = Tensor::from_vec(&gpu, [2, 8], vec![bf16::from_f32(1.0); 16])?;
//! let mut out = Tensor::zeros(&gpu, [2, 8])?;
//! gpu.gelu_forward(GeluForward { x: x.view(), out: out.view_mut() })?;
//! assert_eq!(out.to_vec(&gpu)?, [bf16::from_f32(0.841); 16]);
//! # }
//! # Ok::<(), ironwarp::Error>(())
//! ```
//!
//! A model is a handle of a backend, sizes and weights. This one is random; [`model::hugging_face::import`] reads a
//! trained one from a Hugging Face folder:
//!
//! ```
//! use ironwarp::cpu::Cpu;
//! use ironwarp::model::arena::Arena;
//! use ironwarp::model::config::Config;
//! use ironwarp::model::generate::{Generator, Sampling};
//! use ironwarp::model::{Gpt2, init};
//!
//! let cpu = Cpu::<f32>::new();
//! let config = Config { context: 8, vocab: 11, layers: 1, heads: 2, channels: 8 };
//! let weights = init::random(config, 1337)?;
//! let params = Arena::from_f32(&cpu, &weights.layout, weights.data)?;
//! let model = Gpt2 { backend: &cpu, config: &config, params: &params };
//! let mut generator = Generator::new(model, &[3, 1, 4])?;
//! let sampling = Sampling { temperature: 0.8, top_k: 5, top_p: 1.0, seed: 7 };
//! for _ in 0..20 {
//!     let token = generator.sample(sampling)?;
//!     generator.push(token)?;
//! }
//! assert_eq!(generator.num_tokens(), 23);
//! # Ok::<(), ironwarp::Error>(())
//! ```
//!
//! # Modules in reading order
//!
//! A module uses only those before it.
//!
//! 1. [`error`], [`memory`] and [`message`]: the one error type; the purposes that memory is accounted by; text from files
//!    in messages.
//! 2. [`tensor`]: shapes and views over memory that a backend owns; [`files`]: reading and writing files safely.
//! 3. [`ops`]: the list of operations, and the trait [`ops::Backend`].
//! 4. [`cpu`]: the reference backend.
//! 5. `cuda`: launchers, kernel configurations, and the runtime on the CUDA driver.
//! 6. [`model`]: GPT-2: sizes, weights, forward, backward, generation, files.
//! 7. [`text`]: tokenizers, token shards, corpora, evaluation.
//! 8. [`train`]: data, steps, schedules, checkpoints, runs.
//! 9. [`mod@bench`]: times of every operation, compared with its floor and with other libraries.
//! 10. `profile`: traffic and instructions of the kernels, counted without a GPU.
//!
//! The project's book, `docs/` in the repository, explains the architecture, the kernels, their numerics and how they are
//! checked.

#[cfg(feature = "bench")]
pub mod bench;
pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod error;
pub mod files;
pub mod memory;
pub mod message;
pub mod model;
pub mod ops;
#[cfg(all(feature = "bench", feature = "cuda"))]
pub mod profile;
pub mod tensor;
#[cfg(feature = "train")]
pub mod text;
#[cfg(feature = "train")]
pub mod train;

pub use error::{Error, Result};
