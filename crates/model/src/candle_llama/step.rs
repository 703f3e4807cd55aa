//! What one step is made of, put on the device once for all layers.

use super::weights::Weights;
use crate::{ForwardBatch, KvPool, ModelConfig, ModelError};
use candle_core::{Device, Result, Tensor};
use kernels::SequenceSpan;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Scores that each head has at a time: 2^20 of 32 heads take 134 MB.
const SCORES: usize = 1 << 20;
/// Tokens whose K and V are gathered at a time, unless one sequence has more.
const GATHERED: usize = 1 << 16;

/// A step on its device.
pub(super) struct Step {
    /// (T)
    pub(super) tokens: Tensor,
    /// Cosines and sines of each row's position, (T, D/2).
    pub(super) angles: [Tensor; 2],
    /// (T, Hkv*D), where each value of K and V goes: its row's slot.
    pub(super) slots: Tensor,
    /// (S) rows whose logits are wanted; `None` = there are none.
    pub(super) asked: Option<Tensor>,
    /// What attends to what, for each window that a layer has.
    attention: BTreeMap<Option<usize>, Vec<Attention>>,
}

/// Sequences with the same number of rows, which attend together.
pub(super) struct Attention {
    /// Their rows, one sequence after the other.
    pub(super) rows: Range<usize>,
    /// How many sequences.
    pub(super) sequences: usize,
    /// Positions that are looked at for each of them; the shorter ones repeat their last.
    pub(super) context: usize,
    /// (sequences * context)
    pub(super) slots: Tensor,
    /// (sequences, 1, 1, rows of a sequence, context), 0 or -inf; `None` = all is seen.
    pub(super) mask: Option<Tensor>,
}

/// Rows of one sequence that attend together.
struct Piece<'a> {
    rows: Range<usize>,
    /// The position after the last of them.
    end: usize,
    blocks: &'a [u32],
}

impl Step {
    /// `batch` has been checked against `config` and `kv`.
    ///
    /// # Errors
    /// A block that the pool does not have, a position that the model is not prepared for.
    pub(super) fn new(
        batch: &ForwardBatch,
        config: &ModelConfig,
        weights: &Weights,
        kv: &KvPool,
    ) -> std::result::Result<Self, ModelError> {
        let wrong = |problem: String| Err(ModelError::Batch { problem });
        let mut blocks = batch.spans.iter().flat_map(|span| &span.blocks);
        if let Some(block) = blocks.find(|block| **block as usize >= kv.num_blocks()) {
            let known = kv.num_blocks();
            return wrong(format!("block {block} is out of range, there are {known}"));
        }
        let known = weights.angles[0].dims()[0];
        let mut positions = batch.positions.iter();
        if let Some(position) = positions.find(|position| **position as usize >= known) {
            return wrong(format!("position {position}: the model has {known}"));
        }
        Self::put(batch, config, weights, kv.block_size())
            .map_err(|source| ModelError::compute("a step", source))
    }

    fn put(
        batch: &ForwardBatch,
        config: &ModelConfig,
        weights: &Weights,
        block_size: usize,
    ) -> Result<Self> {
        let [cos, sin] = &weights.angles;
        let device = cos.device();
        let numbers = |numbers: &[u32]| Tensor::new(numbers, device);
        let positions = numbers(&batch.positions)?;
        let slots = numbers(&batch.slots)?.unsqueeze(1)?;
        let shape = (batch.slots.len(), config.kv_size());
        let pieces = pieces(&batch.spans);
        let groups = groups(&pieces);
        let windows = weights.layers.iter().map(|layer| layer.window);
        let windows: BTreeSet<_> = windows.collect();
        let attention = windows.into_iter().map(|window| {
            let groups = groups.iter();
            let parts = groups.map(|group| Attention::new(group, window, block_size, device));
            Ok((window, parts.collect::<Result<Vec<_>>>()?))
        });
        Ok(Self {
            tokens: numbers(&batch.tokens)?,
            angles: [
                cos.index_select(&positions, 0)?,
                sin.index_select(&positions, 0)?,
            ],
            slots: slots.broadcast_as(shape)?.contiguous()?,
            asked: match batch.logit_rows.is_empty() {
                true => None,
                false => Some(numbers(&batch.logit_rows)?),
            },
            attention: attention.collect::<Result<_>>()?,
        })
    }

    /// What attends to what in a layer with this window, in the order of the rows.
    pub(super) fn attention(&self, window: Option<usize>) -> &[Attention] {
        &self.attention[&window]
    }
}

/// Cuts spans so that the scores of a piece are no more than [`SCORES`].
fn pieces(spans: &[SequenceSpan]) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    for span in spans {
        let most = (SCORES / span.context_len).max(1);
        for start in span.query.clone().step_by(most) {
            let rows = start..span.query.end.min(start + most);
            pieces.push(Piece {
                end: span.context_len - (span.query.end - rows.end),
                rows,
                blocks: &span.blocks,
            });
        }
    }
    pieces
}

/// Neighbours with the same number of rows, as many as the limits allow.
fn groups<'a, 'b>(pieces: &'a [Piece<'b>]) -> Vec<&'a [Piece<'b>]> {
    let (mut groups, mut start, mut longest) = (Vec::new(), 0, 0);
    for (index, piece) in pieces.iter().enumerate() {
        let (count, rows) = (index + 1 - start, piece.rows.len());
        let context = piece.end.max(longest);
        let fits = pieces[start].rows.len() == rows
            && count * context <= GATHERED
            && count * context * rows <= SCORES;
        if count > 1 && !fits {
            groups.push(&pieces[start..index]);
            (start, longest) = (index, piece.end);
        } else {
            longest = context;
        }
    }
    groups.push(&pieces[start..]);
    groups
}

impl Attention {
    fn new(
        group: &[Piece<'_>],
        window: Option<usize>,
        block_size: usize,
        device: &Device,
    ) -> Result<Self> {
        let queries = group[0].rows.len();
        let first = |piece: &Piece<'_>| {
            window.map_or(0, |window| (piece.end - queries + 1).saturating_sub(window))
        };
        let lengths = group.iter().map(|piece| piece.end - first(piece));
        let context = lengths.max().unwrap_or(0);
        let (mut slots, mut mask) = (Vec::new(), Vec::new());
        for piece in group {
            let places = first(piece)..first(piece) + context;
            slots.extend(places.clone().map(|place| {
                // Never another sequence's: whatever lies there, even NaN, is its own.
                let place = place.min(piece.end - 1);
                piece.blocks[place / block_size] * block_size as u32 + (place % block_size) as u32
            }));
            for position in piece.end - queries..piece.end {
                mask.extend(places.clone().map(|place| {
                    let is_near = |window| position.saturating_sub(place) < window;
                    let is_seen = place <= position && window.is_none_or(is_near);
                    if is_seen { 0.0 } else { f32::NEG_INFINITY }
                }));
            }
        }
        let shape = (group.len(), 1, 1, queries, context);
        Ok(Self {
            rows: group[0].rows.start..group[group.len() - 1].rows.end,
            sequences: group.len(),
            context,
            slots: Tensor::new(slots.as_slice(), device)?,
            mask: match mask.iter().all(|value| *value == 0.0) {
                true => None,
                false => Some(Tensor::from_vec(mask, shape, device)?),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(rows: Range<usize>, context_len: usize) -> SequenceSpan {
        SequenceSpan {
            query: rows,
            context_len,
            blocks: vec![],
        }
    }

    fn sizes(spans: &[SequenceSpan]) -> Vec<Vec<(Range<usize>, usize)>> {
        let pieces = pieces(spans);
        let told = |piece: &Piece<'_>| (piece.rows.clone(), piece.end);
        let groups = groups(&pieces).into_iter();
        groups
            .map(|group| group.iter().map(told).collect())
            .collect()
    }

    #[test]
    fn long_prompts_are_cut_and_equal_neighbours_join() {
        let long = sizes(&[span(0..300, 1 << 13), span(300..301, 4)]);
        let expected: Vec<Vec<_>> = vec![
            vec![(0..128, 8020)],
            vec![(128..256, 8148)],
            vec![(256..300, 8192)],
            vec![(300..301, 4)],
        ];
        assert_eq!(long, expected);
        let decode = sizes(&[
            span(0..1, 7),
            span(1..2, 900),
            span(2..4, 20),
            span(4..6, 2),
        ]);
        let expected: Vec<Vec<_>> = vec![vec![(0..1, 7), (1..2, 900)], vec![(2..4, 20), (4..6, 2)]];
        assert_eq!(decode, expected);
        assert_eq!(sizes(&[span(0..2, usize::MAX >> 1)]).len(), 2);
    }

    #[test]
    fn what_is_gathered_at_a_time_is_limited() {
        let spans: Vec<_> = (0..20).map(|row| span(row..row + 1, 1 << 13)).collect();
        let counts: Vec<_> = sizes(&spans).iter().map(Vec::len).collect();
        assert_eq!(counts, [8, 8, 4]);
        let longer = sizes(&[span(0..1, 5), span(1..2, 1 << 16), span(2..3, 5)]);
        assert_eq!(longer.len(), 3);
    }
}
