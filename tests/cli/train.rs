//! `train`: runs from the first step to the last.

use serde_json::Value;

use crate::support::{Lab, Ran, model_toml, parse_lines, without_speed, words};

const SMALL: &str = "train --model m.toml --lr 1e-2 --warmup 0 --json";
/// The same without validation.
const PLAIN: &str = "train --model m.toml --lr 1e-2 --warmup 0 --json --val-every 0 --batch 4";

fn losses(records: &[Value]) -> Vec<f64> {
    records.iter().map(|record| record["loss"].as_f64().unwrap()).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn curve(ran: Ran) -> Vec<Value> {
    without_speed(ran.records())
}

#[test]
fn json_has_one_object_per_step_and_the_folder_has_the_run() {
    let lab = Lab::new();
    let args = "train --model m.toml --data t.txt --out run --batch 4 --lr 1e-2 --warmup 0 --steps 35 --val-every 10";
    let stdout = lab.run(&format!("{args} --json")).ok();
    let records = parse_lines(&stdout);
    assert_eq!(records.len(), 35);
    for (index, record) in records.iter().enumerate() {
        let step = index + 1;
        assert_eq!(record["step"], step);
        for field in ["loss", "lr", "grad_norm", "tokens_per_second"] {
            assert!(record[field].as_f64().is_some_and(|x| x > 0.0), "{field} of {record}");
        }
        let validated = step % 10 == 0 || step == 35;
        assert_eq!(record.get("val_loss").is_some_and(|x| x.as_f64().unwrap() > 0.0), validated, "{record}");
    }
    let losses = losses(&records);
    // The loss of an untrained model: ln 257, and half the variance of its logits, 0.02² · 768.
    assert!((losses[0] - 5.70).abs() < 0.1, "{}", losses[0]);
    assert!(mean(&losses[30..]) < 3.2, "{losses:?}");

    assert_eq!(lab.read("run/metrics.jsonl"), stdout);
    let svg = lab.read("run/loss.svg");
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>") && svg.contains("<polyline"));
    assert_eq!(lab.checkpoints("run"), ["step-00000035"]);
}

#[test]
fn text_output_has_progress_samples_and_paths() {
    let lab = Lab::new();
    let args = "train --model m.toml --data t.txt --out run --steps 12 --val-every 5";
    let ran = lab.run(&format!("{args} --sample-every 6 --sample-tokens 9"));
    let stdout = ran.ok();
    for text in [
        "34,208 parameters, 128 tokens/step,",
        "step      1  loss 5.6",
        "step     10  loss",
        "  validation ",
        "--- sample at step 6\n",
        "--- sample at step 12\n",
        "\nsample:\n",
        "curve       run/loss.svg",
        "checkpoint  run/checkpoints/step-00000012",
    ] {
        assert!(stdout.contains(text), "{text:?} is not in {stdout}");
    }
    // With --json, samples go to standard error.
    let ran = lab.run(&format!("{args} --sample-every 6 --json --overwrite"));
    assert!(ran.stderr.contains("--- sample at step 6\n"), "{}", ran.stderr);
    assert_eq!(ran.records().len(), 12);
}

#[test]
fn progress_is_logged_at_the_requested_steps() {
    let lab = Lab::new();
    let ran = lab.run("train --model m.toml --data t.txt --out run --steps 7 --val-every 0 --log-every 3");
    assert!(!ran.stderr.contains("warning"), "{}", ran.stderr);
    let out = ran.ok();
    let lines: Vec<&str> = out.lines().filter(|line| line.starts_with("step ")).collect();
    let steps: Vec<&str> = lines.iter().map(|line| line.split_whitespace().nth(1).unwrap()).collect();
    assert_eq!(steps, ["1", "3", "6"], "{out}");
    // The first step says nothing about the time of the others.
    assert!(lines[0].ends_with(" tokens/s") && lines[1..].iter().all(|line| line.ends_with(" left")), "{out}");
}

#[test]
fn a_run_of_many_hours_is_announced() {
    let lab = Lab::new();
    let mut running =
        lab.start("train --model m.toml --data t.txt --out run --steps 1000000000 --val-every 0 --json --device cpu");
    assert!(running.wait_until(|running| running.lines() >= 2));
    running.signal("TERM");
    running.end().fails(3, &["warning: at this speed the run takes ", " on the CPU; a smaller --model"]);
}

#[test]
fn recomputation_and_threads_do_not_change_the_bits() {
    let lab = Lab::new();
    for order in ["shuffled", "sequential"] {
        let args = format!("{PLAIN} --data t.txt --order {order} --steps 10 --accumulate 2 --overwrite");
        let plain = curve(lab.run(&format!("{args} --out plain")));
        for (name, flags) in [
            ("gelu", "--recompute gelu"),
            ("layernorm", "--recompute layernorm"),
            ("one", "--threads 1"),
            ("two", "--threads 2"),
        ] {
            assert_eq!(curve(lab.run(&format!("{args} --out {name} {flags}"))), plain, "{flags}, {order}");
            lab.assert_same_end("plain", name);
        }
    }
}

#[test]
fn accumulated_micro_batches_equal_one_batch() {
    let lab = Lab::new();
    let mut firsts = Vec::new();
    for order in ["shuffled", "sequential"] {
        let args = format!("{SMALL} --data t.txt --order {order} --steps 8 --val-every 0");
        let whole = losses(&lab.run(&format!("{args} --out {order}-1 --batch 4")).records());
        let accumulated = losses(&lab.run(&format!("{args} --out {order}-4 --batch 1 --accumulate 4")).records());
        for (step, (a, b)) in whole.iter().zip(&accumulated).enumerate() {
            assert!((a - b).abs() < 1e-3, "{order}, step {}: {a} and {b}", step + 1);
        }
        firsts.push(whole);
    }
    assert_ne!(firsts[0], firsts[1], "the orders differ");
}

#[test]
fn training_starts_from_a_run_a_checkpoint_or_an_exported_folder() {
    let lab = Lab::new();
    lab.run(&format!("{PLAIN} --data t.txt --steps 40 --out base")).ok();
    lab.run("export base --out hf").ok();
    let args = "train --data t.txt --batch 4 --steps 3 --warmup 0 --val-every 0 --json --seed 5";
    let from = |dir: &str| curve(lab.run(&format!("{args} --init-from {dir} --out from-{}", dir.replace('/', "-"))));
    let run = from("base");
    assert!(losses(&run)[0] < 3.5, "{run:?}");
    assert_eq!(from("base/checkpoints/step-00000040"), run);
    assert_eq!(from("hf"), run);
}

#[test]
fn a_run_can_start_over_from_its_own_weights() {
    let lab = Lab::new();
    lab.run(&format!("{PLAIN} --data t.txt --steps 40 --out run")).ok();
    let again = lab.run("train --data t.txt --init-from run --out run --overwrite --steps 2 --json").records();
    assert!(losses(&again)[0] < 3.5, "{again:?}");
    assert_eq!(lab.checkpoints("run"), ["step-00000002"]);
}

#[test]
fn a_text_and_its_shards_give_the_same_training() {
    let lab = Lab::new();
    let tokenized = lab.run("tokenize t.txt --tokenizer bytes --out shards --shard-tokens 1000 --json").json();
    let tokens = lab.read("t.txt").len();
    assert_eq!(tokenized["tokens"], tokens);
    assert_eq!(tokenized["shards"].as_array().unwrap().len(), tokens.div_ceil(1000));
    let args = format!("{SMALL} --steps 6 --val-every 3");
    let text = curve(lab.run(&format!("{args} --data t.txt --out text")));
    assert_eq!(curve(lab.run(&format!("{args} --data shards --out shards-run"))), text);
    lab.assert_same_end("text", "shards-run");
}

#[test]
fn jsonl_has_documents_and_a_folder_may_have_its_own_validation() {
    let lab = Lab::new();
    // Each document is preceded by an end-of-text token.
    lab.write("d.jsonl", "{\"text\": \"0123456789\", \"id\": 1}\n{\"text\": \"abcdefghi\"}\n");
    let out = lab.run("train --model m.toml --data d.jsonl --out jsonl --steps 1 --val-fraction 0").ok();
    assert!(out.contains(" 16 tokens/epoch") && out.contains("validation  none"), "{out}");

    lab.write("folder/a.txt", words(200));
    lab.write("folder/my-val.txt", words(60));
    let args = format!("{SMALL} --data folder --steps 4 --val-every 2");
    let first = curve(lab.run(&format!("{args} --out first")));
    lab.write("folder/my-val.txt", "XYZ ".repeat(40));
    let second = curve(lab.run(&format!("{args} --out second")));
    assert_eq!(losses(&first), losses(&second));
    assert!(first[3]["val_loss"].as_f64().unwrap() < second[3]["val_loss"].as_f64().unwrap(), "{first:?} {second:?}");
}

#[test]
fn folders_are_named_after_the_model_and_the_corpus_is_embedded() {
    let lab = Lab::new();
    lab.write("my.model.toml", model_toml(16, 32));
    lab.run("train --model my.model.toml --steps 1 --batch 2 --val-batches 1 --json").ok();
    assert_eq!(lab.checkpoints("runs/my.model"), ["step-00000001"]);
    lab.run("train --model gpt3-1.3B --resume").fails(1, &["runs/gpt3-1.3B: no run to resume"]);
}

#[test]
fn the_schedules_are_followed() {
    let lab = Lab::new();
    let lrs = |flags: &str| -> Vec<f64> {
        let args = "train --model m.toml --data t.txt --batch 1 --steps 10 --lr 1 --warmup 2 --val-every 0 --json";
        // The gradient is clipped to almost zero, because only the learning rate is tested.
        let records = lab.run(&format!("{args} --out run --overwrite --grad-clip 1e-30 {flags}")).records();
        records.iter().map(|record| record["lr"].as_f64().unwrap()).collect()
    };
    assert_eq!(lrs("--schedule constant"), [0.5, 1., 1., 1., 1., 1., 1., 1., 1., 1.]);
    let linear = lrs("--schedule linear --final-lr-fraction 0");
    assert!((linear[6] - 0.5).abs() < 1e-6 && (linear[9] - 0.125).abs() < 1e-6, "{linear:?}");
    let cosine = lrs("--schedule cosine --final-lr-fraction 0");
    assert!((cosine[6] - 0.5).abs() < 1e-6, "{cosine:?}");
    let wsd = lrs("--schedule wsd --wsd-fraction 0.3 --final-lr-fraction 0");
    assert!(wsd[1..8].iter().all(|&lr| lr == 1.0) && wsd[8] < 1.0 && wsd[9] < wsd[8], "{wsd:?}");
}
