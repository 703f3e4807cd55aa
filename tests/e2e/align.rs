//! `align`: every part once, killed in each of them, and what is refused.
//!
//! The tiny model writes no JSON that ends by itself. Copies of the prompts push it there,
//! as in `data.rs`; a composed instruction that fails stays as it was; and a low threshold takes
//! what it says for YES here and NO there. So all parts have rows, which mean nothing.

use crate::harness::{Finished, Place};
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};

/// Tokens of the tiny model: `"`, `",`, `{`, `t`.
const BIASES: &str =
    "temperature = 1.0\n[sampling.logit_bias]\n4 = 7.0\n427 = 7.0\n93 = 4.0\n86 = 2.0";

const LOOP: [&str; 25] = [
    "align",
    "--prompts",
    "mine",
    "--seeds",
    "seeds.jsonl",
    "--held-out",
    "held-out.jsonl",
    "--rounds",
    "2",
    "--set",
    "align.rows=0",
    "--set",
    "align.held_out.max_tokens=24",
    "--set",
    "ultraif.evaluator=logits",
    "--set",
    "ultraif.least_mass=0.0",
    "--set",
    "ultraif.threshold=0.00001",
    "--set",
    "ultraif.compose_rounds=as_published",
    "--set",
    "ultraif.composer_tokens=48",
    "--set",
    "align.sft.batch_tokens=256",
];

/// A place with seeds, instructions to measure by, and prompts that the model can follow.
fn place() -> Place {
    let place = Place::new();
    let seeds: String = (0..10)
        .map(|row| format!("{{\"prompt\": \"Where is the lamp of house {row}? Be brief.\"}}\n"))
        .collect();
    place.write("seeds.jsonl", seeds);
    let held_out: String = (0..4)
        .map(|row| {
            format!("{{\"key\": \"h{row}\", \"prompt\": \"Where is lamp {row}?\", \"topic\": \"lamp\", \"instruction_id_list\": [\"punctuation:no_comma\"], \"kwargs\": [{{}}], \"text\": \"The lamp is in the hall.\"}}\n")
        })
        .collect();
    place.write("held-out.jsonl", held_out);
    place.good(&["prompts", "cp", "mine"]);
    for prompt in ["decompose", "question"] {
        let name = format!("mine/ultraif/{prompt}.md");
        let text = place.read(&name);
        assert!(text.contains("temperature = 0.0"), "{text}");
        place.write(&name, text.replace("temperature = 0.0", BIASES));
    }
    let name = "mine/ultraif/respond.md";
    let text = place
        .read(name)
        .replace("max_tokens = 1280", "max_tokens = 48");
    place.write(name, text);
    place
}

fn command<'a>(folder: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&LOOP[..], &["-o", folder], more].concat()
}

/// What a loop leaves that has to be the same: the adapter, and what is written of each part.
fn left(place: &Place, folder: &str) -> (Vec<u8>, Value) {
    let adapter = place.path(&format!("{folder}/adapter/adapter_model.safetensors"));
    let mut state: Value =
        serde_json::from_str(&place.read(&format!("{folder}/align.json"))).unwrap();
    for (_, done) in state["done"].as_object_mut().unwrap() {
        done.as_object_mut().unwrap().remove("seconds");
        // A part that had nothing left to do does not know its last step.
        if let Some(training) = done["facts"]["training"].as_object_mut() {
            training.remove("last");
        }
    }
    (std::fs::read(adapter).unwrap(), state)
}

/// Starts the loop and kills it as soon as `file` is there; whether it got so far.
fn killed_at(place: &Place, folder: &str, file: &str) -> bool {
    killed_at_with(place, &command(folder, &[]), &format!("{folder}/{file}"))
}

fn killed_at_with(place: &Place, command: &[&str], file: &str) -> bool {
    let mut child = place.command(command).spawn().unwrap();
    let began = Instant::now();
    let path = place.path(file);
    let found = loop {
        if path.exists() {
            break true;
        }
        if child.try_wait().unwrap().is_some() || began.elapsed() > Duration::from_secs(900) {
            break false;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    child.kill().unwrap();
    child.wait().unwrap();
    found
}

#[test]
fn killed_in_every_part_it_gives_the_same_adapter() {
    let place = place();
    let told = place.json(&command("whole", &["--json"]));
    let stages: Vec<&str> = told["models"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["stage"].as_str().unwrap())
        .collect();
    assert_eq!(stages, ["base", "sft", "round 1", "round 2"]);
    let methods: Vec<&Value> = (1..4)
        .map(|row| &told["models"][row]["training"]["method"])
        .collect();
    assert_eq!(methods, ["sft", "dpo", "nca"]);
    let base = &told["models"][0]["figures"];
    let counted = ["prompts", "samples"].map(|name| base[name].as_u64());
    assert_eq!(counted, [Some(4), Some(4)]);
    assert!(base["perplexity"].as_f64().unwrap() > 1.0, "{base}");
    assert!(base["on_topic"].is_number() && told["models"][0]["gain"].is_null());
    assert!(told["models"][3]["gain"]["sampled"]["rate"].is_number());

    for file in [
        "0-base/evaluation/calls.sqlite",
        "1-decompose/calls.sqlite",
        "2-composer/metrics.jsonl",
        "3-synth/data/sft.jsonl",
        "4-sft/adapter/metrics.jsonl",
        "5-round-1/adapter/reference.json",
    ] {
        assert!(killed_at(&place, "killed", file), "{file}");
    }
    let finished = place.good(&command("killed", &["--threads", "1"]));
    assert!(finished.stdout.contains("T=1 %"), "{finished:?}");
    assert_eq!(left(&place, "killed"), left(&place, "whole"));

    // Done is done, and says the same again.
    let again = place.json(&command("whole", &["--json"]));
    assert_eq!(again["models"], told["models"]);
    let finished = place.run(&command("whole", &["--set", "align.sft.lr=0.5"]));
    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert!(
        finished.stderr.contains("align.sft.lr (was"),
        "{finished:?}"
    );
    place.good(&[
        "generate",
        "-p",
        "Where is the lamp?",
        "--adapter",
        "whole/adapter",
    ]);
}

#[test]
fn controls_train_as_long_as_the_loop() {
    let place = place();
    let more = [
        "--rounds",
        "0",
        "--skip-composer",
        "--control",
        "unfiltered",
        "--json",
    ];
    // All but the number of rounds.
    let told = place.json(&[&LOOP[..7], &LOOP[9..], &["-o", "run"], &more].concat());
    let rows = told["models"].as_array().unwrap();
    let arms: Vec<&str> = rows
        .iter()
        .map(|row| row["arm"].as_str().unwrap())
        .collect();
    assert_eq!(arms, ["align", "align", "unfiltered"]);
    assert_eq!(rows[1]["training"]["steps"], rows[2]["training"]["steps"]);
    let trained = |row: &Value| row["training"]["rows"].as_u64().unwrap();
    assert!(trained(&rows[2]) <= trained(&rows[1]), "{told}");
    assert!(Path::new(&place.path("run/control-unfiltered/4-sft/adapter")).is_dir());
    assert!(!place.path("run/2-composer").exists());
}

/// The model inside the program, some seeds, some instructions to measure by.
fn contrast<'a>(folder: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let base = [
        "align",
        "-m",
        "embedded",
        "--recipe",
        "complex-to-simple",
        "--set",
        "align.rows=24",
        "--set",
        "align.held_out.prompts=8",
        "--set",
        "align.dpo.epochs=1",
        "-o",
        folder,
    ];
    [&base[..], more].concat()
}

#[test]
fn contrast_learns_from_what_rules_and_corrections_make() {
    let place = Place::new();
    assert!(killed_at_with(
        &place,
        &contrast("killed", &[]),
        "killed/1-round-1/synth/calls.sqlite"
    ));
    place.good(&contrast("killed", &[]));
    let told = place.json(&contrast("whole", &["--json"]));
    assert_eq!(left(&place, "killed"), left(&place, "whole"));
    let rows = told["models"].as_array().unwrap();
    assert_eq!(rows.len(), 2, "{told}");
    assert_eq!(rows[1]["training"]["method"], "dpo");
    assert!(rows[1]["training"]["rows"].as_u64().unwrap() > 0, "{told}");
    // What it learnt from was right in every rule, and what it learnt to avoid was not.
    let verified = place.good(&["verify", "whole/1-round-1/synth/data/dpo.jsonl"]);
    let told = format!("{}{}", verified.stdout, verified.stderr);
    assert!(
        told.contains("chosen: strict 100.00 % of prompts"),
        "{told}"
    );
    assert!(
        told.contains("rejected: strict 0.00 % of prompts"),
        "{told}"
    );
    place.good(&["data", "check", "whole/1-round-1/synth/data"]);
}

#[test]
fn what_cannot_begin_is_told_before_anything_is_made() {
    let place = place();
    let check = |args: &[&str], code: i32, named: &str| {
        let finished: Finished = place.run(args);
        assert_eq!(finished.code, Some(code), "{args:?}: {finished:?}");
        assert!(finished.stderr.contains(named), "{args:?}: {finished:?}");
        assert!(!place.path("runs").exists(), "{args:?}");
    };
    check(
        &["align", "--held-out", "nowhere.jsonl"],
        5,
        "nowhere.jsonl",
    );
    check(&["align", "--seeds", "nowhere.jsonl"], 5, "nowhere.jsonl");
    check(&["align", "--adapter", "mine"], 2, "--adapter");
    check(&["align", "--set", "align.sft.rl=1"], 2, "align.sft.lr");
    check(
        &["align", "--set", "ultraif.samples=0"],
        2,
        "ultraif.samples",
    );
    check(&["align", "--rounds", "99"], 2, "align.rounds");
    let contrast = ["align", "--recipe", "complex-to-simple"];
    let check_contrast = |more: &[&str], named: &str| {
        check(&[&contrast[..], more].concat(), 2, named);
    };
    check_contrast(&["--control", "rules"], "--control");
    check_contrast(
        &["--set", "complex-to-simple.tries=0"],
        "complex-to-simple.tries",
    );
    place.write(
        "bad.jsonl",
        "{\"prompt\": \"x\", \"instruction_id_list\": [\"no:such\"], \"kwargs\": [{}]}\n",
    );
    check(&["align", "--held-out", "bad.jsonl"], 4, "bad.jsonl:1");
    place.write("few.jsonl", "{\"prompt\": \"x\"}\n");
    check(&["align", "--seeds", "few.jsonl"], 2, "--held-out FILE");
    let plan = place.good(&["align", "--dry-run", "--control", "rules,unfiltered"]);
    assert!(
        plan.stdout.contains("control-rules/6-round-2/adapter"),
        "{plan:?}"
    );
    assert!(!place.path("runs").exists());
}
