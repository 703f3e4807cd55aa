//! One item, one thing that goes its own way, and what has to become of it.

use crate::world::{
    End, context, item, label_scores, meta_of, one_of_each, run_item, stage_of, usual, usual_scores,
};
use data::{Generate, Score};
use pipeline::testing::{Asked, Scripted};
use std::collections::BTreeMap;
use std::sync::Mutex;
use synth::decif::{Combination, Conflicts, Criteria, Evaluator, Settings, Want};
use synth::prompts::PromptSet;

/// What is said at a stage instead of the usual: which answer of the stage (all if `None`).
type Said = (&'static str, Option<usize>, &'static str);

fn scripted(said: &[Said]) -> Scripted {
    let said = said.to_vec();
    let counts = Mutex::new(BTreeMap::<&str, usize>::new());
    Scripted::new(move |request: &Generate| {
        let stage = stage_of(request);
        let mut counts = counts.lock().unwrap();
        let count = counts.entry(stage).or_default();
        let nth = *count;
        *count += 1;
        let own = said
            .iter()
            .find(|(at, which, _)| *at == stage && which.is_none_or(|which| which == nth));
        Ok(own.map_or_else(|| usual(request), |own| own.2.to_owned()))
    })
    .with_suffix_scores(usual_scores)
}

fn run(settings: &Settings, said: &[Said]) -> End {
    run_item(&context(settings, &[]), &item(), scripted(said))
}

const CONTRADICTS: &str = r#"{"explanation": "they exclude each other", "conflict": "YES"}"#;
const UNSURE: &str = r#"{"explanation": "hm", "conflict": "UNSURE"}"#;
const CLASH: &str = r#"{"instruction": "Please write about tea. Use no commas. Sound cheerful throughout. Write at least 300 words. Write fewer than 20 words."}"#;
const MENDED: &str = r#"{"instruction": "Please write about tea. Use no commas. Sound cheerful throughout. Write fewer than 20 words."}"#;

/// Name, what is set, what is said, how the row ends, a counter that has to be above zero.
type Scenario = (
    &'static str,
    fn(&mut Settings),
    Vec<Said>,
    &'static str,
    &'static str,
);

fn check((name, set, said, expected, counter): Scenario) {
    let mut settings = one_of_each();
    set(&mut settings);
    let end = run(&settings, &said);
    let counts = &end.funnel.counts;
    assert_eq!(end.verdict(), expected, "{name}: {counts:?}");
    assert!(
        counter.is_empty() || end.count(counter) > 0,
        "{name}: {counts:?}"
    );
    let rows = end.rows("sft.jsonl").len() + end.rows("dpo.jsonl").len();
    assert_eq!(rows > 0, expected == "accepted", "{name}");
}

fn same(_: &mut Settings) {}

#[test]
fn each_way_an_instruction_can_end() {
    let scenarios: Vec<Scenario> = vec![
        (
            "all goes well",
            same,
            vec![],
            "accepted",
            "constraint punctuation:no_comma",
        ),
        (
            "soft constraints are counted by kind",
            same,
            vec![],
            "accepted",
            "constraint soft: tone",
        ),
        (
            "no JSON, twice",
            same,
            vec![("instruction", None, "no")],
            "instruction/unparsed",
            "instruction.attempt_unparsed",
        ),
        (
            "no JSON, once",
            same,
            vec![("instruction", Some(0), "no")],
            "accepted",
            "instruction.attempt_unparsed",
        ),
        (
            "cut",
            same,
            vec![("instruction", None, "{…")],
            "instruction/truncated",
            "",
        ),
        (
            "empty",
            same,
            vec![("instruction", None, r#"{"instruction": " ."}"#)],
            "instruction/empty",
            "",
        ),
        (
            "copies the prompt",
            same,
            vec![(
                "instruction",
                None,
                r#"{"instruction": "Meta-request: write about tea. Use no commas. Sound cheerful throughout."}"#,
            )],
            "instruction/leaked",
            "",
        ),
        (
            "loses the rule",
            same,
            vec![(
                "instruction",
                None,
                r#"{"instruction": "Write about tea. Sound cheerful throughout."}"#,
            )],
            "instruction/lost_constraint",
            "",
        ),
        (
            "what is not said of the soft one is not judged",
            same,
            vec![(
                "instruction",
                None,
                r#"{"instruction": "Write about tea. Use no commas."}"#,
            )],
            "accepted",
            "instruction.soft_unsaid",
        ),
        (
            "loses all there is",
            |s| (s.counts, s.rules) = (vec![1.0], vec![]),
            vec![(
                "instruction",
                None,
                r#"{"instruction": "Write about tea."}"#,
            )],
            "instruction/lost_constraint",
            "",
        ),
        (
            "as published, nothing is looked for",
            |s| s.combination = Combination::AsPublished,
            vec![(
                "instruction",
                None,
                r#"{"instruction": "Write about tea."}"#,
            )],
            "accepted",
            "",
        ),
    ];
    scenarios.into_iter().for_each(check);
    let end = run_item(
        &context(
            &one_of_each(),
            &["Please write about tea. Use no commas. Sound cheerful throughout."],
        ),
        &item(),
        scripted(&[(
            "instruction",
            None,
            r#"{"instruction": "Please write about tea. Use no commas. Sound cheerful throughout."}"#,
        )]),
    );
    assert_eq!(end.verdict(), "instruction/contaminated");
    // Nothing to draw from.
    let mut bare = item();
    bare.soft = Vec::new().into();
    let settings = Settings {
        combination: Combination::AsPublished,
        ..one_of_each()
    };
    let end = run_item(&context(&settings, &[]), &bare, scripted(&[]));
    assert_eq!(end.verdict(), "combine/no_constraint");
}

#[test]
fn each_way_a_contradiction_can_end() {
    let scenarios: Vec<Scenario> = vec![
        (
            "no JSON",
            same,
            vec![("conflict", None, "NO")],
            "conflict/unparsed",
            "",
        ),
        (
            "cut",
            same,
            vec![("conflict", None, "{\"expl…")],
            "conflict/truncated",
            "",
        ),
        (
            "not sure",
            same,
            vec![("conflict", None, UNSURE)],
            "conflict/undecided",
            "",
        ),
        (
            "neither",
            same,
            vec![(
                "conflict",
                None,
                r#"{"explanation": "", "conflict": "MAYBE"}"#,
            )],
            "conflict/undecided",
            "",
        ),
        (
            "it never ends",
            same,
            vec![("conflict", None, CONTRADICTS)],
            "conflict/unresolved",
            "conflict.by_model",
        ),
        (
            "it is repaired",
            same,
            vec![("conflict", Some(0), CONTRADICTS)],
            "accepted",
            "conflict.repaired",
        ),
        (
            "it is repaired the second time",
            same,
            vec![
                ("conflict", Some(0), CONTRADICTS),
                ("conflict", Some(1), CONTRADICTS),
            ],
            "accepted",
            "conflict.repaired",
        ),
        (
            "not sure after the repair",
            same,
            vec![
                ("conflict", Some(0), CONTRADICTS),
                ("conflict", Some(1), UNSURE),
            ],
            "conflict/undecided",
            "conflict.found",
        ),
        (
            "repairs are not to be had",
            same,
            vec![("conflict", Some(0), CONTRADICTS), ("resolve", None, "no")],
            "conflict/unresolved",
            "conflict.repair_unparsed",
        ),
        (
            "the first repair cannot be read",
            same,
            vec![
                ("conflict", Some(0), CONTRADICTS),
                ("resolve", Some(0), "no"),
            ],
            "accepted",
            "conflict.repair_unparsed",
        ),
        (
            "a repair that changes nothing",
            same,
            vec![
                ("instruction", None, MENDED),
                ("conflict", Some(0), CONTRADICTS),
                ("resolve", None, MENDED),
            ],
            "conflict/unresolved",
            "conflict.repair_repeated",
        ),
        (
            "a repair that is another request",
            same,
            vec![
                ("conflict", Some(0), CONTRADICTS),
                (
                    "resolve",
                    None,
                    r#"{"instruction": "Sing of rum. Use no commas."}"#,
                ),
            ],
            "conflict/unresolved",
            "conflict.repair_rewritten",
        ),
        (
            "a repair that leaves no constraint",
            same,
            vec![
                (
                    "instruction",
                    None,
                    r#"{"instruction": "Please write a long text about tea with no commas."}"#,
                ),
                ("conflict", Some(0), CONTRADICTS),
                (
                    "resolve",
                    None,
                    r#"{"instruction": "Please write a long text about tea."}"#,
                ),
            ],
            "conflict/unresolved",
            "conflict.repair_lost_constraint",
        ),
        (
            "no repairs are made",
            |s| s.repairs = 0,
            vec![("conflict", None, CONTRADICTS)],
            "conflict/unresolved",
            "",
        ),
        (
            "the table finds it and the repair helps",
            same,
            vec![("instruction", None, CLASH), ("resolve", None, MENDED)],
            "accepted",
            "conflict.by_table",
        ),
        (
            "the table finds it and finds it again",
            same,
            vec![("instruction", None, CLASH)],
            "conflict/unresolved",
            "conflict.by_table",
        ),
        (
            "as published, what is left is taken",
            |s| s.conflicts = Conflicts::AsPublished,
            vec![("conflict", None, CONTRADICTS)],
            "accepted",
            "conflict.repaired",
        ),
        (
            "as published, no answer is no contradiction",
            |s| s.conflicts = Conflicts::AsPublished,
            vec![("conflict", None, "no")],
            "accepted",
            "conflict.unparsed",
        ),
        (
            "as published, a failed repair is not missed",
            |s| s.conflicts = Conflicts::AsPublished,
            vec![("conflict", None, CONTRADICTS), ("resolve", None, "no")],
            "accepted",
            "conflict.repair_unparsed",
        ),
    ];
    scenarios.into_iter().for_each(check);
    // The table needs no model.
    let end = run(&one_of_each(), &[("instruction", None, CLASH)]);
    assert!(end.asked_at("conflict").is_empty());
    assert_eq!(end.asked_at("resolve").len(), 2);
}

#[test]
fn each_way_criteria_and_responses_can_end() {
    let scenarios: Vec<Scenario> = vec![
        (
            "criteria: no JSON",
            same,
            vec![("criteria", None, "Is it?")],
            "criteria/unparsed",
            "",
        ),
        (
            "criteria: cut",
            same,
            vec![("criteria", None, "{…")],
            "criteria/truncated",
            "",
        ),
        (
            "criteria: the constraints are enough",
            same,
            vec![("criteria", None, r#"{"criteria": ["Here they are"]}"#)],
            "accepted",
            "criteria.no_question",
        ),
        (
            "criteria: what is known is not asked twice",
            same,
            vec![(
                "criteria",
                None,
                r#"{"criteria": ["Does the response avoid using commas?", "Does it sound cheerful?"]}"#,
            )],
            "accepted",
            "criteria.known",
        ),
        (
            "criteria: none",
            |s| s.criteria = Criteria::Decomposed,
            vec![("criteria", None, r#"{"criteria": ["Here they are", "?"]}"#)],
            "criteria/none",
            "criteria.no_question",
        ),
        (
            "criteria: rules that no answer can meet",
            same,
            vec![(
                "criteria",
                None,
                r#"{"criteria": ["Does the answer have at least 300 words?", "Does the answer have fewer than 20 words?"]}"#,
            )],
            "criteria/conflict",
            "",
        ),
        (
            "respond: refusals",
            same,
            vec![("respond", None, "I'm sorry, but I can't.")],
            "select/refusal",
            "respond.refusal",
        ),
        (
            "respond: empty",
            same,
            vec![("respond", None, " ")],
            "select/empty",
            "respond.empty",
        ),
        (
            "respond: cut",
            same,
            vec![("respond", None, "and so on…")],
            "select/truncated",
            "respond.truncated",
        ),
        (
            "judge: no JSON never passes",
            same,
            vec![("judge", None, "YES")],
            "select/no_verdict",
            "judge.unparsed",
        ),
        (
            "judge: cut never passes",
            same,
            vec![("judge", None, "{\"verdicts\": […")],
            "select/no_verdict",
            "judge.truncated",
        ),
        (
            "judge: too few never pass",
            same,
            vec![("judge", None, r#"{"verdicts": []}"#)],
            "select/no_verdict",
            "judge.miscounted",
        ),
        (
            "judge: too many never pass",
            same,
            vec![(
                "judge",
                None,
                r#"{"verdicts": [{"explanation": "", "verdict": "YES"}, {"explanation": "", "verdict": "YES"}, {"explanation": "", "verdict": "YES"}]}"#,
            )],
            "select/no_verdict",
            "judge.miscounted",
        ),
        (
            "judge: neither YES nor NO never passes",
            same,
            vec![(
                "judge",
                None,
                r#"{"verdicts": [{"explanation": "", "verdict": "PARTIAL"}, {"explanation": "", "verdict": "YES"}]}"#,
            )],
            "select/no_verdict",
            "judge.neither",
        ),
        (
            "none passes",
            same,
            vec![("respond", None, "bad")],
            "select/no_response_passes",
            "",
        ),
        (
            "none follows the rule",
            same,
            vec![("respond", None, "good, or not")],
            "select/no_response_passes",
            "judge.by_rule",
        ),
        (
            "pairs only, all pass",
            |s| s.want = Want::Dpo,
            vec![],
            "select/all_responses_pass",
            "",
        ),
        (
            "a pair",
            |s| s.want = Want::Dpo,
            vec![("respond", Some(1), "bad")],
            "accepted",
            "",
        ),
        (
            "read as probabilities",
            |s| s.evaluator = Evaluator::Logits,
            vec![("respond", None, "bad")],
            "select/no_response_passes",
            "",
        ),
        (
            "YES is not likely enough",
            |s| (s.evaluator, s.threshold) = (Evaluator::Logits, 0.95),
            vec![],
            "select/no_response_passes",
            "",
        ),
    ];
    scenarios.into_iter().for_each(check);
    let settings = Settings {
        evaluator: Evaluator::Logits,
        ..one_of_each()
    };
    let model = scripted(&[]).with_suffix_scores(|_: &Score| Ok(label_scores(0.9, 0.3)));
    let end = run_item(&context(&settings, &[]), &item(), model);
    assert_eq!(
        (end.verdict().as_str(), end.count("judge.undecided") > 0),
        ("select/no_verdict", true)
    );
}

#[test]
fn rules_judge_what_was_drawn_and_the_model_the_rest() {
    let said = [
        ("respond", Some(0), "good, with a comma"),
        ("respond", Some(1), "good"),
        (
            "criteria",
            None,
            r#"{"criteria": ["Is it to the point?", "Is the number of words at most 50?", "Does the answer have at most 50 words?"]}"#,
        ),
    ];
    let end = run(&one_of_each(), &said);
    assert_eq!(end.verdict(), "accepted");
    let pair = &end.rows("dpo.jsonl")[0];
    assert_eq!(pair["chosen"][0]["content"], "good");
    assert_eq!(pair["rejected"][0]["content"], "good, with a comma");
    let meta = meta_of(pair);
    assert_eq!(meta["rules"][0]["id"], "punctuation:no_comma");
    assert_eq!(meta["soft"][0]["kind"], "tone");
    let verdicts = meta["samples"][1]["verdicts"].as_array().unwrap();
    assert_eq!(verdicts.len(), meta["questions"].as_array().unwrap().len());
    let by_rule = verdicts.iter().filter(|one| one["by"] == "rule");
    let ids: Vec<&str> = by_rule
        .map(|one| one["rule"][0]["id"].as_str().unwrap())
        .collect();
    assert!(ids.contains(&"punctuation:no_comma"), "{ids:?}");
    assert!(ids.contains(&"length_constraints:number_words"), "{ids:?}");
    let asked = end.asked_at("judge");
    assert!(
        asked
            .iter()
            .all(|one| !Scripted::last_text(one).contains("comma?"))
    );
}

#[test]
fn a_record_says_where_it_comes_from() {
    let said = [
        ("respond", Some(1), "bad one"),
        ("conflict", Some(0), CONTRADICTS),
    ];
    let end = run(&one_of_each(), &said);
    let again = run(&one_of_each(), &said);
    assert_eq!(end.files, again.files);
    let (sft, pair) = (
        meta_of(&end.rows("sft.jsonl")[0]),
        meta_of(&end.rows("dpo.jsonl")[0]),
    );
    let keys = |meta: &serde_json::Value| -> Vec<String> {
        meta.as_object().unwrap().keys().cloned().collect()
    };
    assert_eq!(keys(&sft), keys(&pair));
    assert_eq!(
        (&sft["domain"], &sft["persona"]),
        (&"Tea".into(), &"a cook".into())
    );
    assert_eq!(sft["contradictions"][0], "they exclude each other");
    assert_eq!(sft["recipe"], "decif 1");
    let prompts = PromptSet::embedded();
    let digests = sft["prompts"].as_object().unwrap();
    assert!(digests.contains_key("decif/instruction") && digests.len() == 10);
    for (id, digest) in digests {
        assert_eq!(digest, prompts.get(id).digest());
    }
    // The seed in the lineage is the seed of the call; the instruction is the repaired one.
    let drawn: Vec<u64> = end.asked_at("respond").iter().map(|one| one.seed).collect();
    for sample in pair["samples"].as_array().unwrap() {
        let index = sample["sample"].as_u64().unwrap() as usize;
        assert_eq!(sample["seed"].as_u64(), Some(drawn[index]));
    }
    let text = end.rows("sft.jsonl")[0]["messages"][0]["content"].to_string();
    assert!(text.contains("Mended."), "{text}");
}

#[test]
fn stopping_early_changes_no_row() {
    let texts = ["fine", "bad", "I'm sorry, but I can't."];
    let mut saved = false;
    for pattern in 0..27_usize {
        let want = [Want::Sft, Want::Dpo, Want::Both][pattern % 3];
        let said: Vec<Said> = (0..4)
            .map(|nth| {
                (
                    "respond",
                    Some(nth),
                    texts[pattern / 3_usize.pow(nth as u32) % 3],
                )
            })
            .collect();
        let settings = |early_stop| Settings {
            want,
            early_stop,
            samples: 4,
            ..one_of_each()
        };
        let early = run(&settings(true), &said);
        let whole = run(&settings(false), &said);
        assert_eq!(
            (early.verdict(), &early.files),
            (whole.verdict(), &whole.files),
            "{pattern}"
        );
        saved |= early.asked.len() < whole.asked.len();
    }
    assert!(saved);
}

#[test]
fn as_published_one_response_is_judged_by_the_model_alone() {
    let settings = Settings {
        kinds: vec!["tone".into()],
        ..Settings::as_published()
    };
    let end = run(&settings, &[]);
    assert_eq!(end.verdict(), "accepted", "{:?}", end.funnel);
    assert_eq!(end.asked_at("respond").len(), 1);
    let meta = meta_of(&end.rows("sft.jsonl")[0]);
    assert_eq!(
        meta["questions"],
        serde_json::json!(["Is it to the point?"])
    );
    assert_eq!(end.count("judge.by_rule"), 0);
    assert!(
        end.asked
            .iter()
            .all(|asked| !matches!(asked, Asked::Score(_)))
    );
    let failed = run(&settings, &[("respond", None, "bad")]);
    assert_eq!(failed.verdict(), "select/no_response_passes");
}
