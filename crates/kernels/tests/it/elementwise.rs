use crate::reference::{Random, assert_close, bits, values};
use candle_core::{DType, Tensor};
use kernels::{add_rms_norm, rms_norm, swiglu};
use proptest::prelude::*;

fn reference_rms_norm(x: &[f64], weight: &[f32], eps: f64) -> Vec<f64> {
    let rows = x.chunks(weight.len()).flat_map(|row| {
        let mean = row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64;
        let scale = 1.0 / (mean + eps).sqrt();
        row.iter()
            .zip(weight)
            .map(move |(x, &w)| x * scale * f64::from(w))
            .collect::<Vec<_>>()
    });
    rows.collect()
}

fn wide(tensor: &Tensor) -> Vec<f64> {
    values(tensor).into_iter().map(f64::from).collect()
}

fn row(tensor: &Tensor, at: usize) -> Tensor {
    tensor.narrow(0, at, 1).unwrap().contiguous().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn norms_are_right_and_rows_stand_alone(
        rows in 1usize..60, hidden in 1usize..700, seed in any::<u64>(),
    ) {
        let mut random = Random::new(seed);
        let (x, residual) = (random.tensor(&[rows, hidden]), random.tensor(&[rows, hidden]));
        let weight = random.tensor(&[hidden]);
        let eps = 1e-5;
        let normed = rms_norm(&x, &weight, eps).unwrap();
        let expected = reference_rms_norm(&wide(&x), &values(&weight), f64::from(eps));
        assert_close(&values(&normed), &expected, 1e-6);

        let (added, sum) = add_rms_norm(&x, &residual, &weight, eps).unwrap();
        prop_assert_eq!(bits(&sum), bits(&(&x + &residual).unwrap()));
        prop_assert_eq!(bits(&added), bits(&rms_norm(&sum, &weight, eps).unwrap()));

        let at = random.below(rows);
        let alone = rms_norm(&row(&x, at), &weight, eps).unwrap();
        prop_assert_eq!(bits(&row(&normed, at)), bits(&alone));
    }

    #[test]
    fn swiglu_is_right_and_rows_stand_alone(
        rows in 1usize..40, width in 1usize..900, seed in any::<u64>(),
    ) {
        let mut random = Random::new(seed);
        let gate = (random.tensor(&[rows, width]) * 8.0).unwrap();
        let up = random.tensor(&[rows, width]);
        let out = swiglu(&gate, &up).unwrap();
        let expected: Vec<f64> =
            wide(&gate).iter().zip(wide(&up)).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
        assert_close(&values(&out), &expected, 4e-7);
        let at = random.below(rows);
        let alone = swiglu(&row(&gate, at), &row(&up, at)).unwrap();
        prop_assert_eq!(bits(&row(&out, at)), bits(&alone));
    }
}

#[test]
fn swiglu_at_the_limits() {
    let gate = [-1e30f32, -200.0, -88.0, 0.0, 88.0, 200.0, 1e30, f32::NAN];
    let gate = Tensor::new(&gate, &candle_core::Device::Cpu)
        .unwrap()
        .unsqueeze(0)
        .unwrap();
    let out = values(&swiglu(&gate, &gate.ones_like().unwrap()).unwrap());
    for (out, expected) in out
        .iter()
        .zip([0.0, 0.0, -5.328_05e-37, 0.0, 88.0, 200.0, 1e30])
    {
        assert!(
            (out - expected).abs() <= 2e-6 * f32::abs(expected),
            "{out} for {expected}"
        );
    }
    assert!(out[7].is_nan());
}

#[test]
fn bad_operands_are_refused() {
    let mut random = Random::new(0);
    let x = random.tensor(&[4, 6]);
    let weight = random.tensor(&[6]);
    let refused = |result: kernels::Result<Tensor>, part: &str| {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    refused(
        rms_norm(&weight, &weight, 1e-5),
        "x has shape [6], expected a matrix",
    );
    refused(
        rms_norm(&x, &random.tensor(&[5]), 1e-5),
        "weight has shape [5], expected [6]",
    );
    refused(
        rms_norm(&x.t().unwrap(), &random.tensor(&[4]), 1e-5),
        "x is not contiguous",
    );
    refused(
        rms_norm(&x.to_dtype(DType::F64).unwrap(), &weight, 1e-5),
        "x holds F64",
    );
    refused(
        swiglu(&x, &random.tensor(&[6, 4])),
        "up has shape [6, 4], expected [4, 6]",
    );
    assert!(add_rms_norm(&x, &random.tensor(&[3, 6]), &weight, 1e-5).is_err());
}

#[test]
fn empty_batches_are_fine() {
    let mut random = Random::new(0);
    let (x, weight) = (random.tensor(&[0, 6]), random.tensor(&[6]));
    assert_eq!(rms_norm(&x, &weight, 1e-5).unwrap().dims(), [0, 6]);
    assert_eq!(swiglu(&x, &x).unwrap().dims(), [0, 6]);
    assert_eq!(
        add_rms_norm(&x, &x, &weight, 1e-5).unwrap().1.dims(),
        [0, 6]
    );
}
