//! The number of threads. The pool reads it from the environment when it starts, so a
//! program that wants another number starts itself again with the environment it wants.

use crate::config::Config;
use anyhow::{Context, Result};
use std::process::Command;

/// What the pools look at.
const VARIABLES: [&str; 2] = ["CANDLE_NUM_THREADS", "RAYON_NUM_THREADS"];

/// Makes this process compute with the configured number of threads; with none configured
/// the pool decides.
///
/// # Errors
/// If the program cannot be started again.
pub(crate) fn apply(config: &Config) -> Result<()> {
    let Some(threads) = config
        .integer("engine.threads")
        .map(|threads| threads.to_string())
    else {
        return Ok(());
    };
    let as_wanted = |name| std::env::var(name).is_ok_and(|value| value == threads);
    if VARIABLES.into_iter().all(as_wanted) {
        return Ok(());
    }
    let program = std::env::current_exe().context("cannot find the program's own file")?;
    let mut command = Command::new(program);
    command
        .args(std::env::args_os().skip(1))
        .envs(VARIABLES.map(|name| (name, &threads)));
    restart(command)
}

#[cfg(unix)]
fn restart(mut command: Command) -> Result<()> {
    use std::os::unix::process::CommandExt;
    // Replaces this process: same id, same files, nothing was read or started yet.
    Err(command.exec()).context("cannot start with another number of threads")
}

#[cfg(not(unix))]
#[expect(
    clippy::exit,
    reason = "the exit code of the program that did the work"
)]
fn restart(mut command: Command) -> Result<()> {
    let status = command
        .status()
        .context("cannot start with another number of threads")?;
    std::process::exit(status.code().unwrap_or(1));
}
