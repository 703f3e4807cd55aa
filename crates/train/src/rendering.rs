//! Conversations become token ids, with what is trained of them: an assistant's words and the
//! token that ends its turn, nothing else.
//!
//! Where a turn begins is found in token ids. The prompt before it, rendered as for generating,
//! must be a prefix of the whole, so that training sees what generating will. Where a token
//! would reach over that border, the two sides are tokenised by themselves, as they are when
//! the model answers.

use crate::pack::Sequence;
use data::{Message, TokenId};
use model::{ChatTemplate, Conversation, ModelError, Rendered, Show, Tokenizer};

/// Which of the assistant's turns are trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TrainOn {
    /// The last one; those before it are context.
    #[default]
    Last,
    /// All of them.
    AllAssistant,
}

/// Why a row is not trained on.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Dropped {
    /// Nobody answers in it.
    #[error("no assistant turn")]
    NoAssistantTurn,
    /// The assistant speaks before anybody asked.
    #[error("the first turn is the assistant's")]
    NoPrompt,
    /// The answer is empty.
    #[error("empty answer")]
    Empty,
    /// More tokens than the limit.
    #[error("too long")]
    TooLong {
        /// Its tokens.
        tokens: usize,
    },
    /// The chat template refuses it.
    #[error("the chat template refuses it")]
    Refused {
        /// What the template says.
        reason: String,
    },
    /// The template renders earlier turns differently once more follow.
    #[error("the template changes earlier turns")]
    NotAPrefix,
    /// The turn ends with no token that ends a turn: the model would never learn to stop.
    #[error("the template ends the turn with no end token")]
    NoEnd,
    /// Chosen and rejected answer are the same.
    #[error("chosen and rejected are equal")]
    SameAnswers,
}

/// The two answers to one prompt, each with the prompt before it.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// The better one.
    pub chosen: Sequence,
    /// The worse one.
    pub rejected: Sequence,
}

/// Renders by one model's template and tokenizer.
#[derive(Debug, Clone, Copy)]
pub struct Renderer<'a> {
    /// The model's tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// Its chat template.
    pub template: &'a ChatTemplate,
    /// What to render besides messages: date and variables, as they are when generating.
    pub blank: &'a Conversation,
    /// Tokens that end a turn.
    pub end_ids: &'a [TokenId],
    /// Longest sequence; longer rows are dropped, for cut answers teach not to stop.
    pub max_length: usize,
}

/// A rendered text and its token ids.
struct Encoded {
    rendered: Rendered,
    ids: Vec<TokenId>,
}

impl Renderer<'_> {
    /// A conversation with the assistant's turns trained.
    ///
    /// # Errors
    /// Why the row is not trained on.
    pub fn conversation(
        &self,
        messages: &[Message],
        train_on: TrainOn,
    ) -> Result<Sequence, Dropped> {
        let is_assistant = |message: &Message| message.role == "assistant";
        let last = messages
            .iter()
            .rposition(is_assistant)
            .ok_or(Dropped::NoAssistantTurn)?;
        let messages = &messages[..=last];
        let turns: Vec<usize> = match train_on {
            TrainOn::Last => vec![last],
            TrainOn::AllAssistant => (0..=last).filter(|i| is_assistant(&messages[*i])).collect(),
        };
        let whole = self.encode(messages, Turn::Finished)?;
        let mut sequence = Sequence {
            weights: vec![0.0; whole.ids.len()],
            tokens: whole.ids.clone(),
        };
        for turn in turns {
            if messages[turn].content.trim().is_empty() {
                return Err(Dropped::Empty);
            }
            let Some(start) = self.turn_start(&messages[..turn], &whole)? else {
                // Only the last turn can be tokenised by itself: nothing follows it.
                return match train_on {
                    TrainOn::Last => self.in_two_parts(&messages[..turn], &whole),
                    TrainOn::AllAssistant => Err(Dropped::NotAPrefix),
                };
            };
            let end = match turn == last {
                true => whole.ids.len(),
                false => {
                    let until = self.encode(&messages[..=turn], Turn::Finished)?;
                    match whole.ids.starts_with(&until.ids) {
                        true => until.ids.len(),
                        false => return Err(Dropped::NotAPrefix),
                    }
                }
            };
            let trained = start..start + self.trained_len(&whole.ids[start..end])?;
            sequence.weights[trained].fill(1.0);
        }
        self.checked(sequence)
    }

    /// Two answers to one prompt; both begin with the same token ids.
    ///
    /// # Errors
    /// Why the row is not trained on.
    pub fn pair(
        &self,
        prompt: &[Message],
        chosen: &[Message],
        rejected: &[Message],
    ) -> Result<Pair, Dropped> {
        if chosen == rejected {
            return Err(Dropped::SameAnswers);
        }
        let side = |answer: &[Message]| {
            let all: Vec<Message> = prompt.iter().chain(answer).cloned().collect();
            self.conversation(&all, TrainOn::Last)
        };
        let (chosen, rejected) = (side(chosen)?, side(rejected)?);
        if chosen.tokens == rejected.tokens {
            return Err(Dropped::SameAnswers);
        }
        Ok(Pair { chosen, rejected })
    }

    /// Index of the first token of the turn after `before`, if the whole begins with exactly
    /// the tokens that would ask for it.
    fn turn_start(&self, before: &[Message], whole: &Encoded) -> Result<Option<usize>, Dropped> {
        if before.is_empty() {
            return Err(Dropped::NoPrompt);
        }
        let prompt = self.encode(before, Turn::Asked)?;
        Ok(whole
            .ids
            .starts_with(&prompt.ids)
            .then_some(prompt.ids.len()))
    }

    /// Prompt and answer tokenised each by itself.
    fn in_two_parts(&self, before: &[Message], whole: &Encoded) -> Result<Sequence, Dropped> {
        let prompt = self.encode(before, Turn::Asked)?;
        let border = prompt.rendered.text.len();
        let Some(answer) = whole.rendered.text.strip_prefix(&prompt.rendered.text) else {
            return Err(Dropped::NotAPrefix);
        };
        let shields = whole.rendered.shields.iter();
        let answer = Rendered {
            text: answer.to_owned(),
            shields: shields
                .filter(|shield| **shield > border)
                .map(|shield| shield - border)
                .collect(),
        };
        let answer = self.tokenizer.encode_rendered(&answer).map_err(refused)?;
        let mut tokens = prompt.ids.clone();
        tokens.extend(&answer);
        // A vocabulary that puts a space before every text would put one more here.
        let decode = |ids: &[TokenId]| self.tokenizer.decode(ids, Show::Everything);
        if decode(&tokens) != decode(&whole.ids) {
            return Err(Dropped::NotAPrefix);
        }
        let end = prompt.ids.len() + self.trained_len(&answer)?;
        let mut sequence = Sequence::completion(tokens, prompt.ids.len());
        sequence.weights[end..].fill(0.0);
        self.checked(sequence)
    }

    /// Tokens of a turn up to the one that ends it; templates write more after that.
    fn trained_len(&self, turn: &[TokenId]) -> Result<usize, Dropped> {
        let end = turn.iter().rposition(|id| self.end_ids.contains(id));
        end.map(|end| end + 1).ok_or(Dropped::NoEnd)
    }

    fn checked(&self, sequence: Sequence) -> Result<Sequence, Dropped> {
        let tokens = sequence.tokens.len();
        match tokens > self.max_length {
            true => Err(Dropped::TooLong { tokens }),
            false => Ok(sequence),
        }
    }

    fn encode(&self, messages: &[Message], turn: Turn) -> Result<Encoded, Dropped> {
        let conversation = Conversation {
            add_generation_prompt: turn == Turn::Asked,
            messages: Conversation::from_messages(messages).messages,
            ..self.blank.clone()
        };
        let rendered = self
            .template
            .render_for(self.tokenizer, &conversation)
            .map_err(refused)?;
        let ids = self.tokenizer.encode_rendered(&rendered).map_err(refused)?;
        Ok(Encoded { rendered, ids })
    }
}

/// Whether a rendered conversation ends where the assistant is to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Asked,
    Finished,
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn refused(error: ModelError) -> Dropped {
    Dropped::Refused {
        reason: error.to_string(),
    }
}

impl Dropped {
    /// A short name for counting.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoAssistantTurn => "no-assistant-turn",
            Self::NoPrompt => "no-prompt",
            Self::Empty => "empty-answer",
            Self::TooLong { .. } => "too-long",
            Self::Refused { .. } => "template-refused",
            Self::NotAPrefix => "not-a-prefix",
            Self::NoEnd => "no-end-token",
            Self::SameAnswers => "same-answers",
        }
    }
}
