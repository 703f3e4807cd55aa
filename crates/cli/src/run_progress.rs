//! What a long run says while it works: one line, overwritten where somebody watches, every
//! ten seconds otherwise.

use crate::output;
use pipeline::{Progress, Shard, StageUse};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Rows of this invocation after which the rest is estimated.
const PREVIEW_ROWS: u64 = 8;

/// Says how far a run is.
pub(crate) struct RunProgress {
    accept: Option<u64>,
    /// Rows of the seeds that are ours, about.
    rows: u64,
    watched: bool,
    told: Instant,
    width: usize,
    estimated: bool,
    failure_told: bool,
}

impl RunProgress {
    pub(crate) fn new(accept: Option<u64>, source_rows: u64, shard: &Shard) -> Self {
        Self {
            accept,
            rows: source_rows / u64::from(shard.count()),
            watched: std::io::stderr().is_terminal(),
            told: Instant::now(),
            width: 0,
            estimated: false,
            failure_told: false,
        }
    }

    /// Says it, if it is time.
    pub(crate) fn tell(&mut self, state: &Progress) {
        if !self.estimated && state.rows_done.saturating_sub(state.rows_from_before) >= PREVIEW_ROWS
        {
            self.estimated = true;
            if let Some(estimate) = self.estimate(state) {
                self.finish();
                output::say(&estimate);
            }
        }
        if let (Some(failure), false) = (&state.failure, self.failure_told) {
            self.failure_told = true;
            self.finish();
            output::say(&format!(
                "a call failed, and its row stays open for the same command to ask again: {failure}"
            ));
        }
        let every = Duration::from_secs(if self.watched { 1 } else { 10 });
        if self.told.elapsed() < every {
            return;
        }
        self.told = Instant::now();
        let line = self.line(state);
        if self.watched {
            output::ask(&format!("\r{line:<width$}", width = self.width));
            self.width = line.chars().count();
        } else {
            output::say(&line);
        }
    }

    /// Says it now, with what each stage has cost.
    pub(crate) fn snapshot(&mut self, state: &Progress) {
        self.finish();
        output::say(&self.line(state));
        for line in stage_lines(state) {
            output::say(&line);
        }
    }

    /// Leaves the line.
    pub(crate) fn finish(&mut self) {
        if self.width > 0 {
            output::ask(&format!("\r{:width$}\r", "", width = self.width));
            self.width = 0;
        }
    }

    fn line(&self, state: &Progress) -> String {
        let sum = |of: fn(&StageUse) -> u64| state.stages.values().map(of).sum::<u64>() as f64;
        let seconds = state.elapsed.as_secs_f64().max(1e-9);
        let accepted = match self.accept {
            Some(accept) => format!("{} / {accept} accepted", state.accepted),
            None => format!("{} accepted", state.accepted),
        };
        let share = state.accepted as f64 * 100.0 / state.rows_done.max(1) as f64;
        let mut parts = vec![
            format!("{} rows", state.rows_done),
            format!("{accepted} ({share:.0} %)"),
            format!("out {:.0} tok/s", sum(|s| s.completion_tokens) / seconds),
            format!("in {:.0} tok/s", sum(|s| s.prompt_tokens) / seconds),
            format!("{} calls under way", state.calls_in_flight),
        ];
        if state.rows_failed > 0 {
            parts.push(format!("{} rows to be asked again", state.rows_failed));
        }
        parts.extend(
            self.remaining(state)
                .map(|left| format!("ETA {}", duration(left))),
        );
        parts.join(" | ")
    }

    /// Rows still to do at the present rate of acceptance.
    fn rows_left(&self, state: &Progress) -> Option<u64> {
        let left_of_seeds = self.rows.saturating_sub(state.rows_done);
        match self.accept {
            None => Some(left_of_seeds),
            Some(_) if state.accepted == 0 => None,
            Some(accept) => {
                let missing = accept.saturating_sub(state.accepted) as f64;
                let per_accepted = state.rows_done as f64 / state.accepted as f64;
                Some(((missing * per_accepted).ceil() as u64).min(left_of_seeds))
            }
        }
    }

    fn remaining(&self, state: &Progress) -> Option<Duration> {
        let now = state.rows_done.saturating_sub(state.rows_from_before);
        if now == 0 {
            return None;
        }
        // Rows under way are about half done.
        let worked = now as f64 + state.rows_in_flight as f64 / 2.0;
        let each = state.elapsed.as_secs_f64() / worked;
        Some(Duration::from_secs_f64(
            each * self.rows_left(state)? as f64,
        ))
    }

    fn estimate(&self, state: &Progress) -> Option<String> {
        let (rows, left) = (self.rows_left(state)?, self.remaining(state)?);
        let tokens: u64 = state.stages.values().map(|one| one.completion_tokens).sum();
        let now = state
            .rows_done
            .saturating_sub(state.rows_from_before)
            .max(1);
        let more = tokens / now * rows;
        Some(format!(
            "estimate after {now} rows: about {rows} more rows, {more} tokens to write, {}",
            duration(left)
        ))
    }
}

/// Calls and tokens of each stage.
fn stage_lines(state: &Progress) -> Vec<String> {
    let line = |(stage, one): (&String, &StageUse)| {
        format!(
            "  {stage}: {} calls, {} from the log, {} tokens read ({} of them cached), {} written",
            one.asked, one.reused, one.prompt_tokens, one.cached_tokens, one.completion_tokens
        )
    };
    state.stages.iter().map(line).collect()
}

/// Hours and minutes, or less.
fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_follows_from_the_rate() {
        let progress = |accept| RunProgress::new(accept, 1000, &Shard::ALL);
        let state = Progress {
            rows_done: 100,
            rows_from_before: 50,
            accepted: 20,
            elapsed: Duration::from_secs(50),
            ..Progress::default()
        };
        assert_eq!(progress(None).rows_left(&state), Some(900));
        assert_eq!(progress(Some(40)).rows_left(&state), Some(100));
        assert_eq!(
            progress(Some(40)).remaining(&state),
            Some(Duration::from_secs(100))
        );
        assert_eq!(progress(Some(4000)).rows_left(&state), Some(900));
        let nothing = Progress::default();
        assert_eq!(progress(Some(4)).rows_left(&nothing), None);
        assert_eq!(progress(None).remaining(&nothing), None);
        assert_eq!(duration(Duration::from_secs(3725)), "1 h 2 min");
    }

    #[test]
    fn a_snapshot_has_each_stage_and_what_failed() {
        let one = StageUse {
            asked: 3,
            reused: 2,
            prompt_tokens: 50,
            cached_tokens: 40,
            completion_tokens: 7,
        };
        let state = Progress {
            rows_done: 10,
            rows_failed: 4,
            stages: [("judge".to_owned(), one)].into(),
            ..Progress::default()
        };
        let expected =
            "  judge: 3 calls, 2 from the log, 50 tokens read (40 of them cached), 7 written";
        assert_eq!(stage_lines(&state), [expected]);
        let line = RunProgress::new(None, 10, &Shard::ALL).line(&state);
        assert!(line.contains("4 rows to be asked again"), "{line}");
    }
}
