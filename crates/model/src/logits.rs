//! What a step computed, wherever the model lives, and what may be asked of it: tokens are
//! drawn where the logits are, so that a wide vocabulary need not travel.

use crate::ModelError;
#[cfg(feature = "device")]
use crate::cuda::{CudaDraws, CudaLogits};
use candle_core::Tensor;
use kernels::sampling::{self, Penalties, SampleError, SamplingParams, Seen};
use std::marker::PhantomData;

/// The final hidden states (S, H) of the rows whose logits are wanted.
#[derive(Debug)]
pub struct Hidden(pub(crate) Place);

/// Where hidden states lie.
#[derive(Debug)]
pub(crate) enum Place {
    /// f32, on the host; of [`crate::CandleLlama`] where its tensors are.
    Host(Tensor),
    /// In the workspace of the model on a device, until the next step.
    #[cfg(feature = "device")]
    Device { rows: usize, epoch: u64 },
}

/// Logits (rows, V) of some of them, to be asked before the model is asked for others.
#[derive(Debug)]
pub struct Logits<'a>(Source<'a>);

#[derive(Debug)]
enum Source<'a> {
    /// f32, on the host; borrows nothing.
    Host(Tensor, PhantomData<&'a ()>),
    #[cfg(feature = "device")]
    Device(CudaLogits<'a>),
}

/// A token to be drawn from one row of logits. Order of operations: bias, penalties, mask,
/// then as [`SamplingParams`] says.
#[derive(Debug, Clone)]
pub struct DrawQuestion {
    /// Row of the logits.
    pub row: usize,
    /// Added to the logits of single tokens.
    pub bias: Vec<(u32, f32)>,
    /// Applied to the tokens in `seen`.
    pub penalties: Penalties,
    /// Tokens of prompt and output, each once; empty if no penalty is on.
    pub seen: Vec<Seen>,
    /// Tokens that a grammar allows: token t is bit t % 32 of word t / 32.
    pub mask: Option<Vec<u32>>,
    /// Temperature and filters.
    pub params: SamplingParams,
    /// The number in [0, 1) that decides.
    pub uniform: f64,
    /// `Some(k)`: also the token's log-probability under the logits as they are, with those
    /// of the k likeliest tokens.
    pub logprobs: Option<usize>,
}

/// A token that was drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct DrawAnswer {
    /// The token.
    pub token: u32,
    /// Log-probability under the distribution it was drawn from.
    pub sampled_logprob: f32,
    /// Log-probabilities under the logits as they are, if they were asked for.
    pub raw: Option<ScoreAnswer>,
    /// Tokens that the mask left, if there was one.
    pub num_allowed: Option<usize>,
}

/// Tokens that are being drawn, or were: for [`crate::CausalLm::drawn`].
#[derive(Debug)]
pub struct Draws(pub(crate) DrawsOf);

/// Where they are drawn.
#[derive(Debug)]
pub(crate) enum DrawsOf {
    Host(Vec<Result<DrawAnswer, SampleError>>),
    #[cfg(feature = "device")]
    Device(CudaDraws),
}

impl Draws {
    /// The tokens, if the host has drawn them.
    ///
    /// # Errors
    /// A device draws them: another model was asked.
    pub(crate) fn on_host(self) -> Result<Vec<Result<DrawAnswer, SampleError>>, ModelError> {
        match self.0 {
            DrawsOf::Host(answers) => Ok(answers),
            #[cfg(feature = "device")]
            DrawsOf::Device(_) => Err(ModelError::Batch {
                problem: "tokens that a device draws".into(),
            }),
        }
    }
}

/// Tokens whose log-probabilities under one row of logits are wanted.
#[derive(Debug, Clone)]
pub struct ScoreQuestion {
    /// Row of the logits.
    pub row: usize,
    /// The tokens.
    pub tokens: Vec<u32>,
    /// How many of the likeliest tokens are wanted beside them.
    pub top: usize,
}

/// Log-probabilities, natural.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoreAnswer {
    /// Of the tokens asked for, in their order.
    pub logprobs: Vec<f32>,
    /// The likeliest tokens, likeliest first.
    pub top: Vec<(u32, f32)>,
}

impl Hidden {
    pub(crate) fn host(states: Tensor) -> Self {
        Self(Place::Host(states))
    }

    /// The states, if they lie in a tensor.
    ///
    /// # Errors
    /// They lie on a device: another model computed them.
    pub(crate) fn on_host(&self) -> Result<&Tensor, ModelError> {
        match &self.0 {
            Place::Host(states) => Ok(states),
            #[cfg(feature = "device")]
            Place::Device { .. } => Err(ModelError::Batch {
                problem: "hidden states that lie on a device".into(),
            }),
        }
    }
}

impl<'a> Logits<'a> {
    /// Logits that lie on the host, (rows, V) in f32.
    pub fn host(logits: Tensor) -> Self {
        Self(Source::Host(logits, PhantomData))
    }

    #[cfg(feature = "device")]
    pub(crate) fn on_device(logits: CudaLogits<'a>) -> Self {
        Self(Source::Device(logits))
    }

    /// Draws a token for each question. A question that cannot be answered fails alone.
    ///
    /// # Errors
    /// The place that the logits are in fails.
    pub fn draw(
        &self,
        questions: &[DrawQuestion],
    ) -> Result<Vec<Result<DrawAnswer, SampleError>>, ModelError> {
        match &self.0 {
            Source::Host(logits, _) => on_host(logits, questions, draw_on_host),
            #[cfg(feature = "device")]
            Source::Device(logits) => logits.draw(questions),
        }
    }

    /// Starts to draw a token for each question, where a device does it; on the host they are
    /// drawn at once. [`crate::CausalLm::drawn`] gives them.
    ///
    /// # Errors
    /// The place that the logits are in fails.
    pub fn ask(&self, questions: &[DrawQuestion]) -> Result<Draws, ModelError> {
        Ok(Draws(match &self.0 {
            Source::Host(..) => DrawsOf::Host(self.draw(questions)?),
            #[cfg(feature = "device")]
            Source::Device(logits) => DrawsOf::Device(logits.ask(questions)?),
        }))
    }

    /// Looks log-probabilities up. A question that cannot be answered fails alone.
    ///
    /// # Errors
    /// The place that the logits are in fails.
    pub fn score(
        &self,
        questions: &[ScoreQuestion],
    ) -> Result<Vec<Result<ScoreAnswer, SampleError>>, ModelError> {
        match &self.0 {
            Source::Host(logits, _) => on_host(logits, questions, |logits, question, _| {
                score_on_host(logits(question.row), &question.tokens, question.top)
            }),
            #[cfg(feature = "device")]
            Source::Device(logits) => logits.score(questions),
        }
    }

    /// Whether drawing costs the host's time.
    pub fn is_on_host(&self) -> bool {
        matches!(self.0, Source::Host(..))
    }

    /// All of them on the host, (rows, V) in f32: for tests and oracles.
    ///
    /// # Errors
    /// The place that the logits are in fails.
    pub fn to_host(&self) -> Result<Tensor, ModelError> {
        match &self.0 {
            Source::Host(logits, _) => Ok(logits.clone()),
            #[cfg(feature = "device")]
            Source::Device(logits) => logits.to_host(),
        }
    }
}

/// Finds a row of the logits on the host.
type RowOf<'a> = &'a (dyn Fn(usize) -> &'a [f32] + Sync);

/// Answers questions on the thread pool; each thread lends a buffer.
fn on_host<Q: Sync, A: Send>(
    logits: &Tensor,
    questions: &[Q],
    answer: impl Fn(RowOf<'_>, &Q, &mut Vec<f32>) -> Result<A, SampleError> + Sync,
) -> Result<Vec<Result<A, SampleError>>, ModelError> {
    let mut answers: Vec<(&Q, Option<Result<A, SampleError>>)> =
        questions.iter().map(|question| (question, None)).collect();
    kernels::read_rows(logits, |rows| {
        kernels::for_each_mut(&mut answers, |(question, slot), scratch| {
            *slot = Some(answer(&|row| rows.row(row), question, scratch));
        });
    })
    .map_err(|source| ModelError::compute("reading logits", source))?;
    let answers = answers.into_iter();
    Ok(answers
        .map(|(_, slot)| slot.expect("every question was handed to a thread"))
        .collect())
}

fn draw_on_host(
    logits: RowOf<'_>,
    question: &DrawQuestion,
    scratch: &mut Vec<f32>,
) -> Result<DrawAnswer, SampleError> {
    let logits = logits(question.row);
    let (params, uniform) = (&question.params, question.uniform);
    let is_plain = question.bias.is_empty() && question.seen.is_empty() && question.mask.is_none();
    let (drawn, num_allowed) = if is_plain {
        (sampling::sample(logits, params, uniform)?, None)
    } else {
        scratch.clear();
        scratch.extend_from_slice(logits);
        sampling::apply_bias(scratch, question.bias.iter().copied())?;
        sampling::apply_penalties(scratch, &question.penalties, question.seen.iter().copied())?;
        let mask = question.mask.as_deref();
        let num_allowed = mask.map(|mask| sampling::apply_mask(scratch, mask));
        (sampling::sample(scratch, params, uniform)?, num_allowed)
    };
    let raw = match question.logprobs {
        None => None,
        Some(top) => Some(score_on_host(logits, &[drawn.token], top)?),
    };
    Ok(DrawAnswer {
        token: drawn.token,
        sampled_logprob: drawn.sampled_logprob,
        raw,
        num_allowed,
    })
}

fn score_on_host(logits: &[f32], tokens: &[u32], top: usize) -> Result<ScoreAnswer, SampleError> {
    Ok(ScoreAnswer {
        logprobs: sampling::log_softmax_at(logits, tokens)?,
        top: match top {
            0 => Vec::new(),
            k => sampling::top_logprobs(logits, k)?,
        },
    })
}
