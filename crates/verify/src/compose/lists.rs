//! Draws lists of constraints that one answer can meet.

use super::Kind;
use super::conflict::conflict;
use super::draws::{Draws, below};
use super::exclusions::types_exclude;
use super::sample::{Material, sample};
use crate::Constraint;

/// Lists that are begun before the longest one is given.
const ATTEMPTS: usize = 64;
/// Draws of one type's parameters before the type is given up.
const REDRAWS: usize = 40;

/// Draws one constraint of a type out of random bits; `None` where the one drawn is not wanted.
pub type DrawOne<'a> = dyn Fn(Kind, &mut dyn FnMut() -> u64) -> Option<Constraint> + 'a;

/// What a list is drawn from.
pub struct Choice<'a> {
    /// Types, each at most once in a list.
    pub kinds: &'a [Kind],
    /// Constraints that hold already: nothing that contradicts them is drawn. They do not come
    /// back.
    pub held: &'a [Constraint],
    /// How the parameters of a type are drawn.
    pub draw: &'a DrawOne<'a>,
}

impl Choice<'_> {
    /// Draws `k` constraints that one answer can meet: types uniformly, each kept if neither
    /// the type table nor a rule on the parameters objects to it beside those already kept.
    ///
    /// A list that gets stuck is begun anew, so types that go with few others (`json_format`,
    /// `two_responses`, `repeat_prompt`, and `constrained_response`, which goes with none)
    /// appear only where `k` leaves room for them. Gives fewer than `k` only if 64 lists got
    /// stuck below: with all types not seen up to `k` = 8.
    pub fn compatible(&self, k: usize, bits: &mut dyn FnMut() -> u64) -> Vec<Constraint> {
        let mut longest = Vec::new();
        for _ in 0..ATTEMPTS {
            let list = self.begin(k, bits);
            if list.len() >= k {
                return list;
            }
            if list.len() > longest.len() {
                longest = list;
            }
        }
        longest
    }

    fn begin(&self, k: usize, bits: &mut dyn FnMut() -> u64) -> Vec<Constraint> {
        let excluded = |kind: Kind| {
            let mut held = self.held.iter();
            held.any(|one| types_exclude(Kind::of(one), kind))
        };
        let mut left: Vec<Kind> = self.kinds.to_vec();
        left.retain(|kind| !excluded(*kind));
        let mut list = self.held.to_vec();
        while list.len() < self.held.len() + k && !left.is_empty() {
            let kind = left.swap_remove(below(bits, left.len()));
            for _ in 0..REDRAWS {
                let Some(drawn) = (self.draw)(kind, bits) else {
                    continue;
                };
                list.push(drawn);
                if conflict(&list).is_none() {
                    left.retain(|other| !types_exclude(kind, *other));
                    break;
                }
                list.pop();
            }
        }
        list.split_off(self.held.len())
    }
}

/// Draws `k` constraints that one answer can meet, of all types, with general words as keywords.
///
/// See [`Choice::compatible`].
#[must_use]
pub fn compose(seed: u64, k: usize) -> Vec<Constraint> {
    compose_with(&Material::default(), seed, k)
}

/// Draws `k` constraints of all types that one answer can meet. The result depends on the
/// arguments alone.
///
/// See [`Choice::compatible`].
#[must_use]
pub fn compose_with(material: &Material<'_>, seed: u64, k: usize) -> Vec<Constraint> {
    let mut draws = Draws::new(seed);
    let choice = Choice {
        kinds: &Kind::ALL,
        held: &[],
        draw: &|kind, bits| Some(sample(kind, material, bits)),
    };
    choice.compatible(k, &mut || draws.bits())
}
