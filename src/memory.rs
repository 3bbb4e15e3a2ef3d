//! Memory categories: the purposes that device memory is accounted by.
//!
//! An out-of-memory error lists what each category holds, and [`MemoryPlan`](crate::model::plan::MemoryPlan) predicts it:
//!
//! ```
//! use ironwarp::cpu::Cpu;
//! use ironwarp::memory::Category;
//! use ironwarp::model::activations::Recompute;
//! use ironwarp::model::config::Config;
//! use ironwarp::model::plan::MemoryPlan;
//!
//! let config = Config::preset("gpt2-124M")?;
//! let plan = MemoryPlan::new::<Cpu<f32>>(&config, 4, 1024, Recompute::None)?;
//! let [(category, bytes), ..] = plan.by_category();
//! assert_eq!(category, Category::Weights);
//! assert_eq!(bytes, 4 * (config.parameters() + 47 * config.channels) as u64); // 47 rows pad the vocabulary
//! assert!(plan.total() > 4 * bytes);
//! # Ok::<(), ironwarp::Error>(())
//! ```

use std::fmt;

/// The purpose of an allocation, for memory accounting and for out-of-memory messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Category {
    /// Weights, including the full-precision master copy.
    Weights,
    /// Gradients of the weights.
    Gradients,
    /// The optimizer's moments.
    Moments,
    /// Activations that the forward pass keeps.
    Activations,
    /// Gradients of the activations.
    ActivationGradients,
    /// Workspace that operations need while they run.
    Workspace,
    /// Everything else: token ids, losses, and what a caller allocates directly.
    Other,
}

impl Category {
    /// Every category, in the order in which messages list them.
    pub const ALL: [Category; 7] = [
        Category::Weights,
        Category::Gradients,
        Category::Moments,
        Category::Activations,
        Category::ActivationGradients,
        Category::Workspace,
        Category::Other,
    ];

    /// What a user can change so that this category needs less memory.
    pub fn advice(self) -> &'static str {
        match self {
            Category::Weights | Category::Gradients | Category::Moments => "choose a smaller model",
            Category::Activations | Category::ActivationGradients => "lower --batch or --context, or use --recompute",
            Category::Workspace | Category::Other => "lower --batch or --context",
        }
    }
}

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Category::Weights => "weights",
            Category::Gradients => "gradients",
            Category::Moments => "moments",
            Category::Activations => "activations",
            Category::ActivationGradients => "activation gradients",
            Category::Workspace => "workspace",
            Category::Other => "other",
        })
    }
}
