//! GPUs: what there are, and a model on some of them. Without the feature `cuda` there are
//! none, and whoever asks for one is told how to get them.

#[cfg(feature = "cuda")]
pub(crate) use with::{gpus, measure, network_onto, room, start, start_on, weights};
#[cfg(not(feature = "cuda"))]
pub(crate) use without::{gpus, measure, network_onto, room, start, weights};

use serde::Serialize;

/// Tokens of a step on a GPU, unless told otherwise.
pub(crate) const STEP_TOKENS: usize = 2048;
/// Sequences of a step.
pub(crate) const STEP_ROWS: usize = 256;

/// A GPU as its driver describes it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Gpu {
    pub(crate) number: usize,
    pub(crate) name: String,
    /// Such as 9.0.
    pub(crate) compute_capability: String,
    /// The newest CUDA that the driver speaks, such as 13.0.
    pub(crate) driver: String,
    pub(crate) memory_bytes: u64,
    pub(crate) free_bytes: u64,
}

/// What a GPU can do, measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct GpuSpeed {
    /// Bytes read and written per second by a copy.
    pub(crate) copy_bytes_per_s: f64,
    /// Floating-point operations per second of a large product in bf16.
    pub(crate) matmul_flops: f64,
}

#[cfg(not(feature = "cuda"))]
mod without {
    use super::{Gpu, GpuSpeed};
    use crate::config::Config;
    use crate::devices::Devices;
    use crate::error::Failure;
    use crate::metal;
    use crate::session::{Opened, Session};
    use crate::weights::{Room, Weights};
    use anyhow::Result;
    use train::Network;

    const WHY: &str = "this program was built without CUDA; `cargo xtask cuda-build` makes one with it (see the README)";

    pub(crate) fn gpus() -> Result<Vec<Gpu>, String> {
        Err(WHY.into())
    }

    pub(crate) fn measure(number: usize) -> Result<GpuSpeed> {
        Err(Failure::usage(format!("--device cuda:{number}: {WHY}")))
    }

    pub(crate) fn start(
        _: &Opened,
        _: &Config,
        numbers: &[usize],
        _: Option<usize>,
    ) -> Result<Session> {
        none(numbers)
    }

    pub(crate) fn weights(_: &Opened, _: &Config, numbers: &[usize]) -> Result<Weights> {
        none(numbers)
    }

    pub(crate) fn room(_: &Config, _: &Weights) -> Result<Option<Room>> {
        Ok(None)
    }

    pub(crate) fn network_onto(config: &Config, network: Network) -> Result<Network> {
        match Devices::of(config)? {
            Devices::Cpu { .. } => Ok(network),
            Devices::Cuda(numbers) => none(&numbers),
            Devices::Metal => Err(metal::does_not_train()),
        }
    }

    fn none<T>(numbers: &[usize]) -> Result<T> {
        let number = numbers.first().copied().unwrap_or(0);
        Err(Failure::usage(format!("--device cuda:{number}: {WHY}")))
    }
}

#[cfg(feature = "cuda")]
mod with {
    use super::{Gpu, GpuSpeed, STEP_ROWS, STEP_TOKENS};
    use crate::config::Config;
    use crate::devices::{Determinism, Devices};
    use crate::error::Failure;
    use crate::footprint;
    use crate::metal;
    use crate::output;
    use crate::session::{Opened, Session};
    use crate::weights::{Room, Weights};
    use anyhow::{Context, Result};
    use engine::EngineConfig;
    use kernels::cuda::Device;
    use model::{CausalLm, CudaDecoder, CudaLlama, CudaOptions, KvPool, KvType};
    use train::Network;

    /// Memory that speeds are measured with.
    const MEASURE_BYTES: usize = 1 << 30;

    pub(crate) fn gpus() -> Result<Vec<Gpu>, String> {
        let count = Device::count().map_err(|error| error.to_string())?;
        if count == 0 {
            return Err("the driver knows no GPU".into());
        }
        let gpus = (0..count).map(|number| describe(number).map_err(|error| error.to_string()));
        gpus.collect()
    }

    fn describe(number: usize) -> Result<Gpu, kernels::KernelError> {
        let device = Device::open(number)?;
        let info = device.info()?;
        let (free_bytes, memory_bytes) = device.memory()?;
        let version = |(major, minor): (u32, u32)| format!("{major}.{minor}");
        Ok(Gpu {
            number,
            name: info.name,
            compute_capability: version(info.compute_capability),
            driver: version(info.driver_version),
            memory_bytes,
            free_bytes,
        })
    }

    pub(crate) fn measure(number: usize) -> Result<GpuSpeed> {
        let device = open(number)?;
        let (free, _) = device.memory()?;
        let bytes = MEASURE_BYTES.min(usize::try_from(free / 2).unwrap_or(usize::MAX));
        let rates = kernels::cuda::measure(&device, bytes)?;
        Ok(GpuSpeed {
            copy_bytes_per_s: rates.copy_bytes_per_second,
            matmul_flops: rates.bf16_flops_per_second,
        })
    }

    fn open(number: usize) -> Result<Device> {
        Device::open(number).with_context(|| format!("cuda:{number} cannot be used"))
    }

    /// Loads the model on each of the GPUs and starts an engine on all of them.
    ///
    /// # Errors
    /// A GPU that cannot be used or has too little memory: with the arithmetic.
    pub(crate) fn start(
        opened: &Opened,
        config: &Config,
        numbers: &[usize],
        least_kv_tokens: Option<usize>,
    ) -> Result<Session> {
        let options = options(opened, config);
        let mut models = Vec::with_capacity(numbers.len());
        for &number in numbers {
            models.push((number, load(opened, config, (number, &options))?));
        }
        launch(opened, config, (models, &options), least_kv_tokens)
    }

    /// Starts an engine on weights that are on a device already.
    ///
    /// # Errors
    /// A device that has too little memory beside them: with the arithmetic.
    pub(crate) fn start_on(
        opened: &Opened,
        config: &Config,
        decoder: &CudaDecoder,
        least_kv_tokens: Option<usize>,
    ) -> Result<Session> {
        let options = options(opened, config);
        let model = CudaLlama::of(decoder.clone(), options.clone())?;
        let models = vec![(first(config)?, model)];
        launch(opened, config, (models, &options), least_kv_tokens)
    }

    fn launch(
        opened: &Opened,
        config: &Config,
        (models, options): (Vec<(usize, CudaLlama)>, &CudaOptions),
        least_kv_tokens: Option<usize>,
    ) -> Result<Session> {
        let asked = config.integer("engine.kv_tokens").or(least_kv_tokens);
        let kv_tokens = kv_tokens(&models, asked, options)?;
        let sizes = EngineConfig {
            max_tokens_per_step: options.max_tokens,
            max_sequences: options.max_sequences,
            block_size: options.block_size,
            ..opened.sizes(config, kv_tokens, options.kv_type)
        };
        let mut adapters = Vec::new();
        if let Some((_, model)) = models.first() {
            for (name, folder) in opened.adapters() {
                adapters.push((name.clone(), model.load_adapter(folder)?));
            }
        }
        let models = models
            .into_iter()
            .map(|(_, model)| Box::new(model) as Box<dyn CausalLm + Send>)
            .collect();
        opened.launch(config, models, adapters, sizes)
    }

    /// Loads weights to train beside onto the first of the GPUs.
    ///
    /// # Errors
    /// A GPU that cannot be used or has too little memory.
    pub(crate) fn weights(opened: &Opened, config: &Config, numbers: &[usize]) -> Result<Weights> {
        let number = numbers.first().copied().unwrap_or(0);
        let device = open(number)?;
        let (free, _) = device.memory()?;
        let bytes = opened.weights(config)?.total_bytes;
        if bytes > free {
            return Err(Failure::memory(format!(
                "cuda:{number}: the weights need {}, but only {} are free; try --quant q8_0 or q4_k, or a smaller model",
                output::bytes(bytes),
                output::bytes(free),
            )));
        }
        output::say(&format!("loading {} onto cuda:{number} …", opened.name()));
        let load = opened.load_options(config);
        Ok(Weights::Device(
            opened.files().load_decoder_on(&device, &load)?,
        ))
    }

    /// What is free on the device that is trained on, if it is one.
    ///
    /// # Errors
    /// A GPU that cannot be used.
    pub(crate) fn room(config: &Config, weights: &Weights) -> Result<Option<Room>> {
        let (device, bytes) = match (Devices::of(config)?, weights) {
            (Devices::Cpu { .. } | Devices::Metal, _) => return Ok(None),
            (_, Weights::Device(decoder)) => {
                (decoder.device().clone(), decoder.size_in_bytes() as u64)
            }
            (Devices::Cuda(_), Weights::Host(_)) => (open(first(config)?)?, 0),
        };
        Ok(Some(Room {
            number: first(config)?,
            free: device.memory()?.0,
            weights: bytes,
        }))
    }

    /// A network of which everything is trained, on the configured device.
    ///
    /// # Errors
    /// A GPU that cannot be used.
    pub(crate) fn network_onto(config: &Config, network: Network) -> Result<Network> {
        match Devices::of(config)? {
            Devices::Cpu { .. } => Ok(network),
            Devices::Cuda(_) => Ok(network.onto(&open(first(config)?)?)?),
            Devices::Metal => Err(metal::does_not_train()),
        }
    }

    /// The number of the first configured GPU.
    fn first(config: &Config) -> Result<usize> {
        match Devices::of(config)? {
            Devices::Cuda(numbers) => Ok(numbers.first().copied().unwrap_or(0)),
            Devices::Cpu { .. } | Devices::Metal => Ok(0),
        }
    }

    fn options(opened: &Opened, config: &Config) -> CudaOptions {
        let kv_type = match config.text("engine.kv_dtype") {
            Some("f32") => KvType::F32,
            Some("bf16") => KvType::BF16,
            Some("f8") => KvType::F8,
            _ => KvType::F16,
        };
        CudaOptions {
            max_tokens: config
                .integer("engine.max_batch_tokens")
                .unwrap_or(STEP_TOKENS),
            max_sequences: STEP_ROWS,
            block_size: config.integer("engine.block_size").unwrap_or(16),
            determinism: match Determinism::of(config) {
                Determinism::Loose => model::Determinism::Loose,
                Determinism::Strict => model::Determinism::Strict,
            },
            ..CudaOptions::new(
                opened.load_options(config),
                opened.context_tokens(),
                kv_type,
            )
        }
    }

    fn load(
        opened: &Opened,
        config: &Config,
        (number, options): (usize, &CudaOptions),
    ) -> Result<CudaLlama> {
        let device = open(number)?;
        let (free, _) = device.memory()?;
        let weights = opened.weights(config)?.total_bytes;
        let model = opened.model();
        let rows = options.logit_rows;
        let workspace = footprint::gpu_workspace_bytes(model, options.max_tokens, rows);
        if weights + workspace > free {
            return Err(Failure::memory(format!(
                "cuda:{number}: the weights need {} and a step of {} tokens {}, {} in all, but only {} are free; try --quant q8_0 or q4_k, a smaller --max-batch-tokens or a smaller model",
                output::bytes(weights),
                options.max_tokens,
                output::bytes(workspace),
                output::bytes(weights + workspace),
                output::bytes(free),
            )));
        }
        output::say(&format!("loading {} onto cuda:{number} …", opened.name()));
        Ok(opened.files().load_on(&device, options.clone())?)
    }

    /// Tokens of each replica's pool: as many as fit on the GPU with the least room, unless
    /// fewer are asked for.
    fn kv_tokens(
        models: &[(usize, CudaLlama)],
        asked: Option<usize>,
        options: &CudaOptions,
    ) -> Result<usize> {
        let mut least: Option<usize> = None;
        for (number, model) in models {
            let fits = model.kv_tokens_that_fit()?;
            let per_token = KvPool::bytes_per_token(model.config(), options.kv_type) as u64;
            let wanted = asked.unwrap_or(options.block_size);
            let whole = wanted.checked_next_multiple_of(options.block_size);
            if whole.is_none_or(|whole| whole > fits) {
                return Err(Failure::memory(format!(
                    "cuda:{number}: a KV cache of {wanted} tokens of {per_token} bytes needs {}, but beside the weights ({}) and the largest step there is room for {fits} tokens; lower --kv-tokens, or try --quant q8_0 or q4_k, or --kv-dtype f16",
                    output::bytes((wanted as u64).saturating_mul(per_token)),
                    output::bytes(model.weight_bytes() as u64),
                )));
            }
            least = Some(least.map_or(fits, |least| least.min(fits)));
        }
        let least = least.unwrap_or(options.block_size);
        Ok(asked.unwrap_or(least))
    }
}
