//! What the next step computes: prefill chunks and decode rows under one token budget.
//! Pure integer code; knows no tensor, clock, random number, tokenizer or sampler.
//!
//! 1. [`Scheduler::add`] takes a row in.
//! 2. [`Scheduler::schedule`] decides a step and returns its [`StepPlan`].
//! 3. The caller copies `plan.copies` in order, then runs the forward over `plan.spans`.
//! 4. [`Scheduler::commit`] applies what came of it, or [`Scheduler::abort`] takes it back.
//!
//! **Ahead.** While a step is computed, [`Scheduler::schedule_ahead`] decides the one after it as
//! if every row went on by one token, which is not known yet: positions, slots and blocks do not
//! depend on it. Its block is published once the token is known, and a row that turns out to have
//! ended has computed one token too many, which nobody sees. Whoever computes must do steps in
//! the order they were decided in: then a block may change hands while an older step writes it.
//!
//! **Order.** Short rows (at most a block of tokens to compute: decode rows, forced tokens, last
//! chunks) before long ones, each by rank; then admissions by rank, preempted rows first. A chunk
//! is cut only where the budget ends, so nothing is admitted while a prefill is unfinished: a row
//! that shares a prefix always finds the blocks of whoever came before it, in the same step too,
//! since a block is published when it is scheduled and a step writes K/V before it reads them.
//!
//! **Progress.** A row that needs a block when none is free takes those of paused rows, then of
//! the lowest rank not yet in the step, at last its own. The highest rank thus always advances,
//! and [`Scheduler::add`] refuses what does not fit into the pool alone.

mod integrity;
mod plan;

pub use crate::block_manager::{BlockHasher, PrefixCache};
pub use integrity::IntegrityError;
pub use plan::{PlannedSpan, StepPlan};

use crate::block_manager::{BlockId, BlockManager, Demand, Published};
use crate::sequence::{Logits, NewSequence, Rank, SeqId, Sequence, Status};
use data::TokenId;
use plan::Draft;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Sizes and switches; every number at least 1.
#[derive(Debug, Clone, Copy)]
pub struct SchedulerConfig {
    /// Blocks of the KV pool.
    pub num_blocks: usize,
    /// Tokens in a block.
    pub block_size: usize,
    /// Tokens computed in a step at most.
    pub max_tokens_per_step: usize,
    /// Rows in a step at most.
    pub max_sequences: usize,
    /// Tokens of a row at most, prompt included.
    pub max_context: usize,
    /// Whether rows share full blocks of equal prefixes.
    pub prefix_cache: PrefixCache,
    /// Hash of the prefix cache.
    pub hasher: BlockHasher,
}

/// A request the scheduler does not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchedulerError {
    /// A size that cannot be.
    #[error("scheduler: {field} = {value} is out of range")]
    Config {
        /// Field of [`SchedulerConfig`].
        field: &'static str,
        /// The value given.
        value: usize,
    },
    /// No token to compute.
    #[error("the prompt or the tokens to append are empty")]
    Empty,
    /// More tokens than the row or the context allows.
    #[error("{len} tokens do not fit: at most {max_len}")]
    TooLong {
        /// Tokens asked for.
        len: usize,
        /// Tokens allowed.
        max_len: usize,
    },
    /// The pool could never hold the row, even alone.
    #[error("{max_len} tokens need {needed} KV blocks, the pool has {available}")]
    DoesNotFit {
        /// Tokens of the row at most.
        max_len: usize,
        /// Blocks they need.
        needed: usize,
        /// Blocks of the pool.
        available: usize,
    },
    /// Positions not ascending, none at all, handed over before, or not below `len`.
    #[error("logits are wanted at impossible positions of {len} tokens")]
    BadLogits {
        /// Tokens of the row.
        len: usize,
    },
    /// Tokens appended before the logits they follow from were handed over.
    #[error("{seq:?} cannot be appended to: {num_computed} of {num_target} tokens are computed")]
    NotReady {
        /// The row.
        seq: SeqId,
        /// Tokens with K/V.
        num_computed: usize,
        /// Tokens to be computed.
        num_target: usize,
    },
    /// Ended, cancelled or never added.
    #[error("{seq:?} is not known")]
    Unknown {
        /// The row.
        seq: SeqId,
    },
    /// A row was said to go on by one token, and did not end, nor go on by one.
    #[error("{seq:?} was to go on by one token, not by {given}")]
    NotAsForeseen {
        /// The row.
        seq: SeqId,
        /// Tokens that came.
        given: usize,
    },
    /// Forks and extensions happen between steps.
    #[error("{seq:?} cannot be forked or extended while a step is running")]
    StepRunning {
        /// The row.
        seq: SeqId,
    },
}

/// What a finished step means for one of its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Advance {
    /// These tokens follow: one sampled, or several where a grammar forces them.
    Append(Vec<TokenId>),
    /// It ends; its blocks are released, and stay in the cache until they are re-used.
    Finish,
    /// Nothing yet: more of the prompt is to come, or it rests until it is extended.
    Keep,
}

/// Gauges and counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SchedulerStats {
    /// Blocks of the pool.
    pub num_blocks: usize,
    /// Blocks nobody holds, cached ones included.
    pub num_blocks_free: usize,
    /// Tokens whose K/V a later row could find, held or free.
    pub num_tokens_cached: usize,
    /// Rows that hold blocks.
    pub num_running: usize,
    /// Rows that wait, preempted ones included.
    pub num_waiting: usize,
    /// Tokens found in the cache so far.
    pub num_tokens_hit: u64,
    /// Tokens scheduled so far.
    pub num_tokens_scheduled: u64,
    /// Rows preempted so far.
    pub num_preemptions: u64,
}

/// A step that was decided, and is not yet over.
#[derive(Debug)]
struct RunningStep {
    number: u64,
    /// Blocks that can be found since it was decided.
    published: Vec<BlockId>,
    /// Its rows are where it leaves them: the step after it was to be decided.
    is_foreseen: bool,
}

/// Decides steps; owns every row and block.
#[derive(Debug)]
pub struct Scheduler {
    config: SchedulerConfig,
    blocks: BlockManager,
    sequences: BTreeMap<SeqId, Sequence>,
    waiting: BTreeSet<Rank>,
    preempted: BTreeSet<Rank>,
    running: BTreeSet<Rank>,
    num_added: u64,
    num_steps: u64,
    /// Steps between `schedule` and `commit`, the oldest first: one, and one ahead of it.
    steps_running: VecDeque<RunningStep>,
    counters: SchedulerStats,
}

impl Scheduler {
    /// An empty scheduler over a free pool.
    ///
    /// # Errors
    /// A size of 0, or a pool with more slots than a `u32` can number.
    pub fn new(config: SchedulerConfig) -> Result<Self, SchedulerError> {
        for (field, value) in [
            ("num_blocks", config.num_blocks),
            ("block_size", config.block_size),
            ("max_tokens_per_step", config.max_tokens_per_step),
            ("max_sequences", config.max_sequences),
            ("max_context", config.max_context),
        ] {
            if value == 0 {
                return Err(SchedulerError::Config { field, value });
            }
        }
        let too_many = SchedulerError::Config {
            field: "num_blocks",
            value: config.num_blocks,
        };
        let num_slots = config.num_blocks.checked_mul(config.block_size);
        if num_slots.is_none_or(|slots| u32::try_from(slots).is_err()) {
            return Err(too_many);
        }
        let num_blocks = u32::try_from(config.num_blocks).map_err(|_| too_many)?;
        let (block_size, policy) = (config.block_size, config.prefix_cache);
        Ok(Self {
            config,
            blocks: BlockManager::new(num_blocks, block_size, policy, config.hasher),
            sequences: BTreeMap::new(),
            waiting: BTreeSet::new(),
            preempted: BTreeSet::new(),
            running: BTreeSet::new(),
            num_added: 0,
            num_steps: 0,
            steps_running: VecDeque::new(),
            counters: SchedulerStats::default(),
        })
    }

    /// The largest [`NewSequence::max_len`] that context and pool allow.
    pub fn max_len(&self) -> usize {
        let num_slots = self.config.num_blocks * self.config.block_size;
        num_slots.min(self.config.max_context)
    }

    /// Takes a row in; it is scheduled as soon as its turn comes.
    ///
    /// # Errors
    /// An empty prompt, impossible logits positions, more tokens than the context or the pool
    /// can hold.
    pub fn add(&mut self, new: NewSequence) -> Result<SeqId, SchedulerError> {
        let (max_len, max_context) = (new.max_len, self.config.max_context);
        if max_len > max_context {
            return Err(SchedulerError::TooLong {
                len: max_len,
                max_len: max_context,
            });
        }
        let (needed, available) = (
            max_len.div_ceil(self.config.block_size),
            self.config.num_blocks,
        );
        if needed > available {
            return Err(SchedulerError::DoesNotFit {
                max_len,
                needed,
                available,
            });
        }
        let id = SeqId(self.num_added);
        let sequence = Sequence::new(id, new)?;
        self.num_added += 1;
        self.waiting.insert(sequence.rank());
        self.sequences.insert(id, sequence);
        Ok(id)
    }

    /// Ends a row at once, also while a step computes it. Returns whether it was there.
    pub fn cancel(&mut self, id: SeqId) -> bool {
        let Some(sequence) = self.sequences.remove(&id) else {
            return false;
        };
        self.queue(sequence.status).remove(&sequence.rank());
        self.blocks.release_table(&sequence.block_table);
        true
    }

    /// `n` copies of a row, younger than every row so far, that go their own way from here.
    ///
    /// A copy of a row whose prompt is computed shares its blocks; the first to write into a
    /// shared partial block gets a copy of it. A copy of a row that is not so far waits, and
    /// finds the row's blocks in the prefix cache. For n samples of one prompt: commit the
    /// prompt's step with [`Advance::Keep`], fork, [`Scheduler::extend`] each with its token.
    ///
    /// # Errors
    /// An unknown row; a step is running.
    pub fn fork(&mut self, parent: SeqId, n: usize) -> Result<Vec<SeqId>, SchedulerError> {
        let template = self.between_steps(parent)?.clone();
        let block_size = self.config.block_size;
        let is_shared = template.status == Status::Running && template.num_remaining() < block_size;
        let mut children = Vec::with_capacity(n);
        for _ in 0..n {
            let mut child = template.clone();
            child.id = SeqId(self.num_added);
            self.num_added += 1;
            if is_shared {
                child
                    .block_table
                    .truncate(child.num_computed.div_ceil(block_size));
                child
                    .block_table
                    .iter()
                    .for_each(|block| self.blocks.hold(*block));
                child.num_hit = Some(child.num_computed);
            } else {
                child.block_table.clear();
                (child.num_computed, child.num_scheduled, child.num_hit) = (0, 0, None);
                child.status = Status::Waiting;
            }
            children.push(child.id);
            self.queue(child.status).insert(child.rank());
            self.sequences.insert(child.id, child);
        }
        Ok(children)
    }

    /// Appends to a paused row ([`Sequence::is_paused`]) and says where logits are wanted now.
    ///
    /// # Errors
    /// An unknown row; one that still computes; no tokens, or more than it may have; positions
    /// already handed over; a step is running.
    pub fn extend(
        &mut self,
        id: SeqId,
        tokens: &[TokenId],
        logits: Logits,
    ) -> Result<(), SchedulerError> {
        self.between_steps(id)?;
        self.seq_mut(id).extend(tokens, logits)
    }

    /// Decides the next step; `None` if no row has anything to compute.
    ///
    /// # Panics
    /// The previous plan was neither committed nor aborted.
    pub fn schedule(&mut self) -> Option<StepPlan> {
        assert!(
            self.steps_running.is_empty(),
            "step {} is still running",
            self.num_steps
        );
        self.decide()
    }

    /// Decides the step after the running one before the latter's results are there. Each row
    /// in `going_on` will be given one token for it, or end; what else the step completes sits
    /// the next one out. `None`: nothing to compute, or blocks are short and a row that ends
    /// now might spare another one its own; the running step has to be committed first.
    ///
    /// # Panics
    /// The plan is not the only running one.
    pub fn schedule_ahead(
        &mut self,
        running: &StepPlan,
        going_on: &BTreeSet<SeqId>,
    ) -> Option<StepPlan> {
        let [step] = self.steps_running.make_contiguous() else {
            panic!("{} steps are running", self.steps_running.len());
        };
        assert_eq!(step.number, running.step, "the plan is not the running one");
        step.is_foreseen = true;
        for span in &running.spans {
            if let Some(sequence) = self.sequences.get_mut(&span.seq) {
                sequence.settle();
                if going_on.contains(&span.seq) {
                    sequence.foresee();
                }
            }
        }
        let due = self.running.iter().map(|rank| self.seq(rank.id));
        let due = due.filter(|sequence| sequence.num_remaining() > 0);
        let needed: usize = due
            .map(|sequence| self.num_blocks_to_grow(sequence.id, sequence.num_target()))
            .sum();
        if needed > self.blocks.num_free() {
            return None;
        }
        self.decide()
    }

    /// Applies a step that went through. Rows without a result are kept; results of rows
    /// cancelled meanwhile are ignored. Returns the rows whose tokens could not be appended
    /// (too many, not their turn, not as foreseen); these are ended, the others go on.
    ///
    /// # Panics
    /// The plan is not the oldest running one.
    #[must_use = "a row that could not be appended to has ended"]
    pub fn commit(
        &mut self,
        plan: StepPlan,
        results: impl IntoIterator<Item = (SeqId, Advance)>,
    ) -> Vec<(SeqId, SchedulerError)> {
        let step = self.steps_running.pop_front();
        let step = step.filter(|step| step.number == plan.step);
        let step = step.expect("the plan is the oldest running one");
        if !step.is_foreseen {
            for span in &plan.spans {
                if let Some(sequence) = self.sequences.get_mut(&span.seq) {
                    sequence.settle();
                }
            }
        }
        let mut failed = Vec::new();
        for (id, advance) in results {
            match (advance, self.sequences.get_mut(&id)) {
                (Advance::Append(tokens), Some(sequence)) => {
                    if let Err(error) = sequence.append(&tokens) {
                        self.cancel(id);
                        failed.push((id, error));
                    } else {
                        self.publish_last(id);
                    }
                }
                (Advance::Finish, Some(sequence)) => {
                    let num_too_many = sequence.num_scheduled - sequence.num_computed;
                    self.counters.num_tokens_scheduled -= num_too_many as u64;
                    self.cancel(id);
                }
                (Advance::Keep, _) | (_, None) => {}
            }
        }
        for seq in plan.spans.into_iter().map(|span| span.seq) {
            if self.sequence(seq).is_some_and(Sequence::is_foreseen) {
                self.cancel(seq);
                failed.push((seq, SchedulerError::NotAsForeseen { seq, given: 0 }));
            }
        }
        failed
    }

    /// Takes back a step that failed: what its rows' K/V hold is unknown, so they are ended and
    /// returned, and nothing they published in this step can be found any more. Other rows hold
    /// no block of this step: whoever found one was itself scheduled in it, or in the step ahead
    /// of it, which has to be taken back before.
    ///
    /// # Panics
    /// The plan is not the youngest running one.
    pub fn abort(&mut self, plan: StepPlan) -> Vec<SeqId> {
        let step = self.steps_running.pop_back();
        let step = step.filter(|step| step.number == plan.step);
        let step = step.expect("the plan is the youngest running one");
        for block in step.published {
            self.blocks.unpublish(block);
        }
        let ids = plan.spans.into_iter().map(|span| span.seq);
        ids.filter(|id| self.cancel(*id)).collect()
    }

    /// Forgets all cached K/V, as after a change of weights. Running rows keep theirs, and never
    /// publish them.
    pub fn reset_prefix_cache(&mut self) {
        self.blocks.reset_cache();
    }

    /// A row by its id, until it ends.
    pub fn sequence(&self, id: SeqId) -> Option<&Sequence> {
        self.sequences.get(&id)
    }

    /// No row at all.
    pub fn is_empty(&self) -> bool {
        self.sequences.is_empty()
    }

    /// Gauges and counters.
    pub fn stats(&self) -> SchedulerStats {
        SchedulerStats {
            num_blocks: self.blocks.num_blocks(),
            num_blocks_free: self.blocks.num_free(),
            num_tokens_cached: self.blocks.num_published() * self.config.block_size,
            num_running: self.running.len(),
            num_waiting: self.waiting.len() + self.preempted.len(),
            ..self.counters
        }
    }
}

/// How much a running row has to compute.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Length {
    /// At most a block.
    Short,
    /// More.
    Long,
}

/// Deciding.
impl Scheduler {
    fn decide(&mut self) -> Option<StepPlan> {
        let mut draft = Draft::new(self.config.max_tokens_per_step, self.config.max_sequences);
        self.schedule_running(Length::Short, &mut draft);
        self.schedule_running(Length::Long, &mut draft);
        self.admit(&mut draft);
        if draft.spans.is_empty() {
            return None;
        }
        self.num_steps += 1;
        self.steps_running.push_back(RunningStep {
            number: self.num_steps,
            published: std::mem::take(&mut draft.published),
            is_foreseen: false,
        });
        let plan = draft.into_plan(self.num_steps);
        self.counters.num_tokens_scheduled += plan.num_tokens() as u64;
        Some(plan)
    }

    fn schedule_running(&mut self, length: Length, draft: &mut Draft) {
        let is_due = |id: &SeqId| match self.seq(*id).num_remaining() {
            0 => false,
            n => (length == Length::Short) == (n <= self.config.block_size),
        };
        let due: Vec<SeqId> = self
            .running
            .iter()
            .map(|rank| rank.id)
            .filter(is_due)
            .collect();
        for id in due {
            if draft.is_full() {
                return;
            }
            let sequence = self.seq(id);
            if sequence.status != Status::Running {
                continue; // preempted for a row before it
            }
            let end = sequence.num_computed + draft.clip(sequence.num_remaining());
            if self.make_room(id, end, draft) {
                self.plan_span(id, end, draft);
            }
        }
    }

    fn admit(&mut self, draft: &mut Draft) {
        if draft.num_preempted > 0 && !draft.spans.is_empty() {
            return; // blocks are short: what was freed belongs to the rows that run
        }
        let mut num_active = self
            .running
            .iter()
            .filter(|r| !self.seq(r.id).is_paused())
            .count();
        while num_active < self.config.max_sequences && !draft.is_full() {
            let queue = self.preempted.iter().chain(&self.waiting);
            let Some(id) = queue
                .map(|rank| rank.id)
                .find(|id| !self.seq(*id).is_paused())
            else {
                return;
            };
            // The rows that run will soon need a block each; admitting into their reserve
            // would only preempt this row again. With an empty step nothing can be in the way.
            let num_spare = match draft.spans.len() {
                0 => 0,
                _ => num_active.min(self.config.num_blocks / 8),
            };
            if self.admit_row(id, num_spare) {
                num_active += 1;
                let sequence = self.seq(id);
                let end = sequence.num_computed + draft.clip(sequence.num_remaining());
                self.plan_span(id, end, draft);
            } else if !(draft.spans.is_empty() && self.preempt_paused(draft)) {
                return; // the first in the queue waits; nobody overtakes it
            }
        }
    }

    /// Gives a waiting row all blocks it needs, cached ones first. A hit ends at or before the
    /// first wanted position, so that the logits there, and at least one token, are computed.
    fn admit_row(&mut self, id: SeqId, num_spare: usize) -> bool {
        let sequence = self.sequences.get(&id).expect("ids in queues are live");
        let demand = Demand {
            adapter: sequence.adapter,
            tokens: &sequence.tokens,
            num_hit_max: sequence
                .next_wanted()
                .expect("paused rows are not admitted"),
            num_blocks: sequence.num_target().div_ceil(self.config.block_size),
            num_spare,
        };
        let Some(reservation) = self.blocks.reserve(&demand) else {
            return false;
        };
        let epoch = self.blocks.epoch();
        self.counters.num_tokens_hit += reservation.num_hit as u64;
        self.move_to(id, Status::Running);
        let sequence = self.seq_mut(id);
        sequence.block_table = reservation.blocks;
        (sequence.num_computed, sequence.num_scheduled) =
            (reservation.num_hit, reservation.num_hit);
        sequence.num_hit.get_or_insert(reservation.num_hit);
        sequence.epoch = epoch;
        true
    }

    /// Frees blocks until the row can compute up to `end`. False: it was itself preempted.
    fn make_room(&mut self, id: SeqId, end: usize, draft: &mut Draft) -> bool {
        // Counted anew each time: a preempted row may have been the other holder of the tail.
        while self.num_blocks_to_grow(id, end) > self.blocks.num_free() {
            if self.preempt_paused(draft) {
                continue;
            }
            let is_idle = |rank: &&Rank| {
                let sequence = self.seq(rank.id);
                sequence.num_scheduled == sequence.num_computed
            };
            let victim = self
                .running
                .iter()
                .rev()
                .find(is_idle)
                .expect("the row itself is idle")
                .id;
            self.preempt(victim, draft);
            if victim == id {
                return false;
            }
        }
        true
    }

    fn num_blocks_to_grow(&self, id: SeqId, end: usize) -> usize {
        let sequence = self.seq(id);
        let num_new = end
            .div_ceil(self.config.block_size)
            .saturating_sub(sequence.block_table.len());
        num_new + usize::from(self.shared_tail(id).is_some())
    }

    /// Index in the table of the block that the row writes next, if others hold it too.
    fn shared_tail(&self, id: SeqId) -> Option<usize> {
        let sequence = self.seq(id);
        let index = sequence.num_computed / self.config.block_size;
        sequence
            .block_table
            .get(index)
            .filter(|block| self.blocks.is_shared(**block))
            .map(|_| index)
    }

    fn preempt_paused(&mut self, draft: &mut Draft) -> bool {
        let victim = self
            .running
            .iter()
            .rev()
            .find(|rank| self.seq(rank.id).is_paused());
        let Some(id) = victim.map(|rank| rank.id) else {
            return false;
        };
        self.preempt(id, draft);
        true
    }

    /// The row loses its blocks and keeps its tokens; it will compute them again, or find them
    /// in the cache.
    fn preempt(&mut self, id: SeqId, draft: &mut Draft) {
        self.move_to(id, Status::Preempted);
        let sequence = self.seq_mut(id);
        (sequence.num_computed, sequence.num_scheduled) = (0, 0);
        let table = std::mem::take(&mut sequence.block_table);
        self.blocks.release_table(&table);
        draft.num_preempted += 1;
        self.counters.num_preemptions += 1;
    }

    /// Puts the row's next tokens, up to `end`, into the step. The blocks they need are free.
    fn plan_span(&mut self, id: SeqId, end: usize, draft: &mut Draft) {
        if let Some(index) = self.shared_tail(id) {
            let copy = self.blocks.allocate().expect("room was made for the copy");
            let shared = std::mem::replace(&mut self.seq_mut(id).block_table[index], copy);
            self.blocks.release(shared);
            draft.copies.push((shared.0, copy.0));
        }
        let block_size = self.config.block_size;
        let num_blocks = end.div_ceil(block_size);
        while self.seq(id).block_table.len() < num_blocks {
            let block = self
                .blocks
                .allocate()
                .expect("room was made for the new tokens");
            self.seq_mut(id).block_table.push(block);
        }
        let sequence = self
            .sequences
            .get_mut(&id)
            .expect("only live rows are planned");
        sequence.num_scheduled = end;
        draft.push(sequence, block_size);
        let first = sequence.num_computed;
        draft.published.extend(self.publish(id, first));
    }

    /// Puts the blocks that are filled from position `first` on into the index, as far as they
    /// are scheduled and their tokens are known.
    fn publish(&mut self, id: SeqId, first: usize) -> Vec<BlockId> {
        let (block_size, sequence) = (self.config.block_size, &self.sequences[&id]);
        let end = sequence.num_scheduled.min(sequence.num_known());
        let mut published = Vec::new();
        if sequence.epoch == self.blocks.epoch() {
            for index in first / block_size..end / block_size {
                let block = sequence.block_table[index];
                let previous = index.checked_sub(1).map(|i| sequence.block_table[i]);
                let tokens = &sequence.tokens[index * block_size..(index + 1) * block_size];
                if self
                    .blocks
                    .publish(block, previous, sequence.adapter, tokens)
                    == Published::Yes
                {
                    published.push(block);
                }
            }
        }
        published
    }

    /// The row's last token has become known; the step ahead may have filled a block with it.
    fn publish_last(&mut self, id: SeqId) {
        let last = self.seq(id).num_known() - 1;
        let published = self.publish(id, last);
        if let Some(step) = self.steps_running.back_mut() {
            step.published.extend(published);
        }
    }
}

/// Bookkeeping.
impl Scheduler {
    fn between_steps(&self, seq: SeqId) -> Result<&Sequence, SchedulerError> {
        if !self.steps_running.is_empty() {
            return Err(SchedulerError::StepRunning { seq });
        }
        self.sequences
            .get(&seq)
            .ok_or(SchedulerError::Unknown { seq })
    }

    fn move_to(&mut self, id: SeqId, status: Status) {
        let sequence = self.seq_mut(id);
        let rank = sequence.rank();
        let before = std::mem::replace(&mut sequence.status, status);
        self.queue(before).remove(&rank);
        self.queue(status).insert(rank);
    }

    fn queue(&mut self, status: Status) -> &mut BTreeSet<Rank> {
        match status {
            Status::Waiting => &mut self.waiting,
            Status::Preempted => &mut self.preempted,
            Status::Running => &mut self.running,
        }
    }

    fn seq(&self, id: SeqId) -> &Sequence {
        self.sequences.get(&id).expect("ids in queues are live")
    }

    fn seq_mut(&mut self, id: SeqId) -> &mut Sequence {
        self.sequences.get_mut(&id).expect("ids in queues are live")
    }
}
