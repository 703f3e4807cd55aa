//! DecIF as a command: pools that grow until there are enough rows.

use super::args::DecifArgs;
use super::job::House;
use super::settings::{Preset, admit, contamination, layered, preset};
use super::{Export, Facts, Job, Pass, Recipe, Rows, Shown, Source, execute, prompts};
use crate::commands::Env;
use crate::error::Failure;
use crate::output;
use anyhow::{Context as _, Result};
use pipeline::{AdmitAll, Llm, Report, Sourced};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use synth::decif::{self, Ask, Context, Diversity, Item, NAME, Next, Pools, Settings, Step};
use synth::prompts::PromptSet;

/// How varied pools and instructions are, in the run's folder.
const DIVERSITY_FILE: &str = "diversity.json";

/// Runs DecIF.
pub(crate) fn run(env: &mut Env, args: &DecifArgs) -> Result<ExitCode> {
    let job = Job::of_args(&args.run, (NAME, &args.role), &env.config)?;
    let base = match args.run.preset.as_str() {
        "paper" if job.house == House::Embedded => within(job.house),
        name => preset(name, &presets())?,
    };
    let sizes = [
        ("domains", args.domains, "--domains"),
        (
            "requests_per_domain",
            args.requests_per_domain,
            "--requests-per-domain",
        ),
        (
            "scenarios_per_request",
            args.scenarios_per_request,
            "--scenarios-per-request",
        ),
        (
            "personas_per_scenario",
            args.personas_per_scenario,
            "--personas-per-scenario",
        ),
        (
            "instructions_per_scenario",
            args.instructions_per_scenario,
            "--instructions-per-scenario",
        ),
    ];
    let given = sizes.into_iter();
    let given = given.filter_map(|(key, value, flag)| Some((key, json!(value?), flag)));
    let mut flags: Vec<(&str, Value, &str)> = given.collect();
    if let Some(evaluator) = &args.evaluator {
        flags.push(("evaluator", json!(evaluator), "--evaluator"));
    }
    let settings = layered(NAME, &base, &env.config, flags)?;
    let recipe = Decif::new(&job, settings, args)?;
    let ended = execute(env, &job, &recipe)?;
    ended.tell(Shown::of_flag(args.run.json))?;
    Ok(ended.exit_code())
}

fn presets() -> [Preset<Settings>; 3] {
    [
        ("paper", Settings::default),
        ("as-published", Settings::as_published),
        ("small", Settings::small),
    ]
}

/// The settings with what the model inside the program knows: its types of constraints, short
/// answers, short lists.
fn within(house: House) -> Settings {
    let kinds = ["tone", "audience", "tense", "politeness"];
    Settings {
        rules: house.kinds().into_iter().map(str::to_owned).collect(),
        kinds: kinds.map(str::to_owned).to_vec(),
        ..Settings::small()
    }
}

/// A run of DecIF.
pub(crate) struct Decif {
    context: Context,
    seed: u64,
    decontaminate: Vec<PathBuf>,
    /// Of the pools, once they were driven.
    diversity: RefCell<BTreeMap<&'static str, Diversity>>,
}

/// Why the pools stopped growing.
enum Halt {
    /// A phase is not whole: the same command continues.
    Unfinished(Box<Report>),
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for Halt {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl Decif {
    /// Checks the settings, reads the prompts.
    ///
    /// # Errors
    /// Settings out of range, prompts or benchmarks that cannot be read.
    fn new(job: &Job<'_>, settings: Settings, args: &DecifArgs) -> Result<Self> {
        settings
            .validate()
            .map_err(|error| Failure::usage(error.to_string()))?;
        Ok(Self {
            context: Context {
                prompts: prompts(job)?,
                settings,
                contamination: contamination(&args.decontaminate)?,
            },
            seed: job.seed,
            decontaminate: args.decontaminate.clone(),
            diversity: RefCell::default(),
        })
    }

    /// All calls of a pool so far; what became of them.
    fn put(
        &self,
        pass: &mut Pass<'_>,
        step: Step,
        rows: &[Sourced<Ask>],
    ) -> Result<Vec<data::Outcome>, Halt> {
        let recipe = async |ask: &Ask, llm: &Llm<'_>| decif::ask(ask, llm, &self.context).await;
        let source = Rows {
            rows: rows.iter().cloned(),
            count: rows.len() as u64,
        };
        let report = pass.pool(step.name(), source, &recipe, &mut AdmitAll)?;
        if !report.is_whole() {
            return Err(Halt::Unfinished(Box::new(report)));
        }
        let mut outcomes = Vec::with_capacity(rows.len());
        let mut take = |_: &str, outcome| outcomes.push(outcome);
        pass.run()
            .outcomes(step.name(), &mut AdmitAll, &mut take)
            .map_err(anyhow::Error::from)?;
        Ok(outcomes)
    }

    /// All items so far.
    fn instruct(&self, pass: &mut Pass<'_>, items: &[Sourced<Item>]) -> Result<Report> {
        let recipe = async |item: &Item, llm: &Llm<'_>| decif::run(item, llm, &self.context).await;
        let source = Rows {
            rows: items.iter().cloned(),
            count: items.len() as u64,
        };
        let mut admit = admit(self.context.settings.near_duplicates);
        pass.last(NAME, source, &recipe, admit.as_mut())
    }
}

impl Recipe for Decif {
    fn facts(&self) -> Facts {
        Facts {
            name: NAME,
            version: decif::RECIPE,
            roles: &decif::ROLES,
        }
    }

    fn settings(&self) -> Result<Value> {
        Ok(serde_json::to_value(&self.context.settings)?)
    }

    fn decontaminate(&self) -> &[PathBuf] {
        &self.decontaminate
    }

    fn prompts(&self) -> &PromptSet {
        &self.context.prompts
    }

    fn source(&self) -> Source {
        Source {
            digest: data::NO_SEEDS.to_owned(),
            files: Vec::new(),
        }
    }

    fn export(&self) -> Export {
        export(&self.context.settings)
    }

    fn drive(&self, pass: &mut Pass<'_>) -> Result<Report> {
        let mut pools = Pools::new(&self.context.settings, self.seed);
        let mut last = None;
        let pass = RefCell::new(pass);
        let ended = decif::epochs::<Halt>(
            &mut pools,
            &mut |step, rows| self.put(&mut pass.borrow_mut(), step, rows),
            &mut |items| {
                let report = self.instruct(&mut pass.borrow_mut(), items)?;
                let more = pass.borrow().wants_more(&report);
                last = Some(report);
                Ok(if more { Next::Epoch } else { Next::End })
            },
        );
        self.diversity.replace(pools.diversity());
        let report = match ended {
            Ok(()) => last,
            Err(Halt::Unfinished(report)) => Some(*report),
            Err(Halt::Failed(error)) => return Err(error),
        };
        report.context("an epoch ends with a phase")
    }

    fn notes(&self, folder: &Path) -> Result<String> {
        let mut found = self.diversity.borrow().clone();
        let texts = instructions(&folder.join("data"), &self.context.settings)?;
        let texts = texts.iter().map(String::as_str);
        found.insert("instructions", Diversity::of(texts, Vec::new()));
        let path = folder.join(DIVERSITY_FILE);
        let text = serde_json::to_string_pretty(&found)?;
        fs::write(&path, text + "\n").with_context(|| path.display().to_string())?;
        for (name, one) in &found {
            let share = one.distinct[1] * 100.0;
            output::say(&format!(
                "{:>7} {name}, {share:.0} % of their word pairs different",
                one.texts
            ));
        }
        Ok(table(&found))
    }
}

/// Instructions of the accepted rows.
fn instructions(data: &Path, settings: &Settings) -> Result<Vec<String>> {
    let mut texts = Vec::new();
    let named = settings.files();
    let Some(name) = named.first() else {
        return Ok(texts);
    };
    for row in data::read_prompts(&data.join(name))? {
        let row = row.map_err(|problem| Failure::input(problem.to_string()))?;
        let user = row.messages.iter().find(|turn| turn.role == "user");
        texts.extend(user.map(|turn| turn.content.clone()));
    }
    Ok(texts)
}

/// How varied pools and instructions are, for the card.
fn table(found: &BTreeMap<&'static str, Diversity>) -> String {
    let mut text = String::from(
        "## How varied they are\n\n| list | entries | distinct-1 | distinct-2 | distinct-3 | size after each quarter of the calls |\n|---|---|---|---|---|---|\n",
    );
    for (name, one) in found {
        let [a, b, c] = one.distinct;
        let _ = writeln!(
            text,
            "| {name} | {} | {a:.3} | {b:.3} | {c:.3} | {} |",
            one.texts,
            quarters(&one.growth)
        );
    }
    text + "\n"
}

/// Four points of a curve.
fn quarters(growth: &[usize]) -> String {
    let points: Vec<String> = (1..=4)
        .filter_map(|quarter| growth.get((growth.len() * quarter).div_ceil(4).checked_sub(1)?))
        .map(usize::to_string)
        .collect();
    points.join(", ")
}

fn export(settings: &Settings) -> Export {
    Export {
        phase: NAME,
        files: settings.files(),
        admit: admit(settings.near_duplicates),
    }
}

/// What becomes files of a run with these settings, as its manifest keeps them.
///
/// # Errors
/// Settings that are not this recipe's.
pub(super) fn export_of(settings: Value) -> Result<Export> {
    Ok(export(&serde_json::from_value(settings)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_has_four_points_if_it_has_any() {
        assert_eq!(quarters(&[]), "");
        assert_eq!(quarters(&[3]), "3, 3, 3, 3");
        assert_eq!(quarters(&[1, 2, 3, 4, 5, 6, 7, 8]), "2, 4, 6, 8");
    }

    #[test]
    fn the_card_names_every_list() {
        let one = Diversity::of(["a b", "a c"], vec![1, 2]);
        let found = BTreeMap::from([("domains", one)]);
        let text = table(&found);
        assert!(
            text.contains("| domains | 2 | 0.750 | 1.000 | 0.000 | 1, 1, 2, 2 |"),
            "{text}"
        );
    }

    #[test]
    fn the_model_inside_has_settings_that_can_be_used() {
        let settings = within(House::Embedded);
        settings.validate().unwrap();
        assert!(!settings.rules.is_empty());
    }
}
