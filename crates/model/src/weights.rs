//! Tensors from files, one interface over safetensors and GGUF, strict both ways: each
//! tensor the model needs must be there with the right shape and type, and each tensor in
//! the files must be needed.
//!
//! A tensor is copied out of the mapped file (quantised on the way if asked to) and its pages
//! are given back at once, so loading needs little more memory than the loaded model.

mod convert;
mod names;
mod random;
mod safetensors;

pub(crate) use self::safetensors::{INDEX, SafeTensorsFiles, read_index};
use crate::{GgufFile, ModelConfig, ModelError};
use candle_core::Tensor;
pub(crate) use convert::widen_into;
use kernels::{Linear, WeightFormat};
pub use names::Projection;
pub(crate) use names::{Names, Norm, ROPE_DIVISORS};
pub(crate) use random::RandomWeights;
use std::cell::RefCell;
use std::collections::HashSet;
use std::path::Path;

/// What weight matrices become when a model is loaded. Matrices that a GGUF already stores
/// quantised stay as they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum LoadAs {
    /// The type in the file.
    #[default]
    Stored,
    /// f32: exact, and fast where f16 and bf16 are not, at twice their size.
    F32,
    /// 8.5 bits a weight.
    Q8_0,
    /// 4.5 bits a weight; the embedding and the output matrix, which hurt most when coarse,
    /// become Q8_0, as does a matrix whose rows are no multiple of 256 long.
    Q4K,
}

/// A tensor in its file.
#[derive(Debug)]
pub(crate) struct RawTensor<'a> {
    pub(crate) path: &'a Path,
    pub(crate) format: WeightFormat,
    /// Slowest axis first.
    pub(crate) shape: &'a [usize],
    /// Little-endian, exactly as long as shape and format say.
    pub(crate) bytes: &'a [u8],
}

/// The tensors of a model, wherever they lie.
#[derive(Debug)]
pub(crate) enum WeightFiles {
    SafeTensors(SafeTensorsFiles),
    Gguf(GgufFile),
    Random(RandomWeights),
}

impl RawTensor<'_> {
    /// The values widened to f32.
    ///
    /// # Errors
    /// They are stored in blocks.
    pub(crate) fn floats(&self, name: &str) -> Result<Vec<f32>, ModelError> {
        convert::widen(self.bytes, self.format).ok_or_else(|| {
            let (expected, got) = ("type F32, F16 or BF16", format!("{:?}", self.format));
            ModelError::field(self.path, name, expected, got)
        })
    }
}

impl WeightFiles {
    fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        match self {
            Self::SafeTensors(files) => Box::new(files.names()),
            Self::Gguf(file) => Box::new(file.tensors().keys().map(String::as_str)),
            Self::Random(weights) => Box::new(weights.names()),
        }
    }

    pub(crate) fn get(&self, name: &str) -> Result<RawTensor<'_>, ModelError> {
        match self {
            Self::SafeTensors(files) => files.get(name),
            Self::Random(weights) => weights.get(name),
            Self::Gguf(file) => {
                let info = file.tensor(name)?;
                file.dtype(info)?;
                let format = WeightFormat::from_ggml(info.dtype_id).ok_or_else(|| {
                    let expected = "a type for weights (this one is for activations)";
                    let got = format!("ggml type {}", info.dtype_id);
                    ModelError::field(file.path(), name, expected, got)
                })?;
                let bytes = file.tensor_bytes(info)?;
                Ok(RawTensor {
                    path: file.path(),
                    format,
                    shape: &info.shape,
                    bytes,
                })
            }
        }
    }

    /// Says that a tensor's bytes need not stay resident.
    pub(crate) fn release(&self, name: &str) {
        match self {
            Self::SafeTensors(files) => files.release(name),
            Self::Random(_) => {}
            Self::Gguf(file) => {
                if let Some(info) = file.tensors().get(name) {
                    file.release(info);
                }
            }
        }
    }
}

/// What a matrix is for: the finest format is kept for those that hurt most when coarse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Projection,
    Vocabulary,
}

/// Takes tensors out of the files and remembers which were taken.
pub(crate) struct Loader<'a> {
    files: &'a WeightFiles,
    load_as: LoadAs,
    taken: RefCell<HashSet<String>>,
}

impl<'a> Loader<'a> {
    pub(crate) fn new(files: &'a WeightFiles, load_as: LoadAs) -> Self {
        Self {
            files,
            load_as,
            taken: RefCell::default(),
        }
    }

    /// The tensor of this name and shape, as it is stored.
    pub(crate) fn take(&self, name: &str, shape: &[usize]) -> Result<RawTensor<'a>, ModelError> {
        let raw = self.files.get(name)?;
        if raw.shape != shape {
            let (expected, got) = (format!("shape {shape:?}"), format!("shape {:?}", raw.shape));
            return Err(ModelError::field(raw.path, name, expected, got));
        }
        self.taken.borrow_mut().insert(name.into());
        Ok(raw)
    }

    /// Whether the files have the tensor.
    pub(crate) fn has(&self, name: &str) -> bool {
        match self.files {
            WeightFiles::Gguf(file) => file.tensors().contains_key(name),
            files => files.names().any(|held| held == name),
        }
    }

    /// A vector (len) in f32: norm weights, biases, frequencies.
    pub(crate) fn vector(&self, name: &str, len: usize) -> Result<Tensor, ModelError> {
        let values = self.floats(name, len)?;
        Tensor::from_vec(values, len, &candle_core::Device::Cpu)
            .map_err(|source| ModelError::compute(name, source))
    }

    /// The same as plain numbers.
    pub(crate) fn floats(&self, name: &str, len: usize) -> Result<Vec<f32>, ModelError> {
        self.take(name, &[len])?.floats(name)
    }

    /// `{stem}.weight` (out, in), and `{stem}.bias` (out) where one is expected.
    pub(crate) fn linear(
        &self,
        stem: &str,
        (out, input): (usize, usize),
        bias: Bias,
        role: Role,
    ) -> Result<Linear, ModelError> {
        let name = format!("{stem}.weight");
        let raw = self.take(&name, &[out, input])?;
        let bias = match bias {
            Bias::None => None,
            Bias::Vector => Some(self.floats(&format!("{stem}.bias"), out)?),
        };
        let linear = convert::linear(&name, &raw, bias, (self.load_as, role))?;
        self.files.release(&name);
        Ok(linear)
    }

    /// Lets `use_bytes` have `{stem}.weight` (out, in) in the format it is to have in memory, as
    /// a file would hold it.
    pub(crate) fn encoded<T>(
        &self,
        stem: &str,
        (out, input): (usize, usize),
        role: Role,
        use_bytes: impl FnOnce(WeightFormat, &[u8]) -> Result<T, ModelError>,
    ) -> Result<T, ModelError> {
        let name = format!("{stem}.weight");
        let raw = self.take(&name, &[out, input])?;
        let (format, bytes) = convert::encoded(&name, &raw, (self.load_as, role))?;
        let used = use_bytes(format, &bytes)?;
        self.files.release(&name);
        Ok(used)
    }

    /// Ends loading: everything in the files must have been taken, but for what is known to
    /// be of no use. Where the embedding serves as the output matrix too, files may hold the
    /// latter all the same; the two must then be equal.
    pub(crate) fn finish(self, config: &ModelConfig, names: Names) -> Result<(), ModelError> {
        let taken = self.taken.into_inner();
        let weight = |stem: &str| format!("{stem}.weight");
        let (output, embedding) = (weight(names.output()), weight(names.embedding()));
        for name in self.files.names().filter(|name| !taken.contains(*name)) {
            if name.ends_with("rotary_emb.inv_freq") {
                continue; // derived from the config; old transformers saved it all the same
            }
            let raw = self.files.get(name)?;
            if config.tie_word_embeddings && output == name {
                let embedding = self.files.get(&embedding)?;
                if embedding.format == raw.format && embedding.bytes == raw.bytes {
                    self.files.release(name);
                    continue;
                }
                let (expected, got) = (
                    "the embedding's values, as tie_word_embeddings is set",
                    "other values",
                );
                return Err(ModelError::field(raw.path, name, expected, got));
            }
            let got = format!("{name} of shape {:?}", raw.shape);
            return Err(ModelError::field(
                raw.path,
                name,
                "no tensor of this name",
                got,
            ));
        }
        Ok(())
    }
}

/// Whether a projection adds a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bias {
    None,
    Vector,
}

impl Bias {
    pub(crate) fn when(present: bool) -> Self {
        if present { Self::Vector } else { Self::None }
    }
}
