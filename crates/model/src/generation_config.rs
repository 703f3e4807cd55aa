//! `generation_config.json`: how the model's authors want it sampled.

use crate::{ModelError, json_file};
use data::TokenId;
use serde_json::Value;
use std::path::Path;

/// Defaults for sampling; `None` where the file says nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GenerationConfig {
    /// Tokens that end a completion.
    pub eos_token_ids: Vec<TokenId>,
    /// False = greedy, whatever the other fields say.
    pub do_sample: Option<bool>,
    /// As [`data::Sampling::temperature`].
    pub temperature: Option<f32>,
    /// As [`data::Sampling::top_k`].
    pub top_k: Option<u32>,
    /// As [`data::Sampling::top_p`].
    pub top_p: Option<f32>,
    /// As [`data::Sampling::min_p`].
    pub min_p: Option<f32>,
    /// As [`data::Sampling::repetition_penalty`].
    pub repetition_penalty: Option<f32>,
}

impl GenerationConfig {
    /// Reads the file of a model folder; without one, nothing is said. Unknown fields are
    /// ignored, `null` is as good as missing.
    ///
    /// # Errors
    /// A file that cannot be read or is not a JSON object; a field of the wrong type.
    pub fn from_folder(folder: impl AsRef<Path>) -> Result<Self, ModelError> {
        let path = folder.as_ref().join("generation_config.json");
        match json_file::read_optional(&path)? {
            Some(json) => Self::from_json(&path, &json),
            None => Ok(Self::default()),
        }
    }

    fn from_json(path: &Path, json: &Value) -> Result<Self, ModelError> {
        if !json.is_object() {
            return Err(ModelError::field(
                path,
                "the file",
                "a JSON object",
                short(json),
            ));
        }
        let fields = Fields { path, json };
        Ok(Self {
            eos_token_ids: fields.eos_token_ids()?,
            do_sample: fields.get("do_sample", "true or false", Value::as_bool)?,
            temperature: fields.float("temperature")?,
            top_k: fields.get("top_k", "a number of tokens", as_u32)?,
            top_p: fields.float("top_p")?,
            min_p: fields.float("min_p")?,
            repetition_penalty: fields.float("repetition_penalty")?,
        })
    }
}

struct Fields<'a> {
    path: &'a Path,
    json: &'a Value,
}

impl Fields<'_> {
    fn get<T>(
        &self,
        name: &str,
        expected: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, ModelError> {
        let value = &self.json[name];
        if value.is_null() {
            return Ok(None);
        }
        let wrong = || ModelError::field(self.path, name, expected, short(value));
        read(value).map(Some).ok_or_else(wrong)
    }

    fn float(&self, name: &str) -> Result<Option<f32>, ModelError> {
        #[expect(clippy::cast_possible_truncation, reason = "sampling computes in f32")]
        self.get(name, "a number", |value| {
            value.as_f64().map(|number| number as f32)
        })
    }

    fn eos_token_ids(&self) -> Result<Vec<TokenId>, ModelError> {
        let expected = "a token id or a list of token ids";
        let ids = self.get("eos_token_id", expected, |value| match value {
            Value::Array(items) => items.iter().map(as_u32).collect(),
            // Some files write -1 for "none".
            Value::Number(number) if number.as_i64() == Some(-1) => Some(Vec::new()),
            single => as_u32(single).map(|id| vec![id]),
        })?;
        Ok(ids.unwrap_or_default())
    }
}

fn as_u32(value: &Value) -> Option<u32> {
    value.as_u64()?.try_into().ok()
}

fn short(value: &Value) -> String {
    value.to_string().chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<GenerationConfig, ModelError> {
        let json: Value = serde_json::from_str(json).unwrap();
        GenerationConfig::from_json(Path::new("m/generation_config.json"), &json)
    }

    #[test]
    fn fields_are_optional_and_unknown_ones_ignored() {
        let config = read(
            r#"{"eos_token_id": [3, 4], "temperature": 0.5, "top_k": 20, "do_sample": true,
                "top_p": null, "transformers_version": "5"}"#,
        );
        let expected = GenerationConfig {
            eos_token_ids: vec![3, 4],
            do_sample: Some(true),
            temperature: Some(0.5),
            top_k: Some(20),
            ..GenerationConfig::default()
        };
        assert_eq!(config.unwrap(), expected);
        assert_eq!(read(r#"{"eos_token_id": 7}"#).unwrap().eos_token_ids, [7]);
        assert_eq!(read("{}").unwrap(), GenerationConfig::default());
    }

    #[test]
    fn wrong_types_name_file_and_field() {
        for (json, field) in [
            (r#"{"eos_token_id": "x"}"#, "eos_token_id"),
            (r#"{"eos_token_id": [1, -2]}"#, "eos_token_id"),
            (r#"{"temperature": "hot"}"#, "temperature"),
            (r#"{"top_k": 1.5}"#, "top_k"),
            (r#"{"do_sample": 1}"#, "do_sample"),
            ("[]", "the file"),
        ] {
            let error = read(json).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("m/generation_config.json: {field}: expected")),
                "{error}"
            );
        }
    }

    #[test]
    fn a_missing_file_says_nothing_and_a_broken_one_fails() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(
            GenerationConfig::from_folder(&folder).unwrap(),
            GenerationConfig::default()
        );
        std::fs::write(folder.path().join("generation_config.json"), "{").unwrap();
        let error = GenerationConfig::from_folder(&folder)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("generation_config.json: not valid JSON"),
            "{error}"
        );
    }
}
