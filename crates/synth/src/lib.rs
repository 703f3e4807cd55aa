//! The papers' recipes as straight-line code over the pipeline's durable handle.
//!
//! - `prompts.rs`: what is said to the model, from the folder `prompts/`.
//! - `rules/`: which constraints in words a checker of `verify` judges.
//! - `decif.rs`: DecIF, from nothing but a model to verified pairs.
//! - `ultraif.rs`: UltraIF, from real prompts to verified pairs.
//! - `complex_to_simple.rs`: From Complex to Simple, answers corrected until rules hold.
//! - `outputs.rs`, `judging.rs`, `answers.rs`: JSON by grammar, verdicts, samples in waves: what
//!   recipes share.
//! - `filters/`: refusals, language, contamination, near-duplicates.
//! - `seeds.rs`: the built-in prompts for trying things out.
//!
//! Knows no tensor and no engine.

mod answers;
mod asking;
pub mod complex_to_simple;
pub mod decif;
pub mod filters;
mod judging;
mod outputs;
pub mod prompts;
pub mod rules;
pub mod seeds;
pub mod ultraif;
