//! How much memory a model takes: arithmetic on its config, nothing is loaded.

use model::{KvPool, KvType, LoadAs, ModelConfig};

/// Bytes per weight of a Q8_0 block: 32 weights and a half.
const Q8_0: f64 = 34.0 / 32.0;
/// Bytes per weight of a Q4_K block: 256 weights in 144 bytes.
const Q4_K: f64 = 144.0 / 256.0;

/// Tokens of a pool that nobody sized, unless memory or the context says otherwise.
const KV_TOKENS: usize = 65_536;
/// Part of the free memory that a pool nobody sized may take.
const KV_SHARE: f64 = 0.6;

/// Sizes of a model's weights in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Weights {
    /// All of them.
    pub(crate) total_bytes: u64,
    /// Those that decoding one token reads: all but an embedding that is only looked up.
    pub(crate) streamed_bytes: u64,
}

/// Weights in matrices: all, and those of the embedding and the output.
pub(crate) fn num_weights(config: &ModelConfig) -> (u64, u64) {
    let size = |a: usize, b: usize| a as u64 * b as u64;
    let hidden = config.hidden_size;
    let layer = 2 * size(hidden, config.q_size())
        + 2 * size(hidden, config.kv_size())
        + 3 * size(hidden, config.intermediate_size);
    let embedding = size(hidden, config.vocab_size);
    let vocabulary = if config.tie_word_embeddings {
        embedding
    } else {
        2 * embedding
    };
    (layer * config.num_layers as u64 + vocabulary, vocabulary)
}

/// The weights of a model whose files take `file_bytes`, loaded as `load_as`.
pub(crate) fn weights(config: &ModelConfig, file_bytes: u64, load_as: LoadAs) -> Weights {
    let (all, vocabulary) = num_weights(config);
    let bytes = |count: u64, each: f64| (count as f64 * each) as u64;
    let per_weight = file_bytes as f64 / all.max(1) as f64;
    // A matrix is never made larger by quantising: what is smaller already stays.
    let (body, edge) = match load_as {
        LoadAs::Stored => (per_weight, per_weight),
        LoadAs::F32 => (4.0, 4.0),
        LoadAs::Q8_0 => (Q8_0.min(per_weight), Q8_0.min(per_weight)),
        LoadAs::Q4K => (Q4_K.min(per_weight), Q8_0.min(per_weight)),
    };
    let total_bytes = bytes(all - vocabulary, body) + bytes(vocabulary, edge);
    let looked_up = if config.tie_word_embeddings {
        0
    } else {
        bytes(vocabulary / 2, edge)
    };
    Weights {
        total_bytes,
        streamed_bytes: total_bytes - looked_up,
    }
}

/// Memory of a GPU that is left alone: what the driver, its libraries and other programs
/// take without saying so.
pub(crate) const GPU_SPARE_BYTES: u64 = 1 << 30;

/// Bytes of a GPU's buffers for steps of `tokens` tokens, `rows` of which ask for logits:
/// the residual stream, what lies between the products, and the logits. On the device the
/// real figure is measured; this one serves before there is a device.
pub(crate) fn gpu_workspace_bytes(config: &ModelConfig, tokens: usize, rows: usize) -> u64 {
    let hidden = config.hidden_size;
    let qkv = config.q_size() + 2 * config.kv_size();
    let inner = config.intermediate_size;
    // f32 sums and 16-bit factors of the products that follow them.
    let per_token = 4 * (2 * hidden + qkv + 2 * inner) + 2 * (hidden + config.q_size() + inner);
    let logits = 2 * 4 * config.vocab_size;
    (tokens * per_token + rows * logits) as u64
}

/// Tokens of the KV pool where none were asked for: room for several sequences of
/// `context` tokens, as far as the free memory carries. `None`: not even one block fits.
pub(crate) fn kv_tokens(
    config: &ModelConfig,
    kv_type: KvType,
    context: usize,
    free_bytes: Option<u64>,
) -> Option<usize> {
    let wanted = KV_TOKENS.max(context);
    let Some(free) = free_bytes else {
        return Some(wanted);
    };
    let affordable =
        free as f64 * KV_SHARE / KvPool::bytes_per_token(config, kv_type).max(1) as f64;
    let tokens = wanted.min(affordable as usize);
    (tokens >= 16).then_some(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::ModelFiles;

    fn tiny() -> ModelConfig {
        ModelFiles::from_static(include_bytes!("../../../tests/models/tiny/tiny.gguf"))
            .unwrap()
            .config()
            .unwrap()
    }

    #[test]
    fn a_tiny_model_by_hand() {
        let (all, vocabulary) = num_weights(&tiny());
        assert_eq!(vocabulary, 768 * 128);
        assert_eq!(
            all,
            768 * 128 + 3 * (2 * 128 * 128 + 2 * 128 * 64 + 3 * 128 * 256)
        );
    }

    #[test]
    fn quantising_never_grows() {
        let config = tiny();
        let (all, _) = num_weights(&config);
        let of = |bytes_each: f64, load_as| {
            weights(&config, (all as f64 * bytes_each) as u64, load_as).total_bytes as f64
                / all as f64
        };
        assert!((of(2.0, LoadAs::Q8_0) - 1.0625).abs() < 1e-3);
        assert!((of(2.0, LoadAs::Stored) - 2.0).abs() < 1e-3);
        assert!((of(0.5, LoadAs::Q8_0) - 0.5).abs() < 1e-3);
        let q4 = of(2.0, LoadAs::Q4K);
        assert!(0.5625 < q4 && q4 < 1.0625, "{q4}");
    }

    #[test]
    fn an_untied_embedding_is_not_streamed() {
        let config = ModelConfig {
            tie_word_embeddings: false,
            ..tiny()
        };
        let size = weights(&config, 10_000_000, LoadAs::Q8_0);
        let embedding = (768.0 * 128.0 * Q8_0) as u64;
        assert_eq!(size.total_bytes - size.streamed_bytes, embedding);
    }

    /// By hand: 8,030,261,248 parameters, 266,240 of them in norms; 128,256 x 4,096 in each of
    /// the embedding and the output.
    #[test]
    fn an_8b_by_hand() {
        let config = model::shape("llama-3.1-8b").unwrap().unwrap();
        let (all, vocabulary) = num_weights(&config);
        assert_eq!(all, 8_030_261_248 - 266_240);
        assert_eq!(vocabulary, 2 * 525_336_576);
        let size = |load_as| weights(&config, 2 * all, load_as);
        assert_eq!(size(LoadAs::Stored).total_bytes, 16_059_990_016);
        // 15.01 GB are read for each token.
        assert_eq!(size(LoadAs::Stored).streamed_bytes, 15_009_316_864);
        // 34 bytes for 32 weights.
        assert_eq!(size(LoadAs::Q8_0).total_bytes, all / 32 * 34);
        // 144 bytes for 256 weights, Q8_0 for the vocabulary.
        let q4 = (all - vocabulary) / 256 * 144 + vocabulary / 32 * 34;
        assert_eq!(size(LoadAs::Q4K).total_bytes, q4);
        assert_eq!(KvPool::bytes_per_token(&config, KvType::F16), 131_072);
        assert_eq!(KvPool::bytes_per_token(&config, KvType::F32), 262_144);
        // 2,048 tokens a step: 2,048 x 217,088 bytes, and 256 x 1,026,048 for logits.
        assert_eq!(
            gpu_workspace_bytes(&config, 2048, 256),
            2048 * (4 * (8192 + 6144 + 28_672) + 2 * (8192 + 14_336)) + 256 * 1_026_048
        );
    }

    #[test]
    fn pools_follow_memory() {
        let config = tiny();
        let each = KvPool::bytes_per_token(&config, KvType::F32) as u64;
        let tokens = |free, context| kv_tokens(&config, KvType::F32, context, free);
        assert_eq!(tokens(None, 10), Some(KV_TOKENS));
        assert_eq!(tokens(None, 100_000), Some(100_000));
        assert_eq!(tokens(Some(each * 1000), 10), Some(600));
        assert_eq!(tokens(Some(each), 10), None);
    }
}
