//! The K and V of all sequences, in blocks of tokens, allocated once.

use crate::candle_llama::CandleKv;
use crate::{ModelConfig, ModelError};
use candle_core::{DType, Device, Tensor};
use kernels::KvLayer;

/// Element type of the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KvType {
    /// Exact.
    F32,
    /// Half the memory; rounds K and V to 11 bits.
    F16,
    /// Half the memory; rounds K and V to 8 bits, but never overflows. Not on the
    /// processor.
    BF16,
    /// A quarter of the memory (E4M3): rounds K and V to 4 bits and cuts them at 448. On an
    /// NVIDIA GPU only.
    F8,
}

impl KvType {
    /// Bytes of one element.
    pub fn size_in_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::F8 => 1,
        }
    }
}

/// The paged KV cache of one model: per layer K and V of shape (B, Hkv, N, D).
#[derive(Debug)]
pub struct KvPool {
    storage: Storage,
    num_blocks: usize,
    block_size: usize,
}

/// Where the blocks lie.
#[derive(Debug)]
enum Storage {
    /// On the host, by layer.
    Host(Vec<KvLayer>),
    /// In tensors on any device of candle's.
    Candle(CandleKv),
    #[cfg(feature = "device")]
    Device(crate::cuda::CudaKv),
}

impl KvPool {
    /// Allocates `num_blocks` (B) blocks of `block_size` (N) tokens for every layer, on the
    /// host.
    ///
    /// # Errors
    /// No block, no token, more slots than a `u32` counts, or not enough memory.
    pub fn new(
        config: &ModelConfig,
        num_blocks: usize,
        block_size: usize,
        kv_type: KvType,
    ) -> Result<Self, ModelError> {
        check_slots(num_blocks, block_size)?;
        check_memory(config, num_blocks * block_size, kv_type)?;
        let dtype = match kv_type {
            KvType::F32 => DType::F32,
            KvType::F16 => DType::F16,
            KvType::BF16 | KvType::F8 => {
                let problem =
                    format!("a KV pool of {kv_type:?} on the processor; expected F32 or F16");
                return Err(ModelError::Batch { problem });
            }
        };
        let shape = (num_blocks, config.num_kv_heads, block_size, config.head_dim);
        let zeros = || {
            Tensor::zeros(shape, dtype, &Device::Cpu)
                .map_err(|source| ModelError::compute("the KV pool", source))
        };
        let layers = (0..config.num_layers)
            .map(|_| {
                Ok(KvLayer {
                    k: zeros()?,
                    v: zeros()?,
                })
            })
            .collect::<Result<_, ModelError>>()?;
        Ok(Self {
            storage: Storage::Host(layers),
            num_blocks,
            block_size,
        })
    }

    /// Bytes that one token takes in all layers.
    pub fn bytes_per_token(config: &ModelConfig, kv_type: KvType) -> usize {
        2 * config.num_layers * config.kv_size() * kv_type.size_in_bytes()
    }

    /// (B)
    pub fn num_blocks(&self) -> usize {
        self.num_blocks
    }

    /// (N)
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// K and V by layer, on the host.
    ///
    /// # Errors
    /// They are elsewhere.
    pub(crate) fn host(&self) -> Result<&[KvLayer], ModelError> {
        match &self.storage {
            Storage::Host(layers) => Ok(layers),
            _ => Err(ModelError::Batch {
                problem: "a KV pool that lies on a device".into(),
            }),
        }
    }

    /// K and V in tensors on a device of candle's.
    ///
    /// # Errors
    /// They are elsewhere.
    pub(crate) fn candle(&self) -> Result<&CandleKv, ModelError> {
        match &self.storage {
            Storage::Candle(kv) => Ok(kv),
            _ => Err(ModelError::Batch {
                problem: "a KV pool of another model's device".into(),
            }),
        }
    }

    /// K and V on a device.
    ///
    /// # Errors
    /// They are on the host.
    #[cfg(feature = "device")]
    pub(crate) fn device(&self) -> Result<&crate::cuda::CudaKv, ModelError> {
        match &self.storage {
            Storage::Device(kv) => Ok(kv),
            _ => Err(ModelError::Batch {
                problem: "a KV pool that lies on the host".into(),
            }),
        }
    }

    /// Allocates a pool on a device of candle's.
    ///
    /// # Errors
    /// As [`KvPool::new`].
    pub(crate) fn on_candle(
        device: &Device,
        config: &ModelConfig,
        (num_blocks, block_size): (usize, usize),
        kv_type: KvType,
    ) -> Result<Self, ModelError> {
        check_slots(num_blocks, block_size)?;
        check_memory(config, num_blocks * block_size, kv_type)?;
        let kv = CandleKv::new(device, config, (num_blocks, block_size), kv_type);
        Ok(Self {
            storage: Storage::Candle(
                kv.map_err(|source| ModelError::compute("the KV pool", source))?,
            ),
            num_blocks,
            block_size,
        })
    }

    /// Allocates a pool on a device.
    ///
    /// # Errors
    /// As [`KvPool::new`]; the message says how much memory there is.
    #[cfg(feature = "device")]
    pub(crate) fn on_device(
        device: &kernels::cuda::Device,
        config: &ModelConfig,
        (num_blocks, block_size): (usize, usize),
        kv_type: KvType,
    ) -> Result<Self, ModelError> {
        check_slots(num_blocks, block_size)?;
        let kv = crate::cuda::CudaKv::new(device, config, (num_blocks, block_size), kv_type);
        let what = format!(
            "a KV pool of {num_blocks} blocks of {block_size} tokens of {} bytes",
            Self::bytes_per_token(config, kv_type)
        );
        Ok(Self {
            storage: Storage::Device(kv.map_err(|source| ModelError::compute(what, source))?),
            num_blocks,
            block_size,
        })
    }

    /// Copies whole blocks in every layer, in order: (from, to).
    ///
    /// # Errors
    /// A block that the pool does not have.
    pub fn copy_blocks(&self, copies: &[(u32, u32)]) -> Result<(), ModelError> {
        let copy = || match &self.storage {
            Storage::Host(layers) => layers
                .iter()
                .try_for_each(|layer| kernels::copy_blocks(layer, copies)),
            Storage::Candle(kv) => kv.copy_blocks(copies),
            #[cfg(feature = "device")]
            Storage::Device(kv) => kv.copy_blocks(copies),
        };
        copy().map_err(|source| ModelError::compute("copying KV blocks", source))
    }
}

/// A slot is a `u32`.
fn check_slots(num_blocks: usize, block_size: usize) -> Result<(), ModelError> {
    let slots = num_blocks
        .checked_mul(block_size)
        .filter(|slots| *slots > 0 && u32::try_from(*slots).is_ok());
    if slots.is_some() {
        return Ok(());
    }
    let problem = format!(
        "a KV pool of {num_blocks} blocks of {block_size} tokens; expected between 1 and 2^32 - 1 tokens"
    );
    Err(ModelError::Batch { problem })
}

/// An allocation that fails ends the program, so absurd sizes are tried out first.
fn check_memory(config: &ModelConfig, tokens: usize, kv_type: KvType) -> Result<(), ModelError> {
    let bytes = KvPool::bytes_per_token(config, kv_type).checked_mul(tokens);
    let fits = bytes.is_some_and(|bytes| Vec::<u8>::new().try_reserve_exact(bytes).is_ok());
    if fits {
        return Ok(());
    }
    let size = bytes.map_or("more than 2^64".into(), |bytes| bytes.to_string());
    let problem = format!("a KV pool of {tokens} tokens takes {size} bytes, more than there are");
    Err(ModelError::Batch { problem })
}
