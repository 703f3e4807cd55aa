//! Examples become adapters or checkpoints, on the very weights that generate.
//!
//! - [`Network`]: a decoder with trained parts, forward and backward written out.
//! - [`Sequence`], [`Pack`]: what it is trained on, several sequences in one pass.
//! - [`PreferenceLoss`], [`Schedule`]: plain numbers.
//!
//! Losses, conventions and defaults are TRL's where TRL has them. This crate knows no scheduler
//! of requests and no recipe.

mod error;
mod loss;
mod network;
mod pack;
mod parameters;
mod schedule;

pub use error::{Result, TrainError};
pub use loss::{PairLoss, PairScores, PreferenceLoss, SftReduction};
pub use network::{Coefficients, LoraSettings, Network, PassOptions, Recompute, Targets};
pub use pack::{Pack, Sequence, best_fit};
pub use parameters::{Gradients, Kind, Parameter, ParameterId, Parameters, global_norm};
pub use schedule::{Schedule, Shape};
