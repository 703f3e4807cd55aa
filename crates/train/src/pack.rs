//! Several sequences in one pass: tokens one after the other, attention inside each only.

use std::ops::Range;

/// Token ids with what is trained of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Sequence {
    /// What the model reads.
    pub tokens: Vec<u32>,
    /// For each token how much its log-probability counts; 0 = not trained. The first token
    /// has nothing before it and is never trained.
    pub weights: Vec<f32>,
}

impl Sequence {
    /// Sequence whose tokens from `start` on are trained.
    pub fn completion(tokens: Vec<u32>, start: usize) -> Self {
        let weights = (0..tokens.len())
            .map(|i| if i >= start { 1.0 } else { 0.0 })
            .collect();
        Self { tokens, weights }
    }

    /// Tokens whose log-probability counts (those that have one before them).
    pub fn trained(&self) -> usize {
        let weights = self.weights.iter().skip(1);
        weights.filter(|weight| **weight != 0.0).count()
    }

    /// Sum of their weights.
    pub fn weight(&self) -> f64 {
        self.weights
            .iter()
            .skip(1)
            .map(|weight| f64::from(*weight))
            .sum()
    }
}

/// A token whose log-probability is wanted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Target {
    /// Row whose final state predicts it.
    pub(crate) row: u32,
    pub(crate) token: u32,
    /// Which sequence of the pack.
    pub(crate) sequence: usize,
    pub(crate) weight: f32,
}

/// Some sequences, flattened.
#[derive(Debug, Clone, PartialEq)]
pub struct Pack {
    pub(crate) tokens: Vec<u32>,
    pub(crate) positions: Vec<u32>,
    /// Tokens of each sequence.
    pub(crate) segments: Vec<usize>,
    /// In the order of the rows.
    pub(crate) targets: Vec<Target>,
}

impl Pack {
    /// Lays sequences one after the other; positions start anew in each. An output row is read
    /// for each trained token.
    pub fn new<'a>(sequences: impl IntoIterator<Item = &'a Sequence>) -> Self {
        let mut pack = Self {
            tokens: vec![],
            positions: vec![],
            segments: vec![],
            targets: vec![],
        };
        for (index, sequence) in sequences.into_iter().enumerate() {
            let start = u32_of(pack.tokens.len());
            let trained = sequence
                .tokens
                .iter()
                .zip(&sequence.weights)
                .enumerate()
                .skip(1);
            pack.targets
                .extend(trained.filter(|(_, (_, weight))| **weight != 0.0).map(
                    |(i, (token, weight))| Target {
                        row: start + u32_of(i) - 1,
                        token: *token,
                        sequence: index,
                        weight: *weight,
                    },
                ));
            pack.tokens.extend(&sequence.tokens);
            pack.positions.extend(0..u32_of(sequence.tokens.len()));
            pack.segments.push(sequence.tokens.len());
        }
        pack
    }

    /// Tokens of all sequences.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// No sequence, or only empty ones.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }
}

fn u32_of(index: usize) -> u32 {
    u32::try_from(index).expect("a pack is far below 2^32 tokens")
}

/// Sorts items into bins of at most `capacity`, each item with a size: the largest first, each
/// into the fullest bin that has room (best fit decreasing). An item larger than a bin gets one
/// of its own. Gives indices; in a bin, and bin by bin, in the order of the items.
pub fn best_fit(sizes: &[usize], capacity: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|item| (std::cmp::Reverse(sizes[*item]), *item));
    let mut bins: Vec<(usize, Vec<usize>)> = vec![];
    for item in order {
        let size = sizes[item];
        let fits = bins.iter_mut().filter(|(used, _)| used + size <= capacity);
        match fits.max_by_key(|(used, items)| (*used, std::cmp::Reverse(items[0]))) {
            Some((used, items)) => {
                *used += size;
                items.push(item);
            }
            None => bins.push((size, vec![item])),
        }
    }
    let mut bins: Vec<Vec<usize>> = bins.into_iter().map(|(_, items)| items).collect();
    bins.iter_mut().for_each(|items| items.sort_unstable());
    bins.sort_by_key(|items| items[0]);
    bins
}

/// Ranges of at most `len` that cover `0..total`.
pub(crate) fn stretches(total: usize, len: usize) -> impl Iterator<Item = Range<usize>> {
    (0..total)
        .step_by(len.max(1))
        .map(move |start| start..total.min(start + len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn targets_are_read_from_the_row_before() {
        let first = Sequence {
            tokens: vec![5, 6, 7],
            weights: vec![1.0, 0.0, 2.0],
        };
        let second = Sequence::completion(vec![8, 9], 1);
        let pack = Pack::new([&first, &second]);
        assert_eq!(pack.positions, [0, 1, 2, 0, 1]);
        assert_eq!(pack.segments, [3, 2]);
        let found: Vec<_> = pack
            .targets
            .iter()
            .map(|t| (t.row, t.token, t.sequence, t.weight))
            .collect();
        assert_eq!(found, [(1, 7, 0, 2.0), (3, 9, 1, 1.0)]);
        assert_eq!((first.trained(), first.weight()), (1, 2.0));
    }

    proptest! {
        #[test]
        fn every_item_lies_in_one_bin_that_holds_it(sizes in prop::collection::vec(1usize..50, 0..80), capacity in 1usize..60) {
            let bins = best_fit(&sizes, capacity);
            let mut seen: Vec<usize> = bins.concat();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..sizes.len()).collect::<Vec<_>>());
            for bin in &bins {
                let used: usize = bin.iter().map(|item| sizes[*item]).sum();
                prop_assert!(used <= capacity || bin.len() == 1);
            }
        }
    }
}
