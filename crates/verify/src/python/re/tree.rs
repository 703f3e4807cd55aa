//! A pattern as a tree.

/// A pattern and what its search needs to know.
pub(super) struct Tree {
    pub(super) root: Node,
    /// Number of groups that capture.
    pub(super) groups: usize,
}

#[derive(Debug, Clone)]
pub(super) enum Node {
    /// One character.
    One(Set),
    /// The nodes one after the other; matches nothing-at-all if empty.
    Concat(Vec<Node>),
    /// The first that lets the rest match.
    Either(Vec<Node>),
    /// A place in the text.
    Place(Place),
    /// A group that captures, by number from 1.
    Group(usize, Box<Node>),
    /// What a group captured.
    Back { group: usize, cases: Cases },
    Repeat {
        node: Box<Node>,
        least: u32,
        /// None: without bound.
        most: Option<u32>,
        kind: Kind,
    },
    /// Matches here without moving, or must not.
    Look {
        node: Box<Node>,
        /// Characters that the node matches, if it must end here.
        behind: Option<usize>,
        negated: bool,
    },
    /// The first match of the node, for good.
    Atomic(Box<Node>),
    /// Depending on whether a group has captured.
    Conditional {
        group: usize,
        yes: Box<Node>,
        no: Box<Node>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Greedy,
    Lazy,
    Possessive,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// `^` and `\A`
    TextStart,
    /// `^` in multi-line mode
    LineStart,
    /// `\Z`
    TextEnd,
    /// `$`: the end, or before a line end that ends the text
    LastLineEnd,
    /// `$` in multi-line mode
    LineEnd,
    WordBoundary(Words),
    NotWordBoundary(Words),
}

/// Which characters are of words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Words {
    Unicode,
    Ascii,
}

/// Which cases are one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Cases {
    /// None.
    #[default]
    Kept,
    /// All.
    Folded,
    /// Those of A to Z.
    AsciiFolded,
}

/// A set of characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Set {
    pub(super) items: Vec<Item>,
    pub(super) negated: bool,
    /// Which cases are one.
    pub(super) cases: Cases,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    /// From the first to the last, by code point; surrogates may be named, and match nothing.
    Range(u32, u32),
    /// `\w` and its like.
    Class {
        class: Class,
        words: Words,
        negated: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Digit,
    Space,
    Word,
}

impl Set {
    pub(super) fn one(c: u32, cases: Cases) -> Self {
        Self {
            items: vec![Item::Range(c, c)],
            negated: false,
            cases,
        }
    }
}

impl Node {
    /// Fewest and most characters that the node matches; none: without bound.
    pub(super) fn width(&self) -> (u64, Option<u64>) {
        match self {
            Self::One(_) => (1, Some(1)),
            Self::Place(_) | Self::Look { .. } => (0, Some(0)),
            // What a group captured is not known here.
            Self::Back { .. } => (0, None),
            Self::Group(_, node) | Self::Atomic(node) => node.width(),
            Self::Concat(nodes) => {
                nodes
                    .iter()
                    .map(Self::width)
                    .fold((0, Some(0)), |sum, width| {
                        let most = sum.1.zip(width.1).map(|(a, b)| a.saturating_add(b));
                        (sum.0.saturating_add(width.0), most)
                    })
            }
            Self::Either(nodes) => {
                let widths = nodes.iter().map(Self::width);
                widths.reduce(widest).unwrap_or((0, Some(0)))
            }
            Self::Conditional { yes, no, .. } => widest(yes.width(), no.width()),
            Self::Repeat {
                node, least, most, ..
            } => {
                let (low, high) = node.width();
                let most = match (high, most) {
                    (Some(0), _) => Some(0),
                    (high, most) => high.zip(*most).map(|(a, b)| a.saturating_mul(b.into())),
                };
                (low.saturating_mul(u64::from(*least)), most)
            }
        }
    }
}

fn widest(a: (u64, Option<u64>), b: (u64, Option<u64>)) -> (u64, Option<u64>) {
    (a.0.min(b.0), a.1.zip(b.1).map(|(a, b)| a.max(b)))
}
