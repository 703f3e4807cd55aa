//! Rows of a file as JSON values, one after the other: JSONL, a JSON array, CSV, Parquet or
//! plain text, plain or compressed with gzip or zstd. What a row means is not known here.
//!
//! The first bytes decide, then the name: compression and Parquet have magic numbers, CSV
//! and plain text are known by their ending, and a document that begins with `[` is an array.
//! Only the row at hand is in memory (of Parquet, a page of each column).

mod array;
mod lines;
#[cfg(feature = "parquet")]
mod parquet;
mod table;

use crate::rows::RowsError;
use serde_json::Value;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read, Seek};
use std::path::Path;

/// Bytes of a row at most; a longer one is a problem of its own, and is not held in memory.
const ROW_BYTES_MAX: usize = 64 << 20;
/// Bytes read at once.
const READ_BYTES: usize = 1 << 20;

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const PARQUET: &[u8] = b"PAR1";
const UTF16: [&[u8]; 2] = [&[0xff, 0xfe], &[0xfe, 0xff]];
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// A row as it stands in its file.
#[derive(Debug)]
pub(crate) struct Raw {
    /// Line on which it begins, from 1; of arrays and Parquet files, which row it is.
    pub(crate) line: u64,
    pub(crate) row: Result<Value, RawProblem>,
}

/// Why there is no row.
#[derive(Debug)]
pub(crate) enum RawProblem {
    /// Nothing that follows can be read either.
    Io(io::Error),
    /// This row only.
    Row(String),
}

/// Rows of an open file; ends after a [`RawProblem::Io`].
pub(crate) type RawRows = Box<dyn Iterator<Item = Raw>>;

/// What the rows of a document look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Lines,
    Array,
    Table { delimiter: u8 },
    Text,
}

/// Opens a file of any known format.
///
/// # Errors
/// A file that cannot be opened, a folder, or a format that is not known.
pub(crate) fn open(path: &Path) -> Result<RawRows, RowsError> {
    let io = |source| RowsError::Io {
        path: path.to_owned(),
        source,
    };
    let mut file = File::open(path).map_err(io)?;
    if file.metadata().map_err(io)?.is_dir() {
        return Err(RowsError::format(path, "it is a folder"));
    }
    let mut magic = Vec::new();
    (&mut file).take(4).read_to_end(&mut magic).map_err(io)?;
    if magic == PARQUET {
        file.rewind().map_err(io)?;
        return open_parquet(file, path);
    }
    // Pipes cannot go back, so what was read is put in front again.
    open_stream(Cursor::new(magic).chain(file), path)
}

/// Rows of a stream; `name` may say which format it has.
///
/// # Errors
/// A stream that cannot be read, or a format that is not known.
pub(crate) fn open_stream(
    mut stream: impl Read + 'static,
    name: &Path,
) -> Result<RawRows, RowsError> {
    let io = |source| RowsError::Io {
        path: name.to_owned(),
        source,
    };
    let mut magic = Vec::new();
    (&mut stream).take(4).read_to_end(&mut magic).map_err(io)?;
    let compressed = magic.starts_with(GZIP) || magic == ZSTD;
    let is_zstd = magic == ZSTD;
    let whole = Cursor::new(magic).chain(stream);
    let plain: Box<dyn Read> = if is_zstd {
        Box::new(zstd::stream::read::Decoder::new(whole).map_err(io)?)
    } else if compressed {
        Box::new(flate2::read::MultiGzDecoder::new(whole))
    } else {
        Box::new(whole)
    };
    let mut reader = BufReader::with_capacity(READ_BYTES, plain);
    let head = reader.fill_buf().map_err(io)?;
    if compressed && head.starts_with(PARQUET) {
        return Err(RowsError::format(
            name,
            "compressed Parquet; decompress it first",
        ));
    }
    if UTF16.iter().any(|mark| head.starts_with(mark)) {
        return Err(RowsError::format(name, "UTF-16; convert it to UTF-8"));
    }
    let mark = if head.starts_with(BYTE_ORDER_MARK) {
        BYTE_ORDER_MARK.len()
    } else {
        0
    };
    let format = format_of(&ending(name), &head[mark..])
        .map_err(|reason| RowsError::format(name, reason))?;
    reader.consume(mark);
    Ok(match format {
        Format::Lines => Box::new(lines::rows(reader, lines::Line::Json)),
        Format::Text => Box::new(lines::rows(reader, lines::Line::Text)),
        Format::Array => Box::new(array::Rows::new(reader)),
        Format::Table { delimiter } => Box::new(table::rows(reader, delimiter)),
    })
}

/// The ending of a name in small letters, below `.gz` or `.zst`; empty if there is none.
fn ending(name: &Path) -> String {
    let of = |path: &Path| {
        path.extension()
            .map(|ending| ending.to_string_lossy().to_ascii_lowercase())
            .unwrap_or_default()
    };
    match of(name).as_str() {
        "gz" | "gzip" | "zst" | "zstd" => of(Path::new(name.file_stem().unwrap_or_default())),
        other => other.to_owned(),
    }
}

fn format_of(ending: &str, head: &[u8]) -> Result<Format, String> {
    let first = head.iter().find(|byte| !byte.is_ascii_whitespace());
    match (ending, first) {
        ("csv", _) => Ok(Format::Table { delimiter: b',' }),
        ("tsv", _) => Ok(Format::Table { delimiter: b'\t' }),
        ("txt" | "text", _) => Ok(Format::Text),
        ("jsonl" | "ndjson", _) => Ok(Format::Lines),
        ("parquet", Some(_)) => Err("not a Parquet file".into()),
        (_, Some(b'[')) => Ok(Format::Array),
        // Without a name (a pipe) or with one that promises JSON, a bad line is a bad row.
        ("" | "json" | "parquet", _) | (_, Some(b'{' | b'"') | None) => Ok(Format::Lines),
        _ => Err(format!(
            "`.{ending}` is no format known here, and it is not JSON; there are .jsonl, .json, .csv, .tsv, .parquet and .txt, each also with .gz or .zst"
        )),
    }
}

#[cfg(feature = "parquet")]
fn open_parquet(file: File, path: &Path) -> Result<RawRows, RowsError> {
    parquet::rows(file).map_err(|reason| RowsError::format(path, reason))
}

#[cfg(not(feature = "parquet"))]
fn open_parquet(_file: File, path: &Path) -> Result<RawRows, RowsError> {
    Err(RowsError::format(
        path,
        "a Parquet file, and this build reads none (feature `parquet`)",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_first_bytes_decide() {
        let check = |name: &str, head: &str, expected: Option<Format>| {
            let found = format_of(&ending(Path::new(name)), head.as_bytes());
            assert_eq!(found.ok(), expected, "{name} {head}");
        };
        let commas = Format::Table { delimiter: b',' };
        let tabs = Format::Table { delimiter: b'\t' };
        check("a.jsonl", "x", Some(Format::Lines));
        check("a.jsonl", "[", Some(Format::Lines));
        check("a.JSON.gz", "\n [", Some(Format::Array));
        check("a.json", "{", Some(Format::Lines));
        check("a.csv.zst", "{", Some(commas));
        check("a.tsv", "", Some(tabs));
        check("a.txt", "[", Some(Format::Text));
        check("-", "{", Some(Format::Lines));
        check("-", "oops", Some(Format::Lines));
        check("a", "[", Some(Format::Array));
        check("a.data", "{", Some(Format::Lines));
        check("a.data", "hello", None);
        check("a.parquet", "hello", None);
    }
}
