//! Validates a dataset: each row for itself, the rows of a file against each other, and the
//! files of a folder against its card and its registry.

mod folder;
mod shape;

use crate::dataset::Kind;
use crate::forms;
use crate::rows::{RowsError, read_rows};
use crate::{Example, Message};
use serde::Serialize;
use serde_json::Value;
use shape::Shape;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

/// Findings kept per file; the others are counted.
const FINDINGS_KEPT: usize = 20;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The file.
    pub file: String,
    /// Line, from 1; `None` where it is about the whole file.
    pub line: Option<u64>,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.what),
            None => write!(f, "{}: {}", self.file, self.what),
        }
    }
}

/// What was found in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileCheck {
    /// The file, as it was named.
    pub file: String,
    /// Rows, the damaged ones included.
    pub rows: u64,
    /// What its rows are for.
    pub kind: Kind,
    /// Of preferences: pairs whose chosen answer is the longer one, in characters.
    pub chosen_longer: u64,
    /// Things that are wrong in this file.
    pub problems: u64,
}

/// What was found in a dataset.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// Each file, by name.
    pub files: Vec<FileCheck>,
    /// The first things that are wrong, file by file.
    pub findings: Vec<Finding>,
    /// Things that are wrong, in all.
    pub problems: u64,
}

impl CheckReport {
    fn add(&mut self, file: &str, line: Option<u64>, what: impl Into<String>) {
        self.problems += 1;
        let kept = self.findings.iter().filter(|one| one.file == file).count();
        if kept < FINDINGS_KEPT {
            self.findings.push(Finding {
                file: file.to_owned(),
                line,
                what: what.into(),
            });
        }
    }
}

/// Checks a file of any format that is read here, or a dataset's folder (a run's folder
/// stands for the `data` in it).
///
/// # Errors
/// A file or folder that cannot be opened, or a file whose format is not known.
pub fn check_dataset(path: &Path) -> Result<CheckReport, RowsError> {
    let mut report = CheckReport::default();
    if path.is_dir() {
        folder::check(path, &mut report)?;
    } else {
        check_file(path, &path.display().to_string(), &mut report)?;
    }
    Ok(report)
}

/// What is remembered of the rows of a file before.
struct Before {
    kind: Kind,
    shape: Shape,
    /// Lines by hashes of ids: ids themselves would be too many.
    ids: HashMap<u64, u64>,
    chosen_longer: u64,
}

/// Checks one file, `name` in the report; gives its rows, and each row to `with`.
fn check_file_with(
    path: &Path,
    name: &str,
    report: &mut CheckReport,
    mut with: impl FnMut(&Value),
) -> Result<(), RowsError> {
    let problems_before = report.problems;
    let (mut rows, mut before): (u64, Option<Before>) = (0, None);
    for row in read_rows(path)? {
        rows += 1;
        let (line, value) = match row {
            Ok(row) => (row.line, row.value),
            Err(problem) => {
                report.add(name, Some(problem.line()), problem.reason());
                continue;
            }
        };
        with(&value);
        let mut complain = |what: String| report.add(name, Some(line), what);
        let Some(before) = &mut before else {
            let kind = Kind::of(&value);
            let mut first = Before {
                kind,
                shape: Shape::of(&value),
                ids: HashMap::new(),
                chosen_longer: 0,
            };
            check_row(&value, line, &mut first, &mut complain);
            before = Some(first);
            continue;
        };
        if let Err(difference) = before.shape.merge(Shape::of(&value)) {
            complain(difference);
        }
        check_row(&value, line, before, &mut complain);
    }
    let shape = before.as_ref().map(|before| &before.shape);
    for column in shape.map(Shape::empty_columns).unwrap_or_default() {
        report.add(name, None, format!("`{column}` is null in every row"));
    }
    report.files.push(FileCheck {
        file: name.to_owned(),
        rows,
        kind: before.as_ref().map_or(Kind::Other, |before| before.kind),
        chosen_longer: before.as_ref().map_or(0, |before| before.chosen_longer),
        problems: report.problems - problems_before,
    });
    Ok(())
}

fn check_file(path: &Path, name: &str, report: &mut CheckReport) -> Result<(), RowsError> {
    check_file_with(path, name, report, |_| ())
}

fn check_row(value: &Value, line: u64, before: &mut Before, complain: &mut impl FnMut(String)) {
    // Where the kind differs the keys do, and that has been said.
    if Kind::of(value) != before.kind || before.kind == Kind::Other {
        return;
    }
    if let Some(id) = forms::id(value) {
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        if let Some(first) = before.ids.insert(hasher.finish(), line) {
            complain(format!("the id `{id}` is that of line {first}"));
        }
    }
    match forms::example(value) {
        Err(reason) => complain(reason),
        Ok(Example::Conversation { messages }) => turns_of("messages", &messages, complain),
        Ok(Example::Preference {
            prompt,
            chosen,
            rejected,
        }) => {
            if prompt.last().is_some_and(|last| last.role == "assistant") {
                complain("`prompt` ends with a turn of the assistant".into());
            }
            let whole = |answer: &[Message]| [&prompt, answer].concat();
            turns_of("chosen", &whole(&chosen), complain);
            // The prompt's own faults are said once.
            if order_of(&prompt).is_none() {
                turns_of("rejected", &whole(&rejected), complain);
            }
            let length = |turns: &[Message]| -> usize {
                turns.iter().map(|turn| turn.content.chars().count()).sum()
            };
            before.chosen_longer += u64::from(length(&chosen) > length(&rejected));
        }
    }
}

/// Turns in order, none of them empty, the last one the assistant's.
fn turns_of(field: &str, turns: &[Message], complain: &mut impl FnMut(String)) {
    if let Some(what) = order_of(turns) {
        complain(format!("`{field}`: {what}"));
    } else if turns.last().is_none_or(|last| last.role != "assistant") {
        complain(format!(
            "`{field}` does not end with a turn of the assistant"
        ));
    }
}

/// What is wrong with the order or the texts of a conversation: a system's turn may be the
/// first; then others and the assistant take turns.
fn order_of(turns: &[Message]) -> Option<String> {
    let mut last = "";
    for (index, turn) in turns.iter().enumerate() {
        let role = turn.role.as_str();
        if turn.content.trim().is_empty() {
            return Some(format!("turn {} is empty", index + 1));
        }
        let fits = match role {
            "system" => index == 0,
            "user" => matches!(last, "" | "system" | "assistant"),
            "assistant" => matches!(last, "user" | "tool"),
            "tool" => matches!(last, "assistant" | "tool"),
            _ => return Some(format!("turn {} has the role `{role}`", index + 1)),
        };
        if !fits {
            let after = if last.is_empty() { "nothing" } else { last };
            return Some(format!("turn {}: {role} after {after}", index + 1));
        }
        last = role;
    }
    None
}

/// Counts of something by name.
type Tally = BTreeMap<String, u64>;
