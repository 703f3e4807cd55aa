//! Whole runs: learning, stopping and going on, and what stops a run.

use crate::common::{decoder, form, lora, singles, tokens};
use model::{LoadAs, ModelConfig};
use serde_json::{Map, Value};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use train::{
    Batch, Finished, Item, ItemTokens, MuonSettings, Network, Objective, Observer,
    OptimizerSettings, Pair, PassOptions, Preference, PreferenceLoss, RunData, RunSettings,
    Sequence, SftReduction, Shape, StepOptions, StepReport, TrainError, Warmup, WeightsForm, run,
    score_pairs,
};

fn settings() -> RunSettings {
    RunSettings {
        objective: Objective::Sft,
        epochs: 2,
        max_steps: None,
        batch: Batch::Rows(4),
        pack_tokens: 64,
        workers: 1,
        rate: 1e-2,
        shape: Shape::Cosine { end: 0.0 },
        warmup: Warmup::Steps(2),
        clip: Some(1.0),
        optimizer: OptimizerSettings::default(),
        seed: 3,
        pass: PassOptions::default(),
        checkpoint_every: 3,
        keep: 2,
        evaluate_every: 1000,
    }
}

/// Stops after so many steps of its own.
#[derive(Default)]
struct Watcher {
    stop_after: Option<u64>,
    steps: Cell<u64>,
    losses: Vec<f64>,
    evaluations: Vec<Map<String, Value>>,
}

impl Observer for Watcher {
    fn on_step(&mut self, step: &StepReport) {
        self.steps.set(self.steps.get() + 1);
        self.losses.push(step.metrics["loss"].as_f64().unwrap());
    }

    fn on_evaluation(&mut self, _: u64, metrics: &Map<String, Value>) {
        self.evaluations.push(metrics.clone());
    }

    fn should_stop(&self) -> bool {
        self.stop_after.is_some_and(|most| self.steps.get() >= most)
    }

    fn memory_peak_bytes(&self) -> Option<u64> {
        None
    }
}

/// Runs to the end or to the stop, with a network made anew as a new process would.
fn go(
    folder: &Path,
    data: &RunData,
    settings: &RunSettings,
    stop_after: Option<u64>,
) -> Result<Finished, TrainError> {
    let base = decoder("llama3_1", LoadAs::F32);
    let mut network = Network::with_new_adapter(&base, &lora(4), 9).unwrap();
    let mut watcher = Watcher {
        stop_after,
        ..Default::default()
    };
    let form = form(&base, 4);
    run(
        &mut network,
        data,
        settings,
        (folder, &form, BTreeMap::new()),
        &mut watcher,
    )
}

/// Everything that a run leaves, without the times in its measurements.
fn left_behind(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(folder).unwrap().display().to_string();
            let earlier = name.contains("step-") && !name.contains("step-000012");
            if earlier {
                continue; // which of the earlier checkpoints are kept depends on the stops
            }
            if path.is_dir() {
                folders.push(path);
            } else if name == "metrics.jsonl" {
                let lines = fs::read_to_string(&path).unwrap();
                let lines = lines.lines().map(|line| {
                    let mut row: Map<String, Value> = serde_json::from_str(line).unwrap();
                    row.retain(|key, _| !key.ends_with("_s"));
                    format!("{}\n", Value::Object(row))
                });
                files.insert(name, lines.collect::<String>().into_bytes());
            } else if name.ends_with("state.json") {
                // Holds the length of the measurements, times included.
                let mut state: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
                state["metrics_bytes"] = 0.into();
                files.insert(name, state.to_string().into_bytes());
            } else {
                files.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    files
}

#[test]
fn a_run_that_was_stopped_goes_on_to_the_same_bytes() {
    let data = RunData {
        train: singles(21, 64),
        held_out: singles(3, 64),
        ..Default::default()
    };
    let mut settings = RunSettings {
        evaluate_every: 4,
        ..settings()
    };
    for muon in [
        None,
        Some(MuonSettings {
            rate: 0.01,
            momentum: 0.9,
            weight_decay: 0.1,
        }),
    ] {
        settings.optimizer.muon = muon;
        let straight = tempfile::tempdir().unwrap();
        let finished = go(straight.path(), &data, &settings, None).unwrap();
        assert!(
            finished.is_complete() && finished.steps == 12,
            "{finished:?}"
        );
        let expected = left_behind(straight.path());
        assert!(
            expected.keys().any(|name| name.contains("step-000012")),
            "{:?}",
            expected.keys()
        );
        let stopped = tempfile::tempdir().unwrap();
        let mut steps = 0;
        while steps < 12 {
            let finished = go(stopped.path(), &data, &settings, Some(5)).unwrap();
            assert_eq!(finished.resumed_from, steps);
            steps = finished.steps;
        }
        assert_eq!(
            expected.keys().collect::<Vec<_>>(),
            left_behind(stopped.path()).keys().collect::<Vec<_>>()
        );
        assert!(expected == left_behind(stopped.path()));
        // Done is done.
        let again = go(stopped.path(), &data, &settings, None).unwrap();
        assert_eq!((again.resumed_from, again.last_loss), (12, None));
    }
}

/// A process that dies between checkpoints, or while it writes one, loses those steps only.
#[test]
fn steps_after_the_last_checkpoint_are_done_again() {
    let data = RunData {
        train: singles(21, 64),
        ..Default::default()
    };
    let straight = tempfile::tempdir().unwrap();
    go(straight.path(), &data, &settings(), None).unwrap();
    let killed = tempfile::tempdir().unwrap();
    go(killed.path(), &data, &settings(), Some(7)).unwrap();
    // As if it had died after step 7 without its orderly stop: that checkpoint is half-written.
    let checkpoints = killed.path().join("checkpoints");
    fs::rename(
        checkpoints.join("step-000007"),
        checkpoints.join("step-000007.tmp"),
    )
    .unwrap();
    fs::remove_file(checkpoints.join("step-000007.tmp/state.json")).unwrap();
    let finished = go(killed.path(), &data, &settings(), None).unwrap();
    assert_eq!(finished.resumed_from, 6);
    fs::remove_dir_all(checkpoints.join("step-000007.tmp")).ok();
    assert!(left_behind(straight.path()) == left_behind(killed.path()));
}

#[test]
fn another_run_s_folder_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let data = RunData {
        train: singles(8, 64),
        ..Default::default()
    };
    go(folder.path(), &data, &settings(), Some(1)).unwrap();
    let changed = RunSettings {
        rate: 2e-2,
        ..settings()
    };
    let error = go(folder.path(), &data, &changed, None)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("learning rate (was 0.01") && error.contains("step-000001"),
        "{error}"
    );
    let other = RunData {
        train: singles(9, 64),
        ..Default::default()
    };
    let error = go(folder.path(), &other, &settings(), None)
        .unwrap_err()
        .to_string();
    assert!(error.contains("data (was"), "{error}");
    let newest = folder
        .path()
        .join("checkpoints/step-000001/optimizer.safetensors");
    fs::write(&newest, b"junk").unwrap();
    let error = go(folder.path(), &data, &settings(), None)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("optimizer.safetensors") && error.contains("remove this checkpoint"),
        "{error}"
    );
}

/// A learning rate that blows the weights up ends the run with the row's id; the last good
/// checkpoint is still there, and still loads.
#[test]
fn a_loss_that_is_no_number_stops_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let data = RunData {
        train: singles(12, 64),
        ..Default::default()
    };
    let wild = RunSettings {
        rate: 1e30,
        warmup: Warmup::Steps(4),
        clip: None,
        checkpoint_every: 1,
        ..settings()
    };
    let error = go(folder.path(), &data, &wild, None).unwrap_err();
    let text = error.to_string();
    assert!(
        matches!(
            error,
            TrainError::NotFinite { .. } | TrainError::Diverged { .. }
        ),
        "{text}"
    );
    assert!(
        text.contains("row-") && text.contains("last checkpoint is kept"),
        "{text}"
    );
    assert!(
        folder
            .path()
            .join("checkpoints/step-000001/adapter_model.safetensors")
            .exists()
    );
}

#[test]
fn a_checkpoint_that_cannot_be_written_leaves_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let data = RunData {
        train: singles(21, 64),
        ..Default::default()
    };
    go(folder.path(), &data, &settings(), Some(3)).unwrap();
    // A file where the next checkpoint's folder must be.
    fs::write(folder.path().join("checkpoints/step-000006.tmp"), b"").unwrap();
    let error = go(folder.path(), &data, &settings(), None)
        .unwrap_err()
        .to_string();
    assert!(error.contains("step-000006.tmp"), "{error}");
    fs::remove_file(folder.path().join("checkpoints/step-000006.tmp")).unwrap();
    assert_eq!(
        go(folder.path(), &data, &settings(), None)
            .unwrap()
            .resumed_from,
        3
    );
}

fn small_config() -> ModelConfig {
    ModelConfig {
        vocab_size: 64,
        ..decoder("llama3_1", LoadAs::F32).config
    }
}

/// 32 random rows are learnt by heart, by AdamW and by Muon.
#[test]
fn overfits_a_few_rows() {
    let data = RunData {
        train: singles(32, 64),
        ..Default::default()
    };
    for muon in [
        None,
        Some(MuonSettings {
            rate: 0.02,
            momentum: 0.95,
            weight_decay: 0.0,
        }),
    ] {
        let settings = RunSettings {
            epochs: 60,
            batch: Batch::Rows(16),
            pack_tokens: 512,
            rate: 4e-3,
            optimizer: OptimizerSettings {
                muon,
                ..Default::default()
            },
            checkpoint_every: 1000,
            ..settings()
        };
        let folder = tempfile::tempdir().unwrap();
        let mut network = Network::from_scratch(&small_config(), 1).unwrap();
        let form = WeightsForm::Model { companions: vec![] };
        let mut watcher = Watcher::default();
        let place = (folder.path(), &form, BTreeMap::new());
        run(&mut network, &data, &settings, place, &mut watcher).unwrap();
        let last = watcher.losses.last().unwrap();
        assert!(*last < 0.05, "{muon:?}: {:?}", watcher.losses);
    }
}

/// Answers of tokens below 8 are preferred over those of tokens from 32 on: held-out pairs are
/// then told apart.
#[test]
fn learns_a_planted_preference() {
    let planted = |from: u64, count: u64| -> Vec<Item> {
        (from..from + count)
            .map(|row| {
                let prompt = tokens(row, 5, 64);
                let side = |salt: u64, shift: u32| {
                    let mut all = prompt.clone();
                    all.extend(tokens(row ^ salt, 6, 8).iter().map(|token| token + shift));
                    Sequence::completion(all, 5)
                };
                Item {
                    id: format!("pair-{row}"),
                    tokens: ItemTokens::Pair(Pair {
                        chosen: side(1 << 30, 0),
                        rejected: side(1 << 31, 32),
                    }),
                }
            })
            .collect()
    };
    let base = decoder("llama3_1", LoadAs::F32);
    for loss in [
        PreferenceLoss::Sigmoid {
            label_smoothing: 0.0,
        },
        PreferenceLoss::Nca,
        PreferenceLoss::Ipo,
    ] {
        let mut network = Network::with_new_adapter(&base, &lora(8), 2).unwrap();
        let how = StepOptions {
            pass: PassOptions::default(),
            pack_tokens: 512,
            workers: 2,
            step: 0,
            seed: 0,
        };
        let (train, held_out) = (planted(0, 64), planted(1000, 40));
        let data = RunData {
            references: score_pairs(&network, &train, &how, |_| ()).unwrap(),
            held_out_references: score_pairs(&network, &held_out, &how, |_| ()).unwrap(),
            train,
            held_out,
        };
        let preference = Preference {
            loss,
            beta: 0.1,
            sft_weight: 0.0,
            sft_reduction: SftReduction::BatchTokens,
        };
        let settings = RunSettings {
            objective: Objective::Preference(preference),
            epochs: 6,
            batch: Batch::Rows(16),
            pack_tokens: 512,
            rate: 1e-2,
            ..settings()
        };
        let folder = tempfile::tempdir().unwrap();
        let (form, mut watcher) = (form(&base, 8), Watcher::default());
        let place = (folder.path(), &form, BTreeMap::new());
        run(&mut network, &data, &settings, place, &mut watcher).unwrap();
        let accuracy = watcher.evaluations.last().unwrap()["eval_rewards/accuracies"]
            .as_f64()
            .unwrap();
        assert!(
            accuracy >= 0.95,
            "{loss:?}: {accuracy}, {:?}",
            watcher.losses
        );
    }
}

#[test]
fn settings_out_of_range_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let data = RunData {
        train: singles(4, 64),
        ..Default::default()
    };
    type Change = fn(&mut RunSettings);
    let wrong: [(&str, Change); 6] = [
        ("learning rate", |s| s.rate = 0.0),
        ("learning rate", |s| s.rate = f64::NAN),
        ("epochs", |s| s.epochs = 0),
        ("batch", |s| s.batch = Batch::Rows(0)),
        ("warm-up ratio", |s| s.warmup = Warmup::Ratio(1.5)),
        ("pack tokens", |s| s.pack_tokens = 0),
    ];
    for (name, change) in wrong {
        let mut settings = settings();
        change(&mut settings);
        let error = go(folder.path(), &data, &settings, None)
            .unwrap_err()
            .to_string();
        assert!(error.starts_with(name), "{name}: {error}");
    }
    let nothing = RunData {
        train: vec![],
        ..Default::default()
    };
    assert!(matches!(
        go(folder.path(), &nothing, &settings(), None),
        Err(TrainError::NoRows { .. })
    ));
}
