//! `models`: what is on this machine, and what one model is.

use crate::args::{ModelsLsArgs, ModelsShowArgs};
use crate::config::Config;
use crate::output;
use crate::session::{self, EMBEDDED};
use crate::text_parts::{OwnFiles, TextParts};
use anyhow::Result;
use model::{Architecture, KvPool, KvType, ModelConfig, RopeScaling};
use serde_json::{Value, json};

/// Prints every model that `-m` would find by name.
pub(crate) fn ls(config: &Config, args: &ModelsLsArgs) -> Result<()> {
    let cache = session::hub_cache();
    let cached = cache.list();
    if args.json {
        let models: Vec<Value> = cached
            .iter()
            .map(|one| {
                json!({
                    "id": one.id, "commit": one.commit, "refs": one.refs, "path": one.path,
                    "size_bytes": one.size_in_bytes, "complete": one.missing.is_empty(), "missing": one.missing,
                })
            })
            .collect();
        return output::print_json(&json!({
            "embedded": EMBEDDED, "cache": cache.root(), "models": models, "aliases": config.aliases(),
        }));
    }
    let mut rows = vec![vec![
        EMBEDDED.to_owned(),
        "toy for trying out".into(),
        "in the program".into(),
    ]];
    for one in &cached {
        let size = output::bytes(one.size_in_bytes);
        let state = match one.missing.len() {
            0 => format!("{size}, complete"),
            count => format!("{size}, {count} missing: {}", shortened(&one.missing)),
        };
        rows.push(vec![one.id.clone(), state, one.path.display().to_string()]);
    }
    for (alias, target) in config.aliases() {
        rows.push(vec![alias.clone(), "alias".into(), target.clone()]);
    }
    output::print_line(&output::table(&rows))?;
    if cached.is_empty() {
        output::say(&format!("no models in {}", cache.root().display()));
    }
    Ok(())
}

/// Prints what is known about a model without its weights.
pub(crate) fn show(config: &Config, args: &ModelsShowArgs) -> Result<()> {
    let located = session::locate(
        args.model
            .as_deref()
            .or(config.text("model"))
            .unwrap_or(EMBEDDED),
        config,
    )?;
    let model = &located.model;
    // A model whose text side is missing is still a model.
    let parts = TextParts::of(&located, OwnFiles::default());
    let kv_per_token = KvPool::bytes_per_token(model, KvType::F16);
    let mut facts = json!({
        "name": located.name, "found_as": located.found_as, "path": located.files.path(),
        "size_bytes": located.size_in_bytes()?, "architecture": architecture(model.architecture),
        "context_tokens": model.max_position_embeddings, "vocab_size": model.vocab_size,
        "hidden_size": model.hidden_size, "intermediate_size": model.intermediate_size,
        "num_layers": model.num_layers, "num_heads": model.num_heads, "num_kv_heads": model.num_kv_heads,
        "head_dim": model.head_dim, "tied_embeddings": model.tie_word_embeddings,
        "rope_theta": model.rope.theta, "rope_scaling": rope_scaling(model),
        "kv_bytes_per_token_f16": kv_per_token, });
    for (key, value) in text_facts(parts.as_ref()) {
        facts[key] = value;
    }
    if args.json {
        return output::print_json(&facts);
    }
    let Value::Object(facts) = facts else {
        unreachable!("built as an object above");
    };
    let rows: Vec<Vec<String>> = facts
        .into_iter()
        .map(|(key, value)| {
            vec![
                key,
                value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned),
            ]
        })
        .collect();
    Ok(output::print_line(&output::table(&rows))?)
}

fn text_facts(parts: Result<&TextParts, &anyhow::Error>) -> Vec<(&'static str, Value)> {
    let parts = match parts {
        Ok(parts) => parts,
        Err(problem) => return vec![("text_problem", json!(problem.to_string()))],
    };
    let recommended = parts.recommended_settings();
    let recommended = recommended
        .iter()
        .map(|one| (one.key.to_owned(), json!(one.value)));
    vec![
        ("eos_token_ids", json!(parts.eos_ids)),
        ("chat_templates", json!(parts.template_names())),
        ("recommended_sampling", Value::Object(recommended.collect())),
    ]
}

/// At most three names.
pub(crate) fn shortened(names: &[String]) -> String {
    match names {
        [a, b, c, _, ..] => format!("{a}, {b}, {c}, …"),
        names => names.join(", "),
    }
}

fn architecture(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::Llama => "llama",
        Architecture::Mistral => "mistral",
        Architecture::Qwen2 => "qwen2",
        Architecture::Qwen3 => "qwen3",
    }
}

fn rope_scaling(model: &ModelConfig) -> Value {
    match &model.rope.scaling {
        RopeScaling::Default => Value::Null,
        RopeScaling::Linear { factor } => json!({ "linear": factor }),
        RopeScaling::Llama3 { factor, .. } => json!({ "llama3": factor }),
    }
}
