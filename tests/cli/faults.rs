//! Full disks and non-finite numbers.

use crate::environment;
use crate::support::{Lab, without_speed};

const ARGS: &str = "train --model m.toml --data t.txt --batch 4 --val-every 0 --json";

/// A shell command that limits the size of files. Writes beyond it fail as on a full disk, on any file system and without
/// privileges.
fn limit(kib: usize) -> String {
    format!("trap '' XFSZ; ulimit -f {kib}")
}

#[test]
fn a_full_disk_leaves_the_old_checkpoint() {
    let lab = Lab::new();
    lab.run(&format!("{ARGS} --out whole --steps 8")).ok();
    // The weights take 150 KiB, the moments 300 KiB.
    for (kib, file) in [(100, "model.safetensors"), (200, "optimizer.safetensors")] {
        lab.run(&format!("{ARGS} --out run --overwrite --steps 8 --save-every 4")).ok();
        lab.shell("rm -r run/checkpoints/step-00000008");
        let path = format!("run/checkpoints/step-00000004/{file}");
        let bytes = std::fs::metadata(lab.path(path)).unwrap().len();
        let ran = lab.run_after(&limit(kib), "train --resume --out run --json");
        let expected = format!("cannot write {bytes} bytes to run/checkpoints/.tmp-step-00000008/{file}: ");
        ran.fails(1, &[&expected, "File too large"]);
        assert_eq!(lab.checkpoints("run"), ["step-00000004"], "the partial checkpoint is deleted, the old one is kept");
        lab.run("train --resume --out run --json").ok();
        lab.assert_same_end("run", "whole");
    }
}

#[test]
fn a_full_disk_for_metrics_ends_the_run_and_it_can_be_resumed() {
    let lab = Lab::new();
    lab.run(&format!("{ARGS} --out whole --steps 20")).ok();
    // Twelve steps take more than 1 KiB.
    lab.run(&format!("{ARGS} --out run --steps 20 --save-every 12")).ok();
    lab.shell("rm -r run/checkpoints/step-00000020");
    let ran = lab.run_after(&limit(1), "train --resume --out run");
    ran.fails(1, &["cannot write ", " bytes to run/metrics.jsonl: File too large"]);
    lab.run("train --resume --out run --json").ok();
    lab.assert_same_end("run", "whole");
    assert_eq!(without_speed(lab.metrics("run")), without_speed(lab.metrics("whole")));
}

#[test]
fn every_command_that_writes_reports_a_full_disk() {
    let lab = Lab::new();
    lab.run(&format!("{ARGS} --out run --steps 1")).ok();
    lab.run_after(&limit(100), "export run --out hf").fails(1, &["cannot write ", " bytes to", "model.safetensors"]);
    assert!(!lab.path("hf").exists());
    let tokenize = "tokenize t.txt --out shards --tokenizer bytes";
    lab.run_after(&limit(2), tokenize).fails(1, &["cannot write ", " bytes to shards/t_train_000000.bin"]);
    assert_eq!(std::fs::read_dir(lab.path("shards")).unwrap().count(), 0);
    lab.run_after("exec >/dev/full", "info").fails(1, &["cannot write to standard output"]);
    lab.run_after("exec >/dev/full", &format!("{ARGS} --out none --steps 1"))
        .fails(1, &["cannot write to standard output"]);
    // If messages cannot be written either, the exit code still reports the error.
    lab.run_after("exec 2>/dev/full", "info --model none").fails(1, &[]);
    let warned = format!("{ARGS} --out bad --steps 4 --lr 1e30 --warmup 0");
    lab.run_after("exec 2>/dev/full", &warned).fails(0, &[]);
}

#[test]
fn non_finite_numbers_change_no_weights_and_end_the_run() {
    let lab = Lab::new();
    let ran = lab.run(&format!("{ARGS} --out run --steps 30 --lr 1e30 --warmup 0 --save-every 1"));
    ran.fails(
        1,
        &[
            "WARN",
            "step 2: update skipped (not finite: output of block 0's attention in micro-batch 0); its batch is at position 4 of ",
            "step 9: update skipped",
            "step 9: 8 consecutive steps had non-finite numbers",
            "a lower --lr",
            "the newest checkpoint is intact",
        ],
    );
    let early = lab.run(&format!("{ARGS} --out early --steps 30 --lr 1e30 --warmup 0"));
    early.fails(1, &["a lower --lr or a longer --warmup may help; the run has no checkpoint yet"]);
    let records = lab.metrics("run");
    assert!(records[0]["loss"].is_f64(), "{}", records[0]);
    for record in &records[1..] {
        assert!(
            record["loss"].is_null() && record["skipped"].as_str().unwrap().starts_with("not finite: "),
            "{record}"
        );
    }
    // The saved weights are finite and can be loaded; the next training starts with an outlier and then works.
    lab.run("info --model run").ok();
    lab.run("train --init-from run --data t.txt --out next --steps 1 --json").fails(0, &["update skipped"]);
}

#[test]
fn a_run_survives_a_bad_step() {
    let lab = Lab::new();
    // With a huge learning rate the weights stay finite, and the non-finite losses after it do not end the run.
    lab.run(&format!("{ARGS} --out run --steps 6 --lr 1e-2 --warmup 0 --save-every 3 --keep 9")).ok();
    let ran = lab.run("train --resume --out run --steps 9 --lr 1e30");
    assert!(ran.code == 0 && ran.stderr.contains("step 8: update skipped"), "{}", ran.stderr);
    assert_eq!(lab.checkpoints("run").last().unwrap(), "step-00000009");
    assert!(lab.metrics("run")[8]["loss"].is_null());
}

#[test]
fn a_closed_pipe_does_not_end_a_run() {
    let lab = Lab::new();
    let train = "train --model m.toml --data t.txt --steps 12 --out run --json";
    lab.shell(&format!("{} {train} | head -n 2", environment::command().display()));
    assert_eq!(lab.checkpoints("run"), ["step-00000012"]);
}
