//! Scores by rule what a model answered to a held-out prompt.

use crate::CorpusError;
use crate::ask::compatible;
use crate::held_out::{Item, Set};
use crate::phrases::{read_demand, read_question};
use serde::{Deserialize, Serialize};

/// What became of one answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Score {
    /// The prompt's key.
    pub key: String,
    /// All that counts is right. Soft constraints have no rule and do not count.
    pub passed: bool,
    /// Each check by name. `topic` is reported and does not count.
    pub checks: Vec<(String, bool)>,
}

/// The composer's answer.
#[derive(Deserialize)]
struct Composed {
    query: String,
    question: String,
}

/// Scores one answer.
///
/// - `respond`: every rule of the request, strictly; beside it, whether the topic is named.
/// - `judge`, `copy`: the expected text, outer white space apart; `explain`: the same of the first
///   verdict.
/// - `compose`: it parses, keeps the request and adds one demand that can be read, goes with
///   those before, and is what the question asks about.
///
/// # Errors
/// [`CorpusError::Row`]: the item is not one of ours.
pub fn score(item: &Item, answer: &str) -> Result<Score, CorpusError> {
    let (checks, passed) = match item.set {
        Set::Respond => respond(item, answer)?,
        Set::Compose => compose(item, answer)?,
        Set::Judge | Set::Copy => equal(item, answer)?,
        Set::Explain => {
            let written = serde_json::from_str::<Explained>(answer.trim()).ok();
            let verdict = written.and_then(|all| Some(all.verdicts.into_iter().next()?.verdict));
            equal(item, verdict.as_deref().unwrap_or_default())?
        }
    };
    Ok(Score {
        key: item.key.clone(),
        passed,
        checks,
    })
}

/// The answer of the judge that explains.
#[derive(Deserialize)]
struct Explained {
    verdicts: Vec<Verdict>,
}

#[derive(Deserialize)]
struct Verdict {
    verdict: String,
}

fn equal(item: &Item, answer: &str) -> Result<Checks, CorpusError> {
    let expected = item.expected.as_ref().ok_or_else(|| CorpusError::Row {
        row: item.key.clone(),
        field: "expected",
        reason: "it is missing".into(),
    })?;
    let right = answer.trim() == expected.trim();
    Ok((vec![("equal".to_owned(), right)], right))
}

type Checks = (Vec<(String, bool)>, bool);

fn respond(item: &Item, answer: &str) -> Result<Checks, CorpusError> {
    let asks = item.asks()?;
    let rules = asks.iter().filter(|ask| ask.rule().is_some());
    let mut checks: Vec<(String, bool)> = rules
        .map(|ask| (ask.kind().name().to_owned(), ask.holds(answer, &[])))
        .collect();
    let passed = checks.iter().all(|(_, followed)| *followed);
    let lower = answer.to_lowercase();
    checks.push((
        "topic".to_owned(),
        item.topics
            .iter()
            .all(|topic| lower.contains(topic.as_str())),
    ));
    Ok((checks, passed))
}

fn compose(item: &Item, answer: &str) -> Result<Checks, CorpusError> {
    let mut asks = item.asks()?;
    let composed = serde_json::from_str::<Composed>(answer.trim()).ok();
    let parses = composed.is_some();
    let kept = composed
        .as_ref()
        .and_then(|one| one.query.strip_prefix(item.prompt.as_str()));
    let added = kept.and_then(read_demand);
    let asked = composed
        .as_ref()
        .and_then(|one| read_question(&one.question));
    let matches = added.is_some() && added == asked;
    let goes_with = added.clone().is_some_and(|ask| {
        asks.push(ask);
        compatible(&asks)
    });
    let checks = [
        ("parses", parses),
        ("keeps", kept.is_some()),
        ("adds", added.is_some()),
        ("goes_with", goes_with),
        ("question", matches),
    ];
    let passed = checks.iter().all(|(_, right)| *right);
    Ok((
        checks
            .map(|(name, right)| (name.to_owned(), right))
            .to_vec(),
        passed,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::split::Split;
    use data::Message;
    use serde_json::json;

    fn item(set: Set, prompt: &str, rules: &serde_json::Value) -> Item {
        serde_json::from_value(json!({
            "key": "k", "set": set, "split": Split::Pair, "kind": "x",
            "messages": [Message::new("user", prompt)], "prompt": prompt, "topics": ["fox"],
            "instruction_id_list": rules.as_array().unwrap().iter().map(|rule| &rule[0]).collect::<Vec<_>>(),
            "kwargs": rules.as_array().unwrap().iter().map(|rule| &rule[1]).collect::<Vec<_>>(),
            "soft": [], "expected": if set == Set::Judge { Some("NO") } else { None },
        }))
        .unwrap()
    }

    #[test]
    fn composed_requests_are_scored_part_by_part() {
        let before = "Describe the fox. Use no commas.";
        let item = item(Set::Compose, before, &json!([["punctuation:no_comma", {}]]));
        let check = |query: &str, question: &str, expected: &str| {
            let answer = json!({"query": query, "question": question}).to_string();
            let score = score(&item, &answer).unwrap();
            let right: Vec<&str> = score
                .checks
                .iter()
                .filter(|(_, right)| *right)
                .map(|(name, _)| name.as_str())
                .collect();
            assert_eq!(right.join(" "), expected, "{query} {question}");
            assert_eq!(score.passed, right.len() == 5);
        };
        let with = |demand: &str| format!("{before} {demand}");
        check(
            &with("Include the word blorn."),
            "Is the word blorn in the answer?",
            "parses keeps adds goes_with question",
        );
        check(
            &with("Include the word blorn."),
            "Is the word blurn in the answer?",
            "parses keeps adds goes_with",
        );
        check(
            &with("Write without commas."),
            "Is the answer without commas?",
            "parses keeps adds question",
        );
        check(
            &with("Be nice to it."),
            "Is the answer without commas?",
            "parses keeps",
        );
        check(
            "Describe the owl. Be polite.",
            "Is the answer polite?",
            "parses",
        );
        assert!(!score(&item, "no JSON").unwrap().passed);
    }

    #[test]
    fn answers_are_scored_by_rule_and_labels_by_text() {
        let item = item(
            Set::Respond,
            "Describe the fox. Use no commas.",
            &json!([["punctuation:no_comma", {}]]),
        );
        assert!(score(&item, "The fox is red.").unwrap().passed);
        let wrong = score(&item, "It is red, and more.").unwrap();
        assert_eq!(
            wrong.checks,
            [
                ("punctuation:no_comma".to_owned(), false),
                ("topic".to_owned(), false)
            ]
        );
        assert!(!score(&item, " ").unwrap().passed);
        let judge = self::item(Set::Judge, "x", &json!([]));
        assert!(score(&judge, " NO\n").unwrap().passed && !score(&judge, "YES").unwrap().passed);
        let unknown = self::item(Set::Respond, "x", &json!([["no:such", {}]]));
        assert!(score(&unknown, "x").is_err());
    }
}
