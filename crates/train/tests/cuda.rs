//! Training on a device beside training on the processor and beside torch. The device is the
//! emulator, unless `AUTODIDACT_TEST_DEVICE` names another (`cuda:0`).
//!
//! Attention multiplies bf16 on a device, whatever the weights are; products do where weights are
//! not f32. So gradients of an f32 model lie within 3 % of the processor's (a tensor's L2 norm; the
//! worst are those that reach q and k through the scores), of others within 4 %; losses within
//! 2e-3.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]
#![expect(
    clippy::print_stdout,
    reason = "distances, for whoever wants to see them"
)]

#[path = "training/common.rs"]
mod common;

use common::{decoder, floats, form, lora, pairs, singles, wake};
use kernels::cuda::Device;
use model::{CudaDecoder, CudaOptions, Decoder, KvType, LoadAs, LoadOptions, ModelFiles};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use testkit::fixtures;
use train::{
    Batch, Coefficients, DeviceNeed, Gradients, Item, LoraSettings, Network, Objective, Observer,
    OptimizerSettings, Pack, PassOptions, Preference, PreferenceLoss, Recompute, ReferenceScores,
    RunData, RunSettings, Sequence, SftReduction, Shape, StepOptions, StepReport, StepSums,
    TrainError, Warmup, run, score_pairs, step,
};

fn device() -> Device {
    match std::env::var("AUTODIDACT_TEST_DEVICE").as_deref() {
        Ok(name) if name.starts_with("cuda:") => {
            let number = name["cuda:".len()..].parse().unwrap();
            Device::open(number).unwrap()
        }
        _ => Device::emulated(),
    }
}

fn load_options(weights: LoadAs) -> LoadOptions {
    LoadOptions {
        weights,
        ..Default::default()
    }
}

fn on_device(name: &str, weights: LoadAs) -> CudaDecoder {
    let files = ModelFiles::open(&fixtures::folder(name)).unwrap();
    let options = load_options(weights);
    files.load_decoder_on(&device(), &options).unwrap()
}

/// Relative distances of losses and of one tensor's gradient.
const LIKE_F32: (f64, f64) = (2e-3, 3e-2);
const LIKE_BF16: (f64, f64) = (2e-3, 4e-2);

const WHOLE: StepOptions = StepOptions {
    pass: PassOptions {
        recompute: Recompute::Layers,
        logit_rows: Some(16),
        dropout_key: 0,
    },
    pack_tokens: 50, // several packs
    workers: 1,
    step: 1,
    seed: 0,
};

fn dpo() -> Objective {
    Objective::Preference(Preference {
        loss: PreferenceLoss::Sigmoid {
            label_smoothing: 0.0,
        },
        beta: 0.1,
        sft_weight: 0.5,
        sft_reduction: SftReduction::BatchTokens,
    })
}

type Named = Vec<(String, Vec<f32>)>;

fn compute(
    network: &Network,
    items: &[Item],
    references: &[ReferenceScores],
    (objective, options): (&Objective, &StepOptions),
) -> (StepSums, Named) {
    let rows: Vec<&Item> = items.iter().collect();
    let (sums, gradients) = step(network, &rows, references, (objective, options)).unwrap();
    (sums, named(network, &gradients))
}

fn named(network: &Network, gradients: &Gradients) -> Named {
    let all = network.parameters().iter().map(|one| {
        let id = network.parameters().id_of(&one.name).unwrap();
        (one.name.clone(), floats(gradients.get(id).unwrap()))
    });
    all.collect()
}

/// Relative L2 distance of two tensors.
fn apart(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let length = square(&mut a.iter().map(|x| f64::from(*x)));
    let between = square(&mut a.iter().zip(b).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    between / length.max(1e-12)
}

/// That of the worst tensor, with its name.
fn worst(a: &Named, b: &Named) -> (f64, String) {
    let pairs = a.iter().zip(b).map(|((name, a), (other, b))| {
        assert_eq!(name, other);
        (apart(a, b), name.clone())
    });
    pairs.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap()
}

/// Steps of both networks beside each other, SFT and DPO.
fn compare(label: &str, host: &Network, there: &Network, (loss, gradient): (f64, f64)) {
    let vocab = host.config().vocab_size as u32;
    let (single, pair) = (singles(7, vocab), pairs(4, vocab));
    let references = vec![(-20.0, -25.0); pair.len()];
    for (items, references, objective) in [
        (&single, &[][..], Objective::Sft),
        (&pair, &references[..], dpo()),
    ] {
        let how = (&objective, &WHOLE);
        let (ours, found) = compute(there, items, references, how);
        let (theirs, wanted) = compute(host, items, references, how);
        let off = (ours.loss - theirs.loss).abs() / theirs.loss.abs();
        let (distance, name) = worst(&wanted, &found);
        println!("{label}: loss {off:.1e}, {name} {distance:.1e}");
        assert!(off < loss, "{label}: {} {}", ours.loss, theirs.loss);
        assert!(distance < gradient, "{label}: {name} {distance:e}");
        let entropy = (ours.entropy - theirs.entropy).abs() / theirs.entropy;
        assert!(entropy < loss, "{label}: entropy {entropy:e}");
        assert_eq!(ours.trained_tokens, theirs.trained_tokens);
    }
}

fn with_lora(host: &Decoder, there: &CudaDecoder, settings: &LoraSettings) -> [Network; 2] {
    let mut both = [
        Network::with_new_adapter(host, settings, 1).unwrap(),
        Network::with_new_adapter(there, settings, 1).unwrap(),
    ];
    both.iter_mut().for_each(wake);
    both
}

/// Biases, norms on heads, windows, tied tables, groups of heads; f32.
#[test]
fn adapters_of_every_architecture() {
    for name in [
        "llama3_1",
        "mistral",
        "qwen2",
        "qwen2_window",
        "qwen3",
        "smollm",
    ] {
        let weights = LoadAs::F32;
        let (host, there) = (decoder(name, weights), on_device(name, weights));
        let [host, there] = with_lora(&host, &there, &lora(4));
        assert!(there.is_on_device() && !host.is_on_device());
        compare(name, &host, &there, LIKE_F32);
    }
}

#[test]
fn adapters_beside_weights_in_other_formats() {
    for (name, weights) in [
        ("llama3_1", LoadAs::Stored), // bf16
        ("llama2", LoadAs::Stored),   // f16
        ("llama3_1", LoadAs::Q8_0),
        ("qwen3", LoadAs::Q8_0),
        ("qwen2", LoadAs::Q8_0),
    ] {
        let (host, there) = (decoder(name, weights), on_device(name, weights));
        let [host, there] = with_lora(&host, &there, &lora(4));
        let label = format!("{name} {weights:?}");
        compare(&label, &host, &there, LIKE_BF16);
    }
}

/// Some projections of some layers: below the lowest nobody asks for gradients.
#[test]
fn adapters_on_few_matrices() {
    let settings = LoraSettings {
        targets: vec![model::Projection::V, model::Projection::Down],
        ..lora(2)
    };
    let (host, there) = (
        decoder("qwen3", LoadAs::F32),
        on_device("qwen3", LoadAs::F32),
    );
    let [host, there] = with_lora(&host, &there, &settings);
    compare("v and down", &host, &there, LIKE_F32);
}

#[test]
fn all_weights() {
    for name in ["llama3_1", "qwen2", "qwen3", "smollm"] {
        let decoder = decoder(name, LoadAs::F32);
        let host = Network::full(&decoder).unwrap();
        let there = Network::full(&decoder).unwrap().onto(&device()).unwrap();
        compare(name, &host, &there, LIKE_F32);
    }
    let frozen = Network::frozen(&decoder("llama3_1", LoadAs::F32)).unwrap();
    let error = frozen.onto(&device()).unwrap_err().to_string();
    assert!(error.contains("frozen weights"), "{error}");
}

/// What torch computed in f64 of models in f32 (`scripts/make-train-fixtures`).
#[test]
fn losses_and_gradients_of_torch() {
    let root = match std::env::var_os("AUTODIDACT_TEST_FIXTURES") {
        Some(carried) => PathBuf::from(carried).join("train"),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures"),
    };
    for name in ["llama", "qwen2", "qwen3"] {
        let folder = root.join(name);
        let files = ModelFiles::open(&folder.join("base")).unwrap();
        let options = load_options(LoadAs::Stored);
        let base = files.load_decoder_on(&device(), &options).unwrap();
        let adapter = base.adapter_fit().load(&folder.join("adapter")).unwrap();
        let network = Network::with_adapter(&base, &adapter, 0.0).unwrap();
        let json = |name: &str| -> serde_json::Value {
            let text = std::fs::read_to_string(folder.join(name)).unwrap();
            serde_json::from_str(&text).unwrap()
        };
        let (batch, expected) = (json("batch.json"), json("expected.json"));
        let items = torch_rows(&batch["sft"]);
        let rows: Vec<&Item> = items.iter().collect();
        let how = (&Objective::Sft, &WHOLE);
        let (sums, found) = step(&network, &rows, &[], how).unwrap();
        let wanted = expected["losses"]["sft"]["loss"].as_f64().unwrap();
        assert!((sums.loss - wanted).abs() < 2e-3 * wanted, "{}", sums.loss);
        let gradients = fixtures::read_tensors(&folder.join("gradients.safetensors"));
        for (parameter, ours) in named(&network, &found) {
            let key = parameter.replace("model.layers.", "layers.");
            let torch = &gradients[&format!("sft.{}", key.replace(".weight", ""))];
            let torch: Vec<f32> = torch.values.iter().map(|x| *x as f32).collect();
            let distance = apart(&torch, &ours);
            assert!(distance < 2e-2, "{name} {key}: {distance:e}");
        }
    }
}

fn torch_rows(rows: &serde_json::Value) -> Vec<Item> {
    let ids = |value: &serde_json::Value| -> Vec<u32> {
        let ids = value.as_array().unwrap().iter();
        ids.map(|id| id.as_u64().unwrap() as u32).collect()
    };
    let rows = rows.as_array().unwrap().iter();
    rows.map(|row| Item {
        id: "row".into(),
        tokens: train::ItemTokens::Single(Sequence {
            tokens: ids(&row["tokens"]),
            weights: ids(&row["trained"]).iter().map(|x| *x as f32).collect(),
        }),
    })
    .collect()
}

/// Kept or computed again, in few packs or many, the same numbers: those of attention bit for
/// bit. A second time everything is the same to the bit.
#[test]
fn packs_chunks_and_recomputing_do_not_show() {
    let there = on_device("llama3_1", LoadAs::F32);
    let settings = LoraSettings {
        dropout: 0.0,
        ..lora(4)
    };
    let mut network = Network::with_new_adapter(&there, &settings, 1).unwrap();
    wake(&mut network);
    let items = singles(6, network.config().vocab_size as u32);
    let with = |options: &StepOptions| compute(&network, &items, &[], (&Objective::Sft, options));
    let first = with(&WHOLE);
    assert_eq!(first, with(&WHOLE));
    let pass = |pass: PassOptions| StepOptions { pass, ..WHOLE };
    for options in [
        StepOptions {
            pack_tokens: 1,
            ..WHOLE
        },
        StepOptions {
            pack_tokens: 4096,
            workers: 3,
            ..WHOLE
        },
        pass(PassOptions {
            logit_rows: Some(3),
            ..WHOLE.pass
        }),
        pass(PassOptions {
            recompute: Recompute::Nothing,
            ..WHOLE.pass
        }),
    ] {
        let (sums, gradients) = with(&options);
        assert!((sums.loss - first.0.loss).abs() < 1e-6, "{options:?}");
        let (distance, name) = worst(&first.1, &gradients);
        assert!(distance < 1e-5, "{options:?}: {name} {distance:e}");
    }
}

#[test]
fn dropout_is_drawn_again_as_it_was() {
    let there = on_device("llama3_1", LoadAs::F32);
    let settings = LoraSettings {
        dropout: 0.3,
        ..lora(4)
    };
    let mut network = Network::with_new_adapter(&there, &settings, 1).unwrap();
    wake(&mut network);
    let items = singles(3, network.config().vocab_size as u32);
    let at = |step, recompute| {
        let pass = PassOptions {
            recompute,
            ..WHOLE.pass
        };
        let options = StepOptions {
            step,
            pass,
            ..WHOLE
        };
        compute(&network, &items, &[], (&Objective::Sft, &options))
    };
    let first = at(1, Recompute::Layers);
    assert_eq!(first, at(1, Recompute::Nothing));
    assert_ne!(first.0.loss, at(2, Recompute::Layers).0.loss);
    // A directional derivative: the masks of both directions are the same.
    let mut values = network.parameters().snapshot().unwrap();
    let name = "model.layers.0.self_attn.v_proj.lora_A.weight";
    let gradient = &first.1.iter().find(|one| one.0 == name).unwrap().1;
    let value = values.get_mut(name).unwrap();
    let shape = value.shape().clone();
    let length = gradient.iter().map(|x| x * x).sum::<f32>().sqrt();
    let slope = candle_core::Tensor::from_vec(gradient.clone(), &shape, value.device()).unwrap();
    let along = (slope / f64::from(length)).unwrap();
    let mut losses = [0.0; 2];
    let start = value.clone();
    for (loss, step) in losses.iter_mut().zip([0.05, -0.05]) {
        let mut moved = values.clone();
        let there = (&start + (&along * step).unwrap()).unwrap();
        moved.insert(name.to_owned(), there);
        network.set_parameters(moved).unwrap();
        let rows: Vec<&Item> = items.iter().collect();
        *loss = step_loss(&network, &rows);
    }
    let found = (losses[0] - losses[1]) / 0.1;
    let wanted = f64::from(length);
    assert!((found / wanted - 1.0).abs() < 0.1, "{found} {wanted}");
}

fn step_loss(network: &Network, rows: &[&Item]) -> f64 {
    let (sums, _) = step(network, rows, &[], (&Objective::Sft, &WHOLE)).unwrap();
    sums.loss
}

struct Silent;

impl Observer for Silent {
    fn on_step(&mut self, _: &StepReport) {}
    fn on_evaluation(&mut self, _: u64, _: &serde_json::Map<String, serde_json::Value>) {}
    fn should_stop(&self) -> bool {
        false
    }
    fn memory_peak_bytes(&self) -> Option<u64> {
        None
    }
}

/// Whole runs: the optimiser moves the host's values, and the device follows.
#[test]
fn ten_steps_end_where_the_processors_do() {
    let weights = LoadAs::F32;
    let (host, there) = (decoder("llama3_1", weights), on_device("llama3_1", weights));
    let settings = RunSettings {
        objective: Objective::Sft,
        epochs: 1,
        max_steps: Some(10),
        batch: Batch::Rows(4),
        pack_tokens: 64,
        workers: 2,
        rate: 3e-3,
        shape: Shape::Constant,
        warmup: Warmup::Steps(0),
        clip: Some(1.0),
        optimizer: OptimizerSettings::default(),
        seed: 0,
        pass: PassOptions::default(),
        checkpoint_every: 100,
        keep: 1,
        evaluate_every: 100,
    };
    let data = RunData {
        train: singles(20, host.config.vocab_size as u32),
        ..Default::default()
    };
    let mut ends = vec![];
    let form = form(&host, 4);
    for mut network in with_lora(&host, &there, &lora(4)) {
        let place = tempfile::tempdir().unwrap();
        let how = (place.path(), &form, BTreeMap::new());
        let done = run(&mut network, &data, &settings, how, &mut Silent).unwrap();
        let written = there.adapter_fit().load(place.path()).unwrap();
        let values: Vec<f32> = written.parts().flat_map(|part| floats(&part.b)).collect();
        ends.push((done.last_loss.unwrap(), values));
    }
    let (host, there) = (&ends[0], &ends[1]);
    assert!(
        (host.0 - there.0).abs() < 1e-2 * host.0,
        "{} {}",
        host.0,
        there.0
    );
    let distance = apart(&host.1, &there.1);
    assert!(distance < 2e-2, "{distance:e}");
}

/// One copy of the weights generates and trains.
#[test]
fn a_generating_model_shares_its_weights() {
    let files = ModelFiles::open(&fixtures::folder("llama3_1")).unwrap();
    let options = CudaOptions {
        max_tokens: 32,
        max_sequences: 4,
        logit_rows: 8,
        ..CudaOptions::new(load_options(LoadAs::Stored), 64, KvType::F16)
    };
    let llama = files.load_on(&device(), options).unwrap();
    let shared = llama.decoder();
    assert_eq!(shared.size_in_bytes(), llama.weight_bytes());
    let items = pairs(3, 64);
    let scores = |decoder: &CudaDecoder| {
        let network = Network::frozen(decoder).unwrap();
        score_pairs(&network, &items, &WHOLE, |_| ()).unwrap()
    };
    let own = scores(&on_device("llama3_1", LoadAs::Stored));
    assert_eq!(scores(&shared), own);
    drop(llama);
    assert_eq!(scores(&shared), own);
}

/// Peak of a pass as the pool counts it, beside the arithmetic; what is used is used again; what
/// does not fit says so, and nothing is broken by it.
#[test]
fn memory_is_counted_and_bounded() {
    const TOKENS: usize = 96;
    let there = on_device("llama3_1", LoadAs::Stored);
    let network = Network::with_new_adapter(&there, &lora(4), 1).unwrap();
    let sequence = Sequence::completion(common::tokens(1, TOKENS, 64), 1);
    let pack = Pack::new([&sequence]);
    let coefficients = vec![-1.0; sequence.trained()];
    let pass = |options: &PassOptions| {
        let mut gradients = Gradients::new(network.parameters());
        let known = Coefficients::Known(&coefficients);
        network.backward(&pack, known, options, &mut gradients)?;
        gradients.come_home(network.parameters())?;
        Ok::<_, TrainError>(named(&network, &gradients))
    };
    for recompute in [Recompute::Layers, Recompute::Nothing] {
        let options = PassOptions {
            recompute,
            ..Default::default()
        };
        network.begin_peak();
        let first = pass(&options).unwrap();
        let used = network.device_use().unwrap();
        network.begin_peak();
        assert_eq!(pass(&options).unwrap(), first);
        let again = network.device_use().unwrap();
        assert_eq!(
            (again.peak, again.live),
            (used.peak, used.live),
            "{recompute:?}"
        );
        let parameters = network.parameters().count();
        let need = DeviceNeed::new(network.config(), (parameters, TOKENS), &options);
        // Sizes are rounded, which shows where everything is small.
        println!(
            "{recompute:?}: {used:?}, by arithmetic {} {need:?}",
            need.total()
        );
        assert!(used.peak < need.total() * 9 / 8, "{used:?} {need:?}");
        assert!(used.peak > need.total() * 3 / 4, "{used:?} {need:?}");
        let limit = used.peak - 1;
        network.limit_memory(limit);
        let error = pass(&options).unwrap_err();
        assert!(matches!(error, TrainError::DeviceMemory { .. }), "{error}");
        assert!(error.to_string().contains("lower the tokens of a pack"));
        network.limit_memory(u64::MAX);
        assert_eq!(pass(&options).unwrap(), first);
    }
}
