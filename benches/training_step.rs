//! Throughput of whole optimizer steps on the CPU backend in f32.
//!
//! PyTorch on the same machine: `python scripts/peer_cpu.py --batch 4 --context 64`, with --model for `tiny`.

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use ironwarp::cpu::Cpu;
use ironwarp::model::activations::Recompute;
use ironwarp::model::config::Config;
use ironwarp::model::init;
use ironwarp::train::data::MicroBatch;
use ironwarp::train::optimizer::OptimizerConfig;
use ironwarp::train::trainer::Trainer;

/// The allocator of the command; the system allocator is a few percent slower here.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn training_step(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("training_step");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    for (model, batch, time) in [("tiny", 4, 64), ("gpt2-124M", 4, 64)] {
        let config = Config::preset(model).expect("a preset");
        let weights = init::random(config, 1).expect("memory for the weights");
        let optimizer = OptimizerConfig::default();
        let mut trainer = Trainer::new(Cpu::<f32>::new(), weights, (batch, time), Recompute::None, optimizer, 1)
            .expect("memory for the model");
        let token = |i: usize| (i * 7919 % config.vocab) as i32;
        let rows = batch * time;
        let tokens = (0..rows).map(token).collect();
        let micro_batch = MicroBatch { tokens, targets: (1..=rows).map(token).collect() };
        group.throughput(Throughput::Elements(rows as u64));
        group.bench_function(BenchmarkId::new(model, format!("B={batch},T={time}")), |bencher| {
            // Inside the thread pool, as in the command.
            let mut step = || trainer.step(std::slice::from_ref(&micro_batch), 1e-5).expect("a step");
            bencher.iter(|| rayon::scope(|_| step()));
        });
    }
}

criterion_group!(benches, training_step);
criterion_main!(benches);
