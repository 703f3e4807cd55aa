//! `train lm`: a small model from scratch, or all of a model's weights, on text.

use super::args::LmArgs;
use super::course::Course;
use super::estimate;
use super::presets::{self, Method};
use super::rows::DroppedRows;
use super::samples::Samples;
use super::watch::Watch;
use super::{Trained, conclude, lock};
use crate::commands::Env;
use crate::config::Setting;
use crate::error::Failure;
use crate::output;
use crate::threads;
use anyhow::{Context, Result};
use data::{Message, SourceRow, read_rows};
use engine::Text;
use model::{
    ChatTemplate, Conversation, LoadOptions, ModelError, ModelFiles, Special, on_template_stack,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::thread;
use train::{
    Item, ItemTokens, MuonSettings, Network, Objective, Renderer, RunData, Sequence, TrainOn,
    WeightsForm, companions,
};

/// Runs the command.
pub(super) fn run(env: &mut Env, args: &LmArgs) -> Result<ExitCode> {
    // Packs side by side: no product is shared between threads.
    let threads = args.workers.map_or(args.threads, |_| Some(1));
    let number = threads.map(|count| toml::Value::Integer(i64::from(count)));
    if let Some(setting) = Setting::flag("engine.threads", "--threads", number) {
        env.config.insert(setting)?;
    }
    threads::apply(&env.config)?;
    let files = ModelFiles::open(&args.init)?;
    let config = files.config()?;
    let tokenizer = files.tokenizer()?;
    let template = match files.chat_template(&tokenizer) {
        Ok(template) => Some(template),
        Err(ModelError::NoChatTemplate { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let text = Text::new(tokenizer, template, files.eos_token_ids()?);
    let preset = presets::choose(None, Method::Sft)?;
    let mut course = Course::of(&args.course, &preset, true, config.max_position_embeddings)?;
    course.workers = args.workers.map_or(1, usize::from);
    course.optimizer.betas = (0.9, 0.95);
    course.optimizer.muon = args.muon_lr.map(|rate| MuonSettings {
        rate,
        momentum: 0.95,
        weight_decay: args.course.weight_decay,
    });
    let (items, dropped) = read(args, &text, &course)?;
    let settings = course.settings(Objective::Sft);
    let decoder;
    let mut network = if args.from_scratch {
        Network::from_scratch(&config, course.seed)?
    } else {
        decoder = files.load(&LoadOptions::default())?;
        Network::full(decoder.decoder())?
    };
    let data = held_out(items, args);
    let plan = estimate::plan(&network, &data.train, &settings, None)?;
    plan.tell();
    if args.course.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    plan.check()?;
    let _lock = lock(&args.output)?;
    dropped.write(&args.output)?;
    let form = WeightsForm::Model {
        companions: companions(&args.init),
    };
    let identity = BTreeMap::from([
        ("trained".to_owned(), "all weights".to_owned()),
        ("start".to_owned(), start_of(args)),
    ]);
    let mut watch = Watch::new(&env.interrupt);
    let place = (args.output.as_path(), &form, identity);
    let finished = train::run(&mut network, &data, &settings, place, &mut watch)?;
    watch.finish();
    let rows = data.train.len();
    let trained = Trained::new(finished, rows, &watch, Samples::default());
    conclude(&args.output, args.course.json, &trained)
}

fn start_of(args: &LmArgs) -> String {
    match args.from_scratch {
        true => format!("random weights, seed {}", args.course.seed),
        false => args.init.display().to_string(),
    }
}

/// The last rows are held out: rows of a corpus are independent.
fn held_out(mut items: Vec<Item>, args: &LmArgs) -> RunData {
    let train = items.len().saturating_sub(args.course.held_out).max(1);
    let held_out = items.split_off(train.min(items.len()));
    RunData {
        train: items,
        held_out,
        ..Default::default()
    }
}

/// Rows with `text`, or with `messages`, in any format that is read here; a row's `weight` says
/// how much its trained tokens count, 1 if it says nothing.
fn read(args: &LmArgs, text: &Text, course: &Course) -> Result<(Vec<Item>, DroppedRows)> {
    let blank = text.conversation(&[]);
    let (mut items, mut dropped) = (vec![], DroppedRows::default());
    for path in &args.data {
        let mut rows = read_rows(path)?.peekable();
        while rows.peek().is_some() {
            let mut some: Vec<SourceRow<Value>> = vec![];
            for row in rows.by_ref().take(ROWS_AT_A_TIME) {
                match row {
                    Ok(row) => some.push(row),
                    Err(problem) => dropped.unusable(&problem),
                }
            }
            let found = sequences(&some, text, (&blank, course.max_length))?;
            for (row, found) in some.into_iter().zip(found) {
                match found {
                    Ok(mut sequence) => {
                        let own = row.value["weight"].as_f64().unwrap_or(1.0);
                        for weight in &mut sequence.weights {
                            *weight = match *weight == 0.0 {
                                true => args.prompt_weight as f32,
                                false => own as f32,
                            };
                        }
                        let tokens = ItemTokens::Single(sequence);
                        items.push(Item { id: row.id, tokens });
                    }
                    Err(reason) => {
                        let place = format!("{}:{}", row.file.display(), row.line);
                        dropped.add(row.id, place, reason.clone(), reason);
                    }
                }
            }
        }
    }
    output::say(&format!(
        "{} rows to train on, {}",
        items.len(),
        dropped.reasons()
    ));
    match items.is_empty() {
        true => Err(Failure::input(format!(
            "no row to train on: {}",
            dropped.reasons()
        ))),
        false => Ok((items, dropped)),
    }
}

/// Rows rendered and tokenised together.
const ROWS_AT_A_TIME: usize = 16_384;

type Found = std::result::Result<Sequence, String>;

/// Every row's tokens, or why it is dropped, made on all cores.
fn sequences(
    rows: &[SourceRow<Value>],
    text: &Text,
    limits: (&Conversation, usize),
) -> Result<Vec<Found>> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let share = rows.len().div_ceil(threads).max(1);
    let all = |part: &[SourceRow<Value>]| -> Vec<Found> {
        let rows = part.iter();
        rows.map(|row| sequence(&row.value, text, text.template(), limits))
            .collect()
    };
    let parts: Vec<std::io::Result<Vec<Found>>> = thread::scope(|scope| {
        let parts = rows.chunks(share);
        let running: Vec<_> = parts
            .map(|part| scope.spawn(move || on_template_stack(|| all(part))))
            .collect();
        let joined = running.into_iter().map(|thread| match thread.join() {
            Ok(found) => found,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.collect()
    });
    let mut found = Vec::with_capacity(rows.len());
    for part in parts {
        found.extend(part.context("no thread to tokenise on")?);
    }
    Ok(found)
}

/// One row's tokens, or why it is dropped.
fn sequence(
    row: &Value,
    text: &Text,
    template: Option<&ChatTemplate>,
    (blank, max_length): (&Conversation, usize),
) -> Found {
    if let Some(plain) = row["text"].as_str() {
        let refused = |_| "not tokenised".to_owned();
        let mut tokens: Vec<u32> = text.tokenizer().bos_id().into_iter().collect();
        tokens.extend(
            text.tokenizer()
                .encode(plain, Special::AsText)
                .map_err(refused)?,
        );
        tokens.extend(text.eos_ids().first());
        return match tokens.len() {
            0 | 1 => Err("empty".into()),
            len if len > max_length => Err("too-long".into()),
            _ => Ok(Sequence::completion(tokens, 1)),
        };
    }
    let messages: Vec<Message> = serde_json::from_value(row["messages"].clone())
        .map_err(|_| "no text or messages".to_owned())?;
    let renderer = Renderer {
        tokenizer: text.tokenizer(),
        template: template.ok_or("no chat template in the folder")?,
        blank,
        end_ids: text.eos_ids(),
        max_length,
    };
    let found = renderer.conversation(&messages, TrainOn::AllAssistant);
    found.map_err(|dropped| dropped.reason().to_owned())
}
