//! Model configuration: sizes, presets and parameter count.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::message::escaped;

/// The vocabulary is padded to a multiple of this, so that the LM head has only whole tiles.
pub const VOCAB_MULTIPLE: usize = 128;

/// The sizes of a GPT-2 (Radford et al. 2019).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `T`: maximum sequence length, i.e. the number of learned positions.
    pub context: usize,
    /// `V`: vocabulary size, without padding.
    pub vocab: usize,
    /// `L`: number of transformer blocks.
    pub layers: usize,
    /// `NH`: number of attention heads.
    pub heads: usize,
    /// `C`: number of channels of the residual stream.
    pub channels: usize,
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Config { context, vocab, layers, heads, channels } = self;
        write!(f, "(L = {layers}, NH = {heads}, C = {channels}, T = {context}, V = {vocab})")
    }
}

/// Largest L. The deepest published transformer has 1,000 layers (Wang et al. 2022, DeepNet), GPT-3 has 96. Code that has
/// one step per layer is fast at this depth, which a small file can claim.
const MAX_LAYERS: usize = 1 << 14;
/// Largest NH; GPT-3 has 96.
const MAX_HEADS: usize = 1 << 16;
/// Largest C; GPT-3 has 12,288.
const MAX_CHANNELS: usize = 1 << 20;
/// Largest T; GPT-3 has 2,048. No code has a step per position before tokens are read.
const MAX_CONTEXT: usize = 1 << 24;
/// Largest V that [`Config::check`] accepts; vocabularies of published models have up to a million tokens.
pub const MAX_VOCAB: usize = 1 << 24;

/// Size of GPT-2's vocabulary: 50,000 merges, 256 bytes and `<|endoftext|>`.
pub const GPT2_VOCAB: usize = 50257;

/// Vocabulary size of the `bytes` tokenizer: 256 bytes and an end-of-text token.
pub const BYTES_VOCAB: usize = 257;

/// Names of the tokenizers.
pub const TOKENIZERS: [&str; 2] = ["gpt2", "bytes"];

/// Presets by name: `(name, L, NH, C, T, V)`.
///
/// `gpt2-*` are the models of Radford et al. 2019. `dN` are llm.c's names for them by depth; `d6` is a smaller model.
/// `gpt3-*` are the models of Brown et al. 2020, table 2.1. Their widths and head counts are kept except where the table
/// violates NH · HS = C: XL has 16 heads of 128 instead of 24, as C = 2048, and 13B has C = 5120 = 40 · 128 instead of 5140.
const PRESETS: &[(&str, usize, usize, usize, usize, usize)] = &[
    ("tiny", 4, 4, 128, 64, BYTES_VOCAB),
    ("d6", 6, 6, 384, 1024, GPT2_VOCAB),
    ("d12", 12, 12, 768, 1024, GPT2_VOCAB),
    ("d24", 24, 16, 1024, 1024, GPT2_VOCAB),
    ("d36", 36, 20, 1280, 1024, GPT2_VOCAB),
    ("d48", 48, 25, 1600, 1024, GPT2_VOCAB),
    ("gpt2-124M", 12, 12, 768, 1024, GPT2_VOCAB),
    ("gpt2-355M", 24, 16, 1024, 1024, GPT2_VOCAB),
    ("gpt2-774M", 36, 20, 1280, 1024, GPT2_VOCAB),
    ("gpt2-1558M", 48, 25, 1600, 1024, GPT2_VOCAB),
    ("gpt3-125M", 12, 12, 768, 2048, GPT2_VOCAB),
    ("gpt3-350M", 24, 16, 1024, 2048, GPT2_VOCAB),
    ("gpt3-760M", 24, 16, 1536, 2048, GPT2_VOCAB),
    ("gpt3-1.3B", 24, 16, 2048, 2048, GPT2_VOCAB),
    ("gpt3-2.7B", 32, 32, 2560, 2048, GPT2_VOCAB),
    ("gpt3-6.7B", 32, 32, 4096, 2048, GPT2_VOCAB),
    ("gpt3-13B", 40, 40, 5120, 2048, GPT2_VOCAB),
    ("gpt3-175B", 96, 96, 12288, 2048, GPT2_VOCAB),
];

impl Config {
    /// The configuration of a preset: `tiny`, `d6` … `d48`, `gpt2-124M` … `gpt2-1558M`, `gpt3-125M` … `gpt3-175B`.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there is no such preset; the message lists all presets.
    pub fn preset(name: &str) -> Result<Self> {
        match PRESETS.iter().find(|preset| preset.0 == name) {
            Some(&(_, layers, heads, channels, context, vocab)) => {
                Ok(Config { context, vocab, layers, heads, channels })
            }
            None => {
                let names: Vec<&str> = Self::preset_names().collect();
                Err(Error::invalid(format!(
                    "unknown model preset '{}'; available: {}",
                    escaped(name),
                    names.join(", ")
                )))
            }
        }
    }

    /// The names of the presets.
    pub fn preset_names() -> impl Iterator<Item = &'static str> {
        PRESETS.iter().map(|preset| preset.0)
    }

    /// Checks that the sizes are those of a valid model, within bounds far above those of any GPT: L <= 16,384,
    /// NH <= 65,536, C <= 2^20, T and V <= 2^24, and at most 2^48 parameters. Everything that is computed from the sizes
    /// alone, such as a layout or a memory plan, then takes milliseconds.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the violated rule and the numbers.
    pub fn check(&self) -> Result<()> {
        let sizes = [
            ("context (T)", self.context, MAX_CONTEXT),
            ("vocab (V)", self.vocab, MAX_VOCAB),
            ("layers (L)", self.layers, MAX_LAYERS),
            ("heads (NH)", self.heads, MAX_HEADS),
            ("channels (C)", self.channels, MAX_CHANNELS),
        ];
        for (name, size, max) in sizes {
            if size == 0 || size > max {
                return Err(Error::Invalid(format!("model: 1 <= {name} <= {max} failed ({size})")));
            }
        }
        if !self.channels.is_multiple_of(self.heads) {
            return Err(Error::Invalid(format!(
                "model: C % NH == 0 failed (C = {}, NH = {})",
                self.channels, self.heads
            )));
        }
        // The sizes may come from a file, so products of them must not overflow later. GPT-3 has 2^37.4 parameters.
        let (l, c) = (self.layers as u128, self.channels as u128);
        let parameters = 12 * l * c * c + 13 * l * c + (self.padded_vocab() + self.context + 2) as u128 * c;
        if parameters > 1 << 48 {
            return Err(Error::Invalid(format!(
                "model: at most 2^48 parameters failed ({parameters}: L = {}, C = {}, V = {}, T = {})",
                self.layers, self.channels, self.vocab, self.context
            )));
        }
        Ok(())
    }

    /// `Vp`: the vocabulary padded to a multiple of [`VOCAB_MULTIPLE`].
    pub fn padded_vocab(&self) -> usize {
        self.vocab.next_multiple_of(VOCAB_MULTIPLE)
    }

    /// `P`: number of parameters. The tied LM head counts once; the padding rows do not count.
    pub fn parameters(&self) -> usize {
        let c = self.channels;
        // A block has two layernorms (4C), QKV (3C²+3C), the attention projection (C²+C) and the MLP (4C²+4C and 4C²+C).
        let block = 12 * c * c + 13 * c;
        self.vocab * c + self.context * c + self.layers * block + 2 * c
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameter_counts_are_the_published_ones() {
        for (name, parameters) in [
            ("gpt2-124M", 124_439_808),
            ("gpt2-355M", 354_823_168),
            ("gpt2-774M", 774_030_080),
            ("gpt2-1558M", 1_557_611_200),
        ] {
            assert_eq!(Config::preset(name).unwrap().parameters(), parameters, "{name}");
        }
    }

    #[test]
    fn every_preset_is_valid() {
        for name in Config::preset_names() {
            Config::preset(name).unwrap().check().unwrap();
        }
        for (depth, name) in [("d12", "gpt2-124M"), ("d24", "gpt2-355M"), ("d36", "gpt2-774M"), ("d48", "gpt2-1558M")] {
            assert_eq!(Config::preset(depth).unwrap(), Config::preset(name).unwrap());
        }
        assert_eq!(Config::preset("gpt2-124M").unwrap().padded_vocab(), 50304);
    }

    #[test]
    fn the_largest_vocabulary_is_accepted_and_a_larger_one_is_not() {
        let with = |vocab| Config { vocab, ..Config::preset("tiny").unwrap() };
        with(MAX_VOCAB).check().unwrap();
        let error = with(MAX_VOCAB + 1).check().unwrap_err().to_string();
        assert!(error.contains("1 <= vocab (V) <= 16777216 failed (16777217)"), "{error}");
    }

    #[test]
    fn unknown_presets_and_invalid_sizes_are_rejected_with_the_numbers() {
        for name in ["d7", "d50", "gpt2", ""] {
            let message = Config::preset(name).unwrap_err().to_string();
            assert!(message.contains("gpt2-124M") && message.contains("d48"), "{message}");
        }
        let broken = Config { heads: 5, ..Config::preset("tiny").unwrap() };
        assert_eq!(broken.check().unwrap_err().to_string(), "model: C % NH == 0 failed (C = 128, NH = 5)");
        let empty = Config { layers: 0, ..broken };
        assert!(empty.check().unwrap_err().to_string().contains("layers (L)"));
        let huge = Config { context: 1 << 24, vocab: 1 << 24, layers: 1 << 14, heads: 1 << 16, channels: 1 << 20 };
        assert!(huge.check().unwrap_err().to_string().contains("at most 2^48 parameters"));
        for (broken, message) in [
            (Config { layers: 1 << 24, ..huge }, "model: 1 <= layers (L) <= 16384 failed (16777216)"),
            (Config { heads: (1 << 16) + 1, ..huge }, "model: 1 <= heads (NH) <= 65536 failed (65537)"),
            (
                Config { channels: usize::MAX, ..huge },
                "model: 1 <= channels (C) <= 1048576 failed (18446744073709551615)",
            ),
        ] {
            assert_eq!(broken.check().unwrap_err().to_string(), message);
        }
    }
}
