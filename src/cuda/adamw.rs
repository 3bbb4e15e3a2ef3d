//! Not there yet.

use super::spec::Spec;
use super::{Cuda, missing};
use crate::error::Result;
use crate::ops::AdamW;

pub(super) const KERNELS: &[Spec] = &[];

pub(super) fn update(_: &Cuda, op: AdamW<'_, Cuda>) -> Result<()> {
    missing(op)
}
