//! Chat templates: a conversation becomes the text the model was trained to answer.
//!
//! Templates are Jinja, rendered in the environment that Hugging Face transformers gives
//! them (see `environment`). They come with the model and are not trusted: endless loops,
//! deep recursion and huge outputs end in an error.
//!
//! What a user wrote must not become a control token, however it is spelled.
//! [`ChatTemplate::render_for`] therefore puts a mark inside each control token that is spelled
//! out in a message, renders, and takes the marks out again; where they were, the tokenizer
//! may read no control token. Messages that spell none are rendered untouched, so their
//! tokens are those of the whole text.

mod environment;
mod json;
mod limits;
mod python;
mod source;

pub use environment::{Date, InvalidDate, on_template_stack};

use crate::{ModelError, Rendered, Tokenizer};
use environment::{Failure, MARK_VARIABLE};
use minijinja::Environment;
use serde_json::{Map, Value as Json};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Noncharacters: Unicode reserves them for a program's own use, so texts do not hold them.
const MARKS: std::ops::RangeInclusive<char> = '\u{FDD0}'..='\u{FDEF}';

/// Name of the template used if no other is asked for.
const DEFAULT: &str = "default";

/// The chat templates of one model.
#[derive(Debug)]
pub struct ChatTemplate {
    path: PathBuf,
    environment: Environment<'static>,
    sources: BTreeMap<String, String>,
    tokens: BTreeMap<String, String>,
}

/// What a template renders.
#[derive(Debug, Clone, PartialEq)]
pub struct Conversation {
    /// The turns: objects with `role`, `content` and whatever else the template knows.
    pub messages: Vec<Json>,
    /// Whether the text ends with the opening of an assistant's turn.
    pub add_generation_prompt: bool,
    /// What `strftime_now` gives; fixed, so that the same request has the same tokens on any
    /// day.
    pub date: Date,
    /// Variables such as `tools`, `documents`, `enable_thinking`, `date_string`.
    pub variables: Map<String, Json>,
}

impl Conversation {
    /// A conversation to be answered, on the default date, without variables.
    pub fn new(messages: Vec<Json>) -> Self {
        Self {
            messages,
            add_generation_prompt: true,
            date: Date::default(),
            variables: Map::new(),
        }
    }

    /// Same as [`Conversation::new`], from plain turns.
    pub fn from_messages(messages: &[data::Message]) -> Self {
        let turn = |message: &data::Message| serde_json::json!({ "role": message.role, "content": message.content });
        Self::new(messages.iter().map(turn).collect())
    }
}

impl ChatTemplate {
    /// Names of the templates: `default` and whatever else the model brings (`tool_use`, …).
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.sources.keys().map(String::as_str)
    }

    /// Names and source texts of all templates.
    pub(crate) fn sources(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.sources.iter();
        pairs.map(|(name, source)| (name.as_str(), source.as_str()))
    }

    /// Whether a template of this name is used if no other is asked for.
    pub(crate) fn is_default(name: &str) -> bool {
        name == DEFAULT
    }

    /// Source text of the template that renders `conversation`.
    ///
    /// # Errors
    /// The model brings several templates and none fits.
    pub fn source(&self, conversation: &Conversation) -> Result<&str, ModelError> {
        Ok(&self.sources[self.choose(conversation)?])
    }

    /// The text of a conversation. Control tokens that a message spells out look like those of
    /// the template; to get token ids, use [`ChatTemplate::encode`].
    ///
    /// # Errors
    /// The template refuses the messages, or fails.
    pub fn render(&self, conversation: &Conversation) -> Result<String, ModelError> {
        self.run(conversation, "", &|text| text.to_owned())
    }

    /// The text of a conversation, with the places where messages spell out control tokens of
    /// this tokenizer.
    ///
    /// # Errors
    /// The template refuses the messages, or fails.
    pub fn render_for(
        &self,
        tokenizer: &Tokenizer,
        conversation: &Conversation,
    ) -> Result<Rendered, ModelError> {
        let mark = self.unused_mark(conversation)?;
        let marked = self.run(conversation, &mark.to_string(), &|text| {
            let mut marked = text.to_owned();
            for offset in tokenizer.control_tokens_in(text).into_iter().rev() {
                marked.insert(offset, mark);
            }
            marked
        })?;
        let mut rendered = Rendered::default();
        for piece in marked.split(mark) {
            rendered.text.push_str(piece);
            rendered.shields.push(rendered.text.len());
        }
        rendered.shields.pop(); // the end of the text
        Ok(rendered)
    }

    /// Token ids of a conversation. No text of a message becomes a control token; where no
    /// message spells one, these are the ids of the rendered text as a whole.
    ///
    /// # Errors
    /// The template refuses the messages, or fails; the tokenizer refuses the text.
    pub fn encode(
        &self,
        tokenizer: &Tokenizer,
        conversation: &Conversation,
    ) -> Result<Vec<data::TokenId>, ModelError> {
        tokenizer.encode_rendered(&self.render_for(tokenizer, conversation)?)
    }

    fn choose(&self, conversation: &Conversation) -> Result<&str, ModelError> {
        let tools = conversation
            .variables
            .get("tools")
            .is_some_and(|tools| !tools.is_null());
        let wanted = if tools && self.sources.contains_key("tool_use") {
            "tool_use"
        } else {
            DEFAULT
        };
        let found = self
            .sources
            .get_key_value(wanted)
            .map(|(name, _)| name.as_str());
        found.ok_or_else(|| {
            let names: Vec<&str> = self.names().collect();
            let expected = format!("a template named `{DEFAULT}`");
            ModelError::field(&self.path, "chat templates", expected, names.join(", "))
        })
    }

    fn unused_mark(&self, conversation: &Conversation) -> Result<char, ModelError> {
        let variables = serde_json::json!([conversation.messages, conversation.variables]);
        let texts = [self.source(conversation)?.to_owned(), variables.to_string()];
        MARKS
            .into_iter()
            .find(|mark| !texts.iter().any(|text| text.contains(*mark)))
            .ok_or_else(|| {
                let got = "messages that hold them all";
                ModelError::field(
                    &self.path,
                    "messages",
                    "an unused noncharacter (U+FDD0..U+FDEF)",
                    got,
                )
            })
    }

    fn run(
        &self,
        conversation: &Conversation,
        mark: &str,
        change: &dyn Fn(&str) -> String,
    ) -> Result<String, ModelError> {
        let name = self.choose(conversation)?;
        let messages = conversation.messages.iter().map(with_reasoning_aliases);
        let messages = messages
            .map(|message| json::to_value(&message, change))
            .collect();
        let mut variables: BTreeMap<String, minijinja::Value> = BTreeMap::new();
        // transformers passes these two always.
        variables.insert("tools".into(), ().into());
        variables.insert("documents".into(), ().into());
        variables.extend(
            self.tokens
                .iter()
                .map(|(name, text)| (name.clone(), text.into())),
        );
        for (name, value) in &conversation.variables {
            variables.insert(name.clone(), json::to_value(value, change));
        }
        variables.insert("messages".into(), messages);
        variables.insert(
            "add_generation_prompt".into(),
            conversation.add_generation_prompt.into(),
        );
        variables.insert(MARK_VARIABLE.into(), mark.into());
        variables.insert(
            "strftime_now".into(),
            environment::strftime_now(conversation.date),
        );
        let variables = minijinja::Value::from_pairs(variables);
        environment::render(&self.environment, name, variables)
            .map_err(|failure| self.failed(failure))
    }

    fn failed(&self, failure: Failure) -> ModelError {
        let path = self.path.clone();
        match failure {
            Failure::Refused(message) => ModelError::TemplateRefused { path, message },
            Failure::Broken(message) => ModelError::Template { path, message },
        }
    }
}

/// A turn's reasoning under all names that templates read it by, as transformers does.
fn with_reasoning_aliases(message: &Json) -> Json {
    const NAMES: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];
    let Some(object) = message.as_object() else {
        return message.clone();
    };
    let reasoning = NAMES
        .iter()
        .find_map(|name| object.get(*name).filter(|value| !value.is_null()));
    let Some(reasoning) = reasoning else {
        return message.clone();
    };
    let mut aliased = Map::new();
    aliased.insert("thinking".into(), reasoning.clone());
    aliased.extend(
        object
            .iter()
            .map(|(name, value)| (name.clone(), value.clone())),
    );
    aliased.insert("reasoning_content".into(), reasoning.clone());
    Json::Object(aliased)
}
