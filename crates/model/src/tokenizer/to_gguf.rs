//! A folder's tokenizer as the metadata of a GGUF file.
//!
//! A GGUF names a pre-tokenizer where a `tokenizer.json` spells one out; the name is found by the
//! patterns, and then both tokenizers are asked to encode the same texts: what a GGUF cannot say
//! is refused here instead of being read differently later.
//!
//! Source: the keys of ggml's `docs/gguf.md`; token types as llama.cpp numbers them.

use super::from_gguf::{ENDS, byte_token};
use super::from_json::{Spelling, spelling};
use super::pre_tokenizer::{self, PreTokenizer, WholeWords, step};
use super::{Backend, Special, Tokenizer};
use crate::{GgufArray, GgufFile, GgufHead, GgufValue, ModelError, json_file};
use data::TokenId;
use serde_json::Value;
use std::path::{Path, PathBuf};
use tokenizers::tokenizer::Model as _;

const NORMAL: i64 = 1;
const UNKNOWN: i64 = 2;
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;
const UNUSED: i64 = 5;
const BYTE: i64 = 6;

/// What both tokenizers must cut alike: contractions, digits of several scripts, runs of spaces
/// and of line ends at every place, marks, letters without case, what is outside the BMP.
const PROBES: &[&str] = &[
    "Hello, world! It's 3.14159; we'll SEE what THEY'LL do, won't we?",
    " leading and  two   three    four spaces, trailing   ",
    "line\nline\n\nline\r\n  indented\n\t\ttabs\t \n ",
    "if (x[1] != 0x1F) { return \"a_b-c/d\\\\e\"; } // 100% <b>&amp;</b> #tag @me",
    "naïve café Straße ÆØÅ Ελληνικά кириллица 日本語の文、中文。 한국어 عربى हिन्दी ไทย",
    "1 12 123 1234 12345 2024-05-17 ½ ² Ⅷ ٣٤ १२ 7x8 v2.0",
    "😀😀 👩\u{200d}🚀 “quotes” — dash… \u{a0}nbsp\u{3000}wide ''' !!! ... $$$ ~~~",
    "camelCase HTTPServer aB ABc 'S 'Ll d'D O'Neil's",
];

/// Metadata of a vocabulary, and what could not be said in it.
#[derive(Debug)]
pub(crate) struct GgufVocabularyEntries {
    pub(crate) entries: Vec<(String, GgufValue)>,
    /// Sentences for the user.
    pub(crate) notes: Vec<String>,
}

/// One folder's tokenizer on its way.
struct Conversion<'a> {
    path: PathBuf,
    json: Value,
    tokenizer: &'a Tokenizer,
    library: &'a tokenizers::Tokenizer,
    out: GgufVocabularyEntries,
}

impl GgufVocabularyEntries {
    /// Entries for the tokenizer of `folder`, which is `tokenizer`, beside an embedding of `rows`
    /// rows; `eos` are the tokens that end a text.
    ///
    /// # Errors
    /// A kind of tokenizer or a pre-tokenizer that GGUF has no name for, more tokens than rows, a
    /// file that does not encode as the folder does.
    pub(crate) fn of(
        folder: &Path,
        tokenizer: &Tokenizer,
        rows: usize,
        eos: &[TokenId],
    ) -> Result<Self, ModelError> {
        let path = folder.join("tokenizer.json");
        let bytes = std::fs::read(&path).map_err(|source| ModelError::io(&path, "read", source))?;
        let json = json_file::parse(&path, &bytes)?;
        let Backend::Library(library) = &tokenizer.backend else {
            let (expected, got) = ("a tokenizer read from a folder", "another");
            return Err(ModelError::field(&path, "the tokenizer", expected, got));
        };
        let mut conversion = Conversion {
            path,
            json,
            tokenizer,
            library,
            out: Self {
                entries: Vec::new(),
                notes: Vec::new(),
            },
        };
        conversion.run(rows, eos)?;
        Ok(conversion.out)
    }
}

impl Conversion<'_> {
    fn run(&mut self, rows: usize, eos: &[TokenId]) -> Result<(), ModelError> {
        self.check_model()?;
        let spelling = spelling(&self.path, &self.json["decoder"])?;
        match spelling {
            Spelling::ByteLevel => self.byte_pairs()?,
            Spelling::SentencePiece => self.sentence_piece()?,
        }
        self.tokens(rows, spelling)?;
        self.named(eos)?;
        self.note_flags();
        self.check()
    }

    fn set(&mut self, name: &str, value: GgufValue) {
        let key = format!("tokenizer.ggml.{name}");
        self.out.entries.push((key, value));
    }

    fn wrong(
        &self,
        field: impl Into<String>,
        expected: impl Into<String>,
        got: impl Into<String>,
    ) -> ModelError {
        ModelError::field(&self.path, field, expected, got)
    }

    fn check_model(&self) -> Result<(), ModelError> {
        let model = &self.json["model"];
        let kind = model["type"].as_str().unwrap_or("BPE");
        if kind != "BPE" {
            return Err(self.wrong("model.type", "BPE", kind));
        }
        for field in ["continuing_subword_prefix", "end_of_word_suffix"] {
            if let Some(text) = model[field].as_str().filter(|text| !text.is_empty()) {
                return Err(self.wrong(format!("model.{field}"), "null, for a GGUF", text));
            }
        }
        Ok(())
    }

    fn byte_pairs(&mut self) -> Result<(), ModelError> {
        for normalizer in nested(&self.json["normalizer"], "normalizers") {
            match normalizer["type"].as_str().unwrap_or_default() {
                "" => {}
                "NFC" => self.out.notes.push(
                    "texts are not brought to NFC when they are read with the GGUF; it has no place for that".into(),
                ),
                other => {
                    let expected = "NFC or none, for a GGUF";
                    return Err(self.wrong("normalizer", expected, other));
                }
            }
        }
        let name = self.pre_tokenizer()?;
        self.set("model", GgufValue::String("gpt2".into()));
        self.set("pre", GgufValue::String(name.into()));
        let merges = self.merges();
        self.set("merges", GgufValue::Array(GgufArray::Strings(merges)));
        Ok(())
    }

    /// The name of the pre-tokenizer.
    fn pre_tokenizer(&self) -> Result<&'static str, ModelError> {
        let patterns = self.patterns()?;
        let found = pre_tokenizer::by_patterns(&patterns);
        let Some((first, _)) = found.first() else {
            let expected = "patterns that a GGUF has a name for";
            return Err(self.wrong("pre_tokenizer", expected, format!("{patterns:?}")));
        };
        let taken = self.json["model"]["ignore_merges"].as_bool() == Some(true);
        let fits = |known: &PreTokenizer| (known.whole_words == WholeWords::Taken) == taken;
        if let Some((name, _)) = found.iter().find(|(_, known)| fits(known)) {
            return Ok(name);
        }
        // It makes no difference if the merges arrive at every word of the vocabulary anyway.
        match self.word_beyond_merges()? {
            None => Ok(first),
            Some(word) => {
                let expected = format!("{}, as `{first}` has it in a GGUF", !taken);
                let got = format!("{taken}; the token {word:?} is where they differ");
                Err(self.wrong("model.ignore_merges", expected, got))
            }
        }
    }

    /// The patterns that text is cut at, as the table of names writes them.
    fn patterns(&self) -> Result<Vec<String>, ModelError> {
        let mut patterns = Vec::new();
        for step in nested(&self.json["pre_tokenizer"], "pretokenizers") {
            let refused = || {
                let got: String = step.to_string().chars().take(120).collect();
                self.wrong("pre_tokenizer", "one that a GGUF has a name for", got)
            };
            let is = |field: &str| step[field].as_bool() == Some(true);
            match step["type"].as_str().unwrap_or_default() {
                "ByteLevel" if is("add_prefix_space") => return Err(refused()),
                "ByteLevel" if step["use_regex"].as_bool() == Some(false) => {}
                "ByteLevel" => patterns.push(step::BYTE_LEVEL.to_owned()),
                "Digits" if is("individual_digits") => patterns.push(step::EACH_DIGIT.to_owned()),
                "Digits" => patterns.push(step::RUNS_OF_DIGITS.to_owned()),
                "Split" => {
                    let isolated = match step["behavior"].as_str() {
                        Some("Isolated") => !is("invert"),
                        Some("Removed") => is("invert"), // nothing lies between the matches
                        _ => false,
                    };
                    let regex = step["pattern"]["Regex"].as_str().filter(|_| isolated);
                    let regex = regex.ok_or_else(refused)?;
                    let (theirs, ours) = step::TRAILING_SPACE;
                    patterns.push(if regex == theirs { ours } else { regex }.to_owned());
                }
                _ => return Err(refused()),
            }
        }
        Ok(patterns)
    }

    /// A word of the vocabulary that its own merges do not arrive at.
    fn word_beyond_merges(&self) -> Result<Option<String>, ModelError> {
        let tokenizers::ModelWrapper::BPE(model) = self.library.get_model() else {
            return Ok(None);
        };
        let mut merging = model.clone();
        merging.ignore_merges = false;
        let added = self.library.get_added_tokens_decoder();
        for (word, id) in self.library.get_vocab(false) {
            if added.contains_key(&id) {
                continue;
            }
            let tokens = merging
                .tokenize(&word)
                .map_err(|error| self.wrong("model", "a model of words", error.to_string()))?;
            if tokens.len() != 1 {
                return Ok(Some(word));
            }
        }
        Ok(None)
    }

    /// Merges as a GGUF spells them; those of the file were checked when it was read.
    fn merges(&self) -> Vec<String> {
        let merges = self.json["model"]["merges"].as_array();
        let spelled = |merge: &Value| match merge {
            Value::String(text) => text.clone(),
            parts => format!(
                "{} {}",
                parts[0].as_str().unwrap_or_default(),
                parts[1].as_str().unwrap_or_default()
            ),
        };
        merges.into_iter().flatten().map(spelled).collect()
    }

    fn sentence_piece(&mut self) -> Result<(), ModelError> {
        let mut prefix = None;
        for normalizer in nested(&self.json["normalizer"], "normalizers") {
            match normalizer["type"].as_str().unwrap_or_default() {
                "" | "Replace" => {}
                "Prepend" => prefix = Some(true),
                other => {
                    let expected = "Prepend, Replace or none, for a GGUF";
                    return Err(self.wrong("normalizer", expected, other));
                }
            }
        }
        for step in nested(&self.json["pre_tokenizer"], "pretokenizers") {
            if step["type"] != "Metaspace" {
                let got = step["type"].as_str().unwrap_or_default();
                let expected = "Metaspace or none, for a GGUF";
                return Err(self.wrong("pre_tokenizer", expected, got));
            }
            let space = FirstSpace::of(step);
            prefix = Some(space == FirstSpace::Always);
            let note = match space {
                FirstSpace::Never => continue,
                FirstSpace::Always => {
                    "a text that begins with a space begins with two when it is read with the GGUF"
                }
                FirstSpace::OfTexts => {
                    "a raw prompt gets no space before its first word when it is read with the GGUF; with the folder's tokenizer it does"
                }
            };
            self.out.notes.push(note.into());
        }
        self.set("model", GgufValue::String("llama".into()));
        self.set("pre", GgufValue::String("default".into()));
        self.set("add_space_prefix", GgufValue::Bool(prefix.unwrap_or(false)));
        Ok(())
    }

    /// Tokens, their types and, for SentencePiece, scores.
    fn tokens(&mut self, rows: usize, spelling: Spelling) -> Result<(), ModelError> {
        let mut texts: Vec<Option<String>> = vec![None; rows];
        for (text, id) in self.library.get_vocab(true) {
            let Some(place) = texts.get_mut(id as usize) else {
                let expected = format!("below the {rows} rows of the embedding");
                return Err(self.wrong(format!("the id of {text:?}"), expected, id.to_string()));
            };
            *place = Some(text);
        }
        let added = self.library.get_added_tokens_decoder();
        let unknown = self.tokenizer.named_tokens().get("unk_token");
        let mut kinds = Vec::with_capacity(rows);
        let mut tokens = Vec::with_capacity(rows);
        for (id, text) in (0u32..).zip(texts) {
            let Some(text) = text else {
                kinds.push(UNUSED);
                tokens.push(format!("[PAD{id}]"));
                continue;
            };
            let by_bytes = spelling == Spelling::SentencePiece;
            kinds.push(match added.get(&id) {
                _ if by_bytes && unknown == Some(&text) => UNKNOWN,
                Some(token) if token.special => CONTROL,
                Some(_) => USER_DEFINED,
                None if by_bytes && byte_token(&text).is_some() => BYTE,
                None => NORMAL,
            });
            tokens.push(text);
        }
        if spelling == Spelling::SentencePiece {
            let scores = self.scores(&tokens);
            self.set("scores", GgufValue::Array(GgufArray::Floats(scores)));
        }
        self.set("tokens", GgufValue::Array(GgufArray::Strings(tokens)));
        self.set("token_type", GgufValue::Array(GgufArray::Integers(kinds)));
        Ok(())
    }

    /// What is merged earlier has the higher score; what no merge forms is never asked for one.
    fn scores(&self, tokens: &[String]) -> Vec<f64> {
        let mut scores = vec![0.0; tokens.len()];
        let merges = self.merges();
        for (rank, merge) in merges.iter().enumerate().rev() {
            if let Some(id) = self.library.token_to_id(&merge.replace(' ', "")) {
                scores[id as usize] = -(rank as f64) - 1.0;
            }
        }
        scores
    }

    fn named(&mut self, eos: &[TokenId]) -> Result<(), ModelError> {
        let named = self.tokenizer.named_tokens();
        let id_of = |name: &str| named.get(name).and_then(|text| self.tokenizer.id_of(text));
        let own_eos = id_of("eos_token").or(eos.first().copied());
        let ids = [
            ("bos_token_id", self.tokenizer.bos_id()),
            ("eos_token_id", own_eos),
            ("unknown_token_id", id_of("unk_token")),
            ("padding_token_id", id_of("pad_token")),
        ];
        // Those that are spelled as ends are known to be, also where nothing names them.
        let known = |id: TokenId| {
            let text = self.library.id_to_token(id);
            text.is_some_and(|text| ENDS.contains(&text.as_str()))
        };
        let others = eos.iter().copied();
        let others: Vec<TokenId> = others
            .filter(|id| Some(*id) != own_eos && !known(*id))
            .collect();
        let slots = ["eot_token_id", "eom_token_id"];
        if let Some(extra) = others.get(slots.len()) {
            let expected = "at most three tokens that end a text, for a GGUF";
            return Err(self.wrong("eos_token_id", expected, format!("{extra} as well")));
        }
        let others = slots.into_iter().zip(others.into_iter().map(Some));
        for (key, id) in ids.into_iter().chain(others) {
            if let Some(id) = id {
                self.set(key, GgufValue::U32(id));
            }
        }
        let add_bos = match (&*self.tokenizer.prompt_prefix, self.tokenizer.bos_id()) {
            ([], _) => false,
            ([first], Some(bos)) if *first == bos => true,
            (other, _) => {
                let expected = "nothing or BOS before every text, for a GGUF";
                return Err(self.wrong("post_processor", expected, format!("{other:?}")));
            }
        };
        self.set("add_bos_token", GgufValue::Bool(add_bos));
        Ok(())
    }

    fn note_flags(&mut self) {
        let added = self.library.get_added_tokens_decoder();
        let mut flagged: Vec<&str> = added
            .values()
            .filter(|token| token.lstrip || token.rstrip || token.single_word)
            .map(|token| token.content.as_str())
            .collect();
        flagged.sort_unstable();
        if let Some(first) = flagged.first() {
            let count = flagged.len();
            self.out.notes.push(format!(
                "{first} ({count} in all): spaces beside it are kept when read with the GGUF; it has no place for lstrip, rstrip or single_word"
            ));
        }
    }

    /// Reads what was made, and holds it against the folder's tokenizer.
    fn check(&self) -> Result<(), ModelError> {
        let mut head = GgufHead::default();
        for (key, value) in &self.out.entries {
            head.set(key.clone(), value.clone());
        }
        let theirs = Tokenizer::from_gguf(&GgufFile::from_vec(head.encode())?)?;
        let start = self
            .tokenizer
            .bos_id()
            .or(self.tokenizer.eos.first().copied());
        let start = start.and_then(|id| self.library.id_to_token(id));
        let steps = nested(&self.json["pre_tokenizer"], "pretokenizers");
        let space = steps.into_iter().map(FirstSpace::of).next_back();
        for probe in PROBES {
            if space == Some(FirstSpace::Always) && probe.starts_with(' ') {
                continue; // noted
            }
            let mut texts = vec![];
            if space != Some(FirstSpace::OfTexts) {
                texts.push((*probe).to_owned());
            }
            texts.extend(start.as_ref().map(|start| format!("{start}{probe}")));
            for text in texts {
                let here = self.tokenizer.encode(&text, Special::Parse)?;
                let there = theirs.encode(&text, Special::Parse)?;
                if here == there {
                    continue;
                }
                let at = here.iter().zip(&there).take_while(|(a, b)| a == b).count();
                let show = |ids: &[TokenId]| {
                    let ids = ids.iter().skip(at).take(4);
                    ids.map(|id| self.library.id_to_token(*id).unwrap_or_default())
                        .collect::<Vec<_>>()
                };
                let expected = format!(
                    "a tokenizer that a GGUF can say; its reader makes {:?} of {text:?} from token {at} on",
                    show(&there)
                );
                let got = format!("{:?}", show(&here));
                return Err(self.wrong("the tokenizer", expected, got));
            }
        }
        Ok(())
    }
}

/// The step itself, or the steps of a sequence.
fn nested<'a>(value: &'a Value, list: &str) -> Vec<&'a Value> {
    match (value, value[list].as_array()) {
        (Value::Null, _) => vec![],
        (_, Some(inner)) => inner.iter().flat_map(|step| nested(step, list)).collect(),
        (one, None) => vec![one],
    }
}

/// Where a `Metaspace` step puts a space before a word that has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FirstSpace {
    /// Before every text, and after every control token in it.
    Always,
    /// Before every text.
    OfTexts,
    Never,
}

impl FirstSpace {
    fn of(step: &Value) -> Self {
        match step["prepend_scheme"].as_str() {
            _ if step["type"] != "Metaspace" => Self::Never,
            Some("first") => Self::OfTexts,
            Some("never") => Self::Never,
            Some(_) => Self::Always,
            None if step["add_prefix_space"].as_bool() == Some(false) => Self::Never,
            None => Self::Always,
        }
    }
}
