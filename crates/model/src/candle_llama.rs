//! The decoder in candle's own operations, on any device that candle knows: the way to Apple's
//! Metal, for which nothing here has kernels. It has not run on one; tests run it on the processor.
//!
//! The bits of a row may depend on its batch, as those of candle's products do.

mod adapters;
mod forward;
mod kv;
mod step;
mod weights;

use crate::logits::{Hidden, Logits};
use crate::weights::WeightFiles;
use crate::{
    Adapter, AdapterId, CausalLm, ForwardBatch, KvPool, KvType, LoadOptions, ModelConfig,
    ModelError,
};
use adapters::Adapters;
use candle_core::{DType, Device, Tensor};
use forward::Forward;
pub(crate) use kv::CandleKv;
use std::ops::Range;
use std::path::Path;
use step::Step;
use weights::Weights;

/// A model of the Llama family in tensors of candle.
pub struct CandleLlama {
    device: Device,
    config: ModelConfig,
    weights: Weights,
    adapters: Adapters,
}

/// The first Metal device of an Apple machine.
///
/// # Errors
/// The program was built without the feature `metal`, or the machine has no such device.
pub fn metal_device() -> Result<Device, ModelError> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| {
        Err(ModelError::compute("no Metal device", source))
    };
    #[cfg(all(feature = "metal", target_vendor = "apple"))]
    match candle_metal_kernels::metal::Device::all().is_empty() {
        true => failed("the system knows none".into()),
        false => Device::new_metal(0).or_else(|error| failed(error.into())),
    }
    #[cfg(not(all(feature = "metal", target_vendor = "apple")))]
    failed(
        "this program was built without it; on an Apple machine, `--features metal` builds it in"
            .into(),
    )
}

impl CandleLlama {
    pub(crate) fn load(
        device: &Device,
        config: ModelConfig,
        files: &WeightFiles,
        options: &LoadOptions,
    ) -> Result<Self, ModelError> {
        Ok(Self {
            device: device.clone(),
            weights: Weights::load(device, &config, files, options)?,
            config,
            adapters: Adapters::default(),
        })
    }

    /// Reads an adapter in PEFT's layout and checks that it fits this model.
    ///
    /// # Errors
    /// A file missing or damaged, a setting that is not supported, tensors that do not fit.
    pub fn load_adapter(&self, folder: &Path) -> Result<Adapter, ModelError> {
        Adapter::load(folder, &self.config, self.weights.rope_layout)
    }

    fn compute(&self, batch: &ForwardBatch, kv: &KvPool) -> Result<Tensor, ModelError> {
        let failed = |source| ModelError::compute("the forward pass", source);
        let pool = kv.candle()?;
        let step = Step::new(batch, &self.config, &self.weights, kv)?;
        let chosen = |row: &u32| batch.adapters.get(*row as usize).copied().flatten();
        let asked: Vec<_> = batch.logit_rows.iter().map(chosen).collect();
        let forward = Forward {
            config: &self.config,
            weights: &self.weights,
            step: &step,
            all: self.adapters.groups(&batch.adapters, &self.device)?,
            asked: self.adapters.groups(&asked, &self.device)?,
        };
        forward.run(pool).map_err(failed)
    }
}

impl CausalLm for CandleLlama {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn kv_pool(
        &self,
        num_blocks: usize,
        block_size: usize,
        kv_type: KvType,
    ) -> Result<KvPool, ModelError> {
        let size = (num_blocks, block_size);
        KvPool::on_candle(&self.device, &self.config, size, kv_type)
    }

    fn hidden(&self, batch: &ForwardBatch, kv: &KvPool) -> Result<Hidden, ModelError> {
        batch.check_known(&self.config, kv)?;
        self.compute(batch, kv).map(Hidden::host)
    }

    fn logits(&self, hidden: &Hidden, rows: Range<usize>) -> Result<Logits<'_>, ModelError> {
        let hidden = hidden.on_host()?;
        let compute = || -> candle_core::Result<Tensor> {
            if rows.is_empty() {
                return Tensor::zeros((0, self.config.vocab_size), DType::F32, &Device::Cpu);
            }
            // A copy: on Metal, candle's quantised products read from where the buffer begins,
            // not from where the tensor does.
            let rows = hidden.narrow(0, rows.start, rows.len())?;
            let logits = self.weights.head().multiply(&rows.force_contiguous()?)?;
            logits.to_device(&Device::Cpu)
        };
        compute()
            .map(Logits::host)
            .map_err(|source| ModelError::compute("the logits", source))
    }

    fn add_adapter(&mut self, adapter: Adapter) -> Result<AdapterId, ModelError> {
        self.adapters
            .add(&self.device, adapter)
            .map_err(|source| ModelError::compute("an adapter", source))
    }

    fn remove_adapter(&mut self, id: AdapterId) -> Option<Adapter> {
        self.adapters.remove(id)
    }
}
