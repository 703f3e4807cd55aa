//! Seed prompts as the source of a run.

use crate::error::Failure;
use crate::request;
use anyhow::Result;
use data::{Message, PromptRow, Rejection, RowProblem, read_prompts, read_prompts_from};
use pipeline::Sourced;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Files of prompts, looked at once.
#[derive(Debug)]
pub(crate) struct Seeds {
    /// None: the built-in ones.
    files: Vec<PathBuf>,
    builtin: &'static str,
    digest: String,
    rows: u64,
}

impl Seeds {
    /// Reads the files once, or the rows that are built in if there is no file: digest and
    /// number of rows.
    ///
    /// # Errors
    /// A file that is missing or of no known format; no row in any of them.
    pub(crate) fn open(files: &[PathBuf], builtin: &'static str) -> Result<Self> {
        let mut seeds = Self {
            files: files.to_vec(),
            builtin,
            digest: String::new(),
            rows: 0,
        };
        for (_, rows) in seeds.sources()? {
            seeds.rows += rows.count() as u64;
        }
        if seeds.rows == 0 {
            return Err(Failure::input("the seeds have no row"));
        }
        let mut hasher = blake3::Hasher::new();
        if files.is_empty() {
            hasher.update(builtin.as_bytes()).update(&[0]);
        }
        for path in files {
            File::open(path)
                .and_then(|file| hasher.update_reader(file).map(drop))
                .map_err(|error| request::unreadable(path, &error))?;
            hasher.update(&[0]);
        }
        seeds.digest = hasher.finalize().to_hex()[..16].to_owned();
        Ok(seeds)
    }

    /// The files; none if the rows are built in.
    pub(crate) fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Digest of all files.
    pub(crate) fn digest(&self) -> &str {
        &self.digest
    }

    /// Rows, the unreadable ones included.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// The rows from the beginning, read while they are needed.
    ///
    /// # Errors
    /// A file that cannot be opened any more.
    pub(crate) fn rows_of(&self) -> Result<impl Iterator<Item = Sourced<Vec<Message>>> + use<>> {
        let sources = self.sources()?.into_iter();
        Ok(sources.flat_map(|(name, rows)| {
            rows.map(move |row| match row {
                Ok(row) => {
                    let messages = up_to_the_user(row.messages);
                    Sourced {
                        id: row.id.unwrap_or_else(|| content_id(&messages)),
                        row: Ok(messages),
                    }
                }
                Err(problem) => Sourced {
                    id: format!("{name}:{}", problem.line()),
                    row: Err(Rejection::new("read", "unreadable", problem.to_string())),
                },
            })
        }))
    }

    /// Each file by name, opened.
    fn sources(&self) -> Result<Vec<(String, Rows)>> {
        if self.files.is_empty() {
            let name = "built-in";
            let stream = Box::new(self.builtin.as_bytes());
            let rows = read_prompts_from(stream, Path::new(name))?;
            return Ok(vec![(name.to_owned(), Box::new(rows))]);
        }
        let mut sources: Vec<(String, Rows)> = Vec::new();
        for path in &self.files {
            sources.push((path.display().to_string(), Box::new(read_prompts(path)?)));
        }
        Ok(sources)
    }
}

type Rows = Box<dyn Iterator<Item = Result<PromptRow, RowProblem>>>;

/// A conversation that ends with its answer is a seed for another one: the turns of the
/// assistant at its end go. One without a user's turn stays, for the recipe to reject.
fn up_to_the_user(mut messages: Vec<Message>) -> Vec<Message> {
    let asked = messages.iter().rposition(|turn| turn.role == "user");
    if let Some(last) = asked
        && messages[last..]
            .iter()
            .skip(1)
            .all(|turn| turn.role == "assistant")
    {
        messages.truncate(last + 1);
    }
    messages
}

/// An id for a row that has none: a hash of what it says.
fn content_id(messages: &[Message]) -> String {
    let mut hasher = blake3::Hasher::new();
    for message in messages {
        for part in [&message.role, &message.content] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
    }
    hasher.finalize().to_hex()[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_rows_are_whole_and_have_ids() {
        let seeds = Seeds::open(&[], synth::seeds::BUILTIN).unwrap();
        let rows: Vec<_> = seeds.rows_of().unwrap().collect();
        assert_eq!(rows.len() as u64, seeds.rows());
        assert!(rows.iter().all(|row| row.row.is_ok()));
        let ids: std::collections::BTreeSet<_> = rows.iter().map(|row| &row.id).collect();
        assert_eq!(ids.len(), rows.len());
    }

    #[test]
    fn answered_conversations_are_asked_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.json");
        let rows = r#"[{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"},
            {"from": "human", "value": "c"}, {"from": "gpt", "value": "d"}]},
            {"messages": [{"role": "assistant", "content": "e"}]},
            {"prompt": [{"role": "user", "content": "f"}, {"role": "tool", "content": "g"}]}]"#;
        std::fs::write(&path, rows).unwrap();
        let seeds = Seeds::open(&[path], "").unwrap();
        let last: Vec<(usize, String)> = seeds
            .rows_of()
            .unwrap()
            .map(|row| row.row.unwrap())
            .map(|turns| (turns.len(), turns.last().unwrap().content.clone()))
            .collect();
        let expected = [(3, "c"), (1, "e"), (2, "g")];
        assert_eq!(last, expected.map(|(turns, text)| (turns, text.to_owned())));
    }

    #[test]
    fn bad_lines_are_rows_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.jsonl");
        std::fs::write(
            &path,
            "{\"prompt\": \"a\"}\n\nnot json\n{\"prompt\": \"a\"}\n",
        )
        .unwrap();
        let seeds = Seeds::open(std::slice::from_ref(&path), "").unwrap();
        let rows: Vec<_> = seeds.rows_of().unwrap().collect();
        assert_eq!((rows.len(), seeds.rows()), (3, 3));
        assert_eq!(rows[0].id, rows[2].id, "the same content");
        let rejection = rows[1].row.as_ref().unwrap_err();
        assert!(rejection.detail.contains("line 3"), "{rejection:?}");
        assert!(Seeds::open(&[folder.path().join("none")], "").is_err());
        std::fs::write(&path, "{\"prompt\": \"a\"}\n\"b\"\n").unwrap();
        let two = Seeds::open(&[path.clone(), path.clone()], "").unwrap();
        assert_eq!((two.rows(), two.rows_of().unwrap().count()), (4, 4));
        assert_ne!(two.digest(), seeds.digest());
        std::fs::write(&path, "\n\n").unwrap();
        assert!(Seeds::open(&[path], "").is_err());
    }
}
