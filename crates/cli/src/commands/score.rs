//! `score`: how probable each choice is.

use crate::args::ScoreArgs;
use crate::commands::Env;
use crate::error::Failure;
use crate::output;
use crate::request::PromptSource;
use crate::session;
use crate::threads;
use anyhow::Result;
use data::{Generator, Score, Scores};
use serde_json::{Value, json};

/// Runs the command.
pub(crate) fn run(env: &mut Env, args: &ScoreArgs) -> Result<()> {
    if args.choice.iter().any(String::is_empty) {
        return Err(Failure::usage("--choice: an empty text has no probability"));
    }
    for setting in args.model.settings() {
        env.config.insert(setting)?;
    }
    threads::apply(&env.config)?;
    let opened = session::open(&args.model, &mut env.config)?;
    let source = PromptSource {
        prompt: args.prompt.as_deref(),
        messages: args.messages.as_deref(),
        system: args.system.as_deref(),
        raw: args.raw,
    };
    let prefix = source.read()?;
    let session = opened.start(&env.config)?;
    let request = Score {
        prefix,
        suffixes: args.suffix.clone(),
        labels: args.choice.clone(),
        adapter: session.adapter.clone(),
    };
    let scores = session.engine.score(request).wait()?;
    if args.json {
        return output::print_json(&document(&session.name, args, &scores));
    }
    Ok(output::print_line(&output::table(&rows(args, &scores)))?)
}

fn suffix_name(args: &ScoreArgs, index: usize) -> Option<&str> {
    args.suffix.get(index).map(String::as_str)
}

fn document(model: &str, args: &ScoreArgs, scores: &Scores) -> Value {
    let suffixes = scores.suffixes.iter().enumerate().map(|(index, one)| {
        json!({
            "suffix": suffix_name(args, index), "probabilities": one.probabilities,
            "logprobs": one.logprobs, "mass": one.mass,
        })
    });
    json!({
        "model": model, "choices": args.choice, "suffixes": suffixes.collect::<Vec<_>>(), "usage": scores.usage,
    })
}

/// One line per suffix and choice.
fn rows(args: &ScoreArgs, scores: &Scores) -> Vec<Vec<String>> {
    let quoted = |text: &str| Value::from(text).to_string();
    let mut rows = vec![
        ["suffix", "choice", "probability", "logprob", "mass"]
            .map(String::from)
            .to_vec(),
    ];
    for (index, one) in scores.suffixes.iter().enumerate() {
        for ((choice, probability), logprob) in args
            .choice
            .iter()
            .zip(&one.probabilities)
            .zip(&one.logprobs)
        {
            rows.push(vec![
                suffix_name(args, index).map_or("-".into(), quoted),
                quoted(choice),
                format!("{probability:.4}"),
                format!("{logprob:.4}"),
                format!("{:.4}", one.mass),
            ]);
        }
    }
    rows
}
