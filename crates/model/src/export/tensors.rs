//! The tensors of a GGUF file: laid out, then encoded a few rows at a time.

use super::GgufWeights;
use super::file::Output;
use crate::weights::{
    Loader, Names, Norm, Projection, ROPE_DIVISORS, RawTensor, WeightFiles, widen_into,
};
use crate::{Adapter, AdapterPart, GgufHead, LoadAs, ModelConfig, ModelError, RopeScaling};
use candle_core::{Device, Tensor};
use kernels::{RopeLayout, WeightFormat, encode_rows};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};

/// Values held in f32 at a time.
const VALUES: usize = 1 << 22;

/// All tensors in the order of the file.
pub(super) struct Tensors<'a> {
    files: &'a WeightFiles,
    all: Vec<Planned<'a>>,
    wanted: GgufWeights,
}

struct Planned<'a> {
    name: String,
    shape: Vec<usize>,
    data: Data<'a>,
}

enum Data<'a> {
    /// f32.
    Vector(Vec<f32>),
    Matrix(Matrix<'a>),
}

struct Matrix<'a> {
    /// In the folder.
    name: String,
    raw: RawTensor<'a>,
    format: WeightFormat,
    /// Which row of the folder's matrix each row is, where they are reordered.
    order: Option<Vec<u32>>,
    added: Option<AdapterPart>,
}

/// What a matrix is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Gives the logits, and may be the embedding as well.
    Output,
    Other,
}

/// What is being laid out.
struct Plan<'a, 'b> {
    load: &'b Loader<'a>,
    config: &'b ModelConfig,
    layout: RopeLayout,
    wanted: GgufWeights,
    added: BTreeMap<(usize, Projection), AdapterPart>,
    all: Vec<Planned<'a>>,
}

impl<'a> Tensors<'a> {
    /// Finds every tensor in the folder's files and decides what it becomes.
    ///
    /// # Errors
    /// A tensor that is missing, of another shape or type, or one that no part of the model uses.
    pub(super) fn plan(
        files: &'a WeightFiles,
        config: &ModelConfig,
        adapter: Option<&Adapter>,
        wanted: GgufWeights,
    ) -> Result<Self, ModelError> {
        let load = Loader::new(files, LoadAs::Stored);
        let parts = adapter.into_iter().flat_map(Adapter::parts);
        let mut plan = Plan {
            load: &load,
            config,
            layout: Names::Gguf.rope_layout(config.architecture),
            wanted,
            added: parts
                .map(|part| ((part.layer, part.projection), part))
                .collect(),
            all: Vec::new(),
        };
        plan.run()?;
        let all = plan.all;
        load.finish(config, Names::Transformers)?;
        Ok(Self { files, all, wanted })
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    fn each_matrix(&self) -> impl Iterator<Item = (&Planned<'a>, &Matrix<'a>)> {
        self.all.iter().filter_map(|planned| match &planned.data {
            Data::Matrix(matrix) => Some((planned, matrix)),
            Data::Vector(_) => None,
        })
    }

    /// Matrices by the name of their type.
    pub(super) fn matrices(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for (_, matrix) in self.each_matrix() {
            *counts.entry(matrix.format.name()).or_default() += 1;
        }
        counts
    }

    /// Matrices that the adapter is added to.
    pub(super) fn merged(&self) -> usize {
        self.each_matrix()
            .filter(|(_, matrix)| matrix.added.is_some())
            .count()
    }

    /// The type that stands for the whole file: the one asked for, else that of most values.
    pub(super) fn file_type(&self) -> WeightFormat {
        if let Some(format) = wanted_format(self.wanted, Role::Other) {
            return format;
        }
        let mut values: BTreeMap<u32, (usize, WeightFormat)> = BTreeMap::new();
        for (planned, matrix) in self.each_matrix() {
            let one = values
                .entry(matrix.format.ggml_id())
                .or_insert((0, matrix.format));
            one.0 += planned.shape.iter().product::<usize>();
        }
        let most = values.into_values().max_by_key(|(count, _)| *count);
        most.map_or(WeightFormat::F32, |(_, format)| format)
    }

    /// Says which matrices could not have the type asked for.
    pub(super) fn note(&self) -> Option<String> {
        let role = |planned: &Planned<'_>| self.role_of(&planned.name);
        let mut others = self.each_matrix().filter(|(planned, matrix)| {
            wanted_format(self.wanted, role(planned)).is_some_and(|want| want != matrix.format)
        });
        let (first, matrix) = others.next()?;
        let asked = wanted_format(self.wanted, role(first))?;
        Some(format!(
            "{} and {} other matrices are {} and not {}: their rows of {} are no whole blocks of {}",
            first.name,
            others.count(),
            matrix.format.name(),
            asked.name(),
            first.shape[1],
            asked.block_size(),
        ))
    }

    fn role_of(&self, name: &str) -> Role {
        let output = format!("{}.weight", Names::Gguf.output());
        let has_output = self.all.iter().any(|planned| planned.name == output);
        let embedding = format!("{}.weight", Names::Gguf.embedding());
        match name == output || (!has_output && name == embedding) {
            true => Role::Output,
            false => Role::Other,
        }
    }

    /// Adds all of them to the head of a file.
    pub(super) fn describe(&self, head: &mut GgufHead) {
        for planned in &self.all {
            let id = planned.format().ggml_id();
            head.tensor(&*planned.name, &planned.shape, id, planned.bytes());
        }
    }

    /// Writes the data of all tensors, each with its padding.
    ///
    /// # Errors
    /// A value that the type cannot hold; an output that cannot be written.
    pub(super) fn write(
        &self,
        out: &mut Output,
        progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, ModelError> {
        let total = self.all.iter().map(|one| one.bytes() as u64).sum();
        let mut done = 0u64;
        for planned in &self.all {
            match &planned.data {
                Data::Vector(values) => {
                    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                    out.write(&bytes)?;
                    done += bytes.len() as u64;
                }
                Data::Matrix(matrix) => {
                    let (rows, row) = (planned.shape[0], planned.shape[1]);
                    let step = (VALUES / row).max(1);
                    for first in (0..rows).step_by(step) {
                        let bytes = matrix.encoded(first..rows.min(first + step))?;
                        out.write(&bytes)?;
                        done += bytes.len() as u64;
                        if progress(done, total).is_break() {
                            return Ok(ControlFlow::Break(()));
                        }
                    }
                    self.files.release(&matrix.name);
                }
            }
            out.write(&vec![0; GgufHead::padding_after(planned.bytes())])?;
        }
        Ok(ControlFlow::Continue(()))
    }
}

impl Planned<'_> {
    fn format(&self) -> WeightFormat {
        match &self.data {
            Data::Vector(_) => WeightFormat::F32,
            Data::Matrix(matrix) => matrix.format,
        }
    }

    fn bytes(&self) -> usize {
        let values: usize = self.shape.iter().product();
        values / self.format().block_size() * self.format().block_bytes()
    }
}

impl Plan<'_, '_> {
    fn run(&mut self) -> Result<(), ModelError> {
        let (from, to) = (Names::Transformers, Names::Gguf);
        let config = self.config;
        let (vocab, hidden, head_dim) = (config.vocab_size, config.hidden_size, config.head_dim);
        let embedding = match config.tie_word_embeddings {
            true => Role::Output,
            false => Role::Other,
        };
        let stems = [from.embedding(), to.embedding()].map(str::to_owned);
        self.matrix(stems, (vocab, hidden), embedding, None)?;
        for layer in 0..config.num_layers {
            let stems = |norm| [from.norm(layer, norm), to.norm(layer, norm)];
            self.vector(stems(Norm::Attention), "weight", hidden, None)?;
            if config.qk_norm {
                self.vector(stems(Norm::HeadsOfQ), "weight", head_dim, None)?;
                self.vector(stems(Norm::HeadsOfK), "weight", head_dim, None)?;
            }
            self.vector(stems(Norm::Mlp), "weight", hidden, None)?;
            for projection in Projection::ALL {
                self.projection(layer, projection)?;
            }
        }
        let stems = [from.final_norm(), to.final_norm()].map(str::to_owned);
        self.vector(stems, "weight", hidden, None)?;
        if !config.tie_word_embeddings {
            let stems = [from.output(), to.output()].map(str::to_owned);
            self.matrix(stems, (vocab, hidden), Role::Output, None)?;
        }
        if let RopeScaling::Llama3 { .. } = config.rope.scaling {
            let divisors = divisors(config);
            self.all.push(Planned {
                name: ROPE_DIVISORS.to_owned(),
                shape: vec![divisors.len()],
                data: Data::Vector(divisors),
            });
        }
        Ok(())
    }

    fn projection(&mut self, layer: usize, projection: Projection) -> Result<(), ModelError> {
        let stems = [Names::Transformers, Names::Gguf].map(|n| n.projection(layer, projection));
        let shape = projection.shape(self.config);
        let rotated = matches!(projection, Projection::Q | Projection::K);
        let order = (rotated && self.layout != RopeLayout::Halves)
            .then(|| RopeLayout::Halves.rows_for(self.layout, shape.0, self.config.head_dim));
        if projection.has_bias(self.config) {
            self.vector(stems.clone(), "bias", shape.0, order.as_deref())?;
        }
        let added = self.added.remove(&(layer, projection));
        self.matrix(stems, shape, Role::Other, order)?;
        if let Some(Planned {
            data: Data::Matrix(matrix),
            ..
        }) = self.all.last_mut()
        {
            matrix.added = added;
        }
        Ok(())
    }

    /// A vector named by these stems in the folder and in the file.
    fn vector(
        &mut self,
        [from, to]: [String; 2],
        kind: &str,
        len: usize,
        order: Option<&[u32]>,
    ) -> Result<(), ModelError> {
        let mut values = self.load.floats(&format!("{from}.{kind}"), len)?;
        if let Some(order) = order {
            values = order.iter().map(|row| values[*row as usize]).collect();
        }
        self.all.push(Planned {
            name: format!("{to}.{kind}"),
            shape: vec![len],
            data: Data::Vector(values),
        });
        Ok(())
    }

    /// A matrix named by these stems in the folder and in the file.
    fn matrix(
        &mut self,
        [from, to]: [String; 2],
        (out, input): (usize, usize),
        role: Role,
        order: Option<Vec<u32>>,
    ) -> Result<(), ModelError> {
        let name = format!("{from}.weight");
        let raw = self.load.take(&name, &[out, input])?;
        let asked = wanted_format(self.wanted, role).unwrap_or(raw.format);
        let data = Data::Matrix(Matrix {
            format: fitting(asked, input),
            name,
            raw,
            order,
            added: None,
        });
        self.all.push(Planned {
            name: format!("{to}.weight"),
            shape: vec![out, input],
            data,
        });
        Ok(())
    }
}

/// What a matrix is to become; `None` = what it is stored as.
fn wanted_format(wanted: GgufWeights, role: Role) -> Option<WeightFormat> {
    Some(match (wanted, role) {
        (GgufWeights::Stored, _) => return None,
        (GgufWeights::F32, _) => WeightFormat::F32,
        (GgufWeights::F16, _) => WeightFormat::F16,
        (GgufWeights::Bf16, _) => WeightFormat::BF16,
        (GgufWeights::Q8_0, _) => WeightFormat::Q8_0,
        (GgufWeights::Q6K, _) => WeightFormat::Q6K,
        (GgufWeights::Q4K | GgufWeights::Q4_0, Role::Output) => WeightFormat::Q6K,
        (GgufWeights::Q4K, Role::Other) => WeightFormat::Q4K,
        (GgufWeights::Q4_0, Role::Other) => WeightFormat::Q4_0,
    })
}

/// The format asked for, or the next one that rows of this length fit in.
fn fitting(asked: WeightFormat, row: usize) -> WeightFormat {
    let fits = |format: &WeightFormat| row.is_multiple_of(format.block_size());
    let ladder = [asked, WeightFormat::Q8_0, WeightFormat::F16];
    ladder.into_iter().find(fits).unwrap_or(WeightFormat::F16)
}

impl Matrix<'_> {
    /// These rows of the file's matrix in its format.
    ///
    /// # Errors
    /// A value that the format cannot hold.
    fn encoded(&self, rows: Range<usize>) -> Result<Cow<'_, [u8]>, ModelError> {
        let (out, row) = (self.raw.shape[0], self.raw.shape[1]);
        let row_bytes = self.raw.bytes.len() / out;
        let untouched = self.order.is_none() && self.added.is_none();
        if untouched && self.format == self.raw.format {
            let bytes = &self.raw.bytes[rows.start * row_bytes..rows.end * row_bytes];
            return Ok(Cow::Borrowed(bytes));
        }
        let sources: Vec<u32> = match &self.order {
            Some(order) => order[rows].to_vec(),
            None => rows
                .map(|row| u32::try_from(row).expect("row counts of models fit"))
                .collect(),
        };
        let mut values = vec![0.0; sources.len() * row];
        for (source, values) in sources.iter().zip(values.chunks_exact_mut(row)) {
            let start = *source as usize * row_bytes;
            let bytes = &self.raw.bytes[start..start + row_bytes];
            widen_into(bytes, self.raw.format, values);
        }
        if let Some(part) = &self.added {
            let failed = |source| ModelError::compute(&*self.name, source);
            add(part, &sources, &mut values).map_err(failed)?;
        }
        self.check(&values)?;
        let failed = |source| ModelError::compute(&*self.name, source);
        let bytes = encode_rows(&values, self.format, row).map_err(failed)?;
        Ok(Cow::Owned(bytes))
    }

    fn check(&self, values: &[f32]) -> Result<(), ModelError> {
        // What rounds to infinity in f16 is no weight of any model that works.
        let (most, expected) = match self.format {
            WeightFormat::F32 | WeightFormat::BF16 => return Ok(()),
            WeightFormat::F16 => (65_519.0, "finite numbers that f16 can hold"),
            _ => (f32::MAX, "finite numbers, to be quantised"),
        };
        let wrong = values
            .iter()
            .find(|value| value.is_nan() || value.abs() > most);
        match wrong {
            None => Ok(()),
            Some(value) => Err(ModelError::field(
                self.raw.path,
                &*self.name,
                expected,
                value.to_string(),
            )),
        }
    }
}

/// Adds an adapter's share to these rows of its matrix, in f32.
fn add(part: &AdapterPart, rows: &[u32], values: &mut [f32]) -> candle_core::Result<()> {
    let rows = Tensor::new(rows, &Device::Cpu)?;
    let share = (part.b.index_select(&rows, 0)?.matmul(&part.a)? * f64::from(part.scale))?;
    let share = share.flatten_all()?.to_vec1::<f32>()?;
    for (value, share) in values.iter_mut().zip(share) {
        *value += share;
    }
    Ok(())
}

/// What each frequency is divided by, so that the quotient is the very number that the config
/// gives.
fn divisors(config: &ModelConfig) -> Vec<f32> {
    let plain = crate::RopeConfig {
        scaling: RopeScaling::Default,
        ..config.rope.clone()
    };
    let stretched = config.rope.inverse_frequencies(config.head_dim, None);
    let plain = plain.inverse_frequencies(config.head_dim, None);
    let pairs = plain.into_iter().zip(stretched);
    pairs
        .map(|(plain, stretched)| {
            let (plain, stretched) = (plain as f32, stretched as f32);
            let divisor = plain / stretched;
            let near = [divisor, divisor.next_up(), divisor.next_down()];
            let exact = near.into_iter().find(|near| plain / near == stretched);
            exact.unwrap_or(divisor)
        })
        .collect()
}
