//! Timings, on demand: `cargo nextest run --release -E 'test(bench_)' --run-ignored only --no-capture`.
#![expect(clippy::print_stdout, reason = "timings are for reading")]

use crate::reference::Random;
use candle_core::{DType, Tensor};
use kernels::sampling::{SamplingParams, log_softmax_at, sample, top_logprobs};
use kernels::{
    KvLayer, LoraWeights, Rope, RopeLayout, SequenceSpan, add_rms_norm, lora_add, paged_attention,
    rms_norm, rope_and_cache, swiglu,
};
use std::hint::black_box;
use std::time::Instant;

/// The best of many runs, in seconds.
fn best<T>(runs: usize, mut work: impl FnMut() -> T) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..runs {
        let start = Instant::now();
        black_box(work());
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
}

fn attention(
    name: &str,
    dtype: DType,
    sequences: &[(usize, usize)],
    (heads, kv_heads, dim): (usize, usize, usize),
) {
    let mut random = Random::new(1);
    let block_len = 16;
    let needed: usize = sequences
        .iter()
        .map(|(context, _)| context.div_ceil(block_len))
        .sum();
    let mut cache = || {
        random
            .tensor(&[needed, kv_heads, block_len, dim])
            .to_dtype(dtype)
            .unwrap()
    };
    let kv = KvLayer {
        k: cache(),
        v: cache(),
    };
    let mut order = random.permutation(needed).into_iter();
    let (mut spans, mut start) = (Vec::new(), 0);
    let (mut bytes, mut flops) = (0, 0);
    for &(context_len, rows) in sequences {
        let blocks = order
            .by_ref()
            .take(context_len.div_ceil(block_len))
            .collect();
        spans.push(SequenceSpan {
            query: start..start + rows,
            context_len,
            blocks,
        });
        start += rows;
        bytes += context_len * kv_heads * dim * 2 * dtype.size_in_bytes();
        flops += (0..rows)
            .map(|i| (context_len - i) * heads * dim * 4)
            .sum::<usize>();
    }
    let q = random.tensor(&[start, heads * dim]);
    let t = best(40, || {
        paged_attention(&q, &kv, &spans, 0.125, None).unwrap()
    });
    println!(
        "{name:40} {:9.1} us {:7.1} GB/s of KV {:7.1} GFLOP/s",
        t * 1e6,
        bytes as f64 / t / 1e9,
        flops as f64 / t / 1e9
    );
}

#[test]
#[ignore = "a measurement"]
fn bench_attention() {
    let shape = (32, 8, 64);
    for dtype in [DType::F16, DType::F32] {
        attention(
            &format!("decode 1 x 512, {dtype:?}"),
            dtype,
            &[(512, 1)],
            shape,
        );
        attention(
            &format!("decode 32 x 512, {dtype:?}"),
            dtype,
            &[(512, 1); 32],
            shape,
        );
        attention(
            &format!("prefill 512, {dtype:?}"),
            dtype,
            &[(512, 512)],
            shape,
        );
        attention(
            &format!("prefill 2048, {dtype:?}"),
            dtype,
            &[(2048, 2048)],
            shape,
        );
    }
    attention(
        "decode 32 x 512, f16, 32/8/128",
        DType::F16,
        &[(512, 1); 32],
        (32, 8, 128),
    );
    attention(
        "prefill 512, f16, 32/8/128",
        DType::F16,
        &[(512, 512)],
        (32, 8, 128),
    );
    attention(
        "decode 32 x 512, f16, 32/32/64",
        DType::F16,
        &[(512, 1); 32],
        (32, 32, 64),
    );
    attention(
        "prefill 512, f16, 9/3/64",
        DType::F16,
        &[(512, 512)],
        (9, 3, 64),
    );
}

fn report(name: &str, bytes: usize, t: f64) {
    println!(
        "{name:40} {:9.1} us {:7.1} GB/s",
        t * 1e6,
        bytes as f64 / t / 1e9
    );
}

#[test]
#[ignore = "a measurement"]
fn bench_elementwise() {
    let mut random = Random::new(1);
    for rows in [1, 32, 512] {
        let (hidden, inner) = (2048, 8192);
        let (x, y) = (
            random.tensor(&[rows, hidden]),
            random.tensor(&[rows, hidden]),
        );
        let weight = random.tensor(&[hidden]);
        let size = rows * hidden * 4;
        report(
            &format!("rms_norm ({rows}, {hidden})"),
            2 * size,
            best(50, || rms_norm(&x, &weight, 1e-5).unwrap()),
        );
        report(
            &format!("add_rms_norm ({rows}, {hidden})"),
            4 * size,
            best(50, || add_rms_norm(&x, &y, &weight, 1e-5).unwrap()),
        );
        let (gate, up) = (random.tensor(&[rows, inner]), random.tensor(&[rows, inner]));
        report(
            &format!("swiglu ({rows}, {inner})"),
            3 * rows * inner * 4,
            best(50, || swiglu(&gate, &up).unwrap()),
        );
        let table = Rope::new(&[0.1; 32], 4096, RopeLayout::Halves).unwrap();
        let cache =
            || Tensor::zeros((64, 8, 16, 64), DType::F16, &candle_core::Device::Cpu).unwrap();
        let kv = KvLayer {
            k: cache(),
            v: cache(),
        };
        let (q, k) = (random.tensor(&[rows, 2048]), random.tensor(&[rows, 512]));
        let slots: Vec<u32> = (0..rows as u32).collect();
        let t = best(50, || {
            rope_and_cache((&q, &k, &k), &table, &slots, &slots, &kv).unwrap()
        });
        report(
            &format!("rope_and_cache ({rows}, 2048 + 2 x 512)"),
            rows * (2048 * 8 + 512 * 12),
            t,
        );
        let (a, b) = (random.tensor(&[16, hidden]), random.tensor(&[hidden, 16]));
        let lora = LoraWeights {
            a: &a,
            b: &b,
            scale: 1.0,
        };
        let t = best(50, || lora_add(&y, &x, &lora, &slots).unwrap());
        println!(
            "{:40} {:9.1} us {:7.1} GFLOP/s",
            format!("lora_add r = 16 ({rows}, {hidden})"),
            t * 1e6,
            (rows * hidden * 16 * 4) as f64 / t / 1e9
        );
    }
}

#[test]
#[ignore = "a measurement"]
fn bench_sampling() {
    let mut random = Random::new(1);
    let all = SamplingParams {
        temperature: 0.7,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
    };
    for (shape, spread) in [("peaked", 3.0f32), ("flat", 0.5)] {
        let logits: Vec<f32> = (0..128_256).map(|_| random.normal() * spread).collect();
        for (name, params) in [
            (
                "greedy",
                SamplingParams {
                    temperature: 0.0,
                    ..all
                },
            ),
            ("temperature", all),
            ("top_k 50", SamplingParams { top_k: 50, ..all }),
            (
                "top_k 50, top_p 0.95",
                SamplingParams {
                    top_k: 50,
                    top_p: 0.95,
                    ..all
                },
            ),
            (
                "top_k 20000",
                SamplingParams {
                    top_k: 20_000,
                    ..all
                },
            ),
            ("top_p 0.95", SamplingParams { top_p: 0.95, ..all }),
            ("min_p 0.05", SamplingParams { min_p: 0.05, ..all }),
        ] {
            let t = best(50, || sample(&logits, &params, 0.5).unwrap());
            println!("{:40} {:9.1} us", format!("{shape}: {name}"), t * 1e6);
        }
        let t = best(50, || log_softmax_at(&logits, &[7]).unwrap());
        println!(
            "{:40} {:9.1} us",
            format!("{shape}: log_softmax_at"),
            t * 1e6
        );
        let t = best(50, || top_logprobs(&logits, 20).unwrap());
        println!(
            "{:40} {:9.1} us",
            format!("{shape}: top_logprobs 20"),
            t * 1e6
        );
    }
}
