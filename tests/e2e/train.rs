//! `train`: adapters and models, stopped and continued, and what is refused.

use crate::harness::{Finished, Place};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Rows that place lamps, one that nobody answers and one that is no JSON.
fn conversations() -> String {
    let mut text: String = (0..40)
        .map(|i| {
            let place = i % 5;
            format!(
                "{{\"id\":\"row-{i}\",\"messages\":[{{\"role\":\"user\",\"content\":\"Where is lamp {place}?\"}},{{\"role\":\"assistant\",\"content\":\"Lamp {place} is on shelf {place}.\"}}]}}\n"
            )
        })
        .collect();
    text.push_str("{\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}]}\n{broken\n");
    text
}

fn pairs() -> String {
    let row = |i: usize| {
        format!(
            "{{\"id\":\"pair-{i}\",\"prompt\":\"Where is lamp {}?\",\"chosen\":\"On shelf {}.\",\"rejected\":\"No idea.\"}}\n",
            i % 5,
            i % 5
        )
    };
    (0..24).map(row).collect()
}

fn rows(place: &Place, name: &str) -> Vec<serde_json::Value> {
    let text = place.read(name);
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
#[expect(clippy::too_many_lines, reason = "one story, or one table")]
fn an_adapter_is_trained_and_used() {
    let place = Place::new();
    place.write("sft.jsonl", conversations());
    let told = place.json(&[
        "train",
        "sft",
        "--data",
        "sft.jsonl",
        "-o",
        "run",
        "--epochs",
        "6",
        "--batch-size",
        "8",
        "--lr",
        "5e-3",
        "--held-out",
        "5",
        "--json",
    ]);
    assert_eq!(told["complete"], true);
    assert_eq!(told["steps"], told["total_steps"]);
    let metrics = rows(&place, "run/metrics.jsonl");
    let loss = |row: &serde_json::Value| row["loss"].as_f64().unwrap();
    let steps: Vec<_> = metrics
        .iter()
        .filter(|row| row.get("loss").is_some())
        .collect();
    assert_eq!(steps.len(), 30);
    assert!(loss(steps[29]) < loss(steps[0]) / 5.0, "{metrics:?}");
    for key in [
        "grad_norm",
        "learning_rate",
        "epoch",
        "num_tokens",
        "mean_token_accuracy",
        "entropy",
    ] {
        assert!(steps[0][key].is_number(), "{key}");
    }
    assert!(
        told["evaluation"]["eval_loss"].as_f64().unwrap() < 1.0,
        "{told}"
    );
    // Rows that are not trained on are named.
    let dropped = rows(&place, "run/dropped.jsonl");
    let places: Vec<&str> = dropped
        .iter()
        .map(|row| row["place"].as_str().unwrap())
        .collect();
    assert_eq!(places, ["sft.jsonl:41", "sft.jsonl:42"]);
    // The answers before and after, and the same from the command that generates.
    let samples = rows(&place, "run/samples.jsonl");
    assert_eq!(samples.len(), 4);
    let prompt = samples[2]["prompt"][0]["content"].as_str().unwrap();
    let answer = samples[2]["answer"].as_str().unwrap();
    assert_ne!(samples[0]["answer"], samples[2]["answer"], "{samples:?}");
    let generated = place.good(&[
        "generate",
        "-p",
        prompt,
        "--adapter",
        "run",
        "--temperature",
        "0",
    ]);
    assert_eq!(generated.stdout.trim(), answer);
    // Training goes on from an adapter, and done is done.
    place.good(&[
        "train",
        "sft",
        "--data",
        "sft.jsonl",
        "-o",
        "on",
        "--adapter",
        "run",
        "--max-steps",
        "2",
    ]);
    let again = place.good(&[
        "train",
        "sft",
        "--data",
        "sft.jsonl",
        "-o",
        "run",
        "--epochs",
        "6",
        "--batch-size",
        "8",
        "--lr",
        "5e-3",
        "--held-out",
        "5",
    ]);
    assert!(again.stdout.contains("30 of 30 steps"), "{again:?}");
}

#[test]
fn preferences_begin_at_their_constants() {
    let place = Place::new();
    place.write("pairs.jsonl", pairs());
    for (method, constant) in [("dpo", 2f64.ln()), ("nca", 2.0 * 2f64.ln()), ("ipo", 25.0)] {
        let told = place.json(&[
            "train",
            method,
            "--data",
            "pairs.jsonl",
            "-o",
            method,
            "--epochs",
            "3",
            "--batch-size",
            "8",
            "--lr",
            "2e-3",
            "--held-out",
            "4",
            "--samples",
            "0",
            "--json",
        ]);
        let first = &rows(&place, &format!("{method}/metrics.jsonl"))[0];
        assert!(
            (first["loss"].as_f64().unwrap() - constant).abs() < 1e-12,
            "{first}"
        );
        assert_eq!(first["rewards/margins"], 0.0, "{first}");
        assert_eq!(
            told["evaluation"]["eval_rewards/accuracies"], 1.0,
            "{method}: {told}"
        );
    }
}

/// What a run leaves, but for the times in its measurements and what earlier stops left.
fn left(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for name in [
        "adapter_model.safetensors",
        "adapter_config.json",
        "dropped.jsonl",
    ] {
        found.insert(name.to_owned(), std::fs::read(folder.join(name)).unwrap());
    }
    let last = folder.join("checkpoints/step-000024/optimizer.safetensors");
    found.insert("moments".into(), std::fs::read(last).unwrap());
    let metrics = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    let plain = metrics.lines().map(|line| {
        let mut row: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(line).unwrap();
        row.retain(|key, _| !key.ends_with("_s") && key != "peak_memory_bytes");
        serde_json::Value::Object(row).to_string()
    });
    found.insert(
        "metrics".into(),
        plain.collect::<Vec<_>>().join("\n").into_bytes(),
    );
    found
}

fn course(output: &'static str, threads: &'static str) -> Vec<&'static str> {
    vec![
        "train",
        "sft",
        "--data",
        "sft.jsonl",
        "-o",
        output,
        "--epochs",
        "5",
        "--batch-size",
        "8",
        "--lora-dropout",
        "0.1",
        "--checkpoint-steps",
        "2",
        "--samples",
        "0",
        "--threads",
        threads,
        "--max-steps",
        "24",
    ]
}

#[test]
fn killed_and_continued_gives_the_same_bytes_and_so_do_threads() {
    let place = Place::new();
    place.write("sft.jsonl", conversations());
    place.good(&course("straight", "2"));
    let expected = left(&place.path("straight"));
    place.good(&course("single", "1"));
    assert!(
        expected == left(&place.path("single")),
        "one thread and two"
    );
    let newest = || {
        let names = std::fs::read_dir(place.path("killed/checkpoints"));
        let names = names
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().file_name());
        names.max()
    };
    let mut kills: u64 = 0;
    loop {
        let before = newest();
        let mut child = place.command(&course("killed", "2")).spawn().unwrap();
        // At least one more checkpoint, or half of one; then some part of the steps behind it.
        while newest() == before && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(2));
        }
        std::thread::sleep(Duration::from_millis(kills * 13 % 40));
        if child.try_wait().unwrap().is_some() {
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
        assert!(kills < 100, "it never gets to its end");
    }
    place.good(&course("killed", "2"));
    assert!(kills > 0);
    assert!(
        expected == left(&place.path("killed")),
        "after {kills} kills"
    );
}

#[cfg(unix)]
#[test]
fn an_interrupt_stops_with_a_checkpoint() {
    let place = Place::new();
    place.write("sft.jsonl", conversations());
    let args = [
        "train",
        "sft",
        "--data",
        "sft.jsonl",
        "-o",
        "run",
        "--max-steps",
        "100000",
        "--samples",
        "0",
        "--batch-size",
        "8",
    ];
    let child = place.command(&args).spawn().unwrap();
    // Until it has begun: its measurements are there.
    while std::fs::metadata(place.path("run/metrics.jsonl")).map_or(0, |file| file.len()) == 0 {
        std::thread::sleep(Duration::from_millis(20));
    }
    let status = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(status.unwrap().success());
    let finished = Finished::of(child.wait_with_output().unwrap());
    assert_eq!(finished.code, Some(75), "{finished:?}");
    assert!(
        finished.stderr.contains("the same command continues"),
        "{finished:?}"
    );
    let checkpoints = std::fs::read_dir(place.path("run/checkpoints"))
        .unwrap()
        .count();
    assert!(checkpoints >= 1);
    // Nobody else trains in a folder that is in use.
    let measured = || std::fs::metadata(place.path("run/metrics.jsonl")).map(|file| file.len());
    let before = measured().unwrap();
    let mut child = place.command(&args).spawn().unwrap();
    while measured().unwrap() == before {
        assert_eq!(child.try_wait().unwrap(), None, "it does not go on");
        std::thread::sleep(Duration::from_millis(20));
    }
    let second = place.run(&args);
    assert_eq!(second.code, Some(2), "{second:?}");
    assert!(
        second.stderr.contains("another process is at work here"),
        "{second:?}"
    );
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
#[expect(clippy::too_many_lines, reason = "one story, or one table")]
fn bad_input_is_named() {
    let place = Place::new();
    place.write("sft.jsonl", conversations());
    place.write("pairs.jsonl", pairs());
    place.write(
        "same.jsonl",
        "{\"prompt\":\"a\",\"chosen\":\"b\",\"rejected\":\"b\"}\n",
    );
    place.write(
        "user.jsonl",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}]}\n",
    );
    place.write("empty.jsonl", "");
    for (args, code, said) in [
        (vec!["sft", "--data", "none.jsonl"], 5, "none.jsonl"),
        (vec!["sft", "--data", "user.jsonl"], 4, "no row to train on"),
        (
            vec!["sft", "--data", "empty.jsonl"],
            4,
            "no row to train on",
        ),
        (vec!["dpo", "--data", "same.jsonl"], 4, "1 unusable"),
        (vec!["dpo", "--data", "sft.jsonl"], 4, "40 not-a-pair"),
        (
            vec!["sft", "--data", "sft.jsonl", "--preset", "ultra"],
            2,
            "no such preset",
        ),
        (
            vec!["sft", "--data", "sft.jsonl", "--beta", "0.2"],
            2,
            "--beta: not for sft",
        ),
        (
            vec!["sft", "--data", "sft.jsonl", "--lora-targets", "w"],
            2,
            "--lora-targets w",
        ),
        (
            vec!["sft", "--data", "sft.jsonl", "--lora-rank", "0"],
            2,
            "lora rank",
        ),
        (
            vec!["sft", "--data", "sft.jsonl", "--lora-dropout", "1"],
            2,
            "dropout",
        ),
        (
            vec!["sft", "--data", "sft.jsonl", "--lr", "0"],
            2,
            "learning rate",
        ),
        (
            vec!["sft", "--data", "sft.jsonl", "--max-length", "100000"],
            2,
            "--max-length",
        ),
        (
            vec!["sft", "--data", "sft.jsonl", "--max-length", "3"],
            4,
            "40 too-long",
        ),
        (
            vec!["sft", "--data", "sft.jsonl", "--batch-size", "0"],
            2,
            "batch",
        ),
        (
            vec!["sft", "--data", "sft.jsonl", "--full"],
            2,
            "folder of safetensors",
        ),
        (
            vec!["sft", "--data", "sft.jsonl", "--adapter", "nowhere"],
            5,
            "nowhere",
        ),
        (
            vec!["dpo", "--data", "pairs.jsonl", "--reference", "nowhere"],
            5,
            "nowhere",
        ),
        (
            vec!["dpo", "--data", "pairs.jsonl", "--label-smoothing", "0.7"],
            2,
            "--label-smoothing",
        ),
        (
            vec![
                "sft",
                "--data",
                "sft.jsonl",
                "--lr",
                "1e30",
                "--warmup-steps",
                "0",
                "--max-grad-norm",
                "0",
                "--max-steps",
                "9",
            ],
            1,
            "last checkpoint is kept",
        ),
    ] {
        let mut all = vec!["train"];
        all.extend(&args);
        all.extend(["-o", "out", "--samples", "0"]);
        let finished = place.run(&all);
        assert_eq!(finished.code, Some(code), "{args:?}: {finished:?}");
        assert!(finished.stderr.contains(said), "{args:?}: {finished:?}");
        drop(std::fs::remove_dir_all(place.path("out")));
    }
    let finished = place.run(&["train", "merge", "-o", "merged"]);
    assert_eq!(finished.code, Some(2), "{finished:?}");
    // Another base's adapter.
    let adapter = fixture("qwen2/adapter");
    let finished = place.run(&[
        "train",
        "sft",
        "--data",
        "sft.jsonl",
        "-o",
        "out",
        "--adapter",
        &adapter,
    ]);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(
        finished.stderr.contains("adapter_model.safetensors"),
        "{finished:?}"
    );
}

fn fixture(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../train/tests/fixtures");
    folder.join(name).display().to_string()
}

/// A folder of safetensors: an adapter trained and merged, and all of its weights trained.
#[test]
#[expect(clippy::too_many_lines, reason = "one story, or one table")]
fn a_folder_is_trained_and_merged() {
    let place = Place::new();
    place.write("sft.jsonl", conversations());
    let base = fixture("llama/base");
    place.good(&[
        "train",
        "sft",
        "-m",
        &base,
        "--data",
        "sft.jsonl",
        "-o",
        "run",
        "--max-steps",
        "4",
        "--lr",
        "1e-3",
    ]);
    let told = place.json(&[
        "train",
        "merge",
        "-m",
        &base,
        "--adapter",
        "run",
        "-o",
        "merged",
        "--json",
    ]);
    assert_eq!(told["matrices"], 14);
    assert!(
        told["check"]["largest_difference"].as_f64().unwrap() < 1e-4,
        "{told}"
    );
    assert_eq!(told["check"]["same_top"], told["check"]["tokens"]);
    let ask = |args: &[&str]| {
        let mut all = vec![
            "generate",
            "-p",
            "Where is lamp 1?",
            "--temperature",
            "0",
            "-n",
            "1",
            "--max-tokens",
            "8",
        ];
        all.extend(args);
        place.good(&all).stdout
    };
    assert_eq!(
        ask(&["-m", "merged"]),
        ask(&["-m", &base, "--adapter", "run"])
    );
    let finished = place.run(&[
        "train",
        "merge",
        "-m",
        &base,
        "--adapter",
        "run",
        "-o",
        "merged",
    ]);
    assert_ne!(finished.code, Some(0));
    assert!(finished.stderr.contains("is not empty"), "{finished:?}");
    place.good(&[
        "train",
        "sft",
        "-m",
        &base,
        "--data",
        "sft.jsonl",
        "-o",
        "full",
        "--full",
        "--max-steps",
        "4",
        "--lr",
        "1e-3",
    ]);
    place.good(&["generate", "-m", "full", "-p", "x", "--max-tokens", "2"]);
}

/// From random weights to a model that generates.
#[test]
fn a_small_model_from_scratch() {
    let place = Place::new();
    let init = fixture("llama/base");
    let text: String = (0..30)
        .map(|i| format!("{{\"text\":\"the lamp is on shelf {}\"}}\n", i % 3))
        .collect();
    place.write("lm.jsonl", text + &conversations());
    let told = place.json(&[
        "train",
        "lm",
        "--init",
        &init,
        "--from-scratch",
        "--data",
        "lm.jsonl",
        "-o",
        "lm",
        "--max-steps",
        "30",
        "--lr",
        "3e-3",
        "--muon-lr",
        "0.02",
        "--prompt-weight",
        "0.1",
        "--batch-size",
        "16",
        "--held-out",
        "6",
        "--json",
    ]);
    assert_eq!(told["complete"], true);
    let metrics = rows(&place, "lm/metrics.jsonl");
    let loss = |row: &serde_json::Value| row["loss"].as_f64().unwrap();
    let steps: Vec<_> = metrics
        .iter()
        .filter(|row| row.get("loss").is_some())
        .collect();
    assert!(loss(steps[0]) > 5.5, "begins near ln 384: {}", steps[0]);
    assert!(loss(steps[29]) < 3.0, "{}", steps[29]);
    place.good(&[
        "generate",
        "-m",
        "lm",
        "-p",
        "Where is lamp 1?",
        "--max-tokens",
        "4",
    ]);
}

#[test]
fn what_carries_loss_is_shown() {
    let place = Place::new();
    place.write("sft.jsonl", conversations());
    place.write("pairs.jsonl", pairs());
    let shown = place
        .good(&["data", "show", "sft.jsonl", "--mask", "-n", "1"])
        .stdout;
    assert!(shown.contains("[[Lamp 0 is on shelf 0."), "{shown}");
    assert!(
        !shown.split("[[").next().unwrap().contains("Lamp 0 is"),
        "{shown}"
    );
    let shown = place.json(&[
        "data",
        "show",
        "pairs.jsonl",
        "--mask",
        "--row",
        "pair-1",
        "--json",
    ]);
    let sequences = shown["rows"][0]["sequences"].as_array().unwrap();
    assert_eq!(sequences.len(), 2);
    for one in sequences {
        let parts = one["parts"].as_array().unwrap();
        let trained: Vec<_> = parts
            .iter()
            .filter(|part| part["trained"] == true)
            .collect();
        assert_eq!(trained.len(), 1, "{one}");
    }
    let finished = place.run(&["data", "show", "sft.jsonl", "--mask", "-n", "50"]);
    assert_eq!(finished.code, Some(3), "{finished:?}");
}
