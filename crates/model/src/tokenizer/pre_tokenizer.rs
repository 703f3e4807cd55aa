//! How byte-level BPE vocabularies cut text into words, by the name that GGUF files give it
//! (`tokenizer.ggml.pre`).
//!
//! The patterns are those of the models' own `tokenizer.json`; which name means which pattern,
//! and which names exist, is llama.cpp's convention (`src/llama-vocab.cpp`).

/// How a vocabulary cuts text and looks up words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PreTokenizer {
    /// Applied one after the other; matches and what lies between them become pieces.
    pub(super) patterns: &'static [&'static str],
    /// What a piece is before merging.
    pub(super) alphabet: Alphabet,
    /// What happens to a piece that is in the vocabulary as a whole.
    pub(super) whole_words: WholeWords,
    /// Whether a text begins with BOS if the file does not say.
    pub(super) bos: DefaultBos,
}

/// What the merges work on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alphabet {
    /// One printable character for each byte.
    Bytes,
    /// The text itself with `▁` for spaces, and byte tokens for what is not in the vocabulary.
    Characters,
}

/// What happens to a piece that is in the vocabulary as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WholeWords {
    /// It is that token, whatever the merges say.
    Taken,
    /// It is merged like any other.
    Merged,
}

/// Whether a text begins with BOS if the file does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DefaultBos {
    Added,
    None,
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const BAILING: &str = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+";
const SEED_CODER: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+";
const MINICPM5: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const BLOOM: &str = r" ?[^(\s|.,!?…。，、।۔،)]+";
const DIGITS_1_TO_3: &str = r"\p{N}{1,3}";
const DIGIT: &str = r"\p{N}";
const THREE_DIGITS: &str = "[0-9][0-9][0-9]";
const LINE_END: &str = "[\r\n]";
const HAN_AND_HANGUL: &str = "[一-龥ࠀ-一가-퟿]+";
const HAN_AND_KANA: &str = "[一-龥\u{3040}-\u{309f}\u{30a0}-\u{30ff}]+";
const DEEPSEEK_LETTERS: &str = "\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\u{1f7d}ᾀ-ᾴᾶ-ᾼ\u{1fbe}ῂ-ῄῆ-ῌῐ-\u{1fd3}ῖ-\u{1fdb}ῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u{2126}ℨ\u{212a}-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+";
const DEEPSEEK_MARKS: &str = "\\s?[!-/:-~！-／：-～‘-‟\u{3000}-。]+";
const DEEPSEEK_V3: &str = "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+";
const FALCON_MARKS: &str = r"[\p{P}\$\+<=>\^~\|`]+";
const DEFAULT_MARKS: &str = r"[\p{P}\$\+<=>\^~\|]+";
/// `\s+$` of the original, with the same matches: a match begins where a run of spaces does.
/// Said so, a run that ends elsewhere is looked at once and not from each of its characters.
const TRAILING_SPACE: &str = r"(?<!\s)\s+$";
const LINES: &str = "[^\\n]+|[\\n]+";

/// The names that this build knows, with what they mean.
const TABLE: &[(&[&str], PreTokenizer)] = &[
    (
        &[
            "llama-bpe",
            "llama3",
            "llama-v3",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
        ],
        PreTokenizer {
            bos: DefaultBos::Added,
            ..taken(&[LLAMA3])
        },
    ),
    (&["dbrx", "smaug-bpe", "chatglm-bpe"], merged(&[LLAMA3])),
    (&["glm4", "glm5"], taken(&[LLAMA3])),
    (
        &[
            "qwen2",
            "deepseek-r1-qwen",
            "stablelm2",
            "hunyuan",
            "megrez",
            "solar-open",
            "grok-2",
            "kormo",
            "f2llmv2",
        ],
        merged(&[QWEN2]),
    ),
    (&["qwen35"], merged(&[QWEN35])),
    (
        &["deepseek-llm"],
        merged(&[
            LINE_END,
            DEEPSEEK_LETTERS,
            DEEPSEEK_MARKS,
            TRAILING_SPACE,
            HAN_AND_HANGUL,
            r"\p{N}+",
        ]),
    ),
    (
        &["deepseek-coder"],
        merged(&[LINE_END, r"\s?\p{L}+", r"\s?\p{P}+", HAN_AND_HANGUL, DIGIT]),
    ),
    (
        &["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"],
        merged(&[DIGITS_1_TO_3, HAN_AND_KANA, DEEPSEEK_V3]),
    ),
    (
        &[
            "gpt-2",
            "phi-2",
            "mpt",
            "olmo",
            "jais",
            "jina-es",
            "jina-de",
            "jina-v2-es",
            "jina-v2-de",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "modern-bert",
            "exaone4",
            "trillion",
            "granite-docling",
        ],
        merged(&[GPT2]),
    ),
    (
        &[
            "smollm",
            "starcoder",
            "refact",
            "command-r",
            "codeshell",
            "exaone",
            "minerva-7b",
            "mellum2",
        ],
        merged(&[DIGIT, GPT2]),
    ),
    (&["falcon"], merged(&[FALCON_MARKS, GPT2, THREE_DIGITS])),
    (
        &["default"],
        merged(&[DEFAULT_MARKS, GPT2, r"\p{N}+", THREE_DIGITS]),
    ),
    (
        &["tekken"],
        PreTokenizer {
            bos: DefaultBos::Added,
            ..taken(&[TEKKEN])
        },
    ),
    (
        &["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"],
        merged(&[GPT4O]),
    ),
    (
        &["tiny_aya", "cohere2moe"],
        merged(&[r"\d{1,3}(?=(?:\d{3})*\b)", GPT4O]),
    ),
    (
        &["bailingmoe", "bailingmoe2", "llada-moe"],
        merged(&[BAILING]),
    ),
    (&["seed-coder"], merged(&[SEED_CODER])),
    (&["minicpm5"], taken(&[DIGITS_1_TO_3, MINICPM5])),
    (&["poro-chat", "bloom", "gpt3-finnish"], merged(&[BLOOM])),
    (&["viking"], merged(&[BLOOM, DIGIT])),
    (
        &["gemma4"],
        PreTokenizer {
            alphabet: Alphabet::Characters,
            bos: DefaultBos::Added,
            ..merged(&[LINES])
        },
    ),
];

const fn merged(patterns: &'static [&'static str]) -> PreTokenizer {
    PreTokenizer {
        patterns,
        alphabet: Alphabet::Bytes,
        whole_words: WholeWords::Merged,
        bos: DefaultBos::None,
    }
}

const fn taken(patterns: &'static [&'static str]) -> PreTokenizer {
    PreTokenizer {
        whole_words: WholeWords::Taken,
        ..merged(patterns)
    }
}

/// What the name means, if this build knows it.
pub(super) fn by_name(name: &str) -> Option<PreTokenizer> {
    TABLE
        .iter()
        .find(|(names, _)| names.contains(&name))
        .map(|(_, found)| *found)
}

/// The first name of every entry that cuts text with these patterns, in this order.
pub(super) fn by_patterns(patterns: &[String]) -> Vec<(&'static str, PreTokenizer)> {
    let same = |known: &PreTokenizer| {
        let pairs = known.patterns.iter().zip(patterns);
        known.patterns.len() == patterns.len() && pairs.into_iter().all(|(a, b)| a == b)
    };
    TABLE
        .iter()
        .filter(|(_, known)| known.alphabet == Alphabet::Bytes && same(known))
        .map(|(names, known)| (names[0], *known))
        .collect()
}

/// What the steps of a `tokenizer.json` are in these patterns.
pub(super) mod step {
    /// `ByteLevel` with its own pattern.
    pub(crate) const BYTE_LEVEL: &str = super::GPT2;
    /// `Digits` one by one.
    pub(crate) const EACH_DIGIT: &str = super::DIGIT;
    /// `Digits` in runs.
    pub(crate) const RUNS_OF_DIGITS: &str = r"\p{N}+";
    /// Written in `tokenizer.json`, and what this table writes for it.
    pub(crate) const TRAILING_SPACE: (&str, &str) = (r"\s+$", super::TRAILING_SPACE);
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
    use tokenizers::tokenizer::PreTokenizer as _;
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, SplitDelimiterBehavior};

    #[test]
    fn each_name_is_there_once_and_each_pattern_compiles() {
        let mut names: Vec<&str> = TABLE
            .iter()
            .flat_map(|(names, _)| names.iter().copied())
            .collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
        for pattern in TABLE.iter().flat_map(|(_, found)| found.patterns) {
            let pattern = SplitPattern::Regex((*pattern).to_owned());
            assert!(Split::new(pattern, SplitDelimiterBehavior::Isolated, false).is_ok());
        }
        assert_eq!(by_name("no such thing"), None);
    }

    proptest::proptest! {
        #[test]
        fn trailing_space_matches_what_the_original_matches(text in "[ \n\ta]{0,12}") {
            let pieces = |pattern: &str| {
                let pattern = SplitPattern::Regex(pattern.to_owned());
                let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false).unwrap();
                let mut pieces = PreTokenizedString::from(text.as_str());
                split.pre_tokenize(&mut pieces).unwrap();
                let found = pieces.get_splits(OffsetReferential::Original, OffsetType::Byte);
                found.into_iter().map(|(_, range, _)| range).collect::<Vec<_>>()
            };
            proptest::prop_assert_eq!(pieces(TRAILING_SPACE), pieces(r"\s+$"));
        }
    }
}
