//! A model directory or GGUF file becomes things to compute with: tensors, tokenizer,
//! chat template, defaults. Knows no request and no scheduling.

mod error;
mod file_bytes;
mod gguf;
mod json_file;
mod tokenizer;

pub use error::ModelError;
pub use gguf::{GgufArray, GgufFile, GgufValue, TensorInfo};
pub use tokenizer::{Detokenizer, Rendered, Show, Special, Start, Tokenizer};
