//! Rows of a table: the first record names the columns, each further one is an object of texts.

use super::{READ_BYTES, ROW_BYTES_MAX, Raw, RawProblem};
use csv::{ByteRecord, ReaderBuilder};
use serde_json::{Map, Value};
use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

/// Rows of a table; a cell that is empty is as good as absent.
pub(super) fn rows(reader: impl Read, delimiter: u8) -> impl Iterator<Item = Raw> {
    let spent = Rc::new(Cell::new(0));
    let reader = Bounded {
        inner: reader,
        spent: Rc::clone(&spent),
    };
    let mut reader = ReaderBuilder::new()
        .delimiter(delimiter)
        .flexible(true)
        .buffer_capacity(64 << 10)
        .from_reader(reader);
    let (mut record, mut failed) = (ByteRecord::new(), false);
    std::iter::from_fn(move || {
        if failed {
            return None;
        }
        spent.set(0);
        let read = reader
            .byte_headers()
            .cloned()
            .and_then(|columns| Ok((columns, reader.read_byte_record(&mut record)?)));
        let row = match read {
            Ok((_, false)) => return None,
            Ok((columns, true)) => object(&columns, &record).map_err(RawProblem::Row),
            Err(error) => {
                failed = true;
                Err(RawProblem::Io(io::Error::from(error)))
            }
        };
        let place = record.position().unwrap_or(reader.position());
        Some(Raw {
            line: place.line(),
            row,
        })
    })
}

fn object(columns: &ByteRecord, record: &ByteRecord) -> Result<Value, String> {
    if columns.len() != record.len() {
        return Err(format!(
            "{} fields, the first line has {}",
            record.len(),
            columns.len()
        ));
    }
    let mut object = Map::new();
    for (name, cell) in columns.iter().zip(record) {
        let text =
            |bytes| std::str::from_utf8(bytes).map_err(|error| format!("not UTF-8: {error}"));
        let (name, cell) = (text(name)?, text(cell)?);
        if !cell.is_empty() {
            object.insert(name.trim().to_owned(), nested(cell));
        }
    }
    Ok(Value::Object(object))
}

/// A cell that holds a list of turns holds it as JSON; anything else is text.
fn nested(cell: &str) -> Value {
    let list = || serde_json::from_str(cell).ok().filter(is_turns);
    let looks_nested = cell.trim_start().starts_with('[');
    looks_nested
        .then(list)
        .flatten()
        .unwrap_or_else(|| Value::from(cell))
}

fn is_turns(value: &Value) -> bool {
    let turns = value.as_array().filter(|turns| !turns.is_empty());
    turns.is_some_and(|turns| turns.iter().all(Value::is_object))
}

/// Reads on only while the record at hand is of a bearable size: a quote that is never closed
/// would otherwise take the whole file into memory.
struct Bounded<R> {
    inner: R,
    /// Bytes read since the last record.
    spent: Rc<Cell<usize>>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.spent.set(self.spent.get() + read);
        if self.spent.get() > ROW_BYTES_MAX + READ_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a record without end; is a quote left open?",
            ));
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(text: &str) -> Vec<(u64, Result<Value, String>)> {
        rows(io::Cursor::new(text.to_owned()), b',')
            .map(|raw| {
                let row = raw.row.map_err(|problem| match problem {
                    RawProblem::Row(why) => why,
                    RawProblem::Io(error) => error.to_string(),
                });
                (raw.line, row)
            })
            .collect()
    }

    #[test]
    fn cells_are_texts_or_turns() {
        let found = read(concat!(
            "id,prompt,x\n1,\"a, \"\"b\"\"\nc\",\n2,[1],y\n",
            "3,\"[{\"\"role\"\": \"\"user\"\", \"\"content\"\": \"\"q\"\"}]\",\n4,a\n",
        ));
        assert_eq!(found.len(), 4);
        assert_eq!(
            found[0],
            (2, Ok(json!({"id": "1", "prompt": "a, \"b\"\nc"})))
        );
        assert_eq!(
            found[1],
            (4, Ok(json!({"id": "2", "prompt": "[1]", "x": "y"})))
        );
        let turns = json!([{"role": "user", "content": "q"}]);
        assert_eq!(found[2], (5, Ok(json!({"id": "3", "prompt": turns}))));
        assert_eq!(found[3], (6, Err("2 fields, the first line has 3".into())));
        assert!(read("").is_empty());
        assert!(read("prompt\n").is_empty());
    }

    #[test]
    fn an_open_quote_ends_the_reading() {
        let endless = io::repeat(b'x');
        let text = io::Cursor::new("prompt\n\"").chain(endless);
        let found: Vec<_> = rows(text, b',').collect();
        assert_eq!(found.len(), 1);
        assert!(matches!(&found[0].row, Err(RawProblem::Io(_))));
    }
}
