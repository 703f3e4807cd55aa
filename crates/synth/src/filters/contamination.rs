//! Instructions that repeat a benchmark: 13 words in a row in common, as UltraIF's appendix
//! measures it.

use super::words;
use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

/// Words in a row.
const N: usize = 13;

/// The runs of words of a benchmark.
#[derive(Debug, Clone, Default)]
pub struct Contamination(HashSet<u64>);

impl Contamination {
    /// Remembers the runs of `prompts`; a prompt of fewer words is remembered whole.
    pub fn new<'a>(prompts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut runs = HashSet::new();
        for prompt in prompts {
            runs.extend(hashes(&words(prompt)));
        }
        Self(runs)
    }

    /// Does the text share a run with the benchmark?
    pub fn contains(&self, text: &str) -> bool {
        !self.0.is_empty() && hashes(&words(text)).any(|run| self.0.contains(&run))
    }
}

fn hashes(words: &[String]) -> impl Iterator<Item = u64> {
    let hasher = BuildHasherDefault::<DefaultHasher>::default();
    let whole = (!words.is_empty() && words.len() < N).then(|| hasher.hash_one(words));
    words
        .windows(N)
        .map(move |run| hasher.hash_one(run))
        .chain(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thirteen_words_in_a_row() {
        let text = |from: usize, to: usize| {
            let words: Vec<String> = (from..to).map(|n| format!("w{n}")).collect();
            words.join(" ")
        };
        let known = Contamination::new([text(0, 30).as_str(), "short one"]);
        assert!(known.contains(&format!("Well: {}!", text(5, 18).to_uppercase())));
        assert!(!known.contains(&text(5, 17)));
        assert!(known.contains("Short one."));
        assert!(!known.contains("another short one"));
        assert!(!Contamination::default().contains("anything"));
    }
}
