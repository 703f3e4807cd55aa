//! The fast kernels against slow obvious ones.

use candle_core::quantized::{QStorage, QTensor};
use candle_core::utils::barrier_pool;
use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};
use proptest::prelude::*;

use super::{Linear, WeightFormat};
use crate::KernelError;

const ALL: [WeightFormat; 13] = [
    WeightFormat::F32,
    WeightFormat::F16,
    WeightFormat::BF16,
    WeightFormat::Q4_0,
    WeightFormat::Q4_1,
    WeightFormat::Q5_0,
    WeightFormat::Q5_1,
    WeightFormat::Q8_0,
    WeightFormat::Q2K,
    WeightFormat::Q3K,
    WeightFormat::Q4K,
    WeightFormat::Q5K,
    WeightFormat::Q6K,
];
const PACKED: [WeightFormat; 3] = [WeightFormat::Q8_0, WeightFormat::Q4K, WeightFormat::Q6K];

/// Repeatable values, roughly normal with deviation `scale`, one in 64 an outlier.
fn values(count: usize, seed: u64, scale: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..count)
        .map(|i| {
            let sum = uniform() + uniform() + uniform() + uniform();
            sum * scale * if i % 64 == 17 { 8.0 } else { 1.7 }
        })
        .collect()
}

fn bytes_of(values: &[f32], format: WeightFormat, k: usize) -> Vec<u8> {
    super::encode_rows(values, format, k).unwrap()
}

fn random_layer(format: WeightFormat, n: usize, k: usize) -> (Vec<u8>, Linear) {
    let bytes = bytes_of(&values(n * k, 3, 0.05), format, k);
    let layer = Linear::from_bytes(&bytes, format, n, k, None).unwrap();
    (bytes, layer)
}

fn forward(layer: &Linear, x: &[f32]) -> Vec<f32> {
    let k = layer.in_features();
    let x = Tensor::from_slice(x, (x.len() / k, k), &Device::Cpu).unwrap();
    layer
        .forward(&x)
        .unwrap()
        .flatten_all()
        .unwrap()
        .to_vec1()
        .unwrap()
}

/// Bits, with every NaN alike.
fn bits(values: &[f32]) -> Vec<u32> {
    values
        .iter()
        .map(|v| if v.is_nan() { u32::MAX } else { v.to_bits() })
        .collect()
}

/// Dequantised weights times inputs in f64, and per output the sum of the products' magnitudes.
fn reference_forward(layer: &Linear, x: &[f32]) -> (Vec<f64>, Vec<f64>) {
    let k = layer.in_features();
    let weights = layer.dequantize().unwrap().to_vec2::<f32>().unwrap();
    let mut out = Vec::new();
    let mut magnitude = Vec::new();
    for row in x.chunks(k) {
        for weights in &weights {
            let products = row
                .iter()
                .zip(weights)
                .map(|(&x, &w)| f64::from(x) * f64::from(w));
            magnitude.push(products.clone().map(f64::abs).sum());
            out.push(products.sum());
        }
    }
    (out, magnitude)
}

/// How far outputs may lie from the f64 product: float rounding for dense weights, else half a step
/// of the 8-bit activations (1 / 254 of the largest of a group) times the weights' magnitudes.
fn check_close(layer: &Linear, x: &[f32], got: &[f32]) {
    let (expected, magnitude) = reference_forward(layer, x);
    let (n, k) = (layer.out_features(), layer.in_features());
    let weights = layer.dequantize().unwrap().to_vec2::<f32>().unwrap();
    // candle's f16 scales of activations add up to a fifth of a step at the sizes used here.
    let half_steps = if PACKED.contains(&layer.format()) {
        1.01
    } else {
        1.4
    };
    for (i, (&got, &expected)) in got.iter().zip(&expected).enumerate() {
        let (row, column) = (i / n, i % n);
        let largest = x[row * k..][..k].iter().fold(0f32, |a, b| a.max(b.abs()));
        let weight: f64 = weights[column].iter().map(|w| f64::from(w.abs())).sum();
        let tolerance = if layer.format().is_dense() {
            1e-5 * magnitude[i] + 1e-30
        } else {
            f64::from(largest) / 254.0 * weight * half_steps + 1e-5 * magnitude[i] + 1e-30
        };
        let error = (f64::from(got) - expected).abs();
        assert!(
            error <= tolerance,
            "{layer:?} [{row}, {column}]: {got} for {expected}, {error} > {tolerance}"
        );
    }
}

#[test]
fn every_format_multiplies_as_the_reference_does() {
    for format in ALL {
        for (n, k, rows) in [(48, 256, 3), (40, 512, 18), (16, 768, 1)] {
            let (_, layer) = random_layer(format, n, k);
            let x = values(rows * k, 5, 1.0);
            check_close(&layer, &x, &forward(&layer, &x));
        }
    }
}

#[test]
fn errors_of_quantised_activations_are_small_on_average() {
    for format in PACKED {
        let (_, layer) = random_layer(format, 64, 2048);
        let x = values(8 * 2048, 9, 1.0);
        let (expected, _) = reference_forward(&layer, &x);
        let got = forward(&layer, &x);
        let error: f64 = got
            .iter()
            .zip(&expected)
            .map(|(&g, e)| (f64::from(g) - e).powi(2))
            .sum();
        let power: f64 = expected.iter().map(|e| e * e).sum();
        let relative = (error / power).sqrt();
        assert!(relative < 0.012, "{format:?}: {relative}");
    }
}

#[test]
fn a_row_has_the_same_bits_in_every_batch() {
    for format in ALL {
        for (n, k) in [(48, 512), (35, 768)] {
            let (_, layer) = random_layer(format, n, k);
            let all = values(600 * k, 7, 1.0);
            let whole = bits(&forward(&layer, &all));
            for rows in (1..=34).chain([40, 64, 129, 257]) {
                for first in [3, 600 - rows] {
                    let part = forward(&layer, &all[first * k..(first + rows) * k]);
                    let same = bits(&part) == whole[first * n..(first + rows) * n];
                    assert!(same, "{format:?} {n}x{k}: rows {first}..{}", first + rows);
                }
            }
        }
    }
}

#[test]
fn one_thread_gives_the_bits_of_many() {
    for format in ALL {
        let (_, layer) = random_layer(format, 96, 512);
        let x = values(70 * 512, 11, 1.0);
        let many = bits(&forward(&layer, &x));
        // Inside a worker of the pool everything runs on that worker.
        barrier_pool().execute(|thread| {
            if thread == 0 && barrier_pool().n_workers() > 0 {
                assert_eq!(bits(&forward(&layer, &x)), many, "{format:?}");
            }
        });
    }
}

#[test]
fn layers_together_give_what_they_give_alone() {
    let k = 512;
    let layers: Vec<Linear> = ALL
        .iter()
        .enumerate()
        .map(|(i, &format)| random_layer(format, 16 + i * 8, k).1)
        .collect();
    let x = Tensor::from_vec(values(19 * k, 13, 1.0), (19, k), &Device::Cpu).unwrap();
    let together = Linear::forward_many(&layers.iter().collect::<Vec<_>>(), &x).unwrap();
    for (layer, together) in layers.iter().zip(together) {
        let alone = layer.forward(&x).unwrap();
        assert_eq!(
            alone.to_vec2::<f32>().unwrap(),
            together.to_vec2::<f32>().unwrap(),
            "{layer:?}"
        );
    }
}

#[test]
fn dequantised_values_are_those_of_candle() {
    for format in ALL {
        let (n, k) = (24, 768);
        let (bytes, layer) = random_layer(format, n, k);
        let storage = QStorage::from_data(bytes.into(), &Device::Cpu, format.ggml()).unwrap();
        let tensor = QTensor::new(storage, (n, k)).unwrap();
        let expected = tensor
            .dequantize(&Device::Cpu)
            .unwrap()
            .to_vec2::<f32>()
            .unwrap();
        assert_eq!(
            layer.dequantize().unwrap().to_vec2::<f32>().unwrap(),
            expected,
            "{format:?}"
        );
        let rows = layer.rows(&[23, 0, 23]).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(
            rows,
            [&expected[23], &expected[0], &expected[23]].map(Clone::clone),
            "{format:?}"
        );
    }
}

#[test]
fn a_bias_is_added_once() {
    for format in ALL {
        let (bytes, plain) = random_layer(format, 24, 256);
        let bias = values(24, 17, 1.0);
        let layer = Linear::from_bytes(&bytes, format, 24, 256, Some(bias.clone())).unwrap();
        let x = values(17 * 256, 19, 1.0);
        let expected: Vec<f32> = forward(&plain, &x)
            .chunks(24)
            .flat_map(|row| row.iter().zip(&bias).map(|(a, b)| a + b))
            .collect();
        assert_eq!(bits(&forward(&layer, &x)), bits(&expected), "{format:?}");
    }
}

#[test]
fn a_row_that_is_not_finite_is_nan_and_alone() {
    for format in ALL {
        for rows in [1, 2, 20] {
            for (position, poison) in [(0, f32::NAN), (200, f32::NAN), (255, f32::INFINITY)] {
                let (_, layer) = random_layer(format, 48, 256);
                let mut x = values(rows * 256, 23, 1.0);
                let clean = forward(&layer, &x);
                let sick = rows / 2;
                x[sick * 256 + position] = poison;
                for (row, (out, clean)) in forward(&layer, &x)
                    .chunks(48)
                    .zip(clean.chunks(48))
                    .enumerate()
                {
                    if row == sick {
                        let hidden = out.iter().any(|v| v.is_finite());
                        assert!(
                            !hidden,
                            "{format:?}: {poison} of row {row} of {rows} is hidden"
                        );
                        assert!(
                            format.is_dense() || out.iter().all(|v| v.is_nan()),
                            "{format:?}"
                        );
                    } else {
                        assert_eq!(bits(out), bits(clean), "{format:?}: row {row} of {rows}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_nan_scale_reaches_its_outputs() {
    for (format, at) in [
        (WeightFormat::Q8_0, 0),
        (WeightFormat::Q4K, 0),
        (WeightFormat::Q6K, 208),
    ] {
        let (mut bytes, _) = random_layer(format, 32, 512);
        let row = 5 * format.bytes(1, 512).unwrap();
        bytes[row + at..row + at + 2].copy_from_slice(&f16::NAN.to_le_bytes());
        let layer = Linear::from_bytes(&bytes, format, 32, 512, None).unwrap();
        for rows in [1, 16] {
            for (i, value) in forward(&layer, &values(rows * 512, 29, 1.0))
                .iter()
                .enumerate()
            {
                assert_eq!(
                    value.is_nan(),
                    i % 32 == 5,
                    "{format:?} of {rows} rows, output {i}"
                );
            }
        }
    }
}

#[test]
fn tiny_and_huge_activations_keep_their_size() {
    for format in PACKED {
        let (_, layer) = random_layer(format, 16, 256);
        for scale in [0.0, 1e-38, 1e-30, 1e30] {
            let x: Vec<f32> = values(256, 31, 1.0).iter().map(|v| v * scale).collect();
            let out = forward(&layer, &x);
            assert!(out.iter().all(|v| v.is_finite()), "{format:?} at {scale}");
            if scale >= 1e-30 {
                check_close(&layer, &x, &out);
            }
        }
    }
}

#[test]
fn no_rows_give_no_rows() {
    for format in ALL {
        let (_, layer) = random_layer(format, 24, 256);
        let x = Tensor::zeros((0, 256), DType::F32, &Device::Cpu).unwrap();
        assert_eq!(layer.forward(&x).unwrap().dims(), [0, 24], "{format:?}");
        assert_eq!(layer.rows(&[]).unwrap().dims(), [0, 256], "{format:?}");
    }
}

#[test]
fn inputs_need_not_be_contiguous() {
    let (_, layer) = random_layer(WeightFormat::Q8_0, 32, 64);
    let x = Tensor::from_vec(values(64 * 9, 37, 1.0), (64, 9), &Device::Cpu)
        .unwrap()
        .t()
        .unwrap();
    let expected = layer
        .forward(&x.contiguous().unwrap())
        .unwrap()
        .to_vec2::<f32>()
        .unwrap();
    assert_eq!(
        layer.forward(&x).unwrap().to_vec2::<f32>().unwrap(),
        expected
    );
    let narrow = x.narrow(0, 4, 3).unwrap();
    assert_eq!(
        layer.forward(&narrow).unwrap().to_vec2::<f32>().unwrap(),
        expected[4..7]
    );
}

#[test]
fn quantising_in_memory_is_quantising_to_a_file() {
    for format in ALL {
        let (n, k) = (72, 256);
        let weights = values(n * k, 41, 0.02);
        let layer = Linear::quantize(&weights, format, n, k, None).unwrap();
        let file = Linear::from_bytes(&bytes_of(&weights, format, k), format, n, k, None).unwrap();
        let x = values(3 * k, 43, 1.0);
        assert_eq!(
            bits(&forward(&layer, &x)),
            bits(&forward(&file, &x)),
            "{format:?}"
        );
    }
    // More rows than one piece holds.
    let (n, k) = (40, 1 << 17);
    let layer = Linear::quantize_with(WeightFormat::Q8_0, n, k, None, |rows, values| {
        for (row, values) in rows.zip(values.chunks_mut(k)) {
            values.fill(row as f32);
        }
    })
    .unwrap();
    for row in [0, 31, 32, 39] {
        let got = layer
            .rows(&[row as u32])
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1::<f32>()
            .unwrap();
        assert!(
            got.iter()
                .all(|v| (v - row as f32).abs() <= row as f32 * 1e-3),
            "row {row}"
        );
    }
}

#[test]
fn dense_weights_come_back_unchanged() {
    let weights = values(40 * 100, 47, 1.0);
    let f16s: Vec<u8> = weights
        .iter()
        .flat_map(|v| f16::from_f32(*v).to_le_bytes())
        .collect();
    let bf16s: Vec<u8> = weights
        .iter()
        .flat_map(|v| bf16::from_f32(*v).to_le_bytes())
        .collect();
    let check = |format, bytes: &[u8], round: fn(f32) -> f32| {
        let layer = Linear::from_bytes(bytes, format, 40, 100, None).unwrap();
        let got = layer
            .dequantize()
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1::<f32>()
            .unwrap();
        assert_eq!(got, weights.iter().map(|v| round(*v)).collect::<Vec<_>>());
        let x = values(14 * 100, 53, 1.0);
        check_close(&layer, &x, &forward(&layer, &x));
    };
    check(WeightFormat::F16, &f16s, |v| f16::from_f32(v).to_f32());
    check(WeightFormat::BF16, &bf16s, |v| bf16::from_f32(v).to_f32());
}

#[test]
fn wrong_input_is_an_error_that_says_what_was_expected() {
    use WeightFormat::{F32, Q4K, Q8_0};
    let message = |result: Result<Linear, KernelError>| result.map(|_| ()).unwrap_err().to_string();
    let short = message(Linear::from_bytes(&[0; 67], Q8_0, 2, 32, None));
    assert_eq!(short, "linear: weights 2x32 in Q8_0 take 68 bytes, got 67");
    let ragged = message(Linear::from_bytes(&[0; 144], Q4K, 1, 255, None));
    assert_eq!(
        ragged,
        "linear: Q4K packs 256 values in a block, which does not divide in_features 255"
    );
    let bias = message(Linear::from_bytes(&[0; 8], F32, 2, 1, Some(vec![0.0])));
    assert_eq!(bias, "linear: bias: expected 2 values, got 1");
    for (n, k) in [(0, 32), (32, 0), (usize::MAX, 64), (usize::MAX / 32, 32)] {
        let shape = Linear::from_bytes(&[], Q8_0, n, k, None);
        assert!(matches!(shape, Err(KernelError::Invalid { .. })), "{n}x{k}");
        assert!(Linear::quantize(&[], Q8_0, n, k, None).is_err(), "{n}x{k}");
    }
    let count = message(Linear::quantize(&[0.0; 31], F32, 2, 16, None));
    assert_eq!(count, "linear: weights: expected 32 values, got 31");

    let layer = Linear::from_bytes(&[0; 68], Q8_0, 2, 32, None).unwrap();
    let error = |dims: &[usize], dtype| {
        let x = Tensor::zeros(dims, dtype, &Device::Cpu).unwrap();
        layer.forward(&x).unwrap_err().to_string()
    };
    assert_eq!(
        error(&[1, 31], DType::F32),
        "linear: x has shape [1, 31], expected (T, 32)"
    );
    assert_eq!(
        error(&[32], DType::F32),
        "linear: x has shape [32], expected (T, 32)"
    );
    assert_eq!(
        error(&[1, 32], DType::F64),
        "linear: x holds F64, expected F32"
    );
    assert_eq!(
        layer.rows(&[1, 2]).unwrap_err().to_string(),
        "linear: row of the weights 2 is out of range, there are 2"
    );
}

#[test]
fn ggml_numbers_and_sizes_are_those_of_candle() {
    for format in ALL {
        assert_eq!(
            format.block_size(),
            format.ggml().block_size(),
            "{format:?}"
        );
        assert_eq!(
            format.block_bytes(),
            format.ggml().type_size(),
            "{format:?}"
        );
    }
    let known: Vec<WeightFormat> = (0..64).filter_map(WeightFormat::from_ggml).collect();
    assert_eq!(known.len(), ALL.len());
    assert_eq!(WeightFormat::from_ggml(30), Some(WeightFormat::BF16));
    assert_eq!(WeightFormat::from_ggml(9), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_shape_is_close_to_the_reference(
        format in proptest::sample::select(&ALL[..]),
        n in 1usize..70,
        blocks in 1usize..5,
        rows in 1usize..40,
        seed in any::<u64>(),
        scale in -3i32..3,
    ) {
        let k = if format.is_dense() { blocks * 37 } else { blocks * format.block_size() };
        let bytes = bytes_of(&values(n * k, seed, 0.1), format, k);
        let layer = Linear::from_bytes(&bytes, format, n, k, None).unwrap();
        let x = values(rows * k, seed ^ 1, 10f32.powi(scale));
        check_close(&layer, &x, &forward(&layer, &x));
    }
}

#[cfg(target_arch = "x86_64")]
mod integers {
    use super::super::activations::{Activations, Grain, SMALLEST};
    use super::super::cpu::{has_amx, has_vnni};
    use super::super::integer::{Product, Unit, multiply};
    use super::super::packed::{Packed, PackedFormat};
    use super::*;
    use crate::parallel::Shared;

    /// 8-bit integers and scales of a row, `group` values a scale.
    fn reference_quantise(row: &[f32], group: usize) -> Vec<(Vec<i64>, f32)> {
        let quantise = |values: &[f32]| {
            let largest = values.iter().fold(0f32, |a, b| a.max(b.abs()));
            if !values.iter().all(|v| v.is_finite()) {
                (vec![0; values.len()], f32::NAN)
            } else if largest < SMALLEST {
                (vec![0; values.len()], 0.0)
            } else {
                let inverse = 127.0 / largest;
                (
                    values
                        .iter()
                        .map(|v| (v * inverse).round_ties_even() as i64)
                        .collect(),
                    largest / 127.0,
                )
            }
        };
        row.chunks(group).map(quantise).collect()
    }

    fn half(bytes: &[u8]) -> f32 {
        f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
    }

    /// Output so far plus one Q8_0 block.
    fn reference_q8(acc: f32, block: &[u8], x: &[i64], scale: f32) -> f32 {
        let sum: i64 = block[2..]
            .iter()
            .zip(x)
            .map(|(&w, x)| i64::from(w as i8) * x)
            .sum();
        (sum as f32 * half(block)).mul_add(scale, acc)
    }

    /// Output so far plus one Q4_K block; the integers are read off the dequantised values of a
    /// block whose d and dmin are 1 and 0, or 0 and -1.
    fn reference_q4(acc: f32, block: &[u8], x: &[i64], scale: f32) -> f32 {
        let with = |d: f32, dmin: f32| {
            let mut block = block.to_vec();
            block[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
            block[2..4].copy_from_slice(&f16::from_f32(dmin).to_le_bytes());
            dot(&block, WeightFormat::Q4K, x)
        };
        let (total, mins) = (with(1.0, 0.0), with(0.0, -1.0));
        let product = (-half(&block[2..])).mul_add(mins as f32, half(block) * total as f32);
        product.mul_add(scale, acc)
    }

    fn reference_q6(acc: f32, block: &[u8], x: &[i64], scale: f32) -> f32 {
        let mut unit = block.to_vec();
        unit[208..].copy_from_slice(&f16::ONE.to_le_bytes());
        let total = dot(&unit, WeightFormat::Q6K, x);
        (half(&block[208..]) * total as f32).mul_add(scale, acc)
    }

    /// Integer weights of one block, by candle's decoder, times integers.
    fn dot(block: &[u8], format: WeightFormat, x: &[i64]) -> i64 {
        let storage =
            QStorage::from_data(block.to_vec().into(), &Device::Cpu, format.ggml()).unwrap();
        let weights = QTensor::new(storage, (1, 256))
            .unwrap()
            .dequantize(&Device::Cpu)
            .unwrap();
        let weights = weights.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        weights.iter().zip(x).map(|(&w, x)| w as i64 * x).sum()
    }

    /// The scalar twin of both kernels, from the bytes of the file.
    fn reference_integer(
        bytes: &[u8],
        format: WeightFormat,
        n: usize,
        x: &[f32],
        k: usize,
    ) -> Vec<f32> {
        let block = format.block_size();
        let mut out = Vec::new();
        for row in x.chunks(k) {
            let x = reference_quantise(row, block);
            for weights in bytes.chunks(bytes.len() / n) {
                let mut acc = 0f32;
                for (bytes, (x, scale)) in weights.chunks(format.block_bytes()).zip(&x) {
                    acc = match format {
                        WeightFormat::Q8_0 => reference_q8(acc, bytes, x, *scale),
                        WeightFormat::Q4K => reference_q4(acc, bytes, x, *scale),
                        _ => reference_q6(acc, bytes, x, *scale),
                    };
                }
                out.push(acc);
            }
        }
        out
    }

    fn run(
        bytes: &[u8],
        format: WeightFormat,
        n: usize,
        x: &[f32],
        k: usize,
        unit: Unit,
    ) -> Vec<f32> {
        let packed = match format {
            WeightFormat::Q8_0 => PackedFormat::Q8,
            WeightFormat::Q4K => PackedFormat::Q4,
            _ => PackedFormat::Q6,
        };
        let mut weights = Packed::zeros(packed, n, k);
        weights.pack(0..n, bytes);
        let x = Activations::quantise(x, k, Grain::of(packed));
        let mut out = vec![0f32; x.rows * n];
        multiply(&[Product {
            weights: &weights,
            bias: None,
            x: &x,
            out: Shared::new(&mut out),
            unit,
        }]);
        out
    }

    /// VNNI = AMX = scalar, bit for bit.
    fn check(bytes: &[u8], format: WeightFormat, n: usize, x: &[f32], k: usize) {
        if !has_vnni() {
            return;
        }
        let expected = bits(&reference_integer(bytes, format, n, x, k));
        let rows = x.len() / k;
        let mut units = vec![Unit::Vnni];
        if has_amx() {
            units.extend([Unit::Amx { rows_min: 1 }, Unit::Amx { rows_min: 16 }]);
        }
        for unit in units {
            assert_eq!(
                bits(&run(bytes, format, n, x, k, unit)),
                expected,
                "{format:?} {n}x{k}, {rows} rows, {unit:?}"
            );
        }
    }

    #[test]
    fn kernels_give_the_bits_of_their_scalar_twin() {
        for format in PACKED {
            for (n, k) in [(16, 256), (33, 512), (64, 1024)] {
                for rows in [1, 2, 5, 8, 9, 16, 17, 31, 35] {
                    let bytes = bytes_of(&values(n * k, 3, 0.05), format, k);
                    check(&bytes, format, n, &values(rows * k, 61, 1.0), k);
                }
            }
        }
        let bytes = bytes_of(&values(48 * 96, 3, 0.05), WeightFormat::Q8_0, 96);
        check(
            &bytes,
            WeightFormat::Q8_0,
            48,
            &values(18 * 96, 61, 1.0),
            96,
        );
    }

    #[test]
    fn extreme_integers_do_not_overflow() {
        for format in PACKED {
            for fill in [0x00, 0x7f, 0x80, 0xff] {
                let (n, k) = (16, 512);
                let mut bytes = vec![fill; format.bytes(n, k).unwrap()];
                for block in bytes.chunks_mut(format.block_bytes()) {
                    let at = if format == WeightFormat::Q6K { 208 } else { 0 };
                    block[at..at + 2].copy_from_slice(&f16::ONE.to_le_bytes());
                    if format == WeightFormat::Q4K {
                        block[2..4].copy_from_slice(&f16::ONE.to_le_bytes());
                    }
                }
                for x in [1.0, -1.0] {
                    check(&bytes, format, n, &vec![x; 17 * k], k);
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn any_bytes_give_the_bits_of_the_scalar_twin(
            format in proptest::sample::select(&PACKED[..]),
            n in 1usize..40,
            blocks in 1usize..4,
            rows in 1usize..34,
            seed in any::<u64>(),
        ) {
            let k = blocks * format.block_size();
            let mut state = seed | 1;
            let bytes: Vec<u8> = (0..format.bytes(n, k).unwrap()).map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 32) as u8
            }).collect();
            check(&bytes, format, n, &values(rows * k, seed ^ 5, 1.0), k);
        }
    }

    #[test]
    fn layouts_take_no_more_bits_than_they_say() {
        for (format, packed, most) in [
            (WeightFormat::Q8_0, PackedFormat::Q8, 8.5),
            (WeightFormat::Q4K, PackedFormat::Q4, 4.625),
            (WeightFormat::Q6K, PackedFormat::Q6, 6.5625),
        ] {
            let weights = Packed::zeros(packed, 64, 1024);
            assert_eq!(
                weights.size_in_bytes() as f64 * 8.0 / (64.0 * 1024.0),
                most,
                "{format:?}"
            );
        }
    }
}
