//! Passes over a whole row of logits.

use super::SampleError;
use super::select::{self, Kept};
use crate::simd::{Kernel, LANES, Simd, dispatch};

/// Logits whose maximum is kept: a run that lies below a threshold is skipped as a whole.
pub(super) const RUN: usize = 64;

/// Logits whose weights are summed in f32, one lane at a time, before they go into f64.
pub(super) const BLOCK: usize = 256;

/// A row without NaN, with at least one finite logit.
pub(super) struct Row<'a> {
    logits: &'a [f32],
    /// The largest logit of each run.
    run_max: Vec<f32>,
    max: f32,
}

impl<'a> Row<'a> {
    /// Reads the row once.
    pub(super) fn scan(logits: &'a [f32]) -> Result<Self, SampleError> {
        let mut run_max = vec![f32::NEG_INFINITY; logits.len().div_ceil(RUN)];
        if !dispatch(Scan {
            logits,
            run_max: &mut run_max,
        }) {
            let bad = logits
                .iter()
                .position(|x| x.is_nan() || *x == f32::INFINITY);
            let at = bad.expect("the scan met a logit that is not below infinity");
            return Err(SampleError::NotANumber {
                token: at as u32,
                value: logits[at],
            });
        }
        let max = run_max.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
        if max == f32::NEG_INFINITY {
            return Err(SampleError::NothingAllowed {
                vocabulary: logits.len(),
            });
        }
        Ok(Self {
            logits,
            run_max,
            max,
        })
    }

    /// The token with the largest logit, the lowest id of equals.
    pub(super) fn likeliest(&self) -> u32 {
        let run = self.run_max.iter().position(|&max| max == self.max);
        let start = run.expect("the maximum is that of some run") * RUN;
        let offset = self.logits[start..]
            .iter()
            .position(|&logit| logit == self.max);
        (start + offset.expect("the maximum of a run is in it")) as u32
    }

    /// ln of the sum of e^logit.
    pub(super) fn log_sum_exp(&self) -> f64 {
        let (total, _) = block_sums(self.logits, self.max, 1.0);
        f64::from(self.max) + total.ln()
    }

    /// The row with weights `e^((logit - max) / temperature)`.
    pub(super) fn at_temperature(self, temperature: f32) -> TemperedRow<'a> {
        // A temperature so low that its inverse overflows is as good as the largest inverse:
        // the likeliest token has weight 1, others 0.
        TemperedRow {
            inverse: temperature.recip().min(f32::MAX),
            row: self,
        }
    }
}

/// A row and the inverse of its temperature.
pub(super) struct TemperedRow<'a> {
    row: Row<'a>,
    inverse: f32,
}

impl TemperedRow<'_> {
    /// Draws from all tokens: the token and its probability.
    pub(super) fn draw(&self, uniform: f64) -> (u32, f64) {
        let (total, sums) = block_sums(self.row.logits, self.row.max, self.inverse);
        let (block, rest) = block_of(&sums, uniform * total);
        let logits = &self.row.logits[block * BLOCK..];
        let mut weights = [0.0; BLOCK];
        let weights = &mut weights[..logits.len().min(BLOCK)];
        dispatch(Weights {
            logits,
            max: self.row.max,
            inverse: self.inverse,
            out: weights,
            sums: &mut [0.0],
        });
        let (offset, weight) = select::walk(weights.iter().copied(), rest);
        ((block * BLOCK + offset) as u32, f64::from(weight) / total)
    }

    /// The logits (V).
    pub(super) fn logits(&self) -> &[f32] {
        self.row.logits
    }

    /// The largest logit of each run.
    pub(super) fn run_max(&self) -> &[f32] {
        &self.row.run_max
    }

    /// The largest logit.
    pub(super) fn max(&self) -> f32 {
        self.row.max
    }

    /// Whether the `k` likeliest tokens are found faster by skipping most of the row.
    pub(super) fn is_sparse(&self, k: usize) -> bool {
        k <= self.row.run_max.len() / 4
    }

    /// Writes the weight of every token and the sum of each block.
    pub(super) fn weigh(&self, weights: &mut [f32], sums: &mut [f64]) {
        dispatch(Weights {
            logits: self.row.logits,
            max: self.row.max,
            inverse: self.inverse,
            out: weights,
            sums,
        });
    }

    /// The first `k` tokens, in the order of their ids; fewer if fewer logits are finite.
    pub(super) fn likeliest(&self, k: usize) -> Vec<Kept> {
        let mut kept = self.at_least(self.bound_by_k(k));
        select::top_k(&mut kept, k);
        kept
    }

    /// The tokens with at least the fraction `min_p` of the largest weight, in the order of
    /// their ids, if three quarters of the runs have none.
    pub(super) fn heavy(&self, min_p: f32) -> Option<Vec<Kept>> {
        // A little lower, for rounding.
        let depth = (f64::from(min_p) * 0.99).ln() / f64::from(self.inverse);
        let bound = (f64::from(self.row.max) + depth) as f32;
        let bound = bound - bound.abs() * f32::EPSILON;
        let runs = &self.row.run_max;
        if runs.iter().filter(|&&max| max >= bound).count() > runs.len() / 4 {
            return None;
        }
        let mut kept = self.at_least(bound);
        kept.retain(|kept| kept.weight >= min_p);
        Some(kept)
    }

    /// A logit below which none of the first `k` lies.
    fn bound_by_k(&self, k: usize) -> f32 {
        let runs = &self.row.run_max;
        // k runs have a maximum at least as large as the k-th largest maximum.
        if k == 0 || k > runs.len() {
            return f32::NEG_INFINITY;
        }
        let mut maxima = runs.clone();
        *maxima
            .select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a))
            .1
    }

    /// A logit so low that tokens from there on weigh more than `p` of the row's `total`.
    pub(super) fn bound_by_p(&self, p: f64, total: f64) -> f32 {
        // Tokens lighter than (1 - p) * total / V together weigh less than (1 - p) * total:
        // the heavier ones reach p. Half of that, for rounding.
        let lightest = (1.0 - p) * total / (2.0 * self.row.logits.len() as f64);
        let depth = lightest.ln() / f64::from(self.inverse);
        let bound = (f64::from(self.row.max) + depth) as f32;
        bound - bound.abs() * f32::EPSILON
    }

    /// Tokens with a finite logit of at least `bound`, in the order of their ids.
    fn at_least(&self, bound: f32) -> Vec<Kept> {
        let bound = bound.max(f32::MIN);
        let mut kept = Vec::new();
        for (run, max) in self.row.run_max.iter().enumerate() {
            if *max < bound {
                continue;
            }
            let logits = &self.row.logits[run * RUN..];
            let mut weights = [0.0; RUN];
            let weights = &mut weights[..logits.len().min(RUN)];
            dispatch(Weights {
                logits,
                max: self.row.max,
                inverse: self.inverse,
                out: weights,
                sums: &mut [0.0],
            });
            for (i, (&logit, &weight)) in logits.iter().zip(weights.iter()).enumerate() {
                if logit >= bound {
                    kept.push(Kept {
                        token: (run * RUN + i) as u32,
                        logit,
                        weight,
                    });
                }
            }
        }
        kept
    }
}

/// The block in which the cumulative weight exceeds `target`, and what is left of it there.
pub(super) fn block_of(sums: &[f64], target: f64) -> (usize, f64) {
    let mut rest = target;
    let mut block = 0;
    // The last block that has any weight takes what rounding leaves over.
    for (i, &sum) in sums.iter().enumerate().filter(|(_, sum)| **sum > 0.0) {
        block = i;
        if rest < sum {
            break;
        }
        rest -= sum;
    }
    (block, rest)
}

/// The sum of all weights and that of each block.
fn block_sums(logits: &[f32], max: f32, inverse: f32) -> (f64, Vec<f64>) {
    let mut sums = vec![0.0; logits.len().div_ceil(BLOCK)];
    dispatch(BlockSums {
        logits,
        max,
        inverse,
        sums: &mut sums,
    });
    (sums.iter().sum(), sums)
}

/// Maxima of runs; true if every logit is below infinity (and so none is NaN).
struct Scan<'a> {
    logits: &'a [f32],
    run_max: &'a mut [f32],
}

impl Kernel for Scan<'_> {
    type Output = bool;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> bool {
        let limit = simd.splat(f32::INFINITY);
        let (zero, one) = (simd.splat(0.0), simd.splat(1.0));
        let mut bad = zero;
        for (logits, out) in self.logits.chunks(RUN).zip(self.run_max) {
            let mut max = simd.splat(f32::NEG_INFINITY);
            let (vectors, rest) = logits.as_chunks::<LANES>();
            for x in vectors {
                let x = simd.load(x);
                bad = simd.select_lt((x, limit), bad, one);
                max = simd.max(x, max);
            }
            *out = simd.max_lane(max);
            for &x in rest {
                if x.is_nan() || x == f32::INFINITY {
                    return false;
                }
                *out = out.max(x);
            }
        }
        simd.max_lane(bad) == 0.0
    }
}

#[inline(always)]
fn weight<S: Simd>(simd: S, x: S::F, max: f32, inverse: f32) -> S::F {
    let scaled = simd.mul(simd.sub(x, simd.splat(max)), simd.splat(inverse));
    simd.exp(scaled)
}

struct BlockSums<'a> {
    logits: &'a [f32],
    max: f32,
    inverse: f32,
    sums: &'a mut [f64],
}

impl Kernel for BlockSums<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for (logits, out) in self.logits.chunks(BLOCK).zip(self.sums) {
            let (vectors, rest) = logits.as_chunks::<LANES>();
            let mut sum = simd.splat(0.0);
            for x in vectors {
                sum = simd.add(sum, weight(simd, simd.load(x), self.max, self.inverse));
            }
            *out = f64::from(simd.sum(sum));
            if !rest.is_empty() {
                let mut weights = [0.0; LANES];
                let x = simd.load_part(rest);
                simd.store(weight(simd, x, self.max, self.inverse), &mut weights);
                *out += weights[..rest.len()]
                    .iter()
                    .map(|&w| f64::from(w))
                    .sum::<f64>();
            }
        }
    }
}

/// The weights of the first `out.len()` logits, and the sums of as many blocks.
struct Weights<'a> {
    logits: &'a [f32],
    max: f32,
    inverse: f32,
    out: &'a mut [f32],
    sums: &'a mut [f64],
}

impl Kernel for Weights<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let blocks = self.logits.chunks(BLOCK).zip(self.out.chunks_mut(BLOCK));
        for ((logits, weights), total) in blocks.zip(self.sums) {
            let mut sum = simd.splat(0.0);
            for (x, out) in logits.chunks(LANES).zip(weights.chunks_mut(LANES)) {
                if let (Some(x), Some(out)) = (x.first_chunk(), out.first_chunk_mut()) {
                    let weight = weight(simd, simd.load(x), self.max, self.inverse);
                    sum = simd.add(sum, weight);
                    simd.store(weight, out);
                } else {
                    let weight = weight(simd, simd.load_part(x), self.max, self.inverse);
                    simd.store_part(weight, out);
                    sum = simd.add(sum, simd.load_part(out));
                }
            }
            *total = f64::from(simd.sum(sum));
        }
    }
}
