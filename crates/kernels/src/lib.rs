//! kernels

mod linear;
pub use linear::{Linear, LinearError, WeightFormat};
