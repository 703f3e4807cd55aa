//! Adapters in tensors of candle.

use crate::weights::Projection;
use crate::{Adapter, AdapterId, ModelError};
use candle_core::{Device, Result, Tensor};
use std::collections::BTreeMap;

/// Those loaded.
#[derive(Debug, Default)]
pub(super) struct Adapters {
    loaded: BTreeMap<AdapterId, (Adapter, Matrices)>,
    next: u32,
}

/// By layer and matrix: A (in, r), and B times the adapter's factor (r, out).
type Matrices = BTreeMap<(usize, Projection), [Tensor; 2]>;

/// The rows of a step by adapter; `None` = all rows.
pub(super) struct Groups<'a>(Vec<(&'a Matrices, Option<Tensor>)>);

impl Adapters {
    pub(super) fn add(&mut self, device: &Device, adapter: Adapter) -> Result<AdapterId> {
        let mut matrices = Matrices::new();
        for part in adapter.parts() {
            let a = part.a.t()?.contiguous()?;
            let b = part.b.affine(f64::from(part.scale), 0.0)?;
            let b = b.t()?.contiguous()?;
            let pair = [a.to_device(device)?, b.to_device(device)?];
            matrices.insert((part.layer, part.projection), pair);
        }
        let id = AdapterId(self.next);
        self.next += 1;
        self.loaded.insert(id, (adapter, matrices));
        Ok(id)
    }

    pub(super) fn remove(&mut self, id: AdapterId) -> Option<Adapter> {
        self.loaded.remove(&id).map(|(adapter, _)| adapter)
    }

    /// Groups rows by the adapter each asks for.
    ///
    /// # Errors
    /// An adapter that is not loaded.
    pub(super) fn groups(
        &self,
        rows: &[Option<AdapterId>],
        device: &Device,
    ) -> std::result::Result<Groups<'_>, ModelError> {
        let mut by_id: BTreeMap<AdapterId, Vec<u32>> = BTreeMap::new();
        for (row, id) in (0u32..).zip(rows) {
            if let Some(id) = id {
                by_id.entry(*id).or_default().push(row);
            }
        }
        let mut groups = Vec::new();
        for (id, own) in by_id {
            let Some((_, matrices)) = self.loaded.get(&id) else {
                let problem = format!("{id:?} is not loaded");
                return Err(ModelError::Batch { problem });
            };
            let rows = match own.len() == rows.len() {
                true => None,
                false => Some(
                    Tensor::new(own.as_slice(), device)
                        .map_err(|source| ModelError::compute("an adapter's rows", source))?,
                ),
            };
            groups.push((matrices, rows));
        }
        Ok(Groups(groups))
    }
}

impl Groups<'_> {
    /// Adds each adapter's share of one matrix to its rows of `output` (T, out), for `input`
    /// (T, in).
    pub(super) fn add(
        &self,
        layer: usize,
        projection: Projection,
        input: &Tensor,
        output: Tensor,
    ) -> Result<Tensor> {
        let mut output = output;
        for (matrices, rows) in &self.0 {
            let Some([a, b]) = matrices.get(&(layer, projection)) else {
                continue;
            };
            output = match rows {
                None => (output + input.matmul(a)?.matmul(b)?)?,
                Some(rows) => {
                    let share = input.index_select(rows, 0)?.matmul(a)?.matmul(b)?;
                    output.index_add(rows, &share, 0)?
                }
            };
        }
        Ok(output)
    }
}
