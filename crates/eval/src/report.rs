//! Judged rows become numbers with intervals.

use crate::bootstrap::{self, Interval};
use crate::item::Benchmark;
use crate::judge::Judged;
use crate::suite::Suite;
use crate::tally::{Metric, Tally};
use data::FinishReason;
use serde::Serialize;
use std::collections::BTreeMap;

/// One number of a table. All are shares, 0 to 1.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Number {
    /// Name as in result files.
    pub metric: &'static str,
    /// Name for people.
    #[serde(skip)]
    pub label: &'static str,
    /// The value.
    pub value: f64,
    /// Standard error, where lm-eval gives one.
    pub stderr: Option<f64>,
    /// 95 % bootstrap interval.
    pub interval: Interval,
}

/// Instructions of one type, or of one group of types.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TypeReport {
    /// The full id, or its part before the colon.
    pub name: String,
    /// Instructions of this type.
    pub instructions: u32,
    /// Share followed, strictly.
    pub strict: f64,
    /// 95 % bootstrap interval of it.
    pub strict_interval: Interval,
    /// Share followed, loosely.
    pub loose: f64,
    /// 95 % bootstrap interval of it.
    pub loose_interval: Interval,
}

/// Numbers over one set of rows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TaskReport {
    /// Name as in result files.
    pub name: String,
    /// Prompts judged, those without a response included.
    pub prompts: u32,
    /// Instructions of these prompts.
    pub instructions: u32,
    /// The suite's metrics, the headline first.
    pub numbers: Vec<Number>,
}

/// What a benchmark says about one set of answers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Name of the benchmark.
    pub benchmark: &'static str,
    /// Items in the file, or in the release.
    pub items: usize,
    /// Items judged; fewer where there was a limit.
    pub items_judged: usize,
    /// Prompts without a response; they count as failed.
    pub missing: usize,
    /// Why they are missing, with how many each.
    pub missing_reasons: BTreeMap<String, usize>,
    /// Prompts left out of every number because a rule cannot be judged, by id and reason.
    pub unsupported: BTreeMap<String, usize>,
    /// Responses that ended at the token limit; they count as what they are.
    pub cut_at_max_tokens: usize,
    /// Responses whose file names another prompt under the same key.
    pub other_wordings: Vec<String>,
    /// One per task, in order of appearance.
    pub tasks: Vec<TaskReport>,
    /// LiveBench's category score: the unweighted mean of the tasks' scores.
    pub category: Option<Number>,
    /// Multi-IF's languages, each turn by itself.
    pub languages: Vec<TaskReport>,
    /// By group of instruction types, over all rows.
    pub groups: Vec<TypeReport>,
    /// By instruction type, over all rows.
    pub types: Vec<TypeReport>,
    /// The tasks over the prompts that have a response; empty if none is missing.
    pub answered_only: Vec<TaskReport>,
    /// What else a reader should know.
    pub notes: Vec<String>,
}

impl Report {
    /// Counts and resamples `rows`, the judged turns of `benchmark` in its order.
    pub fn of(benchmark: &Benchmark, rows: &[Judged]) -> Self {
        let suite = benchmark.suite;
        let unsupported = unsupported(rows);
        let rows: Vec<&Judged> = rows.iter().filter(|row| row.is_judged()).collect();
        let rows = rows.as_slice();
        let by_task = tallies(rows.iter().copied(), |row| row.task.clone());
        let tasks: Vec<_> = by_task
            .iter()
            .map(|(name, rows)| task(suite, name, rows))
            .collect();
        let strata: Vec<&[Tally]> = by_task.iter().map(|(_, rows)| rows.as_slice()).collect();
        let missing = rows.iter().filter_map(|row| row.missing.as_ref());
        let answered: Vec<&Judged> = rows
            .iter()
            .copied()
            .filter(|row| row.missing.is_none())
            .collect();
        let languages = if suite == Suite::MultiIf {
            tallies(rows.iter().copied(), |row| {
                format!("{} {}", row.task, row.group)
            })
        } else {
            Vec::new()
        };
        let mut missing_reasons = BTreeMap::new();
        for reason in missing {
            *missing_reasons.entry(reason.clone()).or_insert(0) += 1;
        }
        Self {
            benchmark: suite.name(),
            items: benchmark.num_items,
            items_judged: benchmark.items.len(),
            missing: rows.len() - answered.len(),
            missing_reasons,
            unsupported,
            cut_at_max_tokens: rows
                .iter()
                .filter(|row| row.finish_reason == Some(FinishReason::Length))
                .count(),
            other_wordings: rows
                .iter()
                .filter(|row| row.other_wording)
                .map(|row| row.key.clone())
                .collect(),
            category: suite
                .has_category_score()
                .then(|| number(&strata, Metric::LiveBenchScore)),
            languages: languages
                .iter()
                .map(|(name, rows)| task(suite, name, rows))
                .collect(),
            groups: types(rows, |id| id.split(':').next().unwrap_or(id)),
            types: types(rows, |id| id),
            answered_only: if answered.len() < rows.len() {
                tallies(answered, |row| row.task.clone())
                    .iter()
                    .map(|(name, rows)| task(suite, name, rows))
                    .collect()
            } else {
                Vec::new()
            },
            tasks,
            notes: benchmark.notes.clone(),
        }
    }
}

/// How many rows each rule that cannot be judged takes out.
fn unsupported(rows: &[Judged]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for ruling in rows.iter().flat_map(|row| &row.rulings) {
        if let Some(reason) = ruling.unsupported {
            *counts
                .entry(format!("{}: {reason}", ruling.id))
                .or_insert(0) += 1;
        }
    }
    counts
}

/// The tallies of each class of rows, classes in order of first appearance.
pub(crate) fn tallies<'a>(
    rows: impl IntoIterator<Item = &'a Judged>,
    class_of: impl Fn(&Judged) -> String,
) -> Vec<(String, Vec<Tally>)> {
    let mut classes: Vec<(String, Vec<Tally>)> = Vec::new();
    for row in rows {
        let class = class_of(row);
        let tally = row.tally();
        match classes.iter_mut().find(|(name, _)| *name == class) {
            Some((_, tallies)) => tallies.push(tally),
            None => classes.push((class, vec![tally])),
        }
    }
    classes
}

fn task(suite: Suite, name: &str, rows: &[Tally]) -> TaskReport {
    let all: Tally = rows.iter().copied().sum();
    let intervals = bootstrap::intervals(&[rows], suite.metrics());
    let numbers = suite.metrics().iter().zip(intervals);
    TaskReport {
        name: name.to_owned(),
        prompts: all.prompts,
        instructions: all.instructions,
        numbers: numbers
            .map(|(metric, interval)| Number {
                metric: metric.name(),
                label: metric.label(),
                value: metric.value(&all),
                stderr: metric.stderr(rows),
                interval,
            })
            .collect(),
    }
}

/// The unweighted mean of a metric over strata.
fn number(strata: &[&[Tally]], metric: Metric) -> Number {
    let sums: Vec<Tally> = strata
        .iter()
        .map(|rows| rows.iter().copied().sum())
        .collect();
    Number {
        metric: metric.name(),
        label: metric.label(),
        value: bootstrap::mean_over(&sums, metric),
        stderr: None,
        interval: bootstrap::intervals(strata, &[metric])[0],
    }
}

/// Shares by type; prompts without the type are not part of its resampling.
fn types(rows: &[&Judged], name_of: impl Fn(&str) -> &str) -> Vec<TypeReport> {
    let mut classes: BTreeMap<&str, Vec<Tally>> = BTreeMap::new();
    for row in rows {
        let mut verdicts: BTreeMap<&str, Vec<(bool, bool)>> = BTreeMap::new();
        for ruling in &row.rulings {
            let name = name_of(&ruling.id);
            verdicts
                .entry(name)
                .or_default()
                .push((ruling.strict, ruling.loose));
        }
        for (name, verdicts) in verdicts {
            let tally = Tally::of_prompt(verdicts);
            classes.entry(name).or_default().push(tally);
        }
    }
    let report = |(name, rows): (&str, Vec<Tally>)| {
        let all: Tally = rows.iter().copied().sum();
        let metrics = [Metric::InstStrict, Metric::InstLoose];
        let intervals = bootstrap::intervals(&[&rows], &metrics);
        TypeReport {
            name: name.to_owned(),
            instructions: all.instructions,
            strict: metrics[0].value(&all),
            strict_interval: intervals[0],
            loose: metrics[1].value(&all),
            loose_interval: intervals[1],
        }
    };
    classes.into_iter().map(report).collect()
}
