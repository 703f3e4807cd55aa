//! Composing constraints for synthesis: draw them, know which exclude which, say them in
//! words, and check the saying.
//!
//! - [`sample`] draws the parameters of one type, [`compose`] a list that one answer can meet,
//!   [`Choice`] such a list of given types beside what holds already.
//! - [`types_exclude`] is the table of types, [`conflict`] adds the rules on parameters.
//! - [`describe`] and [`phrasings`] put a constraint into words; [`mentions_parameters`] tells
//!   whether a reworded instruction still carries them.
//! - [`satisfying_text`] and [`violating_text`] build the two sides that a check must tell
//!   apart.
//!
//! Pure functions of their arguments: randomness is the caller's seed or closure.

mod conflict;
mod demands;
mod describe;
pub mod draws;
mod exclusions;
mod kind;
mod languages;
mod lists;
mod mention;
mod numbers;
mod sample;
mod satisfy;
mod violate;
mod words;

#[cfg(test)]
mod tests;

pub use conflict::{Conflict, conflict};
pub use describe::{describe, phrasings};
pub use draws::Draws;
pub use exclusions::types_exclude;
pub use kind::Kind;
pub use languages::{LANGUAGES, Language, Script, by_code};
pub use lists::{Choice, DrawOne, compose, compose_with};
pub use mention::{Missing, mentions_parameters};
pub use sample::{Material, sample};
pub use satisfy::satisfying_text;
pub use violate::violating_text;

/// Whether the text is not blank and passes the check as it is.
fn holds(constraint: &crate::Constraint, text: &str) -> bool {
    crate::strict(std::slice::from_ref(constraint), text)
        .iter()
        .all(|verdict| verdict.followed)
}
