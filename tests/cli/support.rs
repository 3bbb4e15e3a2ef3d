//! A temporary folder, running the command in it, and the result of the command.

use std::cell::Cell;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use tempfile::TempDir;

use crate::environment;

/// Time limit of a command. No run of a small model takes longer, even on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// A small model, as a TOML file.
pub fn model_toml(context: usize, channels: usize) -> String {
    format!("context = {context}\nvocab = 257\nlayers = 2\nheads = 2\nchannels = {channels}\n")
}

/// A deterministic text of `words` English words.
pub fn words(words: usize) -> String {
    const WORDS: [&str; 12] = ["the", "a", "cat", "dog", "sat", "ran", "on", "under", "red", "blue", "mat", "tree"];
    let mut state = 1_u32;
    let mut text = String::new();
    for _ in 0..words {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        text += WORDS[(state >> 16) as usize % WORDS.len()];
        text.push(' ');
    }
    text
}

/// A folder in which commands are run, with `m.toml`, a model of context 16 and 32 channels, and `t.txt`, 3 kB of text.
pub struct Lab {
    dir: TempDir,
    runs: Cell<usize>,
}

impl Lab {
    pub fn new() -> Self {
        let lab = Lab { dir: tempfile::tempdir().unwrap(), runs: Cell::new(0) };
        lab.write("m.toml", model_toml(16, 32));
        lab.write("t.txt", words(800));
        lab
    }

    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub fn read(&self, name: impl AsRef<Path>) -> String {
        let path = self.path(name);
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// Copies a run.
    pub fn copy(&self, from: &str, to: &str) {
        self.shell(&format!("cp -r {from} {to}"));
    }

    pub fn shell(&self, command: &str) {
        let status = Command::new("sh").args(["-c", command]).current_dir(self.dir.path()).status().unwrap();
        assert!(status.success(), "{command}");
    }

    /// Runs `ironwarp` with arguments separated by spaces.
    pub fn run(&self, args: &str) -> Ran {
        self.start(args).end()
    }

    pub fn run_args(&self, args: &[&str]) -> Ran {
        self.start_command(ironwarp(), args).end()
    }

    pub fn start(&self, args: &str) -> Running {
        self.start_command(ironwarp(), &args.split_whitespace().collect::<Vec<_>>())
    }

    /// Runs `ironwarp` from a shell that first executes `before`.
    pub fn run_after(&self, before: &str, args: &str) -> Ran {
        let mut shell = Command::new("bash");
        shell.args(["-c", &format!("{before}; exec \"$0\" \"$@\"")]).arg(environment::command());
        self.start_command(shell, &args.split_whitespace().collect::<Vec<_>>()).end()
    }

    pub fn run_with_input(&self, args: &str, input: &[u8]) -> Ran {
        self.write("stdin", input);
        let mut command = ironwarp();
        command.stdin(File::open(self.path("stdin")).unwrap());
        self.start_command(command, &args.split_whitespace().collect::<Vec<_>>()).end()
    }

    fn start_command(&self, mut command: Command, args: &[&str]) -> Running {
        let number = self.runs.replace(self.runs.get() + 1);
        let [out, err] = ["stdout", "stderr"].map(|name| self.path(format!(".{name}-{number}")));
        // One thread each, because tests run in parallel. Tests where the number of threads matters pass --threads.
        command.env("RAYON_NUM_THREADS", "1").env("NO_COLOR", "1").current_dir(self.dir.path()).args(args);
        command.stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
        Running { child: command.spawn().unwrap(), out, err, args: args.join(" "), start: Instant::now() }
    }

    /// Sorted names of all entries in a run's checkpoints folder.
    pub fn checkpoints(&self, run: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(run).join("checkpoints")).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Path of a run's newest checkpoint, relative to the folder.
    pub fn newest(&self, run: &str) -> String {
        format!("{run}/checkpoints/{}", self.checkpoints(run).last().expect("a checkpoint"))
    }

    /// Asserts that the newest checkpoints of two runs have bit-identical weights and moments.
    pub fn assert_same_end(&self, run: &str, other: &str) {
        let [a, b] = [run, other].map(|run| self.newest(run));
        for name in ["model.safetensors", "optimizer.safetensors"] {
            let [x, y] = [&a, &b].map(|dir| fs::read(self.path(dir).join(name)).unwrap());
            assert!(x == y, "{name} of {a} and {b} differ");
        }
    }

    /// The metrics of a run.
    pub fn metrics(&self, run: &str) -> Vec<Value> {
        parse_lines(&self.read(format!("{run}/metrics.jsonl")))
    }
}

fn ironwarp() -> Command {
    let mut command = Command::new(environment::command());
    command.stdin(Stdio::null());
    command
}

pub fn parse_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// Removes the throughput from the metrics of steps, because it differs from run to run.
pub fn without_speed(mut records: Vec<Value>) -> Vec<Value> {
    for record in &mut records {
        record.as_object_mut().unwrap().remove("tokens_per_second");
    }
    records
}

/// A running command. Its output goes to files, so that it never blocks on a pipe.
pub struct Running {
    child: Child,
    out: PathBuf,
    err: PathBuf,
    args: String,
    start: Instant,
}

impl Running {
    /// Number of lines printed so far.
    pub fn lines(&self) -> usize {
        fs::read(&self.out).unwrap().iter().filter(|&&byte| byte == b'\n').count()
    }

    /// Waits until `seen` returns true; false if the command ended before that.
    pub fn wait_until(&mut self, mut seen: impl FnMut(&Self) -> bool) -> bool {
        while !seen(self) {
            if self.is_over() {
                return false;
            }
            self.nap();
        }
        true
    }

    /// Whether the command has a file with this name open.
    pub fn has_opened(&self, name: &str) -> bool {
        let entries = fs::read_dir(format!("/proc/{}/fd", self.child.id())).into_iter().flatten().flatten();
        entries.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|path| path.ends_with(name))
    }

    pub fn is_over(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Sends a signal by its name, e.g. `TERM`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success(), "kill -s {name}");
    }

    pub fn end(mut self) -> Ran {
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None => self.nap(),
            }
        };
        let [stdout, stderr] = [&self.out, &self.err].map(|path| fs::read(path).unwrap());
        let ran = Ran {
            code: status.code().unwrap_or_else(|| -status.signal().unwrap()),
            stdout: String::from_utf8(stdout).unwrap(),
            stderr: String::from_utf8(stderr).unwrap(),
            args: std::mem::take(&mut self.args),
        };
        assert!(!ran.stderr.contains("panicked"), "{}: {}", ran.args, ran.stderr);
        ran
    }

    fn nap(&mut self) {
        if self.start.elapsed() > LIMIT {
            self.child.kill().unwrap();
            panic!("{} hangs", self.args);
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// The result of a command.
pub struct Ran {
    /// Exit code, or the negative number of the signal that ended the process.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    pub args: String,
}

impl Ran {
    /// Standard output; asserts success.
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}: {}", self.args, self.stderr);
        self.stdout
    }

    /// The JSON objects of standard output; asserts success.
    pub fn records(self) -> Vec<Value> {
        parse_lines(&self.ok())
    }

    /// The JSON object of standard output; asserts success.
    pub fn json(self) -> Value {
        serde_json::from_str(&self.ok()).unwrap()
    }

    /// Asserts the exit code, and that standard error contains all texts.
    pub fn fails(&self, code: i32, texts: &[&str]) {
        let Ran { stdout, stderr, args, .. } = self;
        assert_eq!(self.code, code, "{args}: {stdout}{stderr}");
        for text in texts {
            assert!(stderr.contains(text), "{args}: {text:?} is not in {stderr:?}");
        }
    }
}

/// A run that has memorised some sentences: the name of each animal. It is trained once for all tests.
pub fn memorised() -> &'static str {
    static RUN: OnceLock<String> = OnceLock::new();
    RUN.get_or_init(|| {
        let lab = Lab::new();
        lab.write("big.toml", model_toml(48, 48));
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut sentences = ["my cat is tom. ", "my dog is rex. ", "my owl is zoe. ", "my hen is pip. "];
        let mut text = String::new();
        for _ in 0..100 {
            sentences.shuffle(&mut rng);
            text += &sentences.concat();
        }
        lab.write("animals.txt", text);
        let run = environment::scratch().join("memorised").display().to_string();
        let args = "train --model big.toml --data animals.txt --batch 8 --steps 200 --lr 1e-2 --val-every 0 --json";
        let losses = lab.run(&format!("{args} --overwrite --out {run}")).records();
        assert!(losses[199]["loss"].as_f64().unwrap() < 0.5, "{}", losses[199]);
        run
    })
}
