//! One run of a recipe: where, how much, and with which models. Commands other than `synth`
//! make their own.

use super::args::RunArgs;
use crate::args::ModelArgs;
use crate::config::Config;
use crate::embedded;
use crate::error::Failure;
use crate::session;
use anyhow::Result;
use pipeline::{OnChange, Shard};
use std::path::PathBuf;
use synth::prompts::PromptSet;
use synth::ultraif::{Evaluator, Settings};

/// What every recipe needs to know of a run.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    /// The run's folder; a run that is there is continued.
    pub(crate) output: PathBuf,
    /// Ends once so many rows are accepted.
    pub(crate) accept: Option<u64>,
    /// Rows of the source to try at most.
    pub(crate) max_rows: Option<u64>,
    /// Seed of every draw.
    pub(crate) seed: u64,
    /// Which part of the rows.
    pub(crate) shard: Shard,
    /// Rows under way at once, at least 1.
    pub(crate) concurrency: usize,
    /// Whether a folder made with something else is gone on with.
    pub(crate) on_change: OnChange,
    /// Folder of prompts that replace the program's own.
    pub(crate) prompts: Option<PathBuf>,
    /// Whose prompts and seeds are used where none are named.
    pub(crate) house: House,
    /// The main model.
    pub(crate) model: &'a ModelArgs,
    /// Models or adapters of single roles.
    pub(crate) roles: Vec<(String, String)>,
}

impl<'a> Job<'a> {
    /// A run of all rows in this folder, 64 at a time, with the main model in every role.
    pub(crate) fn new(output: PathBuf, model: &'a ModelArgs, config: &Config) -> Self {
        Self {
            output,
            accept: None,
            max_rows: None,
            seed: 0,
            shard: Shard::ALL,
            concurrency: 64,
            on_change: OnChange::Refuse,
            prompts: None,
            house: House::of(model, config),
            model,
            roles: Vec::new(),
        }
    }

    /// As the command line says; `recipe` names the folder if it does not.
    ///
    /// # Errors
    /// A Slurm array that does not say which part this is.
    pub(crate) fn of_args(
        args: &'a RunArgs,
        (recipe, roles): (&str, &[(String, String)]),
        config: &Config,
    ) -> Result<Self> {
        let shard = match args.shard {
            Some(shard) => shard,
            None => slurm_shard(|name| std::env::var(name).ok())?,
        };
        let output = args.output.clone();
        Ok(Self {
            output: output.unwrap_or_else(|| PathBuf::from("runs").join(recipe)),
            accept: args.accept,
            max_rows: args.max_rows,
            seed: args.seed,
            shard,
            concurrency: args.concurrency,
            on_change: if args.allow_changes {
                OnChange::Allow
            } else {
                OnChange::Refuse
            },
            prompts: args.prompts.clone(),
            house: House::of(&args.model, config),
            model: &args.model,
            roles: roles.to_vec(),
        })
    }

    /// Whether a role has a model or adapter of its own.
    pub(crate) fn casts(&self, role: &str) -> bool {
        self.roles.iter().any(|(name, _)| name == role)
    }
}

/// Whose words are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum House {
    /// The program's, for any model.
    Program,
    /// Those that the model inside the program was trained on.
    Embedded,
}

impl House {
    /// That of the main model.
    pub(crate) fn of(model: &ModelArgs, config: &Config) -> Self {
        let named = model.model.as_deref().or_else(|| config.text("model"));
        match session::is_embedded(named, config) {
            true => Self::Embedded,
            false => Self::Program,
        }
    }

    /// Prompts where no folder of them is named.
    pub(crate) fn prompts(self) -> PromptSet {
        match self {
            Self::Program => PromptSet::embedded(),
            Self::Embedded => embedded::prompts(),
        }
    }

    /// Seeds where no file of them is named, as JSONL.
    pub(crate) fn seeds(self) -> &'static str {
        match self {
            Self::Program => synth::seeds::BUILTIN,
            Self::Embedded => embedded::SEEDS,
        }
    }

    /// Instructions to measure by, as JSONL, where there are any.
    pub(crate) fn held_out(self) -> Option<&'static str> {
        match self {
            Self::Program => None,
            Self::Embedded => Some(embedded::HELD_OUT),
        }
    }
}

impl House {
    /// UltraIF's settings where none are given: the embedded model was trained on requests with
    /// up to three constraints, and reads verdicts better than it writes reasons.
    pub(crate) fn adapted(self, base: Settings) -> Settings {
        match self {
            Self::Program => base,
            Self::Embedded => Settings {
                rounds: base.rounds.min(2),
                evaluator: Evaluator::Logits,
                ..base
            },
        }
    }

    /// Ids of the rules that instructions may have where none are named; nothing = all.
    pub(crate) fn kinds(self) -> Vec<&'static str> {
        match self {
            Self::Program => Vec::new(),
            Self::Embedded => embedded::kinds(),
        }
    }
}

/// The part that a Slurm array job is to do; all rows outside of one.
fn slurm_shard(variable: impl Fn(&str) -> Option<String>) -> Result<Shard> {
    let (Some(id), Some(count)) = (
        variable("SLURM_ARRAY_TASK_ID"),
        variable("SLURM_ARRAY_TASK_COUNT"),
    ) else {
        return Ok(Shard::ALL);
    };
    let first = variable("SLURM_ARRAY_TASK_MIN").unwrap_or_else(|| "0".into());
    let number = |text: &str| text.parse::<u32>().ok();
    let shard = (|| {
        let index = number(&id)?.checked_sub(number(&first)?)?;
        Shard::new(index, number(&count)?)
    })();
    shard.ok_or_else(|| {
        Failure::usage(format!(
            "$SLURM_ARRAY_TASK_ID {id} from {first} of {count}: not a part; give --shard I/N"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slurm_says_which_part() {
        let check = |set: &[(&str, &str)], expected: Option<&str>| {
            let shard = slurm_shard(|name| {
                let found = set
                    .iter()
                    .find(|(key, _)| format!("SLURM_ARRAY_TASK_{key}") == name);
                found.map(|(_, value)| (*value).to_owned())
            });
            assert_eq!(
                shard.ok().map(|shard| shard.to_string()).as_deref(),
                expected
            );
        };
        check(&[], Some("1/1"));
        check(&[("ID", "2"), ("COUNT", "4"), ("MIN", "0")], Some("3/4"));
        check(&[("ID", "4"), ("COUNT", "4"), ("MIN", "1")], Some("4/4"));
        check(&[("ID", "9"), ("COUNT", "4"), ("MIN", "1")], None);
        check(&[("ID", "x"), ("COUNT", "4")], None);
    }
}
