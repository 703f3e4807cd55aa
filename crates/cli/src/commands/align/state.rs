//! What is done and what came of it, in one file that is always whole. Parts that are under
//! way keep their own: a call log, checkpoints.

use crate::error::Failure;
use anyhow::{Context, Result};
use eval::held_out::{Figures, Gain};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The file, in the loop's folder.
pub(crate) const FILE: &str = "align.json";
/// Version of the file; raised when a field changes its meaning.
const VERSION: u32 = 1;

/// What came of a part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Facts {
    /// Of a synthesis.
    Rows(RowFacts),
    /// Of a training.
    Training(TrainingFacts),
    /// Of an evaluation; the base has no gain.
    Evaluation {
        /// Rates with intervals.
        figures: Figures,
        /// Over the base.
        gain: Option<Gain>,
    },
}

/// Rows tried and kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RowFacts {
    /// Instructions tried.
    pub(crate) tried: u64,
    /// Those that gave a row.
    pub(crate) accepted: u64,
    /// Responses that the judge passed, of all that it saw.
    pub(crate) passing: u64,
    /// Responses judged.
    pub(crate) responses: u64,
    /// Rows in the file that is trained on.
    pub(crate) rows: u64,
    /// Ends of the other rows: stage, reason, how many.
    pub(crate) rejected: BTreeMap<String, BTreeMap<String, u64>>,
}

/// Steps taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TrainingFacts {
    /// As `train` names it.
    pub(crate) method: String,
    /// Rows trained on.
    pub(crate) rows: usize,
    /// Optimiser steps.
    pub(crate) steps: u64,
    /// Measurements of the last step, under TRL's names.
    pub(crate) last: Value,
}

/// A part that is done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Done {
    /// What came of it.
    pub(crate) facts: Facts,
    /// Time it took in the invocation that ended it.
    pub(crate) seconds: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Content {
    version: u32,
    /// What must be the same for the loop to go on.
    made_of: BTreeMap<String, Value>,
    /// Parts by their folders.
    done: BTreeMap<String, Done>,
}

/// The state of a loop, on disk and in memory.
#[derive(Debug)]
pub(crate) struct State {
    path: PathBuf,
    content: Content,
}

impl State {
    /// Reads the state of the loop in `folder`, or begins one.
    ///
    /// # Errors
    /// A loop that was made of something else, a file that is none of ours.
    pub(crate) fn open(folder: &Path, made_of: BTreeMap<String, Value>) -> Result<Self> {
        let path = folder.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let content = match text {
            None => Content {
                version: VERSION,
                made_of,
                done: BTreeMap::new(),
            },
            Some(text) => {
                let found: Content = serde_json::from_str(&text).with_context(|| {
                    format!("{} is not a state of this program", path.display())
                })?;
                let changed = changes(&found.made_of, &made_of);
                if found.version != VERSION || !changed.is_empty() {
                    return Err(Failure::usage(format!(
                        "{}: belongs to a loop with another {}; give another output folder, or the same settings",
                        folder.display(),
                        if changed.is_empty() {
                            "version".to_owned()
                        } else {
                            changed.join(", ")
                        },
                    )));
                }
                found
            }
        };
        let state = Self { path, content };
        state.write()?;
        Ok(state)
    }

    /// What came of the part, if it is done.
    pub(crate) fn done(&self, key: &str) -> Option<&Done> {
        self.content.done.get(key)
    }

    /// Writes down that a part is done.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub(crate) fn record(&mut self, key: &str, done: Done) -> Result<()> {
        self.content.done.insert(key.to_owned(), done);
        self.write()
    }

    /// Written beside, made sure of, renamed.
    fn write(&self) -> Result<()> {
        let beside = self.path.with_extension("json.tmp");
        let text = serde_json::to_string_pretty(&self.content)?;
        let write = || {
            let mut file = File::create(&beside)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&beside, &self.path)
        };
        write().with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// Names of what is not as it was.
fn changes(before: &BTreeMap<String, Value>, now: &BTreeMap<String, Value>) -> Vec<String> {
    let names: std::collections::BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    let mut changed = Vec::new();
    for name in names {
        match (before.get(name), now.get(name)) {
            (was, is) if was == is => {}
            (Some(Value::Object(was)), Some(Value::Object(is))) => {
                let map = |map: &serde_json::Map<String, Value>| {
                    let pairs = map.iter();
                    pairs
                        .map(|(key, value)| (format!("{name}.{key}"), value.clone()))
                        .collect()
                };
                changed.extend(changes(&map(was), &map(is)));
            }
            (Some(was), Some(is)) => changed.push(format!("{name} (was {was}, is {is})")),
            _ => changed.push(name.clone()),
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn made_of(lr: f64) -> BTreeMap<String, Value> {
        let settings = json!({"sft": {"lr": lr}, "rounds": 2});
        BTreeMap::from([("model".into(), json!("m")), ("align".into(), settings)])
    }

    #[test]
    fn what_is_done_stays_done_and_changes_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = State::open(folder.path(), made_of(0.5)).unwrap();
        assert_eq!(state.done("4-sft/adapter"), None);
        let done = Done {
            facts: Facts::Training(TrainingFacts {
                method: "sft".into(),
                rows: 3,
                steps: 2,
                last: json!({"loss": 0.25}),
            }),
            seconds: 1.5,
        };
        state.record("4-sft/adapter", done.clone()).unwrap();
        let again = State::open(folder.path(), made_of(0.5)).unwrap();
        assert_eq!(again.done("4-sft/adapter"), Some(&done));
        let error = State::open(folder.path(), made_of(0.25)).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("align.sft.lr (was 0.5, is 0.25)"), "{error}");
        fs::write(folder.path().join(FILE), "{").unwrap();
        let error = State::open(folder.path(), made_of(0.5)).unwrap_err();
        assert!(error.to_string().contains("not a state"), "{error}");
    }
}
