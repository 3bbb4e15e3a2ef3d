//! Random initial weights, as for GPT-2.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};

use super::config::Config;
use super::params::HostWeights;

/// Standard deviation of the initial weights.
const STD: f32 = 0.02;

/// Initialises matrices and embeddings from N(0, 0.02) (the standard deviation), with residual projections scaled by
/// 1/√(2L); layernorm scales are 1 and all other parameters are 0.
///
/// Each tensor uses its own stream of the RNG. Source: Radford et al. 2019, section 2.3.
pub fn random(config: Config, seed: u64) -> HostWeights {
    let mut weights = HostWeights::zeros(config);
    // Padding rows of the embedding stay zero: no token selects them, and their logits are ignored.
    let wte_len = config.vocab * config.channels;
    let residual_std = STD / (2.0 * config.layers as f32).sqrt();
    for (stream, (name, values)) in weights.tensors_mut().into_array().into_iter().enumerate() {
        let std = match name {
            "attn_proj_weight" | "fc_proj_weight" => residual_std,
            "wte" | "wpe" | "qkv_weight" | "fc_weight" => STD,
            _ => {
                let is_scale = name.ends_with("_weight");
                values.fill(if is_scale { 1.0 } else { 0.0 });
                continue;
            }
        };
        let random_len = if name == "wte" { wte_len } else { values.len() };
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream as u64);
        let normal = Normal::new(0.0, std).expect("a finite standard deviation");
        values[..random_len].iter_mut().for_each(|x| *x = normal.sample(&mut rng));
    }
    weights
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_have_the_stated_standard_deviation_and_padding_is_zero() {
        let config = Config { vocab: 100, context: 64, layers: 2, heads: 4, channels: 64 };
        let weights = random(config, 1);
        assert_eq!(weights, random(config, 1));
        assert_ne!(weights, random(config, 2));
        for (name, shape, values) in weights.tensors() {
            let random_len = if name == "wte" { config.vocab * config.channels } else { values.len() };
            let std = (values[..random_len].iter().map(|x| x * x).sum::<f32>() / random_len as f32).sqrt();
            let want = match name {
                "attn_proj_weight" | "fc_proj_weight" => 0.01,
                name if name.ends_with("bias") => 0.0,
                name if name.starts_with("ln") => 1.0,
                _ => 0.02,
            };
            assert!((std - want).abs() <= 0.03 * want, "{name} {shape:?}: {std}");
            assert!(values[random_len..].iter().all(|&x| x == 0.0), "{name}");
        }
    }
}
