//! Losses, gradients and steps beside torch, PEFT and TRL (`scripts/make-train-fixtures`; the
//! reference values were computed in f64 where torch can).

use crate::common::{floats, form};
use model::{Decoder, LoadOptions, ModelFiles};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use testkit::fixtures::read_tensors;
use train::{
    Batch, Item, ItemTokens, Network, Objective, Observer, OptimizerSettings, Pair, PassOptions,
    Preference, PreferenceLoss, Recompute, ReferenceScores, RunData, RunSettings, Sequence,
    SftReduction, Shape, StepOptions, StepReport, Warmup, WeightsForm, run, score_pairs, step,
};

const MODELS: [&str; 3] = ["llama", "qwen2", "qwen3"];
/// Relative distance of losses, and of one tensor's gradient.
const LOSS: f64 = 1e-6;
const GRADIENT: f64 = 1e-5;
/// Rank of the adapters.
const RANK: usize = 4;

fn folder(model: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(model)
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn base(model: &str) -> Decoder {
    let files = ModelFiles::open(&folder(model).join("base")).unwrap();
    files
        .load(&LoadOptions::default())
        .unwrap()
        .decoder()
        .clone()
}

fn with_adapter(model: &str, decoder: &Decoder) -> Network {
    let adapter = decoder
        .load_adapter(&folder(model).join("adapter"))
        .unwrap();
    Network::with_adapter(decoder, &adapter, 0.0).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    let ids = value.as_array().unwrap().iter();
    ids.map(|id| id.as_u64().unwrap() as u32).collect()
}

fn singles(batch: &Value) -> Vec<Item> {
    let rows = batch["sft"].as_array().unwrap().iter().enumerate();
    rows.map(|(row, value)| {
        let weights = ids(&value["trained"])
            .iter()
            .map(|flag| *flag as f32)
            .collect();
        let sequence = Sequence {
            tokens: ids(&value["tokens"]),
            weights,
        };
        Item {
            id: format!("row-{row}"),
            tokens: ItemTokens::Single(sequence),
        }
    })
    .collect()
}

fn pairs(list: &Value) -> Vec<Item> {
    let rows = list.as_array().unwrap().iter().enumerate();
    rows.map(|(row, value)| {
        let prompt = ids(&value["prompt"]);
        let side = |name: &str| {
            let all = prompt.iter().copied().chain(ids(&value[name])).collect();
            Sequence::completion(all, prompt.len())
        };
        let pair = Pair {
            chosen: side("chosen"),
            rejected: side("rejected"),
        };
        Item {
            id: format!("pair-{row}"),
            tokens: ItemTokens::Pair(pair),
        }
    })
    .collect()
}

fn preference(loss: PreferenceLoss, sft_weight: f64, sft_reduction: SftReduction) -> Objective {
    Objective::Preference(Preference {
        loss,
        beta: 0.1,
        sft_weight,
        sft_reduction,
    })
}

fn objectives() -> Vec<(&'static str, Objective)> {
    use PreferenceLoss::{Ipo, Nca, Sigmoid};
    let dpo = Sigmoid {
        label_smoothing: 0.0,
    };
    let batch = SftReduction::BatchTokens;
    vec![
        ("sft", Objective::Sft),
        ("dpo", preference(dpo, 0.0, batch)),
        (
            "dpo_smoothed",
            preference(
                Sigmoid {
                    label_smoothing: 0.1,
                },
                0.0,
                batch,
            ),
        ),
        ("nca", preference(Nca, 0.0, batch)),
        ("ipo", preference(Ipo, 0.0, batch)),
        ("dpo_sft_batch", preference(dpo, 1.0, batch)),
        (
            "dpo_sft_sequence",
            preference(dpo, 1.0, SftReduction::PerSequence),
        ),
    ]
}

const HOW: StepOptions = StepOptions {
    pass: PassOptions {
        recompute: Recompute::Layers,
        logit_rows: None,
        dropout_key: 0,
    },
    pack_tokens: 70, // some rows share a pack, some do not
    workers: 1,
    step: 1,
    seed: 0,
};

fn relative(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let apart = square(&mut found.iter().zip(expected).map(|(a, b)| f64::from(*a) - b));
    apart / square(&mut expected.iter().copied())
}

#[track_caller]
fn close(label: &str, found: f64, expected: f64, tolerance: f64) {
    let apart = (found - expected).abs() / expected.abs().max(1.0);
    assert!(
        apart < tolerance,
        "{label}: {found}, torch {expected} ({apart:e})"
    );
}

#[test]
fn losses_and_gradients_of_adapters() {
    for model in MODELS {
        let decoder = base(model);
        let network = with_adapter(model, &decoder);
        let frozen = Network::frozen(&decoder).unwrap();
        let batch = json(&folder(model).join("batch.json"));
        let expected = json(&folder(model).join("expected.json"));
        let gradients = read_tensors(&folder(model).join("gradients.safetensors"));
        let (singles, pairs) = (singles(&batch), pairs(&batch["pairs"]));
        let of_base = score_pairs(&frozen, &pairs, &HOW, |_| ()).unwrap();
        for (name, objective) in objectives() {
            let (items, references) = match objective {
                Objective::Sft => (&singles, vec![]),
                Objective::Preference(_) => (&pairs, of_base.clone()),
            };
            let rows: Vec<&Item> = items.iter().collect();
            let (sums, found) = step(&network, &rows, &references, (&objective, &HOW)).unwrap();
            let wanted = &expected["losses"][name];
            close(
                &format!("{model} {name}"),
                sums.loss,
                wanted["loss"].as_f64().unwrap(),
                LOSS,
            );
            compare_pairs(&format!("{model} {name}"), wanted, &of_base);
            let mut compared = 0;
            for one in network.parameters().iter() {
                let key = one
                    .name
                    .replace("model.layers.", "layers.")
                    .replace(".weight", "");
                let torch = &gradients[&format!("{name}.{key}")];
                let ours = floats(
                    found
                        .get(network.parameters().id_of(&one.name).unwrap())
                        .unwrap(),
                );
                let apart = relative(&ours, &torch.values);
                assert!(apart < GRADIENT, "{model} {name} {key}: {apart:e}");
                compared += 1;
            }
            assert_eq!(
                compared,
                2 * 7 * 2,
                "{model}: two matrices of seven projections in two layers"
            );
        }
    }
}

/// The reference's sums of log-probabilities.
fn compare_pairs(label: &str, wanted: &Value, references: &[ReferenceScores]) {
    let Some(reference) = wanted.get("reference") else {
        return;
    };
    for (row, (chosen, rejected)) in references.iter().enumerate() {
        close(
            label,
            *chosen,
            reference["chosen"][row].as_f64().unwrap(),
            1e-6,
        );
        close(
            label,
            *rejected,
            reference["rejected"][row].as_f64().unwrap(),
            1e-6,
        );
    }
}

#[test]
fn gradients_of_all_weights() {
    for model in MODELS {
        let network = Network::full(&base(model)).unwrap();
        let items = singles(&json(&folder(model).join("batch.json")));
        let expected = json(&folder(model).join("expected.json"));
        let gradients = read_tensors(&folder(model).join("gradients.safetensors"));
        let rows: Vec<&Item> = items.iter().collect();
        let (sums, found) = step(&network, &rows, &[], (&Objective::Sft, &HOW)).unwrap();
        close(
            model,
            sums.loss,
            expected["losses"]["full_sft"]["loss"].as_f64().unwrap(),
            LOSS,
        );
        let wanted = gradients
            .keys()
            .filter(|name| name.starts_with("full_sft."))
            .count();
        assert_eq!(wanted, network.parameters().iter().len(), "{model}");
        for one in network.parameters().iter() {
            let torch = &gradients[&format!("full_sft.{}", one.name)];
            let ours = floats(
                found
                    .get(network.parameters().id_of(&one.name).unwrap())
                    .unwrap(),
            );
            let apart = relative(&ours, &torch.values);
            assert!(apart < GRADIENT, "{model} {}: {apart:e}", one.name);
        }
    }
}

struct Silent;

impl Observer for Silent {
    fn on_step(&mut self, _: &StepReport) {}
    fn on_evaluation(&mut self, _: u64, _: &Map<String, Value>) {}
    fn should_stop(&self) -> bool {
        false
    }
    fn memory_peak_bytes(&self) -> Option<u64> {
        None
    }
}

fn settings(objective: Objective) -> RunSettings {
    RunSettings {
        objective,
        epochs: 1,
        max_steps: Some(10),
        batch: Batch::Rows(4),
        pack_tokens: 64,
        workers: 1,
        rate: 1e-3,
        shape: Shape::Cosine { end: 0.0 },
        warmup: Warmup::Steps(3),
        clip: Some(1.0),
        optimizer: OptimizerSettings {
            weight_decay: 0.01,
            ..Default::default()
        },
        seed: 0,
        pass: PassOptions::default(),
        checkpoint_every: 100,
        keep: 1,
        evaluate_every: 100,
    }
}

/// Trains in a new folder; gives the measurements of each step and the folder.
fn train(
    network: &mut Network,
    data: &RunData,
    settings: &RunSettings,
    form: &WeightsForm,
) -> (Vec<Value>, tempfile::TempDir) {
    let place = tempfile::tempdir().unwrap();
    run(
        network,
        data,
        settings,
        (place.path(), form, BTreeMap::new()),
        &mut Silent,
    )
    .unwrap();
    let metrics = fs::read_to_string(place.path().join("metrics.jsonl")).unwrap();
    let rows = metrics
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    (rows.collect(), place)
}

#[test]
fn ten_steps_of_adamw() {
    for model in MODELS {
        let decoder = base(model);
        let mut network = with_adapter(model, &decoder);
        let expected = json(&folder(model).join("steps.json"));
        let data = RunData {
            train: singles(&json(&folder(model).join("batch.json"))),
            ..Default::default()
        };
        let form = form(&decoder, RANK);
        let (rows, place) = train(&mut network, &data, &settings(Objective::Sft), &form);
        let wanted = expected["f64"].as_array().unwrap();
        assert_eq!((rows.len(), wanted.len()), (10, 10));
        for (ours, torch) in rows.iter().zip(wanted) {
            let label = format!("{model} step {}", ours["step"]);
            for (key, other) in [
                ("loss", "loss"),
                ("grad_norm", "grad_norm"),
                ("learning_rate", "lr"),
            ] {
                close(
                    &format!("{label} {key}"),
                    ours[key].as_f64().unwrap(),
                    torch[other].as_f64().unwrap(),
                    1e-5,
                );
            }
        }
        // The adapter as we wrote it, and as PEFT wrote its own.
        let ours = read_tensors(&place.path().join("adapter_model.safetensors"));
        let torch = read_tensors(&folder(model).join("after_ten_steps_f64.safetensors"));
        assert_eq!(
            ours.keys().collect::<Vec<_>>(),
            torch.keys().collect::<Vec<_>>()
        );
        for (name, torch) in &torch {
            let ours: Vec<f32> = ours[name].values.iter().map(|x| *x as f32).collect();
            let apart = relative(&ours, &torch.values);
            assert!(apart < 1e-5, "{model} {name}: {apart:e}");
        }
    }
}

/// What TRL's `DPOTrainer` logged on the same pairs.
#[test]
fn three_steps_of_trl() {
    let (decoder, expected) = (base("llama"), json(&folder("llama").join("trl.json")));
    let batch = SftReduction::BatchTokens;
    let dpo = PreferenceLoss::Sigmoid {
        label_smoothing: 0.0,
    };
    for (name, objective) in [
        ("sigmoid", preference(dpo, 0.0, batch)),
        ("nca_pair", preference(PreferenceLoss::Nca, 0.0, batch)),
        ("ipo", preference(PreferenceLoss::Ipo, 0.0, batch)),
        ("sigmoid+sft", preference(dpo, 1.0, batch)),
    ] {
        let mut network = with_adapter("llama", &decoder);
        let train_rows = pairs(&expected["pairs"]);
        let data = RunData {
            references: score_pairs(&network, &train_rows, &HOW, |_| ()).unwrap(),
            train: train_rows,
            ..Default::default()
        };
        let settings = RunSettings {
            max_steps: Some(3),
            shape: Shape::Linear { end: 0.0 },
            warmup: Warmup::Steps(0),
            optimizer: OptimizerSettings::default(),
            clip: expected["clip_norm"].as_f64(),
            ..settings(objective)
        };
        let (rows, _) = train(&mut network, &data, &settings, &form(&decoder, RANK));
        let wanted = expected["runs"][name].as_array().unwrap();
        assert_eq!((rows.len(), wanted.len()), (3, 3), "{name}");
        for (ours, trl) in rows.iter().zip(wanted) {
            for key in [
                "loss",
                "grad_norm",
                "learning_rate",
                "rewards/chosen",
                "rewards/rejected",
                "rewards/accuracies",
                "rewards/margins",
                "logps/chosen",
                "logps/rejected",
                "logits/chosen",
                "logits/rejected",
            ] {
                // TRL logs f32; margins are differences of numbers around -80.
                let label = format!("{name} step {} {key}", ours["step"]);
                close(
                    &label,
                    ours[key].as_f64().unwrap(),
                    trl[key].as_f64().unwrap(),
                    5e-5,
                );
            }
        }
    }
}

/// Merged weights and the adapter beside them give the same log-probabilities.
#[test]
fn merging_changes_nothing() {
    for model in MODELS {
        let (decoder, place) = (base(model), tempfile::tempdir().unwrap());
        let (from, to) = (folder(model), place.path().join("merged"));
        let done = train::merge(&decoder, &from.join("base"), &from.join("adapter"), &to).unwrap();
        assert_eq!((done.matrices, done.files), (14, 1), "{model}");
        let merged = ModelFiles::open(&to)
            .unwrap()
            .load(&LoadOptions::default())
            .unwrap();
        let merged = Network::frozen(merged.decoder()).unwrap();
        let beside = with_adapter(model, &decoder);
        let items = singles(&json(&from.join("batch.json")));
        let pack = train::Pack::new(items.iter().flat_map(Item::sequences));
        let options = PassOptions::default();
        let (a, b) = (
            merged.score(&pack, &options).unwrap(),
            beside.score(&pack, &options).unwrap(),
        );
        for (a, b) in a.iter().zip(&b) {
            let apart = (a.log_prob - b.log_prob).abs();
            assert!(
                apart < 1e-5 * b.log_prob.abs().max(1.0),
                "{model}: {a:?} {b:?}"
            );
        }
        let error = train::merge(&decoder, &from.join("base"), &from.join("adapter"), &to)
            .unwrap_err()
            .to_string();
        assert!(error.contains("is not empty"), "{error}");
    }
    let error = train::merge(
        &base("llama"),
        &folder("llama").join("base"),
        &folder("qwen2").join("adapter"),
        Path::new("never"),
    )
    .unwrap_err();
    assert!(error.to_string().contains("shape"), "{error}");
}

/// An adapter that was saved and loaded is the same, to the bit.
#[test]
fn adapters_survive_their_files() {
    for model in MODELS {
        let (decoder, place) = (base(model), tempfile::tempdir().unwrap());
        let network = with_adapter(model, &decoder);
        form(&decoder, RANK).write(&network, place.path()).unwrap();
        let again = decoder.load_adapter(place.path()).unwrap();
        let again = Network::with_adapter(&decoder, &again, 0.0).unwrap();
        let values = |network: &Network| -> Vec<(String, Vec<f32>)> {
            let all = network.parameters().iter();
            all.map(|one| (one.name.clone(), floats(&one.value)))
                .collect()
        };
        assert_eq!(values(&network), values(&again));
    }
}
