//! A model that writes contradictions into three instructions of ten: how many are caught, and
//! what of them is left in the data.

use crate::world::{after, all_text, hash, meta_of, run_fresh, stage_of, usual, usual_scores};
use data::Generate;
use pipeline::DriveOptions;
use pipeline::testing::Scripted;
use serde_json::{Value, json};
use synth::decif::Settings;
use verify::compose::{Kind, conflict, describe};
use verify::{Constraint, Keyword, Relation};

const SHARE: u64 = 30;

fn words(relation: Relation, count: usize) -> Constraint {
    Constraint::NumberWords { relation, count }
}

/// What contradicts itself: two rules in any of the describer's wordings, or two moods.
fn contradiction(draw: u64) -> [String; 2] {
    let say = |rule: &Constraint, turn: u64| describe(rule, draw / turn);
    let keyword = Keyword::anywhere("lantern").unwrap();
    let forbidden = Keyword::whole_word("lantern").unwrap();
    let [one, other] = match draw % 6 {
        0 => [words(Relation::AtLeast, 300), words(Relation::LessThan, 40)],
        1 => [Constraint::EnglishCapital, Constraint::EnglishLowercase],
        2 => [
            Constraint::Existence {
                keywords: vec![keyword],
            },
            Constraint::ForbiddenWords {
                words: vec![forbidden],
            },
        ],
        _ => {
            return ["The mood has to be cheerful.", "The mood has to be gloomy."]
                .map(str::to_owned);
        }
    };
    [say(&one, 7), say(&other, 11)]
}

fn text_of(reply: &str) -> String {
    let value: Value = serde_json::from_str(reply).unwrap();
    value["instruction"].as_str().unwrap().to_owned()
}

/// Whether the model writes a contradiction into the answer to this request.
fn contradicts(request: &Generate) -> bool {
    hash(&format!("clash {} {}", all_text(request), request.seed)) % 100 < SHARE
}

/// As usual, but for contradictions; the judge of contradictions sees moods that exclude each
/// other, 97 times of 100, and nothing else. Every fourth repair does not help.
fn answer(request: &Generate) -> String {
    let draw = hash(&format!("{}{}", all_text(request), request.seed));
    match stage_of(request) {
        "instruction" if contradicts(request) => {
            let [one, other] = contradiction(draw);
            let text = text_of(&usual(request));
            json!({"instruction": format!("{text} {one} {other}")}).to_string()
        }
        "conflict" => {
            let text = after(request, "Request:\n");
            let both = text.contains("be cheerful") && text.contains("be gloomy");
            let seen = both && draw % 100 < 97;
            json!({
                "explanation": if seen { "cheerful is not gloomy" } else { "fine" },
                "conflict": if seen { "YES" } else { "NO" },
            })
            .to_string()
        }
        "resolve" if !draw.is_multiple_of(4) => {
            let (text, problem) = after(request, "Request:\n")
                .split_once("\n\nWhat is wrong with it:\n")
                .unwrap();
            let problem = problem.trim_start_matches("These exclude each other: ");
            // The second of two demands, which stands at the end of the request.
            let mut ends = problem.match_indices(' ').filter_map(|(place, _)| {
                let (first, second) = (&problem[..place], &problem[place + 1..]);
                (first.ends_with(['.', '"']) && text.ends_with(second)).then_some(second)
            });
            let second = ends.next().unwrap_or("The mood has to be gloomy.");
            json!({"instruction": text.replacen(second, "", 1).trim()}).to_string()
        }
        "respond" => {
            // Follows the contradiction's first half, which a repair leaves.
            let text = after(request, "\n\n").to_lowercase();
            let mut reply = "This is a plain answer to what you asked about".to_owned();
            if text.contains("300") {
                reply += &" and this is more of the same".repeat(50);
            }
            if text.contains("lantern") {
                reply += " with a lantern";
            }
            match text.contains("capital") || text.contains("upper") {
                true => reply.to_uppercase(),
                false => reply,
            }
        }
        _ => usual(request),
    }
}

fn settings() -> Settings {
    Settings {
        domains: 10,
        requests_per_domain: 10,
        scenarios_per_request: 8,
        rules: [Kind::NoComma, Kind::ForbiddenWords]
            .map(|kind| kind.id().to_owned())
            .to_vec(),
        soft_share: 0.2,
        samples: 1,
        ..Settings::default()
    }
}

#[test]
fn contradictions_are_caught_and_none_of_rules_is_left() {
    let model = Scripted::new(|request| Ok(answer(request))).with_suffix_scores(usual_scores);
    let end = run_fresh(&settings(), model, &DriveOptions::default());
    let first = end.asked_at("instruction");
    let written = first.iter().filter(|request| contradicts(request)).count();
    let share = written as f64 / first.len() as f64;
    assert!((0.25..0.35).contains(&share), "{share}");
    let found = end.count("conflict.found");
    let caught = found as f64 / written as f64;
    println!(
        "{written} of {} instructions contradict themselves: {found} caught ({:.1} %), {} of them by the table; {} repaired; {:?}",
        first.len(),
        caught * 100.0,
        end.count("conflict.by_table"),
        end.count("conflict.repaired"),
        end.funnel.rejected,
    );
    assert!((0.95..=1.0).contains(&caught), "{caught}");
    assert!(end.count("conflict.by_table") > 100 && end.count("conflict.by_model") > 100);
    assert!(end.count("conflict.repaired") > 100);
    // What is accepted can be met.
    let mut repaired = 0;
    for row in end.rows("sft.jsonl") {
        let meta = meta_of(&row);
        let rules = meta["rules"].as_array().unwrap().iter().map(|rule| {
            let args = rule["args"].as_object().unwrap();
            Constraint::from_ifeval(rule["id"].as_str().unwrap(), args).unwrap()
        });
        let rules: Vec<Constraint> = rules.collect();
        assert_eq!(conflict(&rules), None, "{meta}");
        // Neither with a rule that the model put in itself.
        let text = row["messages"][0]["content"].as_str().unwrap();
        let both = text.contains("300 words") && text.contains("40 words");
        assert!(!both, "{text}");
        repaired += usize::from(!meta["contradictions"].as_array().unwrap().is_empty());
    }
    assert!(repaired > 100, "{repaired}");
}
