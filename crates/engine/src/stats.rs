//! Counters of an engine.

use crate::scheduler::{SchedulerStats, StepPlan};

/// Counters since the engine's start, summed over its replicas; times in seconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct EngineStats {
    /// Steps computed.
    pub num_steps: u64,
    /// Tokens computed in chunks of more than one: prompts.
    pub num_tokens_prefilled: u64,
    /// Tokens computed one at a time.
    pub num_tokens_decoded: u64,
    /// Tokens drawn.
    pub num_tokens_drawn: u64,
    /// Requests whose answer nobody waited for any more.
    pub num_canceled: u64,
    /// Whole steps.
    pub step_seconds: f64,
    /// The model's part of them.
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

    pub(crate) fn count(&mut self, plan: &StepPlan, forward_seconds: f64) {
        self.num_steps += 1;
        let prefilled: u64 = plan
            .spans
            .iter()
            .filter(|span| span.query.len() > 1)
            .map(|span| span.query.len() as u64)
            .sum();
        self.num_tokens_prefilled += prefilled;
        self.num_tokens_decoded += plan.num_tokens() as u64 - prefilled;
        self.forward_seconds += forward_seconds;
        if prefilled > 0 {
            self.prefill_seconds += forward_seconds;
        } else {
            self.decode_seconds += forward_seconds;
        }
    }
}
