//! Examples become adapters or checkpoints, on the very weights that generate.
//!
//! - [`Renderer`]: conversations become [`Sequence`]s: token ids, and which of them are trained.
//! - [`Network`]: a decoder with trained parts, forward and backward written out.
//! - [`step`]: the loss of some rows and its gradients; [`PreferenceLoss`] is plain numbers.
//! - [`run`]: steps, measurements and checkpoints; goes on after any interruption.
//! - [`train_tokenizer`]: the vocabulary of a model that begins from nothing.
//! - [`WeightsForm`], [`merge`]: what comes out, as PEFT and transformers read it.
//!
//! Losses, conventions and defaults are TRL's where TRL has them. This crate knows no scheduler
//! of requests and no recipe.

mod checkpoint;
mod error;
mod items;
mod loss;
mod merge;
mod network;
mod objective;
mod optimizer;
mod pack;
mod parameters;
mod rendering;
mod run;
mod schedule;
mod tokenizer;
mod weights_file;

pub use error::{Result, TrainError};
pub use items::{Batch, Item, ItemTokens, digest};
pub use kernels::training::TokenScore;
pub use loss::{PairLoss, PairScores, PreferenceLoss, SftReduction};
pub use merge::{Merged, merge};
pub use network::{
    Base, Coefficients, DeviceNeed, DeviceUse, LoraSettings, Network, PassOptions, Recompute,
    Targets,
};
pub use objective::{
    Objective, PairSums, Preference, ReferenceScores, StepOptions, StepSums, evaluate, score_pairs,
    step,
};
pub use optimizer::{MuonSettings, OptimizerSettings};
pub use pack::{Pack, Sequence, best_fit};
pub use parameters::{Gradients, Kind, Parameter, ParameterId, Parameters, global_norm};
pub use rendering::{Dropped, Pair, Renderer, TrainOn};
pub use run::{Finished, Observer, RunData, RunSettings, StepReport, Warmup, plan_steps, run};
pub use schedule::{Schedule, Shape};
pub use tokenizer::train_tokenizer;
pub use weights_file::{WeightsForm, companions};
