//! The examples at the top of each command's `--help`.

use clap::Command;
use clap::builder::Styles;

/// Examples by command; those of "ironwarp" are of the program itself.
const EXAMPLES: &[(&str, &str)] = &[
    (
        "ironwarp",
        "
  ironwarp train                                        # a small GPT-2 on this project's sources, about a minute
  ironwarp generate --model runs/tiny --prompt 'pub fn '
  ironwarp train --data my.txt --out runs/my            # the same on a text of yours
  ironwarp info                                         # the devices of this machine",
    ),
    (
        "train",
        "
  ironwarp train                                        # a small GPT-2 on this project's sources, about a minute
  ironwarp train --data my.txt --out runs/my            # the same on a text of yours
  ironwarp train --resume --out runs/my --steps 20000   # continues it, up to step 20000
  ironwarp train --init-from gpt2/ --data my.txt --lr 3e-5 --steps 200 --out runs/fine-tuned
  ironwarp train --model gpt2-124M --data fineweb/ --batch 64 --accumulate 8 --steps 18000 --out runs/124M",
    ),
    (
        "generate",
        "
  ironwarp generate --model runs/tiny --prompt 'pub fn ' --top-k 40
  ironwarp generate --model gpt2/ --prompt 'Once upon a time' --temperature 0.7 --top-p 0.9
  ironwarp generate --model runs/tiny --prompt - --json < prompt.txt",
    ),
    (
        "eval",
        "
  ironwarp eval --model runs/tiny --text held-out.txt   # loss and perplexity
  ironwarp eval --model gpt2/ --hellaswag hellaswag_val.jsonl
  ironwarp eval --model gpt2/ --lambada lambada_test.jsonl --limit 500",
    ),
    (
        "tokenize",
        "
  ironwarp tokenize my.txt                              # counts the tokens
  ironwarp tokenize my.txt --ids                        # prints their ids
  ironwarp tokenize a.jsonl b.jsonl --out shards/ --val-fraction 0.01",
    ),
    (
        "tokenizer",
        "
  ironwarp tokenizer train my.txt --vocab 8192 --out my-tokenizer
  ironwarp tokenizer train a.jsonl b.jsonl.gz --text-field body --vocab 32000 --out my-tokenizer",
    ),
    (
        "export",
        "
  ironwarp export runs/tiny --out tiny-hf               # loads in Hugging Face transformers",
    ),
    (
        "bench",
        "
  ironwarp bench                                        # every operation, on the first GPU
  ironwarp bench --device cpu layernorm
  ironwarp bench matmul_forward --shape n=4096,c=768,oc=3072 --peers python3",
    ),
    (
        "profile",
        "
  ironwarp profile                                      # a table of all operations
  ironwarp profile layernorm --source                   # with the counts of each line of the kernels
  ironwarp profile attention --shape t=256 --html attention.html",
    ),
    (
        "info",
        "
  ironwarp info                                         # the devices
  ironwarp info --model gpt2-1558M --batch 4            # parameters and memory
  ironwarp info --model runs/tiny",
    ),
];

/// clap's own template with the examples after the description.
const TEMPLATE: &str = "{about-with-newline}\n{before-help}{usage-heading} {usage}\n\n{all-args}{after-help}";

/// Adds the examples to the help of the program and of its commands.
pub fn add(command: Command) -> Command {
    with_examples(command).mut_subcommands(with_examples)
}

fn with_examples(command: Command) -> Command {
    let Some((_, examples)) = EXAMPLES.iter().find(|(name, _)| *name == command.get_name()) else {
        return command;
    };
    let styles = Styles::default();
    let header = styles.get_header();
    command.before_help(format!("{header}Examples:{header:#}{examples}")).help_template(TEMPLATE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words of an example as a shell reads them: single quotes, `<` and comments.
    fn words(line: &str) -> Vec<String> {
        let mut words = vec![];
        for (index, part) in line.split('\'').enumerate() {
            if index % 2 == 1 {
                words.push(part.to_string());
                continue;
            }
            let before = part.split_whitespace().take_while(|word| !["#", "<"].contains(word));
            words.extend(before.map(str::to_string));
            if part.contains(" #") || part.contains(" < ") {
                break;
            }
        }
        words
    }

    #[test]
    fn every_example_is_a_valid_command() {
        for (name, examples) in EXAMPLES {
            for line in examples.trim().lines() {
                let words = words(line);
                assert_eq!(words[0], "ironwarp", "{line}");
                assert!(*name == "ironwarp" || words[1] == *name, "{name}: {line}");
                crate::command().try_get_matches_from(words).unwrap_or_else(|e| panic!("{line}\n{e}"));
            }
        }
        assert!(crate::command().try_get_matches_from(words("ironwarp train --steps 1,000")).is_err());
    }

    #[test]
    fn the_help_of_every_command_has_its_examples_before_the_options() {
        let mut program = crate::command();
        program.build();
        let help = program.render_help().to_string();
        assert!(help.find("Examples:\n  ironwarp train").unwrap() < help.find("Usage:").unwrap(), "{help}");
        for command in program.get_subcommands_mut().filter(|command| command.get_name() != "help") {
            let name = command.get_name().to_string();
            let help = command.render_help().to_string();
            let at = help.find(&format!("Examples:\n  ironwarp {name}")).unwrap_or_else(|| panic!("{name}: {help}"));
            assert!(at < help.find("Usage:").unwrap() && at < help.find("--json").unwrap(), "{help}");
        }
    }
}
