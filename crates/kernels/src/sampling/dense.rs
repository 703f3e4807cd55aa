//! Filters that may leave most of the vocabulary: the weights of the whole row lie in one
//! buffer, and a filter sets those of the tokens it removes to 0.

use super::row::{BLOCK, RUN, TemperedRow, block_of};
use super::select::{self, Kept};
use crate::simd::{Kernel, LANES, Simd, dispatch};
use std::cell::RefCell;
use std::ops::Range;

/// Thresholds that one pass over the row tries at once.
const PIVOTS: usize = 4;

/// Passes before the tokens that are left are looked at one by one: with four thresholds
/// each, about a 125th of the row is left.
const NARROWINGS: usize = 3;

/// Logits between two sums that are kept apart, against rounding.
const STRETCH: usize = 16 * BLOCK;

/// How many sampled logits to go to either side of the rank that is wanted.
const SPREAD: usize = 100;

/// What a filter adds up.
#[derive(Clone, Copy, PartialEq)]
enum Measure {
    Tokens,
    Weights,
}

/// Weights of a row, and their sum in each block.
struct Dense<'a> {
    logits: &'a [f32],
    run_max: &'a [f32],
    weights: &'a mut [f32],
    sums: &'a mut [f64],
}

thread_local! {
    /// Weights and sums, kept from row to row: fresh memory costs more than a pass over it.
    static BUFFERS: RefCell<(Vec<f32>, Vec<f64>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// Draws from the tokens that all filters leave: the token and its probability.
pub(super) fn draw(
    row: &TemperedRow<'_>,
    (top_k, top_p, min_p): (Option<usize>, Option<f64>, Option<f32>),
    uniform: f64,
) -> (u32, f64) {
    BUFFERS.with_borrow_mut(|(weights, sums)| {
        weights.resize(row.logits().len(), 0.0);
        sums.resize(row.logits().len().div_ceil(BLOCK), 0.0);
        row.weigh(weights, sums);
        let mut dense = Dense {
            logits: row.logits(),
            run_max: row.run_max(),
            weights,
            sums,
        };
        if let Some(k) = top_k {
            dense.top_k(k);
        }
        if let Some(p) = top_p {
            dense.top_p(p, row);
        }
        if let Some(p) = min_p {
            dense.remove(f32::MIN, p);
        }
        dense.draw(uniform)
    })
}

impl Dense<'_> {
    fn total(&self) -> f64 {
        self.sums.iter().sum()
    }

    /// Keeps the first `k` tokens.
    fn top_k(&mut self, k: usize) {
        let goal = k as f64;
        let guess = self.around(k);
        let ends = [guess.start, guess.end];
        let [inside, before] = self.reach(Measure::Tokens, ends);
        if before < goal && inside >= goal {
            self.cut(guess, before, goal, Measure::Tokens);
        } else {
            self.cut(f32::MIN..f32::INFINITY, 0.0, goal, Measure::Tokens);
        }
    }

    /// Two logits between which the k-th largest probably lies, by the ranks of a sample.
    fn around(&self, k: usize) -> Range<f32> {
        let mut sample: Vec<f32> = self.logits.iter().step_by(RUN).copied().collect();
        sample.sort_unstable_by(|a, b| b.total_cmp(a));
        let rank = k / RUN;
        let end = rank
            .checked_sub(SPREAD)
            .map_or(f32::INFINITY, |at| sample[at]);
        let start = sample.get(rank + SPREAD).copied().unwrap_or(f32::MIN);
        start.max(f32::MIN)..end
    }

    /// Keeps the shortest run of first tokens whose weights reach `p` of the sum.
    fn top_p(&mut self, p: f64, row: &TemperedRow<'_>) {
        let total = self.total();
        let goal = p * total;
        let mut range = row.bound_by_p(p, total).max(f32::MIN)..f32::INFINITY;
        let mut before = 0.0;
        for _ in 0..NARROWINGS {
            let start = f64::from(range.start);
            let width = f64::from(range.end.min(row.max())) - start;
            let pivots = std::array::from_fn(|i| {
                (start + width * (i + 1) as f64 / (PIVOTS + 1) as f64) as f32
            });
            let reached: [f64; PIVOTS] = self.reach(Measure::Weights, pivots);
            // Sums shrink as pivots grow.
            let below = reached.iter().take_while(|&&sum| sum >= goal).count();
            if below < PIVOTS && pivots[below] < range.end {
                (range.end, before) = (pivots[below], reached[below]);
            }
            if below > 0 {
                range.start = pivots[below - 1];
            }
        }
        self.cut(range, before, goal, Measure::Weights);
    }

    /// The measure of the tokens at or above each pivot; pivots are finite or infinity.
    fn reach<const N: usize>(&self, measure: Measure, pivots: [f32; N]) -> [f64; N] {
        let lowest = pivots.iter().copied().fold(f32::INFINITY, f32::min);
        dispatch(Reach {
            logits: self.logits,
            weights: self.weights,
            run_max: self.run_max,
            measure,
            pivots,
            lowest,
        })
    }

    /// Removes all tokens behind the one at which the measure of the first tokens, which is
    /// `before` for the logits from `range.end` on, reaches the goal; that token's logit lies
    /// in `range`.
    fn cut(&mut self, range: Range<f32>, before: f64, goal: f64, measure: Measure) {
        let members = self.members(&range);
        let found = match measure {
            Measure::Tokens => select::threshold(&members, before, goal, |_| 1.0),
            Measure::Weights => {
                select::threshold(&members, before, goal, |kept| f64::from(kept.weight))
            }
        };
        let Some(last) = found else { return };
        for tie in members
            .iter()
            .filter(|tie| tie.logit == last.logit && tie.token > last.token)
        {
            self.weights[tie.token as usize] = 0.0;
        }
        self.remove(last.logit, 0.0);
    }

    /// Tokens with a logit in `range`, in the order of their ids.
    fn members(&self, range: &Range<f32>) -> Vec<Kept> {
        let mut members = Vec::new();
        dispatch(Members {
            dense: self,
            range,
            out: &mut members,
        });
        members
    }

    /// Removes the tokens with a logit below `logit` or a weight below `weight`.
    fn remove(&mut self, logit: f32, weight: f32) {
        dispatch(Remove {
            logits: self.logits,
            weights: self.weights,
            sums: self.sums,
            logit,
            weight,
        });
    }

    fn draw(&self, uniform: f64) -> (u32, f64) {
        let total = self.total();
        let (block, rest) = block_of(self.sums, uniform * total);
        let start = block * BLOCK;
        let end = self.weights.len().min(start + BLOCK);
        let weights = self.weights[start..end].iter().copied();
        let (offset, weight) = select::walk(weights, rest);
        ((start + offset) as u32, f64::from(weight) / total)
    }
}

struct Reach<'a, const N: usize> {
    logits: &'a [f32],
    weights: &'a [f32],
    run_max: &'a [f32],
    measure: Measure,
    pivots: [f32; N],
    lowest: f32,
}

impl<const N: usize> Kernel for Reach<'_, N> {
    type Output = [f64; N];

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> [f64; N] {
        let mut sums = [0.0; N];
        let stretches = self
            .logits
            .chunks(STRETCH)
            .zip(self.weights.chunks(STRETCH));
        for ((logits, weights), run_max) in stretches.zip(self.run_max.chunks(STRETCH / RUN)) {
            if run_max.iter().all(|&max| max < self.lowest) {
                continue;
            }
            let mut long = [simd.splat(0.0); N];
            let blocks = logits.chunks(BLOCK).zip(weights.chunks(BLOCK));
            for ((logits, weights), run_max) in blocks.zip(run_max.chunks(BLOCK / RUN)) {
                if run_max.iter().all(|&max| max < self.lowest) {
                    continue;
                }
                let short = self.block(simd, logits, weights);
                for i in 0..N {
                    long[i] = simd.add(long[i], short[i]);
                }
            }
            for (sum, long) in sums.iter_mut().zip(long) {
                *sum += f64::from(simd.sum(long));
            }
        }
        sums
    }
}

impl<const N: usize> Reach<'_, N> {
    /// The measure of a block at or above each pivot, by lane.
    #[inline(always)]
    fn block<S: Simd>(&self, simd: S, logits: &[f32], weights: &[f32]) -> [S::F; N] {
        let (zero, one) = (simd.splat(0.0), simd.splat(1.0));
        let mut sums = [zero; N];
        for (logits, weights) in logits.chunks(LANES).zip(weights.chunks(LANES)) {
            let (x, weight) = match (logits.first_chunk(), weights.first_chunk()) {
                (Some(logits), Some(weights)) => (simd.load(logits), simd.load(weights)),
                _ => {
                    let mut x = [f32::NEG_INFINITY; LANES];
                    x[..logits.len()].copy_from_slice(logits);
                    (simd.load(&x), simd.load_part(weights))
                }
            };
            let measure = if self.measure == Measure::Tokens {
                one
            } else {
                weight
            };
            for (sum, pivot) in sums.iter_mut().zip(self.pivots) {
                let reached = simd.select_lt((x, simd.splat(pivot)), zero, measure);
                *sum = simd.add(*sum, reached);
            }
        }
        sums
    }
}

struct Members<'a, 'b> {
    dense: &'a Dense<'b>,
    range: &'a Range<f32>,
    out: &'a mut Vec<Kept>,
}

impl Kernel for Members<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (start, end) = (simd.splat(self.range.start), simd.splat(self.range.end));
        let runs = self.dense.logits.chunks(RUN).zip(self.dense.run_max);
        for (run, (logits, &max)) in runs.enumerate() {
            if max < self.range.start {
                continue;
            }
            for (vector, logits) in logits.chunks(LANES).enumerate() {
                let x = match logits.first_chunk() {
                    Some(full) => simd.load(full),
                    None => simd.load_part(logits),
                };
                let mut found = simd.mask_lt(x, end) & !simd.mask_lt(x, start);
                while found != 0 {
                    let lane = found.trailing_zeros() as usize;
                    found &= found - 1;
                    let token = run * RUN + vector * LANES + lane;
                    if let Some(&logit) = logits.get(lane) {
                        self.out.push(Kept {
                            token: token as u32,
                            logit,
                            weight: self.dense.weights[token],
                        });
                    }
                }
            }
        }
    }
}

struct Remove<'a> {
    logits: &'a [f32],
    weights: &'a mut [f32],
    sums: &'a mut [f64],
    logit: f32,
    weight: f32,
}

impl Kernel for Remove<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let zero = simd.splat(0.0);
        let (logit, least) = (simd.splat(self.logit), simd.splat(self.weight));
        let blocks = self
            .logits
            .chunks(BLOCK)
            .zip(self.weights.chunks_mut(BLOCK));
        for ((logits, weights), out) in blocks.zip(self.sums) {
            let mut sum = zero;
            for (logits, weights) in logits.chunks(LANES).zip(weights.chunks_mut(LANES)) {
                let (x, weight) = match (logits.first_chunk(), weights.first_chunk()) {
                    (Some(logits), Some(weights)) => (simd.load(logits), simd.load(weights)),
                    _ => (simd.load_part(logits), simd.load_part(weights)),
                };
                let weight = simd.select_lt((x, logit), zero, weight);
                let weight = simd.select_lt((weight, least), zero, weight);
                sum = simd.add(sum, weight);
                match weights.first_chunk_mut() {
                    Some(weights) => simd.store(weight, weights),
                    None => simd.store_part(weight, weights),
                }
            }
            *out = f64::from(simd.sum(sum));
        }
    }
}
