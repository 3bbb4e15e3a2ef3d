//! Settings that suit the preset `tiny`, which `train` uses unless flags say otherwise.

use clap::Command;
use ironwarp::train::settings::RunOptions;

/// The preset that the recipe is for; the default model.
const MODEL: &str = "tiny";

/// The time of a run with all settings of the recipe.
const TIME: &str = "about a minute on two CPU cores";

/// A setting: name of the field in clap, flag, value, and how the value is stored.
type Setting = (&'static str, &'static str, f32, fn(&mut RunOptions, f32));

/// Found by runs on the embedded corpus: docs/worklog/0009-first-minute.md.
const SETTINGS: [Setting; 8] = [
    ("steps", "--steps", 10_000.0, |options, value| options.schedule.steps = value as u64),
    ("batch", "--batch", 4.0, |options, value| options.batch = value as usize),
    ("peak", "--lr", 2e-3, |options, value| options.schedule.peak = value),
    ("warmup", "--warmup", 100.0, |options, value| options.schedule.warmup = value as u64),
    ("final_fraction", "--final-lr-fraction", 0.02, |options, value| options.schedule.final_fraction = value),
    ("val_every", "--val-every", 1000.0, |options, value| options.val_every = value as u64),
    ("val_batches", "--val-batches", 100.0, |options, value| options.val_batches = value as usize),
    ("save_every", "--save-every", 2000.0, |options, value| options.save_every = value as u64),
];

/// Sets what no flag says, if the model is the recipe's, and returns a line about it.
pub fn apply(model: &str, options: &mut RunOptions, is_given: impl Fn(&str) -> bool) -> Option<String> {
    if model != MODEL {
        return None;
    }
    let mut flags = vec![];
    for (id, flag, value, set) in SETTINGS {
        if !is_given(id) {
            set(options, value);
            flags.push(format!("{flag} {value}"));
        }
    }
    let time = if flags.len() == SETTINGS.len() { format!(": {TIME}") } else { String::new() };
    (!flags.is_empty()).then(|| format!("recipe      {}, as suits {MODEL}{time}", flags.join(" ")))
}

/// Adds the recipe's values to the defaults that the help of `train` states.
pub fn document(command: Command) -> Command {
    SETTINGS.iter().fold(command, |command, (id, _, value, _)| {
        command.mut_arg(id, |arg| {
            let default = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect::<String>();
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            arg.help(format!("{help} [default: {default}; for {MODEL} {value}]")).hide_default_value(true)
        })
    })
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;

    use super::*;

    #[test]
    fn flags_precede_the_recipe() {
        let matches = crate::command().get_matches_from(["ironwarp", "train", "--steps", "7"]);
        let (_, matches) = matches.subcommand().unwrap();
        let mut options = RunOptions::from_arg_matches(matches).unwrap();
        let other = options.clone();
        assert_eq!(apply("d6", &mut options, |_| false), None);
        assert_eq!(options, other);

        let line = apply(MODEL, &mut options, |id| id == "steps").unwrap();
        assert!(line.starts_with("recipe      --batch ") && line.contains(" --lr 0.00"), "{line}");
        assert!(!line.contains(TIME), "the number of steps is not the recipe's: {line}");
        assert_eq!((options.schedule.steps, options.seed), (7, other.seed));
        assert_ne!(options.schedule.peak, other.schedule.peak);
        assert!(apply(MODEL, &mut options, |_| false).unwrap().ends_with(TIME));
        assert_ne!(options.schedule.steps, 7);
        assert_eq!(apply(MODEL, &mut options, |_| true), None);
    }

    #[test]
    fn the_help_states_both_defaults() {
        let mut program = crate::command();
        let help = program.find_subcommand_mut("train").unwrap().render_help().to_string();
        for (_, flag, value, _) in SETTINGS {
            let line = help.lines().find(|line| line.trim_start().starts_with(&format!("{flag} <"))).unwrap();
            assert!(line.ends_with(&format!("; for tiny {value}]")), "{line}");
        }
    }
}
