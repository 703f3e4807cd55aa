//! Flags, files and configuration become the parts of a request.

use crate::args::{GrammarArgs, SamplingArgs};
use crate::config::Config;
use crate::error::Failure;
use crate::output;
use anyhow::{Context, Result};
use data::{Generate, Grammar, Message, Prompt, Sampling, Stop, TokenId};
use std::io::{self, Read};
use std::path::Path;

/// The prompt's sources as a command offers them; at most one of `prompt` and `messages`.
#[derive(Debug)]
pub(crate) struct PromptSource<'a> {
    pub(crate) prompt: Option<&'a str>,
    pub(crate) messages: Option<&'a Path>,
    pub(crate) system: Option<&'a str>,
    /// The text is continued as it is; no template.
    pub(crate) raw: bool,
}

impl PromptSource<'_> {
    /// Reads the prompt; from standard input if nothing else was named.
    ///
    /// # Errors
    /// A file that cannot be read or is no conversation; nothing given and nobody pipes.
    pub(crate) fn read(&self) -> Result<Prompt> {
        if let Some(path) = self.messages {
            let messages = parse_messages(&read_text(path)?)
                .map_err(|reason| Failure::input(format!("{}: {reason}", path.display())))?;
            return Ok(Prompt::Messages(with_system(self.system, messages)));
        }
        let text = match self.prompt {
            Some(text) => text.to_owned(),
            None if output::stdin_is_terminal() => {
                return Err(Failure::usage("no prompt: give -p TEXT, or pipe it in"));
            }
            None => {
                let text = read_text(Path::new("-"))?;
                let trimmed = text.strip_suffix('\n').unwrap_or(&text);
                if trimmed.is_empty() {
                    return Err(Failure::input("the prompt on standard input is empty"));
                }
                trimmed.to_owned()
            }
        };
        Ok(if self.raw {
            Prompt::Text(text)
        } else {
            Prompt::Messages(with_system(self.system, vec![Message::new("user", text)]))
        })
    }
}

/// The conversation with a system message in front; one that is already there stays.
pub(crate) fn with_system(system: Option<&str>, mut messages: Vec<Message>) -> Vec<Message> {
    if let Some(system) = system
        && messages.first().is_none_or(|first| first.role != "system")
    {
        messages.insert(0, Message::new("system", system));
    }
    messages
}

/// A request with everything but prompt and grammar from flags and configuration.
pub(crate) fn base_request(args: &SamplingArgs, config: &Config) -> Result<Generate> {
    let sampling = sampling(args, config)?;
    Ok(Generate {
        sampling,
        max_tokens: config.integer("sampling.max_tokens"),
        stop: Stop {
            strings: args.stop.clone(),
            token_ids: args.stop_token_id.clone(),
            ignore_eos: args.ignore_eos,
        },
        seed: args.seed.unwrap_or(0),
        ..Generate::new(Prompt::Tokens(Vec::<TokenId>::new()))
    })
}

fn sampling(args: &SamplingArgs, config: &Config) -> Result<Sampling> {
    let number = |key, default| config.number(key).unwrap_or(default);
    let top_k = config.integer("sampling.top_k").unwrap_or(0);
    let sampling = Sampling {
        temperature: number("sampling.temperature", 1.0),
        top_k: u32::try_from(top_k).unwrap_or(u32::MAX),
        top_p: number("sampling.top_p", 1.0),
        min_p: number("sampling.min_p", 0.0),
        repetition_penalty: number("sampling.repetition_penalty", 1.0),
        presence_penalty: number("sampling.presence_penalty", 0.0),
        frequency_penalty: number("sampling.frequency_penalty", 0.0),
        logit_bias: args.logit_bias.iter().copied().collect(),
    };
    sampling
        .validate()
        .map_err(|error| Failure::usage(error.to_string()))?;
    Ok(sampling)
}

/// The grammar that the flags ask for, if any.
///
/// # Errors
/// A file that cannot be read, or a schema that is not JSON.
pub(crate) fn grammar(args: &GrammarArgs) -> Result<Option<Grammar>> {
    if !args.choice.is_empty() {
        return Ok(Some(Grammar::Choice(args.choice.clone())));
    }
    if let Some(regex) = &args.regex {
        return Ok(Some(Grammar::Regex(regex.clone())));
    }
    if let Some(path) = &args.json_schema {
        let schema = serde_json::from_str(&read_text(path)?).map_err(|error| {
            Failure::input(format!("{}: not valid JSON: {error}", path.display()))
        })?;
        return Ok(Some(Grammar::JsonSchema(schema)));
    }
    args.grammar
        .as_deref()
        .map(|path| read_text(path).map(Grammar::Lark))
        .transpose()
}

/// The whole of a text file; `-` is standard input.
///
/// # Errors
/// A file that is missing (exit code 5) or cannot be read.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    if path == Path::new("-") {
        let mut text = String::new();
        io::stdin()
            .lock()
            .read_to_string(&mut text)
            .context("cannot read standard input")?;
        return Ok(text);
    }
    std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))
}

/// The error for an input file that cannot be opened.
pub(crate) fn unreadable(path: &Path, error: &io::Error) -> anyhow::Error {
    let message = format!("cannot read {}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::NotFound => Failure::missing(message),
        _ => Failure::input(message),
    }
}

/// A list of turns, or an object with the list under `messages`.
fn parse_messages(text: &str) -> Result<Vec<Message>, String> {
    let mut value: serde_json::Value =
        serde_json::from_str(text).map_err(|error| format!("not valid JSON: {error}"))?;
    if let Some(list) = value.get_mut("messages") {
        value = list.take();
    }
    let messages: Vec<Message> = serde_json::from_value(value)
        .map_err(|error| format!("expected [{{\"role\": …, \"content\": …}}, …]: {error}"))?;
    if messages.is_empty() {
        Err("the conversation is empty".into())
    } else {
        Ok(messages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn config(set: &[(&str, &str)]) -> Config {
        let set = set
            .iter()
            .map(|(key, value)| ((*key).into(), (*value).into()))
            .collect();
        Config::read(&Sources {
            set,
            local_file: "/nonexistent".into(),
            ..Sources::default()
        })
        .unwrap()
    }

    #[test]
    fn configuration_reaches_the_request() {
        let args = SamplingArgs {
            seed: Some(7),
            stop: vec!["\n".into()],
            ..SamplingArgs::default()
        };
        let set = [
            ("sampling.temperature", "0.25"),
            ("sampling.top_k", "3"),
            ("sampling.max_tokens", "9"),
        ];
        let request = base_request(&args, &config(&set)).unwrap();
        assert_eq!(
            (request.sampling.temperature, request.sampling.top_k),
            (0.25, 3)
        );
        assert_eq!((request.max_tokens, request.seed), (Some(9), 7));
        assert_eq!(request.stop.strings, ["\n"]);
    }

    #[test]
    fn values_out_of_range_are_usage_errors() {
        let error = base_request(
            &SamplingArgs::default(),
            &config(&[("sampling.top_p", "1.5")]),
        )
        .unwrap_err();
        assert_eq!(crate::error::exit_code(&error), 2);
        assert!(error.to_string().contains("top_p = 1.5"), "{error}");
    }

    #[test]
    fn conversations() {
        let good = [
            "[{\"role\":\"user\",\"content\":\"a\"}]",
            "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}",
        ];
        for text in good {
            assert_eq!(parse_messages(text), Ok(vec![Message::new("user", "a")]));
        }
        for (text, expected) in [
            ("[", "not valid JSON"),
            ("[]", "empty"),
            ("[{}]", "missing field"),
            ("3", "expected ["),
        ] {
            let reason = parse_messages(text).unwrap_err();
            assert!(reason.contains(expected), "{reason}");
        }
    }

    #[test]
    fn a_system_message_is_put_in_front_once() {
        let user = || vec![Message::new("user", "a")];
        assert_eq!(with_system(None, user()), user());
        let with = with_system(Some("s"), user());
        assert_eq!(with[0], Message::new("system", "s"));
        assert_eq!(with_system(Some("other"), with.clone()), with);
    }
}
