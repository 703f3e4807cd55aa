//! `chat` by standard input.

use crate::harness::{Place, tiny_gguf};

#[test]
fn turns_line_by_line() {
    let place = Place::new();
    let args = ["chat", "--temperature", "0"];
    let finished = place.run_with_input(
        &args,
        "Where is the lamp?\n\n/reset\nWhere is the clock?\n/exit\nHello!\n",
    );
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert_eq!(
        finished.stdout,
        "The lamp is beside the piano.\nThe clock is on the station wall.\n"
    );
    assert_eq!(finished.stderr, "", "nobody watches");
}

#[test]
fn the_history_is_read() {
    let place = Place::new();
    let args = ["chat", "--temperature", "0", "--context", "40"];
    let finished = place.run_with_input(
        &args,
        "Where is the lamp?\nWhere is the lamp?\nWhere is the lamp?\n",
    );
    assert_eq!(
        finished.code,
        Some(4),
        "the third turn does not fit: {finished:?}"
    );
    assert!(
        finished.stderr.contains("the context holds 40"),
        "{}",
        finished.stderr
    );
}

#[test]
fn a_model_without_a_template_completes_but_does_not_chat() {
    let place = Place::new();
    let mut bytes = std::fs::read(tiny_gguf()).unwrap();
    let key = b"tokenizer.chat_template";
    let at = bytes
        .windows(key.len())
        .position(|window| window == key)
        .unwrap();
    bytes[at + key.len() - 1] = b'_';
    place.write("base.gguf", bytes);
    place.write("in.jsonl", "\"Hello!\"\n");
    let model = ["-m", "base.gguf"];
    for args in [
        &["chat"][..],
        &["generate", "-p", "x"],
        &["generate", "-i", "in.jsonl"],
        &["score", "-p", "x", "--choice", "a"],
    ] {
        let finished = place.run_with_input(&[args, &model].concat(), "Hello!\n");
        assert_eq!(finished.code, Some(2), "{args:?}: {finished:?}");
        assert!(
            finished.stderr.contains("--chat-template"),
            "{args:?}: {}",
            finished.stderr
        );
    }
    place.good(&[
        "generate",
        "--raw",
        "-p",
        "The lamp",
        "--max-tokens",
        "4",
        "-m",
        "base.gguf",
    ]);
}

#[test]
fn a_template_that_refuses_is_heard() {
    let place = Place::new();
    let raises = place.write("raises.jinja", "{{ raise_exception('only questions') }}");
    let args = ["chat", "--chat-template", raises.to_str().unwrap()];
    let finished = place.run_with_input(&args, "Hello!\n");
    assert_eq!(finished.code, Some(4), "{finished:?}");
    assert!(
        finished.stderr.contains("only questions"),
        "{}",
        finished.stderr
    );
}
