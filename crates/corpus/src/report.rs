//! Figures of the card: how often what is right, by set, split and kind.

use crate::CorpusError;
use crate::answered::Answered;
use crate::held_out::Set;
use crate::score::score;
use crate::split::Split;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Right ones out of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    /// Right ones.
    pub right: usize,
    /// All.
    pub all: usize,
}

impl Share {
    fn count(&mut self, right: bool) {
        self.right += usize::from(right);
        self.all += 1;
    }

    /// The share, 0 of none.
    pub fn value(self) -> f64 {
        self.right as f64 / self.all.max(1) as f64
    }
}

/// Verdicts of one kind, apart by the right verdict.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verdicts {
    /// Where YES is right.
    pub yes: Share,
    /// Where NO is right.
    pub no: Share,
}

impl Verdicts {
    /// Mean of the two shares; nothing where one of them is empty.
    pub fn balanced(self) -> Option<f64> {
        let both = self.yes.all > 0 && self.no.all > 0;
        both.then(|| f64::midpoint(self.yes.value(), self.no.value()))
    }
}

/// All figures.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// Samples that pass, by set and split.
    pub passed: BTreeMap<(Set, Split), Share>,
    /// Single checks, by set and name.
    pub checks: BTreeMap<(Set, String), Share>,
    /// Verdicts by evaluator and kind.
    pub verdicts: BTreeMap<(Set, String), Verdicts>,
}

impl Report {
    /// Scores every sample.
    ///
    /// # Errors
    /// As [`score`].
    pub fn of(answered: &[Answered]) -> Result<Self, CorpusError> {
        let mut report = Self::default();
        for Answered { item, answers } in answered {
            for answer in answers {
                let score = score(item, answer)?;
                let place = (item.set, item.split);
                report.passed.entry(place).or_default().count(score.passed);
                if matches!(item.set, Set::Judge | Set::Explain) {
                    let cell = report.verdicts.entry((item.set, item.kind.clone()));
                    let cell = cell.or_default();
                    match item.expected.as_deref() {
                        Some("YES") => cell.yes.count(score.passed),
                        _ => cell.no.count(score.passed),
                    }
                    continue;
                }
                for (name, right) in score.checks {
                    report
                        .checks
                        .entry((item.set, name))
                        .or_default()
                        .count(right);
                }
            }
        }
        Ok(report)
    }

    /// Markdown tables.
    #[must_use]
    pub fn tables(&self) -> String {
        let mut out = String::from("| set | split | right | samples |\n|---|---|---|---|\n");
        for ((set, split), share) in &self.passed {
            let (value, all) = (share.value(), share.all);
            let _ = writeln!(out, "| {set:?} | {split:?} | {value:.3} | {all} |");
        }
        if !self.checks.is_empty() {
            out += "\n| set | check | right | samples |\n|---|---|---|---|\n";
        }
        for ((set, name), share) in &self.checks {
            let (value, all) = (share.value(), share.all);
            let _ = writeln!(out, "| {set:?} | {name} | {value:.3} | {all} |");
        }
        if !self.verdicts.is_empty() {
            out += "\n| evaluator | kind | balanced | right of YES | right of NO |\n|---|---|---|---|---|\n";
        }
        for ((set, kind), found) in &self.verdicts {
            let balanced = found
                .balanced()
                .map_or("-".to_owned(), |value| format!("{value:.3}"));
            let side = |share: Share| format!("{:.3} of {}", share.value(), share.all);
            let (yes, no) = (side(found.yes), side(found.no));
            let _ = writeln!(out, "| {set:?} | {kind} | {balanced} | {yes} | {no} |");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answered::join;

    #[test]
    fn answers_are_joined_counted_and_shown() {
        let item = |key: &str, set: &str, expected: &str| {
            format!(
                r#"{{"key":"{key}","set":"{set}","split":"pair","kind":"detectable_format:title","messages":[],"prompt":"x","topics":[],"instruction_id_list":[],"kwargs":[],"soft":[],"expected":{expected}}}"#
            )
        };
        let items = [
            item("a", "judge", r#""YES""#),
            item("b", "judge", r#""NO""#),
            item("c", "explain", r#""NO""#),
            item("d", "copy", r#""x y""#),
        ]
        .join("\n");
        let answer = |id: &str, texts: &[(&str, &str)]| {
            let samples: Vec<String> = texts
                .iter()
                .map(|(text, reason)| {
                    let text = serde_json::to_string(text).unwrap();
                    format!(r#"{{"text":{text},"finish_reason":"{reason}"}}"#)
                })
                .collect();
            format!(r#"{{"id":"{id}","completions":[{}]}}"#, samples.join(","))
        };
        let written = r#"{"verdicts":[{"explanation":"It is not so.","verdict":"NO"}]}"#;
        let answers = [
            answer("a", &[("YES", "stop"), ("NO", "stop")]),
            answer("b", &[("NO", "stop")]),
            answer("c", &[(written, "stop"), (written, "length")]),
            answer("d", &[("x y", "stop")]),
        ]
        .join("\n");
        let report = Report::of(&join(&items, &answers).unwrap()).unwrap();
        let cell = |set| report.verdicts[&(set, "detectable_format:title".to_owned())];
        assert_eq!(cell(Set::Judge).balanced(), Some(0.75));
        // What was cut is wrong, and without a YES there is no mean.
        assert_eq!(cell(Set::Explain).no, Share { right: 1, all: 2 });
        assert_eq!(cell(Set::Explain).balanced(), None);
        assert_eq!(report.passed[&(Set::Copy, Split::Pair)].value(), 1.0);
        assert!(
            report
                .tables()
                .contains("| Judge | detectable_format:title | 0.750 |")
        );
        let stray = join(&items, &answer("z", &[("x", "stop")])).unwrap_err();
        assert!(stray.to_string().contains('z'), "{stray}");
    }
}
