//! `verify`: rule verdicts on existing responses; no model is needed.

use crate::commands::Env;
use crate::error::Failure;
use crate::output;
use crate::request;
use anyhow::Result;
use clap::Args;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, stdin};
use std::path::{Path, PathBuf};
use verify::{Accuracy, Instruction, Judgement, Suite, Verdict};

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// JSONL with response, instruction_id_list, kwargs and, if you like, key and prompt
    /// [default: standard input]
    #[arg(value_name = "FILE", conflicts_with_all = ["constraints", "responses"])]
    pub(crate) file: Option<PathBuf>,
    /// JSONL with instruction_id_list and kwargs, by key or prompt
    #[arg(long, value_name = "FILE", requires = "responses")]
    pub(crate) constraints: Option<PathBuf>,
    /// JSONL with the responses, by key or prompt
    #[arg(long, value_name = "FILE", requires = "constraints")]
    pub(crate) responses: Option<PathBuf>,
    /// Whose rules: ifeval, ifbench, livebench or multi-if
    #[arg(long, value_name = "NAME", default_value = "ifeval")]
    pub(crate) suite: String,
}

/// Runs the command.
pub(crate) fn run(_: &Env, args: &VerifyArgs) -> Result<()> {
    let suite = Suite::from_name(&args.suite).ok_or_else(|| {
        let known: Vec<&str> = Suite::ALL.iter().map(|suite| suite.as_str()).collect();
        Failure::usage(format!(
            "--suite {}: there are {}",
            args.suite,
            known.join(", ")
        ))
    })?;
    let constraints = match &args.constraints {
        Some(path) => Some(Constraints::read(path)?),
        None => None,
    };
    let source = args.responses.as_deref().or(args.file.as_deref());
    let name = source.map_or("standard input".to_owned(), |path| {
        path.display().to_string()
    });
    let (mut strict, mut loose) = (Accuracy::default(), Accuracy::default());
    let mut unsupported = 0;
    for (index, line) in open(source)?.lines().enumerate() {
        let bad = |reason: String| Failure::input(format!("{name}: line {}: {reason}", index + 1));
        let line = line.map_err(|error| bad(error.to_string()))?;
        if line.trim().is_empty() {
            continue;
        }
        let row = Row::parse(&line, constraints.as_ref()).map_err(bad)?;
        let instructions = row.instructions(suite).map_err(bad)?;
        let verdicts = Verdicts::of(suite, &instructions, &row.response);
        output::print_line(&verdicts.as_json(&row.key).to_string())?;
        if verdicts.is_whole() {
            strict.add(&verdicts.judged.strict);
            loose.add(&verdicts.judged.loose);
        } else {
            unsupported += 1;
        }
    }
    output::say(&summary(&strict, &loose, unsupported));
    Ok(())
}

/// Constraints by key and by prompt.
struct Constraints(HashMap<String, Map<String, Value>>);

impl Constraints {
    fn read(path: &Path) -> Result<Self> {
        let mut found = HashMap::new();
        for (index, line) in open(Some(path))?.lines().enumerate() {
            let place = format!("{}: line {}", path.display(), index + 1);
            let line = line.map_err(|error| Failure::input(format!("{place}: {error}")))?;
            if line.trim().is_empty() {
                continue;
            }
            let row: Map<String, Value> = serde_json::from_str(&line)
                .map_err(|error| Failure::input(format!("{place}: not a JSON object: {error}")))?;
            let mut names = 0;
            for name in [name_of(&row, "key"), name_of(&row, "prompt")]
                .into_iter()
                .flatten()
            {
                found.insert(name, row.clone());
                names += 1;
            }
            if names == 0 {
                return Err(Failure::input(format!(
                    "{place}: neither `key` nor `prompt`"
                )));
            }
        }
        Ok(Self(found))
    }
}

/// A response with its constraints.
struct Row {
    key: Value,
    response: String,
    ids: Vec<String>,
    kwargs: Vec<Map<String, Value>>,
}

impl Row {
    fn parse(line: &str, constraints: Option<&Constraints>) -> Result<Self, String> {
        let row: Map<String, Value> =
            serde_json::from_str(line).map_err(|error| format!("not a JSON object: {error}"))?;
        let response = row
            .get("response")
            .and_then(Value::as_str)
            .ok_or("`response` is missing or no text")?
            .to_owned();
        let rules = match constraints {
            None => &row,
            Some(Constraints(known)) => {
                let names = [name_of(&row, "key"), name_of(&row, "prompt")];
                let mut found = names.iter().flatten().filter_map(|name| known.get(name));
                found
                    .next()
                    .ok_or("no constraints have this key or prompt")?
            }
        };
        Ok(Self {
            key: rules
                .get("key")
                .or(row.get("key"))
                .cloned()
                .unwrap_or(Value::Null),
            response,
            ids: list(rules, "instruction_id_list")?,
            kwargs: list(rules, "kwargs")?,
        })
    }

    fn instructions(&self, suite: Suite) -> Result<Vec<Instruction>, String> {
        if self.ids.len() != self.kwargs.len() {
            return Err(format!(
                "`instruction_id_list` has {} entries but `kwargs` has {}",
                self.ids.len(),
                self.kwargs.len()
            ));
        }
        let parsed = suite.parse_all(&self.ids, &self.kwargs);
        parsed.map_err(|error| error.to_string())
    }
}

/// What identifies a row: the prompt's text, or the key behind a mark that no prompt begins
/// with.
fn name_of(row: &Map<String, Value>, field: &str) -> Option<String> {
    match (field, row.get(field)?) {
        ("key", Value::Null) => None,
        ("key", key) => Some(format!("\u{0}{key}")),
        (_, value) => value.as_str().map(str::to_owned),
    }
}

fn list<T: serde::de::DeserializeOwned>(
    row: &Map<String, Value>,
    field: &str,
) -> Result<Vec<T>, String> {
    let value = row
        .get(field)
        .ok_or_else(|| format!("`{field}` is missing"))?;
    serde_json::from_value(value.clone()).map_err(|error| format!("`{field}`: {error}"))
}

/// What is said of one response.
struct Verdicts {
    judged: Judgement,
    /// Why a rule has no verdict, for each.
    unsupported: Vec<Option<&'static str>>,
}

impl Verdicts {
    fn of(suite: Suite, instructions: &[Instruction], response: &str) -> Self {
        Self {
            judged: suite.judge(instructions, response),
            unsupported: instructions
                .iter()
                .map(|instruction| instruction.unsupported(response))
                .collect(),
        }
    }

    fn is_whole(&self) -> bool {
        self.unsupported.iter().all(Option::is_none)
    }

    /// A rule without a verdict has `null`s and says why.
    fn as_json(&self, key: &Value) -> Value {
        let known = |verdicts: &[Verdict]| -> Vec<Option<bool>> {
            let pairs = verdicts.iter().zip(&self.unsupported);
            pairs
                .map(|(verdict, missing)| missing.is_none().then_some(verdict.followed))
                .collect()
        };
        let reasons = self.judged.strict.iter().zip(&self.unsupported);
        let reasons: Vec<Option<String>> = reasons
            .map(|(verdict, missing)| match missing {
                Some(why) => Some(format!("not supported: {why}")),
                None => verdict.reason.clone(),
            })
            .collect();
        json!({
            "key": key, "strict": known(&self.judged.strict), "loose": known(&self.judged.loose),
            "reasons": reasons,
        })
    }
}

fn open(path: Option<&Path>) -> Result<Box<dyn BufRead>> {
    match path.filter(|path| *path != Path::new("-")) {
        None => Ok(Box::new(BufReader::new(stdin()))),
        Some(path) => {
            let file = File::open(path).map_err(|error| request::unreadable(path, &error))?;
            Ok(Box::new(BufReader::new(file)))
        }
    }
}

fn summary(strict: &Accuracy, loose: &Accuracy, unsupported: u64) -> String {
    let share = |accuracy: &Accuracy| {
        let percent = |part: Option<f64>| part.map_or("-".into(), |part| format!("{part:.2} %"));
        format!(
            "{} of prompts, {} of instructions",
            percent(accuracy.prompt_percent()),
            percent(accuracy.instruction_percent())
        )
    };
    let more = match unsupported {
        0 => String::new(),
        rows => format!("; {rows} rows have a rule that is not supported and are left out"),
    };
    format!("strict {}; loose {}{more}", share(strict), share(loose))
}
