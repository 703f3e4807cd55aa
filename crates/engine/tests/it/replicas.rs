//! Several replicas behind one handle: nobody can tell, except by the clock.

use crate::common::{Sizes, load, one_by_one, requests, start, start_replicas, together};
use candle_core::quantized::GgmlDType;
use data::{Generate, Generator, Prompt, RequestError, Score};
use engine::Engine;
use model::Llama;

fn replicas(count: usize) -> Engine {
    let model = load(GgmlDType::Q8_0);
    let models = (0..count).map(|_| Llama::of(model.decoder().clone()));
    start_replicas(models.collect(), &Sizes::default())
}

#[test]
fn answers_do_not_show_who_computed_them() {
    let requests = requests(60, 11);
    let expected = one_by_one(&start(load(GgmlDType::Q8_0), &Sizes::default()), &requests);
    for count in [1, 2, 3] {
        let engine = replicas(count);
        assert_eq!(together(&engine, &requests), expected, "{count} replicas");
        let stats = engine.stats().wait().unwrap();
        assert!(stats.num_tokens_drawn > 0 && stats.scheduler.num_running == 0);
        let blocks = Sizes::default().kv_tokens / Sizes::default().block_size;
        assert_eq!(stats.scheduler.num_blocks, count * blocks);
    }
}

#[test]
fn siblings_share_a_prefill_and_others_spread() {
    let engine = replicas(2);
    let prompt = |start: u32| Prompt::Tokens((start..start + 100).collect());
    let ask = |start: u32, seed| {
        engine.generate(Generate {
            max_tokens: Some(3),
            seed,
            ..Generate::new(prompt(start))
        })
    };
    ask(5, 0).wait().unwrap();
    let first = engine.stats().wait().unwrap().num_tokens_prefilled;
    ask(5, 1).wait().unwrap();
    let second = engine.stats().wait().unwrap().num_tokens_prefilled - first;
    assert!(second <= 8, "{second} of 100 tokens were computed again");
    // New prompts under way at the same time go to both.
    let pending: Vec<_> = (0..8).map(|i| ask(20 + i * 11, 0)).collect();
    for answer in pending {
        answer.wait().unwrap();
    }
}

#[test]
fn scores_and_errors_come_back_from_any_replica() {
    let one = start(load(GgmlDType::Q8_0), &Sizes::default());
    let two = replicas(2);
    let score = |engine: &Engine, start: u32| {
        let request = Score {
            prefix: Prompt::Tokens((start..start + 20).collect()),
            suffixes: vec!["a".into(), "b".into()],
            labels: vec!["c".into(), "d".into()],
            adapter: None,
        };
        engine.score(request).wait().unwrap()
    };
    for start in 3..9 {
        let (a, b) = (score(&one, start), score(&two, start));
        for (a, b) in a.suffixes.iter().zip(&b.suffixes) {
            assert_eq!(a.logprobs, b.logprobs);
        }
    }
    let unknown = Generate {
        adapter: Some("nobody".into()),
        ..Generate::new(Prompt::Tokens(vec![3, 4]))
    };
    let error = two.generate(unknown).wait().unwrap_err();
    assert!(matches!(error, RequestError::Invalid(_)), "{error}");
    assert!(two.unload_adapter("nobody").wait().is_err());
}
