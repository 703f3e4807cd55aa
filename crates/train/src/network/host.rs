//! The processor: candle's tensors and the kernels of `kernels` and `kernels::training`.

use super::compute::{Compute, Form, Heads, LowRank, Slot, Turn};
use super::matrix::Dropout;
use crate::Result;
use crate::pack::{Pack, stretches};
use crate::parameters::{ParameterId, Parameters, add_to, tensor};
use candle_core::{Device, Tensor};
use kernels::training::{
    AttentionShape, TokenScore, rms_norm_backward, score_targets, segment_attention,
    segment_attention_backward, swiglu_backward, target_gradient,
};
use kernels::{Linear, LoraWeights, Rope, add_rms_norm, lora_add, rms_norm, rope, swiglu};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::ops::Range;
use std::sync::Arc;

/// The angles of positions, both ways.
#[derive(Debug)]
pub(super) struct Host {
    forth: Rope,
    back: Rope,
}

impl Host {
    /// Angles by position.
    #[cfg(feature = "device")]
    pub(super) fn angles(&self) -> &Rope {
        &self.forth
    }

    pub(super) fn new(rope: &Rope) -> Result<Self> {
        Ok(Self {
            forth: rope.clone(),
            back: rope.inverse()?,
        })
    }
}

/// (T, heads * D) as (T * heads, D).
fn pieces(x: &Tensor, len: usize) -> Result<Tensor> {
    Ok(x.reshape((x.elem_count() / len, len))?)
}

fn ids(pack: &Pack) -> Result<Tensor> {
    Ok(Tensor::new(pack.tokens.as_slice(), &Device::Cpu)?)
}

fn wanted(pack: &Pack) -> Result<Tensor> {
    let rows: Vec<u32> = pack.targets.iter().map(|target| target.row).collect();
    Ok(Tensor::new(rows, &Device::Cpu)?)
}

fn targets(pack: &Pack, range: Range<usize>) -> Vec<u32> {
    let targets = pack.targets[range].iter();
    targets.map(|target| target.token).collect()
}

impl Compute for Host {
    type Array = Tensor;
    type Linear = Arc<Linear>;
    type Pack<'p> = &'p Pack;
    type Values<'p> = &'p Parameters;
    type Slopes<'p> = &'p [f32];
    type Scores = Vec<TokenScore>;

    fn pack<'p>(&self, pack: &'p Pack) -> Result<&'p Pack> {
        Ok(pack)
    }

    fn values<'p>(&self, parameters: &'p Parameters) -> Result<&'p Parameters> {
        Ok(parameters)
    }

    fn value<'a>(values: &'a &Parameters, id: ParameterId) -> &'a Tensor {
        values.value(id)
    }

    fn slopes<'p>(&self, values: &'p [f32]) -> Result<&'p [f32]> {
        Ok(values)
    }

    fn embed(&self, table: &Arc<Linear>, pack: &&Pack) -> Result<Tensor> {
        Ok(table.rows(&pack.tokens)?)
    }

    fn embed_trained(&self, table: &Tensor, pack: &&Pack) -> Result<Tensor> {
        Ok(table.index_select(&ids(pack)?, 0)?)
    }

    fn add_by_token(
        &self,
        slot: &mut Slot<Tensor>,
        table: &Tensor,
        gradient: &Tensor,
        pack: &&Pack,
    ) -> Result<()> {
        let zeros = table.zeros_like()?;
        add_to(slot, zeros.index_add(&ids(pack)?, gradient, 0)?)
    }

    fn rms_norm(&self, x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
        let normed = rms_norm(&pieces(x, weight.elem_count())?, weight, eps)?;
        Ok(normed.reshape(x.shape())?)
    }

    fn add_rms_norm(
        &self,
        y: Tensor,
        x: &Tensor,
        weight: &Tensor,
        eps: f32,
    ) -> Result<(Tensor, Tensor)> {
        Ok(add_rms_norm(&y, x, weight, eps)?)
    }

    fn rms_norm_backward(
        &self,
        (x, weight): (&Tensor, &Tensor),
        gradient: &Tensor,
        eps: f32,
        slot: Option<&mut Slot<Tensor>>,
    ) -> Result<Tensor> {
        let len = weight.elem_count();
        let found = rms_norm_backward(&pieces(x, len)?, weight, &pieces(gradient, len)?, eps)?;
        if let Some(slot) = slot {
            add_to(slot, found.weight)?;
        }
        Ok(found.x.reshape(x.shape())?)
    }

    fn rope(&self, x: Tensor, pack: &&Pack, turn: Turn) -> Result<Tensor> {
        let angles = match turn {
            Turn::Forth => &self.forth,
            Turn::Back => &self.back,
        };
        Ok(rope(&x, angles, &pack.positions)?)
    }

    fn attention(
        &self,
        heads: Heads<'_, Tensor>,
        pack: &&Pack,
        shape: &AttentionShape,
    ) -> Result<(Tensor, Tensor)> {
        let heads = (heads.q, heads.k, heads.v);
        Ok(segment_attention(heads, &pack.segments, shape)?)
    }

    fn attention_backward(
        &self,
        heads: Heads<'_, Tensor>,
        (mixed, lse, gradient): (&Tensor, &Tensor, &Tensor),
        pack: &&Pack,
        shape: &AttentionShape,
    ) -> Result<[Tensor; 3]> {
        let heads = (heads.q, heads.k, heads.v);
        let segments = &pack.segments;
        let (q, k, v) = segment_attention_backward(heads, (mixed, lse), gradient, segments, shape)?;
        Ok([q, k, v])
    }

    fn swiglu(&self, gate: &Tensor, up: &Tensor) -> Result<Tensor> {
        Ok(swiglu(gate, up)?)
    }

    fn swiglu_backward(
        &self,
        gate: &Tensor,
        up: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Tensor, Tensor)> {
        Ok(swiglu_backward(gate, up, gradient)?)
    }

    fn add(&self, x: Tensor, y: &Tensor) -> Result<Tensor> {
        Ok((x + y)?)
    }

    /// Kernels for quantised weights round activations to 8 bits: good enough to generate, but
    /// the gradient would be that of another function. The values that the weights encode are
    /// multiplied here instead, some rows of them at a time.
    fn product(&self, base: &Arc<Linear>, x: &Tensor) -> Result<Tensor> {
        if base.format().is_dense() {
            return Ok(base.forward(&x.contiguous()?)?);
        }
        let parts = plain_rows(base).map(|part| Ok(x.matmul(&part?.1.t()?)?));
        let y = Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 1)?;
        match base.bias() {
            Some(bias) => Ok(y.broadcast_add(&tensor(bias.to_vec(), &[bias.len()])?)?),
            None => Ok(y),
        }
    }

    fn product_backward(&self, base: &Arc<Linear>, gradient: &Tensor) -> Result<Tensor> {
        let mut sum: Option<Tensor> = None;
        for part in plain_rows(base) {
            let (range, weights) = part?;
            let share = gradient
                .narrow(1, range.start, range.len())?
                .matmul(&weights)?;
            sum = Some(match sum {
                Some(sum) => (sum + share)?,
                None => share,
            });
        }
        Ok(sum.expect("a matrix is not empty"))
    }

    fn add_low_rank(&self, y: Tensor, x: &Tensor, adapter: LowRank<'_, Tensor>) -> Result<Tensor> {
        let rows: Vec<u32> = (0..).take(x.dim(0)?).collect();
        let weights = LoraWeights {
            a: adapter.a,
            b: adapter.b,
            scale: adapter.scale,
        };
        lora_add(&y, x, &weights, &rows)?;
        Ok(y)
    }

    fn matmul(&self, (a, b): (&Tensor, &Tensor), form: Form, scale: f32) -> Result<Tensor> {
        let product = match form {
            Form::ABt => a.matmul(&b.t()?)?,
            Form::AB => a.matmul(b)?,
        };
        match scale {
            1.0 => Ok(product),
            _ => Ok((product * f64::from(scale))?),
        }
    }

    fn add_matmul(&self, sum: Tensor, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        Ok((sum + a.matmul(b)?)?)
    }

    fn add_outer(&self, slot: &mut Slot<Tensor>, a: &Tensor, b: &Tensor) -> Result<()> {
        add_to(slot, a.t()?.matmul(b)?)
    }

    fn add_rows(&self, slot: &mut Slot<Tensor>, rows: &Tensor) -> Result<()> {
        add_to(slot, rows.sum(0)?)
    }

    fn add_bias(&self, x: Tensor, bias: &Tensor) -> Result<Tensor> {
        Ok(x.broadcast_add(bias)?)
    }

    fn dropout(&self, x: &Tensor, dropout: Dropout, site: u64) -> Result<Tensor> {
        let mut rng = ChaCha8Rng::seed_from_u64(dropout.key);
        rng.set_stream(site);
        let kept = (1.0 / (1.0 - dropout.probability)) as f32;
        let threshold = (dropout.probability * 2f64.powi(32)) as u32;
        let values = (0..x.elem_count())
            .map(|_| {
                if rng.next_u32() < threshold {
                    0.0
                } else {
                    kept
                }
            })
            .collect();
        Ok((x * tensor(values, x.dims())?)?)
    }

    fn wanted_rows(&self, x: &Tensor, pack: &&Pack) -> Result<Tensor> {
        Ok(x.index_select(&wanted(pack)?, 0)?)
    }

    fn scatter_wanted(&self, rows: &Tensor, x: &Tensor, pack: &&Pack) -> Result<Tensor> {
        Ok(x.zeros_like()?.index_add(&wanted(pack)?, rows, 0)?)
    }

    fn zeros_like(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.zeros_like()?)
    }

    fn rows(&self, x: &Tensor, range: Range<usize>) -> Result<Tensor> {
        Ok(x.narrow(0, range.start, range.len())?)
    }

    fn stack(&self, parts: &[Tensor]) -> Result<Tensor> {
        Ok(Tensor::cat(parts, 0)?)
    }

    fn score_targets(
        &self,
        logits: &Tensor,
        pack: &&Pack,
        range: Range<usize>,
    ) -> Result<Vec<TokenScore>> {
        Ok(score_targets(logits, &targets(pack, range))?)
    }

    fn read_scores(&self, parts: Vec<Vec<TokenScore>>) -> Result<Vec<TokenScore>> {
        Ok(parts.concat())
    }

    fn target_gradient(
        &self,
        logits: Tensor,
        pack: &&Pack,
        range: Range<usize>,
        slopes: &&[f32],
    ) -> Result<Tensor> {
        target_gradient(&logits, &targets(pack, range.clone()), &slopes[range])?;
        Ok(logits)
    }
}

/// Bytes of a quantised matrix that exist as plain f32 at a time.
const PLAIN_BYTES: usize = 64 << 20;

/// The matrix as plain f32, some rows of it at a time.
fn plain_rows(base: &Linear) -> impl Iterator<Item = Result<(Range<usize>, Tensor)>> {
    let rows = PLAIN_BYTES / (base.in_features() * size_of::<f32>());
    stretches(base.out_features(), rows).map(|range| {
        let ids: Vec<u32> = (0u32..).skip(range.start).take(range.len()).collect();
        let weights = base.rows(&ids)?;
        Ok((range, weights))
    })
}
