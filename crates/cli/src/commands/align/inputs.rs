//! What the loop begins with: seeds to train on, instructions to measure by.

use super::args::AlignArgs;
use crate::commands::synth::House;
use crate::error::Failure;
use crate::output;
use crate::request;
use crate::seeds::Seeds;
use anyhow::{Context, Result};
use data::Message;
use eval::held_out::{Instructions, seeded};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};

/// File of the instructions that are measured by, in the loop's folder.
pub(super) const HELD_OUT: &str = "held-out.jsonl";
/// File of a stage's seeds, in its folder.
const SEEDS: &str = "seeds.jsonl";
/// Seeds set aside where nobody gave instructions to measure by.
const SET_ASIDE: usize = 100;

/// A seed: id and conversation.
pub(super) type Seed = (String, Vec<Message>);

/// Seeds and held-out instructions.
#[derive(Debug)]
pub(super) struct Inputs {
    /// To train on; none of those that are set aside.
    pub(super) seeds: Vec<Seed>,
    /// Digest of the seeds' files.
    pub(super) seeds_digest: String,
    /// To measure by.
    pub(super) instructions: Instructions,
    /// Digest of what they are and are checked by.
    pub(super) held_out_digest: String,
}

impl Inputs {
    /// Reads seeds and instructions; `most` bounds the instructions, 0 does not.
    ///
    /// # Errors
    /// Files that cannot be read; instructions that cannot be judged; too few seeds to set some
    /// aside.
    pub(super) fn read(args: &AlignArgs, house: House, most: usize) -> Result<Self> {
        let source = Seeds::open(&args.seeds, house.seeds())?;
        let (mut seeds, unreadable) = readable(&source)?;
        if unreadable > 0 {
            output::say(&format!("seeds: {unreadable} rows cannot be read"));
        }
        let instructions = match (&args.held_out, house.held_out()) {
            (Some(path), _) => from_file(path)?.thinned(most),
            (None, Some(text)) => Instructions::read("built-in", text.as_bytes())?.thinned(most),
            (None, _) => set_aside(&mut seeds, most)?,
        };
        Ok(Self {
            held_out_digest: digest(&format!("{instructions:?}")),
            seeds,
            seeds_digest: source.digest().to_owned(),
            instructions,
        })
    }

    /// Writes the prompts that are measured by into the loop's folder, for stages to keep clear
    /// of.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub(super) fn write_held_out(&self, folder: &Path) -> Result<()> {
        let rows = self.instructions.items.iter().map(|item| {
            // The request alone: turns before it may well come back.
            let request = item.messages.last().map(|turn| turn.content.as_str());
            json!({"key": item.key, "prompt": request}).to_string()
        });
        write_lines(&folder.join(HELD_OUT), rows)
    }

    /// Writes the seeds of a stage into its folder; the path. `rows` of them, used again under
    /// other ids where there are fewer; 0 takes each once.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub(super) fn write_seeds(&self, folder: &Path, rows: usize) -> Result<PathBuf> {
        let lines = drawn(&self.seeds, rows).map(|(id, messages)| {
            let row = json!({"id": id, "messages": messages});
            row.to_string()
        });
        let path = folder.join(SEEDS);
        write_lines(&path, lines)?;
        Ok(path)
    }
}

/// Takes some of the seeds away and gives them rules.
fn set_aside(seeds: &mut Vec<Seed>, most: usize) -> Result<Instructions> {
    let found = seeded(seeds, if most == 0 { SET_ASIDE } else { most });
    let count = found.instructions.items.len();
    if count == 0 {
        return Err(Failure::usage(format!(
            "{} seeds: too few to set some aside to measure by; give --held-out FILE",
            seeds.len()
        )));
    }
    seeds.retain(|(id, _)| !found.set_aside.contains(id));
    output::say(&format!(
        "{count} seeds are set aside and get rules, to measure by"
    ));
    Ok(found.instructions)
}

/// Seeds that can be read, each id once, and how many cannot.
fn readable(source: &Seeds) -> Result<(Vec<Seed>, usize)> {
    let (mut seeds, mut ids, mut unreadable) = (Vec::new(), BTreeSet::new(), 0);
    for one in source.rows_of()? {
        match one.row {
            Ok(messages) if ids.insert(one.id.clone()) => seeds.push((one.id, messages)),
            Ok(_) => {}
            Err(_) => unreadable += 1,
        }
    }
    Ok((seeds, unreadable))
}

fn from_file(path: &Path) -> Result<Instructions> {
    let file = File::open(path).map_err(|error| request::unreadable(path, &error))?;
    let name = path.display().to_string();
    Instructions::read(&name, BufReader::new(file))
        .map_err(|error| Failure::input(error.to_string()))
}

/// `rows` seeds in order, from the beginning again under new ids once they are used up.
fn drawn(seeds: &[Seed], rows: usize) -> impl Iterator<Item = (String, &Vec<Message>)> {
    let rows = if rows == 0 { seeds.len() } else { rows };
    (0..rows).filter(|_| !seeds.is_empty()).map(|row| {
        let (id, messages) = &seeds[row % seeds.len()];
        let id = match row / seeds.len() {
            0 => id.clone(),
            again => format!("{id}#{}", again + 1),
        };
        (id, messages)
    })
}

/// Writes lines beside the file and renames it.
fn write_lines(path: &Path, lines: impl Iterator<Item = String>) -> Result<()> {
    let text: String = lines.map(|line| line + "\n").collect();
    let beside = path.with_extension("jsonl.tmp");
    let write = || {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&beside, text)?;
        fs::rename(&beside, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

fn digest(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex()[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_used_again_under_other_ids() {
        let seeds: Vec<Seed> = ["a", "b"]
            .map(|id| (id.to_owned(), vec![Message::new("user", id)]))
            .to_vec();
        let ids = |rows| {
            let ids: Vec<String> = drawn(&seeds, rows).map(|(id, _)| id).collect();
            ids.join(" ")
        };
        assert_eq!(ids(0), "a b");
        assert_eq!(ids(1), "a");
        assert_eq!(ids(5), "a b a#2 b#2 a#3");
        assert_eq!(drawn(&[], 5).count(), 0);
    }
}
