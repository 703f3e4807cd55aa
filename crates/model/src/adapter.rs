//! LoRA adapters in PEFT's layout: a folder with `adapter_config.json` and
//! `adapter_model.safetensors`. They are applied unmerged, row by row, so that rows with
//! different adapters and rows with none share a batch.

mod config;

use crate::batch::AdapterId;
use crate::weights::{Projection, SafeTensorsFiles};
use crate::{ModelConfig, ModelError};
use candle_core::{Device, Tensor};
use config::AdapterConfig;
use kernels::{LoraWeights, lora_add};
use std::collections::BTreeMap;
use std::path::Path;

const WEIGHTS: &str = "adapter_model.safetensors";
/// PEFT wraps the model twice before its own module path begins.
const PREFIX: &str = "base_model.model.";

/// A loaded adapter that fits one model.
#[derive(Debug)]
pub struct Adapter {
    layers: Vec<[Option<Share>; Projection::ALL.len()]>,
}

/// What is added to one matrix: y += scale * B (A x).
#[derive(Debug)]
struct Share {
    /// (r, in)
    a: Tensor,
    /// (out, r)
    b: Tensor,
    scale: f32,
}

impl Adapter {
    /// Reads a folder and checks every key and shape against the model.
    ///
    /// # Errors
    /// A file missing or damaged, a setting that is not supported, a tensor missing, unknown
    /// or of the wrong shape.
    pub(crate) fn load(folder: &Path, model: &ModelConfig) -> Result<Self, ModelError> {
        let config = AdapterConfig::read(folder)?;
        let path = folder.join(WEIGHTS);
        if !path.exists() {
            return Err(ModelError::missing(
                folder,
                WEIGHTS,
                "the adapter's weights",
            ));
        }
        let files = SafeTensorsFiles::open_file(&path)?;
        let mut left: BTreeMap<&str, ()> = files.names().map(|name| (name, ())).collect();
        let mut layers = Vec::with_capacity(model.num_layers);
        for layer in 0..model.num_layers {
            let mut shares = [const { None }; Projection::ALL.len()];
            for projection in Projection::ALL {
                let module = format!("model.layers.{layer}.{}", projection.module());
                let names =
                    ["lora_A", "lora_B"].map(|part| format!("{PREFIX}{module}.{part}.weight"));
                let held = names
                    .each_ref()
                    .map(|name| left.remove(name.as_str()).is_some());
                shares[projection as usize] = match held {
                    [false, false] if !config.requires(&module) => None,
                    [false, false] | [true, false] | [false, true] => {
                        let lacking = &names[usize::from(held[0])];
                        let expected = "a tensor of this name, by target_modules";
                        return Err(ModelError::missing(&path, lacking, expected));
                    }
                    [true, true] if !config.targets(&module) => {
                        let expected = "only modules that target_modules names";
                        return Err(ModelError::field(&path, &names[0], expected, "another"));
                    }
                    [true, true] => Some(Share::read(
                        &files,
                        &names,
                        projection_shape(projection, model),
                        config.rank_and_scale(&module),
                    )?),
                };
            }
            layers.push(shares);
        }
        match left.keys().next() {
            Some(name) => {
                let expected = format!(
                    "only {PREFIX}model.layers.*.(q|k|v|o|gate|up|down)_proj.lora_(A|B).weight, layers below {}",
                    model.num_layers
                );
                Err(ModelError::field(&path, *name, expected, "another tensor"))
            }
            None => Ok(Self { layers }),
        }
    }
}

/// The rows of a batch by adapter.
pub(crate) struct RowGroups<'a> {
    groups: Vec<(&'a Adapter, Vec<u32>)>,
}

impl<'a> RowGroups<'a> {
    /// Groups rows by the adapter each asks for.
    ///
    /// # Errors
    /// An adapter that the model does not hold.
    pub(crate) fn of(
        rows: &[Option<AdapterId>],
        adapters: &'a BTreeMap<AdapterId, Adapter>,
    ) -> Result<Self, ModelError> {
        let mut by_id: BTreeMap<AdapterId, Vec<u32>> = BTreeMap::new();
        for (row, id) in (0u32..).zip(rows) {
            if let Some(id) = id {
                by_id.entry(*id).or_default().push(row);
            }
        }
        let groups = by_id
            .into_iter()
            .map(|(id, rows)| match adapters.get(&id) {
                Some(adapter) => Ok((adapter, rows)),
                None => Err(ModelError::Batch {
                    problem: format!("{id:?} is not loaded"),
                }),
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { groups })
    }

    /// Adds each adapter's share of one matrix to its rows: `output` (T, out), which must be
    /// nobody else's, for `input` (T, in).
    pub(crate) fn add(
        &self,
        layer: usize,
        projection: Projection,
        input: &Tensor,
        output: Tensor,
    ) -> kernels::Result<Tensor> {
        for (adapter, rows) in &self.groups {
            if let Some(Share { a, b, scale }) = &adapter.layers[layer][projection as usize] {
                lora_add(
                    &output,
                    input,
                    &LoraWeights {
                        a,
                        b,
                        scale: *scale,
                    },
                    rows,
                )?;
            }
        }
        Ok(output)
    }
}

/// (out, in)
fn projection_shape(projection: Projection, model: &ModelConfig) -> (usize, usize) {
    let (hidden, inner) = (model.hidden_size, model.intermediate_size);
    match projection {
        Projection::Q => (model.q_size(), hidden),
        Projection::K | Projection::V => (model.kv_size(), hidden),
        Projection::O => (hidden, model.q_size()),
        Projection::Gate | Projection::Up => (inner, hidden),
        Projection::Down => (hidden, inner),
    }
}

impl Share {
    fn read(
        files: &SafeTensorsFiles,
        [a, b]: &[String; 2],
        (out, input): (usize, usize),
        (rank, scale): (usize, f32),
    ) -> Result<Self, ModelError> {
        let matrix = |name: &str, shape: [usize; 2]| {
            let raw = files.get(name)?;
            if raw.shape != shape {
                let (expected, got) =
                    (format!("shape {shape:?}"), format!("shape {:?}", raw.shape));
                return Err(ModelError::field(raw.path, name, expected, got));
            }
            Tensor::from_vec(raw.floats(name)?, (shape[0], shape[1]), &Device::Cpu)
                .map_err(|source| ModelError::compute(name, source))
        };
        Ok(Self {
            a: matrix(a, [rank, input])?,
            b: matrix(b, [out, rank])?,
            scale,
        })
    }
}
