//! The last norm, the output matrix and the log-probabilities, for some rows at a time: all
//! logits of a pack never exist (1,024 rows of 128,256 in f32 are 525 MB, several times over).

use super::matrix::{Matrix, frozen_backward, frozen_product};
use super::{Network, Pass, PassOptions};
use crate::Result;
use crate::pack::{Pack, stretches};
use crate::parameters::Gradients;
use candle_core::{Device, Tensor};
use kernels::rms_norm;
use kernels::training::{TokenScore, rms_norm_backward, score_targets, target_gradient};
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

impl Network {
    /// Scores of the pack's targets, for the last layer's output `x` (T, H).
    pub(super) fn head_scores(
        &self,
        pass: &Pass<'_>,
        x: &Tensor,
        pack: &Pack,
        options: &PassOptions,
    ) -> Result<Vec<TokenScore>> {
        let (_, normed) = self.wanted_rows(pass, x, pack)?;
        self.scores_of(&normed, pack, options)
    }

    /// Scores of the pack's targets, and the gradient of `x` (T, H).
    pub(super) fn head_backward(
        &self,
        pass: &Pass<'_>,
        x: &Tensor,
        pack: &Pack,
        (coefficients, options): (Coefficients<'_>, &PassOptions),
        gradients: &mut Gradients,
    ) -> Result<(Vec<TokenScore>, Tensor)> {
        let (rows, normed) = self.wanted_rows(pass, x, pack)?;
        let computed;
        let (known, coefficients) = match coefficients {
            Coefficients::Known(coefficients) => (None, coefficients),
            Coefficients::From(function) => {
                let scores = self.scores_of(&normed, pack, options)?;
                computed = function(&scores)?;
                (Some(scores), computed.as_slice())
            }
        };
        let mut scores = Vec::with_capacity(pack.targets.len());
        let mut parts = vec![];
        for range in stretches(pack.targets.len(), self.logit_rows(options)) {
            let targets = tokens(pack, &range);
            let part = normed.narrow(0, range.start, range.len())?;
            let logits = self.logits(&part)?;
            if known.is_none() {
                scores.extend(score_targets(&logits, &targets)?);
            }
            target_gradient(&logits, &targets, &coefficients[range])?;
            parts.push(self.output_backward(&part, &logits, gradients)?);
        }
        let zeros = x.zeros_like()?;
        if parts.is_empty() {
            return Ok((scores, zeros));
        }
        let of_normed = Tensor::cat(&parts, 0)?;
        let weight = pass.vector(&self.norm);
        let found = rms_norm_backward(&rows, weight, &of_normed, pass.config.rms_norm_eps)?;
        self.norm.add_gradient(found.weight, gradients)?;
        let gradient = zeros.index_add(&row_ids(pack)?, &found.x, 0)?;
        Ok((known.unwrap_or(scores), gradient))
    }

    /// Rows of `x` that targets are read from, as they are and normalised.
    fn wanted_rows(&self, pass: &Pass<'_>, x: &Tensor, pack: &Pack) -> Result<(Tensor, Tensor)> {
        let rows = x.index_select(&row_ids(pack)?, 0)?;
        let normed = rms_norm(&rows, pass.vector(&self.norm), pass.config.rms_norm_eps)?;
        Ok((rows, normed))
    }

    fn scores_of(
        &self,
        normed: &Tensor,
        pack: &Pack,
        options: &PassOptions,
    ) -> Result<Vec<TokenScore>> {
        let mut scores = Vec::with_capacity(pack.targets.len());
        for range in stretches(pack.targets.len(), self.logit_rows(options)) {
            let logits = self.logits(&normed.narrow(0, range.start, range.len())?)?;
            scores.extend(score_targets(&logits, &tokens(pack, &range))?);
        }
        Ok(scores)
    }

    fn logit_rows(&self, options: &PassOptions) -> usize {
        let fit = LOGIT_BYTES / (self.config.vocab_size * size_of::<f32>());
        options.logit_rows.unwrap_or(fit).max(1)
    }

    fn output_matrix(&self) -> &Matrix {
        self.output.as_ref().unwrap_or(&self.embedding)
    }

    /// (rows, V) for (rows, H).
    fn logits(&self, normed: &Tensor) -> Result<Tensor> {
        match self.output_matrix() {
            Matrix::Frozen { base, .. } => frozen_product(base, &normed.contiguous()?),
            Matrix::Trained { weight, .. } => {
                Ok(normed.matmul(&self.parameters.value(*weight).t()?)?)
            }
        }
    }

    /// The gradient (rows, H) of `normed`, for the gradient (rows, V) of its logits.
    fn output_backward(
        &self,
        normed: &Tensor,
        gradient: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        match self.output_matrix() {
            Matrix::Frozen { base, .. } => frozen_backward(base, gradient),
            Matrix::Trained { weight, .. } => {
                gradients.add(*weight, gradient.t()?.matmul(normed)?)?;
                Ok(gradient.matmul(self.parameters.value(*weight))?)
            }
        }
    }
}

fn tokens(pack: &Pack, range: &Range<usize>) -> Vec<u32> {
    let targets = pack.targets[range.clone()].iter();
    targets.map(|target| target.token).collect()
}

fn row_ids(pack: &Pack) -> Result<Tensor> {
    let rows: Vec<u32> = pack.targets.iter().map(|target| target.row).collect();
    Ok(Tensor::new(rows, &Device::Cpu)?)
}
