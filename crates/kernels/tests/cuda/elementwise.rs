use crate::reference::assert_close;
use crate::{device, indices, random, upload, widen};
use float8::F8E4M3;
use half::bf16;
use kernels::cuda::{
    Buffer, CudaLinear, KvCache, Norm, RopeAndCache, RopeTable, add_rms_norm, cast, copy_blocks,
    embed, gather_rows, rms_norm, rope_and_cache, swiglu,
};
use kernels::{Linear, Rope, RopeLayout, WeightFormat, encode_rows};

fn norm_twin(x: &[f32], weight: &[f32], eps: f64) -> Vec<f64> {
    let rows = x.chunks(weight.len());
    rows.flat_map(|row| {
        let mean = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / row.len() as f64;
        let scale = 1.0 / (mean + eps).sqrt();
        row.iter()
            .zip(weight)
            .map(move |(&x, &w)| f64::from(x) * scale * f64::from(w))
    })
    .collect()
}

/// f32 sums of a row in 256 parts: 1e-6; results rounded to bf16: half of its 2^-8.
#[test]
fn norms_match_their_twin() {
    let device = device();
    for (rows, hidden) in [(1, 48), (3, 896), (2, 257)] {
        let (x, weight) = (random(1, rows * hidden), random(2, hidden));
        let (input, weights) = (upload(&device, &x), upload(&device, &weight));
        let norm = Norm {
            weight: weights.view(),
            eps: 1e-5,
        };
        let expected = norm_twin(&x, &weight, 1e-5);
        let out = upload(&device, &vec![f32::NAN; rows * hidden]);
        rms_norm(
            &device,
            input.matrix(hidden),
            norm,
            rows,
            out.matrix(hidden),
        )
        .unwrap();
        assert_close(&out.read().unwrap(), &expected, 1e-6);
        let out = Buffer::<bf16>::zeros(&device, rows * hidden).unwrap();
        rms_norm(
            &device,
            input.matrix(hidden),
            norm,
            rows,
            out.matrix(hidden),
        )
        .unwrap();
        assert_close(&widen(&out.read().unwrap()), &expected, 1.0 / 256.0);
        // In the middle of a wider buffer, with the sum kept.
        let residual = random(3, rows * hidden);
        let stream = upload(&device, &residual);
        let wide = upload(&device, &vec![7.0; rows * (hidden + 5)]);
        let part = wide.matrix(hidden + 5).columns(2..2 + hidden);
        add_rms_norm(
            &device,
            input.matrix(hidden),
            stream.matrix(hidden),
            norm,
            rows,
            part,
        )
        .unwrap();
        let sum: Vec<f32> = x.iter().zip(&residual).map(|(a, b)| a + b).collect();
        assert_eq!(stream.read().unwrap(), sum);
        let wide = wide.read().unwrap();
        let expected = norm_twin(&sum, &weight, 1e-5);
        for (got, expected) in wide.chunks(hidden + 5).zip(expected.chunks(hidden)) {
            assert_close(&got[2..2 + hidden], expected, 1e-6);
            assert!(
                [0, 1, hidden + 2, hidden + 4]
                    .iter()
                    .all(|&i| got[i] == 7.0)
            );
        }
    }
}

/// One exponential and a division in f32: 1e-6.
#[test]
fn the_gate_matches_its_twin() {
    let device = device();
    let (rows, columns) = (3, 300);
    let mut both = random(4, rows * 2 * columns);
    both[0] = 90.0;
    both[1] = -120.0;
    let input = upload(&device, &both);
    let (gate, up) = (
        input.matrix(2 * columns).columns(0..columns),
        input.matrix(2 * columns).columns(columns..2 * columns),
    );
    let out = upload(&device, &vec![f32::NAN; rows * columns]);
    swiglu(&device, gate, up, rows, out.matrix(columns)).unwrap();
    let expected: Vec<f64> = both
        .chunks(2 * columns)
        .flat_map(|row| {
            let (gate, up) = row.split_at(columns);
            let silu = |x: f32| f64::from(x) / (1.0 + (-f64::from(x)).exp());
            gate.iter()
                .zip(up)
                .map(move |(&g, &u)| silu(g) * f64::from(u))
                .collect::<Vec<_>>()
        })
        .collect();
    assert_close(&out.read().unwrap(), &expected, 1e-6);
}

#[test]
fn casts_round_as_the_host_does_and_rows_are_gathered() {
    let device = device();
    let (rows, columns) = (4, 70);
    let mut x = random(5, rows * columns);
    x[..8].copy_from_slice(&[
        0.0,
        -0.0,
        1e-40,
        f32::INFINITY,
        65504.0,
        1e-8,
        1.000_976_6,
        3.4e38,
    ]);
    let input = upload(&device, &x);
    let low = Buffer::<bf16>::zeros(&device, rows * columns).unwrap();
    cast(&device, input.matrix(columns), rows, low.matrix(columns)).unwrap();
    let expected: Vec<bf16> = x.iter().map(|&x| bf16::from_f32(x)).collect();
    assert_eq!(low.read().unwrap(), expected);
    let half = Buffer::<half::f16>::zeros(&device, rows * columns).unwrap();
    cast(&device, input.matrix(columns), rows, half.matrix(columns)).unwrap();
    let expected: Vec<half::f16> = x.iter().map(|&x| half::f16::from_f32(x)).collect();
    assert_eq!(half.read().unwrap(), expected);
    let back = upload(&device, &vec![0.0; rows * columns]);
    cast(&device, half.matrix(columns), rows, back.matrix(columns)).unwrap();
    let widened: Vec<f32> = expected.iter().map(|x| x.to_f32()).collect();
    assert_eq!(back.read().unwrap(), widened);
    let index = indices(&device, &[3, 0, 3]);
    let out = upload(&device, &vec![f32::NAN; 3 * columns]);
    gather_rows(
        &device,
        (input.matrix(columns), rows),
        index.view(),
        3,
        out.matrix(columns),
    )
    .unwrap();
    let out = out.read().unwrap();
    for (row, from) in [3, 0, 3].into_iter().enumerate() {
        assert_eq!(
            out[row * columns..][..columns],
            x[from * columns..][..columns]
        );
    }
}

/// Every code, every value between two codes, and what is too large or no number, as the
/// `float8` crate has them.
#[test]
fn eight_bits_round_as_the_host_does() {
    let device = device();
    let codes: Vec<F8E4M3> = (0..=255).map(F8E4M3::from_bits).collect();
    let input = Buffer::from_slice(&device, &codes).unwrap();
    let wide = upload(&device, &vec![0.0; 256]);
    cast(&device, input.matrix(256), 1, wide.matrix(256)).unwrap();
    let wide = wide.read().unwrap();
    for (code, &found) in codes.iter().zip(&wide) {
        let expected = code.to_f32();
        let same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
        assert!(same, "{:#x}: {found}, expected {expected}", code.to_bits());
    }
    let mut x: Vec<f32> = vec![
        449.0,
        463.9,
        464.0,
        1e9,
        f32::INFINITY,
        1e-3,
        1e-12,
        f32::NAN,
    ];
    for pair in wide[..127].windows(2) {
        let middle = (pair[0] + pair[1]) / 2.0;
        x.extend([pair[0], middle, middle.next_down(), middle.next_up()]);
    }
    x.extend(x.clone().iter().map(|x| -x));
    let out = Buffer::<F8E4M3>::zeros(&device, x.len()).unwrap();
    let input = upload(&device, &x);
    cast(&device, input.matrix(x.len()), 1, out.matrix(x.len())).unwrap();
    for (x, found) in x.iter().zip(out.read().unwrap()) {
        let expected = F8E4M3::from_f32(*x);
        let same = found.to_bits() == expected.to_bits() || x.is_nan() && found.to_f32().is_nan();
        assert!(
            same,
            "{x:e}: {}, expected {}",
            found.to_f32(),
            expected.to_f32()
        );
    }
}

/// The same values as the CPU's table lookup, from every format (Q4_1 by way of bf16).
#[test]
fn embeddings_are_the_rows_of_the_table() {
    let device = device();
    let (vocabulary, hidden) = (11, 512);
    let values = random(6, vocabulary * hidden);
    let tokens = [10, 0, 3, 3];
    for format in [
        WeightFormat::F32,
        WeightFormat::F16,
        WeightFormat::BF16,
        WeightFormat::Q8_0,
        WeightFormat::Q4K,
        WeightFormat::Q6K,
        WeightFormat::Q4_1,
    ] {
        let bytes = encode_rows(&values, format, hidden).unwrap();
        let table =
            CudaLinear::from_bytes(&device, &bytes, format, (vocabulary, hidden), None).unwrap();
        let out = upload(&device, &vec![f32::NAN; 4 * hidden]);
        let ids = indices(&device, &tokens);
        embed(&device, &table, ids.view(), 4, out.matrix(hidden)).unwrap();
        let host = Linear::from_bytes(&bytes, format, vocabulary, hidden, None).unwrap();
        let expected = host.rows(&tokens).unwrap().flatten_all().unwrap();
        let expected: Vec<f64> = expected
            .to_vec1::<f32>()
            .unwrap()
            .into_iter()
            .map(f64::from)
            .collect();
        let tolerance = if format == WeightFormat::Q4_1 {
            1.0 / 256.0
        } else {
            1e-6
        };
        assert_close(&out.read().unwrap(), &expected, tolerance);
    }
}

/// What [`rope_and_cache`] should do to one head.
fn turned(
    head: &[f32],
    norm: Option<(&[f32], f64)>,
    angles: (&[f32], &[f32]),
    layout: RopeLayout,
) -> Vec<f64> {
    let mut x: Vec<f64> = match norm {
        Some((weight, eps)) => norm_twin(head, weight, eps),
        None => head.iter().map(|&x| f64::from(x)).collect(),
    };
    let half = head.len() / 2;
    for i in 0..half {
        let (a, b) = match layout {
            RopeLayout::Halves => (i, i + half),
            RopeLayout::Interleaved => (2 * i, 2 * i + 1),
        };
        let (c, s) = (f64::from(angles.0[i]), f64::from(angles.1[i]));
        (x[a], x[b]) = (x[a] * c - x[b] * s, x[b] * c + x[a] * s);
    }
    x
}

const HEADS: usize = 6;
const KV_HEADS: usize = 2;
const DIM: usize = 32;
const WIDTH: usize = (HEADS + 2 * KV_HEADS) * DIM;
const BLOCK_LEN: usize = 4;
const CACHE: usize = 6 * KV_HEADS * BLOCK_LEN * DIM;
const POSITIONS: [u32; 5] = [0, 1, 17, 63, 5];
/// The last row pads the batch.
const SLOTS: [u32; 5] = [3, 20, 9, 0, u32::MAX];

/// The rotated q, the cache of k and that of v.
fn rotation_twin(x: &[f32], rope: &Rope, norms: Option<(&[f32], &[f32])>) -> [Vec<f64>; 3] {
    let values = |t: &candle_core::Tensor| t.to_vec2::<f32>().unwrap();
    let (cosines, sines) = (values(rope.cos()), values(rope.sin()));
    let [mut q, mut k, mut v] = [Vec::new(), vec![0.0; CACHE], vec![0.0; CACHE]];
    for (row, x) in x.chunks(WIDTH).enumerate() {
        let position = POSITIONS[row] as usize;
        let angles = (&cosines[position][..], &sines[position][..]);
        let heads: Vec<&[f32]> = x.chunks(DIM).collect();
        for head in &heads[..HEADS] {
            let norm = norms.map(|(q, _)| (q, 1e-6));
            q.extend(turned(head, norm, angles, rope.layout()));
        }
        let slot = SLOTS[row] as usize;
        for head in 0..if slot < CACHE { KV_HEADS } else { 0 } {
            let at = (slot / BLOCK_LEN * KV_HEADS + head) * BLOCK_LEN + slot % BLOCK_LEN;
            let at = at * DIM..(at + 1) * DIM;
            let norm = norms.map(|(_, k)| (k, 1e-5));
            k[at.clone()].copy_from_slice(&turned(
                heads[HEADS + head],
                norm,
                angles,
                rope.layout(),
            ));
            for (v, &x) in v[at].iter_mut().zip(heads[HEADS + KV_HEADS + head]) {
                *v = f64::from(x);
            }
        }
    }
    [q, k, v]
}

/// f32 arithmetic: 2e-6.
#[test]
fn rotation_norms_and_the_cache_match_their_twin() {
    let device = device();
    let rows = POSITIONS.len();
    let x = random(7, rows * WIDTH);
    let (q_weight, k_weight) = (random(8, DIM), random(9, DIM));
    let frequencies: Vec<f64> = (0..DIM / 2).map(|i| 0.5f64.powi(i as i32)).collect();
    for (layout, normed) in [
        (RopeLayout::Halves, true),
        (RopeLayout::Halves, false),
        (RopeLayout::Interleaved, false),
    ] {
        let rope = Rope::new(&frequencies, 64, layout).unwrap();
        let table = RopeTable::new(&device, &rope).unwrap();
        let qkv = upload(&device, &x);
        let cache = || Buffer::<f32>::zeros(&device, CACHE).unwrap();
        let (k, v) = (cache(), cache());
        let (at, to) = (indices(&device, &POSITIONS), indices(&device, &SLOTS));
        let (q_norm, k_norm) = (upload(&device, &q_weight), upload(&device, &k_weight));
        let all = qkv.matrix(WIDTH);
        let arguments = RopeAndCache {
            q: all.columns(0..HEADS * DIM),
            k: all.columns(HEADS * DIM..(HEADS + KV_HEADS) * DIM),
            v: all.columns((HEADS + KV_HEADS) * DIM..WIDTH),
            table: &table,
            positions: at.view(),
            slots: to.view(),
            q_norm: normed.then_some(Norm {
                weight: q_norm.view(),
                eps: 1e-6,
            }),
            k_norm: normed.then_some(Norm {
                weight: k_norm.view(),
                eps: 1e-5,
            }),
            kv: KvCache {
                k: k.view(),
                v: v.view(),
                kv_heads: KV_HEADS,
                block_len: BLOCK_LEN,
                head_dim: DIM,
            },
        };
        rope_and_cache(&device, &arguments, rows).unwrap();
        let norms = normed.then_some((&q_weight[..], &k_weight[..]));
        let [q, k_cache, v_cache] = rotation_twin(&x, &rope, norms);
        let turned = qkv.read().unwrap();
        let turned = turned.chunks(WIDTH).flat_map(|row| &row[..HEADS * DIM]);
        assert_close(&turned.copied().collect::<Vec<_>>(), &q, 2e-6);
        assert_close(&k.read().unwrap(), &k_cache, 2e-6);
        assert_close(&v.read().unwrap(), &v_cache, 0.0);
    }
}

#[test]
fn block_copies_happen_in_their_order() {
    let device = device();
    let (kv_heads, block_len, dim, blocks) = (2, 4, 16, 5);
    let size = kv_heads * block_len * dim;
    let mut host: Vec<bf16> = random(10, blocks * size)
        .into_iter()
        .map(bf16::from_f32)
        .collect();
    let (k, v) = (
        Buffer::from_slice(&device, &host).unwrap(),
        Buffer::from_slice(&device, &host).unwrap(),
    );
    let kv = KvCache {
        k: k.view(),
        v: v.view(),
        kv_heads,
        block_len,
        head_dim: dim,
    };
    let pairs = [(0, 3), (3, 1), (4, 0), (9, 2)];
    let flat: Vec<u32> = pairs.iter().flat_map(|&(a, b)| [a, b]).collect();
    let list = indices(&device, &flat);
    copy_blocks(&device, kv, list.view(), pairs.len()).unwrap();
    for (from, to) in [(0, 3), (3, 1), (4, 0)] {
        host.copy_within(from * size..(from + 1) * size, to * size);
    }
    assert_eq!(k.read().unwrap(), host);
    assert_eq!(v.read().unwrap(), host);
}
