//! The global gradient norm, for clipping.

use super::check::{Rules, bytes};
use super::{Accum, AccumMut, Floor, Operation};
use crate::error::Result;
use crate::tensor::Storage;

/// `norm = √(Σ grad²)`, summed in a fixed order
///
/// Not finite when any element is not, or when the sum passes the type's range. Source: Pascanu et al. 2013.
pub struct GradNorm<'a, S: Storage> {
    /// (P), every gradient. P a multiple of [`Storage::VECTOR`].
    pub grad: Accum<'a, S>,
    /// (1) `=`.
    pub norm: AccumMut<'a, S>,
}

impl<S: Storage> Operation for GradNorm<'_, S> {
    const NAME: &'static str = "grad_norm";
    /// P.
    type Dims = usize;

    fn check(&self) -> Result<usize> {
        let rules = Rules(Self::NAME);
        rules.not_empty("grad", self.grad.shape())?;
        rules.shape("norm", "(1)", self.norm.shape(), [1])?;
        rules.vectors::<S>("P", self.grad.shape().len())?;
        Ok(self.grad.shape().len())
    }

    fn floor(&self) -> Floor {
        Floor { bytes: bytes::<S::Accum>(self.grad.shape().len() + 1), flops: 0 }
    }
}
