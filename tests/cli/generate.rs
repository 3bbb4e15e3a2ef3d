//! `generate`: reproducible sampling, and completions of a trained model.

use serde_json::Value;

use crate::support::{Lab, memorised};

fn generate(lab: &Lab, prompt: &str, flags: &str) -> Value {
    let mut args = vec!["generate", "--model", memorised(), "--prompt", prompt, "--json"];
    args.extend(flags.split_whitespace());
    lab.run_args(&args).json()
}

#[test]
fn a_trained_model_completes_zero_shot_and_few_shot_prompts() {
    let lab = Lab::new();
    for (animal, name) in [("cat", "tom"), ("dog", "rex"), ("owl", "zoe"), ("hen", "pip")] {
        let shown = if animal == "owl" { "my hen is pip. " } else { "my owl is zoe. " };
        for prompt in [format!("my {animal} is"), format!("{shown}my {animal} is")] {
            let generated = generate(&lab, &prompt, "--max-tokens 5 --temperature 0");
            assert_eq!(generated["text"], format!(" {name}."), "{prompt}");
            assert_eq!(generated["prompt_tokens"], prompt.len());
            assert_eq!((&generated["finish"], generated["tokens"].as_array().unwrap().len()), (&"length".into(), 5));
        }
    }
}

#[test]
fn greedy_and_seeded_sampling_is_reproducible() {
    let lab = Lab::new();
    let text = |flags: &str| generate(&lab, "my ", &format!("--max-tokens 30 {flags}"))["text"].clone();
    let greedy = text("--temperature 0 --seed 1");
    assert_eq!(text("--temperature 0 --seed 2"), greedy);
    assert_eq!(text("--temperature 3 --top-k 1 --seed 5"), greedy);
    assert_eq!(text("--temperature 3 --top-p 1e-9 --seed 5"), greedy);
    let sampled = text("--temperature 1.5 --seed 7");
    assert_eq!(text("--temperature 1.5 --seed 7"), sampled);
    assert_eq!(text("--temperature 1.5 --seed 7 --top-k 257"), sampled);
    assert_eq!(text("--temperature 1.5 --seed 7 --threads 2"), sampled);
    assert_ne!(text("--temperature 1.5 --seed 8"), sampled);
}

#[test]
fn generation_continues_past_the_context_and_a_prompt_may_fill_it() {
    let lab = Lab::new();
    let generated = generate(&lab, "my cat is", "--max-tokens 200 --temperature 0");
    assert_eq!((&generated["finish"], generated["tokens"].as_array().unwrap().len()), (&"length".into(), 200));
    let full = "my cat is tom. my dog is rex. my owl is zoe. my ";
    assert_eq!(full.len(), 48);
    assert_eq!(generate(&lab, full, "--max-tokens 9")["tokens"].as_array().unwrap().len(), 9);
    assert_eq!(generate(&lab, "my", "--max-tokens 0")["text"], "");
}

#[test]
fn prompts_are_read_from_standard_input() {
    let lab = Lab::new();
    let args = format!("generate --model {} --prompt - --max-tokens 5 --temperature 0", memorised());
    assert_eq!(lab.run_with_input(&args, b"my dog is").ok(), "my dog is rex.\n");
    lab.run_with_input(&args, b"my \xff").fails(1, &["standard input is not UTF-8 at byte 3"]);
    lab.run_with_input(&args, b"").fails(1, &["the prompt has no tokens"]);
    // A prompt may look like a flag, and may be in any language.
    for prompt in ["--max-tokens", "日本", "\u{1F642}\0"[..4].into()] {
        assert_eq!(generate(&lab, prompt, "--max-tokens 1")["prompt_tokens"], prompt.len());
    }
}

#[test]
fn a_closed_pipe_is_not_an_error() {
    let lab = Lab::new();
    let out = "exec > >(head -c 1 >/dev/null)";
    lab.run_after(out, &format!("generate --model {} --max-tokens 40", memorised())).fails(0, &[]);
}
