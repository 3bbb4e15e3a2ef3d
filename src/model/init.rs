//! Random initial weights, as for GPT-2.

use std::f64::consts::TAU;

use rayon::prelude::*;

use super::config::Config;
use super::params::HostWeights;
use crate::error::Result;
use crate::ops::philox::{Purpose, draw_block};

/// Standard deviation of the initial weights of GPT-2.
const STD: f32 = 0.02;

/// Channels of GPT-2's smallest model, below which [`matrix_std`] grows.
const CHANNELS: usize = 768;

/// Standard deviation of matrices and token embeddings: GPT-2's 0.02, and `0.02 · √(768/C)` for models of fewer channels.
/// Sums over C channels then have the size that they have in GPT-2's smallest model. With 0.02, `tiny` needs about twice
/// the tokens for the same loss.
fn matrix_std(channels: usize) -> f32 {
    STD * (CHANNELS as f32 / channels as f32).sqrt().max(1.0)
}

/// Initialises matrices and token embeddings from N(0, σ), where σ is 0.02 for 768 channels and more, and `0.02 · √(768/C)`
/// for fewer; residual projections from N(0, σ / √(2L)) and positions from N(0, 0.02). Layernorm scales are 1 and all
/// other parameters are 0.
///
/// Each weight is a function of the seed, the number of its tensor and its index: draws of
/// [`philox`](crate::ops::philox) with the purpose [`Purpose::Initialization`]. Source: Radford et al. 2019, section 2.3.
///
/// # Errors
/// [`Error::Unavailable`](crate::Error::Unavailable) if there is not enough host memory.
pub fn random(config: Config, seed: u64) -> Result<HostWeights> {
    let mut weights = HostWeights::zeros(config)?;
    // Padding rows of the embedding stay zero: no token selects them, and their logits are ignored.
    let wte_len = config.vocab * config.channels;
    let matrix_std = matrix_std(config.channels);
    let residual_std = matrix_std / (2.0 * config.layers as f32).sqrt();
    for (stream, (name, values)) in weights.tensors_mut().into_array().into_iter().enumerate() {
        let std = match name {
            "attn_proj_weight" | "fc_proj_weight" => residual_std,
            "wte" | "qkv_weight" | "fc_weight" => matrix_std,
            "wpe" => STD,
            _ => {
                let is_scale = name.ends_with("_weight");
                values.fill(if is_scale { 1.0 } else { 0.0 });
                continue;
            }
        };
        let random_len = if name == "wte" { wte_len } else { values.len() };
        fill_normal(&mut values[..random_len], seed, stream as u64, std);
    }
    Ok(weights)
}

/// Fills `values` from N(0, `std`), four weights from each block of draws.
fn fill_normal(values: &mut [f32], seed: u64, stream: u64, std: f32) {
    const BLOCKS: usize = 1 << 12;
    values.par_chunks_mut(4 * BLOCKS).enumerate().for_each(|(chunk, values)| {
        for (index, values) in values.chunks_mut(4).enumerate() {
            let [a, b, c, d] = draw_block(seed, Purpose::Initialization, stream, (chunk * BLOCKS + index) as u64);
            let ([w, x], [y, z]) = (normal_pair(a, b), normal_pair(c, d));
            values.iter_mut().zip([w, x, y, z]).for_each(|(value, normal)| *value = std * normal);
        }
    });
}

/// Two independent standard normal numbers from two random words. Source: Box and Muller 1958.
fn normal_pair(radius: u32, angle: u32) -> [f32; 2] {
    // Uniform in (0, 1), never 0, whose logarithm is infinite: the largest radius is 6.7.
    let radius = (-2.0 * ((f64::from(radius) + 0.5) / 2f64.powi(32)).ln()).sqrt();
    let (sin, cos) = (TAU * f64::from(angle) / 2f64.powi(32)).sin_cos();
    [(radius * cos) as f32, (radius * sin) as f32]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn weights_that_do_not_fit_the_memory_are_an_error() {
        // 768 TiB, more than an address space.
        let config = Config { context: 1, vocab: 1, layers: 1 << 14, heads: 1, channels: 1 << 15 };
        config.check().unwrap();
        let error = random(config, 1).unwrap_err();
        assert!(matches!(&error, Error::Unavailable(text) if text.starts_with("out of host memory: ")), "{error}");
    }

    #[test]
    fn weights_have_the_stated_standard_deviation_and_padding_is_zero() {
        for (channels, want) in [(48, 0.08), (192, 0.04), (768, 0.02), (1600, 0.02)] {
            assert!((matrix_std(channels) - want).abs() < 1e-7, "{channels} channels: {}", matrix_std(channels));
        }
        let config = Config { vocab: 100, context: 64, layers: 2, heads: 4, channels: 192 };
        let weights = random(config, 1).unwrap();
        assert_eq!(weights, random(config, 1).unwrap());
        assert_ne!(weights, random(config, 2).unwrap());
        for (name, shape, values) in weights.tensors() {
            let random_len = if name == "wte" { config.vocab * config.channels } else { values.len() };
            let std = (values[..random_len].iter().map(|x| x * x).sum::<f32>() / random_len as f32).sqrt();
            let want = match name {
                "attn_proj_weight" | "fc_proj_weight" => 0.02,
                name if name.ends_with("bias") => 0.0,
                name if name.starts_with("ln") => 1.0,
                "wpe" => 0.02,
                _ => 0.04,
            };
            assert!((std - want).abs() <= 0.03 * want, "{name} {shape:?}: {std}");
            assert!(values[random_len..].iter().all(|&x| x == 0.0), "{name}");
        }
    }

    /// The moments of N(0, 1) over 2¹⁸ draws, within 5 standard errors: √(1/n), √(2/n), √(15/n), √(96/n). Neighbours,
    /// including the two of a pair, are uncorrelated.
    #[test]
    fn draws_are_normal_and_independent() {
        let mut draws = vec![0.0; 1 << 18];
        fill_normal(&mut draws, 7, 3, 1.0);
        let n = draws.len() as f64;
        let mean = |f: &dyn Fn(f64) -> f64| draws.iter().map(|&x| f(f64::from(x))).sum::<f64>() / n;
        for (power, want, variance) in [(1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)] {
            let moment = mean(&|x| x.powi(power));
            assert!((moment - want).abs() < 5.0 * (variance / n).sqrt(), "moment {power}: {moment}");
        }
        for distance in 1..=4 {
            let products = draws.iter().zip(&draws[distance..]).map(|(&x, &y)| f64::from(x) * f64::from(y));
            let covariance = products.sum::<f64>() / n;
            assert!(covariance.abs() < 5.0 / n.sqrt(), "distance {distance}: {covariance}");
        }
        assert!(normal_pair(0, 0)[0] < 6.8 && normal_pair(u32::MAX, 0)[0] >= 0.0);
    }

    /// A weight does not depend on how many weights its tensor has.
    #[test]
    fn a_weight_depends_on_its_index_only() {
        let [mut short, mut long] = [vec![0.0; 16_390], vec![0.0; 20_000]];
        fill_normal(&mut short, 7, 3, 1.0);
        fill_normal(&mut long, 7, 3, 1.0);
        assert_eq!(short, long[..16_390]);
        assert_ne!(long[..4], long[16_384..16_388]);
        fill_normal(&mut short, 7, 4, 1.0);
        assert_ne!(short[..4], long[..4]);
    }
}
