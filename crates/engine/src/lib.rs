//! Requests become completions: scheduler, block manager, prefix cache, forks, sampling,
//! grammars and the loop that ties them to a model.
//!
//! Knows no dataset, recipe, file or network.
//!
//! 1. [`Engine::start`] gives a model a thread of its own, [`Engine::start_replicas`] each of
//!    several.
//! 2. [`data::Generator::generate`] and [`data::Generator::score`] ask; the answer is a
//!    [`data::Pending`].
//! 3. Inside, [`scheduler::Scheduler`] decides a step, the model computes it, samples are
//!    drawn, and the scheduler commits.

mod config;
mod engine;
mod error;
mod stats;
mod text;

mod decoding;
mod grammar;
mod jobs;
mod replicas;
mod stop_strings;
mod worker;

pub mod scheduler;
pub mod sequence;

mod block_manager;

pub use config::{EngineConfig, Overlap};
pub use engine::{Engine, OnText, TextChunk};
pub use error::EngineError;
pub use stats::EngineStats;
pub use text::{TemplateVariables, Text};
