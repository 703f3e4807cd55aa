//! An instruction in words: keywords, wordings of its constraints, the whole.

use super::settings::{Keywords, Rewrite};
use super::{Context, Task, usable};
use crate::filters::words;
use data::{Grammar, Message};
use pipeline::{Llm, Stop, reject};
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeSet;
use verify::Constraint;
use verify::compose::{Kind, describe, mentions_parameters};

/// Keywords kept at most.
const KEYWORDS_MAX: usize = 40;
/// Longest keyword of a model, in characters.
const KEYWORD_CHARS: usize = 40;
/// Wordings and layouts are drawn from so many numbers: their lists have 3, 4 or 5 entries.
const CHOICES: u64 = 60;
/// Share of the seed's words that a rewritten instruction has to have.
const KEPT: f64 = 0.6;

/// Words that say nothing of a topic.
const COMMON: [&str; 48] = [
    "about",
    "above",
    "after",
    "also",
    "answer",
    "because",
    "been",
    "before",
    "being",
    "below",
    "between",
    "could",
    "does",
    "each",
    "every",
    "following",
    "from",
    "give",
    "given",
    "have",
    "here",
    "input",
    "into",
    "just",
    "know",
    "like",
    "make",
    "more",
    "most",
    "need",
    "only",
    "other",
    "output",
    "please",
    "should",
    "some",
    "such",
    "task",
    "tell",
    "text",
    "than",
    "that",
    "their",
    "them",
    "these",
    "they",
    "this",
    "those",
];
/// The rest of them.
const COMMON_TOO: [&str; 16] = [
    "through", "using", "very", "want", "were", "what", "when", "where", "which", "while", "will",
    "with", "would", "write", "you", "your",
];

/// Words for the constraint types that need some.
pub(super) async fn keywords(
    seed: &str,
    context: &Context,
    llm: &Llm<'_>,
) -> Result<Vec<String>, Stop> {
    match context.settings.keywords {
        Keywords::General => Ok(Vec::new()),
        Keywords::Seed => Ok(keywords_of(seed)),
        Keywords::Model => {
            let variables = json!({"seed": seed});
            let grammar = Some(keywords_grammar());
            let id = "complex-to-simple/keywords";
            let request = context.prompts.ask(id, variables, 0, grammar)?;
            let answer = llm.generate("keywords", "keywords", request).await?;
            let named = named_keywords(&answer.text);
            if named.is_empty() {
                llm.count("keywords.none", 1);
                return Ok(keywords_of(seed));
            }
            Ok(named)
        }
    }
}

fn keywords_grammar() -> Grammar {
    Grammar::JsonSchema(json!({
        "type": "object", "additionalProperties": false, "required": ["keywords"],
        "properties": {"keywords": {
            "type": "array", "minItems": 1, "maxItems": KEYWORDS_MAX,
            "items": {"type": "string", "maxLength": KEYWORD_CHARS},
        }},
    }))
}

/// The words of a model's list; of a phrase the first, as the released code takes it.
fn named_keywords(answer: &str) -> Vec<String> {
    #[derive(Deserialize)]
    struct Named {
        keywords: Vec<String>,
    }
    let named: Vec<String> =
        serde_json::from_str(answer).map_or_else(|_| Vec::new(), |named: Named| named.keywords);
    let first = |text: &String| text.split_whitespace().next().map(str::to_owned);
    distinct(named.iter().filter_map(first))
}

/// Words of the seed that its answer may well use.
fn keywords_of(seed: &str) -> Vec<String> {
    let topical = |word: &String| {
        word.len() > 3
            && word.chars().all(char::is_alphabetic)
            && !COMMON.contains(&word.as_str())
            && !COMMON_TOO.contains(&word.as_str())
    };
    distinct(words(seed).into_iter().filter(topical))
}

fn distinct(words: impl Iterator<Item = String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let new = words.filter(|word| seen.insert(word.to_lowercase()));
    new.take(KEYWORDS_MAX).collect()
}

/// Puts the constraints into words, and the instruction together; its parameters are all there.
pub(super) async fn phrase(
    (history, seed): (&[Message], &str),
    constraints: Vec<Constraint>,
    context: &Context,
    llm: &Llm<'_>,
) -> Result<Task, Stop> {
    let choice = |index: usize| llm.seed("phrase", index) % CHOICES;
    let texts = constraints.iter().enumerate().map(|(index, constraint)| {
        let choice = choice(index);
        context.prompts.form(
            "complex-to-simple/constraint",
            json!({
                "id": Kind::of(constraint).id(), "kwargs": constraint.kwargs(),
                "text": describe(constraint, choice), "choice": choice,
            }),
        )
    });
    let texts = texts.collect::<Result<Vec<String>, Stop>>()?;
    let variables = json!({"seed": seed, "constraints": texts, "choice": choice(texts.len())});
    let mut instruction = context
        .prompts
        .form("complex-to-simple/instruction", variables)?;
    if let Some(lost) = lost_in(&instruction, &constraints) {
        return Err(reject("phrase", "parameter_lost", lost));
    }
    if context.settings.rewrite == Rewrite::Model {
        match rewritten((seed, &texts), &constraints, context, llm).await? {
            Some(text) => instruction = text,
            None => llm.count("rewrite.template", 1),
        }
    }
    Ok(Task {
        history: history.to_vec(),
        constraints,
        texts,
        own: 0,
        instruction,
    })
}

/// The instruction as a model words it; `None` if no attempt keeps all that is asked.
async fn rewritten(
    (seed, texts): (&str, &[String]),
    constraints: &[Constraint],
    context: &Context,
    llm: &Llm<'_>,
) -> Result<Option<String>, Stop> {
    let variables = json!({"seed": seed, "constraints": texts});
    let id = "complex-to-simple/rewrite";
    for attempt in 0..context.settings.tries {
        let draw = llm.seed("rewrite", attempt);
        let request = context.prompts.ask(id, &variables, draw, None)?;
        let answer = llm.generate("rewrite", "rewrite", request).await?;
        let text = match usable(&answer) {
            Ok(text) => text,
            Err(fault) => {
                llm.count(&format!("rewrite.{fault}"), 1);
                continue;
            }
        };
        if lost_in(&text, constraints).is_some() {
            llm.count("rewrite.parameter_lost", 1);
        } else if !keeps(&text, seed) {
            llm.count("rewrite.seed_lost", 1);
        } else {
            return Ok(Some(text));
        }
    }
    Ok(None)
}

/// The first parameter that the text does not say.
fn lost_in(text: &str, constraints: &[Constraint]) -> Option<String> {
    let lost = |constraint| mentions_parameters(constraint, text).err();
    constraints
        .iter()
        .find_map(lost)
        .map(|lost| lost.to_string())
}

/// Whether a rewritten instruction still has the seed in it: all of its numbers and most of
/// its words.
fn keeps(text: &str, seed: &str) -> bool {
    let there: BTreeSet<String> = words(text).into_iter().collect();
    let asked: BTreeSet<String> = words(seed).into_iter().collect();
    let mut numbers = asked
        .iter()
        .filter(|word| word.chars().all(|c| c.is_ascii_digit()));
    let kept = asked.intersection(&there).count() as f64;
    numbers.all(|number| there.contains(number)) && kept >= KEPT * asked.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_are_words_of_the_topic() {
        let found = keywords_of("Please write about the harbour of Genoa, and about its Harbour!");
        assert_eq!(found, ["harbour", "genoa"]);
        let named = named_keywords(r#"{"keywords": ["machine learning", "Data", "data", ""]}"#);
        assert_eq!(named, ["machine", "Data"]);
        assert!(named_keywords("keywords: ['a']").is_empty());
    }

    #[test]
    fn a_rewritten_request_keeps_the_seed() {
        let seed = "Name 3 rivers of France and say where they end.";
        assert!(keeps(
            "Which 3 rivers of France are there, and where do they end?",
            seed
        ));
        assert!(!keeps(
            "Which rivers of France are there, and where do they end?",
            seed
        ));
        assert!(!keeps("Sing 3 songs.", seed));
    }
}
