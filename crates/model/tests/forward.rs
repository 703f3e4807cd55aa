//! Logits beside those that transformers computed, and beside the oracle's on the dequantised
//! weights for GGUF files and quantisation at load.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by panicking and say what they measured"
)]

mod common;

use candle_core::quantized::GgmlDType;
use common::{Part, batch, bits, flat, logits_in_chunks, worst};
use model::{
    CausalLm, GgufFile, KvPool, KvType, Llama, LoadAs, LoadOptions, ModelConfig, ModelFiles,
};
use std::path::Path;
use testkit::fixtures::{self, Golden, MODELS, PROMPT_LENGTHS};
use testkit::gguf_writer::{GgufTwin, fixture_twin, gguf_twin};
use testkit::oracle::{self, OracleWeights, relative_l2};
use testkit::random_model::random_weights;

fn load(name: &str, weights: LoadAs) -> Llama {
    let options = LoadOptions {
        weights,
        ..Default::default()
    };
    ModelFiles::open(&fixtures::folder(name))
        .unwrap()
        .load(&options)
        .unwrap()
}

/// Logits (T, V) of one sequence, computed in one go, with exact K and V.
fn logits(model: &Llama, tokens: &[u32]) -> Vec<f32> {
    logits_in_chunks(model, tokens, &[tokens.len()], None, KvType::F32)
}

#[test]
fn f32_logits_equal_transformers_at_every_position() {
    for name in MODELS {
        let golden = Golden::read(&fixtures::folder(name));
        let model = load(name, LoadAs::F32);
        for length in PROMPT_LENGTHS {
            let found = logits(&model, &golden.tokens(length));
            let distance = worst(
                &found,
                golden.logits("logits", length),
                model.config().vocab_size,
            );
            println!("{name}, {length} tokens: {distance:.2e}");
            assert!(distance < 1e-5, "{name}, {length} tokens: {distance:e}");
        }
    }
}

/// transformers rounds activations to bf16 after every operation and we do not, so the two
/// differ by its rounding: 1.5e-2 over a prompt, up to 4.5e-2 at single positions, while ours
/// stays within 1e-2 of the f32 logits everywhere.
#[test]
fn bf16_logits_are_as_near_to_transformers_as_its_rounding_allows() {
    for name in ["llama3_1", "qwen3"] {
        let golden = Golden::read(&fixtures::folder(name));
        let model = load(name, LoadAs::Stored);
        assert_eq!(model.default_kv_type(), KvType::F16);
        for length in PROMPT_LENGTHS {
            let tokens = golden.tokens(length);
            let found = logits_in_chunks(&model, &tokens, &[length], None, KvType::F16);
            let whole = relative_l2(&found, golden.logits("logits_bf16", length));
            let exact = worst(
                &found,
                golden.logits("logits", length),
                model.config().vocab_size,
            );
            println!("{name}, {length} tokens: bf16 {whole:.2e}, f32 {exact:.2e}");
            assert!(
                whole < 2e-2,
                "{name}, {length} tokens: {whole:e} from the bf16 logits"
            );
            assert!(
                exact < 1e-2,
                "{name}, {length} tokens: {exact:e} from the f32 logits"
            );
        }
    }
}

#[test]
fn the_oracle_equals_transformers_too() {
    for name in MODELS {
        let folder = fixtures::folder(name);
        let golden = Golden::read(&folder);
        let files = ModelFiles::open(&folder).unwrap();
        let weights = OracleWeights::new(fixtures::read_weights(&folder));
        let expected: Vec<f64> =
            oracle::logits(&files.config().unwrap(), &weights, &golden.tokens(300)).concat();
        let golden: Vec<f32> = golden
            .logits("logits", 300)
            .iter()
            .map(|v| *v as f32)
            .collect();
        let distance = worst(&golden, &expected, files.config().unwrap().vocab_size);
        println!("{name}: {distance:.2e}");
        assert!(distance < 1e-5, "{name}: {distance:e}");
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

fn tokens(count: usize, vocab: usize) -> Vec<u32> {
    (0..count)
        .map(|index| ((index * index * 7 + index * 31 + 5) % vocab) as u32)
        .collect()
}

fn open_twin(twin: &GgufTwin) -> ModelFiles {
    ModelFiles::from_gguf(GgufFile::from_vec(twin.writer.bytes()).unwrap())
}

/// Bounds on the distance over a prompt and at its worst position.
///
/// With plain floats only the order of sums differs. Against blocks of integers the kernels
/// round activations to 8 bits, relative to the largest of 32 (for k-quants, of 256) values:
/// of normal values that is 2.2 (2.9) standard deviations / 127 / sqrt(12) = 0.5 % (0.66 %) for
/// each product. Over the products of two layers and the output this adds up to about 1.4 %
/// (2.1 %), the same for every format of the group, whatever its own coarseness.
const FLOATS: (f64, f64) = (3e-6, 1e-5);
const BLOCKS_OF_32: (f64, f64) = (2e-2, 2.5e-2);
const BLOCKS_OF_256: (f64, f64) = (2.5e-2, 4e-2);

fn check_distance(name: &str, found: &[f32], expected: &[f64], vocab: usize, bounds: (f64, f64)) {
    let (whole, at_worst) = (relative_l2(found, expected), worst(found, expected, vocab));
    println!("{name}: {whole:.2e}, at worst {at_worst:.2e}");
    let (most, most_at_worst) = bounds;
    assert!(
        whole < most && at_worst < most_at_worst,
        "{name}: {whole:e}, at worst {at_worst:e}"
    );
}

#[test]
fn gguf_files_of_every_format_equal_the_oracle_on_the_dequantised_weights() {
    let config = wide_config();
    let weights = random_weights(&config, 7);
    let tokens = tokens(150, config.vocab_size);
    for (dtype, bounds) in [
        (GgmlDType::F32, FLOATS),
        (GgmlDType::F16, FLOATS),
        (GgmlDType::BF16, FLOATS),
        (GgmlDType::Q4_0, BLOCKS_OF_32),
        (GgmlDType::Q4_1, BLOCKS_OF_32),
        (GgmlDType::Q5_0, BLOCKS_OF_32),
        (GgmlDType::Q5_1, BLOCKS_OF_32),
        (GgmlDType::Q8_0, BLOCKS_OF_32),
        (GgmlDType::Q2K, BLOCKS_OF_256),
        (GgmlDType::Q3K, BLOCKS_OF_256),
        (GgmlDType::Q4K, BLOCKS_OF_256),
        (GgmlDType::Q5K, BLOCKS_OF_256),
        (GgmlDType::Q6K, BLOCKS_OF_256),
    ] {
        let twin = gguf_twin(&config, &weights, dtype);
        let files = open_twin(&twin);
        let model = files.load(&LoadOptions::default()).unwrap();
        let expected = oracle::logits(&files.config().unwrap(), &twin.weights, &tokens).concat();
        let found = logits(&model, &tokens);
        check_distance(
            &format!("{dtype:?}"),
            &found,
            &expected,
            config.vocab_size,
            bounds,
        );
    }
}

#[test]
fn gguf_twins_of_every_fixture_equal_transformers() {
    for name in MODELS {
        if name == "qwen2_window" {
            continue; // a window on some layers only cannot be said in GGUF
        }
        let folder = fixtures::folder(name);
        let golden = Golden::read(&folder);
        let config = ModelFiles::open(&folder).unwrap().config().unwrap();
        let twin = fixture_twin(name, &config, GgmlDType::F32);
        let model = open_twin(&twin).load(&LoadOptions::default()).unwrap();
        let found = logits(&model, &golden.tokens(300));
        let distance = worst(&found, golden.logits("logits", 300), config.vocab_size);
        println!("{name}: {distance:.2e}");
        assert!(distance < 1e-5, "{name}: {distance:e}");
    }
}

#[test]
fn quantising_at_load_equals_the_oracle_on_the_quantised_weights() {
    let config = wide_config();
    let weights = random_weights(&config, 11);
    let dense = gguf_twin(&config, &weights, GgmlDType::F32);
    let tokens = tokens(80, config.vocab_size);
    for (load_as, dtype, bounds) in [
        (LoadAs::Q8_0, GgmlDType::Q8_0, BLOCKS_OF_32),
        (LoadAs::Q4K, GgmlDType::Q4K, BLOCKS_OF_256),
    ] {
        let options = LoadOptions {
            weights: load_as,
            ..Default::default()
        };
        let model = open_twin(&dense).load(&options).unwrap();
        let mut twin = gguf_twin(&config, &weights, dtype).weights;
        // The vocabulary's two matrices are Q8_0 in either case.
        let q8 = gguf_twin(&config, &weights, GgmlDType::Q8_0).weights;
        for name in ["model.embed_tokens.weight", "lm_head.weight"] {
            twin.tensors.insert(name.into(), q8.tensors[name].clone());
        }
        let expected = oracle::logits(&config_of(&dense), &twin, &tokens).concat();
        let found = logits(&model, &tokens);
        check_distance(
            &format!("{load_as:?}"),
            &found,
            &expected,
            config.vocab_size,
            bounds,
        );
    }
}

fn config_of(twin: &GgufTwin) -> ModelConfig {
    open_twin(twin).config().unwrap()
}

#[test]
fn rows_that_are_no_whole_blocks_are_refused_or_kept_finer() {
    // 96 is a multiple of 32 and not of 256: Q4K falls back to Q8_0.
    load("smollm", LoadAs::Q4K);
    let mut config = wide_config();
    config.intermediate_size = 40;
    let twin = gguf_twin(&config, &random_weights(&config, 1), GgmlDType::F32);
    let options = LoadOptions {
        weights: LoadAs::Q8_0,
        ..Default::default()
    };
    let error = open_twin(&twin).load(&options).err().unwrap().to_string();
    assert!(
        error.contains("ffn_down.weight") && error.contains("multiple of 32"),
        "{error}"
    );
}

/// Chunks of a prompt give the bits of the whole, in every weight format.
#[test]
fn chunked_prefill_equals_whole_prefill_bit_for_bit() {
    for (name, weights) in [
        ("llama3_1", LoadAs::F32),
        ("llama3_1", LoadAs::Stored),
        ("llama3_1", LoadAs::Q8_0),
        ("mistral", LoadAs::F32),
        ("qwen2_window", LoadAs::Stored),
        ("qwen3", LoadAs::Q8_0),
    ] {
        let model = load(name, weights);
        let tokens = tokens(90, 64);
        for kv_type in [KvType::F32, KvType::F16] {
            let whole = logits_in_chunks(&model, &tokens, &[90], None, kv_type);
            for chunks in [&[1][..], &[7], &[16], &[33, 1, 5], &[64, 26]] {
                let parts = logits_in_chunks(&model, &tokens, chunks, None, kv_type);
                assert!(
                    bits(&whole) == bits(&parts),
                    "{name} {weights:?} {kv_type:?} {chunks:?}"
                );
            }
        }
    }
}

/// A sequence gives the bits it gives alone whatever runs beside it.
#[test]
fn a_sequence_in_a_batch_equals_the_sequence_alone_bit_for_bit() {
    for (name, weights) in [("llama3_1", LoadAs::F32), ("qwen3", LoadAs::Q8_0)] {
        let model = load(name, weights);
        let (a, b, c) = (tokens(40, 61), tokens(21, 59), tokens(3, 53));
        let alone = [&a, &b, &c].map(|tokens| logits(&model, tokens));
        let pool = KvPool::new(model.config(), 8, common::BLOCK, KvType::F32).unwrap();
        let part = |tokens, places, blocks| Part {
            tokens,
            places,
            blocks,
            adapter: None,
        };
        let first = batch(&[part(&b, 0..20, &[6, 1]), part(&a, 0..17, &[2, 7, 0])]);
        let second = batch(&[
            part(&a, 17..40, &[2, 7, 0]),
            part(&c, 0..3, &[4]),
            part(&b, 20..21, &[6, 1]),
        ]);
        let [first, second] =
            [first, second].map(|batch| flat(&model.forward(&batch, &pool).unwrap()));
        let vocab = model.config().vocab_size;
        let (b_start, a_start) = first.split_at(20 * vocab);
        let (a_end, rest) = second.split_at(23 * vocab);
        let (c_all, b_end) = rest.split_at(3 * vocab);
        assert!(
            bits(&[a_start, a_end].concat()) == bits(&alone[0]),
            "{name}"
        );
        assert!(
            bits(&[b_start, b_end].concat()) == bits(&alone[1]),
            "{name}"
        );
        assert!(bits(c_all) == bits(&alone[2]), "{name}");
    }
}

#[test]
fn only_the_rows_asked_for_come_back_in_the_order_asked() {
    let model = load("llama2", LoadAs::F32);
    let tokens = tokens(9, 64);
    let all = logits(&model, &tokens);
    let pool = KvPool::new(model.config(), 1, common::BLOCK, KvType::F32).unwrap();
    let part = Part {
        tokens: &tokens,
        places: 0..9,
        blocks: &[0],
        adapter: None,
    };
    let mut batch = batch(&[part]);
    for rows in [vec![8, 2, 2], vec![0], vec![]] {
        batch.logit_rows = rows.clone();
        let some = model.forward(&batch, &pool).unwrap();
        assert_eq!(some.dims(), [rows.len(), 64]);
        let expected: Vec<f32> = rows
            .iter()
            .flat_map(|row| all[*row as usize * 64..][..64].to_vec())
            .collect();
        assert!(bits(&flat(&some)) == bits(&expected), "{rows:?}");
    }
}

#[test]
fn contradictory_batches_are_refused() {
    let model = load("llama2", LoadAs::F32);
    let pool = KvPool::new(model.config(), 2, common::BLOCK, KvType::F32).unwrap();
    let tokens = tokens(20, 64);
    let part = Part {
        tokens: &tokens,
        places: 0..20,
        blocks: &[1, 0],
        adapter: None,
    };
    let good = batch(&[part]);
    model.forward(&good, &pool).unwrap();
    let check = |change: &dyn Fn(&mut model::ForwardBatch), words: &str| {
        let mut bad = good.clone();
        change(&mut bad);
        let error = model.forward(&bad, &pool).unwrap_err().to_string();
        assert!(error.contains(words), "{error} lacks {words}");
    };
    check(&|b| *b = model::ForwardBatch::default(), "no rows");
    check(&|b| b.tokens[3] = 64, "token 64");
    check(&|b| b.slots[3] = 32, "slot 32");
    check(&|b| b.slots[3] = 4, "row 3: slot 4");
    check(&|b| b.positions[3] = 4, "row 3: position 4");
    check(&|b| b.positions.truncate(19), "19 positions");
    check(&|b| b.logit_rows.push(20), "logit row 20");
    check(&|b| b.spans.clear(), "spans cover 0 of 20");
    check(&|b| b.spans[0].query = 0..21, "span 0");
    check(&|b| b.spans[0].query = 1..20, "span 0");
    check(&|b| b.spans[0].context_len = 3, "context of 3");
    check(
        &|b| b.spans[0].context_len = usize::MAX,
        "row 0: position 0",
    );
    check(&|b| b.spans[0].blocks.truncate(1), "row 16: slot");
    check(&|b| b.adapters = vec![None; 3], "3 adapters");
    for (blocks, size) in [(0, 16), (4, 0), (usize::MAX, 2), (1 << 40, 1)] {
        assert!(KvPool::new(model.config(), blocks, size, KvType::F32).is_err());
    }
}

#[test]
fn a_shorter_context_can_be_prepared_for() {
    let options = LoadOptions {
        max_positions: Some(8),
        weights: LoadAs::F32,
    };
    let model = ModelFiles::open(&fixtures::folder("llama2"))
        .unwrap()
        .load(&options)
        .unwrap();
    assert_eq!(model.max_positions(), 8);
    let tokens = tokens(9, 64);
    logits(&model, &tokens[..8]);
    let pool = KvPool::new(model.config(), 1, common::BLOCK, KvType::F32).unwrap();
    let part = Part {
        tokens: &tokens,
        places: 0..9,
        blocks: &[0],
        adapter: None,
    };
    let error = model
        .forward(&batch(&[part]), &pool)
        .unwrap_err()
        .to_string();
    assert!(error.contains("position 8"), "{error}");
}

/// A second sequence that starts from a copy of the first one's block goes its own way.
#[test]
fn copied_blocks_serve_another_sequence() {
    let model = load("llama3_1", LoadAs::F32);
    let (a, mut b) = (tokens(30, 64), tokens(30, 64));
    b[20..]
        .iter_mut()
        .for_each(|token| *token = (*token + 7) % 64);
    let alone = logits(&model, &b);
    let pool = KvPool::new(model.config(), 4, common::BLOCK, KvType::F32).unwrap();
    let part = |tokens, places, blocks| Part {
        tokens,
        places,
        blocks,
        adapter: None,
    };
    let prefix = batch(&[part(&a, 0..20, &[3, 1])]);
    model.forward(&prefix, &pool).unwrap();
    pool.copy_blocks(&[(1, 0)]).unwrap();
    let both = batch(&[part(&a, 20..30, &[3, 1]), part(&b, 20..30, &[3, 0])]);
    let found = flat(&model.forward(&both, &pool).unwrap());
    let vocab = model.config().vocab_size;
    assert!(bits(&found[10 * vocab..]) == bits(&alone[20 * vocab..]));
    assert!(pool.copy_blocks(&[(1, 4)]).is_err());
}
