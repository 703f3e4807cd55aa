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
use anyhow::Result;
use data::{Message, read_rows};
use engine::Text;
use model::{ChatTemplate, LoadOptions, ModelError, ModelFiles, Special};
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::ExitCode;
use train::{
    Item, ItemTokens, MuonSettings, Network, Objective, Renderer, RunData, Sequence, TrainOn,
    WeightsForm, companions,
};

/// Runs the command.
pub(super) fn run(env: &mut Env, args: &LmArgs) -> Result<ExitCode> {
    let number = args
        .threads
        .map(|count| toml::Value::Integer(i64::from(count)));
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
    let plan = estimate::plan(&network, &data.train, &settings)?;
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

/// Rows with `text`, or with `messages`, in any format that is read here.
fn read(args: &LmArgs, text: &Text, course: &Course) -> Result<(Vec<Item>, DroppedRows)> {
    let blank = text.conversation(&[]);
    let (mut items, mut dropped) = (vec![], DroppedRows::default());
    for path in &args.data {
        for row in read_rows(path)? {
            let row = match row {
                Ok(row) => row,
                Err(problem) => {
                    dropped.unusable(&problem);
                    continue;
                }
            };
            match sequence(
                &row.value,
                text,
                text.template(),
                (&blank, course.max_length),
            ) {
                Ok(mut sequence) => {
                    for weight in &mut sequence.weights {
                        if *weight == 0.0 {
                            *weight = args.prompt_weight as f32;
                        }
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

/// One row's tokens, or why it is dropped.
fn sequence(
    row: &Value,
    text: &Text,
    template: Option<&ChatTemplate>,
    (blank, max_length): (&model::Conversation, usize),
) -> std::result::Result<Sequence, String> {
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
