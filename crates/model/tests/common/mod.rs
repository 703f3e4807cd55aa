//! Runs a model over one or several sequences and compares logits.

use model::{AdapterId, CausalLm, ForwardBatch, KvType, SequenceSpan};
use std::ops::Range;

pub(crate) const BLOCK: usize = 16;

/// One sequence's share of a step.
pub(crate) struct Part<'a> {
    pub(crate) tokens: &'a [u32],
    /// Which of its tokens this step computes.
    pub(crate) places: Range<usize>,
    pub(crate) blocks: &'a [u32],
    pub(crate) adapter: Option<AdapterId>,
}

/// A batch of these parts that asks for every row's logits.
pub(crate) fn batch(parts: &[Part<'_>]) -> ForwardBatch {
    let mut batch = ForwardBatch::default();
    for part in parts {
        let start = batch.tokens.len();
        for place in part.places.clone() {
            batch.tokens.push(part.tokens[place]);
            batch.positions.push(place as u32);
            let block = part.blocks[place / BLOCK];
            batch
                .slots
                .push(block * BLOCK as u32 + (place % BLOCK) as u32);
            batch.adapters.push(part.adapter);
        }
        batch.spans.push(SequenceSpan {
            query: start..batch.tokens.len(),
            context_len: part.places.end,
            blocks: part.blocks.to_vec(),
        });
    }
    batch.logit_rows = (0..batch.tokens.len() as u32).collect();
    batch
}

/// Logits (T, V) of one sequence in a pool of its own, computed in chunks of these lengths.
pub(crate) fn logits_in_chunks(
    model: &dyn CausalLm,
    tokens: &[u32],
    chunks: &[usize],
    adapter: Option<AdapterId>,
    kv_type: KvType,
) -> Vec<f32> {
    let count = tokens.len().div_ceil(BLOCK);
    // Blocks in falling order: nothing may rely on them being neighbours.
    let blocks: Vec<u32> = (0..count as u32).rev().collect();
    let pool = model.kv_pool(count, BLOCK, kv_type).unwrap();
    let (mut done, mut all) = (0, Vec::new());
    for chunk in chunks.iter().cycle() {
        let places = done..(done + chunk).min(tokens.len());
        done = places.end;
        let batch = batch(&[Part {
            tokens,
            places,
            blocks: &blocks,
            adapter,
        }]);
        all.extend(flat(&model.forward(&batch, &pool).unwrap()));
        if done == tokens.len() {
            return all;
        }
    }
    unreachable!("no chunks were given")
}

pub(crate) fn flat(tensor: &candle_core::Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Largest relative L2 distance over the positions; NaN if there is one.
pub(crate) fn worst(found: &[f32], expected: &[f64], vocab: usize) -> f64 {
    assert_eq!(found.len(), expected.len());
    let rows = found.chunks_exact(vocab).zip(expected.chunks_exact(vocab));
    rows.map(|(found, expected)| testkit::oracle::relative_l2(found, expected))
        .fold(
            0.0,
            |worst, distance| if distance <= worst { worst } else { distance },
        )
}

/// Bits, for exact comparison that also sees the sign of zero.
pub(crate) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}
