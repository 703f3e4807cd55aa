//! Tensors on the host as slices.

use crate::error::{KernelError, Result, shaped};
use candle_core::{Storage, Tensor};
use std::ops::{Deref, Range};

/// The values of a contiguous f32 tensor on the CPU, for as long as this lives.
struct Host<G> {
    storage: G,
    range: Range<usize>,
}

impl<G: Deref<Target = Storage>> Deref for Host<G> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        let Storage::Cpu(values) = &*self.storage else {
            unreachable!("checked when it was borrowed")
        };
        let values = values
            .as_slice::<f32>()
            .expect("checked when it was borrowed");
        &values[self.range.clone()]
    }
}

/// Borrows the values of `tensor`, which must have the shape `expected`.
pub(super) fn host<'a>(
    op: &'static str,
    operand: &'static str,
    tensor: &'a Tensor,
    expected: &[usize],
) -> Result<impl Deref<Target = [f32]> + Sync + use<'a>> {
    shaped(op, operand, tensor, expected)?;
    let (storage, layout) = tensor.storage_and_layout();
    let Some((start, end)) = layout.contiguous_offsets() else {
        return Err(KernelError::NotContiguous { op, operand });
    };
    match &*storage {
        Storage::Cpu(values) => {
            values.as_slice::<f32>()?;
        }
        _ => {
            let problem = format!("{operand} is not on the host");
            return Err(KernelError::Invalid { op, problem });
        }
    }
    Ok(Host {
        storage,
        range: start..end,
    })
}
