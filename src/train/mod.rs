//! Training: data, optimizer steps, schedules, checkpoints and the run around them.
//!
//! - [`data`]: windows of tokens in a seeded order. [`trainer`]: one optimizer step. [`schedule`]: its learning rate.
//!   [`optimizer`]: the constants of AdamW. [`outlier`]: limits beyond which a step is skipped.
//! - [`run`]: the loop around the steps, with [`settings`], [`metrics`] and [`checkpoint`]s; a run that is resumed
//!   continues with the same bits.
//!
//! ```
//! use ironwarp::cpu::Cpu;
//! use ironwarp::model::activations::Recompute;
//! use ironwarp::model::config::Config;
//! use ironwarp::model::init;
//! use ironwarp::train::data::MicroBatch;
//! use ironwarp::train::optimizer::OptimizerConfig;
//! use ironwarp::train::trainer::Trainer;
//!
//! let config = Config { context: 8, vocab: 4, layers: 1, heads: 2, channels: 16 };
//! let (weights, shape) = (init::random(config, 1)?, (1, 8));
//! let optimizer = OptimizerConfig::default();
//! let mut trainer = Trainer::new(Cpu::<f32>::new(), weights, shape, Recompute::None, optimizer, 1)?;
//! // The targets are the tokens, one position later.
//! let batch = [MicroBatch { tokens: vec![0, 1, 2, 3, 0, 1, 2, 3], targets: vec![1, 2, 3, 0, 1, 2, 3, 0] }];
//! let first = trainer.step(&batch, 1e-2)?.loss;
//! for _ in 0..20 {
//!     trainer.step(&batch, 1e-2)?;
//! }
//! assert!(trainer.step(&batch, 1e-2)?.loss < 0.5 * first);
//! # Ok::<(), ironwarp::Error>(())
//! ```

pub mod checkpoint;
pub mod data;
#[cfg(feature = "cli")]
mod flag;
pub mod metrics;
pub mod optimizer;
pub mod outlier;
#[cfg(feature = "plots")]
pub mod plot;
mod prefetch;
pub mod run;
pub mod schedule;
pub mod settings;
pub mod trainer;
