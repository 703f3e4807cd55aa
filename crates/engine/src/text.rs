//! From messages to token ids and back: tokenizer, chat template and what ends an answer.

use crate::grammar::GrammarVocabulary;
use data::{Message, Prompt, RequestError, TokenId};
use model::{
    ChatTemplate, Conversation, Date, Detokenizer, Rendered, Show, Special, Start, Tokenizer,
};
use std::sync::Arc;

/// How an engine reads and writes text; usable without an engine.
#[derive(Debug, Clone)]
pub struct Text {
    tokenizer: Arc<Tokenizer>,
    template: Option<Arc<ChatTemplate>>,
    eos_ids: Vec<TokenId>,
    template_variables: TemplateVariables,
    template_date: Date,
}

/// Variables a template sees beside the messages, such as `enable_thinking`.
pub type TemplateVariables = serde_json::Map<String, serde_json::Value>;

impl Text {
    /// A tokenizer, the chat template if the model has one, and the tokens that end an answer.
    pub fn new(
        tokenizer: Tokenizer,
        template: Option<ChatTemplate>,
        eos_ids: Vec<TokenId>,
    ) -> Self {
        Self {
            tokenizer: Arc::new(tokenizer),
            template: template.map(Arc::new),
            eos_ids,
            template_variables: TemplateVariables::new(),
            template_date: Date::default(),
        }
    }

    /// The same with variables for the template.
    #[must_use]
    pub fn with_template_variables(self, template_variables: TemplateVariables) -> Self {
        Self {
            template_variables,
            ..self
        }
    }

    /// The same with another date for templates that ask for today's.
    #[must_use]
    pub fn with_template_date(self, template_date: Date) -> Self {
        Self {
            template_date,
            ..self
        }
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The chat template; base models have none.
    pub fn template(&self) -> Option<&ChatTemplate> {
        self.template.as_deref()
    }

    /// Tokens that end an answer.
    pub fn eos_ids(&self) -> &[TokenId] {
        &self.eos_ids
    }

    /// What the template is given for these messages.
    pub fn conversation(&self, messages: &[Message]) -> Conversation {
        Conversation {
            date: self.template_date,
            variables: self.template_variables.clone(),
            ..Conversation::from_messages(messages)
        }
    }

    /// The conversation as the template writes it, ready for the assistant's answer.
    ///
    /// # Errors
    /// There is no template, or it raises.
    pub fn render(&self, messages: &[Message]) -> Result<Rendered, RequestError> {
        let Some(template) = &self.template else {
            return Err(RequestError::Invalid(
                "the model has no chat template, so it can complete text but not answer messages; give one with --chat-template, or use --raw".into(),
            ));
        };
        template
            .render_for(&self.tokenizer, &self.conversation(messages))
            .map_err(|error| RequestError::Invalid(error.to_string()))
    }

    /// The token ids that `prompt` becomes.
    ///
    /// # Errors
    /// Messages without a chat template; a template that raises; a token that does not exist.
    pub fn tokenize(&self, prompt: &Prompt) -> Result<Vec<TokenId>, RequestError> {
        let invalid = |error: model::ModelError| RequestError::Invalid(error.to_string());
        match prompt {
            Prompt::Messages(messages) => self
                .tokenizer
                .encode_rendered(&self.render(messages)?)
                .map_err(invalid),
            Prompt::Text(text) => self.tokenizer.encode_prompt_text(text).map_err(invalid),
            Prompt::Tokens(tokens) => Ok(tokens.clone()),
        }
    }

    /// Token ids of a text that we wrote, control tokens included.
    pub(crate) fn encode_ours(&self, text: &str) -> Result<Vec<TokenId>, RequestError> {
        let invalid = |error: model::ModelError| RequestError::Invalid(error.to_string());
        self.tokenizer.encode(text, Special::Parse).map_err(invalid)
    }

    /// Whether an answer to `prompt` begins a text of its own.
    pub(crate) fn start_of_answer(&self, prompt: &Prompt) -> Start {
        match prompt {
            Prompt::Messages(_) => Start::OfText,
            Prompt::Text(_) | Prompt::Tokens(_) => Start::Continuation,
        }
    }

    pub(crate) fn detokenizer(&self, start: Start) -> Detokenizer<Arc<Tokenizer>> {
        Detokenizer::new(Arc::clone(&self.tokenizer), start, Show::TextOnly)
    }
}

impl GrammarVocabulary {
    /// The vocabulary of `text`, padded or cut to the model's `vocab_size`.
    pub(crate) fn of(text: &Text, vocab_size: usize) -> Self {
        let tokenizer = text.tokenizer();
        let bytes_of = |id: TokenId| match tokenizer.token_bytes(id) {
            // A byte 0xff is no text, and means a control token to llguidance.
            Some(bytes) if !tokenizer.is_control(id) && !bytes.contains(&0xff) => bytes.to_vec(),
            _ => Vec::new(),
        };
        let ids = 0..TokenId::try_from(vocab_size).unwrap_or(TokenId::MAX);
        let exists = |id: &TokenId| (*id as usize) < vocab_size;
        Self {
            token_bytes: ids.map(bytes_of).collect(),
            eos_ids: text.eos_ids().iter().copied().filter(exists).collect(),
        }
    }
}
