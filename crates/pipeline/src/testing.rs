//! A scripted [`Generator`] for tests of recipes: replies come from a function of the
//! request, and may arrive out of order.

use data::{
    Author, Completion, FinishReason, Generate, Generator, Pending, Prompt, Reply, RequestError,
    Score, Scores, SuffixScores, Usage, pending,
};
use std::sync::{Mutex, PoisonError};

/// What was asked.
#[derive(Debug, Clone, PartialEq)]
pub enum Asked {
    /// A request for text.
    Generate(Generate),
    /// A request for label probabilities.
    Score(Score),
}

type OnGenerate = dyn Fn(&Generate) -> Result<String, RequestError> + Send + Sync;
type OnScore = dyn Fn(&Score) -> Result<SuffixScores, RequestError> + Send + Sync;
type Held = Box<dyn FnOnce() + Send>;

/// Answers requests from functions, and remembers them.
pub struct Scripted {
    on_generate: Box<OnGenerate>,
    on_score: Box<OnScore>,
    asked: Mutex<Vec<Asked>>,
    shuffle: Option<Mutex<Shuffle>>,
}

/// Answers held back, to be given in another order.
struct Shuffle {
    state: u64,
    held: Vec<Held>,
    most: usize,
}

impl Scripted {
    /// Text comes from `on_generate`; scores are refused.
    pub fn new(
        on_generate: impl Fn(&Generate) -> Result<String, RequestError> + Send + Sync + 'static,
    ) -> Self {
        Self {
            on_generate: Box::new(on_generate),
            on_score: Box::new(|_| Err(RequestError::Invalid("this script has no scores".into()))),
            asked: Mutex::default(),
            shuffle: None,
        }
    }

    /// The probability of the first label, after every suffix, comes from `on_score`.
    #[must_use]
    pub fn with_scores(
        self,
        on_score: impl Fn(&Score) -> Result<f32, RequestError> + Send + Sync + 'static,
    ) -> Self {
        self.with_suffix_scores(move |score| on_score(score).map(|first| whole(first, score)))
    }

    /// The scores of every suffix come from `on_score` as they are, sensible or not.
    #[must_use]
    pub fn with_suffix_scores(
        mut self,
        on_score: impl Fn(&Score) -> Result<SuffixScores, RequestError> + Send + Sync + 'static,
    ) -> Self {
        self.on_score = Box::new(on_score);
        self
    }

    /// Holds back up to `most` answers and gives them in an order drawn from `seed`. Needs at
    /// least `most` requests under way at once, or [`Scripted::release`] at the end.
    #[must_use]
    pub fn shuffled(mut self, seed: u64, most: usize) -> Self {
        self.shuffle = Some(Mutex::new(Shuffle {
            state: seed,
            held: Vec::new(),
            most,
        }));
        self
    }

    /// Everything asked so far, in order.
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.asked).clone()
    }

    /// Text of the last message, or of the raw prompt: what a script usually looks at.
    pub fn last_text(request: &Generate) -> &str {
        match &request.prompt {
            Prompt::Messages(messages) => messages.last().map_or("", |one| one.content.as_str()),
            Prompt::Text(text) => text,
            Prompt::Tokens(_) => "",
        }
    }

    fn deliver<T: Send + 'static>(&self, reply: Reply<T>, answer: Result<T, RequestError>) {
        let Some(shuffle) = &self.shuffle else {
            return reply.send(answer);
        };
        let mut shuffle = lock(shuffle);
        shuffle.held.push(Box::new(move || reply.send(answer)));
        while shuffle.held.len() > shuffle.most {
            shuffle.give_one();
        }
    }

    /// Gives one answer held back; false if there is none.
    pub fn release(&self) -> bool {
        let Some(shuffle) = &self.shuffle else {
            return false;
        };
        lock(shuffle).give_one()
    }
}

impl Shuffle {
    fn give_one(&mut self) -> bool {
        if self.held.is_empty() {
            return false;
        }
        self.state = Generate::sample_seed(self.state, 1);
        let index = (self.state % self.held.len() as u64) as usize;
        (self.held.swap_remove(index))();
        true
    }
}

impl Generator for Scripted {
    fn generate(&self, request: Generate) -> Pending<Vec<Completion>> {
        let (reply, answer) = pending();
        let text = (self.on_generate)(&request);
        let completions = text.map(|text| {
            (0..request.n)
                .map(|index| completion(index, &text, &request))
                .collect()
        });
        lock(&self.asked).push(Asked::Generate(request));
        self.deliver(reply, completions);
        answer
    }

    fn score(&self, request: Score) -> Pending<Scores> {
        let (reply, answer) = pending();
        let scores = (self.on_score)(&request).map(|one| Scores {
            suffixes: vec![one; request.suffixes.len().max(1)],
            usage: Usage::default(),
        });
        lock(&self.asked).push(Asked::Score(request));
        self.deliver(reply, scores);
        answer
    }
}

/// A completion whose tokens are its bytes; text that ends in `…` was cut by the limit.
fn completion(index: usize, text: &str, request: &Generate) -> Completion {
    let cut = text.strip_suffix('…');
    let text = cut.unwrap_or(text);
    let tokens: Vec<u32> = text.bytes().map(u32::from).collect();
    Completion {
        index,
        text: text.to_owned(),
        authors: vec![Author::Sampled; tokens.len()],
        usage: Usage {
            prompt_tokens: Scripted::last_text(request).len(),
            cached_tokens: 0,
            completion_tokens: tokens.len(),
        },
        tokens,
        logprobs: Vec::new(),
        prompt_logprobs: Vec::new(),
        finish_reason: if cut.is_some() {
            FinishReason::Length
        } else {
            FinishReason::Stop
        },
    }
}

/// Scores of one suffix whose labels have all of the mass between them.
fn whole(first: f32, request: &Score) -> SuffixScores {
    let rest = (1.0 - first) / (request.labels.len().max(2) - 1) as f32;
    let probabilities: Vec<f32> = (0..request.labels.len())
        .map(|label| if label == 0 { first } else { rest })
        .collect();
    SuffixScores {
        logprobs: probabilities.iter().map(|p| p.ln()).collect(),
        probabilities,
        mass: 1.0,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
