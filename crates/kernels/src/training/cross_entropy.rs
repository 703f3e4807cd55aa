//! Log-probabilities of given tokens, and their gradient, for some rows of logits at a time.

use super::attention::exp_and_sum;
use super::host::host;
use crate::cpu;
use crate::error::{KernelError, Result, matrix};
use crate::parallel::{self, Shared};
use crate::simd::{Kernel, LANES, Simd, dispatch};
use candle_core::{CpuStorage, InplaceOp1, Layout, Tensor};
use std::cell::RefCell;

/// What a row of logits says about the token that came.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct TokenScore {
    /// Natural logarithm of the token's probability.
    pub log_prob: f32,
    /// Entropy of the whole distribution, in nats.
    pub entropy: f32,
    /// Mean of the row's logits.
    pub mean_logit: f32,
    /// No other token is likelier.
    pub is_top: bool,
}

/// Scores `targets` (R) by `logits` (R, V), f32: the log-softmax at each target, with the sum
/// over the vocabulary in f32, sixteen partial sums a row.
///
/// # Errors
/// Wrong shapes, types or strides; a target outside of the vocabulary.
pub fn score_targets(logits: &Tensor, targets: &[u32]) -> Result<Vec<TokenScore>> {
    let op = "score_targets";
    let (rows, vocab) = check(op, logits, targets)?;
    let logits = host(op, "logits", logits, &[rows, vocab])?;
    let mut scores = vec![TokenScore::default(); rows];
    let out = Shared::new(&mut scores);
    parallel::ranges(rows, rows * vocab * 8, |range| {
        for row in range {
            #[expect(unsafe_code, reason = "threads write disjoint parts of one output")]
            // SAFETY: each row is handed out once.
            let out = unsafe { out.slice(row..row + 1) };
            let logits = &logits[row * vocab..(row + 1) * vocab];
            out[0] = SCRATCH.with_borrow_mut(|scratch| {
                scratch.clear();
                scratch.extend_from_slice(logits);
                dispatch(Score {
                    logits,
                    scratch,
                    target: targets[row] as usize,
                })
            });
        }
    });
    Ok(scores)
}

/// Turns `logits` (R, V) in place into the gradient of `sum of coefficients[r] * log_prob[r]`:
/// row r becomes `coefficients[r] * (one_hot(targets[r]) - softmax(logits[r]))`.
///
/// # Errors
/// Wrong shapes, types or strides; a target outside of the vocabulary.
pub fn target_gradient(logits: &Tensor, targets: &[u32], coefficients: &[f32]) -> Result<()> {
    let op = "target_gradient";
    check(op, logits, targets)?;
    if coefficients.len() != targets.len() {
        let (got, expected) = (coefficients.len(), targets.len());
        let problem = format!("{got} coefficients for {expected} targets");
        return Err(KernelError::Invalid { op, problem });
    }
    Ok(logits.inplace_op1(&TargetGradient {
        targets,
        coefficients,
    })?)
}

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

fn check(op: &'static str, logits: &Tensor, targets: &[u32]) -> Result<(usize, usize)> {
    let (rows, vocab) = matrix(op, "logits", logits)?;
    if rows != targets.len() {
        let problem = format!("{rows} rows of logits for {} targets", targets.len());
        return Err(KernelError::Invalid { op, problem });
    }
    match targets.iter().find(|target| **target as usize >= vocab) {
        Some(target) => Err(KernelError::OutOfRange {
            op,
            what: "target",
            index: *target as usize,
            len: vocab,
        }),
        None => Ok((rows, vocab)),
    }
}

/// One row; `scratch` is a copy of it.
struct Score<'a> {
    logits: &'a [f32],
    scratch: &'a mut [f32],
    target: usize,
}

impl Kernel for Score<'_> {
    type Output = TokenScore;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> TokenScore {
        let top = largest(simd, self.logits);
        let total = exp_and_sum(simd, self.scratch, top);
        let (mut weighted, mut plain) = (simd.splat(0.0), simd.splat(0.0));
        let shift = simd.splat(top);
        let (x, x_rest) = self.logits.as_chunks::<LANES>();
        let (e, e_rest) = self.scratch.as_chunks::<LANES>();
        for (x, e) in x.iter().zip(e) {
            let x = simd.load(x);
            // The smallest finite value in place of an impossible token's -inf: 0 * -inf is NaN.
            let below = simd.max(simd.sub(x, shift), simd.splat(f32::MIN));
            weighted = simd.mul_add(simd.load(e), below, weighted);
            plain = simd.add(plain, x);
        }
        let (mut weighted, mut plain) = (simd.sum(weighted), simd.sum(plain));
        for (x, e) in x_rest.iter().zip(e_rest) {
            weighted += e * (x - top).max(f32::MIN);
            plain += x;
        }
        TokenScore {
            log_prob: self.logits[self.target] - top - total.ln(),
            entropy: total.ln() - weighted / total,
            mean_logit: plain / self.logits.len() as f32,
            is_top: self.logits[self.target] >= top,
        }
    }
}

#[inline(always)]
fn largest<S: Simd>(simd: S, values: &[f32]) -> f32 {
    let mut top = simd.splat(f32::NEG_INFINITY);
    let (vectors, rest) = values.as_chunks::<LANES>();
    for x in vectors {
        top = simd.max(simd.load(x), top);
    }
    rest.iter().fold(simd.max_lane(top), |top, x| x.max(top))
}

struct TargetGradient<'a> {
    targets: &'a [u32],
    coefficients: &'a [f32],
}

impl InplaceOp1 for TargetGradient<'_> {
    fn name(&self) -> &'static str {
        "target_gradient"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let (rows, vocab) = layout.shape().dims2()?;
        let logits = cpu::slice_mut::<f32>(storage, layout)?;
        let shared = Shared::new(logits);
        parallel::ranges(rows, rows * vocab * 8, |range| {
            for row in range {
                #[expect(unsafe_code, reason = "threads write disjoint parts of one output")]
                // SAFETY: each row is handed out once.
                let logits = unsafe { shared.slice(row * vocab..(row + 1) * vocab) };
                dispatch(Slope {
                    logits,
                    target: self.targets[row] as usize,
                    coefficient: self.coefficients[row],
                });
            }
        });
        Ok(())
    }
}

/// One row.
struct Slope<'a> {
    logits: &'a mut [f32],
    target: usize,
    coefficient: f32,
}

impl Kernel for Slope<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let top = largest(simd, self.logits);
        let total = exp_and_sum(simd, self.logits, top);
        let factor = -self.coefficient / total;
        let lanes = simd.splat(factor);
        let (vectors, rest) = self.logits.as_chunks_mut::<LANES>();
        for x in vectors {
            let scaled = simd.mul(simd.load(x), lanes);
            simd.store(scaled, x);
        }
        for x in rest {
            *x *= factor;
        }
        self.logits[self.target] += self.coefficient;
    }
}
