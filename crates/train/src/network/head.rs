//! The last norm, the output matrix and the log-probabilities, for some rows at a time: all
//! logits of a pack never exist (1,024 rows of 128,256 in f32 are 525 MB, several times over).

use super::body::Body;
use super::compute::{Compute, Form};
use super::matrix::Matrix;
use super::{Pass, PassOptions};
use crate::Result;
use crate::pack::stretches;
use crate::parameters::Sums;
use kernels::training::TokenScore;
use std::ops::Range;

/// Bytes of logits that exist at a time, unless rows are given.
const LOGIT_BYTES: usize = 64 << 20;

/// The derivative of the loss by each trained token's log-probability.
pub enum Coefficients<'a> {
    /// Known before anything is computed: one pass over the logits does.
    Known(&'a [f32]),
    /// A function of all the log-probabilities of the pack: logits are computed twice.
    From(&'a mut dyn FnMut(&[TokenScore]) -> Result<Vec<f32>>),
}

/// Rows of logits that exist at a time.
pub(super) fn logit_rows(options: &PassOptions, vocab_size: usize) -> usize {
    let fit = LOGIT_BYTES / (vocab_size * size_of::<f32>());
    options.logit_rows.unwrap_or(fit).max(1)
}

impl<C: Compute> Body<C> {
    /// Scores of the pack's targets, for the last layer's output `x` (T, H).
    pub(super) fn head_scores(
        &self,
        pass: &Pass<'_, C>,
        x: &C::Array,
        options: &PassOptions,
    ) -> Result<Vec<TokenScore>> {
        let (_, normed) = self.wanted(pass, x)?;
        self.scores_of(pass, &normed, options)
    }

    /// Scores of the pack's targets, and the gradient of `x` (T, H).
    pub(super) fn head_backward(
        &self,
        pass: &Pass<'_, C>,
        x: &C::Array,
        (coefficients, options): (Coefficients<'_>, &PassOptions),
        sums: &mut Sums<C::Array>,
    ) -> Result<(Vec<TokenScore>, C::Array)> {
        let (rows, normed) = self.wanted(pass, x)?;
        let computed;
        let (known, coefficients) = match coefficients {
            Coefficients::Known(coefficients) => (None, coefficients),
            Coefficients::From(function) => {
                let scores = self.scores_of(pass, &normed, options)?;
                computed = function(&scores)?;
                (Some(scores), computed.as_slice())
            }
        };
        let compute = pass.compute;
        let slopes = compute.slopes(coefficients)?;
        let (mut scores, mut parts) = (vec![], vec![]);
        for range in self.stretches(pass, options) {
            let part = compute.rows(&normed, range.clone())?;
            let logits = self.logits(pass, &part)?;
            if known.is_none() {
                scores.push(compute.score_targets(&logits, &pass.pack, range.clone())?);
            }
            let gradient = compute.target_gradient(logits, &pass.pack, range, &slopes)?;
            parts.push(self.output_backward(pass, (&part, &gradient), sums)?);
        }
        let scores = match known {
            Some(known) => known,
            None => compute.read_scores(scores)?,
        };
        if parts.is_empty() {
            return Ok((scores, compute.zeros_like(x)?));
        }
        let of_normed = compute.stack(&parts)?;
        drop(parts);
        let (weight, eps) = (pass.vector(&self.norm), pass.config.rms_norm_eps);
        let slot = self.norm.slot(sums);
        let of_rows = compute.rms_norm_backward((&rows, weight), &of_normed, eps, slot)?;
        Ok((scores, compute.scatter_wanted(&of_rows, x, &pass.pack)?))
    }

    /// Rows of `x` that targets are read from, as they are and normalised.
    fn wanted(&self, pass: &Pass<'_, C>, x: &C::Array) -> Result<(C::Array, C::Array)> {
        let rows = pass.compute.wanted_rows(x, &pass.pack)?;
        let (weight, eps) = (pass.vector(&self.norm), pass.config.rms_norm_eps);
        let normed = pass.compute.rms_norm(&rows, weight, eps)?;
        Ok((rows, normed))
    }

    fn scores_of(
        &self,
        pass: &Pass<'_, C>,
        normed: &C::Array,
        options: &PassOptions,
    ) -> Result<Vec<TokenScore>> {
        let compute = pass.compute;
        let mut scores = vec![];
        for range in self.stretches(pass, options) {
            let logits = self.logits(pass, &compute.rows(normed, range.clone())?)?;
            scores.push(compute.score_targets(&logits, &pass.pack, range)?);
        }
        compute.read_scores(scores)
    }

    fn stretches(
        &self,
        pass: &Pass<'_, C>,
        options: &PassOptions,
    ) -> impl Iterator<Item = Range<usize>> + use<C> {
        stretches(pass.targets, logit_rows(options, pass.config.vocab_size))
    }

    fn output_matrix(&self) -> &Matrix<C> {
        self.output.as_ref().unwrap_or(&self.embedding)
    }

    /// (rows, V) for (rows, H).
    fn logits(&self, pass: &Pass<'_, C>, normed: &C::Array) -> Result<C::Array> {
        match self.output_matrix() {
            Matrix::Frozen { base, .. } => pass.compute.product(base, normed),
            Matrix::Trained { weight, .. } => {
                let factors = (normed, pass.value(*weight));
                pass.compute.matmul(factors, Form::ABt, 1.0)
            }
        }
    }

    /// The gradient (rows, H) of `normed`, for the gradient (rows, V) of its logits.
    fn output_backward(
        &self,
        pass: &Pass<'_, C>,
        (normed, gradient): (&C::Array, &C::Array),
        sums: &mut Sums<C::Array>,
    ) -> Result<C::Array> {
        let compute = pass.compute;
        match self.output_matrix() {
            Matrix::Frozen { base, .. } => compute.product_backward(base, gradient),
            Matrix::Trained { weight, .. } => {
                compute.add_outer(sums.slot(*weight), gradient, normed)?;
                compute.matmul((gradient, pass.value(*weight)), Form::AB, 1.0)
            }
        }
    }
}
