//! Training: data, optimizer steps, schedules, checkpoints and the run around them.

pub mod checkpoint;
pub mod data;
mod flag;
pub mod metrics;
pub mod optimizer;
pub mod outlier;
mod prefetch;
pub mod run;
pub mod schedule;
pub mod settings;
pub mod trainer;
