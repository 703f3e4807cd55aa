//! A decoder in which some tensors are trained: an adapter beside frozen weights, or all of
//! them. Forward and backward are written out; no graph is recorded, so no gradient can get
//! lost in one.
//!
//! The backward pass goes from layer to layer. With [`Recompute::Layers`] only each layer's
//! input is kept on the way up, and a layer's inside is computed again on the way down (Chen et
//! al. 2016); memory then grows with one layer.

mod block;
mod build;
mod head;
mod matrix;

pub use build::{LoraSettings, Targets};
pub use head::Coefficients;

use crate::pack::Pack;
use crate::parameters::{Gradients, ParameterId, Parameters};
use crate::{Result, TrainError};
use block::{Block, Saved};
use candle_core::{Device, Tensor};
use kernels::Rope;
use kernels::training::TokenScore;
use matrix::{Dropout, Matrix};
use model::ModelConfig;
use std::collections::BTreeMap;

/// What is kept between the two directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Recompute {
    /// Inputs of layers: least memory, one forward pass more.
    #[default]
    Layers,
    /// Everything.
    Nothing,
}

/// How one pass is computed, besides what it computes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PassOptions {
    /// What is kept between the two directions.
    pub recompute: Recompute,
    /// Rows of logits that exist at a time; `None` = as many as 64 MiB hold.
    pub logit_rows: Option<usize>,
    /// Which numbers dropout draws; the same key draws the same. Only adapters drop out.
    pub dropout_key: u64,
}

/// A norm's weight or a bias.
#[derive(Debug)]
enum Vector {
    Frozen(Tensor),
    Trained(ParameterId),
}

/// A model with trained parts.
#[derive(Debug)]
pub struct Network {
    config: ModelConfig,
    rope: Rope,
    /// Turns back.
    unrope: Rope,
    embedding: Matrix,
    blocks: Vec<Block>,
    norm: Vector,
    /// `None` = the embedding.
    output: Option<Matrix>,
    parameters: Parameters,
    dropout: f64,
}

/// What a layer needs to know besides its weights.
struct Pass<'a> {
    config: &'a ModelConfig,
    rope: &'a Rope,
    unrope: &'a Rope,
    parameters: &'a Parameters,
    segments: &'a [usize],
    positions: &'a [u32],
    dropout: Option<Dropout>,
}

impl Pass<'_> {
    fn vector<'a>(&'a self, vector: &'a Vector) -> &'a Tensor {
        match vector {
            Vector::Frozen(values) => values,
            Vector::Trained(id) => self.parameters.value(*id),
        }
    }
}

impl Vector {
    fn add_gradient(&self, gradient: Tensor, gradients: &mut Gradients) -> Result<()> {
        match self {
            Self::Frozen(_) => Ok(()),
            Self::Trained(id) => gradients.add(*id, gradient),
        }
    }
}

impl Network {
    /// What the model is made of.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// What is trained.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Replaces all that is trained.
    ///
    /// # Errors
    /// A name that is missing or too many, another shape.
    pub fn set_parameters(&mut self, values: BTreeMap<String, Tensor>) -> Result<()> {
        self.parameters.restore(values)
    }

    /// Log-probability and more of every trained token of the pack, in the order of its rows.
    /// Nothing is kept and nothing drops out.
    ///
    /// # Errors
    /// A token outside of the vocabulary, a sequence that is too long, a kernel that fails.
    pub fn score(&self, pack: &Pack, options: &PassOptions) -> Result<Vec<TokenScore>> {
        let pass = self.pass(pack, None)?;
        let mut x = self.embed(pack)?;
        for block in &self.blocks {
            (x, _) = block.forward(&pass, &x)?;
        }
        self.head_scores(&pass, &x, pack, options)
    }

    /// Adds the gradient of `sum of coefficient * log-probability` over the pack's trained tokens
    /// to `gradients`; gives what [`Network::score`] gives.
    ///
    /// # Errors
    /// As [`Network::score`].
    pub fn backward(
        &self,
        pack: &Pack,
        coefficients: Coefficients<'_>,
        options: &PassOptions,
        gradients: &mut Gradients,
    ) -> Result<Vec<TokenScore>> {
        let dropout = (self.dropout > 0.0).then_some(Dropout {
            probability: self.dropout,
            key: options.dropout_key,
        });
        let pass = self.pass(pack, dropout)?;
        let mut x = self.embed(pack)?;
        let mut kept: Vec<(Tensor, Option<Saved>)> = Vec::with_capacity(self.blocks.len());
        for block in &self.blocks {
            let (above, saved) = block.forward(&pass, &x)?;
            let saved = (options.recompute == Recompute::Nothing).then_some(saved);
            kept.push((std::mem::replace(&mut x, above), saved));
        }
        let (scores, mut gradient) =
            self.head_backward(&pass, &x, pack, (coefficients, options), gradients)?;
        drop(x);
        for (block, (input, saved)) in self.blocks.iter().zip(kept).rev() {
            let saved = match saved {
                Some(saved) => saved,
                None => block.forward(&pass, &input)?.1,
            };
            gradient = block.backward(&pass, &input, &saved, &gradient, gradients)?;
        }
        self.embedding_backward(pack, &gradient, gradients)?;
        Ok(scores)
    }

    fn pass<'a>(&'a self, pack: &'a Pack, dropout: Option<Dropout>) -> Result<Pass<'a>> {
        let longest = pack.segments.iter().max().copied().unwrap_or(0);
        if longest > self.rope.positions() {
            let expected = format!("at most {} tokens", self.rope.positions());
            return Err(TrainError::setting("sequence", expected, longest));
        }
        Ok(Pass {
            config: &self.config,
            rope: &self.rope,
            unrope: &self.unrope,
            parameters: &self.parameters,
            segments: &pack.segments,
            positions: &pack.positions,
            dropout,
        })
    }

    /// Rows of the embedding, (T, H).
    fn embed(&self, pack: &Pack) -> Result<Tensor> {
        let vocab = self.config.vocab_size;
        if let Some(token) = pack.tokens.iter().find(|token| **token as usize >= vocab) {
            let expected = format!("below the vocabulary's {vocab}");
            return Err(TrainError::setting("token", expected, token));
        }
        match &self.embedding {
            Matrix::Frozen { base, .. } => Ok(base.rows(&pack.tokens)?),
            Matrix::Trained { weight, .. } => {
                let ids = Tensor::new(pack.tokens.as_slice(), &Device::Cpu)?;
                Ok(self.parameters.value(*weight).index_select(&ids, 0)?)
            }
        }
    }

    fn embedding_backward(
        &self,
        pack: &Pack,
        gradient: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<()> {
        let Matrix::Trained { weight, .. } = &self.embedding else {
            return Ok(());
        };
        let ids = Tensor::new(pack.tokens.as_slice(), &Device::Cpu)?;
        let zeros = self.parameters.value(*weight).zeros_like()?;
        gradients.add(*weight, zeros.index_add(&ids, gradient, 0)?)
    }
}
