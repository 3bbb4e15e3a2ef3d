//! What is measured: an operation with its sizes.

use std::fmt;

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::cases::Info;
use crate::error::{Error, Result};
use crate::model::config::Config;

/// The part of training that problems are taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    /// The model.
    pub config: Config,
    /// B.
    pub batch: usize,
    /// T.
    pub context: usize,
}

impl Workload {
    /// A micro-batch of a model: whole sequences of its context, or one shorter sequence.
    ///
    /// # Errors
    /// [`Error::Invalid`] when `tokens` is neither.
    pub fn new(config: Config, tokens: usize) -> Result<Self> {
        let context = tokens.min(config.context);
        if tokens == 0 || !tokens.is_multiple_of(context) {
            return Err(Error::invalid(format!("{tokens} tokens are no whole sequences of {context}")));
        }
        Ok(Workload { config, batch: tokens / context, context })
    }

    /// N.
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
    /// Which form of the operation; empty where there is one.
    pub variant: &'static str,
}

impl Problem {
    /// Sizes in the order of [`Info::sizes`]. Panics when they are more or fewer: they are written beside each other.
    pub(super) fn new(info: &Info, sizes: Vec<usize>, variant: &'static str) -> Self {
        assert_eq!(sizes.len(), info.sizes.len(), "sizes of {}", info.op);
        assert!(info.variants.is_empty() || info.variants.contains(&variant), "{} {variant}", info.op);
        Problem { op: info.op, names: info.sizes, sizes, variant }
    }

    /// Of text such as `n=1024,c=768,variant=bias`. What is not said is as in `like`.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming what the operation does not have.
    pub fn parse(info: &Info, text: &str, like: &Problem) -> Result<Self> {
        let mut problem = like.clone();
        for part in text.split(',') {
            let invalid = |why: String| Error::invalid(format!("shape '{text}' of {}: {why}", info.op));
            let (name, value) = part.split_once('=').ok_or_else(|| invalid(format!("'{part}' is no NAME=SIZE")))?;
            if name == "variant" {
                let variant = info.variants.iter().find(|variant| **variant == value);
                let none = || invalid(format!("no variant '{value}'; there are: {}", info.variants.join(", ")));
                problem.variant = variant.ok_or_else(none)?;
                continue;
            }
            let place = info.sizes.iter().position(|size| *size == name);
            let place =
                place.ok_or_else(|| invalid(format!("no size '{name}'; there are {}", info.sizes.join(", "))))?;
            // Above 2^40 nothing fits any memory, and products of two still fit in 64 bits with room.
            let size = value.parse().ok().filter(|size| (1..=1usize << 40).contains(size));
            problem.sizes[place] = size.ok_or_else(|| invalid(format!("{name} = '{value}' is no size")))?;
        }
        Ok(problem)
    }

    /// All sizes, in the order of [`Info::sizes`].
    pub fn sizes(&self) -> &[usize] {
        &self.sizes
    }

    /// All sizes. Panics when they are not so many.
    pub(super) fn get<const R: usize>(&self) -> [usize; R] {
        self.sizes.as_slice().try_into().unwrap_or_else(|_| panic!("{self} has not {R} sizes"))
    }

    /// With every size of a name at most so large.
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
    /// `n=1024 c=768 bias`.
    pub fn shape(&self) -> String {
        let sizes = self.names.iter().zip(&self.sizes).map(|(name, size)| format!("{name}={size}"));
        let variant = Some(self.variant.to_owned()).filter(|variant| !variant.is_empty());
        sizes.chain(variant).collect::<Vec<_>>().join(" ")
    }
}

/// The shape alone: `{"n": 1024, "c": 768, "variant": "bias"}`.
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
