//! Drives rows through a recipe against any [`data::Generator`], losing nothing.
//!
//! A recipe is an async function of one row and an [`Llm`]: it asks, decides, writes
//! [`data::Record`]s, and ends the row. [`Run`] is the folder it happens in.
//!
//! - `llm.rs`: the handle. Each call is looked up by content and logged before it is used.
//! - `driver.rs`: many rows at once on one thread; outcomes in source order where it matters.
//! - `call_log.rs`: the SQLite log of calls and rows.
//! - `run.rs`, `manifest.rs`, `lock.rs`: the folder, what it was made with, who works in it.
//! - `export.rs`, `funnel.rs`: files and sums. `inspect.rs`, `merge.rs`: status, explanation,
//!   shards put together.
//! - `testing.rs`: a scripted generator for tests of recipes.
//!
//! Resuming is running the same code again: logged calls answer at once, finished rows are
//! not run. Knows neither which recipe nor which engine.

mod call_log;
mod driver;
mod error;
mod export;
mod funnel;
mod inspect;
mod llm;
mod lock;
mod manifest;
mod merge;
mod run;
pub mod testing;
mod ticker;

pub use driver::{Admit, AdmitAll, DriveOptions, Part, Progress, Report, Sourced, StopSignal};
pub use error::PipelineError;
pub use export::REJECTED_FILE;
pub use funnel::Funnel;
pub use inspect::{Explanation, InvocationUse, StageStatus, Status, explain, status};
pub use llm::{Llm, Roles, StageUse, Stop, Target, Wait, reject};
pub use manifest::{Manifest, OnChange, Shard};
pub use merge::merge;
pub use run::Run;
