//! One optimizer step: micro-batches, clipping, the update, and what to say when a number is not finite.

use std::ops::Range;

use super::feed::Feed;
use super::outlier::OutlierWindow;
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

/// Micro-steps that are kept, each a graph on a GPU: two places by two ways to write, and as many again.
const MOST_MICRO_STEPS: usize = 8;

/// The optimizer's settings that stay the same over a run.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Optimizer {
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decoupled decay of the 2-D tensors.
    pub weight_decay: f32,
    /// Largest global gradient norm; 0 for no clipping.
    pub grad_clip: f32,
    /// Steps whose loss is this many standard deviations above the recent ones are skipped; 0 for none.
    pub skip_loss_z: f32,
    /// Steps whose gradient norm is this many standard deviations above the recent ones are skipped; 0 for none.
    pub skip_norm_z: f32,
}

impl Default for Optimizer {
    fn default() -> Self {
        Optimizer {
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            grad_clip: 1.0,
            skip_loss_z: 0.0,
            skip_norm_z: 0.0,
        }
    }
}

/// One micro-batch on the host, (B, T) each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MicroBatch {
    /// Inputs.
    pub tokens: Vec<i32>,
    /// Targets; negative ones are ignored.
    pub targets: Vec<i32>,
}

/// What became of a step.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The weights moved.
    Updated,
    /// Nothing moved: loss or norm was above the limit of the recent ones.
    Outlier {
        /// What was above which limit.
        reason: String,
    },
    /// Nothing moved: a number was not finite.
    NonFinite {
        /// The first place with such a number.
        place: String,
    },
}

/// Numbers of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepReport {
    /// Mean over all rows that count, nats a token.
    pub loss: f32,
    /// Global gradient norm before clipping.
    pub grad_norm: f32,
    /// What became of it.
    pub outcome: Outcome,
}

/// What of a trainer's state is not a tensor.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct TrainerState {
    /// Updates made, for the bias correction.
    pub updates: u64,
    /// Recent losses.
    pub losses: OutlierWindow,
    /// Recent gradient norms.
    pub norms: OutlierWindow,
}

/// A step whose work is queued: what decides whether its update happens.
#[derive(Debug)]
#[must_use = "the step's numbers have to be read"]
pub struct Queued {
    loss_limit: f32,
    norm_limit: f32,
}

/// Forward, loss and backward of a micro-batch, with the numbers that its operations are given.
struct MicroStep<R> {
    place: usize,
    scale: f64,
    write: Write,
    /// Made the second time: the first loads the kernels, and a single one needs none.
    recording: Option<R>,
}

/// A model in training on a backend.
pub struct Trainer<B: Backend> {
    backend: B,
    config: Config,
    params: Arena<B, B::Compute>,
    /// Full-precision weights, where `params` are narrower.
    master: Option<Arena<B, B::Accum>>,
    grads: Arena<B, B::Accum>,
    m: Arena<B, B::Accum>,
    v: Arena<B, B::Accum>,
    norm: Tensor<B, B::Accum>,
    acts: Activations<B>,
    head: Head<B>,
    act_grads: ActivationGrads<B>,
    feed: Feed<B>,
    /// Those that were done, most of which come again.
    micro_steps: Vec<MicroStep<B::Graph>>,
    optimizer: Optimizer,
    /// Key of the stochastic rounding.
    seed: u64,
    /// Updates and recent values.
    pub state: TrainerState,
}

impl<B: Backend> Trainer<B> {
    /// Takes the weights over; gradients and moments start at zero.
    ///
    /// # Errors
    /// When the memory cannot be had.
    pub fn new(
        backend: B,
        weights: HostWeights,
        shape: (usize, usize),
        recompute: Recompute,
        optimizer: Optimizer,
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
            feed: Feed::new(&backend, batch, time)?,
            micro_steps: Vec::new(),
            backend,
            config,
            optimizer,
            seed,
            state: TrainerState::default(),
        })
    }

    /// The device.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// The model as it stands.
    pub fn model(&self) -> Gpt2<'_, B> {
        Gpt2 { backend: &self.backend, config: &self.config, params: &self.params }
    }

    /// Gradients of the last step.
    pub fn grads(&self) -> &Arena<B, B::Accum> {
        &self.grads
    }

    /// Continues from a checkpoint: the moments, laid out as the weights, and the rest of the state. Where the model reads
    /// narrow weights, it gets those that the last update made of the full-precision ones.
    ///
    /// # Errors
    /// [`Error::Invalid`] for moments of another length; when they cannot be copied to the device.
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

    /// The weights as the model reads them, to be changed; for tests that damage them.
    pub fn params_mut(&mut self) -> &mut Arena<B, B::Compute> {
        &mut self.params
    }

    /// Elements `range` of the weights in full precision, in f32.
    ///
    /// # Errors
    /// When they cannot be read off the device.
    pub fn weights_f32(&self, range: Range<usize>) -> Result<Vec<f32>> {
        match &self.master {
            Some(master) => master.part_f32(&self.backend, range),
            None => self.params.part_f32(&self.backend, range),
        }
    }

    /// Elements `range` of the first moments, in f32.
    ///
    /// # Errors
    /// When they cannot be read off the device.
    pub fn first_moment_f32(&self, range: Range<usize>) -> Result<Vec<f32>> {
        self.m.part_f32(&self.backend, range)
    }

    /// Elements `range` of the second moments, in f32.
    ///
    /// # Errors
    /// When they cannot be read off the device.
    pub fn second_moment_f32(&self, range: Range<usize>) -> Result<Vec<f32>> {
        self.v.part_f32(&self.backend, range)
    }

    /// One step over the micro-batches: gradients, norm, update.
    ///
    /// # Errors
    /// [`Error::Invalid`] for no micro-batch or one of another size, or those of the operations, e.g. a token outside of
    /// the vocabulary: then the weights have not moved. After an error of the update itself they may have, in part.
    pub fn step(&mut self, batches: &[MicroBatch], learning_rate: f32) -> Result<StepReport> {
        let queued = self.queue(batches, learning_rate)?;
        self.finish(queued, batches)
    }

    /// The work of [`Trainer::step`], without waiting for it: the device goes on while the host makes the next batches.
    ///
    /// # Errors
    /// As [`Trainer::step`].
    pub fn queue(&mut self, batches: &[MicroBatch], learning_rate: f32) -> Result<Queued> {
        self.check(batches)?;
        self.gradients(batches)?;
        self.backend.grad_norm(GradNorm { grad: self.grads.flat(), norm: self.norm.view_mut() })?;
        let limit = |window: &OutlierWindow, z: f32| if z > 0.0 { window.limit(z) } else { f32::INFINITY };
        let loss_limit = limit(&self.state.losses, self.optimizer.skip_loss_z);
        let norm_limit = limit(&self.state.norms, self.optimizer.skip_norm_z);
        self.update(learning_rate, loss_limit, norm_limit)?;
        Ok(Queued { loss_limit, norm_limit })
    }

    /// Sends the first micro-batch of the next step to the device, while that is at work.
    ///
    /// # Errors
    /// [`Error::Invalid`] for one of another size; when it cannot be copied.
    pub fn stage(&mut self, batch: &MicroBatch) -> Result<()> {
        self.check(std::slice::from_ref(batch))?;
        self.feed.stage(&self.backend, batch.clone())
    }

    /// Waits for the step that was queued with these micro-batches.
    ///
    /// # Errors
    /// When the device is lost.
    pub fn finish(&mut self, queued: Queued, batches: &[MicroBatch]) -> Result<StepReport> {
        let Queued { loss_limit, norm_limit } = queued;
        // The host waits here, and nowhere before.
        let loss = self.head.total.to_vec(&self.backend)?[0].to_f32();
        let grad_norm = self.norm.to_vec(&self.backend)?[0].to_f32();
        self.state.losses.push(loss);
        self.state.norms.push(grad_norm);
        let outcome = if !loss.is_finite() || !grad_norm.is_finite() {
            Outcome::NonFinite { place: self.first_non_finite(batches)? }
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

    /// Sum of the losses of a micro-batch's rows that count, in nats; nothing moves.
    ///
    /// # Errors
    /// Those of the operations.
    pub fn evaluate(&mut self, batch: &MicroBatch) -> Result<f64> {
        self.check(std::slice::from_ref(batch))?;
        let place = self.feed.take(&self.backend, batch)?;
        let model = Gpt2 { backend: &self.backend, config: &self.config, params: &self.params };
        let Inputs { tokens, targets } = self.feed.inputs(place);
        model.evaluate(&mut self.acts, &mut self.head, tokens.view(), targets.view())?;
        self.feed.done(&self.backend, place)?;
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
            let place = self.feed.take(&self.backend, batch)?;
            self.micro_step(place, scale, write)?;
            self.feed.done(&self.backend, place)?;
            write = Write::Accumulate;
        }
        Ok(())
    }

    /// Forward, loss and backward of the micro-batch in a place.
    fn micro_step(&mut self, place: usize, scale: f64, write: Write) -> Result<()> {
        let Trainer { backend, config, params, acts, head, act_grads, grads, feed, micro_steps, .. } = self;
        let known = micro_steps.iter().position(|s| (s.place, s.scale, s.write) == (place, scale, write));
        if let Some(recording) = known.and_then(|index| micro_steps[index].recording.as_ref()) {
            return backend.replay(recording);
        }
        let Inputs { tokens, targets } = feed.inputs(place);
        let mut work = || {
            let model = Gpt2 { backend, config, params };
            model.forward(acts, tokens.view(), AttentionMode::Uncached)?;
            model.loss(acts, head, targets.view(), scale, write)?;
            model.backward(acts, head, tokens.view(), act_grads, grads, write)
        };
        match known {
            Some(index) => micro_steps[index].recording = backend.capture(&mut work)?,
            None => {
                work()?;
                // Targets that do not count make other scales, which do not come again: those go first.
                if micro_steps.len() == MOST_MICRO_STEPS {
                    let once = micro_steps.iter().position(|step| step.recording.is_none());
                    micro_steps.remove(once.unwrap_or(0));
                }
                micro_steps.push(MicroStep { place, scale, write, recording: None });
            }
        }
        Ok(())
    }

    /// AdamW on the tensors that decay, then on those that do not.
    fn update(&mut self, learning_rate: f32, loss_limit: f32, norm_limit: f32) -> Result<()> {
        let Optimizer { beta1, beta2, eps, weight_decay, grad_clip, .. } = self.optimizer;
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

    /// Where the first number of the step that is not finite comes from. The step did not move the weights, so each
    /// forward pass can be made again and looked at.
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

/// Where the backward first made a number that is not finite: it begins at the final layernorm, goes from the last block
/// to the first, and ends at the embedding.
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
        None => "the gradient norm, which passes f32's range".to_string(),
    }
}

fn has_non_finite<E: FloatElement>(values: &[E]) -> bool {
    values.iter().any(|x| !x.to_f32().is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_gradient_is_placed_where_the_backward_first_made_it() {
        let config = Config { context: 4, vocab: 5, layers: 3, heads: 1, channels: 2 };
        let layout = Layout::new(&config);
        let place = |bad: &[usize]| {
            let mut grads = vec![1.0; layout.len];
            bad.iter().for_each(|&at| grads[at] = f32::NAN);
            bad_gradient(&grads, &layout, config.layers)
        };
        let slots = &layout.slots;
        // Element 1 of block l in a tensor.
        let in_block = |range: &Range<usize>, l: usize| range.start + l * range.len() / config.layers + 1;
        let [qkv, wte] = [&slots.qkv_weight.range, &slots.wte.range];
        for l in 0..config.layers {
            // What comes later in the backward is bad too.
            let bad: Vec<usize> = (0..=l).map(|l| in_block(qkv, l)).chain([wte.start]).collect();
            assert_eq!(place(&bad), format!("gradients of block {l}"));
            assert_eq!(place(&[in_block(&slots.ln2_bias.range, l)]), format!("gradients of block {l}"));
        }
        assert_eq!(place(&[in_block(qkv, 2), slots.lnf_bias.range.start]), "gradient of lnf_bias");
        assert_eq!(place(&[wte.start]), "gradient of wte");
        assert!(place(&[]).contains("gradient norm"));
    }
}
