//! A model as it lies on disk or inside the program: a folder, a GGUF file, or the bytes of one.

use crate::weights::{SafeTensorsFiles, WeightFiles};
use crate::{GgufFile, Llama, LoadOptions, ModelConfig, ModelError};
use std::path::{Path, PathBuf};

/// An opened model: its config is read and checked, its weights are mapped but not yet loaded.
#[derive(Debug)]
pub struct ModelFiles {
    path: PathBuf,
    config: ModelConfig,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// The weights are opened when loaded: config, tokenizer and template serve without them.
    Folder,
    Gguf(WeightFiles),
}

impl ModelFiles {
    /// Opens a folder with `config.json`, or a `.gguf` file.
    ///
    /// # Errors
    /// Not there, not readable, or a config that this crate cannot compute.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        if !path.is_dir() {
            return Self::from_gguf(GgufFile::open(path)?);
        }
        let file = path.join("config.json");
        let text = std::fs::read_to_string(&file)
            .map_err(|source| ModelError::io(&file, "read", source))?;
        let config = ModelConfig::from_hf_json(&file, &text)?;
        Ok(Self { path: path.into(), config, source: Source::Folder })
    }

    /// Opens a GGUF file that is compiled into the program.
    ///
    /// # Errors
    /// As [`ModelFiles::open`].
    pub fn from_static(gguf: &'static [u8]) -> Result<Self, ModelError> {
        Self::from_gguf(GgufFile::from_static(gguf)?)
    }

    /// Takes an opened GGUF file.
    ///
    /// # Errors
    /// A config that this crate cannot compute.
    pub fn from_gguf(file: GgufFile) -> Result<Self, ModelError> {
        let config = ModelConfig::from_gguf(&file)?;
        let path = file.path().into();
        Ok(Self { path, config, source: Source::Gguf(WeightFiles::Gguf(file)) })
    }

    /// The folder or file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the model is made of.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Loads the weights.
    ///
    /// # Errors
    /// A tensor that is missing, unused, of the wrong shape or type; a damaged file.
    pub fn load(&self, options: &LoadOptions) -> Result<Llama, ModelError> {
        match &self.source {
            Source::Gguf(files) => Llama::load(self.config.clone(), files, options),
            Source::Folder => {
                let files = WeightFiles::SafeTensors(SafeTensorsFiles::open_folder(&self.path)?);
                Llama::load(self.config.clone(), &files, options)
            }
        }
    }
}
