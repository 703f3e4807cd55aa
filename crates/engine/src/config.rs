//! Sizes the engine runs under.

use crate::error::EngineError;
use crate::scheduler::{BlockHasher, PrefixCache, SchedulerConfig};
use model::KvType;

/// Whether a device is given a step while it computes the one before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Overlap {
    /// Wherever the next step can be decided without the tokens of the last.
    #[default]
    On,
    /// Never: a step is decided when the one before it is known.
    Off,
}

/// Sizes and switches of an engine; every number at least 1.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Tokens in a KV block.
    pub block_size: usize,
    /// Tokens the KV pool holds, rounded up to whole blocks.
    pub kv_tokens: usize,
    /// Tokens computed in a step at most: the size of a prefill chunk.
    pub max_tokens_per_step: usize,
    /// Sequences in a step at most.
    pub max_sequences: usize,
    /// Tokens of a sequence at most, prompt included.
    pub context_tokens: usize,
    /// Element type of the KV pool.
    pub kv_type: KvType,
    /// Whether sequences share the K and V of equal prefixes.
    pub prefix_cache: PrefixCache,
    /// Whether devices are given a step ahead. On the processor it changes nothing.
    pub overlap: Overlap,
}

impl EngineConfig {
    /// The usual sizes for a context of `context_tokens` and a pool of `kv_tokens`.
    pub fn new(context_tokens: usize, kv_tokens: usize, kv_type: KvType) -> Self {
        Self {
            block_size: 16,
            kv_tokens,
            max_tokens_per_step: 512,
            max_sequences: 256,
            context_tokens,
            kv_type,
            prefix_cache: PrefixCache::On,
            overlap: Overlap::On,
        }
    }

    /// Blocks of the pool.
    pub fn num_blocks(&self) -> usize {
        self.kv_tokens.div_ceil(self.block_size.max(1))
    }

    pub(crate) fn validate(&self) -> Result<(), EngineError> {
        for (field, value) in [
            ("block_size", self.block_size),
            ("kv_tokens", self.kv_tokens),
            ("max_tokens_per_step", self.max_tokens_per_step),
            ("max_sequences", self.max_sequences),
            ("context_tokens", self.context_tokens),
        ] {
            if value == 0 {
                return Err(EngineError::Zero { field });
            }
        }
        Ok(())
    }

    pub(crate) fn scheduler(&self) -> SchedulerConfig {
        SchedulerConfig {
            num_blocks: self.num_blocks(),
            block_size: self.block_size,
            max_tokens_per_step: self.max_tokens_per_step,
            max_sequences: self.max_sequences,
            max_context: self.context_tokens,
            prefix_cache: self.prefix_cache,
            hasher: BlockHasher::FULL,
        }
    }
}
