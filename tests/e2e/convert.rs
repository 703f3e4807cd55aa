//! `models convert`: one file that does what the folder did.

use crate::harness::Place;
use std::path::Path;

fn fixture(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../train/tests/fixtures");
    folder.join(name).display().to_string()
}

/// Greedy tokens and the log-probability of each.
fn ask(place: &Place, model: &[&str]) -> (serde_json::Value, Vec<f64>) {
    let request =
        "generate -p lamp --temperature 0 --logprobs 1 --max-tokens 12 --ignore-eos --json";
    let mut all: Vec<&str> = request.split(' ').collect();
    all.extend(model);
    let answer = place.json(&all);
    let one = &answer["completions"][0];
    let logprobs = one["logprobs"].as_array().unwrap();
    let logprobs = logprobs
        .iter()
        .map(|token| token["logprob"].as_f64().unwrap());
    (one["tokens"].clone(), logprobs.collect())
}

#[test]
fn a_folder_with_an_adapter_becomes_a_file() {
    let place = Place::new();
    for family in ["llama", "qwen2", "qwen3"] {
        let (base, adapter) = (
            fixture(&format!("{family}/base")),
            fixture(&format!("{family}/adapter")),
        );
        let file = format!("{family}.gguf");
        let told = place.json(&[
            "models",
            "convert",
            "-m",
            &base,
            "--adapter",
            &adapter,
            "-o",
            &file,
            "--quant",
            "f32",
            "--json",
        ]);
        assert!(told["merged"].as_u64().unwrap() > 0, "{told}");
        let (tokens, logprobs) = ask(&place, &["-m", &base, "--adapter", &adapter]);
        let (found, found_logprobs) = ask(&place, &["-m", &file]);
        assert_eq!(found, tokens, "{family}");
        for (a, b) in logprobs.iter().zip(&found_logprobs) {
            assert!((a - b).abs() < 1e-3, "{family}: {a} and {b}");
        }
        let plain = format!("{family}-plain.gguf");
        let line = place
            .good(&["models", "convert", "-m", &base, "-o", &plain])
            .stdout;
        assert!(line.contains("in f32") && line.contains(&plain), "{line}");
        assert_eq!(
            ask(&place, &["-m", &plain]).0,
            ask(&place, &["-m", &base]).0
        );
        let shown = place.json(&["models", "show", &plain, "--json"]);
        assert_eq!(shown["num_layers"], 2, "{shown}");
    }
}

#[test]
fn what_cannot_be_converted_is_said_and_leaves_nothing() {
    let place = Place::new();
    let base = fixture("llama/base");
    let check = |args: &[&str], code: i32, words: &str| {
        let mut all = vec!["models", "convert"];
        all.extend(args);
        let finished = place.run(&all);
        assert_eq!(finished.code, Some(code), "{finished:?}");
        assert!(finished.stderr.contains(words), "{words}: {finished:?}");
    };
    check(&["-o", "m.gguf"], 2, "--model tiny.gguf");
    check(&["-m", "embedded", "-o", "m.gguf"], 2, "GGUF file already");
    check(&["-m", "none", "-o", "m.gguf"], 5, "no model none");
    check(&["-m", &base, "-o", "no/m.gguf"], 5, "no/m.gguf");
    check(
        &["-m", &base, "--adapter", "none", "-o", "m.gguf"],
        5,
        "adapter_config.json",
    );
    check(&["-m", &base, "-o", "m.gguf", "--quant", "q9"], 2, "q8_0");
    place.write("taken.gguf", "mine");
    check(&["-m", &base, "-o", "taken.gguf"], 2, "taken.gguf: exists");
    assert_eq!(place.read("taken.gguf"), "mine");
    assert!(!place.path("m.gguf").exists());
    // A folder that merge would have made of this name is not what was meant.
    let adapter = fixture("llama/adapter");
    let finished = place.run(&[
        "train",
        "merge",
        "-m",
        &base,
        "--adapter",
        &adapter,
        "-o",
        "x.gguf",
    ]);
    assert!(
        finished.code == Some(2) && finished.stderr.contains("models convert"),
        "{finished:?}"
    );
}
