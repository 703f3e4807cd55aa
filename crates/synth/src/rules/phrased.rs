//! How people and models put demands that a checker knows. Every pattern is anchored at both
//! ends, so that a text with more in it than the demand is not recognised.

use super::Rule;
use super::described::keyword;
use super::normal::Normal;
use crate::filters::language_of;
use regex::{Captures, Regex};
use std::sync::LazyLock;
use verify::compose::LANGUAGES;
use verify::{Constraint, Keyword, Relation};

/// The answer as a whole; "the essay" or "the summary" may be a part of it.
const ANSWER: &str = r"(?:(?:the|your|its|this) )?(?:(?:entire|whole|complete|full) )?(?:response|answer|output|reply)";
const MUST: &str = r"(?:must|should|has to|needs to|shall|is to)";
/// Ends of demands that say where: in the answer.
const WHERE: &str = r"(?: (?:in|throughout|anywhere in|somewhere in|within) (?:ANSWER|it))?";
/// What a quoted text is called.
const NOUN: &str = r"(?:(?:the |this |these |both |all |of |any |following |exact |specific )*(?:key)?(?:word|phrase|term|keyword|expression)s?:? )";
/// Quoted texts in a row.
const LIST: &str = r"§(?:(?:, and |, or |, | and | or | nor )§)*";

type Read = fn(&Captures<'_>, &Normal, &str) -> Option<Rule>;

/// A pattern, and the rule that follows from what it found.
struct Phrase {
    pattern: Regex,
    read: Read,
}

/// The rule for a text in normal form.
pub(super) fn recognise(normal: &Normal, request: &str) -> Option<Rule> {
    PHRASES.iter().find_map(|phrase| {
        let found = phrase.pattern.captures(&normal.text)?;
        (phrase.read)(&found, normal, request)
    })
}

static PHRASES: LazyLock<Vec<Phrase>> = LazyLock::new(|| {
    let all = [lengths(), words(), languages_and_case(), forms(), ends()];
    all.into_iter().flatten().collect()
});

/// A demand on what the answer does: "contain …", "the answer must contain …", "does the
/// answer contain …".
fn does(verb_phrase: &str, read: Read) -> Phrase {
    let frame = format!("(?:ANSWER MUST |(?:does|did) ANSWER |ANSWER )?(?:{verb_phrase})WHERE");
    phrase(&frame, read)
}

/// A demand on what the answer is: "the answer must be …", "is the answer …".
fn is(adjective_phrase: &str, read: Read) -> Phrase {
    let frame = format!(
        "(?:ANSWER MUST be|ANSWER is|(?:is|was) ANSWER|(?:keep|make) ANSWER|be) (?:{adjective_phrase})"
    );
    phrase(&frame, read)
}

fn phrase(frame: &str, read: Read) -> Phrase {
    let filled = frame
        .replace("WHERE", WHERE)
        .replace("NOUN", NOUN)
        .replace("LIST", LIST)
        .replace("LETTER", "(?:§|(?<letter>[a-z]))")
        .replace("ANSWER", ANSWER)
        .replace("MUST", MUST);
    Phrase {
        pattern: Regex::new(&format!("^(?:{filled})$")).expect("the patterns below are valid"),
        read,
    }
}

fn lengths() -> Vec<Phrase> {
    const WRITE: &str = r"(?:ANSWER MUST |(?:does|did) ANSWER |ANSWER )?(?:(?:write|use|have|has|contain|include|comprise|consist of|stay|remain|be|provide|give)s? |keep ANSWER |(?:respond|answer|reply) (?:in |with |using )|limit ANSWER to )|(?:ANSWER MUST|(?:does|did) ANSWER|(?:is|was) ANSWER) |ANSWER is |(?:are|is) there |in |with |using |";
    let with = |unit: &str| format!("(?:{WRITE})(?<count>.*\\d.*?){unit}WHERE");
    vec![
        phrase(
            r"(?:limit ANSWER to|(?:is|was) ANSWER limited to|ANSWER MUST be limited to) (?<count>\d+ (?:words|sentences))",
            |found, _, _| length(&format!("within {}", &found["count"])),
        ),
        phrase(
            &with("(?: long| in length| in total| in all| total)?"),
            |found, _, _| length(&found["count"]),
        ),
        phrase(&with(r"(?: in markdown| in total)?"), |found, _, _| {
            bullets(Range::parse(&found["count"], Unit::Bullet)?)
        }),
        does(
            r"(?:use|include|have|contain|write)s? (?<count>.*\d+ words?) (?:in|with|written in) (?:all capital letters|all caps|all capitals|all uppercase(?: letters)?)",
            |found, _, _| {
                Range::parse(&found["count"], Unit::Word)?
                    .rule(|relation, count| Constraint::CapitalWordFrequency { relation, count })
            },
        ),
        does(
            r"(?:(?:have|contain|include)s? |be divided into )exactly (?<n>\d+) paragraphs,? (?:separated|divided|set apart) (?:by|with) (?:the (?:markdown )?divider:? )?\*\*\*",
            |found, _, _| {
                let count = count_of(&found["n"])?;
                Some(Rule::all([Constraint::NumberParagraphs { count }]))
            },
        ),
    ]
}

fn length(text: &str) -> Option<Rule> {
    if let Some(range) = Range::parse(text, Unit::Word) {
        return range.rule(|relation, count| Constraint::NumberWords { relation, count });
    }
    Range::parse(text, Unit::Sentence)?
        .rule(|relation, count| Constraint::NumberSentences { relation, count })
}

/// Exactly so many by the checker; at least so many as none of the smaller counts.
fn bullets(range: Range) -> Option<Rule> {
    const MOST: usize = 50;
    let exactly = |count| Constraint::NumberBulletLists { count };
    match (range.least?, range.most) {
        (least, Some(most)) if least == most => Some(Rule::all([exactly(least)])),
        (least, None) if least <= MOST => Some(Rule::none((0..least).map(exactly))),
        _ => None,
    }
}

fn words() -> Vec<Phrase> {
    const USE: &str = r"(?:include|use|contain|incorporate|feature|mention)s?";
    const AVOID: &str = r"(?:avoid(?:s)?(?: using| including| mentioning| the use of)?|(?:do not|don't|never|not) (?:use|include|mention|contain)|without(?: using| including| mentioning)?|refrains? from (?:using|including|mentioning)|omits?|excludes?)";
    const TIMES: &str = r"(?<count>[^§]*?\d[^§]*?)";
    let no_letter: Read = |found, normal, _| {
        Some(Rule::all([Constraint::LetterFrequency {
            letter: letter(found, normal)?,
            relation: Relation::LessThan,
            count: 1,
        }]))
    };
    vec![
        does(
            &format!(r"{USE} (?:NOUN)?LIST(?: somewhere| at least 1 time)?"),
            existence,
        ),
        phrase(
            r"(?:is|are) NOUNLIST (?:used|included|present|mentioned|found)WHERE",
            existence,
        ),
        phrase(
            r"NOUNLIST MUST (?:appear|occur|be used|be included|be present|be mentioned)WHERE",
            existence,
        ),
        phrase(r"(?:does|do) NOUNLIST (?:appear|occur)WHERE", existence),
        does(&format!(r"{AVOID} (?:NOUN)?LIST"), forbidden),
        is(
            r"(?:written |phrased )?(?:free (?:of|from)|without(?: using)?) NOUNLIST",
            forbidden,
        ),
        phrase(
            r"NOUNLIST MUST not (?:appear|occur|be used|be included|be mentioned)WHERE",
            forbidden,
        ),
        does(&format!(r"{USE} NOUN§ {TIMES}"), frequency),
        phrase(&format!(r"(?:is|are) NOUN§ used {TIMES}WHERE"), frequency),
        phrase(
            &format!(r"(?:does|do) NOUN§ (?:appear|occur|come up) {TIMES}WHERE"),
            frequency,
        ),
        phrase(
            &format!(r"NOUN§ MUST (?:appear|occur|be used|come up) {TIMES}WHERE"),
            frequency,
        ),
        does(&format!(r"{USE} the letter LETTER {TIMES}"), letters),
        phrase(
            &format!(r"(?:does|do) the letter LETTER (?:appear|occur|come up) {TIMES}WHERE"),
            letters,
        ),
        phrase(
            &format!(r"the letter LETTER MUST (?:appear|occur|be used|come up) {TIMES}WHERE"),
            letters,
        ),
        does(&format!(r"{AVOID} (?:the|any) letter LETTER"), no_letter),
        is(
            r"(?:written )?without(?: using)? the letter LETTER",
            no_letter,
        ),
    ]
}

fn existence(found: &Captures<'_>, normal: &Normal, _: &str) -> Option<Rule> {
    let whole = &found[0];
    let either = whole.contains(" or §") || whole.contains(" nor §");
    // To mention something is to name it in any words, unless a word is asked for.
    let any_words =
        whole.contains("mention") && !whole.contains("word") && !whole.contains("phrase");
    if either || any_words {
        return None;
    }
    let keywords = quoted_words(normal, Keyword::anywhere)?;
    Some(Rule::all([Constraint::Existence { keywords }]))
}

fn forbidden(_: &Captures<'_>, normal: &Normal, _: &str) -> Option<Rule> {
    let words = quoted_words(normal, Keyword::whole_word)?;
    Some(Rule::all([Constraint::ForbiddenWords { words }]))
}

fn frequency(found: &Captures<'_>, normal: &Normal, _: &str) -> Option<Rule> {
    let keyword = quoted_words(normal, Keyword::counted)?.pop()?;
    Range::parse(&found["count"], Unit::Time)?.rule(|relation, count| Constraint::Frequency {
        keyword: keyword.clone(),
        relation,
        count,
    })
}

fn letters(found: &Captures<'_>, normal: &Normal, _: &str) -> Option<Rule> {
    let letter = letter(found, normal)?;
    Range::parse(&found["count"], Unit::Time)?.rule(|relation, count| Constraint::LetterFrequency {
        letter,
        relation,
        count,
    })
}

/// The letter asked for, quoted or bare.
fn letter(found: &Captures<'_>, normal: &Normal) -> Option<char> {
    if let Some(bare) = found.name("letter") {
        return bare.as_str().chars().next();
    }
    let [only] = normal.quoted.as_slice() else {
        return None;
    };
    let mut letters = only.chars();
    let first = letters.next().filter(|c| c.is_ascii_alphabetic())?;
    letters.next().is_none().then(|| first.to_ascii_lowercase())
}

fn quoted_words(
    normal: &Normal,
    make: fn(&str) -> Result<Keyword, verify::Error>,
) -> Option<Vec<Keyword>> {
    let words = normal.quoted.iter();
    words
        .map(|word| keyword(make, word.trim_end_matches('.')))
        .collect()
}

fn languages_and_case() -> Vec<Phrase> {
    const ONLY: &str = r"(?:entirely |only |completely |exclusively |fully )?";
    const WRITE: &str = r"(?:(?:write|give|provide|compose) ANSWER|respond|answer|reply|write(?: everything)?|be written|be)";
    const LOWER: &str =
        r"(?:(?:all |only )?(?:lowercase|lower case|lower-case)(?: letters)?(?: only)?)";
    const UPPER: &str = r"(?:(?:all |only )?(?:uppercase|upper case|upper-case)(?: letters)?(?: only)?|all caps|all capitals|(?:all|only) capital letters|capital letters only)";
    let lower: Read = |_, _, request| english(request, Constraint::EnglishLowercase);
    let upper: Read = |_, _, request| english(request, Constraint::EnglishCapital);
    let case = |letters: &str, read: Read, in_english: Read| {
        vec![
            is(&format!(r"in english,? and (?:in )?{letters}"), in_english),
            does(&format!(r"{WRITE} {ONLY}(?:in|using) {letters}"), read),
            is(&format!(r"(?:written )?{ONLY}(?:in )?{letters}"), read),
        ]
    };
    let mut phrases = vec![
        does(
            &format!(r"{WRITE} {ONLY}in {ONLY}(?<language>[a-z]+)(?: language)?(?: only)?"),
            language,
        ),
        is(
            &format!(
                r"(?:written |composed )?{ONLY}in {ONLY}(?<language>[a-z]+)(?: language)?(?: only)?"
            ),
            language,
        ),
        phrase("no capital letters are allowed", lower),
        does(
            r"use (?:only|all) (?:lowercase|lower case|lower-case)(?: letters)?",
            lower,
        ),
        does(
            r"(?:avoids?(?: using)?|(?:do not|don't|not) use|contains? no|uses? no|no|without(?: any)?) (?:any )?(?:capital|uppercase|upper case) letters",
            lower,
        ),
        does(
            r"use (?:only|all) (?:uppercase|upper case|capital|upper-case) letters|use (?:only|all) (?:uppercase|capitals|caps)",
            upper,
        ),
    ];
    phrases.extend(case(LOWER, lower, |_, _, _| {
        Some(Rule::all([Constraint::EnglishLowercase]))
    }));
    phrases.extend(case(UPPER, upper, |_, _, _| {
        Some(Rule::all([Constraint::EnglishCapital]))
    }));
    phrases
}

fn language(found: &Captures<'_>, _: &Normal, _: &str) -> Option<Rule> {
    let named = &found["language"];
    let known = LANGUAGES
        .iter()
        .find(|one| one.name.to_lowercase() == named)?;
    Some(Rule::all([Constraint::ResponseLanguage {
        language: known.code.to_owned(),
    }]))
}

/// Whether the checker of this constraint wants no more than `request` does.
pub(super) fn admits(constraint: &Constraint, request: &str) -> bool {
    match constraint {
        Constraint::EnglishCapital | Constraint::EnglishLowercase => {
            language_of(request).as_deref() == Some("en")
        }
        _ => true,
    }
}

/// The checkers of letter case want English too.
fn english(request: &str, constraint: Constraint) -> Option<Rule> {
    admits(&constraint, request).then(|| Rule::all([constraint]))
}

fn forms() -> Vec<Phrase> {
    const LIKE: &str = r"(?:,? (?:such as|like|e\.g\.,?|i\.e\.,?|for example,?) EXAMPLE)?";
    let like = |example: &str| LIKE.replace("EXAMPLE", example);
    let no_comma: Read = |_, _, _| Some(Rule::all([Constraint::NoComma]));
    let json: Read = |_, _, _| Some(Rule::all([Constraint::JsonFormat]));
    let quotation: Read = |_, _, _| Some(Rule::all([Constraint::Quotation]));
    vec![
        does(
            r"(?:avoids?(?: using| the use of)?|you are not allowed to use|(?:do not|don't|never|not) (?:use|include|contain)|(?:contain|use|have|include)s? no|no|without(?: using)?|refrains? from using) (?:any )?commas?",
            no_comma,
        ),
        is(
            r"(?:written )?(?:free (?:of|from)|without(?: using)?|devoid of) (?:any )?commas",
            no_comma,
        ),
        does(
            &format!(
                r"(?:(?:have|has|contain|include|add)s?|give ANSWER) a title,?(?: (?:that is |which is )?(?:wrapped|enclosed|placed|put|written|surrounded))? (?:in|by|with|inside|within) (?:double angular brackets|double angle brackets|<<>>){}",
                like("<<>>")
            ),
            |_, _, _| Some(Rule::all([Constraint::Title])),
        ),
        is(
            r"(?:(?:written|formatted|provided|given) )?(?:entirely |only )?(?:in|as) (?:a )?(?:valid )?json(?: format)?|valid json",
            json,
        ),
        phrase(
            r"(?:format|write|give|provide|wrap|return|output) (?:the|your) (?:entire|whole) (?:response|answer|output|reply) (?:in|as) (?:valid )?json(?: format)?",
            json,
        ),
        does(
            r"(?:wrap|enclose|put|place|surround) ANSWER (?:in|inside|within|with|by) double (?:quotation marks|quotes)",
            quotation,
        ),
        is(
            r"(?:entirely )?(?:wrapped|enclosed|placed|surrounded) (?:in|inside|within|with|by) double (?:quotation marks|quotes)",
            quotation,
        ),
        does(
            &format!(
                r"(?:have|contain|include|use)s? (?<count>.*\d+) placeholders?,? (?:(?:represented|marked|written|indicated|enclosed|shown) )?(?:by|in|with) square brackets{}",
                like(r"\[[^\[\]]*\](?:, \[[^\[\]]*\])*")
            ),
            |found, _, _| {
                let count = at_least(&found["count"])?;
                Some(Rule::all([Constraint::NumberPlaceholders { count }]))
            },
        ),
        does(
            &format!(
                r"(?:highlight|italicize) (?<count>.*\d+) (?:sections?|passages?|phrases?)WHERE (?:with|using|in) (?:markdown(?: asterisks)?|asterisks){}",
                like(r"\*[^*]+\*")
            ),
            |found, _, _| {
                let count = at_least(&found["count"])?;
                Some(Rule::all([Constraint::NumberHighlightedSections { count }]))
            },
        ),
    ]
}

fn ends() -> Vec<Phrase> {
    const TEXT: &str = r"(?:(?:the )?(?:exact )?(?:following )?(?<noun>phrase|sentence|words|line|question|statement):? )?§";
    vec![
        does(
            &format!(
                r"(?:end|finish|conclude|close)s?(?: ANSWER)? with {TEXT}(?<exact> exactly|,? (?:and|with) (?:nothing|no other words)(?: after(?: it)?)?)?"
            ),
            |found, normal, _| {
                let phrase = whole_phrase(found, normal)?;
                // Without its own full stop, an answer that puts one would be failed.
                let closed = phrase.ends_with(['.', '!', '?']);
                let exact = found.name("exact").is_some() || found[0].contains(" exact ");
                (closed || exact).then(|| Rule::all([Constraint::EndChecker { phrase }]))
            },
        ),
        does(
            &format!(r"(?:start|begin|open)s?(?: ANSWER)? with {TEXT}"),
            |found, normal, _| {
                let prompt = whole_phrase(found, normal)?;
                Some(Rule::all([Constraint::RepeatPrompt { prompt }]))
            },
        ),
        does(
            r"(?:at the end of ANSWER,? (?:please )?(?:explicitly )?)?(?:add|include|have|contain|end with|append)s?(?: at the end(?: of ANSWER)?,?)? a postscript (?:starting with|beginning with|that starts with|that begins with|which starts with|marked|marked with|introduced by) (?<marker>§|p\.s\.?|p\.p\.s\.?)",
            |found, normal, _| {
                let named = match &found["marker"] {
                    "§" => normal.quoted.first()?.to_lowercase(),
                    marker => marker.to_owned(),
                };
                let marker = match named.trim_end_matches('.') {
                    "p.s" => "P.S.",
                    "p.p.s" => "P.P.S",
                    _ => return None,
                };
                let marker = Keyword::postscript(marker).ok()?;
                Some(Rule::all([Constraint::Postscript { marker }]))
            },
        ),
    ]
}

/// The one quoted text, if it is more than a word: a word may be the end or start of another.
fn whole_phrase(found: &Captures<'_>, normal: &Normal) -> Option<String> {
    let [phrase] = normal.quoted.as_slice() else {
        return None;
    };
    let several = phrase.split_whitespace().count() >= 2;
    let punctuated = found.name("noun").is_some() && phrase.ends_with(['.', '!', '?', ':', ',']);
    (several || punctuated).then(|| phrase.clone())
}

/// Bounds of a count, both included.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Range {
    least: Option<usize>,
    most: Option<usize>,
}

static BOUND: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = r"^(?:(?<relation>[a-z' ]+?) )?(?:between (?<from>\d+) and (?<to>\d+)|(?<low>\d+)(?: to | ?- ?)(?<high>\d+)|(?<n>\d+))(?<after> or more| or fewer| or less| maximum| max| minimum| at most| at least)?(?: UNIT(?<last> or more| or fewer| or less| maximum| max| minimum| at most| at least)?)?$";
    Regex::new(pattern).expect("the pattern above is valid")
});

impl Range {
    /// Reads "at least 3 sentences", "3 or more sentences", "3 sentences or more". No
    /// relation means no bound: 100 words may be about 100.
    fn parse(text: &str, unit: Unit) -> Option<Self> {
        let replaced = UNITS[unit as usize].replace(text, "UNIT");
        let found = BOUND.captures(&replaced)?;
        found
            .get(0)
            .filter(|whole| whole.as_str().contains("UNIT"))?;
        let group = |name| {
            found
                .name(name)
                .map(|one: regex::Match<'_>| one.as_str().trim())
        };
        let (relation, after, last) = (group("relation"), group("after"), group("last"));
        let pair = |from, to| Some((count_of(group(from)?)?, count_of(group(to)?)?));
        if let Some((least, most)) = pair("from", "to").or_else(|| pair("low", "high")) {
            let stands_alone = relation.is_none() && after.is_none() && last.is_none();
            let ordered = least < most;
            return (stands_alone && ordered).then_some(Self {
                least: Some(least),
                most: Some(most),
            });
        }
        let n = count_of(group("n")?)?;
        let [word] = [relation, after, last]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()[..]
        else {
            return None;
        };
        let (least, most) = match word {
            "at least" | "a minimum of" | "minimum of" | "minimum" | "no fewer than"
            | "no less than" | "not fewer than" | "not less than" | "or more" => (Some(n), None),
            "more than" | "longer than" => (Some(n + 1), None),
            "at most" | "no more than" | "not more than" | "a maximum of" | "maximum of"
            | "maximum" | "max" | "up to" | "no longer than" | "not longer than" | "within"
            | "not exceeding" | "not exceed" | "do not exceed" | "or fewer" | "or less" => {
                (None, Some(n))
            }
            "fewer than" | "less than" | "under" | "shorter than" => (None, n.checked_sub(1)),
            "exactly" | "precisely" => (Some(n), Some(n)),
            _ => return None,
        };
        // Nothing is never asked for.
        (most != Some(0)).then_some(Self { least, most })
    }

    /// Both bounds as the checkers know them: at least, and less than.
    fn rule(self, make: impl Fn(Relation, usize) -> Constraint) -> Option<Rule> {
        let least = self.least.map(|count| make(Relation::AtLeast, count));
        let most = self.most.map(|count| make(Relation::LessThan, count + 1));
        let all: Vec<Constraint> = least.into_iter().chain(most).collect();
        (!all.is_empty()).then(|| Rule::all(all))
    }
}

/// What is counted.
#[derive(Debug, Clone, Copy)]
enum Unit {
    Word,
    Sentence,
    Time,
    Bullet,
}

/// By [`Unit`].
static UNITS: LazyLock<[Regex; 4]> = LazyLock::new(|| {
    let units = [
        "words?",
        "sentences?",
        "times?",
        "(?:markdown )?(?:bullet points?|bullets|bulleted (?:points|items))",
    ];
    units.map(|unit| Regex::new(&format!(r"\b{unit}\b")).expect("the units above are valid"))
});

/// "at least 3", with nothing else said.
fn at_least(text: &str) -> Option<usize> {
    let range = Range::parse(&format!("{text} times"), Unit::Time)?;
    range.least.filter(|_| range.most.is_none())
}

fn count_of(digits: &str) -> Option<usize> {
    let count = digits.parse().ok()?;
    (1..=100_000).contains(&count).then_some(count)
}
