//! One row of logits (V) becomes a token, without sorting the vocabulary.
//!
//! Order of operations: [`apply_bias`], [`apply_penalties`], [`apply_mask`], then [`sample`],
//! which divides by the temperature and applies top-k, top-p and min-p, each to what the one
//! before it left, renormalised. Where tokens tie at a threshold, the lowest ids stay. The
//! draw walks the tokens in the order of their ids and takes the first whose cumulative
//! probability exceeds one uniform number, so that a seed decides the token.
//!
//! Weights are f32 (relative error below 2e-7 for the tokens that matter), sums f64.

pub use edit::{Penalties, Seen, apply_bias, apply_mask, apply_penalties};
#[cfg(any(feature = "cuda", feature = "cuda-emulator"))]
pub(crate) use random::philox;
pub use random::uniform;

use row::{Row, TemperedRow};
use select::Kept;

mod dense;
mod edit;
mod random;
mod row;
mod select;

/// How a token is drawn from a row of logits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SamplingParams {
    /// Divides the logits; 0 = take the largest, the lowest id of equals.
    pub temperature: f32,
    /// Keep the k most likely tokens; 0 = all.
    pub top_k: u32,
    /// Keep the smallest set of most likely tokens whose mass reaches this; 1 = all.
    pub top_p: f32,
    /// Keep tokens at least this fraction as likely as the likeliest; 0 = all.
    pub min_p: f32,
}

/// A token and how likely it was.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drawn {
    /// The token.
    pub token: u32,
    /// Natural log of its probability under the distribution it was drawn from, after every
    /// filter; 0 for a greedy draw. (Under the raw distribution: [`log_softmax_at`] on the
    /// raw logits.)
    pub sampled_logprob: f32,
}

/// A row of logits that nothing can be drawn from.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SampleError {
    /// A logit is NaN or plus infinity.
    #[error("logit of token {token} is {value}")]
    NotANumber {
        /// The first such token.
        token: u32,
        /// Its logit.
        value: f32,
    },
    /// Every logit is minus infinity, or there is none.
    #[error("no token is allowed: all {vocabulary} logits are minus infinity")]
    NothingAllowed {
        /// Logits in the row (V).
        vocabulary: usize,
    },
    /// A token outside of the vocabulary.
    #[error("token {token} is outside of the vocabulary of {vocabulary}")]
    UnknownToken {
        /// The token.
        token: u32,
        /// Logits in the row (V).
        vocabulary: usize,
    },
    /// A parameter or the uniform number is out of range.
    #[error("{parameter} = {value} is out of range")]
    Parameter {
        /// Its name.
        parameter: &'static str,
        /// Its value.
        value: f64,
    },
}

/// Draws a token from logits (V) by one number `uniform` in [0, 1).
///
/// # Errors
/// NaN or plus infinity among the logits; no finite logit; a parameter out of range.
pub fn sample(logits: &[f32], params: &SamplingParams, uniform: f64) -> Result<Drawn, SampleError> {
    check(params, uniform)?;
    let row = Row::scan(logits)?;
    if params.temperature == 0.0 {
        return Ok(Drawn {
            token: row.likeliest(),
            sampled_logprob: 0.0,
        });
    }
    let row = row.at_temperature(params.temperature);
    let top_k = (params.top_k > 0)
        .then_some(params.top_k as usize)
        .filter(|&k| k < logits.len());
    let top_p = (params.top_p < 1.0).then_some(f64::from(params.top_p));
    let min_p = (params.min_p > 0.0).then_some(params.min_p);
    let (token, probability) = if top_k.is_none() && top_p.is_none() && min_p.is_none() {
        row.draw(uniform)
    } else if let Some(kept) = keep_few(&row, top_k, top_p, min_p) {
        select::draw(&kept, uniform)
    } else {
        dense::draw(&row, (top_k, top_p, min_p), uniform)
    };
    Ok(Drawn {
        token,
        sampled_logprob: probability.ln() as f32,
    })
}

/// The tokens that all filters leave, in the order of their ids, where the first filter leaves
/// so few that most of the row can be skipped.
fn keep_few(
    row: &TemperedRow<'_>,
    top_k: Option<usize>,
    top_p: Option<f64>,
    min_p: Option<f32>,
) -> Option<Vec<Kept>> {
    let Some(k) = top_k else {
        return min_p.filter(|_| top_p.is_none()).and_then(|p| row.heavy(p));
    };
    if !row.is_sparse(k) {
        return None;
    }
    let mut kept = row.likeliest(k);
    if let Some(p) = top_p {
        let total: f64 = kept.iter().map(|kept| f64::from(kept.weight)).sum();
        select::top_p(&mut kept, p * total);
    }
    if let Some(p) = min_p {
        kept.retain(|kept| kept.weight >= p);
    }
    Some(kept)
}

/// Natural log of the probabilities of `tokens` under softmax(logits), in their order.
///
/// # Errors
/// NaN or plus infinity among the logits; no finite logit; a token outside of the vocabulary.
pub fn log_softmax_at(logits: &[f32], tokens: &[u32]) -> Result<Vec<f32>, SampleError> {
    let log_total = Row::scan(logits)?.log_sum_exp();
    let at = |&token: &u32| {
        let logit = logits.get(token as usize);
        let logit = logit.ok_or(SampleError::UnknownToken {
            token,
            vocabulary: logits.len(),
        })?;
        Ok((f64::from(*logit) - log_total) as f32)
    };
    tokens.iter().map(at).collect()
}

/// The `k` likeliest tokens under softmax(logits) with the natural log of their
/// probabilities, likeliest first, the lowest id of equals first. Fewer if fewer logits are
/// finite.
///
/// # Errors
/// NaN or plus infinity among the logits; no finite logit.
pub fn top_logprobs(logits: &[f32], k: usize) -> Result<Vec<(u32, f32)>, SampleError> {
    let row = Row::scan(logits)?;
    let log_total = row.log_sum_exp();
    if k == 0 {
        return Ok(Vec::new());
    }
    let mut kept = row.at_temperature(1.0).likeliest(k);
    kept.sort_by(|a, b| {
        (b.logit + 0.0)
            .total_cmp(&(a.logit + 0.0))
            .then(a.token.cmp(&b.token))
    });
    let logprob = |logit: f32| (f64::from(logit) - log_total) as f32;
    Ok(kept
        .iter()
        .map(|kept| (kept.token, logprob(kept.logit)))
        .collect())
}

pub(crate) fn check(params: &SamplingParams, uniform: f64) -> Result<(), SampleError> {
    let t = params.temperature;
    for (parameter, value, ok) in [
        ("temperature", f64::from(t), t.is_finite() && t >= 0.0),
        (
            "top_p",
            f64::from(params.top_p),
            params.top_p > 0.0 && params.top_p <= 1.0,
        ),
        (
            "min_p",
            f64::from(params.min_p),
            (0.0..=1.0).contains(&params.min_p),
        ),
        ("uniform", uniform, (0.0..1.0).contains(&uniform)),
    ] {
        if !ok {
            return Err(SampleError::Parameter { parameter, value });
        }
    }
    Ok(())
}
