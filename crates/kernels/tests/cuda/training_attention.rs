//! Attention over segments on a device against that of the CPU, which other tests compare with
//! differences.

use crate::{device, indices, random, upload};
use candle_core::{Device as Host, Tensor};
use half::bf16;
use kernels::cuda::Device;
use kernels::cuda::training::{
    AttentionBackward, SegmentAttention, segment_attention, segment_attention_backward,
};
use kernels::training::{self, AttentionShape};

/// Inputs on the host, (T, width) each.
struct Case {
    shape: AttentionShape,
    segments: Vec<usize>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    gradient: Vec<f32>,
}

/// What attention and its backward pass give: (T, width) each, and (Hq, T).
struct Results {
    mixed: Vec<f32>,
    lse: Vec<f32>,
    dq: Vec<f32>,
    dk: Vec<f32>,
    dv: Vec<f32>,
}

/// How inputs are made.
#[derive(Clone, Copy, PartialEq)]
enum Inputs {
    /// bf16 holds them exactly.
    Rounded,
    Any,
}

impl Case {
    /// Query heads, KV heads, head size, window.
    fn new(
        (query_heads, kv_heads, head_dim, window): (usize, usize, usize, Option<usize>),
        segments: &[usize],
        inputs: Inputs,
    ) -> Self {
        let tokens: usize = segments.iter().sum();
        let values = |seed, width: usize| -> Vec<f32> {
            let values = random(seed, tokens * width).into_iter();
            match inputs {
                Inputs::Rounded => values.map(|x| bf16::from_f32(x).to_f32()).collect(),
                Inputs::Any => values.collect(),
            }
        };
        let (wide, narrow) = (query_heads * head_dim, kv_heads * head_dim);
        Self {
            shape: AttentionShape {
                query_heads,
                kv_heads,
                head_dim,
                window,
            },
            segments: segments.to_vec(),
            q: values(1, wide),
            k: values(2, narrow),
            v: values(3, narrow),
            gradient: values(4, wide),
        }
    }

    fn tokens(&self) -> usize {
        self.segments.iter().sum()
    }

    fn widths(&self) -> (usize, usize) {
        let dim = self.shape.head_dim;
        (self.shape.query_heads * dim, self.shape.kv_heads * dim)
    }

    /// The segment alone, with the rows that it has in the pack.
    fn alone(&self, segment: usize) -> Self {
        let start: usize = self.segments[..segment].iter().sum();
        let rows = start..start + self.segments[segment];
        let (wide, narrow) = self.widths();
        let cut = |x: &[f32], width| x[rows.start * width..rows.end * width].to_vec();
        Self {
            shape: self.shape,
            segments: vec![self.segments[segment]],
            q: cut(&self.q, wide),
            k: cut(&self.k, narrow),
            v: cut(&self.v, narrow),
            gradient: cut(&self.gradient, wide),
        }
    }

    fn by_cpu(&self) -> Results {
        let (wide, narrow) = self.widths();
        let of =
            |x: &[f32], width| Tensor::from_slice(x, (self.tokens(), width), &Host::Cpu).unwrap();
        let (q, k, v) = (of(&self.q, wide), of(&self.k, narrow), of(&self.v, narrow));
        let qkv = (&q, &k, &v);
        let (mixed, lse) = training::segment_attention(qkv, &self.segments, &self.shape).unwrap();
        let gradient = of(&self.gradient, wide);
        let (dq, dk, dv) = training::segment_attention_backward(
            qkv,
            (&mixed, &lse),
            &gradient,
            &self.segments,
            &self.shape,
        )
        .unwrap();
        let [mixed, lse, dq, dk, dv] =
            [mixed, lse, dq, dk, dv].map(|x| x.flatten_all().unwrap().to_vec1().unwrap());
        Results {
            mixed,
            lse,
            dq,
            dk,
            dv,
        }
    }

    fn starts(&self) -> Vec<u32> {
        let mut starts = vec![0];
        for len in &self.segments {
            starts.push(starts[starts.len() - 1] + *len as u32);
        }
        starts
    }

    /// q, k and v lie side by side, as after one product; so do their gradients.
    fn by_device(&self, device: &Device) -> Results {
        let (tokens, (wide, narrow)) = (self.tokens(), self.widths());
        let row = wide + 2 * narrow;
        let mut joint = Vec::new();
        for t in 0..tokens {
            joint.extend_from_slice(&self.q[t * wide..(t + 1) * wide]);
            joint.extend_from_slice(&self.k[t * narrow..(t + 1) * narrow]);
            joint.extend_from_slice(&self.v[t * narrow..(t + 1) * narrow]);
        }
        let fresh = |len: usize| upload(device, &vec![f32::NAN; len]);
        let (qkv, of_qkv) = (upload(device, &joint), fresh(tokens * row));
        let (mixed, lse) = (fresh(tokens * wide), fresh(self.shape.query_heads * tokens));
        let (gradient, scratch) = (upload(device, &self.gradient), fresh(lse.len()));
        let starts = indices(device, &self.starts());
        let all = qkv.matrix(row);
        let attention = SegmentAttention {
            q: all.columns(0..wide),
            k: all.columns(wide..wide + narrow),
            v: all.columns(wide + narrow..row),
            starts: starts.view(),
            segments: self.segments.len(),
            longest: self.segments.iter().copied().max().unwrap(),
            shape: self.shape,
        };
        segment_attention(device, &attention, mixed.matrix(wide), lse.view(), tokens).unwrap();
        let out = of_qkv.matrix(row);
        let backward = AttentionBackward {
            mixed: mixed.matrix(wide),
            lse: lse.view(),
            gradient: gradient.matrix(wide),
            dq: out.columns(0..wide),
            dk: out.columns(wide..wide + narrow),
            dv: out.columns(wide + narrow..row),
            scratch: scratch.view(),
        };
        segment_attention_backward(device, &attention, &backward, tokens).unwrap();
        let joint = of_qkv.read().unwrap();
        let part = |columns: std::ops::Range<usize>| -> Vec<f32> {
            let rows = joint.chunks(row);
            rows.flat_map(|row| row[columns.clone()].to_vec()).collect()
        };
        Results {
            mixed: mixed.read().unwrap(),
            lse: lse.read().unwrap(),
            dq: part(0..wide),
            dk: part(wide..wide + narrow),
            dv: part(wide + narrow..row),
        }
    }
}

/// The largest distance of a row of a head from what is expected, relative to its length (and to
/// the mean length: a gradient may be all but zero).
fn distance(got: &[f32], expected: &[f32], dim: usize) -> f64 {
    let length = |row: &[f32]| {
        row.iter()
            .map(|&x| f64::from(x).powi(2))
            .sum::<f64>()
            .sqrt()
    };
    let rows = expected.len() / dim;
    let mean = expected.chunks(dim).map(length).sum::<f64>() / rows as f64;
    let pairs = got.chunks(dim).zip(expected.chunks(dim));
    let distances = pairs.map(|(got, expected)| {
        let apart: Vec<f32> = got.iter().zip(expected).map(|(a, b)| a - b).collect();
        let apart = length(&apart);
        assert!(apart.is_finite(), "not a number");
        apart / (length(expected) + 0.25 * mean + 1e-3)
    });
    distances.fold(0.0, f64::max)
}

#[track_caller]
fn check(case: &Case, tolerance: f64, lse_tolerance: f64) {
    let dim = case.shape.head_dim;
    let (got, expected) = (case.by_device(&device()), case.by_cpu());
    let name = format!("{:?} {:?}", case.shape, case.segments);
    for (got, expected) in got.lse.iter().zip(&expected.lse) {
        let apart = (got - expected).abs();
        assert!(
            f64::from(apart) < lse_tolerance,
            "{name}: lse {got} {expected}"
        );
    }
    for (what, got, expected) in [
        ("mixed", &got.mixed, &expected.mixed),
        ("dq", &got.dq, &expected.dq),
        ("dk", &got.dk, &expected.dk),
        ("dv", &got.dv, &expected.dv),
    ] {
        let apart = distance(got, expected, dim);
        assert!(apart < tolerance, "{name}: {what} is {apart:e} away");
    }
}

const SHAPES: [(usize, usize, usize, Option<usize>); 7] = [
    (2, 2, 64, None),
    (4, 1, 32, None),
    (4, 1, 128, None),
    (2, 1, 96, Some(7)),
    (4, 2, 16, Some(64)),
    (1, 1, 32, Some(100)),
    (2, 2, 16, Some(1)),
];

/// Where bf16 holds the operands, what is left is the rounding of weights and of gradients of
/// scores, 2^-9 each: 5e-3 of a row's length; scores and their sums are f32.
#[test]
fn segments_match_the_cpu() {
    for shape in SHAPES {
        check(
            &Case::new(shape, &[1, 63, 64, 65], Inputs::Rounded),
            5e-3,
            1e-5,
        );
    }
}

#[test]
fn longer_segments_match_the_cpu() {
    for shape in [(2, 1, 64, None), (1, 1, 128, None), (2, 2, 32, Some(90))] {
        check(
            &Case::new(shape, &[200, 2, 130], Inputs::Rounded),
            5e-3,
            1e-5,
        );
    }
}

/// Every operand is rounded to bf16 first, and gradients of scores are differences: 2.5e-2 of a
/// row's length at worst.
#[test]
fn any_inputs_match_the_cpu() {
    for shape in [(4, 2, 64, None), (2, 1, 128, Some(33)), (2, 2, 16, None)] {
        check(&Case::new(shape, &[70, 1, 129], Inputs::Any), 2.5e-2, 2e-2);
    }
}

/// Scores of up to hundreds: weights of one and of nothing, sums that are scaled again and again,
/// gradients of scores that all but cancel: 1e-2.
#[test]
fn large_scores_match_the_cpu() {
    let mut case = Case::new((2, 1, 32, None), &[150, 20], Inputs::Rounded);
    case.q.iter_mut().for_each(|x| *x *= 16.0);
    for (row, k) in case.k.chunks_mut(32).enumerate() {
        // Later keys weigh more.
        k.iter_mut()
            .for_each(|x| *x = bf16::from_f32(*x * (1.0 + row as f32 / 64.0)).to_f32());
    }
    check(&case, 1e-2, 1e-3);
}

#[test]
fn bits_depend_on_a_segment_alone() {
    let device = device();
    let case = Case::new((4, 2, 32, Some(80)), &[37, 150, 64], Inputs::Any);
    let (wide, narrow) = case.widths();
    let (pack, again) = (case.by_device(&device), case.by_device(&device));
    let mut start = 0;
    for segment in 0..3 {
        let alone = case.alone(segment).by_device(&device);
        let len = case.segments[segment];
        let rows = |x: &[f32], width| x[start * width..(start + len) * width].to_vec();
        assert_eq!(rows(&pack.mixed, wide), alone.mixed);
        assert_eq!(rows(&pack.dq, wide), alone.dq);
        assert_eq!(rows(&pack.dk, narrow), alone.dk);
        assert_eq!(rows(&pack.dv, narrow), alone.dv);
        for (pack, alone) in pack.lse.chunks(251).zip(alone.lse.chunks(len)) {
            assert_eq!(&pack[start..start + len], alone);
        }
        start += len;
    }
    assert_eq!(pack.mixed, again.mixed);
    assert_eq!((pack.dq, pack.dk, pack.dv), (again.dq, again.dk, again.dv));
}

#[test]
fn what_is_not_a_number_is_seen() {
    let mut case = Case::new((1, 1, 16, None), &[40], Inputs::Any);
    case.k[20 * 16] = f32::NAN;
    let mixed = case.by_device(&device()).mixed;
    let bad = |row: usize| mixed[row * 16..(row + 1) * 16].iter().any(|x| x.is_nan());
    assert!((0..20).all(|row| !bad(row)) && (20..40).all(bad));
}

#[test]
fn rows_of_no_segment_stay_and_impossible_operands_are_errors() {
    let device = device();
    let case = Case::new((1, 1, 16, None), &[20], Inputs::Any);
    let (q, mixed) = (upload(&device, &case.q), upload(&device, &[7.0; 20 * 16]));
    let (lse, starts) = (upload(&device, &[7.0; 20]), indices(&device, &[3, 9, 99]));
    let attention = SegmentAttention {
        q: q.matrix(16),
        k: q.matrix(16),
        v: q.matrix(16),
        starts: starts.view(),
        segments: 1,
        longest: 6,
        shape: case.shape,
    };
    let run = |attention: &SegmentAttention<'_>, columns: usize| {
        let to = mixed.matrix(columns).columns(0..16);
        segment_attention(&device, attention, to, lse.view(), 15)
    };
    run(&attention, 16).unwrap();
    let (got, of_rows) = (mixed.read().unwrap(), lse.read().unwrap());
    for row in 0..20 {
        let written = (3..9).contains(&row);
        assert_eq!(
            got[row * 16..(row + 1) * 16].iter().all(|&x| x != 7.0),
            written
        );
        assert_eq!(of_rows[row] != 7.0, written);
    }
    // A segment that ends behind the rows ends with them.
    let two = SegmentAttention {
        segments: 2,
        ..attention
    };
    run(&two, 16).unwrap();
    let of_rows = lse.read().unwrap();
    assert!(of_rows[9..15].iter().all(|&x| x != 7.0) && of_rows[15..].iter().all(|&x| x == 7.0));
    let error = run(&attention, 18).unwrap_err().to_string();
    assert!(
        error.contains("rows of mixed, every 18 elements"),
        "{error}"
    );
    for shape in [
        AttentionShape {
            head_dim: 8,
            ..case.shape
        },
        AttentionShape {
            query_heads: 3,
            kv_heads: 2,
            ..case.shape
        },
        AttentionShape {
            window: Some(0),
            ..case.shape
        },
    ] {
        let error = run(&SegmentAttention { shape, ..attention }, 16).unwrap_err();
        assert!(error.to_string().contains("impossible heads"), "{error}");
    }
}
