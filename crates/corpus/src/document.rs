//! Documents: conversations in exactly the words that the product uses.

use crate::CorpusError;
use crate::answer::{Answer, answer};
use crate::ask::{Ask, AskKind, compatible};
use crate::dice::Dice;
use crate::mix::{Mix, Role};
use crate::reason::reason;
use crate::scene::{Must, Scene, Source};
use crate::skill::skill;
use crate::split::Split;
use crate::split::held_out_pair;
use crate::world::TOPICS;
use data::Message;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use synth::prompts::PromptSet;
use verify::compose::Kind;

/// A conversation to train on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Document {
    /// Its turns; the last is the assistant's.
    pub messages: Vec<Message>,
    /// What the last turn does.
    pub role: Role,
    /// Task, kind of constraint or skill.
    pub kind: &'static str,
    /// Which turns carry loss: the assistant's.
    pub loss: &'static str,
    /// Kinds of the request's constraints and whether the answer follows them, for counting.
    #[serde(skip)]
    pub checks: Vec<(AskKind, bool)>,
}

/// A source of documents.
#[derive(Debug, Clone)]
pub struct Corpus {
    pub(crate) prompts: PromptSet,
    pub(crate) mix: Mix,
    pub(crate) seed: u64,
}

/// Requests tried for one document.
const ATTEMPTS: usize = 100;
/// Tries in which the answer may be one that was not asked for it.
const UNASKED_ATTEMPTS: usize = 4;
/// Share of judged answers that were not asked for what the question asks.
const UNASKED: f64 = 0.4;
/// Share of constraints broken beside the one asked about.
const ALSO_BROKEN: f64 = 0.2;

impl Corpus {
    /// Documents with the prompts of a folder (as `--prompts` reads it).
    ///
    /// # Errors
    /// The prompts cannot be read, or the mix cannot be used.
    pub fn new(prompts: &Path, mix: Mix, seed: u64) -> Result<Self, CorpusError> {
        mix.validate()?;
        let prompts = PromptSet::with_overrides(prompts)?;
        Ok(Self { prompts, mix, seed })
    }

    /// Document `index` of the training part: depends on seed, mix, prompts and index alone.
    ///
    /// # Errors
    /// [`CorpusError::Stuck`] if the mix leaves no request to draw, [`CorpusError::Prompt`] if a
    /// prompt cannot be filled in.
    pub fn document(&self, index: u64) -> Result<Document, CorpusError> {
        let mut dice = Dice::new(self.seed, index);
        let role = self.mix.role(&mut dice);
        let source = self.source(Split::Train);
        for _ in 0..ATTEMPTS {
            if let Some(document) = self.draw(role, source, &mut dice)? {
                return Ok(document);
            }
        }
        Err(CorpusError::Stuck {
            what: format!("{role:?}"),
        })
    }

    pub(crate) fn source(&self, split: Split) -> Source<'_> {
        Source {
            mix: &self.mix,
            split,
        }
    }

    fn draw(
        &self,
        role: Role,
        source: Source<'_>,
        dice: &mut Dice,
    ) -> Result<Option<Document>, CorpusError> {
        match role {
            Role::Respond => self.respond(source, dice),
            Role::Compose => self.compose(source, dice),
            Role::Decompose => self.decompose(source, dice),
            Role::Question => self.question(source, dice),
            Role::JudgeLogits => self.judge_logits(source, dice),
            Role::JudgeExplain => self.judge_explain(source, dice),
            Role::Skill => Ok(Some(skill(self.mix.repetition, dice))),
        }
    }

    /// The turns of a prompt of the recipe.
    pub(crate) fn render(
        &self,
        step: &str,
        variables: &Value,
    ) -> Result<Vec<Message>, CorpusError> {
        Ok(self
            .prompts
            .get(&format!("ultraif/{step}"))
            .render(variables)?)
    }

    /// A request as the responder sees it, after earlier turns.
    pub(crate) fn respond_prompt(
        &self,
        history: &[Message],
        query: &str,
    ) -> Result<Vec<Message>, CorpusError> {
        let mut messages = self.render("respond", &json!({"query": query}))?;
        let user = messages.len() - 1;
        messages.splice(user..user, history.iter().cloned());
        Ok(messages)
    }

    fn respond(
        &self,
        source: Source<'_>,
        dice: &mut Dice,
    ) -> Result<Option<Document>, CorpusError> {
        let Some((scene, answer)) = responded(source, dice) else {
            return Ok(None);
        };
        let history = match dice.chance(self.mix.history) {
            true => earlier_turns(source, dice),
            false => Vec::new(),
        };
        let mut messages = self.respond_prompt(&history, &scene.whole_query())?;
        messages.push(Message::new("assistant", answer.text.as_str()));
        let checks = scene
            .asks
            .iter()
            .map(|ask| (ask.kind(), ask.holds(&answer.text, &answer.voice)));
        let checks = checks.collect();
        Ok(Some(Document {
            checks,
            ..document(messages, Role::Respond, scene.errand.task.name())
        }))
    }

    fn compose(
        &self,
        source: Source<'_>,
        dice: &mut Dice,
    ) -> Result<Option<Document>, CorpusError> {
        // Rounds begin with few constraints and end with many.
        let before = dice.below(3);
        let Some(scene) = source.scene(before + 1, Must::Any, dice) else {
            return Ok(None);
        };
        let history = match dice.chance(self.mix.history) {
            true => shown(&earlier_turns(source, dice)),
            false => String::new(),
        };
        let mut messages = self.render(
            "compose",
            &json!({"history": history, "query": scene.query(before)}),
        )?;
        let added = &scene.asks[before];
        let composed =
            json!({"query": scene.whole_query(), "question": source.question(added, dice)});
        messages.push(Message::new("assistant", composed.to_string()));
        Ok(Some(document(messages, Role::Compose, added.kind().name())))
    }

    fn decompose(
        &self,
        source: Source<'_>,
        dice: &mut Dice,
    ) -> Result<Option<Document>, CorpusError> {
        // Three constraints would say the request four times.
        let count = self.mix.count(dice).min(2);
        let Some(scene) = source.scene(count, Must::Any, dice) else {
            return Ok(None);
        };
        let mut messages = self.render("decompose", &json!({"prompt": scene.whole_query()}))?;
        let constraint = |(index, ask): (usize, &Ask)| {
            json!({
                "type": ask.kind().paper_type(), "constraint": scene.demands[index],
                "simplified_query": scene.query_without(index),
            })
        };
        let constraints: Vec<Value> = scene.asks.iter().enumerate().map(constraint).collect();
        let parts = json!({"complex": count > 0, "basic_query": scene.errand.text, "constraints": constraints});
        messages.push(Message::new("assistant", parts.to_string()));
        Ok(Some(document(
            messages,
            Role::Decompose,
            scene.errand.task.name(),
        )))
    }

    fn question(
        &self,
        source: Source<'_>,
        dice: &mut Dice,
    ) -> Result<Option<Document>, CorpusError> {
        let Some(scene) = source.scene(1, Must::Any, dice) else {
            return Ok(None);
        };
        let ask = &scene.asks[0];
        // Now and then there is nothing to test: the subject, said as a demand.
        let (constraint, question, kind) = match dice.chance(0.06) {
            true => (scene.errand.text.clone(), String::new(), "none"),
            false => (
                scene.demands[0].clone(),
                source.question(ask, dice),
                ask.kind().name(),
            ),
        };
        let variables = json!({"prompt": scene.whole_query(), "constraint": constraint});
        let mut messages = self.render("question", &variables)?;
        messages.push(Message::new(
            "assistant",
            json!({"question": question}).to_string(),
        ));
        Ok(Some(document(messages, Role::Question, kind)))
    }

    fn judge_logits(
        &self,
        source: Source<'_>,
        dice: &mut Dice,
    ) -> Result<Option<Document>, CorpusError> {
        let (kind, yes) = (self.mix.kind(dice), dice.chance(0.5));
        let Some(judged) = judged(source, (kind, yes), dice) else {
            return Ok(None);
        };
        let question = source.question(&judged.ask, dice);
        let messages = self.judge_messages(&judged, &question)?;
        let checks = vec![(kind, yes)];
        Ok(Some(Document {
            checks,
            ..document(messages, Role::JudgeLogits, kind.name())
        }))
    }

    /// One question on one answer, and its verdict.
    pub(crate) fn judge_messages(
        &self,
        judged: &Judged,
        question: &str,
    ) -> Result<Vec<Message>, CorpusError> {
        let variables = json!({
            "history": "", "instruction": judged.query, "response": judged.answer.text, "question": question,
        });
        let mut messages = self.render("judge_logits", &variables)?;
        messages.push(Message::new(
            "assistant",
            if judged.yes { "YES" } else { "NO" },
        ));
        Ok(messages)
    }

    fn judge_explain(
        &self,
        source: Source<'_>,
        dice: &mut Dice,
    ) -> Result<Option<Document>, CorpusError> {
        // The first kind and every verdict are fixed before anything is drawn.
        let kind = self.mix.kind(dice);
        let count = dice.between(1, 3);
        let broken: Vec<bool> = (0..count).map(|_| dice.chance(0.5)).collect();
        for _ in 0..ATTEMPTS {
            let Some(scene) = source.scene(count, Must::Kind(kind), dice) else {
                continue;
            };
            let Some(answer) = answer(&scene.errand, &scene.asks, &broken, dice) else {
                continue;
            };
            let questions: Vec<String> = scene
                .asks
                .iter()
                .map(|ask| source.question(ask, dice))
                .collect();
            let verdicts: Vec<Value> = scene.asks.iter().zip(&broken).map(|(ask, broken)| {
                let explanation = reason(ask, &answer.text, !broken);
                json!({"explanation": explanation, "verdict": if *broken { "NO" } else { "YES" }})
            }).collect();
            let mut messages = self.render("judge_explain", &json!({
                "history": "", "instruction": scene.whole_query(), "response": answer.text, "questions": questions,
            }))?;
            messages.push(Message::new(
                "assistant",
                json!({"verdicts": verdicts}).to_string(),
            ));
            let checks = scene
                .asks
                .iter()
                .map(Ask::kind)
                .zip(broken.iter().map(|broken| !broken))
                .collect();
            return Ok(Some(Document {
                checks,
                ..document(messages, Role::JudgeExplain, kind.name())
            }));
        }
        Ok(None)
    }

    /// Judge documents on an answer that a model gave to a request: one for each constraint
    /// that a rule can check, with the rule's verdict.
    ///
    /// # Errors
    /// [`CorpusError::Prompt`] if the prompt cannot be filled in.
    pub fn judge_sampled(
        &self,
        asks: &[Ask],
        response: &str,
        index: u64,
    ) -> Result<Vec<Document>, CorpusError> {
        let mut dice = Dice::new(self.seed ^ SAMPLED, index);
        let source = self.source(Split::Train);
        let rules = asks.iter().filter(|ask| ask.rule().is_some());
        rules
            .map(|ask| {
                let yes = ask.holds(response, &[]);
                let answer = Answer {
                    text: response.trim().to_owned(),
                    voice: Vec::new(),
                };
                let judged = Judged {
                    ask: ask.clone(),
                    yes,
                    answer,
                    query: String::new(),
                };
                let question = source.question(ask, &mut dice);
                let messages = self.judge_messages(&judged, &question)?;
                let checks = vec![(ask.kind(), yes)];
                Ok(Document {
                    checks,
                    ..document(messages, Role::JudgeLogits, ask.kind().name())
                })
            })
            .collect()
    }
}

/// As many YES as NO of each kind: of judge documents on a model's own answers, the first ones,
/// so that no kind tells its verdict.
#[must_use]
pub fn balanced(documents: Vec<Document>) -> Vec<Document> {
    let cell = |document: &Document| {
        let yes = document
            .messages
            .last()
            .is_some_and(|turn| turn.content == "YES");
        (document.kind, yes)
    };
    let mut counts: BTreeMap<(&str, bool), usize> = BTreeMap::new();
    for document in &documents {
        *counts.entry(cell(document)).or_default() += 1;
    }
    let mut left: BTreeMap<(&str, bool), usize> = BTreeMap::new();
    for (kind, yes) in counts.keys() {
        let other = counts.get(&(*kind, !yes)).copied().unwrap_or_default();
        left.insert((*kind, *yes), other.min(counts[&(*kind, *yes)]));
    }
    let mut kept = documents;
    kept.retain(|document| {
        let left = left.entry(cell(document)).or_default();
        let keeps = *left > 0;
        *left = left.saturating_sub(1);
        keeps
    });
    kept
}

/// Keeps the wording of questions on sampled answers apart from the corpus.
const SAMPLED: u64 = 0x5a3b_1ed0;

/// An answer, a constraint, and whether it is followed.
#[derive(Debug, Clone)]
pub(crate) struct Judged {
    pub(crate) query: String,
    pub(crate) answer: Answer,
    pub(crate) ask: Ask,
    pub(crate) yes: bool,
}

/// An answer on which a question of this kind has this verdict.
///
/// The verdict is fixed first, then topic and constraint are drawn, then answers are tried until
/// one fits: so neither the kind nor its parameters tell anything about the verdict. Most
/// answers were asked for what the question asks, some were not.
pub(crate) fn judged(
    source: Source<'_>,
    (kind, yes): (AskKind, bool),
    dice: &mut Dice,
) -> Option<Judged> {
    let wanted = |topic: &usize| held_out_pair(*topic, kind) == (source.split == Split::Pair);
    let topics: Vec<usize> = (0..TOPICS.len()).filter(wanted).collect();
    if topics.is_empty() {
        return None;
    }
    let topic = dice.pick(&topics);
    let ask = source.ask(kind, topic, dice);
    let asked = (0..ATTEMPTS).find_map(|turn| {
        // What no answer does by chance is soon given up.
        if turn < UNASKED_ATTEMPTS && dice.chance(UNASKED) {
            unasked(source, topic, (&ask, yes), dice)
        } else {
            asked(source, topic, (&ask, yes), dice)
        }
    });
    asked.map(|(query, answer)| Judged {
        query,
        answer,
        ask,
        yes,
    })
}

/// A request with the constraint, and an answer that follows it or does not.
fn asked(
    source: Source<'_>,
    topic: usize,
    (ask, yes): (&Ask, bool),
    dice: &mut Dice,
) -> Option<(String, Answer)> {
    let least = if source.split == Split::Combination {
        2
    } else {
        1
    };
    let scene = source.scene(dice.between(least, 3), Must::Exactly(topic, ask), dice)?;
    let broken: Vec<bool> = scene
        .asks
        .iter()
        .map(|one| {
            if one == ask {
                !yes
            } else {
                dice.chance(ALSO_BROKEN)
            }
        })
        .collect();
    let answer = answer(&scene.errand, &scene.asks, &broken, dice)?;
    Some((scene.whole_query(), answer))
}

/// A request without the constraint, and an answer that happens to follow it or not.
fn unasked(
    source: Source<'_>,
    topic: usize,
    (ask, yes): (&Ask, bool),
    dice: &mut Dice,
) -> Option<(String, Answer)> {
    let known = Source {
        split: Split::Train,
        ..source
    };
    let scene = known.scene(dice.between(0, 2), Must::Topic(topic), dice)?;
    let mut all = scene.asks.clone();
    all.push(ask.clone());
    let fits = scene.errand.task.admits(ask.kind()) && compatible(&all);
    if !fits || !source.admits(&scene.errand, &all) {
        return None;
    }
    let broken: Vec<bool> = scene
        .asks
        .iter()
        .map(|_| dice.chance(ALSO_BROKEN))
        .collect();
    let answer = answer(&scene.errand, &scene.asks, &broken, dice)?;
    // In capitals or small letters, but not taken for English: no example of either.
    let unclear = match ask.kind() {
        AskKind::Rule(Kind::EnglishCapital) => !answer.text.contains(char::is_lowercase),
        AskKind::Rule(Kind::EnglishLowercase) => !answer.text.contains(char::is_uppercase),
        _ => false,
    };
    let right = ask.holds(&answer.text, &answer.voice) == yes && (yes || !unclear);
    right.then(|| (scene.whole_query(), answer))
}

/// A request and an answer to it that breaks one constraint as often as the mix says.
fn responded(source: Source<'_>, dice: &mut Dice) -> Option<(Scene, Answer)> {
    let mut count = source.mix.count(dice);
    let must = dice.chance(source.mix.copying).then(|| {
        let copying = [
            Kind::Existence,
            Kind::EndChecker,
            Kind::NthParagraphFirstWord,
            Kind::Existence,
        ];
        AskKind::Rule(dice.pick(&copying))
    });
    let must = must.filter(|kind| source.mix.weight(*kind) > 0.0);
    if must.is_some() {
        count = count.max(1);
    }
    let breaks = count > 0 && dice.chance(source.mix.violations[count - 1]);
    for _ in 0..ATTEMPTS {
        let scene = source.scene(count, must.map_or(Must::Any, Must::Kind), dice)?;
        let mut broken = vec![false; count];
        if breaks {
            broken[dice.below(count)] = true;
        }
        if let Some(answer) = answer(&scene.errand, &scene.asks, &broken, dice) {
            return Some((scene, answer));
        }
    }
    None
}

/// A short exchange before the request.
fn earlier_turns(source: Source<'_>, dice: &mut Dice) -> Vec<Message> {
    let drawn = source.scene(0, Must::Any, dice).and_then(|scene| {
        let answer = answer(&scene.errand, &[], &[], dice)?;
        Some((scene.whole_query(), answer.text))
    });
    let turns = drawn
        .map(|(query, text)| vec![Message::new("user", query), Message::new("assistant", text)]);
    turns.unwrap_or_default()
}

/// Earlier turns as the recipe shows them to the composer.
fn shown(history: &[Message]) -> String {
    let lines: Vec<String> = history
        .iter()
        .map(|turn| format!("{}: {}", turn.role, turn.content))
        .collect();
    lines.join("\n")
}

pub(crate) fn document(messages: Vec<Message>, role: Role, kind: &'static str) -> Document {
    Document {
        messages,
        role,
        kind,
        loss: "assistant",
        checks: Vec::new(),
    }
}
