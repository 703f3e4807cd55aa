//! Logits beside those transformers computed, and beside the oracle's for what it cannot load.

use model::{CausalLm, ForwardBatch, KvPool, KvType, LoadAs, LoadOptions, Llama, ModelFiles, SequenceSpan};
use testkit::fixtures::{self, Golden, MODELS, PROMPT_LENGTHS};

const BLOCK: usize = 16;

/// Logits (T, V) of one prompt, computed in chunks of these lengths.
fn logits_in_chunks(model: &Llama, tokens: &[u32], chunks: &[usize]) -> Vec<f32> {
    let blocks = tokens.len().div_ceil(BLOCK);
    // Blocks in falling order: nothing may rely on them being neighbours.
    let table: Vec<u32> = (0..blocks as u32).rev().collect();
    let pool = KvPool::new(model.config(), blocks, BLOCK, KvType::F32).unwrap();
    let (mut done, mut all) = (0, Vec::new());
    for chunk in chunks {
        let end = (done + chunk).min(tokens.len());
        let places = done..end;
        let batch = ForwardBatch {
            tokens: tokens[places.clone()].to_vec(),
            positions: places.clone().map(|place| place as u32).collect(),
            slots: places
                .clone()
                .map(|place| table[place / BLOCK] * BLOCK as u32 + (place % BLOCK) as u32)
                .collect(),
            spans: vec![SequenceSpan {
                query: 0..places.len(),
                context_len: end,
                blocks: table[..end.div_ceil(BLOCK)].to_vec(),
            }],
            adapters: vec![],
            logit_rows: (0..places.len() as u32).collect(),
        };
        let logits = model.forward(&batch, &pool).unwrap();
        all.extend(logits.flatten_all().unwrap().to_vec1::<f32>().unwrap());
        done = end;
    }
    assert_eq!(done, tokens.len());
    all
}

fn logits(model: &Llama, tokens: &[u32]) -> Vec<f32> {
    logits_in_chunks(model, tokens, &[tokens.len()])
}

/// Largest relative L2 distance over the positions.
fn worst(found: &[f32], expected: &[f64], vocab: usize) -> f64 {
    assert_eq!(found.len(), expected.len());
    found
        .chunks_exact(vocab)
        .zip(expected.chunks_exact(vocab))
        .map(|(found, expected)| testkit::oracle::relative_l2(found, expected))
        .fold(0.0, |worst, distance| if distance > worst || distance.is_nan() { distance } else { worst })
}

#[test]
fn f32_logits_equal_transformers_at_every_position() {
    for name in MODELS {
        let folder = fixtures::folder(name);
        let golden = Golden::read(&folder);
        let options = LoadOptions { weights: LoadAs::F32, ..Default::default() };
        let model = ModelFiles::open(&folder).unwrap().load(&options).unwrap();
        for length in PROMPT_LENGTHS {
            let found = logits(&model, &golden.tokens(length));
            let distance = worst(&found, golden.logits("logits", length), model.config().vocab_size);
            println!("{name} {length}: {distance:.2e}");
            assert!(distance < 1e-5, "{name}, {length} tokens: {distance:e}");
        }
    }
}
