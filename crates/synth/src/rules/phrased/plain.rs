//! The plainest ways to put a demand: a bare word after "the word", "capital letters only", "a
//! P.S.". Small models are taught with them.

use super::{Phrase, Range, Read, Unit, at_least, bullets, count_of, does, english, phrase};
use crate::rules::Rule;
use crate::rules::described::keyword;
use regex::Captures;
use verify::{Constraint, Keyword, Relation};

/// All of them.
pub(super) fn phrases() -> Vec<Phrase> {
    let all = [words(), marks(), counted(), letter_case()];
    all.into_iter().flatten().collect()
}

/// A word without quotes, for each `WORD` in the patterns.
fn bare(pattern: &str, read: Read) -> Phrase {
    phrase(&pattern.replace("WORD", "(?<bare>[a-z]+)"), read)
}

fn named(
    found: &Captures<'_>,
    make: fn(&str) -> Result<Keyword, verify::Error>,
) -> Option<Keyword> {
    keyword(make, &found["bare"])
}

fn words() -> Vec<Phrase> {
    let existence: Read = |found, _, _| {
        let keywords = vec![named(found, Keyword::anywhere)?];
        Some(Rule::all([Constraint::Existence { keywords }]))
    };
    let forbidden: Read = |found, _, _| {
        let words = vec![named(found, Keyword::whole_word)?];
        Some(Rule::all([Constraint::ForbiddenWords { words }]))
    };
    let frequency: Read = |found, _, _| {
        let keyword = named(found, Keyword::counted)?;
        let times = Range::parse(&found["count"], Unit::Time)?;
        times.rule(|relation: Relation, count| Constraint::Frequency {
            keyword: keyword.clone(),
            relation,
            count,
        })
    };
    let times = |pattern: &str| {
        bare(
            &pattern.replace("TIMES", r"(?<count>[a-z ]*\d+ times?)"),
            frequency,
        )
    };
    vec![
        bare(
            "(?:include|use|work in) the word WORD(?: somewhere)?",
            existence,
        ),
        bare(
            "ANSWER MUST (?:include|mention|contain|use) the word WORD",
            existence,
        ),
        bare(
            "does ANSWER (?:include|mention|contain|use) the word WORD",
            existence,
        ),
        bare("is the word WORD in (?:ANSWER|the text)", existence),
        bare(
            "can the word WORD be found in (?:ANSWER|the text)",
            existence,
        ),
        bare(
            "(?:do not use|avoid|leave out|never write) the word WORD",
            forbidden,
        ),
        bare("does ANSWER avoid the word WORD", forbidden),
        bare("is the word WORD left out", forbidden),
        bare("is (?:ANSWER|the text) free of the word WORD", forbidden),
        times("(?:use the word|say) WORD TIMES"),
        times("the word WORD MUST occur TIMES"),
        times("does the word WORD occur TIMES"),
        times("is WORD used TIMES"),
    ]
}

fn marks() -> Vec<Phrase> {
    let postscript: Read = |_, _, _| {
        let marker = Keyword::postscript("P.S.").ok()?;
        Some(Rule::all([Constraint::Postscript { marker }]))
    };
    let title: Read = |_, _, _| Some(Rule::all([Constraint::Title]));
    let quotation: Read = |_, _, _| Some(Rule::all([Constraint::Quotation]));
    let no_comma: Read = |_, _, _| Some(Rule::all([Constraint::NoComma]));
    let end: Read = |_, normal, _| {
        let [phrase] = normal.quoted.as_slice() else {
            return None;
        };
        let phrase = phrase.clone();
        Some(Rule::all([Constraint::EndChecker { phrase }]))
    };
    vec![
        phrase(
            r"put a p\.s\.? after the text|close with a note marked p\.s",
            postscript,
        ),
        phrase(
            r"append a p\.s\.? to ANSWER|does ANSWER have a p\.s",
            postscript,
        ),
        phrase(
            r"is there a postscript marked p\.s|does a note marked p\.s\.? follow",
            postscript,
        ),
        phrase("start with a <<>>|does ANSWER have a <<>>", title),
        phrase("is there a title in double angle brackets", title),
        phrase(
            "(?:give it|add) a title in <<>>|is a heading set in <<>>",
            title,
        ),
        phrase(
            "put ANSWER in double quotes|is ANSWER in double quotes",
            quotation,
        ),
        phrase(
            "(?:does ANSWER )?begin and end with a double quote",
            quotation,
        ),
        phrase(
            "write without commas|leave out every comma|has every comma been left out",
            no_comma,
        ),
        phrase("finish with § and nothing more|let § be the very end", end),
        phrase("the last words MUST be §|are the last words §", end),
    ]
}

fn counted() -> Vec<Phrase> {
    let placeholders: Read = |found, _, _| {
        let count = at_least(&found["count"])?;
        Some(Rule::all([Constraint::NumberPlaceholders { count }]))
    };
    let highlights: Read = |found, _, _| {
        let count = at_least(&found["count"])?;
        Some(Rule::all([Constraint::NumberHighlightedSections { count }]))
    };
    // Of bullets, so many are exactly so many.
    let exactly: Read = |found, _, _| {
        let count = Some(count_of(&found["count"])?);
        bullets(Range {
            least: count,
            most: count,
        })
    };
    let at_least_so_many = |pattern: &str, read: Read| {
        phrase(
            &pattern.replace("COUNT", r"(?<count>at least \d+|\d+ or more)"),
            read,
        )
    };
    vec![
        at_least_so_many(
            "(?:leave|use|are there) COUNT placeholders(?: in square brackets| such as \\[name\\])?",
            placeholders,
        ),
        at_least_so_many(
            "(?:does ANSWER have|i want) COUNT placeholders(?: in square brackets)?",
            placeholders,
        ),
        at_least_so_many(
            "(?:highlight|put|set) COUNT words (?:with|between|in) \\*?asterisks\\*?",
            highlights,
        ),
        at_least_so_many(
            "are COUNT words (?:highlighted with|in) asterisks",
            highlights,
        ),
        at_least_so_many("do COUNT words stand between asterisks", highlights),
        at_least_so_many("mark COUNT words like \\*this\\*", highlights),
        phrase(
            r"(?:use|write|put it into|does ANSWER have) (?<count>\d+) (?:bullet points|bullets)",
            exactly,
        ),
        phrase(r"is the number of bullets (?<count>\d+)", exactly),
    ]
}

fn letter_case() -> Vec<Phrase> {
    let lower: Read = |_, _, request| english(request, Constraint::EnglishLowercase);
    let upper: Read = |_, _, request| english(request, Constraint::EnglishCapital);
    let case = |letters: &str, read: Read| {
        let patterns = [
            "(?:use|write in) LETTERS letters only",
            "write everything in LETTERS letters",
            "is ANSWER in LETTERS letters only",
        ];
        patterns.map(|pattern| phrase(&pattern.replace("LETTERS", letters), read))
    };
    let mut phrases = vec![
        phrase(
            "all letters MUST be capitals|are all letters capitals",
            upper,
        ),
        phrase("all letters MUST be small|are all letters small", lower),
        phrase("(?:keep|is) the whole text in upper case", upper),
        phrase("(?:keep|is) the whole text in lower case", lower),
        does("avoid capital letters", lower),
    ];
    phrases.extend(case("capital", upper));
    phrases.extend(case("small", lower));
    phrases
}
