//! `kill -9` at random moments.

use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::support::{Lab, without_speed};

#[test]
fn a_run_killed_at_random_moments_ends_with_the_same_bits() {
    let lab = Lab::new();
    let args = "train --model m.toml --data t.txt --batch 4 --steps 60 --save-every 1 --val-every 20 --json";
    let whole = without_speed(lab.run(&format!("{args} --out whole")).records());
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    let (mut kills, mut partial) = (0, 0);
    for round in 0..3 {
        let run = format!("run-{round}");
        let mut saved = false;
        loop {
            let resume = format!("train --resume --out {run} --json");
            let mut running = if saved { lab.start(&resume) } else { lab.start(&format!("{args} --out {run}")) };
            // The kill may come before the process has parsed its arguments, or after a few saves.
            std::thread::sleep(Duration::from_micros(rng.random_range(0..150_000)));
            if running.is_over() {
                assert_eq!(running.end().code, 0);
                break;
            }
            running.signal("KILL");
            // The process may have exited before the signal.
            kills += usize::from(running.end().code == -9);
            if lab.path(&run).join("checkpoints").is_dir() {
                let names = lab.checkpoints(&run);
                saved = names.iter().any(|name| name.starts_with("step-"));
                partial += usize::from(names.iter().any(|name| name.starts_with(".tmp-")));
            }
        }
        // The last process has deleted the incomplete checkpoints of the killed ones.
        assert_eq!(lab.checkpoints(&run), ["step-00000059", "step-00000060"]);
        lab.assert_same_end(&run, "whole");
        assert_eq!(without_speed(lab.metrics(&run)), whole);
    }
    assert!(kills >= 5, "only {kills} kills: the signals came too late");
    println!("{kills} kills, {partial} of them within a save");
}

#[test]
fn incomplete_checkpoints_of_a_killed_process_are_deleted() {
    let lab = Lab::new();
    lab.run("train --model m.toml --data t.txt --out run --steps 2 --json").ok();
    lab.write("run/checkpoints/.tmp-step-00000003/model.safetensors", "partial");
    lab.write("run/checkpoints/.tmp-old-step-00000001/MANIFEST", "partial");
    lab.write("run/checkpoints/notes.txt", "mine");
    lab.run("train --resume --out run --steps 3 --json").ok();
    assert_eq!(lab.checkpoints("run"), ["notes.txt", "step-00000002", "step-00000003"]);
}
