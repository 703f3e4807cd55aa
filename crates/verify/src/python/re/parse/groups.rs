//! Everything in parentheses.

use super::{Flags, Parsed, Parser};
use crate::python::re::tree::Node;

impl Parser {
    /// A group after its parenthesis; none for a comment.
    pub(super) fn group(&mut self, flags: Flags, start: usize) -> Parsed<Option<Node>> {
        if !self.eat('?') {
            return self.capturing(flags, start).map(Some);
        }
        let Some(c) = self.next() else {
            return Err(self.error("unexpected end of pattern"));
        };
        Ok(Some(match c {
            '#' => {
                while let Some(c) = self.next() {
                    if c == ')' {
                        return Ok(None);
                    }
                }
                return Err(self.error_at(start, "missing ), unterminated comment"));
            }
            ':' => self.inside(flags, start)?,
            '>' => Node::Atomic(Box::new(self.inside(flags, start)?)),
            '=' => self.look(flags, start, false)?,
            '!' => self.look(flags, start, true)?,
            '<' => match self.next() {
                Some('=') => self.look_behind(flags, start, false)?,
                Some('!') => self.look_behind(flags, start, true)?,
                _ => return Err(self.error_at(start + 1, "unknown extension ?<")),
            },
            'P' => self.named(flags, start)?,
            '(' => self.conditional(flags, start)?,
            '-' | 'a'..='z' | 'A'..='Z' => {
                self.at -= 1;
                self.with_flags(flags, start)?
            }
            c => return Err(self.error_at(start + 1, format!("unknown extension ?{c}"))),
        }))
    }

    /// The pattern up to the closing parenthesis, which is eaten.
    fn inside(&mut self, flags: Flags, start: usize) -> Parsed<Node> {
        let node = self.alternatives(flags)?;
        if !self.eat(')') {
            return Err(self.error_at(start, "missing ), unterminated subpattern"));
        }
        // Wrapped, so that a repetition inside is not taken for one outside.
        Ok(Node::Concat(vec![node]))
    }

    fn capturing(&mut self, flags: Flags, start: usize) -> Parsed<Node> {
        self.groups.push(None);
        let group = self.groups.len();
        let node = self.inside(flags, start)?;
        self.groups[group - 1] = Some(node.width());
        Ok(Node::Group(group, Box::new(node)))
    }

    fn look(&mut self, flags: Flags, start: usize, negated: bool) -> Parsed<Node> {
        let node = Box::new(self.inside(flags, start)?);
        let behind = None;
        Ok(Node::Look {
            node,
            behind,
            negated,
        })
    }

    fn look_behind(&mut self, flags: Flags, start: usize, negated: bool) -> Parsed<Node> {
        let outer = self.behind;
        self.behind = outer.or(Some(self.groups.len()));
        let node = self.inside(flags, start)?;
        self.behind = outer;
        let (least, most) = self.width(&node);
        if most != Some(least) {
            return Err(self.error_at(start, "look-behind requires fixed-width pattern"));
        }
        Ok(Node::Look {
            node: Box::new(node),
            behind: usize::try_from(least).ok(),
            negated,
        })
    }

    /// As [`Node::width`], with what is known of the groups.
    fn width(&self, node: &Node) -> (u64, Option<u64>) {
        let mut node = node.clone();
        self.fill(&mut node);
        node.width()
    }

    /// Puts a place of no width, or a character as wide, where a group is referred to.
    fn fill(&self, node: &mut Node) {
        if let Node::Back { group, .. } = node {
            if let Some(Some((least, most))) = self.groups.get(*group - 1) {
                *node = Node::Repeat {
                    node: Box::new(Node::One(super::Set::one(0, super::Cases::Kept))),
                    least: u32::try_from(*least).unwrap_or(u32::MAX),
                    most: most.map(|most| u32::try_from(most).unwrap_or(u32::MAX)),
                    kind: super::Kind::Greedy,
                };
            }
            return;
        }
        match node {
            Node::Concat(nodes) | Node::Either(nodes) => {
                nodes.iter_mut().for_each(|node| self.fill(node));
            }
            Node::Group(_, node)
            | Node::Atomic(node)
            | Node::Repeat { node, .. }
            | Node::Look { node, .. } => self.fill(node),
            Node::Conditional { yes, no, .. } => {
                self.fill(yes);
                self.fill(no);
            }
            Node::One(_) | Node::Place(_) | Node::Back { .. } => {}
        }
    }

    /// `(?P<name>...)` and `(?P=name)` after the letter.
    fn named(&mut self, flags: Flags, start: usize) -> Parsed<Node> {
        let name_start = self.at + 1;
        if self.eat('<') {
            let name = self.until('>', "group name")?;
            self.check_name(&name, name_start)?;
            if self.names.iter().any(|(known, _)| *known == name) {
                return Err(
                    self.error_at(name_start, format!("redefinition of group name {name:?}"))
                );
            }
            self.names.push((name, self.groups.len() + 1));
            return self.capturing(flags, start);
        }
        if self.eat('=') {
            let name = self.until(')', "group name")?;
            self.check_name(&name, name_start)?;
            return match self.number(&name) {
                Some(group) => self.back(group, flags, start),
                None => Err(self.error_at(name_start, format!("unknown group name {name:?}"))),
            };
        }
        Err(self.error_at(start + 1, "unknown extension ?P"))
    }

    fn number(&self, name: &str) -> Option<usize> {
        let found = self.names.iter().find(|(known, _)| known == name);
        found.map(|(_, group)| *group)
    }

    fn check_name(&self, name: &str, at: usize) -> Parsed<()> {
        let first = |c: char| c == '_' || c.is_alphabetic();
        let rest = |c: char| c == '_' || c.is_alphanumeric();
        match name.starts_with(first) && name.chars().all(rest) {
            true => Ok(()),
            false => Err(self.error_at(at, format!("bad character in group name {name:?}"))),
        }
    }

    /// `(?(1)yes|no)` after the second parenthesis.
    fn conditional(&mut self, flags: Flags, start: usize) -> Parsed<Node> {
        let name_start = self.at;
        let name = self.until(')', "group name")?;
        let group = if name.bytes().all(|byte| byte.is_ascii_digit()) {
            let group = name.parse().unwrap_or(usize::MAX);
            if group == 0 {
                return Err(self.error_at(name_start, "bad group number"));
            }
            self.conditions.push((group, name_start));
            group
        } else {
            self.check_name(&name, name_start)?;
            let unknown = || self.error_at(name_start, format!("unknown group name {name:?}"));
            self.number(&name).ok_or_else(unknown)?
        };
        self.depth += 1;
        let yes = self.sequence(flags)?;
        let no = match self.eat('|') {
            true => self.sequence(flags)?,
            false => Node::Concat(Vec::new()),
        };
        self.depth -= 1;
        if self.peek() == Some('|') {
            return Err(self.error("conditional backref with more than two branches"));
        }
        if !self.eat(')') {
            return Err(self.error_at(start, "missing ), unterminated subpattern"));
        }
        Ok(Node::Conditional {
            group,
            yes: Box::new(yes),
            no: Box::new(no),
        })
    }

    /// `(?i-m:...)` after the question mark.
    fn with_flags(&mut self, mut flags: Flags, start: usize) -> Parsed<Node> {
        let on = self.letters(&mut flags, true)?;
        if self.peek() == Some(')') {
            let reason = "global flags not at the start of the expression";
            return Err(self.error_at(start, reason));
        }
        if self.eat('-') {
            let off_start = self.at;
            let before = flags;
            if self.letters(&mut flags, false)? == 0 {
                return Err(self.error_at(off_start, "missing flag"));
            }
            let both = on > 0
                && self.chars[start + 2..off_start - 1]
                    .iter()
                    .any(|letter| self.chars[off_start..self.at].contains(letter));
            if both && before.fold | before.lines | before.all | before.verbose {
                return Err(self.error_at(off_start, "bad inline flags: flag turned on and off"));
            }
        }
        if !self.eat(':') {
            return Err(self.error("missing :"));
        }
        self.inside(flags, start)
    }
}
