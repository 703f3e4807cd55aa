//! The model inside the program plays every role: a dataset is made, killed and continued, an
//! adapter is trained on it, and the result is measured.

use crate::harness::Place;
use serde_json::Value;
use std::time::Duration;

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn synth<'a>(folder: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let base = ["synth", "ultraif", "-m", "embedded", "--accept", "12", "-o"];
    [&base[..], &[folder], more].concat()
}

#[test]
fn a_dataset_an_adapter_and_a_figure() {
    let place = Place::new();
    place.good(&synth("whole", &[]));
    let (sft, pairs) = ("whole/data/sft.jsonl", "whole/data/dpo.jsonl");
    let rows = lines(&place.read(sft));
    assert_eq!(rows.len(), 12);
    for row in &rows {
        let turns = row["messages"].as_array().unwrap();
        assert_eq!(turns.last().unwrap()["role"], "assistant");
        assert!(
            !turns.last().unwrap()["content"]
                .as_str()
                .unwrap()
                .is_empty()
        );
    }
    assert!(!lines(&place.read(pairs)).is_empty());
    place.good(&["data", "check", "whole/data"]);

    // The adapter trained on it is measured beside the model that wrote it.
    let train = [
        "train",
        "sft",
        "-m",
        "embedded",
        "--data",
        sft,
        "-o",
        "adapter",
        "--max-steps",
        "4",
        "--batch-size",
        "4",
        "--lr",
        "1e-3",
        "--json",
    ];
    let trained = place.json(&train);
    assert_eq!(trained["steps"], 4, "{trained}");
    let items = "{\"key\":1,\"prompt\":\"Describe the fox. Use small letters only.\",\"instruction_id_list\":[\"change_case:english_lowercase\"],\"kwargs\":[{}]}\n\
        {\"key\":2,\"prompt\":\"Write a note to Sam about the lamp. Do not use any commas.\",\"instruction_id_list\":[\"punctuation:no_comma\"],\"kwargs\":[{}]}\n";
    place.write("items.jsonl", items);
    let eval = [
        "eval",
        "ifeval",
        "-m",
        "embedded",
        "--adapter",
        "adapter",
        "--data",
        "items.jsonl",
        "--compare",
        "base",
        "-o",
        "eval",
        "--json",
    ];
    let measured = place.json(&eval);
    assert!(
        measured.to_string().contains("prompt_level_strict"),
        "{measured}"
    );
}

#[test]
fn killed_and_continued_gives_the_same_dataset() {
    let place = Place::new();
    place.good(&synth("whole", &[]));
    for wait in [150, 400, 700] {
        let mut child = place.command(&synth("again", &[])).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(wait));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    place.good(&synth("again", &["--concurrency", "7"]));
    for file in ["sft.jsonl", "dpo.jsonl", "composer.jsonl", "rejected.jsonl"] {
        let name = |run: &str| format!("{run}/data/{file}");
        assert_eq!(
            place.read(&name("again")),
            place.read(&name("whole")),
            "{file}"
        );
    }
}

#[test]
fn it_brings_its_own_words_and_requests() {
    let place = Place::new();
    place.good(&synth(
        "run",
        &["--max-rows", "4", "--stages", "respond", "--accept", "1"],
    ));
    let first = &lines(&place.read("run/data/responses.jsonl"))[0];
    assert!(first.to_string().contains("the fox"), "{first}");
    // With prompts of one's own, those are used.
    place.good(&["prompts", "cp", "mine"]);
    let other = synth(
        "other",
        &[
            "--max-rows",
            "4",
            "--stages",
            "respond",
            "--prompts",
            "mine",
        ],
    );
    assert_eq!(place.run(&other).code, Some(3));
    assert_ne!(place.read("run/run.toml"), place.read("other/run.toml"));
}
