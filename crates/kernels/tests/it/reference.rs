//! Slow and obvious twins in f64, and random inputs.

use candle_core::{DType, Device, Tensor};
use kernels::{KvLayer, SequenceSpan};

/// Numbers that look random and depend on nothing but the seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(2).wrapping_add(1))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// About normal: the sum of four uniforms, centred.
    pub(crate) fn normal(&mut self) -> f32 {
        let sum: f64 = (0..4)
            .map(|_| (self.next() >> 11) as f64 / (1u64 << 53) as f64)
            .sum();
        ((sum - 2.0) * 1.732) as f32
    }

    pub(crate) fn tensor(&mut self, shape: &[usize]) -> Tensor {
        let data: Vec<f32> = (0..shape.iter().product()).map(|_| self.normal()).collect();
        Tensor::from_vec(data, shape, &Device::Cpu).unwrap()
    }

    pub(crate) fn permutation(&mut self, n: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n as u32).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i + 1));
        }
        order
    }
}

pub(crate) fn values(tensor: &Tensor) -> Vec<f32> {
    tensor
        .to_dtype(DType::F32)
        .unwrap()
        .flatten_all()
        .unwrap()
        .to_vec1()
        .unwrap()
}

pub(crate) fn bits(tensor: &Tensor) -> Vec<u32> {
    values(tensor).iter().map(|x| x.to_bits()).collect()
}

/// Fails unless |got - expected| <= tolerance * (1 + |expected|) everywhere.
#[track_caller]
pub(crate) fn assert_close(got: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len());
    for (i, (&got, &expected)) in got.iter().zip(expected).enumerate() {
        let error = (f64::from(got) - expected).abs();
        let ok = error <= tolerance * (1.0 + expected.abs());
        assert!(
            ok,
            "element {i}: got {got}, expected {expected}, error {error:e}"
        );
    }
}

/// One row attending to `keys` positions, all in f64.
pub(crate) fn reference_attention(
    q: &Tensor,
    kv: &KvLayer,
    spans: &[SequenceSpan],
    scale: f32,
    window: Option<usize>,
) -> Vec<f64> {
    let (tokens, width) = q.dims2().unwrap();
    let (_, kv_heads, block_len, dim) = kv.k.dims4().unwrap();
    let (q, k, v) = (values(q), values(&kv.k), values(&kv.v));
    let heads = width / dim;
    let mut out = vec![0.0; tokens * width];
    for span in spans {
        for (i, row) in span.query.clone().enumerate() {
            let position = span.context_len - span.query.len() + i;
            let first = window.map_or(0, |w| (position + 1).saturating_sub(w));
            for head in 0..heads {
                let kv_head = head / (heads / kv_heads);
                let at = |p: usize| {
                    let block = span.blocks[p / block_len] as usize;
                    ((block * kv_heads + kv_head) * block_len + p % block_len) * dim
                };
                let q = &q[row * width + head * dim..][..dim];
                let score = |p: usize| -> f64 {
                    let k = &k[at(p)..][..dim];
                    let dot: f64 = q
                        .iter()
                        .zip(k)
                        .map(|(&q, &k)| f64::from(q) * f64::from(k))
                        .sum();
                    dot * f64::from(scale)
                };
                let scores: Vec<f64> = (first..=position).map(score).collect();
                let max = scores.iter().copied().fold(f64::MIN, f64::max);
                let total: f64 = scores.iter().map(|s| (s - max).exp()).sum();
                for (p, s) in (first..=position).zip(&scores) {
                    let weight = (s - max).exp() / total;
                    for d in 0..dim {
                        out[row * width + head * dim + d] += weight * f64::from(v[at(p) + d]);
                    }
                }
            }
        }
    }
    out
}
