//! The commands that `train` prints at its end are those that its user needs.

use crate::environment;
use crate::support::Lab;

/// The lines after the heading, without their comments.
fn commands(stdout: &str) -> Vec<&str> {
    let (_, lines) = stdout.split_once("\nnext\n").unwrap_or_else(|| panic!("no next commands in {stdout}"));
    lines.lines().map(|line| line.rsplit_once("  # ").unwrap().0.trim()).collect()
}

#[test]
fn the_commands_at_the_end_of_a_run_do_what_they_say() {
    let lab = Lab::new();
    let flags = ["--model", "m.toml", "--steps", "3", "--batch", "2", "--val-every", "0", "--sample-tokens", "1"];
    let out = ["train", "--out", "it's a run", "--device", "cpu"];
    let stdout = lab.run_args(&[&out, &flags[..]].concat()).ok();
    let program = environment::command().display().to_string();
    let run = r"'it'\''s a run'";
    let expected = [
        format!("{program} generate --model {run} --prompt 'pub fn ' --max-tokens 300 --top-k 40 --device cpu"),
        format!("{program} train --resume --out {run} --steps 6 --device cpu"),
        format!("{program} train --data my.txt --out runs/my --model m.toml --device cpu"),
    ];
    assert_eq!(commands(&stdout), expected);

    lab.shell(&format!("cp t.txt my.txt; {} > text", expected[0]));
    assert!(lab.read("text").starts_with("pub fn "), "{}", lab.read("text"));
    lab.shell(&format!("{} > /dev/null", expected[1]));
    assert_eq!(lab.checkpoints("it's a run").last().unwrap(), "step-00000006");
    // The same without most of its steps.
    lab.shell(&format!("{} --steps 2 > /dev/null", expected[2]));
    assert_eq!(lab.checkpoints("runs/my"), ["step-00000002"]);
}

#[test]
fn a_run_on_a_text_of_the_user_is_not_told_how_to_use_one() {
    let lab = Lab::new();
    let stdout = lab.run("train --model m.toml --data t.txt --out run --steps 2 --sample-tokens 1").ok();
    let commands = commands(&stdout);
    assert_eq!(commands.len(), 2, "{commands:?}");
    assert!(commands[0].contains(" generate --model run ") && commands[1].ends_with(" --resume --out run --steps 4"));
}

/// The smallest model has settings of its own, which flags override and which the program prints.
#[test]
fn tiny_is_trained_by_its_recipe() {
    let lab = Lab::new();
    let flags = "train --steps 1 --val-every 0 --sample-tokens 1 --batch 1 --context 8";
    let stdout = lab.run(&format!("{flags} --out a")).ok();
    assert!(stdout.starts_with("recipe      --lr "), "{stdout}");
    let lr = |run: &str| lab.metrics(run)[0]["lr"].as_f64().unwrap();
    lab.run(&format!("{flags} --lr 6e-4 --warmup 0 --out b --json")).ok();
    assert!((lr("b") - 6e-4).abs() < 1e-9, "{}", lr("b"));
    assert!(lr("a") > 0.0 && lr("a") < 6e-4 && stdout.contains(" --warmup "), "{}", lr("a"));
}
