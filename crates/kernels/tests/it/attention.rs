use crate::reference::{Random, assert_close, bits, reference_attention, values};
use candle_core::{DType, Tensor};
use kernels::{KvLayer, SequenceSpan, copy_blocks, paged_attention};
use proptest::prelude::*;

/// A pool with scattered block tables for sequences of the given contexts.
struct Pool {
    kv: KvLayer,
    tables: Vec<Vec<u32>>,
    heads: usize,
    dim: usize,
}

#[derive(Debug, Clone)]
struct Case {
    kv_heads: usize,
    group: usize,
    dim: usize,
    block_len: usize,
    dtype: DType,
    window: Option<usize>,
    /// (context, rows of this step) of each sequence
    sequences: Vec<(usize, usize)>,
    seed: u64,
}

impl Case {
    fn pool(&self) -> (Pool, Random) {
        let mut random = Random::new(self.seed);
        let needed: Vec<usize> = self
            .sequences
            .iter()
            .map(|(context, _)| context.div_ceil(self.block_len))
            .collect();
        let blocks = needed.iter().sum::<usize>() + 3;
        let shape = [blocks, self.kv_heads, self.block_len, self.dim];
        let mut cache = || random.tensor(&shape).to_dtype(self.dtype).unwrap();
        let kv = KvLayer {
            k: cache(),
            v: cache(),
        };
        let mut free = random.permutation(blocks).into_iter();
        let tables = needed
            .iter()
            .map(|&n| free.by_ref().take(n).collect())
            .collect();
        (
            Pool {
                kv,
                tables,
                heads: self.kv_heads * self.group,
                dim: self.dim,
            },
            random,
        )
    }

    fn spans(&self, pool: &Pool) -> Vec<SequenceSpan> {
        let mut start = 0;
        let mut spans = Vec::new();
        for ((context_len, rows), blocks) in self.sequences.iter().copied().zip(&pool.tables) {
            let query = start..start + rows;
            start += rows;
            spans.push(SequenceSpan {
                query,
                context_len,
                blocks: blocks.clone(),
            });
        }
        spans
    }

    fn tokens(&self) -> usize {
        self.sequences.iter().map(|(_, rows)| rows).sum()
    }
}

fn scale(dim: usize) -> f32 {
    1.0 / (dim as f32).sqrt()
}

/// Against the f64 twin, and bit for bit against each row computed alone, the spans in
/// reverse, and the prompt in two chunks.
fn check(case: &Case) {
    let (pool, mut random) = case.pool();
    let q = random.tensor(&[case.tokens(), pool.heads * pool.dim]);
    let spans = case.spans(&pool);
    let attend = |q: &Tensor, spans: &[SequenceSpan]| {
        paged_attention(q, &pool.kv, spans, scale(pool.dim), case.window).unwrap()
    };
    let together = attend(&q, &spans);
    let expected = reference_attention(&q, &pool.kv, &spans, scale(pool.dim), case.window);
    assert_close(&values(&together), &expected, 2e-6);

    let reversed: Vec<_> = spans.iter().rev().cloned().collect();
    assert_eq!(
        bits(&together),
        bits(&attend(&q, &reversed)),
        "order of spans shows"
    );

    let mut chunked = Vec::new();
    for span in &spans {
        let cut = random.below(span.query.len() + 1);
        let middle = span.query.start + cut;
        chunked.push(SequenceSpan {
            query: span.query.start..middle,
            context_len: span.context_len - (span.query.len() - cut),
            blocks: span.blocks.clone(),
        });
        chunked.push(SequenceSpan {
            query: middle..span.query.end,
            ..span.clone()
        });
    }
    assert_eq!(
        bits(&together),
        bits(&attend(&q, &chunked)),
        "chunks of the prompt show"
    );

    for span in &spans {
        for (i, row) in span.query.clone().enumerate() {
            let alone = SequenceSpan {
                query: 0..1,
                context_len: span.context_len - span.query.len() + i + 1,
                blocks: span.blocks.clone(),
            };
            let alone = attend(
                &q.narrow(0, row, 1).unwrap().contiguous().unwrap(),
                &[alone],
            );
            let batched = together.narrow(0, row, 1).unwrap();
            assert_eq!(bits(&batched), bits(&alone), "row {row} differs alone");
        }
    }
}

fn cases() -> impl Strategy<Value = Case> {
    let sequence = (1usize..150)
        .prop_flat_map(|context| (Just(context), prop_oneof![Just(1usize), 1..=context]));
    let heads = (1usize..4, 1usize..=8);
    let dim = prop::sample::select(vec![8usize, 20, 32, 64, 80, 96, 128]);
    let block_len = prop::sample::select(vec![1usize, 7, 8, 16, 32, 48]);
    let dtype = prop::sample::select(vec![DType::F32, DType::F16]);
    let window = prop_oneof![Just(None), (1usize..80).prop_map(Some)];
    let sequences = prop::collection::vec(sequence, 1..5);
    (
        heads,
        dim,
        block_len,
        dtype,
        window,
        sequences,
        any::<u64>(),
    )
        .prop_map(
            |((kv_heads, group), dim, block_len, dtype, window, sequences, seed)| Case {
                kv_heads,
                group,
                dim,
                block_len,
                dtype,
                window,
                sequences,
                seed,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn attention_is_right_and_the_same_in_every_batch(case in cases()) {
        check(&case);
    }
}

/// What lies in the cache behind a row, or before its window, never reaches it.
#[test]
fn unseen_positions_may_hold_anything() {
    for window in [None, Some(5)] {
        let case = Case {
            kv_heads: 2,
            group: 3,
            dim: 32,
            block_len: 8,
            dtype: DType::F32,
            window,
            sequences: vec![(40, 20)],
            seed: 1,
        };
        let (pool, mut random) = case.pool();
        let q = random.tensor(&[20, pool.heads * pool.dim]);
        let clean = paged_attention(&q, &pool.kv, &case.spans(&pool), 0.2, window).unwrap();
        // Position 30, seen by rows 10.. (and no further than row 14 under the window), is NaN.
        let (block, offset) = (pool.tables[0][3] as usize, 6);
        let poison = |cache: &Tensor| {
            let dims = cache.dims4().unwrap();
            let mut data = values(cache);
            for head in 0..dims.1 {
                let start = ((block * dims.1 + head) * dims.2 + offset) * dims.3;
                data[start..start + dims.3].fill(f32::NAN);
            }
            Tensor::from_vec(data, dims, cache.device()).unwrap()
        };
        let kv = KvLayer {
            k: poison(&pool.kv.k),
            v: poison(&pool.kv.v),
        };
        let dirty = paged_attention(&q, &kv, &case.spans(&pool), 0.2, window).unwrap();
        let seen = if window.is_some() { 10..15 } else { 10..20 };
        for row in 0..20 {
            let (clean, dirty) = (clean.get(row).unwrap(), dirty.get(row).unwrap());
            if seen.contains(&row) {
                assert!(
                    values(&dirty).iter().all(|x| x.is_nan()),
                    "row {row} hides a NaN"
                );
            } else {
                assert_eq!(bits(&clean), bits(&dirty), "row {row} saw what it may not");
            }
        }
    }
}

#[test]
fn large_scores_do_not_overflow() {
    let mut random = Random::new(3);
    let case = Case {
        kv_heads: 1,
        group: 1,
        dim: 16,
        block_len: 16,
        dtype: DType::F32,
        window: None,
        sequences: vec![(64, 64)],
        seed: 5,
    };
    let (pool, _) = case.pool();
    let q = (random.tensor(&[64, 16]) * 1e4).unwrap();
    let spans = case.spans(&pool);
    let out = paged_attention(&q, &pool.kv, &spans, 1.0, None).unwrap();
    // Scores of 1e5 carry an f32 error of 1e-2: the weights follow.
    let expected = reference_attention(&q, &pool.kv, &spans, 1.0, None);
    assert_close(&values(&out), &expected, 3e-2);
}

#[test]
fn rows_outside_of_spans_are_zero() {
    let case = Case {
        kv_heads: 1,
        group: 2,
        dim: 16,
        block_len: 16,
        dtype: DType::F16,
        window: None,
        sequences: vec![(20, 1)],
        seed: 5,
    };
    let (pool, mut random) = case.pool();
    let q = random.tensor(&[3, 32]);
    let spans = [SequenceSpan {
        query: 1..2,
        ..case.spans(&pool)[0].clone()
    }];
    let out = values(&paged_attention(&q, &pool.kv, &spans, 1.0, None).unwrap());
    assert!(out[..32].iter().chain(&out[64..]).all(|&x| x == 0.0));
    assert!(out[32..64].iter().any(|&x| x != 0.0));
}

#[test]
fn bad_spans_are_refused() {
    let case = Case {
        kv_heads: 2,
        group: 1,
        dim: 16,
        block_len: 8,
        dtype: DType::F32,
        window: None,
        sequences: vec![(10, 2)],
        seed: 0,
    };
    let (pool, mut random) = case.pool();
    let q = random.tensor(&[4, 32]);
    let span = |query, context_len, blocks: &[u32]| SequenceSpan {
        query,
        context_len,
        blocks: blocks.to_vec(),
    };
    let refused = |q: &Tensor, spans: &[SequenceSpan], window, part: &str| {
        let error = paged_attention(q, &pool.kv, spans, 1.0, window)
            .unwrap_err()
            .to_string();
        assert!(error.contains(part), "{error}");
    };
    refused(&q, &[span(0..5, 10, &[0, 1])], None, "leaves 4 rows");
    refused(
        &q,
        &[span(0..2, 10, &[0, 1]), span(1..3, 9, &[2, 3])],
        None,
        "overlaps",
    );
    refused(&q, &[span(0..2, 1, &[0, 1])], None, "context of 1");
    refused(&q, &[span(0..2, 17, &[0, 1])], None, "blocks for 16");
    refused(
        &q,
        &[span(0..2, 10, &[0, 99])],
        None,
        "block 99 is out of range",
    );
    refused(&q, &[span(0..2, 10, &[0, 1])], Some(0), "window of 0");
    refused(
        &random.tensor(&[4, 33]),
        &[],
        None,
        "expected (T, groups * 2 * 16)",
    );
    refused(
        &random.tensor(&[32, 32]).t().unwrap(),
        &[],
        None,
        "not contiguous",
    );
    let f16 = q.to_dtype(DType::F16).unwrap();
    refused(&f16, &[], None, "holds F16");
    let mixed = KvLayer {
        k: pool.kv.k.to_dtype(DType::F16).unwrap(),
        v: pool.kv.v.clone(),
    };
    assert!(paged_attention(&q, &mixed, &[], 1.0, None).is_err());
}

#[test]
fn copied_blocks_hold_the_same() {
    for dtype in [DType::F32, DType::F16] {
        let mut random = Random::new(9);
        let mut cache = || random.tensor(&[5, 2, 4, 8]).to_dtype(dtype).unwrap();
        let kv = KvLayer {
            k: cache(),
            v: cache(),
        };
        let before = [&kv.k, &kv.v].map(values);
        copy_blocks(&kv, &[(0, 3), (3, 4)]).unwrap();
        for (before, after) in before.iter().zip([&kv.k, &kv.v]) {
            let after = values(after);
            assert_eq!(after[..3 * 64], before[..3 * 64]);
            assert_eq!(after[3 * 64..4 * 64], before[..64]);
            assert_eq!(after[4 * 64..], before[..64]);
        }
        let error = copy_blocks(&kv, &[(0, 5)]).unwrap_err().to_string();
        assert!(
            error.contains("block 5 is out of range, there are 5"),
            "{error}"
        );
    }
}
