//! The engine as its users see it: a handle to the thread that owns the model, or to several
//! that each own a replica of it.
//!
//! Requests are validated, rendered and tokenised on the caller's thread, then sent to the
//! worker (`worker.rs`), which answers through the request's [`Pending`].

use crate::config::EngineConfig;
use crate::decoding::{Decoding, DecodingRules};
use crate::error::EngineError;
use crate::grammar::{GrammarCompiler, GrammarVocabulary};
use crate::jobs::{GenerateJob, Sample, ScoreJob};
use crate::replicas::Replicas;
use crate::stats::EngineStats;
use crate::text::Text;
use crate::worker::{Command, Worker};
use data::{
    Completion, Generate, Generator, Pending, Prompt, Reply, RequestError, Score, Scores, TokenId,
    pending,
};
use model::{Adapter, CausalLm};
use std::sync::Arc;

/// A piece of one completion's text that will not change any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextChunk {
    /// Which of the request's samples.
    pub index: usize,
    /// The text, not empty.
    pub text: String,
}

/// Receives text while it is being written; called on the engine's thread, so it must
/// return at once.
pub type OnText = Box<dyn FnMut(TextChunk) + Send>;

/// A running engine. Dropping it stops its threads; unanswered requests end with
/// [`RequestError::EngineStopped`].
pub struct Engine {
    replicas: Replicas,
    text: Arc<Text>,
    grammars: GrammarCompiler,
    config: EngineConfig,
    vocab_size: usize,
}

/// A request for text in tokens, its samples at their beginning.
struct Prepared {
    prompt: Vec<TokenId>,
    rules: Arc<DecodingRules>,
    samples: Vec<Sample>,
}

impl Engine {
    /// Starts the engine's thread on `model`.
    ///
    /// # Errors
    /// If the KV pool cannot be allocated or a limit is zero.
    pub fn start(
        model: Box<dyn CausalLm + Send>,
        text: Text,
        config: EngineConfig,
    ) -> Result<Self, EngineError> {
        Self::start_replicas(vec![model], text, config)
    }

    /// Starts a thread on each of these models, which have the same weights and serve the
    /// same requests; each gets a KV pool of its own. Which of them a request is computed by
    /// does not show, where a row's bits do not depend on its batch.
    ///
    /// # Errors
    /// No model; else as [`Engine::start`].
    pub fn start_replicas(
        models: Vec<Box<dyn CausalLm + Send>>,
        text: Text,
        config: EngineConfig,
    ) -> Result<Self, EngineError> {
        config.validate()?;
        let Some(first) = models.first() else {
            return Err(EngineError::Zero { field: "models" });
        };
        let vocab_size = first.config().vocab_size;
        let vocabulary = GrammarVocabulary::of(&text, vocab_size);
        let mut workers = Vec::with_capacity(models.len());
        for model in models {
            let (commands, inbox) = std::sync::mpsc::channel();
            workers.push((Worker::new(model, &config, inbox)?, commands));
        }
        Ok(Self {
            replicas: Replicas::start(workers).map_err(EngineError::Thread)?,
            text: Arc::new(text),
            grammars: GrammarCompiler::new(vocabulary),
            config,
            vocab_size,
        })
    }

    /// Like [`Generator::generate`], with the text handed out while it is being written.
    pub fn generate_streaming(
        &self,
        request: Generate,
        on_text: OnText,
    ) -> Pending<Vec<Completion>> {
        self.submit_generate(request, Some(on_text))
    }

    /// The token ids that `prompt` becomes.
    ///
    /// # Errors
    /// Messages without a chat template; a template that raises.
    pub fn tokenize(&self, prompt: &Prompt) -> Result<Vec<TokenId>, RequestError> {
        self.text.tokenize(prompt)
    }

    /// The tokenizer, template and limits that the engine reads and writes text with.
    pub fn text(&self) -> &Text {
        &self.text
    }

    /// The limits the engine runs under.
    pub fn config(&self) -> &EngineConfig {
        &self.config
    }

    /// Makes `adapter` available to requests that name it; an adapter of the same name is
    /// replaced for requests that arrive later.
    pub fn load_adapter(&self, name: &str, adapter: &Adapter) -> Pending<()> {
        let (reply, answer) = pending();
        self.replicas.ask_all(
            reply,
            |_, ()| {},
            |reply| Command::LoadAdapter {
                name: name.to_owned(),
                adapter: Box::new(adapter.clone()),
                reply,
            },
        );
        answer
    }

    /// Forgets an adapter; requests under way keep it to their end.
    pub fn unload_adapter(&self, name: &str) -> Pending<()> {
        let (reply, answer) = pending();
        self.replicas.ask_all(
            reply,
            |_, ()| {},
            |reply| Command::UnloadAdapter {
                name: name.to_owned(),
                reply,
            },
        );
        answer
    }

    /// Counters since the start.
    pub fn stats(&self) -> Pending<EngineStats> {
        let (reply, answer) = pending();
        self.replicas
            .ask_all(reply, EngineStats::add, Command::Stats);
        answer
    }

    fn submit_generate(
        &self,
        request: Generate,
        on_text: Option<OnText>,
    ) -> Pending<Vec<Completion>> {
        let (reply, answer) = pending();
        match self.prepare_generate(&request) {
            Ok(Prepared {
                prompt,
                rules,
                samples,
            }) => {
                let tokens = prompt.len() + samples.len() * rules.max_tokens;
                let beginning = prompt.clone();
                self.replicas.submit(&beginning, tokens, |ticket| {
                    Command::Generate(Box::new(GenerateJob {
                        prompt,
                        rules,
                        adapter: request.adapter,
                        prompt_logprobs: request
                            .prompt_logprobs
                            .then(|| request.logprobs.unwrap_or(0)),
                        prompt_scores: Vec::new(),
                        samples,
                        cached_tokens: 0,
                        on_text,
                        reply,
                        ticket,
                    }))
                });
            }
            Err(error) => reply.send(Err(error)),
        }
        answer
    }

    /// Checks a request and turns it into tokens, rules and samples at their beginning.
    fn prepare_generate(&self, request: &Generate) -> Result<Prepared, RequestError> {
        if request.n == 0 {
            return Err(RequestError::Invalid(
                "n = 0: at least one completion must be asked for".into(),
            ));
        }
        let invalid = |error: data::SamplingError| RequestError::Invalid(error.to_string());
        request.sampling.validate().map_err(invalid)?;
        if request.stop.strings.iter().any(String::is_empty) {
            return Err(RequestError::Invalid("a stop string is empty".into()));
        }
        let prompt = self.tokenize(&request.prompt)?;
        self.check_tokens(prompt.iter().chain(request.sampling.logit_bias.keys()))?;
        let max_tokens = self.max_tokens(prompt.len(), request.max_tokens)?;
        let matcher = match &request.grammar {
            Some(grammar) => Some(self.grammars.compile(grammar)?),
            None => None,
        };
        let rules = Arc::new(DecodingRules {
            sampling: request.sampling.clone(),
            stop: request.stop.clone(),
            eos_ids: if request.stop.ignore_eos {
                Vec::new()
            } else {
                self.text.eos_ids().to_vec()
            },
            max_tokens,
            logprobs: request.logprobs,
            prompt_tokens: prompt.len(),
            prompt_set: distinct(&prompt, request.sampling.repetition_penalty),
        });
        let start = self.text.start_of_answer(&request.prompt);
        let sample = |index| {
            let seed = Generate::sample_seed(request.seed, index);
            let detokenizer = self.text.detokenizer(start);
            let matcher = matcher.as_ref().map(llguidance::Matcher::deep_clone);
            let decoding = Decoding::new(Arc::clone(&rules), (index, seed), matcher, detokenizer);
            Sample::Writing(Some(Box::new(decoding)))
        };
        let samples = (0..request.n).map(sample).collect();
        Ok(Prepared {
            prompt,
            rules,
            samples,
        })
    }

    /// A token that the model does not have would fail every request of its step.
    fn check_tokens<'a>(
        &self,
        tokens: impl Iterator<Item = &'a TokenId>,
    ) -> Result<(), RequestError> {
        let vocab_size = self.vocab_size;
        match tokens
            .into_iter()
            .find(|token| **token as usize >= vocab_size)
        {
            None => Ok(()),
            Some(token) => Err(RequestError::Invalid(format!(
                "token {token} does not exist: the model's vocabulary has {vocab_size} tokens"
            ))),
        }
    }

    /// How many tokens may follow a prompt of `prompt_tokens`.
    fn max_tokens(
        &self,
        prompt_tokens: usize,
        asked: Option<usize>,
    ) -> Result<usize, RequestError> {
        let context_tokens = self.config.context_tokens;
        if prompt_tokens == 0 {
            return Err(RequestError::Invalid("the prompt is empty".into()));
        }
        if asked == Some(0) {
            return Err(RequestError::Invalid(
                "max_tokens = 0: at least one token must be asked for".into(),
            ));
        }
        let overflow = |wanted_tokens| RequestError::ContextOverflow {
            prompt_tokens,
            wanted_tokens,
            context_tokens,
        };
        let room = context_tokens
            .checked_sub(prompt_tokens)
            .filter(|room| *room > 0);
        let room = room.ok_or_else(|| overflow(asked.unwrap_or(1)))?;
        match asked {
            Some(asked) if asked > room => Err(overflow(asked)),
            Some(asked) => Ok(asked),
            None => Ok(room
                .min(self.config.kv_tokens.saturating_sub(prompt_tokens))
                .max(1)),
        }
    }

    fn prepare_score(&self, request: &Score, reply: Reply<Scores>) -> Option<ScoreJob> {
        let tokens = || -> Result<_, RequestError> {
            if request.labels.is_empty() {
                return Err(RequestError::Invalid(
                    "a score needs at least one label".into(),
                ));
            }
            let prefix = self.tokenize(&request.prefix)?;
            let ours = |text: &String| self.text.encode_ours(text.as_str());
            let mut suffixes: Vec<_> = request
                .suffixes
                .iter()
                .map(ours)
                .collect::<Result<_, RequestError>>()?;
            if suffixes.is_empty() {
                suffixes.push(Vec::new());
            }
            let labels = request
                .labels
                .iter()
                .map(ours)
                .collect::<Result<Vec<_>, RequestError>>()?;
            self.check_tokens(
                prefix
                    .iter()
                    .chain(suffixes.iter().chain(&labels).flatten()),
            )?;
            Ok((prefix, suffixes, labels))
        };
        let (prefix, suffixes, labels) = match tokens() {
            Ok(tokens) => tokens,
            Err(error) => {
                reply.send(Err(error));
                return None;
            }
        };
        let longest = |lists: &[Vec<TokenId>]| lists.iter().map(Vec::len).max().unwrap_or(0);
        let wanted_tokens = longest(&suffixes) + longest(&labels);
        let context_tokens = self.config.context_tokens;
        if prefix.len() + wanted_tokens > context_tokens {
            let prompt_tokens = prefix.len();
            let error = RequestError::ContextOverflow {
                prompt_tokens,
                wanted_tokens,
                context_tokens,
            };
            reply.send(Err(error));
            return None;
        }
        match ScoreJob::new(&prefix, &suffixes, &labels, request.adapter.clone(), reply) {
            Ok(job) => Some(job),
            Err((error, reply)) => {
                reply.send(Err(error));
                None
            }
        }
    }
}

impl Generator for Engine {
    fn generate(&self, request: Generate) -> Pending<Vec<Completion>> {
        self.submit_generate(request, None)
    }

    fn score(&self, request: Score) -> Pending<Scores> {
        let (reply, answer) = pending();
        if let Some(job) = self.prepare_score(&request, reply) {
            let beginning = job.parts.first().map_or(vec![], |part| part.tokens.clone());
            let tokens = job.usage.prompt_tokens;
            self.replicas.submit(&beginning, tokens, |ticket| {
                Command::Score(Box::new(ScoreJob {
                    ticket: Some(ticket),
                    ..job
                }))
            });
        }
        answer
    }
}

/// The prompt's distinct tokens, sorted, if a repetition penalty needs them.
fn distinct(prompt: &[TokenId], repetition_penalty: f32) -> Vec<TokenId> {
    if repetition_penalty == 1.0 {
        return Vec::new();
    }
    let set: std::collections::BTreeSet<TokenId> = prompt.iter().copied().collect();
    set.into_iter().collect()
}
