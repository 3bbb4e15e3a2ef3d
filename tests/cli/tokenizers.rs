//! Tokenizers of other languages, made by the trainer of the crate `tokenizers`: the folder's tokenizer decides everywhere.

use std::fs;
use std::path::Path;

use serde_json::json;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Model, NormalizerWrapper, PostProcessorWrapper, Tokenizer, TokenizerImpl};

use crate::support::Lab;

/// Texts in other languages: name, training text, and a text with characters and words that the former does not have.
const LANGUAGES: [(&str, &str, &str); 5] = [
    (
        "es",
        "El niño pequeño comió la manzana mientras su abuela soñaba. ¿Dónde está el perro? ",
        "La niña soñó: ¡qué año!",
    ),
    (
        "fr",
        "L'été dernier, nous étions près de la forêt où l'hôtel s'élevait. Ça n'a pas changé. ",
        "L'œuvre d'art, naïve.",
    ),
    (
        "pt",
        "Não há razão para que as crianças não brinquem no chão; os cães também irão. ",
        "Amanhã, às três, virão irmãs.",
    ),
    (
        "de",
        "Der Hund und die Katze laufen über die Straße; das Haus ist schön und groß. ",
        "Größe, Äpfel   und Übermaß\n\n1984!",
    ),
    ("pl", "Zażółć gęślą jaźń, powiedział chłopiec. Źdźbło trawy rośnie nad rzeką. ", "Łódź: 12 źródeł 🙂 i więcej"),
];

/// A tokenizer as GPT-2's, trained on `text`, with at most `vocab` tokens and the end-of-text token in front.
fn trained(text: &str, vocab: usize) -> Tokenizer {
    let alphabet = ByteLevel::alphabet().into_iter().collect();
    let end_of_text = AddedToken::from("<|endoftext|>", true);
    let trainer = BpeTrainerBuilder::new().vocab_size(vocab).initial_alphabet(alphabet).show_progress(false);
    let mut trainer = trainer.special_tokens(vec![end_of_text]).build();
    let mut bpe =
        TokenizerImpl::<BPE, NormalizerWrapper, ByteLevel, PostProcessorWrapper, ByteLevel>::new(BPE::default());
    bpe.with_pre_tokenizer(Some(ByteLevel::new(false, true, true))).with_decoder(Some(ByteLevel::default()));
    bpe.train(&mut trainer, [text.repeat(4)].into_iter()).unwrap();
    let text = bpe.to_string(false).unwrap();
    text.parse().unwrap()
}

/// The two forms of the tokenizer's files: `tokenizer.json`, and `vocab.json` with `merges.txt`.
fn save(tokenizer: &Tokenizer, dir: &Path) -> [String; 2] {
    let [whole, parts] = ["whole", "parts"].map(|form| dir.join(form));
    for form in [&whole, &parts] {
        fs::create_dir_all(form).unwrap();
    }
    tokenizer.save(whole.join("tokenizer.json"), false).unwrap();
    tokenizer.get_model().save(&parts, None).unwrap();
    [whole, parts].map(|form| form.to_str().unwrap().to_string())
}

fn ids(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    tokenizer.encode_fast(text, false).unwrap().get_ids().to_vec()
}

#[test]
fn ids_are_those_of_the_crate_tokenizers_in_five_languages() {
    let lab = Lab::new();
    for (language, corpus, other) in LANGUAGES {
        let tokenizer = trained(corpus, 400);
        let text = format!("{corpus}{other} {corpus}");
        lab.write("text.txt", &text);
        let wanted = ids(&tokenizer, &text);
        for folder in save(&tokenizer, &lab.path(language)) {
            let args = format!("tokenize text.txt --tokenizer {folder} --ids");
            let found: Vec<u32> = lab.run(&args).ok().split_whitespace().map(|id| id.parse().unwrap()).collect();
            assert_eq!(found, wanted, "{folder}");
            assert_eq!(lab.run(&format!("{args} --json")).json(), json!({"ids": wanted}), "{folder}");
        }
        assert_eq!(tokenizer.decode(&wanted, false).unwrap(), text, "the text has only known characters");
    }
}

#[test]
fn runs_exports_and_resumed_runs_carry_the_tokenizer() {
    let lab = Lab::new();
    for (language, corpus, other) in LANGUAGES {
        let tokenizer = trained(corpus, 400);
        let [whole, _] = save(&tokenizer, &lab.path(language));
        let vocab = tokenizer.get_vocab_size(true);
        // More tokens than the tokenizer has, as in many published models.
        lab.write("v.toml", format!("context = 64\nvocab = {}\nlayers = 1\nheads = 2\nchannels = 16\n", vocab + 7));
        lab.write("text.txt", corpus.repeat(9));
        lab.write("other.txt", other);
        let (run, export) = (format!("run-{language}"), format!("export-{language}"));
        let train = "--steps 2 --batch 1 --context 8 --data text.txt --sample-tokens 4 --val-every 0 --val-fraction 0";
        lab.run(&format!("train --model v.toml --tokenizer {whole} --out {run} {train}")).ok();
        lab.run(&format!("export {run} --out {export}")).ok();
        let exported: Tokenizer = lab.read(format!("{export}/tokenizer.json")).parse().unwrap();
        assert_eq!(ids(&exported, other), ids(&tokenizer, other));
        let config: serde_json::Value = serde_json::from_str(&lab.read(format!("{export}/config.json"))).unwrap();
        assert_eq!((&config["eos_token_id"], &config["ironwarp_tokenizer"]), (&json!(0), &json!(null)));
        // A checkpoint and its export evaluate the same tokens with the same loss.
        let eval = |model: &str| lab.run(&format!("eval --model {model} --text other.txt --json")).json();
        assert_eq!(eval(&run)["tokens"], ids(&tokenizer, other).len() - 1);
        assert_eq!(eval(&run), eval(&export));
        let prompt = ["generate", "--model", &export, "--prompt", other, "--max-tokens", "1", "--json"];
        assert_eq!(lab.run_args(&prompt).json()["prompt_tokens"], ids(&tokenizer, other).len());
        lab.run(&format!("train --init-from {export} --out fine-{language} {train}")).ok();
        assert_eq!(eval(&format!("fine-{language}"))["tokens"], eval(&run)["tokens"]);
        // Resuming needs nothing but the run.
        fs::remove_dir_all(lab.path(language)).unwrap();
        lab.run(&format!("train --resume --out {run} --steps 3")).ok();
        assert_eq!(eval(&run)["tokens"], eval(&export)["tokens"]);
        lab.run(&format!("train --resume --out {run} --steps 3 --tokenizer bytes")).fails(1, &["tokenizer.json"]);
    }
}

#[test]
fn a_vocabulary_of_gpt2s_size_does_not_make_a_tokenizer_gpt2s() {
    let lab = Lab::new();
    let (_, corpus, other) = LANGUAGES[3];
    let tokenizer = trained(corpus, 400);
    let [whole, _] = save(&tokenizer, &lab.path("de"));
    lab.write("v.toml", "context = 8\nvocab = 50257\nlayers = 1\nheads = 1\nchannels = 8\n");
    lab.write("other.txt", other);
    let flags = "--steps 1 --batch 1 --data t.txt --sample-tokens 1 --val-every 0";
    lab.run(&format!("train --model v.toml --tokenizer {whole} --out run {flags}")).ok();
    lab.run("export run --out hf").ok();
    let eval = |flags: &str| lab.run(&format!("eval --model hf --text other.txt --json {flags}"));
    let tokens = |tokenizer: &str| {
        let ids = lab.run(&format!("tokenize other.txt --tokenizer {tokenizer} --ids --json")).json();
        ids["ids"].as_array().unwrap().len()
    };
    assert_ne!(tokens("gpt2"), tokens("de/whole"));
    assert_eq!(eval("").json()["tokens"], tokens("de/whole") - 1);
    assert_eq!(eval("--tokenizer gpt2").json()["tokens"], tokens("gpt2") - 1);
    lab.write("hf/tokenizer.json", "{}");
    eval("").fails(1, &["; choose one with --tokenizer (gpt2, bytes, FILE or DIR)", "hf: not a tokenizer"]);
    fs::remove_file(lab.path("hf/tokenizer.json")).unwrap();
    let missing = "the folder has no tokenizer: neither tokenizer.json nor vocab.json and merges.txt";
    eval("").fails(1, &[missing]);
    lab.run(&format!("train --init-from hf --out fine {flags}")).fails(1, &[missing]);
    lab.run("generate --model hf").fails(1, &[missing]);
    assert!(lab.run("export hf --out none").ok().contains("parameters in none"));
    assert!(lab.read("none/config.json").contains("\"ironwarp_tokenizer\": null"));
    lab.write("hf/merges.txt", "#version: 0.2\na b c\n");
    eval("").fails(1, &["the tokenizer has merges.txt, but vocab.json is missing"]);
    lab.write("hf/vocab.json", r#"{"a": 0, "b": 1, "<|endoftext|>": 2}"#);
    eval("").fails(1, &["merges.txt: line 2: 'a b c' is not two tokens separated by a space"]);
    lab.write("hf/tokenizer_config.json", r#"{"eos_token": "</s>"}"#);
    lab.write("hf/merges.txt", "#version: 0.2\n");
    eval("").fails(1, &["the eos_token '</s>' is not in the vocabulary"]);
    assert_eq!(eval("--tokenizer gpt2").json()["tokens"], tokens("gpt2") - 1);
}

#[test]
fn a_tokenizer_is_trained_and_used() {
    let lab = Lab::new();
    let documents = LANGUAGES.map(|(_, text, _)| json!({ "text": text.repeat(4) }).to_string());
    lab.write("texts.jsonl", documents.join("\n"));
    let train = |out: &str| lab.run(&format!("tokenizer train t.txt texts.jsonl --vocab 500 --out {out} --json"));
    let report = train("mine").json();
    assert_eq!((&report["vocab"], &report["documents"]), (&json!(500), &json!(6)));
    let (bytes, tokens) = (report["bytes"].as_f64().unwrap(), report["tokens"].as_f64().unwrap());
    assert!(report["bytes_per_token"] == bytes / tokens && bytes > 2.0 * tokens, "{report}");
    train("again").ok();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        assert_eq!(lab.read(format!("mine/{name}")), lab.read(format!("again/{name}")));
    }
    // The crate reads the same tokenizer from the file.
    let by_crate: Tokenizer = lab.read("mine/tokenizer.json").parse().unwrap();
    let (_, text, _) = LANGUAGES[0];
    lab.write("es.txt", text);
    let tokenized = lab.run("tokenize es.txt --tokenizer mine --ids --json").json();
    assert_eq!(tokenized["ids"], json!(ids(&by_crate, text)));
    lab.write("v.toml", "context = 16\nvocab = 500\nlayers = 1\nheads = 2\nchannels = 16\n");
    lab.run("train --model v.toml --tokenizer mine --data t.txt --out run --steps 2 --batch 2").ok();
    lab.run("generate --model run --prompt El --max-tokens 3").ok();
}

#[test]
fn a_tokenizer_that_cannot_be_trained_or_would_replace_something_is_refused() {
    let lab = Lab::new();
    let train = |args: &str| lab.run(&format!("tokenizer train {args}"));
    train("t.txt --vocab 256 --out mine").fails(1, &["257 <= V <= 16777216 failed (V = 256)"]);
    train("t.txt --vocab -5 --out mine").fails(2, &["invalid value '-5' for '--vocab <N>'"]);
    train("t.txt --out mine").fails(2, &["--vocab <N>"]);
    train("none.txt --vocab 300 --out mine").fails(1, &["none.txt"]);
    assert!(!lab.path("mine").exists());
    lab.write("mine/notes.txt", "kept");
    train("t.txt --vocab 300 --out mine").fails(1, &["mine: exists and is not an empty folder"]);
    lab.write("small.txt", "abc abc");
    let small = train("small.txt --vocab 300 --out small");
    assert!(small.stderr.contains("tokens instead of 300: after these, no pair of tokens occurs twice"));
    small.ok();
}
