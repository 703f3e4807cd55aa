//! Where rows ended.

use data::{Rejection, Verdict};
use serde::Serialize;
use std::collections::BTreeMap;

/// Rows by how they ended. Every row read is accepted, rejected or unfinished, exactly once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Funnel {
    /// Rows read.
    pub read: u64,
    /// Rows accepted.
    pub accepted: u64,
    /// Rows rejected, by stage, then by reason.
    pub rejected: BTreeMap<String, BTreeMap<String, u64>>,
    /// Rows that have no outcome yet: the run was stopped, or they wait for a model.
    pub unfinished: u64,
    /// The recipe's own counters.
    pub counts: BTreeMap<String, u64>,
}

impl Funnel {
    /// Counts a row that ended.
    pub(crate) fn count(&mut self, verdict: &Verdict) {
        self.read += 1;
        match verdict {
            Verdict::Accepted => self.accepted += 1,
            Verdict::Rejected(Rejection { stage, reason, .. }) => {
                self.count_rejection(stage, reason);
            }
        }
    }

    pub(crate) fn count_head(&mut self, rejection: Option<&(String, String)>) {
        self.read += 1;
        match rejection {
            None => self.accepted += 1,
            Some((stage, reason)) => self.count_rejection(stage, reason),
        }
    }

    fn count_rejection(&mut self, stage: &str, reason: &str) {
        let reasons = self.rejected.entry(stage.to_owned()).or_default();
        *reasons.entry(reason.to_owned()).or_default() += 1;
    }

    /// Rows rejected in all.
    pub fn rejected_in_all(&self) -> u64 {
        self.rejected.values().flat_map(BTreeMap::values).sum()
    }

    /// The sum that has to come out.
    pub(crate) fn assert_sum(&self) {
        assert_eq!(
            self.read,
            self.accepted + self.rejected_in_all() + self.unfinished,
            "every row read has exactly one outcome: {self:?}"
        );
    }
}
