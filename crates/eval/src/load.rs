//! Benchmark files become items. Nothing is guessed: a record that cannot be judged is an
//! error that names file and line.

mod jsonl;
mod multi_if;

use crate::EvalError;
use crate::item::{Benchmark, Item};
use crate::suite::Suite;
use std::collections::HashMap;
use std::io::BufRead;

/// One input file: its name for messages, and its bytes.
pub struct Source<'a> {
    /// As the user would recognise it.
    pub name: String,
    /// The content.
    pub reader: Box<dyn BufRead + 'a>,
}

impl std::fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// LiveBench's release whose questions are IFEval's types and still in use in 2025.
pub const LIVEBENCH_RELEASE: &str = "2024-11-25";

/// Reads a benchmark: JSONL with `key`, `prompt`, `instruction_id_list`, `kwargs` (IFEval,
/// IFBench), LiveBench's question files, Multi-IF's CSV. `release` is LiveBench's: questions
/// that were in use at that date.
///
/// # Errors
/// [`EvalError::Data`] with file and line: not JSON or CSV, a field missing or of the wrong
/// type, an unknown instruction, a bad parameter, a key that occurs twice;
/// [`EvalError::Empty`] if no item is left.
pub fn load(suite: Suite, sources: Vec<Source<'_>>, release: &str) -> Result<Benchmark, EvalError> {
    let mut loaded = Loaded::default();
    let names: Vec<String> = sources.iter().map(|source| source.name.clone()).collect();
    for source in sources {
        match suite {
            Suite::MultiIf => multi_if::read(source, &mut loaded)?,
            _ => jsonl::read(suite, source, release, &mut loaded)?,
        }
    }
    if loaded.items.is_empty() {
        return Err(EvalError::Empty {
            what: suite.name(),
            files: names.join(", "),
            reason: loaded.why_empty(release),
        });
    }
    if loaded.num_other_releases > 0 {
        loaded.notes.push(format!(
            "{} questions that were not in use at release {release} are left out",
            loaded.num_other_releases
        ));
    }
    if !loaded.symbol_keys.is_empty() {
        loaded.notes.push(format!(
            "letter_frequency of a symbol is counted as written (lm-eval draws a random letter instead): {}",
            loaded.symbol_keys.join(", ")
        ));
    }
    Ok(Benchmark {
        suite,
        num_items: loaded.items.len(),
        items: loaded.items,
        notes: loaded.notes,
    })
}

/// What the readers fill.
#[derive(Debug, Default)]
struct Loaded {
    items: Vec<Item>,
    notes: Vec<String>,
    num_other_releases: usize,
    /// Keys of items that count a symbol where the rule speaks of a letter.
    symbol_keys: Vec<String>,
    /// Key → file and line of its first record.
    seen: HashMap<String, (String, usize)>,
}

impl Loaded {
    fn push(&mut self, item: Item, file: &str, line: usize) -> Result<(), EvalError> {
        let before = self.seen.insert(item.key.clone(), (file.to_owned(), line));
        if let Some((first_file, first_line)) = before {
            let key = &item.key;
            return Err(EvalError::Data {
                file: file.to_owned(),
                line,
                reason: format!("key {key} was at {first_file}:{first_line} already"),
            });
        }
        self.items.push(item);
        Ok(())
    }

    fn why_empty(&self, release: &str) -> String {
        match self.num_other_releases {
            0 => "the file has no records".to_owned(),
            count => format!("none of its {count} questions was in use at release {release}"),
        }
    }
}
