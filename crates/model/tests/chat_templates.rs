//! Chat templates against renderings made by transformers.

#![expect(clippy::unwrap_used, reason = "a test")]

use model::{ChatTemplate, Conversation, ModelError, Tokenizer};
use serde_json::{Value, json};
use std::path::PathBuf;

fn golden_folder() -> PathBuf {
    let shared = std::env::var_os("AUTODIDACT_SHARED").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared")),
        PathBuf::from,
    );
    let folder = shared.join("data/chat_templates");
    assert!(
        folder.is_dir(),
        "{} is missing: set AUTODIDACT_SHARED to the folder with the golden data",
        folder.display()
    );
    folder
}

/// A byte-level tokenizer of single bytes, with the given control tokens and names.
pub fn tokenizer(controls: &[&str], config: &Value) -> Tokenizer {
    let folder = tempfile::tempdir().unwrap();
    let alphabet = (0..=255u8).map(|byte| {
        let printable = matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
        let shift = (0..byte)
            .filter(|b| !matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF))
            .count();
        let code = if printable {
            u32::from(byte)
        } else {
            0x100 + u32::try_from(shift).unwrap()
        };
        (char::from_u32(code).unwrap().to_string(), json!(byte))
    });
    let added: Vec<Value> = controls
        .iter()
        .zip(256..)
        .map(|(text, id)| {
            json!({"id": id, "content": text, "special": true, "normalized": false,
                   "single_word": false, "lstrip": false, "rstrip": false})
        })
        .collect();
    let vocab: serde_json::Map<String, Value> = alphabet.collect();
    let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": true});
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": null, "pre_tokenizer": level, "post_processor": null, "decoder": level,
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    });
    std::fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    std::fs::write(
        folder.path().join("tokenizer_config.json"),
        config.to_string(),
    )
    .unwrap();
    Tokenizer::from_folder(folder.path()).unwrap()
}

fn template(source: &str) -> ChatTemplate {
    let tokenizer = tokenizer(&[], &json!({"bos_token": "<s>", "eos_token": "</s>"}));
    ChatTemplate::from_source("t.jinja", source, &tokenizer).unwrap()
}

fn render(source: &str) -> Result<String, ModelError> {
    template(source).render(&Conversation::new(vec![
        json!({"role": "user", "content": "hi"}),
    ]))
}

#[test]
fn every_golden_rendering() {
    let folder = golden_folder();
    let rows = std::fs::read_to_string(folder.join("golden.jsonl")).unwrap();
    let mut wrong = Vec::new();
    for line in rows.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let name = row["template"].as_str().unwrap();
        let tokens = json!({"bos_token": row["bos_token"], "eos_token": row["eos_token"]});
        let path = folder.join(format!("{name}.jinja"));
        let template = ChatTemplate::from_file(path, &tokenizer(&[], &tokens)).unwrap();
        let mut conversation = Conversation::new(row["messages"].as_array().unwrap().clone());
        conversation.add_generation_prompt = row["add_generation_prompt"].as_bool().unwrap();
        conversation.date = row["now"].as_str().unwrap().parse().unwrap();
        conversation
            .variables
            .insert("date_string".into(), row["date_string"].clone());
        let got = template.render(&conversation);
        let same = match (&got, row["rendered"].as_str()) {
            (Ok(got), Some(expected)) => got == expected,
            (Err(_), None) => true,
            _ => false,
        };
        if !same {
            wrong.push(format!(
                "{name} {}: {got:?}\nexpected {}",
                row["case"], row["rendered"]
            ));
        }
    }
    assert!(rows.lines().count() >= 132);
    assert!(
        wrong.is_empty(),
        "{} differ\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
