//! `train tokenizer`: the vocabulary of a new small model.

use super::args::TokenizerArgs;
use crate::error::Failure;
use crate::output;
use anyhow::{Context, Result};
use data::read_rows;
use serde_json::Value;
use std::fs;
use train::train_tokenizer;

/// Runs the command.
pub(super) fn run(args: &TokenizerArgs) -> Result<()> {
    let (mut texts, mut skipped) = (vec![], 0);
    for path in &args.data {
        for row in read_rows(path)? {
            let before = texts.len();
            if let Ok(row) = row {
                texts.extend(texts_of(row.value));
            }
            skipped += usize::from(texts.len() == before);
        }
    }
    if texts.is_empty() {
        return Err(Failure::input(format!(
            "--data: {skipped} rows, none with `text` or `messages`"
        )));
    }
    let json = train_tokenizer(&texts, args.vocab_size, &args.special)?;
    let shown = args.output.display().to_string();
    let part = args.output.with_extension("json.part");
    fs::write(&part, &json).with_context(|| format!("cannot write {}", part.display()))?;
    fs::rename(&part, &args.output).with_context(|| format!("cannot write {shown}"))?;
    let learnt: Value = serde_json::from_str(&json)?;
    let tokens = learnt["model"]["vocab"]
        .as_object()
        .map_or(0, |all| all.len());
    output::say(&format!(
        "{tokens} tokens from {} texts ({skipped} rows without any), written to {shown}",
        texts.len()
    ));
    Ok(())
}

/// A row's texts: one, or one for each turn.
fn texts_of(row: Value) -> Vec<String> {
    match row {
        Value::Object(mut row) => match (row.remove("text"), row.remove("messages")) {
            (Some(Value::String(text)), _) => vec![text],
            (_, Some(Value::Array(turns))) => turns
                .into_iter()
                .filter_map(|turn| Some(turn.get("content")?.as_str()?.to_owned()))
                .collect(),
            _ => vec![],
        },
        _ => vec![],
    }
}
