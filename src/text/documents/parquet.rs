//! Parquet tables with a column of texts, as Hugging Face's datasets come.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use parquet::basic::Type;
use parquet::column::reader::ColumnReader;
use parquet::data_type::ByteArray;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::ColumnDescPtr;

use super::{BATCH, Batches};
use crate::error::{Error, Result};
use crate::files::open_regular;
use crate::message::escaped;

/// Rows that are decoded at a time.
const ROWS: usize = 128;

/// Reads the documents of a table: the rows of the column of the field's name.
pub(super) fn read_documents(path: &Path, batches: &mut Batches<'_, '_>) -> Result<()> {
    let file = open_regular(path)?;
    let table = decode(path, || SerializedFileReader::new(file))?;
    let columns = table.metadata().file_metadata().schema_descr().columns();
    let index = find(path, columns, &batches.options.text_field)?;
    let column = columns[index].clone();
    let mut row = 0;
    for group in 0..table.num_row_groups() {
        let group = decode(path, || table.get_row_group(group))?;
        let reader = decode(path, || group.get_column_reader(index))?;
        let ColumnReader::ByteArrayColumnReader(mut reader) = reader else {
            return Err(Error::format(path, "the types of a column differ between the groups of rows"));
        };
        let (mut batch, mut bytes) = (Vec::new(), 0);
        loop {
            let (mut levels, mut values) = (Vec::new(), Vec::with_capacity(ROWS));
            let read = decode(path, || reader.read_records(ROWS, Some(&mut levels), None, &mut values));
            let (rows, found, _) = read?;
            if rows == 0 {
                break;
            }
            let is_text =
                |index: usize| column.max_def_level() == 0 || levels.get(index) == Some(&column.max_def_level());
            let mut values = values.into_iter().take(found);
            for index in 0..rows {
                let value = if is_text(index) { values.next() } else { None };
                bytes += value.as_ref().map_or(0, ByteArray::len);
                batch.push(text(path, row + index, value, &column));
            }
            row += rows;
            if bytes > BATCH {
                batches.push(std::mem::take(&mut batch), |error| error)?;
                bytes = 0;
            }
        }
        batches.push(batch, |error| error)?;
    }
    Ok(())
}

/// The text of a row.
fn text(path: &Path, row: usize, value: Option<ByteArray>, column: &ColumnDescPtr) -> Result<String> {
    let bad = |message: String| Error::format(path, format!("row {row} (from 0): {message}"));
    let value = value.ok_or_else(|| bad(format!("the column `{}` is null", escaped(column.name()))))?;
    String::from_utf8(value.data().to_vec()).map_err(|_| bad("not UTF-8 text".into()))
}

/// The index of the column of texts with this name.
fn find(path: &Path, columns: &[ColumnDescPtr], name: &str) -> Result<usize> {
    let is_text = |column: &ColumnDescPtr| column.physical_type() == Type::BYTE_ARRAY && column.max_rep_level() == 0;
    let found = columns.iter().position(|column| column.path().string() == name);
    match found {
        Some(index) if is_text(&columns[index]) => Ok(index),
        Some(_) => Err(Error::format(path, format!("the column `{name}` holds no strings"))),
        None => {
            let texts = columns.iter().filter(|column| is_text(column));
            let names: Vec<String> = texts.take(20).map(|column| escaped(&column.path().string())).collect();
            let names = if names.is_empty() { "none".into() } else { names.join(", ") };
            let message =
                format!("no column `{name}`; columns of strings: {names}; --text-field names the one to read");
            Err(Error::format(path, message))
        }
    }
}

/// Calls a function of the crate `parquet`, some of which panic on damaged tables.
fn decode<T>(path: &Path, function: impl FnOnce() -> parquet::errors::Result<T>) -> Result<T> {
    let message = match catch_unwind(AssertUnwindSafe(function)) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => error.to_string(),
        Err(panic) => match panic.downcast::<String>() {
            Ok(message) => *message,
            Err(panic) => panic.downcast::<&str>().map_or(String::new(), |message| message.to_string()),
        },
    };
    Err(Error::format(path, format!("not a valid Parquet table: {}", escaped(&message))))
}

#[cfg(test)]
mod tests;
