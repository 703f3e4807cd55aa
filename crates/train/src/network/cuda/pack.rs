//! A pack's numbers on a device: one copy of all of them.

use super::pool::{Held, Pool, Type};
use crate::Result;
use crate::pack::Pack;
use kernels::cuda::View;
use kernels::cuda::training::TokenRows;
use std::collections::BTreeMap;
use std::ops::Range;

/// Where a pack's arrays are.
#[derive(Debug)]
pub(crate) struct DevicePack {
    held: Held,
    /// (T)
    pub(super) rows: usize,
    pub(super) segments: usize,
    /// Tokens of the longest segment.
    pub(super) longest: usize,
    /// Targets.
    pub(super) targets: usize,
    /// Tokens that differ.
    distinct: usize,
    /// Where each array begins, in the order they are laid in.
    starts: [usize; ARRAYS],
}

const ARRAYS: usize = 8;
const TOKENS: usize = 0;
const POSITIONS: usize = 1;
const SEGMENTS: usize = 2;
const ROWS: usize = 3;
const TARGETS: usize = 4;
const DISTINCT: usize = 5;
const DISTINCT_STARTS: usize = 6;
const ORDER: usize = 7;

impl DevicePack {
    pub(super) fn new(pool: &Pool, pack: &Pack) -> Result<Self> {
        let mut segments = vec![0u32];
        for len in &pack.segments {
            let end = segments[segments.len() - 1] as usize + len;
            segments.push(number(end));
        }
        let mut by_token: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (row, token) in (0u32..).zip(&pack.tokens) {
            by_token.entry(*token).or_default().push(row);
        }
        let mut starts = vec![0u32];
        let mut order = Vec::with_capacity(pack.len());
        for rows in by_token.values() {
            order.extend(rows);
            starts.push(number(order.len()));
        }
        let rows: Vec<u32> = pack.targets.iter().map(|target| target.row).collect();
        let targets: Vec<u32> = pack.targets.iter().map(|target| target.token).collect();
        let distinct: Vec<u32> = by_token.keys().copied().collect();
        let arrays: [&[u32]; ARRAYS] = [
            &pack.tokens,
            &pack.positions,
            &segments,
            &rows,
            &targets,
            &distinct,
            &starts,
            &order,
        ];
        let mut all = Vec::new();
        let starts = arrays.map(|array| {
            let start = all.len();
            all.extend_from_slice(array);
            // Each begins where a line of memory does.
            all.resize(all.len().next_multiple_of(32), 0);
            start
        });
        let mut held = pool.take(Type::U32, all.len())?;
        held.write_numbers(&all)?;
        Ok(Self {
            held,
            rows: pack.len(),
            segments: pack.segments.len(),
            longest: pack.segments.iter().max().copied().unwrap_or(0),
            targets: pack.targets.len(),
            distinct: distinct.len(),
            starts,
        })
    }

    fn array(&self, which: usize, range: Range<usize>) -> View<'_> {
        let start = self.starts[which];
        let range = start + range.start..start + range.end;
        self.held.view().slice(range)
    }

    /// (T)
    pub(super) fn tokens(&self) -> View<'_> {
        self.array(TOKENS, 0..self.rows)
    }

    /// (T)
    pub(super) fn positions(&self) -> View<'_> {
        self.array(POSITIONS, 0..self.rows)
    }

    /// First row of each segment, and the end of the last.
    pub(super) fn segment_starts(&self) -> View<'_> {
        self.array(SEGMENTS, 0..self.segments + 1)
    }

    /// Rows that targets are read from, all different.
    pub(super) fn wanted(&self) -> View<'_> {
        self.array(ROWS, 0..self.targets)
    }

    /// Tokens of some targets.
    pub(super) fn target_tokens(&self, range: Range<usize>) -> View<'_> {
        self.array(TARGETS, range)
    }

    /// Rows by token.
    pub(super) fn token_rows(&self) -> TokenRows<'_> {
        TokenRows {
            tokens: self.array(DISTINCT, 0..self.distinct),
            count: self.distinct,
            starts: self.array(DISTINCT_STARTS, 0..self.distinct + 1),
            order: self.array(ORDER, 0..self.rows),
        }
    }
}

fn number(index: usize) -> u32 {
    u32::try_from(index).expect("a pack is far below 2^32 tokens")
}
