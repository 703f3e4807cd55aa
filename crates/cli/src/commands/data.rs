//! `data`: datasets checked and looked at; no model is needed.

use crate::args::ModelArgs;
use crate::commands::Env;
use crate::commands::train::args::TrainOnArg;
use crate::commands::train::mask::{self, MaskRequest};
use crate::error::Failure;
use crate::output;
use anyhow::Result;
use clap::{Args, Subcommand};
use data::{CheckReport, FileCheck, Kind, check_dataset, read_rows, show_row};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Problems were found.
const INVALID: u8 = 4;

#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// Validates a dataset: its rows, its card, and what it tells other trainers
    Check(DataCheckArgs),
    /// Prints rows for people
    Show(Box<DataShowArgs>),
}

#[derive(Debug, Args)]
pub(crate) struct DataCheckArgs {
    /// A dataset's folder, a run's folder, or one file: JSONL, JSON, CSV, Parquet or text, also
    /// .gz or .zst
    #[arg(value_name = "DIR|FILE")]
    pub(crate) path: PathBuf,
    /// Prints JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DataShowArgs {
    /// JSONL, JSON, CSV, Parquet or text, also .gz or .zst
    pub(crate) file: PathBuf,
    /// Rows to print
    #[arg(short, value_name = "N", default_value_t = 3)]
    pub(crate) n: usize,
    /// Prints the row of this id, or on this line
    #[arg(long, value_name = "ID", conflicts_with = "n")]
    pub(crate) row: Option<String>,
    /// Renders rows as training does for a model, with what carries loss in double brackets
    #[arg(long)]
    pub(crate) mask: bool,
    /// Which of the assistant's turns carry loss
    #[arg(long, value_enum, default_value = "last", requires = "mask")]
    pub(crate) train_on: TrainOnArg,
    /// Prints JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

/// Runs the command.
pub(crate) fn run(env: &mut Env, command: &DataCommand) -> Result<ExitCode> {
    match command {
        DataCommand::Check(args) => check(args),
        DataCommand::Show(args) if args.mask => {
            let asked = MaskRequest {
                file: &args.file,
                count: if args.row.is_some() { 1 } else { args.n },
                row: args.row.as_deref(),
                train_on: args.train_on,
                json: args.json,
            };
            mask::show(env, &args.model, &asked)
        }
        DataCommand::Show(args) => show(args),
    }
}

fn check(args: &DataCheckArgs) -> Result<ExitCode> {
    let report = check_dataset(&args.path)?;
    if args.json {
        output::print_json(&report)?;
    } else {
        output::print(&shown(&report))?;
    }
    Ok(if report.problems == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(INVALID)
    })
}

/// Each problem on a line, then what was looked at.
fn shown(report: &CheckReport) -> String {
    let mut lines: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    let untold = report.problems - report.findings.len() as u64;
    if untold > 0 {
        lines.push(format!("… and {untold} more"));
    }
    let rows: Vec<Vec<String>> = report.files.iter().map(summary).collect();
    if !rows.is_empty() {
        lines.push(output::table(&rows));
    }
    lines.push(match report.problems {
        0 => "valid".to_owned(),
        1 => "1 problem".to_owned(),
        problems => format!("{problems} problems"),
    });
    lines.join("\n") + "\n"
}

fn summary(file: &FileCheck) -> Vec<String> {
    let what = match file.kind {
        Kind::Conversations => "conversations".to_owned(),
        // The best known hidden flaw of preference data.
        Kind::Preferences => format!(
            "preferences, chosen longer in {} of {}",
            file.chosen_longer, file.rows
        ),
        Kind::Other => String::new(),
    };
    vec![file.file.clone(), format!("{} rows", file.rows), what]
}

fn show(args: &DataShowArgs) -> Result<ExitCode> {
    let wanted = |id: &str, line: u64| {
        let of = |row: &String| row == id || *row == line.to_string();
        args.row.as_ref().is_none_or(of)
    };
    let most = if args.row.is_some() { 1 } else { args.n };
    let (mut rows, mut unreadable) = (Vec::new(), 0);
    for row in read_rows(&args.file)? {
        if rows.len() == most {
            break;
        }
        match row {
            Ok(row) if wanted(&row.id, row.line) => {
                if !args.json {
                    output::print_line(&show_row(&row))?;
                }
                rows.push(json!({"id": row.id, "line": row.line, "row": row.value}));
            }
            Ok(_) => {}
            Err(problem) => {
                unreadable += 1;
                if wanted("", problem.line()) {
                    output::say(&problem.to_string());
                }
            }
        }
    }
    if args.json {
        output::print_json(&json!({"file": args.file, "rows": rows}))?;
    }
    if rows.is_empty() && most > 0 {
        return Err(none_found(&args.file, args.row.as_deref(), unreadable));
    }
    Ok(ExitCode::SUCCESS)
}

fn none_found(file: &Path, wanted: Option<&str>, unreadable: usize) -> anyhow::Error {
    let file = file.display();
    Failure::input(match wanted {
        Some(row) => format!("{file}: no readable row has the id or line {row}"),
        None => format!("{file}: no row can be read ({unreadable} were tried)"),
    })
}
