//! What a benchmark is once it is read: items of one or more turns, each with its rules.

use crate::judge::Rule;
use crate::suite::Suite;
use serde_json::Value;

/// A benchmark, in the order of its file.
#[derive(Debug)]
pub struct Benchmark {
    /// Which one.
    pub suite: Suite,
    /// What is asked and judged, after `limit`.
    pub items: Vec<Item>,
    /// Items of the file (of the release, where there are releases), before `limit`.
    pub num_items: usize,
    /// What was read but cannot be judged, and other things a reader of the score should know.
    pub notes: Vec<String>,
}

/// One conversation with the model.
#[derive(Debug)]
pub struct Item {
    /// The benchmark's own key, as text; unique.
    pub key: String,
    /// The record as it was read.
    pub doc: Value,
    /// LiveBench's task, Multi-IF's language; empty elsewhere.
    pub group: String,
    /// One turn, or Multi-IF's up to three.
    pub turns: Vec<Turn>,
}

/// A user turn and the rules for its answer.
#[derive(Debug)]
pub struct Turn {
    /// From 1.
    pub number: usize,
    /// What the user says.
    pub prompt: String,
    /// What the answer must follow.
    pub rules: Vec<Rule>,
}

impl Benchmark {
    /// Keeps the first `count` items; the rest is remembered by [`Benchmark::num_items`].
    pub fn limit(&mut self, count: usize) {
        self.items.truncate(count);
    }

    /// Fewer items than the benchmark has: a smoke test, not a result.
    pub fn is_partial(&self) -> bool {
        self.items.len() < self.num_items
    }

    /// Name of the task that an item's turn belongs to in tables and result files.
    pub fn task_of(&self, item: &Item, turn: &Turn) -> String {
        match self.suite {
            Suite::IfEval | Suite::IfBench => self.suite.name().to_owned(),
            Suite::LiveBench => format!("livebench_{}", item.group),
            Suite::MultiIf => format!("multi_if_turn_{}", turn.number),
        }
    }
}
