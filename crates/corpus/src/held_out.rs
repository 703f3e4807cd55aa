//! What training never sees: prompts with everything that their scoring needs.

use crate::CorpusError;
use crate::answer::answer;
use crate::ask::{Ask, AskKind};
use crate::dice::{Dice, fixed};
use crate::document::Corpus;
use crate::judge::judged;
use crate::scene::{Must, Scene};
use crate::skill::repeat_prompt;
use crate::soft::{Dimension, Soft};
use crate::split::Split;
use crate::task::Task;
use crate::world::{TOPICS, invented};
use data::Message;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use verify::Constraint;

/// What is asked of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Set {
    /// An answer to a request.
    Respond,
    /// YES or NO.
    Judge,
    /// A reason, then YES or NO.
    Explain,
    /// A harder request and its question.
    Compose,
    /// The same words again.
    Copy,
}

/// One prompt. Rules stand under the names of IFEval's files, so that rows of the set `respond`
/// are a benchmark file too.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// Set, split and number.
    pub key: String,
    /// What is asked.
    pub set: Set,
    /// Which novelty it has.
    pub split: Split,
    /// Task, kind of constraint asked about, or `copy`.
    pub kind: String,
    /// What the model reads.
    pub messages: Vec<Message>,
    /// The request itself.
    pub prompt: String,
    /// What it is about.
    pub topics: Vec<String>,
    /// The request's constraints that rules check.
    pub instruction_id_list: Vec<String>,
    /// Their parameters.
    pub kwargs: Vec<Map<String, Value>>,
    /// Its soft constraints: dimension and value.
    pub soft: Vec<(String, String)>,
    /// The right answer, where there is one: the verdict, the words to copy.
    #[serde(default)]
    pub expected: Option<String>,
    /// Of a request to answer: an answer that meets every constraint, to measure perplexity on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// How many prompts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Requests to answer, of each split.
    pub respond: usize,
    /// Answers to judge, of each kind, half of them YES.
    pub judge: usize,
    /// Requests to make harder, of each split.
    pub compose: usize,
    /// Texts to copy.
    pub copy: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            respond: 100,
            judge: 40,
            compose: 40,
            copy: 100,
        }
    }
}

impl Item {
    /// The request's constraints.
    ///
    /// # Errors
    /// [`CorpusError::Row`]: one of them is not known.
    pub fn asks(&self) -> Result<Vec<Ask>, CorpusError> {
        let bad = |field, reason: String| CorpusError::Row {
            row: self.key.clone(),
            field,
            reason,
        };
        let mut asks = Vec::new();
        if self.instruction_id_list.len() != self.kwargs.len() {
            return Err(bad(
                "kwargs",
                "expected as many as there are instructions".into(),
            ));
        }
        for (id, kwargs) in self.instruction_id_list.iter().zip(&self.kwargs) {
            let rule = Constraint::from_ifeval(id, kwargs);
            asks.push(Ask::Rule(
                rule.map_err(|error| bad("instruction_id_list", error.to_string()))?,
            ));
        }
        for (name, value) in &self.soft {
            let dimension = Dimension::ALL
                .into_iter()
                .find(|known| known.name() == name);
            let soft = dimension.and_then(|dimension| Soft::named(dimension, value));
            let soft =
                soft.ok_or_else(|| bad("soft", format!("there is no `{name}` = `{value}`")))?;
            asks.push(Ask::Soft(soft));
        }
        Ok(asks)
    }
}

/// Keeps the held-out stream apart from the training stream.
const HELD_OUT: u64 = 0x0bad_5eed_0e1d;
/// The same for requests of the training part.
const REQUESTS: u64 = 0x07e9_0e57;
/// For the answers that requests come with, so that they change no request.
const TEXTS: u64 = 0x07e7_7500;
/// How often an answer is looked for that meets every constraint; some requests have none.
const TEXT_ATTEMPTS: usize = 8;
/// And for the seeds.
const SEEDS: u64 = 0x005e_ed50;

/// Requests tried for one item.
const ATTEMPTS: usize = 400;

impl Corpus {
    /// All held-out prompts, the same for equal seeds.
    ///
    /// # Errors
    /// As [`Corpus::document`].
    pub fn held_out(&self, sizes: Sizes) -> Result<Vec<Item>, CorpusError> {
        let mut items = Vec::new();
        for split in Split::HELD_OUT {
            for number in 0..sizes.respond {
                items.push(self.request(split, number, HELD_OUT)?);
            }
        }
        for (place, kind) in AskKind::all().into_iter().enumerate() {
            if self.mix.weight(kind) <= 0.0 {
                continue;
            }
            for number in 0..sizes.judge {
                let mut dice = self.dice(HELD_OUT, "judge", place * sizes.judge + number);
                items.push(self.judge_item(kind, number, &mut dice)?);
            }
        }
        for split in Split::HELD_OUT {
            for number in 0..sizes.compose {
                items.push(self.compose_item(split, number)?);
            }
        }
        items.extend((0..sizes.copy).map(|number| self.copy_item(number)));
        Ok(items)
    }

    /// Requests of the training part to answer, for making judge rows or rounds from a model's
    /// own answers. They are drawn apart from the documents.
    ///
    /// # Errors
    /// As [`Corpus::document`].
    pub fn requests(&self, count: usize) -> Result<Vec<Item>, CorpusError> {
        (0..count)
            .map(|number| self.request(Split::Train, number, REQUESTS))
            .collect()
    }

    /// So many different prompts, topic after topic, every other with a constraint: `id` and
    /// `prompt`.
    ///
    /// # Errors
    /// As [`Corpus::document`].
    pub fn seeds(&self, count: usize) -> Result<Vec<Value>, CorpusError> {
        let source = self.source(Split::Train);
        let mut known = BTreeSet::new();
        (0..count)
            .map(|number| {
                let (topic, round) = (number % TOPICS.len(), number / TOPICS.len());
                let task = Task::ALL[(topic * 7 + topic / 10 + round * 3) % Task::ALL.len()];
                let count = (topic + round) % 2;
                let mut dice = self.dice(SEEDS, "seeds", number);
                let scene = find(
                    || {
                        let scene = source.scene(count, Must::Topic(topic), &mut dice)?;
                        let new = !known.contains(&scene.whole_query());
                        (scene.errand.task == task && new).then_some(scene)
                    },
                    "seed",
                )?;
                known.insert(scene.whole_query());
                let id = format!("{}-{}-{}", TOPICS[topic], task.name(), round + 1);
                Ok(json!({"id": id, "prompt": scene.whole_query()}))
            })
            .collect()
    }

    fn dice(&self, part: u64, name: &str, number: usize) -> Dice {
        Dice::new(self.seed ^ part ^ fixed(name), number as u64)
    }

    fn request(&self, split: Split, number: usize, part: u64) -> Result<Item, CorpusError> {
        let source = self.source(split);
        let mut dice = self.dice(part, split_name(split), number);
        let scene = find(
            || {
                let least = if split == Split::Combination { 2 } else { 1 };
                let count = self.mix.count(&mut dice).max(least);
                let scene = source.scene(count, Must::Any, &mut dice)?;
                scene
                    .asks
                    .iter()
                    .any(|ask| ask.rule().is_some())
                    .then_some(scene)
            },
            "respond",
        )?;
        let query = scene.whole_query();
        let messages = self.respond_prompt(&[], &query)?;
        let kind = scene.errand.task.name();
        let mut dice = self.dice(part ^ TEXTS, split_name(split), number);
        let whole = vec![false; scene.asks.len()];
        let text =
            (0..TEXT_ATTEMPTS).find_map(|_| answer(&scene.errand, &scene.asks, &whole, &mut dice));
        let item = item(Set::Respond, (split, number), kind, messages, &scene, query);
        Ok(Item {
            text: text.map(|answer| answer.text),
            ..item
        })
    }

    fn judge_item(
        &self,
        kind: AskKind,
        number: usize,
        dice: &mut Dice,
    ) -> Result<Item, CorpusError> {
        let yes = number.is_multiple_of(2);
        // The request is not shown, so that its combination could not matter.
        let split = [Split::Pair, Split::Phrasing][number / 2 % 2];
        let judged = find(|| judged(self.source(split), (kind, yes), dice), "judge")?;
        let question = self.source(split).question(&judged.ask, dice);
        let mut messages = self.judge_messages(&judged.answer.text, &question, yes)?;
        let verdict = messages.pop().map(|turn| turn.content);
        let key = format!("judge-{}-{}-{number}", kind.name(), split_name(split));
        let (rules, kwargs, soft) = recorded(std::slice::from_ref(&judged.ask));
        Ok(Item {
            key,
            set: Set::Judge,
            split,
            kind: kind.name().to_owned(),
            messages,
            prompt: judged.answer.text,
            topics: Vec::new(),
            instruction_id_list: rules,
            kwargs,
            soft,
            expected: verdict,
            text: None,
        })
    }

    fn compose_item(&self, split: Split, number: usize) -> Result<Item, CorpusError> {
        let source = self.source(split);
        let mut dice = self.dice(HELD_OUT, "compose", number * 8 + split as usize);
        let scene = find(
            || {
                let least = if split == Split::Combination { 2 } else { 1 };
                source.scene(
                    self.mix.count(&mut dice).clamp(least, 2),
                    Must::Any,
                    &mut dice,
                )
            },
            "compose",
        )?;
        let query = scene.whole_query();
        let messages = self.render("compose", &json!({"history": "", "query": query}))?;
        let kind = scene.errand.task.name();
        Ok(item(
            Set::Compose,
            (split, number),
            kind,
            messages,
            &scene,
            query,
        ))
    }

    fn copy_item(&self, number: usize) -> Item {
        let mut dice = self.dice(HELD_OUT, "copy", number);
        let words: Vec<String> = (0..1 + number % 4)
            .map(|_| {
                loop {
                    let word = invented(&mut dice);
                    if Split::Phrasing.admits_word(&word) {
                        break word;
                    }
                }
            })
            .collect();
        let text = words.join(" ");
        Item {
            key: format!("copy-{number}"),
            set: Set::Copy,
            split: Split::Phrasing,
            kind: "copy".to_owned(),
            messages: vec![Message::new("user", repeat_prompt(&text))],
            prompt: text.clone(),
            topics: Vec::new(),
            instruction_id_list: Vec::new(),
            kwargs: Vec::new(),
            soft: Vec::new(),
            expected: Some(text),
            text: None,
        }
    }
}

fn item(
    set: Set,
    (split, number): (Split, usize),
    kind: &str,
    messages: Vec<Message>,
    scene: &Scene,
    prompt: String,
) -> Item {
    let set_name = if set == Set::Respond {
        "respond"
    } else {
        "compose"
    };
    let (instruction_id_list, kwargs, soft) = recorded(&scene.asks);
    Item {
        key: format!("{set_name}-{}-{number}", split_name(split)),
        set,
        split,
        kind: kind.to_owned(),
        messages,
        prompt,
        topics: scene
            .errand
            .topics()
            .iter()
            .map(|topic| TOPICS[*topic].to_owned())
            .collect(),
        instruction_id_list,
        kwargs,
        soft,
        expected: None,
        text: None,
    }
}

type Recorded = (Vec<String>, Vec<Map<String, Value>>, Vec<(String, String)>);

fn recorded(asks: &[Ask]) -> Recorded {
    let mut recorded = (Vec::new(), Vec::new(), Vec::new());
    for ask in asks {
        match ask {
            Ask::Rule(rule) => {
                recorded.0.push(rule.id().to_owned());
                recorded.1.push(rule.kwargs());
            }
            Ask::Soft(soft) => recorded
                .2
                .push((soft.dimension.name().to_owned(), soft.name().to_owned())),
        }
    }
    recorded
}

fn split_name(split: Split) -> &'static str {
    match split {
        Split::Train => "train",
        Split::Pair => "pair",
        Split::Combination => "combination",
        Split::Phrasing => "phrasing",
    }
}

fn find<T>(mut draw: impl FnMut() -> Option<T>, what: &str) -> Result<T, CorpusError> {
    let found = (0..ATTEMPTS).find_map(|_| draw());
    found.ok_or_else(|| CorpusError::Stuck {
        what: what.to_owned(),
    })
}
