//! Pools: what is told, what is taken, and where they end.

use crate::world::{
    End, after, all_text, few, meta_of, model, run_fresh, stage_of, usual, usual_scores,
};
use data::Generate;
use pipeline::DriveOptions;
use pipeline::testing::Scripted;
use serde_json::json;
use std::collections::BTreeSet;
use synth::decif::Settings;

fn run(settings: &Settings, own: fn(&Generate, &str) -> Option<String>) -> End {
    run_with(settings, own, &DriveOptions::default())
}

fn run_with(
    settings: &Settings,
    own: fn(&Generate, &str) -> Option<String>,
    options: &DriveOptions,
) -> End {
    let model = Scripted::new(move |request| {
        let own = own(request, stage_of(request));
        Ok(own.unwrap_or_else(|| usual(request)))
    });
    run_fresh(settings, model.with_suffix_scores(usual_scores), options)
}

fn sizes(end: &End) -> Vec<(&'static str, usize)> {
    let diversity = end.pools.as_ref().unwrap().diversity();
    diversity
        .iter()
        .map(|(name, one)| (*name, one.texts))
        .collect()
}

fn told(request: &Generate) -> Vec<&str> {
    let known = after(request, "any of these:\n");
    known
        .lines()
        .map(|line| line.trim_start_matches("- "))
        .collect()
}

#[test]
fn targets_by_count_are_met() {
    let end = run(&few(), |_, _| None);
    let kinds = few().kinds.len();
    let expected = [
        ("constraints", 2 * kinds),
        ("domains", 4),
        ("requests", 12),
        ("scenarios", 24),
    ];
    assert_eq!(sizes(&end), expected);
    assert_eq!((end.funnel.read, end.funnel.accepted), (24, 24));
    // 2 domains a call; 2 of 3 requests, then 1; 2 scenarios; 2 constraints of each kind.
    let calls =
        ["domains", "requests", "scenarios", "constraints"].map(|stage| end.asked_at(stage).len());
    assert_eq!(calls, [2, 8, 12, kinds]);
    let pools = end.pools.unwrap().diversity();
    assert_eq!(pools["domains"].growth, [2, 4]);
    assert_eq!(pools["requests"].growth.last(), Some(&12));
    assert!(pools["scenarios"].distinct[2] > pools["scenarios"].distinct[0]);
}

#[test]
fn later_calls_are_told_what_exists() {
    let settings = Settings {
        domains: 20,
        requests_per_domain: 4,
        ..few()
    };
    let end = run(&settings, |_, _| None);
    let calls = end.asked_at("domains");
    // Four calls of one round know nothing of each other, and all of the rounds before.
    assert_eq!(told(calls[0]), Vec::<&str>::new());
    assert_eq!(
        (
            told(calls[3]).len(),
            told(calls[4]).len(),
            told(calls[8]).len()
        ),
        (0, 8, 16)
    );
    let requests = end.asked_at("requests");
    let of_domain = |request: &Generate| {
        after(request, "Domain: ")
            .lines()
            .next()
            .unwrap()
            .to_owned()
    };
    let mut second = 0;
    for request in &requests {
        let known = told(request);
        assert!(known.is_empty() || known.len() == 2, "{known:?}");
        second += usize::from(!known.is_empty());
        assert!(!of_domain(request).is_empty());
    }
    assert_eq!((requests.len(), second), (40, 20));
    // At most so many are told.
    let few_shown = Settings {
        shown: 3,
        ..settings
    };
    let end = run(&few_shown, |_, _| None);
    assert!(
        end.asked_at("domains")
            .iter()
            .all(|call| told(call).len() <= 3)
    );
}

#[test]
fn what_is_there_is_not_taken_again() {
    // Every call gives the same two names, in other letters, and one that is like another.
    let same = |request: &Generate, stage: &str| {
        let odd = request.seed.is_multiple_of(2);
        (stage == "domains").then(|| {
            json!({"domains": [if odd { "Tea houses" } else { "TEA  houses." }, "Rum"]}).to_string()
        })
    };
    let end = run(&few(), same);
    assert_eq!(sizes(&end)[1], ("domains", 2));
    // 2 calls would do, and 2 more are made before the list is left as it is.
    assert_eq!(end.asked_at("domains").len(), 4);
    let growth = &end.pools.as_ref().unwrap().diversity()["domains"].growth;
    assert_eq!(growth.last(), Some(&2));
    let near = |request: &Generate, stage: &str| {
        let last = ["now", "today", "soon"][(request.seed % 3) as usize];
        (stage == "scenarios").then(|| {
            json!({"scenarios": [{
                "persona": "an old and tired sailor from the north", "time": "late in the evening",
                "place": "in a small house behind the church of the town", "trigger": last,
            }]})
            .to_string()
        })
    };
    let end = run(&few(), near);
    assert_eq!(sizes(&end)[3], ("scenarios", 12), "one for each request");
}

#[test]
fn entries_that_cannot_be_used_are_counted_by_name() {
    let check = |stage: &'static str, said: &'static str, expected: (&str, usize)| {
        let model = Scripted::new(move |request| {
            Ok(match stage_of(request) == stage {
                true => said.to_owned(),
                false => usual(request),
            })
        });
        let end = run_fresh(&few(), model, &DriveOptions::default());
        let found = sizes(&end)
            .into_iter()
            .find(|(name, _)| *name == expected.0);
        assert_eq!(
            found.map_or(0, |(_, size)| size),
            expected.1,
            "{stage} {said}"
        );
        if expected.1 == 0 && stage != "constraints" {
            assert_eq!(end.funnel.read, 0, "{stage} {said}");
        }
    };
    check("domains", "no", ("domains", 0));
    check("domains", "{\"domains\": [\"Tea…", ("domains", 0));
    check(
        "domains",
        r#"{"domains": ["one two three four five", " "]}"#,
        ("domains", 0),
    );
    check(
        "domains",
        r#"{"domains": ["one two three four five", "Tea"]}"#,
        ("domains", 1),
    );
    check("requests", r#"{"requests": [7]}"#, ("requests", 0));
    check(
        "scenarios",
        r#"{"scenarios": [{"persona": "a cook", "time": "at noon"}]}"#,
        ("scenarios", 0),
    );
    // Instructions can do without soft constraints, and have rules instead.
    check(
        "constraints",
        r#"{"constraints": [{"constraint": "Use no commas.", "question": "Are there none?"}]}"#,
        ("constraints", 0),
    );
    check(
        "constraints",
        r#"{"constraints": [{"constraint": "Be kind.", "question": "It is kind."}]}"#,
        ("constraints", 0),
    );
    check(
        "constraints",
        r#"{"constraints": [{"constraint": "Be kind.", "question": "Is it kind?"}]}"#,
        ("constraints", 1),
    );
}

#[test]
fn personas_are_an_option() {
    let settings = Settings {
        personas_per_scenario: 2,
        ..few()
    };
    let end = run(&settings, |_, _| None);
    assert_eq!(sizes(&end)[2], ("personas", 48));
    assert_eq!(end.funnel.read, 48);
    let people: BTreeSet<String> = end
        .asked_at("instruction")
        .iter()
        .map(|one| after(one, "Person: ").lines().next().unwrap().to_owned())
        .collect();
    assert!(people.len() > 40, "{people:?}");
    let row = &end.rows("sft.jsonl")[0];
    assert_ne!(meta_of(row)["persona"], meta_of(row)["scenario"]["persona"]);
    assert!(run(&few(), |_, _| None).asked_at("personas").is_empty());
}

#[test]
fn a_target_of_accepted_rows_takes_as_many_epochs_as_it_needs() {
    let to_accept = |accept| DriveOptions {
        accept: Some(accept),
        ..DriveOptions::default()
    };
    let few_rows = run_with(&few(), |_, _| None, &to_accept(10));
    assert_eq!((few_rows.funnel.accepted, sizes(&few_rows)[1].1), (10, 4));
    let many = run_with(&few(), |_, _| None, &to_accept(60));
    assert_eq!((many.funnel.accepted, sizes(&many)[1].1), (60, 12));
    // The target decides where the rows end, not what they are.
    let one = few_rows.files["sft.jsonl"].as_str();
    assert!(many.files["sft.jsonl"].starts_with(one));
    // Items of later epochs know the constraints of theirs.
    assert_eq!(sizes(&many)[0].1, 3 * 2 * few().kinds.len());
}

#[test]
fn domains_are_gone_back_to_once_no_new_ones_are_named() {
    let fixed = |_: &Generate, stage: &str| {
        (stage == "domains").then(|| json!({"domains": ["Tea", "Rum"]}).to_string())
    };
    let options = DriveOptions {
        accept: Some(40),
        ..DriveOptions::default()
    };
    let end = run_with(&few(), fixed, &options);
    assert_eq!(end.funnel.accepted, 40);
    assert_eq!(sizes(&end)[1], ("domains", 2));
    assert!(sizes(&end)[2].1 > 12, "{:?}", sizes(&end));
    // What does not grow any more ends.
    let stale = |_: &Generate, stage: &str| match stage {
        "domains" => Some(json!({"domains": ["Tea", "Rum"]}).to_string()),
        "requests" => Some(json!({"requests": ["write it", "read it"]}).to_string()),
        _ => None,
    };
    let end = run_with(&few(), stale, &options);
    assert!(end.funnel.accepted < 40 && end.funnel.accepted > 0);
    assert_eq!(sizes(&end)[2], ("requests", 2));
}

#[test]
fn the_first_items_are_of_many_domains() {
    let settings = Settings {
        domains: 8,
        requests_per_domain: 6,
        ..few()
    };
    let options = DriveOptions {
        accept: Some(16),
        ..DriveOptions::default()
    };
    let end = run_fresh(&settings, model(), &options);
    let domains: BTreeSet<String> = end
        .rows("sft.jsonl")
        .iter()
        .map(|row| meta_of(row)["domain"].to_string())
        .collect();
    assert!(domains.len() >= 5, "{domains:?}");
}

#[test]
fn domains_to_begin_with_are_told_and_not_repeated() {
    let settings = Settings {
        seed_domains: vec!["Tea".into(), "tea".into(), "Rum".into()],
        ..few()
    };
    let end = run(&settings, |_, _| None);
    assert_eq!(sizes(&end)[1], ("domains", 6));
    let first = end.asked_at("domains")[0];
    assert_eq!(told(first), ["Tea", "Rum"], "{}", all_text(first));
}
