//! Detection of steps whose loss or gradient norm is far above recent ones.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Number of values in the window.
const WINDOW: usize = 128;

/// A sliding window over recent values of the loss or the gradient norm.
///
/// Non-finite values are not added, so that a NaN does not disable the detection. Outliers are added, so that the window
/// adapts when the level has shifted permanently.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OutlierWindow {
    values: VecDeque<f32>,
}

impl OutlierWindow {
    /// Adds a value.
    pub fn push(&mut self, value: f32) {
        if !value.is_finite() {
            return;
        }
        // More only in a state that this trainer did not write.
        while self.values.len() >= WINDOW {
            self.values.pop_front();
        }
        self.values.push_back(value);
    }

    /// The value `z` standard deviations above the mean; infinite if the window is not full or `z` is infinite.
    pub fn limit(&self, z: f32) -> f32 {
        if self.values.len() < WINDOW || !z.is_finite() {
            return f32::INFINITY;
        }
        let n = self.values.len() as f64;
        let mean = self.values.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let variance = self.values.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
        // A lower bound, because in a constant window every change would be an outlier.
        let std = variance.sqrt().max(1e-3 * mean.abs());
        (mean + f64::from(z) * std) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> OutlierWindow {
        let mut window = OutlierWindow::default();
        (0..WINDOW).for_each(|i| window.push(3.0 + if i % 2 == 0 { 0.1 } else { -0.1 }));
        window
    }

    #[test]
    fn the_limit_is_infinite_until_the_window_is_full() {
        let mut window = OutlierWindow::default();
        (0..WINDOW - 1).for_each(|_| window.push(1.0));
        assert_eq!(window.limit(3.0), f32::INFINITY);
        window.push(1.0);
        assert!(window.limit(3.0) < 1.01);
    }

    #[test]
    fn the_limit_is_z_standard_deviations_above_the_mean() {
        assert!((full().limit(5.0) - 3.5).abs() < 1e-4);
        assert_eq!(full().limit(f32::INFINITY), f32::INFINITY);
    }

    #[test]
    fn non_finite_values_are_ignored() {
        let mut window = full();
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            window.push(bad);
        }
        assert_eq!(window, full());
    }
}
