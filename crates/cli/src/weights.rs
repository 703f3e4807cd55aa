//! A model's weights where they are computed with: what training and the engine share.

use crate::config::Config;
use crate::cuda;
use crate::devices::Devices;
use crate::metal;
use crate::session::{Opened, Session};
use anyhow::Result;
#[cfg(feature = "cuda")]
use model::CudaDecoder;
use model::{AdapterFit, Decoder, Llama};
use train::Base;

/// Weights in memory; a clone shares them.
#[derive(Debug, Clone)]
pub(crate) enum Weights {
    Host(Decoder),
    #[cfg(feature = "cuda")]
    Device(CudaDecoder),
}

/// Memory of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    /// The device's number.
    pub(crate) number: usize,
    /// Bytes that are free, beside the weights.
    pub(crate) free: u64,
    /// Bytes of the weights.
    pub(crate) weights: u64,
}

impl Weights {
    /// Loads them to where `config` says; of several GPUs the first.
    ///
    /// # Errors
    /// Weights that are damaged or do not fit; a device that cannot be used.
    pub(crate) fn load(opened: &Opened, config: &Config) -> Result<Self> {
        match Devices::of(config)? {
            Devices::Cpu { .. } => Ok(Self::Host(opened.load(config)?.decoder().clone())),
            Devices::Cuda(numbers) => cuda::weights(opened, config, &numbers),
            Devices::Metal => Err(metal::does_not_train()),
        }
    }

    /// What something is trained beside.
    pub(crate) fn base(&self) -> Base<'_> {
        match self {
            Self::Host(decoder) => decoder.into(),
            #[cfg(feature = "cuda")]
            Self::Device(decoder) => decoder.into(),
        }
    }

    /// What adapters must fit.
    pub(crate) fn adapter_fit(&self) -> AdapterFit {
        self.base().adapter_fit()
    }

    /// Starts an engine on them.
    ///
    /// # Errors
    /// No room for a KV pool; an adapter that does not fit.
    pub(crate) fn start(
        &self,
        opened: &Opened,
        config: &Config,
        least_kv_tokens: Option<usize>,
    ) -> Result<Session> {
        match self {
            Self::Host(decoder) => {
                opened.start_with(config, Llama::of(decoder.clone()), least_kv_tokens)
            }
            #[cfg(feature = "cuda")]
            Self::Device(decoder) => cuda::start_on(opened, config, decoder, least_kv_tokens),
        }
    }
}
