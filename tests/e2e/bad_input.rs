//! What goes wrong, with which exit code, and what the user is told.

use crate::harness::{Finished, Place, tiny_gguf};

/// Runs in a place with some bad files and compares code and message.
fn check(args: &[&str], code: i32, expected: &[&str]) {
    let place = Place::new();
    place.write("bad.jsonl", "{\n7\n[]\n");
    place.write("empty.jsonl", "\n\n");
    place.write("bad.json", "{");
    place.write("empty.json", "[]");
    place.write(
        "raises.jinja",
        "{{ raise_exception('roles must alternate') }}",
    );
    place.write("broken.jinja", "{% if %}");
    place.write("bad.lark", "start: missing_rule");
    let whole = std::fs::read(tiny_gguf()).unwrap();
    place.write("truncated.gguf", &whole[..whole.len() / 2]);
    place.write("header.gguf", &whole[..1000]);
    place.write("text.gguf", "this is no model");
    let snapshot = "hub/models--org--name/snapshots/abc123";
    place.write("hub/models--org--name/refs/main", "abc123");
    place.write(&format!("{snapshot}/config.json"), "{}");
    let index = r#"{"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"}}"#;
    place.write(&format!("{snapshot}/model.safetensors.index.json"), index);
    std::fs::create_dir(place.path("folder")).unwrap();
    let output = place
        .command(args)
        .env("HF_HUB_CACHE", place.path("hub"))
        .output()
        .unwrap();
    let finished = Finished::of(output);
    assert_eq!(finished.code, Some(code), "{args:?}: {finished:?}");
    assert_eq!(finished.stdout, "", "{args:?}: an error is no result");
    for part in expected {
        assert!(
            finished.stderr.contains(part),
            "{args:?}: {part:?} is not in {}",
            finished.stderr
        );
    }
    assert!(
        !finished.stderr.contains("panicked"),
        "{args:?}: {}",
        finished.stderr
    );
}

macro_rules! cases {
    ($($name:ident: $args:expr, $code:expr, $expected:expr;)*) => {$(
        #[test]
        fn $name() {
            check(&$args, $code, &$expected);
        }
    )*};
}

cases! {
    no_command: [], 2, ["Usage"];
    unknown_flag: ["generate", "--temprature", "1"], 2, ["--temperature"];
    zero_samples: ["generate", "-p", "x", "-n", "0"], 2, ["at least one"];
    absurdly_many_samples: ["generate", "-p", "x", "-n", "18446744073709551615"], 2, ["at most 65536"];
    negative_temperature: ["generate", "-p", "x", "--temperature", "-1"], 2, ["temperature = -1", "at least 0"];
    infinite_temperature: ["generate", "-p", "x", "--temperature", "inf"], 2, ["temperature"];
    top_p_above_one: ["generate", "-p", "x", "--top-p", "1.5"], 2, ["top_p = 1.5"];
    no_number: ["generate", "-p", "x", "--top-k", "many"], 2, ["many", "--top-k"];
    bad_bias: ["generate", "-p", "x", "--logit-bias", "7"], 2, ["ID=BIAS"];
    bias_out_of_vocabulary: ["generate", "-p", "x", "--logit-bias", "99999=1"], 2, ["99999"];
    stop_token_out_of_vocabulary: ["generate", "-p", "x", "--stop-token-id", "99999"], 2, ["99999"];
    zero_threads: ["generate", "-p", "x", "--threads", "0"], 2, ["engine.threads", "at least 1"];
    zero_tokens: ["generate", "-p", "x", "--max-tokens", "0"], 2, ["sampling.max_tokens", "at least 1"];
    zero_block: ["generate", "-p", "x", "--block-size", "0"], 2, ["engine.block_size"];
    two_sources: ["generate", "-p", "x", "--input", "bad.jsonl"], 2, ["cannot be used with"];
    two_grammars: ["generate", "-p", "x", "--regex", "a", "--choice", "b"], 2, ["cannot be used with"];
    special_without_raw: ["generate", "-p", "x", "--special"], 2, ["--raw"];
    logprobs_without_json: ["generate", "-p", "x", "--logprobs", "1"], 2, ["--json"];
    bad_set: ["config", "show", "--set", "x"], 2, ["KEY=VALUE"];
    unknown_key: ["config", "show", "--set", "sampling.tempertaure=1"], 2, ["--set", "did you mean `sampling.temperature`?"];
    unknown_config_file: ["config", "show", "--config", "none.toml"], 2, ["cannot read none.toml"];
    broken_config_file: ["config", "show", "--config", "bad.json"], 2, ["bad.json", "TOML"];
    bad_date: ["generate", "-p", "x", "--date", "2026-02-30"], 2, ["2026-02-30"];
    context_above_the_models: ["generate", "-p", "x", "--context", "4096"], 2, ["2048"];
    bad_regex: ["generate", "-p", "x", "--regex", "("], 2, ["grammar"];
    bad_grammar: ["generate", "-p", "x", "--grammar", "bad.lark"], 2, ["grammar"];
    unknown_shell: ["completions", "tcsh"], 2, ["tcsh"];
    output_is_a_folder: ["generate", "-i", "bad.jsonl", "-o", "folder"], 2, ["it is a folder"];
    tokenizer_of_another_name: ["generate", "-p", "x", "--tokenizer", "bad.json", "--dry-run"], 2, ["tokenizer.json"];
    empty_choice_to_score: ["score", "-p", "x", "--choice", ""], 2, ["--choice"];
    nothing_to_score: ["score", "-p", "x"], 2, ["--choice"];
    one_new_token: ["bench", "engine", "--new-tokens", "1"], 2, ["--new-tokens"];

    output_in_no_folder: ["generate", "-i", "good.jsonl", "-o", "no/such/out"], 5, ["good.jsonl"];
    missing_file: ["generate", "-m", "nothing.gguf", "-p", "x"], 5, ["nothing.gguf"];
    missing_folder: ["generate", "-m", "./nothing", "-p", "x"], 5, ["./nothing"];
    missing_id: ["generate", "-m", "org/other", "-p", "x"], 5, ["models--org--other", "hf download org/other"];
    missing_name: ["generate", "-m", "nobody", "-p", "x"], 5, ["nobody", "alias"];
    missing_shards: ["generate", "-m", "org/name", "-p", "x"], 5, ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "hf download org/name"];
    empty_folder: ["generate", "-m", "folder", "-p", "x"], 5, ["folder", "config.json"];
    truncated_model: ["generate", "-m", "truncated.gguf", "-p", "x"], 5, ["truncated.gguf", "truncated"];
    truncated_header: ["generate", "-m", "header.gguf", "-p", "x"], 5, ["header.gguf", "truncated"];
    no_model: ["generate", "-m", "text.gguf", "-p", "x"], 1, ["text.gguf"];
    missing_adapter: ["generate", "-p", "x", "--adapter", "no/adapter"], 5, ["no/adapter"];
    missing_template: ["generate", "-p", "x", "--chat-template", "no.jinja"], 5, ["no.jinja"];
    missing_input: ["generate", "--input", "no.jsonl"], 5, ["no.jsonl"];
    missing_messages: ["generate", "--messages", "no.json"], 5, ["no.json"];
    missing_schema: ["generate", "-p", "x", "--json-schema", "no.json"], 5, ["no.json"];

    empty_stdin: ["generate"], 4, ["empty"];
    no_usable_row: ["generate", "-i", "bad.jsonl", "-o", "out.jsonl"], 4, ["line 1: not JSON", "none of its 3 rows"];
    no_row: ["generate", "-i", "empty.jsonl"], 4, ["none of its 0 rows"];
    input_is_a_folder: ["generate", "-i", "folder"], 4, ["it is a folder"];
    broken_messages: ["generate", "--messages", "bad.json"], 4, ["bad.json", "not valid JSON"];
    empty_messages: ["generate", "--messages", "empty.json"], 4, ["empty"];
    broken_schema: ["generate", "-p", "x", "--json-schema", "bad.json"], 4, ["bad.json", "not valid JSON"];
    template_raises: ["generate", "-p", "x", "--chat-template", "raises.jinja"], 4, ["roles must alternate"];
    broken_template: ["generate", "-p", "x", "--chat-template", "broken.jinja"], 1, ["broken.jinja"];
    prompt_longer_than_the_context: ["generate", "-p", "Where is the lamp?", "--context", "8"], 4, ["the prompt has 13 tokens", "holds 8"];
    answer_longer_than_the_context: ["generate", "-p", "Hello!", "--max-tokens", "5000"], 4, ["2048"];

    pool_larger_than_memory: ["generate", "-p", "x", "--kv-tokens", "4000000000"], 6, ["--kv-tokens"];
    benchmark_larger_than_memory: ["bench", "engine", "--rows", "18446744073709551615"], 6, ["memory"];
    block_larger_than_memory: ["generate", "-p", "x", "--block-size", "4294967295"], 6, ["memory"];
    pool_smaller_than_the_prompt: ["generate", "-p", "Where is the lamp?", "--kv-tokens", "8", "--block-size", "8"], 6, ["--kv-tokens"];
}

#[cfg(unix)]
#[test]
fn unreadable_files() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let input = place.write("secret/in.jsonl", "\"x\"\n");
    let lock = |mode| {
        std::fs::set_permissions(place.path("secret"), std::fs::Permissions::from_mode(mode))
            .unwrap()
    };
    lock(0o000);
    if std::fs::read(&input).is_ok() {
        eprintln!("skipped: this user may read everything");
        lock(0o700);
        return;
    }
    let finished = place.run(&["generate", "-i", "secret/in.jsonl"]);
    let unwritable = place.run(&[
        "generate",
        "-i",
        "secret/in.jsonl",
        "-o",
        "secret/out.jsonl",
    ]);
    lock(0o700);
    assert_eq!(finished.code, Some(4), "{finished:?}");
    assert!(
        finished.stderr.contains("secret/in.jsonl"),
        "{}",
        finished.stderr
    );
    assert_ne!(unwritable.code, Some(0), "{unwritable:?}");
}

#[test]
fn an_unwritable_output_fails_before_the_model_is_looked_at() {
    let place = Place::new();
    place.write("in.jsonl", "\"Hello!\"\n");
    let finished = place.run(&["generate", "-i", "in.jsonl", "-o", "no/such/out.jsonl"]);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(
        finished.stderr.contains("cannot write no/such/out.jsonl"),
        "{}",
        finished.stderr
    );
}
