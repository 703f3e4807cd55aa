//! The plan of a step, and the draft it grows from.

use crate::block_manager::BlockId;
use crate::sequence::{AdapterKey, SeqId, Sequence};
use data::TokenId;
use std::ops::Range;

/// One row's part of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedSpan {
    /// The row.
    pub seq: SeqId,
    /// Weights beside the base model.
    pub adapter: Option<AdapterKey>,
    /// Positions computed in this step, at least one; the context is `0..query.end`.
    pub query: Range<usize>,
    /// The tokens at these positions.
    pub tokens: Vec<TokenId>,
    /// The last of the tokens is what the step before draws for this row: a 0 stands for it.
    pub is_foreseen: bool,
    /// Where their K/V go: block * block_size + offset.
    pub slots: Vec<u32>,
    /// Blocks of the context, in order: `query.end` over block_size, rounded up.
    pub block_table: Vec<u32>,
    /// Positions of `query` whose logits are wanted, ascending.
    pub logits: Vec<usize>,
    /// After this span the row has all logits it asked for: it rests unless the result appends.
    pub is_complete: bool,
}

/// What a step computes. Goes back to `commit` or `abort` as a whole.
#[derive(Debug)]
pub struct StepPlan {
    /// The rows, at least one. A row may read what a row before it writes in this step.
    pub spans: Vec<PlannedSpan>,
    /// Blocks to copy (source, destination), in this order, before the forward.
    pub copies: Vec<(u32, u32)>,
    pub(super) step: u64,
}

impl StepPlan {
    /// Tokens computed.
    pub fn num_tokens(&self) -> usize {
        self.spans.iter().map(|span| span.query.len()).sum()
    }

    /// Rows of logits computed.
    pub fn num_logits(&self) -> usize {
        self.spans.iter().map(|span| span.logits.len()).sum()
    }
}

/// A plan in the making.
pub(super) struct Draft {
    pub(super) spans: Vec<PlannedSpan>,
    pub(super) copies: Vec<(u32, u32)>,
    pub(super) published: Vec<BlockId>,
    pub(super) num_preempted: usize,
    num_tokens_left: usize,
    num_rows_left: usize,
}

impl Draft {
    pub(super) fn new(max_tokens: usize, max_rows: usize) -> Self {
        Self {
            spans: Vec::new(),
            copies: Vec::new(),
            published: Vec::new(),
            num_preempted: 0,
            num_tokens_left: max_tokens,
            num_rows_left: max_rows,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.num_tokens_left == 0 || self.num_rows_left == 0
    }

    /// As many of these tokens as the budget allows.
    pub(super) fn clip(&self, num_tokens: usize) -> usize {
        num_tokens.min(self.num_tokens_left)
    }

    /// Adds the row's scheduled tokens; its table covers them.
    pub(super) fn push(&mut self, sequence: &Sequence, block_size: usize) {
        let query = sequence.num_computed..sequence.num_scheduled;
        assert!(
            !query.is_empty(),
            "{:?} has an empty chunk at {query:?}",
            sequence.id
        );
        self.num_tokens_left -= query.len();
        self.num_rows_left -= 1;
        let table = &sequence.block_table[..query.end.div_ceil(block_size)];
        let slot = |position: usize| {
            let slot = table[position / block_size].0 as usize * block_size + position % block_size;
            u32::try_from(slot).expect("Scheduler::new checked that a u32 numbers every slot")
        };
        self.spans.push(PlannedSpan {
            seq: sequence.id,
            adapter: sequence.adapter,
            tokens: sequence.tokens[query.clone()].to_vec(),
            is_foreseen: query.end > sequence.num_known(),
            slots: query.clone().map(slot).collect(),
            block_table: table.iter().map(|block| block.0).collect(),
            logits: sequence.wanted_in(&query),
            is_complete: query.end == sequence.num_target(),
            query,
        });
    }

    pub(super) fn into_plan(self, step: u64) -> StepPlan {
        StepPlan {
            spans: self.spans,
            copies: self.copies,
            step,
        }
    }
}
