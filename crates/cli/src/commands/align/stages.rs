//! Which stages there are, in which folders, and what each begins with: plain data.

use super::args::{Control, RecipeArg};
use super::settings::Settings;
use std::path::{Path, PathBuf};
use synth::ultraif::Composer;

/// How a chain of adapters is made: by the model's own judgement, or to compare with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Arm {
    /// The loop itself.
    Main,
    /// The same by another judge, on as many rows and in as many steps.
    Control(Control),
}

/// How an adapter is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Sft,
    Dpo,
    Nca,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Held-out instructions are answered and judged by rule.
    Evaluate,
    /// Seeds are taken apart into rows for a composer.
    Decompose,
    /// The composer is trained.
    Compose,
    /// Instructions are made, answered, judged: rows for training.
    Synthesise,
    /// The policy is trained.
    Train(Method),
}

/// One piece of the loop, which is done or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) arm: Arm,
    /// As in the table: `base`, `sft`, `round 1` …
    pub(crate) stage: String,
    pub(crate) work: Work,
    /// 0 = SFT, 1 = the first round …
    pub(crate) place: usize,
    /// Where its files are, below the loop's folder; also its name.
    pub(crate) folder: PathBuf,
    /// The adapter of the policy as this part finds it, below the loop's folder.
    pub(crate) policy: Option<PathBuf>,
    /// What it trains on: the folder of a [`Work::Synthesise`] or [`Work::Decompose`].
    pub(crate) source: Option<PathBuf>,
}

/// Folder of the untrained model's evaluation.
pub(crate) const BASE: &str = "0-base/evaluation";
/// Folder of the seeds taken apart.
pub(crate) const DECOMPOSE: &str = "1-decompose";
/// Folder of the composer's training, and of its adapter.
pub(crate) const COMPOSER: &str = "2-composer";

impl Arm {
    /// Folder of its own, if it has one.
    fn folder(self) -> &'static str {
        match self {
            Self::Main => "",
            Self::Control(Control::Rules) => "control-rules",
            Self::Control(Control::Unfiltered) => "control-unfiltered",
        }
    }

    /// As in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Main => "align",
            Self::Control(Control::Rules) => "rules",
            Self::Control(Control::Unfiltered) => "unfiltered",
        }
    }
}

impl Method {
    /// As the command line has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sft => "sft",
            Self::Dpo => "dpo",
            Self::Nca => "nca",
        }
    }
}

impl Part {
    /// Its name in the state file.
    pub(crate) fn key(&self) -> String {
        self.folder.to_string_lossy().replace('\\', "/")
    }

    /// The part of the main arm that this one of a control is as long as.
    pub(crate) fn twin(&self) -> Option<String> {
        let own = Path::new(self.arm.folder());
        let below = self.folder.strip_prefix(own).ok()?;
        (self.arm != Arm::Main).then(|| below.to_string_lossy().replace('\\', "/"))
    }
}

/// Every part in order: each needs only those before it.
pub(crate) fn schedule(
    settings: &Settings,
    recipe: RecipeArg,
    controls: &[Control],
    composer: Composer,
) -> Vec<Part> {
    let part = |stage: &str, work, folder: &str| Part {
        arm: Arm::Main,
        stage: stage.to_owned(),
        work,
        place: 0,
        folder: folder.into(),
        policy: None,
        source: None,
    };
    let mut parts = vec![part("base", Work::Evaluate, BASE)];
    if composer == Composer::Trained {
        parts.push(part("decompose", Work::Decompose, DECOMPOSE));
        parts.push(Part {
            source: Some(DECOMPOSE.into()),
            ..part("composer", Work::Compose, COMPOSER)
        });
    }
    if recipe == RecipeArg::ComplexToSimple {
        parts.extend(contrast(settings.rounds));
        return parts;
    }
    parts.extend(arm(Arm::Main, settings.rounds));
    let mut controls = controls.to_vec();
    controls.sort_unstable();
    controls.dedup();
    for control in controls {
        parts.extend(arm(Arm::Control(control), settings.rounds));
    }
    parts
}

/// Rounds of pairs of a corrected answer and what it was made from.
fn contrast(rounds: usize) -> Vec<Part> {
    let rounds = (1..=rounds).map(|place| Stage {
        arm: Arm::Main,
        name: format!("round {place}"),
        place,
        method: Method::Dpo,
        synthesis: format!("{place}-round-{place}/synth").into(),
        training: format!("{place}-round-{place}").into(),
    });
    chain(rounds)
}

/// SFT and the rounds of one arm.
fn arm(arm: Arm, rounds: usize) -> Vec<Part> {
    let root = Path::new(arm.folder());
    let stages = (0..=rounds).map(|place| {
        let (name, method, synthesis, training) = if place == 0 {
            let (synthesis, training) = (root.join("3-synth"), root.join("4-sft"));
            ("sft".to_owned(), Method::Sft, synthesis, training)
        } else {
            let method = if place == rounds {
                Method::Nca
            } else {
                Method::Dpo
            };
            let training = root.join(format!("{}-round-{place}", place + 4));
            let name = format!("round {place}");
            (name, method, training.join("synth"), training)
        };
        Stage {
            arm,
            name,
            place,
            method,
            synthesis,
            training,
        }
    });
    chain(stages)
}

/// Rows, a training on them, an evaluation.
struct Stage {
    arm: Arm,
    name: String,
    place: usize,
    method: Method,
    /// Folder of the rows.
    synthesis: PathBuf,
    /// Folder of adapter and evaluation.
    training: PathBuf,
}

/// Stages of which each begins with the adapter of the one before.
fn chain(stages: impl Iterator<Item = Stage>) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut policy = None;
    for stage in stages {
        let (synthesis, training) = (stage.synthesis, stage.training);
        let adapter = training.join("adapter");
        let part = |work, folder: &Path, policy: Option<&PathBuf>, source| Part {
            arm: stage.arm,
            stage: stage.name.clone(),
            work,
            place: stage.place,
            folder: folder.to_owned(),
            policy: policy.cloned(),
            source,
        };
        let before = policy.as_ref();
        parts.push(part(Work::Synthesise, &synthesis, before, None));
        let source = Some(synthesis.clone());
        parts.push(part(Work::Train(stage.method), &adapter, before, source));
        let evaluation = training.join("evaluation");
        parts.push(part(Work::Evaluate, &evaluation, Some(&adapter), None));
        policy = Some(adapter);
    }
    parts
}

/// The adapter that the loop ends with.
pub(crate) fn last_adapter(parts: &[Part]) -> Option<&Path> {
    let main = parts.iter().rev().find(|part| part.arm == Arm::Main)?;
    main.policy.as_deref()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(rounds: usize, controls: &[Control], composer: Composer) -> Vec<String> {
        let settings = Settings {
            rounds,
            ..Settings::paper()
        };
        let name = |path: &Option<PathBuf>| {
            path.as_ref()
                .map_or("-".to_owned(), |path| path.display().to_string())
        };
        schedule(&settings, RecipeArg::Ultraif, controls, composer)
            .iter()
            .map(|part| {
                let (policy, source) = (name(&part.policy), name(&part.source));
                format!("{:?} {} {policy} {source}", part.work, part.key())
            })
            .collect()
    }

    #[test]
    fn stages_come_in_order_and_build_on_each_other() {
        let expected = [
            "Evaluate 0-base/evaluation - -",
            "Decompose 1-decompose - -",
            "Compose 2-composer - 1-decompose",
            "Synthesise 3-synth - -",
            "Train(Sft) 4-sft/adapter - 3-synth",
            "Evaluate 4-sft/evaluation 4-sft/adapter -",
            "Synthesise 5-round-1/synth 4-sft/adapter -",
            "Train(Dpo) 5-round-1/adapter 4-sft/adapter 5-round-1/synth",
            "Evaluate 5-round-1/evaluation 5-round-1/adapter -",
            "Synthesise 6-round-2/synth 5-round-1/adapter -",
            "Train(Nca) 6-round-2/adapter 5-round-1/adapter 6-round-2/synth",
            "Evaluate 6-round-2/evaluation 6-round-2/adapter -",
        ];
        assert_eq!(told(2, &[], Composer::Trained), expected);
        assert!(
            told(1, &[], Composer::Prompted)
                .contains(&"Train(Nca) 5-round-1/adapter 4-sft/adapter 5-round-1/synth".to_owned())
        );
        assert_eq!(told(0, &[], Composer::Prompted).len(), 4);
    }

    #[test]
    fn contrast_is_rounds_of_pairs_alone() {
        let settings = Settings {
            rounds: 2,
            ..Settings::paper()
        };
        let recipe = RecipeArg::ComplexToSimple;
        let parts = schedule(&settings, recipe, &[], Composer::Prompted);
        let told: Vec<String> = parts.iter().map(Part::key).collect();
        let expected = [
            "0-base/evaluation",
            "1-round-1/synth",
            "1-round-1/adapter",
            "1-round-1/evaluation",
            "2-round-2/synth",
            "2-round-2/adapter",
            "2-round-2/evaluation",
        ];
        assert_eq!(told, expected);
        assert_eq!(parts[1].policy, None);
        assert_eq!(parts[4].policy, Some("1-round-1/adapter".into()));
        assert_eq!(parts[5].work, Work::Train(Method::Dpo));
        assert_eq!(last_adapter(&parts), Some(Path::new("2-round-2/adapter")));
    }

    #[test]
    fn controls_have_folders_of_their_own_and_a_twin_each() {
        let settings = Settings::paper();
        let controls = [Control::Rules, Control::Unfiltered, Control::Rules];
        let parts = schedule(&settings, RecipeArg::Ultraif, &controls, Composer::Prompted);
        assert_eq!(parts.len(), 1 + 3 * 9);
        let keys: Vec<String> = parts.iter().map(Part::key).collect();
        let unique: std::collections::BTreeSet<_> = keys.iter().collect();
        assert_eq!(unique.len(), keys.len());
        for part in parts.iter().filter(|part| part.arm != Arm::Main) {
            assert!(keys.contains(&part.twin().unwrap()), "{part:?}");
        }
        assert_eq!(parts[1].twin(), None);
        let last = last_adapter(&parts).unwrap();
        assert_eq!(last, Path::new("6-round-2/adapter"));
    }
}
