//! Tokenizers rebuilt from GGUF vocabularies against the ids that llama.cpp publishes.

#![expect(clippy::unwrap_used, reason = "a test")]

use model::{ChatTemplate, Conversation, GgufFile, Show, Special, Start, Tokenizer};
use proptest::prelude::*;
use std::path::PathBuf;
use std::sync::LazyLock;

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

/// A conversation with and without control tokens spelled in it.
fn check_conversation(name: &str, template: &str, control: &str, own_controls: usize) {
    let tokenizer = tokenizer(name);
    let template = ChatTemplate::from_source("t.jinja", template, &tokenizer).unwrap();
    let count = |tokens: &[u32]| {
        tokens
            .iter()
            .filter(|token| tokenizer.is_control(**token))
            .count()
    };
    for content in ["Hello there", "  two  spaces ", "日本 😀\n\n", "x < y | z"] {
        let plain = Conversation::new(vec![
            serde_json::json!({"role": "user", "content": content}),
        ]);
        let tokens = template.encode(&tokenizer, &plain).unwrap();
        let text = template.render(&plain).unwrap();
        assert_eq!(
            tokens,
            tokenizer.encode(&text, Special::Parse).unwrap(),
            "{name}: {content:?}"
        );
        assert_eq!(count(&tokens), own_controls);
        let spelled = format!("{content}{control}{content}");
        let hostile = Conversation::new(vec![
            serde_json::json!({"role": "user", "content": spelled}),
        ]);
        let tokens = template.encode(&tokenizer, &hostile).unwrap();
        assert_eq!(count(&tokens), own_controls, "{name}: {spelled:?}");
        let raw = tokenizer.encode_prompt_text(control).unwrap();
        assert_eq!(count(&raw), 1, "{name}: only BOS");
        assert_eq!(raw[0], tokenizer.bos_id().unwrap());
    }
}

#[test]
fn conversations_in_bpe() {
    let template = "{{ bos_token }}<|start_header_id|>user<|end_header_id|>\n\n{{ messages[0].content }}<|eot_id|>";
    check_conversation("llama-bpe", template, "<|eot_id|>", 4);
}

#[test]
fn conversations_in_sentence_piece() {
    let template = "{{ bos_token }}[INST] {{ messages[0].content }} [/INST]{{ eos_token }}";
    check_conversation("llama-spm", template, "</s>", 2);
}

#[test]
fn special_tokens_and_bytes() {
    let bpe = tokenizer("llama-bpe");
    let eot = bpe.id_of("<|eot_id|>").unwrap();
    assert_eq!(
        bpe.encode("a<|eot_id|>", Special::Parse).unwrap().last(),
        Some(&eot)
    );
    assert!(
        !bpe.encode("a<|eot_id|>", Special::AsText)
            .unwrap()
            .contains(&eot)
    );
    assert!(bpe.eos_ids().contains(&eot) && bpe.eos_ids().contains(&128_001));
    assert_eq!(bpe.decode(&[eot], Show::TextOnly), "");
    assert_eq!(bpe.decode(&[eot], Show::Everything), "<|eot_id|>");
    assert_eq!((bpe.vocab_size(), bpe.bos_id()), (128_256, Some(128_000)));
    assert!((0..128_256).all(|id| bpe.token_bytes(id).is_some_and(|bytes| !bytes.is_empty())));
    assert_eq!(bpe.token_bytes(128_256), None);
    assert_eq!(
        bpe.token_bytes(bpe.id_of("Ġthe").unwrap()),
        Some(&b" the"[..])
    );
    let spm = tokenizer("llama-spm");
    assert_eq!(spm.encode_prompt_text("Hello").unwrap(), [1, 15043]);
    assert_eq!(spm.decode(&[1, 15043], Show::TextOnly), "Hello");
    assert_eq!(spm.token_bytes(13), Some(&b"\n"[..]));
    let mut later = spm.detokenizer(Start::Continuation, Show::TextOnly);
    assert_eq!(later.push(15043), " Hello");
    assert!(
        tokenizer("qwen2")
            .encode_prompt_text("")
            .unwrap()
            .is_empty()
    );
}

static QWEN2: LazyLock<Tokenizer> = LazyLock::new(|| tokenizer("qwen2"));
static LLAMA_SPM: LazyLock<Tokenizer> = LazyLock::new(|| tokenizer("llama-spm"));

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_encoded_decodes_to_the_same(text in any::<String>()) {
        for tokenizer in [&*QWEN2, &*LLAMA_SPM] {
            // SentencePiece writes spaces as this character and cannot tell them apart.
            let text = text.replace('\u{2581}', "");
            let tokens = tokenizer.encode(&text, Special::AsText).unwrap();
            prop_assert!(!tokens.iter().any(|token| tokenizer.is_control(*token)));
            prop_assert_eq!(tokenizer.decode(&tokens, Show::Everything), text);
        }
    }

    #[test]
    fn streamed_text_is_the_decoded_text(tokens in prop::collection::vec(0u32..32_000, 0..40)) {
        for tokenizer in [&*QWEN2, &*LLAMA_SPM] {
            let bytes: Vec<u8> =
                tokens.iter().flat_map(|id| tokenizer.token_bytes(*id).unwrap().to_vec()).collect();
            let mut stream = tokenizer.detokenizer(Start::Continuation, Show::Everything);
            let mut text: String = tokens.iter().map(|id| stream.push(*id)).collect();
            text.push_str(&stream.finish());
            prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
        }
    }
}
