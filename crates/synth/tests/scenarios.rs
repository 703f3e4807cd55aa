//! UltraIF against a scripted generator: one row, one thing that goes its own way, and what
//! has to become of it.
#![expect(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "helpers of tests, outside of any #[test]; tables of cases"
)]

use data::{Generate, Message, Prompt, Rejection, Score};
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
use synth::ultraif::{self, Composer, Context, Evaluator, Selection, Settings, Stage, Want};

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
    .with_scores(|score: &Score| {
        let Prompt::Messages(messages) = &score.prefix else {
            return Ok(f32::NAN);
        };
        let bad = messages.last().unwrap().content.contains("bad");
        Ok(if bad { 0.2 } else { 0.9 })
    });
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
            "select/no_response_passes",
            "judge.unparsed",
        ),
        (
            "judge: cut never passes",
            same,
            vec![("judge", None, "{\"verdicts\": […")],
            "select/no_response_passes",
            "judge.truncated",
        ),
        (
            "judge: too few never pass",
            same,
            vec![("judge", None, "{\"verdicts\": []}")],
            "select/no_response_passes",
            "judge.miscounted",
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
            "too little mass is no verdict",
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
