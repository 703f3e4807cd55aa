//! Rows of a delimited text, as Python's `csv.reader` reads them with its default dialect.
//!
//! It accepts nearly everything: quotes count only at the start of a field, text after a closing
//! quote is kept, an open quote ends with the text. Source: the state machine that its
//! documentation describes, tried against CPython 3.11.

/// Longest field that the original reads, in characters.
const FIELD_LIMIT: usize = 131_072;

/// Why a text has no rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum CsvError {
    /// A carriage return inside a line, outside quotes.
    #[error("a carriage return inside a row")]
    BareCarriageReturn,
    /// A field above [`FIELD_LIMIT`].
    #[error("a field of more than {FIELD_LIMIT} characters")]
    FieldTooLong,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    StartRecord,
    StartField,
    InField,
    InQuotes,
    QuoteInQuotes,
    AfterLineEnd,
}

/// Rows of fields. A blank line is a row without fields.
pub(super) fn rows(text: &str, delimiter: char) -> Result<Vec<Vec<String>>, CsvError> {
    let mut reader = Reader {
        delimiter,
        state: State::StartRecord,
        field: String::new(),
        field_chars: 0,
        row: Vec::new(),
    };
    let mut rows = Vec::new();
    for line in text.split_inclusive('\n') {
        for c in line.chars() {
            reader.push(c)?;
        }
        reader.end_of_line();
        if reader.state == State::StartRecord {
            rows.push(std::mem::take(&mut reader.row));
        }
    }
    if reader.state != State::StartRecord {
        reader.save();
        rows.push(reader.row);
    }
    Ok(rows)
}

struct Reader {
    delimiter: char,
    state: State,
    field: String,
    field_chars: usize,
    row: Vec<String>,
}

impl Reader {
    fn push(&mut self, c: char) -> Result<(), CsvError> {
        let line_end = matches!(c, '\n' | '\r');
        match self.state {
            State::StartRecord if line_end => self.state = State::AfterLineEnd,
            State::AfterLineEnd if line_end => {}
            State::AfterLineEnd => return Err(CsvError::BareCarriageReturn),
            State::InQuotes if c == '"' => self.state = State::QuoteInQuotes,
            State::InQuotes => self.add(c)?,
            State::QuoteInQuotes if c == '"' => {
                self.state = State::InQuotes;
                self.add(c)?;
            }
            _ if line_end => {
                self.save();
                self.state = State::AfterLineEnd;
            }
            _ if c == self.delimiter => {
                self.save();
                self.state = State::StartField;
            }
            State::StartRecord | State::StartField if c == '"' => self.state = State::InQuotes,
            _ => {
                self.state = State::InField;
                self.add(c)?;
            }
        }
        Ok(())
    }

    fn end_of_line(&mut self) {
        match self.state {
            State::InQuotes => {}
            State::StartRecord | State::AfterLineEnd => self.state = State::StartRecord,
            State::StartField | State::InField | State::QuoteInQuotes => {
                self.save();
                self.state = State::StartRecord;
            }
        }
    }

    fn add(&mut self, c: char) -> Result<(), CsvError> {
        if self.field_chars == FIELD_LIMIT {
            return Err(CsvError::FieldTooLong);
        }
        self.field_chars += 1;
        self.field.push(c);
        Ok(())
    }

    fn save(&mut self) {
        self.row.push(std::mem::take(&mut self.field));
        self.field_chars = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::{CsvError, FIELD_LIMIT, rows};

    fn check(text: &str, expected: &[&[&str]]) {
        assert_eq!(rows(text, ',').unwrap(), expected, "{text:?}");
    }

    #[test]
    fn reads_what_python_reads() {
        check("", &[]);
        check("a,b\n", &[&["a", "b"]]);
        check("a,\n\nb", &[&["a", ""], &[], &["b"]]);
        check("a\r\nb\r", &[&["a"], &["b"]]);
        check("\"a,\n\"\"b\"c\",d\"e\"", &[&["a,\n\"bc\"", "d\"e\""]]);
        check("\"", &[&[""]]);
        check("a,\"b\n\n", &[&["a", "b\n\n"]]);
    }

    #[test]
    fn refuses_what_python_refuses() {
        assert_eq!(rows("a\rb", ','), Err(CsvError::BareCarriageReturn));
        assert_eq!(rows("\rb", ','), Err(CsvError::BareCarriageReturn));
        let long = "x".repeat(FIELD_LIMIT);
        assert!(rows(&long, ',').is_ok());
        assert_eq!(rows(&format!("{long}x"), ','), Err(CsvError::FieldTooLong));
    }
}
