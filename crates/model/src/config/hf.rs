//! `config.json` as HF transformers writes it, in the layouts of version 4
//! (`rope_theta`, `rope_scaling`, `torch_dtype`) and 5 (`rope_parameters`, `dtype`).

use super::{
    Architecture, FloatType, ModelConfig, Result, RopeConfig, RopeScaling, SUPPORTED_ARCHITECTURES,
    clip, refuse,
};
use crate::ModelError;
use serde_json::{Map, Value};
use std::path::Path;

/// Fields that say nothing about what a decoder computes at inference: training settings,
/// bookkeeping, settings of generation that live in generation_config.json.
const HARMLESS: [&str; 38] = [
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_commit_hash",
    "_name_or_path",
    "attention_dropout",
    "attn_implementation",
    "classifier_dropout",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "finetuning_task",
    "id2label",
    "initializer_range",
    "is_llama_config",
    "label2id",
    "length_penalty",
    "max_length",
    "model_type",
    "name_or_path",
    "num_beams",
    "num_return_sequences",
    "pad_token_id",
    "problem_type",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "task_specific_params",
    "temperature",
    "tokenizer_class",
    "top_k",
    "top_p",
    "transformers.js_config",
    "transformers_version",
    "typical_p",
    "unsloth_fixed",
    "unsloth_version",
    "use_cache",
];

/// Fields that may hold only one value, the one this crate computes.
const FIXED: [(&str, &str); 11] = [
    ("hidden_act", "\"silu\""),
    ("pretraining_tp", "1"),
    ("partial_rotary_factor", "1"),
    ("rope_interleaved", "false"),
    ("is_encoder_decoder", "false"),
    ("is_decoder", "false"),
    ("chunk_size_feed_forward", "0"),
    ("repetition_penalty", "1"),
    ("no_repeat_ngram_size", "0"),
    ("encoder_no_repeat_ngram_size", "0"),
    ("min_length", "0"),
];

impl ModelConfig {
    /// Reads the text of a `config.json`; `path` is for messages.
    ///
    /// # Errors
    /// Not JSON; an architecture other than [`SUPPORTED_ARCHITECTURES`]; a number out of range;
    /// a field that could change the mathematics and that this crate does not know.
    pub fn from_hf_json(path: &Path, text: &str) -> std::result::Result<Self, ModelError> {
        let value: Value = serde_json::from_str(text).map_err(|source| ModelError::Json {
            path: path.into(),
            source,
        })?;
        parse(value).map_err(|problem| problem.in_file(path))
    }
}

fn parse(value: Value) -> Result<ModelConfig> {
    let Value::Object(map) = value else {
        return Err(refuse("the whole file", kind(&value), "an object"));
    };
    let mut fields = Fields { map, prefix: "" };
    let architecture = architecture(&mut fields)?;
    let config = read(architecture, &mut fields)?;
    fields.nothing_left()?;
    config.validate()?;
    Ok(config)
}

fn architecture(fields: &mut Fields) -> Result<Architecture> {
    let supported = format!("one of {}", SUPPORTED_ARCHITECTURES.join(", "));
    let value = fields.take("architectures").unwrap_or(Value::Null);
    let names: Vec<&str> = match &value {
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        Value::String(name) => vec![name],
        _ => vec![],
    };
    match names[..] {
        ["LlamaForCausalLM"] => Ok(Architecture::Llama),
        ["MistralForCausalLM"] => Ok(Architecture::Mistral),
        ["Qwen2ForCausalLM"] => Ok(Architecture::Qwen2),
        ["Qwen3ForCausalLM"] => Ok(Architecture::Qwen3),
        _ => Err(refuse("architectures", value, supported)),
    }
}

fn read(architecture: Architecture, fields: &mut Fields) -> Result<ModelConfig> {
    use Architecture::{Llama, Mistral, Qwen2, Qwen3};
    for (field, only) in FIXED {
        fields.expect_fixed(field, only)?;
    }
    let hidden_size = fields.size("hidden_size")?;
    let num_layers = fields.size("num_hidden_layers")?;
    let num_heads = fields.size("num_attention_heads")?;
    // The other families' class defaults are the sizes of one particular model.
    let num_kv_heads = match (fields.optional_size("num_key_value_heads")?, architecture) {
        (Some(heads), _) => heads,
        (None, Llama) => num_heads,
        (None, _) => return Err(refuse("num_key_value_heads", "nothing", "a number")),
    };
    let head_dim = match (fields.optional_size("head_dim")?, architecture) {
        (Some(head_dim), _) => head_dim,
        (None, Qwen3) => 128,
        (None, _) if num_heads > 0 && hidden_size.is_multiple_of(num_heads) => {
            hidden_size / num_heads
        }
        (None, _) => {
            let expected = format!("a divisor of hidden_size = {hidden_size}, or head_dim given");
            return Err(refuse("num_attention_heads", num_heads, expected));
        }
    };
    let attention_bias = match architecture {
        Llama | Qwen3 => fields.flag("attention_bias")?.unwrap_or(false),
        Mistral | Qwen2 => false,
    };
    let mlp_bias = architecture == Llama && fields.flag("mlp_bias")?.unwrap_or(false);
    Ok(ModelConfig {
        architecture,
        vocab_size: fields.size("vocab_size")?,
        hidden_size,
        intermediate_size: fields.size("intermediate_size")?,
        num_layers,
        num_heads,
        num_kv_heads,
        head_dim,
        rms_norm_eps: fields.optional_number("rms_norm_eps")?.unwrap_or(1e-6) as f32,
        max_position_embeddings: fields.size("max_position_embeddings")?,
        rope: rope(fields)?,
        sliding_windows: sliding_windows(architecture, fields, num_layers)?,
        qkv_bias: attention_bias || architecture == Qwen2,
        o_bias: attention_bias,
        mlp_bias,
        qk_norm: architecture == Qwen3,
        tie_word_embeddings: fields.flag("tie_word_embeddings")?.unwrap_or(false),
        bos_token_id: fields.token_ids("bos_token_id")?.first().copied(),
        eos_token_ids: fields.token_ids("eos_token_id")?,
        dtype: dtype(fields)?,
    })
}

/// `rope_theta` and `rope_scaling` (version 4), or both inside `rope_parameters` (version 5).
fn rope(fields: &mut Fields) -> Result<RopeConfig> {
    let outer_theta = fields.optional_number("rope_theta")?;
    let (v4, v5) = (
        fields.object("rope_scaling")?,
        fields.object("rope_parameters")?,
    );
    let mut inner = match (v4, v5) {
        (Some(_), Some(_)) => {
            return Err(refuse(
                "rope_scaling",
                "rope_parameters as well",
                "only one of the two",
            ));
        }
        (Some(map), None) => Fields {
            map,
            prefix: "rope_scaling.",
        },
        (None, Some(map)) => Fields {
            map,
            prefix: "rope_parameters.",
        },
        (None, None) => Fields {
            map: Map::new(),
            prefix: "rope_scaling.",
        },
    };
    let inner_theta = inner.optional_number("rope_theta")?;
    inner.expect_fixed("partial_rotary_factor", "1")?;
    let kind = match (inner.text("rope_type")?, inner.text("type")?) {
        (Some(new), Some(old)) if new != old => {
            return Err(refuse(
                inner.name("type"),
                old,
                format!("the rope_type, {new}"),
            ));
        }
        (new, old) => new.or(old).unwrap_or_else(|| "default".into()),
    };
    let scaling = match kind.as_str() {
        "default" => RopeScaling::Default,
        "linear" => RopeScaling::Linear {
            factor: inner.number("factor")?,
        },
        "llama3" => RopeScaling::Llama3 {
            factor: inner.number("factor")?,
            low_freq_factor: inner.number("low_freq_factor")?,
            high_freq_factor: inner.number("high_freq_factor")?,
            original_max_position_embeddings: inner.size("original_max_position_embeddings")?,
        },
        _ => {
            return Err(refuse(
                inner.name("rope_type"),
                kind,
                "default, linear or llama3",
            ));
        }
    };
    inner.nothing_left()?;
    // transformers lets the inner value win; both are written by nobody unless equal.
    Ok(RopeConfig {
        theta: inner_theta.or(outer_theta).unwrap_or(1e4),
        scaling,
    })
}

/// Which layers see a window only: `layer_types` if present, else each family's own rule.
fn sliding_windows(
    architecture: Architecture,
    fields: &mut Fields,
    num_layers: usize,
) -> Result<Vec<Option<usize>>> {
    if num_layers > 1 << 12 {
        return Err(refuse("num_hidden_layers", num_layers, "at most 4096"));
    }
    let window = fields.optional_size("sliding_window")?;
    let layer_types = fields.take("layer_types").filter(|value| !value.is_null());
    let is_qwen = matches!(architecture, Architecture::Qwen2 | Architecture::Qwen3);
    let (mut window, mut first_windowed) = (window, 0);
    if is_qwen {
        if !fields.flag("use_sliding_window")?.unwrap_or(false) {
            window = None;
        }
        first_windowed = fields.optional_size("max_window_layers")?.unwrap_or(28);
    } else if architecture == Architecture::Llama && window.is_some() {
        return Err(refuse(
            "sliding_window",
            window.unwrap_or(0),
            "null for LlamaForCausalLM",
        ));
    }
    let Some(layer_types) = layer_types else {
        return Ok((0..num_layers)
            .map(|layer| window.filter(|_| layer >= first_windowed))
            .collect());
    };
    let expected = "a list of \"full_attention\" and \"sliding_attention\"";
    let Value::Array(kinds) = &layer_types else {
        return Err(refuse("layer_types", kind(&layer_types), expected));
    };
    kinds
        .iter()
        .map(|layer| match (layer.as_str(), window) {
            (Some("full_attention"), _) => Ok(None),
            (Some("sliding_attention"), Some(window)) => Ok(Some(window)),
            (Some("sliding_attention"), None) => Err(refuse(
                "layer_types",
                layer,
                "full_attention, as no sliding window is in use",
            )),
            _ => Err(refuse("layer_types", layer, expected)),
        })
        .collect()
}

fn dtype(fields: &mut Fields) -> Result<Option<FloatType>> {
    let old = fields.text("torch_dtype")?;
    let name = fields.text("dtype")?.or(old);
    match name
        .as_deref()
        .map(|name| name.trim_start_matches("torch."))
    {
        None => Ok(None),
        Some("float32") => Ok(Some(FloatType::F32)),
        Some("float16") => Ok(Some(FloatType::F16)),
        Some("bfloat16") => Ok(Some(FloatType::Bf16)),
        Some(other) => Err(refuse("dtype", other, "float32, float16 or bfloat16")),
    }
}

/// Fields not yet read. Each is taken once; what is left over is judged at the end.
struct Fields {
    map: Map<String, Value>,
    prefix: &'static str,
}

impl Fields {
    fn name(&self, field: &str) -> String {
        format!("{}{field}", self.prefix)
    }

    fn take(&mut self, field: &str) -> Option<Value> {
        self.map.shift_remove(field)
    }

    /// The value, unless absent or null.
    fn present(&mut self, field: &str) -> Option<Value> {
        self.take(field).filter(|value| !value.is_null())
    }

    fn optional_number(&mut self, field: &str) -> Result<Option<f64>> {
        let Some(value) = self.present(field) else {
            return Ok(None);
        };
        let number = value.as_f64().filter(|number| number.is_finite());
        number
            .map(Some)
            .ok_or_else(|| refuse(self.name(field), value, "a finite number"))
    }

    fn number(&mut self, field: &str) -> Result<f64> {
        self.optional_number(field)?
            .ok_or_else(|| refuse(self.name(field), "nothing", "a finite number"))
    }

    fn optional_size(&mut self, field: &str) -> Result<Option<usize>> {
        let Some(value) = self.present(field) else {
            return Ok(None);
        };
        let size = value.as_u64().and_then(|size| u32::try_from(size).ok());
        match size {
            Some(size) => Ok(Some(size as usize)),
            None => Err(refuse(self.name(field), value, "a whole number below 2^32")),
        }
    }

    fn size(&mut self, field: &str) -> Result<usize> {
        self.optional_size(field)?
            .ok_or_else(|| refuse(self.name(field), "nothing", "a whole number"))
    }

    fn flag(&mut self, field: &str) -> Result<Option<bool>> {
        let Some(value) = self.present(field) else {
            return Ok(None);
        };
        value
            .as_bool()
            .map(Some)
            .ok_or_else(|| refuse(self.name(field), value, "true or false"))
    }

    fn text(&mut self, field: &str) -> Result<Option<String>> {
        let Some(value) = self.present(field) else {
            return Ok(None);
        };
        match value {
            Value::String(text) => Ok(Some(text)),
            other => Err(refuse(self.name(field), kind(&other), "a string")),
        }
    }

    fn object(&mut self, field: &str) -> Result<Option<Map<String, Value>>> {
        let Some(value) = self.present(field) else {
            return Ok(None);
        };
        match value {
            Value::Object(map) => Ok(Some(map)),
            other => Err(refuse(self.name(field), kind(&other), "an object")),
        }
    }

    /// One id, a list of ids, or nothing.
    fn token_ids(&mut self, field: &str) -> Result<Vec<u32>> {
        let Some(value) = self.present(field) else {
            return Ok(vec![]);
        };
        let ids = match &value {
            Value::Array(ids) => ids.iter().collect(),
            one => vec![one],
        };
        ids.into_iter()
            .map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok()))
            .collect::<Option<_>>()
            .ok_or_else(|| refuse(self.name(field), &value, "a token id or a list of them"))
    }

    fn expect_fixed(&mut self, field: &str, only: &str) -> Result<()> {
        let Some(value) = self.present(field) else {
            return Ok(());
        };
        let expected: Value = serde_json::from_str(only).expect("the table holds JSON");
        let equal = match (value.as_f64(), expected.as_f64()) {
            (Some(value), Some(expected)) => value == expected,
            _ => value == expected,
        };
        if equal {
            Ok(())
        } else {
            Err(refuse(self.name(field), value, format!("{only} or absent")))
        }
    }

    /// Refuses what nobody asked for, unless it is known to be harmless or is switched off:
    /// null, false, or empty.
    fn nothing_left(&self) -> Result<()> {
        for (field, value) in &self.map {
            let off = match value {
                Value::Null | Value::Bool(false) => true,
                Value::Array(items) => items.is_empty(),
                Value::Object(map) => map.is_empty(),
                Value::String(text) => text.is_empty(),
                _ => false,
            };
            if !off && !HARMLESS.contains(&field.as_str()) {
                let expected =
                    "absent: this field is not known here and could change what the model computes";
                return Err(refuse(self.name(field), clip(value.to_string()), expected));
            }
        }
        Ok(())
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
