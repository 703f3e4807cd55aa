//! The engine as its users see it: a handle to the thread that owns the model.
//!
//! Requests are validated, rendered and tokenised on the caller's thread, then sent to the
//! worker (`worker.rs`), which answers through the request's [`Pending`].

use crate::grammar::{GrammarCompiler, GrammarVocabulary};
use crate::jobs::{GenerateJob, ScoreJob};
use crate::stats::EngineStats;
use crate::text::Text;
use crate::worker::{Command, Worker};
use crate::{EngineConfig, EngineError};
use data::{Completion, Generate, Generator, Pending, Prompt, Reply, RequestError, Score, Scores, TokenId, pending};
use model::{Adapter, CausalLm};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

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

/// A running engine. Dropping it stops the thread; unanswered requests end with
/// [`RequestError::EngineStopped`].
pub struct Engine {
    commands: Mutex<Sender<Command>>,
    text: Arc<Text>,
    grammars: GrammarCompiler,
    config: EngineConfig,
    worker: Option<JoinHandle<()>>,
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
        config.validate()?;
        let vocabulary = GrammarVocabulary::of(&text, model.vocab_size());
        let (commands, inbox) = std::sync::mpsc::channel();
        let text = Arc::new(text);
        let worker = Worker::new(model, &config, inbox)?;
        let worker = std::thread::Builder::new()
            .name("engine".into())
            .spawn(move || worker.run())
            .map_err(EngineError::Thread)?;
        Ok(Self {
            commands: Mutex::new(commands),
            text,
            grammars: GrammarCompiler::new(vocabulary),
            config,
            worker: Some(worker),
        })
    }

    /// Like [`Generator::generate`], with the text handed out while it is being written.
    pub fn generate_streaming(&self, request: Generate, on_text: OnText) -> Pending<Vec<Completion>> {
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
    pub fn load_adapter(&self, name: &str, adapter: Adapter) -> Pending<()> {
        let (reply, answer) = pending();
        self.send(Command::LoadAdapter { name: name.to_owned(), adapter: Arc::new(adapter), reply });
        answer
    }

    /// Forgets an adapter; requests under way keep it to their end.
    pub fn unload_adapter(&self, name: &str) -> Pending<()> {
        let (reply, answer) = pending();
        self.send(Command::UnloadAdapter { name: name.to_owned(), reply });
        answer
    }

    /// Counters since the start.
    pub fn stats(&self) -> Pending<EngineStats> {
        let (reply, answer) = pending();
        self.send(Command::Stats(reply));
        answer
    }

    fn submit_generate(&self, request: Generate, on_text: Option<OnText>) -> Pending<Vec<Completion>> {
        let (reply, answer) = pending();
        match self.prepare_generate(request) {
            Ok(prepared) => {
                let job = GenerateJob::new(prepared, on_text, reply);
                self.send(Command::Generate(Box::new(job)));
            }
            Err(error) => reply.send(Err(error)),
        }
        answer
    }

    fn send(&self, command: Command) {
        let commands = self.commands.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // A worker that has gone drops the command and with it the reply: the answer is EngineStopped.
        drop(commands.send(command));
    }
}
