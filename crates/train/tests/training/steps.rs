//! One step: what must not change its result, and the constants it begins with.

use crate::common::{decoder, floats, lora, pairs, singles, wake};
use model::LoadAs;
use train::{
    Gradients, Item, Network, Objective, Pack, PassOptions, Preference, PreferenceLoss, Recompute,
    ReferenceScores, SftReduction, StepOptions, StepSums, TrainError, score_pairs, step,
};

const WHOLE: StepOptions = StepOptions {
    pass: PassOptions {
        recompute: Recompute::Layers,
        logit_rows: None,
        dropout_key: 0,
    },
    pack_tokens: 4096,
    workers: 1,
    step: 1,
    seed: 0,
};

fn preference(loss: PreferenceLoss, sft_weight: f64) -> Objective {
    Objective::Preference(Preference {
        loss,
        beta: 0.1,
        sft_weight,
        sft_reduction: SftReduction::BatchTokens,
    })
}

fn compute(
    network: &Network,
    items: &[Item],
    references: &[ReferenceScores],
    objective: &Objective,
    options: &StepOptions,
) -> (StepSums, Vec<(String, Vec<f32>)>) {
    let rows: Vec<&Item> = items.iter().collect();
    let (sums, gradients) = step(network, &rows, references, (objective, options)).unwrap();
    (sums, named(network, &gradients))
}

fn named(network: &Network, gradients: &Gradients) -> Vec<(String, Vec<f32>)> {
    let all = network.parameters().iter().map(|one| {
        let id = network.parameters().id_of(&one.name).unwrap();
        (one.name.clone(), floats(gradients.get(id).unwrap()))
    });
    all.collect()
}

/// Relative L2 distance of two sets of gradients, the worst tensor's.
fn distance(a: &[(String, Vec<f32>)], b: &[(String, Vec<f32>)]) -> f64 {
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let pairs = a.iter().zip(b);
    let each = pairs.map(|((name, a), (other, b))| {
        assert_eq!(name, other);
        let length = square(&mut a.iter().map(|x| f64::from(*x)));
        let apart = square(&mut a.iter().zip(b).map(|(a, b)| f64::from(*a) - f64::from(*b)));
        apart / length.max(1e-12)
    });
    each.fold(0.0, f64::max)
}

#[test]
fn packs_chunks_and_recomputing_do_not_show() {
    for (name, weights) in [
        ("llama3_1", LoadAs::F32),
        ("qwen3", LoadAs::F32),
        ("llama3_1", LoadAs::Q8_0),
    ] {
        let decoder = decoder(name, weights);
        let mut network = Network::with_new_adapter(&decoder, &lora(4), 1).unwrap();
        wake(&mut network);
        let full = Network::full(&decoder).unwrap();
        let vocab = decoder.config.vocab_size as u32;
        let (items, both) = (singles(9, vocab), pairs(6, vocab));
        let references = vec![(-20.0, -25.0); both.len()];
        let dpo = preference(
            PreferenceLoss::Sigmoid {
                label_smoothing: 0.0,
            },
            1.0,
        );
        for (network, items, references, objective) in [
            (&network, &items, &[][..], &Objective::Sft),
            (&network, &both, &references, &dpo),
            (&full, &items, &[][..], &Objective::Sft),
        ] {
            let (sums, gradients) = compute(network, items, references, objective, &WHOLE);
            for options in [
                StepOptions {
                    pack_tokens: 1,
                    ..WHOLE
                },
                StepOptions {
                    pack_tokens: 40,
                    ..WHOLE
                },
                StepOptions {
                    pass: PassOptions {
                        logit_rows: Some(1),
                        ..WHOLE.pass
                    },
                    ..WHOLE
                },
                StepOptions {
                    pass: PassOptions {
                        logit_rows: Some(7),
                        ..WHOLE.pass
                    },
                    ..WHOLE
                },
                StepOptions {
                    pass: PassOptions {
                        recompute: Recompute::Nothing,
                        ..WHOLE.pass
                    },
                    ..WHOLE
                },
            ] {
                let (other, others) = compute(network, items, references, objective, &options);
                assert!(
                    (sums.loss - other.loss).abs() < 1e-6 * sums.loss.abs(),
                    "{sums:?} {other:?}"
                );
                let apart = distance(&gradients, &others);
                assert!(apart < 2e-6, "{name} {weights:?} {options:?}: {apart:e}");
                let workers = 3;
                let threads = StepOptions { workers, ..options };
                let same = compute(network, items, references, objective, &threads);
                assert_eq!((same.0, distance(&others, &same.1)), (other, 0.0));
            }
        }
    }
}

/// What a row gets does not depend on the rows beside it, bit for bit: a reference computed in
/// other packs then gives a margin of exactly 0.
#[test]
fn log_probabilities_are_those_of_the_row_alone() {
    let decoder = decoder("llama3_1", LoadAs::F32);
    let mut network = Network::with_new_adapter(&decoder, &lora(4), 1).unwrap();
    wake(&mut network);
    let items = singles(9, decoder.config.vocab_size as u32);
    let sequences: Vec<_> = items.iter().flat_map(Item::sequences).collect();
    let together = network
        .score(
            &Pack::new(sequences.iter().copied()),
            &PassOptions::default(),
        )
        .unwrap();
    let mut alone = vec![];
    for sequence in sequences {
        alone.extend(
            network
                .score(&Pack::new([sequence]), &PassOptions::default())
                .unwrap(),
        );
    }
    assert_eq!(together, alone);
}

#[test]
fn constants_at_the_start() {
    for (weights, reference) in [
        (LoadAs::F32, "start"),
        (LoadAs::F32, "base"),
        (LoadAs::Q8_0, "start"),
    ] {
        let decoder = decoder("llama3_1", weights);
        let network = Network::with_new_adapter(&decoder, &lora(4), 1).unwrap();
        let items = pairs(5, decoder.config.vocab_size as u32);
        let frozen = Network::frozen(&decoder).unwrap();
        let scorer = if reference == "base" {
            &frozen
        } else {
            &network
        };
        let other_packs = StepOptions {
            pack_tokens: 30,
            ..WHOLE
        };
        let references = score_pairs(scorer, &items, &other_packs, |_| ()).unwrap();
        for (loss, expected) in [
            (
                PreferenceLoss::Sigmoid {
                    label_smoothing: 0.0,
                },
                2f64.ln(),
            ),
            (PreferenceLoss::Nca, 2.0 * 2f64.ln()),
            (PreferenceLoss::Ipo, 25.0),
        ] {
            let (sums, _) = compute(
                &network,
                &items,
                &references,
                &preference(loss, 0.0),
                &WHOLE,
            );
            assert!(
                (sums.loss - expected).abs() < 1e-12,
                "{loss:?}: {}",
                sums.loss
            );
            assert_eq!(sums.pairs.rewards, (0.0, 0.0), "{loss:?} {weights:?}");
            assert_eq!(sums.pairs.right, 0);
        }
    }
}

/// The loss of a step is a mean over all its tokens, however rows are cut into packs; a mean of
/// means would weigh short rows more.
#[test]
fn long_rows_weigh_as_much_as_their_tokens() {
    let decoder = decoder("llama3_1", LoadAs::F32);
    let network = Network::with_new_adapter(&decoder, &lora(2), 1).unwrap();
    let items = singles(4, decoder.config.vocab_size as u32);
    let (whole, _) = compute(
        &network,
        &items,
        &[],
        &Objective::Sft,
        &StepOptions {
            pack_tokens: 1,
            ..WHOLE
        },
    );
    let mut sum = 0.0;
    let mut tokens = 0;
    for item in &items {
        let (one, _) = compute(
            &network,
            std::slice::from_ref(item),
            &[],
            &Objective::Sft,
            &WHOLE,
        );
        sum += one.loss * one.trained_tokens as f64;
        tokens += one.trained_tokens;
    }
    assert!((whole.loss - sum / tokens as f64).abs() < 1e-6);
}

#[test]
fn dropout_is_drawn_by_step_and_pass() {
    let decoder = decoder("llama3_1", LoadAs::F32);
    let settings = train::LoraSettings {
        dropout: 0.3,
        ..lora(4)
    };
    let mut network = Network::with_new_adapter(&decoder, &settings, 1).unwrap();
    wake(&mut network);
    let items = singles(3, decoder.config.vocab_size as u32);
    let at = |step, recompute| {
        let pass = PassOptions {
            recompute,
            ..WHOLE.pass
        };
        compute(
            &network,
            &items,
            &[],
            &Objective::Sft,
            &StepOptions {
                step,
                pass,
                ..WHOLE
            },
        )
    };
    let (first, gradients) = at(1, Recompute::Layers);
    // Computed again, it drops the same.
    assert_eq!(gradients, at(1, Recompute::Nothing).1);
    assert_ne!(first.loss, at(2, Recompute::Layers).0.loss);
}

#[test]
fn rows_that_do_not_fit_the_objective_are_refused() {
    let decoder = decoder("llama3_1", LoadAs::F32);
    let network = Network::with_new_adapter(&decoder, &lora(2), 1).unwrap();
    let vocab = decoder.config.vocab_size as u32;
    let (single, pair) = (singles(1, vocab), pairs(1, vocab));
    let dpo = preference(PreferenceLoss::Nca, 0.0);
    let error = |item: &Item, references: &[ReferenceScores], objective: &Objective| {
        step(&network, &[item], references, (objective, &WHOLE))
            .unwrap_err()
            .to_string()
    };
    assert!(error(&single[0], &[(0.0, 0.0)], &dpo).contains("expected pairs, got row-0"));
    assert!(error(&pair[0], &[], &Objective::Sft).contains("expected single answers, got pair-0"));
    assert!(error(&pair[0], &[], &dpo).contains("one for each of 1 pairs"));
    let found = step(&network, &[&pair[0]], &[(f64::NAN, 0.0)], (&dpo, &WHOLE)).unwrap_err();
    assert!(
        matches!(&found, TrainError::NotFinite { row, .. } if row == "pair-0"),
        "{found}"
    );
}
