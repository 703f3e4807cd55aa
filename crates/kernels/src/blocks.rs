//! The paged KV cache of one layer. Knows slots and blocks, not who owns them.

use crate::cpu::{self, Element};
use crate::error::{KernelError, Result};
use candle_core::{CpuStorage, DType, InplaceOp1, Layout, Tensor};
use half::f16;

/// Keys and values of one layer: (B, Hkv, N, D) each, contiguous, both f32 or both f16,
/// each with a storage of its own.
#[derive(Debug, Clone)]
pub struct KvLayer {
    /// Keys, already rotated.
    pub k: Tensor,
    /// Values.
    pub v: Tensor,
}

/// The shape of a [`KvLayer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KvDims {
    /// (B)
    pub(crate) blocks: usize,
    /// (Hkv)
    pub(crate) kv_heads: usize,
    /// (N)
    pub(crate) block_len: usize,
    /// (D)
    pub(crate) head_dim: usize,
}

impl KvDims {
    /// Where the D elements of one head of one token start.
    #[inline(always)]
    pub(crate) fn offset(&self, block: usize, head: usize, token: usize) -> usize {
        ((block * self.kv_heads + head) * self.block_len + token) * self.head_dim
    }
}

impl KvLayer {
    /// Checks shapes, types and strides.
    pub(crate) fn dims(&self, op: &'static str) -> Result<KvDims> {
        let shape_error = |operand, expected: String, tensor: &Tensor| {
            Err(KernelError::Shape {
                op,
                operand,
                expected,
                got: tensor.dims().to_vec(),
            })
        };
        let &[blocks, kv_heads, block_len, head_dim] = self.k.dims() else {
            return shape_error("k cache", "(B, Hkv, N, D)".to_owned(), &self.k);
        };
        if self.v.dims() != self.k.dims() {
            return shape_error("v cache", format!("{:?}", self.k.dims()), &self.v);
        }
        if self.k.elem_count() == 0 {
            return shape_error("k cache", "no empty axis".to_owned(), &self.k);
        }
        for (operand, tensor) in [("k cache", &self.k), ("v cache", &self.v)] {
            let got = tensor.dtype();
            if !matches!(got, DType::F32 | DType::F16) || got != self.k.dtype() {
                let expected = "F32 or F16, the same for k and v";
                return Err(KernelError::DType {
                    op,
                    operand,
                    expected,
                    got,
                });
            }
            if !tensor.is_contiguous() {
                return Err(KernelError::NotContiguous { op, operand });
            }
        }
        Ok(KvDims {
            blocks,
            kv_heads,
            block_len,
            head_dim,
        })
    }
}

/// Copies whole blocks, K and V, from the first to the second of each pair, in order.
///
/// # Errors
/// A block outside of the pool; a malformed layer.
pub fn copy_blocks(kv: &KvLayer, copies: &[(u32, u32)]) -> Result<()> {
    let dims = kv.dims("copy_blocks")?;
    for &(from, to) in copies {
        for index in [from as usize, to as usize] {
            if index >= dims.blocks {
                let (op, what, len) = ("copy_blocks", "block", dims.blocks);
                return Err(KernelError::OutOfRange {
                    op,
                    what,
                    index,
                    len,
                });
            }
        }
    }
    let block_elements = dims.kv_heads * dims.block_len * dims.head_dim;
    for tensor in [&kv.k, &kv.v] {
        tensor.inplace_op1(&CopyBlocks {
            copies,
            block_elements,
        })?;
    }
    Ok(())
}

struct CopyBlocks<'a> {
    copies: &'a [(u32, u32)],
    block_elements: usize,
}

impl CopyBlocks<'_> {
    fn copy<T: Element>(&self, data: &mut [T]) {
        for &(from, to) in self.copies {
            let start = from as usize * self.block_elements;
            data.copy_within(
                start..start + self.block_elements,
                to as usize * self.block_elements,
            );
        }
    }
}

impl InplaceOp1 for CopyBlocks<'_> {
    fn name(&self) -> &'static str {
        "copy_blocks"
    }

    fn cpu_fwd(&self, data: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        match data {
            CpuStorage::F16(_) => self.copy(cpu::slice_mut::<f16>(data, layout)?),
            _ => self.copy(cpu::slice_mut::<f32>(data, layout)?),
        }
        Ok(())
    }
}
