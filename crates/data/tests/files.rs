//! Files of every format and compression, whole and damaged.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use data::{Example, Message, PromptRow, RowProblem, RowsError, read_examples, read_prompts};
use proptest::prelude::*;
use std::io::Write;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn write(folder: &TempDir, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zst(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

/// Rows as `line id last-turn`, problems as `line reason`.
fn prompts(path: &Path) -> Vec<String> {
    let shown = |row: Result<PromptRow, RowProblem>| match row {
        Ok(row) => {
            let last = &row.messages.last().unwrap().content;
            format!("{} {} {last}", row.line, row.id.unwrap_or_default())
        }
        Err(problem) => format!("{} {}", problem.line(), problem.reason()),
    };
    read_prompts(path).unwrap().map(shown).collect()
}

#[test]
fn the_same_rows_in_every_format_and_compression() {
    let folder = folder();
    let jsonl = "{\"id\": \"1\", \"prompt\": \"ä\"}\n{\"id\": \"2\", \"prompt\": \"b\"}\n";
    let array = "[{\"id\": \"1\", \"prompt\": \"ä\"}, {\"id\": \"2\", \"prompt\": \"b\"}]";
    let (csv, tsv) = ("id,prompt\n1,ä\n2,b\n", "id\tprompt\n1\tä\n2\tb\n");
    let check = |name: &str, bytes: &[u8], lines: [u32; 2]| {
        let expected = [format!("{} 1 ä", lines[0]), format!("{} 2 b", lines[1])];
        let packed = [
            ("", bytes.to_vec()),
            (".gz", gzip(bytes)),
            (".zst", zst(bytes)),
        ];
        for (ending, bytes) in packed {
            // The first bytes count, whatever the name promises.
            for name in [format!("{name}{ending}"), name.to_owned()] {
                let path = write(&folder, &name, &bytes);
                assert_eq!(prompts(&path), expected, "{name}");
            }
        }
    };
    check("a.jsonl", jsonl.as_bytes(), [1, 2]);
    check("a.ndjson", jsonl.as_bytes(), [1, 2]);
    check("a.json", jsonl.as_bytes(), [1, 2]);
    check("a.json", array.as_bytes(), [1, 2]);
    check("a.csv", csv.as_bytes(), [2, 3]);
    check("a.tsv", tsv.as_bytes(), [2, 3]);
    check(
        "marked.jsonl",
        format!("\u{feff}{jsonl}").as_bytes(),
        [1, 2],
    );
    check("marked.json", format!("\u{feff}{array}").as_bytes(), [1, 2]);
    check("marked.csv", format!("\u{feff}{csv}").as_bytes(), [2, 3]);
    let path = write(&folder, "a.txt.gz", gzip("ä\r\n\n b\n".as_bytes()));
    assert_eq!(prompts(&path), ["1  ä", "3  b"]);
    let two_members = [gzip(b"\"a\"\n"), gzip(b"\"b\"\n")].concat();
    let path = write(&folder, "two.jsonl.gz", two_members);
    assert_eq!(prompts(&path), ["1  a", "2  b"]);
}

#[test]
fn files_of_which_nothing_can_be_read() {
    let folder = folder();
    let check = |path: PathBuf, named: &str| {
        let error = match read_prompts(&path) {
            Ok(_) => panic!("{} was opened", path.display()),
            Err(error) => error,
        };
        let text = error.to_string();
        assert!(
            text.contains(named) && text.contains("cannot read"),
            "{text}"
        );
        assert!(matches!(
            error,
            RowsError::Io { .. } | RowsError::Format { .. }
        ));
    };
    check(folder.path().join("none.jsonl"), "none.jsonl");
    check(folder.path().to_owned(), "it is a folder");
    let binary = [0, 159, 146, 150, 1];
    check(write(&folder, "a.bin", binary), "`.bin` is no format known");
    check(write(&folder, "a.json", [0xff, 0xfe, 0x7b, 0]), "UTF-16");
    check(write(&folder, "a.parquet", "PAR1 and no more"), "a.parquet");
    check(
        write(&folder, "b.parquet", "\"text\""),
        "not a Parquet file",
    );
    check(
        write(&folder, "a.jsonl.gz", gzip(b"PAR1....")),
        "compressed Parquet",
    );
}

#[test]
fn bad_rows_cost_only_themselves() {
    let folder = folder();
    let long = format!("\"{}\"", "x".repeat(1 << 20));
    let text = [
        b"{\"prompt\": \"a\"}\n{broken\n\n\x00\x01\xfe\xff\n".as_slice(),
        b"{\"prompt\": 7}\n{\"prompt\": \"\"}\n\"\xff\"\n",
        long.as_bytes(),
        b"\n{\"prompt\": \"b\"}",
    ];
    let found = prompts(&write(&folder, "a.jsonl", text.concat()));
    assert_eq!(found.len(), 8, "{found:?}");
    assert_eq!(found[0], "1  a");
    assert!(found[1].starts_with("2 not JSON: "), "{}", found[1]);
    assert!(found[2].starts_with("4 not JSON"), "{}", found[2]);
    assert_eq!(found[3], "5 `prompt` is neither a string nor a list");
    assert_eq!(found[4], "6  ");
    assert!(found[5].starts_with("7 not JSON"), "{}", found[5]);
    assert_eq!(found[6].len(), (1 << 20) + 3);
    assert_eq!(found[7], "9  b");
}

#[test]
fn a_cut_file_gives_what_is_whole_and_says_so() {
    let folder = folder();
    let rows: String = (0..40_000)
        .map(|row| format!("{{\"prompt\": \"{}\"}}\n", row * 7919 % 2003))
        .collect();
    let packed = [
        ("a.gz", gzip(rows.as_bytes())),
        ("a.zst", zst(rows.as_bytes())),
    ];
    for (name, bytes) in packed {
        let path = write(&folder, name, &bytes[..bytes.len() - 9]);
        let found: Vec<_> = read_prompts(&path).unwrap().collect();
        let (last, whole) = found.split_last().unwrap();
        assert!(matches!(last, Err(RowProblem::Io { .. })), "{name}");
        assert!(whole.iter().all(Result::is_ok), "{name}");
    }
}

#[test]
fn examples_have_places_and_ids() {
    let folder = folder();
    let path = write(
        &folder,
        "pairs.jsonl",
        concat!(
            "{\"prompt\": \"q\", \"chosen\": \"c\", \"rejected\": \"r\"}\n",
            "{\"prompt\": \"q\"}\n",
            "{\"id\": 7, \"prompt\": \"q\", \"completion\": \"r\"}\n",
        ),
    );
    let found: Vec<_> = read_examples(&path).unwrap().collect();
    let first = found[0].as_ref().unwrap();
    assert_eq!((first.id.as_str(), first.line), ("pairs:1", 1));
    assert_eq!(first.file, path);
    let expected = Example::Preference {
        prompt: vec![Message::new("user", "q")],
        chosen: vec![Message::new("assistant", "c")],
        rejected: vec![Message::new("assistant", "r")],
    };
    assert_eq!(first.value, expected);
    let problem = found[1].as_ref().unwrap_err();
    assert_eq!(problem.line(), 2);
    let expected = format!("{}: line 2: no `completion`", path.display());
    assert!(problem.to_string().starts_with(&expected), "{problem}");
    let third = found[2].as_ref().unwrap();
    assert_eq!((third.id.as_str(), third.line), ("7", 3));
}

proptest! {
    /// Whatever the bytes and the name, reading ends, and panics nowhere.
    #[test]
    fn any_bytes_are_read_to_their_end(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        start in prop::sample::select(vec![
            b"".as_slice(), b"[", b"{\"prompt\": \"a\"}\n", b"prompt\n\"", b"\x1f\x8b\x08",
            b"\x28\xb5\x2f\xfd", b"PAR1",
        ]),
        name in prop::sample::select(vec![
            "a.jsonl", "a.json", "a.csv", "a.txt", "a.gz", "a.parquet", "a",
        ]),
    ) {
        let folder = folder();
        let path = write(&folder, name, [start, &bytes].concat());
        if let Ok(rows) = read_examples(&path) {
            prop_assert!(rows.count() < 1000);
        }
    }
}
