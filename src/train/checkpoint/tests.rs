use std::cell::Cell;
use std::ops::Range;

use serde::Deserialize;
use tempfile::TempDir;

use super::faults::{Fault, Faulty, Loss, Op, Replay};
use super::load::{Opened, newest};
use super::manifest::LoadError;
use super::*;
use crate::model::hugging_face;
use crate::model::params::HostWeights;
use crate::model::safetensors::TensorFile;

const TINY: Config = Config { context: 2, vocab: 3, layers: 1, heads: 1, channels: 2 };

/// A temporary folder, on a RAM disk if available, because these tests write many thousand files.
fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// Stand-in for a trainer's state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct State {
    step: u64,
    random: [u64; 2],
    losses: Vec<f64>,
}

impl State {
    fn at(step: u64) -> Self {
        State { step, random: [u64::MAX - step, 1 << 63], losses: vec![0.1 + step as f64, f64::MIN_POSITIVE / 4.0] }
    }
}

/// All elements of a group at a step. Every element differs between any two steps.
fn values(group: TensorGroup, step: u64) -> Vec<f32> {
    let first = (step * 3 + group as u64) as f32;
    (0..Layout::new(&TINY).len).map(|i| first + i as f32 / 65536.0).collect()
}

fn slot(name: &str) -> Range<usize> {
    let slots = Layout::new(&TINY).slots.into_array();
    slots.into_iter().find(|s| s.0 == name).unwrap().1.range
}

fn save(run: &RunFolder, step: u64, keep: usize) -> Result<PathBuf> {
    let snapshot = Snapshot { step, config: &TINY, tokenizer: Some(&Tokenizer::bytes()), state: &State::at(step) };
    run.save(&snapshot, keep, |group, name| Ok(values(group, step)[slot(name)].to_vec().into()))
}

fn load(dir: &Path) -> Result<Option<Loaded<State>>> {
    load_newest(dir, Some(&TINY))
}

/// Checks that what was loaded is what was saved at `step`, bit for bit.
fn assert_is(loaded: &Loaded<State>, step: u64) {
    assert_eq!((loaded.step, loaded.tokenizer.clone()), (step, Some(Tokenizer::bytes())));
    assert_eq!(loaded.state, State::at(step));
    for (group, found) in [
        (TensorGroup::Weights, &loaded.weights.data),
        (TensorGroup::FirstMoment, &loaded.m),
        (TensorGroup::SecondMoment, &loaded.v),
    ] {
        assert_eq!(*found, values(group, step), "{group:?} of step {step}");
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A run folder with these steps saved.
fn run_with(steps: &[u64]) -> (TempDir, RunFolder) {
    let dir = scratch();
    let run = RunFolder::open_on(dir.path(), Box::new(Faulty::new(Fault::None))).unwrap();
    for &step in steps {
        save(&run, step, 9).unwrap();
    }
    (dir, run)
}

#[test]
fn checkpoints_round_trip_and_the_newest_are_kept() {
    let root = scratch();
    let dir = root.path().join("a/run");
    assert!(load(&dir).unwrap().is_none());
    let run = RunFolder::open(&dir).unwrap();
    assert_eq!(run.dir(), dir);
    assert!(load(&dir).unwrap().is_none());
    for step in [1, 20, 300, 300, 123_456_789_012] {
        let path = save(&run, step, 2).unwrap();
        let loaded = load(&dir).unwrap().unwrap();
        assert_eq!(loaded.path, path);
        assert!(loaded.warnings.is_empty());
        assert_is(&loaded, step);
    }
    let checkpoints = dir.join(CHECKPOINTS);
    assert_eq!(names(&checkpoints), ["step-00000300-r1", "step-123456789012"]);
    let files = [MANIFEST, CONFIG, MODEL, OPTIMIZER, STATE];
    assert_eq!(names(&checkpoints.join("step-00000300-r1")), files);
    save(&run, 123_456_789_013, 0).unwrap();
    assert_eq!(names(&checkpoints), ["step-123456789013"]);
    // Checkpoints of later steps could not be loaded at the last start; saving must not delete them.
    save(&run, 5, 1).unwrap();
    assert_eq!(names(&checkpoints), ["step-00000005", "step-123456789013"]);
    run.remove_checkpoints().unwrap();
    assert_eq!(names(&checkpoints).len(), 0);
    assert!(load(&dir).unwrap().is_none());
}

#[test]
fn a_checkpoint_deleted_while_it_is_read_is_replaced_by_a_newer_one() {
    let (dir, run) = run_with(&[1]);
    // The number of times that a checkpoint was read; before the first `deletions`, the run saves another and deletes it.
    let reads = Cell::new(0);
    let read = |deletions: u64| {
        newest(dir.path(), |opened| {
            if reads.replace(reads.get() + 1) < deletions {
                save(&run, reads.get() + 1, 1)?;
            }
            Ok(opened.load::<State>(None)?.step)
        })
    };
    assert_eq!(read(3).unwrap(), Some((4, Vec::new())));
    let error = read(1000).unwrap_err().to_string();
    assert!(
        error.ends_with("each checkpoint was deleted while it was read; a larger --keep keeps them longer"),
        "{error}"
    );
}

#[test]
fn a_second_writer_is_rejected_while_the_first_holds_the_lock() {
    let (dir, run) = run_with(&[1]);
    let second = RunFolder::open(dir.path());
    assert!(matches!(second, Err(Error::Locked { path }) if path == dir.path()));
    assert_is(&load(dir.path()).unwrap().unwrap(), 1);
    drop(run);
    RunFolder::open(dir.path()).unwrap();
}

#[test]
fn a_kill_at_any_step_leaves_the_newest_complete_checkpoint() {
    let mut kills = 0;
    for at in 0.. {
        let dir = scratch();
        let disk = Faulty::new(Fault::None);
        let run = RunFolder::open_on(dir.path(), Box::new(disk.clone())).unwrap();
        save(&run, 1, 1).unwrap();
        let before = disk.ops().len();
        disk.set(Fault::Kill(before + at));
        let saved = save(&run, 2, 1);
        if disk.ops().len() < before + at {
            break;
        }
        kills += 1;
        let found = load(dir.path()).unwrap().unwrap();
        assert!(found.warnings.is_empty(), "step {at}: {:?}", found.warnings);
        let renamed = dir.path().join(CHECKPOINTS).join("step-00000002").exists();
        assert_is(&found, if renamed { 2 } else { 1 });
        assert!(saved.is_err() || renamed, "step {at}");

        drop(run);
        let again = RunFolder::open_on(dir.path(), Box::new(Faulty::new(Fault::None))).unwrap();
        let left = names(&dir.path().join(CHECKPOINTS));
        assert!(left.iter().all(|n| n.starts_with("step-")), "step {at}: {left:?}");
        save(&again, 2, 1).unwrap();
        assert_is(&load(dir.path()).unwrap().unwrap(), 2);
        assert_eq!(names(&dir.path().join(CHECKPOINTS)).len(), 1, "step {at}");
    }
    assert!(kills > 70, "only {kills} steps in a save");
}

#[test]
fn a_power_cut_at_any_step_leaves_the_newest_complete_checkpoint() {
    let dir = scratch();
    let root = dir.path().join("run");
    let disk = Faulty::new(Fault::None);
    let run = RunFolder::open_on(&root, Box::new(disk.clone())).unwrap();
    let mut complete = Vec::new();
    for step in 1..=3 {
        save(&run, step, 1).unwrap();
        // A save is complete when it has synced the folder of the checkpoints; older ones are deleted after that.
        let checkpoints = root.join(CHECKPOINTS);
        let done = disk.ops().iter().rposition(|op| *op == Op::SyncDir(checkpoints.clone())).unwrap() + 1;
        complete.push((done, step));
    }
    let mut replay = Replay::new(dir.path());
    let ops = disk.ops();
    assert_eq!(ops.iter().filter(|op| matches!(op, Op::Rename(..))).count(), 5, "three saves, two removed");
    for (done, op) in ops.iter().enumerate() {
        replay.apply(op);
        let newest = complete.iter().rev().find(|c| c.0 <= done + 1).map_or(0, |c| c.1);
        for loss in [Loss::All, Loss::Contents, Loss::Names, Loss::Some(1), Loss::Some(2), Loss::Some(3)] {
            let after = scratch();
            replay.cut(loss, after.path());
            match load(&after.path().join("run")) {
                Ok(Some(found)) => {
                    assert!(found.step == newest || found.step == newest + 1, "{done} {loss:?}: step {}", found.step);
                    assert!(found.warnings.is_empty(), "{done} {loss:?}: {:?}", found.warnings);
                    assert_is(&found, found.step);
                }
                Ok(None) => assert_eq!(newest, 0, "{done} {loss:?} {op:?}"),
                Err(error) => panic!("{done} {loss:?}: {error}"),
            }
        }
    }
}

#[test]
fn a_full_disk_or_an_error_at_any_step_leaves_the_old_checkpoint_and_reports_the_size() {
    let (mut failed, mut written) = (0, 0);
    for at in 0..200 {
        for fault in [Fault::Full, Fault::Fail] {
            let (dir, run) = run_with(&[1]);
            drop(run);
            let disk = Faulty::new(fault(at));
            let run = RunFolder::open_on(dir.path(), Box::new(disk.clone())).unwrap();
            let expected = match save(&run, 2, 9) {
                Ok(_) => 2,
                Err(error) => {
                    failed += 1;
                    let Error::Io { action, path, .. } = &error else { panic!("step {at}: {error}") };
                    assert!(path.starts_with(dir.path().join(CHECKPOINTS)), "{error}");
                    if let Some(bytes) = action.strip_prefix("write ") {
                        written += 1;
                        let bytes: u64 = bytes.strip_suffix(" bytes to").unwrap().parse().unwrap();
                        let full_size =
                            dir.path().join(CHECKPOINTS).join("step-00000001").join(path.file_name().unwrap());
                        // The length of the manifest depends on the number of digits of the checksums.
                        assert!(bytes.abs_diff(full_size.metadata().unwrap().len()) < 100, "{error}");
                    }
                    // After the rename only the sync of the folder can fail: the checkpoint exists, but is not durable yet.
                    if action == "sync folder" && path.ends_with(CHECKPOINTS) { 2 } else { 1 }
                }
            };
            assert_is(&load(dir.path()).unwrap().unwrap(), expected);
            let left = names(&dir.path().join(CHECKPOINTS));
            assert!(left.iter().all(|n| n.starts_with("step-")), "step {at}: the space is not freed: {left:?}");
            disk.set(Fault::None);
            save(&run, 3, 9).unwrap();
            assert_is(&load(dir.path()).unwrap().unwrap(), 3);
        }
    }
    assert!(failed > 120 && written > 100, "{failed} failures, {written} in writes");
}

#[test]
fn short_writes_are_completed() {
    let (dir, run) = run_with(&[]);
    drop(run);
    let run = RunFolder::open_on(dir.path(), Box::new(Faulty::new(Fault::ShortWrites))).unwrap();
    save(&run, 1, 1).unwrap();
    assert_is(&load(dir.path()).unwrap().unwrap(), 1);
}

/// Loads a checkpoint, which must be reported as damaged, and returns the message.
fn damage(path: &Path) -> String {
    match Opened::open(path).and_then(|opened| opened.load::<State>(Some(&TINY))) {
        Err(LoadError::Damaged(error)) => error.to_string(),
        Err(LoadError::Incompatible(error)) => panic!("reported as incompatible: {error}"),
        Ok(_) => panic!("{} was loaded", path.display()),
    }
}

/// The tensor that a byte of a file belongs to, if any.
fn tensor_at(path: &Path, at: usize) -> Option<String> {
    let is_tensors = path.extension().is_some_and(|e| e == "safetensors");
    let file = is_tensors.then(|| TensorFile::open(path).unwrap())?;
    let tensors = &file.header().tensors;
    tensors.iter().find(|(_, info)| info.range.contains(&at)).map(|(name, _)| name.clone())
}

#[test]
fn a_bit_flip_in_any_byte_of_any_file_is_detected_and_its_tensor_named() {
    let (dir, _run) = run_with(&[1]);
    let path = dir.path().join(CHECKPOINTS).join("step-00000001");
    let mut in_tensors = std::collections::BTreeSet::new();
    for name in names(&path) {
        let file = path.join(&name);
        let good = fs::read(&file).unwrap();
        let owners: Vec<_> = (0..good.len()).map(|at| tensor_at(&file, at)).collect();
        for at in 0..good.len() {
            // Every byte of headers and JSON files; of the tensors' data both ends and every 61st byte.
            let inner = at > 0 && at + 1 < good.len() && owners[at - 1] == owners[at] && owners[at + 1] == owners[at];
            if owners[at].is_some() && inner && at % 61 != 0 {
                continue;
            }
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            fs::write(&file, &bad).unwrap();
            let error = damage(&path);
            assert!(error.contains(&name), "byte {at} of {name}: {error}");
            if let Some(tensor) = &owners[at] {
                assert!(error.contains(&format!("tensor '{tensor}' is damaged")), "byte {at} of {name}: {error}");
                in_tensors.insert(tensor.clone());
            }
        }
        fs::write(&file, &good).unwrap();
    }
    assert_eq!(in_tensors.len(), 3 * 16);
    assert_is(&load(dir.path()).unwrap().unwrap(), 1);
}

#[test]
fn a_header_that_still_parses_is_verified_by_its_checksum() {
    let (dir, _run) = run_with(&[1]);
    let path = dir.path().join(CHECKPOINTS).join("step-00000001");
    let good = fs::read(path.join(MODEL)).unwrap();
    let at = |name: &[u8]| good.windows(name.len()).position(|w| w == name).unwrap();
    let (first, second) = (at(b"ln1_bias"), at(b"ln2_bias"));
    let mut swapped = good.clone();
    swapped[first..first + 8].copy_from_slice(b"ln2_bias");
    swapped[second..second + 8].copy_from_slice(b"ln1_bias");
    fs::write(path.join(MODEL), swapped).unwrap();
    let error = damage(&path);
    assert!(error.contains("model.safetensors: the header is damaged"), "{error}");
}

#[test]
fn truncation_to_any_length_is_detected_and_the_tensor_named() {
    let (dir, _run) = run_with(&[1]);
    let path = dir.path().join(CHECKPOINTS).join("step-00000001");
    for name in names(&path) {
        let file = path.join(&name);
        let good = fs::read(&file).unwrap();
        let owners: Vec<_> = (0..good.len()).map(|at| tensor_at(&file, at)).collect();
        for length in 0..good.len() {
            fs::write(&file, &good[..length]).unwrap();
            let error = damage(&path);
            assert!(error.contains(&name), "{name} cut to {length}: {error}");
            if let Some(tensor) = &owners[length] {
                assert!(error.contains(&format!("tensor '{tensor}'")), "{name} cut to {length}: {error}");
            }
        }
        fs::write(&file, [&good[..], b"\n"].concat()).unwrap();
        assert!(damage(&path).contains(&name));
        fs::remove_file(&file).unwrap();
        assert!(damage(&path).contains(&name));
        fs::write(&file, &good).unwrap();
    }
    assert_is(&load(dir.path()).unwrap().unwrap(), 1);
}

#[test]
fn damaged_checkpoints_are_skipped_with_a_warning_until_none_is_left() {
    let (dir, run) = run_with(&[1, 2, 3]);
    let file = |step: u64, name: &str| dir.path().join(CHECKPOINTS).join(format!("step-{step:08}")).join(name);
    let flip_last = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(path, bytes).unwrap();
    };
    flip_last(&file(3, OPTIMIZER));
    fs::remove_file(file(2, STATE)).unwrap();
    let found = load(dir.path()).unwrap().unwrap();
    assert_is(&found, 1);
    let [third, second] = &found.warnings[..] else { panic!("{:?}", found.warnings) };
    assert!(third.contains("step-00000003") && third.contains("tensor 'v.lnf_bias' is damaged"), "{third}");
    assert!(second.contains("step-00000002") && second.contains(STATE), "{second}");
    // In the newest checkpoint the weights are intact.
    assert_eq!(load_model_folder(dir.path()).unwrap().0.data, values(TensorGroup::Weights, 3));

    // A run that resumes from step 1 saves steps 2 and 3 again.
    for step in [2, 3] {
        save(&run, step, 9).unwrap();
    }
    assert_eq!(names(&dir.path().join(CHECKPOINTS)), ["step-00000001", "step-00000002-r1", "step-00000003-r1"]);
    assert!(load(dir.path()).unwrap().unwrap().warnings.is_empty());

    for name in names(&dir.path().join(CHECKPOINTS)) {
        flip_last(&dir.path().join(CHECKPOINTS).join(name).join(MODEL));
    }
    let error = load(dir.path()).unwrap_err().to_string();
    for wanted in ["none of the 3 checkpoints can be loaded", "step-00000001", "step-00000002-r1", "step-00000003-r1"] {
        assert!(error.contains(wanted), "{error}");
    }
}

/// Replaces a file and updates the manifest, as if the file had been saved with this content.
fn resave(checkpoint: &Path, name: &str, text: &str) {
    let path = checkpoint.join(MANIFEST);
    let mut manifest = Manifest::parse(&path, &fs::read(&path).unwrap()).unwrap();
    manifest.files.insert(name.into(), manifest::text_checksums(text.as_bytes()));
    fs::write(checkpoint.join(name), text).unwrap();
    fs::write(path, manifest.to_bytes().unwrap()).unwrap();
}

#[test]
fn checkpoints_of_another_model_version_or_trainer_are_rejected() {
    let (dir, _run) = run_with(&[1, 2]);
    let other = Config { layers: 3, channels: 4, ..TINY };
    let error = load_newest::<State>(dir.path(), Some(&other)).unwrap_err().to_string();
    let both =
        "model is (L = 1, NH = 1, C = 2, T = 2, V = 3), but this run's model is (L = 3, NH = 1, C = 4, T = 2, V = 3)";
    assert!(error.contains(both), "{error}");
    assert_is(&load_newest(dir.path(), None).unwrap().unwrap(), 2);

    let checkpoint = dir.path().join(CHECKPOINTS).join("step-00000002");
    let config = fs::read_to_string(checkpoint.join(CONFIG)).unwrap();
    let state = fs::read_to_string(checkpoint.join(STATE)).unwrap();
    for (name, text, wanted) in [
        (CONFIG, r#"{"format": 2, "new": 0}"#, "format version 2, but this build reads version 1"),
        (STATE, r#"{"steps": 2}"#, "bad JSON: missing field `step`"),
    ] {
        resave(&checkpoint, name, text);
        let error = load(dir.path()).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(wanted), "{error}");
        resave(&checkpoint, CONFIG, &config);
        resave(&checkpoint, STATE, &state);
    }
    // Claimed sizes that the tensors do not have, or that are impossible, are rejected before any allocation.
    for (from, to, wanted) in [
        ("\"channels\": 2", "\"channels\": 1048576", "'wte' is (128, 2), the model needs (128, 1048576)"),
        ("\"layers\": 1", "\"layers\": 16384", "'qkv_weight' is (1, 6, 2), the model needs (16384, 6, 2)"),
        ("\"layers\": 1", "\"layers\": 16777216", "1 <= layers (L) <= 16384 failed (16777216)"),
        ("\"layers\": 1", "\"layers\": 0", "layers (L)"),
    ] {
        resave(&checkpoint, CONFIG, &config.replace(from, to));
        let error = load_model_folder(&checkpoint).unwrap_err().to_string();
        assert!(error.contains(wanted), "{to}: {error}");
    }
}

#[test]
fn a_state_that_could_not_be_resumed_is_not_saved() {
    let (dir, run) = run_with(&[1]);
    let state = State { losses: vec![f64::NAN], ..State::at(2) };
    let snapshot = Snapshot { step: 2, config: &TINY, tokenizer: None, state: &state };
    let all = |group: TensorGroup, name: &str| values(group, 2)[slot(name)].to_vec();
    let error = run.save(&snapshot, 1, |group, name| Ok(all(group, name).into())).unwrap_err().to_string();
    assert!(error.contains("the trainer's state cannot be read back from JSON"), "{error}");

    let snapshot = Snapshot { state: &State::at(2), ..snapshot };
    let bad = |planted: f32| {
        run.save(&snapshot, 1, |group, name| {
            let mut values = all(group, name);
            if (group, name) == (TensorGroup::SecondMoment, "fc_bias") {
                values[5] = planted;
            }
            Ok(values.into())
        })
    };
    let error = bad(f32::INFINITY).unwrap_err().to_string();
    assert!(error.contains("optimizer.safetensors: tensor 'v.fc_bias' holds inf at element 5"), "{error}");
    let error = run.save(&snapshot, 1, |_, _| Ok(vec![0.0].into())).unwrap_err().to_string();
    assert_eq!(error, "tensor 'wte' has 1 elements, but its shape has 256");
    let error = run.save(&snapshot, 1, |_, name| Err(Error::invalid(format!("no {name}")))).unwrap_err();
    assert_eq!(error.to_string(), "no wte");
    assert_eq!(names(&dir.path().join(CHECKPOINTS)), ["step-00000001"]);
    bad(1.0).unwrap();
}

#[test]
fn a_model_is_found_in_a_run_a_checkpoint_and_a_hugging_face_folder() {
    let (dir, run) = run_with(&[]);
    let error = load_model_folder(dir.path()).unwrap_err().to_string();
    assert!(error.ends_with("the run has no checkpoint yet"), "{error}");
    let checkpoint = save(&run, 4, 1).unwrap();
    let mut weights = HostWeights::zeros(TINY).unwrap();
    weights.data.copy_from_slice(&values(TensorGroup::Weights, 4));
    let loads = |path: &Path, weights: &HostWeights| {
        let (found, tokenizer) = load_model_folder(path).unwrap();
        found == *weights && tokenizer.unwrap() == Tokenizer::bytes()
    };
    for path in [dir.path(), &checkpoint] {
        assert!(loads(path, &weights));
    }
    let exported = dir.path().join("exported");
    hugging_face::export(&weights, Some("bytes"), &exported).unwrap();
    weights.data[TINY.vocab * TINY.channels..TINY.padded_vocab() * TINY.channels].fill(0.0);
    assert!(loads(&exported, &weights));
    for (name, wanted) in [("none", "no such folder"), ("empty", "no model in this folder")] {
        fs::create_dir_all(dir.path().join("empty")).unwrap();
        let error = load_model_folder(dir.path().join(name)).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(wanted) && error.contains("looked for checkpoints/"), "{error}");
    }
}
