//! Continues a prompt with a GPT-2 from a Hugging Face folder or from a run folder of `ironwarp train`.
//!
//! `cargo run --release --example generate -- FOLDER PROMPT`

use ironwarp::cpu::Cpu;
use ironwarp::model::Gpt2;
use ironwarp::model::arena::Arena;
use ironwarp::model::generate::{Generator, Sampling};
use ironwarp::train::checkpoint::load_model_folder;

fn main() -> ironwarp::Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(folder), Some(prompt)) = (args.next(), args.next()) else {
        return Err(ironwarp::Error::invalid("usage: generate FOLDER PROMPT"));
    };
    // Any backend runs the model: `Cuda::new(0)?` takes the first GPU.
    let backend = Cpu::<f32>::new();
    let (weights, tokenizer) = load_model_folder(&folder)?;
    let tokenizer = tokenizer?;
    let params = Arena::from_f32(&backend, &weights.layout, weights.data)?;
    let model = Gpt2 { backend: &backend, config: &weights.config, params: &params };

    let prompt: Vec<i32> = tokenizer.encode(&prompt)?.iter().map(|&id| id as i32).collect();
    let mut generator = Generator::new(model, &prompt)?;
    let sampling = Sampling { temperature: 0.8, top_k: 50, top_p: 1.0, seed: 1 };
    let mut tokens = Vec::new();
    for _ in 0..40 {
        let token = generator.sample(sampling)?;
        generator.push(token)?;
        tokens.push(token as u32);
    }
    println!("{}", tokenizer.decode(&tokens));
    Ok(())
}
