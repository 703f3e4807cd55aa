//! One row on its way through the engine: its tokens, how far their K/V are written, and which
//! logits it still wants. Knows no tensor, clock, random number or model.
//!
//! ```text
//! 0 ...... num_computed ...... num_scheduled ...... num_target ...... len ...... max_len
//! [ K/V written  )[ in the running step )[ to be computed )[ never needed )[ may be appended )
//! [ wanted logits below num_delivered were handed over )
//! ```
//!
//! `num_scheduled` equals `num_computed` between steps. Preemption sets both to 0 and leaves
//! `num_delivered`, so a recomputed row hands over no logits twice.
//!
//! A row can be foreseen to go on while the step that draws its next token is still computed: a 0
//! stands for that token until it is known.

use crate::block_manager::{BlockId, Epoch};
use crate::scheduler::SchedulerError;
use data::TokenId;
use std::cmp::Reverse;
use std::ops::Range;

/// Name of a sequence, never re-used by the scheduler that gave it; later means younger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeqId(pub u64);

/// Which weights beside the base model made a row's K/V; rows of different keys never share blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AdapterKey(pub u64);

/// Rows of higher priority are admitted first and preempted last; equal ones by arrival.
/// An expected length put here gives longest-first scheduling.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(pub i64);

/// The positions whose logits a sequence wants; the logits at position `p` predict token `p + 1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Logits {
    /// At the last token, again after each append: generation.
    Last,
    /// At this position and every later one, appended tokens included: log-probabilities of
    /// the prompt (`From(0)`) or of forced tokens (`From(prompt_len - 1)`).
    From(usize),
    /// At these positions, strictly ascending, at least one: scoring. Tokens after the last of
    /// them are not computed.
    At(Vec<usize>),
}

/// What [`crate::scheduler::Scheduler::add`] takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSequence {
    /// The prompt, at least one token.
    pub tokens: Vec<TokenId>,
    /// Where logits are wanted.
    pub logits: Logits,
    /// Tokens at most, prompt included.
    pub max_len: usize,
    /// Weights beside the base model.
    pub adapter: Option<AdapterKey>,
    /// Place in the queue.
    pub priority: Priority,
}

/// Where a sequence stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Not yet admitted; holds no block.
    Waiting,
    /// Was running, lost its blocks to an older row, goes on before any waiting row.
    Preempted,
    /// Holds blocks.
    Running,
}

/// Order of rows: smaller is admitted earlier and preempted later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    priority: Reverse<Priority>,
    pub(crate) id: SeqId,
}

/// A row known to the scheduler. Fields change only through the scheduler.
#[derive(Debug, Clone)]
pub struct Sequence {
    pub(crate) id: SeqId,
    pub(crate) tokens: Vec<TokenId>,
    pub(crate) status: Status,
    pub(crate) block_table: Vec<BlockId>,
    pub(crate) num_computed: usize,
    pub(crate) num_scheduled: usize,
    pub(crate) num_delivered: usize,
    /// Hit at the first admission; `None` before it.
    pub(crate) num_hit: Option<usize>,
    /// The cache generation its oldest K/V belong to.
    pub(crate) epoch: Epoch,
    pub(crate) max_len: usize,
    pub(crate) adapter: Option<AdapterKey>,
    logits: Logits,
    priority: Priority,
    /// The last token is not known yet.
    is_foreseen: bool,
}

impl Sequence {
    /// Checks and takes in a new row.
    pub(crate) fn new(id: SeqId, new: NewSequence) -> Result<Self, SchedulerError> {
        if new.tokens.is_empty() {
            return Err(SchedulerError::Empty);
        }
        if new.tokens.len() > new.max_len {
            return Err(SchedulerError::TooLong {
                len: new.tokens.len(),
                max_len: new.max_len,
            });
        }
        check_logits(&new.logits, 0..new.tokens.len())?;
        Ok(Self {
            id,
            tokens: new.tokens,
            status: Status::Waiting,
            block_table: Vec::new(),
            num_computed: 0,
            num_scheduled: 0,
            num_delivered: 0,
            num_hit: None,
            epoch: Epoch::default(),
            max_len: new.max_len,
            adapter: new.adapter,
            logits: new.logits,
            priority: new.priority,
            is_foreseen: false,
        })
    }

    /// Prompt and appended tokens.
    pub fn tokens(&self) -> &[TokenId] {
        &self.tokens
    }

    /// Where it stands.
    pub fn status(&self) -> Status {
        self.status
    }

    /// Tokens whose K/V are written.
    pub fn num_computed(&self) -> usize {
        self.num_computed
    }

    /// Tokens found in the prefix cache, or shared at a fork, when it was first admitted.
    pub fn num_cached(&self) -> usize {
        self.num_hit.unwrap_or(0)
    }

    /// Tokens that may still be appended.
    pub fn num_appendable(&self) -> usize {
        self.max_len - self.tokens.len()
    }

    /// All wanted logits were handed over: it rests, out of the schedule, until it is extended
    /// or ended. It keeps its blocks as long as nobody else needs them.
    pub fn is_paused(&self) -> bool {
        self.next_wanted().is_none()
    }

    /// First position whose logits are wanted and not yet handed over.
    pub(crate) fn next_wanted(&self) -> Option<usize> {
        let len = self.tokens.len();
        match &self.logits {
            Logits::Last => (self.num_delivered < len).then(|| len - 1),
            Logits::From(first) => Some(self.num_delivered.max(*first)).filter(|p| *p < len),
            Logits::At(positions) => positions.iter().copied().find(|p| *p >= self.num_delivered),
        }
    }

    /// Positions of `range` whose logits are wanted and not yet handed over, ascending.
    pub(crate) fn wanted_in(&self, range: &Range<usize>) -> Vec<usize> {
        let last = self.tokens.len() - 1;
        let wants = |p: &usize| match &self.logits {
            Logits::Last => *p == last,
            Logits::From(first) => p >= first,
            Logits::At(positions) => positions.binary_search(p).is_ok(),
        };
        range
            .clone()
            .filter(|p| *p >= self.num_delivered)
            .filter(wants)
            .collect()
    }

    /// End of the tokens that must be computed.
    pub(crate) fn num_target(&self) -> usize {
        match &self.logits {
            Logits::Last | Logits::From(_) => self.tokens.len(),
            Logits::At(positions) => positions.last().map_or(0, |last| last + 1),
        }
    }

    /// Tokens to be computed before it rests.
    pub(crate) fn num_remaining(&self) -> usize {
        if self.is_paused() {
            0
        } else {
            self.num_target() - self.num_computed
        }
    }

    pub(crate) fn rank(&self) -> Rank {
        Rank {
            priority: Reverse(self.priority),
            id: self.id,
        }
    }

    /// The step that computed its scheduled tokens went through.
    pub(crate) fn settle(&mut self) {
        self.num_computed = self.num_scheduled;
        self.num_delivered = self.num_delivered.max(self.num_computed);
    }

    pub(crate) fn is_foreseen(&self) -> bool {
        self.is_foreseen
    }

    /// Tokens that are known.
    pub(crate) fn num_known(&self) -> usize {
        self.tokens.len() - usize::from(self.is_foreseen)
    }

    /// The row will go on by one token, if it can go on at all.
    pub(crate) fn foresee(&mut self) {
        self.is_foreseen = self.append(&[0]).is_ok();
    }

    /// Appends to a paused row, wanting logits where it wanted them before; or says which token
    /// was foreseen.
    pub(crate) fn append(&mut self, tokens: &[TokenId]) -> Result<(), SchedulerError> {
        if self.is_foreseen {
            let [token] = *tokens else {
                return Err(SchedulerError::NotAsForeseen {
                    seq: self.id,
                    given: tokens.len(),
                });
            };
            self.is_foreseen = false;
            let last = self.tokens.last_mut();
            *last.expect("a foreseen token stands at the end") = token;
            return Ok(());
        }
        match self.logits {
            Logits::Last | Logits::From(_) => {}
            // Its positions were all handed over: without new ones it would never end.
            Logits::At(_) => {
                return Err(SchedulerError::BadLogits {
                    len: self.tokens.len(),
                });
            }
        }
        self.check_append(tokens)?;
        self.tokens.extend_from_slice(tokens);
        Ok(())
    }

    /// Appends to a paused row and says anew where logits are wanted.
    pub(crate) fn extend(
        &mut self,
        tokens: &[TokenId],
        logits: Logits,
    ) -> Result<(), SchedulerError> {
        self.check_append(tokens)?;
        check_logits(
            &logits,
            self.num_delivered..self.tokens.len() + tokens.len(),
        )?;
        self.tokens.extend_from_slice(tokens);
        self.logits = logits;
        Ok(())
    }

    fn check_append(&self, tokens: &[TokenId]) -> Result<(), SchedulerError> {
        if tokens.is_empty() {
            return Err(SchedulerError::Empty);
        }
        if !self.is_paused() {
            return Err(SchedulerError::NotReady {
                seq: self.id,
                num_computed: self.num_computed,
                num_target: self.num_target(),
            });
        }
        if tokens.len() > self.num_appendable() {
            let len = self.tokens.len() + tokens.len();
            return Err(SchedulerError::TooLong {
                len,
                max_len: self.max_len,
            });
        }
        Ok(())
    }
}

/// Wanted positions must lie in `open` (not yet handed over, within the tokens) and ascend.
fn check_logits(logits: &Logits, open: Range<usize>) -> Result<(), SchedulerError> {
    let ok = match logits {
        Logits::Last => true,
        Logits::From(first) => *first < open.end,
        Logits::At(positions) => {
            !positions.is_empty()
                && positions.is_sorted_by(|a, b| a < b)
                && positions.iter().all(|p| open.contains(p))
        }
    };
    if ok {
        Ok(())
    } else {
        Err(SchedulerError::BadLogits { len: open.end })
    }
}
