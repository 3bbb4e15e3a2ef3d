//! Listing the files of a corpus.

use anyhow::Result;
use ironwarp::message::escaped_path;
use ironwarp::text::corpus::Corpus;
use ironwarp::text::listing::{DataFile, Use};
use serde_json::json;

use crate::output;

/// Lists the files of a corpus on standard output, and its tokens by split; with `json`, only what is left out, on standard
/// error.
pub fn tell(corpus: &Corpus, json: bool) {
    if json {
        return left_out(&corpus.files).for_each(output::note);
    }
    for file in corpus.files.iter().filter(|file| !matches!(file.usage, Use::Unused(_))) {
        let documents = match file.documents {
            Some(1) => ", 1 document".to_string(),
            Some(n) => format!(", {} documents", output::thousands(n)),
            None => String::new(),
        };
        let (path, tokens) = (escaped_path(&file.path), output::thousands(file.tokens));
        let form = &file.form;
        let held_out = match file.held_out {
            0 => String::new(),
            n => format!(", {} of them held out", output::thousands(n)),
        };
        output::tell(format!("{:<10}  {path}: {form}{documents}, {tokens} tokens{held_out}", file.usage));
    }
    left_out(&corpus.files).for_each(output::tell);
    let held_out = corpus.files.iter().all(|file| file.usage != Use::Validation) && !corpus.validation.is_empty();
    output::tell(format!(
        "data        {} tokens for training, {} for validation{}",
        output::thousands(corpus.train.len() as u64),
        output::thousands(corpus.validation.len() as u64),
        if held_out { ", held out at the end" } else { "" },
    ));
}

/// A line for each file that is not used, with the reason, and for each of which documents were left out.
pub fn left_out(files: &[DataFile]) -> impl Iterator<Item = String> {
    files.iter().filter_map(|file| match &file.usage {
        Use::Unused(reason) => Some(format!("unused      {}: {reason}", escaped_path(&file.path))),
        Use::Train | Use::Validation if file.skipped > 0 => {
            let skipped = match file.skipped {
                1 => "1 bad document".to_string(),
                n => format!("{} bad documents", output::thousands(n)),
            };
            Some(format!("left out    {}: {skipped}", escaped_path(&file.path)))
        }
        Use::Train | Use::Validation => None,
    })
}

/// Prints the listing as a line of JSON.
pub fn json(corpus: &Corpus) -> Result<()> {
    let (train, validation) = (corpus.train.len(), corpus.validation.len());
    output::json(&json!({"files": corpus.files, "train_tokens": train, "val_tokens": validation}))
}
