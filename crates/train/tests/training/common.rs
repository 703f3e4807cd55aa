//! Small networks and rows for the tests of whole steps and runs.

use candle_core::Tensor;
use model::{AdapterCard, Decoder, LoadAs, LoadOptions, ModelFiles, Projection};
use testkit::fixtures;
use train::{Item, ItemTokens, LoraSettings, Network, Pair, Sequence, WeightsForm};

pub(crate) fn decoder(name: &str, weights: LoadAs) -> Decoder {
    let options = LoadOptions {
        weights,
        ..Default::default()
    };
    let files = ModelFiles::open(&fixtures::folder(name)).unwrap();
    files.load(&options).unwrap().decoder().clone()
}

pub(crate) fn lora(rank: usize) -> LoraSettings {
    LoraSettings {
        rank,
        alpha: 2.0 * rank as f64,
        dropout: 0.0,
        targets: Projection::ALL.to_vec(),
    }
}

pub(crate) fn form(decoder: &Decoder, rank: usize) -> WeightsForm {
    WeightsForm::Adapter {
        fit: Box::new(decoder.adapter_fit()),
        card: AdapterCard {
            base_model: "base".into(),
            rank,
            alpha: 2.0 * rank as f64,
            dropout: 0.0,
        },
    }
}

/// Repeatable token ids below `vocab`.
pub(crate) fn tokens(seed: u64, len: usize, vocab: u32) -> Vec<u32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            ((state >> 33) % u64::from(vocab)) as u32
        })
        .collect()
}

/// Rows of different lengths whose last two thirds are trained.
pub(crate) fn singles(count: u64, vocab: u32) -> Vec<Item> {
    (0..count)
        .map(|row| {
            let len = 6 + (row * 5 % 17) as usize;
            Item {
                id: format!("row-{row}"),
                tokens: ItemTokens::Single(Sequence::completion(tokens(row, len, vocab), len / 3)),
            }
        })
        .collect()
}

/// Pairs whose two answers begin after the same prompt.
pub(crate) fn pairs(count: u64, vocab: u32) -> Vec<Item> {
    (0..count)
        .map(|row| {
            let prompt = tokens(row, 4 + (row % 5) as usize, vocab);
            let side = |salt: u64, len: usize| {
                let mut all = prompt.clone();
                all.extend(tokens(row ^ salt, len, vocab));
                Sequence::completion(all, prompt.len())
            };
            let (chosen, rejected) = (side(1 << 20, 3 + (row % 4) as usize), side(1 << 21, 5));
            Item {
                id: format!("pair-{row}"),
                tokens: ItemTokens::Pair(Pair { chosen, rejected }),
            }
        })
        .collect()
}

/// Gives the adapter's second matrices values, so that every gradient is alive.
pub(crate) fn wake(network: &mut Network) {
    let mut values = network.parameters().snapshot().unwrap();
    for (seed, (name, value)) in (50..).zip(&mut values) {
        if name.contains("lora_B") {
            let drawn = tokens(seed, value.elem_count(), 1000);
            let drawn: Vec<f32> = drawn.iter().map(|x| *x as f32 / 2500.0 - 0.2).collect();
            *value = Tensor::from_vec(drawn, value.shape(), value.device()).unwrap();
        }
    }
    network.set_parameters(values).unwrap();
}

pub(crate) fn floats(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}
