//! Files in lm-evaluation-harness's layout (as its version 0.4.13 writes and reads them):
//! `<folder>/<model>/results_<time>.json` and `samples_<task>_<time>.jsonl`.

use crate::answers::Answers;
use crate::item::{Benchmark, Item};
use crate::judge::Judged;
use crate::recipe;
use crate::report::{Report, TaskReport};
use crate::suite::Suite;
use data::Message;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::time::Duration;

/// What the files say about a run beyond its verdicts.
#[derive(Debug, Clone)]
pub struct RunFacts {
    /// The model as the user named it.
    pub model: String,
    /// Where the answers came from, e.g. `autodidact` or `responses`.
    pub source: String,
    /// What else tells this model apart: weights, adapter, digest.
    pub model_args: Value,
    /// The chat template's text, where one was used.
    pub chat_template: Option<String>,
    /// Tokens that an answer may have.
    pub max_tokens: usize,
    /// Items asked for, where not all were.
    pub limit: Option<usize>,
    /// When the run began, since 1970 in UTC.
    pub started: Duration,
    /// How long it took.
    pub elapsed: Duration,
}

/// Name of the folder for a model: characters that paths cannot hold become `__`.
pub fn folder_name(model: &str) -> String {
    let mut name = String::new();
    let mut before_was_bad = false;
    for one in model.chars() {
        let bad = "\"<>:/|\\?*[]".contains(one);
        if bad && !before_was_bad {
            name.push_str("__");
        } else if !bad {
            name.push(one);
        }
        before_was_bad = bad;
    }
    name
}

/// `2026-11-21T04-05-06.789012` in UTC: ISO time with `-` for `:`.
pub fn time_stamp(since_1970: Duration) -> String {
    let seconds = since_1970.as_secs();
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil_date(days);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    let micros = since_1970.subsec_micros();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}-{minute:02}-{second:02}.{micros:06}")
}

/// Year, month and day in the Gregorian calendar of a day since 1970-01-01.
fn civil_date(days: u64) -> (u64, u64, u64) {
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let (mut year, mut left) = (1970, days);
    loop {
        let length = if is_leap(year) { 366 } else { 365 };
        if left < length {
            break;
        }
        left -= length;
        year += 1;
    }
    let february = if is_leap(year) { 29 } else { 28 };
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while left >= lengths[month] {
        left -= lengths[month];
        month += 1;
    }
    (year, month as u64 + 1, left + 1)
}

/// The document of `results_<time>.json`; what only this program knows is under `autodidact`.
pub fn results(benchmark: &Benchmark, report: &Report, rows: &[Judged], facts: &RunFacts) -> Value {
    let per_task = |value: &dyn Fn(&TaskReport) -> Value| -> Value {
        let entries = report
            .tasks
            .iter()
            .map(|task| (task.name.clone(), value(task)));
        Value::Object(entries.collect())
    };
    let suite = benchmark.suite;
    let template = facts.chat_template.as_deref();
    let mut document = json!({
        "results": per_task(&task_results),
        "group_subtasks": per_task(&|_| json!([])),
        "configs": per_task(&|task| config(suite, task, facts)),
        "versions": per_task(&|_| version(suite)),
        "n-shot": per_task(&|_| json!(0)),
        "higher_is_better": per_task(&|task| {
            let names = task.numbers.iter().map(|number| (number.metric.to_owned(), json!(true)));
            Value::Object(names.collect())
        }),
        "n-samples": per_task(&|task| json!({
            "original": original_count(benchmark, task),
            "effective": task.prompts,
        })),
        "config": {
            "model": facts.source, "model_args": facts.model_args, "batch_size": null,
            "batch_sizes": [], "device": null, "use_cache": null, "limit": facts.limit,
            "bootstrap_iters": crate::RESAMPLES, "gen_kwargs": generation(facts),
            "random_seed": crate::SEED, "numpy_seed": crate::SEED, "torch_seed": crate::SEED,
            "fewshot_seed": crate::SEED,
        },
        "git_hash": null,
        "date": facts.started.as_secs_f64(),
        "lm_eval_version": null,
        "task_hashes": per_task(&|task| json!(task_hash(benchmark, task, rows))),
        "model_source": facts.source,
        "model_name": facts.model,
        "model_name_sanitized": folder_name(&facts.model),
        "system_instruction": null, "system_instruction_sha": null,
        "fewshot_as_multiturn": null,
        "chat_template": template, "chat_template_sha": template.map(sha256),
        "total_evaluation_time_seconds": facts.elapsed.as_secs_f64().to_string(),
        "autodidact": { "report": report, "rules": rules_of(suite) },
    });
    if let Some(category) = &report.category {
        let tasks: Vec<&str> = report.tasks.iter().map(|task| task.name.as_str()).collect();
        let key = format!("{},none", category.metric);
        let group = json!({ "alias": "livebench", key: category.value });
        document["results"]["livebench"] = group.clone();
        document["groups"] = json!({ "livebench": group });
        document["group_subtasks"]["livebench"] = json!(tasks);
        document["versions"]["livebench"] = version(suite);
        document["n-shot"]["livebench"] = json!(0);
    }
    document
}

/// The reference implementations whose verdicts the rules equal.
fn rules_of(suite: Suite) -> Value {
    let of = match suite {
        Suite::IfEval => {
            "lm-eval 4e7e0d4 (task version 4.0); letters outside a-z are counted as written"
        }
        Suite::LiveBench => "LiveBench b0fb577, IFEval types, strict",
        Suite::IfBench => "allenai/IFBench db69a6f",
        Suite::MultiIf => "Multi-IF 1cdb53e; greedy unless the responses were given",
    };
    json!({ "reference": of, "nltk": "3.9.1", "langdetect": "1.0.9, seed 0" })
}

fn task_results(task: &TaskReport) -> Value {
    let mut entries = Map::new();
    entries.insert("name".into(), json!(task.name));
    entries.insert("alias".into(), json!(task.name));
    entries.insert("sample_len".into(), json!(task.prompts));
    for number in &task.numbers {
        let stderr = number.stderr.map_or(json!("N/A"), Value::from);
        entries.insert(format!("{},none", number.metric), json!(number.value));
        entries.insert(format!("{}_stderr,none", number.metric), stderr);
    }
    Value::Object(entries)
}

/// A number where the version is one, as lm-eval writes its own.
fn version(suite: Suite) -> Value {
    let version = suite.version();
    version.parse::<f64>().map_or(json!(version), Value::from)
}

fn config(suite: Suite, task: &TaskReport, facts: &RunFacts) -> Value {
    let metrics: Vec<Value> = task
        .numbers
        .iter()
        .map(|number| json!({ "metric": number.metric, "higher_is_better": true }))
        .collect();
    json!({
        "task": task.name, "output_type": "generate_until", "num_fewshot": 0,
        "doc_to_text": "prompt", "doc_to_target": "0", "generation_kwargs": generation(facts),
        "metric_list": metrics, "metadata": { "version": version(suite) },
    })
}

fn generation(facts: &RunFacts) -> Value {
    json!({ "until": [], "do_sample": false, "temperature": 0.0, "max_gen_toks": facts.max_tokens })
}

/// Prompts of a task before the limit: known where there is one task only.
fn original_count(benchmark: &Benchmark, task: &TaskReport) -> u64 {
    match benchmark.suite {
        Suite::IfEval | Suite::IfBench => benchmark.num_items as u64,
        Suite::LiveBench | Suite::MultiIf => u64::from(task.prompts),
    }
}

/// One line of `samples_<task>_<time>.jsonl` per judged turn of `task`, in the benchmark's
/// order; rows that cannot be judged are left out as they are of the results. `render` gives the text that the model read; without a template it is the prompt.
pub fn samples(
    benchmark: &Benchmark,
    task: &str,
    rows: &[Judged],
    answers: &Answers,
    facts: &RunFacts,
    render: &dyn Fn(&[Message]) -> Option<String>,
) -> Vec<Value> {
    let of_task = rows
        .iter()
        .filter(|row| row.task == task && row.is_judged());
    of_task
        .map(|row| {
            let item = &benchmark.items[row.item];
            let messages = recipe::conversation(item, row.turn, answers);
            let rendered = render(&messages);
            let prompt = rendered.unwrap_or_else(|| prompt_of(item, row).to_owned());
            sample(benchmark.suite, item, row, &prompt, facts)
        })
        .collect()
}

fn sample(suite: Suite, item: &Item, row: &Judged, prompt: &str, facts: &RunFacts) -> Value {
    let tally = row.tally();
    let text = row.raw.as_deref().unwrap_or_default();
    let metrics: Vec<&str> = suite.metrics().iter().map(|metric| metric.name()).collect();
    let mut line = json!({
        "doc_id": row.item, "doc": item.doc, "target": "0",
        "arguments": { "gen_args_0": { "arg_0": prompt, "arg_1": generation(facts) } },
        "resps": [[text]], "filtered_resps": [text], "filter": "none", "metrics": metrics,
        "doc_hash": doc_hash(item), "prompt_hash": sha256(prompt), "target_hash": sha256("0"),
    });
    for metric in suite.metrics() {
        use crate::tally::Metric;
        let value = match metric {
            Metric::PromptStrict => json!(tally.prompts_strict == 1),
            Metric::PromptLoose => json!(tally.prompts_loose == 1),
            Metric::InstStrict => row.rulings.iter().map(|ruling| ruling.strict).collect(),
            Metric::InstLoose => row.rulings.iter().map(|ruling| ruling.loose).collect(),
            Metric::LiveBenchScore | Metric::TurnMean => json!(metric.value(&tally)),
        };
        line[metric.name()] = value;
    }
    let reasons: Vec<Option<&str>> = row
        .rulings
        .iter()
        .map(|ruling| ruling.reason.as_deref())
        .collect();
    line["turn"] = json!(row.turn);
    line["reasons"] = json!(reasons);
    line["finish_reason"] = json!(row.finish_reason);
    line["missing"] = json!(row.missing);
    line
}

fn prompt_of<'a>(item: &'a Item, row: &Judged) -> &'a str {
    let turn = item.turns.iter().find(|turn| turn.number == row.turn);
    turn.map_or("", |turn| turn.prompt.as_str())
}

/// As lm-eval hashes a document: its JSON, indented by two, characters not escaped.
fn doc_hash(item: &Item) -> String {
    sha256(&format!("{:#}", item.doc))
}

/// Over the documents and prompts of a task: two runs with the same hash judged the same items.
fn task_hash(benchmark: &Benchmark, task: &TaskReport, rows: &[Judged]) -> String {
    let of_task = rows
        .iter()
        .filter(|row| row.task == task.name && row.is_judged());
    let hashes = of_task.map(|row| {
        let item = &benchmark.items[row.item];
        doc_hash(item) + &sha256(prompt_of(item, row)) + &sha256("0")
    });
    sha256(&hashes.collect::<String>())
}

fn sha256(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_named_as_lm_eval_names_them() {
        for (model, folder) in [
            ("org/name", "org__name"),
            ("./a:b", ".__a__b"),
            ("a//b", "a__b"),
            ("plain-1.5B", "plain-1.5B"),
        ] {
            assert_eq!(folder_name(model), folder);
        }
    }

    #[test]
    fn times_are_calendar_times() {
        for (seconds, micros, stamp) in [
            (0, 0, "1970-01-01T00-00-00.000000"),
            (951_782_400, 1, "2000-02-29T00-00-00.000001"),
            (1_767_225_599, 999_999, "2025-12-31T23-59-59.999999"),
            (4_107_542_400, 0, "2100-03-01T00-00-00.000000"),
        ] {
            let time = Duration::from_secs(seconds) + Duration::from_micros(micros);
            assert_eq!(time_stamp(time), stamp);
        }
    }

    #[test]
    fn hashes_are_those_of_python() {
        // hashlib.sha256(json.dumps({"key": 1, "kwargs": [{}], "é": "\n"}, indent=2, ensure_ascii=False).encode())
        let doc = json!({ "key": 1, "kwargs": [{}], "é": "\n" });
        assert_eq!(
            sha256(&format!("{doc:#}")),
            "8f6b9cd3861d185cdf457b0095389b57bf79910de5602cc404aab78705981041"
        );
    }
}
