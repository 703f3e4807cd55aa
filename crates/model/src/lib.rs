//! A model directory or GGUF file becomes things to compute with: tensors, tokenizer,
//! chat template, defaults. Knows no request and no scheduling.

mod chat_template;
mod error;
mod file_bytes;
mod generation_config;
mod gguf;
mod json_file;
mod tokenizer;

pub use chat_template::{ChatTemplate, Conversation, Date, InvalidDate};
pub use error::ModelError;
pub use generation_config::GenerationConfig;
pub use gguf::{GgufArray, GgufFile, GgufValue, TensorInfo};
pub use tokenizer::{Detokenizer, Rendered, Show, Special, Start, Tokenizer};
