//! Where a model's chat templates are.

use super::{ChatTemplate, DEFAULT, environment};
use crate::{GgufFile, ModelError, Tokenizer, json_file};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

impl ChatTemplate {
    /// A template given as text. `path` stands for it in errors; the tokenizer gives the
    /// special tokens that templates write (`bos_token`, …).
    ///
    /// # Errors
    /// A template that does not compile.
    pub fn from_source(
        path: impl Into<PathBuf>,
        source: &str,
        tokenizer: &Tokenizer,
    ) -> Result<Self, ModelError> {
        let sources = BTreeMap::from([(DEFAULT.to_owned(), source.to_owned())]);
        Self::compile(path.into(), sources, tokenizer.named_tokens())
    }

    /// A template file of the user's.
    ///
    /// # Errors
    /// A file that cannot be read or a template that does not compile.
    pub fn from_file(path: impl AsRef<Path>, tokenizer: &Tokenizer) -> Result<Self, ModelError> {
        let path = path.as_ref();
        Self::from_source(path, &read(path)?, tokenizer)
    }

    /// The templates of a model folder; for each name the first of: `chat_template.jinja`, the
    /// `chat_template` of `tokenizer_config.json` (text, or a list of `name` and `template`),
    /// `additional_chat_templates/*.jinja`.
    ///
    /// # Errors
    /// No template at all, a file that cannot be read, a template that does not compile.
    pub fn from_folder(
        folder: impl AsRef<Path>,
        tokenizer: &Tokenizer,
    ) -> Result<Self, ModelError> {
        let folder = folder.as_ref();
        let mut sources = BTreeMap::new();
        let main = folder.join("chat_template.jinja");
        if main.exists() {
            sources.insert(DEFAULT.to_owned(), read(&main)?);
        }
        let config = folder.join("tokenizer_config.json");
        if let Some(json) = json_file::read_optional(&config)? {
            for (name, source) in configured(&config, &json["chat_template"])? {
                sources.entry(name).or_insert(source);
            }
        }
        for (name, source) in additional(&folder.join("additional_chat_templates"))? {
            sources.entry(name).or_insert(source);
        }
        if sources.is_empty() {
            return Err(ModelError::NoChatTemplate {
                path: folder.into(),
                looked: "chat_template.jinja, tokenizer_config.json, additional_chat_templates"
                    .into(),
            });
        }
        Self::compile(folder.into(), sources, tokenizer.named_tokens())
    }

    /// The templates in a GGUF file: `tokenizer.chat_template`, and
    /// `tokenizer.chat_template.NAME` for others.
    ///
    /// # Errors
    /// No template, or one that does not compile.
    pub fn from_gguf(file: &GgufFile, tokenizer: &Tokenizer) -> Result<Self, ModelError> {
        const KEY: &str = "tokenizer.chat_template";
        let mut sources = BTreeMap::new();
        for key in file.metadata().keys() {
            let name = match key.strip_prefix(KEY) {
                Some("") => DEFAULT,
                Some(rest) => match rest.strip_prefix('.') {
                    Some(name) => name,
                    None => continue, // the list of names
                },
                None => continue,
            };
            sources.insert(name.to_owned(), file.str(key)?.to_owned());
        }
        if sources.is_empty() {
            return Err(ModelError::NoChatTemplate {
                path: file.path().into(),
                looked: KEY.into(),
            });
        }
        Self::compile(file.path().into(), sources, tokenizer.named_tokens())
    }

    fn compile(
        path: PathBuf,
        sources: BTreeMap<String, String>,
        tokens: &BTreeMap<String, String>,
    ) -> Result<Self, ModelError> {
        let mut environment = environment::new();
        for (name, source) in &sources {
            environment::add(&mut environment, name, source).map_err(|message| {
                ModelError::Template {
                    path: path.clone(),
                    message,
                }
            })?;
        }
        Ok(Self {
            path,
            environment,
            sources,
            tokens: tokens.clone(),
        })
    }
}

fn read(path: &Path) -> Result<String, ModelError> {
    std::fs::read_to_string(path).map_err(|source| ModelError::io(path, "read", source))
}

/// Names and sources from `tokenizer_config.json`.
fn configured(path: &Path, value: &Json) -> Result<Vec<(String, String)>, ModelError> {
    let wrong = |got: &Json| {
        let expected = "text, or a list of objects with `name` and `template`";
        let got: String = got.to_string().chars().take(80).collect();
        ModelError::field(path, "chat_template", expected, got)
    };
    match value {
        Json::Null => Ok(Vec::new()),
        Json::String(source) => Ok(vec![(DEFAULT.to_owned(), source.clone())]),
        Json::Array(entries) => entries
            .iter()
            .map(
                |entry| match (entry["name"].as_str(), entry["template"].as_str()) {
                    (Some(name), Some(source)) => Ok((name.to_owned(), source.to_owned())),
                    _ => Err(wrong(entry)),
                },
            )
            .collect(),
        other => Err(wrong(other)),
    }
}

/// Names and sources of the files in a folder that need not be there.
fn additional(folder: &Path) -> Result<Vec<(String, String)>, ModelError> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let failed = |source| ModelError::io(folder, "read", source);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_stem().and_then(|name| name.to_str());
        if let (Some("jinja"), Some(name)) = (path.extension().and_then(|end| end.to_str()), name) {
            found.push((name.to_owned(), read(&path)?));
        }
    }
    Ok(found)
}
