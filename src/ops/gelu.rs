//! GELU, the activation function of GPT-2's MLP, as a standalone operation. The forward pass fuses it into a matmul;
//! activation recomputation needs it alone.

use super::check::{Rules, bytes};
use super::operation::{Compute, ComputeMut, Floor, Operation};
use crate::error::Result;
use crate::tensor::Storage;

/// `out = gelu(x)`, with `gelu(x) = x/2 · (1 + tanh(√(2/π) · (x + 0.044715·x³)))`
///
/// Gives the same bits as the fused [`super::Epilogue::BiasGelu`] on the same pre-activation. Source: Hendrycks and Gimpel
/// 2016, in the tanh approximation that GPT-2 uses.
pub struct GeluForward<'a, S: Storage> {
    /// (N, C), the pre-activation.
    pub x: Compute<'a, S>,
    /// (N, C) `=`.
    pub out: ComputeMut<'a, S>,
}

impl<S: Storage> Operation for GeluForward<'_, S> {
    const NAME: &'static str = "gelu_forward";
    /// Number of elements.
    type Dims = usize;

    fn check(&self) -> Result<usize> {
        let rules = Rules(Self::NAME);
        let [n, c] = self.x.shape().matrix();
        rules.not_empty("x", self.x.shape())?;
        rules.matrix("out", "(N, C)", self.out.shape(), [n, c])?;
        rules.vectors::<S>("C", c)?;
        Ok(n * c)
    }

    fn floor(&self) -> Floor {
        Floor { bytes: bytes::<S::Compute>(2 * self.x.shape().len()), flops: 0 }
    }
}
