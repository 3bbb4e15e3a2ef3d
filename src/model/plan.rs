//! Memory planning: how much memory a training step needs, computed without allocating it.

use std::cell::Cell;
use std::marker::PhantomData;

use super::activations::{ActivationGrads, Activations, Head, Inputs, Keep, Recompute};
use super::config::Config;
use super::params::Layout;
use crate::error::Result;
use crate::memory::Category;
use crate::ops::{Backend, StepSizes, needs_master};
use crate::tensor::{Element, FloatElement, Storage, View, ViewMut};

/// A storage that allocates nothing and counts the bytes of all allocations.
///
/// The memory of activations is thus computed by the code that allocates them.
#[derive(Default)]
struct Counter<C, A> {
    bytes: Cell<u64>,
    types: PhantomData<(C, A)>,
}

impl<C: FloatElement, A: FloatElement> Storage for Counter<C, A> {
    type Compute = C;
    type Accum = A;
    const VECTOR: usize = 1;
    type Buffer<E: Element> = ();
    type SliceMut<'a, E: Element> = ();
    type External = std::convert::Infallible;

    fn zeros<E: Element>(&self, len: usize) -> Result<()> {
        let bytes = (len as u64).saturating_mul(E::BYTES as u64);
        self.bytes.set(self.bytes.get().saturating_add(bytes));
        Ok(())
    }
    fn adopt<E: Element>(&self, data: Vec<E>) -> Result<()> {
        self.zeros::<E>(data.len())
    }
    fn slice_mut<E: Element>(_: &mut ()) {}
    fn split_at_mut<'a, E: Element>((): (), _: usize) -> (Self::SliceMut<'a, E>, Self::SliceMut<'a, E>) {
        ((), ())
    }
    fn reborrow<E: Element>((): &mut ()) {}
    fn upload<E: Element>(&self, _: &[E], _: ViewMut<'_, Self, E>) -> Result<()> {
        Ok(())
    }
    type Event = ();
    fn record_event(&self) -> Result<()> {
        Ok(())
    }
    fn upload_async<E: Element>(&self, (): &(), _: &[E], _: ViewMut<'_, Self, E>) -> Result<()> {
        Ok(())
    }
    fn wait_event(&self, (): &()) -> Result<()> {
        Ok(())
    }
    fn download<E: Element>(&self, _: View<'_, Self, E>, _: &mut [E]) -> Result<()> {
        Ok(())
    }
}

/// Bytes that a training step needs, by purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct MemoryPlan {
    /// Weights that the matmuls read.
    pub weights: u64,
    /// Full-precision master weights, if the weights are narrower.
    pub master: u64,
    /// Gradients of the weights.
    pub gradients: u64,
    /// AdamW's two moments.
    pub moments: u64,
    /// Activations that the forward pass keeps, including logits.
    pub activations: u64,
    /// Gradients of the activations.
    pub activation_gradients: u64,
    /// Workspace that operations need while they run.
    pub workspace: u64,
    /// Token ids, and the gradient norm.
    pub other: u64,
}

impl MemoryPlan {
    /// The plan for micro-batches of (batch, time) tokens on a backend. On a GPU, the driver needs additional memory for its
    /// context and the kernels' code.
    ///
    /// # Errors
    /// None for sizes that [`Config::check`] accepts.
    pub fn new<B: Backend>(config: &Config, batch: usize, time: usize, recompute: Recompute) -> Result<Self> {
        let [kept, backward, inputs] = [(); 3].map(|()| Counter::<B::Compute, B::Accum>::default());
        Activations::new(&kept, config, batch, time, Keep::Backward(recompute))?;
        Head::new(&kept, config, batch, time)?;
        ActivationGrads::new(&backward, config, batch, time)?;
        Inputs::pair(&inputs, batch, time)?;
        let len = Layout::new(config).len;
        let Config { heads, channels, .. } = *config;
        let sizes = StepSizes { b: batch, t: time, nh: heads, c: channels, vp: config.padded_vocab(), parameters: len };
        let (parameters, number) = (len as u64, B::Accum::BYTES as u64);
        let full = parameters * number;
        Ok(MemoryPlan {
            weights: parameters * B::Compute::BYTES as u64,
            master: if needs_master::<B>() { full } else { 0 },
            gradients: full,
            moments: 2 * full,
            activations: kept.bytes.get(),
            activation_gradients: backward.bytes.get(),
            workspace: B::workspace_bytes(sizes),
            other: inputs.bytes.get().saturating_add(number),
        })
    }

    /// Bytes per category, as backends account for them.
    pub fn by_category(&self) -> [(Category, u64); 7] {
        let MemoryPlan { weights, master, gradients, moments, activations, activation_gradients, workspace, other } =
            *self;
        [
            (Category::Weights, weights.saturating_add(master)),
            (Category::Gradients, gradients),
            (Category::Moments, moments),
            (Category::Activations, activations),
            (Category::ActivationGradients, activation_gradients),
            (Category::Workspace, workspace),
            (Category::Other, other),
        ]
    }

    /// Total number of bytes.
    pub fn total(&self) -> u64 {
        self.by_category().into_iter().fold(0, |total, (_, bytes)| total.saturating_add(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Cpu;

    #[test]
    fn a_small_plan_equals_a_count_by_hand() {
        let config = Config { context: 8, vocab: 100, layers: 2, heads: 2, channels: 4 };
        let plan = |recompute| MemoryPlan::new::<Cpu<f32>>(&config, 3, 5, recompute).unwrap();
        let parameters = (128 * 4 + 8 * 4 + 2 * (12 * 16 + 13 * 4) + 2 * 4) * 4;
        let none = plan(Recompute::None);
        assert_eq!((none.weights, none.gradients, none.moments), (parameters, parameters, 2 * parameters));
        assert_eq!(none.master, 0);
        let n = 15;
        // Per layer: two residuals, two layernorms with two statistics each, QKV, the attention output with one lse per
        // head, and the MLP before and after GELU.
        let layer = n * (2 * 4 + 2 * (4 + 2) + 12 + (4 + 2) + 2 * 16);
        let ends = n * 4 + n * (4 + 2) + n * 128 + n + 1;
        assert_eq!(none.activations, 4 * (2 * layer + ends));
        assert_eq!(none.activation_gradients, 4 * n * (4 + 4 + 12 + 16));
        assert_eq!((none.workspace, none.other), (0, 4 * (2 * 2 * n + 1)));
        assert_eq!(none.total(), 4 * parameters + none.activations + none.activation_gradients + none.other);
        assert_eq!(plan(Recompute::Gelu).activations, none.activations - 4 * n * 16);
        assert_eq!(plan(Recompute::Layernorm).activations, none.activations - 4 * n * (16 + 2 * 4));
    }
}
