//! `bench engine --mix ultraif`: instructions with several answers each, all asked at once, as
//! synthesis asks for them.

use super::limits::{Limits, Work};
use super::{Measurement, Phase, random_tokens};
use crate::args::BenchEngineArgs;
use crate::session::Session;
use anyhow::Result;
use clap::ValueEnum;
use data::{Completion, Generate, Generator, Pending, Prompt, Sampling, Stop, TokenId};
use std::time::Instant;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mix {
    /// Prompts of 310 tokens that begin alike, 400 tokens written, 5 answers to each
    Ultraif,
}

/// Lengths and counts of a mix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// Tokens that all prompts begin with.
    head: usize,
    pub(super) prompt: usize,
    pub(super) written: usize,
    pub(super) samples: usize,
}

impl Mix {
    /// Its lengths, as far as `context` has room for them.
    pub(super) fn shape(self, context: usize) -> Shape {
        let Self::Ultraif = self;
        let full = Shape {
            head: 85,
            prompt: 310,
            written: 400,
            samples: 5,
        };
        let whole = full.prompt + full.written;
        if whole <= context {
            return full;
        }
        let part = |tokens: usize| (tokens * context / whole).max(2);
        Shape {
            head: part(full.head),
            prompt: part(full.prompt),
            written: part(full.written),
            samples: full.samples,
        }
    }
}

/// Asks everything at once and waits for all of it.
pub(super) fn measure(
    session: &Session,
    args: &BenchEngineArgs,
    shape: Shape,
) -> Result<(Measurement, f64)> {
    let head = random_tokens(7, shape.head, session.vocab_size);
    let before = session.engine.stats().wait()?;
    let started = Instant::now();
    let pending: Vec<Pending<Vec<Completion>>> = (0..args.instructions)
        .map(|index| {
            let own = random_tokens(
                1_000_000 + index as u64,
                shape.prompt - shape.head,
                session.vocab_size,
            );
            let prompt: Vec<TokenId> = [head.as_slice(), &own].concat();
            session.engine.generate(Generate {
                n: shape.samples,
                sampling: Sampling {
                    top_p: 0.95,
                    ..Sampling::default()
                },
                max_tokens: Some(shape.written),
                stop: Stop {
                    ignore_eos: true,
                    ..Stop::default()
                },
                seed: index as u64,
                ..Generate::new(Prompt::Tokens(prompt))
            })
        })
        .collect();
    let mut written = 0;
    for one in pending {
        let tokens = one.wait()?.iter().map(|c| c.tokens.len()).sum::<usize>();
        written += tokens;
    }
    let seconds = started.elapsed().as_secs_f64();
    let after = session.engine.stats().wait()?;
    let measurement = Measurement {
        phase: Phase::Mix,
        rows: rows(args, shape),
        context: shape.prompt + shape.written / 2,
        tok_per_s: written as f64 / seconds,
        share_of_limit: None,
        host_share: super::host_share(&before, &after),
    };
    Ok((measurement, seconds))
}

/// Rows that are decoded together, while there are enough.
fn rows(args: &BenchEngineArgs, shape: Shape) -> usize {
    (args.instructions * shape.samples).min(crate::cuda::STEP_ROWS)
}

/// Seconds at best: prompts once, then steps of as many rows as are decoded together.
pub(super) fn best_seconds(
    args: &BenchEngineArgs,
    shape: Shape,
    (work, limits): (&Work, Limits),
) -> f64 {
    let rows = rows(args, shape);
    // The head is computed once for all.
    let own = shape.prompt - shape.head;
    let prefill = work.prefill_seconds(args.instructions, own, limits);
    let steps = (args.instructions * shape.samples * shape.written) as f64 / rows as f64;
    prefill + steps * work.decode_seconds(rows, shape.prompt + shape.written / 2, limits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_contexts_shorten_the_mix() {
        let full = Mix::Ultraif.shape(131_072);
        assert_eq!((full.prompt, full.written, full.samples), (310, 400, 5));
        let short = Mix::Ultraif.shape(384);
        assert!(short.prompt + short.written <= 384 && short.head < short.prompt);
        assert_eq!(short.samples, 5);
    }
}
