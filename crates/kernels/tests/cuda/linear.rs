use crate::reference::Random;
use crate::{device, random, upload};
use half::bf16;
use kernels::cuda::{Buffer, CudaLinear, Device, Matrix, Mode, Products, ProductsSize};
use kernels::{Linear, WeightFormat, encode_rows};

const FORMATS: [WeightFormat; 7] = [
    WeightFormat::F32,
    WeightFormat::F16,
    WeightFormat::BF16,
    WeightFormat::Q8_0,
    WeightFormat::Q4K,
    WeightFormat::Q6K,
    WeightFormat::Q5K,
];

/// A layer on the device, and its weights as the CPU reads them.
struct Case {
    layer: CudaLinear,
    weights: Vec<f32>,
    bias: Option<Vec<f32>>,
    outputs: usize,
    inputs: usize,
}

impl Case {
    fn new(
        device: &Device,
        format: WeightFormat,
        (outputs, inputs): (usize, usize),
        bias: bool,
    ) -> Self {
        let values = random(outputs as u64 + inputs as u64, outputs * inputs);
        let bytes = encode_rows(&values, format, inputs).unwrap();
        let bias = bias.then(|| random(11, outputs));
        let layer =
            CudaLinear::from_bytes(device, &bytes, format, (outputs, inputs), bias.as_deref());
        let host = Linear::from_bytes(&bytes, format, outputs, inputs, None).unwrap();
        let weights = host.dequantize().unwrap().flatten_all().unwrap();
        Self {
            layer: layer.unwrap(),
            weights: weights.to_vec1().unwrap(),
            bias,
            outputs,
            inputs,
        }
    }

    /// The exact product, and the sum of the absolute terms of each output, which bounds rounding.
    fn twin(&self, x: &[f32]) -> Vec<(f64, f64)> {
        let row = |x: &[f32]| {
            let output = |o: usize| {
                let w = &self.weights[o * self.inputs..][..self.inputs];
                let terms = w.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x));
                let (sum, size) =
                    terms.fold((0.0, 0.0), |(sum, size), t| (sum + t, size + t.abs()));
                let bias = self.bias.as_ref().map_or(0.0, |bias| f64::from(bias[o]));
                (sum + bias, size + bias.abs())
            };
            (0..self.outputs).map(output).collect::<Vec<_>>()
        };
        x.chunks(self.inputs).flat_map(row).collect()
    }

    fn products(&self, device: &Device, mode: Mode, rows: usize) -> Products {
        let size = ProductsSize {
            rows,
            columns: self.inputs,
        };
        Products::new(device, mode, size, [&self.layer]).unwrap()
    }

    fn multiply(
        &self,
        products: &Products,
        x: Matrix<'_>,
        rows: usize,
        device: &Device,
    ) -> Vec<f32> {
        // A part of a wider buffer, whose other columns stay.
        let wide = upload(device, &vec![5.0; rows * (self.outputs + 7)]);
        let y = wide.matrix(self.outputs + 7).columns(3..3 + self.outputs);
        products.multiply(&self.layer, x, rows, y).unwrap();
        let wide = wide.read().unwrap();
        let rows = wide.chunks(self.outputs + 7);
        rows.flat_map(|row| {
            assert!(
                row[..3]
                    .iter()
                    .chain(&row[3 + self.outputs..])
                    .all(|&x| x == 5.0)
            );
            row[3..3 + self.outputs].to_vec()
        })
        .collect()
    }
}

#[track_caller]
fn assert_near(got: &[f32], expected: &[(f64, f64)], relative: f64, what: &str) {
    assert_eq!(got.len(), expected.len());
    for (i, (&got, &(value, size))) in got.iter().zip(expected).enumerate() {
        let error = (f64::from(got) - value).abs();
        assert!(
            error <= relative * size + 1e-6,
            "{what}, output {i}: {got}, expected {value} of {size}"
        );
    }
}

/// Without tensor cores all is f32: 1e-6 of the sum of the absolute terms. (Q5_K was rounded to
/// bf16 when it was loaded, the tile rounds both sides to bf16: 2^-8 for each side.)
fn tolerance(format: WeightFormat, rounded: bool) -> f64 {
    match (rounded, format) {
        (true, _) => 2.0 / 256.0,
        (false, WeightFormat::Q5K) => 1.0 / 256.0,
        (false, _) => 1e-6,
    }
}

#[test]
fn few_rows_match_their_twin_in_every_format() {
    let device = device();
    for format in FORMATS {
        for (rows, bias) in [(1, true), (2, false), (3, true), (8, false)] {
            let case = Case::new(&device, format, (37, 512), bias);
            let products = case.products(&device, Mode::Fast, 8);
            let x = random(rows as u64, rows * 512);
            let input = upload(&device, &x);
            let got = case.multiply(&products, input.matrix(512), rows, &device);
            assert_near(
                &got,
                &case.twin(&x),
                tolerance(format, false),
                &format!("{format:?} {rows}"),
            );
        }
    }
}

/// Odd widths have no aligned rows.
#[test]
fn odd_shapes_match_their_twin() {
    let device = device();
    for format in [WeightFormat::F32, WeightFormat::F16, WeightFormat::BF16] {
        for (mode, rows) in [(Mode::Fast, 3), (Mode::Deterministic, 3), (Mode::Fast, 9)] {
            let case = Case::new(&device, format, (5, 43), true);
            let products = case.products(&device, mode, rows);
            let x = random(21, rows * 43);
            let input = upload(&device, &x);
            let got = case.multiply(&products, input.matrix(43), rows, &device);
            let rounded = rows > 8 || mode == Mode::Deterministic;
            let rounded = rounded && format != WeightFormat::F32;
            assert_near(
                &got,
                &case.twin(&x),
                tolerance(format, rounded),
                &format!("{format:?} {mode:?}"),
            );
        }
    }
}

#[test]
fn many_rows_match_their_twin_in_every_format() {
    let device = device();
    for format in FORMATS {
        let case = Case::new(&device, format, (130, 256), true);
        let products = case.products(&device, Mode::Fast, 200);
        // A tile, several with a part of one, and enough for cuBLAS.
        for rows in [9, 65, 200] {
            let x = random(rows as u64, rows * 256);
            let input = upload(&device, &x);
            let got = case.multiply(&products, input.matrix(256), rows, &device);
            let rounded = format != WeightFormat::F32;
            assert_near(
                &got,
                &case.twin(&x),
                tolerance(format, rounded),
                &format!("{format:?} {rows}"),
            );
        }
    }
}

/// Rows given as bf16 give what the same values give as f32.
#[test]
fn rows_of_bf16_are_the_same_rows() {
    let device = device();
    for format in [WeightFormat::BF16, WeightFormat::Q8_0, WeightFormat::Q4K] {
        let case = Case::new(&device, format, (66, 256), false);
        let products = case.products(&device, Mode::Fast, 200);
        for rows in [2, 20, 200] {
            let low: Vec<bf16> = random(3, rows * 256)
                .into_iter()
                .map(bf16::from_f32)
                .collect();
            let x: Vec<f32> = low.iter().map(|x| x.to_f32()).collect();
            let (low, x) = (
                Buffer::from_slice(&device, &low).unwrap(),
                upload(&device, &x),
            );
            let left = case.multiply(&products, low.matrix(256), rows, &device);
            let right = case.multiply(&products, x.matrix(256), rows, &device);
            assert_eq!(left, right, "{format:?} {rows}");
        }
    }
}

/// The promise of [`Mode::Deterministic`]: bits of a row alone, in any batch and at any place.
#[test]
fn deterministic_products_do_not_depend_on_the_batch() {
    let device = device();
    for format in [
        WeightFormat::F32,
        WeightFormat::BF16,
        WeightFormat::Q4K,
        WeightFormat::Q6K,
    ] {
        let case = Case::new(&device, format, (70, 256), true);
        let products = case.products(&device, Mode::Deterministic, 100);
        let x = random(31, 100 * 256);
        let input = upload(&device, &x);
        let all = case.multiply(&products, input.matrix(256), 100, &device);
        assert_near(
            &all,
            &case.twin(&x),
            tolerance(format, format != WeightFormat::F32),
            "all",
        );
        let mut random = Random::new(5);
        for rows in [1, 2, 5, 33] {
            let first = random.below(100 - rows);
            let part = input.matrix(256).rows_from(first);
            let got = case.multiply(&products, part, rows, &device);
            assert_eq!(
                got,
                all[first * 70..(first + rows) * 70],
                "{format:?}, {rows} rows"
            );
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let device = device();
    let case = Case::new(&device, WeightFormat::BF16, (16, 64), false);
    let products = case.products(&device, Mode::Fast, 10);
    let (x, y) = (
        upload(&device, &[0.0; 20 * 64]),
        upload(&device, &[0.0; 20 * 16]),
    );
    let refused = |x: Matrix<'_>, rows: usize, y: Matrix<'_>| {
        products
            .multiply(&case.layer, x, rows, y)
            .unwrap_err()
            .to_string()
    };
    assert!(refused(x.matrix(64), 21, y.matrix(16)).contains("expected 21 rows of 64"));
    assert!(refused(x.matrix(32), 20, y.matrix(16)).contains("expected 20 rows of 64"));
    assert!(
        refused(x.matrix(64), 20, y.matrix(8)).contains("y is 320 elements of f32 in rows of 8")
    );
    assert!(refused(x.matrix(64), 20, y.matrix(16)).contains("a workspace for 640 activations"));
    let bytes = [0u8; 30];
    let short = CudaLinear::from_bytes(&device, &bytes, WeightFormat::Q8_0, (1, 32), None);
    assert!(
        short
            .unwrap_err()
            .to_string()
            .contains("take 34 bytes, got 30")
    );
}
