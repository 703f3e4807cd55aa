//! Verdicts: answers with questions, for both evaluators. The labels are the rules' and the
//! parameters of a question tell nothing about its label.

use crate::CorpusError;
use crate::answer::{Answer, answer};
use crate::ask::{Ask, AskKind, compatible};
use crate::dice::Dice;
use crate::document::{ATTEMPTS, Corpus, Document, SINGLE_WORD, document};
use crate::held_out::{Item, Set};
use crate::mix::Role;
use crate::reason::reason;
use crate::scene::{Must, Source};
use crate::split::{Split, held_out_pair};
use crate::world::TOPICS;
use data::Message;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use verify::compose::Kind;

/// Tries in which the answer may be one that was not asked for it.
const UNASKED_ATTEMPTS: usize = 4;
/// Share of judged answers that were not asked for what the question asks.
const UNASKED: f64 = 0.4;
/// Share of constraints broken beside the one asked about: half, as they are asked about next.
const ALSO_BROKEN: f64 = 0.5;

/// Keeps the wording of questions on sampled answers apart from the corpus.
const SAMPLED: u64 = 0x5a3b_1ed0;

/// A question on a constraint, and its verdict.
struct Asked<'a> {
    ask: &'a Ask,
    question: String,
    yes: bool,
}

impl Corpus {
    /// An answer, a question, YES or NO; then questions on what else was asked for, so that an
    /// answer is read once for several verdicts.
    pub(crate) fn judge_logits(
        &self,
        source: Source<'_>,
        dice: &mut Dice,
    ) -> Result<Option<Document>, CorpusError> {
        let (kind, yes) = (self.mix.kind(dice), dice.chance(0.5));
        let Some(judged) = judged(source, (kind, yes), dice) else {
            return Ok(None);
        };
        let question = source.question(&judged.ask, dice);
        let mut messages = self.judge_messages(&judged.answer.text, &question, yes)?;
        let mut checks = vec![(kind, yes)];
        for ask in &judged.others {
            let yes = ask.holds(&judged.answer.text, &judged.answer.voice);
            let question = source.question(ask, dice);
            let whole = self.judge_messages("", &question, yes)?;
            messages.extend(whole.iter().map(without_answer));
            checks.push((ask.kind(), yes));
        }
        Ok(Some(Document {
            checks,
            weight: SINGLE_WORD,
            ..document(messages, Role::JudgeLogits, kind.name())
        }))
    }

    /// One question on one answer, and its verdict. The prompt shows no request.
    pub(crate) fn judge_messages(
        &self,
        text: &str,
        question: &str,
        yes: bool,
    ) -> Result<Vec<Message>, CorpusError> {
        let variables = json!({
            "history": "", "instruction": "", "response": text, "question": question,
        });
        let mut messages = self.render("judge_logits", &variables)?;
        messages.push(Message::new("assistant", if yes { "YES" } else { "NO" }));
        Ok(messages)
    }

    /// An answer, questions, reasons and verdicts.
    pub(crate) fn judge_explain(
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
            let asked = scene.asks.iter().zip(&broken).map(|(ask, broken)| Asked {
                ask,
                question: source.question(ask, dice),
                yes: !broken,
            });
            let asked: Vec<Asked<'_>> = asked.collect();
            let messages = self.explain_messages(&answer.text, &asked)?;
            let checks = asked.iter().map(|one| (one.ask.kind(), one.yes)).collect();
            return Ok(Some(Document {
                checks,
                ..document(messages, Role::JudgeExplain, kind.name())
            }));
        }
        Ok(None)
    }

    /// Questions on one answer, with reasons and verdicts.
    fn explain_messages(
        &self,
        text: &str,
        asked: &[Asked<'_>],
    ) -> Result<Vec<Message>, CorpusError> {
        let questions: Vec<&str> = asked.iter().map(|one| one.question.as_str()).collect();
        let verdict = |one: &Asked<'_>| {
            json!({
                "explanation": reason(one.ask, text, one.yes),
                "verdict": if one.yes { "YES" } else { "NO" },
            })
        };
        let verdicts: Vec<Value> = asked.iter().map(verdict).collect();
        let mut messages = self.render(
            "judge_explain",
            &json!({"history": "", "instruction": "", "response": text, "questions": questions}),
        )?;
        let answer = json!({"verdicts": verdicts}).to_string();
        messages.push(Message::new("assistant", answer));
        Ok(messages)
    }

    /// Judge documents on an answer that a model gave to a request: for each constraint that a
    /// rule can check one document for either evaluator, with the rule's verdict.
    ///
    /// # Errors
    /// [`CorpusError::Prompt`] if a prompt cannot be filled in.
    pub fn judge_sampled(
        &self,
        asks: &[Ask],
        response: &str,
        index: u64,
    ) -> Result<Vec<Document>, CorpusError> {
        let mut dice = Dice::new(self.seed ^ SAMPLED, index);
        let source = self.source(Split::Train);
        // As the recipe judges it.
        let text = response.trim();
        let mut documents = Vec::new();
        for ask in asks.iter().filter(|ask| ask.rule().is_some()) {
            let yes = ask.holds(text, &[]);
            let question = source.question(ask, &mut dice);
            let read = self.judge_messages(text, &question, yes)?;
            let written = self.explain_messages(text, &[Asked { ask, question, yes }])?;
            for (messages, role) in [(read, Role::JudgeLogits), (written, Role::JudgeExplain)] {
                let checks = vec![(ask.kind(), yes)];
                documents.push(Document {
                    checks,
                    weight: match role {
                        Role::JudgeLogits => SINGLE_WORD,
                        _ => 1.0,
                    },
                    ..document(messages, role, ask.kind().name())
                });
            }
        }
        Ok(documents)
    }
}

impl Corpus {
    /// What [`Corpus::judge_sampled`] asks, as items to measure a judge with.
    ///
    /// # Errors
    /// As there.
    pub fn judge_items(
        &self,
        item: &Item,
        response: &str,
        index: u64,
    ) -> Result<Vec<Item>, CorpusError> {
        let documents = self.judge_sampled(&item.asks()?, response, index)?;
        let items = documents.into_iter().enumerate().map(|(number, document)| {
            let mut messages = document.messages;
            messages.pop();
            let yes = document.checks.first().is_some_and(|(_, yes)| *yes);
            Item {
                key: format!("own-{}-{index}-{number}", item.key),
                set: match document.role {
                    Role::JudgeLogits => Set::Judge,
                    _ => Set::Explain,
                },
                split: item.split,
                kind: document.kind.to_owned(),
                messages,
                prompt: response.trim().to_owned(),
                topics: Vec::new(),
                instruction_id_list: Vec::new(),
                kwargs: Vec::new(),
                soft: Vec::new(),
                expected: Some(if yes { "YES" } else { "NO" }.to_owned()),
            }
        });
        Ok(items.collect())
    }
}

/// As many YES as NO of each kind and evaluator: of judge documents on a model's own answers,
/// the first ones, so that no kind tells its verdict. Other documents are dropped.
#[must_use]
pub fn balanced(documents: Vec<Document>) -> Vec<Document> {
    type Cell = (Role, AskKind);
    let cell = |document: &Document| match document.checks[..] {
        [(kind, yes)] => Some(((document.role, kind), usize::from(yes))),
        _ => None,
    };
    let mut counts: BTreeMap<Cell, [usize; 2]> = BTreeMap::new();
    for (key, yes) in documents.iter().filter_map(cell) {
        counts.entry(key).or_default()[yes] += 1;
    }
    for count in counts.values_mut() {
        *count = [count[0].min(count[1]); 2];
    }
    let mut kept = documents;
    kept.retain(|document| {
        let left =
            cell(document).and_then(|(key, yes)| counts.get_mut(&key).map(|left| &mut left[yes]));
        left.is_some_and(|left| {
            let keeps = *left > 0;
            *left = left.saturating_sub(1);
            keeps
        })
    });
    kept
}

/// A later question on the same answer: the prompt's last line.
fn without_answer(turn: &Message) -> Message {
    let last = turn.content.trim_end().rsplit('\n').next();
    Message::new(&turn.role, last.unwrap_or_default())
}

/// An answer and a constraint that it follows or not, as wanted.
#[derive(Debug, Clone)]
pub(crate) struct Judged {
    pub(crate) answer: Answer,
    pub(crate) ask: Ask,
    /// What else it was asked for.
    pub(crate) others: Vec<Ask>,
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
    asked.map(|(answer, others)| Judged {
        answer,
        ask,
        others,
    })
}

/// A request with the constraint, and an answer that follows it or does not.
fn asked(
    source: Source<'_>,
    topic: usize,
    (ask, yes): (&Ask, bool),
    dice: &mut Dice,
) -> Option<(Answer, Vec<Ask>)> {
    let least = if source.split == Split::Combination {
        2
    } else {
        1
    };
    let count = dice.between(least, 3).max(dice.between(least, 3));
    let scene = source.scene(count, Must::Exactly(topic, ask), dice)?;
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
    let others = scene.asks.into_iter().filter(|one| one != ask).collect();
    Some((answer, others))
}

/// A request without the constraint, and an answer that happens to follow it or not.
fn unasked(
    source: Source<'_>,
    topic: usize,
    (ask, yes): (&Ask, bool),
    dice: &mut Dice,
) -> Option<(Answer, Vec<Ask>)> {
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
    right.then_some((answer, scene.asks))
}
