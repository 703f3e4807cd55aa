//! Weights that nobody trained, for measuring: every tensor of a model, cut out of one buffer
//! of normal numbers in the format asked for.

use super::{LoadAs, Names, Norm, Projection, RawTensor};
use crate::{ModelConfig, ModelError};
use indexmap::IndexMap;
use kernels::WeightFormat;
use std::path::PathBuf;

/// Values drawn; the buffers repeat them.
const PERIOD: usize = 1 << 20;
/// Spread of the weights: what transformers initialises with.
const SPREAD: f64 = 0.02;

/// The tensors of a model that exists in name only.
#[derive(Debug)]
pub(crate) struct RandomWeights {
    path: PathBuf,
    entries: IndexMap<String, Entry>,
    /// One buffer for each format that matrices have.
    buffers: Vec<(WeightFormat, Vec<u8>)>,
    /// Ones, f32: norms.
    ones: Vec<u8>,
}

#[derive(Debug)]
struct Entry {
    format: WeightFormat,
    shape: Vec<usize>,
    /// Bytes skipped in the buffer; `None` = all ones.
    offset: Option<usize>,
}

impl RandomWeights {
    /// Every tensor that `config` needs, matrices in the format that `load_as` makes of a
    /// checkpoint in bf16.
    ///
    /// # Errors
    /// A matrix that the format cannot hold.
    pub(crate) fn new(
        name: &str,
        config: &ModelConfig,
        load_as: LoadAs,
    ) -> Result<Self, ModelError> {
        let mut weights = Self {
            path: format!("<random {name}>").into(),
            entries: IndexMap::new(),
            buffers: Vec::new(),
            ones: Vec::new(),
        };
        let names = Names::Transformers;
        let (hidden, vocab) = (config.hidden_size, config.vocab_size);
        let (body, edge) = match load_as {
            LoadAs::Stored => (WeightFormat::BF16, WeightFormat::BF16),
            LoadAs::F32 => (WeightFormat::F32, WeightFormat::F32),
            LoadAs::Q8_0 => (WeightFormat::Q8_0, WeightFormat::Q8_0),
            LoadAs::Q4K => (WeightFormat::Q4K, WeightFormat::Q8_0),
        };
        weights.add_matrix(names.embedding(), edge, [vocab, hidden])?;
        if !config.tie_word_embeddings {
            weights.add_matrix(names.output(), edge, [vocab, hidden])?;
        }
        weights.add_ones(&format!("{}.weight", names.final_norm()), hidden);
        for layer in 0..config.num_layers {
            for (norm, len) in [(Norm::Attention, hidden), (Norm::Mlp, hidden)] {
                weights.add_ones(&format!("{}.weight", names.norm(layer, norm)), len);
            }
            for norm in [Norm::HeadsOfQ, Norm::HeadsOfK] {
                if config.qk_norm {
                    let name = format!("{}.weight", names.norm(layer, norm));
                    weights.add_ones(&name, config.head_dim);
                }
            }
            for projection in Projection::ALL {
                let stem = names.projection(layer, projection);
                let (out, input) = projection.shape(config);
                let fits = input.is_multiple_of(body.block_size());
                weights.add_matrix(&stem, if fits { body } else { edge }, [out, input])?;
                if projection.has_bias(config) {
                    weights.add(format!("{stem}.bias"), WeightFormat::F32, vec![out], 0);
                }
            }
        }
        weights.fill()?;
        Ok(weights)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    pub(crate) fn get(&self, name: &str) -> Result<RawTensor<'_>, ModelError> {
        let entry = self
            .entries
            .get(name)
            .ok_or_else(|| ModelError::missing(&self.path, name, "a tensor of this name"))?;
        let len = entry.len_in_bytes();
        let bytes = match entry.offset {
            None => &self.ones[..len],
            Some(offset) => {
                let mut buffers = self.buffers.iter();
                let held = buffers.find(|(format, _)| *format == entry.format);
                let (_, buffer) = held.expect("`fill` makes a buffer for each format");
                &buffer[offset..offset + len]
            }
        };
        Ok(RawTensor {
            path: &self.path,
            format: entry.format,
            shape: &entry.shape,
            bytes,
        })
    }

    fn add_ones(&mut self, name: &str, len: usize) {
        self.entries.insert(
            name.into(),
            Entry {
                format: WeightFormat::F32,
                shape: vec![len],
                offset: None,
            },
        );
    }

    fn add_matrix(
        &mut self,
        stem: &str,
        format: WeightFormat,
        shape: [usize; 2],
    ) -> Result<(), ModelError> {
        let name = format!("{stem}.weight");
        format
            .bytes(shape[0], shape[1])
            .map_err(|source| ModelError::compute(&name, source))?;
        // Matrices begin at different places, so that no two are the same.
        let skipped = self.entries.len() * 509 % (PERIOD / format.block_size());
        self.add(name, format, shape.to_vec(), skipped * format.block_bytes());
        Ok(())
    }

    fn add(&mut self, name: String, format: WeightFormat, shape: Vec<usize>, offset: usize) {
        let offset = Some(offset);
        let entry = Entry {
            format,
            shape,
            offset,
        };
        self.entries.insert(name, entry);
    }

    /// Makes the buffers that the entries are cut out of.
    fn fill(&mut self) -> Result<(), ModelError> {
        let values = normal_values();
        let mut longest: IndexMap<WeightFormat, usize> = IndexMap::new();
        let mut ones = 0;
        for entry in self.entries.values() {
            match entry.offset {
                None => ones = ones.max(entry.len_in_bytes()),
                Some(offset) => {
                    let most = longest.entry(entry.format).or_default();
                    *most = (*most).max(offset + entry.len_in_bytes());
                }
            }
        }
        self.ones = 1f32.to_le_bytes().repeat(ones / 4);
        for (format, len) in longest {
            let period = kernels::encode_rows(&values, format, format.block_size() * 32)
                .map_err(|source| ModelError::compute("random weights", source))?;
            let mut buffer = Vec::with_capacity(len);
            while buffer.len() < len {
                let rest = (len - buffer.len()).min(period.len());
                buffer.extend_from_slice(&period[..rest]);
            }
            self.buffers.push((format, buffer));
        }
        Ok(())
    }
}

impl Entry {
    fn len_in_bytes(&self) -> usize {
        let values: usize = self.shape.iter().product();
        values / self.format.block_size() * self.format.block_bytes()
    }
}

/// Normal numbers by Box and Muller from a counter (SplitMix64; Steele, Lea, Flood 2014).
fn normal_values() -> Vec<f32> {
    let mut state = 0u64;
    let mut uniform = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    };
    let mut values = Vec::with_capacity(PERIOD);
    for _ in 0..PERIOD / 2 {
        let radius = SPREAD * (-2.0 * (1.0 - uniform()).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * uniform()).sin_cos();
        values.push((radius * sin) as f32);
        values.push((radius * cos) as f32);
    }
    values
}
