//! Which tokens carry loss: rows as training reads them, what is trained in double brackets.

use super::args::TrainOnArg;
use super::rows::train_on;
use crate::args::ModelArgs;
use crate::commands::Env;
use crate::error::{Failure, SOME_ROWS_FAILED};
use crate::output;
use crate::session;
use anyhow::Result;
use data::{Example, read_examples};
use engine::Text;
use serde_json::{Value, json};
use std::path::Path;
use std::process::ExitCode;
use train::{Dropped, Renderer, Sequence};

/// What is asked for.
#[derive(Debug)]
pub(crate) struct MaskRequest<'a> {
    pub(crate) file: &'a Path,
    /// Rows to show.
    pub(crate) count: usize,
    /// Only the row of this id, or on this line.
    pub(crate) row: Option<&'a str>,
    pub(crate) train_on: TrainOnArg,
    pub(crate) json: bool,
}

/// Prints rows with what is trained of them.
///
/// # Errors
/// A model without a template, a file that cannot be read, no such row.
pub(crate) fn show(env: &mut Env, model: &ModelArgs, asked: &MaskRequest<'_>) -> Result<ExitCode> {
    for setting in model.settings() {
        env.config.insert(setting)?;
    }
    let opened = session::open(model, &mut env.config)?;
    opened.check_template()?;
    let text = opened.text();
    let blank = text.conversation(&[]);
    let renderer = Renderer {
        tokenizer: text.tokenizer(),
        template: text.template().expect("the template was checked"),
        blank: &blank,
        end_ids: text.eos_ids(),
        max_length: opened.context_tokens(),
    };
    let (mut shown, mut dropped) = (vec![], 0);
    for row in read_examples(asked.file)? {
        if shown.len() == asked.count {
            break;
        }
        let row = match row {
            Ok(row) => row,
            Err(problem) => {
                output::say(&problem.to_string());
                dropped += 1;
                continue;
            }
        };
        let wanted = |asked: &str| row.id == asked || row.line.to_string() == asked;
        if !asked.row.is_none_or(wanted) {
            continue;
        }
        match sequences(&renderer, &row.value, asked.train_on) {
            Ok(sequences) => {
                let sequences = sequences.iter().map(|(name, one)| view(text, name, one));
                let sequences: Vec<Value> = sequences.collect();
                if !asked.json {
                    output::print_line(&people(&row.id, &sequences))?;
                }
                shown.push(json!({ "id": row.id, "line": row.line, "sequences": sequences }));
            }
            Err(why) => {
                output::say(&format!(
                    "{}:{} {}: {why}",
                    row.file.display(),
                    row.line,
                    row.id
                ));
                dropped += 1;
            }
        }
    }
    if let Some(row) = asked.row.filter(|_| shown.is_empty()) {
        return Err(Failure::input(format!(
            "{}: no row {row} that can be trained on",
            asked.file.display()
        )));
    }
    if asked.json {
        output::print_json(&json!({ "rows": shown, "dropped": dropped }))?;
    }
    Ok(match dropped {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(SOME_ROWS_FAILED),
    })
}

fn sequences(
    renderer: &Renderer<'_>,
    example: &Example,
    which: TrainOnArg,
) -> std::result::Result<Vec<(&'static str, Sequence)>, Dropped> {
    Ok(match example {
        Example::Conversation { messages } => {
            vec![("", renderer.conversation(messages, train_on(which))?)]
        }
        Example::Preference {
            prompt,
            chosen,
            rejected,
        } => {
            let pair = renderer.pair(prompt, chosen, rejected)?;
            vec![("chosen", pair.chosen), ("rejected", pair.rejected)]
        }
    })
}

/// One sequence: its text in stretches of trained and other tokens.
fn view(text: &Text, name: &str, sequence: &Sequence) -> Value {
    let mut stretches: Vec<(bool, Vec<u8>)> = vec![];
    let tokens = sequence.tokens.iter().zip(&sequence.weights).enumerate();
    for (index, (token, weight)) in tokens {
        let trained = index > 0 && *weight != 0.0;
        let bytes = text.tokenizer().token_bytes(*token).unwrap_or_default();
        match stretches.last_mut() {
            Some((same, all)) if *same == trained => all.extend(bytes),
            _ => stretches.push((trained, bytes.to_vec())),
        }
    }
    let parts = stretches.iter().map(
        |(trained, bytes)| json!({ "trained": trained, "text": String::from_utf8_lossy(bytes) }),
    );
    json!({
        "name": name, "tokens": sequence.tokens.len(), "trained": sequence.trained(),
        "parts": parts.collect::<Vec<_>>(),
    })
}

/// The same for people.
fn people(id: &str, sequences: &[Value]) -> String {
    let mut lines = vec![];
    for one in sequences {
        let name = one["name"].as_str().unwrap_or_default();
        let (tokens, trained) = (&one["tokens"], &one["trained"]);
        lines.push(format!(
            "--- {id} {name} ({trained} of {tokens} tokens carry loss)"
        ));
        let parts = one["parts"].as_array().into_iter().flatten();
        let text = parts.map(|part| {
            let text = part["text"].as_str().unwrap_or_default();
            match part["trained"].as_bool() {
                Some(true) => format!("[[{text}]]"),
                _ => text.to_owned(),
            }
        });
        lines.push(text.collect());
    }
    lines.join("\n")
}
