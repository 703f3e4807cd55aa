//! Phases of a recipe over the models that are in memory, and models that take turns.

use super::{Job, Recipe};
use crate::commands::Env;
use crate::fleet::{Cast, Loaded};
use crate::interrupt::Interrupt;
use crate::output;
use crate::run_progress::RunProgress;
use crate::session::Session;
use anyhow::Result;
use data::Generator;
use pipeline::{
    Admit, DriveOptions, Llm, Part, Report, Roles, Run, Sourced, StageUse, Stop, StopSignal, Target,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Rows of a phase.
pub(crate) struct Rows<I> {
    /// They.
    pub(crate) rows: I,
    /// How many there are, about: for what is said of the time left.
    pub(crate) count: u64,
}

/// Calls and tokens of all phases of a pass.
#[derive(Debug, Clone, Default)]
pub(crate) struct Totals {
    /// By stage.
    pub(crate) stages: BTreeMap<String, StageUse>,
    /// Time that the phases took.
    pub(crate) elapsed: Duration,
}

/// One way through the phases of a recipe with the models that are in memory.
pub(crate) struct Pass<'a> {
    run: &'a Run,
    roles: Roles,
    options: DriveOptions,
    interrupt: Interrupt,
    totals: Totals,
}

impl Pass<'_> {
    /// The run, for what earlier phases found.
    pub(crate) fn run(&self) -> &Run {
        self.run
    }

    /// A phase that has to be whole before the next one: all of its rows, whatever was asked
    /// for. Unless its report is whole, the recipe returns it.
    ///
    /// # Errors
    /// As [`Run::drive`].
    pub(crate) fn pool<T, R>(
        &mut self,
        name: &str,
        rows: Rows<impl Iterator<Item = Sourced<T>>>,
        recipe: &R,
        admit: &mut dyn Admit,
    ) -> Result<Report>
    where
        R: AsyncFn(&T, &Llm<'_>) -> Result<(), Stop>,
    {
        let options = DriveOptions {
            accept: None,
            max_rows: None,
            part: Part::Whole,
            ..self.options.clone()
        };
        self.drive(name, rows, recipe, admit, &options)
    }

    /// Whether more rows are wanted than those of this report of the last phase.
    pub(crate) fn wants_more(&self, report: &Report) -> bool {
        let options = &self.options;
        let few = options.accept.is_some_and(|n| report.funnel.accepted < n);
        let may = options.max_rows.is_none_or(|n| report.funnel.read < n);
        few && may && report.is_whole() && options.stop.times() == 0
    }

    /// The last phase: the one whose records become files, and whose accepted rows are counted.
    ///
    /// # Errors
    /// As [`Run::drive`].
    pub(crate) fn last<T, R>(
        &mut self,
        name: &str,
        rows: Rows<impl Iterator<Item = Sourced<T>>>,
        recipe: &R,
        admit: &mut dyn Admit,
    ) -> Result<Report>
    where
        R: AsyncFn(&T, &Llm<'_>) -> Result<(), Stop>,
    {
        let options = self.options.clone();
        self.drive(name, rows, recipe, admit, &options)
    }

    fn drive<T, R>(
        &mut self,
        name: &str,
        rows: Rows<impl Iterator<Item = Sourced<T>>>,
        recipe: &R,
        admit: &mut dyn Admit,
        options: &DriveOptions,
    ) -> Result<Report>
    where
        R: AsyncFn(&T, &Llm<'_>) -> Result<(), Stop>,
    {
        let shard = self.run.manifest().shard;
        let mut progress = RunProgress::new(options.accept, rows.count, &shard);
        let interrupt = &self.interrupt;
        let report = self.run.drive(
            name,
            rows.rows,
            &self.roles,
            options,
            recipe,
            admit,
            &mut |state| {
                if interrupt.requested() && options.stop.times() == 0 {
                    output::say("\nfinishing what is under way; once more stops now, and loses nothing either");
                    options.stop.request();
                }
                if interrupt.takes_snapshot_request() {
                    progress.snapshot(state);
                }
                progress.tell(state);
            },
        )?;
        progress.finish();
        self.totals.add(&report);
        Ok(report)
    }
}

impl Totals {
    fn add(&mut self, report: &Report) {
        for (stage, one) in &report.progress.stages {
            *self.stages.entry(stage.clone()).or_default() += *one;
        }
        self.elapsed += report.progress.elapsed;
    }
}

/// Drives the phases, with all models in memory or one after the other until no row waits.
/// Gives the report of the last phase and the totals of the last pass.
///
/// # Errors
/// A model that cannot be loaded, a log that cannot be written, an engine that stopped.
pub(super) fn drive(
    env: &mut Env,
    job: &Job<'_>,
    recipe: &dyn Recipe,
    (run, cast, loaded): (&Run, &Cast, Loaded),
) -> Result<(Report, Totals)> {
    let options = DriveOptions {
        concurrency: job.concurrency,
        accept: job.accept,
        max_rows: job.max_rows,
        stop: StopSignal::default(),
        part: Part::default(),
    };
    let interrupt = env.interrupt.clone();
    let _orderly = interrupt.orderly();
    let once = |sessions: &[Option<&Session>]| -> Result<(Report, Totals)> {
        let mut pass = Pass {
            run,
            roles: roles(recipe, cast, sessions, &run.manifest().models),
            options: options.clone(),
            interrupt: interrupt.clone(),
            totals: Totals::default(),
        };
        let report = recipe.drive(&mut pass)?;
        Ok((report, pass.totals))
    };
    let mut waiting = match loaded {
        Loaded::Together(sessions) => {
            let sessions: Vec<Option<&Session>> = sessions.iter().map(Some).collect();
            return once(&sessions);
        }
        Loaded::InTurns(first) => first,
    };
    output::say("the models do not fit in memory together: they take turns");
    let (mut index, mut last_parked) = (0, Vec::new());
    loop {
        let session = match waiting.take() {
            Some(session) => *session,
            None => cast.start_one(index, job.model, &mut env.config)?,
        };
        let mut sessions = vec![None; cast.len()];
        sessions[index] = Some(&session);
        let (report, totals) = once(&sessions)?;
        last_parked.push(report.parked);
        let turns = cast.len();
        let stuck = last_parked.len() > 2 * turns
            && last_parked[last_parked.len() - 1 - turns] == report.parked
            && totals.stages.values().all(|stage| stage.asked == 0);
        if report.parked == 0 || report.interrupted || stuck {
            return Ok((report, totals));
        }
        drop(session);
        index = (index + 1) % cast.len();
    }
}

/// Who answers whom with these models loaded. What is no role of the recipe is the first one's.
fn roles(
    recipe: &dyn Recipe,
    cast: &Cast,
    sessions: &[Option<&Session>],
    identities: &BTreeMap<String, String>,
) -> Roles {
    let target = |role: &str| {
        let part = cast.of(role);
        Target {
            generator: sessions[part.model()]
                .map(|session| Arc::clone(&session.engine) as Arc<dyn Generator>),
            identity: identities.get(role).cloned().unwrap_or_default(),
            adapter: part.adapter().map(str::to_owned),
        }
    };
    let names = recipe.facts().roles;
    let roles = Roles::new(target(names.first().copied().unwrap_or_default()));
    names
        .iter()
        .fold(roles, |roles, role| roles.with(role, target(role)))
}
