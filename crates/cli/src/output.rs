//! The two streams: stdout carries results, stderr everything else. No colour, no cursor
//! movement; what is piped stays plain.

use serde::Serialize;
use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Version of the JSON that commands print; raised when a key changes its meaning or goes.
const SCHEMA_VERSION: u32 = 1;

/// Writes to stdout and hands it on at once.
///
/// # Errors
/// What the system says; a closed pipe ends the program quietly in `main`.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Like [`print()`], with a line end.
pub(crate) fn print_line(text: &str) -> io::Result<()> {
    print(&format!("{text}\n"))
}

/// Prints a document of facts, with the version of its schema as first key.
pub(crate) fn print_json(facts: &impl Serialize) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Document<'a, T> {
        schema_version: u32,
        #[serde(flatten)]
        facts: &'a T,
    }
    let document = Document {
        schema_version: SCHEMA_VERSION,
        facts,
    };
    Ok(print_line(&serde_json::to_string_pretty(&document)?)?)
}

/// Tells the user something; a closed stderr is no reason to stop.
pub(crate) fn say(text: &str) {
    drop(writeln!(io::stderr().lock(), "{text}"));
}

/// Asks for the next line of input, without a line end.
pub(crate) fn ask(prompt: &str) {
    let mut stderr = io::stderr().lock();
    drop(write!(stderr, "{prompt}"));
    drop(stderr.flush());
}

/// Is there somebody at the keyboard?
pub(crate) fn stdin_is_terminal() -> bool {
    io::stdin().is_terminal()
}

/// Says how far a long command has come: every second where somebody watches, else every
/// ten. Ends when dropped.
pub(crate) struct Progress {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Progress {
    /// `line` is asked for a line each time; `None` says nothing.
    pub(crate) fn start(line: impl Fn() -> Option<String> + Send + 'static) -> Self {
        let watched = io::stderr().is_terminal();
        let every = Duration::from_secs(if watched { 1 } else { 10 });
        let (stop, stopped) = channel::<()>();
        let thread = std::thread::spawn(move || {
            let mut width = 0;
            while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                let Some(line) = line() else { continue };
                if watched {
                    // Overwrites the line before, blanks included: no escape sequence needed.
                    ask(&format!("\r{line:<width$}"));
                    width = line.chars().count();
                } else {
                    say(&line);
                }
            }
            if width > 0 {
                ask(&format!("\r{:width$}\r", ""));
            }
        });
        Self {
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// A table with columns as wide as their widest cell; the last column is not padded.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Bytes with a unit: decimal, one digit after the point.
pub(crate) fn bytes(count: u64) -> String {
    let units = ["kB", "MB", "GB", "TB"];
    if count < 1000 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_readable() {
        for (count, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (999_960, "1.0 MB"),
            (16_400_000_000, "16.4 GB"),
            (u64::MAX, "18446744.1 TB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn columns_line_up() {
        let rows = [
            vec!["a".into(), "1".into()],
            vec!["long".into(), "22".into()],
            vec!["x".into()],
        ];
        assert_eq!(table(&rows), "a     1\nlong  22\nx");
    }
}
