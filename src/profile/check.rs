//! Counts against those of a file: what moves more bytes, or hits banks, is named with its lines.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::counts::Profile;
use super::sources;
use crate::cuda::emulation::LineCounts;
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

/// How a line is known in a file, and where it is now.
fn lines(profile: &Profile) -> BTreeMap<String, (Kept, String)> {
    let mut lines: BTreeMap<String, (Kept, String)> = BTreeMap::new();
    for line in &profile.lines {
        let LineCounts { source, called_from, bytes, sectors, bank_conflicts, .. } = line;
        if *sectors == 0 && *bank_conflicts == 0 {
            continue;
        }
        let words = |place: &str| {
            let file = sources::place(place).map_or(place, |(file, _)| file);
            format!("{file}: {}", sources::line(place).unwrap_or("?"))
        };
        let called = !called_from.is_empty();
        let name = if called { format!("{} < {}", words(source), words(called_from)) } else { words(source) };
        let (kept, places) = lines.entry(name).or_default();
        kept.global_bytes += bytes;
        kept.sectors += sectors;
        kept.bank_conflicts += bank_conflicts;
        let place = if called { format!("{source}, called from {called_from}") } else { source.clone() };
        if !places.is_empty() {
            places.push_str(" and ");
        }
        places.push_str(&place);
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
            let lines = lines(profile).into_iter().map(|(name, (kept, _))| (name, kept)).collect();
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
    for (name, (now, place)) in &now_lines {
        let before = entry.lines.get(name).copied().unwrap_or_default();
        for (what, before, now) in pairs(before, *now) {
            let line = name.split(" < ").next().and_then(|words| words.split_once(": ")).map_or("", |(_, line)| line);
            let _ = write!(text, "\n  {place}: {what}: {now}, {before} in the file: `{line}`");
        }
    }
    for name in entry.lines.keys().filter(|name| !now_lines.contains_key(*name)) {
        let _ = write!(text, "\n  no longer there: `{name}`");
    }
    Some(text)
}
