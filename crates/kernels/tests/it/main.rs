//! The kernels against slow, obvious f64 twins, and against themselves in other batches.

mod attention;
mod bench;
mod elementwise;
mod lora;
mod reference;
mod rope;
mod sampling;
