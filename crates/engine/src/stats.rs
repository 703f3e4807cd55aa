//! Counters of an engine.

use crate::scheduler::{SchedulerStats, StepPlan};
use crate::sequence::SeqId;

/// Counters since the engine's start, summed over its replicas; times in seconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct EngineStats {
    /// Steps computed.
    pub num_steps: u64,
    /// Of them, those that a device was given before the tokens of the step before were known.
    pub num_steps_ahead: u64,
    /// Tokens computed in chunks of more than one: prompts.
    pub num_tokens_prefilled: u64,
    /// Tokens computed one at a time.
    pub num_tokens_decoded: u64,
    /// Tokens drawn.
    pub num_tokens_drawn: u64,
    /// Tokens that a step ahead drew for samples that had ended in the step before; nobody sees
    /// them, and they count nowhere else.
    pub num_tokens_too_many: u64,
    /// Requests whose answer nobody waited for any more.
    pub num_canceled: u64,
    /// Whole steps.
    pub step_seconds: f64,
    /// The model's part of them: with steps ahead, from when a device could begin to when its
    /// answers were there.
    pub forward_seconds: f64,
    /// Forward passes of steps that computed at least one prompt chunk.
    pub prefill_seconds: f64,
    /// Forward passes of steps that only decoded.
    pub decode_seconds: f64,
    /// Drawing tokens.
    pub sampling_seconds: f64,
    /// The scheduler's own.
    pub scheduler: SchedulerStats,
}

impl EngineStats {
    /// Adds another replica's counters.
    pub(crate) fn add(&mut self, other: Self) {
        self.num_steps += other.num_steps;
        self.num_steps_ahead += other.num_steps_ahead;
        self.num_tokens_too_many += other.num_tokens_too_many;
        self.num_tokens_prefilled += other.num_tokens_prefilled;
        self.num_tokens_decoded += other.num_tokens_decoded;
        self.num_tokens_drawn += other.num_tokens_drawn;
        self.num_canceled += other.num_canceled;
        self.step_seconds += other.step_seconds;
        self.forward_seconds += other.forward_seconds;
        self.prefill_seconds += other.prefill_seconds;
        self.decode_seconds += other.decode_seconds;
        self.sampling_seconds += other.sampling_seconds;
        let (sum, other) = (&mut self.scheduler, other.scheduler);
        sum.num_blocks += other.num_blocks;
        sum.num_blocks_free += other.num_blocks_free;
        sum.num_tokens_cached += other.num_tokens_cached;
        sum.num_running += other.num_running;
        sum.num_waiting += other.num_waiting;
        sum.num_tokens_hit += other.num_tokens_hit;
        sum.num_tokens_scheduled += other.num_tokens_scheduled;
        sum.num_preemptions += other.num_preemptions;
    }

    /// Counts a step; of its rows, those that `is_live`.
    pub(crate) fn count(
        &mut self,
        plan: &StepPlan,
        is_live: impl Fn(SeqId) -> bool,
        forward_seconds: f64,
    ) {
        self.num_steps += 1;
        let live = plan.spans.iter().filter(|span| is_live(span.seq));
        let (mut prefilled, mut decoded) = (0, 0);
        for len in live.map(|span| span.query.len() as u64) {
            *(if len > 1 {
                &mut prefilled
            } else {
                &mut decoded
            }) += len;
        }
        self.num_tokens_prefilled += prefilled;
        self.num_tokens_decoded += decoded;
        self.forward_seconds += forward_seconds;
        if prefilled > 0 {
            self.prefill_seconds += forward_seconds;
        } else {
            self.decode_seconds += forward_seconds;
        }
    }
}
