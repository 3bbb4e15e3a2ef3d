//! Counts against those of a file: what moves more bytes, or hits banks, is named with its lines.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::counts::Profile;
use super::sources;
use crate::cuda::runtime::emulation::LineCounts;
use crate::error::{Error, Result};

/// Counts that a file keeps. They are exact, so any difference is one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    global_bytes: u64,
    sectors: u64,
    bank_conflicts: u64,
}

impl Kept {
    fn named(self) -> [(&'static str, u64); 3] {
        [
            ("bytes of device memory", self.global_bytes),
            ("sectors", self.sectors),
            ("bank conflicts", self.bank_conflicts),
        ]
    }
}

/// A problem in a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Entry {
    op: String,
    shape: Value,
    #[serde(flatten)]
    counts: Kept,
    /// By the text of a line, which stays when lines before it come and go.
    lines: BTreeMap<String, Kept>,
}

/// A file of counts: `benches/counts/sm_80.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    device: String,
    profiles: Vec<Entry>,
}

/// A line as it is now.
#[derive(Default)]
struct Now {
    kept: Kept,
    /// Where it is: `kernels/common/types.cuh:43, called from kernels/layernorm.cu:272`.
    place: String,
    /// What it says.
    text: &'static str,
}

/// The lines that touch device memory or hit banks, by what they are known by in a file.
fn lines(profile: &Profile) -> BTreeMap<String, Now> {
    let mut lines: BTreeMap<String, Now> = BTreeMap::new();
    for line in &profile.lines {
        let LineCounts { source, called_from, bytes, sectors, bank_conflicts, .. } = line;
        if *sectors == 0 && *bank_conflicts == 0 {
            continue;
        }
        let words = |place: &str| {
            let file = sources::place(place).map_or(place, |(file, _)| file);
            format!("{file}: {}", sources::line(place).unwrap_or("?"))
        };
        let (mut name, mut place) = (words(source), source.clone());
        if !called_from.is_empty() {
            name = format!("{name}, called from {}", words(called_from));
            place = format!("{place}, called from {called_from}");
        }
        let now = lines.entry(name).or_default();
        now.kept.global_bytes += bytes;
        now.kept.sectors += sectors;
        now.kept.bank_conflicts += bank_conflicts;
        now.text = sources::line(source).unwrap_or("?");
        // The same words may stand in several places.
        now.place = if now.place.is_empty() { place } else { format!("{} and {place}", now.place) };
    }
    lines
}

impl Baseline {
    /// Of profiles.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a shape that is no JSON, which none is.
    pub fn of(device: &str, profiles: &[Profile]) -> Result<Self> {
        let entry = |profile: &Profile| {
            let shape = serde_json::to_value(&profile.shape).map_err(|error| Error::invalid(error.to_string()))?;
            let lines = lines(profile).into_iter().map(|(name, now)| (name, now.kept)).collect();
            Ok(Entry { op: profile.op.to_owned(), shape, counts: kept(profile), lines })
        };
        Ok(Baseline { device: device.to_owned(), profiles: profiles.iter().map(entry).collect::<Result<_>>()? })
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Format`].
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|cause| Error::io("read", path, cause))?;
        serde_json::from_str(&text).map_err(|error| Error::format(path, error.to_string()))
    }

    /// The problems of some operations alone.
    pub fn only(mut self, ops: &[&str]) -> Self {
        self.profiles.retain(|entry| ops.contains(&entry.op.as_str()));
        self
    }

    /// Writes a file, a line a problem's line, so that a difference shows where it is.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self).map_err(|error| Error::invalid(error.to_string()))?;
        text.push('\n');
        std::fs::write(path, text).map_err(|cause| Error::io("write", path, cause))
    }

    /// What differs, a text for each problem: more and fewer, with the lines; problems that one side lacks.
    pub fn differences(&self, device: &str, profiles: &[Profile]) -> Vec<String> {
        if self.device != device {
            return vec![format!("the counts are of {}, not of {device}", self.device)];
        }
        let shape = |profile: &Profile| serde_json::to_value(&profile.shape).unwrap_or_default();
        let is = |entry: &Entry, profile: &Profile| entry.op == profile.op && entry.shape == shape(profile);
        let gone = self.profiles.iter().filter(|entry| !profiles.iter().any(|profile| is(entry, profile)));
        let gone = gone.map(|Entry { op, shape, .. }| format!("{op} {shape}: is in the file, and was not counted"));
        let compared =
            profiles.iter().filter_map(|profile| match self.profiles.iter().find(|entry| is(entry, profile)) {
                Some(entry) => difference(entry, profile),
                None => Some(format!("{}: is not in the file", profile.shape)),
            });
        compared.chain(gone).collect()
    }
}

fn kept(profile: &Profile) -> Kept {
    let totals = &profile.totals;
    Kept { global_bytes: totals.global_bytes, sectors: totals.sectors, bank_conflicts: totals.bank_conflicts }
}

fn difference(entry: &Entry, profile: &Profile) -> Option<String> {
    let now = kept(profile);
    if now == entry.counts {
        return None;
    }
    let mut text = profile.shape.to_string();
    let now_lines = lines(profile);
    let pairs = |before: Kept, now: Kept| {
        let both = before.named().into_iter().zip(now.named());
        both.filter(|(before, now)| before != now).map(|((name, before), (_, now))| (name, before, now))
    };
    // Writing to a String cannot fail.
    for (name, before, now) in pairs(entry.counts, now) {
        let _ = write!(text, "\n  {name}: {now}, {before} in the file");
    }
    for (name, Now { kept, place, text: line }) in &now_lines {
        let before = entry.lines.get(name).copied().unwrap_or_default();
        for (what, before, now) in pairs(before, *kept) {
            let _ = write!(text, "\n  {place}: {what}: {now}, {before} in the file: `{line}`");
        }
    }
    for name in entry.lines.keys().filter(|name| !now_lines.contains_key(*name)) {
        let _ = write!(text, "\n  no longer there: `{name}`");
    }
    Some(text)
}
