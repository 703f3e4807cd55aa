//! `generate --input`: JSONL in, JSONL out.

use crate::harness::{Finished, Place, feed};
use serde_json::Value;
use std::process::{Command, Stdio};
use std::time::Duration;

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

const MIXED: &str = concat!(
    "{\"id\":\"a\",\"prompt\":\"Where is the lamp?\"}\n",
    "{oops\n",
    "\n",
    "{\"messages\":[{\"role\":\"user\",\"content\":\"Where is the clock?\"}]}\n",
    "{\"instruction\":\"Where is the sea?\"}\n",
);

#[test]
fn rows_stay_in_order_and_bad_lines_are_told() {
    let place = Place::new();
    let input = place.write("in.jsonl", MIXED);
    let args = [
        "generate",
        "--input",
        input.to_str().unwrap(),
        "--temperature",
        "0",
    ];
    let to_file = place.run(&[&args[..], &["-o", "out.jsonl"]].concat());
    assert_eq!(to_file.code, Some(3), "{to_file:?}");
    assert!(
        to_file.stderr.contains("line 2: not JSON"),
        "{}",
        to_file.stderr
    );
    assert!(
        to_file.stderr.contains("3 rows done, 1 unreadable"),
        "{}",
        to_file.stderr
    );
    assert_eq!(to_file.stdout, "");
    let rows = lines(&place.read("out.jsonl"));
    let shown: Vec<_> = rows
        .iter()
        .map(|row| {
            (
                row["line"].as_u64().unwrap(),
                row["completions"][0]["text"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            (1, "The lamp is beside the piano."),
            (4, "The clock is on the station wall."),
            (5, "The sea is beyond the dunes.")
        ]
    );
    assert_eq!(
        (&rows[0]["id"], &rows[1]["id"]),
        (&Value::from("a"), &Value::Null)
    );
    assert!(!place.path("out.jsonl.partial").exists());
    let piped = place.run_with_input(&["generate", "--input", "-", "--temperature", "0"], MIXED);
    assert_eq!(piped.stdout, place.read("out.jsonl"));
}

#[test]
fn a_row_can_be_repeated_alone_by_its_seed() {
    let place = Place::new();
    let input = place.write("in.jsonl", "\"Hello!\"\n\"Hello!\"\n\"Hello!\"\n");
    let more = ["--temperature", "1.5", "--max-tokens", "20"];
    let all = place.good(
        &[
            &["generate", "--seed", "9", "-i", input.to_str().unwrap()],
            &more[..],
        ]
        .concat(),
    );
    let rows = lines(&all.stdout);
    assert_ne!(
        rows[0]["completions"], rows[1]["completions"],
        "equal prompts are drawn apart"
    );
    let seed = rows[2]["seed"].to_string();
    let alone = place.json(
        &[
            &["generate", "-p", "Hello!", "--json", "--seed", &seed],
            &more[..],
        ]
        .concat(),
    );
    assert_eq!(
        alone["completions"][0]["tokens"],
        rows[2]["completions"][0]["tokens"]
    );
}

#[test]
fn a_row_that_does_not_fit_fails_alone() {
    let place = Place::new();
    let long = "word ".repeat(100);
    let input = place.write("in.jsonl", format!("\"{long}\"\n\"Where is the lamp?\"\n"));
    let finished = place.run(&[
        "generate",
        "-i",
        input.to_str().unwrap(),
        "--context",
        "64",
        "--temperature",
        "0",
    ]);
    assert_eq!(finished.code, Some(3), "{finished:?}");
    assert!(
        finished.stderr.contains("line 1: the prompt has"),
        "{}",
        finished.stderr
    );
    assert_eq!(lines(&finished.stdout).len(), 1);
}

#[test]
fn a_stopped_run_is_continued_to_the_same_bytes() {
    const ROWS: usize = 1500;
    let place = Place::new();
    let input: String = (0..ROWS)
        .map(|row| format!("\"What is {} plus {}?\"\n", row % 6, row / 6))
        .collect();
    place.write("in.jsonl", input);
    let args = [
        "generate",
        "-i",
        "in.jsonl",
        "--max-tokens",
        "8",
        "--seed",
        "3",
    ];
    place.good(&[&args[..], &["-o", "whole.jsonl"]].concat());
    let mut child = place
        .command(&[&args[..], &["-o", "out.jsonl"]].concat())
        .spawn()
        .unwrap();
    let partial = place.path("out.jsonl.partial");
    while std::fs::metadata(&partial).map_or(true, |file| file.len() == 0) {
        assert_eq!(
            child.try_wait().unwrap(),
            None,
            "ended before its first row"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    let kill = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(kill.success());
    let stopped = Finished::of(child.wait_with_output().unwrap());
    assert_eq!(stopped.code, Some(75), "{stopped:?}");
    assert!(
        stopped.stderr.contains("--resume continues"),
        "{}",
        stopped.stderr
    );
    assert!(!place.path("out.jsonl").exists());
    let refused = place.run(&[&args[..], &["-o", "out.jsonl"]].concat());
    assert_eq!(refused.code, Some(2), "{refused:?}");
    let resumed = place.good(&[&args[..], &["-o", "out.jsonl", "--resume"]].concat());
    assert!(resumed.stderr.contains("from before"), "{}", resumed.stderr);
    assert_eq!(place.read("out.jsonl"), place.read("whole.jsonl"));
}

#[test]
fn a_full_disk_is_told() {
    let place = Place::new();
    let full = std::path::Path::new("/dev/full");
    if !full.exists() {
        eprintln!("skipped: this system has no /dev/full");
        return;
    }
    place.write("in.jsonl", "\"Hello!\"\n");
    let to_device = place.run(&["generate", "-i", "in.jsonl", "-o", "/dev/full"]);
    assert_eq!(to_device.code, Some(1), "{to_device:?}");
    assert!(
        to_device.stderr.contains("cannot write /dev/full"),
        "{}",
        to_device.stderr
    );
    let device = std::fs::OpenOptions::new().write(true).open(full).unwrap();
    let mut child = place
        .command(&["generate", "--input", "-"])
        .stdin(Stdio::piped())
        .stdout(device)
        .spawn()
        .unwrap();
    feed(&mut child, "\"Hello!\"\n");
    let to_stdout = Finished::of(child.wait_with_output().unwrap());
    assert_eq!(to_stdout.code, Some(1), "{to_stdout:?}");
    assert!(
        to_stdout.stderr.contains("No space left"),
        "{}",
        to_stdout.stderr
    );
}
