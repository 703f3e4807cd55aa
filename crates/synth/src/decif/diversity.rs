//! How varied a pool or a dataset is.

use crate::filters::words;
use serde::Serialize;
use std::collections::BTreeSet;

/// How varied some texts are, and how their number grew.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Diversity {
    /// Texts.
    pub texts: usize,
    /// Different runs of 1, 2 and 3 words, as a share of all (Li et al. 2016, distinct-n).
    pub distinct: [f64; 3],
    /// Size after each call, in the order of the calls: a curve that flattens says that the
    /// model has nothing new to add. Empty where texts were not asked for in lists.
    pub growth: Vec<usize>,
}

impl Diversity {
    /// Of these texts.
    pub fn of<'a>(texts: impl IntoIterator<Item = &'a str>, growth: Vec<usize>) -> Self {
        let texts: Vec<Vec<String>> = texts.into_iter().map(words).collect();
        Self {
            distinct: [1, 2, 3].map(|n| distinct(&texts, n)),
            texts: texts.len(),
            growth,
        }
    }
}

/// Different runs of `n` words as a share of all; 0 without any.
fn distinct(texts: &[Vec<String>], n: usize) -> f64 {
    let runs = || texts.iter().flat_map(|words| words.windows(n));
    let all = runs().count();
    if all == 0 {
        return 0.0;
    }
    let different: BTreeSet<&[String]> = runs().collect();
    different.len() as f64 / all as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_counted_within_texts() {
        let found = Diversity::of(["a b a", "A, b!"], vec![1, 2]);
        assert_eq!(found.texts, 2);
        // a b a a b; ab ba ab; aba
        assert_eq!(found.distinct, [0.4, 2.0 / 3.0, 1.0]);
        assert_eq!(Diversity::of([], vec![]).distinct, [0.0; 3]);
    }
}
