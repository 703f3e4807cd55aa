//! What sets one benchmark apart from another: names, lengths, headline numbers.

use crate::tally::Metric;

/// A benchmark that is judged by rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// IFEval: 541 prompts, 25 instruction types (Zhou et al. 2023; lm-eval task version 4.0).
    IfEval,
    /// LiveBench's instruction following: four tasks over IFEval's types, strict verdicts only.
    LiveBench,
    /// IFBench: 300 prompts, 58 further types (allenai, 2025).
    IfBench,
    /// Multi-IF: three turns, eight languages, instructions that add up (Meta, 2024).
    MultiIf,
}

impl Suite {
    /// Name on the command line and of the task in result files.
    pub fn name(self) -> &'static str {
        match self {
            Self::IfEval => "ifeval",
            Self::LiveBench => "livebench",
            Self::IfBench => "ifbench",
            Self::MultiIf => "multi_if",
        }
    }

    /// The rules that its instructions are judged by.
    pub(crate) fn rules(self) -> verify::Suite {
        match self {
            Self::IfEval => verify::Suite::IfEval,
            Self::LiveBench => verify::Suite::LiveBench,
            Self::IfBench => verify::Suite::IfBench,
            Self::MultiIf => verify::Suite::MultiIf,
        }
    }

    /// Tokens that the reference runs allow an answer.
    pub fn max_tokens(self) -> usize {
        match self {
            Self::IfEval => 1_280,
            Self::LiveBench | Self::IfBench => 4_096,
            Self::MultiIf => 1_024,
        }
    }

    /// Version written into result files: lm-eval's for its own task, else the release or
    /// commit of the reference that the rules were taken from.
    pub fn version(self) -> &'static str {
        match self {
            Self::IfEval => "4.0",
            Self::LiveBench => "b0fb577",
            Self::IfBench => "db69a6f",
            Self::MultiIf => "1cdb53e",
        }
    }

    /// The numbers reported for each task, the headline first.
    pub fn metrics(self) -> &'static [Metric] {
        match self {
            Self::IfEval => &[
                Metric::PromptStrict,
                Metric::InstStrict,
                Metric::PromptLoose,
                Metric::InstLoose,
            ],
            Self::IfBench => &[
                Metric::PromptLoose,
                Metric::InstLoose,
                Metric::PromptStrict,
                Metric::InstStrict,
            ],
            Self::LiveBench => &[
                Metric::LiveBenchScore,
                Metric::PromptStrict,
                Metric::InstStrict,
            ],
            Self::MultiIf => &[
                Metric::TurnMean,
                Metric::PromptStrict,
                Metric::InstStrict,
                Metric::PromptLoose,
                Metric::InstLoose,
            ],
        }
    }

    /// Is the unweighted mean of the tasks' scores a number of its own? (LiveBench's
    /// category score.)
    pub fn has_category_score(self) -> bool {
        self == Self::LiveBench
    }
}
