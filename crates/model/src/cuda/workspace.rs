//! Everything a step needs beside the weights and the cache, allocated once for the largest step.

use super::CudaOptions;
use super::plan::{Limits, StepArrays};
use super::weights::Weights;
use crate::{Determinism, KvType, ModelConfig};
use half::bf16;
use kernels::cuda::{
    Attention, Buffer, CudaLinear, Device, Matrix, Mode, Pinned, Products, ProductsSize, SPLIT,
    Sampler, SamplerLimits, Spans, View,
};

/// Memory for the parts of attention that are put together, in bytes.
const SCRATCH_BYTES: usize = 256 << 20;
/// Arrays with a number for each row.
const BY_ROW: usize = 7;
/// Pieces that a step's sequences may be cut into beyond one each.
const MORE_SPANS: usize = 128;

/// The buffers of a step; (T) rows at most, (S) of them with logits.
#[derive(Debug)]
pub(super) struct Workspace {
    pub(super) inputs: Inputs,
    pub(super) products: Products,
    /// (T, H): the residual stream.
    pub(super) x: Buffer<f32>,
    /// (T, H): those of its rows that are asked for.
    pub(super) asked: Buffer<f32>,
    /// (T, Hq*D + 2*Hkv*D)
    pub(super) qkv: Buffer<f32>,
    /// (T, 2*F); before it is used, attention's share where rows are chosen from it.
    pub(super) gate_up: Buffer<f32>,
    /// (T, H): what a half of a layer adds.
    pub(super) share: Buffer<f32>,
    /// (T, H): after a norm.
    pub(super) normed: Factor,
    /// (T, Hq*D): what heads take from their contexts.
    pub(super) mixed: Factor,
    /// (T, F)
    pub(super) inner: Factor,
    /// Attention's parts.
    pub(super) scratch: Buffer<f32>,
    /// (rows of logits, V)
    pub(super) logits: Buffer<f32>,
    pub(super) sampler: Sampler,
    /// Between the two products of adapters.
    pub(super) lora: Buffer<f32>,
}

/// What a product reads: bf16, or f32 where weights are f32.
#[derive(Debug)]
pub(super) enum Factor {
    F32(Buffer<f32>),
    BF16(Buffer<bf16>),
}

impl Factor {
    fn zeros(device: &Device, kind: FactorKind, len: usize) -> kernels::Result<Self> {
        Ok(match kind {
            FactorKind::F32 => Self::F32(Buffer::zeros(device, len)?),
            FactorKind::BF16 => Self::BF16(Buffer::zeros(device, len)?),
        })
    }

    pub(super) fn matrix(&self, columns: usize) -> Matrix<'_> {
        match self {
            Self::F32(buffer) => buffer.matrix(columns),
            Self::BF16(buffer) => buffer.matrix(columns),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum FactorKind {
    F32,
    BF16,
}

impl Workspace {
    /// # Errors
    /// Not enough memory.
    pub(super) fn new(
        device: &Device,
        config: &ModelConfig,
        weights: &Weights,
        options: &CudaOptions,
    ) -> kernels::Result<Self> {
        let limits = limits(config, options);
        let rows = limits.tokens;
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        // Products convert for themselves where only some weights are f32.
        let is_exact = |matrix: &CudaLinear| !matrix.wants_bf16();
        let kind = match weights.matrices().any(is_exact) {
            true => FactorKind::F32,
            false => FactorKind::BF16,
        };
        let converts =
            matches!(kind, FactorKind::F32) && weights.matrices().any(CudaLinear::wants_bf16);
        let widest = weights.matrices().map(CudaLinear::in_features).max();
        let size = ProductsSize {
            rows,
            columns: if converts { widest.unwrap_or(0) } else { 0 },
        };
        let mode = match options.determinism {
            Determinism::Loose => Mode::Fast,
            Determinism::Strict => Mode::Deterministic,
        };
        let floats = |len: usize| Buffer::zeros(device, len);
        let factor = |len: usize| Factor::zeros(device, kind, len);
        Ok(Self {
            inputs: Inputs::new(device, limits)?,
            products: Products::new(device, mode, size, weights.matrices())?,
            x: floats(rows * hidden)?,
            asked: floats(rows * hidden)?,
            qkv: floats(rows * (config.q_size() + 2 * config.kv_size()))?,
            gate_up: floats(rows * (2 * inner).max(config.q_size()))?,
            share: floats(rows * hidden)?,
            normed: factor(rows * hidden)?,
            mixed: factor(rows * config.q_size())?,
            inner: factor(rows * inner)?,
            scratch: floats(scratch_len(config, limits.row_splits))?,
            logits: floats(options.logit_rows * config.vocab_size)?,
            sampler: Sampler::new(
                device,
                SamplerLimits {
                    vocabulary: config.vocab_size,
                    concurrent: options.logit_rows,
                },
            )?,
            lora: floats(0)?,
        })
    }
}

impl Workspace {
    /// Rows of a step at most.
    pub(super) fn rows(&self) -> usize {
        self.inputs.rows
    }
}

/// What a step may be made of, under these options.
pub(super) fn limits(config: &ModelConfig, options: &CudaOptions) -> Limits {
    let per_row_split = 4 * config.num_heads * (config.head_dim + 2);
    let longest = options.context_tokens.div_ceil(SPLIT);
    let wanted = options.max_tokens.max(options.max_sequences) * longest;
    let blocks = options.context_tokens.div_ceil(options.block_size);
    Limits {
        // Padded rows need room, too.
        tokens: options
            .max_tokens
            .max(super::plan::bucket(options.max_sequences)),
        list: (options.max_sequences + MORE_SPANS) * blocks,
        row_splits: (SCRATCH_BYTES / per_row_split).min(wanted).max(longest),
        // Tensor cores multiply 16-bit values, and give other bits than single rows.
        tiles: options.determinism == Determinism::Loose && options.kv_type != KvType::F32,
    }
}

fn scratch_len(config: &ModelConfig, row_splits: usize) -> usize {
    // Only contexts of several splits use it, and of those no start has more.
    Attention::scratch_len(row_splits.div_ceil(2), config.num_heads, config.head_dim, 2)
}

/// The numbers of a step: one copy, every array always at the same place.
#[derive(Debug)]
pub(super) struct Inputs {
    device: Buffer<u32>,
    host: Pinned<u32>,
    /// Room for rows.
    rows: usize,
    /// Room for spans.
    spans: usize,
}

impl Inputs {
    fn new(device: &Device, limits: Limits) -> kernels::Result<Self> {
        let (rows, spans) = (limits.tokens, limits.tokens + MORE_SPANS);
        let len = BY_ROW * rows + 3 * (spans + 1) + limits.list;
        Ok(Self {
            device: Buffer::zeros(device, len)?,
            host: Pinned::zeros(device, len)?,
            rows,
            spans,
        })
    }

    /// Starts the copy.
    ///
    /// # Errors
    /// More spans than there is room for; the device failed.
    pub(super) fn upload(&mut self, arrays: &StepArrays) -> kernels::Result<()> {
        if arrays.contexts.len() > self.spans {
            let problem = format!(
                "a step of {} pieces of sequences, the device has room for {}",
                arrays.contexts.len(),
                self.spans
            );
            return Err(kernels::KernelError::Invalid {
                op: "step",
                problem,
            });
        }
        let chosen = |row: &u32| arrays.adapters[*row as usize];
        let chosen_adapters: Vec<u32> = arrays.logit_rows.iter().map(chosen).collect();
        let parts: [(usize, &[u32]); 11] = [
            (0, &arrays.tokens),
            (self.rows, &arrays.positions),
            (2 * self.rows, &arrays.slots),
            (3 * self.rows, &arrays.adapters),
            (4 * self.rows, &arrays.logit_rows),
            (5 * self.rows, &chosen_adapters),
            (6 * self.rows, &arrays.drawn),
            (self.spans_at(0), &arrays.starts),
            (self.spans_at(1), &arrays.contexts),
            (self.spans_at(2), &arrays.block_starts),
            (self.spans_at(3), &arrays.list),
        ];
        let end = self.spans_at(3) + arrays.list.len();
        let host = self.host.get_mut()?;
        for (start, values) in parts {
            host[start..start + values.len()].copy_from_slice(values);
        }
        self.device.upload(0, &mut self.host, end)
    }

    /// Where the arrays of spans begin.
    fn spans_at(&self, array: usize) -> usize {
        BY_ROW * self.rows + array * (self.spans + 1)
    }

    fn by_row(&self, array: usize) -> View<'_> {
        self.device
            .slice(array * self.rows..(array + 1) * self.rows)
    }

    pub(super) fn tokens(&self) -> View<'_> {
        self.by_row(0)
    }

    pub(super) fn positions(&self) -> View<'_> {
        self.by_row(1)
    }

    pub(super) fn slots(&self) -> View<'_> {
        self.by_row(2)
    }

    pub(super) fn adapters(&self) -> View<'_> {
        self.by_row(3)
    }

    pub(super) fn logit_rows(&self) -> View<'_> {
        self.by_row(4)
    }

    /// Adapters of the rows asked for, in the order they are asked for in.
    pub(super) fn chosen_adapters(&self) -> View<'_> {
        self.by_row(5)
    }

    /// Which draw gives each row its token.
    pub(super) fn drawn(&self) -> View<'_> {
        self.by_row(6)
    }

    /// Some of the spans.
    pub(super) fn spans(&self, range: std::ops::Range<usize>) -> Spans<'_> {
        let array = |array: usize, more: usize| {
            let start = self.spans_at(array);
            self.device
                .slice(start + range.start..start + range.end + more)
        };
        Spans {
            count: range.len(),
            starts: array(0, 1),
            contexts: array(1, 0),
            block_starts: array(2, 1),
            list: self.device.slice(self.spans_at(3)..self.device.len()),
        }
    }
}
