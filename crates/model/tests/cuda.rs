//! The model on a device beside transformers, the f64 oracle and the model on the processor.
//! The device is the emulator, unless `AUTODIDACT_TEST_DEVICE` names another (`cuda:0`).
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use candle_core::quantized::GgmlDType;
use common::{BLOCK, Part, batch, bits, flat, logits_in_chunks, worst};
use kernels::cuda::Device;
use kernels::sampling::{Penalties, SampleError, SamplingParams, Seen};
use model::{
    CausalLm, CudaLlama, CudaOptions, Determinism, DrawAnswer, DrawQuestion, GgufFile, KvType,
    LoadAs, LoadOptions, Logits, ModelConfig, ModelFiles, ScoreQuestion,
};
use std::path::Path;
use testkit::fixtures::{self, Golden, MODELS};
use testkit::gguf_writer::gguf_twin;
use testkit::oracle::{self, relative_l2};
use testkit::random_model::random_weights;

fn device() -> Device {
    match std::env::var("AUTODIDACT_TEST_DEVICE").as_deref() {
        Ok(name) if name.starts_with("cuda:") => {
            let number = name["cuda:".len()..].parse().unwrap();
            Device::open(number).unwrap()
        }
        _ => Device::emulated(),
    }
}

fn options(weights: LoadAs, kv_type: KvType, determinism: Determinism) -> CudaOptions {
    let load = LoadOptions {
        weights,
        max_positions: Some(512),
    };
    CudaOptions {
        max_tokens: 64,
        max_sequences: 16,
        block_size: BLOCK,
        logit_rows: 24,
        determinism,
        ..CudaOptions::new(load, 512, kv_type)
    }
}

fn on_device(files: &ModelFiles, options: CudaOptions) -> CudaLlama {
    files.load_on(&device(), options).unwrap()
}

fn folder(name: &str) -> ModelFiles {
    ModelFiles::open(&fixtures::folder(name)).unwrap()
}

/// Every architecture, in f32, with steps of 64 tokens: beside what transformers computed.
#[test]
fn f32_logits_equal_transformers() {
    for name in MODELS {
        let golden = Golden::read(&fixtures::folder(name));
        let options = options(LoadAs::F32, KvType::F32, Determinism::Loose);
        let model = on_device(&folder(name), options);
        let length = 33;
        let found = logits_in_chunks(&model, &golden.tokens(length), &[20, 1], None, KvType::F32);
        let vocab = model.config().vocab_size;
        let distance = worst(&found, golden.logits("logits", length), vocab);
        println!("{name}: {distance:.2e}");
        // cuBLAS may multiply f32 in TF32: 11 bits.
        let most = if device().info().unwrap().emulated {
            1e-5
        } else {
            5e-3
        };
        assert!(distance < most, "{name}: {distance:e}");
    }
}

/// As stored, in bf16, with either cache: within the rounding of the weights' type.
#[test]
fn bf16_logits_are_near() {
    for (name, kv_type) in [
        ("llama3_1", KvType::BF16),
        ("qwen2", KvType::F16),
        ("qwen3", KvType::BF16),
    ] {
        let golden = Golden::read(&fixtures::folder(name));
        let as_stored = |determinism| options(LoadAs::Stored, kv_type, determinism);
        for determinism in [Determinism::Loose, Determinism::Strict] {
            let model = on_device(&folder(name), as_stored(determinism));
            let tokens = golden.tokens(33);
            let found = logits_in_chunks(&model, &tokens, &[30, 1], None, kv_type);
            let whole = relative_l2(&found, golden.logits("logits", 33));
            println!("{name}, {determinism:?}: {whole:.2e}");
            assert!(whole < 2e-2, "{name}, {determinism:?}: {whole:e}");
        }
    }
}

/// A cache of eight bits keeps four bits less of every K and V than one of bf16, and so is about
/// sixteen times as far from the exact logits; at most 32 times, by rows and by tiles.
#[test]
fn a_cache_of_eight_bits_costs_four_bits() {
    for name in ["llama3_1", "qwen3"] {
        let golden = Golden::read(&fixtures::folder(name));
        for determinism in [Determinism::Loose, Determinism::Strict] {
            let [wide, narrow] = [KvType::BF16, KvType::F8].map(|kv_type| {
                let model = on_device(&folder(name), options(LoadAs::F32, kv_type, determinism));
                let found = logits_in_chunks(&model, &golden.tokens(33), &[30, 1], None, kv_type);
                relative_l2(&found, golden.logits("logits", 33))
            });
            println!("{name}, {determinism:?}: {narrow:.2e}, bf16 {wide:.2e}");
            assert!(narrow > 4.0 * wide && narrow < 32.0 * wide && narrow < 0.1);
        }
    }
}

/// A Llama 3.1 in small whose rows are whole blocks of every format.
fn wide_config() -> ModelConfig {
    let text = r#"{"architectures": ["LlamaForCausalLM"], "hidden_size": 256, "intermediate_size": 256,
        "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 2, "vocab_size": 96,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 64}}"#;
    ModelConfig::from_hf_json(Path::new("config.json"), text).unwrap()
}

fn tokens(count: usize, seed: usize) -> Vec<u32> {
    (0..count)
        .map(|index| ((index * index * 7 + index * 31 + seed) % 96) as u32)
        .collect()
}

fn twin(format: GgmlDType) -> ModelFiles {
    let config = wide_config();
    let twin = gguf_twin(&config, &random_weights(&config, 7), format);
    ModelFiles::from_gguf(GgufFile::from_vec(twin.writer.bytes()).unwrap())
}

#[test]
fn gguf_files_equal_the_oracle_on_the_dequantised_weights() {
    let config = wide_config();
    let weights = random_weights(&config, 7);
    let tokens = tokens(20, 5);
    for format in [
        GgmlDType::F16,
        GgmlDType::Q8_0,
        GgmlDType::Q4K,
        GgmlDType::Q6K,
        GgmlDType::Q5K,
    ] {
        let twin = gguf_twin(&config, &weights, format);
        let files = ModelFiles::from_gguf(GgufFile::from_vec(twin.writer.bytes()).unwrap());
        let options = options(LoadAs::Stored, KvType::F16, Determinism::Loose);
        let model = on_device(&files, options);
        let expected = oracle::logits(&files.config().unwrap(), &twin.weights, &tokens).concat();
        let found = logits_in_chunks(&model, &tokens, &[17, 1], None, KvType::F16);
        let whole = relative_l2(&found, &expected);
        println!("{format:?}: {whole:.2e}");
        assert!(whole < 2e-2, "{format:?}: {whole:e}");
    }
}

/// In strict mode a row has the same bits alone and beside others, whole and in chunks, recorded
/// and not.
#[test]
fn strict_rows_do_not_show_their_batch() {
    let options = options(LoadAs::Stored, KvType::F16, Determinism::Strict);
    let model = on_device(&twin(GgmlDType::Q8_0), options);
    let all: Vec<Vec<u32>> = (0..5).map(|row| tokens(20 + row, row)).collect();
    let alone: Vec<Vec<f32>> = all
        .iter()
        .map(|tokens| logits_in_chunks(&model, tokens, &[tokens.len()], None, KvType::F16))
        .collect();
    let chunked = logits_in_chunks(&model, &all[0], &[7, 1, 1], None, KvType::F16);
    assert!(bits(&chunked) == bits(&alone[0]), "chunks show");
    // All but the last token of each together, then the last ones as a step that is recorded,
    // and once more as its replay.
    let pool = model.kv_pool(10, BLOCK, KvType::F16).unwrap();
    let blocks: Vec<[u32; 2]> = (0..5).map(|row| [9 - 2 * row, 8 - 2 * row]).collect();
    let parts = |places: fn(usize) -> std::ops::Range<usize>| {
        let rows = all.iter().zip(&blocks);
        let part = rows.map(|(tokens, blocks)| Part {
            tokens,
            places: places(tokens.len()),
            blocks,
            adapter: None,
        });
        batch(&part.collect::<Vec<_>>())
    };
    for few in 0..2 {
        let whole = parts(|len| 0..len - 1);
        for (row, tokens) in all.iter().enumerate().filter(|_| few == 0) {
            let part = Part {
                tokens,
                places: 0..tokens.len() - 1,
                blocks: &blocks[row],
                adapter: None,
            };
            model.forward(&batch(&[part]), &pool).unwrap();
        }
        if few == 1 {
            assert!(whole.tokens.len() > 64, "too long for a step");
            assert!(model.forward(&whole, &pool).is_err());
        }
        let last = flat(&model.forward(&parts(|len| len - 1..len), &pool).unwrap());
        let vocab = model.config().vocab_size;
        for (row, found) in last.chunks(vocab).enumerate() {
            let expected = &alone[row][alone[row].len() - vocab..];
            assert!(bits(found) == bits(expected), "row {row}, time {few}");
        }
    }
}

#[test]
fn adapters_equal_those_on_the_processor() {
    let files = folder("llama3_1");
    let load = LoadOptions {
        weights: LoadAs::F32,
        max_positions: Some(512),
    };
    let mut host = files.load(&load).unwrap();
    let options = options(LoadAs::F32, KvType::F32, Determinism::Loose);
    let mut device = on_device(&files, options);
    let root = fixtures::folder("llama3_1");
    let names = ["adapter", "adapter_rslora"];
    let on_host = names.map(|name| {
        let adapter = host.load_adapter(&root.join(name)).unwrap();
        host.add_adapter(adapter).unwrap()
    });
    let ids = names.map(|name| {
        let adapter = device.load_adapter(&root.join(name)).unwrap();
        device.add_adapter(adapter).unwrap()
    });
    let tokens: Vec<u32> = (0..12).map(|index| index * 5 % 64).collect();
    let host_logits = |choice: Option<usize>| -> Vec<f64> {
        let adapter = choice.map(|index| on_host[index]);
        let found = logits_in_chunks(&host, &tokens, &[12], adapter, KvType::F32);
        found.into_iter().map(f64::from).collect()
    };
    let pool = device.kv_pool(3, BLOCK, KvType::F32).unwrap();
    let choices = [Some(1), None, Some(0)];
    let blocks = [[0], [1], [2]];
    let rows = choices.iter().zip(&blocks);
    let parts: Vec<Part<'_>> = rows
        .map(|(choice, blocks)| Part {
            tokens: &tokens,
            places: 0..12,
            blocks,
            adapter: choice.map(|index: usize| ids[index]),
        })
        .collect();
    let together = flat(&device.forward(&batch(&parts), &pool).unwrap());
    let vocab = device.config().vocab_size;
    for (found, choice) in together.chunks(12 * vocab).zip(choices) {
        let distance = worst(found, &host_logits(choice), vocab);
        assert!(distance < 1e-5, "{choice:?}: {distance:e}");
    }
    assert!(device.remove_adapter(ids[1]).is_some());
    let error = device.forward(&batch(&parts), &pool).unwrap_err();
    assert!(error.to_string().contains("not loaded"), "{error}");
    let kept = logits_in_chunks(&device, &tokens, &[12], Some(ids[0]), KvType::F32);
    let distance = worst(&kept, &host_logits(Some(0)), vocab);
    assert!(distance < 1e-5, "after a removal: {distance:e}");
}

/// Questions of every kind, several about each row.
fn questions(rows: usize, vocab: usize) -> Vec<DrawQuestion> {
    (0..rows * 4)
        .map(|index| DrawQuestion {
            row: index % rows,
            bias: match index % 3 {
                0 => vec![(5, 2.0), (7, f32::NEG_INFINITY)],
                _ => Vec::new(),
            },
            penalties: Penalties {
                repetition: 1.3,
                presence: 0.2,
                frequency: 0.1,
            },
            seen: (0..index as u32 % 5)
                .map(|token| Seen {
                    token: token * 3,
                    output_count: token,
                })
                .collect(),
            mask: (index % 4 == 1).then(|| vec![0x0f0f_0f0f; vocab.div_ceil(32)]),
            params: SamplingParams {
                temperature: [0.0, 1.0, 0.7, 1.5][index % 4],
                top_k: [0, 9, 0][index % 3],
                top_p: [1.0, 0.9][index % 2],
                min_p: [0.0, 0.05, 0.0, 0.0, 0.0][index % 5],
            },
            uniform: kernels::sampling::uniform(index as u64, 3),
            logprobs: [None, Some(0), Some(4)][index % 3],
        })
        .collect()
}

fn compare(found: &DrawAnswer, expected: &DrawAnswer, what: usize) {
    assert_eq!(found.token, expected.token, "question {what}");
    assert_eq!(found.num_allowed, expected.num_allowed, "question {what}");
    let near = |a: f32, b: f32| (a - b).abs() < 2e-5 * (1.0 + b.abs());
    let (a, b) = (found.sampled_logprob, expected.sampled_logprob);
    assert!(near(a, b), "question {what}: {a} {b}");
    assert_eq!(found.raw.is_some(), expected.raw.is_some());
    if let (Some(a), Some(b)) = (&found.raw, &expected.raw) {
        assert!(near(a.logprobs[0], b.logprobs[0]), "question {what}");
        let tokens = |top: &[(u32, f32)]| top.iter().map(|one| one.0).collect::<Vec<_>>();
        assert_eq!(tokens(&a.top), tokens(&b.top), "question {what}");
    }
}

/// Drawn where the logits are: the tokens that the host would have drawn from the same ones.
#[test]
fn draws_equal_those_of_the_host() {
    let options = options(LoadAs::Stored, KvType::F16, Determinism::Loose);
    let model = on_device(&twin(GgmlDType::Q8_0), options);
    let tokens = tokens(30, 1);
    let pool = model.kv_pool(2, BLOCK, KvType::F16).unwrap();
    let part = Part {
        tokens: &tokens,
        places: 0..30,
        blocks: &[1, 0],
        adapter: None,
    };
    let hidden = model.hidden(&batch(&[part]), &pool).unwrap();
    let vocab = model.config().vocab_size;
    let logits = model.logits(&hidden, 10..30).unwrap();
    let asked = questions(20, vocab);
    let host = Logits::host(logits.to_host().unwrap());
    let expected = host.draw(&asked).unwrap();
    for (index, (found, expected)) in logits
        .draw(&asked)
        .unwrap()
        .iter()
        .zip(&expected)
        .enumerate()
    {
        compare(found.as_ref().unwrap(), expected.as_ref().unwrap(), index);
    }
    let scores: Vec<ScoreQuestion> = (0..20)
        .map(|row| ScoreQuestion {
            row,
            tokens: vec![row as u32, 90],
            top: row % 3,
        })
        .collect();
    let expected = host.score(&scores).unwrap();
    for (found, expected) in logits.score(&scores).unwrap().iter().zip(&expected) {
        let (found, expected) = (found.as_ref().unwrap(), expected.as_ref().unwrap());
        for (a, b) in found.logprobs.iter().zip(&expected.logprobs) {
            assert!((a - b).abs() < 2e-5 * (1.0 + b.abs()), "{a} {b}");
        }
        assert_eq!(found.top.len(), expected.top.len());
    }
}

/// What cannot be answered fails alone; what is gone is refused.
#[test]
fn questions_fail_alone_and_old_logits_are_refused() {
    let options = options(LoadAs::Stored, KvType::F16, Determinism::Loose);
    let model = on_device(&twin(GgmlDType::F16), options);
    let pool = model.kv_pool(1, BLOCK, KvType::F16).unwrap();
    let tokens = tokens(4, 1);
    let step = || {
        let part = Part {
            tokens: &tokens,
            places: 0..4,
            blocks: &[0],
            adapter: None,
        };
        model.hidden(&batch(&[part]), &pool).unwrap()
    };
    let hidden = step();
    let logits = model.logits(&hidden, 0..4).unwrap();
    let mut asked = questions(4, 96);
    asked.truncate(4);
    asked[1].mask = Some(vec![0; 3]);
    asked[2].logprobs = Some(100_000);
    let answers = logits.draw(&asked).unwrap();
    assert!(answers[0].is_ok() && answers[3].is_ok(), "{answers:?}");
    let nothing = answers[1].as_ref().unwrap_err();
    assert!(matches!(nothing, SampleError::NothingAllowed { .. }));
    let too_many = answers[2].as_ref().unwrap_err();
    assert!(too_many.to_string().contains("100000"), "{too_many}");
    let newer = step();
    assert!(logits.draw(&asked[..1]).is_err(), "the step is over");
    assert!(model.logits(&hidden, 0..1).is_err(), "the step is over");
    assert!(model.logits(&newer, 0..5).is_err(), "four rows");
    let first = model.logits(&newer, 0..2).unwrap();
    let second = model.logits(&newer, 2..4).unwrap();
    assert!(first.draw(&asked[..1]).is_err(), "others were asked for");
    assert!(second.draw(&asked[..1]).is_ok());
    let wrong_pool = model::KvPool::new(model.config(), 1, BLOCK, KvType::F16).unwrap();
    let part = Part {
        tokens: &tokens,
        places: 0..4,
        blocks: &[0],
        adapter: None,
    };
    assert!(model.hidden(&batch(&[part]), &wrong_pool).is_err());
    assert!(model.kv_pool(1, BLOCK, KvType::F32).is_err());
}

#[test]
fn the_largest_step_is_tried_before_the_pool_is_sized() {
    let options = options(LoadAs::Stored, KvType::F16, Determinism::Loose);
    let model = on_device(&twin(GgmlDType::Q8_0), options);
    let tokens = model.kv_tokens_that_fit().unwrap();
    assert!(tokens > 0 && tokens.is_multiple_of(BLOCK), "{tokens}");
    assert!(model.weight_bytes() > 0);
}

/// A step that is given before anybody knows the token it computes.
#[test]
fn a_step_takes_its_token_from_the_draw_before() {
    let files = twin(GgmlDType::F32);
    let model = on_device(
        &files,
        options(LoadAs::F32, KvType::F32, Determinism::Loose),
    );
    let vocab = model.config().vocab_size;
    let pool = model.kv_pool(1, BLOCK, KvType::F32).unwrap();
    let part = |tokens: &[u32], places| {
        batch(&[Part {
            tokens,
            places,
            blocks: &[0],
            adapter: None,
        }])
    };
    let mut prompt = tokens(6, 2);
    let hidden = model.hidden(&part(&prompt, 0..6), &pool).unwrap();
    // The second question asks of the prompt's last row.
    let asked: Vec<DrawQuestion> = questions(6, vocab)[4..6].to_vec();
    let draws = model.logits(&hidden, 0..6).unwrap().ask(&asked).unwrap();
    prompt.push(0);
    let mut ahead = part(&prompt, 6..7);
    ahead.drawn = vec![(0, 1)];
    let found = flat(&model.forward(&ahead, &pool).unwrap());
    // Not before now.
    prompt[6] = model.drawn(draws).unwrap()[1].as_ref().unwrap().token;
    let expected = flat(&model.forward(&part(&prompt, 6..7), &pool).unwrap());
    assert_eq!(bits(&found), bits(&expected));
    assert_ne!(prompt[6], 0, "the token that stood for it");

    ahead.drawn = vec![(0, 2)];
    let error = model.hidden(&ahead, &pool).unwrap_err().to_string();
    assert!(error.contains("question 2 of 2"), "{error}");
    let host = files.load(&LoadOptions::default()).unwrap();
    let pool = host.kv_pool(1, BLOCK, KvType::F32).unwrap();
    let error = host.hidden(&ahead, &pool).unwrap_err().to_string();
    assert!(error.contains("still to be drawn"), "{error}");
}
