//! Parquet files, whole and damaged.
#![cfg(feature = "parquet")]
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use data::{Example, Message, RowProblem, read_examples, read_prompts};
use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// Writes rows of an id and a conversation of a question and its answer.
fn write_conversations(path: &Path, rows: usize, compression: Compression) {
    let schema = "message rows {
        optional binary id (UTF8);
        optional group messages (LIST) { repeated group list { optional group element {
            optional binary role (UTF8);
            optional binary content (UTF8);
        } } }
    }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = WriterProperties::builder().set_compression(compression);
    let properties = Arc::new(properties.build());
    let file = File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let turns = |one: &dyn Fn(usize, usize) -> String| -> Vec<ByteArray> {
        (0..rows)
            .flat_map(|row| [0, 1].map(|turn| one(row, turn).as_str().into()))
            .collect()
    };
    let ids: Vec<ByteArray> = (0..rows)
        .map(|row| format!("r{row}").as_str().into())
        .collect();
    let roles = turns(&|_, turn| ["user", "assistant"][turn].into());
    let contents = turns(&|row, turn| format!("{row} {}", ["asked", "answered"][turn]));
    let levels: Vec<i16> = (0..rows).flat_map(|_| [0, 1]).collect();
    for (values, repeated) in [(ids, false), (roles, true), (contents, true)] {
        let mut column = group.next_column().unwrap().unwrap();
        let defined = vec![if repeated { 4 } else { 1 }; values.len()];
        let repeated = repeated.then_some(levels.as_slice());
        column
            .typed::<ByteArrayType>()
            .write_batch(&values, Some(&defined), repeated)
            .unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
}

#[test]
fn conversations_of_every_compression() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    for compression in [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(Default::default()),
        Compression::ZSTD(ZstdLevel::default()),
    ] {
        write_conversations(&path, 3, compression);
        let found: Vec<_> = read_examples(&path).unwrap().map(Result::unwrap).collect();
        assert_eq!(found.len(), 3, "{compression:?}");
        assert_eq!((found[2].id.as_str(), found[2].line), ("r2", 3));
        let messages = vec![
            Message::new("user", "2 asked"),
            Message::new("assistant", "2 answered"),
        ];
        assert_eq!(found[2].value, Example::Conversation { messages });
    }
    assert_eq!(read_prompts(&path).unwrap().count(), 3);
}

#[test]
fn damaged_files_end_without_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.parquet");
    write_conversations(&path, 40, Compression::SNAPPY);
    let whole = std::fs::read(&path).unwrap();
    let (mut refused, mut ended) = (0, 0);
    for at in 4..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0xa5;
        std::fs::write(&path, &bytes).unwrap();
        match read_examples(&path) {
            Err(_) => refused += 1,
            Ok(rows) => {
                let rows: Vec<_> = rows.take(1000).collect();
                assert!(rows.len() < 1000, "byte {at}");
                let last = rows.last();
                ended += usize::from(matches!(last, Some(Err(RowProblem::Io { .. }))));
            }
        }
    }
    assert!(refused > 10 && ended > 10, "{refused} {ended}");
    for length in 4..whole.len() {
        std::fs::write(&path, &whole[..length]).unwrap();
        assert!(read_examples(&path).is_err(), "{length} bytes");
    }
}
