//! The kernels against slow, obvious f64 twins, and against themselves in other batches.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod attention;
mod bench;
mod elementwise;
mod lora;
mod reference;
mod rope;
mod sampling;
