//! `align`: a model teaches itself. Its own data, judged by itself, train it, round after
//! round; held-out instructions judged by rule say what came of it.
//!
//! - `stages.rs`: which parts there are and what each begins with.
//! - `state.rs`: what is done. A part under way keeps its own log or checkpoints, so that the
//!   same command goes on from anywhere.
//! - `inputs.rs`, `synthesis.rs`, `training.rs`, `evaluation.rs`: the parts.
//! - `table.rs`: what it came to.
//!
//! One process, one copy of the weights: the engine and the training share them, and adapters
//! are all that changes.

pub(crate) mod args;
mod evaluation;
mod inputs;
pub(crate) mod settings;
mod stages;
mod state;
mod synthesis;
mod table;
mod training;

use crate::commands::Env;
use crate::commands::synth::House;
use crate::commands::train::lock;
use crate::error::{Failure, STOPPED};
use crate::output;
use crate::session::{self, EMBEDDED, Opened};
use crate::threads;
use ::eval::held_out::Asking;
use ::synth::prompts::PromptSet;
use ::synth::ultraif::Composer;
use anyhow::{Context, Result};
use args::{AlignArgs, RecipeArg};
use inputs::Inputs;
use serde_json::{Value, json};
use settings::{Settings, Size};
use stages::{Part, Work, last_adapter, schedule};
use state::{Done, Facts, State, TrainingFacts};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// Name and version; raised when what becomes of equal inputs changes.
const NAME: &str = "align 1";
/// Folder of the adapter that a loop ends with.
const RESULT: &str = "adapter";

/// A loop: everything that is known before its first part.
struct Loop<'a> {
    args: &'a AlignArgs,
    settings: Settings,
    folder: PathBuf,
    /// The model as the user named it.
    model: String,
    size: Size,
    composer: Composer,
    context_tokens: usize,
    /// Tokens of a held-out answer.
    answer_tokens: usize,
    inputs: Inputs,
    /// Prompts that instructions must not repeat.
    held_out_file: PathBuf,
    parts: Vec<Part>,
}

/// Runs the command.
pub(crate) fn run(env: &mut Env, args: &AlignArgs) -> Result<ExitCode> {
    for setting in args.model.settings() {
        env.config.insert(setting)?;
    }
    if args.model.adapter.is_some() {
        return Err(Failure::usage(
            "--adapter: the loop begins at a model; merge the adapter into it first",
        ));
    }
    if args.concurrency == 0 {
        return Err(Failure::usage("--concurrency 0: at least 1 row"));
    }
    threads::apply(&env.config)?;
    let opened = session::open(&args.model, &mut env.config)?;
    opened.check_template()?;
    let house = House::of(&args.model, &env.config);
    let prompts = match &args.prompts {
        None => house.prompts(),
        Some(folder) => {
            PromptSet::with_overrides(folder).map_err(|error| Failure::usage(error.to_string()))?
        }
    };
    let of = Loop::new(env, args, &opened, (&prompts, house))?;
    if args.dry_run {
        return of.tell_parts().map(|()| ExitCode::SUCCESS);
    }
    let _lock = lock(&of.folder)?;
    let mut state = State::open(&of.folder, of.made_of(env, &opened, &prompts)?)?;
    of.inputs.write_held_out(&of.folder)?;
    if of
        .parts
        .iter()
        .any(|part| state.done(&part.key()).is_none())
    {
        env.keep(&opened)?;
    }
    for part in &of.parts {
        if state.done(&part.key()).is_none() && !of.perform(env, part, &mut state)? {
            output::say("stopped; the same command continues");
            return Ok(ExitCode::from(STOPPED));
        }
    }
    of.conclude(&state)?;
    Ok(ExitCode::SUCCESS)
}

impl<'a> Loop<'a> {
    fn new(
        env: &Env,
        args: &'a AlignArgs,
        opened: &Opened,
        (prompts, house): (&PromptSet, House),
    ) -> Result<Self> {
        let size = Size::of(opened.parameters());
        let settings = Settings::choose(args.preset, args.recipe, args.rounds, size, &env.config)?;
        synthesis::check(args, (size, house), &env.config)?;
        let inputs = Inputs::read(args, house, settings.held_out.prompts)?;
        let folder = args.output.clone();
        let composes = (0..=settings.rounds).any(|place| settings.depth(place) > 0);
        let composes = composes && args.recipe == RecipeArg::Ultraif;
        let composer = match composes && !args.skip_composer {
            true => Composer::Trained,
            false => Composer::Prompted,
        };
        let answer_tokens = match settings.held_out.max_tokens {
            0 => prompts.get(args.recipe.respond()).max_tokens(),
            tokens => tokens,
        };
        Ok(Self {
            parts: schedule(&settings, args.recipe, &args.control, composer),
            held_out_file: folder.join(inputs::HELD_OUT),
            context_tokens: opened.context_tokens(),
            answer_tokens: answer_tokens.min(opened.context_tokens() / 2),
            model: env.config.text("model").unwrap_or(EMBEDDED).to_owned(),
            args,
            settings,
            folder,
            size,
            composer,
            inputs,
        })
    }

    /// What must be the same for the loop to go on.
    fn made_of(
        &self,
        env: &Env,
        opened: &Opened,
        prompts: &PromptSet,
    ) -> Result<BTreeMap<String, Value>> {
        let house = House::of(&self.args.model, &env.config);
        let (recipe, settings) = synthesis::made_of(self, house, &env.config)?;
        let made_of = [
            ("recipe", json!(NAME)),
            ("model", json!(opened.identity(None)?)),
            ("seed", json!(self.args.seed)),
            ("seeds", json!(self.inputs.seeds_digest)),
            ("held-out", json!(self.inputs.held_out_digest)),
            ("composer", json!(self.composer)),
            ("align", serde_json::to_value(&self.settings)?),
            (recipe, settings),
            ("prompts", json!(prompts.digests(recipe))),
        ];
        let made_of = made_of.map(|(name, value)| (name.to_owned(), value));
        Ok(BTreeMap::from(made_of))
    }

    /// How held-out instructions are answered.
    fn asking(&self) -> Asking {
        let how = &self.settings.held_out;
        Asking {
            samples: how.samples,
            sampling: how.sampling(),
            max_tokens: self.answer_tokens,
        }
    }

    /// The seed of a part's draws: another one for each stage, the same for all arms, so that
    /// they see the same instructions.
    fn seed_of(&self, part: &Part) -> u64 {
        let what = match part.work {
            Work::Decompose | Work::Compose => "composer",
            Work::Synthesise | Work::Train(_) | Work::Evaluate => "policy",
        };
        let text = format!("{} {what} {}", self.args.seed, part.place);
        let first: [u8; 4] = blake3::hash(text.as_bytes()).as_bytes()[..4]
            .try_into()
            .expect("a hash has 32 bytes");
        u64::from(u32::from_le_bytes(first))
    }

    /// Does a part and writes down what came of it; false if the user stopped it.
    fn perform(&self, env: &mut Env, part: &Part, state: &mut State) -> Result<bool> {
        let began = Instant::now();
        output::say(&format!("\n== {}", part.key()));
        let facts = match part.work {
            Work::Decompose | Work::Synthesise => synthesis::synthesise(env, self, part)?,
            Work::Compose | Work::Train(_) => {
                let twin = twin_training(part, state);
                training::train(env, self, part, twin.as_ref())?
            }
            Work::Evaluate => self.evaluate(env, part)?,
        };
        let Some(facts) = facts else {
            return Ok(false);
        };
        tell(&facts);
        let seconds = began.elapsed().as_secs_f64();
        state.record(&part.key(), Done { facts, seconds })?;
        Ok(true)
    }

    fn evaluate(&self, env: &mut Env, part: &Part) -> Result<Option<Facts>> {
        let folder = self.folder.join(&part.folder);
        let adapter = part.policy.as_ref().map(|path| self.folder.join(path));
        let found = evaluation::evaluate(env, self, &folder, adapter.as_deref())?;
        let Some((scored, perplexity)) = found else {
            return Ok(None);
        };
        let gain = match adapter {
            None => None,
            Some(_) => {
                let base = self.folder.join(stages::BASE);
                let before = evaluation::scored(&self.inputs.instructions, &base)?;
                Some(scored.gain_over(&before))
            }
        };
        Ok(Some(Facts::Evaluation {
            figures: scored.figures(perplexity),
            gain,
        }))
    }

    /// The stages and their folders.
    fn tell_parts(&self) -> Result<()> {
        let head = ["folder", "what", "begins with"]
            .map(str::to_owned)
            .to_vec();
        let mut rows = vec![head];
        for part in &self.parts {
            let what = match part.work {
                Work::Evaluate => "evaluate".to_owned(),
                Work::Decompose => "take seeds apart".to_owned(),
                Work::Compose => "train composer".to_owned(),
                Work::Synthesise => match self.args.recipe {
                    RecipeArg::Ultraif => {
                        let depth = self.settings.depth(part.place);
                        format!("compose {depth} times, respond, judge")
                    }
                    RecipeArg::ComplexToSimple => "add rules, respond, check, correct".to_owned(),
                },
                Work::Train(method) => format!("train {}", method.name()),
            };
            let policy = part.policy.as_deref();
            let policy = policy.map_or("the model".to_owned(), |path| path.display().to_string());
            rows.push(vec![part.key(), what, policy]);
        }
        Ok(output::print_line(&output::table(&rows))?)
    }

    /// The adapter to its place, the table, and what to do next.
    fn conclude(&self, state: &State) -> Result<()> {
        let adapter = self.folder.join(RESULT);
        if let Some(last) = last_adapter(&self.parts) {
            copy_adapter(&self.folder.join(last), &adapter)?;
        }
        let rows = table::rows(&self.parts, state);
        if self.args.json {
            output::print_json(&json!({
                "adapter": adapter, "seed": self.args.seed, "models": table::as_json(&rows),
                "interval": "95 %, percentile bootstrap over prompts",
            }))?;
        } else {
            output::print_line(&output::table(&table::kinds(&rows)))?;
            output::print_line("")?;
            output::print_line(&output::table(&table::text(&rows)))?;
        }
        let model = match self.model.as_str() {
            EMBEDDED => String::new(),
            model => format!(" -m {model}"),
        };
        output::say(&format!(
            "next: autodidact chat{model} --adapter {}",
            adapter.display()
        ));
        Ok(())
    }
}

/// The training of the main arm that this part of a control is as long as.
fn twin_training(part: &Part, state: &State) -> Option<TrainingFacts> {
    match &state.done(&part.twin()?)?.facts {
        Facts::Training(facts) => Some(facts.clone()),
        _ => None,
    }
}

/// One line of what came of a part.
fn tell(facts: &Facts) {
    let line = match facts {
        Facts::Rows(rows) => format!(
            "{} tried, {} rows; {} of {} responses pass the judge",
            rows.tried, rows.rows, rows.passing, rows.responses
        ),
        Facts::Training(training) => {
            format!("{} rows, {} steps", training.rows, training.steps)
        }
        Facts::Evaluation { figures, gain } => {
            let gain = gain.as_ref().map_or(String::new(), |gain| {
                format!(", {:+.1} points", gain.sampled.rate * 100.0)
            });
            format!(
                "{:.1} % of samples follow every rule{gain}, {:.1} % of greedy answers",
                figures.sampled.rate * 100.0,
                figures.greedy.rate * 100.0
            )
        }
    };
    output::say(&line);
}

/// Copies what an adapter is made of, beside its place, and renames it.
fn copy_adapter(from: &Path, to: &Path) -> Result<()> {
    let beside = to.with_extension("tmp");
    let copy = || {
        if beside.exists() {
            fs::remove_dir_all(&beside)?;
        }
        fs::create_dir_all(&beside)?;
        for name in ["adapter_config.json", "adapter_model.safetensors"] {
            fs::copy(from.join(name), beside.join(name))?;
        }
        if to.exists() {
            fs::remove_dir_all(to)?;
        }
        fs::rename(&beside, to)
    };
    copy().with_context(|| format!("cannot write {}", to.display()))
}
