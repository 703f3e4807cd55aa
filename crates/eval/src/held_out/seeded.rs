//! Held-out instructions made of seeds, where nobody gave any: some seeds are set aside, and
//! one to three rules are added to each in words.

use super::{Instruction, Instructions};
use data::Message;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use verify::compose::{Material, compose_with, describe};

/// Of the seeds at most one in so many is set aside.
const ONE_IN: usize = 5;

/// Instructions, and the seeds that they were made of.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Seeded {
    /// To be answered and checked.
    pub instructions: Instructions,
    /// Ids of the seeds that must not be trained on.
    pub set_aside: BTreeSet<String>,
}

/// Sets aside at most `most` of the seeds (id, conversation), and never more than one in five.
/// Which ones depends on their ids alone; what is added to them on their ids too.
pub fn seeded(seeds: &[(String, Vec<Message>)], most: usize) -> Seeded {
    let mut ranked: Vec<(u64, &String, &Vec<Message>)> = seeds
        .iter()
        .filter(|(_, messages)| messages.last().is_some_and(|turn| turn.role == "user"))
        .map(|(id, messages)| (hash(id), id, messages))
        .collect();
    ranked.sort_by_key(|(hash, id, _)| (*hash, *id));
    ranked.dedup_by(|a, b| a.1 == b.1);
    ranked.truncate(most.min(seeds.len() / ONE_IN));
    let mut found = Seeded::default();
    for (hash, id, messages) in ranked {
        found.set_aside.insert(id.clone());
        let item = constrained(hash, id, messages);
        found.instructions.items.push(item);
    }
    found
}

fn constrained(hash: u64, id: &str, messages: &[Message]) -> Instruction {
    let mut messages = messages.to_vec();
    let last = messages.last_mut().expect("it ends with a user's turn");
    let material = Material {
        prompt: Some(&last.content),
        ..Material::default()
    };
    let count = usize::try_from(1 + hash % 3).unwrap_or(1);
    let rules = compose_with(&material, hash, count);
    let mut text = last.content.trim_end().to_owned();
    for (place, rule) in rules.iter().enumerate() {
        text.push(' ');
        text.push_str(&describe(rule, hash.rotate_left(16) + place as u64));
    }
    last.content = text;
    Instruction {
        key: id.to_owned(),
        messages,
        rules: rules.into_iter().map(verify::Instruction::IfEval).collect(),
        topics: Vec::new(),
        text: None,
    }
}

fn hash(id: &str) -> u64 {
    let digest = Sha256::digest(id.as_bytes());
    let first = digest[..8].try_into().expect("a digest has 32 bytes");
    u64::from_le_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seeds(count: usize) -> Vec<(String, Vec<Message>)> {
        let seed = |i: usize| {
            let text = format!("Write about stone number {i}.");
            (format!("s{i}"), vec![Message::new("user", text)])
        };
        (0..count).map(seed).collect()
    }

    #[test]
    fn some_are_set_aside_whatever_their_order() {
        let all = seeds(100);
        let found = seeded(&all, 10);
        assert_eq!(found.set_aside.len(), 10);
        assert_eq!(found.instructions.items.len(), 10);
        let mut turned = all.clone();
        turned.reverse();
        assert_eq!(seeded(&turned, 10), found);
        assert_eq!(
            seeded(&all, 1000).set_aside.len(),
            20,
            "one in five at most"
        );
        assert_eq!(seeded(&all[..4], 10), Seeded::default());
    }

    #[test]
    fn rules_stand_in_the_words() {
        for item in seeded(&seeds(200), 40).instructions.items {
            assert!((1..=3).contains(&item.rules.len()), "{item:?}");
            let text = &item.messages[0].content;
            assert!(text.starts_with("Write about stone number"), "{text}");
            assert!(text.len() > 40, "{text}");
        }
    }
}
