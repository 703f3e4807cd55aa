//! Documents: conversations in exactly the words that the product uses.

use crate::CorpusError;
use crate::answer::{Answer, answer};
use crate::ask::{Ask, AskKind};
use crate::dice::Dice;
use crate::mix::{Mix, Role};
use crate::scene::{Must, Scene, Source};
use crate::skill::skill;
use crate::split::Split;
use data::Message;
use serde::Serialize;
use serde_json::{Value, json};
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
    /// How much each of their tokens counts: one word that decides weighs as much as three.
    pub weight: f64,
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
pub(crate) const ATTEMPTS: usize = 100;
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
            Role::Correct => self.correct(source, dice),
            Role::Decif => self.decif(source, dice),
        }
    }

    /// The turns of a prompt of UltraIF.
    pub(crate) fn render(
        &self,
        step: &str,
        variables: &Value,
    ) -> Result<Vec<Message>, CorpusError> {
        self.render_of("ultraif", step, variables)
    }

    /// The turns of a prompt of a recipe.
    pub(crate) fn render_of(
        &self,
        recipe: &str,
        step: &str,
        variables: &Value,
    ) -> Result<Vec<Message>, CorpusError> {
        let prompt = self.prompts.get(&format!("{recipe}/{step}"));
        Ok(prompt.render(variables)?)
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
}

/// A request and an answer to it that breaks one constraint as often as the mix says.
pub(crate) fn responded(source: Source<'_>, dice: &mut Dice) -> Option<(Scene, Answer)> {
    let mut count = source.mix.count(dice);
    let must = dice.chance(source.mix.copying).then(|| {
        let copying = [
            Kind::Existence,
            Kind::EndChecker,
            Kind::Frequency,
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

/// Weight of answers of a single word.
pub(crate) const SINGLE_WORD: f64 = 3.0;

pub(crate) fn document(messages: Vec<Message>, role: Role, kind: &'static str) -> Document {
    Document {
        messages,
        role,
        kind,
        loss: "assistant",
        weight: 1.0,
        checks: Vec::new(),
    }
}
