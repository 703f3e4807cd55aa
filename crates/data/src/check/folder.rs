//! A folder as a whole: its files, what its card says of them, and what the registry names.

use super::{CheckReport, Tally, check_file, check_file_with};
use crate::dataset::{
    CARD_FILE, Counts, INFO_FILE, Kind, LLAMAFACTORY_FOLDER, TrainerEntry, read_counts,
};
use crate::rows::RowsError;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Rows that were not accepted, with stage and reason.
const REJECTED_FILE: &str = "rejected.jsonl";

/// Checks the dataset in `folder`, or in `data` below it.
pub(super) fn check(folder: &Path, report: &mut CheckReport) -> Result<(), RowsError> {
    let inner = folder.join("data");
    let folder = if inner.is_dir() && !folder.join(CARD_FILE).exists() {
        inner
    } else {
        folder.to_owned()
    };
    let names = names_in(&folder)?;
    let mut rejected = Tally::new();
    for name in names.iter().filter(|name| name.ends_with(".jsonl")) {
        let path = folder.join(name);
        if name == REJECTED_FILE {
            check_file_with(&path, name, report, |row| {
                let part = |key: &str| row.get(key).and_then(|value| value.as_str());
                let (stage, reason) = (part("stage"), part("reason"));
                let key = format!("{}: {}", stage.unwrap_or("?"), reason.unwrap_or("?"));
                *rejected.entry(key).or_default() += 1;
            })?;
        } else {
            check_file(&path, name, report)?;
        }
    }
    for name in names.iter().filter(|name| name.ends_with(".partial")) {
        report.add(name, None, "left by an export that did not end");
    }
    if report.files.is_empty() {
        report.add(&folder.display().to_string(), None, "no .jsonl file in it");
        return Ok(());
    }
    let own = report.files.len();
    if folder.join(LLAMAFACTORY_FOLDER).is_dir() {
        check_rewritten(&folder.join(LLAMAFACTORY_FOLDER), report)?;
    }
    check_card(&folder, own, &rejected, report);
    check_registry(&folder, own, report);
    Ok(())
}

fn names_in(folder: &Path) -> Result<Vec<String>, RowsError> {
    let io = |source| RowsError::Io {
        path: folder.to_owned(),
        source,
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(io)? {
        names.push(
            entry
                .map_err(io)?
                .file_name()
                .to_string_lossy()
                .into_owned(),
        );
    }
    names.sort();
    Ok(names)
}

/// The rows in LLaMA-Factory's form are those they were made of, as many as they are.
fn check_rewritten(inner: &Path, report: &mut CheckReport) -> Result<(), RowsError> {
    for name in names_in(inner)? {
        let shown = format!("{LLAMAFACTORY_FOLDER}/{name}");
        let source = report.files.iter().find(|file| file.file == name);
        let expected = source.map(|file| file.rows);
        check_file(&inner.join(&name), &shown, report)?;
        let rows = report.files.last().map(|file| file.rows);
        match (rows, expected) {
            (Some(rows), Some(expected)) if rows != expected => {
                report.add(&shown, None, format!("{rows} rows, {name} has {expected}"));
            }
            (_, None) => report.add(&shown, None, format!("there is no {name}")),
            _ => {}
        }
    }
    Ok(())
}

/// The card states every file with its rows, and a funnel that adds up.
fn check_card(folder: &Path, own: usize, rejected: &Tally, report: &mut CheckReport) {
    let card = match fs::read_to_string(folder.join(CARD_FILE)) {
        Ok(card) => card,
        Err(error) => {
            report.add(CARD_FILE, None, format!("cannot be read: {error}"));
            return;
        }
    };
    let Some(counts) = read_counts(&card) else {
        report.add(
            CARD_FILE,
            None,
            "has no table of files or none of how rows ended",
        );
        return;
    };
    let files: BTreeMap<String, u64> = report.files[..own]
        .iter()
        .map(|file| (file.file.clone(), file.rows))
        .collect();
    let what = |name: &str| format!("the rows of {name}");
    compare(&counts.files, &files, what, report);
    check_funnel(&counts, report);
    if files.contains_key(REJECTED_FILE) {
        let what = |reason: &str| format!("the rows of {REJECTED_FILE} rejected at {reason}");
        compare(&counts.rejected, rejected, what, report);
    }
}

/// Says where the card's numbers and those of the files differ.
fn compare(stated: &Tally, found: &Tally, what: impl Fn(&str) -> String, report: &mut CheckReport) {
    for (name, rows) in stated {
        let there = found.get(name).copied().unwrap_or(0);
        if there != *rows {
            let what = what(name);
            report.add(
                CARD_FILE,
                None,
                format!("{what}: {rows} stated, {there} found"),
            );
        }
    }
    for (name, rows) in found.iter().filter(|(name, _)| !stated.contains_key(*name)) {
        let what = what(name);
        report.add(
            CARD_FILE,
            None,
            format!("{what}: none stated, {rows} found"),
        );
    }
}

fn check_funnel(counts: &Counts, report: &mut CheckReport) {
    let of = |name: &str| counts.ended.get(name).copied().unwrap_or(0);
    let rejected: u64 = counts.rejected.values().sum();
    let ended = of("accepted") + rejected + of("unfinished");
    if of("read") != ended {
        let read = of("read");
        report.add(
            CARD_FILE,
            None,
            format!("{read} rows read, but {ended} accepted, rejected and unfinished"),
        );
    }
}

/// Every entry names a file that is there with its columns; every file to train on is named.
fn check_registry(folder: &Path, own: usize, report: &mut CheckReport) {
    let path = folder.join(INFO_FILE);
    let entries = fs::read_to_string(&path)
        .map_err(|error| format!("cannot be read: {error}"))
        .and_then(|text| {
            serde_json::from_str::<BTreeMap<String, TrainerEntry>>(&text)
                .map_err(|error| format!("is no registry: {error}"))
        });
    let entries = match entries {
        Ok(entries) => entries,
        Err(what) => {
            report.add(INFO_FILE, None, what);
            return;
        }
    };
    let checked = report.files.clone();
    for (name, entry) in &entries {
        let file = checked.iter().find(|file| file.file == entry.file_name);
        let what = match file {
            None => format!("`{name}` names {}, which is not there", entry.file_name),
            Some(file) if file.rows == 0 => {
                format!("`{name}` names {}, which is empty", entry.file_name)
            }
            Some(file) if entry.ranking != (file.kind == Kind::Preferences) => {
                format!("`{name}`: ranking is {}, against its rows", entry.ranking)
            }
            Some(_) => match missing_column(&folder.join(&entry.file_name), entry) {
                Some(column) => format!("`{name}`: its rows have no `{column}`"),
                None => continue,
            },
        };
        report.add(INFO_FILE, None, what);
    }
    for file in checked[..own].iter().filter(|file| file.rows > 0) {
        let is_named = entries.values().any(|entry| {
            let rewritten = format!("{LLAMAFACTORY_FOLDER}/{}", file.file);
            [&file.file, &rewritten].contains(&&entry.file_name)
        });
        let is_readable = match file.kind {
            Kind::Preferences => true,
            Kind::Conversations => has_column(&folder.join(&file.file), "messages"),
            Kind::Other => false,
        };
        if is_readable && !is_named {
            report.add(INFO_FILE, None, format!("{} is not named", file.file));
        }
    }
}

/// A column of the entry that the first row has not.
fn missing_column(path: &Path, entry: &TrainerEntry) -> Option<String> {
    let mut columns = entry.columns.values();
    columns.find(|column| !has_column(path, column)).cloned()
}

/// Whether the first row has the column.
fn has_column(path: &Path, column: &str) -> bool {
    let rows = crate::rows::read_rows(path).ok();
    let first = rows.and_then(|mut rows| rows.next()?.ok());
    first.is_some_and(|row| row.value.get(column).is_some())
}
