//! Escapes and sets of characters.

use super::{Flags, Parsed, Parser};
use crate::python::re::tree::{Cases, Class, Item, Node, Place, Set};

impl Parser {
    /// What stands after a backslash outside a set.
    pub(super) fn escape(&mut self, flags: Flags) -> Parsed<Node> {
        let start = self.at - 1;
        let Some(c) = self.next() else {
            return Err(self.error_at(start, "bad escape (end of pattern)"));
        };
        let words = flags.words();
        Ok(match c {
            'A' => Node::Place(Place::TextStart),
            'Z' => Node::Place(Place::TextEnd),
            'b' => Node::Place(Place::WordBoundary(words)),
            'B' => Node::Place(Place::NotWordBoundary(words)),
            '1'..='9' => self.reference(c, flags, start)?,
            _ => Node::One(match class(c, flags) {
                Some(item) => Set {
                    items: vec![item],
                    negated: false,
                    cases: Cases::Kept,
                },
                None => Set::one(self.character(c, start)?, flags.cases()),
            }),
        })
    }

    /// A group by number, or a character by three octal digits.
    fn reference(&mut self, first: char, flags: Flags, start: usize) -> Parsed<Node> {
        let mut digits = String::from(first);
        if let Some(second) = self.peek().filter(char::is_ascii_digit) {
            self.at += 1;
            digits.push(second);
            let third = self.peek().filter(|c| is_octal(*c));
            if let Some(third) = third.filter(|_| digits.chars().all(is_octal)) {
                self.at += 1;
                digits.push(third);
                let c = self.octal(&digits, start)?;
                return Ok(Node::One(Set::one(c, flags.cases())));
            }
        }
        let group = digits.parse().unwrap_or(usize::MAX);
        self.back(group, flags, start)
    }

    /// What a group captured.
    pub(super) fn back(&mut self, group: usize, flags: Flags, start: usize) -> Parsed<Node> {
        match group
            .checked_sub(1)
            .and_then(|index| self.groups.get(index))
        {
            None => Err(self.error_at(start, format!("invalid group reference {group}"))),
            Some(None) => Err(self.error_at(start, "cannot refer to an open group")),
            Some(Some(_)) if self.behind.is_some_and(|before| group > before) => {
                let reason = "cannot refer to group defined in the same lookbehind subpattern";
                Err(self.error_at(start, reason))
            }
            Some(Some(_)) => Ok(Node::Back {
                group,
                cases: flags.cases(),
            }),
        }
    }

    fn octal(&self, digits: &str, start: usize) -> Parsed<u32> {
        match u32::from_str_radix(digits, 8) {
            Ok(c) if c <= 0o377 => Ok(c),
            _ => Err(self.error_at(start, "octal escape value outside of range 0-0o377")),
        }
    }

    /// The code point of an escape that stands for one character, after its first letter.
    fn character(&mut self, c: char, start: usize) -> Parsed<u32> {
        Ok(match c {
            'a' => 7,
            'f' => 12,
            'n' => 10,
            'r' => 13,
            't' => 9,
            'v' => 11,
            'x' => self.hex(2, start)?,
            'u' => self.hex(4, start)?,
            'U' => self.hex(8, start)?,
            'N' => return Err(self.error_at(start, "characters by name are not supported")),
            '0' => {
                let mut digits = String::from('0');
                while let Some(digit) = self.peek().filter(|c| is_octal(*c) && digits.len() < 3) {
                    self.at += 1;
                    digits.push(digit);
                }
                self.octal(&digits, start)?
            }
            c if c.is_ascii_alphanumeric() => {
                return Err(self.error_at(start, format!("bad escape \\{c}")));
            }
            c => c.into(),
        })
    }

    fn hex(&mut self, length: usize, start: usize) -> Parsed<u32> {
        let digits: String = self.chars[self.at..].iter().take(length).collect();
        let whole = digits.len() == length && digits.bytes().all(|b| b.is_ascii_hexdigit());
        let value = u32::from_str_radix(&digits, 16).ok();
        match value.filter(|value| whole && *value <= char::MAX as u32) {
            Some(value) => {
                self.at += length;
                Ok(value)
            }
            None => Err(self.error_at(
                start,
                format!("incomplete or bad escape, {length} hexadecimal digits expected"),
            )),
        }
    }

    /// A set after its bracket.
    pub(super) fn set(&mut self, flags: Flags) -> Parsed<Set> {
        let start = self.at - 1;
        let negated = self.eat('^');
        let mut items = Vec::new();
        let first = self.at;
        loop {
            let item_start = self.at;
            let low = match self.next() {
                None => return Err(self.error_at(start, "unterminated character set")),
                Some(']') if item_start > first => break,
                Some(c) => self.set_item(c, flags, item_start)?,
            };
            if !self.eat('-') {
                items.push(low);
                continue;
            }
            let high_start = self.at;
            match self.next() {
                None => return Err(self.error_at(start, "unterminated character set")),
                Some(']') => {
                    items.extend([low, Item::Range('-'.into(), '-'.into())]);
                    break;
                }
                Some(c) => match (low, self.set_item(c, flags, high_start)?) {
                    (Item::Range(low, _), Item::Range(high, _)) if low <= high => {
                        items.push(Item::Range(low, high));
                    }
                    _ => return Err(self.error_at(item_start, "bad character range")),
                },
            }
        }
        Ok(Set {
            items,
            negated,
            cases: flags.cases(),
        })
    }

    fn set_item(&mut self, c: char, flags: Flags, start: usize) -> Parsed<Item> {
        if c != '\\' {
            return Ok(Item::Range(c.into(), c.into()));
        }
        let Some(c) = self.next() else {
            return Err(self.error_at(start, "bad escape (end of pattern)"));
        };
        if let Some(item) = class(c, flags) {
            return Ok(item);
        }
        let c = match c {
            'b' => 8,
            '1'..='9' => return self.set_octal(c, start),
            c => self.character(c, start)?,
        };
        Ok(Item::Range(c, c))
    }

    /// In a set, digits are a character by its octal number or nothing.
    fn set_octal(&mut self, first: char, start: usize) -> Parsed<Item> {
        let mut digits = String::from(first);
        while let Some(digit) = self.peek().filter(|c| is_octal(*c) && digits.len() < 3) {
            self.at += 1;
            digits.push(digit);
        }
        if !digits.chars().all(is_octal) {
            return Err(self.error_at(start, format!("bad escape \\{digits}")));
        }
        let c = self.octal(&digits, start)?;
        Ok(Item::Range(c, c))
    }
}

fn is_octal(c: char) -> bool {
    ('0'..='7').contains(&c)
}

fn class(c: char, flags: Flags) -> Option<Item> {
    let class = match c.to_ascii_lowercase() {
        'd' => Class::Digit,
        's' => Class::Space,
        'w' => Class::Word,
        _ => return None,
    };
    Some(Item::Class {
        class,
        words: flags.words(),
        negated: c.is_ascii_uppercase(),
    })
}
