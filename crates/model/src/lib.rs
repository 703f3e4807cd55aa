//! A model directory or GGUF file becomes things to compute with: tensors, tokenizer,
//! chat template, defaults. Knows no request and no scheduling.

mod error;
mod file_bytes;
mod gguf;

pub use error::ModelError;
pub use gguf::{GgufArray, GgufFile, GgufValue, TensorInfo};
