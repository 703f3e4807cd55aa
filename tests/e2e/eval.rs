//! `eval`: on the tiny model, on given responses, killed and continued, with bad files.

use crate::harness::{BINARY, Place};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const ITEMS: [(&str, &str); 4] = [
    (
        "Where is the lamp?",
        r#"["punctuation:no_comma"], "kwargs": [{}]"#,
    ),
    (
        "Where is the clock?",
        r#"["keywords:existence", "punctuation:no_comma"], "kwargs": [{"keywords": ["station", "moon"]}, {}]"#,
    ),
    (
        "Where is the sea?",
        r#"["keywords:existence"], "kwargs": [{"keywords": ["dunes"], "relation": null}]"#,
    ),
    ("Hello!", r#"["detectable_format:title"], "kwargs": [{}]"#),
];

fn item(key: usize) -> String {
    let (prompt, rules) = ITEMS[key % ITEMS.len()];
    format!("{{\"key\": {key}, \"prompt\": \"{prompt}\", \"instruction_id_list\": {rules}}}\n")
}

fn items(count: usize) -> String {
    (0..count).map(item).collect()
}

/// The files under `folder` whose names start so.
fn files(folder: &Path, start: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, start));
        } else if path
            .file_name()
            .unwrap()
            .to_string_lossy()
            .starts_with(start)
        {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn rows(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn three_items_are_a_smoke_test_with_all_its_files() {
    let place = Place::new();
    place.write("data.jsonl", items(4));
    let args = [
        "eval",
        "ifeval",
        "--data",
        "data.jsonl",
        "--limit",
        "3",
        "--max-tokens",
        "40",
    ];
    let finished = place.good(&[&args[..], &["-o", "out"]].concat());
    for part in [
        "prompt strict       66.67",
        "3 of 4 prompts: a smoke test, not a result.",
        "keywords:existence",
    ] {
        assert!(finished.stdout.contains(part), "{part}: {finished:?}");
    }
    let samples = rows(&files(&place.path("out/tiny.gguf"), "samples_ifeval_")[0]);
    let texts: Vec<&str> = samples
        .iter()
        .map(|row| row["resps"][0][0].as_str().unwrap())
        .collect();
    assert_eq!(texts[0], "The lamp is beside the piano.");
    assert_eq!(samples[1]["inst_level_strict_acc"], json!([false, true]));
    assert!(
        samples[1]["reasons"][0].as_str().unwrap().contains("moon"),
        "{}",
        samples[1]
    );
    let results = std::fs::read_to_string(&files(&place.path("out/tiny.gguf"), "results_")[0]);
    let results: Value = serde_json::from_str(&results.unwrap()).unwrap();
    assert_eq!(
        results["n-samples"]["ifeval"],
        json!({"original": 4, "effective": 3})
    );
    assert_eq!(results["config"]["limit"], 3);
    // Going on to the whole reads no answer again that is known, and is no smoke test.
    let whole = place.good(&[
        "eval",
        "ifeval",
        "--data",
        "data.jsonl",
        "--max-tokens",
        "40",
        "-o",
        "out",
    ]);
    assert!(
        whole.stderr.contains("4 items answered, 3 items"),
        "{whole:?}"
    );
    assert!(!whole.stdout.contains("smoke test"), "{whole:?}");
    // A third time: no weights are loaded, the table is the same.
    let again = place.good(&[
        "eval",
        "ifeval",
        "--data",
        "data.jsonl",
        "--max-tokens",
        "40",
        "-o",
        "out",
    ]);
    assert_eq!(again.stdout, whole.stdout);
    assert!(!again.stderr.contains("answered"), "{again:?}");
}

#[test]
fn killed_and_continued_is_the_undisturbed_run() {
    let place = Place::new();
    place.write("data.jsonl", items(40));
    let args = [
        "eval",
        "ifeval",
        "--data",
        "data.jsonl",
        "--max-tokens",
        "64",
        "--concurrency",
        "2",
    ];
    let straight = place.good(&[&args[..], &["-o", "straight"]].concat());
    let disturbed = [&args[..], &["-o", "disturbed"]].concat();
    let mut child = place.command(&disturbed).spawn().unwrap();
    // Until the log holds something, but long before all 40 are done.
    let started = Instant::now();
    let log = place.path("disturbed/calls.sqlite-wal");
    while std::fs::metadata(&log).map_or(0, |log| log.len()) < 60_000
        && child.try_wait().unwrap().is_none()
        && started.elapsed() < Duration::from_secs(60)
    {
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let continued = place.good(&disturbed);
    assert_eq!(continued.stdout, straight.stdout);
    assert_eq!(
        place.read("disturbed/data/responses.jsonl"),
        place.read("straight/data/responses.jsonl")
    );
    let samples = |folder: &str| std::fs::read(&files(&place.path(folder), "samples_")[0]).unwrap();
    assert_eq!(samples("disturbed"), samples("straight"));
}

#[test]
fn responses_are_judged_and_compared_without_a_model() {
    let place = Place::new();
    place.write("data.jsonl", items(4));
    let line = |key: usize, text: &str| json!({"key": key, "response": text}).to_string() + "\n";
    let good = [
        line(0, "a"),
        line(1, "station moon"),
        line(2, "dunes"),
        line(3, "<<t>>"),
    ]
    .concat();
    place.write("good.jsonl", good);
    place.write(
        "bad.jsonl",
        [line(0, "a, b"), line(2, "<think>dunes</think>no")].concat(),
    );
    let base = ["eval", "ifeval", "--data", "data.jsonl", "--responses"];
    let compared = place.json(
        &[
            &base[..],
            &["good.jsonl", "--compare", "bad.jsonl", "--json"],
        ]
        .concat(),
    );
    assert_eq!(compared["schema_version"], 1);
    assert_eq!(compared["model"], "good");
    assert_eq!(compared["report"]["tasks"][0]["numbers"][0]["value"], 1.0);
    let comparison = &compared["comparison"];
    assert_eq!(comparison["prompts_gained"], 4, "{comparison}");
    assert_eq!(comparison["differences"][0]["difference"], 1.0);
    assert_eq!(
        comparison["differences"][0]["interval"],
        json!({"low": 1.0, "high": 1.0})
    );
    assert_eq!(compared["files"], json!([]), "nothing is written unasked");
    let table = place
        .good(&[&base[..], &["bad.jsonl", "--compare", "good.jsonl"]].concat())
        .stdout;
    for part in [
        "prompt strict       0.00",
        "without a response, counted as failed: 2 (2 no response)",
        "-100.00",
        "0 prompts gained, 4 lost (strict); verdicts changed in 4 rows",
        "1  keywords:existence  followed → failed: no response",
    ] {
        assert!(table.contains(part), "{part}: {table}");
    }
}

#[test]
fn a_model_is_compared_with_itself_and_with_responses() {
    let place = Place::new();
    place.write("data.jsonl", items(4));
    let args = [
        "eval",
        "ifeval",
        "--data",
        "data.jsonl",
        "--max-tokens",
        "40",
        "-o",
        "out",
        "--json",
    ];
    let same = place.json(&[&args[..], &["--compare", "tiny.gguf"]].concat());
    assert_eq!(same["comparison"]["rows_changed"], 0, "{same}");
    let run = place.json(&[&args[..], &["--compare", "out"]].concat());
    assert_eq!(run["comparison"]["rows_changed"], 0, "{run}");
    let refused = place.run(&[&args[..], &["--compare", "base"]].concat());
    assert_eq!(refused.code, Some(2), "{refused:?}");
}

#[test]
fn ifeval_is_found_in_the_cache() {
    let place = Place::new();
    let missing = place.run(&["eval", "ifeval"]);
    assert_eq!(missing.code, Some(5), "{missing:?}");
    assert!(
        missing.stderr.contains("hf download google/IFEval"),
        "{missing:?}"
    );
    let folder = "home/.cache/huggingface/hub/datasets--google--IFEval";
    place.write(&format!("{folder}/refs/main"), "abc");
    place.write(
        &format!("{folder}/snapshots/abc/ifeval_input_data.jsonl"),
        items(3),
    );
    let found = place.json(&["eval", "ifeval", "--max-tokens", "40", "--json"]);
    assert_eq!(found["report"]["items"], 3);
    assert!(
        place
            .path("runs/eval-ifeval-tiny.gguf/calls.sqlite")
            .exists()
    );
}

#[test]
fn bad_input_is_named() {
    let place = Place::new();
    place.write("good.jsonl", items(2));
    place.write(
        "unknown.jsonl",
        item(0) + &item(1).replace("no_comma", "no_colon"),
    );
    place.write("twice.jsonl", item(0) + &item(0));
    place.write("broken.jsonl", item(0) + "{\n");
    place.write("empty.jsonl", "\n");
    place.write("noone.jsonl", "{\"key\": 77, \"response\": \"x\"}\n");
    place.write(
        "nokey.jsonl",
        "{\"key\": 1, \"response\": \"x\"}\n{\"response\": \"x\"}\n",
    );
    let eval = |more: &[&str]| place.run(&[&["eval", "ifeval", "--data"], more].concat());
    for (args, code, part) in [
        (
            &["unknown.jsonl"][..],
            4,
            "unknown.jsonl:2: `instruction_id_list[1]`: unknown instruction",
        ),
        (
            &["twice.jsonl"],
            4,
            "twice.jsonl:2: key 0 was at twice.jsonl:1 already",
        ),
        (&["broken.jsonl"], 4, "broken.jsonl:2: not a JSON object"),
        (&["empty.jsonl"], 4, "no records"),
        (&["nowhere.jsonl"], 5, "cannot read nowhere.jsonl"),
        (
            &["good.jsonl", "--responses", "noone.jsonl"],
            4,
            "none of its 1 responses",
        ),
        (
            &["good.jsonl", "--responses", "nokey.jsonl"],
            4,
            "nokey.jsonl:2: neither `key` nor `prompt`",
        ),
        (
            &["good.jsonl", "--responses", "nowhere.jsonl"],
            5,
            "cannot read nowhere.jsonl",
        ),
        (&["good.jsonl", "--limit", "0"], 2, "--limit"),
        (
            &["good.jsonl", "--max-tokens", "100000"],
            4,
            "100000 more were asked for",
        ),
        (&["good.jsonl", "-m", "no/such"], 5, "no/such"),
    ] {
        let finished = eval(args);
        assert_eq!(finished.code, Some(code), "{args:?}: {finished:?}");
        assert!(finished.stderr.contains(part), "{args:?}: {finished:?}");
        assert_eq!(finished.stdout, "", "{args:?}");
    }
    let other = place.run(&["eval", "multi-if"]);
    assert_eq!(other.code, Some(2), "{other:?}");
    assert!(
        other.stderr.contains("eval multi-if needs --data"),
        "{other:?}"
    );
}

#[test]
fn another_data_file_in_the_same_folder_is_refused() {
    let place = Place::new();
    place.write("a.jsonl", items(2));
    place.write("b.jsonl", items(3));
    let args = |data| {
        [
            "eval",
            "ifeval",
            "--data",
            data,
            "--max-tokens",
            "40",
            "-o",
            "out",
        ]
    };
    place.good(&args("a.jsonl"));
    let refused = place.run(&args("b.jsonl"));
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("source"), "{refused:?}");
}

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

/// Strict and loose verdicts of a row.
type Verdicts = (Vec<bool>, Vec<bool>);

/// Followed prompts and instructions, strict and loose, as `summary.json` names them.
fn percentages(rows: &[Verdicts]) -> [(&'static str, f64); 4] {
    let percent = |part: usize, whole: usize| (1e4 * part as f64 / whole as f64).round() / 1e2;
    let prompts = |of: fn(&Verdicts) -> &Vec<bool>| {
        rows.iter()
            .filter(|row| of(row).iter().all(|one| *one))
            .count()
    };
    let instructions =
        |of: fn(&Verdicts) -> &Vec<bool>| rows.iter().flat_map(of).filter(|one| **one).count();
    let all = rows.iter().map(|row| row.0.len()).sum();
    [
        ("strict_prompt", percent(prompts(|row| &row.0), rows.len())),
        ("strict_inst", percent(instructions(|row| &row.0), all)),
        ("loose_prompt", percent(prompts(|row| &row.1), rows.len())),
        ("loose_inst", percent(instructions(|row| &row.1), all)),
    ]
}

fn bools(value: &Value) -> Vec<bool> {
    let list = value.as_array().unwrap().iter();
    list.map(|one| one.as_bool().unwrap()).collect()
}

/// The tables of twelve models. Two rows count a symbol, where the reference draws a random
/// letter: the table has our verdict (that of `*_literal_letter`), and with the reference's
/// draw in its place the table is the reference's to two decimals. One prompt exists in two
/// wordings: eleven models answered the other.
#[test]
fn ifeval_tables_are_the_references() {
    let place = Place::new();
    let data = std::fs::read_to_string(shared("ifeval/input_data.jsonl")).unwrap();
    let other_wording = data.replace(
        "{\"num_placeholders\": 3}]}\n",
        "{\"num_placeholders\": 1}]}\n",
    );
    let summary = std::fs::read_to_string(shared("ifeval/summary.json")).unwrap();
    let summary: Vec<Value> = serde_json::from_str(&summary).unwrap();
    let models = files(&shared("ifeval/results"), "");
    assert_eq!(models.len(), 12);
    for golden_file in models {
        let name = golden_file.file_stem().unwrap().to_str().unwrap();
        let golden = rows(&golden_file);
        let variant = golden.iter().find(|row| row["key"] == 2785).unwrap();
        let wording = match variant["prompt_variant"].as_str() {
            Some("num_placeholders=1") => data_line_replaced(&data, &other_wording),
            _ => data.clone(),
        };
        place.write("data.jsonl", wording);
        let responses = shared(&format!("ifeval/responses/{name}.jsonl"));
        let out = format!("out/{name}");
        let report = place.json(&[
            "eval",
            "ifeval",
            "--data",
            "data.jsonl",
            "--json",
            "-o",
            &out,
            "--responses",
            responses.to_str().unwrap(),
        ]);
        let report = &report["report"];
        let samples = rows(&files(&place.path(&out), "samples_")[0]);
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for golden in &golden {
            let sample = samples
                .iter()
                .find(|row| row["doc"]["key"] == golden["key"])
                .unwrap();
            let verdicts = (
                bools(&sample["inst_level_strict_acc"]),
                bools(&sample["inst_level_loose_acc"]),
            );
            let drawn = golden.get("strict_literal_letter").is_some();
            theirs.push(if drawn {
                (bools(&golden["strict"]), bools(&golden["loose"]))
            } else {
                verdicts.clone()
            });
            ours.push(verdicts);
        }
        let said = summary.iter().find(|row| row["model"] == name).unwrap();
        for (metric, value) in percentages(&theirs) {
            assert_eq!(said[metric], value, "{name} {metric}");
        }
        let task = match report["missing"].as_u64() {
            Some(0) => &report["tasks"][0],
            _ => &report["answered_only"][0],
        };
        for (index, (metric, value)) in percentages(&ours).into_iter().enumerate() {
            let table = task["numbers"][index]["value"].as_f64().unwrap();
            assert_eq!((table * 1e4).round() / 1e2, value, "{name} {metric}");
        }
        assert_eq!(task["prompts"], said["rows"], "{name}");
    }
}

/// `data` with the line of key 2785 from `other`.
fn data_line_replaced(data: &str, other: &str) -> String {
    let lines = data.lines().zip(other.lines());
    let chosen = lines.map(|(ours, theirs)| match ours.starts_with("{\"key\": 2785,") {
        true => theirs,
        false => ours,
    });
    chosen.map(|line| format!("{line}\n")).collect()
}

#[test]
fn the_binary_needs_no_model_to_judge() {
    // An environment without a home and a model: nothing is looked for.
    let place = Place::new();
    place.write("data.jsonl", items(1));
    place.write("r.jsonl", "{\"key\": 0, \"response\": \"x\"}\n");
    let output = std::process::Command::new(BINARY)
        .current_dir(place.path(""))
        .env_clear()
        .args([
            "eval",
            "ifeval",
            "--data",
            "data.jsonl",
            "--responses",
            "r.jsonl",
        ])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}
