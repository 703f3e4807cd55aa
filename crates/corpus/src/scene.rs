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

/// What a request has to be about.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Must<'a> {
    /// Anything.
    Any,
    /// This topic.
    Topic(usize),
    /// A constraint of this kind.
    Kind(AskKind),
    /// This topic and this constraint.
    Exactly(usize, &'a Ask),
}

/// Requests drawn before it is said that there is none.
const REDRAWS: usize = 1000;

impl Source<'_> {
    /// A request with so many constraints, in random order; `None` if the mix hardly allows any.
    pub(crate) fn scene(self, count: usize, must: Must<'_>, dice: &mut Dice) -> Option<Scene> {
        (0..REDRAWS).find_map(|_| self.try_scene(count, must, dice))
    }

    fn try_scene(self, count: usize, must: Must<'_>, dice: &mut Dice) -> Option<Scene> {
        let task = dice.pick(&Task::ALL);
        let topic = match must {
            Must::Topic(topic) | Must::Exactly(topic, _) => topic,
            Must::Any | Must::Kind(_) => dice.below(TOPICS.len()),
        };
        let first = match must {
            Must::Kind(kind) => Some(self.ask(kind, topic, dice)),
            Must::Exactly(_, ask) => Some(ask.clone()),
            Must::Any | Must::Topic(_) => None,
        };
        let mut asks: Vec<Ask> = first.into_iter().collect();
        if asks.iter().any(|ask| !task.admits(ask.kind())) {
            return None;
        }
        // A few draws more than asked for: some do not go together.
        for _ in 0..4 * count {
            let kind = self.mix.kind(dice);
            if asks.len() >= count || !task.admits(kind) {
                continue;
            }
            asks.push(self.ask(kind, topic, dice));
            if !compatible(&asks) {
                asks.pop();
            }
        }
        dice.shuffle(&mut asks);
        let errand = Errand::draw(task, topic, self.split.wording(), dice);
        if asks.len() != count || !self.admits(&errand, &asks) {
            return None;
        }
        let demands = asks.iter().map(|ask| self.demand(ask, dice)).collect();
        Some(Scene {
            errand,
            asks,
            demands,
        })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::split::{held_out_combination, held_out_pair, held_out_word};

    fn novelties(scene: &Scene) -> (bool, bool) {
        let kinds: Vec<AskKind> = scene.asks.iter().map(Ask::kind).collect();
        let topics = scene.errand.topics();
        let pair = topics
            .iter()
            .any(|topic| kinds.iter().any(|kind| held_out_pair(*topic, *kind)));
        let combination = kinds
            .iter()
            .any(|a| kinds.iter().any(|b| held_out_combination(*a, *b)));
        (pair, combination)
    }

    #[test]
    fn each_split_has_its_novelty_and_no_other() {
        let mix = Mix::default();
        for (split, expected) in [
            (Split::Train, (false, false)),
            (Split::Pair, (true, false)),
            (Split::Combination, (false, true)),
            (Split::Phrasing, (false, false)),
        ] {
            let source = Source { mix: &mix, split };
            for number in 0..300 {
                let mut dice = Dice::new(4, number);
                let scene = source.scene(2, Must::Any, &mut dice).unwrap();
                assert_eq!(
                    novelties(&scene),
                    expected,
                    "{split:?} {}",
                    scene.whole_query()
                );
                for (ask, demand) in scene.asks.iter().zip(&scene.demands) {
                    let last = fill(phrases(ask.kind()).demands[3], ask);
                    assert_eq!(*demand == last, split == Split::Phrasing, "{demand}");
                    if let Some(verify::Constraint::Existence { keywords }) = ask.rule() {
                        let held_out = held_out_word(keywords[0].as_str());
                        assert_eq!(held_out, split != Split::Train, "{demand}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_demand_can_be_left_out() {
        let mix = Mix::default();
        let source = Source {
            mix: &mix,
            split: Split::Train,
        };
        let scene = source.scene(3, Must::Any, &mut Dice::new(1, 1)).unwrap();
        let [a, b, c] = [0, 1, 2].map(|index| scene.demands[index].as_str());
        let text = &scene.errand.text;
        assert_eq!(scene.whole_query(), format!("{text} {a} {b} {c}"));
        assert_eq!(scene.query_without(1), format!("{text} {a} {c}"));
        assert_eq!(scene.query(1), format!("{text} {a}"));
    }
}
