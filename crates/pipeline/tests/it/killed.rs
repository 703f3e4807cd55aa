//! The process dies at any moment; the same command continues. The child is this test
//! program, told by the environment to run the toy recipe and to note each call it makes.

use crate::toy::{self, files};
use data::{Generate, Score};
use pipeline::testing::Scripted;
use pipeline::{DriveOptions, Shard};
use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

const FOLDER: &str = "AUTODIDACT_TEST_KILLED_FOLDER";
const ROWS: usize = 400;
const KILLS: u64 = 50;

/// What the child does; without the variable, nothing.
#[test]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let folder = Path::new(&folder);
    let noted = folder.join("asked");
    let note = move |text: String| {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&noted)
            .unwrap();
        file.write_all(format!("{}\n", blake3::hash(text.as_bytes()).to_hex()).as_bytes())
            .unwrap();
        std::thread::sleep(Duration::from_micros(200));
    };
    let note = Arc::new(note);
    let noted = Arc::clone(&note);
    let model = Scripted::new(move |request: &Generate| {
        noted(format!("{request:?}"));
        toy::answer(request)
    })
    .with_scores(move |score: &Score| {
        note(format!("{score:?}"));
        toy::judge(score)
    });
    let options = DriveOptions {
        concurrency: 8,
        ..DriveOptions::default()
    };
    toy::run(folder, ROWS, Shard::ALL, &Arc::new(model), &options);
}

fn start(folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "killed::child",
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

/// Runs to the end, and shows what the child said if it failed.
fn finish(folder: &Path) {
    let output = start(folder).wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

#[test]
fn killed_fifty_times_and_the_files_are_the_same() {
    let undisturbed = tempfile::tempdir().unwrap();
    let options = DriveOptions {
        concurrency: 8,
        ..DriveOptions::default()
    };
    toy::run(
        undisturbed.path(),
        ROWS,
        Shard::ALL,
        &Arc::new(toy::model()),
        &options,
    );
    let folder = tempfile::tempdir().unwrap();
    let mut kills = 0;
    for kill in 0..KILLS {
        let mut child = start(folder.path());
        let wait = 5 + Generate::sample_seed(3, kill as usize) % 35;
        std::thread::sleep(Duration::from_millis(wait));
        kills += u64::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(
        kills >= KILLS / 2,
        "only {kills} of {KILLS} found it running"
    );
    finish(folder.path());
    assert_eq!(files(folder.path()), files(undisturbed.path()));
    let asked = fs::read_to_string(folder.path().join("asked")).unwrap();
    let status = pipeline::status(folder.path()).unwrap();
    let logged: u64 = status.stages.values().map(|stage| stage.calls).sum();
    let distinct: HashSet<&str> = asked.lines().filter(|line| line.len() == 64).collect();
    // Every call that was logged was asked; only calls lost with a process were asked twice.
    assert!(distinct.len() as u64 >= logged);
    let repeated = asked.lines().count() - distinct.len();
    let lost_at_most = kills as usize * 8 * 5;
    assert!(repeated <= lost_at_most, "{repeated} of {lost_at_most}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_an_error_that_names_the_file_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let limited = format!(
        "trap '' XFSZ; ulimit -f 400; exec {:?} --exact killed::child --nocapture",
        std::env::current_exe().unwrap()
    );
    let output = Command::new("bash")
        .args(["-c", &limited])
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    assert!(!output.status.success(), "400 kB are not enough");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(&*folder.path().to_string_lossy()), "{said}");
    finish(folder.path());
    let undisturbed = tempfile::tempdir().unwrap();
    toy::run(
        undisturbed.path(),
        ROWS,
        Shard::ALL,
        &Arc::new(toy::model()),
        &DriveOptions::default(),
    );
    assert_eq!(files(folder.path()), files(undisturbed.path()));
}
