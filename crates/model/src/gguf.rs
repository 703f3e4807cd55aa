//! GGUF files, versions 2 and 3, little-endian: metadata and where each tensor lies.
//!
//! Everything that the file says about itself is checked when it is opened, so that no
//! later step can run past its end. Knows no architecture: keys are strings here.
//!
//! Source: the GGUF specification in ggml's `docs/gguf.md`.

mod head;
mod reader;
mod value;

pub use head::GgufHead;
pub use value::{GgufArray, GgufValue};

use crate::ModelError;
use crate::file_bytes::FileBytes;
use candle_core::quantized::GgmlDType;
use indexmap::IndexMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Stands for the path of bytes that came from no file.
pub(crate) const EMBEDDED: &str = "<embedded>";

/// An opened GGUF file, or all parts of a split one.
#[derive(Debug)]
pub struct GgufFile {
    parts: Vec<Part>,
    metadata: IndexMap<String, GgufValue>,
    tensors: IndexMap<String, TensorInfo>,
}

#[derive(Debug)]
struct Part {
    path: PathBuf,
    bytes: FileBytes,
}

/// Where one tensor lies and how it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// The tensor's name.
    pub name: String,
    /// The ggml type id as the file has it; see [`GgufFile::dtype`].
    pub dtype_id: u32,
    /// Sizes, slowest axis first: a weight matrix is `(out, in)`. (The file stores them the
    /// other way round.)
    pub shape: Vec<usize>,
    /// Which file of a split model, from 0.
    part: usize,
    /// Bytes in that file; empty where the type is unknown.
    range: Range<usize>,
}

impl TensorInfo {
    /// Number of elements.
    pub fn elem_count(&self) -> usize {
        self.shape.iter().product() // cannot overflow: checked when the file was opened
    }

    /// Size of the stored data in bytes; 0 where the type is unknown.
    pub fn size_in_bytes(&self) -> usize {
        self.range.len()
    }
}

impl GgufFile {
    /// Maps a GGUF file, and the other parts if it is the first of a split model
    /// (`…-00001-of-0000N.gguf`).
    ///
    /// # Errors
    /// A file that cannot be opened, is truncated, contradicts itself or is not GGUF 2 or 3;
    /// a part that is missing.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ModelError> {
        let path = path.as_ref();
        let mut file = Self::parse(path.into(), FileBytes::map(path)?)?;
        let count = file.split_number("split.count")?.unwrap_or(1);
        if count <= 1 {
            return Ok(file);
        }
        for (part, part_path) in split_paths(path, count)?.enumerate().skip(1) {
            if !part_path.exists() {
                let expected = format!("part {} of {count} beside the first", part + 1);
                let field = format!("the file {}", part_path.display());
                return Err(ModelError::missing(path, field, expected));
            }
            file.append(Self::parse(part_path.clone(), FileBytes::map(&part_path)?)?)?;
        }
        file.check_split_total()?;
        Ok(file)
    }

    /// Reads a whole GGUF file that is compiled into the program.
    ///
    /// # Errors
    /// As [`GgufFile::open`].
    pub fn from_static(bytes: &'static [u8]) -> Result<Self, ModelError> {
        Self::parse(EMBEDDED.into(), FileBytes::Static(bytes))
    }

    /// Reads a whole GGUF file from memory.
    ///
    /// # Errors
    /// As [`GgufFile::open`].
    pub fn from_vec(bytes: Vec<u8>) -> Result<Self, ModelError> {
        Self::parse(EMBEDDED.into(), FileBytes::Owned(bytes))
    }

    fn parse(path: PathBuf, bytes: FileBytes) -> Result<Self, ModelError> {
        let (metadata, tensors) = reader::read(&path, bytes.as_slice())?;
        Ok(Self {
            parts: vec![Part { path, bytes }],
            metadata,
            tensors,
        })
    }

    /// The file, or the first file of a split model.
    pub fn path(&self) -> &Path {
        &self.parts[0].path
    }

    /// All files of the model in order.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.parts.iter().map(|part| part.path.as_path())
    }

    /// All metadata in file order.
    pub fn metadata(&self) -> &IndexMap<String, GgufValue> {
        &self.metadata
    }

    /// All tensors by name, in file order.
    pub fn tensors(&self) -> &IndexMap<String, TensorInfo> {
        &self.tensors
    }

    /// The tensor of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn tensor(&self, name: &str) -> Result<&TensorInfo, ModelError> {
        self.tensors
            .get(name)
            .ok_or_else(|| ModelError::missing(self.path(), name, "a tensor of this name"))
    }

    /// How the tensor is stored.
    ///
    /// # Errors
    /// A type that candle cannot compute with.
    pub fn dtype(&self, info: &TensorInfo) -> Result<GgmlDType, ModelError> {
        reader::dtype_of(info.dtype_id).ok_or_else(|| ModelError::TensorType {
            path: self.parts[info.part].path.clone(),
            tensor: info.name.clone(),
            id: info.dtype_id,
        })
    }

    /// The tensor's stored bytes, rows first, blocks along the last axis.
    ///
    /// # Errors
    /// A type that candle cannot compute with.
    pub fn tensor_bytes(&self, info: &TensorInfo) -> Result<&[u8], ModelError> {
        self.dtype(info)?;
        Ok(&self.parts[info.part].bytes.as_slice()[info.range.clone()])
    }

    /// Says that the tensor's bytes have been copied and need not stay resident; reading them
    /// again stays possible. A hint, for mapped files only.
    pub fn release(&self, info: &TensorInfo) {
        self.parts[info.part].bytes.release(info.range.clone());
    }

    /// Same as [`GgufFile::release`] for everything: header, vocabulary and all tensors.
    pub fn release_all(&self) {
        for part in &self.parts {
            part.bytes.release(0..part.bytes.as_slice().len());
        }
    }

    /// Adds the tensors of the next part.
    fn append(&mut self, next: Self) -> Result<(), ModelError> {
        let part = self.parts.len();
        let number = next.split_number("split.no")?;
        if number != Some(part) {
            let got = number.map_or("nothing".into(), |number| number.to_string());
            return Err(ModelError::field(
                next.path(),
                "split.no",
                part.to_string(),
                got,
            ));
        }
        for (name, mut info) in next.tensors {
            info.part = part;
            if self.tensors.insert(name.clone(), info).is_some() {
                let path = &next.parts[0].path;
                return Err(ModelError::field(
                    path,
                    name,
                    "each tensor once",
                    "a second one",
                ));
            }
        }
        self.parts.extend(next.parts);
        Ok(())
    }

    fn split_number(&self, key: &str) -> Result<Option<usize>, ModelError> {
        Ok(self.u32_opt(key)?.map(|number| number as usize))
    }

    fn check_split_total(&self) -> Result<(), ModelError> {
        let key = "split.tensors.count";
        let Some(expected) = self.split_number(key)? else {
            return Ok(());
        };
        let got = self.tensors.len();
        if expected == got {
            return Ok(());
        }
        let got = format!("{got} in all parts");
        Err(ModelError::field(
            self.path(),
            key,
            format!("{expected} tensors"),
            got,
        ))
    }
}

/// The files of a split model, given its first; made one by one, as `count` may lie.
fn split_paths(first: &Path, count: usize) -> Result<impl Iterator<Item = PathBuf>, ModelError> {
    let name = first
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let suffix = format!("-00001-of-{count:05}.gguf");
    let Some(stem) = name.strip_suffix(&suffix) else {
        let expected = format!("the first part, named …{suffix}");
        return Err(ModelError::field(first, "split.count", expected, name));
    };
    Ok((1..=count)
        .map(move |part| first.with_file_name(format!("{stem}-{part:05}-of-{count:05}.gguf"))))
}

#[cfg(test)]
mod tests;
