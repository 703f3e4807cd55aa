//! Measuring: held-out instructions are answered, every answer logged before it counts, and
//! judged by rule; texts are scored by the weights.

use super::Loop;
use crate::commands::Env;
use crate::output::{self, Progress};
use crate::session::{self, Opened, Session};
use crate::weights::Weights;
use anyhow::{Context, Result};
use data::Message;
use eval::held_out::{ANSWERS_FILE, Asking, Instruction, Instructions, Scored, ask};
use pipeline::{
    AdmitAll, DriveOptions, Llm, Manifest, OnChange, Report, Roles, Run, Shard, Sourced,
    StopSignal, Target,
};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use train::{Network, Pack, PassOptions, Renderer, Sequence, TrainOn, best_fit};

/// Changes whenever what is asked for the same instruction does.
const RECIPE: &str = "held-out 1";
/// The only phase.
const PHASE: &str = "answer";
/// Name of the policy's adapter in the engine.
const POLICY: &str = "policy";
/// Tokens of texts that are scored at a time.
const PACK_TOKENS: usize = 2048;

/// Answers and judges all instructions with `adapter` above the model, if there is one, in
/// `folder`; nothing if the user stopped it. Beside the verdicts the perplexity on their texts.
///
/// # Errors
/// A folder made with something else, an engine that stopped, an adapter that does not fit.
pub(super) fn evaluate(
    env: &mut Env,
    of: &Loop<'_>,
    folder: &Path,
    adapter: Option<&Path>,
) -> Result<Option<(Scored, Option<f64>)>> {
    let adapters = adapter.map(|path| (POLICY.to_owned(), path.to_owned()));
    let opened = open(env, of, adapters.into_iter().collect())?;
    let name = adapter.map(|_| POLICY);
    let identity = opened.identity(name)?;
    let asking = of.asking();
    let run = Run::open(folder, manifest(of, &asking, &identity), OnChange::Refuse)?;
    let session = env.start(&opened)?;
    let report = drive(env, of, (&run, &session), (&identity, name, &asking))?;
    for line in session.speeds() {
        output::say(&line);
    }
    // Its KV pool is free again before texts are scored.
    drop(session);
    if report.interrupted || report.parked > 0 {
        return Ok(None);
    }
    run.export(PHASE, &[ANSWERS_FILE], None, &mut AdmitAll)?;
    let scored = scored(&of.inputs.instructions, folder)?;
    let weights = env.weights(&opened)?;
    let perplexity = perplexity(&of.inputs.instructions, &opened, (&weights, adapter))?;
    Ok(Some((scored, perplexity)))
}

/// The verdicts on answers that an evaluation wrote.
///
/// # Errors
/// A file that is gone or damaged.
pub(super) fn scored(instructions: &Instructions, folder: &Path) -> Result<Scored> {
    let path = folder.join("data").join(ANSWERS_FILE);
    let file = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let name = path.display().to_string();
    Ok(Scored::read(instructions, &name, BufReader::new(file))?)
}

/// The model with these adapters; its weights are kept.
pub(super) fn open(
    env: &mut Env,
    of: &Loop<'_>,
    adapters: Vec<(String, PathBuf)>,
) -> Result<Opened> {
    session::open_named(&of.model, adapters, &of.args.model, &mut env.config)
}

fn manifest(of: &Loop<'_>, asking: &Asking, identity: &str) -> Manifest {
    Manifest {
        program: concat!("autodidact ", env!("CARGO_PKG_VERSION")).into(),
        recipe: RECIPE.into(),
        seed: of.args.seed,
        source: of.inputs.held_out_digest.clone(),
        shard: Shard::ALL,
        models: BTreeMap::from([(PHASE.to_owned(), identity.to_owned())]),
        settings: json!({
            "samples": asking.samples, "temperature": asking.sampling.temperature,
            "top_p": asking.sampling.top_p, "max_tokens": asking.max_tokens,
        }),
        prompts: BTreeMap::new(),
    }
}

fn drive(
    env: &Env,
    of: &Loop<'_>,
    (run, session): (&Run, &Session),
    (identity, adapter, asking): (&str, Option<&str>, &Asking),
) -> Result<Report> {
    let roles = Roles::new(Target {
        generator: Some(Arc::clone(&session.engine) as Arc<_>),
        identity: identity.to_owned(),
        adapter: adapter.map(str::to_owned),
    });
    let items = &of.inputs.instructions.items;
    let source = items.iter().map(|item| Sourced {
        id: item.key.clone(),
        row: Ok(item),
    });
    let options = DriveOptions {
        concurrency: of.args.concurrency,
        stop: StopSignal::default(),
        ..DriveOptions::default()
    };
    let line = Arc::new(Mutex::new(None));
    let shown = Arc::clone(&line);
    let _progress =
        Progress::start(move || shown.lock().unwrap_or_else(PoisonError::into_inner).clone());
    let _orderly = env.interrupt.orderly();
    let report = run.drive(
        PHASE,
        source,
        &roles,
        &options,
        &async |item: &&Instruction, llm: &Llm<'_>| ask(item, llm, asking).await,
        &mut AdmitAll,
        &mut |now| {
            if env.interrupt.requested() && options.stop.times() == 0 {
                options.stop.request();
            }
            let told = format!("{} of {} instructions answered", now.rows_done, items.len());
            *line.lock().unwrap_or_else(PoisonError::into_inner) = Some(told);
        },
    )?;
    Ok(report)
}

/// Perplexity of the instructions' texts as answers; `None` if there are none.
fn perplexity(
    instructions: &Instructions,
    opened: &Opened,
    (weights, adapter): (&Weights, Option<&Path>),
) -> Result<Option<f64>> {
    let text = opened.text();
    let blank = text.conversation(&[]);
    let renderer = Renderer {
        tokenizer: text.tokenizer(),
        template: text.template().expect("the template was checked"),
        blank: &blank,
        end_ids: text.eos_ids(),
        max_length: opened.context_tokens(),
    };
    let sequences: Vec<Sequence> = instructions
        .items
        .iter()
        .filter_map(|item| {
            let mut messages = item.messages.clone();
            messages.push(Message::new("assistant", item.text.as_deref()?));
            renderer.conversation(&messages, TrainOn::Last).ok()
        })
        .collect();
    if sequences.is_empty() {
        return Ok(None);
    }
    let network = match adapter {
        Some(folder) => {
            let adapter = weights.adapter_fit().load(folder)?;
            Network::with_adapter(weights.base(), &adapter, 0.0)?
        }
        None => Network::frozen(weights.base())?,
    };
    let lengths: Vec<usize> = sequences.iter().map(|one| one.tokens.len()).collect();
    let (mut sum, mut tokens) = (0.0, 0_usize);
    for bin in best_fit(&lengths, PACK_TOKENS.max(opened.context_tokens())) {
        let pack = Pack::new(bin.iter().map(|index| &sequences[*index]));
        let scores = network.score(&pack, &PassOptions::default())?;
        sum += scores
            .iter()
            .map(|one| f64::from(one.log_prob))
            .sum::<f64>();
        tokens += scores.len();
    }
    Ok(Some((-sum / tokens.max(1) as f64).exp()))
}
