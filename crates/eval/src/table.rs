//! Reports as plain text for people.

use crate::bootstrap::Interval;
use crate::compare::{Change, Comparison};
use crate::report::{Number, Report, TaskReport, TypeReport};
use std::fmt::Write;

/// Changed rows shown; the rest is in the JSON.
const CHANGES_SHOWN: usize = 20;

/// The report of one set of answers.
pub fn report(model: &str, report: &Report) -> String {
    let mut text = format!("{}  {model}\n", report.benchmark);
    let mut rows = vec![cells(&[
        "",
        "%",
        "95 % interval",
        "prompts",
        "instructions",
    ])];
    let several = report.tasks.len() > 1;
    for task in &report.tasks {
        rows.extend(task_rows(task, several));
    }
    if let Some(category) = &report.category {
        rows.push(vec![
            "category score".into(),
            percent(category.value),
            interval(category.interval),
        ]);
    }
    text.push_str(&table(&rows));
    if !report.languages.is_empty() {
        let mut rows = vec![cells(&[
            "by language",
            "turn score %",
            "95 % interval",
            "prompts",
        ])];
        rows.extend(report.languages.iter().map(headline_row));
        text.push('\n');
        text.push_str(&table(&rows));
    }
    for (title, types) in [("by group", &report.groups), ("by type", &report.types)] {
        text.push('\n');
        text.push_str(&type_table(title, types));
    }
    text.push_str(&footnotes(report));
    text
}

/// The comparison of two sets of answers.
pub fn comparison(model: &str, comparison: &Comparison) -> String {
    let several = comparison
        .differences
        .iter()
        .any(|one| one.task != comparison.differences[0].task);
    let mut rows = vec![vec![
        String::new(),
        comparison.with.clone(),
        model.to_owned(),
        "difference".into(),
        "95 % interval, paired".into(),
    ]];
    rows.extend(comparison.differences.iter().map(|one| {
        let label = match several {
            true => format!("{} {}", one.task, one.label),
            false => one.label.to_owned(),
        };
        let [low, high] = [one.interval.low, one.interval.high];
        vec![
            label,
            percent(one.theirs),
            percent(one.ours),
            format!("{:+.2}", 100.0 * one.difference),
            format!("[{:+.2}, {:+.2}]", 100.0 * low, 100.0 * high),
        ]
    }));
    let mut text = table(&rows);
    let _ = writeln!(
        text,
        "{} prompts gained, {} lost (strict); verdicts changed in {} rows",
        comparison.prompts_gained, comparison.prompts_lost, comparison.rows_changed
    );
    for change in comparison.changes.iter().take(CHANGES_SHOWN) {
        let _ = writeln!(text, "  {}", change_line(change));
    }
    if comparison.changes.len() > CHANGES_SHOWN {
        let more = comparison.changes.len() - CHANGES_SHOWN;
        let _ = writeln!(text, "  … and {more} more: --json lists all");
    }
    text
}

fn change_line(change: &Change) -> String {
    let word = |(strict, loose): (bool, bool)| match (strict, loose) {
        (true, _) => "followed",
        (false, true) => "followed loosely",
        (false, false) => "failed",
    };
    let turn = match change.turn {
        1 => String::new(),
        turn => format!(" turn {turn}"),
    };
    let (theirs, ours) = (word(change.theirs), word(change.ours));
    let Change {
        key,
        instruction,
        reason,
        ..
    } = change;
    format!("{key}{turn}  {instruction}  {theirs} → {ours}: {reason}")
}

fn task_rows(task: &TaskReport, named: bool) -> Vec<Vec<String>> {
    let name = if named { task.name.as_str() } else { "" };
    let label = |number: &Number| format!("{name} {}", number.label).trim().to_owned();
    let rows = task.numbers.iter().enumerate().map(|(index, number)| {
        let mut row = vec![
            label(number),
            percent(number.value),
            interval(number.interval),
        ];
        if index == 0 {
            row.extend([task.prompts.to_string(), task.instructions.to_string()]);
        }
        row
    });
    rows.collect()
}

fn headline_row(task: &TaskReport) -> Vec<String> {
    let headline = &task.numbers[0];
    vec![
        task.name.clone(),
        percent(headline.value),
        interval(headline.interval),
        task.prompts.to_string(),
    ]
}

fn type_table(title: &str, types: &[TypeReport]) -> String {
    let header = [
        title,
        "strict %",
        "95 % interval",
        "loose %",
        "95 % interval",
        "of",
    ];
    let mut rows = vec![cells(&header)];
    rows.extend(types.iter().map(|one| {
        vec![
            one.name.clone(),
            percent(one.strict),
            interval(one.strict_interval),
            percent(one.loose),
            interval(one.loose_interval),
            one.instructions.to_string(),
        ]
    }));
    table(&rows)
}

/// What a reader must know to read the numbers right.
fn footnotes(report: &Report) -> String {
    let mut text = String::new();
    if report.items_judged < report.items {
        let _ = writeln!(
            text,
            "\n{} of {} prompts: a smoke test, not a result.",
            report.items_judged, report.items
        );
    }
    if report.missing > 0 {
        let reasons = report.missing_reasons.iter();
        let reasons: Vec<String> = reasons
            .map(|(reason, count)| format!("{count} {reason}"))
            .collect();
        let _ = writeln!(
            text,
            "\nPrompts without a response, counted as failed: {} ({}). Over the others alone:",
            report.missing,
            reasons.join("; ")
        );
        for task in &report.answered_only {
            let numbers = task.numbers.iter();
            let numbers: Vec<String> = numbers
                .map(|number| format!("{} {}", number.label, percent(number.value)))
                .collect();
            let _ = writeln!(
                text,
                "  {} ({} prompts): {}",
                task.name,
                task.prompts,
                numbers.join(", ")
            );
        }
    }
    for (rule, count) in &report.unsupported {
        let _ = writeln!(text, "Prompts left out, not judged: {count} ({rule})");
    }
    if report.cut_at_max_tokens > 0 {
        let _ = writeln!(
            text,
            "Responses cut at the token limit, judged as they are: {}",
            report.cut_at_max_tokens
        );
    }
    if !report.other_wordings.is_empty() {
        let _ = writeln!(
            text,
            "Responses to another wording of their prompt: {} ({})",
            report.other_wordings.len(),
            report.other_wordings.join(", ")
        );
    }
    for note in &report.notes {
        let _ = writeln!(text, "{note}");
    }
    text
}

/// Two digits after the point; the unit is in the heading.
fn percent(share: f64) -> String {
    format!("{:.2}", 100.0 * share)
}

fn interval(of: Interval) -> String {
    format!("[{}, {}]", percent(of.low), percent(of.high))
}

fn cells(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// The first column to the left, the others to the right.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            match column {
                0 => line.push_str(&format!("{cell:<width$}")),
                _ => line.push_str(&format!("  {cell:>width$}")),
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
