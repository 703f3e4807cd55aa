//! What must hold after every call, in words that name the block or row that breaks it.

use super::Scheduler;
use crate::sequence::{SeqId, Sequence, Status};
use std::collections::BTreeSet;

/// A broken invariant: an error in this crate, never in the input.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the scheduler's books do not add up: {0}")]
pub struct IntegrityError(String);

impl IntegrityError {
    pub(crate) fn unless(ok: bool, what: impl FnOnce() -> String) -> Result<(), Self> {
        if ok { Ok(()) } else { Err(Self(what())) }
    }
}

impl Scheduler {
    /// Checks all books against each other; reads everything, so call it when idle.
    ///
    /// Free and held blocks are all blocks; a block has as many references as rows list it, and
    /// no row lists it twice; a block being written is nobody else's, unless the same step fills
    /// it; published blocks hold the tokens of every row that lists them; queues and rows agree.
    ///
    /// # Errors
    /// The first thing that does not add up.
    pub fn check_integrity(&self) -> Result<(), IntegrityError> {
        let mut num_holders = vec![0; self.blocks.num_blocks()];
        for sequence in self.sequences.values() {
            self.check_row(sequence)?;
            for block in &sequence.block_table {
                num_holders[block.0 as usize] += 1;
            }
        }
        self.blocks.check(&num_holders)?;
        self.check_writers()?;
        let num_queued = self.waiting.len() + self.preempted.len() + self.running.len();
        IntegrityError::unless(num_queued == self.sequences.len(), || {
            format!(
                "{num_queued} rows are queued, {} are live",
                self.sequences.len()
            )
        })
    }

    fn check_row(&self, sequence: &Sequence) -> Result<(), IntegrityError> {
        let Sequence {
            num_computed,
            num_scheduled,
            block_table,
            ..
        } = sequence;
        let describe = |what: &str| format!("{what}: {sequence:?}");
        let (queue, may_hold) = match sequence.status {
            Status::Waiting => (&self.waiting, false),
            Status::Preempted => (&self.preempted, false),
            Status::Running => (&self.running, true),
        };
        IntegrityError::unless(queue.contains(&sequence.rank()), || describe("in no queue"))?;
        IntegrityError::unless(
            may_hold || (block_table.is_empty() && *num_scheduled == 0),
            || describe("waits and holds blocks"),
        )?;
        let distinct: BTreeSet<_> = block_table.iter().collect();
        IntegrityError::unless(distinct.len() == block_table.len(), || {
            describe("lists a block twice")
        })?;
        let covered = block_table.len() * self.config.block_size;
        IntegrityError::unless(
            num_computed <= num_scheduled
                && *num_scheduled <= covered
                && *num_scheduled <= sequence.tokens.len()
                && sequence.tokens.len() <= sequence.max_len,
            || describe("its counters are out of order"),
        )?;
        IntegrityError::unless(
            !self.steps_running.is_empty() || num_computed == num_scheduled,
            || describe("scheduled without a step"),
        )?;
        let is_drawing = self.steps_running.iter().any(|step| step.is_foreseen);
        IntegrityError::unless(is_drawing || !sequence.is_foreseen(), || {
            describe("waits for a token that nobody draws")
        })?;
        let known = &sequence.tokens[..sequence.num_known()];
        self.blocks
            .check_table(block_table, sequence.adapter, known)
    }

    /// A shared block is complete, or nobody's tokens but computed ones are in it.
    fn check_writers(&self) -> Result<(), IntegrityError> {
        let size = self.config.block_size;
        let mut writer: Vec<Option<SeqId>> = vec![None; self.blocks.num_blocks()];
        for sequence in self.sequences.values() {
            let (from, to) = (sequence.num_computed, sequence.num_scheduled);
            for block in &sequence.block_table[from / size..to.div_ceil(size).max(from / size)] {
                if from == to {
                    continue; // between steps nobody writes
                }
                let before = writer[block.0 as usize].replace(sequence.id);
                IntegrityError::unless(before.is_none(), || {
                    format!("{before:?} and {:?} both write {block:?}", sequence.id)
                })?;
            }
        }
        for sequence in self.sequences.values() {
            for (index, block) in sequence.block_table.iter().enumerate() {
                let others = writer[block.0 as usize].filter(|id| *id != sequence.id);
                let is_read_whole = (index + 1) * size <= sequence.num_computed;
                IntegrityError::unless(others.is_none() || is_read_whole, || {
                    format!(
                        "{others:?} writes {block:?}, which {:?} holds in part",
                        sequence.id
                    )
                })?;
                let is_used = index * size < sequence.num_scheduled;
                IntegrityError::unless(is_used || !self.blocks.is_shared(*block), || {
                    format!("{block:?} is shared, and empty for {:?}", sequence.id)
                })?;
            }
        }
        Ok(())
    }
}
