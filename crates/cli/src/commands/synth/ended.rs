//! What a run came to, for people and programs.

use super::pass::Totals;
use crate::commands::run::funnel_table;
use crate::error::{SHORT, STOPPED};
use crate::output;
use anyhow::{Context as _, Result};
use pipeline::{Funnel, Report, StageUse};
use serde_json::json;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// A run at its end, with its files written.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Where the files are.
    pub(crate) folder: PathBuf,
    /// Their names.
    pub(crate) files: Vec<String>,
    /// Of the last phase.
    pub(crate) report: Report,
    /// Of all phases.
    pub(crate) totals: Totals,
    /// Rows of the last phase.
    pub(crate) funnel: Funnel,
    /// What was asked for.
    pub(crate) accept: Option<u64>,
    /// What to do next.
    pub(crate) next: String,
}

/// How the summary is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    /// A table and the files.
    Text,
    /// One JSON document.
    Json,
}

impl Shown {
    /// As `--json` says.
    pub(crate) fn of_flag(json: bool) -> Self {
        if json { Self::Json } else { Self::Text }
    }
}

impl Ended {
    /// Whether the same command would go on.
    pub(crate) fn is_stopped(&self) -> bool {
        self.report.interrupted || self.report.parked > 0
    }

    /// Whether fewer rows were accepted than were asked for.
    pub(crate) fn is_short(&self) -> bool {
        self.accept
            .is_some_and(|accept| self.funnel.accepted < accept)
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        if self.is_stopped() {
            ExitCode::from(STOPPED)
        } else if self.is_short() {
            ExitCode::from(SHORT)
        } else {
            ExitCode::SUCCESS
        }
    }

    /// The funnel, what it cost, the files, and what to do next.
    ///
    /// # Errors
    /// A closed output, a file that is gone.
    pub(crate) fn tell(&self, shown: Shown) -> Result<()> {
        let (report, funnel) = (&self.report, &self.funnel);
        match shown {
            Shown::Json => output::print_json(&json!({
                "funnel": funnel, "stages": self.totals.stages, "parked": report.parked,
                "interrupted": report.interrupted, "data": self.folder, "files": self.files,
                "seconds": self.totals.elapsed.as_secs_f64(),
            }))?,
            Shown::Text => {
                output::print_line(&funnel_table(funnel))?;
                output::say(&self.totals.in_words());
                for name in &self.files {
                    let path = self.folder.join(name);
                    let rows = lines_of(&path)?;
                    output::say(&format!("{rows:>7} rows  {}", path.display()));
                }
            }
        }
        if self.is_stopped() {
            output::say("stopped; the same command continues");
        } else if self.is_short() {
            output::say(&format!(
                "short of {} accepted rows: the rows are used up; give more",
                self.accept.unwrap_or(0)
            ));
        } else {
            output::say(&format!("next: {}", self.next));
        }
        Ok(())
    }
}

impl Totals {
    /// Calls, tokens and rates of this invocation.
    fn in_words(&self) -> String {
        let stages = self.stages.values();
        let sum = |of: fn(&StageUse) -> u64| stages.clone().map(of).sum::<u64>();
        let seconds = self.elapsed.as_secs_f64();
        let (read, written) = (sum(|s| s.prompt_tokens), sum(|s| s.completion_tokens));
        format!(
            "{} calls, {} from the log | {read} tokens read, {} of them cached, {written} written | {seconds:.1} s, {:.0} tok/s written",
            sum(|s| s.asked),
            sum(|s| s.reused),
            sum(|s| s.cached_tokens),
            written as f64 / seconds.max(1e-9),
        )
    }
}

/// Lines of a file of any size.
pub(crate) fn lines_of(path: &Path) -> Result<u64> {
    let cannot = || format!("cannot read {}", path.display());
    let mut reader = BufReader::new(fs::File::open(path).with_context(cannot)?);
    let mut lines = 0;
    while reader.skip_until(b'\n').with_context(cannot)? > 0 {
        lines += 1;
    }
    Ok(lines)
}
