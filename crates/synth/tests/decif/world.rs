//! A model from a script, and runs of the recipe against it.

use data::{Generate, Prompt, RequestError, Score, SuffixScores};
use pipeline::testing::{Asked, Scripted};
use pipeline::{
    Admit, AdmitAll, DriveOptions, Funnel, Llm, Manifest, OnChange, Part, Roles, Run, Shard,
    Sourced, Target,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use synth::decif::{self, Ask, Context, Item, Next, Pools, Scenario, Settings, Soft};
use synth::filters::{Contamination, NearDuplicates};
use synth::prompts::PromptSet;

/// All turns of a request.
pub(crate) fn all_text(request: &Generate) -> String {
    let Prompt::Messages(messages) = &request.prompt else {
        return String::new();
    };
    let texts: Vec<&str> = messages.iter().map(|one| one.content.as_str()).collect();
    texts.join("\n")
}

/// What is asked for, by the system's turn.
pub(crate) fn stage_of(request: &Generate) -> &'static str {
    let text = all_text(request);
    let marks = [
        ("one key, \"domains\"", "domains"),
        ("one key, \"requests\"", "requests"),
        ("one key, \"scenarios\"", "scenarios"),
        ("one key, \"personas\"", "personas"),
        ("one key, \"constraints\"", "constraints"),
        ("You write the request that", "instruction"),
        ("You look for contradictions", "conflict"),
        ("You repair requests", "resolve"),
        ("You break a request down", "criteria"),
        ("You control the quality", "judge"),
        ("You are an expert", "respond"),
    ];
    let known = marks.iter().find(|(mark, _)| text.contains(mark));
    known.map_or("unknown", |(_, stage)| stage)
}

/// Text of the user's turn after a mark.
pub(crate) fn after<'a>(request: &'a Generate, mark: &str) -> &'a str {
    let text = Scripted::last_text(request);
    text.split_once(mark).map_or("", |(_, rest)| rest)
}

/// A number that depends on the text alone.
pub(crate) fn hash(text: &str) -> u64 {
    let hash = blake3::hash(text.as_bytes());
    u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap())
}

/// A made-up word.
pub(crate) fn word(number: u64) -> String {
    let syllables = ["po", "de", "fi", "go", "lu", "ma", "ne", "ro", "su", "ti"];
    let mut left = number;
    let mut text = String::new();
    for _ in 0..4 {
        text += syllables[(left % 10) as usize];
        left /= 10;
    }
    text
}

/// How many entries a call asks for.
fn wanted(request: &Generate) -> u64 {
    let text = Scripted::last_text(request);
    let line = text.lines().find(|line| {
        ["Name ", "Describe ", "Write "]
            .iter()
            .any(|verb| line.starts_with(verb))
    });
    let number = line.and_then(|line| line.split(' ').nth(1)?.parse().ok());
    number.unwrap_or(1)
}

/// Everything goes well: entries are new, instructions make every demand and contradict
/// nothing; a response with `bad` in it fails. A function of the request alone.
pub(crate) fn usual(request: &Generate) -> String {
    let stage = stage_of(request);
    let draw = hash(&format!("{}{}", all_text(request), request.seed));
    let list = |entry: &dyn Fn(String, String) -> Value| {
        let entries: Vec<Value> = (0..wanted(request))
            .map(|n| {
                entry(
                    word(draw.wrapping_add(n * 7919)),
                    word(draw / 10_000 + n * 104_729),
                )
            })
            .collect();
        json!({ stage: entries }).to_string()
    };
    match stage {
        "domains" => list(&|a, _| json!(a)),
        "requests" => list(&|a, b| json!(format!("write {a} {b}"))),
        "personas" => list(&|a, _| json!(format!("a {a}"))),
        "scenarios" => list(
            &|a, b| json!({"persona": format!("a {a}"), "time": "at noon", "place": format!("in {b}"), "trigger": "a guest comes"}),
        ),
        "constraints" => list(
            &|a, b| json!({"constraint": format!("Sound {a} and {b}."), "question": format!("Does it sound {a}?")}),
        ),
        "instruction" => {
            let demands: Vec<&str> = after(request, "Demands:\n").split("\n- ").collect();
            let request = after(request, "Meta-request: ").lines().next().unwrap();
            let demands = demands.join(" ");
            // Enough words of its own to be like no other.
            let own: Vec<String> = (1..9).map(|n| word(draw / n)).collect();
            let request = format!("{request} with {}", own.join(" "));
            json!({"instruction": format!("Please {request}. {}", demands.trim_start_matches("- "))})
                .to_string()
        }
        "conflict" => json!({"explanation": "fine", "conflict": "NO"}).to_string(),
        "resolve" => {
            let text = after(request, "Request:\n")
                .split("\n\nWhat is wrong")
                .next()
                .unwrap();
            json!({"instruction": format!("{text} Mended.")}).to_string()
        }
        "criteria" => json!({"criteria": ["Is it to the point?"]}).to_string(),
        "respond" => format!("good {}", word(draw)),
        _ => {
            let questions = after(request, "Questions:\n").lines().count();
            let bad = after(request, "Answer:\n").contains("bad");
            let verdict = |index| {
                if bad && index + 1 == questions {
                    "NO"
                } else {
                    "YES"
                }
            };
            let one = |index| json!({"explanation": "so", "verdict": verdict(index)});
            json!({"verdicts": (0..questions).map(one).collect::<Vec<_>>()}).to_string()
        }
    }
}

/// Scores that say NO to a response with `bad` in it.
pub(crate) fn usual_scores(score: &Score) -> Result<SuffixScores, RequestError> {
    let Prompt::Messages(messages) = &score.prefix else {
        return Err(RequestError::Invalid("the judge sends messages".into()));
    };
    let bad = messages.last().unwrap().content.contains("bad");
    Ok(label_scores(if bad { 0.2 } else { 0.9 }, 1.0))
}

pub(crate) fn label_scores(yes: f32, mass: f32) -> SuffixScores {
    SuffixScores {
        logprobs: vec![yes.ln(), (1.0 - yes).ln()],
        probabilities: vec![yes, 1.0 - yes],
        mass,
    }
}

/// A model that answers as usual.
pub(crate) fn model() -> Scripted {
    Scripted::new(|request| Ok(usual(request))).with_suffix_scores(usual_scores)
}

/// One rule, no commas, and one soft constraint.
pub(crate) fn one_of_each() -> Settings {
    Settings {
        counts: vec![0.0, 1.0],
        soft_share: 1.0,
        rules: vec!["punctuation:no_comma".into()],
        kinds: vec!["tone".into()],
        ..Settings::default()
    }
}

/// Small pools.
pub(crate) fn few() -> Settings {
    Settings {
        domains: 4,
        requests_per_domain: 3,
        scenarios_per_request: 2,
        constraints_per_kind: 2,
        domains_per_call: 2,
        per_call: 2,
        rules: vec![
            "punctuation:no_comma".into(),
            "keywords:forbidden_words".into(),
        ],
        ..Settings::default()
    }
}

pub(crate) fn item() -> Item {
    Item {
        domain: "Tea".into(),
        request: "write about tea".into(),
        scenario: Scenario {
            persona: "a cook".into(),
            time: "at noon".into(),
            place: "at home".into(),
            trigger: "guests come".into(),
        },
        persona: "a cook".into(),
        soft: vec![Soft {
            kind: "tone".into(),
            constraint: "Sound cheerful throughout.".into(),
            question: "Does it sound cheerful?".into(),
        }]
        .into(),
    }
}

/// What became of a run.
pub(crate) struct End {
    pub(crate) funnel: Funnel,
    pub(crate) files: BTreeMap<String, String>,
    pub(crate) asked: Vec<Asked>,
    pub(crate) pools: Option<Pools>,
}

impl End {
    /// `accepted`, or `stage/reason`, of a run of one row.
    pub(crate) fn verdict(&self) -> String {
        let rejected = self.funnel.rejected.iter().next();
        rejected.map_or("accepted".into(), |(stage, reasons)| {
            format!("{stage}/{}", reasons.keys().next().unwrap())
        })
    }

    pub(crate) fn count(&self, name: &str) -> u64 {
        self.funnel.counts.get(name).copied().unwrap_or(0)
    }

    pub(crate) fn rows(&self, file: &str) -> Vec<Value> {
        let text = self.files.get(file).map_or("", String::as_str);
        let rows = text.lines().map(|line| serde_json::from_str(line).unwrap());
        rows.collect()
    }

    pub(crate) fn asked_at(&self, stage: &str) -> Vec<&Generate> {
        let generated = self.asked.iter().filter_map(|asked| match asked {
            Asked::Generate(request) if stage_of(request) == stage => Some(request),
            _ => None,
        });
        generated.collect()
    }
}

pub(crate) fn meta_of(row: &Value) -> Value {
    serde_json::from_str(row["meta"].as_str().unwrap()).unwrap()
}

pub(crate) fn context(settings: &Settings, benchmark: &[&str]) -> Context {
    settings.validate().unwrap();
    Context {
        prompts: PromptSet::embedded(),
        settings: settings.clone(),
        contamination: Contamination::new(benchmark.iter().copied()),
    }
}

fn open(folder: &Path, context: &Context, shard: Shard) -> Run {
    let manifest = Manifest {
        program: "test".into(),
        recipe: decif::RECIPE.into(),
        seed: 1,
        source: "none".into(),
        shard,
        models: BTreeMap::new(),
        settings: json!(context.settings),
        prompts: context.prompts.digests(decif::NAME),
    };
    Run::open(folder, manifest, OnChange::Refuse).unwrap()
}

fn roles(model: &Arc<Scripted>) -> Roles {
    Roles::new(Target {
        generator: Some(Arc::clone(model) as Arc<dyn data::Generator>),
        identity: "scripted".into(),
        adapter: None,
    })
}

fn admit(settings: &Settings) -> Box<dyn Admit> {
    match settings.near_duplicates > 0.0 {
        true => Box::new(NearDuplicates::new(settings.near_duplicates)),
        false => Box::new(AdmitAll),
    }
}

pub(crate) fn files(folder: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(folder.join("data")).unwrap();
    let read = entries.map(|entry| {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        (name, fs::read_to_string(path).unwrap())
    });
    read.collect()
}

fn export(run: &Run, context: &Context, accept: Option<u64>) -> Funnel {
    let files = context.settings.files();
    let named: Vec<&str> = files.iter().map(String::as_str).collect();
    let mut admit = admit(&context.settings);
    run.export(decif::NAME, &named, accept, admit.as_mut())
        .unwrap()
}

/// One item through the second part of the recipe.
pub(crate) fn run_item(context: &Context, item: &Item, model: Scripted) -> End {
    let folder = tempfile::tempdir().unwrap();
    let model = Arc::new(model);
    let run = open(folder.path(), context, Shard::ALL);
    let recipe = async |item: &Item, llm: &Llm<'_>| decif::run(item, llm, context).await;
    let source = std::iter::once(Sourced {
        id: "row".into(),
        row: Ok(item.clone()),
    });
    let options = DriveOptions::default();
    let roles = roles(&model);
    run.drive(
        decif::NAME,
        source,
        &roles,
        &options,
        &recipe,
        &mut AdmitAll,
        &mut |_| (),
    )
    .unwrap();
    let funnel = export(&run, context, None);
    assert_eq!((funnel.read, funnel.unfinished), (1, 0));
    End {
        funnel,
        files: files(folder.path()),
        asked: model.asked(),
        pools: None,
    }
}

/// The whole recipe in a folder; continues what is there.
pub(crate) fn run_whole(
    folder: &Path,
    context: &Context,
    model: &Arc<Scripted>,
    options: &DriveOptions,
) -> End {
    run_shard(folder, context, model, (options, Shard::ALL))
}

pub(crate) fn run_shard(
    folder: &Path,
    context: &Context,
    model: &Arc<Scripted>,
    (options, shard): (&DriveOptions, Shard),
) -> End {
    let run = open(folder, context, shard);
    let roles = roles(model);
    let mut pools = Pools::new(&context.settings, 1);
    let whole = DriveOptions {
        accept: None,
        max_rows: None,
        part: Part::Whole,
        ..options.clone()
    };
    let ask = async |ask: &Ask, llm: &Llm<'_>| decif::ask(ask, llm, context).await;
    let instruct = async |item: &Item, llm: &Llm<'_>| decif::run(item, llm, context).await;
    decif::epochs::<()>(
        &mut pools,
        &mut |step, rows| {
            let source = rows.iter().cloned();
            let name = step.name();
            let report = run
                .drive(
                    name,
                    source,
                    &roles,
                    &whole,
                    &ask,
                    &mut AdmitAll,
                    &mut |_| (),
                )
                .unwrap();
            assert!(report.is_whole());
            let mut outcomes = Vec::new();
            run.outcomes(name, &mut AdmitAll, &mut |_, outcome| {
                outcomes.push(outcome)
            })
            .unwrap();
            // Later rounds of an earlier invocation may be there, too.
            assert!(outcomes.len() >= rows.len());
            Ok(outcomes)
        },
        &mut |items| {
            let source = items.iter().cloned();
            let mut admit = admit(&context.settings);
            let report = run
                .drive(
                    decif::NAME,
                    source,
                    &roles,
                    options,
                    &instruct,
                    admit.as_mut(),
                    &mut |_| (),
                )
                .unwrap();
            let more = options
                .accept
                .is_some_and(|accept| report.funnel.accepted < accept);
            Ok(if more { Next::Epoch } else { Next::End })
        },
    )
    .unwrap();
    let funnel = export(&run, context, options.accept);
    End {
        funnel,
        files: files(folder),
        asked: model.asked(),
        pools: Some(pools),
    }
}

/// The whole recipe in a folder of its own.
pub(crate) fn run_fresh(settings: &Settings, model: Scripted, options: &DriveOptions) -> End {
    let folder = tempfile::tempdir().unwrap();
    run_whole(
        folder.path(),
        &context(settings, &[]),
        &Arc::new(model),
        options,
    )
}
