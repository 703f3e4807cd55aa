//! UltraIF against a scripted generator: one row, one thing that goes its own way, and what
//! has to become of it.
#![expect(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "helpers of tests, outside of any #[test]; tables of cases"
)]

use data::{Generate, Message, Prompt, Rejection, Score, SuffixScores};
use pipeline::testing::{Asked, Scripted};
use pipeline::{
    AdmitAll, DriveOptions, Llm, Manifest, OnChange, Roles, Run, Shard, Sourced, Target,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex};
use synth::filters::Contamination;
use synth::prompts::PromptSet;
use synth::ultraif::{
    self, Composer, Context, Evaluator, Rounds, Selection, Settings, Stage, Want,
};

/// What is said at a stage instead of the usual: which answer of the stage (all if `None`).
type Said = (&'static str, Option<usize>, &'static str);

/// What became of the row.
struct End {
    /// `accepted`, or `stage/reason`.
    verdict: String,
    counts: BTreeMap<String, u64>,
    files: BTreeMap<String, Vec<Value>>,
    asked: Vec<Asked>,
}

impl End {
    fn rows(&self, file: &str) -> &[Value] {
        self.files.get(file).map_or(&[], Vec::as_slice)
    }

    fn asked_at(&self, stage: &str) -> Vec<String> {
        let generated = self.asked.iter().filter_map(|asked| match asked {
            Asked::Generate(request) if stage_of(request) == stage => Some(all_text(request)),
            _ => None,
        });
        generated.collect()
    }
}

fn all_text(request: &Generate) -> String {
    let Prompt::Messages(messages) = &request.prompt else {
        return String::new();
    };
    let texts: Vec<&str> = messages.iter().map(|one| one.content.as_str()).collect();
    texts.join("\n")
}

fn stage_of(request: &Generate) -> &'static str {
    let text = all_text(request);
    let openings = [
        ("You take requests apart", "decompose"),
        ("You write test questions", "question"),
        ("You make requests harder", "compose"),
        ("[history]", "compose"),
        ("You are an expert", "respond"),
        ("You are a strict examiner", "judge"),
    ];
    let known = openings
        .iter()
        .find(|(opening, _)| text.starts_with(opening));
    known.map_or("unknown", |(_, stage)| stage)
}

/// Everything goes well, and a response with `bad` in it fails its last question.
fn usual(stage: &str, nth: usize, request: &Generate) -> String {
    let last = Scripted::last_text(request);
    match stage {
        "decompose" => json!({
            "complex": true, "basic_query": "Write.",
            "constraints": [{"type": "content", "constraint": "about tea", "simplified_query": "Write."}],
        })
        .to_string(),
        "question" => json!({"question": "Is it about tea?"}).to_string(),
        "compose" if last.starts_with("[history]") => {
            let query = last.split_once("[initial query]: ").unwrap().1;
            json!({"augmented query": format!("{query} Added."), "question": ["Is it added?"]})
                .to_string()
        }
        "compose" => {
            let query = last.split_once("Request:\n").unwrap().1;
            json!({"query": format!("{query} Added."), "question": "Is it added?"}).to_string()
        }
        "respond" => format!("good {nth}"),
        _ => {
            let questions = last.split_once("Questions:\n").unwrap().1.lines().count();
            let bad = last.contains("bad");
            let verdict = |index| if bad && index + 1 == questions { "NO" } else { "YES" };
            let one = |index| json!({"explanation": "so", "verdict": verdict(index)});
            json!({"verdicts": (0..questions).map(one).collect::<Vec<_>>()}).to_string()
        }
    }
}

fn run(settings: &Settings, seed: &[Message], said: &[Said], benchmark: &[&str]) -> End {
    let scores = |score: &Score| {
        let Prompt::Messages(messages) = &score.prefix else {
            return Err(data::RequestError::Invalid(
                "the judge sends messages".into(),
            ));
        };
        let bad = messages.last().unwrap().content.contains("bad");
        Ok(label_scores(if bad { 0.2 } else { 0.9 }, 1.0))
    };
    run_scored(settings, seed, said, benchmark, scores)
}

fn label_scores(yes: f32, mass: f32) -> SuffixScores {
    SuffixScores {
        logprobs: vec![yes.ln(), (1.0 - yes).ln()],
        probabilities: vec![yes, 1.0 - yes],
        mass,
    }
}

fn run_scored(
    settings: &Settings,
    seed: &[Message],
    said: &[Said],
    benchmark: &[&str],
    scores: impl Fn(&Score) -> Result<SuffixScores, data::RequestError> + Send + Sync + 'static,
) -> End {
    settings.validate().unwrap();
    let said = said.to_vec();
    let counts = Mutex::new(BTreeMap::<&str, usize>::new());
    let model = Scripted::new(move |request| {
        let stage = stage_of(request);
        let mut counts = counts.lock().unwrap();
        let count = counts.entry(stage).or_default();
        let nth = *count;
        *count += 1;
        let own = said
            .iter()
            .find(|(at, which, _)| *at == stage && which.is_none_or(|which| which == nth));
        Ok(own.map_or_else(|| usual(stage, nth, request), |own| own.2.to_owned()))
    })
    .with_suffix_scores(scores);
    let model = Arc::new(model);
    let context = Context {
        prompts: PromptSet::embedded(),
        settings: settings.clone(),
        contamination: Contamination::new(benchmark.iter().copied()),
    };
    let folder = tempfile::tempdir().unwrap();
    let manifest = Manifest {
        program: "test".into(),
        recipe: ultraif::RECIPE.into(),
        seed: 1,
        source: "one row".into(),
        shard: Shard::ALL,
        models: BTreeMap::new(),
        settings: json!(settings),
        prompts: context.prompts.digests("ultraif"),
    };
    let run = Run::open(folder.path(), manifest, OnChange::Refuse).unwrap();
    let roles = Roles::new(Target {
        generator: Some(Arc::clone(&model) as Arc<dyn data::Generator>),
        identity: "scripted".into(),
        adapter: None,
    });
    let recipe = async |seed: &Vec<Message>, llm: &Llm<'_>| ultraif::run(seed, llm, &context).await;
    let row: Result<Vec<Message>, Rejection> = Ok(seed.to_vec());
    let source = std::iter::once(Sourced {
        id: "row".into(),
        row,
    });
    let options = DriveOptions::default();
    run.drive(
        "ultraif",
        source,
        &roles,
        &options,
        &recipe,
        &mut AdmitAll,
        &mut |_| (),
    )
    .unwrap();
    let files = settings.files();
    let named: Vec<&str> = files.iter().map(String::as_str).collect();
    let funnel = run.export("ultraif", &named, None, &mut AdmitAll).unwrap();
    assert_eq!((funnel.read, funnel.unfinished), (1, 0));
    let rejected = funnel.rejected.iter().next();
    let read = |name: &String| {
        let text = fs::read_to_string(folder.path().join("data").join(name)).unwrap();
        let rows = text.lines().map(|line| serde_json::from_str(line).unwrap());
        (name.clone(), rows.collect())
    };
    End {
        verdict: rejected.map_or("accepted".into(), |(stage, reasons)| {
            format!("{stage}/{}", reasons.keys().next().unwrap())
        }),
        counts: funnel.counts,
        files: files.iter().map(read).collect(),
        asked: model.asked(),
    }
}

fn user(text: &str) -> Vec<Message> {
    vec![Message::new("user", text)]
}

const SEED: &str = "Write about tea.";

/// Name, what is set, what is said, how the row ends, a counter that has to be above zero.
type Scenario = (
    &'static str,
    fn(&mut Settings),
    Vec<Said>,
    &'static str,
    &'static str,
);

#[test]
fn each_way_a_row_can_end() {
    let check = |(name, set, said, expected, counter): Scenario| {
        let mut settings = Settings::default();
        set(&mut settings);
        let end = run(&settings, &user(SEED), &said, &[]);
        assert_eq!(end.verdict, expected, "{name}: {:?}", end.counts);
        let counted = end.counts.get(counter).copied().unwrap_or(0);
        assert!(
            counter.is_empty() || counted > 0,
            "{name}: {:?}",
            end.counts
        );
        let rows: usize = ["sft.jsonl", "dpo.jsonl"]
            .map(|file| end.rows(file).len())
            .iter()
            .sum();
        assert_eq!(rows > 0, expected == "accepted", "{name}");
    };
    let same: fn(&mut Settings) = |_| ();
    let scenarios: Vec<Scenario> = vec![
        (
            "all goes well",
            same,
            vec![],
            "accepted",
            "compose.rounds_3",
        ),
        (
            "decompose: no JSON",
            same,
            vec![("decompose", None, "no")],
            "decompose/unparsed",
            "",
        ),
        (
            "decompose: cut",
            same,
            vec![("decompose", None, "{…")],
            "decompose/truncated",
            "",
        ),
        (
            "question: no JSON",
            same,
            vec![("question", None, "no")],
            "accepted",
            "question.none",
        ),
        (
            "question: empty",
            same,
            vec![("question", None, "{\"question\": \" \"}")],
            "accepted",
            "question.none",
        ),
        (
            "compose: no JSON, twice",
            same,
            vec![("compose", None, "no")],
            "compose/unparsed",
            "compose.attempt_unparsed",
        ),
        (
            "compose: no JSON, once",
            same,
            vec![("compose", Some(0), "no")],
            "accepted",
            "compose.rounds_3",
        ),
        (
            "compose: cut",
            same,
            vec![("compose", None, "{…")],
            "compose/truncated",
            "",
        ),
        (
            "compose: repeats",
            same,
            vec![(
                "compose",
                None,
                "{\"query\": \"write about TEA\", \"question\": \"q\"}",
            )],
            "compose/repeated",
            "",
        ),
        (
            "compose: leaks",
            same,
            vec![(
                "compose",
                None,
                "{\"query\": \"Write about tea. [history]\", \"question\": \"q\"}",
            )],
            "compose/leaked",
            "",
        ),
        (
            "compose: loses",
            same,
            vec![(
                "compose",
                None,
                "{\"query\": \"Sing a song of cats.\", \"question\": \"q\"}",
            )],
            "compose/lost_constraint",
            "",
        ),
        (
            "compose: no question",
            same,
            vec![(
                "compose",
                None,
                "{\"query\": \"Write about tea. Now.\", \"question\": \"\"}",
            )],
            "compose/empty",
            "",
        ),
        (
            "compose: a statement for a question",
            same,
            vec![(
                "compose",
                None,
                "{\"query\": \"Write about tea. Now.\", \"question\": \"It is now.\"}",
            )],
            "compose/no_question",
            "",
        ),
        (
            "compose: third round fails",
            same,
            vec![("compose", Some(2), "no"), ("compose", Some(3), "no")],
            "accepted",
            "compose.rounds_2",
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
            vec![("judge", None, "{\"verdicts\": []}")],
            "select/no_verdict",
            "judge.miscounted",
        ),
        (
            "judge: neither YES nor NO never passes",
            |s| s.judge_own_constraints = false,
            vec![(
                "judge",
                None,
                "{\"verdicts\": [{\"explanation\": \"\", \"verdict\": \"PARTIAL\"}, \
                 {\"explanation\": \"\", \"verdict\": \"YES\"}, \
                 {\"explanation\": \"\", \"verdict\": \"YES\"}]}",
            )],
            "select/no_verdict",
            "judge.neither",
        ),
        (
            "not judged, so not missed: decompose has no JSON",
            |s| s.judge_own_constraints = false,
            vec![("decompose", None, "no")],
            "accepted",
            "decompose.unparsed",
        ),
        (
            "none passes",
            same,
            vec![("respond", None, "bad")],
            "select/no_response_passes",
            "",
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
        (
            "nothing to judge by",
            |s| s.stages = vec![Stage::Respond, Stage::Evaluate],
            vec![],
            "evaluate/no_questions",
            "",
        ),
        (
            "as published, none passes",
            |s| *s = Settings::as_published(),
            vec![("respond", None, "bad")],
            "accepted",
            "",
        ),
        // An early level passes and the last does not: nothing was written, so nothing is accepted.
        (
            "levels: only the first passes",
            |s| (s.levels, s.want) = (vec![1, 3], Want::Sft),
            (1..6)
                .map(|nth| ("respond", Some(nth + 1), "bad"))
                .collect(),
            "select/no_response_passes",
            "",
        ),
    ];
    scenarios.into_iter().for_each(check);
}

#[test]
fn seeds_that_cannot_be_used() {
    let check = |seed: &[Message], benchmark: &[&str], expected: &str| {
        let end = run(&Settings::default(), seed, &[], benchmark);
        assert_eq!(end.verdict, expected);
    };
    check(&[], &[], "read/no_user_turn");
    check(&user(" \n"), &[], "read/empty");
    check(
        &[Message::new("assistant", "hello")],
        &[],
        "read/no_user_turn",
    );
    check(
        &user(SEED),
        &["Write about tea. Added. Added. Added."],
        "compose/contaminated",
    );
}

#[test]
fn history_is_seen_by_composer_responder_and_judge() {
    let seed = [
        Message::new("user", "Earlier one"),
        Message::new("assistant", "Earlier two"),
        Message::new("user", SEED),
    ];
    let end = run(&Settings::default(), &seed, &[], &[]);
    for stage in ["compose", "respond", "judge"] {
        let asked = end.asked_at(stage);
        assert!(!asked.is_empty(), "{stage}");
        assert!(
            asked.iter().all(|text| text.contains("Earlier two")),
            "{stage}"
        );
    }
    let row = &end.rows("sft.jsonl")[0]["messages"];
    assert_eq!(row.as_array().unwrap().len(), 4);
    // The raw instruction, not what the responder was told around it.
    assert_eq!(row[2]["content"], "Write about tea. Added. Added. Added.");
}

#[test]
fn the_published_composer_is_spoken_to_in_its_own_form() {
    let settings = Settings {
        composer: Composer::Trained,
        ..Settings::default()
    };
    let text = "Schreib \"grün\"\nüber 茶.";
    let end = run(&settings, &user(text), &[], &[]);
    assert_eq!(end.verdict, "accepted");
    assert_eq!(
        end.asked_at("compose")[0],
        format!("[history]: [] \n [initial query]: {text}")
    );
    let row = &end.rows("sft.jsonl")[0]["messages"][0]["content"];
    assert_eq!(row, &format!("{text} Added. Added. Added."));
    let answer = end.rows("composer.jsonl")[0]["messages"][1]["content"]
        .as_str()
        .unwrap();
    assert!(
        !answer.contains('\n') && answer.contains("grün") && answer.contains('茶'),
        "{answer}"
    );
}

#[test]
fn stopping_early_changes_no_row() {
    // Patterns of five responses that are good, bad or refused.
    let texts = ["fine", "bad", "I'm sorry, but I can't."];
    let mut saved = false;
    for pattern in (0..3_usize.pow(5)).step_by(4) {
        // Another want every few patterns.
        let want = [Want::Sft, Want::Dpo, Want::Both][(pattern / 7) % 3];
        let said: Vec<Said> = (0..5)
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
            ..Settings::default()
        };
        let early = run(&settings(true), &user(SEED), &said, &[]);
        let whole = run(&settings(false), &user(SEED), &said, &[]);
        assert_eq!(
            (&early.verdict, &early.files),
            (&whole.verdict, &whole.files),
            "{pattern}"
        );
        assert!(early.asked.len() <= whole.asked.len());
        saved |= early.asked.len() < whole.asked.len();
    }
    assert!(saved);
}

#[test]
fn as_published_takes_the_last_of_each() {
    let said = [
        ("respond", Some(1), "bad one"),
        ("respond", Some(3), "bad two"),
    ];
    let first = run(&Settings::default(), &user(SEED), &said, &[]);
    let last = run(&Settings::as_published(), &user(SEED), &said, &[]);
    let pair = |end: &End| {
        let row = &end.rows("dpo.jsonl")[0];
        [&row["chosen"], &row["rejected"]]
            .map(|side| side[0]["content"].as_str().unwrap().to_owned())
    };
    assert_eq!(Settings::as_published().select, Selection::AsPublished);
    assert_eq!(pair(&first), ["good 0", "bad one"]);
    assert_eq!(pair(&last), ["good 4", "bad two"]);
}

#[test]
fn what_is_no_probability_is_no_verdict() {
    let check = |yes: f32, mass: f32, least_mass: f32, expected: &str| {
        let settings = Settings {
            evaluator: Evaluator::Logits,
            least_mass,
            ..Settings::default()
        };
        let scores = move |_: &Score| Ok(label_scores(yes, mass));
        let end = run_scored(&settings, &user(SEED), &[], &[], scores);
        assert_eq!(end.verdict, expected, "{yes} {mass} {least_mass}");
        let undecided = end.counts.get("judge.undecided").copied().unwrap_or(0);
        assert_eq!(undecided > 0, expected != "accepted", "{:?}", end.counts);
        assert_eq!(end.rows("sft.jsonl").is_empty(), expected != "accepted");
    };
    check(0.9, 0.6, 0.5, "accepted");
    for (yes, mass) in [
        (0.9, 0.4),
        (0.9, 1e-30),
        (0.9, f32::NAN),
        (0.9, f32::NEG_INFINITY),
        (0.9, f32::INFINITY),
        (f32::NAN, 0.9),
        (f32::NAN, f32::NAN),
        (f32::INFINITY, f32::NEG_INFINITY),
        (1.5, 0.9),
    ] {
        check(yes, mass, 0.5, "select/no_verdict");
    }
    // Not even where any mass is enough: no share of nothing is a verdict.
    check(1.0, 0.0, 0.0, "select/no_verdict");
    check(1.0, f32::NAN, 0.0, "select/no_verdict");
}

/// Adds a demand that has a rule, and one that has none.
const NO_COMMAS: Said = (
    "compose",
    Some(0),
    "{\"query\": \"Write about tea. Use no commas.\", \"question\": \"Does the response avoid using commas?\"}",
);

#[test]
fn a_rule_judges_where_there_is_one() {
    let said = [
        NO_COMMAS,
        ("respond", Some(0), "tea, milk"),
        ("respond", Some(1), "tea"),
    ];
    let settings = |rule_judge| Settings {
        rounds: 2,
        rule_judge,
        ..Settings::default()
    };
    let ruled = run(&settings(true), &user(SEED), &said, &[]);
    let pair = &ruled.rows("dpo.jsonl")[0];
    assert_eq!(pair["chosen"][0]["content"], "tea");
    assert_eq!(pair["rejected"][0]["content"], "tea, milk");
    let asked = ruled.asked_at("judge");
    assert_eq!(asked.len(), 2);
    assert!(
        asked
            .iter()
            .all(|text| !text.contains("avoid using commas"))
    );
    assert!(
        asked
            .iter()
            .all(|text| text.contains("1. Is it about tea?\n2. Is it added?"))
    );
    assert_eq!(
        (
            ruled.counts["judge.by_rule"],
            ruled.counts["judge.by_model"]
        ),
        (2, 4)
    );

    let meta = meta_of(pair);
    let verdicts = meta["samples"][1]["verdicts"].as_array().unwrap();
    let who: Vec<&str> = verdicts
        .iter()
        .map(|one| one["by"].as_str().unwrap())
        .collect();
    assert_eq!(who, ["model", "rule", "model"]);
    assert_eq!(
        verdicts[1],
        json!({
            "question": "Does the response avoid using commas?", "yes": false, "by": "rule",
            "missing": "", "probability": 0.0, "explanation": "1 commas, asked: none",
            "rule": [{"id": "punctuation:no_comma", "args": {}, "negated": false}],
        })
    );

    // The model that says YES to all passes both.
    let judged = run(&settings(false), &user(SEED), &said, &[]);
    assert!(judged.asked_at("judge")[0].contains("avoid using commas"));
    assert_eq!(
        judged.rows("sft.jsonl")[0]["messages"][1]["content"],
        "tea, milk"
    );
    assert!(!judged.counts.contains_key("judge.by_rule"));
}

#[test]
fn rules_alone_ask_no_model_and_nothing_else() {
    let settings = Settings {
        rounds: 2,
        evaluator: Evaluator::Rules,
        // Rules alone need no leave to judge.
        rule_judge: false,
        ..Settings::default()
    };
    let said = [
        NO_COMMAS,
        ("respond", Some(0), "tea, milk"),
        ("respond", Some(1), "bad tea"),
    ];
    let end = run(&settings, &user(SEED), &said, &[]);
    let pair = &end.rows("dpo.jsonl")[0];
    assert_eq!(pair["chosen"][0]["content"], "bad tea");
    assert_eq!(pair["rejected"][0]["content"], "tea, milk");
    assert!(end.asked_at("judge").is_empty());
    // Nothing is accepted that no rule decides.
    let end = run(&settings, &user(SEED), &[], &[]);
    assert_eq!(end.verdict, "evaluate/no_questions");
}

#[test]
fn where_nobody_judges_responses_are_taken_as_they_come() {
    let settings = Settings {
        rounds: 2,
        evaluator: Evaluator::Nobody,
        ..Settings::default()
    };
    let said = [
        NO_COMMAS,
        ("respond", Some(0), "bad, tea"),
        ("respond", Some(1), "bad, tea"),
        ("respond", Some(2), "tea"),
    ];
    let end = run(&settings, &user(SEED), &said, &[]);
    let kept = &end.rows("sft.jsonl")[0]["messages"][1]["content"];
    assert_eq!(kept, "bad, tea");
    let pair = &end.rows("dpo.jsonl")[0];
    assert_eq!(pair["chosen"][0]["content"], "bad, tea");
    assert_eq!(pair["rejected"][0]["content"], "tea");
    assert!(end.asked_at("judge").is_empty());
    let all: Vec<Said> = vec![NO_COMMAS, ("respond", None, "bad, tea")];
    let settings = Settings {
        want: Want::Dpo,
        ..settings
    };
    let end = run(&settings, &user(SEED), &all, &[]);
    assert_eq!(end.verdict, "select/all_responses_pass");
}

#[test]
fn a_judge_with_nothing_to_judge_is_not_asked() {
    for evaluator in [Evaluator::Explain, Evaluator::Logits, Evaluator::Both] {
        let settings = Settings {
            rounds: 1,
            judge_own_constraints: false,
            evaluator,
            want: Want::Sft,
            ..Settings::default()
        };
        let said = [NO_COMMAS, ("judge", None, "never asked")];
        let end = run(&settings, &user(SEED), &said, &[]);
        assert_eq!(end.verdict, "accepted");
        assert!(end.asked_at("judge").is_empty());
        let scored = end
            .asked
            .iter()
            .any(|asked| matches!(asked, Asked::Score(_)));
        assert!(!scored);
    }
    // The seed's own constraints have rules, too.
    let own = "{\"complex\": true, \"basic_query\": \"Write.\", \"constraints\": [{\"type\": \"numerical\", \"constraint\": \"at most three words\", \"simplified_query\": \"Write.\"}]}";
    let said = [
        ("decompose", None, own),
        ("question", None, "{\"question\": \"Is the length right?\"}"),
        ("respond", Some(0), "one two three four"),
        ("respond", Some(1), "one two three"),
    ];
    let settings = Settings {
        stages: vec![
            Stage::Decompose,
            Stage::Question,
            Stage::Respond,
            Stage::Evaluate,
        ],
        ..Settings::default()
    };
    let end = run(&settings, &user("Write at most three words."), &said, &[]);
    assert_eq!(
        end.rows("dpo.jsonl")[0]["chosen"][0]["content"],
        "one two three"
    );
    assert!(end.asked_at("judge").is_empty());
}

fn meta_of(row: &Value) -> Value {
    serde_json::from_str(row["meta"].as_str().unwrap()).unwrap()
}

#[test]
fn a_record_says_where_it_comes_from() {
    let said = [("respond", Some(1), "bad one")];
    let end = run(&Settings::default(), &user(SEED), &said, &[]);
    let again = run(&Settings::default(), &user(SEED), &said, &[]);
    assert_eq!(end.files, again.files);
    let (sft, pair) = (
        meta_of(&end.rows("sft.jsonl")[0]),
        meta_of(&end.rows("dpo.jsonl")[0]),
    );
    let keys =
        |meta: &Value| -> Vec<String> { meta.as_object().unwrap().keys().cloned().collect() };
    assert_eq!(keys(&sft), keys(&pair));
    let prompts = PromptSet::embedded();
    let expected = [
        "ultraif/decompose",
        "ultraif/question",
        "ultraif/compose",
        "ultraif/respond",
        "ultraif/judge_explain",
    ];
    let digests: BTreeMap<&str, &str> = expected
        .iter()
        .map(|id| (*id, prompts.get(id).digest()))
        .collect();
    assert_eq!(sft["prompts"], json!(digests.clone()));
    assert_eq!(sft["recipe"], ultraif::RECIPE);
    assert_eq!(sft["evaluator"], "explain");
    assert_eq!(sft["constraints_added"], 3);
    assert_eq!(
        sft["models"].as_object().unwrap().len(),
        ultraif::ROLES.len()
    );
    assert!(
        ultraif::ROLES
            .iter()
            .all(|role| sft["models"][role] == "scripted")
    );
    assert_eq!(
        (&sft["sampling"]["temperature"], &sft["sampling"]["top_p"]),
        (&json!(1.0), &json!(0.95))
    );
    assert_eq!(sft["max_tokens"], 1280);

    // The seed in the lineage is the seed of the call.
    let drawn = end.asked.iter().filter_map(|asked| match asked {
        Asked::Generate(request) if stage_of(request) == "respond" => Some(request.seed),
        _ => None,
    });
    let drawn: Vec<u64> = drawn.collect();
    let samples = pair["samples"].as_array().unwrap();
    assert_eq!(samples.len(), 2);
    for sample in samples {
        let index = sample["sample"].as_u64().unwrap() as usize;
        assert_eq!(sample["seed"].as_u64(), Some(drawn[index]));
        let verdicts = sample["verdicts"].as_array().unwrap();
        assert_eq!(verdicts.len(), 4);
        assert!(
            verdicts
                .iter()
                .all(|one| one["by"] == "model" && one["missing"] == "")
        );
    }
    let composer = meta_of(&end.rows("composer.jsonl")[0]);
    assert_eq!(composer["prompts"], sft["prompts"]);
    assert_eq!(composer["models"], sft["models"]);
    assert_eq!(composer["constraint"], "about tea");
}

#[test]
fn strings_that_reach_their_limit_were_cut() {
    let long = "a".repeat(5000);
    let query: &'static str = Box::leak(
        json!({"query": format!("{SEED} {long}"), "question": "q"})
            .to_string()
            .into_boxed_str(),
    );
    let question: &'static str = Box::leak(json!({"question": long}).to_string().into_boxed_str());
    let end = run(
        &Settings::default(),
        &user(SEED),
        &[("compose", None, query)],
        &[],
    );
    assert_eq!(end.verdict, "compose/truncated");
    let end = run(
        &Settings::default(),
        &user(SEED),
        &[("question", None, question)],
        &[],
    );
    assert_eq!(
        (end.verdict.as_str(), end.counts["question.none"]),
        ("accepted", 1)
    );
    for asked in &end.asked {
        if let Asked::Generate(Generate {
            grammar: Some(data::Grammar::JsonSchema(schema)),
            ..
        }) = asked
        {
            assert!(schema.to_string().contains("maxLength"), "{schema}");
        }
    }
}

#[test]
fn as_published_keeps_what_no_response_satisfies() {
    let settings = Settings {
        want: Want::Sft,
        ..Settings::as_published()
    };
    let check = |said: &[Said], verdict: &str, kept: Option<&str>, counter: &str| {
        let end = run(&settings, &user(SEED), said, &[]);
        assert_eq!(end.verdict, verdict, "{said:?}");
        let rows = end.rows("sft.jsonl");
        let text = rows
            .first()
            .map(|row| row["messages"][1]["content"].as_str().unwrap());
        assert_eq!(text, kept, "{said:?}");
        assert!(
            counter.is_empty() || end.counts[counter] > 0,
            "{:?}",
            end.counts
        );
    };
    let sorry = "I'm sorry, but I can't.";
    // The last of five, whatever it is...
    check(
        &[("respond", Some(4), "bad last"), ("respond", None, "bad")],
        "accepted",
        Some("bad last"),
        "",
    );
    check(
        &[("respond", Some(4), "bad, cut…"), ("respond", None, "bad")],
        "accepted",
        Some("bad, cut"),
        "respond.truncated",
    );
    // ...also a refusal, which is judged like any other and fails here...
    check(
        &[
            ("respond", Some(4), sorry),
            ("respond", None, "bad"),
            ("judge", None, "{\"verdicts\": []}"),
        ],
        "accepted",
        Some(sorry),
        "respond.refusal",
    );
    // ...and passes where the judge says so...
    check(
        &[("respond", None, sorry)],
        "accepted",
        Some(sorry),
        "respond.refusal",
    );
    // ...but not an empty text, which is none.
    check(
        &[
            ("respond", Some(4), " "),
            ("respond", Some(3), "bad fourth"),
            ("respond", None, "bad"),
        ],
        "accepted",
        Some("bad fourth"),
        "respond.empty",
    );
    check(
        &[("respond", None, "")],
        "select/empty",
        None,
        "respond.empty",
    );
}

#[test]
fn as_published_pairs_skip_what_has_no_verdict() {
    let settings = Settings {
        want: Want::Dpo,
        ..Settings::as_published()
    };
    let said = [
        ("respond", Some(1), "bad one"),
        ("respond", Some(4), "bad two"),
        ("judge", Some(4), "no JSON"),
    ];
    let end = run(&settings, &user(SEED), &said, &[]);
    let pair = &end.rows("dpo.jsonl")[0];
    assert_eq!(pair["chosen"][0]["content"], "good 3");
    assert_eq!(pair["rejected"][0]["content"], "bad one");
    // By our own choice, too: what was not judged is no example of a failure.
    let said = [
        ("respond", Some(1), "bad one"),
        ("judge", Some(1), "no JSON"),
    ];
    let settings = Settings {
        want: Want::Dpo,
        ..Settings::default()
    };
    let end = run(&settings, &user(SEED), &said, &[]);
    assert_eq!(end.verdict, "select/all_responses_pass");
}

#[test]
fn as_published_composes_on_after_a_failed_round() {
    let published = Settings::as_published();
    assert_eq!(
        (published.compose_rounds, published.rule_judge),
        (Rounds::AsPublished, false)
    );
    // The second round fails: no second attempt, and the third goes on from the first.
    let end = run(&published, &user(SEED), &[("compose", Some(1), "no")], &[]);
    assert_eq!(end.asked_at("compose").len(), 3);
    let row = &end.rows("sft.jsonl")[0];
    assert_eq!(
        row["messages"][0]["content"],
        "Write about tea. Added. Added."
    );
    let meta = meta_of(row);
    assert_eq!(meta["constraints_added"], 2);
    assert_eq!(meta["questions"], json!(["Is it added?", "Is it added?"]));
    // What a rewrite loses is not noticed.
    let lost = "{\"query\": \"Sing a song of cats.\", \"question\": \"q\"}";
    let end = run(&published, &user(SEED), &[("compose", Some(0), lost)], &[]);
    assert_eq!(end.counts["compose.rounds_3"], 1);
    // No round at all leaves nothing to judge by, which is not a pass.
    let end = run(&published, &user(SEED), &[("compose", None, "no")], &[]);
    assert_eq!(end.verdict, "evaluate/no_questions");
    assert_eq!(end.asked_at("compose").len(), 3);
}

#[test]
fn as_published_the_judge_does_not_see_the_conversation() {
    let seed = [
        Message::new("user", "Earlier one"),
        Message::new("assistant", "Earlier two"),
        Message::new("user", SEED),
    ];
    let end = run(&Settings::as_published(), &seed, &[], &[]);
    assert!(
        end.asked_at("compose")
            .iter()
            .all(|text| text.contains("Earlier two"))
    );
    assert!(
        end.asked_at("judge")
            .iter()
            .all(|text| !text.contains("Earlier"))
    );
    assert_eq!(end.asked_at("judge").len(), 5);
    // A rule is not asked either.
    let settings = Settings {
        rounds: 1,
        ..Settings::as_published()
    };
    let end = run(&settings, &user(SEED), &[NO_COMMAS], &[]);
    assert!(
        end.asked_at("judge")
            .iter()
            .all(|text| text.contains("avoid using commas"))
    );
}

#[test]
fn a_stage_alone_leaves_rows_that_say_where_they_come_from() {
    use Stage::{Compose, Decompose, Question, Respond};
    let check = |stages: &[Stage], file: &str, keys: &[&str]| {
        let settings = Settings {
            stages: stages.to_vec(),
            ..Settings::default()
        };
        let end = run(&settings, &user(SEED), &[], &[]);
        assert_eq!(end.verdict, "accepted", "{file}");
        let row = &end.rows(file)[0];
        for key in keys {
            assert!(!row[*key].is_null(), "{file}: {row}");
        }
        let meta = meta_of(row);
        assert!(meta["recipe"].as_str().unwrap().starts_with("ultraif"));
        assert!(!meta["prompts"].as_object().unwrap().is_empty(), "{meta}");
        meta
    };
    check(&[Decompose], "decomposed.jsonl", &["prompt", "constraints"]);
    let composed = [Decompose, Question, Compose];
    let meta = check(&composed, "composed.jsonl", &["prompt", "questions"]);
    assert_eq!(meta["constraints_added"], 3);
    let meta = check(&[Respond], "responses.jsonl", &["prompt", "responses"]);
    assert_eq!(meta["samples"].as_array().unwrap().len(), 5);
    assert!(meta["samples"][0]["seed"].is_u64(), "{meta}");
}
