//! Tokenizers rebuilt from GGUF vocabularies against the ids that llama.cpp publishes.

#![expect(clippy::unwrap_used, reason = "a test")]

use model::{GgufFile, Show, Special, Tokenizer};
use std::path::PathBuf;

const SEPARATOR: &str = "\n__ggml_vocab_test__\n";

fn folder() -> PathBuf {
    let shared = std::env::var_os("AUTODIDACT_SHARED").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared")),
        PathBuf::from,
    );
    let folder = shared.join("data/tokenizer_vectors");
    assert!(
        folder.is_dir(),
        "{} is missing: set AUTODIDACT_SHARED to the folder with the golden data",
        folder.display()
    );
    folder
}

fn tokenizer(name: &str) -> Tokenizer {
    let file = GgufFile::open(folder().join(format!("ggml-vocab-{name}.gguf"))).unwrap();
    Tokenizer::from_gguf(&file).unwrap()
}

fn vectors(name: &str) -> Vec<(String, Vec<u32>)> {
    let read = |extension: &str| {
        std::fs::read_to_string(folder().join(format!("ggml-vocab-{name}.gguf.{extension}")))
            .unwrap()
    };
    let texts: Vec<String> = read("inp")
        .trim_end_matches(SEPARATOR)
        .split(SEPARATOR)
        .map(str::to_owned)
        .collect();
    let ids: Vec<Vec<u32>> = read("out")
        .lines()
        .map(|line| {
            line.split_whitespace()
                .map(|id| id.parse().unwrap())
                .collect()
        })
        .collect();
    assert_eq!(
        texts.len(),
        ids.len(),
        "{name}: as many texts as lines of ids"
    );
    texts.into_iter().zip(ids).collect()
}

fn check(name: &str) {
    let tokenizer = tokenizer(name);
    let vectors = vectors(name);
    assert!(
        vectors.len() >= 40,
        "{name}: only {} vectors",
        vectors.len()
    );
    let mut wrong = Vec::new();
    for (text, expected) in &vectors {
        let got = tokenizer.encode(text, Special::AsText).unwrap();
        if got != *expected {
            wrong.push(format!(
                "{text:?}\n  expected {expected:?}\n  got      {got:?}"
            ));
        }
        assert_eq!(
            tokenizer.decode(&got, Show::Everything),
            *text,
            "{name}: decoding"
        );
    }
    assert!(
        wrong.is_empty(),
        "{name}: {} of {} differ\n{}",
        wrong.len(),
        vectors.len(),
        wrong.join("\n")
    );
}

#[test]
fn llama_bpe() {
    check("llama-bpe");
}

#[test]
fn llama_spm() {
    check("llama-spm");
}

#[test]
fn qwen2() {
    check("qwen2");
}

#[test]
fn deepseek_llm() {
    check("deepseek-llm");
}
