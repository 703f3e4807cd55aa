//! From what a user types after `-m` to files on disk: a path, an id in the Hugging Face
//! cache, or an alias. Reads the cache, never writes to it, and asks nobody.

use crate::ModelError;
use crate::weights::{INDEX, read_index};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Where the argument was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// It is a path.
    Path,
    /// It is an id in the Hugging Face cache.
    HubCache {
        /// `org/name`
        id: String,
        /// The commit its snapshot is of.
        commit: String,
    },
    /// It is an alias of this.
    Alias(String),
}

/// Files that [`crate::ModelFiles`] opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// A folder with `config.json`, or a `.gguf` file.
    pub path: PathBuf,
    /// Where it was found.
    pub origin: Origin,
}

/// A model in the cache, whole or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedModel {
    /// `org/name`
    pub id: String,
    /// The commit of the snapshot.
    pub commit: String,
    /// Names that point to the commit, such as `main`.
    pub refs: Vec<String>,
    /// The snapshot's folder.
    pub path: PathBuf,
    /// Bytes of its files, links followed.
    pub size_in_bytes: u64,
    /// Files that loading would need and that are not there.
    pub missing: Vec<String>,
}

/// The Hugging Face cache on this machine.
#[derive(Debug, Clone)]
pub struct HubCache {
    root: PathBuf,
}

impl HubCache {
    /// The cache in this folder (the one that holds `models--ORG--NAME`).
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where huggingface_hub would look, by these environment variables in this order:
    /// `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME`, `HOME`.
    pub fn from_env(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let set = |name: &str| {
            variable(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let root = set("HF_HUB_CACHE")
            .or_else(|| set("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| Some(set("HF_HOME")?.join("hub")))
            .or_else(|| Some(set("XDG_CACHE_HOME")?.join("huggingface/hub")))
            .or_else(|| Some(set("HOME")?.join(".cache/huggingface/hub")))
            .unwrap_or_else(|| PathBuf::from(".cache/huggingface/hub"));
        Self { root }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Every snapshot of every model, in the order of ids; unreadable folders are left out.
    pub fn list(&self) -> Vec<CachedModel> {
        let mut models = Vec::new();
        for name in names_in(&self.root) {
            let Some(id) = name
                .strip_prefix("models--")
                .map(|id| id.replacen("--", "/", 1))
            else {
                continue;
            };
            let repository = self.root.join(&name);
            let refs = refs(&repository);
            for commit in names_in(&repository.join("snapshots")) {
                let path = repository.join("snapshots").join(&commit);
                let mine = refs.iter().filter(|(_, target)| **target == commit);
                models.push(CachedModel {
                    id: id.clone(),
                    refs: mine.map(|(name, _)| name.clone()).collect(),
                    size_in_bytes: names_in(&path)
                        .iter()
                        .filter_map(|file| Some(std::fs::metadata(path.join(file)).ok()?.len()))
                        .sum(),
                    missing: missing(&repository, &commit),
                    path,
                    commit,
                });
            }
        }
        models
    }

    fn find(&self, id: &HubId<'_>) -> Result<Found, ModelError> {
        let repository = self
            .root
            .join(format!("models--{}", id.name.replace('/', "--")));
        let revision = id.revision.unwrap_or("main");
        let absent = |place: &Path| ModelError::NotFound {
            argument: id.name.into(),
            looked: vec![place.display().to_string()],
            remedy: id.remedy(),
        };
        let is_commit = repository.join("snapshots").join(revision).is_dir();
        let commit = match is_commit {
            true => revision.to_owned(),
            false => refs(&repository)
                .remove(revision)
                .ok_or_else(|| absent(&repository.join("refs").join(revision)))?,
        };
        let snapshot = repository.join("snapshots").join(&commit);
        if !snapshot.is_dir() {
            return Err(absent(&snapshot));
        }
        let origin = Origin::HubCache {
            id: id.name.into(),
            commit: commit.clone(),
        };
        let want_gguf = id.quant.is_some() || !snapshot.join("config.json").exists();
        if want_gguf && let Some(path) = gguf_in(&snapshot, id.quant)? {
            return Ok(Found { path, origin });
        }
        let missing = missing(&repository, &commit);
        if missing.is_empty() {
            return Ok(Found {
                path: snapshot,
                origin,
            });
        }
        Err(ModelError::Incomplete {
            id: id.name.into(),
            snapshot,
            missing: missing.join(", "),
            remedy: id.remedy(),
        })
    }
}

/// `org/name[@revision][:quant]`
struct HubId<'a> {
    name: &'a str,
    revision: Option<&'a str>,
    quant: Option<&'a str>,
}

impl<'a> HubId<'a> {
    fn parse(argument: &'a str) -> Option<Self> {
        let (rest, quant) = match argument.split_once(':') {
            Some((rest, quant)) => (rest, Some(quant)),
            None => (argument, None),
        };
        let (name, revision) = match rest.split_once('@') {
            Some((name, revision)) => (name, Some(revision)),
            None => (rest, None),
        };
        let (org, repository) = name.split_once('/')?;
        // No part may climb out of the cache, and `--` separates the parts there.
        let plain = |part: &str| {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
            !part.is_empty()
                && part.bytes().all(allowed)
                && !part.starts_with('.')
                && !part.contains("--")
                && !part.contains("..")
        };
        let parts = [Some(org), Some(repository), quant];
        let revision_parts = revision.iter().flat_map(|revision| revision.split('/'));
        let good = parts.into_iter().flatten().chain(revision_parts).all(plain);
        good.then_some(Self {
            name,
            revision,
            quant,
        })
    }

    fn remedy(&self) -> String {
        let revision = self
            .revision
            .map(|revision| format!(" --revision {revision}"))
            .unwrap_or_default();
        format!(
            "on a connected machine: hf download {}{revision}; then copy the cache here, or give the path of a model folder or .gguf file",
            self.name
        )
    }
}

/// Finds the model that `argument` names: an existing path, else an id in the cache, else an
/// alias for one of the two.
///
/// # Errors
/// Nothing of the name: the message says how the argument was understood, where was looked and
/// how to get the model. Or a snapshot that lacks files, named.
pub fn resolve(
    argument: &str,
    cache: &HubCache,
    aliases: &BTreeMap<String, String>,
) -> Result<Found, ModelError> {
    if let Some(found) = find(argument, cache)? {
        return Ok(found);
    }
    let Some(target) = aliases.get(argument) else {
        let known: Vec<&str> = aliases.keys().map(String::as_str).collect();
        return Err(ModelError::NotFound {
            argument: argument.into(),
            looked: vec![
                format!("the path {argument}"),
                format!(
                    "the aliases ({})",
                    if known.is_empty() {
                        "none".into()
                    } else {
                        known.join(", ")
                    }
                ),
            ],
            remedy: "give the path of a model folder or .gguf file, or an id of the form org/name"
                .into(),
        });
    };
    match find(target, cache)? {
        Some(found) => Ok(Found {
            origin: Origin::Alias(target.clone()),
            ..found
        }),
        None => Err(ModelError::NotFound {
            argument: format!("{target} (which {argument} is an alias of)"),
            looked: vec![format!("the path {target}")],
            remedy: "correct the alias".into(),
        }),
    }
}

/// The argument as a path or an id; `None` if it is neither.
fn find(argument: &str, cache: &HubCache) -> Result<Option<Found>, ModelError> {
    let path = Path::new(argument);
    if path.exists() {
        return Ok(Some(Found {
            path: usable(path)?,
            origin: Origin::Path,
        }));
    }
    if let Some(id) = HubId::parse(argument) {
        return cache.find(&id).map(Some);
    }
    if argument.contains(['/', '\\']) || argument.ends_with(".gguf") {
        return Err(ModelError::NotFound {
            argument: argument.into(),
            looked: vec![format!("the path {argument}")],
            remedy: "it was taken for a path; an id has the form org/name[@revision][:quant]"
                .into(),
        });
    }
    Ok(None)
}

/// A path that exists: a file as it is, a folder with a config, or the one GGUF in a folder.
fn usable(path: &Path) -> Result<PathBuf, ModelError> {
    if path.is_file() || path.join("config.json").exists() {
        return Ok(path.into());
    }
    gguf_in(path, None)?
        .ok_or_else(|| ModelError::missing(path, "config.json", "a model folder or a .gguf file"))
}

/// The GGUF file of a folder: the one whose name ends in `quant`, or the only one.
fn gguf_in(folder: &Path, quant: Option<&str>) -> Result<Option<PathBuf>, ModelError> {
    let first_part = |name: &String| {
        let stem = name
            .strip_suffix(".gguf")
            .filter(|_| folder.join(name).exists());
        stem.is_some_and(|stem| !stem.contains("-of-") || stem.contains("-00001-of-"))
    };
    let all: Vec<String> = names_in(folder).into_iter().filter(first_part).collect();
    let encoding = |name: &str| {
        let stem = name.trim_end_matches(".gguf");
        let stem = stem.split_once("-00001-of-").map_or(stem, |(stem, _)| stem);
        stem.to_ascii_lowercase()
    };
    let wanted = |name: &&String| match quant {
        None => true,
        Some(quant) => encoding(name)
            .strip_suffix(&quant.to_ascii_lowercase())
            .is_some_and(|rest| rest.is_empty() || rest.ends_with(['-', '.', '_'])),
    };
    let matching: Vec<&String> = all.iter().filter(wanted).collect();
    match (matching[..].as_ref(), quant) {
        ([one], _) => Ok(Some(folder.join(one))),
        ([], None) => Ok(None),
        ([], Some(quant)) => {
            let expected = format!(
                "a .gguf file whose name ends in it (there are: {})",
                all.join(", ")
            );
            Err(ModelError::missing(folder, quant, expected))
        }
        (_, _) => {
            let expected =
                "one .gguf file; choose with :quant, as in org/name:Q4_K_M, or give its path";
            Err(ModelError::field(
                folder,
                "the GGUF files",
                expected,
                all.join(", "),
            ))
        }
    }
}

/// Names in a folder, sorted; none if it cannot be read.
fn names_in(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return vec![];
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// Name to commit, for every file below `refs` (`main`, `refs/pr/1`, …).
fn refs(repository: &Path) -> BTreeMap<String, String> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![String::new()]);
    while let Some(folder) = folders.pop() {
        for name in names_in(&repository.join("refs").join(&folder)) {
            let name = if folder.is_empty() {
                name
            } else {
                format!("{folder}/{name}")
            };
            let path = repository.join("refs").join(&name);
            if path.is_dir() {
                if name.split('/').count() < 8 {
                    folders.push(name);
                }
            } else if let Ok(commit) = std::fs::read_to_string(&path) {
                let commit = commit.trim();
                if !commit.is_empty() && commit.bytes().all(|b| b.is_ascii_alphanumeric()) {
                    found.insert(name, commit.to_owned());
                }
            }
        }
    }
    found
}

/// Files that loading this snapshot would need and that are not there: by the listing of the
/// commit that newer downloaders leave beside it, and by the index of the shards.
fn missing(repository: &Path, commit: &str) -> Vec<String> {
    let snapshot = repository.join("snapshots").join(commit);
    let mut needed = needed_by_listing(&repository.join("trees").join(format!("{commit}.json")));
    let has_gguf = names_in(&snapshot)
        .iter()
        .any(|name| name.ends_with(".gguf"));
    if !has_gguf {
        needed.push("config.json".into());
        match read_index(&snapshot.join(INDEX)) {
            Ok(map) => needed.extend(map.into_values()),
            Err(_) if !snapshot.join("model.safetensors").exists() => {
                needed.push(format!("model.safetensors or {INDEX}"));
            }
            Err(_) => {}
        }
    }
    needed.sort();
    needed.dedup();
    needed.retain(|name| !snapshot.join(name).exists());
    needed
}

fn needed_by_listing(path: &Path) -> Vec<String> {
    let listing: Option<Value> = std::fs::read_to_string(path)
        .ok()
        .and_then(|text| serde_json::from_str(&text).ok());
    let files = listing
        .as_ref()
        .and_then(|listing| listing.get("files")?.as_object());
    let is_needed = |name: &&String| {
        let top_level = !name.contains('/');
        let part = name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json");
        let text = [
            "config.json",
            "generation_config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "chat_template.jinja",
        ];
        top_level && (part || text.contains(&name.as_str()))
    };
    files
        .into_iter()
        .flat_map(|files| files.keys())
        .filter(is_needed)
        .cloned()
        .collect()
}
