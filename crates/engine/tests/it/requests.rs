//! What requests mean: scores, log-probabilities, stops, streaming, sharing, failures.

use crate::common::{
    Choices, Sizes, load, load_poisoned, one_by_one, requests, start, together, trace,
};
use candle_core::quantized::GgmlDType;
use data::{
    FinishReason, Generate, Generator, Prompt, RequestError, Sampling, Score, Stop, TokenId,
};
use std::sync::{Arc, Mutex};

fn greedy(tokens: Vec<TokenId>, max_tokens: usize) -> Generate {
    Generate {
        sampling: Sampling::greedy(),
        max_tokens: Some(max_tokens),
        stop: Stop {
            ignore_eos: true,
            ..Stop::default()
        },
        ..Generate::new(Prompt::Tokens(tokens))
    }
}

#[test]
fn prompt_logprobs_equal_the_logprobs_of_the_same_tokens_when_generated() {
    let engine = start(
        load(GgmlDType::Q8_0),
        &Sizes {
            max_tokens_per_step: 9,
            ..Sizes::default()
        },
    );
    let prompt = Choices(1).tokens(21);
    let first = Generate {
        logprobs: Some(1),
        ..greedy(prompt.clone(), 12)
    };
    let written = engine.generate(first).wait().unwrap().remove(0);
    let whole = [prompt.clone(), written.tokens.clone()].concat();
    let again = Generate {
        prompt_logprobs: true,
        ..greedy(whole, 1)
    };
    let read = engine.generate(again).wait().unwrap().remove(0);
    assert_eq!(read.prompt_logprobs.len(), prompt.len() + 11);
    for (generated, read) in written
        .logprobs
        .iter()
        .zip(&read.prompt_logprobs[prompt.len() - 1..])
    {
        assert_eq!(generated.token, read.token);
        assert_eq!(generated.logprob.to_bits(), read.logprob.to_bits());
    }
}

#[test]
fn scores_equal_the_logprobs_of_generation_and_share_the_prefix() {
    let engine = start(
        load(GgmlDType::Q8_0),
        &Sizes {
            max_tokens_per_step: 64,
            ..Sizes::default()
        },
    );
    let prefix = Choices(2).tokens(203);
    let texts: Vec<String> = (0..8).map(|i| format!("Question {i}? ")).collect();
    let labels = vec!["Y".to_owned(), "N".to_owned(), "maybe so".to_owned()];
    let score = Score {
        prefix: Prompt::Tokens(prefix.clone()),
        suffixes: texts.clone(),
        labels: labels.clone(),
        adapter: None,
    };
    let scores = engine.score(score).wait().unwrap();
    let stats = engine.stats().wait().unwrap();
    let encode = |text: &str| {
        engine
            .text()
            .tokenizer()
            .encode(text, model::Special::Parse)
            .unwrap()
    };
    let own: usize = texts
        .iter()
        .map(|text| 2 * encode(text).len() + 8 + 8 + 12)
        .sum();
    let computed = (stats.num_tokens_prefilled + stats.num_tokens_decoded) as usize;
    assert!(
        computed <= prefix.len() + own,
        "{computed} tokens computed for {}",
        prefix.len()
    );

    for (text, suffix) in texts.iter().zip(&scores.suffixes) {
        for (label, logprob) in labels.iter().zip(&suffix.logprobs) {
            let label = encode(label);
            let base = [prefix.clone(), encode(text)].concat();
            let whole = Generate {
                prompt_logprobs: true,
                ..greedy([base.clone(), label.clone()].concat(), 1)
            };
            let read = engine
                .generate(whole)
                .wait()
                .unwrap()
                .remove(0)
                .prompt_logprobs;
            let expected: f64 = read[base.len() - 1..]
                .iter()
                .map(|token| f64::from(token.logprob))
                .sum();
            assert_eq!(logprob.to_bits(), (expected as f32).to_bits(), "{text:?}");
        }
        let total: f32 = suffix.probabilities.iter().sum();
        assert!((total - 1.0).abs() < 1e-5 && suffix.mass <= 1.0 + 1e-5);
    }
}

#[test]
fn samples_of_one_prompt_cost_one_prefill() {
    let engine = start(load(GgmlDType::Q8_0), &Sizes::default());
    let request = Generate {
        n: 16,
        ..greedy(Choices(3).tokens(300), 4)
    };
    engine.generate(request.clone()).wait().unwrap();
    let stats = engine.stats().wait().unwrap();
    assert_eq!(stats.num_tokens_prefilled, 300);
    assert_eq!(stats.num_tokens_decoded, 16 * 3);

    // The same prompt in sixteen requests that arrive together: also one, but for the block
    // that holds each row's last token.
    let engine = start(load(GgmlDType::Q8_0), &Sizes::default());
    let single = Generate { n: 1, ..request };
    let pending: Vec<_> = (0..16).map(|_| engine.generate(single.clone())).collect();
    for answer in pending {
        answer.wait().unwrap();
    }
    let stats = engine.stats().wait().unwrap();
    let computed = stats.num_tokens_prefilled + stats.num_tokens_decoded;
    assert!(computed <= 300 + 15 * 8 + 16 * 3, "{stats:?}");
}

#[test]
fn stops_end_text_and_completion() {
    let engine = start(load(GgmlDType::Q8_0), &Sizes::default());
    let prompt = Choices(4).tokens(10);
    let free = engine
        .generate(greedy(prompt.clone(), 24))
        .wait()
        .unwrap()
        .remove(0);
    assert_eq!(free.finish_reason, FinishReason::Length);
    assert_eq!(free.usage.completion_tokens, 24);

    let cut: String = free.text.chars().skip(4).take(2).collect();
    let at = free.text.find(&cut).unwrap();
    let by_string = Stop {
        strings: vec!["never\u{1}".into(), cut],
        ..Stop::default()
    };
    let stopped = Generate {
        stop: by_string,
        ..greedy(prompt.clone(), 24)
    };
    let stopped = engine.generate(stopped).wait().unwrap().remove(0);
    assert_eq!(stopped.text, free.text[..at]);
    assert_eq!(stopped.finish_reason, FinishReason::Stop);
    assert_eq!(stopped.tokens, free.tokens[..stopped.tokens.len()]);

    let by_token = Stop {
        token_ids: vec![free.tokens[3]],
        ..Stop::default()
    };
    let ended = engine
        .generate(Generate {
            stop: by_token,
            ..greedy(prompt, 24)
        })
        .wait()
        .unwrap();
    let first = free
        .tokens
        .iter()
        .position(|token| *token == free.tokens[3])
        .unwrap();
    assert_eq!(ended[0].tokens, free.tokens[..=first]);
    assert_eq!(ended[0].finish_reason, FinishReason::Stop);
}

#[test]
fn streamed_chunks_make_up_the_text() {
    let engine = start(load(GgmlDType::F32), &Sizes::default());
    for request in requests(6, 9) {
        let request = Generate {
            n: 3,
            stop: Stop {
                strings: vec!["e".into(), "zz".into()],
                ..Stop::default()
            },
            ..request
        };
        let chunks = Arc::new(Mutex::new(vec![String::new(); 3]));
        let sink = Arc::clone(&chunks);
        let on_text = Box::new(move |chunk: engine::TextChunk| {
            sink.lock().unwrap()[chunk.index].push_str(&chunk.text);
        });
        let completions = engine.generate_streaming(request, on_text).wait().unwrap();
        let texts: Vec<String> = completions.into_iter().map(|c| c.text).collect();
        assert_eq!(*chunks.lock().unwrap(), texts);
    }
}

/// Requests that must fail, and what their errors must say.
fn bad_requests() -> Vec<(Generate, &'static str)> {
    let tokens = |len| Prompt::Tokens(Choices(5).tokens(len));
    let base = Generate {
        max_tokens: Some(4),
        ..Generate::new(tokens(5))
    };
    let with_prompt = |prompt| Generate {
        prompt,
        ..base.clone()
    };
    let with_sampling = |sampling| Generate {
        sampling,
        ..base.clone()
    };
    let usual = Sampling::default;
    let nan = Sampling {
        temperature: f32::NAN,
        ..usual()
    };
    let biased = Sampling {
        logit_bias: [(9999, 1.0)].into(),
        ..usual()
    };
    let mut bad = vec![
        (with_prompt(Prompt::Tokens(vec![])), "prompt is empty"),
        (with_prompt(tokens(400)), "context holds 400"),
        (with_prompt(tokens(200)), "pool holds 20"),
        (with_prompt(Prompt::Messages(vec![])), "no chat template"),
        (with_prompt(Prompt::Tokens(vec![9999])), "9999"),
        (with_sampling(nan), "temperature = NaN"),
        (with_sampling(biased), "9999"),
    ];
    let mut changed = |change: fn(&mut Generate), expected| {
        let mut request = base.clone();
        change(&mut request);
        bad.push((request, expected));
    };
    changed(|request| request.n = 0, "n = 0");
    changed(|request| request.max_tokens = Some(0), "max_tokens = 0");
    changed(|request| request.sampling.top_p = 0.0, "top_p = 0");
    changed(
        |request| request.adapter = Some("x".into()),
        "no adapter named `x`",
    );
    changed(
        |request| request.stop.strings.push(String::new()),
        "stop string is empty",
    );
    bad
}

#[test]
fn a_bad_request_fails_alone() {
    let sizes = Sizes {
        kv_tokens: 160,
        ..Sizes::default()
    };
    let engine = start(load(GgmlDType::Q8_0), &sizes);
    let good = requests(6, 21);
    let fine: Vec<_> = good
        .iter()
        .map(|request| engine.generate(request.clone()))
        .collect();
    for (request, expected) in bad_requests() {
        let error = engine.generate(request).wait().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    for answer in fine {
        assert!(answer.wait().is_ok());
    }
}

#[test]
fn a_dropped_request_is_cancelled_and_its_blocks_come_back() {
    let engine = start(load(GgmlDType::Q8_0), &Sizes::default());
    let long = greedy(Choices(6).tokens(40), 300);
    let dropped: Vec<_> = (0..4).map(|_| engine.generate(long.clone())).collect();
    let kept = engine.generate(greedy(Choices(7).tokens(40), 30));
    drop(dropped);
    kept.wait().unwrap();
    let stats = engine.stats().wait().unwrap();
    assert_eq!(stats.num_canceled, 4, "{stats:?}");
    assert_eq!(
        stats.scheduler.num_blocks_free, stats.scheduler.num_blocks,
        "{stats:?}"
    );
    assert!(stats.num_tokens_drawn < 4 * 300, "{stats:?}");
}

#[test]
fn a_stopped_engine_answers_everyone() {
    let engine = start(load(GgmlDType::Q8_0), &Sizes::default());
    let answer = engine.generate(greedy(Choices(8).tokens(300), 90));
    drop(engine);
    let ended = answer.wait();
    assert!(matches!(ended, Err(RequestError::EngineStopped)) || ended.is_ok());
}

#[test]
fn adapters_in_one_batch_equal_adapters_alone() {
    let folder = testkit::fixtures::folder("llama3_1");
    let files = model::ModelFiles::open(&folder).unwrap();
    let load = || files.load(&model::LoadOptions::default()).unwrap();
    let adapters = ["adapter", "adapter_rslora"];
    let with_adapters = |sizes: &Sizes| {
        let model = load();
        let loaded = adapters.map(|name| model.load_adapter(&folder.join(name)).unwrap());
        let engine = start(model, sizes);
        for (name, adapter) in adapters.iter().zip(loaded) {
            engine.load_adapter(name, &adapter).wait().unwrap();
        }
        engine
    };
    let requests: Vec<Generate> = requests(24, 31)
        .into_iter()
        .enumerate()
        .map(|(index, request)| {
            let Prompt::Tokens(tokens) = &request.prompt else {
                unreachable!()
            };
            let tokens = tokens.iter().map(|token| token % 61 + 3).collect();
            let adapter = [None, Some(adapters[0]), Some(adapters[1])][index % 3];
            Generate {
                prompt: Prompt::Tokens(tokens),
                adapter: adapter.map(str::to_owned),
                ..request
            }
        })
        .collect();
    let off = Sizes {
        prefix_cache: engine::scheduler::PrefixCache::Off,
        ..Sizes::default()
    };
    let alone = crate::common::one_by_one(&with_adapters(&off), &requests);
    let engine = with_adapters(&Sizes {
        kv_tokens: 240,
        ..Sizes::default()
    });
    assert_eq!(crate::common::together(&engine, &requests), alone);
    assert_eq!(
        crate::common::together(&engine, &requests),
        alone,
        "prompts cached"
    );

    // Swapping what a name means changes later requests, not the cache's answers.
    let swapped = load().load_adapter(&folder.join(adapters[1])).unwrap();
    engine.load_adapter(adapters[0], &swapped).wait().unwrap();
    let second = Generate {
        adapter: Some(adapters[1].into()),
        ..requests[1].clone()
    };
    let renamed = engine.generate(requests[1].clone()).wait().unwrap();
    assert_eq!(
        trace(&renamed),
        trace(&engine.generate(second).wait().unwrap())
    );
    assert_ne!(trace(&renamed), alone[1]);
}

/// A row of the embedding is NaN: who uses its token fails, alone, and leaves nothing behind.
#[test]
fn not_a_number_fails_its_own_request_only() {
    const POISON: TokenId = 77;
    let without = |tokens: Vec<TokenId>| -> Vec<TokenId> {
        tokens
            .into_iter()
            .filter(|token| *token != POISON)
            .collect()
    };
    let good: Vec<Generate> = (0..6)
        .map(|seed| greedy(without(Choices(seed).tokens(20)), 12))
        .collect();
    let mut poisoned = good[0].clone();
    let Prompt::Tokens(tokens) = &mut poisoned.prompt else {
        panic!("these are token ids");
    };
    tokens[11] = POISON;
    // A pool so small that the blocks of the failed request are used again.
    let sizes = Sizes {
        kv_tokens: 400,
        ..Sizes::default()
    };
    let engine = start(load_poisoned(POISON), &sizes);
    let alone = one_by_one(&engine, &good);
    for _ in 0..3 {
        let bad = [0, 1].map(|_| engine.generate(poisoned.clone()));
        assert_eq!(together(&engine, &good), alone);
        for answer in bad {
            let error = answer.wait().unwrap_err();
            assert!(matches!(error, RequestError::NotANumber { .. }), "{error}");
        }
    }
}
