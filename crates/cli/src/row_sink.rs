//! Where finished rows go: standard output, a device, or a file that appears whole.
//!
//! Rows of a file are written one by one to `FILE.partial`, which becomes FILE when all
//! are there. What a stopped run leaves there, `--resume` continues.

use crate::error::Failure;
use crate::output;
use crate::rows::OutputRow;
use anyhow::{Context, Result};
use serde::Deserialize;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

/// Finished rows of an earlier run.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Resumed {
    /// Rows that are already there.
    pub(crate) rows: usize,
    /// Line in the source of the last of them; 0 = none.
    pub(crate) last_line: usize,
}

/// An open destination.
#[derive(Debug)]
pub(crate) struct RowSink {
    destination: Destination,
    resumed: Resumed,
}

#[derive(Debug)]
enum Destination {
    Stdout,
    /// Something that is no regular file: written as it is.
    Device(File, PathBuf),
    Partial {
        file: File,
        partial: PathBuf,
        path: PathBuf,
    },
}

impl RowSink {
    /// Proves that the destination can be written, before anything expensive happens.
    /// `None` and `-` are standard output.
    ///
    /// # Errors
    /// A path that cannot be written; an unfinished run that is neither continued nor removed.
    pub(crate) fn open(path: Option<&Path>, resume: Resume) -> Result<Self> {
        let Some(path) = path.filter(|path| *path != Path::new("-")) else {
            return Ok(Self {
                destination: Destination::Stdout,
                resumed: Resumed::default(),
            });
        };
        let cannot = || format!("cannot write {}", path.display());
        if path.is_dir() {
            return Err(Failure::usage(format!(
                "cannot write {}: it is a folder",
                path.display()
            )));
        }
        if path.exists() && !path.is_file() {
            let file = OpenOptions::new()
                .write(true)
                .open(path)
                .with_context(cannot)?;
            return Ok(Self {
                destination: Destination::Device(file, path.into()),
                resumed: Resumed::default(),
            });
        }
        let mut name = path.as_os_str().to_owned();
        name.push(".partial");
        let partial = PathBuf::from(name);
        let resumed = match (resume, partial.exists()) {
            (Resume::Yes, true) => keep_whole_rows(&partial)?,
            (Resume::No, true) => {
                return Err(Failure::usage(format!(
                    "{} is left from a run that was stopped: add --resume to continue it, or remove it",
                    partial.display()
                )));
            }
            (_, false) => Resumed::default(),
        };
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&partial)
            .with_context(cannot)?;
        Ok(Self {
            destination: Destination::Partial {
                file,
                partial,
                path: path.into(),
            },
            resumed,
        })
    }

    /// What an earlier run left.
    pub(crate) fn resumed(&self) -> Resumed {
        self.resumed
    }

    /// Adds a row; once this returns the row survives the end of the program.
    ///
    /// # Errors
    /// What the system says, a full disk for one.
    pub(crate) fn write(&mut self, row: &OutputRow<'_>) -> Result<()> {
        let line = serde_json::to_string(row)?;
        let (file, path) = match &mut self.destination {
            Destination::Stdout => return Ok(output::print_line(&line)?),
            Destination::Device(file, path) => (file, &*path),
            Destination::Partial { file, partial, .. } => (file, &*partial),
        };
        file.write_all(format!("{line}\n").as_bytes())
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// All rows are there: the file takes its name.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn finish(self) -> Result<()> {
        let Destination::Partial {
            file,
            partial,
            path,
        } = self.destination
        else {
            return Ok(());
        };
        file.sync_all()
            .with_context(|| format!("cannot write {}", partial.display()))?;
        std::fs::rename(&partial, &path)
            .with_context(|| format!("cannot rename {} to {}", partial.display(), path.display()))
    }

    /// Takes an unused file away again; one that holds rows stays.
    pub(crate) fn discard_if_empty(self) {
        if let Destination::Partial { file, partial, .. } = self.destination
            && file.metadata().is_ok_and(|metadata| metadata.len() == 0)
        {
            drop(std::fs::remove_file(partial));
        }
    }
}

/// Whether rows of an earlier run are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resume {
    Yes,
    No,
}

/// Counts the whole rows of an unfinished file and cuts off a row that is not whole.
fn keep_whole_rows(path: &Path) -> Result<Resumed> {
    #[derive(Deserialize)]
    struct Line {
        line: usize,
    }
    let context = || format!("cannot continue {}", path.display());
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .with_context(context)?;
    let mut reader = BufReader::new(&file);
    let mut resumed = Resumed::default();
    let (mut text, mut whole) = (Vec::new(), 0);
    loop {
        text.clear();
        let count = reader.read_until(b'\n', &mut text).with_context(context)?;
        if count == 0 || !text.ends_with(b"\n") {
            break;
        }
        let row: Line = serde_json::from_slice(&text).map_err(|error| {
            Failure::input(format!(
                "{}: row {}: {error}",
                path.display(),
                resumed.rows + 1
            ))
        })?;
        whole += count as u64;
        resumed = Resumed {
            rows: resumed.rows + 1,
            last_line: row.line,
        };
    }
    file.set_len(whole).with_context(context)?;
    Ok(resumed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(line: usize) -> OutputRow<'static> {
        OutputRow {
            line,
            id: None,
            seed: 1,
            completions: &[],
        }
    }

    #[test]
    fn a_file_appears_only_when_finished() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.jsonl");
        let mut sink = RowSink::open(Some(&path), Resume::No).unwrap();
        sink.write(&row(1)).unwrap();
        assert!(!path.exists());
        sink.finish().unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "{\"line\":1,\"id\":null,\"seed\":1,\"completions\":[]}\n"
        );
        assert!(!folder.path().join("out.jsonl.partial").exists());
    }

    #[test]
    fn a_stopped_run_is_continued_without_its_torn_row() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.jsonl");
        let mut sink = RowSink::open(Some(&path), Resume::No).unwrap();
        for line in [1, 3] {
            sink.write(&row(line)).unwrap();
        }
        drop(sink);
        let partial = folder.path().join("out.jsonl.partial");
        let mut file = OpenOptions::new().append(true).open(&partial).unwrap();
        file.write_all(b"{\"line\":4,\"id\"").unwrap();
        let refused = RowSink::open(Some(&path), Resume::No).unwrap_err();
        assert!(refused.to_string().contains("--resume"), "{refused}");
        let mut sink = RowSink::open(Some(&path), Resume::Yes).unwrap();
        assert_eq!(
            sink.resumed(),
            Resumed {
                rows: 2,
                last_line: 3
            }
        );
        sink.write(&row(4)).unwrap();
        sink.finish().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().map(|line| &line[..9]).collect();
        assert_eq!(lines, ["{\"line\":1", "{\"line\":3", "{\"line\":4"]);
    }

    #[test]
    fn an_empty_file_is_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.jsonl");
        RowSink::open(Some(&path), Resume::No)
            .unwrap()
            .discard_if_empty();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_is_no_destination() {
        let folder = tempfile::tempdir().unwrap();
        assert!(RowSink::open(Some(folder.path()), Resume::No).is_err());
        assert!(RowSink::open(Some(&folder.path().join("no/such/file")), Resume::No).is_err());
    }
}
