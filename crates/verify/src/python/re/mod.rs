//! Regular expressions with the syntax and the meaning of Python's `re` (CPython 3.11, text
//! patterns), in bounded time.
//!
//! A pattern is read into a tree (`parse`); what the `regex` crate can express with equal
//! meaning is handed to it, the rest runs on a backtracking machine that gives up after a fixed
//! number of steps, where Python would go on for as long as it takes.
//!
//! Not supported: characters by name (`\N{...}`).

mod fold;
mod literal;
mod machine;
mod parse;
mod program;
mod translate;
mod tree;

use literal::Literal;
use machine::{MAX_STEPS, Machine};
use program::Program;
use std::sync::OnceLock;

/// Flags of a whole search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// No flag.
    Plain,
    /// `re.IGNORECASE`
    IgnoreCase,
    /// `re.MULTILINE`
    Multiline,
}

/// A pattern that `re.compile` refuses, or that is too large.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason} at character {at}")]
pub struct SyntaxError {
    /// What is wrong.
    pub reason: String,
    /// Where, in characters from the start of the pattern.
    pub at: usize,
}

/// A search that was given up after a fixed number of steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the search takes too many steps")]
pub struct GaveUp;

/// States times characters (times the characters looked at again) up to which the linear engine
/// is asked: its worst case, which it cannot give up.
const MAX_WORK: usize = 1 << 28;

/// Texts for which the machine is tried before the linear engine is compiled.
const QUICK_BYTES: usize = 1 << 13;

/// Steps of that trial.
const QUICK_STEPS: u64 = 50_000;

/// A compiled pattern.
#[derive(Debug)]
pub struct Regex {
    pattern: String,
    program: Program,
    literal: Option<Literal>,
    linear: Option<translate::Source>,
    compiled: OnceLock<Option<regex::Regex>>,
}

impl Regex {
    /// Compiles a pattern.
    ///
    /// # Errors
    ///
    /// Python refuses the pattern, or it is too large for the machine.
    pub fn new(pattern: &str, mode: Mode) -> Result<Self, SyntaxError> {
        let tree = parse::parse(pattern, mode)?;
        let program = Program::new(&tree)?;
        let literal = Literal::of(&tree.root);
        Ok(Self {
            pattern: pattern.to_owned(),
            linear: match literal {
                Some(_) => None,
                None => translate::translate(&tree.root),
            },
            literal,
            program,
            compiled: OnceLock::new(),
        })
    }

    /// The pattern.
    #[must_use]
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// Number of groups that capture.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.program.groups
    }

    /// Whether the text contains a match.
    ///
    /// # Errors
    ///
    /// The search took too many steps.
    pub fn is_match(&self, text: &str) -> Result<bool, GaveUp> {
        if let Some(literal) = &self.literal {
            return Ok(literal.count(text, 1) > 0);
        }
        if let Some(machine) = self.quick_machine(text)
            && let Ok(found) = machine.finds()
        {
            return Ok(found);
        }
        match self.linear_engine(text, Some(1)) {
            Some(regex) => Ok(regex.is_match(text)),
            None => Machine::new(&self.program, text, MAX_STEPS).finds(),
        }
    }

    /// Number of matches without overlaps, as `re.findall` finds them.
    ///
    /// # Errors
    ///
    /// The search took too many steps.
    pub fn count(&self, text: &str) -> Result<usize, GaveUp> {
        if let Some(literal) = &self.literal {
            return Ok(literal.count(text, usize::MAX));
        }
        if let Some(machine) = self.quick_machine(text)
            && let Ok(count) = machine.count()
        {
            return Ok(count);
        }
        let width = self.linear.as_ref().and_then(|source| source.width);
        match self.linear_engine(text, width) {
            Some(regex) => Ok(regex.find_iter(text).count()),
            None => Machine::new(&self.program, text, MAX_STEPS).count(),
        }
    }

    /// The machine with few steps, for a text so short that they cost less than compiling.
    fn quick_machine(&self, text: &str) -> Option<Machine<'_>> {
        let worth = text.len() <= QUICK_BYTES && self.compiled.get().is_none();
        worth.then(|| Machine::new(&self.program, text, QUICK_STEPS))
    }

    /// The linear engine where it means the same on this text and is quick, though it may look
    /// at each character so many times, or at the whole text (none) again for each.
    fn linear_engine(&self, text: &str, times: Option<usize>) -> Option<&regex::Regex> {
        let source = self.linear.as_ref()?;
        let times = times.map_or(text.len(), |times| times.min(text.len()));
        let work = source.size.saturating_mul(text.len()).saturating_mul(times);
        if work > MAX_WORK {
            return None;
        }
        if source.ascii_only && !text.is_ascii() {
            return None;
        }
        self.compiled.get_or_init(|| source.compile()).as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn count(pattern: &str, mode: Mode, text: &str) -> usize {
        let regex = Regex::new(pattern, mode).expect("valid");
        regex.count(text).expect("few steps")
    }

    #[test]
    fn matches_are_counted_as_python_counts_them() {
        use Mode::{IgnoreCase, Multiline, Plain};
        for (pattern, mode, text, expected) in [
            ("", Plain, "abc", 4),
            ("a*", Plain, "baac", 4),
            ("(a|)", Plain, "aab", 4),
            ("(a|)*", Plain, "aab", 3),
            ("i", IgnoreCase, "iIİıj", 4),
            ("(?a)i", IgnoreCase, "iIİı", 2),
            ("[a-z]", IgnoreCase, "\u{212a}ſİ1", 3),
            (r"\bcat\b", IgnoreCase, "Cat cat\u{301} concat", 2),
            (r"\B", Plain, "", 0),
            (r"\w+", Plain, "a\u{301}b ‿ x_1", 3),
            (r"\s", Plain, "\u{1c} \u{200d}", 2),
            ("a$", Plain, "a\na\n", 1),
            ("a$", Multiline, "a\na\n", 2),
            (r"a\Z", Plain, "a\n", 0),
            (r"(a+)\1", Plain, "aaaaa", 1),
            (r"(?<=a)b|(?<!a)c", Plain, "abcac", 2),
            ("(?>a+)ab", Plain, "aaab", 0),
            ("a++b|a", Plain, "aab a", 2),
            ("(a)?(?(1)b|c)", Plain, "ab c ac", 3),
            ("a{,2}", Plain, "aaa", 3),
            ("a{x}", Plain, "a{x}", 1),
            ("(?P<q>.)(?P=q)", IgnoreCase, "aA σς", 1),
            ("(?x: a b # c\n)", Plain, "ab", 1),
            ("[]a]", Plain, "]a", 2),
            (r"[\d-]", Plain, "٣-", 2),
            (r"\x41\u0042\103", Plain, "ABC", 1),
        ] {
            assert_eq!(count(pattern, mode, text), expected, "{pattern:?} {text:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn both_engines_agree(
            parts in proptest::collection::vec(
                proptest::sample::select(vec![
                    "a", "b", "i", "ſ", " ", ".", "\\w", "\\W", "\\d", "\\s", "[ab]", "[^a]", "[a-k]", "a+", "b*", "i?", "b{1,2}",
                    "a+?", "(?:a|ab)", "(b|bi)+", "\\b", "^", "\\Z", "|",
                ]),
                1..6,
            ),
            text in "[abiIıİsſ \n1é]{0,30}",
            fold in any::<bool>(),
        ) {
            let mode = if fold { Mode::IgnoreCase } else { Mode::Plain };
            let Ok(regex) = Regex::new(&parts.concat(), mode) else {
                return Ok(());
            };
            if let Some(linear) = regex.linear_engine(&text, None) {
                let matches = Machine::new(&regex.program, &text, MAX_STEPS).count();
                prop_assert_eq!(regex.count(&text), matches);
                prop_assert_eq!(Ok(linear.find_iter(&text).count()), matches);
            }
        }
    }
}
