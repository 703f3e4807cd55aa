//! `models convert`: a folder becomes one GGUF file.

use crate::args::{GgufQuantArg, ModelsConvertArgs};
use crate::commands::Env;
use crate::error::{Failure, INTERRUPTED};
use crate::output;
use crate::session;
use crate::threads;
use anyhow::Result;
use model::{GgufExport, GgufReport, GgufWeights};
use serde_json::json;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Between two lines about how far it is.
const PACE: Duration = Duration::from_secs(10);

/// Runs the command.
///
/// # Errors
/// As [`GgufExport::write`].
pub(crate) fn run(env: &Env, args: &ModelsConvertArgs) -> Result<ExitCode> {
    let name = args.model.as_deref().or(env.config.text("model"));
    let name = name.unwrap_or(session::EMBEDDED);
    threads::apply(&env.config)?;
    let located = session::locate(name, &env.config)?;
    let folder = located.files.path();
    if !folder.is_dir() {
        return Err(Failure::usage(format!(
            "--model {name}: is a GGUF file already; give the folder of safetensors that it was made from"
        )));
    }
    if args.output.symlink_metadata().is_ok() {
        return Err(Failure::usage(format!(
            "--output {}: exists; give the name of a new file",
            args.output.display()
        )));
    }
    let export = GgufExport {
        folder,
        adapter: args.adapter.as_deref(),
        weights: weights(args.quant),
    };
    let _orderly = env.interrupt.orderly();
    let mut last = Instant::now();
    let written = export.write(&args.output, &mut |done, total| {
        if env.interrupt.requested() {
            return ControlFlow::Break(());
        }
        if last.elapsed() >= PACE {
            last = Instant::now();
            let (done, total) = (output::bytes(done), output::bytes(total));
            output::say(&format!("{done} of {total}"));
        }
        ControlFlow::Continue(())
    })?;
    match written {
        Some(report) => tell(&report, &args.output, args.json).map(|()| ExitCode::SUCCESS),
        None => {
            output::say("stopped; nothing was written");
            Ok(ExitCode::from(INTERRUPTED))
        }
    }
}

fn tell(report: &GgufReport, path: &Path, as_json: bool) -> Result<()> {
    for note in &report.notes {
        output::say(&format!("note: {note}"));
    }
    if as_json {
        return output::print_json(&json!({
            "output": path, "bytes": report.bytes, "tensors": report.tensors,
            "matrices": report.matrices, "merged": report.merged, "notes": report.notes,
        }));
    }
    let mut kinds: Vec<String> = report
        .matrices
        .iter()
        .map(|(name, count)| format!("{count} in {name}"))
        .collect();
    if report.merged > 0 {
        kinds.push(format!("{} with the adapter added", report.merged));
    }
    Ok(output::print_line(&format!(
        "{}: {}, {} tensors; matrices: {}",
        path.display(),
        output::bytes(report.bytes),
        report.tensors,
        kinds.join(", ")
    ))?)
}

fn weights(quant: Option<GgufQuantArg>) -> GgufWeights {
    match quant {
        None => GgufWeights::Stored,
        Some(GgufQuantArg::F32) => GgufWeights::F32,
        Some(GgufQuantArg::F16) => GgufWeights::F16,
        Some(GgufQuantArg::Bf16) => GgufWeights::Bf16,
        Some(GgufQuantArg::Q8_0) => GgufWeights::Q8_0,
        Some(GgufQuantArg::Q6K) => GgufWeights::Q6K,
        Some(GgufQuantArg::Q4K) => GgufWeights::Q4K,
        Some(GgufQuantArg::Q4_0) => GgufWeights::Q4_0,
    }
}
