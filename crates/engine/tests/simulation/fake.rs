//! A model small enough to be checked slot by slot: the K/V at a position is one number that
//! depends on every token before it, as real K/V does, and on the adapter and weights.

use data::TokenId;
use engine::scheduler::{SchedulerConfig, StepPlan};
use engine::sequence::AdapterKey;

/// What decides K/V besides the tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Weights {
    pub(crate) version: u64,
    pub(crate) adapter: Option<AdapterKey>,
}

pub(crate) fn mix(a: u64, b: u64) -> u64 {
    let mut z = (a ^ b.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// K/V of `token` after a context whose last K/V is `before`.
pub(crate) fn kv_after(before: Option<u64>, token: TokenId, weights: Weights) -> u64 {
    let adapter = weights.adapter.map_or(0, |key| key.0 + 1);
    mix(
        mix(before.unwrap_or(7), weights.version * 8 + adapter),
        u64::from(token),
    )
}

/// K/V of every position of a row that is alone in the world.
pub(crate) fn kv_alone(tokens: &[TokenId], weights: Weights) -> Vec<u64> {
    let mut last = None;
    tokens
        .iter()
        .map(|token| *last.insert(kv_after(last, *token, weights)))
        .collect()
}

/// The pool.
pub(crate) struct FakePool {
    block_size: usize,
    slots: Vec<u64>,
}

/// What one span's rows saw: K/V of positions `0..query.end`, read through the block table.
pub(crate) struct Attended(pub(crate) Vec<u64>);

impl FakePool {
    pub(crate) fn new(config: &SchedulerConfig) -> Self {
        Self {
            block_size: config.block_size,
            slots: vec![0; config.num_blocks * config.block_size],
        }
    }

    /// Copies, writes, then reads, as a forward does.
    pub(crate) fn forward(
        &mut self,
        plan: &StepPlan,
        version: u64,
    ) -> Result<Vec<Attended>, String> {
        let mut is_written = vec![false; self.slots.len()];
        for (source, destination) in &plan.copies {
            let start = *source as usize * self.block_size;
            self.slots.copy_within(
                start..start + self.block_size,
                *destination as usize * self.block_size,
            );
        }
        for span in &plan.spans {
            let weights = Weights {
                version,
                adapter: span.adapter,
            };
            if span.query.is_empty()
                || span.query.len() != span.tokens.len()
                || span.query.len() != span.slots.len()
            {
                return Err(format!("lengths of {span:?} disagree"));
            }
            for ((position, token), slot) in span.query.clone().zip(&span.tokens).zip(&span.slots) {
                let before = position
                    .checked_sub(1)
                    .map(|p| self.slots[self.slot(&span.block_table, p)]);
                if self.slot(&span.block_table, position) != *slot as usize {
                    return Err(format!("position {position} is not in its table: {span:?}"));
                }
                if std::mem::replace(&mut is_written[*slot as usize], true) {
                    return Err(format!("slot {slot} is written twice: {plan:?}"));
                }
                self.slots[*slot as usize] = kv_after(before, *token, weights);
            }
        }
        let read = |table: &[u32], end| {
            Attended((0..end).map(|p| self.slots[self.slot(table, p)]).collect())
        };
        Ok(plan
            .spans
            .iter()
            .map(|span| read(&span.block_table, span.query.end))
            .collect())
    }

    /// A step that died half-way: some of its slots were written, with nothing of use.
    pub(crate) fn fail(&mut self, plan: &StepPlan) {
        for slot in plan.spans.iter().flat_map(|span| &span.slots) {
            self.slots[*slot as usize] = 0xDEAD;
        }
    }

    fn slot(&self, table: &[u32], position: usize) -> usize {
        table[position / self.block_size] as usize * self.block_size + position % self.block_size
    }
}
