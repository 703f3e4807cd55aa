use crate::reference::{Random, assert_close, reference_attention, values};
use crate::{device, indices, upload};
use candle_core::{DType, Device as Host, Tensor};
use float8::F8E4M3;
use half::{bf16, f16};
use kernels::cuda::{
    Attention, AttentionKernel, Buffer, Device, Element, Kind, KvCache, SPLIT, Spans, View,
    paged_attention,
};
use kernels::{KvLayer, SequenceSpan};

/// Spans, a cache and queries, on both sides.
struct Case {
    device: Device,
    heads: usize,
    kv_heads: usize,
    block_len: usize,
    dim: usize,
    spans: Vec<SequenceSpan>,
    rows: usize,
    /// As the device's cache rounds them, in f32.
    kv: KvLayer,
    cache: [Cache; 2],
    q: Tensor,
    window: Option<usize>,
}

enum Cache {
    F32(Buffer<f32>),
    F16(Buffer<f16>),
    BF16(Buffer<bf16>),
    F8(Buffer<F8E4M3>),
}

impl Cache {
    fn new(device: &Device, kind: Kind, values: &mut [f32]) -> Self {
        fn make<T: Element>(
            device: &Device,
            values: &mut [f32],
            to: fn(f32) -> T,
            from: fn(T) -> f32,
        ) -> Buffer<T> {
            let low: Vec<T> = values.iter().map(|&x| to(x)).collect();
            for (value, &low) in values.iter_mut().zip(&low) {
                *value = from(low);
            }
            Buffer::from_slice(device, &low).unwrap()
        }
        match kind {
            Kind::F16 => Self::F16(make(device, values, f16::from_f32, f16::to_f32)),
            Kind::BF16 => Self::BF16(make(device, values, bf16::from_f32, bf16::to_f32)),
            Kind::F8 => Self::F8(make(device, values, F8E4M3::from_f32, |x| x.to_f32())),
            _ => Self::F32(make(device, values, |x| x, |x| x)),
        }
    }

    fn view(&self) -> View<'_> {
        match self {
            Self::F32(buffer) => buffer.view(),
            Self::F16(buffer) => buffer.view(),
            Self::BF16(buffer) => buffer.view(),
            Self::F8(buffer) => buffer.view(),
        }
    }
}

/// Query heads, KV heads, block length, head size, type of the cache.
type Shape = (usize, usize, usize, usize, Kind);

impl Case {
    /// Spans of so many rows and tokens of context, in shuffled blocks.
    fn new(
        (heads, kv_heads, block_len, dim, kind): Shape,
        sizes: &[(usize, usize)],
        window: Option<usize>,
    ) -> Self {
        let device = device();
        let mut random = Random::new((heads * dim + sizes.len()) as u64);
        let needed: usize = sizes
            .iter()
            .map(|(_, context)| context.div_ceil(block_len))
            .sum();
        let mut free = random.permutation(needed + 2);
        let mut spans = Vec::new();
        let mut rows = 0;
        for &(length, context_len) in sizes {
            let blocks = free.split_off(free.len() - context_len.div_ceil(block_len));
            spans.push(SequenceSpan {
                query: rows..rows + length,
                context_len,
                blocks,
            });
            rows += length;
        }
        let shape = [needed + 2, kv_heads, block_len, dim];
        let mut layer = || {
            let mut x = values(&random.tensor(&shape));
            let cache = Cache::new(&device, kind, &mut x);
            (Tensor::from_vec(x, &shape, &Host::Cpu).unwrap(), cache)
        };
        let ((k, k_cache), (v, v_cache)) = (layer(), layer());
        let q = Random::new(99).tensor(&[rows, heads * dim]);
        let cache = [k_cache, v_cache];
        Self {
            device,
            heads,
            kv_heads,
            block_len,
            dim,
            spans,
            rows,
            kv: KvLayer { k, v },
            cache,
            q,
            window,
        }
    }

    fn run(&self, kernel: AttentionKernel) -> Vec<f32> {
        let mut starts = vec![0];
        let (mut contexts, mut block_starts, mut list) = (Vec::new(), vec![0], Vec::new());
        for span in &self.spans {
            starts.push(span.query.end as u32);
            contexts.push(span.context_len as u32);
            list.extend(&span.blocks);
            block_starts.push(list.len() as u32);
        }
        let [starts, contexts, block_starts, list] =
            [starts, contexts, block_starts, list].map(|values| indices(&self.device, &values));
        let width = self.heads * self.dim;
        // q as a part of a wider buffer, as after a joint product.
        let (q, mut wide) = (values(&self.q), vec![f32::NAN; self.rows * (width + 8)]);
        for (wide, q) in wide.chunks_mut(width + 8).zip(q.chunks(width)) {
            wide[4..4 + width].copy_from_slice(q);
        }
        let q = upload(&self.device, &wide);
        let out = upload(&self.device, &vec![f32::NAN; self.rows * width]);
        let scratch = match kernel {
            AttentionKernel::Rows { rows, splits } => {
                Attention::scratch_len(rows, self.heads, self.dim, splits)
            }
            AttentionKernel::Tiles { .. } => 0,
        };
        let scratch = upload(&self.device, &vec![f32::NAN; scratch]);
        let attention = Attention {
            q: q.matrix(width + 8).columns(4..4 + width),
            kv: KvCache {
                k: self.cache[0].view(),
                v: self.cache[1].view(),
                kv_heads: self.kv_heads,
                block_len: self.block_len,
                head_dim: self.dim,
            },
            spans: Spans {
                count: self.spans.len(),
                starts: starts.view(),
                contexts: contexts.view(),
                block_starts: block_starts.view(),
                list: list.view(),
            },
            scale: 1.0 / (self.dim as f32).sqrt(),
            window: self.window,
            out: out.matrix(width),
            scratch: scratch.view(),
        };
        paged_attention(&self.device, &attention, kernel).unwrap();
        out.read().unwrap()
    }

    fn twin(&self) -> Vec<f64> {
        let scale = 1.0 / (self.dim as f32).sqrt();
        reference_attention(&self.q, &self.kv, &self.spans, scale, self.window)
    }

    fn by_rows(&self) -> AttentionKernel {
        let longest = self
            .spans
            .iter()
            .map(|span| span.context_len)
            .max()
            .unwrap();
        AttentionKernel::Rows {
            rows: self.rows,
            splits: longest.div_ceil(SPLIT),
        }
    }

    fn by_tiles(&self) -> AttentionKernel {
        let longest = self
            .spans
            .iter()
            .map(|span| span.query.len())
            .max()
            .unwrap();
        AttentionKernel::Tiles { longest }
    }
}

/// All in f32 on the values of the cache: 1e-6.
#[test]
fn rows_match_their_twin() {
    let shapes = [
        (4, 4, 16, 64, Kind::F32),
        (4, 1, 16, 128, Kind::BF16),
        (8, 1, 8, 32, Kind::F16),
        (7, 1, 5, 16, Kind::F32),
        (6, 2, 32, 96, Kind::BF16),
        (4, 1, 16, 128, Kind::F8),
        (2, 2, 16, 16, Kind::F8),
        (2, 1, 16, 96, Kind::F8),
    ];
    for shape in shapes {
        // One row each, at contexts that end in, at and behind a block and a split; and a prompt.
        let sizes = [(1, 1), (1, 255), (1, 256), (1, 257), (1, 530), (3, 40)];
        let case = Case::new(shape, &sizes, None);
        assert_close(&case.run(case.by_rows()), &case.twin(), 1e-6);
        let case = Case::new(shape, &[(1, 300), (1, 20), (4, 290)], Some(33));
        assert_close(&case.run(case.by_rows()), &case.twin(), 1e-6);
    }
}

/// Scores of q rounded to bf16 (2^-9 of scores of size about 1), weights rounded to bf16: 8e-3.
#[test]
fn tiles_match_their_twin() {
    let shapes = [
        (2, 2, 16, 64, Kind::BF16),
        (4, 1, 16, 128, Kind::BF16),
        (2, 1, 8, 32, Kind::F16),
        (3, 1, 5, 16, Kind::BF16),
        (2, 1, 32, 96, Kind::BF16),
        (2, 1, 16, 64, Kind::F8),
    ];
    for shape in shapes {
        // A whole prompt of several tiles, a part of one behind a context, and single rows.
        let case = Case::new(shape, &[(150, 150), (20, 230), (1, 1), (1, 130)], None);
        assert_close(&case.run(case.by_tiles()), &case.twin(), 8e-3);
        let case = Case::new(shape, &[(90, 200), (1, 20)], Some(50));
        assert_close(&case.run(case.by_tiles()), &case.twin(), 8e-3);
    }
}

/// A row's bits do not depend on other sequences, on the splits of the longest, nor on how a
/// prompt was cut.
#[test]
fn rows_do_not_depend_on_the_batch() {
    let shape = (4, 2, 16, 32, Kind::BF16);
    let case = Case::new(shape, &[(70, 300), (1, 520), (1, 9)], None);
    let width = 4 * 32;
    for (kernel, more) in [(case.by_rows(), true), (case.by_tiles(), false)] {
        let all = case.run(kernel);
        let mut cut = Case::new(shape, &[(70, 300), (1, 520), (1, 9)], None);
        let whole = cut.spans[0].clone();
        cut.spans = vec![
            SequenceSpan {
                query: 0..37,
                context_len: 267,
                blocks: whole.blocks.clone(),
            },
            SequenceSpan {
                query: 37..38,
                context_len: 268,
                blocks: whole.blocks.clone(),
            },
            SequenceSpan {
                query: 38..70,
                ..whole
            },
        ];
        let kernel = match kernel {
            AttentionKernel::Rows { rows, splits } if more => AttentionKernel::Rows {
                rows: rows + 3,
                splits: splits + 2,
            },
            other => other,
        };
        let got = cut.run(kernel);
        assert_eq!(got[..70 * width], all[..70 * width], "{kernel:?}");
        assert!(
            got[70 * width..].iter().all(|x| x.is_nan()),
            "rows of no span were written"
        );
    }
}

#[test]
fn padding_rows_are_zeros_and_too_few_splits_are_loud() {
    let mut case = Case::new((2, 1, 16, 32, Kind::F32), &[(1, 40), (1, 300)], None);
    let kernel = AttentionKernel::Rows { rows: 2, splits: 1 };
    let out = case.run(kernel);
    assert!(out[..64].iter().all(|x| x.is_finite()) && out[64..].iter().all(|x| x.is_nan()));
    case.spans[1].context_len = 0;
    let out = case.run(kernel);
    assert!(out[..64].iter().all(|x| *x != 0.0) && out[64..].iter().all(|x| *x == 0.0));
    let kernel = AttentionKernel::Rows { rows: 2, splits: 2 };
    assert_eq!(case.run(kernel), out);
}

/// The CPU's kernel, which other tests compare with its own twin, agrees.
#[test]
fn the_cpu_agrees() {
    let case = Case::new((4, 2, 16, 64, Kind::F32), &[(5, 60), (1, 300)], Some(70));
    let cpu = kernels::paged_attention(&case.q, &case.kv, &case.spans, 0.125, case.window).unwrap();
    let cpu: Vec<f64> = values(&cpu.to_dtype(DType::F32).unwrap())
        .into_iter()
        .map(f64::from)
        .collect();
    assert_close(&case.run(case.by_rows()), &cpu, 1e-6);
}
