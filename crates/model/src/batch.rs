//! What one step computes: a flat list of tokens and where each of them belongs.

use crate::{KvPool, ModelConfig, ModelError};
use kernels::SequenceSpan;

/// An adapter that was added to a model; valid until it is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AdapterId(pub(crate) u32);

/// The tokens of one step, flattened over sequences. Prefill chunks and decode rows mix freely.
#[derive(Debug, Clone, Default)]
pub struct ForwardBatch {
    /// (T) what each row reads.
    pub tokens: Vec<u32>,
    /// (T) its place in its sequence, from 0.
    pub positions: Vec<u32>,
    /// (T) where its K and V go: block * block size + offset. No two rows share a slot.
    pub slots: Vec<u32>,
    /// Which rows make up which sequence, and in which blocks that sequence's K and V lie;
    /// in row order, covering every row once.
    pub spans: Vec<SequenceSpan>,
    /// (T) the adapter each row is computed with; empty if none is used at all.
    pub adapters: Vec<Option<AdapterId>>,
    /// (S) rows whose logits are wanted, in the order they are wanted in.
    pub logit_rows: Vec<u32>,
    /// Rows whose token is what a question of the last draw draws, and the number of that
    /// question; `tokens` holds anything for them. Only where [`crate::CausalLm::draws_later`].
    pub drawn: Vec<(u32, usize)>,
}

impl ForwardBatch {
    /// Checks everything that an index into the model or the pool is made of.
    ///
    /// # Errors
    /// The first contradiction, with the numbers.
    pub(crate) fn check(&self, config: &ModelConfig, kv: &KvPool) -> Result<(), ModelError> {
        let wrong = |problem: String| Err(ModelError::Batch { problem });
        let rows = self.tokens.len();
        if rows == 0 {
            return wrong("no rows".into());
        }
        for (name, len) in [
            ("positions", self.positions.len()),
            ("slots", self.slots.len()),
        ] {
            if len != rows {
                return wrong(format!("{rows} tokens but {len} {name}"));
            }
        }
        if !self.adapters.is_empty() && self.adapters.len() != rows {
            return wrong(format!(
                "{rows} tokens but {} adapters",
                self.adapters.len()
            ));
        }
        let slots = kv.num_blocks() * kv.block_size();
        for (what, values, end) in [
            ("token", &self.tokens, config.vocab_size),
            ("slot", &self.slots, slots),
            ("logit row", &self.logit_rows, rows),
            ("drawn row", &self.drawn_rows(), rows),
        ] {
            if let Some(value) = values.iter().find(|value| **value as usize >= end) {
                return wrong(format!("{what} {value} is out of range, there are {end}"));
            }
        }
        self.check_spans(kv)
    }

    /// The same, where tokens are drawn at once, so that no row waits for its token.
    ///
    /// # Errors
    /// As [`ForwardBatch::check`]; rows that wait for their token.
    pub(crate) fn check_known(&self, config: &ModelConfig, kv: &KvPool) -> Result<(), ModelError> {
        self.check(config, kv)?;
        if !self.drawn.is_empty() {
            let problem = "rows whose tokens are still to be drawn, on the host".into();
            return Err(ModelError::Batch { problem });
        }
        Ok(())
    }

    fn drawn_rows(&self) -> Vec<u32> {
        self.drawn.iter().map(|(row, _)| *row).collect()
    }

    fn check_spans(&self, kv: &KvPool) -> Result<(), ModelError> {
        let wrong = |problem: String| Err(ModelError::Batch { problem });
        let mut next = 0;
        for (index, span) in self.spans.iter().enumerate() {
            let (query, context) = (&span.query, span.context_len);
            if query.start != next || query.end <= query.start || query.end > self.tokens.len() {
                return wrong(format!(
                    "span {index} has rows {query:?}, expected to start at {next}"
                ));
            }
            next = query.end;
            if context < query.len() {
                let rows = query.len();
                return wrong(format!(
                    "span {index}: {rows} rows in a context of {context}"
                ));
            }
            for (offset, row) in query.clone().enumerate() {
                let position = context - query.len() + offset;
                if self.positions[row] as usize != position {
                    let given = self.positions[row];
                    return wrong(format!(
                        "row {row}: position {given}, by its span {position}"
                    ));
                }
                let block = span.blocks.get(position / kv.block_size()).copied();
                let slot = block.map(|b| b as usize * kv.block_size() + position % kv.block_size());
                if slot != Some(self.slots[row] as usize) {
                    let given = self.slots[row];
                    return wrong(format!("row {row}: slot {given}, by its span {slot:?}"));
                }
            }
        }
        if next != self.tokens.len() {
            return wrong(format!("spans cover {next} of {} rows", self.tokens.len()));
        }
        Ok(())
    }
}
