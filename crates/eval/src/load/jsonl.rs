//! One JSON object per line: IFEval, IFBench, LiveBench.

use super::{Loaded, Source};
use crate::EvalError;
use crate::item::{Item, Turn};
use crate::judge::{self, Rule};
use crate::suite::Suite;
use serde_json::{Map, Value};
use std::io::BufRead;

/// Reads one file into `loaded`; blank lines are skipped.
pub(super) fn read(
    suite: Suite,
    source: Source<'_>,
    release: &str,
    loaded: &mut Loaded,
) -> Result<(), EvalError> {
    let Source { name, reader } = source;
    for (index, text) in reader.lines().enumerate() {
        let line = index + 1;
        let bad = |reason: String| EvalError::Data {
            file: name.clone(),
            line,
            reason,
        };
        let text = text.map_err(|error| bad(error.to_string()))?;
        if text.trim().is_empty() {
            continue;
        }
        // Files written on Windows begin with a byte order mark.
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let record: Map<String, Value> = serde_json::from_str(text)
            .map_err(|error| bad(format!("not a JSON object: {error}")))?;
        if suite == Suite::LiveBench && !in_use(&record, release) {
            loaded.num_other_releases += 1;
            continue;
        }
        let counts_symbol = counts_symbol(&record);
        let item = item(suite, record).map_err(bad)?;
        if counts_symbol {
            loaded.symbol_keys.push(item.key.clone());
        }
        loaded.push(item, &name, line)?;
    }
    Ok(())
}

fn item(suite: Suite, record: Map<String, Value>) -> Result<Item, String> {
    let (key, prompt, group) = match suite {
        Suite::LiveBench => (
            key(&record, "question_id")?,
            only_turn(&record)?,
            text(&record, "task")?,
        ),
        _ => (
            key(&record, "key")?,
            text(&record, "prompt")?,
            String::new(),
        ),
    };
    let rules = rules(suite, &record)?;
    Ok(Item {
        key,
        group,
        turns: vec![Turn {
            number: 1,
            prompt,
            rules,
        }],
        doc: Value::Object(record),
    })
}

/// The rules of one record: as many kwargs as ids.
fn rules(suite: Suite, record: &Map<String, Value>) -> Result<Vec<Rule>, String> {
    let ids = list(record, "instruction_id_list")?;
    let kwargs = list(record, "kwargs")?;
    if ids.len() != kwargs.len() {
        return Err(format!(
            "`instruction_id_list` has {} entries but `kwargs` has {}",
            ids.len(),
            kwargs.len()
        ));
    }
    if ids.is_empty() {
        return Err("`instruction_id_list` is empty".into());
    }
    let pairs = ids.iter().zip(kwargs).enumerate();
    pairs
        .map(|(index, (id, kwargs))| {
            let id = id
                .as_str()
                .ok_or_else(|| format!("`instruction_id_list[{index}]` is not a string"))?;
            let kwargs = kwargs
                .as_object()
                .ok_or_else(|| format!("`kwargs[{index}]` is not an object"))?;
            judge::rule(suite, id, kwargs)
                .map_err(|reason| format!("`instruction_id_list[{index}]`: {reason}"))
        })
        .collect()
}

/// Does the record ask for a number of some character that is no letter?
fn counts_symbol(record: &Map<String, Value>) -> bool {
    let lists = record.get("kwargs").and_then(Value::as_array);
    let letters = lists.into_iter().flatten().filter_map(|kwargs| {
        let letter = kwargs.get("letter").and_then(Value::as_str);
        letter.and_then(|letter| letter.chars().next())
    });
    letters
        .into_iter()
        .any(|letter| !letter.is_ascii_alphabetic())
}

/// A question is in use at a release from its own release date on, until it is removed.
fn in_use(record: &Map<String, Value>, release: &str) -> bool {
    let date = |name: &str| record.get(name).and_then(Value::as_str).unwrap_or_default();
    let removed = date("livebench_removal_date");
    // Dates are year-month-day, so they compare as text.
    date("livebench_release_date") <= release && (removed.is_empty() || removed > release)
}

fn only_turn(record: &Map<String, Value>) -> Result<String, String> {
    match list(record, "turns")? {
        [Value::String(turn)] => Ok(turn.clone()),
        other => Err(format!(
            "`turns` has {} entries, expected one string",
            other.len()
        )),
    }
}

fn key(record: &Map<String, Value>, name: &str) -> Result<String, String> {
    match record.get(name) {
        Some(Value::String(key)) if !key.is_empty() => Ok(key.clone()),
        Some(Value::Number(key)) => Ok(key.to_string()),
        Some(_) => Err(format!("`{name}` is neither a number nor a string")),
        None => Err(format!("`{name}` is missing")),
    }
}

fn text(record: &Map<String, Value>, name: &str) -> Result<String, String> {
    match record.get(name) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(format!("`{name}` is not a string")),
        None => Err(format!("`{name}` is missing")),
    }
}

fn list<'a>(record: &'a Map<String, Value>, name: &str) -> Result<&'a [Value], String> {
    match record.get(name) {
        Some(Value::Array(list)) => Ok(list),
        Some(_) => Err(format!("`{name}` is not a list")),
        None => Err(format!("`{name}` is missing")),
    }
}
