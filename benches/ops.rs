//! Every operation at GPT-2's shapes, with one group per family: `cargo bench --bench ops -- layernorm`.
//!
//! The device is a GPU if one is available, otherwise the CPU; IRONWARP_BENCH_DEVICE=cpu or cuda selects it. Times on a GPU
//! are measured by CUDA events with a cold L2 cache, as in `ironwarp bench`, which also has peers and floors.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ironwarp::bench::cases;
use ironwarp::bench::measure::{Subject, Timed};
use ironwarp::bench::problem::Workload;
use ironwarp::bench::verify::verify;
use ironwarp::cpu::Cpu;
use ironwarp::model::config::Config;

/// The allocator of the command.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn operations(criterion: &mut Criterion) {
    let device = std::env::var("IRONWARP_BENCH_DEVICE").unwrap_or_default();
    if device == "cpu" {
        return families(criterion, &Cpu::<f32>::new(), 256);
    }
    #[cfg(feature = "cuda")]
    match ironwarp::cuda::Cuda::new(0) {
        Ok(cuda) => return families(criterion, &cuda, 65536),
        Err(why) if device == "cuda" => panic!("{why}"),
        Err(why) => eprintln!("using the CPU: {why}"),
    }
    assert!(device.is_empty(), "IRONWARP_BENCH_DEVICE='{device}': expected cpu, or cuda in a build that has it");
    families(criterion, &Cpu::<f32>::new(), 256);
}

/// One group per family, with the shapes of gpt2-124M.
fn families<B: Timed>(criterion: &mut Criterion, backend: &B, tokens: usize) {
    let mut stopwatch = backend.stopwatch().unwrap_or_else(|why| panic!("{why}"));
    let config = Config::preset("gpt2-124M").expect("a preset");
    let workload = Workload::new(config, tokens).expect("whole sequences");
    for info in cases::ALL {
        let mut group = criterion.benchmark_group(info.stem);
        group.sample_size(10).measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(300));
        for problem in info.training(&workload) {
            // Created on first use, so that benchmarks that the filter excludes cost nothing.
            let mut subject = None;
            group.bench_function(BenchmarkId::new(info.op, problem.shape()), |bencher| {
                let subject = subject.get_or_insert_with(|| {
                    verify(backend, info, &problem).unwrap_or_else(|why| panic!("{why}"));
                    Subject::new(backend, &stopwatch, &problem).unwrap_or_else(|why| panic!("{problem}: {why}"))
                });
                bencher.iter_custom(|runs| {
                    (0..runs)
                        .map(|_| subject.sample(&mut stopwatch).unwrap_or_else(|why| panic!("{problem}: {why}")))
                        .sum()
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, operations);
criterion_main!(benches);
