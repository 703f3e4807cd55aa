//! The weights of a model on a device, without whatever computes with them.

use super::weights::{Joined, Layer, Weights};
use crate::weights::{Projection, WeightFiles};
use crate::{AdapterFit, LoadOptions, ModelConfig, ModelError};
use kernels::cuda::{Buffer, CudaLinear, Device, RopeTable};
use std::ops::Range;
use std::sync::Arc;

/// The weights of a model as they lie on a device. A clone shares them: training computes with
/// the very weights that generate.
#[derive(Debug, Clone)]
pub struct CudaDecoder {
    pub(super) device: Device,
    pub(super) config: ModelConfig,
    pub(super) weights: Arc<Weights>,
}

/// A matrix on a device: some rows of one that may hold others, too.
#[derive(Debug, Clone)]
pub struct CudaRows<'a> {
    /// The matrix; its bias, if it has one, is as long as it.
    pub linear: &'a CudaLinear,
    /// The rows meant.
    pub rows: Range<usize>,
}

/// The norms of a layer on a device.
#[derive(Debug, Clone, Copy)]
pub struct CudaNorms<'a> {
    /// (H)
    pub attention: &'a Buffer<f32>,
    /// (D), of q and k.
    pub heads: Option<&'a [Buffer<f32>; 2]>,
    /// (H)
    pub mlp: &'a Buffer<f32>,
}

impl CudaDecoder {
    pub(crate) fn load(
        device: &Device,
        config: ModelConfig,
        files: &WeightFiles,
        options: &LoadOptions,
    ) -> Result<Self, ModelError> {
        let weights = Weights::load(device, &config, files, options)?;
        Ok(Self {
            device: device.clone(),
            config,
            weights: Arc::new(weights),
        })
    }

    /// Where they are.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// What the model is made of.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Bytes that they take.
    pub fn size_in_bytes(&self) -> usize {
        self.weights.size_in_bytes()
    }

    /// What adapters of this model must fit.
    pub fn adapter_fit(&self) -> AdapterFit {
        AdapterFit {
            config: self.config.clone(),
            layout: self.weights.rope_layout,
        }
    }

    /// Angles, in the layout that the rows of q and k have.
    pub fn rope(&self) -> &RopeTable {
        &self.weights.rope
    }

    /// (V, H)
    pub fn embedding(&self) -> &CudaLinear {
        &self.weights.embedding
    }

    /// (V, H); `None` = tied to the embedding.
    pub fn output(&self) -> Option<&CudaLinear> {
        self.weights.output.as_ref()
    }

    /// (H), of the norm before the output.
    pub fn norm(&self) -> &Buffer<f32> {
        &self.weights.norm
    }

    /// The norms of a layer.
    ///
    /// # Panics
    /// No such layer.
    pub fn norms(&self, layer: usize) -> CudaNorms<'_> {
        let layer = &self.weights.layers[layer];
        CudaNorms {
            attention: &layer.attention_norm,
            heads: layer.head_norms.as_ref(),
            mlp: &layer.mlp_norm,
        }
    }

    /// A matrix of a layer.
    ///
    /// # Panics
    /// No such layer.
    pub fn projection(&self, layer: usize, projection: Projection) -> CudaRows<'_> {
        let layer: &Layer = &self.weights.layers[layer];
        let found = layer
            .joined()
            .into_iter()
            .find_map(|one| one.rows(projection));
        found.expect("a layer has every projection")
    }
}

impl Joined {
    /// Where a projection is, if it is one of these.
    fn rows(&self, projection: Projection) -> Option<CudaRows<'_>> {
        let own = self.projections.iter().find(|own| own.0 == projection)?;
        let mut first = 0;
        for linear in &self.parts {
            let end = first + linear.out_features();
            if own.1.start < end {
                let rows = own.1.start - first..own.1.end - first;
                return Some(CudaRows { linear, rows });
            }
            first = end;
        }
        None
    }
}
