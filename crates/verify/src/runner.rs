//! Strict and loose verdicts over any kind of constraint, and the accuracies over many rows.

use crate::python;
use std::borrow::Cow;

/// What a checker says about one text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the text follows the constraint.
    pub followed: bool,
    /// Why not; none where it is followed.
    pub reason: Option<String>,
}

impl Verdict {
    /// The constraint is followed.
    #[must_use]
    pub fn followed() -> Self {
        Self {
            followed: true,
            reason: None,
        }
    }

    /// The constraint is not followed, for this reason.
    #[must_use]
    pub fn failed(reason: impl Into<String>) -> Self {
        Self {
            followed: false,
            reason: Some(reason.into()),
        }
    }

    /// Followed if `followed`, else failed for the reason that `reason` gives.
    #[must_use]
    pub fn when(followed: bool, reason: impl FnOnce() -> String) -> Self {
        if followed {
            Self::followed()
        } else {
            Self::failed(reason())
        }
    }
}

/// A constraint that can be checked against a text.
pub trait Check {
    /// The id under which reports count this constraint, e.g. `keywords:existence`.
    fn id(&self) -> &str;

    /// Whether `text`, as it is, follows the constraint.
    fn check(&self, text: &str) -> Verdict;
}

/// Both verdicts of one response, in the order of its constraints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// On the response as it is.
    pub strict: Vec<Verdict>,
    /// On the most favourable of eight variants.
    pub loose: Vec<Verdict>,
}

/// Strict verdicts: a blank response follows nothing, any other is checked as it is.
///
/// Source: lm-evaluation-harness, `test_instruction_following_strict`.
#[must_use]
pub fn strict<C: Check>(constraints: &[C], response: &str) -> Vec<Verdict> {
    let blank = python::is_blank(response);
    let check = |constraint: &C| match blank {
        true => Verdict::failed("the response is blank"),
        false => constraint.check(response),
    };
    constraints.iter().map(check).collect()
}

/// Loose verdicts: followed if any non-blank variant of the response follows.
///
/// Source: lm-evaluation-harness, `test_instruction_following_loose`.
#[must_use]
pub fn loose<C: Check>(constraints: &[C], response: &str) -> Vec<Verdict> {
    judge(constraints, response).loose
}

/// Strict and loose verdicts together; cheaper than asking for both apart.
///
/// The reason of a loose failure is the reason on the response as it is.
#[must_use]
pub fn judge<C: Check>(constraints: &[C], response: &str) -> Judgement {
    let strict = strict(constraints, response);
    if strict.iter().all(|verdict| verdict.followed) {
        let loose = strict.clone();
        return Judgement { strict, loose };
    }
    let variants = loose_variants(response);
    let rescued = |constraint: &C| {
        let others = variants.iter().skip(1);
        let mut candidates = others.filter(|text| !python::is_blank(text));
        candidates.any(|text| constraint.check(text).followed)
    };
    let pairs = constraints.iter().zip(&strict);
    let loose = pairs
        .map(
            |(constraint, verdict)| match verdict.followed || !rescued(constraint) {
                true => verdict.clone(),
                false => Verdict::followed(),
            },
        )
        .collect();
    Judgement { strict, loose }
}

/// The distinct texts among the eight that a loose verdict tries, the response itself first:
/// with and without asterisks; whole, without its first line, its last line, or both, those
/// three stripped of outer white space.
#[must_use]
pub fn loose_variants(response: &str) -> Vec<Cow<'_, str>> {
    let after_first = response.split_once('\n').map_or("", |(_, rest)| rest);
    let before_last = response.rsplit_once('\n').map_or("", |(rest, _)| rest);
    let inner = after_first.rsplit_once('\n').map_or("", |(rest, _)| rest);
    let mut variants: Vec<Cow<'_, str>> = vec![Cow::Borrowed(response)];
    let cut = [after_first, before_last, inner].map(python::strip);
    variants.extend(cut.map(Cow::Borrowed));
    if response.contains('*') {
        for index in 0..4 {
            let without = variants[index].replace('*', "");
            variants.push(Cow::Owned(without));
        }
    }
    let mut distinct: Vec<Cow<'_, str>> = Vec::with_capacity(variants.len());
    for variant in variants {
        if !distinct.contains(&variant) {
            distinct.push(variant);
        }
    }
    distinct
}

/// How many prompts and instructions were followed, of how many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Accuracy {
    /// Prompts all of whose instructions were followed.
    pub prompts_followed: u64,
    /// All prompts.
    pub prompts: u64,
    /// Instructions followed.
    pub instructions_followed: u64,
    /// All instructions.
    pub instructions: u64,
}

impl Accuracy {
    /// Adds one prompt's verdicts.
    pub fn add(&mut self, verdicts: &[Verdict]) {
        let followed = verdicts.iter().filter(|verdict| verdict.followed).count();
        self.prompts += 1;
        self.prompts_followed += u64::from(followed == verdicts.len());
        self.instructions += verdicts.len() as u64;
        self.instructions_followed += followed as u64;
    }

    /// Share of prompts followed, in percent; none without prompts.
    #[must_use]
    pub fn prompt_percent(&self) -> Option<f64> {
        percent(self.prompts_followed, self.prompts)
    }

    /// Share of instructions followed, in percent; none without instructions.
    #[must_use]
    pub fn instruction_percent(&self) -> Option<f64> {
        percent(self.instructions_followed, self.instructions)
    }
}

fn percent(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| 100.0 * part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_are_those_of_the_reference() {
        for (response, expected) in [
            ("", &[""][..]),
            ("one", &["one", ""]),
            ("*one*", &["*one*", "", "one"]),
            ("a\nb", &["a\nb", "b", "a", ""]),
            (
                " a \n b \n*c* ",
                &[
                    " a \n b \n*c* ",
                    "b \n*c*",
                    "a \n b",
                    "b",
                    " a \n b \nc ",
                    "b \nc",
                ],
            ),
            (
                "a\n* b *\nc",
                &[
                    "a\n* b *\nc",
                    "* b *\nc",
                    "a\n* b *",
                    "* b *",
                    "a\n b \nc",
                    " b \nc",
                    "a\n b ",
                    " b ",
                ],
            ),
        ] {
            assert_eq!(loose_variants(response), expected, "{response:?}");
        }
    }

    #[test]
    fn accuracy_counts_prompts_and_instructions() {
        let mut accuracy = Accuracy::default();
        assert_eq!(accuracy.prompt_percent(), None);
        accuracy.add(&[Verdict::followed(), Verdict::failed("x")]);
        accuracy.add(&[Verdict::followed()]);
        assert_eq!(accuracy.prompt_percent(), Some(50.0));
        assert_eq!(accuracy.instruction_percent(), Some(100.0 * 2.0 / 3.0));
    }
}
