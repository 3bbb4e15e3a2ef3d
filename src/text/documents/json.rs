//! JSON files of documents: an array of objects, or objects one after another.

use rayon::prelude::*;
use serde_json::value::RawValue;

use super::field::{self, Fault};
use super::text::Text;
use super::{BATCH, Batches};
use crate::error::{Error, Result};

/// Reads the documents of a JSON text.
pub(super) fn read_documents(text: &Text, batches: &mut Batches<'_, '_>) -> Result<()> {
    let (path, name) = (batches.path, &batches.options.text_field);
    let Text { text, offset } = text;
    let error = |fault: Fault| {
        let line = 1 + text.as_bytes()[..fault.at].iter().filter(|&&byte| byte == b'\n').count();
        Error::format_at(path, (offset + fault.at) as u64, format!("line {line}: {}", fault.message))
    };
    let values = values(text).map_err(error)?;
    let position = |value: &RawValue| value.get().as_ptr() as usize - text.as_ptr() as usize;
    let parse = |value: &&RawValue| {
        field::text(value.get(), name).map_err(|fault| {
            let at = position(value) + fault.at;
            Fault { at, ..fault }
        })
    };
    // Cut where the values of a batch begin a batch's size after its first.
    let mut rest = &values[..];
    while let [first, ..] = rest {
        let end = position(first) + BATCH;
        let (batch, others) = rest.split_at(rest.partition_point(|value| position(value) < end));
        batches.push(batch.par_iter().map(parse).collect(), error)?;
        rest = others;
    }
    Ok(())
}

/// The elements of an array, or the values one after another.
fn values(text: &str) -> Result<Vec<&RawValue>, Fault> {
    if text.trim_ascii_start().starts_with('[') {
        return field::parse(text);
    }
    let values = serde_json::Deserializer::from_str(text).into_iter();
    values.collect::<serde_json::Result<_>>().map_err(|e| Fault::from_json(text, &e))
}
