//! One completion while it is being written: what to ask of the next logits, and whether the
//! token that comes back is the last.
//!
//! Knows tokens, text and probabilities; knows no logits, no block and no other sequence.

use crate::stop_strings::{self, StopScan};
use data::{
    Author, Completion, FinishReason, RequestError, Sampling, Stop, TokenId, TokenLogprob, Usage,
};
use kernels::sampling::{self, Penalties, SampleError, SamplingParams, Seen};
use llguidance::Matcher;
use model::{Detokenizer, DrawAnswer, DrawQuestion, ScoreAnswer, Tokenizer};
use std::collections::HashMap;
use std::sync::Arc;

/// What is the same for all samples of a request.
#[derive(Debug)]
pub(crate) struct DecodingRules {
    pub(crate) sampling: Sampling,
    pub(crate) stop: Stop,
    /// The model's end-of-sequence tokens; empty if the request ignores them.
    pub(crate) eos_ids: Vec<TokenId>,
    pub(crate) max_tokens: usize,
    /// `Some(k)`: keep log-probabilities, with the k likeliest tokens.
    pub(crate) logprobs: Option<usize>,
    pub(crate) prompt_tokens: usize,
    /// The prompt's distinct tokens, sorted; empty unless a repetition penalty needs them.
    pub(crate) prompt_set: Vec<TokenId>,
}

impl DecodingRules {
    fn has_penalties(&self) -> bool {
        let sampling = &self.sampling;
        sampling.repetition_penalty != 1.0
            || sampling.presence_penalty != 0.0
            || sampling.frequency_penalty != 0.0
    }
}

/// The state of one sample.
pub(crate) struct Decoding {
    rules: Arc<DecodingRules>,
    index: usize,
    seed: u64,
    matcher: Option<Matcher>,
    detokenizer: Detokenizer<Arc<Tokenizer>>,
    tokens: Vec<TokenId>,
    authors: Vec<Author>,
    logprobs: Vec<TokenLogprob>,
    text: String,
    /// Bytes of `text` already handed out as chunks.
    shown: usize,
    /// Occurrences in the output, for the penalties.
    output_counts: HashMap<TokenId, u32>,
}

/// What is known of a completion before its next token is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outlook {
    /// It will be as long as it may be.
    Ends,
    /// Unless the token ends it, it goes on, and what is asked for the one after it is known.
    GoesOn,
    /// What is asked after it depends on it.
    Unknown,
}

/// What a drawn token did to the completion.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Drawn {
    pub(crate) token: TokenId,
    /// Set if this token was the last.
    pub(crate) finish: Option<FinishReason>,
    /// Text that is now final (it can no longer become part of a stop string).
    pub(crate) chunk: String,
}

impl Decoding {
    /// A completion at its beginning. `matcher` stands at the start of the grammar.
    pub(crate) fn new(
        rules: Arc<DecodingRules>,
        (index, seed): (usize, u64),
        matcher: Option<Matcher>,
        detokenizer: Detokenizer<Arc<Tokenizer>>,
    ) -> Self {
        Self {
            rules,
            index,
            seed,
            matcher,
            detokenizer,
            tokens: Vec::new(),
            authors: Vec::new(),
            logprobs: Vec::new(),
            text: String::new(),
            shown: 0,
            output_counts: HashMap::new(),
        }
    }

    /// Which of the request's samples this is.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// What the next token will leave to be seen.
    pub(crate) fn outlook(&self) -> Outlook {
        if self.tokens.len() + 1 >= self.rules.max_tokens {
            Outlook::Ends
        } else if self.matcher.is_some() || self.rules.has_penalties() {
            Outlook::Unknown
        } else {
            Outlook::GoesOn
        }
    }

    /// What is to be asked of `row` of the logits for the next token, or for the one after
    /// `num_foreseen` tokens whose outlook was [`Outlook::GoesOn`]; a grammar says here what it
    /// allows.
    ///
    /// # Errors
    /// A grammar that cannot go on.
    pub(crate) fn question(
        &mut self,
        row: usize,
        num_foreseen: usize,
    ) -> Result<DrawQuestion, RequestError> {
        let rules = Arc::clone(&self.rules);
        let sampling = &rules.sampling;
        let mask = match &mut self.matcher {
            None => None,
            Some(matcher) => {
                let mask = matcher.compute_mask().map_err(grammar_error)?;
                Some(mask.as_slice().to_vec())
            }
        };
        Ok(DrawQuestion {
            row,
            bias: sampling
                .logit_bias
                .iter()
                .map(|(token, bias)| (*token, *bias))
                .collect(),
            penalties: Penalties {
                repetition: sampling.repetition_penalty,
                presence: sampling.presence_penalty,
                frequency: sampling.frequency_penalty,
            },
            seen: match rules.has_penalties() {
                true => self.seen(),
                false => Vec::new(),
            },
            mask,
            params: SamplingParams {
                temperature: sampling.temperature,
                top_k: sampling.top_k,
                top_p: sampling.top_p,
                min_p: sampling.min_p,
            },
            uniform: sampling::uniform(self.seed, (self.tokens.len() + num_foreseen) as u64),
            logprobs: rules.logprobs,
        })
    }

    /// Takes the answer to [`Decoding::question`].
    ///
    /// # Errors
    /// NaN among the logits; a grammar without an allowed token.
    pub(crate) fn take(
        &mut self,
        answer: Result<DrawAnswer, SampleError>,
    ) -> Result<Drawn, RequestError> {
        let answer = answer.map_err(|error| draw_error(&error, self.position()))?;
        self.authors.push(match answer.num_allowed {
            Some(1) => Author::Forced,
            _ => Author::Sampled,
        });
        if let Some(raw) = answer.raw {
            self.logprobs
                .push(token_logprob(answer.token, answer.sampled_logprob, raw));
        }
        self.append_token(answer.token)
    }

    /// The finished completion. `cached_tokens` of the prompt came from the cache.
    pub(crate) fn finish(self, finish_reason: FinishReason, cached_tokens: usize) -> Completion {
        Completion {
            index: self.index,
            text: self.text,
            usage: Usage {
                prompt_tokens: self.rules.prompt_tokens,
                cached_tokens,
                completion_tokens: self.tokens.len(),
            },
            tokens: self.tokens,
            authors: self.authors,
            logprobs: self.logprobs,
            prompt_logprobs: Vec::new(),
            finish_reason,
        }
    }

    /// Position, in prompt and output together, of the token whose successor is drawn.
    fn position(&self) -> usize {
        (self.rules.prompt_tokens + self.tokens.len()).saturating_sub(1)
    }

    /// Tokens of prompt and output, each once.
    fn seen(&self) -> Vec<Seen> {
        let counts = &self.output_counts;
        let in_prompt = self.rules.prompt_set.iter();
        let in_prompt = in_prompt.filter(|token| !counts.contains_key(token));
        in_prompt
            .map(|token| (*token, 0))
            .chain(counts.iter().map(|(token, count)| (*token, *count)))
            .map(|(token, output_count)| Seen {
                token,
                output_count,
            })
            .collect()
    }

    fn append_token(&mut self, token: TokenId) -> Result<Drawn, RequestError> {
        self.tokens.push(token);
        *self.output_counts.entry(token).or_insert(0) += 1;
        let rules = Arc::clone(&self.rules);
        if rules.eos_ids.contains(&token) || rules.stop.token_ids.contains(&token) {
            return Ok(self.end_of_text(token, FinishReason::Stop));
        }
        if let Some(matcher) = &mut self.matcher {
            matcher.consume_token(token).map_err(grammar_error)?;
        }
        let piece = self.detokenizer.push(token);
        let safe = match self.append(&piece) {
            StopScan::Found(_) => return Ok(self.drawn(token, Some(FinishReason::Stop))),
            StopScan::Safe(safe) => safe,
        };
        if self.matcher.as_ref().is_some_and(Matcher::is_stopped) {
            return Ok(self.end_of_text(token, FinishReason::Stop));
        }
        if self.tokens.len() >= rules.max_tokens {
            return Ok(self.end_of_text(token, FinishReason::Length));
        }
        let chunk = self.text[self.shown..safe].to_owned();
        self.shown = safe;
        Ok(Drawn {
            token,
            finish: None,
            chunk,
        })
    }

    /// The completion ends here: what the detokenizer still holds becomes text.
    fn end_of_text(&mut self, token: TokenId, finish: FinishReason) -> Drawn {
        let rest = self.detokenizer.finish();
        let finish = match self.append(&rest) {
            StopScan::Found(_) => FinishReason::Stop,
            StopScan::Safe(_) => finish,
        };
        self.drawn(token, Some(finish))
    }

    /// Adds text and cuts it at the first stop string.
    fn append(&mut self, piece: &str) -> StopScan {
        let old_len = self.text.len();
        self.text.push_str(piece);
        let scan = stop_strings::scan(&self.text, old_len, &self.rules.stop.strings);
        if let StopScan::Found(at) = scan {
            self.text.truncate(at);
        }
        scan
    }

    fn drawn(&mut self, token: TokenId, finish: Option<FinishReason>) -> Drawn {
        let chunk = self.text[self.shown..].to_owned();
        self.shown = self.text.len();
        Drawn {
            token,
            finish,
            chunk,
        }
    }
}

/// The log-probability of one token that was asked for alone.
pub(crate) fn token_logprob(
    token: TokenId,
    sampled_logprob: f32,
    raw: ScoreAnswer,
) -> TokenLogprob {
    TokenLogprob {
        token,
        logprob: raw.logprobs.first().copied().unwrap_or(f32::NAN),
        sampled_logprob,
        top: raw.top,
    }
}

/// What a failed draw means for the request; `position` is that of the row's token.
pub(crate) fn draw_error(error: &SampleError, position: usize) -> RequestError {
    match error {
        SampleError::NotANumber { .. } => RequestError::NotANumber { position },
        SampleError::NothingAllowed { .. } => {
            RequestError::Grammar("no token is allowed at this place".into())
        }
        _ => RequestError::Invalid(error.to_string()),
    }
}

fn grammar_error(error: impl std::fmt::Display) -> RequestError {
    RequestError::Grammar(error.to_string())
}
