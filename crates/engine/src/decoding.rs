//! One completion while it is being written: drawing the next token from logits, and
//! deciding whether it was the last.
//!
//! Knows tokens, text and probabilities; knows no batch, no block and no other sequence.

use crate::stop_strings::{self, StopScan};
use data::{
    Author, Completion, FinishReason, RequestError, Sampling, Stop, TokenId, TokenLogprob, Usage,
};
use kernels::sampling::{self, Penalties, SampleError, SamplingParams, Seen};
use llguidance::Matcher;
use model::{Detokenizer, Tokenizer};
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

    /// Draws the next token from `logits` (V) and takes it. `scratch` is overwritten.
    ///
    /// # Errors
    /// NaN among the logits; a grammar without an allowed token.
    pub(crate) fn draw(
        &mut self,
        logits: &[f32],
        scratch: &mut Vec<f32>,
    ) -> Result<Drawn, RequestError> {
        let rules = Arc::clone(&self.rules);
        let params = SamplingParams {
            temperature: rules.sampling.temperature,
            top_k: rules.sampling.top_k,
            top_p: rules.sampling.top_p,
            min_p: rules.sampling.min_p,
        };
        let uniform = sampling::uniform(self.seed, self.tokens.len() as u64);
        let position = self.position();
        let drawn_from = |error| draw_error(&error, position);
        let (drawn, num_allowed) = match self.adjust(logits, scratch)? {
            None => (
                sampling::sample(logits, &params, uniform).map_err(drawn_from)?,
                None,
            ),
            Some(num_allowed) => (
                sampling::sample(scratch, &params, uniform).map_err(drawn_from)?,
                num_allowed,
            ),
        };
        self.authors.push(if num_allowed == Some(1) {
            Author::Forced
        } else {
            Author::Sampled
        });
        if let Some(k) = rules.logprobs {
            let logprob = logprob_of(logits, drawn.token, drawn.sampled_logprob, k);
            self.logprobs.push(logprob.map_err(drawn_from)?);
        }
        self.take(drawn.token)
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

    /// Writes the logits after bias, penalties and grammar to `scratch` and returns how many
    /// tokens the grammar allows (`Some(None)` = there is no grammar); `None` if the request
    /// changes nothing, and nothing was written.
    fn adjust(
        &mut self,
        logits: &[f32],
        scratch: &mut Vec<f32>,
    ) -> Result<Option<Option<usize>>, RequestError> {
        let rules = &self.rules;
        let sampling = &rules.sampling;
        let has_penalties = rules.has_penalties();
        if sampling.logit_bias.is_empty() && !has_penalties && self.matcher.is_none() {
            return Ok(None);
        }
        scratch.clear();
        scratch.extend_from_slice(logits);
        let position = self.position();
        let failed = |error| draw_error(&error, position);
        let bias = sampling
            .logit_bias
            .iter()
            .map(|(token, bias)| (*token, *bias));
        sampling::apply_bias(scratch, bias).map_err(failed)?;
        if has_penalties {
            let penalties = Penalties {
                repetition: sampling.repetition_penalty,
                presence: sampling.presence_penalty,
                frequency: sampling.frequency_penalty,
            };
            let counts = &self.output_counts;
            let in_prompt = rules
                .prompt_set
                .iter()
                .filter(|token| !counts.contains_key(token));
            let seen = in_prompt
                .map(|token| Seen {
                    token: *token,
                    output_count: 0,
                })
                .chain(counts.iter().map(|(token, n)| Seen {
                    token: *token,
                    output_count: *n,
                }));
            sampling::apply_penalties(scratch, &penalties, seen).map_err(failed)?;
        }
        let Some(matcher) = &mut self.matcher else {
            return Ok(Some(None));
        };
        let mask = matcher.compute_mask().map_err(grammar_error)?;
        Ok(Some(Some(sampling::apply_mask(scratch, mask.as_slice()))))
    }

    fn take(&mut self, token: TokenId) -> Result<Drawn, RequestError> {
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

/// Raw log-probability of `token` and of the `k` likeliest tokens.
pub(crate) fn logprob_of(
    logits: &[f32],
    token: TokenId,
    sampled_logprob: f32,
    k: usize,
) -> Result<TokenLogprob, SampleError> {
    let logprob = sampling::log_softmax_at(logits, &[token])?[0];
    let top = if k == 0 {
        Vec::new()
    } else {
        sampling::top_logprobs(logits, k)?
    };
    Ok(TokenLogprob {
        token,
        logprob,
        sampled_logprob,
        top,
    })
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
