//! One outcome per row, whatever the order; nothing asked twice.

use crate::toy::{self, files};
use pipeline::testing::{Asked, Scripted};
use pipeline::{AdmitAll, DriveOptions, OnChange, Run, Shard, StopSignal, status};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

fn options(concurrency: usize, accept: Option<u64>) -> DriveOptions {
    DriveOptions {
        concurrency,
        accept,
        ..DriveOptions::default()
    }
}

#[test]
fn files_do_not_depend_on_concurrency_or_order() {
    for accept in [None, Some(12)] {
        let reference = tempfile::tempdir().unwrap();
        let model = Arc::new(toy::model());
        toy::run(
            reference.path(),
            200,
            Shard::ALL,
            &model,
            &options(1, accept),
        );
        let expected = files(reference.path());
        assert!(expected["sft.jsonl"].lines().count() >= 12, "{expected:?}");
        for (concurrency, seed) in [(8, 1), (8, 2), (64, 3), (64, 4)] {
            let folder = tempfile::tempdir().unwrap();
            let model = Arc::new(toy::model().shuffled(seed, 4));
            let keeper = Keeper::start(&model);
            toy::run(
                folder.path(),
                200,
                Shard::ALL,
                &model,
                &options(concurrency, accept),
            );
            drop(keeper);
            assert_eq!(
                files(folder.path()),
                expected,
                "{concurrency} rows, {accept:?}"
            );
        }
    }
}

/// Gives held answers when nothing else moves.
struct Keeper(Arc<AtomicBool>, Option<JoinHandle<()>>);

impl Keeper {
    fn start(model: &Arc<Scripted>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (model, stopped) = (Arc::clone(model), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                while model.release() {}
                std::thread::yield_now();
            }
        });
        Self(stop, Some(thread))
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        self.1.take().unwrap().join().unwrap();
    }
}

#[test]
fn every_row_ends_once_and_the_sum_comes_out() {
    let folder = tempfile::tempdir().unwrap();
    let model = Arc::new(toy::model());
    let report = toy::run(folder.path(), 340, Shard::ALL, &model, &options(16, None));
    assert_eq!(report.funnel.read, 340);
    assert_eq!(report.funnel.rejected["read"]["unreadable"], 20);
    assert_eq!(report.funnel.rejected["read"]["duplicate_id"], 20);
    assert!(report.funnel.rejected["respond"]["context_overflow"] > 0);
    let status = status(folder.path()).unwrap();
    assert_eq!(status.phases["toy"].read, 340);
    assert_eq!(status.source_rows["toy"], 340);
    assert_eq!(status.stages["compose"].calls, 300);
    let rejected = &files(folder.path())["rejected.jsonl"];
    let accepted = &files(folder.path())["sft.jsonl"];
    assert_eq!(rejected.lines().count() + accepted.lines().count(), 340);
}

#[test]
fn the_second_run_asks_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let model = Arc::new(toy::model());
    toy::run(folder.path(), 100, Shard::ALL, &model, &options(8, None));
    let before = files(folder.path());
    let again = Arc::new(toy::model());
    let report = toy::run(folder.path(), 100, Shard::ALL, &again, &options(8, None));
    assert!(again.asked().is_empty());
    assert_eq!(report.progress.rows_from_before, 100);
    assert_eq!(files(folder.path()), before);
}

#[test]
fn a_larger_target_continues() {
    let folder = tempfile::tempdir().unwrap();
    let model = Arc::new(toy::model());
    toy::run(folder.path(), 300, Shard::ALL, &model, &options(8, Some(5)));
    assert_eq!(files(folder.path())["sft.jsonl"].lines().count(), 5);
    let asked = model.asked().len();
    toy::run(
        folder.path(),
        300,
        Shard::ALL,
        &model,
        &options(8, Some(20)),
    );
    let once = tempfile::tempdir().unwrap();
    let other = Arc::new(toy::model());
    toy::run(once.path(), 300, Shard::ALL, &other, &options(8, Some(20)));
    assert_eq!(files(folder.path()), files(once.path()));
    let mut all: Vec<String> = model.asked().iter().map(name).collect();
    assert!(all.len() > asked);
    all.sort();
    let len = all.len();
    all.dedup();
    assert_eq!(all.len(), len, "a call was made twice");
}

fn name(asked: &Asked) -> String {
    format!("{asked:?}")
}

#[test]
fn stopping_twice_or_once_loses_nothing() {
    let once = tempfile::tempdir().unwrap();
    toy::run(
        once.path(),
        150,
        Shard::ALL,
        &Arc::new(toy::model()),
        &options(8, None),
    );
    for (times, after) in [(1, 40), (2, 40), (1, 0), (2, 333)] {
        let folder = tempfile::tempdir().unwrap();
        let stop = StopSignal::default();
        let (signal, counter) = (stop.clone(), AtomicUsize::new(0));
        let model = Scripted::new(move |request| {
            if counter.fetch_add(1, Ordering::Relaxed) == after {
                (0..times).for_each(|_| signal.request());
            }
            toy::answer(request)
        });
        let model = Arc::new(model.with_scores(toy::judge));
        let stoppable = DriveOptions {
            stop,
            ..options(8, None)
        };
        let report = toy::run(folder.path(), 150, Shard::ALL, &model, &stoppable);
        assert!(report.interrupted, "{times} times after {after}");
        assert!(report.funnel.read < 150);
        toy::run(
            folder.path(),
            150,
            Shard::ALL,
            &Arc::new(toy::model()),
            &options(8, None),
        );
        assert_eq!(
            files(folder.path()),
            files(once.path()),
            "{times} times after {after}"
        );
    }
}

#[test]
fn a_later_phase_reads_what_an_earlier_one_found_in_source_order() {
    let folder = tempfile::tempdir().unwrap();
    let model = Arc::new(toy::model());
    let report = toy::run(folder.path(), 60, Shard::ALL, &model, &options(16, None));
    assert!(report.is_whole());
    let manifest = toy::manifest(Shard::ALL);
    let run = Run::open(folder.path(), manifest, OnChange::Refuse).unwrap();
    let mut found = Vec::new();
    run.outcomes("toy", &mut AdmitAll, &mut |id, outcome| {
        found.push((id.to_owned(), outcome.is_accepted()));
    })
    .unwrap();
    let ids: Vec<String> = toy::source(60).map(|sourced| sourced.id).collect();
    let found_ids: Vec<String> = found.iter().map(|(id, _)| id.clone()).collect();
    assert_eq!(found_ids, ids);
    let accepted = found.iter().filter(|(_, accepted)| *accepted).count();
    assert_eq!(accepted as u64, report.funnel.accepted);
    // Rows of another phase are not among them.
    run.outcomes("other", &mut AdmitAll, &mut |id, _| panic!("{id}"))
        .unwrap();
}
