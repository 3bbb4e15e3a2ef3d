//! Not there yet.

use super::spec::Spec;
use super::{Cuda, missing};
use crate::error::Result;
use crate::ops::{LayerNormBackward, LayerNormForward, ResidualLayerNormForward};

pub(super) const KERNELS: &[Spec] = &[];

pub(super) fn forward(_: &Cuda, op: LayerNormForward<'_, Cuda>) -> Result<()> {
    missing(op)
}

pub(super) fn residual_forward(_: &Cuda, op: ResidualLayerNormForward<'_, Cuda>) -> Result<()> {
    missing(op)
}

pub(super) fn backward(_: &Cuda, op: LayerNormBackward<'_, Cuda>) -> Result<()> {
    missing(op)
}
