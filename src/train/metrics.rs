//! The metrics of a run: one JSON object per step.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files;
use crate::message::parser_message;

/// Maximum length of a line; ours have up to three hundred bytes.
const MAX_LINE: u64 = 1 << 16;

/// The metrics of one step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Number of steps done, including this one.
    pub step: u64,
    /// Mean training loss before the update, in nats per token; null if it is not finite.
    pub loss: Option<f32>,
    /// Learning rate of the update.
    pub lr: f32,
    /// Global gradient norm before clipping; null if it is not finite.
    pub grad_norm: Option<f32>,
    /// Throughput of the step, including data loading.
    pub tokens_per_second: f64,
    /// Mean loss on the validation tokens after the update, in nats per token.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub val_loss: Option<f32>,
    /// Why the update was skipped.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub skipped: Option<String>,
}

/// `metrics.jsonl` of a run folder.
#[derive(Debug)]
pub struct Metrics {
    path: PathBuf,
    file: File,
}

impl Metrics {
    /// Opens the file to append metrics after `step`. Lines of later steps, which the resumed run repeats, and a truncated
    /// last line are removed.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(path: impl AsRef<Path>, step: u64) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let kept = kept_bytes(&path, step)?;
        let file = files::append_regular(&path, "open")?;
        file.set_len(kept as u64).map_err(|e| Error::io("truncate", &path, e))?;
        Ok(Metrics { path, file })
    }

    /// Appends the metrics of a step.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn push(&mut self, record: &Record) -> Result<()> {
        let mut line = serde_json::to_string(record).map_err(|e| Error::invalid(format!("metrics: {e}")))?;
        line.push('\n');
        let written = self.file.write_all(line.as_bytes());
        written.map_err(|e| Error::io(format!("write {} bytes to", line.len()), &self.path, e))
    }
}

/// Size of the complete lines up to `step`, in bytes.
fn kept_bytes(path: &Path, step: u64) -> Result<usize> {
    if !path.try_exists().map_err(|e| Error::io("read", path, e))? {
        return Ok(0);
    }
    let mut lines = Lines::open(path)?;
    let mut kept = 0;
    while let Some(line) = lines.next()? {
        match serde_json::from_slice::<Record>(line) {
            Ok(record) if record.step <= step && line.ends_with(b"\n") => kept += line.len(),
            _ => break,
        }
    }
    Ok(kept)
}

/// Reads the metrics of a run.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] with the number of an invalid line.
pub fn read(path: impl AsRef<Path>) -> Result<Vec<Record>> {
    let path = path.as_ref();
    let mut lines = Lines::open(path)?;
    let mut records = Vec::new();
    while let Some(line) = lines.next()? {
        let fault = |e| Error::format(path, format!("line {}: {}", records.len() + 1, parser_message(e)));
        let record = serde_json::from_slice(line).map_err(fault)?;
        records.push(record);
    }
    Ok(records)
}

/// The lines of a file of metrics, read one at a time. A line beyond [`MAX_LINE`] comes in parts, of which none is valid.
struct Lines<'a> {
    path: &'a Path,
    file: BufReader<File>,
    line: Vec<u8>,
}

impl<'a> Lines<'a> {
    fn open(path: &'a Path) -> Result<Self> {
        Ok(Lines { path, file: BufReader::new(files::open_regular(path)?), line: Vec::new() })
    }

    /// The next line with its line break.
    fn next(&mut self) -> Result<Option<&[u8]>> {
        self.line.clear();
        let read = self.file.by_ref().take(MAX_LINE).read_until(b'\n', &mut self.line);
        read.map_err(|e| Error::io("read", self.path, e))?;
        Ok(Some(&self.line[..]).filter(|line| !line.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn record(step: u64) -> Record {
        let loss = if step == 2 { None } else { Some(5.0 / step as f32) };
        let val_loss = step.is_multiple_of(2).then_some(4.0 / step as f32);
        Record { step, loss, lr: 1e-3, grad_norm: Some(1.0), tokens_per_second: 10.0, val_loss, skipped: None }
    }

    #[test]
    fn resuming_removes_later_lines_and_a_truncated_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut metrics = Metrics::open(&path, 0).unwrap();
        (1..=4).for_each(|step| metrics.push(&record(step)).unwrap());
        drop(metrics);
        let mut text = fs::read(&path).unwrap();
        text.extend(b"{\"step\": 5, \"lo");
        fs::write(&path, text).unwrap();

        let mut metrics = Metrics::open(&path, 3).unwrap();
        metrics.push(&record(4)).unwrap();
        assert_eq!(read(&path).unwrap(), (1..=4).map(record).collect::<Vec<_>>());
        drop(metrics);
        Metrics::open(&path, 0).unwrap();
        assert_eq!(read(&path).unwrap(), []);
    }
}
