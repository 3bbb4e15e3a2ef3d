//! GPT-2 on the GPU, compared with the same model on the CPU: gradients, training, memory and generation.

#[path = "../../ops/narrow.rs"]
mod narrow;
mod rounded;

use ironwarp::cpu::Cpu;
use ironwarp::cuda::Cuda;
use ironwarp::model::activations::{ActivationGrads, Activations, Head, Inputs, Keep, Recompute};
use ironwarp::model::arena::Arena;
use ironwarp::model::config::Config;
use ironwarp::model::forward::AttentionMode;
use ironwarp::model::generate::{Generator, Sampling};
use ironwarp::model::params::HostWeights;
use ironwarp::model::plan::MemoryPlan;
use ironwarp::model::{Gpt2, init};
use ironwarp::ops::Write;
use ironwarp::tensor::Tensor;
use ironwarp::train::data::MicroBatch;
use ironwarp::train::optimizer::OptimizerConfig;
use ironwarp::train::trainer::{Outcome, Trainer};

use self::narrow::Narrow;
use crate::common::{Device, Draws, Number};
use crate::emulator::{alone, own, shared};

/// A model, and the micro-batches of a step.
#[derive(Clone, Copy)]
struct Case {
    config: Config,
    /// (B, T).
    shape: (usize, usize),
    micro_batches: usize,
    why: &'static str,
}

const CASES: [Case; 3] = [
    Case {
        config: Config { context: 64, vocab: 257, layers: 3, heads: 4, channels: 64 },
        shape: (2, 33),
        micro_batches: 1,
        why: "heads of 16, rows that do not fill a tile",
    },
    Case {
        config: Config { context: 70, vocab: 300, layers: 2, heads: 2, channels: 128 },
        shape: (1, 70),
        micro_batches: 2,
        why: "heads of 64, gradients accumulated over two micro-batches",
    },
    Case {
        config: Config { context: 16, vocab: 128, layers: 1, heads: 1, channels: 128 },
        shape: (3, 16),
        micro_batches: 1,
        why: "one head of 128, no padding of the vocabulary",
    },
];

const SMALL: Case = Case {
    config: Config { context: 16, vocab: 50, layers: 2, heads: 2, channels: 32 },
    shape: (2, 16),
    micro_batches: 1,
    why: "small",
};

impl Case {
    fn weights(&self) -> HostWeights {
        init::random(self.config, 5).unwrap()
    }

    /// Micro-batches in which every seventh target is ignored.
    fn batches(&self, seed: u64) -> Vec<MicroBatch> {
        let (rows, mut draws) = (self.shape.0 * self.shape.1, Draws::new(seed));
        let batch = |_| {
            let (tokens, mut targets) = (draws.ids(rows, self.config.vocab), draws.ids(rows, self.config.vocab));
            targets.iter_mut().step_by(7).for_each(|target| *target = -1);
            MicroBatch { tokens, targets }
        };
        (0..self.micro_batches).map(batch).collect()
    }

    fn trainer<B: Device>(&self, backend: B, recompute: Recompute) -> Trainer<B> {
        Trainer::new(backend, self.weights(), self.shape, recompute, OptimizerConfig::default(), 9).unwrap()
    }

    /// The logits of the first micro-batch, the loss of the step, and its gradient of each tensor, with their names.
    fn numbers<B: Device>(&self, backend: &B) -> Vec<(String, Vec<f64>)> {
        let Case { config, shape: (b, t), .. } = self;
        let HostWeights { layout, data, .. } = self.weights();
        let params = Arena::from_f32(backend, &layout, data).unwrap();
        let model = Gpt2 { backend, config, params: &params };
        let mut acts = Activations::new(backend, config, *b, *t, Keep::Backward(Recompute::None)).unwrap();
        let mut head = Head::new(backend, config, *b, *t).unwrap();
        let mut act_grads = ActivationGrads::new(backend, config, *b, *t).unwrap();
        let mut grads = Arena::zeros(backend, &layout).unwrap();
        let [mut inputs, _] = Inputs::pair(backend, *b, *t).unwrap();
        let batches = self.batches(1);
        let counted = batches.iter().flat_map(|batch| &batch.targets).filter(|&&target| target >= 0).count();
        let (scale, mut write) = (1.0 / counted as f64, Write::Overwrite);
        let mut numbers = Vec::new();
        for MicroBatch { tokens, targets } in &batches {
            backend.upload(tokens, inputs.tokens.view_mut()).unwrap();
            backend.upload(targets, inputs.targets.view_mut()).unwrap();
            let (tokens, targets) = (inputs.tokens.view(), inputs.targets.view());
            if write == Write::Overwrite {
                model.evaluate(&mut acts, &mut head, tokens, targets).unwrap();
                let logits = head.logits.to_vec(backend).unwrap();
                let of_vocab = logits.chunks(config.padded_vocab()).flat_map(|row| &row[..config.vocab]);
                numbers.push(("logits".into(), of_vocab.map(|x| x.wide()).collect()));
            }
            model.forward(&mut acts, tokens, AttentionMode::Uncached).unwrap();
            model.loss(&acts, &mut head, targets, scale, write).unwrap();
            model.backward(&mut acts, &head, tokens, &mut act_grads, &mut grads, write).unwrap();
            write = Write::Accumulate;
        }
        let total = head.total.to_vec(backend).unwrap()[0].wide();
        numbers.push(("loss".into(), vec![total]));
        for (name, slot) in layout.slots.as_ref().into_array() {
            let grad = grads.part_f32(backend, slot.range.clone()).unwrap();
            numbers.push((format!("gradient of {name}"), grad.into_iter().map(f64::from).collect()));
        }
        numbers
    }
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|x| x * x).sum::<f64>().sqrt()
}

/// The distance of two tensors, relative to the norm of `want`.
fn distance(got: &[f64], want: &[f64]) -> f64 {
    norm(got.iter().zip(want).map(|(a, b)| a - b)) / norm(want.iter().copied())
}

/// The largest difference, in units in the last place of bf16 at the largest number.
fn ulps(got: &[f64], want: &[f64]) -> f64 {
    let largest = want.iter().fold(0.0f64, |max, x| max.max(x.abs()));
    let worst = got.iter().zip(want).fold(0.0f64, |max, (a, b)| max.max((a - b).abs()));
    worst / (2f64.powi(-7) * largest.log2().floor().exp2())
}

#[test]
fn logits_loss_and_gradients_are_those_of_the_reference() {
    for case in CASES {
        let want = case.numbers(&Cpu::<f64>::new());
        let baseline = case.numbers(&Narrow);
        let got = case.numbers(&*shared());
        println!("{:?}, (B, T) = {:?}: {}", case.config, case.shape, case.why);
        for (((name, want), (_, baseline)), (_, got)) in want.iter().zip(&baseline).zip(&got) {
            let (error, of_baseline) = (distance(got, want), distance(baseline, want));
            let ulps = ulps(got, want);
            println!(
                "  {name:<28} {error:.2e} of its norm, CPU rounded to bf16 {of_baseline:.2e}, worst {ulps:.2} ulps"
            );
            assert!(want.iter().any(|&x| x != 0.0), "{name} is zero");
            // 2^-9 is the error of one rounding. The loss is a mean, whose baseline error may be small by chance.
            assert!(error <= 2.0 * of_baseline.max(2f64.powi(-9)), "{}: {name}: {error:e}", case.why);
            assert!(name != "loss" || error < 1e-3, "{}: loss {got:?} for {want:?}", case.why);
            assert!(ulps <= 4.0, "{}: {name}: {ulps} ulps", case.why);
        }
    }
}

#[test]
fn ten_losses_are_those_of_the_cpu() {
    let (mut gpu, mut cpu) =
        (SMALL.trainer(shared().clone(), Recompute::None), SMALL.trainer(Cpu::<f32>::new(), Recompute::None));
    let _shared = shared();
    for step in 0..10 {
        // The same three batches in turn, which the model can learn.
        let batches = SMALL.batches(step % 3);
        let [got, want] = [gpu.step(&batches, 3e-3).unwrap(), cpu.step(&batches, 3e-3).unwrap()];
        assert_eq!((&got.outcome, &want.outcome), (&Outcome::Updated, &Outcome::Updated));
        println!("step {step}: loss {} for {}, norm {} for {}", got.loss, want.loss, got.grad_norm, want.grad_norm);
        let error = (got.loss / want.loss - 1.0).abs();
        assert!(error < 5e-3, "step {step}: loss {} for {}", got.loss, want.loss);
    }
}

/// Everything that a training step changes.
fn state(trainer: &Trainer<Cuda>) -> Vec<Vec<f32>> {
    let len = trainer.grads().layout().len;
    vec![
        trainer.weights_f32(0..len).unwrap(),
        trainer.model().params.part_f32(trainer.backend(), 0..len).unwrap(),
        trainer.first_moment_f32(0..len).unwrap(),
        trainer.second_moment_f32(0..len).unwrap(),
    ]
}

fn assert_same_bits(what: &str, got: &[Vec<f32>], want: &[Vec<f32>]) {
    let bits = |state: &[Vec<f32>]| state.iter().flatten().map(|x| x.to_bits()).collect::<Vec<u32>>();
    assert!(bits(got) == bits(want), "{what}: other bits");
}

#[test]
fn recomputation_and_graphs_change_no_bit() {
    let _shared = shared();
    let case = Case { micro_batches: 2, ..SMALL };
    let train = |recompute, one_by_one| {
        let cuda = own();
        cuda.device().set_launch_blocking(one_by_one);
        let mut trainer = case.trainer(cuda, recompute);
        // Four micro-steps of each kind: the second is captured as a graph, which the later ones replay.
        for step in 0..4 {
            assert_eq!(trainer.step(&case.batches(step), 1e-3).unwrap().outcome, Outcome::Updated);
        }
        state(&trainer)
    };
    let want = train(Recompute::None, true);
    for recompute in [Recompute::None, Recompute::Gelu, Recompute::Layernorm] {
        assert_same_bits(&format!("{recompute:?}"), &train(recompute, false), &want);
    }
}

#[test]
fn a_resumed_trainer_continues_with_the_same_bits() {
    let cuda = shared();
    let mut whole = SMALL.trainer(cuda.clone(), Recompute::None);
    let mut first = SMALL.trainer(cuda.clone(), Recompute::None);
    (0..4).for_each(|step| drop(whole.step(&SMALL.batches(step), 1e-3).unwrap()));
    (0..2).for_each(|step| drop(first.step(&SMALL.batches(step), 1e-3).unwrap()));
    let saved = state(&first);
    let weights = HostWeights { data: saved[0].clone(), ..SMALL.weights() };
    let mut second =
        Trainer::new(cuda.clone(), weights, SMALL.shape, Recompute::None, OptimizerConfig::default(), 9).unwrap();
    second.restore(&saved[2], &saved[3], first.state.clone()).unwrap();
    assert_same_bits("the restored state", &state(&second), &saved);
    // The bf16 weights were rounded stochastically: rounding the master weights to nearest gives others.
    assert!(saved[0].iter().zip(&saved[1]).any(|(full, narrow)| half::bf16::from_f32(*full).to_f32() != *narrow));
    (2..4).for_each(|step| drop(second.step(&SMALL.batches(step), 1e-3).unwrap()));
    assert_same_bits("two steps later", &state(&second), &state(&whole));
}

/// The schedule also orders copies and kernels: with three micro-batches per step, each slot is overwritten while kernels that
/// read it are enqueued.
#[test]
fn any_schedule_gives_the_same_bits() {
    let Some(cuda) = alone() else { return };
    let case = Case { micro_batches: 3, ..SMALL };
    let train = |one_by_one| {
        cuda.device().set_launch_blocking(one_by_one);
        let mut trainer = case.trainer(cuda.clone(), Recompute::Gelu);
        for step in 0..3 {
            let (batches, next) = (case.batches(step), case.batches(step + 1));
            let pending = trainer.enqueue(&batches, 1e-3).unwrap();
            trainer.prefetch(&next[0]).unwrap();
            assert_eq!(trainer.finish(pending, &batches).unwrap().outcome, Outcome::Updated);
        }
        state(&trainer)
    };
    let want = train(true);
    for seed in 0..12 {
        cuda.set_seed(seed);
        assert_same_bits(&format!("seed {seed}"), &train(false), &want);
    }
}

/// Prefetched micro-batches are used if the step has them, and ignored if it has others.
#[test]
fn a_prefetched_micro_batch_is_used_only_by_its_step() {
    let train = |stage: &[Option<u64>]| {
        let mut trainer = SMALL.trainer(shared().clone(), Recompute::None);
        let _shared = shared();
        let losses = stage.iter().enumerate().map(|(step, ahead)| {
            let batches = SMALL.batches(step as u64);
            let pending = trainer.enqueue(&batches, 1e-3).unwrap();
            if let Some(seed) = ahead {
                trainer.prefetch(&SMALL.batches(*seed)[0]).unwrap();
            }
            let report = trainer.finish(pending, &batches).unwrap();
            let validation = trainer.evaluate(&SMALL.batches(77)[0]).unwrap();
            (report.loss.to_bits(), validation.to_bits())
        });
        losses.collect::<Vec<_>>()
    };
    let want = train(&[None; 4]);
    assert_eq!(train(&[Some(1), Some(2), Some(3), None]), want);
    assert_eq!(train(&[Some(9), None, Some(77), Some(0)]), want);
}

#[test]
fn memory_is_as_planned() {
    let _shared = shared();
    // The third and the fourth step capture the micro-steps, which later steps replay.
    for (case, steps) in [(SMALL, 6), (CASES[0], 1), (CASES[1], 1), (CASES[2], 1)] {
        for recompute in [Recompute::None, Recompute::Layernorm] {
            let cuda = own();
            let mut trainer = case.trainer(cuda.clone(), recompute);
            for step in 0..steps {
                trainer.step(&case.batches(step), 1e-3).unwrap();
            }
            trainer.evaluate(&case.batches(7)[0]).unwrap();
            let plan = MemoryPlan::new::<Cuda>(&case.config, case.shape.0, case.shape.1, recompute).unwrap();
            assert_eq!(cuda.device().held(), plan.by_category(), "{}", case.why);
            assert_eq!(cuda.device().peak_memory(), plan.total(), "{}", case.why);
        }
    }
}

#[test]
fn non_finite_numbers_update_nothing() {
    let mut trainer = SMALL.trainer(shared().clone(), Recompute::None);
    let mut clean = SMALL.trainer(shared().clone(), Recompute::None);
    let _shared = shared();
    let batches = SMALL.batches(1);
    trainer.step(&batches, 1e-3).unwrap();
    clean.step(&batches, 1e-3).unwrap();
    let before = state(&trainer);
    let mut damaged = before[1].clone();
    damaged[trainer.grads().layout().slots.fc_weight.range.end - 1] = f32::NAN;
    let cuda = shared().clone();
    trainer.params_mut().set_f32(&cuda, &damaged).unwrap();
    let report = trainer.step(&batches, 1e-3).unwrap();
    let location = "output of block 1's MLP in micro-batch 0".to_owned();
    assert_eq!(report.outcome, Outcome::NonFinite { location });
    trainer.params_mut().set_f32(&cuda, &before[1]).unwrap();
    assert_same_bits("after a bad step", &state(&trainer), &before);
    assert_eq!(trainer.step(&batches, 1e-3).unwrap().loss, clean.step(&batches, 1e-3).unwrap().loss);
    assert_same_bits("after the next", &state(&trainer), &state(&clean));
}

#[test]
fn greedy_tokens_are_those_of_the_cpu() {
    let config = Config { context: 32, vocab: 40, layers: 2, heads: 2, channels: 32 };
    // Powers of 2 modulo 37, with all 36 residues: each token determines the next.
    let text: Vec<i32> = std::iter::successors(Some(1), |x| Some(x * 2 % 37)).take(400).collect();
    let rows = 8 * 31;
    let window = |step: usize, shift: usize| -> Vec<i32> {
        (0..rows).map(|i| text[(step * 13 + i / 31 * 41 + i % 31 + shift) % 360]).collect()
    };
    let shape = (8, 31);
    let weights = init::random(config, 2).unwrap();
    let mut trainer =
        Trainer::new(Cpu::<f32>::new(), weights.clone(), shape, Recompute::None, OptimizerConfig::default(), 0)
            .unwrap();
    let mut loss = f32::INFINITY;
    for step in 0..150 {
        let batch = MicroBatch { tokens: window(step, 0), targets: window(step, 1) };
        loss = trainer.step(&[batch], 5e-3).unwrap().loss;
    }
    assert!(loss < 0.5, "the model has not learned: loss {loss}");
    let trained = trainer.weights_f32(0..weights.layout.len).unwrap();
    fn greedy<B: Device>(backend: &B, config: &Config, weights: HostWeights, prompt: &[i32]) -> Vec<i32> {
        let params = Arena::from_f32(backend, &weights.layout, weights.data).unwrap();
        let mut generator = Generator::new(Gpt2 { backend, config, params: &params }, prompt).unwrap();
        let sampling = Sampling { temperature: 0.0, top_k: usize::MAX, top_p: 1.0, seed: 0 };
        // Past the context length, generation continues from the last half of the sequence.
        let next = |_| {
            let token = generator.sample(sampling).unwrap();
            generator.push(token).unwrap();
            token
        };
        (0..50).map(next).collect()
    }
    let weights = HostWeights { data: trained, ..weights };
    let want = greedy(&Cpu::<f32>::new(), &config, weights.clone(), &text[..9]);
    assert_eq!(greedy(&*shared(), &config, weights, &text[..9]), want);
    assert!(want.iter().zip(&text[9..]).filter(|(a, b)| a == b).count() > 40, "{want:?}");
}

/// Logits computed token by token with the KV cache are as accurate as those of one forward over all tokens.
#[test]
fn decoding_matches_the_full_forward() {
    fn full<B: Device>(backend: &B, config: &Config, tokens: &[i32]) -> Vec<Vec<f64>> {
        let HostWeights { layout, data, .. } = init::random(*config, 5).unwrap();
        let params = Arena::from_f32(backend, &layout, data).unwrap();
        let model = Gpt2 { backend, config, params: &params };
        let shape = (1, tokens.len());
        let mut acts = Activations::new(backend, config, shape.0, shape.1, Keep::Forward).unwrap();
        let mut head = Head::new(backend, config, shape.0, shape.1).unwrap();
        let ids = Tensor::from_vec(backend, [1, shape.1], tokens.to_vec()).unwrap();
        model.forward(&mut acts, ids.view(), AttentionMode::Uncached).unwrap();
        model.lm_head(acts.lnf_out.view(), head.logits.view_mut()).unwrap();
        let logits = head.logits.to_vec(backend).unwrap();
        let rows = logits.chunks(config.padded_vocab()).map(|row| row[..config.vocab].iter().map(|x| x.wide()));
        rows.map(Iterator::collect).collect()
    }
    let config = Config { context: 100, vocab: 60, layers: 1, heads: 2, channels: 64 };
    let tokens = Draws::new(8).ids(100, 60);
    let cuda = shared();
    let (reference, at_once) = (full(&Cpu::<f64>::new(), &config, &tokens), full(&*cuda, &config, &tokens));
    let HostWeights { layout, data, .. } = init::random(config, 5).unwrap();
    let params = Arena::from_f32(&*cuda, &layout, data).unwrap();
    let model = Gpt2 { backend: &*cuda, config: &config, params: &params };
    let mut generator = Generator::new(model, &tokens[..3]).unwrap();
    let mut worst = [0.0f64; 2];
    for (position, (want, at_once)) in reference.iter().zip(&at_once).enumerate().skip(2) {
        let got: Vec<f64> = generator.logits().unwrap().into_iter().map(Number::wide).collect();
        let (error, of_one_pass) = (distance(&got, want), distance(at_once, want));
        assert!(error <= 2.0 * of_one_pass.max(2f64.powi(-8)), "position {position}: {error:e}, {of_one_pass:e}");
        worst = [worst[0].max(error), worst[1].max(of_one_pass)];
        if position + 1 < tokens.len() {
            generator.push(tokens[position + 1]).unwrap();
        }
    }
    println!("decoding: {:.2e} of the norm at most, one pass {:.2e}", worst[0], worst[1]);
}
