//! The forward pass. Between products everything is f32.

use super::adapters::Groups;
use super::kv::CandleKv;
use super::step::{Attention, Step};
use super::weights::Weights;
use crate::ModelConfig;
use crate::weights::Projection;
use candle_core::{DType, Device, Result, Tensor};
use candle_nn::ops::{rms_norm, softmax_last_dim};
use candle_nn::rotary_emb::{rope_i, rope_thd};
use kernels::RopeLayout;

/// One step of one model.
pub(super) struct Forward<'a> {
    pub(super) config: &'a ModelConfig,
    pub(super) weights: &'a Weights,
    pub(super) step: &'a Step,
    /// Adapters of all rows.
    pub(super) all: Groups<'a>,
    /// Adapters of the rows whose logits are wanted.
    pub(super) asked: Groups<'a>,
}

impl Forward<'_> {
    /// Writes K and V of every row and returns the final hidden states (S, H) of those asked
    /// for.
    pub(super) fn run(&self, kv: &CandleKv) -> Result<Tensor> {
        let mut x = self.weights.embedding.rows(&self.step.tokens)?;
        for (index, layer) in self.weights.layers.iter().enumerate() {
            let is_last = index + 1 == self.weights.layers.len();
            let normed = rms_norm(&x, &layer.attention_norm, self.config.rms_norm_eps)?;
            let q = self.write(index, &normed, kv)?;
            let mut adapters = &self.all;
            let mixed = match &self.step.asked {
                // From here on rows no longer meet: only those asked for go on.
                None if is_last => break,
                Some(asked) if is_last => {
                    adapters = &self.asked;
                    x = x.index_select(asked, 0)?;
                    self.attend(index, &q, kv)?.index_select(asked, 0)?
                }
                _ => self.attend(index, &q, kv)?,
            };
            x = self.feed_forward(index, &mixed, &x, adapters)?;
        }
        match self.step.asked {
            None => Tensor::zeros((0, self.config.hidden_size), DType::F32, &Device::Cpu),
            Some(_) => rms_norm(&x, &self.weights.norm, self.config.rms_norm_eps),
        }
    }

    fn project(
        &self,
        index: usize,
        projection: Projection,
        x: &Tensor,
        adapters: &Groups<'_>,
    ) -> Result<Tensor> {
        let matrix = &self.weights.layers[index].projections[projection as usize];
        adapters.add(index, projection, x, matrix.multiply(x)?)
    }

    /// Writes K and V of all rows, and gives their queries (T, Hq*D).
    fn write(&self, index: usize, normed: &Tensor, kv: &CandleKv) -> Result<Tensor> {
        let layer = &self.weights.layers[index];
        let project = |projection| self.project(index, projection, normed, &self.all);
        let [mut q, mut k] = [project(Projection::Q)?, project(Projection::K)?];
        if let Some([q_norm, k_norm]) = &layer.head_norms {
            q = self.norm_heads(&q, q_norm)?;
            k = self.norm_heads(&k, k_norm)?;
        }
        let [q, k, v] = [self.rotate(&q)?, self.rotate(&k)?, project(Projection::V)?];
        for (cache, new) in kv.layer(index).iter().zip([k, v]) {
            cache.scatter_set(&self.step.slots, &new.to_dtype(cache.dtype())?, 0)?;
        }
        Ok(q)
    }

    fn norm_heads(&self, x: &Tensor, weights: &Tensor) -> Result<Tensor> {
        let heads = x.reshape(((), self.config.head_dim))?;
        rms_norm(&heads, weights, self.config.rms_norm_eps)?.reshape(x.shape())
    }

    fn rotate(&self, x: &Tensor) -> Result<Tensor> {
        let (rows, head_dim) = (x.dims()[0], self.config.head_dim);
        let heads = x.dims()[1] / head_dim;
        let [cos, sin] = &self.step.angles;
        let rotated = match self.weights.rope_layout {
            RopeLayout::Halves => {
                let heads = x.reshape((1, rows, heads, head_dim))?;
                rope_thd(&heads, cos, sin)?
            }
            // A batch of sequences of one token each, with angles of their own.
            RopeLayout::Interleaved => {
                let heads = x.reshape((rows, heads, 1, head_dim))?;
                rope_i(&heads, &cos.unsqueeze(1)?, &sin.unsqueeze(1)?)?
            }
        };
        rotated.reshape(x.shape())
    }

    /// What each row's heads take from its context, (T, Hq*D).
    fn attend(&self, index: usize, q: &Tensor, kv: &CandleKv) -> Result<Tensor> {
        let groups = self.step.attention(self.weights.layers[index].window);
        let parts = groups.iter();
        let parts = parts.map(|group| self.attend_group(q, kv.layer(index), group));
        let parts = parts.collect::<Result<Vec<_>>>()?;
        match parts.as_slice() {
            [part] => Ok(part.clone()),
            parts => Tensor::cat(parts, 0),
        }
    }

    fn attend_group(&self, q: &Tensor, [k, v]: &[Tensor; 2], group: &Attention) -> Result<Tensor> {
        let (sequences, context) = (group.sequences, group.context);
        let queries = group.rows.len() / sequences;
        let (kv_heads, head_dim) = (self.config.num_kv_heads, self.config.head_dim);
        let shared = self.config.num_heads / kv_heads;
        // The queries of the heads that share K and V lie below each other.
        let q = q.narrow(0, group.rows.start, group.rows.len())?;
        let q = q.reshape((sequences, queries, kv_heads, shared, head_dim))?;
        let q = q.permute((0, 2, 3, 1, 4))?.contiguous()?;
        let q = q.reshape((sequences * kv_heads, shared * queries, head_dim))?;
        let gather = |cache: &Tensor| {
            let rows = cache.index_select(&group.slots, 0)?.to_dtype(DType::F32)?;
            let rows = rows.reshape((sequences, context, kv_heads, head_dim))?;
            let rows = rows.transpose(1, 2)?.contiguous()?;
            rows.reshape((sequences * kv_heads, context, head_dim))
        };
        let scale = 1.0 / (head_dim as f64).sqrt();
        let mut scores = q.affine(scale, 0.0)?.matmul(&gather(k)?.t()?)?;
        if let Some(mask) = &group.mask {
            let apart = (sequences, kv_heads, shared, queries, context);
            let masked = scores.reshape(apart)?.broadcast_add(mask)?;
            scores = masked.reshape(scores.shape())?;
        }
        let mixed = softmax_last_dim(&scores)?.matmul(&gather(v)?)?;
        let mixed = mixed.reshape((sequences, kv_heads, shared, queries, head_dim))?;
        let mixed = mixed.permute((0, 3, 1, 2, 4))?.contiguous()?;
        mixed.reshape((group.rows.len(), self.config.q_size()))
    }

    /// The rest of a layer: `x` and attention's and the MLP's shares.
    fn feed_forward(
        &self,
        index: usize,
        mixed: &Tensor,
        x: &Tensor,
        adapters: &Groups<'_>,
    ) -> Result<Tensor> {
        let project = |projection, x: &Tensor| self.project(index, projection, x, adapters);
        let x = (x + project(Projection::O, mixed)?)?;
        let layer = &self.weights.layers[index];
        let normed = rms_norm(&x, &layer.mlp_norm, self.config.rms_norm_eps)?;
        let gate = project(Projection::Gate, &normed)?.silu()?;
        let inner = (gate * project(Projection::Up, &normed)?)?;
        x + project(Projection::Down, &inner)?
    }
}
