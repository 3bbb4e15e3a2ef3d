//! What all operations have in common: operand types, write modes, floors and the [`Operation`] trait.

use crate::error::Result;
use crate::tensor::{Storage, View, ViewMut};

/// Read access to activations or weights.
pub type Compute<'a, S> = View<'a, S, <S as Storage>::Compute>;
/// Write access to activations or weights.
pub type ComputeMut<'a, S> = ViewMut<'a, S, <S as Storage>::Compute>;
/// Read access to statistics, weight gradients or optimizer state.
pub type Accum<'a, S> = View<'a, S, <S as Storage>::Accum>;
/// Write access to statistics, weight gradients or optimizer state.
pub type AccumMut<'a, S> = ViewMut<'a, S, <S as Storage>::Accum>;
/// Read access to token ids.
pub type Ids<'a, S> = View<'a, S, i32>;
/// Write access to token ids.
pub type IdsMut<'a, S> = ViewMut<'a, S, i32>;

/// ε of layernorm in GPT-2.
pub const LAYERNORM_EPS: f64 = 1e-5;

/// Write mode of an output: overwrite the previous content or accumulate onto it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// `=`: the previous content is not read.
    Overwrite,
    /// `+=`: the result is added to the previous content.
    Accumulate,
}

impl Write {
    /// Minimum number of memory accesses per output element.
    pub(super) fn accesses(self) -> usize {
        match self {
            Write::Overwrite => 1,
            Write::Accumulate => 2,
        }
    }
}

/// Lower bounds on the work of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Floor {
    /// Bytes read and written when every input is read once and every output is written once.
    pub bytes: u64,
    /// Floating-point operations; a multiply-add counts as two. Zero for memory-bound operations.
    pub flops: u64,
}

/// An operation together with its operands.
pub trait Operation {
    /// Name in messages, tables and benchmarks; also the prefix of its kernels' names.
    const NAME: &'static str;
    /// The sizes that [`Operation::check`] derives from the operands.
    type Dims;

    /// Derives the sizes from the operands and checks the operation's preconditions.
    ///
    /// # Errors
    /// [`Error::Precondition`](crate::Error::Precondition) with the first violated rule and the numbers that violate it.
    fn check(&self) -> Result<Self::Dims>;

    /// Minimum bytes and FLOPs for these operands.
    fn floor(&self) -> Floor;
}
