use crate::reference::{Random, assert_close, bits, values};
use candle_core::{DType, Tensor};
use kernels::{KvLayer, Rope, RopeLayout, rope, rope_and_cache};

fn frequencies(dim: usize) -> Vec<f64> {
    (0..dim / 2)
        .map(|i| 10_000f64.powf(-2.0 * i as f64 / dim as f64))
        .collect()
}

fn reference_rope(x: &Tensor, dim: usize, positions: &[u32], layout: RopeLayout) -> Vec<f64> {
    let width = x.dims2().unwrap().1;
    let x = values(x);
    let mut out: Vec<f64> = x.iter().copied().map(f64::from).collect();
    for (token, &position) in positions.iter().enumerate() {
        for head in 0..width / dim {
            let start = token * width + head * dim;
            for (i, f) in frequencies(dim).into_iter().enumerate() {
                let (a, b) = match layout {
                    RopeLayout::Halves => (start + i, start + i + dim / 2),
                    RopeLayout::Interleaved => (start + 2 * i, start + 2 * i + 1),
                };
                let (sin, cos) = f64::from(position as f32 * f as f32).sin_cos();
                let (x0, x1) = (f64::from(x[a]), f64::from(x[b]));
                out[a] = x0 * cos - x1 * sin;
                out[b] = x1 * cos + x0 * sin;
            }
        }
    }
    out
}

#[test]
fn heads_turn_and_rows_stand_alone() {
    let mut random = Random::new(1);
    for layout in [RopeLayout::Halves, RopeLayout::Interleaved] {
        for (tokens, heads, dim) in [(1, 1, 2), (5, 3, 8), (40, 8, 64), (3, 2, 80), (64, 32, 128)] {
            let table = Rope::new(&frequencies(dim), 4096, layout).unwrap();
            let x = random.tensor(&[tokens, heads * dim]);
            let positions: Vec<u32> = (0..tokens).map(|_| random.below(4096) as u32).collect();
            let out = rope(&x, &table, &positions).unwrap();
            assert_close(
                &values(&out),
                &reference_rope(&x, dim, &positions, layout),
                4e-7,
            );
            for (row, position) in positions.iter().enumerate() {
                let alone = x.narrow(0, row, 1).unwrap().contiguous().unwrap();
                let alone = rope(&alone, &table, &[*position]).unwrap();
                assert_eq!(bits(&out.narrow(0, row, 1).unwrap()), bits(&alone));
            }
        }
    }
}

#[test]
fn the_cache_gets_rotated_keys_and_plain_values() {
    let mut random = Random::new(2);
    let (tokens, heads, kv_heads, block_len, dim) = (37, 4, 2, 8, 20);
    for dtype in [DType::F32, DType::F16] {
        let table = Rope::new(&frequencies(dim), 64, RopeLayout::Halves).unwrap();
        let zeros = || {
            let shape = (6, kv_heads, block_len, dim);
            Tensor::zeros(shape, dtype, &candle_core::Device::Cpu).unwrap()
        };
        let kv = KvLayer {
            k: zeros(),
            v: zeros(),
        };
        let q = random.tensor(&[tokens, heads * dim]);
        let (k, v) = (
            random.tensor(&[tokens, kv_heads * dim]),
            random.tensor(&[tokens, kv_heads * dim]),
        );
        let positions: Vec<u32> = (0..tokens as u32).rev().collect();
        let mut slots = random.permutation(6 * block_len);
        let unused = slots.split_off(tokens);
        let out = rope_and_cache((&q, &k, &v), &table, &positions, &slots, &kv).unwrap();
        assert_eq!(bits(&out), bits(&rope(&q, &table, &positions).unwrap()));
        let turned = rope(&k, &table, &positions).unwrap();
        for (cache, rows) in [(&kv.k, &turned), (&kv.v, &v)] {
            let rows = rows.to_dtype(dtype).unwrap();
            let at = |slot: u32, head: usize| {
                let (block, offset) = (slot as usize / block_len, slot as usize % block_len);
                cache
                    .get(block)
                    .unwrap()
                    .get(head)
                    .unwrap()
                    .get(offset)
                    .unwrap()
            };
            for head in 0..kv_heads {
                for (token, &slot) in slots.iter().enumerate() {
                    let row = rows.get(token).unwrap().narrow(0, head * dim, dim).unwrap();
                    assert_eq!(bits(&at(slot, head)), bits(&row));
                }
                for &slot in &unused {
                    assert!(values(&at(slot, head)).iter().all(|&x| x == 0.0));
                }
            }
        }
    }
}

#[test]
fn bad_positions_and_slots_are_refused_and_nothing_is_written() {
    let mut random = Random::new(3);
    let table = Rope::new(&frequencies(8), 10, RopeLayout::Halves).unwrap();
    let zeros = || Tensor::zeros((2, 1, 4, 8), DType::F32, &candle_core::Device::Cpu).unwrap();
    let kv = KvLayer {
        k: zeros(),
        v: zeros(),
    };
    let x = random.tensor(&[2, 8]);
    for (positions, slots, part) in [
        (
            &[0, 10][..],
            &[0, 1][..],
            "position 10 is out of range, there are 10",
        ),
        (&[0, 1], &[0, 8], "slot 8 is out of range, there are 8"),
        (&[0, 1], &[3, 3], "slot 3 twice"),
        (&[0], &[0, 1], "1 positions for 2 tokens"),
        (&[0, 1], &[0, 1, 2], "3 slots for 2 tokens"),
    ] {
        let error = rope_and_cache((&x, &x, &x), &table, positions, slots, &kv).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
    assert!(rope(&random.tensor(&[2, 12]), &table, &[0, 1]).is_err());
    assert!(Rope::new(&[], 4, RopeLayout::Halves).is_err());
    assert!(Rope::new(&[f64::NAN], 4, RopeLayout::Halves).is_err());
    assert!(Rope::new(&[1.0], (1 << 24) + 1, RopeLayout::Halves).is_err());
    assert!(
        values(&kv.k)
            .iter()
            .chain(&values(&kv.v))
            .all(|&x| x == 0.0)
    );
}
