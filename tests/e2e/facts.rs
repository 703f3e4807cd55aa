//! Commands that say what is: models, doctor, config, bench, completions, man.

use crate::harness::{Place, tiny_gguf};
use serde_json::Value;

#[test]
fn models_of_the_cache() {
    let place = Place::new();
    let root = "home/.cache/huggingface/hub/models--org--name";
    place.write(&format!("{root}/refs/main"), "abc123");
    place.write(&format!("{root}/snapshots/abc123/config.json"), "{}");
    let json = place.json(&["models", "ls", "--json"]);
    assert_eq!(json["models"][0]["id"], "org/name");
    assert_eq!(json["models"][0]["complete"], false);
    let plain = place.good(&["models", "ls"]).stdout;
    assert!(
        plain.contains("org/name") && plain.contains("embedded"),
        "{plain}"
    );
    let doctor = place.good(&["doctor"]).stdout;
    assert!(
        doctor.contains("org/name") && doctor.contains("missing: "),
        "{doctor}"
    );
}

#[test]
fn a_model_is_described_without_its_weights() {
    let place = Place::new();
    let path = tiny_gguf();
    let of_path = place.json(&["models", "show", path.to_str().unwrap(), "--json"]);
    let embedded = place.json(&["models", "show", "embedded", "--json"]);
    for (json, layers, vocab) in [(&of_path, 3, 768), (&embedded, 6, 2048)] {
        assert_eq!(json["architecture"], "llama");
        assert_eq!(json["num_layers"], layers);
        assert_eq!(json["vocab_size"], vocab);
    }
    assert!(
        place
            .good(&["models", "show"])
            .stdout
            .contains("hidden_size")
    );
}

#[test]
fn doctor_knows_the_machine() {
    let json = Place::new().json(&["doctor", "--json"]);
    assert!(json["threads"].as_u64().unwrap() >= 1);
    assert!(json["cpu_features"].is_array());
    assert_eq!(json["models"], serde_json::json!([]));
}

#[test]
fn configuration_with_origins() {
    let place = Place::new();
    place.write("autodidact.toml", "[sampling]\ntop_k = 7\n");
    place.write(
        "home/.config/autodidact/config.toml",
        "[sampling]\ntop_k = 8\nmin_p = 0.25\n[aliases]\nx = \"/m\"\n",
    );
    let json = place.json(&["config", "show", "--json", "--set", "sampling.top_p=0.5"]);
    let entry = |key: &str| {
        (
            json["config"][key]["value"].clone(),
            json["config"][key]["origin"].as_str().unwrap().to_owned(),
        )
    };
    assert_eq!(
        entry("sampling.top_k"),
        (7.into(), "autodidact.toml".into())
    );
    assert_eq!(entry("sampling.top_p"), (0.5.into(), "--set".into()));
    assert_eq!(entry("sampling.min_p").0, Value::from(0.25));
    assert!(
        entry("sampling.min_p")
            .1
            .ends_with(".config/autodidact/config.toml")
    );
    assert_eq!(json["aliases"]["x"], "/m");
    let mut command = place.command(&["config", "show", "--origin"]);
    let output = command
        .env("AUTODIDACT_ENGINE_THREADS", "3")
        .output()
        .unwrap();
    let plain = String::from_utf8(output.stdout).unwrap();
    let line = plain
        .lines()
        .find(|line| line.starts_with("engine.threads"))
        .unwrap();
    assert!(
        line.contains(" 3 ") && line.ends_with("$AUTODIDACT_ENGINE_THREADS"),
        "{line}"
    );
}

#[test]
fn the_benchmark_measures_both_phases() {
    let args = [
        "bench",
        "engine",
        "--rows",
        "1,3",
        "--prompt-tokens",
        "20",
        "--new-tokens",
        "4",
        "--repeat",
        "1",
        "--json",
    ];
    let json = Place::new().json(&args);
    let phases: Vec<_> = json["measurements"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            (
                one["phase"].as_str().unwrap(),
                one["rows"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        phases,
        [("prefill", 1), ("decode", 1), ("prefill", 3), ("decode", 3)]
    );
    for one in json["measurements"].as_array().unwrap() {
        assert!(one["tok_per_s"].as_f64().unwrap() > 0.0, "{one}");
    }
    assert!(json["read_bytes_per_s"].as_f64().unwrap() > 1e6, "{json}");
}

#[test]
fn completions_and_manual() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(
            place
                .good(&["completions", shell])
                .stdout
                .contains("generate"),
            "{shell}"
        );
    }
    let page = place.good(&["man"]).stdout;
    assert!(
        page.starts_with(".") && page.contains("or some rows failed"),
        "{page}"
    );
    place.good(&["man", "pages"]);
    let page = place.read("pages/autodidact-generate.1");
    assert!(
        page.contains("seed") && page.contains("stopped early"),
        "{page}"
    );
    assert!(place.path("pages/autodidact-config-show.1").exists());
}
