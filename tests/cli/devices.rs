//! `--device`: the same commands on the CPU and on the emulated GPU, runs that move from one to the other, and a device
//! that runs out of memory or is lost.

use serde_json::Value;

use crate::support::{Lab, parse_lines, without_speed};

/// A lab with `s.toml`, a model that the emulated GPU trains in seconds.
fn lab() -> Lab {
    let lab = Lab::new();
    lab.write("s.toml", "context = 16\nvocab = 257\nlayers = 1\nheads = 2\nchannels = 32\n");
    lab
}

/// Each test adds `--batch` and `--val-every`.
const TRAIN: &str = "train --model s.toml --data t.txt --lr 1e-2 --json";

fn losses(records: &[Value]) -> Vec<f64> {
    records.iter().map(|record| record["loss"].as_f64().unwrap()).collect()
}

fn assert_near(a: &[f64], b: &[f64], relative: f64) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() <= relative * b.abs(), "{a} and {b}");
    }
}

#[test]
fn a_run_resumed_on_a_gpu_has_the_same_bits() {
    let lab = lab();
    for flags in ["--val-every 0", "--accumulate 2 --order sequential --val-every 2 --val-batches 1"] {
        let args = format!("{TRAIN} --batch 2 --device emulated --schedule constant {flags}");
        let whole = without_speed(lab.run(&format!("{args} --steps 5 --out whole --overwrite")).records());
        lab.run(&format!("{args} --steps 3 --out part --overwrite")).ok();
        let rest = without_speed(lab.run("train --resume --out part --steps 5 --device emulated --json").records());
        assert_eq!(rest, whole[3..], "{flags}");
        lab.assert_same_end("part", "whole");
    }
}

#[test]
fn a_run_moves_from_device_to_device() {
    let lab = lab();
    let args = format!("{TRAIN} --batch 2 --val-every 0 --schedule constant --order sequential");
    let cpu = losses(&lab.run(&format!("{args} --steps 6 --device cpu --out cpu")).records());
    lab.run(&format!("{args} --steps 2 --device cpu --out run")).ok();
    lab.run("train --resume --out run --steps 4 --device emulated --json").ok();
    lab.run("train --resume --out run --steps 6 --device cpu --json").ok();
    let moved = losses(&lab.metrics("run"));
    assert_near(&moved, &cpu, 5e-3);
    // Steps 3 and 4 were computed on the emulated GPU.
    assert!(moved[..2] == cpu[..2] && moved[3] != cpu[3], "{moved:?} and {cpu:?}");
}

#[test]
fn a_model_generates_the_same_on_both_devices() {
    let lab = lab();
    lab.write("s.txt", "the cat sat on the mat the dog ran under the tree ");
    lab.run(&format!("{TRAIN} --batch 8 --val-every 0 --steps 200 --device cpu --out run")).ok();
    let on = |args: &str, device: &str| lab.run(&format!("{args} --model run --device {device} --json")).json();
    let eval = ["cpu", "emulated"].map(|device| on("eval --text s.txt", device));
    let [cpu, gpu] = eval.map(|score| score["loss"].as_f64().unwrap());
    assert!(cpu < 2.5 && gpu != cpu, "{cpu} and {gpu}");
    assert_near(&[gpu], &[cpu], 5e-3);
    let generated =
        ["cpu", "emulated"].map(|device| on("generate --prompt the --max-tokens 12 --temperature 0", device));
    assert_eq!(generated[0]["tokens"], generated[1]["tokens"]);
}

#[test]
fn a_memory_plan_for_a_gpu_needs_no_gpu_and_adds_up() {
    let plan = Lab::new().run("info --model tiny --device cuda --json").json();
    for (recompute, memory) in plan["memory"].as_object().unwrap() {
        let parts = memory.as_object().unwrap().iter().filter(|(name, _)| *name != "total");
        let sum: u64 = parts.map(|(_, bytes)| bytes.as_u64().unwrap()).sum();
        assert_eq!(memory["total"], sum, "{recompute}: {memory}");
        assert!(memory["master"].as_u64() == memory["gradients"].as_u64() && memory["workspace"] != 0, "{memory}");
    }
}

#[test]
fn a_run_that_does_not_fit_a_gpu_fails_before_it_creates_anything() {
    let lab = lab();
    let small = "export IRONWARP_EMULATOR_MEMORY=500000";
    let ran = lab.run_after(small, &format!("{TRAIN} --batch 2 --val-every 0 --steps 1 --device emulated --out run"));
    let categories = ["weights ", "gradients ", "moments ", "activations ", "workspace "];
    ran.fails(
        1,
        &["error: out of memory: the run needs ", ", but 488.28 KiB are available", "lower --batch or --context"],
    );
    ran.fails(1, &categories);
    assert_eq!(ran.stdout, "");
    assert!(!lab.path("run").exists());
    // The plan fits, but the driver fails the fourth allocation.
    let full = "export IRONWARP_EMULATOR_FAULTS=cuMemAllocAsync:4=CUDA_ERROR_OUT_OF_MEMORY";
    let ran = lab.run_after(full, &format!("{TRAIN} --batch 2 --val-every 0 --steps 1 --device emulated --out run"));
    ran.fails(1, &["error: out of device memory: ", "requested for moments", "held: weights ", "gradients "]);
    assert!(!lab.path("run").exists());
}

#[test]
fn validations_and_samples_on_the_emulated_gpu_must_be_requested() {
    let lab = lab();
    let train = "train --model s.toml --data t.txt --batch 2 --steps 1 --device emulated --overwrite --out run";
    let ran = lab.run(train);
    ran.fails(0, &["no validation: it takes minutes on the emulated GPU", "no sample: it takes minutes"]);
    assert!(!ran.stdout.contains("sample:") && lab.metrics("run")[0].get("val_loss").is_none(), "{}", ran.stdout);
    let ran = lab.run(&format!("{train} --val-batches 1 --sample-tokens 2"));
    assert!(!ran.stderr.contains("minutes"), "{}", ran.stderr);
    assert!(ran.ok().contains("sample:") && lab.metrics("run")[0]["val_loss"].is_f64());
}

#[test]
fn a_gpu_lost_in_a_run_leaves_the_last_checkpoint() {
    let lab = lab();
    let args = format!("{TRAIN} --batch 2 --val-every 0 --device emulated --steps 6 --save-every 2");
    let whole = lab.run(&format!("{args} --out whole")).records();
    // The graph launch of the third step, and a download for a checkpoint.
    for fault in ["cuGraphLaunch:4=CUDA_ERROR_ECC_UNCORRECTABLE", "cuMemcpyDtoHAsync_v2:90=CUDA_ERROR_ILLEGAL_ADDRESS"]
    {
        let ran = lab
            .run_after(&format!("export IRONWARP_EMULATOR_FAULTS={fault}"), &format!("{args} --out run --overwrite"));
        let code = fault.split('=').next_back().unwrap();
        ran.fails(4, &["error: ", "device lost: ", code]);
        let saved = lab.checkpoints("run");
        let done = parse_lines(&ran.stdout).len();
        assert!(!saved.is_empty() && saved.iter().all(|name| name.starts_with("step-")), "{fault}: {saved:?}");
        assert!(done < 6, "{fault}: {done} steps");
        lab.run("train --resume --out run --device emulated --json").ok();
        lab.assert_same_end("run", "whole");
        assert_eq!(without_speed(lab.metrics("run")), without_speed(whole.clone()), "{fault}");
    }
}

#[test]
fn a_checkpoint_of_another_model_is_refused_before_anything_is_allocated() {
    let lab = lab();
    lab.run(&format!("{TRAIN} --batch 2 --val-every 0 --steps 1 --device cpu --out run")).ok();
    lab.run("train --model m.toml --data t.txt --steps 1 --device cpu --json --out other").ok();
    // Every allocation would fail, with a message of its own.
    let none = "export IRONWARP_EMULATOR_FAULTS='cuMemAlloc:*=2,cuMemAllocAsync:*=2,cuMemHostAlloc:*=2'";
    let resume = "train --resume --out run --model m.toml --steps 2 --device emulated";
    lab.run_after(none, resume).fails(1, &["L = 2", "L = 1", "m.toml"]);
    let newest = lab.newest("run");
    lab.shell(&format!("cp {}/model.safetensors {newest}/", lab.newest("other")));
    for args in ["train --resume --out run --steps 2", "eval --text t.txt --model run", "generate --model run"] {
        let ran = lab.run_after(none, &format!("{args} --device emulated"));
        ran.fails(1, &["model.safetensors"]);
        assert!(!ran.stderr.contains("out of device memory"), "{}", ran.stderr);
    }
}
