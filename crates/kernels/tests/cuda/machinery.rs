use crate::{device, random, upload};
use kernels::cuda::{
    Buffer, CudaLinear, Mode, Norm, Pinned, Products, ProductsSize, measure, rms_norm,
};
use kernels::{WeightFormat, encode_rows};

#[test]
fn copies_arrive() {
    let device = device();
    let mut buffer = Buffer::<u32>::zeros(&device, 10).unwrap();
    assert_eq!(buffer.read().unwrap(), [0; 10]);
    buffer.write(3, &[7, 8, 9]).unwrap();
    assert_eq!(buffer.read_range(2..6).unwrap(), [0, 7, 8, 9]);
    let mut host = Pinned::<u32>::zeros(&device, 4).unwrap();
    host.get_mut().unwrap().copy_from_slice(&[1, 2, 3, 4]);
    buffer.upload(6, &mut host, 4).unwrap();
    buffer.download(4..8, &mut host).unwrap();
    assert_eq!(host.get().unwrap(), [8, 9, 1, 2]);
    assert!(
        buffer
            .write(8, &[0; 3])
            .unwrap_err()
            .to_string()
            .contains("element 11 is out of range, there are 10")
    );
    assert!(buffer.upload(7, &mut host, 4).is_err());
    assert!(buffer.read_range(5..11).is_err());
}

/// A graph does what was captured, on what its buffers hold when it runs.
#[test]
fn graphs_run_again_on_new_inputs() {
    let device = device();
    let (rows, hidden) = (2, 64);
    let values = random(1, hidden * hidden);
    let bytes = encode_rows(&values, WeightFormat::BF16, hidden).unwrap();
    let layer = CudaLinear::from_bytes(&device, &bytes, WeightFormat::BF16, (hidden, hidden), None)
        .unwrap();
    let size = ProductsSize {
        rows,
        columns: hidden,
    };
    let products = Products::new(&device, Mode::Fast, size, [&layer]).unwrap();
    let mut x = upload(&device, &random(2, rows * hidden));
    let weight = upload(&device, &vec![1.0; hidden]);
    let (normed, y) = (
        upload(&device, &vec![0.0; rows * hidden]),
        upload(&device, &vec![0.0; rows * hidden]),
    );
    let norm = Norm {
        weight: weight.view(),
        eps: 1e-5,
    };
    let step = |x: &Buffer<f32>| {
        rms_norm(&device, x.matrix(hidden), norm, rows, normed.matrix(hidden))?;
        products.multiply(&layer, normed.matrix(hidden), rows, y.matrix(hidden))
    };
    step(&x).unwrap();
    let first = y.read().unwrap();
    let graph = device.capture(|| step(&x)).unwrap();
    x.write(0, &random(3, rows * hidden)).unwrap();
    step(&x).unwrap();
    let second = y.read().unwrap();
    x.write(0, &random(2, rows * hidden)).unwrap();
    graph.launch().unwrap();
    assert_eq!(y.read().unwrap(), first);
    x.write(0, &random(3, rows * hidden)).unwrap();
    graph.launch().unwrap();
    assert_eq!(y.read().unwrap(), second);
    assert_ne!(first, second);
}

#[test]
fn memory_is_counted_and_its_end_is_an_error() {
    let device = device();
    let (free, total) = device.memory().unwrap();
    assert!(free <= total && total == device.info().unwrap().total_bytes);
    let held = Buffer::<u8>::zeros(&device, 64 << 20).unwrap();
    assert!(device.memory().unwrap().0 <= free - (64 << 20));
    drop(held);
    let error = Buffer::<u8>::zeros(&device, total as usize + 1).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains(&format!("{} bytes asked for", total + 1)),
        "{text}"
    );
}

#[test]
fn rates_are_measured() {
    let device = device();
    let bytes = if device.info().unwrap().emulated {
        1 << 16
    } else {
        512 << 20
    };
    let rates = measure(&device, bytes).unwrap();
    assert!(rates.copy_bytes_per_second > 0.0 && rates.bf16_flops_per_second > 0.0);
    if !device.info().unwrap().emulated {
        println!("{:?}: {rates:?}", device.info().unwrap());
    }
}

#[test]
fn a_missing_device_says_what_is_missing() {
    let Err(error) = kernels::cuda::Device::open(1000) else {
        panic!("there are not a thousand devices");
    };
    assert!(error.to_string().len() > 20, "{error}");
}

/// The emulator notices what a device would punish: its silence means something.
#[test]
fn the_emulator_is_strict() {
    for (rule, says) in [
        ("barrier_of_some", "a thread"),
        (
            "barriers_in_two_lines",
            "threads wait at different barriers",
        ),
        ("shared_array", "a write beside the shared array"),
        ("buffer", "wrote beside a buffer of 16 bytes"),
        ("tile", "a tile that is not aligned"),
    ] {
        let error = kernels::cuda::run_broken(rule).unwrap_err().to_string();
        assert!(error.contains(says), "{rule}: {error}");
    }
    // Not an error, but what a thread reads too early is garbage.
    let seen = kernels::cuda::run_broken("missing_barrier").unwrap();
    assert_eq!(seen, [7, 0, 0, 0]);
}
