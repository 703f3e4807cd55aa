//! One step: from a plan to drawn tokens.

use super::{Job, JobId, Owner, Worker};
use crate::config::Overlap;
use crate::decoding::{Decoding, Drawn, Outlook, draw_error, token_logprob};
use crate::jobs::{GenerateJob, Sample, ScoreJob, ScoreTarget};
use crate::scheduler::{Advance, StepPlan};
use crate::sequence::{Logits, SeqId};
use data::{RequestError, TokenId};
use kernels::sampling::SampleError;
use model::{DrawAnswer, DrawQuestion, Draws, ForwardBatch, ScoreAnswer, ScoreQuestion};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::error::Error;
use std::time::Instant;

/// A row of logits and the position it belongs to.
#[derive(Debug, Clone, Copy)]
struct LogitRow {
    seq: SeqId,
    owner: Owner,
    position: usize,
    /// Row of the step's logits.
    row: usize,
    /// Tokens before it that are not known yet.
    num_foreseen: usize,
}

/// A sample about to get its next token.
struct Draw {
    job: JobId,
    seq: SeqId,
    /// Which of the request's samples.
    index: usize,
    row: usize,
    num_foreseen: usize,
    /// Out of its request while it asks, and while it takes the answer.
    decoding: Option<Box<Decoding>>,
    state: DrawState,
}

/// How far a draw is.
enum DrawState {
    /// To be asked, or to be answered.
    Waiting,
    Asked(DrawQuestion),
    Answered(Result<DrawAnswer, SampleError>),
    Done(Result<Drawn, RequestError>),
}

/// What is asked of a step's logits.
#[derive(Default)]
struct Asked {
    /// Log-probabilities of known tokens, and the row each question is about.
    scores: Vec<ScoreQuestion>,
    scored_rows: Vec<LogitRow>,
    draws: Vec<Draw>,
}

/// A step that was given to the model, what was asked of it, and the answers in their order.
pub(super) struct Flight {
    plan: StepPlan,
    asked: Asked,
    scores: Vec<Result<ScoreAnswer, SampleError>>,
    draws: Vec<Result<DrawAnswer, SampleError>>,
    /// Draws that are to be waited for: a device is at work on them.
    later: Option<Draws>,
    error: Option<String>,
    started: Instant,
    forward_seconds: f64,
}

/// What a step's logits led to.
#[derive(Default)]
struct Outcome {
    draws: Vec<Draw>,
    results: BTreeMap<SeqId, Advance>,
    failures: Vec<(JobId, RequestError)>,
}

impl Worker {
    /// Decides the step after `flight` as if every sample in it went on. `None` if what it asks
    /// depends on the answers to `flight`, too.
    pub(super) fn plan_ahead(&mut self, flight: &Flight) -> Option<StepPlan> {
        let mut going_on = BTreeSet::new();
        for draw in &flight.asked.draws {
            let Some(Job::Generate(job)) = self.jobs.get(&draw.job).map(|entry| &entry.job) else {
                continue;
            };
            match job.decoding(draw.index).map(Decoding::outlook) {
                None | Some(Outlook::Ends) => {}
                // Several samples of one prompt part here.
                Some(Outlook::GoesOn) if going_on.insert(draw.seq) => {}
                Some(Outlook::GoesOn | Outlook::Unknown) => return None,
            }
        }
        let plan = self.scheduler.schedule_ahead(&flight.plan, &going_on)?;
        self.stats.num_steps_ahead += 1;
        Some(plan)
    }

    /// Gives the model a step, then takes the answers to the one `before` it; the new one's are
    /// taken, too, unless a device is still at work on them.
    pub(super) fn step(&mut self, plan: StepPlan, mut before: Option<Flight>) {
        let mut flight = Flight::new(plan);
        let computed = self.compute(&mut flight, before.as_mut());
        flight.error = computed.err().map(|error| error.to_string());
        if let Some(mut before) = before {
            self.wait(&mut before);
            if let Some(error) = &before.error {
                // Nothing that follows a failed step is worth anything.
                self.take_back(flight.plan, error);
                return self.take_back(before.plan, error);
            }
            self.land(before);
        }
        match flight.later {
            Some(_) => self.flight = Some(flight),
            None => self.land(flight),
        }
    }

    /// Takes the answers to a step and hands its results to the requests.
    pub(super) fn land(&mut self, mut flight: Flight) {
        self.wait(&mut flight);
        if let Some(error) = &flight.error {
            return self.take_back(flight.plan, error);
        }
        let is_live = |seq| self.scheduler.sequence(seq).is_some();
        self.stats
            .count(&flight.plan, is_live, flight.forward_seconds);
        let mut watch = Watch(Instant::now());
        let (plan, outcome) = self.take_answers(flight);
        self.stats.sampling_seconds += watch.lap();
        self.commit(plan, outcome);
    }

    /// Ends what a failed step computed.
    fn take_back(&mut self, plan: StepPlan, error: &str) {
        let failed = self.scheduler.abort(plan);
        let failed: BTreeSet<JobId> = failed
            .iter()
            .filter_map(|seq| self.owners.get(seq))
            .map(|o| o.job)
            .collect();
        for job in failed {
            self.fail(job, RequestError::Forward(error.to_owned()));
        }
    }

    /// Waits until the answers are there.
    fn wait(&mut self, flight: &mut Flight) {
        let Some(later) = flight.later.take() else {
            return;
        };
        match self.model.drawn(later) {
            Ok(draws) => flight.draws = draws,
            Err(error) => flight.error = Some(error.to_string()),
        }
        let begin = flight.started.max(self.landed);
        self.landed = Instant::now();
        flight.forward_seconds = (self.landed - begin).as_secs_f64();
    }

    /// Runs the model, then asks its logits, some rows at a time, where they are.
    fn compute(
        &mut self,
        flight: &mut Flight,
        mut before: Option<&mut Flight>,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let rows = self.logit_rows(&flight.plan);
        let mut watch = Watch(Instant::now());
        self.kv.copy_blocks(&flight.plan.copies)?;
        let batch = self.batch(&flight.plan, before.as_deref());
        let hidden = self.model.hidden(&batch, &self.kv)?;
        flight.forward_seconds = watch.lap();
        let most = self.model.logit_rows_max();
        let is_one_chunk = rows.iter().all(|row| row.row < most);
        for chunk in rows.chunk_by(|a, b| a.row / most == b.row / most) {
            let first = chunk[0].row;
            let len = chunk[chunk.len() - 1].row - first + 1;
            // Asked before the logits are there: a grammar thinks while a device computes.
            let mut asked = self.ask(chunk);
            self.stats.sampling_seconds += watch.lap();
            let is_later = self.overlap == Overlap::On && is_one_chunk && asked.scores.is_empty();
            if !is_later && let Some(before) = before.take() {
                // A device keeps the answers to the last two questions only.
                self.wait(before);
            }
            let logits = self.model.logits(&hidden, first..first + len)?;
            flight.forward_seconds += watch.lap();
            let questions: Vec<DrawQuestion> =
                asked.draws.iter_mut().filter_map(Draw::question).collect();
            if is_later {
                flight.later = Some(logits.ask(&questions)?);
            } else {
                flight.scores.extend(logits.score(&asked.scores)?);
                flight.draws.extend(logits.draw(&questions)?);
            }
            // The first answer of a device waits for all that it was given to compute.
            match logits.is_on_host() {
                true => self.stats.sampling_seconds += watch.lap(),
                false => flight.forward_seconds += watch.lap(),
            }
            flight.asked.append(asked);
        }
        Ok(())
    }

    /// The plan in the model's terms.
    fn batch(&self, plan: &StepPlan, before: Option<&Flight>) -> ForwardBatch {
        let mut questions = before.map(Flight::questions).unwrap_or_default();
        let small = |index: usize| u32::try_from(index).expect("a u32 numbers every KV slot");
        let mut batch = ForwardBatch::default();
        for span in &plan.spans {
            let first = batch.tokens.len();
            batch.tokens.extend_from_slice(&span.tokens);
            if span.is_foreseen {
                let question = questions.remove(&span.seq);
                let question = question.expect("only rows whose draw was asked are foreseen");
                batch.drawn.push((small(batch.tokens.len() - 1), question));
            }
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

    /// What the requests want to know of these rows of logits.
    fn ask(&mut self, chunk: &[LogitRow]) -> Asked {
        let first = chunk[0].row;
        let mut asked = Asked::default();
        for row in chunk {
            match self.jobs.get(&row.owner.job).map(|entry| &entry.job) {
                Some(Job::Score(_)) => self.ask_scores(row, row.row - first, &mut asked),
                Some(Job::Generate(_)) => self.ask_draws(row, row.row - first, &mut asked),
                None => {}
            }
        }
        kernels::for_each_mut(&mut asked.draws, |draw, _| {
            if let Some(decoding) = &mut draw.decoding {
                draw.state = match decoding.question(draw.row, draw.num_foreseen) {
                    Ok(question) => DrawState::Asked(question),
                    Err(error) => DrawState::Done(Err(error)),
                };
            }
        });
        for draw in &mut asked.draws {
            if let Some(decoding) = draw.decoding.take()
                && let Some(job) = self.generate_job(draw.job)
            {
                job.put_back(decoding, None);
            }
        }
        asked
    }

    fn generate_job(&mut self, id: JobId) -> Option<&mut GenerateJob> {
        match self.jobs.get_mut(&id).map(|entry| &mut entry.job) {
            Some(Job::Generate(job)) => Some(job),
            _ => None,
        }
    }

    /// Hands the answers to the requests they belong to.
    fn take_answers(&mut self, flight: Flight) -> (StepPlan, Outcome) {
        let mut outcome = Outcome::default();
        let asked = flight.asked;
        let scored = asked.scored_rows.iter().zip(asked.scores);
        for ((row, question), answer) in scored.zip(flight.scores) {
            let taken = match answer {
                Ok(answer) => Ok(self.take_scores(row, &question, answer)),
                Err(error) => Err(draw_error(&error, row.position)),
            };
            match taken {
                Ok(true) => drop(outcome.results.insert(row.seq, Advance::Finish)),
                Ok(false) => {}
                Err(error) => outcome.failures.push((row.owner.job, error)),
            }
        }
        let mut drawn = asked.draws;
        let waiting = drawn.iter_mut().filter(|draw| draw.is_waiting());
        for (draw, answer) in waiting.zip(flight.draws) {
            draw.state = DrawState::Answered(answer);
        }
        for draw in &mut drawn {
            let job = self.generate_job(draw.job);
            draw.decoding = job.and_then(|job| job.take_decoding(draw.index));
        }
        // Samples that had ended, of requests that may be gone: a token too many.
        let num_drawn = drawn.len();
        drawn.retain(|draw| draw.decoding.is_some());
        self.stats.num_tokens_too_many += (num_drawn - drawn.len()) as u64;
        kernels::for_each_mut(&mut drawn, |draw, _| {
            if let DrawState::Answered(answer) =
                std::mem::replace(&mut draw.state, DrawState::Waiting)
            {
                let decoding = draw.decoding.as_mut().expect("others were dropped");
                draw.state = DrawState::Done(decoding.take(answer));
            }
        });
        outcome.draws = drawn;
        (flight.plan, outcome)
    }

    fn logit_rows(&self, plan: &StepPlan) -> Vec<LogitRow> {
        let wanted = plan
            .spans
            .iter()
            .flat_map(|span| span.logits.iter().map(move |position| (span, *position)));
        let known = wanted.enumerate().filter_map(|(row, (span, position))| {
            Some(LogitRow {
                seq: span.seq,
                owner: *self.owners.get(&span.seq)?,
                position,
                row,
                num_foreseen: usize::from(span.is_foreseen && position + 1 == span.query.end),
            })
        });
        known.collect()
    }

    /// Takes out the samples that draw from this row: all of them right after the prompt,
    /// one afterwards; none from a row inside the prompt, whose successor is known.
    fn ask_draws(&mut self, row: &LogitRow, index_of_row: usize, asked: &mut Asked) {
        let Some(Job::Generate(job)) = self.jobs.get_mut(&row.owner.job).map(|e| &mut e.job) else {
            return;
        };
        if let Some(next) = job.prompt.get(row.position + 1) {
            if let Some(top) = job.prompt_logprobs {
                asked.scores.push(ScoreQuestion {
                    row: index_of_row,
                    tokens: vec![*next],
                    top,
                });
                asked.scored_rows.push(*row);
            }
            return;
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
                asked.draws.push(Draw {
                    job: row.owner.job,
                    seq: row.seq,
                    index,
                    row: index_of_row,
                    num_foreseen: row.num_foreseen,
                    decoding: Some(decoding),
                    state: DrawState::Waiting,
                });
            }
        }
    }

    /// The labels' tokens that follow this row.
    fn ask_scores(&self, row: &LogitRow, index_of_row: usize, asked: &mut Asked) {
        let Some(Job::Score(job)) = self.jobs.get(&row.owner.job).map(|e| &e.job) else {
            return;
        };
        let here = targets_at(job, row);
        asked.scores.push(ScoreQuestion {
            row: index_of_row,
            tokens: here.map(|target| target.token).collect(),
            top: 0,
        });
        asked.scored_rows.push(*row);
    }

    /// Adds log-probabilities to their request; true if its sequence has no more to read.
    fn take_scores(
        &mut self,
        row: &LogitRow,
        question: &ScoreQuestion,
        answer: ScoreAnswer,
    ) -> bool {
        match self.jobs.get_mut(&row.owner.job).map(|e| &mut e.job) {
            None => true,
            Some(Job::Generate(job)) => {
                let next = question.tokens[0];
                job.prompt_scores.push(token_logprob(next, 0.0, answer));
                false
            }
            Some(Job::Score(job)) => {
                let here: Vec<ScoreTarget> = targets_at(job, row).copied().collect();
                for (target, logprob) in here.iter().zip(&answer.logprobs) {
                    job.logprobs[target.suffix][target.label] += f64::from(*logprob);
                }
                let targets = &job.parts[row.owner.part].targets;
                let is_last = targets.iter().all(|target| target.position <= row.position);
                if is_last {
                    let sequence = self.scheduler.sequence(row.seq);
                    job.usage.cached_tokens += sequence.map_or(0, |s| s.num_cached());
                    job.parts_left -= 1;
                }
                is_last
            }
        }
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
            let index = draw.index;
            let drawn = match draw.state {
                DrawState::Done(Ok(drawn)) => drawn,
                DrawState::Done(Err(error)) => {
                    failures.push((draw.job, error));
                    continue;
                }
                _ => unreachable!("take_answers ends every draw"),
            };
            self.stats.num_tokens_drawn += 1;
            let parts = going_on.entry(draw.seq).or_default();
            if drawn.finish.is_none() {
                parts.push((draw.job, index, drawn.token));
            }
            if let Some(job) = self.generate_job(draw.job)
                && let Some(decoding) = draw.decoding
            {
                job.put_back(decoding, drawn.finish);
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

/// Seconds since it was looked at last.
struct Watch(Instant);

impl Watch {
    fn lap(&mut self) -> f64 {
        let now = Instant::now();
        (now - std::mem::replace(&mut self.0, now)).as_secs_f64()
    }
}

impl Asked {
    fn append(&mut self, more: Self) {
        self.scores.extend(more.scores);
        self.scored_rows.extend(more.scored_rows);
        self.draws.extend(more.draws);
    }
}

impl Flight {
    fn new(plan: StepPlan) -> Self {
        Self {
            plan,
            asked: Asked::default(),
            scores: Vec::new(),
            draws: Vec::new(),
            later: None,
            error: None,
            started: Instant::now(),
            forward_seconds: 0.0,
        }
    }

    /// Which question asks for each sequence's next token.
    fn questions(&self) -> HashMap<SeqId, usize> {
        let asked = self.asked.draws.iter().filter(|draw| draw.is_waiting());
        asked.map(|draw| draw.seq).zip(0..).collect()
    }
}

impl Draw {
    /// The question, given away once.
    fn question(&mut self) -> Option<DrawQuestion> {
        match std::mem::replace(&mut self.state, DrawState::Waiting) {
            DrawState::Asked(question) => Some(question),
            other => {
                self.state = other;
                None
            }
        }
    }

    fn is_waiting(&self) -> bool {
        matches!(self.state, DrawState::Waiting)
    }
}

/// The tokens of a score request that are looked up in this row.
fn targets_at<'a>(job: &'a ScoreJob, row: &LogitRow) -> impl Iterator<Item = &'a ScoreTarget> {
    let position = row.position;
    let targets = job.parts[row.owner.part].targets.iter();
    targets.filter(move |target| target.position == position)
}
