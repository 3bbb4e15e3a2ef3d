//! Loading a Hugging Face folder with the shape of gpt2-124M, compared with only reading its bytes.

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use ironwarp::model::config::Config;
use ironwarp::model::{hugging_face, init};

fn model_load(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let model = dir.path().join("gpt2-124M");
    let config = Config::preset("gpt2-124M").expect("a preset");
    hugging_face::export(&init::random(config, 1).expect("memory for the weights"), Some("gpt2"), &model)
        .expect("an export");
    let file = model.join("model.safetensors");
    let bytes = std::fs::metadata(&file).expect("the exported file").len();

    let mut group = criterion.benchmark_group("model_load");
    group.sample_size(10).sampling_mode(SamplingMode::Flat).throughput(Throughput::Bytes(bytes));
    group.bench_function("gpt2-124M", |bencher| {
        bencher.iter(|| hugging_face::import(&model).expect("the model"));
    });
    group.bench_function("read only", |bencher| bencher.iter(|| std::fs::read(&file).expect("the file")));
    group.finish();
}

criterion_group!(benches, model_load);
criterion_main!(benches);
