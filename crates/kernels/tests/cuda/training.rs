//! Backward rules on a device against those of the CPU, which other tests compare with differences.

use crate::reference::assert_close;
use crate::{device, indices, random, upload, widen};
use candle_core::{Device as Host, Tensor};
use float8::F8E4M3;
use half::bf16;
use kernels::cuda::training::{
    Dropout, Form, MatMul, NormWeightGradient, RmsNormBackward, TokenRows, Turn, Update, add,
    add_rows_by_token, column_sums, dropout, fill_rows, matmul, rms_norm_backward, rope_rows,
    scatter_rows, score_targets, swiglu_backward, target_gradient, zero,
};
use kernels::cuda::{Buffer, CudaLinear, Norm, RopeTable};
use kernels::{Linear, Rope, RopeLayout, WeightFormat, encode_rows, training};

fn tensor(values: &[f32], columns: usize) -> Tensor {
    Tensor::from_slice(values, (values.len() / columns, columns), &Host::Cpu).unwrap()
}

fn wide(tensor: &Tensor) -> Vec<f64> {
    let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    values.into_iter().map(f64::from).collect()
}

fn plus(values: &[f64], more: &[f32]) -> Vec<f64> {
    let pairs = values.iter().zip(more);
    pairs.map(|(a, &b)| a + f64::from(b)).collect()
}

fn doubles(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| f64::from(x)).collect()
}

/// Element (i, j) of a product, in f64, of operands that lie as the form says.
fn product_twin(
    form: Form,
    (a, b): (&[f32], &[f32]),
    (m, n, k): (usize, usize, usize),
) -> Vec<f64> {
    let of_a = |i: usize, l: usize| match form {
        Form::AtB => a[l * m + i],
        _ => a[i * k + l],
    };
    let of_b = |l: usize, j: usize| match form {
        Form::ABt => b[j * k + l],
        _ => b[l * n + j],
    };
    let element = |i, j| {
        (0..k)
            .map(|l| f64::from(of_a(i, l)) * f64::from(of_b(l, j)))
            .sum()
    };
    (0..m)
        .flat_map(|i| (0..n).map(move |j| element(i, j)))
        .collect()
}

/// Sums of 37 terms in f32: 1e-5, whatever the type of the operands.
#[test]
fn products_of_every_form_match_their_twin() {
    let device = device();
    let shape @ (m, n, k) = (5, 19, 37);
    for form in [Form::ABt, Form::AB, Form::AtB] {
        let a: Vec<bf16> = random(1, m * k).into_iter().map(bf16::from_f32).collect();
        let b: Vec<bf16> = random(2, n * k).into_iter().map(bf16::from_f32).collect();
        let product = product_twin(form, (&widen(&a), &widen(&b)), shape);
        let (a_columns, b_columns) = match form {
            Form::ABt => (k, k),
            Form::AB => (k, n),
            Form::AtB => (m, n),
        };
        // c in the middle of a wider buffer that holds no numbers.
        let c = upload(&device, &vec![f32::NAN; m * (n + 5)]);
        let into = c.matrix(n + 5).columns(3..3 + n);
        let low = [
            Buffer::from_slice(&device, &a).unwrap(),
            Buffer::from_slice(&device, &b).unwrap(),
        ];
        let set = MatMul {
            a: low[0].matrix(a_columns),
            b: low[1].matrix(b_columns),
            c: into,
            form,
            shape,
            scale: 0.5,
            update: Update::Set,
        };
        matmul(&device, &set).unwrap();
        let full = [upload(&device, &widen(&a)), upload(&device, &widen(&b))];
        let more = MatMul {
            a: full[0].matrix(a_columns),
            b: full[1].matrix(b_columns),
            scale: -2.0,
            update: Update::Add,
            ..set
        };
        matmul(&device, &more).unwrap();
        let c = c.read().unwrap();
        for (got, product) in c.chunks(n + 5).zip(product.chunks(n)) {
            let expected: Vec<f64> = product.iter().map(|x| -1.5 * x).collect();
            assert_close(&got[3..3 + n], &expected, 1e-5);
            assert!([0, 2, n + 3].iter().all(|&i| got[i].is_nan()));
        }
        let mixed = MatMul {
            a: low[0].matrix(a_columns),
            ..more
        };
        let error = matmul(&device, &mixed).unwrap_err().to_string();
        assert!(error.contains("matmul: b is"), "{error}");
        // No product of eight bits exists.
        let eighths = vec![F8E4M3::ONE; m * k.max(n)];
        let eighths = Buffer::from_slice(&device, &eighths).unwrap();
        let eight_bits = MatMul {
            a: eighths.matrix(a_columns),
            ..more
        };
        let error = matmul(&device, &eight_bits).unwrap_err().to_string();
        assert!(error.contains("matmul: a is"), "{error}");
    }
}

/// What the device unpacks is what the host does, in f32 to 1e-6, rounded to bf16 to 2^-8.
#[test]
fn weights_of_any_format_unpack_by_rows() {
    let device = device();
    let (outputs, inputs) = (7, 512);
    let values = random(3, outputs * inputs);
    let formats = [
        WeightFormat::F32,
        WeightFormat::F16,
        WeightFormat::BF16,
        WeightFormat::Q8_0,
        WeightFormat::Q4K,
        WeightFormat::Q6K,
    ];
    for format in formats {
        let bytes = encode_rows(&values, format, inputs).unwrap();
        let bias = random(4, outputs);
        let host = Linear::from_bytes(&bytes, format, outputs, inputs, None).unwrap();
        let expected = wide(&host.dequantize().unwrap());
        let shape = (outputs, inputs);
        let linear = CudaLinear::from_bytes(&device, &bytes, format, shape, Some(&bias)).unwrap();
        for rows in [0..outputs, 2..5, 6..7, 3..3] {
            let part = &expected[rows.start * inputs..rows.end * inputs];
            let out = upload(&device, &vec![f32::NAN; rows.len() * (inputs + 3) + 3]);
            let to = out
                .slice(1..out.len())
                .matrix(inputs + 3)
                .columns(0..inputs);
            linear.unpack_rows(&device, rows.clone(), to).unwrap();
            let out = out.read().unwrap();
            let got = out[1..].chunks_exact(inputs + 3);
            let got: Vec<f32> = got
                .flat_map(|row| &row[..inputs])
                .copied()
                .take(part.len())
                .collect();
            assert_close(&got, part, 1e-6);
            let low = Buffer::<bf16>::zeros(&device, rows.len() * inputs + 1).unwrap();
            // At an odd place, too.
            let to = low
                .slice(usize::from(rows.start == 2)..low.len())
                .matrix(inputs);
            linear.unpack_rows(&device, rows.clone(), to).unwrap();
            let low = widen(&low.read().unwrap());
            let low = &low[usize::from(rows.start == 2)..][..part.len()];
            assert_close(low, part, 1.0 / 256.0);
        }
        let dense = matches!(format, WeightFormat::F32 | WeightFormat::BF16);
        assert_eq!(linear.dense().is_some(), dense, "{format:?}");
        assert_eq!(linear.bias().unwrap().len(), outputs);
        let room = upload(&device, &vec![0.0; 2 * inputs]);
        let error = linear
            .unpack_rows(&device, 6..8, room.matrix(inputs))
            .unwrap_err();
        assert!(error.to_string().contains("row of weights 8"), "{error}");
    }
}

/// f32 sums of a row, and of up to 1,100 rows: 2e-5.
#[test]
fn norm_gradients_match_the_cpu() {
    let device = device();
    for (rows, hidden) in [(1, 48), (3, 896), (1100, 33)] {
        let (x, weight) = (random(5, rows * hidden), random(6, hidden));
        let gradient = random(7, rows * hidden);
        let found = training::rms_norm_backward(
            &tensor(&x, hidden),
            &Tensor::from_slice(&weight, hidden, &Host::Cpu).unwrap(),
            &tensor(&gradient, hidden),
            1e-5,
        )
        .unwrap();
        let (of_x, of_weight) = (wide(&found.x), wide(&found.weight));
        let [input, weights, gradients] = [&x, &weight, &gradient].map(|x| upload(&device, x));
        let before = random(8, hidden);
        let (dx, dw) = (
            upload(&device, &vec![f32::NAN; rows * hidden]),
            upload(&device, &before),
        );
        let len = NormWeightGradient::scratch_len(rows, hidden);
        let scratch = upload(&device, &vec![f32::NAN; len]);
        let arguments = RmsNormBackward {
            x: input.matrix(hidden),
            norm: Norm {
                weight: weights.view(),
                eps: 1e-5,
            },
            gradient: gradients.matrix(hidden),
            dx: dx.matrix(hidden),
            update: Update::Set,
            weight: Some(NormWeightGradient {
                out: dw.view(),
                scratch: scratch.view(),
            }),
        };
        rms_norm_backward(&device, &arguments, rows).unwrap();
        assert_close(&dx.read().unwrap(), &of_x, 2e-5);
        let sum = plus(&of_weight, &before);
        assert_close(&dw.read().unwrap(), &sum, 2e-5);
        // Twice the same bits.
        let again = upload(&device, &before);
        let weight = Some(NormWeightGradient {
            out: again.view(),
            scratch: scratch.view(),
        });
        let repeated = RmsNormBackward {
            weight,
            ..arguments
        };
        rms_norm_backward(&device, &repeated, rows).unwrap();
        assert_eq!(again.read().unwrap(), dw.read().unwrap());
        // Into the gradient itself, added.
        let in_place = RmsNormBackward {
            dx: gradients.matrix(hidden),
            update: Update::Add,
            weight: None,
            ..arguments
        };
        rms_norm_backward(&device, &in_place, rows).unwrap();
        let sum = plus(&of_x, &gradient);
        assert_close(&gradients.read().unwrap(), &sum, 2e-5);
    }
}

/// f32 arithmetic: 2e-6.
#[test]
fn rotations_match_the_cpu_and_turn_back() {
    let device = device();
    let (heads, dim) = (3, 16);
    let positions = [0u32, 5, 63, 5, 1000];
    let x = random(9, positions.len() * heads * dim);
    let frequencies: Vec<f64> = (0..dim / 2).map(|i| 0.5f64.powi(i as i32)).collect();
    for layout in [RopeLayout::Halves, RopeLayout::Interleaved] {
        let rope = Rope::new(&frequencies, 64, layout).unwrap();
        let table = RopeTable::new(&device, &rope).unwrap();
        // The last position lies behind the table.
        let bounded: Vec<u32> = positions.iter().map(|&p| p.min(63)).collect();
        let expected = kernels::rope(&tensor(&x, heads * dim), &rope, &bounded).unwrap();
        let (on_device, at) = (upload(&device, &x), indices(&device, &positions));
        let matrix = on_device.matrix(heads * dim);
        rope_rows(
            &device,
            matrix,
            &table,
            at.view(),
            Turn::Forth,
            positions.len(),
        )
        .unwrap();
        assert_close(&on_device.read().unwrap(), &wide(&expected), 2e-6);
        rope_rows(
            &device,
            matrix,
            &table,
            at.view(),
            Turn::Back,
            positions.len(),
        )
        .unwrap();
        assert_close(&on_device.read().unwrap(), &doubles(&x), 2e-6);
        let narrow = on_device.matrix(heads * dim).columns(0..24);
        let error = rope_rows(&device, narrow, &table, at.view(), Turn::Back, 5).unwrap_err();
        assert!(
            error.to_string().contains("24 columns for heads of 16"),
            "{error}"
        );
    }
}

/// One exponential and a division in f32: 2e-6.
#[test]
fn gate_gradients_match_the_cpu() {
    let device = device();
    let (rows, columns) = (3, 300);
    let mut gate = random(10, rows * columns);
    gate[..4].copy_from_slice(&[80.0, -80.0, 0.0, -20.0]);
    let (up, gradient) = (random(11, rows * columns), random(12, rows * columns));
    let of = |x: &[f32]| tensor(x, columns);
    let (dgate, dup) = training::swiglu_backward(&of(&gate), &of(&up), &of(&gradient)).unwrap();
    let [gate, up, gradient] = [&gate, &up, &gradient].map(|x| upload(&device, x));
    let out = upload(&device, &vec![f32::NAN; rows * columns]);
    // The one into new memory, the other into the gradient's.
    swiglu_backward(
        &device,
        (gate.matrix(columns), up.matrix(columns)),
        gradient.matrix(columns),
        (out.matrix(columns), gradient.matrix(columns)),
        rows,
    )
    .unwrap();
    assert_close(&out.read().unwrap(), &wide(&dgate), 2e-6);
    assert_close(&gradient.read().unwrap(), &wide(&dup), 2e-6);
}

#[test]
fn dropout_is_a_function_of_its_key() {
    let device = device();
    let (rows, columns) = (40, 101);
    let x = random(13, rows * columns);
    let input = upload(&device, &x);
    let how = Dropout {
        probability: 0.3,
        key: 0x1234_5678_9abc_def0,
        site: 1 << 33 | 5,
    };
    let mask = |how: &Dropout| -> Vec<f32> {
        let row = |row| (0..columns as u32).map(move |column| how.factor(row, column));
        (0..rows as u32).flat_map(row).collect()
    };
    let factors = mask(&how);
    let out = upload(&device, &vec![f32::NAN; rows * columns]);
    let run = |update, how: &Dropout| {
        let to = (out.matrix(columns), update);
        dropout(&device, input.matrix(columns), to, rows, how).unwrap();
        out.read().unwrap()
    };
    let dropped: Vec<f32> = x.iter().zip(&factors).map(|(x, f)| x * f).collect();
    assert_eq!(run(Update::Set, &how), dropped);
    let twice: Vec<f32> = dropped.iter().map(|x| x + x).collect();
    assert_eq!(run(Update::Add, &how), twice);
    let zeros = factors.iter().filter(|&&f| f == 0.0).count() as f64 / factors.len() as f64;
    assert!((zeros - 0.3).abs() < 0.03, "{zeros}");
    assert!(factors.iter().all(|&f| f == 0.0 || f == 1.0 / 0.7));
    let other = Dropout { site: 5, ..how };
    let same = mask(&other)
        .iter()
        .zip(&factors)
        .filter(|(a, b)| a == b)
        .count();
    assert!(same < factors.len() * 3 / 4, "{same} of {}", factors.len());
    let none = Dropout {
        probability: 0.0,
        ..how
    };
    assert_eq!(run(Update::Set, &none), x);
    let all = Dropout {
        probability: 1.0,
        ..how
    };
    let to = (out.matrix(columns), Update::Set);
    let error = dropout(&device, input.matrix(columns), to, rows, &all).unwrap_err();
    assert!(error.to_string().contains("a probability of 1"), "{error}");
}

#[test]
fn rows_are_added_summed_and_scattered() {
    let device = device();
    let (rows, columns) = (70, 45);
    let (x, y) = (random(14, rows * columns), random(15, rows * columns));
    let (left, right) = (upload(&device, &x), upload(&device, &y));
    add(&device, left.matrix(columns), right.matrix(columns), rows).unwrap();
    let expected: Vec<f32> = x.iter().zip(&y).map(|(x, y)| y + x).collect();
    assert_eq!(right.read().unwrap(), expected);

    let sums: Vec<f64> = (0..columns)
        .map(|c| x.chunks(columns).map(|row| f64::from(row[c])).sum())
        .collect();
    let out = upload(&device, &vec![f32::NAN; columns]);
    column_sums(&device, left.matrix(columns), rows, out.view(), Update::Set).unwrap();
    assert_close(&out.read().unwrap(), &sums, 1e-5);
    column_sums(&device, left.matrix(columns), rows, out.view(), Update::Add).unwrap();
    let twice: Vec<f64> = sums.iter().map(|x| 2.0 * x).collect();
    assert_close(&out.read().unwrap(), &twice, 1e-5);
    column_sums(&device, left.matrix(columns), 0, out.view(), Update::Set).unwrap();
    assert_eq!(out.read().unwrap(), vec![0.0; columns]);

    fill_rows(
        &device,
        left.slice(7..7 + columns),
        right.matrix(columns),
        2,
    )
    .unwrap();
    let filled = right.read_range(0..2 * columns).unwrap();
    assert!(filled.chunks(columns).all(|row| row == &x[7..7 + columns]));

    let targets = [3u32, 0, 9, 1];
    let at = indices(&device, &targets);
    let to = upload(&device, &vec![1.0; 4 * columns]);
    let pick = (at.view(), 4);
    for update in [Update::Set, Update::Add] {
        scatter_rows(
            &device,
            left.matrix(columns),
            pick,
            (to.matrix(columns), 4),
            update,
        )
        .unwrap();
    }
    let mut expected = vec![1.0; 4 * columns];
    for (row, &target) in targets
        .iter()
        .enumerate()
        .filter(|(_, target)| **target < 4)
    {
        for c in 0..columns {
            expected[target as usize * columns + c] = 2.0 * x[row * columns + c];
        }
    }
    assert_eq!(to.read().unwrap(), expected);
    zero(&device, to.slice(columns..3 * columns)).unwrap();
    expected[columns..3 * columns].fill(0.0);
    assert_eq!(to.read().unwrap(), expected);
}

#[test]
fn an_embedding_gets_the_sum_of_its_rows_in_order() {
    let device = device();
    let (columns, vocabulary) = (300, 12);
    let tokens = [7u32, 2, 7, 7, 11, 2];
    let x = random(16, tokens.len() * columns);
    let mut expected = random(17, vocabulary * columns);
    let table = upload(&device, &expected);
    for token in [2, 7, 11] {
        let mut sum = vec![0.0f32; columns];
        for (row, _) in tokens.iter().enumerate().filter(|(_, t)| **t == token) {
            for (sum, x) in sum.iter_mut().zip(&x[row * columns..]) {
                *sum += x;
            }
        }
        let entry = &mut expected[token as usize * columns..][..columns];
        entry.iter_mut().zip(sum).for_each(|(e, s)| *e += s);
    }
    // One more token, which the table does not have.
    let (which, starts) = (
        indices(&device, &[2, 7, 11, 50]),
        indices(&device, &[0, 2, 5, 6, 6]),
    );
    let order = indices(&device, &[1, 5, 0, 2, 3, 4]);
    let by = TokenRows {
        tokens: which.view(),
        count: 4,
        starts: starts.view(),
        order: order.view(),
    };
    let from = upload(&device, &x);
    let from = (from.matrix(columns), tokens.len());
    add_rows_by_token(&device, from, &by, (table.matrix(columns), vocabulary)).unwrap();
    assert_eq!(table.read().unwrap(), expected);
}

/// Logits of two vocabularies, with ties, an impossible token and a large one.
fn logits(vocabulary: usize) -> (Vec<f32>, [u32; 4]) {
    let mut x: Vec<f32> = random(18, 4 * vocabulary).iter().map(|x| x * 4.0).collect();
    x[5] = f32::NEG_INFINITY;
    x[vocabulary + 3] = 60.0;
    x[vocabulary + 7] = 60.0;
    (x, [5, 7, vocabulary as u32 - 1, 0])
}

/// f32 sums over the vocabulary in another order than the CPU's: 1e-5.
#[test]
fn scores_of_targets_match_the_cpu() {
    let device = device();
    for vocabulary in [33, 2500] {
        let (x, targets) = logits(vocabulary);
        let expected = training::score_targets(&tensor(&x, vocabulary), &targets).unwrap();
        let (input, at) = (upload(&device, &x), indices(&device, &targets));
        let out = upload(&device, &[f32::NAN; 16]);
        score_targets(&device, input.matrix(vocabulary), at.view(), out.view(), 4).unwrap();
        for (got, expected) in out.read().unwrap().chunks(4).zip(&expected) {
            if expected.log_prob.is_finite() {
                assert_close(&got[..1], &[f64::from(expected.log_prob)], 1e-5);
            } else {
                assert_eq!(got[0], expected.log_prob);
            }
            assert_close(&got[1..2], &[f64::from(expected.entropy)], 1e-5);
            if expected.mean_logit.is_finite() {
                assert_close(&got[2..3], &[f64::from(expected.mean_logit)], 1e-5);
            } else {
                assert_eq!(got[2], expected.mean_logit);
            }
            assert_eq!(got[3] == 1.0, expected.is_top);
        }
        let outside = indices(&device, &[0, vocabulary as u32, 0, 0]);
        score_targets(
            &device,
            input.matrix(vocabulary),
            outside.view(),
            out.view(),
            4,
        )
        .unwrap();
        let out = out.read().unwrap();
        assert!(out[4].is_nan() && out[5].is_finite() && out[7] == 0.0);
    }
}

/// f32: 1e-6; rounded to bf16: 2^-8.
#[test]
fn gradients_of_logits_match_the_cpu() {
    let device = device();
    for vocabulary in [33, 2500] {
        let (x, targets) = logits(vocabulary);
        let coefficients = [0.5, -1.0, 0.0, 0.125];
        let twin = tensor(&x, vocabulary);
        training::target_gradient(&twin, &targets, &coefficients).unwrap();
        let expected = wide(&twin);
        let (input, at) = (upload(&device, &x), indices(&device, &targets));
        let factors = upload(&device, &coefficients);
        let asked = (at.view(), factors.view());
        let logits = input.matrix(vocabulary);
        let low = Buffer::<bf16>::zeros(&device, 4 * vocabulary).unwrap();
        target_gradient(&device, logits, asked, low.matrix(vocabulary), 4).unwrap();
        assert_close(&widen(&low.read().unwrap()), &expected, 1.0 / 256.0);
        target_gradient(&device, logits, asked, logits, 4).unwrap();
        assert_close(&input.read().unwrap(), &expected, 1e-6);
    }
}
