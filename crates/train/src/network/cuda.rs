//! An NVIDIA device: the kernels of `kernels::cuda` over arrays of a pool.
//!
//! Frozen matrices stay as they are: those in bf16 are multiplied with bf16 copies of
//! activations, f32 ones in f32, and whatever is encoded (or f16) is unpacked to bf16, a part at
//! a time. Sums, adapters and everything between products are f32. Trained tensors are the
//! host's, whose optimiser moves them; here are copies, made anew when it did.

mod array;
mod pack;
mod pool;

use super::DeviceUse;
use super::build::{Frozen, FrozenLayer};
use super::compute::{Compute, Form, Heads, LowRank, Slot, Turn};
use super::matrix::Dropout;
use super::need::UNPACKED_BYTES;
use crate::Result;
use crate::pack::{Pack, stretches};
use crate::parameters::{ParameterId, Parameters};
pub(crate) use array::Array;
use kernels::cuda::training::{self as rules, MatMul, Update};
use kernels::cuda::{Buffer, CudaLinear, Device, Matrix, Norm, RopeTable};
use kernels::training::{AttentionShape, TokenScore};
use model::{CudaDecoder, Projection};
use pack::DevicePack;
use pool::{Pool, Type};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Numbers of one target's score.
const SCORE: usize = 4;

/// A device, its pool, the angles of positions and copies of what is trained.
#[derive(Debug)]
pub(crate) struct Cuda {
    pool: Pool,
    angles: Angles,
    copies: Mutex<Copies>,
}

#[derive(Debug)]
enum Angles {
    /// Those of the model's weights.
    Shared(CudaDecoder),
    Own(RopeTable),
}

/// The trained tensors on the device, as they were at some version.
#[derive(Debug, Default)]
struct Copies {
    version: Option<u64>,
    list: Arc<Vec<Array>>,
}

/// A matrix of the model's weights.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    decoder: CudaDecoder,
    which: Which,
}

#[derive(Debug, Clone, Copy)]
enum Which {
    Embedding,
    Output,
    Projection(usize, Projection),
}

impl Shared {
    /// The matrix, and which of its rows are meant.
    fn rows(&self) -> (&CudaLinear, Range<usize>) {
        let whole = |linear: &CudaLinear| 0..linear.out_features();
        match self.which {
            Which::Embedding => {
                let linear = self.decoder.embedding();
                (linear, whole(linear))
            }
            Which::Output => {
                let linear = self.decoder.output().unwrap_or(self.decoder.embedding());
                (linear, whole(linear))
            }
            Which::Projection(layer, projection) => {
                let found = self.decoder.projection(layer, projection);
                (found.linear, found.rows)
            }
        }
    }
}

impl Cuda {
    fn new(device: &Device, angles: Angles) -> Result<Self> {
        Ok(Self {
            pool: Pool::new(device)?,
            angles,
            copies: Mutex::default(),
        })
    }

    /// To train everything with, on `device`.
    pub(super) fn with_angles(device: &Device, angles: RopeTable) -> Result<Self> {
        Self::new(device, Angles::Own(angles))
    }

    pub(super) fn used(&self) -> DeviceUse {
        self.pool.used()
    }

    pub(super) fn begin_peak(&self) {
        self.pool.begin_peak();
    }

    pub(super) fn limit(&self, bytes: u64) {
        self.pool.limit(bytes);
    }

    fn device(&self) -> &Device {
        self.pool.device()
    }

    fn angles(&self) -> &RopeTable {
        match &self.angles {
            Angles::Shared(decoder) => decoder.rope(),
            Angles::Own(table) => table,
        }
    }

    fn array(&self, rows: usize, columns: usize) -> Result<Array> {
        Array::new(&self.pool, rows, columns)
    }

    fn zeros(&self, rows: usize, columns: usize) -> Result<Array> {
        let array = self.array(rows, columns)?;
        rules::zero(self.device(), array.view())?;
        Ok(array)
    }

    /// The sum of a slot, made if there is none, and what becomes of its values.
    fn sum<'a>(
        &self,
        slot: &'a mut Slot<Array>,
        (rows, columns): (usize, usize),
    ) -> Result<(&'a Array, Update)> {
        let update = match slot {
            Some(_) => Update::Add,
            None => Update::Set,
        };
        if slot.is_none() {
            *slot = Some(self.array(rows, columns)?);
        }
        Ok((slot.as_ref().expect("it was just made"), update))
    }

    /// The same, beginning with zeros.
    fn zeroed_sum<'a>(
        &self,
        slot: &'a mut Slot<Array>,
        (rows, columns): (usize, usize),
    ) -> Result<&'a Array> {
        let (sum, update) = self.sum(slot, (rows, columns))?;
        if update == Update::Set {
            rules::zero(self.device(), sum.view())?;
        }
        Ok(sum)
    }

    /// Gives `work` the rows of a matrix that are meant, as they are or unpacked, in parts.
    fn each_part(
        &self,
        (linear, rows): (&CudaLinear, Range<usize>),
        mut work: impl FnMut(Range<usize>, Matrix<'_>) -> Result<()>,
    ) -> Result<()> {
        if let Some(dense) = linear.dense() {
            return work(0..rows.len(), dense.rows_from(rows.start));
        }
        let width = linear.in_features();
        let most = (UNPACKED_BYTES / (2 * width)).clamp(1, rows.len());
        let room = self.pool.take(Type::BF16, most * width)?;
        for part in stretches(rows.len(), most) {
            let theirs = rows.start + part.start..rows.start + part.end;
            let unpacked = room.view().matrix(width);
            linear.unpack_rows(self.device(), theirs, unpacked)?;
            work(part, unpacked)?;
        }
        Ok(())
    }

    fn multiply(&self, product: &MatMul<'_>) -> Result<()> {
        Ok(rules::matmul(self.device(), product)?)
    }

    fn segments<'a>(
        heads: &Heads<'a, Array>,
        pack: &'a DevicePack,
        shape: &AttentionShape,
    ) -> rules::SegmentAttention<'a> {
        rules::SegmentAttention {
            q: heads.q.matrix(),
            k: heads.k.matrix(),
            v: heads.v.matrix(),
            starts: pack.segment_starts(),
            segments: pack.segments,
            longest: pack.longest,
            shape: *shape,
        }
    }
}

/// How a trained tensor lies: a vector is one row.
pub(super) fn matrix_shape(dims: &[usize]) -> (usize, usize) {
    match dims {
        [rows, columns] => (*rows, *columns),
        _ => (1, dims.iter().product()),
    }
}

impl Frozen<Cuda> {
    /// The weights of `decoder`, shared.
    pub(super) fn of_device(decoder: &CudaDecoder) -> Result<Self> {
        let angles = Angles::Shared(decoder.clone());
        let compute = Cuda::new(decoder.device(), angles)?;
        let vector = |weights: &Buffer<f32>| {
            let values = weights.read()?;
            Array::upload(&compute.pool, &values, (1, values.len()))
        };
        let matrix = |which| Shared {
            decoder: decoder.clone(),
            which,
        };
        let mut layers = Vec::with_capacity(decoder.config().num_layers);
        for index in 0..decoder.config().num_layers {
            let norms = decoder.norms(index);
            layers.push(FrozenLayer {
                attention_norm: vector(norms.attention)?,
                projections: Projection::ALL
                    .map(|projection| matrix(Which::Projection(index, projection))),
                head_norms: match norms.heads {
                    Some([q, k]) => Some([vector(q)?, vector(k)?]),
                    None => None,
                },
                mlp_norm: vector(norms.mlp)?,
            });
        }
        Ok(Self {
            embedding: matrix(Which::Embedding),
            layers,
            norm: vector(decoder.norm())?,
            output: decoder.output().map(|_| matrix(Which::Output)),
            compute,
        })
    }
}

impl Compute for Cuda {
    type Array = Array;
    type Linear = Shared;
    type Pack<'p> = DevicePack;
    type Values<'p> = Arc<Vec<Array>>;
    type Slopes<'p> = Array;
    type Scores = Array;

    fn pack(&self, pack: &Pack) -> Result<DevicePack> {
        DevicePack::new(&self.pool, pack)
    }

    fn values(&self, parameters: &Parameters) -> Result<Arc<Vec<Array>>> {
        let mut copies = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
        let version = parameters.version();
        if copies.version != Some(version) {
            // The old ones go first: there may be no room for both.
            copies.version = None;
            copies.list = Arc::default();
            let mut list = Vec::with_capacity(parameters.iter().len());
            for one in parameters.iter() {
                let values = one.value.flatten_all()?.to_vec1::<f32>()?;
                let shape = matrix_shape(one.value.dims());
                list.push(Array::upload(&self.pool, &values, shape)?);
            }
            copies.list = Arc::new(list);
            copies.version = Some(version);
        }
        Ok(Arc::clone(&copies.list))
    }

    fn value(values: &Arc<Vec<Array>>, id: ParameterId) -> &Array {
        &values[id.0]
    }

    fn slopes(&self, values: &[f32]) -> Result<Array> {
        Array::upload(&self.pool, values, (1, values.len()))
    }

    fn embed(&self, table: &Shared, pack: &DevicePack) -> Result<Array> {
        let (linear, _) = table.rows();
        let x = self.array(pack.rows, linear.in_features())?;
        kernels::cuda::embed(self.device(), linear, pack.tokens(), pack.rows, x.matrix())?;
        Ok(x)
    }

    fn embed_trained(&self, table: &Array, pack: &DevicePack) -> Result<Array> {
        let x = self.array(pack.rows, table.columns)?;
        let rows = (table.matrix(), table.rows);
        let tokens = pack.tokens();
        kernels::cuda::gather_rows(self.device(), rows, tokens, pack.rows, x.matrix())?;
        Ok(x)
    }

    fn add_by_token(
        &self,
        slot: &mut Slot<Array>,
        table: &Array,
        gradient: &Array,
        pack: &DevicePack,
    ) -> Result<()> {
        let sum = self.zeroed_sum(slot, (table.rows, table.columns))?;
        let from = (gradient.matrix(), gradient.rows);
        let to = (sum.matrix(), sum.rows);
        let tokens = pack.token_rows();
        Ok(rules::add_rows_by_token(self.device(), from, &tokens, to)?)
    }

    fn rms_norm(&self, x: &Array, weight: &Array, eps: f32) -> Result<Array> {
        let len = weight.len();
        let normed = self.array(x.rows, x.columns)?;
        let norm = Norm {
            weight: weight.view(),
            eps,
        };
        let (from, to) = (x.pieces(len), normed.pieces(len));
        kernels::cuda::rms_norm(self.device(), from, norm, x.len() / len, to)?;
        Ok(normed)
    }

    fn add_rms_norm(
        &self,
        y: Array,
        x: &Array,
        weight: &Array,
        eps: f32,
    ) -> Result<(Array, Array)> {
        let sum = y.changed();
        let normed = self.array(x.rows, x.columns)?;
        let norm = Norm {
            weight: weight.view(),
            eps,
        };
        let (x, to) = (x.matrix(), normed.matrix());
        kernels::cuda::add_rms_norm(self.device(), x, sum.matrix(), norm, sum.rows, to)?;
        Ok((normed, sum))
    }

    fn rms_norm_backward(
        &self,
        (x, weight): (&Array, &Array),
        gradient: &Array,
        eps: f32,
        slot: Option<&mut Slot<Array>>,
    ) -> Result<Array> {
        let len = weight.len();
        let (rows, dx) = (x.len() / len, self.array(x.rows, x.columns)?);
        let sum = match slot {
            Some(slot) => {
                let scratch = rules::NormWeightGradient::scratch_len(rows, len);
                Some((self.zeroed_sum(slot, (1, len))?, self.array(1, scratch)?))
            }
            None => None,
        };
        let backward = rules::RmsNormBackward {
            x: x.pieces(len),
            gradient: gradient.pieces(len),
            dx: dx.pieces(len),
            norm: Norm {
                weight: weight.view(),
                eps,
            },
            update: Update::Set,
            weight: sum
                .as_ref()
                .map(|(sum, scratch)| rules::NormWeightGradient {
                    out: sum.view(),
                    scratch: scratch.view(),
                }),
        };
        rules::rms_norm_backward(self.device(), &backward, rows)?;
        Ok(dx)
    }

    fn rope(&self, x: Array, pack: &DevicePack, turn: Turn) -> Result<Array> {
        let x = x.changed();
        let turn = match turn {
            Turn::Forth => rules::Turn::Forth,
            Turn::Back => rules::Turn::Back,
        };
        let (table, positions) = (self.angles(), pack.positions());
        rules::rope_rows(self.device(), x.matrix(), table, positions, turn, x.rows)?;
        Ok(x)
    }

    fn attention(
        &self,
        heads: Heads<'_, Array>,
        pack: &DevicePack,
        shape: &AttentionShape,
    ) -> Result<(Array, Array)> {
        let rows = heads.q.rows;
        let mixed = self.array(rows, heads.q.columns)?;
        let lse = self.array(shape.query_heads, rows)?;
        let operands = Self::segments(&heads, pack, shape);
        let (to, lse_to) = (mixed.matrix(), lse.view());
        rules::segment_attention(self.device(), &operands, to, lse_to, rows)?;
        Ok((mixed, lse))
    }

    fn attention_backward(
        &self,
        heads: Heads<'_, Array>,
        (mixed, lse, gradient): (&Array, &Array, &Array),
        pack: &DevicePack,
        shape: &AttentionShape,
    ) -> Result<[Array; 3]> {
        let rows = heads.q.rows;
        let dq = self.array(rows, heads.q.columns)?;
        let dk = self.array(rows, heads.k.columns)?;
        let dv = self.array(rows, heads.v.columns)?;
        let scratch = self.array(shape.query_heads, rows)?;
        let operands = Self::segments(&heads, pack, shape);
        let backward = rules::AttentionBackward {
            mixed: mixed.matrix(),
            lse: lse.view(),
            gradient: gradient.matrix(),
            dq: dq.matrix(),
            dk: dk.matrix(),
            dv: dv.matrix(),
            scratch: scratch.view(),
        };
        rules::segment_attention_backward(self.device(), &operands, &backward, rows)?;
        Ok([dq, dk, dv])
    }

    fn swiglu(&self, gate: &Array, up: &Array) -> Result<Array> {
        let inner = self.array(gate.rows, gate.columns)?;
        let (from, to) = ((gate.matrix(), up.matrix()), inner.matrix());
        kernels::cuda::swiglu(self.device(), from.0, from.1, gate.rows, to)?;
        Ok(inner)
    }

    fn swiglu_backward(
        &self,
        gate: &Array,
        up: &Array,
        gradient: &Array,
    ) -> Result<(Array, Array)> {
        let of_gate = self.array(gate.rows, gate.columns)?;
        let of_up = self.array(gate.rows, gate.columns)?;
        rules::swiglu_backward(
            self.device(),
            (gate.matrix(), up.matrix()),
            gradient.matrix(),
            (of_gate.matrix(), of_up.matrix()),
            gate.rows,
        )?;
        Ok((of_gate, of_up))
    }

    fn add(&self, x: Array, y: &Array) -> Result<Array> {
        let x = x.changed();
        rules::add(self.device(), y.matrix(), x.matrix(), x.rows)?;
        Ok(x)
    }

    fn product(&self, base: &Shared, x: &Array) -> Result<Array> {
        let (linear, rows) = base.rows();
        let y = self.array(x.rows, rows.len())?;
        let mut update = Update::Set;
        if let Some(bias) = linear.bias() {
            let bias = bias.slice(rows.clone());
            rules::fill_rows(self.device(), bias, y.matrix(), y.rows)?;
            update = Update::Add;
        }
        self.each_part((linear, rows), |range, weights| {
            self.multiply(&MatMul {
                a: x.factor(&self.pool, weights.kind())?,
                b: weights,
                c: y.matrix().columns(range.clone()),
                form: rules::Form::ABt,
                shape: (x.rows, range.len(), x.columns),
                scale: 1.0,
                update,
            })
        })?;
        Ok(y)
    }

    fn product_backward(&self, base: &Shared, gradient: &Array) -> Result<Array> {
        let (linear, rows) = base.rows();
        let dx = self.array(gradient.rows, linear.in_features())?;
        let mut update = Update::Set;
        self.each_part((linear, rows), |range, weights| {
            let gradient_part = gradient.factor(&self.pool, weights.kind())?;
            self.multiply(&MatMul {
                a: gradient_part.columns(range.clone()),
                b: weights,
                c: dx.matrix(),
                form: rules::Form::AB,
                shape: (gradient.rows, dx.columns, range.len()),
                scale: 1.0,
                update: std::mem::replace(&mut update, Update::Add),
            })
        })?;
        Ok(dx)
    }

    fn add_low_rank(&self, y: Array, x: &Array, adapter: LowRank<'_, Array>) -> Result<Array> {
        let y = y.changed();
        let hidden = self.matmul((x, adapter.a), Form::ABt, 1.0)?;
        self.multiply(&MatMul {
            a: hidden.matrix(),
            b: adapter.b.matrix(),
            c: y.matrix(),
            form: rules::Form::ABt,
            shape: (y.rows, y.columns, hidden.columns),
            scale: adapter.scale,
            update: Update::Add,
        })?;
        Ok(y)
    }

    fn matmul(&self, (a, b): (&Array, &Array), form: Form, scale: f32) -> Result<Array> {
        let (form, columns) = match form {
            Form::ABt => (rules::Form::ABt, b.rows),
            Form::AB => (rules::Form::AB, b.columns),
        };
        let c = self.array(a.rows, columns)?;
        self.multiply(&MatMul {
            a: a.matrix(),
            b: b.matrix(),
            c: c.matrix(),
            form,
            shape: (a.rows, columns, a.columns),
            scale,
            update: Update::Set,
        })?;
        Ok(c)
    }

    fn add_matmul(&self, sum: Array, a: &Array, b: &Array) -> Result<Array> {
        let sum = sum.changed();
        self.multiply(&MatMul {
            a: a.matrix(),
            b: b.matrix(),
            c: sum.matrix(),
            form: rules::Form::AB,
            shape: (a.rows, b.columns, a.columns),
            scale: 1.0,
            update: Update::Add,
        })?;
        Ok(sum)
    }

    fn add_outer(&self, slot: &mut Slot<Array>, a: &Array, b: &Array) -> Result<()> {
        let (sum, update) = self.sum(slot, (a.columns, b.columns))?;
        self.multiply(&MatMul {
            a: a.matrix(),
            b: b.matrix(),
            c: sum.matrix(),
            form: rules::Form::AtB,
            shape: (a.columns, b.columns, a.rows),
            scale: 1.0,
            update,
        })
    }

    fn add_rows(&self, slot: &mut Slot<Array>, rows: &Array) -> Result<()> {
        let (sum, update) = self.sum(slot, (1, rows.columns))?;
        let to = sum.view();
        Ok(rules::column_sums(
            self.device(),
            rows.matrix(),
            rows.rows,
            to,
            update,
        )?)
    }

    fn add_bias(&self, x: Array, bias: &Array) -> Result<Array> {
        let every = self.array(x.rows, x.columns)?;
        rules::fill_rows(self.device(), bias.view(), every.matrix(), x.rows)?;
        self.add(x, &every)
    }

    fn dropout(&self, x: &Array, dropout: Dropout, site: u64) -> Result<Array> {
        let out = self.array(x.rows, x.columns)?;
        let dropout = rules::Dropout {
            probability: dropout.probability,
            key: dropout.key,
            site,
        };
        let to = (out.matrix(), Update::Set);
        rules::dropout(self.device(), x.matrix(), to, x.rows, &dropout)?;
        Ok(out)
    }

    fn wanted_rows(&self, x: &Array, pack: &DevicePack) -> Result<Array> {
        let rows = self.array(pack.targets, x.columns)?;
        let (from, count) = ((x.matrix(), x.rows), pack.targets);
        kernels::cuda::gather_rows(self.device(), from, pack.wanted(), count, rows.matrix())?;
        Ok(rows)
    }

    fn scatter_wanted(&self, rows: &Array, x: &Array, pack: &DevicePack) -> Result<Array> {
        let all = self.zeros(x.rows, x.columns)?;
        let (index, to) = ((pack.wanted(), pack.targets), (all.matrix(), all.rows));
        rules::scatter_rows(self.device(), rows.matrix(), index, to, Update::Set)?;
        Ok(all)
    }

    fn zeros_like(&self, x: &Array) -> Result<Array> {
        self.zeros(x.rows, x.columns)
    }

    fn rows(&self, x: &Array, range: Range<usize>) -> Result<Array> {
        Ok(x.part(range))
    }

    fn stack(&self, parts: &[Array]) -> Result<Array> {
        let rows = parts.iter().map(|part| part.rows).sum();
        let columns = parts.first().map_or(1, |part| part.columns);
        let all = self.array(rows, columns)?;
        let mut first = 0;
        for part in parts {
            let to = all.matrix().rows_from(first);
            kernels::cuda::cast(self.device(), part.matrix(), part.rows, to)?;
            first += part.rows;
        }
        Ok(all)
    }

    fn score_targets(
        &self,
        logits: &Array,
        pack: &DevicePack,
        range: Range<usize>,
    ) -> Result<Array> {
        let scores = self.array(range.len(), SCORE)?;
        let (rows, targets) = (range.len(), pack.target_tokens(range));
        rules::score_targets(self.device(), logits.matrix(), targets, scores.view(), rows)?;
        Ok(scores)
    }

    fn read_scores(&self, parts: Vec<Array>) -> Result<Vec<TokenScore>> {
        let mut scores = Vec::new();
        for part in parts {
            let values = part.read()?;
            let (found, _) = values.as_chunks::<SCORE>();
            scores.extend(
                found
                    .iter()
                    .map(|&[log_prob, entropy, mean_logit, top]| TokenScore {
                        log_prob,
                        entropy,
                        mean_logit,
                        is_top: top != 0.0,
                    }),
            );
        }
        Ok(scores)
    }

    fn target_gradient(
        &self,
        logits: Array,
        pack: &DevicePack,
        range: Range<usize>,
        slopes: &Array,
    ) -> Result<Array> {
        let gradient = logits.changed();
        let slopes = slopes.view().slice(range.clone());
        let (rows, of_logits) = (range.len(), gradient.matrix());
        let targets = (pack.target_tokens(range), slopes);
        rules::target_gradient(self.device(), of_logits, targets, of_logits, rows)?;
        Ok(gradient)
    }
}
