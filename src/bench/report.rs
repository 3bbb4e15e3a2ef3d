//! A benchmark's results: facts of the run, rows, a table, and the changes since an earlier run.

use std::fmt::{self, Write};
use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::ceilings::{Bound, Ceilings};
use super::suite::{Measured, Ours, PeerRow, Row};
use crate::error::{Error, Result};
use crate::files;
use crate::message::{escaped, escaped_path};
use crate::model::json;

/// Maximum size of saved results; those of all problems have about 200 KB.
const MAX_SAVED: u64 = 1 << 24;

/// Facts of a run, without which its figures cannot be compared with others.
#[derive(Debug, Clone, Serialize)]
pub struct Facts {
    /// Version of this crate.
    pub version: &'static str,
    /// Commit of the sources that it was built from, or `unknown`: see [`commit`].
    pub commit: String,
    /// Start of the run in UTC.
    pub date: String,
    /// The device's name.
    pub device: String,
    /// What else identifies the device and the run: driver, compute capability, number of SMs, clocks, threads.
    #[serde(flatten)]
    pub details: serde_json::Map<String, Value>,
}

impl Facts {
    /// Facts of a run that starts now on a device.
    pub fn new(device: String, details: Value) -> Self {
        let details = if let Value::Object(details) = details { details } else { serde_json::Map::new() };
        let now = Timestamp::now();
        let date = Timestamp::from_second(now.as_second()).unwrap_or(now).to_string();
        Facts { version: env!("CARGO_PKG_VERSION"), commit: commit(), date, device, details }
    }
}

/// The commit that IRONWARP_COMMIT names; `make bench`, `make profile` and the GPU bundle set it. It is read at run time,
/// because cargo compiles a crate again when a variable that it was compiled with changes.
pub fn commit() -> String {
    std::env::var("IRONWARP_COMMIT").unwrap_or_else(|_| "unknown".into())
}

/// A benchmark's results.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Device, versions and settings of the run.
    pub facts: Facts,
    /// The measured peak rates of the device.
    pub ceilings: Ceilings,
    /// One row a problem.
    pub rows: Vec<Row>,
}

/// Relative change of the median that is reported: repeated measurements with a small spread vary by less than 2 %.
const NOTABLE: f64 = 0.02;

/// A problem whose time has changed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// The operation and its sizes: `layernorm_forward n=65536 c=768`.
    pub problem: String,
    /// Median of the earlier run.
    pub before_us: f64,
    /// Median of this run.
    pub now_us: f64,
}

impl Change {
    /// Whether the problem takes longer than before.
    pub fn is_regression(&self) -> bool {
        self.now_us > self.before_us
    }
}

/// `layernorm_forward n=65536 c=768: 110.0 µs, 100.0 before (+10.0%)`.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Change { problem, before_us, now_us } = self;
        let percent = 100.0 * (now_us / before_us - 1.0);
        write!(f, "{problem}: {now_us:.1} µs, {before_us:.1} before ({percent:+.1}%)")
    }
}

impl Report {
    /// Writes the report as JSON. The file is replaced atomically.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self).map_err(|error| Error::invalid(error.to_string()))?;
        text.push('\n');
        let part = path.with_extension("json.part");
        std::fs::write(&part, text).map_err(|cause| Error::io("write", &part, cause))?;
        std::fs::rename(&part, path).map_err(|cause| Error::io("write", path, cause))
    }

    /// The problems whose median differs from that of a saved report by more than 2 % and by more than the spread (10th
    /// to 90th percentile) of either run.
    ///
    /// # Errors [`Error::Io`]; [`Error::Format`] for a file that is not a report; [`Error::Invalid`] for a report of
    /// another device.
    pub fn changes_since(&self, path: &Path) -> Result<Vec<Change>> {
        let old: Value = json::parse(path, &files::read_regular(path, MAX_SAVED)?)?;
        let rows = old["rows"].as_array();
        let rows = rows.ok_or_else(|| Error::format(path, "no rows: it is not a saved benchmark"))?;
        let device = old["facts"]["device"].as_str().unwrap_or("an unnamed device");
        if device != self.facts.device {
            let why = format!("measured on {}, not on {}", escaped(device), self.facts.device);
            return Err(Error::Invalid(format!("{}: {why}", escaped_path(path))));
        }
        let changed = |row: &Row| {
            let Ours::Measured(now) = &row.ours else { return None };
            let shape = serde_json::to_value(&row.shape).ok()?;
            let before = rows.iter().find(|old| old["op"] == row.op && old["shape"] == shape)?;
            let number = |name: &str| before[name].as_f64();
            let (before_us, p10, p90) = (number("median_us")?, number("p10_us")?, number("p90_us")?);
            let (now, now_us) = (now.times, now.times.median_us);
            let apart = !(p10..=p90).contains(&now_us) && !(now.p10_us..=now.p90_us).contains(&before_us);
            let notable = (now_us / before_us - 1.0).abs() > NOTABLE && apart;
            notable.then(|| Change { problem: row.shape.to_string(), before_us, now_us })
        };
        Ok(self.rows.iter().filter_map(changed).collect())
    }

    /// The results as a table for a terminal.
    pub fn table(&self) -> String {
        let Facts { device, commit, date, version, details } = &self.facts;
        let details: Vec<String> = details.iter().map(|(name, value)| format!("{name} {}", unquoted(value))).collect();
        let mut text = format!("{device}  {}\nironwarp {version}, commit {commit}, {date}\n", details.join(", "));
        let Ceilings { copy_gb_per_s, compute_tflop_per_s } = self.ceilings;
        // Writing to a String cannot fail.
        let _ = writeln!(text, "ceilings: copy {copy_gb_per_s:.0} GB/s, compute {compute_tflop_per_s:.2} TFLOP/s\n");
        text += &header();
        self.rows.iter().for_each(|row| text += &lines(row));
        text
    }
}

fn unquoted(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The heading of the table.
pub fn header() -> String {
    format!("{:<64}{:>12}{:>9}{:>14}{:>9}{:>9}\n", "operation", "µs", "± %", "rate", "% floor", "× peer")
}

/// The line of a row, and a line for each of its peers.
pub fn lines(row: &Row) -> String {
    let name = row.shape.to_string();
    let mut text = match &row.ours {
        Ours::Measured(measured) => {
            let Measured { times, share_of_floor, .. } = &**measured;
            let spread = 50.0 * (times.p90_us - times.p10_us) / times.median_us;
            let (rate, share) = (rate(measured), 100.0 * share_of_floor);
            format!("{name:<64}{:>12.1}{spread:>9.1}{rate:>14}{share:>9.1}{:>9}\n", times.median_us, "")
        }
        Ours::Absent { absent } => format!("{name:<64}  {absent}\n"),
    };
    for PeerRow { peer, times, ratio, absent } in &row.peers {
        let name = format!("  {peer}");
        text += &match (times, absent) {
            (Some(times), _) => {
                let spread = 50.0 * (times.p90_us - times.p10_us) / times.median_us;
                let ratio = ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}"));
                format!("{name:<64}{:>12.1}{spread:>9.1}{:>14}{:>9}{ratio:>9}\n", times.median_us, "", "")
            }
            (None, why) => format!("{name:<64}  absent: {}\n", why.as_deref().unwrap_or("nothing was measured")),
        };
    }
    text
}

fn rate(measured: &Measured) -> String {
    match measured.bound {
        Bound::Memory => format!("{:.1} GB/s", measured.gb_per_s),
        Bound::Compute => format!("{:.2} TFLOP/s", measured.tflop_per_s),
    }
}
