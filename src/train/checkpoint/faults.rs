//! A file system for tests: it injects faults, and it simulates the state of the disk after a power cut.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::files::{FileSystem, OpenFile};

/// One file-system operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Op {
    CreateDir(PathBuf),
    Create(PathBuf),
    Write(PathBuf, Vec<u8>),
    Sync(PathBuf),
    Rename(PathBuf, PathBuf),
    SyncDir(PathBuf),
    RemoveFile(PathBuf),
    RemoveDir(PathBuf),
}

/// The fault to inject. Steps count file-system operations, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// The process is killed at this step: this step and all later ones do not happen. A write at this step is half done.
    Kill(usize),
    /// The disk is full from this step on. A write at this step is half done.
    Full(usize),
    /// Only this step fails.
    Fail(usize),
    /// Every write accepts only half of its buffer.
    ShortWrites,
}

#[derive(Debug)]
struct State {
    fault: Fault,
    ops: Vec<Op>,
}

/// Forwards to the real file system, logs every operation, and injects a fault.
#[derive(Debug, Clone)]
pub(super) struct Faulty(Arc<Mutex<State>>);

struct FaultyFile {
    file: File,
    path: PathBuf,
    disk: Faulty,
}

impl Faulty {
    pub fn new(fault: Fault) -> Self {
        Faulty(Arc::new(Mutex::new(State { fault, ops: Vec::new() })))
    }

    pub fn set(&self, fault: Fault) {
        self.0.lock().unwrap().fault = fault;
    }

    pub fn ops(&self) -> Vec<Op> {
        self.0.lock().unwrap().ops.clone()
    }

    /// Logs the next step, or fails it if the fault says so.
    fn step(&self, op: Op) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        let step = state.ops.len();
        let needs_space = matches!(op, Op::CreateDir(_) | Op::Create(_) | Op::Write(..));
        match state.fault {
            Fault::Kill(at) if step >= at => return Err(io::Error::other("killed")),
            Fault::Full(at) if step >= at && needs_space => return Err(io::ErrorKind::StorageFull.into()),
            Fault::Fail(at) if step == at => {
                // Cleared, because the failed step is not logged and the next one would have the same number.
                state.fault = Fault::None;
                return Err(io::Error::other("input/output error"));
            }
            _ => {}
        }
        state.ops.push(op);
        Ok(())
    }
}

impl FileSystem for Faulty {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.step(Op::CreateDir(path.into()))?;
        fs::create_dir(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn OpenFile>> {
        self.step(Op::Create(path.into()))?;
        Ok(Box::new(FaultyFile { file: File::create(path)?, path: path.into(), disk: self.clone() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step(Op::Rename(from.into(), to.into()))?;
        fs::rename(from, to)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.step(Op::SyncDir(path.into()))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.step(Op::RemoveFile(path.into()))?;
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.step(Op::RemoveDir(path.into()))?;
        fs::remove_dir(path)
    }
}

impl Write for FaultyFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let fault = self.disk.0.lock().unwrap().fault;
        let step = self.disk.0.lock().unwrap().ops.len();
        let half = bytes.len() / 2;
        if fault == Fault::Kill(step) || fault == Fault::Full(step) {
            self.file.write_all(&bytes[..half])?;
        }
        let bytes = if fault == Fault::ShortWrites { &bytes[..half.max(1).min(bytes.len())] } else { bytes };
        self.disk.step(Op::Write(self.path.clone(), bytes.into()))?;
        self.file.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl OpenFile for FaultyFile {
    fn sync(&mut self) -> io::Result<()> {
        self.disk.step(Op::Sync(self.path.clone()))
    }
}

/// Which unsynced changes a power cut loses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// All of them.
    All,
    /// File contents only. Names survive, as on file systems that write directories first.
    Contents,
    /// Names only.
    Names,
    /// A random subset of the names and a random suffix of each content; the value is the seed.
    Some(u64),
}

#[derive(Debug, Clone)]
enum Node {
    Dir { live: BTreeMap<String, usize>, durable: BTreeMap<String, usize> },
    File { live: Vec<u8>, durable: Vec<u8> },
}

/// The file system below a root, in two states: `live` as processes see it, and `durable` as it was last synced to disk.
#[derive(Debug, Clone)]
pub(super) struct Replay {
    root: PathBuf,
    nodes: Vec<Node>,
}

fn empty_dir() -> Node {
    Node::Dir { live: BTreeMap::new(), durable: BTreeMap::new() }
}

impl Replay {
    pub fn new(root: &Path) -> Self {
        Replay { root: root.into(), nodes: vec![empty_dir()] }
    }

    fn find(&self, path: &Path) -> usize {
        path.strip_prefix(&self.root).unwrap().iter().fold(0, |node, name| match &self.nodes[node] {
            Node::Dir { live, .. } => live[name.to_str().unwrap()],
            Node::File { .. } => panic!("{} goes through a file", path.display()),
        })
    }

    fn entries(&mut self, path: &Path) -> (&mut BTreeMap<String, usize>, String) {
        let dir = self.find(path.parent().unwrap());
        let name = path.file_name().unwrap().to_str().unwrap().to_string();
        match &mut self.nodes[dir] {
            Node::Dir { live, .. } => (live, name),
            Node::File { .. } => panic!("{} is inside a file", path.display()),
        }
    }

    fn add(&mut self, path: &Path, node: Node) {
        self.nodes.push(node);
        let id = self.nodes.len() - 1;
        let (entries, name) = self.entries(path);
        entries.insert(name, id);
    }

    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::CreateDir(path) => self.add(path, empty_dir()),
            Op::Create(path) => self.add(path, Node::File { live: Vec::new(), durable: Vec::new() }),
            Op::Write(path, bytes) => {
                let node = self.find(path);
                if let Node::File { live, .. } = &mut self.nodes[node] {
                    live.extend(bytes);
                }
            }
            Op::Sync(path) | Op::SyncDir(path) => {
                let node = self.find(path);
                match &mut self.nodes[node] {
                    Node::Dir { live, durable } => durable.clone_from(live),
                    Node::File { live, durable } => durable.clone_from(live),
                }
            }
            Op::Rename(from, to) => {
                let (entries, name) = self.entries(from);
                let node = entries.remove(&name).unwrap();
                let (entries, name) = self.entries(to);
                entries.insert(name, node);
            }
            Op::RemoveFile(path) | Op::RemoveDir(path) => {
                let (entries, name) = self.entries(path);
                entries.remove(&name);
            }
        }
    }

    /// Writes to the folder `to` what a power cut at this point would leave.
    pub fn cut(&self, loss: Loss, to: &Path) {
        let mut coin = match loss {
            Loss::Some(seed) => seed,
            _ => 0,
        };
        self.write_node(0, loss, &mut coin, to);
    }

    fn write_node(&self, node: usize, loss: Loss, coin: &mut u64, to: &Path) {
        let mut toss = |sides: u64| {
            *coin = coin.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (*coin >> 33) % sides
        };
        match &self.nodes[node] {
            Node::Dir { live, durable } => {
                fs::create_dir_all(to).unwrap();
                let mut entries = BTreeMap::new();
                for name in live.keys().chain(durable.keys()) {
                    let kept = match loss {
                        Loss::All | Loss::Names => durable.get(name),
                        Loss::Contents => live.get(name),
                        Loss::Some(_) if toss(2) == 0 => durable.get(name),
                        Loss::Some(_) => live.get(name),
                    };
                    entries.extend(kept.map(|&id| (name, id)));
                }
                for (name, id) in entries {
                    self.write_node(id, loss, coin, &to.join(name));
                }
            }
            Node::File { live, durable } => {
                let content = match loss {
                    Loss::All | Loss::Contents => durable.clone(),
                    Loss::Names => live.clone(),
                    // Synced content survives; unsynced content is truncated at a random length.
                    Loss::Some(_) => {
                        live[..durable.len() + toss((live.len() - durable.len()) as u64 + 1) as usize].to_vec()
                    }
                };
                fs::write(to, content).unwrap();
            }
        }
    }
}
