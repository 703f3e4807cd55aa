//! Safetensors files: one, or several named by `model.safetensors.index.json`.

use super::RawTensor;
use crate::ModelError;
use crate::file_bytes::FileBytes;
use indexmap::IndexMap;
use kernels::WeightFormat;
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

const SINGLE: &str = "model.safetensors";
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// The tensors of a model folder, or of one file, by name.
#[derive(Debug)]
pub(crate) struct SafeTensorsFiles {
    /// What messages about the whole call it by: the index, or the one file.
    path: PathBuf,
    files: Vec<(PathBuf, FileBytes)>,
    entries: IndexMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    range: Range<usize>,
}

impl SafeTensorsFiles {
    /// Maps the weights of a model folder: `model.safetensors`, else the files of the index.
    ///
    /// # Errors
    /// Neither is there; a file is missing, truncated or damaged; index and files disagree.
    pub(crate) fn open_folder(folder: &Path) -> Result<Self, ModelError> {
        let (single, index) = (folder.join(SINGLE), folder.join(INDEX));
        if single.exists() {
            return Self::open_file(&single);
        }
        if index.exists() {
            return Self::open_index(folder, &index);
        }
        let other = [
            "pytorch_model.bin",
            "pytorch_model.bin.index.json",
            "consolidated.00.pth",
        ]
        .into_iter()
        .find(|name| folder.join(name).exists());
        let expected = match other {
            Some(name) => {
                format!("{SINGLE} or {INDEX} ({name} is pickled and not read: convert it)")
            }
            None => format!("{SINGLE} or {INDEX}"),
        };
        Err(ModelError::missing(folder, "the weights file", expected))
    }

    /// Maps one safetensors file.
    ///
    /// # Errors
    /// Missing, truncated or damaged.
    pub(crate) fn open_file(path: &Path) -> Result<Self, ModelError> {
        let mut files = Self {
            path: path.into(),
            files: Vec::new(),
            entries: IndexMap::new(),
        };
        files.add(path)?;
        Ok(files)
    }

    fn open_index(folder: &Path, index: &Path) -> Result<Self, ModelError> {
        let weight_map = read_index(index)?;
        let mut files = Self {
            path: index.into(),
            files: Vec::new(),
            entries: IndexMap::new(),
        };
        let mut shards: Vec<&String> = weight_map.values().collect();
        shards.sort();
        shards.dedup();
        for shard in shards {
            let path = folder.join(shard);
            if !path.exists() {
                let held = weight_map.values().filter(|name| *name == shard).count();
                let expected = format!("{held} tensors in it");
                return Err(ModelError::missing(
                    index,
                    format!("the file {shard}"),
                    expected,
                ));
            }
            files.add(&path)?;
        }
        for (name, shard) in &weight_map {
            let found = files
                .entries
                .get(name)
                .map(|entry| &files.files[entry.file].0);
            if found != Some(&folder.join(shard)) {
                return Err(ModelError::missing(
                    &folder.join(shard),
                    name,
                    "as the index says",
                ));
            }
        }
        if let Some((name, entry)) = files
            .entries
            .iter()
            .find(|(name, _)| !weight_map.contains_key(*name))
        {
            let path = &files.files[entry.file].0;
            return Err(ModelError::field(
                path,
                name,
                "only tensors that the index lists",
                "it",
            ));
        }
        Ok(files)
    }

    fn add(&mut self, path: &Path) -> Result<(), ModelError> {
        let bytes = FileBytes::map(path)?;
        let slice = bytes.as_slice();
        let (header, metadata) = SafeTensors::read_metadata(slice).map_err(|error| {
            ModelError::field(
                path,
                "the header",
                "lengths, names, shapes and offsets that fit the file",
                format!(
                    "{error} (the file has {} bytes; truncated or damaged?)",
                    slice.len()
                ),
            )
        })?;
        let data = header + size_of::<u64>();
        let file = self.files.len();
        for name in metadata.offset_keys() {
            let info = metadata
                .info(&name)
                .expect("the name came from this header");
            let (start, end) = info.data_offsets;
            let range = data + start..data + end;
            let entry = Entry {
                file,
                dtype: info.dtype,
                shape: info.shape.clone(),
                range,
            };
            if self.entries.contains_key(&name) {
                return Err(ModelError::field(
                    path,
                    name,
                    "each tensor once",
                    "a second one",
                ));
            }
            self.entries.insert(name, entry);
        }
        self.files.push((path.into(), bytes));
        Ok(())
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    pub(crate) fn get(&self, name: &str) -> Result<RawTensor<'_>, ModelError> {
        let entry = self
            .entries
            .get(name)
            .ok_or_else(|| ModelError::missing(&self.path, name, "a tensor of this name"))?;
        let (path, bytes) = &self.files[entry.file];
        let format = match entry.dtype {
            Dtype::F32 => WeightFormat::F32,
            Dtype::F16 => WeightFormat::F16,
            Dtype::BF16 => WeightFormat::BF16,
            other => {
                let got = format!("{other:?}");
                return Err(ModelError::field(path, name, "type F32, F16 or BF16", got));
            }
        };
        let bytes = &bytes.as_slice()[entry.range.clone()];
        Ok(RawTensor {
            path,
            format,
            shape: &entry.shape,
            bytes,
        })
    }

    pub(crate) fn release(&self, name: &str) {
        if let Some(entry) = self.entries.get(name) {
            self.files[entry.file].1.release(entry.range.clone());
        }
    }
}

/// Tensor name to file name.
///
/// # Errors
/// Not readable, not JSON, no `weight_map`, or a file name that leaves the folder.
pub(crate) fn read_index(path: &Path) -> Result<BTreeMap<String, String>, ModelError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| ModelError::io(path, "read", source))?;
    let value: serde_json::Value =
        serde_json::from_str(&text).map_err(|source| ModelError::Json {
            path: path.into(),
            source,
        })?;
    let map = value
        .get("weight_map")
        .and_then(|map| map.as_object())
        .ok_or_else(|| ModelError::missing(path, "weight_map", "an object"))?;
    map.iter()
        .map(|(name, file)| {
            let file = file.as_str().filter(|file| {
                Path::new(file)
                    .file_name()
                    .is_some_and(|last| last == *file)
            });
            let wrong = || {
                ModelError::field(
                    path,
                    format!("weight_map.{name}"),
                    "a file name",
                    map[name].to_string(),
                )
            };
            Ok((name.clone(), file.ok_or_else(wrong)?.to_owned()))
        })
        .collect()
}
