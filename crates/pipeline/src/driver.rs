//! Drives the rows of a phase: many at once on one thread, no barrier between stages,
//! finished calls and rows committed together before anybody uses them.

use crate::call_log::{CallLog, LoggedRow, RowHead};
use crate::error::PipelineError;
use crate::funnel::Funnel;
use crate::llm::{Llm, Roles, Shared, StageUse, Stop, Wait};
use crate::manifest::Shard;
use crate::ticker::Ticker;
use data::{Outcome, Rejection};
use futures::stream::{FuturesUnordered, Stream};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// One place of the source: a row, or why it could not be read. Ids are unique; a row whose
/// id came before is rejected.
#[derive(Debug, Clone)]
pub struct Sourced<T> {
    /// The row's own id, or a hash of its content.
    pub id: String,
    /// The row.
    pub row: Result<T, Rejection>,
}

/// Judges outcomes in source order, whatever order rows finish in; near-duplicates are
/// removed here. What is stored is the outcome before; the fold is repeated at export.
pub trait Admit {
    /// May turn an accepted outcome into a rejected one.
    fn admit(&mut self, id: &str, outcome: &mut Outcome);
}

/// Admits everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct AdmitAll;

impl Admit for AdmitAll {
    fn admit(&mut self, _: &str, _: &mut Outcome) {}
}

/// Asks a run to stop, from any thread or a signal handler.
#[derive(Debug, Clone, Default)]
pub struct StopSignal(Arc<AtomicU8>);

impl StopSignal {
    /// The first time: begin no new rows and finish those under way. The second: stop now.
    pub fn request(&self) {
        // Saturates: a third request changes nothing.
        let _ = self
            .0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |times| {
                (times < 2).then_some(times + 1)
            });
    }

    /// How often it was asked for, at most 2.
    pub fn times(&self) -> u8 {
        self.0.load(Ordering::SeqCst)
    }
}

/// Which rows of its source a phase drives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Part {
    /// Those of the run's shard.
    #[default]
    Shard,
    /// All of them: a pool that every shard needs whole.
    Whole,
}

/// How a phase is driven.
#[derive(Debug, Clone)]
pub struct DriveOptions {
    /// Rows under way at once, at least 1. Results do not depend on it.
    pub concurrency: usize,
    /// Ends after the first so many accepted rows, in source order.
    pub accept: Option<u64>,
    /// Ends after so many rows of the source.
    pub max_rows: Option<u64>,
    /// Ends early, losing nothing.
    pub stop: StopSignal,
    /// Which rows.
    pub part: Part,
}

impl Default for DriveOptions {
    fn default() -> Self {
        Self {
            concurrency: 64,
            accept: None,
            max_rows: None,
            stop: StopSignal::default(),
            part: Part::default(),
        }
    }
}

/// How far a phase has come.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// Rows that have an outcome, those of earlier invocations included.
    pub rows_done: u64,
    /// Of these, rows that an earlier invocation finished.
    pub rows_from_before: u64,
    /// Accepted rows among those done (before near-duplicates are removed, unless a number
    /// of accepted rows was asked for).
    pub accepted: u64,
    /// Rows under way.
    pub rows_in_flight: usize,
    /// Calls under way.
    pub calls_in_flight: usize,
    /// Calls and tokens by stage, of this invocation.
    pub stages: BTreeMap<String, StageUse>,
    /// Rows that a failed call left without an outcome; the next invocation asks again.
    pub rows_failed: u64,
    /// Why the last of these calls failed.
    pub failure: Option<String>,
    /// Since the phase began.
    pub elapsed: Duration,
}

/// How a phase ended.
#[derive(Debug, Clone)]
pub struct Report {
    /// What became of the rows; exact only after export where rows are removed in order.
    pub funnel: Funnel,
    /// The last progress.
    pub progress: Progress,
    /// Rows that wait for a model that is not loaded.
    pub parked: u64,
    /// Ended before its end: stopped, or with rows whose calls failed. The same command
    /// continues.
    pub interrupted: bool,
}

impl Report {
    /// Whether every row has an outcome, or enough of them were accepted: a later phase may
    /// build on this one.
    pub fn is_whole(&self) -> bool {
        !self.interrupted && self.parked == 0
    }
}

/// What a phase works on.
pub(crate) struct Phase<'a> {
    pub(crate) name: &'a str,
    pub(crate) log: &'a CallLog,
    pub(crate) invocation: i64,
    /// Digest of the recipe: rows that ended under another one are run again.
    pub(crate) recipe: &'a str,
    pub(crate) shard: Shard,
    pub(crate) run_seed: u64,
    /// Calls and tokens of the phases that this invocation drove before.
    pub(crate) used_before: &'a BTreeMap<String, StageUse>,
}

/// Who is told of rows and progress.
pub(crate) struct Hooks<'a> {
    pub(crate) admit: &'a mut dyn Admit,
    pub(crate) observe: &'a mut dyn FnMut(&Progress),
}

/// A row that left its recipe.
struct Finished {
    position: u64,
    id: String,
    result: Result<Outcome, Wait>,
}

/// Rows read ahead of the first unfinished one while accepted rows are counted in order, as
/// a multiple of the concurrency.
const WINDOW: u64 = 64;
/// Heads of finished rows read from the log at a time.
const HEADS: usize = 4096;
/// Rows read from the source before signals are looked at again.
const ROWS_PER_TURN: usize = 8192;
/// Calls that fail one after the other, none between them succeeding, after which no new row
/// is begun; or four times the concurrency, if that is more.
const FAILED_IN_A_ROW: u64 = 100;
/// Between two looks at signals and two reports of progress.
const TICK: Duration = Duration::from_millis(100);
/// Between two writes of the stage counters.
const SAVE_COUNTERS: Duration = Duration::from_secs(1);

/// Drives one phase to its end.
pub(crate) fn drive<T, R>(
    phase: &Phase<'_>,
    source: impl Iterator<Item = Sourced<T>>,
    roles: &Roles,
    options: &DriveOptions,
    recipe: &R,
    hooks: Hooks<'_>,
) -> Result<Report, PipelineError>
where
    R: AsyncFn(&T, &Llm<'_>) -> Result<(), Stop>,
{
    if options.concurrency == 0 {
        return Err(PipelineError::Option {
            field: "concurrency",
            value: "0".into(),
            expected: "at least 1 row under way",
        });
    }
    let shared = Shared::new(phase.log, roles, phase.run_seed);
    let start = |position, id: String, row: T| {
        let shared = &shared;
        async move {
            let llm = Llm::new(shared, &id);
            let result = recipe(&row, &llm).await;
            let result = llm.into_outcome(result);
            Finished {
                position,
                id,
                result,
            }
        }
    };
    let ticker = Ticker::start(TICK);
    let mut driver = Driver {
        phase,
        options,
        shared: &shared,
        source,
        start,
        rows: FuturesUnordered::new(),
        reader: Reader::default(),
        done: Vec::new(),
        fold: options.accept.map(Fold::new),
        funnel: Funnel::default(),
        from_before: 0,
        parked: 0,
        interrupted_rows: 0,
        failed_rows: 0,
        started: Instant::now(),
        told: None,
        saved: None,
        hooks,
    };
    let driven = futures::executor::block_on(std::future::poll_fn(|context| {
        ticker.register(context.waker());
        driver.poll(context)
    }));
    // What was logged stays logged, whatever the end.
    let counted = driver.save_counters();
    driven?;
    counted?;
    driver.report()
}

/// Where the source has been read to.
#[derive(Default)]
struct Reader {
    /// Place of the next row, from 0.
    position: u64,
    ended: bool,
    /// Hashes of the ids so far.
    ids: HashSet<u128>,
    /// Finished rows of earlier invocations from `position` on, as far as they were read.
    heads: VecDeque<RowHead>,
    heads_ended: bool,
}

/// Accepted rows counted in source order.
struct Fold {
    accept: u64,
    accepted: u64,
    /// Place of the first row that has not been folded.
    position: u64,
    waiting: BTreeMap<u64, Folded>,
    /// The target was reached at the row before this place.
    cutoff: Option<u64>,
}

enum Folded {
    /// Finished now.
    Outcome(String, Outcome),
    /// Finished in an earlier invocation.
    Logged(String),
    /// Not a row of this shard.
    NotOurs,
}

impl Fold {
    fn new(accept: u64) -> Self {
        Self {
            accept,
            accepted: 0,
            position: 0,
            waiting: BTreeMap::new(),
            cutoff: (accept == 0).then_some(0),
        }
    }
}

struct Driver<'a, 'h, I, S, Fut> {
    phase: &'a Phase<'a>,
    options: &'a DriveOptions,
    shared: &'a Shared<'a>,
    source: I,
    /// Starts the recipe on a row.
    start: S,
    rows: FuturesUnordered<Fut>,
    reader: Reader,
    /// Rows that the next commit writes.
    done: Vec<LoggedRow>,
    fold: Option<Fold>,
    funnel: Funnel,
    from_before: u64,
    parked: u64,
    interrupted_rows: u64,
    failed_rows: u64,
    started: Instant,
    told: Option<Instant>,
    saved: Option<Instant>,
    hooks: Hooks<'h>,
}

impl<T, I, S, Fut> Driver<'_, '_, I, S, Fut>
where
    I: Iterator<Item = Sourced<T>>,
    S: Fn(u64, String, T) -> Fut,
    Fut: Future<Output = Finished>,
{
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), PipelineError>> {
        loop {
            match self.turn(context) {
                Err(error) => return Poll::Ready(Err(error)),
                Ok(Turn::Ended) => return Poll::Ready(Ok(())),
                Ok(Turn::Moved) => {}
                Ok(Turn::Idle) => return Poll::Pending,
            }
        }
    }

    /// Reads rows, lets those that can go on do so, commits what they finished.
    fn turn(&mut self, context: &mut Context<'_>) -> Result<Turn, PipelineError> {
        let stop = self.options.stop.times();
        let enough = self.fold.as_ref().is_some_and(|fold| fold.cutoff.is_some());
        if stop >= 2 || enough {
            self.commit()?;
            self.interrupted_rows += self.rows.len() as u64;
            self.rows.clear();
            return Ok(Turn::Ended);
        }
        let mut moved = if stop == 0 { self.read_rows()? } else { false };
        while let Poll::Ready(Some(finished)) = Pin::new(&mut self.rows).poll_next(context) {
            self.finish(finished);
            moved = true;
        }
        moved |= self.commit()?;
        self.tell()?;
        let nothing_left = self.rows.is_empty() && !self.may_read(stop);
        Ok(if nothing_left {
            Turn::Ended
        } else if moved {
            Turn::Moved
        } else {
            Turn::Idle
        })
    }

    /// Whether another row may be begun now.
    fn may_read(&self, stop: u8) -> bool {
        let limit = self.options.max_rows.unwrap_or(u64::MAX);
        let window = WINDOW.saturating_mul(self.options.concurrency as u64);
        let ahead = self
            .fold
            .as_ref()
            .map_or(0, |fold| self.reader.position - fold.position);
        let enough = self.fold.as_ref().is_some_and(|fold| fold.cutoff.is_some());
        stop == 0
            && !self.reader.ended
            && !enough
            && self.reader.position < limit
            && ahead < window
            && !self.is_hopeless()
    }

    /// Whether new rows would only fail like those before them.
    fn is_hopeless(&self) -> bool {
        let failed = self.shared.failed.borrow();
        let too_many = FAILED_IN_A_ROW.max(4 * self.options.concurrency as u64);
        failed.engine_stopped || failed.in_a_row >= too_many
    }

    fn read_rows(&mut self) -> Result<bool, PipelineError> {
        let mut moved = false;
        for _ in 0..ROWS_PER_TURN {
            if self.rows.len() >= self.options.concurrency || !self.may_read(0) {
                break;
            }
            moved = true;
            let Some(sourced) = self.source.next() else {
                self.reader.ended = true;
                let fact = source_rows_fact(self.phase.name);
                self.phase
                    .log
                    .set_fact(&fact, &self.reader.position.to_string())?;
                break;
            };
            let position = self.reader.position;
            self.reader.position += 1;
            self.begin(position, sourced)?;
        }
        self.advance_fold()?;
        Ok(moved)
    }

    fn begin(&mut self, position: u64, sourced: Sourced<T>) -> Result<(), PipelineError> {
        let Sourced { id, row } = sourced;
        if !self.phase.shard.owns(&id) {
            self.fold_in(position, || Folded::NotOurs);
            return Ok(());
        }
        let first = self.reader.ids.insert(id_hash(&id));
        if let Some(head) = self.head_of(position)?
            && head.id == id
            && head.recipe == self.phase.recipe
        {
            self.from_before += 1;
            if self.fold.is_none() {
                self.funnel.count_head(head.rejection.as_ref());
            }
            self.fold_in(position, || Folded::Logged(id));
            return Ok(());
        }
        let rejection = match row {
            Ok(row) if first => {
                self.rows.push((self.start)(position, id, row));
                return Ok(());
            }
            Ok(_) => Rejection::new("read", "duplicate_id", format!("another row is `{id}`")),
            Err(rejection) => rejection,
        };
        self.end(position, id, Outcome::rejected(rejection));
        Ok(())
    }

    /// The logged row at `position`; asked for in ascending order.
    fn head_of(&mut self, position: u64) -> Result<Option<RowHead>, PipelineError> {
        let reader = &mut self.reader;
        loop {
            while reader
                .heads
                .front()
                .is_some_and(|head| head.position < position)
            {
                reader.heads.pop_front();
            }
            if reader.heads.is_empty() && !reader.heads_ended {
                let heads = self.phase.log.row_heads(self.phase.name, position, HEADS)?;
                reader.heads_ended = heads.len() < HEADS;
                reader.heads = heads.into();
                continue;
            }
            return Ok(match reader.heads.front() {
                Some(head) if head.position == position => reader.heads.pop_front(),
                _ => None,
            });
        }
    }

    fn finish(&mut self, finished: Finished) {
        let Finished {
            position,
            id,
            result,
        } = finished;
        match result {
            Ok(outcome) => self.end(position, id, outcome),
            Err(Wait::Model) => self.parked += 1,
            Err(Wait::Interrupted) => self.interrupted_rows += 1,
            Err(Wait::Failed) => self.failed_rows += 1,
        }
    }

    fn end(&mut self, position: u64, id: String, outcome: Outcome) {
        if self.fold.is_none() {
            self.funnel.count(&outcome.verdict);
        }
        self.done.push(LoggedRow {
            position,
            id,
            outcome,
        });
    }

    /// Writes finished calls and rows, then lets those who wait for them go on.
    fn commit(&mut self) -> Result<bool, PipelineError> {
        if let Some(failure) = self.shared.failure.borrow_mut().take() {
            return Err(failure);
        }
        let unlogged = std::mem::take(&mut *self.shared.unlogged.borrow_mut());
        if unlogged.is_empty() && self.done.is_empty() {
            return Ok(false);
        }
        let (calls, waiting): (Vec<_>, Vec<_>) = unlogged.into_iter().unzip();
        let rows = (self.phase.name, self.phase.recipe, self.done.as_slice());
        self.phase.log.commit(self.phase.invocation, &calls, rows)?;
        for one in waiting {
            // A row that was dropped meanwhile does not wait any more.
            let _ = one.send(());
        }
        for row in std::mem::take(&mut self.done) {
            self.fold_in(row.position, || Folded::Outcome(row.id, row.outcome));
        }
        self.advance_fold()?;
        Ok(true)
    }

    fn fold_in(&mut self, position: u64, folded: impl FnOnce() -> Folded) {
        if let Some(fold) = &mut self.fold {
            fold.waiting.insert(position, folded());
        }
    }

    /// Folds the rows whose predecessors are all folded.
    fn advance_fold(&mut self) -> Result<(), PipelineError> {
        let Some(fold) = &mut self.fold else {
            return Ok(());
        };
        while fold.cutoff.is_none()
            && let Some(folded) = fold.waiting.remove(&fold.position)
        {
            let (id, outcome) = match folded {
                Folded::NotOurs => (String::new(), None),
                Folded::Outcome(id, outcome) => (id, Some(outcome)),
                Folded::Logged(id) => {
                    let outcome = self.phase.log.row(self.phase.name, fold.position)?;
                    (id, outcome)
                }
            };
            fold.position += 1;
            let Some(mut outcome) = outcome else { continue };
            if outcome.is_accepted() {
                self.hooks.admit.admit(&id, &mut outcome);
            }
            self.funnel.count(&outcome.verdict);
            fold.accepted += u64::from(outcome.is_accepted());
            if fold.accepted >= fold.accept {
                fold.cutoff = Some(fold.position);
            }
        }
        Ok(())
    }

    fn progress(&self) -> Progress {
        Progress {
            rows_done: self.funnel.read,
            rows_from_before: self.from_before,
            accepted: self.funnel.accepted,
            rows_in_flight: self.rows.len(),
            calls_in_flight: self.shared.in_flight.get(),
            stages: self.shared.stages.borrow().clone(),
            rows_failed: self.failed_rows,
            failure: self.shared.failed.borrow().last.clone(),
            elapsed: self.started.elapsed(),
        }
    }

    fn tell(&mut self) -> Result<(), PipelineError> {
        if self.told.is_none_or(|told| told.elapsed() >= TICK) {
            let progress = self.progress();
            (self.hooks.observe)(&progress);
            self.told = Some(Instant::now());
        }
        if self
            .saved
            .is_none_or(|saved| saved.elapsed() >= SAVE_COUNTERS)
        {
            self.save_counters()?;
            self.saved = Some(Instant::now());
        }
        Ok(())
    }

    fn save_counters(&self) -> Result<(), PipelineError> {
        let mut stages = self.phase.used_before.clone();
        for (stage, one) in self.shared.stages.borrow().iter() {
            *stages.entry(stage.clone()).or_default() += *one;
        }
        self.phase.log.save_use(self.phase.invocation, &stages)
    }

    fn report(self) -> Result<Report, PipelineError> {
        let progress = self.progress();
        (self.hooks.observe)(&progress);
        let stopped = self.options.stop.times() > 0;
        let enough = self.fold.as_ref().is_some_and(|fold| fold.cutoff.is_some());
        if self.interrupted_rows > 0 && !stopped && !enough {
            return Err(PipelineError::EngineStopped {
                rows: self.interrupted_rows,
            });
        }
        let mut funnel = self.funnel;
        if !enough {
            // Rows past a reached target were never needed; all others are accounted for.
            funnel.unfinished = self.parked + self.interrupted_rows + self.failed_rows;
            funnel.read += funnel.unfinished;
        }
        funnel.assert_sum();
        let left_over =
            !self.reader.ended && self.reader.position < self.options.max_rows.unwrap_or(u64::MAX);
        Ok(Report {
            funnel,
            progress,
            parked: self.parked,
            interrupted: !enough
                && (self.failed_rows > 0 || stopped && (left_over || self.interrupted_rows > 0)),
        })
    }
}

/// What a turn did.
enum Turn {
    /// Something; there may be more to do.
    Moved,
    /// Nothing; everybody waits.
    Idle,
    /// All there was to do.
    Ended,
}

/// Name of the fact that says how many rows the source of a phase has.
pub(crate) fn source_rows_fact(phase: &str) -> String {
    format!("source rows of {phase}")
}

fn id_hash(id: &str) -> u128 {
    let hash = blake3::hash(id.as_bytes());
    let first: [u8; 16] = hash.as_bytes()[..16]
        .try_into()
        .expect("a hash has 32 bytes");
    u128::from_le_bytes(first)
}
