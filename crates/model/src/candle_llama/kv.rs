//! K and V in tensors of candle.

use crate::{KvType, ModelConfig};
use candle_core::{DType, Device, Result, Tensor};
use kernels::KernelError;

/// K and V by layer, each (B*N, Hkv*D): a row is a slot.
#[derive(Debug)]
pub(crate) struct CandleKv {
    layers: Vec<[Tensor; 2]>,
    num_blocks: usize,
}

impl CandleKv {
    pub(crate) fn new(
        device: &Device,
        config: &ModelConfig,
        (num_blocks, block_size): (usize, usize),
        kv_type: KvType,
    ) -> Result<Self> {
        let dtype = match kv_type {
            KvType::F32 => DType::F32,
            KvType::F16 => DType::F16,
            KvType::BF16 => DType::BF16,
            KvType::F8 => candle_core::bail!("a KV pool of F8; expected F32, F16 or BF16"),
        };
        let shape = (num_blocks * block_size, config.kv_size());
        let zeros = || Tensor::zeros(shape, dtype, device);
        let layers = (0..config.num_layers).map(|_| Ok([zeros()?, zeros()?]));
        Ok(Self {
            layers: layers.collect::<Result<_>>()?,
            num_blocks,
        })
    }

    pub(super) fn layer(&self, layer: usize) -> &[Tensor; 2] {
        &self.layers[layer]
    }

    pub(crate) fn copy_blocks(&self, copies: &[(u32, u32)]) -> kernels::Result<()> {
        let (op, what, len) = ("copy_blocks", "block", self.num_blocks);
        let named = copies.iter().flat_map(|(from, to)| [*from, *to]);
        if let Some(block) = named.max().filter(|block| *block as usize >= len) {
            let index = block as usize;
            return Err(KernelError::OutOfRange {
                op,
                what,
                index,
                len,
            });
        }
        for (from, to) in copies {
            for slots in self.layers.iter().flatten() {
                let blocks = slots.reshape((len, ()))?;
                let block = blocks.index_select(&Tensor::new(&[*from], slots.device())?, 0)?;
                blocks.slice_set(&block, 0, *to as usize)?;
            }
        }
        Ok(())
    }
}
