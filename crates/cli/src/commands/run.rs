//! `run`: what run folders tell, and shards put together.

use crate::args::{RunFolderArgs, RunMergeArgs};
use crate::card;
use crate::commands::synth;
use crate::output;
use anyhow::Result;
use pipeline::{Funnel, Manifest, Shard};

/// Prints where a run stands.
pub(crate) fn status(args: &RunFolderArgs) -> Result<()> {
    let status = pipeline::status(&args.folder)?;
    if args.json {
        return output::print_json(&status);
    }
    let manifest = &status.manifest;
    output::print_line(&format!(
        "{} | {} | seed {} | shard {} | started {} times",
        args.folder.display(),
        manifest.recipe,
        manifest.seed,
        manifest.shard,
        status.invocations
    ))?;
    for (phase, funnel) in &status.phases {
        let of = status
            .source_rows
            .get(phase)
            .map_or("the end of the seeds was not reached".to_owned(), |rows| {
                format!("of {rows} rows of the seeds")
            });
        output::print_line(&format!("\n{phase}: {} rows have ended, {of}", funnel.read))?;
        output::print_line(&funnel_table(funnel))?;
    }
    let titles = ["stage", "calls", "read", "cached", "written", "ms/call"];
    let mut rows = vec![titles.map(String::from).to_vec()];
    for (stage, one) in &status.stages {
        rows.push(vec![
            stage.clone(),
            one.calls.to_string(),
            one.prompt_tokens.to_string(),
            one.cached_tokens.to_string(),
            one.completion_tokens.to_string(),
            format!("{:.0}", one.mean_ms),
        ]);
    }
    Ok(output::print_line(&format!("\n{}", output::table(&rows)))?)
}

/// Prints what each invocation changed, asked and reused.
pub(crate) fn explain(args: &RunFolderArgs) -> Result<()> {
    let explanation = pipeline::explain(&args.folder)?;
    if args.json {
        return output::print_json(&explanation);
    }
    for one in &explanation.invocations {
        let changes = match one.changes.as_slice() {
            [] if one.invocation == 1 => "the first".to_owned(),
            [] => "nothing changed".to_owned(),
            changes => changes.join("; "),
        };
        output::print_line(&format!("invocation {}: {changes}", one.invocation))?;
        let mut rows = vec![["  stage", "asked", "reused"].map(String::from).to_vec()];
        for (stage, asked) in &one.asked {
            let reused = one.reused.get(stage).copied().unwrap_or(0);
            rows.push(vec![
                format!("  {stage}"),
                asked.to_string(),
                reused.to_string(),
            ]);
        }
        output::print_line(&output::table(&rows))?;
    }
    Ok(())
}

/// Merges shards.
pub(crate) fn merge(args: &RunMergeArgs) -> Result<()> {
    let status = pipeline::status(&args.parts[0])?;
    let mut export = synth::export_of(&status.manifest)?;
    let names = card::names_of_run(&args.parts[0])?;
    let file_names: Vec<&str> = export.files.iter().map(String::as_str).collect();
    let funnel = pipeline::merge(
        &args.parts,
        &args.output,
        export.phase,
        &file_names,
        export.admit.as_mut(),
    )?;
    let manifest = Manifest {
        shard: Shard::ALL,
        ..status.manifest
    };
    card::describe(
        &args.output,
        &export.files,
        (&manifest, names, String::new()),
        &funnel,
    )?;
    output::print_line(&funnel_table(&funnel))?;
    output::say(&format!(
        "merged into {}",
        args.output.join("data").display()
    ));
    Ok(())
}

/// Rows by how they ended.
pub(crate) fn funnel_table(funnel: &Funnel) -> String {
    let share = |rows: u64| format!("{:.1} %", rows as f64 * 100.0 / funnel.read.max(1) as f64);
    let mut rows = vec![vec![
        "accepted".to_owned(),
        funnel.accepted.to_string(),
        share(funnel.accepted),
    ]];
    for (stage, reasons) in &funnel.rejected {
        for (reason, count) in reasons {
            rows.push(vec![
                format!("rejected at {stage}: {}", reason.replace('_', " ")),
                count.to_string(),
                share(*count),
            ]);
        }
    }
    if funnel.unfinished > 0 {
        rows.push(vec![
            "unfinished".to_owned(),
            funnel.unfinished.to_string(),
            share(funnel.unfinished),
        ]);
    }
    rows.push(vec![
        "read".to_owned(),
        funnel.read.to_string(),
        String::new(),
    ]);
    output::table(&rows)
}
