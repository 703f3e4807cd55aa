//! A model as it lies on disk or inside the program: a folder, a GGUF file, or the bytes of one.

use crate::weights::{RandomWeights, SafeTensorsFiles, WeightFiles};
use crate::{
    CandleLlama, ChatTemplate, GenerationConfig, GgufFile, Llama, LoadOptions, ModelConfig,
    ModelError, Tokenizer,
};
use std::path::{Path, PathBuf};

/// An opened model. Each part is read when asked for, so that a prompt can be rendered and
/// tokenised where there are no weights.
#[derive(Debug)]
pub struct ModelFiles {
    path: PathBuf,
    source: Source,
}

/// What the parts are read from.
#[derive(Debug)]
enum Source {
    Folder,
    Gguf(WeightFiles),
    /// No files at all: weights are made up.
    Random {
        name: String,
        config: Box<ModelConfig>,
    },
}

impl ModelFiles {
    /// Opens a model folder or a `.gguf` file.
    ///
    /// # Errors
    /// Not there or not readable; a file that is no GGUF.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        if path.is_dir() {
            return Ok(Self {
                path: path.into(),
                source: Source::Folder,
            });
        }
        Ok(Self::from_gguf(GgufFile::open(path)?))
    }

    /// Opens a GGUF file that is compiled into the program.
    ///
    /// # Errors
    /// As [`ModelFiles::open`].
    pub fn from_static(gguf: &'static [u8]) -> Result<Self, ModelError> {
        Ok(Self::from_gguf(GgufFile::from_static(gguf)?))
    }

    /// Takes an opened GGUF file.
    pub fn from_gguf(file: GgufFile) -> Self {
        Self {
            path: file.path().into(),
            source: Source::Gguf(WeightFiles::Gguf(file)),
        }
    }

    /// A model of these sizes with random weights: for measuring. It has no text side.
    pub fn random(name: &str, config: ModelConfig) -> Self {
        Self {
            path: format!("<random {name}>").into(),
            source: Source::Random {
                name: name.into(),
                config: Box::new(config),
            },
        }
    }

    /// The folder or file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn gguf(&self) -> Option<&GgufFile> {
        match &self.source {
            Source::Gguf(WeightFiles::Gguf(file)) => Some(file),
            _ => None,
        }
    }

    /// What the model is made of.
    ///
    /// # Errors
    /// A config that is missing, damaged, or asks for what this crate does not compute.
    pub fn config(&self) -> Result<ModelConfig, ModelError> {
        if let Some(file) = self.gguf() {
            return ModelConfig::from_gguf(file);
        }
        if let Source::Random { config, .. } = &self.source {
            return Ok((**config).clone());
        }
        let path = self.path.join("config.json");
        let text = std::fs::read_to_string(&path)
            .map_err(|source| ModelError::io(&path, "read", source))?;
        ModelConfig::from_hf_json(&path, &text)
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// A vocabulary that is missing, damaged or of a kind not known here.
    pub fn tokenizer(&self) -> Result<Tokenizer, ModelError> {
        match self.gguf() {
            Some(file) => Tokenizer::from_gguf(file),
            None => Tokenizer::from_folder(&self.path),
        }
    }

    /// The chat template, with the special tokens of this tokenizer.
    ///
    /// # Errors
    /// The model brings none, or one that does not compile.
    pub fn chat_template(&self, tokenizer: &Tokenizer) -> Result<ChatTemplate, ModelError> {
        match self.gguf() {
            Some(file) => ChatTemplate::from_gguf(file, tokenizer),
            None => ChatTemplate::from_folder(&self.path, tokenizer),
        }
    }

    /// What the model's makers recommend for generating; nothing for a GGUF file, which has no
    /// place for it.
    ///
    /// # Errors
    /// A `generation_config.json` that cannot be read.
    pub fn generation_config(&self) -> Result<GenerationConfig, ModelError> {
        match self.source {
            Source::Folder => GenerationConfig::from_folder(&self.path),
            Source::Gguf(_) | Source::Random { .. } => Ok(GenerationConfig::default()),
        }
    }

    /// Every token that ends a sequence, by the config or by `generation_config.json`.
    ///
    /// # Errors
    /// One of the two cannot be read.
    pub fn eos_token_ids(&self) -> Result<Vec<u32>, ModelError> {
        let mut ids = self.config()?.eos_token_ids;
        ids.extend(self.generation_config()?.eos_token_ids);
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    /// Loads the weights.
    ///
    /// # Errors
    /// A tensor that is missing, unused, of the wrong shape or type; a damaged file.
    pub fn load(&self, options: &LoadOptions) -> Result<Llama, ModelError> {
        let config = self.config()?;
        self.with_weights(options, |files| Llama::load(config, files, options))
    }

    /// Loads the weights onto a device of candle's.
    ///
    /// # Errors
    /// As [`ModelFiles::load`]; what candle cannot do there.
    pub fn load_with_candle(
        &self,
        device: &candle_core::Device,
        options: &LoadOptions,
    ) -> Result<CandleLlama, ModelError> {
        let config = self.config()?;
        self.with_weights(options, |files| {
            CandleLlama::load(device, config, files, options)
        })
    }

    /// Loads the weights onto a device.
    ///
    /// # Errors
    /// As [`ModelFiles::load`]; not enough memory there.
    #[cfg(feature = "device")]
    pub fn load_on(
        &self,
        device: &kernels::cuda::Device,
        options: crate::CudaOptions,
    ) -> Result<crate::CudaLlama, ModelError> {
        let decoder = self.load_decoder_on(device, &options.load)?;
        crate::CudaLlama::of(decoder, options)
    }

    /// Loads the weights onto a device, and nothing else.
    ///
    /// # Errors
    /// As [`ModelFiles::load_on`].
    #[cfg(feature = "device")]
    pub fn load_decoder_on(
        &self,
        device: &kernels::cuda::Device,
        options: &LoadOptions,
    ) -> Result<crate::CudaDecoder, ModelError> {
        let config = self.config()?;
        self.with_weights(options, |files| {
            crate::CudaDecoder::load(device, config, files, options)
        })
    }

    /// Lets `use_weights` see the tensors.
    fn with_weights<T>(
        &self,
        options: &LoadOptions,
        use_weights: impl FnOnce(&WeightFiles) -> Result<T, ModelError>,
    ) -> Result<T, ModelError> {
        match &self.source {
            Source::Gguf(files) => use_weights(files),
            Source::Folder => {
                let files = SafeTensorsFiles::open_folder(&self.path)?;
                use_weights(&WeightFiles::SafeTensors(files))
            }
            Source::Random { name, config } => {
                let weights = RandomWeights::new(name, config, options.weights)?;
                use_weights(&WeightFiles::Random(weights))
            }
        }
    }
}
