//! `config show`: every key with its value and where that came from.

use crate::args::ConfigShowArgs;
use crate::config::Config;
use crate::output;
use anyhow::Result;
use serde_json::{Map, Value, json};

/// Prints the effective configuration below the flags of other commands.
pub(crate) fn show(config: &Config, args: &ConfigShowArgs) -> Result<()> {
    if args.json {
        return output::print_json(&document(config));
    }
    let mut rows = Vec::new();
    for (key, entry) in config.entries() {
        let (value, from) = match entry {
            Some((value, from)) => (value.to_string(), from.to_string()),
            None => ("(unset)".to_owned(), "built in".to_owned()),
        };
        let mut row = vec![key.to_owned(), value];
        row.extend(args.origin.then_some(from));
        rows.push(row);
    }
    for (alias, target) in config.aliases() {
        rows.push(vec![
            format!("aliases.{alias}"),
            toml::Value::from(target.as_str()).to_string(),
        ]);
    }
    Ok(output::print_line(&output::table(&rows))?)
}

fn document(config: &Config) -> Value {
    let entries = config.entries().map(|(key, entry)| {
        let (value, origin) = match entry {
            Some((value, origin)) => (json!(value), json!(origin.to_string())),
            None => (Value::Null, json!("built in")),
        };
        (key.to_owned(), json!({ "value": value, "origin": origin }))
    });
    json!({ "config": entries.collect::<Map<_, _>>(), "aliases": config.aliases() })
}
