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
    for (key, value, from) in config.recipe_entries() {
        let mut row = vec![key, value.to_string()];
        row.extend(args.origin.then(|| from.to_string()));
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
    let recipes = config
        .recipe_entries()
        .into_iter()
        .map(|(key, value, origin)| (key, json!({ "value": value, "origin": origin.to_string() })));
    json!({ "config": entries.chain(recipes).collect::<Map<_, _>>(), "aliases": config.aliases() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    #[test]
    fn what_an_unknown_key_points_to_lists_all_keys() {
        let config = Config::read(&Sources::default()).unwrap();
        let shown = document(&config);
        for key in [
            "model",
            "sampling.top_p",
            "ultraif.samples",
            "ultraif.rule_judge",
        ] {
            assert_eq!(shown["config"][key]["origin"], "built in", "{key}");
        }
        assert_eq!(shown["config"]["ultraif.samples"]["value"], 5);
    }
}
