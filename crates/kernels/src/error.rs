//! What can go wrong in a kernel.

use candle_core::{DType, Tensor};

/// Result of a kernel.
pub type Result<T> = std::result::Result<T, KernelError>;

/// An operand that a kernel cannot work on.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// An operand has the wrong shape.
    #[error("{op}: {operand} has shape {got:?}, expected {expected}")]
    Shape {
        /// The kernel.
        op: &'static str,
        /// Which operand.
        operand: &'static str,
        /// What the shape must be.
        expected: String,
        /// What it is.
        got: Vec<usize>,
    },
    /// An operand has the wrong element type.
    #[error("{op}: {operand} holds {got:?}, expected {expected}")]
    DType {
        /// The kernel.
        op: &'static str,
        /// Which operand.
        operand: &'static str,
        /// What the type must be.
        expected: &'static str,
        /// What it is.
        got: DType,
    },
    /// An operand is a strided view.
    #[error("{op}: {operand} is not contiguous")]
    NotContiguous {
        /// The kernel.
        op: &'static str,
        /// Which operand.
        operand: &'static str,
    },
    /// An index points outside of what it indexes.
    #[error("{op}: {what} {index} is out of range, there are {len}")]
    OutOfRange {
        /// The kernel.
        op: &'static str,
        /// What the index names.
        what: &'static str,
        /// The index.
        index: usize,
        /// How many there are.
        len: usize,
    },
    /// Operands that contradict each other.
    #[error("{op}: {problem}")]
    Invalid {
        /// The kernel.
        op: &'static str,
        /// What is wrong, with numbers.
        problem: String,
    },
    /// A device, its driver or its libraries failed or are missing.
    #[error("{0}")]
    Device(String),
    /// A device has no room for what was asked.
    #[error("{op}: {needed} bytes asked for, {free} of {total} are free on the device")]
    DeviceMemory {
        /// What needed it.
        op: &'static str,
        /// Bytes asked for.
        needed: u64,
        /// Bytes free then.
        free: u64,
        /// Bytes the device has.
        total: u64,
    },
    /// candle failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// Checks that `tensor` is a contiguous f32 matrix and returns its shape.
pub(crate) fn matrix(
    op: &'static str,
    operand: &'static str,
    tensor: &Tensor,
) -> Result<(usize, usize)> {
    let [rows, columns] = tensor.dims() else {
        let expected = "a matrix".to_owned();
        return Err(KernelError::Shape {
            op,
            operand,
            expected,
            got: tensor.dims().to_vec(),
        });
    };
    plain_f32(op, operand, tensor)?;
    Ok((*rows, *columns))
}

/// Checks that `tensor` is contiguous and f32.
pub(crate) fn plain_f32(op: &'static str, operand: &'static str, tensor: &Tensor) -> Result<()> {
    if tensor.dtype() != DType::F32 {
        return Err(KernelError::DType {
            op,
            operand,
            expected: "F32",
            got: tensor.dtype(),
        });
    }
    if !tensor.is_contiguous() {
        return Err(KernelError::NotContiguous { op, operand });
    }
    Ok(())
}

/// Checks that `tensor` is f32, contiguous and of shape `expected`.
pub(crate) fn shaped(
    op: &'static str,
    operand: &'static str,
    tensor: &Tensor,
    expected: &[usize],
) -> Result<()> {
    if tensor.dims() != expected {
        let expected = format!("{expected:?}");
        return Err(KernelError::Shape {
            op,
            operand,
            expected,
            got: tensor.dims().to_vec(),
        });
    }
    plain_f32(op, operand, tensor)
}
