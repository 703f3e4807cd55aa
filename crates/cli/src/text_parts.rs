//! The text side of a model: tokenizer, chat template, what ends an answer, and the
//! sampling that its makers recommend; files of the user's take the place of the model's.

use crate::args::ModelArgs;
use crate::config::{Origin, Setting};
use crate::error::Failure;
use crate::session::Located;
use anyhow::Result;
use data::{Prompt, TokenId};
use engine::Text;
use model::{ChatTemplate, Date, GenerationConfig, ModelError, ModelFiles, Tokenizer};
use serde_json::{Map, Value};
use std::path::Path;

/// Files of the user's that take the place of the model's.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct OwnFiles<'a> {
    pub(crate) tokenizer: Option<&'a Path>,
    pub(crate) chat_template: Option<&'a Path>,
}

/// Everything about a model's text that lies beside its weights.
#[derive(Debug)]
pub(crate) struct TextParts {
    tokenizer: Tokenizer,
    /// Base models have none.
    template: Option<ChatTemplate>,
    pub(crate) eos_ids: Vec<TokenId>,
    recommended: GenerationConfig,
}

impl TextParts {
    /// Reads the text side of a model, with the user's files in the place of the model's.
    ///
    /// # Errors
    /// A file that is damaged or, for the tokenizer, missing.
    pub(crate) fn of(located: &Located, own: OwnFiles<'_>) -> Result<Self> {
        // A shape has no text side; the embedded model's serves.
        let embedded = match located.shape() {
            Some(_) => Some(ModelFiles::from_static(crate::embedded::GGUF)?),
            None => None,
        };
        let files = embedded.as_ref().unwrap_or(&located.files);
        let tokenizer = match own.tokenizer {
            Some(path) => tokenizer_at(path)?,
            None => files.tokenizer()?,
        };
        let template = match own.chat_template {
            Some(path) => Some(ChatTemplate::from_file(path, &tokenizer)?),
            None => optional(files.chat_template(&tokenizer))?,
        };
        let recommended = files.generation_config()?;
        // All of these end an answer; the files of one model often name only some of them.
        let mut eos_ids = recommended.eos_token_ids.clone();
        eos_ids.extend(&located.model.eos_token_ids);
        eos_ids.extend(tokenizer.eos_ids());
        Ok(Self {
            eos_ids: distinct(eos_ids),
            tokenizer,
            template,
            recommended,
        })
    }

    /// Names of the chat templates.
    pub(crate) fn template_names(&self) -> Vec<&str> {
        self.template.iter().flat_map(ChatTemplate::names).collect()
    }

    /// The recommended sampling as a layer of the configuration.
    pub(crate) fn recommended_settings(&self) -> Vec<Setting> {
        recommended_settings(&self.recommended)
    }

    /// Ready to read and write text.
    ///
    /// # Errors
    /// A date that is none.
    pub(crate) fn into_text(self, args: &ModelArgs) -> Result<Text> {
        text(self.tokenizer, self.template, self.eos_ids, args)
    }
}

/// The text side from the user's files alone; the template may be that of the tokenizer's folder.
///
/// # Errors
/// A file that is missing or cannot be used.
pub(crate) fn from_files(args: &ModelArgs) -> Result<Text> {
    let path = args
        .tokenizer
        .as_deref()
        .unwrap_or(Path::new("tokenizer.json"));
    let tokenizer = tokenizer_at(path)?;
    let template = match &args.chat_template {
        Some(path) => Some(ChatTemplate::from_file(path, &tokenizer)?),
        None => optional(ChatTemplate::from_folder(folder_of(path), &tokenizer))?,
    };
    let eos_ids = tokenizer.eos_ids().to_vec();
    text(tokenizer, template, eos_ids, args)
}

/// The token ids of a prompt. Unlike the engine's own, the error of a template that refuses
/// the conversation stays apart from that of a request that was wrong anyway.
///
/// # Errors
/// No template, a template that refuses or fails.
pub(crate) fn tokenize(text: &Text, prompt: &Prompt) -> Result<Vec<TokenId>> {
    if let (Prompt::Messages(messages), Some(template)) = (prompt, text.template()) {
        return Ok(template.encode(text.tokenizer(), &text.conversation(messages))?);
    }
    Ok(text.tokenize(prompt)?)
}

fn text(
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
    eos_ids: Vec<TokenId>,
    args: &ModelArgs,
) -> Result<Text> {
    let date = match &args.date {
        Some(date) => date
            .parse()
            .map_err(|error| Failure::usage(format!("--date: {error}")))?,
        None => Date::default(),
    };
    let variables: Map<String, Value> = args
        .template_var
        .iter()
        .map(|(name, value)| {
            let parsed = serde_json::from_str(value);
            (
                name.clone(),
                parsed.unwrap_or_else(|_| Value::String(value.clone())),
            )
        })
        .collect();
    Ok(Text::new(tokenizer, template, eos_ids)
        .with_template_variables(variables)
        .with_template_date(date))
}

/// The tokenizer at `path`: a `tokenizer.json`, or the folder that holds one.
fn tokenizer_at(path: &Path) -> Result<Tokenizer> {
    if !path.is_dir() && path.file_name().is_none_or(|name| name != "tokenizer.json") {
        let path = path.display();
        return Err(Failure::usage(format!(
            "--tokenizer {path}: expected a tokenizer.json or the folder of one"
        )));
    }
    Ok(Tokenizer::from_folder(folder_of(path))?)
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        _ if path.is_dir() => path,
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// A model without a template is no error until somebody wants to chat.
fn optional(template: Result<ChatTemplate, ModelError>) -> Result<Option<ChatTemplate>> {
    match template {
        Ok(template) => Ok(Some(template)),
        Err(ModelError::NoChatTemplate { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn distinct(ids: Vec<TokenId>) -> Vec<TokenId> {
    let mut distinct = Vec::with_capacity(ids.len());
    for id in ids {
        if !distinct.contains(&id) {
            distinct.push(id);
        }
    }
    distinct
}

fn recommended_settings(recommended: &GenerationConfig) -> Vec<Setting> {
    let greedy = recommended.do_sample == Some(false);
    // Through text, so that 0.6 stays 0.6 and does not become the nearest f32 in decimal.
    let number = |value: f32| value.to_string().parse().map(toml::Value::Float).ok();
    let temperature = if greedy {
        Some(0.0)
    } else {
        recommended.temperature
    };
    let values = [
        ("sampling.temperature", temperature.and_then(number)),
        (
            "sampling.top_k",
            recommended
                .top_k
                .map(|k| toml::Value::Integer(i64::from(k))),
        ),
        ("sampling.top_p", recommended.top_p.and_then(number)),
        ("sampling.min_p", recommended.min_p.and_then(number)),
        (
            "sampling.repetition_penalty",
            recommended.repetition_penalty.and_then(number),
        ),
    ];
    let origin = || Origin::Model("generation_config.json".into());
    values
        .into_iter()
        .filter_map(|(key, value)| {
            Some(Setting {
                key,
                value: value?,
                origin: origin(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recommendations_become_settings() {
        let check = |config: GenerationConfig, expected: &[&str]| {
            let settings = recommended_settings(&config);
            let shown: Vec<_> = settings
                .iter()
                .map(|one| format!("{}={}", one.key, one.value))
                .collect();
            assert_eq!(shown, expected);
        };
        check(GenerationConfig::default(), &[]);
        let some = GenerationConfig {
            temperature: Some(0.6),
            top_k: Some(20),
            ..GenerationConfig::default()
        };
        check(
            some.clone(),
            &["sampling.temperature=0.6", "sampling.top_k=20"],
        );
        check(
            GenerationConfig {
                do_sample: Some(false),
                ..some
            },
            &["sampling.temperature=0.0", "sampling.top_k=20"],
        );
    }

    #[test]
    fn ids_stay_in_order_and_once() {
        assert_eq!(distinct(vec![3, 1, 3, 2, 1]), [3, 1, 2]);
    }
}
