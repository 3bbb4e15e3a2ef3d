//! SIGTERM and SIGINT: the current step is finished, the run is saved, and it can be resumed with the same bits.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use crate::support::{Lab, Ran, Running, without_speed, words};

/// Time after the first signal at which a second one ends the process.
const LATER: Duration = Duration::from_millis(1200);

/// Trains without interruption; then trains with a signal when `ready` returns true, and resumes to the end.
fn check(signal: &str, flags: &str, ready: impl Fn(&Lab, &Running) -> bool) {
    let lab = Lab::new();
    lab.write("long.txt", words(20_000));
    let args = format!("train --model m.toml --batch 4 --steps 60 --json {flags}");
    let whole = without_speed(lab.run(&format!("{args} --out whole")).records());
    let stopped = stop(&lab, &format!("{args} --out run --overwrite"), signal, ready);
    stopped.fails(3, &["stopped by a signal after step ", " of 60; saved; use --resume to continue"]);
    let done = stopped.stdout.lines().count();
    assert!(stopped.stderr.contains(&format!("after step {done} of")), "{done} steps: {}", stopped.stderr);
    assert!(lab.newest("run").ends_with(&format!("step-{done:08}")), "{}", lab.newest("run"));
    let rest = without_speed(lab.run("train --resume --out run --json").records());
    assert_eq!(rest, whole[done..]);
    assert_eq!(without_speed(lab.metrics("run")), whole);
    lab.assert_same_end("run", "whole");
}

/// Runs until a signal stops the run. On a busy machine the signal may come after the end of the run, which is then
/// repeated.
fn stop(lab: &Lab, args: &str, signal: &str, ready: impl Fn(&Lab, &Running) -> bool) -> Ran {
    for _ in 0..50 {
        let mut running = lab.start(args);
        if running.wait_until(|running| ready(lab, running)) {
            running.signal(signal);
        }
        let ran = running.end();
        if ran.code != 0 {
            return ran;
        }
    }
    panic!("every signal came after the end of the run");
}

#[test]
fn in_a_step() {
    for signal in ["TERM", "INT"] {
        check(signal, "--data t.txt --accumulate 3 --val-every 9", |_, running| running.lines() >= 5);
    }
}

#[test]
fn in_a_validation() {
    // Validation takes ten times as long as a step, and happens before the step is printed.
    let flags = "--data long.txt --val-fraction 0.9 --val-every 1 --val-batches 100";
    check("TERM", flags, |_, running| running.lines() >= 3);
}

#[test]
fn in_a_sample() {
    // The sample is generated right after the step is printed.
    check("INT", "--data t.txt --sample-every 1", |_, running| running.lines() >= 3);
}

#[test]
fn in_a_save() {
    check("TERM", "--data t.txt --save-every 1", |lab, running| {
        let entries = fs::read_dir(lab.path("run/checkpoints")).into_iter().flatten();
        let is_partial = |name: std::ffi::OsString| name.to_string_lossy().starts_with(".tmp-");
        running.lines() >= 3 && entries.flatten().any(|entry| is_partial(entry.file_name()))
    });
}

/// A corpus that takes the command some tenths of a second to read.
fn slow_data(lab: &Lab) {
    lab.write("slow.jsonl", "{\"text\": \"a b\"}\n".repeat(2_000_000));
}

/// Starts a command and sends a signal while it reads `slow.jsonl`. If the signal comes later, the command is started again,
/// after `again`.
fn signal_in_reading(lab: &Lab, args: &str, signal: &str, again: &str) -> Ran {
    for _ in 0..20 {
        let mut running = lab.start(args);
        if running.wait_until(|running| running.has_opened("slow.jsonl")) {
            running.signal(signal);
        }
        let ran = running.end();
        if ran.code == 130 {
            return ran;
        }
        lab.shell(again);
    }
    panic!("no signal came while the data were read");
}

#[test]
fn while_the_data_is_read() {
    let lab = Lab::new();
    slow_data(&lab);
    for signal in ["TERM", "INT"] {
        let args = "train --model m.toml --batch 4 --steps 12 --data slow.jsonl --out run";
        let ran = signal_in_reading(&lab, args, signal, "rm -rf run");
        ran.fails(130, &["ended by a signal before the first step; nothing was trained"]);
        assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
        assert!(!lab.path("run").exists(), "the new run folder is deleted");
    }
}

#[test]
fn while_the_data_of_a_resumed_run_is_read() {
    let lab = Lab::new();
    slow_data(&lab);
    lab.run("train --model m.toml --batch 4 --steps 2 --data t.txt --out saved --val-every 0").ok();
    lab.copy("saved", "run");
    let again = "rm -rf run; cp -r saved run";
    signal_in_reading(&lab, "train --resume --steps 12 --data slow.jsonl --out run", "TERM", again);
    assert_eq!(lab.checkpoints("run"), lab.checkpoints("saved"));
    lab.run("train --resume --steps 3 --data t.txt --out run").ok();
}

#[test]
fn a_long_sample_ends_at_a_signal() {
    let lab = Lab::new();
    // A million tokens take minutes.
    let args = "train --model m.toml --data t.txt --steps 4 --val-every 0 --sample-tokens 1048576 --out run";
    let mut running = lab.start(args);
    let saved = |lab: &Lab| lab.path("run/checkpoints/step-00000004/MANIFEST").exists();
    assert!(running.wait_until(|_| saved(&lab)));
    running.signal("TERM");
    let ran = running.end();
    assert!(ran.stdout.contains("\nsample:\n"), "{}", ran.stdout);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    for (first, second) in [("TERM", "TERM"), ("INT", "TERM")] {
        let lab = Lab::new();
        lab.write("pipe.txt", words(20_000));
        // A step of several seconds.
        let args = "train --model m.toml --data pipe.txt --batch 1000 --accumulate 12 --steps 50 --val-every 0 --json";
        let mut running = lab.start(&format!("{args} --out run"));
        assert!(running.wait_until(|running| running.lines() >= 1));
        running.signal(first);
        sleep(LATER);
        running.signal(second);
        let ran = running.end();
        ran.fails(130, &["ended by a second signal; the steps since the last checkpoint are lost"]);
        assert_eq!(ran.stdout.lines().count(), 1, "{}", ran.stdout);
        assert!(lab.checkpoints("run").is_empty());
        // The lock is released with the process.
        lab.run("train --model m.toml --data t.txt --out run --steps 1 --json").ok();
    }
}

#[test]
fn repeats_of_a_signal_within_a_second_are_ignored() {
    let lab = Lab::new();
    lab.write("long.txt", words(20_000));
    // Steps of about 0.2 s, within which the repeats arrive, as those of `timeout` do.
    let args = "train --model m.toml --data long.txt --batch 200 --accumulate 4 --steps 500 --val-every 0 --json";
    let mut running = lab.start(&format!("{args} --out run"));
    assert!(running.wait_until(|running| running.lines() >= 1));
    for signal in ["TERM", "TERM", "INT", "TERM"] {
        running.signal(signal);
    }
    running.end().fails(3, &["stopped by a signal after step ", " of 500; saved"]);
}
