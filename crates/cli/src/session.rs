//! From a model's name to a running engine: the only module that wires model and engine.

use crate::args::ModelArgs;
use crate::config::Config;
use crate::cuda;
use crate::devices::Devices;
use crate::error::Failure;
use crate::footprint::{self, Weights};
use crate::identity;
use crate::interrupt::Interrupt;
use crate::machine;
use crate::metal;
use crate::output;
use crate::text_parts::{self, OwnFiles, TextParts};
use anyhow::{Context, Result};
use data::{Completion, Generate, Prompt, RequestError, Sampling};
use engine::scheduler::PrefixCache;
use engine::{Engine, EngineConfig, EngineStats, Overlap, Text, TextChunk};
use model::{
    Adapter, CausalLm, GgufFile, HubCache, KvPool, KvType, Llama, LoadAs, LoadOptions, ModelConfig,
    ModelFiles, Origin,
};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

pub(crate) use crate::embedded::NAME as EMBEDDED;

/// The Hugging Face cache that this environment names.
pub(crate) fn hub_cache() -> HubCache {
    HubCache::from_env(|name| std::env::var_os(name))
}

/// A model that was found; its config is read, its weights are not.
#[derive(Debug)]
pub(crate) struct Located {
    /// As the user named it.
    pub(crate) name: String,
    /// How the name was understood.
    pub(crate) found_as: String,
    pub(crate) files: ModelFiles,
    pub(crate) model: ModelConfig,
}

/// Whether this name, or none, means the model inside the program.
pub(crate) fn is_embedded(name: Option<&str>, config: &Config) -> bool {
    let name = name.unwrap_or(EMBEDDED);
    config.alias(name).unwrap_or(name) == EMBEDDED
}

/// Finds a model: the embedded one, a path, an id in the cache, an alias.
///
/// # Errors
/// Nothing of this name, files missing, a config that cannot be computed.
pub(crate) fn locate(argument: &str, config: &Config) -> Result<Located> {
    if is_embedded(Some(argument), config) {
        let files = ModelFiles::from_static(crate::embedded::GGUF)?;
        let model = files.config()?;
        return Ok(Located {
            name: EMBEDDED.into(),
            found_as: EMBEDDED.into(),
            files,
            model,
        });
    }
    if let Some(shape) = argument.strip_prefix(SHAPE_PREFIX) {
        return locate_shape(shape);
    }
    let found = model::resolve(argument, &hub_cache(), config.aliases())?;
    let found_as = match found.origin {
        Origin::Path => "path".to_owned(),
        Origin::HubCache { id, commit } => format!("{id} at {commit} in the Hugging Face cache"),
        Origin::Alias(target) => format!("alias of {target}"),
    };
    let files = ModelFiles::open(&found.path)?;
    let model = files.config()?;
    Ok(Located {
        name: argument.to_owned(),
        found_as,
        files,
        model,
    })
}

/// What names of models that are made up begin with.
pub(crate) const SHAPE_PREFIX: &str = "shape:";

/// A model of a known shape, filled with random weights: for measuring.
///
/// # Errors
/// No shape of this name.
pub(crate) fn locate_shape(shape: &str) -> Result<Located> {
    let Some(config) = model::shape(shape) else {
        let known = model::SHAPES.join(", ");
        return Err(Failure::usage(format!(
            "no shape {shape}; there are {known}"
        )));
    };
    let model = config?;
    Ok(Located {
        name: format!("{SHAPE_PREFIX}{shape}"),
        found_as: "random weights".into(),
        files: ModelFiles::random(shape, model.clone()),
        model,
    })
}

impl Located {
    /// Name of the shape, if the weights are made up.
    pub(crate) fn shape(&self) -> Option<&str> {
        self.name.strip_prefix(SHAPE_PREFIX)
    }

    /// Bytes of the weights' files.
    ///
    /// # Errors
    /// A file that cannot be looked at.
    pub(crate) fn size_in_bytes(&self) -> Result<u64> {
        let size = |path: &Path| {
            let metadata = std::fs::metadata(path);
            metadata
                .map(|metadata| metadata.len())
                .with_context(|| format!("cannot read {}", path.display()))
        };
        if self.name == EMBEDDED {
            return Ok(crate::embedded::GGUF.len() as u64);
        }
        if self.shape().is_some() {
            // As if they were stored in bf16.
            return Ok(2 * footprint::num_weights(&self.model).0);
        }
        let path = self.files.path();
        if !path.is_dir() {
            return GgufFile::open(path)?.paths().map(size).sum();
        }
        let cannot = || format!("cannot read {}", path.display());
        let mut bytes = 0;
        for entry in std::fs::read_dir(path).with_context(cannot)? {
            let file = entry.with_context(cannot)?.path();
            if file
                .extension()
                .is_some_and(|extension| extension == "safetensors")
            {
                bytes += size(&file)?;
            }
        }
        Ok(bytes)
    }
}

/// A model whose text side is ready; nothing heavy has happened yet.
#[derive(Debug, Clone)]
pub(crate) struct Opened {
    located: Arc<Located>,
    text: Text,
    context_tokens: usize,
    /// Adapters with their names; the first is the one that plain requests use.
    adapters: Vec<(String, PathBuf)>,
    identity: String,
}

/// Finds the configured model, reads its text side and takes its recommended sampling into
/// the configuration.
///
/// # Errors
/// As [`locate`]; a template, tokenizer or context that cannot be used.
pub(crate) fn open(args: &ModelArgs, config: &mut Config) -> Result<Opened> {
    let name = config.text("model").unwrap_or(EMBEDDED).to_owned();
    let adapter = args.adapter.as_deref().map(adapter_of);
    open_named(&name, adapter.into_iter().collect(), args, config)
}

/// Finds the model of this name, which need not be the configured one, with these adapters.
///
/// # Errors
/// As [`open`].
pub(crate) fn open_named(
    name: &str,
    adapters: Vec<(String, PathBuf)>,
    args: &ModelArgs,
    config: &mut Config,
) -> Result<Opened> {
    let located = locate(name, config)?;
    let own = OwnFiles {
        tokenizer: args.tokenizer.as_deref(),
        chat_template: args.chat_template.as_deref(),
    };
    let parts = TextParts::of(&located, own)?;
    for setting in &parts.recommended_settings() {
        config.insert(setting.clone())?;
    }
    let most = located.model.max_position_embeddings;
    let context_tokens = config.integer("engine.context").unwrap_or(most);
    if context_tokens > most {
        return Err(Failure::usage(format!(
            "--context {context_tokens}: the model was made for {most} tokens"
        )));
    }
    let identity = identity::of_model(&located, args, config)?;
    Ok(Opened {
        text: parts.into_text(args)?,
        located: Arc::new(located),
        context_tokens,
        adapters,
        identity,
    })
}

/// The text side alone; with a tokenizer file of one's own no model is needed.
///
/// # Errors
/// As [`open`].
pub(crate) fn open_text(args: &ModelArgs, config: &mut Config) -> Result<Text> {
    if args.tokenizer.is_some() {
        return text_parts::from_files(args);
    }
    Ok(open(args, config)?.text)
}

/// `NAME=DIR`, or a folder that gives its own name.
pub(crate) fn adapter_of(argument: &str) -> (String, PathBuf) {
    match argument.split_once('=') {
        Some((name, folder)) if !name.contains(['/', '\\']) && !name.is_empty() => {
            (name.into(), folder.into())
        }
        _ => {
            let folder = PathBuf::from(argument);
            let name = folder
                .file_name()
                .map_or("adapter".into(), |name| name.to_string_lossy().into_owned());
            (name, folder)
        }
    }
}

impl Opened {
    /// How this model reads and writes text.
    pub(crate) fn text(&self) -> &Text {
        &self.text
    }

    /// The model as the user named it.
    pub(crate) fn name(&self) -> &str {
        &self.located.name
    }

    /// Digest of the model with one of its adapters, or with none.
    ///
    /// # Errors
    /// An adapter that cannot be read.
    pub(crate) fn identity(&self, adapter: Option<&str>) -> Result<String> {
        let folder = self
            .adapters
            .iter()
            .find(|(name, _)| Some(name.as_str()) == adapter)
            .map(|(_, folder)| folder.as_path());
        match folder {
            None => Ok(self.identity.clone()),
            Some(folder) => identity::with_adapter(&self.identity, folder),
        }
    }

    /// Fails where a request for this prompt would fail before its first step.
    ///
    /// # Errors
    /// No template, a template that refuses, a prompt that does not fit in the context.
    pub(crate) fn check(&self, prompt: &Prompt, request: &Generate) -> Result<()> {
        self.check_rules(request)?;
        let prompt_tokens = text_parts::tokenize(&self.text, prompt)?.len();
        let wanted_tokens = request.max_tokens.unwrap_or(1);
        if prompt_tokens.saturating_add(wanted_tokens) > self.context_tokens {
            let context_tokens = self.context_tokens;
            return Err(RequestError::ContextOverflow {
                prompt_tokens,
                wanted_tokens,
                context_tokens,
            }
            .into());
        }
        Ok(())
    }

    /// Fails where every request with these rules would fail or could not mean what it says.
    ///
    /// # Errors
    /// A token id that the model does not have.
    pub(crate) fn check_rules(&self, request: &Generate) -> Result<()> {
        let vocab_size = self.located.model.vocab_size;
        let stops = request
            .stop
            .token_ids
            .iter()
            .map(|id| ("--stop-token-id", id));
        let biases = request
            .sampling
            .logit_bias
            .keys()
            .map(|id| ("--logit-bias", id));
        match stops
            .chain(biases)
            .find(|(_, id)| **id as usize >= vocab_size)
        {
            None => Ok(()),
            Some((flag, id)) => Err(Failure::usage(format!(
                "{flag} {id}: the model's token ids end at {}",
                vocab_size - 1
            ))),
        }
    }

    /// Fails where messages cannot be rendered at all.
    ///
    /// # Errors
    /// The model has no chat template.
    pub(crate) fn check_template(&self) -> Result<()> {
        match self.text.template() {
            Some(_) => Ok(()),
            None => Err(Failure::usage(
                "the model has no chat template, so it cannot answer messages; give one with --chat-template",
            )),
        }
    }

    /// Loads the weights and starts the engine.
    ///
    /// # Errors
    /// Weights that are damaged or do not fit in memory.
    pub(crate) fn start(self, config: &Config) -> Result<Session> {
        self.start_sized(config, None)
    }

    /// Like [`Opened::start`], with a KV pool of at least this many tokens.
    ///
    /// # Errors
    /// As [`Opened::start`].
    pub(crate) fn start_for(self, config: &Config, kv_tokens: usize) -> Result<Session> {
        self.start_sized(config, Some(kv_tokens))
    }

    fn start_sized(self, config: &Config, least_kv_tokens: Option<usize>) -> Result<Session> {
        match Devices::of(config)? {
            Devices::Cpu { .. } => self.start_with(config, self.load(config)?, least_kv_tokens),
            Devices::Cuda(numbers) => cuda::start(&self, config, &numbers, least_kv_tokens),
            Devices::Metal => metal::start(&self, config, least_kv_tokens),
        }
    }

    /// Loads the weights.
    ///
    /// # Errors
    /// Weights that are damaged or do not fit in memory.
    pub(crate) fn load(&self, config: &Config) -> Result<Llama> {
        self.check_weights_fit(config)?;
        Ok(self.located.files.load(&self.load_options(config))?)
    }

    /// How the weights are loaded.
    pub(crate) fn load_options(&self, config: &Config) -> LoadOptions {
        LoadOptions {
            weights: load_as(config),
            max_positions: Some(self.context_tokens),
        }
    }

    /// Fails where the machine's memory is too small for the weights.
    ///
    /// # Errors
    /// It is; a file that cannot be looked at.
    pub(crate) fn check_weights_fit(&self, config: &Config) -> Result<()> {
        let weights = self.weights(config)?;
        if let Some(available) = machine::memory()
            .available
            .filter(|free| *free < weights.total_bytes)
        {
            return Err(Failure::memory(format!(
                "the weights need {} but only {} of memory are free; try --quant q4_k or a smaller model",
                output::bytes(weights.total_bytes),
                output::bytes(available),
            )));
        }
        Ok(())
    }

    /// Sizes of the weights as they will lie in memory.
    ///
    /// # Errors
    /// A file that cannot be looked at.
    pub(crate) fn weights(&self, config: &Config) -> Result<Weights> {
        let bytes = self.located.size_in_bytes()?;
        Ok(footprint::weights(
            &self.located.model,
            bytes,
            load_as(config),
        ))
    }

    /// Folder or file of the model; nothing for the embedded one.
    pub(crate) fn path(&self) -> Option<&Path> {
        let has_files = self.located.name != EMBEDDED && self.located.shape().is_none();
        has_files.then(|| self.located.files.path())
    }

    /// What the model is read from.
    pub(crate) fn files(&self) -> &ModelFiles {
        &self.located.files
    }

    /// Sizes of the model.
    pub(crate) fn model(&self) -> &ModelConfig {
        &self.located.model
    }

    /// Tokens of the context.
    pub(crate) fn context_tokens(&self) -> usize {
        self.context_tokens
    }

    /// Weights in matrices.
    pub(crate) fn parameters(&self) -> usize {
        let (all, _) = footprint::num_weights(&self.located.model);
        usize::try_from(all).unwrap_or(usize::MAX)
    }

    /// The adapter that plain requests use: its folder.
    pub(crate) fn adapter_folder(&self) -> Option<&Path> {
        self.adapters.first().map(|(_, folder)| folder.as_path())
    }

    /// Its name.
    pub(crate) fn adapter_name(&self) -> Option<&str> {
        self.adapters.first().map(|(name, _)| name.as_str())
    }

    /// The same model with none of its adapters.
    pub(crate) fn without_adapters(&self) -> Self {
        Self {
            adapters: vec![],
            ..self.clone()
        }
    }

    /// Starts the engine on loaded weights, which others may share, with as many replicas as
    /// are configured.
    ///
    /// # Errors
    /// No room for a KV pool; an adapter that does not fit.
    pub(crate) fn start_with(
        &self,
        config: &Config,
        model: Llama,
        least_kv_tokens: Option<usize>,
    ) -> Result<Session> {
        let replicas = match Devices::of(config)? {
            Devices::Cpu { replicas } => replicas,
            // Weights that were loaded for training: they are where they are.
            Devices::Cuda(_) | Devices::Metal => 1,
        };
        let kv_type = match config.text("engine.kv_dtype") {
            Some("f16") => KvType::F16,
            Some(name @ ("bf16" | "f8")) => {
                return Err(Failure::usage(format!("--kv-dtype {name}: only on a GPU")));
            }
            Some(_) => KvType::F32,
            None => model.default_kv_type(),
        };
        let kv_tokens = self.kv_tokens(config, (kv_type, replicas), least_kv_tokens)?;
        let sizes = self.sizes(config, kv_tokens, kv_type);
        let mut adapters = Vec::new();
        for (name, folder) in &self.adapters {
            adapters.push((name.clone(), model.load_adapter(folder)?));
        }
        let decoder = model.decoder().clone();
        let more = (1..replicas).map(|_| Llama::of(decoder.clone()));
        let models = std::iter::once(model)
            .chain(more)
            .map(|model| Box::new(model) as Box<dyn CausalLm + Send>)
            .collect();
        self.launch(config, models, adapters, sizes)
    }

    /// The engine's sizes as they are configured.
    pub(crate) fn sizes(&self, config: &Config, kv_tokens: usize, kv_type: KvType) -> EngineConfig {
        let sizes = EngineConfig::new(self.context_tokens, kv_tokens, kv_type);
        EngineConfig {
            block_size: config
                .integer("engine.block_size")
                .unwrap_or(sizes.block_size),
            max_tokens_per_step: config
                .integer("engine.max_batch_tokens")
                .unwrap_or(sizes.max_tokens_per_step),
            prefix_cache: match config.text("engine.prefix_cache") {
                Some("off") => PrefixCache::Off,
                _ => PrefixCache::On,
            },
            overlap: match config.text("engine.overlap") {
                Some("off") => Overlap::Off,
                _ => Overlap::On,
            },
            ..sizes
        }
    }

    /// Adapters with their names, as the user gave them.
    pub(crate) fn adapters(&self) -> &[(String, PathBuf)] {
        &self.adapters
    }

    /// Starts the engine on replicas of this model.
    ///
    /// # Errors
    /// No room for a KV pool.
    pub(crate) fn launch(
        &self,
        config: &Config,
        models: Vec<Box<dyn CausalLm + Send>>,
        adapters: Vec<(String, Adapter)>,
        sizes: EngineConfig,
    ) -> Result<Session> {
        let (kv_tokens, kv_type) = (sizes.kv_tokens, sizes.kv_type);
        let engine = Engine::start_replicas(models, self.text.clone(), sizes)?;
        let mut names = Vec::new();
        for (name, adapter) in adapters {
            engine.load_adapter(&name, &adapter).wait()?;
            names.push(name);
        }
        let model = &self.located.model;
        Ok(Session {
            name: self.located.name.clone(),
            weights: self.weights(config)?,
            adapter: names.into_iter().next(),
            kv_tokens,
            kv_bytes_per_token: KvPool::bytes_per_token(model, kv_type),
            vocab_size: model.vocab_size,
            context_tokens: self.context_tokens,
            engine: Arc::new(engine),
        })
    }

    /// Tokens of each replica's pool in the machine's memory.
    ///
    /// # Errors
    /// No room for a KV pool.
    pub(crate) fn kv_tokens(
        &self,
        config: &Config,
        (kv_type, replicas): (KvType, usize),
        least: Option<usize>,
    ) -> Result<usize> {
        let model = &self.located.model;
        let free = machine::memory().available;
        let free = free.map(|free| free / replicas as u64);
        let asked = config.integer("engine.kv_tokens").or(least);
        let tokens = asked
            .or_else(|| footprint::kv_tokens(model, kv_type, self.context_tokens, free))
            .ok_or_else(|| {
                Failure::memory(
                    "no memory is left for a KV cache; try --quant q4_k or --kv-dtype f16",
                )
            })?;
        let block_size = config.integer("engine.block_size").unwrap_or(1);
        let per_token = KvPool::bytes_per_token(model, kv_type) as u64;
        let bytes = tokens
            .checked_next_multiple_of(block_size)
            .map_or(u64::MAX, |whole| (whole as u64).saturating_mul(per_token));
        match free {
            Some(free) if bytes > free => Err(Failure::memory(format!(
                "a KV cache of {tokens} tokens in blocks of {block_size} needs {} but only {} of memory are free; lower --kv-tokens",
                output::bytes(bytes),
                output::bytes(free),
            ))),
            _ => Ok(tokens),
        }
    }
}

/// What matrices become while they are loaded.
pub(crate) fn load_as(config: &Config) -> LoadAs {
    match config.text("engine.quant") {
        Some("q8_0") => LoadAs::Q8_0,
        Some("q4_k") => LoadAs::Q4K,
        _ => LoadAs::Stored,
    }
}

/// A running engine with what commands say about it.
pub(crate) struct Session {
    pub(crate) engine: Arc<Engine>,
    /// The model as the user named it.
    pub(crate) name: String,
    /// Name of the loaded adapter.
    pub(crate) adapter: Option<String>,
    pub(crate) weights: Weights,
    pub(crate) kv_tokens: usize,
    pub(crate) kv_bytes_per_token: usize,
    pub(crate) vocab_size: usize,
    context_tokens: usize,
}

/// Finished completions of one request with its times.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) completions: Vec<Completion>,
    first_text: Option<Duration>,
    elapsed: Duration,
    speeds: Speeds,
}

/// Tokens per second; `None` where nothing was measured.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Speeds {
    pub(crate) prefill: Option<f64>,
    pub(crate) decode: Option<f64>,
}

impl Speeds {
    fn between(before: &EngineStats, after: &EngineStats) -> Self {
        let rate = |tokens: u64, seconds: f64| {
            (tokens > 0 && seconds > 0.0).then(|| tokens as f64 / seconds)
        };
        Self {
            prefill: rate(
                after.num_tokens_prefilled - before.num_tokens_prefilled,
                after.prefill_seconds - before.prefill_seconds,
            ),
            decode: rate(
                after.num_tokens_decoded - before.num_tokens_decoded,
                after.decode_seconds - before.decode_seconds,
            ),
        }
    }

    fn told(self) -> impl Iterator<Item = String> {
        let named = [("prefill", self.prefill), ("decode", self.decode)];
        named
            .into_iter()
            .filter_map(|(name, rate)| Some(format!("{name} {:.0} tok/s", rate?)))
    }
}

impl Session {
    /// Asks for completions and hands the text out while it is written; `None` if the user
    /// stopped it.
    ///
    /// # Errors
    /// Why the request failed, or why the text could not be handed out.
    pub(crate) fn reply(
        &self,
        request: Generate,
        interrupt: &Interrupt,
        mut on_text: impl FnMut(&str) -> std::io::Result<()>,
    ) -> Result<Option<Reply>> {
        let before = self.engine.stats().wait()?;
        let (started, mut first_text) = (Instant::now(), None);
        let _orderly = interrupt.orderly();
        let (sender, chunks) = channel::<TextChunk>();
        // Nobody listening any more means that the request was given up.
        let pending = self
            .engine
            .generate_streaming(request, Box::new(move |chunk| drop(sender.send(chunk))));
        loop {
            match chunks.recv_timeout(Duration::from_millis(50)) {
                Ok(chunk) => {
                    first_text.get_or_insert_with(|| started.elapsed());
                    on_text(&chunk.text)?;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if interrupt.requested() {
                return Ok(None);
            }
        }
        let completions = pending.wait()?;
        let elapsed = started.elapsed();
        let speeds = Speeds::between(&before, &self.engine.stats().wait()?);
        Ok(Some(Reply {
            completions,
            first_text,
            elapsed,
            speeds,
        }))
    }

    /// Speeds since the start, as text.
    pub(crate) fn speeds(&self) -> Vec<String> {
        let stats = self.engine.stats().wait().unwrap_or_default();
        Speeds::between(&EngineStats::default(), &stats)
            .told()
            .collect()
    }

    /// Model, sampling and context in one line.
    pub(crate) fn describe(&self, sampling: &Sampling) -> String {
        let Sampling {
            temperature,
            top_k,
            top_p,
            min_p,
            ..
        } = sampling;
        let (name, context) = (&self.name, self.context_tokens);
        format!(
            "{name} | temperature {temperature} top_k {top_k} top_p {top_p} min_p {min_p} | context {context}"
        )
    }
}

impl Reply {
    /// Tokens and speeds, as text.
    pub(crate) fn timing(&self) -> String {
        let (prompt, written) = self.tokens();
        let mut parts = vec![format!("{prompt} + {written} tokens")];
        parts.extend(
            self.first_text
                .map(|time| format!("first text after {} ms", time.as_millis())),
        );
        parts.extend(self.speeds.told());
        parts.join(", ")
    }

    /// The same for programs.
    pub(crate) fn timing_json(&self) -> Value {
        let (prompt, written) = self.tokens();
        json!({
            "prompt_tokens": prompt, "completion_tokens": written,
            "first_text_seconds": self.first_text.map(|time| time.as_secs_f64()),
            "seconds": self.elapsed.as_secs_f64(),
            "prefill_tok_per_s": self.speeds.prefill, "decode_tok_per_s": self.speeds.decode,
        })
    }

    fn tokens(&self) -> (usize, usize) {
        let prompt = self
            .completions
            .first()
            .map_or(0, |one| one.usage.prompt_tokens);
        (
            prompt,
            self.completions
                .iter()
                .map(|one| one.usage.completion_tokens)
                .sum(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adapters_have_names() {
        let check = |argument, name: &str, folder: &str| {
            assert_eq!(
                adapter_of(argument),
                (name.to_owned(), PathBuf::from(folder)),
                "{argument}"
            );
        };
        check("runs/a/adapter", "adapter", "runs/a/adapter");
        check("judge=runs/a", "judge", "runs/a");
        check("a/b=c", "b=c", "a/b=c");
        check("..", "adapter", "..");
    }

    #[test]
    fn speeds_are_differences() {
        let before = EngineStats {
            num_tokens_prefilled: 10,
            prefill_seconds: 1.0,
            ..EngineStats::default()
        };
        let after = EngineStats {
            num_tokens_prefilled: 30,
            prefill_seconds: 2.0,
            ..before
        };
        assert_eq!(
            Speeds::between(&before, &after),
            Speeds {
                prefill: Some(20.0),
                decode: None
            }
        );
    }
}
