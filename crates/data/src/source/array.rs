//! Rows of one JSON array, cut at its commas: an element that is no JSON costs only itself.

use super::lines::{not_json, too_long};
use super::{ROW_BYTES_MAX, Raw, RawProblem};
use std::io::{self, BufRead};

/// The rows of an array whose `[` is still to be read.
#[derive(Debug)]
pub(super) struct Rows<R> {
    reader: R,
    row: u64,
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before the `[`.
    Before,
    Inside,
    /// Behind the `]`.
    Behind,
    Done,
}

/// An element up to the comma or bracket behind it.
#[derive(Debug, Default)]
struct Element {
    bytes: Vec<u8>,
    length: u64,
    depth: usize,
    in_text: bool,
    escaped: bool,
}

impl Element {
    /// Whether the byte ends the element; then it is no part of it.
    fn is_ended_by(&mut self, byte: u8) -> bool {
        if self.in_text {
            self.in_text = byte != b'"' || self.escaped;
            self.escaped = byte == b'\\' && !self.escaped;
        } else {
            match byte {
                b',' | b']' if self.depth == 0 => return true,
                b'"' => self.in_text = true,
                b'[' | b'{' => self.depth += 1,
                b']' | b'}' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
        self.length += 1;
        if self.bytes.len() < ROW_BYTES_MAX {
            self.bytes.push(byte);
        }
        false
    }

    fn is_blank(&self) -> bool {
        self.bytes.trim_ascii().is_empty()
    }

    fn finish(&self) -> Result<serde_json::Value, RawProblem> {
        if self.length > ROW_BYTES_MAX as u64 {
            return Err(RawProblem::Row(too_long(self.length)));
        }
        serde_json::from_slice(self.bytes.trim_ascii())
            .map_err(|error| RawProblem::Row(not_json(&error)))
    }
}

impl<R: BufRead> Rows<R> {
    pub(super) fn new(reader: R) -> Self {
        Self {
            reader,
            row: 0,
            place: Place::Before,
        }
    }

    /// The next byte, or the end of the document.
    fn peek(&mut self) -> io::Result<Option<u8>> {
        loop {
            match self.reader.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other.map(|buffer| buffer.first().copied()),
            }
        }
    }

    /// Passes blanks, then gives the next byte.
    fn peek_visible(&mut self) -> io::Result<Option<u8>> {
        loop {
            match self.peek()? {
                Some(byte) if byte.is_ascii_whitespace() => self.reader.consume(1),
                other => return Ok(other),
            }
        }
    }

    /// Reads one element and the comma behind it.
    fn element(&mut self) -> io::Result<Option<Result<serde_json::Value, RawProblem>>> {
        let mut element = Element::default();
        loop {
            let buffer = match self.reader.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            if buffer.is_empty() {
                self.place = Place::Done;
                let reason = "the file ends within the array";
                return Ok(Some(Err(RawProblem::Row(reason.into()))));
            }
            let Some(end) = buffer.iter().position(|byte| element.is_ended_by(*byte)) else {
                let read = buffer.len();
                self.reader.consume(read);
                continue;
            };
            let is_last = buffer[end] == b']';
            self.reader.consume(end + 1);
            if is_last {
                self.place = Place::Behind;
            }
            // `[]`, or a comma before the bracket.
            if is_last && element.is_blank() {
                return Ok(None);
            }
            return Ok(Some(element.finish()));
        }
    }

    fn read(&mut self) -> io::Result<Option<Result<serde_json::Value, RawProblem>>> {
        if self.place == Place::Before {
            self.peek_visible()?;
            self.reader.consume(1);
            self.place = Place::Inside;
        }
        if self.place == Place::Inside
            && let Some(row) = self.element()?
        {
            return Ok(Some(row));
        }
        if self.place == Place::Behind {
            self.place = Place::Done;
            if self.peek_visible()?.is_some() {
                let reason = "the file goes on behind the array; nothing of that is read";
                return Ok(Some(Err(RawProblem::Row(reason.into()))));
            }
        }
        Ok(None)
    }
}

impl<R: BufRead> Iterator for Rows<R> {
    type Item = Raw;

    fn next(&mut self) -> Option<Raw> {
        if self.place == Place::Done {
            return None;
        }
        let row = self.read().unwrap_or_else(|error| {
            self.place = Place::Done;
            Some(Err(RawProblem::Io(error)))
        })?;
        self.row += 1;
        Some(Raw {
            line: self.row,
            row,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufReader;

    /// Rows as JSON, problems as their text; read whole and byte by byte.
    fn check(text: &str, expected: &[&str]) {
        for capacity in [1, 3, 1 << 16] {
            let reader = BufReader::with_capacity(capacity, text.as_bytes());
            let found: Vec<String> = Rows::new(reader)
                .map(|raw| match raw.row {
                    Ok(value) => format!("{} {value}", raw.line),
                    Err(RawProblem::Row(why)) => format!("{} {why}", raw.line),
                    Err(RawProblem::Io(error)) => panic!("{error}"),
                })
                .collect();
            assert_eq!(found.len(), expected.len(), "{text}: {found:?}");
            for (found, expected) in found.iter().zip(expected) {
                assert!(found.starts_with(expected), "{text}: {found}");
            }
        }
    }

    #[test]
    fn elements_are_cut_at_the_outer_commas() {
        check("[]", &[]);
        check(" [ ] \n", &[]);
        check("[1,2]", &["1 1", "2 2"]);
        check(
            r#" [ {"a": ["],", {"b": "\\"}]}, "x\",]" , null,] "#,
            &[r#"1 {"a":["],",{"b":"\\"}]}"#, r#"2 "x\",]""#, "3 null"],
        );
    }

    #[test]
    fn what_is_broken_costs_only_itself() {
        check("[{x}, 2]", &["1 not JSON", "2 2"]);
        check("[1,,2]", &["1 1", "2 not JSON", "3 2"]);
        check("[1, {\"a\": 2", &["1 1", "2 the file ends"]);
        check("[1] 2", &["1 1", "2 the file goes on"]);
        check("[", &["1 the file ends"]);
    }
}
