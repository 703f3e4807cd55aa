use candle_core::{DType, DeviceLocation};

use super::WeightFormat;

/// What a linear layer refuses, with what it expected and what it got.
#[derive(Debug, thiserror::Error)]
pub enum LinearError {
    /// The weight bytes do not have the length that shape and format call for.
    #[error("weights {out_features}x{in_features} in {format:?} take {expected} bytes, got {got}")]
    WeightBytes {
        /// Format the bytes were said to be in.
        format: WeightFormat,
        /// Rows of the weight matrix.
        out_features: usize,
        /// Columns of the weight matrix.
        in_features: usize,
        /// Bytes such a matrix takes.
        expected: usize,
        /// Bytes given.
        got: usize,
    },
    /// A row of the matrix is not a whole number of the format's blocks.
    #[error("{format:?} packs {block_size} values in a block, which does not divide in_features {in_features}")]
    BlockSize {
        /// Format asked for.
        format: WeightFormat,
        /// Values in one block of it.
        block_size: usize,
        /// Columns of the weight matrix.
        in_features: usize,
    },
    /// A dimension is zero or the matrix does not fit in the address space.
    #[error("no weight matrix of shape {out_features}x{in_features} in {format:?} can be held")]
    Shape {
        /// Format asked for.
        format: WeightFormat,
        /// Rows of the weight matrix.
        out_features: usize,
        /// Columns of the weight matrix.
        in_features: usize,
    },
    /// The number of f32 values does not fit the shape.
    #[error("{what}: expected {expected} values, got {got}")]
    ValueCount {
        /// Which values.
        what: &'static str,
        /// Values called for.
        expected: usize,
        /// Values given.
        got: usize,
    },
    /// The input is not (T, in_features).
    #[error("input of a linear layer: expected shape (T, {expected}), got {got:?}")]
    InputShape {
        /// Columns of the weight matrix.
        expected: usize,
        /// Shape of the tensor given.
        got: Vec<usize>,
    },
    /// The input is not f32.
    #[error("input of a linear layer: expected f32, got {got:?}")]
    InputDtype {
        /// Type of the tensor given.
        got: DType,
    },
    /// The input lies on a device these kernels do not serve.
    #[error("input of a linear layer: expected the CPU, got {got:?}")]
    InputDevice {
        /// Where the tensor given lies.
        got: DeviceLocation,
    },
    /// A row asked for lies beyond the matrix.
    #[error("row {id} of a weight matrix with {out_features} rows")]
    RowOutOfRange {
        /// Row asked for.
        id: u32,
        /// Rows of the weight matrix.
        out_features: usize,
    },
    /// candle refused an operation.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}
