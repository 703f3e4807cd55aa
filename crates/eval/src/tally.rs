//! Counts of verdicts, and the numbers that benchmarks make of them.

use std::ops::{Add, AddAssign};

/// Verdicts of one row, or summed over rows.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Tally {
    /// Prompts.
    pub prompts: u32,
    /// Instructions of these prompts.
    pub instructions: u32,
    /// Prompts with every instruction followed, strictly.
    pub prompts_strict: u32,
    /// Instructions followed, strictly.
    pub instructions_strict: u32,
    /// Prompts with every instruction followed, loosely.
    pub prompts_loose: u32,
    /// Instructions followed, loosely.
    pub instructions_loose: u32,
    /// Sum over prompts of LiveBench's score, each 0 to 1: the mean of "all followed" and
    /// the share followed, strictly.
    pub livebench: f64,
}

impl Tally {
    /// One prompt with a verdict (strict, loose) per instruction.
    pub fn of_prompt(verdicts: impl IntoIterator<Item = (bool, bool)>) -> Self {
        let mut one = Self {
            prompts: 1,
            ..Self::default()
        };
        for (strict, loose) in verdicts {
            one.instructions += 1;
            one.instructions_strict += u32::from(strict);
            one.instructions_loose += u32::from(loose);
        }
        one.prompts_strict = u32::from(one.instructions_strict == one.instructions);
        one.prompts_loose = u32::from(one.instructions_loose == one.instructions);
        let share = ratio(one.instructions_strict, one.instructions);
        one.livebench = f64::midpoint(f64::from(one.prompts_strict), share);
        one
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.prompts += other.prompts;
        self.instructions += other.instructions;
        self.prompts_strict += other.prompts_strict;
        self.instructions_strict += other.instructions_strict;
        self.prompts_loose += other.prompts_loose;
        self.instructions_loose += other.instructions_loose;
        self.livebench += other.livebench;
    }
}

impl Add for Tally {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

impl std::iter::Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(rows: I) -> Self {
        rows.fold(Self::default(), Add::add)
    }
}

/// A number between 0 and 1 made of a [`Tally`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// Share of prompts with every instruction followed.
    PromptStrict,
    /// Share of instructions followed.
    InstStrict,
    /// The same, loosely.
    PromptLoose,
    /// The same, loosely.
    InstLoose,
    /// LiveBench's score of a task.
    LiveBenchScore,
    /// Multi-IF's score of a turn: mean of the four shares.
    TurnMean,
}

impl Metric {
    /// Name in result files (lm-eval's where it has one).
    pub fn name(self) -> &'static str {
        match self {
            Self::PromptStrict => "prompt_level_strict_acc",
            Self::InstStrict => "inst_level_strict_acc",
            Self::PromptLoose => "prompt_level_loose_acc",
            Self::InstLoose => "inst_level_loose_acc",
            Self::LiveBenchScore => "livebench_score",
            Self::TurnMean => "turn_score",
        }
    }

    /// Name for people.
    pub fn label(self) -> &'static str {
        match self {
            Self::PromptStrict => "prompt strict",
            Self::InstStrict => "instruction strict",
            Self::PromptLoose => "prompt loose",
            Self::InstLoose => "instruction loose",
            Self::LiveBenchScore => "score",
            Self::TurnMean => "turn score",
        }
    }

    /// The number; 0 of nothing.
    pub fn value(self, of: &Tally) -> f64 {
        match self {
            Self::PromptStrict => ratio(of.prompts_strict, of.prompts),
            Self::InstStrict => ratio(of.instructions_strict, of.instructions),
            Self::PromptLoose => ratio(of.prompts_loose, of.prompts),
            Self::InstLoose => ratio(of.instructions_loose, of.instructions),
            Self::LiveBenchScore if of.prompts == 0 => 0.0,
            Self::LiveBenchScore => of.livebench / f64::from(of.prompts),
            Self::TurnMean => {
                let parts = [
                    Self::PromptStrict,
                    Self::InstStrict,
                    Self::PromptLoose,
                    Self::InstLoose,
                ];
                parts.iter().map(|part| part.value(of)).sum::<f64>() / 4.0
            }
        }
    }

    /// Standard error of the mean over prompts with Bessel's correction, where lm-eval
    /// gives one: for means over prompts, not for shares of instructions.
    pub fn stderr(self, rows: &[Tally]) -> Option<f64> {
        let per_prompt = matches!(
            self,
            Self::PromptStrict | Self::PromptLoose | Self::LiveBenchScore
        );
        if !per_prompt || rows.len() < 2 {
            return None;
        }
        let count = rows.len() as f64;
        let values = rows.iter().map(|row| self.value(row));
        let mean = values.clone().sum::<f64>() / count;
        let squares = values.map(|value| (value - mean).powi(2)).sum::<f64>();
        Some((squares / (count - 1.0)).sqrt() / count.sqrt())
    }
}

fn ratio(part: u32, whole: u32) -> f64 {
    if whole == 0 {
        0.0
    } else {
        f64::from(part) / f64::from(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_by_hand() {
        let rows = [
            Tally::of_prompt([(true, true), (true, true)]),
            Tally::of_prompt([(true, true), (false, true), (false, false)]),
            Tally::of_prompt([(false, true)]),
        ];
        let all: Tally = rows.iter().copied().sum();
        for (metric, expected) in [
            (Metric::PromptStrict, 1.0 / 3.0),
            (Metric::InstStrict, 3.0 / 6.0),
            (Metric::PromptLoose, 2.0 / 3.0),
            (Metric::InstLoose, 5.0 / 6.0),
            (Metric::LiveBenchScore, (1.0 + 1.0 / 6.0 + 0.0) / 3.0),
            (
                Metric::TurnMean,
                (1.0 / 3.0 + 0.5 + 2.0 / 3.0 + 5.0 / 6.0) / 4.0,
            ),
        ] {
            assert!((metric.value(&all) - expected).abs() < 1e-12, "{metric:?}");
            assert_eq!(metric.value(&Tally::default()), 0.0, "{metric:?}");
        }
        // Two of three: sqrt(2/3 / 2) / sqrt(3).
        let stderr = Metric::PromptLoose.stderr(&rows).unwrap();
        assert!((stderr - 1.0 / 3.0).abs() < 1e-12, "{stderr}");
        assert_eq!(Metric::InstStrict.stderr(&rows), None);
        assert_eq!(Metric::PromptStrict.stderr(&rows[..1]), None);
    }
}
