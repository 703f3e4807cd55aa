//! The log of a run: every model call by its content, every row by its place in the source.
//!
//! A call's key is a hash of who was asked (the target's identity) and what was asked (the
//! request), so an answer is found again exactly when the same question would be put to the
//! same model. SQLite in WAL mode: what is committed survives the death of the process.

use crate::error::PipelineError;
use crate::inspect::StageStatus;
use crate::llm::StageUse;
use crate::manifest::Manifest;
use data::{Outcome, Rejection, Usage, Verdict};
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Name of the log in a run's folder.
pub(crate) const FILE: &str = "calls.sqlite";

/// Key of a call.
pub(crate) type CallKey = [u8; 16];

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS calls (
    id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, row TEXT NOT NULL, role TEXT NOT NULL, stage TEXT NOT NULL,
    request BLOB NOT NULL, reply BLOB NOT NULL, prompt_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
    milliseconds REAL NOT NULL, invocation INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS rows (
    phase TEXT NOT NULL, position INTEGER NOT NULL, id TEXT NOT NULL, recipe TEXT NOT NULL,
    stage TEXT, reason TEXT, outcome BLOB NOT NULL, PRIMARY KEY (phase, position)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS invocations (
    id INTEGER PRIMARY KEY, manifest TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS use_of_log (
    invocation INTEGER NOT NULL, stage TEXT NOT NULL, asked INTEGER NOT NULL,
    reused INTEGER NOT NULL, PRIMARY KEY (invocation, stage)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
";

/// A finished call on its way into the log.
#[derive(Debug)]
pub(crate) struct LoggedCall {
    pub(crate) key: CallKey,
    pub(crate) row: String,
    pub(crate) role: String,
    pub(crate) stage: String,
    pub(crate) request: Vec<u8>,
    pub(crate) reply: Vec<u8>,
    pub(crate) usage: Usage,
    pub(crate) milliseconds: f64,
}

/// A finished row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LoggedRow {
    /// Place in the source, from 0.
    pub(crate) position: u64,
    pub(crate) id: String,
    pub(crate) outcome: Outcome,
}

/// What is known of a finished row without reading what it wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RowHead {
    pub(crate) position: u64,
    pub(crate) id: String,
    pub(crate) recipe: String,
    /// `None` if it was accepted.
    pub(crate) rejection: Option<(String, String)>,
}

/// The open log.
#[derive(Debug)]
pub(crate) struct CallLog {
    connection: Connection,
    path: PathBuf,
}

impl CallLog {
    /// Opens the log of a folder for writing, made if there is none.
    pub(crate) fn open(folder: &Path) -> Result<Self, PipelineError> {
        let path = folder.join(FILE);
        let log = Self {
            connection: Connection::open(&path).map_err(at(&path))?,
            path,
        };
        log.run(|sql| {
            sql.pragma_update(None, "journal_mode", "WAL")?;
            sql.pragma_update(None, "synchronous", "NORMAL")?;
            sql.pragma_update(None, "cache_size", -32_000)?;
            sql.execute_batch(SCHEMA)?;
            // A log that cannot be written is found out before any weights are loaded.
            sql.execute_batch(
                "BEGIN IMMEDIATE; INSERT OR REPLACE INTO facts VALUES ('written', ''); COMMIT",
            )
        })?;
        Ok(log)
    }

    /// Opens the log of a folder for reading, also while another process writes it.
    pub(crate) fn read(folder: &Path) -> Result<Self, PipelineError> {
        let path = folder.join(FILE);
        if !path.is_file() {
            return Err(PipelineError::NotARun {
                path: folder.to_owned(),
            });
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&path, flags).map_err(at(&path))?;
        Ok(Self { connection, path })
    }

    /// Runs statements; errors name the file.
    pub(crate) fn run<T>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, PipelineError> {
        work(&self.connection).map_err(at(&self.path))
    }

    /// The reply to a call made before.
    pub(crate) fn find<T: DeserializeOwned>(
        &self,
        key: &CallKey,
    ) -> Result<Option<T>, PipelineError> {
        let packed: Option<Vec<u8>> = self.run(|sql| {
            sql.prepare_cached("SELECT reply FROM calls WHERE key = ?1")?
                .query_row([key.as_slice()], |row| row.get(0))
                .optional()
        })?;
        packed
            .map(|packed| self.unpack(&packed, "a reply"))
            .transpose()
    }

    /// Writes calls and rows in one transaction.
    pub(crate) fn commit(
        &self,
        invocation: i64,
        calls: &[LoggedCall],
        (phase, recipe, rows): (&str, &str, &[LoggedRow]),
    ) -> Result<(), PipelineError> {
        let outcomes: Vec<Vec<u8>> = rows.iter().map(|row| pack(&row.outcome)).collect();
        self.run(|sql| {
            let transaction = sql.unchecked_transaction()?;
            let mut insert = sql.prepare_cached(
                "INSERT OR IGNORE INTO calls VALUES (NULL, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            )?;
            for call in calls {
                insert.execute(params![
                    call.key.as_slice(),
                    call.row,
                    call.role,
                    call.stage,
                    call.request,
                    call.reply,
                    call.usage.prompt_tokens as i64,
                    call.usage.cached_tokens as i64,
                    call.usage.completion_tokens as i64,
                    call.milliseconds,
                    invocation,
                ])?;
            }
            let mut insert = sql.prepare_cached(
                "INSERT OR REPLACE INTO rows VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?;
            for (row, outcome) in rows.iter().zip(&outcomes) {
                let (stage, reason) = match &row.outcome.verdict {
                    Verdict::Accepted => (None, None),
                    Verdict::Rejected(Rejection { stage, reason, .. }) => {
                        (Some(stage), Some(reason))
                    }
                };
                let position = row.position as i64;
                insert.execute(params![
                    phase, position, row.id, recipe, stage, reason, outcome
                ])?;
            }
            transaction.commit()
        })
    }

    /// Hands out the rows of a phase that ended under `recipe`, in source order, until `each`
    /// says stop.
    pub(crate) fn each_row(
        &self,
        (phase, recipe): (&str, &str),
        mut each: impl FnMut(LoggedRow) -> Result<Walk, PipelineError>,
    ) -> Result<(), PipelineError> {
        let sql = "SELECT position, id, outcome FROM rows
                   WHERE phase = ?1 AND recipe = ?2 ORDER BY position";
        let mut statement = self.connection.prepare(sql).map_err(at(&self.path))?;
        let mut rows = statement.query([phase, recipe]).map_err(at(&self.path))?;
        while let Some(row) = rows.next().map_err(at(&self.path))? {
            let read = || -> rusqlite::Result<(i64, String, Vec<u8>)> {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            };
            let (position, id, packed) = read().map_err(at(&self.path))?;
            let outcome = self.unpack(&packed, &format!("the outcome of row {id}"))?;
            let position = position.unsigned_abs();
            if each(LoggedRow {
                position,
                id,
                outcome,
            })? == Walk::Stop
            {
                break;
            }
        }
        Ok(())
    }

    /// Heads of finished rows of a phase from `position` on, in source order, at most `limit`.
    pub(crate) fn row_heads(
        &self,
        phase: &str,
        position: u64,
        limit: usize,
    ) -> Result<Vec<RowHead>, PipelineError> {
        let sql = "SELECT position, id, recipe, stage, reason FROM rows
                   WHERE phase = ?1 AND position >= ?2 ORDER BY position LIMIT ?3";
        self.run(|connection| {
            connection
                .prepare_cached(sql)?
                .query_map(params![phase, position as i64, limit as i64], |row| {
                    let stage: Option<String> = row.get(3)?;
                    let reason: Option<String> = row.get(4)?;
                    Ok(RowHead {
                        position: row.get::<_, i64>(0)?.unsigned_abs(),
                        id: row.get(1)?,
                        recipe: row.get(2)?,
                        rejection: stage.zip(reason),
                    })
                })?
                .collect()
        })
    }

    /// One finished row.
    pub(crate) fn row(&self, phase: &str, position: u64) -> Result<Option<Outcome>, PipelineError> {
        let packed: Option<Vec<u8>> = self.run(|sql| {
            sql.prepare_cached("SELECT outcome FROM rows WHERE phase = ?1 AND position = ?2")?
                .query_row(params![phase, position as i64], |row| row.get(0))
                .optional()
        })?;
        packed
            .map(|packed| self.unpack(&packed, &format!("the outcome at position {position}")))
            .transpose()
    }

    /// Writes the use of the log by stage, of one invocation so far.
    pub(crate) fn save_use(
        &self,
        invocation: i64,
        stages: &BTreeMap<String, StageUse>,
    ) -> Result<(), PipelineError> {
        self.run(|sql| {
            let transaction = sql.unchecked_transaction()?;
            let mut insert =
                sql.prepare_cached("INSERT OR REPLACE INTO use_of_log VALUES (?1, ?2, ?3, ?4)")?;
            for (stage, one) in stages {
                insert.execute(params![
                    invocation,
                    stage,
                    one.asked as i64,
                    one.reused as i64
                ])?;
            }
            transaction.commit()
        })
    }

    /// Notes that a run begins, and gives it its number.
    pub(crate) fn begin_invocation(&self, manifest: &Manifest) -> Result<i64, PipelineError> {
        let json = serde_json::to_string(manifest).expect("our own types have string keys");
        self.run(|sql| {
            sql.execute("INSERT INTO invocations (manifest) VALUES (?1)", [json])?;
            Ok(sql.last_insert_rowid())
        })
    }

    /// What each invocation was made of.
    pub(crate) fn manifests(&self) -> Result<Vec<(i64, Manifest)>, PipelineError> {
        let rows: Vec<(i64, String)> = self.run(|sql| {
            sql.prepare("SELECT id, manifest FROM invocations ORDER BY id")?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect()
        })?;
        let parse = |(id, json): (i64, String)| {
            let manifest = serde_json::from_str(&json);
            let manifest = manifest.map_err(|error| PipelineError::Damaged {
                path: self.path.clone(),
                what: format!("the manifest of invocation {id}"),
                detail: error.to_string(),
            })?;
            Ok((id, manifest))
        };
        rows.into_iter().map(parse).collect()
    }

    /// What the last invocation was made of, if there was one.
    pub(crate) fn last_manifest(&self) -> Result<Option<Manifest>, PipelineError> {
        Ok(self.manifests()?.pop().map(|(_, manifest)| manifest))
    }

    /// Finished rows by phase and how they ended.
    #[expect(clippy::type_complexity, reason = "phase, stage and reason, rows")]
    pub(crate) fn row_counts(
        &self,
    ) -> Result<Vec<(String, Option<(String, String)>, u64)>, PipelineError> {
        let sql = "SELECT phase, stage, reason, COUNT(*) FROM rows GROUP BY phase, stage, reason";
        self.run(|connection| {
            connection
                .prepare(sql)?
                .query_map([], |row| {
                    let stage: Option<String> = row.get(1)?;
                    let reason: Option<String> = row.get(2)?;
                    let rows = row.get::<_, i64>(3)?.unsigned_abs();
                    Ok((row.get(0)?, stage.zip(reason), rows))
                })?
                .collect()
        })
    }

    /// Calls by stage.
    pub(crate) fn stages(&self) -> Result<BTreeMap<String, StageStatus>, PipelineError> {
        let sql = "SELECT stage, MIN(role), COUNT(*), SUM(prompt_tokens), SUM(cached_tokens),
                          SUM(completion_tokens), AVG(milliseconds)
                   FROM calls GROUP BY stage";
        self.run(|connection| {
            connection
                .prepare(sql)?
                .query_map([], |row| {
                    let number = |index| row.get::<_, i64>(index).map(i64::unsigned_abs);
                    let status = StageStatus {
                        role: row.get(1)?,
                        calls: number(2)?,
                        prompt_tokens: number(3)?,
                        cached_tokens: number(4)?,
                        completion_tokens: number(5)?,
                        mean_ms: row.get(6)?,
                    };
                    Ok((row.get(0)?, status))
                })?
                .collect()
        })
    }

    /// Calls asked and reused, by invocation and stage.
    pub(crate) fn uses(&self) -> Result<Vec<(i64, String, u64, u64)>, PipelineError> {
        self.run(|sql| {
            sql.prepare("SELECT invocation, stage, asked, reused FROM use_of_log")?
                .query_map([], |row| {
                    let number = |index| row.get::<_, i64>(index).map(i64::unsigned_abs);
                    Ok((row.get(0)?, row.get(1)?, number(2)?, number(3)?))
                })?
                .collect()
        })
    }

    /// Takes over the calls and the rows of one phase from another log; says how many rows
    /// that one had.
    pub(crate) fn absorb(&self, other: &Path, phase: &str) -> Result<u64, PipelineError> {
        let path = other.to_string_lossy();
        self.run(|sql| {
            sql.execute("ATTACH ?1 AS part", [path.as_ref()])?;
            let absorbed = (|| {
                sql.execute_batch(
                    "INSERT OR IGNORE INTO calls
                     SELECT NULL, key, row, role, stage, request, reply, prompt_tokens,
                            cached_tokens, completion_tokens, milliseconds, invocation
                     FROM part.calls ORDER BY id",
                )?;
                sql.execute(
                    "INSERT OR IGNORE INTO rows SELECT * FROM part.rows WHERE phase = ?1",
                    [phase],
                )?;
                let sql = sql.query_row(
                    "SELECT COUNT(*) FROM part.rows WHERE phase = ?1",
                    [phase],
                    |row| row.get::<_, i64>(0),
                );
                sql.map(i64::unsigned_abs)
            })();
            sql.execute("DETACH part", [])?;
            absorbed
        })
    }

    /// How many places of the source have a row.
    pub(crate) fn positions(&self, phase: &str) -> Result<u64, PipelineError> {
        self.run(|sql| {
            sql.query_row(
                "SELECT COUNT(*) FROM rows WHERE phase = ?1",
                [phase],
                |row| row.get::<_, i64>(0).map(i64::unsigned_abs),
            )
        })
    }

    /// A fact about the run, by name.
    pub(crate) fn fact(&self, name: &str) -> Result<Option<String>, PipelineError> {
        self.run(|sql| {
            sql.query_row("SELECT value FROM facts WHERE name = ?1", [name], |row| {
                row.get(0)
            })
            .optional()
        })
    }

    /// Sets a fact.
    pub(crate) fn set_fact(&self, name: &str, value: &str) -> Result<(), PipelineError> {
        self.run(|sql| {
            sql.execute(
                "INSERT OR REPLACE INTO facts VALUES (?1, ?2)",
                [name, value],
            )
            .map(drop)
        })
    }

    fn unpack<T: DeserializeOwned>(&self, packed: &[u8], what: &str) -> Result<T, PipelineError> {
        let damaged = |detail: String| PipelineError::Damaged {
            path: self.path.clone(),
            what: what.to_owned(),
            detail,
        };
        let json = match packed.split_first() {
            Some((&PLAIN, json)) => Cow::Borrowed(json),
            Some((&COMPRESSED, rest)) => {
                let json = zstd::decode_all(rest);
                Cow::Owned(json.map_err(|error| damaged(error.to_string()))?)
            }
            _ => return Err(damaged("it does not begin as it should".into())),
        };
        serde_json::from_slice(&json).map_err(|error| damaged(error.to_string()))
    }
}

/// Whether a walk over rows goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Walk {
    On,
    Stop,
}

/// First byte of an entry: JSON follows.
const PLAIN: u8 = 0;
/// First byte of an entry: JSON, compressed by zstd, follows.
const COMPRESSED: u8 = 1;
/// Entries shorter than this are not worth compressing.
const COMPRESS_FROM: usize = 512;

/// JSON, compressed where that is worth it.
pub(crate) fn pack(value: &impl Serialize) -> Vec<u8> {
    thread_local! {
        // Setting one up costs more than compressing a call.
        static COMPRESSOR: RefCell<zstd::bulk::Compressor<'static>> =
            RefCell::new(zstd::bulk::Compressor::new(1).expect("level 1 exists"));
    }
    let mut packed = vec![PLAIN];
    serde_json::to_writer(&mut packed, value).expect("our own types have string keys");
    if packed.len() < COMPRESS_FROM {
        return packed;
    }
    let compressed = COMPRESSOR.with_borrow_mut(|compressor| compressor.compress(&packed[1..]));
    let mut compressed = compressed.expect("compressing into memory does not fail");
    compressed.insert(0, COMPRESSED);
    compressed
}

/// The key of asking `identity` for `request`; `kind` keeps different requests apart.
pub(crate) fn call_key(kind: &str, identity: &str, request: &impl Serialize) -> CallKey {
    let request = serde_json::to_vec(request).expect("our own types have string keys");
    let mut hasher = blake3::Hasher::new();
    for part in [kind.as_bytes(), identity.as_bytes(), &request] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().as_bytes()[..16]
        .try_into()
        .expect("a hash has 32 bytes")
}

fn at(path: &Path) -> impl FnOnce(rusqlite::Error) -> PipelineError + use<> {
    let path = path.to_owned();
    move |source| PipelineError::Log { path, source }
}
