//! Rules about marks, divisions, beginnings and ends.

use crate::python;
use crate::runner::Verdict;
use regex::Regex;
use std::sync::LazyLock;

static PLACEHOLDER: LazyLock<Regex> = LazyLock::new(|| compile(r"\[[^\n]*?\]"));
static STAR_BULLET: LazyLock<Regex> =
    LazyLock::new(|| compile(r"(?m)^[\s\x1c-\x1f]*\*[^*][^\n]*$"));
static DASH_BULLET: LazyLock<Regex> = LazyLock::new(|| compile(r"(?m)^[\s\x1c-\x1f]*-[^\n]*$"));
static TITLE: LazyLock<Regex> = LazyLock::new(|| compile(r"<<[^\n]+>>"));

fn compile(pattern: &str) -> Regex {
    Regex::new(pattern).expect("the patterns above are valid")
}

pub(super) fn placeholders(asked: usize, text: &str) -> Verdict {
    let count = PLACEHOLDER.find_iter(text).count();
    Verdict::when(count >= asked, || {
        format!("{count} placeholders [...], asked: at least {asked}")
    })
}

pub(super) fn bullets(asked: usize, text: &str) -> Verdict {
    let count = STAR_BULLET.find_iter(text).count() + DASH_BULLET.find_iter(text).count();
    Verdict::when(count == asked, || {
        format!("{count} bullets, asked: {asked}")
    })
}

pub(super) fn constrained_response(text: &str) -> Verdict {
    let known = ["yes", "no", "maybe"].map(|answer| format!("My answer is {answer}."));
    let found = known.iter().any(|sentence| text.contains(sentence));
    Verdict::when(found, || format!("none of the answers {known:?} occurs"))
}

pub(super) fn highlights(asked: usize, text: &str) -> Verdict {
    let count = spans_between(text, "*") + spans_between(text, "**");
    Verdict::when(count >= asked, || {
        format!("{count} highlighted sections *...*, asked: at least {asked}")
    })
}

/// Non-overlapping runs without asterisk or line end between two marks, blank ones not counted.
fn spans_between(text: &str, mark: &str) -> usize {
    let mut count = 0;
    let mut rest = text;
    while let Some(at) = rest.find(mark) {
        let inside = &rest[at + mark.len()..];
        let end = inside.find(['*', '\n']).unwrap_or(inside.len());
        if inside[end..].starts_with(mark) {
            count += usize::from(!python::is_blank(&inside[..end]));
            rest = &inside[end + mark.len()..];
        } else {
            // The search goes on one character after the place where it failed.
            rest = &rest[at + 1..];
        }
    }
    count
}

pub(super) fn json(text: &str) -> Verdict {
    let mut inner = python::strip(text);
    for fence in ["```json", "```Json", "```JSON", "```"] {
        inner = inner.strip_prefix(fence).unwrap_or(inner);
    }
    inner = inner.strip_suffix("```").unwrap_or(inner);
    match python::json::check(python::strip(inner)) {
        Ok(()) => Verdict::followed(),
        Err(error) => Verdict::failed(format!("not JSON: {error}")),
    }
}

pub(super) fn title(text: &str) -> Verdict {
    let titles = TITLE.find_iter(text).map(|found| found.as_str());
    let mut inner = titles.map(|title| title.trim_start_matches('<').trim_end_matches('>'));
    let found = inner.any(|title| !python::is_blank(title));
    Verdict::when(found, || "no title <<...>>".to_owned())
}

pub(super) fn two_responses(text: &str) -> Verdict {
    let pieces: Vec<&str> = text.split("******").collect();
    let last = pieces.len() - 1;
    let inner = pieces.iter().take(last).skip(1);
    if inner.clone().any(|piece| python::is_blank(piece)) {
        return Verdict::failed("a blank response between two dividers ******");
    }
    let stripped = pieces.iter().map(|piece| python::strip(piece));
    let responses: Vec<&str> = stripped.filter(|piece| !piece.is_empty()).collect();
    match responses[..] {
        [first, second] => Verdict::when(first != second, || "both responses are the same".into()),
        _ => Verdict::failed(format!(
            "{} responses divided by ******, asked: 2",
            responses.len()
        )),
    }
}

pub(super) fn repeat_prompt(prompt: &str, text: &str) -> Verdict {
    let asked = python::strip(prompt).to_lowercase();
    let found = python::strip(text).to_lowercase().starts_with(&asked);
    Verdict::when(found, || "does not start with the request".to_owned())
}

pub(super) fn end(phrase: &str, text: &str) -> Verdict {
    let phrase = python::strip(phrase).to_lowercase();
    let text = python::strip(text).trim_matches('"').to_lowercase();
    Verdict::when(text.ends_with(&phrase), || {
        format!("does not end with {phrase:?}")
    })
}

pub(super) fn no_comma(text: &str) -> Verdict {
    Verdict::when(!text.contains(','), || {
        let count = text.matches(',').count();
        format!("{count} commas, asked: none")
    })
}

pub(super) fn quotation(text: &str) -> Verdict {
    let text = python::strip(text);
    let quoted = text.len() > 1 && text.starts_with('"') && text.ends_with('"');
    Verdict::when(quoted, || "is not wrapped in double quotes".to_owned())
}
