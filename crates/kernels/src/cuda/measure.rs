//! What a device can do, measured: the bounds that everything else is compared with.

use super::backend::{Form, Launch, Product, Update};
use super::buffer::{Buffer, Kind};
use super::device::Device;
use crate::error::Result;
use half::bf16;

/// Measured rates of a device.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Bytes read plus bytes written in a second by a plain copy.
    pub copy_bytes_per_second: f64,
    /// Floating-point operations in a second of a large square bf16 product by cuBLAS, sums in f32.
    pub bf16_flops_per_second: f64,
}

/// Measures a device: takes about a second and, for a moment, `bytes` of memory (512 MiB is
/// plenty). On the emulator the figures mean nothing.
///
/// # Errors
/// Not enough memory; the device failed.
pub fn measure(device: &Device, bytes: usize) -> Result<Rates> {
    Ok(Rates {
        copy_bytes_per_second: copy_rate(device, bytes / 2 / 16 * 16)?,
        bf16_flops_per_second: product_rate(device, bytes)?,
    })
}

/// Seconds that one run of `work` takes: one to warm up, then the mean of `RUNS`.
fn seconds(device: &Device, work: impl Fn() -> Result<()>) -> Result<f64> {
    const RUNS: usize = 10;
    work()?;
    let (start, end) = (device.event()?, device.event()?);
    start.record()?;
    (0..RUNS).try_for_each(|_| work())?;
    end.record()?;
    end.wait()?;
    Ok(f64::from(start.until(&end)?) / 1e3 / RUNS as f64)
}

fn copy_rate(device: &Device, bytes: usize) -> Result<f64> {
    let from = Buffer::<u8>::zeros(device, bytes)?;
    let to = Buffer::<u8>::zeros(device, bytes)?;
    let blocks = device.info()?.multiprocessors as usize * 16;
    let launch = Launch::new("stream_copy", [blocks, 1, 1], 256)?
        .arg(from.address())
        .arg(to.address())
        .arg((bytes / 16) as u64);
    let seconds = seconds(device, || device.backend().launch(&launch))?;
    Ok(2.0 * bytes as f64 / seconds)
}

fn product_rate(device: &Device, bytes: usize) -> Result<f64> {
    // Two operands of two bytes and a result of four, square, of whole tiles.
    let side = (((bytes / 8) as f64).sqrt() as usize / 256 * 256).clamp(256, 8192);
    // Numbers, not zeros: a device is faster where no bit changes.
    let a = Buffer::from_slice(device, &noise(1, side * side))?;
    let b = Buffer::from_slice(device, &noise(2, side * side))?;
    let c = Buffer::<f32>::zeros(device, side * side)?;
    let product = Product {
        a: a.address(),
        b: b.address(),
        kind: Kind::BF16,
        c: c.address(),
        form: Form::ABt,
        m: side,
        n: side,
        k: side,
        a_stride: side,
        b_stride: side,
        c_stride: side,
        scale: 1.0,
        update: Update::Set,
    };
    let seconds = seconds(device, || device.backend().product(&product))?;
    Ok(2.0 * (side as f64).powi(3) / seconds)
}

/// Numbers between -1 and 1 that look random.
fn noise(seed: u64, len: usize) -> Vec<bf16> {
    let mut state = seed;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        bf16::from_f32((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0)
    };
    (0..len).map(|_| next()).collect()
}
