//! Settings of a recipe: preset, then configuration, then flags.

use crate::config::{Config, unknown};
use crate::error::Failure;
use anyhow::Result;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::PathBuf;
use synth::filters::Contamination;

/// `base`, with what the configuration says of the recipe, with what the flags say: key, value,
/// flag.
///
/// # Errors
/// A key that the settings do not have, a value that does not fit it.
pub(super) fn layered<S: Serialize + DeserializeOwned>(
    recipe: &str,
    base: &S,
    config: &Config,
    flags: Vec<(&str, Value, &str)>,
) -> Result<S> {
    let mut value = serde_json::to_value(base)?;
    let known: Vec<String> = value
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, _)| key.clone())
        .collect();
    let mut set = |key: &str, new: Value, origin: &str| -> Result<()> {
        if !known.iter().any(|name| name == key) {
            let names = known.iter().map(|name| format!("{recipe}.{name}"));
            let key = format!("{recipe}.{key}");
            return Err(Failure::usage(unknown(&key, origin, names)));
        }
        value[key] = new;
        // Checked one by one, so that the message can say which.
        serde_json::from_value::<S>(value.clone())
            .map(drop)
            .map_err(|error| Failure::usage(format!("{origin}: {recipe}.{key}: {error}")))
    };
    for (key, given, origin) in config.recipe(recipe) {
        set(key, serde_json::to_value(given)?, &origin.to_string())?;
    }
    for (key, given, flag) in flags {
        set(key, given, flag)?;
    }
    Ok(serde_json::from_value(value)?)
}

/// A preset by its name.
///
/// # Errors
/// Another name than `paper` and `as-published`.
pub(super) fn preset<S>(name: &str, paper: fn() -> S, as_published: fn() -> S) -> Result<S> {
    match name {
        "paper" => Ok(paper()),
        "as-published" => Ok(as_published()),
        other => {
            let message = format!("--preset {other}: there are paper and as-published");
            Err(Failure::usage(message))
        }
    }
}

/// Benchmarks that instructions must not repeat.
///
/// # Errors
/// A file that cannot be read.
pub(super) fn contamination(files: &[PathBuf]) -> Result<Contamination> {
    let mut prompts = Vec::new();
    for path in files {
        for row in data::read_prompts(path)? {
            let row = row.map_err(|problem| Failure::input(problem.to_string()))?;
            prompts.extend(row.messages.into_iter().map(|message| message.content));
        }
    }
    Ok(Contamination::new(prompts.iter().map(String::as_str)))
}
