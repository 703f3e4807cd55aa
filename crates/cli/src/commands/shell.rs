//! `completions` and `man`: text made from the definition of the command line.

use crate::args::{Cli, EXIT_CODES};
use crate::output;
use anyhow::{Context, Result};
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use std::path::Path;

/// Prints the completion script of a shell.
pub(crate) fn completions(shell: Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "autodidact", &mut script);
    print_bytes(&script)
}

/// Prints the manual page, or writes one page per command into `dir`.
pub(crate) fn man(dir: Option<&Path>) -> Result<()> {
    let mut command = Cli::command();
    command.build();
    let Some(dir) = dir else {
        return print_bytes(&page(&command)?);
    };
    std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    write_pages(&command, dir)
}

fn write_pages(command: &Command, dir: &Path) -> Result<()> {
    let path = dir.join(format!(
        "{}.1",
        command.get_display_name().unwrap_or(command.get_name())
    ));
    std::fs::write(&path, page(command)?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    let visible = |command: &&Command| command.get_name() != "help" && !command.is_hide_set();
    command
        .get_subcommands()
        .filter(visible)
        .try_for_each(|inner| write_pages(inner, dir))
}

fn page(command: &Command) -> Result<Vec<u8>> {
    let is_root = command
        .get_display_name()
        .is_none_or(|name| !name.contains('-'));
    let mut command = command.clone();
    if !is_root {
        command = command.after_help(EXIT_CODES);
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    Ok(page)
}

fn print_bytes(bytes: &[u8]) -> Result<()> {
    Ok(output::print(&String::from_utf8_lossy(bytes))?)
}
