//! Run folders: the lock, existing runs, damaged checkpoints.

use std::fs;

use crate::support::Lab;

const ARGS: &str = "train --model m.toml --data t.txt --batch 4 --val-every 0";

#[test]
fn two_processes_cannot_write_to_one_run() {
    let lab = Lab::new();
    let mut first = lab.start("train --model m.toml --data t.txt --out run --steps 10000000 --val-every 0 --json");
    assert!(first.wait_until(|first| first.lines() >= 1));
    for flags in ["", "--overwrite", "--resume"] {
        lab.run(&format!("{ARGS} --out run --steps 1 {flags}"))
            .fails(1, &["run: another process is writing to this run folder (its lock is held)"]);
    }
    first.signal("TERM");
    let first = first.end();
    first.fails(3, &["saved; use --resume to continue"]);
    let next = first.stdout.lines().count() + 1;
    lab.run(&format!("train --resume --out run --steps {next}")).ok();
}

#[test]
fn a_run_is_not_overwritten_by_accident() {
    let lab = Lab::new();
    lab.run(&format!("{ARGS} --out run --steps 3 --json")).ok();
    lab.write("run/notes.txt", "mine");
    let holds = "run: already contains a run; use --resume to continue it or --overwrite to start over";
    lab.run(&format!("{ARGS} --out run --steps 1")).fails(1, &[holds]);
    // The old run is also kept if the new one cannot start.
    for flags in ["--data none.txt", "--batch 0", "--context 129", "--tokenizer gpt2", "--init-from none"] {
        let data = if flags.contains("--data") { "" } else { "--data t.txt" };
        let ran = lab.run(&format!("train {data} --out run --overwrite {flags}"));
        assert_eq!(ran.code, 1, "{flags}: {}", ran.stderr);
        assert_eq!(lab.checkpoints("run"), ["step-00000003"], "{flags}");
        assert_eq!(lab.metrics("run").len(), 3, "{flags}");
    }
    lab.run(&format!("{ARGS} --out run --steps 1 --overwrite --json")).ok();
    assert_eq!(lab.checkpoints("run"), ["step-00000001"]);
    assert_eq!(lab.metrics("run").len(), 1);
    assert_eq!(lab.read("run/notes.txt"), "mine");
}

#[test]
fn a_run_that_cannot_start_leaves_no_folder() {
    let lab = Lab::new();
    lab.shell("mkdir -p mine/empty");
    for flags in ["--data none.txt", "--tokenizer gpt2", "--init-from none", "--lr -1", "--val-fraction 1", "--batch 0"]
    {
        let data = if flags.contains("--data") { "" } else { "--data t.txt" };
        let model = if flags.contains("--init-from") { "" } else { "--model m.toml" };
        for out in ["runs/deep/run", "mine/run"] {
            let ran = lab.run(&format!("train {model} {data} --out {out} {flags}"));
            assert!(ran.code == 1 || ran.code == 2, "{flags}: {}", ran.stderr);
            assert!(!lab.path(out).exists() && !lab.path("runs").exists(), "{flags}, {out}");
        }
        assert!(lab.path("mine/empty").exists(), "{flags}");
    }
    lab.run("train --resume --out runs/run").fails(1, &["no run to resume"]);
    assert!(!lab.path("runs").exists());
}

/// Changes one byte of a tensor in a run's checkpoint.
fn damage(lab: &Lab, checkpoint: &str, file: &str, at: impl Fn(usize) -> usize) {
    let path = lab.path(format!("run/checkpoints/{checkpoint}/{file}"));
    let mut bytes = fs::read(&path).unwrap();
    let at = at(bytes.len());
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_damaged_checkpoint_is_skipped() {
    let lab = Lab::new();
    let whole = format!("{ARGS} --steps 12 --save-every 4 --json");
    lab.run(&format!("{whole} --out whole")).ok();
    // The last bytes of the file belong to the last tensor.
    for (file, tensor) in [("model.safetensors", "lnf_bias"), ("optimizer.safetensors", "v.lnf_bias")] {
        lab.run(&format!("{whole} --out run --overwrite")).ok();
        assert_eq!(lab.checkpoints("run"), ["step-00000008", "step-00000012"]);
        damage(&lab, "step-00000012", file, |len| len - 3);
        let ran = lab.run("train --resume --out run --json");
        ran.fails(0, &["WARN", "step-00000012", file, &format!("'{tensor}'")]);
        assert_eq!(ran.records()[0]["step"], 9, "it resumes from the checkpoint before");
        lab.assert_same_end("run", "whole");
    }
}

#[test]
fn if_all_checkpoints_are_damaged_each_is_named() {
    let lab = Lab::new();
    lab.run(&format!("{ARGS} --out run --steps 12 --save-every 4 --json")).ok();
    damage(&lab, "step-00000012", "model.safetensors", |len| len - 3);
    // The model can still be loaded from the older checkpoint only.
    lab.run("generate --model run --max-tokens 1").fails(0, &["step-00000012", "'lnf_bias'"]);
    damage(&lab, "step-00000008", "MANIFEST", |len| len / 2);
    let both = ["none of the 2 checkpoints can be loaded", "step-00000012", "'lnf_bias'", "step-00000008", "MANIFEST"];
    lab.run("train --resume --out run").fails(1, &both);
    lab.run("generate --model run").fails(1, &both);
    lab.run("eval --model run --text t.txt").fails(1, &both);
    lab.run("export run --out hf").fails(1, &both);
    assert!(!lab.path("hf").exists());
}

#[test]
fn a_truncated_checkpoint_is_skipped() {
    let lab = Lab::new();
    for file in ["model.safetensors", "optimizer.safetensors", "state.json", "config.json", "MANIFEST"] {
        lab.run(&format!("{ARGS} --out run --overwrite --steps 3 --save-every 2 --json")).ok();
        let path = lab.path("run/checkpoints/step-00000003").join(file);
        let len = fs::metadata(&path).unwrap().len();
        fs::File::options().write(true).open(&path).unwrap().set_len(len - 1).unwrap();
        let ran = lab.run("train --resume --out run --json");
        ran.fails(0, &["skipping damaged checkpoint step-00000003", file]);
        assert_eq!(ran.records().len(), 1);
    }
}
