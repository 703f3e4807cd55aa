//! One module per command.

use crate::config::Config;
use crate::interrupt::Interrupt;

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
}
