//! Answers to a few fixed prompts before and after, and a merged model beside its adapter.

use crate::commands::Env;
use crate::output;
use crate::session::Opened;
use crate::weights::Weights;
use anyhow::{Context, Result};
use data::{Generate, Generator, Message, Prompt, Sampling};
use engine::Text;
use model::{Adapter, Llama, LoadOptions, ModelFiles};
use serde::Serialize;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use train::{Network, Pack, PassOptions, Sequence};

/// Tokens of an answer.
const MAX_TOKENS: usize = 96;
/// Tokens of a KV pool that a few prompts need.
const KV_TOKENS: usize = 4096;

/// Prompts and their answers.
#[derive(Debug, Default)]
pub(super) struct Samples {
    prompts: Vec<Vec<Message>>,
    rows: Vec<Value>,
}

impl Samples {
    /// The first `count` prompts.
    pub(super) fn of(prompts: &[Vec<Message>], count: usize) -> Self {
        Self {
            prompts: prompts.iter().take(count).cloned().collect(),
            rows: vec![],
        }
    }

    /// Answers every prompt with the likeliest tokens. The engine lives no longer than this: its
    /// KV pool is free again while training.
    ///
    /// # Errors
    /// A prompt that does not fit, an engine that cannot start.
    pub(super) fn answer(
        &mut self,
        when: &str,
        env: &Env,
        opened: &Opened,
        (weights, adapter): (&Weights, Option<Adapter>),
    ) -> Result<()> {
        if self.prompts.is_empty() {
            return Ok(());
        }
        let longest = self
            .prompts
            .iter()
            .map(|prompt| tokens(opened.text(), prompt))
            .max();
        let needed = KV_TOKENS.max(2 * (longest.unwrap_or(0) + MAX_TOKENS));
        let opened = opened.without_adapters();
        let session = weights.start(&opened, &env.config, Some(needed))?;
        let name = adapter.is_some().then(|| "trained".to_owned());
        if let Some(adapter) = adapter {
            session.engine.load_adapter("trained", &adapter).wait()?;
        }
        let pending: Vec<_> = self
            .prompts
            .iter()
            .map(|prompt| {
                session.engine.generate(Generate {
                    max_tokens: Some(MAX_TOKENS),
                    sampling: Sampling::greedy(),
                    adapter: name.clone(),
                    ..Generate::new(Prompt::Messages(prompt.clone()))
                })
            })
            .collect();
        for (prompt, pending) in self.prompts.iter().zip(pending) {
            let (text, problem) = match pending.wait() {
                Ok(answers) => (answers.into_iter().next().map(|one| one.text), None),
                Err(error) => (None, Some(error.to_string())),
            };
            self.rows.push(json!({
                "when": when, "prompt": prompt, "answer": text, "problem": problem,
            }));
        }
        Ok(())
    }

    /// Prompt and answer of each, before and after.
    pub(super) fn rows(&self) -> &[Value] {
        &self.rows
    }

    /// Shows them.
    pub(super) fn tell(&self) {
        for row in &self.rows {
            let last = row["prompt"].as_array().and_then(|turns| turns.last());
            let prompt = last.and_then(|turn| turn["content"].as_str()).unwrap_or("");
            let answer = row["answer"]
                .as_str()
                .or(row["problem"].as_str())
                .unwrap_or("");
            let when = row["when"].as_str().unwrap_or("");
            output::say(&format!(
                "{when:<6} {} -> {}",
                clipped(prompt),
                clipped(answer)
            ));
        }
    }

    /// Writes them to `samples.jsonl`.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join("samples.jsonl");
        let lines: String = self.rows.iter().map(|row| format!("{row}\n")).collect();
        fs::write(&path, lines).with_context(|| format!("cannot write {}", path.display()))
    }
}

fn tokens(text: &Text, prompt: &[Message]) -> usize {
    text.tokenize(&Prompt::Messages(prompt.to_vec()))
        .map_or(0, |tokens| tokens.len())
}

/// On one line, at most 100 characters.
fn clipped(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(100) {
        Some((end, _)) => format!("{:?}…", &line[..end]),
        None => format!("{line:?}"),
    }
}

/// A merged model beside base and adapter.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct MergedCheck {
    /// Tokens whose log-probability was compared.
    pub(super) tokens: usize,
    /// Largest distance of two log-probabilities.
    pub(super) largest_difference: f32,
    /// Tokens on whose being the likeliest both agree.
    pub(super) same_top: usize,
}

/// Compares log-probabilities of a merged model with those of its base and adapter, on texts
/// that the vocabulary itself gives.
///
/// # Errors
/// A model that cannot be loaded.
pub(super) fn compare_merged(
    base: &Llama,
    adapter: &Path,
    merged: &Path,
    text: &Text,
) -> Result<MergedCheck> {
    const PROMPTS: usize = 32;
    const LENGTH: usize = 24;
    let decoder = base.decoder();
    let beside = Network::with_adapter(decoder, &decoder.load_adapter(adapter)?, 0.0)?;
    let options = LoadOptions {
        max_positions: Some(base.max_positions()),
        ..Default::default()
    };
    let merged = ModelFiles::open(merged)?.load(&options)?;
    let merged = Network::frozen(merged.decoder())?;
    let vocab = decoder
        .config
        .vocab_size
        .min(text.tokenizer().vocab_size())
        .max(1);
    let sequences: Vec<Sequence> = (0..PROMPTS)
        .map(|prompt| {
            // A walk through the vocabulary with a step that has no factor in common with much.
            let tokens = (0..LENGTH).map(|i| ((prompt * LENGTH + i) * 7919) % vocab);
            let tokens = tokens.map(|id| u32::try_from(id).unwrap_or(0)).collect();
            Sequence::completion(tokens, 1)
        })
        .collect();
    let pack = Pack::new(&sequences);
    let options = PassOptions::default();
    let (ours, theirs) = (
        merged.score(&pack, &options)?,
        beside.score(&pack, &options)?,
    );
    let pairs = || ours.iter().zip(&theirs);
    Ok(MergedCheck {
        tokens: ours.len(),
        largest_difference: pairs()
            .map(|(a, b)| (a.log_prob - b.log_prob).abs())
            .fold(0.0, f32::max),
        same_top: pairs().filter(|(a, b)| a.is_top == b.is_top).count(),
    })
}
