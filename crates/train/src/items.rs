//! What a run is trained on, and the order in which it is.

use crate::pack::Sequence;
use crate::rendering::Pair;
use crate::{Result, TrainError};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// One row.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Names the row in messages.
    pub id: String,
    /// Its tokens.
    pub tokens: ItemTokens,
}

/// The token ids of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum ItemTokens {
    /// For SFT and language modelling.
    Single(Sequence),
    /// For preferences.
    Pair(Pair),
}

impl Item {
    /// Its sequences: one, or chosen and rejected.
    pub fn sequences(&self) -> impl Iterator<Item = &Sequence> {
        let (first, second) = match &self.tokens {
            ItemTokens::Single(sequence) => (sequence, None),
            ItemTokens::Pair(pair) => (&pair.chosen, Some(&pair.rejected)),
        };
        std::iter::once(first).chain(second)
    }

    /// Tokens of all its sequences.
    pub fn len(&self) -> usize {
        self.sequences().map(|sequence| sequence.tokens.len()).sum()
    }

    /// It has no token.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// How much goes into one optimiser step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Batch {
    /// So many rows (pairs count once).
    Rows(usize),
    /// Rows until so many tokens are reached, at least one.
    Tokens(usize),
}

/// Digest of all rows and their order, for checkpoints and caches.
pub fn digest(items: &[Item]) -> String {
    let mut hasher = blake3::Hasher::new();
    for item in items {
        hasher.update(&(item.id.len() as u64).to_le_bytes());
        hasher.update(item.id.as_bytes());
        for sequence in item.sequences() {
            hasher.update(&(sequence.tokens.len() as u64).to_le_bytes());
            for (token, weight) in sequence.tokens.iter().zip(&sequence.weights) {
                hasher.update(&token.to_le_bytes());
                hasher.update(&weight.to_le_bytes());
            }
        }
    }
    hasher.finalize().to_hex()[..32].to_owned()
}

/// Which rows each optimiser step takes, for the whole run: every epoch in its own order, which
/// depends on the seed and the epoch only. A step does not reach over the end of an epoch.
///
/// # Errors
/// A batch of nothing.
pub(crate) fn schedule_rows(
    items: &[Item],
    batch: Batch,
    epochs: u32,
    seed: u64,
) -> Result<Vec<Vec<usize>>> {
    if matches!(batch, Batch::Rows(0) | Batch::Tokens(0)) {
        return Err(TrainError::setting("batch", "at least 1", 0));
    }
    let mut steps = vec![];
    for epoch in 0..epochs {
        let (mut rows, mut tokens) = (vec![], 0);
        for row in shuffled(items.len(), seed, u64::from(epoch)) {
            let len = items[row].len();
            let full = match batch {
                Batch::Rows(most) => rows.len() == most,
                Batch::Tokens(most) => !rows.is_empty() && tokens + len > most,
            };
            if full {
                steps.push(std::mem::take(&mut rows));
                tokens = 0;
            }
            rows.push(row);
            tokens += len;
        }
        if !rows.is_empty() {
            steps.push(rows);
        }
    }
    Ok(steps)
}

/// A permutation of `0..len` (Fisher and Yates).
fn shuffled(len: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(epoch);
    let mut order: Vec<usize> = (0..len).collect();
    for i in (1..len).rev() {
        // 64 bits for an index: the bias is below one in 10^12 for any data that fits here.
        let j = (rng.next_u64() % (i as u64 + 1)) as usize;
        order.swap(i, j);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(lengths: &[usize]) -> Vec<Item> {
        let item = |(index, len): (usize, &usize)| Item {
            id: format!("row-{index}"),
            tokens: ItemTokens::Single(Sequence::completion(vec![1; *len], 1)),
        };
        lengths.iter().enumerate().map(item).collect()
    }

    #[test]
    fn every_epoch_takes_each_row_once_in_its_own_order() {
        let items = items(&[3; 10]);
        let steps = schedule_rows(&items, Batch::Rows(4), 2, 7).unwrap();
        let sizes: Vec<usize> = steps.iter().map(Vec::len).collect();
        assert_eq!(sizes, [4, 4, 2, 4, 4, 2]);
        let (first, second) = (steps[..3].concat(), steps[3..].concat());
        for mut epoch in [first.clone(), second.clone()] {
            epoch.sort_unstable();
            assert_eq!(epoch, (0..10).collect::<Vec<_>>());
        }
        assert_ne!(first, second);
        assert_eq!(steps, schedule_rows(&items, Batch::Rows(4), 2, 7).unwrap());
        assert_ne!(steps, schedule_rows(&items, Batch::Rows(4), 2, 8).unwrap());
    }

    #[test]
    fn batches_by_tokens_hold_at_least_a_row() {
        let items = items(&[5, 50, 5, 5]);
        for step in schedule_rows(&items, Batch::Tokens(12), 3, 1).unwrap() {
            let tokens: usize = step.iter().map(|row| items[*row].len()).sum();
            assert!(tokens <= 12 || step.len() == 1, "{step:?}");
        }
        assert!(schedule_rows(&items, Batch::Tokens(0), 1, 1).is_err());
    }
}
