//! Reads the tokenizer files of a Hugging Face model folder.

use super::added::AddedTokens;
use super::from_gguf::byte_token;
use super::spm::SPACE;
use super::{Backend, MAX_ID, Parts, TokenBytes, Tokenizer, byte_level, caught};
use crate::{ModelError, json_file};
use data::TokenId;
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use tokenizers::tokenizer::{NormalizedString, Normalizer as _};

/// How the vocabulary spells bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spelling {
    /// One printable character for each byte.
    ByteLevel,
    /// Text with `▁` for spaces, and tokens like `<0x0A>` for single bytes.
    SentencePiece,
}

impl Tokenizer {
    /// Reads `tokenizer.json` of a model folder, and beside it `tokenizer_config.json` and
    /// `special_tokens_map.json` if they are there (named special tokens, `add_bos_token`).
    ///
    /// # Errors
    /// A file that is missing, is not JSON, or holds a tokenizer whose decoder is neither
    /// byte-level nor SentencePiece-like.
    pub fn from_folder(folder: impl AsRef<Path>) -> Result<Self, ModelError> {
        let folder = folder.as_ref();
        let path = folder.join("tokenizer.json");
        let bytes = std::fs::read(&path).map_err(|source| ModelError::io(&path, "read", source))?;
        let config = json_file::read_optional(&folder.join("tokenizer_config.json"))?;
        let map = json_file::read_optional(&folder.join("special_tokens_map.json"))?;
        Self::from_json(path, &bytes, config.as_ref(), map.as_ref())
    }

    fn from_json(
        path: PathBuf,
        bytes: &[u8],
        config: Option<&Value>,
        map: Option<&Value>,
    ) -> Result<Self, ModelError> {
        let json = json_file::parse(&path, bytes)?;
        check_merges(&path, &json["model"])?;
        let spelling = spelling(&path, &json["decoder"])?;
        let strip_leading_space = strips_leading_space(&json["decoder"]);
        drop(json);
        let refused = |error: tokenizers::Error| ModelError::Tokenizer {
            path: path.clone(),
            reason: error.to_string(),
        };
        let mut library = caught(|| tokenizers::Tokenizer::from_bytes(bytes)).map_err(refused)?;
        check_ids(&path, &library)?;
        // The engine decides about lengths.
        drop(library.with_truncation(None));
        library.with_padding(None);
        let added = caught(|| Ok(added_tokens(&library))).map_err(refused)?;
        let bytes = token_bytes(&library, spelling);
        let named = named_tokens(config, map);
        let id_of = |name: &str| named.get(name).and_then(|text| library.token_to_id(text));
        let (bos, eos) = (id_of("bos_token"), id_of("eos_token"));
        let prompt_prefix = match config.and_then(|config| config["add_bos_token"].as_bool()) {
            Some(true) => bos.into_iter().collect(),
            Some(false) => Vec::new(),
            None => processor_prefix(&path, &library)?,
        };
        Ok(Self::new(Parts {
            path,
            backend: Backend::Library(Box::new(library)),
            added,
            bytes,
            bos: bos.or(prompt_prefix.first().copied()),
            prompt_prefix,
            eos: eos.into_iter().collect(),
            named,
            strip_leading_space,
        }))
    }
}

/// The library trusts that each merge forms a token, and panics if one forms a text longer
/// than all tokens.
fn check_merges(path: &Path, model: &Value) -> Result<(), ModelError> {
    let (Some(vocab), Some(merges)) = (model["vocab"].as_object(), model["merges"].as_array())
    else {
        return Ok(()); // not BPE
    };
    let prefix = model["continuing_subword_prefix"]
        .as_str()
        .unwrap_or_default();
    for (index, merge) in merges.iter().enumerate() {
        let parts = match merge {
            Value::String(text) => text.split_once(' '),
            Value::Array(parts) => match parts.as_slice() {
                [left, right] => left.as_str().zip(right.as_str()),
                _ => None,
            },
            _ => None,
        };
        let forms_a_token = parts.is_some_and(|(left, right)| {
            right
                .get(prefix.len()..)
                .is_some_and(|rest| vocab.contains_key(&[left, rest].concat()))
        });
        if !forms_a_token {
            let field = format!("model.merges[{index}]");
            let expected = "two parts that form a token of the vocabulary";
            return Err(ModelError::field(path, field, expected, merge.to_string()));
        }
    }
    Ok(())
}

/// Tables here and in the model are as long as the highest id.
fn check_ids(path: &Path, library: &tokenizers::Tokenizer) -> Result<(), ModelError> {
    let all = library.get_vocab(true);
    match all.iter().find(|(_, id)| **id > MAX_ID) {
        Some((token, id)) => {
            let field = format!("the id of {token:?}");
            let expected = format!("at most {MAX_ID}");
            Err(ModelError::field(path, field, expected, id.to_string()))
        }
        None => Ok(()),
    }
}

/// The decoder and, if it is a sequence, what is in it.
fn steps(decoder: &Value) -> Vec<&Value> {
    match decoder["decoders"].as_array() {
        Some(inner) => inner.iter().flat_map(steps).collect(),
        None => vec![decoder],
    }
}

pub(super) fn spelling(path: &Path, decoder: &Value) -> Result<Spelling, ModelError> {
    for step in steps(decoder) {
        match step["type"].as_str().unwrap_or_default() {
            "ByteLevel" => return Ok(Spelling::ByteLevel),
            "Metaspace" | "ByteFallback" => return Ok(Spelling::SentencePiece),
            "Replace" if step["pattern"]["String"] == SPACE => return Ok(Spelling::SentencePiece),
            _ => {}
        }
    }
    let expected = "a decoder with ByteLevel, Metaspace or ByteFallback";
    let got = decoder["type"].as_str().unwrap_or("none").to_owned();
    Err(ModelError::field(path, "decoder", expected, got))
}

fn strips_leading_space(decoder: &Value) -> bool {
    steps(decoder)
        .into_iter()
        .any(|step| match step["type"].as_str() {
            Some("Strip") => step["content"] == " " && step["start"].as_u64() > Some(0),
            Some("Metaspace") => match step["prepend_scheme"].as_str() {
                Some(scheme) => scheme != "never",
                None => step["add_prefix_space"].as_bool() != Some(false),
            },
            _ => false,
        })
}

fn added_tokens(library: &tokenizers::Tokenizer) -> AddedTokens {
    let mut tokens: Vec<_> = library.get_added_tokens_decoder().into_iter().collect();
    tokens.sort_unstable_by_key(|(id, _)| *id);
    AddedTokens::new(tokens, |content| {
        let mut text = NormalizedString::from(content);
        match library
            .get_normalizer()
            .map(|normalizer| normalizer.normalize(&mut text))
        {
            Some(Ok(())) => text.get().to_owned(),
            Some(Err(_)) | None => content.to_owned(),
        }
    })
}

fn token_bytes(library: &tokenizers::Tokenizer, spelling: Spelling) -> TokenBytes {
    let added = library.get_added_tokens_decoder();
    let mut bytes = TokenBytes::default();
    for (token, id) in library.get_vocab(false) {
        let decoded = match spelling {
            Spelling::ByteLevel => byte_level::bytes_of(&token),
            Spelling::SentencePiece => Some(match byte_token(&token) {
                Some(byte) => vec![byte],
                None => token.replace(SPACE, " ").into_bytes(),
            }),
        };
        bytes.set(id, decoded.as_deref().unwrap_or(token.as_bytes()));
    }
    for (id, token) in added {
        // A token that is looked for in normalised text is decoded from its normalised form.
        match library.id_to_token(id) {
            Some(form) if spelling == Spelling::SentencePiece && form != token.content => {
                bytes.set(id, form.replace(SPACE, " ").as_bytes());
            }
            _ => bytes.set(id, token.content.as_bytes()),
        }
    }
    bytes
}

/// `*_token` entries of both files, as text; `tokenizer_config.json` wins.
fn named_tokens(config: Option<&Value>, map: Option<&Value>) -> BTreeMap<String, String> {
    let mut named = BTreeMap::new();
    for file in [map, config].into_iter().flatten() {
        for (name, value) in file.as_object().into_iter().flatten() {
            let text = value.as_str().or_else(|| value["content"].as_str());
            if let (true, Some(text)) = (name.ends_with("_token"), text) {
                named.insert(name.clone(), text.to_owned());
            }
        }
    }
    named
}

/// What the post-processor puts before every text.
fn processor_prefix(
    path: &Path,
    library: &tokenizers::Tokenizer,
) -> Result<Vec<TokenId>, ModelError> {
    let refused = |error: tokenizers::Error| ModelError::Tokenizer {
        path: path.into(),
        reason: error.to_string(),
    };
    let encode = |special| caught(|| library.encode_fast("a", special)).map_err(refused);
    let (with, without) = (encode(true)?, encode(false)?);
    let own: HashSet<TokenId> = without.get_ids().iter().copied().collect();
    Ok(with
        .get_ids()
        .iter()
        .copied()
        .take_while(|id| !own.contains(id))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Show, Special};
    use serde_json::json;

    /// A SentencePiece-like tokenizer of a few pieces, changed by `change`.
    fn write(folder: &Path, change: impl FnOnce(&mut Value)) {
        let special = |id: u32, content: &str| {
            json!({"id": id, "content": content, "special": true, "normalized": false,
                   "single_word": false, "lstrip": false, "rstrip": false})
        };
        let mut tokenizer = json!({
            "version": "1.0", "truncation": null, "padding": null,
            "added_tokens": [special(0, "<s>"), special(1, "</s>")],
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
            "pre_tokenizer": null,
            "post_processor": {"type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [],
                "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}},
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"}, {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
            "model": {"type": "BPE", "byte_fallback": true, "unk_token": null, "merges": ["▁ a", "▁a b"],
                "vocab": {"<s>": 0, "</s>": 1, "▁": 2, "a": 3, "b": 4, "▁a": 5, "▁ab": 6,
                          "<0xC3>": 7, "<0xA9>": 8}},
        });
        change(&mut tokenizer);
        std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    }

    fn read(change: impl FnOnce(&mut Value)) -> Result<Tokenizer, ModelError> {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), change);
        Tokenizer::from_folder(folder.path())
    }

    #[test]
    fn pieces_bytes_and_the_leading_space() {
        let tokenizer = read(|_| {}).unwrap();
        let tokens = tokenizer.encode_prompt_text("ab aé").unwrap();
        assert_eq!(tokens, [0, 6, 5, 7, 8]);
        assert_eq!(tokenizer.decode(&tokens, Show::TextOnly), "ab aé");
        assert_eq!(tokenizer.encode("</s>a", Special::Parse).unwrap(), [1, 5]);
        assert!(
            !tokenizer
                .encode("</s>a", Special::AsText)
                .unwrap()
                .contains(&1)
        );
        assert_eq!((tokenizer.bos_id(), tokenizer.vocab_size()), (Some(0), 9));
        assert_eq!(tokenizer.token_bytes(7), Some(&[0xC3][..]));
    }

    #[test]
    fn the_configuration_names_tokens_and_decides_about_bos() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), |_| {});
        let config =
            json!({"bos_token": {"content": "<s>"}, "eos_token": null, "add_bos_token": false});
        std::fs::write(
            folder.path().join("tokenizer_config.json"),
            config.to_string(),
        )
        .unwrap();
        let map = json!({"bos_token": "b", "eos_token": "</s>"});
        std::fs::write(
            folder.path().join("special_tokens_map.json"),
            map.to_string(),
        )
        .unwrap();
        let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
        assert_eq!(tokenizer.encode_prompt_text("ab").unwrap(), [6]);
        assert_eq!(
            (tokenizer.bos_id(), tokenizer.eos_ids()),
            (Some(0), &[1][..])
        );
        assert_eq!(tokenizer.named_tokens()["eos_token"], "</s>");
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let check = |change: fn(&mut Value), words: &str| {
            let text = read(change).unwrap_err().to_string();
            assert!(
                text.contains("tokenizer.json: ") && text.contains(words),
                "{text}"
            );
        };
        check(
            |json| json["model"]["merges"] = json!(["▁ab ▁ab"]),
            "model.merges[0]: expected",
        );
        check(
            |json| json["model"]["merges"] = json!([["a"]]),
            "model.merges[0]: expected",
        );
        check(
            |json| json["decoder"] = json!({"type": "WordPiece"}),
            "decoder: expected",
        );
        check(
            |json| json["model"] = json!({"type": "Nonsense"}),
            "tokenizer: ",
        );
        check(
            |json| json["model"]["vocab"]["b"] = json!(u32::MAX),
            "the id of \"b\": expected at most 16777215",
        );
        check(
            |json| json["post_processor"]["special_tokens"] = json!({}),
            "tokenizer: ",
        );
        check(|json| json["model"]["vocab"] = json!({}), "model.merges[0]");
        let folder = tempfile::tempdir().unwrap();
        let missing = Tokenizer::from_folder(folder.path())
            .unwrap_err()
            .to_string();
        assert!(
            missing.contains("cannot read") && missing.contains("tokenizer.json"),
            "{missing}"
        );
    }
}
