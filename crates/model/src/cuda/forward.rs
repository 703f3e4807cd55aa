//! A step on the device: every kernel in its order. Nothing here allocates or waits.

use super::adapters::Adapters;
use super::kv::CudaKv;
use super::plan::{Call, CallKind, StepArrays};
use super::weights::{Joined, Layer, Weights};
use super::workspace::Workspace;
use crate::ModelConfig;
use kernels::Result;
use kernels::cuda::{
    Attention, AttentionKernel, Buffer, Device, LoraAdd, Matrix, Norm, RopeAndCache, add_rms_norm,
    embed, gather_rows, lora_add, paged_attention, rms_norm, rope_and_cache, swiglu,
};

/// What a step is computed with.
pub(super) struct Forward<'a> {
    pub(super) device: &'a Device,
    pub(super) config: &'a ModelConfig,
    pub(super) weights: &'a Weights,
    pub(super) adapters: &'a Adapters,
    pub(super) work: &'a Workspace,
    pub(super) kv: &'a CudaKv,
    pub(super) step: &'a StepArrays,
}

/// Rows of a product, and whose adapters they use.
#[derive(Clone, Copy)]
struct Rows {
    count: usize,
    /// They are those that are asked for, in another order than the step's.
    chosen: bool,
}

impl Forward<'_> {
    /// Writes K and V of every row, and leaves the final hidden states of the rows asked for in
    /// `normed`.
    pub(super) fn run(&self) -> Result<()> {
        let (work, rows) = (self.work, self.step.tokens.len());
        let hidden = self.config.hidden_size;
        let x = work.x.matrix(hidden);
        embed(
            self.device,
            &self.weights.embedding,
            work.inputs.tokens(),
            rows,
            x,
        )?;
        let first = self.norm(&self.weights.layers[0].attention_norm);
        rms_norm(self.device, x, first, rows, work.normed.matrix(hidden))?;
        let last = self.weights.layers.len() - 1;
        for index in 0..last {
            self.attend(index, self.work.mixed.matrix(self.config.q_size()))?;
            let rows = Rows {
                count: rows,
                chosen: false,
            };
            self.feed_forward(index, x, rows)?;
        }
        self.last_layer(last, x)
    }

    /// From here on rows no longer meet: only those asked for go on.
    fn last_layer(&self, index: usize, x: Matrix<'_>) -> Result<()> {
        let (work, step) = (self.work, self.step);
        let (rows, asked) = (step.tokens.len(), step.logit_rows.len());
        let width = self.config.q_size();
        let mixed = work.mixed.matrix(width);
        let in_order = (0u32..)
            .zip(&step.logit_rows)
            .all(|(row, asked)| row == *asked);
        if asked == rows && in_order {
            self.attend(index, mixed)?;
            let rows = Rows {
                count: rows,
                chosen: false,
            };
            return self.feed_forward(index, x, rows);
        }
        let all = work.gate_up.matrix(width);
        self.attend(index, all)?;
        let chosen = work.asked.matrix(self.config.hidden_size);
        let index_of_rows = work.inputs.logit_rows();
        gather_rows(self.device, (all, rows), index_of_rows, asked, mixed)?;
        gather_rows(self.device, (x, rows), index_of_rows, asked, chosen)?;
        let rows = Rows {
            count: asked,
            chosen: true,
        };
        self.feed_forward(index, chosen, rows)
    }

    /// Writes K and V of all rows and gives what each row's heads take from its context.
    fn attend(&self, index: usize, out: Matrix<'_>) -> Result<()> {
        let (work, config) = (self.work, self.config);
        let layer = &self.weights.layers[index];
        let (q_size, kv_size) = (config.q_size(), config.kv_size());
        let all = work.qkv.matrix(q_size + 2 * kv_size);
        let q = all.columns(0..q_size);
        let k = all.columns(q_size..q_size + kv_size);
        let v = all.columns(q_size + kv_size..q_size + 2 * kv_size);
        let rows = Rows {
            count: self.step.tokens.len(),
            chosen: false,
        };
        let normed = work.normed.matrix(config.hidden_size);
        self.multiply((index, &layer.qkv), normed, rows, all)?;
        let kv = self.kv.layer(index);
        let head_norm = |which: usize| {
            let norms = layer.head_norms.as_ref();
            norms.map(|norms| self.norm(&norms[which]))
        };
        let rope = RopeAndCache {
            q,
            k,
            v,
            table: &self.weights.rope,
            positions: work.inputs.positions(),
            slots: work.inputs.slots(),
            q_norm: head_norm(0),
            k_norm: head_norm(1),
            kv,
        };
        rope_and_cache(self.device, &rope, rows.count)?;
        for call in &self.step.calls {
            self.attend_spans(layer, (q, out), index, call)?;
        }
        Ok(())
    }

    fn attend_spans(
        &self,
        layer: &Layer,
        (q, out): (Matrix<'_>, Matrix<'_>),
        index: usize,
        call: &Call,
    ) -> Result<()> {
        let attention = Attention {
            q,
            kv: self.kv.layer(index),
            spans: self.work.inputs.spans(call.spans.clone()),
            scale: 1.0 / (self.config.head_dim as f32).sqrt(),
            window: layer.window,
            out,
            scratch: self.work.scratch.view(),
        };
        let kernel = match call.kind {
            CallKind::Rows { rows, splits } => AttentionKernel::Rows { rows, splits },
            CallKind::Tiles { longest } => AttentionKernel::Tiles { longest },
        };
        paged_attention(self.device, &attention, kernel)
    }

    /// The rest of a layer: adds attention's and the MLP's shares to `x`; leaves it after the
    /// next norm in `normed`.
    fn feed_forward(&self, index: usize, x: Matrix<'_>, rows: Rows) -> Result<()> {
        let (work, config) = (self.work, self.config);
        let layer = &self.weights.layers[index];
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let mixed = work.mixed.matrix(config.q_size());
        let (share, normed) = (work.share.matrix(hidden), work.normed.matrix(hidden));
        self.multiply((index, &layer.o), mixed, rows, share)?;
        let norm = self.norm(&layer.mlp_norm);
        add_rms_norm(self.device, share, x, norm, rows.count, normed)?;
        let gate_up = work.gate_up.matrix(2 * inner);
        let (gate, up) = (gate_up.columns(0..inner), gate_up.columns(inner..2 * inner));
        self.multiply((index, &layer.gate_up), normed, rows, gate_up)?;
        let activated = work.inner.matrix(inner);
        swiglu(self.device, gate, up, rows.count, activated)?;
        self.multiply((index, &layer.down), activated, rows, share)?;
        let next = self.weights.layers.get(index + 1);
        let next = next.map_or(&self.weights.norm, |next| &next.attention_norm);
        let norm = self.norm(next);
        add_rms_norm(self.device, share, x, norm, rows.count, normed)
    }

    /// y = x times matrices side by side, with each row's adapter.
    fn multiply(
        &self,
        (index, joined): (usize, &Joined),
        x: Matrix<'_>,
        rows: Rows,
        y: Matrix<'_>,
    ) -> Result<()> {
        let mut first = 0;
        for part in &joined.parts {
            let end = first + part.out_features();
            let columns = y.columns(first..end);
            self.work.products.multiply(part, x, rows.count, columns)?;
            first = end;
        }
        if !self.step.uses_adapters {
            return Ok(());
        }
        let adapters = match rows.chosen {
            true => self.work.inputs.chosen_adapters(),
            false => self.work.inputs.adapters(),
        };
        for (projection, outputs) in &joined.projections {
            let Some(table) = self.adapters.table(index, *projection) else {
                continue;
            };
            let add = LoraAdd {
                x,
                y: y.columns(outputs.clone()),
                table,
                adapters,
                scratch: self.work.lora.view(),
            };
            lora_add(self.device, &add, rows.count)?;
        }
        Ok(())
    }

    fn norm<'a>(&self, weight: &'a Buffer<f32>) -> Norm<'a> {
        Norm {
            weight: weight.view(),
            eps: self.config.rms_norm_eps,
        }
    }
}
