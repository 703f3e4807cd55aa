//! What can be set about UltraIF, with the paper's values as defaults.

pub use crate::answers::Want;
pub use crate::judging::Evaluator;
use serde::{Deserialize, Serialize};

/// A stage of the recipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The seed's own constraints.
    Decompose,
    /// A question for each of them.
    Question,
    /// Training rows for an UltraComposer.
    Composer,
    /// More constraints, each with its question.
    Compose,
    /// Samples of the answer.
    Respond,
    /// Verdicts on them, and the pairs that follow.
    Evaluate,
}

impl Stage {
    /// All stages, in order.
    pub const ALL: [Self; 6] = [
        Self::Decompose,
        Self::Question,
        Self::Composer,
        Self::Compose,
        Self::Respond,
        Self::Evaluate,
    ];
}

/// Who composes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Composer {
    /// A model that was not trained for it, by a prompt.
    Prompted,
    /// A trained UltraComposer, spoken to as the published one.
    Trained,
}

/// Which responses become data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selection {
    /// The first that passes, and the first that fails.
    First,
    /// As the released code: the first that passes for SFT, or the last one if none does;
    /// the last that passes and the last that fails for DPO. Refusals and responses cut by the
    /// token limit are judged like any other, and counted; an empty one is no response.
    AsPublished,
}

/// What a composed instruction has to pass, and what a failed round means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rounds {
    /// It keeps what was demanded before; a round that fails twice ends the composing.
    Checked,
    /// As the released code: it is not what it was before, and has none of two phrases in it;
    /// a failed round is not tried again and leaves the instruction as it is.
    AsPublished,
}

/// Everything that can be set. Sampling parameters are in the prompts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// What is done; what is left out is left out of every row.
    pub stages: Vec<Stage>,
    /// Constraints added, one per round.
    pub rounds: usize,
    /// Rounds after which an instruction is answered and judged, ascending; several give
    /// preference pairs of rising complexity. Empty: after the last round only.
    pub levels: Vec<usize>,
    /// Samples of each response.
    pub samples: usize,
    /// Who composes.
    pub composer: Composer,
    /// Tokens that an answer of a trained composer may have.
    pub composer_tokens: usize,
    /// How responses are judged.
    pub evaluator: Evaluator,
    /// With `logits`: probability of YES, among YES and NO, from which on it is YES.
    pub threshold: f32,
    /// With `logits`: probability that YES and NO have to have together; with less there is
    /// no verdict.
    pub least_mass: f32,
    /// Whether the seed's own constraints are judged too.
    pub judge_own_constraints: bool,
    /// Whether constraints that a checker knows are judged by it instead of the model.
    pub rule_judge: bool,
    /// Whether the judge is shown the turns before the instruction.
    pub judge_sees_history: bool,
    /// What a composed instruction has to pass.
    pub compose_rounds: Rounds,
    /// Whether samples stop once they decide the row.
    pub early_stop: bool,
    /// Which responses become data.
    pub select: Selection,
    /// What is made of them.
    pub want: Want,
    /// Language of the seeds, such as `en`; others are rejected. Empty: any.
    pub language: String,
    /// Similarity from which on instructions are near-duplicates; 0 keeps all.
    pub near_duplicates: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            stages: Stage::ALL.to_vec(),
            rounds: 3,
            levels: Vec::new(),
            samples: 5,
            composer: Composer::Prompted,
            composer_tokens: 2048,
            evaluator: Evaluator::Explain,
            threshold: 0.5,
            least_mass: 0.5,
            judge_own_constraints: true,
            rule_judge: true,
            judge_sees_history: true,
            compose_rounds: Rounds::Checked,
            early_stop: true,
            select: Selection::First,
            want: Want::Both,
            language: String::new(),
            near_duplicates: 0.8,
        }
    }
}

/// A setting out of range.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("ultraif.{field} = {value}: {expected}")]
pub struct SettingsError {
    /// Which.
    pub field: &'static str,
    /// Its value.
    pub value: String,
    /// What is allowed.
    pub expected: &'static str,
}

impl Settings {
    /// What the released code does where it differs from the paper and from our defaults.
    ///
    /// Reproduced:
    /// - Every sample is drawn and judged; three rounds, five samples, temperatures and top-p
    ///   are those of the code in any preset.
    /// - A round that fails leaves the instruction without a new question and is not tried
    ///   again; it fails only if it cannot be read, repeats the instruction to the letter, or
    ///   has one of two phrases of the code's prompts in it. What it loses is not noticed, and
    ///   earlier questions are not asked anew.
    /// - Only composed questions are judged; a seed that cannot be taken apart is composed all
    ///   the same. The model judges all of them, in one call that does not show the
    ///   conversation.
    /// - Nothing is filtered: neither refusals, nor responses cut by the token limit, nor
    ///   near-duplicates, nor languages.
    /// - SFT takes the first response that passes, else the last; DPO takes the last that
    ///   passes and the last that fails, and skips responses without a readable verdict.
    ///
    /// Not reproduced, because it is a fault of the program and no choice, or cannot happen here:
    /// - *Verdicts that pass unread* (none at all, fewer than questions, "PARTIAL"): answers
    ///   are bound to a grammar with as many YES or NO as questions, and no verdict is never a
    ///   pass. Rows left without a question are rejected (`evaluate`/`no_questions`) instead of
    ///   passing by default.
    /// - *Escapes destroyed in composed instructions*, lists and fences misread, invalid
    ///   examples in the prompts: answers are read as JSON. A round with an empty question
    ///   fails.
    /// - *An empty last response* is no target to learn: the last that is not empty is kept,
    ///   and a row with none is rejected (`select`/`empty`).
    /// - *Rows skipped, shifted or paired wrongly* (the default split, odd histories, a failed
    ///   request, alignment by line): a seed is any conversation that ends with the user, each
    ///   row keeps its own calls, and one that cannot be answered has a named end.
    /// - *Prompts longer than the context* end by name; no second BOS is added, and the model's
    ///   own template is used.
    /// - Prompts are in our words and without the code's examples; answers may have 192 to 1280
    ///   tokens (2048 of a trained composer) instead of 4096 and 8192, which files in
    ///   `--prompts` can change.
    pub fn as_published() -> Self {
        Self {
            evaluator: Evaluator::Explain,
            judge_own_constraints: false,
            rule_judge: false,
            judge_sees_history: false,
            compose_rounds: Rounds::AsPublished,
            early_stop: false,
            select: Selection::AsPublished,
            language: String::new(),
            near_duplicates: 0.0,
            ..Self::default()
        }
    }

    /// Is the stage to be done?
    pub fn does(&self, stage: Stage) -> bool {
        self.stages.contains(&stage)
    }

    /// Whether anything is done with an instruction once it is taken apart.
    pub(crate) fn goes_on(&self) -> bool {
        self.does(Stage::Compose) || self.does(Stage::Respond)
    }

    /// Ids of the prompts that these settings use, in order.
    pub(crate) fn prompts(&self) -> Vec<&'static str> {
        let judges: &[_] = match self.evaluator {
            Evaluator::Explain => &["ultraif/judge_explain"],
            Evaluator::Logits => &["ultraif/judge_logits"],
            Evaluator::Both => &["ultraif/judge_explain", "ultraif/judge_logits"],
            Evaluator::Rules | Evaluator::Nobody => &[],
        };
        let composes: &[_] = match self.composer {
            Composer::Prompted => &["ultraif/compose"],
            Composer::Trained => &[],
        };
        let stages: [(Stage, &[&'static str]); 5] = [
            (Stage::Decompose, &["ultraif/decompose"]),
            (Stage::Question, &["ultraif/question"]),
            (Stage::Compose, composes),
            (Stage::Respond, &["ultraif/respond"]),
            (Stage::Evaluate, judges),
        ];
        let done = stages.iter().filter(|(stage, _)| self.does(*stage));
        done.flat_map(|(_, prompts)| prompts.iter().copied())
            .collect()
    }

    /// Rounds after which instructions are answered, ascending.
    pub fn answered_after(&self) -> Vec<usize> {
        match self.levels.as_slice() {
            [] => vec![self.rounds],
            levels => levels.to_vec(),
        }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first field out of range.
    pub fn validate(&self) -> Result<(), SettingsError> {
        self.validate_stages()?;
        let rounds = self.rounds.to_string();
        check((1..=10).contains(&self.rounds), "rounds", rounds, "1 to 10")?;
        let samples = self.samples.to_string();
        check(
            (1..=1000).contains(&self.samples),
            "samples",
            samples,
            "1 to 1000",
        )?;
        let tokens = self.composer_tokens.to_string();
        check(
            self.composer_tokens > 0,
            "composer_tokens",
            tokens,
            "at least 1",
        )?;
        let ascending = self.levels.windows(2).all(|pair| pair[0] < pair[1]);
        let within = self
            .levels
            .iter()
            .all(|level| (1..=self.rounds).contains(level));
        check(
            ascending && within,
            "levels",
            format!("{:?}", self.levels),
            "ascending numbers from 1 to `rounds`",
        )?;
        for (field, value) in [
            ("threshold", self.threshold),
            ("least_mass", self.least_mass),
        ] {
            let ok = (0.0..=1.0).contains(&value);
            check(ok, field, value.to_string(), "between 0 and 1")?;
        }
        let similarity = self.near_duplicates;
        let ok = (0.0..=1.0).contains(&similarity);
        check(
            ok,
            "near_duplicates",
            similarity.to_string(),
            "between 0 and 1",
        )
    }

    fn validate_stages(&self) -> Result<(), SettingsError> {
        let stages = format!("{:?}", self.stages);
        check(
            !self.stages.is_empty(),
            "stages",
            stages.clone(),
            "at least one stage",
        )?;
        let needs = |stage, before| !self.does(stage) || self.does(before);
        check(
            needs(Stage::Question, Stage::Decompose),
            "stages",
            stages.clone(),
            "`question` needs `decompose`",
        )?;
        check(
            needs(Stage::Composer, Stage::Question),
            "stages",
            stages.clone(),
            "`composer` needs `question`",
        )?;
        check(
            needs(Stage::Evaluate, Stage::Respond),
            "stages",
            stages,
            "`evaluate` needs `respond`",
        )
    }
}

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
        Settings::default().validate().unwrap();
        Settings::as_published().validate().unwrap();
        let check = |change: &dyn Fn(&mut Settings), named: &str| {
            let mut settings = Settings::default();
            change(&mut settings);
            let error = settings.validate().unwrap_err().to_string();
            assert!(error.starts_with(named), "{error}");
        };
        check(&|s| s.stages = vec![], "ultraif.stages");
        check(&|s| s.stages = vec![Stage::Evaluate], "ultraif.stages");
        check(&|s| s.stages = vec![Stage::Composer], "ultraif.stages");
        check(&|s| s.samples = 0, "ultraif.samples = 0");
        check(&|s| s.rounds = 0, "ultraif.rounds");
        check(&|s| s.composer_tokens = 0, "ultraif.composer_tokens");
        check(&|s| s.levels = vec![2, 1], "ultraif.levels");
        check(&|s| s.levels = vec![4], "ultraif.levels");
        check(&|s| s.threshold = f32::NAN, "ultraif.threshold");
        check(&|s| s.near_duplicates = 1.5, "ultraif.near_duplicates");
    }
}
