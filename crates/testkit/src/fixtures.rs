//! The tiny models that transformers wrote, and the logits it computed for them.

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// Every model folder, by name.
pub const MODELS: [&str; 10] = [
    "llama2",
    "llama3_1",
    "llama3_2",
    "llama_linear",
    "mistral",
    "qwen2",
    "qwen2_5",
    "qwen2_window",
    "qwen3",
    "smollm",
];

/// Lengths of the prompts in every golden file.
pub const PROMPT_LENGTHS: [usize; 4] = [1, 7, 33, 300];

/// The folder of a model: in the repository, or where `AUTODIDACT_TEST_FIXTURES` says, for test
/// programs that run elsewhere.
pub fn folder(name: &str) -> PathBuf {
    let moved = std::env::var_os("AUTODIDACT_TEST_FIXTURES").map(PathBuf::from);
    let root = moved
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures"));
    root.join(name)
}

/// A `golden.safetensors`.
#[derive(Debug)]
pub struct Golden {
    values: HashMap<String, Vec<f64>>,
}

impl Golden {
    /// Reads the one in `folder`.
    pub fn read(folder: &Path) -> Self {
        let tensors = read_tensors(&folder.join("golden.safetensors"));
        Self {
            values: tensors
                .into_iter()
                .map(|(name, tensor)| (name, tensor.values))
                .collect(),
        }
    }

    /// The prompt of this length.
    pub fn tokens(&self, length: usize) -> Vec<u32> {
        self.values[&format!("tokens.{length}")]
            .iter()
            .map(|id| *id as u32)
            .collect()
    }

    /// Logits (length, V) flattened; `kind` is `logits` or `logits_bf16`.
    pub fn logits(&self, kind: &str, length: usize) -> &[f64] {
        &self.values[&format!("{kind}.{length}")]
    }
}

/// A tensor's shape and its values, widened.
#[derive(Debug, Clone)]
pub struct Values {
    /// Slowest axis first.
    pub shape: Vec<usize>,
    /// Row-major.
    pub values: Vec<f64>,
}

/// Every tensor of a safetensors file.
pub fn read_tensors(path: &Path) -> BTreeMap<String, Values> {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = SafeTensors::deserialize(&bytes).expect("a fixture is well-formed");
    let widen = |(name, view): (String, TensorView<'_>)| {
        let (shape, values) = (view.shape().to_vec(), widen(view.dtype(), view.data()));
        (name, Values { shape, values })
    };
    file.tensors().into_iter().map(widen).collect()
}

/// Every weight of a model folder, one file or several.
pub fn read_weights(folder: &Path) -> BTreeMap<String, Values> {
    let files = std::fs::read_dir(folder).expect("a fixture's folder");
    let mut all = BTreeMap::new();
    for file in files {
        let path = file.expect("a readable folder").path();
        let name = path
            .file_name()
            .expect("a file")
            .to_string_lossy()
            .into_owned();
        if name.starts_with("model") && name.ends_with(".safetensors") {
            all.append(&mut read_tensors(&path));
        }
    }
    all
}

fn widen(dtype: Dtype, bytes: &[u8]) -> Vec<f64> {
    let pairs = bytes
        .chunks_exact(2)
        .map(|b| u16::from_le_bytes([b[0], b[1]]));
    let quads = bytes
        .chunks_exact(4)
        .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    match dtype {
        Dtype::F16 => pairs.map(|bits| f16::from_bits(bits).to_f64()).collect(),
        Dtype::BF16 => pairs.map(|bits| bf16::from_bits(bits).to_f64()).collect(),
        Dtype::F32 => quads.map(|bits| f64::from(f32::from_bits(bits))).collect(),
        Dtype::U32 => quads.map(f64::from).collect(),
        other => panic!("a fixture holds {other:?}"),
    }
}
