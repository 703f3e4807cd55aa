//! Calls that fail: for a fault of their own, which is the row's end, or for none, which is not.

use crate::toy::{self, files};
use data::{Generate, RequestError};
use pipeline::testing::{Asked, Scripted};
use pipeline::{DriveOptions, OnChange, PipelineError, Report, Run, Shard};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

const ROWS: usize = 60;

fn failing(
    on: impl Fn(&Generate) -> Option<RequestError> + Send + Sync + 'static,
) -> Arc<Scripted> {
    let model = Scripted::new(move |request| match on(request) {
        Some(error) => Err(error),
        None => toy::answer(request),
    });
    Arc::new(model.with_scores(toy::judge))
}

fn is_of(request: &Generate, rows: &[usize]) -> bool {
    let text = Scripted::last_text(request);
    rows.iter().any(|row| text == format!("compose seed {row}"))
}

fn run(folder: &Path, model: &Arc<Scripted>) -> Report {
    toy::run(folder, ROWS, Shard::ALL, model, &DriveOptions::default())
}

#[test]
fn a_failed_forward_pass_leaves_the_row_open_and_the_same_command_asks_again() {
    let (undisturbed, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let whole = run(undisturbed.path(), &Arc::new(toy::model()));
    assert!(!whole.interrupted);

    let broken = failing(|request| {
        is_of(request, &[3, 20]).then(|| RequestError::Forward("out of memory".into()))
    });
    let first = run(folder.path(), &broken);
    assert!(first.interrupted);
    assert_eq!(first.funnel.unfinished, 2);
    assert_eq!(first.progress.rows_failed, 2);
    let failure = first.progress.failure.unwrap();
    assert!(failure.contains("out of memory"), "{failure}");
    let rejected = &files(folder.path())["rejected.jsonl"];
    assert!(!rejected.contains("out of memory"), "{rejected}");

    let healthy = Arc::new(toy::model());
    let second = run(folder.path(), &healthy);
    assert!(!second.interrupted);
    assert_eq!(
        (second.funnel.unfinished, second.progress.rows_failed),
        (0, 0)
    );
    assert_eq!(files(folder.path()), files(undisturbed.path()));
    // Only what failed was asked again.
    let again: BTreeSet<String> = healthy
        .asked()
        .iter()
        .filter_map(|asked| match asked {
            Asked::Generate(request) => {
                let text = Scripted::last_text(request);
                text.strip_prefix("compose ").map(str::to_owned)
            }
            Asked::Score(_) => None,
        })
        .collect();
    assert_eq!(again, BTreeSet::from(["seed 3".into(), "seed 20".into()]));
}

#[test]
fn a_stopped_engine_ends_the_run_and_no_row() {
    let (undisturbed, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    run(undisturbed.path(), &Arc::new(toy::model()));
    let dying = failing(|request| is_of(request, &[40]).then_some(RequestError::EngineStopped));
    let opened = Run::open(folder.path(), toy::manifest(Shard::ALL), OnChange::Refuse).unwrap();
    let options = DriveOptions {
        concurrency: 4,
        ..DriveOptions::default()
    };
    let ended = opened.drive(
        "toy",
        toy::source(10_000),
        &toy::roles(&dying),
        &options,
        &toy::recipe,
        &mut toy::FirstOfItsKind::default(),
        &mut |_| (),
    );
    assert!(matches!(ended, Err(PipelineError::EngineStopped { .. })));
    // What the engine cannot answer is not asked of it row by row.
    assert!(dying.asked().len() < 1000, "{}", dying.asked().len());
    drop(opened);
    run(folder.path(), &Arc::new(toy::model()));
    assert_eq!(files(folder.path()), files(undisturbed.path()));
}

#[test]
fn a_model_that_only_fails_is_not_asked_for_every_row() {
    let folder = tempfile::tempdir().unwrap();
    let broken = failing(|_| Some(RequestError::Forward("no memory".into())));
    let options = DriveOptions {
        concurrency: 2,
        ..DriveOptions::default()
    };
    let report = toy::run(folder.path(), 10_000, Shard::ALL, &broken, &options);
    assert!(report.interrupted);
    assert!(broken.asked().len() <= 102, "{}", broken.asked().len());
}

#[test]
fn a_request_at_fault_ends_its_row_under_a_name() {
    let check = |error: fn() -> RequestError, reason: &str| {
        let folder = tempfile::tempdir().unwrap();
        let broken = failing(move |request| is_of(request, &[5]).then(error));
        let report = run(folder.path(), &broken);
        assert!(!report.interrupted);
        assert_eq!(report.funnel.unfinished, 0);
        let rejected = &files(folder.path())["rejected.jsonl"];
        let named = format!("{{\"id\":\"row5\",\"stage\":\"compose\",\"reason\":\"{reason}\"");
        assert!(rejected.contains(&named), "{named}: {rejected}");
    };
    check(
        || RequestError::ContextOverflow {
            prompt_tokens: 9,
            wanted_tokens: 9,
            context_tokens: 10,
        },
        "context_overflow",
    );
    check(
        || RequestError::KvPoolTooSmall {
            needed_blocks: 9,
            num_blocks: 8,
            block_size: 16,
        },
        "kv_pool_too_small",
    );
    check(|| RequestError::NotANumber { position: 1 }, "nan_logits");
    check(|| RequestError::Invalid("n".into()), "invalid_request");
    check(|| RequestError::Grammar("g".into()), "grammar");
}

#[test]
fn scores_that_are_no_numbers_are_logged_as_none_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let nan = || {
        let scores = |_: &data::Score| {
            Ok(data::SuffixScores {
                logprobs: vec![f32::NEG_INFINITY; 2],
                probabilities: vec![f32::NAN, f32::INFINITY],
                mass: f32::NAN,
            })
        };
        Arc::new(Scripted::new(toy::answer).with_suffix_scores(scores))
    };
    let model = nan();
    let first = run(folder.path(), &model);
    let before = files(folder.path());
    assert_eq!(before["sft.jsonl"], "", "no probability is none above 0.7");
    // Another prompt runs every row again; what it does not change is in the log.
    let mut manifest = toy::manifest(Shard::ALL);
    manifest.prompts.insert("judge".into(), "p2".into());
    let again = nan();
    let opened = Run::open(folder.path(), manifest, OnChange::Refuse).unwrap();
    let second = opened
        .drive(
            "toy",
            toy::source(ROWS),
            &toy::roles(&again),
            &DriveOptions::default(),
            &toy::recipe,
            &mut toy::FirstOfItsKind::default(),
            &mut |_| (),
        )
        .unwrap();
    // Calls that failed are in no log; scores are, all of them.
    let scored = |asked: &Asked| matches!(asked, Asked::Score(_));
    assert!(model.asked().iter().any(scored) && !again.asked().iter().any(scored));
    assert_eq!(second.funnel.accepted, first.funnel.accepted);
}
