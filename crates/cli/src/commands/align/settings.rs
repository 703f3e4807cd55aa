//! What can be set about the loop, as `align.…`; what is set as `ultraif.…` holds in it too.

use super::args::{PresetArg, RecipeArg};
use crate::config::{Config, unknown};
use crate::error::Failure;
use anyhow::Result;
use data::Sampling;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Name of the table in a configuration.
pub(crate) const TABLE: &str = "align";
/// Parameters below which a model is small.
const SMALL: usize = 100_000_000;

/// What course a model can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// A few million parameters.
    Small,
    /// As papers have them.
    Usual,
}

impl Size {
    /// Of a model with so many parameters.
    pub(crate) fn of(parameters: usize) -> Self {
        match parameters < SMALL {
            true => Self::Small,
            false => Self::Usual,
        }
    }
}

/// Who judges responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Judge {
    /// The model as it came.
    Base,
    /// The model as it is trained so far.
    Policy,
}

/// Everything that can be set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// Rounds of preference pairs after SFT; the last is NCA, those before it DPO.
    pub(crate) rounds: usize,
    /// Constraints added to an instruction: for SFT, for the first round, and so on; the last
    /// number holds for all that follow. 0 answers the seeds as they are.
    pub(crate) compose_rounds: Vec<usize>,
    /// Instructions tried for each training; seeds are used again where there are fewer. 0: each
    /// seed once.
    pub(crate) rows: usize,
    /// Who judges in the rounds; before SFT there is the base only.
    pub(crate) judge: Judge,
    /// How a model is measured.
    pub(crate) held_out: HeldOut,
    /// Training of the UltraComposer.
    pub(crate) composer: Course,
    /// Supervised training on verified responses.
    pub(crate) sft: Course,
    /// Rounds of preference pairs before the last.
    pub(crate) dpo: Pairs,
    /// The last round.
    pub(crate) nca: Pairs,
}

/// How a model is measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HeldOut {
    /// Instructions used at most; 0: all of a file, 100 of the seeds.
    pub(crate) prompts: usize,
    /// Samples of each, beside a greedy answer.
    pub(crate) samples: usize,
    /// Of the samples.
    pub(crate) temperature: f64,
    /// Of the samples.
    pub(crate) top_p: f64,
    /// Tokens of an answer; 0: as many as the prompt `ultraif/respond` gives.
    pub(crate) max_tokens: usize,
}

/// Training of an adapter on conversations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Course {
    /// Highest learning rate.
    pub(crate) lr: f64,
    /// Times every row is seen.
    pub(crate) epochs: u32,
    /// Tokens of an optimiser step.
    pub(crate) batch_tokens: usize,
    /// Rank of the adapter; it is kept in the rounds that follow.
    pub(crate) rank: usize,
    /// Its alpha.
    pub(crate) alpha: f64,
}

/// Training on pairs, from the adapter before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pairs {
    /// Highest learning rate.
    pub(crate) lr: f64,
    /// Times every pair is seen.
    pub(crate) epochs: u32,
    /// Tokens of an optimiser step.
    pub(crate) batch_tokens: usize,
    /// Scale of the implicit reward.
    pub(crate) beta: f64,
    /// Weight of the chosen answers' cross-entropy beside the loss.
    pub(crate) sft_weight: f64,
}

impl HeldOut {
    /// How samples are drawn.
    pub(crate) fn sampling(&self) -> Sampling {
        // Narrowing is meant: the engine samples in f32.
        Sampling {
            temperature: self.temperature as f32,
            top_p: self.top_p as f32,
            ..Sampling::default()
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self::paper()
    }
}

impl Settings {
    /// UltraIF's course: three epochs of 8,192 tokens a step, ten times its learning rates,
    /// which were for all weights.
    pub(crate) fn paper() -> Self {
        let course = Course {
            lr: 1e-4,
            epochs: 3,
            batch_tokens: 8192,
            rank: 16,
            alpha: 32.0,
        };
        let pairs = Pairs {
            lr: 5e-6,
            epochs: 3,
            batch_tokens: 8192,
            beta: 0.1,
            sft_weight: 0.0,
        };
        Self {
            rounds: 2,
            compose_rounds: vec![1, 2, 3],
            rows: 0,
            judge: Judge::Base,
            held_out: HeldOut {
                prompts: 0,
                samples: 4,
                temperature: 1.0,
                top_p: 0.95,
                max_tokens: 0,
            },
            composer: course.clone(),
            sft: course,
            dpo: pairs.clone(),
            nca: pairs,
        }
    }

    /// For models of a few million parameters, which have no room to be careful: higher rates,
    /// smaller steps, seeds used again and again. Beside pairs they learn the chosen answers:
    /// by pairs alone they gain as much and write worse (perplexity 13 % above the base's
    /// instead of 6 %).
    pub(crate) fn small() -> Self {
        let course = Course {
            lr: 3e-3,
            epochs: 3,
            batch_tokens: 2048,
            rank: 16,
            alpha: 32.0,
        };
        let pairs = Pairs {
            lr: 5e-4,
            epochs: 2,
            batch_tokens: 2048,
            beta: 0.1,
            sft_weight: 0.5,
        };
        Self {
            rows: 800,
            composer: course.clone(),
            sft: course,
            dpo: pairs.clone(),
            nca: pairs,
            ..Self::paper()
        }
    }

    /// The same for Complex-to-Simple: its loss and learning rate, as published, on
    /// adapters, or the small model's own; one round.
    fn contrasting(mut self, size: Size) -> Self {
        self.rounds = 1;
        self.dpo.sft_weight = 1.0;
        if size == Size::Usual {
            self.dpo.lr = 5e-4;
        }
        self
    }

    /// Preset, then configuration, then flags.
    ///
    /// # Errors
    /// A key that does not exist, a value of another type or out of range.
    pub(crate) fn choose(
        preset: Option<PresetArg>,
        recipe: RecipeArg,
        rounds: Option<usize>,
        size: Size,
        config: &Config,
    ) -> Result<Self> {
        let (base, size) = match (preset, size) {
            (Some(PresetArg::Small), _) | (None, Size::Small) => (Self::small(), Size::Small),
            (Some(PresetArg::Paper), _) | (None, Size::Usual) => (Self::paper(), Size::Usual),
        };
        let base = match recipe {
            RecipeArg::Ultraif => base,
            RecipeArg::ComplexToSimple => base.contrasting(size),
        };
        let known: Vec<String> = keys(&base).into_iter().map(|(key, _)| key).collect();
        let mut value = serde_json::to_value(base)?;
        for (key, given, origin) in config.recipe(TABLE) {
            if !known.iter().any(|name| name == key) {
                let names = known.iter().map(|name| format!("{TABLE}.{name}"));
                let name = format!("{TABLE}.{key}");
                return Err(Failure::usage(unknown(&name, &origin.to_string(), names)));
            }
            let pointer = format!("/{}", key.replace('.', "/"));
            if let Some(place) = value.pointer_mut(&pointer) {
                *place = serde_json::to_value(given)?;
            }
            // Checked one by one, so that the message can say which.
            serde_json::from_value::<Self>(value.clone())
                .map_err(|error| Failure::usage(format!("{origin}: {TABLE}.{key}: {error}")))?;
        }
        let mut settings: Self = serde_json::from_value(value)?;
        settings.rounds = rounds.unwrap_or(settings.rounds);
        settings.validate()?;
        Ok(settings)
    }

    fn validate(&self) -> Result<()> {
        let check = |ok: bool, key: &str, expected: &str| match ok {
            true => Ok(()),
            false => Err(Failure::usage(format!("{TABLE}.{key}: {expected}"))),
        };
        check(self.rounds <= 20, "rounds", "at most 20")?;
        let depth = &self.compose_rounds;
        let fits = !depth.is_empty() && depth.iter().all(|rounds| *rounds <= 10);
        check(fits, "compose_rounds", "numbers from 0 to 10, at least one")?;
        let samples = self.held_out.samples;
        check(
            (1..=100).contains(&samples),
            "held_out.samples",
            "from 1 to 100",
        )?;
        let sampling = self.held_out.sampling();
        let valid = sampling.validate();
        valid.map_err(|error| Failure::usage(format!("{TABLE}.held_out.{error}")))
    }

    /// Constraints added for SFT (`place` 0) or for a round (from 1).
    pub(crate) fn depth(&self, place: usize) -> usize {
        let last = self.compose_rounds.last().copied().unwrap_or(0);
        self.compose_rounds.get(place).copied().unwrap_or(last)
    }
}

/// Every key below `align.` with its value in a preset; tables within tables have dots.
pub(crate) fn keys(settings: &Settings) -> Vec<(String, Value)> {
    let value = serde_json::to_value(settings).expect("our own types have string keys");
    let mut found = Vec::new();
    if let Value::Object(map) = value {
        flatten("", map, &mut found);
    }
    found
}

fn flatten(prefix: &str, map: Map<String, Value>, found: &mut Vec<(String, Value)>) {
    for (key, value) in map {
        match value {
            Value::Object(inner) => flatten(&format!("{prefix}{key}."), inner, found),
            value => found.push((format!("{prefix}{key}"), value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn chosen(set: &[(&str, &str)]) -> Result<Settings> {
        let set = set.iter();
        let sources = Sources {
            set: set
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            ..Sources::default()
        };
        let config = Config::read(&sources)?;
        Settings::choose(None, RecipeArg::Ultraif, None, Size::Usual, &config)
    }

    #[test]
    fn keys_have_dots_and_are_set_one_by_one() {
        let found = chosen(&[
            ("align.sft.lr", "3e-3"),
            ("align.compose_rounds", "[2]"),
            ("align.judge", "policy"),
        ])
        .unwrap();
        let mut expected = Settings::paper();
        expected.sft.lr = 3e-3;
        expected.compose_rounds = vec![2];
        expected.judge = Judge::Policy;
        assert_eq!(found, expected);
        assert_eq!((found.depth(0), found.depth(7)), (2, 2));
        assert_eq!(
            [0, 1, 2, 3].map(|i| Settings::paper().depth(i)),
            [1, 2, 3, 3]
        );
    }

    #[test]
    fn wrong_ones_are_named() {
        let check = |key: &str, value: &str, named: &str| {
            let error = format!("{:#}", chosen(&[(key, value)]).unwrap_err());
            assert!(error.contains(named), "{key}: {error}");
        };
        check("align.sft.rl", "1", "did you mean");
        check("align.sft", "1", "unknown key");
        check("align.sft.lr", "fast", "align.sft.lr");
        check("align.rounds", "21", "at most 20");
        check("align.compose_rounds", "[]", "align.compose_rounds");
        check("align.held_out.samples", "0", "from 1 to 100");
        check("align.held_out.top_p", "0", "align.held_out.top_p");
    }

    #[test]
    fn presets_follow_size_unless_named() {
        let config = Config::read(&Sources::default()).unwrap();
        let recipe = RecipeArg::Ultraif;
        let of = |preset, size| {
            Settings::choose(preset, recipe, Some(1), Size::of(size), &config).unwrap()
        };
        assert_eq!(of(None, 3_000_000).sft.lr, Settings::small().sft.lr);
        assert_eq!(of(None, 8_000_000_000).rows, 0);
        let asked = of(Some(PresetArg::Paper), 3_000_000);
        assert_eq!((asked.rows, asked.rounds), (0, 1));
    }

    #[test]
    fn contrast_has_a_loss_of_its_own() {
        let config = Config::read(&Sources::default()).unwrap();
        let recipe = RecipeArg::ComplexToSimple;
        let of = |size| Settings::choose(None, recipe, None, size, &config).unwrap();
        let (usual, small) = (of(Size::Usual), of(Size::Small));
        assert_eq!(
            (usual.rounds, usual.dpo.lr, usual.dpo.sft_weight),
            (1, 5e-4, 1.0)
        );
        assert_eq!((small.rows, small.dpo.sft_weight), (800, 1.0));
    }
}
