//! What may change between invocations, and what the log says about it.

use crate::toy::{self, FILES, FirstOfItsKind, files};
use pipeline::{
    DriveOptions, Manifest, OnChange, PipelineError, Roles, Run, Shard, Target, explain,
};
use std::fs;
use std::sync::Arc;

fn drive(run: &Run, roles: &Roles) -> pipeline::Report {
    run.drive(
        "toy",
        toy::source(60),
        roles,
        &DriveOptions::default(),
        &toy::recipe,
        &mut FirstOfItsKind::default(),
        &mut |_| (),
    )
    .unwrap()
}

#[test]
fn another_model_or_seed_or_source_is_refused_unless_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let model = Arc::new(toy::model());
    toy::run(
        folder.path(),
        20,
        Shard::ALL,
        &model,
        &DriveOptions::default(),
    );
    let check = |change: &dyn Fn(&mut Manifest), named: &str| {
        let mut manifest = toy::manifest(Shard::ALL);
        change(&mut manifest);
        let error = Run::open(folder.path(), manifest.clone(), OnChange::Refuse).unwrap_err();
        assert!(matches!(error, PipelineError::Changed { .. }), "{error}");
        assert!(error.to_string().contains(named), "{error}");
    };
    check(&|m| m.seed = 8, "seed 7 (now 8)");
    check(
        &|m| m.source = "letters".into(),
        "source numbers (now letters)",
    );
    check(
        &|m| drop(m.models.insert("all".into(), "other".into())),
        "model of all",
    );
    check(
        &|m| m.shard = Shard::new(0, 2).unwrap(),
        "shard 1/1 (now 1/2)",
    );
    let mut other = toy::manifest(Shard::ALL);
    other.seed = 8;
    let run = Run::open(folder.path(), other, OnChange::Allow).unwrap();
    assert_eq!(run.changes(), ["seed 7 (now 8)"]);
}

#[test]
fn a_changed_judge_asks_only_the_judge_again() {
    let folder = tempfile::tempdir().unwrap();
    let model = Arc::new(toy::model());
    let run = Run::open(folder.path(), toy::manifest(Shard::ALL), OnChange::Refuse).unwrap();
    drive(&run, &toy::roles(&model));
    drop(run);
    let mut manifest = toy::manifest(Shard::ALL);
    manifest.prompts.insert("judge".into(), "p2".into());
    let run = Run::open(folder.path(), manifest, OnChange::Refuse).unwrap();
    // An edited judge prompt changes what the judge is asked; another identity does the same.
    let judge = Target {
        generator: Some(Arc::clone(&model) as Arc<dyn data::Generator>),
        identity: "another prompt".into(),
        adapter: None,
    };
    drive(&run, &toy::roles(&model).with("judge", judge));
    drop(run);
    let explanation = explain(folder.path()).unwrap();
    let [first, second] = explanation.invocations.as_slice() else {
        panic!("{explanation:?}");
    };
    assert!(first.changes.is_empty());
    assert_eq!((first.reused["compose"], first.reused["respond"]), (0, 0));
    assert_eq!(second.changes, ["prompt judge was edited"]);
    assert_eq!((second.asked["compose"], second.asked["respond"]), (0, 0));
    assert_eq!(second.reused["compose"], first.asked["compose"]);
    // Equal responses of one instruction are one question to the judge.
    assert_eq!(second.asked["judge"], first.asked["judge"]);
    assert_eq!(second.reused["judge"], first.reused["judge"]);
}

#[test]
fn a_role_without_its_model_parks_its_rows() {
    let folder = tempfile::tempdir().unwrap();
    let expected = tempfile::tempdir().unwrap();
    let model = Arc::new(toy::model());
    toy::run(
        expected.path(),
        60,
        Shard::ALL,
        &model,
        &DriveOptions::default(),
    );
    let nobody = |identity: &str| Target {
        generator: None,
        identity: identity.into(),
        adapter: None,
    };
    let only_judge =
        Roles::new(nobody("scripted")).with("judge", toy::roles(&model).target("judge").clone());
    let all_but_judge = toy::roles(&model).with("judge", nobody("scripted"));
    let run = Run::open(folder.path(), toy::manifest(Shard::ALL), OnChange::Refuse).unwrap();
    let mut passes = 0;
    for roles in [&all_but_judge, &only_judge].into_iter().cycle() {
        let report = drive(&run, roles);
        assert!(report.parked < 60 && passes < 20);
        passes += 1;
        if report.parked == 0 {
            break;
        }
    }
    assert!(passes > 2, "waves go back and forth");
    run.export("toy", &FILES, None, &mut FirstOfItsKind::default())
        .unwrap();
    assert_eq!(files(folder.path()), files(expected.path()));
}

#[test]
fn one_process_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let _run = Run::open(folder.path(), toy::manifest(Shard::ALL), OnChange::Refuse).unwrap();
    let error = Run::open(folder.path(), toy::manifest(Shard::ALL), OnChange::Refuse).unwrap_err();
    assert!(matches!(error, PipelineError::Locked { .. }), "{error}");
}

#[test]
fn damage_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("calls.sqlite");
    fs::write(
        &path,
        "this is no database, but it is long enough to look at ".repeat(50),
    )
    .unwrap();
    let error = Run::open(folder.path(), toy::manifest(Shard::ALL), OnChange::Refuse).unwrap_err();
    assert!(error.to_string().contains("calls.sqlite"), "{error}");
    let file = folder.path().join("no-folder");
    fs::write(&file, "").unwrap();
    let error = Run::open(&file, toy::manifest(Shard::ALL), OnChange::Refuse).unwrap_err();
    assert!(error.to_string().contains("no-folder"), "{error}");
    let error = pipeline::status(&folder.path().join("nothing")).unwrap_err();
    assert!(matches!(error, PipelineError::NotARun { .. }));
}

#[test]
fn no_row_under_way_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let run = Run::open(folder.path(), toy::manifest(Shard::ALL), OnChange::Refuse).unwrap();
    let options = DriveOptions {
        concurrency: 0,
        ..DriveOptions::default()
    };
    let model = Arc::new(toy::model());
    let driven = run.drive(
        "toy",
        toy::source(1),
        &toy::roles(&model),
        &options,
        &toy::recipe,
        &mut FirstOfItsKind::default(),
        &mut |_| (),
    );
    assert!(driven.unwrap_err().to_string().contains("concurrency"));
}

#[test]
fn rows_that_ended_under_another_recipe_are_no_data() {
    let folder = tempfile::tempdir().unwrap();
    let model = Arc::new(toy::model());
    toy::run(
        folder.path(),
        60,
        Shard::ALL,
        &model,
        &DriveOptions::default(),
    );
    let mut manifest = toy::manifest(Shard::ALL);
    manifest.settings["k"] = 6.into();
    let run = Run::open(folder.path(), manifest, OnChange::Refuse).unwrap();
    let few = DriveOptions {
        max_rows: Some(10),
        ..DriveOptions::default()
    };
    run.drive(
        "toy",
        toy::source(60),
        &toy::roles(&model),
        &few,
        &toy::recipe,
        &mut FirstOfItsKind::default(),
        &mut |_| (),
    )
    .unwrap();
    let funnel = run
        .export("toy", &FILES, None, &mut FirstOfItsKind::default())
        .unwrap();
    assert_eq!(funnel.read, 10, "the other 50 ended under the old settings");
}
