//! Learning-rate schedules.

use serde::{Deserialize, Serialize};

#[cfg(feature = "cli")]
use super::flag::one_of;

/// Shape of the learning-rate schedule after the warmup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    /// Half a cosine wave over all steps after the warmup.
    Cosine,
    /// Linear decay over all steps after the warmup.
    Linear,
    /// No decay.
    Constant,
    /// Warmup-stable-decay: constant, then `1 - √x` decay over the last [`Schedule::wsd_fraction`] of the steps. Source:
    /// Hägele et al. 2024.
    Wsd,
}

/// The learning rate of every step of a run. Each field is a flag of `ironwarp train`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::Args))]
#[cfg_attr(feature = "cli", command(next_help_heading = "Optimization"))]
pub struct Schedule {
    /// Optimizer steps of the run.
    #[cfg_attr(feature = "cli", arg(long, default_value_t = 300, value_name = "N"))]
    pub steps: u64,
    /// Peak learning rate.
    #[cfg_attr(feature = "cli", arg(long = "lr", default_value_t = 6e-4, value_name = "LR"))]
    pub peak: f32,
    /// Learning-rate schedule after the warmup; "wsd" is warmup-stable-decay.
    #[cfg_attr(feature = "cli", arg(long = "schedule", default_value = "cosine", value_parser = one_of::<Decay>(["cosine", "linear", "constant", "wsd"]), value_name = "SCHEDULE"))]
    pub decay: Decay,
    /// Steps of linear learning-rate warmup from 0.
    #[cfg_attr(feature = "cli", arg(long, default_value_t = 20, value_name = "N"))]
    pub warmup: u64,
    /// Final learning rate, as a fraction of the peak.
    #[cfg_attr(feature = "cli", arg(long = "final-lr-fraction", default_value_t = 0.1, value_name = "F"))]
    pub final_fraction: f32,
    /// Fraction of the steps over which the wsd schedule decays.
    #[cfg_attr(feature = "cli", arg(long, default_value_t = 0.2, value_name = "F"))]
    pub wsd_fraction: f32,
}

impl Schedule {
    /// Learning rate of `step`, counted from 0. The last warmup step has the peak learning rate.
    pub fn learning_rate(&self, step: u64) -> f32 {
        if step < self.warmup {
            return self.peak * ((step + 1) as f32 / self.warmup as f32);
        }
        let past = (step - self.warmup) as f32;
        let span = self.steps.saturating_sub(self.warmup).max(1) as f32;
        // Share of the decay that is left: 1 before the decay, 0 at the end of the run and after it.
        let left = match self.decay {
            Decay::Constant => 1.0,
            Decay::Linear => 1.0 - (past / span).min(1.0),
            Decay::Cosine => 0.5 * (1.0 + (std::f32::consts::PI * (past / span).min(1.0)).cos()),
            Decay::Wsd => {
                let decay_steps = (self.steps as f32 * self.wsd_fraction).clamp(1.0, span);
                let decayed = (past - (span - decay_steps)).clamp(0.0, decay_steps) / decay_steps;
                1.0 - decayed.sqrt()
            }
        };
        self.peak * (self.final_fraction + (1.0 - self.final_fraction) * left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_relative_eq;

    const BASE: Schedule =
        Schedule { decay: Decay::Cosine, peak: 1.0, warmup: 10, steps: 110, final_fraction: 0.1, wsd_fraction: 0.2 };

    #[test]
    fn warmup_is_linear_up_to_the_peak() {
        for decay in [Decay::Cosine, Decay::Linear, Decay::Constant, Decay::Wsd] {
            let schedule = Schedule { decay, ..BASE };
            assert_relative_eq!(schedule.learning_rate(0), 0.1);
            assert_relative_eq!(schedule.learning_rate(9), 1.0);
            assert_relative_eq!(schedule.learning_rate(10), 1.0);
        }
    }

    #[test]
    fn each_decay_has_its_value_half_way_and_stays_at_its_final_value() {
        let at = |decay, step| Schedule { decay, ..BASE }.learning_rate(step);
        for (decay, middle) in [(Decay::Cosine, 0.55), (Decay::Linear, 0.55), (Decay::Constant, 1.0), (Decay::Wsd, 1.0)]
        {
            assert_relative_eq!(at(decay, 60), middle, epsilon = 1e-6);
        }
        for decay in [Decay::Cosine, Decay::Linear, Decay::Wsd] {
            assert_relative_eq!(at(decay, 110), 0.1, epsilon = 1e-6);
            assert_relative_eq!(at(decay, 10_000), 0.1, epsilon = 1e-6);
        }
        // Step 99 is half-way through the last 22 steps, so `1 - √0.5` of the decay is left.
        assert_relative_eq!(at(Decay::Wsd, 88), 1.0, epsilon = 1e-6);
        assert_relative_eq!(at(Decay::Wsd, 99), 1.0 - 0.9 * 0.5f32.sqrt(), epsilon = 1e-6);
    }

    #[test]
    fn extreme_settings_stay_finite() {
        let odd = Schedule { warmup: 0, steps: 0, wsd_fraction: 0.0, ..BASE };
        for decay in [Decay::Cosine, Decay::Linear, Decay::Constant, Decay::Wsd] {
            assert!(Schedule { decay, ..odd }.learning_rate(5).is_finite());
        }
        assert_relative_eq!(Schedule { warmup: 200, ..BASE }.learning_rate(109), 0.55);
    }
}
