//! What is kept out of the data, each with a name.

mod contamination;
mod language;
mod near_duplicates;
mod refusal;

pub use contamination::Contamination;
pub use language::language_of;
pub use near_duplicates::NearDuplicates;
pub use refusal::is_refusal;

/// Lower-case words of letters and digits.
pub(crate) fn words(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}
