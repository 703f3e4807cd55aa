//! Finding and reading a benchmark's files and files of responses.

use super::{Party, unusable};
use crate::error::Failure;
use crate::session;
use ::eval::{Answers, Benchmark, Source, Suite};
use anyhow::Result;
use std::fs::{self, File};
use std::io::{BufReader, ErrorKind};
use std::path::{Path, PathBuf};

/// Folder of IFEval's data set in a Hugging Face cache.
const IFEVAL_IN_CACHE: &str = "datasets--google--IFEval";
/// Folders below `--data` that are looked into.
const DEPTH_MAX: usize = 4;

/// A file of the benchmark, read whole.
pub(super) struct DataFile {
    name: String,
    bytes: Vec<u8>,
}

/// Reads the benchmark's files: those named, or those of a folder named.
///
/// # Errors
/// Nothing named and nothing in the cache; a file that cannot be read.
pub(super) fn data_files(suite: Suite, named: &[PathBuf]) -> Result<Vec<DataFile>> {
    let paths = if named.is_empty() {
        vec![in_cache(suite)?]
    } else {
        let mut paths = Vec::new();
        for path in named {
            paths.extend(files_below(suite, path)?);
        }
        paths
    };
    paths.iter().map(|path| read(path)).collect()
}

/// Digest of the files' content.
pub(super) fn digest(files: &[DataFile]) -> String {
    let mut hasher = blake3::Hasher::new();
    for file in files {
        hasher.update(&(file.bytes.len() as u64).to_le_bytes());
        hasher.update(&file.bytes);
    }
    hasher.finalize().to_hex()[..16].to_owned()
}

/// The files as a benchmark.
///
/// # Errors
/// What in which line cannot be used.
pub(super) fn load(suite: Suite, files: &[DataFile], release: &str) -> Result<Benchmark> {
    let sources = files.iter().map(|file| Source {
        name: file.name.clone(),
        reader: Box::new(file.bytes.as_slice()),
    });
    ::eval::load(suite, sources.collect(), release).map_err(|error| unusable(&error))
}

/// A file of responses that this argument means: a file that is no model, or a run's folder.
pub(super) fn responses_file(argument: &str) -> Option<PathBuf> {
    let path = Path::new(argument);
    let of_run = path.join("data").join(::eval::recipe::RESPONSES_FILE);
    if of_run.is_file() {
        return Some(of_run);
    }
    let is_model = path.extension().is_some_and(|end| end == "gguf");
    (path.is_file() && !is_model).then(|| path.to_owned())
}

/// Answers from a file, named after it.
///
/// # Errors
/// A file that cannot be read or has a line that is no response.
pub(super) fn party(path: &Path) -> Result<Party> {
    Ok(Party {
        name: name_of(path),
        answers: answers(path)?,
    })
}

/// Answers from a file.
///
/// # Errors
/// As [`party`].
pub(super) fn answers(path: &Path) -> Result<Answers> {
    let file = File::open(path).map_err(|error| unreadable(path, &error))?;
    Answers::read(&path.display().to_string(), BufReader::new(file))
        .map_err(|error| unusable(&error))
}

/// The file's name without its ending; for a run's file, the run's.
fn name_of(path: &Path) -> String {
    let of_run = path.ends_with(Path::new("data").join(::eval::recipe::RESPONSES_FILE));
    let named = if of_run {
        path.ancestors().nth(2).and_then(Path::file_name)
    } else {
        path.file_name()
    };
    let name = named.map_or("responses".into(), |name| {
        name.to_string_lossy().into_owned()
    });
    match name.strip_suffix(".jsonl") {
        Some(stem) => stem.to_owned(),
        None => name,
    }
}

fn in_cache(suite: Suite) -> Result<PathBuf> {
    if suite != Suite::IfEval {
        return Err(Failure::usage(format!(
            "eval {} needs --data PATH: its files are not found by themselves",
            suite.name().replace('_', "-")
        )));
    }
    let cache = session::hub_cache();
    let folder = cache.root().join(IFEVAL_IN_CACHE);
    let commit = fs::read_to_string(folder.join("refs").join("main")).unwrap_or_default();
    let snapshots = folder.join("snapshots");
    let preferred = snapshots.join(commit.trim());
    let mut candidates = if commit.trim().is_empty() {
        Vec::new()
    } else {
        vec![preferred]
    };
    candidates.extend(entries(&snapshots));
    let mut files = candidates
        .iter()
        .flat_map(|snapshot| entries(snapshot))
        .filter(|path| path.extension().is_some_and(|end| end == "jsonl"));
    files.next().ok_or_else(|| {
        Failure::missing(format!(
            "IFEval's prompts are not in the Hugging Face cache (looked in {}); on a connected machine: hf download google/IFEval --repo-type dataset, or give the file with --data",
            folder.display()
        ))
    })
}

/// The file itself, or the files of a folder that can be the benchmark's, in order of path.
fn files_below(suite: Suite, path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let fits = |file: &Path| {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        match suite {
            Suite::LiveBench => name.ends_with("question.jsonl"),
            Suite::MultiIf => name.ends_with(".csv"),
            Suite::IfEval | Suite::IfBench => name.ends_with(".jsonl"),
        }
    };
    let mut found = Vec::new();
    let mut folders = vec![(path.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in entries(&folder) {
            if entry.is_dir() && depth < DEPTH_MAX {
                folders.push((entry, depth + 1));
            } else if entry.is_file() && fits(&entry) {
                found.push(entry);
            }
        }
    }
    found.sort();
    match (suite, found.len()) {
        (_, 0) => Err(Failure::missing(format!(
            "{}: no files of {} in this folder",
            path.display(),
            suite.name()
        ))),
        (Suite::LiveBench, _) | (_, 1) => Ok(found),
        (_, count) => Err(Failure::usage(format!(
            "{}: {count} files could be meant; give the one with --data FILE",
            path.display()
        ))),
    }
}

/// What a folder holds, in order of name; nothing if it cannot be read.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn read(path: &Path) -> Result<DataFile> {
    let bytes = fs::read(path).map_err(|error| unreadable(path, &error))?;
    Ok(DataFile {
        name: path.display().to_string(),
        bytes,
    })
}

fn unreadable(path: &Path, error: &std::io::Error) -> anyhow::Error {
    let message = format!("cannot read {}: {error}", path.display());
    match error.kind() {
        ErrorKind::NotFound => Failure::missing(message),
        _ => Failure::input(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_after_what_they_hold() {
        for (path, name) in [
            ("a/gpt4.jsonl", "gpt4"),
            ("runs/mine/data/responses.jsonl", "mine"),
            ("other", "other"),
        ] {
            assert_eq!(name_of(Path::new(path)), name);
        }
    }

    #[test]
    fn a_folder_of_questions_is_read_in_order() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b/question.jsonl", "a.question.jsonl", "a.results.jsonl"] {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let found = files_below(Suite::LiveBench, folder.path()).unwrap();
        let names: Vec<_> = found
            .iter()
            .map(|path| path.strip_prefix(folder.path()).unwrap().to_owned())
            .collect();
        assert_eq!(
            names,
            [PathBuf::from("a.question.jsonl"), "b/question.jsonl".into()]
        );
        assert!(files_below(Suite::MultiIf, folder.path()).is_err());
        assert!(
            files_below(Suite::IfEval, folder.path()).is_err(),
            "several"
        );
    }
}
