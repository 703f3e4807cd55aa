//! A network as one compute has it: its matrices and norms, and the way through them.

use super::block::{Block, Saved};
use super::compute::Compute;
use super::head::Coefficients;
use super::matrix::{Dropout, Matrix};
use super::vector::Vector;
use super::{PassOptions, Recompute};
use crate::Result;
use crate::pack::Pack;
use crate::parameters::{ParameterId, Parameters, Sums};
use kernels::training::TokenScore;
use model::ModelConfig;

/// Everything that is multiplied with.
#[derive(Debug)]
pub(super) struct Body<C: Compute> {
    pub(super) compute: C,
    pub(super) embedding: Matrix<C>,
    pub(super) blocks: Vec<Block<C>>,
    pub(super) norm: Vector<C>,
    /// `None` = the embedding.
    pub(super) output: Option<Matrix<C>>,
}

/// A layer's input, and what its backward pass reads unless that is computed again.
type Kept<A> = (A, Option<Saved<A>>);

/// What every body of a network shares.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    pub(super) config: &'a ModelConfig,
    pub(super) parameters: &'a Parameters,
}

/// What a layer needs to know besides its weights.
pub(super) struct Pass<'a, C: Compute> {
    pub(super) compute: &'a C,
    pub(super) config: &'a ModelConfig,
    pub(super) pack: C::Pack<'a>,
    /// Targets of the pack.
    pub(super) targets: usize,
    pub(super) dropout: Option<Dropout>,
    values: C::Values<'a>,
}

impl<C: Compute> Pass<'_, C> {
    pub(super) fn value(&self, id: ParameterId) -> &C::Array {
        C::value(&self.values, id)
    }

    pub(super) fn vector<'a>(&'a self, vector: &'a Vector<C>) -> &'a C::Array {
        match vector {
            Vector::Frozen(values) => values,
            Vector::Trained(id) => self.value(*id),
        }
    }
}

impl<C: Compute> Body<C> {
    pub(super) fn score(
        &self,
        facts: Facts<'_>,
        pack: &Pack,
        options: &PassOptions,
    ) -> Result<Vec<TokenScore>> {
        let pass = self.pass(facts, pack, None)?;
        let mut x = self.embed(&pass)?;
        for block in &self.blocks {
            x = block.forward(&pass, &x)?.0;
        }
        self.head_scores(&pass, &x, options)
    }

    pub(super) fn backward(
        &self,
        facts: Facts<'_>,
        (pack, dropout): (&Pack, Option<Dropout>),
        (coefficients, options): (Coefficients<'_>, &PassOptions),
        sums: &mut Sums<C::Array>,
    ) -> Result<Vec<TokenScore>> {
        let pass = self.pass(facts, pack, dropout)?;
        let mut x = self.embed(&pass)?;
        let mut kept: Vec<Kept<C::Array>> = vec![];
        for block in &self.blocks {
            let (above, saved) = block.forward(&pass, &x)?;
            let saved = (options.recompute == Recompute::Nothing).then_some(saved);
            kept.push((std::mem::replace(&mut x, above), saved));
        }
        let (scores, mut gradient) =
            self.head_backward(&pass, &x, (coefficients, options), sums)?;
        drop(x);
        for (block, (input, saved)) in self.blocks.iter().zip(kept).rev() {
            let saved = match saved {
                Some(saved) => saved,
                None => block.inside(&pass, &input)?,
            };
            gradient = block.backward(&pass, (&input, saved), gradient, sums)?;
        }
        if let Matrix::Trained { weight, .. } = &self.embedding {
            let (slot, table) = (sums.slot(*weight), pass.value(*weight));
            pass.compute
                .add_by_token(slot, table, &gradient, &pass.pack)?;
        }
        Ok(scores)
    }

    fn pass<'a>(
        &'a self,
        facts: Facts<'a>,
        pack: &'a Pack,
        dropout: Option<Dropout>,
    ) -> Result<Pass<'a, C>> {
        Ok(Pass {
            compute: &self.compute,
            config: facts.config,
            pack: self.compute.pack(pack)?,
            targets: pack.targets.len(),
            dropout,
            values: self.compute.values(facts.parameters)?,
        })
    }

    /// Rows of the embedding, (T, H).
    fn embed(&self, pass: &Pass<'_, C>) -> Result<C::Array> {
        match &self.embedding {
            Matrix::Frozen { base, .. } => pass.compute.embed(base, &pass.pack),
            Matrix::Trained { weight, .. } => {
                let table = pass.value(*weight);
                pass.compute.embed_trained(table, &pass.pack)
            }
        }
    }
}
