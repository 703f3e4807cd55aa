//! What can be set about DecIF. The paper's numbers are those of its first release's code;
//! [`Settings::as_published`] keeps them all.

pub use crate::answers::Want;
pub use crate::judging::Evaluator;
use serde::{Deserialize, Serialize};
use verify::compose::Kind;

/// How constraints are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Combination {
    /// Rules that one answer can meet, at most one soft constraint of a kind.
    Compatible,
    /// As the released code: with replacement, repeated ones removed, nothing compared.
    AsPublished,
}

/// How contradictions are dealt with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Conflicts {
    /// By the table of rules and by the model; repaired, looked at again, rejected in the end.
    Rechecked,
    /// As the released code: the model is asked once, and its repair is taken as it is.
    AsPublished,
}

/// What answers are judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Criteria {
    /// The constraints that were drawn, and what else the model finds in the instruction.
    All,
    /// As the released code: what the model finds in the instruction, judged by the model.
    Decomposed,
}

/// Answers that rules may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answers {
    /// Of any length.
    Any,
    /// Of a few sentences: counts are small, one keyword is enough.
    Short,
}

/// Everything that can be set. Sampling parameters are in the prompts.
///
/// The numbers of the pools are those of one *epoch*. A run without a target has one epoch; a
/// run that is to accept a number of rows has as many as it takes, and each adds so many new
/// domains, requests and scenarios to the pools. So the pools depend on the seed and on these
/// settings alone, never on the target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// New domains of an epoch.
    pub domains: usize,
    /// Domains to begin with, beside those that the model names.
    pub seed_domains: Vec<String>,
    /// New requests of each domain of an epoch.
    pub requests_per_domain: usize,
    /// Scenarios of each request.
    pub scenarios_per_request: usize,
    /// Other people put into each scenario; 0 keeps the scenario's own person.
    pub personas_per_scenario: usize,
    /// Instructions of each person in each scenario, each with constraints of its own.
    pub instructions_per_scenario: usize,
    /// Kinds of constraints that only a reader can judge.
    pub kinds: Vec<String>,
    /// Constraints of each kind, of an epoch.
    pub constraints_per_kind: usize,
    /// New domains that one call is asked for.
    pub domains_per_call: usize,
    /// New entries of any other list that one call is asked for.
    pub per_call: usize,
    /// Existing entries that a call is told of, at most.
    pub shown: usize,
    /// Calls for one list beyond those it would take if every answer were new.
    pub more_calls: usize,
    /// Weights of 1, 2, … constraints.
    pub counts: Vec<f64>,
    /// Share of constraints that only a reader can judge.
    pub soft_share: f64,
    /// Ids of the rules to draw from; empty for all.
    pub rules: Vec<String>,
    /// Answers that rules may ask for.
    pub answers: Answers,
    /// How constraints are put together.
    pub combination: Combination,
    /// How contradictions are dealt with.
    pub conflicts: Conflicts,
    /// Repairs of one instruction, at most.
    pub repairs: usize,
    /// What answers are judged by.
    pub criteria: Criteria,
    /// Whether criteria that a checker knows are judged by it instead of the model.
    pub rule_judge: bool,
    /// Samples of each response.
    pub samples: usize,
    /// How responses are judged.
    pub evaluator: Evaluator,
    /// With `logits`: probability of YES, among YES and NO, from which on it is YES.
    pub threshold: f32,
    /// With `logits`: probability that YES and NO have to have together; with less there is
    /// no verdict.
    pub least_mass: f32,
    /// Whether samples stop once they decide the row.
    pub early_stop: bool,
    /// What is made of the responses.
    pub want: Want,
    /// Similarity from which on entries and instructions are near-duplicates; 0 keeps all but
    /// equal entries.
    pub near_duplicates: f64,
}

/// The released code's weights of 1 to 5 constraints.
const COUNTS: [f64; 5] = [0.2, 0.3, 0.3, 0.1, 0.1];

/// The ten domains that the released code begins with.
const PUBLISHED_DOMAINS: [&str; 10] = [
    "Education",
    "Healthcare",
    "Finance",
    "Technology",
    "Travel",
    "Computer Science",
    "Artificial Intelligence",
    "Data Science",
    "Cybersecurity",
    "Mathematics",
];

impl Default for Settings {
    fn default() -> Self {
        let kinds = [
            "tone",
            "audience",
            "role",
            "point of view",
            "tense",
            "politeness",
            "formality",
        ];
        Self {
            domains: 10,
            seed_domains: Vec::new(),
            requests_per_domain: 5,
            scenarios_per_request: 3,
            personas_per_scenario: 0,
            instructions_per_scenario: 1,
            kinds: kinds.map(str::to_owned).to_vec(),
            constraints_per_kind: 6,
            domains_per_call: 5,
            per_call: 5,
            shown: 40,
            more_calls: 2,
            counts: COUNTS.to_vec(),
            soft_share: 0.3,
            rules: Vec::new(),
            answers: Answers::Any,
            combination: Combination::Compatible,
            conflicts: Conflicts::Rechecked,
            repairs: 2,
            criteria: Criteria::All,
            rule_judge: true,
            samples: 8,
            evaluator: Evaluator::Explain,
            threshold: 0.5,
            least_mass: 0.5,
            early_stop: true,
            want: Want::Both,
            near_duplicates: 0.8,
        }
    }
}

/// A setting out of range.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("decif.{field} = {value}: {expected}")]
pub struct SettingsError {
    /// Which.
    pub field: &'static str,
    /// Its value.
    pub value: String,
    /// What is allowed.
    pub expected: &'static str,
}

impl Settings {
    /// The first release of the code, which is the method of the paper: 1,000 calls for 25
    /// domains each, 50 requests, 30 scenarios, constraints drawn with replacement from 26
    /// types with a rule and 4 without, one check for contradictions, one response, judged by
    /// what the model finds in the instruction. Set the pools smaller to see an end.
    ///
    /// Not reproduced, because it is a fault of the program and no choice:
    /// - *No training row at all* (stages read a key that the stage before does not write).
    /// - *Verdicts that pass unread*: none at all, or fewer than criteria. Here no verdict is
    ///   never a pass.
    /// - *Bulleted, numbered and introductory lines* taken for entries and criteria, repairs
    ///   lost to a missing hyphen: answers are read as JSON.
    /// - *The judge's temperature of 0.7*, which its own help text denies.
    /// - Prompts are in our words; rules get their parameters from the program, where the
    ///   released code lets the model invent them.
    pub fn as_published() -> Self {
        let kinds = ["role", "scenario", "style, tone or emotion", "audience"];
        Self {
            domains: 25_000,
            seed_domains: PUBLISHED_DOMAINS.map(str::to_owned).to_vec(),
            requests_per_domain: 50,
            scenarios_per_request: 30,
            kinds: kinds.map(str::to_owned).to_vec(),
            domains_per_call: 25,
            per_call: 50,
            shown: 0,
            more_calls: 0,
            soft_share: 4.0 / 30.0,
            combination: Combination::AsPublished,
            conflicts: Conflicts::AsPublished,
            criteria: Criteria::Decomposed,
            rule_judge: false,
            samples: 1,
            early_stop: false,
            want: Want::Sft,
            near_duplicates: 0.0,
            ..Self::default()
        }
    }

    /// For a model of a few million parameters with a short context: small lists, short
    /// answers.
    pub fn small() -> Self {
        Self {
            domains_per_call: 4,
            per_call: 3,
            shown: 5,
            more_calls: 4,
            constraints_per_kind: 4,
            answers: Answers::Short,
            counts: vec![0.4, 0.4, 0.2],
            rules: SMALL_RULES.map(|kind| kind.id().to_owned()).to_vec(),
            evaluator: Evaluator::Logits,
            ..Self::default()
        }
    }

    /// The rules to draw from.
    pub(crate) fn kinds_of_rules(&self) -> Vec<Kind> {
        let named = |kind: &Kind| self.rules.iter().any(|id| id == kind.id());
        let all = Kind::ALL.into_iter();
        all.filter(|kind| self.rules.is_empty() || named(kind))
            .collect()
    }

    /// Files that a run with these settings writes.
    pub fn files(&self) -> Vec<String> {
        let mut files = Vec::new();
        if self.want != Want::Dpo {
            files.push("sft.jsonl".to_owned());
        }
        if self.want != Want::Sft {
            files.push("dpo.jsonl".to_owned());
        }
        if self.evaluator == Evaluator::Both {
            files.push(super::AGREEMENT_FILE.to_owned());
        }
        files
    }

    /// Names of the prompts that these settings use, in order.
    pub(crate) fn prompts(&self) -> Vec<&'static str> {
        let mut names = vec!["decif/domains", "decif/requests", "decif/scenarios"];
        if self.personas_per_scenario > 0 {
            names.push("decif/personas");
        }
        if self.soft_share > 0.0 {
            names.push("decif/constraints");
        }
        names.extend([
            "decif/instruction",
            "decif/conflict",
            "decif/resolve",
            "decif/criteria",
            "decif/respond",
        ]);
        names.extend(match self.evaluator {
            Evaluator::Explain => &["decif/judge_explain"][..],
            Evaluator::Logits => &["decif/judge_logits"],
            Evaluator::Both => &["decif/judge_explain", "decif/judge_logits"],
            Evaluator::Rules | Evaluator::Nobody => &[],
        });
        names
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first field out of range.
    pub fn validate(&self) -> Result<(), SettingsError> {
        let least_one = [
            ("domains", self.domains),
            ("requests_per_domain", self.requests_per_domain),
            ("scenarios_per_request", self.scenarios_per_request),
            ("instructions_per_scenario", self.instructions_per_scenario),
            ("domains_per_call", self.domains_per_call),
            ("per_call", self.per_call),
            ("samples", self.samples),
        ];
        for (field, value) in least_one {
            let ok = (1..=1_000_000).contains(&value);
            check(ok, field, value.to_string(), "1 to 1000000")?;
        }
        let at_most = [
            ("personas_per_scenario", self.personas_per_scenario),
            ("constraints_per_kind", self.constraints_per_kind),
            ("shown", self.shown),
            ("more_calls", self.more_calls),
            ("repairs", self.repairs),
        ];
        for (field, value) in at_most {
            check(value <= 10_000, field, value.to_string(), "0 to 10000")?;
        }
        self.validate_draws()?;
        let similarity = self.near_duplicates;
        let shares = [
            ("soft_share", self.soft_share),
            ("near_duplicates", similarity),
            ("threshold", f64::from(self.threshold)),
            ("least_mass", f64::from(self.least_mass)),
        ];
        for (field, value) in shares {
            let ok = (0.0..=1.0).contains(&value);
            check(ok, field, value.to_string(), "between 0 and 1")?;
        }
        Ok(())
    }

    fn validate_draws(&self) -> Result<(), SettingsError> {
        let weights = || self.counts.iter();
        let fine = weights().all(|weight| weight.is_finite() && *weight >= 0.0)
            && weights().any(|weight| *weight > 0.0)
            && self.counts.len() <= 8;
        check(
            fine,
            "counts",
            format!("{:?}", self.counts),
            "1 to 8 weights of at least 0, one above it",
        )?;
        let known = |id: &&String| Kind::ALL.iter().all(|kind| kind.id() != **id);
        let unknown = self.rules.iter().find(known);
        check(
            unknown.is_none(),
            "rules",
            unknown.cloned().unwrap_or_default(),
            "ids of rules, such as punctuation:no_comma",
        )?;
        let judges = !matches!(self.evaluator, Evaluator::Rules | Evaluator::Nobody);
        check(
            judges,
            "evaluator",
            format!("{:?}", self.evaluator).to_lowercase(),
            "explain, logits or both: soft criteria need a judge",
        )?;
        let soft = self.soft_share == 0.0 || !self.kinds.is_empty();
        check(
            soft,
            "kinds",
            "[]".into(),
            "at least one kind, or a soft_share of 0",
        )
    }
}

/// Rules that an answer of a few sentences can show: no other languages, none of the three
/// fixed answers, no repeating of the request.
const SMALL_RULES: [Kind; 17] = [
    Kind::Existence,
    Kind::Frequency,
    Kind::ForbiddenWords,
    Kind::LetterFrequency,
    Kind::NumberSentences,
    Kind::NumberWords,
    Kind::NumberPlaceholders,
    Kind::Postscript,
    Kind::NumberBulletLists,
    Kind::NumberHighlightedSections,
    Kind::Title,
    Kind::EndChecker,
    Kind::CapitalWordFrequency,
    Kind::EnglishCapital,
    Kind::EnglishLowercase,
    Kind::NoComma,
    Kind::Quotation,
];

fn check(
    ok: bool,
    field: &'static str,
    value: String,
    expected: &'static str,
) -> Result<(), SettingsError> {
    if ok {
        return Ok(());
    }
    Err(SettingsError {
        field,
        value,
        expected,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_checked_by_name() {
        for preset in [
            Settings::default(),
            Settings::as_published(),
            Settings::small(),
        ] {
            preset.validate().unwrap();
        }
        let check = |change: &dyn Fn(&mut Settings), named: &str| {
            let mut settings = Settings::default();
            change(&mut settings);
            let error = settings.validate().unwrap_err().to_string();
            assert!(error.starts_with(named), "{error}");
        };
        check(&|s| s.domains = 0, "decif.domains = 0");
        check(&|s| s.samples = 0, "decif.samples = 0");
        check(&|s| s.counts = vec![], "decif.counts = []");
        check(&|s| s.counts = vec![0.0], "decif.counts");
        check(&|s| s.counts = vec![f64::NAN], "decif.counts");
        check(&|s| s.rules = vec!["no".into()], "decif.rules = no");
        check(&|s| s.kinds = vec![], "decif.kinds");
        check(&|s| s.soft_share = 1.5, "decif.soft_share");
        check(&|s| s.threshold = f32::NAN, "decif.threshold");
        check(&|s| s.repairs = 20_000, "decif.repairs");
    }

    #[test]
    fn the_published_numbers_are_kept() {
        let published = Settings::as_published();
        assert_eq!(published.counts, [0.2, 0.3, 0.3, 0.1, 0.1]);
        let pools = (
            published.domains,
            published.requests_per_domain,
            published.scenarios_per_request,
        );
        assert_eq!(pools, (25_000, 50, 30));
        assert_eq!((published.samples, published.seed_domains.len()), (1, 10));
    }
}
