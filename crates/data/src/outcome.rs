//! What became of a row.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Why a row ended without being accepted. Stage and reason are short names that the funnel
/// counts by; the detail is for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// Where in the recipe, in snake case.
    pub stage: String,
    /// Why, in snake case.
    pub reason: String,
    /// What exactly, in words; may be empty.
    pub detail: String,
}

impl Rejection {
    /// A rejection at `stage` for `reason`.
    pub fn new(
        stage: impl Into<String>,
        reason: impl Into<String>,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            stage: stage.into(),
            reason: reason.into(),
            detail: detail.into(),
        }
    }
}

/// How a row ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is part of the data.
    Accepted,
    /// It is not.
    Rejected(Rejection),
}

/// One line of one file of the data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Name of the file, such as `sft.jsonl`.
    pub file: String,
    /// The line.
    pub value: serde_json::Value,
}

/// Everything a row leaves behind; each row has exactly one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// How it ended.
    pub verdict: Verdict,
    /// What it wrote. A rejected row may have written by-products.
    pub records: Vec<Record>,
    /// What happened on the way, by name.
    pub counts: BTreeMap<String, u64>,
}

impl Outcome {
    /// A row that ended before its recipe began.
    pub fn rejected(rejection: Rejection) -> Self {
        Self {
            verdict: Verdict::Rejected(rejection),
            records: Vec::new(),
            counts: BTreeMap::new(),
        }
    }

    /// Was it accepted?
    pub fn is_accepted(&self) -> bool {
        self.verdict == Verdict::Accepted
    }
}
