//! One decoder layer, forward and backward.
//!
//! ```text
//! normed = rms_norm(x)            h      = x + o(mixed)
//! q, k, v = projections(normed)   middle = rms_norm(h)
//! q, k    = rope(head_norm(..))   inner  = silu(gate(middle)) * up(middle)
//! mixed   = attention(q, k, v)    output = h + down(inner)
//! ```

use super::matrix::{Below, Matrix};
use super::{Pass, Vector};
use crate::Result;
use crate::parameters::Gradients;
use candle_core::Tensor;
use kernels::training::{
    AttentionShape, rms_norm_backward, segment_attention, segment_attention_backward,
    swiglu_backward,
};
use kernels::{add_rms_norm, rms_norm, rope, swiglu};
use model::Projection;

/// The weights of a layer.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) attention_norm: Vector,
    /// In the order of [`Projection::ALL`].
    pub(super) projections: [Matrix; Projection::ALL.len()],
    /// (D) each, for the heads of q and of k.
    pub(super) head_norms: Option<[Vector; 2]>,
    pub(super) mlp_norm: Vector,
    pub(super) attention: AttentionShape,
    /// Whether anything below this layer is trained.
    pub(super) below: Below,
}

/// What the backward pass of a layer reads, all (T, ...).
#[derive(Debug)]
pub(super) struct Saved {
    normed: Tensor,
    /// q and k before their norms, where heads have norms.
    raw: Option<[Tensor; 2]>,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mixed: Tensor,
    lse: Tensor,
    /// The residual stream between attention and MLP.
    h: Tensor,
    middle: Tensor,
    gate: Tensor,
    up: Tensor,
    inner: Tensor,
}

impl Block {
    fn matrix(&self, projection: Projection) -> &Matrix {
        &self.projections[projection as usize]
    }

    /// The layer's output (T, H) for its input (T, H).
    pub(super) fn forward(&self, pass: &Pass<'_>, x: &Tensor) -> Result<(Tensor, Saved)> {
        let eps = pass.config.rms_norm_eps;
        let normed = rms_norm(x, pass.vector(&self.attention_norm), eps)?;
        let q = self.matrix(Projection::Q).forward(pass, &normed)?;
        let k = self.matrix(Projection::K).forward(pass, &normed)?;
        let v = self.matrix(Projection::V).forward(pass, &normed)?;
        let (raw, [q, k]) = match &self.head_norms {
            Some([of_q, of_k]) => {
                let normed = [per_head(pass, &q, of_q)?, per_head(pass, &k, of_k)?];
                (Some([q, k]), normed)
            }
            None => (None, [q, k]),
        };
        let q = rope(&q, pass.rope, pass.positions)?;
        let k = rope(&k, pass.rope, pass.positions)?;
        let (mixed, lse) = segment_attention((&q, &k, &v), pass.segments, &self.attention)?;
        let o = self.matrix(Projection::O).forward(pass, &mixed)?;
        let (middle, h) = add_rms_norm(&o, x, pass.vector(&self.mlp_norm), eps)?;
        let gate = self.matrix(Projection::Gate).forward(pass, &middle)?;
        let up = self.matrix(Projection::Up).forward(pass, &middle)?;
        let inner = swiglu(&gate, &up)?;
        let down = self.matrix(Projection::Down).forward(pass, &inner)?;
        let output = (&h + down)?;
        let saved = Saved {
            normed,
            raw,
            q,
            k,
            v,
            mixed,
            lse,
            h,
            middle,
            gate,
            up,
            inner,
        };
        Ok((output, saved))
    }

    /// The gradient of the input, for the input `x`, what the forward pass saved and the
    /// gradient of the output; all (T, H).
    pub(super) fn backward(
        &self,
        pass: &Pass<'_>,
        x: &Tensor,
        saved: &Saved,
        gradient: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let eps = pass.config.rms_norm_eps;
        let of_inner = self.through(Projection::Down, pass, (&saved.inner, gradient), gradients)?;
        let (of_gate, of_up) = swiglu_backward(&saved.gate, &saved.up, &of_inner)?;
        let by_gate = self.through(Projection::Gate, pass, (&saved.middle, &of_gate), gradients)?;
        let by_up = self.through(Projection::Up, pass, (&saved.middle, &of_up), gradients)?;
        let of_middle = (by_gate + by_up)?;
        let norm = rms_norm_backward(&saved.h, pass.vector(&self.mlp_norm), &of_middle, eps)?;
        self.mlp_norm.add_gradient(norm.weight, gradients)?;
        let of_h = (gradient + norm.x)?;

        let of_mixed = self.through(Projection::O, pass, (&saved.mixed, &of_h), gradients)?;
        let (of_q, of_k, of_v) = segment_attention_backward(
            (&saved.q, &saved.k, &saved.v),
            (&saved.mixed, &saved.lse),
            &of_mixed,
            pass.segments,
            &self.attention,
        )?;
        let mut of_q = rope(&of_q, pass.unrope, pass.positions)?;
        let mut of_k = rope(&of_k, pass.unrope, pass.positions)?;
        if let (Some([q_norm, k_norm]), Some([q, k])) = (&self.head_norms, &saved.raw) {
            of_q = per_head_backward(pass, (q, &of_q), q_norm, gradients)?;
            of_k = per_head_backward(pass, (k, &of_k), k_norm, gradients)?;
        }
        let mut of_normed: Option<Tensor> = None;
        let qkv = [
            (Projection::Q, &of_q),
            (Projection::K, &of_k),
            (Projection::V, &of_v),
        ];
        for (projection, gradient) in qkv {
            let operands = (&saved.normed, gradient);
            let matrix = self.matrix(projection);
            let share = matrix.backward(pass, operands, self.below, gradients)?;
            of_normed = match (of_normed, share) {
                (Some(sum), Some(share)) => Some((sum + share)?),
                (sum, share) => sum.or(share),
            };
        }
        let Some(of_normed) = of_normed else {
            return Ok(of_h); // nothing below is trained: nobody reads this
        };
        let weight = pass.vector(&self.attention_norm);
        let norm = rms_norm_backward(x, weight, &of_normed, eps)?;
        self.attention_norm.add_gradient(norm.weight, gradients)?;
        Ok((of_h + norm.x)?)
    }

    /// The gradient of a product's input, which something in this layer below it needs.
    fn through(
        &self,
        projection: Projection,
        pass: &Pass<'_>,
        operands: (&Tensor, &Tensor),
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let matrix = self.matrix(projection);
        let found = matrix.backward(pass, operands, Below::Trained, gradients)?;
        Ok(found.expect("asked for by `Below::Trained`"))
    }
}

/// (T, heads * D) as (T * heads, D).
fn heads(x: &Tensor, head_dim: usize) -> Result<Tensor> {
    Ok(x.reshape((x.elem_count() / head_dim, head_dim))?)
}

/// Normalises each head by itself.
fn per_head(pass: &Pass<'_>, x: &Tensor, norm: &Vector) -> Result<Tensor> {
    let by_head = heads(x, pass.config.head_dim)?;
    let normed = rms_norm(&by_head, pass.vector(norm), pass.config.rms_norm_eps)?;
    Ok(normed.reshape(x.shape())?)
}

fn per_head_backward(
    pass: &Pass<'_>,
    (x, gradient): (&Tensor, &Tensor),
    norm: &Vector,
    gradients: &mut Gradients,
) -> Result<Tensor> {
    let head_dim = pass.config.head_dim;
    let (weight, eps) = (pass.vector(norm), pass.config.rms_norm_eps);
    let found = rms_norm_backward(
        &heads(x, head_dim)?,
        weight,
        &heads(gradient, head_dim)?,
        eps,
    )?;
    norm.add_gradient(found.weight, gradients)?;
    Ok(found.x.reshape(x.shape())?)
}
