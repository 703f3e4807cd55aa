//! Tokens drawn on the device: logits stay there, answers come back.

use super::backend::{Fields, Launch};
use super::buffer::{Buffer, Kind, Matrix, Pinned, View};
use super::device::Device;
use crate::error::{KernelError, Result};
use crate::sampling::{self, Penalties, SampleError, SamplingParams, Seen};

/// Words of a question and of an answer, as cuda/sample.cuh has them.
const QUESTION_WORDS: usize = 20;
const ANSWER_WORDS: usize = 8;
/// Likeliest tokens that can be reported of a row.
const TOP_MAX: usize = 256;
/// Logits that a row can have.
const VOCABULARY_MAX: usize = 256 * 2048;
/// What a question without edits or a mask has in their place.
const NONE: u32 = u32::MAX;

/// What is asked of one row of logits. Edits are applied in the order of the fields, as
/// [`crate::sampling`] does; the row itself stays as it is, so that several questions may ask of it.
#[derive(Debug, Clone, Default)]
pub struct Question<'a> {
    /// Which row.
    pub row: usize,
    /// How to draw, with a uniform number in [0, 1); `None` = report only.
    pub draw: Option<(SamplingParams, f64)>,
    /// Added to the logits of single tokens; each token once.
    pub bias: &'a [(u32, f32)],
    /// Lowers the logits of `seen`.
    pub penalties: Option<Penalties>,
    /// Tokens of prompt and output; each token once.
    pub seen: &'a [Seen],
    /// Token t is allowed if bit t % 32 of word t / 32 is set; words that are missing are zeros.
    pub mask: Option<&'a [u32]>,
    /// How many of the likeliest tokens of the raw row to report: at most 256.
    pub top: usize,
    /// Tokens whose raw log-probability to report.
    pub asked: &'a [u32],
}

/// A token drawn on the device.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DrawnAt {
    /// The token.
    pub token: u32,
    /// Log-probability under the distribution it was drawn from; 0 for a greedy draw.
    pub sampled_logprob: f32,
    /// Log-probability under the raw row; NaN if the raw row has a NaN.
    pub raw_logprob: f32,
}

/// The answer to a [`Question`].
#[derive(Debug, Clone, PartialEq)]
pub struct Reported {
    /// The draw, if one was asked for.
    pub drawn: Option<std::result::Result<DrawnAt, SampleError>>,
    /// Tokens that the mask allows, if there was one.
    pub allowed: Option<usize>,
    /// Of the raw row: the likeliest tokens with their log-probabilities, likeliest first, and those
    /// of the asked tokens in their order.
    pub raw: std::result::Result<RawReport, SampleError>,
}

/// What is reported of a raw row.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RawReport {
    /// Tokens and their log-probabilities, likeliest first, the lowest id of equals first.
    pub top: Vec<(u32, f32)>,
    /// Log-probabilities of the asked tokens.
    pub asked: Vec<f32>,
}

/// How large a [`Sampler`] is.
#[derive(Debug, Clone, Copy)]
pub struct SamplerLimits {
    /// Logits in a row (V): at most 524,288.
    pub vocabulary: usize,
    /// Questions that are worked on at once; each takes 8.1 bytes of memory per logit. More
    /// questions are answered in turns.
    pub concurrent: usize,
}

/// Draws tokens and reports log-probabilities, many rows at a time.
#[derive(Debug)]
pub struct Sampler {
    device: Device,
    limits: SamplerLimits,
    edited: Buffer<f32>,
    candidates: Buffer<u32>,
    run_max: Buffer<f32>,
    input: Buffer<u32>,
    output: Buffer<u32>,
    /// Runs take turns with the host's side, so that one may start before the answers of the
    /// one before it are read.
    host: [HostSide; 2],
    runs: usize,
    /// Questions of the last run.
    questions: usize,
}

/// What a run writes and reads on the host.
#[derive(Debug)]
struct HostSide {
    input: Pinned<u32>,
    output: Pinned<u32>,
}

impl HostSide {
    fn new(device: &Device) -> Result<Self> {
        Ok(Self {
            input: Pinned::zeros(device, 1024)?,
            output: Pinned::zeros(device, 1024)?,
        })
    }
}

/// Answers that are on their way to the host.
#[derive(Debug)]
pub struct Asked {
    /// Which of the runs.
    run: usize,
    pending: Vec<Pending>,
    parts: OutputParts,
}

/// What is needed to read an answer.
#[derive(Debug)]
struct Pending {
    draw: bool,
    mask: bool,
    asked: std::ops::Range<usize>,
}

/// Where the parts of the answers start, in words.
#[derive(Debug, Default, Clone, Copy)]
struct OutputParts {
    asked: usize,
    top_tokens: usize,
    top_logprobs: usize,
    end: usize,
    top_max: usize,
}

impl Sampler {
    /// With room for its work; what a batch brings along grows as needed.
    ///
    /// # Errors
    /// Too large a vocabulary, no concurrent question, not enough memory.
    pub fn new(device: &Device, limits: SamplerLimits) -> Result<Self> {
        let SamplerLimits {
            vocabulary,
            concurrent,
        } = limits;
        if vocabulary == 0 || vocabulary > VOCABULARY_MAX || concurrent == 0 {
            return Err(invalid(format!(
                "a vocabulary of {vocabulary} (1 to {VOCABULARY_MAX}), {concurrent} questions at once"
            )));
        }
        Ok(Self {
            device: device.clone(),
            limits,
            edited: Buffer::zeros(device, concurrent * vocabulary)?,
            candidates: Buffer::zeros(device, concurrent * vocabulary)?,
            run_max: Buffer::zeros(device, concurrent * vocabulary.div_ceil(64))?,
            input: Buffer::zeros(device, 1024)?,
            output: Buffer::zeros(device, 1024)?,
            host: [HostSide::new(device)?, HostSide::new(device)?],
            runs: 0,
            questions: 0,
        })
    }

    /// Starts the answers to `questions` about `rows` rows of logits (rows, V), f32.
    /// [`Sampler::answers`] waits for them, and may do so after the next run was started.
    ///
    /// # Errors
    /// Operands of another shape or type; a row, token or parameter out of range (names the
    /// question); not enough memory.
    pub fn run(
        &mut self,
        logits: Matrix<'_>,
        rows: usize,
        questions: &[Question<'_>],
    ) -> Result<Asked> {
        let shape = (rows, self.limits.vocabulary);
        logits.check("sample", "logits", &[Kind::F32], shape)?;
        for (index, question) in questions.iter().enumerate() {
            self.check(index, question, rows)?;
        }
        let packed = Packed::new(questions, self.limits);
        let top_max = questions.iter().map(|question| question.top).max();
        let top_max = top_max.unwrap_or(0);
        let asked = questions.len() * ANSWER_WORDS;
        let top_tokens = asked + packed.asked;
        let top_logprobs = top_tokens + questions.len() * top_max;
        let parts = OutputParts {
            asked,
            top_tokens,
            top_logprobs,
            end: top_logprobs + questions.len() * top_max,
            top_max,
        };
        self.runs += 1;
        self.questions = questions.len();
        let run = Asked {
            run: self.runs,
            pending: packed.pending,
            parts,
        };
        if questions.is_empty() {
            return Ok(run);
        }
        self.make_room(packed.words.len(), parts.end)?;
        let host = &mut self.host[self.runs % 2];
        host.input.get_mut()?[..packed.words.len()].copy_from_slice(&packed.words);
        self.input.upload(0, &mut host.input, packed.words.len())?;
        for first in (0..questions.len()).step_by(self.limits.concurrent) {
            let wave = &questions[first..questions.len().min(first + self.limits.concurrent)];
            let some = (first, wave.len());
            if wave.iter().any(is_edited) {
                self.launch("sample_edit", logits, some, (&packed.starts, parts))?;
            }
            self.launch("sample", logits, some, (&packed.starts, parts))?;
        }
        let host = &mut self.host[self.runs % 2];
        self.output.download(0..parts.end, &mut host.output)?;
        Ok(run)
    }

    /// Waits for the answers to the questions of a run, in their order.
    ///
    /// # Errors
    /// The device failed; two later runs have been started.
    pub fn answers(&self, asked: &Asked) -> Result<Vec<Reported>> {
        if asked.run + 1 < self.runs {
            let (run, last) = (asked.run, self.runs);
            return Err(invalid(format!(
                "the answers of run {run} are gone, the last is {last}"
            )));
        }
        if asked.pending.is_empty() {
            return Ok(Vec::new());
        }
        let words = self.host[asked.run % 2].output.get()?;
        let vocabulary = self.limits.vocabulary;
        let answer = |(index, pending): (usize, &Pending)| {
            let answer = &words[index * ANSWER_WORDS..][..ANSWER_WORDS];
            read_answer(answer, pending, vocabulary, || {
                raw_report(words, &asked.parts, index, pending)
            })
        };
        Ok(asked.pending.iter().enumerate().map(answer).collect())
    }

    /// Replaces `tokens[row]`, of `rows` rows, by what question `index[row]` of the last run
    /// drew, where there is such a question. Both (rows), u32, on the device: so that a step
    /// can follow before anybody has seen what was drawn.
    ///
    /// # Errors
    /// Operands of another type or length.
    pub fn take_drawn(&self, index: View<'_>, tokens: View<'_>, rows: usize) -> Result<()> {
        let op = "take_drawn";
        index.check(op, "index", Kind::U32, rows)?;
        tokens.check(op, "tokens", Kind::U32, rows)?;
        if rows == 0 {
            return Ok(());
        }
        let launch = Launch::new(op, [rows.div_ceil(256), 1, 1], 256)?
            .arg(self.output.address())
            .arg(self.questions as u32)
            .arg(index.address)
            .arg(tokens.address)
            .arg(rows as u32);
        self.device.backend().launch(&launch)
    }

    fn check(&self, index: usize, question: &Question<'_>, rows: usize) -> Result<()> {
        let problem = |what: String| Err(invalid(format!("question {index}: {what}")));
        if question.row >= rows {
            return problem(format!("row {} of {rows}", question.row));
        }
        if question.top > TOP_MAX {
            return problem(format!(
                "{} likeliest tokens, at most {TOP_MAX}",
                question.top
            ));
        }
        let vocabulary = self.limits.vocabulary;
        let bias = question.bias.iter().map(|(token, _)| *token);
        let seen = question.seen.iter().map(|seen| seen.token);
        let tokens = bias.chain(seen).chain(question.asked.iter().copied());
        if let Some(token) = tokens.into_iter().find(|&t| t as usize >= vocabulary) {
            let error = SampleError::UnknownToken { token, vocabulary };
            return problem(error.to_string());
        }
        match &question.draw {
            Some((params, uniform)) => {
                sampling::check(params, *uniform).or_else(|error| problem(error.to_string()))
            }
            None => Ok(()),
        }
    }

    fn make_room(&mut self, input: usize, output: usize) -> Result<()> {
        let device = &self.device;
        let host = &mut self.host[self.runs % 2];
        for (buffer, pinned, needed) in [
            (&mut self.input, &mut host.input, input),
            (&mut self.output, &mut host.output, output),
        ] {
            let len = needed.next_power_of_two();
            if buffer.len() < needed {
                // The device may still be at work on what it is given back.
                device.synchronize()?;
                *buffer = Buffer::zeros(device, len)?;
            }
            if pinned.len() < needed {
                *pinned = Pinned::zeros(device, len)?;
            }
        }
        Ok(())
    }

    fn launch(
        &self,
        kernel: &str,
        logits: Matrix<'_>,
        (first, count): (usize, usize),
        (starts, parts): (&InputStarts, OutputParts),
    ) -> Result<()> {
        let input = |word: usize| self.input.address() + 4 * word as u64;
        let output = |word: usize| self.output.address() + 4 * word as u64;
        let vocabulary = self.limits.vocabulary;
        let arguments = Fields::default()
            .u64(logits.address())
            .u64(input(0))
            .u64(output(0))
            .u64(self.edited.address())
            .u64(self.candidates.address())
            .u64(self.run_max.address())
            .u64(input(starts.bias_tokens))
            .u64(input(starts.bias_values))
            .u64(input(starts.seen_tokens))
            .u64(input(starts.seen_counts))
            .u64(input(starts.masks))
            .u64(input(starts.asked))
            .u64(output(parts.asked))
            .u64(output(parts.top_tokens))
            .u64(output(parts.top_logprobs))
            .u32(vocabulary as u32)
            .u32(logits.stride32())
            .u32(vocabulary.div_ceil(32) as u32)
            .u32(parts.top_max as u32)
            .u32(first as u32);
        // Sixteen logits a thread, in whole warps.
        let threads = (vocabulary / 16).next_power_of_two().clamp(128, 1024);
        let launch = Launch::new(kernel, [count, 1, 1], threads as u32)?.arg(arguments);
        self.device.backend().launch(&launch)
    }
}

fn is_edited(question: &Question<'_>) -> bool {
    question.draw.is_some()
        && (!question.bias.is_empty()
            || question.mask.is_some()
            || question.penalties.is_some() && !question.seen.is_empty())
}

/// Where the parts of the input start, in words; the questions start at 0.
#[derive(Debug, Default)]
struct InputStarts {
    bias_tokens: usize,
    bias_values: usize,
    seen_tokens: usize,
    seen_counts: usize,
    asked: usize,
    masks: usize,
}

/// Questions as words for the device.
struct Packed {
    words: Vec<u32>,
    starts: InputStarts,
    pending: Vec<Pending>,
    /// Tokens asked for by all questions.
    asked: usize,
}

impl Packed {
    fn new(questions: &[Question<'_>], limits: SamplerLimits) -> Self {
        let mut words = Vec::with_capacity(questions.len() * QUESTION_WORDS);
        let mut pending = Vec::with_capacity(questions.len());
        let (mut bias, mut seen, mut asked, mut masks) = (0, 0, 0, 0);
        for (index, question) in questions.iter().enumerate() {
            let seen_len = question.penalties.map_or(0, |_| question.seen.len());
            let (params, uniform) = question.draw.unwrap_or((GREEDY, 0.0));
            let penalties = question.penalties.unwrap_or(NO_PENALTIES);
            let edited = if is_edited(question) {
                (index % limits.concurrent) as u32
            } else {
                NONE
            };
            let mask = if question.mask.is_some() {
                masks as u32
            } else {
                NONE
            };
            words.extend([question.row as u32, edited, params.temperature.to_bits()]);
            words.extend([params.top_k, params.top_p.to_bits(), params.min_p.to_bits()]);
            let penalties = [
                penalties.repetition,
                penalties.presence,
                penalties.frequency,
            ];
            words.extend(penalties.map(f32::to_bits));
            words.extend([bias as u32, (bias + question.bias.len()) as u32]);
            words.extend([seen as u32, (seen + seen_len) as u32]);
            words.extend([mask, question.top as u32]);
            words.extend([asked as u32, (asked + question.asked.len()) as u32]);
            words.push(u32::from(question.draw.is_some()));
            let bits = uniform.to_bits();
            words.extend([bits as u32, (bits >> 32) as u32]);
            pending.push(Pending {
                draw: question.draw.is_some(),
                mask: question.mask.is_some() && question.draw.is_some(),
                asked: asked..asked + question.asked.len(),
            });
            bias += question.bias.len();
            seen += seen_len;
            asked += question.asked.len();
            masks += usize::from(question.mask.is_some());
        }
        let mut packed = Self {
            words,
            starts: InputStarts::default(),
            pending,
            asked,
        };
        packed.add_lists(questions, limits.vocabulary.div_ceil(32));
        packed
    }

    /// The lists and masks that the questions point into.
    fn add_lists(&mut self, questions: &[Question<'_>], mask_words: usize) {
        let words = &mut self.words;
        let bias = || questions.iter().flat_map(|question| question.bias);
        let seen = || {
            questions
                .iter()
                .filter(|question| question.penalties.is_some())
                .flat_map(|question| question.seen)
        };
        self.starts.bias_tokens = words.len();
        words.extend(bias().map(|(token, _)| *token));
        self.starts.bias_values = words.len();
        words.extend(bias().map(|(_, value)| value.to_bits()));
        self.starts.seen_tokens = words.len();
        words.extend(seen().map(|seen| seen.token));
        self.starts.seen_counts = words.len();
        words.extend(seen().map(|seen| seen.output_count));
        self.starts.asked = words.len();
        words.extend(questions.iter().flat_map(|question| question.asked));
        self.starts.masks = words.len();
        for mask in questions.iter().filter_map(|question| question.mask) {
            let given = mask.iter().copied().chain(std::iter::repeat(0));
            words.extend(given.take(mask_words));
        }
    }
}

/// What a question that draws nothing has in its parameters' place.
const GREEDY: SamplingParams = SamplingParams {
    temperature: 0.0,
    top_k: 0,
    top_p: 1.0,
    min_p: 0.0,
};

/// What a question without penalties has in their place.
const NO_PENALTIES: Penalties = Penalties {
    repetition: 1.0,
    presence: 0.0,
    frequency: 0.0,
};

fn read_answer(
    words: &[u32],
    pending: &Pending,
    vocabulary: usize,
    raw: impl FnOnce() -> RawReport,
) -> Reported {
    let number = |index: usize| f32::from_bits(words[index]);
    let result = |status: u32, token: u32, value: f32| match status {
        0 => Ok(token),
        1 => Err(SampleError::NotANumber { token, value }),
        _ => Err(SampleError::NothingAllowed { vocabulary }),
    };
    let drawn = pending.draw.then(|| {
        result(words[0], words[2], number(4)).map(|token| DrawnAt {
            token,
            sampled_logprob: number(4),
            raw_logprob: number(5),
        })
    });
    Reported {
        drawn,
        allowed: pending.mask.then_some(words[3] as usize),
        raw: result(words[1], words[7], number(5)).map(|_| raw()),
    }
}

fn raw_report(words: &[u32], parts: &OutputParts, index: usize, pending: &Pending) -> RawReport {
    let found = words[index * ANSWER_WORDS + 6] as usize;
    let start = index * parts.top_max;
    let tokens = &words[parts.top_tokens + start..][..found];
    let logprobs = &words[parts.top_logprobs + start..][..found];
    let logprobs = logprobs.iter().map(|&bits| f32::from_bits(bits));
    let asked = &words[parts.asked..][pending.asked.clone()];
    RawReport {
        top: tokens.iter().copied().zip(logprobs).collect(),
        asked: asked.iter().map(|&bits| f32::from_bits(bits)).collect(),
    }
}

fn invalid(problem: String) -> KernelError {
    let op = "sample";
    KernelError::Invalid { op, problem }
}
