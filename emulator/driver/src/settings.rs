//! The settings of the library, from the environment. They are read once per process, and again by
//! `ironwarp_emulator_reset`.

use std::path::PathBuf;

use ptx_emulator::Arch;

use crate::fault_rule::{self, Rule};

/// The settings.
#[derive(Debug, Clone)]
pub struct Settings {
    pub arch: Arch,
    /// Bytes of device memory.
    pub memory: u64,
    /// The answer of `cuDriverGetVersion`: 1000 × major + 10 × minor.
    pub driver_version: i32,
    /// Number of host threads that execute a launch.
    pub threads: usize,
    pub seed: u64,
    pub checks: bool,
    pub step_budget: u64,
    /// A file to which every launch appends its counts as a line of JSON.
    pub counts: Option<PathBuf>,
    /// Whether allocations that a context has not freed are listed when it ends.
    pub leaks: bool,
    pub faults: Vec<Rule>,
}

impl Default for Settings {
    fn default() -> Self {
        let execution = ptx_emulator::Settings::default();
        Self {
            arch: Arch::SM_80,
            memory: 80 << 30,
            driver_version: 13000,
            threads: execution.threads,
            seed: 0,
            checks: true,
            step_budget: execution.step_budget,
            counts: None,
            leaks: false,
            faults: Vec::new(),
        }
    }
}

/// Reads the process's environment.
///
/// # Errors
/// The first variable with an invalid value, and what was expected.
pub fn from_process() -> Result<Settings, String> {
    read(|name| std::env::var(name).ok())
}

fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Settings, String> {
    let mut settings = Settings::default();
    set(&variable, "ARCH", "75, 80 or 90", &mut settings.arch, |text| match text {
        "75" => Some(Arch::SM_75),
        "80" => Some(Arch::SM_80),
        "90" => Some(Arch::SM_90),
        _ => None,
    })?;
    set(&variable, "MEMORY", "a size such as 16GiB", &mut settings.memory, size)?;
    let version = "1000 × major + 10 × minor, such as 13000";
    set(&variable, "DRIVER_VERSION", version, &mut settings.driver_version, |text| {
        text.parse().ok().filter(|v| (1000..100_000).contains(v))
    })?;
    set(&variable, "THREADS", "a number from 1 to 1024", &mut settings.threads, |text| {
        text.parse().ok().filter(|n| (1..=1024).contains(n))
    })?;
    set(&variable, "SEED", "a number", &mut settings.seed, |text| text.parse().ok())?;
    set(&variable, "CHECKS", "on or off", &mut settings.checks, switch)?;
    set(&variable, "STEP_BUDGET", "a number from 1", &mut settings.step_budget, |text| {
        text.parse().ok().filter(|&n| n > 0)
    })?;
    set(&variable, "COUNTS", "a path", &mut settings.counts, |text| Some(Some(PathBuf::from(text))))?;
    set(&variable, "LEAKS", "on or off", &mut settings.leaks, switch)?;
    if let Some(text) = variable("IRONWARP_EMULATOR_FAULTS") {
        settings.faults = fault_rule::parse(&text).map_err(|error| format!("IRONWARP_EMULATOR_FAULTS: {error}"))?;
    }
    Ok(settings)
}

fn set<T>(
    variable: &impl Fn(&str) -> Option<String>,
    name: &str,
    expected: &str,
    setting: &mut T,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<(), String> {
    let name = format!("IRONWARP_EMULATOR_{name}");
    if let Some(text) = variable(&name).filter(|text| !text.is_empty()) {
        *setting = parse(&text).ok_or_else(|| format!("{name}='{text}': expected {expected}"))?;
    }
    Ok(())
}

fn switch(text: &str) -> Option<bool> {
    match text {
        "on" | "1" => Some(true),
        "off" | "0" => Some(false),
        _ => None,
    }
}

/// A size: `16GiB`, `512MiB`, `4096`. It must be more than zero bytes and fit the address space.
fn size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let shift = match text[digits..].trim() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return None,
    };
    let number: u64 = text[..digits].parse().ok()?;
    number.checked_mul(1 << shift).filter(|bytes| (1..=1 << 46).contains(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &str, value: &str) -> Result<Settings, String> {
        read(|variable| (variable == name).then(|| value.to_owned()))
    }

    #[test]
    fn values_are_parsed() {
        assert_eq!(with("IRONWARP_EMULATOR_MEMORY", "16GiB").unwrap().memory, 16 << 30);
        assert_eq!(with("IRONWARP_EMULATOR_MEMORY", "4096").unwrap().memory, 4096);
        assert_eq!(with("IRONWARP_EMULATOR_ARCH", "90").unwrap().arch, Arch::SM_90);
        assert!(!with("IRONWARP_EMULATOR_CHECKS", "off").unwrap().checks);
        assert_eq!(with("IRONWARP_EMULATOR_DRIVER_VERSION", "12020").unwrap().driver_version, 12020);
        assert_eq!(with("IRONWARP_EMULATOR_FAULTS", "cuInit:1=3").unwrap().faults.len(), 1);
        assert_eq!(with("IRONWARP_EMULATOR_SEED", "").unwrap().seed, 0);
    }

    #[test]
    fn an_invalid_value_is_reported_with_its_variable_and_what_was_expected() {
        for (name, value) in [
            ("ARCH", "86"),
            ("MEMORY", "16GB"),
            ("MEMORY", "0"),
            ("MEMORY", "99999999999999TiB"),
            ("DRIVER_VERSION", "13.0"),
            ("THREADS", "0"),
            ("SEED", "-1"),
            ("CHECKS", "maybe"),
            ("STEP_BUDGET", "0"),
            ("FAULTS", "cuInit"),
        ] {
            let message = with(&format!("IRONWARP_EMULATOR_{name}"), value).unwrap_err();
            assert!(message.contains(name) && message.contains(value) && message.contains("expected"), "{message}");
        }
    }
}
