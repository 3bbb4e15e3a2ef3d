//! The configuration of the optimizer.

use serde::{Deserialize, Serialize};

/// The settings of AdamW that are constant over a run. Each field is a flag of `ironwarp train`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::Args))]
#[cfg_attr(feature = "cli", command(next_help_heading = "Optimization"))]
pub struct OptimizerConfig {
    /// AdamW β1: decay rate of the first moment.
    #[cfg_attr(feature = "cli", arg(long, default_value_t = Self::default().beta1, value_name = "X"))]
    pub beta1: f32,
    /// AdamW β2: decay rate of the second moment.
    #[cfg_attr(feature = "cli", arg(long, default_value_t = Self::default().beta2, value_name = "X"))]
    pub beta2: f32,
    /// AdamW ε, added to the square root of the second moment.
    #[cfg_attr(feature = "cli", arg(long, default_value_t = Self::default().eps, value_name = "X"))]
    pub eps: f32,
    /// Decoupled weight decay, applied to 2-D tensors only.
    #[cfg_attr(feature = "cli", arg(long, default_value_t = Self::default().weight_decay, value_name = "X"))]
    pub weight_decay: f32,
    /// Clip gradients to this global norm; 0: no clipping.
    #[cfg_attr(feature = "cli", arg(long, default_value_t = Self::default().grad_clip, value_name = "X"))]
    pub grad_clip: f32,
    /// Skip updates whose loss is this many standard deviations above the mean of the last 128 steps; 0: never skip.
    #[cfg_attr(feature = "cli", arg(long, default_value_t = Self::default().skip_loss_z, value_name = "Z"))]
    pub skip_loss_z: f32,
    /// Skip updates whose gradient norm is this many standard deviations above the mean of the last 128 steps; 0: never
    /// skip.
    #[cfg_attr(feature = "cli", arg(long, default_value_t = Self::default().skip_norm_z, value_name = "Z"))]
    pub skip_norm_z: f32,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        OptimizerConfig {
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            grad_clip: 1.0,
            skip_loss_z: 0.0,
            skip_norm_z: 0.0,
        }
    }
}
