//! The tokens of one sentence as NLTK 3.9.1's `NLTKWordTokenizer` makes them.
//!
//! Its substitutions are applied one after the other to the whole sentence, in its order; a
//! substitution is skipped where the sentence lacks the character that it starts from.

use crate::python;
use regex::Regex;
use std::sync::LazyLock;

/// A substitution: the characters without one of which it does nothing, the pattern, and what
/// takes its place.
struct Rule {
    triggers: Characters,
    pattern: Regex,
    replacement: &'static str,
}

/// Which characters a text has: each of ASCII's by itself, all others together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Characters {
    ascii: u128,
    others: bool,
}

impl Characters {
    fn of(text: &str) -> Self {
        let mut ascii = 0;
        for byte in text.bytes() {
            // Bytes of other characters all have the highest bit set; they are counted below.
            ascii |= 1_u128 << (byte & 127) & u128::from(byte < 128).wrapping_neg();
        }
        Self {
            ascii,
            others: !text.is_ascii(),
        }
    }

    fn meets(self, other: Self) -> bool {
        self.ascii & other.ascii != 0 || (self.others && other.others)
    }
}

fn rules(list: &[(&[char], &str, &'static str)]) -> Vec<Rule> {
    let make = |(triggers, pattern, replacement): &(&[char], &str, &'static str)| Rule {
        triggers: Characters::of(&triggers.iter().collect::<String>()),
        pattern: Regex::new(pattern).expect("the patterns below are valid"),
        replacement,
    };
    list.iter().map(make).collect()
}

static STARTING_QUOTES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    rules(&[
        (&['«', '“', '‘', '„', '`'], "[«“‘„]|`+", " $0 "),
        (&['"'], "^\"", "``"),
        (&['`'], "``", " $0 "),
        (&['"', '\''], r#"([ (\[{<])("|'')"#, "$1 `` "),
    ])
});

static SEPARATORS: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    rules(&[
        (&[':', ','], r"([:,])(\D)", " $1 $2"),
        (&[':', ','], r"([:,])(\n?)$", " $1 $2"),
        (&['.'], r"\.{2,}", " $0 "),
        (&[';', '@', '#', '$', '%', '&'], "[;@#$%&]", " $0 "),
    ])
});

static MARKS: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    rules(&[
        (&['?', '!'], "[?!]", " $0 "),
        (&['\''], "([^'])' ", "$1 ' "),
        (&['*'], r"\*", " $0 "),
        (
            &['[', ']', '(', ')', '{', '}', '<', '>'],
            r"[\[\](){}<>]",
            " $0 ",
        ),
        (&['-'], "--", " $0 "),
    ])
});

static ENDING_QUOTES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    rules(&[
        (&['»', '”', '’'], "[»”’]", " $0 "),
        (&['\''], "''", " '' "),
        (&['"'], "\"", " '' "),
    ])
});

static CLITICS: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    rules(&[
        (&['\''], "([^' ])('[sSmMdD]|') ", "$1 $2 "),
        (
            &['\''],
            "([^' ])('ll|'LL|'re|'RE|'ve|'VE|n't|N'T) ",
            "$1 $2 ",
        ),
    ])
});

/// Tokens of a sentence.
pub(super) fn tokenize(sentence: &str) -> Vec<String> {
    let mut text = sentence.to_owned();
    apply(&STARTING_QUOTES, &mut text);
    part_apostrophe(&mut text);
    part_final_dot(
        &mut text,
        |c| matches!(c, ' ' | '»' | '”' | '’') || closes(c),
        " ",
    );
    apply(&SEPARATORS, &mut text);
    part_final_dot(&mut text, closes, "");
    apply(&MARKS, &mut text);
    text.insert(0, ' ');
    text.push(' ');
    apply(&ENDING_QUOTES, &mut text);
    squeeze(&mut text);
    apply(&CLITICS, &mut text);
    part_contractions(&mut text);
    python::split(&text).map(str::to_owned).collect()
}

fn apply(rules: &[Rule], text: &mut String) {
    let mut present = Characters::of(text);
    for rule in rules.iter() {
        if !rule.triggers.meets(present) {
            continue;
        }
        let replaced = rule.pattern.replace_all(text, rule.replacement);
        if let std::borrow::Cow::Owned(replaced) = replaced {
            *text = replaced;
            present = Characters::of(text);
        }
    }
}

fn closes(c: char) -> bool {
    matches!(c, ']' | ')' | '}' | '>' | '"' | '\'')
}

/// Parts an apostrophe from the one word character after it, unless that begins a clitic.
fn part_apostrophe(text: &mut String) {
    if !text.contains('\'') {
        return;
    }
    let mut parted = String::with_capacity(text.len() + 8);
    let mut rest = text.as_str();
    while let Some(at) = rest.find('\'') {
        let (before, after) = rest.split_at(at + 1);
        parted.push_str(before);
        rest = after;
        let mut chars = after.chars();
        let single =
            chars.next().is_some_and(python::is_word) && !chars.next().is_some_and(python::is_word);
        if single && !starts_clitic(after) {
            parted.push(' ');
        }
    }
    parted.push_str(rest);
    *text = parted;
}

/// Whether the text starts, in any case, with `re`, `ve`, `ll`, `m`, `t`, `s`, `d` or `n`.
fn starts_clitic(text: &str) -> bool {
    let mut chars = text.chars().map(|c| c.to_ascii_lowercase());
    match (chars.next(), chars.next()) {
        // The long s is a lower-case s to a search that ignores case.
        (Some('m' | 't' | 's' | 'ſ' | 'd' | 'n'), _) => true,
        (Some('r' | 'v'), Some('e')) | (Some('l'), Some('l')) => true,
        _ => false,
    }
}

/// Parts the last dot from the word before it, where only a tail and white space follow it and
/// no other dot stands before it. `gap` comes between dot and tail.
fn part_final_dot(text: &mut String, in_tail: impl Fn(char) -> bool, gap: &str) {
    let Some(dot) = text.rfind('.') else {
        return;
    };
    let after = &text[dot + 1..];
    let blank = after.trim_start_matches(in_tail);
    let alone = dot > 0 && text.as_bytes()[dot - 1] != b'.';
    if !alone || !python::is_blank(blank) {
        return;
    }
    let tail = &after[..after.len() - blank.len()];
    *text = format!("{} .{gap}{tail} ", &text[..dot]);
}

/// Makes every run of white space one space.
fn squeeze(text: &mut String) {
    let mut squeezed = String::with_capacity(text.len());
    let mut in_space = false;
    for c in text.chars() {
        let space = python::is_space(c);
        if !space {
            squeezed.push(c);
        } else if !in_space {
            squeezed.push(' ');
        }
        in_space = space;
    }
    *text = squeezed;
}

/// Words that are two: the first part, the second, and what must stand before and after.
struct Contraction {
    pattern: Regex,
    /// A space before is part of the match; else a word boundary must be there.
    after_space: bool,
    /// White space must follow; else a word boundary must.
    before_space: bool,
}

static CONTRACTIONS: LazyLock<Vec<Contraction>> = LazyLock::new(|| {
    let make = |pattern: &str, after_space, before_space| Contraction {
        pattern: Regex::new(&format!("(?i){pattern}")).expect("the patterns below are valid"),
        after_space,
        before_space,
    };
    vec![
        make("(can)(not)", false, false),
        make("(d)('ye)", false, false),
        make("(g[iıİ]m)(me)", false, false),
        make("(gon)(na)", false, false),
        make("(got)(ta)", false, false),
        make("(lem)(me)", false, false),
        make("(more)('n)", false, false),
        make("(wan)(na)", false, true),
        make(" ('t)([iıİ]s)", true, false),
        make(" ('t)(was)", true, false),
    ]
});

fn part_contractions(text: &mut String) {
    static ANY: LazyLock<Regex> = LazyLock::new(|| {
        let any = "(?i)cannot|d'ye|g[iıİ]mme|gonna|gotta|lemme|more'n|wanna| 't[iıİ]s| 'twas";
        Regex::new(any).expect("the pattern above is valid")
    });
    if !ANY.is_match(text) {
        return;
    }
    for contraction in CONTRACTIONS.iter() {
        contraction.apply(text);
    }
}

impl Contraction {
    fn apply(&self, text: &mut String) {
        let mut parted = String::new();
        let (mut copied, mut from) = (0, 0);
        while let Some(found) = self.pattern.captures_at(text, from) {
            let whole = found.get(0).expect("group 0 is the match").range();
            // No two of these words overlap, so the search may go on after any of them.
            from = whole.end;
            if !self.stands_alone(text, &whole) {
                continue;
            }
            parted.push_str(&text[copied..whole.start]);
            parted.push_str(&format!(" {} {} ", &found[1], &found[2]));
            copied = whole.end;
        }
        if copied > 0 {
            parted.push_str(&text[copied..]);
            *text = parted;
        }
    }

    fn stands_alone(&self, text: &str, found: &std::ops::Range<usize>) -> bool {
        let before = text[..found.start].chars().next_back();
        let after = text[found.end..].chars().next();
        let starts = self.after_space || !before.is_some_and(python::is_word);
        let ends = match self.before_space {
            true => after.is_some_and(python::is_space),
            false => !after.is_some_and(python::is_word),
        };
        starts && ends
    }
}
