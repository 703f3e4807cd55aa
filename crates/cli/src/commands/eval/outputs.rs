//! What is printed, and the files in lm-eval's layout.

use super::{EvalArgs, Judgement, Parties};
use crate::output;
use crate::session::{self, Opened};
use ::eval::lm_eval::{self, RunFacts};
use ::eval::{Benchmark, table};
use anyhow::{Context, Result};
use data::Message;
use engine::Text;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the answers came from.
pub(super) struct Origin {
    source: &'static str,
    model_args: Value,
    max_tokens: Option<usize>,
    /// How the prompts were written, where a model was asked.
    text: Option<Text>,
    /// The run's folder.
    folder: Option<PathBuf>,
}

impl Origin {
    /// A file.
    pub(super) fn responses(file: &Path) -> Self {
        Self {
            source: "responses",
            model_args: json!({ "file": file }),
            max_tokens: None,
            text: None,
            folder: None,
        }
    }

    /// A model that was asked in a run's folder.
    pub(super) fn model(
        opened: &Opened,
        args: &EvalArgs,
        identity: &str,
        max_tokens: usize,
        folder: PathBuf,
    ) -> Self {
        let adapter = args.model.adapter.as_deref().map(session::adapter_of);
        Self {
            source: "autodidact",
            model_args: json!({
                "pretrained": opened.name(), "peft": adapter.map(|(_, folder)| folder),
                "identity": identity,
            }),
            max_tokens: Some(max_tokens),
            text: Some(opened.text().clone()),
            folder: Some(folder),
        }
    }

    fn render(&self, messages: &[Message]) -> Option<String> {
        let rendered = self.text.as_ref()?.render(messages).ok()?;
        Some(rendered.text)
    }

    fn chat_template(&self) -> Option<String> {
        let template = self.text.as_ref()?.template()?;
        let conversation = model::Conversation::from_messages(&[]);
        template.source(&conversation).ok().map(str::to_owned)
    }
}

/// When it was, and how long it took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// Since 1970.
    pub(super) started: Duration,
    pub(super) elapsed: Duration,
}

/// Writes the results and a file of samples per task; gives their paths. With given
/// responses and no `-o` nothing is written.
///
/// # Errors
/// A file that cannot be written.
pub(super) fn write(
    args: &EvalArgs,
    benchmark: &Benchmark,
    parties: &Parties,
    judged: &Judgement,
    times: Times,
) -> Result<Vec<PathBuf>> {
    let origin = &parties.origin;
    let Some(folder) = args.output.as_ref().or(origin.folder.as_ref()) else {
        return Ok(Vec::new());
    };
    let facts = RunFacts {
        model: parties.ours.name.clone(),
        source: origin.source.to_owned(),
        model_args: origin.model_args.clone(),
        chat_template: origin.chat_template(),
        max_tokens: origin
            .max_tokens
            .unwrap_or_else(|| benchmark.suite.max_tokens()),
        limit: benchmark.is_partial().then_some(benchmark.items.len()),
        started: times.started,
        elapsed: times.elapsed,
    };
    let folder = folder.join(lm_eval::folder_name(&facts.model));
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let stamp = lm_eval::time_stamp(times.started);
    let mut written = Vec::new();
    for task in &judged.report.tasks {
        let samples = lm_eval::samples(
            benchmark,
            &task.name,
            &judged.rows,
            &parties.ours.answers,
            &facts,
            &|messages| origin.render(messages),
        );
        let lines: Vec<String> = samples.iter().map(Value::to_string).collect();
        let path = folder.join(format!("samples_{}_{stamp}.jsonl", task.name));
        write_beside(&path, &(lines.join("\n") + "\n"))?;
        written.push(path);
    }
    let mut results = lm_eval::results(benchmark, &judged.report, &judged.rows, &facts);
    results["autodidact"]["comparison"] = json!(judged.comparison);
    let path = folder.join(format!("results_{stamp}.json"));
    write_beside(&path, &format!("{results:#}\n"))?;
    written.insert(0, path);
    Ok(written)
}

/// Prints the report, and the comparison if there is one.
///
/// # Errors
/// A standard output that cannot be written.
pub(super) fn print(
    args: &EvalArgs,
    parties: &Parties,
    judged: &Judgement,
    written: &[PathBuf],
) -> Result<()> {
    let name = &parties.ours.name;
    if args.json {
        return output::print_json(&json!({
            "model": name, "report": judged.report, "comparison": judged.comparison,
            "files": written,
        }));
    }
    output::print(&table::report(name, &judged.report))?;
    if let Some(comparison) = &judged.comparison {
        output::print(&format!("\n{}", table::comparison(name, comparison)))?;
    }
    for path in written {
        output::say(&format!("written: {}", path.display()));
    }
    Ok(())
}

/// The file appears when it is whole.
fn write_beside(path: &Path, text: &str) -> Result<()> {
    let partial = path.with_extension("partial");
    let write = || -> std::io::Result<()> {
        let mut file = BufWriter::new(File::create(&partial)?);
        file.write_all(text.as_bytes())?;
        file.into_inner()?.sync_all()?;
        fs::rename(&partial, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
