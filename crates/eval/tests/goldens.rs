//! Scores against published and computed ones. The golden data is looked for under
//! `AUTODIDACT_SHARED` (default `../shared` beside the workspace).

#![expect(clippy::unwrap_used, reason = "a test")]

use data::{Generator, Message};
use eval::{
    Answers, Benchmark, Comparison, Judged, LIVEBENCH_RELEASE, Report, Source, Suite, judge,
    lm_eval, load, table,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

fn shared(name: &str) -> PathBuf {
    let shared = std::env::var_os("AUTODIDACT_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
        PathBuf::from,
    );
    let path = shared.join("data").join(name);
    assert!(
        path.exists(),
        "{} is missing: set AUTODIDACT_SHARED to the folder with the golden data",
        path.display()
    );
    path
}

fn lines(name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(shared(name)).unwrap();
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn source<'a>(name: &str, text: &'a str) -> Source<'a> {
    Source {
        name: name.into(),
        reader: Box::new(text.as_bytes()),
    }
}

fn benchmark(suite: Suite, files: &[&str]) -> Benchmark {
    let texts: Vec<(&str, String)> = files
        .iter()
        .map(|file| (*file, std::fs::read_to_string(shared(file)).unwrap()))
        .collect();
    let sources = texts.iter().map(|(name, text)| source(name, text));
    load(suite, sources.collect(), LIVEBENCH_RELEASE).unwrap()
}

fn answers(rows: impl IntoIterator<Item = Value>) -> Answers {
    let lines: Vec<String> = rows.into_iter().map(|row| row.to_string()).collect();
    Answers::read("answers", lines.join("\n").as_bytes()).unwrap()
}

fn percent(report: &Report, task: usize, metric: &str) -> f64 {
    let numbers = &report.tasks[task].numbers;
    let number = numbers.iter().find(|one| one.metric == metric).unwrap();
    (number.value * 1e4).round() / 1e2
}

#[test]
fn livebench_scores_are_the_published_ones() {
    const TASKS: [&str; 2] = ["paraphrase", "story_generation"];
    let questions = TASKS.map(|task| format!("livebench_if/{task}.question.jsonl"));
    let benchmark = benchmark(Suite::LiveBench, &questions.each_ref().map(String::as_str));
    assert_eq!(benchmark.num_items, 100, "50 of each task are in use");
    let mut models: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for task in TASKS {
        for row in lines(&format!("livebench_if/{task}.results.jsonl")) {
            let model = row["model"].as_str().unwrap().to_owned();
            models.entry(model).or_default().push(row);
        }
    }
    assert_eq!(models.len(), 3);
    for (model, rows) in models {
        let judged = judge(&benchmark, &answers(rows.clone())).unwrap();
        let report = Report::of(&benchmark, &judged);
        let mut means = Vec::new();
        for (index, task) in TASKS.iter().enumerate() {
            let of_task: Vec<&Judged> = judged.iter().filter(|row| row.group == *task).collect();
            let published = of_task.iter().map(|row| {
                let golden = rows
                    .iter()
                    .find(|one| one["question_id"] == row.key.as_str());
                let golden = golden.unwrap();
                let strict: Vec<bool> = row.rulings.iter().map(|one| one.strict).collect();
                assert_eq!(
                    golden["published_strict"],
                    json!(strict),
                    "{model} {}",
                    row.key
                );
                golden["published_score"].as_f64().unwrap()
            });
            let mean = published.sum::<f64>() / of_task.len() as f64;
            assert_eq!(of_task.len(), 50);
            let ours = report.tasks[index].numbers[0].value;
            assert!((ours - mean).abs() < 1e-9, "{model} {task}: {ours} {mean}");
            means.push(mean);
        }
        let category = report.category.as_ref().unwrap();
        assert!((category.value - means.iter().sum::<f64>() / 2.0).abs() < 1e-9);
        assert!(category.interval.low < category.value && category.value < category.interval.high);
    }
}

#[test]
fn ifbench_verdicts_are_the_published_ones_wherever_it_is_judged() {
    let benchmark = benchmark(Suite::IfBench, &["ifbench/IFBench_test.jsonl"]);
    assert_eq!(benchmark.num_items, 300);
    let judged = judge(
        &benchmark,
        &answers(lines("ifbench/sample_responses.jsonl")),
    )
    .unwrap();
    let (mut prompts, mut followed, mut wrong) = (0, 0, Vec::new());
    for golden in lines("ifbench/sample_results.jsonl") {
        let row = judged
            .iter()
            .find(|row| golden["key"] == row.key.as_str())
            .unwrap();
        if !row.is_judged() {
            continue;
        }
        let loose: Vec<bool> = row.rulings.iter().map(|one| one.loose).collect();
        let strict: Vec<bool> = row.rulings.iter().map(|one| one.strict).collect();
        if golden["strict"] != json!(strict) || golden["loose"] != json!(loose) {
            wrong.push(row.key.clone());
        }
        prompts += 1;
        let all = golden["loose"].as_array().unwrap();
        followed += u32::from(all.iter().all(|one| one == true));
    }
    assert_eq!(wrong, [""; 0]);
    let report = Report::of(&benchmark, &judged);
    assert_eq!(report.missing, 7, "{:?}", report.missing_reasons);
    let headline = &report.answered_only[0].numbers[0];
    assert_eq!(headline.metric, "prompt_level_loose_acc");
    assert_eq!(report.answered_only[0].prompts, prompts);
    assert_eq!(headline.value, f64::from(followed) / f64::from(prompts));
}

const IFEVAL: &str = concat!(
    r#"{"key": 7, "prompt": "one", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{"relation": null}]}"#,
    "\n\n",
    r#"{"key": "b", "prompt": "two", "instruction_id_list": ["punctuation:no_comma", "startend:quotation"], "kwargs": [{}, {}]}"#,
    "\n",
    r##"{"key": 9, "prompt": "three", "instruction_id_list": ["keywords:letter_frequency"], "kwargs": [{"letter": "#", "let_relation": "at least", "let_frequency": 2}]}"##,
    "\n",
);

fn small() -> Benchmark {
    load(Suite::IfEval, vec![source("small.jsonl", IFEVAL)], "").unwrap()
}

#[test]
fn unanswered_and_cut_rows_are_counted_and_told() {
    let benchmark = small();
    let judged = judge(
        &benchmark,
        &answers([
            json!({"key": 7, "response": "a, b\n**c**", "finish_reason": "length"}),
            json!({"prompt": "two", "response": "<think>, , ,</think>\"quoted\""}),
            json!({"key": 1234, "response": "of another benchmark"}),
        ]),
    )
    .unwrap();
    let report = Report::of(&benchmark, &judged);
    for (metric, value) in [
        ("prompt_level_strict_acc", 33.33),
        ("inst_level_strict_acc", 50.0),
        ("prompt_level_loose_acc", 66.67),
        ("inst_level_loose_acc", 75.0),
    ] {
        assert_eq!(percent(&report, 0, metric), value, "{metric}");
    }
    assert_eq!((report.missing, report.cut_at_max_tokens), (1, 1));
    assert_eq!(report.answered_only[0].prompts, 2);
    assert_eq!(report.answered_only[0].numbers[0].value, 0.5);
    let text = table::report("m", &report);
    for part in [
        "prompt strict       33.33",
        "without a response, counted as failed: 1 (1 no response)",
        "cut at the token limit, judged as they are: 1",
        "counted as written",
        "punctuation:no_comma",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let strangers = answers([json!({"key": 1, "response": "x"})]);
    let error = judge(&benchmark, &strangers).unwrap_err().to_string();
    assert!(error.contains("none of its 1 responses"), "{error}");
}

#[test]
fn a_comparison_tells_what_changed_and_why() {
    let benchmark = small();
    let of = |first: &str, third: &str| {
        let rows = [("7", first), ("b", "\"x\""), ("9", third)];
        let rows = rows.map(|(key, response)| json!({"key": key, "response": response}));
        judge(&benchmark, &answers(rows)).unwrap()
    };
    let (ours, theirs) = (of("good", "one #"), of("a, b", "##"));
    let comparison = Comparison::of(&benchmark, "base", &ours, &theirs);
    assert_eq!((comparison.prompts_gained, comparison.prompts_lost), (1, 1));
    assert_eq!(comparison.rows_changed, 2);
    assert_eq!(comparison.changes[0].key, "7");
    assert_eq!(comparison.changes[0].ours, (true, true));
    assert!(!comparison.changes[0].reason.is_empty());
    let strict = &comparison.differences[0];
    assert_eq!((strict.difference, strict.ours), (0.0, 2.0 / 3.0));
    assert!(
        strict.interval.low < 0.0 && strict.interval.high > 0.0,
        "{strict:?}"
    );
    let text = table::comparison("mine", &comparison);
    assert!(
        text.contains("7  punctuation:no_comma  failed → followed: "),
        "{text}"
    );
}

#[test]
fn files_are_lm_evals() {
    let mut benchmark = small();
    benchmark.limit(2);
    let answers = answers([json!({"key": 7, "response": "a, b"})]);
    let judged = judge(&benchmark, &answers).unwrap();
    let report = Report::of(&benchmark, &judged);
    let facts = lm_eval::RunFacts {
        model: "org/m".into(),
        source: "autodidact".into(),
        model_args: json!({}),
        chat_template: Some("t".into()),
        max_tokens: 1280,
        limit: Some(2),
        started: Duration::from_secs(60),
        elapsed: Duration::from_millis(1500),
    };
    let results = lm_eval::results(&benchmark, &report, &judged, &facts);
    assert_eq!(
        results["results"]["ifeval"]["prompt_level_strict_acc,none"],
        0.0
    );
    assert_eq!(
        results["results"]["ifeval"]["inst_level_loose_acc_stderr,none"],
        "N/A"
    );
    assert_eq!(
        results["n-samples"]["ifeval"],
        json!({"original": 3, "effective": 2})
    );
    assert_eq!(results["versions"]["ifeval"], 4.0);
    assert_eq!(results["model_name_sanitized"], "org__m");
    assert_eq!(results["total_evaluation_time_seconds"], "1.5");
    let render = |messages: &[Message]| Some(format!("<{}>", messages[0].content));
    let samples = lm_eval::samples(&benchmark, "ifeval", &judged, &answers, &facts, &render);
    assert_eq!(samples.len(), 2);
    assert_eq!(samples[0]["doc"], benchmark.items[0].doc);
    assert_eq!(samples[0]["arguments"]["gen_args_0"]["arg_0"], "<one>");
    assert_eq!(samples[0]["resps"], json!([["a, b"]]));
    assert_eq!(samples[1]["inst_level_strict_acc"], json!([false, false]));
    // What we write, we read: the same verdicts come out.
    let again = eval::Answers::read("samples", samples[0].to_string().as_bytes()).unwrap();
    assert_eq!(judge(&benchmark, &again).unwrap()[0], judged[0]);
}

#[test]
fn what_cannot_be_used_is_named_with_its_line() {
    let row = |ids: &str, kwargs: &str| {
        format!(
            "{{\"key\": 1, \"prompt\": \"p\", \"instruction_id_list\": {ids}, \"kwargs\": {kwargs}}}"
        )
    };
    let good = row("[\"punctuation:no_comma\"]", "[{}]");
    for (suite, text, reason) in [
        (Suite::IfEval, "{".to_owned(), "f:1: not a JSON object"),
        (Suite::IfEval, "{}".to_owned(), "f:1: `key` is missing"),
        (
            Suite::IfEval,
            format!("\n{good}\n{good}"),
            "f:3: key 1 was at f:2 already",
        ),
        (
            Suite::IfEval,
            row("[\"no:such\"]", "[{}]"),
            "unknown instruction \"no:such\"",
        ),
        (
            Suite::IfEval,
            row("[\"punctuation:no_comma\"]", "[]"),
            "has 1 entries but `kwargs` has 0",
        ),
        (Suite::IfEval, row("[]", "[]"), "is empty"),
        (
            Suite::IfEval,
            row("[\"keywords:existence\"]", "[{}]"),
            "keywords",
        ),
        (
            Suite::IfEval,
            row("[\"keywords:existence\"]", "[{\"keywords\": [\"(\"]}]"),
            "keyword \"(\"",
        ),
        (
            Suite::IfEval,
            String::new(),
            "no ifeval items: the file has no records",
        ),
        (Suite::LiveBench, good.clone(), "`question_id` is missing"),
        (
            Suite::LiveBench,
            "{\"livebench_release_date\": \"2030-01-01\"}".to_owned(),
            "none of its 1 questions was in use at release 2024-11-25",
        ),
        (
            Suite::MultiIf,
            "key,language\n".to_owned(),
            "f:1: column `turn_1_prompt` is missing",
        ),
    ] {
        let error = load(suite, vec![source("f", &text)], LIVEBENCH_RELEASE).unwrap_err();
        assert!(error.to_string().contains(reason), "{text}: {error}");
    }
}

/// A CSV of Multi-IF's columns: two languages, one conversation with a turn less, one turn
/// whose list is no list.
fn multi_if_csv() -> String {
    let mut csv = String::from("key,turns,language");
    for turn in 1..=3 {
        csv += &format!(",turn_{turn}_prompt,turn_{turn}_instruction_id_list,turn_{turn}_kwargs");
    }
    csv.push('\n');
    let cell = |value: String| format!(",\"{}\"", value.replace('"', "\"\""));
    for (key, language, turns) in [("1:en", "English", 3), ("2:fr", "French", 2)] {
        csv += &format!("{key},,{language}");
        let mut ids: Vec<&str> = Vec::new();
        for turn in 1..=3 {
            if turn > turns {
                csv += if turn == 3 { ",None,," } else { ",,," };
                continue;
            }
            ids.push(
                [
                    "punctuation:no_comma",
                    "startend:quotation",
                    "detectable_format:title",
                ][turn - 1],
            );
            let kwargs: Vec<&str> = ids.iter().map(|_| "{}").collect();
            csv += &cell(
                json!({"role": "user", "content": format!("{key} says {turn},\nplease")})
                    .to_string(),
            );
            csv += &cell(if (key, turn) == ("2:fr", 2) {
                "no list".into()
            } else {
                json!(ids).to_string()
            });
            csv += &cell(json!(kwargs).to_string());
        }
        csv.push('\n');
    }
    csv
}

#[test]
fn multi_if_is_scored_by_turn_and_language() {
    let csv = multi_if_csv();
    let benchmark = load(Suite::MultiIf, vec![source("m.csv", &csv)], "").unwrap();
    assert_eq!(benchmark.items.len(), 2);
    assert_eq!(benchmark.items[1].turns.len(), 2);
    assert!(
        benchmark.notes[0].contains("not judged: `turn_2_instruction_id_list`"),
        "{:?}",
        benchmark.notes
    );
    let answers = answers([
        json!({"key": "1:en", "responses": ["fine", "\"quoted\"", "\"quoted but, untitled\""]}),
        json!({"key": "2:fr", "responses": ["a, b", "whatever"]}),
    ]);
    let judged = judge(&benchmark, &answers).unwrap();
    let report = Report::of(&benchmark, &judged);
    let names: Vec<&str> = report.tasks.iter().map(|task| task.name.as_str()).collect();
    assert_eq!(
        names,
        ["multi_if_turn_1", "multi_if_turn_2", "multi_if_turn_3"]
    );
    // Turn 1: one of two prompts; turn 2: the French list is unreadable; turn 3: 1 of 3.
    for (turn, mean) in [(0, 50.0), (1, 100.0), (2, 16.67)] {
        assert_eq!(
            percent(&report, turn, "turn_score"),
            mean,
            "turn {}",
            turn + 1
        );
    }
    let languages: Vec<(&str, f64)> = report
        .languages
        .iter()
        .map(|one| (one.name.as_str(), one.numbers[0].value))
        .collect();
    assert_eq!(
        languages[..3],
        [
            ("multi_if_turn_1 English", 1.0),
            ("multi_if_turn_2 English", 1.0),
            ("multi_if_turn_3 English", 1.0 / 6.0),
        ]
    );
    assert_eq!(languages[3], ("multi_if_turn_1 French", 0.0));
    assert!(table::report("m", &report).contains("by language"));
}

mod asking {
    use super::*;
    use eval::Item;
    use eval::recipe::{Asking, RESPONSES_FILE, ask};
    use pipeline::testing::Scripted;
    use pipeline::{
        AdmitAll, DriveOptions, Llm, Manifest, OnChange, Roles, Run, Shard, Sourced, Target,
    };
    use std::sync::Arc;

    fn manifest() -> Manifest {
        Manifest {
            program: "test".into(),
            recipe: "eval".into(),
            seed: 0,
            source: "s".into(),
            shard: Shard::ALL,
            models: BTreeMap::new(),
            settings: Value::Null,
            prompts: BTreeMap::new(),
        }
    }

    /// Asks every item of the Multi-IF file in `folder`; gives the answers' file.
    fn run(folder: &Path, generator: Arc<dyn Generator>) -> String {
        let csv = multi_if_csv();
        let benchmark = load(Suite::MultiIf, vec![source("m.csv", &csv)], "").unwrap();
        let run = Run::open(folder, manifest(), OnChange::Refuse).unwrap();
        let asking = Asking {
            role: "answer".into(),
            file: RESPONSES_FILE.into(),
            max_tokens: 100,
        };
        let roles = Roles::new(Target {
            generator: Some(generator),
            identity: "model".into(),
            adapter: None,
        });
        run.drive(
            "answer",
            benchmark.items.iter().map(|item| Sourced {
                id: item.key.clone(),
                row: Ok(item),
            }),
            &roles,
            &DriveOptions::default(),
            &async |item: &&Item, llm: &Llm<'_>| ask(item, llm, &asking).await,
            &mut AdmitAll,
            &mut |_| {},
        )
        .unwrap();
        run.export("answer", &[RESPONSES_FILE], None, &mut AdmitAll)
            .unwrap();
        std::fs::read_to_string(folder.join("data").join(RESPONSES_FILE)).unwrap()
    }

    #[test]
    fn a_conversation_feeds_back_the_models_own_answers() {
        let script = Arc::new(Scripted::new(|request| {
            let data::Prompt::Messages(messages) = &request.prompt else {
                panic!("{request:?}");
            };
            let said: Vec<&str> = messages.iter().map(|one| one.content.as_str()).collect();
            let (last, before) = said.split_last().unwrap();
            Ok(format!(
                "<think>hm</think>{} after {}, {}…",
                last.len(),
                before.len(),
                before.join("|")
            ))
        }));
        let folder = tempfile::tempdir().unwrap();
        let text = run(folder.path(), script.clone());
        let rows: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(rows.len(), 5, "three turns and two");
        assert_eq!(rows[0]["finish_reason"], "length");
        let last = rows[2]["response"].as_str().unwrap();
        assert!(
            last.contains("after 4, 1:en says 1,\nplease|19 after 0,|1:en says 2"),
            "{last}"
        );
        assert_eq!(script.asked().len(), 5);
        let asked = format!("{:?}", script.asked()[0]);
        assert!(
            asked.contains("temperature: 0.0") && asked.contains("Some(100)"),
            "{asked}"
        );
        // Again: everything is known.
        let silent = Arc::new(Scripted::new(|_| panic!("asked again")));
        assert_eq!(run(folder.path(), silent), text);
    }

    #[test]
    fn turns_before_a_failure_are_kept() {
        let script = Arc::new(Scripted::new(|request| {
            match Scripted::last_text(request) {
                text if text.contains("says 2") => {
                    Err(data::RequestError::NotANumber { position: 3 })
                }
                _ => Ok("fine".into()),
            }
        }));
        let folder = tempfile::tempdir().unwrap();
        let text = run(folder.path(), script);
        let answers = Answers::read("r", text.as_bytes()).unwrap();
        assert_eq!(answers.len(), 2, "the first turn of each");
        let rejected = std::fs::read_to_string(folder.path().join("data/rejected.jsonl")).unwrap();
        assert!(rejected.contains("nan_logits"), "{rejected}");
    }
}
