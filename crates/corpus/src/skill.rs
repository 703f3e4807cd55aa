//! Skills that the roles are made of: repeating exactly, changing letters, counting, finding.

use crate::dice::Dice;
use crate::document::{Document, SINGLE_WORD, document};
use crate::mix::Role;
use crate::phrases::number;
use crate::split::held_out_word;
use crate::world::{
    ATTRIBUTES, NAMES, NOUNS, Naming, TOPICS, Time, capitalised, invented, say, truth,
};
use data::Message;

/// Mark before a text to repeat; with an own line, so that it starts as the answer starts.
const REPEAT: &str = "[repeat]:";

/// One exercise; this share of them repeats something.
pub(crate) fn skill(repetition: f64, dice: &mut Dice) -> Document {
    let (kind, user, assistant) = if dice.chance(repetition) {
        match dice.chance(0.6) {
            true => repeat("repeat", &random_words(dice, 4, 16)),
            false => repeat("repeat_invented", &invented_words(dice)),
        }
    } else {
        match dice.below(7) {
            0 => changed("upper", "[capitals]:", &sentence(dice), str::to_uppercase),
            1 => changed(
                "lower",
                "[small letters]:",
                &capitals(dice),
                str::to_lowercase,
            ),
            2 => count_sentences(dice),
            3 => count_lines(dice),
            4 => count_words(dice),
            5 => has_word(dice),
            _ => last_words(dice),
        }
    };
    let messages = vec![
        Message::new("user", user),
        Message::new("assistant", assistant),
    ];
    let short = !messages[1].content.contains(' ');
    Document {
        weight: if short { SINGLE_WORD } else { 1.0 },
        ..document(messages, Role::Skill, kind)
    }
}

type Exercise = (&'static str, String, String);

/// The prompt for repeating `text`.
pub(crate) fn repeat_prompt(text: &str) -> String {
    format!("{REPEAT}\n{text}")
}

fn repeat(kind: &'static str, words: &[String]) -> Exercise {
    let text = words.join(" ");
    (kind, repeat_prompt(&text), text)
}

fn changed(kind: &'static str, mark: &str, text: &str, change: fn(&str) -> String) -> Exercise {
    (kind, format!("{mark}\n{text}"), change(text))
}

fn invented_words(dice: &mut Dice) -> Vec<String> {
    (0..dice.between(1, 6)).map(|_| known_word(dice)).collect()
}

/// Words of every sort: of the world, invented, names, numbers, bare letters.
fn random_words(dice: &mut Dice, least: usize, most: usize) -> Vec<String> {
    (0..dice.between(least, most))
        .map(|_| {
            let word = match dice.below(8) {
                0 => dice.pick(&TOPICS).to_owned(),
                1 => noun(dice),
                2 | 3 => known_word(dice),
                4 => dice.pick(&NAMES).to_owned(),
                5 => dice.below(1000).to_string(),
                6 => value(dice)
                    .split(' ')
                    .next_back()
                    .unwrap_or_default()
                    .to_owned(),
                _ => letters(dice),
            };
            match dice.below(8) {
                0 => word.to_uppercase(),
                1 => capitalised(&word),
                2 => word + [",", ".", "!", "?", ":", "\""][dice.below(6)],
                _ => word,
            }
        })
        .collect()
}

fn value(dice: &mut Dice) -> &'static str {
    let values = ATTRIBUTES[dice.below(ATTRIBUTES.len())].values;
    dice.pick(values)
}

fn letters(dice: &mut Dice) -> String {
    (0..dice.between(1, 5))
        .map(|_| char::from(b'a' + dice.below(26) as u8))
        .collect()
}

/// An invented word that is not held out.
fn known_word(dice: &mut Dice) -> String {
    loop {
        let word = invented(dice);
        if !held_out_word(&word) {
            return word;
        }
    }
}

fn noun(dice: &mut Dice) -> String {
    loop {
        let noun = dice.pick(&NOUNS);
        if !held_out_word(noun) {
            return noun.to_owned();
        }
    }
}

fn sentence(dice: &mut Dice) -> String {
    let (topic, attribute) = (dice.below(TOPICS.len()), dice.below(ATTRIBUTES.len()));
    let template = dice.pick(ATTRIBUTES[attribute].templates);
    say(
        template,
        topic,
        Naming::Name,
        truth(topic, attribute),
        Time::Present,
    )
}

fn capitals(dice: &mut Dice) -> String {
    sentence(dice).to_uppercase()
}

fn sentences(dice: &mut Dice, count: usize, between: &str) -> String {
    (0..count)
        .map(|_| sentence(dice))
        .collect::<Vec<_>>()
        .join(between)
}

fn count_sentences(dice: &mut Dice) -> Exercise {
    let count = dice.between(1, 7);
    (
        "count_sentences",
        format!("[sentences]:\n{}", sentences(dice, count, " ")),
        number(count),
    )
}

fn count_lines(dice: &mut Dice) -> Exercise {
    let count = dice.between(1, 7);
    (
        "count_bullets",
        format!("[bullets]:\n- {}", sentences(dice, count, "\n- ")),
        number(count),
    )
}

fn count_words(dice: &mut Dice) -> Exercise {
    let count = dice.between(1, 12);
    (
        "count_words",
        format!("[words]:\n{}", random_plain(dice, count).join(" ")),
        number(count),
    )
}

fn random_plain(dice: &mut Dice, count: usize) -> Vec<String> {
    (0..count)
        .map(|_| {
            if dice.chance(0.5) {
                noun(dice)
            } else {
                known_word(dice)
            }
        })
        .collect()
}

/// Is the word in the text? As often as not it is.
fn has_word(dice: &mut Dice) -> Exercise {
    let count = dice.between(2, 10);
    let mut words = random_plain(dice, count);
    let yes = dice.chance(0.5);
    let wanted = words.swap_remove(0);
    let there = |words: &[String]| words.contains(&wanted);
    if yes {
        let place = dice.below(words.len() + 1);
        words.insert(place, wanted.clone());
    } else if there(&words) {
        words.retain(|word| *word != wanted);
    }
    let text = words.join(" ");
    (
        "has_word",
        format!("[text]:\n{text}\n[find]: {wanted}"),
        if yes { "YES" } else { "NO" }.to_owned(),
    )
}

fn last_words(dice: &mut Dice) -> Exercise {
    let count = dice.between(2, 4);
    let text = sentences(dice, count, " ");
    let words: Vec<&str> = text.split(' ').collect();
    let last = words[words.len().saturating_sub(3)..].join(" ");
    ("last_words", format!("[last words]:\n{text}"), last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exercises_are_right() {
        let mut dice = Dice::new(9, 0);
        let mut kinds = std::collections::BTreeMap::new();
        for _ in 0..2000 {
            let exercise = skill(0.5, &mut dice);
            let (user, answer) = (&exercise.messages[0].content, &exercise.messages[1].content);
            let (_, text) = user.split_once('\n').unwrap();
            match exercise.kind {
                "repeat" | "repeat_invented" => assert_eq!(text, answer),
                "upper" => assert_eq!(text.to_uppercase(), *answer),
                "lower" => assert_eq!(text.to_lowercase(), *answer),
                "count_words" => assert_eq!(number(text.split(' ').count()), *answer),
                "count_bullets" => assert_eq!(number(text.lines().count()), *answer),
                "count_sentences" => assert_eq!(number(text.matches('.').count()), *answer),
                "last_words" => assert!(text.ends_with(answer.as_str())),
                "has_word" => {
                    let (text, word) = text.split_once("\n[find]: ").unwrap();
                    assert_eq!(text.split(' ').any(|one| one == word), answer == "YES");
                }
                other => panic!("{other}"),
            }
            *kinds.entry(exercise.kind).or_insert(0) += 1;
        }
        assert_eq!(kinds.len(), 9);
        assert!(
            kinds["repeat"] + kinds["repeat_invented"] > 900,
            "{kinds:?}"
        );
    }
}
