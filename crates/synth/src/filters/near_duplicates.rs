//! Near-duplicate instructions, found by MinHash (Broder 1997) with banding.

use super::words;
use data::{Outcome, Rejection, Verdict};
use pipeline::Admit;
use std::collections::HashMap;

/// Hash functions; a multiple of [`ROWS`].
const HASHES: usize = 64;
/// Hash functions of a band: pairs that agree on all of one band are compared.
const ROWS: usize = 4;
/// Words of a shingle.
const SHINGLE: usize = 3;

/// Keeps the first of each group of near-duplicate instructions, in source order.
#[derive(Debug, Clone)]
pub struct NearDuplicates {
    /// Share of equal hashes, an estimate of the Jaccard similarity, from which on two
    /// instructions are near-duplicates.
    threshold: f64,
    signatures: Vec<[u32; HASHES]>,
    ids: Vec<String>,
    /// Band and its hash → signatures.
    bands: HashMap<(usize, u64), Vec<u32>>,
}

impl NearDuplicates {
    /// Two instructions whose similarity is at least `threshold` (0 to 1) are near-duplicates.
    pub fn new(threshold: f64) -> Self {
        Self {
            threshold,
            signatures: Vec::new(),
            ids: Vec::new(),
            bands: HashMap::new(),
        }
    }

    /// The id of an earlier text that this one is a near-duplicate of; else it is remembered.
    pub fn check(&mut self, id: &str, text: &str) -> Option<&str> {
        let signature = signature(text);
        let keys: Vec<(usize, u64)> = (0..HASHES / ROWS)
            .map(|band| (band, band_hash(&signature[band * ROWS..][..ROWS])))
            .collect();
        let candidates = keys.iter().filter_map(|key| self.bands.get(key)).flatten();
        let found = candidates.copied().filter(|index| {
            let other = &self.signatures[*index as usize];
            let equal = signature.iter().zip(other).filter(|(a, b)| a == b).count();
            equal as f64 >= self.threshold * HASHES as f64
        });
        if let Some(first) = found.min() {
            return Some(&self.ids[first as usize]);
        }
        let index = u32::try_from(self.signatures.len()).unwrap_or(u32::MAX);
        self.signatures.push(signature);
        self.ids.push(id.to_owned());
        for key in keys {
            self.bands.entry(key).or_default().push(index);
        }
        None
    }
}

impl Admit for NearDuplicates {
    fn admit(&mut self, id: &str, outcome: &mut Outcome) {
        let Some(instruction) = outcome
            .records
            .iter()
            .find_map(|record| instruction(&record.value))
        else {
            return;
        };
        if let Some(first) = self.check(id, &instruction) {
            let detail = format!("like that of row {first}");
            outcome.verdict = Verdict::Rejected(Rejection::new("select", "near_duplicate", detail));
            // What teaches the composer does not depend on the composed instruction.
            outcome
                .records
                .retain(|record| record.file == "composer.jsonl");
        }
    }
}

/// The last user turn of a record's `messages` or `prompt`.
fn instruction(value: &serde_json::Value) -> Option<String> {
    // Composer rows hold the seed, not the instruction.
    let id = value.get("id")?;
    let turns = value
        .get("messages")
        .or_else(|| value.get("prompt"))?
        .as_array()?;
    let last = turns.iter().rev().find(|turn| turn["role"] == "user")?;
    let composer = last["content"].as_str()?.starts_with("[history]: ");
    (!id.is_null() && !composer).then(|| last["content"].as_str().map(str::to_owned))?
}

fn signature(text: &str) -> [u32; HASHES] {
    let words = words(text);
    let mut smallest = [u32::MAX; HASHES];
    let mut add = |shingle: &[String]| {
        let mut hasher = blake3::Hasher::new();
        for word in shingle {
            hasher.update(word.as_bytes());
            hasher.update(b" ");
        }
        // One long hash gives all functions: 64 words of 32 bits.
        let mut bytes = [0; HASHES * 4];
        hasher.finalize_xof().fill(&mut bytes);
        for (least, word) in smallest.iter_mut().zip(bytes.chunks_exact(4)) {
            let hash = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            *least = hash.min(*least);
        }
    };
    if words.len() < SHINGLE {
        add(&words);
    }
    words.windows(SHINGLE).for_each(&mut add);
    smallest
}

fn band_hash(rows: &[u32]) -> u64 {
    rows.iter().fold(0xcbf2_9ce4_8422_2325, |hash, row| {
        (hash ^ u64::from(*row)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use data::Record;
    use serde_json::json;
    use std::collections::BTreeMap;

    #[test]
    fn small_changes_are_found_and_different_texts_are_not() {
        let long = "Write a letter to the mayor of a small town about the broken lamps in the park, \
                    in at most one hundred words, and end it with a friendly question about summer plans.";
        let mut seen = NearDuplicates::new(0.7);
        assert_eq!(seen.check("a", long), None);
        assert_eq!(
            seen.check("b", &long.replace("friendly", "kind")),
            Some("a")
        );
        assert_eq!(seen.check("c", &long.to_uppercase()), Some("a"));
        assert_eq!(
            seen.check("d", "Explain how bees find their way home."),
            None
        );
        assert_eq!(
            seen.check("e", "Explain how bees find their way home!"),
            Some("d")
        );
        assert_eq!(seen.check("f", ""), None);
    }

    #[test]
    fn a_duplicate_loses_its_rows_but_not_what_it_taught() {
        let outcome = |id: &str| Outcome {
            verdict: Verdict::Accepted,
            records: vec![
                Record {
                    file: "composer.jsonl".into(),
                    value: json!({"id": id, "messages": [{"role": "user", "content": "[history]: x"}]}),
                },
                Record {
                    file: "sft.jsonl".into(),
                    value: json!({"id": id, "messages": [{"role": "user", "content": "one two three four"}]}),
                },
            ],
            counts: BTreeMap::new(),
        };
        let mut seen = NearDuplicates::new(0.8);
        let (mut first, mut second) = (outcome("1"), outcome("2"));
        seen.admit("1", &mut first);
        seen.admit("2", &mut second);
        assert!(first.is_accepted() && !second.is_accepted());
        assert_eq!((first.records.len(), second.records.len()), (2, 1));
    }
}
