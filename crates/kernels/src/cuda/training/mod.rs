//! What training needs on a device beside the forward kernels: products in every form, attention
//! over whole segments, and the backward rules of what stands between the products. The rules are
//! those of [`crate::training`], which are their twins in tests.
//!
//! Everything is f32 unless it says otherwise; nothing is allocated here. Attention multiplies on
//! tensor cores: its operands are rounded to bf16, sums are f32. Sums over rows are taken in a
//! fixed order without atomics: the same inputs give the same bits, and what attention gives for a
//! segment does not depend on the others of a pack. Products by cuBLAS may sum in another order
//! when shapes change.

pub use super::backend::{Form, Update};
pub use super::elementwise::fill_rows;
pub use attention::{
    AttentionBackward, SegmentAttention, segment_attention, segment_attention_backward,
};
pub use dropout::{Dropout, dropout};
pub use matmul::{MatMul, matmul};
pub use norm::{NormWeightGradient, RmsNormBackward, rms_norm_backward};
pub use rows::{
    TokenRows, Turn, add, add_rows_by_token, column_sums, rope_rows, scatter_rows, swiglu_backward,
    zero,
};
pub use targets::{score_targets, target_gradient};

mod attention;
mod dropout;
mod matmul;
mod norm;
mod rows;
mod targets;
