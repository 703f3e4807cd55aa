//! The instructions of the backtracking machine.

use super::SyntaxError;
use super::fold;
use super::tree::{Cases, Kind, Node, Place, Set, Tree};

/// Instructions that a pattern may have; counted repetitions are written out.
const MAX_INSTRUCTIONS: usize = 200_000;

/// One instruction; after most, the next one follows.
#[derive(Debug)]
pub(super) enum Step {
    /// This character.
    Char(char),
    /// A character with these cases.
    Folded(char),
    /// A character of a set, by number.
    Set(usize),
    Place(Place),
    /// As many characters of a set as wanted.
    Run {
        set: usize,
        least: usize,
        most: usize,
        kind: Kind,
    },
    /// Goes on at the first, and at the second if that fails.
    Split(usize, usize),
    Jump(usize),
    /// Notes the place as the start (even) or end (odd) of a group.
    Save(usize),
    /// Notes where an iteration starts.
    Mark(usize),
    /// Goes on there if the iteration has moved; else after this.
    IfMoved(usize, usize),
    Back {
        group: usize,
        cases: Cases,
    },
    /// The instructions up to `end` must match from so many characters before here, or must not.
    Look {
        behind: usize,
        negated: bool,
        end: usize,
    },
    /// The instructions up to `end` match in their first way only.
    Atomic {
        end: usize,
    },
    /// Goes on there if the group has not captured.
    IfNot(usize, usize),
    /// The end of the pattern, of a look or of an atomic group.
    Done,
}

/// A pattern for the machine.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) steps: Vec<Step>,
    pub(super) sets: Vec<Set>,
    pub(super) groups: usize,
    /// Places that iterations note.
    pub(super) marks: usize,
}

impl Program {
    pub(super) fn new(tree: &Tree) -> Result<Self, SyntaxError> {
        let mut program = Self {
            steps: Vec::new(),
            sets: Vec::new(),
            groups: tree.groups,
            marks: 0,
        };
        let written = program.write(&tree.root);
        written.map_err(|TooLarge| SyntaxError {
            reason: format!("too large: more than {MAX_INSTRUCTIONS} instructions"),
            at: 0,
        })?;
        program.steps.push(Step::Done);
        Ok(program)
    }

    fn push(&mut self, step: Step) -> Result<usize, TooLarge> {
        if self.steps.len() >= MAX_INSTRUCTIONS {
            return Err(TooLarge);
        }
        self.steps.push(step);
        Ok(self.steps.len() - 1)
    }

    fn write(&mut self, node: &Node) -> Result<(), TooLarge> {
        match node {
            Node::One(set) => self.one(set),
            Node::Concat(nodes) => nodes.iter().try_for_each(|node| self.write(node)),
            Node::Either(nodes) => self.either(nodes),
            Node::Place(place) => self.push(Step::Place(*place)).map(drop),
            Node::Group(group, node) => {
                self.push(Step::Save(2 * group))?;
                self.write(node)?;
                self.push(Step::Save(2 * group + 1)).map(drop)
            }
            Node::Back { group, cases } => {
                let (group, cases) = (*group, *cases);
                self.push(Step::Back { group, cases }).map(drop)
            }
            Node::Look {
                node,
                behind,
                negated,
            } => {
                let at = self.push(Step::Done)?;
                self.write(node)?;
                let end = self.push(Step::Done)?;
                self.steps[at] = Step::Look {
                    behind: behind.unwrap_or(0),
                    negated: *negated,
                    end,
                };
                Ok(())
            }
            Node::Atomic(node) => self.atomic(|program| program.write(node)),
            Node::Conditional { group, yes, no } => {
                let test = self.push(Step::Done)?;
                self.write(yes)?;
                let jump = self.push(Step::Done)?;
                self.steps[test] = Step::IfNot(*group, jump + 1);
                self.write(no)?;
                self.steps[jump] = Step::Jump(self.steps.len());
                Ok(())
            }
            Node::Repeat {
                node,
                least,
                most,
                kind,
            } => self.repeat(node, *least, *most, *kind),
        }
    }

    fn one(&mut self, set: &Set) -> Result<(), TooLarge> {
        let step = match (single(set), set.cases) {
            (Some(c), Cases::Kept) => Step::Char(c),
            (Some(c), Cases::Folded) => Step::Folded(fold::canon(c)),
            _ => Step::Set(self.set(set)),
        };
        self.push(step).map(drop)
    }

    fn set(&mut self, set: &Set) -> usize {
        if let Some(known) = self.sets.iter().position(|known| known == set) {
            return known;
        }
        self.sets.push(set.clone());
        self.sets.len() - 1
    }

    fn either(&mut self, nodes: &[Node]) -> Result<(), TooLarge> {
        let mut jumps = Vec::new();
        for (index, node) in nodes.iter().enumerate() {
            if index + 1 == nodes.len() {
                self.write(node)?;
                break;
            }
            let split = self.push(Step::Done)?;
            self.write(node)?;
            jumps.push(self.push(Step::Done)?);
            self.steps[split] = Step::Split(split + 1, self.steps.len());
        }
        for jump in jumps {
            self.steps[jump] = Step::Jump(self.steps.len());
        }
        Ok(())
    }

    fn atomic(
        &mut self,
        write: impl FnOnce(&mut Self) -> Result<(), TooLarge>,
    ) -> Result<(), TooLarge> {
        let at = self.push(Step::Done)?;
        write(self)?;
        let end = self.push(Step::Done)?;
        self.steps[at] = Step::Atomic { end };
        Ok(())
    }

    fn repeat(
        &mut self,
        node: &Node,
        least: u32,
        most: Option<u32>,
        kind: Kind,
    ) -> Result<(), TooLarge> {
        if let Node::One(set) = node {
            let step = Step::Run {
                set: self.set(set),
                least: least as usize,
                most: most.map_or(usize::MAX, |most| most as usize),
                kind,
            };
            return self.push(step).map(drop);
        }
        if kind == Kind::Possessive {
            return self.atomic(|program| program.repeat(node, least, most, Kind::Greedy));
        }
        // More iterations of something empty change nothing but the size.
        let (_, widest) = node.width();
        let bound = if widest == Some(0) { 1 } else { u32::MAX };
        for _ in 0..least.min(bound) {
            self.write(node)?;
        }
        match most {
            None => self.star(node, kind),
            Some(most) => self.options(node, (most - least).min(bound), kind),
        }
    }

    /// Up to `count` more.
    fn options(&mut self, node: &Node, count: u32, kind: Kind) -> Result<(), TooLarge> {
        let mut splits = Vec::new();
        for _ in 0..count {
            splits.push(self.push(Step::Done)?);
            self.write(node)?;
        }
        let end = self.steps.len();
        for split in splits {
            self.steps[split] = branch(split + 1, end, kind);
        }
        Ok(())
    }

    /// Any number more; an iteration that does not move is the last.
    fn star(&mut self, node: &Node, kind: Kind) -> Result<(), TooLarge> {
        let mark = self.marks;
        self.marks += 1;
        let split = self.push(Step::Done)?;
        self.push(Step::Mark(mark))?;
        self.write(node)?;
        self.push(Step::IfMoved(mark, split))?;
        self.steps[split] = branch(split + 1, self.steps.len(), kind);
        Ok(())
    }
}

fn branch(enter: usize, leave: usize, kind: Kind) -> Step {
    match kind {
        Kind::Lazy => Step::Split(leave, enter),
        Kind::Greedy | Kind::Possessive => Step::Split(enter, leave),
    }
}

/// The one character of a set that has just that.
fn single(set: &Set) -> Option<char> {
    match set.items[..] {
        [super::tree::Item::Range(low, high)] if low == high && !set.negated => char::from_u32(low),
        _ => None,
    }
}

/// The pattern needs too many instructions.
struct TooLarge;
