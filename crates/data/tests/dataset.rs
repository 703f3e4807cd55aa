//! A dataset's folder: what is written beside the rows, and what the check finds.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use data::{
    CheckReport, FunnelCounts, Names, Origin, PromptFacts, check_dataset, describe_dataset,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

const FILES: [&str; 4] = ["sft.jsonl", "dpo.jsonl", "none.jsonl", "rejected.jsonl"];

fn turns(texts: &[&str]) -> Value {
    let roles = ["user", "assistant"].iter().cycle();
    let turns = texts.iter().zip(roles);
    turns
        .map(|(text, role)| json!({"role": role, "content": text}))
        .collect()
}

fn answer(text: &str) -> Value {
    json!([{"role": "assistant", "content": text}])
}

fn conversation(id: &str) -> Value {
    json!({"id": id, "messages": turns(&["q", "a"]), "meta": "{}"})
}

fn pair(id: &str) -> Value {
    let prompt = turns(&["p", "r", "q"]);
    json!({"id": id, "prompt": prompt, "chosen": answer("yes"), "rejected": answer("no")})
}

fn write(folder: &Path, name: &str, rows: &[Value]) {
    let lines: Vec<String> = rows.iter().map(|row| format!("{row}\n")).collect();
    fs::write(folder.join(name), lines.concat()).unwrap();
}

fn counted(name: &str, rows: u64) -> BTreeMap<String, u64> {
    BTreeMap::from([(name.to_owned(), rows)])
}

fn origin() -> Origin {
    let one = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
    let facts = PromptFacts {
        source: "a paper".into(),
        sampling: one("temperature", "0.7"),
    };
    Origin {
        program: "autodidact 0".into(),
        recipe: "toy 1".into(),
        seed: 7,
        part: None,
        source_digest: "5eed".into(),
        model_digests: one("judge", "d1"),
        prompt_digests: one("toy/judge", "d2"),
        settings: json!({"samples": 5, "language": "a|b", "threshold": 0.8_f32}),
        names: Names {
            seeds: vec!["prompts.jsonl".into()],
            models: one("judge", "a-model"),
            prompts: BTreeMap::from([("toy/judge".to_owned(), facts)]),
        },
        funnel: FunnelCounts {
            read: 5,
            accepted: 2,
            rejected: BTreeMap::from([
                ("read".to_owned(), counted("empty", 2)),
                ("select".to_owned(), counted("no_response_passes", 1)),
            ]),
            unfinished: 0,
            counts: counted("select.responses", 9),
        },
        notes: "## Of its own\n\nsome words\n\n".into(),
    }
}

/// A dataset that is as it should be.
fn dataset() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write(path, "sft.jsonl", &[conversation("a"), conversation("b")]);
    write(path, "dpo.jsonl", &[pair("a")]);
    write(path, "none.jsonl", &[]);
    let rejected = |id: &str, stage: &str, reason: &str| json!({"id": id, "stage": stage, "reason": reason, "detail": ""});
    let rows = [
        rejected("c", "read", "empty"),
        rejected("c", "read", "empty"),
        rejected("d", "select", "no_response_passes"),
    ];
    write(path, "rejected.jsonl", &rows);
    describe_dataset(path, &FILES, &origin()).unwrap();
    folder
}

fn findings(report: &CheckReport) -> Vec<String> {
    report.findings.iter().map(ToString::to_string).collect()
}

#[test]
fn a_described_dataset_passes_its_check() {
    let folder = dataset();
    let report = check_dataset(folder.path()).unwrap();
    assert_eq!(findings(&report), [""; 0]);
    let files: Vec<(&str, u64)> = report
        .files
        .iter()
        .map(|file| (file.file.as_str(), file.rows))
        .collect();
    let expected = [
        ("dpo.jsonl", 1),
        ("none.jsonl", 0),
        ("rejected.jsonl", 3),
        ("sft.jsonl", 2),
        ("llamafactory/dpo.jsonl", 1),
    ];
    assert_eq!(files, expected);
    assert_eq!(report.files[0].chosen_longer, 1);
    // Described again, byte for byte; from above, as a run's folder.
    let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
    let names = [
        "README.md",
        "dataset_info.json",
        "axolotl.yml",
        "llamafactory/dpo.jsonl",
    ];
    let before = names.map(read);
    describe_dataset(folder.path(), &FILES, &origin()).unwrap();
    assert_eq!(names.map(read), before);
    let run = tempfile::tempdir().unwrap();
    fs::rename(folder.path(), run.path().join("data")).unwrap();
    assert_eq!(check_dataset(run.path()).unwrap().problems, 0);
}

#[test]
fn the_card_tells_what_made_the_rows_and_invents_no_licence() {
    let folder = dataset();
    let card = fs::read_to_string(folder.path().join("README.md")).unwrap();
    for told in [
        "---\nconfigs:\n- config_name: sft\n  default: true\n  data_files:\n  - split: train\n    path: sft.jsonl\n- config_name: dpo\n",
        "| `sft.jsonl` | 2 | conversations",
        "| `none.jsonl` | 0 | empty |",
        "| rejected at select: no_response_passes | 1 |",
        "| read | 5 |",
        "| select.responses | 9 |",
        "## Of its own\n\nsome words\n\n## What made them",
        "| judge | `a-model` | `d1` |",
        "| toy/judge | `d2` | temperature 0.7 | a paper |",
        "| samples | `5` |",
        "| threshold | `0.8` |",
        "| language | `a\\|b` |",
        "Seeds: `prompts.jsonl`, digest `5eed`",
        "## Licence",
    ] {
        assert!(card.contains(told), "{told}\nin\n{card}");
    }
    let header = card.split("---\n").nth(1).unwrap();
    assert!(!header.contains("license"), "{header}");
    assert!(
        !header.contains("none.jsonl"),
        "an empty file cannot be loaded"
    );
}

#[test]
fn other_trainers_are_told_every_column() {
    let folder = dataset();
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    let info: Value = serde_json::from_str(&read("dataset_info.json")).unwrap();
    assert_eq!(info.as_object().unwrap().len(), 2);
    assert_eq!(info["sft"]["file_name"], "sft.jsonl");
    assert_eq!(info["sft"]["columns"], json!({"messages": "messages"}));
    assert_eq!(info["dpo"]["file_name"], "llamafactory/dpo.jsonl");
    assert_eq!(info["dpo"]["ranking"], true);
    let row: Value = serde_json::from_str(&read("llamafactory/dpo.jsonl")).unwrap();
    assert_eq!(
        row["chosen"],
        json!({"role": "assistant", "content": "yes"})
    );
    let lines = read("axolotl.yml");
    assert!(lines.contains("- path: sft.jsonl") && lines.contains("#   - path: dpo.jsonl"));
    // Without pairs nothing of them stays.
    write(folder.path(), "dpo.jsonl", &[]);
    describe_dataset(folder.path(), &FILES, &origin()).unwrap();
    assert!(!folder.path().join("llamafactory").exists());
    assert_eq!(check_dataset(folder.path()).unwrap().problems, 0);
}

#[test]
fn what_is_wrong_with_rows_is_named() {
    let check = |rows: &[Value], expected: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "a.jsonl", rows);
        let path = folder.path().join("a.jsonl");
        let report = check_dataset(&path).unwrap();
        let found = findings(&report);
        assert_eq!(report.problems, found.len() as u64);
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            let start = format!("{}:", path.display());
            let rest = found.strip_prefix(&start).unwrap();
            assert!(rest.starts_with(expected), "{rest}: expected {expected}");
        }
    };
    check(
        &[conversation("a"), pair("b")],
        &["2: the row lacks `messages`, `meta`"],
    );
    check(
        &[conversation("a"), conversation("a")],
        &["2: the id `a` is that of line 1"],
    );
    let mut other = conversation("b");
    other["meta"] = json!({"x": 1});
    check(
        &[conversation("a"), other],
        &["2: `meta` is an object, and a string"],
    );
    let mut null = conversation("a");
    null["meta"] = Value::Null;
    check(&[null], &[" `meta` is null in every row"]);
    let with = |texts: &[&str]| json!({"messages": turns(texts)});
    check(
        &[json!({"prompt": "q", "completion": ""})],
        &["1: `messages`: turn 2 is empty"],
    );
    check(
        &[json!({"instruction": "q", "output": 7})],
        &["1: `output` is neither a string"],
    );
    check(&[with(&["q", " "])], &["1: `messages`: turn 2 is empty"]);
    check(
        &[with(&["q", "a", "q"])],
        &["1: `messages` does not end with"],
    );
    check(
        &[json!({"messages": answer("a")})],
        &["1: `messages`: turn 1: assistant after nothing"],
    );
    let mut twice = pair("a");
    twice["rejected"] = twice["chosen"].clone();
    check(&[twice], &["1: `chosen` and `rejected` are equal"]);
    let mut empty = pair("a");
    empty["rejected"] = answer("");
    check(&[empty], &["1: `rejected`: turn 4 is empty"]);
    let mut unasked = pair("a");
    unasked["prompt"] = turns(&["q", "a"]);
    check(
        &[unasked],
        &[
            "1: `prompt` ends with",
            "1: `chosen`: turn 3: assistant after assistant",
            "1: `rejected`: turn 3",
        ],
    );
    let many = vec![with(&["q"]); 30];
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.jsonl", &many);
    let report = check_dataset(&folder.path().join("a.jsonl")).unwrap();
    assert_eq!((report.problems, report.findings.len()), (30, 20));
}

/// What the check says of a dataset after `damage`.
fn check_damaged(damage: &dyn Fn(&Path), expected: &[&str]) {
    let folder = dataset();
    damage(folder.path());
    let found = findings(&check_dataset(folder.path()).unwrap());
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.contains(expected), "{found}: expected {expected}");
    }
}

fn append(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    let before = fs::read_to_string(&path).unwrap();
    fs::write(path, before + text).unwrap();
}

fn edit(folder: &Path, name: &str, from: &str, to: &str) {
    let path = folder.join(name);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(path, text.replace(from, to)).unwrap();
}

#[test]
fn rows_that_do_not_agree_with_the_card_are_named() {
    let check = check_damaged;
    check(&|_| (), &[]);
    check(
        &|folder| append(folder, "sft.jsonl", "{broken\n"),
        &[
            "sft.jsonl:3: not JSON",
            "rows of sft.jsonl: 2 stated, 3 found",
        ],
    );
    check(
        &|folder| write(folder, "rejected.jsonl", &[]),
        &[
            "rows of rejected.jsonl: 3 stated, 0 found",
            "rejected at read: empty: 2 stated, 0 found",
            "rejected at select: no_response_passes: 1 stated, 0 found",
        ],
    );
    check(
        &|folder| edit(folder, "README.md", "| accepted | 2 |", "| accepted | 3 |"),
        &["5 rows read, but 6 accepted"],
    );
    check(
        &|folder| edit(folder, "README.md", "| file |", "| files |"),
        &["has no table"],
    );
}

#[test]
fn files_that_do_not_agree_with_each_other_are_named() {
    let check = check_damaged;
    check(
        &|folder| edit(folder, "dataset_info.json", "sft.jsonl", "gone.jsonl"),
        &[
            "`sft` names gone.jsonl, which is not there",
            "sft.jsonl is not named",
        ],
    );
    check(
        &|folder| {
            edit(
                folder,
                "dataset_info.json",
                "\"messages\": \"messages\"",
                "\"messages\": \"turns\"",
            )
        },
        &["`sft`: its rows have no `turns`"],
    );
    check(
        &|folder| {
            append(
                folder,
                "llamafactory/dpo.jsonl",
                &format!(
                    "{}\n",
                    json!({
                        "id": "z", "prompt": turns(&["q"]), "chosen": answer("a")[0], "rejected": answer("b")[0],
                    })
                ),
            )
        },
        &["llamafactory/dpo.jsonl: 2 rows, dpo.jsonl has 1"],
    );
    check(
        &|folder| fs::remove_file(folder.join("README.md")).unwrap(),
        &["README.md: cannot be read"],
    );
    check(
        &|folder| fs::write(folder.join("sft.jsonl.partial"), "").unwrap(),
        &["sft.jsonl.partial: left by an export"],
    );
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(check_dataset(empty.path()).unwrap().problems, 1);
    assert!(check_dataset(&empty.path().join("none")).is_err());
}
