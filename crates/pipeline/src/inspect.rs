//! What a run's log tells, also while the run is going on.

use crate::call_log::CallLog;
use crate::error::PipelineError;
use crate::funnel::Funnel;
use crate::manifest::Manifest;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// Calls of one stage in the log.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct StageStatus {
    /// Who was asked.
    pub role: String,
    /// Calls.
    pub calls: u64,
    /// Prompt tokens.
    pub prompt_tokens: u64,
    /// Of these, tokens found in the KV cache.
    pub cached_tokens: u64,
    /// Tokens written.
    pub completion_tokens: u64,
    /// Mean time of a call in milliseconds, waiting included.
    pub mean_ms: f64,
}

/// Where a run stands.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// What the last invocation was made of.
    pub manifest: Manifest,
    /// How often the run was started.
    pub invocations: u64,
    /// Rows of each phase by how they ended, before rows are removed in order.
    pub phases: BTreeMap<String, Funnel>,
    /// Rows of the source, by phase, where its end was reached.
    pub source_rows: BTreeMap<String, u64>,
    /// Calls by stage.
    pub stages: BTreeMap<String, StageStatus>,
}

/// One invocation of a run.
#[derive(Debug, Clone, Serialize)]
pub struct InvocationUse {
    /// Which, from 1.
    pub invocation: i64,
    /// What was not as in the one before.
    pub changes: Vec<String>,
    /// Calls a model answered, by stage.
    pub asked: BTreeMap<String, u64>,
    /// Calls the log answered, by stage.
    pub reused: BTreeMap<String, u64>,
}

/// Why calls were or were not reused.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// Every invocation, the first first.
    pub invocations: Vec<InvocationUse>,
}

/// Where the run in `folder` stands.
///
/// # Errors
/// No run there, or a log that cannot be read.
pub fn status(folder: &Path) -> Result<Status, PipelineError> {
    let log = CallLog::read(folder)?;
    let manifests = log.manifests()?;
    let manifest = manifests
        .last()
        .map(|(_, manifest)| manifest.clone())
        .ok_or_else(|| PipelineError::NotARun {
            path: folder.to_owned(),
        })?;
    let mut phases: BTreeMap<String, Funnel> = BTreeMap::new();
    for (phase, rejection, rows) in log.row_counts()? {
        let funnel = phases.entry(phase).or_default();
        funnel.read += rows;
        match rejection {
            None => funnel.accepted += rows,
            Some((stage, reason)) => {
                let reasons = funnel.rejected.entry(stage).or_default();
                *reasons.entry(reason).or_default() += rows;
            }
        }
    }
    let mut source_rows = BTreeMap::new();
    for phase in phases.keys() {
        let fact = log.fact(&crate::driver::source_rows_fact(phase))?;
        if let Some(rows) = fact.and_then(|rows| rows.parse().ok()) {
            source_rows.insert(phase.clone(), rows);
        }
    }
    Ok(Status {
        manifest,
        invocations: manifests.len() as u64,
        phases,
        source_rows,
        stages: log.stages()?,
    })
}

/// What each invocation of the run in `folder` changed, asked and reused.
///
/// # Errors
/// No run there, or a log that cannot be read.
pub fn explain(folder: &Path) -> Result<Explanation, PipelineError> {
    let log = CallLog::read(folder)?;
    let uses = log.uses()?;
    let mut invocations: Vec<InvocationUse> = Vec::new();
    let mut before: Option<Manifest> = None;
    for (id, manifest) in log.manifests()? {
        let mut one = InvocationUse {
            invocation: id,
            changes: before
                .as_ref()
                .map(|before| manifest.changes_since(before))
                .unwrap_or_default(),
            asked: BTreeMap::new(),
            reused: BTreeMap::new(),
        };
        for (_, stage, asked, reused) in uses.iter().filter(|(invocation, ..)| *invocation == id) {
            one.asked.insert(stage.clone(), *asked);
            one.reused.insert(stage.clone(), *reused);
        }
        before = Some(manifest);
        invocations.push(one);
    }
    Ok(Explanation { invocations })
}
