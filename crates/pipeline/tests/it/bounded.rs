//! Memory and host time of a run of a million rows. Run by hand, with `--release`:
//! `cargo nextest run --release -p pipeline --run-ignored only bounded`

use crate::toy;
use data::{Generate, Message, Prompt};
use pipeline::testing::Scripted;
use pipeline::{AdmitAll, DriveOptions, Llm, OnChange, Run, Shard, Sourced, Stop};
use std::sync::Arc;
use std::time::Instant;

const ROWS: u64 = 1_000_000;

async fn one_call(row: &u64, llm: &Llm<'_>) -> Result<(), Stop> {
    let prompt = Prompt::Messages(vec![Message::new("user", format!("seed {row}"))]);
    let request = Generate {
        max_tokens: Some(10),
        ..Generate::new(prompt)
    };
    let answer = llm.generate("all", "ask", request).await?;
    llm.record(
        "sft.jsonl",
        serde_json::json!({"id": llm.row_id(), "text": answer.text}),
    );
    Ok(())
}

fn source() -> impl Iterator<Item = Sourced<u64>> {
    (0..ROWS).map(|row| Sourced {
        id: format!("row{row}"),
        row: Ok(row),
    })
}

fn peak_resident_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        / 1000
}

#[test]
#[ignore = "takes minutes; measures"]
fn a_million_rows() {
    let folder = tempfile::tempdir().unwrap();
    let model = Arc::new(Unremembered);
    let target = pipeline::Target {
        generator: Some(model as Arc<dyn data::Generator>),
        identity: "scripted".into(),
        adapter: None,
    };
    let roles = pipeline::Roles::new(target);
    let started = Instant::now();
    let run = Run::open(folder.path(), toy::manifest(Shard::ALL), OnChange::Refuse).unwrap();
    let options = DriveOptions::default();
    run.drive(
        "toy",
        source(),
        &roles,
        &options,
        &one_call,
        &mut AdmitAll,
        &mut |_| (),
    )
    .unwrap();
    let seconds = started.elapsed().as_secs_f64();
    drop(run);
    let resumed = Instant::now();
    let run = Run::open(folder.path(), toy::manifest(Shard::ALL), OnChange::Refuse).unwrap();
    let report = run
        .drive(
            "toy",
            source(),
            &roles,
            &options,
            &one_call,
            &mut AdmitAll,
            &mut |_| (),
        )
        .unwrap();
    let resume = resumed.elapsed().as_secs_f64();
    assert_eq!(report.progress.rows_from_before, ROWS);
    let exported = Instant::now();
    run.export("toy", &["sft.jsonl"], None, &mut AdmitAll)
        .unwrap();
    let peak = peak_resident_mb();
    println!(
        "{ROWS} rows: {:.1} us per call, resumed in {resume:.1} s, exported in {:.1} s, peak {peak} MB",
        seconds / ROWS as f64 * 1e6,
        exported.elapsed().as_secs_f64(),
    );
    assert!(peak < 500, "{peak} MB");
}

/// A generator that keeps no memory of what it was asked.
struct Unremembered;

impl data::Generator for Unremembered {
    fn generate(&self, request: Generate) -> data::Pending<Vec<data::Completion>> {
        let one = Scripted::new(|request| Ok(Scripted::last_text(request).to_owned()));
        data::Generator::generate(&one, request)
    }

    fn score(&self, request: data::Score) -> data::Pending<data::Scores> {
        data::Generator::score(&Scripted::new(|_| Ok(String::new())), request)
    }
}
