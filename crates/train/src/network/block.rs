//! One decoder layer, forward and backward.
//!
//! ```text
//! normed = rms_norm(x)            h      = x + o(mixed)
//! q, k, v = projections(normed)   middle = rms_norm(h)
//! q, k    = rope(head_norm(..))   inner  = silu(gate(middle)) * up(middle)
//! mixed   = attention(q, k, v)    output = h + down(inner)
//! ```

use super::Pass;
use super::compute::{Compute, Heads, Turn};
use super::matrix::{Below, Matrix};
use super::vector::Vector;
use crate::Result;
use crate::parameters::Sums;
use kernels::training::AttentionShape;
use model::Projection;

/// The weights of a layer.
#[derive(Debug)]
pub(super) struct Block<C: Compute> {
    pub(super) attention_norm: Vector<C>,
    /// In the order of [`Projection::ALL`].
    pub(super) projections: [Matrix<C>; Projection::ALL.len()],
    /// (D) each, for the heads of q and of k.
    pub(super) head_norms: Option<[Vector<C>; 2]>,
    pub(super) mlp_norm: Vector<C>,
    pub(super) attention: AttentionShape,
    /// Whether anything below this layer is trained.
    pub(super) below: Below,
}

/// What the backward pass of a layer reads, all (T, ...).
#[derive(Debug)]
pub(super) struct Saved<A> {
    attention: Attention<A>,
    mlp: Mlp<A>,
}

#[derive(Debug)]
struct Attention<A> {
    normed: A,
    /// q and k before their norms, where heads have norms.
    raw: Option<[A; 2]>,
    q: A,
    k: A,
    v: A,
    mixed: A,
    lse: A,
}

#[derive(Debug)]
struct Mlp<A> {
    /// The residual stream between attention and MLP.
    h: A,
    middle: A,
    gate: A,
    up: A,
    inner: A,
}

impl<C: Compute> Block<C> {
    fn matrix(&self, projection: Projection) -> &Matrix<C> {
        &self.projections[projection as usize]
    }

    /// The layer's output (T, H) for its input (T, H).
    pub(super) fn forward(
        &self,
        pass: &Pass<'_, C>,
        x: &C::Array,
    ) -> Result<(C::Array, Saved<C::Array>)> {
        let saved = self.inside(pass, x)?;
        let mlp = &saved.mlp;
        let down = self.matrix(Projection::Down).forward(pass, &mlp.inner)?;
        let output = pass.compute.add(down, &mlp.h)?;
        Ok((output, saved))
    }

    /// What the backward pass reads, for the layer's input: everything but the last product.
    pub(super) fn inside(&self, pass: &Pass<'_, C>, x: &C::Array) -> Result<Saved<C::Array>> {
        let (compute, eps) = (pass.compute, pass.config.rms_norm_eps);
        let attention = self.attend(pass, x)?;
        let o = self.matrix(Projection::O).forward(pass, &attention.mixed)?;
        let (middle, h) = compute.add_rms_norm(o, x, pass.vector(&self.mlp_norm), eps)?;
        let gate = self.matrix(Projection::Gate).forward(pass, &middle)?;
        let up = self.matrix(Projection::Up).forward(pass, &middle)?;
        let inner = compute.swiglu(&gate, &up)?;
        let mlp = Mlp {
            h,
            middle,
            gate,
            up,
            inner,
        };
        Ok(Saved { attention, mlp })
    }

    fn attend(&self, pass: &Pass<'_, C>, x: &C::Array) -> Result<Attention<C::Array>> {
        let (compute, eps) = (pass.compute, pass.config.rms_norm_eps);
        let normed = compute.rms_norm(x, pass.vector(&self.attention_norm), eps)?;
        let q = self.matrix(Projection::Q).forward(pass, &normed)?;
        let k = self.matrix(Projection::K).forward(pass, &normed)?;
        let v = self.matrix(Projection::V).forward(pass, &normed)?;
        let (raw, [q, k]) = match &self.head_norms {
            Some([of_q, of_k]) => {
                let normed = [
                    compute.rms_norm(&q, pass.vector(of_q), eps)?,
                    compute.rms_norm(&k, pass.vector(of_k), eps)?,
                ];
                (Some([q, k]), normed)
            }
            None => (None, [q, k]),
        };
        let q = compute.rope(q, &pass.pack, Turn::Forth)?;
        let k = compute.rope(k, &pass.pack, Turn::Forth)?;
        let heads = Heads {
            q: &q,
            k: &k,
            v: &v,
        };
        let (mixed, lse) = compute.attention(heads, &pass.pack, &self.attention)?;
        Ok(Attention {
            normed,
            raw,
            q,
            k,
            v,
            mixed,
            lse,
        })
    }

    /// The gradient of the input, for the input `x`, what the forward pass saved and the
    /// gradient of the output; all (T, H).
    pub(super) fn backward(
        &self,
        pass: &Pass<'_, C>,
        (x, saved): (&C::Array, Saved<C::Array>),
        gradient: C::Array,
        sums: &mut Sums<C::Array>,
    ) -> Result<C::Array> {
        let of_h = self.mlp_backward(pass, saved.mlp, gradient, sums)?;
        let attention = saved.attention;
        let operands = (&attention.mixed, &of_h);
        let of_mixed = self.through(Projection::O, pass, operands, sums)?;
        let of_normed = self.attention_backward(pass, attention, of_mixed, sums)?;
        let Some(of_normed) = of_normed else {
            return Ok(of_h); // nothing below is trained: nobody reads this
        };
        let norm = self.norm_backward(pass, (x, &self.attention_norm), &of_normed, sums)?;
        pass.compute.add(of_h, &norm)
    }

    /// The gradient of the residual stream between attention and MLP.
    fn mlp_backward(
        &self,
        pass: &Pass<'_, C>,
        saved: Mlp<C::Array>,
        gradient: C::Array,
        sums: &mut Sums<C::Array>,
    ) -> Result<C::Array> {
        let compute = pass.compute;
        let Mlp {
            h,
            middle,
            gate,
            up,
            inner,
        } = saved;
        let of_inner = self.through(Projection::Down, pass, (&inner, &gradient), sums)?;
        drop(inner);
        let (of_gate, of_up) = compute.swiglu_backward(&gate, &up, &of_inner)?;
        drop((gate, up, of_inner));
        let by_gate = self.through(Projection::Gate, pass, (&middle, &of_gate), sums)?;
        drop(of_gate);
        let by_up = self.through(Projection::Up, pass, (&middle, &of_up), sums)?;
        drop(of_up);
        let of_middle = compute.add(by_gate, &by_up)?;
        let norm = self.norm_backward(pass, (&h, &self.mlp_norm), &of_middle, sums)?;
        compute.add(gradient, &norm)
    }

    /// The gradient of what q, k and v are read from, where it is wanted.
    fn attention_backward(
        &self,
        pass: &Pass<'_, C>,
        saved: Attention<C::Array>,
        of_mixed: C::Array,
        sums: &mut Sums<C::Array>,
    ) -> Result<Option<C::Array>> {
        let compute = pass.compute;
        let Attention {
            normed,
            raw,
            q,
            k,
            v,
            mixed,
            lse,
        } = saved;
        let heads = Heads {
            q: &q,
            k: &k,
            v: &v,
        };
        let found = (&mixed, &lse, &of_mixed);
        let [of_q, of_k, of_v] =
            compute.attention_backward(heads, found, &pass.pack, &self.attention)?;
        drop((q, k, v, mixed, lse, of_mixed));
        let mut of_q = compute.rope(of_q, &pass.pack, Turn::Back)?;
        let mut of_k = compute.rope(of_k, &pass.pack, Turn::Back)?;
        if let (Some([q_norm, k_norm]), Some([q, k])) = (&self.head_norms, &raw) {
            of_q = self.norm_backward(pass, (q, q_norm), &of_q, sums)?;
            of_k = self.norm_backward(pass, (k, k_norm), &of_k, sums)?;
        }
        let mut of_normed: Option<C::Array> = None;
        let qkv = [
            (Projection::Q, of_q),
            (Projection::K, of_k),
            (Projection::V, of_v),
        ];
        for (projection, gradient) in qkv {
            let operands = (&normed, &gradient);
            let matrix = self.matrix(projection);
            let share = matrix.backward(pass, operands, self.below, sums)?;
            of_normed = match (of_normed, share) {
                (Some(sum), Some(share)) => Some(compute.add(sum, &share)?),
                (sum, share) => sum.or(share),
            };
        }
        Ok(of_normed)
    }

    fn norm_backward(
        &self,
        pass: &Pass<'_, C>,
        (x, norm): (&C::Array, &Vector<C>),
        gradient: &C::Array,
        sums: &mut Sums<C::Array>,
    ) -> Result<C::Array> {
        let eps = pass.config.rms_norm_eps;
        let operands = (x, pass.vector(norm));
        let slot = norm.slot(sums);
        pass.compute
            .rms_norm_backward(operands, gradient, eps, slot)
    }

    /// The gradient of a product's input, which something in this layer below it needs.
    fn through(
        &self,
        projection: Projection,
        pass: &Pass<'_, C>,
        operands: (&C::Array, &C::Array),
        sums: &mut Sums<C::Array>,
    ) -> Result<C::Array> {
        let matrix = self.matrix(projection);
        let found = matrix.backward(pass, operands, Below::Trained, sums)?;
        Ok(found.expect("asked for by `Below::Trained`"))
    }
}
