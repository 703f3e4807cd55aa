//! Parts of a run put together.

use crate::toy::{self, FILES, FirstOfItsKind, files};
use pipeline::{DriveOptions, Shard, merge};
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn part(root: &Path, index: u32, count: u32, rows: usize) -> PathBuf {
    let folder = root.join(format!("part{index}of{count}"));
    let shard = Shard::new(index, count).unwrap();
    toy::run(
        &folder,
        rows,
        shard,
        &Arc::new(toy::model()),
        &DriveOptions::default(),
    );
    folder
}

fn merged(parts: &[PathBuf], out: &Path) -> Result<pipeline::Funnel, pipeline::PipelineError> {
    merge(parts, out, "toy", &FILES, &mut FirstOfItsKind::default())
}

#[test]
fn three_parts_merged_are_the_whole() {
    let root = tempfile::tempdir().unwrap();
    let whole = part(root.path(), 0, 1, 200);
    let parts: Vec<_> = (0..3)
        .map(|index| part(root.path(), index, 3, 200))
        .collect();
    let out = root.path().join("merged");
    let funnel = merged(&parts, &out).unwrap();
    assert_eq!(funnel.read, 200);
    assert_eq!(files(&out), files(&whole));
}

#[test]
fn holes_and_repeats_are_found() {
    let root = tempfile::tempdir().unwrap();
    let parts: Vec<_> = (0..2)
        .map(|index| part(root.path(), index, 2, 50))
        .collect();
    let check = |parts: &[PathBuf], named: &str| {
        let error = merged(parts, &root.path().join("out"))
            .unwrap_err()
            .to_string();
        assert!(error.contains(named), "{error}");
    };
    check(&parts[..1], "missing: 2/2");
    check(
        &[parts[0].clone(), parts[0].clone()],
        "as another folder is",
    );
    check(&[], "no folders");
    let longer = root.path().join("longer");
    let shard = Shard::new(1, 2).unwrap();
    toy::run(
        &longer,
        60,
        shard,
        &Arc::new(toy::model()),
        &DriveOptions::default(),
    );
    check(&[parts[0].clone(), longer], "something else");
    let unfinished = root.path().join("unfinished");
    let options = DriveOptions {
        max_rows: Some(10),
        ..DriveOptions::default()
    };
    toy::run(&unfinished, 50, shard, &Arc::new(toy::model()), &options);
    check(&[parts[0].clone(), unfinished], "end of its source");
    let out = root.path().join("once");
    merged(&parts, &out).unwrap();
    assert!(
        merged(&parts, &out)
            .unwrap_err()
            .to_string()
            .contains("already holds a run")
    );
}
