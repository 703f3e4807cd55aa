//! How much of what: data, so that a training run can be tuned without a new build.

use crate::CorpusError;
use crate::ask::AskKind;
use crate::dice::Dice;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Roles of a document, in the order of [`Roles`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A request and its answer.
    Respond,
    /// A request and a harder one with its question.
    Compose,
    /// A request and its parts.
    Decompose,
    /// A constraint and its question.
    Question,
    /// An answer, a question, YES or NO.
    JudgeLogits,
    /// An answer, questions, reasons and verdicts.
    JudgeExplain,
    /// Repeating, counting, changing letters.
    Skill,
    /// An answer that breaks a constraint, and the same answer without the fault.
    Correct,
    /// A step of DecIF; the document's kind says which.
    Decif,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 9] = [
        Self::Respond,
        Self::Compose,
        Self::Decompose,
        Self::Question,
        Self::JudgeLogits,
        Self::JudgeExplain,
        Self::Skill,
        Self::Correct,
        Self::Decif,
    ];
}

/// Weights of the roles, by document.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the names are those of the roles")]
pub struct Roles {
    pub respond: f64,
    pub compose: f64,
    pub decompose: f64,
    pub question: f64,
    pub judge_logits: f64,
    pub judge_explain: f64,
    pub skill: f64,
    pub correct: f64,
    pub decif: f64,
}

impl Default for Roles {
    /// About 31 % of all bytes for answering, 25 % for judging, 13 % for composing and taking
    /// apart, 15 % for the steps of DecIF, 8 % for correcting, 8 % for skills.
    fn default() -> Self {
        Self {
            respond: 40.0,
            compose: 9.0,
            decompose: 3.0,
            question: 4.0,
            judge_logits: 24.0,
            judge_explain: 8.0,
            skill: 21.0,
            correct: 6.0,
            decif: 16.0,
        }
    }
}

/// Everything that can be set about a corpus. Weights count relative to their neighbours.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mix {
    /// Documents of each role.
    pub roles: Roles,
    /// Requests with 0, 1, 2 and 3 constraints.
    pub constraints: [f64; 4],
    /// Share of answers that break one constraint, of those with 1, 2 and 3.
    pub violations: [f64; 3],
    /// Share of requests to answer that have to copy a word into the answer.
    pub copying: f64,
    /// Share of skills that repeat a text.
    pub repetition: f64,
    /// Share of conversations with a turn before the last.
    pub history: f64,
    /// Share of corrections that are shown without the request.
    pub alone: f64,
    /// Share of answers to correct that break another constraint too, of those with several.
    pub also_broken: f64,
    /// Weight of each kind of constraint, by name; 1 where it is not named, 0 leaves it out.
    pub kinds: BTreeMap<String, f64>,
}

impl Default for Mix {
    fn default() -> Self {
        Self {
            roles: Roles::default(),
            constraints: [1.0, 4.0, 4.0, 2.0],
            violations: [0.30, 0.40, 0.45],
            copying: 0.3,
            repetition: 0.5,
            history: 0.06,
            alone: 0.2,
            also_broken: 0.2,
            kinds: BTreeMap::new(),
        }
    }
}

impl Mix {
    /// Reads a TOML document; what it leaves out is as by default.
    ///
    /// # Errors
    /// [`CorpusError::Mix`]: not TOML, a field or kind that does not exist, a number out of range.
    pub fn parse(text: &str) -> Result<Self, CorpusError> {
        let mix: Self = toml::from_str(text).map_err(|error| mix_error("mix", error.message()))?;
        mix.validate()?;
        Ok(mix)
    }

    /// Checks every number and name.
    ///
    /// # Errors
    /// [`CorpusError::Mix`] with the first field that is wrong.
    pub fn validate(&self) -> Result<(), CorpusError> {
        let weights = |field: &str, weights: &[f64]| {
            let fine = weights
                .iter()
                .all(|weight| weight.is_finite() && *weight >= 0.0);
            let some = weights.iter().any(|weight| *weight > 0.0);
            (fine && some).then_some(()).ok_or_else(|| {
                mix_error(
                    field,
                    format!("expected weights of at least 0, one above it; got {weights:?}"),
                )
            })
        };
        weights("roles", &self.role_weights())?;
        weights("constraints", &self.constraints)?;
        let shares = self
            .violations
            .iter()
            .chain([&self.copying, &self.repetition, &self.history])
            .chain([&self.alone, &self.also_broken]);
        for share in shares {
            if !(0.0..=1.0).contains(share) {
                return Err(mix_error(
                    "violations, copying, repetition, history, alone, also_broken",
                    format!("expected 0 to 1, got {share}"),
                ));
            }
        }
        let known = AskKind::all();
        if let Some(name) = self
            .kinds
            .keys()
            .find(|name| known.iter().all(|kind| kind.name() != **name))
        {
            return Err(mix_error("kinds", format!("there is no kind `{name}`")));
        }
        let all: Vec<f64> = known.iter().map(|kind| self.weight(*kind)).collect();
        weights("kinds", &all)?;
        // Three constraints of one request are of three kinds that go together.
        let offered = all.iter().filter(|weight| **weight > 0.0).count();
        if offered < 8 {
            return Err(mix_error(
                "kinds",
                format!("expected at least 8 kinds with a weight, got {offered}"),
            ));
        }
        Ok(())
    }

    fn role_weights(&self) -> [f64; 9] {
        let roles = &self.roles;
        [
            roles.respond,
            roles.compose,
            roles.decompose,
            roles.question,
            roles.judge_logits,
            roles.judge_explain,
            roles.skill,
            roles.correct,
            roles.decif,
        ]
    }

    /// Weight of a kind.
    pub fn weight(&self, kind: AskKind) -> f64 {
        self.kinds.get(kind.name()).copied().unwrap_or(1.0)
    }

    pub(crate) fn role(&self, dice: &mut Dice) -> Role {
        Role::ALL[dice.weighted(self.role_weights().into_iter())]
    }

    pub(crate) fn kind(&self, dice: &mut Dice) -> AskKind {
        let kinds = AskKind::all();
        kinds[dice.weighted(kinds.iter().map(|kind| self.weight(*kind)))]
    }

    /// How many constraints.
    pub(crate) fn count(&self, dice: &mut Dice) -> usize {
        dice.weighted(self.constraints.into_iter())
    }
}

fn mix_error(field: &str, reason: impl Into<String>) -> CorpusError {
    CorpusError::Mix {
        field: field.to_owned(),
        reason: reason.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_is_read_and_checked_by_name() {
        assert_eq!(Mix::parse("").unwrap(), Mix::default());
        let mix = Mix::parse(
            "copying = 0.5\n[roles]\nskill = 1.0\n[kinds]\n\"punctuation:no_comma\" = 0.0",
        )
        .unwrap();
        assert_eq!((mix.roles.skill, mix.copying), (1.0, 0.5));
        assert_eq!(
            mix.weight(AskKind::Rule(verify::compose::Kind::NoComma)),
            0.0
        );
        for (text, named) in [
            ("colour = 1", "colour"),
            ("copying = 2.0", "copying"),
            ("[kinds]\nrhyme = 1.0", "rhyme"),
            ("constraints = [0.0, 0.0, 0.0, 0.0]", "constraints"),
            ("[roles]\nskill = -1.0", "roles"),
        ] {
            let error = Mix::parse(text).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
