//! Patterns in the syntax of the `regex` crate, where that means the same.

use super::fold;
use super::tree::{Cases, Class, Item, Kind, Node, Place, Set, Words};
use std::fmt::Write;

/// Compiled size up to which a pattern is handed over: it bounds the time per character.
const MAX_COMPILED_BYTES: usize = 1 << 18;

/// A pattern for the `regex` crate.
#[derive(Debug)]
pub(super) struct Source {
    syntax: String,
    /// Means the same on texts of ASCII only.
    pub(super) ascii_only: bool,
    /// Most characters of a match; none: without bound.
    pub(super) width: Option<usize>,
    /// States that it compiles to, about.
    pub(super) size: usize,
}

impl Source {
    /// The compiled pattern; none if it is too large.
    pub(super) fn compile(&self) -> Option<regex::Regex> {
        let mut builder = regex::RegexBuilder::new(&self.syntax);
        builder.size_limit(MAX_COMPILED_BYTES).build().ok()
    }
}

/// The pattern in other syntax; none where its meaning would be another.
pub(super) fn translate(root: &Node) -> Option<Source> {
    let (least, most) = root.width();
    if least == 0 {
        // Empty matches beside others are counted differently.
        return None;
    }
    let mut source = Source {
        syntax: String::new(),
        ascii_only: false,
        width: most.and_then(|most| usize::try_from(most).ok()),
        size: size(root),
    };
    write(root, &mut source)?;
    (source.syntax.len() < 10_000).then_some(source)
}

/// States that a node compiles to, about.
fn size(node: &Node) -> usize {
    match node {
        // A class of Unicode is a small automaton of its own.
        Node::One(set) => set
            .items
            .iter()
            .map(|item| match item {
                Item::Range(..) => 1,
                Item::Class { .. } => 200,
            })
            .sum(),
        Node::Concat(nodes) | Node::Either(nodes) => {
            nodes.iter().map(size).fold(1, usize::saturating_add)
        }
        Node::Group(_, node) | Node::Atomic(node) | Node::Look { node, .. } => size(node),
        Node::Repeat {
            node, least, most, ..
        } => {
            let copies = most.unwrap_or(*least).max(1) as usize;
            size(node).saturating_mul(copies)
        }
        Node::Conditional { yes, no, .. } => size(yes).saturating_add(size(no)),
        Node::Place(_) | Node::Back { .. } => 1,
    }
}

fn write(node: &Node, source: &mut Source) -> Option<()> {
    match node {
        Node::One(set) => write_set(set, source),
        Node::Concat(nodes) => nodes.iter().try_for_each(|node| write(node, source)),
        Node::Either(nodes) => {
            source.syntax.push_str("(?:");
            for (index, node) in nodes.iter().enumerate() {
                if index > 0 {
                    source.syntax.push('|');
                }
                write(node, source)?;
            }
            source.syntax.push(')');
            Some(())
        }
        Node::Place(place) => write_place(*place, source),
        Node::Group(_, node) => write_grouped(node, source),
        Node::Repeat {
            node,
            least,
            most,
            kind,
        } => {
            if *kind == Kind::Possessive || node.width().0 == 0 {
                return None;
            }
            write_grouped(node, source)?;
            match most {
                Some(most) => write!(source.syntax, "{{{least},{most}}}"),
                None => write!(source.syntax, "{{{least},}}"),
            }
            .ok()?;
            if *kind == Kind::Lazy {
                source.syntax.push('?');
            }
            Some(())
        }
        Node::Back { .. } | Node::Look { .. } | Node::Atomic(_) | Node::Conditional { .. } => None,
    }
}

fn write_grouped(node: &Node, source: &mut Source) -> Option<()> {
    source.syntax.push_str("(?:");
    write(node, source)?;
    source.syntax.push(')');
    Some(())
}

fn write_place(place: Place, source: &mut Source) -> Option<()> {
    source.syntax.push_str(match place {
        Place::TextStart => r"\A",
        Place::LineStart => "(?m:^)",
        Place::TextEnd => r"\z",
        Place::LineEnd => "(?m:$)",
        Place::WordBoundary(_) => {
            source.ascii_only = true;
            r"\b"
        }
        Place::NotWordBoundary(_) | Place::LastLineEnd => return None,
    });
    Some(())
}

fn write_set(set: &Set, source: &mut Source) -> Option<()> {
    let single = match set.items[..] {
        [Item::Range(low, high)] if low == high && !set.negated => char::from_u32(low),
        _ => None,
    };
    if let Some(c) = single {
        if fold::others(c, set.cases).next().is_some() {
            let cases: String = std::iter::once(c)
                .chain(fold::others(c, set.cases))
                .map(escape)
                .collect();
            return write!(source.syntax, "[{cases}]").ok();
        }
        source.syntax.push_str(&escape(c));
        return Some(());
    }
    if set.items.is_empty() {
        // Any character, as a dot with `re.DOTALL` has it.
        source.syntax.push_str("(?s:.)");
        return set.negated.then_some(());
    }
    source.syntax.push_str(if set.negated { "[^" } else { "[" });
    for item in &set.items {
        write_item(item, set.cases, source)?;
    }
    source.syntax.push(']');
    Some(())
}

fn write_item(item: &Item, cases: Cases, source: &mut Source) -> Option<()> {
    match *item {
        Item::Range(low, high) => {
            let (first, last) = (char::from_u32(low)?, char::from_u32(high)?);
            write!(source.syntax, "{}-{}", escape(first), escape(last)).ok()?;
            if cases != Cases::Kept {
                // Wide ranges are left to the machine.
                if high - low > 200 {
                    return None;
                }
                let others = (first..=last).flat_map(|c| fold::others(c, cases));
                source.syntax.extend(others.map(escape));
            }
        }
        Item::Class {
            words: Words::Ascii,
            ..
        } => return None,
        Item::Class { class, negated, .. } => source.syntax.push_str(match (class, negated) {
            (Class::Digit, false) => r"\d",
            (Class::Digit, true) => r"\D",
            (Class::Space, false) => r"[\s\x1c-\x1f]",
            (Class::Space, true) => r"[^\s\x1c-\x1f]",
            (Class::Word, false) => r"[\p{L}\p{N}_]",
            (Class::Word, true) => r"[^\p{L}\p{N}_]",
        }),
    }
    Some(())
}

fn escape(c: char) -> String {
    format!("\\x{{{:x}}}", u32::from(c))
}
