//! The calls that pools grow by: what is asked, and which entries of an answer can be used.

use super::Context;
use super::outputs::{NAME_CHARS, PART_CHARS, Scenario, Soft, list_grammar};
use crate::filters::words;
use crate::outputs::{SENTENCE_CHARS, is_cut, is_question, parse_whole};
use crate::rules::recognise;
use data::Outcome;
use pipeline::{Llm, Stop, reject};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Words of a domain, at most: the released code's limit.
const DOMAIN_WORDS: usize = 4;
/// Words of a request, at most. The prompt asks for fewer.
const REQUEST_WORDS: usize = 12;
/// Where entries are recorded; no file of this name is written.
const ENTRIES: &str = "entries";

/// A list that the model is asked to continue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Areas of life and work.
    Domains,
    /// What somebody may want in a domain.
    Requests,
    /// Who asks for it, when, where and why.
    Scenarios,
    /// Others who could be in a scenario.
    Personas,
    /// Constraints that only a reader can judge.
    Constraints,
}

impl Step {
    /// All of them, in order.
    pub const ALL: [Self; 5] = [
        Self::Domains,
        Self::Requests,
        Self::Scenarios,
        Self::Personas,
        Self::Constraints,
    ];

    /// Name of its phase, its prompt and the key of its answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Domains => "domains",
            Self::Requests => "requests",
            Self::Scenarios => "scenarios",
            Self::Personas => "personas",
            Self::Constraints => "constraints",
        }
    }
}

/// One call for more entries.
#[derive(Debug, Clone, PartialEq)]
pub struct Ask {
    /// Which list.
    pub step: Step,
    /// What the list belongs to: variables of the prompt.
    pub about: Value,
    /// New entries asked for.
    pub count: usize,
    /// Entries that are there.
    pub known: Vec<String>,
}

/// An entry of a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// As it is shown and compared.
    pub(super) text: String,
    /// All of it.
    pub(super) value: Value,
}

impl Entry {
    /// The entries that a call gave; none if it was rejected.
    pub(super) fn of(outcome: &Outcome) -> impl Iterator<Item = Self> {
        let records = outcome.records.iter().filter(|one| one.file == ENTRIES);
        let records = records.filter(|_| outcome.is_accepted());
        records.filter_map(|record| serde_json::from_value(record.value.clone()).ok())
    }

    fn of_text(text: String) -> Self {
        let value = json!(text);
        Self { text, value }
    }
}

/// Asks for more entries of a list and keeps those that can be used.
///
/// # Errors
/// The reason for which no entry can be used, or that the call has to wait.
pub async fn ask(ask: &Ask, llm: &Llm<'_>, context: &Context) -> Result<(), Stop> {
    let step = ask.step.name();
    let mut variables = ask.about.clone();
    variables["count"] = json!(ask.count);
    if ask.step != Step::Personas {
        variables["known"] = json!(ask.known);
    }
    let id = format!("decif/{step}");
    let grammar = list_grammar(ask.step, ask.count);
    let request = context
        .prompts
        .ask(&id, variables, llm.seed(step, 0), Some(grammar))?;
    let answer = llm.generate("meta", step, request).await?;
    let read: Value = parse_whole(&answer, step)?;
    let Some(list) = read[step].as_array() else {
        return Err(reject(
            step,
            "unparsed",
            format!("there is no list `{step}`"),
        ));
    };
    let mut usable = 0;
    for value in list.iter().take(ask.count) {
        match entry(ask.step, value) {
            Ok(entry) => {
                llm.record(ENTRIES, json!(entry));
                usable += 1;
            }
            Err(fault) => llm.count(&format!("{step}.{fault}"), 1),
        }
    }
    if usable == 0 {
        return Err(reject(
            step,
            "nothing_usable",
            format!("{} entries", list.len()),
        ));
    }
    llm.count(&format!("{step}.entries"), usable);
    Ok(())
}

/// An entry, or the name of what is wrong with it.
fn entry(step: Step, value: &Value) -> Result<Entry, &'static str> {
    match step {
        Step::Domains => name(value, (NAME_CHARS, DOMAIN_WORDS)),
        Step::Requests => name(value, (NAME_CHARS, REQUEST_WORDS)),
        Step::Personas => name(value, (PART_CHARS, usize::MAX)),
        Step::Scenarios => scenario(value),
        Step::Constraints => constraint(value),
    }
}

fn name(value: &Value, (chars, most): (usize, usize)) -> Result<Entry, &'static str> {
    let text = clean(value.as_str().ok_or("no_text")?, chars)?;
    if words(&text).len() > most {
        return Err("too_long");
    }
    Ok(Entry::of_text(text))
}

fn scenario(value: &Value) -> Result<Entry, &'static str> {
    let part = |key: &str| clean(value[key].as_str().ok_or("no_text")?, PART_CHARS);
    let scenario = Scenario {
        persona: part("persona")?,
        time: part("time")?,
        place: part("place")?,
        trigger: part("trigger")?,
    };
    Ok(Entry {
        text: scenario.shown_with_persona(),
        value: json!(scenario),
    })
}

fn constraint(value: &Value) -> Result<Entry, &'static str> {
    let part = |key: &str| {
        let text = value[key].as_str().ok_or("no_text")?;
        whole(text, SENTENCE_CHARS)
    };
    let soft = Soft {
        kind: String::new(),
        constraint: part("constraint")?,
        question: part("question")?,
    };
    if !is_question(&soft.question) {
        return Err("no_question");
    }
    // What a program can check comes from the sampler, with a check.
    if recognise(&soft.constraint, "").is_some() {
        return Err("has_rule");
    }
    Ok(Entry {
        text: soft.constraint.clone(),
        value: json!(soft),
    })
}

/// One line of text that is neither empty nor cut.
fn whole(text: &str, chars: usize) -> Result<String, &'static str> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let line = words.join(" ");
    if !line.contains(char::is_alphanumeric) {
        Err("empty")
    } else if is_cut(text, chars) {
        Err("truncated")
    } else {
        Ok(line)
    }
}

/// The same without the marks of lists, quotes around it and a full stop.
fn clean(text: &str, chars: usize) -> Result<String, &'static str> {
    let line = whole(text, chars)?;
    let numbered = line.trim_start_matches(|c: char| c.is_ascii_digit());
    let line = match numbered.strip_prefix(['.', ')']) {
        Some(rest) if numbered.len() < line.len() && rest.starts_with(' ') => rest,
        _ => &line,
    };
    let mark = |c: char| c.is_whitespace() || "-*•\"“”'`".contains(c);
    let line = line.trim_start_matches(mark);
    let line = line.trim_end_matches(|c: char| mark(c) || ".:;,".contains(c));
    whole(line, chars)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_cleaned_and_faults_have_names() {
        let check = |step, value: Value, expected: Result<&str, &'static str>| {
            let found = entry(step, &value).map(|entry| entry.text);
            assert_eq!(
                found.as_deref().map_err(|fault| *fault),
                expected,
                "{value}"
            );
        };
        check(
            Step::Domains,
            json!(" - \"Home  repair\". "),
            Ok("Home repair"),
        );
        check(Step::Domains, json!("3. Physics:"), Ok("Physics"));
        check(Step::Domains, json!("3D printing"), Ok("3D printing"));
        check(Step::Domains, json!("a b c d e"), Err("too_long"));
        check(Step::Domains, json!(" *** "), Err("empty"));
        check(Step::Domains, json!(7), Err("no_text"));
        check(
            Step::Domains,
            json!("x".repeat(NAME_CHARS)),
            Err("truncated"),
        );
        check(
            Step::Requests,
            json!("What is it like?"),
            Ok("What is it like?"),
        );
        let scenario =
            json!({"persona": "a cook", "time": "at noon.", "place": "here", "trigger": "guests"});
        check(
            Step::Scenarios,
            scenario,
            Ok("a cook, at noon, here: guests"),
        );
        check(
            Step::Scenarios,
            json!({"persona": "a cook"}),
            Err("no_text"),
        );
        let soft = |constraint: &str, question: &str| json!({"constraint": constraint, "question": question});
        check(
            Step::Constraints,
            soft("Be kind.", "Is it kind?"),
            Ok("Be kind."),
        );
        check(
            Step::Constraints,
            soft("Be kind.", "It is kind."),
            Err("no_question"),
        );
        check(
            Step::Constraints,
            soft("Use no commas.", "Are there none?"),
            Err("has_rule"),
        );
    }
}
