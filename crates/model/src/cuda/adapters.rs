//! Adapters on a device: for each matrix a table of all of them.

use crate::weights::Projection;
use crate::{Adapter, AdapterId, ModelConfig, ModelError};
use kernels::cuda::{Device, LoraMatrix, LoraTable};
use std::collections::BTreeMap;

/// Those loaded, and their tables.
#[derive(Debug, Default)]
pub(super) struct Adapters {
    loaded: BTreeMap<AdapterId, Adapter>,
    next: u32,
    /// Index of each in the tables.
    indices: BTreeMap<AdapterId, u32>,
    /// By layer and matrix; `None` where no adapter has anything to add.
    tables: Vec<[Option<LoraTable>; Projection::ALL.len()]>,
}

impl Adapters {
    pub(super) fn indices(&self) -> &BTreeMap<AdapterId, u32> {
        &self.indices
    }

    pub(super) fn table(&self, layer: usize, projection: Projection) -> Option<&LoraTable> {
        self.tables.get(layer)?[projection as usize].as_ref()
    }

    /// f32 elements that rows need between the two products.
    pub(super) fn scratch_len(&self, rows: usize) -> usize {
        let tables = self.tables.iter().flatten().flatten();
        tables
            .map(|table| table.scratch_len(rows))
            .max()
            .unwrap_or(0)
    }

    pub(super) fn add(
        &mut self,
        device: &Device,
        config: &ModelConfig,
        adapter: Adapter,
    ) -> Result<AdapterId, ModelError> {
        let id = AdapterId(self.next);
        self.loaded.insert(id, adapter);
        if let Err(error) = self.rebuild(device, config) {
            self.loaded.remove(&id);
            self.rebuild(device, config)?;
            return Err(error);
        }
        self.next += 1;
        Ok(id)
    }

    pub(super) fn remove(
        &mut self,
        device: &Device,
        config: &ModelConfig,
        id: AdapterId,
    ) -> Option<Adapter> {
        let removed = self.loaded.remove(&id)?;
        if let Err(error) = self.rebuild(device, config) {
            // Tables of fewer adapters did not fit: the old ones still serve the others.
            tracing::warn!(%error, "an adapter stays on the device");
        }
        Some(removed)
    }

    fn rebuild(&mut self, device: &Device, config: &ModelConfig) -> Result<(), ModelError> {
        let parts: Vec<_> = self.loaded.values().map(Matrices::of).collect();
        let parts = parts.into_iter().collect::<Result<Vec<_>, _>>()?;
        let mut tables = Vec::with_capacity(config.num_layers);
        for layer in 0..config.num_layers {
            let mut row = [const { None }; Projection::ALL.len()];
            for projection in Projection::ALL {
                let has_any = |one: &Matrices| one.0.contains_key(&(layer, projection));
                if !parts.iter().any(has_any) {
                    continue;
                }
                let deltas: Vec<_> = parts.iter().map(|m| m.get(layer, projection)).collect();
                let table = LoraTable::new(device, projection.shape(config), &deltas)
                    .map_err(|source| ModelError::compute("an adapter", source))?;
                row[projection as usize] = Some(table);
            }
            tables.push(row);
        }
        self.tables = tables;
        self.indices = self.loaded.keys().copied().zip(0..).collect();
        Ok(())
    }
}

/// One adapter's numbers by layer and matrix.
struct Matrices(BTreeMap<(usize, Projection), Delta>);

/// What it adds to one matrix.
struct Delta {
    /// (r, in)
    a: Vec<f32>,
    /// (out, r)
    b: Vec<f32>,
    rank: usize,
    scale: f32,
}

impl Matrices {
    fn of(adapter: &Adapter) -> Result<Self, ModelError> {
        let mut matrices = BTreeMap::new();
        for part in adapter.parts() {
            let flat = |tensor: &candle_core::Tensor| {
                let values = tensor.flatten_all().and_then(|all| all.to_vec1::<f32>());
                values.map_err(|source| ModelError::compute("an adapter", source))
            };
            let delta = Delta {
                a: flat(&part.a)?,
                b: flat(&part.b)?,
                rank: part.a.dims()[0],
                scale: part.scale,
            };
            matrices.insert((part.layer, part.projection), delta);
        }
        Ok(Self(matrices))
    }

    fn get(&self, layer: usize, projection: Projection) -> Option<LoraMatrix<'_>> {
        let delta = self.0.get(&(layer, projection))?;
        Some(LoraMatrix {
            a: &delta.a,
            b: &delta.b,
            rank: delta.rank,
            scale: delta.scale,
        })
    }
}
