//! Complex-to-Simple against a scripted generator: one row, one thing that goes its own way, and
//! what has to become of it; then many rows, killed and shuffled.
#![expect(clippy::print_stdout, reason = "figures of runs on scripted models")]
#![expect(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "helpers of tests, outside of any #[test]; tables of cases"
)]

use data::{Generate, Message, Prompt, Rejection, RequestError};
use pipeline::testing::{Asked, Scripted};
use pipeline::{
    DriveOptions, Funnel, Llm, Manifest, OnChange, Roles, Run, Shard, Sourced, StopSignal, Target,
};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use synth::complex_to_simple::{
    self, Admission, Context, Correction, Drawing, Keywords, Parameters, Rewrite, Settings, Variant,
};
use synth::filters::Contamination;
use synth::prompts::PromptSet;
use verify::compose::{Draws, Kind, describe, satisfying_text};
use verify::{Constraint, strict};

/// What is said at a stage instead of the usual: which answer of the stage (all if `None`).
type Said = (&'static str, Option<usize>, &'static str);

/// What became of the row.
struct End {
    /// `accepted`, or `stage/reason`.
    verdict: String,
    counts: BTreeMap<String, u64>,
    files: BTreeMap<String, Vec<Value>>,
    asked: Vec<Generate>,
}

impl End {
    fn rows(&self, file: &str) -> &[Value] {
        self.files.get(file).map_or(&[], Vec::as_slice)
    }

    fn asked_at(&self, stage: &str) -> Vec<&Generate> {
        let at = self.asked.iter().filter(|one| stage_of(one) == stage);
        at.collect()
    }

    fn answers(&self) -> Vec<&str> {
        let rows = self.rows("sft.jsonl").iter();
        rows.map(|row| row["messages"].as_array().unwrap().last().unwrap())
            .map(|turn| turn["content"].as_str().unwrap())
            .collect()
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
        ("You see a request. Think", "keywords"),
        ("You put requests", "rewrite"),
        ("You revise answers", "correct"),
        ("You are a corrector", "correct_alone"),
    ];
    let known = openings
        .iter()
        .find(|(opening, _)| text.starts_with(opening));
    known.map_or("respond", |(_, stage)| stage)
}

/// One constraint of each of two kinds: no commas, and all in quotes.
fn two(settings: &mut Settings) {
    settings.kinds = vec![
        Kind::NoComma.id().to_owned(),
        Kind::Quotation.id().to_owned(),
    ];
    (settings.fewest, settings.most) = (2, 2);
}

/// The student breaks both; the teacher mends what it is told to.
fn usual(stage: &str, request: &Generate) -> String {
    let last = Scripted::last_text(request);
    match stage {
        "keywords" => json!({"keywords": ["tea", "leaves"]}).to_string(),
        "rewrite" => {
            let (_, demands) = last.split_once("Demands:\n").unwrap();
            let demands = demands.lines().map(|line| line.split_once(". ").unwrap().1);
            let demands: Vec<&str> = demands.collect();
            format!("I would like you to write about tea. {}", demands.join(" "))
        }
        "respond" => "Tea is hot, and good.".to_owned(),
        _ => {
            let (answer, failed) = match stage {
                "correct" => {
                    let (_, rest) = last.split_once("Answer:\n").unwrap();
                    let (answer, rest) = rest.split_once("\n\nBroken demand:\n").unwrap();
                    (answer, rest.split_once("\n\nWhat was found").unwrap().0)
                }
                _ => {
                    let (_, rest) = last.split_once("---response---:\n").unwrap();
                    let (answer, rest) = rest.split_once("\n---constraint---:\n").unwrap();
                    (answer, rest.split_once("\n\n---OUTPUT---").unwrap().0)
                }
            };
            let mended = if failed.contains("omma") {
                answer.replace(',', "")
            } else {
                format!("\"{answer}\"")
            };
            match stage {
                "correct" => mended,
                _ => format!("---analysis---:\nso\n---revised response---:\n{mended}"),
            }
        }
    }
}

fn manifest(settings: &Settings, prompts: &PromptSet) -> Manifest {
    Manifest {
        program: "test".into(),
        recipe: complex_to_simple::RECIPE.into(),
        seed: 1,
        source: "rows".into(),
        shard: Shard::ALL,
        models: BTreeMap::new(),
        settings: json!(settings),
        prompts: prompts.digests("complex-to-simple"),
    }
}

fn roles(model: &Arc<Scripted>) -> Roles {
    Roles::new(Target {
        generator: Some(Arc::clone(model) as Arc<dyn data::Generator>),
        identity: "scripted".into(),
        adapter: None,
    })
}

/// Drives rows and writes their files.
fn drive(
    folder: &Path,
    context: &Context,
    rows: &[(String, Vec<Message>)],
    model: &Arc<Scripted>,
    options: &DriveOptions,
) -> Funnel {
    let settings = &context.settings;
    let manifest = manifest(settings, &context.prompts);
    let run = Run::open(folder, manifest, OnChange::Refuse).unwrap();
    let recipe =
        async |seed: &Vec<Message>, llm: &Llm<'_>| complex_to_simple::run(seed, llm, context).await;
    let source = rows.iter().map(|(id, row)| Sourced {
        id: id.clone(),
        row: Ok::<_, Rejection>(row.clone()),
    });
    let name = complex_to_simple::NAME;
    run.drive(
        name,
        source,
        &roles(model),
        options,
        &recipe,
        &mut Admission::new(settings),
        &mut |_| (),
    )
    .unwrap();
    let files = settings.files();
    let named: Vec<&str> = files.iter().map(String::as_str).collect();
    let mut admit = Admission::new(settings);
    run.export(name, &named, options.accept, &mut admit)
        .unwrap()
}

fn read_rows(path: PathBuf) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    let rows = text.lines().map(|line| serde_json::from_str(line).unwrap());
    rows.collect()
}

fn run(set: fn(&mut Settings), seed: &[Message], said: &[Said]) -> End {
    run_with(set, seed, said, &[], |_| None)
}

fn run_with(
    set: fn(&mut Settings),
    seed: &[Message],
    said: &[Said],
    benchmark: &[&str],
    fails: fn(&str) -> Option<RequestError>,
) -> End {
    let mut settings = Settings::default();
    two(&mut settings);
    set(&mut settings);
    settings.validate().unwrap();
    let said = said.to_vec();
    let counts = Mutex::new(BTreeMap::<&str, usize>::new());
    let model = Arc::new(Scripted::new(move |request| {
        let stage = stage_of(request);
        if let Some(error) = fails(stage) {
            return Err(error);
        }
        let mut counts = counts.lock().unwrap();
        let count = counts.entry(stage).or_default();
        let nth = *count;
        *count += 1;
        let own = said
            .iter()
            .find(|(at, which, _)| *at == stage && which.is_none_or(|which| which == nth));
        Ok(own.map_or_else(|| usual(stage, request), |own| own.2.to_owned()))
    }));
    let context = Context {
        prompts: PromptSet::embedded(),
        settings: settings.clone(),
        contamination: Contamination::new(benchmark.iter().copied()),
    };
    let folder = tempfile::tempdir().unwrap();
    let rows = [("row".to_owned(), seed.to_vec())];
    let funnel = drive(
        folder.path(),
        &context,
        &rows,
        &model,
        &DriveOptions::default(),
    );
    assert_eq!((funnel.read, funnel.unfinished), (1, 0));
    let rejected = funnel.rejected.iter().next();
    let files = settings.files().into_iter().map(|name| {
        let rows = read_rows(folder.path().join("data").join(&name));
        (name, rows)
    });
    let asked = model.asked().into_iter().filter_map(|asked| match asked {
        Asked::Generate(request) => Some(request),
        Asked::Score(_) => None,
    });
    End {
        verdict: rejected.map_or("accepted".into(), |(stage, reasons)| {
            format!("{stage}/{}", reasons.keys().next().unwrap())
        }),
        counts: funnel.counts,
        files: files.collect(),
        asked: asked.collect(),
    }
}

fn user(text: &str) -> Vec<Message> {
    vec![Message::new("user", text)]
}

const SEED: &str = "Write about tea.";

/// Name, what is set, what is said, how the row ends, a counter that has to be above zero, rows
/// of both files.
type Scenario = (
    &'static str,
    fn(&mut Settings),
    Vec<Said>,
    &'static str,
    &'static str,
    [usize; 2],
);

fn same(_: &mut Settings) {}

fn check((name, set, said, expected, counter, rows): Scenario) {
    let end = run(set, &user(SEED), &said);
    assert_eq!(end.verdict, expected, "{name}: {:?}", end.counts);
    let counted = end.counts.get(counter).copied().unwrap_or(0);
    assert!(
        counter.is_empty() || counted > 0,
        "{name}: {:?}",
        end.counts
    );
    let found = ["sft.jsonl", "dpo.jsonl"].map(|file| end.rows(file).len());
    assert_eq!(found, rows, "{name}");
}

#[test]
fn each_way_the_student_s_answer_can_go() {
    let scenarios: Vec<Scenario> = vec![
        (
            "both are corrected",
            same,
            vec![],
            "accepted",
            "correct.kept",
            [1, 2],
        ),
        (
            "right at once: no pair",
            same,
            vec![("respond", None, "\"Tea is hot.\"")],
            "accepted",
            "select.right_at_once",
            [1, 0],
        ),
        (
            "one fault: one pair",
            same,
            vec![("respond", None, "\"Tea is hot, and good.\"")],
            "accepted",
            "correct.kept",
            [1, 1],
        ),
        (
            "empty",
            same,
            vec![("respond", None, " \n")],
            "respond/empty",
            "",
            [0, 0],
        ),
        (
            "cut by the limit",
            same,
            vec![("respond", None, "Tea…")],
            "respond/truncated",
            "",
            [0, 0],
        ),
        (
            "declined",
            same,
            vec![("respond", None, "I'm sorry, but I can't do that.")],
            "respond/refusal",
            "",
            [0, 0],
        ),
        (
            "several samples: the first is empty",
            |s| s.samples = 3,
            vec![("respond", Some(0), "")],
            "accepted",
            "respond.empty",
            [1, 2],
        ),
        (
            "several samples: one is right, one is wrong, and no teacher is asked",
            |s| s.samples = 2,
            vec![("respond", Some(1), "\"Tea is hot.\"")],
            "accepted",
            "select.right_at_once",
            [1, 1],
        ),
        (
            "several samples: the one with fewer faults is corrected",
            |s| s.samples = 2,
            vec![("respond", Some(1), "\"Tea is hot, and good.\"")],
            "accepted",
            "correct.kept",
            [1, 1],
        ),
    ];
    scenarios.into_iter().for_each(check);
}

#[test]
fn each_way_a_correction_can_go() {
    let scenarios: Vec<Scenario> = vec![
        (
            "it misses its constraint once",
            same,
            vec![("correct", Some(0), "Tea is hot, and still good.")],
            "accepted",
            "correct.missed",
            [1, 2],
        ),
        (
            "it always misses",
            same,
            vec![("correct", None, "Tea is hot, and still good.")],
            "correct/not_corrected",
            "correct.missed",
            [0, 0],
        ),
        (
            "it breaks what held, and that is undone",
            same,
            // The comma first, the quotes last: the second step brings the comma back.
            vec![("correct", Some(1), "\"Tea is hot, and good.\"")],
            "accepted",
            "correct.undone",
            [1, 2],
        ),
        (
            "it always breaks what held",
            same,
            vec![
                ("respond", None, "Tea is hot."),
                ("correct", None, "\"Tea, is hot.\""),
            ],
            "correct/not_corrected",
            "correct.undone",
            [0, 0],
        ),
        (
            "it changes nothing",
            same,
            vec![("correct", Some(0), "Tea is hot, and good.")],
            "accepted",
            "correct.unchanged",
            [1, 2],
        ),
        (
            "it is empty",
            same,
            vec![("correct", Some(0), "")],
            "accepted",
            "correct.empty",
            [1, 2],
        ),
        (
            "it is cut",
            same,
            vec![("correct", Some(0), "Tea is…")],
            "accepted",
            "correct.truncated",
            [1, 2],
        ),
        (
            "it declines",
            same,
            vec![("correct", Some(0), "I cannot help with that")],
            "accepted",
            "correct.refusal",
            [1, 2],
        ),
        (
            "it talks about itself",
            same,
            vec![(
                "correct",
                Some(0),
                "Here is the revised answer: Tea is hot and good.",
            )],
            "accepted",
            "correct.chatter",
            [1, 2],
        ),
        (
            "it mends both at once: one pair",
            same,
            vec![("correct", Some(0), "\"Tea is hot and good.\"")],
            "accepted",
            "correct.kept",
            [1, 1],
        ),
        (
            "one try and no luck",
            |s| s.tries = 1,
            vec![("correct", Some(0), "Tea is hot, and so on.")],
            "accepted",
            "correct.missed",
            // The quotes are mended first, and then the comma once more.
            [1, 2],
        ),
        (
            "Discrimination has no pairs",
            |s| s.variant = Variant::Discrimination,
            vec![],
            "accepted",
            "correct.kept",
            [1, 0],
        ),
    ];
    scenarios.into_iter().for_each(check);
}

#[test]
fn each_way_an_instruction_can_go() {
    let scenarios: Vec<Scenario> = vec![
        (
            "rewritten by a model",
            |s| s.rewrite = Rewrite::Model,
            vec![],
            "accepted",
            "",
            [1, 2],
        ),
        (
            "rewritten: a parameter is lost, once",
            |s| s.rewrite = Rewrite::Model,
            vec![("rewrite", Some(0), "Write about tea.")],
            "accepted",
            "rewrite.parameter_lost",
            [1, 2],
        ),
        (
            "rewritten: the request is lost, always",
            |s| s.rewrite = Rewrite::Model,
            vec![("rewrite", None, "No commas, all in double quotation marks.")],
            "accepted",
            "rewrite.template",
            [1, 2],
        ),
        (
            "rewritten: cut",
            |s| s.rewrite = Rewrite::Model,
            vec![("rewrite", None, "Write about…")],
            "accepted",
            "rewrite.truncated",
            [1, 2],
        ),
        (
            "rewritten: empty",
            |s| s.rewrite = Rewrite::Model,
            vec![("rewrite", None, "")],
            "accepted",
            "rewrite.empty",
            [1, 2],
        ),
        (
            "keywords of a model",
            |s| s.keywords = Keywords::Model,
            vec![],
            "accepted",
            "",
            [1, 2],
        ),
        (
            "keywords that cannot be read",
            |s| s.keywords = Keywords::Model,
            vec![("keywords", None, "tea and leaves")],
            "accepted",
            "keywords.none",
            [1, 2],
        ),
        (
            "too few constraints go together",
            |s| {
                s.kinds = vec![
                    Kind::EnglishCapital.id().into(),
                    Kind::EnglishLowercase.id().into(),
                ];
            },
            vec![],
            "constrain/too_few",
            "",
            [0, 0],
        ),
        (
            "a single constraint",
            |s| (s.fewest, s.most) = (1, 1),
            vec![],
            "accepted",
            "constraints: 1",
            [1, 1],
        ),
    ];
    scenarios.into_iter().for_each(check);
}

#[test]
fn seeds_that_cannot_be_used() {
    let check = |name: &str, seed: Vec<Message>, set: fn(&mut Settings), expected: &str| {
        let end = run(set, &seed, &[]);
        assert_eq!(end.verdict, expected, "{name}");
        assert!(end.asked.is_empty() || expected == "accepted", "{name}");
    };
    let answered = vec![Message::new("user", "q"), Message::new("assistant", "a")];
    check("no turn", vec![], same, "read/no_user_turn");
    check("answered", answered, same, "read/no_user_turn");
    check("blank", user("  \n"), same, "read/empty");
    let german = user("Schreibe einen kurzen Text über den Hafen und die Schiffe.");
    check(
        "German",
        german,
        |s| s.language = "en".into(),
        "read/other_language",
    );
    // What the seed demands itself goes with no constraint of the same type.
    let own = user("Write about tea. Do not use any commas.");
    check("its own demand", own, same, "constrain/too_few");
}

#[test]
fn a_benchmark_s_prompt_is_not_made_again() {
    let words = "Write about tea in forty words and then about coffee in as many words again.";
    let end = run_with(same, &user(words), &[], &[words], |_| None);
    assert_eq!(end.verdict, "constrain/contaminated");
}

#[test]
fn the_teacher_writes_the_generation_variant() {
    let generation: fn(&mut Settings) = |s| s.variant = Variant::Generation;
    let good = "\"Tea is hot.\"";
    let cases: [(&str, Vec<Said>, &str, usize); 6] = [
        ("right", vec![("respond", None, good)], "accepted", 1),
        (
            "right at last",
            vec![("respond", Some(2), good)],
            "accepted",
            3,
        ),
        ("never", vec![], "generate/no_answer_satisfies", 3),
        ("empty", vec![("respond", None, "")], "generate/empty", 3),
        (
            "cut",
            vec![("respond", None, "T…")],
            "generate/truncated",
            3,
        ),
        (
            "declined",
            vec![("respond", None, "As an AI I do not drink")],
            "generate/refusal",
            3,
        ),
    ];
    for (name, said, expected, calls) in cases {
        let end = run(generation, &user(SEED), &said);
        assert_eq!(end.verdict, expected, "{name}");
        assert_eq!(end.asked.len(), calls, "{name}");
        assert_eq!(end.rows("dpo.jsonl").len(), 0, "{name}");
    }
}

#[test]
fn requests_that_cannot_be_answered_have_named_ends() {
    let overflow = |_: &str| {
        Some(RequestError::ContextOverflow {
            prompt_tokens: 9,
            wanted_tokens: 9,
            context_tokens: 10,
        })
    };
    let end = run_with(same, &user(SEED), &[], &[], overflow);
    assert_eq!(end.verdict, "respond/context_overflow");
    let only_the_teacher = |stage: &str| {
        (stage == "correct").then_some(RequestError::ContextOverflow {
            prompt_tokens: 9,
            wanted_tokens: 9,
            context_tokens: 10,
        })
    };
    let end = run_with(same, &user(SEED), &[], &[], only_the_teacher);
    assert_eq!(end.verdict, "correct/context_overflow");
}

#[test]
fn the_teacher_sees_the_instruction_all_constraints_and_what_was_found() {
    let end = run(same, &user(SEED), &[]);
    let asked = end.asked_at("correct");
    assert_eq!(asked.len(), 2);
    let row = &end.rows("sft.jsonl")[0];
    let instruction = row["messages"][0]["content"].as_str().unwrap();
    let meta: Value = serde_json::from_str(row["meta"].as_str().unwrap()).unwrap();
    for request in &asked {
        let text = all_text(request);
        assert!(text.contains(instruction), "{text}");
        for constraint in meta["constraints"].as_array().unwrap() {
            assert!(text.contains(constraint.as_str().unwrap()), "{text}");
        }
    }
    // The comma first: quotation marks stand at the ends, which other changes would touch.
    assert!(all_text(asked[0]).ends_with("What was found: 1 commas, asked: none"));
    assert!(all_text(asked[1]).contains("Tea is hot and good."));
    assert_eq!(
        meta["corrected"],
        json!([Kind::NoComma.id(), Kind::Quotation.id()])
    );
    assert_eq!(end.answers(), ["\"Tea is hot and good.\""]);
    // Each pair has the last answer before one of those on the way to it.
    let rejected: Vec<&str> = end
        .rows("dpo.jsonl")
        .iter()
        .map(|row| row["rejected"][0]["content"].as_str().unwrap())
        .collect();
    assert_eq!(rejected, ["Tea is hot, and good.", "Tea is hot and good."]);
}

#[test]
fn what_is_tried_again_is_drawn_anew() {
    let end = run(same, &user(SEED), &[("correct", None, "No, no.")]);
    let asked = end.asked_at("correct");
    // Three attempts at each of the two constraints.
    assert_eq!(asked.len(), 6);
    let mut seeds: Vec<u64> = asked.iter().map(|one| one.seed).collect();
    seeds.sort_unstable();
    seeds.dedup();
    assert_eq!(seeds.len(), 6);
    let warm = |one: &&&Generate| one.sampling.temperature > 0.0;
    assert_eq!(asked.iter().filter(warm).count(), 4);
}

#[test]
fn as_published_chooses_the_last_answer_as_it_is() {
    let published: fn(&mut Settings) = |s| {
        *s = Settings {
            kinds: s.kinds.clone(),
            fewest: 2,
            most: 2,
            ..Settings::as_published()
        };
    };
    let end = run(published, &user(SEED), &[]);
    assert_eq!(
        (end.verdict.as_str(), end.rows("dpo.jsonl").len()),
        ("accepted", 2)
    );
    assert_eq!(end.counts["select.chosen_right"], 1);
    // The teacher sees an answer and a constraint.
    let asked = end.asked_at("correct_alone");
    assert_eq!(asked.len(), 2);
    assert!(!all_text(asked[0]).contains(SEED));
    // What a later step breaks stays broken.
    let broken = "---revised response---:\n\"Tea, is hot.\"";
    let end = run(
        published,
        &user(SEED),
        &[("correct_alone", Some(1), broken)],
    );
    let worse = end.counts["select.chosen_wrong"] == 1;
    assert!(worse && end.verdict == "accepted", "{:?}", end.counts);
    assert_eq!(end.answers(), ["\"Tea, is hot.\""]);
    // An answer without its marker is skipped, and counted.
    let end = run(
        published,
        &user(SEED),
        &[("correct_alone", None, "my analysis: none")],
    );
    assert_eq!(end.counts["correct.unparsed"], 2);
    assert_eq!((end.answers().len(), end.rows("dpo.jsonl").len()), (1, 0));
    // A student that is right gives no row.
    let end = run(
        published,
        &user(SEED),
        &[("respond", None, "\"Tea is hot.\"")],
    );
    assert_eq!(end.verdict, "select/nothing_failed");
}

#[test]
fn what_the_seed_demands_itself_is_checked_and_corrected() {
    let quoted = |settings: &mut Settings| {
        settings.kinds = vec![Kind::Quotation.id().to_owned()];
        (settings.fewest, settings.most) = (1, 1);
    };
    let seed = user("Write about tea. Do not use any commas.");
    let end = run(quoted, &seed, &[]);
    assert_eq!(end.verdict, "accepted");
    assert_eq!(end.answers(), ["\"Tea is hot and good.\""]);
    let ids = &end.rows("sft.jsonl")[0]["instruction_id_list"];
    assert_eq!(*ids, json!([Kind::Quotation.id(), Kind::NoComma.id()]));
    assert_eq!(end.counts["constraints: 1"], 1);
    assert_eq!(end.counts["constraints_of_the_seed"], 1);
    // Its words are in the instruction once.
    let prompt = end.rows("dpo.jsonl")[0]["prompt"].to_string();
    assert_eq!(prompt.matches("commas").count(), 1, "{prompt}");
}

#[test]
fn what_was_said_before_is_kept() {
    let mut seed = vec![
        Message::new("user", "Hello."),
        Message::new("assistant", "Hi."),
    ];
    seed.extend(user(SEED));
    let end = run(same, &seed, &[]);
    let row = &end.rows("dpo.jsonl")[0];
    assert_eq!(row["prompt"].as_array().unwrap().len(), 3);
    let Prompt::Messages(asked) = &end.asked_at("respond")[0].prompt else {
        panic!("messages are sent");
    };
    assert_eq!((asked.len(), asked[1].content.as_str()), (3, "Hi."));
}

/// A fraction that depends on the text alone.
fn fraction(text: &str) -> f64 {
    let hash = blake3::hash(text.as_bytes());
    f64::from(hash.as_bytes()[0]) / 256.0
}

/// What instructions ask for, by their words.
type Known = Arc<Mutex<BTreeMap<String, Vec<Constraint>>>>;

/// A student and a teacher for any constraints: they know what an instruction asks for by its
/// words. The student satisfies some of it; the teacher keeps what an answer satisfies and
/// mends something that fails, often what it is told to and sometimes something else.
fn able(known: &Known) -> impl Fn(&Generate) -> Result<String, RequestError> + use<> {
    let known = Arc::clone(known);
    move |request| {
        let text = Scripted::last_text(request);
        let luck = (fraction(&format!("{text} {}", request.seed)) * 256.0) as usize;
        let known = known.lock().unwrap();
        let wanted: Vec<Constraint> = match stage_of(request) {
            "respond" => {
                let all = known.get(text).cloned().unwrap_or_default();
                let lucky = |(index, _): &(usize, Constraint)| luck >> index & 1 == 1;
                all.into_iter()
                    .enumerate()
                    .filter(lucky)
                    .map(|(_, one)| one)
                    .collect()
            }
            "correct_alone" => return Ok(format!("---revised response---:\n{text}")),
            _ => {
                let (_, rest) = text.split_once("Request:\n").unwrap();
                let (instruction, rest) = rest.split_once("\n\nDemands:\n").unwrap();
                let (_, rest) = rest.split_once("\nAnswer:\n").unwrap();
                let (answer, _) = rest.rsplit_once("\n\nBroken demand:\n").unwrap();
                let all = known.get(instruction).cloned().unwrap_or_default();
                let verdicts = strict(&all, answer);
                let (held, failed): (Vec<_>, Vec<_>) = all
                    .into_iter()
                    .zip(verdicts)
                    .partition(|(_, verdict)| verdict.followed);
                let next = failed.get(luck % failed.len().max(1));
                held.iter()
                    .chain(next)
                    .map(|(one, _)| one.clone())
                    .collect()
            }
        };
        let text = satisfying_text(&wanted);
        Ok(text
            .filter(|_| !wanted.is_empty())
            .unwrap_or_else(|| "No text, none.".to_owned()))
    }
}

fn able_model(known: &Known) -> Scripted {
    Scripted::new(able(known))
}

/// What each instruction of these rows asks for, found by taking every row through the recipe
/// with a student that says nothing.
fn instructions(context: &Context, rows: &[(String, Vec<Message>)]) -> Known {
    let settings = Settings {
        correction: Correction::AsPublished,
        near_duplicates: 0.0,
        ..context.settings.clone()
    };
    let context = Context {
        settings,
        ..context.clone()
    };
    let folder = tempfile::tempdir().unwrap();
    let known = Arc::new(Mutex::new(BTreeMap::new()));
    let model = Arc::new(able_model(&known));
    drive(
        folder.path(),
        &context,
        rows,
        &model,
        &DriveOptions::default(),
    );
    for row in read_rows(folder.path().join("data/sft.jsonl")) {
        let messages = row["messages"].as_array().unwrap();
        let instruction = messages[messages.len() - 2]["content"].as_str().unwrap();
        let constraints = constraints_of(&row);
        known
            .lock()
            .unwrap()
            .insert(instruction.to_owned(), constraints);
    }
    known
}

fn constraints_of(row: &Value) -> Vec<Constraint> {
    let ids = row["instruction_id_list"].as_array().unwrap();
    let kwargs = row["kwargs"].as_array().unwrap();
    let pairs = ids.iter().zip(kwargs);
    pairs
        .map(|(id, kwargs)| {
            let kwargs: Map<String, Value> =
                serde_json::from_str(kwargs.as_str().unwrap()).unwrap();
            Constraint::from_ifeval(id.as_str().unwrap(), &kwargs).unwrap()
        })
        .collect()
}

fn all_hold(constraints: &[Constraint], text: &str) -> bool {
    strict(constraints, text)
        .iter()
        .all(|verdict| verdict.followed)
}

/// Every chosen answer of the files satisfies all of its constraints, every rejected one breaks
/// one; by the columns of the files alone.
fn check_files(folder: &Path) -> (usize, usize) {
    let content = |turns: &Value| {
        let turns = turns.as_array().unwrap();
        turns.last().unwrap()["content"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let answers = read_rows(folder.join("data/sft.jsonl"));
    for row in &answers {
        assert!(
            all_hold(&constraints_of(row), &content(&row["messages"])),
            "{row}"
        );
    }
    let pairs = read_rows(folder.join("data/dpo.jsonl"));
    for row in &pairs {
        let constraints = constraints_of(row);
        assert!(all_hold(&constraints, &content(&row["chosen"])), "{row}");
        assert!(!all_hold(&constraints, &content(&row["rejected"])), "{row}");
    }
    (answers.len(), pairs.len())
}

fn toy_rows(count: usize) -> Vec<(String, Vec<Message>)> {
    let topics = [
        "tea",
        "rain",
        "the harbour",
        "old maps",
        "bread",
        "a lost key",
        "moths",
    ];
    (0..count)
        .map(|row| {
            let text = format!(
                "Write about {} for reader {row}.",
                topics[row % topics.len()]
            );
            (format!("row{row}"), user(&text))
        })
        .collect()
}

fn context(settings: Settings) -> Context {
    Context {
        prompts: PromptSet::embedded(),
        settings,
        contamination: Contamination::new(std::iter::empty()),
    }
}

fn data_of(folder: &Path) -> BTreeMap<String, String> {
    fs::read_dir(folder.join("data"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect()
}

#[test]
fn files_do_not_depend_on_concurrency_order_or_interruption() {
    let context = context(Settings {
        near_duplicates: 0.0,
        ..Settings::default()
    });
    let rows = toy_rows(60);
    let known = instructions(&context, &rows);
    let options = |concurrency, accept| DriveOptions {
        concurrency,
        accept,
        ..DriveOptions::default()
    };
    let plain = tempfile::tempdir().unwrap();
    let model = Arc::new(able_model(&known));
    drive(plain.path(), &context, &rows, &model, &options(1, None));
    let expected = data_of(plain.path());
    let (answers, pairs) = check_files(plain.path());
    assert!(answers > 25 && pairs > 25, "{answers} {pairs}");
    // Many at once, answers out of order.
    let many = tempfile::tempdir().unwrap();
    let shuffled = Arc::new(able_model(&known).shuffled(5, 8));
    let releaser = Arc::clone(&shuffled);
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let ended = Arc::clone(&done);
    let thread = std::thread::spawn(move || {
        while !ended.load(std::sync::atomic::Ordering::SeqCst) {
            if !releaser.release() {
                std::thread::yield_now();
            }
        }
    });
    drive(many.path(), &context, &rows, &shuffled, &options(32, None));
    done.store(true, std::sync::atomic::Ordering::SeqCst);
    thread.join().unwrap();
    assert_eq!(data_of(many.path()), expected);
    // Stopped at once, again and again, and continued; no logged call is asked again.
    let broken = tempfile::tempdir().unwrap();
    let mut calls = 0;
    for stop_after in [5, 20, 45] {
        let stop = StopSignal::default();
        let answer = able(&known);
        let signal = stop.clone();
        let asked = std::sync::atomic::AtomicUsize::new(0);
        let model = Arc::new(Scripted::new(move |request| {
            if asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == stop_after {
                signal.request();
                signal.request();
            }
            answer(request)
        }));
        let options = DriveOptions {
            stop,
            ..options(4, None)
        };
        drive(broken.path(), &context, &rows, &model, &options);
        calls += model.asked().len();
    }
    let last = Arc::new(able_model(&known));
    drive(broken.path(), &context, &rows, &last, &options(4, None));
    assert_eq!(data_of(broken.path()), expected);
    calls += last.asked().len();
    // What was under way when it was stopped is asked again, and nothing else.
    let straight = model.asked().len();
    assert!(calls <= straight + 3 * 4, "{calls} {straight}");
    // A part, and then the rest.
    let part = tempfile::tempdir().unwrap();
    let model = Arc::new(able_model(&known));
    let funnel = drive(part.path(), &context, &rows, &model, &options(8, Some(10)));
    assert_eq!(funnel.accepted, 10);
    let more = Arc::new(able_model(&known));
    drive(part.path(), &context, &rows, &more, &options(8, None));
    assert_eq!(data_of(part.path()), expected);
}

fn real_rows() -> Vec<(String, Vec<Message>)> {
    let shared = std::env::var_os("AUTODIDACT_SHARED").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
        PathBuf::from,
    );
    let file = shared.join("data/seeds/complex_to_simple_seed_data.jsonl");
    let rows =
        data::read_prompts(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let rows = rows.enumerate().map(|(index, row)| {
        let mut messages = row.unwrap().messages;
        messages.retain(|turn| turn.role == "user");
        (format!("seed{index}"), messages)
    });
    rows.collect()
}

/// Five constraints on each of these rows.
fn five_constraints(rows: &[(String, Vec<Message>)]) {
    let context = context(Settings {
        fewest: 5,
        most: 5,
        ..Settings::default()
    });
    let known = instructions(&context, rows);
    let folder = tempfile::tempdir().unwrap();
    let model = Arc::new(able_model(&known));
    let options = DriveOptions::default();
    let funnel = drive(folder.path(), &context, rows, &model, &options);
    let (answers, pairs) = check_files(folder.path());
    println!("{answers} answers, {pairs} pairs, {:?}", funnel.rejected);
    println!("{:?}", funnel.counts);
    assert_eq!(funnel.read, rows.len() as u64);
    assert_eq!(answers as u64, funnel.accepted);
    assert!(answers * 5 > rows.len() * 3, "{:?}", funnel.rejected);
    assert!(
        !funnel.rejected.contains_key("export"),
        "{:?}",
        funnel.rejected
    );
}

#[test]
fn real_seeds_with_five_constraints() {
    let rows: Vec<_> = real_rows().into_iter().step_by(10).collect();
    five_constraints(&rows);
}

#[test]
#[ignore = "takes a minute or more"]
fn fifteen_hundred_real_seeds_with_five_constraints() {
    let rows = real_rows();
    assert_eq!(rows.len(), 1500);
    five_constraints(&rows);
}

/// A teacher as unreliable as the published one: of its edits six in ten mend what they are
/// told to, and each breaks one in five of what held. It knows an answer's constraints by the
/// answer.
fn unreliable_model(known: &Known) -> Scripted {
    let known = Arc::clone(known);
    let answers = Mutex::new(BTreeMap::<String, Vec<Constraint>>::new());
    Scripted::new(move |request| {
        let text = Scripted::last_text(request);
        let luck = |what: &str| fraction(&format!("{what} {text} {}", request.seed));
        let mut answers = answers.lock().unwrap();
        let (all, wanted): (Vec<Constraint>, Vec<Constraint>) = match stage_of(request) {
            "keywords" => return Ok(json!({"keywords": ["tea"]}).to_string()),
            "respond" => {
                let all = known.lock().unwrap().get(text).cloned().unwrap_or_default();
                let mut wanted = all.clone();
                // The student satisfies four in ten.
                wanted.retain(|one| luck(one.id()) < 0.4);
                (all, wanted)
            }
            stage => {
                let (open, close, end) = match stage {
                    "correct" => ("\nAnswer:\n", "\n\nBroken demand:\n", "\n\nWhat was found"),
                    _ => (
                        "---response---:\n",
                        "\n---constraint---:\n",
                        "\n\n---OUTPUT---",
                    ),
                };
                let (_, rest) = text.split_once(open).unwrap();
                let (answer, rest) = rest.rsplit_once(close).unwrap();
                let (told, _) = rest.split_once(end).unwrap();
                let all = answers.get(answer).cloned().unwrap_or_default();
                let verdicts = strict(&all, answer);
                let mut wanted = Vec::new();
                for (one, verdict) in all.iter().zip(verdicts) {
                    let is_told = (0..60).any(|choice| describe(one, choice) == told);
                    let keeps = match verdict.followed {
                        true => luck(one.id()) < 0.8,
                        false => is_told && luck(one.id()) < 0.6,
                    };
                    wanted.extend(keeps.then(|| one.clone()));
                }
                (all, wanted)
            }
        };
        let row = blake3::hash(format!("{:?}", all).as_bytes()).to_hex();
        let text = satisfying_text(&wanted).filter(|_| !wanted.is_empty());
        let text = text.unwrap_or_else(|| format!("None, {}, of it.", &row[..6]));
        answers.insert(text.trim().to_owned(), all);
        let published = stage_of(request) == "correct_alone";
        Ok(if published {
            format!("---revised response---:\n{text}")
        } else {
            text
        })
    })
}

#[test]
fn checked_steps_leave_no_wrong_answer_where_published_ones_leave_most() {
    let rows: Vec<_> = real_rows().into_iter().step_by(10).collect();
    both_ways(&rows);
}

#[test]
#[ignore = "takes a minute or more"]
fn both_ways_on_fifteen_hundred_real_seeds() {
    both_ways(&real_rows());
}

fn both_ways(rows: &[(String, Vec<Message>)]) {
    let table = [Settings::default(), Settings::as_published()].map(|settings| {
        let context = context(Settings {
            keywords: Keywords::Seed,
            near_duplicates: 0.0,
            ..settings
        });
        let known = instructions(&context, rows);
        let folder = tempfile::tempdir().unwrap();
        let model = Arc::new(unreliable_model(&known));
        let options = DriveOptions {
            concurrency: 1,
            ..DriveOptions::default()
        };
        let funnel = drive(folder.path(), &context, rows, &model, &options);
        let answers = read_rows(folder.path().join("data/sft.jsonl"));
        let right = answers.iter().filter(|row| {
            let turns = row["messages"].as_array().unwrap();
            all_hold(
                &constraints_of(row),
                turns.last().unwrap()["content"].as_str().unwrap(),
            )
        });
        let (right, pairs) = (right.count(), funnel.counts.get("select.pairs").copied());
        let calls = funnel.counts["correct.calls"];
        println!(
            "{:?}: {} rows, {} answers, {right} right, {pairs:?} pairs, {calls} corrections, {:?}",
            context.settings.correction,
            funnel.read,
            answers.len(),
            funnel.rejected
        );
        (right, answers.len())
    });
    let [(ours_right, ours), (theirs_right, theirs)] = table;
    assert_eq!(ours_right, ours);
    assert!(ours > rows.len() / 4, "{ours}");
    assert!(theirs_right * 2 < theirs, "{theirs_right} of {theirs}");
}

#[test]
fn every_wording_says_its_parameters_in_every_layout() {
    let mut draws = Draws::new(7);
    let prompts = PromptSet::embedded();
    for kind in Kind::ALL {
        for choice in 0..60_u64 {
            let material = verify::compose::Material::default();
            let constraint = verify::compose::sample(kind, &material, &mut || draws.bits());
            let text = describe(&constraint, choice);
            let variables = json!({
                "id": kind.id(), "kwargs": constraint.kwargs(), "text": text, "choice": choice,
            });
            let form = prompts.get("complex-to-simple/constraint");
            let said = form.render(variables).unwrap()[0].content.clone();
            assert_eq!(said, text);
            let form = prompts.get("complex-to-simple/instruction");
            let variables = json!({"seed": "Say it.", "constraints": [said], "choice": choice});
            let whole = form.render(variables).unwrap()[0].content.clone();
            assert!(
                whole.starts_with("Say it.") && whole.ends_with(&text),
                "{whole}"
            );
            verify::compose::mentions_parameters(&constraint, &whole).unwrap();
        }
    }
}

#[test]
fn presets_differ_where_they_say() {
    let (ours, theirs) = (Settings::default(), Settings::as_published());
    assert_eq!((ours.fewest, ours.most), (theirs.fewest, theirs.most));
    assert_eq!(ours.parameters, Parameters::Published);
    assert_eq!(theirs.drawing, Drawing::AsPublished);
    assert_eq!(ours.files(), ["sft.jsonl", "dpo.jsonl"]);
    let generation = Settings {
        variant: Variant::Generation,
        ..ours
    };
    assert_eq!(generation.files(), ["sft.jsonl"]);
}
