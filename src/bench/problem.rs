//! What is measured: an operation with its sizes.

use std::fmt;

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::cases::Info;
use crate::error::{Error, Result};
use crate::model::config::Config;

/// The micro-batch of a model that problems are taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    /// The model.
    pub config: Config,
    /// B: sequences.
    pub batch: usize,
    /// T: tokens of a sequence.
    pub context: usize,
}

impl Workload {
    /// A micro-batch of `tokens` tokens: full sequences of the model's context, or one shorter sequence.
    ///
    /// # Errors
    /// [`Error::Invalid`] when `tokens` is 0 or not a multiple of the sequence length.
    pub fn new(config: Config, tokens: usize) -> Result<Self> {
        let context = tokens.min(config.context);
        if tokens == 0 || !tokens.is_multiple_of(context) {
            return Err(Error::invalid(format!(
                "{tokens} tokens are not a whole number of sequences of {context} tokens"
            )));
        }
        Ok(Workload { config, batch: tokens / context, context })
    }

    /// N = B·T.
    pub fn rows(&self) -> usize {
        self.batch * self.context
    }
}

/// An operation with its sizes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Problem {
    /// [`crate::ops::Operation::NAME`].
    pub op: &'static str,
    names: &'static [&'static str],
    sizes: Vec<usize>,
    /// Variant of the operation; empty for an operation without variants.
    pub variant: &'static str,
}

impl Problem {
    /// A problem with sizes in the order of [`Info::sizes`]. Panics when their number differs: each case of
    /// `src/bench/cases` writes both lists.
    pub(super) fn new(info: &Info, sizes: Vec<usize>, variant: &'static str) -> Self {
        assert_eq!(sizes.len(), info.sizes.len(), "sizes of {}", info.op);
        assert!(info.variants.is_empty() || info.variants.contains(&variant), "{} {variant}", info.op);
        Problem { op: info.op, names: info.sizes, sizes, variant }
    }

    /// Parses text such as `n=1024,c=768,variant=bias`. Sizes that the text leaves out are those of `defaults`.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the size or variant that the operation does not have, or the value that is not valid.
    pub fn parse(info: &Info, text: &str, defaults: &Problem) -> Result<Self> {
        let mut problem = defaults.clone();
        for part in text.split(',') {
            let invalid = |why: String| Error::invalid(format!("shape '{text}' of {}: {why}", info.op));
            let (name, value) = part.split_once('=').ok_or_else(|| invalid(format!("'{part}' is not NAME=SIZE")))?;
            if name == "variant" {
                let variant = info.variants.iter().find(|variant| **variant == value);
                let unknown =
                    || invalid(format!("unknown variant '{value}'; expected one of: {}", info.variants.join(", ")));
                problem.variant = variant.ok_or_else(unknown)?;
                continue;
            }
            let index = info.sizes.iter().position(|size| *size == name);
            let unknown = || invalid(format!("unknown size '{name}'; expected one of: {}", info.sizes.join(", ")));
            let index = index.ok_or_else(unknown)?;
            // No memory holds a dimension above 2^40.
            let size = value.parse().ok().filter(|size| (1..=1usize << 40).contains(size));
            problem.sizes[index] = size.ok_or_else(|| invalid(format!("{name} = '{value}' is not a valid size")))?;
        }
        Ok(problem)
    }

    /// All sizes, in the order of [`Info::sizes`].
    pub fn sizes(&self) -> &[usize] {
        &self.sizes
    }

    /// All sizes as an array. Panics when the problem has another number of sizes.
    pub(super) fn get<const R: usize>(&self) -> [usize; R] {
        self.sizes.as_slice().try_into().unwrap_or_else(|_| panic!("{self} does not have {R} sizes"))
    }

    /// The problem with each size that `caps` names limited to the given maximum.
    pub(super) fn capped(&self, caps: &[(&str, usize)]) -> Self {
        let mut problem = self.clone();
        for (name, size) in self.names.iter().zip(&mut problem.sizes) {
            let cap = caps.iter().find(|(capped, _)| capped == name);
            *size = cap.map_or(*size, |(_, cap)| (*size).min(*cap));
        }
        problem
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.op, self.shape())
    }
}

impl Problem {
    /// The sizes and the variant as text: `n=1024 c=768 bias`.
    pub fn shape(&self) -> String {
        let sizes = self.names.iter().zip(&self.sizes).map(|(name, size)| format!("{name}={size}"));
        let variant = Some(self.variant.to_owned()).filter(|variant| !variant.is_empty());
        sizes.chain(variant).collect::<Vec<_>>().join(" ")
    }
}

/// Serialises the shape without the operation's name: `{"n": 1024, "c": 768, "variant": "bias"}`.
impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, size) in self.names.iter().zip(&self.sizes) {
            map.serialize_entry(name, size)?;
        }
        if !self.variant.is_empty() {
            map.serialize_entry("variant", self.variant)?;
        }
        map.end()
    }
}
