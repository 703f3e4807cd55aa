//! Says how a run goes: a line at most every ten seconds, or every second on a terminal.

use super::estimate::span;
use crate::interrupt::{Interrupt, Orderly};
use crate::machine;
use crate::output::{self, Progress};
use serde_json::{Map, Value};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use train::{Observer, StepReport};

/// Watches one run.
pub(super) struct Watch<'a> {
    interrupt: &'a Interrupt,
    _orderly: Orderly,
    progress: Option<Progress>,
    line: Arc<Mutex<Option<String>>>,
    began: Instant,
    first_step: Option<u64>,
    last: Option<Map<String, Value>>,
    last_evaluation: Option<Map<String, Value>>,
}

impl<'a> Watch<'a> {
    /// Begins to say lines.
    pub(super) fn new(interrupt: &'a Interrupt) -> Self {
        let line: Arc<Mutex<Option<String>>> = Arc::default();
        let shown = Arc::clone(&line);
        let take = move || shown.lock().unwrap_or_else(PoisonError::into_inner).take();
        Self {
            _orderly: interrupt.orderly(),
            interrupt,
            progress: Some(Progress::start(take)),
            line,
            began: Instant::now(),
            first_step: None,
            last: None,
            last_evaluation: None,
        }
    }

    /// Says no more lines.
    pub(super) fn finish(&mut self) {
        self.progress = None;
    }

    /// The last step's measurements.
    pub(super) fn last(&self) -> Option<&Map<String, Value>> {
        self.last.as_ref()
    }

    /// Those of the last evaluation.
    pub(super) fn last_evaluation(&self) -> Option<&Map<String, Value>> {
        self.last_evaluation.as_ref()
    }
}

impl Observer for Watch<'_> {
    fn on_step(&mut self, step: &StepReport) {
        let first = *self.first_step.get_or_insert(step.step - 1);
        let done = (step.step - first) as f64;
        let left = (step.total_steps - step.step) as f64;
        let each = self.began.elapsed().as_secs_f64() / done;
        let mut line = format!("step {}/{}", step.step, step.total_steps);
        line.push_str(&format!("  {}", brief(&step.metrics)));
        let rate = number(&step.metrics, "tokens_per_s");
        line.push_str(&format!("  {rate:.0} tok/s"));
        if let Some(bytes) = self.memory_peak_bytes() {
            line.push_str(&format!("  peak {}", output::bytes(bytes)));
        }
        line.push_str(&format!(
            "  {} left",
            span(Duration::from_secs_f64(each * left))
        ));
        *self.line.lock().unwrap_or_else(PoisonError::into_inner) = Some(line);
        self.last = Some(step.metrics.clone());
    }

    fn on_evaluation(&mut self, step: u64, metrics: &Map<String, Value>) {
        output::say(&format!("step {step}: {}", brief(metrics)));
        self.last_evaluation = Some(metrics.clone());
    }

    fn should_stop(&self) -> bool {
        self.interrupt.requested()
    }

    fn memory_peak_bytes(&self) -> Option<u64> {
        machine::peak_resident()
    }
}

/// The few numbers that people look at.
pub(super) fn brief(metrics: &Map<String, Value>) -> String {
    const SHOWN: [(&str, &str); 8] = [
        ("loss", "loss"),
        ("eval_loss", "held-out loss"),
        ("mean_token_accuracy", "accuracy"),
        ("eval_mean_token_accuracy", "accuracy"),
        ("rewards/accuracies", "pairs right"),
        ("eval_rewards/accuracies", "pairs right"),
        ("rewards/margins", "margin"),
        ("eval_rewards/margins", "margin"),
    ];
    let shown = SHOWN.iter().filter(|(key, _)| metrics.contains_key(*key));
    let mut parts: Vec<String> = shown
        .map(|(key, name)| format!("{name} {:.4}", number(metrics, key)))
        .collect();
    if metrics.contains_key("learning_rate") {
        parts.push(format!("lr {:.2e}", number(metrics, "learning_rate")));
        parts.push(format!("grad {:.2}", number(metrics, "grad_norm")));
    }
    parts.join("  ")
}

fn number(metrics: &Map<String, Value>, key: &str) -> f64 {
    metrics.get(key).and_then(Value::as_f64).unwrap_or(0.0)
}
