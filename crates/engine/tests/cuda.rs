//! The engine on a model that lives on a device: it draws what the model on the processor draws,
//! and in strict mode batching is invisible. The device is the emulator, unless
//! `AUTODIDACT_TEST_DEVICE` names another (`cuda:0`).
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, outside of any #[test]"
)]

#[expect(dead_code, reason = "helpers of other tests, too")]
#[path = "it/common.rs"]
mod common;

use candle_core::quantized::GgmlDType;
use common::{CONTEXT_TOKENS, Sizes, Trace, files, one_by_one, requests, start, text, together};
use data::{Completion, Generate, Generator, Grammar, Prompt, Score};
use engine::{Engine, EngineConfig};
use kernels::cuda::Device;
use model::{CausalLm, CudaOptions, Determinism, KvType, LoadAs, LoadOptions};

fn device() -> Device {
    match std::env::var("AUTODIDACT_TEST_DEVICE").as_deref() {
        Ok(name) if name.starts_with("cuda:") => {
            Device::open(name["cuda:".len()..].parse().unwrap()).unwrap()
        }
        _ => Device::emulated(),
    }
}

const TOKENS: usize = 32;

fn sizes() -> Sizes {
    Sizes {
        kv_tokens: 1024,
        block_size: 8,
        max_tokens_per_step: TOKENS,
        max_sequences: 8,
        ..Sizes::default()
    }
}

/// An engine on `count` replicas with exact weights and cache, so that tokens can be compared.
fn on_device(count: usize, sizes: &Sizes, determinism: Determinism) -> Engine {
    let config = EngineConfig {
        block_size: sizes.block_size,
        max_tokens_per_step: sizes.max_tokens_per_step,
        max_sequences: sizes.max_sequences,
        prefix_cache: sizes.prefix_cache,
        ..EngineConfig::new(CONTEXT_TOKENS, sizes.kv_tokens, KvType::F32)
    };
    let load = LoadOptions {
        weights: LoadAs::F32,
        max_positions: Some(CONTEXT_TOKENS),
    };
    let options = CudaOptions {
        max_tokens: TOKENS,
        max_sequences: sizes.max_sequences,
        block_size: sizes.block_size,
        logit_rows: 4,
        determinism,
        ..CudaOptions::new(load, CONTEXT_TOKENS, KvType::F32)
    };
    let models = (0..count).map(|_| {
        let model = files(GgmlDType::F32).load_on(&device(), options.clone());
        Box::new(model.unwrap()) as Box<dyn CausalLm + Send>
    });
    Engine::start_replicas(models.collect(), text(), config).unwrap()
}

fn on_host() -> Engine {
    start(common::load(GgmlDType::F32), &sizes())
}

/// Requests with few tokens: the emulator is slow.
fn few(count: usize) -> Vec<Generate> {
    let short = |request: Generate| Generate {
        max_tokens: request.max_tokens.map(|tokens| tokens.min(4)),
        ..request
    };
    requests(count, 21).into_iter().map(short).collect()
}

fn tokens(traces: &[Trace]) -> Vec<Vec<u32>> {
    let of = |trace: &Trace| trace.iter().flat_map(|one| one.0.clone()).collect();
    traces.iter().map(of).collect()
}

#[test]
fn tokens_equal_those_of_the_processor() {
    let requests = few(8);
    let expected = tokens(&one_by_one(&on_host(), &requests));
    let found = tokens(&together(
        &on_device(1, &sizes(), Determinism::Loose),
        &requests,
    ));
    assert_eq!(found, expected);
}

#[test]
fn strict_rows_do_not_show_batch_chunk_or_replica() {
    let requests = few(6);
    let engine = on_device(1, &sizes(), Determinism::Strict);
    let expected = one_by_one(&engine, &requests);
    assert_eq!(together(&engine, &requests), expected, "batched, cached");
    let other = Sizes {
        kv_tokens: 96,
        max_tokens_per_step: 15,
        ..sizes()
    };
    let engine = on_device(1, &other, Determinism::Strict);
    assert_eq!(
        together(&engine, &requests),
        expected,
        "chunked, a small pool"
    );
    let engine = on_device(2, &sizes(), Determinism::Strict);
    assert_eq!(together(&engine, &requests), expected, "two replicas");
}

fn ask(engine: &Engine, request: &Generate) -> Vec<Completion> {
    engine.generate(request.clone()).wait().unwrap()
}

#[test]
fn samples_grammars_and_prompts_are_as_on_the_processor() {
    let (host, device) = (on_host(), on_device(1, &sizes(), Determinism::Loose));
    let prompt = || Prompt::Tokens((5..25).collect());
    let base = Generate {
        max_tokens: Some(5),
        seed: 9,
        ..Generate::new(prompt())
    };
    let cases = [
        Generate {
            n: 3,
            ..base.clone()
        },
        Generate {
            grammar: Some(Grammar::Regex("[a-c]{2,4}".into())),
            ..base.clone()
        },
        Generate {
            prompt_logprobs: true,
            logprobs: Some(2),
            ..base
        },
    ];
    for (case, request) in cases.iter().enumerate() {
        let (expected, found) = (ask(&host, request), ask(&device, request));
        assert_eq!(expected.len(), found.len());
        for (expected, found) in expected.iter().zip(&found) {
            assert_eq!(expected.tokens, found.tokens, "case {case}");
            assert_eq!(expected.text, found.text, "case {case}");
            assert_eq!(expected.authors, found.authors, "case {case}");
            let lists = [
                (&expected.prompt_logprobs, &found.prompt_logprobs),
                (&expected.logprobs, &found.logprobs),
            ];
            for (expected, found) in lists {
                assert_eq!(expected.len(), found.len(), "case {case}");
                for (a, b) in expected.iter().zip(found) {
                    assert_eq!(a.token, b.token);
                    assert!((a.logprob - b.logprob).abs() < 1e-3, "{a:?} {b:?}");
                    assert_eq!(a.top.len(), b.top.len());
                }
            }
        }
    }
}

#[test]
fn scores_are_as_on_the_processor() {
    let (host, device) = (on_host(), on_device(1, &sizes(), Determinism::Loose));
    let score = |engine: &Engine| {
        let request = Score {
            prefix: Prompt::Tokens((5..25).collect()),
            suffixes: vec!["a".into(), "bc".into()],
            labels: vec!["d".into(), "ef".into()],
            adapter: None,
        };
        engine.score(request).wait().unwrap()
    };
    let (expected, found) = (score(&host), score(&device));
    for (a, b) in expected.suffixes.iter().zip(&found.suffixes) {
        for (a, b) in a.logprobs.iter().zip(&b.logprobs) {
            assert!((a - b).abs() < 1e-3 * (1.0 + a.abs()), "{a} {b}");
        }
    }
    assert_eq!(expected.usage, found.usage);
}
