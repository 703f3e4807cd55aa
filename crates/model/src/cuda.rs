//! The decoder on an NVIDIA device: the same model as [`crate::Llama`], whose weights, cache,
//! hidden states and logits stay on the device. Only token ids go there, only answers come back.
//!
//! Everything a step needs is allocated when the model is loaded; steps that only decode are
//! recorded once for each number of rows and replayed.

mod adapters;
mod decoder;
mod draws;
mod forward;
mod kv;
mod plan;
mod weights;
mod workspace;

use crate::logits::{Draws, DrawsOf, Hidden, Logits, Place};
use crate::{
    Adapter, AdapterId, CausalLm, DrawAnswer, DrawQuestion, ForwardBatch, KvPool, KvType,
    LoadOptions, ModelConfig, ModelError, ScoreAnswer, ScoreQuestion,
};
use adapters::Adapters;
use candle_core::Tensor;
pub use decoder::{CudaDecoder, CudaNorms, CudaRows};
use forward::Forward;
use kernels::SequenceSpan;
use kernels::cuda::{Asked, Buffer, Device, Graph, Question};
use kernels::sampling::SampleError;
pub(crate) use kv::CudaKv;
use plan::{GraphKey, NOT_DRAWN, StepArrays};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use weights::Weights;
use workspace::Workspace;

/// Recorded steps that are kept.
const GRAPHS_MAX: usize = 96;
/// Memory that recorded steps and the driver's own growth are left.
const RESERVE_BYTES: u64 = 512 << 20;

/// Whether a row's bits may depend on its batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Determinism {
    /// They may: the fastest kernel for each number of rows.
    #[default]
    Loose,
    /// They depend on the row and its own context alone, as on the processor.
    Strict,
}

/// How a model is held on a device, and how large its steps may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CudaOptions {
    /// What weight matrices become.
    pub load: LoadOptions,
    /// Tokens of a step.
    pub max_tokens: usize,
    /// Sequences of a step.
    pub max_sequences: usize,
    /// Tokens of a sequence.
    pub context_tokens: usize,
    /// Tokens in a KV block (N).
    pub block_size: usize,
    /// Rows of logits held at a time.
    pub logit_rows: usize,
    /// Type of the cache that the model will be used with.
    pub kv_type: KvType,
    /// Whether batches may show.
    pub determinism: Determinism,
}

impl CudaOptions {
    /// The usual sizes for a context of `context_tokens`.
    pub fn new(load: LoadOptions, context_tokens: usize, kv_type: KvType) -> Self {
        Self {
            load,
            max_tokens: 2048,
            max_sequences: 256,
            context_tokens,
            block_size: 16,
            logit_rows: 256,
            kv_type,
            determinism: Determinism::Loose,
        }
    }
}

/// A model of the Llama family on a device.
pub struct CudaLlama {
    device: Device,
    config: ModelConfig,
    weights: Arc<Weights>,
    options: CudaOptions,
    adapters: Adapters,
    state: RefCell<State>,
}

/// What steps change.
struct State {
    work: Workspace,
    graphs: BTreeMap<GraphKey, Graph>,
    /// The pool that the recorded steps write to.
    kv_id: Option<u64>,
    /// Number of the step whose hidden states are there.
    epoch: u64,
    /// Number of the logits that are there.
    logits_epoch: u64,
    /// The device's number of each question of the last draw, [`NOT_DRAWN`] of those that it
    /// was not asked.
    questions: Vec<u32>,
}

/// Tokens that the device draws.
#[derive(Debug)]
pub(crate) struct CudaDraws {
    run: Asked,
    /// What each question that it was asked wants to know of the likeliest tokens.
    logprobs: Vec<Option<usize>>,
    problems: Vec<Option<SampleError>>,
}

/// Logits of some rows, on the device until the next are asked for.
#[derive(Clone, Copy)]
pub(crate) struct CudaLogits<'a> {
    model: &'a CudaLlama,
    rows: usize,
    epoch: u64,
}

impl std::fmt::Debug for CudaLogits<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CudaLogits({} rows, number {})", self.rows, self.epoch)
    }
}

impl CudaLlama {
    /// A model around weights that others may share, without adapters.
    ///
    /// # Errors
    /// Not enough memory for the largest step.
    pub fn of(decoder: CudaDecoder, options: CudaOptions) -> Result<Self, ModelError> {
        let CudaDecoder {
            device,
            config,
            weights,
        } = decoder;
        let failed = |source| ModelError::compute("the workspace on the device", source);
        let work = Workspace::new(&device, &config, &weights, &options).map_err(failed)?;
        Ok(Self {
            device,
            config,
            weights,
            options,
            adapters: Adapters::default(),
            state: RefCell::new(State {
                work,
                graphs: BTreeMap::new(),
                kv_id: None,
                epoch: 0,
                logits_epoch: 0,
                questions: Vec::new(),
            }),
        })
    }

    /// The weights, to be shared.
    pub fn decoder(&self) -> CudaDecoder {
        CudaDecoder {
            device: self.device.clone(),
            config: self.config.clone(),
            weights: Arc::clone(&self.weights),
        }
    }

    /// Reads an adapter in PEFT's layout and checks that it fits this model.
    ///
    /// # Errors
    /// A file missing or damaged, a setting that is not supported, tensors that do not fit.
    pub fn load_adapter(&self, folder: &Path) -> Result<Adapter, ModelError> {
        Adapter::load(folder, &self.config, self.weights.rope_layout)
    }

    /// Bytes that the weights take on the device.
    pub fn weight_bytes(&self) -> usize {
        self.weights.size_in_bytes()
    }

    /// Tokens that a KV pool can hold in the memory that is left after the largest step was
    /// computed once, in whole blocks.
    ///
    /// # Errors
    /// The largest step does not run: with the arithmetic.
    pub fn kv_tokens_that_fit(&self) -> Result<usize, ModelError> {
        self.largest_step()?;
        let (free, _) = self
            .device
            .memory()
            .map_err(|source| ModelError::compute("the device's memory", source))?;
        let per_token = KvPool::bytes_per_token(&self.config, self.options.kv_type) as u64;
        let tokens = free.saturating_sub(RESERVE_BYTES) / per_token.max(1);
        let slots = tokens.min(u64::from(u32::MAX) / 2) as usize;
        Ok(slots / self.options.block_size * self.options.block_size)
    }

    /// Computes a prompt as long as a step, and the logits of as many rows as are held, so that
    /// whatever libraries allocate at their first use is allocated.
    fn largest_step(&self) -> Result<(), ModelError> {
        let tokens = self.options.max_tokens.min(self.options.context_tokens);
        let block_size = self.options.block_size;
        let blocks = tokens.div_ceil(block_size);
        let kv = self.kv_pool(blocks, block_size, self.options.kv_type)?;
        let numbers: Vec<u32> = (0u32..).take(tokens).collect();
        let asked = tokens.min(self.options.logit_rows);
        let batch = ForwardBatch {
            tokens: vec![0; tokens],
            positions: numbers.clone(),
            slots: numbers.clone(),
            spans: vec![SequenceSpan {
                query: 0..tokens,
                context_len: tokens,
                blocks: numbers[..blocks].to_vec(),
            }],
            adapters: Vec::new(),
            logit_rows: numbers[tokens - asked..].to_vec(),
            drawn: Vec::new(),
        };
        let hidden = self.hidden(&batch, &kv)?;
        self.logits(&hidden, 0..asked)?;
        self.device
            .synchronize()
            .map_err(|source| ModelError::compute("the largest step", source))
    }

    /// Runs or replays a step.
    fn compute(&self, state: &mut State, kv: &CudaKv, mut step: StepArrays) -> kernels::Result<()> {
        let limits = workspace::limits(&self.config, &self.options);
        if state.kv_id != Some(kv.id()) || state.graphs.len() >= GRAPHS_MAX {
            // One of them may still run.
            self.device.synchronize()?;
            state.graphs.clear();
            state.kv_id = Some(kv.id());
        }
        let rows_max = plan::bucket(self.options.max_sequences);
        let key = step.graph_key(rows_max, limits.row_splits);
        if let Some(key) = key {
            step.pad(key);
        }
        let State { work, .. } = &mut *state;
        work.inputs.upload(&step)?;
        if !step.drawn.is_empty() {
            // Behind the copy and before whatever reads the tokens, recorded or not.
            let (index, tokens) = (work.inputs.drawn(), work.inputs.tokens());
            work.sampler.take_drawn(index, tokens, step.drawn.len())?;
        }
        let forward = Forward {
            device: &self.device,
            config: &self.config,
            weights: &self.weights,
            adapters: &self.adapters,
            work: &state.work,
            kv,
            step: &step,
        };
        let Some(key) = key else {
            return forward.run();
        };
        if let Some(graph) = state.graphs.get(&key) {
            return graph.launch();
        }
        // Whatever is done at a first use is done before it is recorded.
        forward.run()?;
        let graph = self.device.capture(|| forward.run())?;
        state.graphs.insert(key, graph);
        Ok(())
    }

    /// Recorded steps name tables of adapters that are gone.
    fn forget_graphs(&mut self) -> kernels::Result<()> {
        let state = self.state.get_mut();
        state.graphs.clear();
        let len = self.adapters.scratch_len(state.work.rows());
        if state.work.lora.len() < len {
            state.work.lora = Buffer::zeros(&self.device, len)?;
        }
        Ok(())
    }
}

impl State {
    /// Which of the device's draws gives each row of a checked batch its token.
    fn draws_of(&self, batch: &ForwardBatch) -> Result<Vec<u32>, String> {
        if batch.drawn.is_empty() {
            return Ok(Vec::new());
        }
        let mut by_row = vec![NOT_DRAWN; batch.tokens.len()];
        for (row, question) in &batch.drawn {
            let number = self.questions.get(*question).copied();
            by_row[*row as usize] = number.ok_or_else(|| {
                let asked = self.questions.len();
                format!("row {row} takes what question {question} of {asked} draws")
            })?;
        }
        Ok(by_row)
    }
}

impl CausalLm for CudaLlama {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn kv_pool(
        &self,
        num_blocks: usize,
        block_size: usize,
        kv_type: KvType,
    ) -> Result<KvPool, ModelError> {
        if (block_size, kv_type) != (self.options.block_size, self.options.kv_type) {
            let problem = format!(
                "a KV pool of {kv_type:?} in blocks of {block_size}; the model was loaded for {:?} in blocks of {}",
                self.options.kv_type, self.options.block_size
            );
            return Err(ModelError::Batch { problem });
        }
        KvPool::on_device(
            &self.device,
            &self.config,
            (num_blocks, block_size),
            kv_type,
        )
    }

    fn hidden(&self, batch: &ForwardBatch, kv: &KvPool) -> Result<Hidden, ModelError> {
        batch.check(&self.config, kv)?;
        let limits = workspace::limits(&self.config, &self.options);
        let mut step = StepArrays::of(batch, self.adapters.indices(), limits)
            .map_err(|problem| ModelError::Batch { problem })?;
        let mut state = self.state.borrow_mut();
        step.drawn = state
            .draws_of(batch)
            .map_err(|problem| ModelError::Batch { problem })?;
        state.epoch += 1;
        state.logits_epoch += 1;
        let epoch = state.epoch;
        self.compute(&mut state, kv.device()?, step)
            .map_err(|source| ModelError::compute("the forward pass", source))?;
        let rows = batch.logit_rows.len();
        Ok(Hidden(Place::Device { rows, epoch }))
    }

    fn logits(&self, hidden: &Hidden, asked: Range<usize>) -> Result<Logits<'_>, ModelError> {
        let mut state = self.state.borrow_mut();
        let Place::Device { rows, epoch } = hidden.0 else {
            let problem = "hidden states that lie on the host".into();
            return Err(ModelError::Batch { problem });
        };
        let fits = asked.len() <= self.options.logit_rows;
        if epoch != state.epoch || asked.end > rows || asked.start > asked.end || !fits {
            let problem = format!(
                "logits of rows {asked:?} of step {epoch}, expected up to {} of {rows} rows of step {}",
                self.options.logit_rows, state.epoch
            );
            return Err(ModelError::Batch { problem });
        }
        state.logits_epoch += 1;
        let work = &state.work;
        let normed = work.normed.matrix(self.config.hidden_size);
        let out = work.logits.matrix(self.config.vocab_size);
        work.products
            .multiply(
                self.weights.head(),
                normed.rows_from(asked.start),
                asked.len(),
                out,
            )
            .map_err(|source| ModelError::compute("the logits", source))?;
        Ok(Logits::on_device(CudaLogits {
            model: self,
            rows: asked.len(),
            epoch: state.logits_epoch,
        }))
    }

    fn logit_rows_max(&self) -> usize {
        self.options.logit_rows
    }

    fn draws_later(&self) -> bool {
        true
    }

    fn drawn(&self, draws: Draws) -> Result<Vec<Result<DrawAnswer, SampleError>>, ModelError> {
        let DrawsOf::Device(draws) = draws.0 else {
            return draws.on_host();
        };
        let state = self.state.borrow();
        let reported = state.work.sampler.answers(&draws.run);
        let reported = reported.map_err(|source| ModelError::compute("drawing tokens", source))?;
        let answers = draws.logprobs.into_iter().zip(reported);
        let answers = answers.map(|(logprobs, reported)| draws::draw_answer(logprobs, reported));
        Ok(draws::in_order(answers, draws.problems))
    }

    fn add_adapter(&mut self, adapter: Adapter) -> Result<AdapterId, ModelError> {
        let failed = |source| ModelError::compute("an adapter", source);
        // A step that still runs reads the tables of those that are there.
        self.device.synchronize().map_err(failed)?;
        let id = self.adapters.add(&self.device, &self.config, adapter)?;
        self.forget_graphs().map_err(failed)?;
        Ok(id)
    }

    fn remove_adapter(&mut self, id: AdapterId) -> Option<Adapter> {
        // As above; a device that has failed says so at its next use.
        let _ = self.device.synchronize();
        let removed = self.adapters.remove(&self.device, &self.config, id);
        self.state.get_mut().graphs.clear();
        removed
    }
}

impl CudaLogits<'_> {
    pub(crate) fn draw(
        &self,
        questions: &[DrawQuestion],
    ) -> Result<Vec<Result<DrawAnswer, SampleError>>, ModelError> {
        let draws = self.ask(questions)?;
        self.model.drawn(Draws(DrawsOf::Device(draws)))
    }

    pub(crate) fn ask(&self, questions: &[DrawQuestion]) -> Result<CudaDraws, ModelError> {
        let (asked, problems) = draws::askable(questions, draws::problem_of_draw);
        let on_device: Vec<_> = asked.iter().map(|q| draws::draw_question(q)).collect();
        let run = self.start(&on_device, draws::numbers(&problems))?;
        Ok(CudaDraws {
            run,
            logprobs: asked.iter().map(|question| question.logprobs).collect(),
            problems,
        })
    }

    pub(crate) fn score(
        &self,
        questions: &[ScoreQuestion],
    ) -> Result<Vec<Result<ScoreAnswer, SampleError>>, ModelError> {
        let (asked, problems) = draws::askable(questions, draws::problem_of_score);
        let on_device: Vec<_> = asked.into_iter().map(draws::score_question).collect();
        if on_device.is_empty() {
            return Ok(draws::in_order([], problems));
        }
        let run = self.start(&on_device, Vec::new())?;
        let state = self.model.state.borrow();
        let reported = state.work.sampler.answers(&run);
        let reported = reported.map_err(|source| ModelError::compute("looking up", source))?;
        let answers = reported.into_iter().map(draws::score_answer);
        Ok(draws::in_order(answers, problems))
    }

    pub(crate) fn to_host(self) -> Result<Tensor, ModelError> {
        let vocab_size = self.model.config.vocab_size;
        let read = || -> kernels::Result<Tensor> {
            let state = self.model.state.borrow();
            let values = state.work.logits.read_range(0..self.rows * vocab_size)?;
            let shape = (self.rows, vocab_size);
            Ok(Tensor::from_vec(values, shape, &candle_core::Device::Cpu)?)
        };
        self.check()?;
        read().map_err(|source| ModelError::compute("reading logits", source))
    }

    /// `numbers`: of the questions that draw.
    fn start(&self, questions: &[Question<'_>], numbers: Vec<u32>) -> Result<Asked, ModelError> {
        self.check()?;
        let mut state = self.model.state.borrow_mut();
        state.questions = numbers;
        let Workspace {
            logits, sampler, ..
        } = &mut state.work;
        let logits = logits.matrix(self.model.config.vocab_size);
        sampler
            .run(logits, self.rows, questions)
            .map_err(|source| ModelError::compute("asking for tokens", source))
    }

    /// The logits are still those that were asked for.
    fn check(&self) -> Result<(), ModelError> {
        let now = self.model.state.borrow().logits_epoch;
        if now == self.epoch {
            return Ok(());
        }
        let problem = format!(
            "logits number {}, there are those of number {now}",
            self.epoch
        );
        Err(ModelError::Batch { problem })
    }
}
