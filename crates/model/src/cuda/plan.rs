//! A step on the host's side: which numbers a device is given, and which attention kernels
//! compute which rows. Integers only.

use crate::{AdapterId, ForwardBatch};
use kernels::SequenceSpan;
use kernels::cuda::{NO_ADAPTER, SPLIT};
use std::collections::BTreeMap;
use std::ops::Range;

/// Rows from which a span is a prompt, computed in tiles; shorter ones cost a tile 64 rows.
const TILES_FROM: usize = 9;
/// A position of the cache where nothing is written.
const NO_SLOT: u32 = u32::MAX;

/// The number of no draw.
pub(super) const NOT_DRAWN: u32 = u32::MAX;

/// What steps may be made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Rows of a step.
    pub(super) tokens: usize,
    /// Entries of block lists.
    pub(super) list: usize,
    /// Rows times splits that one start of the kernel has scratch memory for.
    pub(super) row_splits: usize,
    /// Whether prompts may be computed in tiles, where bits differ from those of single rows.
    pub(super) tiles: bool,
}

/// One start of an attention kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call {
    /// Which of the step's spans.
    pub(super) spans: Range<usize>,
    pub(super) kind: CallKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallKind {
    Rows { rows: usize, splits: usize },
    Tiles { longest: usize },
}

/// The arrays of a step, ready to be packed, and the kernels to start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct StepArrays {
    pub(super) tokens: Vec<u32>,
    pub(super) positions: Vec<u32>,
    pub(super) slots: Vec<u32>,
    /// Index of each row's adapter among those loaded.
    pub(super) adapters: Vec<u32>,
    pub(super) logit_rows: Vec<u32>,
    /// Which of the device's last draws gives each row its token, [`NOT_DRAWN`] where the host
    /// has; empty if it has all.
    pub(super) drawn: Vec<u32>,
    pub(super) starts: Vec<u32>,
    pub(super) contexts: Vec<u32>,
    pub(super) block_starts: Vec<u32>,
    pub(super) list: Vec<u32>,
    pub(super) calls: Vec<Call>,
    pub(super) uses_adapters: bool,
}

/// Under which name a recorded step is kept: steps of one name do the same with other numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct GraphKey {
    pub(super) rows: usize,
    pub(super) splits: usize,
    pub(super) uses_adapters: bool,
}

impl StepArrays {
    /// The arrays of a checked batch. `adapters` are the loaded ones in the order of the device's
    /// tables.
    ///
    /// # Errors
    /// More rows or blocks than there is room for, or an adapter that is not loaded, in words.
    pub(super) fn of(
        batch: &ForwardBatch,
        adapters: &BTreeMap<AdapterId, u32>,
        limits: Limits,
    ) -> Result<Self, String> {
        let rows = batch.tokens.len();
        if rows > limits.tokens {
            return Err(format!(
                "a step of {rows} tokens, the device has room for {}",
                limits.tokens
            ));
        }
        let index = |id: &Option<AdapterId>| match id {
            None => Ok(NO_ADAPTER),
            Some(id) => adapters
                .get(id)
                .copied()
                .ok_or_else(|| format!("{id:?} is not loaded")),
        };
        let mut by_row = vec![NO_ADAPTER; rows];
        for (slot, id) in by_row.iter_mut().zip(&batch.adapters) {
            *slot = index(id)?;
        }
        let mut arrays = Self {
            tokens: batch.tokens.clone(),
            positions: batch.positions.clone(),
            slots: batch.slots.clone(),
            uses_adapters: by_row.iter().any(|index| *index != NO_ADAPTER),
            adapters: by_row,
            logit_rows: batch.logit_rows.clone(),
            starts: vec![0],
            block_starts: vec![0],
            ..Self::default()
        };
        for span in &batch.spans {
            arrays.add_span(span, limits);
        }
        if arrays.list.len() > limits.list {
            return Err(format!(
                "a step that reads {} blocks, the device has room for {}",
                arrays.list.len(),
                limits.list
            ));
        }
        Ok(arrays)
    }

    /// Adds a sequence, in pieces where its scores would not fit into the scratch memory.
    fn add_span(&mut self, span: &SequenceSpan, limits: Limits) {
        let rows = span.query.len();
        if limits.tiles && rows >= TILES_FROM {
            self.push_span(span.query.end, span.context_len, &span.blocks);
            let spans = self.contexts.len() - 1..self.contexts.len();
            self.push_tiles(spans, rows);
            return;
        }
        let splits = span.context_len.div_ceil(SPLIT);
        let most = (limits.row_splits / splits).max(1);
        let before = span.context_len - rows;
        let block_tokens = span.context_len.div_ceil(span.blocks.len().max(1)).max(1);
        for first in (0..rows).step_by(most) {
            let end = rows.min(first + most);
            let context = before + end;
            // A piece reads no further than its last row; whole lists are right, too.
            let blocks = context.div_ceil(block_tokens).min(span.blocks.len());
            let blocks = if end == rows {
                span.blocks.len()
            } else {
                blocks
            };
            self.push_span(span.query.start + end, context, &span.blocks[..blocks]);
            let index = self.contexts.len() - 1;
            self.push_rows(index, end - first, limits.row_splits);
        }
    }

    fn push_span(&mut self, end: usize, context: usize, blocks: &[u32]) {
        self.starts.push(small(end));
        self.contexts.push(small(context));
        self.list.extend_from_slice(blocks);
        self.block_starts.push(small(self.list.len()));
    }

    /// Lets the last call do this span too, if it is of the same kind.
    fn push_tiles(&mut self, spans: Range<usize>, rows: usize) {
        match self.calls.last_mut() {
            Some(Call {
                spans: before,
                kind: CallKind::Tiles { longest },
            }) => {
                before.end = spans.end;
                *longest = rows.max(*longest);
            }
            _ => self.calls.push(Call {
                spans,
                kind: CallKind::Tiles { longest: rows },
            }),
        }
    }

    fn push_rows(&mut self, span: usize, rows: usize, row_splits: usize) {
        let splits = (self.contexts[span] as usize).div_ceil(SPLIT);
        if let Some(Call {
            spans: before,
            kind:
                CallKind::Rows {
                    rows: rows_before,
                    splits: splits_before,
                },
        }) = self.calls.last_mut()
        {
            let (all, most) = (*rows_before + rows, splits.max(*splits_before));
            if all * most <= row_splits {
                (*rows_before, *splits_before) = (all, most);
                before.end = span + 1;
                return;
            }
        }
        self.calls.push(Call {
            spans: span..span + 1,
            kind: CallKind::Rows { rows, splits },
        });
    }

    /// The name of this step's recording, if it is one that can be replayed: a row of each
    /// sequence, all of whose logits are wanted, in one start of the kernel.
    pub(super) fn graph_key(&self, rows_max: usize, row_splits: usize) -> Option<GraphKey> {
        let rows = self.tokens.len();
        let [
            Call {
                kind: CallKind::Rows { rows: all, splits },
                ..
            },
        ] = self.calls[..]
        else {
            return None;
        };
        let wants_all = (0u32..)
            .zip(&self.logit_rows)
            .all(|(row, wanted)| row == *wanted)
            && self.logit_rows.len() == rows;
        if all != rows || self.contexts.len() != rows || !wants_all {
            return None;
        }
        let key = GraphKey {
            rows: bucket(rows),
            splits: splits.next_power_of_two(),
            uses_adapters: self.uses_adapters,
        };
        (key.rows <= rows_max && key.rows * key.splits <= row_splits).then_some(key)
    }

    /// Adds rows that compute nothing, until there are `key.rows`.
    pub(super) fn pad(&mut self, key: GraphKey) {
        let end = small(self.list.len());
        for row in self.tokens.len()..key.rows {
            self.tokens.push(0);
            self.positions.push(0);
            self.slots.push(NO_SLOT);
            self.adapters.push(NO_ADAPTER);
            self.logit_rows.push(small(row));
            self.starts.push(small(row + 1));
            self.contexts.push(0);
            self.block_starts.push(end);
        }
        let kind = CallKind::Rows {
            rows: key.rows,
            splits: key.splits,
        };
        self.calls = vec![Call {
            spans: 0..key.rows,
            kind,
        }];
    }
}

/// Rows that a step of `rows` is filled up to: few different ones, so that few are recorded.
pub(super) fn bucket(rows: usize) -> usize {
    match rows {
        0..=8 => rows.next_power_of_two(),
        9..=64 => rows.next_multiple_of(8),
        _ => rows.next_multiple_of(32),
    }
}

fn small(value: usize) -> u32 {
    u32::try_from(value).expect("rows, contexts and lists are bounded by the workspace")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        tokens: 64,
        list: 1000,
        row_splits: 32,
        tiles: true,
    };

    /// A batch of spans (rows, context) in blocks of 16.
    fn batch(spans: &[(usize, usize)]) -> ForwardBatch {
        let mut batch = ForwardBatch::default();
        for (rows, context) in spans {
            let first = batch.tokens.len();
            let blocks: Vec<u32> = (0..context.div_ceil(16) as u32).collect();
            for position in context - rows..*context {
                batch.tokens.push(7);
                batch.positions.push(position as u32);
                batch.slots.push(position as u32);
            }
            batch.logit_rows.push(batch.tokens.len() as u32 - 1);
            batch.spans.push(SequenceSpan {
                query: first..batch.tokens.len(),
                context_len: *context,
                blocks,
            });
        }
        batch
    }

    fn arrays(spans: &[(usize, usize)], limits: Limits) -> StepArrays {
        StepArrays::of(&batch(spans), &BTreeMap::new(), limits).unwrap()
    }

    fn rows(spans: Range<usize>, rows: usize, splits: usize) -> Call {
        Call {
            spans,
            kind: CallKind::Rows { rows, splits },
        }
    }

    #[test]
    fn prompts_go_to_tiles_and_the_rest_to_rows() {
        let found = arrays(&[(1, 40), (1, 300), (8, 8), (20, 20), (12, 30)], LIMITS);
        let tiles = Call {
            spans: 3..5,
            kind: CallKind::Tiles { longest: 20 },
        };
        assert_eq!(found.calls, [rows(0..3, 10, 2), tiles]);
        assert_eq!(found.starts, [0, 1, 2, 10, 30, 42]);
        assert_eq!(found.contexts, [40, 300, 8, 20, 30]);
        assert_eq!(found.block_starts, [0, 3, 22, 23, 25, 27]);
    }

    #[test]
    fn scratch_memory_is_never_exceeded() {
        for tiles in [true, false] {
            for spans in [
                vec![(1, 2000); 40],
                vec![(60, 2000)],
                vec![(1, 5000), (30, 300), (1, 10), (20, 20)],
            ] {
                let limits = Limits { tiles, ..LIMITS };
                let limits = Limits {
                    list: 100_000,
                    ..limits
                };
                let found = arrays(&spans, limits);
                let mut next = 0;
                for call in &found.calls {
                    assert_eq!(call.spans.start, next);
                    next = call.spans.end;
                    let here = call.spans.clone();
                    let covered = found.starts[here.end] - found.starts[here.start];
                    let longest = found.contexts[here].iter().max().unwrap();
                    if let CallKind::Rows { rows, splits } = call.kind {
                        assert_eq!(rows, covered as usize);
                        assert!(splits * SPLIT >= *longest as usize);
                        assert!(rows * splits <= LIMITS.row_splits || rows == 1);
                    }
                }
                assert_eq!(next, found.contexts.len());
                let all: usize = spans.iter().map(|(rows, _)| rows).sum();
                assert_eq!(*found.starts.last().unwrap() as usize, all);
            }
        }
    }

    #[test]
    fn pieces_of_a_prompt_cover_it_with_their_contexts() {
        let limits = Limits {
            tiles: false,
            ..LIMITS
        };
        let found = arrays(&[(40, 1024)], limits);
        // 4 splits: 8 rows at a time.
        assert_eq!(found.starts, [0, 8, 16, 24, 32, 40]);
        assert_eq!(found.contexts, [992, 1000, 1008, 1016, 1024]);
        for (span, context) in found.contexts.iter().enumerate() {
            let blocks = found.block_starts[span + 1] - found.block_starts[span];
            assert!(blocks * 16 >= *context, "{span}");
        }
    }

    #[test]
    fn decode_steps_are_padded_and_named() {
        let mut found = arrays(&[(1, 40); 9], LIMITS);
        let key = found.graph_key(64, 32).unwrap();
        assert_eq!((key.rows, key.splits), (16, 1));
        found.pad(key);
        assert_eq!(found.calls, [rows(0..16, 16, 1)]);
        assert_eq!(found.slots[9..], [NO_SLOT; 7]);
        assert_eq!(found.contexts[9..], [0; 7]);
        assert_eq!(found.starts.len(), 17);
        assert_eq!(found.block_starts[9..], [27; 8]);
        assert_eq!(found.logit_rows, (0..16).collect::<Vec<u32>>());
        for (spans, why) in [
            (vec![(2, 40), (1, 10)], "two rows of a sequence"),
            (vec![(1, 40); 33], "more splits than scratch memory"),
            (vec![(20, 20)], "a prompt"),
        ] {
            let found = arrays(&spans, LIMITS);
            assert_eq!(found.graph_key(64, 32), None, "{why}");
        }
        assert_eq!(arrays(&[(1, 40); 9], LIMITS).graph_key(8, 32), None);
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let none = BTreeMap::new();
        let long = batch(&[(65, 65)]);
        let error = StepArrays::of(&long, &none, LIMITS).unwrap_err();
        assert!(error.contains("65 tokens"), "{error}");
        let wide = batch(&[(1, 16_016)]);
        let error = StepArrays::of(&wide, &none, LIMITS).unwrap_err();
        assert!(error.contains("1001 blocks"), "{error}");
        let mut unknown = batch(&[(1, 1)]);
        unknown.adapters = vec![Some(AdapterId(3))];
        let error = StepArrays::of(&unknown, &none, LIMITS).unwrap_err();
        assert!(error.contains("not loaded"), "{error}");
    }

    #[test]
    fn buckets_are_few_and_close() {
        for rows in 1..=256 {
            let filled = bucket(rows);
            assert!(filled >= rows && filled < 2 * rows + 1 && bucket(filled) == filled);
        }
        let distinct: std::collections::BTreeSet<usize> = (1..=256).map(bucket).collect();
        assert!(distinct.len() <= 17, "{distinct:?}");
    }
}
