//! Not there yet.

use super::spec::Spec;
use super::{Cuda, missing};
use crate::error::Result;
use crate::ops::GradNorm;

pub(super) const KERNELS: &[Spec] = &[];

pub(super) fn norm(_: &Cuda, op: GradNorm<'_, Cuda>) -> Result<()> {
    missing(op)
}
