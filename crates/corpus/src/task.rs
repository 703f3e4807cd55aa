//! What a request asks for before any constraint, and the sentences that answer it.

use crate::ask::AskKind;
use crate::dice::Dice;
use crate::phrases::Wording;
use crate::soft::Dimension;
use crate::world::{
    ATTRIBUTES, CHORES, NAMES, Naming, REASON, TOPICS, Time, capitalised, conjugate, say, truth,
};
use verify::compose::Kind;

/// The ten tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Task {
    /// A few sentences about a topic.
    Describe,
    /// Bullet points about it.
    List,
    /// A reason and more.
    Explain,
    /// A few lines to somebody.
    Note,
    /// With greeting and name.
    Letter,
    /// Line by line.
    Poem,
    /// Numbered lines.
    Steps,
    /// Two topics side by side.
    Compare,
    /// Some of a text's sentences.
    Summarise,
    /// The answer to a question on a text.
    Answer,
}

impl Task {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Describe,
        Self::List,
        Self::Explain,
        Self::Note,
        Self::Letter,
        Self::Poem,
        Self::Steps,
        Self::Compare,
        Self::Summarise,
        Self::Answer,
    ];

    /// Name in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Describe => "describe",
            Self::List => "list",
            Self::Explain => "explain",
            Self::Note => "note",
            Self::Letter => "letter",
            Self::Poem => "poem",
            Self::Steps => "steps",
            Self::Compare => "compare",
            Self::Summarise => "summarise",
            Self::Answer => "answer",
        }
    }

    /// Requests; the last is never in training. Fields: `{o}` the topic, `{b}` another, `{p}` a
    /// person, `{c}` a chore, `{x}` a text, `{q}` a question on it.
    fn requests(self) -> [&'static str; 4] {
        match self {
            Self::Describe => [
                "Describe {o}.",
                "Tell me about {o}.",
                "What is {o} like?",
                "Give me an idea of {o}.",
            ],
            Self::List => [
                "List facts about {o}.",
                "Make a list of facts about {o}.",
                "Name some facts about {o} in a list.",
                "Collect what is known about {o} as a list.",
            ],
            Self::Explain => [
                "Explain why people talk about {o}.",
                "Why do people talk about {o}?",
                "Tell me why people talk about {o}.",
                "For what reason do people talk about {o}?",
            ],
            Self::Note => [
                "Write a note to {p} about {o}.",
                "Leave {p} a note about {o}.",
                "Write {p} a short note about {o}.",
                "{p} needs a note about {o}.",
            ],
            Self::Letter => [
                "Write a letter to {p} about {o}.",
                "Send {p} a letter about {o}.",
                "Write {p} a letter on {o}.",
                "{p} waits for a letter about {o}.",
            ],
            Self::Poem => [
                "Write a poem about {o}.",
                "Make a poem about {o}.",
                "Write some verses about {o}.",
                "Put {o} into verse.",
            ],
            Self::Steps => [
                "How do I {c} {o}? Give steps.",
                "List the steps to {c} {o}.",
                "Explain step by step how to {c} {o}.",
                "Which steps does it take to {c} {o}?",
            ],
            Self::Compare => [
                "Compare {o} and {b}.",
                "How do {o} and {b} differ?",
                "Tell me how {o} differs from {b}.",
                "Set {o} against {b}.",
            ],
            Self::Summarise => [
                "Summarise this: {x}",
                "Summarise the following text: {x}",
                "Give a summary of this text: {x}",
                "Make this shorter: {x}",
            ],
            Self::Answer => [
                "Read this: {x} {q}",
                "Text: {x} Question: {q}",
                "Here is a text: {x} Answer this: {q}",
                "Using only this text: {x} Say: {q}",
            ],
        }
    }

    /// Whether an answer to the task can show a constraint of this kind sensibly.
    pub(crate) fn admits(self, kind: AskKind) -> bool {
        let rule = match kind {
            AskKind::Soft(dimension) => {
                let told = !matches!(self, Self::Steps | Self::Summarise | Self::Answer);
                return told || dimension != Dimension::Tense;
            }
            AskKind::Rule(rule) => rule,
        };
        let prose = matches!(self, Self::Describe | Self::Explain | Self::Compare);
        match rule {
            Kind::NumberSentences => prose || matches!(self, Self::Note | Self::Letter),
            Kind::NumberParagraphs | Kind::NthParagraphFirstWord | Kind::MultipleSections => prose,
            Kind::NumberBulletLists => prose || self == Self::List,
            Kind::JsonFormat | Kind::TwoResponses => {
                prose || matches!(self, Self::Summarise | Self::Answer)
            }
            // A short text has too few words to choose from, and steps have an order.
            Kind::NumberWords => !matches!(self, Self::Summarise | Self::Answer),
            Kind::LetterFrequency | Kind::ForbiddenWords => {
                !matches!(self, Self::Summarise | Self::Answer | Self::Steps)
            }
            _ => true,
        }
    }
}

/// A request's task with everything that its answer needs.
#[derive(Debug, Clone)]
pub(crate) struct Errand {
    pub(crate) task: Task,
    pub(crate) topic: usize,
    /// The second topic of a comparison.
    pub(crate) other: Option<usize>,
    pub(crate) person: &'static str,
    pub(crate) sender: &'static str,
    chore: usize,
    /// Attributes and values of the text that is given.
    passage: Vec<(usize, &'static str)>,
    /// The request without constraints.
    pub(crate) text: String,
}

impl Errand {
    pub(crate) fn draw(task: Task, topic: usize, wording: Wording, dice: &mut Dice) -> Self {
        let other = (task == Task::Compare)
            .then(|| (topic + 1 + dice.below(TOPICS.len() - 1)) % TOPICS.len());
        let mut attributes: Vec<usize> = (0..ATTRIBUTES.len()).collect();
        dice.shuffle(&mut attributes);
        let size = if task == Task::Summarise { 3 } else { 2 };
        // Not what is true elsewhere: the text has to be read.
        let passage: Vec<(usize, &'static str)> = attributes[..size]
            .iter()
            .map(|attribute| (*attribute, dice.pick(ATTRIBUTES[*attribute].values)))
            .collect();
        let sender = dice.below(NAMES.len());
        let person = (sender + 1 + dice.below(NAMES.len() - 1)) % NAMES.len();
        let mut errand = Self {
            task,
            topic,
            other,
            person: NAMES[person],
            sender: NAMES[sender],
            chore: dice.below(CHORES.len()),
            passage,
            text: String::new(),
        };
        let requests = task.requests();
        let template = requests[wording.index(requests.len(), |len| dice.below(len))];
        errand.text = errand.request(template, dice);
        errand
    }

    /// What the request is about.
    pub(crate) fn topics(&self) -> Vec<usize> {
        std::iter::once(self.topic).chain(self.other).collect()
    }

    fn request(&self, template: &str, dice: &mut Dice) -> String {
        let name = |topic: usize| format!("the {}", TOPICS[topic]);
        let passage = match template.contains("{x}") {
            true => self.passage_sentences(dice).join(" "),
            false => String::new(),
        };
        let question = ATTRIBUTES[self.passage[0].0]
            .question
            .replace("{o}", &name(self.topic));
        let text = template
            .replace("{o}", &name(self.topic))
            .replace("{b}", &self.other.map_or_else(String::new, name))
            .replace("{p}", self.person)
            .replace("{c}", CHORES[self.chore].0)
            .replace("{x}", &passage)
            .replace("{q}", &question);
        capitalised(&text)
    }

    fn passage_sentences(&self, dice: &mut Dice) -> Vec<String> {
        let mut parts = self.passage.clone();
        dice.shuffle(&mut parts);
        let sentence = |(place, (attribute, value)): (usize, &(usize, &str))| {
            let template = dice.pick(ATTRIBUTES[*attribute].templates);
            say(template, self.topic, naming(place), value, Time::Present)
        };
        parts.iter().enumerate().map(sentence).collect()
    }

    /// Sentences for an answer, in random order but for the first, which names the topic.
    /// The others say `later` for it.
    pub(crate) fn sentences(&self, time: Time, later: Naming, dice: &mut Dice) -> Vec<String> {
        let told = |facts: &[(usize, &'static str)], dice: &mut Dice| {
            let tell = |(place, (attribute, value)): (usize, &(usize, &'static str))| {
                let template = dice.pick(ATTRIBUTES[*attribute].templates);
                let naming = if place == 0 { Naming::Name } else { later };
                say(template, self.topic, naming, value, time)
            };
            facts.iter().enumerate().map(tell).collect::<Vec<String>>()
        };
        match self.task {
            Task::Steps => self.steps(dice),
            Task::Compare => self.comparisons(time, dice),
            Task::Summarise => told(&self.passage, dice),
            Task::Answer => {
                let mut told = told(&self.passage[..1], dice);
                told.push("The text says so.".to_owned());
                told
            }
            _ => {
                let mut attributes: Vec<usize> = (0..ATTRIBUTES.len()).collect();
                dice.shuffle(&mut attributes);
                if self.task == Task::Explain {
                    attributes.retain(|attribute| *attribute != REASON);
                    attributes.insert(0, REASON);
                }
                let facts: Vec<_> = attributes
                    .into_iter()
                    .map(|a| (a, truth(self.topic, a)))
                    .collect();
                told(&facts, dice)
            }
        }
    }

    fn comparisons(&self, time: Time, dice: &mut Dice) -> Vec<String> {
        let other = self.other.unwrap_or(self.topic);
        let mut attributes: Vec<usize> = (0..ATTRIBUTES.len()).collect();
        attributes.retain(|a| truth(self.topic, *a) != truth(other, *a));
        dice.shuffle(&mut attributes);
        let compare = |attribute: usize| {
            let [a, b] = [self.topic, other].map(|topic| format!("the {}", TOPICS[topic]));
            let text = conjugate(ATTRIBUTES[attribute].comparison, time)
                .replace("{A}", &capitalised(&a))
                .replace("{a}", &a)
                .replace("{b}", &b)
                .replace("{va}", truth(self.topic, attribute))
                .replace("{vb}", truth(other, attribute));
            capitalised(&text)
        };
        attributes.into_iter().map(compare).collect()
    }

    /// Steps in their order; one that does not name the topic is left out.
    fn steps(&self, dice: &mut Dice) -> Vec<String> {
        let lines = CHORES[self.chore].1;
        let silent: Vec<usize> = (0..lines.len())
            .filter(|i| !lines[*i].contains("{o}"))
            .collect();
        let skipped = dice.pick(&silent);
        let object = format!("the {}", TOPICS[self.topic]);
        let kept = lines
            .iter()
            .enumerate()
            .filter(|(index, _)| *index != skipped);
        kept.map(|(_, line)| line.replace("{o}", &object)).collect()
    }
}

fn naming(place: usize) -> Naming {
    if place == 0 {
        Naming::Name
    } else {
        Naming::Pronoun
    }
}
