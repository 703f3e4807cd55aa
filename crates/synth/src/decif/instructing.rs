//! From a request, a person in a scenario and constraints to an instruction that makes them.

use super::Context;
use super::combining::{Combined, combine};
use super::outputs::{INSTRUCTION_CHARS, Soft, Written, instruction_grammar};
use super::pools::Item;
use super::settings::Combination;
use crate::filters::words;
use crate::outputs::{is_cut, parse};
use data::{Completion, FinishReason};
use pipeline::{Llm, Stop, reject};
use serde_json::json;
use std::collections::BTreeSet;
use verify::Constraint;
use verify::compose::{describe, mentions_parameters};

/// Attempts at an instruction, where it is looked at.
const ATTEMPTS: usize = 2;

/// Words that only stand in prompts, lower case: an instruction that has them copied one.
const LEAKS: [&str; 6] = [
    "meta-request",
    "[constraints]",
    "[scenario]",
    "answer with a json object",
    "user instruction:",
    "demands:\n",
];

/// Share of a soft constraint's longer words that have to be in the instruction.
const WORDS_SAID: f64 = 0.5;

/// An instruction with the constraints that it makes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Draft {
    pub(super) text: String,
    pub(super) rules: Vec<Constraint>,
    pub(super) soft: Vec<Soft>,
}

impl Draft {
    /// With another text, and those of the constraints that this one still makes.
    pub(super) fn rewritten(&self, text: String) -> Self {
        let said = |rule: &&Constraint| mentions_parameters(rule, &text).is_ok();
        let rules = self.rules.iter().filter(said).cloned().collect();
        let soft = self.soft.iter().filter(|one| is_said(one, &text));
        Self {
            rules,
            soft: soft.cloned().collect(),
            text,
        }
    }

    /// Whether it makes no constraint.
    pub(super) fn is_bare(&self) -> bool {
        self.rules.is_empty() && self.soft.is_empty()
    }
}

/// Draws constraints and has the instruction written; a second time if the first cannot be
/// used.
pub(super) async fn instruct(item: &Item, context: &Context, llm: &Llm<'_>) -> Result<Draft, Stop> {
    let settings = &context.settings;
    let told = format!("{} {}", item.request, item.scenario.trigger);
    let keywords = words(&told);
    let keywords = keywords.iter().map(String::as_str);
    let keywords: Vec<&str> = keywords.filter(|word| word.chars().count() > 3).collect();
    let combined = combine(settings, &item.soft, &keywords, llm.seed("combine", 0));
    let demands = combined
        .rules
        .iter()
        .enumerate()
        .map(|(place, rule)| describe(rule, llm.seed("describe", place)))
        .chain(combined.soft.iter().map(|one| one.constraint.clone()));
    let demands: Vec<String> = demands.collect();
    if demands.is_empty() {
        return Err(reject("combine", "no_constraint", "nothing could be drawn"));
    }
    let attempts = match settings.combination {
        Combination::Compatible => ATTEMPTS,
        Combination::AsPublished => 1,
    };
    let mut fault = "empty";
    for attempt in 0..attempts {
        let variables = json!({
            "request": item.request, "scenario": item.scenario.shown(),
            "persona": item.persona, "constraints": demands,
        });
        let seed = llm.seed("instruction", attempt);
        let request = context.prompts.ask(
            "decif/instruction",
            variables,
            seed,
            Some(instruction_grammar()),
        )?;
        let answer = llm.generate("instruct", "instruction", request).await?;
        match read(&answer, INSTRUCTION_CHARS).and_then(|text| drafted(text, &combined, context)) {
            Ok(draft) => {
                let unsaid = combined.soft.len() - draft.soft.len();
                if unsaid > 0 {
                    llm.count("instruction.soft_unsaid", unsaid as u64);
                }
                return Ok(draft);
            }
            Err(found) => fault = found,
        }
        llm.count(&format!("instruction.attempt_{fault}"), 1);
    }
    Err(reject("instruction", fault, "no attempt succeeded"))
}

/// The draft, or the name of what is wrong with it.
fn drafted(text: String, combined: &Combined, context: &Context) -> Result<Draft, &'static str> {
    let whole = Draft {
        text: String::new(),
        rules: combined.rules.clone(),
        soft: combined.soft.clone(),
    };
    let draft = whole.rewritten(text);
    match context.settings.combination {
        // What the instruction does not say is not looked for.
        Combination::AsPublished => Ok(Draft {
            text: draft.text,
            ..whole
        }),
        // A soft constraint may be put in quite other words: what is not found is not judged.
        Combination::Compatible if draft.rules.len() < combined.rules.len() || draft.is_bare() => {
            Err("lost_constraint")
        }
        Combination::Compatible => Ok(draft),
    }
}

/// An instruction, or the name of what is wrong with it.
pub(super) fn read(answer: &Completion, limit: usize) -> Result<String, &'static str> {
    if answer.finish_reason == FinishReason::Length {
        return Err("truncated");
    }
    let written: Written = parse(&answer.text).map_err(|_| "unparsed")?;
    let text = written.instruction.trim();
    let lower = text.to_lowercase();
    if !text.contains(char::is_alphanumeric) {
        Err("empty")
    } else if is_cut(&written.instruction, limit) {
        Err("truncated")
    } else if LEAKS.iter().any(|leak| lower.contains(leak)) {
        Err("leaked")
    } else {
        Ok(text.to_owned())
    }
}

/// Whether the text has enough of the constraint's words, as far as words tell.
fn is_said(soft: &Soft, text: &str) -> bool {
    let there: BTreeSet<String> = words(text).iter().map(|word| stem(word)).collect();
    let wanted = words(&soft.constraint);
    let wanted: Vec<&String> = wanted.iter().filter(|w| w.chars().count() > 3).collect();
    let said = wanted.iter().filter(|word| there.contains(&stem(word)));
    said.count() as f64 >= WORDS_SAID * wanted.len() as f64
}

/// The beginning of a word: "formal" and "formally" are the same.
fn stem(word: &str) -> String {
    word.chars().take(5).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_soft_constraint_is_found_in_other_forms() {
        let soft = Soft {
            kind: "tone".into(),
            constraint: "Write in a warm, encouraging tone.".into(),
            question: "Is the tone warm?".into(),
        };
        assert!(is_said(
            &soft,
            "Please write warmly and encouragingly about tea."
        ));
        assert!(!is_said(&soft, "Please tell me about tea."));
    }

    #[test]
    fn a_rewrite_makes_what_it_says() {
        let draft = Draft {
            text: "Write. Use no commas. Write at least 50 words.".into(),
            rules: vec![
                Constraint::NoComma,
                Constraint::NumberWords {
                    relation: verify::Relation::AtLeast,
                    count: 50,
                },
            ],
            soft: Vec::new(),
        };
        let rewritten = draft.rewritten("Write. Use no commas.".into());
        assert_eq!(rewritten.rules, [Constraint::NoComma]);
        assert!(draft.rewritten("Write.".into()).is_bare());
    }
}
