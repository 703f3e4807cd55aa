//! A tokenizer for a small model: byte-level BPE from the texts that the model will learn.
//!
//! Digits stand alone and words are cut as GPT-2 cuts them: the pre-tokenizer that GGUF files call
//! `smollm`, so that every reader of either format splits alike. No text is out of vocabulary:
//! all 256 bytes are tokens.

use crate::{Result, TrainError};
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::{AddedToken, Tokenizer};

/// Tokens of a vocabulary that are not learnt: one for each byte.
const BYTES: usize = 256;

/// `tokenizer.json` of a byte-level BPE with `vocabulary` tokens at most, learnt from `texts`.
/// The ids begin with `special` tokens, which no text is ever merged into. Equal texts in any
/// order give the same tokenizer.
///
/// # Errors
/// [`TrainError::Setting`]: the vocabulary has no room for bytes and special tokens, or a special
/// token is empty or named twice. [`TrainError::Tokenizer`]: the trainer refused.
pub fn train_tokenizer<S: AsRef<str> + Send + Sync>(
    texts: &[S],
    vocabulary: usize,
    special: &[String],
) -> Result<String> {
    check(vocabulary, special)?;
    let words = Sequence::new(vec![
        Digits::new(true).into(),
        ByteLevel::new(false, true, true).into(),
    ]);
    let mut tokenizer = Tokenizer::new(BPE::default());
    tokenizer
        .with_pre_tokenizer(Some(words))
        .with_decoder(Some(ByteLevel::new(false, true, true)));
    let marks = special.iter().map(|token| AddedToken::from(token, true));
    let bpe = BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(vocabulary)
        .min_frequency(2)
        .special_tokens(marks.collect())
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let refused = |error: tokenizers::Error| TrainError::Tokenizer {
        reason: error.to_string(),
    };
    tokenizer
        .train(&mut TrainerWrapper::from(bpe), texts.iter())
        .map_err(refused)?;
    tokenizer.to_string(true).map_err(refused)
}

fn check(vocabulary: usize, special: &[String]) -> Result<()> {
    let least = BYTES + special.len();
    if vocabulary < least {
        return Err(TrainError::Setting {
            field: "vocab-size",
            expected: format!("at least {least}, for bytes and special tokens"),
            got: vocabulary.to_string(),
        });
    }
    for (index, token) in special.iter().enumerate() {
        if token.is_empty() || special[..index].contains(token) {
            return Err(TrainError::Setting {
                field: "special",
                expected: "tokens with a text, each named once".into(),
                got: format!("{token:?}"),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn special() -> Vec<String> {
        vec!["<|end|>".into(), "<|user|>".into()]
    }

    fn texts() -> Vec<String> {
        (0..200)
            .map(|i| {
                format!(
                    "The fox sees {i} lamps, and café lamps. YES {}",
                    "NO ".repeat(3)
                )
            })
            .collect()
    }

    fn ids(tokenizer: &str, text: &str) -> Vec<u32> {
        let tokenizer: Tokenizer = tokenizer.parse().unwrap();
        tokenizer.encode(text, false).unwrap().get_ids().to_vec()
    }

    #[test]
    fn words_that_are_seen_become_tokens_and_nothing_is_unknown() {
        let json = train_tokenizer(&texts(), 512, &special()).unwrap();
        assert_eq!(ids(&json, "<|end|><|user|>"), [0, 1]);
        assert_eq!(ids(&json, " lamps").len(), 1);
        assert_eq!(ids(&json, "YES").len(), 1);
        // Digits stand alone.
        assert_eq!(ids(&json, "1997").len(), 4);
        let text = "Nothing like this was seen: Straße, 日本, \u{1f98a}\n\t{\"a\": 1}";
        let tokenizer: Tokenizer = json.parse().unwrap();
        assert_eq!(tokenizer.decode(&ids(&json, text), false).unwrap(), text);
    }

    #[test]
    fn the_order_of_the_texts_does_not_matter() {
        let mut turned = texts();
        let forward = train_tokenizer(&turned, 400, &special()).unwrap();
        turned.reverse();
        assert_eq!(train_tokenizer(&turned, 400, &special()).unwrap(), forward);
    }

    #[test]
    fn settings_are_checked() {
        let twice = vec!["<|end|>".to_owned(), "<|end|>".to_owned()];
        for (vocabulary, special, named) in [
            (200, special(), "vocab-size"),
            (512, twice, "special"),
            (512, vec![String::new()], "special"),
        ] {
            let error = train_tokenizer(&texts(), vocabulary, &special).unwrap_err();
            assert!(error.to_string().contains(named), "{error}");
        }
    }
}
