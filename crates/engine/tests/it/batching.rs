//! Batching is invisible: a row's tokens and log-probabilities have the same bits alone, in a
//! batch, in another order, with its prompt in chunks, after preemption, on a prefix hit and
//! as a fork; with one thread and with two.

use crate::common::{Sizes, Trace, load, one_by_one, requests, start, together, trace};
use candle_core::quantized::GgmlDType;
use data::{Generate, Generator};
use engine::scheduler::PrefixCache;
use std::process::Command;

const FORMATS: [GgmlDType; 3] = [GgmlDType::F32, GgmlDType::Q8_0, GgmlDType::Q4K];

/// Alone, without a prefix cache, with whole prompts: what everything else must equal.
fn alone(format: GgmlDType, requests: &[Generate]) -> Vec<Trace> {
    let sizes = Sizes {
        prefix_cache: PrefixCache::Off,
        ..Sizes::default()
    };
    one_by_one(&start(load(format), &sizes), requests)
}

fn check(expected: &[Trace], found: &[Trace], what: &str) {
    for (index, (expected, found)) in expected.iter().zip(found).enumerate() {
        assert_eq!(expected, found, "{what}: request {index}");
    }
    assert_eq!(expected.len(), found.len(), "{what}");
}

#[test]
fn batched_permuted_chunked_preempted_and_cached_rows_equal_rows_alone() {
    for format in FORMATS {
        let requests = requests(40, 7);
        let expected = alone(format, &requests);

        let engine = start(load(format), &Sizes::default());
        check(&expected, &together(&engine, &requests), "batched");
        check(
            &expected,
            &together(&engine, &requests),
            "batched, prompts cached",
        );
        let stats = engine.stats().wait().unwrap();
        assert!(stats.scheduler.num_tokens_hit > 500, "{stats:?}");

        let mut permuted: Vec<usize> = (0..requests.len()).collect();
        permuted.sort_by_key(|index| (index * 17) % 41);
        let shuffled: Vec<Generate> = permuted.iter().map(|i| requests[*i].clone()).collect();
        let shuffled_expected: Vec<Trace> = permuted.iter().map(|i| expected[*i].clone()).collect();
        let engine = start(
            load(format),
            &Sizes {
                max_sequences: 7,
                ..Sizes::default()
            },
        );
        check(
            &shuffled_expected,
            &together(&engine, &shuffled),
            "permuted",
        );

        let chunked = Sizes {
            max_tokens_per_step: 5,
            ..Sizes::default()
        };
        check(
            &expected,
            &together(&start(load(format), &chunked), &requests),
            "chunked",
        );

        // 15 blocks: one request of up to 72 tokens fits, several only until they grow.
        let tiny = Sizes {
            kv_tokens: 120,
            max_tokens_per_step: 24,
            ..Sizes::default()
        };
        let engine = start(load(format), &tiny);
        check(&expected, &together(&engine, &requests), "preempted");
        let stats = engine.stats().wait().unwrap();
        assert!(stats.scheduler.num_preemptions > 0, "{stats:?}");
    }
}

#[test]
fn n_samples_equal_single_requests_with_the_derived_seeds() {
    for format in FORMATS {
        for request in requests(8, 11) {
            let single: Vec<Generate> = (0..8)
                .map(|i| Generate {
                    seed: Generate::sample_seed(request.seed, i),
                    ..request.clone()
                })
                .collect();
            let expected: Trace = alone(format, &single).concat();
            let engine = start(load(format), &Sizes::default());
            let forked = engine
                .generate(Generate {
                    n: 8,
                    ..request.clone()
                })
                .wait()
                .unwrap();
            assert_eq!(trace(&forked), expected, "{format:?}");
            let indices: Vec<usize> = forked.iter().map(|completion| completion.index).collect();
            assert_eq!(indices, [0, 1, 2, 3, 4, 5, 6, 7]);

            let tiny = Sizes {
                kv_tokens: 104,
                max_tokens_per_step: 16,
                ..Sizes::default()
            };
            let engine = start(load(format), &tiny);
            let squeezed = engine
                .generate(Generate { n: 8, ..request })
                .wait()
                .unwrap();
            assert_eq!(trace(&squeezed), expected, "{format:?}, in a tiny pool");
        }
    }
}

/// Run by the test below in processes of their own, since the thread pool is made once.
#[test]
fn print_digest_of_a_batch() {
    for format in FORMATS {
        let traces = together(&start(load(format), &Sizes::default()), &requests(12, 5));
        println!("digest {format:?} {traces:?}");
    }
}

#[test]
fn one_thread_and_two_give_the_same_bits() {
    let digest = |threads: &str| {
        let output = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "batching::print_digest_of_a_batch",
                "--nocapture",
            ])
            .env("CANDLE_NUM_THREADS", threads)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<String> = text
            .lines()
            .filter_map(|l| l.find("digest ").map(|at| l[at..].to_owned()))
            .collect();
        assert_eq!(lines.len(), FORMATS.len(), "{text}");
        lines
    };
    assert_eq!(digest("1"), digest("2"));
    assert_eq!(digest("1"), digest("3"));
}
