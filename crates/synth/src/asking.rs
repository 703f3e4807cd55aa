//! A prompt filled in, as rows ask it: what cannot be said ends the row by name.

use crate::prompts::PromptSet;
use data::{Generate, Grammar, Message};
use pipeline::{Stop, reject};
use serde::Serialize;

impl PromptSet {
    /// The turns of a prompt.
    ///
    /// # Errors
    /// A template that cannot be rendered with these variables.
    pub(crate) fn turns(&self, id: &str, variables: impl Serialize) -> Result<Vec<Message>, Stop> {
        let rendered = self.get(id).render(variables);
        rendered.map_err(|error| reject("prompt", "unrenderable", error.to_string()))
    }

    /// The request of a prompt, with its own sampling.
    ///
    /// # Errors
    /// As [`PromptSet::turns`].
    pub(crate) fn ask(
        &self,
        id: &str,
        variables: impl Serialize,
        seed: u64,
        grammar: Option<Grammar>,
    ) -> Result<Generate, Stop> {
        let turns = self.turns(id, variables)?;
        Ok(self.get(id).request(turns, seed, grammar))
    }

    /// The request of a prompt whose user goes on with a conversation: it stands between the
    /// system's turn and the user's.
    ///
    /// # Errors
    /// As [`PromptSet::turns`].
    pub(crate) fn ask_after(
        &self,
        history: &[Message],
        id: &str,
        variables: impl Serialize,
        seed: u64,
    ) -> Result<Generate, Stop> {
        let mut turns = self.turns(id, variables)?;
        let user = turns.len().saturating_sub(1);
        turns.splice(user..user, history.iter().cloned());
        Ok(self.get(id).request(turns, seed, None))
    }

    /// A form filled in: the text of its last turn.
    ///
    /// # Errors
    /// As [`PromptSet::turns`].
    pub(crate) fn form(&self, id: &str, variables: impl Serialize) -> Result<String, Stop> {
        let mut turns = self.turns(id, variables)?;
        Ok(turns.pop().map(|turn| turn.content).unwrap_or_default())
    }
}
