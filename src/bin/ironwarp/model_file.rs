//! The sizes of a model: from a preset, or from a TOML file.

use std::path::Path;

use anyhow::{Context, Result};
use ironwarp::Error;
use ironwarp::files::read_regular_text;
use ironwarp::message::parser_message;
use ironwarp::model::config::Config;

/// Maximum size of a TOML file, which has five short lines. Parsing takes about a hundred bytes of memory per byte.
const MAX_BYTES: u64 = 1 << 16;

/// Reads the sizes of a model: `model` is the name of a preset or of a TOML file.
pub fn read_config(model: &str) -> Result<Config> {
    let path = Path::new(model);
    if path.extension().is_none_or(|extension| extension != "toml") {
        return Ok(Config::preset(model)?);
    }
    parse(path, &read_regular_text(path, MAX_BYTES)?)
}

fn parse(path: &Path, text: &str) -> Result<Config> {
    let config: Config = toml::from_str(text).map_err(|e| {
        let at = e.span().map(|span| span.start.min(text.len()));
        let line = at.map_or(1, |at| 1 + text.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count());
        let what = format!("line {line}: not a valid model description: {}", parser_message(e.message()));
        Error::Format { path: path.into(), offset: at.map(|at| at as u64), message: what }
    })?;
    config.check().with_context(|| ironwarp::message::escaped_path(path))?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use ironwarp::cpu::Cpu;
    use ironwarp::model::activations::Recompute;
    use ironwarp::model::plan::MemoryPlan;
    use rand::{Rng, RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// Far above the milliseconds that a file takes on a busy machine, far below the hours that a loop over its numbers would.
    const LIMIT: Duration = Duration::from_secs(2);

    #[test]
    fn every_mutated_file_is_answered_at_once() {
        const GOOD: &str = "context = 16\nvocab = 257\nlayers = 2 # L\nheads = 2\nchannels = 32\n";
        const PIECES: &[&str] = &[
            "0",
            "9",
            "16777216",
            "-1",
            "1e9",
            "18446744073709551616",
            "0x7fffffff",
            "=",
            ".",
            "[",
            "[[",
            "{",
            "}",
            "]",
            "\"",
            "'''",
            "\n",
            "#",
            "\u{1b}",
            "\u{202e}",
            "é",
            "layers",
            "inf",
            "_",
            ",",
            "\0",
        ];
        let mut rng = ChaCha8Rng::seed_from_u64(31);
        let (mut accepted, mut rejected) = (0, 0);
        for _ in 0..20_000 {
            let mut text: Vec<char> = GOOD.chars().collect();
            for _ in 0..rng.random_range(1..4) {
                let at = rng.random_range(0..text.len());
                let piece = PIECES[rng.next_u32() as usize % PIECES.len()].chars();
                let cut = rng.random_range(0..3.min(text.len() - at) + 1);
                text.splice(at..at + cut, piece);
                if text.is_empty() {
                    text.push('#');
                }
            }
            let text: String = text.into_iter().collect();
            let start = Instant::now();
            match parse(Path::new("m.toml"), &text) {
                Ok(config) => {
                    accepted += 1;
                    MemoryPlan::new::<Cpu<f32>>(&config, 1, 1, Recompute::None).unwrap();
                }
                Err(error) => {
                    rejected += 1;
                    let message = format!("{error:#}");
                    assert!(message.len() < 2000 && !message.contains(char::is_control), "{message:?}");
                }
            }
            assert!(start.elapsed() < LIMIT, "{:?} for {text}", start.elapsed());
        }
        assert!(accepted > 100 && rejected > 1000, "{accepted} accepted, {rejected} rejected");
    }

    #[test]
    fn large_files_are_refused_before_they_are_parsed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.toml");
        // A key of this length took the parser 946 MB.
        std::fs::write(&path, format!("{} = 1\n", "k".repeat(10_000_000))).unwrap();
        let error = read_config(path.to_str().unwrap()).unwrap_err().to_string();
        assert!(error.ends_with("m.toml: 10000005 bytes are above the limit of 65536 bytes"), "{error}");
        std::fs::write(&path, format!("{} = 1\n", "k".repeat(60_000))).unwrap();
        let error = read_config(path.to_str().unwrap()).unwrap_err().to_string();
        assert!(
            error.contains("m.toml at byte 0: line 1: not a valid model description") && error.len() < 700,
            "{error}"
        );
    }
}
