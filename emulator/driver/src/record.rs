//! The counts and findings of launches, for tests and for the counts file.

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use emulator_counts::LaunchRecord;

use crate::report;

/// Number of launches whose counts are kept: the newest.
const KEPT: usize = 16384;

/// Counts and findings of a process.
#[derive(Debug)]
pub struct Record {
    file: Option<PathBuf>,
    launches: u64,
    kept: VecDeque<String>,
    /// The last finding's text.
    pub finding: String,
}

impl Record {
    pub fn new(file: Option<PathBuf>) -> Self {
        Self { file, launches: 0, kept: VecDeque::new(), finding: String::new() }
    }

    /// Counts a launch and returns its number, from 1.
    pub fn begin_launch(&mut self) -> u64 {
        self.launches += 1;
        self.launches
    }

    /// Keeps the counts of a launch that succeeded, and appends them to the file if there is one.
    pub fn launched(&mut self, launch: &LaunchRecord) {
        let line = match serde_json::to_string(launch) {
            Ok(line) => line,
            Err(error) => {
                return report::print(&format!("the counts of launch {} cannot be written: {error}", launch.launch));
            }
        };
        if let Some(path) = &self.file {
            // One write, so that lines of several processes do not mix.
            let whole = format!("{line}\n");
            let file = OpenOptions::new().create(true).append(true).open(path);
            let written = file.and_then(|mut file| file.write_all(whole.as_bytes()));
            if let Err(error) = written {
                report::print(&format!("counts cannot be written to {}: {error}", path.display()));
                self.file = None;
            }
        }
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(line);
    }

    /// The last launch, as one JSON object; empty if there was none.
    pub fn last(&self) -> String {
        self.kept.back().cloned().unwrap_or_default()
    }

    /// All launches that are kept, as a JSON array.
    pub fn all(&self) -> String {
        let lines: Vec<&str> = self.kept.iter().map(String::as_str).collect();
        format!("[{}]", lines.join(",\n"))
    }

    pub fn clear(&mut self) {
        self.kept.clear();
    }
}
