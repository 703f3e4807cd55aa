//! Multi-IF's CSV: `key`, `language`, and for each turn t of 1..3 `turn_t_prompt` (a JSON
//! message), `turn_t_instruction_id_list` (a JSON list), `turn_t_kwargs` (a JSON list of
//! JSON strings). An empty prompt or `None` is a turn that does not exist. A turn whose
//! list is not JSON is asked but not judged, as in the reference, and noted.

use super::{Loaded, Source};
use crate::EvalError;
use crate::item::{Item, Turn};
use crate::judge::{self, Rule};
use crate::suite::Suite;
use serde_json::{Map, Value};

const TURNS_MAX: usize = 3;

/// Reads one file into `loaded`.
pub(super) fn read(source: Source<'_>, loaded: &mut Loaded) -> Result<(), EvalError> {
    let Source { name, reader } = source;
    let mut rows = csv::ReaderBuilder::new().flexible(true).from_reader(reader);
    let bad = |line: usize, reason: String| EvalError::Data {
        file: name.clone(),
        line,
        reason,
    };
    let headers = rows
        .headers()
        .map_err(|error| bad(1, format!("not CSV: {error}")))?
        .clone();
    let columns = Columns::of(&headers).map_err(|reason| bad(1, reason))?;
    let mut record = csv::StringRecord::new();
    loop {
        // A cell may hold line ends: the line is where the record begins.
        let line = usize::try_from(rows.position().line()).unwrap_or(usize::MAX);
        let more = rows
            .read_record(&mut record)
            .map_err(|error| bad(line, format!("not CSV: {error}")))?;
        if !more {
            return Ok(());
        }
        let (item, unjudged) = columns
            .item(&headers, &record)
            .map_err(|reason| bad(line, reason))?;
        let notes = unjudged.into_iter();
        loaded
            .notes
            .extend(notes.map(|reason| format!("{name}:{line}: not judged: {reason}")));
        loaded.push(item, &name, line)?;
    }
}

/// Where each column is.
struct Columns {
    key: usize,
    language: usize,
    turns: Vec<TurnColumns>,
}

struct TurnColumns {
    number: usize,
    prompt: usize,
    ids: usize,
    kwargs: usize,
}

impl Columns {
    fn of(headers: &csv::StringRecord) -> Result<Self, String> {
        let find = |name: &str| {
            let matches = |header: &str| header.trim_start_matches('\u{feff}') == name;
            headers
                .iter()
                .position(matches)
                .ok_or_else(|| format!("column `{name}` is missing"))
        };
        let turns = (1..=TURNS_MAX).map(|number| {
            Ok(TurnColumns {
                number,
                prompt: find(&format!("turn_{number}_prompt"))?,
                ids: find(&format!("turn_{number}_instruction_id_list"))?,
                kwargs: find(&format!("turn_{number}_kwargs"))?,
            })
        });
        Ok(Self {
            key: find("key")?,
            language: find("language")?,
            turns: turns.collect::<Result<_, String>>()?,
        })
    }

    fn item(
        &self,
        headers: &csv::StringRecord,
        record: &csv::StringRecord,
    ) -> Result<(Item, Vec<String>), String> {
        let cell = |column: usize| record.get(column).unwrap_or_default();
        let key = cell(self.key).to_owned();
        if key.is_empty() {
            return Err("`key` is empty".into());
        }
        let (mut turns, mut unjudged) = (Vec::new(), Vec::new());
        for columns in &self.turns {
            let prompt = cell(columns.prompt).trim();
            // A conversation ends at the first turn that is not there.
            if prompt.is_empty() || prompt == "None" {
                break;
            }
            let number = columns.number;
            let prompt = content(number, prompt)?;
            let lists = lists(number, cell(columns.ids), cell(columns.kwargs));
            let rules = match lists {
                Ok((ids, kwargs)) => rules(number, &ids, &kwargs)?,
                Err(reason) => {
                    unjudged.push(reason);
                    Vec::new()
                }
            };
            turns.push(Turn {
                number,
                prompt,
                rules,
            });
        }
        if turns.is_empty() {
            return Err("`turn_1_prompt` is empty".into());
        }
        let doc = headers
            .iter()
            .zip(record)
            .map(|(name, cell)| (name.to_owned(), Value::String(cell.to_owned())));
        let item = Item {
            key,
            group: cell(self.language).to_owned(),
            turns,
            doc: Value::Object(doc.collect::<Map<_, _>>()),
        };
        Ok((item, unjudged))
    }
}

/// The text of a turn's JSON message.
fn content(number: usize, cell: &str) -> Result<String, String> {
    let message: Value = serde_json::from_str(cell)
        .map_err(|error| format!("`turn_{number}_prompt` is not JSON: {error}"))?;
    match message.get("content").and_then(Value::as_str) {
        Some(text) => Ok(text.to_owned()),
        None => Err(format!("`turn_{number}_prompt` has no `content` text")),
    }
}

type Lists = (Vec<String>, Vec<Map<String, Value>>);

/// Ids and arguments of a turn, as many of one as of the other.
fn lists(number: usize, ids: &str, kwargs: &str) -> Result<Lists, String> {
    let within = |what: &'static str| {
        move |error: serde_json::Error| format!("`turn_{number}_{what}`: {error}")
    };
    let ids: Vec<String> = serde_json::from_str(ids).map_err(within("instruction_id_list"))?;
    let kwargs: Vec<Value> = serde_json::from_str(kwargs).map_err(within("kwargs"))?;
    let objects = kwargs.into_iter().map(|kwargs| match kwargs {
        Value::String(inner) => serde_json::from_str(&inner),
        other => serde_json::from_value(other),
    });
    let kwargs: Vec<Map<_, _>> = objects
        .collect::<Result<_, _>>()
        .map_err(within("kwargs"))?;
    if ids.len() != kwargs.len() {
        return Err(format!(
            "`turn_{number}_instruction_id_list` has {} entries but `turn_{number}_kwargs` has {}",
            ids.len(),
            kwargs.len()
        ));
    }
    Ok((ids, kwargs))
}

fn rules(
    number: usize,
    ids: &[String],
    kwargs: &[Map<String, Value>],
) -> Result<Vec<Rule>, String> {
    let rules = ids.iter().zip(kwargs).map(|(id, kwargs)| {
        judge::rule(Suite::MultiIf, id, kwargs).map_err(|reason| format!("turn {number}: {reason}"))
    });
    rules.collect()
}
