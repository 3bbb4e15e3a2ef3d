//! Peers: libraries that people would use instead, measured interleaved with our operations.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tempfile::TempDir;

use super::measure::Times;
use super::problem::Problem;
use crate::error::{Error, Result};
use crate::message::{escaped, escaped_path};

/// A library that computes the same operations.
pub trait Peer {
    /// Measures each of the peer's implementations of a problem.
    fn measure(&mut self, problem: &Problem, budget: Duration) -> Vec<PeerTimes>;
}

/// The measurement of one implementation.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerTimes {
    /// The implementation's name: `torch layer_norm`.
    pub peer: String,
    /// The times, or why it was not measured.
    pub outcome: Result<Times, String>,
}

/// The script and its module. They are embedded, so that the program runs without the project's files.
const SCRIPTS: [(&str, &str); 2] = [
    ("peers.py", include_str!("../../scripts/peers.py")),
    ("peer_operations.py", include_str!("../../scripts/peer_operations.py")),
];
/// Time to wait for an answer: longer than PyTorch takes to compile a whole training step.
const TIMEOUT: Duration = Duration::from_secs(600);

/// PyTorch in a child process that runs `scripts/peers.py`.
pub struct PyTorch {
    child: Child,
    requests: Option<ChildStdin>,
    answers: Receiver<String>,
    /// Why the process can no longer be used.
    lost: Option<String>,
    /// What the script reports about itself: versions and device.
    pub facts: serde_json::Value,
    /// Holds the script until the process has ended.
    _folder: TempDir,
}

/// One line of the script's output.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    done: bool,
    error: Option<String>,
    peer: Option<String>,
    absent: Option<String>,
    #[serde(flatten)]
    times: Option<Times>,
}

impl PyTorch {
    /// Starts the script with a Python interpreter, on the device `cpu` or `cuda:N`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the interpreter does not start, or has no PyTorch for the device.
    pub fn start(python: &Path, device: &str) -> Result<Self> {
        let folder = TempDir::new().map_err(|cause| Error::io("create", std::env::temp_dir(), cause))?;
        for (name, text) in SCRIPTS {
            let path = folder.path().join(name);
            std::fs::write(&path, text).map_err(|cause| Error::io("write", &path, cause))?;
        }
        let unavailable = |why: String| Error::Unavailable(format!("no PyTorch in {}: {why}", escaped_path(python)));
        let mut command = Command::new(python);
        command
            .arg(folder.path().join(SCRIPTS[0].0))
            .args(["--serve", "--device", device])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|cause| unavailable(cause.to_string()))?;
        let requests = child.stdin.take();
        let output = child.stdout.take().expect("stdout is piped");
        let (sender, answers) = channel();
        // The thread ends when the process closes its output or the receiver is dropped.
        thread::spawn(move || {
            BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let mut torch = PyTorch { child, requests, answers, lost: None, facts: json!(null), _folder: folder };
        let hello = torch.receive().map_err(&unavailable)?;
        torch.facts =
            serde_json::from_str(&hello).map_err(|cause| unavailable(format!("{cause} in '{}'", escaped(&hello))))?;
        if torch.facts["ready"] != true {
            return Err(unavailable(torch.facts["why"].as_str().unwrap_or(&hello).to_owned()));
        }
        Ok(torch)
    }

    fn receive(&mut self) -> Result<String, String> {
        self.answers.recv_timeout(TIMEOUT).map_err(|error| match error {
            RecvTimeoutError::Timeout => format!("no answer within {} s", TIMEOUT.as_secs()),
            RecvTimeoutError::Disconnected => "its process has ended".to_owned(),
        })
    }

    fn request(&mut self, problem: &Problem, budget: Duration) -> Result<Vec<PeerTimes>, String> {
        let request = json!({"op": problem.op, "shape": problem, "ms": budget.as_millis() as u64});
        let requests = self.requests.as_mut().ok_or("its process has ended")?;
        writeln!(requests, "{request}").and_then(|()| requests.flush()).map_err(|error| error.to_string())?;
        let mut all = Vec::new();
        loop {
            let line = self.receive()?;
            let answer: Answer =
                serde_json::from_str(&line).map_err(|error| format!("{error} in '{}'", escaped(&line)))?;
            if answer.done {
                return Ok(all);
            }
            let peer = answer.peer.unwrap_or_else(|| "torch".to_owned());
            let why = answer
                .absent
                .or(answer.error)
                .unwrap_or_else(|| format!("neither times nor a reason in '{}'", escaped(&line)));
            all.push(PeerTimes { peer, outcome: answer.times.ok_or(why) });
        }
    }
}

impl Peer for PyTorch {
    fn measure(&mut self, problem: &Problem, budget: Duration) -> Vec<PeerTimes> {
        let answered = match &self.lost {
            Some(why) => Err(why.clone()),
            None => self.request(problem, budget),
        };
        answered.unwrap_or_else(|why| {
            self.lost.get_or_insert_with(|| why.clone());
            vec![PeerTimes { peer: "torch".into(), outcome: Err(why) }]
        })
    }
}

impl Drop for PyTorch {
    fn drop(&mut self) {
        // The process ends when its input is closed. One that has failed may hang, so it is killed.
        drop(self.requests.take());
        if self.lost.is_some() {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}
