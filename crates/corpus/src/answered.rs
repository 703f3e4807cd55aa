//! Items together with what a model answered, as `autodidact generate -i ITEMS -o ANSWERS` wrote
//! it.

use crate::CorpusError;
use crate::held_out::Item;
use serde::Deserialize;
use std::collections::BTreeMap;

/// An item and a model's answers to it, in the order of their samples.
#[derive(Debug, Clone, PartialEq)]
pub struct Answered {
    /// What was asked.
    pub item: Item,
    /// Text of each sample; a sample that was cut or failed is an empty text.
    pub answers: Vec<String>,
}

/// A row of answers.
#[derive(Deserialize)]
struct Row {
    id: String,
    #[serde(default)]
    completions: Vec<Sample>,
}

#[derive(Deserialize)]
struct Sample {
    text: String,
    finish_reason: String,
}

/// Joins both files' lines by the items' keys, in the order of the items. Items without answers
/// are left out.
///
/// # Errors
/// [`CorpusError::Row`]: a line that cannot be read, an answer to no item.
pub fn join(items: &str, answers: &str) -> Result<Vec<Answered>, CorpusError> {
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in parsed::<Row>("answers", answers)? {
        let samples = row.completions.into_iter();
        let whole = samples.map(|sample| match sample.finish_reason.as_str() {
            "stop" => sample.text,
            _ => String::new(),
        });
        texts.entry(row.id).or_default().extend(whole);
    }
    let mut joined = Vec::new();
    for item in parsed::<Item>("items", items)? {
        if let Some(answers) = texts.remove(&item.key) {
            joined.push(Answered { item, answers });
        }
    }
    match texts.into_keys().next() {
        None => Ok(joined),
        Some(id) => Err(CorpusError::Row {
            row: id,
            field: "id",
            reason: "no item has this key".into(),
        }),
    }
}

fn parsed<T: for<'a> Deserialize<'a>>(file: &str, text: &str) -> Result<Vec<T>, CorpusError> {
    let lines = text.lines().enumerate();
    lines
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(index, line)| {
            serde_json::from_str(line).map_err(|error| CorpusError::Row {
                row: format!("line {} of the {file}", index + 1),
                field: "JSON",
                reason: error.to_string(),
            })
        })
        .collect()
}
