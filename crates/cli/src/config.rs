//! Configuration: every key once in [`KEYS`], every value with where it came from.
//!
//! Precedence, highest first: flag, `--set`, `AUTODIDACT_*`, `./autodidact.toml` (or
//! `--config`), `$XDG_CONFIG_HOME/autodidact/config.toml`, the model's
//! `generation_config.json` (sampling only), built in.

use crate::commands::align::settings as align;
use crate::error::Failure;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use toml::Value;

const ENV_PREFIX: &str = "AUTODIDACT_";
/// Variables with the prefix that are no keys: where tests find their golden data, and what
/// they run on.
const NOT_KEYS: [&str; 3] = [
    "AUTODIDACT_SHARED",
    "AUTODIDACT_TEST_DEVICE",
    "AUTODIDACT_TEST_FIXTURES",
];
const ALIASES: &str = "aliases";

/// What a key holds.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Text,
    /// A whole number, at least this.
    Integer(i64),
    Number,
    OneOf(&'static [&'static str]),
}

/// One key of the configuration.
struct Key {
    name: &'static str,
    kind: Kind,
    /// As it would stand in a file; `None` = unset.
    default: Option<&'static str>,
}

const fn key(name: &'static str, kind: Kind, default: Option<&'static str>) -> Key {
    Key {
        name,
        kind,
        default,
    }
}

const KEYS: &[Key] = &[
    key("model", Kind::Text, Some("\"embedded\"")),
    key("engine.threads", Kind::Integer(1), None),
    key("engine.context", Kind::Integer(1), None),
    key("engine.kv_tokens", Kind::Integer(1), None),
    key(
        "engine.kv_dtype",
        Kind::OneOf(&["f32", "f16", "bf16", "f8"]),
        None,
    ),
    key("engine.devices", Kind::Text, Some("\"cpu\"")),
    key(
        "engine.deterministic",
        Kind::OneOf(&["on", "off"]),
        Some("\"off\""),
    ),
    key("engine.block_size", Kind::Integer(1), Some("16")),
    key("engine.max_batch_tokens", Kind::Integer(1), None),
    key(
        "engine.prefix_cache",
        Kind::OneOf(&["on", "off"]),
        Some("\"on\""),
    ),
    key(
        "engine.overlap",
        Kind::OneOf(&["on", "off"]),
        Some("\"on\""),
    ),
    key("engine.quant", Kind::OneOf(&["q8_0", "q4_k"]), None),
    key("sampling.temperature", Kind::Number, Some("1.0")),
    key("sampling.top_k", Kind::Integer(0), Some("0")),
    key("sampling.top_p", Kind::Number, Some("1.0")),
    key("sampling.min_p", Kind::Number, Some("0.0")),
    key("sampling.repetition_penalty", Kind::Number, Some("1.0")),
    key("sampling.presence_penalty", Kind::Number, Some("0.0")),
    key("sampling.frequency_penalty", Kind::Number, Some("0.0")),
    key("sampling.max_tokens", Kind::Integer(1), None),
];

/// Where a value came from, lowest precedence first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    BuiltIn,
    /// The model's recommended sampling.
    Model(String),
    UserFile(PathBuf),
    LocalFile(PathBuf),
    Environment(String),
    Set,
    Flag(&'static str),
}

impl Origin {
    fn rank(&self) -> u8 {
        match self {
            Self::BuiltIn => 0,
            Self::Model(_) => 1,
            Self::UserFile(_) => 2,
            Self::LocalFile(_) => 3,
            Self::Environment(_) => 4,
            Self::Set => 5,
            Self::Flag(_) => 6,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => f.write_str("built in"),
            Self::Model(source) => f.write_str(source),
            Self::UserFile(path) | Self::LocalFile(path) => write!(f, "{}", path.display()),
            Self::Environment(name) => write!(f, "${name}"),
            Self::Set => f.write_str("--set"),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// A value for a key, on its way into the configuration.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Setting {
    pub(crate) key: &'static str,
    pub(crate) value: Value,
    pub(crate) origin: Origin,
}

impl Setting {
    /// A flag's value, if the flag was given.
    pub(crate) fn flag(
        key: &'static str,
        flag: &'static str,
        value: Option<Value>,
    ) -> Option<Self> {
        value.map(|value| Self {
            key,
            value,
            origin: Origin::Flag(flag),
        })
    }
}

/// Where the layers below the flags are read from.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    /// `$XDG_CONFIG_HOME/autodidact/config.toml`, if the home is known.
    pub(crate) user_file: Option<PathBuf>,
    pub(crate) local_file: PathBuf,
    /// The local file was named by the user and must exist.
    pub(crate) local_file_was_named: bool,
    /// All variables of the environment.
    pub(crate) environment: Vec<(String, String)>,
    /// `--set KEY=VALUE`, in order.
    pub(crate) set: Vec<(String, String)>,
}

impl Sources {
    /// The sources of this process.
    pub(crate) fn of_process(set: Vec<(String, String)>, config: Option<PathBuf>) -> Self {
        let environment: Vec<(String, String)> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let folder = |name: &str| {
            let value = environment
                .iter()
                .find(|(other, _)| other == name)
                .map(|(_, value)| value);
            value.filter(|value| !value.is_empty()).map(PathBuf::from)
        };
        let base = folder("XDG_CONFIG_HOME").or_else(|| Some(folder("HOME")?.join(".config")));
        Self {
            user_file: base.map(|base| base.join("autodidact/config.toml")),
            local_file_was_named: config.is_some(),
            local_file: config.unwrap_or_else(|| PathBuf::from("autodidact.toml")),
            environment,
            set,
        }
    }
}

/// Every key's effective value with its origin, and the aliases.
#[derive(Debug)]
pub(crate) struct Config {
    values: BTreeMap<&'static str, (Value, Origin)>,
    aliases: BTreeMap<String, String>,
    /// Settings of recipes: recipe, key → value. The recipe knows its keys.
    recipes: BTreeMap<String, BTreeMap<String, (Value, Origin)>>,
}

/// Recipes whose settings may stand in a table of their own.
const RECIPES: [&str; 4] = [
    synth::ultraif::NAME,
    synth::decif::NAME,
    synth::complex_to_simple::NAME,
    align::TABLE,
];

/// Built-in settings of a recipe; its keys.
fn recipe_defaults(recipe: &str) -> toml::Table {
    let defaults = match recipe {
        synth::ultraif::NAME => toml::Table::try_from(synth::ultraif::Settings::default()),
        synth::decif::NAME => toml::Table::try_from(synth::decif::Settings::default()),
        synth::complex_to_simple::NAME => {
            toml::Table::try_from(synth::complex_to_simple::Settings::default())
        }
        align::TABLE => align::keys(&align::Settings::default())
            .into_iter()
            .map(|(key, value)| Ok((key, Value::try_from(value)?)))
            .collect(),
        _ => return toml::Table::new(),
    };
    defaults.expect("the settings are a table without nulls")
}

/// Every setting of every recipe: recipe and key.
fn recipe_keys() -> impl Iterator<Item = (&'static str, String)> {
    RECIPES.into_iter().flat_map(|recipe| {
        let defaults = recipe_defaults(recipe).into_iter();
        defaults.map(move |(key, _)| (recipe, key))
    })
}

impl Config {
    /// Reads all layers.
    ///
    /// # Errors
    /// A file that is not TOML, an unknown key, a value of the wrong kind.
    pub(crate) fn read(sources: &Sources) -> Result<Self> {
        let mut config = Self {
            values: BTreeMap::new(),
            aliases: BTreeMap::new(),
            recipes: BTreeMap::new(),
        };
        for key in KEYS {
            if let Some(default) = key.default {
                let value = literal(default).expect("the defaults above are TOML values");
                config.values.insert(key.name, (value, Origin::BuiltIn));
            }
        }
        if let Some(path) = sources.user_file.as_ref().filter(|path| path.exists()) {
            config.read_file(path, &Origin::UserFile(path.clone()))?;
        }
        let local = &sources.local_file;
        if sources.local_file_was_named || local.exists() {
            config.read_file(local, &Origin::LocalFile(local.clone()))?;
        }
        for (name, text) in &sources.environment {
            let Some(name_of_key) = name.strip_prefix(ENV_PREFIX) else {
                continue;
            };
            if !NOT_KEYS.contains(&name.as_str()) {
                config.read_variable(name, name_of_key, text)?;
            }
        }
        for (name, text) in &sources.set {
            if let Some(alias) = name.strip_prefix("aliases.") {
                config.aliases.insert(alias.to_owned(), text.clone());
                continue;
            }
            if let Some((recipe, key)) = recipe_key(name) {
                config.put_recipe(recipe, key, value_of(text), Origin::Set)?;
                continue;
            }
            let key = find(name, "--set")?;
            config.put(key, from_text(key, text), Origin::Set)?;
        }
        Ok(config)
    }

    /// Adds a value; one of higher precedence stays.
    ///
    /// # Errors
    /// A value of the wrong kind.
    pub(crate) fn insert(&mut self, setting: Setting) -> Result<()> {
        let key = find(setting.key, &setting.origin.to_string())?;
        self.put(key, setting.value, setting.origin)
    }

    /// What the alias stands for.
    pub(crate) fn alias(&self, name: &str) -> Option<&str> {
        self.aliases.get(name).map(String::as_str)
    }

    /// All aliases by name.
    pub(crate) fn aliases(&self) -> &BTreeMap<String, String> {
        &self.aliases
    }

    /// Every key of this version with its value and origin; unset keys have none.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&'static str, Option<&(Value, Origin)>)> {
        KEYS.iter().map(|key| (key.name, self.values.get(key.name)))
    }

    /// Every setting of every recipe with its value and origin.
    pub(crate) fn recipe_entries(&self) -> Vec<(String, Value, Origin)> {
        let entries = RECIPES.into_iter().flat_map(|recipe| {
            let given = self.recipes.get(recipe);
            recipe_defaults(recipe)
                .into_iter()
                .map(move |(key, default)| {
                    let (value, origin) = given
                        .and_then(|given| given.get(&key).cloned())
                        .unwrap_or((default, Origin::BuiltIn));
                    (format!("{recipe}.{key}"), value, origin)
                })
        });
        entries.collect()
    }

    /// Text of a key, if set.
    pub(crate) fn text(&self, key: &'static str) -> Option<&str> {
        self.value(key)?.as_str()
    }

    /// Whole number of a key, if set.
    pub(crate) fn integer(&self, key: &'static str) -> Option<usize> {
        usize::try_from(self.value(key)?.as_integer()?).ok()
    }

    /// Number of a key, if set.
    pub(crate) fn number(&self, key: &'static str) -> Option<f32> {
        // Narrowing is meant: the engine samples in f32.
        self.value(key)?.as_float().map(|value| value as f32)
    }

    /// Value of a key as it would stand in a file, if set.
    pub(crate) fn value_as_text(&self, key: &'static str) -> Option<String> {
        self.value(key).map(Value::to_string)
    }

    fn value(&self, key: &'static str) -> Option<&Value> {
        debug_assert!(
            KEYS.iter().any(|known| known.name == key),
            "{key} is not in KEYS"
        );
        self.values.get(key).map(|(value, _)| value)
    }

    fn put(&mut self, key: &'static Key, value: Value, origin: Origin) -> Result<()> {
        let value = checked(key, value).map_err(|(expected, got)| {
            Failure::usage(format!(
                "{origin}: `{}`: expected {expected}, got {got}",
                key.name
            ))
        })?;
        let stays = self
            .values
            .get(key.name)
            .is_some_and(|(_, old)| old.rank() > origin.rank());
        if !stays {
            self.values.insert(key.name, (value, origin));
        }
        Ok(())
    }

    /// Settings of a recipe that were given, with where they come from.
    pub(crate) fn recipe(&self, recipe: &str) -> impl Iterator<Item = (&str, &Value, &Origin)> {
        let given = self.recipes.get(recipe).into_iter().flatten();
        given.map(|(key, (value, origin))| (key.as_str(), value, origin))
    }

    /// Takes a variable of the environment over: of a key, or of a recipe's setting.
    fn read_variable(&mut self, name: &str, name_of_key: &str, text: &str) -> Result<()> {
        let origin = Origin::Environment(name.to_owned());
        if let Some(key) = KEYS.iter().find(|key| env_name(key.name) == name_of_key) {
            return self.put(key, from_text(key, text), origin);
        }
        let full = |(recipe, key): &(&str, String)| env_name(&format!("{recipe}.{key}"));
        if let Some((recipe, key)) = recipe_keys().find(|known| full(known) == name_of_key) {
            return self.put_recipe(recipe, &key, value_of(text), origin);
        }
        let keys = KEYS.iter().map(|key| env_name(key.name));
        let known = keys.chain(recipe_keys().map(|known| full(&known)));
        let known = known.map(|key| format!("{ENV_PREFIX}{key}"));
        bail!(unknown(name, "the environment", known))
    }

    /// Takes a recipe's setting over; the recipe checks its value.
    fn put_recipe(&mut self, recipe: &str, key: &str, value: Value, origin: Origin) -> Result<()> {
        if !recipe_defaults(recipe).contains_key(key) {
            let name = format!("{recipe}.{key}");
            let known = recipe_keys().map(|(recipe, key)| format!("{recipe}.{key}"));
            bail!(unknown(&name, &origin.to_string(), known));
        }
        let settings = self.recipes.entry(recipe.to_owned()).or_default();
        let stays = settings
            .get(key)
            .is_some_and(|(_, old)| old.rank() > origin.rank());
        if !stays {
            settings.insert(key.to_owned(), (value, origin));
        }
        Ok(())
    }

    fn read_file(&mut self, path: &Path, origin: &Origin) -> Result<()> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let table: toml::Table = text
            .parse()
            .with_context(|| format!("{} is not valid TOML", path.display()))?;
        let place = path.display().to_string();
        for (name, value) in table {
            match value {
                Value::Table(aliases) if name == ALIASES => {
                    for (alias, target) in aliases {
                        let Value::String(target) = target else {
                            bail!("{place}: `aliases.{alias}`: expected text, got {target}");
                        };
                        self.aliases.insert(alias, target);
                    }
                }
                Value::Table(section) if RECIPES.contains(&name.as_str()) => {
                    for (key, value) in flattened("", section) {
                        self.put_recipe(&name, &key, value, origin.clone())?;
                    }
                }
                Value::Table(section) => {
                    for (inner, value) in section {
                        let key = find(&format!("{name}.{inner}"), &place)?;
                        self.put(key, value, origin.clone())?;
                    }
                }
                value => self.put(find(&name, &place)?, value, origin.clone())?,
            }
        }
        Ok(())
    }
}

/// The values of a table; those of tables within it have dots in their names.
fn flattened(prefix: &str, table: toml::Table) -> Vec<(String, Value)> {
    let pairs = table.into_iter();
    pairs
        .flat_map(|(key, value)| match value {
            Value::Table(inner) => flattened(&format!("{prefix}{key}."), inner),
            value => vec![(format!("{prefix}{key}"), value)],
        })
        .collect()
}

/// A recipe's key, if the name is one.
fn recipe_key(name: &str) -> Option<(&str, &str)> {
    name.split_once('.')
        .filter(|(recipe, _)| RECIPES.contains(recipe))
}

fn find(name: &str, place: &str) -> Result<&'static Key> {
    let known = KEYS.iter().find(|key| key.name == name);
    known.with_context(|| unknown(name, place, KEYS.iter().map(|key| key.name.to_owned())))
}

pub(crate) fn unknown(name: &str, place: &str, known: impl Iterator<Item = String>) -> String {
    match closest(name, known) {
        Some(other) => format!("{place}: unknown key `{name}`; did you mean `{other}`?"),
        None => format!("{place}: unknown key `{name}`; `autodidact config show` lists the keys"),
    }
}

fn env_name(key: &str) -> String {
    key.replace(['.', '-'], "_").to_uppercase()
}

/// A TOML value that stands alone.
fn literal(text: &str) -> Option<Value> {
    let mut table: toml::Table = format!("x = {text}").parse().ok()?;
    if table.len() == 1 {
        table.remove("x")
    } else {
        None
    }
}

/// The value that `text` means where the kind is not known here: TOML, else the text itself.
fn value_of(text: &str) -> Value {
    literal(text).unwrap_or_else(|| Value::String(text.to_owned()))
}

/// The value that `text` (of `--set` or the environment) means for this key; text that does
/// not parse stays text and fails the check that follows.
fn from_text(key: &Key, text: &str) -> Value {
    let parsed = match key.kind {
        Kind::Text | Kind::OneOf(_) => None,
        Kind::Integer(_) => text.trim().parse().ok().map(Value::Integer),
        Kind::Number => text.trim().parse().ok().map(Value::Float),
    };
    parsed.unwrap_or_else(|| Value::String(text.to_owned()))
}

fn checked(key: &Key, value: Value) -> Result<Value, (String, String)> {
    match (key.kind, value) {
        (Kind::Text, value @ Value::String(_)) => Ok(value),
        (Kind::Integer(least), Value::Integer(number)) if number >= least => {
            Ok(Value::Integer(number))
        }
        (Kind::Number, Value::Integer(number)) => Ok(Value::Float(number as f64)),
        (Kind::Number, value @ Value::Float(_)) => Ok(value),
        (Kind::OneOf(allowed), Value::String(text)) if allowed.contains(&text.as_str()) => {
            Ok(Value::String(text))
        }
        (kind, value) => Err((kind.to_string(), value.to_string())),
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text => f.write_str("text"),
            Self::Integer(least) => write!(f, "a whole number, at least {least}"),
            Self::Number => f.write_str("a number"),
            Self::OneOf(allowed) => f.write_str(&allowed.join(" or ")),
        }
    }
}

/// The candidate with the smallest edit distance, if it is near enough to be meant.
fn closest(name: &str, candidates: impl Iterator<Item = String>) -> Option<String> {
    candidates
        .flat_map(|candidate| {
            // `tempertaure` alone should find `sampling.temperature`.
            let tail = candidate
                .rsplit('.')
                .next()
                .unwrap_or(&candidate)
                .to_owned();
            [
                (edit_distance(name, &candidate), candidate.clone()),
                (edit_distance(name, &tail), candidate),
            ]
        })
        .filter(|(distance, _)| *distance <= name.chars().count() / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance with unit costs.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn sources(folder: &Path, user: &str, local: &str) -> Sources {
        let (user_file, local_file) = (folder.join("user.toml"), folder.join("local.toml"));
        std::fs::write(&user_file, user).unwrap();
        std::fs::write(&local_file, local).unwrap();
        Sources {
            user_file: Some(user_file),
            local_file,
            ..Sources::default()
        }
    }

    #[test]
    fn each_layer_beats_the_one_below() {
        let folder = tempfile::tempdir().unwrap();
        let mut all = sources(
            folder.path(),
            "model = \"u\"\n[sampling]\ntop_k = 1\ntop_p = 0.1\nmin_p = 0.1\ntemperature = 1\n",
            "[sampling]\ntop_k = 2\ntop_p = 0.2\ntemperature = 2\n[aliases]\nbig = \"/m/big\"\n",
        );
        all.environment = pairs(&[
            ("AUTODIDACT_SAMPLING_TOP_K", "3"),
            ("AUTODIDACT_SAMPLING_TOP_P", "0.3"),
            ("HOME", "/"),
        ]);
        all.set = pairs(&[("sampling.top_k", "4"), ("aliases.small", "x")]);
        let mut config = Config::read(&all).unwrap();
        let model = Origin::Model("generation_config.json".into());
        for (key, value) in [
            ("sampling.min_p", 0.5),
            ("sampling.repetition_penalty", 1.5),
        ] {
            config
                .insert(Setting {
                    key,
                    value: Value::Float(value),
                    origin: model.clone(),
                })
                .unwrap();
        }
        assert_eq!(config.text("model"), Some("u"));
        assert_eq!(config.integer("sampling.top_k"), Some(4));
        assert_eq!(config.number("sampling.top_p"), Some(0.3));
        assert_eq!(config.number("sampling.temperature"), Some(2.0));
        assert_eq!(
            config.number("sampling.min_p"),
            Some(0.1),
            "a file beats the model"
        );
        assert_eq!(
            config.number("sampling.repetition_penalty"),
            Some(1.5),
            "the model beats built in"
        );
        assert_eq!(
            (config.alias("big"), config.alias("small")),
            (Some("/m/big"), Some("x"))
        );
        let flag = Setting::flag("sampling.top_k", "--top-k", Some(Value::Integer(5))).unwrap();
        config.insert(flag).unwrap();
        let entry = config
            .entries()
            .find(|(name, _)| *name == "sampling.top_k")
            .unwrap()
            .1
            .unwrap();
        assert_eq!(
            (entry.0.as_integer(), entry.1.to_string()),
            (Some(5), "--top-k".into())
        );
    }

    type Pairs<'a> = &'a [(&'a str, &'a str)];

    /// Local file, environment, `--set`, and what the refusal has to say.
    fn refuse(cases: &[(&str, Pairs<'_>, Pairs<'_>, &str)]) {
        let folder = tempfile::tempdir().unwrap();
        for (local, environment, set, expected) in cases {
            let mut all = sources(folder.path(), "", local);
            (all.environment, all.set) = (pairs(environment), pairs(set));
            let message = Config::read(&all).unwrap_err().to_string();
            assert!(message.contains(expected), "{message:?} lacks {expected:?}");
        }
    }

    #[test]
    fn settings_of_recipes_are_known_by_name() {
        refuse(&[
            (
                "",
                &[],
                &[("ultraif.sample", "1")],
                "--set: unknown key `ultraif.sample`; did you mean `ultraif.samples`?",
            ),
            (
                "[ultraif]\nquux_zork = 1\n",
                &[],
                &[],
                "unknown key `ultraif.quux_zork`; `autodidact config show` lists the keys",
            ),
            (
                "",
                &[("AUTODIDACT_ULTRAIF_SAMPLE", "1")],
                &[],
                "did you mean `AUTODIDACT_ULTRAIF_SAMPLES`?",
            ),
            (
                "",
                &[("AUTODIDACT_SHARE", "x")],
                &[],
                "unknown key `AUTODIDACT_SHARE`",
            ),
        ]);
    }

    #[test]
    fn wrong_keys_and_values_say_where_and_what() {
        let cases: &[(&str, Pairs<'_>, Pairs<'_>, &str)] = &[
            (
                "[sampling]\ntempertaure = 1\n",
                &[],
                &[],
                "unknown key `sampling.tempertaure`; did you mean `sampling.temperature`?",
            ),
            (
                "",
                &[("AUTODIDACT_MODLE", "x")],
                &[],
                "unknown key `AUTODIDACT_MODLE`; did you mean `AUTODIDACT_MODEL`?",
            ),
            (
                "",
                &[],
                &[("tempertaure", "1")],
                "--set: unknown key `tempertaure`; did you mean `sampling.temperature`?",
            ),
            (
                "",
                &[],
                &[("zzz", "1")],
                "`autodidact config show` lists the keys",
            ),
            (
                "",
                &[],
                &[("sampling.top_k", "-1")],
                "--set: `sampling.top_k`: expected a whole number, at least 0, got -1",
            ),
            (
                "[engine]\nkv_dtype = \"q8\"\n",
                &[],
                &[],
                "`engine.kv_dtype`: expected f32 or f16 or bf16 or f8, got \"q8\"",
            ),
            ("[engine\n", &[], &[], "is not valid TOML"),
            (
                "[aliases]\nx = 1\n",
                &[],
                &[],
                "`aliases.x`: expected text, got 1",
            ),
        ];
        refuse(cases);
    }

    #[test]
    fn settings_of_recipes_are_listed_with_their_origins() {
        let folder = tempfile::tempdir().unwrap();
        let mut all = sources(folder.path(), "", "[ultraif]\nrounds = 2\nsamples = 3\n");
        all.environment = pairs(&[
            ("AUTODIDACT_SHARED", "/golden"),
            ("AUTODIDACT_ULTRAIF_SAMPLES", "4"),
            ("AUTODIDACT_ULTRAIF_EVALUATOR", "logits"),
            ("AUTODIDACT_COMPLEX_TO_SIMPLE_MOST", "4"),
        ]);
        all.set = pairs(&[("ultraif.rule_judge", "false")]);
        let config = Config::read(&all).unwrap();
        let entries = config.recipe_entries();
        let check = |key: &str, value: &str, origin: &str| {
            let found = entries.iter().find(|(name, ..)| name == key).unwrap();
            assert_eq!(found.1.to_string(), value, "{key}");
            assert!(found.2.to_string().ends_with(origin), "{key}: {}", found.2);
        };
        check("ultraif.rounds", "2", "local.toml");
        check("ultraif.samples", "4", "$AUTODIDACT_ULTRAIF_SAMPLES");
        check(
            "ultraif.evaluator",
            "\"logits\"",
            "$AUTODIDACT_ULTRAIF_EVALUATOR",
        );
        check("ultraif.rule_judge", "false", "--set");
        check("ultraif.threshold", "0.5", "built in");
        check(
            "complex-to-simple.most",
            "4",
            "$AUTODIDACT_COMPLEX_TO_SIMPLE_MOST",
        );
        assert_eq!(entries.len(), recipe_keys().count());
        let given: Vec<&str> = config.recipe("ultraif").map(|(key, ..)| key).collect();
        assert_eq!(given, ["evaluator", "rounds", "rule_judge", "samples"]);
    }

    #[test]
    fn a_named_file_must_exist() {
        let mut all = Sources {
            local_file: PathBuf::from("/nonexistent/a.toml"),
            ..Sources::default()
        };
        assert!(Config::read(&all).is_ok());
        all.local_file_was_named = true;
        assert!(Config::read(&all).is_err());
    }

    #[test]
    fn distances() {
        for (a, b, expected) in [
            ("", "", 0),
            ("abc", "abc", 0),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
            ("ab", "ba", 2),
        ] {
            assert_eq!(edit_distance(a, b), expected, "{a} {b}");
            assert_eq!(edit_distance(b, a), expected, "{b} {a}");
        }
    }
}
