//! Rules recognised in the prompts of IFEval, against the instructions that the benchmark says
//! are in them. Needs `AUTODIDACT_SHARED`, the folder with the golden data.

use serde_json::{Map, Value};
use std::path::PathBuf;
use synth::rules::{RuleRecord, recognise};

/// Rows whose prompt says what its instructions leave out or turn round, read one by one: letter
/// case, a length, one keyword of three, "at least 6 times" listed as fewer than 6, and "at
/// least once", which is existence here and a frequency there.
const SAID_AND_NOT_LISTED: [u64; 7] = [30, 1174, 2602, 2807, 3221, 3311, 3538];

/// Whether the instruction is one of the row's, with these parameters.
fn is_listed(record: &RuleRecord, row: &Value) -> bool {
    let ids = row["instruction_id_list"].as_array().into_iter().flatten();
    let kwargs = row["kwargs"].as_array().into_iter().flatten();
    let same = |given: &Map<String, Value>| {
        let text = |value: &Value| value.to_string().to_lowercase();
        let mut args = record.args.iter();
        args.all(|(name, value)| given.get(name).map(text) == Some(text(value)))
    };
    let mut pairs = ids.zip(kwargs);
    pairs.any(|(id, given)| *id == record.id && given.as_object().is_some_and(same))
}

#[test]
fn what_is_recognised_in_ifeval_is_what_ifeval_lists() {
    let root = std::env::var_os("AUTODIDACT_SHARED").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
        PathBuf::from,
    );
    let path = root.join("data/ifeval/input_data.jsonl");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| {
        panic!(
            "{}: {error}: set AUTODIDACT_SHARED to the folder with the golden data",
            path.display()
        )
    });
    let (mut listed, mut others) = (0, Vec::new());
    for line in text.lines() {
        let row: Value = serde_json::from_str(line).expect("a row of JSON");
        let prompt = row["prompt"].as_str().expect("a text");
        for sentence in prompt.split_inclusive(['.', '?', '!', '\n']) {
            let Some(rule) = recognise(sentence.trim(), prompt) else {
                continue;
            };
            let records = rule.records();
            if records.iter().all(|record| is_listed(record, &row)) {
                listed += 1;
            } else {
                others.push(row["key"].as_u64().expect("a number"));
            }
        }
    }
    others.sort_unstable();
    assert_eq!(others, SAID_AND_NOT_LISTED);
    assert!(listed >= 140, "{listed}");
}
