//! Fine-tunes a GPT-2 on a text: one optimizer step after another, without a run folder.
//!
//! `cargo run --release --example finetune -- FOLDER TEXT-FILE`

use ironwarp::cpu::Cpu;
use ironwarp::model::activations::Recompute;
use ironwarp::text::corpus::Corpus;
use ironwarp::text::documents::DocumentOptions;
use ironwarp::train::checkpoint::load_model_folder;
use ironwarp::train::data::{Loader, LoaderConfig, MicroBatch, Order};
use ironwarp::train::optimizer::OptimizerConfig;
use ironwarp::train::trainer::Trainer;

fn main() -> ironwarp::Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(folder), Some(text)) = (args.next(), args.next()) else {
        return Err(ironwarp::Error::invalid("usage: finetune FOLDER TEXT-FILE"));
    };
    let (weights, tokenizer) = load_model_folder(&folder)?;
    let tokenizer = tokenizer?;
    let corpus = Corpus::open(&[text], &tokenizer, &DocumentOptions::default(), 0.0)?;
    let (batch, context, seed) = (4, weights.config.context.min(64), 1);
    let mut loader = Loader::new(corpus.train, LoaderConfig { batch, context, order: Order::Shuffled, seed })?;
    // Any backend trains the model: `Cuda::new(0)?` takes the first GPU.
    let backend = Cpu::<f32>::new();
    let optimizer = OptimizerConfig::default();
    let mut trainer = Trainer::new(backend, weights, (batch, context), Recompute::None, optimizer, seed)?;
    for step in 1..=20 {
        let mut data = MicroBatch { tokens: vec![0; batch * context], targets: vec![0; batch * context] };
        loader.next_batch(&mut data.tokens, &mut data.targets)?;
        let report = trainer.step(&[data], 1e-3)?;
        println!("step {step:2}  loss {:.4}", report.loss);
    }
    Ok(())
}
