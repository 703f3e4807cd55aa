//! Text to token ids and back.
//!
//! A [`Tokenizer`] is read from a folder with a `tokenizer.json`, or rebuilt from the
//! vocabulary inside a GGUF file. It knows no chat template: [`Tokenizer::encode_rendered`]
//! takes what a template made.
//!
//! Three kinds of text are encoded, and they differ in what may become a control token
//! (`<|eot_id|>`, `<s>`, …):
//!
//! | text | method | control tokens spelled in it | BOS |
//! |---|---|---|---|
//! | a raw prompt | [`Tokenizer::encode_prompt_text`] | stay text | if the tokenizer adds one |
//! | a rendered conversation | [`Tokenizer::encode_rendered`] | those of the template are taken, those of the messages stay text | only the template's own |
//! | anything else | [`Tokenizer::encode`] | as [`Special`] says | none |

mod added;
mod byte_level;
mod detokenizer;
mod from_gguf;
mod from_json;
mod pre_tokenizer;
mod spm;
mod to_gguf;

pub use detokenizer::{Detokenizer, Start};
pub(crate) use to_gguf::GgufVocabularyEntries;

use crate::ModelError;
use added::{AddedTokens, Fragment};
use data::TokenId;
use spm::Spm;
use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use tokenizers::tokenizer::{Model as _, NormalizedString, Normalizer as _, PreTokenizer as _};
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, Token};

/// What happens to control tokens that a text spells out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// They are text like any other: the right choice for whatever a user wrote.
    AsText,
    /// They become the control token: for text that we wrote.
    Parse,
}

/// Which tokens [`Tokenizer::decode`] shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// Control tokens leave no trace in the text.
    TextOnly,
    /// Control tokens are spelled out.
    Everything,
}

/// Text made by a chat template, and the places where a message spelled out a control token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rendered {
    /// The whole text.
    pub text: String,
    /// Byte offsets in `text` across which no control token may be read, in ascending order:
    /// one inside each control token that came from a message and not from the template.
    pub shields: Vec<usize>,
}

/// Token ids of a text and back. What becomes a control token depends on who wrote the text:
/// [`Tokenizer::encode_prompt_text`], [`Tokenizer::encode_rendered`], [`Tokenizer::encode`].
#[derive(Debug)]
pub struct Tokenizer {
    path: PathBuf,
    backend: Backend,
    added: AddedTokens,
    bytes: TokenBytes,
    prompt_prefix: Vec<TokenId>,
    bos: Option<TokenId>,
    eos: Vec<TokenId>,
    named: BTreeMap<String, String>,
    strip_leading_space: bool,
}

#[derive(Debug)]
enum Backend {
    Library(Box<tokenizers::Tokenizer>),
    Spm(Box<Spm>),
}

/// What the two readers find out.
struct Parts {
    path: PathBuf,
    backend: Backend,
    added: AddedTokens,
    bytes: TokenBytes,
    prompt_prefix: Vec<TokenId>,
    bos: Option<TokenId>,
    eos: Vec<TokenId>,
    named: BTreeMap<String, String>,
    strip_leading_space: bool,
}

/// Ids a token may have; as many rows as the embedding of a model may have at most.
const MAX_ID: TokenId = (1 << 24) - 1;

/// The bytes of every token, end to end.
#[derive(Debug, Default)]
struct TokenBytes {
    bytes: Vec<u8>,
    spans: Vec<Option<(usize, usize)>>,
}

impl TokenBytes {
    fn set(&mut self, id: TokenId, bytes: &[u8]) {
        let index = id as usize;
        if self.spans.len() <= index {
            self.spans.resize(index + 1, None);
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.spans[index] = Some((start, self.bytes.len()));
    }

    fn get(&self, id: TokenId) -> Option<&[u8]> {
        let (start, end) = (*self.spans.get(id as usize)?)?;
        Some(&self.bytes[start..end])
    }
}

impl Tokenizer {
    fn new(parts: Parts) -> Self {
        let Parts {
            path,
            backend,
            added,
            bytes,
            prompt_prefix,
            bos,
            eos,
            named,
            strip_leading_space,
        } = parts;
        Self {
            path,
            backend,
            added,
            bytes,
            prompt_prefix,
            bos,
            eos,
            named,
            strip_leading_space,
        }
    }

    /// The file the vocabulary is from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Token ids of `text`, with nothing added.
    ///
    /// # Errors
    /// The tokenizer library refuses the text.
    pub fn encode(&self, text: &str, special: Special) -> Result<Vec<TokenId>, ModelError> {
        self.encode_fragments(text, special, &[])
    }

    /// Token ids of a raw prompt: the control tokens that the tokenizer puts before every text
    /// (BOS, for most), then the text, in which nothing is read as a control token.
    ///
    /// # Errors
    /// The tokenizer library refuses the text.
    pub fn encode_prompt_text(&self, text: &str) -> Result<Vec<TokenId>, ModelError> {
        let mut tokens = self.prompt_prefix.clone();
        tokens.extend(self.encode(text, Special::AsText)?);
        Ok(tokens)
    }

    /// Token ids of a rendered conversation, with nothing added. Without shields this is
    /// `encode(text, Special::Parse)`; a control token that lies across a shield stays text,
    /// and what surrounds it is encoded as one text with it.
    ///
    /// # Errors
    /// The tokenizer library refuses the text.
    pub fn encode_rendered(&self, rendered: &Rendered) -> Result<Vec<TokenId>, ModelError> {
        self.encode_fragments(&rendered.text, Special::Parse, &rendered.shields)
    }

    /// Offsets in `text` that lie one character inside a control token spelled there: where a
    /// shield must be for none of them to be read.
    pub fn control_tokens_in(&self, text: &str) -> Vec<usize> {
        self.added.control_tokens_in(text)
    }

    /// The text of `tokens`. Bytes that are not UTF-8 become U+FFFD, one for each maximal
    /// invalid piece. A SentencePiece vocabulary's own leading space is dropped.
    pub fn decode(&self, tokens: &[TokenId], show: Show) -> String {
        let mut detokenizer = self.detokenizer(Start::OfText, show);
        let mut text: String = tokens
            .iter()
            .map(|token| detokenizer.push(*token))
            .collect();
        text.push_str(&detokenizer.finish());
        text
    }

    /// Decodes token by token.
    pub fn detokenizer(&self, start: Start, show: Show) -> Detokenizer<&Self> {
        Detokenizer::new(self, start, show)
    }

    /// The bytes a token stands for in decoded text; a control token's are its spelling.
    /// `None` for an id that no token has.
    pub fn token_bytes(&self, id: TokenId) -> Option<&[u8]> {
        self.bytes.get(id)
    }

    /// One more than the highest token id. (The model may have more rows of logits.)
    pub fn vocab_size(&self) -> usize {
        self.bytes.spans.len()
    }

    /// True for tokens that structure the text and are no part of it. None of these ever
    /// comes out of a text encoded with [`Special::AsText`].
    pub fn is_control(&self, id: TokenId) -> bool {
        self.added.is_control(id)
    }

    /// The token that begins a text, if there is one.
    pub fn bos_id(&self) -> Option<TokenId> {
        self.bos
    }

    /// Tokens that end a completion as far as the tokenizer's files say; the generation
    /// configuration, where there is one, knows better.
    pub fn eos_ids(&self) -> &[TokenId] {
        &self.eos
    }

    /// Id of the token spelled like this in the vocabulary.
    pub fn id_of(&self, token: &str) -> Option<TokenId> {
        self.added.id_of(token).or_else(|| match &self.backend {
            Backend::Library(library) => library.token_to_id(token),
            Backend::Spm(spm) => spm.id_of(token),
        })
    }

    /// Spellings of the named special tokens: `bos_token`, `eos_token`, `pad_token`, … as chat
    /// templates want them.
    pub fn named_tokens(&self) -> &BTreeMap<String, String> {
        &self.named
    }

    fn encode_fragments(
        &self,
        text: &str,
        special: Special,
        shields: &[usize],
    ) -> Result<Vec<TokenId>, ModelError> {
        let fragments = self.added.split(text, special, shields);
        match &self.backend {
            Backend::Spm(spm) => Ok(spm.encode_fragments(text, &fragments)),
            Backend::Library(library) => {
                caught(|| self.encode_with_library(library, text, special, shields, &fragments))
                    .map_err(|error| self.refused(error))
            }
        }
    }

    fn refused(&self, error: impl std::fmt::Display) -> ModelError {
        ModelError::Tokenizer {
            path: self.path.clone(),
            reason: error.to_string(),
        }
    }

    /// The library's own pipeline (normalise, pre-tokenise, model) on what lies between the
    /// added tokens.
    fn encode_with_library(
        &self,
        library: &tokenizers::Tokenizer,
        text: &str,
        special: Special,
        shields: &[usize],
        fragments: &[Fragment],
    ) -> tokenizers::Result<Vec<TokenId>> {
        let mut pieces = PreTokenizedString::from(text);
        pieces.split(|_, whole| Ok(cut(&whole, fragments)))?;
        pieces.split(|_, mut piece| {
            if let Some(normalizer) = library.get_normalizer() {
                normalizer.normalize(&mut piece)?;
            }
            let fragments = self.added.split_normalized(&piece, special, shields);
            Ok(cut(&piece, &fragments))
        })?;
        if let Some(pre_tokenizer) = library.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut pieces)?;
        }
        pieces.tokenize(|piece| library.get_model().tokenize(piece.get()))?;
        Ok(pieces
            .get_splits(OffsetReferential::Original, OffsetType::None)
            .into_iter()
            .flat_map(|(_, _, tokens)| tokens.iter().flatten().map(|token| token.id))
            .collect())
    }
}

/// Runs a part of the tokenizer library. It panics where a regular expression gives up (on
/// runs of many million spaces, say) and where parts of a `tokenizer.json` contradict each
/// other.
fn caught<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> tokenizers::Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| panic.downcast_ref::<&str>().copied());
        let reason = said.unwrap_or("no reason given");
        Err(format!("the tokenizer library gave up: {reason}").into())
    })
}

/// `whole` in pieces, those that are tokens already marked so.
fn cut(
    whole: &NormalizedString,
    fragments: &[Fragment],
) -> Vec<(NormalizedString, Option<Vec<Token>>)> {
    fragments
        .iter()
        .filter_map(|fragment| {
            let range = fragment.range();
            let piece = whole.slice(tokenizers::tokenizer::normalizer::Range::Normalized(range))?;
            let tokens = match fragment {
                Fragment::Text(_) => None,
                Fragment::Token(id, range) => {
                    Some(vec![Token::new(*id, String::new(), (0, range.len()))])
                }
            };
            Some((piece, tokens))
        })
        .collect()
}

/// Spelling to id of tokens that must be unique.
type Vocabulary = HashMap<String, TokenId>;
