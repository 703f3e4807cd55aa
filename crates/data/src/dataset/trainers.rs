//! What other trainers ask for beside the rows: LLaMA-Factory's registry with its own form of
//! preference rows, and lines for an axolotl configuration.

use super::{DatasetError, FileFacts, Kind, Replaced, each_row};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// LLaMA-Factory's registry.
pub(crate) const INFO_FILE: &str = "dataset_info.json";
/// Rows in the form that only LLaMA-Factory asks for.
pub(crate) const LLAMAFACTORY_FOLDER: &str = "llamafactory";

/// An entry of the registry. All columns and tags are stated: stating some takes away the
/// defaults of the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TrainerEntry {
    pub(crate) file_name: String,
    pub(crate) formatting: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) ranking: bool,
    pub(crate) columns: BTreeMap<String, String>,
    pub(crate) tags: BTreeMap<String, String>,
}

impl TrainerEntry {
    fn new(file_name: String, kind: Kind) -> Self {
        let columns: &[(&str, &str)] = match kind {
            Kind::Preferences => &[
                ("messages", "prompt"),
                ("chosen", "chosen"),
                ("rejected", "rejected"),
            ],
            Kind::Conversations | Kind::Other => &[("messages", "messages")],
        };
        let tags = [
            ("role_tag", "role"),
            ("content_tag", "content"),
            ("user_tag", "user"),
            ("assistant_tag", "assistant"),
            ("observation_tag", "tool"),
            ("function_tag", "function_call"),
            ("system_tag", "system"),
        ];
        let owned = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect()
        };
        Self {
            file_name,
            formatting: "sharegpt".into(),
            ranking: kind == Kind::Preferences,
            columns: owned(columns),
            tags: owned(&tags),
        }
    }
}

/// The registry's text.
pub(crate) fn dataset_info(entries: &BTreeMap<String, TrainerEntry>) -> String {
    let text = serde_json::to_string_pretty(entries).expect("our own types have string keys");
    text + "\n"
}

/// Entries for every file that can be trained on. Conversations are read where they are;
/// preferences are written again, because LLaMA-Factory takes an answer as one turn, where
/// TRL takes a list of them.
pub(crate) fn write_llamafactory(
    folder: &Path,
    files: &[FileFacts],
) -> Result<BTreeMap<String, TrainerEntry>, DatasetError> {
    let inner = folder.join(LLAMAFACTORY_FOLDER);
    let mut entries = BTreeMap::new();
    for file in files {
        let is_pairs = file.kind == Kind::Preferences && file.rows > 0;
        if is_pairs {
            fs::create_dir_all(&inner).map_err(DatasetError::io("make", &inner))?;
        }
        let file_name = if is_pairs && write_pairs(folder, &inner, &file.name)? {
            format!("{LLAMAFACTORY_FOLDER}/{}", file.name)
        } else {
            // What an earlier export may have left.
            drop(fs::remove_file(inner.join(&file.name)));
            file.name.clone()
        };
        let is_readable = match file.kind {
            Kind::Conversations => file.keys.iter().any(|key| key == "messages"),
            Kind::Preferences => file_name != file.name,
            Kind::Other => false,
        };
        if file.rows > 0 && is_readable {
            let entry = TrainerEntry::new(file_name, file.kind);
            entries.insert(file.stem().to_owned(), entry);
        }
    }
    // Gone if nothing is in it.
    drop(fs::remove_dir(&inner));
    Ok(entries)
}

/// Writes preferences with one turn per answer; false if an answer has more of them.
fn write_pairs(folder: &Path, inner: &Path, name: &str) -> Result<bool, DatasetError> {
    let mut written = Replaced::create(inner, name)?;
    let mut all = true;
    each_row(&folder.join(name), |row| {
        let one = |name: &str| match row.get(name).and_then(Value::as_array) {
            Some(turns) if turns.len() == 1 => turns.first().cloned(),
            _ => None,
        };
        let (Some(chosen), Some(rejected)) = (one("chosen"), one("rejected")) else {
            all = false;
            return Ok(());
        };
        let prompt = row.get("prompt").cloned().unwrap_or_default();
        let line = json!({
            "id": row.get("id").cloned().unwrap_or_default(), "prompt": prompt,
            "chosen": chosen, "rejected": rejected,
        });
        written.write(format!("{line}\n").as_bytes())
    })?;
    if all {
        written.finish()?;
    } else {
        written.discard()?;
    }
    Ok(all)
}

/// Lines for an axolotl configuration; preferences are for a run of their own.
pub(crate) fn axolotl(files: &[FileFacts]) -> String {
    let mut text =
        String::from("# For an axolotl configuration; the paths begin where axolotl is started.\n");
    let of = |kind| {
        files
            .iter()
            .filter(move |file| file.kind == kind && file.rows > 0)
    };
    if of(Kind::Conversations).next().is_some() {
        text.push_str("\n# Supervised: keep the files you train on.\ndatasets:\n");
    }
    for file in of(Kind::Conversations) {
        let _ = write!(
            text,
            "  - path: {}\n    ds_type: json\n    type: chat_template\n    field_messages: messages\n    message_property_mappings:\n      role: role\n      content: content\n    roles_to_train: [assistant]\n",
            file.name
        );
    }
    if of(Kind::Preferences).next().is_some() {
        text.push_str("\n# Preferences: in place of the above.\n# rl: dpo\n# datasets:\n");
    }
    for file in of(Kind::Preferences) {
        let _ = write!(
            text,
            "#   - path: {}\n#     ds_type: json\n#     split: train\n#     type: chat_template.default\n#     field_messages: prompt\n#     field_chosen: chosen\n#     field_rejected: rejected\n",
            file.name
        );
    }
    text
}
