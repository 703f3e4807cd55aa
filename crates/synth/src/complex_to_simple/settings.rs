//! What can be set about Complex-to-Simple, with the paper's values as defaults.

use serde::{Deserialize, Serialize};
use verify::compose::Kind;

/// What is made of the instructions: the three data sets that the paper compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Variant {
    /// The student's answer, corrected, as a response to learn from, and pairs along the way
    /// to it.
    Contrastive,
    /// The corrected answer alone.
    Discrimination,
    /// The teacher's own answer.
    Generation,
}

/// How constraints are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Drawing {
    /// Types that go together, with parameters that go together, and with what the seed itself
    /// demands as far as a rule recognises it.
    Compatible,
    /// As the released code: types that go together; parameters that may contradict each other.
    AsPublished,
}

/// How wide parameters range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Parameters {
    /// The released code's: small counts, one keyword.
    Published,
    /// IFEval's width: up to 400 words, up to three keywords.
    Wide,
}

/// Where words for the types with keywords come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keywords {
    /// The seed's own words.
    Seed,
    /// A model names words likely in the answer.
    Model,
    /// A list of general words.
    General,
}

/// Who puts the constraints into words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rewrite {
    /// Wordings from a list, drawn for each constraint, and the layout from another.
    Template,
    /// A model writes the instruction anew; the wordings from the list where it loses something.
    Model,
}

/// How answers are corrected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Correction {
    /// Every step is checked; what breaks a constraint that held is undone and tried again; the
    /// teacher sees the instruction and all constraints; an answer is chosen only if it
    /// satisfies all of them.
    Checked,
    /// As the released code: once for each failed constraint, in the order of the instruction;
    /// the teacher sees the answer and that constraint; nothing is checked again, and the last
    /// answer is chosen as it is.
    AsPublished,
}

/// Everything that can be set. Sampling parameters are in the prompts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Constraints of an instruction, at least.
    pub fewest: usize,
    /// Constraints of an instruction, at most; each number in between is as likely.
    pub most: usize,
    /// Ids of the types to draw from; empty: all 25.
    pub kinds: Vec<String>,
    /// How constraints are put together.
    pub drawing: Drawing,
    /// How wide parameters range.
    pub parameters: Parameters,
    /// Where keywords come from.
    pub keywords: Keywords,
    /// Who puts the constraints into words.
    pub rewrite: Rewrite,
    /// What is made of the instructions.
    pub variant: Variant,
    /// Answers of the student, at most; no more are drawn once they decide the row. The one
    /// with the fewest faults is corrected.
    pub samples: usize,
    /// How answers are corrected.
    pub correction: Correction,
    /// Attempts at one thing: a correction, a rewriting, a teacher's answer.
    pub tries: usize,
    /// Instructions made of each seed, with constraints of their own.
    pub per_seed: usize,
    /// Language of the seeds, such as `en`; others are rejected. Empty: any.
    pub language: String,
    /// Similarity from which on instructions are near-duplicates; 0 keeps all.
    pub near_duplicates: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            fewest: 3,
            most: 5,
            kinds: Vec::new(),
            drawing: Drawing::Compatible,
            parameters: Parameters::Published,
            keywords: Keywords::Seed,
            rewrite: Rewrite::Template,
            variant: Variant::Contrastive,
            samples: 1,
            correction: Correction::Checked,
            tries: 3,
            per_seed: 1,
            language: String::new(),
            near_duplicates: 0.8,
        }
    }
}

/// A setting out of range.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("complex-to-simple.{field} = {value}: {expected}")]
pub struct SettingsError {
    /// Which.
    pub field: &'static str,
    /// Its value.
    pub value: String,
    /// What is allowed.
    pub expected: &'static str,
}

impl Settings {
    /// What the released code does, for comparison.
    ///
    /// Reproduced: 3 to 5 constraints, types drawn uniformly, a first draw of
    /// `constrained_response` that stays alone and of `json_format` that gets one partner, no
    /// check of parameters against each other; keywords named by a model; one answer of the
    /// student at temperature 0.7; one correction of each constraint that failed at first, in
    /// the order of the instruction, of the answer and that constraint alone, with an analysis
    /// before it; no check afterwards; the last answer chosen over every one before it; no
    /// filter.
    ///
    /// Not reproduced, because it is a fault of the program and no choice: wordings that say
    /// the opposite of what is checked, or a language's code; the same keyword call made again
    /// for each constraint; `eval` of a model's answer; random words where a call fails (here:
    /// the seed's own); retries that end in the text `error`; rows doubled by another run, and
    /// corrections skipped without a word (here: counted).
    pub fn as_published() -> Self {
        Self {
            drawing: Drawing::AsPublished,
            keywords: Keywords::Model,
            correction: Correction::AsPublished,
            tries: 1,
            near_duplicates: 0.0,
            ..Self::default()
        }
    }

    /// Files that a run with these settings writes.
    pub fn files(&self) -> Vec<String> {
        let mut files = vec!["sft.jsonl".to_owned()];
        if self.variant == Variant::Contrastive {
            files.push("dpo.jsonl".to_owned());
        }
        files
    }

    /// Types to draw from.
    pub(crate) fn kinds(&self) -> Vec<Kind> {
        let wanted =
            |kind: &Kind| self.kinds.is_empty() || self.kinds.iter().any(|id| id == kind.id());
        Kind::ALL.into_iter().filter(wanted).collect()
    }

    /// Ids of the prompts that these settings use, in order.
    pub(crate) fn prompts(&self) -> Vec<&'static str> {
        let mut prompts = Vec::new();
        if self.keywords == Keywords::Model {
            prompts.push("complex-to-simple/keywords");
        }
        prompts.extend([
            "complex-to-simple/constraint",
            "complex-to-simple/instruction",
        ]);
        if self.rewrite == Rewrite::Model {
            prompts.push("complex-to-simple/rewrite");
        }
        prompts.push("complex-to-simple/respond");
        if self.variant != Variant::Generation {
            prompts.push(self.correction.prompt());
        }
        prompts
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first field out of range.
    pub fn validate(&self) -> Result<(), SettingsError> {
        let wrong = |field, value: String, expected| {
            Err(SettingsError {
                field,
                value,
                expected,
            })
        };
        for (field, value, most) in [
            ("fewest", self.fewest, 8),
            ("most", self.most, 8),
            ("samples", self.samples, 1000),
            ("tries", self.tries, 100),
            ("per_seed", self.per_seed, 1000),
        ] {
            if !(1..=most).contains(&value) {
                let expected = match most {
                    8 => "1 to 8",
                    100 => "1 to 100",
                    _ => "1 to 1000",
                };
                return wrong(field, value.to_string(), expected);
            }
        }
        if self.fewest > self.most {
            return wrong("fewest", self.fewest.to_string(), "at most `most`");
        }
        let unknown = |id: &&String| Kind::ALL.iter().all(|kind| kind.id() != **id);
        if let Some(id) = self.kinds.iter().find(unknown) {
            let expected = "ids of IFEval, such as `punctuation:no_comma`";
            return wrong("kinds", id.clone(), expected);
        }
        if !(0.0..=1.0).contains(&self.near_duplicates) {
            let value = self.near_duplicates.to_string();
            return wrong("near_duplicates", value, "between 0 and 1");
        }
        Ok(())
    }
}

impl Correction {
    /// What the teacher is told.
    pub(crate) fn prompt(self) -> &'static str {
        match self {
            Self::Checked => "complex-to-simple/correct",
            Self::AsPublished => "complex-to-simple/correct_alone",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_checked_by_name() {
        Settings::default().validate().unwrap();
        Settings::as_published().validate().unwrap();
        let check = |change: &dyn Fn(&mut Settings), named: &str| {
            let mut settings = Settings::default();
            change(&mut settings);
            let error = settings.validate().unwrap_err().to_string();
            assert!(error.starts_with(named), "{error}");
        };
        check(&|s| s.fewest = 0, "complex-to-simple.fewest = 0");
        check(&|s| s.fewest = 6, "complex-to-simple.fewest = 6: at most");
        check(&|s| s.most = 9, "complex-to-simple.most");
        check(&|s| s.samples = 0, "complex-to-simple.samples");
        check(&|s| s.tries = 0, "complex-to-simple.tries");
        check(&|s| s.per_seed = 0, "complex-to-simple.per_seed");
        check(
            &|s| s.kinds = vec!["x".into()],
            "complex-to-simple.kinds = x",
        );
        check(
            &|s| s.near_duplicates = f64::NAN,
            "complex-to-simple.near_duplicates",
        );
    }

    #[test]
    fn types_are_chosen_by_id() {
        assert_eq!(Settings::default().kinds().len(), 25);
        let kinds = vec!["punctuation:no_comma".to_owned()];
        let settings = Settings {
            kinds,
            ..Settings::default()
        };
        assert_eq!(settings.kinds(), [Kind::NoComma]);
    }
}
