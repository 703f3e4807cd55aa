//! Requests under way: which sequences a request has, and what it still waits for.
//!
//! Knows completions and scores; knows no batch and no model.

use crate::decoding::{Decoding, DecodingRules};
use crate::engine::{OnText, TextChunk};
use crate::replicas::Ticket;
use data::{
    Completion, FinishReason, Reply, RequestError, Scores, SuffixScores, TokenId, TokenLogprob,
    Usage,
};
use std::sync::Arc;

/// A request for text, ready for the worker.
pub(crate) struct GenerateJob {
    pub(crate) prompt: Vec<TokenId>,
    pub(crate) rules: Arc<DecodingRules>,
    pub(crate) adapter: Option<String>,
    /// `Some(k)`: log-probabilities of the prompt's tokens with the k likeliest.
    pub(crate) prompt_logprobs: Option<usize>,
    /// Log-probabilities of prompt tokens 1.., filled from the front.
    pub(crate) prompt_scores: Vec<TokenLogprob>,
    pub(crate) samples: Vec<Sample>,
    pub(crate) cached_tokens: usize,
    pub(crate) on_text: Option<OnText>,
    pub(crate) reply: Reply<Vec<Completion>>,
    #[expect(dead_code, reason = "lowers the replica's load when the request ends")]
    pub(crate) ticket: Ticket,
}

/// One of a request's completions.
pub(crate) enum Sample {
    /// Being written; `None` while a token is asked for or taken.
    Writing(Option<Box<Decoding>>),
    /// Finished.
    Done(Completion),
}

impl GenerateJob {
    /// Takes sample `index` out, to ask for a token or to take one, unless it is finished.
    pub(crate) fn take_decoding(&mut self, index: usize) -> Option<Box<Decoding>> {
        match self.samples.get_mut(index) {
            Some(Sample::Writing(decoding)) => decoding.take(),
            _ => None,
        }
    }

    /// Sample `index`, unless it is finished.
    pub(crate) fn decoding(&self, index: usize) -> Option<&Decoding> {
        match self.samples.get(index) {
            Some(Sample::Writing(decoding)) => decoding.as_deref(),
            _ => None,
        }
    }

    /// Puts a drawn sample back, as finished if `finish` says so.
    pub(crate) fn put_back(&mut self, decoding: Box<Decoding>, finish: Option<FinishReason>) {
        let index = decoding.index();
        self.samples[index] = match finish {
            None => Sample::Writing(Some(decoding)),
            Some(reason) => Sample::Done(decoding.finish(reason, self.cached_tokens)),
        };
    }

    pub(crate) fn show(&mut self, index: usize, text: String) {
        if let Some(on_text) = &mut self.on_text
            && !text.is_empty()
        {
            on_text(TextChunk { index, text });
        }
    }

    /// Answers with the completions of all samples.
    pub(crate) fn answer(self) {
        let prompt_logprobs = self.prompt_scores;
        let completions = self.samples.into_iter().filter_map(|sample| match sample {
            Sample::Done(completion) => Some(Completion {
                prompt_logprobs: prompt_logprobs.clone(),
                ..completion
            }),
            Sample::Writing(_) => None,
        });
        self.reply.send(Ok(completions.collect()));
    }
}

/// A request for label probabilities, ready for the worker.
pub(crate) struct ScoreJob {
    pub(crate) adapter: Option<String>,
    pub(crate) parts: Vec<ScorePart>,
    /// Sum of log-probabilities by suffix and label.
    pub(crate) logprobs: Vec<Vec<f64>>,
    pub(crate) parts_left: usize,
    pub(crate) usage: Usage,
    pub(crate) reply: Reply<Scores>,
    #[expect(dead_code, reason = "lowers the replica's load when the request ends")]
    pub(crate) ticket: Option<Ticket>,
}

/// One sequence to read, and the tokens whose log-probabilities are wanted in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ScorePart {
    pub(crate) tokens: Vec<TokenId>,
    pub(crate) targets: Vec<ScoreTarget>,
}

/// The token whose log-probability after `position` belongs to a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ScoreTarget {
    pub(crate) position: usize,
    pub(crate) token: TokenId,
    pub(crate) suffix: usize,
    pub(crate) label: usize,
}

impl ScoreJob {
    /// Lays out the sequences to read. Labels of one token share a sequence per suffix;
    /// a longer label gets one of its own, without its last token.
    ///
    /// # Errors
    /// An empty label; nothing before a label.
    pub(crate) fn new(
        prefix: &[TokenId],
        suffixes: &[Vec<TokenId>],
        labels: &[Vec<TokenId>],
        adapter: Option<String>,
        reply: Reply<Scores>,
    ) -> Result<Self, (RequestError, Reply<Scores>)> {
        let mut parts = Vec::new();
        for (suffix, suffix_tokens) in suffixes.iter().enumerate() {
            let base = [prefix, suffix_tokens].concat();
            let Some(last) = base.len().checked_sub(1) else {
                let why = "the prefix and a suffix are both empty: nothing to score after";
                return Err((RequestError::Invalid(why.into()), reply));
            };
            let mut shared = ScorePart {
                tokens: base.clone(),
                targets: Vec::new(),
            };
            for (label, tokens) in labels.iter().enumerate() {
                let target = |(offset, token): (usize, &TokenId)| ScoreTarget {
                    position: last + offset,
                    token: *token,
                    suffix,
                    label,
                };
                match tokens.as_slice() {
                    [] => {
                        let why = format!("label {label} is empty");
                        return Err((RequestError::Invalid(why), reply));
                    }
                    [token] => shared.targets.push(target((0, token))),
                    [read @ .., _] => parts.push(ScorePart {
                        tokens: [&base, read].concat(),
                        targets: tokens.iter().enumerate().map(target).collect(),
                    }),
                }
            }
            if !shared.targets.is_empty() {
                parts.push(shared);
            }
        }
        Ok(Self {
            adapter,
            logprobs: vec![vec![0.0; labels.len()]; suffixes.len()],
            parts_left: parts.len(),
            usage: Usage {
                prompt_tokens: parts.iter().map(|part| part.tokens.len()).sum(),
                ..Usage::default()
            },
            parts,
            reply,
            ticket: None,
        })
    }

    /// Answers with every suffix's scores.
    pub(crate) fn answer(self) {
        let suffixes = self
            .logprobs
            .iter()
            .map(|logprobs| suffix_scores(logprobs))
            .collect();
        self.reply.send(Ok(Scores {
            suffixes,
            usage: self.usage,
        }));
    }
}

fn suffix_scores(logprobs: &[f64]) -> SuffixScores {
    let max = logprobs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = logprobs
        .iter()
        .map(|logprob| (logprob - max).exp())
        .collect();
    let total: f64 = weights.iter().sum();
    SuffixScores {
        logprobs: logprobs.iter().map(|logprob| *logprob as f32).collect(),
        probabilities: weights
            .iter()
            .map(|weight| (weight / total) as f32)
            .collect(),
        mass: logprobs.iter().map(|logprob| logprob.exp()).sum::<f64>() as f32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_token_labels_share_a_sequence() {
        let (reply, _answer) = data::pending();
        let labels = [vec![7], vec![8], vec![5, 6]];
        let job = ScoreJob::new(&[1, 2], &[vec![3], vec![]], &labels, None, reply)
            .map_err(|(error, _)| error)
            .unwrap();
        let tokens: Vec<&[TokenId]> = job
            .parts
            .iter()
            .map(|part| part.tokens.as_slice())
            .collect();
        assert_eq!(tokens, [&[1, 2, 3, 5][..], &[1, 2, 3], &[1, 2, 5], &[1, 2]]);
        let positions: Vec<usize> = job.parts[0].targets.iter().map(|t| t.position).collect();
        assert_eq!(positions, [2, 3]);
        assert_eq!(job.parts[1].targets.len(), 2);
        assert_eq!(job.parts_left, 4);
    }

    #[test]
    fn probabilities_are_normalised_and_mass_is_kept() {
        let scores = suffix_scores(&[0.3_f64.ln(), 0.1_f64.ln()]);
        assert!((scores.probabilities[0] - 0.75).abs() < 1e-6);
        assert!((scores.mass - 0.4).abs() < 1e-6);
    }
}
