//! Training: data, optimizer steps, schedules, checkpoints and the run around them.

pub mod checkpoint;
pub mod data;
mod feed;
pub mod metrics;
pub mod outlier;
pub mod run;
pub mod schedule;
pub mod trainer;
