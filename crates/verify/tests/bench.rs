//! Time of all IFEval verdicts, for `scripts/bench-verify-vs-python`, which times the Python
//! checkers on the same rows: one thread, constraints read anew for every row, as there.

use serde_json::Value;
use std::path::PathBuf;
use std::time::Instant;
use verify::{Constraint, judge};

/// A response with the ids and parameters of its prompt.
struct Row {
    response: String,
    instructions: Vec<(String, serde_json::Map<String, Value>)>,
}

fn rows(path: &str) -> Vec<Row> {
    let text =
        std::fs::read_to_string(PathBuf::from(path)).expect("the file that the script wrote");
    let read = |line| {
        let value: Value = serde_json::from_str(line).expect("a row");
        let instructions = value["instructions"].clone();
        Row {
            response: value["response"].as_str().expect("a text").to_owned(),
            instructions: serde_json::from_value(instructions).expect("pairs"),
        }
    };
    text.lines().map(read).collect()
}

#[test]
#[ignore = "a benchmark: run by scripts/bench-verify-vs-python"]
fn verdicts_per_second() {
    let path = std::env::var("VERIFY_BENCH_ROWS").expect("VERIFY_BENCH_ROWS names the rows");
    let rows = rows(&path);
    // The first pass builds what is built once: parameters of Punkt, profiles of languages.
    for pass in 0..4 {
        let started = Instant::now();
        let (mut followed, mut verdicts) = (0, 0);
        for row in &rows {
            let parse = |(id, kwargs): &(String, serde_json::Map<String, Value>)| {
                Constraint::from_ifeval(id, kwargs).expect("a constraint")
            };
            let constraints: Vec<Constraint> = row.instructions.iter().map(parse).collect();
            let judged = judge(&constraints, &row.response);
            verdicts += judged.strict.len() + judged.loose.len();
            let all = judged.strict.iter().chain(&judged.loose);
            followed += all.filter(|verdict| verdict.followed).count();
        }
        let seconds = started.elapsed().as_secs_f64();
        println!(
            "{}",
            serde_json::json!({"pass": pass, "seconds": seconds, "verdicts": verdicts, "followed": followed})
        );
    }
}
