//! A small recipe with several stages, waves and every kind of ending.

use data::{Generate, Message, Prompt, Rejection, RequestError, Sampling, Score};
use pipeline::testing::Scripted;
use pipeline::{
    Admit, DriveOptions, Llm, Manifest, OnChange, Report, Roles, Run, Shard, Sourced, Stop, Target,
    reject,
};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// Files of the data.
pub(crate) const FILES: [&str; 2] = ["sft.jsonl", "dpo.jsonl"];

/// Rows 0.., with an unreadable one and a repeated id now and then.
pub(crate) fn source(rows: usize) -> impl Iterator<Item = Sourced<String>> {
    (0..rows).map(|row| match row % 17 {
        11 => Sourced {
            id: format!("row{row}"),
            row: Err(Rejection::new("read", "unreadable", format!("line {row}"))),
        },
        13 => Sourced {
            id: format!("row{}", row - 1),
            row: Ok("again".into()),
        },
        _ => Sourced {
            id: format!("row{row}"),
            row: Ok(format!("seed {row}")),
        },
    })
}

fn ask(text: String, seed: u64) -> Generate {
    Generate {
        sampling: Sampling::default(),
        seed,
        max_tokens: Some(100),
        ..Generate::new(Prompt::Messages(vec![Message::new("user", text)]))
    }
}

/// Two dependent calls, waves of samples, a score for each; accepts, rejects, writes
/// by-products and counts.
pub(crate) async fn recipe(row: &String, llm: &Llm<'_>) -> Result<(), Stop> {
    let composed = llm
        .generate(
            "compose",
            "compose",
            ask(format!("compose {row}"), llm.seed("compose", 0)),
        )
        .await?
        .text;
    if composed.contains("bad") {
        return Err(reject("compose", "bad_text", composed));
    }
    llm.record(
        "dpo.jsonl",
        json!({"id": llm.row_id(), "composed": composed}),
    );
    let request = ask(format!("answer {composed}"), llm.seed("respond", 0));
    for wave in [0..2, 2..5] {
        for sample in llm.samples("respond", "respond", &request, wave).await? {
            let score = Score {
                prefix: Prompt::Text(sample.text.clone()),
                suffixes: Vec::new(),
                labels: vec!["YES".into(), "NO".into()],
                adapter: None,
            };
            let yes = llm.score("judge", "judge", score).await?.suffixes[0].probabilities[0];
            llm.count("judged", 1);
            if yes > 0.7 {
                llm.record(
                    "sft.jsonl",
                    json!({"id": llm.row_id(), "text": sample.text, "sample": sample.index}),
                );
                return Ok(());
            }
        }
    }
    Err(reject("select", "no_response_passes", ""))
}

/// A fraction that depends on the text alone.
fn fraction(text: &str) -> f32 {
    let hash = blake3::hash(text.as_bytes());
    f32::from(hash.as_bytes()[0]) / 255.0
}

/// Text that depends on request and seed alone.
pub(crate) fn answer(request: &Generate) -> Result<String, RequestError> {
    let text = Scripted::last_text(request);
    let draw = fraction(&format!("{text} {}", request.seed));
    if text.starts_with("compose") && draw < 0.1 {
        return Ok("bad \"text\"\nof two lines".into());
    }
    if text.starts_with("answer") && draw > 0.98 {
        return Err(RequestError::ContextOverflow {
            prompt_tokens: 9,
            wanted_tokens: 9,
            context_tokens: 10,
        });
    }
    Ok(format!("{} of {text} é", (draw * 8.0) as u32))
}

/// A probability that depends on the text alone.
pub(crate) fn judge(score: &Score) -> Result<f32, RequestError> {
    match &score.prefix {
        Prompt::Text(text) => Ok(fraction(text)),
        _ => Err(RequestError::Invalid("the recipe scores text".into())),
    }
}

pub(crate) fn model() -> Scripted {
    Scripted::new(answer).with_scores(judge)
}

pub(crate) fn manifest(shard: Shard) -> Manifest {
    Manifest {
        program: "test 1".into(),
        recipe: "toy 1".into(),
        seed: 7,
        source: "numbers".into(),
        shard,
        models: BTreeMap::from([("all".into(), "scripted".into())]),
        settings: json!({"k": 5}),
        prompts: BTreeMap::from([("judge".into(), "p1".into())]),
    }
}

pub(crate) fn roles(model: &Arc<Scripted>) -> Roles {
    Roles::new(Target {
        generator: Some(Arc::clone(model) as Arc<dyn data::Generator>),
        identity: "scripted".into(),
        adapter: None,
    })
}

/// Removes rows whose text begins like an earlier one's: depends on order.
#[derive(Default)]
pub(crate) struct FirstOfItsKind(BTreeSet<String>);

impl Admit for FirstOfItsKind {
    fn admit(&mut self, id: &str, outcome: &mut data::Outcome) {
        let digits: String = id.chars().filter(char::is_ascii_digit).take(2).collect();
        if !self.0.insert(digits) {
            let rejection = Rejection::new("admit", "near_duplicate", "");
            outcome.verdict = data::Verdict::Rejected(rejection);
            outcome.records.clear();
        }
    }
}

/// Drives and exports; says how the phase ended.
pub(crate) fn run(
    folder: &Path,
    rows: usize,
    shard: Shard,
    model: &Arc<Scripted>,
    options: &DriveOptions,
) -> Report {
    let run = Run::open(folder, manifest(shard), OnChange::Refuse).unwrap();
    let report = run
        .drive(
            "toy",
            source(rows),
            &roles(model),
            options,
            &recipe,
            &mut FirstOfItsKind::default(),
            &mut |_| (),
        )
        .unwrap();
    run.export(
        "toy",
        &FILES,
        options.accept,
        &mut FirstOfItsKind::default(),
    )
    .unwrap();
    report
}

/// Every file of the data.
pub(crate) fn files(folder: &Path) -> BTreeMap<String, String> {
    std::fs::read_dir(folder.join("data"))
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read_to_string(path).unwrap())
        })
        .collect()
}
