//! Writing an adapter in PEFT's layout.

use super::{Adapter, AdapterFit, PREFIX, WEIGHTS};
use crate::ModelError;
use crate::weights::Projection;
use candle_core::{Device, Tensor};
use kernels::RopeLayout;
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// What `adapter_config.json` says beside the tensors.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterCard {
    /// Where the base model is, or its id.
    pub base_model: String,
    /// r, of every matrix.
    pub rank: usize,
    /// alpha; the product's factor is alpha / r.
    pub alpha: f64,
    /// Dropout during training.
    pub dropout: f64,
}

impl Adapter {
    /// Writes `adapter_config.json` and `adapter_model.safetensors` (f32) to an existing folder,
    /// as PEFT reads them: `fit` is that of the base, whose order of rows is undone.
    ///
    /// # Errors
    /// A file that cannot be written; a matrix whose rank or factor is not the card's.
    pub fn save(
        &self,
        folder: &Path,
        fit: &AdapterFit,
        card: &AdapterCard,
    ) -> Result<(), ModelError> {
        let path = folder.join(WEIGHTS);
        let mut tensors: BTreeMap<String, Tensor> = BTreeMap::new();
        let mut targets: Vec<Projection> = vec![];
        for part in self.parts() {
            let rank = part.a.dims()[0];
            let scale = (card.alpha / card.rank as f64) as f32;
            if rank != card.rank || part.scale != scale {
                let expected = format!("r {} and factor {scale}", card.rank);
                let got = format!("r {rank} and factor {}", part.scale);
                return Err(ModelError::field(
                    &path,
                    part.projection.module(),
                    expected,
                    got,
                ));
            }
            let module = format!(
                "{PREFIX}model.layers.{}.{}",
                part.layer,
                part.projection.module()
            );
            let b = in_order(&part.b, part.projection, fit)
                .map_err(|source| ModelError::compute("reordering lora_B", source))?;
            tensors.insert(format!("{module}.lora_A.weight"), part.a);
            tensors.insert(format!("{module}.lora_B.weight"), b);
            targets.push(part.projection);
        }
        targets.sort_unstable();
        targets.dedup();
        let names: Vec<&str> = targets
            .iter()
            .map(|projection| projection.module().rsplit('.').next().unwrap_or_default())
            .collect();
        let config = json!({
            "base_model_name_or_path": card.base_model,
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_lora_weights": true,
            "lora_alpha": number(card.alpha),
            "lora_dropout": card.dropout,
            "peft_type": "LORA",
            "r": card.rank,
            "target_modules": names,
            "task_type": "CAUSAL_LM",
            "use_dora": false,
            "use_rslora": false,
        });
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        safetensors::serialize_to_file(&tensors, Some(metadata), &path).map_err(|error| {
            let source = std::io::Error::other(error.to_string());
            ModelError::io(&path, "write", source)
        })?;
        let path = folder.join("adapter_config.json");
        let mut text = serde_json::to_string_pretty(&config).expect("plain values");
        text.push('\n');
        std::fs::write(&path, text).map_err(|source| ModelError::io(&path, "write", source))
    }
}

/// Rows as transformers has them.
fn in_order(b: &Tensor, projection: Projection, fit: &AdapterFit) -> candle_core::Result<Tensor> {
    let layout = fit.layout;
    let rotated = matches!(projection, Projection::Q | Projection::K);
    if !rotated || layout == RopeLayout::Halves {
        return Ok(b.clone());
    }
    let rows = layout.rows_for(RopeLayout::Halves, b.dim(0)?, fit.config.head_dim);
    b.index_select(&Tensor::new(rows, &Device::Cpu)?, 0)
}

/// Whole numbers without a point: other readers want an integer where they can have one.
fn number(value: f64) -> serde_json::Value {
    if value.fract() == 0.0 && value.abs() < 2f64.powi(53) {
        json!(value as i64)
    } else {
        json!(value)
    }
}
