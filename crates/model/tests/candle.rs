//! The model in candle's operations, on the processor: beside transformers, the f64 oracle and
//! the model with our kernels.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use candle_core::Device;
use candle_core::quantized::GgmlDType;
use common::{BLOCK, Part, batch, bits, flat, logits_in_chunks, worst};
use model::{
    CandleLlama, CausalLm, ForwardBatch, GgufFile, KvPool, KvType, LoadAs, LoadOptions,
    ModelConfig, ModelFiles,
};
use std::path::Path;
use testkit::fixtures::{self, Golden, MODELS};
use testkit::gguf_writer::{GgufTwin, fixture_twin, gguf_twin};
use testkit::oracle::{self, relative_l2};
use testkit::random_model::random_weights;

fn load(files: &ModelFiles, weights: LoadAs) -> CandleLlama {
    let options = LoadOptions {
        weights,
        max_positions: Some(512),
    };
    files.load_with_candle(&Device::Cpu, &options).unwrap()
}

fn folder(name: &str) -> ModelFiles {
    ModelFiles::open(&fixtures::folder(name)).unwrap()
}

fn open_twin(twin: &GgufTwin) -> ModelFiles {
    ModelFiles::from_gguf(GgufFile::from_vec(twin.writer.bytes()).unwrap())
}

fn part<'a>(tokens: &'a [u32], places: std::ops::Range<usize>, blocks: &'a [u32]) -> Part<'a> {
    Part {
        tokens,
        places,
        blocks,
        adapter: None,
    }
}

fn tokens(count: usize, seed: usize) -> Vec<u32> {
    (0..count)
        .map(|index| ((index * index * 7 + index * 31 + seed) % 64) as u32)
        .collect()
}

/// Every architecture, prompts whole and in chunks.
#[test]
fn f32_logits_equal_transformers() {
    for name in MODELS {
        let golden = Golden::read(&fixtures::folder(name));
        let model = load(&folder(name), LoadAs::F32);
        let vocab = model.config().vocab_size;
        for (length, chunks) in [
            (7, &[7][..]),
            (33, &[20, 1]),
            (300, &[300]),
            (300, &[77, 5]),
        ] {
            let found = logits_in_chunks(&model, &golden.tokens(length), chunks, None, KvType::F32);
            let distance = worst(&found, golden.logits("logits", length), vocab);
            println!("{name}, {length} by {chunks:?}: {distance:.2e}");
            assert!(
                distance < 1e-5,
                "{name}, {length} by {chunks:?}: {distance:e}"
            );
        }
    }
}

/// A GGUF of the llama architecture turns neighbours.
#[test]
fn gguf_twins_equal_transformers() {
    for name in ["llama3_1", "mistral", "qwen3"] {
        let config = folder(name).config().unwrap();
        let golden = Golden::read(&fixtures::folder(name));
        let twin = fixture_twin(name, &config, GgmlDType::F32);
        let model = load(&open_twin(&twin), LoadAs::Stored);
        let tokens = golden.tokens(33);
        let found = logits_in_chunks(&model, &tokens, &[30, 1], None, KvType::F32);
        let distance = worst(&found, golden.logits("logits", 33), config.vocab_size);
        assert!(distance < 1e-5, "{name}: {distance:e}");
    }
}

#[test]
fn logits_with_a_cache_in_16_bits_are_near() {
    for (name, kv_type) in [("llama3_1", KvType::BF16), ("qwen2", KvType::F16)] {
        let golden = Golden::read(&fixtures::folder(name));
        let model = load(&folder(name), LoadAs::Stored);
        let tokens = golden.tokens(33);
        let found = logits_in_chunks(&model, &tokens, &[30, 1], None, kv_type);
        let whole = relative_l2(&found, golden.logits("logits", 33));
        println!("{name}, {kv_type:?}: {whole:.2e}");
        assert!(whole < 2e-2, "{name}, {kv_type:?}: {whole:e}");
    }
}

/// A Llama 3.1 in small whose rows are whole blocks of every format.
fn wide_config() -> ModelConfig {
    let text = r#"{"architectures": ["LlamaForCausalLM"], "hidden_size": 256, "intermediate_size": 512,
        "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 2, "vocab_size": 96,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 64}}"#;
    ModelConfig::from_hf_json(Path::new("config.json"), text).unwrap()
}

/// On the processor candle rounds activations to 8 bits, relative to up to 256 values (forward.rs
/// has the arithmetic), and to f16 for F16.
#[test]
fn gguf_formats_equal_the_oracle_on_the_dequantised_weights() {
    let config = wide_config();
    let weights = random_weights(&config, 7);
    let tokens = tokens(40, 5);
    for (dtype, most) in [
        (GgmlDType::F32, 3e-6),
        (GgmlDType::F16, 2e-3),
        (GgmlDType::BF16, 3e-6),
        (GgmlDType::Q4_0, 2.5e-2),
        (GgmlDType::Q5_1, 2.5e-2),
        (GgmlDType::Q8_0, 2.5e-2),
        (GgmlDType::Q2K, 2.5e-2),
        (GgmlDType::Q3K, 2.5e-2),
        (GgmlDType::Q4K, 2.5e-2),
        (GgmlDType::Q5K, 2.5e-2),
        (GgmlDType::Q6K, 2.5e-2),
    ] {
        let twin = gguf_twin(&config, &weights, dtype);
        let files = open_twin(&twin);
        let model = load(&files, LoadAs::Stored);
        let expected = oracle::logits(&files.config().unwrap(), &twin.weights, &tokens).concat();
        let found = logits_in_chunks(&model, &tokens, &[35, 1], None, KvType::F32);
        let whole = relative_l2(&found, &expected);
        println!("{dtype:?}: {whole:.2e}");
        assert!(whole < most, "{dtype:?}: {whole:e}");
    }
    // Beside our kernels, which round in their own way.
    let dense = gguf_twin(&config, &weights, GgmlDType::F32);
    for load_as in [LoadAs::Q8_0, LoadAs::Q4K] {
        let model = load(&open_twin(&dense), load_as);
        let host = open_twin(&dense)
            .load(&LoadOptions {
                weights: load_as,
                ..Default::default()
            })
            .unwrap();
        let logits =
            |model: &dyn CausalLm| logits_in_chunks(model, &tokens, &[40], None, KvType::F32);
        let expected: Vec<f64> = logits(&host).into_iter().map(f64::from).collect();
        let whole = relative_l2(&logits(&model), &expected);
        println!("{load_as:?}: {whole:.2e}");
        assert!(whole < 4e-2, "{load_as:?}: {whole:e}");
    }
}

/// Prompts and single tokens of sequences of several lengths in one step, rows asked for in any
/// order.
#[test]
fn sequences_in_a_batch_equal_those_alone() {
    for name in ["llama3_1", "qwen2_window", "mistral"] {
        let model = load(&folder(name), LoadAs::F32);
        let vocab = model.config().vocab_size;
        let all = [40, 21, 33, 5].map(|count| tokens(count, count));
        let alone = all.each_ref().map(|tokens| {
            let logits = logits_in_chunks(&model, tokens, &[tokens.len()], None, KvType::F32);
            logits.into_iter().map(f64::from).collect::<Vec<_>>()
        });
        let blocks: [&[u32]; 4] = [&[9, 2, 5], &[1, 8], &[3, 0, 7], &[4]];
        let pool = model.kv_pool(10, BLOCK, KvType::F32).unwrap();
        // Two prompts of one length beside others, then all but one sequence by one token.
        let first = [0..30, 0..20, 0..30, 0..3];
        let second = [30..31, 20..21, 30..31, 3..5];
        for places in [first, second] {
            let rows = all.iter().zip(blocks).zip(&places);
            let parts: Vec<_> = rows
                .map(|((tokens, blocks), places)| part(tokens, places.clone(), blocks))
                .collect();
            let mut step = batch(&parts);
            step.logit_rows.reverse();
            let found = flat(&model.forward(&step, &pool).unwrap());
            let expected: Vec<f64> = alone
                .iter()
                .zip(&places)
                .flat_map(|(logits, places)| &logits[places.start * vocab..places.end * vocab])
                .copied()
                .collect();
            let reversed: Vec<f64> = expected.chunks(vocab).rev().flatten().copied().collect();
            let distance = worst(&found, &reversed, vocab);
            assert!(distance < 1e-5, "{name}, {places:?}: {distance:e}");
            let again = flat(&model.forward(&step, &pool).unwrap());
            assert!(bits(&again) == bits(&found), "{name}, {places:?}: again");
        }
    }
}

#[test]
fn adapters_equal_those_on_the_processor() {
    let files = folder("llama3_1");
    let options = LoadOptions {
        weights: LoadAs::F32,
        max_positions: Some(512),
    };
    let (mut ours, mut model) = (files.load(&options).unwrap(), load(&files, LoadAs::F32));
    let root = fixtures::folder("llama3_1");
    let ids = ["adapter", "adapter_rslora"].map(|name| {
        let adapter = model.load_adapter(&root.join(name)).unwrap();
        let id = ours.add_adapter(adapter.clone()).unwrap();
        assert_eq!(model.add_adapter(adapter).unwrap(), id);
        id
    });
    let (tokens, vocab) = (tokens(12, 3), model.config().vocab_size);
    let expected = |adapter| -> Vec<f64> {
        let found = logits_in_chunks(&ours, &tokens, &[12], adapter, KvType::F32);
        found.into_iter().map(f64::from).collect()
    };
    let pool = model.kv_pool(3, BLOCK, KvType::F32).unwrap();
    let choices = [Some(ids[1]), None, Some(ids[0])];
    let parts: Vec<_> = choices
        .iter()
        .zip([&[0], &[1], &[2]])
        .map(|(adapter, blocks)| Part {
            adapter: *adapter,
            ..part(&tokens, 0..12, blocks)
        })
        .collect();
    let together = flat(&model.forward(&batch(&parts), &pool).unwrap());
    for (found, choice) in together.chunks(12 * vocab).zip(choices) {
        let distance = worst(found, &expected(choice), vocab);
        assert!(distance < 1e-5, "{choice:?}: {distance:e}");
        let alone = logits_in_chunks(&model, &tokens, &[9, 1], choice, KvType::F32);
        let distance = worst(&alone, &expected(choice), vocab);
        assert!(distance < 1e-5, "{choice:?} alone: {distance:e}");
    }
    assert!(model.remove_adapter(ids[1]).is_some());
    let error = model.forward(&batch(&parts), &pool).unwrap_err();
    assert!(error.to_string().contains("not loaded"), "{error}");
}

/// What other sequences left in a block, or have beside this one, stays theirs: NaN times a
/// weight of 0 would be NaN.
#[test]
fn nan_does_not_spread() {
    let config = wide_config();
    let mut weights = random_weights(&config, 3);
    let embedding = weights.get_mut("model.embed_tokens.weight").unwrap();
    embedding.values[63 * config.hidden_size..64 * config.hidden_size].fill(f64::NAN);
    let twin = gguf_twin(&config, &weights, GgmlDType::F32);
    let model = load(&open_twin(&twin), LoadAs::Stored);
    let pool = model.kv_pool(4, BLOCK, KvType::F32).unwrap();
    let (poisoned, long, short) = ([63; 20], [5; 20], [7; 4]);
    model
        .forward(&batch(&[part(&poisoned, 0..20, &[0, 1])]), &pool)
        .unwrap();
    let prompts = [part(&long, 0..19, &[2, 1]), part(&short, 0..3, &[0])];
    let decode = [
        part(&short, 3..4, &[0]),
        part(&long, 19..20, &[2, 1]),
        part(&poisoned, 0..1, &[3]),
    ];
    let logits = flat(&model.forward(&batch(&prompts), &pool).unwrap());
    assert!(logits.iter().all(|value| value.is_finite()));
    let logits = flat(&model.forward(&batch(&decode), &pool).unwrap());
    let (clean, own) = logits.split_at(2 * config.vocab_size);
    assert!(clean.iter().all(|value| value.is_finite()));
    assert!(own.iter().all(|value| value.is_nan()));
}

#[test]
fn copied_blocks_serve_another_sequence() {
    let model = load(&folder("llama3_1"), LoadAs::F32);
    let (a, mut b) = (tokens(30, 0), tokens(30, 0));
    for token in &mut b[20..] {
        *token = (*token + 7) % 64;
    }
    let alone = logits_in_chunks(&model, &b, &[30], None, KvType::F32);
    let alone: Vec<f64> = alone.into_iter().map(f64::from).collect();
    let pool = model.kv_pool(4, BLOCK, KvType::F32).unwrap();
    let mut prefix = batch(&[part(&a, 0..20, &[3, 1])]);
    // K and V are written even if nobody asks for logits.
    prefix.logit_rows.clear();
    assert_eq!(model.forward(&prefix, &pool).unwrap().dims(), [0, 64]);
    pool.copy_blocks(&[(1, 2), (2, 0)]).unwrap();
    let both = [part(&a, 20..30, &[3, 1]), part(&b, 20..30, &[3, 0])];
    let found = flat(&model.forward(&batch(&both), &pool).unwrap());
    let distance = worst(&found[10 * 64..], &alone[20 * 64..], 64);
    assert!(distance < 1e-5, "{distance:e}");
    for copy in [(1, 4), (4, 1)] {
        assert!(pool.copy_blocks(&[copy]).is_err());
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let files = folder("llama2");
    let options = LoadOptions {
        max_positions: Some(8),
        ..Default::default()
    };
    let model = files.load_with_candle(&Device::Cpu, &options).unwrap();
    let pool = model.kv_pool(2, BLOCK, KvType::F32).unwrap();
    let tokens = tokens(20, 1);
    let failure = |parts: &[Part<'_>], pool: &KvPool| {
        let error = model.forward(&batch(parts), pool).unwrap_err();
        error.to_string()
    };
    let long = failure(&[part(&tokens, 0..9, &[0])], &pool);
    assert!(long.contains("position 8"), "{long}");
    let far = failure(&[part(&tokens, 0..4, &[0, 2])], &pool);
    assert!(far.contains("block 2 is out of range"), "{far}");
    let host = KvPool::new(model.config(), 2, BLOCK, KvType::F32).unwrap();
    let elsewhere = failure(&[part(&tokens, 0..4, &[0])], &host);
    assert!(elsewhere.contains("another model's"), "{elsewhere}");
    let good = batch(&[part(&tokens, 0..4, &[0])]);
    let hidden = model.hidden(&good, &pool).unwrap();
    assert!(model.logits(&hidden, 2..5).is_err());
    let unknown = ForwardBatch {
        drawn: vec![(3, 0)],
        ..good.clone()
    };
    let error = model.hidden(&unknown, &pool).unwrap_err().to_string();
    assert!(error.contains("still to be drawn"), "{error}");
    assert!(files.load(&options).unwrap().forward(&good, &pool).is_err());
    assert!(model.kv_pool(1 << 40, BLOCK, KvType::F32).is_err());
}

#[cfg(not(feature = "metal"))]
#[test]
fn without_the_feature_there_is_no_metal() {
    let error = model::metal_device().unwrap_err().to_string();
    assert!(error.contains("--features metal"), "{error}");
}
