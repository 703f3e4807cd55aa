//! IFBench, Multi-IF and LiveBench against what the reference implementations say.

#![expect(clippy::unwrap_used, reason = "a test")]

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use verify::{Check, Instruction, Judgement, Suite, Verdict, livebench, multi_if};

type Kwargs = Map<String, Value>;

fn rows(name: &str) -> Vec<Value> {
    let shared = std::env::var_os("AUTODIDACT_SHARED").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared")),
        PathBuf::from,
    );
    let path = shared.join("data").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|_| {
        panic!(
            "{} is missing: set AUTODIDACT_SHARED to the folder with the golden data",
            path.display()
        )
    });
    parse_lines(&text)
}

fn parse_lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn read<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

fn instructions(suite: Suite, row: &Value) -> Vec<Instruction> {
    let ids: Vec<String> = read(&row["instruction_id_list"]);
    let kwargs: Vec<Kwargs> = read(&row["kwargs"]);
    suite.parse_all(&ids, &kwargs).unwrap()
}

fn followed(verdicts: &[Verdict]) -> Vec<bool> {
    verdicts.iter().map(|verdict| verdict.followed).collect()
}

/// The first line holds specifications of all types but one, the others a text each and the
/// indices of the specifications that the reference found followed (`loose` only where it
/// differs from `strict`; an exception is "not followed").
const EDGES: &str = include_str!("data/ifbench_edges.jsonl");

fn edge_specs() -> Vec<(String, Kwargs)> {
    let first: Value = serde_json::from_str(EDGES.lines().next().unwrap()).unwrap();
    read(&first["specs"])
}

fn edge_rules() -> Vec<Instruction> {
    let parse = |(id, kwargs): (String, Kwargs)| Suite::IfBench.parse(&id, &kwargs).unwrap();
    edge_specs().into_iter().map(parse).collect()
}

#[test]
fn ifbench_edge_cases_equal_the_reference() {
    let rules = edge_rules();
    let rows = parse_lines(EDGES).split_off(1);
    let mut wrong = Vec::new();
    for row in &rows {
        let text = row["text"].as_str().unwrap();
        let Judgement { strict, loose } = Suite::IfBench.judge(&rules, text);
        let expected_strict: Vec<usize> = read(&row["strict"]);
        let expected_loose: Vec<usize> = row.get("loose").map_or(expected_strict.clone(), read);
        for (i, rule) in rules.iter().enumerate() {
            let expected = (expected_strict.contains(&i), expected_loose.contains(&i));
            if (strict[i].followed, loose[i].followed) != expected {
                wrong.push(format!("{rule:?} on {text:?}: expected {expected:?}"));
            }
            assert_eq!(
                strict[i].followed,
                strict[i].reason.is_none(),
                "{rule:?} {text:?}"
            );
        }
    }
    assert!(rows.len() > 500 && rules.len() == 86);
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn ifbench_sample_results_equal_the_reference() {
    let prompts: HashMap<String, Value> = rows("ifbench/IFBench_test.jsonl")
        .into_iter()
        .map(|row| (row["key"].as_str().unwrap().to_owned(), row))
        .collect();
    let all = prompts
        .values()
        .map(|row| instructions(Suite::IfBench, row).len());
    assert_eq!((prompts.len(), all.sum()), (300, 344));
    let responses = rows("ifbench/sample_responses.jsonl");
    let responses: HashMap<&str, &str> = responses
        .iter()
        .map(|row| {
            (
                row["key"].as_str().unwrap(),
                row["response"].as_str().unwrap(),
            )
        })
        .collect();
    let results = rows("ifbench/sample_results.jsonl");
    let (mut compared, mut wrong) = (0, Vec::new());
    let mut unsupported = BTreeMap::new();
    for row in &results {
        let key = row["key"].as_str().unwrap();
        let rules = instructions(Suite::IfBench, &prompts[key]);
        let response = responses[key];
        let Judgement { strict, loose } = Suite::IfBench.judge(&rules, response);
        for (i, rule) in rules.iter().enumerate() {
            if rule.unsupported(response).is_some() {
                *unsupported.entry(rule.id().to_owned()).or_insert(0) += 1;
                continue;
            }
            compared += 1;
            let expected = (&row["strict"][i], &row["loose"][i]);
            if (&json!(strict[i].followed), &json!(loose[i].followed)) != expected {
                wrong.push(format!("{key}: {rule:?}: expected {expected:?}"));
            }
        }
    }
    assert_eq!(results.len(), 293);
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert_eq!(
        unsupported,
        BTreeMap::from([("words:start_verb".to_owned(), 6)])
    );
    assert_eq!(compared, 328);
}

#[test]
fn multi_if_counters_equal_the_reference() {
    let rows = rows("multi_if/helper_golden.jsonl");
    let mut thai = 0;
    for row in &rows {
        let text = row["text"].as_str().unwrap();
        let count = |name: &str| usize::try_from(row[name].as_u64().unwrap()).unwrap();
        assert_eq!(multi_if::cjk_words(text), count("cjk_words"), "{text:?}");
        assert_eq!(
            multi_if::cjk_sentences(text),
            count("cjk_sentences"),
            "{text:?}"
        );
        assert_eq!(
            multi_if::hindi_sentences(text),
            count("hi_sentences"),
            "{text:?}"
        );
        let expected = match row["lang_seed0"].as_str().unwrap() {
            "th" => {
                thai += 1;
                (None, None)
            }
            "hi" => (Some(count("words")), Some(count("hi_sentences"))),
            "zh-cn" | "zh-tw" | "ja" => (Some(count("cjk_words")), Some(count("cjk_sentences"))),
            _ => (Some(count("words")), Some(count("sentences"))),
        };
        let found = (multi_if::words(text), multi_if::sentences(text));
        assert_eq!(found, expected, "{text:?}");
    }
    assert_eq!((rows.len(), thai), (250, 6));
}

#[test]
fn livebench_verdicts_and_scores_equal_the_published_ones() {
    for task in ["paraphrase", "story_generation"] {
        let questions: HashMap<String, Value> =
            rows(&format!("livebench_if/{task}.question.jsonl"))
                .into_iter()
                .map(|row| (row["question_id"].as_str().unwrap().to_owned(), row))
                .collect();
        let results = rows(&format!("livebench_if/{task}.results.jsonl"));
        let current = questions.values().filter(|question| {
            let date = |name: &str| question[name].as_str().unwrap();
            livebench::is_in_release(
                "2024-11-25",
                date("livebench_release_date"),
                date("livebench_removal_date"),
            )
        });
        assert_eq!(current.count(), 50, "{task}");
        for row in &results {
            let question = &questions[row["question_id"].as_str().unwrap()];
            let rules = instructions(Suite::LiveBench, question);
            let response = row["response"].as_str().unwrap();
            let strict = followed(&Suite::LiveBench.judge(&rules, response).strict);
            assert_eq!(
                json!(strict),
                row["strict"],
                "{task} {}",
                row["question_id"]
            );
            assert_eq!(json!(strict), row["published_strict"]);
            assert_eq!(livebench::score(&strict), row["published_score"].as_f64());
        }
        assert_eq!(results.len(), 150, "{task}");
    }
}

#[test]
fn parameters_are_checked() {
    for (suite, id, kwargs, expected) in [
        (
            Suite::IfBench,
            "count:numbers",
            json!({"N": null, "letter": null}),
            "count:numbers: parameter N is missing",
        ),
        (
            Suite::IfBench,
            "count:numbers",
            json!({"N": 2.0, "letter": null}),
            "",
        ),
        (
            Suite::IfBench,
            "count:numbers",
            json!({"N": -2}),
            "count:numbers: parameter N: expected a whole number, 0 or more, got -2",
        ),
        (
            Suite::IfBench,
            "count:words_japanese",
            json!({"N": 0}),
            "count:words_japanese: parameter N: expected a whole number, 1 or more, got 0",
        ),
        (
            Suite::IfBench,
            "format:emoji",
            json!({"N": 1}),
            "format:emoji: unknown parameter \"N\"",
        ),
        (Suite::IfBench, "custom:csv_city", json!({"N": 1}), ""),
        (
            Suite::IfBench,
            "count:everything",
            json!({}),
            "unknown instruction \"count:everything\"",
        ),
        (Suite::IfBench, "punctuation:no_comma", json!({}), ""),
        (
            Suite::IfEval,
            "format:emoji",
            json!({}),
            "unknown instruction \"format:emoji\"",
        ),
        (Suite::MultiIf, "startend:quotation", json!({}), ""),
    ] {
        let found = suite.parse(id, kwargs.as_object().unwrap());
        let found = found.map_or_else(|error| error.to_string(), |_| String::new());
        assert_eq!(found, expected, "{id}");
    }
}

#[test]
fn every_listed_id_is_an_instruction() {
    let rules = edge_rules();
    let mut ids: Vec<String> = rules.iter().map(|rule| rule.id().to_owned()).collect();
    ids.push("words:start_verb".to_owned());
    ids.sort();
    ids.dedup();
    assert_eq!(ids, verify::IfBench::IDS);
}

#[test]
fn blank_responses_follow_nothing_but_strictly_in_multi_if() {
    for (suite, expected) in [
        (Suite::IfEval, false),
        (Suite::LiveBench, false),
        (Suite::MultiIf, true),
    ] {
        let rule = suite.parse("punctuation:no_comma", &Kwargs::new()).unwrap();
        let judgement = suite.judge(std::slice::from_ref(&rule), " \n ");
        assert_eq!(followed(&judgement.strict), [expected], "{suite}");
        assert_eq!(followed(&judgement.loose), [false], "{suite}");
        assert_eq!(
            followed(&suite.judge(&[rule], "").strict),
            [false],
            "{suite}"
        );
    }
}

fn text() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        " ",
        "\n",
        "\r",
        "\t",
        "\0",
        "\u{1c}",
        "\u{200d}",
        "\u{fe0f}",
        "\u{301}",
        "a",
        "A.",
        "Cat",
        "1",
        "٣",
        "é",
        "İ",
        "ß",
        "日",
        "ひ",
        "👍🏽",
        "❤️",
        "👨\u{200d}",
        "'",
        "\"",
        "(",
        "[",
        "{",
        ")",
        "]",
        "}",
        "*",
        "-",
        ",",
        ".",
        "?",
        "!",
        ":",
        "/",
        "<i>",
        "</i>",
        "<em>",
        "</em>",
        "Question 1",
        "A)",
        "Zimbabwe",
        "1800-01-01",
        "StudentID\tSubject\tGrade\tSemester\tScore\n",
        "ProductID,Category,Brand,Price,Stock\n",
    ]);
    let mixed = prop::collection::vec(pieces, 0..60).prop_map(|pieces| pieces.concat());
    prop_oneof![any::<String>(), mixed]
}

proptest! {
    #[test]
    fn no_text_makes_a_rule_panic(text in text()) {
        let rules = edge_rules();
        for rule in &rules {
            rule.check(&text);
        }
        let _ = multi_if::words(&text);
        let _ = multi_if::sentences(&text);
        let _ = livebench::prepare(&text);
    }

    #[test]
    fn any_parameters_parse_or_are_refused(
        text in text(),
        number in any::<f64>(),
        whole in any::<i64>(),
    ) {
        let values = [json!(text), json!(number), json!(whole), json!(whole % 5), Value::Null, json!([1])];
        for (id, kwargs) in edge_specs() {
            for value in &values {
                for name in kwargs.keys() {
                    let mut changed = kwargs.clone();
                    changed.insert(name.clone(), value.clone());
                    if let Ok(rule) = Suite::IfBench.parse(&id, &changed) {
                        rule.check(&text);
                    }
                }
            }
        }
    }
}

#[test]
fn a_megabyte_is_judged_in_bounded_time() {
    let mut rules = edge_rules();
    rules.dedup_by(|a, b| a.id() == b.id());
    for unit in ["a", " \n", "\"'", "([{", "👨\u{200d}", "A b. ", " ?! "] {
        let text = unit.repeat(1_000_000 / unit.len());
        for rule in &rules {
            let start = Instant::now();
            rule.check(&text);
            let took = start.elapsed();
            assert!(
                took < Duration::from_secs(20),
                "{rule:?} on {unit:?}: {took:?}"
            );
        }
        let start = Instant::now();
        let _ = multi_if::cjk_words(&text);
        assert!(start.elapsed() < Duration::from_secs(20), "{unit:?}");
    }
}
