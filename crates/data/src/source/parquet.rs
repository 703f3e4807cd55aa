//! Rows of a Parquet file, read as records, without Arrow.

use super::{Raw, RawProblem, RawRows};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};
use serde_json::{Map, Value};
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Rows of a file, in order.
///
/// # Errors
/// What is wrong with the file's footer.
pub(super) fn rows(file: File) -> Result<RawRows, String> {
    let opened = guarded(|| {
        let reader = SerializedFileReader::new(file).map_err(|error| error.to_string())?;
        let boxed: Box<dyn FileReader> = Box::new(reader);
        RowIter::from_file_into(boxed)
            .project(None)
            .map_err(|error| error.to_string())
    });
    let mut rows = opened.and_then(|rows| rows)?;
    let (mut line, mut failed) = (0, false);
    Ok(Box::new(std::iter::from_fn(move || {
        if failed {
            return None;
        }
        line += 1;
        let next = guarded(|| {
            rows.next()
                .map(|row| row.map_err(|error| error.to_string()))
        });
        let row = match next {
            Ok(None) => return None,
            Ok(Some(Ok(row))) => Ok(object(&row)),
            Ok(Some(Err(reason))) | Err(reason) => {
                // A page that cannot be read leaves the columns at different rows.
                failed = true;
                Err(RawProblem::Io(io::Error::new(
                    io::ErrorKind::InvalidData,
                    reason,
                )))
            }
        };
        Some(Raw { line, row })
    })))
}

/// Runs the decoder, whose assertions a damaged file can break.
fn guarded<T>(decode: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(decode)).map_err(|_| "a damaged Parquet file".to_owned())
}

fn object(row: &Row) -> Value {
    let columns = row.get_column_iter();
    let columns: Map<String, Value> = columns
        .map(|(name, field)| (name.clone(), value(field)))
        .collect();
    Value::Object(columns)
}

/// Texts, numbers, lists and structures; what has no place in JSON as its text.
fn value(field: &Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Bool(flag) => Value::from(*flag),
        Field::Byte(number) => Value::from(*number),
        Field::Short(number) => Value::from(*number),
        Field::Int(number) => Value::from(*number),
        Field::Long(number) => Value::from(*number),
        Field::UByte(number) => Value::from(*number),
        Field::UShort(number) => Value::from(*number),
        Field::UInt(number) => Value::from(*number),
        Field::ULong(number) => Value::from(*number),
        Field::Float(number) => Value::from(*number),
        Field::Double(number) => Value::from(*number),
        Field::Str(text) => Value::from(text.as_str()),
        Field::Bytes(bytes) => Value::from(String::from_utf8_lossy(bytes.data()).into_owned()),
        Field::Group(row) => object(row),
        Field::ListInternal(list) => list.elements().iter().map(value).collect(),
        other => Value::from(other.to_string()),
    }
}
