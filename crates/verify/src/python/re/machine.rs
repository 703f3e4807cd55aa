//! A backtracking search with a bound on its steps, after the order in which Python's engine
//! tries things.

use super::GaveUp;
use super::fold::{canon, is_word, key};
use super::program::{Program, Step};
use super::tree::{Cases, Kind, Place, Words};

/// Steps of one search over a whole text: a fraction of a second.
const MAX_STEPS: u64 = 10_000_000;

/// Alternatives that may be open at once.
const MAX_OPEN: usize = 2_000_000;

/// Something to go back to.
#[derive(Debug, Clone, Copy)]
enum Open {
    /// Try there.
    Try { step: u32, at: u32 },
    /// Try there with one character less, down to the least place.
    Fewer { step: u32, at: u32, least: u32 },
    /// Try there with one character more of the set, up to the greatest number of times.
    More { step: u32, at: u32, left: u32 },
    /// Put this place back into a register.
    Restore { register: u32, place: u32 },
}

/// No place: a group that has not captured.
const NOWHERE: u32 = u32::MAX;

pub(super) struct Machine<'a> {
    program: &'a Program,
    text: Vec<char>,
    /// Starts and ends of groups, then the marks of iterations.
    registers: Vec<u32>,
    open: Vec<Open>,
    steps_left: u64,
    /// Where an empty match of the whole pattern does not count.
    not_empty_at: Option<usize>,
}

impl<'a> Machine<'a> {
    pub(super) fn new(program: &'a Program, text: &str) -> Self {
        Self {
            program,
            text: text.chars().collect(),
            registers: vec![NOWHERE; 2 * (program.groups + 1) + program.marks],
            open: Vec::new(),
            steps_left: MAX_STEPS,
            not_empty_at: None,
        }
    }

    pub(super) fn finds(mut self) -> Result<bool, GaveUp> {
        Ok(self.search(0)?.is_some())
    }

    pub(super) fn count(mut self) -> Result<usize, GaveUp> {
        let (mut count, mut from) = (0, 0);
        while let Some((start, end)) = self.search(from)? {
            count += 1;
            from = end;
            self.registers.fill(NOWHERE);
            self.open.clear();
            let cost = self.registers.len() as u64 / 8;
            self.steps_left = self.steps_left.checked_sub(cost).ok_or(GaveUp)?;
            self.not_empty_at = (start == end).then_some(end);
        }
        Ok(count)
    }

    /// The first match from a place on.
    fn search(&mut self, from: usize) -> Result<Option<(usize, usize)>, GaveUp> {
        if self.text.len() >= NOWHERE as usize {
            return Err(GaveUp);
        }
        for start in from..=self.text.len() {
            // A search that fails restores every register; one that succeeds leaves them.
            if let Some(end) = self.run(0, start, start, None)? {
                return Ok(Some((start, end)));
            }
        }
        Ok(None)
    }

    /// Runs from a step and place to [`Step::Done`]; gives the place where that was reached. A
    /// look behind must be done at `must_end`. What is open below on entry stays untouched.
    fn run(
        &mut self,
        step: usize,
        at: usize,
        start: usize,
        must_end: Option<usize>,
    ) -> Result<Option<usize>, GaveUp> {
        let program = self.program;
        let bottom = self.open.len();
        let (mut step, mut at) = (step, at);
        loop {
            self.steps_left = self.steps_left.checked_sub(1).ok_or(GaveUp)?;
            if self.open.len() > MAX_OPEN {
                return Err(GaveUp);
            }
            let next = match &program.steps[step] {
                Step::Done => {
                    let whole = step + 1 == program.steps.len();
                    let empty = whole && at == start && self.not_empty_at == Some(at);
                    if !empty && must_end.is_none_or(|end| end == at) {
                        return Ok(Some(at));
                    }
                    None
                }
                Step::Look {
                    behind,
                    negated,
                    end,
                } => self
                    .look(step, at, *behind, *negated)?
                    .then_some((end + 1, at)),
                Step::Atomic { end } => {
                    let below = self.open.len();
                    let found = self.run(step + 1, at, start, None)?;
                    self.close(below);
                    found.map(|at| (end + 1, at))
                }
                Step::Run { .. } => self.characters(step, at),
                other => self.simple(other, step, at),
            };
            (step, at) = match next {
                Some(next) => next,
                None => match self.back(bottom) {
                    Some(next) => next,
                    None => return Ok(None),
                },
            };
        }
    }

    /// Forgets the alternatives above a level, but keeps what must be restored.
    fn close(&mut self, level: usize) {
        let mut keep = level;
        for index in level..self.open.len() {
            if matches!(self.open[index], Open::Restore { .. }) {
                self.open[keep] = self.open[index];
                keep += 1;
            }
        }
        self.open.truncate(keep);
    }

    fn look(
        &mut self,
        step: usize,
        at: usize,
        behind: usize,
        negated: bool,
    ) -> Result<bool, GaveUp> {
        let Some(from) = at.checked_sub(behind) else {
            return Ok(negated);
        };
        let level = self.open.len();
        let must_end = (behind > 0).then_some(at);
        let found = self.run(step + 1, from, from, must_end)?.is_some();
        if found && !negated {
            self.close(level);
        } else {
            // What a refused look captured is undone.
            self.undo(level);
        }
        Ok(found != negated)
    }

    fn undo(&mut self, level: usize) {
        while self.open.len() > level {
            if let Some(Open::Restore { register, place }) = self.open.pop() {
                self.registers[register as usize] = place;
            }
        }
    }

    fn simple(&mut self, instruction: &Step, step: usize, at: usize) -> Option<(usize, usize)> {
        let c = self.text.get(at).copied();
        let program = self.program;
        let moved = Some((step + 1, at + 1));
        let stay = Some((step + 1, at));
        match *instruction {
            Step::Char(wanted) => moved.filter(|_| c == Some(wanted)),
            Step::Folded(wanted) => moved.filter(|_| c.map(canon) == Some(wanted)),
            Step::Set(set) => moved.filter(|_| c.is_some_and(|c| program.sets[set].holds(c))),
            Step::Place(place) => stay.filter(|_| self.is_place(place, at)),
            Step::Split(first, second) => {
                self.open.push(Open::Try {
                    step: second as u32,
                    at: at as u32,
                });
                Some((first, at))
            }
            Step::Jump(there) => Some((there, at)),
            Step::Save(register) => {
                self.set_register(register, at as u32);
                stay
            }
            Step::Mark(mark) => {
                self.set_register(2 * (program.groups + 1) + mark, at as u32);
                stay
            }
            Step::IfMoved(mark, there) => {
                let start = self.registers[2 * (program.groups + 1) + mark];
                let next = if start == at as u32 { step + 1 } else { there };
                Some((next, at))
            }
            Step::Back { group, cases } => self.captured(group, cases, at).map(|at| (step + 1, at)),
            Step::IfNot(group, there) => {
                let next = if self.group(group).is_some() {
                    step + 1
                } else {
                    there
                };
                Some((next, at))
            }
            Step::Done | Step::Look { .. } | Step::Atomic { .. } | Step::Run { .. } => None,
        }
    }

    fn set_register(&mut self, register: usize, place: u32) {
        self.open.push(Open::Restore {
            register: register as u32,
            place: self.registers[register],
        });
        self.registers[register] = place;
    }

    fn group(&self, group: usize) -> Option<(usize, usize)> {
        let (start, end) = (self.registers[2 * group], self.registers[2 * group + 1]);
        (start != NOWHERE && end != NOWHERE && start <= end)
            .then_some((start as usize, end as usize))
    }

    /// The place after the text that the group captured, if it stands here again.
    fn captured(&mut self, group: usize, cases: Cases, at: usize) -> Option<usize> {
        let (start, end) = self.group(group)?;
        let length = end - start;
        self.steps_left = self.steps_left.saturating_sub(length as u64);
        let here = self.text.get(at..at + length)?;
        let alike = |(a, b): (&char, &char)| key(*a, cases) == key(*b, cases);
        let same = self.text[start..end].iter().zip(here).all(alike);
        same.then_some(at + length)
    }

    /// A run of characters of one set.
    fn characters(&mut self, step: usize, at: usize) -> Option<(usize, usize)> {
        let program = self.program;
        let Step::Run {
            set,
            least,
            most,
            kind,
        } = program.steps[step]
        else {
            return None;
        };
        let set = &program.sets[set];
        let wanted = if kind == Kind::Lazy { least } else { most };
        let limit = at.saturating_add(wanted).min(self.text.len());
        let run = self.text[at..limit]
            .iter()
            .take_while(|c| set.holds(**c))
            .count();
        // Eight characters of a run cost about as much as one step.
        self.steps_left = self.steps_left.saturating_sub(run as u64 / 8);
        if run < least {
            return None;
        }
        let end = at + run;
        match kind {
            Kind::Possessive => {}
            Kind::Greedy if run > least => self.open.push(Open::Fewer {
                step: step as u32 + 1,
                at: end as u32,
                least: (at + least) as u32,
            }),
            Kind::Greedy => {}
            Kind::Lazy => self.open.push(Open::More {
                step: step as u32,
                at: end as u32,
                left: u32::try_from(most - least).unwrap_or(u32::MAX),
            }),
        }
        Some((step + 1, end))
    }

    /// Takes the last alternative above a level.
    fn back(&mut self, level: usize) -> Option<(usize, usize)> {
        while self.open.len() > level {
            match self.open.pop()? {
                Open::Try { step, at } => return Some((step as usize, at as usize)),
                Open::Restore { register, place } => self.registers[register as usize] = place,
                Open::Fewer { step, at, least } => {
                    let at = at - 1;
                    if at > least {
                        self.open.push(Open::Fewer { step, at, least });
                    }
                    return Some((step as usize, at as usize));
                }
                Open::More { step, at, left } => {
                    if let Some(next) = self.one_more(step, at, left) {
                        return Some(next);
                    }
                }
            }
        }
        None
    }

    fn one_more(&mut self, step: u32, at: u32, left: u32) -> Option<(usize, usize)> {
        let program = self.program;
        let Step::Run { set, .. } = program.steps[step as usize] else {
            return None;
        };
        let c = self.text.get(at as usize)?;
        if left == 0 || !program.sets[set].holds(*c) {
            return None;
        }
        let (at, left) = (at + 1, left - 1);
        self.open.push(Open::More { step, at, left });
        Some((step as usize + 1, at as usize))
    }

    fn is_place(&self, place: Place, at: usize) -> bool {
        let end = self.text.len();
        let line_end = |at: usize| self.text.get(at) == Some(&'\n');
        match place {
            Place::TextStart => at == 0,
            Place::LineStart => at == 0 || line_end(at - 1),
            Place::TextEnd => at == end,
            Place::LastLineEnd => at == end || (at + 1 == end && line_end(at)),
            Place::LineEnd => at == end || line_end(at),
            Place::WordBoundary(words) => self.is_boundary(words, at),
            // To CPython 3.11, an empty text has no place that is not a boundary.
            Place::NotWordBoundary(words) => end > 0 && !self.is_boundary(words, at),
        }
    }

    fn is_boundary(&self, words: Words, at: usize) -> bool {
        let is_word = |c: &char| is_word(words, *c);
        let before = at > 0 && is_word(&self.text[at - 1]);
        before != self.text.get(at).is_some_and(is_word)
    }
}
