//! `generate` on one prompt.

use crate::harness::{Place, tiny_gguf};
use serde_json::Value;

const LAMP: &str = "Where is the lamp?";
/// Five tokens: a, b, ab and brackets.
const TOKENIZER: &str = r#"{"version":"1.0","added_tokens":[],"normalizer":null,
    "pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true},
    "post_processor":null,"decoder":{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true},
    "model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2,"[":3,"]":4},"merges":["a b"]}}"#;
const GREEDY: [&str; 2] = ["--temperature", "0"];

fn args<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["generate", "-p", LAMP][..], &GREEDY, more].concat()
}

#[test]
fn the_tiny_model_knows_its_sentences() {
    let finished = Place::new().good(&args(&[]));
    assert_eq!(finished.stdout, "The lamp is beside the piano.\n");
    assert!(finished.stderr.contains("13 + "), "{}", finished.stderr);
    assert!(finished.stderr.contains("tok/s"), "{}", finished.stderr);
}

#[test]
fn a_file_and_a_piped_prompt_give_the_same() {
    let place = Place::new();
    let model = tiny_gguf();
    let finished = place.run_with_input(
        &[
            "generate",
            "-m",
            model.to_str().unwrap(),
            "--temperature",
            "0",
        ],
        &format!("{LAMP}\n"),
    );
    assert_eq!(
        finished.stdout, "The lamp is beside the piano.\n",
        "{finished:?}"
    );
}

#[test]
fn threads_and_sizes_do_not_change_the_text() {
    let place = Place::new();
    let sampled = [
        "generate",
        "-p",
        "Write a sentence about the sea.",
        "--seed",
        "5",
        "--max-tokens",
        "40",
    ];
    let expected = place.good(&sampled).stdout;
    for more in [
        &["--threads", "1"][..],
        &["--max-batch-tokens", "3"],
        &["--block-size", "4", "--kv-tokens", "256"],
        &["--context", "300"],
        &["--set", "sampling.temperature=1"],
    ] {
        assert_eq!(
            place.good(&[&sampled[..], more].concat()).stdout,
            expected,
            "{more:?}"
        );
    }
}

#[test]
fn seeds_decide() {
    let place = Place::new();
    let text = |seed: &str| {
        let args = [
            "generate",
            "-p",
            "Hello!",
            "--temperature",
            "2",
            "--max-tokens",
            "24",
            "--seed",
            seed,
        ];
        place.good(&args).stdout
    };
    assert_eq!(text("1"), text("1"));
    assert_ne!(text("1"), text("2"));
}

#[test]
fn samples_come_in_order_and_the_first_is_the_single_one() {
    let place = Place::new();
    let base = [
        "generate",
        "-p",
        "Hello!",
        "--temperature",
        "1.5",
        "--max-tokens",
        "16",
        "--json",
    ];
    let three = place.json(&[&base[..], &["-n", "3"]].concat());
    let one = place.json(&base);
    let texts = |value: &Value| -> Vec<String> {
        let list = value["completions"].as_array().unwrap().iter();
        list.map(|one| one["text"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(three["schema_version"], 1);
    assert_eq!(texts(&three).len(), 3);
    assert_eq!(texts(&three)[0], texts(&one)[0]);
    assert_ne!(texts(&three)[0], texts(&three)[1]);
    let plain = place
        .good(&[&base[..base.len() - 1], &["-n", "2"]].concat())
        .stdout;
    assert!(
        plain.starts_with("[1/2]\n") && plain.contains("\n[2/2]\n"),
        "{plain}"
    );
}

#[test]
fn grammars_hold() {
    let place = Place::new();
    let text = |more: &[&str]| {
        let finished = place.good(
            &[
                &[
                    "generate",
                    "-p",
                    LAMP,
                    "--temperature",
                    "2",
                    "--max-tokens",
                    "60",
                ],
                more,
            ]
            .concat(),
        );
        finished.stdout.trim_end().to_owned()
    };
    let choice = text(&["--choice", "yes", "--choice", "no"]);
    assert!(["yes", "no"].contains(&choice.as_str()), "{choice}");
    let number = text(&["--regex", "[0-9]{3}"]);
    assert!(
        number.len() == 3 && number.bytes().all(|byte| byte.is_ascii_digit()),
        "{number}"
    );
    let schema = r#"{"type":"object","properties":{"ok":{"type":"boolean"}},"required":["ok"],"additionalProperties":false}"#;
    let path = place.write("schema.json", schema);
    let json: Value =
        serde_json::from_str(&text(&["--json-schema", path.to_str().unwrap()])).unwrap();
    assert!(json["ok"].is_boolean(), "{json}");
    let lark = place.write("g.lark", "start: \"<\" (\"a\" | \"b\") \">\"");
    let lark = text(&["--grammar", lark.to_str().unwrap()]);
    assert!(["<a>", "<b>"].contains(&lark.as_str()), "{lark}");
}

#[test]
fn stops_and_limits() {
    let place = Place::new();
    assert_eq!(
        place.good(&args(&["--stop", " beside"])).stdout,
        "The lamp is\n"
    );
    let cut = place.good(&args(&["--max-tokens", "2"]));
    assert!(
        "The lamp is beside".starts_with(cut.stdout.trim_end()),
        "{}",
        cut.stdout
    );
    assert!(
        cut.stderr.contains("cut by the token limit"),
        "{}",
        cut.stderr
    );
    let json = place.json(&args(&["--ignore-eos", "--max-tokens", "30", "--json"]));
    assert_eq!(json["completions"][0]["usage"]["completion_tokens"], 30);
    assert_eq!(json["completions"][0]["finish_reason"], "length");
}

#[test]
fn log_probabilities() {
    let json = Place::new().json(&args(&["--logprobs", "3", "--prompt-logprobs", "--json"]));
    let one = &json["completions"][0];
    let logprobs = one["logprobs"].as_array().unwrap();
    assert_eq!(logprobs.len(), one["tokens"].as_array().unwrap().len());
    assert_eq!(one["prompt_logprobs"].as_array().unwrap().len(), 12);
    for token in logprobs {
        assert_eq!(token["top"].as_array().unwrap().len(), 3);
        assert_eq!(
            token["top"][0][0], token["token"],
            "greedy takes the likeliest"
        );
        assert_eq!(token["top"][0][1], token["logprob"]);
    }
}

#[test]
fn biases_and_penalties_reach_the_sampler() {
    let place = Place::new();
    let first = place.json(&args(&["--json"]))["completions"][0]["tokens"][0].clone();
    let bias = format!("{first}=-inf");
    let other = place.json(&args(&["--json", "--logit-bias", &bias]))["completions"][0]["tokens"]
        [0]
    .clone();
    assert_ne!(first, other);
    let plain = place
        .good(&["generate", "-p", "List four fruits.", "--temperature", "0"])
        .stdout;
    let args = [
        "generate",
        "-p",
        "List four fruits.",
        "--temperature",
        "0",
        "--presence-penalty",
        "50",
    ];
    assert_ne!(
        plain,
        place
            .good(&[&args[..], &["--max-tokens", "40"]].concat())
            .stdout
    );
}

#[test]
fn a_dry_run_shows_the_tokens() {
    let place = Place::new();
    let json = place.json(&[
        "generate",
        "-p",
        LAMP,
        "--system",
        "Be brief.",
        "--dry-run",
        "--json",
    ]);
    let prompt = "<|start|>system\nBe brief.<|end|>\n<|start|>user\nWhere is the lamp?<|end|>\n<|start|>assistant\n";
    assert_eq!(json["prompt"], prompt);
    let tokens = json["token_ids"].as_array().unwrap();
    assert_eq!(
        (json["num_tokens"].as_u64(), tokens.len()),
        (Some(tokens.len() as u64), tokens.len())
    );
    assert_eq!(
        tokens.iter().filter(|token| **token == 1).count(),
        3,
        "three turns begin"
    );
}

#[test]
fn a_dry_run_loads_no_weights() {
    let place = Place::new();
    let tokenizer = Place::new();
    let file = tokenizer.write("tokenizer.json", TOKENIZER);
    let template = tokenizer.write("t.jinja", "[{{ messages[0].content }}{{ x }}]");
    let files = [
        "--tokenizer",
        file.to_str().unwrap(),
        "--chat-template",
        template.to_str().unwrap(),
    ];
    let dry = [
        "generate",
        "-m",
        "no/such-model",
        "-p",
        "ab",
        "--dry-run",
        "--json",
        "--template-var",
        "x=b",
    ];
    let json = place.json(&[&dry[..], &files].concat());
    assert_eq!(json["prompt"], "[abb]");
    assert_eq!(json["token_ids"], serde_json::json!([3, 2, 1, 4]));
}

#[test]
fn a_model_folder_without_a_tokenizer_takes_one() {
    let place = Place::new();
    let fixture =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures/llama3_1");
    let model = fixture.to_str().unwrap();
    let described = place.json(&["models", "show", model, "--json"]);
    assert!(
        described["text_problem"]
            .as_str()
            .unwrap()
            .contains("tokenizer.json"),
        "{described}"
    );
    let file = place.write("tokenizer.json", TOKENIZER);
    let own = ["--tokenizer", file.to_str().unwrap()];
    let base = [
        "generate",
        "-m",
        model,
        "--raw",
        "-p",
        "ab",
        "--temperature",
        "0",
        "--json",
        "--prompt-logprobs",
    ];
    let base = [&base[..], &["--ignore-eos", "--max-tokens", "4"], &own].concat();
    let plain = place.json(&base);
    assert_eq!(plain["completions"][0]["usage"]["completion_tokens"], 4);
    let adapter = fixture.join("adapter");
    let adapted = place.json(
        &[
            &base[..],
            &["--adapter", adapter.to_str().unwrap(), "--logprobs", "1"],
        ]
        .concat(),
    );
    let unadapted = place.json(&[&base[..], &["--logprobs", "1"]].concat());
    assert_ne!(
        adapted["completions"][0]["logprobs"],
        unadapted["completions"][0]["logprobs"]
    );
}

#[test]
fn control_tokens_in_a_prompt_are_text_unless_asked_for() {
    let place = Place::new();
    let tokens = |more: &[&str]| {
        let dry = ["generate", "--dry-run", "--json", "-p", "<|start|>x"];
        place.json(&[&dry[..], more].concat())["token_ids"]
            .as_array()
            .unwrap()
            .clone()
    };
    assert_eq!(tokens(&["--raw", "--special"])[0], 1);
    assert!(!tokens(&["--raw"]).contains(&1.into()));
    assert_eq!(
        tokens(&[]).iter().filter(|token| **token == 1).count(),
        2,
        "the template's own"
    );
}

#[test]
fn conversations_from_a_file() {
    let place = Place::new();
    let messages = r#"[{"role":"user","content":"Hello!"},{"role":"assistant","content":"Hello."},{"role":"user","content":"Where is the lamp?"}]"#;
    let path = place.write("m.json", messages);
    let piped = place.run_with_input(
        &["generate", "--messages", "-", "--temperature", "0"],
        messages,
    );
    let read = place.good(&[
        "generate",
        "--messages",
        path.to_str().unwrap(),
        "--temperature",
        "0",
    ]);
    assert_eq!(read.stdout, piped.stdout);
    assert!(read.stderr.contains(" + "), "{}", read.stderr);
}

#[test]
fn configuration_reaches_generation() {
    let place = Place::new();
    place.write(
        "autodidact.toml",
        "model = \"toy\"\n[sampling]\ntemperature = 0\n[aliases]\ntoy = \"tiny.gguf\"\n",
    );
    assert_eq!(
        place.good(&["generate", "-p", LAMP]).stdout,
        "The lamp is beside the piano.\n"
    );
}
