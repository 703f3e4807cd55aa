//! The config as a GGUF's metadata spells it (`llama.block_count`, …). What the metadata
//! does not say is read off the tensors that are there: biases, tied embeddings.

use super::{Architecture, ModelConfig, Problem, Result, RopeConfig, RopeScaling, clip, refuse};
use crate::{GgufFile, GgufValue, ModelError};

/// Keys below the architecture's name that are read here.
const READ: [&str; 17] = [
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.layer_norm_rms_epsilon",
    "attention.sliding_window",
    "attention.value_length",
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scale_linear",
    "rope.scaling.factor",
    "rope.scaling.original_context_length", // used by yarn only, which is refused
    "rope.scaling.type",
    "vocab_size",
];

/// Keys that say nothing about what is computed at inference.
const HARMLESS: [&str; 3] = [
    "rope.scaling.finetuned",
    "tensor_data_layout",
    "attention.causal",
];

const ARCHITECTURES: &str = "llama, qwen2 or qwen3";

impl ModelConfig {
    /// Reads the metadata of a GGUF file.
    ///
    /// # Errors
    /// An architecture other than llama, qwen2 and qwen3; a number missing or out of range;
    /// a key of the architecture that is not known here.
    pub fn from_gguf(file: &GgufFile) -> std::result::Result<Self, ModelError> {
        let keys = Keys {
            file,
            prefix: file.str("general.architecture")?,
        };
        let config = keys.read()?;
        keys.nothing_else()
            .and_then(|()| config.validate())
            .map_err(|problem| problem.in_file(file.path()))?;
        Ok(config)
    }
}

struct Keys<'a> {
    file: &'a GgufFile,
    prefix: &'a str,
}

impl Keys<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    fn size(&self, name: &str) -> std::result::Result<usize, ModelError> {
        Ok(self.file.u32(&self.key(name))? as usize)
    }

    fn optional_size(&self, name: &str) -> std::result::Result<Option<usize>, ModelError> {
        Ok(self
            .file
            .u32_opt(&self.key(name))?
            .map(|size| size as usize))
    }

    fn optional_float(&self, name: &str) -> std::result::Result<Option<f64>, ModelError> {
        Ok(self.file.f32_opt(&self.key(name))?.map(f64::from))
    }

    fn wrong(&self, problem: Problem) -> ModelError {
        problem.in_file(self.file.path())
    }

    fn read(&self) -> std::result::Result<ModelConfig, ModelError> {
        let architecture = match self.prefix {
            "llama" => Architecture::Llama,
            "qwen2" => Architecture::Qwen2,
            "qwen3" => Architecture::Qwen3,
            other => {
                return Err(self.wrong(refuse("general.architecture", other, ARCHITECTURES)));
            }
        };
        let (hidden_size, num_heads) = (
            self.size("embedding_length")?,
            self.size("attention.head_count")?,
        );
        let head_dim = self.head_dim(hidden_size, num_heads)?;
        let num_layers = self.size("block_count")?;
        if num_layers > 1 << 12 {
            return Err(self.wrong(refuse(self.key("block_count"), num_layers, "at most 4096")));
        }
        let window = self.optional_size("attention.sliding_window")?;
        let has = |tensor: &str| self.file.tensors().contains_key(tensor);
        let embedding = self.file.tensor("token_embd.weight")?;
        Ok(ModelConfig {
            architecture,
            vocab_size: embedding.shape[0],
            hidden_size,
            intermediate_size: self.size("feed_forward_length")?,
            num_layers,
            num_heads,
            num_kv_heads: self
                .optional_size("attention.head_count_kv")?
                .unwrap_or(num_heads),
            head_dim,
            rms_norm_eps: self
                .file
                .f32(&self.key("attention.layer_norm_rms_epsilon"))?,
            max_position_embeddings: self.size("context_length")?,
            rope: self.rope()?,
            sliding_windows: vec![window; num_layers],
            qkv_bias: architecture == Architecture::Qwen2 || has("blk.0.attn_q.bias"),
            o_bias: has("blk.0.attn_output.bias"),
            mlp_bias: has("blk.0.ffn_gate.bias"),
            qk_norm: architecture == Architecture::Qwen3,
            tie_word_embeddings: !has("output.weight"),
            bos_token_id: self.file.u32_opt("tokenizer.ggml.bos_token_id")?,
            eos_token_ids: self.eos_token_ids()?,
            dtype: None,
        })
    }

    fn head_dim(
        &self,
        hidden_size: usize,
        num_heads: usize,
    ) -> std::result::Result<usize, ModelError> {
        let given = self.optional_size("attention.key_length")?;
        let head_dim = match given {
            Some(head_dim) => head_dim,
            None if num_heads > 0 && hidden_size.is_multiple_of(num_heads) => {
                hidden_size / num_heads
            }
            None => {
                let expected = format!("a divisor of embedding_length = {hidden_size}");
                let field = self.key("attention.head_count");
                return Err(self.wrong(refuse(field, num_heads, expected)));
            }
        };
        for name in ["attention.value_length", "rope.dimension_count"] {
            if let Some(other) = self.optional_size(name)?.filter(|other| *other != head_dim) {
                let expected = format!("{head_dim}, the size of a head");
                return Err(self.wrong(refuse(self.key(name), other, expected)));
            }
        }
        Ok(head_dim)
    }

    fn rope(&self) -> std::result::Result<RopeConfig, ModelError> {
        let theta = self.optional_float("rope.freq_base")?.unwrap_or(1e4);
        let new = self.optional_float("rope.scaling.factor")?;
        let old = self.optional_float("rope.scale_linear")?;
        let kind = self.file.str_opt(&self.key("rope.scaling.type"))?;
        let scaling = match (kind, new.or(old)) {
            (Some("none"), _) | (None, None) => RopeScaling::Default,
            (Some("linear") | None, Some(factor)) => RopeScaling::Linear { factor },
            (Some("linear"), None) => {
                let field = self.key("rope.scaling.factor");
                return Err(self.wrong(refuse(field, "nothing", "a factor")));
            }
            (Some(other), _) => {
                let field = self.key("rope.scaling.type");
                return Err(self.wrong(refuse(field, other, "none or linear")));
            }
        };
        Ok(RopeConfig { theta, scaling })
    }

    /// The end of a text, of a turn and of a message are all places where a sequence ends.
    fn eos_token_ids(&self) -> std::result::Result<Vec<u32>, ModelError> {
        let mut ids = Vec::new();
        for name in ["eos", "eot", "eom"] {
            let id = self
                .file
                .u32_opt(&format!("tokenizer.ggml.{name}_token_id"))?;
            ids.extend(id.filter(|id| !ids.contains(id)));
        }
        Ok(ids)
    }

    fn nothing_else(&self) -> Result<()> {
        for (key, value) in self.file.metadata() {
            let Some(name) = key
                .strip_prefix(self.prefix)
                .and_then(|rest| rest.strip_prefix('.'))
            else {
                continue;
            };
            let off = match value {
                GgufValue::Bool(on) => !on,
                GgufValue::F32(value) => *value == 0.0,
                GgufValue::U32(value) => *value == 0,
                GgufValue::I32(value) => *value == 0,
                _ => false,
            };
            if !off && !READ.contains(&name) && !HARMLESS.contains(&name) {
                let expected =
                    "absent: this key is not known here and could change what the model computes";
                return Err(refuse(key, clip(format!("{value:?}")), expected));
            }
        }
        Ok(())
    }
}
