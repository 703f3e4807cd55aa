//! Answers: written as wished, then put to the checkers. What they do not confirm is written
//! again.

use crate::ask::{Ask, AskKind};
use crate::dice::Dice;
use crate::soft::Soft;
use crate::task::{Errand, Task};
use crate::wish::{Case, Commas, Json, Numbered, Parts, Prefer, Quotes, Title, Two, Wish};
use crate::world::{Naming, TOPICS, Time, WORD_SENTENCES, capitalised, conjugate};
use verify::compose::Kind;

/// An answer with what is known of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    pub(crate) text: String,
    /// The soft values that it was written with.
    pub(crate) voice: Vec<Soft>,
}

/// How often an answer is written before the request is given up.
const ATTEMPTS: usize = 24;

/// An answer that meets every constraint but those of `broken`, and breaks these, by the
/// checkers' verdicts; `None` if none was found.
pub(crate) fn answer(
    errand: &Errand,
    asks: &[Ask],
    broken: &[bool],
    dice: &mut Dice,
) -> Option<Answer> {
    (0..ATTEMPTS).find_map(|_| {
        let wish = Wish::draw(asks, broken, dice);
        let text = write(errand, &wish, dice);
        let voice = wish.voice;
        confirmed(asks, broken, &text, &voice).then_some(Answer { text, voice })
    })
}

/// A wrong answer and the right one: both written from the same draws, so that they differ in
/// what `broken` makes them differ in and in little else. The right one meets every constraint.
pub(crate) fn correction(
    errand: &Errand,
    asks: &[Ask],
    broken: &[bool],
    dice: &mut Dice,
) -> Option<(Answer, Answer)> {
    // What is met in both is wished first: it is drawn alike.
    let mut order: Vec<usize> = (0..asks.len()).collect();
    order.sort_by_key(|index| broken[*index]);
    let asks: Vec<Ask> = order.iter().map(|index| asks[*index].clone()).collect();
    let broken: Vec<bool> = order.iter().map(|index| broken[*index]).collect();
    let whole = vec![false; asks.len()];
    (0..ATTEMPTS).find_map(|_| {
        let (wishes, words) = (dice.fork(), dice.fork());
        let written = |broken: &[bool]| {
            let wish = Wish::draw(&asks, broken, &mut wishes.clone());
            let text = write(errand, &wish, &mut words.clone());
            let voice = wish.voice;
            confirmed(&asks, broken, &text, &voice).then_some(Answer { text, voice })
        };
        Some((written(&broken)?, written(&whole)?))
    })
}

fn confirmed(asks: &[Ask], broken: &[bool], text: &str, voice: &[Soft]) -> bool {
    let pairs = || asks.iter().zip(broken);
    // Telling the language is slow: last.
    let slow = |ask: &Ask| {
        matches!(
            ask.kind(),
            AskKind::Rule(Kind::EnglishCapital | Kind::EnglishLowercase)
        )
    };
    let as_wished = |(ask, broken): (&Ask, &bool)| match ask.kind() {
        // Broken by its letters, not because the language was not recognised.
        AskKind::Rule(Kind::EnglishCapital) if *broken => text.contains(char::is_lowercase),
        AskKind::Rule(Kind::EnglishLowercase) if *broken => text.contains(char::is_uppercase),
        _ => ask.holds(text, voice) != *broken,
    };
    pairs().filter(|(ask, _)| !slow(ask)).all(as_wished)
        && pairs().filter(|(ask, _)| slow(ask)).all(as_wished)
}

/// Writes one answer. Whether it came out as wished is not checked here.
fn write(errand: &Errand, wish: &Wish, dice: &mut Dice) -> String {
    let mut text = match wish.two {
        Two::None => body(errand, wish, dice),
        Two::Same => {
            let one = body(errand, wish, dice);
            format!("{one}\n******\n{one}")
        }
        Two::Different | Two::OtherDivider => {
            let divider = if wish.two == Two::Different {
                "******"
            } else {
                "---"
            };
            let (one, other) = (body(errand, wish, dice), body(errand, wish, dice));
            format!("{one}\n{divider}\n{other}")
        }
    };
    if wish.json != Json::None {
        text = as_json(&text, wish.json);
    }
    let topic = TOPICS[errand.topic];
    let title = match wish.title {
        Title::None => None,
        Title::Double => Some(format!("<<The {topic}>>")),
        Title::Single => Some(format!("<The {topic}>")),
        Title::Bare => Some(format!("The {topic}")),
    };
    if let Some(title) = title {
        text = format!("{title}\n{text}");
    }
    if let Some(mark) = wish.postscript {
        text += &format!("\n{mark}{}", extra_sentence(dice));
    }
    if let Some(end) = &wish.end {
        text += &format!("\n{end}");
    }
    finish(&text, wish, dice)
}

fn as_json(text: &str, json: Json) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    match json {
        Json::Unclosed => format!("{{\"answer\": {quoted}"),
        Json::KeyOnly => format!("answer: {text}"),
        _ => format!("{{\"answer\": {quoted}}}"),
    }
}

/// Commas, letters and quotes of the whole text.
fn finish(text: &str, wish: &Wish, dice: &mut Dice) -> String {
    let mut text = text.to_owned();
    if wish.commas != Commas::AsIs {
        text = text.replace(',', "");
    }
    if wish.commas == Commas::One {
        let spaces: Vec<usize> = text.match_indices(' ').map(|(at, _)| at).collect();
        if !spaces.is_empty() {
            let at = dice.pick(&spaces);
            if text[..at].ends_with(char::is_alphanumeric) {
                text.insert(at, ',');
            }
        }
    }
    let text = cased(&text, wish.case, dice);
    match wish.quotes {
        Quotes::None => text,
        Quotes::Both => format!("\"{text}\""),
        Quotes::Opening => format!("\"{text}"),
        Quotes::Closing => format!("{text}\""),
    }
}

fn cased(text: &str, case: Case, dice: &mut Dice) -> String {
    let upper = text.to_uppercase();
    let lower = text.to_lowercase();
    match case {
        Case::AsIs => text.to_owned(),
        Case::Upper => upper,
        Case::Lower => lower,
        Case::UpperButOne => one_word(&upper, str::to_lowercase, dice),
        Case::LowerButOne => one_word(
            &lower,
            if dice.chance(0.5) {
                capitalised
            } else {
                str::to_uppercase
            },
            dice,
        ),
        Case::UpperFirst => {
            let end = text.find(['.', '!', '?']).unwrap_or(0);
            format!("{}{}", text[..end].to_uppercase(), &text[end..])
        }
    }
}

/// Changes one of the words, those of letters only.
fn one_word(text: &str, change: impl Fn(&str) -> String, dice: &mut Dice) -> String {
    let words: Vec<&str> = text.split(' ').collect();
    let plain: Vec<usize> = (0..words.len()).filter(|i| is_plain(words[*i])).collect();
    if plain.is_empty() {
        return text.to_owned();
    }
    let chosen = dice.pick(&plain);
    let changed = words.iter().enumerate();
    let changed: Vec<String> = changed
        .map(|(i, word)| {
            if i == chosen {
                change(word)
            } else {
                (*word).to_owned()
            }
        })
        .collect();
    changed.join(" ")
}

fn is_plain(word: &str) -> bool {
    word.len() > 2 && word.chars().all(char::is_alphabetic)
}

/// The text without what is put around it.
fn body(errand: &Errand, wish: &Wish, dice: &mut Dice) -> String {
    let (openers, closers) = marks(wish, dice);
    let mut sentences = sentences(errand, wish, openers.len() + closers.len(), dice);
    let mut extras = extras(wish, dice);
    if let Some(bullets) = wish.bullets {
        sentences.truncate(bullets);
        let text = lines(&openers, bulleted(&sentences), &[extras, closers].concat());
        return decorated(&text, wish, dice);
    }
    match errand.task {
        Task::Steps => {
            let numbered = sentences
                .iter()
                .enumerate()
                .map(|(i, step)| format!("{}. {step}", i + 1))
                .collect();
            let text = lines(&openers, numbered, &[extras, closers].concat());
            return decorated(&text, wish, dice);
        }
        Task::List => {
            let text = lines(&openers, bulleted(&sentences), &[extras, closers].concat());
            return decorated(&text, wish, dice);
        }
        _ => {}
    }
    // The first sentence names the topic and stays first.
    for extra in extras.drain(..) {
        let place = dice.between(1.min(sentences.len()), sentences.len());
        sentences.insert(place, extra);
    }
    sentences.splice(0..0, openers);
    sentences.extend(closers);
    let text = decorated(&parts(&sentences, &wish.parts), wish, dice);
    match errand.task {
        Task::Note => format!("Note to {}:\n{text}", errand.person),
        Task::Letter => format!("Dear {},\n{text}\nYours, {}", errand.person, errand.sender),
        Task::Poem => text.replace(". ", ",\n"),
        _ => text,
    }
}

fn bulleted(sentences: &[String]) -> Vec<String> {
    sentences
        .iter()
        .map(|sentence| format!("- {sentence}"))
        .collect()
}

/// Openers on a line, the lines, and the rest on a line.
fn lines(openers: &[String], mut inner: Vec<String>, rest: &[String]) -> String {
    if !openers.is_empty() {
        inner.insert(0, openers.join(" "));
    }
    if !rest.is_empty() {
        inner.push(rest.join(" "));
    }
    inner.join("\n")
}

/// Sentences that carry the soft values: one opener each, sometimes a closer too.
fn marks(wish: &Wish, dice: &mut Dice) -> (Vec<String>, Vec<String>) {
    let (mut openers, mut closers) = (Vec::new(), Vec::new());
    for soft in &wish.voice {
        let value = soft.value();
        if value.openers.is_empty() {
            continue;
        }
        let side = dice.below(4);
        if side != 3 {
            openers.push(dice.pick(value.openers).to_owned());
        }
        if side > 1 {
            closers.push(dice.pick(value.closers).to_owned());
        }
    }
    (openers, closers)
}

/// Sentences about the errand, as many as the wish leaves room for beside `others`.
fn sentences(errand: &Errand, wish: &Wish, others: usize, dice: &mut Dice) -> Vec<String> {
    let time = time_of(&wish.voice);
    // Where sentences are left out or sorted, each has to name the topic.
    let keeps_order = wish.letter.is_none() && wish.avoid.is_empty() && wish.seek.is_empty();
    let later = if keeps_order {
        Naming::Pronoun
    } else {
        Naming::Name
    };
    let mut told = errand.sentences(time, later, dice);
    let avoided = |sentence: &String| {
        let lower = sentence.to_lowercase();
        wish.avoid.iter().any(|word| lower.contains(word.as_str()))
    };
    told.retain(|sentence| !avoided(sentence));
    told.sort_by_key(|sentence| {
        !wish
            .seek
            .iter()
            .any(|word| sentence.contains(word.as_str()))
    });
    if let Some((letter, prefer)) = wish.letter {
        let count = |sentence: &String| {
            sentence
                .to_lowercase()
                .matches(letter.to_ascii_lowercase())
                .count()
        };
        told.sort_by_key(count);
        if prefer == Prefer::Many {
            told.reverse();
        }
    }
    let others = others + wish.words.len() + wish.placeholders + wish.round_placeholders;
    let wanted = match (wish.sentences, wish.length) {
        (Some(sentences), _) => sentences.saturating_sub(others),
        // A sentence has some six words.
        (None, Some(words)) => (words / 6).saturating_sub(others),
        (None, None) => match errand.task {
            Task::Poem | Task::List | Task::Steps => dice.between(3, 4),
            Task::Summarise | Task::Answer => dice.between(1, 2),
            _ => dice.between(2, 3),
        },
    };
    let least = match (&wish.parts, wish.bullets) {
        (Parts::Divided(n, _) | Parts::Opened(n, _) | Parts::Headed(n, ..), _) => *n,
        (Parts::One, Some(n)) => n,
        (Parts::One, None) => 1,
    };
    told.truncate(wanted.max(least));
    told
}

/// When the verbs say that it happens.
fn time_of(voice: &[Soft]) -> Time {
    let named = |name: &str| voice.iter().any(|soft| soft.name() == name);
    if named("the past tense") {
        Time::Past
    } else if named("the future tense") {
        Time::Future
    } else {
        Time::Present
    }
}

/// Sentences for words and placeholders that have to occur.
fn extras(wish: &Wish, dice: &mut Dice) -> Vec<String> {
    let time = time_of(&wish.voice);
    let mut templates = WORD_SENTENCES.to_vec();
    dice.shuffle(&mut templates);
    let cycle = templates.iter().cycle();
    let mut extras: Vec<String> = wish
        .words
        .iter()
        .zip(cycle)
        .map(|(word, template)| conjugate(template, time).replace("{w}", word))
        .collect();
    let mut places = PLACES.to_vec();
    dice.shuffle(&mut places);
    extras.extend(
        places
            .iter()
            .take(wish.placeholders)
            .map(|place| (*place).to_owned()),
    );
    let round = places
        .iter()
        .skip(wish.placeholders)
        .take(wish.round_placeholders);
    extras.extend(round.map(|place| place.replace('[', "(").replace(']', ")")));
    extras
}

/// Sentences with a place to be filled.
const PLACES: [&str; 6] = [
    "Ask [name] for more.",
    "Come to [place] and look.",
    "Bring [number] coins.",
    "Call [phone] at any hour.",
    "Meet us on [date].",
    "Look for [item] nearby.",
];

/// A sentence for after the text.
fn extra_sentence(dice: &mut Dice) -> &'static str {
    dice.pick(&[
        "Bring a friend.",
        "More to follow soon.",
        "Greetings from the town.",
        "Mind the weather.",
        "Keep this safe.",
    ])
}

/// The sentences in their parts.
fn parts(sentences: &[String], parts: &Parts) -> String {
    let groups = |n: usize| -> Vec<String> {
        let n = n.clamp(1, sentences.len().max(1));
        let cut = |i: usize| i * sentences.len() / n;
        (0..n)
            .map(|i| sentences[cut(i)..cut(i + 1)].join(" "))
            .collect()
    };
    match parts {
        Parts::One => sentences.join(" "),
        Parts::Divided(n, divider) => groups(*n).join(divider),
        Parts::Opened(n, words) => {
            let mut groups = groups(*n);
            for (place, word) in words {
                if let Some(group) = groups.get_mut(*place) {
                    *group = format!("{word}, {}", uncapitalised(group));
                }
            }
            groups.join("\n\n")
        }
        Parts::Headed(n, word, numbered) => {
            let groups = groups(*n);
            let head = |(i, group): (usize, &String)| match numbered {
                Numbered::Yes => format!("{word} {}\n{group}", i + 1),
                Numbered::No => format!("{word}\n{group}"),
            };
            groups
                .iter()
                .enumerate()
                .map(head)
                .collect::<Vec<_>>()
                .join("\n")
        }
    }
}

/// The text with a small first letter, unless it starts with the word "I" or a short name.
fn uncapitalised(text: &str) -> String {
    let mut chars = text.chars();
    let first: String = chars
        .next()
        .into_iter()
        .flat_map(char::to_lowercase)
        .collect();
    first + chars.as_str()
}

/// Highlights and capitals on some of the plain words.
fn decorated(text: &str, wish: &Wish, dice: &mut Dice) -> String {
    let marks = wish.highlights + wish.capitals;
    if marks == 0 {
        return text.to_owned();
    }
    let mut words: Vec<String> = text.split(' ').map(str::to_owned).collect();
    // Short words are seldom worth a mark.
    let mut plain: Vec<usize> = (0..words.len())
        .filter(|i| is_plain(&words[*i]) && words[*i].len() > 3)
        .collect();
    dice.shuffle(&mut plain);
    for (turn, place) in plain.into_iter().take(marks).enumerate() {
        let word = &mut words[place];
        *word = if turn < wish.highlights {
            format!("*{word}*")
        } else {
            word.to_uppercase()
        };
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mix::Mix;
    use crate::scene::{Must, Source};
    use crate::split::Split;
    use std::collections::BTreeMap;
    use verify::compose::{conflict, types_exclude};
    use verify::{Constraint, strict};

    /// Found and sought answers of one kind: met, broken.
    #[derive(Default)]
    struct Tally {
        met: (usize, usize),
        broken: (usize, usize),
    }

    fn check_rules(asks: &[Ask], broken: Option<usize>, text: &str) {
        for (index, ask) in asks.iter().enumerate() {
            let Some(rule) = ask.rule() else { continue };
            let followed = strict(std::slice::from_ref(rule), text)[0].followed;
            assert_eq!(followed, broken != Some(index), "{rule:?}\n{text}");
        }
    }

    fn check_pairs(asks: &[Ask]) {
        let rules: Vec<Constraint> = asks.iter().filter_map(Ask::rule).cloned().collect();
        assert_eq!(conflict(&rules), None);
        for (index, a) in rules.iter().enumerate() {
            for b in &rules[index + 1..] {
                assert!(!types_exclude(Kind::of(a), Kind::of(b)));
            }
        }
    }

    fn draws(count: usize) {
        let mix = Mix::default();
        let source = Source {
            mix: &mix,
            split: Split::Train,
        };
        let mut tallies: BTreeMap<AskKind, Tally> = BTreeMap::new();
        let kinds = AskKind::all();
        for number in 0..count {
            let mut dice = Dice::new(77, number as u64);
            let kind = kinds[number % kinds.len()];
            let asked = 1 + number % 3;
            let scene = source.scene(asked, Must::Kind(kind), &mut dice).unwrap();
            let place = scene
                .asks
                .iter()
                .position(|ask| ask.kind() == kind)
                .unwrap();
            check_pairs(&scene.asks);
            let tally = tallies.entry(kind).or_default();
            tally.met.1 += 1;
            if let Some(met) = answer(&scene.errand, &scene.asks, &vec![false; asked], &mut dice) {
                check_rules(&scene.asks, None, &met.text);
                tally.met.0 += 1;
            }
            let mut broken = vec![false; asked];
            broken[place] = true;
            tally.broken.1 += 1;
            if let Some(spoilt) = answer(&scene.errand, &scene.asks, &broken, &mut dice) {
                check_rules(&scene.asks, Some(place), &spoilt.text);
                let soft = scene.asks[place].rule().is_none();
                assert!(!soft || !scene.asks[place].holds(&spoilt.text, &spoilt.voice));
                tally.broken.0 += 1;
            }
        }
        for (kind, tally) in &tallies {
            let share = |(found, sought): (usize, usize)| found as f64 / sought as f64;
            let (met, broken) = (share(tally.met), share(tally.broken));
            println!("{:50} met {met:.2} broken {broken:.2}", kind.name());
            assert!(met > 0.6 && broken > 0.4, "{}: {met} {broken}", kind.name());
        }
        assert_eq!(tallies.len(), kinds.len());
    }

    #[test]
    fn answers_are_what_the_checkers_say() {
        draws(580);
    }

    #[test]
    #[ignore = "20,000 draws, for release builds"]
    fn answers_are_what_the_checkers_say_at_length() {
        draws(20_000);
    }
}
