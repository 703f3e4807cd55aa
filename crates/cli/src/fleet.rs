//! The models a recipe's roles are played by: one for all, adapters above it, or other
//! models beside it. Models that do not fit in memory together are loaded in turns.

use crate::args::ModelArgs;
use crate::commands::Env;
use crate::config::Config;
use crate::error::{self, Failure};
use crate::session::{self, EMBEDDED, Opened, Session};
use anyhow::Result;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Who plays a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    /// Index of the model; 0 is the main one.
    model: usize,
    /// Adapter above it.
    adapter: Option<String>,
}

/// Which model and adapter play which role.
#[derive(Debug)]
pub(crate) struct Cast {
    /// Names of the models, the main one first.
    models: Vec<String>,
    /// Adapters above the main model: name, folder.
    adapters: Vec<(String, PathBuf)>,
    roles: BTreeMap<String, Part>,
}

impl Cast {
    /// Reads `--role NAME=MODEL_OR_ADAPTER` arguments above the configured model.
    ///
    /// # Errors
    /// A role that is not in `known` or given twice.
    pub(crate) fn new(
        args: &ModelArgs,
        roles: &[(String, String)],
        known: &[&str],
        config: &Config,
    ) -> Result<Self> {
        let main = config.text("model").unwrap_or(EMBEDDED).to_owned();
        let mut cast = Self {
            models: vec![main],
            adapters: args
                .adapter
                .as_deref()
                .map(session::adapter_of)
                .into_iter()
                .collect(),
            roles: BTreeMap::new(),
        };
        for (role, player) in roles {
            if !known.contains(&role.as_str()) {
                return Err(Failure::usage(format!(
                    "--role {role}=…: no such role; there are {}",
                    known.join(", ")
                )));
            }
            let part = cast.part(role, player);
            if cast.roles.insert(role.clone(), part).is_some() {
                return Err(Failure::usage(format!("--role {role}=…: given twice")));
            }
        }
        Ok(cast)
    }

    fn part(&mut self, role: &str, player: &str) -> Part {
        if is_adapter(Path::new(player)) {
            self.adapters.push((role.to_owned(), player.into()));
            return Part {
                model: 0,
                adapter: Some(role.to_owned()),
            };
        }
        let known = self.models.iter().position(|name| name == player);
        let model = known.unwrap_or_else(|| {
            self.models.push(player.to_owned());
            self.models.len() - 1
        });
        Part {
            model,
            adapter: None,
        }
    }

    /// The part of a role; the main model plays those that were not given.
    pub(crate) fn of(&self, role: &str) -> Part {
        self.roles.get(role).cloned().unwrap_or_else(|| Part {
            model: 0,
            adapter: self.default_adapter().map(str::to_owned),
        })
    }

    /// The adapter of `--adapter`, which roles without a part of their own use.
    fn default_adapter(&self) -> Option<&str> {
        let (name, _) = self.adapters.first()?;
        (!self.roles.contains_key(name)).then_some(name.as_str())
    }

    /// Opens the text side of every model; no weights are read.
    ///
    /// # Errors
    /// As [`session::open`].
    pub(crate) fn open(&self, args: &ModelArgs, config: &mut Config) -> Result<Vec<Opened>> {
        let mut opened = Vec::new();
        for index in 0..self.models.len() {
            opened.push(self.open_one(index, args, config)?);
        }
        Ok(opened)
    }

    fn open_one(&self, index: usize, args: &ModelArgs, config: &mut Config) -> Result<Opened> {
        let adapters = if index == 0 {
            self.adapters.clone()
        } else {
            Vec::new()
        };
        session::open_named(&self.models[index], adapters, args, config)
    }

    /// Loads all models at once, or says that they have to take turns.
    ///
    /// # Errors
    /// A model that cannot be loaded even alone.
    pub(crate) fn start(&self, opened: Vec<Opened>, env: &Env) -> Result<Loaded> {
        let mut sessions = Vec::new();
        for one in opened {
            match env.start(&one) {
                Ok(session) => sessions.push(session),
                Err(error) if error::is_memory(&error) && !sessions.is_empty() => {
                    sessions.truncate(1);
                    return Ok(Loaded::InTurns(sessions.pop().map(Box::new)));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Loaded::Together(sessions))
    }

    /// Loads one model alone.
    ///
    /// # Errors
    /// A model that cannot be loaded.
    pub(crate) fn start_one(
        &self,
        index: usize,
        args: &ModelArgs,
        config: &mut Config,
    ) -> Result<Session> {
        self.open_one(index, args, config)?.start(config)
    }

    /// How many models there are.
    pub(crate) fn len(&self) -> usize {
        self.models.len()
    }
}

impl Part {
    /// Index of the model.
    pub(crate) fn model(&self) -> usize {
        self.model
    }

    /// Adapter above it.
    pub(crate) fn adapter(&self) -> Option<&str> {
        self.adapter.as_deref()
    }
}

/// What is in memory.
pub(crate) enum Loaded {
    /// Every model.
    Together(Vec<Session>),
    /// There is room for one at a time; the main one is loaded.
    InTurns(Option<Box<Session>>),
}

/// Is this a folder that holds an adapter and no model?
fn is_adapter(path: &Path) -> bool {
    path.join("adapter_config.json").is_file() && !path.join("config.json").is_file()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn cast(roles: &[(&str, &str)], adapter: Option<&str>) -> Result<Cast> {
        let args = ModelArgs {
            adapter: adapter.map(str::to_owned),
            ..ModelArgs::default()
        };
        let roles: Vec<_> = roles
            .iter()
            .map(|(role, player)| ((*role).to_owned(), (*player).to_owned()))
            .collect();
        let config = Config::read(&Sources::default()).unwrap();
        Cast::new(&args, &roles, &["compose", "judge", "respond"], &config)
    }

    #[test]
    fn one_model_plays_all_unless_told() {
        let alone = cast(&[], None).unwrap();
        assert_eq!((alone.len(), alone.of("judge").model()), (1, 0));
        let two = cast(&[("judge", "big"), ("respond", "big")], None).unwrap();
        assert_eq!(two.len(), 2);
        assert_eq!((two.of("judge").model(), two.of("respond").model()), (1, 1));
        assert_eq!(two.of("compose").model(), 0);
    }

    #[test]
    fn adapters_sit_on_the_main_model() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("adapter_config.json"), "{}").unwrap();
        let path = folder.path().to_str().unwrap();
        let cast = cast(&[("compose", path)], Some("tuned=somewhere")).unwrap();
        assert_eq!(cast.len(), 1);
        assert_eq!(cast.of("compose").adapter(), Some("compose"));
        assert_eq!(cast.of("judge").adapter(), Some("tuned"));
    }

    #[test]
    fn wrong_roles_are_refused() {
        assert!(
            cast(&[("jugde", "x")], None)
                .unwrap_err()
                .to_string()
                .contains("judge")
        );
        assert!(cast(&[("judge", "x"), ("judge", "y")], None).is_err());
    }
}
