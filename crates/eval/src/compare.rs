//! Two sets of answers to the same items: paired differences, and the rows that changed.

use crate::bootstrap::{self, Interval};
use crate::item::Benchmark;
use crate::judge::{Judged, Ruling};
use crate::report::tallies;
use crate::tally::{Metric, Tally};
use serde::Serialize;

/// One metric of two sets of answers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Task it belongs to.
    pub task: String,
    /// Name as in result files.
    pub metric: &'static str,
    /// Name for people.
    #[serde(skip)]
    pub label: &'static str,
    /// The other's value, 0 to 1.
    pub theirs: f64,
    /// Our value, 0 to 1.
    pub ours: f64,
    /// `ours - theirs`.
    pub difference: f64,
    /// 95 % interval of the difference, both resampled with the same prompts.
    pub interval: Interval,
}

/// An instruction whose verdict is not the same.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// Key of the item.
    pub key: String,
    /// Turn, from 1.
    pub turn: usize,
    /// The instruction.
    pub instruction: String,
    /// (strict, loose) of the other.
    pub theirs: (bool, bool),
    /// (strict, loose) of ours.
    pub ours: (bool, bool),
    /// Why the one that does not follow it (strictly) does not.
    pub reason: String,
}

/// Ours against theirs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Name of the other.
    pub with: String,
    /// Every metric of every task, then LiveBench's category score.
    pub differences: Vec<Difference>,
    /// Prompts that only we follow, strictly.
    pub prompts_gained: usize,
    /// Prompts that only the other follows, strictly.
    pub prompts_lost: usize,
    /// Rows of which at least one verdict changed.
    pub rows_changed: usize,
    /// Every changed verdict, in the benchmark's order.
    pub changes: Vec<Change>,
}

impl Comparison {
    /// Compares two judgements of the same benchmark: both have one row per judged turn, in
    /// the same order. Rows with a rule that cannot be judged on either side are left out.
    pub fn of(benchmark: &Benchmark, with: &str, ours: &[Judged], theirs: &[Judged]) -> Self {
        let pairs: Vec<(&Judged, &Judged)> = ours
            .iter()
            .zip(theirs)
            .filter(|(ours, theirs)| ours.is_judged() && theirs.is_judged())
            .collect();
        let both = || pairs.iter().copied();
        let follows = |row: &Judged| row.rulings.iter().all(|ruling| ruling.strict);
        let changes: Vec<Change> = both()
            .flat_map(|(ours, theirs)| changes(ours, theirs))
            .collect();
        let mut changed: Vec<(&str, usize)> = changes
            .iter()
            .map(|change| (change.key.as_str(), change.turn))
            .collect();
        changed.dedup();
        Self {
            with: with.to_owned(),
            differences: differences(benchmark, &pairs),
            prompts_gained: both().filter(|(a, b)| follows(a) && !follows(b)).count(),
            prompts_lost: both().filter(|(a, b)| !follows(a) && follows(b)).count(),
            rows_changed: changed.len(),
            changes,
        }
    }
}

fn changes(ours: &Judged, theirs: &Judged) -> Vec<Change> {
    let verdict = |ruling: &Ruling| (ruling.strict, ruling.loose);
    let pairs = ours.rulings.iter().zip(&theirs.rulings);
    pairs
        .filter(|(ours, theirs)| verdict(ours) != verdict(theirs))
        .map(|(our, their)| Change {
            key: ours.key.clone(),
            turn: ours.turn,
            instruction: our.id.clone(),
            theirs: verdict(their),
            ours: verdict(our),
            reason: our
                .reason
                .as_ref()
                .or(their.reason.as_ref())
                .cloned()
                .unwrap_or_default(),
        })
        .collect()
}

fn differences(benchmark: &Benchmark, pairs: &[(&Judged, &Judged)]) -> Vec<Difference> {
    let metrics = benchmark.suite.metrics();
    let task_of = |row: &Judged| row.task.clone();
    let ours = tallies(pairs.iter().map(|(ours, _)| *ours), task_of);
    let theirs = tallies(pairs.iter().map(|(_, theirs)| *theirs), task_of);
    let mut all = Vec::new();
    for ((task, ours), (_, theirs)) in ours.iter().zip(&theirs) {
        all.extend(difference(task, &[ours], &[theirs], metrics));
    }
    if benchmark.suite.has_category_score() {
        let strata = |tasks: &[(String, Vec<Tally>)]| -> Vec<Vec<Tally>> {
            tasks.iter().map(|(_, rows)| rows.clone()).collect()
        };
        let (ours, theirs) = (strata(&ours), strata(&theirs));
        let ours: Vec<&[Tally]> = ours.iter().map(Vec::as_slice).collect();
        let theirs: Vec<&[Tally]> = theirs.iter().map(Vec::as_slice).collect();
        all.extend(difference(
            "category",
            &ours,
            &theirs,
            &[Metric::LiveBenchScore],
        ));
    }
    all
}

fn difference(
    task: &str,
    ours: &[&[Tally]],
    theirs: &[&[Tally]],
    metrics: &[Metric],
) -> Vec<Difference> {
    let sums = |strata: &[&[Tally]]| -> Vec<Tally> {
        strata
            .iter()
            .map(|rows| rows.iter().copied().sum())
            .collect()
    };
    let intervals = bootstrap::paired_intervals(ours, theirs, metrics);
    let (ours, theirs) = (sums(ours), sums(theirs));
    let numbers = metrics.iter().zip(intervals).map(|(metric, interval)| {
        let our = bootstrap::mean_over(&ours, *metric);
        let their = bootstrap::mean_over(&theirs, *metric);
        Difference {
            task: task.to_owned(),
            metric: metric.name(),
            label: metric.label(),
            theirs: their,
            ours: our,
            difference: our - their,
            interval,
        }
    });
    numbers.collect()
}
