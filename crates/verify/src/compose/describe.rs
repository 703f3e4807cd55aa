//! Constraints in words: several phrasings for each type, with the parameters filled in.
//!
//! The phrasings say what the checkers check: exact counts as exact, names of languages
//! instead of codes, one title, upper bounds as upper bounds. That their parameters can be
//! read back is what [`mentions_parameters`](super::mentions_parameters) tests.

use super::{Kind, languages, numbers};
use crate::{Constraint, Keyword, Relation};

/// One phrasing of the constraint, the `choice`-th modulo how many there are.
///
/// A sentence or two with a final full stop (or the text of the parameter that ends it), ready
/// to be appended to an instruction.
#[must_use]
pub fn describe(constraint: &Constraint, choice: u64) -> String {
    let templates = templates(Kind::of(constraint));
    let index = choice % templates.len() as u64;
    fill(templates[usize::try_from(index).unwrap_or(0)], constraint)
}

/// All phrasings of the constraint.
#[must_use]
pub fn phrasings(constraint: &Constraint) -> Vec<String> {
    templates(Kind::of(constraint))
        .iter()
        .map(|template| fill(template, constraint))
        .collect()
}

/// Words in braces are parameters: `{count}` is the bound with its unit ("at least 3
/// sentences"), the others are texts.
fn templates(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Existence
        | Kind::Frequency
        | Kind::ForbiddenWords
        | Kind::LetterFrequency
        | Kind::ResponseLanguage => words_and_language(kind),
        Kind::NumberSentences
        | Kind::NumberParagraphs
        | Kind::NumberWords
        | Kind::NthParagraphFirstWord
        | Kind::CapitalWordFrequency => lengths(kind),
        Kind::NumberPlaceholders
        | Kind::Postscript
        | Kind::NumberBulletLists
        | Kind::NumberHighlightedSections
        | Kind::MultipleSections
        | Kind::Title => formats(kind),
        Kind::ConstrainedResponse
        | Kind::JsonFormat
        | Kind::TwoResponses
        | Kind::RepeatPrompt
        | Kind::EndChecker => whole_answer(kind),
        _ => case_and_marks(kind),
    }
}

fn words_and_language(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Existence => &[
            "Work the following into your answer: {keywords}.",
            "Your answer has to use {keywords} somewhere.",
            "Make sure that {keywords} can be found in the text.",
            "Please mention {keywords} along the way.",
            "Write it so that it contains {keywords}.",
        ],
        Kind::Frequency => &[
            "Use the word {keyword} {count}.",
            "The word {keyword} should come up {count}.",
            "In your answer, {keyword} must appear {count}.",
            "Write {keyword} {count} in the whole text.",
            "Let {keyword} occur {count}.",
        ],
        Kind::ForbiddenWords => &[
            "Do without {keywords} in your answer.",
            "Your answer must not use {keywords}.",
            "Find a way to say it that avoids {keywords}.",
            "None of these may occur: {keywords}.",
            "Please leave out {keywords}.",
        ],
        Kind::LetterFrequency => &[
            "The letter {letter} should occur {count}, in either case.",
            "Use the letter {letter} {count}.",
            "Counting all of your text, the letter {letter} must come up {count}.",
            "Choose your words so that the letter {letter} appears {count}.",
            "Let the letter {letter} be found {count} in your answer.",
        ],
        _ => &[
            "Write the whole answer in {language}.",
            "Reply in {language} and in no other language.",
            "Use only {language} for your answer.",
            "Everything you write has to be in {language}.",
            "The answer is for readers of {language}; it must be in {language} throughout.",
        ],
    }
}

fn lengths(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::NumberSentences | Kind::NumberWords => &[
            "Write {count}.",
            "Your answer should have {count}.",
            "Keep to {count} in all.",
            "The length should be {count}.",
            "I want to read {count}.",
        ],
        Kind::NumberParagraphs => &[
            "Write exactly {n} paragraphs and put a line with *** between one and the next.",
            "Your answer should have {n} paragraphs, no more and no fewer, divided by ***.",
            "Divide the text into {n} paragraphs with the mark *** between them.",
            "There must be {n} paragraphs; use three asterisks, ***, as the divider.",
            "Give me {n} paragraphs precisely, set apart by ***.",
        ],
        Kind::NthParagraphFirstWord => &[
            "Write exactly {n} paragraphs with a blank line between them; the {nth} one must \
             begin with the word {first_word}.",
            "Your answer should have {n} paragraphs, set apart by blank lines, and paragraph \
             {nth_number} should start with the word {first_word}.",
            "Let {first_word} be the first word of the {nth} of {n} paragraphs, which only a \
             blank line separates.",
            "Give me {n} paragraphs (two line breaks between them). Begin the {nth} with \
             {first_word}.",
            "There must be {n} paragraphs with an empty line after each but the last, and the \
             {nth} paragraph opens with {first_word}.",
        ],
        _ => &[
            "Write {count} entirely in capital letters.",
            "In your answer, {count} should be in all capitals.",
            "Put {count} into capital letters.",
            "Words written in capitals only: {count}.",
            "Your text should show {count} with every letter in upper case.",
        ],
    }
}

fn formats(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::NumberPlaceholders => &[
            "Leave {count} in square brackets, such as [address].",
            "Put in {count} to be filled later, each in square brackets like [name].",
            "Your answer needs {count}; write each in square brackets, for example [date].",
            "Use {count} of the form [item].",
            "Where details are missing, set {count} in square brackets, like [price].",
        ],
        Kind::Postscript => &[
            "Close with a postscript that begins with {marker}",
            "After the main text, add a postscript marked {marker}",
            "Finish by adding a note that starts with {marker}",
            "Add one more remark at the end, introduced by {marker}",
            "Do not forget a postscript; open it with {marker}",
        ],
        Kind::NumberBulletLists => &[
            "Include exactly {count}, in markdown, such as: * This is one point.",
            "Your answer must have {count}, no more and no fewer, each on a line that starts \
             with an asterisk or a hyphen.",
            "Make a list of exactly {count} in markdown.",
            "Give {count} precisely; begin each line with * and a space.",
            "Use markdown to write {count}, that number exactly.",
        ],
        Kind::NumberHighlightedSections => &[
            "Highlight {count} in markdown, like *this phrase*.",
            "Set {count} between asterisks, as in *an important point*.",
            "Your answer should have {count} marked with asterisks, for example *some words*.",
            "Mark {count} as *highlighted* in markdown.",
            "Use markdown asterisks, *like so*, to bring out {count}.",
        ],
        Kind::MultipleSections => &[
            "Arrange the answer in {count}, and head each with {splitter} and its number, as in \
             {splitter} 1.",
            "Your answer must have {count}. Begin each of them with {splitter} X, where X is \
             its number.",
            "Write {count}; the headings are {splitter} 1, {splitter} 2 and so on.",
            "Divide the text into {count} that are numbered after the word {splitter}.",
            "Use {count}, each announced by {splitter} and a number.",
        ],
        _ => &[
            "Give the answer a title in double angular brackets, such as <<a fine day>>.",
            "Put a title at the top and wrap it in double angular brackets, like <<my title>>.",
            "Your answer needs one title, written as <<title>>.",
            "Start with a title of your own between << and >>.",
            "Add a heading for the whole text in the form <<heading>>.",
        ],
    }
}

fn whole_answer(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::ConstrainedResponse => &[
            "Answer with one of these: \"My answer is yes.\", \"My answer is no.\", \"My answer \
             is maybe.\"",
            "Say exactly one of the following: My answer is yes. / My answer is no. / My answer \
             is maybe.",
            "Choose your reply from three: \"My answer is yes.\" or \"My answer is no.\" or \"My \
             answer is maybe.\"",
            "Only three answers are allowed, word for word: My answer is yes. My answer is no. \
             My answer is maybe.",
            "Decide, and write either My answer is yes. or My answer is no. or My answer is \
             maybe.",
        ],
        Kind::JsonFormat => &[
            "Give the entire answer as JSON.",
            "Write nothing but one valid JSON value; a markdown code fence around it is fine.",
            "Your whole output must parse as JSON.",
            "Put all of the answer into JSON and write nothing outside it.",
            "Format everything as JSON.",
        ],
        Kind::TwoResponses => &[
            "Give two different answers, and put ****** (six asterisks) between them.",
            "I would like two answers that differ. Separate them by six asterisks: ******.",
            "Write 2 distinct responses with only ****** between the two.",
            "Answer twice, in two different ways; mark the border with ******.",
            "Offer two alternatives. The first ends where a line of six asterisks, ******, \
             stands.",
        ],
        Kind::RepeatPrompt => &[
            "First repeat the request word for word without any change, then answer it. Say \
             nothing before it. The request to repeat is: {prompt}",
            "Before you answer, copy the following request exactly, and only then go on: \
             {prompt}",
            "Your answer must start with this request, unchanged, and give the answer after it: \
             {prompt}",
            "Begin by writing out the request below as it stands; the answer follows it. \
             {prompt}",
        ],
        _ => &[
            "Finish with this exact phrase and write nothing after it: {end_phrase}",
            "The very last words of your answer must be: {end_phrase}",
            "End on the phrase {end_phrase_quoted} with no other words behind it.",
            "Your answer has to close with {end_phrase_quoted} and then stop.",
            "Let the text end, to the letter, in {end_phrase_quoted}",
        ],
    }
}

fn case_and_marks(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::EnglishCapital => &[
            "Write all of it in English and in capital letters only.",
            "Your whole answer should be English in capital letters.",
            "Use English, and no lower-case letters at all: everything in capitals.",
            "Answer in English with every letter in upper case, in capitals throughout.",
            "Keep your English answer in all capitals.",
        ],
        Kind::EnglishLowercase => &[
            "Write all of it in English and in lowercase letters only.",
            "Your whole answer should be English in lowercase, with no capital letters.",
            "Use English, and not one capital: everything in lowercase.",
            "Answer in English with every letter in lowercase.",
            "Keep your English answer in all lowercase letters.",
        ],
        Kind::NoComma => &[
            "Do not use any commas.",
            "Your answer must not contain a single comma.",
            "Write without commas.",
            "Leave out commas altogether.",
            "No comma may occur in the text.",
        ],
        _ => &[
            "Wrap the whole answer in double quotation marks.",
            "Put double quotation marks around your entire answer.",
            "Begin and end your answer with a double quotation mark.",
            "Your answer should stand between double quotation marks.",
            "Set everything you write inside double quotation marks.",
        ],
    }
}

/// Replaces each `{name}` of the template once, from left to right; what is filled in is not
/// looked at again, so that braces in a parameter stay.
fn fill(template: &str, constraint: &Constraint) -> String {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, tail) = after.split_once('}').unwrap_or((after, ""));
        text.push_str(before);
        text.push_str(&value(name, constraint));
        rest = tail;
    }
    text.push_str(rest);
    text
}

/// The value of one name in braces.
fn value(name: &str, constraint: &Constraint) -> String {
    use Constraint as C;
    match (name, constraint) {
        ("keywords", C::Existence { keywords }) => word_list(keywords, "and"),
        ("keywords", C::ForbiddenWords { words }) => word_list(words, "or"),
        ("keyword", C::Frequency { keyword, .. }) => quoted(keyword.as_str()),
        ("letter", C::LetterFrequency { letter, .. }) => quoted(&letter.to_string()),
        ("language", C::ResponseLanguage { language }) => {
            languages::by_code(language).map_or(language.clone(), |known| known.name.to_owned())
        }
        ("marker", C::Postscript { marker }) => marker.as_str().to_owned(),
        ("splitter", C::MultipleSections { splitter, .. }) => splitter.as_str().to_owned(),
        ("prompt", C::RepeatPrompt { prompt }) => prompt.clone(),
        ("end_phrase", C::EndChecker { phrase }) => phrase.clone(),
        ("end_phrase_quoted", C::EndChecker { phrase }) => quoted(phrase),
        ("n", C::NumberParagraphs { count }) => count.to_string(),
        (
            _,
            C::NthParagraphFirstWord {
                paragraphs,
                nth,
                first_word,
            },
        ) => match name {
            "n" => paragraphs.to_string(),
            "nth" => numbers::ordinal(*nth),
            "nth_number" => nth.to_string(),
            _ => quoted(first_word),
        },
        _ => count(constraint),
    }
}

/// The bound with its unit: "at least 3 sentences", "fewer than 5 times", "4 bullet points".
fn count(constraint: &Constraint) -> String {
    use Constraint as C;
    match constraint {
        C::Frequency {
            relation, count, ..
        }
        | C::LetterFrequency {
            relation, count, ..
        } => bound(*relation, *count, "time"),
        C::NumberSentences { relation, count } => bound(*relation, *count, "sentence"),
        C::NumberWords { relation, count } | C::CapitalWordFrequency { relation, count } => {
            bound(*relation, *count, "word")
        }
        C::NumberPlaceholders { count } => bound(Relation::AtLeast, *count, "placeholder"),
        C::NumberHighlightedSections { count } => bound(Relation::AtLeast, *count, "passage"),
        C::MultipleSections { count, .. } => bound(Relation::AtLeast, *count, "section"),
        C::NumberBulletLists { count } => units(*count, "bullet point"),
        _ => String::new(),
    }
}

fn bound(relation: Relation, n: usize, unit: &str) -> String {
    let words = match relation {
        Relation::AtLeast => "at least",
        Relation::LessThan => "fewer than",
    };
    format!("{words} {}", units(n, unit))
}

fn units(n: usize, unit: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{n} {unit}{plural}")
}

fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

fn word_list(list: &[Keyword], last: &str) -> String {
    let quoted: Vec<String> = list.iter().map(|word| quoted(word.as_str())).collect();
    match quoted.split_last() {
        Some((end, [])) => end.clone(),
        Some((end, front)) => format!("{} {last} {end}", front.join(", ")),
        None => String::new(),
    }
}
