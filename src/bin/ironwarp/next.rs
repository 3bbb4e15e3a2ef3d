//! The commands that a run ends with: what its user may want next.

use std::env;
use std::ffi::OsStr;
use std::path::Path;

use clap::ArgMatches;
use ironwarp::message::escaped_path;
use ironwarp::text::embedded;
use ironwarp::train::settings::{RunOptions, Settings};

use crate::train::is_given;

/// What the commands depend on.
pub struct NextSteps<'a> {
    /// The run folder, as the user named it.
    out: &'a Path,
    /// Flags of the run with their values, if they were given: its model, and its device.
    model: Vec<String>,
    device: Vec<String>,
    steps: u64,
    /// Whether the run trains on the embedded corpus.
    embedded: bool,
    /// Whether the run can generate text by itself.
    has_tokenizer: bool,
}

impl<'a> NextSteps<'a> {
    /// Of a run in the folder `out` with these settings, whose command line is `matches`.
    pub fn new(out: &'a Path, matches: &ArgMatches, settings: &Settings) -> Self {
        let [model, init_from, device] = ["model", "init_from", "device"].map(|id| given(matches, id));
        let RunOptions { data, schedule, .. } = &settings.options;
        NextSteps {
            out,
            model: [model, init_from].concat(),
            device,
            steps: schedule.steps,
            embedded: data.is_empty(),
            has_tokenizer: settings.tokenizer.is_some(),
        }
    }
}

/// A flag and its value; nothing, if the command line does not have it.
fn given(matches: &ArgMatches, id: &str) -> Vec<String> {
    let value = matches.get_raw(id).and_then(|mut values| values.next()).filter(|_| is_given(matches, id));
    let flag = |value: &OsStr| vec![format!("--{}", id.replace('_', "-")), value.to_string_lossy().into_owned()];
    value.map(flag).unwrap_or_default()
}

impl NextSteps<'_> {
    /// The command that continues a run up to step `steps`; without, up to the end that it has.
    pub fn resume(&self, steps: Option<u64>) -> String {
        let steps = steps.map(|steps| ["--steps".to_string(), steps.to_string()]);
        let flags = [vec!["train".into(), "--resume".into(), "--out".into(), escaped_path(self.out)]];
        command(flags.into_iter().flatten().chain(steps.into_iter().flatten()).chain(self.device.clone()))
    }

    /// A line for each command, with a comment.
    pub fn lines(&self) -> Vec<String> {
        let words = |words: &[&str]| words.iter().map(|word| word.to_string()).collect::<Vec<_>>();
        let prompt = if self.embedded { embedded::PROMPT } else { "The " };
        let mut generate = words(&["generate", "--model", &escaped_path(self.out), "--prompt", prompt]);
        // As the sample that the run has printed.
        generate.extend(words(&["--max-tokens", "300", "--top-k", "40"]));
        if !self.has_tokenizer {
            generate.extend(words(&["--tokenizer", "NAME|PATH"]));
        }
        let mut commands = vec![
            (command(generate.into_iter().chain(self.device.clone())), "generates text"),
            (self.resume(Some(self.steps.saturating_mul(2))), "continues the run for as many steps again"),
        ];
        if self.embedded {
            let flags = [words(&["train", "--data", "my.txt", "--out", "runs/my"]), self.model.clone()].concat();
            commands.push((command(flags.into_iter().chain(self.device.clone())), "trains on a text of yours"));
        }
        let width = commands.iter().map(|(command, _)| command.chars().count()).max().unwrap_or_default();
        commands.into_iter().map(|(command, comment)| format!("  {command:width$}  # {comment}")).collect()
    }
}

/// The words as a shell reads them, after the name by which this program was called.
fn command(words: impl IntoIterator<Item = String>) -> String {
    let program = env::args_os().next().map_or("ironwarp".into(), |name| escaped_path(Path::new(&name)));
    let words = [program].into_iter().chain(words);
    words.map(|word| quoted(&word)).collect::<Vec<_>>().join(" ")
}

/// A word in single quotes, if the shell would read it differently without them.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_string();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_the_shell_would_change_them() {
        for (word, want) in [
            ("runs/a-b_1.2", "runs/a-b_1.2"),
            ("pub fn ", "'pub fn '"),
            ("it's", r"'it'\''s'"),
            ("$HOME", "'$HOME'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(word), want);
        }
    }
}
