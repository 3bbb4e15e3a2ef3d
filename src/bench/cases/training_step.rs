//! A whole optimizer step of a GPT-2: [`crate::train::trainer::Trainer::step`].

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Bound, Case, CaseShape, Data, Info, Outputs, Precision, Problem, Workload};
use crate::error::{Error, Result};
use crate::model::activations::Recompute;
use crate::model::config::Config;
use crate::model::init;
use crate::ops::{Backend, Floor};
use crate::tensor::Element;
use crate::train::data::MicroBatch;
use crate::train::optimizer::OptimizerConfig;
use crate::train::trainer::{Outcome, StepReport, Trainer};

pub struct TrainingStep<B: Backend> {
    config: Config,
    trainer: Trainer<B>,
    batch: MicroBatch,
    report: Option<StepReport>,
}

fn training(workload: &Workload) -> Vec<CaseShape> {
    let Workload { config: Config { vocab, layers, heads, channels, .. }, batch, context } = *workload;
    vec![(vec![batch, context, layers, channels, heads, vocab], "")]
}

impl<B: Backend + Clone> Case<B> for TrainingStep<B> {
    const INFO: Info = Info {
        op: "training_step",
        stem: "",
        sizes: &["b", "t", "l", "c", "nh", "v"],
        variants: &[],
        bound: Bound::Compute,
        training,
        small: &[(&[1, 64, 2, 64, 2, 257], "")],
        // 96 channels: 1 to 4 heads divide them.
        reference: &[("b", 2), ("t", 64), ("l", 2), ("c", 96), ("nh", 4), ("v", 512)],
    };

    fn new(data: &mut Data<'_, B>, problem: &Problem) -> Result<Self> {
        let [b, context, layers, channels, heads, vocab] = problem.get();
        let config = Config { context, vocab, layers, heads, channels };
        config.check()?;
        let weights = init::random(config, 1)?;
        let trainer =
            Trainer::new(data.backend.clone(), weights, (b, context), Recompute::None, OptimizerConfig::default(), 1)?;
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut ids = || (0..b * context).map(|_| random.random_range(0..vocab) as i32).collect();
        let batch = MicroBatch { tokens: ids(), targets: ids() };
        Ok(TrainingStep { config, trainer, batch, report: None })
    }

    /// FLOPs by llm.c's formula, `(6·P + 6·L·C·T)·B·T`. Bytes of the optimizer only: the other traffic overlaps with
    /// the matmuls.
    fn floor(&mut self) -> Floor {
        let Config { layers, channels, context, .. } = self.config;
        let (parameters, tokens) = (self.config.parameters() as u64, self.batch.tokens.len() as u64);
        let flops = (6 * parameters + 6 * (layers * channels * context) as u64) * tokens;
        Floor { bytes: 7 * parameters * B::Accum::BYTES as u64, flops }
    }

    fn run(&mut self, _: &B) -> Result<()> {
        let report = self.trainer.step(std::slice::from_ref(&self.batch), 1e-4)?;
        if report.outcome != Outcome::Updated {
            return Err(Error::invalid(format!("a training step on random tokens: {report:?}")));
        }
        self.report = Some(report);
        Ok(())
    }

    fn outputs<'a>(&self, mut outputs: Outputs<'a, B>) -> Result<Outputs<'a, B>> {
        let precision = if B::Compute::BYTES == 2 { Precision::Bf16 } else { Precision::F32 };
        let reported = self.report.iter().flat_map(|report| [("loss", report.loss), ("grad_norm", report.grad_norm)]);
        reported.for_each(|(name, value)| outputs.list.push(super::Output { name, values: vec![value], precision }));
        Ok(outputs)
    }
}
