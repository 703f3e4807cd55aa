//! `verify`: rule verdicts on given responses.

use crate::harness::Place;
use serde_json::{Value, json};

const ROWS: &str = r#"{"key": 1, "prompt": "p", "response": "hello world.", "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"], "kwargs": [{}, {"relation": "at least", "num_words": 5, "end_phrase": null}]}

{"key": "two", "response": "*a, b*", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
"#;

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn each_row_has_its_verdicts_and_reasons() {
    let place = Place::new();
    place.write("rows.jsonl", ROWS);
    let finished = place.good(&["verify", "rows.jsonl"]);
    let rows = lines(&finished.stdout);
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0]["key"], 1);
    assert_eq!(rows[0]["strict"], json!([true, false]));
    assert_eq!(rows[0]["reasons"][0], Value::Null);
    assert!(
        rows[0]["reasons"][1]
            .as_str()
            .unwrap()
            .contains("at least 5")
    );
    assert_eq!(
        (&rows[1]["key"], &rows[1]["loose"]),
        (&json!("two"), &json!([false]))
    );
    assert!(
        finished
            .stderr
            .contains("strict 0.00 % of prompts, 33.33 % of instructions")
    );
    assert_eq!(
        place.run_with_input(&["verify"], ROWS).stdout,
        finished.stdout
    );
}

#[test]
fn constraints_and_responses_may_be_two_files() {
    let place = Place::new();
    place.write(
        "rules.jsonl",
        r#"{"key": 7, "prompt": "by prompt", "instruction_id_list": ["startend:quotation"], "kwargs": [{}]}"#,
    );
    place.write(
        "said.jsonl",
        "{\"key\": 7, \"response\": \"\\\"yes\\\"\"}\n{\"prompt\": \"by prompt\", \"response\": \"no\"}\n",
    );
    let args = [
        "verify",
        "--constraints",
        "rules.jsonl",
        "--responses",
        "said.jsonl",
    ];
    let rows = lines(&place.good(&args).stdout);
    assert_eq!(
        (&rows[0]["strict"], &rows[1]["strict"]),
        (&json!([true]), &json!([false]))
    );
    assert_eq!(rows[1]["key"], 7);
    place.write("said.jsonl", "{\"key\": 8, \"response\": \"x\"}\n");
    let finished = place.run(&args);
    assert_eq!(finished.code, Some(4));
    assert!(
        finished
            .stderr
            .contains("said.jsonl: line 1: no constraints have this key")
    );
}

#[test]
fn bad_rows_are_named_by_line() {
    let place = Place::new();
    let good = ROWS.lines().next().unwrap();
    let check = |bad: &str, named: &str| {
        let finished = place.run_with_input(&["verify"], &format!("{good}\n{bad}\n"));
        assert_eq!(finished.code, Some(4), "{finished:?}");
        assert!(finished.stderr.contains("line 2: "), "{finished:?}");
        assert!(finished.stderr.contains(named), "{finished:?}");
        assert_eq!(
            lines(&finished.stdout).len(),
            1,
            "what came before is there"
        );
    };
    let row = |ids: &str, kwargs: &str| {
        format!("{{\"response\": \"x\", \"instruction_id_list\": [{ids}], \"kwargs\": [{kwargs}]}}")
    };
    check("no json", "not a JSON object");
    check(
        "{\"instruction_id_list\": [], \"kwargs\": []}",
        "`response`",
    );
    check(&row("\"a:b\"", "{}"), "\"a:b\"");
    check(
        &row("\"punctuation:no_comma\"", ""),
        "1 entries but `kwargs` has 0",
    );
    check(
        &row(
            "\"length_constraints:number_words\"",
            "{\"relation\": \"at least\"}",
        ),
        "num_words",
    );
    check(
        &row("\"keywords:existence\"", "{\"keywords\": [\"(\"]}"),
        "(",
    );
    let finished = place.run_with_input(&["verify", "--suite", "ifevil"], good);
    assert_eq!(finished.code, Some(2));
    assert!(
        finished
            .stderr
            .contains("ifeval, ifbench, livebench, multi-if")
    );
}

#[test]
fn datasets_are_judged_by_their_own_columns() {
    let place = Place::new();
    let rules = r#""instruction_id_list": ["punctuation:no_comma"], "kwargs": ["{}"]"#;
    let turn = |text: &str| format!(r#"[{{"role": "assistant", "content": "{text}"}}]"#);
    place.write(
        "sft.jsonl",
        format!(
            "{{\"id\": \"a\", \"messages\": {}, {rules}}}\n",
            turn("a b")
        ),
    );
    let rows = lines(&place.good(&["verify", "sft.jsonl"]).stdout);
    assert_eq!(
        (&rows[0]["key"], &rows[0]["strict"]),
        (&json!("a"), &json!([true]))
    );
    let pair = |chosen: &str, rejected: &str| {
        let (chosen, rejected) = (turn(chosen), turn(rejected));
        format!("{{\"id\": \"a#0\", \"chosen\": {chosen}, \"rejected\": {rejected}, {rules}}}\n")
    };
    place.write("dpo.jsonl", pair("a b", "a, b") + &pair("c", "d"));
    let finished = place.good(&["verify", "dpo.jsonl"]);
    let found: Vec<(Value, Value)> = lines(&finished.stdout)
        .into_iter()
        .map(|row| (row["of"].clone(), row["strict"][0].clone()))
        .collect();
    let expected = [
        ("chosen", true),
        ("rejected", false),
        ("chosen", true),
        ("rejected", true),
    ];
    assert_eq!(
        found,
        expected.map(|(of, strict)| (json!(of), json!(strict)))
    );
    assert!(
        finished
            .stderr
            .contains("chosen: strict 100.00 % of prompts")
    );
    assert!(
        finished
            .stderr
            .contains("rejected: strict 50.00 % of prompts")
    );
    place.write("dpo.jsonl", format!("{{\"chosen\": \"a\", {rules}}}\n"));
    let finished = place.run(&["verify", "dpo.jsonl"]);
    assert_eq!(finished.code, Some(4), "{finished:?}");
    assert!(finished.stderr.contains("`rejected`"), "{finished:?}");
}
