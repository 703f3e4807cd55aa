//! Instructions that contradict themselves: found by the table of rules and by the model,
//! repaired by the model, and looked at again until they do not.

use super::Context;
use super::instructing::{Draft, read};
use super::outputs::{Examined, conflict_grammar, repair_grammar};
use super::settings::Conflicts;
use crate::filters::words;
use crate::outputs::{parse_whole, rewrite_limit};
use crate::rules::recognise;
use pipeline::{Llm, Stop, reject};
use serde_json::json;
use std::collections::BTreeSet;
use verify::Constraint;
use verify::compose::{Kind, conflict, describe, mentions_parameters};

/// Share of the words that a repair has to keep.
const WORDS_KEPT: f64 = 0.5;

/// What became of an instruction on its way.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Repairs {
    /// What was wrong, once for each repair.
    pub(super) problems: Vec<String>,
}

/// The instruction without contradictions.
///
/// # Errors
/// A contradiction that the repairs do not end, or that the model is not sure of.
pub(super) async fn resolve(
    draft: Draft,
    context: &Context,
    llm: &Llm<'_>,
) -> Result<(Draft, Repairs), Stop> {
    if context.settings.conflicts == Conflicts::AsPublished {
        return resolve_once(draft, context, llm).await;
    }
    let mut draft = draft;
    let mut repairs = Repairs::default();
    let mut problem = examine(&draft, context, llm).await?;
    if problem.is_some() {
        llm.count("conflict.found", 1);
    }
    for attempt in 0..context.settings.repairs {
        let Some(found) = &problem else { break };
        match repair(&draft, found, attempt, context, llm).await? {
            Ok(repaired) => {
                repairs.problems.push(found.clone());
                draft = repaired;
                problem = examine(&draft, context, llm).await?;
            }
            Err(fault) => llm.count(&format!("conflict.repair_{fault}"), 1),
        }
    }
    match problem {
        Some(problem) => Err(reject("conflict", "unresolved", problem)),
        None => {
            if !repairs.problems.is_empty() {
                llm.count("conflict.repaired", 1);
            }
            Ok((draft, repairs))
        }
    }
}

/// As the released code: what the model says once is taken, and what it leaves out is not
/// missed.
async fn resolve_once(
    draft: Draft,
    context: &Context,
    llm: &Llm<'_>,
) -> Result<(Draft, Repairs), Stop> {
    let mut repairs = Repairs::default();
    let problem = match ask(&draft.text, context, llm).await {
        Ok(problem) => problem,
        // An answer that cannot be read says nothing.
        Err(Stop::Reject(why)) => {
            llm.count(&format!("conflict.{}", why.reason), 1);
            None
        }
        Err(wait) => return Err(wait),
    };
    let Some(problem) = problem else {
        return Ok((draft, repairs));
    };
    llm.count("conflict.found", 1);
    match repair(&draft, &problem, 0, context, llm).await? {
        Ok(repaired) => {
            repairs.problems.push(problem);
            llm.count("conflict.repaired", 1);
            Ok((repaired, repairs))
        }
        Err(fault) => {
            llm.count(&format!("conflict.repair_{fault}"), 1);
            Ok((draft, repairs))
        }
    }
}

/// What contradicts what, in words; the model is asked only where the table is silent.
async fn examine(draft: &Draft, context: &Context, llm: &Llm<'_>) -> Result<Option<String>, Stop> {
    if let Some(problem) = by_table(draft) {
        llm.count("conflict.by_table", 1);
        return Ok(Some(problem));
    }
    let problem = ask(&draft.text, context, llm).await?;
    if problem.is_some() {
        llm.count("conflict.by_model", 1);
    }
    Ok(problem)
}

/// The model's finding.
async fn ask(text: &str, context: &Context, llm: &Llm<'_>) -> Result<Option<String>, Stop> {
    let variables = json!({"instruction": text});
    let request = context
        .prompts
        .ask("decif/conflict", variables, 0, Some(conflict_grammar()))?;
    let answer = llm.generate("judge", "conflict", request).await?;
    let found: Examined = parse_whole(&answer, "conflict")?;
    match found.conflict.as_str() {
        "NO" => Ok(None),
        "YES" => Ok(Some(found.explanation)),
        _ => Err(reject("conflict", "undecided", found.explanation)),
    }
}

/// One repair, or the name of what is wrong with it.
async fn repair(
    draft: &Draft,
    problem: &str,
    attempt: usize,
    context: &Context,
    llm: &Llm<'_>,
) -> Result<Result<Draft, &'static str>, Stop> {
    let variables = json!({"instruction": draft.text, "problem": problem});
    let grammar = repair_grammar(&draft.text);
    let seed = llm.seed("resolve", attempt);
    let request = context
        .prompts
        .ask("decif/resolve", variables, seed, Some(grammar))?;
    let answer = llm.generate("instruct", "resolve", request).await?;
    let text = match read(&answer, rewrite_limit(&draft.text)) {
        Ok(text) => text,
        Err(fault) => return Ok(Err(fault)),
    };
    if words(&text) == words(&draft.text) {
        return Ok(Err("repeated"));
    }
    let repaired = draft.rewritten(text);
    let fault = if share_kept(&draft.text, &repaired.text) < WORDS_KEPT {
        Some("rewritten")
    } else if repaired.is_bare() {
        Some("lost_constraint")
    } else {
        None
    };
    Ok(fault.map_or(Ok(repaired), Err))
}

/// Share of the words of `before` that are in `after`.
fn share_kept(before: &str, after: &str) -> f64 {
    let of = |text: &str| words(text).into_iter().collect::<BTreeSet<String>>();
    let (before, after) = (of(before), of(after));
    before.intersection(&after).count() as f64 / before.len().max(1) as f64
}

/// A rule in the words that state it.
struct Stated {
    rule: Constraint,
    words: String,
}

/// Rules that one answer cannot meet: those of the constraints, and those that the model put
/// into the instruction beside them.
fn by_table(draft: &Draft) -> Option<String> {
    let of_text = stated(&draft.text);
    let said = |rule: &Constraint| {
        let found = of_text.iter().find(|one| one.rule == *rule);
        found.map_or_else(|| describe(rule, 0), |one| one.words.clone())
    };
    let mut all: Vec<Stated> = Vec::new();
    for rule in &draft.rules {
        all.push(Stated {
            rule: rule.clone(),
            words: said(rule),
        });
    }
    for one in of_text.iter() {
        if !all.iter().any(|other| restates(one, &other.rule)) {
            all.push(Stated {
                rule: one.rule.clone(),
                words: one.words.clone(),
            });
        }
    }
    for (place, second) in all.iter().enumerate() {
        let excluded =
            |first: &&Stated| conflict(&[first.rule.clone(), second.rule.clone()]).is_some();
        if let Some(first) = all[..place].iter().find(excluded) {
            return Some(format!(
                "These exclude each other: {} {}",
                first.words, second.words
            ));
        }
    }
    let rules: Vec<Constraint> = all.into_iter().map(|one| one.rule).collect();
    conflict(&rules).map(|found| format!("No answer can meet all of the demands: {found}."))
}

/// Rules that the model put into the instruction beside those that were drawn.
pub(super) fn added_rules(draft: &Draft) -> Vec<Constraint> {
    let of_text = stated(&draft.text).into_iter();
    let added = of_text.filter(|one| !draft.rules.iter().any(|drawn| restates(one, drawn)));
    added.map(|one| one.rule).collect()
}

/// Rules that sentences of the text state, or two in a row, each once.
fn stated(text: &str) -> Vec<Stated> {
    let alone = sentences(text);
    let joined = alone.windows(2).map(|pair| pair.join(" "));
    let joined: Vec<String> = joined.collect();
    let all = alone
        .iter()
        .copied()
        .chain(joined.iter().map(String::as_str));
    let mut found: Vec<Stated> = Vec::new();
    for sentence in all {
        let rules = recognise(sentence, text).and_then(|rule| rule.constraints());
        for rule in rules.into_iter().flatten() {
            if found.iter().all(|one| one.rule != rule) {
                found.push(Stated {
                    rule,
                    words: sentence.to_owned(),
                });
            }
        }
    }
    found
}

/// Sentences, roughly: what is cut too often states no rule as a whole.
fn sentences(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut start = 0;
        let mut before = ' ';
        for (place, c) in line.char_indices() {
            let ends = ['.', '!', '?', '"', '”'].contains(&before) && c == ' ';
            let ended = line[start..place].trim_end_matches(['"', '”']);
            if ends && ended.ends_with(['.', '!', '?']) {
                found.push(line[start..place].trim());
                start = place;
            }
            before = c;
        }
        found.push(line[start..].trim());
    }
    found.retain(|sentence| !sentence.is_empty());
    found
}

/// Whether the words state nothing but a rule that is known: all or a part of it, or it with
/// what stands behind it, where its last parameter is a text without an end.
fn restates(stated: &Stated, known: &Constraint) -> bool {
    let same_kind = Kind::of(&stated.rule) == Kind::of(known);
    is_part_of(&stated.rule, known)
        || same_kind && mentions_parameters(known, &stated.words).is_ok()
}

/// Whether `part` demands nothing that `whole` does not.
fn is_part_of(part: &Constraint, whole: &Constraint) -> bool {
    use Constraint as C;
    match (part, whole) {
        (C::Existence { keywords: part }, C::Existence { keywords: whole })
        | (C::ForbiddenWords { words: part }, C::ForbiddenWords { words: whole }) => part
            .iter()
            .all(|word| whole.iter().any(|other| other.as_str() == word.as_str())),
        (C::NumberParagraphs { count }, C::NthParagraphFirstWord { paragraphs, .. }) => {
            count == paragraphs
        }
        _ => part == whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use verify::Relation;

    fn draft(text: &str, rules: Vec<Constraint>) -> Draft {
        Draft {
            text: text.into(),
            rules,
            soft: Vec::new(),
        }
    }

    #[test]
    fn sentences_end_where_they_end() {
        let text = "I am a cook. Write \"so.\" Use no commas!\nEnd it with \"a b.\" and go";
        let expected = [
            "I am a cook.",
            "Write \"so.\"",
            "Use no commas!",
            "End it with \"a b.\"",
            "and go",
        ];
        assert_eq!(sentences(text), expected);
    }

    #[test]
    fn the_table_finds_what_the_model_added() {
        let at_least = Constraint::NumberWords {
            relation: Relation::AtLeast,
            count: 100,
        };
        let text = "I am a cook. Tell me about tea. Write at least 100 words.";
        assert_eq!(by_table(&draft(text, vec![at_least.clone()])), None);
        let added = format!("{text} Use fewer than 20 words.");
        let problem = by_table(&draft(&added, vec![at_least])).unwrap();
        assert_eq!(
            problem,
            "These exclude each other: Write at least 100 words. Use fewer than 20 words."
        );
        // Of types that exclude each other, whatever they say.
        let text = "Tell me about tea. Answer in all capital letters. Use only lowercase letters.";
        assert!(by_table(&draft(text, vec![])).is_some());
    }

    #[test]
    fn what_goes_together_is_not_objected_to_in_any_wording() {
        use super::super::combining::combine;
        use super::super::settings::Settings;
        let settings = Settings {
            soft_share: 0.0,
            ..Settings::default()
        };
        let mut objections = Vec::new();
        for seed in 0..1500 {
            let rules = combine(&settings, &[], &[], seed).rules;
            let said: Vec<String> = rules.iter().map(|rule| describe(rule, seed / 3)).collect();
            let text = format!("I am a cook. Tell me about tea. {}", said.join(" "));
            objections.extend(by_table(&draft(&text, rules)).map(|found| (text, found)));
        }
        assert!(
            objections.is_empty(),
            "{}: {:?}",
            objections.len(),
            &objections[..3.min(objections.len())]
        );
    }

    #[test]
    fn a_part_of_a_constraint_is_no_other_constraint() {
        use verify::Keyword;
        let words = |list: &[&str]| Constraint::Existence {
            keywords: list
                .iter()
                .map(|one| Keyword::anywhere(one).unwrap())
                .collect(),
        };
        assert!(is_part_of(&words(&["tea"]), &words(&["milk", "tea"])));
        assert!(!is_part_of(
            &words(&["tea", "rum"]),
            &words(&["milk", "tea"])
        ));
    }
}
