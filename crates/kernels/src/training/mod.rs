//! What training needs beside the forward kernels: attention over whole segments and the
//! backward rules of everything that stands between the products.
//!
//! Each rule is checked against central differences in f64 of the obvious forward function.
//! As everywhere here, a row's results do not depend on the other segments of a pack or on the
//! number of threads; sums over rows (gradients of norm weights) are taken in a fixed order.
//!
//! A product's own gradients (`dx = g W`, `dW = g^T x`) are plain matrix products and belong to
//! the caller.

mod attention;
mod cross_entropy;
mod host;
mod norm;
mod optimizer;
mod product;
mod swiglu;
#[cfg(test)]
mod tests;

pub use attention::{AttentionShape, segment_attention, segment_attention_backward};
pub use cross_entropy::{TokenScore, score_targets, target_gradient};
pub use norm::{RmsNormGradient, rms_norm_backward};
pub use optimizer::{AdamW, sum_of_squares};
pub use swiglu::swiglu_backward;
