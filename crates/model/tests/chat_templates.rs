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
fn tokenizer(controls: &[&str], config: &Value) -> Tokenizer {
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

#[test]
fn values_print_as_in_python() {
    let check =
        |source: &str, expected: &str| assert_eq!(render(source).unwrap(), expected, "{source}");
    check(
        "{{ ['a', \"it's\", 1.5, none, true, {'k': [1]}] }}",
        "['a', \"it's\", 1.5, None, True, {'k': [1]}]",
    );
    check(
        "{{ 1e16 }} {{ 0.1 + 0.2 }} {{ 4 / 2 }} {{ 7 // 2 }}",
        "1e+16 0.30000000000000004 2.0 3",
    );
    check(
        "{{ {'b': [1, {}], 'a': 'é\\n'} | tojson }}",
        r#"{"b": [1, {}], "a": "é\n"}"#,
    );
    check(
        "{{ {'b': 1, 'a': 'é'} | tojson(ensure_ascii=true, sort_keys=true) }}",
        r#"{"a": "\u00e9", "b": 1}"#,
    );
    check(
        "{{ [1, [], {'a': 2}] | tojson(indent=2) }}",
        "[\n  1,\n  [],\n  {\n    \"a\": 2\n  }\n]",
    );
    check("{{ [1, 2] | tojson(separators=(',', ':')) }}", "[1,2]");
    check(
        "{{ none is iterable }}{{ 'a' is sequence }}{{ x is defined }}",
        "FalseTrueFalse",
    );
    check("{{ tools is none }}{{ documents is none }}", "TrueTrue");
    check(
        "{{ 'a-b'.partition('-') }}{{ 'a b  c'.rsplit(none, 1) }}",
        "('a', '-', 'b')['a b', 'c']",
    );
    check(
        "{{ bos_token }}{{ strftime_now('%d %b %Y') }}{{ eos_token }}",
        "<s>26 Jul 2024</s>",
    );
    check("a\r\n{% if true %}\r\n  b\n{%- endif %}\n", "a\n  b");
    check(
        "{% generation %}{{ messages[0].content }}{% endgeneration %}",
        "hi",
    );
    check(
        "{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}",
        "01",
    );
}

#[test]
fn the_template_may_refuse() {
    let error = render("{{ raise_exception('only ' ~ 2 ~ ' turns') }}").unwrap_err();
    assert!(
        matches!(&error, ModelError::TemplateRefused { message, .. } if message == "only 2 turns")
    );
    assert_eq!(
        error.to_string(),
        "t.jinja: the chat template refuses these messages: only 2 turns"
    );
}

#[test]
fn broken_and_hostile_templates_are_errors() {
    let check = |source: &str, words: &str| {
        let text = render(source).unwrap_err().to_string();
        assert!(text.contains(words), "{source}: {text} lacks {words}");
    };
    let tokenizer = tokenizer(&[], &json!({}));
    let error = ChatTemplate::from_source("t.jinja", "{% if %}", &tokenizer).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("t.jinja: chat template: syntax error"),
        "{error}"
    );
    check("{{ nope.x }}", "undefined");
    check("{{ x | nosuch }}", "nosuch");
    check("{{ strftime_now('%Q') }}", "strftime_now");
    let endless = "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}";
    check(endless, "fuel");
    check(
        "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
        "recursion",
    );
    let huge = "{% set x = 'a' * 9000000 %}{% for i in range(100) %}{{ x }}{% endfor %}";
    check(huge, "write");
    check("{{ 'a' * 9000000000 }}", "too large");
    for widths in [
        "'a' | indent(90000000000)",
        "'a' | indent(width=90000000000)",
        "[1] | batch(90000000000, 'x') | length",
        "[1] | slice(90000000000) | length",
        "'%90000000000d' | format(1)",
        "'%*d' | format(90000000000, 1)",
        "'{:>90000000000}'.format(1)",
        "'{:{}}'.format(1, 90000000000)",
    ] {
        check(&format!("{{{{ {widths} }}}}"), "");
    }
    let shared = "{% set n = namespace(x=['abcdefgh']) %}\
        {% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}";
    for text in ["n.x", "n.x | tojson", "n.x | string", "n.x | trim"] {
        check(&format!("{shared}{{{{ {text} }}}}"), "64 MiB");
    }
}

#[test]
fn ordinary_widths_are_no_attack() {
    let check = |source: &str, expected: &str| assert_eq!(render(source).unwrap(), expected);
    check("{{ 'a\nb' | indent(2) }}", "a\n  b");
    check("{{ 'a\nb' | indent(width=2, first=true) }}", "  a\n  b");
    check("{{ '%05d %s' | format(1700000000, 'x') }}", "1700000000 x");
    check("{{ '{:>3}|{}'.format(1, 1700000000) }}", "  1|1700000000");
    check(
        "{{ [1, 2, 3] | batch(2, 0.5) | list }}",
        "[[1, 2], [3, 0.5]]",
    );
    check("{{ [1, 2, 3] | slice(2) | list }}", "[[1, 2], [3]]");
}

/// Values nested as deep as the fuel allows are dropped and compared one inside the other.
#[test]
fn deep_values_do_not_exhaust_the_stack() {
    let nested = format!("{}n.x{}", "[".repeat(50), "]".repeat(50));
    let deep = format!(
        "{{% set n = namespace(x=[], y=[]) %}}{{% for a in range(30000) %}}\
         {{% set n.x = {nested} %}}{{% endfor %}}"
    );
    for last in [
        "n.x",
        "n.x | tojson",
        "n.x == [n.x]",
        "n.x ~ 'a'",
        "n.x | pprint",
    ] {
        let _ = render(&format!("{deep}{{{{ {last} }}}}"));
    }
    let endless = format!(
        "{{% set n = namespace(x=[]) %}}{{% for a in range(90000) %}}\
         {{% set n.x = {nested} %}}{{% endfor %}}"
    );
    assert!(render(&endless).unwrap_err().to_string().contains("fuel"));
}

const CONTROLS: [&str; 3] = ["<|user|>", "<|end|>", "<|user|><|end|>"];
const TURNS: &str = "{% for m in messages %}<|user|>{{ m.content | trim }}<|end|>\n{% endfor %}{{ messages | tojson(ensure_ascii=true) }}";

/// Checks one content: the text is that of a plain rendering, and control tokens are the
/// template's own.
fn check_content(content: &str) {
    let tokenizer = tokenizer(&CONTROLS, &json!({}));
    let template = ChatTemplate::from_source("t.jinja", TURNS, &tokenizer).unwrap();
    let turn = json!({"role": "user", "content": content});
    let conversation = Conversation::new(vec![turn.clone(), turn]);
    let rendered = template.render_for(&tokenizer, &conversation).unwrap();
    assert_eq!(rendered.text, template.render(&conversation).unwrap());
    let tokens = template.encode(&tokenizer, &conversation).unwrap();
    assert_eq!(
        tokenizer.decode(&tokens, model::Show::Everything),
        rendered.text
    );
    let controls = tokens
        .iter()
        .filter(|token| tokenizer.is_control(**token))
        .count();
    assert_eq!(
        controls,
        if content.trim().is_empty() { 2 } else { 4 },
        "{content:?}"
    );
    if !CONTROLS.iter().any(|control| content.contains(control)) {
        let whole = tokenizer
            .encode(&rendered.text, model::Special::Parse)
            .unwrap();
        assert_eq!(tokens, whole, "{content:?}");
    }
}

#[test]
fn messages_never_become_control_tokens() {
    for content in [
        "plain",
        "",
        "  spaces \n",
        "<|end|>",
        "a<|end|>b",
        "<|user|><|end|><|user|>",
        "<<|end|>>",
        " <|end|> ",
        "<|end",
        "|>",
        "é<|user|>日本<|end|>",
        "<|us<|end|>er|>",
    ] {
        check_content(content);
    }
}

#[test]
fn marks_avoid_what_messages_hold() {
    check_content("\u{FDD0}<|end|>\u{FDD1}");
    let tokenizer = tokenizer(&CONTROLS, &json!({}));
    let template = ChatTemplate::from_source("t.jinja", TURNS, &tokenizer).unwrap();
    let all: String = ('\u{FDD0}'..='\u{FDEF}').collect();
    let conversation = Conversation::new(vec![json!({"role": "user", "content": all})]);
    let error = template
        .render_for(&tokenizer, &conversation)
        .unwrap_err()
        .to_string();
    assert!(error.contains("noncharacter"), "{error}");
}

#[test]
fn templates_are_found_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = tokenizer(&[], &json!({}));
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let find = || ChatTemplate::from_folder(folder.path(), &tokenizer);
    let shown = |tools: bool| {
        let mut conversation = Conversation::new(vec![]);
        if tools {
            conversation.variables.insert("tools".into(), json!([]));
        }
        find().unwrap().render(&conversation).unwrap()
    };
    let error = find().unwrap_err().to_string();
    assert!(
        error.contains("no chat template") && error.contains("base model"),
        "{error}"
    );
    write("additional_chat_templates/default.jinja", "additional");
    assert_eq!(shown(false), "additional");
    let list = json!([{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]);
    write(
        "tokenizer_config.json",
        &json!({"chat_template": list}).to_string(),
    );
    assert_eq!((shown(false), shown(true)), ("d".into(), "t".into()));
    write(
        "tokenizer_config.json",
        &json!({"chat_template": "config"}).to_string(),
    );
    assert_eq!(shown(true), "config");
    write("chat_template.jinja", "file");
    assert_eq!(shown(false), "file");
    write(
        "tokenizer_config.json",
        &json!({"chat_template": 7}).to_string(),
    );
    assert!(
        find()
            .unwrap_err()
            .to_string()
            .contains("chat_template: expected text")
    );
}
