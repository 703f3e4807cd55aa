//! Shards put together.

use crate::call_log::CallLog;
use crate::driver::Admit;
use crate::error::PipelineError;
use crate::funnel::Funnel;
use crate::lock::Lock;
use crate::manifest::{Manifest, Shard};
use crate::run::export;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Merges the runs in `shards`, which have to be all N parts of one run, into the new folder
/// `out`: their logs, and the data of `phase` written as an unsharded run would have written
/// it.
///
/// # Errors
/// Parts that are missing, twice there, unfinished or made with different things; rows that
/// no part or more than one has.
pub fn merge(
    shards: &[PathBuf],
    out: &Path,
    phase: &str,
    files: &[&str],
    admit: &mut dyn Admit,
) -> Result<Funnel, PipelineError> {
    let manifest = whole_manifest(shards, phase)?;
    if out.join(crate::call_log::FILE).exists() {
        return Err(PipelineError::Merge(format!(
            "{} already holds a run; choose another folder",
            out.display()
        )));
    }
    fs::create_dir_all(out).map_err(PipelineError::io("make", out))?;
    let _lock = Lock::take(out)?;
    let log = CallLog::open(out)?;
    let mut rows = 0;
    for folder in shards {
        rows += log.absorb(&folder.join(crate::call_log::FILE), phase)?;
    }
    check_rows(&log, phase, rows, shards)?;
    log.begin_invocation(&manifest)?;
    let recipe = manifest.recipe_digest();
    export(&log, out, (phase, &recipe), files, None, admit)
}

/// The manifest of the run whose parts these are.
fn whole_manifest(shards: &[PathBuf], phase: &str) -> Result<Manifest, PipelineError> {
    let mut whole: Option<(Manifest, Option<String>)> = None;
    let mut parts = BTreeSet::new();
    for folder in shards {
        let log = CallLog::read(folder)?;
        let manifest = log.last_manifest()?.ok_or_else(|| PipelineError::NotARun {
            path: folder.clone(),
        })?;
        let shard = manifest.shard;
        if !parts.insert((shard.count(), shard.index())) {
            return Err(PipelineError::Merge(format!(
                "{} is part {shard}, as another folder is",
                folder.display()
            )));
        }
        let rows = log.fact(&crate::driver::source_rows_fact(phase))?;
        if rows.is_none() {
            return Err(PipelineError::Merge(format!(
                "{} has not reached the end of its source; run it to its end first",
                folder.display()
            )));
        }
        let manifest = Manifest {
            shard: Shard::ALL,
            ..manifest
        };
        match &whole {
            None => whole = Some((manifest, rows)),
            Some((first, first_rows)) => {
                let mut changes = manifest.changes_since(first);
                if rows != *first_rows {
                    changes.push(format!("{first_rows:?} rows (now {rows:?})"));
                }
                if !changes.is_empty() {
                    return Err(PipelineError::Merge(format!(
                        "{} was made with something else than {}: {}",
                        folder.display(),
                        shards[0].display(),
                        changes.join("; ")
                    )));
                }
            }
        }
    }
    let (whole, _) = whole.ok_or_else(|| PipelineError::Merge("no folders given".into()))?;
    let count = parts.first().map_or(1, |(count, _)| *count);
    let missing: Vec<String> = (0..count)
        .filter(|index| !parts.contains(&(count, *index)))
        .filter_map(|index| Shard::new(index, count))
        .map(|shard| shard.to_string())
        .collect();
    if !missing.is_empty() || parts.iter().any(|(other, _)| *other != count) {
        return Err(PipelineError::Merge(format!(
            "the folders are not all parts of one run; missing: {}",
            missing.join(", ")
        )));
    }
    Ok(whole)
}

/// Every row of the source is there once.
fn check_rows(
    log: &CallLog,
    phase: &str,
    absorbed: u64,
    shards: &[PathBuf],
) -> Result<(), PipelineError> {
    let fact = CallLog::read(&shards[0])?.fact(&crate::driver::source_rows_fact(phase))?;
    let expected: u64 = fact.and_then(|rows| rows.parse().ok()).unwrap_or(0);
    let there = log.positions(phase)?;
    if absorbed > there {
        return Err(PipelineError::Merge(format!(
            "{} rows are in more than one part",
            absorbed - there
        )));
    }
    if there != expected {
        return Err(PipelineError::Merge(format!(
            "{there} of {expected} rows are there; the parts have holes: continue them with the same commands"
        )));
    }
    log.set_fact(
        &crate::driver::source_rows_fact(phase),
        &expected.to_string(),
    )
}
