//! Pools that grow: lists that the model is asked to continue, told what is there, and that
//! take nothing in twice.
//!
//! Lists are continued in rounds with a barrier between them. What a call is told depends on
//! the rounds before it, and answers are taken in in the order of the calls, so that a pool is
//! a function of the seed and the settings, whatever arrives first.

use super::diversity::Diversity;
use super::outputs::{Scenario, Soft};
use super::settings::Settings;
use super::steps::{Ask, Entry, Step};
use crate::filters::{NearDuplicates, words};
use data::Outcome;
use pipeline::Sourced;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use verify::compose::Draws;
use verify::compose::draws::below;

/// Calls of one round for one list of domains, where each is told of what exists.
const CALLS_AT_ONCE: usize = 4;

/// What an instruction is made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Name of the domain.
    pub domain: String,
    /// The request in a few words.
    pub request: String,
    /// When, where and why.
    pub scenario: Scenario,
    /// Who asks.
    pub persona: String,
    /// Constraints without a rule to draw from.
    pub soft: Arc<[Soft]>,
}

/// Puts all rows of a step's phase so far to the model; gives what became of them, in order.
/// Outcomes of rows behind them, which an earlier invocation may have left, are not looked at.
pub type Put<'a, E> = dyn FnMut(Step, &[Sourced<Ask>]) -> Result<Vec<Outcome>, E> + 'a;

/// The pools of a run.
#[derive(Debug)]
pub struct Pools {
    settings: Settings,
    seed: u64,
    epochs: usize,
    domains: Vec<String>,
    requests: Vec<Request>,
    scenarios: Vec<Situation>,
    soft: Vec<Soft>,
    personas: Vec<String>,
    seen: BTreeMap<Step, Seen>,
    asked: BTreeMap<Step, Vec<Sourced<Ask>>>,
    growth: BTreeMap<Step, Vec<usize>>,
    /// The domain that is gone back to next.
    again: usize,
}

#[derive(Debug)]
struct Request {
    domain: usize,
    text: String,
}

#[derive(Debug)]
struct Situation {
    request: usize,
    scenario: Scenario,
}

/// A person in a situation.
pub(super) struct Person {
    /// Place of the scenario.
    scenario: usize,
    /// 0 for the scenario's own.
    number: usize,
    persona: String,
}

/// One list that is continued.
struct List {
    /// What it belongs to; part of its calls' ids.
    owner: usize,
    /// Variables of its prompt, without `count` and `known`.
    about: Value,
    known: Vec<String>,
    /// New entries it is to have.
    target: usize,
    added: Vec<Entry>,
    calls: usize,
    seen: Seen,
}

impl List {
    fn new(owner: usize, about: Value, target: usize, near: f64) -> Self {
        Self {
            owner,
            about,
            known: Vec::new(),
            target,
            added: Vec::new(),
            calls: 0,
            seen: Seen::new(near),
        }
    }

    /// Calls that this round makes for it.
    fn calls_now(&self, most: Calls) -> usize {
        let missing = self.target.saturating_sub(self.added.len());
        let budget = self.target.div_ceil(most.entries) + most.more;
        let left = budget.saturating_sub(self.calls);
        missing.div_ceil(most.entries).min(left).min(most.at_once)
    }
}

/// Limits of the calls for one list.
#[derive(Debug, Clone, Copy)]
struct Calls {
    entries: usize,
    more: usize,
    at_once: usize,
}

impl Pools {
    /// Empty pools, but for the domains that the settings begin with.
    pub fn new(settings: &Settings, seed: u64) -> Self {
        let near = settings.near_duplicates;
        let shared = [Step::Domains, Step::Requests, Step::Constraints];
        let mut pools = Self {
            settings: settings.clone(),
            seed,
            epochs: 0,
            domains: Vec::new(),
            requests: Vec::new(),
            scenarios: Vec::new(),
            soft: Vec::new(),
            personas: Vec::new(),
            seen: shared.map(|step| (step, Seen::new(near))).into(),
            asked: BTreeMap::new(),
            growth: BTreeMap::new(),
            again: 0,
        };
        let seen = pools.seen.get_mut(&Step::Domains);
        if let Some(seen) = seen {
            let given = settings.seed_domains.iter();
            pools.domains = given.filter(|name| seen.is_new(name)).cloned().collect();
        }
        pools
    }

    /// The domains of this epoch: the new ones, and where the model names too few, known ones
    /// in turn.
    pub(super) fn domains<E>(&mut self, put: &mut Put<'_, E>) -> Result<Vec<usize>, E> {
        let wanted = self.settings.domains;
        let before = match self.epochs {
            // Those to begin with are new, too.
            0 => 0,
            _ => self.domains.len(),
        };
        let mut list = List::new(0, json!({}), wanted, self.settings.near_duplicates);
        list.known.clone_from(&self.domains);
        for entry in self.fill(Step::Domains, vec![list], put)?.remove(0).added {
            self.domains.push(entry.text);
        }
        let mut chosen: Vec<usize> = (before..self.domains.len()).collect();
        let known = before.min(wanted.saturating_sub(chosen.len()));
        for _ in 0..known {
            chosen.push(self.again % before);
            self.again += 1;
        }
        self.epochs += 1;
        Ok(chosen)
    }

    /// New requests of these domains.
    pub(super) fn requests<E>(
        &mut self,
        domains: &[usize],
        put: &mut Put<'_, E>,
    ) -> Result<Vec<usize>, E> {
        let list = |domain: &usize| {
            let about = json!({"domain": self.domains[*domain]});
            let target = self.settings.requests_per_domain;
            let mut list = List::new(*domain, about, target, 0.0);
            let known = self.requests.iter().filter(|one| one.domain == *domain);
            list.known = known.map(|one| one.text.clone()).collect();
            list
        };
        let lists = domains.iter().map(list).collect();
        let before = self.requests.len();
        for list in self.fill(Step::Requests, lists, put)? {
            let new = list.added.into_iter().map(|entry| Request {
                domain: list.owner,
                text: entry.text,
            });
            self.requests.extend(new);
        }
        Ok((before..self.requests.len()).collect())
    }

    /// Scenarios of these requests.
    pub(super) fn scenarios<E>(
        &mut self,
        requests: &[usize],
        put: &mut Put<'_, E>,
    ) -> Result<Vec<usize>, E> {
        let near = self.settings.near_duplicates;
        let list = |request: &usize| {
            let one = &self.requests[*request];
            let about = json!({"domain": self.domains[one.domain], "request": one.text});
            List::new(*request, about, self.settings.scenarios_per_request, near)
        };
        let lists = requests.iter().map(list).collect();
        let before = self.scenarios.len();
        for list in self.fill(Step::Scenarios, lists, put)? {
            let read = list.added.into_iter().filter_map(|entry| read(entry.value));
            let new = read.map(|scenario| Situation {
                request: list.owner,
                scenario,
            });
            self.scenarios.extend(new);
        }
        Ok((before..self.scenarios.len()).collect())
    }

    /// The people in these scenarios: their own, or others where the settings ask for them.
    pub(super) fn personas<E>(
        &mut self,
        scenarios: &[usize],
        put: &mut Put<'_, E>,
    ) -> Result<Vec<Person>, E> {
        let wanted = self.settings.personas_per_scenario;
        let own = |scenario: &usize| Person {
            scenario: *scenario,
            number: 0,
            persona: self.scenarios[*scenario].scenario.persona.clone(),
        };
        if wanted == 0 {
            return Ok(scenarios.iter().map(own).collect());
        }
        let list = |scenario: &usize| {
            let one = &self.scenarios[*scenario];
            let request = &self.requests[one.request].text;
            let about = json!({"scenario": one.scenario.shown(), "request": request});
            List::new(*scenario, about, wanted, self.settings.near_duplicates)
        };
        let lists = scenarios.iter().map(list).collect();
        let mut people = Vec::new();
        for list in self.fill(Step::Personas, lists, put)? {
            for (index, entry) in list.added.into_iter().enumerate() {
                self.personas.push(entry.text.clone());
                people.push(Person {
                    scenario: list.owner,
                    number: index + 1,
                    persona: entry.text,
                });
            }
        }
        Ok(people)
    }

    /// More constraints of every kind.
    pub(super) fn constraints<E>(&mut self, put: &mut Put<'_, E>) -> Result<(), E> {
        let settings = &self.settings;
        if settings.soft_share == 0.0 || settings.constraints_per_kind == 0 {
            return Ok(());
        }
        let kinds = settings.kinds.clone();
        let list = |(owner, kind): (usize, &String)| {
            let target = self.settings.constraints_per_kind;
            let mut list = List::new(owner, json!({"kind": kind}), target, 0.0);
            let known = self.soft.iter().filter(|one| one.kind == *kind);
            list.known = known.map(|one| one.constraint.clone()).collect();
            list
        };
        let lists = kinds.iter().enumerate().map(list).collect();
        for list in self.fill(Step::Constraints, lists, put)? {
            let read = list.added.into_iter().filter_map(|entry| read(entry.value));
            let new = read.map(|soft: Soft| Soft {
                kind: kinds[list.owner].clone(),
                ..soft
            });
            self.soft.extend(new);
        }
        Ok(())
    }

    /// What instructions are to be made for, in an order drawn from the seed: a run that ends
    /// early has seen something of every domain.
    pub(super) fn items(&self, people: Vec<Person>) -> Vec<Sourced<Item>> {
        let soft: Arc<[Soft]> = self.soft.clone().into();
        let mut items = Vec::new();
        for person in people {
            let place = &self.scenarios[person.scenario];
            let request = &self.requests[place.request];
            for number in 0..self.settings.instructions_per_scenario {
                let item = Item {
                    domain: self.domains[request.domain].clone(),
                    request: request.text.clone(),
                    scenario: place.scenario.clone(),
                    persona: person.persona.clone(),
                    soft: Arc::clone(&soft),
                };
                let id = format!("s{}-p{}-{number}", person.scenario, person.number);
                items.push((fixed(self.seed, &id), Sourced { id, row: Ok(item) }));
            }
        }
        items.sort_by(|a, b| (a.0, &a.1.id).cmp(&(b.0, &b.1.id)));
        items.into_iter().map(|(_, item)| item).collect()
    }

    /// Continues the lists until each has its target, or has had its calls.
    fn fill<E>(
        &mut self,
        step: Step,
        mut lists: Vec<List>,
        put: &mut Put<'_, E>,
    ) -> Result<Vec<List>, E> {
        let calls = self.calls_of(step);
        let sizes = self.growth.get(&step);
        let mut size = sizes.and_then(|sizes| sizes.last()).copied().unwrap_or(0);
        loop {
            let mut owners = Vec::new();
            for (place, list) in lists.iter_mut().enumerate() {
                for _ in 0..list.calls_now(calls) {
                    let row = self.next_call(step, list, calls.entries);
                    self.asked.entry(step).or_default().push(row);
                    owners.push(place);
                }
            }
            if owners.is_empty() {
                return Ok(lists);
            }
            let rows = self.asked.get(&step).map_or(&[][..], Vec::as_slice);
            let outcomes = put(step, rows)?;
            let new = outcomes.into_iter().skip(rows.len() - owners.len());
            for (outcome, place) in new.zip(owners) {
                let List {
                    added,
                    target,
                    seen,
                    ..
                } = &mut lists[place];
                let seen = self.seen.get_mut(&step).unwrap_or(seen);
                for entry in Entry::of(&outcome) {
                    if added.len() < *target && seen.is_new(&entry.text) {
                        added.push(entry);
                        size += 1;
                    }
                }
                self.growth.entry(step).or_default().push(size);
            }
        }
    }

    fn calls_of(&self, step: Step) -> Calls {
        let settings = &self.settings;
        Calls {
            entries: match step {
                Step::Domains => settings.domains_per_call,
                _ => settings.per_call,
            },
            more: settings.more_calls,
            at_once: match step {
                // Nothing is gained by waiting for what is not told.
                _ if settings.shown == 0 => usize::MAX,
                Step::Domains => CALLS_AT_ONCE,
                _ => 1,
            },
        }
    }

    /// The next call for a list: how many entries, and what it is told of.
    fn next_call(&self, step: Step, list: &mut List, most: usize) -> Sourced<Ask> {
        let id = format!("{}-{}-{}", list.owner, self.epochs, list.calls);
        list.calls += 1;
        let missing = list.target - list.added.len();
        let added = list.added.iter().map(|entry| &entry.text);
        let known: Vec<&String> = list.known.iter().chain(added).collect();
        let seed = fixed(self.seed, &format!("{} {id}", step.name()));
        let known = some_of(&known, self.settings.shown, seed);
        let ask = Ask {
            step,
            about: list.about.clone(),
            count: missing.min(most),
            known,
        };
        Sourced { id, row: Ok(ask) }
    }

    /// How varied each pool is, and how it grew.
    pub fn diversity(&self) -> BTreeMap<&'static str, Diversity> {
        let growth = |step: Step| self.growth.get(&step).cloned().unwrap_or_default();
        let scenarios: Vec<String> = self
            .scenarios
            .iter()
            .map(|one| one.scenario.shown_with_persona())
            .collect();
        let mut found = BTreeMap::new();
        let mut tell = |step: Step, texts: Vec<&str>| {
            if !texts.is_empty() {
                found.insert(step.name(), Diversity::of(texts, growth(step)));
            }
        };
        tell(Step::Domains, all(&self.domains));
        let requests = self.requests.iter().map(|one| one.text.as_str());
        tell(Step::Requests, requests.collect());
        tell(Step::Scenarios, all(&scenarios));
        tell(Step::Personas, all(&self.personas));
        let soft = self.soft.iter().map(|one| one.constraint.as_str());
        tell(Step::Constraints, soft.collect());
        found
    }
}

fn all(texts: &[String]) -> Vec<&str> {
    texts.iter().map(String::as_str).collect()
}

fn read<T: DeserializeOwned>(value: Value) -> Option<T> {
    serde_json::from_value(value).ok()
}

/// At most so many of a list, in its order, chosen by the seed.
fn some_of(list: &[&String], most: usize, seed: u64) -> Vec<String> {
    let mut draws = Draws::new(seed);
    let mut places: Vec<usize> = (0..list.len()).collect();
    while places.len() > most {
        places.swap_remove(below(&mut || draws.bits(), places.len()));
    }
    places.sort_unstable();
    places
        .into_iter()
        .map(|place| list[place].clone())
        .collect()
}

/// A number that depends on the seed and the text alone.
fn fixed(seed: u64, text: &str) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.update(text.as_bytes());
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(bytes)
}

/// Texts that came before.
#[derive(Debug)]
struct Seen {
    exact: BTreeSet<Vec<String>>,
    near: Option<NearDuplicates>,
}

impl Seen {
    /// Equal texts come before, and, with a threshold, texts that are like each other.
    fn new(threshold: f64) -> Self {
        Self {
            exact: BTreeSet::new(),
            near: (threshold > 0.0).then(|| NearDuplicates::new(threshold)),
        }
    }

    /// Whether nothing like it came before; it is remembered.
    fn is_new(&mut self, text: &str) -> bool {
        if !self.exact.insert(words(text)) {
            return false;
        }
        let near = self.near.as_mut();
        near.is_none_or(|near| near.check("", text).is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_of_a_list_keep_their_order() {
        let texts: Vec<String> = (0..20).map(|n| format!("t{n:02}")).collect();
        let list: Vec<&String> = texts.iter().collect();
        let some = some_of(&list, 5, 3);
        assert_eq!(some.len(), 5);
        assert!(some.is_sorted());
        assert_eq!(some, some_of(&list, 5, 3));
        assert_ne!(some, some_of(&list, 5, 4));
        assert_eq!(some_of(&list, 50, 1), texts);
        assert!(some_of(&list, 0, 1).is_empty());
    }

    #[test]
    fn what_came_before_is_known_by_its_words() {
        let mut seen = Seen::new(0.8);
        assert!(seen.is_new("Home repair"));
        assert!(!seen.is_new("home  REPAIR!"));
        assert!(seen.is_new("repair home"));
        let long = "write a short letter to the mayor about the lamps in the old park at night";
        assert!(seen.is_new(long));
        assert!(!seen.is_new(&format!("{long} now")));
        assert!(Seen::new(0.0).is_new(long));
    }
}
