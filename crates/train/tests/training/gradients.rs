//! Gradients of whole models against central differences, in f64, of the oracle's forward pass:
//! every architecture, every parameter, packed sequences, frozen weights of several formats.

use candle_core::Tensor;
use candle_core::quantized::GgmlDType;
use model::{Decoder, LoadAs, LoadOptions, ModelConfig, ModelFiles, Projection};
use std::collections::BTreeMap;
use testkit::fixtures::{self, MODELS, read_weights};
use testkit::gguf_writer::gguf_twin;
use testkit::oracle::{self, OracleWeights, Pairs};
use train::{
    Coefficients, Gradients, LoraSettings, Network, Pack, PassOptions, Recompute, Sequence,
};

/// Largest distance of a directional derivative, relative to the product of the two lengths.
const TOLERANCE: f64 = 1e-5;

fn decoder(name: &str) -> Decoder {
    let options = LoadOptions {
        weights: LoadAs::F32,
        ..Default::default()
    };
    let files = ModelFiles::open(&fixtures::folder(name)).unwrap();
    files.load(&options).unwrap().decoder().clone()
}

/// Repeatable values in -1..1.
fn noise(seed: u64, len: usize) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            f64::from((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0)
        })
        .collect()
}

/// Two sequences of which some tokens are trained, and a coefficient for each of those.
fn examples(config: &ModelConfig) -> (Vec<Sequence>, Vec<f32>) {
    let sequences: Vec<Sequence> = [(11, 1u64), (6, 2)]
        .map(|(len, seed)| {
            let drawn = noise(seed, len);
            let tokens = drawn
                .iter()
                .map(|x| ((x + 1.0) / 2.0 * config.vocab_size as f64) as u32);
            let mut sequence = Sequence::completion(tokens.collect(), 3);
            sequence.weights[4] = 0.0;
            sequence
        })
        .into();
    let trained = sequences.iter().map(Sequence::trained).sum();
    let coefficients = noise(7, trained).iter().map(|c| *c as f32).collect();
    (sequences, coefficients)
}

/// The loss in f64: the sum of coefficient * log-probability over the trained tokens.
fn oracle_loss(
    config: &ModelConfig,
    weights: &OracleWeights,
    sequences: &[Sequence],
    coefficients: &[f32],
) -> f64 {
    let mut coefficients = coefficients.iter();
    let mut loss = 0.0;
    for Sequence {
        tokens,
        weights: trained,
    } in sequences
    {
        let logits = oracle::logits(config, weights, tokens);
        for i in (1..tokens.len()).filter(|i| trained[*i] != 0.0) {
            let row = &logits[i - 1];
            let top = row.iter().fold(f64::MIN, |a, b| a.max(*b));
            let total: f64 = row.iter().map(|x| (x - top).exp()).sum();
            let log_prob = row[tokens[i] as usize] - top - total.ln();
            loss += f64::from(*coefficients.next().unwrap()) * log_prob;
        }
    }
    loss
}

fn floats(tensor: &Tensor) -> Vec<f64> {
    let values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
    values.into_iter().map(f64::from).collect()
}

fn gradients(network: &Network, recompute: Recompute) -> BTreeMap<String, Vec<f64>> {
    let (sequences, coefficients) = examples(network.config());
    let pack = Pack::new(&sequences);
    let options = PassOptions {
        recompute,
        logit_rows: Some(5),
        ..Default::default()
    };
    let mut found = Gradients::new(network.parameters());
    network
        .backward(
            &pack,
            Coefficients::Known(&coefficients),
            &options,
            &mut found,
        )
        .unwrap();
    let names = network.parameters().iter().map(|one| one.name.clone());
    let ids = names.map(|name| {
        let id = network.parameters().id_of(&name).unwrap();
        let gradient = found
            .get(id)
            .unwrap_or_else(|| panic!("{name} got no gradient"));
        (name, floats(gradient))
    });
    ids.collect()
}

/// Compares the derivative of the loss in some directions of each parameter. `moved(weights,
/// name, change)` gives the oracle's weights with a parameter changed.
fn check(
    label: &str,
    network: &Network,
    (sequences, coefficients): &(Vec<Sequence>, Vec<f32>),
    moved: impl Fn(&str, &[f64]) -> OracleWeights,
) {
    let config = network.config();
    let loss = |weights: &OracleWeights| oracle_loss(config, weights, sequences, coefficients);
    let mut worst = (0.0f64, String::new());
    for (name, gradient) in gradients(network, Recompute::Layers) {
        let length = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
        assert!(
            length > 1e-4,
            "{label}: the gradient of {name} is {length:e}"
        );
        for seed in [3, 4] {
            let mut direction = noise(seed, gradient.len());
            // Half along the gradient: a random direction alone hardly sees it.
            let size = direction.iter().map(|d| d * d).sum::<f64>().sqrt();
            for (d, g) in direction.iter_mut().zip(&gradient) {
                *d = *d / size + g / length;
            }
            let size = direction.iter().map(|d| d * d).sum::<f64>().sqrt();
            let step = 1e-5;
            let at = |sign: f64| {
                let change: Vec<f64> = direction.iter().map(|d| sign * step * d).collect();
                loss(&moved(&name, &change))
            };
            let expected = (at(1.0) - at(-1.0)) / (2.0 * step);
            let found: f64 = gradient.iter().zip(&direction).map(|(g, d)| g * d).sum();
            let distance = (found - expected).abs() / (length * size);
            if distance > worst.0 {
                worst = (
                    distance,
                    format!("{name}: {found} by rule, {expected} by differences"),
                );
            }
        }
    }
    assert!(worst.0 < TOLERANCE, "{label}: {:e}, {}", worst.0, worst.1);
}

#[test]
fn of_all_parameters() {
    for name in MODELS {
        let network = Network::full(&decoder(name)).unwrap();
        let base = OracleWeights::new(read_weights(&fixtures::folder(name)));
        check(
            name,
            &network,
            &examples(network.config()),
            |name, change| {
                let mut weights = base.clone();
                let values = weights.tensors.get_mut(name).unwrap();
                values.iter_mut().zip(change).for_each(|(w, c)| *w += c);
                weights
            },
        );
    }
}

/// An adapter on every matrix, neither part of it zero.
fn with_adapter(decoder: &Decoder) -> Network {
    let lora = LoraSettings {
        rank: 3,
        alpha: 6.0,
        dropout: 0.0,
        targets: Projection::ALL.to_vec(),
    };
    let mut network = Network::with_new_adapter(decoder, &lora, 5).unwrap();
    let mut values = network.parameters().snapshot().unwrap();
    for (seed, (name, value)) in (20..).zip(&mut values) {
        if name.contains("lora_B") {
            let drawn: Vec<f32> = noise(seed, value.elem_count())
                .iter()
                .map(|x| *x as f32 * 0.3)
                .collect();
            *value = Tensor::from_vec(drawn, value.shape(), value.device()).unwrap();
        }
    }
    network.set_parameters(values).unwrap();
    network
}

/// The base's weights plus 2 B A, one of A and B moved.
fn merged(
    base: &OracleWeights,
    parts: &BTreeMap<String, (Vec<usize>, Vec<f64>)>,
    moved: &str,
    change: &[f64],
) -> OracleWeights {
    let mut weights = base.clone();
    let value = |name: &str| {
        let (shape, values) = &parts[name];
        let mut values = values.clone();
        if name == moved {
            values.iter_mut().zip(change).for_each(|(v, c)| *v += c);
        }
        (shape.clone(), values)
    };
    for name in parts.keys().filter(|name| name.contains("lora_A")) {
        let stem = name.strip_suffix(".lora_A.weight").unwrap();
        let (a_shape, a) = value(name);
        let (b_shape, b) = value(&format!("{stem}.lora_B.weight"));
        let (rank, input, out) = (a_shape[0], a_shape[1], b_shape[0]);
        let matrix = weights.tensors.get_mut(&format!("{stem}.weight")).unwrap();
        for row in 0..out {
            for column in 0..input {
                let sum: f64 = (0..rank)
                    .map(|r| b[row * rank + r] * a[r * input + column])
                    .sum();
                matrix[row * input + column] += 2.0 * sum;
            }
        }
    }
    weights
}

fn parts(network: &Network) -> BTreeMap<String, (Vec<usize>, Vec<f64>)> {
    let all = network.parameters().iter();
    all.map(|one| {
        (
            one.name.clone(),
            (one.value.dims().to_vec(), floats(&one.value)),
        )
    })
    .collect()
}

#[test]
fn of_adapters() {
    for name in MODELS {
        let network = with_adapter(&decoder(name));
        let base = OracleWeights::new(read_weights(&fixtures::folder(name)));
        let parts = parts(&network);
        check(
            name,
            &network,
            &examples(network.config()),
            |name, change| merged(&base, &parts, name, change),
        );
    }
}

/// QLoRA: what the quantised weights encode is what the adapter is trained beside.
#[test]
fn of_adapters_beside_quantised_weights() {
    for (name, dtype) in [
        ("llama3_1", GgmlDType::Q8_0),
        ("llama2", GgmlDType::Q4_0),
        ("qwen2", GgmlDType::Q8_0),
    ] {
        let plain = decoder(name);
        let twin = gguf_twin(&plain.config, &read_weights(&fixtures::folder(name)), dtype);
        let file = tempfile::NamedTempFile::with_suffix(".gguf").unwrap();
        std::fs::write(file.path(), twin.writer.bytes()).unwrap();
        let llama = ModelFiles::open(file.path())
            .unwrap()
            .load(&LoadOptions::default())
            .unwrap();
        let network = with_adapter(llama.decoder());
        let parts = parts(&network);
        assert!(twin.weights.pairs == Pairs::Interleaved || name == "qwen2");
        let label = format!("{name} as {dtype:?}");
        check(
            &label,
            &network,
            &examples(network.config()),
            |name, change| merged(&twin.weights, &parts, name, change),
        );
    }
}

/// The two ways to get to a layer's inside give the same bits, and so do packs and single
/// sequences up to the order of one addition.
#[test]
fn recomputing_changes_nothing() {
    for name in ["llama3_1", "qwen3"] {
        let network = with_adapter(&decoder(name));
        assert_eq!(
            gradients(&network, Recompute::Layers),
            gradients(&network, Recompute::Nothing),
            "{name}"
        );
    }
}
