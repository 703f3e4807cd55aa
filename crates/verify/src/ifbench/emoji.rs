//! Emoji as Python's `emoji` 2.15 knows them: every sequence of Unicode 17's list, fully
//! qualified or not.
//!
//! The list comes from the crate `emojis`; sequences of later versions are left out, and the
//! nine components (skin tones, hair), which the crate does not list, are added.

use std::collections::HashSet;
use std::sync::LazyLock;

use emojis::UnicodeVersion;

const ZERO_WIDTH_JOINER: char = '\u{200d}';
/// Asks for emoji presentation of the character before it.
const EMOJI_PRESENTATION: char = '\u{fe0f}';
const TEXT_PRESENTATION: char = '\u{fe0e}';

/// True if `c` alone is an emoji.
pub(super) fn is_emoji(c: char) -> bool {
    LISTED.ends.contains(c.encode_utf8(&mut [0; 4]) as &str)
}

/// The listed sequences and all their beginnings.
struct Listed {
    ends: HashSet<String>,
    beginnings: HashSet<String>,
}

static LISTED: LazyLock<Listed> = LazyLock::new(|| {
    let mut listed = Listed {
        ends: HashSet::new(),
        beginnings: HashSet::new(),
    };
    for emoji in emojis::iter() {
        let tones = emoji.skin_tones().into_iter().flatten();
        for one in std::iter::once(emoji).chain(tones) {
            if one.unicode_version() <= UnicodeVersion::new(17, 0) {
                listed.add_with_unqualified(one.as_str());
            }
        }
    }
    for component in ('\u{1f3fb}'..='\u{1f3ff}').chain('\u{1f9b0}'..='\u{1f9b3}') {
        listed.add(component.to_string());
    }
    listed
});

impl Listed {
    /// Adds a sequence with each of its emoji presentation selectors kept or left out.
    fn add_with_unqualified(&mut self, sequence: &str) {
        let mut spellings = vec![String::new()];
        for c in sequence.chars() {
            let without = if c == EMOJI_PRESENTATION {
                spellings.clone()
            } else {
                Vec::new()
            };
            for spelling in &mut spellings {
                spelling.push(c);
            }
            spellings.extend(without);
        }
        for spelling in spellings {
            self.add(spelling);
        }
    }

    fn add(&mut self, sequence: String) {
        for (at, c) in sequence.char_indices() {
            let beginning = &sequence[..at + c.len_utf8()];
            if !self.beginnings.contains(beginning) {
                self.beginnings.insert(beginning.to_owned());
            }
        }
        self.ends.insert(sequence);
    }

    fn is_beginning(&self, c: char) -> bool {
        self.beginnings.contains(c.encode_utf8(&mut [0; 4]) as &str)
    }

    /// Where the longest beginning of a sequence from `start` on ends, and whether it is a whole
    /// sequence. It does not reach into `joiners`.
    fn walk(&self, chars: &[char], start: usize, joiners: &HashSet<usize>) -> (usize, bool) {
        let mut reached = String::new();
        let mut end = start;
        while end < chars.len() && !joiners.contains(&end) {
            reached.push(chars[end]);
            if !self.beginnings.contains(&reached) {
                reached.pop();
                break;
            }
            end += 1;
        }
        (end, self.ends.contains(&reached))
    }
}

fn is_component(c: char) -> bool {
    matches!(c, '\u{1f3fb}'..='\u{1f3ff}' | '\u{1f9b0}'..='\u{1f9b3}')
}

/// A stretch of the text: an emoji, or one other character.
#[derive(Clone, Copy)]
struct Token {
    start: usize,
    end: usize,
    is_emoji: bool,
}

/// Number of emoji in `text`, and the text without them.
///
/// As the original scans: the longest beginning of a listed sequence is tried, not the longest
/// sequence; at a joiner that follows an emoji without leading to a listed sequence the scan
/// goes back and takes the emoji alone; that joiner, and presentation selectors that belong to
/// no emoji, are dropped.
pub(crate) fn count_and_remove(text: &str) -> (usize, String) {
    let chars: Vec<char> = text.chars().collect();
    let tokens = tokens(&chars);
    let count = tokens.iter().filter(|t| t.is_emoji).count();
    let others = tokens.iter().filter(|t| !t.is_emoji);
    (count, others.map(|t| chars[t.start]).collect())
}

fn tokens(chars: &[char]) -> Vec<Token> {
    let listed = &*LISTED;
    let mut tokens: Vec<Token> = Vec::new();
    let mut settled = 0; // tokens before this one are out of a joiner's reach
    let mut joiners = HashSet::new();
    let mut i = 0;
    while let Some(&c) = chars.get(i) {
        if joiners.contains(&i) {
            i += 1;
            continue;
        }
        if listed.is_beginning(c) {
            let (end, is_emoji) = listed.walk(chars, i, &joiners);
            if is_emoji {
                tokens.push(Token {
                    start: i,
                    end,
                    is_emoji,
                });
                i = end;
                continue;
            }
        } else if c == ZERO_WIDTH_JOINER && joins(chars, i, &tokens[settled..]) {
            joiners.insert(i);
            i = step_back(chars, i, &mut tokens, settled);
            continue;
        } else {
            settled = tokens.len();
        }
        if !matches!(c, TEXT_PRESENTATION | EMOJI_PRESENTATION) {
            let (start, end) = (i, i + 1);
            tokens.push(Token {
                start,
                end,
                is_emoji: false,
            });
        }
        i += 1;
    }
    tokens
}

/// True if the joiner at `i` follows an emoji.
fn joins(chars: &[char], i: usize, unsettled: &[Token]) -> bool {
    unsettled.last().is_some_and(|last| {
        let spelled: String = chars[last.start..last.end].iter().collect();
        LISTED.ends.contains(&spelled) && LISTED.is_beginning(chars[i - 1])
    })
}

/// Takes back the emoji before the joiner at `i`, with the one it modifies if it is a
/// component, and says where to go on.
fn step_back(chars: &[char], i: usize, tokens: &mut Vec<Token>, settled: usize) -> usize {
    let length = |tokens: &[Token]| tokens.iter().map(|t| t.end - t.start).sum::<usize>();
    let last = tokens.len() - 1;
    if !is_component(chars[tokens[last].start]) || tokens[last].end - tokens[last].start > 1 {
        let back = length(&tokens[last..]);
        tokens.truncate(last);
        return i - back;
    }
    let two = last.saturating_sub(1).max(settled);
    let back = i - length(&tokens[two..]);
    if chars[back] == ZERO_WIDTH_JOINER {
        tokens.truncate(last);
        back + 1
    } else {
        tokens.truncate(two);
        back
    }
}

#[cfg(test)]
mod tests {
    use super::{LISTED, count_and_remove, is_emoji};

    fn check(text: &str, count: usize, rest: &str) {
        assert_eq!(count_and_remove(text), (count, rest.to_owned()), "{text:?}");
    }

    #[test]
    fn lists_unicode_17() {
        // Python: len(emoji.EMOJI_DATA) of version 2.15.0, and how many keys have one character.
        assert_eq!(LISTED.ends.len(), 5225);
        let all = ('\0'..=char::MAX).filter(|c| is_emoji(*c));
        assert_eq!(all.count(), 1400);
    }

    #[test]
    fn counts_sequences_once() {
        check("", 0, "");
        check("a1#", 0, "a1#");
        check("\u{1f600}\u{1f600}b", 2, "b");
        check("\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}x", 1, "x");
        check("1\u{fe0f}\u{20e3}1\u{20e3}1", 2, "1");
        check("\u{1f1e9}\u{1f1ea}", 1, "");
        check("\u{2764}\u{fe0f}\u{2764}\u{fe0e}", 2, "");
    }

    #[test]
    fn joiners_that_lead_nowhere_part_emoji() {
        check("\u{1f600}\u{200d}\u{1f600}", 2, "");
        check("\u{1f468}\u{200d}x", 1, "x");
        check("\u{1f468}\u{1f3fd}\u{200d}\u{1f600}", 2, "");
    }
}
