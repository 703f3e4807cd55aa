//! The same run, whatever happens to it: killed, in another order, with another number of rows
//! under way, in parts.

use crate::world::{context, few, files, model, run_shard, run_whole, usual, usual_scores};
use data::Generate;
use pipeline::testing::Scripted;
use pipeline::{DriveOptions, Shard};
use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use synth::decif::Settings;

const FOLDER: &str = "AUTODIDACT_TEST_DECIF_FOLDER";
const KILLS: u64 = 25;

fn settings() -> Settings {
    Settings {
        domains: 6,
        requests_per_domain: 4,
        ..few()
    }
}

fn options(concurrency: usize) -> DriveOptions {
    DriveOptions {
        concurrency,
        accept: Some(80),
        ..DriveOptions::default()
    }
}

/// What the child does; without the variable, nothing.
#[test]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let folder = Path::new(&folder);
    let noted = folder.join("asked");
    let model = Scripted::new(move |request: &Generate| {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&noted)
            .unwrap();
        let hash = blake3::hash(format!("{request:?}").as_bytes());
        file.write_all(format!("{}\n", hash.to_hex()).as_bytes())
            .unwrap();
        std::thread::sleep(Duration::from_micros(300));
        Ok(usual(request))
    })
    .with_suffix_scores(usual_scores);
    run_whole(
        folder,
        &context(&settings(), &[]),
        &Arc::new(model),
        &options(8),
    );
}

fn start(folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "whole::child",
            "--test-threads",
            "1",
            "--nocapture",
        ])
        .env(FOLDER, folder)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn killed_at_any_moment_and_the_files_are_the_same() {
    let undisturbed = tempfile::tempdir().unwrap();
    let context = context(&settings(), &[]);
    run_whole(
        undisturbed.path(),
        &context,
        &Arc::new(model()),
        &options(8),
    );
    let folder = tempfile::tempdir().unwrap();
    let mut kills = 0;
    for kill in 0..KILLS {
        let mut child = start(folder.path());
        let wait = 10 + Generate::sample_seed(5, kill as usize) % 60;
        std::thread::sleep(Duration::from_millis(wait));
        kills += u64::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(kills > 0, "no kill found it running");
    let output = start(folder.path()).wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(files(folder.path()), files(undisturbed.path()));
    // A call is asked again only if a kill came between its answer and its commit.
    let asked = fs::read_to_string(folder.path().join("asked")).unwrap();
    let different: HashSet<&str> = asked.lines().collect();
    let again = asked.lines().count() - different.len();
    println!(
        "{kills} kills, {} calls, {again} of them again",
        asked.lines().count()
    );
    assert!(
        again as u64 <= kills * 8 * 8,
        "{again} calls were asked again"
    );
}

#[test]
fn order_and_concurrency_do_not_show() {
    let context = context(&settings(), &[]);
    let run = |model: Scripted, concurrency: usize| {
        let folder = tempfile::tempdir().unwrap();
        let model = Arc::new(model);
        let done = Arc::new(AtomicBool::new(false));
        // Answers that are held back are given in the end.
        let releasing = {
            let (model, done) = (Arc::clone(&model), Arc::clone(&done));
            std::thread::spawn(move || {
                while !done.load(Ordering::SeqCst) {
                    if !model.release() {
                        std::thread::sleep(Duration::from_micros(200));
                    }
                }
            })
        };
        run_whole(folder.path(), &context, &model, &options(concurrency));
        done.store(true, Ordering::SeqCst);
        releasing.join().unwrap();
        files(folder.path())
    };
    let expected = run(model(), 8);
    assert_eq!(expected["sft.jsonl"].lines().count(), 80);
    for concurrency in [1, 50] {
        assert_eq!(run(model(), concurrency), expected, "{concurrency}");
    }
    for seed in 0..2 {
        assert_eq!(run(model().shuffled(seed, 6), 16), expected, "order {seed}");
    }
}

#[test]
fn a_finished_run_asks_nothing_again_and_can_be_asked_for_more() {
    let context = context(&settings(), &[]);
    let folder = tempfile::tempdir().unwrap();
    let few = DriveOptions {
        accept: Some(20),
        ..options(8)
    };
    let first = run_whole(folder.path(), &context, &Arc::new(model()), &few);
    let again = run_whole(folder.path(), &context, &Arc::new(model()), &few);
    assert_eq!(again.files, first.files);
    let more = run_whole(folder.path(), &context, &Arc::new(model()), &options(8));
    assert!(!more.asked.is_empty());
    let other = tempfile::tempdir().unwrap();
    let whole = run_whole(other.path(), &context, &Arc::new(model()), &options(8));
    assert_eq!(more.files, whole.files);
    // A run without a target ends with its epoch, and all of it is in the log.
    let (all, epoch) = (DriveOptions::default(), tempfile::tempdir().unwrap());
    let first = run_whole(epoch.path(), &context, &Arc::new(model()), &all);
    let again = run_whole(epoch.path(), &context, &Arc::new(model()), &all);
    assert!(!first.asked.is_empty() && again.asked.is_empty());
    assert_eq!(first.files, again.files);
}

#[test]
fn parts_make_the_whole() {
    let context = context(&settings(), &[]);
    let all = DriveOptions::default();
    let whole = tempfile::tempdir().unwrap();
    run_whole(whole.path(), &context, &Arc::new(model()), &all);
    let parts: Vec<_> = (0..3)
        .map(|index| {
            let folder = tempfile::tempdir().unwrap();
            let shard = Shard::new(index, 3).unwrap();
            run_shard(folder.path(), &context, &Arc::new(model()), (&all, shard));
            folder
        })
        .collect();
    let out = tempfile::tempdir().unwrap();
    let folders: Vec<_> = parts
        .iter()
        .map(|folder| folder.path().to_owned())
        .collect();
    let written = context.settings.files();
    let named: Vec<&str> = written.iter().map(String::as_str).collect();
    let mut admit = synth::filters::NearDuplicates::new(context.settings.near_duplicates);
    pipeline::merge(&folders, out.path(), synth::decif::NAME, &named, &mut admit).unwrap();
    assert_eq!(files(out.path()), files(whole.path()));
}
