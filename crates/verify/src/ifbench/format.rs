//! `format:*`: the look of the text.

use std::collections::{HashMap, VecDeque};

use super::emoji;
use super::text::{strip, strip_marks, without_punctuation, words};
use crate::args::Args;
use crate::python::{self, is_space};
use crate::{Error, nltk};

/// The group `format`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// Brackets nested five deep.
    Parentheses,
    /// Quotes nested three deep.
    Quotes,
    /// One of some answers.
    Options(Options),
    /// One word per line.
    Newline,
    /// An emoji at the end of each sentence.
    Emoji,
    /// Each line indented more than the one before.
    LineIndent,
    /// Each quotation is followed by other text.
    QuoteUnquote,
    /// A separator occurs twice.
    List(String),
    /// A thesis in HTML italics, then text.
    Thesis,
    /// A `-` below each `*`.
    SubBullets,
    /// Two sentences, then two bullets.
    NoBulletsBullets,
    /// No word in small letters.
    TitleCase,
    /// The labels of a template.
    OutputTemplate,
    /// No white space.
    NoWhitespace,
}

impl Format {
    pub(super) fn parse(name: &str, args: &Args) -> Result<Option<Self>, Error> {
        Ok(Some(match name {
            "parentheses" => Self::Parentheses,
            "quotes" => Self::Quotes,
            "options" => Self::Options(Options::parse(args.text("options")?)),
            "newline" => Self::Newline,
            "emoji" => Self::Emoji,
            "line_indent" => Self::LineIndent,
            "quote_unquote" => Self::QuoteUnquote,
            "list" => Self::List(args.text("sep")?.to_owned()),
            "thesis" => Self::Thesis,
            "sub-bullets" => Self::SubBullets,
            "no_bullets_bullets" => Self::NoBulletsBullets,
            "title_case" => Self::TitleCase,
            "output_template" => Self::OutputTemplate,
            "no_whitespace" => Self::NoWhitespace,
            _ => return Ok(None),
        }))
    }

    pub(super) fn id(&self) -> &'static str {
        match self {
            Self::Parentheses => "format:parentheses",
            Self::Quotes => "format:quotes",
            Self::Options(_) => "format:options",
            Self::Newline => "format:newline",
            Self::Emoji => "format:emoji",
            Self::LineIndent => "format:line_indent",
            Self::QuoteUnquote => "format:quote_unquote",
            Self::List(_) => "format:list",
            Self::Thesis => "format:thesis",
            Self::SubBullets => "format:sub-bullets",
            Self::NoBulletsBullets => "format:no_bullets_bullets",
            Self::TitleCase => "format:title_case",
            Self::OutputTemplate => "format:output_template",
            Self::NoWhitespace => "format:no_whitespace",
        }
    }

    pub(super) fn check(&self, text: &str) -> bool {
        match self {
            Self::Parentheses => brackets_five_deep(text),
            Self::Quotes => quotes_three_deep(text),
            Self::Options(options) => options.permit(text),
            Self::Newline => one_word_per_line(text),
            Self::Emoji => sentences_end_in_emoji(text),
            Self::LineIndent => indents_grow(text),
            Self::QuoteUnquote => quotations_are_explained(text),
            Self::List(separator) => separated_list(text, separator),
            Self::Thesis => italic_thesis(text),
            Self::SubBullets => bullets_have_sub_bullets(text),
            Self::NoBulletsBullets => sentences_then_bullets(text),
            Self::TitleCase => title_case(text),
            Self::OutputTemplate => has_template_labels(text),
            Self::NoWhitespace => !text.chars().any(is_space),
        }
    }

    /// What a text that does not follow the rule lacks.
    pub(super) fn reason(&self) -> String {
        match self {
            Self::Parentheses => "no brackets nested five deep".to_owned(),
            Self::Quotes => "no quotes nested three deep".to_owned(),
            Self::Options(_) => "not one of the permitted answers".to_owned(),
            Self::Newline => "not one word on each line".to_owned(),
            Self::Emoji => "a sentence without an emoji at its end".to_owned(),
            Self::LineIndent => "a line is not indented more than the one before".to_owned(),
            Self::QuoteUnquote => "a quotation without other text after it".to_owned(),
            Self::List(separator) => format!("fewer than two {separator:?}"),
            Self::Thesis => "no thesis in italics with text after it".to_owned(),
            Self::SubBullets => "a bullet without a sub-bullet".to_owned(),
            Self::NoBulletsBullets => "not two sentences and then two bullets".to_owned(),
            Self::TitleCase => "a word in small letters".to_owned(),
            Self::OutputTemplate => "a label of the template is missing".to_owned(),
            Self::NoWhitespace => "white space".to_owned(),
        }
    }
}

/// Brackets of three kinds, properly nested, five deep somewhere.
fn brackets_five_deep(text: &str) -> bool {
    let mut open = Vec::new();
    let mut deepest = 0;
    for c in text.chars() {
        match c {
            '(' => open.push(')'),
            '[' => open.push(']'),
            '{' => open.push('}'),
            ')' | ']' | '}' if open.last() == Some(&c) => {
                open.pop();
                if deepest >= 5 {
                    return true;
                }
            }
            ')' | ']' | '}' => {
                open.clear();
                deepest = 0;
            }
            _ => {}
        }
        deepest = deepest.max(open.len());
    }
    false
}

/// Straight double and single quotes in turns, three deep and closed again. A quote like the
/// innermost open one closes it; any other opens.
fn quotes_three_deep(text: &str) -> bool {
    let mut open = Vec::new();
    let mut deepest = 0;
    for c in text.chars().filter(|c| matches!(c, '"' | '\'')) {
        if open.last() == Some(&c) {
            open.pop();
            if deepest - open.len() >= 3 {
                return true;
            }
        } else {
            open.push(c);
            deepest = deepest.max(open.len());
        }
    }
    false
}

/// Permitted answers, as one parameter names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    options: Vec<String>,
    exact: bool,
}

impl Options {
    /// Options are parted by `/`, else by the letters `or`, else by commas. Letters a, b, c with
    /// only non-letters between them must be answered to the character.
    fn parse(text: &str) -> Self {
        let separator = ["/", "or"].into_iter().find(|s| text.contains(s));
        let options = text.split(separator.unwrap_or(","));
        let mut rest = text.trim_start_matches(|c| !python::is_word(c));
        let exact = ['a', 'b', 'c'].into_iter().all(|letter| {
            let after = rest.strip_prefix([letter, letter.to_ascii_uppercase()]);
            rest = after
                .unwrap_or_default()
                .trim_start_matches(|c| !python::is_word(c));
            after.is_some()
        });
        Self {
            options: options.map(|option| strip(option).to_owned()).collect(),
            exact,
        }
    }

    fn permit(&self, text: &str) -> bool {
        if self.exact {
            return self.options.iter().any(|option| option == text);
        }
        let plain = |text: &str| strip_marks(text).to_lowercase();
        let text = plain(text);
        self.options.iter().any(|option| plain(option) == text)
    }
}

/// As many non-empty lines as words, punctuation aside.
fn one_word_per_line(text: &str) -> bool {
    let text = without_punctuation(text);
    let lines = strip(&text).split('\n').filter(|line| !line.is_empty());
    lines.count() == words(&text).count()
}

/// Each sentence has an emoji among its last two characters or the next one starts with one;
/// punctuation is not counted.
fn sentences_end_in_emoji(text: &str) -> bool {
    let sentences: Vec<String> = nltk::sentences(text)
        .iter()
        .map(|sentence| strip(&without_punctuation(sentence)).to_owned())
        .collect();
    sentences.iter().enumerate().all(|(i, sentence)| {
        let at_end = sentence.chars().rev().take(2).any(emoji::is_emoji);
        let next = sentences.get(i + 1).and_then(|next| next.chars().next());
        !sentence.is_empty() && (at_end || next.is_some_and(emoji::is_emoji))
    })
}

/// Every line is indented by more spaces than the one before.
///
/// Blank lines are dropped first, but as the original drops them: it deletes from the list it
/// walks over, so the line after a deleted one is never looked at, and what is deleted is the
/// first line equal to the blank one at hand, which may be one that was passed over before.
fn indents_grow(text: &str) -> bool {
    let mut kept: Vec<Option<&str>> = Vec::new();
    let mut passed_over: HashMap<&str, VecDeque<usize>> = HashMap::new();
    let mut lines = text.split('\n');
    while let Some(line) = lines.next() {
        if !strip(line).is_empty() {
            kept.push(Some(line));
            continue;
        }
        let earlier = passed_over.get_mut(line).and_then(VecDeque::pop_front);
        if let Some(earlier) = earlier {
            kept[earlier] = None;
            keep(line, &mut kept, &mut passed_over);
        }
        if let Some(next) = lines.next() {
            keep(next, &mut kept, &mut passed_over);
        }
    }
    let indents: Vec<usize> = kept
        .into_iter()
        .flatten()
        .map(|line| line.len() - line.trim_start_matches(' ').len())
        .collect();
    indents.is_sorted_by(|a, b| a < b)
}

fn keep<'a>(
    line: &'a str,
    kept: &mut Vec<Option<&'a str>>,
    blanks: &mut HashMap<&'a str, VecDeque<usize>>,
) {
    if strip(line).is_empty() {
        blanks.entry(line).or_default().push_back(kept.len());
    }
    kept.push(Some(line));
}

/// No two quotations touch and none ends the text; white space, digits and other punctuation
/// at the ends are not counted.
fn quotations_are_explained(text: &str) -> bool {
    let text = text.replace("'\"'", "");
    let text: String = text.chars().filter(|c| !is_space(*c)).collect();
    let is_aside = |c: char| c != '"' && (c.is_ascii_digit() || c.is_ascii_punctuation());
    !text.contains("\"\"") && !text.trim_matches(is_aside).ends_with('"')
}

/// The separator occurs twice.
fn separated_list(text: &str, separator: &str) -> bool {
    text.matches(separator).nth(1).is_some()
}

/// Something in HTML italics, and something after it.
fn italic_thesis(text: &str) -> bool {
    let find = |text: &str, tags: [&str; 2]| text.find(tags[0]).or_else(|| text.find(tags[1]));
    let Some(start) = find(text, ["<i>", "<em>"]) else {
        return false;
    };
    let text = &text[start..];
    let Some(end) = find(text, ["</i>", "</em>"]) else {
        return false;
    };
    // The original takes three and four characters for the tags, whichever they are.
    !strip(&text[3..end]).is_empty() && !strip(&text[end + 4..]).is_empty()
}

/// A `-` between each `*` and the next.
fn bullets_have_sub_bullets(text: &str) -> bool {
    text.split('*').skip(1).all(|bullet| bullet.contains('-'))
}

/// Lines with at least two sentences, then at least two lines that start with `*` and nothing
/// else. A blank line ends the sentences; what follows it must be bullets.
fn sentences_then_bullets(text: &str) -> bool {
    let (mut sentences, mut bullets) = (0, 0);
    let mut ended = false;
    for line in text.split('\n').map(strip) {
        if line.starts_with('*') {
            if sentences < 2 {
                return false;
            }
            ended = true;
            bullets += 1;
        } else if ended {
            return false;
        } else {
            let found = nltk::sentences(line).len();
            ended = found == 0;
            sentences += found;
        }
    }
    bullets >= 2
}

/// No token starts small and goes on small, or starts small and goes on in capitals.
fn title_case(text: &str) -> bool {
    nltk::word_tokenize(text).iter().all(|word| {
        let mut chars = word.chars();
        let Some(first) = chars.next().filter(|c| python::is_alpha(*c)) else {
            return true;
        };
        let rest = chars.as_str();
        let small = first.is_lowercase();
        !small || !(rest.is_empty() || python::is_lower(rest) || python::is_upper(rest))
    })
}

/// The three labels of the template occur.
fn has_template_labels(text: &str) -> bool {
    ["My Answer:", "My Conclusion:", "Future Outlook:"]
        .iter()
        .all(|label| text.contains(label))
}
