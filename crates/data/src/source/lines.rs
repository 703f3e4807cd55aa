//! One row per line.

use super::{ROW_BYTES_MAX, Raw, RawProblem};
use serde_json::Value;
use std::io::{self, BufRead};

/// What a line holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    Json,
    /// The row is the text itself.
    Text,
}

/// Rows of a document; blank lines are none.
pub(super) fn rows(mut reader: impl BufRead, kind: Line) -> impl Iterator<Item = Raw> {
    let (mut line, mut bytes, mut failed) = (0, Vec::new(), false);
    std::iter::from_fn(move || {
        while !failed {
            line += 1;
            let row = match read_line(&mut reader, &mut bytes) {
                Err(error) => {
                    failed = true;
                    Err(RawProblem::Io(error))
                }
                Ok(Read::End) => return None,
                Ok(Read::TooLong(length)) => Err(RawProblem::Row(too_long(length))),
                Ok(Read::Line) if bytes.trim_ascii().is_empty() => continue,
                Ok(Read::Line) => value(&bytes, kind).map_err(RawProblem::Row),
            };
            return Some(Raw { line, row });
        }
        None
    })
}

fn value(bytes: &[u8], kind: Line) -> Result<Value, String> {
    match kind {
        Line::Json => serde_json::from_slice(bytes).map_err(|error| not_json(&error)),
        Line::Text => std::str::from_utf8(bytes)
            .map(|text| Value::String(text.trim().to_owned()))
            .map_err(|error| format!("not UTF-8: {error}")),
    }
}

/// What the parser said of a row that is JSON for itself: its lines are not the file's.
pub(super) fn not_json(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text
        .split_once(" at line ")
        .map_or(text.as_str(), |(text, _)| text);
    format!("not JSON: {text} at column {}", error.column())
}

/// What is said of a row that is not held in memory.
pub(super) fn too_long(length: u64) -> String {
    format!("{length} bytes, at most {ROW_BYTES_MAX} in a row")
}

enum Read {
    Line,
    TooLong(u64),
    End,
}

/// Reads a line into `bytes`, of one that is too long only the beginning.
fn read_line(reader: &mut impl BufRead, bytes: &mut Vec<u8>) -> io::Result<Read> {
    bytes.clear();
    let mut length = 0;
    loop {
        let buffer = match reader.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let part = &buffer[..end.unwrap_or(buffer.len())];
        let ends = end.is_some() || buffer.is_empty();
        if buffer.is_empty() && length == 0 {
            return Ok(Read::End);
        }
        length += part.len() as u64;
        if bytes.len() + part.len() <= ROW_BYTES_MAX {
            bytes.extend_from_slice(part);
        }
        let used = part.len() + usize::from(end.is_some());
        reader.consume(used);
        if ends {
            return Ok(if length > ROW_BYTES_MAX as u64 {
                Read::TooLong(length)
            } else {
                Read::Line
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_where_they_end() {
        let check = |text: &str, expected: &[(u64, &str)]| {
            let found: Vec<_> = rows(text.as_bytes(), Line::Text)
                .map(|raw| (raw.line, raw.row.unwrap()))
                .collect();
            let expected: Vec<_> = expected
                .iter()
                .map(|(line, text)| (*line, Value::from(*text)))
                .collect();
            assert_eq!(found, expected, "{text:?}");
        };
        check("", &[]);
        check("a", &[(1, "a")]);
        check("\n\n a\r\n\nb\n", &[(3, "a"), (5, "b")]);
    }

    #[test]
    fn what_is_too_long_is_passed() {
        let mut text = vec![b'x'; ROW_BYTES_MAX + 5];
        text.extend(b"\n7\n");
        let found: Vec<_> = rows(text.as_slice(), Line::Json).collect();
        assert_eq!(found.len(), 2);
        assert!(matches!(&found[0].row, Err(RawProblem::Row(why)) if why.contains("at most")));
        assert_eq!(found[1].row.as_ref().unwrap(), &Value::from(7));
    }
}
