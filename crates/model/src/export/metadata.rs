//! What a GGUF file says about a model beside its vocabulary.

use crate::{
    Architecture, ChatTemplate, GgufArray, GgufHead, GgufValue, ModelConfig, ModelError,
    ModelFiles, RopeScaling, Tokenizer,
};
use kernels::WeightFormat;
use std::path::Path;

/// Version of the block formats, as ggml counts.
const QUANTIZATION_VERSION: u32 = 2;

/// Sets everything but vocabulary and template. `most` is the type of most matrices.
///
/// # Errors
/// What a GGUF file cannot say.
pub(super) fn describe(
    head: &mut GgufHead,
    folder: &Path,
    config: &ModelConfig,
    most: WeightFormat,
) -> Result<(), ModelError> {
    let arch = architecture(config.architecture);
    let text = |value: &str| GgufValue::String(value.into());
    head.set("general.architecture", text(arch));
    head.set("general.type", text("model"));
    let name = folder.canonicalize().unwrap_or_else(|_| folder.into());
    let name = name.file_name().unwrap_or_default().to_string_lossy();
    // Readers take tokenizer rules from a name like that, which these models do not have.
    let lower = name.to_lowercase();
    if !name.is_empty() && !lower.contains("phi-3") && !lower.contains("phi3") {
        head.set("general.name", text(&name));
    }
    head.set("general.file_type", GgufValue::U32(file_type(most)));
    if !most.is_dense() {
        let version = GgufValue::U32(QUANTIZATION_VERSION);
        head.set("general.quantization_version", version);
    }
    for (key, value) in [
        ("block_count", config.num_layers),
        ("context_length", config.max_position_embeddings),
        ("embedding_length", config.hidden_size),
        ("feed_forward_length", config.intermediate_size),
        ("attention.head_count", config.num_heads),
        ("attention.head_count_kv", config.num_kv_heads),
        ("attention.key_length", config.head_dim),
        ("attention.value_length", config.head_dim),
        ("rope.dimension_count", config.head_dim),
        ("vocab_size", config.vocab_size),
    ] {
        let value = u32::try_from(value).expect("sizes of a config were checked to be small");
        head.set(format!("{arch}.{key}"), GgufValue::U32(value));
    }
    let path = folder.join("config.json");
    if let Some(window) = window(&path, config)? {
        let window = u32::try_from(window).expect("a window read from 32 bits");
        let key = format!("{arch}.attention.sliding_window");
        head.set(key, GgufValue::U32(window));
    }
    let eps = GgufValue::F32(config.rms_norm_eps);
    head.set(format!("{arch}.attention.layer_norm_rms_epsilon"), eps);
    rope(head, &path, config, arch)
}

/// The one window of all layers.
fn window(path: &Path, config: &ModelConfig) -> Result<Option<usize>, ModelError> {
    let windows = &config.sliding_windows;
    let first = windows.first().copied().flatten();
    if windows.iter().all(|window| *window == first) {
        return Ok(first);
    }
    let (expected, got) = (
        "one window for all layers, for a GGUF",
        "windows on some layers",
    );
    Err(ModelError::field(path, "layer_types", expected, got))
}

/// Base and stretching. Llama 3's stretching is a tensor, not metadata.
fn rope(
    head: &mut GgufHead,
    path: &Path,
    config: &ModelConfig,
    arch: &str,
) -> Result<(), ModelError> {
    #[expect(clippy::cast_possible_truncation, reason = "the file stores f32")]
    let single = |value: f64| GgufValue::F32(value as f32);
    let theta = single(config.rope.theta);
    head.set(format!("{arch}.rope.freq_base"), theta);
    match config.rope.scaling {
        RopeScaling::Default => {}
        RopeScaling::Linear { factor } => {
            let kind = GgufValue::String("linear".into());
            head.set(format!("{arch}.rope.scaling.type"), kind);
            head.set(format!("{arch}.rope.scaling.factor"), single(factor));
        }
        RopeScaling::Llama3 { .. } if arch == "llama" => {}
        RopeScaling::Llama3 { .. } => {
            let expected = format!("default or linear, for a GGUF of the architecture {arch}");
            let field = "rope_scaling.rope_type";
            return Err(ModelError::field(path, field, expected, "llama3"));
        }
    }
    Ok(())
}

/// Mistral's is Llama's there.
fn architecture(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::Llama | Architecture::Mistral => "llama",
        Architecture::Qwen2 => "qwen2",
        Architecture::Qwen3 => "qwen3",
    }
}

/// llama.cpp's number for a file that mostly has this type.
fn file_type(most: WeightFormat) -> u32 {
    match most {
        WeightFormat::F32 => 0,
        WeightFormat::F16 => 1,
        WeightFormat::Q4_0 => 2,
        WeightFormat::Q4_1 => 3,
        WeightFormat::Q8_0 => 7,
        WeightFormat::Q5_0 => 8,
        WeightFormat::Q5_1 => 9,
        WeightFormat::Q2K => 10,
        WeightFormat::Q3K => 12,
        WeightFormat::Q4K => 14,
        WeightFormat::Q5K => 16,
        WeightFormat::Q6K => 18,
        WeightFormat::BF16 => 32,
    }
}

/// Sets the chat templates; what the user should know about what is left out.
///
/// # Errors
/// A template that cannot be read or does not compile.
pub(super) fn chat_templates(
    head: &mut GgufHead,
    files: &ModelFiles,
    tokenizer: &Tokenizer,
) -> Result<Vec<String>, ModelError> {
    const KEY: &str = "tokenizer.chat_template";
    let mut notes = Vec::new();
    match files.chat_template(tokenizer) {
        Ok(template) => set_templates(head, KEY, &template),
        Err(ModelError::NoChatTemplate { .. }) => {
            notes.push("the folder has no chat template, so the file has none".to_owned());
        }
        Err(error) => return Err(error),
    }
    let recommended = files.generation_config()?;
    let sampling = [
        recommended.temperature,
        recommended.top_p,
        recommended.min_p,
        recommended.repetition_penalty,
    ];
    if sampling.iter().any(Option::is_some) || recommended.top_k.is_some() {
        notes.push(
            "the sampling that generation_config.json recommends is not in the file".to_owned(),
        );
    }
    Ok(notes)
}

fn set_templates(head: &mut GgufHead, key: &str, template: &ChatTemplate) {
    let mut others = Vec::new();
    for (name, source) in template.sources() {
        let source = GgufValue::String(source.to_owned());
        match ChatTemplate::is_default(name) {
            true => head.set(key, source),
            false => {
                head.set(format!("{key}.{name}"), source);
                others.push(name.to_owned());
            }
        }
    }
    if !others.is_empty() {
        let names = GgufValue::Array(GgufArray::Strings(others));
        head.set("tokenizer.chat_templates", names);
    }
}
