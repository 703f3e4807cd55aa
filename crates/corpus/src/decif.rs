//! The roles of DecIF: what there is to ask for, who asks, constraints for it, the request
//! itself, whether it contradicts itself, and what its answer is judged by.

use crate::CorpusError;
use crate::ask::{Ask, AskKind};
use crate::dice::Dice;
use crate::document::{Corpus, Document, document, responded};
use crate::mix::Role;
use crate::scene::{Must, Scene, Source};
use crate::soft::Dimension;
use crate::task::{Errand, Task};
use crate::world::TOPICS;
use data::Message;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use verify::compose::{conflict, describe, mentions_parameters};

/// Steps of the recipe and how often each is a document.
const STEPS: [(&str, f64); 10] = [
    ("domains", 1.0),
    ("requests", 1.5),
    ("scenarios", 1.5),
    ("personas", 0.5),
    ("constraints", 1.5),
    ("instruction", 4.0),
    ("conflict", 3.0),
    ("resolve", 1.5),
    ("criteria", 3.0),
    ("respond", 2.0),
];

/// Share of requests to examine that contradict themselves.
const CONFLICTS: f64 = 0.45;
/// Pairs of constraints drawn for one that cannot be met.
const REDRAWS: usize = 400;

const PERSONAS: [&str; 16] = [
    "a baker",
    "a young miller",
    "a doctor",
    "the mayor",
    "a piper",
    "an old weaver",
    "a sailor",
    "a smith",
    "a new cook",
    "a postman",
    "a tailor",
    "a teacher",
    "a school boy",
    "a painter",
    "a farmer",
    "a shepherd",
];
const TIMES: [&str; 12] = [
    "at dawn",
    "at noon",
    "at dusk",
    "after dark",
    "before supper",
    "on Sunday",
    "this morning",
    "late at night",
    "in early spring",
    "on a rainy day",
    "after lunch",
    "on market day",
];
const PLACES: [&str; 14] = [
    "near the old gate",
    "under the hill",
    "by the river",
    "behind the school",
    "at the edge of town",
    "in the valley",
    "on the north road",
    "close to the sea",
    "beside the church",
    "across the field",
    "along the wall",
    "in the kitchen",
    "in the library",
    "at the town hall",
];
const TRIGGERS: [&str; 16] = [
    "a guest is coming",
    "the school has asked for it",
    "the market opens soon",
    "a child has a question",
    "a letter has come",
    "the paper needs a text",
    "a friend has a birthday",
    "the mayor wants to know",
    "there is a bet to win",
    "the old sign has fallen",
    "a story is missing",
    "nobody remembers it",
    "a fair is planned",
    "the clock has stopped",
    "a neighbour has laughed",
    "it has begun to rain",
];

/// Who asks, when, where and why.
struct Setting {
    persona: &'static str,
    time: &'static str,
    place: &'static str,
    trigger: &'static str,
}

impl Setting {
    fn draw(dice: &mut Dice) -> Self {
        Self {
            persona: dice.pick(&PERSONAS),
            time: dice.pick(&TIMES),
            place: dice.pick(&PLACES),
            trigger: dice.pick(&TRIGGERS),
        }
    }

    /// As the recipe shows a situation without its person.
    fn shown(&self) -> String {
        format!("{}, {}: {}", self.time, self.place, self.trigger)
    }

    fn shown_with_persona(&self) -> String {
        format!("{}, {}", self.persona, self.shown())
    }

    fn as_json(&self) -> Value {
        json!({
            "persona": self.persona, "time": self.time, "place": self.place,
            "trigger": self.trigger,
        })
    }

    /// The beginning of a request.
    fn sentence(&self, dice: &mut Dice) -> String {
        let Self {
            persona,
            time,
            place,
            trigger,
        } = self;
        let text = match dice.below(3) {
            0 => format!("I am {persona} {place} and {time} {trigger}."),
            1 => format!("{time} {place} {trigger} and I am {persona}."),
            _ => format!("As {persona} I am {place} {time} because {trigger}."),
        };
        crate::world::capitalised(&text)
    }
}

/// Names of the kinds of soft constraints, as the recipe asks for them.
fn kind_name(dimension: Dimension) -> &'static str {
    match dimension {
        Dimension::Tone => "tone",
        Dimension::Audience => "audience",
        Dimension::Persona => "role",
        Dimension::PointOfView => "point of view",
        Dimension::Tense => "tense",
        Dimension::Politeness => "politeness",
        Dimension::Register => "formality",
    }
}

impl Corpus {
    /// A document of one of the steps.
    pub(crate) fn decif(
        &self,
        source: Source<'_>,
        dice: &mut Dice,
    ) -> Result<Option<Document>, CorpusError> {
        let (step, _) = STEPS[dice.weighted(STEPS.iter().map(|(_, weight)| *weight))];
        let made = match step {
            "domains" => domains(dice),
            "requests" => requests(source, dice),
            "scenarios" => scenarios(source, dice),
            "personas" => personas(source, dice),
            "constraints" => constraints(source, dice),
            "instruction" => instruction(source, dice),
            "conflict" => examined(source, dice),
            "resolve" => resolved(source, dice),
            "criteria" => criteria(source, dice),
            _ => answered(source, dice),
        };
        let Some((variables, answer)) = made else {
            return Ok(None);
        };
        let mut messages = self.render_of("decif", step, &variables)?;
        messages.push(Message::new("assistant", answer));
        Ok(Some(document(messages, Role::Decif, step)))
    }
}

/// Variables of a prompt and its answer.
type Turn = Option<(Value, String)>;

/// Splits a list into what is known and what is to be said next, one or more.
fn known_and_new(
    list: &[String],
    (known, new): (usize, usize),
    dice: &mut Dice,
) -> [Vec<String>; 2] {
    let new = dice.between(1, new).min(list.len());
    let known = dice.between(0, known).min(list.len() - new);
    [list[new..new + known].to_vec(), list[..new].to_vec()]
}

fn domains(dice: &mut Dice) -> Turn {
    let mut list: Vec<String> = TOPICS.iter().map(|topic| (*topic).to_owned()).collect();
    dice.shuffle(&mut list);
    let [known, new] = known_and_new(&list, (12, 4), dice);
    Some((
        json!({"count": new.len(), "known": known}),
        json!({"domains": new}).to_string(),
    ))
}

/// An errand that needs no text to work on.
fn errand(topic: usize, source: Source<'_>, dice: &mut Dice) -> Errand {
    let tasks = Task::ALL.map(|task| (task, needs_text(task)));
    let free: Vec<Task> = tasks.iter().filter(|one| !one.1).map(|one| one.0).collect();
    Errand::draw(dice.pick(&free), topic, source.split.wording(), dice)
}

fn needs_text(task: Task) -> bool {
    matches!(task, Task::Summarise | Task::Answer)
}

/// The errand as a request in a few words.
fn request_of(errand: &Errand) -> String {
    let text = errand.text.as_str();
    text.strip_suffix('.').unwrap_or(text).to_owned()
}

fn requests(source: Source<'_>, dice: &mut Dice) -> Turn {
    let topic = dice.below(TOPICS.len());
    let drawn: Vec<String> = (0..12)
        .map(|_| request_of(&errand(topic, source, dice)))
        .collect();
    let mut seen = BTreeSet::new();
    let list: Vec<String> = drawn
        .into_iter()
        .filter(|one| seen.insert(one.clone()))
        .collect();
    let [known, new] = known_and_new(&list, (4, 3), dice);
    Some((
        json!({"domain": TOPICS[topic], "count": new.len(), "known": known}),
        json!({"requests": new}).to_string(),
    ))
}

fn scenarios(source: Source<'_>, dice: &mut Dice) -> Turn {
    let topic = dice.below(TOPICS.len());
    let request = request_of(&errand(topic, source, dice));
    let new: Vec<Value> = (0..dice.between(1, 3))
        .map(|_| Setting::draw(dice).as_json())
        .collect();
    let known: Vec<String> = (0..dice.between(0, 2))
        .map(|_| Setting::draw(dice).shown_with_persona())
        .collect();
    Some((
        json!({"domain": TOPICS[topic], "request": request, "count": new.len(), "known": known}),
        json!({"scenarios": new}).to_string(),
    ))
}

fn personas(source: Source<'_>, dice: &mut Dice) -> Turn {
    let request = request_of(&errand(dice.below(TOPICS.len()), source, dice));
    let mut list: Vec<&str> = PERSONAS.to_vec();
    dice.shuffle(&mut list);
    list.truncate(dice.between(1, 4));
    Some((
        json!({
            "scenario": Setting::draw(dice).shown(), "request": request, "count": list.len(),
        }),
        json!({"personas": list}).to_string(),
    ))
}

/// Soft constraints of one dimension, in the words of training.
fn constraints(source: Source<'_>, dice: &mut Dice) -> Turn {
    let dimension = dice.pick(&Dimension::ALL);
    let kind = AskKind::Soft(dimension);
    let drawn: Vec<[String; 2]> = (0..12)
        .map(|_| {
            let ask = source.ask(kind, 0, dice);
            [source.demand(&ask, dice), source.question(&ask, dice)]
        })
        .collect();
    let mut seen = BTreeSet::new();
    let list: Vec<[String; 2]> = drawn
        .into_iter()
        .filter(|[demand, _]| seen.insert(demand.clone()))
        .collect();
    let new = dice.between(1, 3).min(list.len());
    let known = dice.between(0, 3).min(list.len() - new);
    let known: Vec<&String> = list[new..new + known].iter().map(|[one, _]| one).collect();
    let new: Vec<Value> = list[..new]
        .iter()
        .map(|[demand, question]| json!({"constraint": demand, "question": question}))
        .collect();
    Some((
        json!({"kind": kind_name(dimension), "count": new.len(), "known": known}),
        json!({"constraints": new}).to_string(),
    ))
}

/// A request with one to three constraints that needs no text to work on.
fn scene(source: Source<'_>, dice: &mut Dice) -> Option<Scene> {
    let count = dice.between(1, 3);
    let scene = source.scene(count, Must::Any, dice)?;
    (!needs_text(scene.errand.task)).then_some(scene)
}

/// The meta-request, who asks, and the constraints as the checkers describe them: in the
/// instruction they stand in the words that answers are trained on.
fn instruction(source: Source<'_>, dice: &mut Dice) -> Turn {
    let (scene, setting) = (scene(source, dice)?, Setting::draw(dice));
    // The recipe looks for the parameters in this way.
    let carried = |(ask, demand): (&Ask, &String)| {
        let rule = ask.rule();
        rule.is_none_or(|rule| mentions_parameters(rule, demand).is_ok())
    };
    if !scene.asks.iter().zip(&scene.demands).all(carried) {
        return None;
    }
    let said = |(ask, demand): (&Ask, &String)| match ask {
        Ask::Rule(rule) => describe(rule, dice.bits()),
        Ask::Soft(_) => demand.clone(),
    };
    let constraints: Vec<String> = scene.asks.iter().zip(&scene.demands).map(said).collect();
    Some((
        json!({
            "request": request_of(&scene.errand), "persona": setting.persona,
            "scenario": setting.shown(), "constraints": constraints,
        }),
        json!({"instruction": whole(&setting, &scene.whole_query(), dice)}).to_string(),
    ))
}

/// A request with the situation before it; now and then without.
fn whole(setting: &Setting, query: &str, dice: &mut Dice) -> String {
    format!("{} {query}", setting.sentence(dice))
}

/// A request that cannot be met, with the two demands that exclude each other, and the same
/// request without the second of them.
struct Contradiction {
    query: String,
    problem: String,
    repaired: String,
}

fn contradiction(source: Source<'_>, dice: &mut Dice) -> Option<Contradiction> {
    let mut scene = scene(source, dice)?;
    scene.asks.truncate(2);
    scene.demands.truncate(2);
    let place = dice.below(scene.asks.len());
    let first = scene.asks[place].clone();
    let second = (0..REDRAWS).find_map(|_| {
        // Half of them are of the same kind, with other parameters.
        let kind = match dice.chance(0.5) {
            true => first.kind(),
            false => source.mix.kind(dice),
        };
        let other = source.ask(kind, scene.errand.topic, dice);
        let kinds = [first.kind(), other.kind()];
        let trained = source.split.admits(&scene.errand.topics(), &kinds);
        (trained && exclude(&first, &other)).then_some(other)
    })?;
    let repaired = scene.whole_query();
    let demand = source.demand(&second, dice);
    let problem = excluding(&scene.demands[place], &demand);
    let at = dice.between(place + 1, scene.demands.len());
    scene.demands.insert(at, demand);
    Some(Contradiction {
        query: scene.whole_query(),
        problem,
        repaired,
    })
}

/// As the recipe words it.
fn excluding(first: &str, second: &str) -> String {
    format!("These exclude each other: {first} {second}")
}

/// Whether no answer can meet both.
fn exclude(a: &Ask, b: &Ask) -> bool {
    match (a, b) {
        (Ask::Rule(a), Ask::Rule(b)) => {
            let same_text = a == b;
            !same_text && conflict(&[a.clone(), b.clone()]).is_some() && !same_bound(a, b)
        }
        (Ask::Soft(a), Ask::Soft(b)) => a.dimension == b.dimension && a.index != b.index,
        _ => false,
    }
}

/// Two of one kind are forbidden by the table of types, whatever they say; at least three and
/// at least four go together all the same.
fn same_bound(a: &verify::Constraint, b: &verify::Constraint) -> bool {
    use verify::Constraint as C;
    use verify::Relation::{AtLeast, LessThan};
    let both = |a: (verify::Relation, usize), b: (verify::Relation, usize)| match (a.0, b.0) {
        (AtLeast, LessThan) => a.1 < b.1,
        (LessThan, AtLeast) => b.1 < a.1,
        _ => true,
    };
    match (a, b) {
        (
            C::NumberSentences { relation, count },
            C::NumberSentences {
                relation: other,
                count: bound,
            },
        )
        | (
            C::NumberWords { relation, count },
            C::NumberWords {
                relation: other,
                count: bound,
            },
        )
        | (
            C::CapitalWordFrequency { relation, count },
            C::CapitalWordFrequency {
                relation: other,
                count: bound,
            },
        ) => both((*relation, *count), (*other, *bound)),
        (
            C::Frequency {
                keyword,
                relation,
                count,
            },
            C::Frequency {
                keyword: word,
                relation: other,
                count: bound,
            },
        ) => keyword != word || both((*relation, *count), (*other, *bound)),
        (
            C::LetterFrequency {
                letter,
                relation,
                count,
            },
            C::LetterFrequency {
                letter: sign,
                relation: other,
                count: bound,
            },
        ) => letter != sign || both((*relation, *count), (*other, *bound)),
        (C::NumberPlaceholders { .. }, C::NumberPlaceholders { .. })
        | (C::NumberHighlightedSections { .. }, C::NumberHighlightedSections { .. })
        | (C::Existence { .. }, C::Existence { .. })
        | (C::ForbiddenWords { .. }, C::ForbiddenWords { .. })
        | (C::Postscript { .. }, C::Postscript { .. }) => true,
        _ => false,
    }
}

fn examined(source: Source<'_>, dice: &mut Dice) -> Turn {
    let (query, explanation, conflict) = match dice.chance(CONFLICTS) {
        true => {
            let found = contradiction(source, dice)?;
            (found.query, found.problem, "YES")
        }
        false => {
            let query = scene(source, dice)?.whole_query();
            (query, "All demands go together.".to_owned(), "NO")
        }
    };
    let query = whole(&Setting::draw(dice), &query, dice);
    Some((
        json!({"instruction": query}),
        json!({"explanation": explanation, "conflict": conflict}).to_string(),
    ))
}

fn resolved(source: Source<'_>, dice: &mut Dice) -> Turn {
    let found = contradiction(source, dice)?;
    let start = Setting::draw(dice).sentence(dice);
    Some((
        json!({"instruction": format!("{start} {}", found.query), "problem": found.problem}),
        json!({"instruction": format!("{start} {}", found.repaired)}).to_string(),
    ))
}

fn criteria(source: Source<'_>, dice: &mut Dice) -> Turn {
    let scene = scene(source, dice)?;
    let questions: Vec<String> = scene
        .asks
        .iter()
        .map(|ask| source.question(ask, dice))
        .collect();
    let query = whole(&Setting::draw(dice), &scene.whole_query(), dice);
    Some((
        json!({"instruction": query}),
        json!({"criteria": questions}).to_string(),
    ))
}

fn answered(source: Source<'_>, dice: &mut Dice) -> Turn {
    let (scene, answer) = responded(source, dice)?;
    let query = whole(&Setting::draw(dice), &scene.whole_query(), dice);
    Some((json!({"query": query}), answer.text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ask::compatible;
    use crate::mix::Mix;
    use crate::phrases::{fill, phrases, read_demand};
    use crate::split::Split;

    #[test]
    fn demands_in_the_words_of_training_carry_their_parameters() {
        let mut dice = Dice::new(8, 0);
        let mut lost = BTreeSet::new();
        for kind in AskKind::all() {
            for _ in 0..30 {
                let ask = Ask::draw(kind, 0, &|_| true, &mut dice);
                let Some(rule) = ask.rule() else { continue };
                for template in &phrases(kind).demands[..3] {
                    if let Err(missing) = mentions_parameters(rule, &fill(template, &ask)) {
                        lost.insert((*template, missing.parameter));
                    }
                }
            }
        }
        // All others do.
        let expected = [("Do not use any capital letters.", "format")];
        assert_eq!(lost, BTreeSet::from(expected));
    }

    #[test]
    fn contradictions_are_some_and_what_is_repaired_is_none() {
        let mix = Mix::default();
        let source = Source {
            mix: &mix,
            split: Split::Train,
        };
        let (mut found, mut soft, mut same) = (0, 0, 0);
        for number in 0..600 {
            let mut dice = Dice::new(3, number);
            let Some(one) = contradiction(source, &mut dice) else {
                continue;
            };
            found += 1;
            assert_ne!(one.query, one.repaired);
            let (first, second) = pair(&one.problem);
            assert!(exclude(&first, &second) && !compatible(&[first.clone(), second.clone()]));
            soft += usize::from(first.rule().is_none());
            same += usize::from(first.kind() == second.kind());
        }
        assert!(found > 300, "{found}");
        assert!(
            soft * 20 > found && same * 2 > found && same < found,
            "{found} {soft} {same}"
        );
    }

    fn pair(problem: &str) -> (Ask, Ask) {
        let demands = problem.strip_prefix("These exclude each other: ").unwrap();
        let places = demands.match_indices(' ').map(|(place, _)| place);
        let read = |place: usize| {
            let first = read_demand(&demands[..place])?;
            Some((first, read_demand(&demands[place + 1..])?))
        };
        { places }.find_map(read).unwrap()
    }
}
