//! One request: an errand with constraints, in words.

use crate::ask::{Ask, AskKind, compatible};
use crate::dice::Dice;
use crate::mix::Mix;
use crate::phrases::{fill, phrases};
use crate::split::Split;
use crate::task::{Errand, Task};
use crate::world::TOPICS;

/// A request and what it is made of.
#[derive(Debug, Clone)]
pub(crate) struct Scene {
    pub(crate) errand: Errand,
    pub(crate) asks: Vec<Ask>,
    /// Each constraint in words.
    pub(crate) demands: Vec<String>,
}

/// What a request is drawn from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) mix: &'a Mix,
    pub(crate) split: Split,
}

/// Requests drawn before it is said that there is none.
const REDRAWS: usize = 2000;

impl Source<'_> {
    /// A request with so many constraints, one of them of kind `must`, in random order; `None`
    /// if the mix hardly allows any.
    pub(crate) fn scene(
        self,
        count: usize,
        must: Option<AskKind>,
        dice: &mut Dice,
    ) -> Option<Scene> {
        for _ in 0..REDRAWS {
            let task = dice.pick(&Task::ALL);
            let topic = dice.below(TOPICS.len());
            if must.is_some_and(|kind| !task.admits(kind)) {
                continue;
            }
            let mut asks: Vec<Ask> = Vec::new();
            // A few draws more than asked for: some do not go together.
            for turn in 0..4 * count {
                let kind = match must.filter(|_| turn == 0) {
                    Some(kind) => kind,
                    None => self.mix.kind(dice),
                };
                if asks.len() == count || !task.admits(kind) {
                    continue;
                }
                asks.push(self.ask(kind, topic, dice));
                if !compatible(&asks) {
                    asks.pop();
                }
            }
            dice.shuffle(&mut asks);
            let errand = Errand::draw(task, topic, self.split.wording(), dice);
            if asks.len() == count && self.admits(&errand, &asks) {
                let demands = asks.iter().map(|ask| self.demand(ask, dice)).collect();
                return Some(Scene {
                    errand,
                    asks,
                    demands,
                });
            }
        }
        None
    }

    /// A constraint of this kind for a request about `topic`.
    pub(crate) fn ask(self, kind: AskKind, topic: usize, dice: &mut Dice) -> Ask {
        let admitted = |word: &str| self.split.admits_word(word);
        Ask::draw(kind, topic, &admitted, dice)
    }

    /// Whether the split has this errand with these constraints.
    pub(crate) fn admits(self, errand: &Errand, asks: &[Ask]) -> bool {
        let kinds: Vec<AskKind> = asks.iter().map(Ask::kind).collect();
        // A request without constraints has nothing that could be held out.
        kinds.is_empty() || self.split.admits(&errand.topics(), &kinds)
    }

    pub(crate) fn demand(self, ask: &Ask, dice: &mut Dice) -> String {
        let demands = phrases(ask.kind()).demands;
        fill(
            demands[self
                .split
                .wording()
                .index(demands.len(), |len| dice.below(len))],
            ask,
        )
    }

    pub(crate) fn question(self, ask: &Ask, dice: &mut Dice) -> String {
        let questions = phrases(ask.kind()).questions;
        fill(
            questions[self
                .split
                .wording()
                .index(questions.len(), |len| dice.below(len))],
            ask,
        )
    }
}

impl Scene {
    /// The request with its first `count` demands.
    pub(crate) fn query(&self, count: usize) -> String {
        self.joined(self.demands.iter().take(count))
    }

    /// The request without one demand.
    pub(crate) fn query_without(&self, left_out: usize) -> String {
        let others = self
            .demands
            .iter()
            .enumerate()
            .filter(|(index, _)| *index != left_out);
        self.joined(others.map(|(_, demand)| demand))
    }

    /// The request.
    pub(crate) fn whole_query(&self) -> String {
        self.query(self.demands.len())
    }

    fn joined<'a>(&'a self, demands: impl Iterator<Item = &'a String>) -> String {
        let parts: Vec<&str> = std::iter::once(&self.errand.text)
            .chain(demands)
            .map(String::as_str)
            .collect();
        parts.join(" ")
    }
}
