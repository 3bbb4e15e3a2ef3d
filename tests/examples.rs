//! The examples run, on the CPU or on the emulated GPU, and print what their pages say.

use std::fs;
use std::path::Path;
use std::process::Command;

use ironwarp::model::config::Config;
use ironwarp::model::{hugging_face, init};
use ironwarp::text::tokenizer::Tokenizer;

/// Writes a small GPT-2 with byte tokens as a Hugging Face folder.
fn write_model(folder: &Path) {
    let config = Config { context: 32, vocab: Tokenizer::bytes().vocab(), layers: 1, heads: 2, channels: 32 };
    hugging_face::export(&init::random(config, 1).unwrap(), Some("bytes"), folder).unwrap();
}

/// Runs an example and returns what it prints. `cargo test` has built the examples; before `cargo test --test examples`,
/// `cargo build --examples` does.
fn run(name: &str, args: &[&str]) -> String {
    let program = std::env::current_exe().unwrap();
    let example = program.ancestors().nth(2).unwrap().join("examples").join(name);
    let mut command = Command::new(&example);
    // The example lies elsewhere than this program, where `Cuda::emulated` would not find the emulated driver.
    let emulator = ironwarp::cuda::runtime::driver::find_emulator().unwrap();
    let output = command.args(args).env("IRONWARP_EMULATOR", emulator).output();
    let output = output.unwrap_or_else(|cause| panic!("cannot run {}: {cause}", example.display()));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{name}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn attention_on_own_memory() {
    let text = run("attention", &["emulated"]);
    let (first, last) = text.split_once('\n').unwrap();
    let (output, value) = first.strip_prefix("first output ").unwrap().split_once(" = first value ").unwrap();
    assert_eq!(output, value);
    assert!(last.starts_with("last output  "), "{text}");
}

#[test]
fn fused_mlp() {
    let text = run("fused_mlp", &["emulated"]);
    assert!(text.contains("sum of outputs ") && text.contains("norm of gradient "), "{text}");
}

#[test]
fn check_my_kernel() {
    let text = run("check_my_kernel", &[]);
    assert!(text.contains("row_sums: [2016.0, 2016.0]"), "{text}");
    assert!(text.contains("row_sums_without_barrier: device lost: "), "{text}");
    assert!(text.contains("Race in row_sums_without_barrier at "), "{text}");
    assert!(text.contains("examples/check_my_kernel.cu:19, block"), "{text}");
}

#[test]
fn finetune_and_generate() {
    let folder = tempfile::tempdir().unwrap();
    let (model, text) = (folder.path().join("model"), folder.path().join("text.txt"));
    write_model(&model);
    fs::write(&text, "the quick brown fox jumps over the lazy dog. ".repeat(40)).unwrap();
    let (model, text) = (model.to_str().unwrap(), text.to_str().unwrap());
    let losses: Vec<f32> =
        run("finetune", &[model, text]).lines().map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
    assert_eq!(losses.len(), 20);
    assert!(losses[19] < losses[0] - 0.5, "{losses:?}");
    assert!(!run("generate", &[model, "the quick"]).trim().is_empty());
}
