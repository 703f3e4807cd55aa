//! The binary `autodidact`: the command line around the engine. Everything worth testing
//! lives in the crates below or in the pure functions of these modules.

mod args;
mod card;
mod commands;
mod config;
mod cuda;
mod devices;
mod embedded;
mod error;
mod fleet;
mod footprint;
mod identity;
mod interrupt;
mod machine;
mod metal;
mod output;
mod request;
mod row_sink;
mod rows;
mod run_progress;
mod seeds;
mod session;
mod text_parts;
mod threads;
mod weights;

use anyhow::Result;
use args::{BenchCommand, Cli, Command, ConfigCommand, ModelsCommand, PromptsCommand, RunCommand};
use clap::Parser;
use commands::Env;
use config::{Config, Sources};
use interrupt::Interrupt;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        // Whoever read our output has seen enough.
        Err(error) if error::is_closed_output(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::say(&error::describe(&error));
            ExitCode::from(error::exit_code(&error))
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    match &cli.command {
        Command::Completions { shell } => return done(commands::shell::completions(*shell)),
        Command::Man { dir } => return done(commands::shell::man(dir.as_deref())),
        _ => {}
    }
    let config = Config::read(&Sources::of_process(cli.set, cli.config));
    let config = config.map_err(|error| {
        error::Failure::usage(error::describe(&error).trim_start_matches("error: "))
    })?;
    let mut env = Env::new(config, Interrupt::install()?);
    match cli.command {
        Command::Generate(args) => commands::generate::run(&mut env, &args),
        Command::Chat(args) => commands::chat::run(&mut env, &args),
        Command::Score(args) => done(commands::score::run(&mut env, &args)),
        Command::Eval(command) => commands::eval::run(&mut env, &command),
        Command::Train(command) => commands::train::run(&mut env, &command),
        Command::Align(args) => commands::align::run(&mut env, &args),
        Command::Bench(BenchCommand::Engine(args)) => {
            done(commands::bench::engine(&mut env, &args))
        }
        Command::Bench(BenchCommand::Synth(args)) => {
            done(commands::bench_synth::run(&mut env, &args))
        }
        Command::Bench(BenchCommand::Train(args)) => {
            done(commands::bench_train::run(&mut env, &args))
        }
        Command::Verify(args) => done(commands::verify::run(&env, &args)),
        Command::Synth(command) => commands::synth::run(&mut env, &command),
        Command::Run(RunCommand::Status(args)) => done(commands::run::status(&args)),
        Command::Run(RunCommand::Explain(args)) => done(commands::run::explain(&args)),
        Command::Run(RunCommand::Merge(args)) => done(commands::run::merge(&args)),
        Command::Data(command) => commands::data::run(&mut env, &command),
        Command::Prompts(PromptsCommand::Ls { json }) => done(commands::prompts::ls(json)),
        Command::Prompts(PromptsCommand::Cat { name }) => done(commands::prompts::cat(&name)),
        Command::Prompts(PromptsCommand::Cp { dir }) => done(commands::prompts::cp(&dir)),
        Command::Models(ModelsCommand::Ls(args)) => done(commands::models::ls(&env.config, &args)),
        Command::Models(ModelsCommand::Show(args)) => {
            done(commands::models::show(&env.config, &args))
        }
        Command::Models(ModelsCommand::Convert(args)) => commands::convert::run(&env, &args),
        Command::Doctor(args) => done(commands::doctor::run(&env.config, &args)),
        Command::Config(ConfigCommand::Show(args)) => {
            done(commands::config::show(&env.config, &args))
        }
        Command::Completions { .. } | Command::Man { .. } => unreachable!("answered above"),
    }
}

fn done(result: Result<()>) -> Result<ExitCode> {
    result.map(|()| ExitCode::SUCCESS)
}
