//! `adapter_config.json`. Settings that change what an adapter computes beyond plain LoRA
//! are refused by name.

use crate::ModelError;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

const FILE: &str = "adapter_config.json";

/// Bookkeeping, training-time settings, and ways to draw the first A and B.
const HARMLESS: [&str; 17] = [
    "auto_mapping",
    "base_model_name_or_path",
    "eva_config",
    "inference_mode",
    "lora_dropout",
    "megatron_config",
    "megatron_core",
    "peft_type",
    "peft_version",
    "qalora_group_size", // matters only with use_qalora
    "revision",
    "runtime_config",
    "task_type",
    "layers_pattern",
    "lora_ga_config",
    "corda_config",
    "loftq_config",
];

/// Ways to draw A and B that leave the base model's weights alone; others (PiSSA, OLoRA, …)
/// move a part of the base weights into the adapter.
const PLAIN_INITS: [&str; 3] = ["gaussian", "eva", "orthogonal"];

#[derive(Debug)]
pub(super) struct AdapterConfig {
    rank: usize,
    alpha: f64,
    rank_scaling: RankScaling,
    rank_pattern: Vec<(String, usize)>,
    alpha_pattern: Vec<(String, f64)>,
    targets: Targets,
}

#[derive(Debug, Clone, Copy)]
enum RankScaling {
    /// alpha / r (Hu et al. 2021)
    Linear,
    /// alpha / sqrt(r) (rsLoRA, Kalajdzievski 2023)
    SquareRoot,
}

#[derive(Debug)]
enum Targets {
    /// Every module whose path ends in one of these must have its tensors.
    Every(Vec<String>),
    /// As before, but some layers or modules are left out on purpose.
    Some(Vec<String>),
    /// A pattern that is not read: whatever the file holds.
    Unread,
}

impl AdapterConfig {
    /// Reads the config of an adapter folder.
    ///
    /// # Errors
    /// Not readable, not JSON, a number out of range, a setting that is not supported.
    pub(super) fn read(folder: &Path) -> Result<Self, ModelError> {
        let path = folder.join(FILE);
        let text = std::fs::read_to_string(&path)
            .map_err(|source| ModelError::io(&path, "read", source))?;
        let value: Value = serde_json::from_str(&text).map_err(|source| ModelError::Json {
            path: path.clone(),
            source,
        })?;
        let Value::Object(map) = value else {
            return Err(ModelError::field(
                &path,
                "the whole file",
                "an object",
                value.to_string(),
            ));
        };
        Reader { path, map }.read()
    }

    /// Rank and alpha, if all modules have the same and the factor is alpha / r.
    pub(super) fn uniform(&self) -> Option<(usize, f64)> {
        let plain = matches!(self.rank_scaling, RankScaling::Linear)
            && self.rank_pattern.is_empty()
            && self.alpha_pattern.is_empty();
        plain.then_some((self.rank, self.alpha))
    }

    /// Whether the file must hold tensors for this module.
    pub(super) fn requires(&self, module: &str) -> bool {
        matches!(&self.targets, Targets::Every(names) if names.iter().any(|name| ends(module, name)))
    }

    /// Whether the file may hold tensors for this module.
    pub(super) fn targets(&self, module: &str) -> bool {
        match &self.targets {
            Targets::Every(names) | Targets::Some(names) => {
                names.iter().any(|name| ends(module, name))
            }
            Targets::Unread => true,
        }
    }

    /// Rank of the module's adapter and the factor of its product.
    pub(super) fn rank_and_scale(&self, module: &str) -> (usize, f32) {
        let rank = matching(&self.rank_pattern, module).unwrap_or(self.rank);
        let alpha = matching(&self.alpha_pattern, module).unwrap_or(self.alpha);
        let divisor = match self.rank_scaling {
            RankScaling::Linear => rank as f64,
            RankScaling::SquareRoot => (rank as f64).sqrt(),
        };
        (rank, (alpha / divisor) as f32)
    }
}

/// The module path is `name`, or ends in it after a dot.
fn ends(module: &str, name: &str) -> bool {
    module
        .strip_suffix(name)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn matching<T: Copy>(patterns: &[(String, T)], module: &str) -> Option<T> {
    patterns
        .iter()
        .find(|(name, _)| ends(module, name))
        .map(|(_, value)| *value)
}

struct Reader {
    path: PathBuf,
    map: Map<String, Value>,
}

impl Reader {
    fn wrong(&self, field: &str, expected: &str, got: &Value) -> ModelError {
        ModelError::field(&self.path, field, expected, got.to_string())
    }

    fn take(&mut self, field: &str) -> Option<Value> {
        self.map
            .shift_remove(field)
            .filter(|value| !value.is_null())
    }

    fn read(mut self) -> Result<AdapterConfig, ModelError> {
        let kind = self.take("peft_type").unwrap_or(Value::Null);
        if kind != "LORA" {
            return Err(self.wrong("peft_type", "LORA", &kind));
        }
        if let Some(bias) = self.take("bias").filter(|bias| bias != "none") {
            return Err(self.wrong("bias", "none: biases of adapters are not supported", &bias));
        }
        if let Some(init) = self.take("init_lora_weights") {
            let plain =
                init.is_boolean() || init.as_str().is_some_and(|i| PLAIN_INITS.contains(&i));
            if !plain {
                let expected =
                    "true, false, gaussian, eva or orthogonal: others change the base weights";
                return Err(self.wrong("init_lora_weights", expected, &init));
            }
        }
        let rank_scaling = match self.take("use_rslora") {
            None | Some(Value::Bool(false)) => RankScaling::Linear,
            Some(Value::Bool(true)) => RankScaling::SquareRoot,
            Some(other) => return Err(self.wrong("use_rslora", "true or false", &other)),
        };
        let config = AdapterConfig {
            rank: self.rank()?,
            alpha: self.alpha()?,
            rank_scaling,
            rank_pattern: self.pattern("rank_pattern", "a rank from 1 to 65536", as_rank)?,
            alpha_pattern: self.pattern("alpha_pattern", "a finite number", as_alpha)?,
            targets: self.targets()?,
        };
        self.nothing_left()?;
        Ok(config)
    }

    fn rank(&mut self) -> Result<usize, ModelError> {
        let Some(value) = self.take("r") else {
            return Ok(8);
        };
        as_rank(&value).ok_or_else(|| self.wrong("r", "a rank from 1 to 65536", &value))
    }

    fn alpha(&mut self) -> Result<f64, ModelError> {
        let Some(value) = self.take("lora_alpha") else {
            return Ok(8.0);
        };
        as_alpha(&value).ok_or_else(|| self.wrong("lora_alpha", "a finite number", &value))
    }

    fn pattern<T>(
        &mut self,
        field: &str,
        expected: &str,
        read: fn(&Value) -> Option<T>,
    ) -> Result<Vec<(String, T)>, ModelError> {
        let Some(value) = self.take(field) else {
            return Ok(vec![]);
        };
        let Value::Object(map) = &value else {
            return Err(self.wrong(field, "an object", &value));
        };
        let entry = |(name, value): (&String, &Value)| {
            let field = format!("{field}.{name}");
            if !is_literal(name) {
                let expected = "a module path (patterns with other characters are not read)";
                return Err(self.wrong(&field, expected, value));
            }
            let number = read(value).ok_or_else(|| self.wrong(&field, expected, value))?;
            Ok((name.clone(), number))
        };
        map.iter().map(entry).collect()
    }

    fn targets(&mut self) -> Result<Targets, ModelError> {
        let partial = ["exclude_modules", "layers_to_transform"]
            .map(|field| self.take(field).is_some())
            .contains(&true);
        match self.take("target_modules") {
            None | Some(Value::String(_)) => Ok(Targets::Unread),
            Some(Value::Array(names)) => {
                let names: Vec<String> = names
                    .iter()
                    .filter_map(|name| name.as_str().map(str::to_owned))
                    .collect();
                Ok(if partial {
                    Targets::Some(names)
                } else {
                    Targets::Every(names)
                })
            }
            Some(other) => Err(self.wrong("target_modules", "a list of names", &other)),
        }
    }

    fn nothing_left(&self) -> Result<(), ModelError> {
        for (field, value) in &self.map {
            let off = match value {
                Value::Null | Value::Bool(false) => true,
                Value::Array(items) => items.is_empty(),
                Value::Object(map) => map.is_empty(),
                _ => false,
            };
            if !off && !HARMLESS.contains(&field.as_str()) {
                let expected =
                    "absent or off: not supported, and it could change what the adapter computes";
                return Err(self.wrong(field, expected, value));
            }
        }
        Ok(())
    }
}

/// Letters, digits, `_` and dots. (To PEFT a dot in a pattern matches any character, which
/// differs only for paths that no model has.)
fn is_literal(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.')
}

fn as_rank(value: &Value) -> Option<usize> {
    value
        .as_u64()
        .filter(|rank| (1..=65_536).contains(rank))
        .map(|rank| rank as usize)
}

fn as_alpha(value: &Value) -> Option<f64> {
    value.as_f64().filter(|alpha| alpha.is_finite())
}
