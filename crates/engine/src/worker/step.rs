//! One step: from a plan to drawn tokens.

use super::{Job, JobId, Owner, Worker};
use crate::decoding::{self, Decoding, Drawn, draw_error};
use crate::jobs::Sample;
use crate::scheduler::{Advance, StepPlan};
use crate::sequence::{Logits, SeqId};
use data::{RequestError, TokenId};
use kernels::{Rows, sampling};
use model::ForwardBatch;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::time::Instant;

/// Rows of logits held at a time: 64 rows of a vocabulary of 128k take 33 MB.
const LOGIT_ROWS_MAX: usize = 64;

/// A row of logits and the position it belongs to.
#[derive(Debug, Clone, Copy)]
struct LogitRow {
    seq: SeqId,
    owner: Owner,
    position: usize,
    /// Row of the step's logits.
    row: usize,
}

/// A sample about to get its next token.
struct Draw {
    job: JobId,
    seq: SeqId,
    row: usize,
    decoding: Box<Decoding>,
    outcome: Option<Result<Drawn, RequestError>>,
}

/// What a step's logits led to.
#[derive(Default)]
struct Outcome {
    draws: Vec<Draw>,
    results: BTreeMap<SeqId, Advance>,
    failures: Vec<(JobId, RequestError)>,
}

impl Worker {
    /// Computes a step and hands its results to the requests.
    pub(super) fn step(&mut self, plan: StepPlan) {
        let rows = self.logit_rows(&plan);
        let mut outcome = Outcome::default();
        match self.compute(&plan, &rows, &mut outcome) {
            Ok(()) => self.commit(plan, outcome),
            Err(error) => {
                let failed = self.scheduler.abort(plan);
                let failed: BTreeSet<JobId> = failed
                    .iter()
                    .filter_map(|seq| self.owners.get(seq))
                    .map(|o| o.job)
                    .collect();
                for job in failed {
                    self.fail(job, RequestError::Forward(error.to_string()));
                }
            }
        }
    }

    /// Runs the model, then reads and draws from its logits, some rows at a time.
    fn compute(
        &mut self,
        plan: &StepPlan,
        rows: &[LogitRow],
        outcome: &mut Outcome,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let begin = Instant::now();
        self.kv.copy_blocks(&plan.copies)?;
        let hidden = self.model.hidden(&self.batch(plan), &self.kv)?;
        let mut forward_seconds = begin.elapsed().as_secs_f64();
        for chunk in rows.chunk_by(|a, b| a.row / LOGIT_ROWS_MAX == b.row / LOGIT_ROWS_MAX) {
            let first = chunk[0].row;
            let len = chunk[chunk.len() - 1].row - first + 1;
            let begin = Instant::now();
            let logits = self.model.logits(&hidden, first..first + len)?;
            forward_seconds += begin.elapsed().as_secs_f64();
            kernels::read_rows(&logits, |rows| self.read_logits(chunk, rows, outcome))?;
        }
        self.stats.count(plan, forward_seconds);
        Ok(())
    }

    /// The plan in the model's terms.
    fn batch(&self, plan: &StepPlan) -> ForwardBatch {
        let small = |index: usize| u32::try_from(index).expect("a u32 numbers every KV slot");
        let mut batch = ForwardBatch::default();
        for span in &plan.spans {
            let first = batch.tokens.len();
            batch.tokens.extend_from_slice(&span.tokens);
            batch.positions.extend(span.query.clone().map(small));
            batch.slots.extend_from_slice(&span.slots);
            batch.spans.push(kernels::SequenceSpan {
                query: first..batch.tokens.len(),
                context_len: span.query.end,
                blocks: span.block_table.clone(),
            });
            let adapter = span.adapter.and_then(|key| self.loaded.get(&key).copied());
            batch
                .adapters
                .extend(std::iter::repeat_n(adapter, span.tokens.len()));
            let rows = span
                .logits
                .iter()
                .map(|position| first + position - span.query.start);
            batch.logit_rows.extend(rows.map(small));
        }
        batch
    }

    /// Hands each row of `logits` (rows of `chunk`, V) to the request it belongs to.
    fn read_logits(&mut self, chunk: &[LogitRow], logits: Rows<'_>, outcome: &mut Outcome) {
        let first = chunk[0].row;
        let num_drawn = outcome.draws.len();
        for row in chunk {
            let values = logits.row(row.row - first);
            let read = match self.jobs.get(&row.owner.job).map(|entry| &entry.job) {
                Some(Job::Score(_)) => self.record_scores(row, values).map(|is_last| {
                    if is_last {
                        outcome.results.insert(row.seq, Advance::Finish);
                    }
                }),
                Some(Job::Generate(_)) => self.collect_draws(row, values, &mut outcome.draws),
                None => Ok(()),
            };
            if let Err(error) = read {
                outcome.failures.push((row.owner.job, error));
            }
        }
        let begin = Instant::now();
        kernels::for_each_mut(
            &mut outcome.draws[num_drawn..],
            |draw, scratch: &mut Vec<f32>| {
                draw.outcome = Some(draw.decoding.draw(logits.row(draw.row - first), scratch));
            },
        );
        self.stats.sampling_seconds += begin.elapsed().as_secs_f64();
    }

    fn logit_rows(&self, plan: &StepPlan) -> Vec<LogitRow> {
        let wanted = plan
            .spans
            .iter()
            .flat_map(|span| span.logits.iter().map(|p| (span.seq, *p)));
        let known = wanted.enumerate().filter_map(|(row, (seq, position))| {
            let owner = *self.owners.get(&seq)?;
            Some(LogitRow {
                seq,
                owner,
                position,
                row,
            })
        });
        known.collect()
    }

    /// Takes out the samples that draw from this row: all of them right after the prompt,
    /// one afterwards; none from a row inside the prompt, whose successor is known.
    fn collect_draws(
        &mut self,
        row: &LogitRow,
        logits: &[f32],
        draws: &mut Vec<Draw>,
    ) -> Result<(), RequestError> {
        let Some(Job::Generate(job)) = self.jobs.get_mut(&row.owner.job).map(|e| &mut e.job) else {
            return Ok(());
        };
        if let Some(k) = job.prompt_logprobs
            && let Some(next) = job.prompt.get(row.position + 1)
        {
            let scored = decoding::logprob_of(logits, *next, 0.0, k);
            job.prompt_scores
                .push(scored.map_err(|error| draw_error(&error, row.position))?);
        }
        if row.position + 1 < job.prompt.len() {
            return Ok(());
        }
        let is_first = row.position + 1 == job.prompt.len();
        let samples = if is_first {
            0..job.samples.len()
        } else {
            row.owner.part..row.owner.part + 1
        };
        if is_first {
            let hit = self
                .scheduler
                .sequence(row.seq)
                .map_or(0, |sequence| sequence.num_cached());
            job.cached_tokens = hit;
        }
        for index in samples {
            if let Some(decoding) = job.take_decoding(index) {
                let (job, seq, row) = (row.owner.job, row.seq, row.row);
                draws.push(Draw {
                    job,
                    seq,
                    row,
                    decoding,
                    outcome: None,
                });
            }
        }
        Ok(())
    }

    /// Adds the row's targets to their request; true if its sequence has no more to read.
    fn record_scores(&mut self, row: &LogitRow, logits: &[f32]) -> Result<bool, RequestError> {
        let Some(Job::Score(job)) = self.jobs.get_mut(&row.owner.job).map(|e| &mut e.job) else {
            return Ok(true);
        };
        let part = &job.parts[row.owner.part];
        let here = part
            .targets
            .iter()
            .filter(|target| target.position == row.position);
        let tokens: Vec<TokenId> = here.clone().map(|target| target.token).collect();
        let logprobs = sampling::log_softmax_at(logits, &tokens)
            .map_err(|error| draw_error(&error, row.position))?;
        for (target, logprob) in here.zip(logprobs) {
            job.logprobs[target.suffix][target.label] += f64::from(logprob);
        }
        let is_last = part
            .targets
            .iter()
            .all(|target| target.position <= row.position);
        if is_last {
            job.usage.cached_tokens += self
                .scheduler
                .sequence(row.seq)
                .map_or(0, |s| s.num_cached());
            job.parts_left -= 1;
        }
        Ok(is_last)
    }

    /// Applies the draws to their requests and the step to the scheduler.
    fn commit(&mut self, plan: StepPlan, outcome: Outcome) {
        let Outcome {
            draws,
            mut results,
            mut failures,
        } = outcome;
        // Samples that go on, by the sequence whose logits they drew from.
        let mut going_on: BTreeMap<SeqId, Vec<(JobId, usize, TokenId)>> = BTreeMap::new();
        for draw in draws {
            let index = draw.decoding.index();
            let drawn = match draw
                .outcome
                .expect("read_logits draws every sample it collects")
            {
                Ok(drawn) => drawn,
                Err(error) => {
                    failures.push((draw.job, error));
                    continue;
                }
            };
            self.stats.num_tokens_drawn += 1;
            let parts = going_on.entry(draw.seq).or_default();
            if drawn.finish.is_none() {
                parts.push((draw.job, index, drawn.token));
            }
            if let Some(Job::Generate(job)) = self.jobs.get_mut(&draw.job).map(|e| &mut e.job) {
                job.put_back(draw.decoding, drawn.finish);
                job.show(index, drawn.chunk);
            }
        }
        let mut forks = Vec::new();
        for (seq, parts) in going_on {
            let advance = match parts.as_slice() {
                [] => Advance::Finish,
                [(_, _, token)] => Advance::Append(vec![*token]),
                _ => Advance::Keep,
            };
            match parts.len() {
                0 => {}
                1 => self.assign(seq, parts[0].0, parts[0].1),
                _ => forks.push((seq, parts)),
            }
            results.insert(seq, advance);
        }
        for (seq, error) in self.scheduler.commit(plan, results) {
            if let Some(owner) = self.owners.get(&seq) {
                failures.push((owner.job, RequestError::Invalid(error.to_string())));
            }
        }
        for (seq, parts) in forks {
            self.fork(seq, &parts, &mut failures);
        }
        for (job, error) in failures {
            self.fail(job, error);
        }
        self.answer_finished();
    }

    /// Gives every sample of a request a sequence of its own behind the shared prompt.
    fn fork(
        &mut self,
        seq: SeqId,
        parts: &[(JobId, usize, TokenId)],
        failures: &mut Vec<(JobId, RequestError)>,
    ) {
        let forked = self
            .scheduler
            .fork(seq, parts.len() - 1)
            .and_then(|children| {
                let seqs: Vec<SeqId> = std::iter::once(seq).chain(children).collect();
                for (seq, (_, _, token)) in seqs.iter().zip(parts) {
                    self.scheduler.extend(*seq, &[*token], Logits::Last)?;
                }
                Ok(seqs)
            });
        match forked {
            Ok(seqs) => {
                for (seq, (job, index, _)) in seqs.into_iter().zip(parts) {
                    self.assign(seq, *job, *index);
                }
            }
            Err(error) => failures.push((parts[0].0, RequestError::Invalid(error.to_string()))),
        }
    }

    fn assign(&mut self, seq: SeqId, job: JobId, part: usize) {
        if self.owners.insert(seq, Owner { job, part }).is_none()
            && let Some(entry) = self.jobs.get_mut(&job)
        {
            entry.seqs.push(seq);
        }
    }

    fn answer_finished(&mut self) {
        let is_done = |job: &Job| match job {
            Job::Generate(job) => job.samples.iter().all(|s| matches!(s, Sample::Done(_))),
            Job::Score(job) => job.parts_left == 0,
        };
        let done: Vec<JobId> = self
            .jobs
            .iter()
            .filter(|(_, entry)| is_done(&entry.job))
            .map(|(id, _)| *id)
            .collect();
        for id in done {
            match self.leave(id) {
                Some(Job::Generate(job)) => job.answer(),
                Some(Job::Score(job)) => job.answer(),
                None => {}
            }
        }
    }
}
