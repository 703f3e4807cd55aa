//! A model directory or GGUF file becomes things to compute with: tensors, tokenizer,
//! chat template, defaults. Knows no request and no scheduling.
//!
//! - [`resolve`] turns what a user typed into a path, [`ModelFiles`] opens it.
//! - [`ModelConfig`], [`Tokenizer`], [`ChatTemplate`], [`GenerationConfig`]: its parts.
//! - [`GgufExport`] writes a folder as one GGUF file.
//! - [`ModelFiles::load`] gives a [`Llama`], which computes a [`ForwardBatch`] over a [`KvPool`],
//!   with [`Adapter`]s row by row; [`ModelFiles::load_with_candle`] the same in candle's operations.

mod adapter;
mod batch;
mod candle_llama;
mod chat_template;
mod config;
#[cfg(feature = "device")]
mod cuda;
mod error;
mod export;
mod file_bytes;
mod files;
mod generation_config;
mod gguf;
mod json_file;
mod kv_pool;
mod llama;
mod logits;
mod lookup;
mod measure;
mod shapes;
mod tokenizer;
mod weights;

pub use adapter::{Adapter, AdapterCard, AdapterFit, AdapterPart, AdapterShape, adapter_shape};
pub use batch::{AdapterId, ForwardBatch};
pub use candle_llama::{CandleLlama, metal_device};
pub use chat_template::{ChatTemplate, Conversation, Date, InvalidDate, on_template_stack};
pub use config::{
    Architecture, FloatType, ModelConfig, RopeConfig, RopeScaling, SUPPORTED_ARCHITECTURES,
};
#[cfg(feature = "device")]
pub use cuda::{CudaDecoder, CudaLlama, CudaNorms, CudaOptions, CudaRows, Determinism};
pub use error::ModelError;
pub use export::{GgufExport, GgufReport, GgufWeights};
pub use files::ModelFiles;
pub use generation_config::GenerationConfig;
pub use gguf::{GgufArray, GgufFile, GgufHead, GgufValue, TensorInfo};
pub use kernels::SequenceSpan;
pub use kv_pool::{KvPool, KvType};
pub use llama::{CausalLm, Decoder, DecoderLayer, Llama, LoadOptions};
pub use logits::{DrawAnswer, DrawQuestion, Draws, Hidden, Logits, ScoreAnswer, ScoreQuestion};
pub use lookup::{CachedModel, Found, HubCache, Origin, resolve};
pub use measure::product_flops;
pub use shapes::{SHAPES, shape};
pub use tokenizer::{Detokenizer, Rendered, Show, Special, Start, Tokenizer};
pub use weights::{LoadAs, Projection};
