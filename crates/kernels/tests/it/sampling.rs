use crate::reference::Random;
use kernels::sampling::{
    Penalties, SampleError, SamplingParams, Seen, apply_bias, apply_mask, apply_penalties,
    log_softmax_at, sample, top_logprobs, uniform,
};
use proptest::prelude::*;

const ALL: SamplingParams = SamplingParams {
    temperature: 1.0,
    top_k: 0,
    top_p: 1.0,
    min_p: 0.0,
};

/// The exact distribution by sorting, in f64: probabilities by token.
fn reference(logits: &[f32], params: &SamplingParams) -> Vec<f64> {
    let t = f64::from(params.temperature);
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |x: f32| ((f64::from(x) - f64::from(max)) / t).exp();
    let mut order: Vec<usize> = (0..logits.len())
        .filter(|&i| logits[i].is_finite())
        .collect();
    order.sort_by(|&a, &b| logits[b].partial_cmp(&logits[a]).unwrap().then(a.cmp(&b)));
    if params.top_k > 0 {
        order.truncate(params.top_k as usize);
    }
    if params.top_p < 1.0 {
        let total: f64 = order.iter().map(|&i| weight(logits[i])).sum();
        let mut mass = 0.0;
        let reached = order.iter().position(|&i| {
            mass += weight(logits[i]);
            mass >= f64::from(params.top_p) * total
        });
        order.truncate(reached.map_or(order.len(), |at| at + 1));
    }
    order.retain(|&i| weight(logits[i]) >= f64::from(params.min_p));
    let total: f64 = order.iter().map(|&i| weight(logits[i])).sum();
    let mut out = vec![0.0; logits.len()];
    for i in order {
        out[i] = weight(logits[i]) / total;
    }
    out
}

/// Draws just inside both ends of every token's share of the unit interval, which pins the
/// whole distribution: the share of each token is what the reference says, to 1e-6.
#[track_caller]
fn check(logits: &[f32], params: &SamplingParams) {
    const MARGIN: f64 = 1e-6;
    let expected = reference(logits, params);
    let mut start = 0.0;
    for (token, &p) in expected.iter().enumerate() {
        let end = start + p;
        for u in [start + MARGIN, end - MARGIN] {
            if p > 2.0 * MARGIN && (0.0..1.0).contains(&u) {
                let drawn = sample(logits, params, u).unwrap();
                assert_eq!(drawn.token as usize, token, "{params:?} at {u}");
                let error = (f64::from(drawn.sampled_logprob) - p.ln()).abs();
                assert!(
                    error < 2e-6,
                    "{params:?}: log {} for {p}",
                    drawn.sampled_logprob
                );
            }
        }
        start = end;
    }
}

fn params() -> impl Strategy<Value = SamplingParams> {
    let temperature = prop_oneof![Just(1.0f32), 0.05f32..3.0];
    let top_k = prop_oneof![Just(0u32), 1u32..12, 1u32..2000];
    let top_p = prop_oneof![Just(1.0f32), 0.001f32..1.0, Just(0.95f32)];
    let min_p = prop_oneof![Just(0.0f32), 0.001f32..0.5];
    (temperature, top_k, top_p, min_p).prop_map(|(temperature, top_k, top_p, min_p)| {
        SamplingParams {
            temperature,
            top_k,
            top_p,
            min_p,
        }
    })
}

/// Logits with ties, forbidden tokens and a few that stand out.
fn row(random: &mut Random, vocabulary: usize) -> Vec<f32> {
    let spread = [0.3, 1.0, 3.0][random.below(3)];
    let grid = [0.0, 0.5][random.below(2)];
    let mut logits: Vec<f32> = (0..vocabulary)
        .map(|_| {
            let x = random.normal() * spread;
            if grid > 0.0 {
                (x / grid).round() * grid
            } else {
                x
            }
        })
        .collect();
    for _ in 0..random.below(5) {
        let at = random.below(vocabulary);
        logits[at] += 5.0;
    }
    for _ in 0..random.below(vocabulary) {
        let at = random.below(vocabulary);
        logits[at] = f32::NEG_INFINITY;
    }
    logits[random.below(vocabulary)] = 0.25;
    logits
}

/// True if a hair's breadth decides a filter: then f32 weights may keep one token more or less.
fn on_the_edge(logits: &[f32], params: &SamplingParams) -> bool {
    let kept = |params: &SamplingParams| {
        reference(logits, params)
            .iter()
            .filter(|&&p| p > 0.0)
            .count()
    };
    let mut edges = Vec::new();
    for factor in [1.0 - 2e-6, 1.0 + 2e-6] {
        let top_p = if params.top_p < 1.0 {
            (params.top_p * factor).min(1.0)
        } else {
            1.0
        };
        edges.push(kept(&SamplingParams {
            top_p,
            min_p: params.min_p * factor,
            ..*params
        }));
    }
    edges[0] != edges[1]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_token_has_its_exact_share(
        vocabulary in 1usize..1500, params in params(), seed in any::<u64>(),
    ) {
        let logits = row(&mut Random::new(seed), vocabulary);
        prop_assume!(!on_the_edge(&logits, &params));
        check(&logits, &params);
    }
}

#[test]
fn filters_at_their_limits() {
    let ties = [1.0f32; 10];
    for params in [
        SamplingParams { top_k: 3, ..ALL },
        SamplingParams { top_k: 10, ..ALL },
        SamplingParams { top_k: 1000, ..ALL },
        SamplingParams { top_p: 0.45, ..ALL },
        SamplingParams { top_p: 1e-9, ..ALL },
        SamplingParams { min_p: 1.0, ..ALL },
        SamplingParams {
            top_k: 7,
            top_p: 0.5,
            min_p: 0.9,
            ..ALL
        },
    ] {
        check(&ties, &params);
    }
    let one = [
        f32::NEG_INFINITY,
        f32::NEG_INFINITY,
        -30.0,
        f32::NEG_INFINITY,
    ];
    for temperature in [0.0, 1e-40, 1.0, 1e30] {
        for uniform in [0.0, 0.5, 1.0 - f64::EPSILON] {
            let params = SamplingParams {
                temperature,
                top_k: 2,
                top_p: 0.1,
                min_p: 0.3,
            };
            assert_eq!(sample(&one, &params, uniform).unwrap().token, 2);
            assert_eq!(
                sample(&one, &SamplingParams { temperature, ..ALL }, uniform)
                    .unwrap()
                    .token,
                2
            );
        }
    }
    // The two zeros are the same logit: the lowest id stays.
    let drawn = sample(&[-0.0, 0.0, -1.0], &SamplingParams { top_k: 1, ..ALL }, 0.9).unwrap();
    assert_eq!((drawn.token, drawn.sampled_logprob), (0, 0.0));
}

/// Rows that leave a filter little to narrow down by, or nothing at all.
#[test]
fn filters_on_rows_of_odd_shapes() {
    let never = f32::NEG_INFINITY;
    let rows: [Vec<f32>; 7] = [
        vec![1.0; 700],
        (0..700)
            .map(|i| if i % 3 == 0 { 0.0 } else { -0.0 })
            .collect(),
        (0..700)
            .map(|i| if i % 5 == 0 { 2.0 } else { never })
            .collect(),
        (0..700)
            .map(|i| if i % 2 == 0 { 1.0 } else { -1e9 })
            .collect(),
        (0..700)
            .map(|i| if i % 7 == 0 { 0.5 } else { f32::MIN })
            .collect(),
        (0..700)
            .map(|i| if i == 650 { 9.0 } else { i as f32 * 1e-4 })
            .collect(),
        (0..17).map(|i| i as f32 * 0.3).collect(),
    ];
    for logits in &rows {
        for params in [
            SamplingParams {
                top_p: 0.9513,
                ..ALL
            },
            SamplingParams {
                top_p: 0.0007,
                ..ALL
            },
            SamplingParams { top_k: 333, ..ALL },
            SamplingParams { top_k: 11, ..ALL },
            SamplingParams { min_p: 0.5, ..ALL },
            SamplingParams {
                top_k: 500,
                top_p: 0.7301,
                min_p: 0.1,
                ..ALL
            },
        ] {
            check(logits, &params);
        }
    }
}

#[test]
fn greedy_takes_the_lowest_of_equals() {
    let greedy = SamplingParams {
        temperature: 0.0,
        ..ALL
    };
    let mut random = Random::new(4);
    for vocabulary in [1, 15, 64, 65, 1000, 5000] {
        let mut logits = row(&mut random, vocabulary);
        let (a, b) = (random.below(vocabulary), random.below(vocabulary));
        logits[a] = 50.0;
        logits[b] = 50.0;
        let drawn = sample(&logits, &greedy, 0.7).unwrap();
        assert_eq!(
            (drawn.token as usize, drawn.sampled_logprob),
            (a.min(b), 0.0)
        );
    }
}

#[test]
fn a_large_vocabulary_is_drawn_from_as_a_small_one() {
    let mut random = Random::new(11);
    let logits = row(&mut random, 128_256);
    for (params, draws) in [
        (ALL, 40),
        (SamplingParams { top_k: 50, ..ALL }, 40),
        (
            SamplingParams {
                top_k: 100_000,
                ..ALL
            },
            10,
        ),
        (SamplingParams { top_p: 0.9, ..ALL }, 40),
        (
            SamplingParams {
                top_p: 0.999,
                temperature: 2.0,
                ..ALL
            },
            20,
        ),
        (SamplingParams { min_p: 0.05, ..ALL }, 40),
    ] {
        let expected = reference(&logits, &params);
        for i in 0..draws {
            let u = (f64::from(i) + 0.5) / f64::from(draws);
            let drawn = sample(&logits, &params, u).unwrap().token as usize;
            let before: f64 = expected[..drawn].iter().sum();
            let share = before - 2e-6..before + expected[drawn] + 2e-6;
            assert!(
                share.contains(&u),
                "{params:?}: token {drawn} for {u}, not in {share:?}"
            );
        }
    }
}

#[test]
fn draws_follow_the_distribution() {
    let logits = [0.0f32, 1.0, -1.0, 2.0, 0.5, f32::NEG_INFINITY];
    let params = SamplingParams {
        temperature: 0.8,
        top_k: 4,
        top_p: 0.97,
        min_p: 0.02,
    };
    let expected = reference(&logits, &params);
    let mut counts = [0u32; 6];
    let draws = 100_000;
    for position in 0..draws {
        counts[sample(&logits, &params, uniform(42, position))
            .unwrap()
            .token as usize] += 1;
    }
    let mut chi_squared = 0.0;
    for (&count, &p) in counts.iter().zip(&expected) {
        let mean = p * draws as f64;
        if p == 0.0 {
            assert_eq!(count, 0);
        } else {
            chi_squared += (f64::from(count) - mean).powi(2) / mean;
        }
    }
    assert!(chi_squared < 16.3, "{chi_squared}"); // at most 3 degrees of freedom, p = 0.001
}

#[test]
fn rows_that_nothing_can_be_drawn_from() {
    let nan = SampleError::NotANumber {
        token: 70,
        value: f32::INFINITY,
    };
    for params in [
        ALL,
        SamplingParams {
            temperature: 0.0,
            ..ALL
        },
        SamplingParams { top_k: 1, ..ALL },
    ] {
        for at in [70, 99] {
            let mut logits = vec![0.0f32; 100];
            logits[at] = f32::NAN;
            let error = sample(&logits, &params, 0.5).unwrap_err();
            assert!(matches!(error, SampleError::NotANumber { token, value }
                if token as usize == at && value.is_nan()));
        }
        let mut logits = vec![0.0f32; 100];
        logits[70] = f32::INFINITY;
        assert_eq!(sample(&logits, &params, 0.5).unwrap_err(), nan);
        for vocabulary in [0, 1, 100] {
            let empty = vec![f32::NEG_INFINITY; vocabulary];
            let error = sample(&empty, &params, 0.5).unwrap_err();
            assert_eq!(error, SampleError::NothingAllowed { vocabulary });
            assert!(log_softmax_at(&empty, &[]).is_err());
        }
    }
    for (params, uniform) in [
        (
            SamplingParams {
                temperature: -1.0,
                ..ALL
            },
            0.5,
        ),
        (
            SamplingParams {
                temperature: f32::NAN,
                ..ALL
            },
            0.5,
        ),
        (SamplingParams { top_p: 0.0, ..ALL }, 0.5),
        (SamplingParams { min_p: 1.5, ..ALL }, 0.5),
        (ALL, 1.0),
        (ALL, f64::NAN),
    ] {
        assert!(matches!(
            sample(&[0.0], &params, uniform),
            Err(SampleError::Parameter { .. })
        ));
    }
}

#[test]
fn bias_penalties_and_mask() {
    let mut logits = vec![2.0f32, -2.0, 1.0, 0.0];
    apply_bias(&mut logits, [(2, 0.5), (3, f32::NEG_INFINITY)]).unwrap();
    assert_eq!(logits, [2.0, -2.0, 1.5, f32::NEG_INFINITY]);
    let penalties = Penalties {
        repetition: 2.0,
        presence: 0.25,
        frequency: 0.5,
    };
    let seen = [(0, 0), (1, 2), (3, 1)].map(|(token, output_count)| Seen {
        token,
        output_count,
    });
    apply_penalties(&mut logits, &penalties, seen).unwrap();
    assert_eq!(logits, [1.0, -5.25, 1.5, f32::NEG_INFINITY]);
    let unknown = SampleError::UnknownToken {
        token: 4,
        vocabulary: 4,
    };
    assert_eq!(apply_bias(&mut logits, [(4, 1.0)]).unwrap_err(), unknown);
    let seen = [Seen {
        token: 4,
        output_count: 0,
    }];
    assert_eq!(
        apply_penalties(&mut logits, &penalties, seen).unwrap_err(),
        unknown
    );

    let mut random = Random::new(1);
    for vocabulary in [1usize, 31, 32, 33, 64, 100] {
        for words in 0..5 {
            let mask: Vec<u32> = (0..words)
                .map(|_| [0, u32::MAX, random.next() as u32][random.below(3)])
                .collect();
            let mut logits = vec![1.0f32; vocabulary];
            let allowed = apply_mask(&mut logits, &mask);
            let bit = |t: usize| {
                mask.get(t / 32)
                    .is_some_and(|word| word >> (t % 32) & 1 == 1)
            };
            for (token, &logit) in logits.iter().enumerate() {
                assert_eq!(logit, if bit(token) { 1.0 } else { f32::NEG_INFINITY });
            }
            assert_eq!(allowed, (0..vocabulary).filter(|&t| bit(t)).count());
        }
    }
}

#[test]
fn log_probabilities_of_the_raw_distribution() {
    let mut random = Random::new(8);
    for vocabulary in [1usize, 20, 300, 5000] {
        let logits = row(&mut random, vocabulary);
        let expected = reference(&logits, &ALL);
        let tokens: Vec<u32> = (0..vocabulary as u32).collect();
        let got = log_softmax_at(&logits, &tokens).unwrap();
        for (&got, &expected) in got.iter().zip(&expected) {
            let ok = (f64::from(got) - expected.ln()).abs() < 2e-6 * (1.0 + expected.ln().abs());
            assert!(
                ok || f64::from(got) == expected.ln(),
                "{got} for {}",
                expected.ln()
            );
        }
        let mut order: Vec<usize> = (0..vocabulary).filter(|&t| expected[t] > 0.0).collect();
        order.sort_by(|&a, &b| logits[b].partial_cmp(&logits[a]).unwrap().then(a.cmp(&b)));
        for k in [0, 1, 5, 70, vocabulary + 1] {
            let top = top_logprobs(&logits, k).unwrap();
            assert_eq!(top.len(), k.min(order.len()));
            for ((token, logprob), expected) in top.iter().zip(&order) {
                assert_eq!(*token as usize, *expected);
                assert_eq!(*logprob, got[*expected]);
            }
        }
        let unknown = SampleError::UnknownToken {
            token: vocabulary as u32,
            vocabulary,
        };
        assert_eq!(
            log_softmax_at(&logits, &[vocabulary as u32]).unwrap_err(),
            unknown
        );
    }
}
