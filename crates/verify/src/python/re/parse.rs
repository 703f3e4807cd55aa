//! Python's syntax of regular expressions.

mod escapes;
mod groups;

use super::tree::{Cases, Item, Kind, Node, Place, Set, Tree, Words};
use super::{Mode, SyntaxError};

/// Open parentheses within which a pattern is still read; Python itself stops at a few hundred.
const MAX_DEPTH: usize = 200;

/// Reads a pattern.
pub(super) fn parse(pattern: &str, mode: Mode) -> Result<Tree, SyntaxError> {
    let mut parser = Parser {
        chars: pattern.chars().collect(),
        at: 0,
        groups: Vec::new(),
        names: Vec::new(),
        behind: None,
        conditions: Vec::new(),
        depth: 0,
    };
    let mut flags = Flags {
        fold: mode == Mode::IgnoreCase,
        lines: mode == Mode::Multiline,
        ..Flags::default()
    };
    parser.global_flags(&mut flags)?;
    let root = parser.alternatives(flags)?;
    if parser.at < parser.chars.len() {
        return Err(parser.error("unbalanced parenthesis"));
    }
    let groups = parser.groups.len();
    match parser.conditions.iter().find(|(group, _)| *group > groups) {
        None => Ok(Tree { root, groups }),
        Some((group, at)) => Err(SyntaxError {
            reason: format!("invalid group reference {group}"),
            at: *at,
        }),
    }
}

/// Flags that hold at a place of the pattern.
#[derive(Debug, Clone, Copy, Default)]
struct Flags {
    fold: bool,
    lines: bool,
    all: bool,
    verbose: bool,
    ascii: bool,
}

impl Flags {
    fn cases(self) -> Cases {
        match (self.fold, self.ascii) {
            (false, _) => Cases::Kept,
            (true, false) => Cases::Folded,
            (true, true) => Cases::AsciiFolded,
        }
    }

    fn words(self) -> Words {
        match self.ascii {
            true => Words::Ascii,
            false => Words::Unicode,
        }
    }
}

struct Parser {
    chars: Vec<char>,
    at: usize,
    /// Of each group, whether it is closed, and its width if it is.
    groups: Vec<Option<(u64, Option<u64>)>>,
    names: Vec<(String, usize)>,
    /// Number of groups before the lookbehind that is being read.
    behind: Option<usize>,
    /// Groups that conditions name, and where.
    conditions: Vec<(usize, usize)>,
    depth: usize,
}

type Parsed<T> = Result<T, SyntaxError>;

impl Parser {
    fn error(&self, reason: impl Into<String>) -> SyntaxError {
        self.error_at(self.at, reason)
    }

    fn error_at(&self, at: usize, reason: impl Into<String>) -> SyntaxError {
        SyntaxError {
            reason: reason.into(),
            at,
        }
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek();
        self.at += usize::from(next.is_some());
        next
    }

    fn eat(&mut self, c: char) -> bool {
        let found = self.peek() == Some(c);
        self.at += usize::from(found);
        found
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let length = word.chars().count();
        let found = self.chars[self.at..]
            .iter()
            .take(length)
            .copied()
            .eq(word.chars());
        self.at += if found { length } else { 0 };
        found
    }

    /// Characters up to `end`, which is eaten.
    fn until(&mut self, end: char, what: &str) -> Parsed<String> {
        let start = self.at;
        while let Some(c) = self.next() {
            if c == end {
                let inside = &self.chars[start..self.at - 1];
                if inside.is_empty() {
                    return Err(self.error_at(start, format!("missing {what}")));
                }
                return Ok(inside.iter().collect());
            }
        }
        let reason = format!("missing {end}, unterminated name");
        Err(self.error_at(start, reason))
    }

    /// `(?i)` and its like, which must come first.
    fn global_flags(&mut self, flags: &mut Flags) -> Parsed<()> {
        loop {
            if flags.verbose {
                self.skip_verbose();
            }
            let start = self.at;
            let letter = self.chars.get(start + 2).copied();
            if letter == Some('#') && self.eat_word("(?") {
                // A comment may stand before; one without end is an error of the pattern proper.
                match self.chars[start..].iter().position(|c| *c == ')') {
                    Some(length) => self.at = start + length + 1,
                    None => {
                        self.at = start;
                        return Ok(());
                    }
                }
                continue;
            }
            if !self.eat_word("(?") || !letter.is_some_and(|c| "iLmsxau".contains(c)) {
                self.at = start;
                return Ok(());
            }
            let mut wanted = *flags;
            self.letters(&mut wanted, true)?;
            if !self.eat(')') {
                // A group with flags of its own.
                self.at = start;
                return Ok(());
            }
            *flags = wanted;
        }
    }

    /// Flag letters, to be set to `on`.
    fn letters(&mut self, flags: &mut Flags, on: bool) -> Parsed<usize> {
        let start = self.at;
        let mut types = String::new();
        while let Some(c) = self.peek().filter(char::is_ascii_alphabetic) {
            match c {
                'i' => flags.fold = on,
                'm' => flags.lines = on,
                's' => flags.all = on,
                'x' => flags.verbose = on,
                'L' => {
                    return Err(
                        self.error("bad inline flags: cannot use 'L' flag with a str pattern")
                    );
                }
                'a' | 'u' if !on => {
                    let reason = "bad inline flags: cannot turn off flags 'a', 'u' and 'L'";
                    return Err(self.error(reason));
                }
                'a' | 'u' => {
                    if !types.is_empty() && !types.contains(c) {
                        let reason = "bad inline flags: flags 'a', 'u' and 'L' are incompatible";
                        return Err(self.error(reason));
                    }
                    types.push(c);
                    flags.ascii = c == 'a';
                }
                _ => return Err(self.error("unknown flag")),
            }
            self.at += 1;
        }
        Ok(self.at - start)
    }

    fn skip_verbose(&mut self) {
        while let Some(c) = self.peek() {
            match c {
                ' ' | '\t'..='\r' => self.at += 1,
                '#' => while self.next().is_some_and(|c| c != '\n') {},
                _ => return,
            }
        }
    }

    fn alternatives(&mut self, flags: Flags) -> Parsed<Node> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error("nested too deeply"));
        }
        let mut branches = vec![self.sequence(flags)?];
        while self.eat('|') {
            branches.push(self.sequence(flags)?);
        }
        self.depth -= 1;
        Ok(match branches.len() {
            1 => branches.swap_remove(0),
            _ => Node::Either(branches),
        })
    }

    fn sequence(&mut self, flags: Flags) -> Parsed<Node> {
        let mut nodes = Vec::new();
        loop {
            if flags.verbose {
                self.skip_verbose();
            }
            let Some(c) = self.peek().filter(|c| !matches!(c, '|' | ')')) else {
                return Ok(Node::Concat(nodes));
            };
            let start = self.at;
            self.at += 1;
            match c {
                '?' | '*' | '+' => self.repeat_last(&mut nodes, c, start)?,
                '{' => match self.bounds(start)? {
                    Some(bounds) => self.repeat(&mut nodes, bounds, start)?,
                    None => nodes.push(Node::One(Set::one('{'.into(), flags.cases()))),
                },
                '\\' => nodes.push(self.escape(flags)?),
                '(' => nodes.extend(self.group(flags, start)?),
                _ => nodes.push(self.plain(c, flags)?),
            }
        }
    }

    fn plain(&mut self, c: char, flags: Flags) -> Parsed<Node> {
        Ok(match c {
            '.' => Node::One(Set {
                items: if flags.all {
                    Vec::new()
                } else {
                    vec![Item::Range(10, 10)]
                },
                negated: true,
                cases: Cases::Kept,
            }),
            '^' if flags.lines => Node::Place(Place::LineStart),
            '^' => Node::Place(Place::TextStart),
            '$' if flags.lines => Node::Place(Place::LineEnd),
            '$' => Node::Place(Place::LastLineEnd),
            '[' => Node::One(self.set(flags)?),
            c => Node::One(Set::one(c.into(), flags.cases())),
        })
    }

    fn repeat_last(&mut self, nodes: &mut Vec<Node>, c: char, start: usize) -> Parsed<()> {
        let bounds = match c {
            '?' => (0, Some(1)),
            '*' => (0, None),
            _ => (1, None),
        };
        self.repeat(nodes, bounds, start)
    }

    /// `{2}` and its like after the brace; none if the brace stands for itself.
    fn bounds(&mut self, start: usize) -> Parsed<Option<(u32, Option<u32>)>> {
        let here = self.at;
        if self.peek() == Some('}') {
            return Ok(None);
        }
        let low = self.digits();
        let high = match self.eat(',') {
            true => self.digits(),
            false => low.clone(),
        };
        if !self.eat('}') {
            self.at = here;
            return Ok(None);
        }
        let number = |digits: &str| match digits {
            "" => Ok(None),
            digits => match digits.parse::<u32>() {
                Ok(number) if number < u32::MAX => Ok(Some(number)),
                _ => Err(self.error_at(start, "the repetition number is too large")),
            },
        };
        let (least, most) = (number(&low)?.unwrap_or(0), number(&high)?);
        if most.is_some_and(|most| most < least) {
            return Err(self.error_at(start, "min repeat greater than max repeat"));
        }
        Ok(Some((least, most)))
    }

    fn digits(&mut self) -> String {
        let start = self.at;
        while self.peek().is_some_and(|c| c.is_ascii_digit()) {
            self.at += 1;
        }
        self.chars[start..self.at].iter().collect()
    }

    fn repeat(
        &mut self,
        nodes: &mut Vec<Node>,
        (least, most): (u32, Option<u32>),
        start: usize,
    ) -> Parsed<()> {
        let node = match nodes.pop() {
            None | Some(Node::Place(_)) => return Err(self.error_at(start, "nothing to repeat")),
            Some(Node::Repeat { .. }) => return Err(self.error_at(start, "multiple repeat")),
            // A group of its own hides a repetition from the next one.
            Some(Node::Concat(mut inner)) if inner.len() == 1 => inner.swap_remove(0),
            Some(node) => node,
        };
        let kind = if self.eat('?') {
            Kind::Lazy
        } else if self.eat('+') {
            Kind::Possessive
        } else {
            Kind::Greedy
        };
        nodes.push(Node::Repeat {
            node: Box::new(node),
            least,
            most,
            kind,
        });
        Ok(())
    }
}
