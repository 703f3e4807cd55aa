//! Trained weights as files: an adapter as PEFT has it, a whole model as transformers has it.

use crate::checkpoint::{read_tensors, write_tensors};
use crate::{Network, Result, TrainError};
use candle_core::{DType, Tensor};
use model::{AdapterCard, AdapterFit};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const MODEL: &str = "model.safetensors";

/// In which form weights are written and read.
#[derive(Debug, Clone)]
pub enum WeightsForm {
    /// `adapter_config.json` and `adapter_model.safetensors`, f32.
    Adapter {
        /// What the base makes of adapters.
        fit: Box<AdapterFit>,
        /// What the config says.
        card: AdapterCard,
    },
    /// `model.safetensors`, with the files that make it a model.
    Model {
        /// Files to copy beside it: configuration, tokenizer, chat template.
        companions: Vec<PathBuf>,
    },
}

/// Files of a model folder that describe it; weights are not among them.
const COMPANIONS: [&str; 10] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
];

/// Those of a folder that are there.
pub fn companions(folder: &Path) -> Vec<PathBuf> {
    let paths = COMPANIONS.iter().map(|name| folder.join(name));
    paths.filter(|path| path.is_file()).collect()
}

impl WeightsForm {
    /// Writes what is trained to an existing folder.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, network: &Network, folder: &Path) -> Result<()> {
        match self {
            Self::Adapter { fit, card } => {
                let adapter = network.adapter()?.ok_or_else(|| TrainError::Tensors {
                    problem: "the network has no adapter".into(),
                })?;
                Ok(adapter.save(folder, fit, card)?)
            }
            Self::Model { companions } => {
                let values = network.parameters().iter();
                let values = values.map(|one| (one.name.clone(), one.value.clone()));
                write_tensors(&folder.join(MODEL), &values.collect())?;
                for path in companions {
                    let name = path.file_name().expect("a file has a name");
                    fs::copy(path, folder.join(name))
                        .map_err(|error| TrainError::io(path, "copy", error))?;
                }
                Ok(())
            }
        }
    }

    /// What [`WeightsForm::write`] wrote, by the names of the parameters.
    ///
    /// # Errors
    /// A file that is missing or damaged.
    pub(crate) fn read(&self, folder: &Path) -> Result<BTreeMap<String, Tensor>> {
        match self {
            Self::Adapter { fit, .. } => {
                let adapter = fit.load(folder)?;
                let mut found = BTreeMap::new();
                for part in adapter.parts() {
                    let stem = format!("model.layers.{}.{}", part.layer, part.projection.module());
                    found.insert(format!("{stem}.lora_A.weight"), part.a);
                    found.insert(format!("{stem}.lora_B.weight"), part.b);
                }
                Ok(found)
            }
            Self::Model { .. } => {
                let path = folder.join(MODEL);
                let found = read_tensors(&path)?;
                match found
                    .iter()
                    .find(|(_, tensor)| tensor.dtype() != DType::F32)
                {
                    Some((name, tensor)) => {
                        let problem = format!("{name} holds {:?}, expected F32", tensor.dtype());
                        Err(TrainError::file(&path, problem))
                    }
                    None => Ok(found),
                }
            }
        }
    }
}
