//! What a dataset's card tells of the run that made it.

use crate::fleet::Cast;
use crate::session::Opened;
use anyhow::{Context, Result};
use data::{FunnelCounts, Names, Origin, PromptFacts, Sampling};
use pipeline::{Funnel, Manifest, Shard};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use synth::prompts::{Prompt, PromptSet};

/// What a run was started with, in its folder.
pub(crate) const RUN_FILE: &str = "run.toml";

/// Names of what the manifest knows by digest. Folders are left out: a run on another machine
/// is the same run.
pub(crate) fn names(
    manifest: &Manifest,
    (cast, opened): (&Cast, &[Opened]),
    seeds: &[PathBuf],
    prompts: &PromptSet,
) -> Names {
    let seeds = if manifest.source == data::NO_SEEDS {
        Vec::new()
    } else if seeds.is_empty() {
        vec!["built-in".to_owned()]
    } else {
        seeds.iter().map(|path| file_name(path)).collect()
    };
    let player = |role: &String| {
        let part = cast.of(role);
        let name = opened[part.model()].name();
        let path = Path::new(name);
        let model = if path.exists() {
            file_name(path)
        } else {
            name.to_owned()
        };
        let player = part
            .adapter()
            .map(|adapter| format!("{model} with adapter {adapter}"));
        (role.clone(), player.unwrap_or(model))
    };
    let known = |id: &String| Some((id.clone(), facts(prompts.find(id)?)));
    Names {
        seeds,
        models: manifest.models.keys().map(player).collect(),
        prompts: manifest.prompts.keys().filter_map(known).collect(),
    }
}

/// The names that a run's folder keeps; none where it was made without.
///
/// # Errors
/// A file that is there and cannot be read.
pub(crate) fn names_of_run(folder: &Path) -> Result<Names> {
    #[derive(Debug, Default, Deserialize)]
    #[serde(default)]
    struct RunFile {
        names: Names,
    }
    let path = folder.join(RUN_FILE);
    let cannot = || format!("cannot read {}", path.display());
    if !path.exists() {
        return Ok(Names::default());
    }
    let text = fs::read_to_string(&path).with_context(cannot)?;
    let file: RunFile = toml::from_str(&text).with_context(cannot)?;
    Ok(file.names)
}

/// Writes card, registry and snippets beside the exported rows of a run.
///
/// # Errors
/// A file of the data that cannot be read, or one that cannot be written.
pub(crate) fn describe(
    folder: &Path,
    files: &[String],
    (manifest, names, notes): (&Manifest, Names, String),
    funnel: &Funnel,
) -> Result<()> {
    let origin = Origin {
        program: manifest.program.clone(),
        recipe: manifest.recipe.clone(),
        seed: manifest.seed,
        part: (manifest.shard != Shard::ALL).then(|| manifest.shard.to_string()),
        source_digest: manifest.source.clone(),
        model_digests: manifest.models.clone(),
        prompt_digests: manifest.prompts.clone(),
        settings: without_folders(&manifest.settings),
        names,
        funnel: FunnelCounts {
            read: funnel.read,
            accepted: funnel.accepted,
            rejected: funnel.rejected.clone(),
            unfinished: funnel.unfinished,
            counts: funnel.counts.clone(),
        },
        notes,
    };
    // What most people come for stands first: answers, then pairs, then by-products.
    let mut files: Vec<&str> = files.iter().map(String::as_str).collect();
    files.sort_by_key(|name| match *name {
        "sft.jsonl" => 0,
        name if name.starts_with("dpo") => 1,
        _ => 2,
    });
    files.push(pipeline::REJECTED_FILE);
    Ok(data::describe_dataset(
        &folder.join("data"),
        &files,
        &origin,
    )?)
}

/// The settings with benchmark files by name alone.
fn without_folders(settings: &Value) -> Value {
    let mut settings = settings.clone();
    if let Some(files) = settings
        .get_mut("decontaminate")
        .and_then(Value::as_array_mut)
    {
        for file in files {
            *file = file_name(Path::new(file.as_str().unwrap_or_default())).into();
        }
    }
    settings
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}

/// A prompt's source and the sampling parameters that are not the plain ones.
fn facts(prompt: &Prompt) -> PromptFacts {
    let request = prompt.request(Vec::new(), 0, None);
    let plain = as_map(&Sampling::default());
    let mut sampling: BTreeMap<String, String> = as_map(&request.sampling)
        .into_iter()
        .filter(|(name, value)| name == "temperature" || plain.get(name) != Some(value))
        .map(|(name, value)| (name, value.to_string()))
        .collect();
    if let Some(tokens) = request.max_tokens {
        sampling.insert("max_tokens".into(), tokens.to_string());
    }
    PromptFacts {
        source: prompt.source().to_owned(),
        sampling,
    }
}

/// Parameters by name; through text, which writes an f32 as people did.
fn as_map(sampling: &Sampling) -> BTreeMap<String, Value> {
    let text = serde_json::to_string(sampling).expect("our own types have string keys");
    serde_json::from_str(&text).expect("written above")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_tell_how_they_are_sampled() {
        let set = PromptSet::embedded();
        let found = facts(set.get("ultraif/respond"));
        let expected = [
            ("max_tokens", "1280"),
            ("temperature", "1.0"),
            ("top_p", "0.95"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(found.sampling, BTreeMap::from(expected));
        assert!(found.source.contains("2502.04153"));
    }

    #[test]
    fn folders_are_not_told() {
        let settings = serde_json::json!({"a": 1, "decontaminate": ["/x/y/bench.jsonl"]});
        let expected = serde_json::json!({"a": 1, "decontaminate": ["bench.jsonl"]});
        assert_eq!(without_folders(&settings), expected);
    }
}
