//! `data`: what a run leaves beside its rows, and what is said of datasets.
//!
//! The tiny model writes no JSON that ends by itself. Copies of the prompts push it
//! there, by biases on quotes, and a low threshold takes what it says for YES here and NO
//! there: so there are rows of every kind.

use crate::harness::Place;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// Tokens of the tiny model: `"`, `",`, `{`, `t`.
const BIASES: &str =
    "temperature = 1.0\n[sampling.logit_bias]\n4 = 7.0\n427 = 7.0\n93 = 4.0\n86 = 2.0";

const RECIPE: [&str; 17] = [
    "synth",
    "ultraif",
    "--prompts",
    "mine",
    "--stages",
    "decompose,question,composer,respond,evaluate",
    "--evaluator",
    "logits",
    "--set",
    "ultraif.least_mass=0.0",
    "--set",
    "ultraif.threshold=0.00001",
    "--set",
    "ultraif.near_duplicates=0",
    "--set",
    "ultraif.samples=3",
    "--json",
];

/// A place with seeds and with prompts that the tiny model can follow.
fn place() -> Place {
    let place = Place::new();
    let seeds: String = (0..10)
        .map(|row| format!("{{\"prompt\": \"Where is the lamp of house {row}? Be brief.\"}}\n"))
        .collect();
    place.write("seeds.jsonl", seeds);
    place.good(&["prompts", "cp", "mine"]);
    for prompt in ["decompose", "question"] {
        let name = format!("mine/ultraif/{prompt}.md");
        let text = place.read(&name);
        assert!(text.contains("temperature = 0.0"), "{text}");
        place.write(&name, text.replace("temperature = 0.0", BIASES));
    }
    place
}

fn recipe<'a>(seeds: &'a str, folder: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let files = ["--seeds", seeds, "-o", folder];
    [&RECIPE[..], &files, more].concat()
}

/// Every file of a dataset with its content.
fn files(place: &Place, folder: &str) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for below in ["", "llamafactory/"] {
        let folder = place.path(&format!("{folder}/data/{below}"));
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let name = path.file_name().unwrap().to_string_lossy();
                let text = std::fs::read_to_string(&path).unwrap();
                files.insert(format!("{below}{name}"), text);
            }
        }
    }
    files
}

#[test]
fn a_run_leaves_a_dataset_that_is_valid_and_always_the_same() {
    let place = place();
    let facts = place.json(&recipe("seeds.jsonl", "run", &[]));
    assert!(facts["funnel"]["accepted"].as_u64().unwrap() > 0, "{facts}");
    let whole = files(&place, "run");
    let names: Vec<&str> = whole.keys().map(String::as_str).collect();
    let expected = [
        "README.md",
        "axolotl.yml",
        "composer.jsonl",
        "dataset_info.json",
        "dpo.jsonl",
        "llamafactory/dpo.jsonl",
        "rejected.jsonl",
        "sft.jsonl",
    ];
    assert_eq!(names, expected);
    let card = &whole["README.md"];
    assert!(card.contains("Seeds: `seeds.jsonl`"), "{card}");
    assert!(card.contains("| judge | `tiny.gguf` | `"), "{card}");
    assert!(!card.contains(&*place.path("").to_string_lossy()), "{card}");
    let checked = place.json(&["data", "check", "run", "--json"]);
    assert_eq!(checked["problems"], 0, "{checked}");
    let found = place.good(&["data", "check", "run/data"]).stdout;
    assert!(
        found.ends_with("valid\n") && found.contains("chosen longer in"),
        "{found}"
    );
    // Killed and continued.
    let again = recipe("seeds.jsonl", "again", &["--concurrency", "2"]);
    let mut child = place.command(&again).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    child.kill().unwrap();
    child.wait().unwrap();
    place.good(&again);
    assert_eq!(files(&place, "again"), whole);
    // In two parts, put together.
    for (part, folder) in [("1/2", "one"), ("2/2", "two")] {
        place.good(&recipe("seeds.jsonl", folder, &["--shard", part]));
        assert_eq!(place.good(&["data", "check", folder]).code, Some(0));
    }
    place.good(&["run", "merge", "one", "two", "-o", "merged"]);
    assert_eq!(files(&place, "merged"), whole);
}

#[test]
fn what_is_wrong_is_told_line_by_line() {
    let place = Place::new();
    place.write(
        "bad.jsonl",
        "{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}]}\n{oops\n",
    );
    let finished = place.run(&["data", "check", "bad.jsonl"]);
    assert_eq!(finished.code, Some(4), "{finished:?}");
    let lines: Vec<&str> = finished.stdout.lines().collect();
    assert!(
        lines[0].starts_with("bad.jsonl:1: no turn of the assistant"),
        "{lines:?}"
    );
    assert!(lines[1].starts_with("bad.jsonl:2: not JSON"), "{lines:?}");
    assert_eq!(lines.last(), Some(&"2 problems"));
    let finished = place.run(&["data", "check", "bad.jsonl", "--json"]);
    assert_eq!(finished.code, Some(4), "{finished:?}");
    let report: Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(report["findings"][1]["line"], 2);
    place.write(
        "many.jsonl",
        "{\"prompt\": \"q\", \"chosen\": \"a\", \"rejected\": \"a\"}\n".repeat(50),
    );
    let finished = place.run(&["data", "check", "many.jsonl"]);
    assert!(
        finished.stdout.contains("\n… and 30 more\n"),
        "{finished:?}"
    );
    assert_eq!(place.run(&["data", "check", "none"]).code, Some(5));
    place.write("x.bin", [0, 1, 2]);
    assert_eq!(place.run(&["data", "check", "x.bin"]).code, Some(4));
}

#[test]
fn rows_are_shown_for_people_and_programs() {
    let place = Place::new();
    place.write(
        "pairs.json",
        "[{\"id\": \"a\", \"prompt\": \"q\", \"chosen\": \"yes\", \"rejected\": \"no\"}, {\"x\": 1}, 3]",
    );
    let shown = place
        .good(&["data", "show", "pairs.json", "-n", "1"])
        .stdout;
    let expected =
        "── a (line 1)\n[user]\nq\n[chosen: assistant]\nyes\n[rejected: assistant]\nno\n\n";
    assert_eq!(shown, expected);
    for row in ["pairs:2", "2"] {
        let shown = place
            .good(&["data", "show", "pairs.json", "--row", row])
            .stdout;
        assert_eq!(shown, "── pairs:2 (line 2)\nx: 1\n\n");
    }
    let facts = place.json(&["data", "show", "pairs.json", "--json"]);
    assert_eq!(facts["rows"].as_array().unwrap().len(), 3);
    assert_eq!(facts["rows"][0]["row"]["chosen"], "yes");
    let finished = place.run(&["data", "show", "pairs.json", "--row", "b"]);
    assert_eq!(finished.code, Some(4), "{finished:?}");
    assert_eq!(place.run(&["data", "show", "none.csv"]).code, Some(5));
    place.write("bad.jsonl", "{oops\n");
    let finished = place.run(&["data", "show", "bad.jsonl"]);
    assert_eq!(finished.code, Some(4), "{finished:?}");
    assert!(
        finished.stderr.contains("bad.jsonl: line 1: not JSON"),
        "{finished:?}"
    );
}

#[test]
fn seeds_of_every_form_give_the_same_rows() {
    let place = Place::new();
    let prompts = ["Where is the lamp?", "Where is the sea?"];
    let [one, two] = prompts;
    place.write(
        "a.jsonl",
        format!("{{\"prompt\": \"{one}\"}}\n{{\"prompt\": \"{two}\"}}\n"),
    );
    place.write(
        "a.json",
        format!("[{{\"prompt\": \"{one}\"}}, {{\"instruction\": \"{two}\"}}]"),
    );
    place.write("a.csv", format!("prompt,n\n{one},1\n\"{two}\",2\n"));
    place.write("a.txt", format!("{one}\n\n{two}\n"));
    let answered = format!(
        "[{{\"conversations\": [{{\"from\": \"human\", \"value\": \"{one}\"}}, {{\"from\": \"gpt\", \"value\": \"x\"}}]}}, {{\"prompt\": \"{two}\"}}]"
    );
    place.write("b.json", answered);
    let mut expected = None;
    for file in ["a.jsonl", "a.json", "a.csv", "a.txt", "b.json"] {
        let folder = format!("from-{file}");
        let args = [
            "synth", "ultraif", "--stages", "respond", "--seeds", file, "-o", &folder,
        ];
        place.good(&args);
        let found = place.read(&format!("{folder}/data/responses.jsonl"));
        assert_eq!(found.lines().count(), 2);
        assert_eq!(expected.get_or_insert(found.clone()), &found, "{file}");
    }
}
