//! Messages and variables, as JSON, for templates that look into every corner of them.
#![no_main]
use libfuzzer_sys::fuzz_target;
use model::{ChatTemplate, Conversation};
use std::sync::OnceLock;

const SOURCE: &str = "{%- for message in messages -%}\
    <|start|>{{ message.role }}\n{{ message.content }}{{ message | tojson }}{{ message | tojson(indent=2) }}\
    {%- if message.content is string -%}{{ message.content.strip().split('x')[-1] | trim }}{%- endif -%}\
    {%- for key in message -%}{{ key }}{{ message[key] }}{%- endfor -%}<|end|>\n\
    {%- endfor -%}{{ tools | tojson(ensure_ascii=true) }}";

fuzz_target!(
    init: fuzz::expect_caught_panics(),
    |text: &str| {
        static TEMPLATE: OnceLock<ChatTemplate> = OnceLock::new();
        let tokenizer = fuzz::tokenizer();
        let template = TEMPLATE.get_or_init(|| {
            ChatTemplate::from_source("template", SOURCE, tokenizer).expect("it compiles")
        });
        let Ok(messages) = serde_json::from_str::<Vec<serde_json::Value>>(text) else {
            return;
        };
        let mut conversation = Conversation::new(messages);
        if let Some(last) = conversation.messages.last().cloned() {
            conversation.variables.insert("tools".into(), last);
        }
        let _ = template.encode(tokenizer, &conversation);
    }
);
