//! An adapter added to the weights it was trained beside: a model of its own.
//!
//! Weights are read, added to in f32, rounded once to the type they had, and written file by
//! file, so that one file's tensors are in memory at a time.

use crate::checkpoint::write_tensors;
use crate::{Result, TrainError, companions};
use candle_core::{DType, Device};
use model::{Decoder, Projection};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What [`merge`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    /// Matrices that were added to.
    pub matrices: usize,
    /// Tensors that were copied as they are.
    pub copied: usize,
    /// Files of weights.
    pub files: usize,
}

/// Adds the adapter in `adapter` to the model folder `base` (safetensors), whose weights
/// `decoder` was loaded from, and writes a model folder to `output`, which must be new or empty.
///
/// # Errors
/// A base that is no folder of safetensors, an adapter of another base, an output that is in
/// use, a file that cannot be read or written.
pub fn merge(decoder: &Decoder, base: &Path, adapter: &Path, output: &Path) -> Result<Merged> {
    let files = weight_files(base)?;
    let in_use = fs::read_dir(output).is_ok_and(|mut entries| entries.next().is_some());
    if in_use {
        return Err(TrainError::file(output, "is not empty; give a new folder"));
    }
    let mut deltas = BTreeMap::new();
    for part in decoder.load_adapter(adapter)?.parts() {
        let module = part.projection.module();
        let name = format!("model.layers.{}.{module}.weight", part.layer);
        deltas.insert(name, (part.a, part.b, f64::from(part.scale)));
    }
    fs::create_dir_all(output).map_err(|e| TrainError::io(output, "create", e))?;
    let mut done = Merged {
        matrices: 0,
        copied: 0,
        files: files.len(),
    };
    for file in &files {
        let tensors = candle_core::safetensors::load(file, &Device::Cpu)?;
        let mut merged = BTreeMap::new();
        for (name, tensor) in tensors {
            let tensor = match deltas.remove(&name) {
                Some((a, b, scale)) => {
                    done.matrices += 1;
                    let wide = tensor.to_dtype(DType::F32)?;
                    let delta = (b.matmul(&a)? * scale)?;
                    (wide + delta)?.to_dtype(tensor.dtype())?
                }
                None => {
                    done.copied += 1;
                    tensor
                }
            };
            merged.insert(name, tensor);
        }
        let name = file.file_name().expect("a file has a name");
        write_tensors(&output.join(name), &merged)?;
    }
    if let Some(name) = deltas.keys().next() {
        let projections = Projection::ALL.map(Projection::module).join(", ");
        let problem = format!("{name} is not in the weights (adapters are for {projections})");
        return Err(TrainError::file(base, problem));
    }
    let index = base.join("model.safetensors.index.json");
    for path in companions(base)
        .into_iter()
        .chain(index.is_file().then_some(index))
    {
        let target = output.join(path.file_name().expect("a file has a name"));
        fs::copy(&path, &target).map_err(|e| TrainError::io(&path, "copy", e))?;
    }
    Ok(done)
}

/// Files of weights of a model folder.
fn weight_files(base: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(base).map_err(|error| match base.is_file() {
        true => TrainError::file(
            base,
            "an adapter can only be merged into a folder of safetensors; generate with the adapter beside this file instead",
        ),
        false => TrainError::io(base, "read", error),
    })?;
    let mut files = vec![];
    for entry in entries {
        let path = entry.map_err(|e| TrainError::io(base, "read", e))?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if name.starts_with("model") && name.ends_with(".safetensors") {
            files.push(path);
        }
    }
    files.sort();
    match files.is_empty() {
        true => Err(TrainError::file(base, "holds no model*.safetensors")),
        false => Ok(files),
    }
}
