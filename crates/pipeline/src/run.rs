//! A run's folder: its lock, its log, and what is written from them.

use crate::call_log::{CallLog, Walk};
use crate::driver::{Admit, DriveOptions, Hooks, Part, Phase, Progress, Report, Sourced, drive};
use crate::error::PipelineError;
use crate::export::Writers;
use crate::funnel::Funnel;
use crate::llm::{Llm, Roles, StageUse, Stop};
use crate::lock::Lock;
use crate::manifest::{Manifest, OnChange, Shard};
use data::Outcome;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// An open run. One process holds it at a time.
#[derive(Debug)]
pub struct Run {
    folder: PathBuf,
    log: CallLog,
    manifest: Manifest,
    recipe: String,
    invocation: i64,
    changes: Vec<String>,
    /// Calls and tokens of the phases driven so far.
    used: RefCell<BTreeMap<String, StageUse>>,
    _lock: Lock,
}

impl Run {
    /// Opens the run in `folder`, made if there is none, for another invocation with
    /// `manifest`. Proves that the folder can be written.
    ///
    /// # Errors
    /// A folder that cannot be written or is in use; another model, seed, source, recipe or
    /// shard than the run was made with, unless allowed.
    pub fn open(
        folder: &Path,
        manifest: Manifest,
        on_change: OnChange,
    ) -> Result<Self, PipelineError> {
        let data = folder.join("data");
        fs::create_dir_all(&data).map_err(PipelineError::io("make", &data))?;
        let lock = Lock::take(folder)?;
        let log = CallLog::open(folder)?;
        let before = log.last_manifest()?;
        let changes = before
            .as_ref()
            .map(|before| manifest.changes_since(before))
            .unwrap_or_default();
        if let (Some(before), OnChange::Refuse) = (&before, on_change) {
            let breaking = manifest.breaking_changes(before);
            if !breaking.is_empty() {
                return Err(PipelineError::Changed {
                    path: folder.to_owned(),
                    changes: breaking,
                });
            }
        }
        let invocation = log.begin_invocation(&manifest)?;
        Ok(Self {
            folder: folder.to_owned(),
            log,
            recipe: manifest.recipe_digest(),
            manifest,
            invocation,
            changes,
            used: RefCell::default(),
            _lock: lock,
        })
    }

    /// What this invocation changes against the one before, in words.
    pub fn changes(&self) -> &[String] {
        &self.changes
    }

    /// The run's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What the run is made of.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Drives the rows of `source` through `recipe`: many at once, until the source ends, the
    /// options say that it is enough, or the run is stopped. A row that ended under the same
    /// recipe is not run again; all others replay the calls the log knows. `Ok(())` of the
    /// recipe accepts the row.
    ///
    /// # Errors
    /// A log that cannot be written, an engine that stopped. Nothing logged is lost.
    #[expect(
        clippy::too_many_arguments,
        reason = "a phase is a name, rows, models, limits, a recipe and two listeners"
    )]
    pub fn drive<T, R>(
        &self,
        phase: &str,
        source: impl Iterator<Item = Sourced<T>>,
        roles: &Roles,
        options: &DriveOptions,
        recipe: &R,
        admit: &mut dyn Admit,
        observe: &mut dyn FnMut(&Progress),
    ) -> Result<Report, PipelineError>
    where
        R: AsyncFn(&T, &Llm<'_>) -> Result<(), Stop>,
    {
        let used_before = self.used.borrow().clone();
        let phase = Phase {
            name: phase,
            log: &self.log,
            invocation: self.invocation,
            recipe: &self.recipe,
            shard: match options.part {
                Part::Shard => self.manifest.shard,
                Part::Whole => Shard::ALL,
            },
            run_seed: self.manifest.seed,
            used_before: &used_before,
        };
        let report = drive(
            &phase,
            source,
            roles,
            options,
            recipe,
            Hooks { admit, observe },
        )?;
        let mut used = self.used.borrow_mut();
        for (stage, one) in &report.progress.stages {
            *used.entry(stage.clone()).or_default() += *one;
        }
        Ok(report)
    }

    /// Writes the files of the data from the rows of `phase` that ended under this recipe, in
    /// source order: each record
    /// into its file, every rejected row into `rejected.jsonl`. Of the files named in `files`
    /// each is there afterwards, even if empty. Files are written beside and renamed.
    ///
    /// `admit` is folded over the rows from the beginning; with `accept`, rows past the last
    /// one needed are left out.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn export(
        &self,
        phase: &str,
        files: &[&str],
        accept: Option<u64>,
        admit: &mut dyn Admit,
    ) -> Result<Funnel, PipelineError> {
        let rows = (phase, self.recipe.as_str());
        export(&self.log, &self.folder, rows, files, accept, admit)
    }

    /// Hands out the rows of `phase` that ended under this recipe, in source order and as
    /// `admit` leaves them: the pool that a later phase draws from. Whole only if the report
    /// of the phase was.
    ///
    /// # Errors
    /// A log that cannot be read.
    pub fn outcomes(
        &self,
        phase: &str,
        admit: &mut dyn Admit,
        visit: &mut dyn FnMut(&str, Outcome),
    ) -> Result<(), PipelineError> {
        self.log.each_row((phase, &self.recipe), |mut row| {
            if row.outcome.is_accepted() {
                admit.admit(&row.id, &mut row.outcome);
            }
            visit(&row.id, row.outcome);
            Ok(Walk::On)
        })
    }
}

pub(crate) fn export(
    log: &CallLog,
    folder: &Path,
    rows: (&str, &str),
    files: &[&str],
    accept: Option<u64>,
    admit: &mut dyn Admit,
) -> Result<Funnel, PipelineError> {
    let mut writers = Writers::open(folder.join("data"), files)?;
    let mut funnel = Funnel::default();
    if accept != Some(0) {
        log.each_row(rows, |mut row| {
            if row.outcome.is_accepted() {
                admit.admit(&row.id, &mut row.outcome);
            }
            funnel.count(&row.outcome.verdict);
            for (name, amount) in &row.outcome.counts {
                *funnel.counts.entry(name.clone()).or_default() += amount;
            }
            writers.write(&row)?;
            let enough = accept.is_some_and(|accept| funnel.accepted >= accept);
            Ok(if enough { Walk::Stop } else { Walk::On })
        })?;
    }
    writers.finish()?;
    funnel.assert_sum();
    Ok(funnel)
}
