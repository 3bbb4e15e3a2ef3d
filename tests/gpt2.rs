//! Tests of the whole model: comparison with PyTorch and transformers, whose results `scripts/fixtures.py` saved, and
//! consistency tests.

#[path = "common/environment.rs"]
mod environment;

use std::collections::BTreeMap;

use ironwarp::cpu::{Cpu, Real};
use ironwarp::model::Gpt2;
use ironwarp::model::activations::{Activations, Head, Keep, Recompute};
use ironwarp::model::arena::Arena;
use ironwarp::model::config::Config;
use ironwarp::model::forward::AttentionMode;
use ironwarp::model::generate::{Generator, Sampling};
use ironwarp::model::params::{Gpt, HostWeights};
use ironwarp::model::{hugging_face, init};
use ironwarp::tensor::{FloatElement, Tensor};
use ironwarp::train::data::MicroBatch;
use ironwarp::train::optimizer::OptimizerConfig;
use ironwarp::train::trainer::{Outcome, Trainer};
use safetensors::{Dtype, SafeTensors};

const GREEDY: Sampling = Sampling { temperature: 0.0, top_k: usize::MAX, top_p: 1.0, seed: 0 };

/// A fixture: weights, a batch, and PyTorch's results for them in float64.
struct Fixture {
    name: &'static str,
    weights: HostWeights,
    expected: BTreeMap<String, (Vec<usize>, Vec<f64>)>,
}

fn fixtures() -> Vec<Fixture> {
    ["two-layers", "one-head", "odd-sizes"].map(Fixture::load).into()
}

impl Fixture {
    fn load(name: &'static str) -> Self {
        let dir = environment::project().join("tests/fixtures").join(name);
        let (weights, _) = hugging_face::import(&dir).unwrap();
        let bytes = std::fs::read(dir.join("expected.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let expected = file.tensors().into_iter().map(|(name, view)| {
            let values = match view.dtype() {
                Dtype::F64 => view.data().chunks(8).map(|x| f64::from_le_bytes(x.try_into().unwrap())).collect(),
                Dtype::I32 => view.data().chunks(4).map(|x| i32::from_le_bytes(x.try_into().unwrap()).into()).collect(),
                other => panic!("{name} is {other:?}"),
            };
            (name, (view.shape().to_vec(), values))
        });
        Fixture { name, weights, expected: expected.collect() }
    }

    fn values(&self, name: &str) -> &[f64] {
        &self.expected.get(name).unwrap_or_else(|| panic!("{}: no {name}", self.name)).1
    }

    fn ids(&self, name: &str) -> Vec<i32> {
        self.values(name).iter().map(|&x| x as i32).collect()
    }

    fn batch(&self) -> MicroBatch {
        MicroBatch { tokens: self.ids("tokens"), targets: self.ids("targets") }
    }

    /// (B, T).
    fn shape(&self) -> (usize, usize) {
        let shape = &self.expected["tokens"].0;
        (shape[0], shape[1])
    }

    fn trainer<R: Real>(&self, recompute: Recompute) -> Trainer<Cpu<R>> {
        let optimizer = OptimizerConfig { grad_clip: self.values("clip_norm")[0] as f32, ..OptimizerConfig::default() };
        Trainer::new(Cpu::new(), self.weights.clone(), self.shape(), recompute, optimizer, 0).unwrap()
    }
}

/// Converts one of our parameter tensors to Hugging Face's names, layouts and order, layer by layer.
fn hugging_face_tensors(config: &Config, name: &str, values: &[f64]) -> Vec<(String, Vec<f64>)> {
    let (stem, per_layer) = match name {
        "wte" => return vec![("wte.weight".into(), values[..config.vocab * config.channels].to_vec())],
        "wpe" => return vec![("wpe.weight".into(), values.to_vec())],
        "lnf_weight" => return vec![("ln_f.weight".into(), values.to_vec())],
        "lnf_bias" => return vec![("ln_f.bias".into(), values.to_vec())],
        "qkv_weight" => ("attn.c_attn.weight", 3 * config.channels),
        "attn_proj_weight" => ("attn.c_proj.weight", config.channels),
        "fc_weight" => ("mlp.c_fc.weight", 4 * config.channels),
        "fc_proj_weight" => ("mlp.c_proj.weight", config.channels),
        "ln1_weight" => ("ln_1.weight", 0),
        "ln1_bias" => ("ln_1.bias", 0),
        "qkv_bias" => ("attn.c_attn.bias", 0),
        "attn_proj_bias" => ("attn.c_proj.bias", 0),
        "ln2_weight" => ("ln_2.weight", 0),
        "ln2_bias" => ("ln_2.bias", 0),
        "fc_bias" => ("mlp.c_fc.bias", 0),
        "fc_proj_bias" => ("mlp.c_proj.bias", 0),
        other => panic!("no parameter {other}"),
    };
    let layers = values.chunks(values.len() / config.layers).enumerate();
    let layer = |(index, values): (usize, &[f64])| {
        // Our matrices are (out, in); theirs are (in, out).
        let rows = per_layer;
        let values = match rows {
            0 => values.to_vec(),
            _ => (0..values.len()).map(|i| values[i % rows * (values.len() / rows) + i / rows]).collect(),
        };
        (format!("h.{index}.{stem}"), values)
    };
    layers.map(layer).collect()
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|x| x * x).sum::<f64>().sqrt()
}

/// Norm of the difference of two tensors, relative to the norm of the expected one.
fn relative_error(got: &[f64], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    norm(got.iter().zip(want).map(|(a, b)| a - b)) / norm(want.iter().copied())
}

fn logits_and_loss<R: Real>(fixture: &Fixture) -> (Vec<f64>, f64) {
    let (b, t) = fixture.shape();
    let backend = Cpu::<R>::new();
    let HostWeights { config, layout, data } = fixture.weights.clone();
    let params = Arena::from_f32(&backend, &layout, data).unwrap();
    let model = Gpt2 { backend: &backend, config: &config, params: &params };
    let mut acts = Activations::new(&backend, &config, b, t, Keep::Forward).unwrap();
    let mut head = Head::new(&backend, &config, b, t).unwrap();
    let tokens = Tensor::from_vec(&backend, [b, t], fixture.ids("tokens")).unwrap();
    let targets = Tensor::from_vec(&backend, [b, t], fixture.ids("targets")).unwrap();
    model.evaluate(&mut acts, &mut head, tokens.view(), targets.view()).unwrap();

    let logits = head.logits.to_vec(&backend).unwrap();
    let logits = logits.chunks(config.padded_vocab()).flat_map(|row| &row[..config.vocab]).map(|x| x.wide()).collect();
    let counted = fixture.ids("targets").iter().filter(|&&t| t >= 0).count();
    let losses = head.losses.to_vec(&backend).unwrap();
    (logits, losses.iter().map(|x| x.wide()).sum::<f64>() / counted as f64)
}

/// Largest error of a logit, relative to the largest logit.
fn largest_error(got: &[f64], want: &[f64]) -> f64 {
    let largest = want.iter().fold(0.0, |max: f64, x| max.max(x.abs()));
    got.iter().zip(want).fold(0.0, |max: f64, (a, b)| max.max((a - b).abs())) / largest
}

#[test]
fn logits_and_loss_equal_those_of_pytorch() {
    for fixture in fixtures() {
        let (want, want_loss) = (fixture.values("logits"), fixture.values("loss")[0]);
        let (logits, loss) = logits_and_loss::<f64>(&fixture);
        assert!(largest_error(&logits, want) < 1e-12, "{}", fixture.name);
        assert!((loss / want_loss - 1.0).abs() < 1e-12, "{}", fixture.name);

        let (logits, loss) = logits_and_loss::<f32>(&fixture);
        let (logit_error, loss_error) = (largest_error(&logits, want), (loss / want_loss - 1.0).abs());
        println!("{}: f32 logits off by {logit_error:.1e}, loss by {loss_error:.1e}", fixture.name);
        assert!(logit_error < 1e-5 && loss_error < 1e-5, "{}", fixture.name);
    }
}

fn check_gradients<R: Real>(fixture: &Fixture, tolerance: f64) {
    let mut trainer = fixture.trainer::<R>(Recompute::None);
    let report = trainer.step(&[fixture.batch()], 0.0).unwrap();
    assert_eq!(report.outcome, Outcome::Updated);
    let grads = trainer.grads().views();
    let mut worst = (0.0, String::new());
    let mut checked = 0;
    for (name, view) in grads.into_array() {
        let values: Vec<f64> = view.as_slice().iter().map(|x| x.wide()).collect();
        if name == "wte" {
            let padding = &values[fixture.weights.config.vocab * fixture.weights.config.channels..];
            assert!(padding.iter().all(|&x| x == 0.0), "{}: gradient of padding rows", fixture.name);
        }
        for (theirs, values) in hugging_face_tensors(&fixture.weights.config, name, &values) {
            let want = fixture.values(&format!("grad.transformer.{theirs}"));
            let error = relative_error(&values, want);
            assert!(error < tolerance, "{}: gradient of {theirs} is off by {error:e} of its norm", fixture.name);
            assert!(values.iter().any(|&x| x != 0.0), "{}: {theirs} has no gradient", fixture.name);
            if error > worst.0 {
                worst = (error, theirs);
            }
            checked += 1;
        }
    }
    let theirs = fixture.expected.keys().filter(|name| name.starts_with("grad.")).count();
    assert_eq!(checked, theirs, "{}: every gradient is compared", fixture.name);
    println!("{}: {checked} gradients in {}, worst {worst:?}", fixture.name, R::NAME);
}

#[test]
fn gradients_equal_those_of_pytorch() {
    for fixture in fixtures() {
        check_gradients::<f64>(&fixture, 1e-11);
        check_gradients::<f32>(&fixture, 1e-4);
    }
}

#[test]
fn ten_adamw_steps_equal_those_of_pytorch() {
    for fixture in fixtures() {
        let mut trainer = fixture.trainer::<f32>(Recompute::None);
        let mut double = fixture.trainer::<f64>(Recompute::None);
        let (losses, norms) = (fixture.values("adamw_losses"), fixture.values("grad_norms"));
        for (step, (&want, &want_norm)) in losses.iter().zip(norms).enumerate() {
            for report in
                [trainer.step(&[fixture.batch()], 1e-3).unwrap(), double.step(&[fixture.batch()], 1e-3).unwrap()]
            {
                let error = (f64::from(report.loss) / want - 1.0).abs();
                assert!(error < 1e-5, "{} step {step}: loss {} for {want}", fixture.name, report.loss);
                let error = (f64::from(report.grad_norm) / want_norm - 1.0).abs();
                assert!(error < 1e-4, "{} step {step}: norm {} for {want_norm}", fixture.name, report.grad_norm);
            }
        }
        let mut compared = 0;
        for (name, view) in double.model().params.views().into_array() {
            for (theirs, values) in hugging_face_tensors(&fixture.weights.config, name, view.as_slice()) {
                if let Some((_, want)) = fixture.expected.get(&format!("final.transformer.{theirs}")) {
                    let error = relative_error(&values, want);
                    assert!(error < 1e-6, "{}: {theirs} after ten steps is off by {error:e}", fixture.name);
                    compared += 1;
                }
            }
        }
        assert_eq!(compared, 3, "{}", fixture.name);
    }
}

#[test]
fn greedy_generation_equals_that_of_transformers() {
    for fixture in fixtures() {
        let backend = Cpu::<f32>::new();
        let HostWeights { config, layout, data } = fixture.weights.clone();
        let params = Arena::from_f32(&backend, &layout, data).unwrap();
        let model = Gpt2 { backend: &backend, config: &config, params: &params };
        let mut generator = Generator::new(model, &fixture.ids("prompt")).unwrap();
        let mut tokens = Vec::new();
        for _ in fixture.ids("greedy") {
            let token = generator.sample(GREEDY).unwrap();
            tokens.push(token);
            generator.push(token).unwrap();
        }
        assert_eq!(tokens, fixture.ids("greedy"), "{}", fixture.name);
    }
}

fn gradients<R: Real>(fixture: &Fixture, recompute: Recompute) -> Vec<R> {
    let mut trainer = fixture.trainer::<R>(recompute);
    trainer.step(&[fixture.batch()], 0.0).unwrap();
    trainer.grads().flat().as_slice().to_vec()
}

#[test]
fn recomputation_gives_the_same_bits() {
    for fixture in fixtures() {
        let want = gradients::<f32>(&fixture, Recompute::None);
        for recompute in [Recompute::Gelu, Recompute::Layernorm] {
            assert_eq!(gradients::<f32>(&fixture, recompute), want, "{} {recompute:?}", fixture.name);
        }
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let fixture = Fixture::load("odd-sizes");
    let want = gradients::<f32>(&fixture, Recompute::None);
    for threads in [1, 3, 7] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let got = pool.install(|| gradients::<f32>(&fixture, Recompute::None));
        assert_eq!(got, want, "{threads} threads");
    }
}

#[test]
fn every_parameter_moves() {
    for fixture in fixtures() {
        let mut trainer = fixture.trainer::<f32>(Recompute::None);
        trainer.step(&[fixture.batch()], 1e-3).unwrap();
        for ((name, after), (_, shape, before)) in
            trainer.model().params.views().into_array().into_iter().zip(fixture.weights.tensors())
        {
            let moved = after.as_slice().iter().zip(before).filter(|(a, b)| a != b).count();
            // Rows of tokens and positions that are not in the batch have no gradient, but they have weight decay.
            let padding = if name == "wte" { (shape[0] - fixture.weights.config.vocab) * shape[1] } else { 0 };
            assert!(moved * 10 >= (before.len() - padding) * 9, "{}: {moved} of {name} {shape:?}", fixture.name);
        }
    }
}

#[test]
fn accumulated_micro_batches_equal_one_batch() {
    let fixture = Fixture::load("odd-sizes");
    let (b, t) = fixture.shape();
    let whole = gradients::<f64>(&fixture, Recompute::None);
    let batch = fixture.batch();
    let micro: Vec<MicroBatch> = (0..b)
        .map(|row| MicroBatch {
            tokens: batch.tokens[row * t..][..t].to_vec(),
            targets: batch.targets[row * t..][..t].to_vec(),
        })
        .collect();
    let weights = fixture.weights.clone();
    let mut trainer =
        Trainer::new(Cpu::<f64>::new(), weights, (1, t), Recompute::None, OptimizerConfig::default(), 0).unwrap();
    let report = trainer.step(&micro, 0.0).unwrap();
    assert!((f64::from(report.loss) / fixture.values("loss")[0] - 1.0).abs() < 1e-7);
    let error = relative_error(trainer.grads().flat().as_slice(), &whole);
    assert!(error < 1e-12, "{error:e}");
}

#[test]
fn decoding_with_the_kv_cache_gives_the_logits_of_a_full_forward() {
    let config = Config { context: 80, vocab: 300, layers: 3, heads: 3, channels: 48 };
    let backend = Cpu::<f32>::new();
    let weights = init::random(config, 3).unwrap();
    let params = Arena::from_f32(&backend, &weights.layout, weights.data).unwrap();
    let model = Gpt2 { backend: &backend, config: &config, params: &params };
    let tokens: Vec<i32> = (0..80).map(|i| (i * i * 7 + 3) % 300).collect();

    let mut acts = Activations::new(&backend, &config, 1, 80, Keep::Forward).unwrap();
    let mut head = Head::new(&backend, &config, 1, 80).unwrap();
    let ids = Tensor::from_vec(&backend, [1, 80], tokens.clone()).unwrap();
    model.forward(&mut acts, ids.view(), AttentionMode::Uncached).unwrap();
    model.lm_head(acts.lnf_out.view(), head.logits.view_mut()).unwrap();
    let full = head.logits.to_vec(&backend).unwrap();

    let mut generator = Generator::new(model, &tokens[..5]).unwrap();
    for position in 4..80 {
        let want = &full[position * config.padded_vocab()..][..config.vocab];
        assert_eq!(generator.logits().unwrap(), want, "after position {position}");
        if position < 79 {
            generator.push(tokens[position + 1]).unwrap();
        }
    }
    // The context is full: generation restarts from its last half and the new token.
    generator.push(7).unwrap();
    let last_half = [&tokens[41..], &[7]].concat();
    assert_eq!(generator.logits().unwrap(), Generator::new(model, &last_half).unwrap().logits().unwrap());
    assert_eq!(generator.num_tokens(), 81);
    for (prompt, message) in [(&[][..], "no tokens"), (&[0; 81][..], "81 tokens, more than the model's context of 80")]
    {
        let error = Generator::new(model, prompt).err().unwrap().to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn a_non_finite_number_is_located_in_every_layer_and_changes_no_weights() {
    let fixture = Fixture::load("odd-sizes");
    let layers = fixture.weights.config.layers;
    let mut trainer = fixture.trainer::<f32>(Recompute::None);
    let clean = trainer.step(&[fixture.batch()], 1e-3).unwrap();
    let weights = trainer.model().params.flat().as_slice().to_vec();
    let slots = trainer.grads().layout().slots.clone();
    let locations = |l: usize| {
        [(&slots.qkv_bias, format!("block {l}'s attention")), (&slots.fc_proj_bias, format!("block {l}'s MLP"))]
    };
    for value in [f32::NAN, f32::INFINITY] {
        for (l, (slot, location)) in (0..layers).flat_map(|l| locations(l).map(|location| (l, location))) {
            let at = slot.range.start + l * slot.range.len() / layers;
            trainer.params_mut().flat_mut().into_slice()[at] = value;
            let before = trainer.model().params.flat().as_slice().to_vec();
            let report = trainer.step(&[fixture.batch()], 1e-3).unwrap();
            let Outcome::NonFinite { location: found } = report.outcome else { panic!("{:?}", report.outcome) };
            assert!(found.contains(&location), "{value} in block {l}: {found}");
            let after = trainer.model().params.flat().as_slice().to_vec();
            assert!(before.iter().zip(&after).all(|(a, b)| a.to_bits() == b.to_bits()), "the weights must not change");
            trainer.params_mut().flat_mut().into_slice().copy_from_slice(&weights);
        }
    }
    let after = trainer.step(&[fixture.batch()], 1e-3).unwrap();
    assert_eq!(after.outcome, Outcome::Updated, "the trainer still works");
    assert!(after.loss < clean.loss);
}

#[test]
fn a_loss_spike_is_skipped_and_training_continues() {
    let fixture = Fixture::load("odd-sizes");
    let optimizer = OptimizerConfig { skip_loss_z: 6.0, skip_norm_z: 6.0, ..OptimizerConfig::default() };
    let weights = fixture.weights.clone();
    let (shape, batch) = (fixture.shape(), fixture.batch());
    let mut trainer = Trainer::new(Cpu::<f32>::new(), weights, shape, Recompute::None, optimizer, 0).unwrap();
    for _ in 0..140 {
        assert_eq!(trainer.step(std::slice::from_ref(&batch), 1e-6).unwrap().outcome, Outcome::Updated);
    }
    let updates = trainer.state.updates;
    let weights_of = |trainer: &Trainer<Cpu<f32>>| trainer.model().params.flat().as_slice().to_vec();
    let before = weights_of(&trainer);
    let slot = trainer.grads().layout().slots.lnf_weight.range.clone();
    trainer.params_mut().flat_mut().into_slice()[slot.clone()].iter_mut().for_each(|x| *x *= 50.0);
    let report = trainer.step(std::slice::from_ref(&batch), 1e-6).unwrap();
    let Outcome::Outlier { reason } = &report.outcome else { panic!("{report:?}") };
    assert!(reason.contains("is above"), "{reason}");
    trainer.params_mut().flat_mut().into_slice()[slot].iter_mut().for_each(|x| *x /= 50.0);
    let error = relative_error(
        &weights_of(&trainer).iter().map(|x| f64::from(x.to_f32())).collect::<Vec<_>>(),
        &before.iter().map(|x| f64::from(x.to_f32())).collect::<Vec<_>>(),
    );
    assert!(error < 1e-6 && trainer.state.updates == updates);
    assert_eq!(trainer.step(&[batch], 1e-6).unwrap().outcome, Outcome::Updated);
}

#[test]
fn names_are_those_of_the_fixtures() {
    let config = Config::preset("tiny").unwrap();
    let weights = HostWeights::zeros(config).unwrap();
    let names: Vec<_> = weights.tensors().map(|(name, ..)| name).collect();
    assert_eq!(names, Gpt::<()>::NAMES);
}
