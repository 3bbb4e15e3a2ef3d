//! Throughput of GPT-2's byte-pair encoding on one thread, compared with tiktoken-rs on the same text.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ironwarp::text::embedded;
use ironwarp::text::tokenizer::Tokenizer;

/// Environment variable with a file to encode instead of the project's sources.
const FILE: &str = "IRONWARP_TEXT";

fn tokenizer(criterion: &mut Criterion) {
    let text = match std::env::var_os(FILE) {
        Some(path) => std::fs::read_to_string(path).expect("a UTF-8 file"),
        None => embedded::sources(),
    };
    let ours = Tokenizer::by_name("gpt2").expect("a tokenizer");
    let peer = tiktoken_rs::r50k_base_singleton();
    assert_eq!(
        ours.encode(&text).expect("tokens"),
        peer.encode_ordinary(&text),
        "both must agree before they are timed"
    );

    // On one thread, because the goal is throughput per core.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
    let mut group = criterion.benchmark_group("tokenizer");
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("gpt2", |bencher| pool.install(|| bencher.iter(|| ours.encode(&text))));
    group.bench_function("tiktoken-rs", |bencher| bencher.iter(|| peer.encode_ordinary(&text)));
    group.finish();
}

criterion_group!(benches, tokenizer);
criterion_main!(benches);
