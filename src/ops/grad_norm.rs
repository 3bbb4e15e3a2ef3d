//! The global gradient norm, for clipping.

use super::check::{Rules, bytes};
use super::operation::{Accum, AccumMut, Floor, Operation};
use crate::error::Result;
use crate::tensor::Storage;

/// `norm = √(Σ grad²)`, summed in a fixed order
///
/// The norm is not finite if any element is not finite or if the sum overflows. Source: Pascanu et al. 2013.
pub struct GradNorm<'a, S: Storage> {
    /// (P), the gradients of all parameters. P must be a multiple of [`Storage::VECTOR`].
    pub grad: Accum<'a, S>,
    /// (1) `=`.
    pub norm: AccumMut<'a, S>,
}

impl<S: Storage> Operation for GradNorm<'_, S> {
    const NAME: &'static str = "grad_norm";
    /// P, the number of parameters.
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
