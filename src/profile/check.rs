//! Compares counts with those of a file, and names the source lines whose bytes, sectors or bank conflicts differ.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::counts::Profile;
use super::sources;
use crate::cuda::runtime::emulation::LineCounts;
use crate::error::{Error, Result};
use crate::files;
use crate::message::escaped;
use crate::model::json;

/// Maximum size of a file of counts.
const MAX_COUNTS: u64 = 1 << 26;

/// The counts that a file records. They are exact and reproducible, so there is no tolerance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Recorded {
    global_bytes: u64,
    sectors: u64,
    bank_conflicts: u64,
}

impl Recorded {
    fn named(self) -> [(&'static str, u64); 3] {
        [
            ("bytes of device memory", self.global_bytes),
            ("sectors", self.sectors),
            ("bank conflicts", self.bank_conflicts),
        ]
    }
}

/// A problem in the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Entry {
    op: String,
    shape: Value,
    #[serde(flatten)]
    counts: Recorded,
    /// Counts by the text of a source line. Line numbers would change with every edit above the line.
    lines: BTreeMap<String, Recorded>,
}

/// A file of counts: `benches/counts/sm_80.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    device: String,
    profiles: Vec<Entry>,
}

/// A source line of the current profile.
#[derive(Default)]
struct Line {
    counts: Recorded,
    /// Its location: `kernels/common/types.cuh:43, called from kernels/layernorm.cu:272`.
    location: String,
    /// Its text.
    text: &'static str,
}

/// The lines that access device memory or have bank conflicts, by their key in a file: the text of the line and of the
/// line that it was inlined into.
fn lines(profile: &Profile) -> BTreeMap<String, Line> {
    let mut lines: BTreeMap<String, Line> = BTreeMap::new();
    for line in &profile.lines {
        let LineCounts { source, called_from, bytes, sectors, bank_conflicts, .. } = line;
        if *sectors == 0 && *bank_conflicts == 0 {
            continue;
        }
        let file_and_text = |location: &str| {
            let file = sources::split(location).map_or(location, |(file, _)| file);
            format!("{file}: {}", sources::line(location).unwrap_or("?"))
        };
        let (mut key, mut location) = (file_and_text(source), source.clone());
        if !called_from.is_empty() {
            key = format!("{key}, called from {}", file_and_text(called_from));
            location = format!("{location}, called from {called_from}");
        }
        let line = lines.entry(key).or_default();
        line.counts.global_bytes += bytes;
        line.counts.sectors += sectors;
        line.counts.bank_conflicts += bank_conflicts;
        line.text = sources::line(source).unwrap_or("?");
        // Several lines may have the same text.
        line.location = if line.location.is_empty() { location } else { format!("{} and {location}", line.location) };
    }
    lines
}

impl Baseline {
    /// The counts of profiles of a device.
    ///
    /// # Errors
    /// [`Error::Invalid`] if a shape cannot be converted to JSON, which does not happen.
    pub fn of(device: &str, profiles: &[Profile]) -> Result<Self> {
        let entry = |profile: &Profile| {
            let shape = serde_json::to_value(&profile.shape).map_err(|error| Error::invalid(error.to_string()))?;
            let lines = lines(profile).into_iter().map(|(key, line)| (key, line.counts)).collect();
            Ok(Entry { op: profile.op.to_owned(), shape, counts: recorded(profile), lines })
        };
        Ok(Baseline { device: device.to_owned(), profiles: profiles.iter().map(entry).collect::<Result<_>>()? })
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Format`].
    pub fn read(path: &Path) -> Result<Self> {
        json::parse(path, &files::read_regular(path, MAX_COUNTS)?)
    }

    /// Keeps only the problems of the given operations.
    pub fn only(mut self, ops: &[&str]) -> Self {
        self.profiles.retain(|entry| ops.contains(&entry.op.as_str()));
        self
    }

    /// Writes a file, with one key per line, so that a diff of two files shows which source lines have changed.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self).map_err(|error| Error::invalid(error.to_string()))?;
        text.push('\n');
        std::fs::write(path, text).map_err(|cause| Error::io("write", path, cause))
    }

    /// One text for each problem whose counts differ, with the source lines that cause it, and for each problem that
    /// only the file or only `profiles` has.
    pub fn differences(&self, device: &str, profiles: &[Profile]) -> Vec<String> {
        if self.device != device {
            return vec![format!("the file has counts of {}, not of {device}", escaped(&self.device))];
        }
        let shape = |profile: &Profile| serde_json::to_value(&profile.shape).unwrap_or_default();
        let matches = |entry: &Entry, profile: &Profile| entry.op == profile.op && entry.shape == shape(profile);
        let missing = self.profiles.iter().filter(|entry| !profiles.iter().any(|profile| matches(entry, profile)));
        let missing = missing.map(|Entry { op, shape, .. }| {
            format!("{} {}: is in the file, but was not counted", escaped(op), escaped(&shape.to_string()))
        });
        let compared =
            profiles.iter().filter_map(|profile| match self.profiles.iter().find(|entry| matches(entry, profile)) {
                Some(entry) => difference(entry, profile),
                None => Some(format!("{}: is not in the file", profile.shape)),
            });
        compared.chain(missing).collect()
    }
}

fn recorded(profile: &Profile) -> Recorded {
    let totals = &profile.totals;
    Recorded { global_bytes: totals.global_bytes, sectors: totals.sectors, bank_conflicts: totals.bank_conflicts }
}

fn difference(entry: &Entry, profile: &Profile) -> Option<String> {
    let now = recorded(profile);
    if now == entry.counts {
        return None;
    }
    let mut text = profile.shape.to_string();
    let now_lines = lines(profile);
    let pairs = |before: Recorded, now: Recorded| {
        let both = before.named().into_iter().zip(now.named());
        both.filter(|(before, now)| before != now).map(|((name, before), (_, now))| (name, before, now))
    };
    // Writing to a String cannot fail.
    for (name, before, now) in pairs(entry.counts, now) {
        let _ = write!(text, "\n  {name}: {now}, {before} in the file");
    }
    for (key, Line { counts, location, text: line }) in &now_lines {
        let before = entry.lines.get(key).copied().unwrap_or_default();
        for (count, before, now) in pairs(before, *counts) {
            let _ = write!(text, "\n  {location}: {count}: {now}, {before} in the file: `{line}`");
        }
    }
    for key in entry.lines.keys().filter(|key| !now_lines.contains_key(*key)) {
        let _ = write!(text, "\n  only in the file: `{}`", escaped(key));
    }
    Some(text)
}
