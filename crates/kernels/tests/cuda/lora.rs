use crate::reference::assert_close;
use crate::{device, indices, random, upload};
use kernels::cuda::{LoraAdd, LoraMatrix, LoraTable, NO_ADAPTER, lora_add};

/// f32 sums of 96 and of up to 12 terms: 2e-5.
#[test]
fn adapters_of_a_batch_match_their_twin() {
    let device = device();
    let (rows, inputs, outputs) = (5, 96, 300);
    let ranks = [3, 12];
    let a: Vec<_> = ranks
        .iter()
        .map(|&r| random(r as u64, r * inputs))
        .collect();
    let b: Vec<_> = ranks
        .iter()
        .map(|&r| random(r as u64 + 50, outputs * r))
        .collect();
    let matrix = |i: usize| LoraMatrix {
        a: &a[i],
        b: &b[i],
        rank: ranks[i],
        scale: 0.25 + i as f32,
    };
    // The adapter in the middle leaves this product as it is.
    let adapters = [Some(matrix(0)), None, Some(matrix(1))];
    let table = LoraTable::new(&device, (outputs, inputs), &adapters).unwrap();
    let of_row = [2, NO_ADAPTER, 0, 1, 2];
    let (x, y) = (random(1, rows * inputs), random(2, rows * outputs));
    let (input, wide) = (upload(&device, &x), upload(&device, &y));
    let scratch = upload(&device, &vec![f32::NAN; table.scratch_len(rows)]);
    let which = indices(&device, &of_row);
    let add = LoraAdd {
        x: input.matrix(inputs),
        y: wide.matrix(outputs),
        table: &table,
        adapters: which.view(),
        scratch: scratch.view(),
    };
    lora_add(&device, &add, rows).unwrap();
    let mut expected: Vec<f64> = y.iter().map(|&y| f64::from(y)).collect();
    for (row, &which) in of_row.iter().enumerate() {
        let Some(Some(adapter)) = adapters.get(which as usize) else {
            continue;
        };
        let dot = |a: &[f32], x: &[f32]| -> f64 {
            a.iter()
                .zip(x)
                .map(|(&a, &x)| f64::from(a) * f64::from(x))
                .sum()
        };
        let hidden: Vec<f64> = adapter
            .a
            .chunks(inputs)
            .map(|a| dot(a, &x[row * inputs..][..inputs]))
            .collect();
        for (o, b) in adapter.b.chunks(adapter.rank).enumerate() {
            let sum: f64 = b.iter().zip(&hidden).map(|(&b, h)| f64::from(b) * h).sum();
            expected[row * outputs + o] += f64::from(adapter.scale) * sum;
        }
    }
    assert_close(&wide.read().unwrap(), &expected, 2e-5);
    let wrong = [Some(LoraMatrix {
        rank: 4,
        ..matrix(0)
    })];
    let error = LoraTable::new(&device, (outputs, inputs), &wrong).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("288 and 900 values for rank 4 of 96 -> 300"),
        "{error}"
    );
}
