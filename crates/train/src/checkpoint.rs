//! The files of a run: what is trained, what the optimiser remembers, and where the run stands.
//!
//! A checkpoint is a folder `checkpoints/step-000120` that is written beside and renamed, so that
//! a name without `.tmp` always stands for a whole one. It holds the weights in the form in which
//! others read them too (PEFT's or transformers').

use crate::optimizer::Optimizer;
use crate::parameters::Parameters;
use crate::weights_file::WeightsForm;
use crate::{Network, Result, TrainError};
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

const FOLDER: &str = "checkpoints";
const OPTIMIZER: &str = "optimizer.safetensors";
const STATE: &str = "state.json";

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    /// Optimiser steps done.
    pub(crate) step: u64,
    /// Tokens read so far.
    pub(crate) tokens: u64,
    /// Bytes of `metrics.jsonl` at that time; what follows belongs to steps that were lost.
    pub(crate) metrics_bytes: u64,
    /// What must not change between runs, by name.
    pub(crate) identity: BTreeMap<String, String>,
}

/// Writes a checkpoint and removes all but the `keep` newest.
pub(crate) fn save(
    run: &Path,
    network: &Network,
    optimizer: &Optimizer,
    form: &WeightsForm,
    (state, keep): (&State, usize),
) -> Result<()> {
    let folder = run.join(FOLDER);
    let name = format!("step-{:06}", state.step);
    let (target, beside) = (folder.join(&name), folder.join(format!("{name}.tmp")));
    if target.exists() {
        return Ok(());
    }
    let write = || -> Result<()> {
        fs::create_dir_all(&folder).map_err(|e| TrainError::io(&folder, "create", e))?;
        if beside.exists() {
            fs::remove_dir_all(&beside).map_err(|e| TrainError::io(&beside, "remove", e))?;
        }
        fs::create_dir(&beside).map_err(|e| TrainError::io(&beside, "create", e))?;
        form.write(network, &beside)?;
        let moments = optimizer.snapshot(network.parameters());
        write_tensors(&beside.join(OPTIMIZER), &moments)?;
        let path = beside.join(STATE);
        let text = serde_json::to_string_pretty(state).expect("plain values");
        fs::write(&path, text).map_err(|e| TrainError::io(&path, "write", e))?;
        sync_folder(&beside)?;
        fs::rename(&beside, &target).map_err(|e| TrainError::io(&target, "write", e))?;
        sync(&folder)
    };
    if let Err(error) = write() {
        // Half a checkpoint on a full disk helps nobody; the error that led here matters.
        let _ = fs::remove_dir_all(&beside);
        return Err(error);
    }
    let mut all = list(run)?;
    while all.len() > keep.max(1) {
        let oldest = all.remove(0).1;
        fs::remove_dir_all(&oldest).map_err(|e| TrainError::io(&oldest, "remove", e))?;
    }
    Ok(())
}

/// The newest checkpoint of a run, if there is one.
pub(crate) fn latest(run: &Path) -> Result<Option<(PathBuf, State)>> {
    let Some((_, folder)) = list(run)?.pop() else {
        return Ok(None);
    };
    let path = folder.join(STATE);
    let text = fs::read_to_string(&path).map_err(|e| TrainError::io(&path, "read", e))?;
    let state = serde_json::from_str(&text)
        .map_err(|error| TrainError::file(&path, format!("{error}; remove this checkpoint")))?;
    Ok(Some((folder, state)))
}

/// Brings network and optimiser to where a checkpoint stands.
pub(crate) fn restore(
    folder: &Path,
    steps: u64,
    network: &mut Network,
    optimizer: &mut Optimizer,
    form: &WeightsForm,
) -> Result<()> {
    let damaged = |error: TrainError| match error {
        TrainError::Tensors { problem } => TrainError::file(folder, problem),
        other => other,
    };
    network
        .set_parameters(form.read(folder)?)
        .map_err(damaged)?;
    let moments = read_tensors(&folder.join(OPTIMIZER))?;
    let parameters: &Parameters = network.parameters();
    optimizer
        .restore(steps, moments, parameters)
        .map_err(damaged)
}

/// Step and folder of every whole checkpoint, oldest first.
fn list(run: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let folder = run.join(FOLDER);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
        Err(error) => return Err(TrainError::io(&folder, "read", error)),
    };
    let mut found = vec![];
    for entry in entries {
        let path = entry
            .map_err(|e| TrainError::io(&folder, "read", e))?
            .path();
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        let step = name.and_then(|name| name.strip_prefix("step-")?.parse().ok());
        found.extend(step.map(|step| (step, path)));
    }
    found.sort();
    Ok(found)
}

/// Writes tensors as safetensors.
pub(crate) fn write_tensors(path: &Path, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file(tensors, Some(metadata), path)
        .map_err(|error| TrainError::io(path, "write", std::io::Error::other(error.to_string())))
}

/// Reads all tensors of a safetensors file.
pub(crate) fn read_tensors(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    if !path.exists() {
        return Err(TrainError::file(path, "is missing; remove this checkpoint"));
    }
    let found = candle_core::safetensors::load(path, &Device::Cpu)
        .map_err(|error| TrainError::file(path, format!("{error}; remove this checkpoint")))?;
    Ok(found.into_iter().collect())
}

/// Makes sure that a folder's files are on the disk.
pub(crate) fn sync_folder(folder: &Path) -> Result<()> {
    let entries = fs::read_dir(folder).map_err(|e| TrainError::io(folder, "read", e))?;
    for entry in entries {
        sync(&entry.map_err(|e| TrainError::io(folder, "read", e))?.path())?;
    }
    sync(folder)
}

fn sync(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(|e| TrainError::io(path, "write", e))
}
