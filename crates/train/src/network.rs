//! A decoder in which some tensors are trained: an adapter beside frozen weights, or all of
//! them. Forward and backward are written out; no graph is recorded, so no gradient can get
//! lost in one.
//!
//! The backward pass goes from layer to layer. With [`Recompute::Layers`] only each layer's
//! input is kept on the way up, and a layer's inside is computed again on the way down (Chen et
//! al. 2016); memory then grows with one layer.

mod block;
mod body;
mod build;
mod compute;
#[cfg(feature = "device")]
pub(crate) mod cuda;
mod head;
mod host;
mod matrix;
mod need;
mod vector;

pub use build::{Base, LoraSettings, Targets};
pub use head::Coefficients;
pub use need::DeviceNeed;

use crate::pack::Pack;
use crate::parameters::{Gradients, Parameters};
use crate::{Result, TrainError};
use body::{Body, Facts, Pass};
use candle_core::Tensor;
use host::Host;
use kernels::training::TokenScore;
use matrix::{Dropout, Lora};
use model::{ModelConfig, Projection};
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

/// A model with trained parts.
#[derive(Debug)]
pub struct Network {
    config: ModelConfig,
    parameters: Parameters,
    /// The adapter's matrices, by layer and projection.
    loras: BTreeMap<(usize, Projection), Lora>,
    dropout: f64,
    /// Longest sequence.
    positions: usize,
    place: Place,
}

/// Where the weights are.
#[derive(Debug)]
enum Place {
    Host(Body<Host>),
    #[cfg(feature = "device")]
    Device(Box<Body<cuda::Cuda>>),
}

/// Memory of a device that training has taken, beside the frozen weights, in bytes; by the count
/// of whoever hands it out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeviceUse {
    /// In use now.
    pub live: u64,
    /// In use at most, since the network was made or [`Network::begin_peak`].
    pub peak: u64,
    /// Kept for arrays to come; freed where it is needed for others.
    pub kept: u64,
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
        self.check(pack)?;
        match &self.place {
            Place::Host(body) => body.score(self.facts(), pack, options),
            #[cfg(feature = "device")]
            Place::Device(body) => body.score(self.facts(), pack, options),
        }
    }

    /// Adds the gradient of `sum of coefficient * log-probability` over the pack's trained tokens
    /// to `gradients`; gives what [`Network::score`] gives. Those of a network on a device stay
    /// there: [`Gradients::come_home`].
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
        self.check(pack)?;
        let dropout = (self.dropout > 0.0).then_some(Dropout {
            probability: self.dropout,
            key: options.dropout_key,
        });
        let how = (coefficients, options);
        let (facts, pack) = (self.facts(), (pack, dropout));
        match &self.place {
            Place::Host(body) => body.backward(facts, pack, how, gradients.host()),
            #[cfg(feature = "device")]
            Place::Device(body) => body.backward(facts, pack, how, gradients.on_device()),
        }
    }

    /// Whether it is on a device: passes then come one after the other, and their gradients stay
    /// there until they come home.
    pub fn is_on_device(&self) -> bool {
        match &self.place {
            Place::Host(_) => false,
            #[cfg(feature = "device")]
            Place::Device(_) => true,
        }
    }

    /// Memory in use on the device, if it is on one.
    pub fn device_use(&self) -> Option<DeviceUse> {
        match &self.place {
            Place::Host(_) => None,
            #[cfg(feature = "device")]
            Place::Device(body) => Some(body.compute.used()),
        }
    }

    /// Lets the peak of [`Network::device_use`] be what is in use now.
    pub fn begin_peak(&self) {
        match &self.place {
            Place::Host(_) => {}
            #[cfg(feature = "device")]
            Place::Device(body) => body.compute.begin_peak(),
        }
    }

    /// Lets no more than so many bytes be in use on the device beside the frozen weights; what
    /// needs more fails.
    #[cfg_attr(
        not(feature = "device"),
        expect(unused_variables, reason = "there is no device without the feature")
    )]
    pub fn limit_memory(&self, bytes: u64) {
        match &self.place {
            Place::Host(_) => {}
            #[cfg(feature = "device")]
            Place::Device(body) => body.compute.limit(bytes),
        }
    }

    fn facts(&self) -> Facts<'_> {
        Facts {
            config: &self.config,
            parameters: &self.parameters,
        }
    }

    fn check(&self, pack: &Pack) -> Result<()> {
        let longest = pack.segments.iter().max().copied().unwrap_or(0);
        if longest > self.positions {
            let expected = format!("at most {} tokens", self.positions);
            return Err(TrainError::setting("sequence", expected, longest));
        }
        let vocab = self.config.vocab_size;
        if let Some(token) = pack.tokens.iter().find(|token| **token as usize >= vocab) {
            let expected = format!("below the vocabulary's {vocab}");
            return Err(TrainError::setting("token", expected, token));
        }
        Ok(())
    }
}
