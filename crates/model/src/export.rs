//! A model folder becomes one GGUF file, which this crate, llama.cpp and the `gguf` package read.
//!
//! Everything is checked and laid out first; then the tensors are encoded a
//! few rows at a time, so that memory does not grow with the model. The file appears under its
//! name when it is whole.

mod file;
mod metadata;
mod tensors;

use crate::tokenizer::GgufVocabularyEntries;
use crate::weights::{SafeTensorsFiles, WeightFiles};
use crate::{Adapter, GgufHead, ModelError, ModelFiles};
use file::Output;
use kernels::RopeLayout;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use tensors::Tensors;

/// What the matrices of a GGUF file are stored as. Norms and biases are f32 in all of them.
///
/// How far a value w of a block may be from what is stored, with m the largest magnitude in the
/// block: `F16` 2^-11 |w|, `Bf16` 2^-8 |w|, `Q8_0` m (1/254 + 2^-11), blocks of 32; `Q4_0`
/// m (1/8 + 2^-11), blocks of 32. The k-quants fit their scales by least squares: on normally distributed
/// weights the root mean square of the error is below 0.02 (`Q6K`) and 0.09 (`Q4K`) of that of
/// the weights.
///
/// With `Q4_0`, `Q4K` and `Q6K` the matrix that gives the logits becomes q6_k, as llama.cpp has
/// it. Rows that are no whole blocks become q8_0, or f16 where they are no multiple of 32.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum GgufWeights {
    /// What each is stored as in the folder.
    #[default]
    Stored,
    /// 32 bits.
    F32,
    /// IEEE half.
    F16,
    /// The upper half of an f32.
    Bf16,
    /// 8.5 bits a weight.
    Q8_0,
    /// 6.6 bits a weight.
    Q6K,
    /// 4.5 bits a weight, scales and minima per 32.
    Q4K,
    /// 4.5 bits a weight, a scale per 32.
    Q4_0,
}

/// A folder to be written as a GGUF file.
#[derive(Debug, Clone, Copy)]
pub struct GgufExport<'a> {
    /// `config.json`, safetensors, `tokenizer.json`, and whatever else is there.
    pub folder: &'a Path,
    /// An adapter in PEFT's layout that is added to the weights on the way, in f32.
    pub adapter: Option<&'a Path>,
    /// What matrices become.
    pub weights: GgufWeights,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GgufReport {
    /// Tensors in the file.
    pub tensors: usize,
    /// Bytes of the file.
    pub bytes: u64,
    /// Matrices by the name of their type.
    pub matrices: BTreeMap<&'static str, usize>,
    /// Matrices that an adapter was added to.
    pub merged: usize,
    /// What the file does not say although the folder does, and matrices that could not have the
    /// type asked for; sentences for the user.
    pub notes: Vec<String>,
}

impl GgufExport<'_> {
    /// Writes the file. `progress` is told the bytes of weights written and their total; if it
    /// breaks, the result is `None` and nothing is left behind.
    ///
    /// # Errors
    /// A folder that this crate could not load, or that a GGUF cannot hold (an unknown
    /// pre-tokenizer, windows on some layers); an adapter that does not fit; an output that
    /// exists or cannot be written. Nothing is left behind.
    pub fn write(
        &self,
        output: &Path,
        progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<Option<GgufReport>, ModelError> {
        if !self.folder.is_dir() {
            let expected = "a folder with config.json and safetensors";
            return Err(ModelError::field(
                self.folder,
                "the model",
                expected,
                "a file",
            ));
        }
        let files = ModelFiles::open(self.folder)?;
        let config = files.config()?;
        let tokenizer = files.tokenizer()?;
        let mut eos = tokenizer.eos_ids().to_vec();
        eos.extend(files.eos_token_ids()?);
        eos.dedup();
        let vocabulary =
            GgufVocabularyEntries::of(self.folder, &tokenizer, config.vocab_size, &eos)?;
        let adapter = match self.adapter {
            Some(folder) => Some(Adapter::load(folder, &config, RopeLayout::Halves)?),
            None => None,
        };
        let weights = WeightFiles::SafeTensors(SafeTensorsFiles::open_folder(self.folder)?);
        let tensors = Tensors::plan(&weights, &config, adapter.as_ref(), self.weights)?;
        let mut head = GgufHead::default();
        metadata::describe(&mut head, self.folder, &config, tensors.file_type())?;
        for (key, value) in vocabulary.entries {
            head.set(key, value);
        }
        let mut notes = vocabulary.notes;
        notes.extend(metadata::chat_templates(&mut head, &files, &tokenizer)?);
        notes.extend(tensors.note());
        tensors.describe(&mut head);
        let mut out = Output::create(output)?;
        out.write(&head.encode())?;
        if tensors.write(&mut out, progress)?.is_break() {
            return Ok(None);
        }
        Ok(Some(GgufReport {
            tensors: tensors.len(),
            bytes: out.finish()?,
            matrices: tensors.matrices(),
            merged: tensors.merged(),
            notes,
        }))
    }
}
