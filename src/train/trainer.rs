//! One optimizer step: micro-batches, gradient clipping, the update, and the search for the source of non-finite numbers.

use std::ops::Range;

use super::data::MicroBatch;
use super::optimizer::OptimizerConfig;
use super::outlier::OutlierWindow;
use super::prefetch::Prefetcher;
use crate::error::{Error, Result};
use crate::memory::Category;
use crate::model::Gpt2;
use crate::model::activations::{ActivationGrads, Activations, Head, Inputs, Keep, Recompute};
use crate::model::arena::Arena;
use crate::model::config::Config;
use crate::model::forward::AttentionMode;
use crate::model::params::{HostWeights, Layout};
use crate::ops::{AdamW, AdamWSettings, Backend, GradNorm, UpdateGuard, Write, needs_master, philox};
use crate::tensor::{FloatElement, Tensor};

/// Most micro-steps to remember, each of which is a graph on a GPU: 2 slots × 2 write modes, ×2 because ignored targets
/// change the loss scale.
const MAX_MICRO_STEPS: usize = 8;

/// The outcome of a step.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The weights were updated.
    Updated,
    /// The update was skipped: the loss or the gradient norm exceeded the limit derived from recent steps.
    Outlier {
        /// The value and the limit.
        reason: String,
    },
    /// The update was skipped: a number was not finite.
    NonFinite {
        /// The first tensor, in order of computation, that has a non-finite number.
        location: String,
    },
}

/// Results of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepReport {
    /// Mean loss over all rows that are not ignored, in nats per token.
    pub loss: f32,
    /// Global gradient norm before clipping.
    pub grad_norm: f32,
    /// Whether the weights were updated.
    pub outcome: Outcome,
}

/// The part of a trainer's state that is not a tensor.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct TrainerState {
    /// Number of updates so far, for the bias correction.
    pub updates: u64,
    /// Losses of recent steps.
    pub losses: OutlierWindow,
    /// Gradient norms of recent steps.
    pub norms: OutlierWindow,
}

/// A step that is enqueued on the device, with the limits that its loss and norm are checked against.
#[derive(Debug)]
#[must_use = "pass it to `Trainer::finish`, which reads the results of the step"]
pub struct PendingStep {
    loss_limit: f32,
    norm_limit: f32,
}

/// Forward, loss and backward of a micro-batch, identified by the parameters of its operations.
struct MicroStep<G> {
    /// Slot of the [`Prefetcher`].
    slot: usize,
    scale: f64,
    write: Write,
    /// Captured in the second call: the first call loads the kernels, and a micro-step that occurs once needs no graph.
    graph: Option<G>,
}

/// A model that is trained on a backend.
pub struct Trainer<B: Backend> {
    backend: B,
    config: Config,
    params: Arena<B, B::Compute>,
    /// Full-precision weights, if `params` are narrower.
    master: Option<Arena<B, B::Accum>>,
    grads: Arena<B, B::Accum>,
    m: Arena<B, B::Accum>,
    v: Arena<B, B::Accum>,
    norm: Tensor<B, B::Accum>,
    acts: Activations<B>,
    head: Head<B>,
    act_grads: ActivationGrads<B>,
    prefetcher: Prefetcher<B>,
    /// Recent micro-steps, most of which occur again.
    micro_steps: Vec<MicroStep<B::Graph>>,
    optimizer: OptimizerConfig,
    /// RNG seed of the stochastic rounding.
    seed: u64,
    /// Number of updates, and the losses and norms of recent steps.
    pub state: TrainerState,
}

impl<B: Backend> Trainer<B> {
    /// Allocates everything on the backend and uploads the weights. Gradients and moments start at zero.
    ///
    /// # Errors
    /// If allocation or the copy fails.
    pub fn new(
        backend: B,
        weights: HostWeights,
        shape: (usize, usize),
        recompute: Recompute,
        optimizer: OptimizerConfig,
        seed: u64,
    ) -> Result<Self> {
        let (batch, time) = shape;
        let HostWeights { config, layout, data } = weights;
        backend.account_to(Category::Weights);
        let master = needs_master::<B>().then(|| Arena::from_f32(&backend, &layout, data.clone())).transpose()?;
        let params = Arena::from_f32(&backend, &layout, data)?;
        backend.account_to(Category::Gradients);
        let grads = Arena::zeros(&backend, &layout)?;
        backend.account_to(Category::Moments);
        let [m, v] = [Arena::zeros(&backend, &layout)?, Arena::zeros(&backend, &layout)?];
        backend.account_to(Category::Activations);
        let acts = Activations::new(&backend, &config, batch, time, Keep::Backward(recompute))?;
        let head = Head::new(&backend, &config, batch, time)?;
        backend.account_to(Category::ActivationGradients);
        let act_grads = ActivationGrads::new(&backend, &config, batch, time)?;
        backend.account_to(Category::Other);
        Ok(Trainer {
            master,
            params,
            grads,
            m,
            v,
            norm: Tensor::zeros(&backend, [1])?,
            acts,
            head,
            act_grads,
            prefetcher: Prefetcher::new(&backend, batch, time)?,
            micro_steps: Vec::new(),
            backend,
            config,
            optimizer,
            seed,
            state: TrainerState::default(),
        })
    }

    /// The backend.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// The model with the current weights.
    pub fn model(&self) -> Gpt2<'_, B> {
        Gpt2 { backend: &self.backend, config: &self.config, params: &self.params }
    }

    /// Gradients of the last step.
    pub fn grads(&self) -> &Arena<B, B::Accum> {
        &self.grads
    }

    /// Restores a checkpoint: the moments, laid out as the weights, and the rest of the state. If the model reads narrow
    /// weights, they are computed from the full-precision ones exactly as in the last update.
    ///
    /// # Errors
    /// [`Error::Invalid`] for moments of another length; an error of the copy to the device.
    pub fn restore(&mut self, m: &[f32], v: &[f32], state: TrainerState) -> Result<()> {
        if let Some(master) = &self.master
            && state.updates > 0
        {
            let master = master.part_f32(&self.backend, 0..master.layout().len)?;
            let weights = philox::narrow_weights(&master, self.seed, state.updates);
            let weights: Vec<f32> = weights.into_iter().map(f32::from).collect();
            self.params.set_f32(&self.backend, &weights)?;
        }
        self.m.set_f32(&self.backend, m)?;
        self.v.set_f32(&self.backend, v)?;
        self.state = state;
        Ok(())
    }

    /// Mutable access to the weights that the model reads; for tests that corrupt them.
    pub fn params_mut(&mut self) -> &mut Arena<B, B::Compute> {
        &mut self.params
    }

    /// Copies elements `range` of the full-precision weights to host memory, in f32.
    ///
    /// # Errors
    /// If the copy fails.
    pub fn weights_f32(&self, range: Range<usize>) -> Result<Vec<f32>> {
        match &self.master {
            Some(master) => master.part_f32(&self.backend, range),
            None => self.params.part_f32(&self.backend, range),
        }
    }

    /// Copies elements `range` of the first moments to host memory, in f32.
    ///
    /// # Errors
    /// If the copy fails.
    pub fn first_moment_f32(&self, range: Range<usize>) -> Result<Vec<f32>> {
        self.m.part_f32(&self.backend, range)
    }

    /// Copies elements `range` of the second moments to host memory, in f32.
    ///
    /// # Errors
    /// If the copy fails.
    pub fn second_moment_f32(&self, range: Range<usize>) -> Result<Vec<f32>> {
        self.v.part_f32(&self.backend, range)
    }

    /// One optimizer step over the micro-batches: gradients, norm, update.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there is no micro-batch or one of another size; those of the operations, e.g. a token outside
    /// the vocabulary. In these cases the weights are unchanged. After an error of the update itself, some may have
    /// changed.
    pub fn step(&mut self, batches: &[MicroBatch], learning_rate: f32) -> Result<StepReport> {
        let pending = self.enqueue(batches, learning_rate)?;
        self.finish(pending, batches)
    }

    /// Enqueues the work of [`Trainer::step`] without waiting for it, so that the host can prepare the next micro-batches
    /// while the device computes.
    ///
    /// # Errors
    /// As [`Trainer::step`].
    pub fn enqueue(&mut self, batches: &[MicroBatch], learning_rate: f32) -> Result<PendingStep> {
        self.check(batches)?;
        self.gradients(batches)?;
        self.backend.grad_norm(GradNorm { grad: self.grads.flat(), norm: self.norm.view_mut() })?;
        let limit = |window: &OutlierWindow, z: f32| if z > 0.0 { window.limit(z) } else { f32::INFINITY };
        let loss_limit = limit(&self.state.losses, self.optimizer.skip_loss_z);
        let norm_limit = limit(&self.state.norms, self.optimizer.skip_norm_z);
        self.update(learning_rate, loss_limit, norm_limit)?;
        Ok(PendingStep { loss_limit, norm_limit })
    }

    /// Prefetches the first micro-batch of the next step to the device, concurrently with the enqueued step.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a micro-batch of another size; an error of the copy.
    pub fn prefetch(&mut self, batch: &MicroBatch) -> Result<()> {
        self.check(std::slice::from_ref(batch))?;
        self.prefetcher.prefetch(&self.backend, batch.clone())
    }

    /// Waits for a pending step, which was enqueued with these micro-batches.
    ///
    /// # Errors
    /// If the device is lost.
    pub fn finish(&mut self, pending: PendingStep, batches: &[MicroBatch]) -> Result<StepReport> {
        let PendingStep { loss_limit, norm_limit } = pending;
        // The only point of a step where the host waits for the device.
        let loss = self.head.total.to_vec(&self.backend)?[0].to_f32();
        let grad_norm = self.norm.to_vec(&self.backend)?[0].to_f32();
        self.state.losses.push(loss);
        self.state.norms.push(grad_norm);
        let outcome = if !loss.is_finite() || !grad_norm.is_finite() {
            Outcome::NonFinite { location: self.first_non_finite(batches)? }
        } else if loss > loss_limit {
            Outcome::Outlier { reason: format!("loss {loss} is above {loss_limit}") }
        } else if grad_norm > norm_limit {
            Outcome::Outlier { reason: format!("gradient norm {grad_norm} is above {norm_limit}") }
        } else {
            self.state.updates += 1;
            Outcome::Updated
        };
        Ok(StepReport { loss, grad_norm, outcome })
    }

    /// Sum of the losses of a micro-batch, in nats, over the rows that are not ignored. Does not change the weights.
    ///
    /// # Errors
    /// Those of the operations.
    pub fn evaluate(&mut self, batch: &MicroBatch) -> Result<f64> {
        self.check(std::slice::from_ref(batch))?;
        let slot = self.prefetcher.acquire(&self.backend, batch)?;
        let model = Gpt2 { backend: &self.backend, config: &self.config, params: &self.params };
        let Inputs { tokens, targets } = self.prefetcher.inputs(slot);
        model.evaluate(&mut self.acts, &mut self.head, tokens.view(), targets.view())?;
        self.prefetcher.release(&self.backend, slot)?;
        let losses = self.head.losses.to_vec(&self.backend)?;
        Ok(losses.into_iter().map(|loss| f64::from(loss.to_f32())).sum())
    }

    fn check(&self, batches: &[MicroBatch]) -> Result<()> {
        let rows = self.acts.batch * self.acts.time;
        if batches.is_empty() {
            return Err(Error::invalid("a step needs at least one micro-batch"));
        }
        for MicroBatch { tokens, targets } in batches {
            if tokens.len() != rows || targets.len() != rows {
                let (tokens, targets) = (tokens.len(), targets.len());
                return Err(Error::invalid(format!(
                    "a micro-batch has {tokens} tokens and {targets} targets, not B·T = {rows} of each"
                )));
            }
        }
        Ok(())
    }

    /// Gradients and mean loss over the micro-batches.
    fn gradients(&mut self, batches: &[MicroBatch]) -> Result<()> {
        let counted: usize = batches.iter().map(|b| b.targets.iter().filter(|&&t| t >= 0).count()).sum();
        let scale = 1.0 / counted.max(1) as f64;
        let mut write = Write::Overwrite;
        for batch in batches {
            let slot = self.prefetcher.acquire(&self.backend, batch)?;
            self.micro_step(slot, scale, write)?;
            self.prefetcher.release(&self.backend, slot)?;
            write = Write::Accumulate;
        }
        Ok(())
    }

    /// Forward, loss and backward of the micro-batch in a slot of the prefetcher.
    fn micro_step(&mut self, slot: usize, scale: f64, write: Write) -> Result<()> {
        let Trainer { backend, config, params, acts, head, act_grads, grads, prefetcher, micro_steps, .. } = self;
        let known = micro_steps.iter().position(|s| (s.slot, s.scale, s.write) == (slot, scale, write));
        if let Some(graph) = known.and_then(|index| micro_steps[index].graph.as_ref()) {
            return backend.replay(graph);
        }
        let Inputs { tokens, targets } = prefetcher.inputs(slot);
        let mut work = || {
            let model = Gpt2 { backend, config, params };
            model.forward(acts, tokens.view(), AttentionMode::Uncached)?;
            model.loss(acts, head, targets.view(), scale, write)?;
            model.backward(acts, head, tokens.view(), act_grads, grads, write)
        };
        match known {
            Some(index) => micro_steps[index].graph = backend.capture(&mut work)?,
            None => {
                work()?;
                // A step with ignored targets has a scale of its own, which rarely occurs again: such micro-steps, which
                // were called once, are evicted first.
                if micro_steps.len() == MAX_MICRO_STEPS {
                    let once = micro_steps.iter().position(|step| step.graph.is_none());
                    micro_steps.remove(once.unwrap_or(0));
                }
                micro_steps.push(MicroStep { slot, scale, write, graph: None });
            }
        }
        Ok(())
    }

    /// AdamW on the tensors with weight decay, then on those without.
    fn update(&mut self, learning_rate: f32, loss_limit: f32, norm_limit: f32) -> Result<()> {
        let OptimizerConfig { beta1, beta2, eps, weight_decay, grad_clip, .. } = self.optimizer;
        let (decayed, len) = (self.params.layout().decayed, self.params.layout().len);
        for (range, weight_decay) in [(0..decayed, weight_decay), (decayed..len, 0.0)] {
            let shape = [range.len()];
            self.backend.adamw(AdamW {
                weight: self.params.flat_mut().into_part(range.start, shape),
                master: self.master.as_mut().map(|master| master.flat_mut().into_part(range.start, shape)),
                grad: self.grads.flat().part(range.start, shape),
                m: self.m.flat_mut().into_part(range.start, shape),
                v: self.v.flat_mut().into_part(range.start, shape),
                guard: UpdateGuard { norm: self.norm.view(), loss: self.head.total.view(), norm_limit, loss_limit },
                settings: AdamWSettings {
                    learning_rate,
                    beta1,
                    beta2,
                    eps,
                    weight_decay,
                    step: self.state.updates + 1,
                    max_norm: if grad_clip > 0.0 { grad_clip } else { f32::INFINITY },
                    seed: self.seed,
                    first_index: range.start as u64,
                },
            })?;
        }
        Ok(())
    }

    /// Finds the source of the step's first non-finite number. The step did not change the weights, so the forward passes
    /// can be repeated and their activations inspected.
    fn first_non_finite(&mut self, batches: &[MicroBatch]) -> Result<String> {
        for (index, batch) in batches.iter().enumerate() {
            self.evaluate(batch)?;
            let stage = |entry: usize| match entry {
                0 => "the embedding".to_string(),
                entry if entry % 2 == 1 => format!("block {}'s attention", (entry - 1) / 2),
                entry => format!("block {}'s MLP", (entry - 1) / 2),
            };
            for entry in 0..=2 * self.config.layers {
                if has_non_finite(&self.acts.residual.at(entry).to_vec(&self.backend)?) {
                    return Ok(format!("output of {} in micro-batch {index}", stage(entry)));
                }
            }
            if has_non_finite(&self.acts.lnf_out.to_vec(&self.backend)?) {
                return Ok(format!("output of the final layernorm in micro-batch {index}"));
            }
            if has_non_finite(&self.head.losses.to_vec(&self.backend)?) {
                return Ok(format!("loss of micro-batch {index}"));
            }
        }
        let layout = self.grads.layout();
        Ok(bad_gradient(&self.grads.part_f32(&self.backend, 0..layout.len)?, layout, self.config.layers))
    }
}

/// Finds the gradient in which the backward pass first produced a non-finite number. The backward pass starts at the final
/// layernorm, proceeds from the last block to the first, and ends at the embedding.
fn bad_gradient(grads: &[f32], layout: &Layout, layers: usize) -> String {
    let slots = layout.slots.as_ref().into_array();
    let bad = slots.iter().filter_map(|(name, slot)| {
        let at = grads[slot.range.clone()].iter().rposition(|x| !x.is_finite())?;
        let layer = slot.is_stacked.then(|| at / (slot.range.len() / layers));
        let order = layer.map_or(if name.starts_with("lnf") { layers + 1 } else { 0 }, |layer| layer + 1);
        Some((order, layer, *name))
    });
    match bad.max() {
        Some((_, Some(layer), _)) => format!("gradients of block {layer}"),
        Some((_, None, name)) => format!("gradient of {name}"),
        None => "the gradient norm, which overflows f32".to_string(),
    }
}

fn has_non_finite<E: FloatElement>(values: &[E]) -> bool {
    values.iter().any(|x| !x.to_f32().is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_gradient_is_attributed_to_where_the_backward_first_produced_it() {
        let config = Config { context: 4, vocab: 5, layers: 3, heads: 1, channels: 2 };
        let layout = Layout::new(&config);
        let location = |bad: &[usize]| {
            let mut grads = vec![1.0; layout.len];
            bad.iter().for_each(|&at| grads[at] = f32::NAN);
            bad_gradient(&grads, &layout, config.layers)
        };
        let slots = &layout.slots;
        // Element 1 of block l in a tensor.
        let in_block = |range: &Range<usize>, l: usize| range.start + l * range.len() / config.layers + 1;
        let [qkv, wte] = [&slots.qkv_weight.range, &slots.wte.range];
        for l in 0..config.layers {
            // Gradients that the backward computes later are bad too.
            let bad: Vec<usize> = (0..=l).map(|l| in_block(qkv, l)).chain([wte.start]).collect();
            assert_eq!(location(&bad), format!("gradients of block {l}"));
            assert_eq!(location(&[in_block(&slots.ln2_bias.range, l)]), format!("gradients of block {l}"));
        }
        assert_eq!(location(&[in_block(qkv, 2), slots.lnf_bias.range.start]), "gradient of lnf_bias");
        assert_eq!(location(&[wte.start]), "gradient of wte");
        assert!(location(&[]).contains("gradient norm"));
    }
}
