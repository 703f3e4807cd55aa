//! What a network is computed with. Layers, head and matrices are written once over this;
//! [`Host`](super::host::Host) is the processor.
//!
//! Arrays are rows of f32 that belong to whoever holds them. Operations that take one by value
//! may write their result where it lies.

use super::matrix::Dropout;
use crate::Result;
use crate::pack::Pack;
use crate::parameters::{ParameterId, Parameters};
use kernels::training::{AttentionShape, TokenScore};
use std::fmt::Debug;
use std::ops::Range;

/// Which way positions turn heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Forth,
    Back,
}

/// Which of two factors is read as its transpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// (m, n) = (m, k) (n, k)^T
    ABt,
    /// (m, n) = (m, k) (k, n)
    AB,
}

/// An adapter's two matrices and the factor of their product.
#[derive(Debug, Clone, Copy)]
pub(super) struct LowRank<'a, A> {
    /// (r, in)
    pub(super) a: &'a A,
    /// (out, r)
    pub(super) b: &'a A,
    pub(super) scale: f32,
}

/// q (T, Hq*D), k and v (T, Hkv*D), after rotation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heads<'a, A> {
    pub(super) q: &'a A,
    pub(super) k: &'a A,
    pub(super) v: &'a A,
}

/// Where a gradient is summed up; nothing = none has arrived yet.
pub(super) type Slot<A> = Option<A>;

/// One place to compute. Every operation fails where its kernel does, or where memory runs out.
pub(super) trait Compute: Debug {
    /// (rows, columns), or (columns), f32.
    type Array: Debug;
    /// A frozen matrix (out, in) with an optional bias (out).
    type Linear: Debug;
    /// A pack, where this can read it.
    type Pack<'p>;
    /// The trained tensors, where this can read them.
    type Values<'p>;
    /// One number for each target of a pack.
    type Slopes<'p>;
    /// Scores that are still to be read.
    type Scores;

    fn pack<'p>(&self, pack: &'p Pack) -> Result<Self::Pack<'p>>;
    fn values<'p>(&self, parameters: &'p Parameters) -> Result<Self::Values<'p>>;
    fn value<'a>(values: &'a Self::Values<'_>, id: ParameterId) -> &'a Self::Array;
    fn slopes<'p>(&self, values: &'p [f32]) -> Result<Self::Slopes<'p>>;

    /// Rows of a frozen table for the pack's tokens, (T, in).
    fn embed(&self, table: &Self::Linear, pack: &Self::Pack<'_>) -> Result<Self::Array>;
    /// The same of a trained one.
    fn embed_trained(&self, table: &Self::Array, pack: &Self::Pack<'_>) -> Result<Self::Array>;
    /// Adds each row of `gradient` (T, H) to the row of its token of `table`'s gradient (V, H).
    fn add_by_token(
        &self,
        slot: &mut Slot<Self::Array>,
        table: &Self::Array,
        gradient: &Self::Array,
        pack: &Self::Pack<'_>,
    ) -> Result<()>;

    /// The norm of every piece of `x` that is as long as `weight`: whole rows, or heads.
    fn rms_norm(&self, x: &Self::Array, weight: &Self::Array, eps: f32) -> Result<Self::Array>;
    /// (norm of x + y, x + y)
    fn add_rms_norm(
        &self,
        y: Self::Array,
        x: &Self::Array,
        weight: &Self::Array,
        eps: f32,
    ) -> Result<(Self::Array, Self::Array)>;
    /// The gradient of x, for (x, weight); adds that of the weight where it is wanted.
    fn rms_norm_backward(
        &self,
        operands: (&Self::Array, &Self::Array),
        gradient: &Self::Array,
        eps: f32,
        slot: Option<&mut Slot<Self::Array>>,
    ) -> Result<Self::Array>;
    /// Turns the heads of `x` by the positions of their rows.
    fn rope(&self, x: Self::Array, pack: &Self::Pack<'_>, turn: Turn) -> Result<Self::Array>;
    /// The mix (T, Hq*D) and the log-sum-exp of scores (Hq, T), inside each segment.
    fn attention(
        &self,
        heads: Heads<'_, Self::Array>,
        pack: &Self::Pack<'_>,
        shape: &AttentionShape,
    ) -> Result<(Self::Array, Self::Array)>;
    /// Gradients of q, k and v, for (mix, log-sum-exp, gradient of the mix).
    fn attention_backward(
        &self,
        heads: Heads<'_, Self::Array>,
        found: (&Self::Array, &Self::Array, &Self::Array),
        pack: &Self::Pack<'_>,
        shape: &AttentionShape,
    ) -> Result<[Self::Array; 3]>;
    fn swiglu(&self, gate: &Self::Array, up: &Self::Array) -> Result<Self::Array>;
    /// Gradients of gate and up.
    fn swiglu_backward(
        &self,
        gate: &Self::Array,
        up: &Self::Array,
        gradient: &Self::Array,
    ) -> Result<(Self::Array, Self::Array)>;
    fn add(&self, x: Self::Array, y: &Self::Array) -> Result<Self::Array>;

    /// x (T, in) times a frozen matrix, plus its bias, (T, out).
    fn product(&self, base: &Self::Linear, x: &Self::Array) -> Result<Self::Array>;
    /// gradient (T, out) times a frozen matrix, (T, in).
    fn product_backward(&self, base: &Self::Linear, gradient: &Self::Array) -> Result<Self::Array>;
    /// y += scale * x a^T b^T
    fn add_low_rank(
        &self,
        y: Self::Array,
        x: &Self::Array,
        adapter: LowRank<'_, Self::Array>,
    ) -> Result<Self::Array>;
    /// scale * a b
    fn matmul(
        &self,
        factors: (&Self::Array, &Self::Array),
        form: Form,
        scale: f32,
    ) -> Result<Self::Array>;
    /// sum += a b, with both as they are.
    fn add_matmul(&self, sum: Self::Array, a: &Self::Array, b: &Self::Array)
    -> Result<Self::Array>;
    /// Adds a^T b, the gradient of a matrix.
    fn add_outer(
        &self,
        slot: &mut Slot<Self::Array>,
        a: &Self::Array,
        b: &Self::Array,
    ) -> Result<()>;
    /// Adds the sum of rows, the gradient of a bias.
    fn add_rows(&self, slot: &mut Slot<Self::Array>, rows: &Self::Array) -> Result<()>;
    /// `bias` is added to every row.
    fn add_bias(&self, x: Self::Array, bias: &Self::Array) -> Result<Self::Array>;
    /// `x` with some entries zero and the others scaled up. What is drawn depends on the key,
    /// the site and the place in `x`: a gradient is masked as its activation was.
    fn dropout(&self, x: &Self::Array, dropout: Dropout, site: u64) -> Result<Self::Array>;

    /// The rows of x (T, H) that the pack's targets are read from, (R, H).
    fn wanted_rows(&self, x: &Self::Array, pack: &Self::Pack<'_>) -> Result<Self::Array>;
    /// The reverse: (R, H) at those rows of (T, H) shaped as `x`, which is zero elsewhere.
    fn scatter_wanted(
        &self,
        rows: &Self::Array,
        x: &Self::Array,
        pack: &Self::Pack<'_>,
    ) -> Result<Self::Array>;
    /// Zeros, shaped as `x`.
    fn zeros_like(&self, x: &Self::Array) -> Result<Self::Array>;
    /// Some rows, shared with `x`.
    fn rows(&self, x: &Self::Array, range: Range<usize>) -> Result<Self::Array>;
    /// Arrays one below the other; there is at least one.
    fn stack(&self, parts: &[Self::Array]) -> Result<Self::Array>;
    /// Scores some of the pack's targets by their logits (rows, V).
    fn score_targets(
        &self,
        logits: &Self::Array,
        pack: &Self::Pack<'_>,
        range: Range<usize>,
    ) -> Result<Self::Scores>;
    fn read_scores(&self, parts: Vec<Self::Scores>) -> Result<Vec<TokenScore>>;
    /// The gradient of logits whose targets' log-probabilities are multiplied by `slopes`.
    fn target_gradient(
        &self,
        logits: Self::Array,
        pack: &Self::Pack<'_>,
        range: Range<usize>,
        slopes: &Self::Slopes<'_>,
    ) -> Result<Self::Array>;
}
