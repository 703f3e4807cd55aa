//! K and V on a device.

use crate::{KvType, ModelConfig};
use float8::F8E4M3;
use half::{bf16, f16};
use kernels::cuda::{Buffer, Device, KvCache, View, copy_blocks};
use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

/// Pairs of blocks that are copied at once.
const PAIRS: usize = 1024;

/// The blocks of all layers.
#[derive(Debug)]
pub(crate) struct CudaKv {
    device: Device,
    /// Never the same for two pools.
    id: u64,
    /// K and V by layer.
    layers: Vec<[Values; 2]>,
    kv_heads: usize,
    block_len: usize,
    head_dim: usize,
    /// (from, to), one after the other.
    pairs: RefCell<Buffer<u32>>,
}

/// Values of one of the types that a cache has.
#[derive(Debug)]
enum Values {
    F32(Buffer<f32>),
    F16(Buffer<f16>),
    BF16(Buffer<bf16>),
    F8(Buffer<F8E4M3>),
}

impl CudaKv {
    pub(crate) fn new(
        device: &Device,
        config: &ModelConfig,
        (num_blocks, block_len): (usize, usize),
        kv_type: KvType,
    ) -> kernels::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let len = num_blocks * config.num_kv_heads * block_len * config.head_dim;
        let values = || -> kernels::Result<Values> {
            Ok(match kv_type {
                KvType::F32 => Values::F32(Buffer::zeros(device, len)?),
                KvType::F16 => Values::F16(Buffer::zeros(device, len)?),
                KvType::BF16 => Values::BF16(Buffer::zeros(device, len)?),
                KvType::F8 => Values::F8(Buffer::zeros(device, len)?),
            })
        };
        let layers = (0..config.num_layers)
            .map(|_| Ok([values()?, values()?]))
            .collect::<kernels::Result<_>>()?;
        Ok(Self {
            device: device.clone(),
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            layers,
            kv_heads: config.num_kv_heads,
            block_len,
            head_dim: config.head_dim,
            pairs: RefCell::new(Buffer::zeros(device, 2 * PAIRS)?),
        })
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn layer(&self, layer: usize) -> KvCache<'_> {
        let [k, v] = &self.layers[layer];
        KvCache {
            k: k.view(),
            v: v.view(),
            kv_heads: self.kv_heads,
            block_len: self.block_len,
            head_dim: self.head_dim,
        }
    }

    pub(crate) fn copy_blocks(&self, copies: &[(u32, u32)]) -> kernels::Result<()> {
        for part in copies.chunks(PAIRS) {
            let flat: Vec<u32> = part.iter().flat_map(|(from, to)| [*from, *to]).collect();
            self.pairs.borrow_mut().write(0, &flat)?;
            let pairs = self.pairs.borrow();
            for layer in 0..self.layers.len() {
                copy_blocks(&self.device, self.layer(layer), pairs.view(), part.len())?;
            }
        }
        Ok(())
    }
}

impl Values {
    fn view(&self) -> View<'_> {
        match self {
            Self::F32(buffer) => buffer.view(),
            Self::F16(buffer) => buffer.view(),
            Self::BF16(buffer) => buffer.view(),
            Self::F8(buffer) => buffer.view(),
        }
    }
}
