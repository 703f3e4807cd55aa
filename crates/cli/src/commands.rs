//! One module per command.

use crate::config::Config;
use crate::devices::Devices;
use crate::interrupt::Interrupt;
use crate::session::{Opened, Session};
use anyhow::Result;
use model::{Decoder, Llama};

pub(crate) mod align;
pub(crate) mod bench;
pub(crate) mod bench_synth;
pub(crate) mod bench_train;
pub(crate) mod chat;
pub(crate) mod config;
pub(crate) mod convert;
pub(crate) mod data;
pub(crate) mod doctor;
pub(crate) mod eval;
pub(crate) mod generate;
pub(crate) mod models;
pub(crate) mod prompts;
pub(crate) mod run;
pub(crate) mod score;
pub(crate) mod shell;
pub(crate) mod synth;
pub(crate) mod train;
pub(crate) mod verify;

/// What every command that computes is given.
#[derive(Debug)]
pub(crate) struct Env {
    pub(crate) config: Config,
    pub(crate) interrupt: Interrupt,
    /// Weights that stay in memory while one command runs others.
    kept: Option<Kept>,
}

/// A model's weights, and whose they are.
#[derive(Debug)]
struct Kept {
    identity: String,
    decoder: Decoder,
}

impl Env {
    /// What a command begins with.
    pub(crate) fn new(config: Config, interrupt: Interrupt) -> Self {
        Self {
            config,
            interrupt,
            kept: None,
        }
    }

    /// The weights of a model: those that are kept, if they are its own, else loaded.
    ///
    /// # Errors
    /// As [`Opened::load`].
    pub(crate) fn load(&self, opened: &Opened) -> Result<Llama> {
        let identity = opened.identity(None)?;
        match &self.kept {
            Some(kept) if kept.identity == identity => Ok(Llama::of(kept.decoder.clone())),
            _ => opened.load(&self.config),
        }
    }

    /// Starts the engine on a model: on the weights that are kept, if they are its own, else on
    /// loaded ones.
    ///
    /// # Errors
    /// As [`Opened::start`].
    pub(crate) fn start(&self, opened: &Opened) -> Result<Session> {
        match Devices::of(&self.config)? {
            Devices::Cpu { .. } => opened.start_with(&self.config, self.load(opened)?, None),
            Devices::Cuda(_) | Devices::Metal => opened.clone().start(&self.config),
        }
    }

    /// Loads the weights of a model and keeps them, so that the commands that follow share them.
    ///
    /// # Errors
    /// As [`Opened::load`].
    pub(crate) fn keep(&mut self, opened: &Opened) -> Result<()> {
        let decoder = opened.load(&self.config)?.decoder().clone();
        let identity = opened.identity(None)?;
        self.kept = Some(Kept { identity, decoder });
        Ok(())
    }
}
