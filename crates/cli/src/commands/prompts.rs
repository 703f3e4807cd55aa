//! `prompts`: what recipes say to models.

use crate::error::Failure;
use crate::output;
use anyhow::{Context, Result};
use serde_json::json;
use std::path::Path;
use synth::prompts::{Prompt, PromptSet};

/// Lists the prompts.
pub(crate) fn ls(json: bool) -> Result<()> {
    let set = PromptSet::embedded();
    if json {
        let facts: Vec<_> = set
            .iter()
            .map(|prompt| {
                json!({
                    "id": prompt.id(), "version": prompt.version(), "source": prompt.source(),
                    "inputs": prompt.inputs(), "output": prompt.output(), "digest": prompt.digest(),
                })
            })
            .collect();
        return output::print_json(&json!({ "prompts": facts }));
    }
    let row = |prompt: &Prompt| {
        vec![
            prompt.id().to_owned(),
            prompt.inputs().join(", "),
            prompt.source().to_owned(),
        ]
    };
    let titles = ["prompt", "inputs", "source"].map(String::from).to_vec();
    let rows: Vec<_> = std::iter::once(titles).chain(set.iter().map(row)).collect();
    Ok(output::print_line(&output::table(&rows))?)
}

/// Prints one prompt.
pub(crate) fn cat(name: &str) -> Result<()> {
    let set = PromptSet::embedded();
    let prompt = set.find(name).ok_or_else(|| {
        let known: Vec<&str> = set.iter().map(Prompt::id).collect();
        Failure::usage(format!(
            "no prompt `{name}`; there are {}",
            known.join(", ")
        ))
    })?;
    Ok(output::print(prompt.text())?)
}

/// Copies all prompts into a new or empty folder.
pub(crate) fn cp(folder: &Path) -> Result<()> {
    let cannot = || format!("cannot write {}", folder.display());
    let is_used = folder
        .read_dir()
        .is_ok_and(|mut entries| entries.next().is_some());
    if is_used {
        return Err(Failure::usage(format!(
            "{} is not empty; choose a new folder",
            folder.display()
        )));
    }
    let set = PromptSet::embedded();
    for prompt in set.iter() {
        let path = folder.join(format!("{}.md", prompt.id()));
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).with_context(cannot)?;
        }
        std::fs::write(&path, prompt.text()).with_context(cannot)?;
    }
    let count = set.iter().count();
    output::say(&format!(
        "{count} prompts in {0}; edit them and use them with --prompts {0}",
        folder.display()
    ));
    Ok(())
}
