//! One module per command.

use crate::config::Config;
use crate::devices::Devices;
use crate::interrupt::Interrupt;
use crate::session::{Opened, Session};
use crate::weights::Weights;
use anyhow::Result;

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
    weights: Weights,
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

    /// The weights of a model: those that are kept, if they are its own, else loaded to where it
    /// is to compute.
    ///
    /// # Errors
    /// As [`Weights::load`].
    pub(crate) fn weights(&self, opened: &Opened) -> Result<Weights> {
        match self.kept_of(opened)? {
            Some(weights) => Ok(weights.clone()),
            None => Weights::load(opened, &self.config),
        }
    }

    /// Starts the engine on a model: on the weights that are kept, if they are its own, else on
    /// loaded ones.
    ///
    /// # Errors
    /// As [`Opened::start`].
    pub(crate) fn start(&self, opened: &Opened) -> Result<Session> {
        match (Devices::of(&self.config)?, self.kept_of(opened)?) {
            (Devices::Metal, _) => opened.clone().start(&self.config),
            // Replicas are loaded where they compute.
            (Devices::Cuda(numbers), _) if numbers.len() > 1 => opened.clone().start(&self.config),
            (_, Some(weights)) => weights.start(opened, &self.config, None),
            (_, None) => opened.clone().start(&self.config),
        }
    }

    /// Loads the weights of a model and keeps them, so that the commands that follow share them;
    /// not where several GPUs have replicas of them.
    ///
    /// # Errors
    /// As [`Weights::load`].
    pub(crate) fn keep(&mut self, opened: &Opened) -> Result<()> {
        if matches!(Devices::of(&self.config)?, Devices::Cuda(numbers) if numbers.len() > 1) {
            return Ok(());
        }
        let weights = Weights::load(opened, &self.config)?;
        let identity = opened.identity(None)?;
        self.kept = Some(Kept { identity, weights });
        Ok(())
    }

    fn kept_of(&self, opened: &Opened) -> Result<Option<&Weights>> {
        let identity = opened.identity(None)?;
        let kept = self.kept.as_ref();
        Ok(kept
            .filter(|kept| kept.identity == identity)
            .map(|kept| &kept.weights))
    }
}
