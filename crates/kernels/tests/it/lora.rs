use crate::reference::{Random, assert_close, bits, values};
use candle_core::Tensor;
use kernels::{LoraWeights, lora_add};
use proptest::prelude::*;

fn reference_lora(y: &Tensor, x: &Tensor, lora: &LoraWeights<'_>, rows: &[u32]) -> Vec<f64> {
    let (_, inputs) = x.dims2().unwrap();
    let (outputs, rank) = lora.b.dims2().unwrap();
    let mut out: Vec<f64> = values(y).into_iter().map(f64::from).collect();
    let (x, a, b) = (values(x), values(lora.a), values(lora.b));
    let dot =
        |x: &[f64], w: &[f32]| -> f64 { x.iter().zip(w).map(|(x, &w)| x * f64::from(w)).sum() };
    for &row in rows {
        let x: Vec<f64> = x[row as usize * inputs..][..inputs]
            .iter()
            .map(|&x| f64::from(x))
            .collect();
        let hidden: Vec<f64> = (0..rank)
            .map(|j| dot(&x, &a[j * inputs..][..inputs]))
            .collect();
        for o in 0..outputs {
            let delta = dot(&hidden, &b[o * rank..][..rank]);
            out[row as usize * outputs + o] += f64::from(lora.scale) * delta;
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn lora_is_right_and_rows_stand_alone(
        tokens in 1usize..20, inputs in 1usize..300, outputs in 1usize..200,
        rank in 1usize..20, seed in any::<u64>(),
    ) {
        let mut random = Random::new(seed);
        let x = random.tensor(&[tokens, inputs]);
        let y = random.tensor(&[tokens, outputs]);
        let (a, b) = (random.tensor(&[rank, inputs]), random.tensor(&[outputs, rank]));
        let lora = LoraWeights { a: &a, b: &b, scale: 0.5 };
        let mut rows = random.permutation(tokens);
        rows.truncate(random.below(tokens) + 1);
        let expected = reference_lora(&y, &x, &lora, &rows);

        let one_by_one = y.copy().unwrap();
        for row in rows.iter().rev() {
            lora_add(&one_by_one, &x, &lora, &[*row]).unwrap();
        }
        lora_add(&y, &x, &lora, &rows).unwrap();
        assert_close(&values(&y), &expected, 2e-5);
        prop_assert_eq!(bits(&y), bits(&one_by_one));
    }
}

#[test]
fn bad_rows_are_refused_and_no_rows_change_nothing() {
    let mut random = Random::new(1);
    let (x, y) = (random.tensor(&[2, 4]), random.tensor(&[2, 3]));
    let (a, b) = (random.tensor(&[5, 4]), random.tensor(&[3, 5]));
    let lora = LoraWeights {
        a: &a,
        b: &b,
        scale: 1.0,
    };
    let before = bits(&y);
    lora_add(&y, &x, &lora, &[]).unwrap();
    for rows in [&[2][..], &[1, 1], &[u32::MAX]] {
        assert!(lora_add(&y, &x, &lora, rows).is_err());
    }
    let swapped = LoraWeights {
        a: &b,
        b: &a,
        scale: 1.0,
    };
    assert!(lora_add(&y, &x, &swapped, &[0]).is_err());
    assert_eq!(bits(&y), before);
}
