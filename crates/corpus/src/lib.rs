//! The procedural corpus of the embedded model: a toy world, its requests with constraints,
//! answers of graded quality, and conversations for every role of the recipe.
//!
//! - `world.rs`, `task.rs`: what there is to say; `ask.rs`, `soft.rs`, `phrases.rs`: what can be
//!   demanded of it, in words that can be read again.
//! - `wish.rs`, `answer.rs`: answers that meet or break constraints, confirmed by `verify`.
//! - `document.rs`, `correct.rs`, `decif.rs`, `judge.rs`, `skill.rs`: conversations in the prompts' own words;
//!   `mix.rs`: how many.
//! - `split.rs`, `held_out.rs`, `score.rs`: what training never sees, and how it is scored;
//!   `answered.rs`, `report.rs`: a model's answers and their figures.
//!
//! Equal seeds give equal documents. Knows no model and no tokenizer.

mod answer;
mod answered;
mod ask;
mod correct;
mod decif;
mod dice;
mod document;
mod error;
mod held_out;
mod judge;
mod mix;
mod phrasebook;
mod phrases;
mod reason;
mod report;
mod scene;
mod score;
mod skill;
mod soft;
mod split;
mod task;
mod wish;
mod world;

pub use answered::{Answered, join};
pub use ask::{Ask, AskKind, RULES};
pub use document::{Corpus, Document};
pub use error::CorpusError;
pub use held_out::{Item, Set, Sizes};
pub use judge::balanced;
pub use mix::{Mix, Role, Roles};
pub use phrases::{read_demand, read_question};
pub use report::{Report, Share, Verdicts};
pub use score::{Score, score};
pub use soft::{Dimension, Soft};
pub use split::Split;
pub use task::Task;
pub use world::TOPICS;
