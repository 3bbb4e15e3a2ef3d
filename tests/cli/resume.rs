//! A resumed run gives the same bits as an uninterrupted one.

use serde_json::Value;

use crate::support::without_speed;
use crate::support::{Lab, model_toml, words};

/// Trains `steps` steps, saving every `every` steps; then resumes from each checkpoint as if the run had stopped there.
fn check(lab: &Lab, flags: &str, steps: usize, every: usize) -> Vec<Value> {
    let args = format!("train --model m.toml {flags} --steps {steps} --save-every {every} --keep 100 --lr 1e-2");
    let whole = without_speed(lab.run(&format!("{args} --val-every 7 --out whole --overwrite --json")).records());
    let saved = lab.checkpoints("whole");
    assert_eq!(saved.len(), steps.div_ceil(every), "{saved:?}");
    for (index, stop) in saved[..saved.len() - 1].iter().enumerate() {
        lab.shell("rm -rf part");
        lab.copy("whole", "part");
        for later in &saved[index + 1..] {
            lab.shell(&format!("rm -r part/checkpoints/{later}"));
        }
        let rest = without_speed(lab.run("train --resume --out part --json").records());
        assert_eq!(rest, whole[(index + 1) * every..], "{flags}, from {stop}");
        assert_eq!(without_speed(lab.metrics("part")), whole, "{flags}, from {stop}");
        let [end, other] = ["part", "whole"].map(|run| lab.newest(run));
        for file in ["model.safetensors", "optimizer.safetensors", "state.json", "config.json", "MANIFEST"] {
            lab.shell(&format!("cmp {end}/{file} {other}/{file}"));
        }
    }
    whole
}

#[test]
fn resuming_gives_the_same_bits() {
    let lab = Lab::new();
    // 27 windows per epoch: batches of 4 span the end of an epoch.
    lab.write("tiny.txt", &words(110)[..433]);
    for order in ["shuffled", "sequential"] {
        check(&lab, &format!("--data t.txt --order {order} --batch 4"), 21, 5);
        check(&lab, &format!("--data tiny.txt --order {order} --batch 4 --val-fraction 0"), 24, 5);
        check(&lab, &format!("--data tiny.txt --order {order} --batch 2 --accumulate 3 --seed 9"), 24, 7);
    }
    check(&lab, "--data t.txt --batch 3 --schedule wsd --recompute gelu --context 11 --weight-decay 0.3", 16, 6);
}

#[test]
fn resuming_keeps_the_window_of_recent_losses() {
    let lab = Lab::new();
    let flags = "--data t.txt --batch 1 --skip-loss-z 1.5 --skip-norm-z 1.5";
    let records = check(&lab, flags, 190, 47);
    let skipped: Vec<_> = records.iter().filter(|r| r.get("skipped").is_some()).map(|r| &r["step"]).collect();
    // 128 steps fill the window; the checkpoints after 141 and 188 then hold a full one.
    assert!(skipped.first().is_some_and(|step| step.as_u64() > Some(128)), "{skipped:?}");
    assert!(skipped.iter().any(|step| step.as_u64() > Some(141)), "{skipped:?}");
}

#[test]
fn resuming_with_more_steps_equals_a_longer_run() {
    let lab = Lab::new();
    let args = "train --model m.toml --data t.txt --batch 4 --schedule constant --val-every 0 --json";
    let whole = without_speed(lab.run(&format!("{args} --steps 20 --out whole")).records());
    lab.run(&format!("{args} --steps 12 --out part")).ok();
    lab.run("train --resume --out part --steps 20 --json").ok();
    assert_eq!(without_speed(lab.metrics("part")), whole);
    lab.assert_same_end("part", "whole");
    // If no steps are left, nothing changes.
    let before = lab.checkpoints("part");
    for flags in ["", "--json"] {
        let ran = lab.run(&format!("train --resume --out part {flags}"));
        ran.fails(0, &["the run is finished: step 20 of 20; --steps N with N > 20 continues it"]);
        assert!(!ran.stdout.contains("loss"), "{}", ran.stdout);
    }
    assert_eq!(lab.checkpoints("part"), before);
}

#[test]
fn saved_settings_apply_except_for_flags_on_the_command_line() {
    let lab = Lab::new();
    lab.run("train --model m.toml --data t.txt --out run --batch 3 --lr 0.01 --order sequential --steps 4 --seed 3")
        .ok();
    let state =
        |lab: &Lab| -> Value { serde_json::from_str(&lab.read(format!("{}/state.json", lab.newest("run")))).unwrap() };
    let before = state(&lab);
    lab.run("train --resume --out run --steps 6 --batch 2 --keep 1 --beta1 0.8").ok();
    let mut expected = before["settings"].clone();
    expected["schedule"]["steps"] = 6.into();
    expected["batch"] = 2.into();
    expected["keep"] = 1.into();
    // Settings are f32.
    expected["optimizer"]["beta1"] = 0.8.into();
    assert_eq!(state(&lab)["settings"], expected);
    assert_eq!(lab.checkpoints("run"), ["step-00000006"]);
}

#[test]
fn another_model_tokenizer_or_data_is_detected() {
    let lab = Lab::new();
    lab.write("other.toml", model_toml(16, 64));
    lab.run("train --model m.toml --data t.txt --out run --steps 3 --val-fraction 0").ok();
    let resume = |flags: &str| lab.run(&format!("train --resume --out run --steps 4 {flags}"));
    resume("--model other.toml").fails(1, &["C = 64", "C = 32", "other.toml"]);
    resume("--tokenizer gpt2").fails(1, &["tokenizer 'bytes'"]);
    for flag in ["--context 8", "--order sequential", "--seed 1"] {
        resume(flag)
            .fails(1, &["--order, --context and --seed cannot change on --resume: the run has shuffled, 16 and 1337"]);
    }
    lab.shell("mv t.txt moved.txt");
    resume("").fails(1, &["t.txt: the data of the run is not at this path any more; pass its new path with --data"]);
    lab.write("less.txt", &words(800)[..1000]);
    resume("--data less.txt").fails(0, &["WARN", "the data has changed: it has 1000 tokens, but had "]);
    lab.run("train --resume --out none").fails(1, &["none: no run to resume"]);
    lab.shell("mkdir -p empty/checkpoints");
    lab.run("train --resume --out empty").fails(1, &["empty: no checkpoint to resume from"]);
}
