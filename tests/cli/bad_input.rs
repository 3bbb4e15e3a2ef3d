//! Invalid flags, texts, shards and prompts: each gives an exit code and a line that names the fault.

use crate::support::Lab;

/// A lab with a run and many invalid files.
fn lab() -> Lab {
    let lab = Lab::new();
    lab.run("train --model m.toml --data t.txt --out run --steps 1 --batch 2 --val-every 0").ok();
    lab.run("tokenize t.txt --tokenizer bytes --out shards").ok();
    let shard = std::fs::read(lab.path("shards/t_train_000000.bin")).unwrap();
    let with = |at: usize, byte: u8| {
        let mut bytes = shard.clone();
        bytes[at] = byte;
        bytes
    };
    lab.write("short.bin", &shard[..shard.len() - 10]);
    lab.write("header.bin", &shard[..100]);
    lab.write("magic.bin", with(0, 9));
    lab.write("version.bin", with(4, 9));
    // Token 5 of the shard becomes at least 256 * 3.
    lab.write("token.bin", with(1024 + 11, 3));
    lab.write("empty.bin", "");
    lab.write("empty.txt", "");
    lab.write("latin.txt", b"line\ncaf\xe9 au lait and more of it");
    lab.write("bad.jsonl", "{\"text\": \"a\"}\n{\"txt\": 1}\n");
    lab.write("nothing.jsonl", "\n\n");
    lab.write("array.jsonl", "[{\"text\": \"a\"}]\n");
    lab.write("utf16.txt", b"\xff\xfea\0b\0");
    lab.write("tiny.txt", "0123456789abcdef");
    lab.write("one.txt", "0");
    lab.write("folder/.hidden", "x");
    lab.write("only-val/val.txt", "x");
    lab.write("field.toml", "context = 16\nvocab = 257\nlayers = 2\nheads = 2\nchannels = 32\ndropout = 0.1\n");
    lab.write("less.toml", "context = 16\n");
    lab.write("heads.toml", "context = 16\nvocab = 257\nlayers = 2\nheads = 3\nchannels = 32\n");
    lab.write("zero.toml", "context = 16\nvocab = 257\nlayers = 0\nheads = 2\nchannels = 32\n");
    lab.write("huge.toml", "context = 16777216\nvocab = 257\nlayers = 16384\nheads = 2\nchannels = 1048576\n");
    lab.write("vocab.toml", "context = 16\nvocab = 200\nlayers = 2\nheads = 2\nchannels = 32\n");
    lab.write("broken.toml", "context = [");
    lab.write("h3.jsonl", "{\"ctx\": \"a\", \"endings\": [\"b\", \"c\", \"d\"], \"label\": 0}\n");
    lab.write("h9.jsonl", "{\"ctx\": \"a\", \"endings\": [\"b\", \"c\", \"d\", \"e\"], \"label\": 4}\n");
    lab.write("word.jsonl", "{\"text\": \"one two\"}\n{\"text\": \"word\"}\n");
    lab.write("long.jsonl", "{\"text\": \"an extraordinarilylongword\"}\n");
    lab.write("file", "not a folder");
    lab
}

#[test]
fn invalid_flags_are_usage_errors_with_a_hint() {
    let lab = Lab::new();
    for (args, texts) in [
        ("", &["Usage"][..]),
        ("trian", &["unrecognized subcommand 'trian'", "train"]),
        ("train --step 3", &["unexpected argument '--step'", "--steps"]),
        ("train --steps three", &["invalid value 'three' for '--steps <N>'"]),
        ("train --steps=-1", &["invalid value '-1'"]),
        ("train --order random", &["invalid value 'random'", "shuffled, sequential"]),
        ("train --schedule cosin", &["cosine"]),
        ("train --device gpu", &["one of auto, cpu, cuda"]),
        ("train --device cuda:x", &["one of auto, cpu, cuda"]),
        ("train --resume --overwrite", &["cannot be used with"]),
        ("train --init-from a --resume", &["cannot be used with"]),
        ("train --init-from a --model tiny", &["cannot be used with"]),
        ("train --threads 5000", &["5000 is not in 0..=1024"]),
        ("train --seed -1", &["invalid value '-1' for '--seed <SEED>'"]),
        ("generate", &["--model <DIR>"]),
        ("generate --model run --top-k 0", &["0 is not in 1.."]),
        ("generate --model run --temperature hot", &["invalid value 'hot'"]),
        ("generate --model run --max-tokens -3", &["invalid value '-3' for '--max-tokens <N>'"]),
        ("eval --model run", &["--text <FILE>"]),
        ("eval --model run --text a --lambada b", &["cannot be used with"]),
        ("eval --model run --text a --context 0", &["0 is not in 1.."]),
        ("tokenize", &["<INPUT>"]),
        ("export run", &["--out <DIR>"]),
    ] {
        let ran = lab.run(args);
        ran.fails(2, texts);
        assert!(ran.stderr.contains("--help") || args.is_empty(), "{args}: {}", ran.stderr);
    }
}

#[test]
fn invalid_data_is_reported_with_file_and_offset() {
    let lab = lab();
    let train = |file: &str| format!("train --model m.toml --out new --steps 1 --data {file}");
    let eval = |file: &str| format!("eval --model run --text {file}");
    for (file, text) in [
        ("none.txt", "none.txt: No such file"),
        ("empty.txt", "empty.txt: the file is empty"),
        ("latin.txt", "latin.txt at byte 8: line 2: not UTF-8 text (byte 0xe9)"),
        ("bad.jsonl", "bad.jsonl at byte 14: line 2: missing field `text`"),
        ("array.jsonl", "array.jsonl at byte 0: line 1: an array; JSONL has an object per line"),
        ("utf16.txt", "utf16.txt: the file is UTF-16; `iconv -f UTF-16 -t UTF-8` converts it"),
        ("nothing.jsonl", "nothing.jsonl: the file has no documents"),
        ("empty.bin", "empty.bin: the file is empty"),
        ("short.bin", "short.bin at byte "),
        ("short.bin", "truncated: "),
        ("header.bin", "header.bin at byte 100: truncated: a shard's header has 1024 bytes"),
        ("magic.bin", "magic.bin at byte 0: a damaged token shard: the magic number is"),
        ("version.bin", "version.bin at byte 4: version 9"),
        ("token.bin", "token.bin at byte 1034: token 8"),
        ("token.bin", ">= V = 257 (token number 5)"),
        ("folder", "folder: no training data here: no files"),
        ("only-val", "only-val: no training data here: 1 file(s) for validation by their names, 0 unused"),
    ] {
        lab.run(&train(file)).fails(1, &[text]);
        lab.run(&eval(file)).fails(1, &[text]);
        assert!(!lab.path("new/metrics.jsonl").exists(), "no run was started");
    }
    for (args, text) in [
        (train("tiny.txt") + " --val-fraction 0", "tiny.txt: the text is too short: n >= T + 1 = 17 tokens failed"),
        (train("t.txt") + " --order sequential --batch 999", "n >= B*T + 1 = 15985 tokens failed"),
        (train("t.txt") + " --val-fraction 1", "0 <= fraction < 1 failed (1)"),
        (train("t.txt") + " --val-fraction NaN", "0 <= fraction < 1 failed (NaN)"),
        (eval("one.txt"), "at least two tokens failed"),
        (eval("t.txt") + " --context 17", "windows of 17 tokens exceed the model's context of 16"),
        ("eval --model run --hellaswag h3.jsonl".into(), "h3.jsonl at byte 0: line 1: 3 endings, not 4"),
        ("eval --model run --hellaswag h9.jsonl".into(), "line 1: the label is not in 0..=3"),
        ("eval --model run --hellaswag t.txt".into(), "t.txt at byte 0: line 1: expected"),
        (
            "eval --model run --lambada word.jsonl".into(),
            "word.jsonl at byte 20: line 2: `text` has fewer than two words",
        ),
        ("eval --model run --lambada long.jsonl".into(), "a completion of 24 tokens exceeds the model's context of 16"),
        ("eval --model run --lambada word.jsonl --limit 0".into(), "line 2"),
        ("eval --model run --hellaswag none".into(), "cannot read none"),
        ("tokenize none.txt".into(), "cannot read none.txt"),
        ("tokenize latin.txt --out new-shards".into(), "latin.txt at byte 8"),
        ("tokenize t.txt short.bin --out new-shards".into(), "short.bin"),
        ("tokenize t.txt t.txt --out new-shards".into(), "t.txt"),
        ("tokenize t.txt tiny.txt".into(), "several inputs require --out"),
        ("tokenize t.txt --out shards".into(), "shards"),
        ("tokenize t.txt --out file".into(), "file"),
        ("tokenize t.txt --out new-shards --shard-tokens 0".into(), "1 <= n"),
        ("tokenize t.txt --out new-shards --val-fraction 1.5".into(), "0 <= fraction < 1 failed (1.5)"),
        ("tokenize t.txt --tokenizer gpt5".into(), "gpt5"),
    ] {
        lab.run(&args).fails(1, &["error: ", text]);
    }
}

#[test]
fn invalid_settings_are_reported_with_their_range() {
    let lab = lab();
    for (flags, text) in [
        ("--batch 0", "1 <= --batch x --context x --accumulate"),
        ("--accumulate 0", "1 <= --batch x --context x --accumulate"),
        ("--context 0", "1 <= --batch x --context x --accumulate"),
        ("--context 17", "--context 17 is more than the model's context of 16"),
        ("--keep 0", "--keep must be at least 1"),
        ("--val-batches 0", "--val-batches must be at least 1"),
        ("--batch 18446744073709551615", "tokens per step failed (18446744073709551615 x 16 x 1)"),
        ("--accumulate 65536 --batch 65536", "<= 67108864 tokens per step failed (65536 x 16 x 65536)"),
        ("--accumulate 65537", "--accumulate <= 65536 failed (65537)"),
        ("--sample-tokens 4294967296", "--sample-tokens <= 1048576 failed (4294967296)"),
        ("--lr NaN", "0 <= --lr < inf failed (NaN)"),
        ("--lr inf", "0 <= --lr < inf failed (inf)"),
        ("--lr -1", "0 <= --lr < inf failed (-1)"),
        ("--lr -0.5", "0 <= --lr < inf failed (-0.5)"),
        ("--beta1 1", "0 <= --beta1 < 1 failed (1)"),
        ("--beta2=-0.1", "0 <= --beta2 < 1 failed"),
        ("--eps NaN", "--eps"),
        ("--weight-decay=-1", "--weight-decay"),
        ("--grad-clip NaN", "--grad-clip"),
        ("--skip-loss-z NaN", "--skip-loss-z"),
        ("--wsd-fraction=-1", "--wsd-fraction"),
        ("--final-lr-fraction inf", "--final-lr-fraction"),
        ("--tokenizer gpt2", "the tokenizer 'gpt2' has 50257 tokens, more than the model's vocabulary of 257"),
        ("--tokenizer words", "words"),
        ("--device cuda:99", "use --device cpu instead"),
        ("--out file", "file"),
        ("--out file/run", "file"),
    ] {
        let out = if flags.contains("--out") { "" } else { "--out new" };
        let ran = lab.run(&format!("train --model m.toml --data t.txt {out} --steps 1 {flags}"));
        ran.fails(1, &["error: ", text]);
        assert_eq!(ran.stderr.trim_end().lines().count(), 1, "{}", ran.stderr);
    }
    for (model, text) in [
        ("gpt2", "unknown model preset 'gpt2'; available: tiny"),
        ("none.toml", "cannot read none.toml"),
        ("field.toml", "unknown field `dropout`"),
        ("less.toml", "missing field `vocab`"),
        ("heads.toml", "heads.toml: model: C % NH == 0 failed (C = 32, NH = 3)"),
        ("zero.toml", "1 <= layers (L) <= 16384 failed (0)"),
        ("huge.toml", "at most 2^48 parameters failed"),
        ("broken.toml", "broken.toml at byte 11: line 1: not a valid model description: "),
        ("run", "unknown model preset 'run'"),
    ] {
        lab.run(&format!("train --model {model} --data t.txt --out new")).fails(1, &["error: ", text]);
    }
    let no_tokenizer = "no tokenizer has the model's vocabulary size of 200; choose one with --tokenizer";
    lab.run("train --model vocab.toml --data t.txt --out new").fails(1, &[no_tokenizer]);
}

#[test]
fn a_limit_of_the_address_space_is_in_the_memory_plan() {
    let lab = Lab::new();
    let train = "train --model gpt2-124M --data t.txt --batch 1 --context 64 --steps 1 --device cpu --out new";
    let ran = lab.run_after("ulimit -v 1500000", train);
    ran.fails(1, &["error: out of memory: the run needs ", " are available; choose a smaller model"]);
    assert!(!lab.path("new").exists());
}

#[test]
fn invalid_prompts_and_sampling_parameters_are_rejected() {
    let lab = lab();
    let long = "seventeen letters";
    for (args, text) in [
        (&["--prompt", long][..], "the prompt has 17 tokens, more than the model's context of 16"),
        (&["--prompt", ""], "the prompt has no tokens"),
        (&["--prompt", "<|endoftext|><|endoftext|>"], "the prompt has 26 tokens"),
        (&["--temperature", "NaN"], "--temperature must be finite and at least 0, not NaN"),
        (&["--temperature", "inf"], "--temperature must be finite and at least 0, not inf"),
        (&["--temperature", "-0.5"], "--temperature must be finite and at least 0, not -0.5"),
        (&["--top-p", "0"], "--top-p must be above 0 and at most 1, not 0"),
        (&["--top-p", "2"], "--top-p must be above 0 and at most 1, not 2"),
        (&["--top-p", "NaN"], "--top-p must be above 0 and at most 1, not NaN"),
        (&["--tokenizer", "gpt2"], "the tokenizer 'gpt2' has 50257 tokens"),
        (&["--device", "cuda:99"], "use --device cpu instead"),
    ] {
        lab.run_args(&[&["generate", "--model", "run"], args].concat()).fails(1, &["error: ", text]);
    }
    // The extremes of the valid ranges work.
    for flags in ["--temperature 1e-45", "--temperature 3e38", "--top-p 1e-45", "--top-k 18446744073709551615"] {
        lab.run(&format!("generate --model run --max-tokens 3 {flags}")).ok();
    }
}
