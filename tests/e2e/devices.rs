//! Where models compute: replicas, shapes, and what is said where there is no GPU.

use crate::harness::Place;

fn rows() -> String {
    (0..12)
        .map(|row| format!("{{\"id\":\"{row}\",\"prompt\":\"Where is lamp {row}?\"}}\n"))
        .collect()
}

#[test]
fn two_replicas_answer_as_one() {
    let place = Place::new();
    place.write("in.jsonl", rows());
    let answers = |devices: &[&str], out: &str| {
        let args = ["generate", "-i", "in.jsonl", "-o", out, "--seed", "5"];
        let rest = ["--max-tokens", "12"];
        place.good(&[&args[..], &rest, devices].concat());
        place.read(out)
    };
    let one = answers(&["--device", "cpu"], "one.jsonl");
    assert_eq!(one.lines().count(), 12);
    assert_eq!(answers(&["--devices", "cpu,cpu"], "two.jsonl"), one);
    let three = ["--set", "engine.devices=cpu,cpu,cpu"];
    assert_eq!(answers(&three, "three.jsonl"), one);
}

#[test]
fn devices_that_are_none() {
    let place = Place::new();
    for (devices, words) in [
        (["--device", "gpu"], "cuda:N"),
        (["--devices", "cpu,cuda:0"], "replicas of one model"),
        (["--devices", "cuda:0,cuda:0"], "named twice"),
        (["--devices", "metal,metal"], "none of metal"),
    ] {
        let args = [&["generate", "-p", "x"][..], &devices].concat();
        let ended = place.run(&args);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains(words), "{}", ended.stderr);
    }
    let both = place.run(&["generate", "-p", "x", "--device", "cpu", "--devices", "cpu"]);
    assert_eq!(both.code, Some(2), "{both:?}");
    let bf16 = place.run(&["generate", "-p", "x", "--kv-type", "bf16"]);
    assert!(bf16.stderr.contains("only on a GPU"), "{}", bf16.stderr);
}

#[cfg(not(feature = "cuda"))]
#[test]
fn a_gpu_is_refused_by_a_program_without_cuda() {
    let place = Place::new();
    let training = ["bench", "train", "--shape", "tiny", "--tokens", "8"];
    for command in [&["generate", "-p", "x"][..], &training] {
        let ended = place.run(&[command, &["--device", "cuda:1"]].concat());
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains("cuda:1"), "{}", ended.stderr);
        assert!(ended.stderr.contains("cuda-build"), "{}", ended.stderr);
    }
    let doctor = place.json(&["doctor", "--json"]);
    assert_eq!(doctor["gpus"], serde_json::json!([]));
    let why = doctor["no_gpu_because"].as_str().unwrap();
    assert!(why.contains("without CUDA"), "{why}");
}

#[cfg(not(feature = "metal"))]
#[test]
fn metal_is_refused_by_a_program_without_it() {
    let place = Place::new();
    let ended = place.run(&["generate", "-p", "x", "--device", "metal"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    let words = "--device metal: no Metal device";
    assert!(ended.stderr.contains(words), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("--features metal"),
        "{}",
        ended.stderr
    );
    let doctor = place.json(&["doctor", "--json"]);
    let why = doctor["no_metal_because"].as_str().unwrap();
    assert!(why.contains("--features metal"), "{why}");
}

#[test]
fn doctor_says_what_a_shape_would_take() {
    let place = Place::new();
    let json = place.json(&["doctor", "--json", "--shape", "llama-3.1-8b"]);
    assert_eq!(json["models"][0]["size_bytes"], 16_059_990_016_u64);
    let unknown = place.run(&["doctor", "--shape", "llama-9b"]);
    assert_eq!(unknown.code, Some(2));
    assert!(
        unknown.stderr.contains("llama-3.1-8b"),
        "{}",
        unknown.stderr
    );
}

#[test]
fn random_weights_are_measured_in_every_format() {
    let place = Place::new();
    for quant in [&[][..], &["--quant", "q8_0"], &["--quant", "q4_k"]] {
        let args = [
            "bench",
            "engine",
            "--shape",
            "tiny",
            "--rows",
            "2",
            "--prompt-tokens",
            "9,17",
            "--new-tokens",
            "3",
            "--repeat",
            "1",
            "--json",
            "--devices",
            "cpu,cpu",
        ];
        let json = place.json(&[&args[..], quant].concat());
        assert_eq!(json["model"], "shape:tiny");
        let measured = json["measurements"].as_array().unwrap();
        let contexts: Vec<_> = measured.iter().map(|one| &one["context"]).collect();
        assert_eq!(contexts, [9, 10, 17, 18]);
        for one in measured {
            assert!(one["share_of_limit"].as_f64().unwrap() > 0.0, "{one}");
        }
        assert!(json["product_flops"].as_f64().unwrap() > 1e6);
    }
}

#[test]
fn training_on_random_tokens_is_measured() {
    let place = Place::new();
    let args = [
        "bench", "train", "--shape", "tiny", "--tokens", "48", "--rank", "4",
    ];
    let json = place.json(&[&args[..], &["--steps", "2", "--json"]].concat());
    assert_eq!(json["step_tokens"].as_f64().unwrap().round(), 48.0);
    assert_eq!(
        (json["rank"].as_u64(), json["steps"].as_u64()),
        (Some(4), Some(2))
    );
    assert!(json["share_of_limit"].as_f64().unwrap() > 0.0, "{json}");
    assert!(json["device_peak_bytes"].is_null(), "{json}");
    let two = place.run(&[&args[..], &["--devices", "cpu,cpu"]].concat());
    assert_eq!(two.code, Some(2), "{two:?}");
    assert!(two.stderr.contains("one device"), "{}", two.stderr);
}

#[test]
fn a_whole_job_is_measured() {
    let args = [
        "bench",
        "engine",
        "--shape",
        "tiny",
        "--context",
        "96",
        "--mix",
        "ultraif",
        "--instructions",
        "2",
        "--json",
    ];
    let json = Place::new().json(&args);
    let measured = json["measurements"].as_array().unwrap();
    assert_eq!(measured.len(), 1);
    assert_eq!(measured[0]["phase"], "mix");
    assert_eq!(measured[0]["rows"], 10);
    assert!(measured[0]["tok_per_s"].as_f64().unwrap() > 0.0);
    let order = [
        "bench",
        "synth",
        "--shape",
        "tiny",
        "--seeds",
        "1",
        "--scale",
        "0.02",
        "--steps",
        "none,early-stop",
        "--json",
    ];
    let json = Place::new().json(&order);
    assert_eq!(json["measurements"].as_array().unwrap().len(), 2);
}

#[test]
fn prompts_are_cut_to_the_context() {
    let args = [
        "bench",
        "engine",
        "-m",
        "embedded",
        "--rows",
        "1",
        "--new-tokens",
        "2",
        "--repeat",
        "1",
        "--json",
    ];
    let ended = Place::new().good(&args);
    let json: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(json["measurements"][0]["context"], 382);
    assert!(ended.stderr.contains("382 are used"), "{}", ended.stderr);
}
