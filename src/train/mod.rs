//! Training: data, optimizer steps, schedules, checkpoints and the run around them.

pub mod checkpoint;
pub mod data;
pub mod metrics;
pub mod outlier;
pub mod run;
pub mod schedule;
pub mod trainer;
