//! Random arguments: the command always exits with one of its own codes and never panics.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::support::Lab;

/// Numbers at the limits of the flags' ranges, except those that would take a small machine long.
const NUMBERS: &[&str] = &[
    "0",
    "1",
    "2",
    "3",
    "5",
    "7",
    "16",
    "17",
    "100",
    "0.5",
    "0.9",
    "1e-45",
    "1e38",
    "1e39",
    "NaN",
    "inf",
    "-1",
    "",
    "x",
    "18446744073709551615",
    "18446744073709551616",
    "9223372036854775808",
];
const PATHS: &[&str] = &[
    "t.txt",
    "run",
    "hf",
    "shards",
    "shards/t_train_000000.bin",
    "d.jsonl",
    "h.jsonl",
    "m.toml",
    "none",
    "",
    ".",
    "/dev/null",
    "run/checkpoints",
    "hf/config.json",
    "hf/model.safetensors",
    "a\u{301}\n",
    "tiny",
];
const WORDS: &[&str] =
    &["auto", "cpu", "cuda", "cuda:9", "bytes", "gpt2", "sequential", "linear", "wsd", "gelu", "--", "-", "--json"];

/// By command: the first arguments, which keep a run short, and flags to add.
const COMMANDS: &[(&[&str], &[&str])] = &[
    (
        &["generate", "--model", "run", "--max-tokens", "3"],
        &[
            "--model",
            "--prompt",
            "--temperature",
            "--top-k",
            "--top-p",
            "--seed",
            "--tokenizer",
            "--device",
            "--ignore-end",
        ],
    ),
    (
        &["eval", "--model", "run"],
        &["--text", "--hellaswag", "--lambada", "--context", "--limit", "--tokenizer", "--device", "--model"],
    ),
    (&["tokenize", "h.jsonl"], &["--tokenizer", "--val-fraction", "--shard-tokens", "--out", "d.jsonl"]),
    (&["info"], &["--model", "--batch", "--context"]),
    (&["export"], &["run", "hf", "--out"]),
    (
        &[
            "train",
            "--steps",
            "1",
            "--model",
            "m.toml",
            "--data",
            "t.txt",
            "--out",
            "fresh",
            "--val-every",
            "0",
            "--sample-tokens",
            "2",
        ],
        &[
            "--batch",
            "--context",
            "--accumulate",
            "--lr",
            "--warmup",
            "--beta1",
            "--beta2",
            "--eps",
            "--weight-decay",
            "--grad-clip",
            "--skip-loss-z",
            "--skip-norm-z",
            "--schedule",
            "--wsd-fraction",
            "--final-lr-fraction",
            "--order",
            "--val-fraction",
            "--val-batches",
            "--sample-every",
            "--save-every",
            "--keep",
            "--seed",
            "--recompute",
            "--overwrite",
            "--resume",
            "--device",
            "--tokenizer",
        ],
    ),
];

#[test]
fn random_arguments_never_panic() {
    let lab = Lab::new();
    lab.run("train --model m.toml --data t.txt --out run --steps 1 --batch 2 --val-every 0").ok();
    lab.run("export run --out hf").ok();
    lab.run("tokenize t.txt --tokenizer bytes --out shards").ok();
    lab.write("d.jsonl", "{\"text\": \"a b c\"}\n");
    lab.write(
        "h.jsonl",
        "{\"text\": \"a b\", \"ctx\": \"a\", \"endings\": [\"b\", \"c\", \"\", \"e\"], \"label\": 0}\n",
    );
    let mut rng = ChaCha8Rng::seed_from_u64(22);
    let mut pick = |of: &[&'static str]| of[rng.random_range(0..of.len())];
    let mut codes = [0; 3];
    for case in 0..600 {
        let (start, flags) = COMMANDS[case % COMMANDS.len()];
        let mut args = start.to_vec();
        for _ in 0..1 + case % 3 {
            let flag = pick(flags);
            // clap rejects repeated flags.
            if args.contains(&flag) {
                continue;
            }
            args.push(flag);
            let value_kind = match flag {
                "--model" | "--text" | "--hellaswag" | "--lambada" | "--out" => "path",
                "--tokenizer" | "--device" | "--order" | "--schedule" | "--recompute" => "word",
                "--ignore-end" | "--overwrite" | "--resume" | "run" | "hf" | "d.jsonl" => "none",
                _ => "number",
            };
            let kinds = [value_kind, value_kind, value_kind, value_kind, value_kind, value_kind, "number", "path"];
            args.push(match pick(&kinds) {
                "number" => pick(NUMBERS),
                "path" => pick(PATHS),
                "word" => pick(WORDS),
                _ => continue,
            });
        }
        // Deletes what the case wrote, which would change the results of later cases.
        let ran = lab.run_args(&args);
        assert!((0..=2).contains(&ran.code), "case {case}: {} ended with {}: {}", ran.args, ran.code, ran.stderr);
        assert_eq!(ran.code == 0, !ran.stderr.contains("error: "), "case {case}: {}: {}", ran.args, ran.stderr);
        codes[ran.code as usize] += 1;
        lab.shell("rm -rf fresh runs");
    }
    assert!(codes.iter().all(|&count| count > 80), "{codes:?}: the arguments are too good or too bad");
}
