//! Time of linear layers beside candle's quantised products, in one run. Not a test of anything:
//! `cargo nextest run --release --workspace --run-ignored only --no-capture -E 'test(linear_speed)'`.
//! Environment: `SHAPES=2048x2048,…` (out x in), `ROWS=1,8,…`, `FORMATS=q8_0,q4_k,q6_k,bf16,f16,f32`.
#![expect(clippy::print_stdout, reason = "a table is the point")]

use std::borrow::Cow;
use std::time::Instant;

use candle_core::quantized::{GgmlDType, QMatMul, QStorage, QTensor};
use candle_core::{Device, Module, Tensor};
use kernels::{Linear, WeightFormat};

const SHAPES: &str = "2048x2048,8192x2048,2048x8192,14336x4096,128256x2048";
const ROWS: &str = "1,2,4,8,16,32,64,128,512";

fn setting(name: &str, default: &str) -> Vec<String> {
    let value = std::env::var(name).unwrap_or_else(|_| default.to_owned());
    value.split(',').map(str::to_owned).collect()
}

fn format_of(name: &str) -> (WeightFormat, Option<GgmlDType>) {
    match name {
        "q8_0" => (WeightFormat::Q8_0, Some(GgmlDType::Q8_0)),
        "q4_k" => (WeightFormat::Q4K, Some(GgmlDType::Q4K)),
        "q6_k" => (WeightFormat::Q6K, Some(GgmlDType::Q6K)),
        "f16" => (WeightFormat::F16, None),
        "bf16" => (WeightFormat::BF16, None),
        "f32" => (WeightFormat::F32, None),
        other => panic!("no format {other}"),
    }
}

/// Blocks of plausible bytes: integers at random, scales small and finite.
fn weight_bytes(format: WeightFormat, n: usize, k: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252u64;
    let mut bytes = vec![0u8; format.bytes(n, k).expect("a shape the format can hold")];
    for eight in bytes.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        eight.copy_from_slice(&state.to_le_bytes()[..eight.len()]);
    }
    for block in bytes.chunks_mut(format.block_bytes()) {
        let scales: &[usize] = match format {
            WeightFormat::Q6K => &[208],
            WeightFormat::Q4K => &[0, 2],
            WeightFormat::F32 => &[2],
            _ => &[0],
        };
        for &at in scales {
            block[at + 1] = 0x20 | block[at + 1] & 0x83; // 2^-7 and below in f16, tiny in bf16 and f32
        }
    }
    bytes
}

/// Milliseconds of each closure, alternating: (smallest, median).
fn time(runs: usize, closures: &mut [&mut dyn FnMut()]) -> Vec<(f64, f64)> {
    let mut times = vec![Vec::new(); closures.len()];
    for run in 0..=runs {
        for (closure, times) in closures.iter_mut().zip(&mut times) {
            let start = Instant::now();
            closure();
            if run > 0 {
                times.push(start.elapsed().as_secs_f64() * 1e3);
            }
        }
    }
    times
        .into_iter()
        .map(|mut times| {
            times.sort_by(f64::total_cmp);
            (times[0], times[times.len() / 2])
        })
        .collect()
}

#[test]
#[ignore = "a measurement"]
fn linear_speed() {
    println!(
        "format shape rows | ours ms min/median GB/s Gop/s | candle ms min/median | ratio of minima, medians"
    );
    for name in setting("FORMATS", "q8_0,q4_k,q6_k") {
        for shape in setting("SHAPES", SHAPES) {
            let (n, k) = shape.split_once('x').expect("SHAPES=outxin");
            let (n, k) = (n.parse().expect("out"), k.parse().expect("in"));
            measure(&name, n, k);
        }
    }
}

fn measure(name: &str, n: usize, k: usize) {
    let (format, candle) = format_of(name);
    let bytes = weight_bytes(format, n, k);
    let layer = Linear::from_bytes(&bytes, format, n, k, None).expect("bytes of the right length");
    let theirs = candle.map(|dtype| {
        let storage =
            QStorage::from_data(Cow::Borrowed(&bytes), &Device::Cpu, dtype).expect("blocks");
        QMatMul::from_qtensor(QTensor::new(storage, (n, k)).expect("a matrix")).expect("a product")
    });
    drop(bytes);
    for rows in setting("ROWS", ROWS) {
        let rows: usize = rows.parse().expect("ROWS=1,8");
        let x = Tensor::rand(-1f32, 1f32, (rows, k), &Device::Cpu).expect("an input");
        let work = 2.0 * (n * k * rows) as f64;
        let runs = ((3e9 / work) as usize).clamp(5, 40);
        let mut ours = || drop(layer.forward(&x).expect("a product"));
        let line = match &theirs {
            Some(theirs) => {
                let mut theirs = || drop(theirs.forward(&x).expect("a product"));
                let times = time(runs, &mut [&mut ours, &mut theirs]);
                let (a, b) = (times[0], times[1]);
                let ratios = (b.0 / a.0, b.1 / a.1);
                (
                    a,
                    format!(
                        "{:8.3} {:8.3} | {:5.2} {:5.2}",
                        b.0, b.1, ratios.0, ratios.1
                    ),
                )
            }
            None => (time(runs, &mut [&mut ours])[0], String::new()),
        };
        let ((least, median), rest) = line;
        let bandwidth = layer.size_in_bytes() as f64 / least / 1e6;
        let rate = work / least / 1e6;
        println!(
            "{name} {n}x{k} {rows:4} | {least:8.3} {median:8.3} {bandwidth:6.1} {rate:7.0} | {rest}"
        );
    }
}
