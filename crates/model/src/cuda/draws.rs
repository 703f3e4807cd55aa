//! Questions about logits in the terms of the device's sampler.

use super::plan::NOT_DRAWN;
use crate::{DrawAnswer, DrawQuestion, ScoreAnswer, ScoreQuestion};
use kernels::cuda::{Question, Reported};
use kernels::sampling::SampleError;

/// Likeliest tokens that a device reports of a row.
const TOP_MAX: usize = 256;

/// The questions that the device can be asked, and those that it cannot, with the reason.
pub(super) fn askable<Q>(
    questions: &[Q],
    problem: impl Fn(&Q) -> Option<SampleError>,
) -> (Vec<&Q>, Vec<Option<SampleError>>) {
    let problems: Vec<_> = questions.iter().map(problem).collect();
    let all = questions.iter().zip(&problems);
    let askable = all.filter(|(_, problem)| problem.is_none());
    (askable.map(|(question, _)| question).collect(), problems)
}

/// Puts the answers of those that were asked between the errors of those that were not.
pub(super) fn in_order<A>(
    answers: impl IntoIterator<Item = Result<A, SampleError>>,
    problems: Vec<Option<SampleError>>,
) -> Vec<Result<A, SampleError>> {
    let mut answers = answers.into_iter();
    problems
        .into_iter()
        .map(|problem| match problem {
            Some(error) => Err(error),
            None => answers.next().expect("every question asked has an answer"),
        })
        .collect()
}

/// The device's number of each question; [`NOT_DRAWN`] of those that it is not asked.
pub(super) fn numbers(problems: &[Option<SampleError>]) -> Vec<u32> {
    let mut next = 0..NOT_DRAWN;
    let number = |problem: &Option<SampleError>| match problem {
        Some(_) => NOT_DRAWN,
        None => next.next().unwrap_or(NOT_DRAWN),
    };
    problems.iter().map(number).collect()
}

pub(super) fn problem_of_draw(question: &DrawQuestion) -> Option<SampleError> {
    problem_of_top(question.logprobs.unwrap_or(0))
}

pub(super) fn problem_of_score(question: &ScoreQuestion) -> Option<SampleError> {
    problem_of_top(question.top)
}

fn problem_of_top(top: usize) -> Option<SampleError> {
    (top > TOP_MAX).then_some(SampleError::Parameter {
        parameter: "likeliest tokens asked for (a GPU reports at most 256)",
        value: top as f64,
    })
}

pub(super) fn draw_question(question: &DrawQuestion) -> Question<'_> {
    Question {
        row: question.row,
        draw: Some((question.params, question.uniform)),
        bias: &question.bias,
        penalties: (!question.seen.is_empty()).then_some(question.penalties),
        seen: &question.seen,
        mask: question.mask.as_deref(),
        top: question.logprobs.unwrap_or(0),
        asked: &[],
    }
}

pub(super) fn score_question(question: &ScoreQuestion) -> Question<'_> {
    Question {
        row: question.row,
        top: question.top,
        asked: &question.tokens,
        ..Question::default()
    }
}

/// The answer to a question with these `logprobs`.
pub(super) fn draw_answer(
    logprobs: Option<usize>,
    reported: Reported,
) -> Result<DrawAnswer, SampleError> {
    let drawn = reported.drawn.expect("a draw was asked for")?;
    let raw = match logprobs {
        None => None,
        Some(_) => Some(ScoreAnswer {
            logprobs: vec![drawn.raw_logprob],
            top: reported.raw?.top,
        }),
    };
    Ok(DrawAnswer {
        token: drawn.token,
        sampled_logprob: drawn.sampled_logprob,
        raw,
        num_allowed: reported.allowed,
    })
}

pub(super) fn score_answer(reported: Reported) -> Result<ScoreAnswer, SampleError> {
    let raw = reported.raw?;
    Ok(ScoreAnswer {
        logprobs: raw.asked,
        top: raw.top,
    })
}
