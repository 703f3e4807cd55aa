//! Requests, completions, scores.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Index into a model's vocabulary.
pub type TokenId = u32;

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant` or whatever else the chat template knows.
    pub role: String,
    /// The text of the turn.
    pub content: String,
}

impl Message {
    /// A turn of the given role.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self {
            role: role.into(),
            content: content.into(),
        }
    }
}

/// What the model reads before it writes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prompt {
    /// A conversation, rendered by the model's chat template with a generation prompt.
    Messages(Vec<Message>),
    /// Raw text, tokenised with the special tokens the tokenizer adds by itself (BOS);
    /// control tokens spelled out in the text stay text.
    Text(String),
    /// Token ids, taken as they are.
    Tokens(Vec<TokenId>),
}

/// How the next token is drawn from the logits.
///
/// Order of operations: logit bias, penalties, grammar mask, temperature, then top-k,
/// top-p and min-p on the tempered distribution, each renormalising (the order of
/// transformers' warpers). `temperature = 0` takes the largest logit after bias,
/// penalties and mask; ties go to the lowest token id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sampling {
    /// 0 = greedy; must be finite and not negative.
    pub temperature: f32,
    /// Keep the k most likely tokens; 0 = all.
    pub top_k: u32,
    /// Keep the smallest set of most likely tokens whose mass reaches this; 1 = all.
    pub top_p: f32,
    /// Keep tokens at least this fraction as likely as the likeliest; 0 = all.
    pub min_p: f32,
    /// Divide positive and multiply negative logits of tokens seen in prompt or output; 1 = off.
    pub repetition_penalty: f32,
    /// Subtract from the logit of every token already in the output; 0 = off.
    pub presence_penalty: f32,
    /// Subtract per occurrence in the output; 0 = off.
    pub frequency_penalty: f32,
    /// Added to the logits of single tokens.
    pub logit_bias: BTreeMap<TokenId, f32>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: BTreeMap::new(),
        }
    }
}

/// A sampling parameter out of range.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{field} = {value} is out of range: {expected}")]
pub struct SamplingError {
    /// Name of the field.
    pub field: &'static str,
    /// The value given.
    pub value: f32,
    /// What is allowed.
    pub expected: &'static str,
}

impl Sampling {
    /// Greedy decoding.
    pub fn greedy() -> Self {
        Self {
            temperature: 0.0,
            ..Self::default()
        }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first field out of range, with its value and what is allowed.
    pub fn validate(&self) -> Result<(), SamplingError> {
        let check = |ok: bool, field, value, expected| {
            if ok {
                Ok(())
            } else {
                Err(SamplingError {
                    field,
                    value,
                    expected,
                })
            }
        };
        let t = self.temperature;
        check(
            t.is_finite() && t >= 0.0,
            "temperature",
            t,
            "a finite number, at least 0",
        )?;
        check(
            self.top_p > 0.0 && self.top_p <= 1.0,
            "top_p",
            self.top_p,
            "above 0, at most 1",
        )?;
        check(
            (0.0..=1.0).contains(&self.min_p),
            "min_p",
            self.min_p,
            "between 0 and 1",
        )?;
        let r = self.repetition_penalty;
        check(
            r.is_finite() && r > 0.0,
            "repetition_penalty",
            r,
            "a finite number above 0",
        )?;
        for (field, value) in [
            ("presence_penalty", self.presence_penalty),
            ("frequency_penalty", self.frequency_penalty),
        ] {
            check(value.is_finite(), field, value, "a finite number")?;
        }
        for value in self.logit_bias.values() {
            let ok = value.is_finite() || *value == f32::NEG_INFINITY;
            check(
                ok,
                "logit_bias",
                *value,
                "finite, or minus infinity to forbid the token",
            )?;
        }
        Ok(())
    }
}

/// Where a completion ends besides the model's own end-of-sequence tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Stop {
    /// The completion ends before the first of these; it is not part of the text.
    pub strings: Vec<String>,
    /// The completion ends at any of these tokens; the token is not part of the text.
    pub token_ids: Vec<TokenId>,
    /// Go on past the model's end-of-sequence tokens (for measuring).
    pub ignore_eos: bool,
}

/// A language the completion must belong to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grammar {
    /// One of these strings, whole.
    Choice(Vec<String>),
    /// A regular expression that the whole completion matches (llguidance's dialect).
    Regex(String),
    /// A JSON document that the schema accepts.
    JsonSchema(serde_json::Value),
    /// A context-free grammar in llguidance's Lark dialect.
    Lark(String),
}

/// A request for text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Generate {
    /// What the model reads.
    pub prompt: Prompt,
    /// Completions to draw from one prefill; sample `i` is drawn with [`Generate::sample_seed`]`(i)`.
    pub n: usize,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Tokens at most; `None` = up to the end of the context.
    pub max_tokens: Option<usize>,
    /// Where the completion ends.
    pub stop: Stop,
    /// Seed of the draw. The same request with the same seed gives the same tokens in any batch.
    pub seed: u64,
    /// Name of a loaded adapter; `None` = the base model.
    pub adapter: Option<String>,
    /// Language the completion must belong to.
    pub grammar: Option<Grammar>,
    /// `Some(k)`: log-probability of each token and of the k likeliest at its place.
    pub logprobs: Option<usize>,
    /// Log-probability of every prompt token given those before it.
    pub prompt_logprobs: bool,
}

impl Generate {
    /// One completion of `prompt`, drawn from the plain distribution (temperature 1), seed 0.
    pub fn new(prompt: Prompt) -> Self {
        Self {
            prompt,
            n: 1,
            sampling: Sampling::default(),
            max_tokens: None,
            stop: Stop::default(),
            seed: 0,
            adapter: None,
            grammar: None,
            logprobs: None,
            prompt_logprobs: false,
        }
    }

    /// Seed of sample `index` of this request: a single request (`n = 1`) with this seed
    /// draws the same tokens. Sample 0 keeps the request's own seed.
    pub fn sample_seed(seed: u64, index: usize) -> u64 {
        // SplitMix64's increment and finaliser (Steele, Lea, Flood 2014), skipped for index 0.
        if index == 0 {
            return seed;
        }
        let mut z = seed.wrapping_add((index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

/// Why a completion ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// An end-of-sequence token, a stop token or string, or the end of the grammar.
    Stop,
    /// `max_tokens` or the end of the context.
    Length,
}

/// Who wrote a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Author {
    /// Drawn from more than one allowed token.
    Sampled,
    /// The only token the grammar allowed.
    Forced,
}

/// A token with its log-probability.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenLogprob {
    /// The token.
    pub token: TokenId,
    /// Natural log of its probability under the model's raw distribution (no bias,
    /// penalty, mask or temperature). In JSON, minus infinity is `null`.
    #[serde(deserialize_with = "logprob::one")]
    pub logprob: f32,
    /// The same under the distribution it was drawn from; 0 for a greedy draw.
    #[serde(deserialize_with = "logprob::one")]
    pub sampled_logprob: f32,
    /// The likeliest tokens at this place under the raw distribution, likeliest first.
    #[serde(deserialize_with = "logprob::pairs")]
    pub top: Vec<(TokenId, f32)>,
}

/// Tokens read and written for one completion.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the rendered prompt.
    pub prompt_tokens: usize,
    /// Of these, tokens whose K and V were already in the cache.
    pub cached_tokens: usize,
    /// Tokens written, the end-of-sequence token included.
    pub completion_tokens: usize,
}

/// One finished completion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Completion {
    /// Which of the `n` samples.
    pub index: usize,
    /// The text without stop string and control tokens.
    pub text: String,
    /// Every token written, a final end-of-sequence or stop token included.
    pub tokens: Vec<TokenId>,
    /// Who wrote each token; as long as `tokens`.
    pub authors: Vec<Author>,
    /// As long as `tokens` where log-probabilities were asked for, else empty.
    pub logprobs: Vec<TokenLogprob>,
    /// Log-probability of prompt tokens 1.. (the first has nothing before it); empty unless asked for.
    pub prompt_logprobs: Vec<TokenLogprob>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// What it cost.
    pub usage: Usage,
}

/// A request for the probabilities of given continuations; nothing is decoded.
///
/// The prefix is read once; each suffix is read after it; each label is scored after
/// each suffix. With no suffixes the labels follow the prefix.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Read once, shared by all suffixes.
    pub prefix: Prompt,
    /// Texts that follow the prefix, tokenised by themselves, control tokens allowed
    /// (a suffix may close a turn and open the next).
    pub suffixes: Vec<String>,
    /// Continuations to score, tokenised by themselves; one or more tokens each.
    pub labels: Vec<String>,
    /// Name of a loaded adapter; `None` = the base model.
    pub adapter: Option<String>,
}

/// Label scores after one suffix.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SuffixScores {
    /// Log-probability of each label (sum over its tokens) under the raw distribution. In
    /// JSON, minus infinity is `null`.
    #[serde(deserialize_with = "logprob::many")]
    pub logprobs: Vec<f32>,
    /// The labels' probabilities normalised to sum to one.
    pub probabilities: Vec<f32>,
    /// Probability the model gives to all labels together before normalising; what is
    /// missing from 1 goes to other continuations. (Labels that are prefixes of each
    /// other are counted each.)
    pub mass: f32,
}

/// Answer to a [`Score`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// One entry per suffix (one in all if the request had none).
    pub suffixes: Vec<SuffixScores>,
    /// Tokens read, and of these found in the cache; nothing is written.
    pub usage: Usage,
}

/// JSON has no infinities: serde writes `null` for the logarithm of zero, and this reads it.
mod logprob {
    use super::TokenId;
    use serde::{Deserialize, Deserializer};

    fn known(value: Option<f32>) -> f32 {
        value.unwrap_or(f32::NEG_INFINITY)
    }

    pub(super) fn one<'de, D: Deserializer<'de>>(from: D) -> Result<f32, D::Error> {
        Option::deserialize(from).map(known)
    }

    pub(super) fn many<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<f32>, D::Error> {
        let values = Vec::<Option<f32>>::deserialize(from)?;
        Ok(values.into_iter().map(known).collect())
    }

    pub(super) fn pairs<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<(TokenId, f32)>, D::Error> {
        let pairs = Vec::<(TokenId, Option<f32>)>::deserialize(from)?;
        Ok(pairs.into_iter().map(|(id, p)| (id, known(p))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_tokens_survive_json() {
        let never = f32::NEG_INFINITY;
        let logprob = TokenLogprob {
            token: 1,
            logprob: never,
            sampled_logprob: -0.1,
            top: vec![(2, -0.5), (1, never)],
        };
        let json = serde_json::to_string(&logprob).unwrap();
        assert_eq!(
            serde_json::from_str::<TokenLogprob>(&json).unwrap(),
            logprob
        );
        let scores = SuffixScores {
            logprobs: vec![never, 0.0],
            probabilities: vec![0.0, 1.0],
            mass: 1.0,
        };
        let json = serde_json::to_string(&scores).unwrap();
        assert_eq!(serde_json::from_str::<SuffixScores>(&json).unwrap(), scores);
    }
}
