//! What a run is made of, and what may change between two invocations of it.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// What a run is made of. Equal manifests give equal data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The program and its version.
    pub program: String,
    /// Which recipe, with its version.
    pub recipe: String,
    /// Seed of the run; every draw follows from it.
    pub seed: u64,
    /// Digest of the source rows.
    pub source: String,
    /// Which part of the rows is this run's.
    pub shard: Shard,
    /// Identity of the model, by role.
    pub models: BTreeMap<String, String>,
    /// Settings of the recipe.
    pub settings: Value,
    /// Digest of each prompt, by id.
    pub prompts: BTreeMap<String, String>,
}

/// Changes between two invocations that are refused unless allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnChange {
    /// Another model, seed, source, recipe or shard is an error.
    Refuse,
    /// The run goes on with what is new; logged calls of what was before stay.
    Allow,
}

impl Manifest {
    /// Digest of all that decides what becomes of the rows: those that ended under another one
    /// are run again (against the log), and are no part of the data until then.
    pub fn recipe_digest(&self) -> String {
        let parts = (
            &self.recipe,
            &self.settings,
            &self.prompts,
            &self.models,
            self.seed,
            &self.source,
        );
        let json = serde_json::to_vec(&parts).expect("our own types have string keys");
        blake3::hash(&json).to_hex()[..16].to_owned()
    }

    /// What is not as it was, and has to be, in words.
    pub(crate) fn breaking_changes(&self, before: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        let mut compare = |what: &str, was: &dyn fmt::Display, is: &dyn fmt::Display| {
            let (was, is) = (was.to_string(), is.to_string());
            if was != is {
                changes.push(format!("{what} {was} (now {is})"));
            }
        };
        compare("recipe", &before.recipe, &self.recipe);
        compare("seed", &before.seed, &self.seed);
        compare("source", &before.source, &self.source);
        compare("shard", &before.shard, &self.shard);
        for (role, was) in &before.models {
            let none = String::from("none");
            let is = self.models.get(role).unwrap_or(&none);
            compare(&format!("model of {role}"), was, is);
        }
        changes
    }

    /// What differs from an earlier invocation, in words; empty if nothing does.
    pub fn changes_since(&self, before: &Self) -> Vec<String> {
        let mut changes = self.breaking_changes(before);
        if self.program != before.program {
            changes.push(format!("program {} (now {})", before.program, self.program));
        }
        changes.extend(prompt_changes(&before.prompts, &self.prompts));
        changes.extend(setting_changes("", &before.settings, &self.settings));
        changes
    }
}

fn prompt_changes(
    before: &BTreeMap<String, String>,
    now: &BTreeMap<String, String>,
) -> Vec<String> {
    let changed = now
        .iter()
        .filter(|(id, digest)| before.get(*id).is_some_and(|was| was != *digest))
        .map(|(id, _)| format!("prompt {id} was edited"));
    let added = now
        .keys()
        .filter(|id| !before.contains_key(*id))
        .map(|id| format!("prompt {id} is new"));
    let gone = before
        .keys()
        .filter(|id| !now.contains_key(*id))
        .map(|id| format!("prompt {id} is gone"));
    changed.chain(added).chain(gone).collect()
}

fn setting_changes(path: &str, before: &Value, now: &Value) -> Vec<String> {
    match (before, now) {
        (Value::Object(was), Value::Object(is)) => {
            let keys: std::collections::BTreeSet<&String> = was.keys().chain(is.keys()).collect();
            keys.into_iter()
                .flat_map(|key| {
                    let inner = if path.is_empty() {
                        key.clone()
                    } else {
                        format!("{path}.{key}")
                    };
                    let get = |map: &serde_json::Map<String, Value>| {
                        map.get(key).cloned().unwrap_or(Value::Null)
                    };
                    setting_changes(&inner, &get(was), &get(is))
                })
                .collect()
        }
        (was, is) if was == is => Vec::new(),
        (was, is) => vec![format!("setting {path} {was} (now {is})")],
    }
}

/// One of `count` equal parts of the rows, chosen by a hash of the row's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// Which part, from 0.
    index: u32,
    /// How many parts, at least 1.
    count: u32,
}

impl Shard {
    /// All rows.
    pub const ALL: Self = Self { index: 0, count: 1 };

    /// Part `index` (from 0) of `count`; `None` unless `index < count`.
    pub fn new(index: u32, count: u32) -> Option<Self> {
        (index < count).then_some(Self { index, count })
    }

    /// Which part, from 0.
    pub fn index(self) -> u32 {
        self.index
    }

    /// How many parts.
    pub fn count(self) -> u32 {
        self.count
    }

    /// Is the row of this id ours? Depends on the id alone.
    pub fn owns(self, id: &str) -> bool {
        let hash = blake3::hash(id.as_bytes());
        let first: [u8; 8] = hash.as_bytes()[..8]
            .try_into()
            .expect("a hash has 32 bytes");
        u64::from_le_bytes(first) % u64::from(self.count) == u64::from(self.index)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index + 1, self.count)
    }
}

impl FromStr for Shard {
    type Err = String;

    /// `I/N`, I from 1 to N.
    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("`{text}`: expected I/N with I from 1 to N, such as 2/3");
        let (index, count) = text.split_once('/').ok_or_else(expected)?;
        let index: u32 = index.parse().map_err(|_| expected())?;
        let count: u32 = count.parse().map_err(|_| expected())?;
        let index = index.checked_sub(1).ok_or_else(expected)?;
        Self::new(index, count).ok_or_else(expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn manifest() -> Manifest {
        Manifest {
            program: "autodidact 0.1.0".into(),
            recipe: "toy 1".into(),
            seed: 7,
            source: "abc".into(),
            shard: Shard::ALL,
            models: BTreeMap::from([("judge".into(), "m1".into())]),
            settings: json!({"k": 5, "inner": {"x": 1}}),
            prompts: BTreeMap::from([("judge".into(), "p1".into())]),
        }
    }

    #[test]
    fn what_breaks_a_run_and_what_does_not() {
        let before = manifest();
        let check = |change: &dyn Fn(&mut Manifest), breaking: &[&str], all: &[&str]| {
            let mut now = manifest();
            change(&mut now);
            assert_eq!(now.breaking_changes(&before), breaking);
            assert_eq!(now.changes_since(&before), all);
            assert_eq!(
                all.is_empty() || all[0].starts_with("program") || all[0].starts_with("shard"),
                now.recipe_digest() == before.recipe_digest()
            );
        };
        check(&|_| (), &[], &[]);
        let seed = "seed 7 (now 8)";
        check(&|m| m.seed = 8, &[seed], &[seed]);
        let model = "model of judge m1 (now m2)";
        let change = |m: &mut Manifest| {
            m.models.insert("judge".into(), "m2".into());
        };
        check(&change, &[model], &[model]);
        let change = |m: &mut Manifest| {
            m.prompts.insert("judge".into(), "p2".into());
        };
        check(&change, &[], &["prompt judge was edited"]);
        let change = |m: &mut Manifest| m.settings = json!({"k": 5, "inner": {"x": 2}});
        check(&change, &[], &["setting inner.x 1 (now 2)"]);
        let change = |m: &mut Manifest| m.program = "autodidact 0.2.0".into();
        check(
            &change,
            &[],
            &["program autodidact 0.1.0 (now autodidact 0.2.0)"],
        );
    }

    #[test]
    fn every_row_belongs_to_one_shard() {
        let shards: Vec<Shard> = (0..3).filter_map(|index| Shard::new(index, 3)).collect();
        let mut sizes = [0; 3];
        for row in 0..3000 {
            let id = format!("row {row}");
            let owners: Vec<_> = shards.iter().filter(|shard| shard.owns(&id)).collect();
            assert_eq!(owners.len(), 1);
            sizes[owners[0].index() as usize] += 1;
        }
        assert!(
            sizes.iter().all(|size| (900..1100).contains(size)),
            "{sizes:?}"
        );
        assert!(Shard::ALL.owns("x"));
    }

    #[test]
    fn shards_are_read_from_text() {
        assert_eq!("2/3".parse(), Ok(Shard { index: 1, count: 3 }));
        assert_eq!(Shard { index: 1, count: 3 }.to_string(), "2/3");
        for wrong in ["", "1", "0/3", "4/3", "1/0", "a/b", "1/2/3"] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
    }
}
