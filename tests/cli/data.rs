//! The data of a run: which files are read, and what `train` says about them.

use serde_json::json;

use crate::support::Lab;

#[test]
fn train_lists_its_files_and_never_reads_test_data_or_a_text_twice() {
    let lab = Lab::new();
    lab.write("d/books.jsonl", "{\"text\":\"ab\"}\n{\"text\":\"cd\"}\n");
    lab.write("X.txt", "abcdefghij".repeat(4));
    lab.run("tokenize X.txt --tokenizer bytes --out d --val-fraction 0.5").ok();
    lab.copy("X.txt", "d/X.txt");
    lab.write("d/wiki.test.txt", "this is never read");
    let listing = [
        "train       DIR/d/X_train_000000.bin: shard (uint16), 20 tokens",
        "validation  DIR/d/X_val_000000.bin: shard (uint16), 20 tokens",
        "train       DIR/d/books.jsonl: JSONL, 2 documents, 6 tokens",
        "unused      DIR/d/X.txt: its tokens are among the data: X_train_000000.bin",
        "unused      DIR/d/wiki.test.txt: its name marks test data",
        "data        26 tokens for training, 20 for validation",
    ]
    .map(|line| line.replace("DIR", lab.path("").to_str().unwrap().trim_end_matches('/')));
    let dry = "train --model m.toml --data d --data-dry-run --out dry";
    assert_eq!(lab.run(dry).ok().lines().collect::<Vec<_>>(), listing);
    assert!(!lab.path("dry").exists(), "a dry run leaves no folder");
    let found = lab.run(&format!("{dry} --json")).json();
    assert_eq!((&found["train_tokens"], &found["val_tokens"]), (&json!(26), &json!(20)));
    assert_eq!((&found["files"][3]["use"], &found["files"][3]["documents"]), (&json!("train"), &json!(2)));
    let flags = "--steps 1 --batch 1 --context 8 --sample-tokens 1 --out run";
    let printed = lab.run(&format!("train --model m.toml --data d {flags}")).ok();
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines[lines.iter().position(|line| *line == listing[0]).unwrap()..][..6], listing);
    // A single file is read whatever its name is, and its end is held out.
    let printed = lab.run("train --model m.toml --data d/wiki.test.txt --val-fraction 0.5 --data-dry-run").ok();
    assert!(printed.contains("text, 1 document, 18 tokens"), "{printed}");
    assert!(
        printed.ends_with("data        9 tokens for training, 9 for validation, held out at the end\n"),
        "{printed}"
    );
}

#[test]
fn several_paths_and_compressed_files_are_listed_with_their_forms() {
    let lab = Lab::new();
    lab.write("a/one.jsonl", "{\"body\":\"abc\"}\n{\"body\":null}\n{\"body\":\"d\"}\n");
    lab.write("a/README.md", "a description");
    lab.write("a/sub/b.txt", "not read");
    lab.write("two.json", "[{\"body\":\"ef\"}]");
    lab.write("my-val.txt", "ghi");
    let packed = std::process::Command::new("gzip").arg(lab.path("two.json")).status().unwrap();
    assert!(packed.success());
    let flags = "--data two.json.gz --data a --data my-val.txt --text-field body --data-dry-run";
    let bad = "one.jsonl at byte 23: line 2: the field `body` is null, not a string";
    lab.run(&format!("train --model m.toml {flags}")).fails(1, &[bad]);
    let listing = [
        "train       DIR/two.json.gz: JSON, gzip, 1 document, 3 tokens",
        "train       DIR/a/one.jsonl: JSONL, 2 documents, 6 tokens",
        "validation  DIR/my-val.txt: text, 1 document, 4 tokens",
        "unused      DIR/a/README.md: its name marks a description of the data",
        "left out    DIR/a/one.jsonl: 1 bad document",
        "unused      DIR/a/sub: a folder in the folder",
        "data        9 tokens for training, 4 for validation",
    ]
    .map(|line| line.replace("DIR", lab.path("").to_str().unwrap().trim_end_matches('/')));
    let printed = lab.run(&format!("train --model m.toml {flags} --skip-bad-documents")).ok();
    assert_eq!(printed.lines().collect::<Vec<_>>(), listing);
    for twice in ["--data a --data ./a", "--data a --data a/one.jsonl", "--data two.json.gz --data ../DIR/two.json.gz"]
    {
        let name = lab.path("").file_name().unwrap().to_str().unwrap().to_string();
        let args = format!("train --model m.toml {} --data-dry-run", twice.replace("DIR", &name));
        lab.run(&args).fails(1, &[": the data contains this file twice"]);
    }
}
