//! Not there yet.

use super::spec::Spec;
use super::{Cuda, missing};
use crate::error::Result;
use crate::ops::{EmbeddingBackward, EmbeddingForward};

pub(super) const KERNELS: &[Spec] = &[];

pub(super) fn forward(_: &Cuda, op: EmbeddingForward<'_, Cuda>) -> Result<()> {
    missing(op)
}

pub(super) fn backward(_: &Cuda, op: EmbeddingBackward<'_, Cuda>) -> Result<()> {
    missing(op)
}
