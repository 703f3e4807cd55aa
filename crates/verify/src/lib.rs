//! Constraints and their checkers: text in, verdict out.
//!
//! The verdicts equal those of the Python reference implementations: the IFEval checkers of
//! lm-evaluation-harness 4e7e0d4 on CPython 3.11, NLTK 3.9.1 and langdetect 1.0.9 with seed 0.
//! One deliberate difference: the letter-frequency rule counts symbols such as `#` as given,
//! where that reference replaces them by a random letter.
//!
//! Knows no model, no file, no clock and draws no random number of its own.

mod args;
mod error;
pub mod ifbench;
pub mod ifeval;
mod keyword;
pub mod language;
pub mod livebench;
pub mod multi_if;
pub mod nltk;
pub mod python;
mod runner;
mod suite;

pub use error::Error;
pub use ifbench::IfBench;
pub use ifeval::{Constraint, Relation};
pub use keyword::Keyword;
pub use multi_if::MultiIf;
pub use runner::{Accuracy, Check, Judgement, Verdict, judge, loose, loose_variants, strict};
pub use suite::{Instruction, Suite};
