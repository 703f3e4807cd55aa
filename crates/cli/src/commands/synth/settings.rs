//! Settings of a recipe: preset, then configuration, then flags.

use crate::config::{Config, unknown};
use crate::error::Failure;
use anyhow::Result;
use pipeline::{Admit, AdmitAll};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::PathBuf;
use synth::filters::{Contamination, NearDuplicates};

/// `base`, with what the configuration says of the recipe, with what the flags say: key, value,
/// flag.
///
/// # Errors
/// A key that the settings do not have, a value that does not fit it.
pub(crate) fn layered<S: Serialize + DeserializeOwned>(
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

/// A name, and the settings it stands for.
pub(super) type Preset<S> = (&'static str, fn() -> S);

/// One of a recipe's presets by its name.
///
/// # Errors
/// A name that is none of them.
pub(super) fn preset<S>(name: &str, presets: &[Preset<S>]) -> Result<S> {
    match presets.iter().find(|(known, _)| *known == name) {
        Some((_, settings)) => Ok(settings()),
        None => {
            let known: Vec<&str> = presets.iter().map(|(known, _)| *known).collect();
            let known = known.join(", ");
            let message = format!("--preset {name}: there is no such preset; there are {known}");
            Err(Failure::usage(message))
        }
    }
}

/// What is judged in source order: instructions that are much like earlier ones, above a
/// threshold of 0, do not become files.
pub(super) fn admit(near_duplicates: f64) -> Box<dyn Admit> {
    match near_duplicates > 0.0 {
        true => Box::new(NearDuplicates::new(near_duplicates)),
        false => Box::new(AdmitAll),
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
