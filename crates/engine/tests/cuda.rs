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
use common::{
    CONTEXT_TOKENS, Choices, Sizes, Trace, files, one_by_one, requests, start, text, together,
    trace,
};
use data::{
    Completion, FinishReason, Generate, Generator, Grammar, Pending, Prompt, RequestError,
    Sampling, Score, Stop, TokenId, Usage,
};
use engine::{Engine, EngineConfig, EngineStats, Overlap};
use kernels::cuda::Device;
use model::{CausalLm, CudaOptions, Determinism, KvType, LoadAs, LoadOptions, ModelFiles};

fn device() -> Device {
    match std::env::var("AUTODIDACT_TEST_DEVICE").as_deref() {
        Ok(name) if name.starts_with("cuda:") => {
            Device::open(name["cuda:".len()..].parse().unwrap()).unwrap()
        }
        _ => Device::emulated(),
    }
}

/// The same; the emulator does everything as late as a device may.
fn late_device() -> Device {
    match device().info().unwrap().emulated {
        true => Device::emulated_late(),
        false => device(),
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
    let models = (0..count).map(|_| {
        let options = CudaOptions {
            determinism,
            ..options(sizes)
        };
        let model = files(GgmlDType::F32).load_on(&device(), options);
        Box::new(model.unwrap()) as Box<dyn CausalLm + Send>
    });
    Engine::start_replicas(models.collect(), text(), config(sizes)).unwrap()
}

fn config(sizes: &Sizes) -> EngineConfig {
    EngineConfig {
        block_size: sizes.block_size,
        max_tokens_per_step: sizes.max_tokens_per_step,
        max_sequences: sizes.max_sequences,
        prefix_cache: sizes.prefix_cache,
        ..EngineConfig::new(CONTEXT_TOKENS, sizes.kv_tokens, KvType::F32)
    }
}

fn options(sizes: &Sizes) -> CudaOptions {
    let load = LoadOptions {
        weights: LoadAs::F32,
        max_positions: Some(CONTEXT_TOKENS),
    };
    CudaOptions {
        max_tokens: TOKENS,
        max_sequences: sizes.max_sequences,
        block_size: sizes.block_size,
        logit_rows: 4,
        ..CudaOptions::new(load, CONTEXT_TOKENS, KvType::F32)
    }
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

/// Without steps ahead and with them, where bits do not depend on the batch.
fn both_ways(files: &ModelFiles, sizes: &Sizes) -> [Engine; 2] {
    [Overlap::Off, Overlap::On].map(|overlap| {
        let options = CudaOptions {
            logit_rows: 16,
            determinism: Determinism::Strict,
            ..options(sizes)
        };
        let model = files.load_on(&late_device(), options).unwrap();
        let config = EngineConfig {
            overlap,
            ..config(sizes)
        };
        Engine::start(Box::new(model), text(), config).unwrap()
    })
}

fn plain(tokens: Vec<TokenId>, max_tokens: usize) -> Generate {
    Generate {
        max_tokens: Some(max_tokens),
        seed: tokens.len() as u64,
        logprobs: Some(2),
        stop: Stop {
            ignore_eos: true,
            ..Stop::default()
        },
        ..Generate::new(Prompt::Tokens(tokens))
    }
}

/// Everything that a user sees of an answer.
type Seen = (Trace, Vec<(FinishReason, Usage)>);

fn seen(completions: &[Completion]) -> Seen {
    let ends = completions.iter().map(|one| (one.finish_reason, one.usage));
    (trace(completions), ends.collect())
}

/// Answers to the first four, and to the others, which come when one of those has ended.
fn in_two_waves(engine: &Engine, requests: &[Generate]) -> Vec<Seen> {
    let generate = |request: &Generate| engine.generate(request.clone());
    let mut pending: Vec<_> = requests[..4].iter().map(generate).collect();
    let first = pending.remove(0).wait().unwrap();
    pending.extend(requests[4..].iter().map(generate));
    let others = pending.into_iter().map(|answer| answer.wait().unwrap());
    std::iter::once(first)
        .chain(others)
        .map(|answer| seen(&answer))
        .collect()
}

fn stats(engine: &Engine) -> EngineStats {
    engine.stats().wait().unwrap()
}

/// Plain rows that end by length, at a token and at a string, beside a grammar, penalties and
/// several samples of a prompt. `ends` are plain answers known before.
fn mixed(prompts: &[Vec<TokenId>], ends: &[Completion]) -> Vec<Generate> {
    let mut requests: Vec<Generate> = prompts
        .iter()
        .zip([3, 9, 7, 9, 2, 9, 5, 4])
        .map(|(prompt, max_tokens)| plain(prompt.clone(), max_tokens))
        .collect();
    // While rows decode that need nothing of each other's tokens, early and late.
    requests[1].stop.token_ids = vec![ends[1].tokens[2]];
    requests[5].stop.token_ids = vec![ends[5].tokens[6]];
    let text = &ends[3].text;
    let middle = text.char_indices().nth(text.chars().count() / 2).unwrap().0;
    requests[3].stop.strings = vec![text[middle..].chars().take(2).collect()];
    requests[4].sampling = Sampling {
        repetition_penalty: 1.3,
        ..Sampling::greedy()
    };
    requests[6].n = 3;
    requests[7].grammar = Some(Grammar::Regex("[a-c]{2,4}".into()));
    requests
}

#[test]
fn steps_ahead_do_not_show() {
    let mut choices = Choices(5);
    let prompts: Vec<Vec<TokenId>> = [6, 13, 17, 9, 14, 3, 10, 5]
        .map(|len| choices.tokens(len))
        .into();
    let files = files(GgmlDType::F32);
    let [known, _] = both_ways(&files, &sizes());
    let ends = prompts.iter().map(|prompt| plain(prompt.clone(), 9));
    let ends: Vec<_> = ends.map(|request| known.generate(request)).collect();
    let ends = ends
        .into_iter()
        .map(|answer| answer.wait().unwrap().remove(0));
    let requests = mixed(&prompts, &ends.collect::<Vec<_>>());
    let [off, on] = both_ways(&files, &sizes());
    let expected = in_two_waves(&off, &requests);
    let found = in_two_waves(&on, &requests);
    for (index, (expected, found)) in expected.iter().zip(&found).enumerate() {
        assert_eq!(expected, found, "request {index}");
    }
    for index in [1, 3, 5] {
        assert_eq!(found[index].1[0].0, FinishReason::Stop, "request {index}");
    }
    let (before, after) = (stats(&off), stats(&on));
    assert_eq!((before.num_steps_ahead, before.num_tokens_too_many), (0, 0));
    // How many depends on when the requests arrive.
    assert!(after.num_steps_ahead > 0, "{after:?}");
    let counted = |stats: &EngineStats| {
        let scheduler = stats.scheduler;
        (
            stats.num_tokens_drawn,
            [scheduler.num_tokens_cached, scheduler.num_blocks_free],
            scheduler.num_tokens_scheduled,
        )
    };
    assert_eq!(counted(&before), counted(&after));
    assert_eq!(after.scheduler.num_blocks_free, after.scheduler.num_blocks);
    // What is cached of each answer, found by whoever goes on from it.
    for (prompt, answer) in prompts.iter().zip(&found).skip(1).step_by(2) {
        let whole = [prompt.as_slice(), &answer.0[0].0, &[7]].concat();
        let hits = [&off, &on].map(|engine| ask(engine, &plain(whole.clone(), 1))[0].usage);
        assert_eq!(hits[0], hits[1]);
    }
    // Alone, a row has every step ahead of it but the first, and one too many where it ends at a
    // token, which nobody knew.
    for (index, too_many) in [(1, 1), (5, 1), (2, 0)] {
        let before = stats(&on);
        let drawn = ask(&on, &requests[index])[0].tokens.len() as u64;
        let after = stats(&on);
        let counts = (
            after.num_steps_ahead - before.num_steps_ahead,
            after.num_tokens_too_many - before.num_tokens_too_many,
        );
        assert_eq!(counts, (drawn - 1 + too_many, too_many), "request {index}");
    }
}

#[test]
fn rows_ahead_are_preempted_and_chunked_like_others() {
    let mut choices = Choices(8);
    let requests: Vec<Generate> = [12, 14, 9, 11]
        .map(|len| plain(choices.tokens(len), 12))
        .into();
    let small = Sizes {
        kv_tokens: 72,
        max_tokens_per_step: 15,
        max_sequences: 4,
        ..sizes()
    };
    let [off, on] = both_ways(&files(GgmlDType::F32), &small);
    assert_eq!(together(&on, &requests), together(&off, &requests));
    let stats = stats(&on);
    assert!(stats.scheduler.num_preemptions > 0, "{stats:?}");
    assert!(stats.num_steps_ahead > 5, "{stats:?}");
}

#[test]
fn a_row_cancelled_while_a_step_is_ahead_leaves_nothing() {
    let mut choices = Choices(11);
    let requests: Vec<Generate> = [8, 9, 5].map(|len| plain(choices.tokens(len), 7)).into();
    let [off, on] = both_ways(&files(GgmlDType::F32), &sizes());
    let expected: Vec<Trace> = together(&off, &requests);
    let endless = on.generate(plain(choices.tokens(7), 300));
    let first = on.generate(requests[0].clone()).wait().unwrap();
    drop(endless);
    let others = together(&on, &requests[1..]);
    assert_eq!(trace(&first), expected[0]);
    assert_eq!(others, expected[1..]);
    let stats = stats(&on);
    assert_eq!(stats.num_canceled, 1);
    assert!(stats.num_steps_ahead > 5, "{stats:?}");
    assert_eq!(stats.scheduler.num_blocks_free, stats.scheduler.num_blocks);
}

#[test]
fn a_row_that_fails_while_a_step_is_ahead_fails_alone() {
    let mut choices = Choices(17);
    let [off, on] = both_ways(&common::files_poisoned(9), &sizes());
    let biased = |tokens, bias| Generate {
        sampling: Sampling {
            logit_bias: [(9, bias)].into(),
            ..Sampling::greedy()
        },
        ..plain(tokens, 8)
    };
    let tokens = |choices: &mut Choices| {
        let tokens = choices.tokens(6).into_iter();
        tokens
            .map(|token| if token == 9 { 10 } else { token })
            .collect()
    };
    // Draws the token without an embedding, and then from NaN.
    let poisoned = biased(tokens(&mut choices), 1000.0);
    let sound = biased(tokens(&mut choices), -1000.0);
    let expected = trace(&ask(&off, &sound));
    let answers = [on.generate(sound), on.generate(poisoned)];
    let [found, failed] = answers.map(Pending::wait);
    assert_eq!(trace(&found.unwrap()), expected);
    assert_eq!(failed, Err(RequestError::NotANumber { position: 6 }));
    let stats = stats(&on);
    assert!(stats.num_tokens_too_many >= 1, "{stats:?}");
    assert_eq!(stats.scheduler.num_blocks_free, stats.scheduler.num_blocks);
}
