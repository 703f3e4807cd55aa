//! `synth` and `run` on the tiny model, which writes text but no JSON that ends: what is
//! shown here is that every row has its outcome, that nothing is lost and nothing repeated.

use crate::harness::Place;
use serde_json::Value;
use std::time::Duration;

const SEEDS: &str = r#"{"id": "a", "prompt": "Where is the lamp?"}
{"prompt": "Where is the clock?"}
not json
{"prompt": "Where is the sea?"}
{"id": "a", "prompt": "Where is the lamp again?"}
{"prompt": ""}
"#;

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Answers, unjudged: the part of the recipe that a toy model can play.
fn respond<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let base = [
        "synth",
        "ultraif",
        "--stages",
        "respond",
        "--seeds",
        "seeds.jsonl",
        "-o",
        "run",
    ];
    [&base[..], more].concat()
}

#[test]
fn every_row_has_one_outcome() {
    let place = Place::new();
    place.write("seeds.jsonl", SEEDS);
    let facts = place.json(&respond(&["--json"]));
    let funnel = &facts["funnel"];
    assert_eq!(funnel["read"], 6);
    assert_eq!(funnel["accepted"], 3);
    assert_eq!(funnel["rejected"]["read"]["duplicate_id"], 1);
    let responses = lines(&place.read("run/data/responses.jsonl"));
    assert_eq!(responses.len(), 3);
    assert_eq!(responses[0]["responses"].as_array().unwrap().len(), 5);
    let rejected = lines(&place.read("run/data/rejected.jsonl"));
    assert_eq!(rejected.len(), 3);
    assert!(place.read("run/run.toml").contains("ultraif"));
    let status = place.json(&["run", "status", "run", "--json"]);
    assert_eq!(status["stages"]["respond"]["calls"], 15);
    let again = place.json(&respond(&["--json"]));
    assert_eq!(again["funnel"], *funnel);
    assert_eq!(
        again["stages"],
        serde_json::json!({}),
        "no call was made or looked up"
    );
    let explained = place.good(&["run", "explain", "run"]).stdout;
    assert!(
        explained.contains("invocation 2: nothing changed"),
        "{explained}"
    );
}

#[test]
fn the_whole_recipe_accounts_for_the_built_in_seeds() {
    let place = Place::new();
    let args = ["synth", "ultraif", "--max-rows", "3", "-o", "run"];
    let finished = place.good(&args);
    assert!(
        finished
            .stdout
            .contains("rejected at decompose: truncated  3"),
        "{finished:?}"
    );
    let args = [
        "synth",
        "ultraif",
        "--max-rows",
        "3",
        "--accept",
        "1",
        "-o",
        "run",
    ];
    let finished = place.run(&args);
    assert_eq!(
        finished.code,
        Some(3),
        "short of what was asked: {finished:?}"
    );
}

#[test]
fn killed_and_continued_gives_the_same_files() {
    let place = Place::new();
    let seeds: String = (0..40)
        .map(|row| format!("{{\"prompt\": \"Where is the lamp of house {row}?\"}}\n"))
        .collect();
    place.write("seeds.jsonl", seeds);
    place.good(&respond(&["--concurrency", "3"]));
    let expected = place.read("run/data/responses.jsonl");
    std::fs::rename(place.path("run"), place.path("undisturbed")).unwrap();
    for wait in [50, 120, 250] {
        let mut child = place
            .command(&respond(&["--concurrency", "3"]))
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(wait));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    place.good(&respond(&["--concurrency", "16", "--threads", "1"]));
    assert_eq!(place.read("run/data/responses.jsonl"), expected);
}

#[test]
fn shards_merged_are_the_whole() {
    let place = Place::new();
    place.write("seeds.jsonl", SEEDS);
    place.good(&respond(&[]));
    let mut parts = Vec::new();
    for part in ["1/2", "2/2"] {
        let folder = format!("part{}", &part[..1]);
        let mut args = respond(&["--shard", part]);
        let at = args.iter().position(|arg| *arg == "run").unwrap();
        args[at] = folder.as_str();
        place.good(&args);
        parts.push(folder);
    }
    place.good(&["run", "merge", &parts[0], &parts[1], "-o", "merged"]);
    for file in ["responses.jsonl", "rejected.jsonl"] {
        assert_eq!(
            place.read(&format!("merged/data/{file}")),
            place.read(&format!("run/data/{file}"))
        );
    }
    let finished = place.run(&["run", "merge", &parts[0], "-o", "half"]);
    assert_eq!(finished.code, Some(2));
    assert!(finished.stderr.contains("missing: 2/2"), "{finished:?}");
}

#[test]
fn what_changed_is_refused_or_told() {
    let place = Place::new();
    place.write("seeds.jsonl", SEEDS);
    place.good(&respond(&[]));
    let finished = place.run(&respond(&["--seed", "5"]));
    assert_eq!(finished.code, Some(2));
    assert!(finished.stderr.contains("seed 0 (now 5)"), "{finished:?}");
    place.good(&["prompts", "cp", "mine"]);
    let prompt = place
        .read("mine/ultraif/respond.md")
        .replace("expert", "poet");
    place.write("mine/ultraif/respond.md", prompt);
    let finished = place.good(&respond(&["--prompts", "mine"]));
    assert!(
        finished
            .stderr
            .contains("prompt ultraif/respond was edited"),
        "{finished:?}"
    );
}

#[test]
fn wrong_settings_are_told_before_anything_is_loaded() {
    let place = Place::new();
    place.write("seeds.jsonl", SEEDS);
    let check = |more: &[&str], code: i32, named: &str| {
        let finished = place.run(&respond(more));
        assert_eq!(finished.code, Some(code), "{more:?}: {finished:?}");
        assert!(finished.stderr.contains(named), "{more:?}: {finished:?}");
    };
    check(
        &["--set", "ultraif.smaples=3"],
        2,
        "did you mean `ultraif.samples`?",
    );
    check(&["--set", "ultraif.samples=0"], 2, "ultraif.samples = 0");
    check(
        &["--set", "ultraif.samples=many"],
        2,
        "--set: ultraif.samples",
    );
    check(&["--evaluator", "guess"], 2, "ultraif.evaluator");
    check(&["--role", "jugde=x"], 2, "judge");
    check(&["--shard", "3/2"], 2, "I from 1 to N");
    check(&["--concurrency", "0"], 2, "--concurrency 0");
    check(&["--preset", "mine"], 2, "as-published");
    check(&["--prompts", "nowhere"], 2, "nowhere");
    check(&["--seeds", "nowhere.jsonl"], 5, "nowhere.jsonl");
    place.write("blank.jsonl", "\n\n");
    let finished = place.run(&["synth", "ultraif", "--seeds", "blank.jsonl"]);
    assert_eq!(finished.code, Some(4), "{finished:?}");
    assert!(!place.path("run/calls.sqlite").exists());
    let finished = place.run(&["run", "status", "nowhere"]);
    assert_eq!(finished.code, Some(5), "{finished:?}");
}

/// Every seed with one constraint that the toy model meets as often as not.
fn complex_to_simple<'a>(folder: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let base = [
        "synth",
        "complex-to-simple",
        "--atom",
        "--set",
        r#"complex-to-simple.kinds=["punctuation:no_comma", "length_constraints:number_words"]"#,
        "--set",
        "complex-to-simple.near_duplicates=0.0",
        "--seeds",
        "seeds.jsonl",
        "-o",
        folder,
    ];
    [&base[..], more].concat()
}

#[test]
fn corrected_answers_are_checked_counted_and_merged() {
    let place = Place::new();
    let seeds: String = (0..12)
        .map(|row| format!("{{\"id\": \"s{row}\", \"prompt\": \"Where is lamp {row}?\"}}\n"))
        .collect();
    place.write("seeds.jsonl", seeds);
    let facts = place.json(&complex_to_simple("run", &["--json"]));
    let funnel = &facts["funnel"];
    assert_eq!(
        (&funnel["read"], &funnel["unfinished"]),
        (&12.into(), &0.into())
    );
    let answers = lines(&place.read("run/data/sft.jsonl"));
    assert_eq!(funnel["accepted"], answers.len());
    assert_eq!(
        place.json(&["data", "check", "run", "--json"])["problems"],
        0
    );
    // What was accepted satisfies its constraints, and what was rejected in a pair does not.
    for line in lines(&place.good(&["verify", "run/data/sft.jsonl"]).stdout) {
        assert_eq!(line["strict"], serde_json::json!([true]), "{line}");
    }
    for line in lines(&place.good(&["verify", "run/data/dpo.jsonl"]).stdout) {
        let chosen = line["of"] == "chosen";
        assert_eq!(line["strict"], serde_json::json!([chosen]), "{line}");
    }
    let status = place.json(&["run", "status", "run", "--json"]);
    assert_eq!(status["phases"]["complex-to-simple"]["read"], 12);
    for (part, folder) in [("1/2", "one"), ("2/2", "two")] {
        place.good(&complex_to_simple(folder, &["--shard", part]));
    }
    place.good(&["run", "merge", "one", "two", "-o", "merged"]);
    for file in ["sft.jsonl", "dpo.jsonl", "rejected.jsonl"] {
        let [merged, whole] =
            ["merged", "run"].map(|run| place.read(&format!("{run}/data/{file}")));
        assert_eq!(merged, whole, "{file}");
    }
    // Settings have names, also those of a flag.
    for (more, named) in [
        (
            ["--set", "complex-to-simple.tires=2"],
            "complex-to-simple.tries",
        ),
        (
            ["--set", "complex-to-simple.tries=0"],
            "complex-to-simple.tries = 0",
        ),
        (
            ["--variant", "generous"],
            "--variant: complex-to-simple.variant",
        ),
        (["--role", "judge=x"], "respond, correct, keywords, rewrite"),
    ] {
        let finished = place.run(&complex_to_simple("run", &more));
        assert_eq!(finished.code, Some(2), "{finished:?}");
        assert!(finished.stderr.contains(named), "{finished:?}");
    }
}

#[test]
fn corrections_killed_and_continued_give_the_same_files() {
    let place = Place::new();
    let seeds: String = (0..16)
        .map(|row| format!("{{\"prompt\": \"Where is the lamp of house {row}?\"}}\n"))
        .collect();
    place.write("seeds.jsonl", seeds);
    place.good(&complex_to_simple("whole", &["--concurrency", "1"]));
    for wait in [100, 400, 900] {
        let args = complex_to_simple("broken", &["--concurrency", "3"]);
        let mut child = place.command(&args).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(wait));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let args = complex_to_simple("broken", &["--concurrency", "16", "--threads", "1"]);
    place.good(&args);
    for file in ["sft.jsonl", "dpo.jsonl", "rejected.jsonl", "README.md"] {
        let [broken, whole] =
            ["broken", "whole"].map(|run| place.read(&format!("{run}/data/{file}")));
        assert_eq!(broken, whole, "{file}");
    }
}

/// Begins with nothing: what a toy model names is not worth much, but it is the same again, in
/// another order and after being killed.
#[test]
fn decif_needs_no_seeds_and_is_the_same_run_again() {
    let place = Place::new();
    let args = |folder: &'static str, concurrency: &'static str| {
        [
            "synth",
            "decif",
            "--preset",
            "small",
            "--domains",
            "2",
            "--requests-per-domain",
            "2",
            "--scenarios-per-request",
            "1",
            "--concurrency",
            concurrency,
            "-o",
            folder,
        ]
    };
    place.good(&args("one", "1"));
    for wait in [100, 300] {
        let mut child = place.command(&args("other", "7")).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(wait));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    place.good(&args("other", "7"));
    for file in ["sft.jsonl", "dpo.jsonl", "rejected.jsonl"] {
        let [one, other] = ["one", "other"].map(|run| place.read(&format!("{run}/data/{file}")));
        assert_eq!(one, other, "{file}");
    }
    let diversity: Value = serde_json::from_str(&place.read("one/diversity.json")).unwrap();
    assert!(diversity.get("instructions").is_some(), "{diversity}");
    let card = place.read("one/data/README.md");
    assert!(card.contains("Seeds: none"), "{card}");
    assert!(card.contains("## How varied they are"), "{card}");
    let status = place.json(&["run", "status", "one", "--json"]);
    assert!(
        status["stages"]["domains"]["calls"].as_u64() > Some(0),
        "{status}"
    );
    let bad = place.run(&["synth", "decif", "--domains", "0"]);
    assert_eq!(bad.code, Some(2));
    assert!(bad.stderr.contains("decif.domains = 0"), "{bad:?}");
    let bad = place.run(&["synth", "decif", "--preset", "large"]);
    assert_eq!(bad.code, Some(2), "{bad:?}");
}
