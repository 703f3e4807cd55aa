//! `verify`: rule verdicts on existing responses; no model is needed.

use crate::commands::Env;
use crate::error::Failure;
use crate::output;
use crate::request;
use anyhow::Result;
use clap::Args;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufRead, BufReader, stdin};
use std::path::{Path, PathBuf};
use verify::{Accuracy, Instruction, Judgement, Suite, Verdict};

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// JSONL with response, instruction_id_list, kwargs and, if you like, key and prompt; or a
    /// dataset with messages, or with chosen and rejected [default: standard input]
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
    let mut tallies = BTreeMap::<Part, Tally>::new();
    for (index, line) in open(source)?.lines().enumerate() {
        let bad = |reason: String| Failure::input(format!("{name}: line {}: {reason}", index + 1));
        let line = line.map_err(|error| bad(error.to_string()))?;
        if line.trim().is_empty() {
            continue;
        }
        let row = Row::parse(&line, constraints.as_ref()).map_err(bad)?;
        let instructions = row.instructions(suite).map_err(bad)?;
        for (part, response) in &row.responses {
            let verdicts = Verdicts::of(suite, &instructions, response);
            output::print_line(&verdicts.as_json(&row.key, *part).to_string())?;
            tallies.entry(*part).or_default().add(&verdicts);
        }
    }
    if tallies.is_empty() {
        tallies.entry(Part::Response).or_default();
    }
    for (part, tally) in &tallies {
        output::say(&format!("{}{}", part.title(), tally.in_words()));
    }
    Ok(())
}

/// Which answer of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    /// The only one.
    Response,
    /// The better one of a pair.
    Chosen,
    /// The other one.
    Rejected,
}

impl Part {
    fn name(self) -> Option<&'static str> {
        match self {
            Self::Response => None,
            Self::Chosen => Some("chosen"),
            Self::Rejected => Some("rejected"),
        }
    }

    fn title(self) -> String {
        self.name()
            .map_or_else(String::new, |name| format!("{name}: "))
    }
}

/// What was found so far.
#[derive(Debug, Default)]
struct Tally {
    strict: Accuracy,
    loose: Accuracy,
    /// Rows with a rule that has no verdict.
    unsupported: u64,
}

impl Tally {
    fn add(&mut self, verdicts: &Verdicts) {
        if verdicts.is_whole() {
            self.strict.add(&verdicts.judged.strict);
            self.loose.add(&verdicts.judged.loose);
        } else {
            self.unsupported += 1;
        }
    }

    fn in_words(&self) -> String {
        let share = |accuracy: &Accuracy| {
            let percent =
                |part: Option<f64>| part.map_or("-".into(), |part| format!("{part:.2} %"));
            format!(
                "{} of prompts, {} of instructions",
                percent(accuracy.prompt_percent()),
                percent(accuracy.instruction_percent())
            )
        };
        let more = match self.unsupported {
            0 => String::new(),
            rows => format!("; {rows} rows have a rule that is not supported and are left out"),
        };
        let (strict, loose) = (share(&self.strict), share(&self.loose));
        format!("strict {strict}; loose {loose}{more}")
    }
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

/// Responses with their constraints.
struct Row {
    key: Value,
    responses: Vec<(Part, String)>,
    ids: Vec<String>,
    kwargs: Vec<Map<String, Value>>,
}

impl Row {
    fn parse(line: &str, constraints: Option<&Constraints>) -> Result<Self, String> {
        let row: Map<String, Value> =
            serde_json::from_str(line).map_err(|error| format!("not a JSON object: {error}"))?;
        let responses = responses(&row)?;
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
                .or(row.get("id"))
                .cloned()
                .unwrap_or(Value::Null),
            responses,
            ids: list(rules, "instruction_id_list")?,
            kwargs: kwargs(rules)?,
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

/// The `response` of a row; of a dataset's row the last turn of `messages`, or those of
/// `chosen` and `rejected`.
fn responses(row: &Map<String, Value>) -> Result<Vec<(Part, String)>, String> {
    let text = |field: &str| -> Result<String, String> {
        let text = match row.get(field) {
            Some(Value::Array(turns)) => turns.last().and_then(|turn| turn.get("content")),
            value => value,
        };
        let text = text.and_then(Value::as_str);
        text.map(str::to_owned)
            .ok_or_else(|| format!("`{field}` is missing or no text"))
    };
    let has = |field: &str| row.contains_key(field);
    match () {
        () if has("response") => Ok(vec![(Part::Response, text("response")?)]),
        () if has("chosen") => Ok(vec![
            (Part::Chosen, text("chosen")?),
            (Part::Rejected, text("rejected")?),
        ]),
        () if has("messages") => Ok(vec![(Part::Response, text("messages")?)]),
        () => Err("`response` is missing or no text".to_owned()),
    }
}

/// The parameters of each instruction: objects, or texts of objects, as datasets have them whose
/// columns are of one type.
fn kwargs(row: &Map<String, Value>) -> Result<Vec<Map<String, Value>>, String> {
    let each: Vec<Value> = list(row, "kwargs")?;
    let read = |value: Value| {
        let object = match value {
            Value::String(text) => serde_json::from_str(&text),
            value => serde_json::from_value(value),
        };
        object.map_err(|error| format!("`kwargs`: {error}"))
    };
    each.into_iter().map(read).collect()
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
    fn as_json(&self, key: &Value, part: Part) -> Value {
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
        let mut line = json!({
            "key": key, "strict": known(&self.judged.strict), "loose": known(&self.judged.loose),
            "reasons": reasons,
        });
        if let Some(name) = part.name() {
            line["of"] = json!(name);
        }
        line
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
