//! The card: what is in the files, how many rows ended how, and what made them. Its tables
//! are read again by the check.

use super::{FileFacts, Kind, Origin};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Name of the card.
pub(crate) const CARD_FILE: &str = "README.md";

/// Digest of the seeds of a recipe that has none.
pub const NO_SEEDS: &str = "none";

const FILES_HEAD: &str = "| file | rows | what |";
const FUNNEL_HEAD: &str = "| rows of the seeds | rows |";

/// Counts that a card states.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Rows by file.
    pub(crate) files: BTreeMap<String, u64>,
    /// Rows by how they ended: `read`, `accepted`, `unfinished`.
    pub(crate) ended: BTreeMap<String, u64>,
    /// Rows rejected, by `stage: reason`.
    pub(crate) rejected: BTreeMap<String, u64>,
}

/// The card's text.
pub(crate) fn render(files: &[FileFacts], origin: &Origin) -> String {
    let mut text = header(files);
    let recipe = cell(&origin.recipe);
    let part = origin.part.as_ref();
    let part = part.map_or(String::new(), |part| format!(", part {part} of its seeds"));
    let from = match origin.names.seeds.is_empty() && origin.source_digest == NO_SEEDS {
        true => "",
        false => ", from seed prompts",
    };
    let _ = write!(
        text,
        "# Instruction data made with {recipe}\n\nSynthetic: written and judged by language models{from}. Made with {} (recipe {recipe}, seed {}{part}).\n\n",
        cell(&origin.program),
        origin.seed,
    );
    text.push_str(&files_table(files));
    text.push_str(&funnel_tables(origin));
    text.push_str(&origin.notes);
    text.push_str(&origin_tables(origin));
    text.push_str(LICENCE);
    text.push_str(&usage(files));
    text
}

const LICENCE: &str = "\
## Licence

Not stated, because no program can know it. It follows from the licence of the seeds, whose
texts are in the rows, and from the terms of the models that wrote the answers. Fill it in
here, and as `license:` in the header, before you pass the data on; do it last, because the
run writes this page anew each time it goes on.

";

/// The YAML header, from which `datasets` knows the files.
fn header(files: &[FileFacts]) -> String {
    let mut text = String::from("---\n");
    let filled: Vec<&FileFacts> = files.iter().filter(|file| file.rows > 0).collect();
    let first = filled
        .iter()
        .position(|file| file.kind != Kind::Other)
        .unwrap_or(0);
    if !filled.is_empty() {
        text.push_str("configs:\n");
    }
    for (index, file) in filled.iter().enumerate() {
        let _ = writeln!(text, "- config_name: {}", file.stem());
        if index == first {
            text.push_str("  default: true\n");
        }
        let _ = write!(
            text,
            "  data_files:\n  - split: train\n    path: {}\n",
            file.name
        );
    }
    text.push_str("tags:\n- synthetic\n---\n\n");
    text
}

fn files_table(files: &[FileFacts]) -> String {
    let mut text = format!("## Files\n\n{FILES_HEAD}\n|---|---|---|\n");
    for file in files {
        let keys: Vec<String> = file.keys.iter().map(|key| format!("`{key}`")).collect();
        let what = match (file.rows, file.kind) {
            (0, _) => "empty".to_owned(),
            (_, Kind::Conversations) => format!("conversations to learn from: {}", keys.join(", ")),
            (_, Kind::Preferences) => format!("preference pairs: {}", keys.join(", ")),
            (_, Kind::Other) => keys.join(", "),
        };
        let _ = writeln!(text, "| `{}` | {} | {what} |", file.name, file.rows);
    }
    text + "\n"
}

fn funnel_tables(origin: &Origin) -> String {
    let funnel = &origin.funnel;
    let mut text = format!("## Where the rows ended\n\n{FUNNEL_HEAD}\n|---|---|\n");
    let _ = writeln!(text, "| read | {} |", funnel.read);
    let _ = writeln!(text, "| accepted | {} |", funnel.accepted);
    for (stage, reasons) in &funnel.rejected {
        for (reason, rows) in reasons {
            let (stage, reason) = (cell(stage), cell(reason));
            let _ = writeln!(text, "| rejected at {stage}: {reason} | {rows} |");
        }
    }
    let _ = writeln!(text, "| unfinished | {} |\n", funnel.unfinished);
    if !funnel.counts.is_empty() {
        text.push_str("What happened on the way:\n\n| event | times |\n|---|---|\n");
        for (name, times) in &funnel.counts {
            let _ = writeln!(text, "| {} | {times} |", cell(name));
        }
        text.push('\n');
    }
    text
}

fn origin_tables(origin: &Origin) -> String {
    let names = &origin.names;
    let seeds: Vec<String> = names.seeds.iter().map(|name| code(name)).collect();
    let seeds = if origin.source_digest == NO_SEEDS {
        "none".to_owned()
    } else if seeds.is_empty() {
        "not known by name".to_owned()
    } else {
        seeds.join(", ")
    };
    let mut text = format!(
        "## What made them\n\nSeeds: {seeds}, digest {}.\n\n| role | model | digest |\n|---|---|---|\n",
        code(&origin.source_digest)
    );
    for (role, digest) in &origin.model_digests {
        let name = names.models.get(role).map_or("", String::as_str);
        let _ = writeln!(
            text,
            "| {} | {} | {} |",
            cell(role),
            code(name),
            code(digest)
        );
    }
    text.push_str("\n| prompt | digest | sampling | after |\n|---|---|---|---|\n");
    for (id, digest) in &origin.prompt_digests {
        let facts = names.prompts.get(id).cloned().unwrap_or_default();
        let sampling: Vec<String> = facts
            .sampling
            .iter()
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} |",
            cell(id),
            code(digest),
            cell(&sampling.join(", ")),
            cell(&facts.source)
        );
    }
    text.push_str("\nSettings of the recipe:\n\n| setting | value |\n|---|---|\n");
    for (name, value) in origin.settings.as_object().into_iter().flatten() {
        let _ = writeln!(text, "| {} | {} |", cell(name), code(&setting(value)));
    }
    text + "\n"
}

fn usage(files: &[FileFacts]) -> String {
    let trainable = files
        .iter()
        .find(|file| file.rows > 0 && file.kind != Kind::Other);
    let Some(file) = trainable else {
        return String::new();
    };
    format!(
        "## Loading\n\n```python\nfrom datasets import load_dataset\nrows = load_dataset(\"json\", data_files=\"{}\", split=\"train\")\n```\n\nLLaMA-Factory: this folder as `dataset_dir`, `{}` as `dataset`. Axolotl: the lines of `axolotl.yml`.\n",
        file.name,
        file.stem()
    )
}

/// A setting as it was written: an f32 that became an f64 on its way is shown as what it was.
fn setting(value: &Value) -> String {
    let short = |number: f64| {
        let short = number as f32;
        (f64::from(short) == number).then(|| short.to_string())
    };
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_f64() => {
            let short = number.as_f64().and_then(short);
            short.unwrap_or_else(|| number.to_string())
        }
        value => value.to_string(),
    }
}

/// Text that stays in its cell.
fn cell(text: &str) -> String {
    let visible = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    visible.collect::<String>().replace('|', "\\|")
}

/// Text as code, in its cell.
fn code(text: &str) -> String {
    if text.is_empty() {
        return String::new();
    }
    format!("`{}`", cell(text).replace('`', "'"))
}

/// Reads the counts that a card states; `None` if it has no such tables.
pub(crate) fn read_counts(card: &str) -> Option<Counts> {
    let mut counts = Counts::default();
    for (name, rows) in table(card, FILES_HEAD)? {
        counts.files.insert(name.trim_matches('`').to_owned(), rows);
    }
    for (name, rows) in table(card, FUNNEL_HEAD)? {
        match name.strip_prefix("rejected at ") {
            Some(reason) => counts.rejected.insert(reason.to_owned(), rows),
            None => counts.ended.insert(name, rows),
        };
    }
    Some(counts)
}

/// First and second cells of the table with this head.
fn table(card: &str, head: &str) -> Option<Vec<(String, u64)>> {
    let mut lines = card.lines().skip_while(|line| *line != head);
    lines.next()?;
    let rows = lines.skip(1).take_while(|line| line.starts_with('|'));
    rows.map(|line| {
        let mut cells = line.split(" | ");
        let name = cells.next()?.trim_start_matches("| ").to_owned();
        let rows = cells.next()?.trim_end_matches(" |").parse().ok()?;
        Some((name, rows))
    })
    .collect()
}
