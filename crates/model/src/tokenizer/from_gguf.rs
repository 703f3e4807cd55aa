//! Rebuilds a tokenizer from the vocabulary in a GGUF file.

use super::added::AddedTokens;
use super::pre_tokenizer::{self, Alphabet, DefaultBos, PreTokenizer, WholeWords};
use super::spm::{SPACE, SpacePrefix, Spm};
use super::{Backend, Parts, TokenBytes, Tokenizer, Vocabulary, byte_level};
use crate::{GgufFile, ModelError};
use data::TokenId;
use std::collections::BTreeMap;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::{NormalizerWrapper, Replace};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior};

const KEY_TOKENS: &str = "tokenizer.ggml.tokens";
const KEY_MERGES: &str = "tokenizer.ggml.merges";
const KEY_SCORES: &str = "tokenizer.ggml.scores";
const KEY_TYPES: &str = "tokenizer.ggml.token_type";

/// Texts of control tokens that end a turn or a text in the model families we know; a GGUF
/// file names one or two of them only.
pub(super) const ENDS: &[&str] = &[
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|end|>",
    "<|return|>",
    "<end_of_turn>",
    "<EOT>",
    "<｜end▁of▁sentence｜>",
    "<|END_OF_TURN_TOKEN|>",
];

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Normal,
    Control,
    UserDefined,
    Byte,
}

/// What the file says, checked.
struct GgufVocabulary<'a> {
    file: &'a GgufFile,
    tokens: &'a [String],
    kinds: Vec<Kind>,
    ids: Vocabulary,
    named_ids: BTreeMap<&'static str, TokenId>,
}

impl Tokenizer {
    /// Rebuilds the tokenizer that a GGUF file carries: `tokenizer.ggml.model` must be `gpt2`
    /// (byte-level BPE), `gemma4` (BPE on characters) or `llama` (SentencePiece with scores).
    ///
    /// # Errors
    /// Fields that are missing, contradict each other or name something this build does not
    /// know (a kind of vocabulary, a pre-tokenizer).
    pub fn from_gguf(file: &GgufFile) -> Result<Self, ModelError> {
        let vocabulary = GgufVocabulary::read(file)?;
        match file.str("tokenizer.ggml.model")? {
            "llama" => vocabulary.sentence_piece(),
            model @ ("gpt2" | "gemma4") => {
                let name = match file.str_opt("tokenizer.ggml.pre")? {
                    Some(name) => name,
                    None if model == "gemma4" => "gemma4",
                    None => "default",
                };
                let known = pre_tokenizer::by_name(name).ok_or_else(|| {
                    let expected = "a pre-tokenizer this build knows";
                    ModelError::field(file.path(), "tokenizer.ggml.pre", expected, name)
                })?;
                vocabulary.byte_pairs(known)
            }
            other => {
                let expected = "`gpt2`, `gemma4` or `llama`";
                Err(ModelError::field(
                    file.path(),
                    "tokenizer.ggml.model",
                    expected,
                    other,
                ))
            }
        }
    }
}

impl<'a> GgufVocabulary<'a> {
    fn read(file: &'a GgufFile) -> Result<Self, ModelError> {
        let tokens = file.strings(KEY_TOKENS)?;
        let mut ids = Vocabulary::with_capacity(tokens.len());
        for (index, token) in tokens.iter().enumerate() {
            let id = TokenId::try_from(index).map_err(|_| {
                ModelError::field(
                    file.path(),
                    KEY_TOKENS,
                    "at most 2^32 tokens",
                    tokens.len().to_string(),
                )
            })?;
            if let Some(first) = ids.insert(token.clone(), id) {
                let got = format!("{token:?} at {first} and {id}");
                return Err(ModelError::field(
                    file.path(),
                    KEY_TOKENS,
                    "each token once",
                    got,
                ));
            }
        }
        let mut vocabulary = Self {
            file,
            tokens,
            kinds: Vec::new(),
            ids,
            named_ids: BTreeMap::new(),
        };
        vocabulary.named_ids = vocabulary.read_named_ids()?;
        vocabulary.kinds = vocabulary.read_kinds()?;
        Ok(vocabulary)
    }

    fn check_length(&self, key: &str, length: usize) -> Result<(), ModelError> {
        if length == self.tokens.len() {
            return Ok(());
        }
        let expected = format!("{} entries, one for each token", self.tokens.len());
        Err(ModelError::field(
            self.file.path(),
            key,
            expected,
            length.to_string(),
        ))
    }

    fn read_named_ids(&self) -> Result<BTreeMap<&'static str, TokenId>, ModelError> {
        let keys = [
            ("bos_token", "tokenizer.ggml.bos_token_id"),
            ("eos_token", "tokenizer.ggml.eos_token_id"),
            ("eot_token", "tokenizer.ggml.eot_token_id"),
            ("eom_token", "tokenizer.ggml.eom_token_id"),
            ("unk_token", "tokenizer.ggml.unknown_token_id"),
            ("sep_token", "tokenizer.ggml.seperator_token_id"),
            ("pad_token", "tokenizer.ggml.padding_token_id"),
        ];
        let mut named = BTreeMap::new();
        for (name, key) in keys {
            let Some(id) = self.file.u32_opt(key)? else {
                continue;
            };
            if id as usize >= self.tokens.len() {
                let expected = format!("an id below {}", self.tokens.len());
                return Err(ModelError::field(
                    self.file.path(),
                    key,
                    expected,
                    id.to_string(),
                ));
            }
            named.insert(name, id);
        }
        Ok(named)
    }

    /// Kinds as the file gives them; a token that ends texts, or is written like the marker of
    /// a turn, is control whatever the file says (old converters lost the difference).
    fn read_kinds(&self) -> Result<Vec<Kind>, ModelError> {
        let types = self.file.integers_opt(KEY_TYPES)?;
        if let Some(types) = types {
            self.check_length(KEY_TYPES, types.len())?;
        }
        let mut kinds: Vec<Kind> = match types {
            None => vec![Kind::Normal; self.tokens.len()],
            Some(types) => types
                .iter()
                .map(|number| match number {
                    2 | 3 => Kind::Control,
                    4 => Kind::UserDefined,
                    6 => Kind::Byte,
                    _ => Kind::Normal,
                })
                .collect(),
        };
        for (token, kind) in self.tokens.iter().zip(&mut kinds) {
            let marker = ["<|", "<｜"].iter().any(|start| token.starts_with(start))
                && ["|>", "｜>"].iter().any(|end| token.ends_with(end));
            if ENDS.contains(&token.as_str()) || (marker && *kind == Kind::UserDefined) {
                *kind = Kind::Control;
            }
        }
        for name in ["bos_token", "eos_token", "eot_token", "eom_token"] {
            if let Some(id) = self.named_ids.get(name) {
                kinds[*id as usize] = Kind::Control;
            }
        }
        Ok(kinds)
    }

    fn added(&self) -> AddedTokens {
        // Phi-3's own tokenizer swallows the whitespace after its control tokens, which the
        // file does not say.
        let name = self
            .file
            .str_opt("general.name")
            .ok()
            .flatten()
            .unwrap_or_default()
            .to_lowercase();
        let is_phi3 = name.contains("phi-3") || name.contains("phi3");
        let tokens = self.ids_with_kinds().filter_map(|(id, token, kind)| {
            let special = match kind {
                Kind::Control => true,
                Kind::UserDefined => false,
                Kind::Normal | Kind::Byte => return None,
            };
            let keeps = ["<unk>", "<s>", "<|endoftext|>"].contains(&token);
            let added = AddedToken::from(token, special)
                .normalized(false)
                .rstrip(is_phi3 && !keeps);
            Some((id, added))
        });
        AddedTokens::new(tokens, str::to_owned)
    }

    fn ids_with_kinds(&self) -> impl Iterator<Item = (TokenId, &'a str, Kind)> {
        (0..)
            .zip(self.tokens)
            .zip(&self.kinds)
            .map(|((id, token), kind)| (id, token.as_str(), *kind))
    }

    fn prompt_prefix(&self, default: DefaultBos) -> Result<Vec<TokenId>, ModelError> {
        let key = "tokenizer.ggml.add_bos_token";
        let add = self
            .file
            .bool_opt(key)?
            .unwrap_or(default == DefaultBos::Added);
        match (add, self.named_ids.get("bos_token")) {
            (false, _) => Ok(Vec::new()),
            (true, Some(bos)) => Ok(vec![*bos]),
            (true, None) => {
                let expected = "the id of the token that begins a text";
                Err(ModelError::missing(
                    self.file.path(),
                    "tokenizer.ggml.bos_token_id",
                    expected,
                ))
            }
        }
    }

    fn eos(&self) -> Vec<TokenId> {
        let named = ["eos_token", "eot_token", "eom_token"];
        let by_name = named
            .iter()
            .filter_map(|name| self.named_ids.get(name).copied());
        let by_text = ENDS.iter().filter_map(|text| self.ids.get(*text).copied());
        let mut all: Vec<TokenId> = by_name.chain(by_text).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    fn finish(
        self,
        backend: Backend,
        bytes: TokenBytes,
        bos: DefaultBos,
    ) -> Result<Tokenizer, ModelError> {
        let strip_leading_space =
            matches!(&backend, Backend::Spm(spm) if spm.prefix == SpacePrefix::Add);
        Ok(Tokenizer::new(Parts {
            path: self.file.path().into(),
            added: self.added(),
            prompt_prefix: self.prompt_prefix(bos)?,
            bos: self.named_ids.get("bos_token").copied(),
            eos: self.eos(),
            named: self
                .named_ids
                .iter()
                .map(|(name, id)| ((*name).to_owned(), self.tokens[*id as usize].clone()))
                .collect(),
            backend,
            bytes,
            strip_leading_space,
        }))
    }

    fn sentence_piece(self) -> Result<Tokenizer, ModelError> {
        let scores = self.file.floats_opt(KEY_SCORES)?;
        let scores = scores.ok_or_else(|| {
            ModelError::missing(self.file.path(), KEY_SCORES, "an array of floats")
        })?;
        self.check_length(KEY_SCORES, scores.len())?;
        #[expect(clippy::cast_possible_truncation, reason = "the file stores f32")]
        let scores: Vec<f32> = scores.iter().map(|score| *score as f32 + 0.0).collect(); // no -0
        if let Some(score) = scores.iter().find(|score| score.is_nan()) {
            return Err(ModelError::field(
                self.file.path(),
                KEY_SCORES,
                "numbers",
                score.to_string(),
            ));
        }
        let prefix = match self.file.bool_opt("tokenizer.ggml.add_space_prefix")? {
            Some(false) => SpacePrefix::None,
            Some(true) | None => SpacePrefix::Add,
        };
        let mut byte_tokens = [None; 256];
        for byte in 0..=255u8 {
            let spelled = [format!("<0x{byte:02X}>"), char::from(byte).to_string()];
            byte_tokens[usize::from(byte)] =
                spelled.iter().find_map(|text| self.ids.get(text).copied());
        }
        let bytes = self.piece_bytes();
        let spm = Spm {
            ids: self.ids.clone(),
            scores,
            byte_tokens,
            unknown: self.named_ids.get("unk_token").copied(),
            prefix,
        };
        self.finish(Backend::Spm(Box::new(spm)), bytes, DefaultBos::Added)
    }

    fn piece_bytes(&self) -> TokenBytes {
        let mut bytes = TokenBytes::default();
        for (id, token, kind) in self.ids_with_kinds() {
            match (kind, byte_token(token)) {
                (Kind::Byte, Some(byte)) => bytes.set(id, &[byte]),
                (Kind::Control | Kind::UserDefined, _) => bytes.set(id, token.as_bytes()),
                _ => bytes.set(id, token.replace(SPACE, " ").as_bytes()),
            }
        }
        bytes
    }

    fn byte_pairs(self, pre: PreTokenizer) -> Result<Tokenizer, ModelError> {
        let merges = self.merges()?;
        let vocab = self.ids.clone();
        let model = BPE::builder()
            .vocab_and_merges(vocab.into_iter().collect::<Vocab>(), merges)
            .ignore_merges(pre.whole_words == WholeWords::Taken)
            .byte_fallback(pre.alphabet == Alphabet::Characters)
            .build()
            .map_err(|error| self.refused(error))?;
        let mut library = tokenizers::Tokenizer::new(model);
        let mut steps = Vec::new();
        for pattern in pre.patterns {
            let pattern = SplitPattern::Regex((*pattern).to_owned());
            let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false);
            steps.push(PreTokenizerWrapper::Split(
                split.map_err(|error| self.refused(error))?,
            ));
        }
        let bytes = match pre.alphabet {
            Alphabet::Bytes => {
                steps.push(PreTokenizerWrapper::ByteLevel(ByteLevel::new(
                    false, false, false,
                )));
                self.byte_level_bytes()
            }
            Alphabet::Characters => {
                let escape = Replace::new(" ", SPACE).map_err(|error| self.refused(error))?;
                library
                    .with_normalizer(Some(NormalizerWrapper::Replace(escape)))
                    .map_err(|error| self.refused(error))?;
                self.piece_bytes()
            }
        };
        library.with_pre_tokenizer(Some(PreTokenizerWrapper::Sequence(Sequence::new(steps))));
        self.finish(Backend::Library(Box::new(library)), bytes, pre.bos)
    }

    fn refused(&self, error: impl std::fmt::Display) -> ModelError {
        ModelError::Tokenizer {
            path: self.file.path().into(),
            reason: error.to_string(),
        }
    }

    /// The merges as pairs; parts and result are all in the vocabulary.
    fn merges(&self) -> Result<Vec<(String, String)>, ModelError> {
        let merges = self.file.strings(KEY_MERGES)?;
        let wrong = |index: usize, expected: &str, got: &str| {
            let field = format!("{KEY_MERGES}[{index}]");
            ModelError::field(self.file.path(), field, expected, format!("{got:?}"))
        };
        let mut pairs = Vec::with_capacity(merges.len());
        for (index, merge) in merges.iter().enumerate() {
            // The left part may itself begin with a space where spaces are not escaped.
            let first = merge.chars().next().map_or(0, char::len_utf8);
            let cut = merge[first..].find(' ').map(|at| at + first);
            let Some(cut) = cut else {
                return Err(wrong(index, "two parts", merge));
            };
            let (left, right) = (&merge[..cut], &merge[cut + 1..]);
            let joined = [left, right].concat();
            for part in [left, right, &joined] {
                if !self.ids.contains_key(part) {
                    return Err(wrong(index, "parts and result in the vocabulary", part));
                }
            }
            pairs.push((left.to_owned(), right.to_owned()));
        }
        Ok(pairs)
    }

    fn byte_level_bytes(&self) -> TokenBytes {
        let mut bytes = TokenBytes::default();
        for (id, token, kind) in self.ids_with_kinds() {
            let decoded = match kind {
                Kind::Normal | Kind::Byte => byte_level::bytes_of(token),
                Kind::Control | Kind::UserDefined => None,
            };
            bytes.set(id, decoded.as_deref().unwrap_or(token.as_bytes()));
        }
        bytes
    }
}

/// The byte of a token spelled `<0x0A>`.
pub(super) fn byte_token(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok())?
}
