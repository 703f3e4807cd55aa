//! A model directory or GGUF file becomes things to compute with: tensors, tokenizer,
//! chat template, defaults. Knows no request and no scheduling.

mod chat_template;
mod error;
mod file_bytes;
mod generation_config;
mod adapter;
mod batch;
mod config;
mod files;
mod gguf;
mod json_file;
mod kv_pool;
mod llama;
mod lookup;
mod tokenizer;
mod weights;

pub use chat_template::{ChatTemplate, Conversation, Date, InvalidDate};
pub use error::ModelError;
pub use generation_config::GenerationConfig;
pub use adapter::Adapter;
pub use batch::{AdapterId, ForwardBatch};
pub use config::{
    Architecture, FloatType, ModelConfig, RopeConfig, RopeScaling, SUPPORTED_ARCHITECTURES,
};
pub use files::ModelFiles;
pub use gguf::{GgufArray, GgufFile, GgufValue, TensorInfo};
pub use kernels::SequenceSpan;
pub use kv_pool::{KvPool, KvType};
pub use llama::{CausalLm, Llama, LoadOptions};
pub use lookup::{CachedModel, Found, HubCache, Origin, resolve};
pub use tokenizer::{Detokenizer, Rendered, Show, Special, Start, Tokenizer};
pub use weights::LoadAs;
