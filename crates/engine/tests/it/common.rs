//! Engines on tiny random models.

use candle_core::quantized::GgmlDType;
use data::{Completion, Generate, Generator, Prompt, Sampling, TokenId};
use engine::{Engine, EngineConfig, Text};
use model::{GgufFile, KvType, LoadOptions, ModelConfig, ModelFiles, Tokenizer};
use testkit::gguf_writer::gguf_twin;
use testkit::random_model::random_weights;

/// Sizes of the engines under test.
#[derive(Debug, Clone)]
pub(crate) struct Sizes {
    pub(crate) kv_tokens: usize,
    pub(crate) block_size: usize,
    pub(crate) max_tokens_per_step: usize,
    pub(crate) max_sequences: usize,
    pub(crate) prefix_cache: engine::scheduler::PrefixCache,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            kv_tokens: 4096,
            block_size: 8,
            max_tokens_per_step: 512,
            max_sequences: 64,
            prefix_cache: engine::scheduler::PrefixCache::On,
        }
    }
}

pub(crate) const CONTEXT_TOKENS: usize = 400;

/// A small random Llama (hidden 256, so that k-quants fit) with its matrices in `format`.
pub(crate) fn load(format: GgmlDType) -> model::Llama {
    files(format).load(&LoadOptions::default()).unwrap()
}

/// The files of the same.
pub(crate) fn files(format: GgmlDType) -> ModelFiles {
    let config = config();
    let twin = gguf_twin(&config, &random_weights(&config, 3), format);
    ModelFiles::from_gguf(GgufFile::from_vec(twin.writer.bytes()).unwrap())
}

/// The same in f32 with NaN for the embedding of one token.
pub(crate) fn load_poisoned(token: TokenId) -> model::Llama {
    files_poisoned(token).load(&LoadOptions::default()).unwrap()
}

/// The files of the same.
pub(crate) fn files_poisoned(token: TokenId) -> ModelFiles {
    let config = config();
    let mut weights = random_weights(&config, 3);
    let embedding = weights.get_mut("model.embed_tokens.weight").unwrap();
    let row = token as usize * config.hidden_size;
    embedding.values[row..row + config.hidden_size].fill(f64::NAN);
    let twin = gguf_twin(&config, &weights, GgmlDType::F32);
    ModelFiles::from_gguf(GgufFile::from_vec(twin.writer.bytes()).unwrap())
}

fn config() -> ModelConfig {
    let json = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 2,
        "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 32, "vocab_size": text().tokenizer().vocab_size(),
        "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": false, "bos_token_id": 1, "eos_token_id": 2,
    });
    ModelConfig::from_hf_json("config.json".as_ref(), &json.to_string()).unwrap()
}

/// A tokenizer whose vocabulary covers the fixture's.
pub(crate) fn text() -> Text {
    static TINY: &[u8] = include_bytes!("../../../../tests/models/tiny/tiny.gguf");
    let file = GgufFile::from_static(TINY).unwrap();
    Text::new(Tokenizer::from_gguf(&file).unwrap(), None, vec![2])
}

pub(crate) fn start(model: model::Llama, sizes: &Sizes) -> Engine {
    start_replicas(vec![model], sizes)
}

pub(crate) fn start_replicas(models: Vec<model::Llama>, sizes: &Sizes) -> Engine {
    let config = EngineConfig {
        block_size: sizes.block_size,
        max_tokens_per_step: sizes.max_tokens_per_step,
        max_sequences: sizes.max_sequences,
        prefix_cache: sizes.prefix_cache,
        ..EngineConfig::new(CONTEXT_TOKENS, sizes.kv_tokens, KvType::F32)
    };
    let models = models
        .into_iter()
        .map(|model| Box::new(model) as Box<dyn model::CausalLm + Send>)
        .collect();
    Engine::start_replicas(models, text(), config).unwrap()
}

/// SplitMix64 (Steele, Lea, Flood 2014): reproducible choices for tests.
pub(crate) struct Choices(pub u64);

impl Choices {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % end
    }

    pub(crate) fn tokens(&mut self, len: usize) -> Vec<TokenId> {
        (0..len).map(|_| 3 + self.below(250) as TokenId).collect()
    }
}

/// Requests with shared beginnings and every kind of sampling.
pub(crate) fn requests(count: usize, seed: u64) -> Vec<Generate> {
    let mut choices = Choices(seed);
    let stems: Vec<Vec<TokenId>> = [5, 17, 24, 40].map(|len| choices.tokens(len)).into();
    (0..count)
        .map(|index| {
            let mut tokens = stems[choices.below(4) as usize].clone();
            let own = choices.below(12) as usize;
            tokens.extend(choices.tokens(own));
            let sampling = match index % 4 {
                0 => Sampling::greedy(),
                1 => Sampling {
                    top_p: 0.95,
                    ..Sampling::default()
                },
                2 => Sampling {
                    temperature: 0.7,
                    top_k: 20,
                    ..Sampling::default()
                },
                _ => Sampling {
                    repetition_penalty: 1.2,
                    presence_penalty: 0.3,
                    frequency_penalty: 0.1,
                    min_p: 0.02,
                    ..Sampling::default()
                },
            };
            Generate {
                sampling,
                max_tokens: Some(1 + choices.below(20) as usize),
                seed: choices.below(u64::MAX),
                logprobs: Some(2),
                ..Generate::new(Prompt::Tokens(tokens))
            }
        })
        .collect()
}

/// What must not depend on the batch: tokens, text and every bit of the log-probabilities.
pub(crate) type Trace = Vec<(Vec<TokenId>, String, Vec<[u32; 2]>)>;

pub(crate) fn trace(completions: &[Completion]) -> Trace {
    let bits = |completion: &Completion| {
        completion
            .logprobs
            .iter()
            .map(|token| [token.logprob.to_bits(), token.sampled_logprob.to_bits()])
            .collect()
    };
    completions
        .iter()
        .map(|c| (c.tokens.clone(), c.text.clone(), bits(c)))
        .collect()
}

/// Every request by itself, one after the other.
pub(crate) fn one_by_one(engine: &Engine, requests: &[Generate]) -> Vec<Trace> {
    requests
        .iter()
        .map(|r| trace(&engine.generate(r.clone()).wait().unwrap()))
        .collect()
}

/// All requests at once.
pub(crate) fn together(engine: &Engine, requests: &[Generate]) -> Vec<Trace> {
    let pending: Vec<_> = requests
        .iter()
        .map(|r| engine.generate(r.clone()))
        .collect();
    pending
        .into_iter()
        .map(|answer| trace(&answer.wait().unwrap()))
        .collect()
}
