//! Rows for training: read in any form, rendered, dropped with a reason or kept.

use super::args::{TrainArgs, TrainOnArg};
use super::course::Course;
use super::presets::Method;
use crate::error::Failure;
use crate::output;
use anyhow::{Context, Result};
use data::{Example, Message, RowProblem, SourceRow, read_examples};
use engine::Text;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use train::{Dropped, Item, ItemTokens, ReferenceScores, Renderer, TrainOn};

/// What is trained on, and what became of the rest.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    pub(super) train: Vec<Item>,
    pub(super) held_out: Vec<Item>,
    /// Prompts of the first rows, for samples.
    pub(super) prompts: Vec<Vec<Message>>,
    dropped: DroppedRows,
    read: usize,
}

/// Rows that are not trained on.
#[derive(Debug, Default)]
pub(super) struct DroppedRows(Vec<DroppedRow>);

/// A row that is not trained on.
#[derive(Debug, Clone)]
struct DroppedRow {
    id: String,
    place: String,
    reason: String,
    detail: String,
}

/// Prompts that are kept for samples.
const PROMPTS: usize = 16;

/// Reads and renders the rows of a run.
///
/// # Errors
/// A file that cannot be read; no row left; rows of another kind than the method wants.
pub(super) fn prepare(
    args: &TrainArgs,
    method: Method,
    text: &Text,
    course: &Course,
) -> Result<Prepared> {
    let template = text.template().expect("the template was checked");
    let blank = text.conversation(&[]);
    let renderer = Renderer {
        tokenizer: text.tokenizer(),
        template,
        blank: &blank,
        end_ids: text.eos_ids(),
        max_length: course.max_length,
    };
    let train_on = train_on(args.train_on);
    let mut prepared = Prepared::default();
    let render = |example: &Example| item_tokens(&renderer, method, train_on, example);
    prepared.train = prepared.read(&args.data, &render)?;
    prepared.held_out = prepared.read(&args.course.eval_data, &render)?;
    prepared.choose(args, course.seed)?;
    Ok(prepared)
}

/// A row's tokens, or why it is dropped: a short reason and the long one.
type Rendered = std::result::Result<ItemTokens, (String, String)>;

/// Which turns a flag means.
pub(super) fn train_on(flag: TrainOnArg) -> TrainOn {
    match flag {
        TrainOnArg::Last => TrainOn::Last,
        TrainOnArg::AllAssistant => TrainOn::AllAssistant,
    }
}

/// A rendered row, or why it is dropped.
fn item_tokens(
    renderer: &Renderer<'_>,
    method: Method,
    train_on: TrainOn,
    example: &Example,
) -> Rendered {
    let dropped = |dropped: Dropped| (dropped.reason().to_owned(), dropped.to_string());
    match (example, method) {
        (Example::Conversation { messages }, Method::Sft) => {
            let found = renderer.conversation(messages, train_on);
            found.map(ItemTokens::Single).map_err(dropped)
        }
        // The chosen answers of pairs are good conversations.
        (Example::Preference { prompt, chosen, .. }, Method::Sft) => {
            let messages: Vec<Message> = prompt.iter().chain(chosen).cloned().collect();
            let found = renderer.conversation(&messages, train_on);
            found.map(ItemTokens::Single).map_err(dropped)
        }
        (
            Example::Preference {
                prompt,
                chosen,
                rejected,
            },
            _,
        ) => {
            let found = renderer.pair(prompt, chosen, rejected);
            found.map(ItemTokens::Pair).map_err(dropped)
        }
        (Example::Conversation { .. }, _) => Err((
            "not-a-pair".to_owned(),
            "the row has one answer, and the method compares two".to_owned(),
        )),
    }
}

impl Prepared {
    fn read(
        &mut self,
        files: &[PathBuf],
        render: &dyn Fn(&Example) -> Rendered,
    ) -> Result<Vec<Item>> {
        let mut items = vec![];
        for path in files {
            for row in read_examples(path)? {
                self.read += 1;
                let row: SourceRow<Example> = match row {
                    Ok(row) => row,
                    Err(problem) => {
                        self.dropped.unusable(&problem);
                        continue;
                    }
                };
                match render(&row.value) {
                    Ok(tokens) => {
                        if self.prompts.len() < PROMPTS {
                            self.prompts.push(prompt_of(&row.value));
                        }
                        items.push(Item { id: row.id, tokens });
                    }
                    Err((reason, detail)) => {
                        let place = format!("{}:{}", path.display(), row.line);
                        self.dropped.add(row.id, place, reason, detail);
                    }
                }
            }
        }
        Ok(items)
    }

    /// Takes some rows only, and holds some out, by the seed.
    fn choose(&mut self, args: &TrainArgs, seed: u64) -> Result<()> {
        let course = &args.course;
        if course.max_rows.is_some() || course.held_out > 0 {
            // By a hash of the id: the same rows whatever the order of the file.
            let key = |item: &Item| {
                let mut hasher = blake3::Hasher::new();
                hasher.update(&seed.to_le_bytes());
                hasher.update(item.id.as_bytes());
                *hasher.finalize().as_bytes()
            };
            let mut ranked: Vec<(usize, Item)> = self.train.drain(..).enumerate().collect();
            ranked.sort_by_key(|(place, item)| (key(item), *place));
            ranked.truncate(course.max_rows.unwrap_or(usize::MAX));
            let rest = ranked.split_off(course.held_out.min(ranked.len()));
            let back = |mut rows: Vec<(usize, Item)>| {
                rows.sort_by_key(|(place, _)| *place);
                rows.into_iter().map(|(_, item)| item).collect::<Vec<_>>()
            };
            if course.held_out > 0 {
                self.held_out = back(ranked);
            }
            self.train = back(rest);
        }
        if self.train.is_empty() {
            return Err(Failure::input(format!(
                "no row to train on: {} were read, {}",
                self.read,
                self.dropped.reasons()
            )));
        }
        Ok(())
    }

    /// One line, and the first dropped rows.
    pub(super) fn tell(&self, files: &[PathBuf]) {
        let names: Vec<String> = files
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        output::say(&format!(
            "{}: {} rows read, {} to train on, {} held out, {}",
            names.join(", "),
            self.read,
            self.train.len(),
            self.held_out.len(),
            self.dropped.reasons()
        ));
        for row in self.dropped.0.iter().take(3) {
            output::say(&format!("  {}: {}", row.place, row.detail));
        }
    }

    /// Writes every dropped row with its reason.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub(super) fn write_dropped(&self, folder: &Path) -> Result<()> {
        self.dropped.write(folder)
    }
}

impl DroppedRows {
    /// A row that could not be read.
    pub(super) fn unusable(&mut self, problem: &RowProblem) {
        let (line, file) = (problem.line(), problem.file().display());
        let place = format!("{file}:{line}");
        self.add(
            format!("line {line}"),
            place,
            "unusable".into(),
            problem.reason(),
        );
    }

    /// A row that could not be used: a short reason, and the long one.
    pub(super) fn add(&mut self, id: String, place: String, reason: String, detail: String) {
        self.0.push(DroppedRow {
            id,
            place,
            reason,
            detail,
        });
    }

    /// Reasons with counts.
    pub(super) fn reasons(&self) -> String {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for row in &self.0 {
            *counts.entry(&row.reason).or_default() += 1;
        }
        match counts.is_empty() {
            true => "none dropped".to_owned(),
            false => {
                let counted = counts
                    .iter()
                    .map(|(reason, count)| format!("{count} {reason}"));
                format!("dropped: {}", counted.collect::<Vec<_>>().join(", "))
            }
        }
    }

    /// Writes every dropped row with its reason to `dropped.jsonl`.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join("dropped.jsonl");
        let lines = self.0.iter().map(|row| {
            let row = json!({
                "id": row.id, "place": row.place, "reason": row.reason, "detail": row.detail,
            });
            format!("{row}\n")
        });
        fs::write(&path, lines.collect::<String>())
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// What stands before the last answer.
fn prompt_of(example: &Example) -> Vec<Message> {
    match example {
        Example::Preference { prompt, .. } => prompt.clone(),
        Example::Conversation { messages } => {
            let last = messages
                .iter()
                .rposition(|message| message.role == "assistant");
            messages[..last.unwrap_or(messages.len())].to_vec()
        }
    }
}

/// Reference scores that were computed before, if they are of the same pairs and model.
///
/// # Errors
/// A file that cannot be read.
pub(super) fn cached_references(path: &Path, key: &str) -> Result<Option<Vec<ReferenceScores>>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read {}", path.display()));
        }
    };
    // A damaged or foreign cache is computed again.
    let Ok(found) = serde_json::from_str::<Value>(&text) else {
        return Ok(None);
    };
    if found["key"] != key {
        return Ok(None);
    }
    Ok(serde_json::from_value(found["log_probs"].clone()).ok())
}

/// Keeps reference scores.
///
/// # Errors
/// A file that cannot be written.
pub(super) fn cache_references(path: &Path, key: &str, found: &[ReferenceScores]) -> Result<()> {
    let text = json!({ "key": key, "log_probs": found }).to_string();
    let beside = path.with_extension("json.tmp");
    let write = || {
        fs::write(&beside, text)?;
        fs::rename(&beside, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
