//! Many rows through a generator: as many in flight as the engine likes, results in
//! source order, each row failing alone.

use crate::interrupt::Interrupt;
use anyhow::{Context, Result};
use data::{Completion, Generate, Generator, Pending, PromptRow, RequestError, RowProblem};
use serde::Serialize;
use std::collections::VecDeque;

/// Rows whose requests wait in the engine at once. More than the engine runs at a time, so
/// that it never waits for the row at the front.
const ROWS_IN_FLIGHT: usize = 512;

/// Keeps the seeds of rows apart from those of a prompt's samples.
const ROW_SEEDS: u64 = 0x6175_746F_6469_6461;

/// A finished row as it is written.
#[derive(Debug, Serialize)]
pub(crate) struct OutputRow<'a> {
    /// Line in the source, from 1.
    pub(crate) line: usize,
    /// The source's own id, if it has one.
    pub(crate) id: Option<&'a str>,
    /// Seed of the row's request: with it the row can be asked again alone.
    pub(crate) seed: u64,
    pub(crate) completions: &'a [Completion],
}

/// What became of one line of the source.
#[derive(Debug)]
pub(crate) enum RowEvent<'a> {
    Done(OutputRow<'a>),
    /// The request failed.
    Failed {
        line: usize,
        error: RequestError,
    },
    /// The line is no row.
    Unreadable(String),
}

/// How many rows ended how.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) done: usize,
    pub(crate) failed: usize,
    pub(crate) unreadable: usize,
    /// The source was not read to its end.
    pub(crate) stopped: bool,
}

/// The seed of the row on `line`: the same wherever the row stands in a batch.
pub(crate) fn row_seed(seed: u64, line: usize) -> u64 {
    Generate::sample_seed(seed ^ ROW_SEEDS, line)
}

/// Asks `generator` for every row and reports each one in source order.
///
/// # Errors
/// The source cannot be read any further, or `report` failed.
pub(crate) fn drive(
    generator: &dyn Generator,
    mut rows: impl Iterator<Item = Result<PromptRow, RowProblem>>,
    request: impl Fn(&PromptRow) -> Generate,
    interrupt: &Interrupt,
    mut report: impl FnMut(RowEvent<'_>) -> Result<()>,
) -> Result<Tally> {
    let mut waiting: VecDeque<Slot> = VecDeque::new();
    let mut tally = Tally::default();
    let mut at_end = false;
    loop {
        while !at_end && waiting.len() < ROWS_IN_FLIGHT {
            if interrupt.requested() {
                tally.stopped = true;
                break;
            }
            match rows.next() {
                None => at_end = true,
                Some(Ok(row)) => {
                    let request = request(&row);
                    let seed = request.seed;
                    waiting.push_back(Slot::Asked(row, seed, generator.generate(request)));
                }
                Some(Err(error)) => waiting.push_back(Slot::Unreadable(refused(error)?)),
            }
        }
        match waiting.pop_front() {
            None => return Ok(tally),
            Some(slot) => slot.finish(&mut tally, &mut report)?,
        }
    }
}

enum Slot {
    Asked(PromptRow, u64, Pending<Vec<Completion>>),
    Unreadable(String),
}

impl Slot {
    fn finish(
        self,
        tally: &mut Tally,
        report: &mut impl FnMut(RowEvent<'_>) -> Result<()>,
    ) -> Result<()> {
        let (row, seed, pending) = match self {
            Self::Asked(row, seed, pending) => (row, seed, pending),
            Self::Unreadable(reason) => {
                tally.unreadable += 1;
                return report(RowEvent::Unreadable(reason));
            }
        };
        match pending.wait() {
            Ok(completions) => {
                tally.done += 1;
                let (line, id) = (row.line, row.id.as_deref());
                report(RowEvent::Done(OutputRow {
                    line,
                    id,
                    seed,
                    completions: &completions,
                }))
            }
            // No later row would fare better.
            Err(error @ RequestError::EngineStopped) => Err(error.into()),
            Err(error) => {
                tally.failed += 1;
                report(RowEvent::Failed {
                    line: row.line,
                    error,
                })
            }
        }
    }
}

/// The message of a line that is no row; an error that would come again for every further
/// line (a folder, a disk that fails) ends the reading.
fn refused(problem: RowProblem) -> Result<String> {
    match problem {
        RowProblem::Io { line, source, .. } => {
            Err(source).with_context(|| format!("cannot read the input after line {}", line - 1))
        }
        problem => Ok(problem.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use data::{FinishReason, Prompt, Score, Scores, Usage, pending, read_prompts_from};
    use std::io::Cursor;
    use std::path::Path;
    use std::sync::Mutex;

    /// Answers the latest request first, and fails rows that say "bad".
    #[derive(Default)]
    struct Backwards(Mutex<usize>);

    impl Generator for Backwards {
        fn generate(&self, request: Generate) -> Pending<Vec<Completion>> {
            *self.0.lock().unwrap() += 1;
            let (reply, answer) = pending();
            let Prompt::Messages(messages) = &request.prompt else {
                panic!("rows are conversations");
            };
            let text = messages[0].content.to_uppercase();
            reply.send(if text == "BAD" {
                Err(RequestError::Invalid("bad".into()))
            } else {
                Ok(vec![Completion {
                    index: 0,
                    text,
                    tokens: vec![],
                    authors: vec![],
                    logprobs: vec![],
                    prompt_logprobs: vec![],
                    finish_reason: FinishReason::Stop,
                    usage: Usage::default(),
                }])
            });
            answer
        }

        fn score(&self, _: Score) -> Pending<Scores> {
            panic!("not asked for")
        }
    }

    fn run(input: &str, interrupt: &Interrupt) -> (Tally, Vec<String>) {
        let mut log = Vec::new();
        let stream = Box::new(Cursor::new(input.to_owned()));
        let rows = read_prompts_from(stream, Path::new("in.jsonl")).unwrap();
        let tally = drive(
            &Backwards::default(),
            rows,
            |row| Generate {
                seed: row_seed(1, row.line),
                ..Generate::new(Prompt::Messages(row.messages.clone()))
            },
            interrupt,
            |event| {
                log.push(match event {
                    RowEvent::Done(row) => format!("{} {}", row.line, row.completions[0].text),
                    RowEvent::Failed { line, error } => format!("{line} {error}"),
                    RowEvent::Unreadable(reason) => reason,
                });
                Ok(())
            },
        );
        (tally.unwrap(), log)
    }

    #[test]
    fn every_row_ends_once_in_source_order() {
        let (tally, log) = run("\"a\"\n{oops\n\"bad\"\n\n\"b\"\n", &Interrupt::default());
        assert_eq!(
            tally,
            Tally {
                done: 2,
                failed: 1,
                unreadable: 1,
                stopped: false
            }
        );
        assert_eq!(log[0], "1 A");
        assert!(
            log[1].starts_with("in.jsonl: line 2: not JSON"),
            "{}",
            log[1]
        );
        assert_eq!(
            log[2..],
            ["3 invalid request: bad".to_owned(), "5 B".to_owned()]
        );
    }

    #[test]
    fn more_rows_than_fit_in_flight() {
        let input = "\"x\"\n".repeat(ROWS_IN_FLIGHT * 2 + 3);
        let (tally, log) = run(&input, &Interrupt::default());
        assert_eq!(tally.done, ROWS_IN_FLIGHT * 2 + 3);
        assert_eq!(log.len(), tally.done);
    }

    #[test]
    fn seeds_differ_by_row_and_not_by_chance_from_samples() {
        let mut seen: Vec<u64> = (1..100).map(|line| row_seed(0, line)).collect();
        seen.extend((0..100).map(|index| Generate::sample_seed(0, index)));
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 199);
    }
}
