//! Seed prompts as the source of a run.

use crate::error::Failure;
use crate::request;
use anyhow::{Context, Result};
use data::{Message, Rejection, RowsError, read_prompts};
use pipeline::Sourced;
use std::fs::File;
use std::io::{BufRead, BufReader, Cursor};
use std::path::PathBuf;

/// Files of prompts, looked at once.
#[derive(Debug)]
pub(crate) struct Seeds {
    /// None: the built-in ones.
    files: Vec<PathBuf>,
    digest: String,
    rows: u64,
}

impl Seeds {
    /// Reads the files once: digest and number of lines.
    ///
    /// # Errors
    /// A file that is missing, or has no line of text.
    pub(crate) fn open(files: &[PathBuf]) -> Result<Self> {
        let mut seeds = Self {
            files: files.to_vec(),
            digest: String::new(),
            rows: 0,
        };
        let (mut hasher, mut lines) = (blake3::Hasher::new(), 0);
        for index in 0..files.len().max(1) {
            let mut reader = seeds.reader(index)?;
            let mut line = Vec::new();
            loop {
                line.clear();
                let read = reader
                    .read_until(b'\n', &mut line)
                    .map_err(|error| seeds.unreadable(index, &error))?;
                if read == 0 {
                    break;
                }
                hasher.update(&line);
                lines += u64::from(!line.trim_ascii().is_empty());
            }
            hasher.update(&[0]);
        }
        if lines == 0 {
            return Err(Failure::input("the seeds have no line of text"));
        }
        seeds.digest = hasher.finalize().to_hex()[..16].to_owned();
        seeds.rows = lines;
        Ok(seeds)
    }

    /// Digest of all files.
    pub(crate) fn digest(&self) -> &str {
        &self.digest
    }

    /// Lines that are not blank.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// The rows from the beginning, read while they are needed.
    ///
    /// # Errors
    /// A file that cannot be opened any more.
    pub(crate) fn rows_of(&self) -> Result<impl Iterator<Item = Sourced<Vec<Message>>> + use<>> {
        let mut sources = Vec::new();
        for index in 0..self.files.len().max(1) {
            let name = self
                .files
                .get(index)
                .map_or("built-in".to_owned(), |path| path.display().to_string());
            sources.push((name, read_prompts(self.reader(index)?)));
        }
        Ok(sources.into_iter().flat_map(|(name, rows)| {
            rows.map(move |row| match row {
                Ok(row) => Sourced {
                    id: row.id.unwrap_or_else(|| content_id(&row.messages)),
                    row: Ok(row.messages),
                },
                Err(error) => {
                    let (RowsError::Io { line, .. } | RowsError::Row { line, .. }) = &error;
                    Sourced {
                        id: format!("{name}:{line}"),
                        row: Err(Rejection::new("read", "unreadable", error.to_string())),
                    }
                }
            })
        }))
    }

    fn reader(&self, index: usize) -> Result<Box<dyn BufRead>> {
        let Some(path) = self.files.get(index) else {
            return Ok(Box::new(Cursor::new(synth::seeds::BUILTIN)));
        };
        let file = File::open(path).map_err(|error| request::unreadable(path, &error))?;
        let metadata = file.metadata();
        if metadata.context("cannot read the seeds")?.is_dir() {
            return Err(Failure::input(format!(
                "cannot read {}: it is a folder",
                path.display()
            )));
        }
        Ok(Box::new(BufReader::with_capacity(1 << 20, file)))
    }

    fn unreadable(&self, index: usize, error: &std::io::Error) -> anyhow::Error {
        let none = PathBuf::from("the built-in seeds");
        request::unreadable(self.files.get(index).unwrap_or(&none), error)
    }
}

/// An id for a row that has none: a hash of what it says.
fn content_id(messages: &[Message]) -> String {
    let mut hasher = blake3::Hasher::new();
    for message in messages {
        for part in [&message.role, &message.content] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
    }
    hasher.finalize().to_hex()[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_rows_are_whole_and_have_ids() {
        let seeds = Seeds::open(&[]).unwrap();
        let rows: Vec<_> = seeds.rows_of().unwrap().collect();
        assert_eq!(rows.len() as u64, seeds.rows());
        assert!(rows.iter().all(|row| row.row.is_ok()));
        let ids: std::collections::BTreeSet<_> = rows.iter().map(|row| &row.id).collect();
        assert_eq!(ids.len(), rows.len());
    }

    #[test]
    fn bad_lines_are_rows_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.jsonl");
        std::fs::write(
            &path,
            "{\"prompt\": \"a\"}\n\nnot json\n{\"prompt\": \"a\"}\n",
        )
        .unwrap();
        let seeds = Seeds::open(std::slice::from_ref(&path)).unwrap();
        let rows: Vec<_> = seeds.rows_of().unwrap().collect();
        assert_eq!((rows.len(), seeds.rows()), (3, 3));
        assert_eq!(rows[0].id, rows[2].id, "the same content");
        let rejection = rows[1].row.as_ref().unwrap_err();
        assert!(rejection.detail.contains("line 3"), "{rejection:?}");
        assert!(Seeds::open(&[folder.path().join("none")]).is_err());
        std::fs::write(&path, "\n\n").unwrap();
        assert!(Seeds::open(&[path]).is_err());
    }
}
