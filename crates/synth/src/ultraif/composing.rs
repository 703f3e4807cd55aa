//! Rounds of composing: what is asked, and what an answer has to keep.

use super::outputs::{Augmented, Composed, augmented_grammar, compose_grammar};
use super::{Context, Instruction, criterion};
use crate::filters::words;
use crate::outputs::{SENTENCE_CHARS, is_cut, is_question, parse, rewrite_limit};
use crate::ultraif::settings::{Composer, Rounds};
use data::{FinishReason, Generate, Message, Prompt, Sampling};
use pipeline::{Llm, Stop, reject};
use serde_json::json;
use std::collections::BTreeSet;

/// Words that only stand in prompts, lower case: an instruction that has them copied one.
const LEAKS: [&str; 7] = [
    "[initial query]",
    "[history]",
    "augmented query",
    "human evaluator",
    "provide the response in json",
    "answer with a json object:",
    "new constraint",
];

/// What the released code looks for instead.
const PUBLISHED_LEAKS: [&str; 2] = ["human evaluator", "provide the response in json format"];

/// Share of the earlier words that have to be there still.
const WORDS_KEPT: f64 = 0.6;

/// Attempts at a round, where it is tried again.
const ATTEMPTS: usize = 2;

/// Adds constraints one by one; the instruction after each round. A round that fails twice
/// ends the composing, and its reason is counted; as published, it leaves the instruction as
/// it is.
pub(crate) async fn compose(
    start: &Instruction,
    context: &Context,
    llm: &Llm<'_>,
) -> Result<Vec<Instruction>, Stop> {
    let mut rounds = Vec::new();
    let mut latest = start.clone();
    let mut failure = None;
    let attempts = match context.settings.compose_rounds {
        Rounds::Checked => ATTEMPTS,
        Rounds::AsPublished => 1,
    };
    for round in 1..=context.settings.rounds {
        let mut composed = None;
        for attempt in 0..attempts {
            let seed = llm.seed("compose", (round - 1) * ATTEMPTS + attempt);
            match compose_once(&latest, seed, context, llm).await? {
                Ok(next) => {
                    composed = Some(next);
                    break;
                }
                Err(reason) => {
                    llm.count(&format!("compose.attempt_{reason}"), 1);
                    failure = Some(reason);
                }
            }
        }
        match (composed, context.settings.compose_rounds) {
            (Some(next), _) => latest.add(next, context),
            (None, Rounds::Checked) => break,
            (None, Rounds::AsPublished) => {}
        }
        rounds.push(latest.clone());
    }
    llm.count(&format!("compose.rounds_{}", latest.added), 1);
    match failure.filter(|_| rounds.is_empty()) {
        Some(reason) => Err(reject("compose", reason, "no round succeeded")),
        None => Ok(rounds),
    }
}

/// One attempt: a longer instruction, or the name of what is wrong with it.
async fn compose_once(
    before: &Instruction,
    seed: u64,
    context: &Context,
    llm: &Llm<'_>,
) -> Result<Result<Composed, &'static str>, Stop> {
    let request = match context.settings.composer {
        Composer::Prompted => {
            let variables = json!({"history": before.shown_history(), "query": before.query});
            let grammar = compose_grammar(&before.query);
            context
                .prompts
                .ask("ultraif/compose", variables, seed, Some(grammar))?
        }
        Composer::Trained => trained_request(before, seed, context.settings.composer_tokens),
    };
    let answer = llm.generate("compose", "compose", request).await?;
    if answer.finish_reason == FinishReason::Length {
        return Ok(Err("truncated"));
    }
    let composed = match context.settings.composer {
        Composer::Prompted => parse::<Composed>(&answer.text).ok(),
        Composer::Trained => parse::<Augmented>(&answer.text)
            .ok()
            .map(|augmented| Composed {
                query: augmented.query,
                question: augmented.question.into_iter().next().unwrap_or_default(),
            }),
    };
    let Some(composed) = composed else {
        return Ok(Err("unparsed"));
    };
    let cut = is_cut(&composed.query, rewrite_limit(&before.query))
        || is_cut(&composed.question, SENTENCE_CHARS);
    if cut {
        return Ok(Err("truncated"));
    }
    let fault = match context.settings.compose_rounds {
        Rounds::Checked => fault(&before.query, &composed),
        Rounds::AsPublished => published_fault(&before.query, &composed),
    };
    Ok(match fault {
        None => Ok(composed),
        Some(fault) => Err(fault),
    })
}

/// A request in the published UltraComposer's own form, drawn as its authors draw it.
fn trained_request(before: &Instruction, seed: u64, max_tokens: usize) -> Generate {
    Generate {
        sampling: Sampling {
            temperature: 0.7,
            ..Sampling::default()
        },
        max_tokens: Some(max_tokens),
        seed,
        grammar: Some(augmented_grammar(&before.query)),
        ..Generate::new(Prompt::Messages(vec![Message::new(
            "user",
            composer_input(&before.published_history(), &before.query),
        )]))
    }
}

/// The user's turn of the published UltraComposer.
pub(crate) fn composer_input(history: &str, query: &str) -> String {
    format!("[history]: {history} \n [initial query]: {query}")
}

/// What is wrong with a composed instruction, by name.
fn fault(before: &str, composed: &Composed) -> Option<&'static str> {
    let (query, question) = (composed.query.trim(), composed.question.trim());
    let lower = query.to_lowercase();
    let copied = LEAKS
        .iter()
        .any(|leak| lower.contains(leak) && !before.to_lowercase().contains(leak));
    if query.is_empty() || question.is_empty() {
        Some("empty")
    } else if words(query) == words(before) {
        Some("repeated")
    } else if copied {
        Some("leaked")
    } else if !keeps(before, query) {
        Some("lost_constraint")
    } else if !is_question(question) {
        Some("no_question")
    } else {
        None
    }
}

/// The same by the released code's tests; an instruction or a question that is empty is none.
fn published_fault(before: &str, composed: &Composed) -> Option<&'static str> {
    let lower = composed.query.to_lowercase();
    if composed.query.trim().is_empty() || composed.question.trim().is_empty() {
        Some("empty")
    } else if composed.query == before {
        Some("repeated")
    } else if PUBLISHED_LEAKS.iter().any(|leak| lower.contains(leak)) {
        Some("leaked")
    } else {
        None
    }
}

/// What was added to `before`, where the rest was left as it was.
fn addition<'a>(before: &str, after: &'a str) -> Option<&'a str> {
    let rest = after.trim().strip_prefix(before.trim())?.trim();
    (!rest.is_empty()).then_some(rest)
}

/// Whether the demands of `before` are still in `after`, as far as words tell: every number
/// and quoted text, and most words.
fn keeps(before: &str, after: &str) -> bool {
    let there: BTreeSet<String> = words(after).into_iter().collect();
    let (mut kept, mut all) = (0, 0);
    for word in words(before).into_iter().collect::<BTreeSet<_>>() {
        let is_there = there.contains(&word);
        if word.chars().all(|c| c.is_ascii_digit()) && !is_there {
            return false;
        }
        if word.chars().count() > 3 {
            all += 1;
            kept += usize::from(is_there);
        }
    }
    let lower = after.to_lowercase();
    let quoted = quotations(before);
    kept as f64 >= WORDS_KEPT * f64::from(all)
        && quoted
            .iter()
            .all(|text| lower.contains(&text.to_lowercase()))
}

/// Texts between straight or curly double quotes, of one line and not empty.
fn quotations(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut parts = line.split(['"', '“', '”']);
        // Every second part stands between quotes.
        parts.next();
        while let (Some(inside), Some(_)) = (parts.next(), parts.next()) {
            if !inside.trim().is_empty() {
                found.push(inside.trim());
            }
        }
    }
    found
}

impl Instruction {
    /// Takes the next round's rewrite and question over.
    fn add(&mut self, next: Composed, context: &Context) {
        let constraint = addition(&self.query, &next.query).map(str::to_owned);
        self.query = next.query;
        self.added += 1;
        let criterion = criterion(
            constraint.as_deref(),
            next.question,
            &self.query,
            &context.settings,
        );
        self.criteria.push(criterion);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_have_names() {
        let before = "Write 3 lines about the harbour with the word \"rope\".";
        let check = |query: &str, question: &str, expected: Option<&str>| {
            let composed = Composed {
                query: query.into(),
                question: question.into(),
            };
            assert_eq!(fault(before, &composed), expected, "{query}");
        };
        let good = "Write 3 lines about the harbour with the word \"rope\", all in capitals.";
        check(good, "Capitals?", None);
        check(good, " ", Some("empty"));
        check("", "x", Some("empty"));
        check(&before.to_uppercase(), "x", Some("repeated"));
        check(&format!("{good} [initial query]: x"), "x", Some("leaked"));
        check(&good.replace('3', "four"), "x", Some("lost_constraint"));
        check(&good.replace("rope", "line"), "x", Some("lost_constraint"));
        check(
            "3 \"rope\" and something else entirely",
            "x",
            Some("lost_constraint"),
        );
    }

    #[test]
    fn the_released_code_lets_more_pass() {
        let check = |query: &str, question: &str, expected: Option<&str>| {
            let composed = Composed {
                query: query.into(),
                question: question.into(),
            };
            assert_eq!(published_fault("Write.", &composed), expected, "{query}");
        };
        check("Sing a song of cats.", "x", None);
        check("write.", "x", None);
        check("Write.", "x", Some("repeated"));
        check("Write for a Human Evaluator.", "x", Some("leaked"));
        check("Write more.", " ", Some("empty"));
    }

    #[test]
    fn additions_stand_behind_what_is_left_as_it_was() {
        assert_eq!(
            addition("Write. ", "Write. Use no commas."),
            Some("Use no commas.")
        );
        assert_eq!(addition("Write.", "Write."), None);
        assert_eq!(addition("Write.", "Please write. More."), None);
    }

    #[test]
    fn quotations_are_found() {
        assert_eq!(quotations("a \"b\" c “d e” f"), ["b", "d e"]);
        assert!(quotations("an inch is 1\" long").is_empty());
        assert!(quotations("\"\" no").is_empty());
    }

    #[test]
    fn the_published_form_has_its_spaces() {
        assert_eq!(
            composer_input("[]", "q"),
            "[history]: [] \n [initial query]: q"
        );
    }
}
