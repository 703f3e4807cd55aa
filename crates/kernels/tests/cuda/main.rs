//! The kernels for NVIDIA devices against slow, obvious f64 twins and against the CPU's kernels.
//!
//! They run in the emulator, or on a device where `AUTODIDACT_TEST_DEVICE` names one (`cuda:0`;
//! needs the feature `cuda`): the same tests with the same tolerances.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod attention;
mod elementwise;
mod linear;
mod lora;
mod machinery;
#[expect(dead_code, reason = "the other tests use all of it")]
#[path = "../it/reference.rs"]
mod reference;
mod sampler;
mod training;
mod training_attention;

use half::bf16;
use kernels::cuda::{Buffer, Device};
use reference::Random;

/// What the tests run on.
fn device() -> Device {
    let name = std::env::var("AUTODIDACT_TEST_DEVICE").unwrap_or_else(|_| "cpu".to_owned());
    if name == "cpu" {
        return Device::emulated();
    }
    let ordinal = name.strip_prefix("cuda:").and_then(|n| n.parse().ok());
    let ordinal =
        ordinal.unwrap_or_else(|| panic!("AUTODIDACT_TEST_DEVICE={name}: neither cpu nor cuda:N"));
    Device::open(ordinal).unwrap()
}

fn random(seed: u64, len: usize) -> Vec<f32> {
    let mut random = Random::new(seed);
    (0..len).map(|_| random.normal()).collect()
}

fn upload(device: &Device, values: &[f32]) -> Buffer<f32> {
    Buffer::from_slice(device, values).unwrap()
}

fn indices(device: &Device, values: &[u32]) -> Buffer<u32> {
    Buffer::from_slice(device, values).unwrap()
}

fn widen(values: &[bf16]) -> Vec<f32> {
    values.iter().map(|x| x.to_f32()).collect()
}
