//! What a loop came to: one row for each model that was measured.

use super::stages::{Arm, Part, Work};
use super::state::{Done, Facts, RowFacts, State, TrainingFacts};
use eval::held_out::{Figures, Gain, Rate};
use serde_json::{Value, json};

/// One model: how it was made, and what it does.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    arm: Arm,
    stage: &'a str,
    rows: Option<&'a RowFacts>,
    training: Option<&'a TrainingFacts>,
    figures: &'a Figures,
    gain: Option<&'a Gain>,
    seconds: f64,
}

/// The models that are measured so far, in order.
pub(crate) fn rows<'a>(parts: &'a [Part], state: &'a State) -> Vec<Row<'a>> {
    let mut rows = Vec::new();
    let (mut made, mut trained, mut seconds) = (None, None, 0.0);
    for part in parts {
        let Some(Done {
            facts,
            seconds: took,
        }) = state.done(&part.key())
        else {
            continue;
        };
        seconds += took;
        match (facts, part.work) {
            (Facts::Rows(facts), Work::Synthesise) => made = Some(facts),
            (Facts::Training(facts), Work::Train(_)) => trained = Some(facts),
            (Facts::Evaluation { figures, gain }, _) => {
                rows.push(Row {
                    arm: part.arm,
                    stage: &part.stage,
                    rows: made.take(),
                    training: trained.take(),
                    figures,
                    gain: gain.as_ref(),
                    seconds,
                });
                seconds = 0.0;
            }
            _ => {}
        }
    }
    rows
}

const HEAD: [&str; 12] = [
    "arm",
    "stage",
    "tried",
    "kept",
    "rows",
    "steps",
    "T=1 % [95 %]",
    "gain [95 %]",
    "greedy %",
    "topic %",
    "perplexity",
    "min",
];

/// The table for people.
pub(crate) fn text(rows: &[Row<'_>]) -> Vec<Vec<String>> {
    let mut table = vec![HEAD.map(str::to_owned).to_vec()];
    for row in rows {
        let none = || "-".to_owned();
        let figures = row.figures;
        let method = row.training.map_or("", |facts| facts.method.as_str());
        let stage = match row.stage {
            stage if stage == method || method.is_empty() => stage.to_owned(),
            stage => format!("{stage} {method}"),
        };
        table.push(vec![
            row.arm.name().to_owned(),
            stage,
            row.rows.map_or_else(none, |facts| facts.tried.to_string()),
            row.rows.map_or_else(none, |facts| facts.rows.to_string()),
            row.training
                .map_or_else(none, |facts| facts.rows.to_string()),
            row.training
                .map_or_else(none, |facts| facts.steps.to_string()),
            share(&figures.sampled),
            row.gain.map_or_else(none, |gain| difference(&gain.sampled)),
            percent(figures.greedy.rate),
            figures.on_topic.map_or_else(none, percent),
            figures
                .perplexity
                .map_or_else(none, |value| format!("{value:.3}")),
            format!("{:.1}", row.seconds / 60.0),
        ]);
    }
    table
}

/// Shares by kind of rule, first of the samples: a line for each kind, a column for each model.
pub(crate) fn kinds(rows: &[Row<'_>]) -> Vec<Vec<String>> {
    let mut head = vec!["kind, % of samples".to_owned(), "prompts".to_owned()];
    head.extend(rows.iter().map(|row| match row.arm {
        Arm::Main => row.stage.to_owned(),
        arm => format!("{} {}", arm.name(), row.stage),
    }));
    let mut table = vec![head];
    let Some(first) = rows.first() else {
        return table;
    };
    for (kind, rates) in &first.figures.kinds {
        let mut line = vec![kind.clone(), rates.prompts.to_string()];
        line.extend(rows.iter().map(|row| {
            let rates = row.figures.kinds.get(kind);
            rates.map_or("-".to_owned(), |rates| percent(rates.sampled))
        }));
        table.push(line);
    }
    table
}

/// The table for programs.
pub(crate) fn as_json(rows: &[Row<'_>]) -> Value {
    let rows = rows.iter().map(|row| {
        json!({
            "arm": row.arm.name(), "stage": row.stage, "synthesis": row.rows,
            "training": row.training, "figures": row.figures, "gain": row.gain,
            "seconds": row.seconds,
        })
    });
    rows.collect()
}

fn percent(share: f64) -> String {
    format!("{:.1}", share * 100.0)
}

/// A share in percent with its interval.
fn share(rate: &Rate) -> String {
    let [value, low, high] = points(rate);
    format!("{value:.1} [{low:.1}, {high:.1}]")
}

/// A difference in points with its interval.
fn difference(rate: &Rate) -> String {
    let [value, low, high] = points(rate);
    format!("{value:+.1} [{low:+.1}, {high:+.1}]")
}

fn points(rate: &Rate) -> [f64; 3] {
    [rate.rate, rate.interval.0, rate.interval.1].map(|share| share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::super::settings::Settings;
    use super::super::stages::schedule;
    use super::*;
    use crate::commands::align::args::RecipeArg;
    use std::collections::BTreeMap;

    fn figures(rate: f64) -> Figures {
        let rate = Rate {
            rate,
            interval: (rate - 0.05, rate + 0.05),
        };
        Figures {
            prompts: 10,
            missing: 0,
            samples: 4,
            sampled: rate,
            greedy: rate,
            kinds: BTreeMap::new(),
            on_topic: None,
            tokens: 20.0,
            cut: 0.0,
            perplexity: Some(2.5),
        }
    }

    #[test]
    fn each_model_that_was_measured_has_a_row() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = State::open(folder.path(), BTreeMap::new()).unwrap();
        let (settings, composer) = (Settings::paper(), synth::ultraif::Composer::Prompted);
        let parts = schedule(&settings, RecipeArg::Ultraif, &[], composer);
        let evaluation = |rate, gain| Facts::Evaluation {
            figures: figures(rate),
            gain,
        };
        let gain = Gain {
            sampled: figures(0.1).sampled,
            greedy: figures(0.1).greedy,
        };
        let facts = [
            evaluation(0.3, None),
            Facts::Rows(RowFacts {
                tried: 800,
                accepted: 420,
                passing: 500,
                responses: 900,
                rows: 420,
                rejected: BTreeMap::new(),
            }),
            Facts::Training(TrainingFacts {
                method: "sft".into(),
                rows: 418,
                steps: 40,
                last: Value::Null,
            }),
            evaluation(0.4, Some(gain)),
        ];
        for (part, facts) in parts.iter().zip(facts) {
            let done = Done {
                facts,
                seconds: 30.0,
            };
            state.record(&part.key(), done).unwrap();
        }
        let rows = rows(&parts, &state);
        let table = text(&rows);
        assert_eq!(table.len(), 3);
        let expected = [
            "align",
            "sft",
            "800",
            "420",
            "418",
            "40",
            "40.0 [35.0, 45.0]",
            "+10.0 [+5.0, +15.0]",
            "40.0",
            "-",
            "2.500",
            "1.5",
        ];
        assert_eq!(table[2], expected);
        assert_eq!(table[1][2], "-");
        assert_eq!(as_json(&rows)[1]["training"]["steps"], 40);
    }
}
