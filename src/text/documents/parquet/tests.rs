//! Tests of reading Parquet tables.

use std::sync::Arc;

use parquet::basic::{Compression, ConvertedType, Repetition};
use parquet::data_type::{ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types;

use super::super::tests::{error, read_as};
use super::super::{DocumentOptions, Format};
use super::*;

/// A table with the columns `id`, `text` and `meta.body`, written in groups of these rows; `None` is a null.
fn table(groups: &[&[Option<&str>]], compression: Compression) -> Vec<u8> {
    let strings = |name: &str| {
        let column = types::Type::primitive_type_builder(name, Type::BYTE_ARRAY);
        let column = column.with_converted_type(ConvertedType::UTF8).with_repetition(Repetition::OPTIONAL);
        Arc::new(column.build().unwrap())
    };
    let id = types::Type::primitive_type_builder("id", Type::INT64).with_repetition(Repetition::REQUIRED);
    let meta = types::Type::group_type_builder("meta").with_fields(vec![strings("body")]);
    let meta = meta.with_repetition(Repetition::REQUIRED).build().unwrap();
    let fields = vec![Arc::new(id.build().unwrap()), strings("text"), Arc::new(meta)];
    let schema = Arc::new(types::Type::group_type_builder("schema").with_fields(fields).build().unwrap());
    let properties = WriterProperties::builder().set_compression(compression).build();
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).unwrap();
    for rows in groups {
        let mut group = writer.next_row_group().unwrap();
        let ids: Vec<i64> = (0..rows.len() as i64).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(&ids, None, None).unwrap();
        column.close().unwrap();
        let levels: Vec<i16> = rows.iter().map(|row| i16::from(row.is_some())).collect();
        for suffix in ["", " body"] {
            let values: Vec<ByteArray> = rows
                .iter()
                .flatten()
                .map(|row| (*row).to_owned() + suffix)
                .map(|row| row.as_bytes().to_vec().into())
                .collect();
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None).unwrap();
            column.close().unwrap();
        }
        group.close().unwrap();
    }
    writer.into_inner().unwrap()
}

fn named(text_field: &str) -> DocumentOptions {
    DocumentOptions { text_field: text_field.into(), ..DocumentOptions::default() }
}

#[test]
fn columns_are_read_with_every_compression() {
    let many: Vec<String> = (0..5000).map(|i| format!("row {i} é {}", "x".repeat(i % 90))).collect();
    let many: Vec<Option<&str>> = many.iter().map(|row| Some(&row[..])).collect();
    let expected: Vec<String> =
        many.iter().flatten().map(ToString::to_string).chain(["".into(), "last".into()]).collect();
    for compression in [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(Default::default()),
        Compression::ZSTD(Default::default()),
        Compression::LZ4_RAW,
    ] {
        let bytes = table(&[&many, &[Some(""), Some("last")]], compression);
        let (texts, documents) = read_as("a.parquet", &bytes, &named("text")).unwrap();
        assert!(texts == expected, "{compression}");
        assert_eq!(documents.form, Format::Parquet.name());
        let (texts, _) = read_as("a.PARQUET", &bytes, &named("meta.body")).unwrap();
        assert_eq!(texts[5001], "last body");
    }
}

#[test]
fn nulls_are_bad_documents() {
    let bytes = table(&[&[Some("a"), None], &[Some("b"), None, Some("c")]], Compression::SNAPPY);
    assert_eq!(error("a.parquet", &bytes), "a.parquet: row 1 (from 0): the column `text` is null");
    let skip = DocumentOptions { skip_bad_documents: true, ..named("text") };
    let (texts, documents) = read_as("a.parquet", &bytes, &skip).unwrap();
    assert_eq!((&texts[..], documents.skipped), (&["a".to_string(), "b".into(), "c".into()][..], 2));
}

#[test]
fn wrong_columns_and_damaged_tables_are_named() {
    let bytes = table(&[&[Some("a")]], Compression::SNAPPY);
    let fail = |bytes: &[u8], options: &DocumentOptions| {
        let error = read_as("a.parquet", bytes, options).unwrap_err().to_string();
        error[error.find("a.parquet").unwrap()..].to_string()
    };
    let columns =
        "a.parquet: no column `content`; columns of strings: text, meta.body; --text-field names the one to read";
    assert_eq!(fail(&bytes, &named("content")), columns);
    assert_eq!(fail(&bytes, &named("id")), "a.parquet: the column `id` holds no strings");
    for bytes in [&b"{}"[..], b"PAR1", &bytes[..bytes.len() - 9], &bytes[9..]] {
        let error = fail(bytes, &named("text"));
        assert!(error.starts_with("a.parquet: not a valid Parquet table: "), "{error}");
    }
}

#[test]
fn mutated_tables_never_panic() {
    use rand::{Rng, RngExt, SeedableRng};
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(4);
    let rows: Vec<Option<&str>> = (0..40).map(|i| (i % 3 > 0).then_some(["a", "long text", ""][i % 3])).collect();
    let (mut accepted, mut rejected) = (0, 0);
    for compression in [Compression::UNCOMPRESSED, Compression::SNAPPY, Compression::ZSTD(Default::default())] {
        let good = table(&[&rows, &rows[..3]], compression);
        for _ in 0..1_500 {
            let mut bytes = good.clone();
            for _ in 0..rng.random_range(1..4) {
                let at = rng.random_range(0..bytes.len());
                bytes[at] = rng.next_u32() as u8;
            }
            let options = DocumentOptions { skip_bad_documents: true, ..named("text") };
            match read_as("a.parquet", &bytes, &options) {
                Ok(_) => accepted += 1,
                Err(_) => rejected += 1,
            }
        }
    }
    assert!(accepted > 200 && rejected > 200, "{accepted} accepted, {rejected} rejected");
}
