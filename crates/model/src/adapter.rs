//! LoRA adapters in PEFT's layout: a folder with `adapter_config.json` and
//! `adapter_model.safetensors`. They are applied unmerged, row by row, so that rows with
//! different adapters and rows with none share a batch.

mod config;
mod save;

use crate::batch::AdapterId;
use crate::weights::{Projection, SafeTensorsFiles};
use crate::{ModelConfig, ModelError};
use candle_core::{Device, Tensor};
use config::AdapterConfig;
use kernels::{LoraWeights, RopeLayout, lora_add};
pub use save::AdapterCard;
use std::collections::BTreeMap;
use std::path::Path;

const WEIGHTS: &str = "adapter_model.safetensors";
/// PEFT wraps the model twice before its own module path begins.
const PREFIX: &str = "base_model.model.";

/// What the adapters of a model must fit: its sizes, and the order its rows of q and k have.
#[derive(Debug, Clone)]
pub struct AdapterFit {
    pub(crate) config: ModelConfig,
    pub(crate) layout: RopeLayout,
}

impl AdapterFit {
    /// Reads an adapter in PEFT's layout and checks that it fits.
    ///
    /// # Errors
    /// A file missing or damaged, a setting that is not supported, tensors that do not fit.
    pub fn load(&self, folder: &Path) -> Result<Adapter, ModelError> {
        Adapter::load(folder, &self.config, self.layout)
    }
}

/// A loaded adapter that fits one model; a clone shares its tensors.
#[derive(Debug, Clone)]
pub struct Adapter {
    layers: Vec<[Option<Share>; Projection::ALL.len()]>,
}

/// What is added to one matrix: y += scale * B (A x).
#[derive(Debug, Clone)]
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
    pub(crate) fn load(
        folder: &Path,
        model: &ModelConfig,
        layout: RopeLayout,
    ) -> Result<Self, ModelError> {
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
                    [true, true] => Some(
                        Share::read(
                            &files,
                            &names,
                            projection.shape(model),
                            config.rank_and_scale(&module),
                        )?
                        .in_layout(projection, model, layout)?,
                    ),
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

/// What an adapter adds to one matrix: y += scale * B (A x).
#[derive(Debug, Clone)]
pub struct AdapterPart {
    /// Which layer, from 0.
    pub layer: usize,
    /// Which of its matrices.
    pub projection: Projection,
    /// (r, in), f32
    pub a: Tensor,
    /// (out, r), f32; rows in the order that the model's own matrix has.
    pub b: Tensor,
    /// The factor of the product.
    pub scale: f32,
}

impl Adapter {
    /// An adapter from its parts, for the model they were made for.
    ///
    /// # Errors
    /// A layer that the model does not have, shapes that do not fit, a matrix given twice.
    pub fn new(
        model: &ModelConfig,
        parts: impl IntoIterator<Item = AdapterPart>,
    ) -> Result<Self, ModelError> {
        let mut layers: Vec<[Option<Share>; Projection::ALL.len()]> = (0..model.num_layers)
            .map(|_| [const { None }; Projection::ALL.len()])
            .collect();
        for part in parts {
            let wrong = |problem: String| Err(ModelError::Batch { problem });
            let (out, input) = part.projection.shape(model);
            let (a, b) = (part.a.dims(), part.b.dims());
            if a.len() != 2 || b.len() != 2 || a[1] != input || b[0] != out || a[0] != b[1] {
                let module = part.projection.module();
                return wrong(format!(
                    "an adapter of {a:?} and {b:?} for {module} ({out}, {input})"
                ));
            }
            let Some(layer) = layers.get_mut(part.layer) else {
                return wrong(format!("an adapter for layer {}", part.layer));
            };
            let share = Share {
                a: part.a,
                b: part.b,
                scale: part.scale,
            };
            if layer[part.projection as usize].replace(share).is_some() {
                return wrong(format!("two adapters for layer {}", part.layer));
            }
        }
        Ok(Self { layers })
    }

    /// What it is made of, layer by layer; tensors are shared, not copied.
    pub fn parts(&self) -> impl Iterator<Item = AdapterPart> {
        self.layers.iter().enumerate().flat_map(|(layer, shares)| {
            let held = Projection::ALL.into_iter().zip(shares);
            held.filter_map(move |(projection, share)| {
                share.as_ref().map(|share| AdapterPart {
                    layer,
                    projection,
                    a: share.a.clone(),
                    b: share.b.clone(),
                    scale: share.scale,
                })
            })
        })
    }
}

/// Rank and alpha of an adapter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdapterShape {
    /// r
    pub rank: usize,
    /// alpha; the product's factor is alpha / r.
    pub alpha: f64,
}

/// Rank and alpha of the adapter in a folder.
///
/// # Errors
/// A config that cannot be read or is not supported; matrices of different ranks or factors.
pub fn adapter_shape(folder: &Path) -> Result<AdapterShape, ModelError> {
    let found = AdapterConfig::read(folder)?.uniform();
    let (rank, alpha) = found.ok_or_else(|| {
        let expected = "one rank for all matrices and the factor alpha / r";
        let got = "rank_pattern, alpha_pattern or use_rslora";
        ModelError::field(&folder.join("adapter_config.json"), "r", expected, got)
    })?;
    Ok(AdapterShape { rank, alpha })
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

impl Share {
    /// PEFT's files have the rows of q and k as transformers has them; the matrix that the
    /// share is added to may have them reordered.
    fn in_layout(
        self,
        projection: Projection,
        model: &ModelConfig,
        layout: RopeLayout,
    ) -> Result<Self, ModelError> {
        let rotated = matches!(projection, Projection::Q | Projection::K);
        if !rotated || layout == RopeLayout::Halves {
            return Ok(self);
        }
        let reorder = || -> candle_core::Result<Tensor> {
            let rows = RopeLayout::Halves.rows_for(layout, self.b.dim(0)?, model.head_dim);
            self.b.index_select(&Tensor::new(rows, &Device::Cpu)?, 0)
        };
        let b = reorder().map_err(|source| ModelError::compute("reordering lora_B", source))?;
        Ok(Self { b, ..self })
    }

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
