//! Every rule against central differences, in f64, of the obvious forward function.

use super::*;
use candle_core::{Device, Tensor};
use proptest::prelude::*;

/// Largest distance of a rule (f32) from the differences (f64), relative to the largest entry (to 0.05 where all are smaller).
const TOLERANCE: f64 = 2e-5;

fn tensor(values: &[f64], shape: (usize, usize)) -> Tensor {
    let values: Vec<f32> = values.iter().map(|x| *x as f32).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn vector(values: &[f64]) -> Tensor {
    let values: Vec<f32> = values.iter().map(|x| *x as f32).collect();
    let len = values.len();
    Tensor::from_vec(values, len, &Device::Cpu).unwrap()
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Repeatable values in -1..1 that f32 holds exactly.
fn noise(seed: u64, len: usize) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            f64::from((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0)
        })
        .collect()
}

/// The gradient of `sum of weights * forward(x)` by central differences.
fn differences(x: &[f64], weights: &[f64], forward: impl Fn(&[f64]) -> Vec<f64>) -> Vec<f64> {
    let loss = |x: &[f64]| -> f64 {
        let y = forward(x);
        assert_eq!(y.len(), weights.len());
        y.iter().zip(weights).map(|(y, w)| y * w).sum()
    };
    let mut x = x.to_vec();
    (0..x.len())
        .map(|i| {
            let (at, h) = (x[i], 1e-5);
            x[i] = at + h;
            let above = loss(&x);
            x[i] = at - h;
            let below = loss(&x);
            x[i] = at;
            (above - below) / (2.0 * h)
        })
        .collect()
}

#[track_caller]
fn check(name: &str, rule: &Tensor, differences: &[f64]) {
    let rule = floats(rule);
    assert_eq!(rule.len(), differences.len(), "{name}");
    let largest = differences.iter().fold(0.05f64, |top, x| top.max(x.abs()));
    for (i, (rule, expected)) in rule.iter().zip(differences).enumerate() {
        let distance = (f64::from(*rule) - expected).abs() / largest;
        assert!(
            distance < TOLERANCE,
            "{name}[{i}]: {rule} by rule, {expected} by differences"
        );
    }
}

fn reference_rms_norm(x: &[f64], weight: &[f64], eps: f64) -> Vec<f64> {
    x.chunks(weight.len())
        .flat_map(|row| {
            let mean = row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64;
            let scale = 1.0 / (mean + eps).sqrt();
            row.iter()
                .zip(weight)
                .map(move |(x, w)| x * scale * w)
                .collect::<Vec<_>>()
        })
        .collect()
}

fn reference_swiglu(gate: &[f64], up: &[f64]) -> Vec<f64> {
    gate.iter()
        .zip(up)
        .map(|(g, u)| g / (1.0 + (-g).exp()) * u)
        .collect()
}

fn reference_attention(
    (q, k, v): (&[f64], &[f64], &[f64]),
    segments: &[usize],
    shape: &AttentionShape,
) -> Vec<f64> {
    let (d, group) = (shape.head_dim, shape.query_heads / shape.kv_heads);
    let (wide, narrow) = (shape.query_heads * d, shape.kv_heads * d);
    let mut out = vec![0.0; q.len()];
    let mut start = 0;
    for len in segments {
        for row in start..start + len {
            let first = start.max((row + 1).saturating_sub(shape.window.unwrap_or(usize::MAX)));
            for head in 0..shape.query_heads {
                let q = &q[row * wide + head * d..][..d];
                let column = head / group * d;
                let scores: Vec<f64> = (first..=row)
                    .map(|key| {
                        let k = &k[key * narrow + column..][..d];
                        q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>() / (d as f64).sqrt()
                    })
                    .collect();
                let top = scores.iter().fold(f64::MIN, |a, b| a.max(*b));
                let total: f64 = scores.iter().map(|s| (s - top).exp()).sum();
                for (key, score) in (first..=row).zip(scores) {
                    let p = (score - top).exp() / total;
                    for i in 0..d {
                        out[row * wide + head * d + i] += p * v[key * narrow + column + i];
                    }
                }
            }
        }
        start += len;
    }
    out
}

fn reference_log_probs(logits: &[f64], targets: &[u32]) -> Vec<f64> {
    let vocab = logits.len() / targets.len();
    logits
        .chunks(vocab)
        .zip(targets)
        .map(|(row, target)| {
            let top = row.iter().fold(f64::MIN, |a, b| a.max(*b));
            row[*target as usize] - top - row.iter().map(|x| (x - top).exp()).sum::<f64>().ln()
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn rms_norm_rule(rows in 1usize..70, hidden in 1usize..40, seed: u64) {
        let (x, w) = (noise(seed, rows * hidden), noise(seed ^ 1, hidden));
        let g = noise(seed ^ 2, rows * hidden);
        let eps = 1e-3;
        let got = rms_norm_backward(&tensor(&x, (rows, hidden)), &vector(&w), &tensor(&g, (rows, hidden)), eps).unwrap();
        let eps = f64::from(eps);
        // A norm looks at its own row only: differences of some rows stand for all.
        let few = x.len().min(6 * hidden);
        let of_x = differences(&x[..few], &g[..few], |x| reference_rms_norm(x, &w, eps));
        check("x", &got.x.narrow(0, 0, few / hidden).unwrap(), &of_x);
        check("weight", &got.weight, &differences(&w, &g, |w| reference_rms_norm(&x, w, eps)));
    }

    #[test]
    fn swiglu_rule(rows in 1usize..6, columns in 1usize..50, seed: u64) {
        let wide = |seed| noise(seed, rows * columns).iter().map(|x| x * 6.0).collect::<Vec<f64>>();
        let (gate, up, g) = (wide(seed), wide(seed ^ 1), wide(seed ^ 2));
        let shape = (rows, columns);
        let (of_gate, of_up) = swiglu_backward(&tensor(&gate, shape), &tensor(&up, shape), &tensor(&g, shape)).unwrap();
        check("gate", &of_gate, &differences(&gate, &g, |gate| reference_swiglu(gate, &up)));
        check("up", &of_up, &differences(&up, &g, |up| reference_swiglu(&gate, up)));
    }

    #[test]
    fn attention_and_its_rule(
        segments in prop::collection::vec(1usize..9, 1..4),
        (group, kv_heads, half) in (1usize..4, 1usize..3, 1usize..5),
        window in prop::option::of(1usize..6),
        seed: u64,
    ) {
        let shape = AttentionShape { query_heads: group * kv_heads, kv_heads, head_dim: 2 * half, window };
        check_attention(&segments, &shape, seed);
    }

    #[test]
    fn log_probability_rule(rows in 1usize..5, vocab in 1usize..60, seed: u64) {
        let logits: Vec<f64> = noise(seed, rows * vocab).iter().map(|x| x * 4.0).collect();
        let targets: Vec<u32> = (0..rows).map(|row| ((seed as usize ^ (row * 7)) % vocab) as u32).collect();
        let coefficients = noise(seed ^ 3, rows);
        let tensor = tensor(&logits, (rows, vocab));
        let scores = score_targets(&tensor, &targets).unwrap();
        for (score, expected) in scores.iter().zip(reference_log_probs(&logits, &targets)) {
            prop_assert!((f64::from(score.log_prob) - expected).abs() < 1e-5, "{score:?} {expected}");
        }
        let single: Vec<f32> = coefficients.iter().map(|c| *c as f32).collect();
        target_gradient(&tensor, &targets, &single).unwrap();
        let expected = differences(&logits, &coefficients, |logits| reference_log_probs(logits, &targets));
        check("logits", &tensor, &expected);
    }
}

fn check_attention(segments: &[usize], shape: &AttentionShape, seed: u64) {
    let tokens: usize = segments.iter().sum();
    let (wide, narrow) = (
        shape.query_heads * shape.head_dim,
        shape.kv_heads * shape.head_dim,
    );
    let scaled = |seed, len| {
        noise(seed, len)
            .iter()
            .map(|x| x * 2.0)
            .collect::<Vec<f64>>()
    };
    let (q, g) = (scaled(seed, tokens * wide), scaled(seed ^ 1, tokens * wide));
    let (k, v) = (
        scaled(seed ^ 2, tokens * narrow),
        scaled(seed ^ 3, tokens * narrow),
    );
    let (tq, tg) = (tensor(&q, (tokens, wide)), tensor(&g, (tokens, wide)));
    let (tk, tv) = (tensor(&k, (tokens, narrow)), tensor(&v, (tokens, narrow)));
    let (mixed, lse) = segment_attention((&tq, &tk, &tv), segments, shape).unwrap();
    check(
        "mixed",
        &mixed,
        &reference_attention((&q, &k, &v), segments, shape),
    );
    let (dq, dk, dv) =
        segment_attention_backward((&tq, &tk, &tv), (&mixed, &lse), &tg, segments, shape).unwrap();
    check(
        "q",
        &dq,
        &differences(&q, &g, |q| {
            reference_attention((q, &k, &v), segments, shape)
        }),
    );
    check(
        "k",
        &dk,
        &differences(&k, &g, |k| {
            reference_attention((&q, k, &v), segments, shape)
        }),
    );
    check(
        "v",
        &dv,
        &differences(&v, &g, |v| {
            reference_attention((&q, &k, v), segments, shape)
        }),
    );
}

#[test]
fn attention_over_several_blocks_of_queries() {
    let shape = AttentionShape {
        query_heads: 2,
        kv_heads: 1,
        head_dim: 2,
        window: None,
    };
    check_attention(&[150, 3], &shape, 5);
    let shape = AttentionShape {
        window: Some(40),
        ..shape
    };
    check_attention(&[150], &shape, 6);
}

#[test]
fn a_segment_does_not_see_its_neighbours() {
    let shape = AttentionShape {
        query_heads: 4,
        kv_heads: 2,
        head_dim: 8,
        window: None,
    };
    let segments = [37, 150, 1, 20];
    let tokens: usize = segments.iter().sum();
    let [q, g] = [1, 2].map(|seed| tensor(&noise(seed, tokens * 32), (tokens, 32)));
    let [k, v] = [3, 4].map(|seed| tensor(&noise(seed, tokens * 16), (tokens, 16)));
    let all = segment_attention((&q, &k, &v), &segments, &shape).unwrap();
    let back =
        segment_attention_backward((&q, &k, &v), (&all.0, &all.1), &g, &segments, &shape).unwrap();
    let mut start = 0;
    for len in segments {
        let part = |t: &Tensor| t.narrow(0, start, len).unwrap().contiguous().unwrap();
        let (q, k, v) = (part(&q), part(&k), part(&v));
        let alone = segment_attention((&q, &k, &v), &[len], &shape).unwrap();
        assert_eq!(floats(&part(&all.0)), floats(&alone.0), "segment of {len}");
        let alone = segment_attention_backward(
            (&q, &k, &v),
            (&alone.0, &alone.1),
            &part(&g),
            &[len],
            &shape,
        )
        .unwrap();
        for (all, alone) in [
            (&back.0, &alone.0),
            (&back.1, &alone.1),
            (&back.2, &alone.2),
        ] {
            assert_eq!(floats(&part(all)), floats(alone), "segment of {len}");
        }
        start += len;
    }
}

#[test]
fn rotation_backwards_is_rotation_by_the_opposite_angle() {
    use crate::{Rope, RopeLayout, rope};
    for layout in [RopeLayout::Halves, RopeLayout::Interleaved] {
        let table = Rope::new(&[1.0, 0.1, 0.01], 50, layout).unwrap();
        let positions: Vec<u32> = vec![0, 3, 49, 7];
        let (x, g) = (noise(1, 4 * 12), noise(2, 4 * 12));
        let back = rope(&tensor(&g, (4, 12)), &table.inverse().unwrap(), &positions).unwrap();
        let forward = |x: &[f64]| {
            let single = rope(&tensor(x, (4, 12)), &table, &positions).unwrap();
            floats(&single)
                .iter()
                .map(|y| f64::from(*y))
                .collect::<Vec<f64>>()
        };
        // A rotation is linear: differences may be as wide as they like, here 1.
        let expected: Vec<f64> = (0..x.len())
            .map(|i| {
                let mut unit = vec![0.0; x.len()];
                unit[i] = 1.0;
                forward(&unit).iter().zip(&g).map(|(y, g)| y * g).sum()
            })
            .collect();
        check("x", &back, &expected);
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let shape = AttentionShape {
        query_heads: 3,
        kv_heads: 2,
        head_dim: 2,
        window: None,
    };
    let x = tensor(&noise(1, 12), (2, 6));
    let error = segment_attention((&x, &x, &x), &[2], &shape).unwrap_err();
    assert!(error.to_string().contains("impossible heads"), "{error}");
    let shape = AttentionShape {
        kv_heads: 3,
        ..shape
    };
    let error = segment_attention((&x, &x, &x), &[1, 2], &shape).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("segments of 3 tokens in all, for 2"),
        "{error}"
    );
    let error = score_targets(&x, &[1, 6]).unwrap_err();
    assert!(
        error.to_string().contains("target 6 is out of range"),
        "{error}"
    );
}

#[test]
fn adamw_follows_its_definition() {
    let (count, steps) = (40_000, 4);
    let mut expected = noise(1, count);
    let (parameter, moments) = (vector(&expected), tensor(&vec![0.0; 2 * count], (2, count)));
    let (mut m, mut v) = (vec![0.0; count], vec![0.0; count]);
    for step in 1..=steps {
        let gradient = noise(10 + step, count);
        let optimizer = AdamW {
            rate: 0.01 * step as f64,
            betas: (0.9, 0.999),
            eps: 1e-8,
            weight_decay: 0.1,
            step,
            gradient_scale: 0.5,
        };
        optimizer
            .apply(&parameter, &moments, &vector(&gradient))
            .unwrap();
        for i in 0..count {
            let g = 0.5 * gradient[i];
            m[i] = 0.9 * m[i] + 0.1 * g;
            v[i] = 0.999 * v[i] + 0.001 * g * g;
            let (m, v) = (
                m[i] / (1.0 - 0.9f64.powf(step as f64)),
                v[i] / (1.0 - 0.999f64.powf(step as f64)),
            );
            expected[i] -= optimizer.rate * (0.1 * expected[i] + m / (v.sqrt() + 1e-8));
        }
    }
    for (found, expected) in floats(&parameter).iter().zip(&expected) {
        assert!(
            (f64::from(*found) - expected).abs() < 1e-6,
            "{found} {expected}"
        );
    }
    let norm: f64 = expected.iter().map(|x| x * x).sum();
    assert!((sum_of_squares(&parameter).unwrap() / norm - 1.0).abs() < 1e-6);
}
